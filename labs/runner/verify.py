"""Every lab of a class, as every student, side by side: rehearse, judge, report."""

import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import SecretStr

from infra import naming
from infra.cluster import ClusterUnreachable
from infra.failure import CallFailure
from infra.spec import ClassSpec, Platform, Student
from infra.steps import Event, Listener, recorded
from infra.stores import StoreAddress
from labs.runner import lab as labs
from labs.runner import report
from labs.runner.checks import WORST_FIRST
from labs.runner.clients.bucket import Bucket
from labs.runner.clients.cluster import Cluster
from labs.runner.clients.session import GatewaySession
from labs.runner.facts import Facts
from labs.runner.rehearsal import Rehearsal
from labs.runner.result import LabResult, Result, judged
from labs.runner.seats import fitting, seat_of

_FEWEST_AT_ONCE, _MOST_AT_ONCE = 2, 32
_STUDENTS_A_CORE = 2


@dataclass(frozen=True, kw_only=True)
class Scope:
    """Which part of a class is rehearsed: students and labs by their names (none named: all), and one step alone."""

    students: tuple[str, ...] = ()
    lessons: tuple[str, ...] = ()
    step: str | None = None

    def chosen(self, spec: ClassSpec) -> tuple[tuple[Student, ...], tuple[labs.Lab, ...]]:
        """The students and the labs; of a lab with the step, what leads up to it.

        Errors: `NotThere`; `labs.LabError`.
        """
        known = {student.id: student for student in spec.students}
        if strangers := [name for name in self.students if name not in known]:
            raise NotThere(f"there is no student {strangers[0]!r} in class {spec.name}; there are: {', '.join(known)}")
        if strangers := [name for name in self.lessons if name not in spec.labs]:
            raise NotThere(f"class {spec.name} has no lab {strangers[0]!r}; it has: {', '.join(spec.labs)}")
        lessons = tuple(fitting(spec, labs.load(name)) for name in spec.labs if name in (self.lessons or spec.labs))
        if self.step is not None:
            cut = tuple(lesson for each in lessons if (lesson := each.until(self.step)))
            if not cut:
                ids = "; ".join(f"{each.name}: {', '.join(step.id for step in each.steps)}" for each in lessons)
                raise NotThere(f"there is no step {self.step!r}; there are: {ids}")
            lessons = cut
        return tuple(known[name] for name in self.students or known), lessons


class NotThere(CallFailure):
    """A student, a lab or a step that was named is not there; the message says which are."""


EVERYTHING = Scope()


def verify(
    spec: ClassSpec,
    platform: Platform,
    passwords: Mapping[str, SecretStr],
    run_directory: Path,
    listener: Listener,
    cancelled: threading.Event,
    *,
    scope: Scope = EVERYTHING,
    language: labs.Language = "en",
    own: bool = False,
    keep: bool = False,
    side_by_side: int | None = None,
) -> Result:
    """Rehearse every lab of the class as every student; leave result.json, facts.json, junit.xml, report.html and
    events.jsonl in `run_directory`.

    `passwords` are by the student's id. As many students are at work at once as the cluster carries, unless
    `side_by_side` says how many. Two at once in one seat would take away what the other has just made: whoever
    calls keeps them apart. With `own` copies of the students' own notebooks are rehearsed instead of the
    labs'; with `keep` what was made stays until the next rehearsal. When `cancelled` is set, what is under way stops
    soon and is taken back, its steps read not-yet; Ctrl-C sets it and is raised again once all is still.
    Errors: `NotThere`; `labs.LabError` for a lab that cannot be used; `ClusterUnreachable` for a kubeconfig that cannot
    be used.
    """
    started, began = datetime.now(UTC), time.monotonic()
    students, lessons = scope.chosen(spec)
    run_directory.mkdir(parents=True, exist_ok=True)
    cluster = Cluster(platform, spec.bucket.region)
    at_once = side_by_side or _carried(cluster)
    with recorded(listener, run_directory / "events.jsonl") as tell, ThreadPoolExecutor(at_once) as pool:
        each = _EachStudent(
            spec=spec,
            platform=platform,
            passwords=passwords,
            cluster=cluster,
            lessons=lessons,
            alone=scope.step is not None,
            submitting=threading.Lock(),
            tell=tell,
            cancelled=cancelled,
            language=language,
            own=own,
            keep=keep,
        )
        for student in students:
            tell(Event(step=student.id, state="waiting"))
        try:
            found = [result for results in pool.map(each.rehearse, students) for result in results]
        except BaseException:
            cancelled.set()
            raise
        finally:
            # After Ctrl-C those who wait for their turn do not begin.
            pool.shutdown(wait=True, cancel_futures=True)
            cluster.close()
    result = finished(spec, platform, started, time.monotonic() - began, found)
    report.write(result, run_directory, language)
    return result


def _carried(cluster: Cluster) -> int:
    """How many students may be at work at once: each has a kernel and up to ten pods that start, work and end.

    On two cores eight at once took longer for ten students than four at once (tests/bench/labs.md).
    """
    try:
        cores = cluster.cores()
    except ClusterUnreachable:
        return _FEWEST_AT_ONCE
    return max(_FEWEST_AT_ONCE, min(int(cores * _STUDENTS_A_CORE), _MOST_AT_ONCE))


def finished(
    spec: ClassSpec, platform: Platform, started: datetime, seconds: float, found: Iterable[LabResult]
) -> Result:
    """What was found, put together now."""
    return Result(
        class_name=spec.name,
        url=platform.url,
        started=started.isoformat(timespec="seconds"),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=seconds,
        labs=tuple(found),
    )


def unseen(spec: ClassSpec, platform: Platform, lesson: labs.Lab, student: Student) -> Facts:
    """The facts of a student who cannot be logged in, because nobody here knows the password.

    Errors: `infra.stores.given.KeysFileMistake`, where buckets are given.
    """
    why = "the student's password is not known here; `scripts/classroom up` with the class file makes one"
    return Facts(
        lab=lesson.name,
        student=student.id,
        namespace=naming.namespace(spec.name, student.id),
        bucket=StoreAddress.of(platform).holding(spec.name, student.id).bucket,
        server=lesson.notebook.server,
        gaps={"server": why, "api": why, "mlmd": why, "kubernetes": why, "bucket": why},
    )


@dataclass(frozen=True, kw_only=True)
class _EachStudent:
    """What the rehearsals of all students share. With `alone` only a lab's last step is judged."""

    spec: ClassSpec
    platform: Platform
    passwords: Mapping[str, SecretStr]
    cluster: Cluster
    lessons: tuple[labs.Lab, ...]
    alone: bool
    submitting: threading.Lock
    tell: Listener
    cancelled: threading.Event
    language: labs.Language
    own: bool
    keep: bool

    def rehearse(self, student: Student) -> list[LabResult]:
        """The labs in their order, as one student."""
        password = self.passwords.get(student.id)
        session = GatewaySession(self.platform.url, self.platform.ca_file, student.email, password or SecretStr(""))
        line = _Line(student.id, sum(len(lesson.steps) for lesson in self.lessons), self.tell)
        line.say("started")
        results: list[LabResult] = []
        try:
            for lesson in self.lessons:
                line.about = f"{lesson.title.in_(self.language)} · " if len(self.lessons) > 1 else ""
                results.append(self._lab(student, lesson, session, password, line))
                line.before += len(lesson.steps)
        finally:
            session.close()
        steps = [(result, step) for result in results for step in result.steps]
        line.passed = sum(step.state == "pass" for _, step in steps)
        wrong = [(result, step) for state in WORST_FIRST[:-1] for result, step in steps if step.state == state]
        line.say(
            "failed" if wrong else "finished",
            "".join(f"{result.lab} {step.id} {step.state}: {step.why}" for result, step in wrong[:1]),
        )
        return results

    def _lab(
        self, student: Student, lesson: labs.Lab, session: GatewaySession, password: SecretStr | None, line: "_Line"
    ) -> LabResult:
        began = time.monotonic()
        if password is None:
            facts = unseen(self.spec, self.platform, lesson, student)
        else:
            place = seat_of(self.spec, self.platform, lesson, student, session, password)
            place = replace(place, bucket_secret=self.cluster.bucket_secret(place.namespace))
            facts = Rehearsal(
                lab=lesson,
                seat=place,
                cluster=self.cluster,
                bucket=Bucket(self.cluster, place.namespace, place.bucket),
                submitting=self.submitting,
                tell=line.progress,
                cancelled=self.cancelled,
                language=self.language,
                own=self.own,
                keep=self.keep,
            ).run()
        steps = judged(lesson, facts)
        return LabResult(
            lab=lesson.name,
            title=lesson.title,
            student=student.id,
            student_name=student.name,
            email=student.email,
            seconds=time.monotonic() - began,
            steps=steps[-1:] if self.alone else steps,
            facts=facts,
        )


class _Line:
    """What is told of one student: the steps done in all labs, at the end those that passed, and what they are at."""

    def __init__(self, student: str, total: int, tell: Listener) -> None:
        self.about = ""
        self.before = 0
        self.passed = 0
        self._student = student
        self._total = total
        self._tell = tell
        self._began = time.monotonic()

    def progress(self, done: int, what: str) -> None:
        """So many steps of this lab are done."""
        self.passed = self.before + done
        self.say("progress", f"{self.about}{what}")

    def say(self, state: Literal["started", "progress", "finished", "failed"], detail: str = "") -> None:
        """What the student's line shows from now on."""
        seconds = time.monotonic() - self._began
        event = Event(
            step=self._student, state=state, done=self.passed, total=self._total, detail=detail, seconds=seconds
        )
        self._tell(event)
