"""A wrong call is answered with one clear message and the right exit code, never with a traceback."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import SecretStr
from rich.console import Console

from infra.classroom import Handout, SeatDetails
from infra.failure import CallFailure, Failure
from infra.steps import Cancelled
from scripts.command_line import answered, classroom
from scripts.verbs import login, logins


def call(*arguments: str) -> Callable[[], None]:
    return lambda: classroom(list(arguments), standalone_mode=False)


def raising(error: BaseException) -> Callable[[], None]:
    def command() -> None:
        raise error

    return command


@pytest.mark.parametrize("verb", ["up", "preview", "verify", "down"])
def test_a_mistake_in_the_class_file_is_told_with_its_line_before_anything_is_done(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "class.yaml"
    file.write_text("name: demo\nstudents:\n  - {id: a, email: a@example.org}\nnotebook: []\n")

    with pytest.raises(SystemExit) as end:
        answered(call(verb, str(file)))

    assert end.value.code == 2
    said = capsys.readouterr().out
    assert f"{file}:4: notebook" in said
    assert "notebooks" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("arguments", [("upp", "x.yaml"), ("up",), ("platform", "up", "--fast")])
def test_a_call_that_is_not_understood_exits_with_2(arguments: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as end:
        answered(call(*arguments))

    assert end.value.code == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--student", "mallory"), "there is no student 'mallory' in class demo; there are: alice, bob"),
        (("--lab", "taxi"), "class demo has no lab 'taxi'; it has: simple_pipeline"),
        (("--step", "9-9"), "there is no step '9-9'; there are: simple_pipeline: login, 1-4"),
        (("--watch", "--own"), "--watch runs nothing"),
    ],
)
def test_a_name_that_is_not_there_is_answered_with_those_that_are(
    arguments: tuple[str, ...], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "class.yaml"
    students = "".join(f"  - {{id: {name}, email: {name}@example.org}}\n" for name in ("alice", "bob"))
    file.write_text(f"name: demo\nstudents:\n{students}notebooks: [{{name: gpu-notebook}}]\n")

    with pytest.raises(SystemExit) as end:
        answered(call("verify", str(file), *arguments))

    assert end.value.code == 2
    said = capsys.readouterr()
    assert says in said.out + said.err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Failure("the class is broken; mend it"), 1),
        (CallFailure("no such thing; name another"), 2),
        (Cancelled("stopped"), 130),
        (KeyboardInterrupt(), 130),
    ],
)
def test_what_a_person_can_mend_becomes_an_exit_code(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        answered(raising(error))

    assert end.value.code == code
    assert str(error) in capsys.readouterr().out


class _Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("file", "forced", "shown"), [(_Screen(), None, True), (io.StringIO(), None, False), (io.StringIO(), True, False)]
)
def test_passwords_are_printed_on_a_terminal_and_into_no_log_however_coloured(
    file: io.StringIO, forced: bool | None, shown: bool
) -> None:
    console = Console(file=file, force_terminal=forced, _environ={})
    seats = tuple(
        SeatDetails(
            id=student,
            name="",
            email=f"{student}@example.org",
            password=SecretStr(f"secret-of-{student}"),
            namespace=student,
            notebooks={"nb": f"https://h/{student}/"},
            bucket=student,
        )
        for student in ("alice", "bob")
    )
    for said in (logins(Handout(gateway="https://h/", seats=seats), console), login(*seats, console=console)):
        assert [f"secret-of-{each}" in said for each in ("alice", "bob")] == [shown, shown]
        assert said.count("scripts/classroom handout CLASS.yaml") == (not shown)
        assert all(
            f"    {each}@example.org" in said and f"    https://h/{each}/\n" in f"{said}\n" for each in ("alice", "bob")
        )


def test_a_programming_error_is_not_dressed_up() -> None:
    with pytest.raises(ZeroDivisionError):
        answered(raising(ZeroDivisionError()))
