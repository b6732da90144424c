"""The classroom: a seat per student on one Kubeflow, and what of it the teacher needs to know."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import pulumi
import pulumi_kubernetes as k8s
from pulumi.automation import OutputValue
from pydantic import SecretStr

from infra import naming, stores
from infra.access import Host, HostArgs, keep_sessions, read
from infra.failure import CallFailure, Failure
from infra.seat import Seat, SeatArgs
from infra.session_end import SessionEnd, SessionEndArgs
from infra.spec import ClassSpec, Platform, Student

PROJECT: Final = "classroom"
SEATS_PER_STACK: Final = 50
SEAT_TYPE: Final = "classroom:index:Seat"

# A module of Pulumi's loads itself when it is first used, and breaks when the programs of two stacks do so at once
# (python/cpython#114763, in a copy of its own): all that seats are made of is used here.
_LOADED: Final = (
    k8s.apiextensions.CustomResource,
    k8s.apps.v1.Deployment,
    k8s.batch.v1.CronJob,
    k8s.core.v1.Namespace,
    k8s.meta.v1.ObjectMetaArgs,
    k8s.networking.v1.NetworkPolicy,
    k8s.rbac.v1.RoleBinding,
)

# The store is asked about each bucket and user that has to be looked at.
_ASKED_AT_ONCE: Final = 8


@dataclass(frozen=True, kw_only=True)
class ClassroomArgs:
    """The class, and the Kubeflow it is held on; of whom to make seats, and whether to make what seats share."""

    spec: ClassSpec
    platform: Platform
    students: tuple[Student, ...]
    shared: bool


class Classroom(pulumi.ComponentResource):
    """A class that stands. `seats` tells by student id what all may know, `passwords` what only the student may.

    What a seat that failed cannot tell is None, and keeps nobody from hearing of the others.
    """

    gateway: str
    seats: pulumi.Output[dict[str, Any]]
    passwords: pulumi.Output[dict[str, str | None]]

    def __init__(self, name: str, args: ClassroomArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("classroom:index:Classroom", name, None, opts)
        ca = read(args.platform.ca_file, "platform.ca_file") if args.platform.ca_file else None
        access = args.spec.access
        if args.shared:
            keep_sessions(name, args.spec.name, args.platform, pulumi.ResourceOptions(parent=self))
        if args.shared and access.host and access.tls:
            Host(
                name,
                HostArgs(class_name=args.spec.name, host=access.host, tls=access.tls, platform=args.platform),
                pulumi.ResourceOptions(parent=self),
            )
        if args.shared and args.spec.session:
            SessionEnd(
                name,
                SessionEndArgs(class_name=args.spec.name, session=args.spec.session, platform=args.platform),
                pulumi.ResourceOptions(parent=self),
            )
        made = {
            student.id: Seat(
                f"{name}-{student.id}",
                SeatArgs(spec=args.spec, student=student, platform=args.platform, ca=ca),
                pulumi.ResourceOptions(parent=self),
            )
            for student in args.students
        }
        names = {student.id: student.name for student in args.students}
        self.gateway = args.spec.address(args.platform)
        self.seats = pulumi.Output.all(
            **{
                student: _unless_failed(
                    pulumi.Output.all(
                        name=names[student],
                        email=seat.email,
                        namespace=seat.namespace,
                        notebooks=seat.notebooks,
                        bucket=seat.bucket,
                    )
                )
                for student, seat in made.items()
            }
        )
        self.passwords = pulumi.Output.secret(
            pulumi.Output.all(**{student: _unless_failed(seat.password) for student, seat in made.items()})
        )
        self.register_outputs({"gateway": self.gateway, "seats": self.seats, "passwords": self.passwords})


def _unless_failed(told: pulumi.Output[Any]) -> pulumi.Output[Any]:
    """The same, but None when a resource that it comes from failed."""
    return told.recover(lambda _failure: None)


class Taken(Failure):
    """Names that a seat would have belong to something that this class did not make. A line for each."""


class ManyStacks(CallFailure):
    """The class is too large for the one stack of plain Pulumi."""


def refuse_taken(spec: ClassSpec, platform: Platform, known: Collection[str] | None = None) -> None:
    """Refuse a class that would take over what is not its own: Kubernetes would let it, and `down` would delete it.

    Ours is what carries the seat's own labels; in the object store, what its adapter says. It is adopted, so a seat
    that a crash left half made is gone on with. Whose seat a state knows (`known`) has its bucket already; where
    nobody says who that is, the store is not asked, and its own resources refuse what is not theirs.

    Errors: `Taken`; `infra.cluster.ClusterUnreachable`, `infra.stores.ObjectStoreUnreachable`.
    """
    taken = list(_taken_in_cluster(spec, platform))
    taken += [] if known is None else _taken_in_store(spec, platform, known)
    if taken:
        mend = (
            "end what they belong to first, give the class another `name`, or, for a login, the student another `email`"
        )
        raise Taken("\n".join([*taken, mend]))


def _taken_in_cluster(spec: ClassSpec, platform: Platform) -> Iterator[str]:
    # The Kubernetes client takes a second to import, which a unit test does not need.
    from infra import cluster

    with cluster.api(platform.kubeconfig, platform.context) as api:
        namespaces = cluster.get(api, "/api/v1/namespaces") or {}
        passwords = cluster.get(api, f"/apis/dex.coreos.com/v1/namespaces/{platform.dex_namespace}/passwords") or {}
        profiles = cluster.get(api, "/apis/kubeflow.org/v1/profiles") or {} if spec.tenancy == "profile" else {}
    standing = {("namespace", item["metadata"]["name"]): item for item in namespaces.get("items", [])}
    standing |= {("profile", item["metadata"]["name"]): item for item in profiles.get("items", [])}
    standing |= {("login", item["metadata"]["name"]): item for item in passwords.get("items", [])}
    for student in spec.students:
        namespace = naming.namespace(spec.name, student.id)
        for what, name, shown in (
            ("namespace", namespace, namespace),
            ("profile", namespace, namespace),
            ("login", naming.dex_password_name(student.email), student.email),
        ):
            labels = (standing.get((what, name)) or {"metadata": {}})["metadata"].get("labels") or {}
            wanted = naming.labels(spec.name, student.id)
            # A namespace that the controller has just made of a profile of ours does not carry our labels yet.
            made = standing.get(("profile", name)) if what == "namespace" else None
            of_ours = made is not None and wanted.items() <= (made["metadata"].get("labels") or {}).items()
            if (what, name) in standing and not of_ours and not wanted.items() <= labels.items():
                owner = f"class {labels['classroom']}" if "classroom" in labels else "something else"
                yield f"the {what} {shown} of student {student.id} stands already and belongs to {owner}"


def _taken_in_store(spec: ClassSpec, platform: Platform, known: Collection[str]) -> Iterator[str]:
    students = [student.id for student in spec.students if student.id not in known]
    if not students:
        return
    address = stores.StoreAddress.of(platform)
    store = stores.connect(address)

    def look(student: str) -> str | None:
        holding = address.holding(spec.name, student)
        found = store.standing(holding)
        if found.ours:
            return None
        what = f"bucket {holding.bucket}" if found.bucket else f"object store's user {holding.user}"
        return f"the {what} of student {student} stands already and belongs to something else"

    with ThreadPoolExecutor(_ASKED_AT_ONCE) as pool:
        yield from filter(None, pool.map(look, students))


def program(
    spec: ClassSpec, platform: Platform, students: tuple[Student, ...] | None = None, *, shared: bool = True
) -> Callable[[], None]:
    """The Pulumi program of a class, or of the seats of `students` alone, with or without what the seats share.

    Its outputs: `gateway`, `seats` and, secret, `passwords`.

    Errors, when it runs: `ManyStacks` for a whole class that one stack is not meant to hold.
    """

    def run() -> None:
        if students is None and len(spec.students) > SEATS_PER_STACK:
            raise ManyStacks(
                f"class {spec.name} has {len(spec.students)} seats, in stacks of {SEATS_PER_STACK}; "
                "run `scripts/classroom up` with its file, which keeps them apart"
            )
        # Some lines for each of thousands of resources, each a call to the engine that is waited for.
        pulumi.log.debug = lambda *_, **__: None
        cluster = k8s.Provider(
            "cluster",
            # The path, not the content: the operator's key stays out of the state.
            kubeconfig=str(platform.kubeconfig),
            context=platform.context,
            kube_client_settings={"qps": 400, "burst": 800},
        )
        classroom = Classroom(
            spec.name,
            ClassroomArgs(
                spec=spec,
                platform=platform,
                students=spec.students if students is None else students,
                shared=shared,
            ),
            pulumi.ResourceOptions(providers={"kubernetes": cluster}),
        )
        pulumi.export("gateway", classroom.gateway)
        pulumi.export("seats", classroom.seats)
        pulumi.export("passwords", classroom.passwords)

    return run


@dataclass(frozen=True, kw_only=True)
class SeatDetails:
    """What a student is told: where to log in as whom, and what is there. `notebooks`: URL by name."""

    id: str
    name: str
    email: str
    password: SecretStr
    namespace: str
    notebooks: Mapping[str, str]
    bucket: str


@dataclass(frozen=True, kw_only=True)
class Handout:
    """What the teacher hands out once a class stands: the gateway's address and a seat for each student."""

    gateway: str
    seats: tuple[SeatDetails, ...]

    @property
    def passwords(self) -> dict[str, SecretStr]:
        """The passwords by student id."""
        return {seat.id: seat.password for seat in self.seats}


def handout(*outputs: Mapping[str, OutputValue], students: Iterable[str] | None = None) -> Handout | None:
    """The outputs of a class's stacks as a handout, in the order of `students` and of no others where they are given.

    Left out is a seat that could not tell all of itself when it was made. None when no seat is left.
    """
    made = [each for each in outputs if "seats" in each and "passwords" in each]
    seats = {
        student: SeatDetails(id=student, password=SecretStr(each["passwords"].value[student]), **details)
        for each in made
        for student, details in each["seats"].value.items()
        if details and each["passwords"].value.get(student)
    }
    chosen = [seats[student] for student in (seats if students is None else students) if student in seats]
    return Handout(gateway=made[0]["gateway"].value, seats=tuple(chosen)) if chosen else None
