"""Notebook servers: the controller that makes a StatefulSet and a Service of each kubeflow.org/v1 Notebook."""

import pulumi

from infra.platform.manifests import Manifest, definitions
from infra.platform.rights import READ, Rule, account
from infra.platform.settings import PlatformSettings
from infra.platform.workload import Container, Pod, Ready, deployment

_PROBE_PORT = 8081


class Notebooks(pulumi.ComponentResource):
    """The notebook controller and its custom resource."""

    def __init__(
        self, name: str, settings: PlatformSettings, namespace: pulumi.Output[str], opts: pulumi.ResourceOptions
    ) -> None:
        super().__init__("classroom:platform:Notebooks", name, None, opts)
        mine = pulumi.ResourceOptions(parent=self)
        known = definitions(settings.upstream("notebooks"), mine, amend=_without_required_status)
        rules = (
            Rule(group="apps", resources=("statefulsets",), verbs=("*",)),
            Rule(group="", resources=("services",), verbs=("*",)),
            Rule(group="", resources=("pods",), verbs=READ),
            Rule(group="", resources=("events",), verbs=(*READ, "create", "patch")),
            Rule(
                group="kubeflow.org", resources=("notebooks", "notebooks/finalizers", "notebooks/status"), verbs=("*",)
            ),
        )
        who = account("notebook-controller", namespace, mine, everywhere=rules)
        deployment(
            Pod(
                app="notebook-controller",
                account=who,
                containers=[
                    Container(
                        name="manager",
                        program=settings.program("notebook-controller"),
                        arguments=["-enable-leader-election=false", "-qps=50", "-burst=100", "-zap-devel=false"],
                        # Nothing is stopped for being idle: a class ends when its teacher says so. The controller asks
                        # each server for its last activity all the same, one after the other, so many minutes after
                        # the last time; with a thousand servers, each minute would be more than half a core's work.
                        environment={"USE_ISTIO": "false", "ENABLE_CULLING": "false", "IDLENESS_CHECK_PERIOD": "5"},
                        ready=Ready(port=_PROBE_PORT, path="/readyz", period_seconds=2),
                        go_memory_mebibytes=64,
                    )
                ],
            ),
            namespace,
            pulumi.ResourceOptions(parent=self, depends_on=known),
        )
        self.register_outputs({})


def _without_required_status(schema: Manifest) -> Manifest:
    """The schema of a Notebook whose status may be incomplete.

    The controller writes `conditions: null` when a StatefulSet is ready before it saw the pod. Upstream's schema
    refuses that, the controller does not try again, and the notebook never counts as ready.
    """
    properties = schema["properties"]
    status = {key: value for key, value in properties["status"].items() if key != "required"}
    return {**schema, "properties": {**properties, "status": status}}
