"""Closing a class, and opening it again: every door of every seat, at once, with all data kept.

| door | closed | opened |
| --- | --- | --- |
| login | dex's user gets a hash that no password has | its own hash again |
| notebooks at the gateway | the rule before their routes lets nobody in, with any session | the student again |
| notebooks in Istio's mesh | a policy above all others denies every request | it is taken away |
| Kubernetes and Pipelines | the student's RoleBinding is taken away, which KFP asks about at every call | made again |
| the same of a Profile | it is nobody's, and its controller changes binding and policy | the student's again |
| what runs | no pod may start, runs are ended, notebooks are stopped | those that this stopped start again |
| bucket | its keys open nothing, where they can be switched off | they do again |

Sessions of oauth2-proxy live in cookies that nobody can call back, so it is what they open that is closed. What was
there before is kept in annotations of the things themselves: whoever opens needs no state.

This file and naming.py run in a pod as well, when the session ends and nobody is at the keyboard (see
session_end.py): it needs the standard library and, in the pod, boto3.
"""

import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from infra import naming

CLOSED: Final = "kubeflow-classroom/closed"
"""Annotation of a seat's namespace: when its class was closed, as JSON [[from, to], …]; to is null while it is."""
STOPPED: Final = "kubeflow-resource-stopped"
"""Annotation of a Notebook: since when it is stopped. Source: kubeflow/kubeflow notebook-controller pkg/culler."""
_HELD: Final = "kubeflow-classroom/held"
"""Annotation: what was there before the class was closed."""
_CLOSED: Final = "closed"
"""The name of what is made in a seat's namespace to close it."""
_ISTIO: Final = "/apis/security.istio.io/v1"
_PROFILES: Final = "/apis/kubeflow.org/v1/profiles"
_STUDENT_BINDING: Final = "student"

# No secret: dex keeps bcrypt hashes in base64, and of this one, whose bits are all zero, nobody knows a password.
_NO_PASSWORD: Final = "JDJhJDEwJC4uLi4uLi4uLi4uLi4uLi4uLi4uLi4uLi4uLi4uLi4uLi4uLi4uLi4uLi4uLi4uLi4uLi4u"  # noqa: S105
_NOBODY: Final = "nobody@class.closed.invalid"
_ONLY_NOBODY: Final = f"/?allowed_emails={_NOBODY}"
_CALLED_OFF_WITHIN_SECONDS: Final = 30
_MERGE: Final = "application/merge-patch+json"

Ask = Callable[[str, str, Mapping[str, Any] | None], Mapping[str, Any] | None]
"""(method, path, body) of the Kubernetes API, a PATCH being a JSON merge patch; None where there is no such thing (404)
and where what is to be made is there (409). Raises when it is refused."""

SwitchKeys = Callable[[str, str, bool], None]
"""(class, student, active): whether a seat's keys to the object store open its bucket. Raises when it is refused."""

_Door = tuple[str, Callable[[], None]]
"""What it is called, and what closes it or opens it."""


def close(ask: Ask, keys: SwitchKeys | None, class_name: str, dex_namespace: str, at: datetime) -> list[str]:
    """Close every seat of a class; what could not be closed, in words. Safe to repeat. `keys`: None where nobody here
    can switch them, so that they go on to open their buckets.

    Door by door, so that nobody's login waits for what takes long of others: a key takes SeaweedFS more than a second.
    A seat that fails at one door is closed at the others.
    """
    now, seats = _stamp(at), _seats(ask, keys, class_name, dex_namespace)
    for doors in zip(*(seat.closing(now) for seat in seats), strict=True):
        for seat, door in zip(seats, doors, strict=True):
            seat.through(*door)
    return [wrong for seat in seats for wrong in seat.closed(now)]


def reopen(ask: Ask, keys: SwitchKeys | None, class_name: str, dex_namespace: str, at: datetime) -> list[str]:
    """Open every seat that was closed; what could not be opened, in words. Safe to repeat."""
    now, seats = _stamp(at), _seats(ask, keys, class_name, dex_namespace)
    return [wrong for seat in seats for wrong in seat.open(now)]


def call_off(ask: Ask, class_name: str, kubeflow_namespace: str) -> bool:
    """End the cluster's own closing of a class (session_end.py) where it still goes on; whether it has ended in time.

    It goes over the class more than once, and anew when it failed: it would close what is opened meanwhile.
    """
    jobs = f"/apis/batch/v1/namespaces/{kubeflow_namespace}/jobs"
    selector = quote(naming.selector(class_name), safe="")
    for _ in range(_CALLED_OFF_WITHIN_SECONDS):
        going = [each for each in _listed(ask, f"{jobs}?labelSelector={selector}") if not _has_ended(each)]
        if not going:
            return True
        for job in going:
            # Without this word Kubernetes takes the Job alone, and its pod runs on.
            ask("DELETE", f"{jobs}/{job['metadata']['name']}", {"propagationPolicy": "Foreground"})
        time.sleep(1)
    return False


def switch_keys(iam: Any, user: str, *, active: bool) -> bool:
    """Switch all keys of a user on or off by IAM (boto3); whether any was not so yet. A student's key may have made
    further ones for its user."""
    status = "Active" if active else "Inactive"
    others = [each for each in iam.list_access_keys(UserName=user)["AccessKeyMetadata"] if each.get("Status") != status]
    for key in others:
        iam.update_access_key(UserName=user, AccessKeyId=key["AccessKeyId"], Status=status)
    return bool(others)


def is_stopped_on_purpose(notebook: Mapping[str, Any]) -> bool:
    """Whether a student, or Kubeflow's culler, has stopped a Notebook, and not the end of its class."""
    return bool(_annotation(notebook, STOPPED)) and not _annotation(notebook, _HELD)


def _seats(ask: Ask, keys: SwitchKeys | None, class_name: str, dex_namespace: str) -> "list[_Seat]":
    selector = quote(naming.selector(class_name), safe="")
    homes = _listed(ask, f"/api/v1/namespaces?labelSelector={selector}")
    return [_Seat(ask, keys, home, dex_namespace) for home in homes]


def _listed(ask: Ask, path: str) -> list[Mapping[str, Any]]:
    return list((ask("GET", path, None) or {}).get("items", []))


def _has_ended(job: Mapping[str, Any]) -> bool:
    conditions = (job.get("status") or {}).get("conditions") or []
    return any(each["type"] in ("Complete", "Failed") and each["status"] == "True" for each in conditions)


def _stamp(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class _Seat:
    """The doors of one seat; `home` is its namespace as the API gives it."""

    def __init__(self, ask: Ask, keys: SwitchKeys | None, home: Mapping[str, Any], dex_namespace: str) -> None:
        self._ask, self._keys, self._home = ask, keys, home
        self._namespace = str(home["metadata"]["name"])
        labels = home["metadata"]["labels"]
        self._class_name, self._student = str(labels["classroom"]), str(labels["student"])
        self._dex_namespace = dex_namespace
        self._wrong: list[str] = []

    def closing(self, now: str) -> list[_Door]:
        """What closes it, in this order."""
        return [
            ("login", lambda: self._logins(self._shut_login)),
            ("gateway", self._shut_gateway),
            ("rights", self._take_rights),
            ("profile", self._disown_profile),
            ("pods", self._let_no_pod_start),
            ("runs", self._end_runs),
            ("notebooks", lambda: self._stop_notebooks(now)),
            ("bucket", lambda: self._switch_keys(active=False)),
        ]

    def closed(self, now: str) -> list[str]:
        """Write down since when it is closed, if nothing went wrong; what did."""
        spans = _spans(self._home)
        if not self._wrong and not (spans and spans[-1][1] is None):
            self._annotate_home({CLOSED: json.dumps([*spans, [now, None]])})
        return self._wrong

    def open(self, now: str) -> list[str]:
        spans = _spans(self._home)
        doors: list[_Door] = [
            ("pods", self._let_pods_start),
            ("notebooks", self._start_notebooks),
            ("rights", self._give_rights),
            ("profile", self._give_profile_back),
            ("bucket", lambda: self._switch_keys(active=True)),
            ("gateway", self._open_gateway),
            ("login", lambda: self._logins(self._open_login)),
        ]
        for door in doors:
            self.through(*door)
        if not self._wrong and spans and spans[-1][1] is None:
            self._annotate_home({CLOSED: json.dumps([*spans[:-1], [spans[-1][0], now]])})
        return self._wrong

    def through(self, name: str, act: Callable[[], None]) -> None:
        """Close or open one door."""
        try:
            act()
        # Whatever a door fails with, the others are to be tried; it is told and makes the whole a failure.
        except Exception as error:
            self._wrong.append(f"{self._student}, {name}: {error}")

    def _within(self, group: str, kind: str, name: str = "") -> str:
        return f"{group}/namespaces/{self._namespace}/{kind}" + (f"/{name}" if name else "")

    def _annotate_home(self, annotations: Mapping[str, str | None]) -> None:
        self._ask("PATCH", f"/api/v1/namespaces/{self._namespace}", {"metadata": {"annotations": annotations}})

    def _logins(self, act: Callable[[str, Mapping[str, Any]], None]) -> None:
        kind = f"/apis/dex.coreos.com/v1/namespaces/{self._dex_namespace}/passwords"
        selector = quote(naming.selector(self._class_name, self._student), safe="")
        for each in _listed(self._ask, f"{kind}?labelSelector={selector}"):
            act(f"{kind}/{each['metadata']['name']}", each)

    def _shut_login(self, path: str, login: Mapping[str, Any]) -> None:
        if login["hash"] != _NO_PASSWORD:
            held = {"metadata": {"annotations": {_HELD: login["hash"]}}}
            self._ask("PATCH", path, {**held, "hash": _NO_PASSWORD})

    def _open_login(self, path: str, login: Mapping[str, Any]) -> None:
        held = _annotation(login, _HELD)
        if login["hash"] == _NO_PASSWORD and held:
            self._ask("PATCH", path, {"metadata": {"annotations": {_HELD: None}}, "hash": held})

    def _shut_gateway(self) -> None:
        self._shut_traefik()
        self._shut_istio()

    def _open_gateway(self) -> None:
        self._open_traefik()
        self._open_istio()

    def _shut_traefik(self) -> None:
        path = self._within("/apis/traefik.io/v1alpha1", "middlewares", "login")
        rule = self._ask("GET", path, None)
        if rule is None:
            return
        address = str(rule["spec"]["forwardAuth"]["address"])
        if not address.endswith(_ONLY_NOBODY):
            held = {"metadata": {"annotations": {_HELD: address}}}
            closed = address.partition("/?")[0] + _ONLY_NOBODY
            self._ask("PATCH", path, {**held, "spec": {"forwardAuth": {"address": closed}}})

    def _open_traefik(self) -> None:
        path = self._within("/apis/traefik.io/v1alpha1", "middlewares", "login")
        rule = self._ask("GET", path, None)
        if rule is not None and (held := _annotation(rule, _HELD)):
            opened = {"metadata": {"annotations": {_HELD: None}}, "spec": {"forwardAuth": {"address": held}}}
            self._ask("PATCH", path, opened)

    def _shut_istio(self) -> None:
        # Beside the rule of who may pass, which the profile controller would write anew if it were changed. What denies
        # is judged before what allows; one empty rule is every request.
        labels = naming.labels(self._class_name, self._student)
        policy = {"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy"}
        made = {**policy, "metadata": {"name": _CLOSED, "labels": labels}, "spec": {"action": "DENY", "rules": [{}]}}
        self._ask("POST", self._within(_ISTIO, "authorizationpolicies"), made)

    def _open_istio(self) -> None:
        self._ask("DELETE", self._within(_ISTIO, "authorizationpolicies", _CLOSED), None)

    def _take_rights(self) -> None:
        path = self._within("/apis/rbac.authorization.k8s.io/v1", "rolebindings", _STUDENT_BINDING)
        binding = self._ask("GET", path, None)
        if binding is None:
            return
        metadata = {key: binding["metadata"].get(key) or {} for key in ("labels", "annotations")}
        kept = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": _STUDENT_BINDING, **metadata},
            "roleRef": binding["roleRef"],
            "subjects": binding["subjects"],
        }
        # First kept, then taken: a crash in between loses nothing.
        self._annotate_home({_HELD: json.dumps(kept)})
        self._ask("DELETE", path, None)

    def _give_rights(self) -> None:
        if held := _annotation(self._home, _HELD):
            self._ask("POST", self._within("/apis/rbac.authorization.k8s.io/v1", "rolebindings"), json.loads(held))
            self._annotate_home({_HELD: None})

    def _disown_profile(self) -> None:
        if profile := self._profile():
            self._hand_profile(to=_NOBODY, held=_annotation(profile, _HELD) or profile["spec"]["owner"]["name"])

    def _give_profile_back(self) -> None:
        profile = self._profile()
        if profile and (owner := _annotation(profile, _HELD)):
            self._hand_profile(to=owner, held=None)

    def _profile(self) -> Mapping[str, Any] | None:
        return self._ask("GET", f"{_PROFILES}/{self._namespace}", None)

    def _hand_profile(self, *, to: str, held: str | None) -> None:
        # The controller lets a namespace alone whose owner is not the profile's (profile_controller.go, Reconcile), and
        # would not let the profile go either.
        self._annotate_home({"owner": to})
        changed = {"metadata": {"annotations": {_HELD: held}}, "spec": {"owner": {"name": to}}}
        self._ask("PATCH", f"{_PROFILES}/{self._namespace}", changed)

    def _switch_keys(self, *, active: bool) -> None:
        if self._keys is not None:
            self._keys(self._class_name, self._student, active)

    def _let_no_pod_start(self) -> None:
        labels = naming.labels(self._class_name, self._student)
        quota = {"apiVersion": "v1", "kind": "ResourceQuota", "spec": {"hard": {"pods": "0"}}}
        made = {**quota, "metadata": {"name": _CLOSED, "labels": labels}}
        self._ask("POST", self._within("/api/v1", "resourcequotas"), made)

    def _let_pods_start(self) -> None:
        self._ask("DELETE", self._within("/api/v1", "resourcequotas", _CLOSED), None)

    def _end_runs(self) -> None:
        for each in _listed(self._ask, self._within("/apis/argoproj.io/v1alpha1", "workflows")):
            if not (each.get("status") or {}).get("finishedAt"):
                path = self._within("/apis/argoproj.io/v1alpha1", "workflows", each["metadata"]["name"])
                self._ask("PATCH", path, {"spec": {"shutdown": "Terminate"}})

    def _stop_notebooks(self, now: str) -> None:
        for path, each in self._notebooks():
            if not _annotation(each, STOPPED):
                self._ask("PATCH", path, {"metadata": {"annotations": {STOPPED: now, _HELD: "running"}}})

    def _start_notebooks(self) -> None:
        for path, each in self._notebooks():
            # One that the student had stopped stays so.
            if _annotation(each, _HELD):
                self._ask("PATCH", path, {"metadata": {"annotations": {STOPPED: None, _HELD: None}}})

    def _notebooks(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        for each in _listed(self._ask, self._within("/apis/kubeflow.org/v1", "notebooks")):
            yield self._within("/apis/kubeflow.org/v1", "notebooks", each["metadata"]["name"]), each


def _annotation(item: Mapping[str, Any], name: str) -> str:
    return str((item["metadata"].get("annotations") or {}).get(name) or "")


def _spans(home: Mapping[str, Any]) -> list[list[str | None]]:
    return list(json.loads(_annotation(home, CLOSED) or "[]"))


# --- in a pod -------------------------------------------------------------------------------------------------------

_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_SECONDS_PER_CALL: Final = 30
_TIMES: Final = 3
_BETWEEN_TIMES_SECONDS: Final = 5


def _ask_in_cluster() -> Ask:
    """The Kubernetes API as the pod's ServiceAccount."""
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    trust = ssl.create_default_context(cafile=str(_ACCOUNT / "ca.crt"))

    def ask(method: str, path: str, body: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        # Read anew each time: the kubelet changes the token.
        headers = {"Authorization": f"Bearer {(_ACCOUNT / 'token').read_text()}", "Accept": "application/json"}
        headers["Content-Type"] = _MERGE if method == "PATCH" else "application/json"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"https://{host}:{port}{path}", data, headers, method=method)
        try:
            # The address begins with https, two lines above.
            opened = urllib.request.urlopen(request, timeout=_SECONDS_PER_CALL, context=trust)  # noqa: S310
            with opened as answer:
                return dict(json.load(answer))
        except urllib.error.HTTPError as error:
            if error.code in (404, 409):
                return None
            raise OSError(f"{method} {path} was answered {error.code}") from None

    return ask


def _main() -> int:
    """Close the class that the environment names, unless its session has been put off meanwhile."""
    end = datetime.fromisoformat(os.environ["SESSION_END"].replace("Z", "+00:00"))
    now = datetime.now(UTC)
    if now < end:
        print(f"the session ends at {end:%Y-%m-%d %H:%M} UTC; nothing to do yet")
        return 0
    switched: list[str] = []
    class_name, keys = os.environ["CLASS_NAME"], _keys_in_cluster(switched)
    for _ in range(_TIMES):
        switched.clear()
        wrong = close(_ask_in_cluster(), keys, class_name, os.environ["DEX_NAMESPACE"], now)
        if not switched:
            break
        # SeaweedFS writes all identities at once, and no lock reaches from here to the teacher's machine: a change from
        # there may have brought keys back as they were.
        time.sleep(_BETWEEN_TIMES_SECONDS)
    print("\n".join(wrong) or f"class {class_name} is closed")
    if keys is None:
        print(f"but for buckets: {os.environ['KEYS_STAY_OPEN']}")
    return 1 if wrong else 0


def _keys_in_cluster(switched: list[str]) -> SwitchKeys | None:
    """By the object store's IAM, where it has one. Students with keys that were not so yet are added to `switched`."""
    if "KEYS_STAY_OPEN" in os.environ:
        return None
    import boto3

    # AWS has an address for IAM that boto3 knows.
    iam = boto3.client("iam", endpoint_url=os.environ.get("S3_ENDPOINT"), region_name=os.environ["S3_REGION"])

    def switch(class_name: str, student: str, active: bool) -> None:
        if switch_keys(iam, naming.bucket_user(class_name, student), active=active):
            switched.append(student)

    return switch


if __name__ == "__main__":
    sys.exit(_main())
