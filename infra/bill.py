"""What each seat used, and what that costs by the prices of the class file.

Nothing meters a class while it runs. What was used is reckoned from what still stands when the bill is made:

- a notebook: what it asks for, from its making until now or until it was stopped, less the times the class was closed;
- a run: what its pods asked for, from their start to their end, as long as the pods are there;
- volumes: their size since they were made; the bucket: each object's bytes for its age.

Not counted, because nothing tells it any more: runs, volumes and objects that were deleted, the time during which a
student had stopped a notebook and started it again, and earlier sizes of what was changed. What was asked for is
counted, whether it was used or not: it was kept from others.
"""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal
from typing import Any, Final

from infra import naming
from infra.fit import held_by
from infra.session import CLOSED, STOPPED
from infra.spec import ClassSpec, Platform, Prices, Student
from infra.values import amount

_GIBIBYTE: Final = Decimal(2**30)
_MONTH_HOURS: Final = Decimal(730)
_CENT: Final = Decimal("0.01")
_NOTHING: Final = Decimal()
# Rounds whatever a student has written as a size: the most that Kubernetes counts, for years.
_WIDE: Final = Context(prec=60)


@dataclass(frozen=True, kw_only=True)
class Line:
    """A resource that a part of a seat used: how much in `unit`, and what one of that unit costs."""

    student: str
    part: str
    resource: str
    quantity: Decimal
    unit: str
    price: Decimal

    @property
    def cost(self) -> Decimal:
        """Unrounded."""
        return self.quantity * self.price


@dataclass(frozen=True, kw_only=True)
class Bill:
    """The lines of a class at a moment."""

    class_name: str
    currency: str
    at: datetime
    lines: tuple[Line, ...]

    def of(self, student: str) -> Decimal:
        """What a student's seat has cost so far, in whole cents."""
        return _cents(sum((line.cost for line in self.lines if line.student == student), _NOTHING))

    @property
    def total(self) -> Decimal:
        """What the class has cost so far, in whole cents."""
        return _cents(sum((line.cost for line in self.lines), _NOTHING))

    def csv(self) -> str:
        """A line for each line, with a header; quantities to six places, costs to four."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["student", "part", "resource", "quantity", "unit", "price", "cost", "currency"])
        for line in self.lines:
            quantity = line.quantity.quantize(Decimal("0.000001"), context=_WIDE)
            cost = line.cost.quantize(Decimal("0.0001"), context=_WIDE)
            row = [line.student, line.part, line.resource, quantity, line.unit, line.price, cost, self.currency]
            writer.writerow(row)
        return text.getvalue()

    def text(self) -> str:
        """What each student's seat has cost, and the sum, in lines for a person."""
        students = list(dict.fromkeys(line.student for line in self.lines))
        wide = max((len(student) for student in [*students, "together"]), default=0)
        lines = [f"  {student:<{wide}}  {self.of(student):>10} {self.currency}" for student in students]
        return "\n".join([*lines, f"  {'together':<{wide}}  {self.total:>10} {self.currency}"])


def bill(spec: ClassSpec, platform: Platform, *, at: datetime | None = None) -> Bill | None:
    """The bill of a class that stands, its buckets included; None when its file names no prices.

    Errors: `infra.cluster.ClusterUnreachable`, `infra.stores.ObjectStoreUnreachable`.
    """
    if spec.prices is None:
        return None
    # The clients take a moment to import.
    from infra import cluster
    from infra.stores import StoreAddress, connect, s3

    selector = naming.selector(spec.name)
    with cluster.api(platform.kubeconfig, platform.context) as api:
        found = Standing(
            namespaces=listed(cluster.get(api, "/api/v1/namespaces", selector)),
            notebooks=listed(cluster.get(api, "/apis/kubeflow.org/v1/notebooks", selector)),
            pods=listed(cluster.get(api, "/api/v1/pods")),
            claims=listed(cluster.get(api, "/api/v1/persistentvolumeclaims")),
        )
    address = StoreAddress.of(platform)
    store = connect(address)
    seats = {student.id: address.holding(spec.name, student.id) for student in spec.students}
    objects = {student: tuple(s3.objects(store.s3(seat), seat.bucket)) for student, seat in seats.items()}
    return reckoned(spec, spec.prices, found, objects, at or datetime.now(UTC))


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What of a class the cluster lists, as its API gives it; of pods and claims also those of others."""

    namespaces: Sequence[Mapping[str, Any]]
    notebooks: Sequence[Mapping[str, Any]]
    pods: Sequence[Mapping[str, Any]]
    claims: Sequence[Mapping[str, Any]]


def listed(answer: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """The items of a list of the API; none where the cluster does not know the kind."""
    return list((answer or {}).get("items", []))


def reckoned(
    spec: ClassSpec,
    prices: Prices,
    found: Standing,
    objects: Mapping[str, Iterable[tuple[int, datetime]]],
    at: datetime,
) -> Bill:
    """The bill at a moment. `objects`: bytes and time of writing of what lies in each student's bucket."""
    lines = [
        line
        for student in spec.students
        for line in _seat(spec, prices, student, found, objects.get(student.id, ()), at)
    ]
    return Bill(class_name=spec.name, currency=prices.currency, at=at, lines=tuple(lines))


def _seat(
    spec: ClassSpec,
    prices: Prices,
    student: Student,
    found: Standing,
    objects: Iterable[tuple[int, datetime]],
    at: datetime,
) -> Iterable[Line]:
    namespace = naming.namespace(spec.name, student.id)
    homes = [each for each in found.namespaces if each["metadata"]["name"] == namespace]
    closed = [span for each in homes for span in closed_spans(each, at)]
    used: dict[tuple[str, str], Decimal] = {}

    def add(part: str, held: Mapping[str, Decimal], hours: Decimal) -> None:
        for resource, count in held.items():
            used[part, resource] = used.get((part, resource), _NOTHING) + count * hours

    for each in _within(found.notebooks, namespace):
        add(f"notebook {each['metadata']['name']}", held_by(_template(each)), _open_hours(each, closed, at))
    for each in _within(found.pods, namespace):
        if "notebook-name" not in (each["metadata"].get("labels") or {}):
            add("runs", held_by(each), _pod_hours(each, at))
    for each in _within(found.claims, namespace):
        size = amount(str(each["spec"]["resources"]["requests"]["storage"]))
        add(f"volume {each['metadata']['name']}", {"storage": size}, _hours(at - _made(each)))
    for size, written in objects:
        add("bucket", {"storage": Decimal(size)}, _hours(max(at - written, timedelta())))

    for (part, resource), quantity in used.items():
        if priced := _priced(prices, resource, quantity):
            amount_used, unit, price = priced
            yield Line(student=student.id, part=part, resource=resource, quantity=amount_used, unit=unit, price=price)


def _template(notebook: Mapping[str, Any]) -> Mapping[str, Any]:
    """The pod that a Notebook asks for. Students make Notebooks too, and the API server takes one without any."""
    given = (notebook.get("spec") or {}).get("template") or {}
    return {"spec": {"containers": [], **(given.get("spec") or {})}}


def _priced(prices: Prices, resource: str, quantity: Decimal) -> tuple[Decimal, str, Decimal] | None:
    """How much of its unit a quantity × hours is, and the unit's price; None for what has none."""
    if resource == "cpu":
        return quantity, "core-hour", prices.cpu_core_hour
    if resource == "memory":
        return quantity / _GIBIBYTE, "GiB-hour", prices.memory_gibibyte_hour
    if resource == "storage":
        return quantity / _GIBIBYTE / _MONTH_HOURS, "GiB-month", prices.storage_gibibyte_month
    if "/" in resource:
        return quantity, "GPU-hour", prices.gpu_hour.get(resource, _NOTHING)
    return None


def closed_spans(namespace: Mapping[str, Any], at: datetime) -> list[tuple[datetime, datetime]]:
    """When a seat was closed, until `at`."""
    written = (namespace["metadata"].get("annotations") or {}).get(CLOSED, "[]")
    return [(moment(begin), moment(end) if end else at) for begin, end in json.loads(written)]


def moment(text: str) -> datetime:
    """A time of the Kubernetes API (RFC 3339)."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def _open_hours(notebook: Mapping[str, Any], closed: Iterable[tuple[datetime, datetime]], at: datetime) -> Decimal:
    stopped = (notebook["metadata"].get("annotations") or {}).get(STOPPED)
    begin, end = _made(notebook), min(moment(stopped), at) if stopped else at
    away = sum((max(min(until, end) - max(since, begin), timedelta()) for since, until in closed), timedelta())
    return _hours(max(end - begin - away, timedelta()))


def _pod_hours(pod: Mapping[str, Any], at: datetime) -> Decimal:
    """From its start to the end of its last container, or until now; one that was never started held nothing."""
    status = pod["status"]
    if "startTime" not in status:
        return _NOTHING
    ends = [each.get("state", {}).get("terminated") for each in status.get("containerStatuses", ())]
    whole = status.get("phase") in ("Succeeded", "Failed")
    told = [moment(each["finishedAt"]) for each in ends if each and each.get("finishedAt")]
    # A pod that failed before any container ran has no end: it held its place for no time that is known.
    end = max(told, default=moment(status["startTime"])) if whole else at
    return _hours(max(end - moment(status["startTime"]), timedelta()))


def _made(item: Mapping[str, Any]) -> datetime:
    return moment(item["metadata"]["creationTimestamp"])


def _within(items: Iterable[Mapping[str, Any]], namespace: str) -> Iterable[Mapping[str, Any]]:
    return (each for each in items if each["metadata"]["namespace"] == namespace)


def _hours(time: timedelta) -> Decimal:
    return Decimal(str(time.total_seconds())) / 3600


def _cents(cost: Decimal) -> Decimal:
    return cost.quantize(_CENT, context=_WIDE)
