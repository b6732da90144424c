"""The status of a class: what dex's log tells, and what is shown of a seat."""

import time
from contextlib import nullcontext
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from rich.console import Console

from infra import cluster, status
from infra.bill import Bill
from infra.cluster import ClusterUnreachable
from infra.session import CLOSED
from infra.spec import ClassSpec, Platform
from infra.status import ClassStatus, NotebookStatus, SeatStatus, closed_since, read_logins
from scripts.day import status_table

NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)


def test_the_last_login_is_read_from_dexs_log_in_either_of_its_forms() -> None:
    as_json = (
        '2026-12-01T09:00:00.000000001Z {"time":"x","level":"INFO","msg":"config issuer"}\n'
        '2026-12-01T09:10:00Z {"level":"INFO","msg":"login successful","email":"Ada@example.org"}\n'
        '2026-12-01T09:05:00Z {"level":"INFO","msg":"login successful","email":"ada@example.org"}\n'
        '2026-12-01T09:30:00Z {"level":"ERROR","msg":"failed login attempt","email":"ben@example.org"}\n'
        "no time at all\n"
    )
    as_pairs = '2026-12-01T10:00:00Z time=x level=INFO msg="login successful" username="B C" email=ben@example.org\n'
    last, since = read_logins([as_json, as_pairs])
    assert last == {
        "ada@example.org": datetime(2026, 12, 1, 9, 10, tzinfo=UTC),
        "ben@example.org": datetime(2026, 12, 1, 10, tzinfo=UTC),
    }
    assert since == datetime(2026, 12, 1, 9, 0, 0, tzinfo=UTC)
    assert read_logins([]) == ({}, None)


def seat(student: str, **given: object) -> SeatStatus:
    shape: dict[str, object] = {
        "student": student,
        "name": student,
        "stands": True,
        "closed": None,
        "notebooks": (
            NotebookStatus(name="nb", ready=True, stopped=False, last_activity=datetime(2026, 12, 1, 11, tzinfo=UTC)),
        ),
        "quota": {"requests.cpu": (Decimal("0.2"), Decimal(2)), "limits.memory": (Decimal(2**31), Decimal(2**34))},
        "last_login": datetime(2026, 12, 1, 11, 58, tzinfo=UTC),
        "spend": None,
    }
    return SeatStatus(**{**shape, **given})  # type: ignore[arg-type]  # the test's own shape


def shown(found: ClassStatus, now: datetime, width: int = 140) -> str:
    console = Console(width=width, force_terminal=False)
    with console.capture() as said:
        console.print(status_table(found, now))
    return said.get()


def test_a_seat_is_one_line_and_what_is_not_known_is_said_to_be_unknown() -> None:
    down = NotebookStatus(name="nb", ready=False, stopped=False, last_activity=None)
    stopped = NotebookStatus(name="nb", ready=False, stopped=True, last_activity=None)
    found = ClassStatus(
        seats=(
            seat("ada"),
            seat("ben", notebooks=(down,), last_login=None),
            seat("cy", notebooks=(stopped,), closed=datetime(2026, 12, 1, 10, tzinfo=UTC)),
            seat("dee", stands=False, notebooks=()),
        ),
        logins_since=datetime(2026, 12, 1, 8, tzinfo=UTC),
        bill=None,
    )
    said = shown(found, NOW)
    line = {name: next(each for each in said.splitlines() if name in each) for name in ("ada", "ben", "cy", "dee")}
    assert "1/4 seats ready" in said
    assert all(part in line["ada"] for part in ("1/1", "200m/2", "2Gi/16Gi", "1 h ago", "2 min ago"))
    assert "nb not ready" in line["ben"]
    assert line["ben"].count("unknown") == 2
    assert "closed 12-01 10:00 UTC" in line["cy"]
    assert "no seat" in line["dee"]
    assert "2026-12-01 08:00 UTC, where dex's log begins" in said
    assert not [title for title in ("disk", "gpu", "spend") if title in said]


def test_gpus_and_disk_have_columns_where_seats_have_some_and_all_of_it_fits_on_a_narrow_screen() -> None:
    quota = {
        "requests.cpu": (Decimal("0.2"), Decimal(2)),
        "limits.memory": (Decimal(2**31), Decimal(2**34)),
        "pods": (Decimal(2), Decimal(30)),
        "requests.storage": (Decimal(2**31), Decimal(10 * 2**30)),
        "requests.nvidia.com/gpu": (Decimal(1), Decimal(4)),
    }
    bill = Bill(class_name="demo", currency="EUR", at=NOW, lines=())
    found = ClassStatus(seats=(seat("alexandra-k", quota=quota, spend=Decimal("11.20")),), logins_since=NOW, bill=bill)
    said = shown(found, NOW, width=100)
    assert "…" not in said
    assert all(title in said for title in ("gpu", "disk", "spend EUR"))
    line = next(each for each in said.splitlines() if "alexandra-k" in each)
    assert [each for each in ("200m/2", "2Gi/16Gi", "1/4", "2/30", "2Gi/10Gi", "11.20") if each not in line] == []


def test_a_closed_class_is_told_in_the_time_zone_in_which_it_is_held() -> None:
    home = {"metadata": {"annotations": {CLOSED: '[["2026-12-01T08:00:00Z", "2026-12-01T09:00:00Z"]]'}}}
    assert closed_since(home, NOW) is None
    home["metadata"]["annotations"][CLOSED] = '[["2026-12-01T10:00:00Z", ""]]'
    found = ClassStatus(seats=(seat("ada", closed=closed_since(home, NOW)),), logins_since=NOW, bill=None)
    assert "closed 12-01 19:00 KST" in shown(found, NOW.astimezone(ZoneInfo("Asia/Seoul")))


def test_many_silent_servers_keep_nobody_waiting(
    demo: ClassSpec, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = {"notebooks.kubeflow.org/last-activity": "2026-12-01T11:00:00Z"}
    servers = [
        {
            "metadata": {"namespace": "demo-alice", "name": f"nb-{n}", "annotations": noted if n == 199 else {}},
            "status": {"readyReplicas": 1},
        }
        for n in range(200)
    ]

    def get(_api: Any, path: str, _selector: str = "", *, timeout: tuple[float, float] = (5, 30)) -> dict[str, Any]:
        if "/proxy/" in path:
            time.sleep(timeout[1])
            raise ClusterUnreachable("no answer")
        return {"items": servers if path.endswith("/notebooks") else []}

    monkeypatch.setattr(cluster, "api", lambda *_: nullcontext())
    monkeypatch.setattr(cluster, "get", get)
    monkeypatch.setattr(status, "_SERVERS_ANSWER_WITHIN_SECONDS", 0.2)
    began = time.monotonic()
    found = status.status(demo, platform)
    assert time.monotonic() - began < 2
    (alice, _) = found.seats
    assert not alice.stands
    assert len(alice.notebooks) == 200
    # What needs no asking is known all the same.
    assert alice.last_activity == datetime(2026, 12, 1, 11, tzinfo=UTC)
