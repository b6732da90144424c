"""Does a class fit: what a seat needs at its peak, what its quota gives, and what the cluster has left for all seats.

Pure but for `look`: runs come as `Task`s (labs/runner/requests.py reads them from compiled pipelines), nodes and pods
as the Kubernetes API gives them. The peak of a seat is all its notebooks and the widest moment of one run; which run
that is may differ from resource to resource.
"""

import json
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, Final, Literal

import yaml

from infra import naming
from infra.failure import Failure
from infra.spec import ClassSpec, NotebookSpec, Platform, Quota
from infra.values import amount, gibibytes

Amounts = Mapping[str, Decimal]
"""Cores, bytes or a count by the name of a resource: cpu, memory, nvidia.com/gpu."""

# The names that a ResourceQuota has, as the fields of the class file's `quota`.
_FIELDS: Final = {
    "requests.cpu": "cpu",
    "limits.memory": "memory",
    "pods": "pods",
    "persistentvolumeclaims": "volumes",
    "requests.storage": "storage",
}
_NOTHING: Final = Decimal()

_INJECTOR: Final = "/api/v1/namespaces/istio-system/configmaps/istio-sidecar-injector"
_SIDECAR: Final = {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"cpu": "2", "memory": "1Gi"}}


@dataclass(frozen=True, kw_only=True)
class Container:
    """What a container asks for and is bounded by, as it is written."""

    requests: Amounts = field(default_factory=dict[str, Decimal])
    limits: Amounts = field(default_factory=dict[str, Decimal])

    def admitted(self, quota: Quota) -> "Container":
        """As the API server admits it: a limit stands for a request that is not given, the LimitRange for the rest.

        Source: SetDefaults_Pod (pkg/apis/core/v1/defaults.go), then the admission plugin LimitRanger.
        """
        defaults = {"cpu": amount(quota.container_cpu), "memory": amount(quota.container_memory)}
        return Container(
            requests={**defaults, **self.limits, **self.requests},
            limits={"memory": amount(quota.container_memory_limit), **self.limits},
        )


@dataclass(frozen=True, kw_only=True)
class Pod:
    """A pod of a seat. `init` containers run before the others, one after the other."""

    name: str
    containers: tuple[Container, ...]
    init: tuple[Container, ...] = ()
    notebook: NotebookSpec | None = None
    """The notebook whose server it is, which says on which nodes it may run."""

    def needs(self, quota: Quota) -> Amounts:
        """What it counts with, by `requests.<resource>` and `limits.<resource>`: the larger of its containers together
        and any one init container (pkg/api/v1/resource/helpers.go, PodRequests and PodLimits)."""
        held = [each.admitted(quota) for each in self.containers]
        before = [each.admitted(quota) for each in self.init]
        needed: dict[str, Decimal] = {"pods": Decimal(1)}
        for kind in ("requests", "limits"):
            together, alone = [getattr(each, kind) for each in held], [getattr(each, kind) for each in before]
            for name in sorted({name for each in (*together, *alone) for name in each}):
                needed[f"{kind}.{name}"] = max(
                    sum((each.get(name, _NOTHING) for each in together), _NOTHING),
                    max((each.get(name, _NOTHING) for each in alone), default=_NOTHING),
                )
        return needed

    def refused(self, quota: Quota) -> str:
        """Why the API server would not take it: a request above the limit that the seat's LimitRange gives."""
        for container in (*self.containers, *self.init):
            made = container.admitted(quota)
            for name, limit in made.limits.items():
                if (asked := made.requests.get(name, _NOTHING)) > limit:
                    return f"{self.name} asks for {shown(name, asked)} {name}, but its limit is {shown(name, limit)}"
        return ""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A part of a run: pods one after the other, then, where it is a graph, `copies` of the tasks within.

    `after`: the names of the tasks of the same graph that end before it begins. Of `exclusive` tasks only one goes on
    once its first pods have decided which. `volumes`: bytes of the claims that it makes.
    """

    name: str
    after: frozenset[str] = frozenset()
    pods: tuple[Pod, ...] = ()
    within: tuple["Task", ...] = ()
    copies: int = 1
    exclusive: bool = False
    volumes: tuple[Decimal, ...] = ()

    def every_pod(self) -> Iterable[Pod]:
        """Its pods and those of all tasks within, each once however many copies there are."""
        yield from self.pods
        for task in self.within:
            yield from task.every_pod()

    def every_volume(self) -> Iterable[Decimal]:
        """The claims that it and the tasks within make."""
        yield from self.volumes
        for task in self.within:
            yield from (size for size in task.every_volume() for _ in range(self.copies))


def widest(task: Task, weight: Callable[[Pod], Decimal]) -> Decimal:
    """The most that the pods of a task weigh together at any moment."""
    alone = max((weight(pod) for pod in task.pods), default=_NOTHING)
    if task.exclusive:
        deciding = {each.name: max((weight(pod) for pod in each.pods), default=_NOTHING) for each in task.within}
        together = sum(deciding.values(), _NOTHING)
        inside = max((together - deciding[each.name] + widest(each, weight) for each in task.within), default=_NOTHING)
    else:
        inside = _heaviest_antichain({each.name: widest(each, weight) for each in task.within}, task.within)
    return max(alone, task.copies * inside)


def _heaviest_antichain(weights: Mapping[str, Decimal], tasks: Sequence[Task]) -> Decimal:
    """The heaviest set of tasks of which none has to wait for another: what may run at the same moment.

    Dilworth's theorem with weights: it is what all weigh, less the largest flow from tasks to tasks after them.
    """
    before = {task.name: task.after & weights.keys() for task in tasks}
    earlier: dict[str, set[str]] = {}

    def all_before(name: str) -> set[str]:
        if name not in earlier:
            earlier[name] = set(before[name]).union(*(all_before(each) for each in before[name]))
        return earlier[name]

    # Nodes: (0, name) gives what a task weighs, (1, name) takes it.
    left: dict[tuple[int, str], dict[tuple[int, str], Decimal]] = {}
    source, sink = (2, ""), (3, "")
    total = sum(weights.values(), _NOTHING)
    for name, weight in weights.items():
        for start, end, capacity in (
            (source, (0, name), weight),
            ((1, name), sink, weight),
            *(((0, each), (1, name), total) for each in all_before(name)),
        ):
            left.setdefault(start, {})[end] = capacity
            left.setdefault(end, {}).setdefault(start, _NOTHING)
    flow = _NOTHING
    while path := _path(left, source, sink):
        pushed = min(left[start][end] for start, end in path)
        for start, end in path:
            left[start][end] -= pushed
            left[end][start] += pushed
        flow += pushed
    return total - flow


_Spot = tuple[int, str]


def _path(left: Mapping[_Spot, Mapping[_Spot, Decimal]], source: _Spot, sink: _Spot) -> list[tuple[_Spot, _Spot]]:
    """The edges of a shortest path with capacity left (Edmonds and Karp); empty when there is none."""
    came: dict[_Spot, _Spot] = {}
    waiting = deque([source] if source in left else [])
    while waiting:
        spot = waiting.popleft()
        for end, capacity in left[spot].items():
            if capacity > 0 and end not in came and end != source:
                came[end] = spot
                waiting.append(end)
    edges: list[tuple[_Spot, _Spot]] = []
    while sink in came and (not edges or edges[-1][0] != source):
        end = edges[-1][0] if edges else sink
        edges.append((came[end], end))
    return edges


@dataclass(frozen=True, kw_only=True)
class Peak:
    """What a seat needs of a resource at its peak: for its notebooks, and for the widest moment of `run`."""

    notebooks: Decimal
    run: Decimal
    of: str

    @property
    def total(self) -> Decimal:
        """All together."""
        return self.notebooks + self.run


def peaks(spec: ClassSpec, runs: Sequence[Task], sidecar: Container | None = None) -> dict[str, Peak]:
    """A seat's peak, by the names of a ResourceQuota; `spec` is the class as one student has it."""
    notebooks = [notebook_pod(each, sidecar).needs(spec.quota) for each in spec.notebooks]
    pods = [pod for run in runs for pod in run.every_pod()]
    weights = {id(pod): pod.needs(spec.quota) for pod in pods}
    names = {name for each in (*notebooks, *weights.values()) for name in each}
    found: dict[str, Peak] = {}
    for name in names:

        def weight(pod: Pod, name: str = name) -> Decimal:
            return weights[id(pod)].get(name, _NOTHING)

        wide = [(widest(run, weight), run.name) for run in runs]
        run, of = max(wide, default=(_NOTHING, ""))
        held = sum((each.get(name, _NOTHING) for each in notebooks), _NOTHING)
        found[name] = Peak(notebooks=held, run=run, of=of if run else "")
    claims = [amount(each.workspace) for each in spec.notebooks]
    made = max(
        ((sum(sizes, _NOTHING), len(sizes), run.name) for run in runs if (sizes := [*run.every_volume()])),
        default=(_NOTHING, 0, ""),
    )
    found["persistentvolumeclaims"] = Peak(notebooks=Decimal(len(claims)), run=Decimal(made[1]), of=made[2])
    found["requests.storage"] = Peak(notebooks=sum(claims, _NOTHING), run=made[0], of=made[2])
    return found


def notebook_pod(notebook: NotebookSpec, sidecar: Container | None) -> Pod:
    """The pod that the notebook controller makes, with the sidecar that Istio puts into it."""
    gpu = {notebook.gpu.resource: Decimal(notebook.gpu.count)} if notebook.gpu else {}
    container = Container(
        requests={"cpu": amount(notebook.cpu), "memory": amount(notebook.memory)},
        limits={"cpu": amount(notebook.most_cpu), "memory": amount(notebook.most_memory), **gpu},
    )
    containers = (container, sidecar) if sidecar else (container,)
    return Pod(name=notebook.name, containers=containers, notebook=notebook)


@dataclass(frozen=True, kw_only=True)
class Node:
    """A node that takes pods: what is left on it, and whom it takes."""

    name: str
    free: Amounts
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    taints: tuple[Mapping[str, str], ...] = ()

    def takes(self, notebook: NotebookSpec | None) -> bool:
        """Whether labels and taints let a notebook's pod, or one of a run, in."""
        selector = notebook.node_selector if notebook else {}
        tolerations = notebook.tolerations if notebook else ()
        return selector.items() <= self.labels.items() and all(
            taint.get("effect") == "PreferNoSchedule"
            or any(
                each.key in (None, taint["key"])
                and each.effect in (None, taint.get("effect"))
                and (each.operator == "Exists" or (each.value or "") == taint.get("value", ""))
                for each in tolerations
            )
            for taint in self.taints
        )

    def holds(self, needs: Amounts) -> bool:
        """Whether there is room."""
        return all(self.free.get(name, _NOTHING) >= count for name, count in needs.items() if count)

    def less(self, needs: Amounts) -> "Node":
        """With that much less room."""
        return replace(self, free={name: count - needs.get(name, _NOTHING) for name, count in self.free.items()})


def nodes(items: Iterable[Mapping[str, Any]], pods: Iterable[Mapping[str, Any]], but: frozenset[str]) -> list[Node]:
    """The nodes that take pods, with what the pods on them leave free; those in the namespaces `but` are not counted.

    `items` and `pods` are what the API lists as nodes and as pods.
    """
    found: dict[str, Node] = {}
    for item in items:
        ready = any(
            each["type"] == "Ready" and each["status"] == "True" for each in item["status"].get("conditions", ())
        )
        if ready and not item["spec"].get("unschedulable"):
            name = item["metadata"]["name"]
            found[name] = Node(
                name=name,
                free={key: amount(str(value)) for key, value in item["status"]["allocatable"].items()},
                labels=item["metadata"].get("labels") or {},
                taints=tuple(item["spec"].get("taints") or ()),
            )
    for pod in pods:
        node = found.get(pod["spec"].get("nodeName", ""))
        ended = pod["status"].get("phase") in ("Succeeded", "Failed")
        if node and not ended and pod["metadata"]["namespace"] not in but:
            found[node.name] = node.less(held_by(pod))
    return list(found.values())


def held_by(pod: Mapping[str, Any]) -> dict[str, Decimal]:
    """What a pod of the API holds of its node; a sidecar (an init container that goes on) counts with the others."""
    spec = pod["spec"]
    sidecars = [each for each in spec.get("initContainers") or () if each.get("restartPolicy") == "Always"]
    first = [each for each in spec.get("initContainers") or () if each.get("restartPolicy") != "Always"]
    asked = [_requests(each) for each in (*spec["containers"], *sidecars)]
    before = [_requests(each) for each in first]
    overhead = {name: amount(str(value)) for name, value in (spec.get("overhead") or {}).items()}
    return {"pods": Decimal(1)} | {
        name: overhead.get(name, _NOTHING)
        + max(
            sum((each.get(name, _NOTHING) for each in asked), _NOTHING),
            max((each.get(name, _NOTHING) for each in before), default=_NOTHING),
        )
        for name in {name for each in (*asked, *before, overhead) for name in each}
    }


def _requests(container: Mapping[str, Any]) -> dict[str, Decimal]:
    """What a container asks for: of what it names no request for, its limit, which in a pod's template nobody has made
    one yet (SetDefaults_Pod)."""
    sizes = container.get("resources") or {}
    asked = {**(sizes.get("limits") or {}), **(sizes.get("requests") or {})}
    return {name: _size(str(value)) for name, value in asked.items()}


def _size(written: str) -> Decimal:
    """A size that a container asks for. A Notebook may have any text, of which no pod comes: that holds nothing."""
    try:
        return amount(written)
    except ValueError:
        return _NOTHING


@dataclass(frozen=True, kw_only=True)
class Shortage:
    """What keeps seats from working: which resource of what is how much too little, or what is refused (`why`)."""

    of: Literal["quota", "cluster", "limits"]
    resource: str
    seats: tuple[str, ...]
    missing: Decimal = _NOTHING
    why: str
    mend: str

    def text(self, all_seats: int) -> str:
        """For a person: for whom, what is missing, and what mends it."""
        names = ", ".join(self.seats[:8]) + (" …" if len(self.seats) > 8 else "")
        whom = f"all {all_seats} seats" if len(self.seats) == all_seats > 1 else names
        missing = f": {shown(self.resource, self.missing)} missing" if self.missing else ""
        return f"{whom}: {self.why}{missing}; {self.mend}"


@dataclass(frozen=True, kw_only=True)
class Row:
    """A resource: the peak and the quota of the seat that has least to spare, what all seats need, and what the cluster
    has left for them.

    None: there is no bound, or nobody tells it.
    """

    resource: str
    peak: Decimal
    quota: Decimal | None
    all_seats: Decimal
    cluster: Decimal | None


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Whether a class fits: it does when nothing is short. `runs_at_once`: how many seats may have a run at its widest
    at the same time; None when the cluster was not asked."""

    seats: int
    rows: tuple[Row, ...]
    shortages: tuple[Shortage, ...]
    runs_at_once: int | None
    notes: tuple[str, ...] = ()


class DoesNotFit(Failure):
    """The class needs more than there is; nothing was made."""

    def __init__(self, fit: Fit) -> None:
        lines = [f"  {each.text(fit.seats)}" for each in fit.shortages]
        super().__init__("\n".join(["the class does not fit, so nothing was made", *lines]))


def judged(
    spec: ClassSpec,
    runs: Sequence[Task],
    room: Sequence[Node] | None,
    notes: Iterable[str] = (),
    sidecar: Container | None = None,
) -> Fit:
    """Hold a class and the runs of its labs against its quotas and against the nodes; None: those are not known.

    `sidecar` is what each notebook has beside it; pods of a run have none, as KFP tells Istio.
    """
    short: dict[tuple[str, str, str], Shortage] = {}

    def add(found: Shortage) -> None:
        key = (found.of, found.resource, found.why)
        seats = (*short[key].seats, *found.seats) if key in short else found.seats
        short[key] = replace(found, seats=seats)

    seats = {student.id: spec.of(student) for student in spec.students}
    # Seats without an override are alike.
    kinds = {id(each): (each, peaks(each, runs, sidecar)) for each in seats.values()}
    for student, each in seats.items():
        _, need = kinds[id(each)]
        for found in (*_short_of_quota(each, need), *_refused(each, runs)):
            add(replace(found, seats=(student,)))
    at_once = None
    if room is not None:
        # Nodes that let in neither a notebook nor a run are no room for this class.
        guests = [None, *(notebook for each in seats.values() for notebook in each.notebooks)]
        room = [node for node in room if any(node.takes(guest) for guest in guests)]
        pods = _pickiest_first(seats, room, sidecar)
        settled = _settled(pods, room)
        for found in _short_of_notebooks(pods, room) or _short_of_runs(seats, runs, settled):
            add(found)
        at_once = _runs_at_once([kinds[id(each)][1] for each in seats.values()], settled)
    needs = [kinds[id(each)][1] for each in seats.values()]
    return Fit(
        seats=len(seats),
        rows=tuple(_rows(list(seats.values()), needs, room)),
        shortages=tuple(short.values()),
        runs_at_once=at_once,
        notes=tuple(notes),
    )


def _short_of_quota(spec: ClassSpec, need: Mapping[str, Peak]) -> Iterable[Shortage]:
    for name, given in _hard(spec).items():
        if name not in need or need[name].total <= amount(given):
            continue
        peak, missing = need[name], need[name].total - amount(given)
        run = f" and the run {peak.of} at its widest ({shown(name, peak.run)})" if peak.run else ""
        field = _FIELDS.get(name)
        resource = name.removeprefix("requests.").removeprefix("limits.")
        right = gibibytes(peak.total) if field in ("memory", "storage") else shown(name, peak.total)
        # The quota of a GPU is the notebooks' own and `gpus` besides.
        mend = (
            f"write quota.{field}: {right} or more" if field else f"write quota.gpus: {shown(name, peak.run)} or more"
        )
        yield Shortage(
            of="quota",
            resource=resource,
            seats=(),
            missing=missing,
            why=f"the quota of {given} {resource} does not hold the notebooks ({shown(name, peak.notebooks)}){run}",
            mend=mend,
        )


def _hard(spec: ClassSpec) -> dict[str, str]:
    # A seat is Pulumi's, which takes long to import: whoever only reckons pods need not wait for it.
    from infra.seat import quota

    return quota(spec)


def _refused(spec: ClassSpec, runs: Sequence[Task]) -> Iterable[Shortage]:
    for run in runs:
        for pod in run.every_pod():
            if why := pod.refused(spec.quota):
                mend = "set the task's limit in the lab, or raise quota.container_memory_limit"
                yield Shortage(of="limits", resource="memory", seats=(), why=f"{run.name}: {why}", mend=mend)


def _node_needs(pod: Pod, quota: Quota) -> dict[str, Decimal]:
    """What the scheduler looks at: requests, and the place for a pod."""
    needs = pod.needs(quota)
    asked = {name.removeprefix("requests."): count for name, count in needs.items() if name.startswith("requests.")}
    return {**asked, "pods": Decimal(1)}


def _placed(room: Sequence[Node], needs: Amounts, notebook: NotebookSpec | None) -> list[Node] | None:
    """The nodes with a pod put onto the first that takes it; None when none does."""
    for i, node in enumerate(room):
        if node.takes(notebook) and node.holds(needs):
            return [*room[:i], node.less(needs), *room[i + 1 :]]
    return None


_Asking = tuple[str, NotebookSpec, Amounts]
"""A student, a notebook of the student's, and what its pod needs of a node."""


def _pickiest_first(seats: Mapping[str, ClassSpec], room: Sequence[Node], sidecar: Container | None) -> list[_Asking]:
    """Every notebook; those first that fewest nodes take, so that none of the others is put where they alone can be."""
    pods = [
        (student, notebook, _node_needs(notebook_pod(notebook, sidecar), spec.quota))
        for student, spec in seats.items()
        for notebook in spec.notebooks
    ]
    return sorted(pods, key=lambda pod: sum(node.takes(pod[1]) and node.holds(pod[2]) for node in room))


def _settled(pods: Iterable[_Asking], room: Sequence[Node]) -> list[Node]:
    """The nodes once every notebook that finds a place has it."""
    left = list(room)
    for _, notebook, needs in pods:
        left = _placed(left, needs, notebook) or left
    return left


def _short_of_notebooks(pods: Iterable[_Asking], room: Sequence[Node]) -> list[Shortage]:
    """Notebooks that find no node: `up` would wait for them in vain."""
    left, homeless = list(room), dict[str, tuple[Decimal, list[str]]]()
    for student, notebook, needs in pods:
        if put := _placed(left, needs, notebook):
            left = put
            continue
        welcome = [node for node in left if node.takes(notebook)]
        # The resource that is least there, or the first where the nodes are too scattered to say.
        for name, count in needs.items():
            if count > max((node.free.get(name, _NOTHING) for node in welcome), default=_NOTHING):
                wanted, whom = homeless.get(name, (_NOTHING, []))
                homeless[name] = (wanted + count, [*whom, *({student} - {*whom})])
                break
        else:
            wanted, whom = homeless.get("a node", (_NOTHING, []))
            homeless["a node"] = (wanted, [*whom, *({student} - {*whom})])
    free = {name: _total(left, name) for name in homeless}
    return [
        Shortage(
            of="cluster",
            resource=name,
            seats=tuple(whom),
            missing=max(wanted - free[name], _NOTHING),
            why=(
                f"notebooks that ask for {shown(name, wanted)} {name} find no node; "
                f"{shown(name, free[name])} is left on all nodes together"
                if wanted
                else "a notebook finds no node with enough of everything that lets it in"
            ),
            mend="add nodes, take others' work away, or ask for less in `notebooks`",
        )
        for name, (wanted, whom) in homeless.items()
    ]


def _short_of_runs(seats: Mapping[str, ClassSpec], runs: Sequence[Task], room: Sequence[Node]) -> list[Shortage]:
    """Pods of a run that find no node beside the notebooks, even if no other seat has a run."""
    found: dict[tuple[str, str], Shortage] = {}
    for student, spec in seats.items():
        for run in runs:
            for pod in run.every_pod():
                needs = _node_needs(pod, spec.quota)
                welcome = [node for node in room if node.takes(None)]
                if any(node.holds(needs) for node in welcome):
                    continue
                most = {
                    name: max((node.free.get(name, _NOTHING) for node in welcome), default=_NOTHING) for name in needs
                }
                name = next((name for name, count in needs.items() if count > most[name]), "cpu")
                why = (
                    f"{run.name}: {pod.name} asks for {shown(name, needs[name])} {name}, "
                    f"and no node has more than {shown(name, most[name])} left beside the notebooks"
                )
                seats_so_far = found[name, why].seats if (name, why) in found else ()
                found[name, why] = Shortage(
                    of="cluster",
                    resource=name,
                    seats=(*seats_so_far, *({student} - {*seats_so_far})),
                    missing=max(needs[name] - most[name], _NOTHING),
                    why=why,
                    mend="add a node of that size, or ask for less in the lab or in `notebooks`",
                )
    return list(found.values())


def _runs_at_once(needs: Sequence[Mapping[str, Peak]], room: Sequence[Node]) -> int:
    """How many seats may have a run at its widest at once: the others' pods wait meanwhile."""
    names = {name.removeprefix("requests."): name for name in needs[0] if name.startswith("requests.")}
    welcome = [node for node in room if node.takes(None)]
    free = {name: _total(welcome, name) for name in names if name != "storage"}
    for count, need in enumerate(needs):
        for name in free:
            free[name] -= need[names[name]].run if names[name] in need else _NOTHING
        if min(free.values()) < 0:
            return count
    return len(needs)


def _total(room: Sequence[Node], name: str) -> Decimal:
    return sum((node.free.get(name, _NOTHING) for node in room), _NOTHING)


def _rows(
    specs: Sequence[ClassSpec], needs: Sequence[Mapping[str, Peak]], room: Sequence[Node] | None
) -> Iterable[Row]:
    for name in sorted({name for need in needs for name in need}):
        resource = name.removeprefix("requests.") if name != "pods" else name
        told = room is not None and (name == "pods" or name.startswith("requests.")) and resource != "storage"
        seats = [
            (need[name].total, _hard(spec).get(name)) for spec, need in zip(specs, needs, strict=True) if name in need
        ]
        totals = [total for total, _ in seats]
        # Overrides may give the seat that needs most the most as well.
        bounded = [(total, amount(given)) for total, given in seats if given]
        peak, most = max(bounded, key=lambda seat: seat[0] - seat[1], default=(max(totals), None))
        if bounded or told:
            yield Row(
                resource=name,
                peak=peak,
                quota=most,
                all_seats=sum(totals, _NOTHING),
                cluster=_total(room, resource) if told and room is not None else None,
            )


def look(spec: ClassSpec, platform: Platform) -> tuple[list[Node], Container, Container | None]:
    """What the cluster has left for the class, what of it stands already left out; what Argo puts into each pod of a
    run, and what Istio puts into each notebook's.

    Errors: `infra.cluster.ClusterUnreachable`.
    """
    # The Kubernetes client takes a moment to import, which a unit test does not need.
    from infra import cluster

    settings = f"/api/v1/namespaces/{platform.kubeflow_namespace}/configmaps/workflow-controller-configmap"
    with cluster.api(platform.kubeconfig, platform.context) as api:
        items = (cluster.get(api, "/api/v1/nodes") or {}).get("items", [])
        pods = (cluster.get(api, "/api/v1/pods") or {}).get("items", [])
        own = (cluster.get(api, "/api/v1/namespaces", naming.selector(spec.name)) or {}).get("items", [])
        configured = cluster.get(api, settings) or {}
        meshed = platform.gateway.kind == "istio"
        injected = (cluster.get(api, _INJECTOR) or {}) if meshed else {}
    namespaces = frozenset(item["metadata"]["name"] for item in own)
    return (
        nodes(items, pods, namespaces),
        executor((configured.get("data") or {}).get("executor", "")),
        sidecar((injected.get("data") or {}).get("values", "{}")) if meshed else None,
    )


def sidecar(written: str) -> Container:
    """The sizes of Istio's sidecar, from the `values` of its injector (JSON); Istio's own defaults where they say none.

    Source of the defaults: istio/istio manifests/charts/istio-control/istio-discovery/values.yaml, global.proxy.
    """
    try:
        sizes = json.loads(written)["global"]["proxy"]["resources"]
    except (ValueError, KeyError, TypeError):
        sizes = None
    return _sized(sizes or _SIDECAR)


def executor(written: str) -> Container:
    """The sizes of Argo's own containers, from the `executor` of its workflow controller's configuration (YAML)."""
    return _sized((yaml.safe_load(written) or {}).get("resources") or {})


def _sized(sizes: Mapping[str, Any]) -> Container:
    """A container of the `resources` that Kubernetes has."""
    return Container(
        requests={name: amount(str(value)) for name, value in (sizes.get("requests") or {}).items()},
        limits={name: amount(str(value)) for name, value in (sizes.get("limits") or {}).items()},
    )


def shown(resource: str, count: Decimal) -> str:
    """A quantity as a person writes it: 250m, 1.5Gi, 2."""
    if resource.rpartition(".")[2] in ("memory", "storage"):
        for suffix, size in (("Gi", 2**30), ("Mi", 2**20)):
            if count >= size:
                return f"{(count / size).quantize(Decimal('0.01')).normalize():f}{suffix}"
        return f"{count.normalize():f}"
    if resource.rpartition(".")[2] == "cpu" and count != int(count):
        return f"{(count * 1000).normalize():f}m"
    return f"{count.normalize():f}"
