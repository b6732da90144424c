"""What a student gets, as the program asks Pulumi for it."""

import json
import re
from typing import Any

import pytest

from infra import naming
from infra.identity import PASSWORD_PATTERN, password
from infra.seat import policies, quota
from infra.spec import ClassSpec, Platform, amount
from tests.unit.conftest import Registered, Stamped, is_secret

_KUBERNETES = "kubernetes:"


def _of_student(stamped: Stamped, student: str) -> list[Registered]:
    return [each for each in stamped.resources if (each.metadata.get("labels") or {}).get("student") == student]


def _one(stamped: Stamped, kind: str, namespace: str, name: str) -> Registered:
    found = [
        each
        for each in stamped.of(kind)
        if (each.metadata.get("namespace"), each.metadata.get("name")) == (namespace, name)
    ]
    assert len(found) == 1, f"{len(found)} of {kind} {namespace}/{name}"
    return found[0]


def test_everything_in_the_cluster_carries_class_and_student(stamped: Stamped) -> None:
    objects = [each for each in stamped.resources if each.type.startswith(_KUBERNETES)]
    assert objects
    for each in objects:
        labels = each.metadata.get("labels") or {}
        assert labels.get("classroom") == "demo", each.name
        assert labels.get("student") in ("alice", "bob"), each.name
        assert labels.get("app.kubernetes.io/managed-by") == "kubeflow-classroom", each.name


def test_every_student_gets_the_same_kinds_of_things(stamped: Stamped) -> None:
    kinds = [sorted(each.kind for each in _of_student(stamped, student)) for student in ("alice", "bob")]
    assert kinds[0] == kinds[1]
    assert {"Namespace", "Notebook", "PersistentVolumeClaim", "ResourceQuota", "LimitRange"} <= set(kinds[0])


def test_everything_but_the_login_lies_in_the_seats_namespace(stamped: Stamped) -> None:
    for each in _of_student(stamped, "alice"):
        if each.kind == "Namespace":
            assert each.metadata["name"] == "demo-alice"
        else:
            assert each.metadata["namespace"] == ("auth" if each.kind == "Password" else "demo-alice"), each.name


def test_no_pod_of_a_seat_can_own_the_node(stamped: Stamped) -> None:
    for namespace in stamped.of("Namespace"):
        assert namespace.metadata["labels"]["pod-security.kubernetes.io/enforce"] == "baseline"


def test_the_student_may_edit_in_the_own_namespace_and_nowhere_else(stamped: Stamped) -> None:
    assert not stamped.of("ClusterRoleBinding")
    bindings = [each for each in stamped.of("RoleBinding") if each.inputs["subjects"][0]["kind"] == "User"]
    seen = {
        each.metadata["namespace"]: (each.inputs["subjects"][0]["name"], each.inputs["roleRef"]["name"])
        for each in bindings
    }
    assert seen == {
        "demo-alice": ("alice@example.org", "kubeflow-edit"),
        "demo-bob": ("bob@example.org", "kubeflow-edit"),
    }


@pytest.mark.parametrize(
    ("account", "role"), [("default-editor", "kubeflow-edit"), ("default-viewer", "kubeflow-view")]
)
def test_the_service_accounts_are_the_ones_that_kubeflow_expects(stamped: Stamped, account: str, role: str) -> None:
    _one(stamped, "ServiceAccount", "demo-alice", account)
    assert _one(stamped, "RoleBinding", "demo-alice", account).inputs["roleRef"]["name"] == role


def test_the_quota_holds_all_notebooks_at_once(demo: ClassSpec, stamped: Stamped) -> None:
    hard = _one(stamped, "ResourceQuota", "demo-alice", "seat").inputs["spec"]["hard"]
    assert hard == quota(demo)
    assert amount(hard["requests.cpu"]) >= sum(amount(n.cpu) for n in demo.notebooks)
    assert amount(hard["limits.memory"]) >= sum(amount(n.most_memory) for n in demo.notebooks)
    assert int(hard["pods"]) >= len(demo.notebooks) + 5
    assert hard["requests.nvidia.com/gpu"] == "1"


def test_a_pod_without_sizes_gets_small_ones(stamped: Stamped) -> None:
    (limit,) = _one(stamped, "LimitRange", "demo-alice", "seat").inputs["spec"]["limits"]
    assert limit["defaultRequest"] == {"cpu": "20m", "memory": "64Mi"}
    assert limit["default"] == {"memory": "1Gi"}


def test_nothing_comes_in_or_goes_out_unless_a_policy_says_so(stamped: Stamped) -> None:
    spec = _one(stamped, "NetworkPolicy", "demo-alice", "default-deny").inputs["spec"]
    assert spec["podSelector"] == {}
    assert sorted(spec["policyTypes"]) == ["Egress", "Ingress"]
    assert not {"ingress", "egress"} & spec.keys()


def test_only_the_gateway_and_the_controller_come_to_a_notebook_from_outside(platform: Platform) -> None:
    namespaces = [
        peer["namespace_selector"]["match_labels"]["kubernetes.io/metadata.name"]
        for policy in policies(platform).values()
        for rule in _rules(policy, "ingress")
        for peer in rule["from_"]
        if "namespace_selector" in peer
    ]
    assert sorted(namespaces) == ["gateway", "kubeflow"]


def test_no_policy_opens_everything(platform: Platform) -> None:
    for name, policy in policies(platform).items():
        for direction, peers in (("ingress", "from_"), ("egress", "to")):
            for rule in _rules(policy, direction):
                assert rule.get(peers), f"{name} lets everybody {direction}"
                assert all(peer for peer in rule[peers]), name
                assert "ports" in rule or name == "seat-itself", name


def test_pipelines_reach_their_records_and_ordinary_pods_do_not(platform: Platform) -> None:
    made = policies(platform)
    ports = [port["port"] for rule in _rules(made["from-pipelines"], "egress") for port in rule["ports"]]
    assert ports == [8080, 8887]
    assert made["from-pipelines"]["pod_selector"] == {"match_labels": {"pipelines.kubeflow.org/v2_component": "true"}}
    everywhere = [port["port"] for rule in _rules(made["from-seat"], "egress") for port in rule["ports"]]
    assert not {8080, 8887, 8888} & set(everywhere)


def test_an_object_store_outside_is_reached_without_opening_private_networks(platform: Platform) -> None:
    outside = platform.object_store.model_copy(update={"endpoint_in_cluster": "https://s3.eu.example.org"})
    made = policies(platform.model_copy(update={"object_store": outside}))["from-seat"]
    (block,) = [p["ip_block"] for r in _rules(made, "egress") for p in r["to"] if p.get("ip_block", {}).get("except_")]
    assert "10.0.0.0/8" in block["except_"]


def _rules(policy: Any, direction: str) -> list[dict[str, Any]]:
    return list(policy.get(direction, []))


def test_a_notebook_is_ready_only_when_its_server_answers(stamped: Stamped) -> None:
    notebook = _one(stamped, "Notebook", "demo-alice", "gpu-notebook")
    assert notebook.metadata["annotations"]["pulumi.com/waitFor"] == "jsonpath={.status.readyReplicas}=1"
    (container,) = notebook.inputs["spec"]["template"]["spec"]["containers"]
    assert container["readinessProbe"]["httpGet"] == {"path": "/notebook/demo-alice/gpu-notebook/api", "port": 8888}


def test_a_notebook_runs_as_the_seats_editor_on_its_own_workspace(stamped: Stamped) -> None:
    pod = _one(stamped, "Notebook", "demo-bob", "cpu-notebook").inputs["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == "default-editor"
    assert pod["volumes"][0]["persistentVolumeClaim"] == {"claimName": "cpu-notebook-volume"}
    _one(stamped, "PersistentVolumeClaim", "demo-bob", "cpu-notebook-volume")
    assert "nvidia.com/gpu" not in pod["containers"][0]["resources"]["limits"]


def test_a_notebook_trusts_the_gateway_by_a_variable_of_its_own(stamped: Stamped) -> None:
    pod = _one(stamped, "Notebook", "demo-bob", "cpu-notebook").inputs["spec"]["template"]["spec"]
    environment = {entry["name"]: entry["value"] for entry in pod["containers"][0]["env"]}
    assert environment["KUBEFLOW_CA_FILE"] == "/etc/kubeflow-ca/ca.crt"
    assert not {"REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"} & environment.keys()
    assert environment["CLASS_IMAGE"] == "localhost/classroom/notebook:1"


def test_the_route_of_a_seat_lets_its_student_alone_pass(stamped: Stamped) -> None:
    login = _one(stamped, "Middleware", "demo-alice", "login").inputs["spec"]["forwardAuth"]
    assert login["address"].endswith("/?allowed_emails=alice@example.org")
    assert login["trustForwardHeader"] is False
    for route in _one(stamped, "IngressRoute", "demo-alice", "notebooks").inputs["spec"]["routes"]:
        assert route["middlewares"][0] == {"name": "login"}
        assert route["middlewares"][1] == {"name": "no-session"}
        assert "/notebook/demo-alice/" in route["match"]


def test_runs_write_to_the_students_own_bucket_below_artifacts(stamped: Stamped) -> None:
    launcher = _one(stamped, "ConfigMap", "demo-alice", "kfp-launcher").inputs["data"]
    assert launcher["defaultPipelineRoot"] == "s3://demo-alice/artifacts"
    provider = json.loads(launcher["providers"])["s3"]["default"]
    assert provider["endpoint"] == "http://seaweedfs.kubeflow:8333"
    assert provider["credentials"]["secretRef"]["secretName"] == "mlpipeline-minio-artifact"
    repository = json.loads(_one(stamped, "ConfigMap", "demo-alice", "artifact-repositories").inputs["data"]["seat"])
    assert repository["s3"]["bucket"] == "demo-alice"
    assert repository["s3"]["keyFormat"].startswith("artifacts/")


def test_keys_and_passwords_are_secret_wherever_they_go(stamped: Stamped) -> None:
    key = _one(stamped, "Secret", "demo-alice", "mlpipeline-minio-artifact")
    assert is_secret(key.inputs["data"]) or all(is_secret(value) for value in key.inputs["data"].values())
    (login,) = [each for each in stamped.of("Password") if each.type.startswith("kubernetes:") and "alice" in each.name]
    assert is_secret(login.inputs["hash"])
    assert stamped.secret_outputs == {"passwords"}


def test_the_login_is_the_object_that_dex_looks_for(stamped: Stamped) -> None:
    (login,) = [each for each in stamped.of("Password") if each.type.startswith("kubernetes:") and "alice" in each.name]
    assert login.metadata["name"] == naming.dex_password_name("alice@example.org")
    assert login.inputs["email"] == "alice@example.org"


def test_the_teacher_is_told_where_everything_is(stamped: Stamped) -> None:
    assert stamped.outputs["gateway"] == "https://198.18.0.100/"
    alice = stamped.outputs["seats"]["alice"]
    assert alice["namespace"] == "demo-alice"
    assert alice["notebooks"]["gpu-notebook"] == "https://198.18.0.100/notebook/demo-alice/gpu-notebook/"


def test_no_key_of_the_operator_is_in_anything_that_the_program_asks_for(stamped: Stamped) -> None:
    (provider,) = stamped.of("kubernetes")
    assert provider.inputs["kubeconfig"].endswith("/kubeconfig")
    buckets = [each for each in stamped.of("Bucket") if each.type.startswith("pulumi-python:")]
    assert len(buckets) == 2
    for each in buckets:
        assert each.inputs.keys() == {"address", "holding", "__provider"}
        assert not {"access_key", "secret_key"} & set(each.inputs["address"])


def test_a_password_can_be_read_aloud_and_two_are_never_alike() -> None:
    made = {password() for _ in range(200)}
    assert len(made) == 200
    assert all(re.fullmatch(PASSWORD_PATTERN, each) for each in made)
