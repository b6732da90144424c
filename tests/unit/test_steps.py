"""Steps run in an order that their needs allow, stop together, and say what happened."""

import graphlib
import io
import threading
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from infra.steps import Cancelled, Event, Report, Step, run
from scripts import progress


def noop(_report: Report) -> None:
    pass


def waits_for(event: threading.Event | threading.Barrier) -> Callable[[Report], None]:
    def wait(_report: Report) -> None:
        event.wait(5)

    return wait


@given(st.lists(st.sets(st.integers(0, 9)), max_size=10))
def test_every_step_runs_once_and_after_all_that_it_needs(needs: list[set[int]]) -> None:
    done: list[str] = []
    steps = [
        Step(
            name=str(number),
            needs=tuple(str(n) for n in earlier if n < number),
            action=lambda _, n=number: done.append(str(n)),
        )
        for number, earlier in enumerate(needs)
    ]

    run(steps, lambda _: None)

    assert sorted(done) == sorted(step.name for step in steps)
    assert all(done.index(need) < done.index(step.name) for step in steps for need in step.needs)


def test_steps_that_do_not_wait_for_each_other_run_side_by_side() -> None:
    both_there = threading.Barrier(2, timeout=5)

    run([Step(name=name, action=waits_for(both_there)) for name in ("one", "other")], lambda _: None)


def test_a_failure_stops_the_others_and_is_raised_as_it_was() -> None:
    cancelled = threading.Event()
    events: list[Event] = []

    def fail(_report: Report) -> None:
        raise LookupError("no such thing")

    steps = [
        Step(name="fails", action=fail),
        Step(name="runs until told to stop", action=waits_for(cancelled)),
        Step(name="never starts", needs=("fails",), action=noop),
    ]
    with pytest.raises(LookupError, match="no such thing"):
        run(steps, events.append, cancelled)

    assert cancelled.is_set()
    assert [event.state for event in events if event.step == "never starts"] == ["waiting"]
    assert [(event.state, event.detail) for event in events if event.step == "fails"][-1] == ("failed", "no such thing")


def test_cancelling_from_outside_is_told_apart_from_success() -> None:
    cancelled = threading.Event()
    steps = [
        Step(name="first", action=lambda _: cancelled.set()),
        Step(name="second", needs=("first",), action=noop),
    ]
    with pytest.raises(Cancelled):
        run(steps, lambda _: None, cancelled)


def test_a_graph_that_cannot_be_run_is_refused_before_anything_runs() -> None:
    ran: list[str] = []
    with pytest.raises(ValueError, match="missing"):
        run([Step(name="a", needs=("missing",), action=lambda _: ran.append("a"))], lambda _: None)
    with pytest.raises(graphlib.CycleError):
        run([Step(name=a, needs=(b,), action=lambda _: ran.append("x")) for a, b in ("ab", "ba")], lambda _: None)
    assert ran == []


def test_a_log_file_gets_a_line_for_what_is_new_and_not_for_every_breath() -> None:
    written = io.StringIO()
    events = [
        Event(step="tools", state="waiting"),
        Event(step="node", state="waiting"),
        Event(step="tools", state="started"),
        *(Event(step="tools", state="progress", detail=f"part {n}", done=n, total=9) for n in range(9)),
        Event(step="tools", state="finished"),
    ]
    with progress.shown("platform up", Console(file=written, force_terminal=False, width=200)) as listener:
        for event in events:
            listener(event)

    lines = written.getvalue().splitlines()
    assert [line.split("platform up ")[1][:3] for line in lines] == ["0/2", "0/2", "1/2"]
    assert "part 0" in lines[1]


def test_a_terminal_shows_every_step_and_what_it_is_at() -> None:
    written = io.StringIO()
    with progress.shown("platform up", Console(file=written, force_terminal=True, width=100)) as listener:
        listener(Event(step="tools", state="progress", detail="kubelet", done=1, total=3))
        listener(Event(step="node", state="waiting"))

    assert all(text in written.getvalue() for text in ("platform up", "tools", "kubelet", "node", "0/2"))
