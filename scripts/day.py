"""What a class day needs besides the class itself: does it fit, who may enter, how it stands, its end, and its bill."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from rich.console import Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

from infra import cluster, fit, naming, session
from infra.bill import listed
from infra.failure import CallFailure, Failure
from infra.local.places import places
from infra.spec import ClassSpec, Platform
from infra.status import ClassStatus, SeatStatus, closed_since

if TYPE_CHECKING:
    from infra.stores import Store
    from labs.runner.lab import Lab


class Closed(CallFailure):
    """A class whose doors are to be tried is closed, or its session is over."""


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


def expect_room(spec: ClassSpec, platform: Platform, student: str) -> None:
    """Refuse a seat that finds no room beside all others of the class. Errors: `fit.DoesNotFit`; as `fitted`."""
    # Whoever joins finds what the others leave.
    ordered = tuple(sorted(spec.students, key=lambda each: each.id == student))
    found = fitted(spec.model_copy(update={"students": ordered}), platform)
    mend = "or run `scripts/classroom up --force`, which makes it all the same"
    if short := [replace(each, mend=f"{each.mend}, {mend}") for each in found.shortages if student in each.seats]:
        raise fit.DoesNotFit(replace(found, shortages=tuple(short)))


def fit_table(found: fit.Fit) -> Group:
    """What is needed and what there is, and below what is missing."""
    table = Table(
        "resource", "a seat's peak", "its quota", f"all {found.seats}", "cluster has left", title="Does it fit"
    )
    short = {each.resource for each in found.shortages if each.of == "quota"}
    for row in found.rows:
        beyond = row.quota is not None and row.resource.removeprefix("requests.").removeprefix("limits.") in short
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
    """A line for each seat. Times of day are told in the time zone of `now`."""
    counted = _counted(found)
    # On a narrow screen words may wrap, but no number is cut.
    student, *used = (Column(title, no_wrap=True) for title in ("seat", *counted.values()))
    spend = [f"spend {found.bill.currency}"] if found.bill else []
    columns = (student, "notebooks", *used, "last activity", "last login", *spend)
    title = f"{sum(map(_is_whole, found.seats))}/{len(found.seats)} seats ready"
    table = Table(*columns, title=title, collapse_padding=True)
    for seat in found.seats:
        times = (_ago(at, now) for at in (seat.last_activity, seat.last_login))
        cost = [str(seat.spend)] if found.bill else []
        table.add_row(seat.student, _servers(seat, now), *(_used(seat, name) for name in counted), *times, *cost)
    lines: list[RenderableType] = [table]
    if found.logins_since is None:
        lines.append(Text("logins are unknown: dex's log could not be read", style="yellow"))
    elif any(seat.last_login is None for seat in found.seats):
        begins = _at(found.logins_since, now, "%Y-%m-%d %H:%M")
        lines.append(Text(f"no login is known from before {begins}, where dex's log begins"))
    if found.bill:
        told = "so far, without what lies in buckets (`classroom bill` counts it)"
        lines.append(Text(f"{found.bill.total} {found.bill.currency} {told}"))
    return Group(*lines)


def _is_whole(seat: SeatStatus) -> bool:
    return seat.stands and bool(seat.notebooks) and all(each.ready for each in seat.notebooks)


def _counted(found: ClassStatus) -> dict[str, str]:
    """The columns of quotas: their titles by the quota's names. Those of storage and GPUs are there where a seat has
    some."""
    held = {name for seat in found.seats for name, (_, most) in seat.quota.items() if most}
    disk = {"requests.storage": "disk"} if "requests.storage" in held else {}
    gpus = {name: name.rpartition("/")[2] for name in sorted(held) if "/" in name and name.startswith("requests.")}
    return {"requests.cpu": "cpu", "limits.memory": "memory", **gpus, "pods": "pods", **disk}


def _servers(seat: SeatStatus, now: datetime) -> str:
    if not seat.stands:
        return "[red]no seat[/]"
    ready = f"{sum(each.ready for each in seat.notebooks)}/{len(seat.notebooks)}"
    if seat.closed:
        return f"{ready} [yellow]closed {_at(seat.closed, now, '%m-%d %H:%M')}[/]"
    stopped = [each.name for each in seat.notebooks if each.stopped]
    waiting = [each.name for each in seat.notebooks if not each.ready and not each.stopped]
    why = [f"[yellow]{name} stopped[/]" for name in stopped] + [f"[red]{name} not ready[/]" for name in waiting]
    return " ".join([ready, *why])


def _used(seat: SeatStatus, name: str) -> str:
    if name not in seat.quota:
        return ""
    used, most = seat.quota[name]
    return f"{fit.shown(name, used)}/{fit.shown(name, most)}"


def _at(moment: datetime, now: datetime, shape: str) -> str:
    return f"{moment.astimezone(now.tzinfo):{shape} %Z}"


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
    if any(closed_since(home, now) for home in homes):
        raise Closed(f"class {spec.name} is closed; run `scripts/classroom open` with its file first")


@contextmanager
def within_session(spec: ClassSpec, platform: Platform) -> Iterator[None]:
    """Refuse a class whose session is over, and close one whose session ends meanwhile: the cluster makes up for no end
    from before it was told of it.

    Errors: `Closed`, before anything is done or once all is; as `close`.
    """
    if over := _over(spec):
        raise Closed(f"{over}, and the cluster would never close it; write a later end, or take `session` out")
    failed = ""
    try:
        yield
    except Failure as failure:
        if not _over(spec):
            raise
        failed = f"{failure}\n"
    if over := _over(spec):
        close(spec, platform)
        mend = "write a later end, then run `scripts/classroom open` and this again"
        raise Closed(f"{failed}{over}: it ended meanwhile, so the class was closed; {mend}")


def _over(spec: ClassSpec) -> str:
    """That the session is over, in words; empty while it is not, or where the class has none."""
    if spec.session is None or spec.session.ends_at > datetime.now(UTC):
        return ""
    zone = spec.session.time_zone
    end = spec.session.ends_at.astimezone(ZoneInfo(zone))
    return f"session.end: the session of class {spec.name} is over since {end:%Y-%m-%d %H:%M} ({zone})"


def stopped(spec: ClassSpec, platform: Platform) -> Mapping[str, frozenset[str]]:
    """The notebooks that were stopped on purpose, by namespace. Errors: `ClusterUnreachable`."""
    with cluster.api(platform.kubeconfig, platform.context) as api:
        servers = listed(cluster.get(api, "/apis/kubeflow.org/v1/notebooks", naming.selector(spec.name)))
    found: dict[str, frozenset[str]] = {}
    for each in filter(session.is_stopped_on_purpose, servers):
        namespace, name = each["metadata"]["namespace"], each["metadata"]["name"]
        found[namespace] = found.get(namespace, frozenset()) | {name}
    return found


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
    with _asking(platform) as ask:
        if not session.call_off(ask, spec.name, platform.kubeflow_namespace):
            raise DoorsLeft(f"the end of its session still closes class {spec.name}; run it again")
    _doors(spec, platform, session.reopen, "open")


@contextmanager
def _asking(platform: Platform) -> Iterator[session.Ask]:
    with cluster.api(platform.kubeconfig, platform.context) as api:
        yield lambda method, path, body: cluster.change(api, method, path, body)


def _doors(spec: ClassSpec, platform: Platform, act: Callable[..., list[str]], verb: str) -> "Store":
    # Boto3 takes a moment to import.
    from infra import stores

    store = stores.connect(stores.StoreAddress.of(platform))

    def switch(class_name: str, student: str, active: bool) -> None:
        store.switch_keys(stores.Holding.of(class_name, student), active=active)

    keys = None if store.leaves else switch
    with _asking(platform) as ask:
        wrong = act(ask, keys, spec.name, platform.dex_namespace, datetime.now(UTC))
    if wrong:
        raise DoorsLeft("\n".join([f"not every door of class {spec.name} did {verb}", *wrong, "run it again"]))
    return store
