"""The runner's Jupyter client, against a real Jupyter server on this machine."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from pydantic import SecretStr

from labs.runner.clients.jupyter import Kernel, KernelDiedError, NotebookServer, text_of
from labs.runner.clients.session import GatewaySession, NoAnswerError

BASE = "/notebook/demo-alice/gpu-notebook"
PASSWORD = "correct horse battery staple"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("workspace")


@pytest.fixture(scope="module")
def server(workspace: Path) -> Iterator[NotebookServer]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    home = workspace.parent / "home"
    home.mkdir(exist_ok=True)
    command = [
        sys.executable,
        "-m",
        "jupyter_server",
        "--no-browser",
        "--allow-root",
        f"--port={port}",
        "--ip=127.0.0.1",
    ]
    command += [f"--ServerApp.base_url={BASE}", "--IdentityProvider.token=", f"--ServerApp.root_dir={workspace}"]
    environment = {**os.environ, "HOME": str(home), "IPYTHONDIR": str(home / "ipython"), "JUPYTER_DATA_DIR": str(home)}
    with (home / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        session = GatewaySession(f"http://127.0.0.1:{port}", None, "alice@example.org", SecretStr(PASSWORD))
        notebooks = NotebookServer(session, BASE)
        notebooks.wait(until=time.monotonic() + 30, pause=lambda _: time.sleep(0.1))
        yield notebooks
        session.close()
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def kernel(server: NotebookServer) -> Iterator[Kernel]:
    server.make_folder("rehearsal")
    with server.kernel("rehearsal/lesson.ipynb") as started:
        yield started


def run(kernel: Kernel, source: str, seconds: float = 30) -> tuple[str, str]:
    done = kernel.execute(source, timeout_seconds=seconds, cancelled=threading.Event())
    return done.state, text_of(done.outputs)


def test_a_stored_notebook_and_file_read_back_as_they_were(server: NotebookServer) -> None:
    notebook = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": []}
    server.write_notebook("lesson.ipynb", notebook)
    server.write_text("beside.py", "x = 1\n")
    stored = server.read("lesson.ipynb")
    assert stored is not None
    assert stored["content"] == notebook
    assert server.read_text("beside.py") == "x = 1\n"
    assert "nbformat" in (server.read_text("lesson.ipynb") or "")


def test_what_is_not_there_reads_as_nothing(server: NotebookServer) -> None:
    assert server.read("absent.ipynb") is None
    assert server.read_text("absent.txt") is None
    assert server.read_kind("absent") is None


def test_making_a_folder_twice_leaves_what_is_in_it(server: NotebookServer) -> None:
    server.make_folder("twice")
    server.write_text("twice/kept.txt", "kept")
    server.make_folder("twice")
    assert server.read_text("twice/kept.txt") == "kept"


def test_a_cell_is_done_when_all_its_output_has_come(kernel: Kernel) -> None:
    state, output = run(kernel, "for i in range(2000): print(i)\n'last'")
    assert state == "ok"
    assert output.startswith("0\n1\n")
    assert output.endswith("1999\n'last'")


def test_cells_share_what_they_defined_and_work_in_the_notebooks_folder(kernel: Kernel, workspace: Path) -> None:
    run(kernel, "import os\nplace = os.getcwd()")
    assert run(kernel, "print(place)") == ("ok", str(workspace / "rehearsal"))


def test_an_error_is_named_and_its_traceback_kept(kernel: Kernel) -> None:
    done = kernel.execute("1 / 0", timeout_seconds=30, cancelled=threading.Event())
    assert (done.state, done.error) == ("error", "ZeroDivisionError: division by zero")
    assert "ZeroDivisionError" in text_of(done.outputs)
    assert "\x1b" not in text_of(done.outputs)


def test_a_cell_that_asks_a_question_fails_instead_of_waiting(kernel: Kernel) -> None:
    done = kernel.execute("input('who? ')", timeout_seconds=30, cancelled=threading.Event())
    assert done.state == "error"
    assert "StdinNotImplementedError" in done.error


def test_a_cell_over_its_time_is_interrupted_and_the_kernel_goes_on(kernel: Kernel) -> None:
    state, _ = run(kernel, "import time\ntime.sleep(60)", seconds=1)
    assert state == "timeout"
    assert run(kernel, "print('still here')") == ("ok", "still here")


def test_cancelling_stops_a_running_cell(kernel: Kernel) -> None:
    cancelled = threading.Event()
    threading.Timer(0.5, cancelled.set).start()
    started = time.monotonic()
    done = kernel.execute("import time\ntime.sleep(60)", timeout_seconds=120, cancelled=cancelled)
    assert done.state == "timeout"
    assert time.monotonic() - started < 10


def test_the_password_reaches_the_kernel_and_neither_history_nor_files(kernel: Kernel, workspace: Path) -> None:
    (workspace / "rehearsal" / "stale.yaml").write_text("from an earlier rehearsal")
    kernel.prepare({"KUBEFLOW_PASSWORD": PASSWORD}, forget=["stale.yaml", "never-was.yaml"])
    assert not (workspace / "rehearsal" / "stale.yaml").exists()
    assert run(kernel, "print(len(os.environ['KUBEFLOW_PASSWORD']))") == ("ok", str(len(PASSWORD)))
    assert PASSWORD not in run(kernel, "%history -g")[1]
    holding = [
        path for path in workspace.parent.rglob("*") if path.is_file() and PASSWORD.encode() in path.read_bytes()
    ]
    assert holding == []


def test_a_kernel_that_dies_is_named_and_its_session_ended(server: NotebookServer) -> None:
    with server.kernel("dying.ipynb") as dying:
        done = dying.execute("import os\nos._exit(1)", timeout_seconds=60, cancelled=threading.Event())
    assert done.state == "dead"
    assert "kernel" in done.error
    assert server.kernel_state(dying.id) == "gone"


def kernels(server: NotebookServer) -> set[str]:
    """The ids of those that run."""
    return {one["id"] for one in server.session.call("GET", f"{BASE}/api/kernels").json()}


def test_a_kernel_that_fails_to_connect_is_named_and_its_session_ended(server: NotebookServer) -> None:
    before = kernels(server)
    with pytest.raises(KernelDiedError, match="refused"), server.kernel("refused.ipynb"):
        Kernel(server, "no-such-kernel").connect()
    assert kernels(server) == before


def test_outputs_are_what_a_notebook_stores(kernel: Kernel) -> None:
    source = "from IPython.display import HTML, display\ndisplay(HTML('<b>bold</b>'))\n6 * 7"
    done = kernel.execute(source, timeout_seconds=30, cancelled=threading.Event())
    assert [output["output_type"] for output in done.outputs] == ["display_data", "execute_result"]
    assert done.outputs[1]["data"]["text/plain"] == "42"
    assert json.dumps(done.outputs)


def test_a_server_that_does_not_answer_is_named_after_its_time() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        absent = NotebookServer(GatewaySession(url, None, "alice@example.org", SecretStr("-")), BASE)
        with pytest.raises(NoAnswerError, match="did not answer"):
            absent.wait(until=time.monotonic(), pause=lambda _: None)


def test_a_changing_call_without_the_token_is_refused_so_the_token_matters(server: NotebookServer) -> None:
    url = f"{server.session.url}{BASE}/api/contents/x.txt"
    bare = requests.put(url, json={"type": "file", "format": "text", "content": ""}, timeout=10)
    assert bare.status_code == 403
