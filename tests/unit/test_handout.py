"""The handout: a page a student with login and QR code, a list, and nobody else who reads them."""

import csv
import io
from pathlib import Path
from typing import Literal

import pytest
from pydantic import SecretStr

from infra.classroom import Handout, SeatDetails
from infra.spec import ClassSpec, Session
from scripts import handout
from scripts.command_line import answered, classroom


def details(student: str, name: str) -> SeatDetails:
    return SeatDetails(
        id=student,
        name=name,
        email=f"{student}@example.org",
        password=SecretStr(f"secret-of-{student}"),
        namespace=f"demo-{student}",
        notebooks={"cpu-notebook": f"https://h/notebook/demo-{student}/cpu-notebook/"},
        bucket=f"demo-{student}",
    )


HANDOUT = Handout(gateway="https://h/", seats=(details("alice", "<b>Alice</b>"), details("bob", "=cmd()")))


def test_each_page_holds_the_own_login_alone_and_a_qr_code_and_asks_nobody_for_anything(demo: ClassSpec) -> None:
    files = handout.pages(demo, HANDOUT, language="en")
    assert set(files) == {"alice.html", "bob.html", "all.html", "teacher.csv"}
    page = files["alice.html"]
    assert "secret-of-alice" in page
    assert "bob" not in page
    assert "&lt;b&gt;Alice" in page
    assert "<b>Alice" not in page
    assert "<svg" in page
    assert not [each for each in ("<script", "src=", "<link", "@import", "url(") if each in page]
    assert files["all.html"].count("<section>") == 2


@pytest.mark.parametrize(("language", "word"), [("en", "Password"), ("ko", "비밀번호")])
def test_the_page_is_in_the_language_that_was_asked_for_and_says_when_class_is(
    demo: ClassSpec, language: Literal["en", "ko"], word: str
) -> None:
    session = Session.model_validate(
        {"start": "2026-12-01 09:00", "end": "2026-12-01 17:00", "time_zone": "Asia/Seoul"}
    )
    page = handout.pages(demo.model_copy(update={"session": session}), HANDOUT, language=language)["alice.html"]
    assert word in page
    assert f'lang="{language}"' in page
    assert "2026-12-01 09:00 – 17:00 (Asia/Seoul)" in page


def test_the_list_has_every_login_and_no_cell_that_a_spreadsheet_would_run(demo: ClassSpec) -> None:
    rows = list(csv.DictReader(io.StringIO(handout.pages(demo, HANDOUT, language="en")["teacher.csv"])))
    assert [row["password"] for row in rows] == ["secret-of-alice", "secret-of-bob"]
    assert rows[1]["name"] == "'=cmd()"


def test_only_the_owner_reads_the_files_and_old_pages_go(demo: ClassSpec, tmp_path: Path) -> None:
    directory = tmp_path / "demo"
    directory.mkdir(mode=0o755)
    for old in ("gone.html", "alice.html"):
        (directory / old).write_text("old password")
    handout.write(handout.pages(demo, HANDOUT, language="en"), directory)
    assert directory.stat().st_mode & 0o777 == 0o700
    assert {file.name: file.stat().st_mode & 0o777 for file in directory.iterdir()} == dict.fromkeys(
        ("alice.html", "bob.html", "all.html", "teacher.csv"), 0o600
    )
    assert "old password" not in (directory / "alice.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("handout", "--student", "alice"), "add --rotate"),
        (("handout", "--rotate", "--student", "mallory"), "there is no student 'mallory' in class demo"),
        (("bill",), "the class file names no prices"),
    ],
)
def test_a_call_that_makes_no_sense_is_answered_before_anything_is_asked(
    arguments: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(Path(__file__).parents[2] / "labs" / "classes" / "demo.yaml")
    with pytest.raises(SystemExit) as end:
        answered(lambda: classroom([arguments[0], file, *arguments[1:]], standalone_mode=False))
    assert end.value.code == 2
    assert says in " ".join(capsys.readouterr().err.split())
