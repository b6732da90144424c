"""The bill: what is counted, for how long, at which price; and what is not."""

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from infra.bill import Standing, reckoned
from infra.session import CLOSED, STOPPED
from infra.spec import ClassSpec, Prices, Student

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


def notebook(hours: float, **metadata: Any) -> dict[str, Any]:
    requests = {"cpu": "2", "memory": "8Gi", "nvidia.com/gpu": "1"}
    spec = {"template": {"spec": {"containers": [{"resources": {"requests": requests}}]}}}
    return item("gpu-notebook", hours, metadata=metadata, spec=spec)


def standing(**given: Any) -> Standing:
    home = {"metadata": {"name": "k-ada", "annotations": given.pop("annotations", {})}}
    return Standing(**{"namespaces": [home], "notebooks": [], "pods": [], "claims": [], **given})


def quantities(found: Standing, objects: Any = ()) -> dict[tuple[str, str], Decimal]:
    made = reckoned(SPEC, PRICES, found, {"ada": objects}, NOW)
    return {(line.part, line.resource): line.quantity for line in made.lines if line.student == "ada"}


def test_a_notebook_costs_what_it_asks_for_until_now() -> None:
    made = reckoned(SPEC, PRICES, standing(notebooks=[notebook(10)]), {}, NOW)
    assert made.of("ada") == Decimal(2) * 10 * PRICES.cpu_core_hour + Decimal("0.4") + 12
    assert made.of("ben") == 0
    assert made.total == made.of("ada")


def test_a_notebook_costs_nothing_while_it_is_stopped_or_its_class_closed() -> None:
    stopped = notebook(10, annotations={STOPPED: ago(7)})
    assert quantities(standing(notebooks=[stopped]))["notebook gpu-notebook", "cpu"] == 2 * 3
    spans = {CLOSED: json.dumps([[ago(9), ago(5)], [ago(1), None]])}
    assert quantities(standing(notebooks=[notebook(10)], annotations=spans))["notebook gpu-notebook", "cpu"] == 2 * 5


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


def test_the_csv_has_every_line_and_adds_up_to_the_bill() -> None:
    made = reckoned(SPEC, PRICES, standing(notebooks=[notebook(10)]), {}, NOW)
    rows = list(csv.DictReader(io.StringIO(made.csv())))
    assert {row["unit"] for row in rows} == {"core-hour", "GiB-hour", "GPU-hour"}
    assert {row["currency"] for row in rows} == {"EUR"}
    assert round(sum(Decimal(row["cost"]) for row in rows), 2) == made.total
    assert f"{made.total} EUR" in made.text()
