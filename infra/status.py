"""A class at a glance: each seat's notebooks, quota, last activity, last login, and what it has cost so far.

No Pulumi: labels and the Kubernetes API tell all of it, in a few questions at once however many seats there are. What
cannot be known is None, never guessed: a notebook that does not answer has no last activity, and who logged in before
dex's log begins has no last login.
"""

import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from infra import cluster, naming
from infra.bill import Bill, Standing, closed_spans, listed, moment, reckoned
from infra.cluster import ClusterUnreachable
from infra.session import STOPPED
from infra.spec import ClassSpec, Platform
from infra.values import amount

_ASKED_AT_ONCE: Final = 24
# A server that takes longer is busy; the others' answers are not kept waiting for it.
_SERVER_ANSWERS_WITHIN: Final = (0.5, 0.8)
# All servers together: of many that are silent, the last ones are not even asked.
_SERVERS_ANSWER_WITHIN_SECONDS: Final = 1.2
_LOG_LINES: Final = 20_000
_LOGIN: Final = "login successful"
# dex writes its log as JSON or as key=value, as it is configured.
_PAIR: Final = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*"|\S+)')
_COUNTED: Final = ("requests.cpu", "limits.memory", "pods", "requests.storage")


@dataclass(frozen=True, kw_only=True)
class NotebookStatus:
    """A notebook server: `stopped`, or ready or not; when somebody last did something in it (None: it did not say)."""

    name: str
    ready: bool
    stopped: bool
    last_activity: datetime | None


@dataclass(frozen=True, kw_only=True)
class SeatStatus:
    """A seat. `quota`: used and most, by the names of a ResourceQuota; `spend` is without the bucket, None without
    prices; `closed`: since when the class is closed."""

    student: str
    name: str
    stands: bool
    closed: datetime | None
    notebooks: tuple[NotebookStatus, ...]
    quota: Mapping[str, tuple[Decimal, Decimal]]
    last_login: datetime | None
    spend: Decimal | None

    @property
    def last_activity(self) -> datetime | None:
        """The latest of its notebooks'."""
        return max((each.last_activity for each in self.notebooks if each.last_activity), default=None)


@dataclass(frozen=True, kw_only=True)
class ClassStatus:
    """All seats. `logins_since`: when dex's log begins, before which no login is known; None: it was not read."""

    seats: tuple[SeatStatus, ...]
    logins_since: datetime | None
    bill: Bill | None


def status(spec: ClassSpec, platform: Platform, *, at: datetime | None = None) -> ClassStatus:
    """How the class is now, as far as it answers at once. Errors: `ClusterUnreachable`."""
    now, selector = at or datetime.now(UTC), naming.selector(spec.name)
    with cluster.api(platform.kubeconfig, platform.context) as api, ThreadPoolExecutor(_ASKED_AT_ONCE) as pool:

        def ask(path: str, selector: str = "") -> Any:
            return pool.submit(lambda: listed(cluster.get(api, path, selector)))

        namespaces = ask("/api/v1/namespaces", selector)
        notebooks = ask("/apis/kubeflow.org/v1/notebooks", selector)
        pods, claims = ask("/api/v1/pods"), ask("/api/v1/persistentvolumeclaims")
        quotas = ask("/api/v1/resourcequotas")
        logged = pool.submit(_logins, api, platform.dex_namespace)
        servers = [each for each in notebooks.result() if _is_ready(each)]
        until = time.monotonic() + _SERVERS_ANSWER_WITHIN_SECONDS
        told = pool.map(lambda each: _last_activity(api, each, until), servers)
        active = dict(zip(map(_key, servers), told, strict=True))
        logins, since = logged.result()
        found = Standing(
            namespaces=namespaces.result(), notebooks=notebooks.result(), pods=pods.result(), claims=claims.result()
        )
        bounds = quotas.result()
    bill = reckoned(spec, spec.prices, found, {}, now) if spec.prices else None
    return ClassStatus(
        seats=tuple(_seats(spec, found, bounds, active, logins, bill, now)), logins_since=since, bill=bill
    )


def _seats(
    spec: ClassSpec,
    found: Standing,
    quotas: Sequence[Mapping[str, Any]],
    active: Mapping[tuple[str, str], datetime | None],
    logins: Mapping[str, datetime],
    bill: Bill | None,
    now: datetime,
) -> Iterable[SeatStatus]:
    homes = {each["metadata"]["name"]: each for each in found.namespaces}
    for student in spec.students:
        namespace = naming.namespace(spec.name, student.id)
        home = homes.get(namespace)
        servers = [each for each in found.notebooks if each["metadata"]["namespace"] == namespace]
        yield SeatStatus(
            student=student.id,
            name=student.name,
            stands=home is not None,
            closed=closed_since(home, now) if home else None,
            notebooks=tuple(
                NotebookStatus(
                    name=each["metadata"]["name"],
                    ready=_is_ready(each),
                    stopped=STOPPED in (each["metadata"].get("annotations") or {}),
                    last_activity=active.get(_key(each)),
                )
                for each in servers
            ),
            quota=_used([each for each in quotas if each["metadata"]["namespace"] == namespace]),
            last_login=logins.get(student.email),
            spend=bill.of(student.id) if bill else None,
        )


def closed_since(home: Mapping[str, Any], now: datetime) -> datetime | None:
    """Since when a seat, by its namespace, is closed; None when it is open."""
    return next((begin for begin, end in closed_spans(home, now) if end == now), None)


def _used(quotas: Iterable[Mapping[str, Any]]) -> dict[str, tuple[Decimal, Decimal]]:
    """What is used of a seat's quota; where two bound the same, the tighter one."""
    found: dict[str, tuple[Decimal, Decimal]] = {}
    for each in quotas:
        held, used = each.get("status", {}).get("hard", {}), each.get("status", {}).get("used", {})
        for name, most in held.items():
            if name in _COUNTED or "/" in name:
                now = (amount(str(used.get(name, "0"))), amount(str(most)))
                found[name] = min(found.get(name, now), now, key=lambda pair: pair[1])
    return found


def _is_ready(notebook: Mapping[str, Any]) -> bool:
    return notebook.get("status", {}).get("readyReplicas", 0) > 0


def _key(item: Mapping[str, Any]) -> tuple[str, str]:
    return item["metadata"]["namespace"], item["metadata"]["name"]


def _last_activity(api: Any, notebook: Mapping[str, Any], until: float) -> datetime | None:
    """As the notebook controller noted it (on the one-machine platform every five minutes), else as the server tells.

    Source: Jupyter Server's GET /api/status; asked through the API server's proxy, so that no login is needed.
    """
    noted = (notebook["metadata"].get("annotations") or {}).get("notebooks.kubeflow.org/last-activity")
    if noted:
        return moment(noted)
    left = until - time.monotonic()
    if left <= 0:
        return None
    namespace, name = _key(notebook)
    path = f"/api/v1/namespaces/{namespace}/services/{name}:80/proxy/notebook/{namespace}/{name}/api/status"
    try:
        connect, read = (min(each, left) for each in _SERVER_ANSWERS_WITHIN)
        told = cluster.get(api, path, timeout=(connect, read)) or {}
        return moment(str(told["last_activity"]))
    except (ClusterUnreachable, KeyError, ValueError):
        return None


def _logins(api: Any, namespace: str) -> tuple[dict[str, datetime], datetime | None]:
    """When each e-mail last logged in, and since when that is known; (nothing, None) without dex's log."""
    try:
        pods = listed(cluster.get(api, f"/api/v1/namespaces/{namespace}/pods", "app=dex"))
        texts = [cluster.log(api, namespace, each["metadata"]["name"], _LOG_LINES) for each in pods]
    except ClusterUnreachable:
        return {}, None
    return read_logins(texts)


def read_logins(logs: Iterable[str]) -> tuple[dict[str, datetime], datetime | None]:
    """The last login by e-mail, and when the logs of dex begin. Each line has its time before it."""
    last: dict[str, datetime] = {}
    since: datetime | None = None
    for text in logs:
        for line in text.splitlines():
            stamp, _, said = line.partition(" ")
            try:
                at = moment(stamp)
            except ValueError:
                continue
            since = min(since or at, at)
            if _LOGIN in said and (email := _field(said, "email").lower()):
                last[email] = max(last.get(email, at), at)
    return last, since


def _field(said: str, name: str) -> str:
    """A field of a line of dex's log, written as JSON or as key=value."""
    try:
        if isinstance(read := json.loads(said), dict):
            return str(read.get(name, ""))
    except ValueError:
        pass
    return next((value.strip('"') for key, value in _PAIR.findall(said) if key == name), "")
