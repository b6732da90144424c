"""Persistent volumes: directories of the node, given out by the local-path provisioner as the default storage class."""

import json

import pulumi
import pulumi_kubernetes as k8s

from infra.platform.rights import ALL, READ, Rule, account
from infra.platform.settings import PlatformSettings
from infra.platform.workload import Container, Pod, config_map, configuration, deployment

NAMESPACE = "local-path-storage"
STORAGE_CLASS = "local-path"
PROVISIONER = "rancher.io/local-path"

_SETUP = '#!/bin/sh\nset -eu\nmkdir -m 0777 -p "$VOL_DIR"\n'
_TEARDOWN = '#!/bin/sh\nset -eu\nrm -rf "$VOL_DIR"\n'


class Volumes(pulumi.ComponentResource):
    """The storage class. A volume is made when its first pod is scheduled, and deleted with its claim."""

    def __init__(
        self, name: str, settings: PlatformSettings, namespace: pulumi.Output[str], opts: pulumi.ResourceOptions
    ) -> None:
        super().__init__("classroom:platform:Volumes", name, None, opts)
        mine = pulumi.ResourceOptions(parent=self)
        k8s.storage.v1.StorageClass(
            STORAGE_CLASS,
            metadata=k8s.meta.v1.ObjectMetaArgs(
                name=STORAGE_CLASS, annotations={"storageclass.kubernetes.io/is-default-class": "true"}
            ),
            provisioner=PROVISIONER,
            volume_binding_mode="WaitForFirstConsumer",
            reclaim_policy="Delete",
            opts=mine,
        )
        rules = (
            Rule(group="", resources=("nodes", "persistentvolumeclaims", "configmaps"), verbs=READ),
            Rule(group="", resources=("persistentvolumes",), verbs=ALL),
            Rule(group="", resources=("events",), verbs=("create", "patch")),
            Rule(group="storage.k8s.io", resources=("storageclasses",), verbs=READ),
        )
        helpers = (
            Rule(group="", resources=("pods",), verbs=ALL),
            Rule(group="", resources=("pods/log",), verbs=("get",)),
        )
        who = account("local-path-provisioner", namespace, mine, everywhere=rules, in_namespace=helpers)
        paths = json.dumps(
            {"nodePathMap": [{"node": "DEFAULT_PATH_FOR_NON_LISTED_NODES", "paths": [str(settings.volume_directory)]}]}
        )
        helper = settings.program("busybox").image
        configured = {
            "config.json": paths,
            "setup": _SETUP,
            "teardown": _TEARDOWN,
            "helperPod.yaml": _helper_pod(helper),
        }
        configuration("local-path-config", namespace, configured, mine)
        deployment(
            Pod(
                app="local-path-provisioner",
                account=who,
                restart_on=list(configured.values()),
                containers=[
                    Container(
                        name="local-path-provisioner",
                        program=settings.program("local-path-provisioner"),
                        arguments=[
                            "start",
                            "--config=/etc/config/config.json",
                            f"--helper-image={helper}",
                            # Its helper pods make a directory and ask nothing of the cluster.
                            "--service-account-name=default",
                        ],
                        environment={"CONFIG_MOUNT_PATH": "/etc/config/"},
                        field_environment={"POD_NAMESPACE": "metadata.namespace"},
                        mounts=[config_map("local-path-config", "/etc/config")],
                        go_memory_mebibytes=48,
                    )
                ],
            ),
            namespace,
            mine,
        )
        self.register_outputs({})


def _helper_pod(image: str) -> str:
    """The pod that makes or deletes a volume's directory. It runs as root: the directory is the node's."""
    container = {"name": "helper-pod", "image": image, "imagePullPolicy": "IfNotPresent"}
    spec = {"priorityClassName": "system-node-critical", "terminationGracePeriodSeconds": 0, "containers": [container]}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "helper-pod"}, "spec": spec})
