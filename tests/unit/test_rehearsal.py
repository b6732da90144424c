"""A whole rehearsal on this machine: real Jupyter server, kernel and SDK, a stand-in for the login and KFP's API."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from infra.spec import Student
from labs.runner import lab as labs
from labs.runner import rehearsal
from labs.runner.facts import Facts
from labs.runner.mlmd import Artifact, Event, Execution
from labs.runner.rehearsal import Rehearsal, Seat
from labs.runner.result import judged
from labs.runner.session import GatewaySession
from tests.unit.fake_gateway import SESSION

PASSWORD = "correct horse battery staple"
NAMESPACE = "demo-alice"
EDITED = "return a - b  # my own idea"
LAB = labs.load("simple_pipeline")


class NoCluster:
    """An operator's view that holds nothing: no workflow, no metadata, no objects."""

    def workflow(self, *_: str) -> dict[str, Any] | None:
        return None

    def why_not_ready(self, *_: str) -> str:
        return ""

    def metadata(self) -> "NoCluster":
        return self

    def run(self, *_: str) -> tuple[list[Execution], list[Artifact], list[Event]]:
        return [], [], []

    def objects(self, *_: str) -> list[tuple[str, int]]:
        return []


@dataclass(frozen=True, kw_only=True)
class Place:
    """A running stand-in, and the student's workspace behind it."""

    url: str
    workspace: Path
    said: list[str]

    def rehearse(self, password: str = PASSWORD, lab: labs.Lab = LAB) -> Facts:
        session = GatewaySession(self.url, None, "alice@example.org", SecretStr(password))
        student = Student(id="alice", email="alice@example.org", name="Alice")
        seat = Seat(
            student=student,
            namespace=NAMESPACE,
            bucket=NAMESPACE,
            image="localhost/notebook:1",
            session=session,
            password=SecretStr(password),
        )
        try:
            return Rehearsal(
                lab=lab,
                seat=seat,
                cluster=NoCluster(),  # type: ignore[arg-type]  it has the methods that are called
                submitting=threading.Lock(),
                tell=lambda done, what: self.said.append(f"{done} {what}"),
                cancelled=threading.Event(),
            ).run()
        finally:
            session.close()


@contextmanager
def place(home: Path, **environment: str) -> Iterator[Place]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    workspace = home / "workspace"
    workspace.mkdir(parents=True)
    base = f"/notebook/{NAMESPACE}/gpu-notebook"
    command = [
        sys.executable,
        "-m",
        "jupyter_server",
        "--no-browser",
        "--allow-root",
        f"--port={port}",
        "--ip=127.0.0.1",
    ]
    command += [f"--ServerApp.base_url={base}", "--IdentityProvider.token=", f"--ServerApp.root_dir={workspace}"]
    command += ["--ServerApp.jpserver_extensions={'tests.unit.fake_gateway': True}"]
    inside = {
        **os.environ,
        "HOME": str(home),
        "IPYTHONDIR": str(home / "ipython"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "PYTHONPATH": str(Path.cwd()),
        "NB_PREFIX": base,
        "FAKE_PASSWORD": PASSWORD,
        **environment,
    }
    with (home / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=inside)
    try:
        yield Place(url=f"http://127.0.0.1:{port}", workspace=workspace, said=[])
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def well(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(tmp_path_factory.mktemp("well")) as made:
        yield made


@pytest.fixture(autouse=True, scope="module")
def _soon() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rehearsal, "_LOST_AFTER_SECONDS", 0.5)
        patch.setattr(rehearsal, "_SECONDS_BETWEEN_LOOKS", 0.3)
        yield


@pytest.fixture(scope="module")
def good(well: Place) -> Facts:
    """A rehearsal where all is well."""
    return well.rehearse()


@pytest.fixture(scope="module")
def broken(well: Place, good: Facts, tmp_path_factory: pytest.TempPathFactory) -> Facts:
    """A later rehearsal of a lab whose multiply cell fails, for a student who has edited their own copy in between."""
    assert good.runs
    own = well.workspace / "simple_pipeline.ipynb"
    own.write_text(own.read_text().replace("return a + b", EDITED))
    folder = tmp_path_factory.mktemp("lab")
    source = (LAB.folder / "simple_pipeline.py").read_text()
    (folder / "simple_pipeline.py").write_text(source.replace("return a * b", "return a * b\n\n\n1 / 0"))
    (folder / "kubeflow_login.py").write_text((labs.LABS / "kubeflow_login.py").read_text())
    beside = LAB.notebook.model_copy(update={"beside": ("kubeflow_login.py",)})
    return well.rehearse(lab=LAB.model_copy(update={"folder": folder, "notebook": beside}))


def states(seen: Facts) -> dict[str, str]:
    return {step.id: step.state for step in judged(LAB, seen)}


def test_a_rehearsal_does_every_step_in_the_students_own_server(well: Place, good: Facts) -> None:
    found = states(good)
    assert good.gaps == {}
    assert [step for step, state in found.items() if state != "pass"] == ["2-5", "namespace", "bucket"]
    assert good.runs[0].state == "SUCCEEDED"
    assert [task.after for task in good.runs[0].tasks] == [(), ("add",)]
    assert "9 2-1" in well.said
    assert (well.workspace / "simple_pipeline.ipynb").exists()
    assert (well.workspace / "kubeflow_login.py").exists()
    executed = json.loads((well.workspace / "rehearsal/simple_pipeline/simple_pipeline.ipynb").read_text())
    assert executed["cells"][-1]["outputs"]


def test_no_secret_is_left_in_any_file_or_fact(well: Place, good: Facts) -> None:
    for secret in (PASSWORD, SESSION):
        assert secret not in good.model_dump_json()
        holding = [f for f in well.workspace.parent.rglob("*") if f.is_file() and secret.encode() in f.read_bytes()]
        assert holding == []


def test_a_notebook_that_the_student_edited_is_left_as_it_is(well: Place, broken: Facts) -> None:
    assert EDITED in (well.workspace / "simple_pipeline.ipynb").read_text()
    assert broken.seed is not None
    assert broken.seed.state == "edited"


def test_a_cell_that_fails_ends_the_rehearsal_and_no_stale_file_passes_for_a_new_one(broken: Facts) -> None:
    found = states(broken)
    assert found["1-8"] == "pass"
    assert found["1-9"] == "fail"
    assert {found[step] for step in ("1-10", "1-11", "1-12", "2-1", "2-3", "2-5", "bucket")} == {"not-yet"}
    assert "ZeroDivisionError" in (broken.cell("multiply") or broken.cells[0]).error


def test_a_wrong_password_is_told_and_nothing_is_touched(well: Place, good: Facts) -> None:
    assert good.runs
    before = {path: path.stat().st_mtime_ns for path in well.workspace.rglob("*")}
    seen = well.rehearse(password="not the password")
    assert seen.login is not None
    assert "refused the password of alice@example.org" in seen.login.error
    assert "not the password" not in seen.model_dump_json()
    assert set(states(seen).values()) == {"fail", "not-yet"}
    assert {path: path.stat().st_mtime_ns for path in well.workspace.rglob("*")} == before


def test_a_run_that_kfp_lost_is_taken_back_and_submitted_again(tmp_path: Path) -> None:
    with place(tmp_path / "home", FAKE_LOSES="1", FAKE_RESTARTS="1") as made:
        seen = made.rehearse()
    assert states(seen)["2-3"] == "pass"
    assert seen.runs[0].resubmitted == 1
    assert len(seen.runs) == 1
    assert any("lost the run" in note for note in seen.notes)
    assert any("a service was restarting" in note for note in seen.notes)
