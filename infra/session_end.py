"""The end of a class's session, kept by the cluster: at that minute a CronJob closes the class (infra/session.py).

It runs beside Kubeflow's own parts, where no student reads or starts anything, from the class image.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pulumi
import pulumi_kubernetes as k8s

from infra import naming
from infra.spec import ObjectStore, Platform, Session

_FILES: Final = {name: Path(__file__).with_name(name) for name in ("__init__.py", "naming.py", "session.py")}
_FOLDER: Final = "/srv/classroom"
# A cluster that was down at that minute closes the class as soon as it is back, within a week.
_LATE_SECONDS: Final = 7 * 24 * 3600
_TRIES: Final = 20

_RULES: Final = (
    ("", ("namespaces",), ("get", "list", "patch")),
    ("", ("resourcequotas",), ("create",)),
    ("dex.coreos.com", ("passwords",), ("get", "list", "patch")),
    ("traefik.io", ("middlewares",), ("get", "patch")),
    ("security.istio.io", ("authorizationpolicies",), ("create",)),
    ("rbac.authorization.k8s.io", ("rolebindings",), ("get", "delete")),
    ("argoproj.io", ("workflows",), ("list", "patch")),
    ("kubeflow.org", ("notebooks",), ("list", "patch")),
    ("kubeflow.org", ("profiles",), ("get", "patch")),
)


@dataclass(frozen=True, kw_only=True)
class SessionEndArgs:
    """Of which class, when, and where."""

    class_name: str
    session: Session
    platform: Platform


class SessionEnd(pulumi.ComponentResource):
    """At the end of its session the class is closed, whoever is at the keyboard."""

    def __init__(self, name: str, args: SessionEndArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("classroom:index:SessionEnd", name, None, opts)
        mine = pulumi.ResourceOptions(parent=self)
        called, namespace = f"classroom-{args.class_name}-end", args.platform.kubeflow_namespace
        labels = naming.labels(args.class_name)
        metadata = k8s.meta.v1.ObjectMetaArgs(name=called, labels=labels, annotations=naming.ADOPTING)
        within = k8s.meta.v1.ObjectMetaArgs(
            name=called, namespace=namespace, labels=labels, annotations=naming.ADOPTING
        )
        files = {name: file.read_text() for name, file in _FILES.items()}
        subject = k8s.rbac.v1.SubjectArgs(kind="ServiceAccount", name=called, namespace=namespace)
        role = k8s.rbac.v1.RoleRefArgs(api_group="rbac.authorization.k8s.io", kind="ClusterRole", name=called)
        k8s.core.v1.ServiceAccount(f"{name}-end", metadata=within, opts=mine)
        k8s.core.v1.ConfigMap(f"{name}-end", metadata=within, data=files, opts=mine)
        rules = [
            k8s.rbac.v1.PolicyRuleArgs(api_groups=[group], resources=list(kinds), verbs=list(verbs))
            for group, kinds, verbs in _RULES
        ]
        k8s.rbac.v1.ClusterRole(f"{name}-end", metadata=metadata, rules=rules, opts=mine)
        k8s.rbac.v1.ClusterRoleBinding(f"{name}-end", metadata=metadata, role_ref=role, subjects=[subject], opts=mine)
        k8s.batch.v1.CronJob(f"{name}-end", metadata=within, spec=cron_job(called, args), opts=mine)
        self.register_outputs({})


def cron_job(account: str, args: SessionEndArgs) -> Any:
    """The spec of the CronJob (batch/v1): once, at the minute in which the session ends, in UTC."""
    end = _whole_minute(args.session.ends_at)
    environment: list[dict[str, Any]] = [
        {"name": "CLASS_NAME", "value": args.class_name},
        {"name": "DEX_NAMESPACE", "value": args.platform.dex_namespace},
        {"name": "SESSION_END", "value": end.strftime("%Y-%m-%dT%H:%M:%SZ")},
        *_keys(args.platform.object_store),
    ]
    container = {
        "name": "close",
        "image": args.platform.notebook_image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-m", "infra.session"],
        "workingDir": _FOLDER,
        "env": environment,
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "program", "mountPath": f"{_FOLDER}/infra", "readOnly": True}],
    }
    pod = {
        "serviceAccountName": account,
        # The next try is a pod of its own, so that the log of the last one can be read.
        "restartPolicy": "Never",
        # Python hears no signal as a container's first process; whoever opens the class waits for its end.
        "terminationGracePeriodSeconds": 1,
        "containers": [container],
        "volumes": [{"name": "program", "configMap": {"name": account}}],
    }
    # A sidecar of Istio's, where that is no init container, would run on when the class is closed, and the Job with it.
    mine = naming.labels(args.class_name)
    template = {"metadata": {"labels": {**mine, "sidecar.istio.io/inject": "false"}}, "spec": pod}
    return {
        "schedule": f"{end.minute} {end.hour} {end.day} {end.month} *",
        "timeZone": "Etc/UTC",
        "startingDeadlineSeconds": _LATE_SECONDS,
        "concurrencyPolicy": "Forbid",
        "successfulJobsHistoryLimit": 1,
        "failedJobsHistoryLimit": 1,
        "jobTemplate": {"metadata": {"labels": mine}, "spec": {"backoffLimit": _TRIES, "template": template}},
    }


def _keys(store: ObjectStore) -> list[dict[str, Any]]:
    """With what the pod switches students' keys off, or why it cannot."""
    if store.kind == "minio":
        why = "a pod cannot switch off users of MinIO; run `scripts/classroom close` with the class file"
        return [{"name": "KEYS_STAY_OPEN", "value": why}]
    if store.kind == "given":
        why = "the keys were given; have whoever gave them take them back"
        return [{"name": "KEYS_STAY_OPEN", "value": why}]
    region = {"name": "S3_REGION", "value": store.region}
    if store.kind == "aws" and "secret" not in store.model_fields_set:
        # Under the default's name lies MinIO's key; a role of the node, or of the pod's account, does at AWS.
        return [region]
    at = [] if store.kind == "aws" else [{"name": "S3_ENDPOINT", "value": store.endpoint_in_cluster}]
    fields = {"AWS_ACCESS_KEY_ID": store.access_key_field, "AWS_SECRET_ACCESS_KEY": store.secret_key_field}
    return [
        *at,
        region,
        *(
            {"name": name, "valueFrom": {"secretKeyRef": {"name": store.secret, "key": key}}}
            for name, key in fields.items()
        ),
    ]


def _whole_minute(end: datetime) -> datetime:
    """The minute at which a CronJob can act for an end: a started one counts whole."""
    seconds = int(end.timestamp())
    return datetime.fromtimestamp(-(-seconds // 60) * 60, UTC)
