"""What ran with what and made what: ML Metadata (executions, artifacts, lineage), a store a namespace, on a volume.

See mlmd_server.py: a pod is served its own namespace's records, so the front asks Kubernetes whose address calls.
"""

from pathlib import Path

import pulumi

from infra.platform.network_policy import allow, peer
from infra.platform.rights import Rule, account
from infra.platform.settings import PlatformSettings
from infra.platform.workload import (
    Container,
    Pod,
    Ready,
    claim,
    config_map,
    configuration,
    deployment,
    service,
    temporary,
    volume_claim,
)

GRPC_SERVICE = "metadata-grpc-service"
GRPC_PORT = 8080
WEB_SERVICE = "metadata-envoy-service"
WEB_PORT = 9090
"""gRPC-Web, open to the API server's proxy alone (it comes from the node): an operator's way in, and no pod's."""
PIPELINE_POD = {"pipelines.kubeflow.org/v2_component": "true"}
"""The label of the pods of a run."""
_FILES = tuple(Path(__file__).with_name(name) for name in ("mlmd_server.py", "seat_callers.py"))
_UID = 65532


class Metadata(pulumi.ComponentResource):
    """The metadata store and the server before it."""

    def __init__(
        self, name: str, settings: PlatformSettings, namespace: pulumi.Output[str], opts: pulumi.ResourceOptions
    ) -> None:
        super().__init__("classroom:platform:Metadata", name, None, opts)
        mine = pulumi.ResourceOptions(parent=self)
        sources = {file.name: file.read_text() for file in _FILES}
        configuration("metadata-server", namespace, sources, mine)
        whose = Rule(group="", resources=("pods", "namespaces", "nodes"), verbs=("get", "list"))
        volume_claim("metadata", namespace, settings.metadata_gibibytes, mine)
        deployment(
            Pod(
                app="metadata",
                account=account("metadata", namespace, mine, everywhere=(whose,)),
                restart_on=list(sources.values()),
                volume_group=_UID,
                containers=[
                    Container(
                        name="metadata",
                        program=settings.program("mlmd", "python3"),
                        arguments=["-u", f"/srv/{_FILES[0].name}", "/data/namespaces"],
                        ports={"grpc": GRPC_PORT, "grpc-web": WEB_PORT},
                        ready=Ready(port=WEB_PORT),
                        mounts=[claim("metadata", "/data"), config_map("metadata-server", "/srv"), temporary()],
                        user=_UID,
                        memory_mebibytes=128,
                    )
                ],
            ),
            namespace,
            mine,
        )
        service(GRPC_SERVICE, namespace, "metadata", {"grpc": GRPC_PORT}, mine)
        service(WEB_SERVICE, namespace, "metadata", {"grpc-web": WEB_PORT}, mine)
        allow("metadata", namespace, [([peer(namespace="*", labels=PIPELINE_POD)], [GRPC_PORT])], mine)
        self.register_outputs({})
