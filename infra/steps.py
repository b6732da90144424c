"""Work as a graph of named steps: each starts as soon as what it needs is done, and all that happens is told as events.

The graph knows nothing of screens; whoever shows progress or keeps a record listens.
"""

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Literal, Protocol

State = Literal["waiting", "started", "progress", "finished", "failed"]


@dataclass(frozen=True, kw_only=True)
class Event:
    """What happened to one step. `done` of `total` counts whatever the step counts (0 of 0: it counts nothing)."""

    step: str
    state: State
    done: int = 0
    total: int = 0
    detail: str = ""
    seconds: float = 0.0
    """Time since the step started."""


Listener = Callable[[Event], None]


@contextmanager
def recorded(listener: Listener, file: Path) -> Iterator[Listener]:
    """The listener, with every event appended to `file` as a line of JSON as well: one at a time, and at once."""
    one_at_a_time = threading.Lock()
    with file.open("a", encoding="utf-8") as record:

        def listen(event: Event) -> None:
            line = {"at": datetime.now(UTC).isoformat(timespec="milliseconds"), **asdict(event)}
            with one_at_a_time:
                record.write(json.dumps(line, ensure_ascii=False) + "\n")
                record.flush()
                listener(event)

        yield listen


class Report(Protocol):
    """How a running step says what it is at."""

    def __call__(self, detail: str, done: int = 0, total: int = 0) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Step:
    """A named piece of work. `needs` names the steps that must have finished before it starts."""

    name: str
    action: Callable[[Report], None]
    needs: tuple[str, ...] = ()


class Cancelled(Exception):
    """The work was stopped from outside before it was done; what was finished stays finished."""


def run(steps: Iterable[Step], listener: Listener, cancelled: threading.Event | None = None, workers: int = 8) -> None:
    """Run every step, those that do not wait for one another side by side. All are told as waiting before any starts.

    When one fails, no further step starts, `cancelled` is set so that the running ones can stop early, and the first
    failure is raised once all are still. Ctrl-C does the same and is raised again.

    Errors: whatever a step raised; `Cancelled` when `cancelled` was set from outside; `graphlib.CycleError` and
    `ValueError` for a graph that cannot be run.
    """
    by_name = {step.name: step for step in steps}
    for step in by_name.values():
        if missing := set(step.needs) - by_name.keys():
            raise ValueError(f"step {step.name!r} needs {sorted(missing)}, which are not in the graph")
    stop = cancelled or threading.Event()
    order = TopologicalSorter({step.name: step.needs for step in by_name.values()})
    order.prepare()
    for name in by_name:
        listener(Event(step=name, state="waiting"))
    with ThreadPoolExecutor(max_workers=workers) as pool:
        running: dict[Future[None], str] = {}
        failure: BaseException | None = None
        try:
            while order.is_active():
                if failure is None and not stop.is_set():
                    running |= {pool.submit(_run_one, by_name[name], listener): name for name in order.get_ready()}
                if not running:
                    break
                # A short wait instead of an endless one: the main thread must see Ctrl-C and `cancelled`.
                finished, _ = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
                for future in finished:
                    name = running.pop(future)
                    if error := future.exception():
                        failure = failure or error
                        stop.set()
                    else:
                        order.done(name)
        except KeyboardInterrupt:
            stop.set()
            raise
    if failure is not None:
        raise failure
    if order.is_active():
        raise Cancelled("stopped before everything was done; the same command goes on from here")


def _run_one(step: Step, listener: Listener) -> None:
    started = time.monotonic()

    def tell(state: State, detail: str = "", done: int = 0, total: int = 0) -> None:
        seconds = time.monotonic() - started
        listener(Event(step=step.name, state=state, detail=detail, done=done, total=total, seconds=seconds))

    tell("started")
    try:
        step.action(lambda detail, done=0, total=0: tell("progress", detail, done, total))
    except BaseException as error:
        tell("failed", str(error))
        raise
    tell("finished")
