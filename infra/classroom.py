"""The classroom: a seat per student on one Kubeflow, and what of it the teacher needs to know."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_kubernetes as k8s
from pulumi.automation import OutputValue
from pydantic import SecretStr

from infra import naming
from infra.access import Host, HostArgs, read
from infra.failure import Failure
from infra.seat import Seat, SeatArgs
from infra.spec import ClassSpec, Platform

PROJECT = "classroom"


@dataclass(frozen=True, kw_only=True)
class ClassroomArgs:
    """The class, and the Kubeflow it is held on."""

    spec: ClassSpec
    platform: Platform


class Classroom(pulumi.ComponentResource):
    """A class that stands. `seats` tells by student id what all may know, `passwords` what only the student may."""

    gateway: str
    seats: pulumi.Output[dict[str, Any]]
    passwords: pulumi.Output[dict[str, str]]

    def __init__(self, name: str, args: ClassroomArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("classroom:index:Classroom", name, None, opts)
        ca = read(args.platform.ca_file, "platform.ca_file") if args.platform.ca_file else None
        access = args.spec.access
        if access.host and access.tls:
            Host(
                name,
                HostArgs(class_name=args.spec.name, host=access.host, tls=access.tls, platform=args.platform),
                pulumi.ResourceOptions(parent=self),
            )
        made = {
            student.id: Seat(
                f"{name}-{student.id}",
                SeatArgs(spec=args.spec, student=student, platform=args.platform, ca=ca),
                pulumi.ResourceOptions(parent=self),
            )
            for student in args.spec.students
        }
        names = {student.id: student.name for student in args.spec.students}
        self.gateway = args.spec.address(args.platform)
        self.seats = pulumi.Output.all(
            **{
                student: {
                    "name": names[student],
                    "email": seat.email,
                    "namespace": seat.namespace,
                    "notebooks": seat.notebooks,
                    "bucket": seat.bucket,
                }
                for student, seat in made.items()
            }
        )
        self.passwords = pulumi.Output.secret(
            pulumi.Output.all(**{student: seat.password for student, seat in made.items()})
        )
        self.register_outputs({"gateway": self.gateway, "seats": self.seats, "passwords": self.passwords})


class Taken(Failure):
    """A name that a seat would have belongs to something that this class did not make."""


def refuse_taken(spec: ClassSpec, platform: Platform) -> None:
    """Refuse a class that would take over what is not its own: Kubernetes would let it, and `down` would delete it.

    Errors: `Taken`; `infra.cluster.ClusterUnreachable`.
    """
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
                other = "student another `email`" if what == "login" else "class another `name`"
                raise Taken(
                    f"the {what} {shown} of student {student.id} stands already and belongs to {owner}; "
                    f"end that first, or give the {other}"
                )


def program(spec: ClassSpec, platform: Platform) -> Callable[[], None]:
    """The Pulumi program of a class. Its outputs: `gateway`, `seats` and, secret, `passwords`."""

    def run() -> None:
        cluster = k8s.Provider(
            "cluster",
            # The path, not the content: the operator's key stays out of the state.
            kubeconfig=str(platform.kubeconfig),
            context=platform.context,
            kube_client_settings={"qps": 400, "burst": 800},
        )
        classroom = Classroom(
            spec.name,
            ClassroomArgs(spec=spec, platform=platform),
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


def handout(outputs: Mapping[str, OutputValue]) -> Handout | None:
    """The outputs of a class's program as a handout; None when the class does not stand."""
    if "seats" not in outputs or "passwords" not in outputs:
        return None
    passwords = outputs["passwords"].value
    seats = (
        SeatDetails(id=student, password=SecretStr(passwords[student]), **details)
        for student, details in outputs["seats"].value.items()
    )
    return Handout(gateway=outputs["gateway"].value, seats=tuple(seats))
