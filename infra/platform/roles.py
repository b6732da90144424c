"""What a member of a seat may do there: the ClusterRoles kubeflow-edit and kubeflow-view, under upstream's names.

They are bound in a namespace, never cluster-wide. Neither can write a route (IngressRoute, Middleware, Ingress) past
the login, a NetworkPolicy, a quota, a limit or a binding, and pods come of Notebooks and pipeline runs alone.
"""

import pulumi
import pulumi_kubernetes as k8s

from infra.platform.rights import ALL, READ, WRITE, Rule

EDIT = "kubeflow-edit"
VIEW = "kubeflow-view"

_VIEW_RULES = (
    # KFP asks for these verbs by SubjectAccessReview, on resources that exist in no API.
    Rule(
        group="pipelines.kubeflow.org",
        resources=("pipelines", "pipelines/versions", "experiments", "jobs"),
        verbs=("get", "list"),
    ),
    Rule(group="pipelines.kubeflow.org", resources=("runs",), verbs=("get", "list", "readArtifact")),
    Rule(group="pipelines.kubeflow.org", resources=("visualizations",), verbs=("create",)),
    Rule(group="kubeflow.org", resources=("notebooks", "notebooks/status", "scheduledworkflows"), verbs=READ),
    Rule(
        group="argoproj.io",
        resources=(
            "workflows",
            "workflowtemplates",
            "cronworkflows",
            "workflowtaskresults",
            "workflowtasksets",
            "workflowartifactgctasks",
        ),
        verbs=READ,
    ),
    Rule(
        group="",
        resources=(
            "pods",
            "pods/status",
            "services",
            "configmaps",
            "persistentvolumeclaims",
            "events",
            "serviceaccounts",
            "resourcequotas",
            "limitranges",
        ),
        verbs=READ,
    ),
    Rule(group="", resources=("pods/log",), verbs=("get", "list")),
    Rule(group="apps", resources=("statefulsets",), verbs=READ),
)

_EDIT_RULES = (
    Rule(
        group="pipelines.kubeflow.org",
        resources=("pipelines", "pipelines/versions"),
        verbs=("create", "delete", "update"),
    ),
    Rule(
        group="pipelines.kubeflow.org",
        resources=("experiments",),
        verbs=("archive", "create", "delete", "unarchive", "update"),
    ),
    Rule(
        group="pipelines.kubeflow.org",
        resources=("runs",),
        verbs=("archive", "create", "delete", "retry", "terminate", "unarchive", "reportMetrics"),
    ),
    Rule(group="pipelines.kubeflow.org", resources=("jobs",), verbs=("create", "delete", "disable", "enable")),
    Rule(group="kubeflow.org", resources=("notebooks",), verbs=(*WRITE, "deletecollection")),
    # The executor beside each step reports its outputs as one of these.
    Rule(group="argoproj.io", resources=("workflowtaskresults",), verbs=("create", "patch")),
    # A pipeline may take secrets and configuration into its steps, make volumes, and look after its pods.
    Rule(group="", resources=("secrets", "configmaps", "persistentvolumeclaims"), verbs=ALL),
    Rule(group="", resources=("pods",), verbs=("patch", "delete")),
)


class Roles(pulumi.ComponentResource):
    """The two ClusterRoles."""

    def __init__(self, name: str, opts: pulumi.ResourceOptions) -> None:
        super().__init__("classroom:platform:Roles", name, None, opts)
        for role, rules in ((VIEW, _VIEW_RULES), (EDIT, (*_VIEW_RULES, *_EDIT_RULES))):
            k8s.rbac.v1.ClusterRole(
                role,
                metadata=k8s.meta.v1.ObjectMetaArgs(name=role),
                rules=[rule.args() for rule in rules],
                opts=pulumi.ResourceOptions(parent=self),
            )
        self.register_outputs({})
