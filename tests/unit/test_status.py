"""The status of a class: what dex's log tells, and what is shown of a seat."""

from datetime import UTC, datetime
from decimal import Decimal

from rich.console import Console

from infra.status import ClassStatus, NotebookStatus, SeatStatus, read_logins
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
    console = Console(width=140, record=True, force_terminal=False, file=None, quiet=False)
    with console.capture() as shown:
        console.print(status_table(found, NOW))
    lines = shown.get().splitlines()
    line = {name: next(each for each in lines if name in each) for name in ("ada", "ben", "cy", "dee")}
    assert "1/4 seats ready" in shown.get()
    assert all(part in line["ada"] for part in ("1/1", "200m/2", "2Gi/16Gi", "1 h ago", "2 min ago"))
    assert "nb not ready" in line["ben"]
    assert line["ben"].count("unknown") == 2
    assert "closed 12-01 10:00" in line["cy"]
    assert "no seat" in line["dee"]
    assert "2026-12-01 08:00 UTC, where dex's log begins" in shown.get()
