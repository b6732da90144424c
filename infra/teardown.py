"""The end of a class or of one seat: destroy what the state knows, sweep what no state knows, and prove that nothing is
left.

The proof uses no state: it asks the cluster by label and by name, the object store by name, tag and policy, and looks
into the node's volume directory, twice in a row. Whoever cannot be asked is named, and then nothing counts as proven.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import quote

from kubernetes import client  # type: ignore[import-untyped]  # the client ships no types
from pydantic import BaseModel, ConfigDict

from infra import cluster, engine, naming, stacks, stores
from infra.cluster import ClusterUnreachable
from infra.failure import Failure
from infra.spec import ClassSpec, Platform
from infra.stacks import Klass
from infra.steps import Cancelled, Event, Listener
from infra.stores import Holding, ObjectStoreUnreachable, Standing, Store, StoreAddress

SETTLES_WITHIN_SECONDS: Final = 240
"""How long namespaces, volumes and their directories may take to go once they were told to."""
BETWEEN_LOOKS_SECONDS: Final = 3.0

KINDS: Final = {
    # What would close the class that is being taken away.
    "CronJob": "/apis/batch/v1/cronjobs",
    # Before Namespace: the profile controller would make a namespace again whose Profile is still there.
    "Profile": "/apis/kubeflow.org/v1/profiles",
    "Namespace": "/api/v1/namespaces",
    "Notebook": "/apis/kubeflow.org/v1/notebooks",
    "PersistentVolumeClaim": "/api/v1/persistentvolumeclaims",
    "Pod": "/api/v1/pods",
    "Secret": "/api/v1/secrets",
    "ConfigMap": "/api/v1/configmaps",
    "ServiceAccount": "/api/v1/serviceaccounts",
    "ResourceQuota": "/api/v1/resourcequotas",
    "LimitRange": "/api/v1/limitranges",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/networkpolicies",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/rolebindings",
    "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "IngressRoute": "/apis/traefik.io/v1alpha1/ingressroutes",
    "Middleware": "/apis/traefik.io/v1alpha1/middlewares",
    "VirtualService": "/apis/networking.istio.io/v1/virtualservices",
    "AuthorizationPolicy": "/apis/security.istio.io/v1/authorizationpolicies",
    "EnvoyFilter": "/apis/networking.istio.io/v1alpha3/envoyfilters",
    "Certificate": "/apis/cert-manager.io/v1/certificates",
    "Password (dex)": "/apis/dex.coreos.com/v1/passwords",
}
"""Every kind of object that a class may have, and where the API lists them all; in this order they are deleted."""

_Tell = Callable[..., None]
Verdict = Literal["absent", "present", "could-not-look"]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Created(_Record):
    """Something that the class had, and by what that is known: the state, or the label or tag it carried."""

    kind: str
    namespace: str
    name: str
    known_by: tuple[str, ...]


class Look(_Record):
    """One thing that was looked for: the question as it was asked, and what each round of looking found."""

    subject: str
    query: str
    rounds: tuple[tuple[str, ...], ...] = ()
    error: str = ""

    @property
    def verdict(self) -> Verdict:
        """Absent only if every round looked and found nothing."""
        if self.error or not self.rounds:
            return "could-not-look"
        return "present" if any(self.rounds) else "absent"


class Certificate(_Record):
    """What a class had, and how it was seen that all of it is gone."""

    class_name: str
    student: str = ""
    platform: str
    started: datetime
    ended: datetime
    created: tuple[Created, ...]
    looks: tuple[Look, ...]
    seconds_between_rounds: float
    notes: tuple[str, ...] = ()
    bill: str = ""
    """What it had cost by then, in lines; empty where the class file names no prices, or nobody could say."""

    @property
    def verdict(self) -> Verdict:
        """The worst of all looks; something seen outweighs something not looked at."""
        verdicts = {look.verdict for look in self.looks} or {"could-not-look"}
        return "present" if "present" in verdicts else "could-not-look" if "could-not-look" in verdicts else "absent"

    @property
    def exit_code(self) -> int:
        """0 all is gone · 1 something is there · 3 something could not be looked at."""
        return {"absent": 0, "present": 1, "could-not-look": 3}[self.verdict]

    def text(self) -> str:
        """The certificate for a person to read."""
        return "\n".join(_lines(self)) + "\n"

    def write(self, directory: Path) -> Path:
        """Write certificate.json and certificate.txt into `directory`; the path of the text."""
        directory.mkdir(parents=True, exist_ok=True)
        facts = self.model_dump(mode="json")
        facts["looks"] = [
            {**fact, "verdict": look.verdict} for fact, look in zip(facts["looks"], self.looks, strict=True)
        ]
        facts |= {"verdict": self.verdict, "exit_code": self.exit_code}
        (directory / "certificate.json").write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
        text = directory / "certificate.txt"
        text.write_text(self.text())
        return text


@dataclass(frozen=True, kw_only=True)
class Question:
    """Something to look for, and how. `of` is who is asked.

    `ask` is asked once in a round, whoever else has the same; `part` is what of its answer is meant here.
    """

    subject: str
    query: str
    ask: Callable[[], Any]
    part: Callable[[Any], tuple[str, ...]] = tuple
    of: Literal["cluster", "object store", "node"] = "cluster"


def down(
    klass: Klass,
    *,
    student: str = "",
    listener: Listener,
    cancelled: threading.Event | None = None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    pause: Callable[[float], None] = time.sleep,
) -> Certificate:
    """Take a class away, or the seat of one student, and prove it. Safe to repeat, with or without a state.

    Nothing is destroyed unless cluster and object store both answer: a certificate with exit code 3 says which did not.

    Errors: `Cancelled`, KeyboardInterrupt; `engine.StackLocked` when another command is changing the class.
    """
    started = clock()
    spec, platform = klass.spec, klass.platform
    watch = cancelled or threading.Event()
    notes: list[str] = []

    def certificate(created: tuple[Created, ...], looks: tuple[Look, ...]) -> Certificate:
        return Certificate(
            class_name=spec.name,
            student=student,
            platform=platform.url,
            started=started,
            ended=clock(),
            created=created,
            looks=looks,
            seconds_between_rounds=BETWEEN_LOOKS_SECONDS,
            notes=tuple(notes),
        )

    with _step("look", listener) as tell:
        known, trouble = _known(klass, student)
        notes += [trouble] if trouble else []
        try:
            ground = _ground(spec, platform, known, student)
            created = _created(ground, known)
        except (ClusterUnreachable, ObjectStoreUnreachable) as error:
            notes.append("nothing was destroyed, because it could not have been proven")
            unseen = Look(subject="cluster and object store", query="anything at all", error=str(error))
            return certificate(known, (unseen,))
        tell("progress", f"{len(created)} things of {f'{student} in ' if student else ''}class {spec.name}")

    with closing(ground.cluster):
        notes += [ground.store.leaves] if ground.store.leaves else []
        failed = _destroy(klass, student, listener, watch, notes)
        _stop_if(watch)
        with _step("sweep", listener) as tell:
            swept = _sweep(ground, tell, notes, watch)
        if failed and swept:
            # What it stumbled over is gone now; a state that still names it would mislead the next `up`.
            _destroy(klass, student, listener, watch, notes)
        with _step("prove", listener) as tell:
            return certificate(created, prove(questions(ground), tell, watch, pause))


def clear(klass: Klass, student: str, *, wipe: bool, cancelled: threading.Event | None = None) -> None:
    """Take away what of a seat is to be made anew: its notebook servers, and with `wipe` its whole namespace with the
    workspaces in it, and its bucket. Returns once it is gone; nothing there is fine.

    Errors: `ClusterUnreachable`, `ObjectStoreUnreachable`, `stores.ForeignBucket`, `NamespaceStuck`, `Cancelled`.
    """
    spec, platform = klass.spec, klass.platform
    stop = cancelled or threading.Event()
    selector = naming.selector(spec.name, student)
    kinds = ("Profile", "Namespace") if wipe else ("Notebook",)
    with closing(cluster.api(platform.kubeconfig, platform.context)) as api:

        def left() -> list[tuple[str, Mapping[str, Any]]]:
            answers = ((kind, cluster.get(api, KINDS[kind], selector) or {}) for kind in kinds)
            return [(kind, item) for kind, answer in answers for item in answer.get("items", [])]

        for kind, item in left():
            cluster.delete(api, _path(kind, item))
        deadline = time.monotonic() + SETTLES_WITHIN_SECONDS
        while going := left():
            if time.monotonic() > deadline:
                raise stacks.NamespaceStuck(
                    f"{going[0][0]} {_label(going[0][1])} does not go; look what holds it, then run this again"
                )
            if stop.wait(0.5):
                raise Cancelled("stopped while the old seat was going; the same command goes on from here")
    if wipe:
        address = StoreAddress.of(platform)
        stores.connect(address).remove(address.holding(spec.name, student))


@dataclass(frozen=True, kw_only=True)
class Ground:
    """Where to look for a class, or for the seat of one `student`, and under which names."""

    spec: ClassSpec
    platform: Platform
    student: str
    cluster: client.ApiClient
    store: Store
    namespaces: frozenset[str]
    holdings: tuple[Holding, ...]

    @property
    def selector(self) -> str:
        """The label selector of everything that is looked for."""
        return naming.selector(self.spec.name, self.student)


def _ground(spec: ClassSpec, platform: Platform, known: tuple[Created, ...], student: str) -> Ground:
    """Find the class: by its roster, by its labels, by its tags and policies, and by what the state names."""
    api = cluster.api(platform.kubeconfig, platform.context)
    labelled = cluster.get(api, KINDS["Namespace"], naming.selector(spec.name, student)) or {}
    named = {item["metadata"]["name"] for item in labelled.get("items", [])}
    students = {item["metadata"]["labels"].get("student", "") for item in labelled.get("items", [])}
    students |= {student} if student else {each.id for each in spec.students}
    named |= {naming.namespace(spec.name, each) for each in students if each}
    named |= {each.name for each in known if each.kind == "Namespace"}
    stores.connect.cache_clear()
    store = stores.connect(StoreAddress.of(platform))
    held = store.holdings(spec.name, sorted(filter(None, students)))
    return Ground(
        spec=spec,
        platform=platform,
        student=student,
        cluster=api,
        store=store,
        namespaces=frozenset(named),
        holdings=tuple(each for each in held if student in ("", each.student)),
    )


def _known(klass: Klass, student: str) -> tuple[tuple[Created, ...], str]:
    """What the state names, and why it cannot be read where it cannot."""
    try:
        resources = [each for stack in klass.stacks() for each in engine.export(stack)]
        if student:
            seat = {urn for each in stacks.recorded(klass).values() for urn in each.of(student, klass.spec.name)}
            resources = [each for each in resources if each.urn in seat]
    except engine.StackLocked:
        raise
    except Failure as error:
        return (), f"the state cannot be read ({error}); what follows was found without it"
    return tuple(
        Created(kind=_kind(each), namespace=each.namespace, name=each.name, known_by=("state",)) for each in resources
    ), ""


def _kind(resource: engine.Resource) -> str:
    name = resource.type.split(":")[-1]
    # The login is a Password as well, of dex; this one is the generated text, which lives in the state alone.
    return "GeneratedPassword" if name == "Password" and resource.type.startswith("pulumi-python:") else name


def _created(ground: Ground, known: tuple[Created, ...]) -> tuple[Created, ...]:
    """What the class has, from the state and from what is found without it."""
    found = [
        Created(kind=kind.split()[0], namespace=_namespace(item), name=item["metadata"]["name"], known_by=("label",))
        for kind in KINDS
        for item in _labelled(ground, kind)
    ]
    found += [_at_large("PersistentVolume", name, "claim") for name in _volumes(ground)]
    for holding in ground.holdings:
        stands = ground.store.standing(holding)
        if not stands.ours:
            continue
        if stands.bucket:
            found.append(_at_large("Bucket", holding.bucket, "tag or policy"))
        if stands.user:
            found.append(_at_large("BucketUser", holding.user, "name"))
        if stands.policy:
            found.append(_at_large("BucketPolicy", holding.policy, "name"))
        found += [_at_large("BucketKey", _shown(key), "user") for key in stands.access_keys]
    found += [_at_large("VolumeDirectory", name, "name") for name in _directories(ground)]
    merged: dict[tuple[str, str, str], Created] = {}
    # A bucket that is left is nothing that will be gone.
    going = [each for each in known if not (each.kind == "Bucket" and ground.store.leaves)]
    for each in (*going, *found):
        key = (each.kind, each.namespace, each.name)
        ways = merged[key].known_by if key in merged else ()
        merged[key] = each.model_copy(update={"known_by": tuple(dict.fromkeys((*ways, *each.known_by)))})
    return tuple(merged.values())


def _at_large(kind: str, name: str, known_by: str) -> Created:
    """Something that lies in no namespace."""
    return Created(kind=kind, namespace="", name=name, known_by=(known_by,))


def _shown(key: str) -> str:
    """Enough of a key's public half to recognise it."""
    return f"{key[:8]}…"


def _destroy(klass: Klass, student: str, listener: Listener, cancelled: threading.Event, notes: list[str]) -> bool:
    """Destroy what the state knows. Whether that failed, which the sweep then makes up for."""
    try:
        if student:
            stacks.forget(klass, student, listener, cancelled)
        else:
            stacks.destroy(klass, listener, cancelled)
    except engine.EngineFailure as error:
        notes.append(f"Pulumi could not destroy everything, so the rest was swept by label: {error}")
        return True
    return False


def _sweep(ground: Ground, tell: _Tell, notes: list[str], cancelled: threading.Event) -> bool:
    """Delete whatever is left of the class; what refuses is noted, and the proof will see it. Whether all went well."""
    noted = len(notes)
    going: set[str] = set()
    for kind in (kind for kind in KINDS if kind != "Pod"):
        try:
            left = [item for item in _labelled(ground, kind) if _namespace(item) not in going]
        except ClusterUnreachable as error:
            notes.append(f"could not sweep: {error}")
            continue
        for item in left:
            _stop_if(cancelled)
            tell("progress", f"{kind} {_label(item)}")
            _noting(notes, cluster.delete, ground.cluster, _path(kind, item))
        # What lies in a namespace goes with it.
        going |= {item["metadata"]["name"] for item in left} if kind == "Namespace" else set()
    for holding in ground.holdings:
        _stop_if(cancelled)
        tell("progress", f"bucket {holding.bucket}")
        _noting(notes, ground.store.remove, holding)
    return len(notes) == noted


def questions(ground: Ground) -> tuple[Question, ...]:
    """Everything that has to be absent, each with the question that is asked."""
    selector = ground.selector
    names = ", ".join(sorted(ground.namespaces))
    asked = [
        Question(
            subject=kind,
            query=f"GET {path}?labelSelector={quote(selector, safe='=,/')}",
            ask=lambda kind=kind: tuple(_label(item) for item in _labelled(ground, kind)),
        )
        for kind, path in KINDS.items()
    ]
    asked.append(
        Question(
            subject="Namespace, by name",
            query=f"GET /api/v1/namespaces/NAME for {names}, carrying our label or of a profile that is gone",
            ask=lambda: tuple(n for n in sorted(ground.namespaces) if _ours_by_name(ground, n)),
        )
    )
    asked.append(
        Question(
            subject="PersistentVolume",
            query=f"GET /api/v1/persistentvolumes, claimRef.namespace in ({names})",
            ask=lambda: _volumes(ground),
        )
    )
    # Who is not in the file any more is found by label, above.
    students = () if ground.student else ground.spec.students
    logins = {naming.dex_password_name(s.email): s.email for s in students}
    if logins:
        asked.append(
            Question(
                subject="Login",
                query="GET passwords.dex.coreos.com by the object name of each student's e-mail",
                ask=lambda: tuple(email for name, email in logins.items() if _login_stands(ground, name)),
            )
        )
    if ground.platform.volume_directory is not None:
        asked.append(
            Question(
                subject="Directory on the node",
                query=f"list {ground.platform.volume_directory}, names holding _NAMESPACE_ for {names}",
                ask=lambda: _directories(ground),
                of="node",
            )
        )
    return (*asked, *_store_questions(ground))


def _store_questions(ground: Ground) -> tuple[Question, ...]:
    if ground.store.leaves:
        return ()

    def ask() -> list[tuple[Standing, Holding]]:
        # Asked anew in each round: what was not there before may be now.
        held = ground.store.holdings(ground.spec.name, [h.student for h in ground.holdings])
        seats = [each for each in held if ground.student in ("", each.student)]
        # What `up` refuses as somebody else's is none of the class's either.
        return [(found, seat) for seat in seats if (found := ground.store.standing(seat)).ours]

    where = f"at {ground.store.endpoint}, names by roster, by the buckets' tags and by the policies' names"
    return (
        Question(
            subject="Bucket",
            query=f"buckets {where}",
            of="object store",
            ask=ask,
            part=lambda looked: tuple(seat.bucket for found, seat in looked if found.bucket),
        ),
        Question(
            subject="Bucket user",
            query=f"users {where}",
            of="object store",
            ask=ask,
            part=lambda looked: tuple(seat.user for found, seat in looked if found.user),
        ),
        Question(
            subject="Bucket policy",
            query=f"policies {where}",
            of="object store",
            ask=ask,
            part=lambda looked: tuple(seat.policy for found, seat in looked if found.policy),
        ),
        Question(
            subject="Bucket key",
            query=f"keys of these users {where}",
            of="object store",
            ask=ask,
            part=lambda looked: tuple(_shown(key) for found, _ in looked for key in found.access_keys),
        ),
    )


def prove(
    asked: tuple[Question, ...],
    tell: _Tell,
    cancelled: threading.Event,
    pause: Callable[[float], None] = time.sleep,
    settles_within_seconds: float = SETTLES_WITHIN_SECONDS,
) -> tuple[Look, ...]:
    """Ask all questions twice in a row, once nothing is seen any more or the time to settle is over."""
    deadline = time.monotonic() + settles_within_seconds
    first = _round(asked)
    while any(look.verdict == "present" for look in first) and time.monotonic() < deadline:
        _stop_if(cancelled)
        left = [f"{look.subject} {look.rounds[0][0]}" for look in first if look.verdict == "present"]
        tell("progress", f"waiting for {left[0]} to go", sum(look.verdict == "absent" for look in first), len(first))
        pause(1.0)
        first = _round(asked)
    pause(BETWEEN_LOOKS_SECONDS)
    second = _round(asked)
    looks = tuple(
        one.model_copy(update={"rounds": (*one.rounds, *two.rounds), "error": one.error or two.error})
        for one, two in zip(first, second, strict=True)
    )
    tell("progress", "looked twice", sum(look.verdict == "absent" for look in looks), len(looks))
    return looks


def _round(asked: tuple[Question, ...]) -> tuple[Look, ...]:
    silent: dict[str, str] = {}
    answers: dict[Callable[[], Any], Any] = {}
    return tuple(_ask(question, silent, answers) for question in asked)


def _ask(question: Question, silent: dict[str, str], answers: dict[Callable[[], Any], Any]) -> Look:
    # Who did not answer once in a round is not waited for again in it.
    if question.of not in silent:
        try:
            if question.ask not in answers:
                answers[question.ask] = question.ask()
            found = question.part(answers[question.ask])
            return Look(subject=question.subject, query=question.query, rounds=(found,))
        except (ClusterUnreachable, ObjectStoreUnreachable, OSError) as error:
            silent[question.of] = str(error)
    return Look(subject=question.subject, query=question.query, error=silent[question.of])


def _labelled(ground: Ground, kind: str) -> list[Mapping[str, Any]]:
    # A cluster without the kind (404) holds none of it.
    answer = cluster.get(ground.cluster, KINDS[kind], ground.selector) or {}
    return list(answer.get("items", []))


def _ours_by_name(ground: Ground, name: str) -> bool:
    found = cluster.get(ground.cluster, f"{KINDS['Namespace']}/{name}")
    # Another's namespace that happens to bear the name was never ours to take away.
    return found is not None and (_is_ours(found) or _is_of_a_profile_that_is_gone(ground, found))


def _is_of_a_profile_that_is_gone(ground: Ground, namespace: Mapping[str, Any]) -> bool:
    # While a profile goes, its controller makes the namespace once more, without our labels (profile_controller.go,
    # Reconcile); Kubernetes collects it some seconds later.
    owners = [each["name"] for each in namespace["metadata"].get("ownerReferences") or [] if each["kind"] == "Profile"]
    return any(cluster.get(ground.cluster, f"{KINDS['Profile']}/{each}") is None for each in owners)


def _login_stands(ground: Ground, name: str) -> bool:
    path = f"/apis/dex.coreos.com/v1/namespaces/{ground.platform.dex_namespace}/passwords/{name}"
    found = cluster.get(ground.cluster, path)
    return found is not None and (_is_ours(found) and _class_of(found) == ground.spec.name)


def _is_ours(item: Mapping[str, Any]) -> bool:
    labels = item["metadata"].get("labels") or {}
    return bool(labels.get("app.kubernetes.io/managed-by") == naming.MANAGED_BY)


def _class_of(item: Mapping[str, Any]) -> str:
    return str((item["metadata"].get("labels") or {}).get("classroom", ""))


def _volumes(ground: Ground) -> tuple[str, ...]:
    answer = cluster.get(ground.cluster, "/api/v1/persistentvolumes") or {}
    return tuple(
        volume["metadata"]["name"]
        for volume in answer.get("items", [])
        if (volume["spec"].get("claimRef") or {}).get("namespace") in ground.namespaces
    )


def _directories(ground: Ground) -> tuple[str, ...]:
    """The node's directories of volumes, which the local-path provisioner names pvc-UID_NAMESPACE_CLAIM."""
    directory = ground.platform.volume_directory
    if directory is None:
        return ()
    found = sorted(entry.name for entry in directory.iterdir()) if directory.exists() else []
    return tuple(name for name in found if any(f"_{namespace}_" in name for namespace in ground.namespaces))


def _path(kind: str, item: Mapping[str, Any]) -> str:
    """The path of one object, from the path that lists its kind in all namespaces."""
    head, _, plural = KINDS[kind].rpartition("/")
    namespace = _namespace(item)
    return (
        f"{head}/namespaces/{namespace}/{plural}/{item['metadata']['name']}"
        if namespace
        else (f"{KINDS[kind]}/{item['metadata']['name']}")
    )


def _namespace(item: Mapping[str, Any]) -> str:
    return str(item["metadata"].get("namespace") or "")


def _label(item: Mapping[str, Any]) -> str:
    return "/".join(filter(None, (_namespace(item), item["metadata"]["name"])))


def _noting(notes: list[str], act: Callable[..., object], *arguments: object) -> None:
    try:
        act(*arguments)
    except Failure as error:
        notes.append(f"could not sweep: {error}")


def _stop_if(cancelled: threading.Event) -> None:
    if cancelled.is_set():
        raise Cancelled("the teardown was stopped; `classroom down` goes on from here")


@contextmanager
def _step(name: str, listener: Listener) -> Iterator[_Tell]:
    """A part of the teardown that is told as a step."""
    started = time.monotonic()

    def tell(state: Any, detail: str = "", done: int = 0, total: int = 0) -> None:
        seconds = time.monotonic() - started
        listener(Event(step=name, state=state, detail=detail, done=done, total=total, seconds=seconds))

    tell("started")
    try:
        yield tell
    except BaseException as error:
        tell("failed", str(error) or type(error).__name__)
        raise
    tell("finished")


def _lines(certificate: Certificate) -> Iterator[str]:
    of = f"seat {certificate.student} of class" if certificate.student else "class"
    yield f"Teardown certificate · {of} {certificate.class_name} · {certificate.platform}"
    yield f"{certificate.started:%Y-%m-%d %H:%M:%S} to {certificate.ended:%Y-%m-%d %H:%M:%S} UTC"
    yield ""
    yield f"What the {'seat' if certificate.student else 'class'} had ({len(certificate.created)})"
    for each in sorted(certificate.created, key=lambda c: (c.kind, c.namespace, c.name)):
        where = f"{each.namespace}/{each.name}" if each.namespace else each.name
        yield f"  {each.kind:<24} {where}   (known by {', '.join(each.known_by)})"
    yield ""
    yield f"How its absence was seen, {certificate.seconds_between_rounds:g} s between two looks"
    for look in certificate.looks:
        counts = ", ".join(str(len(found)) for found in look.rounds) or "-"
        yield f"  {look.verdict:<14} {look.subject:<24} found {counts}   {look.query}"
        for name in sorted({name for found in look.rounds for name in found}):
            yield f"                 still there: {name}"
        if look.error:
            yield f"                 {look.error}"
    for note in certificate.notes:
        yield "Note: " + note.replace("\n", "\n      ")
    if certificate.bill:
        yield from ("", "What it had cost", certificate.bill)
    yield ""
    whole, again = ("seat", "classroom remove") if certificate.student else ("class", "classroom down")
    verdicts = {
        "absent": f"everything of the {whole} is gone",
        "present": f"something is still there; run `{again}` again",
        "could-not-look": f"not proven: something could not be looked at; mend that and run `{again}` again",
    }
    yield f"Verdict: {verdicts[certificate.verdict]} (exit code {certificate.exit_code})"
