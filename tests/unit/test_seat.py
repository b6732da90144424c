"""What a student gets, as the program asks Pulumi for it."""

import json
import re
from contextlib import nullcontext
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509

from infra import cluster, naming
from infra.access.certificate import FileUnreadable, _SelfSignedProvider, read
from infra.bucket import BucketElsewhere, _BucketProvider
from infra.classroom import Taken, refuse_taken
from infra.identity import PASSWORD_PATTERN, password
from infra.seat import policies, quota
from infra.spec import ClassSpec, ObjectStore, Platform
from infra.stores import Holding, Key, Settings
from infra.values import RESERVED_VARIABLES, amount
from tests.unit import conftest
from tests.unit.conftest import Registered, Stamped, is_secret, stamp

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


def test_a_seat_without_gpus_may_hold_none() -> None:
    assert quota(_class())["requests.nvidia.com/gpu"] == "0"
    assert quota(_class(quota={"gpus": 2}))["requests.nvidia.com/gpu"] == "2"


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


def _class(**fields: Any) -> ClassSpec:
    """A class of alice and bob with one small notebook, and with `fields` as a class file has them."""
    students = [{"id": name, "email": f"{name}@example.org"} for name in ("alice", "bob")]
    notebook = {"name": "cpu-notebook", "cpu": "100m", "memory": "1Gi"}
    return ClassSpec.model_validate({"name": "demo", "students": students, "notebooks": [notebook], **fields})


def _pod(stamped: Stamped, student: str) -> dict[str, Any]:
    made = _one(stamped, "Notebook", f"demo-{student}", "cpu-notebook")
    return dict(made.inputs["spec"]["template"]["spec"])


def test_a_notebook_lands_where_the_class_file_lets_it(platform: Platform) -> None:
    notebook = {
        "name": "cpu-notebook",
        "image": "registry.example.org/own:1",
        "shared_memory": "1Gi",
        "environment": {"OMP_NUM_THREADS": "2"},
        "node_selector": {"pool": "gpu"},
        "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
    }
    pod = _pod(stamp(_class(notebooks=[notebook]), platform), "alice")
    assert pod["nodeSelector"] == {"pool": "gpu"}
    assert pod["tolerations"] == [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert pod["volumes"][1]["emptyDir"] == {"medium": "Memory", "sizeLimit": "1Gi"}
    (container,) = pod["containers"]
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    assert container["image"] == environment["CLASS_IMAGE"] == "registry.example.org/own:1"
    assert environment["OMP_NUM_THREADS"] == "2"


def test_a_class_file_cannot_set_a_variable_that_the_seat_sets(stamped: Stamped) -> None:
    pod = _one(stamped, "Notebook", "demo-alice", "cpu-notebook").inputs["spec"]["template"]["spec"]
    assert {entry["name"] for entry in pod["containers"][0]["env"]} <= RESERVED_VARIABLES


def test_idle_kernels_and_terminals_are_ended_only_when_the_class_file_says_so(platform: Platform) -> None:
    busy, idle = (_pod(stamp(_class(idle_minutes=minutes), platform), "alice") for minutes in (None, 30))
    assert "cull" not in busy["containers"][0]["command"][2]
    command = idle["containers"][0]["command"][2]
    assert command.startswith(busy["containers"][0]["command"][2])
    assert "--MappingKernelManager.cull_idle_timeout=1800 " in command
    assert "--MappingKernelManager.cull_connected=True " in command
    assert "--TerminalManager.cull_inactive_timeout=1800 " in command


def test_an_override_is_in_that_students_seat_alone(platform: Platform) -> None:
    bob = {"notebooks": {"cpu-notebook": {"memory": "4Gi"}}, "quota": {"memory": "48Gi"}}
    made = stamp(_class(overrides={"bob": bob}), platform)
    memory = {name: _pod(made, name)["containers"][0]["resources"]["limits"]["memory"] for name in ("alice", "bob")}
    assert memory == {"alice": "1Gi", "bob": "4Gi"}
    bounds = {
        name: _one(made, "ResourceQuota", f"demo-{name}", "seat").inputs["spec"]["hard"]["limits.memory"]
        for name in ("alice", "bob")
    }
    assert bounds == {"alice": "32Gi", "bob": "48Gi"}


def test_the_session_stands_on_each_namespace_in_utc(platform: Platform, stamped: Stamped) -> None:
    session = {"start": "2026-12-01 09:00", "end": "2026-12-01 17:00", "time_zone": "Asia/Seoul"}
    for namespace in stamp(_class(session=session), platform).of("Namespace"):
        annotations = namespace.metadata["annotations"]
        assert annotations["kubeflow-classroom/session-start"] == "2026-12-01T00:00:00Z"
        assert annotations["kubeflow-classroom/session-end"] == "2026-12-01T08:00:00Z"
    assert not any("session" in key for each in stamped.of("Namespace") for key in each.metadata["annotations"])


def test_runs_and_bucket_are_in_the_region_of_the_class_file(platform: Platform) -> None:
    made = stamp(_class(bucket={"region": "eu-west-1", "versioning": True, "lifecycle_days": 30}), platform)
    provider = json.loads(_one(made, "ConfigMap", "demo-alice", "kfp-launcher").inputs["data"]["providers"])
    assert provider["s3"]["default"]["region"] == "eu-west-1"
    repository = json.loads(_one(made, "ConfigMap", "demo-alice", "artifact-repositories").inputs["data"]["seat"])
    assert repository["s3"]["region"] == "eu-west-1"
    for bucket in made.of("Bucket"):
        if bucket.type.startswith("pulumi-python:"):
            assert bucket.inputs["settings"] == {"region": "eu-west-1", "versioning": True, "lifecycle_days": 30}


def test_runs_reach_aws_at_the_region_of_the_bucket_and_by_its_host_name(platform: Platform) -> None:
    aws = platform.model_copy(update={"object_store": ObjectStore(kind="aws", region="eu-central-1")})
    for asked, region in (({}, "eu-central-1"), ({"bucket": {"region": "eu-west-1"}}, "eu-west-1")):
        made = stamp(_class(**asked), aws)
        provider = json.loads(_one(made, "ConfigMap", "demo-alice", "kfp-launcher").inputs["data"]["providers"])
        wanted = {"endpoint": f"https://s3.{region}.amazonaws.com", "region": region}
        found = provider["s3"]["default"]
        assert wanted.items() <= found.items()
        assert (found["disableSSL"], found["forcePathStyle"]) == (False, False)
        repository = json.loads(_one(made, "ConfigMap", "demo-alice", "artifact-repositories").inputs["data"]["seat"])
        assert repository["s3"]["endpoint"] == f"s3.{region}.amazonaws.com"
        assert repository["s3"]["insecure"] is False


def test_runs_reach_kubeflows_own_minio_with_buckets_as_folders(platform: Platform) -> None:
    store = ObjectStore(kind="minio", endpoint="https://minio.example.org")
    made = stamp(_class(), platform.model_copy(update={"object_store": store}))
    provider = json.loads(_one(made, "ConfigMap", "demo-alice", "kfp-launcher").inputs["data"]["providers"])
    found = provider["s3"]["default"]
    assert found["endpoint"] == "http://minio-service.kubeflow:9000"
    assert (found["disableSSL"], found["forcePathStyle"]) == (True, True)
    egress = _one(made, "NetworkPolicy", "demo-alice", "from-seat").inputs["spec"]["egress"]
    assert [rule["to"] for rule in egress if rule["ports"] == [{"protocol": "TCP", "port": 9000}]] == [
        [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kubeflow"}}}]
    ]


def test_runs_and_notebooks_are_told_the_bucket_that_was_given(platform: Platform, tmp_path: Path) -> None:
    file = tmp_path / "keys.csv"
    file.write_text("id,bucket,access_key,secret_key\nalice,team-a,K1,S1\nbob,team-b,K2,S2\n")
    file.chmod(0o600)
    store = ObjectStore(kind="given", endpoint="https://s3.example.org", keys_file=file)
    made = stamp(_class(), platform.model_copy(update={"object_store": store}))
    launcher = _one(made, "ConfigMap", "demo-bob", "kfp-launcher").inputs["data"]
    assert launcher["defaultPipelineRoot"] == "s3://team-b/artifacts"
    (container,) = _pod(made, "bob")["containers"]
    assert {"name": "CLASS_BUCKET", "value": "team-b"} in container["env"]
    assert not [each for each in made.resources if "S2" in json.dumps(each.inputs, default=str)]


def test_a_bucket_is_changed_when_its_settings_are_and_never_moved() -> None:
    provider = _BucketProvider()
    intact = dict.fromkeys(("policy_intact", "tags_intact", "key_intact"), True)
    place = {"endpoint": "http://s3.example.org", "region": "us-east-1", "kubeconfig": "", "namespace": ""}
    address = {**place, "secret": "", "access_key_field": "", "secret_key_field": ""}
    # As a state of an earlier version has it.
    holding = dict.fromkeys(("class_name", "student", "bucket", "user", "policy"), "x")
    plain = {"address": address, "holding": holding, **intact}
    # Pulumi gives back every number as a float.
    kept = {**plain, "settings": {**asdict(Settings(versioning=True)), "lifecycle_days": 0.0}}
    assert not provider.diff("x", kept, {**plain, "settings": asdict(Settings(versioning=True))}).changes
    assert provider.diff("x", kept, plain).changes
    assert not provider.diff("x", kept, plain).replaces
    with pytest.raises(BucketElsewhere, match="lies in the object store's own region and cannot be moved"):
        provider.update("x", plain, {**plain, "settings": asdict(Settings(region="eu-west-1"))})


@pytest.mark.parametrize(
    ("before", "after", "mend"),
    [
        (
            {"endpoint": "http://old.example.org"},
            {"endpoint": "http://s3.example.org"},
            "`kind: seaweedfs` and `endpoint: http://old.example.org`",
        ),
        ({"kind": "seaweedfs"}, {"kind": "minio"}, "`kind: seaweedfs` and `endpoint: http://s3.example.org`"),
        (
            {"kind": "aws", "endpoint": "https://s3.eu-west-1.amazonaws.com", "region": "eu-west-1"},
            {"kind": "aws", "endpoint": "https://s3.eu-west-2.amazonaws.com", "region": "eu-west-2"},
            "`kind: aws` and `region: eu-west-1`",
        ),
    ],
)
def test_a_bucket_is_not_lost_to_another_address(before: dict[str, str], after: dict[str, str], mend: str) -> None:
    provider = _BucketProvider()
    fields = ("region", "kubeconfig", "namespace", "secret", "access_key_field", "secret_key_field")
    address = {**dict.fromkeys(fields, ""), "endpoint": "http://s3.example.org"}
    intact = dict.fromkeys(("policy_intact", "tags_intact", "key_intact"), True)
    holding = asdict(Holding.of("demo", "alice"))
    olds = {"address": {**address, **before}, "holding": holding, **intact}
    # Also where the bucket of another kind of store would have another name.
    for held in (holding, {**holding, "bucket": "team-a"}):
        news = {"address": {**address, **after}, "holding": held}
        change = provider.diff("x", olds, news)
        assert (change.changes, change.replaces) == (True, [])
        with pytest.raises(BucketElsewhere) as refused:
            provider.update("x", olds, news)
        assert "bucket demo-alice lies in another object store" in str(refused.value)
        assert f"write {mend} again under `platform.object_store`" in str(refused.value)


def test_a_slash_behind_an_address_is_no_other_store(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Key(access_key="k", secret_key="s")
    store = SimpleNamespace(ensure=lambda _holding, key: key)
    monkeypatch.setattr("infra.bucket.connect", lambda _: store)
    fields = ("region", "kubeconfig", "namespace", "secret", "access_key_field", "secret_key_field")
    address = {**dict.fromkeys(fields, ""), "endpoint": "http://s3.example.org"}
    news = {"address": address, "holding": asdict(Holding.of("demo", "alice"))}
    olds = {**news, "address": {**address, "endpoint": "http://s3.example.org/"}, **asdict(kept)}
    provider = _BucketProvider()
    assert provider.diff("x", olds, news).replaces == []
    assert (provider.update("x", olds, news).outs or {})["access_key"] == "k"


def test_students_are_told_the_host_name_of_the_class(platform: Platform) -> None:
    made = stamp(_class(access={"host": "class.example.org"}), platform)
    assert made.outputs["gateway"] == "https://class.example.org/"
    url = made.outputs["seats"]["alice"]["notebooks"]["cpu-notebook"]
    assert url == "https://class.example.org/notebook/demo-alice/cpu-notebook/"
    assert {each.metadata["namespace"] for each in made.of("IngressRoute")} == {"demo-alice", "demo-bob"}


@pytest.mark.parametrize(
    ("tls", "secret", "kinds"),
    [
        ({"kind": "secret", "secret": "given"}, "given", set()),
        ({"kind": "self-signed"}, "classroom-demo", {"SelfSigned", "Secret"}),
        ({"kind": "files"}, "classroom-demo", {"Secret"}),
        ({"kind": "cert-manager", "issuer": "letsencrypt"}, "classroom-demo", {"Certificate"}),
    ],
)
def test_the_gateway_shows_the_certificate_of_the_class_and_its_key_is_where_no_student_reads(
    platform: Platform,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tls: dict[str, Any],
    secret: str,
    kinds: set[str],
) -> None:
    made_of_it = {"certificate": "made-certificate", "key": "made-key"}
    monkeypatch.setitem(conftest._MADE, "pulumi-python:dynamic/classroom:SelfSigned", made_of_it)
    if tls["kind"] == "files":
        for field in ("certificate_file", "key_file"):
            (tmp_path / field).write_text(field)
            tls = {**tls, field: str(tmp_path / field)}
    made = stamp(_class(access={"host": "class.example.org", "tls": tls}), platform)
    at_gateway = [each for each in made.resources if each.metadata.get("namespace") == "gateway"]
    (route,) = [each for each in at_gateway if each.kind == "IngressRoute"]
    assert route.inputs["spec"]["tls"] == {"secretName": secret}
    (rule,) = route.inputs["spec"]["routes"]
    assert rule["match"].startswith("Host(`class.example.org`) && ")
    assert rule["services"] == [{"kind": "TraefikService", "name": "noop@internal"}]
    made_for_it = {each.kind for each in at_gateway} - {"IngressRoute"}
    made_for_it |= {each.kind for each in made.of("SelfSigned")}
    assert made_for_it == kinds
    for each in at_gateway:
        assert naming.labels("demo").items() <= each.metadata["labels"].items()
        if each.kind == "Secret":
            assert each.inputs["type"] == "kubernetes.io/tls"
            assert is_secret(each.inputs["data"]) or is_secret(each.inputs["data"]["tls.key"])
        if each.kind == "Certificate":
            assert each.inputs["spec"]["dnsNames"] == ["class.example.org"]
            assert each.inputs["spec"]["issuerRef"]["name"] == "letsencrypt"
            assert each.inputs["spec"]["secretTemplate"]["labels"] == naming.labels("demo")


def test_a_self_signed_certificate_is_for_its_host_and_renewed_before_it_ends() -> None:
    provider = _SelfSignedProvider()
    props = {"host": "class.example.org"}
    made = provider.create(props).outs or {}
    certificate = x509.load_pem_x509_certificate(made["certificate"].encode())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["class.example.org"]
    assert certificate.not_valid_after_utc - datetime.now(UTC) > timedelta(days=300)
    assert not provider.diff("", made, props).changes
    assert provider.diff("", made, {"host": "other.example.org"}).replaces == ["host"]


def test_a_file_that_cannot_be_read_is_named_with_its_field(tmp_path: Path) -> None:
    with pytest.raises(FileUnreadable, match=r"none.crt: cannot be read .*; mend `access.tls.key_file` in"):
        read(tmp_path / "none.crt", "access.tls.key_file")
    assert FileUnreadable.exit_code == 2


@pytest.fixture(scope="session")
def profiled(platform: Platform) -> Stamped:
    """A class on a Kubeflow that has the profile controller."""
    elsewhere = platform.model_copy(update={"kind": "kubeflow"})
    session = {"start": "2026-12-01 09:00", "end": "2026-12-01 17:00"}
    return stamp(_class(tenancy="profile", platform=elsewhere, session=session), elsewhere)


# kubeflow/kubeflow components/profile-controller/config/crd/bases/kubeflow.org_profiles.yaml, v1, the fields of `spec`.
_PROFILE_OWNER = {"apiGroup", "kind", "name", "namespace"}
_PROFILE_SPEC = {"owner", "plugins", "resourceQuotaSpec"}
_PROFILE_QUANTITY = re.compile(
    r"(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?"
)


def test_a_profile_has_its_owner_and_the_quota_as_kubeflow_publishes_them(profiled: Stamped) -> None:
    profiles = sorted(profiled.of("Profile"), key=lambda each: each.name)
    assert [each.metadata["name"] for each in profiles] == ["demo-alice", "demo-bob"]
    for each, student in zip(profiles, ("alice", "bob"), strict=True):
        assert each.inputs["apiVersion"] == "kubeflow.org/v1"
        assert "namespace" not in each.metadata
        spec = each.inputs["spec"]
        assert spec.keys() <= _PROFILE_SPEC
        assert spec["owner"].keys() <= _PROFILE_OWNER
        assert spec["owner"] == {"kind": "User", "name": f"{student}@example.org"}
        assert spec["resourceQuotaSpec"] == {"hard": quota(_class())}
        assert all(_PROFILE_QUANTITY.fullmatch(value) for value in spec["resourceQuotaSpec"]["hard"].values())
        # Set last by the controller, when all of its own things stand.
        assert each.metadata["annotations"]["pulumi.com/waitFor"] == (
            "jsonpath={.metadata.finalizers[0]}=profile-finalizer"
        )


def test_what_the_profile_controller_makes_is_not_made_a_second_time(profiled: Stamped) -> None:
    kinds = {each.kind for each in _of_student(profiled, "alice")}
    assert not {"ResourceQuota", "ServiceAccount", "RoleBinding"} & kinds
    assert {"Profile", "Namespace", "LimitRange", "NetworkPolicy", "Notebook", "Secret", "ConfigMap"} <= kinds


def test_the_controllers_namespace_is_marked_as_ours_and_its_pod_security_left_alone(profiled: Stamped) -> None:
    for namespace in profiled.of("Namespace"):
        labels = namespace.metadata["labels"]
        assert labels["classroom"] == "demo"
        assert "pod-security.kubernetes.io/enforce" not in labels
        assert namespace.metadata["annotations"]["owner"].endswith("@example.org")
        assert namespace.metadata["annotations"]["kubeflow-classroom/session-end"] == "2026-12-01T17:00:00Z"


def _standing(monkeypatch: pytest.MonkeyPatch, objects: dict[str, list[dict[str, Any]]]) -> None:
    """A cluster in which nothing but `objects`, by the last part of their path, stands."""
    monkeypatch.setattr(cluster, "api", lambda *_: nullcontext())
    monkeypatch.setattr(cluster, "get", lambda _, path: {"items": objects.get(path.rpartition("/")[2], [])})


def test_a_namespace_or_profile_of_somebody_else_is_refused_and_ours_is_taken_up_again(
    monkeypatch: pytest.MonkeyPatch, platform: Platform
) -> None:
    elsewhere = platform.model_copy(update={"kind": "kubeflow"})
    spec = _class(tenancy="profile", platform=elsewhere)
    foreign = {"metadata": {"name": "demo-alice"}}
    ours = {"metadata": {"name": "demo-alice", "labels": naming.labels("demo", "alice")}}
    for objects in ({"namespaces": [foreign]}, {"profiles": [foreign], "namespaces": [ours]}):
        _standing(monkeypatch, objects)
        with pytest.raises(Taken, match="demo-alice of student alice stands already"):
            refuse_taken(spec, elsewhere)
    # The controller had made the namespace when `up` was killed, before it was marked.
    for objects in ({}, {"profiles": [ours], "namespaces": [foreign]}, {"profiles": [ours], "namespaces": [ours]}):
        _standing(monkeypatch, objects)
        refuse_taken(spec, elsewhere)
