"""The object store of artifacts and pipelines: SeaweedFS with its S3 and IAM interface, on a volume of its own.

Master, volume server and filer listen on loopback alone. The gRPC side of S3 takes identities from whoever holds the
filer's signing key, and without a key from anybody: keys are always set, and the port is closed to everyone besides.
"""

import json

import pulumi

from infra.platform.generated import Token
from infra.platform.network_policy import allow
from infra.platform.settings import PlatformSettings
from infra.platform.workload import (
    Container,
    Pod,
    Ready,
    SecretKey,
    claim,
    deployment,
    load_balancer,
    secret,
    secrets,
    service,
    temporary,
    volume_claim,
)

HOST = "seaweedfs"
PORT = 8333
REGION = "us-east-1"
KEY_SECRET_NAME = "mlpipeline-minio-artifact"  # noqa: S105  a name
"""The Secret with the operator's key, under the name that upstream gave it. It opens every bucket, and IAM."""
_OPERATOR = "kubeflow-operator"
_UID = 65532

_ARGUMENTS = (
    "-logtostderr=true",
    "server",
    "-dir=/data",
    "-ip=127.0.0.1",
    "-ip.bind=127.0.0.1",
    "-master.volumeSizeLimitMB=64",
    "-master.telemetry=false",
    # There is one master: it need not wait ten seconds for others before it leads again.
    "-master.electionTimeout=1s",
    # Volumes are files that grow: as many as the disk holds.
    "-volume.max=0",
    "-volume.preStopSeconds=0",
    "-filer",
    "-s3",
    "-s3.ip.bind=0.0.0.0",
    f"-s3.port={PORT}",
    "-s3.port.iceberg=0",
    "-s3.port.lance=0",
    "-s3.config=/etc/seaweedfs-identities/identities.json",
    "-s3.iam.readOnly=false",
    "-s3.allowDeleteBucketNotEmpty=false",
)


class ObjectStore(pulumi.ComponentResource):
    """The store, inside the cluster as HOST:PORT and outside at the settings' address."""

    access_key: SecretKey
    secret_key: SecretKey

    def __init__(
        self, name: str, settings: PlatformSettings, namespace: pulumi.Output[str], opts: pulumi.ResourceOptions
    ) -> None:
        super().__init__("classroom:platform:ObjectStore", name, None, opts)
        mine = pulumi.ResourceOptions(parent=self)
        key = Token("object-store-key", mine, size=20)
        signing = {
            part: Token(f"object-store-signing-{part}", mine, size=32) for part in ("volume", "filer", "filer-read")
        }
        identities = key.value.apply(_identities)
        secrets(KEY_SECRET_NAME, namespace, {"accesskey": _OPERATOR, "secretkey": key.value}, mine)
        secrets("seaweedfs-identities", namespace, {"identities.json": identities}, mine)
        secrets("seaweedfs-signing", namespace, {part: token.value for part, token in signing.items()}, mine)
        volume_claim("seaweedfs", namespace, settings.object_store_gibibytes, mine)
        deployment(
            Pod(
                app="seaweedfs",
                restart_on=[identities, *(token.value for token in signing.values())],
                volume_group=_UID,
                # It dawdles for fifteen seconds otherwise; what was acknowledged is in the file system by then.
                stop_seconds=5,
                containers=[
                    Container(
                        name="seaweedfs",
                        program=settings.program("seaweedfs", "weed"),
                        arguments=_ARGUMENTS,
                        # One bucket is one collection; its first object shall not take seven volumes.
                        environment={"WEED_MASTER_VOLUME_GROWTH_COPY_1": "1", "HOME": "/data"},
                        secret_environment={
                            "WEED_JWT_SIGNING_KEY": SecretKey(of="seaweedfs-signing", key="volume"),
                            "WEED_JWT_FILER_SIGNING_KEY": SecretKey(of="seaweedfs-signing", key="filer"),
                            "WEED_JWT_FILER_SIGNING_READ_KEY": SecretKey(of="seaweedfs-signing", key="filer-read"),
                        },
                        ports={"s3": PORT},
                        ready=Ready(port=PORT, path="/status"),
                        mounts=[
                            claim("seaweedfs", "/data"),
                            secret("seaweedfs-identities", "/etc/seaweedfs-identities"),
                            temporary(),
                        ],
                        user=_UID,
                        millicores=20,
                        memory_mebibytes=256,
                        go_memory_mebibytes=300,
                    )
                ],
            ),
            namespace,
            mine,
        )
        service(HOST, namespace, "seaweedfs", {"s3": PORT}, mine)
        load_balancer("seaweedfs-s3", namespace, "seaweedfs", {"s3": PORT}, str(settings.object_store_address), mine)
        allow("seaweedfs", namespace, [([], [PORT])], mine)
        self.access_key = SecretKey(of=KEY_SECRET_NAME, key="accesskey")
        self.secret_key = SecretKey(of=KEY_SECRET_NAME, key="secretkey")
        self.register_outputs({})


def _identities(secret_key: str) -> str:
    operator = {
        "name": "operator",
        "credentials": [{"accessKey": _OPERATOR, "secretKey": secret_key}],
        "actions": ["Admin", "Read", "List", "Tagging", "Write"],
    }
    return json.dumps({"identities": [operator]})
