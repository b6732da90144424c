"""Kubeflow on a bare cluster: every part, composed. This is the Pulumi program of the platform."""

from collections.abc import Callable

import pulumi
import pulumi_kubernetes as k8s

from infra.platform import load_balancer, volumes
from infra.platform.database import Database
from infra.platform.dns import Dns
from infra.platform.gateway import Gateway
from infra.platform.generated import Token
from infra.platform.gpu import Gpu
from infra.platform.load_balancer import LoadBalancer
from infra.platform.login import Login
from infra.platform.metadata import Metadata
from infra.platform.network_policy import NetworkPolicies, deny_all
from infra.platform.notebooks import Notebooks
from infra.platform.object_store import ObjectStore
from infra.platform.pipelines import Pipelines
from infra.platform.roles import Roles
from infra.platform.routes import Routes
from infra.platform.settings import AUTH, GATEWAY, KUBEFLOW, PlatformSettings
from infra.platform.volumes import Volumes
from infra.platform.workflows import Workflows


class KubeflowPlatform(pulumi.ComponentResource):
    """All the parts. They start side by side, and nothing waits but for what it cannot do without."""

    gateway_url: pulumi.Output[str]
    ca_certificate: pulumi.Output[str]

    def __init__(self, name: str, settings: PlatformSettings, opts: pulumi.ResourceOptions) -> None:
        super().__init__("classroom:platform:KubeflowPlatform", name, None, opts)
        mine = pulumi.ResourceOptions(parent=self)

        Dns("dns", settings, mine)
        NetworkPolicies("network-policies", settings, mine)
        Volumes("volumes", settings, _namespace(volumes.NAMESPACE, mine), mine)
        LoadBalancer("load-balancer", settings, _namespace(load_balancer.NAMESPACE, mine), mine)

        kubeflow, auth, gateway_ = (_namespace(each, mine) for each in (KUBEFLOW, AUTH, GATEWAY))
        routes = Routes("routes", settings, mine)
        token = Token("identity-header", mine, size=8)
        # See pipelines.py: only the gateway and the pipelines service know it.
        identity_header = token.value.apply(lambda secret: f"kubeflow-user-{secret}")

        database = Database("database", settings, kubeflow, mine)
        store = ObjectStore("object-store", settings, kubeflow, mine)
        Metadata("metadata", settings, kubeflow, mine)
        workflows = Workflows("workflows", settings, kubeflow, mine)
        Pipelines(
            "pipelines", settings, kubeflow, database, store, workflows.definitions, identity_header, routes, mine
        )
        Notebooks("notebooks", settings, kubeflow, mine)
        Gpu("gpu", settings, kubeflow, mine)

        Login("login", settings, auth, identity_header, routes, mine)
        gateway = Gateway("gateway", settings, gateway_, routes, mine)
        Roles("roles", mine)

        self.gateway_url = pulumi.Output.from_input(f"https://{settings.gateway_address}/")
        self.ca_certificate = gateway.ca_certificate
        self.register_outputs({"gateway_url": self.gateway_url, "ca_certificate": self.ca_certificate})


def _namespace(name: str, opts: pulumi.ResourceOptions) -> pulumi.Output[str]:
    """The name of a new namespace that nothing may connect into unless a part allows it, known once it is there."""
    namespace = k8s.core.v1.Namespace(name, metadata=k8s.meta.v1.ObjectMetaArgs(name=name), opts=opts)
    made = namespace.metadata.apply(lambda metadata: metadata.name or name)
    deny_all(name, made, opts)
    return made


def platform_program(settings: PlatformSettings) -> Callable[[], None]:
    """The Pulumi program for one cluster.

    Outputs: gateway_url; ca_certificate (PEM, what clients have to trust); object_store_url (S3, from outside).
    """

    def run() -> None:
        cluster = k8s.Provider(
            "cluster",
            kubeconfig=str(settings.kubeconfig),
            context=settings.context,
            # Hundreds of objects are made at once; the client's own limit is for programs that live long.
            kube_client_settings=k8s.KubeClientSettingsArgs(qps=400, burst=800),
        )
        platform = KubeflowPlatform("platform", settings, pulumi.ResourceOptions(providers=[cluster]))
        pulumi.export("gateway_url", platform.gateway_url)
        pulumi.export("ca_certificate", platform.ca_certificate)
        pulumi.export("object_store_url", f"http://{settings.object_store_address}:8333")

    return run
