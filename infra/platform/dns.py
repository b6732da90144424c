"""Names in the cluster: CoreDNS, which answers for cluster.local and for nothing else.

What is not in the cluster does not exist: no name leaves the machine.
"""

import pulumi

from infra.platform.rights import READ, Rule, account
from infra.platform.settings import PlatformSettings
from infra.platform.workload import Container, Pod, Ready, config_map, configuration, deployment, service

NAMESPACE = "kube-system"

COREFILE = """cluster.local:53 in-addr.arpa:53 ip6.arpa:53 {
    errors
    health
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        pods insecure
        ttl 30
    }
    cache 30
}
.:53 {
    template ANY ANY {
        rcode NXDOMAIN
    }
}
"""


class Dns(pulumi.ComponentResource):
    """The cluster's DNS, at the service address that the kubelet gives to pods."""

    def __init__(self, name: str, settings: PlatformSettings, opts: pulumi.ResourceOptions) -> None:
        super().__init__("classroom:platform:Dns", name, None, opts)
        mine = pulumi.ResourceOptions(parent=self)
        rules = (
            Rule(group="", resources=("services", "pods", "namespaces"), verbs=READ),
            Rule(group="discovery.k8s.io", resources=("endpointslices",), verbs=READ),
        )
        who = account("coredns", NAMESPACE, mine, everywhere=rules)
        configuration("coredns", NAMESPACE, {"Corefile": COREFILE}, mine)
        deployment(
            Pod(
                app="coredns",
                more_labels={"k8s-app": "kube-dns"},
                account=who,
                restart_on=[COREFILE],
                low_ports=True,
                containers=[
                    Container(
                        name="coredns",
                        program=settings.program("coredns"),
                        arguments=["-conf", "/etc/coredns/Corefile"],
                        ports={"dns-tcp": 53},
                        ready=Ready(port=8181, path="/ready"),
                        mounts=[config_map("coredns", "/etc/coredns")],
                        # Its share when all cores are at work, as one pod among dozens that ask for 20m: a name that is
                        # answered after five seconds is to its asker a name that there is not.
                        millicores=40,
                        go_memory_mebibytes=48,
                    )
                ],
            ),
            NAMESPACE,
            mine,
        )
        service(
            "kube-dns",
            NAMESPACE,
            "coredns",
            {"dns-tcp": 53},
            mine,
            cluster_ip=str(settings.dns_address),
            udp_ports={"dns": 53},
        )
        self.register_outputs({})
