"""The main job from nothing to nothing, timed: platform, class, rehearsal, teardown, and a table of what it took.

scripts/demo           ends with everything gone
scripts/demo --keep    leaves the platform and the class up
"""

import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from infra import one_machine
from infra.class_file import load
from infra.local.places import places
from infra.teardown import Certificate
from labs.runner.verify import Scope
from scripts import verbs
from scripts.command_line import answered

_CLASS_FILE = Path(__file__).parent.parent / "labs" / "classes" / "demo.yaml"
_GIBIBYTE = 1 << 30
_DISK_POLL_SECONDS = 5
_LAB_GOALS = {"simple_pipeline": 100, "taxi": 120}
"""The most seconds that a student's rehearsal of a lab should take."""


@dataclass(frozen=True, kw_only=True)
class Number:
    """One thing measured, and the most it should be, both in `unit`; no goal: it is shown for information."""

    what: str
    seen: float
    unit: str
    goal: float | None = None


@click.command()
@click.option("--keep", is_flag=True, help="Leave the platform and the class up.")
def demonstrate(keep: bool) -> None:
    """Teach the demo class on a real one-machine Kubeflow."""
    with one_machine.reserved("scripts/demo"):
        sys.exit(_teach(Console(), keep))


def _teach(console: Console, keep: bool) -> int:
    """The main job; its exit code. Whatever goes wrong, nothing is left running that was not asked for."""
    spec = load(_CLASS_FILE)
    stood_before, fresh = one_machine.is_made(), not one_machine.is_built()
    up_goal = 5 if one_machine.is_running() else None if fresh else 90
    numbers: list[Number] = []
    certificate: Certificate | None = None
    file: Path | None = None
    # The shell that made the Python environment says when it began.
    started = time.monotonic() - (time.time() - float(os.environ.get("CLASSROOM_BEGAN") or time.time()))
    try:
        with _disk_watched(numbers, fresh), _timed(numbers, "platform up", up_goal):
            platform = verbs.platform_up(console)
        with _timed(numbers, "platform up again", 5):
            verbs.platform_up(console)
        memory = one_machine.memory_bytes() / _GIBIBYTE
        numbers.append(Number(what="memory of the platform without students", seen=memory, unit="GiB", goal=3))
        try:
            with _timed(numbers, "up: two students, all notebooks answer at the gateway", 45):
                handout = verbs.up(spec, platform, console)
            console.print(verbs.logins(handout, console), markup=False, highlight=False, soft_wrap=True)
            with _timed(numbers, "verify, both students side by side"):
                result, directory = verbs.verify(spec, platform, console)
            if fresh:
                took = time.monotonic() - started
                numbers.append(Number(what="fresh machine to verified demo", seen=took, unit="s", goal=1800))
            for lab, goal in _LAB_GOALS.items():
                took = max(each.seconds for each in result.labs if each.lab == lab)
                numbers.append(Number(what=f"{lab}, the slower of two at once", seen=took, unit="s", goal=goal))
            # Up to where the lab text sees the first run's end: one student, one run, nothing else at work.
            alone = Scope(students=(spec.students[0].id,), lessons=("simple_pipeline",), step="2-3")
            rehearsed_alone, _ = verbs.verify(spec, platform, console, alone)
            numbers += [
                Number(what="a run by SDK until seen SUCCEEDED, alone", seen=run.seconds, unit="s", goal=30)
                for run in rehearsed_alone.labs[0].facts.runs
                if run.seconds is not None
            ]
            exit_code = result.exit_code or rehearsed_alone.exit_code
        finally:
            if not keep:
                with _timed(numbers, "down, with certificate"):
                    certificate, file = verbs.down(spec, platform, console)
                console.print(certificate.text(), markup=False, highlight=False, soft_wrap=True)
    finally:
        if not keep and not stood_before:
            with _timed(numbers, "platform down"):
                verbs.platform_down(console)
    took = time.monotonic() - started
    numbers.append(Number(what="the whole demo", seen=took, unit="s", goal=None if fresh else 240))
    console.print(verbs.matrix(result))
    console.print(_table(numbers))
    console.print(f"report: {directory / 'report.html'}", soft_wrap=True)
    (directory / "numbers.json").write_text(json.dumps([asdict(number) for number in numbers], indent=2) + "\n")
    if certificate is None:
        return exit_code
    console.print(f"certificate: {file}", soft_wrap=True)
    return exit_code or certificate.exit_code


@contextmanager
def _timed(numbers: list[Number], what: str, goal: float | None = None) -> Iterator[None]:
    started = time.monotonic()
    yield
    numbers.append(Number(what=what, seen=time.monotonic() - started, unit="s", goal=goal))


@contextmanager
def _disk_watched(numbers: list[Number], fresh: bool) -> Iterator[None]:
    """Measure what a build takes of the disk, at its peak and after it; whoever else writes is counted as well."""
    free = [_free_disk()]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_DISK_POLL_SECONDS):
            free.append(_free_disk())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
    if fresh:
        numbers.append(
            Number(what="disk at the peak of the build", seen=(free[0] - min(free)) / _GIBIBYTE, unit="GiB", goal=25)
        )
        numbers.append(Number(what="disk left after it", seen=(free[0] - _free_disk()) / _GIBIBYTE, unit="GiB", goal=8))


def _free_disk() -> int:
    existing = next(each for each in (places().cache, *places().cache.parents) if each.exists())
    return shutil.disk_usage(existing).free


def _table(numbers: list[Number]) -> Table:
    table = Table("measured", "seen", "goal", title="What it took")
    for number in numbers:
        good = number.goal is None or number.seen <= number.goal
        goal = "" if number.goal is None else f"≤ {number.goal:g} {number.unit}"
        table.add_row(number.what, f"[{'green' if good else 'red'}]{number.seen:.1f} {number.unit}[/]", goal)
    return table


if __name__ == "__main__":
    answered(lambda: demonstrate(standalone_mode=False))
