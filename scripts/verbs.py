"""What the verbs do, for the command line and for the demonstration alike: progress on the console, evidence in runs/.

Each verb that looks at a class leaves `runs/<class>/<UTC time>-<verb>/` with events.jsonl and what it saw, no secret.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import SecretStr
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from infra import classroom, engine, one_machine, teardown
from infra.failure import CallFailure, Failure
from infra.local.places import places
from infra.spec import ClassSpec, OneMachine, Platform
from infra.steps import Cancelled, Listener, Report, Step, recorded, run
from labs.kubeflow_login import LoginError
from labs.runner.clients.jupyter import NotebookServer
from labs.runner.clients.session import GatewaySession, NoAnswerError
from scripts.progress import shown, watched

if TYPE_CHECKING:
    from labs.runner.lab import Language
    from labs.runner.result import Result
    from labs.runner.verify import Scope


_ANSWERS_WITHIN_SECONDS = 120


class NotebookSilent(Failure):
    """A seat was made, and its student does not get in."""


class LessonsMissing(Failure):
    """The seats stand, but not every lab could be put there."""


class NoClass(CallFailure):
    """The class that was named does not stand."""


def platform_up(console: Console) -> Platform:
    """Have the one-machine platform stand."""
    with shown("platform up", console) as listener:
        return one_machine.up(listener)


def platform_down(console: Console, *, purge: bool = False) -> None:
    """Have nothing of the one-machine platform left but, without `purge`, its cache."""
    with shown("platform down", console) as listener:
        one_machine.down(listener, purge=purge)


def reached(spec: ClassSpec) -> Platform:
    """The Kubeflow that the class is held on."""
    return one_machine.reached() if isinstance(spec.platform, OneMachine) else spec.platform


def up(spec: ClassSpec, platform: Platform, console: Console, *, language: "Language" = "en") -> classroom.Handout:
    """Have every seat of the class stand, each notebook answering its student at the gateway, with every lab in it.

    A lab's notebook that is there already stays as it is.
    """
    # As in verify.
    from labs.runner.lab import load
    from labs.runner.seats import fitting
    from labs.runner.seed import hand_out

    # A mistake in a lab is told before anything stands.
    lessons = [fitting(spec, load(name)) for name in spec.labs]
    made: list[classroom.Handout] = []
    stop = threading.Event()

    def stamp(report: Report) -> None:
        outputs = engine.up(_stack(spec, platform), lambda event: report(event.detail, event.done, event.total), stop)
        if handout := classroom.handout(outputs):
            made.append(handout)

    def knock(report: Report) -> None:
        for done, seat in enumerate(made[0].seats):
            report(seat.id, done, len(made[0].seats))
            _knock(seat, platform, stop)

    def teach(report: Report) -> None:
        done = count(1)

        def tell(student: str) -> None:
            report(student, next(done), len(spec.students))

        passwords = made[0].passwords
        if wrong := hand_out(spec, platform, passwords, lessons, tell, _pauser(stop), language=language):
            raise LessonsMissing(f"the seats stand, but not every lab lies there: {'; '.join(wrong)}; run `up` again")

    steps = [
        Step(name="seats", action=stamp),
        Step(name="doors", needs=("seats",), action=knock),
        Step(name="lessons", needs=("doors",), action=teach),
    ]
    with _evidence(spec, "up", console) as (_, listener):
        run(steps, listener, stop)
    return made[0]


def preview(spec: ClassSpec, platform: Platform, console: Console) -> engine.Changes:
    """What `up` would change."""
    with _evidence(spec, "preview", console) as (_, listener):
        return engine.preview(_stack(spec, platform), listener)


def verify(
    spec: ClassSpec, platform: Platform, console: Console, scope: "Scope | None" = None, **how: Any
) -> tuple["Result", Path]:
    """Rehearse the labs as the students, all of them unless `scope` says which; what was seen, and the folder with the
    reports. `how` is `labs.runner.verify.verify`'s: language, own, keep."""
    # kfp takes two seconds to import and only rehearsals need it.
    from labs.runner.verify import EVERYTHING
    from labs.runner.verify import verify as rehearse

    scope = scope or EVERYTHING
    passwords = _passwords(spec, platform)
    directory = _run_directory(spec, "verify")
    with shown(f"verify {spec.name}", console, of="students") as listener:
        stop = threading.Event()
        return rehearse(spec, platform, passwords, directory, listener, stop, scope=scope, **how), directory


def watch(
    spec: ClassSpec, platform: Platform, console: Console, scope: "Scope | None" = None, language: "Language" = "en"
) -> tuple["Result", Path]:
    """Show where each student stands until Ctrl-C; what was seen last, and the folder with the reports."""
    # As in verify.
    from labs.runner.verify import EVERYTHING
    from labs.runner.watch import watch as look

    scope = scope or EVERYTHING
    passwords = _passwords(spec, platform)
    directory = _run_directory(spec, "watch")
    with watched(f"watch {spec.name}", console, language) as show:
        stop = threading.Event()
        return look(spec, platform, passwords, directory, show, stop, scope=scope, language=language), directory


def _passwords(spec: ClassSpec, platform: Platform) -> dict[str, SecretStr]:
    handout = classroom.handout(engine.outputs(_stack(spec, platform)))
    if handout is None:
        raise NoClass(f"class {spec.name} does not stand; run `scripts/classroom up` with its file first")
    return handout.passwords


def down(spec: ClassSpec, platform: Platform, console: Console) -> tuple[teardown.Certificate, Path]:
    """Take the class away and look again; the certificate, and the file with its text."""
    with _evidence(spec, "down", console) as (directory, listener):
        certificate = teardown.down(spec, platform, stack=_stack(spec, platform), listener=listener)
        return certificate, certificate.write(directory)


def logins(handout: classroom.Handout) -> str:
    """The one place where passwords are shown: lines that no narrow terminal cuts."""
    lines = [f"Log in at {handout.gateway}"]
    for seat in handout.seats:
        lines += ["", f"  {seat.name or seat.id}", f"    {seat.email}    {seat.password.get_secret_value()}"]
        lines += [f"    {url}" for url in seat.notebooks.values()]
    return "\n".join(lines)


def matrix(result: "Result", language: "Language" = "en") -> Group:
    """Steps × students, and below what was not seen to work, with how to mend it."""
    # As in verify.
    from labs.runner.report import MARKS

    colours = {"pass": "green", "fail": "red", "not-yet": "dim", "could-not-check": "yellow"}
    parts: list[RenderableType] = []
    for name in dict.fromkeys(lab.lab for lab in result.labs):
        rehearsed = [lab for lab in result.labs if lab.lab == name]
        table = Table("step", "", *(lab.student for lab in rehearsed), title=rehearsed[0].title.in_(language))
        for steps in zip(*(lab.steps for lab in rehearsed), strict=True):
            marks = (f"[{colours[step.state]}]{MARKS[step.state]}[/]" for step in steps)
            table.add_row(steps[0].id, steps[0].title.in_(language), *marks)
        parts.append(table)
        parts += [
            Text(
                f"{lab.student} {step.id} {outcome.state}: "
                f"expected {outcome.expected}; seen {outcome.seen}. {outcome.hint}"
            )
            for lab in rehearsed
            for step in lab.steps
            for outcome in step.outcomes
            if outcome.state in ("fail", "could-not-check")
        ]
    return Group(*parts)


def _knock(seat: classroom.SeatDetails, platform: Platform, stop: threading.Event) -> None:
    """Wait until every notebook answers its student through the gateway, as it will in class."""

    session = GatewaySession(platform.url, platform.ca_file, seat.email, seat.password)
    try:
        session.log_in()
        for url in seat.notebooks.values():
            server = NotebookServer(session, urlsplit(url).path)
            server.wait(until=time.monotonic() + _ANSWERS_WITHIN_SECONDS, pause=_pauser(stop))
    except (LoginError, NoAnswerError) as error:
        raise NotebookSilent(
            f"{seat.id}'s seat stands, but its door does not open: {error}; "
            "look at `scripts/classroom platform status`, then run `up` again"
        ) from None
    finally:
        session.close()


def _pauser(stop: threading.Event) -> Callable[[float], None]:
    def pause(seconds: float) -> None:
        if stop.wait(seconds):
            raise Cancelled("stopped before every door was tried; the same command goes on from here")

    return pause


def _stack(spec: ClassSpec, platform: Platform) -> engine.Stack:
    state = one_machine.state_directory() if platform.kind == "one-machine" else places().state
    return engine.class_stack(spec, platform, state=state, tools=one_machine.pulumi_directories())


@contextmanager
def _evidence(spec: ClassSpec, verb: str, console: Console) -> Iterator[tuple[Path, Listener]]:
    """A folder for what this call sees, and a listener that shows events and records them there."""
    directory = _run_directory(spec, verb)
    with shown(f"{verb} {spec.name}", console) as show, recorded(show, directory / "events.jsonl") as listener:
        yield directory, listener


def _run_directory(spec: ClassSpec, verb: str) -> Path:
    """A new folder below the one that the command is typed in."""
    directory = Path("runs") / spec.name / f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{verb}"
    directory.mkdir(parents=True)
    return directory
