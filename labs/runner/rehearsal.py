"""One lab, done as one student, in the student's own notebook server; what was seen is returned as facts.

The rehearsal works on a copy in a folder of its own, never touches a notebook that the student has edited, and takes
back what it made.
"""

import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from labs.kubeflow_login import LoginError, WrongPasswordError
from labs.runner import facts as seen
from labs.runner import lab as labs
from labs.runner.actions import Actions
from labs.runner.cells import FILE_CHARACTERS, SILENT, Cells, made_files, unexecuted
from labs.runner.checks import Experiment
from labs.runner.clients.bucket import Bucket
from labs.runner.clients.cluster import Cluster
from labs.runner.clients.jupyter import NotebookServer
from labs.runner.clients.pipelines import Pipelines
from labs.runner.clients.session import NoAnswerError
from labs.runner.collect import UNANSWERED, Collector, Started
from labs.runner.leftovers import Made, Record, Removal, found
from labs.runner.runs import Runs
from labs.runner.seats import Seat
from labs.runner.seed import seed, seed_data

FOLDER = "rehearsal"
"""Where rehearsals work, in the student's workspace: below it, one folder a lab."""

_LOGIN_SECONDS = 30.0
_SERVER_SECONDS = 240.0
_SECONDS_BETWEEN_REASONS = 5.0
_PATIENCE_SECONDS = 60.0
_PATIENCE_WHEN_STOPPED_SECONDS = 10.0


@dataclass(kw_only=True)
class Rehearsal:
    """`tell(done, what)` hears after each step how many are done. `submitting` lets one run at a time be created: KFP
    loses runs that are created side by side.

    With `own` a copy of the student's own notebook is rehearsed instead of the lab's. With `keep` what was made stays
    until the lab's next rehearsal.
    """

    lab: labs.Lab
    seat: Seat
    cluster: Cluster
    bucket: Bucket
    submitting: threading.Lock
    tell: Callable[[int, str], None]
    cancelled: threading.Event
    language: labs.Language = "en"
    own: bool = False
    keep: bool = False

    _login: seen.LoginFacts | None = None
    _seed: seen.SeedFacts | None = None
    _cells: Cells | None = None
    _files: list[seen.FileFacts] = field(default_factory=list)
    _notes: list[str] = field(default_factory=list)
    _gaps: dict[seen.Source, str] = field(default_factory=dict)
    _done: set[str] = field(default_factory=set)
    _record: Record | None = None
    _asked_why: float = 0.0

    def __post_init__(self) -> None:
        self._pipelines = Pipelines(self.seat.session, self.seat.namespace)
        self._collector = Collector(
            lab=self.lab,
            namespace=self.seat.namespace,
            bucket=self.seat.bucket,
            pipelines=self._pipelines,
            cluster=self.cluster,
            clean=self.seat.clean,
            gaps=self._gaps,
        )

    def run(self) -> seen.Facts:
        """Do the lab, collect, and take back what was made; whatever goes wrong is in the facts, nothing is raised but
        `KeyboardInterrupt`."""
        # A student whose rehearsal breaks must not take those of the others along, nor leave behind what it made.
        try:
            self._rehearse()
        except Exception as error:
            self._gaps["server"] = self.seat.clean(f"the rehearsal broke off ({error.__class__.__name__}: {error})")
        try:
            left = self._collected()
        except Exception as error:
            broke = self.seat.clean(f"looking at it broke off ({error.__class__.__name__}: {error})")
            left = {"gaps": {**self._gaps, "api": broke, "mlmd": broke, "kubernetes": broke, "bucket": broke}}
        self._tidy()
        return self._facts(left)

    def _rehearse(self) -> None:
        if self.cancelled.is_set() or not self._log_in():
            return
        server = self.seat.server(self.lab)
        notebook = self._put(server)
        record = self._record
        if notebook is None or record is None:
            return
        try:
            record.made.experiments_before = [str(e["experiment_id"]) for e in self._pipelines.experiments()]
        except UNANSWERED as error:
            # Not knowing which experiments are the student's, none may be made.
            self._gaps["api"] = self.seat.clean(str(error))
            return
        record.write()
        runs = Runs(
            namespace=self.seat.namespace,
            pipelines=self._pipelines,
            cluster=self.cluster,
            cancelled=self.cancelled,
            tell=self._tell,
            ended=self._collector.look_at_pods,
        )
        actions = Actions(
            server=server,
            pipelines=self._pipelines,
            record=record,
            runs=runs,
            submitting=self.submitting,
            clean=self.seat.clean,
        )
        self._cells = Cells(
            lab=self.lab,
            server=server,
            record=record,
            notebook=notebook,
            password=self.seat.password,
            pipelines=self._pipelines,
            actions=actions,
            runs=runs,
            submitting=self.submitting,
            cancelled=self.cancelled,
            wait=lambda: server.wait(until=time.monotonic() + _SERVER_SECONDS, pause=self._pause),
            done=self._step,
            clean=self.seat.clean,
        )
        self._cells.execute()
        try:
            for name in made_files(self.lab):
                self._look_at(record, name)
        except SILENT as error:
            self._gaps["server"] = self.seat.clean(str(error))

    def _log_in(self) -> bool:
        started = time.monotonic()
        while True:
            try:
                self.seat.session.log_in()
            except LoginError as error:
                late = time.monotonic() - started > _LOGIN_SECONDS or self.cancelled.is_set()
                if isinstance(error, WrongPasswordError) or late:
                    took = time.monotonic() - started
                    self._login = seen.LoginFacts(ok=False, seconds=took, error=self.seat.clean(str(error)))
                    return False
                time.sleep(1.0)
                continue
            self._login = seen.LoginFacts(ok=True, seconds=time.monotonic() - started)
            self._step("login")
            return True

    def _put(self, server: NotebookServer) -> dict[str, Any] | None:
        """The student's own copy, only where there is none, and the rehearsal's, always anew: the notebook to do."""
        started = time.monotonic()
        path, detail = self.lab.file_name, ""
        state: Literal["made", "unchanged", "edited", "failed"]
        notebook: dict[str, Any] | None = None
        ours = self.seat.rendered(self.lab, self.language)
        try:
            server.wait(until=started + _SERVER_SECONDS, pause=self._pause)
            owned = seed(server, self.lab, ours)
            state, detail = owned.state, self.seat.clean(owned.drift)
            self._record = record = self._empty_folder(server)
            beside = labs.beside(self.lab)
            if self.own:
                beside = {name: server.read_text(name) or text for name, text in beside.items()}
            notebook = unexecuted(owned.notebook if self.own else ours)
            server.write_notebook(f"{record.folder}/{path}", notebook)
            for name, text in beside.items():
                server.write_text(f"{record.folder}/{name}", text)
            self._look_at(record, path)
        except SILENT as error:
            waits = self.cluster.why_not_ready(self.seat.namespace, self.lab.notebook.server)
            state, detail, notebook = "failed", self.seat.clean(f"{error}; {waits}" if waits else str(error)), None
        try:
            self._notes += seed_data(self.lab, self.bucket)
        except UNANSWERED as error:
            self._gaps["bucket"] = self.seat.clean(str(error))
        took = time.monotonic() - started
        self._seed = seen.SeedFacts(state=state, seconds=took, path=path, detail=detail)
        self._step("seed")
        return notebook

    def _empty_folder(self, server: NotebookServer) -> Record:
        """A folder for this rehearsal, with its record. What an earlier one left is taken back first; a folder without
        a record is the student's."""
        server.make_folder(FOLDER)
        for number in range(1, 10):
            folder = f"{FOLDER}/{self.lab.name}{f'-{number}' if number > 1 else ''}"
            made = Made(id=f"rehearsal-{uuid.uuid4().hex[:12]}")
            if server.read_kind(folder) is not None:
                if (earlier := found(server, folder)) is None:
                    continue
                if earlier.made.kept_at is None:
                    server.end_sessions(folder)
                    self._notes.append("an earlier rehearsal was broken off; what it had left was removed first")
                self._tell("removes what an earlier rehearsal left")
                if not self._remove(earlier):
                    made.runs, made.pipelines = [*earlier.made.runs], [*earlier.made.pipelines]
                elif server.read_kind(folder) is not None:
                    # What is left in it is the student's by now.
                    continue
                server.make_folder(FOLDER)
            server.make_folder(folder)
            record = Record(server=server, folder=folder, made=made)
            record.write()
            return record
        raise NoAnswerError(f"there are too many folders {FOLDER}/{self.lab.name}-… without a record of a rehearsal")

    def _look_at(self, record: Record, name: str) -> None:
        text = record.server.read_text(f"{record.folder}/{name}")
        self._files.append(seen.FileFacts(path=name, text=text and self.seat.clean(text)[:FILE_CHARACTERS]))

    def _collected(self) -> dict[str, Any]:
        """Look once at everything that was left."""
        if not (self._login and self._login.ok):
            return {"gaps": self._gaps}
        if self._cells is None:
            return self._collector.left(())
        started = [
            Started(step=run.step.id, run_id=run.run_id, seconds=run.seconds, resubmitted=run.resubmitted)
            for run in self._cells.runs.all
        ]
        return self._collector.left(started, self._cells.actions.uploaded.values())

    def _facts(self, left: dict[str, Any]) -> seen.Facts:
        """Everything, put together."""
        done = self._cells
        cells = done.facts if done else {}
        actions = done.actions.facts if done else {}
        tags = [step.cell for step in self.lab.steps if step.cell]
        acting = [step.id for step in self.lab.steps if step.does in ("fetch", "upload", "start")]
        return seen.Facts(
            lab=self.lab.name,
            student=self.seat.student.id,
            namespace=self.seat.namespace,
            bucket=self.seat.bucket,
            server=self.lab.notebook.server,
            login=self._login,
            seed=self._seed,
            cells=tuple(
                cells.get(tag) or seen.CellFacts(tag=tag, state="not-run") for tag in dict.fromkeys([*tags, *cells])
            ),
            actions=tuple(actions.get(step) or seen.ActionFacts(step=step, state="not-run") for step in acting),
            files=tuple(self._files),
            notes=(*(done.notes if done else ()), *(done.runs.notes if done else ()), *self._notes),
            **left,
        )

    def _tidy(self) -> None:
        """Take back what was made, or note in the record that it is to be kept."""
        if self._record is None:
            return
        if self.keep:
            self._record.made.kept_at = time.time()
            self._record.write()
            return
        self._tell("removes what it made")
        self._remove(self._record)

    def _remove(self, record: Record) -> bool:
        """Take back what a rehearsal made; whether all of it is gone."""
        patience_seconds = _PATIENCE_WHEN_STOPPED_SECONDS if self.cancelled.is_set() else _PATIENCE_SECONDS
        named = {c.name for s in self.lab.steps for c in s.checks if isinstance(c, Experiment)}
        removal = Removal(
            record=record,
            namespace=self.seat.namespace,
            artifacts=self.seat.artifacts,
            experiments=frozenset(named | {s.start.experiment for s in self.lab.steps if s.start}),
            pipelines=Pipelines(self.seat.session, self.seat.namespace, patience_seconds=patience_seconds),
            cluster=self.cluster,
            bucket=self.bucket,
            clean=self.seat.clean,
        )
        removal.remove()
        self._notes += [*removal.left, *removal.said]
        return not removal.left

    def _pause(self, seconds: float) -> None:
        """Wait for the notebook server, saying what it waits for itself."""
        if self.cancelled.wait(seconds):
            raise NoAnswerError("the rehearsal was stopped")
        if time.monotonic() - self._asked_why > _SECONDS_BETWEEN_REASONS:
            self._asked_why = time.monotonic()
            if waits := self.cluster.why_not_ready(self.seat.namespace, self.lab.notebook.server):
                self._tell(f"waits for {self.lab.notebook.server}: {waits}")

    def _step(self, what: str) -> None:
        self._done.add(what)
        self._tell(what)

    def _tell(self, what: str) -> None:
        self.tell(len(self._done), what)
