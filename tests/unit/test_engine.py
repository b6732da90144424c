"""What the engine says of an operation: its count, its failures in one line each, and never a secret."""

import json
import os
import socket
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from pulumi import automation as auto
from pulumi.automation.events import EngineEvent

from infra import engine, identity
from infra.failure import Failure
from infra.steps import Event

_URN = "urn:pulumi:demo::classroom::classroom:index:Seat$kubernetes:core/v1:Namespace::demo-alice-namespace"


def _stack(state: Path) -> engine.Stack:
    return engine.Stack(project="classroom", name="demo", program=lambda: None, state=state)


def _metadata(op: str, *, custom: bool = True) -> dict[str, object]:
    kind = "kubernetes:core/v1:Namespace"
    state = {
        "type": kind,
        "urn": _URN,
        "custom": custom,
        "id": "",
        "parent": "",
        "inputs": {},
        "outputs": {},
        "provider": "",
    }
    return {"op": op, "urn": _URN, "type": kind, "provider": "", "new": state}


def _hear(*events: dict[str, object], expected: int = 0) -> tuple[engine._Call, list[Event]]:
    told: list[Event] = []
    # The stack is only handed through to whoever runs the operation.
    call = engine._Call(auto.Stack.__new__(auto.Stack), "up classroom/demo", told.append, expected)
    for number, event in enumerate(events):
        call.hear(EngineEvent.from_json({"sequence": number, "timestamp": 0, **event}))
    return call, told


def test_a_resource_is_told_when_it_is_begun_and_when_it_stands() -> None:
    _, told = _hear(
        {"resourcePreEvent": {"metadata": _metadata("create")}},
        {"resOutputsEvent": {"metadata": _metadata("create")}},
        expected=3,
    )
    assert [(event.done, event.total, event.detail) for event in told] == [
        (0, 3, "making Namespace demo-alice-namespace"),
        (1, 3, "Namespace demo-alice-namespace stands"),
    ]


def test_what_stays_the_same_counts_and_is_not_told() -> None:
    call, told = _hear({"resOutputsEvent": {"metadata": _metadata("same")}})
    assert not told
    call.tell("finished")
    assert (told[0].done, told[0].total) == (1, 1)


def test_a_component_is_neither_counted_nor_told() -> None:
    call, told = _hear({"resOutputsEvent": {"metadata": _metadata("create", custom=False)}})
    assert not told
    call.tell("finished")
    assert (told[0].done, told[0].total) == (0, 0)


def test_each_failed_resource_has_one_message_and_it_is_its_first() -> None:
    call, _ = _hear(
        {"diagnosticEvent": {"severity": "error", "urn": _URN, "message": "<{%fg 1%}>quota\n exceeded<{%reset%}>"}},
        {"diagnosticEvent": {"severity": "error", "urn": _URN, "message": "something later"}},
        {"diagnosticEvent": {"severity": "error", "urn": "urn:x", "message": "update failed"}},
        {"diagnosticEvent": {"severity": "warning", "urn": _URN, "message": "never mind"}},
    )
    assert call.failures == {_URN: "quota exceeded"}


def test_a_traceback_is_told_by_its_last_line() -> None:
    trace = 'Traceback (most recent call last):\n  File "x.py", line 1\ninfra.stores.ForeignBucket: bucket x exists'
    assert engine.condense(f"Exception calling application: {trace}") == "bucket x exists"
    assert engine.condense("error: rpc error: code = Unknown desc = it is so") == "it is so"


def test_an_endless_message_is_cut() -> None:
    assert len(engine.condense("x y " * 5000)) <= 600


@pytest.mark.parametrize(
    "secret",
    [
        identity.password(),
        "$2b$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy",
        "AKIAHEOOKWYK1C8W7H49",
        "wJalrXUtnFEMI7K7MDENGbPxRfiCYEXAMPLEKEY1",
    ],
)
def test_no_secret_of_ours_comes_through_a_message(secret: str) -> None:
    assert secret not in engine.condense(f"cannot use {secret} there")
    assert secret not in engine.redact(f'{{"value":"{secret}"}}')


@pytest.mark.parametrize(
    "text",
    [
        "demo-alice-namespace",
        "sha256:4d332f83408dc5784d332f83408dc5784d332f83408dc578",
        "https://198.18.0.100/notebook/x",
    ],
)
def test_ordinary_words_are_left_alone(text: str) -> None:
    assert engine.redact(text) == text


def test_the_passphrase_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    file = engine._passphrase(_stack(tmp_path))
    made = file.read_text()
    assert len(made) >= 32
    assert file.stat().st_mode & 0o777 == 0o600
    assert engine._passphrase(_stack(tmp_path)).read_text() == made


def test_without_any_state_there_is_nothing_and_pulumi_is_not_even_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PULUMI_BACKEND_URL", raising=False)
    monkeypatch.setenv("PATH", "")
    assert engine.outputs(_stack(tmp_path)) == {}
    assert engine.export(_stack(tmp_path)) == ()
    engine.destroy(_stack(tmp_path), lambda _event: None)


def test_a_missing_pulumi_is_told_with_what_brings_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(Failure, match="classroom platform up"):
        engine.up(_stack(tmp_path), lambda _event: None)


def _lock(state: Path, process: int, host: str) -> Path:
    lock = state / "pulumi" / ".pulumi" / "locks" / "organization" / "classroom" / "demo" / f"{process}.json"
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.write_text(
        json.dumps({"pid": process, "username": "root", "hostname": host, "timestamp": "2026-01-01T00:00:00Z"})
    )
    return lock


def test_the_stacks_of_a_project_are_named_without_what_the_backend_keeps_beside_them(tmp_path: Path) -> None:
    kept = tmp_path / "pulumi" / ".pulumi" / "stacks" / "classroom"
    kept.mkdir(parents=True)
    for name in ("demo.json", "demo.2.json.gz", "demo.json.bak", "demo.json.attrs", "demo.json.bak.attrs"):
        (kept / name).touch()
    assert engine.names(_stack(tmp_path)) == {"demo", "demo.2"}
    assert engine.names(_stack(tmp_path / "elsewhere")) == frozenset()


def test_each_stack_has_its_own_place_of_work_and_its_project_is_written_once(tmp_path: Path) -> None:
    # Several are at work at once, and whoever reads must not come upon a half-written one.
    tool = tmp_path / "pulumi"
    tool.write_text("#!/bin/sh\necho v3.215.0\n")
    tool.chmod(0o755)
    stack = replace(_stack(tmp_path / "state"), tools=(tmp_path,))
    first = engine._workspace(stack, threading.Event())
    project = Path(first.work_dir) / "Pulumi.yaml"
    written = project.stat()
    assert engine._workspace(stack, threading.Event()).work_dir == first.work_dir
    assert (project.stat().st_ino, project.stat().st_mtime_ns) == (written.st_ino, written.st_mtime_ns)
    assert first.project_settings().name == "classroom"
    assert engine._workspace(replace(stack, name="demo.2"), threading.Event()).work_dir != first.work_dir


def test_a_stack_is_settled_by_a_whole_up_of_the_same_fingerprint_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PULUMI_BACKEND_URL", raising=False)
    stack = replace(_stack(tmp_path), fingerprint="one")
    mark, state = engine._mark(stack), tmp_path / "pulumi" / ".pulumi" / "stacks" / "classroom" / "demo.json"
    for file in (mark, state):
        file.parent.mkdir(parents=True)
    state.write_text("made")
    assert not engine.is_settled(stack)
    mark.write_text(engine._settled(stack))
    assert engine.is_settled(stack)
    assert not engine.is_settled(replace(stack, fingerprint="two"))
    # Plain Pulumi knows of no mark.
    state.write_text("destroyed")
    assert not engine.is_settled(stack)
    state.write_text("made")
    # Others may be at work in a backend that is elsewhere.
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("PULUMI_BACKEND_URL", "s3://shared")
        assert not engine.is_settled(stack)
    # Whatever begins to change the stack takes the mark away first, and a look ahead does not.
    monkeypatch.setenv("PATH", "")
    for operate, settled in ((engine.preview, True), (engine.destroy, False)):
        with pytest.raises(Failure, match="classroom platform up"):
            operate(stack, lambda _event: None)
        assert engine.is_settled(stack) == settled
    # A program of which nobody says what it is made of, and a stack that is gone.
    mark.write_text(engine._settled(_stack(tmp_path)))
    assert not engine.is_settled(_stack(tmp_path))
    state.unlink()
    mark.write_text(engine._settled(stack))
    assert not engine.is_settled(stack)


def test_what_happens_to_a_resource_is_heard_with_what_it_is_a_part_of() -> None:
    heard: list[engine.Seen] = []
    call = engine._Call(auto.Stack.__new__(auto.Stack), "up classroom/demo", lambda _event: None, 0, heard.append)
    for number, event in enumerate(
        (
            {"resourcePreEvent": {"metadata": _metadata("create")}},
            {"diagnosticEvent": {"severity": "error", "urn": _URN, "message": "exceeded quota"}},
            {"diagnosticEvent": {"severity": "error", "urn": _URN, "message": "and again"}},
        )
    ):
        call.hear(EngineEvent.from_json({"sequence": number, "timestamp": 0, **event}))
    assert [(seen.state, seen.why) for seen in heard] == [("begun", ""), ("failed", "exceeded quota")]


def test_a_preview_keeps_what_would_be_done_and_an_up_does_not() -> None:
    for verb, kept in (("preview", 1), ("up", 0)):
        call = engine._Call(auto.Stack.__new__(auto.Stack), f"{verb} classroom/demo", lambda _event: None, 0)
        event = {"sequence": 0, "timestamp": 0, "resourcePreEvent": {"metadata": _metadata("create")}}
        call.hear(EngineEvent.from_json(event))
        assert len(call.planned) == kept


def test_the_lock_of_a_dead_process_is_taken_away_and_one_that_says_nothing_too(tmp_path: Path) -> None:
    # Its number is another program's now.
    lock = _lock(tmp_path, os.getpid(), socket.gethostname())
    beside = lock.with_name(f"{lock.name}.attrs")
    broken = lock.with_name("broken.json")
    for file in (beside, broken):
        file.touch()
    engine._unlock(_stack(tmp_path))
    assert list(lock.parent.iterdir()) == []
    engine._unlock(_stack(tmp_path / "without-locks"))


def test_the_lock_of_a_living_process_stays_and_its_holder_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_pulumi_runs", lambda process: process == os.getpid())
    lock = _lock(tmp_path, os.getpid(), socket.gethostname())
    with pytest.raises(engine.StackLocked, match=f"process {os.getpid()} is changing classroom/demo; wait for its end"):
        engine._unlock(_stack(tmp_path))
    assert lock.exists()


def test_the_lock_of_another_host_stays_and_the_message_says_how_to_take_it_away(tmp_path: Path) -> None:
    dead, foreign = _lock(tmp_path, 41, socket.gethostname()), _lock(tmp_path, 42, "elsewhere")
    with pytest.raises(engine.StackLocked) as told:
        engine._unlock(_stack(tmp_path))
    assert "process 42 of the host elsewhere is changing classroom/demo since 2026-01-01T00:00:00Z" in str(told.value)
    assert f"delete {foreign} first" in str(told.value)
    assert dead.exists()
    assert foreign.exists()


def test_a_process_number_that_another_program_has_now_is_no_living_holder() -> None:
    assert not engine._pulumi_runs(os.getpid())


def test_a_resource_of_the_state_is_named_by_its_metadata() -> None:
    state = {
        "urn": _URN,
        "type": "kubernetes:core/v1:Secret",
        "id": "demo-alice/key",
        "outputs": {"metadata": {"name": "key", "namespace": "demo-alice"}},
    }
    found = engine._resource(state)
    assert (found.namespace, found.name) == ("demo-alice", "key")
