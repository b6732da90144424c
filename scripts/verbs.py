"""What the verbs do, for the command line and for the demonstration alike: progress on the console, evidence in runs/.

Each verb here that takes a console and a class leaves `runs/<class>/<UTC time>-<verb>/` with what it saw, no secret:
`watch` without events.jsonl, `handout` only when it changes passwords.
"""

import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import SecretStr
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from infra import classroom, naming, one_machine, stacks, teardown
from infra.bill import bill
from infra.failure import CallFailure, Failure
from infra.fit import DoesNotFit
from infra.local import machine
from infra.local.places import places
from infra.spec import ClassSpec, Platform, Student
from infra.steps import Cancelled, Event, Listener, Report, Step, recorded, run
from labs.kubeflow_login import LoginError, WrongPasswordError
from labs.runner.clients.jupyter import NotebookServer
from labs.runner.clients.session import GatewaySession, NoAnswerError
from scripts.day import expect_open, expect_room, fitted, stopped, within_session
from scripts.progress import shown, watched

if TYPE_CHECKING:
    from labs.runner.isolation.doors import Result as IsolationResult
    from labs.runner.lab import Lab, Language
    from labs.runner.result import Result
    from labs.runner.verify import Scope


HANDOUTS = Path("handouts")
"""Below the folder that the command is typed in; git ignores it."""

_ANSWERS_WITHIN_SECONDS = 120
_ANSWERS_AFTER_OTHERS_WITHIN_SECONDS = 10
"""Of a door that is tried after one that stayed shut: it has had that one's time as well."""
_TOLD = 40
"""Lines about single cells on the console; the report has them all."""


class NotebookSilent(Failure):
    """A seat was made, and its student does not get in."""


class LessonsMissing(Failure):
    """A seat stands, but not every lab could be put there."""


class NoClass(CallFailure):
    """The class that was named does not stand."""


class NotBroughtUp(CallFailure):
    """The class file holds changes that `up` has not made yet, and that nobody asked for."""


@dataclass(frozen=True, kw_only=True)
class Added:
    """A seat that stands, what its student's rehearsal found (None: there was none), and the folder of its reports."""

    seat: classroom.SeatDetails
    result: "Result | None"
    directory: Path


def platform_up(console: Console) -> Platform:
    """Have the one-machine platform stand."""
    with shown("platform up", console) as listener:
        return one_machine.up(listener)


def platform_down(console: Console, *, purge: bool = False) -> None:
    """Have nothing of the one-machine platform left but, without `purge`, its cache."""
    with shown("platform down", console) as listener:
        one_machine.down(listener, purge=purge)


def up(
    spec: ClassSpec,
    platform: Platform,
    console: Console,
    *,
    language: "Language" = "en",
    force: bool = False,
    lose_files: bool = False,
) -> classroom.Handout:
    """Have every seat of the class stand, each notebook answering its student at the gateway, with every lab in it.

    A lab's notebook that is there already stays as it is. A class that does not fit is refused before anything is made,
    unless `force`. A seat that fails keeps no other one from being made, tried and taught in.

    Errors: `stacks.SeatsFailed` with the handout of the seats that are ready; those of `stacks.up`; `fit.DoesNotFit`;
    those of `day.within_session`; `labs.LabError` for a lab that cannot be used.
    """
    # As in verify.
    from labs.runner.lab import load
    from labs.runner.seats import fitting

    # A mistake in a lab is told before anything stands.
    lessons = [fitting(spec, load(name)) for name in spec.labs]
    made: list[classroom.Handout] = []
    asleep: dict[str, frozenset[str]] = {}
    wrong: list[str] = []
    stop = threading.Event()

    def measure(report: Report) -> None:
        expect_open(spec, platform)
        found = fitted(spec, platform)
        if found.shortages and not force:
            raise DoesNotFit(found)
        report("; ".join([*(each.text(found.seats) for each in found.shortages), *found.notes]))

    def stamp(report: Report, listener: Listener) -> None:
        try:
            handout = stacks.up(_klass(spec, platform), _parts(report, listener), stop, lose_files=lose_files)
        except stacks.SeatsFailed as failed:
            if failed.standing is None:
                raise
            wrong.extend(failed.lines)
            handout = failed.standing
        if handout:
            made.append(handout)

    def knock(report: Report, listener: Listener) -> None:
        seats, ready, seconds = made[0].seats, [], _ANSWERS_WITHIN_SECONDS
        asleep.update(stopped(spec, platform))
        for done, seat in enumerate(seats):
            report(seat.id, done, len(seats))
            try:
                _knock(_awake(seat, asleep, listener), platform, stop, seconds)
                ready.append(seat)
            except NotebookSilent as silent:
                seconds = _ANSWERS_AFTER_OTHERS_WITHIN_SECONDS
                wrong.append(str(silent))
                listener(Event(step=f"{seat.id}: door", state="failed", detail=str(silent)))
        made[0] = replace(made[0], seats=tuple(ready))

    def teach(report: Report) -> None:
        done = count(1)

        def tell(student: str) -> None:
            report(student, next(done), len(made[0].seats))

        passwords = made[0].passwords
        wrong.extend(_handed_out(spec, platform, passwords, lessons, asleep, tell, _pauser(stop), language))

    with within_session(spec, platform), _evidence(spec, "up", console) as (_, listener):
        steps = [
            Step(name="fit", action=measure),
            Step(name="seats", needs=("fit",), action=lambda report: stamp(report, listener)),
            Step(name="doors", needs=("seats",), action=lambda report: knock(report, listener)),
            Step(name="lessons", needs=("doors",), action=teach),
        ]
        run(steps, listener, stop)
        if wrong:
            raise stacks.SeatsFailed(wrong, made[0] if made[0].seats else None)
    return made[0]


def preview(spec: ClassSpec, platform: Platform, console: Console) -> tuple[str, ...]:
    """What `up` would change, in a teacher's words; nothing when it would change nothing."""
    with _evidence(spec, "preview", console) as (directory, listener):
        said = stacks.preview(_klass(spec, platform), listener)
        (directory / "changes.txt").write_text("".join(f"{line}\n" for line in said))
        return said


def add(
    spec: ClassSpec,
    platform: Platform,
    student: str,
    console: Console,
    *,
    language: "Language" = "en",
    rehearse: bool = True,
) -> Added:
    """Have the seat of one student of the class file stand, with every lab in it and every door tried, and touch no
    other. Then, with `rehearse`, run the class's first lab in it as that student.

    Errors: as `up`, but of room only where there is none for this seat; `infra.local.machine.Busy`, before anything is
    made, while another command rehearses the class.
    """
    klass = _klass(spec, platform)

    def make(listener: Listener, stop: threading.Event) -> classroom.Handout | None:
        expect_room(spec, platform, student)
        return stacks.add(klass, student, listener, stop)

    first = spec.labs[:1] if rehearse else ()
    otherwise = "; --no-rehearsal does not wait"
    with within_session(spec, platform), _rehearsing(klass, "add", otherwise) if first else nullcontext():
        return _one_seat(spec, platform, student, console, "add", make, language, first)


def repair(
    spec: ClassSpec,
    platform: Platform,
    student: str,
    console: Console,
    *,
    wipe: bool = False,
    language: "Language" = "en",
) -> classroom.SeatDetails:
    """Rebuild one student's seat, and touch no other: its servers anew, the rest put right; files, bucket and login are
    kept, with `wipe` only the login.

    Errors: those of `stacks.repair`; `day.Closed`, before anything is changed; `NotebookSilent`, `LessonsMissing`.
    """
    klass = _klass(spec, platform)

    def make(listener: Listener, stop: threading.Event) -> classroom.Handout | None:
        def clear() -> None:
            teardown.clear(klass, student, wipe=wipe, cancelled=stop)

        return stacks.repair(klass, student, clear, listener, stop, lose_files=wipe)

    return _one_seat(spec, platform, student, console, "repair", make, language).seat


def remove(spec: ClassSpec, platform: Platform, student: str, console: Console) -> tuple[teardown.Certificate, Path]:
    """Take the seat of a student away who is not in the class file any more; the certificate, and the file with it.

    The seat's bill is left as `down` leaves the class's.
    """
    stacks.expect_removable(_klass(spec, platform), student)
    # Whoever has left the class file has left nothing but the id in the names of what stands: a bill needs no more.
    seat = spec.model_copy(update={"students": (Student.model_construct(id=student),)})
    return _taken_away(spec, platform, console, "remove", student=student, billed=seat)


def _one_seat(
    spec: ClassSpec,
    platform: Platform,
    student: str,
    console: Console,
    verb: str,
    make: Callable[[Listener, threading.Event], classroom.Handout | None],
    language: "Language",
    rehearsed: tuple[str, ...] = (),
) -> Added:
    """Make one seat, look that its student gets in and finds what is taught, and run the labs that are `rehearsed`."""
    # As in verify.
    from labs.runner.lab import load
    from labs.runner.seats import fitting

    lessons = [fitting(spec, load(name)) for name in spec.labs]
    expect_open(spec, platform)
    made: list[classroom.SeatDetails] = []
    asleep: dict[str, frozenset[str]] = {}
    found: list[Result] = []
    stop = threading.Event()

    def knock(listener: Listener) -> None:
        asleep.update(stopped(spec, platform))
        _knock(_awake(made[0], asleep, listener), platform, stop)

    def teach(report: Report) -> None:
        passwords = {student: made[0].password}
        if wrong := _handed_out(spec, platform, passwords, lessons, asleep, report, _pauser(stop), language):
            raise LessonsMissing(f"the seat stands, but not every lab lies there: {'; '.join(wrong)}; run this again")

    with _evidence(spec, verb, console) as (directory, listener):

        def stamp(report: Report) -> None:
            handout = make(_parts(report, listener), stop)
            made.extend(each for each in (handout.seats if handout else ()) if each.id == student)

        def rehearse(report: Report) -> None:
            from labs.runner.verify import Scope, verify

            passwords, scope = {student: made[0].password}, Scope(students=(student,), lessons=rehearsed)
            hear = _parts(report, listener)
            found.append(verify(spec, platform, passwords, directory, hear, stop, scope=scope, language=language))

        steps = [
            Step(name="seat", action=stamp),
            Step(name="doors", needs=("seat",), action=lambda _report: knock(listener)),
            Step(name="lessons", needs=("doors",), action=teach),
        ]
        steps += [Step(name="rehearsal", needs=("lessons",), action=rehearse)] if rehearsed else []
        run(steps, listener, stop)
    return Added(seat=made[0], result=found[0] if found else None, directory=directory)


def _awake(
    seat: classroom.SeatDetails, asleep: Mapping[str, frozenset[str]], listener: Listener
) -> classroom.SeatDetails:
    """The seat without those of its notebooks that were stopped on purpose, of which the listener hears."""
    away = asleep.get(seat.namespace, frozenset()) & seat.notebooks.keys()
    if away:
        told = f"stopped on purpose, so neither tried nor given labs: {', '.join(sorted(away))}"
        listener(Event(step=f"{seat.id}: door", state="finished", detail=told))
    return replace(seat, notebooks={name: url for name, url in seat.notebooks.items() if name not in away})


def _handed_out(
    spec: ClassSpec,
    platform: Platform,
    passwords: Mapping[str, SecretStr],
    lessons: "Sequence[Lab]",
    asleep: Mapping[str, frozenset[str]],
    tell: Callable[[str], None],
    pause: Callable[[float], None],
    language: "Language",
) -> list[str]:
    """Put the labs where these students work, but into no notebook that is `asleep`; what could not be, in words."""
    # As in verify.
    from labs.runner.seed import hand_out

    away = {student: asleep.get(naming.namespace(spec.name, student), frozenset()) for student in passwords}
    wrong: list[str] = []
    for names in dict.fromkeys(away.values()):
        alike = _only(spec, [student for student in away if away[student] == names])
        awake = [lesson for lesson in lessons if lesson.notebook.server not in names]
        wrong += hand_out(alike, platform, passwords, awake, tell, pause, language=language)
    return wrong


def _only(spec: ClassSpec, students: Collection[str]) -> ClassSpec:
    """The class with these of its students alone."""
    return spec.model_copy(update={"students": tuple(each for each in spec.students if each.id in students)})


def _parts(report: Report, listener: Listener) -> Listener:
    """What is heard of a step's parts: how far they are goes to the step's line, each that failed has its own."""

    def hear(event: Event) -> None:
        if event.state == "failed":
            listener(event)
        else:
            report(event.detail, event.done, event.total)

    return hear


def verify(
    spec: ClassSpec, platform: Platform, console: Console, scope: "Scope | None" = None, **how: Any
) -> tuple["Result", Path]:
    """Rehearse the labs as the students, all of them unless `scope` says which; what was seen, and the folder with the
    reports. `how` is `labs.runner.verify.verify`'s: language, own, keep.

    Errors: `NoClass`; `infra.local.machine.Busy` while another command rehearses the class; those of
    `labs.runner.verify.verify`.
    """
    # kfp takes two seconds to import and only rehearsals need it.
    from labs.runner.verify import EVERYTHING
    from labs.runner.verify import verify as rehearse

    scope, stop = scope or EVERYTHING, threading.Event()
    with _rehearsing(_klass(spec, platform), "verify"):
        passwords = passwords_of(spec, platform)
        directory = _run_directory(spec, "verify")
        with shown(f"verify {spec.name}", console, of="students") as listener:
            return rehearse(spec, platform, passwords, directory, listener, stop, scope=scope, **how), directory


def watch(
    spec: ClassSpec, platform: Platform, console: Console, scope: "Scope | None" = None, language: "Language" = "en"
) -> tuple["Result", Path]:
    """Show where each student stands until Ctrl-C; what was seen last, and the folder with the reports."""
    # As in verify.
    from labs.runner.verify import EVERYTHING
    from labs.runner.watch import watch as look

    scope = scope or EVERYTHING
    passwords = passwords_of(spec, platform)
    directory = _run_directory(spec, "watch")
    with watched(f"watch {spec.name}", console, language) as show:
        stop = threading.Event()
        return look(spec, platform, passwords, directory, show, stop, scope=scope, language=language), directory


def isolation(spec: ClassSpec, platform: Platform, console: Console) -> tuple["IsolationResult", Path]:
    """Try every door between the students; what was seen, and the folder with the reports.

    Errors: `NoClass`; `infra.local.machine.Busy` while another command rehearses or proves the class.
    """
    # As in verify.
    from labs.runner.isolation.prove import prove

    with _rehearsing(_klass(spec, platform), "isolation"):
        passwords = passwords_of(spec, platform)
        directory = _run_directory(spec, "isolation")
        with shown(f"isolation {spec.name}", console, of="students") as listener:
            return prove(spec, platform, passwords, directory, listener, threading.Event()), directory


def doors(result: "IsolationResult") -> Group:
    """Doors × verdicts, and below what was not refused, with what was asked and answered."""
    # As in verify.
    from labs.runner.isolation.report import by_door, headline, worst

    colours = {"refused": "green", "leak": "red", "could-not-check": "yellow"}
    table = Table("door", "", "refused", "leak", "could not check", title=f"isolation of {result.class_name}")
    for door, cells in by_door(result):
        counts = (sum(cell.verdict == verdict for cell in cells) for verdict in colours)
        shown_counts = (
            f"[{colour}]{count}[/]" if count else "" for colour, count in zip(colours.values(), counts, strict=True)
        )
        table.add_row(door.group, Text(door.title, style=colours[worst(cells)]), *shown_counts)
    lines = [
        Text(
            f"{cell.door} {cell.verdict}: {cell.actor} at {' '.join((cell.target, cell.notebook)).strip()}: "
            f"{cell.asked or 'nothing asked'}; "
            f"answered {cell.answered or 'nothing'}; let in there: {cell.control}. {cell.why}"
        )
        for cell in result.cells
        if cell.verdict != "refused"
    ]
    more = [Text(f"… and {len(lines) - _TOLD} more, in the report")] if len(lines) > _TOLD else []
    tried = f"{result.pairs} of {result.pairs_there_are} ordered pairs of {len(result.students)} students"
    said = Text(f"{headline(result)}: {tried}, {len(result.cells)} cells, {result.seconds:.0f} s")
    return Group(table, *lines[:_TOLD], *more, *(Text(f"left behind: {each}") for each in result.left_behind), said)


def passwords_of(spec: ClassSpec, platform: Platform) -> dict[str, SecretStr]:
    """The passwords of a class that stands, by student id; of a seat that was never whole there is none.

    Errors: `NoClass`; `infra.engine.EngineFailure` when the state cannot be read.
    """
    handout = stacks.current(_klass(spec, platform))
    if handout is None:
        raise NoClass(f"class {spec.name} does not stand; run `scripts/classroom up` with its file first")
    return handout.passwords


def down(spec: ClassSpec, platform: Platform, console: Console) -> tuple[teardown.Certificate, Path]:
    """Take the class away and look again; the certificate, and the file with its text.

    Where the class file names prices, the bill stands in it and, line by line, beside it: afterwards nothing tells any
    more what was used. Where no bill could be made, the certificate says why.
    """
    return _taken_away(spec, platform, console, "down", billed=spec)


def _taken_away(
    spec: ClassSpec, platform: Platform, console: Console, verb: str, *, student: str = "", billed: ClassSpec
) -> tuple[teardown.Certificate, Path]:
    """Take the class, or the seat of one student, away, and leave the bill of what is `billed` with the certificate."""
    with _evidence(spec, verb, console) as (directory, listener):
        text, notes = "", tuple[str, ...]()
        # Whatever it is: a bill that cannot be made keeps nothing standing.
        try:
            if made := bill(billed, platform):
                (directory / "bill.csv").write_text(made.csv())
                text = made.text()
        except Exception as error:
            notes = (f"there is no bill: {error if isinstance(error, Failure) else repr(error)}",)
        certificate = teardown.down(_klass(spec, platform), student=student, listener=listener)
        certificate = certificate.model_copy(update={"bill": text, "notes": (*certificate.notes, *notes)})
        return certificate, certificate.write(directory)


def handout(
    spec: ClassSpec,
    platform: Platform,
    console: Console,
    *,
    language: "Language" = "en",
    new_passwords: tuple[str, ...] = (),
) -> Path:
    """Write the handout of a class that stands, to students in `new_passwords` with another password; its folder.

    Errors: `NoClass`; with new passwords `NotBroughtUp` and `day.Closed`, before anything is changed, and those of
    `stacks.up`; of a seat that fails, once the pages of the others are written.
    """
    # As in verify.
    from scripts import handout as pages

    klass = _klass(spec, platform)
    if (told := stacks.current(klass)) is None:
        raise NoClass(f"class {spec.name} does not stand; run `scripts/classroom up` with its file first")
    failed = None
    if new_passwords:
        expect_open(spec, platform)
        with _evidence(spec, "handout", console) as (_, listener):
            # It is a whole `up`, which would make all else of the file as well.
            if waiting := stacks.preview(klass, listener):
                raise NotBroughtUp(
                    f"the class file holds changes that are not brought up yet: {'; '.join(waiting)}; "
                    "run `scripts/classroom up` with it first, then this again"
                )
            try:
                told = stacks.up(klass, listener, new_passwords=new_passwords) or told
            except stacks.SeatsFailed as error:
                if error.standing is None:
                    raise
                failed, told = error, error.standing
    directory = HANDOUTS / spec.name
    pages.write(pages.pages(spec, told, language=language, private_ca=pages.warned_of(spec, platform)), directory)
    if failed:
        raise failed
    return directory


def logins(handout: classroom.Handout, console: Console) -> str:
    """What a class is told when it stands, in lines that no narrow terminal cuts."""
    return f"Log in at {handout.gateway}\n\n{login(*handout.seats, console=console)}"


def login(*seats: classroom.SeatDetails, console: Console) -> str:
    """The one place where passwords are shown, and only on a terminal: files and logs are kept, and read by others."""
    private = _is_private(console)
    told: list[str] = []
    for seat in seats:
        password = f"    {seat.password.get_secret_value()}" if private else ""
        urls = (f"    {url}" for url in seat.notebooks.values())
        told.append("\n".join([f"  {seat.name or seat.id}", f"    {seat.email}{password}", *urls]))
    if not private:
        told.append("no passwords, for this is no terminal; `scripts/classroom handout CLASS.yaml` writes them (0600)")
    return "\n\n".join(told)


def _is_private(console: Console) -> bool:
    """Whether somebody sits before it: FORCE_COLOR makes rich take a log for a terminal, so the file is asked too."""
    return console.is_terminal and console.file.isatty()


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


def _knock(
    seat: classroom.SeatDetails, platform: Platform, stop: threading.Event, seconds: float = _ANSWERS_WITHIN_SECONDS
) -> None:
    """Wait until every notebook answers its student through the gateway, as it will in class. Errors: `NotebookSilent`
    after `seconds`."""
    session = GatewaySession(platform.url, platform.ca_file, seat.email, seat.password)
    until, pause = time.monotonic() + seconds, _pauser(stop)
    try:
        _log_in(session, until, pause)
        for url in seat.notebooks.values():
            NotebookServer(session, urlsplit(url).path).wait(until=until, pause=pause)
    except (LoginError, NoAnswerError) as error:
        raise NotebookSilent(
            f"{seat.id}'s seat stands, but its door does not open: {error}; "
            "look at `scripts/classroom platform status`, then run this again"
        ) from None
    finally:
        session.close()


def _log_in(session: GatewaySession, until: float, pause: Callable[[float], None]) -> None:
    """Log in as soon as the gateway answers: while a busy node makes seats, its address may be away for seconds."""
    while True:
        try:
            session.log_in()
            return
        except LoginError as error:
            if isinstance(error, WrongPasswordError) or time.monotonic() > until:
                raise
        pause(1.0)


def _pauser(stop: threading.Event) -> Callable[[float], None]:
    def pause(seconds: float) -> None:
        if stop.wait(seconds):
            raise Cancelled("stopped before every door was tried; the same command goes on from here")

    return pause


def _klass(spec: ClassSpec, platform: Platform) -> stacks.Klass:
    state = one_machine.state_directory() if platform.kind == "one-machine" else places().state
    return stacks.Klass(spec=spec, platform=platform, state=state, tools=one_machine.pulumi_directories())


@contextmanager
def _rehearsing(klass: stacks.Klass, verb: str, otherwise: str = "") -> Iterator[None]:
    """Let nobody else on this machine rehearse the class meanwhile: each would take away what the other has just made.

    Errors: `machine.Busy`, at once, with what can be done `otherwise`.
    """
    name = klass.spec.name
    klass.state.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        try:
            held.enter_context(machine.lock(f"{verb} of class {name}", klass.state / f"{name}.rehearsal.lock"))
        except machine.Busy as busy:
            raise machine.Busy(f"{busy}{otherwise}") from None
        yield


@contextmanager
def _evidence(spec: ClassSpec, verb: str, console: Console) -> Iterator[tuple[Path, Listener]]:
    """A folder for what this call sees, and a listener that shows events and records them there."""
    directory = _run_directory(spec, verb)
    with shown(f"{verb} {spec.name}", console) as show, recorded(show, directory / "events.jsonl") as listener:
        yield directory, listener


def _run_directory(spec: ClassSpec, verb: str) -> Path:
    """A new folder below the one that the command is typed in."""
    first = Path("runs") / spec.name / f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{verb}"
    directory = first
    for number in count(2):
        try:
            directory.mkdir(parents=True)
            return directory
        except FileExistsError:
            # The same verb was called twice within a second.
            directory = first.with_name(f"{first.name}-{number}")
    raise AssertionError("unreachable")
