"""The programs that Kubeflow's parts run, by name: upstream's images, unless the settings bring others.

Promise made by whoever brings an image: the program is on the image's PATH under the name it has here.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from infra.failure import Failure


@dataclass(frozen=True, kw_only=True)
class Program:
    """An image and how to start the program in it."""

    image: str
    command: tuple[str, ...]


UPSTREAM: Mapping[str, Program] = {
    "coredns": Program(image="registry.k8s.io/coredns/coredns:v1.14.7", command=("/coredns",)),
    "local-path-provisioner": Program(
        image="docker.io/rancher/local-path-provisioner:v0.0.30", command=("local-path-provisioner",)
    ),
    "metallb-controller": Program(image="quay.io/metallb/controller:v0.15.2", command=("/controller",)),
    "metallb-speaker": Program(image="quay.io/metallb/speaker:v0.15.2", command=("/speaker",)),
    "kube-network-policies": Program(
        image="registry.k8s.io/networking/kube-network-policies:v0.7.0", command=("/bin/netpol",)
    ),
    "mariadb": Program(image="docker.io/library/mariadb:10.11", command=("sh",)),
    "seaweedfs": Program(image="docker.io/chrislusf/seaweedfs:4.48", command=("weed",)),
    "workflow-controller": Program(
        image="quay.io/argoproj/workflow-controller:v3.6.7", command=("workflow-controller",)
    ),
    "argoexec": Program(image="quay.io/argoproj/argoexec:v3.6.7", command=("argoexec",)),
    "kfp-apiserver": Program(image="ghcr.io/kubeflow/kfp-api-server:2.14.3", command=("/bin/apiserver",)),
    "kfp-persistence-agent": Program(
        image="ghcr.io/kubeflow/kfp-persistence-agent:2.14.3", command=("/bin/persistence_agent",)
    ),
    "kfp-scheduledworkflow": Program(
        image="ghcr.io/kubeflow/kfp-scheduled-workflow-controller:2.14.3", command=("/bin/controller",)
    ),
    "kfp-driver": Program(image="ghcr.io/kubeflow/kfp-driver:2.14.3", command=("/bin/driver",)),
    "kfp-launcher": Program(image="ghcr.io/kubeflow/kfp-launcher:2.14.3", command=("/bin/launcher-v2",)),
    "notebook-controller": Program(
        image="ghcr.io/kubeflow/kubeflow/notebook-controller:v1.10.0", command=("/manager",)
    ),
    "dex": Program(image="ghcr.io/dexidp/dex:v2.45.0", command=("dex",)),
    "oauth2-proxy": Program(image="quay.io/oauth2-proxy/oauth2-proxy:v7.15.4", command=("/bin/oauth2-proxy",)),
    "traefik": Program(image="docker.io/library/traefik:v3.7.15", command=("traefik",)),
    "busybox": Program(image="docker.io/library/busybox:1.36", command=("busybox",)),
}
"""Where upstream publishes an image. The others (`mlmd`, `gpu-device-plugin`, `debian`) have to be brought."""


class ImageMissingError(Failure):
    """A part has no image: upstream publishes none and the settings bring none."""

    def __init__(self, name: str) -> None:
        super().__init__(f'no image for "{name}"\nadd it to PlatformSettings.images: {{"{name}": "<image reference>"}}')


def program(name: str, brought: Mapping[str, str], executable: str | None = None) -> Program:
    """The program `name`, from `brought` (name -> image reference) when it is there, else upstream's.

    `executable` is the program's name on PATH in a brought image when it is not the image's own name.
    Errors: `ImageMissingError`.
    """
    reference = brought.get(name)
    if reference is not None:
        return Program(image=reference, command=(executable or name,))
    try:
        return UPSTREAM[name]
    except KeyError:
        raise ImageMissingError(name) from None
