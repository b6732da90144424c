"""The handout: a page a student with login and QR code, a list, and nobody else who reads them."""

import codecs
import csv
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
from pydantic import SecretStr, ValidationError

from infra.classroom import Handout, SeatDetails
from infra.spec import AccessSpec, ClassSpec, Platform, Session, Student, Tls
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
    assert set(files) == {"alice.html", "bob.html", "all_pages.html", "teacher.csv"}
    page = files["alice.html"]
    assert "secret-of-alice" in page
    assert "bob" not in page
    assert "&lt;b&gt;Alice" in page
    assert "<b>Alice" not in page
    assert "<svg" in page
    assert not [each for each in ("<script", "src=", "<link", "@import", "url(") if each in page]
    assert files["all_pages.html"].count("<section>") == 2


# ISO/IEC 18004, table 10: the modules that each of the masks turns over, by row and column.
_MASKS: tuple[Callable[[int, int], bool], ...] = (
    lambda y, x: (y + x) % 2 == 0,
    lambda y, _: y % 2 == 0,
    lambda _, x: x % 3 == 0,
    lambda y, x: (y + x) % 3 == 0,
    lambda y, x: (y // 2 + x // 3) % 2 == 0,
    lambda y, x: y * x % 2 + y * x % 3 == 0,
    lambda y, x: (y * x % 2 + y * x % 3) % 2 == 0,
    lambda y, x: ((y + x) % 2 + y * x % 3) % 2 == 0,
)


def read(svg: str) -> str:
    """What a camera reads in a QR code of version 1 with at most 13 bytes of data, which is not damaged."""
    dark, x, y = set[tuple[int, int]](), 0.0, 0.0
    for verb, first, second in re.findall(r"([Mmh])(-?[0-9.]+)(?: (-?[0-9.]+))?", svg.partition(' d="')[2]):
        if verb == "h":
            dark |= {(int(y) - 4, int(x) - 4 + i) for i in range(int(first))}
            x += int(first)
        else:
            # A border of four modules lies around.
            x, y = (float(first), float(second)) if verb == "M" else (x + float(first), y + float(second))
    mask = _MASKS[int("".join(str(int((8, column) in dark)) for column in (2, 3, 4)), 2) ^ 0b101]
    bits = ""
    for turn, right in enumerate((20, 18, 16, 14, 12, 10, 8, 5, 3, 1)):
        for row in range(20, -1, -1) if turn % 2 == 0 else range(21):
            for column in (right, right - 1):
                corner = (row < 9 and (column < 9 or column > 12)) or (row > 12 and column < 9)
                if not corner and 6 not in (row, column):
                    bits += str(int(((row, column) in dark) != mask(row, column)))
    assert bits[:4] == "0100"
    length = int(bits[4:12], 2)
    return bytes(int(bits[12 + 8 * i : 20 + 8 * i], 2) for i in range(length)).decode()


def test_the_qr_code_leads_to_the_address_that_the_page_names(demo: ClassSpec) -> None:
    for address in ("https://h/", "https://k.x"):
        told = Handout(gateway=address, seats=HANDOUT.seats)
        page = handout.pages(demo, told, language="en")["alice.html"]
        assert f'<a href="{address}">' in page
        assert read(page[page.index("<svg") : page.index("</svg>")]) == address


def test_no_id_of_a_student_takes_the_place_of_another_file(demo: ClassSpec) -> None:
    told = Handout(gateway="https://h/", seats=(details("all", "Al Lee"), details("teacher", "Tea Cher")))
    files = handout.pages(demo, told, language="en")
    assert set(files) == {"all.html", "teacher.html", handout.ALL_PAGES, handout.LIST}
    assert "secret-of-teacher" not in files["all.html"]
    with pytest.raises(ValidationError):
        Student(id=handout.ALL_PAGES.removesuffix(".html"), email="a@example.org")


@pytest.mark.parametrize(
    ("tls", "private_platform", "warned"),
    [
        (None, True, True),
        (None, False, False),
        (Tls(kind="self-signed"), False, True),
        (Tls(kind="secret", secret="gateway-tls"), True, False),
        (Tls(kind="cert-manager", issuer="letsencrypt"), True, False),
    ],
)
def test_the_page_warns_of_the_certificate_that_the_class_shows(
    tls: Tls | None, private_platform: bool, warned: bool, demo: ClassSpec, platform: Platform
) -> None:
    spec = demo.model_copy(update={"access": AccessSpec(host="class.example.org", tls=tls)})
    there = platform if private_platform else platform.model_copy(update={"ca_file": None})
    assert handout.warned_of(spec, there) is warned
    page = handout.pages(spec, HANDOUT, language="en", private_ca=warned)["alice.html"]
    assert ("will warn of a certificate" in page) is warned


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
        ("alice.html", "bob.html", "all_pages.html", "teacher.csv"), 0o600
    )
    # Excel reads names in any script by the mark at the beginning.
    assert (directory / "teacher.csv").read_bytes().startswith(codecs.BOM_UTF8)
    assert (directory / "alice.html").read_bytes().startswith(b"<!doctype html>")
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
