"""What a person sees while steps run: a live table on a terminal, one line an event elsewhere.

Both say which step of how many, what it is at, how far it is where it counts something, and how long it takes.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from infra.steps import Event, Listener

if TYPE_CHECKING:
    from labs.runner.watch import Standing

_SYMBOLS = {
    "waiting": "[dim]·[/]",
    "started": "[cyan]…[/]",
    "progress": "[cyan]…[/]",
    "finished": "[green]✓[/]",
    "failed": "[red]✗[/]",
}
_SHOWN_FIRST = ("progress", "started", "failed", "waiting", "finished")
_QUIET_SECONDS = 10
"""In a log, a step that only says how it goes on is heard this often."""


@contextmanager
def shown(title: str, console: Console, of: str = "steps") -> Iterator[Listener]:
    """A listener whose events appear on `console` while the block runs. `of` is what its lines are."""
    view = _View(title, of)
    if not console.is_terminal:
        yield lambda event: view.log(event, console)
        return
    with Live(get_renderable=lambda: view.table(console.height), console=console, refresh_per_second=4):
        yield view.note


@contextmanager
def watched(
    title: str, console: Console, language: Literal["en", "ko"]
) -> "Iterator[Callable[[list[Standing]], None]]":
    """What shows where each student stands, again and again: a table on a terminal; elsewhere a line whenever a student
    has come further or got stuck."""
    if console.is_terminal:
        with Live(console=console, refresh_per_second=1, vertical_overflow="visible") as live:
            yield lambda standings: live.update(_where(title, standings, language), refresh=True)
        return
    told: dict[tuple[str, str], tuple[str, str]] = {}

    def tell(standings: list["Standing"]) -> None:
        for one in standings:
            key, now = (one.student.id, one.lab.en), (one.step, one.state)
            if told.get(key) != now:
                told[key] = now
                console.print(" ".join(_standing(one, language)), soft_wrap=True, highlight=False)

    yield tell


def _where(title: str, standings: list["Standing"], language: Literal["en", "ko"]) -> RenderableType:
    done = sum(one.title is None for one in standings)
    heading = Text.from_markup(f"[bold]{escape(title)}[/]  {done}/{len(standings)} done  Ctrl-C ends it")
    table = Table.grid(padding=(0, 1))
    for _ in range(5):
        table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    # Who has been stuck longest comes first.
    for one in sorted(standings, key=lambda one: (one.title is None, one.state != "fail", one.since)):
        table.add_row(*_standing(one, language))
    return Group(heading, table)


def _standing(one: "Standing", language: Literal["en", "ko"]) -> tuple[str, ...]:
    """Who, how far, at which step, in which state and for how long, and why."""
    who, counted = escape(one.student.name or one.student.id), f"{one.done}/{one.total}"
    if one.title is None:
        return "[green]✓[/]", who, counted, escape(one.lab.in_(language)), "", ""
    symbol = {"fail": "[red]✗[/]", "could-not-check": "[yellow]?[/]"}.get(one.state, "[cyan]…[/]")
    at = f"{escape(one.lab.in_(language))} · {escape(one.step)} {escape(one.title.in_(language))}"
    return (
        symbol,
        who,
        counted,
        at,
        _clock(time.monotonic() - one.since),
        f"[dim]{escape(' '.join(one.why.split()))}[/]",
    )


class _View:
    """The latest event of every line, in the order in which they were first heard of."""

    def __init__(self, title: str, of: str) -> None:
        self._title = title
        self._of = of
        self._began = time.monotonic()
        self._latest: dict[str, tuple[Event, float]] = {}
        self._logged: dict[str, float] = {}
        self._lock = threading.Lock()

    def note(self, event: Event) -> None:
        """Remember the event for the next `table`."""
        with self._lock:
            self._latest[event.step] = (event, time.monotonic())

    def log(self, event: Event, console: Console) -> None:
        """Print the event as a line of its own, unless one of its step was printed a moment ago."""
        self.note(event)
        now = time.monotonic()
        with self._lock:
            if event.state == "waiting":
                return
            if event.state == "progress" and now - self._logged.get(event.step, 0) < _QUIET_SECONDS:
                return
            self._logged[event.step] = now if event.state == "progress" else 0
            counted = f" {event.done}/{event.total}" if event.total else ""
            detail = f" — {escape(event.detail)}" if event.detail else ""
            console.print(
                f"{_clock(now - self._began)}  {self._title} {self._count()}  "
                f"{_SYMBOLS[event.state]} {escape(event.step)}{counted}{detail} [dim]({_clock(event.seconds)})[/]",
                soft_wrap=True,
                highlight=False,
            )

    def table(self, height: int = 1_000) -> RenderableType:
        """Every line with its state, a bar where it counts, its time, and what it is at. More than fit into `height`
        lines: those that run or failed, and how many more there are."""
        with self._lock:
            rows = list(self._latest.values())
            clock = _clock(time.monotonic() - self._began)
            heading = Text.from_markup(f"[bold]{self._title}[/]  {self._count()} {self._of}  {clock}")
        most = max(height - 3, 1)
        if len(rows) > most:
            rows.sort(key=lambda row: _SHOWN_FIRST.index(row[0].state))
        table = Table.grid(padding=(0, 1))
        for _ in range(4):
            table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        for event, at in rows[:most]:
            running = event.state in ("started", "progress")
            seconds = event.seconds + (time.monotonic() - at if running else 0)
            bar = ProgressBar(total=event.total, completed=event.done, width=20) if running and event.total else ""
            clock = "" if event.state == "waiting" else _clock(seconds)
            table.add_row(_SYMBOLS[event.state], escape(event.step), bar, clock, escape(" ".join(event.detail.split())))
        more = [Text(f"… and {len(rows) - most} more {self._of}")] if len(rows) > most else []
        return Group(heading, table, *more)

    def _count(self) -> str:
        return f"{sum(event.state == 'finished' for event, _ in self._latest.values())}/{len(self._latest)}"


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60:02d}:{int(seconds) % 60:02d}"
