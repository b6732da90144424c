"""The bill: what is counted, for how long, at which price; and what is not."""

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from infra import stacks, teardown
from infra.bill import Bill, Line, Standing, reckoned
from infra.session import CLOSED, STOPPED
from infra.spec import ClassSpec, Platform, Prices, Student
from scripts import verbs
from tests.unit.conftest import stamp

NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)
PRICES = Prices(
    currency="EUR",
    cpu_core_hour=Decimal("0.04"),
    memory_gibibyte_hour=Decimal("0.005"),
    gpu_hour={"nvidia.com/gpu": Decimal("1.2")},
    storage_gibibyte_month=Decimal("0.1"),
)
SPEC = ClassSpec(
    name="k",
    students=(Student(id="ada", email="ada@example.org"), Student(id="ben", email="ben@example.org")),
    prices=PRICES,
)


def ago(hours: float) -> str:
    return (NOW - timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%SZ")


def item(name: str, hours: float, namespace: str = "k-ada", **more: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace, "creationTimestamp": ago(hours), **more.pop("metadata", {})}
    return {"metadata": metadata, **more}


@pytest.fixture(scope="module")
def written(platform: Platform) -> dict[str, Any]:
    """The spec of ada's Notebook with a GPU, as the program writes it; Kubernetes adds nothing to it."""
    found = [each for each in stamp(SPEC, platform).of("Notebook") if each.metadata.get("namespace") == "k-ada"]
    return next(dict(each.inputs["spec"]) for each in found if each.metadata["name"] == "gpu-notebook")


def notebook(spec: dict[str, Any], hours: float, **metadata: Any) -> dict[str, Any]:
    return item("gpu-notebook", hours, metadata=metadata, spec=spec)


def asking(**sizes: Any) -> dict[str, Any]:
    """The spec of a Notebook that a student has written."""
    return {"template": {"spec": {"containers": [{"resources": sizes}]}}}


def standing(**given: Any) -> Standing:
    home = {"metadata": {"name": "k-ada", "annotations": given.pop("annotations", {})}}
    return Standing(**{"namespaces": [home], "notebooks": [], "pods": [], "claims": [], **given})


def quantities(found: Standing, objects: Any = ()) -> dict[tuple[str, str], Decimal]:
    made = reckoned(SPEC, PRICES, found, {"ada": objects}, NOW)
    return {(line.part, line.resource): line.quantity for line in made.lines if line.student == "ada"}


def test_a_notebook_costs_what_it_asks_for_until_now(written: dict[str, Any]) -> None:
    made = reckoned(SPEC, PRICES, standing(notebooks=[notebook(written, 10)]), {}, NOW)
    assert made.of("ada") == Decimal(2) * 10 * PRICES.cpu_core_hour + Decimal("0.4") + 12
    assert made.of("ben") == 0
    assert made.total == made.of("ada")


@pytest.mark.parametrize(
    ("cpu", "held"),
    [
        ("1e0", 1),
        ("1500e-3", Decimal("1.5")),
        (".5", Decimal("0.5")),
        # No pod comes of these, and the API server takes them of a Notebook all the same.
        ("-3", 0),
        ("1e.5", 0),
    ],
)
def test_a_notebook_that_a_student_writes_costs_what_its_pod_may_hold(cpu: str, held: Decimal) -> None:
    found = standing(notebooks=[notebook(asking(requests={"cpu": cpu}, limits={"cpu": "4"}), 10)])
    assert quantities(found)["notebook gpu-notebook", "cpu"] == 10 * held


@pytest.mark.parametrize("spec", [{}, {"template": {}}, {"template": {"spec": {"containers": [{}]}}}])
def test_a_notebook_without_sizes_costs_nothing(spec: dict[str, Any]) -> None:
    assert quantities(standing(notebooks=[notebook(spec, 10)])) == {}


def test_the_largest_sizes_that_there_are_can_be_billed_for_years() -> None:
    huge = notebook(asking(requests={"cpu": "1e999"}, limits={"nvidia.com/gpu": "1e999"}), 24 * 365 * 10)
    made = reckoned(SPEC, PRICES, standing(notebooks=[huge, huge]), {}, NOW)
    assert made.total > 10**23
    assert made.csv()


def test_a_notebook_costs_nothing_while_it_is_stopped_or_its_class_closed(written: dict[str, Any]) -> None:
    stopped = notebook(written, 10, annotations={STOPPED: ago(7)})
    assert quantities(standing(notebooks=[stopped]))["notebook gpu-notebook", "cpu"] == 2 * 3
    spans = {CLOSED: json.dumps([[ago(9), ago(5)], [ago(1), None]])}
    assert (
        quantities(standing(notebooks=[notebook(written, 10)], annotations=spans))["notebook gpu-notebook", "cpu"]
        == 2 * 5
    )


def test_pods_of_runs_cost_from_their_start_to_their_end_and_a_notebooks_pod_not_twice() -> None:
    container = {"resources": {"requests": {"cpu": "500m"}}}

    def pod(status: dict[str, Any], labels: dict[str, str] | None = None) -> dict[str, Any]:
        return item("p", 5, metadata={"labels": labels or {}}, spec={"containers": [container]}, status=status)

    ended = {"state": {"terminated": {"finishedAt": ago(3)}}}
    pods = [
        pod({"phase": "Succeeded", "startTime": ago(4), "containerStatuses": [ended]}),
        pod({"phase": "Running", "startTime": ago(2)}),
        pod({"phase": "Pending"}),
        pod({"phase": "Running", "startTime": ago(5)}, {"notebook-name": "gpu-notebook"}),
        item("p", 5, "others", spec={"containers": [container]}, status={"phase": "Running", "startTime": ago(5)}),
    ]
    assert quantities(standing(pods=pods)) == {("runs", "cpu"): Decimal("0.5") * 1 + Decimal("0.5") * 2}


def test_volumes_and_objects_cost_their_size_for_their_age() -> None:
    claim = item("gpu-notebook-volume", 73, spec={"resources": {"requests": {"storage": "10Gi"}}})
    found = quantities(standing(claims=[claim]), [(2**30, NOW - timedelta(hours=365)), (2**30, NOW)])
    assert found["volume gpu-notebook-volume", "storage"] == Decimal("1")
    assert found["bucket", "storage"] == Decimal("0.5")


def test_the_csv_has_every_line_and_adds_up_to_the_bill(written: dict[str, Any]) -> None:
    made = reckoned(SPEC, PRICES, standing(notebooks=[notebook(written, 10)]), {}, NOW)
    rows = list(csv.DictReader(io.StringIO(made.csv())))
    assert {row["unit"] for row in rows} == {"core-hour", "GiB-hour", "GPU-hour"}
    assert {row["currency"] for row in rows} == {"EUR"}
    assert round(sum(Decimal(row["cost"]) for row in rows), 2) == made.total
    assert f"{made.total} EUR" in made.text()


@pytest.fixture
def destroyed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """No cluster: what was taken away, a student's id or the empty one of a class."""
    found: list[str] = []

    def down(klass: stacks.Klass, *, student: str = "", **_: Any) -> teardown.Certificate:
        found.append(student)
        return teardown.Certificate(
            class_name=klass.spec.name,
            student=student,
            platform="https://h/",
            started=NOW,
            ended=NOW,
            created=(),
            looks=(),
            seconds_between_rounds=1,
            notes=("a note of the teardown",),
        )

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLASSROOM_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(teardown, "down", down)
    return found


def billed(spec: ClassSpec, _platform: Platform) -> Bill:
    """A core-hour for each student."""
    lines = tuple(
        Line(student=each.id, part="runs", resource="cpu", quantity=Decimal(1), unit="core-hour", price=Decimal(2))
        for each in spec.students
    )
    return Bill(class_name=spec.name, currency="EUR", at=NOW, lines=lines)


def test_down_leaves_the_bill_of_the_class_and_remove_that_of_the_seat(
    platform: Platform, destroyed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verbs, "bill", billed)
    down, file = verbs.down(SPEC, platform, Console(quiet=True))
    assert f"What it had cost\n{billed(SPEC, platform).text()}\n" in file.read_text()
    assert (file.parent / "bill.csv").read_text().count("core-hour") == 2

    removed, file = verbs.remove(SPEC, platform, "eve", Console(quiet=True))
    assert destroyed == ["", "eve"]
    assert [line.split() for line in removed.bill.splitlines()] == [["eve", "2.00", "EUR"], ["together", "2.00", "EUR"]]
    assert removed.bill in file.read_text()
    assert (file.parent / "bill.csv").read_text().splitlines()[1].startswith("eve,runs,cpu,")
    assert down.notes == removed.notes == ("a note of the teardown",)


@pytest.mark.parametrize("error", [ValueError("'x' is no size"), KeyError("storage"), OSError("disk full")])
def test_whatever_a_bill_stumbles_over_a_class_goes_down_and_its_certificate_says_why_there_is_none(
    error: Exception, platform: Platform, destroyed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stumble(*_: Any) -> Bill:
        raise error

    monkeypatch.setattr(verbs, "bill", stumble)
    certificate, file = verbs.down(SPEC, platform, Console(quiet=True))

    assert destroyed == [""]
    assert certificate.bill == ""
    assert certificate.notes == ("a note of the teardown", f"there is no bill: {error!r}")
    assert f"Note: there is no bill: {error!r}" in file.read_text()
