"""The end of a session: each door closed and opened again, against a Kubernetes API and an IAM that remember."""

import base64
import copy
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import bcrypt
import pytest

from infra import naming, session, session_end
from infra.session import CLOSED, STOPPED
from infra.spec import ClassSpec, Platform, Session
from tests.unit.conftest import stamp

AT, LATER = datetime(2026, 12, 1, 8, tzinfo=UTC), datetime(2026, 12, 1, 9, tzinfo=UTC)
HOME = "/api/v1/namespaces/k-ada"
LOGIN = "/apis/dex.coreos.com/v1/namespaces/auth/passwords/xyz"
RULE = "/apis/traefik.io/v1alpha1/namespaces/k-ada/middlewares/login"
BINDING = "/apis/rbac.authorization.k8s.io/v1/namespaces/k-ada/rolebindings/student"
QUOTA = "/api/v1/namespaces/k-ada/resourcequotas/closed"
RUN = "/apis/argoproj.io/v1alpha1/namespaces/k-ada/workflows/w"
RUNNING, IDLE = (f"/apis/kubeflow.org/v1/namespaces/k-ada/notebooks/{name}" for name in ("running", "idle"))
ADDRESS = "http://oauth2-proxy.auth.svc.cluster.local:4180/?allowed_emails=ada@example.org"


class Cluster:
    """An API of objects by path."""

    def __init__(self) -> None:
        labels = naming.labels("k", "ada")
        self.refuses = ""
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

    def list_access_keys(self, UserName: str) -> Any:  # noqa: N803  boto3's names
        assert UserName == naming.bucket_user("k", "ada")
        return {"AccessKeyMetadata": [{"AccessKeyId": key} for key in self.keys]}

    def update_access_key(self, UserName: str, AccessKeyId: str, Status: str) -> None:  # noqa: N803  the same
        assert UserName
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
