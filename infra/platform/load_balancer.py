"""Addresses outside the cluster for Services of type LoadBalancer: MetalLB, announcing by ARP on the node's link."""

import pulumi
import pulumi_kubernetes as k8s

from infra.platform.manifests import definitions
from infra.platform.rights import READ, WRITE, Rule, account
from infra.platform.settings import PlatformSettings
from infra.platform.workload import Container, Pod, Ready, deployment, on_every_node

NAMESPACE = "metallb-system"
_PORT = 7472

_CONFIGURATION = (
    "bfdprofiles",
    "bgpadvertisements",
    "bgppeers",
    "communities",
    "ipaddresspools",
    "l2advertisements",
)
_STATUSES = ("servicel2statuses", "servicel2statuses/status", "servicebgpstatuses", "servicebgpstatuses/status")


class LoadBalancer(pulumi.ComponentResource):
    """MetalLB with one pool of addresses."""

    def __init__(
        self, name: str, settings: PlatformSettings, namespace: pulumi.Output[str], opts: pulumi.ResourceOptions
    ) -> None:
        super().__init__("classroom:platform:LoadBalancer", name, None, opts)
        mine = pulumi.ResourceOptions(parent=self)
        known = definitions(settings.upstream("metallb"), mine)
        after = pulumi.ResourceOptions(parent=self, depends_on=known)
        self._controller(settings, namespace, mine, after)
        self._speaker(settings, namespace, mine, after)
        first, last = settings.load_balancers
        k8s.apiextensions.CustomResource(
            "addresses",
            api_version="metallb.io/v1beta1",
            kind="IPAddressPool",
            metadata=k8s.meta.v1.ObjectMetaArgs(name="addresses", namespace=namespace),
            spec={"addresses": [f"{first}-{last}"]},
            opts=after,
        )
        k8s.apiextensions.CustomResource(
            "by-arp",
            api_version="metallb.io/v1beta1",
            kind="L2Advertisement",
            metadata=k8s.meta.v1.ObjectMetaArgs(name="by-arp", namespace=namespace),
            spec={"ipAddressPools": ["addresses"]},
            opts=after,
        )
        self.register_outputs({})

    def _controller(
        self,
        settings: PlatformSettings,
        namespace: pulumi.Output[str],
        mine: pulumi.ResourceOptions,
        after: pulumi.ResourceOptions,
    ) -> None:
        everywhere = (
            Rule(group="", resources=("services", "namespaces", "nodes"), verbs=READ),
            Rule(group="", resources=("services/status",), verbs=("update", "patch")),
            Rule(group="", resources=("events",), verbs=("create", "patch")),
        )
        here = (
            Rule(group="metallb.io", resources=_CONFIGURATION, verbs=READ),
            Rule(group="metallb.io", resources=("ipaddresspools/status",), verbs=("update", "patch")),
            Rule(group="", resources=("secrets", "configmaps"), verbs=READ),
        )
        who = account("metallb-controller", namespace, mine, everywhere=everywhere, in_namespace=here)
        deployment(
            Pod(
                app="metallb-controller",
                account=who,
                containers=[
                    Container(
                        name="controller",
                        program=settings.program("metallb-controller"),
                        # The webhook would check the two objects above, which only this program writes.
                        arguments=[f"--port={_PORT}", "--webhook-mode=disabled", "--disable-cert-rotation"],
                        field_environment={"METALLB_NAMESPACE": "metadata.namespace"},
                        environment={"METALLB_DEPLOYMENT": "metallb-controller"},
                        ready=Ready(port=_PORT, path="/metrics", period_seconds=2),
                        go_memory_mebibytes=64,
                    )
                ],
            ),
            namespace,
            after,
        )

    def _speaker(
        self,
        settings: PlatformSettings,
        namespace: pulumi.Output[str],
        mine: pulumi.ResourceOptions,
        after: pulumi.ResourceOptions,
    ) -> None:
        everywhere = (
            Rule(group="", resources=("services", "endpoints", "nodes", "namespaces"), verbs=READ),
            Rule(group="discovery.k8s.io", resources=("endpointslices",), verbs=READ),
            Rule(group="metallb.io", resources=_STATUSES, verbs=(*READ, *WRITE)),
            Rule(group="", resources=("events",), verbs=("create", "patch")),
        )
        here = (
            Rule(group="metallb.io", resources=_CONFIGURATION, verbs=READ),
            Rule(group="metallb.io", resources=_STATUSES, verbs=(*READ, *WRITE, "deletecollection")),
            Rule(group="", resources=("pods", "secrets", "configmaps"), verbs=READ),
        )
        who = account("metallb-speaker", namespace, mine, everywhere=everywhere, in_namespace=here)
        on_every_node(
            Pod(
                app="metallb-speaker",
                account=who,
                on_node=True,
                stop_seconds=2,
                containers=[
                    Container(
                        name="speaker",
                        program=settings.program("metallb-speaker"),
                        # kubeadm labels a control plane's node to be left out, and then an address is given but never
                        # announced; the one node here is all there is.
                        arguments=[f"--port={_PORT}", "--ignore-exclude-lb"],
                        field_environment={
                            "METALLB_NAMESPACE": "metadata.namespace",
                            "METALLB_NODE_NAME": "spec.nodeName",
                            "METALLB_POD_NAME": "metadata.name",
                            "METALLB_HOST": "status.hostIP",
                        },
                        ready=Ready(port=_PORT, path="/metrics", period_seconds=2),
                        # Raw sockets answer ARP; a user other than root gets no capability from the runtime.
                        user=None,
                        capabilities=["NET_RAW"],
                        go_memory_mebibytes=64,
                    )
                ],
            ),
            namespace,
            after,
        )
