"""A whole rehearsal on this machine: real Jupyter server, kernel and SDK, a stand-in for the login and KFP's API."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from pydantic import SecretStr

from infra.spec import ClassSpec, Platform, Student
from infra.steps import Cancelled
from labs.runner import lab as labs
from labs.runner import runs
from labs.runner import seed as seeding
from labs.runner.cells import FILE_CHARACTERS
from labs.runner.clients.mlmd import Artifact, Event, Execution
from labs.runner.clients.pipelines import Pipelines
from labs.runner.clients.session import GatewaySession
from labs.runner.facts import Facts
from labs.runner.leftovers import now
from labs.runner.rehearsal import Rehearsal, Seat
from labs.runner.result import judged
from labs.runner.seed import compared, seed_data
from tests.unit.fake_gateway import LATER_SESSION, SESSION

PASSWORD = "correct horse battery staple"
BUCKET_SECRET = "wJalrXUtnFEMI-K7MDENG"
NAMESPACE = "demo-alice"
EDITED = "return a - b  # my own idea"
LAB = labs.load("simple_pipeline")
STARTS = next(step.id for step in LAB.steps if step.start)
"""The lab that is taught. Its notebook imports the SDK, which takes seconds: a rehearsal of it serves many tests."""

SMALL_LAB = """
name: simple_pipeline
title: {en: A lab that is done in a second}
notebook: {source: simple_pipeline.py, server: gpu-notebook, beside: [kubeflow_login.py]}
steps:
  - {id: login, title: {en: x}, does: login, checks: [{kind: login}]}
  - {id: 1-4, title: {en: x}, does: seed, checks: [{kind: seeded}]}
  - {id: 1-5, title: {en: x}, does: cell, cell: import, checks: [{kind: cell}]}
  - {id: 1-8, title: {en: x}, does: cell, cell: add, checks: [{kind: cell}]}
  - id: 1-11
    title: {en: x}
    does: cell
    cell: compile
    checks: [{kind: cell}, {kind: file, path: math_pipeline.yaml}]
  - id: 2-1
    title: {en: x}
    does: cell
    cell: run
    submits_run: true
    checks: [{kind: submitted, run: 2-1, name: math_pipeline run}, {kind: experiment, name: experiment}]
  - {id: 2-3, title: {en: x}, does: look, checks: [{kind: state, run: 2-1}]}
  - {id: 3-1, title: {en: x}, does: fetch, fetch: math_pipeline.yaml, checks: [{kind: login}]}
  - id: 3-2
    title: {en: x}
    does: upload
    upload: {file: math_pipeline.yaml, name: second math_pipeline}
    checks: [{kind: login}]
  - id: 3-4
    title: {en: x}
    does: start
    start: {pipeline: 3-2, name: Run of second math_pipeline, experiment: experiment, parameters: {a: 4}}
    checks: [{kind: state, run: 3-4}]
"""
SMALL_NOTEBOOK = """
# %% tags=["import"]
import os
from pathlib import Path
from kubeflow_login import login

# %% tags=["add"]
def add(a, b):
    return a + b

# %% tags=["compile"]
Path("math_pipeline.yaml").write_text(f"pipelineInfo:\\n  name: sum-is-{add(1, 2)}")

# %% tags=["run"]
session = login("{{ host }}", "{{ email }}", os.environ["KUBEFLOW_PASSWORD"])
api = "{{ host }}pipeline/apis/v2beta1"
made = session.post(f"{api}/experiments", json={"display_name": "experiment"}).json()
run = session.post(f"{api}/runs", json={"display_name": "math_pipeline run", "experiment_id": made["experiment_id"]})
run.raise_for_status()
print(f"{api}/#/runs/details/{run.json()['run_id']}")
"""


class NoCluster:
    """An operator's view that holds nothing: no workflow, no pod, no metadata, no objects."""

    def workflow(self, *_: str) -> dict[str, Any] | None:
        return None

    def pods(self, *_: object) -> list[dict[str, Any]]:
        return []

    def why_not_ready(self, *_: str) -> str:
        return ""

    def metadata(self, *_: str) -> "NoCluster":
        return self

    def pipeline_root(self, *_: str) -> str:
        return ""

    def run(self, *_: str) -> tuple[list[Execution], list[Artifact], list[Event]]:
        return [], [], []

    def objects(self, *_: str) -> list[tuple[str, int]]:
        return []

    def tails(self, *_: object) -> dict[str, str]:
        return {}

    def bucket_secret(self, _: str) -> SecretStr:
        return SecretStr(BUCKET_SECRET)

    def close(self) -> None:
        return None


class FakeBucket:
    """A bucket with the student's own work in it; a run's objects appear below its id as soon as it is asked for."""

    def __init__(self) -> None:
        self.name = NAMESPACE
        self.held: dict[str, bytes] = {"artifacts/mine/model.bin": b"the student's"}
        self.runs: list[str] = []

    def keys(self, prefix: str) -> list[str]:
        return [key for key in self.held if key.startswith(prefix)]

    def put_new(self, key: str, data: bytes) -> str:
        if key in self.held:
            return "unchanged" if self.held[key] == data else "other"
        self.held[key] = data
        return "made"

    def remove(self, keys: Iterable[str]) -> None:
        for key in list(keys):
            self.held.pop(key)


@dataclass(kw_only=True)
class Place:
    """A running stand-in, and the student's workspace behind it."""

    url: str
    workspace: Path
    said: list[str] = field(default_factory=list)
    bucket: FakeBucket = field(default_factory=FakeBucket)
    cancelled: threading.Event = field(default_factory=threading.Event)

    def rehearsal(self, password: str = PASSWORD, lab: labs.Lab = LAB, **how: Any) -> Rehearsal:
        session = GatewaySession(self.url, None, "alice@example.org", SecretStr(password))
        seat = Seat(
            student=Student(id="alice", email="alice@example.org", name="Alice"),
            namespace=NAMESPACE,
            bucket=NAMESPACE,
            artifacts="artifacts",
            image="localhost/notebook:1",
            session=session,
            password=SecretStr(password),
        )
        return Rehearsal(
            lab=lab,
            seat=seat,
            cluster=NoCluster(),  # type: ignore[arg-type]  it has the methods that are called
            bucket=self.bucket,  # type: ignore[arg-type]  the same
            submitting=threading.Lock(),
            tell=lambda done, what: self.said.append(f"{done} {what}"),
            cancelled=self.cancelled,
            **how,
        )

    def rehearse(self, password: str = PASSWORD, lab: labs.Lab = LAB, **how: Any) -> Facts:
        made = self.rehearsal(password, lab, **how)
        try:
            return made.run()
        finally:
            made.seat.session.close()

    @contextmanager
    def kfp(self) -> Iterator[Pipelines]:
        """KFP as the student."""
        session = GatewaySession(self.url, None, "alice@example.org", SecretStr(PASSWORD))
        session.log_in()
        try:
            yield Pipelines(session, NAMESPACE)
        finally:
            session.close()

    def left(self) -> dict[str, list[str]]:
        """What there is in KFP, by display name."""
        with self.kfp() as kfp:
            found = {"runs": kfp.runs(), "pipelines": kfp.pipelines(), "experiments": kfp.experiments()}
        return {kind: sorted(one["display_name"] for one in some) for kind, some in found.items()}

    @property
    def own(self) -> Path:
        """The student's own notebook."""
        return self.workspace / "simple_pipeline.ipynb"

    @property
    def folder(self) -> Path:
        """Where the rehearsal works."""
        return self.workspace / "rehearsal" / "simple_pipeline"

    def edit(self, before: str, after: str) -> None:
        """The student changes their own notebook."""
        text = self.own.read_text()
        assert json.dumps(before)[1:-1] in text
        self.own.write_text(text.replace(json.dumps(before)[1:-1], json.dumps(after)[1:-1]))


NOTHING: dict[str, list[str]] = {"runs": [], "pipelines": [], "experiments": []}
BOTH_RUNS = ["Run of second math_pipeline", "math_pipeline run"]


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
        until = time.monotonic() + 30
        with socket.socket() as probe:
            while probe.connect_ex(("127.0.0.1", port)) and time.monotonic() < until:
                time.sleep(0.1)
        yield Place(url=f"http://127.0.0.1:{port}", workspace=workspace)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> labs.Lab:
    """A lab with all that the taught one does, in a second."""
    folder = tmp_path_factory.mktemp("labs") / "small"
    folder.mkdir()
    (folder / "lab.yaml").write_text(SMALL_LAB)
    (folder / "simple_pipeline.py").write_text(SMALL_NOTEBOOK)
    (folder / "kubeflow_login.py").write_text((labs.LABS / "kubeflow_login.py").read_text())
    return labs.load("small", folder.parent)


def first_steps(lab: labs.Lab) -> labs.Lab:
    """The lab up to its first cell."""
    cut = lab.until("1-5")
    assert cut is not None
    return cut


@pytest.fixture(scope="module")
def well(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(tmp_path_factory.mktemp("well")) as made:
        yield made


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(tmp_path_factory.mktemp("shared")) as made:
        yield made


@pytest.fixture
def made(shared: Place) -> Place:
    """A place where nothing was done yet."""
    requests.get(f"{shared.url}/forget", timeout=10)
    for path in [*shared.workspace.iterdir(), *shared.workspace.parent.glob("once")]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    return Place(url=shared.url, workspace=shared.workspace)


@pytest.fixture(autouse=True, scope="module")
def _soon() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "_LOST_AFTER_SECONDS", 0.5)
        patch.setattr(runs, "_SECONDS_BETWEEN_LOOKS", 0.3)
        yield


@pytest.fixture(scope="module")
def good(well: Place) -> Facts:
    """A rehearsal where all is well."""
    return well.rehearse()


@pytest.fixture(scope="module")
def broken(well: Place, good: Facts, tmp_path_factory: pytest.TempPathFactory) -> Facts:
    """A later rehearsal of a lab whose multiply cell fails, for a student who has edited their own copy in between."""
    assert good.runs
    well.edit("return a + b", EDITED)
    folder = tmp_path_factory.mktemp("lab")
    source = (LAB.folder / "simple_pipeline.py").read_text()
    (folder / "simple_pipeline.py").write_text(source.replace("return a * b", "return a * b\n\n\n1 / 0"))
    (folder / "kubeflow_login.py").write_text((labs.LABS / "kubeflow_login.py").read_text())
    beside = LAB.notebook.model_copy(update={"beside": ("kubeflow_login.py",)})
    return well.rehearse(lab=LAB.model_copy(update={"folder": folder, "notebook": beside}))


def states(seen: Facts, lab: labs.Lab = LAB) -> dict[str, str]:
    return {step.id: step.state for step in judged(lab, seen)}


def done_by_cells_and_actions(seen: Facts) -> dict[str, str]:
    found: dict[str, str] = {cell.tag: cell.state for cell in seen.cells}
    found.update({action.step: action.state for action in seen.actions})
    return found


def test_a_rehearsal_does_every_step_in_the_students_own_server(well: Place, good: Facts) -> None:
    assert good.gaps == {}
    assert set(done_by_cells_and_actions(good).values()) == {"ok"}
    assert [(run.submitted_by, run.state) for run in good.runs] == [("2-1", "SUCCEEDED"), (STARTS, "SUCCEEDED")]
    assert [task.after for task in good.runs[0].tasks] == [(), ("add",)]
    assert any(said.endswith(" 2-1") for said in well.said)
    assert well.own.exists()
    assert (well.workspace / "kubeflow_login.py").exists()


def test_the_uploaded_pipeline_has_the_lab_texts_name_and_its_run_is_in_the_same_experiment(good: Facts) -> None:
    assert [(p.name, p.description) for p in good.pipelines] == [
        ("second math_pipeline", "this is second math_pipeline")
    ]
    by_sdk, by_upload = good.runs
    assert by_upload.pipeline_id == good.pipelines[0].pipeline_id
    assert by_upload.version_id == good.pipelines[0].version_id
    assert by_upload.experiment == by_sdk.experiment
    assert by_upload.parameters == {"a": 4, "b": 5, "c": 6}


def test_nothing_that_a_rehearsal_made_is_left(well: Place, good: Facts) -> None:
    assert good.notes == ()
    assert well.left() == NOTHING
    assert sorted(path.name for path in well.workspace.iterdir() if not path.name.startswith(".")) == [
        "kubeflow_login.py",
        "simple_pipeline.ipynb",
    ]
    assert not list(well.workspace.parent.rglob("*Trash*"))


def test_no_result_of_a_rehearsal_can_be_taken_from_the_cache_for_a_students(good: Facts) -> None:
    assert "enableCache" not in next(file.text or "" for file in good.files if file.path.endswith(".yaml"))


def test_no_secret_is_left_in_any_file_or_fact(well: Place, good: Facts) -> None:
    for secret in (PASSWORD, SESSION):
        assert secret not in good.model_dump_json()
        holding = [f for f in well.workspace.parent.rglob("*") if f.is_file() and secret.encode() in f.read_bytes()]
        assert holding == []


def test_a_notebook_that_the_student_edited_is_left_as_it_is_and_what_differs_is_told(
    well: Place, broken: Facts
) -> None:
    assert EDITED in well.own.read_text()
    assert broken.seed is not None
    assert broken.seed.state == "edited"
    assert "cell add: changed" in broken.seed.detail
    assert f"+    {EDITED}" in broken.seed.detail
    assert "multiply: changed" in broken.seed.detail


def test_a_cell_that_fails_ends_the_rehearsal_and_no_stale_file_passes_for_a_new_one(broken: Facts) -> None:
    found = states(broken)
    assert found["1-8"] == "pass"
    assert found["1-9"] == "fail"
    assert {found[step] for step in ("1-10", "1-11", "1-12", "2-1", "2-3", "2-5", "bucket")} == {"not-yet"}
    assert "ZeroDivisionError" in (broken.cell("multiply") or broken.cells[0]).error
    assert {action.state for action in broken.actions} == {"not-run"}


def test_a_wrong_password_is_told_and_nothing_is_touched(well: Place, good: Facts) -> None:
    assert good.runs
    before = {path: path.stat().st_mtime_ns for path in well.workspace.rglob("*")}
    seen = well.rehearse(password="not the password")
    assert seen.login is not None
    assert "refused the password of alice@example.org" in seen.login.error
    assert "not the password" not in seen.model_dump_json()
    assert set(states(seen).values()) == {"fail", "not-yet"}
    assert {path: path.stat().st_mtime_ns for path in well.workspace.rglob("*")} == before


def test_only_what_a_step_needs_is_done_for_it(well: Place, good: Facts) -> None:
    assert good.runs
    seen = well.rehearse(lab=LAB.until("1-11") or LAB)
    assert done_by_cells_and_actions(seen)["compile"] == "ok"
    assert "run" not in done_by_cells_and_actions(seen)
    assert seen.runs == ()


def test_a_students_own_notebook_is_rehearsed_as_a_copy_with_its_cells_that_have_no_tag(
    made: Place, small: labs.Lab
) -> None:
    made.rehearse(lab=first_steps(small))
    made.edit("return a + b", EDITED)
    notebook = json.loads(made.own.read_text())
    before = next(n for n, cell in enumerate(notebook["cells"]) if "compile" in cell["metadata"].get("tags", ()))
    own = {"cell_type": "code", "id": "mine", "metadata": {}, "source": "print('mine', 6 * 7)", "outputs": []}
    notebook["cells"].insert(before, {**own, "execution_count": 9})
    made.own.write_text(json.dumps(notebook))
    as_it_was = made.own.read_text()
    seen = made.rehearse(lab=small, own=True)
    assert made.own.read_text() == as_it_was
    assert [file.text for file in seen.files if file.path.endswith(".yaml")] == ["pipelineInfo:\n  name: sum-is--1"]
    assert (seen.cell("mine") or seen.cells[0]).output == "mine 42"
    assert set(done_by_cells_and_actions(seen).values()) == {"ok"}


def test_a_students_own_work_of_the_same_names_is_neither_in_the_way_nor_touched(made: Place, small: labs.Lab) -> None:
    kept = made.rehearse(lab=small, keep=True)
    record = json.loads((made.folder / "rehearsal.json").read_text())
    assert kept.runs[0].run_id in record["runs"]
    # What is kept and in no record is the student's.
    shutil.rmtree(made.workspace / "rehearsal")
    before = made.left()
    made.bucket.held[f"artifacts/math-pipeline/{kept.runs[0].run_id}/add/log"] = b"the student's"
    objects = dict(made.bucket.held)
    seen = made.rehearse(lab=small)
    assert made.left() == before
    assert before == {
        "runs": BOTH_RUNS,
        "pipelines": ["second math_pipeline"],
        "experiments": ["experiment"],
    }
    assert made.bucket.held == objects
    assert set(done_by_cells_and_actions(seen).values()) == {"ok"}
    assert seen.notes == ()


def test_a_rehearsal_that_was_kept_goes_with_the_next_but_for_what_the_student_changed_in_it(
    made: Place, small: labs.Lab
) -> None:
    made.rehearse(lab=small, keep=True)
    assert made.left()["runs"] == BOTH_RUNS
    assert (made.folder / "math_pipeline.yaml").exists()
    later = time.time() + 60
    os.utime(made.folder / "math_pipeline.yaml", (later, later))
    seen = made.rehearse(lab=first_steps(small))
    assert made.left() == NOTHING
    assert (made.folder / "math_pipeline.yaml").exists()
    assert seen.notes == ("rehearsal/simple_pipeline/math_pipeline.yaml was changed by the student and stays",)


def test_what_a_killed_rehearsal_left_is_removed_by_the_next(made: Place, small: labs.Lab) -> None:
    killed = made.rehearsal(lab=small)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Rehearsal, "_tidy", lambda _: None)
        left = killed.run()
    with requests.Session() as bare:
        base = f"{made.url}/notebook/{NAMESPACE}/gpu-notebook"
        bare.get(f"{base}/lab", timeout=10)
        body = {
            "path": "rehearsal/simple_pipeline/x.ipynb",
            "name": "x",
            "type": "notebook",
            "kernel": {"name": "python3"},
        }
        token = {"X-XSRFToken": bare.cookies.get("_xsrf", "")}
        assert bare.post(f"{base}/api/sessions", json=body, headers=token, timeout=30).status_code == 201
        made.bucket.held[f"artifacts/math-pipeline/{left.runs[1].run_id}/add/log"] = b"left"
        assert made.left()["runs"] == BOTH_RUNS
        seen = made.rehearse(lab=first_steps(small))
        assert made.left() == NOTHING
        assert bare.get(f"{base}/api/sessions", timeout=10).json() == []
    assert list(made.bucket.held) == ["artifacts/mine/model.bin"]
    assert not (made.workspace / "rehearsal").exists()
    assert seen.notes == ("an earlier rehearsal was broken off; what it had left was removed first",)


def test_a_run_that_a_killed_rehearsal_may_have_made_is_told_and_left_alone(made: Place, small: labs.Lab) -> None:
    kept = made.rehearse(lab=small, keep=True)
    record = made.folder / "rehearsal.json"
    told = json.loads(record.read_text())
    unknown = kept.runs[0].run_id
    told["runs"].remove(unknown)
    record.write_text(json.dumps({**told, "kept_at": None, "submitting": now()}))
    seen = made.rehearse(lab=first_steps(small))
    assert made.left()["runs"] == ["math_pipeline run"]
    assert any(unknown in note and "left alone" in note for note in seen.notes)


def test_a_folder_without_a_record_is_the_students(made: Place, small: labs.Lab) -> None:
    made.folder.mkdir(parents=True)
    (made.folder / "simple_pipeline.ipynb").write_text("{}")
    seen = made.rehearse(lab=first_steps(small))
    assert [path.name for path in made.folder.iterdir()] == ["simple_pipeline.ipynb"]
    assert [path.name for path in made.folder.parent.iterdir()] == ["simple_pipeline"]
    assert seen.cell("import") is not None
    assert states(seen, small)["1-5"] == "pass"


def test_what_could_not_be_removed_is_said_and_kept_on_record(tmp_path: Path, small: labs.Lab) -> None:
    with place(tmp_path / "home", FAKE_KEEPS="1") as made:
        seen = made.rehearse(lab=small)
        record = json.loads((made.folder / "rehearsal.json").read_text())
    for run in seen.runs:
        assert any(f"run {run.run_id} could not be removed" in note and "403" in note for note in seen.notes)
        assert run.run_id in record["runs"]
    assert any("the uploaded pipelines could not be removed" in note for note in seen.notes)


def test_a_rehearsal_that_is_stopped_takes_back_what_it_had_made(tmp_path: Path, small: labs.Lab) -> None:
    with place(tmp_path / "home", FAKE_SLOW="600") as made:
        stopper = threading.Thread(target=lambda: _stop_once(made, "run of 2-1 RUNNING"))
        stopper.start()
        started = time.monotonic()
        seen = made.rehearse(lab=small)
        stopper.join()
        assert time.monotonic() - started < 40
        assert made.left() == NOTHING
        assert not (made.workspace / "rehearsal").exists()
    assert states(seen, small)["2-3"] == "not-yet"
    assert len(seen.runs) == 2


def _stop_once(made: Place, said: str) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until and not any(said in each for each in made.said):
        time.sleep(0.1)
    made.cancelled.set()


def test_a_kernel_that_dies_once_is_survived_and_told(made: Place, small: labs.Lab) -> None:
    made.rehearse(lab=first_steps(small))
    once = "import pathlib\nonce = pathlib.Path.home() / 'once'\nif not once.exists():\n    once.touch()\n"
    made.edit("session = login", f"{once}    os._exit(1)\nsession = login")
    seen = made.rehearse(lab=small, own=True)
    assert made.left() == NOTHING
    assert set(done_by_cells_and_actions(seen).values()) == {"ok"}
    assert [run.state for run in seen.runs] == ["SUCCEEDED", "SUCCEEDED"]
    assert any("cell run: the kernel" in note and "new kernel" in note for note in seen.notes)


def test_a_kernel_that_dies_each_time_fails_its_cell(made: Place, small: labs.Lab) -> None:
    made.rehearse(lab=first_steps(small))
    made.edit("return a + b", "return a + b\n\nos._exit(1)")
    seen = made.rehearse(lab=small, own=True)
    assert made.left() == NOTHING
    found = states(seen, small)
    assert (found["1-8"], found["1-11"], found["2-1"]) == ("fail", "not-yet", "not-yet")
    assert (seen.cell("add") or seen.cells[0]).state == "dead"


def test_a_notebook_server_that_restarts_in_the_middle_is_survived(tmp_path: Path, small: labs.Lab) -> None:
    with place(tmp_path / "home") as made:
        made.rehearse(lab=first_steps(small))
        # The stand-in's server starts itself anew when it is told so.
        once = "import pathlib\nonce = pathlib.Path.home() / 'once'\nif not once.exists():\n    once.touch()\n"
        restart = f"    import urllib.request\n    urllib.request.urlopen('{made.url}/restart')\n    import time\n"
        made.edit('Path("math', f'{once}{restart}    time.sleep(60)\nPath("math')
        seen = made.rehearse(lab=small, own=True)
    assert set(done_by_cells_and_actions(seen).values()) == {"ok"}
    assert any("new kernel" in note for note in seen.notes)


def test_a_login_that_expires_in_between_is_renewed(tmp_path: Path, small: labs.Lab) -> None:
    with place(tmp_path / "home", FAKE_EXPIRES="7") as made:
        seen = made.rehearse(lab=small)
        assert made.left() == NOTHING
    assert seen.gaps == {}
    assert [run.state for run in seen.runs] == ["SUCCEEDED", "SUCCEEDED"]
    assert LATER_SESSION not in seen.model_dump_json()


def test_a_run_that_kfp_lost_is_taken_back_and_submitted_again(tmp_path: Path, small: labs.Lab) -> None:
    with place(tmp_path / "home", FAKE_LOSES="2", FAKE_RESTARTS="1") as made:
        seen = made.rehearse(lab=small)
        assert made.left() == NOTHING
    assert states(seen, small)["2-3"] == "pass"
    assert [(run.submitted_by, run.resubmitted) for run in seen.runs] == [("2-1", 1), ("3-4", 1)]
    assert sum("lost the run" in note for note in seen.notes) == 2
    assert any("a service was restarting" in note for note in seen.notes)


def test_what_a_runs_pod_waits_for_is_told(made: Place, small: labs.Lab) -> None:
    pulling = {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}
    pod = {"metadata": {"name": "add-pod"}, "status": {"containerStatuses": [pulling]}}
    rehearsed = made.rehearsal(lab=small)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "_SECONDS_BETWEEN_REASONS", 0.0)
        # Once: the clean-up waits until no pod is left.
        patch.setattr(rehearsed.cluster, "pods", lambda *_: [pod] if "removes" not in made.said[-1] else [])
        rehearsed.run()
    rehearsed.seat.session.close()
    assert any("pod add-pod: ImagePullBackOff no such image" in said for said in made.said)


def test_a_secret_that_the_cut_of_a_file_goes_through_leaves_nothing(made: Place) -> None:
    rehearsal = made.rehearsal()
    whole = f"{'.' * (FILE_CHARACTERS - 8)}{PASSWORD}"
    record: Any = SimpleNamespace(folder="rehearsal", server=SimpleNamespace(read_text=lambda _: whole))
    rehearsal._look_at(record, "math_pipeline.yaml")
    assert rehearsal._files[0].text == f"{'.' * (FILE_CHARACTERS - 8)}•••"


def test_the_students_key_to_the_bucket_is_a_secret_too(made: Place) -> None:
    seat = replace(made.rehearsal().seat, bucket_secret=SecretStr(BUCKET_SECRET))
    assert seat.clean(f"it is {BUCKET_SECRET}, said {PASSWORD}") == "it is •••, said •••"


@pytest.mark.parametrize("content", [None, "text", {"cells": None}, {"cells": [{}]}, {"cells": [{"source": "a = 1"}]}])
def test_what_is_no_whole_notebook_any_more_is_the_students_and_is_told(content: Any) -> None:
    ours = {"cells": [{"cell_type": "code", "source": "a = 1", "metadata": {}}]}
    seeded = compared({"type": "notebook", "content": content}, ours)
    assert (seeded.state, seeded.notebook) == ("edited", ours)
    assert "no whole notebook" in seeded.drift


def test_a_student_whose_notebook_breaks_the_hand_out_keeps_the_labs_from_nobody(
    demo: ClassSpec, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed: list[str] = []

    def seed(server: Any, *_: object) -> None:
        if "alice" in server.base:
            raise ValueError("no notebook")

    monkeypatch.setattr(seeding, "Cluster", lambda *_: NoCluster())
    monkeypatch.setattr(seeding.NotebookServer, "wait", lambda *_, **__: None)
    monkeypatch.setattr(seeding, "seed", seed)
    monkeypatch.setattr(seeding, "seed_data", lambda *_: [])
    passwords = {student.id: SecretStr(PASSWORD) for student in demo.students}
    wrong = seeding.hand_out(demo, platform, passwords, [LAB], handed.append, lambda _: None)
    assert wrong == ["alice, simple_pipeline: putting it there broke off (ValueError: no notebook)"]
    assert sorted(handed) == sorted(passwords)

    def stopped(*_: object) -> None:
        raise Cancelled("stopped")

    monkeypatch.setattr(seeding, "seed", stopped)
    with pytest.raises(Cancelled):
        seeding.hand_out(demo, platform, passwords, [LAB], handed.append, lambda _: None)


def test_a_labs_data_is_put_into_the_bucket_once_and_what_else_lies_there_is_left_alone(
    tmp_path: Path,
) -> None:
    (tmp_path / "rows.csv").write_text("a,b\n")
    (tmp_path / "rows.py").write_text("print('made')")
    data = (
        labs.Data.model_validate({"object": "data/rows.csv", "from": "rows.csv"}),
        labs.Data.model_validate({"object": "data/made.csv", "makes": "rows.py"}),
    )
    lab = LAB.model_copy(update={"data": data, "folder": tmp_path})
    bucket = FakeBucket()
    assert seed_data(lab, bucket) == []  # type: ignore[arg-type]  it has the methods that are called
    assert (bucket.held["data/rows.csv"], bucket.held["data/made.csv"]) == (b"a,b\n", b"made\n")
    bucket.held["data/rows.csv"] = b"the student's own"
    assert "left alone" in seed_data(lab, bucket)[0]  # type: ignore[arg-type]  the same
    assert bucket.held["data/rows.csv"] == b"the student's own"
