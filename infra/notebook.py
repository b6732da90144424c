"""A notebook server: a kubeflow.org/v1 Notebook with its workspace volume, ready once it answers."""

from dataclasses import dataclass
from typing import Any, Final

import pulumi
import pulumi_kubernetes as k8s

from infra import naming
from infra.spec import NotebookSpec, Platform

PORT: Final = 8888
HOME: Final = "/home/jovyan"
CA_CONFIG_MAP: Final = "gateway-ca"
_CA_DIRECTORY: Final = "/etc/kubeflow-ca"
READY_WITHIN_SECONDS: Final = 600

# Only the gateway, which has checked who asks, and the seat's own pods reach the server: it needs no token of its own.
# NB_PREFIX is set by the notebook controller.
_COMMAND: Final = (
    "exec jupyter lab --ip=0.0.0.0 "
    f"--port={PORT} --no-browser --ServerApp.root_dir={HOME} "
    '--ServerApp.base_url="$NB_PREFIX" --IdentityProvider.token= --ServerApp.allow_remote_access=True'
)


# Jupyter looks this often for what is idle.
_IDLE_LOOK_SECONDS: Final = 60


def _command(idle_minutes: int | None) -> str:
    """How the server is started.

    The notebook controller's own culling is one setting for a whole cluster and stops the server, which a student
    without Kubeflow's dashboard could not start again. What holds memory and GPU are the kernels, and those Jupyter
    ends by itself.
    """
    if idle_minutes is None:
        return _COMMAND
    seconds = idle_minutes * 60
    return (
        f"{_COMMAND} --MappingKernelManager.cull_idle_timeout={seconds} "
        f"--MappingKernelManager.cull_interval={_IDLE_LOOK_SECONDS} --MappingKernelManager.cull_connected=True "
        f"--TerminalManager.cull_inactive_timeout={seconds} --TerminalManager.cull_interval={_IDLE_LOOK_SECONDS}"
    )


def path(namespace: str, notebook: str) -> str:
    """Where the gateway and the server have a notebook: the prefix that Kubeflow's notebook controller gives it."""
    return f"/notebook/{namespace}/{notebook}"


@dataclass(frozen=True, kw_only=True)
class NotebookArgs:
    """Whose notebook it is, where, and what it may use. `ca`: whether the gateway's CA is in a ConfigMap.

    `home` is the namespace or its profile, which takes everything along when it goes; the server waits for what it
    `needs`. `address` is the gateway's, as students know it.
    """

    namespace: str
    home: pulumi.Resource
    needs: tuple[pulumi.Resource, ...]
    labels: dict[str, str]
    notebook: NotebookSpec
    platform: Platform
    address: str
    bucket: str
    ca: bool
    idle_minutes: int | None


class Notebook(pulumi.ComponentResource):
    """A notebook server that answers at `url`, with a workspace volume `<notebook>-volume` as its home."""

    url: str

    def __init__(self, name: str, args: NotebookArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("classroom:index:Notebook", name, None, opts)
        notebook = args.notebook
        inside = pulumi.ResourceOptions(parent=self, deleted_with=args.home, depends_on=[args.home])
        needs = pulumi.ResourceOptions(parent=self, deleted_with=args.home, depends_on=list(args.needs))
        k8s.core.v1.PersistentVolumeClaim(
            f"{name}-workspace",
            metadata={
                "name": naming.workspace_volume(notebook.name),
                "namespace": args.namespace,
                "labels": args.labels,
                # Most storage classes bind a volume when its first pod comes, so there is nothing to wait for yet.
                "annotations": {**naming.ADOPTING, "pulumi.com/skipAwait": "true"},
            },
            spec={"access_modes": ["ReadWriteOnce"], "resources": {"requests": {"storage": notebook.workspace}}},
            opts=inside,
        )
        k8s.apiextensions.CustomResource(
            f"{name}-server",
            api_version="kubeflow.org/v1",
            kind="Notebook",
            metadata={
                "name": notebook.name,
                "namespace": args.namespace,
                "labels": {**args.labels, "app": notebook.name},
                "annotations": {
                    **naming.ADOPTING,
                    "notebooks.kubeflow.org/server-type": "jupyter",
                    "pulumi.com/waitFor": "jsonpath={.status.readyReplicas}=1",
                    "pulumi.com/timeoutSeconds": str(READY_WITHIN_SECONDS),
                },
            },
            spec={"template": {"spec": _pod(args)}},
            opts=needs,
        )
        self.url = f"{args.address.rstrip('/')}{path(args.namespace, notebook.name)}/"
        self.register_outputs({"url": self.url})


def _pod(args: NotebookArgs) -> dict[str, Any]:
    notebook = args.notebook
    image = notebook.image or args.platform.notebook_image
    requests = {"cpu": notebook.cpu, "memory": notebook.memory}
    limits = {"cpu": notebook.most_cpu, "memory": notebook.most_memory}
    if notebook.gpu:
        limits[notebook.gpu.resource] = str(notebook.gpu.count)
    environment = {
        **notebook.environment,
        # What a component's `base_image` is set to, so that a pipeline's pods find an image that the cluster has.
        "CLASS_IMAGE": image,
        "CLASS_BUCKET": args.bucket,
    }
    mounts: list[dict[str, Any]] = [
        {"name": "workspace", "mountPath": HOME},
        {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108  # a mount in the pod, not a file of ours
    ]
    volumes: list[dict[str, Any]] = [
        {"name": "workspace", "persistentVolumeClaim": {"claimName": naming.workspace_volume(notebook.name)}},
        # Worker processes hand tensors over in shared memory, of which a container has 64 MiB by default.
        {"name": "shm", "emptyDir": {"medium": "Memory", **_bounded(notebook)}},
    ]
    if args.ca:
        # A name of its own: REQUESTS_CA_BUNDLE and its like would replace the trust in every other host.
        environment["KUBEFLOW_CA_FILE"] = f"{_CA_DIRECTORY}/ca.crt"
        mounts.append({"name": "gateway-ca", "mountPath": _CA_DIRECTORY, "readOnly": True})
        volumes.append({"name": "gateway-ca", "configMap": {"name": CA_CONFIG_MAP}})
    container = {
        "name": notebook.name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["/bin/sh", "-c", _command(args.idle_minutes)],
        "workingDir": HOME,
        "env": [{"name": name, "value": value} for name, value in environment.items()],
        "ports": [{"name": "notebook-port", "containerPort": PORT, "protocol": "TCP"}],
        "resources": {"requests": requests, "limits": limits},
        "readinessProbe": {
            "httpGet": {"path": f"{path(args.namespace, notebook.name)}/api", "port": PORT},
            "periodSeconds": 2,
            "timeoutSeconds": 5,
            "failureThreshold": 5,
        },
        "securityContext": {"allowPrivilegeEscalation": False},
        "volumeMounts": mounts,
    }
    return {
        "serviceAccountName": "default-editor",
        # Dozens of variables for services that nobody here asks for, and one of them could hide a variable of ours.
        "enableServiceLinks": False,
        "securityContext": {"fsGroup": 100},
        "containers": [container],
        "volumes": volumes,
        **_placement(notebook),
    }


def _bounded(notebook: NotebookSpec) -> dict[str, str]:
    return {"sizeLimit": notebook.shared_memory} if notebook.shared_memory else {}


def _placement(notebook: NotebookSpec) -> dict[str, Any]:
    """On which nodes the server may run, where the class file says so."""
    selector = {"nodeSelector": notebook.node_selector} if notebook.node_selector else {}
    tolerations = [each.model_dump(exclude_none=True) for each in notebook.tolerations]
    return {**selector, **({"tolerations": tolerations} if tolerations else {})}
