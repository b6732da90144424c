"""What a change means, in a teacher's words: who joins, who leaves, what restarts, what is lost, and what is unharmed.

Only words are made here, of what Pulumi says that it would do. Sentences true of several students are said once.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, Final

from infra.engine import Planned
from infra.values import amount

_NAMED: Final = 5
"""So many students are named; of more, the first ones and how many there are."""

_UNCHANGED: Final = frozenset({"same", "read", "refresh", "read-replacement", "discard", "remove-pending-replace"})
# Of the steps that make up one replacement, the first tells of it.
_INNER: Final = frozenset({"create-replacement", "delete-replaced", "discard-replaced"})

_SERVER: Final = "kubernetes:kubeflow.org/v1:Notebook"
_LOST: Final = "seat goes with all its work: notebooks, workspace files, bucket and login"
_QUIET: Final = "nothing restarts"


def sentences(planned: Iterable[tuple[str, Planned]], roster: Sequence[str], class_name: str) -> tuple[str, ...]:
    """What would change. `planned` has each step with the student whose seat it is a part of, "" for what seats share;
    `roster` are all students of the class file. Nothing when nothing changes. A last sentence tells how many notebooks
    restart, where any seat stays.
    """
    seats: dict[str, list[Planned]] = {}
    for student, step in planned:
        seats.setdefault(student, []).append(step)
    said: dict[str, list[str]] = {}
    restarts = notebooks = 0
    for student, steps in seats.items():
        for phrase in _phrases(student, steps, class_name):
            said.setdefault(phrase, []).append(student)
        servers = [step for step in steps if step.type == _SERVER and step.op not in (*_INNER, "delete", "create")]
        notebooks += len(servers)
        restarts += sum(_restarts(step) for step in servers)
    told = [f"{who(students, roster)}: {phrase}" for phrase, students in sorted(said.items(), key=_weight)]
    if told and notebooks:
        stay = f"{restarts} of {notebooks} running notebooks restart" if restarts else "no running notebook restarts"
        told.append(stay)
    return tuple(told)


def called(urn: str, seat: str) -> str:
    """What a resource is called where people read it: its kind, and what its name says beyond the seat's."""
    parts = urn.split("::")
    if len(parts) < 4:
        return urn
    kind, name = parts[2].split("$")[-1].split(":")[-1], parts[-1]
    rest = name.removeprefix(seat).strip("-").removesuffix("-server")
    return kind if rest in ("", kind.lower()) else f"{kind} {rest}"


def _weight(said: tuple[str, list[str]]) -> tuple[int, str]:
    """What is lost comes first, then what restarts, then who joins, then the rest."""
    phrase = said[0]
    order = ("lost", "goes with", "restarts", "new seat")
    return next((i for i, word in enumerate(order) if word in phrase.lower()), len(order)), phrase


def who(students: Collection[str], roster: Sequence[str]) -> str:
    """These students in a few words: everyone, or their names, of many the first ones."""
    if "" in students:
        return "the class"
    if len(roster) > 1 and set(roster) <= set(students):
        return f"everyone ({len(roster)})"
    named = sorted(students)
    if len(named) <= _NAMED:
        return ", ".join(named)
    return f"{', '.join(named[:_NAMED])} and {len(named) - _NAMED} more"


def _phrases(student: str, steps: Sequence[Planned], class_name: str) -> Iterable[str]:
    whole = next((step.op for step in steps if _kind(step) == "Seat"), "") if student else ""
    if whole == "create":
        names = sorted(str(_metadata(step).get("name")) for step in steps if step.type == _SERVER)
        return [f"new seat with {_and(names)}" if names else "new seat"]
    if whole == "delete":
        return [f"{_LOST}; `up` refuses that, `classroom remove` does it"]
    seat = f"{class_name}-{student}" if student else class_name
    real = [step for step in steps if step.op not in _UNCHANGED | _INNER and not _is_component(step)]
    return dict.fromkeys(chain.from_iterable(_phrase(step, seat) for step in real))


def _phrase(step: Planned, seat: str) -> Iterable[str]:
    say = _WORDS.get(step.type) or _WORDS.get(_kind(step))
    if say is None:
        verb = {"create": "is made", "delete": "goes", "replace": "is made anew"}.get(step.op, "changes")
        return [f"{called(step.urn, seat)} {verb}; {_QUIET}"]
    return say(step)


def _kind(step: Planned) -> str:
    return step.type.split(":")[-1]


def _is_component(step: Planned) -> bool:
    return step.type.startswith(("classroom:", "pulumi:"))


def _metadata(step: Planned) -> Mapping[str, Any]:
    return dict((step.new or step.old).get("metadata") or {})


def _name(step: Planned) -> str:
    return str(_metadata(step).get("name", ""))


def _notebook(step: Planned) -> Iterable[str]:
    name = _name(step)
    if step.op == "create":
        return [f"gets {name}"]
    if step.op == "delete":
        return [f"{name} goes, and what runs in it ends"]
    if not _restarts(step):
        return [f"{name} is marked differently; {_QUIET}"]
    before, after = _server(step.old), _server(step.new)
    return [
        f"{name} restarts, and what runs in it ends (files stay): {_differences(before, after) or 'its pod changes'}"
    ]


def _restarts(step: Planned) -> bool:
    """The notebook controller makes the pod anew when its template changes."""
    return step.op not in _UNCHANGED and step.old.get("spec") != step.new.get("spec")


def _server(inputs: Mapping[str, Any]) -> dict[str, str]:
    """What a teacher wrote of a notebook, from the pod that it has become."""
    pod = inputs.get("spec", {}).get("template", {}).get("spec", {})
    container = (pod.get("containers") or [{}])[0]
    resources = container.get("resources") or {}
    facts = {"image": container.get("image")}
    for what, given in (("", resources.get("requests") or {}), (" limit", resources.get("limits") or {})):
        facts |= {f"{resource}{what}": amount for resource, amount in given.items()}
    facts |= {f"variable {each['name']}": each.get("value", "") for each in container.get("env") or []}
    shared = next((each for each in pod.get("volumes") or [] if each.get("name") == "shm"), {})
    facts["shared memory"] = (shared.get("emptyDir") or {}).get("sizeLimit")
    facts["node selector"] = pod.get("nodeSelector")
    facts["tolerations"] = pod.get("tolerations")
    facts["command"] = " ".join(container.get("command") or [])
    return {name: str(value) for name, value in facts.items() if value}


def _differences(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    """`memory 12Gi instead of 8Gi`, for whatever differs; of a command only that it does."""
    said: list[str] = []
    for name in dict.fromkeys((*before, *after)):
        old, new = before.get(name), after.get(name)
        if old == new:
            continue
        if name == "command":
            said.append("the way its server is started")
        elif new is None:
            said.append(f"no {name} any more")
        else:
            said.append(f"{name} {new} instead of {old}" if old is not None else f"{name} {new}")
    return ", ".join(said)


def _workspace(step: Planned) -> Iterable[str]:
    """The Kubernetes provider changes a claim's size in place (its diff.go); whether it can be is the API server's say.

    Source: Kubernetes' ValidatePersistentVolumeClaimUpdate and its admission plugin PersistentVolumeClaimResize.
    """

    def size(inputs: Mapping[str, Any]) -> str:
        return str(((inputs.get("spec") or {}).get("resources") or {}).get("requests", {}).get("storage", "0"))

    name = _name(step)
    old, new = size(step.old), size(step.new)
    match step.op:
        case "create":
            # It comes with its notebook, which is told.
            return []
        case "delete":
            why = "its notebook is not in the class file any more; `up` refuses that without --lose-files"
            return [f"THE FILES IN {name} ARE LOST: {why}"]
        case "replace":
            return [f"{name} is made anew with {new}, and THE FILES IN IT ARE LOST"]
        case _ if amount(new) > amount(old):
            can = "`up` fails where the StorageClass does not let volumes grow"
            return [f"{name} grows from {old} to {new}, and its files stay; {can}"]
        case _ if amount(new) < amount(old):
            return [f"{name} cannot shrink from {old} to {new}: `up` fails there, and its files stay"]
        case _:
            return [f"{name} is marked differently; its files stay and {_QUIET}"]


def _quota(step: Planned) -> Iterable[str]:
    def hard(inputs: Mapping[str, Any]) -> dict[str, str]:
        given = (inputs.get("spec") or {}).get("hard") or {}
        return {name.removeprefix("requests.").replace("limits.", ""): str(value) for name, value in given.items()}

    return [f"quota: {_differences(hard(step.old), hard(step.new)) or 'marked differently'}; {_QUIET}"]


def _sizes(step: Planned) -> Iterable[str]:
    def defaults(inputs: Mapping[str, Any]) -> dict[str, str]:
        limits = ((inputs.get("spec") or {}).get("limits") or [{}])[0]
        parts = (("", limits.get("defaultRequest") or {}), (" limit", limits.get("default") or {}))
        return {f"{name}{what}": str(value) for what, given in parts for name, value in given.items()}

    said = _differences(defaults(step.old), defaults(step.new)) or "marked differently"
    return [f"containers that name no size: {said}; {_QUIET}"]


def _namespace(step: Planned) -> Iterable[str]:
    if step.op in ("delete", "replace"):
        return ["namespace goes, and WHAT IS IN IT IS LOST"]
    notes = [dict((inputs.get("metadata") or {}).get("annotations") or {}) for inputs in (step.old, step.new)]
    sessions = [
        {name.rpartition("/")[2].replace("-", " "): str(value) for name, value in each.items() if "/session-" in name}
        for each in notes
    ]
    said = _differences(*sessions)
    return [f"{said}; {_QUIET}"] if said else [f"namespace is marked differently; {_QUIET}"]


def _password(step: Planned) -> Iterable[str]:
    return ["gets a new password: hand it out again"] if step.op == "replace" else []


def _login(step: Planned) -> Iterable[str]:
    old, new = step.old.get("email"), step.new.get("email")
    if step.op == "delete":
        return ["cannot log in any more"]
    if step.op == "create":
        return ["can log in again"]
    if old != new:
        return [f"logs in as {new} instead of {old}"]
    if step.old.get("username") != step.new.get("username"):
        return [f"is called {step.new.get('username')}; {_QUIET}"]
    return []


def _bucket(step: Planned) -> Iterable[str]:
    if step.op in ("delete", "replace"):
        # Only what this program made goes.
        given = dict(step.old.get("address") or {}).get("kind") == "given"
        return ["gets another bucket" if given else "bucket is made anew, and WHAT IS IN IT IS LOST"]
    if step.op == "create":
        return ["gets a bucket"]

    def settings(inputs: Mapping[str, Any]) -> dict[str, str]:
        given = dict(inputs.get("settings") or {})
        days = int(given.get("lifecycle_days") or 0)
        return {
            "versioning": "on" if given.get("versioning") else "off",
            "objects kept for": f"{days} days" if days else "ever",
            "region": str(given.get("region") or "the store's own"),
        }

    return [f"bucket: {_differences(settings(step.old), settings(step.new)) or 'is put right'}; {_QUIET}"]


def _always(words: str) -> Callable[[Planned], Iterable[str]]:
    return lambda _step: [f"{words}; {_QUIET}"]


_WAY_IN: Final = _always("the way in at the gateway changes")
_RIGHTS: Final = _always("rights in the namespace change")

# By the whole type where a kind's name is not enough.
_WORDS: Final[Mapping[str, Callable[[Planned], Iterable[str]]]] = {
    "Notebook": _notebook,
    "PersistentVolumeClaim": _workspace,
    "ResourceQuota": _quota,
    "LimitRange": _sizes,
    "Namespace": _namespace,
    "Profile": _namespace,
    "NetworkPolicy": _always("network rules change"),
    "ServiceAccount": _RIGHTS,
    "RoleBinding": _RIGHTS,
    "Secret": _always("the key in the namespace changes"),
    "ConfigMap": _always("pipeline settings change"),
    "Middleware": _WAY_IN,
    "IngressRoute": _WAY_IN,
    "VirtualService": _WAY_IN,
    "AuthorizationPolicy": _WAY_IN,
    "EnvoyFilter": _WAY_IN,
    "kubernetes:dex.coreos.com/v1:Password": _login,
    "Password": _password,
    "Bucket": _bucket,
}


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
