"""How the platform runs a program: a Deployment (or DaemonSet) of one pod with few rights, and a Service before it.

Everything runs without root, without capabilities and on a read-only file system unless it says otherwise, and asks for
little, so that a class fits beside the platform on two cores.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pulumi
import pulumi_kubernetes as k8s

from infra.platform.images import Program

NOBODY = 65532
"""The user id most parts run as: distroless images call it nonroot."""


@dataclass(frozen=True, kw_only=True)
class Mount:
    """A volume, and where a container sees it."""

    name: str
    path: str
    source: k8s.core.v1.VolumeArgs
    sub_path: str | None = None
    read_only: bool = True
    is_claim: bool = False


def config_map(name: str, path: str, sub_path: str | None = None) -> Mount:
    return Mount(
        name=name,
        path=path,
        sub_path=sub_path,
        source=_volume(name, config_map=k8s.core.v1.ConfigMapVolumeSourceArgs(name=name)),
    )


def secret(name: str, path: str) -> Mount:
    return Mount(
        name=name, path=path, source=_volume(name, secret=k8s.core.v1.SecretVolumeSourceArgs(secret_name=name))
    )


def claim(name: str, path: str) -> Mount:
    source = _volume(name, persistent_volume_claim=k8s.core.v1.PersistentVolumeClaimVolumeSourceArgs(claim_name=name))
    return Mount(name=name, path=path, source=source, read_only=False, is_claim=True)


def temporary() -> Mount:
    """An empty /tmp that goes with the pod: the rest of the file system is read-only."""
    path = "/tmp"  # noqa: S108  the pod's own, nobody else sees it
    return Mount(
        name="temporary",
        path=path,
        source=_volume("temporary", empty_dir=k8s.core.v1.EmptyDirVolumeSourceArgs()),
        read_only=False,
    )


def node_directory(path: str, *, kind: str = "Directory") -> Mount:
    """A directory of the node itself."""
    name = path.strip("/").replace("/", "-")
    source = _volume(name, host_path=k8s.core.v1.HostPathVolumeSourceArgs(path=path, type=kind))
    return Mount(name=name, path=path, source=source, read_only=False)


def service_account_token(path: str, file: str, audience: str) -> Mount:
    """A token of the pod's own account for one audience alone, at path/file; the kubelet renews it hourly."""
    token = k8s.core.v1.ServiceAccountTokenProjectionArgs(path=file, expiration_seconds=3600, audience=audience)
    projected = k8s.core.v1.ProjectedVolumeSourceArgs(
        sources=[k8s.core.v1.VolumeProjectionArgs(service_account_token=token)]
    )
    return Mount(name=file, path=path, source=_volume(file, projected=projected))


def _volume(
    name: str,
    *,
    config_map: k8s.core.v1.ConfigMapVolumeSourceArgs | None = None,
    secret: k8s.core.v1.SecretVolumeSourceArgs | None = None,
    persistent_volume_claim: k8s.core.v1.PersistentVolumeClaimVolumeSourceArgs | None = None,
    empty_dir: k8s.core.v1.EmptyDirVolumeSourceArgs | None = None,
    host_path: k8s.core.v1.HostPathVolumeSourceArgs | None = None,
    projected: k8s.core.v1.ProjectedVolumeSourceArgs | None = None,
) -> k8s.core.v1.VolumeArgs:
    return k8s.core.v1.VolumeArgs(
        name=name,
        config_map=config_map,
        secret=secret,
        persistent_volume_claim=persistent_volume_claim,
        empty_dir=empty_dir,
        host_path=host_path,
        projected=projected,
    )


@dataclass(frozen=True, kw_only=True)
class SecretKey:
    """One value of a Secret in the pod's namespace."""

    of: str
    """The Secret's name."""
    key: str


@dataclass(frozen=True, kw_only=True)
class Ready:
    """When a container is ready: a path answers on a port, or (no path) the port accepts a connection."""

    port: int
    path: str | None = None
    period_seconds: int = 1


@dataclass(frozen=True, kw_only=True)
class Container:
    """One program in a pod."""

    name: str
    program: Program
    arguments: Sequence[pulumi.Input[str]] = ()
    environment: Mapping[str, pulumi.Input[str]] = field(default_factory=dict[str, pulumi.Input[str]])
    secret_environment: Mapping[str, SecretKey] = field(default_factory=dict[str, SecretKey])
    field_environment: Mapping[str, str] = field(default_factory=dict[str, str])
    """variable -> field of the pod, such as metadata.name."""
    ports: Mapping[str, int] = field(default_factory=dict[str, int])
    ready: Ready | None = None
    mounts: Sequence[Mount] = ()
    millicores: int = 10
    memory_mebibytes: int = 32
    go_memory_mebibytes: int | None = None
    """Soft limit for Go's collector (GOMEMLIMIT): it works harder near it instead of growing."""
    user: int | None = NOBODY
    """None: root, for what changes the node."""
    privileged: bool = False
    capabilities: Sequence[str] = ()
    directory: str | None = None
    """Working directory, where it is not the image's own."""

    def args(self) -> k8s.core.v1.ContainerArgs:
        environment = [k8s.core.v1.EnvVarArgs(name=name, value=value) for name, value in self.environment.items()]
        if self.go_memory_mebibytes is not None:
            environment.append(k8s.core.v1.EnvVarArgs(name="GOMEMLIMIT", value=f"{self.go_memory_mebibytes}MiB"))
        environment += [
            k8s.core.v1.EnvVarArgs(
                name=name,
                value_from=k8s.core.v1.EnvVarSourceArgs(
                    secret_key_ref=k8s.core.v1.SecretKeySelectorArgs(name=key.of, key=key.key)
                ),
            )
            for name, key in self.secret_environment.items()
        ]
        environment += [
            k8s.core.v1.EnvVarArgs(
                name=name,
                value_from=k8s.core.v1.EnvVarSourceArgs(field_ref=k8s.core.v1.ObjectFieldSelectorArgs(field_path=path)),
            )
            for name, path in self.field_environment.items()
        ]
        return k8s.core.v1.ContainerArgs(
            name=self.name,
            image=self.program.image,
            image_pull_policy="IfNotPresent",
            command=list(self.program.command),
            args=list(self.arguments),
            working_dir=self.directory,
            env=environment,
            ports=[k8s.core.v1.ContainerPortArgs(name=name, container_port=port) for name, port in self.ports.items()],
            readiness_probe=_probe(self.ready) if self.ready else None,
            volume_mounts=[
                k8s.core.v1.VolumeMountArgs(
                    name=mount.name, mount_path=mount.path, sub_path=mount.sub_path, read_only=mount.read_only or None
                )
                for mount in self.mounts
            ],
            resources=k8s.core.v1.ResourceRequirementsArgs(
                requests={"cpu": f"{self.millicores}m", "memory": f"{self.memory_mebibytes}Mi"}
            ),
            security_context=self._security(),
        )

    def _security(self) -> k8s.core.v1.SecurityContextArgs:
        if self.privileged:
            return k8s.core.v1.SecurityContextArgs(privileged=True)
        return k8s.core.v1.SecurityContextArgs(
            run_as_user=0 if self.user is None else self.user,
            run_as_group=0 if self.user is None else self.user,
            run_as_non_root=None if self.user is None else True,
            allow_privilege_escalation=False,
            read_only_root_filesystem=True,
            capabilities=k8s.core.v1.CapabilitiesArgs(add=list(self.capabilities), drop=["ALL"]),
        )


def _probe(ready: Ready) -> k8s.core.v1.ProbeArgs:
    return k8s.core.v1.ProbeArgs(
        http_get=k8s.core.v1.HTTPGetActionArgs(path=ready.path, port=ready.port) if ready.path else None,
        tcp_socket=None if ready.path else k8s.core.v1.TCPSocketActionArgs(port=ready.port),
        period_seconds=ready.period_seconds,
        timeout_seconds=5,
        # On two busy cores a healthy program may be late; taking it out of its Service at once would only add errors.
        failure_threshold=6,
    )


@dataclass(frozen=True, kw_only=True)
class Pod:
    """The one pod of a workload."""

    app: str
    """Its label "app", by which Services and NetworkPolicies know it."""
    containers: Sequence[Container]
    before: Sequence[Container] = ()
    """Containers that run to their end first, one after the other."""
    account: pulumi.Input[str] | None = None
    """ServiceAccount; without one the pod gets no token for the Kubernetes API."""
    restart_on: Sequence[pulumi.Input[str]] = ()
    """Texts (configuration, mostly) that a running pod would not notice a change of: a change replaces the pod."""
    volume_group: int | None = None
    """Group that owns the pod's volumes."""
    on_node: bool = False
    """In the node's own network."""
    low_ports: bool = False
    """Lets a program without root bind ports below 1024."""
    stop_seconds: int = 5
    more_labels: Mapping[str, str] = field(default_factory=dict[str, str])

    def labels(self) -> dict[str, str]:
        return {"app": self.app, **self.more_labels}

    def template(self) -> k8s.core.v1.PodTemplateSpecArgs:
        sysctls = (
            [k8s.core.v1.SysctlArgs(name="net.ipv4.ip_unprivileged_port_start", value="0")] if self.low_ports else None
        )
        volumes = {mount.name: mount.source for one in (*self.before, *self.containers) for mount in one.mounts}
        return k8s.core.v1.PodTemplateSpecArgs(
            metadata=k8s.meta.v1.ObjectMetaArgs(
                labels=self.labels(),
                annotations={"classroom/configuration": _digest(self.restart_on)} if self.restart_on else None,
            ),
            spec=k8s.core.v1.PodSpecArgs(
                service_account_name=self.account,
                automount_service_account_token=self.account is not None,
                # Variables for every Service of the namespace, which KFP would take for its own configuration.
                enable_service_links=False,
                host_network=self.on_node or None,
                init_containers=[one.args() for one in self.before] or None,
                containers=[one.args() for one in self.containers],
                volumes=list(volumes.values()) or None,
                termination_grace_period_seconds=self.stop_seconds,
                tolerations=[k8s.core.v1.TolerationArgs(operator="Exists", effect="NoSchedule")]
                if self.on_node
                else None,
                security_context=k8s.core.v1.PodSecurityContextArgs(fs_group=self.volume_group, sysctls=sysctls),
            ),
        )


def _digest(texts: Sequence[pulumi.Input[str]]) -> pulumi.Output[str]:
    whole = pulumi.Output.all(*texts).apply(lambda known: hashlib.sha256(json.dumps(known).encode()).hexdigest())
    # What secrets are among the texts is long and random: their digest gives nothing away.
    return pulumi.Output.unsecret(whole)


def deployment(pod: Pod, namespace: pulumi.Input[str], opts: pulumi.ResourceOptions) -> k8s.apps.v1.Deployment:
    """One pod, kept running. Where it holds a claim, the old pod ends before the new one starts."""
    holds_claim = any(mount.is_claim for one in pod.containers for mount in one.mounts)
    return k8s.apps.v1.Deployment(
        pod.app,
        metadata=k8s.meta.v1.ObjectMetaArgs(
            name=pod.app, namespace=namespace, labels=pod.labels(), annotations={"pulumi.com/timeoutSeconds": "120"}
        ),
        spec=k8s.apps.v1.DeploymentSpecArgs(
            replicas=1,
            revision_history_limit=1,
            strategy=k8s.apps.v1.DeploymentStrategyArgs(type="Recreate") if holds_claim else None,
            selector=k8s.meta.v1.LabelSelectorArgs(match_labels=pod.labels()),
            template=pod.template(),
        ),
        opts=opts,
    )


def on_every_node(pod: Pod, namespace: pulumi.Input[str], opts: pulumi.ResourceOptions) -> k8s.apps.v1.DaemonSet:
    """One such pod on each node."""
    return k8s.apps.v1.DaemonSet(
        pod.app,
        metadata=k8s.meta.v1.ObjectMetaArgs(name=pod.app, namespace=namespace, labels=pod.labels()),
        spec=k8s.apps.v1.DaemonSetSpecArgs(
            revision_history_limit=1,
            selector=k8s.meta.v1.LabelSelectorArgs(match_labels=pod.labels()),
            template=pod.template(),
        ),
        opts=opts,
    )


def service(
    name: str,
    namespace: pulumi.Input[str],
    app: str,
    ports: Mapping[str, int],
    opts: pulumi.ResourceOptions,
    *,
    cluster_ip: str | None = None,
    udp_ports: Mapping[str, int] | None = None,
    labels: Mapping[str, str] | None = None,
) -> k8s.core.v1.Service:
    """A name in the cluster for the pods of `app`; each port leads to the same port of the pod."""
    return k8s.core.v1.Service(
        name,
        metadata=_not_awaited(name, namespace, labels),
        spec=k8s.core.v1.ServiceSpecArgs(
            selector={"app": app},
            cluster_ip=cluster_ip,
            ports=[k8s.core.v1.ServicePortArgs(name=port_name, port=port) for port_name, port in ports.items()]
            + [
                k8s.core.v1.ServicePortArgs(name=port_name, port=port, protocol="UDP")
                for port_name, port in (udp_ports or {}).items()
            ],
        ),
        opts=opts,
    )


def load_balancer(
    name: str,
    namespace: pulumi.Input[str],
    app: str,
    ports: Mapping[str, int],
    address: str,
    opts: pulumi.ResourceOptions,
) -> k8s.core.v1.Service:
    """An address outside the cluster for the pods of `app`; the pods see the client's own address."""
    return k8s.core.v1.Service(
        name,
        metadata=k8s.meta.v1.ObjectMetaArgs(
            name=name,
            namespace=namespace,
            annotations={"metallb.io/loadBalancerIPs": address, "pulumi.com/timeoutSeconds": "120"},
        ),
        spec=k8s.core.v1.ServiceSpecArgs(
            type="LoadBalancer",
            external_traffic_policy="Local",
            allocate_load_balancer_node_ports=False,
            selector={"app": app},
            ports=[k8s.core.v1.ServicePortArgs(name=port_name, port=port) for port_name, port in ports.items()],
        ),
        opts=opts,
    )


def volume_claim(
    name: str, namespace: pulumi.Input[str], gibibytes: int, opts: pulumi.ResourceOptions
) -> k8s.core.v1.PersistentVolumeClaim:
    """Space on the default storage class, bound when its pod is scheduled."""
    return k8s.core.v1.PersistentVolumeClaim(
        name,
        metadata=_not_awaited(name, namespace, None),
        spec=k8s.core.v1.PersistentVolumeClaimSpecArgs(
            access_modes=["ReadWriteOnce"],
            resources=k8s.core.v1.VolumeResourceRequirementsArgs(requests={"storage": f"{gibibytes}Gi"}),
        ),
        opts=opts,
    )


def configuration(
    name: str, namespace: pulumi.Input[str], data: Mapping[str, pulumi.Input[str]], opts: pulumi.ResourceOptions
) -> k8s.core.v1.ConfigMap:
    """A ConfigMap of this very name."""
    return k8s.core.v1.ConfigMap(
        name, metadata=k8s.meta.v1.ObjectMetaArgs(name=name, namespace=namespace), data=dict(data), opts=opts
    )


def secrets(
    name: str, namespace: pulumi.Input[str], data: Mapping[str, pulumi.Input[str]], opts: pulumi.ResourceOptions
) -> k8s.core.v1.Secret:
    """A Secret of this very name. Pulumi keeps its data encrypted."""
    return k8s.core.v1.Secret(
        name, metadata=k8s.meta.v1.ObjectMetaArgs(name=name, namespace=namespace), string_data=dict(data), opts=opts
    )


def _not_awaited(
    name: str, namespace: pulumi.Input[str], labels: Mapping[str, str] | None
) -> k8s.meta.v1.ObjectMetaArgs:
    # The Deployment behind it is awaited; waiting here as well would only hold up what depends on the name.
    return k8s.meta.v1.ObjectMetaArgs(
        name=name,
        namespace=namespace,
        labels=dict(labels) if labels else None,
        annotations={"pulumi.com/skipAwait": "true"},
    )
