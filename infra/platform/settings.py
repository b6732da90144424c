"""What can be chosen about a platform. Everything else follows from it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from infra.failure import Failure
from infra.platform.images import Program, program

KUBEFLOW = "kubeflow"
AUTH = "auth"
GATEWAY = "gateway"
"""The namespaces of the parts, as upstream names them."""


class ManifestsMissingError(Failure):
    """Upstream's YAML for a part is in none of the directories."""

    def __init__(self, part: str, directories: tuple[Path, ...]) -> None:
        where = ", ".join(map(str, directories)) or "no directory at all"
        super().__init__(
            f'no upstream YAML for "{part}" in {where}\n'
            f"add a directory that holds {part}/*.yaml to PlatformSettings.manifests"
        )


@dataclass(frozen=True, kw_only=True)
class PlatformSettings:
    """One platform. Made by whoever owns the cluster; read by every part."""

    kubeconfig: Path
    """Of a cluster administrator."""
    context: str | None = None
    manifests: tuple[Path, ...]
    """Directories with upstream's own YAML, each part's in its own: argo, dex, kfp, metallb, notebooks, traefik."""
    images: Mapping[str, str] = field(default_factory=dict[str, str])
    """name -> reference; see images.py. What is not named here is upstream's."""

    gateway_address: IPv4Address
    object_store_address: IPv4Address
    load_balancers: tuple[IPv4Address, IPv4Address]
    """First and last address that load balancers may have; the two above lie between them."""
    dns_address: IPv4Address
    """The service address of the cluster's DNS, as the kubelet was told."""
    pods: IPv4Network
    gateway_names: tuple[str, ...] = ()
    """Further host names in the gateway's certificate; the address and the in-cluster names are always in it."""

    volume_directory: Path = Path("/opt/local-path-provisioner")
    """Where on the node persistent volumes lie."""
    database_gibibytes: int = 5
    object_store_gibibytes: int = 20
    metadata_gibibytes: int = 2

    session_hours: int = 12
    """How long a login lasts. Deleting a user does not end its session, so this is also how long that outlives it."""
    gpu_resource: str = "nvidia.com/gpu"
    gpu_count: int = 8
    """How many such devices the node offers. They are names only: what asks for one gets a plain container."""

    def upstream(self, part: str) -> Path:
        """The directory with upstream's YAML for `part`. Errors: `ManifestsMissingError`."""
        found = next((whole / part for whole in self.manifests if (whole / part).is_dir()), None)
        if found is None:
            raise ManifestsMissingError(part, self.manifests)
        return found

    def program(self, name: str, executable: str | None = None) -> Program:
        """See `images.program`."""
        return program(name, self.images, executable)
