"""A class while it works: who is where in the labs. Nothing is run, written or changed in a student's name.

What a student has done is read from their own notebook as it is stored (JupyterLab stores it by itself every two
minutes), the files beside it, and their runs and pipelines by the names that the lab gives them. It is judged as a
rehearsal's facts are.
"""

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import SecretStr

from infra.spec import ClassSpec, Platform, Student
from labs.kubeflow_login import LoginError
from labs.runner import facts as seen
from labs.runner import lab as labs
from labs.runner import report
from labs.runner.cells import FILE_CHARACTERS, OUTPUT_CHARACTERS, SILENT, made_files
from labs.runner.checks import State, Submitted
from labs.runner.clients.cluster import Cluster
from labs.runner.clients.jupyter import text_of
from labs.runner.clients.pipelines import Pipelines
from labs.runner.clients.session import GatewaySession
from labs.runner.collect import UNANSWERED, Collector, Started, Uploaded
from labs.runner.leftovers import found
from labs.runner.rehearsal import FOLDER
from labs.runner.result import LabResult, Result, StepResult, judged
from labs.runner.runs import ENDED
from labs.runner.seats import Seat, seat_of
from labs.runner.seed import compared, tag_of
from labs.runner.verify import EVERYTHING, Scope, finished, unseen

SECONDS_BETWEEN_ROUNDS = 20.0
SIDE_BY_SIDE = 4


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where a student stands in a lab: the first step that is wrong, else the first that is not done yet after the last
    that was done; None when all is done. `since` is when that was first seen (monotonic seconds)."""

    student: Student
    lab: labs.Title
    done: int
    total: int
    step: str
    title: labs.Title | None
    state: State
    why: str
    since: float


def watch(
    spec: ClassSpec,
    platform: Platform,
    passwords: Mapping[str, SecretStr],
    run_directory: Path,
    show: Callable[[list[Standing]], None],
    stop: threading.Event,
    *,
    scope: Scope = EVERYTHING,
    language: labs.Language = "en",
    seconds_between_rounds: float = SECONDS_BETWEEN_ROUNDS,
) -> Result:
    """Look at every student again and again, `show` where each stands, until `stop` is set or Ctrl-C comes; then leave
    the same files as `verify` of the last whole round in `run_directory`.

    Errors: as `verify`.
    """
    started, began = datetime.now(UTC), time.monotonic()
    students, lessons = scope.chosen(spec)
    run_directory.mkdir(parents=True, exist_ok=True)
    cluster = Cluster(platform, spec.bucket.region)
    watched = [
        _Watched(
            spec=spec, platform=platform, student=s, lessons=lessons, cluster=cluster, password=passwords.get(s.id)
        )
        for s in students
    ]
    results: list[LabResult] = []
    standings: dict[tuple[str, str], Standing] = {}
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        try:
            while not stop.is_set():
                round_began = time.monotonic()
                results = [result for found in pool.map(lambda one: one.look(language), watched) for result in found]
                show([_standing(result, students, standings) for result in results])
                stop.wait(max(1.0, seconds_between_rounds - (time.monotonic() - round_began)))
        except KeyboardInterrupt:
            # The ordinary way to end it.
            stop.set()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            for one in watched:
                one.close()
            cluster.close()
    result = finished(spec, platform, started, time.monotonic() - began, results)
    report.write(result, run_directory, language)
    return result


def _standing(result: LabResult, students: tuple[Student, ...], before: dict[tuple[str, str], Standing]) -> Standing:
    """Where the student stands by now, with how long it has been so."""
    at = stands_at(result)
    student = next(student for student in students if student.id == result.student)
    key = (result.student, result.lab)
    standing = Standing(
        student=student,
        lab=result.title,
        done=sum(step.state == "pass" for step in result.steps),
        total=len(result.steps),
        step=at.id if at else "",
        title=at.title if at else None,
        state=at.state if at else "pass",
        why=at.why if at else "",
        since=time.monotonic(),
    )
    earlier = before.get(key)
    if earlier and (earlier.step, earlier.state) == (standing.step, standing.state):
        standing = replace(standing, since=earlier.since)
    before[key] = standing
    return standing


def stands_at(result: LabResult) -> StepResult | None:
    """The step that a student is at: the first that is wrong, else the first not done after the last one done; None
    when every step is done. What lies before something that is done was done too, though it is not stored yet."""
    wrong = next((step for step in result.steps if step.state == "fail"), None)
    if wrong is not None:
        return wrong
    last = max((n for n, step in enumerate(result.steps) if step.state == "pass"), default=-1)
    after = result.steps[last + 1 :]
    return next(iter(after), None) or next((s for s in result.steps if s.state == "could-not-check"), None)


@dataclass(kw_only=True)
class _Watched:
    """One student, with the login kept from round to round and what cannot change any more."""

    spec: ClassSpec
    platform: Platform
    student: Student
    lessons: tuple[labs.Lab, ...]
    cluster: Cluster
    password: SecretStr | None

    _session: GatewaySession | None = None
    _bucket_secret: SecretStr | None = None
    _rehearsed: set[str] | None = None
    _left: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = field(default_factory=dict)

    def look(self, language: labs.Language) -> list[LabResult]:
        """Every lab once. Nothing is raised: what cannot be looked at is a gap."""
        return [self._result(lesson, self._guarded(lesson, language)) for lesson in self.lessons]

    def close(self) -> None:
        """Give the connections back."""
        if self._session:
            self._session.close()

    def _result(self, lesson: labs.Lab, facts: seen.Facts) -> LabResult:
        return LabResult(
            lab=lesson.name,
            title=lesson.title,
            student=self.student.id,
            student_name=self.student.name,
            email=self.student.email,
            seconds=0.0,
            steps=judged(lesson, facts),
            facts=facts,
        )

    def _guarded(self, lesson: labs.Lab, language: labs.Language) -> seen.Facts:
        # What one student made of their seat must not end the teacher's view of all the others.
        try:
            return self._facts(lesson, language)
        except Exception as error:
            broke = f"looking at it broke off ({error.__class__.__name__}: {error})"
            if self.password is not None:
                broke = self._seat(lesson, self.password).clean(broke)
            blank = unseen(self.spec, self.platform, lesson, self.student)
            return blank.model_copy(update={"gaps": dict.fromkeys(blank.gaps, broke)})

    def _facts(self, lesson: labs.Lab, language: labs.Language) -> seen.Facts:
        if self.password is None:
            return unseen(self.spec, self.platform, lesson, self.student)
        place = self._seat(lesson, self.password)
        gaps: dict[seen.Source, str] = {}
        login = self._log_in(place)
        blank = seen.Facts(
            lab=lesson.name,
            student=self.student.id,
            namespace=place.namespace,
            bucket=place.bucket,
            server=lesson.notebook.server,
            login=login,
        )
        if not login.ok:
            return blank
        read: dict[str, Any] = {}
        try:
            read = self._notebook(lesson, place, language)
        except SILENT as error:
            gaps["server"] = place.clean(str(error))
        read |= self._kubeflow(lesson, place, gaps)
        return blank.model_copy(update=read)

    def _seat(self, lesson: labs.Lab, password: SecretStr) -> Seat:
        if self._session is None:
            self._session = GatewaySession(self.platform.url, self.platform.ca_file, self.student.email, password)
        place = seat_of(self.spec, self.platform, lesson, self.student, self._session, password)
        self._bucket_secret = self._bucket_secret or self.cluster.bucket_secret(place.namespace)
        return replace(place, bucket_secret=self._bucket_secret)

    def _log_in(self, place: Seat) -> seen.LoginFacts:
        """Once; the session renews itself."""
        seconds = 0.0
        try:
            if not place.session.is_in():
                seconds = place.session.log_in()
        except LoginError as error:
            return seen.LoginFacts(ok=False, seconds=seconds, error=place.clean(str(error)))
        return seen.LoginFacts(ok=True, seconds=seconds)

    def _notebook(self, lesson: labs.Lab, place: Seat, language: labs.Language) -> dict[str, Any]:
        """What the student's own notebook and the files beside it say."""
        server = place.server(lesson)
        there = server.read(lesson.file_name)
        if there is None:
            return {}
        own = compared(there, place.rendered(lesson, language))
        texts = {name: server.read_text(name) for name in made_files(lesson)}
        texts[lesson.file_name] = "\n".join(labs.sources(own.notebook))
        if self._rehearsed is None:
            # A rehearsal that was kept has runs of the same names.
            records = [found(server, f"{FOLDER}/{each.name}") for each in self.lessons]
            self._rehearsed = {run for record in records if record for run in record.made.runs}
        return {
            "seed": seen.SeedFacts(state=own.state, seconds=0.0, path=lesson.file_name, detail=place.clean(own.drift)),
            "cells": executed(lesson, own.notebook, place.clean),
            "files": tuple(
                seen.FileFacts(path=name, text=text and place.clean(text)[:FILE_CHARACTERS])
                for name, text in texts.items()
            ),
        }

    def _kubeflow(self, lesson: labs.Lab, place: Seat, gaps: dict[seen.Source, str]) -> dict[str, Any]:
        """The student's runs and pipelines of this lab; looked at again only when one of them has changed or is under
        way."""
        pipelines = Pipelines(place.session, place.namespace, patience_seconds=5)
        runs: list[dict[str, Any]] = []
        uploads: list[dict[str, Any]] = []
        try:
            rehearsed = self._rehearsed or set()
            runs = [run for run in pipelines.runs() if run["run_id"] not in rehearsed]
            if any(step.upload for step in lesson.steps):
                uploads = pipelines.pipelines()
        except UNANSWERED as error:
            gaps["api"] = place.clean(str(error))
        mine = youngest_runs(lesson, runs)
        uploaded = {
            step.id: pipeline
            for step in lesson.steps
            if step.upload
            for pipeline in _youngest(p for p in uploads if p.get("display_name") == step.upload.name)
        }
        mark = (
            tuple((step, run["run_id"], run.get("state")) for step, run in mine.items()),
            tuple((step, pipeline["pipeline_id"]) for step, pipeline in uploaded.items()),
            tuple(gaps.items()),
        )
        known = self._left.get(lesson.name)
        under_way = any(str(run.get("state", "")) not in ENDED for run in mine.values())
        if known and known[0] == mark and not under_way:
            left = known[1]
        else:
            left = self._collected(lesson, place, pipelines, mine, uploaded, gaps)
            if not left["gaps"]:
                self._left[lesson.name] = (mark, left)
        return {**left, "actions": _actions(lesson, mine, uploaded)}

    def _collected(
        self,
        lesson: labs.Lab,
        place: Seat,
        pipelines: Pipelines,
        runs: dict[str, dict[str, Any]],
        uploaded: dict[str, dict[str, Any]],
        gaps: dict[seen.Source, str],
    ) -> dict[str, Any]:
        collector = Collector(
            lab=lesson,
            namespace=place.namespace,
            bucket=place.bucket,
            pipelines=pipelines,
            cluster=self.cluster,
            clean=place.clean,
            gaps=gaps,
        )
        versions: list[Uploaded] = []
        for step, pipeline in uploaded.items():
            pipeline_id = str(pipeline["pipeline_id"])
            try:
                version_id = pipelines.first_version(pipeline_id)
                versions.append(Uploaded(step=step, pipeline_id=pipeline_id, version_id=version_id))
            except UNANSWERED as error:
                gaps["api"] = place.clean(str(error))
        started = [Started(step=step, run_id=str(run["run_id"]), seconds=_seconds(run)) for step, run in runs.items()]
        return collector.left(started, versions)


def executed(lesson: labs.Lab, notebook: dict[str, Any], clean: Callable[[str], str]) -> tuple[seen.CellFacts, ...]:
    """What a stored notebook says of each cell that a step names: executed when it has a number, and how it ended."""
    cells: dict[str, seen.CellFacts] = {}
    for cell in notebook.get("cells", ()):
        tag = tag_of(cell)
        if tag is None or cell["cell_type"] != "code":
            continue
        outputs = cell.get("outputs", ())
        wrong = next((output for output in outputs if output.get("output_type") == "error"), None)
        state: Literal["ok", "error", "not-run"] = "ok"
        if wrong:
            state = "error"
        elif cell.get("execution_count") is None:
            state = "not-run"
        cells[tag] = seen.CellFacts(
            tag=tag,
            state=state,
            output=clean(text_of([_joined(output) for output in outputs]))[:OUTPUT_CHARACTERS],
            error=clean(f"{wrong.get('ename', '')}: {wrong.get('evalue', '')}") if wrong else "",
            attempts=0 if state == "not-run" else 1,
        )
    tags = [step.cell for step in lesson.steps if step.cell]
    return tuple(cells.get(tag) or seen.CellFacts(tag=tag, state="not-run") for tag in tags)


def youngest_runs(lesson: labs.Lab, runs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The student's youngest run of each step that starts one, by the step's id: found by the name that the lab gives
    it."""
    names = {
        check.run: check.name for step in lesson.steps for check in step.checks if isinstance(check, Submitted)
    } | {step.id: step.start.name for step in lesson.steps if step.start}
    return {
        step: run
        for step, name in names.items()
        for run in _youngest(run for run in runs if run.get("display_name") == name)
    }


def _youngest(things: Any) -> list[dict[str, Any]]:
    return sorted(things, key=lambda thing: str(thing.get("created_at", "")))[-1:]


def _actions(
    lesson: labs.Lab, runs: dict[str, dict[str, Any]], uploaded: dict[str, dict[str, Any]]
) -> tuple[seen.ActionFacts, ...]:
    """The acting steps by what they made. Whether a browser fetched a file is seen only by what was uploaded of it."""
    found: list[seen.ActionFacts] = []
    for step in lesson.steps:
        made = ""
        if step.upload:
            made = str(uploaded.get(step.id, {}).get("pipeline_id", ""))
        elif step.start:
            made = str(runs.get(step.id, {}).get("run_id", ""))
        elif step.fetch:
            later = (each.id for each in lesson.steps if each.upload and each.upload.file == step.fetch)
            made = next((str(uploaded[each]["pipeline_id"]) for each in later if each in uploaded), "")
        else:
            continue
        found.append(seen.ActionFacts(step=step.id, state="ok" if made else "not-run", made="" if step.fetch else made))
    return tuple(found)


def _seconds(run: dict[str, Any]) -> float | None:
    """How long a run that has ended took, as KFP tells it."""
    created, ended = seen.moment(run.get("created_at")), seen.moment(run.get("finished_at"))
    if not created or not ended:
        return None
    return (datetime.fromisoformat(ended) - datetime.fromisoformat(created)).total_seconds()


def _joined(output: dict[str, Any]) -> dict[str, Any]:
    """An output whose text the contents API gives as one text or as lines."""
    text = output.get("text")
    return {**output, "text": "".join(text)} if isinstance(text, list) else output
