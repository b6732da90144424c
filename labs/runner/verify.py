"""Every lab of a class, as every student, side by side: rehearse, judge, report."""

import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import SecretStr

from infra import naming
from infra.spec import ClassSpec, Platform, Student
from infra.steps import Event, Listener, recorded
from labs.runner import lab as labs
from labs.runner import report
from labs.runner.cluster import Cluster
from labs.runner.facts import Facts
from labs.runner.rehearsal import Rehearsal, Seat
from labs.runner.result import LabResult, Result, judged
from labs.runner.session import GatewaySession

SIDE_BY_SIDE = 8
"""Students at work at once: each has a kernel and five pods a run, which is what a small cluster carries."""


def verify(
    spec: ClassSpec,
    platform: Platform,
    passwords: Mapping[str, SecretStr],
    run_directory: Path,
    listener: Listener,
    cancelled: threading.Event,
    *,
    language: labs.Language = "en",
    side_by_side: int = SIDE_BY_SIDE,
) -> Result:
    """Rehearse every lab of the class as every student; leave result.json, facts.json, junit.xml, report.html and
    events.jsonl in `run_directory`.

    `passwords` are by the student's id. When `cancelled` is set, what is under way stops soon, its steps read not-yet;
    Ctrl-C sets it and is raised again once all is still.
    Errors: `labs.LabError` for a lab that cannot be used, `ClusterUnreachable` for a kubeconfig that cannot be used.
    """
    started, began = datetime.now(UTC), time.monotonic()
    lessons = tuple(_fitting(spec, labs.load(name)) for name in spec.labs)
    run_directory.mkdir(parents=True, exist_ok=True)
    cluster = Cluster(platform)
    with recorded(listener, run_directory / "events.jsonl") as tell, ThreadPoolExecutor(side_by_side) as pool:
        each = _EachStudent(
            spec=spec,
            platform=platform,
            passwords=passwords,
            cluster=cluster,
            lessons=lessons,
            submitting=threading.Lock(),
            tell=tell,
            cancelled=cancelled,
            language=language,
        )
        try:
            found = [result for results in pool.map(each.rehearse, spec.students) for result in results]
        except BaseException:
            cancelled.set()
            raise
        finally:
            # After Ctrl-C those who wait for their turn do not begin.
            pool.shutdown(wait=True, cancel_futures=True)
            cluster.close()
    result = Result(
        class_name=spec.name,
        url=platform.url,
        started=started.isoformat(timespec="seconds"),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=time.monotonic() - began,
        labs=tuple(found),
    )
    report.write(result, run_directory, language)
    return result


def _fitting(spec: ClassSpec, lesson: labs.Lab) -> labs.Lab:
    if lesson.notebook.server not in {notebook.name for notebook in spec.notebooks}:
        raise labs.LabError(
            f"the lab {lesson.name} works in {lesson.notebook.server}, which the class does not have; "
            f"add `- name: {lesson.notebook.server}` to its notebooks, or take {lesson.name} out of its labs"
        )
    return lesson


@dataclass(frozen=True, kw_only=True)
class _EachStudent:
    """What the rehearsals of all students share."""

    spec: ClassSpec
    platform: Platform
    passwords: Mapping[str, SecretStr]
    cluster: Cluster
    lessons: tuple[labs.Lab, ...]
    submitting: threading.Lock
    tell: Listener
    cancelled: threading.Event
    language: labs.Language

    def rehearse(self, student: Student) -> list[LabResult]:
        """The labs in their order, as one student."""
        password = self.passwords.get(student.id)
        session = GatewaySession(self.platform.url, self.platform.ca_file, student.email, password or SecretStr(""))
        try:
            return [self._lab(student, lesson, session, password) for lesson in self.lessons]
        finally:
            session.close()

    def _lab(
        self, student: Student, lesson: labs.Lab, session: GatewaySession, password: SecretStr | None
    ) -> LabResult:
        began = time.monotonic()
        line, total = f"{student.id} · {lesson.title.in_(self.language)}", len(lesson.steps)

        def seconds() -> float:
            return time.monotonic() - began

        self.tell(Event(step=line, state="started", total=total))
        if password is None:
            facts = self._unseen(student, lesson)
        else:
            facts = Rehearsal(
                lab=lesson,
                seat=self._seat(student, lesson, session, password),
                cluster=self.cluster,
                submitting=self.submitting,
                tell=lambda done, what: self.tell(
                    Event(step=line, state="progress", done=done, total=total, detail=what, seconds=seconds())
                ),
                cancelled=self.cancelled,
                language=self.language,
            ).run()
        result = LabResult(
            lab=lesson.name,
            title=lesson.title,
            student=student.id,
            student_name=student.name,
            email=student.email,
            seconds=seconds(),
            steps=judged(lesson, facts),
            facts=facts,
        )
        good = sum(step.state == "pass" for step in result.steps)
        first = next((step for step in result.steps if step.state == result.state), None)
        self.tell(
            Event(
                step=line,
                state="finished" if result.state == "pass" else "failed",
                done=good,
                total=total,
                detail="" if result.state == "pass" or first is None else f"{first.id} {first.state}: {first.why}",
                seconds=seconds(),
            )
        )
        return result

    def _seat(self, student: Student, lesson: labs.Lab, session: GatewaySession, password: SecretStr) -> Seat:
        image = next(n.image for n in self.spec.notebooks if n.name == lesson.notebook.server)
        return Seat(
            student=student,
            namespace=naming.namespace(self.spec.name, student.id),
            bucket=naming.bucket(self.spec.name, student.id),
            image=image or self.platform.notebook_image,
            session=session,
            password=password,
        )

    def _unseen(self, student: Student, lesson: labs.Lab) -> Facts:
        why = "the student's password is not known here; `scripts/classroom up` with the class file makes one"
        return Facts(
            lab=lesson.name,
            student=student.id,
            namespace=naming.namespace(self.spec.name, student.id),
            bucket=naming.bucket(self.spec.name, student.id),
            server=lesson.notebook.server,
            gaps={"server": why, "api": why, "mlmd": why, "kubernetes": why, "bucket": why},
        )
