"""What is asked at which door: the tries of one student at another's seat, as the probe or the gateway takes them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from infra.spec import Platform
from labs.runner.isolation.doors import DOORS, PLATFORM, Where

_NOTEBOOK_PORT: Final = 8888
_KUBERNETES: Final = "https://kubernetes.default.svc"
_RUNS, _EXPERIMENTS, _PIPELINES = (f"/pipeline/apis/v2beta1/{each}" for each in ("runs", "experiments", "pipelines"))
_HEALTH: Final = "/pipeline/apis/v2beta1/healthz"
_LOGS = "/pipeline/apis/v1alpha1/runs/{run}/nodes/{pod}/log"
TASKS: Final = "/apis/v1alpha1/tasks"
_CONTEXT = "/ml_metadata.MetadataStoreService/GetContextByTypeAndName"
_LIST_TASKS, _LIST_RUNS = "/api.TaskService/ListTasksV1", "/kubeflow.pipelines.backend.api.v2beta1.RunService/ListRuns"


@dataclass(kw_only=True)
class Seat:
    """One seat as it is known while the proof runs. Empty fields are not known, and what needs them is not tried.

    `pod_addresses` are by notebook; its own tries come from the first of `notebooks`.
    """

    student: str
    email: str
    namespace: str
    bucket: str
    notebooks: tuple[str, ...]
    pod_addresses: dict[str, str] = field(default_factory=dict[str, str])
    experiment: str = ""
    run: str = ""
    run_pod: str = ""

    def page(self, notebook: str) -> str:
        """A notebook's path, at the gateway and at its server."""
        return f"/notebook/{self.namespace}/{notebook}"


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Where the platform's parts are for a pod: addresses by part; a part that was not found is not there."""

    kubeflow: str
    node: str
    addresses: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, kw_only=True)
class Call:
    """A call to the gateway."""

    door: str
    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict[str, str])
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: Any = None
    websocket: bool = False
    holds: str = ""
    notebook: str = ""

    @property
    def asked(self) -> str:
        """In one line."""
        params = "&".join(f"{name}={value}" for name, value in self.params.items())
        named = f" with {', '.join(self.headers)}" if self.headers else ""
        return f"{'websocket' if self.websocket else self.method} {self.path}{'?' if params else ''}{params}{named}"


def forged(email: str) -> dict[str, str]:
    """Headers by which one claims to be somebody, in the spellings that backends take for one another."""
    names = ("kubeflow-userid", "kubeflow_userid", "X-Forwarded-Email", "X-Forwarded-User", "X-Auth-Request-Email")
    return dict.fromkeys(names, email)


def log_marker(seat: Seat) -> str:
    """What the log of a seat's probe begins with."""
    return f"probe of {seat.namespace}"


def at_gateway(target: Seat, *, nonce: str, pipeline: Mapping[str, Any]) -> list[Call]:
    """The calls at the gateway and at KFP's API behind it that reach for a seat."""
    space = {"namespace": target.namespace}
    listing = {**space, "page_size": "1"}
    calls = [call for notebook in target.notebooks for call in _at_notebook(target, notebook)]
    calls += [
        Call(door="kfp-list", method="GET", path=_RUNS, params=listing),
        Call(door="kfp-pipelines", method="GET", path=_PIPELINES, params=listing),
        Call(door="kfp-forged", method="GET", path=_RUNS, params=listing, headers=forged(target.email)),
        Call(door="kfp-create", method="POST", path=_EXPERIMENTS, body={"display_name": nonce, **space}),
    ]
    if target.experiment:
        body = {"display_name": nonce, "experiment_id": target.experiment, "pipeline_spec": dict(pipeline)}
        calls.append(Call(door="kfp-start", method="POST", path=_RUNS, body=body))
    if target.run:
        calls.append(Call(door="kfp-get", method="GET", path=f"{_RUNS}/{target.run}"))
    return calls


def _at_notebook(target: Seat, name: str) -> list[Call]:
    page, events = target.page(name), f"{target.page(name)}/api/events/subscribe"
    return [
        Call(door="gateway-page", method="GET", path=f"{page}/lab", notebook=name),
        Call(door="gateway-rest", method="GET", path=f"{page}/api/contents", params={"content": "0"}, notebook=name),
        Call(door="gateway-websocket", method="GET", path=events, websocket=True, notebook=name),
    ]


def at_log(target: Seat) -> list[Call]:
    """The call for the log of a seat's run, once its pod is known."""
    if not target.run_pod:
        return []
    path = _LOGS.format(run=target.run, pod=target.run_pod)
    return [Call(door="kfp-logs", method="GET", path=path, holds=log_marker(target))]


def at_platform() -> list[Call]:
    """The calls at the gateway that reach for everybody's."""
    return [Call(door="kfp-tasks", method="GET", path=f"/pipeline{TASKS}", params={"page_size": "1"})]


def with_any_session() -> Call:
    """The call at the gateway that is open to everybody with a session, and to nobody else."""
    return Call(door="", method="GET", path=_HEALTH)


def outside(target: Seat, kind: str) -> list[Call]:
    """The calls of one without a right to a seat: anonymous, forged, expired or deleted."""
    headers = forged(target.email) if kind == "forged" else {}
    pages = [
        Call(door=f"{kind}-page", method="GET", path=f"{target.page(name)}/lab", headers=headers, notebook=name)
        for name in target.notebooks
    ]
    return [
        *pages,
        Call(
            door=f"{kind}-kfp",
            method="GET",
            path=_RUNS,
            params={"namespace": target.namespace, "page_size": "1"},
            headers=headers,
        ),
    ]


def from_notebook(target: Seat, platform: Platform, nonce: str) -> list[dict[str, Any]]:
    """What a kernel tries at a seat: the Kubernetes API, its notebook servers, and KFP in its name."""
    core = f"{_KUBERNETES}/api/v1/namespaces/{target.namespace}"
    pod = f"{core}/pods/{target.notebooks[0]}-0"
    config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": nonce}}
    kfp = f"http://ml-pipeline.{platform.kubeflow_namespace}:8888"
    tries = [
        _account("k8s-list", f"{core}/pods?limit=1"),
        _account("k8s-get", pod),
        _account("k8s-exec", f"{pod}/exec?command=true&stdout=true"),
        _account("k8s-secret", f"{core}/secrets/mlpipeline-minio-artifact"),
        _account("k8s-secrets", f"{core}/secrets?limit=1"),
        _account("k8s-notebooks", f"{_KUBERNETES}/apis/kubeflow.org/v1/namespaces/{target.namespace}/notebooks"),
        {
            **_account("k8s-create", f"{core}/configmaps?dryRun=All"),
            "method": "POST",
            "body": json.dumps(config_map),
            "headers": {"Content-Type": "application/json"},
        },
        *(
            _web("pod-service", f"http://{name}.{target.namespace}:80{target.page(name)}/api", name)
            for name in target.notebooks
        ),
        {
            **_web("pod-kfp", f"{kfp}/apis/v2beta1/runs?namespace={target.namespace}"),
            "headers": {"kubeflow-userid": target.email},
        },
    ]
    return tries + _at_pods("pod-notebook", target)


def at_bucket(target: Seat, round_: str, nonce: str) -> list[dict[str, Any]]:
    """What a kernel tries at a bucket, with the key of the student whose kernel it is. `nonce` is the object that the
    owner has put there; `round_`: "first" (the owner puts it), "others", "look" (the owner gets it), "last" (the owner
    deletes it).
    """
    at = {"kind": "s3", "Bucket": target.bucket}
    put = {**at, "id": "bucket-put", "does": "put_object", "Key": nonce, "Body": "probe"}
    look = [
        {**at, "id": "bucket-list", "does": "list_objects_v2", "Prefix": nonce, "MaxKeys": 1},
        {**at, "id": "bucket-get", "does": "get_object", "Key": nonce},
    ]
    delete = {**at, "id": "bucket-delete", "does": "delete_object", "Key": nonce}
    match round_:
        case "first":
            return [put]
        case "others":
            return [*look, {**put, "Key": f"{nonce}-others"}, delete]
        case "look":
            return look
        case _:
            return [delete]


def from_notebook_at_platform(parts: Parts) -> list[dict[str, Any]]:
    """What a kernel tries at the platform's inner ports."""
    services = f"{_KUBERNETES}/api/v1/namespaces/{parts.kubeflow}/services"
    tries = [
        _account("k8s-proxy-node", f"{_KUBERNETES}/api/v1/nodes/{parts.node}/proxy/healthz"),
        _account("k8s-proxy-mlmd", f"{services}/metadata-envoy-service:9090/proxy/"),
    ]
    return tries + [
        {"id": door, "kind": "tcp", "host": parts.addresses[part], "port": port}
        for door, (part, port) in WIRES.items()
        if door.startswith("pod-") and part in parts.addresses
    ]


WIRES: Final = {
    "pod-kfp-grpc": ("ml-pipeline", 8887),
    "pod-mlmd": ("metadata", 8080),
    "pod-mlmd-web": ("metadata", 9090),
    "pod-database": ("mysql", 3306),
    "pod-store-master": ("seaweedfs", 9333),
    "pod-store-filer": ("seaweedfs", 8888),
    "pod-store-admin": ("seaweedfs", 18333),
    "pod-kubelet": ("node", 10250),
    "run-mlmd-web": ("metadata", 9090),
}
"""door -> the part, and its port."""


def from_run(target: Seat, parts: Parts) -> list[dict[str, Any]]:
    """What a pod of a run tries at a seat: its records, its cached tasks, its runs, its notebook servers."""
    where = {"kind": "grpc", "host": f"metadata-grpc-service.{parts.kubeflow}", "port": 8080}
    kfp = {"kind": "grpc", "host": f"ml-pipeline.{parts.kubeflow}", "port": 8887}
    context = _field(1, "system.PipelineRun") + _field(2, target.run)
    # As KFP's driver asks for what it may take from the cache.
    only = {"predicates": [{"op": "EQUALS", "key": "namespace", "stringValue": target.namespace}]}
    tries: list[dict[str, Any]] = [
        {
            **kfp,
            "id": "run-kfp-tasks",
            "path": _LIST_TASKS,
            "message": _field(5, json.dumps(only)).hex(),
        },
        {
            **kfp,
            "id": "run-kfp-forged",
            "path": _LIST_RUNS,
            "message": _field(1, target.namespace).hex(),
            "headers": {"kubeflow-userid": target.email},
        },
    ]
    if target.run:
        tries.append({**where, "id": "run-mlmd", "path": _CONTEXT, "message": context.hex(), "holds": target.run})
    return tries + _at_pods("run-notebook", target)


def from_run_at_platform(parts: Parts) -> list[dict[str, Any]]:
    """What a pod of a run tries at the platform's inner ports."""
    part, port = WIRES["run-mlmd-web"]
    found = parts.addresses.get(part)
    return [{"id": "run-mlmd-web", "kind": "tcp", "host": found, "port": port}] if found else []


def described(each: Mapping[str, Any]) -> str:
    """A probe's try in one line."""
    match each["kind"]:
        case "http":
            named = f" with {', '.join(each['headers'])}" if each.get("headers") else ""
            return (
                f"{each.get('method', 'GET')} {each['url']}{' with the own account' if each.get('account') else named}"
            )
        case "grpc":
            named = f" with {', '.join(each['headers'])}" if each.get("headers") else ""
            return f"gRPC {each['path']} at {each['host']}:{each['port']}{named}"
        case "tcp":
            return f"connect to {each['host']}:{each['port']}"
        case _:
            return f"{each['does']} {each['Bucket']} with the own key"


def named(target: str, each: Mapping[str, Any]) -> str:
    """What a try at a target is called where the answers of several come together."""
    return f"{target} {each['id']} {each.get('notebook', '')}"


def expected(pairs: list[tuple[str, str]], notebooks: Mapping[str, Sequence[str]]) -> list[Where]:
    """Every cell that there is; `notebooks` are those of every student."""
    students, cells = list(notebooks), list[tuple[str, str, str]]()
    for door in DOORS.values():
        who = door.id.partition("-")[0]
        if door.id == "deleted-login":
            cells.append((door.id, "deleted", PLATFORM))
        elif who in ("anonymous", "forged", "expired", "deleted"):
            cells += [(door.id, who, target) for target in students]
        elif door.id == "cookie":
            cells += [(door.id, student, student) for student in students]
        elif door.id in WIRES or door.id.startswith("k8s-proxy") or door.id == "kfp-tasks":
            cells += [(door.id, actor, PLATFORM) for actor in students]
        else:
            cells += [(door.id, actor, target) for actor, target in pairs]
    return [(*cell, name) for cell in cells for name in (notebooks[cell[2]] if DOORS[cell[0]].each else ("",))]


def probe_pipeline(source: str, image: str, plan: str) -> dict[str, Any]:
    """A pipeline of one task that runs the probe, in KFP's own form (pipeline_spec.proto, schema 2.1.0)."""
    container = {
        "image": image,
        "command": ["python3", "-u", "-c"],
        "args": [f"{source}\nfrom_run()\n"],
        "env": [{"name": "ISOLATION_PLAN", "value": plan}],
    }
    task = {"cachingOptions": {}, "componentRef": {"name": "comp-probe"}, "taskInfo": {"name": "probe"}}
    return {
        "pipelineInfo": {"name": "isolation"},
        "schemaVersion": "2.1.0",
        "sdkVersion": "kfp-2.14.3",
        "root": {"dag": {"tasks": {"probe": task}}},
        "components": {"comp-probe": {"executorLabel": "exec-probe"}},
        "deploymentSpec": {"executors": {"exec-probe": {"container": container}}},
    }


def _account(door: str, url: str) -> dict[str, Any]:
    return {"id": door, "kind": "http", "url": url, "account": True}


def _web(door: str, url: str, notebook: str = "") -> dict[str, Any]:
    return {"id": door, "kind": "http", "url": url, "notebook": notebook}


def _at_pods(door: str, target: Seat) -> list[dict[str, Any]]:
    return [
        _web(door, f"http://{address}:{_NOTEBOOK_PORT}{target.page(name)}/api", name)
        for name, address in target.pod_addresses.items()
    ]


def _field(number: int, text: str) -> bytes:
    """A text field of a protobuf message."""
    data, size = text.encode(), b""
    left = len(data)
    while left >= 128:
        size, left = size + bytes([left % 128 + 128]), left // 128
    return bytes([number << 3 | 2]) + size + bytes([left]) + data
