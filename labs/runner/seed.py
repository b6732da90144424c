"""Putting a lab where its student works: the notebook and the files beside it, and data in the bucket.

Only what is not there is put there. What the student has changed is left alone, and what differs is told.
"""

import difflib
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from pydantic import SecretStr

from infra.failure import Failure
from infra.spec import ClassSpec, Platform, Student
from infra.steps import Cancelled
from labs.runner import lab as labs
from labs.runner.clients.bucket import Bucket
from labs.runner.clients.cluster import Cluster
from labs.runner.clients.jupyter import NotebookServer
from labs.runner.clients.session import GatewaySession
from labs.runner.collect import UNANSWERED
from labs.runner.seats import seat_of

_SERVER_SECONDS = 120.0
DRIFT_LINES = 40
"""What of a student's changes is told, in lines."""


@dataclass(frozen=True, kw_only=True)
class Seeded:
    """The student's own notebook: put there, or found as it was put, or `edited`; then `drift` says what differs."""

    state: Literal["made", "unchanged", "edited"]
    notebook: dict[str, Any]
    drift: str = ""


def seed(server: NotebookServer, lab: labs.Lab, notebook: dict[str, Any]) -> Seeded:
    """See that the student has the notebook, rendered for them, and the files beside it.

    Errors: `NoAnswerError`, `LoginError`, `requests.RequestException` when the server does not take them.
    """
    for name, text in labs.beside(lab).items():
        if server.read_kind(name) is None:
            server.write_text(name, text)
    there = server.read(lab.file_name)
    if there is None:
        server.write_notebook(lab.file_name, notebook)
        return Seeded(state="made", notebook=notebook)
    return compared(there, notebook)


def compared(there: dict[str, Any], notebook: dict[str, Any]) -> Seeded:
    """What the contents API gives for the student's own notebook, beside the one that was put there."""
    if there["type"] != "notebook":
        return Seeded(state="edited", notebook=notebook, drift="the file of that name is no notebook any more")
    own = there["content"]
    try:
        if labs.sources(own) == labs.sources(notebook):
            return Seeded(state="unchanged", notebook=own)
        return Seeded(state="edited", notebook=own, drift=drift(notebook, own))
    except (AttributeError, KeyError, TypeError):
        # Whoever edits the file by hand may leave anything in it.
        return Seeded(state="edited", notebook=notebook, drift="the file of that name is no whole notebook any more")


def seed_data(lab: labs.Lab, bucket: Bucket) -> list[str]:
    """Put the lab's data into the bucket where there is none; what was found to be something else, in words.

    Errors: `BucketUnreadableError`, `ClusterUnreachable`, `labs.LabError`.
    """
    return [
        f"s3://{bucket.name}/{data.object} holds something else than the lab's data; it was left alone"
        for data in lab.data
        if bucket.put_new(data.object, labs.content(lab, data)) == "other"
    ]


def hand_out(
    spec: ClassSpec,
    platform: Platform,
    passwords: Mapping[str, SecretStr],
    lessons: Sequence[labs.Lab],
    tell: Callable[[str], None],
    pause: Callable[[float], None],
    *,
    language: labs.Language = "en",
    side_by_side: int = 8,
) -> list[str]:
    """Put every lab where every student works; `tell` hears each student's id when theirs lie there.

    Returns what could not be put there, in words. `pause(seconds)` waits, and raises `Cancelled` when all is stopped.
    Errors: `labs.LabError`.
    """
    cluster = Cluster(platform, spec.bucket.region)

    def one(student: Student) -> list[str]:
        password = passwords[student.id]
        session = GatewaySession(platform.url, platform.ca_file, student.email, password)
        wrong: list[str] = []
        try:
            for lesson in lessons:
                seat = seat_of(spec, platform, lesson, student, session, password)
                try:
                    server = seat.server(lesson)
                    server.wait(until=time.monotonic() + _SERVER_SECONDS, pause=pause)
                    seed(server, lesson, seat.rendered(lesson, language))
                    seed_data(lesson, Bucket(cluster, seat.namespace, seat.bucket))
                except UNANSWERED as error:
                    wrong.append(f"{student.id}, {lesson.name}: {seat.clean(str(error))}")
                except (Cancelled, Failure):
                    raise
                except Exception as error:
                    # What one student made of their seat must not keep the labs from the others.
                    broke = f"putting it there broke off ({error.__class__.__name__}: {error})"
                    wrong.append(f"{student.id}, {lesson.name}: {seat.clean(broke)}")
        finally:
            session.close()
        tell(student.id)
        return wrong

    try:
        with ThreadPoolExecutor(side_by_side) as pool:
            return [wrong for found in pool.map(one, spec.students) for wrong in found]
    finally:
        cluster.close()


def drift(ours: dict[str, Any], own: dict[str, Any]) -> str:
    """Which code cells of `ours` the student changed, removed or added, cell by cell, at most `DRIFT_LINES` lines."""
    before, after = _by_name(ours), _by_name(own)
    lines: list[str] = []
    for name, source in before.items():
        if name not in after:
            lines.append(f"cell {name}: removed")
        elif after[name] != source:
            lines.append(f"cell {name}: changed")
            changes = difflib.unified_diff(source.splitlines(), after[name].splitlines(), lineterm="", n=1)
            lines += [f"  {line}" for line in list(changes)[2:] if not line.startswith("@@")]
    for previous, name in pairwise(["", *after]):
        if name not in before:
            lines.append(f"cell {name}: added{f' after {previous}' if previous else ''}")
            lines += [f"  +{line}" for line in after[name].splitlines()]
    if not lines:
        lines.append("the cells stand in another order")
    if len(lines) > DRIFT_LINES:
        lines = [*lines[:DRIFT_LINES], f"… and {len(lines) - DRIFT_LINES} lines more"]
    return "\n".join(lines)


def _by_name(notebook: dict[str, Any]) -> dict[str, str]:
    """The code cells that hold anything: by tag, those without one by what they begin with."""
    found: dict[str, str] = {}
    for cell in notebook.get("cells", ()):
        source = "".join(cell["source"]).strip()
        if cell["cell_type"] != "code" or not source:
            continue
        name = tag_of(cell) or f"“{source.splitlines()[0][:40]}”"
        # A tag may stand twice: the student copied the cell.
        while name in found:
            name += " again"
        found[name] = source
    return found


def tag_of(cell: dict[str, Any]) -> str | None:
    """A cell's first tag."""
    return next(iter(cell["metadata"].get("tags", ())), None)
