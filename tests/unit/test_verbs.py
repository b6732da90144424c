"""What a teacher is told of seats that are ready, of those that are not, and of one that joins late."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr
from rich.console import Console

from infra import one_machine, stacks, stores
from infra.classroom import Handout, SeatDetails
from infra.failure import Failure
from infra.spec import ClassSpec, Platform
from labs.runner import seed
from labs.runner import verify as rehearsals
from labs.runner.checks import State
from labs.runner.clients.session import NoAnswerError
from labs.runner.lab import load
from labs.runner.result import LabResult, Result, StepResult
from scripts import verbs
from scripts.command_line import answered, classroom
from scripts.day import Closed

CLASS_FILE = Path(__file__).parents[2] / "labs" / "classes" / "demo.yaml"


def seat(student: str) -> SeatDetails:
    return SeatDetails(
        id=student,
        name="",
        email=f"{student}@example.org",
        password=SecretStr(f"secret-of-{student}"),
        namespace=f"demo-{student}",
        notebooks={"cpu-notebook": f"https://h/notebook/demo-{student}/cpu-notebook/"},
        bucket=f"demo-{student}",
    )


def handout(*students: str) -> Handout:
    return Handout(gateway="https://h/", seats=tuple(map(seat, students)))


def rehearsed(spec: ClassSpec, platform: Platform, lab: str, state: State) -> Result:
    """A verify that saw one step of the lab to be so, as the class's first student."""
    lesson, student = load(lab), spec.students[0]
    step = lesson.steps[0]
    result = LabResult(
        lab=lab,
        title=lesson.title,
        student=student.id,
        student_name=student.name,
        email=student.email,
        seconds=1,
        steps=(StepResult(id=step.id, title=step.title, state=state, seconds=None, outcomes=()),),
        facts=rehearsals.unseen(spec, platform, lesson, student),
    )
    return Result(class_name=spec.name, url="https://h/", started="", finished="", seconds=1, labs=(result,))


class _Session:
    """A student at the gateway, who always gets in."""

    def __init__(self, _url: str, _ca: object, email: str, _password: SecretStr) -> None:
        self.email = email

    def log_in(self) -> None:
        pass

    def close(self) -> None:
        pass


class _Server:
    """A notebook server; bob's does not answer."""

    def __init__(self, session: _Session, _path: str) -> None:
        self._student = session.email.partition("@")[0]

    def wait(self, **_: Any) -> None:
        if self._student == "bob":
            raise NoAnswerError("the gateway answers 404")


@pytest.fixture(autouse=True)
def taught(platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """No cluster: doors open to all but bob. Those who were handed the labs."""
    found: list[str] = []

    def hand_out(
        spec: ClassSpec, _platform: Platform, passwords: dict[str, SecretStr], *_: Any, **__: Any
    ) -> list[str]:
        assert set(passwords) >= {student.id for student in spec.students}
        found.extend(student.id for student in spec.students)
        return []

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLASSROOM_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(one_machine, "platform_of", lambda _spec: platform)
    monkeypatch.setattr(verbs, "expect_open", lambda *_: None)
    monkeypatch.setattr(verbs, "expect_room", lambda *_: None)
    monkeypatch.setattr(verbs, "stopped", lambda *_: {})
    monkeypatch.setattr(verbs, "fitted", lambda *_: SimpleNamespace(shortages=(), notes=(), seats=2))
    monkeypatch.setattr(verbs, "GatewaySession", _Session)
    monkeypatch.setattr(verbs, "NotebookServer", _Server)
    monkeypatch.setattr(seed, "hand_out", hand_out)
    monkeypatch.setattr(verbs, "_is_private", lambda _console: True)
    return found


def ended(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """The exit code of a command and what it printed."""
    try:
        answered(lambda: classroom([*arguments], standalone_mode=False))
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    return code, capsys.readouterr().out


def failing(*lines: str, standing: Handout | None) -> Callable[..., Handout]:
    def up(*_: Any, **__: Any) -> Handout:
        raise stacks.SeatsFailed(lines, standing)

    return up


def test_whoever_is_ready_gets_a_login_and_what_failed_of_others_is_told_below(
    taught: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        stacks, "up", failing("carol: Notebook cpu-notebook: no room", standing=handout("alice", "bob"))
    )
    code, said = ended(capsys, "up", str(CLASS_FILE))

    assert code == 1
    assert taught == ["alice"]
    assert "secret-of-alice" in said
    assert "secret-of-bob" not in said
    below = said.partition("secret-of-alice")[2]
    assert "error: carol: Notebook cpu-notebook: no room\n" in below
    assert "\nbob's seat stands, but its door does not open: the gateway answers 404" in below
    assert "the other seats stand" in below
    assert not [file for file in Path("runs").rglob("*") if file.is_file() and "secret-of" in file.read_text()]


def test_without_any_seat_nobody_gets_a_login(
    taught: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stacks, "up", failing("alice: Namespace: refused", standing=None))
    code, said = ended(capsys, "up", str(CLASS_FILE))

    assert code == 1
    assert taught == []
    assert "alice: Namespace: refused\nmend this" in said
    assert "Log in at" not in said


@pytest.fixture
def changed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What of the class was changed: nothing, if all is as it should be."""
    found: list[str] = []
    for name in ("up", "add", "repair"):
        monkeypatch.setattr(stacks, name, lambda *_, name=name, **__: found.append(name))
    monkeypatch.setattr(stacks, "current", lambda _klass: handout("alice"))
    monkeypatch.setattr(stacks, "preview", lambda *_: ())
    return found


@pytest.mark.parametrize(
    "command", [["up"], ["add", "alice"], ["repair", "alice"], ["handout", "--rotate", "--student", "alice"]]
)
def test_a_closed_class_is_changed_by_no_verb(
    command: list[str], changed: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def closed(*_: Any) -> None:
        raise Closed("class demo is closed")

    monkeypatch.setattr(verbs, "expect_open", closed)
    verb, *rest = command

    assert ended(capsys, verb, str(CLASS_FILE), *rest)[0] == 2
    assert changed == []


@pytest.mark.parametrize("command", [["up"], ["add", "alice"]])
def test_a_class_whose_session_is_over_is_not_made(
    command: list[str], changed: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    verb, *rest = command
    file = tmp_path / "class.yaml"
    file.write_text(f'{CLASS_FILE.read_text()}session: {{start: "2020-12-01 09:00", end: "2020-12-01 17:00"}}\n')

    code, said = ended(capsys, verb, str(file), *rest)
    assert code == 2
    assert "session.end: the session of class demo is over since 2020-12-01 17:00 (UTC)" in said
    assert changed == []


def test_nobody_joins_for_whom_there_is_no_room(
    changed: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(_spec: ClassSpec, _platform: Platform, student: str) -> None:
        raise Failure(f"no room for {student}")

    monkeypatch.setattr(verbs, "expect_room", full)
    assert "no room for alice" in ended(capsys, "add", str(CLASS_FILE), "alice")[1]
    assert changed == []


def test_passwords_are_not_rotated_by_a_file_that_would_change_more(
    changed: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stacks, "preview", lambda *_: ("alice: cpu-notebook restarts",))
    code, said = ended(capsys, "handout", str(CLASS_FILE), "--rotate", "--student", "alice")

    assert code == 2
    assert "not brought up yet: alice: cpu-notebook restarts; run `scripts/classroom up`" in said
    assert changed == []
    assert not Path("handouts").exists()


@pytest.mark.usefixtures("changed")
def test_the_pages_of_seats_that_stand_are_written_though_another_failed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stacks, "up", failing("bob: Password: refused", standing=handout("alice")))
    code, said = ended(capsys, "handout", str(CLASS_FILE), "--rotate")

    assert code == 1
    assert "bob: Password: refused" in said
    assert "secret-of-alice" in Path("handouts/demo/alice.html").read_text()


def test_a_notebook_that_was_stopped_on_purpose_is_neither_knocked_at_nor_given_labs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given: dict[str, list[str]] = {}

    def hand_out(spec: ClassSpec, *rest: Any, **_: Any) -> list[str]:
        given.update({student.id: [lesson.name for lesson in rest[2]] for student in spec.students})
        return []

    monkeypatch.setattr(seed, "hand_out", hand_out)
    monkeypatch.setattr(verbs, "stopped", lambda *_: {"demo-bob": frozenset({"cpu-notebook"})})
    monkeypatch.setattr(stacks, "up", lambda *_, **__: handout("alice", "bob"))
    code, said = ended(capsys, "up", str(CLASS_FILE))

    assert code == 0
    assert "bob: door — stopped on purpose, so neither tried nor given labs: cpu-notebook" in said
    assert "secret-of-bob" in said
    elsewhere = [name for name in given["alice"] if load(name).notebook.server != "cpu-notebook"]
    assert given == {"alice": ["simple_pipeline", "taxi"], "bob": elsewhere}


@pytest.mark.parametrize(("state", "code"), [("pass", 0), ("fail", 1), ("not-yet", 1), ("could-not-check", 3)])
def test_a_late_joiners_login_is_printed_once_the_first_lab_is_proven(
    state: State,
    code: int,
    demo: ClassSpec,
    platform: Platform,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    scopes: list[rehearsals.Scope] = []

    def verify(*given: Any, scope: rehearsals.Scope, **_: Any) -> Result:
        assert given[2] == handout("alice").passwords
        scopes.append(scope)
        return rehearsed(demo, platform, "simple_pipeline", state)

    monkeypatch.setattr(stacks, "add", lambda *_, **__: handout("alice"))
    monkeypatch.setattr(rehearsals, "verify", verify)
    found, said = ended(capsys, "add", str(CLASS_FILE), "alice")

    assert found == code
    assert scopes == [rehearsals.Scope(students=("alice",), lessons=("simple_pipeline",))]
    assert ("secret-of-alice" in said) is (code == 0)
    assert ("report.html" in said) is (code != 0)
    assert ("alice's seat stands" in said) is (code != 0)
    assert ("scripts/classroom verify CLASS.yaml --student alice --lab taxi" in said) is (code == 0)


def test_without_the_rehearsal_the_login_is_printed_with_what_was_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stacks, "add", lambda *_, **__: handout("alice"))
    code, said = ended(capsys, "add", str(CLASS_FILE), "alice", "--no-rehearsal")

    assert code == 0
    assert "secret-of-alice" in said
    assert "not rehearsed: simple_pipeline, taxi; " in said
    assert "--student alice --lab simple_pipeline --lab taxi" in said


@pytest.mark.parametrize(
    ("how", "leaves", "told"),
    [
        ([], "keys were given", "files, bucket and login are the old ones"),
        (["--wipe"], "", "workspaces and bucket are new, the login is the old"),
        (["--wipe"], "keys were given", "workspaces are new, the login is the old; keys were given"),
    ],
)
def test_of_a_seat_that_was_rebuilt_it_is_told_what_is_new(
    how: list[str], leaves: str, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(verbs, "repair", lambda *_, **__: seat("alice"))
    monkeypatch.setattr(stores, "connect", lambda _: SimpleNamespace(leaves=leaves))
    code, said = ended(capsys, "repair", str(CLASS_FILE), "alice", *how)

    assert (code, said) == (0, f"alice's seat is rebuilt; {told}\n")


def test_a_second_rehearsal_of_a_class_is_refused_while_the_first_is_at_work(
    demo: ClassSpec, platform: Platform, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[tuple[int, str]] = []

    def verify(*_: Any, **__: Any) -> Result:
        # From a process of its own it would be the same: the lock belongs to the open file.
        seen.append(ended(capsys, "verify", str(CLASS_FILE)))
        seen.append(ended(capsys, "add", str(CLASS_FILE), "alice"))
        seen.append(ended(capsys, "add", str(CLASS_FILE), "alice", "--no-rehearsal"))
        # Two proofs would take away each other's runs, and a proof beside a rehearsal has it wait for its places.
        seen.append(ended(capsys, "isolation", str(CLASS_FILE)))
        return rehearsed(demo, platform, "simple_pipeline", "pass")

    monkeypatch.setattr(stacks, "current", lambda _klass: handout("alice", "bob"))
    monkeypatch.setattr(stacks, "add", lambda *_, **__: handout("alice"))
    monkeypatch.setattr(rehearsals, "verify", verify)
    verbs.verify(demo, platform, Console(quiet=True))

    (again, why), (joining, how), (joined, _), (proving, wait) = seen
    assert (again, joining, joined, proving) == (2, 2, 0, 2)
    assert "at work on this machine: verify of class demo (process" in wait
    assert why.count("\n") == 1
    assert "at work on this machine: verify of class demo (process" in why
    assert how.endswith("--no-rehearsal does not wait\n")
    # It fell with the first.
    monkeypatch.setattr(rehearsals, "verify", lambda *_, **__: rehearsed(demo, platform, "simple_pipeline", "pass"))
    assert verbs.verify(demo, platform, Console(quiet=True))[0].exit_code == 0
