"""What a person sees while steps run: a live table on a terminal, one line an event elsewhere.

Both say which step of how many, what it is at, how far it is where it counts something, and how long it takes.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from infra.steps import Event, Listener

_SYMBOLS = {
    "waiting": "[dim]·[/]",
    "started": "[cyan]…[/]",
    "progress": "[cyan]…[/]",
    "finished": "[green]✓[/]",
    "failed": "[red]✗[/]",
}
_QUIET_SECONDS = 10
"""In a log, a step that only says how it goes on is heard this often."""


@contextmanager
def shown(title: str, console: Console) -> Iterator[Listener]:
    """A listener whose events appear on `console` while the block runs."""
    view = _View(title)
    if not console.is_terminal:
        yield lambda event: view.log(event, console)
        return
    with Live(get_renderable=view.table, console=console, refresh_per_second=4):
        yield view.note


class _View:
    """The latest event of every step, in the order in which they were first heard of."""

    def __init__(self, title: str) -> None:
        self._title = title
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

    def table(self) -> RenderableType:
        """Every step with its state, a bar where it counts, its time, and what it is at."""
        with self._lock:
            rows = list(self._latest.values())
            clock = _clock(time.monotonic() - self._began)
            heading = Text.from_markup(f"[bold]{self._title}[/]  {self._count()} steps  {clock}")
        table = Table.grid(padding=(0, 1))
        for event, at in rows:
            running = event.state in ("started", "progress")
            seconds = event.seconds + (time.monotonic() - at if running else 0)
            bar = ProgressBar(total=event.total, completed=event.done, width=20) if running and event.total else ""
            clock = "" if event.state == "waiting" else _clock(seconds)
            table.add_row(_SYMBOLS[event.state], escape(event.step), bar, clock, escape(event.detail)[:100])
        return Group(heading, table)

    def _count(self) -> str:
        return f"{sum(event.state == 'finished' for event, _ in self._latest.values())}/{len(self._latest)}"


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60:02d}:{int(seconds) % 60:02d}"
