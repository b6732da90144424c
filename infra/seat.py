"""A student's seat: a namespace with everything that the student works with, and nothing that others reach.

With `tenancy: namespace` the program fills the namespace itself, with the names that Kubeflow's profile controller
uses, so that whatever expects a profile finds one. With `tenancy: profile` that controller makes namespace, rights
and quota of a Profile (kubeflow.org/v1), and the program adds what a Profile does not bring.
"""

import base64
import json
import re
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import urlsplit

import pulumi
import pulumi_kubernetes as k8s

from infra import naming
from infra.access import Access, AccessArgs, adapter
from infra.bucket import Bucket, BucketArgs
from infra.identity import Identity, IdentityArgs
from infra.notebook import CA_CONFIG_MAP, PORT, Notebook, NotebookArgs
from infra.spec import ClassSpec, Platform, Session, Student
from infra.stores import StoreAddress

_PIPELINE_POD: Final = {"pipelines.kubeflow.org/v2_component": "true"}
_MLMD_PORT, _PIPELINES_GRPC_PORT = 8080, 8887
_KEY_HOLDER: Final = "mlpipeline-minio-artifact"
# The cluster roles that come with every Kubeflow.
_EDIT, _VIEW = "kubeflow-edit", "kubeflow-view"
_PROFILE_WITHIN_SECONDS: Final = 120

SESSION_START: Final = "kubeflow-classroom/session-start"
SESSION_END: Final = "kubeflow-classroom/session-end"

Policy = k8s.networking.v1.NetworkPolicySpecArgsDict
Peer = k8s.networking.v1.NetworkPolicyPeerArgsDict
Port = k8s.networking.v1.NetworkPolicyPortArgsDict
Selector = k8s.meta.v1.LabelSelectorArgsDict


@dataclass(frozen=True, kw_only=True)
class SeatArgs:
    """Whose seat it is, in which class, on which platform. `ca` is the gateway's CA, where it has one of its own."""

    spec: ClassSpec
    student: Student
    platform: Platform
    ca: str | None


class Seat(pulumi.ComponentResource):
    """Namespace, rights, limits, network, notebooks, bucket, pipeline settings and login of one student."""

    namespace: str
    email: str
    password: pulumi.Output[str]
    notebooks: dict[str, str]
    bucket: pulumi.Output[str]

    def __init__(self, name: str, args: SeatArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("classroom:index:Seat", name, None, opts)
        student, platform = args.student, args.platform
        spec = args.spec.of(student)
        self.namespace = naming.namespace(spec.name, student.id)
        labels = naming.labels(spec.name, student.id)
        own = pulumi.ResourceOptions(parent=self)

        identity = Identity(
            name,
            IdentityArgs(class_name=spec.name, student=student, platform=platform),
            pulumi.ResourceOptions(parent=self),
        )
        bucket = Bucket(
            name, BucketArgs(class_name=spec.name, student=student.id, platform=platform, spec=spec.bucket), own
        )
        bucket_name = StoreAddress.of(platform).holding(spec.name, student.id).bucket
        metadata = _Metadata(namespace=self.namespace, labels=labels)
        home, needs = _home(name, spec, platform, student.email, metadata, own)
        # What lies in the namespace goes with it: one deletion instead of dozens.
        inside = pulumi.ResourceOptions(parent=self, depends_on=[home, *needs], deleted_with=home)

        if spec.tenancy == "namespace":
            needs += _rights(name, student.email, metadata, inside)
            needs += _limits(name, spec, metadata, inside)
        needs.append(_container_sizes(name, spec, metadata, inside))
        _network(name, platform, metadata, inside)
        _pipeline_settings(name, spec, platform, bucket, bucket_name, metadata, inside)
        if args.ca is not None:
            data = {"ca.crt": args.ca}
            needs.append(k8s.core.v1.ConfigMap(f"{name}-ca", metadata=metadata(CA_CONFIG_MAP), data=data, opts=inside))

        self.notebooks = {}
        for notebook in spec.notebooks:
            made = Notebook(
                f"{name}-{notebook.name}",
                NotebookArgs(
                    namespace=self.namespace,
                    home=home,
                    # A pod that comes before its ServiceAccount or quota is refused, and tried again seconds later.
                    needs=tuple(needs),
                    labels=labels,
                    notebook=notebook,
                    platform=platform,
                    address=spec.address(platform),
                    bucket=bucket_name,
                    ca=args.ca is not None,
                    idle_minutes=spec.idle_minutes,
                ),
                own,
            )
            self.notebooks[notebook.name] = made.url
        Access(
            name,
            AccessArgs(
                namespace=self.namespace,
                home=home,
                labels=labels,
                email=student.email,
                notebooks=tuple(self.notebooks),
                platform=platform,
                profile=spec.tenancy == "profile",
            ),
            own,
        )
        self.email, self.password, self.bucket = student.email, identity.password, bucket.bucket
        self.register_outputs({"namespace": self.namespace, "email": self.email, "bucket": self.bucket})


@dataclass(frozen=True, kw_only=True)
class _Metadata:
    """Metadata of an object in the seat's namespace."""

    namespace: str
    labels: dict[str, str]

    def __call__(self, name: str, annotations: dict[str, str] | None = None) -> k8s.meta.v1.ObjectMetaArgs:
        return k8s.meta.v1.ObjectMetaArgs(
            name=name,
            namespace=self.namespace,
            labels=self.labels,
            annotations={**naming.ADOPTING, **(annotations or {})},
        )


def _home(
    name: str, spec: ClassSpec, platform: Platform, email: str, metadata: "_Metadata", opts: pulumi.ResourceOptions
) -> tuple[pulumi.Resource, list[pulumi.Resource]]:
    """What the seat goes with when it goes, and what has to stand besides before anything is put into the namespace."""
    annotations = {**naming.ADOPTING, "owner": email, **session_annotations(spec.session)}
    if spec.tenancy == "namespace":
        home = k8s.core.v1.Namespace(
            f"{name}-namespace",
            metadata={
                "name": metadata.namespace,
                "labels": {
                    **metadata.labels,
                    **adapter(platform).NAMESPACE_LABELS,
                    # Who may make pods could otherwise make one that owns the node. A sidecar of Istio fits in where
                    # its CNI plugin leads the traffic to it, as in Kubeflow 1.10; without, it needs NET_ADMIN.
                    "pod-security.kubernetes.io/enforce": "baseline",
                },
                "annotations": annotations,
            },
            opts=opts,
        )
        return home, []
    profile = k8s.apiextensions.CustomResource(
        f"{name}-profile",
        api_version="kubeflow.org/v1",
        kind="Profile",
        metadata={
            "name": metadata.namespace,
            "labels": metadata.labels,
            "annotations": {
                **naming.ADOPTING,
                # The controller says nothing once it is done, but it sets its finalizer last, when namespace, accounts,
                # rights and quota stand (profile_controller.go, Reconcile).
                "pulumi.com/waitFor": "jsonpath={.metadata.finalizers[0]}=profile-finalizer",
                "pulumi.com/timeoutSeconds": str(_PROFILE_WITHIN_SECONDS),
            },
        },
        spec=profile_spec(spec, email),
        opts=opts,
    )
    # The controller's own namespace, marked as ours. What Pod Security it enforces, and whether it has sidecars, is the
    # operator's choice.
    marked = k8s.core.v1.Namespace(
        f"{name}-namespace",
        metadata={"name": metadata.namespace, "labels": metadata.labels, "annotations": annotations},
        opts=pulumi.ResourceOptions.merge(
            # Deleted by itself, it would be made again by the controller as long as the profile stands.
            opts,
            pulumi.ResourceOptions(depends_on=[profile], deleted_with=profile),
        ),
    )
    return profile, [marked]


def profile_spec(spec: ClassSpec, email: str) -> dict[str, Any]:
    """The spec of a Profile (kubeflow.org/v1): its owner, and the quota that the controller makes of it.

    Source: kubeflow/kubeflow components/profile-controller/config/crd/bases/kubeflow.org_profiles.yaml.
    """
    return {"owner": {"kind": "User", "name": email}, "resourceQuotaSpec": {"hard": quota(spec)}}


def session_annotations(session: Session | None) -> dict[str, str]:
    """When a class begins and ends, on its namespaces: RFC 3339 in UTC. Nothing when its file does not say."""
    if session is None:
        return {}
    return {SESSION_START: _rfc3339(session.starts_at), SESSION_END: _rfc3339(session.ends_at)}


def _rfc3339(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _rights(name: str, email: str, metadata: _Metadata, opts: pulumi.ResourceOptions) -> list[pulumi.Resource]:
    """The student may edit in this namespace alone; the seat's ServiceAccounts are the ones that Kubeflow expects."""
    made: list[pulumi.Resource] = []
    for account, role in (("default-editor", _EDIT), ("default-viewer", _VIEW)):
        made.append(k8s.core.v1.ServiceAccount(f"{name}-{account}", metadata=metadata(account), opts=opts))
        subject = k8s.rbac.v1.SubjectArgs(kind="ServiceAccount", name=account, namespace=metadata.namespace)
        made.append(_binding(f"{name}-{account}-role", metadata(account), role, subject, opts))
    user = k8s.rbac.v1.SubjectArgs(kind="User", name=email, api_group="rbac.authorization.k8s.io")
    # Kubeflow's access management reads whose binding it is from these two annotations.
    annotations = {"user": email, "role": "edit"}
    made.append(_binding(f"{name}-student-role", metadata("student", annotations), _EDIT, user, opts))
    return made


def _binding(
    name: str,
    metadata: k8s.meta.v1.ObjectMetaArgs,
    role: str,
    subject: k8s.rbac.v1.SubjectArgs,
    opts: pulumi.ResourceOptions,
) -> pulumi.Resource:
    reference = k8s.rbac.v1.RoleRefArgs(api_group="rbac.authorization.k8s.io", kind="ClusterRole", name=role)
    return k8s.rbac.v1.RoleBinding(name, metadata=metadata, role_ref=reference, subjects=[subject], opts=opts)


def quota(spec: ClassSpec) -> dict[str, str]:
    """The hard limits of a seat, by the names that a ResourceQuota has for them."""
    given = spec.quota
    return {
        "requests.cpu": given.cpu,
        "limits.memory": given.memory,
        "pods": str(given.pods),
        "persistentvolumeclaims": str(given.volumes),
        "requests.storage": given.storage,
        # A seat is reached through the gateway alone.
        "services.loadbalancers": "0",
        "services.nodeports": "0",
        **{f"requests.{resource}": str(count) for resource, count in spec.gpus().items()},
    }


def _limits(name: str, spec: ClassSpec, metadata: _Metadata, opts: pulumi.ResourceOptions) -> list[pulumi.Resource]:
    hard = quota(spec)
    return [k8s.core.v1.ResourceQuota(f"{name}-quota", metadata=metadata("seat"), spec={"hard": hard}, opts=opts)]


def _container_sizes(name: str, spec: ClassSpec, metadata: _Metadata, opts: pulumi.ResourceOptions) -> pulumi.Resource:
    given = spec.quota
    default: k8s.core.v1.LimitRangeItemArgsDict = {
        "type": "Container",
        "default_request": {"cpu": given.container_cpu, "memory": given.container_memory},
        # No cpu limit: it would slow a pod down while the cpu idles. The quota asks for a memory limit on each.
        "default": {"memory": given.container_memory_limit},
    }
    return k8s.core.v1.LimitRange(f"{name}-limits", metadata=metadata("seat"), spec={"limits": [default]}, opts=opts)


def _network(name: str, platform: Platform, metadata: _Metadata, opts: pulumi.ResourceOptions) -> None:
    for policy, spec in policies(platform).items():
        k8s.networking.v1.NetworkPolicy(f"{name}-{policy}", metadata=metadata(policy), spec=spec, opts=opts)


def policies(platform: Platform) -> dict[str, Policy]:
    """The network policies of a seat, by name. Nothing comes in or goes out but what they allow.

    Ports are those of the pods behind a service: policies judge a packet after its service address was resolved.
    """
    everyone: Selector = {}
    gateway: Peer = {"namespace_selector": _namespace(platform.gateway_namespace)}
    kubeflow: Peer = {"namespace_selector": _namespace(platform.kubeflow_namespace)}
    controller: Peer = {**kubeflow, "pod_selector": {"match_labels": {"app": "notebook-controller"}}}
    dns: Peer = {
        "namespace_selector": _namespace("kube-system"),
        "pod_selector": {"match_labels": {"k8s-app": "kube-dns"}},
    }
    servers: Selector = {"match_expressions": [{"key": "notebook-name", "operator": "Exists"}]}
    store, store_ports = _object_store(platform)
    return {
        "default-deny": {"pod_selector": everyone, "policy_types": ["Ingress", "Egress"]},
        "seat-itself": {
            "pod_selector": everyone,
            "policy_types": ["Ingress", "Egress"],
            "ingress": [{"from_": [{"pod_selector": everyone}]}],
            "egress": [{"to": [{"pod_selector": everyone}]}],
        },
        # The controller asks a server when it was last used.
        "to-notebooks": {
            "pod_selector": servers,
            "policy_types": ["Ingress"],
            "ingress": [{"from_": [gateway, controller], "ports": _tcp(PORT)}],
        },
        "from-seat": {
            "pod_selector": everyone,
            "policy_types": ["Egress"],
            "egress": [
                {"to": [dns], "ports": [{"protocol": "UDP", "port": 53}, *_tcp(53)]},
                {"to": [gateway, *_host_block(platform.url)], "ports": _tcp(443, 8443)},
                {"to": [store], "ports": _tcp(*store_ports)},
                {"to": [{"ip_block": {"cidr": cidr}} for cidr in platform.api_server_cidrs], "ports": _tcp(443, 6443)},
                *adapter(platform).EGRESS,
            ],
        },
        "from-pipelines": {
            "pod_selector": {"match_labels": _PIPELINE_POD},
            "policy_types": ["Egress"],
            "egress": [{"to": [kubeflow], "ports": _tcp(_MLMD_PORT, _PIPELINES_GRPC_PORT)}],
        },
    }


def _namespace(name: str) -> Selector:
    return {"match_labels": {"kubernetes.io/metadata.name": name}}


def _tcp(*ports: int) -> list[Port]:
    return [{"protocol": "TCP", "port": port} for port in ports]


def _host_block(url: str) -> list[Peer]:
    """The host of a URL as a peer, where it is an address; a policy knows no names."""
    try:
        address = ip_address(urlsplit(url).hostname or "")
    except ValueError:
        return []
    return [{"ip_block": {"cidr": f"{address}/{address.max_prefixlen}"}}]


def _object_store(platform: Platform) -> tuple[Peer, tuple[int, ...]]:
    """The object store as a policy's peer, and its ports."""
    url = urlsplit(platform.object_store.endpoint_in_cluster)
    port = url.port or (443 if url.scheme == "https" else 80)
    if block := _host_block(platform.object_store.endpoint_in_cluster):
        return block[0], (port,)
    service = re.fullmatch(r"[a-z0-9-]+\.([a-z0-9-]+)(\.svc(\.cluster\.local)?)?", url.hostname or "")
    if service:
        return {"namespace_selector": _namespace(service[1])}, (port,)
    # A store outside, known by name alone: the internet, without the networks that a cluster may have for itself.
    private = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "198.18.0.0/15", "169.254.0.0/16", "100.64.0.0/10"]
    return {"ip_block": {"cidr": "0.0.0.0/0", "except_": private}}, (port,)


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _pipeline_settings(
    name: str,
    spec: ClassSpec,
    platform: Platform,
    bucket: Bucket,
    bucket_name: str,
    metadata: _Metadata,
    opts: pulumi.ResourceOptions,
) -> None:
    """What a run in this namespace reads: where its objects go, with which key, and where its records go."""
    store = platform.object_store
    region = spec.bucket.region or store.region
    address = store.address(region)
    k8s.core.v1.Secret(
        f"{name}-key",
        metadata=metadata(_KEY_HOLDER),
        # Not `string_data`, which the provider finds changed on every look.
        data={"accesskey": bucket.access_key.apply(_base64), "secretkey": bucket.secret_key.apply(_base64)},
        opts=opts,
    )
    reference = {"secretName": _KEY_HOLDER, "accessKeyKey": "accesskey", "secretKeyKey": "secretkey"}
    plain = address.startswith("http://")
    provider = {
        "endpoint": address,
        "region": region,
        "disableSSL": plain,
        "forcePathStyle": store.path_style,
        "credentials": {"fromEnv": False, "secretRef": reference},
    }
    # JSON is YAML, and says the same however a YAML library would write it.
    launcher = {
        "defaultPipelineRoot": f"s3://{bucket_name}/{spec.bucket.artifacts}",
        "providers": json.dumps({"s3": {"default": provider}}),
    }
    repository = {
        "archiveLogs": True,
        "s3": {
            "endpoint": urlsplit(address).netloc,
            "insecure": plain,
            "bucket": bucket_name,
            "region": region,
            "keyFormat": spec.bucket.artifacts + "/{{workflow.namespace}}/{{workflow.name}}/{{pod.name}}",
            "accessKeySecret": {"name": _KEY_HOLDER, "key": "accesskey"},
            "secretKeySecret": {"name": _KEY_HOLDER, "key": "secretkey"},
        },
    }
    records = {
        "METADATA_GRPC_SERVICE_HOST": f"metadata-grpc-service.{platform.kubeflow_namespace}",
        "METADATA_GRPC_SERVICE_PORT": str(_MLMD_PORT),
    }
    repositories = "artifact-repositories"
    default = {"workflows.argoproj.io/default-artifact-repository": "seat"}
    for each, data, annotations in (
        ("kfp-launcher", launcher, None),
        ("metadata-grpc-configmap", records, None),
        (repositories, {"seat": json.dumps(repository)}, default),
    ):
        k8s.core.v1.ConfigMap(f"{name}-{each}", metadata=metadata(each, annotations), data=data, opts=opts)
