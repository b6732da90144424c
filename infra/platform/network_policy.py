"""Who may talk to whom: the agent that enforces NetworkPolicies, and how the parts write theirs.

The plain bridge network enforces nothing. Here iptables rules hand the first packet of each connection to the agent
(kube-network-policies), which judges it by all policies; later packets of the connection pass. The node's own ports are
closed to pods, but for the Kubernetes API.
"""

from collections.abc import Sequence

import pulumi
import pulumi_kubernetes as k8s

from infra.platform.rights import Rule, account
from infra.platform.settings import PlatformSettings
from infra.platform.workload import Container, Pod, Ready, on_every_node

NAMESPACE = "kube-system"
_QUEUE = 98
_API_SERVER_PORT = 6443
_METRICS_PORT = 9080

# Rules are made afresh at each start. --queue-bypass: while the agent is away packets pass, rather than the whole
# cluster standing still.
_RULES = """set -eu
iptables() {{ command iptables -w 10 -t mangle "$@"; }}
fresh() {{ iptables -N "$1" 2>/dev/null || iptables -F "$1"; }}
hook() {{ iptables -C "$1" -j "$2" 2>/dev/null || iptables -A "$1" -j "$2"; }}

fresh CLASSROOM-PODS
iptables -A CLASSROOM-PODS -m conntrack --ctstate ESTABLISHED,RELATED -j RETURN
# The kubelet's probes and the API server's proxy come from the node's own processes.
iptables -A CLASSROOM-PODS -m owner --uid-owner 0 -j RETURN
iptables -A CLASSROOM-PODS -s {pods} -j NFQUEUE --queue-num {queue} --queue-bypass
iptables -A CLASSROOM-PODS -d {pods} -j NFQUEUE --queue-num {queue} --queue-bypass
hook POSTROUTING CLASSROOM-PODS

fresh CLASSROOM-NODE
iptables -A CLASSROOM-NODE -m conntrack --ctstate ESTABLISHED,RELATED -j RETURN
iptables -A CLASSROOM-NODE -s {pods} -p tcp --dport {api} -j NFQUEUE --queue-num {queue} --queue-bypass
iptables -A CLASSROOM-NODE -s {pods} -p icmp -j RETURN
# The kubelet, etcd, the proxy, the speaker's metrics: nothing of the node but the Kubernetes API is a pod's business.
iptables -A CLASSROOM-NODE -s {pods} -j DROP
hook INPUT CLASSROOM-NODE
"""


class NetworkPolicies(pulumi.ComponentResource):
    """The agent on every node."""

    def __init__(self, name: str, settings: PlatformSettings, opts: pulumi.ResourceOptions) -> None:
        super().__init__("classroom:platform:NetworkPolicies", name, None, opts)
        mine = pulumi.ResourceOptions(parent=self)
        rules = (
            Rule(group="", resources=("pods", "namespaces", "nodes"), verbs=("list", "watch")),
            Rule(group="networking.k8s.io", resources=("networkpolicies",), verbs=("list", "watch")),
        )
        who = account("kube-network-policies", NAMESPACE, mine, everywhere=rules)
        script = _RULES.format(pods=settings.pods, queue=_QUEUE, api=_API_SERVER_PORT)
        shell = settings.program("debian", "sh")
        on_every_node(
            Pod(
                app="kube-network-policies",
                account=who,
                on_node=True,
                before=[
                    Container(name="rules", program=shell, arguments=["-c", script], privileged=True, user=None),
                ],
                containers=[
                    Container(
                        name="kube-network-policies",
                        program=settings.program("kube-network-policies"),
                        arguments=[
                            "--hostname-override=$(NODE)",
                            f"--nfqueue-id={_QUEUE}",
                            f"--metrics-bind-address=:{_METRICS_PORT}",
                            "--netfilter-bug-1766-fix=false",
                            "--v=0",
                        ],
                        field_environment={"NODE": "spec.nodeName"},
                        ready=Ready(port=_METRICS_PORT, path="/metrics", period_seconds=2),
                        privileged=True,
                        user=None,
                        # It judges the first packet of every connection. With the share of one pod among dozens it was
                        # too late for three in a hundred, which the kernel then drops: names were not found.
                        millicores=150,
                        go_memory_mebibytes=64,
                    )
                ],
            ),
            NAMESPACE,
            mine,
        )
        self.register_outputs({})


def peer(
    *, namespace: str | None = None, app: str | None = None, labels: dict[str, str] | None = None
) -> k8s.networking.v1.NetworkPolicyPeerArgs:
    """Pods of one namespace (None: the policy's own; "*": any), by their label "app" or by `labels` if given."""
    wanted = {"app": app} if app else labels
    match namespace:
        case None:
            where = None
        case "*":
            where = k8s.meta.v1.LabelSelectorArgs()
        case _:
            where = k8s.meta.v1.LabelSelectorArgs(match_labels={"kubernetes.io/metadata.name": namespace})
    return k8s.networking.v1.NetworkPolicyPeerArgs(
        namespace_selector=where,
        pod_selector=k8s.meta.v1.LabelSelectorArgs(match_labels=wanted) if wanted or where is None else None,
    )


def deny_all(name: str, namespace: pulumi.Input[str], opts: pulumi.ResourceOptions) -> None:
    """Nothing may connect to a pod of `namespace` unless another policy allows it."""
    k8s.networking.v1.NetworkPolicy(
        f"{name}-deny-all",
        metadata=k8s.meta.v1.ObjectMetaArgs(name="deny-all", namespace=namespace),
        spec=k8s.networking.v1.NetworkPolicySpecArgs(
            pod_selector=k8s.meta.v1.LabelSelectorArgs(), policy_types=["Ingress"]
        ),
        opts=opts,
    )


def allow(
    app: str,
    namespace: pulumi.Input[str],
    rules: Sequence[tuple[Sequence[k8s.networking.v1.NetworkPolicyPeerArgs], Sequence[int]]],
    opts: pulumi.ResourceOptions,
) -> None:
    """Who may connect to the pods of `app`, and to which TCP ports: (peers, ports) each. No peers at all: everybody."""
    k8s.networking.v1.NetworkPolicy(
        app,
        metadata=k8s.meta.v1.ObjectMetaArgs(name=app, namespace=namespace),
        spec=k8s.networking.v1.NetworkPolicySpecArgs(
            pod_selector=k8s.meta.v1.LabelSelectorArgs(match_labels={"app": app}),
            policy_types=["Ingress"],
            ingress=[
                k8s.networking.v1.NetworkPolicyIngressRuleArgs(
                    from_=list(peers) or None,
                    ports=[k8s.networking.v1.NetworkPolicyPortArgs(protocol="TCP", port=port) for port in ports],
                )
                for peers, ports in rules
            ],
        ),
        opts=opts,
    )
