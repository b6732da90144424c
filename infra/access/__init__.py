"""The way from the gateway to a seat's notebooks, open to the seat's student alone; and the gateway's certificate for
the host name of a class.

Each kind of gateway is one file here, named as `platform.gateway.kind` has it, which offers what `Adapter` lists. What
it makes lies where its student can read but not write it; the roles are Kubeflow's, so `refuse_unready` looks at them.
The certificate and its key lie in the gateway's namespace, where no student reads.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Final, Protocol, cast

import pulumi
import pulumi_kubernetes as k8s

from infra import naming
from infra.access.certificate import CertificateArgs, FileUnreadable, certificate, read
from infra.failure import CallFailure
from infra.spec import ClassSpec, Platform, Tls

__all__ = [
    "Access",
    "AccessArgs",
    "FileUnreadable",
    "Host",
    "HostArgs",
    "Unready",
    "adapter",
    "keep_sessions",
    "read",
    "refuse_unready",
]

Egress = k8s.networking.v1.NetworkPolicyEgressRuleArgsDict

# What students are by tenancy: the profile controller makes a Profile's owner its admin (profile_controller.go), and
# what runs in a seat is an editor either way.
_ROLES: Final = {"namespace": ("kubeflow-edit",), "profile": ("kubeflow-edit", "kubeflow-admin")}
_WRITING: Final = frozenset({"create", "update", "patch", "delete", "*"})


@dataclass(frozen=True, kw_only=True)
class AccessArgs:
    """Whose notebooks are to be reached, and by whom. The routes go with `home`, the namespace or its profile.

    `profile`: Kubeflow's profile controller keeps the namespace, and makes what it makes there.
    """

    namespace: str
    home: pulumi.Resource
    labels: dict[str, str]
    email: str
    notebooks: tuple[str, ...]
    platform: Platform
    profile: bool

    def metadata(self, name: str) -> k8s.meta.v1.ObjectMetaArgs:
        """Of an object in the seat's namespace."""
        return k8s.meta.v1.ObjectMetaArgs(
            name=name, namespace=self.namespace, labels=self.labels, annotations=naming.ADOPTING
        )


@dataclass(frozen=True, kw_only=True)
class HostArgs:
    """The host name of a class, where its certificate comes from, and at which gateway."""

    class_name: str
    host: str
    tls: Tls
    platform: Platform

    @property
    def certificate(self) -> CertificateArgs:
        """What is to be shown for it."""
        return CertificateArgs(
            class_name=self.class_name,
            host=self.host,
            tls=self.tls,
            namespace=self.platform.gateway_namespace,
        )


class Adapter(Protocol):
    """What a file of this package offers: how one kind of gateway lets students in."""

    NAMESPACE_LABELS: Mapping[str, str]
    """The labels that a seat's namespace needs for it."""
    EGRESS: Sequence[Egress]
    """Where to the pods of a seat must get besides, as rules of a NetworkPolicy."""
    ROUTE_GROUPS: Sequence[str]
    """The API groups whose objects tell it where requests go. Who writes one can have others' sessions sent to a pod
    of their own."""
    ROUTES_CLOSED_BY: str
    """What an operator does where students may write them."""

    def routes(self, name: str, args: AccessArgs, opts: pulumi.ResourceOptions) -> None:
        """The routes of a seat's notebooks, and the rule that lets its student alone pass."""

    def keep_sessions(self, name: str, class_name: str, platform: Platform, opts: pulumi.ResourceOptions) -> None:
        """What has to stand once for a class, so that no notebook server is shown the session of who opens it."""

    def show(self, name: str, args: HostArgs, secret: str, opts: pulumi.ResourceOptions) -> None:
        """Have the gateway show the certificate in `secret`, of its own namespace, to who asks for the class's host."""

    def unserved(self, args: HostArgs) -> str:
        """Why the gateway would not do so, and what mends it; empty when it will. Errors: `ClusterUnreachable`."""


def adapter(platform: Platform) -> Adapter:
    """The one for the platform's kind of gateway."""
    return cast(Adapter, import_module(f"{__name__}.{platform.gateway.kind}"))


class Access(pulumi.ComponentResource):
    """Routes `/notebook/<namespace>/<notebook>/` at the gateway: a login is asked for, and only `email` may pass."""

    address: str

    def __init__(self, name: str, args: AccessArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("classroom:index:Access", name, None, opts)
        if not args.email:
            # A rule that names nobody might let everybody pass.
            raise ValueError(f"{name}: an access needs the e-mail of who may pass")
        inside = pulumi.ResourceOptions(parent=self, deleted_with=args.home, depends_on=[args.home])
        adapter(args.platform).routes(name, args, inside)
        self.address = args.platform.url
        self.register_outputs({"address": self.address})


def keep_sessions(name: str, class_name: str, platform: Platform, opts: pulumi.ResourceOptions) -> None:
    """Who opens a notebook of the class shows the session to the gateway, not to the notebook's owner."""
    adapter(platform).keep_sessions(name, class_name, platform, opts)


class Host(pulumi.ComponentResource):
    """The gateway shows a certificate for `host`. Routes need no change: those of Kubeflow answer to every name."""

    host: str

    def __init__(self, name: str, args: HostArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("classroom:index:Host", name, None, opts)
        secret, needs = certificate(name, args.certificate, pulumi.ResourceOptions(parent=self))
        shown = pulumi.ResourceOptions(parent=self, depends_on=needs)
        adapter(args.platform).show(name, args, secret, shown)
        self.host = args.host
        self.register_outputs({"host": self.host})


class Unready(CallFailure):
    """The gateway or the rights around it, neither of which is the class's, are not ready for the class."""


def refuse_unready(spec: ClassSpec, platform: Platform) -> None:
    """Refuse a class whose students could lead others' sessions to themselves, or whose host would lead nowhere.

    Errors: `Unready`; `infra.cluster.ClusterUnreachable`.
    """
    gateway, access = adapter(platform), spec.access
    why = _open_to_students(spec, platform, gateway)
    if not why and access.host and access.tls:
        why = gateway.unserved(HostArgs(class_name=spec.name, host=access.host, tls=access.tls, platform=platform))
    if why:
        raise Unready(why)


def _open_to_students(spec: ClassSpec, platform: Platform, gateway: Adapter) -> str:
    """Which role lets students write the gateway's routes, and what mends it; empty when none does."""
    # The Kubernetes client takes a second to import, which a unit test does not need.
    from infra import cluster

    with cluster.api(platform.kubeconfig, platform.context) as api:
        for role in _ROLES[spec.tenancy]:
            found = cluster.get(api, f"/apis/rbac.authorization.k8s.io/v1/clusterroles/{role}") or {}
            # The rules of an aggregated role are there as well: the controller copies them in.
            written = {
                group
                for rule in found.get("rules") or ()
                if _WRITING.intersection(rule["verbs"])
                for group in rule.get("apiGroups") or ()
            }
            if groups := [each for each in gateway.ROUTE_GROUPS if written & {each, "*"}]:
                return (
                    f"the ClusterRole {role} lets students write objects of {', '.join(groups)}: with a route of their "
                    f"own they would be sent the sessions of others; {gateway.ROUTES_CLOSED_BY}"
                )
    return ""
