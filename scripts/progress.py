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

from infra.steps import Event, Listener

_SYMBOLS = {
    "started": "[cyan]…[/]",
    "progress": "[cyan]…[/]",
    "finished": "[green]✓[/]",
    "skipped": "[dim]·[/]",
    "failed": "[red]✗[/]",
}


@contextmanager
def shown(title: str, console: Console, total_steps: int | None = None) -> Iterator[Listener]:
    """A listener whose events appear on `console` while the block runs."""
    view = _View(title, total_steps)
    if not console.is_terminal:
        yield lambda event: view.tell(event, console)
        return
    with Live(get_renderable=view.table, console=console, refresh_per_second=4, transient=False):
        yield view.note


class _View:
    """The latest event of every step, in the order in which the steps began."""

    def __init__(self, title: str, total_steps: int | None) -> None:
        self._title = title
        self._total_steps = total_steps
        self._began = time.monotonic()
        self._latest: dict[str, tuple[Event, float]] = {}
        self._lock = threading.Lock()

    def note(self, event: Event) -> None:
        with self._lock:
            self._latest[event.step] = (event, time.monotonic())

    def _count(self) -> str:
        over = sum(event.state in ("finished", "skipped") for event, _ in self._latest.values())
        return f"{over}/{self._total_steps or len(self._latest)}"

    def tell(self, event: Event, console: Console) -> None:
        """Print the event as a line of its own, unless it says nothing new."""
        with self._lock:
            earlier = self._latest.get(event.step)
            self._latest[event.step] = (event, time.monotonic())
            if earlier and event.state == "progress" and earlier[0].detail == event.detail:
                return
            counted = f" {event.done}/{event.total}" if event.total else ""
            detail = f" — {escape(event.detail)}" if event.detail else ""
            console.print(
                f"{_clock(time.monotonic() - self._began)}  {self._title} {self._count()}  "
                f"{_SYMBOLS[event.state]} {escape(event.step)}{counted}{detail} [dim]({_clock(event.seconds)})[/]",
                soft_wrap=True,
                highlight=False,
            )

    def table(self) -> RenderableType:
        with self._lock:
            rows = list(self._latest.values())
            heading = f"[bold]{self._title}[/]  {self._count()} steps  {_clock(time.monotonic() - self._began)}"
        table = Table.grid(padding=(0, 1))
        for event, at in rows:
            running = event.state in ("started", "progress")
            seconds = event.seconds + (time.monotonic() - at if running else 0)
            bar = ProgressBar(total=event.total, completed=event.done, width=20) if running and event.total else ""
            table.add_row(_SYMBOLS[event.state], escape(event.step), bar, _clock(seconds), escape(event.detail)[:100])
        return Group(heading, table)


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60:02d}:{int(seconds) % 60:02d}"
