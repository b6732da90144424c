"""One lab, done as one student, in the student's own notebook server; what was seen is returned as facts.

The rehearsal works on a copy in a folder of its own, and never touches a notebook that the student has edited.
"""

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import requests
from pydantic import SecretStr

from infra.cluster import ClusterUnreachable
from infra.spec import Student
from labs.kubeflow_login import LoginError, WrongPasswordError
from labs.runner import facts as seen
from labs.runner import lab as labs
from labs.runner.checks import File
from labs.runner.cluster import Cluster
from labs.runner.collect import UNANSWERED, Collector, Started
from labs.runner.jupyter import Execution, Kernel, KernelDiedError, NotebookServer, text_of
from labs.runner.pipelines import Pipelines
from labs.runner.session import GatewaySession, NoAnswerError

FOLDER = "rehearsal"
"""Where rehearsals work, in the student's workspace: below it, one folder a lab."""

OUTPUT_CHARACTERS = 6_000
FILE_CHARACTERS = 40_000

_LOGIN_SECONDS = 30.0
_SERVER_SECONDS = 240.0
_RUN_SECONDS = 900.0
_SECONDS_BETWEEN_LOOKS = 2.0
_SUBMISSIONS = 3
_ATTEMPTS = 4
# The workflow is made before the run is stored; younger than this a run without a workflow is no news.
_LOST_AFTER_SECONDS = 8.0

_RUN_LINK = re.compile(r"runs/details/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")
_ENDED = frozenset({"SUCCEEDED", "FAILED", "SKIPPED", "CANCELED", "ERROR"})
_NOT_STARTED = frozenset({"", "RUNTIME_STATE_UNSPECIFIED", "PENDING"})
# What an API call of a cell says while the server behind the gateway restarts.
_RESTARTING = re.compile(
    r"\((502|503|504)\)|Bad Gateway|Service Unavailable|Gateway Time-?out|Max retries exceeded"
    r"|Connection(Reset|Refused)Error|RemoteDisconnected|Connection aborted|Connection refused|no available server"
    r"|does not answer"
)

SeedState = Literal["made", "unchanged", "edited", "failed"]

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


@dataclass(frozen=True, kw_only=True)
class Seat:
    """Where a student works, and the way in."""

    student: Student
    namespace: str
    bucket: str
    image: str
    session: GatewaySession
    password: SecretStr


@dataclass(kw_only=True)
class _Submitted:
    """A run under way: the step that submitted it and when (monotonic)."""

    step: labs.Step
    run_id: str
    at: float
    seconds: float | None = None
    resubmitted: int = 0
    without_workflow: int = 0

    def started(self) -> Started:
        """What there is to look at."""
        return Started(step=self.step.id, run_id=self.run_id, seconds=self.seconds, resubmitted=self.resubmitted)


@dataclass(kw_only=True)
class Rehearsal:
    """`tell(done, what)` hears after each step how many are done. `submitting` lets one run at a time be created: KFP
    loses runs that are created side by side."""

    lab: labs.Lab
    seat: Seat
    cluster: Cluster
    submitting: threading.Lock
    tell: Callable[[int, str], None]
    cancelled: threading.Event
    language: labs.Language = "en"

    _login: seen.LoginFacts | None = None
    _seed: seen.SeedFacts | None = None
    _cells: dict[str, seen.CellFacts] = field(default_factory=dict)
    _files: list[seen.FileFacts] = field(default_factory=list)
    _submitted: list[_Submitted] = field(default_factory=list)
    _notes: list[str] = field(default_factory=list)
    _gaps: dict[seen.Source, str] = field(default_factory=dict)
    _done: set[str] = field(default_factory=set)

    def run(self) -> seen.Facts:
        """Do the lab and collect; whatever goes wrong is in the facts, nothing is raised but `KeyboardInterrupt`."""
        # A student whose rehearsal breaks must not take those of the others along.
        try:
            self._rehearse()
        except Exception as error:
            self._gaps["server"] = self._clean(f"the rehearsal broke off ({error.__class__.__name__}: {error})")
        return self._collect()

    def _rehearse(self) -> None:
        if self.cancelled.is_set() or not self._log_in():
            return
        server = NotebookServer(self.seat.session, f"/notebook/{self.seat.namespace}/{self.lab.notebook.server}")
        notebook = labs.render(
            self.lab,
            host=f"{self.seat.session.url}/",
            email=self.seat.student.email,
            image=self.seat.image,
            language=self.language,
        )
        if not self._put(server, notebook):
            return
        self._execute_all(server, notebook)

    def _log_in(self) -> bool:
        started = time.monotonic()
        while True:
            try:
                self.seat.session.log_in()
            except LoginError as error:
                late = time.monotonic() - started > _LOGIN_SECONDS or self.cancelled.is_set()
                if isinstance(error, WrongPasswordError) or late:
                    took = time.monotonic() - started
                    self._login = seen.LoginFacts(ok=False, seconds=took, error=self._clean(str(error)))
                    return False
                time.sleep(1.0)
                continue
            self._login = seen.LoginFacts(ok=True, seconds=time.monotonic() - started)
            self._step("login")
            return True

    def _put(self, server: NotebookServer, notebook: dict[str, Any]) -> bool:
        """The student's own copy, only where there is none, and the rehearsal's, always anew."""
        started = time.monotonic()
        path, detail = self.lab.file_name, ""
        state: SeedState
        try:
            server.wait(until=started + _SERVER_SECONDS, pause=self._pause)
            state = self._put_own(server, notebook)
            server.make_folder(FOLDER)
            server.make_folder(self._folder)
            server.write_notebook(f"{self._folder}/{path}", notebook)
            for name, text in self._beside().items():
                server.write_text(f"{self._folder}/{name}", text)
            self._look_at(server, path)
        except (NoAnswerError, LoginError, requests.RequestException) as error:
            waits = self.cluster.why_not_ready(self.seat.namespace, self.lab.notebook.server)
            state, detail = "failed", self._clean(f"{error}; {waits}" if waits else str(error))
        took = time.monotonic() - started
        self._seed = seen.SeedFacts(state=state, seconds=took, path=path, detail=detail)
        self._step("seed")
        return state != "failed"

    def _put_own(self, server: NotebookServer, notebook: dict[str, Any]) -> SeedState:
        for name, text in self._beside().items():
            if server.read_kind(name) is None:
                server.write_text(name, text)
        there = server.read(self.lab.file_name)
        if there is None:
            server.write_notebook(self.lab.file_name, notebook)
            return "made"
        same = there["type"] == "notebook" and labs.sources(there["content"]) == labs.sources(notebook)
        return "unchanged" if same else "edited"

    def _execute_all(self, server: NotebookServer, notebook: dict[str, Any]) -> None:
        path = f"{self._folder}/{self.lab.file_name}"
        with self._kernel(server, path) as kernel:
            # From here on a file that is found was made by this rehearsal.
            kernel.prepare({"KUBEFLOW_PASSWORD": self.seat.password.get_secret_value()}, forget=self._made_files())
            for cell in notebook["cells"]:
                if cell["cell_type"] != "code":
                    continue
                tag = next(iter(cell["metadata"].get("tags", ())), cell["id"])
                if not self._execute(kernel, tag, cell) or self.cancelled.is_set():
                    break
            for name in self._made_files():
                self._look_at(server, name)
            server.write_notebook(path, notebook)
            self._watch(kernel, notebook)

    def _look_at(self, server: NotebookServer, name: str) -> None:
        text = server.read_text(f"{self._folder}/{name}")
        self._files.append(seen.FileFacts(path=name, text=text and self._clean(text[:FILE_CHARACTERS])))

    @contextmanager
    def _kernel(self, server: NotebookServer, path: str) -> Iterator[Kernel]:
        try:
            with server.kernel(path) as kernel:
                yield kernel
        except KernelDiedError as error:
            first = next(iter(self._tags()), "")
            self._cells.setdefault(first, seen.CellFacts(tag=first, state="dead", error=self._clean(str(error))))

    def _execute(self, kernel: Kernel, tag: str, cell: dict[str, Any]) -> bool:
        """One cell, with its outputs put into the notebook; again when a service behind it was restarting."""
        step = self.lab.step_of(tag)
        submits = step is not None and step.submits_run
        timeout_seconds = step.timeout_seconds if step else 180
        for attempt in range(1, _ATTEMPTS + 1):
            started = time.monotonic()
            with self.submitting if submits else _free():
                done = kernel.execute(cell["source"], timeout_seconds=timeout_seconds, cancelled=self.cancelled)
            output = self._clean(text_of(done.outputs))
            if not self._worth_repeating(done, attempt):
                break
            said = " ".join(self._clean(done.error).split())[:60]
            self._notes.append(f"cell {tag}: a service was restarting ({said}…); the cell was run again")
            time.sleep(2.0)
        cell["outputs"], cell["execution_count"] = self._clean_outputs(done.outputs), done.execution_count
        self._cells[tag] = seen.CellFacts(
            tag=tag,
            state=done.state,
            seconds=done.seconds,
            output=output[:OUTPUT_CHARACTERS],
            error=self._clean(done.error),
            attempts=attempt,
        )
        if done.state == "ok" and step and submits:
            for run_id in dict.fromkeys(_RUN_LINK.findall(text_of(done.outputs))):
                self._submitted.append(_Submitted(step=step, run_id=run_id, at=started))
        if step:
            self._step(step.id)
        return done.state == "ok"

    def _worth_repeating(self, done: Execution, attempt: int) -> bool:
        if done.state != "error" or attempt == _ATTEMPTS or self.cancelled.is_set():
            return False
        said = done.error + text_of(done.outputs)
        if not _RESTARTING.search(said):
            return False
        try:
            self._pipelines.wait()
        except NoAnswerError:
            return False
        return True

    def _watch(self, kernel: Kernel, notebook: dict[str, Any]) -> None:
        """Wait until every submitted run has ended; one that KFP lost is taken back and submitted again."""
        until = time.monotonic() + _RUN_SECONDS
        while self._waiting() and time.monotonic() < until and not self.cancelled.wait(_SECONDS_BETWEEN_LOOKS):
            try:
                states = {run["run_id"]: run.get("state", "") for run in self._pipelines.runs()}
                for run in self._waiting():
                    state = states.get(run.run_id, "")
                    self.tell(len(self._done), f"run {state or 'PENDING'} for {time.monotonic() - run.at:.0f} s")
                    if state in _ENDED:
                        run.seconds = time.monotonic() - run.at
                    elif state in _NOT_STARTED and self._is_lost(run):
                        self._submit_again(kernel, notebook, run)
            except UNANSWERED as error:
                self._gaps["api"] = self._clean(str(error))
                return

    def _is_lost(self, run: _Submitted) -> bool:
        """Whether KFP's API server has thrown the run's workflow away: it does so when the persistence agent reports a
        workflow whose run is not stored yet, and the run then stays PENDING for ever. Seen twice to be believed."""
        if time.monotonic() - run.at < _LOST_AFTER_SECONDS:
            return False
        try:
            gone = self.cluster.workflow(self.seat.namespace, run.run_id) is None
        except ClusterUnreachable:
            return False
        run.without_workflow = run.without_workflow + 1 if gone else 0
        return run.without_workflow >= 2

    def _submit_again(self, kernel: Kernel, notebook: dict[str, Any], lost: _Submitted) -> None:
        if lost.resubmitted + 1 >= _SUBMISSIONS:
            lost.seconds = time.monotonic() - lost.at
            return
        self._notes.append(f"KFP lost the run {lost.run_id} (PENDING, its workflow gone); it was submitted again")
        self._pipelines.delete_run(lost.run_id)
        self._submitted.remove(lost)
        cell = next(c for c in notebook["cells"] if lost.step.cell in c["metadata"].get("tags", ()))
        before = len(self._submitted)
        self._execute(kernel, str(lost.step.cell), cell)
        for run in self._submitted[before:]:
            run.resubmitted = lost.resubmitted + 1

    def _waiting(self) -> list[_Submitted]:
        return [run for run in self._submitted if run.seconds is None]

    def _collect(self) -> seen.Facts:
        """Look once at everything that was left, and put it together."""
        left: dict[str, Any] = {"gaps": self._gaps}
        if self._login and self._login.ok:
            left = Collector(
                lab=self.lab,
                namespace=self.seat.namespace,
                bucket=self.seat.bucket,
                pipelines=self._pipelines,
                cluster=self.cluster,
                clean=self._clean,
                gaps=self._gaps,
            ).left(run.started() for run in self._submitted)
        return seen.Facts(
            lab=self.lab.name,
            student=self.seat.student.id,
            namespace=self.seat.namespace,
            bucket=self.seat.bucket,
            server=self.lab.notebook.server,
            login=self._login,
            seed=self._seed,
            cells=tuple(
                self._cells.get(tag) or seen.CellFacts(tag=tag, state="not-run")
                for tag in dict.fromkeys([*self._tags(), *self._cells])
            ),
            files=tuple(self._files),
            notes=tuple(self._notes),
            **left,
        )

    @property
    def _folder(self) -> str:
        return f"{FOLDER}/{self.lab.name}"

    @property
    def _pipelines(self) -> Pipelines:
        return Pipelines(self.seat.session, self.seat.namespace)

    def _tags(self) -> list[str]:
        return [step.cell for step in self.lab.steps if step.cell]

    def _made_files(self) -> list[str]:
        """Files that the lab's cells make, as its checks name them."""
        paths = (c.path for s in self.lab.steps for c in s.checks if isinstance(c, File))
        return [path for path in dict.fromkeys(paths) if path != self.lab.file_name]

    def _beside(self) -> dict[str, str]:
        files = [self.lab.folder / path for path in self.lab.notebook.beside]
        return {file.name: file.read_text() for file in files}

    def _pause(self, seconds: float) -> None:
        if self.cancelled.wait(seconds):
            raise NoAnswerError("the rehearsal was stopped")

    def _step(self, what: str) -> None:
        self._done.add(what)
        self.tell(len(self._done), what)

    def _clean(self, text: str) -> str:
        """The text without any secret of this student, should one have come into it, and without control characters."""
        for secret in self.seat.session.secrets():
            text = text.replace(secret, "•••")
        return _CONTROL.sub("", text)

    def _clean_outputs(self, outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [_map_texts(output, self._clean) for output in outputs]


def _map_texts(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {key: _map_texts(inner, change) for key, inner in value.items()}
    if isinstance(value, list):
        return [_map_texts(inner, change) for inner in value]
    return value


@contextmanager
def _free() -> Iterator[None]:
    yield
