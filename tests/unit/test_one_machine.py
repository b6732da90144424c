"""The platform is up once its login page is shown, not before; down leaves the cache to whoever still needs it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from infra import one_machine
from infra.local import machine, node
from infra.one_machine import PageSilent, expect_page
from infra.steps import Cancelled

NO_CA = Path("http-asks-for-none.crt")


@contextmanager
def gateway(*statuses: int) -> Iterator[tuple[str, list[int]]]:
    """One that answers with these, the last one again and again: its address, and what it has not said yet."""
    left = list(statuses)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(left.pop(0) if len(left) > 1 else left[0])
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class has it so
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/", left
        finally:
            server.shutdown()
            thread.join()


def test_the_way_to_the_login_is_waited_for() -> None:
    with gateway(404, 503, 302) as (url, left):
        expect_page(url, NO_CA, threading.Event(), seconds=30)
    assert left == [302]


def test_a_page_that_stays_away_is_told_with_what_was_answered_and_what_mends_it() -> None:
    with gateway(503) as (url, _), pytest.raises(PageSilent, match="status 503; run `scripts/classroom platform down`"):
        expect_page(url, NO_CA, threading.Event(), seconds=0)


def test_an_address_that_nobody_answers_at_is_told_too() -> None:
    with gateway(302) as (url, _):
        pass
    with pytest.raises(PageSilent, match="refused"):
        expect_page(url, NO_CA, threading.Event(), seconds=0)


def test_waiting_for_the_page_can_be_stopped() -> None:
    stop = threading.Event()
    stop.set()
    with gateway(503) as (url, _), pytest.raises(Cancelled):
        expect_page(url, NO_CA, stop, seconds=30)


@pytest.mark.parametrize("built", [True, False])
def test_down_keeps_the_tools_of_another_version_until_this_one_is_built(
    built: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLASSROOM_CACHE", str(tmp_path))
    monkeypatch.setattr(one_machine, "is_built", lambda: built)
    monkeypatch.setattr(machine, "lock", lambda _: nullcontext())
    monkeypatch.setattr(node, "down", lambda *_, **__: None)
    older = tmp_path / "tools" / "cluster-0123456789abcdef"
    older.mkdir(parents=True)

    one_machine.down(lambda _event: None)

    assert older.exists() != built
