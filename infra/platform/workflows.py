"""What runs the steps of a pipeline as pods: Argo's workflow controller, for every namespace."""

import json

import pulumi

from infra.platform.manifests import definitions
from infra.platform.rights import ALL, READ, Rule, account
from infra.platform.settings import PlatformSettings
from infra.platform.workload import Container, Pod, Ready, configuration, deployment

_CONFIGURATION = "workflow-controller-configmap"
_PORT = 6060

_EXECUTOR = {
    "imagePullPolicy": "IfNotPresent",
    "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"cpu": "500m", "memory": "256Mi"}},
}
"""What Argo puts into each pod beside the step itself."""


class Workflows(pulumi.ComponentResource):
    """The controller and its custom resources."""

    definitions: list[pulumi.Resource]

    def __init__(
        self, name: str, settings: PlatformSettings, namespace: pulumi.Output[str], opts: pulumi.ResourceOptions
    ) -> None:
        super().__init__("classroom:platform:Workflows", name, None, opts)
        mine = pulumi.ResourceOptions(parent=self)
        self.definitions = definitions(settings.upstream("argo"), mine)
        # Upstream's cluster role, less what only its own server, its plugins and its memoisation need.
        rules = (
            Rule(group="", resources=("pods", "pods/exec"), verbs=ALL),
            Rule(group="", resources=("configmaps",), verbs=READ),
            Rule(
                group="",
                resources=("persistentvolumeclaims", "persistentvolumeclaims/finalizers"),
                verbs=("create", "update", "delete", "get"),
            ),
            Rule(
                group="argoproj.io",
                resources=(
                    "workflows",
                    "workflows/finalizers",
                    "workflowtasksets",
                    "workflowtasksets/finalizers",
                    "workflowartifactgctasks",
                ),
                verbs=ALL,
            ),
            Rule(
                group="argoproj.io",
                resources=(
                    "workflowtemplates",
                    "workflowtemplates/finalizers",
                    "clusterworkflowtemplates",
                    "clusterworkflowtemplates/finalizers",
                ),
                verbs=READ,
            ),
            Rule(group="argoproj.io", resources=("workflowtaskresults",), verbs=("list", "watch", "deletecollection")),
            Rule(
                group="argoproj.io",
                resources=("cronworkflows", "cronworkflows/finalizers"),
                verbs=(*READ, "update", "patch", "delete"),
            ),
            Rule(group="", resources=("serviceaccounts",), verbs=("get", "list")),
            Rule(group="", resources=("events",), verbs=("create", "patch")),
            Rule(group="policy", resources=("poddisruptionbudgets",), verbs=("create", "get", "delete")),
        )
        who = account("workflow-controller", namespace, mine, everywhere=rules)
        configured = {
            "executor": json.dumps(_EXECUTOR),
            "nodeEvents": json.dumps({"enabled": False}),
            "workflowEvents": json.dumps({"enabled": False}),
            "metricsConfig": json.dumps({"enabled": False}),
            "telemetryConfig": json.dumps({"enabled": False}),
        }
        configuration(_CONFIGURATION, namespace, configured, mine)
        deployment(
            Pod(
                app="workflow-controller",
                account=who,
                restart_on=list(configured.values()),
                containers=[
                    Container(
                        name="workflow-controller",
                        program=settings.program("workflow-controller"),
                        arguments=[
                            f"--configmap={_CONFIGURATION}",
                            f"--executor-image={settings.program('argoexec').image}",
                            "--executor-image-pull-policy=IfNotPresent",
                            "--qps=100",
                            "--burst=200",
                            "--log-format=json",
                        ],
                        environment={
                            # How much later than the last step of a run ended the next one starts. Upstream waits
                            # 10 s, and warns of less than 1 s where the controller's view may be that old; here it is
                            # a few milliseconds old.
                            "DEFAULT_REQUEUE_TIME": "200ms",
                            # There is one; a new one need not wait for the old one's lease to run out.
                            "LEADER_ELECTION_DISABLE": "true",
                            "WATCH_CONTROLLER_SEMAPHORE_CONFIGMAPS": "false",
                        },
                        field_environment={"LEADER_ELECTION_IDENTITY": "metadata.name"},
                        ready=Ready(port=_PORT, path="/healthz", period_seconds=2),
                        millicores=20,
                        memory_mebibytes=64,
                        go_memory_mebibytes=160,
                    )
                ],
            ),
            namespace,
            pulumi.ResourceOptions(parent=self, depends_on=self.definitions),
        )
        self.register_outputs({})
