"""The end of a session: each door closed and opened again, against a Kubernetes API and an IAM that remember."""

import base64
import copy
import json
from collections.abc import Mapping
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal
from urllib.parse import quote

import bcrypt
import pytest

from infra import fit, naming, session, session_end, stores
from infra.failure import Failure
from infra.session import CLOSED, STOPPED
from infra.spec import ClassSpec, ObjectStore, Platform, Session
from scripts import day
from tests.unit import crds
from tests.unit.conftest import stamp

AT, LATER = datetime(2026, 12, 1, 8, tzinfo=UTC), datetime(2026, 12, 1, 9, tzinfo=UTC)
HOME = "/api/v1/namespaces/k-ada"
LOGIN = "/apis/dex.coreos.com/v1/namespaces/auth/passwords/xyz"
RULE = "/apis/traefik.io/v1alpha1/namespaces/k-ada/middlewares/login"
BINDING = "/apis/rbac.authorization.k8s.io/v1/namespaces/k-ada/rolebindings/student"
QUOTA = "/api/v1/namespaces/k-ada/resourcequotas/closed"
OWNER_ACCESS, DENIAL = (
    f"/apis/security.istio.io/v1/namespaces/k-ada/authorizationpolicies/{name}"
    for name in ("ns-owner-access-istio", "closed")
)
PROFILE = "/apis/kubeflow.org/v1/profiles/k-ada"
RUN = "/apis/argoproj.io/v1alpha1/namespaces/k-ada/workflows/w"
RUNNING, IDLE = (f"/apis/kubeflow.org/v1/namespaces/k-ada/notebooks/{name}" for name in ("running", "idle"))
ADDRESS = "http://oauth2-proxy.auth.svc.cluster.local:4180/?allowed_emails=ada@example.org"


class Cluster:
    """An API of objects by path."""

    def __init__(self, *, istio: bool = False) -> None:
        labels = naming.labels("k", "ada")
        self.refuses = ""
        self.istio = istio
        self.objects: dict[str, Any] = {
            HOME: {"metadata": {"name": "k-ada", "labels": labels}},
            LOGIN: {"metadata": {"name": "xyz", "labels": labels}, "hash": "aGFzaA=="},
            RULE: {"metadata": {"name": "login"}, "spec": {"forwardAuth": {"address": ADDRESS}}},
            BINDING: {
                "metadata": {"name": "student", "labels": labels, "annotations": {"role": "edit"}, "uid": "1"},
                "roleRef": {"name": "kubeflow-edit"},
                "subjects": [{"name": "ada@example.org"}],
            },
            RUN: {"metadata": {"name": "w"}, "status": {}},
            RUNNING: {"metadata": {"name": "running"}},
            IDLE: {"metadata": {"name": "idle", "annotations": {STOPPED: "2026-12-01T07:00:00Z"}}},
        }

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        path = path.partition("?")[0]
        if self.refuses and self.refuses in path and method != "GET":
            raise OSError("refused")
        if "istio" in path and not self.istio:
            return None
        if method == "POST" and body is not None:
            return self.objects.setdefault(f"{path}/{body['metadata']['name']}", dict(body))
        if method == "DELETE":
            return self.objects.pop(path, None)
        if method == "PATCH" and path in self.objects and body is not None:
            _merge(self.objects[path], body)
        if path in self.objects:
            return copy.deepcopy(self.objects[path])
        items = [copy.deepcopy(each) for key, each in self.objects.items() if key.rpartition("/")[0] == path]
        return {"items": items} if items else None


def _merge(into: dict[str, Any], patch: Mapping[str, Any]) -> None:
    for key, value in patch.items():
        if isinstance(value, Mapping):
            _merge(into.setdefault(key, {}), value)
        elif value is None:
            into.pop(key, None)
        else:
            into[key] = value


class Iam:
    """Two keys of one user, one of which the student made."""

    def __init__(self) -> None:
        self.keys = {"K1": "Active", "K2": "Active"}
        self.changes = 0

    def __call__(self, class_name: str, student: str, active: bool) -> None:
        session.switch_keys(self, naming.bucket_user(class_name, student), active=active)

    def list_access_keys(self, UserName: str) -> Any:  # noqa: N803  boto3's names
        assert UserName == naming.bucket_user("k", "ada")
        return {"AccessKeyMetadata": [{"AccessKeyId": key, "Status": status} for key, status in self.keys.items()]}

    def update_access_key(self, UserName: str, AccessKeyId: str, Status: str) -> None:  # noqa: N803  the same
        assert UserName
        self.changes += 1
        self.keys[AccessKeyId] = Status


def test_every_door_is_closed_and_closing_twice_changes_nothing() -> None:
    cluster, iam = Cluster(), Iam()
    assert session.close(cluster.ask, iam, "k", "auth", AT) == []
    held = copy.deepcopy(cluster.objects)
    assert session.close(cluster.ask, iam, "k", "auth", LATER) == []
    assert cluster.objects == held
    assert held[LOGIN]["hash"] != "aGFzaA=="
    assert held[RULE]["spec"]["forwardAuth"]["address"].endswith("?allowed_emails=nobody@class.closed.invalid")
    assert BINDING not in held
    assert held[QUOTA]["spec"]["hard"] == {"pods": "0"}
    assert held[RUN]["spec"]["shutdown"] == "Terminate"
    assert held[RUNNING]["metadata"]["annotations"][STOPPED] == "2026-12-01T08:00:00Z"
    assert json.loads(held[HOME]["metadata"]["annotations"][CLOSED]) == [["2026-12-01T08:00:00Z", None]]
    assert set(iam.keys.values()) == {"Inactive"}
    # Each change takes SeaweedFS a second or more.
    assert iam.changes == len(iam.keys)


def test_nobody_gets_in_any_more_before_the_first_key_is_switched_which_takes_long() -> None:
    cluster = Cluster()
    eve = naming.labels("k", "eve")
    cluster.objects[HOME.replace("ada", "eve")] = {"metadata": {"name": "k-eve", "labels": eve}}
    cluster.objects[BINDING.replace("ada", "eve")] = copy.deepcopy(cluster.objects[BINDING])
    cluster.objects[RUNNING.replace("ada", "eve")] = {"metadata": {"name": "running"}}
    seen: list[tuple[str, list[bool]]] = []

    def switch(_class: str, student: str, _active: bool) -> None:
        rights, quotas, servers = (
            [cluster.objects.get(path.replace("ada", who), {}) for who in ("ada", "eve")]
            for path in (BINDING, QUOTA, RUNNING)
        )
        stopped = [STOPPED in each["metadata"].get("annotations", {}) for each in servers]
        seen.append((student, [not any(rights), all(quotas), all(stopped)]))

    assert session.close(cluster.ask, switch, "k", "auth", AT) == []
    assert seen == [("ada", [True, True, True]), ("eve", [True, True, True])]


def test_the_pod_looks_again_and_switches_off_the_keys_that_anothers_write_brought_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster, iam, pauses = Cluster(), Iam(), list[float]()

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 1:
            iam.keys["K1"] = "Active"

    told = {"CLASS_NAME": "k", "DEX_NAMESPACE": "auth", "SESSION_END": "2020-12-01T08:00:00Z", "S3_REGION": "r"}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(session, "_ask_in_cluster", lambda: cluster.ask)
    monkeypatch.setattr("boto3.client", lambda *_, **__: iam)
    monkeypatch.setattr(session.time, "sleep", pause)
    assert session._main() == 0
    assert set(iam.keys.values()) == {"Inactive"}
    assert len(pauses) == 2


def test_a_notebook_is_stopped_on_purpose_unless_the_end_of_its_class_stopped_it() -> None:
    cluster = Cluster()
    assert not session.is_stopped_on_purpose(cluster.objects[RUNNING])
    session.close(cluster.ask, None, "k", "auth", AT)
    assert not session.is_stopped_on_purpose(cluster.objects[RUNNING])
    assert session.is_stopped_on_purpose(cluster.objects[IDLE])


def test_opening_gives_back_what_was_there_and_leaves_stopped_what_the_student_had_stopped() -> None:
    cluster, iam = Cluster(), Iam()
    before = copy.deepcopy(cluster.objects)
    session.close(cluster.ask, iam, "k", "auth", AT)
    assert session.reopen(cluster.ask, iam, "k", "auth", LATER) == []
    assert cluster.objects[LOGIN]["hash"] == before[LOGIN]["hash"]
    assert cluster.objects[RULE]["spec"] == before[RULE]["spec"]
    assert cluster.objects[BINDING]["roleRef"] == before[BINDING]["roleRef"]
    assert cluster.objects[BINDING]["subjects"] == before[BINDING]["subjects"]
    assert QUOTA not in cluster.objects
    assert cluster.objects[RUNNING]["metadata"].get("annotations") == {}
    assert cluster.objects[IDLE] == before[IDLE]
    spans = json.loads(cluster.objects[HOME]["metadata"]["annotations"][CLOSED])
    assert spans == [["2026-12-01T08:00:00Z", "2026-12-01T09:00:00Z"]]
    assert set(iam.keys.values()) == {"Active"}


def test_a_closing_that_still_goes_on_is_ended_pod_and_all_before_the_class_is_opened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    jobs = "/apis/batch/v1/namespaces/kubeflow/jobs"
    done: dict[str, Any] = {"status": {"conditions": [{"type": "Complete", "status": "True"}]}}
    held = {f"{jobs}/{name}": {"metadata": {"name": name}} for name in ("going", "done")}
    held[f"{jobs}/done"] |= done
    deleted: list[Any] = []

    def ask(method: str, path: str, body: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        if method == "DELETE":
            deleted.append((path, body))
        elif path == f"{jobs}?labelSelector=" + quote(naming.selector("k"), safe=""):
            return {"items": list(held.values())}
        return None

    # Its pod takes until the second look to end.
    pauses: list[float] = []
    ends = iter([lambda: None, lambda: held.pop(f"{jobs}/going")])
    monkeypatch.setattr(session.time, "sleep", lambda seconds: (pauses.append(seconds), next(ends)()))
    assert session.call_off(ask, "k", "kubeflow")
    assert deleted == [(f"{jobs}/going", {"propagationPolicy": "Foreground"})] * 2
    assert pauses == [1, 1]


def test_a_closing_that_cannot_be_ended_keeps_the_class_closed_and_is_told(
    monkeypatch: pytest.MonkeyPatch, platform: Platform
) -> None:
    going = {"items": [{"metadata": {"name": "going"}}]}
    monkeypatch.setattr(session.time, "sleep", lambda _: None)
    monkeypatch.setattr(day.cluster, "api", lambda *_: nullcontext())
    monkeypatch.setattr(day.cluster, "change", lambda _api, method, _path, _body: going if method == "GET" else None)
    monkeypatch.setattr(session, "reopen", lambda *_: pytest.fail("it was opened"))
    with pytest.raises(day.DoorsLeft, match="the end of its session still closes class k; run it again"):
        day.reopen(
            ClassSpec.model_validate({"name": "k", "students": [{"id": "ada", "email": "ada@example.org"}]}), platform
        )


def test_in_istios_mesh_a_policy_that_denies_everything_stands_above_the_others_while_a_class_is_closed() -> None:
    cluster, iam = Cluster(istio=True), Iam()
    # As the profile controller keeps it, which would undo every change.
    cluster.objects[OWNER_ACCESS] = {"metadata": {"name": "ns-owner-access-istio"}, "spec": {"action": "ALLOW"}}
    del cluster.objects[RULE]
    before = copy.deepcopy(cluster.objects)
    for at in (AT, LATER):
        assert session.close(cluster.ask, iam, "k", "auth", at) == []
    denial = cluster.objects[DENIAL]
    assert crds.refusals(denial) == []
    assert denial["spec"] == {"action": "DENY", "rules": [{}]}
    assert denial["metadata"]["labels"] == naming.labels("k", "ada")
    assert cluster.objects[OWNER_ACCESS] == before[OWNER_ACCESS]
    for _ in range(2):
        assert session.reopen(cluster.ask, iam, "k", "auth", LATER) == []
    assert DENIAL not in cluster.objects
    assert cluster.objects[OWNER_ACCESS] == before[OWNER_ACCESS]


def test_a_profile_of_a_closed_class_is_nobodys_and_its_namespace_too_else_the_controller_would_leave_both_alone() -> (
    None
):
    cluster, iam = Cluster(), Iam()
    owner = {"kind": "User", "name": "ada@example.org"}
    cluster.objects[PROFILE] = {"metadata": {"name": "k-ada"}, "spec": {"owner": owner}}
    cluster.objects[HOME]["metadata"]["annotations"] = {"owner": "ada@example.org"}
    del cluster.objects[BINDING]
    for _ in range(2):
        assert session.close(cluster.ask, iam, "k", "auth", AT) == []
        assert cluster.objects[PROFILE]["spec"]["owner"] == {"kind": "User", "name": "nobody@class.closed.invalid"}
        assert cluster.objects[HOME]["metadata"]["annotations"]["owner"] == "nobody@class.closed.invalid"
    for _ in range(2):
        assert session.reopen(cluster.ask, iam, "k", "auth", LATER) == []
        assert cluster.objects[PROFILE]["spec"]["owner"] == owner
        assert cluster.objects[HOME]["metadata"]["annotations"]["owner"] == "ada@example.org"
    assert cluster.objects[PROFILE]["metadata"]["annotations"] == {}


def test_a_mesh_whose_policy_cannot_be_made_is_told() -> None:
    cluster = Cluster(istio=True)
    cluster.refuses = "/authorizationpolicies"
    assert session.close(cluster.ask, Iam(), "k", "auth", AT) == ["ada, gateway: refused"]
    assert CLOSED not in cluster.objects[HOME]["metadata"].get("annotations", {})


@pytest.mark.parametrize(("door", "at"), [("login", "/passwords"), ("rights", "/rolebindings"), ("runs", "/workflows")])
def test_a_door_that_does_not_close_is_told_and_the_others_close(door: str, at: str) -> None:
    cluster, iam = Cluster(), Iam()
    cluster.refuses = at
    assert session.close(cluster.ask, iam, "k", "auth", AT) == [f"ada, {door}: refused"]
    assert set(iam.keys.values()) == {"Inactive"}
    assert CLOSED not in cluster.objects[HOME]["metadata"].get("annotations", {})
    cluster.refuses = ""
    assert session.close(cluster.ask, iam, "k", "auth", AT) == []
    assert CLOSED in cluster.objects[HOME]["metadata"]["annotations"]


def test_the_closed_logins_hash_is_one_that_bcrypt_takes_and_no_password_has() -> None:
    cluster = Cluster()
    session.close(cluster.ask, Iam(), "k", "auth", AT)
    hashed = base64.b64decode(cluster.objects[LOGIN]["hash"])
    assert len(hashed) == 60
    assert not bcrypt.checkpw(b"", hashed)
    assert not bcrypt.checkpw(b"password", hashed)


def _session(end: str) -> Session:
    return Session.model_validate({"start": "2026-12-01 09:00", "end": end, "time_zone": "Asia/Seoul"})


@pytest.mark.parametrize(
    ("end", "schedule"), [("2026-12-01 17:00", "0 8 1 12 *"), ("2026-12-31 23:59:30", "0 15 31 12 *")]
)
def test_the_cluster_closes_the_class_in_the_minute_of_its_end_in_utc(
    end: str, schedule: str, platform: Platform
) -> None:
    args = session_end.SessionEndArgs(class_name="k", session=_session(end), platform=platform)
    spec = session_end.cron_job("classroom-k-end", args)
    assert spec["schedule"] == schedule
    assert spec["timeZone"] == "Etc/UTC"
    # A mesh that puts its sidecar into every pod would keep the Job from its end.
    labels = spec["jobTemplate"]["spec"]["template"]["metadata"]["labels"]
    # By these the Job is found, to be called off.
    assert spec["jobTemplate"]["metadata"]["labels"] == naming.labels("k")
    assert labels == {**naming.labels("k"), "sidecar.istio.io/inject": "false"}


@pytest.mark.parametrize(
    ("kind", "has", "says"),
    [
        ("seaweedfs", {"S3_ENDPOINT", "S3_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}, ""),
        # Boto3 knows where AWS is, and is somebody there without a Secret.
        ("aws", {"S3_REGION"}, ""),
        ("minio", {"KEYS_STAY_OPEN"}, "run `scripts/classroom close` with the class file"),
        ("given", {"KEYS_STAY_OPEN"}, "have whoever gave them take them back"),
    ],
)
def test_the_cluster_switches_keys_off_where_it_can_and_else_says_who_can(
    kind: Literal["seaweedfs", "aws", "minio", "given"], has: set[str], says: str, platform: Platform
) -> None:
    told: dict[str, Any] = {} if kind == "aws" else {"endpoint": "https://s3.example.org"}
    if kind == "given":
        told["keys_file"] = Path("keys.csv")
    environment = _environment_of_the_end(ObjectStore(kind=kind, **told), platform)
    assert environment.keys() == has | {"CLASS_NAME", "DEX_NAMESPACE", "SESSION_END"}
    assert says in environment.get("KEYS_STAY_OPEN", {}).get("value", "")


def test_minios_key_is_not_taken_for_one_of_aws_but_the_secret_that_the_class_file_names_is(platform: Platform) -> None:
    unnamed, named = (
        _environment_of_the_end(ObjectStore(kind="aws", **told), platform) for told in ({}, {"secret": "teacher"})
    )
    assert "AWS_ACCESS_KEY_ID" not in unnamed
    assert named["AWS_ACCESS_KEY_ID"]["valueFrom"]["secretKeyRef"] == {"name": "teacher", "key": "accesskey"}


def _environment_of_the_end(store: ObjectStore, platform: Platform) -> dict[str, dict[str, Any]]:
    """What the pod that closes the class is told, by name."""
    there = platform.model_copy(update={"object_store": store})
    args = session_end.SessionEndArgs(class_name="k", session=_session("2026-12-01 17:00"), platform=there)
    pod = session_end.cron_job("classroom-k-end", args)["jobTemplate"]["spec"]["template"]["spec"]
    return {each["name"]: each for each in pod["containers"][0]["env"]}


def test_where_keys_cannot_be_switched_all_other_doors_close_and_the_class_counts_as_closed() -> None:
    cluster = Cluster()
    assert session.close(cluster.ask, None, "k", "auth", AT) == []
    assert BINDING not in cluster.objects
    assert CLOSED in cluster.objects[HOME]["metadata"]["annotations"]
    assert session.reopen(cluster.ask, None, "k", "auth", LATER) == []
    assert BINDING in cluster.objects


def test_whoever_closes_a_class_whose_keys_were_given_is_told_that_they_still_open(
    demo: ClassSpec, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[object] = []

    def close(_ask: object, keys: object, *_: object) -> list[str]:
        closed.append(keys)
        return []

    monkeypatch.setattr(stores, "connect", lambda _: SimpleNamespace(leaves="given"))
    monkeypatch.setattr(day.cluster, "api", lambda *_: nullcontext())
    monkeypatch.setattr(day.session, "close", close)
    with pytest.raises(day.DoorsLeft, match=r"class demo is closed, but .* keys still open their buckets"):
        day.close(demo, platform)
    assert closed == [None]


@pytest.fixture
def closings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The classes that were closed."""
    found: list[str] = []
    monkeypatch.setattr(day, "close", lambda spec, _platform: found.append(spec.name))
    return found


def _ending(spec: ClassSpec, seconds: float) -> ClassSpec:
    """The class with a session that ends in so many seconds."""
    now = datetime.now(UTC)
    ending = Session(start=now - timedelta(hours=1), end=now + timedelta(seconds=seconds))
    return spec.model_copy(update={"session": ending})


def test_a_class_whose_session_is_over_is_refused_before_anything_is_done(
    demo: ClassSpec, platform: Platform, closings: list[str]
) -> None:
    refused = pytest.raises(day.Closed, match=r"session\.end: .* is over since \d.* \(UTC\), .* write a later end")
    with refused, day.within_session(_ending(demo, 0), platform):
        pytest.fail("it was let in")
    assert closings == []


@pytest.mark.parametrize("failure", [None, Failure("bob: no room"), day.DoorsLeft("left")])
def test_a_class_whose_session_ends_meanwhile_is_closed_and_what_failed_is_told_too(
    failure: Failure | None,
    demo: ClassSpec,
    platform: Platform,
    closings: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []
    monkeypatch.setattr(day, "_over", lambda _spec: "".join(said))

    def make() -> None:
        with day.within_session(demo, platform):
            said.append("session.end: it is over")
            if failure:
                raise failure

    with pytest.raises(day.Closed, match=r"it is over: it ended meanwhile, so the class was closed") as told:
        make()
    assert closings == ["demo"]
    assert str(failure or "") in str(told.value)


def test_a_class_without_a_session_and_one_that_goes_on_are_left_open(
    demo: ClassSpec, platform: Platform, closings: list[str]
) -> None:
    for spec in (demo, _ending(demo, 100)):
        with day.within_session(spec, platform):
            pass
        with pytest.raises(Failure, match="no room"), day.within_session(spec, platform):
            raise Failure("no room")
    assert closings == []


def test_stopped_notebooks_are_known_by_their_namespace_but_not_those_that_the_end_of_the_class_stopped(
    demo: ClassSpec, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = Cluster()
    session.close(cluster.ask, None, "k", "auth", AT)
    items = [cluster.objects[path] for path in (RUNNING, IDLE)]
    for each in items:
        each["metadata"]["namespace"] = "k-ada"
    monkeypatch.setattr(day.cluster, "api", lambda *_: nullcontext())
    monkeypatch.setattr(day.cluster, "get", lambda *_: {"items": items})
    assert day.stopped(demo, platform) == {"k-ada": frozenset({"idle"})}


def test_who_joins_has_to_find_room_beside_all_others(
    demo: ClassSpec, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    last: list[str] = []

    def fitted(spec: ClassSpec, _platform: Platform) -> fit.Fit:
        last.append(spec.students[-1].id)
        why = {"why": "no node", "mend": "add nodes"}
        short = fit.Shortage(of="cluster", resource="cpu", seats=("alice",), **why)
        return fit.Fit(seats=2, rows=(), shortages=(short,), runs_at_once=0)

    monkeypatch.setattr(day, "fitted", fitted)
    with pytest.raises(fit.DoesNotFit, match=r"alice: no node; add nodes, or run `scripts/classroom up --force`"):
        day.expect_room(demo, platform, "alice")
    day.expect_room(demo, platform, "bob")
    assert last == ["alice", "bob"]


def test_only_a_class_with_a_session_gets_one_and_its_key_stands_in_no_clear_text(
    demo: ClassSpec, platform: Platform
) -> None:
    assert not stamp(demo, platform).of("CronJob")
    made = stamp(demo.model_copy(update={"session": _session("2026-12-01 17:00")}), platform)
    (job,) = made.of("CronJob")
    (account,) = [each for each in made.of("ServiceAccount") if each.metadata["name"] == "classroom-demo-end"]
    assert job.metadata["namespace"] == account.metadata["namespace"] == platform.kubeflow_namespace
    assert job.metadata["labels"] == naming.labels("demo")
    container = job.inputs["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]
    secret = [each for each in container["env"] if each["name"].startswith("AWS_")]
    assert len(secret) == 2
    assert not [each for each in secret if "value" in each]
    (files,) = [each for each in made.of("ConfigMap") if each.metadata["name"] == "classroom-demo-end"]
    assert set(files.inputs["data"]) == {"__init__.py", "naming.py", "session.py"}
