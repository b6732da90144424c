"""The handout: a page for each student, which prints on one sheet, and a list for the teacher.

These files are the one place outside of Pulumi's state where passwords are kept; only who wrote them can read them.
"""

import csv
import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Literal
from zoneinfo import ZoneInfo

import jinja2
import segno

from infra.classroom import Handout, SeatDetails
from infra.spec import ClassSpec, Platform
from labs.runner.lab import Title, load

ALL_PAGES: Final = "all_pages.html"
"""No student's page: ids have no underscore."""
LIST: Final = "teacher.csv"

_WORDS: Final = {
    "title": Title(en="Your seat in the class", ko="실습 계정 안내"),
    "address": Title(en="Address", ko="접속 주소"),
    "scan": Title(en="or scan this", ko="QR 코드로 접속"),
    "email": Title(en="E-mail", ko="이메일"),
    "password": Title(en="Password", ko="비밀번호"),
    "notebooks": Title(en="Your notebooks", ko="노트북"),
    "labs": Title(en="What we do", ko="실습"),
    "in": Title(en="in", ko="위치:"),
    "pipelines": Title(en="Your namespace", ko="네임스페이스"),
    "bucket": Title(en="Your bucket", ko="버킷"),
    "session": Title(en="When", ko="일시"),
    "warning": Title(
        en="Your browser will warn of a certificate that it does not know; in this class that is expected.",
        ko="브라우저가 인증서 경고를 표시할 수 있습니다. 이 수업에서는 정상입니다.",
    ),
    "care": Title(
        en="This page is your key: nobody else should see it. Leave it here or destroy it when the class is over.",
        ko="이 안내문은 본인만 보관하세요. 수업이 끝나면 폐기하거나 반납해 주세요.",
    ),
}


def pages(
    spec: ClassSpec, handout: Handout, *, language: Literal["en", "ko"], private_ca: bool = False
) -> dict[str, str]:
    """The files of a handout, by name: `<student>.html` for each, all of them in one to print, and the list.

    `private_ca`: no public authority has signed the gateway's certificate.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("handout.html.jinja2")
    # The middle of four levels: a sheet that was folded is still read.
    qr = segno.make(handout.gateway, error="q", micro=False)
    shared = {
        "class_name": spec.name,
        "language": language,
        "words": {name: text.in_(language) for name, text in _WORDS.items()},
        "gateway": handout.gateway,
        "qr": qr.svg_inline(scale=4, border=4, omitsize=True, title=handout.gateway),
        "lessons": [(lab.title.in_(language), lab.notebook.server, lab.file_name) for lab in map(load, spec.labs)],
        "session": _session(spec),
        "private_ca": private_ca,
    }
    made = {f"{seat.id}.html": template.render(seats=[_told(seat)], **shared) for seat in handout.seats}
    whole = template.render(seats=[_told(seat) for seat in handout.seats], **shared)
    return {**made, ALL_PAGES: whole, LIST: _list(handout)}


def warned_of(spec: ClassSpec, platform: Platform) -> bool:
    """Whether browsers do not know who signed what the gateway shows: of the class's own host name, or the platform's.

    A certificate that the class brings for its name is taken for one that they know.
    """
    tls = spec.access.tls
    return platform.ca_file is not None if tls is None else tls.kind == "self-signed"


def write(files: dict[str, str], directory: Path) -> None:
    """Write a handout's files, readable by their owner alone; pages of an earlier handout there are deleted."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    directory.chmod(0o700)
    for old in directory.glob("*.html"):
        old.unlink()
    for name, text in files.items():
        # A new file each time: an old one might be open to others, or a link to somewhere else.
        (directory / name).unlink(missing_ok=True)
        descriptor = os.open(directory / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        # Excel takes a list without the mark at its beginning for one in the machine's old code page.
        with os.fdopen(descriptor, "w", encoding="utf-8-sig" if name == LIST else "utf-8") as opened:
            opened.write(text)


def _told(seat: SeatDetails) -> dict[str, object]:
    return {
        "name": seat.name or seat.id,
        "email": seat.email,
        "password": seat.password.get_secret_value(),
        "namespace": seat.namespace,
        "bucket": seat.bucket,
        "notebooks": dict(seat.notebooks),
    }


def _session(spec: ClassSpec) -> str:
    """When the class is held, in its own time zone; empty when its file does not say."""
    if spec.session is None:
        return ""
    zone = ZoneInfo(spec.session.time_zone)
    start, end = spec.session.starts_at.astimezone(zone), spec.session.ends_at.astimezone(zone)
    until = f"{end:%H:%M}" if end.date() == start.date() else f"{end:%Y-%m-%d %H:%M}"
    return f"{start:%Y-%m-%d %H:%M} – {until} ({spec.session.time_zone})"


def _list(handout: Handout) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "name", "email", "password", "address", "namespace", "bucket", "notebooks"])
    for seat in handout.seats:
        row = [seat.id, seat.name, seat.email, seat.password.get_secret_value(), handout.gateway, seat.namespace]
        writer.writerow(_harmless([*row, seat.bucket, " ".join(seat.notebooks.values())]))
    return text.getvalue()


def _harmless(cells: Iterable[str]) -> list[str]:
    """Cells that a spreadsheet takes for text: one that begins like a formula would be run."""
    return [f"'{cell}" if cell[:1] in ("=", "+", "-", "@", "\t", "\r") else cell for cell in cells]
