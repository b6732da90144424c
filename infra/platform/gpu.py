"""GPUs for notebooks that ask for one: a device plugin that offers the resource's name, with no device behind it."""

import pulumi

from infra.platform.settings import PlatformSettings
from infra.platform.workload import Container, Pod, node_directory, on_every_node

_PLUGINS = "/var/lib/kubelet/device-plugins"


class Gpu(pulumi.ComponentResource):
    """The resource `settings.gpu_resource` on every node, `settings.gpu_count` times."""

    def __init__(
        self, name: str, settings: PlatformSettings, namespace: pulumi.Output[str], opts: pulumi.ResourceOptions
    ) -> None:
        super().__init__("classroom:platform:Gpu", name, None, opts)
        container = Container(
            name="gpu-device-plugin",
            program=settings.program("gpu-device-plugin"),
            arguments=["--resource", settings.gpu_resource, "--count", str(settings.gpu_count)],
            # The kubelet's directory is root's.
            mounts=[node_directory(_PLUGINS)],
            user=None,
            millicores=5,
            memory_mebibytes=16,
            go_memory_mebibytes=32,
        )
        on_every_node(
            Pod(app="gpu-device-plugin", containers=[container]), namespace, pulumi.ResourceOptions(parent=self)
        )
        self.register_outputs({})
