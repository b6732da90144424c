"""What a class day needs besides the class itself: does it fit, who may enter, how it stands, its end, and its bill."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from infra import cluster, fit, naming, session
from infra.bill import closed_spans, listed
from infra.failure import CallFailure, Failure
from infra.local.places import places
from infra.spec import ClassSpec, Platform
from infra.status import ClassStatus, SeatStatus

if TYPE_CHECKING:
    from infra.stores import Store
    from labs.runner.lab import Lab


class Closed(CallFailure):
    """A class whose doors are to be tried is closed."""


class DoorsLeft(Failure):
    """Some doors of a class could not be closed, or opened."""


def fitted(spec: ClassSpec, platform: Platform) -> fit.Fit:
    """Whether the class and its labs' runs fit their quotas and the cluster. Nothing is made.

    Errors: `labs.LabError` for a lab that cannot be used; `infra.cluster.ClusterUnreachable`.
    """
    # kfp's SDK and the labs take a second to import.
    from labs.runner import requests
    from labs.runner.lab import load
    from labs.runner.seats import fitting

    lessons = [fitting(spec, load(name)) for name in spec.labs]
    room, executor, sidecar = fit.look(spec, platform)

    def read(lesson: "Lab") -> tuple[list[fit.Task], list[str]]:
        try:
            found = requests.pipelines(lesson, places().cache / "lab-pipelines")
        except requests.Uncompiled as error:
            return [], [str(error)]
        runs = [requests.run(each, executor) for each in found]
        return [run for run, _ in runs], [f"{run.name}: {what}" for run, unknown in runs for what in unknown]

    with ThreadPoolExecutor() as pool:
        answers = list(pool.map(read, lessons))
    runs = [run for found, _ in answers for run in found]
    return fit.judged(spec, runs, room, [note for _, notes in answers for note in notes], sidecar)


def fit_table(found: fit.Fit) -> Group:
    """What is needed and what there is, and below what is missing."""
    table = Table(
        "resource", "a seat's peak", "its quota", f"all {found.seats}", "cluster has left", title="Does it fit"
    )
    for row in found.rows:
        beyond = row.quota is not None and row.peak > row.quota
        cells = (row.peak, row.quota, row.all_seats, row.cluster)
        told = ["" if each is None else fit.shown(row.resource, each) for each in cells]
        table.add_row(row.resource, *(f"[red]{each}[/]" if beyond and i == 1 else each for i, each in enumerate(told)))
    lines = [Text(f"✗ {each.text(found.seats)}", style="red") for each in found.shortages]
    lines += [Text(f"? {note}", style="yellow") for note in found.notes]
    if not found.shortages:
        at_once = found.runs_at_once
        if at_once is None or at_once == found.seats:
            lines.append(Text("✓ it fits: all notebooks and, in every seat at once, the widest run"))
        else:
            lines.append(
                Text(
                    f"✓ it fits; {at_once} of {found.seats} seats can have their widest run at once, others' pods wait"
                )
            )
    return Group(table, *lines)


def status_table(found: ClassStatus, now: datetime) -> Group:
    """A line for each seat."""
    columns = ("seat", "notebooks", "cpu", "memory", "pods", "last activity", "last login", "spend")
    table = Table(*columns, title=f"{sum(map(_is_whole, found.seats))}/{len(found.seats)} seats ready")
    for seat in found.seats:
        used = (_used(seat, name) for name in ("requests.cpu", "limits.memory", "pods"))
        spend = "" if seat.spend is None or found.bill is None else f"{seat.spend} {found.bill.currency}"
        table.add_row(
            seat.student,
            _servers(seat),
            *used,
            _ago(seat.last_activity, now),
            _ago(seat.last_login, now),
            spend,
        )
    lines: list[RenderableType] = [table]
    if found.logins_since is None:
        lines.append(Text("logins are unknown: dex's log could not be read", style="yellow"))
    elif any(seat.last_login is None for seat in found.seats):
        lines.append(
            Text(f"no login is known from before {found.logins_since:%Y-%m-%d %H:%M} UTC, where dex's log begins")
        )
    if found.bill:
        told = "so far, without what lies in buckets (`classroom bill` counts it)"
        lines.append(Text(f"{found.bill.total} {found.bill.currency} {told}"))
    return Group(*lines)


def _is_whole(seat: SeatStatus) -> bool:
    return seat.stands and bool(seat.notebooks) and all(each.ready for each in seat.notebooks)


def _servers(seat: SeatStatus) -> str:
    if not seat.stands:
        return "[red]no seat[/]"
    ready = f"{sum(each.ready for each in seat.notebooks)}/{len(seat.notebooks)}"
    if seat.closed:
        return f"{ready} [yellow]closed {seat.closed:%m-%d %H:%M}[/]"
    stopped = [each.name for each in seat.notebooks if each.stopped]
    waiting = [each.name for each in seat.notebooks if not each.ready and not each.stopped]
    why = [f"[yellow]{name} stopped[/]" for name in stopped] + [f"[red]{name} not ready[/]" for name in waiting]
    return " ".join([ready, *why])


def _used(seat: SeatStatus, name: str) -> str:
    if name not in seat.quota:
        return ""
    used, most = seat.quota[name]
    return f"{fit.shown(name, used)}/{fit.shown(name, most)}"


def _ago(at: datetime | None, now: datetime) -> str:
    if at is None:
        return "unknown"
    seconds = max(int((now - at).total_seconds()), 0)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return "just now"


def expect_open(spec: ClassSpec, platform: Platform) -> None:
    """Refuse a class that is closed: nobody could try its doors. Errors: `Closed`; `ClusterUnreachable`."""
    now = datetime.now(UTC)
    with cluster.api(platform.kubeconfig, platform.context) as api:
        homes = listed(cluster.get(api, "/api/v1/namespaces", naming.selector(spec.name)))
    if any(end == now for home in homes for _, end in closed_spans(home, now)):
        raise Closed(f"class {spec.name} is closed; run `scripts/classroom open` with its file first")


def close(spec: ClassSpec, platform: Platform) -> None:
    """Close every door of the class now; its data stay. Errors: `DoorsLeft`, `infra.cluster.ClusterUnreachable`,
    `infra.stores.ObjectStoreUnreachable`."""
    store = _doors(spec, platform, session.close, "close")
    if store.leaves:
        raise DoorsLeft(
            f"class {spec.name} is closed, but the students' keys still open their buckets: they were given; "
            "have whoever gave them take them back"
        )


def reopen(spec: ClassSpec, platform: Platform) -> None:
    """Open every door that `close`, or the session's end, has closed. Errors: as `close`."""
    _doors(spec, platform, session.reopen, "open")


def _doors(spec: ClassSpec, platform: Platform, act: Callable[..., list[str]], verb: str) -> "Store":
    # Boto3 takes a moment to import.
    from infra import stores

    store = stores.connect(stores.StoreAddress.of(platform))

    def switch(class_name: str, student: str, active: bool) -> None:
        store.switch_keys(stores.Holding.of(class_name, student), active=active)

    with cluster.api(platform.kubeconfig, platform.context) as api:

        def ask(method: str, path: str, body: Any) -> Any:
            return cluster.change(api, method, path, body)

        keys = None if store.leaves else switch
        wrong = act(ask, keys, spec.name, platform.dex_namespace, datetime.now(UTC))
    if wrong:
        raise DoorsLeft("\n".join([f"not every door of class {spec.name} did {verb}", *wrong, "run it again"]))
    return store
