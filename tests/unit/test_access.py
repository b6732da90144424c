"""Who gets to a notebook, at either gateway; and that what is asked of other people's controllers is what they know."""

import copy
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Literal

import pytest
import yaml
from lupa.luajit21 import LuaRuntime  # type: ignore[import-untyped]  # it ships no types

from infra import cluster, naming
from infra.access import HostArgs, Unready, istio, refuse_unready
from infra.seat import policies
from infra.spec import ClassSpec, Gateway, Platform, Tls
from tests.unit import conftest, crds
from tests.unit.conftest import Registered, Stamped, stamp

_BUILT_IN = ("apps", "batch", "core", "networking.k8s.io", "rbac.authorization.k8s.io")
PRINCIPAL = "cluster.local/ns/istio-system/sa/istio-ingressgateway-service-account"


def _platform(platform: Platform, **gateway: Any) -> Platform:
    """A Kubeflow that somebody else has installed, behind such a gateway."""
    namespace = "istio-system" if gateway.get("kind") == "istio" else "gateway"
    update = {"kind": "kubeflow", "gateway": Gateway(**gateway), "gateway_namespace": namespace}
    return platform.model_copy(update=update)


def _class(platform: Platform, **fields: Any) -> ClassSpec:
    students = [{"id": name, "email": f"{name}@example.org"} for name in ("alice", "bob")]
    notebook = {
        "name": "cpu-notebook",
        "cpu": "100m",
        "memory": "1Gi",
        "gpu": {"count": 1},
        "shared_memory": "1Gi",
        "node_selector": {"pool": "gpu"},
        "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
    }
    shape = {"name": "demo", "students": students, "notebooks": [notebook], "platform": platform}
    return ClassSpec.model_validate({**shape, **fields})


def _stamp(platform: Platform, gateway: dict[str, Any], **fields: Any) -> Stamped:
    behind = _platform(platform, **gateway)
    return stamp(_class(behind, **fields), behind)


def _custom(stamped: Stamped) -> list[Registered]:
    """The custom resources that somebody publishes a schema of; dex publishes none for its users."""
    found = [each for each in stamped.resources if each.type.startswith("kubernetes:")]
    return [each for each in found if "." in each.type.split("/")[0] and not each.type.startswith(_built_in())]


def _built_in() -> tuple[str, ...]:
    return (*(f"kubernetes:{group}/" for group in _BUILT_IN), "kubernetes:dex.coreos.com/")


def _body(registered: Registered) -> dict[str, Any]:
    return {**registered.inputs, "kind": registered.kind}


ISTIO = {"kind": "istio", "notebook_routes": "class", "user_prefix": "accounts.example.org:"}


@pytest.mark.parametrize(
    ("gateway", "tenancy", "kinds"),
    [
        ({"kind": "traefik"}, "namespace", {"Middleware", "IngressRoute"}),
        ({"kind": "traefik"}, "profile", {"Middleware", "IngressRoute", "Profile"}),
        ({"kind": "istio"}, "namespace", {"AuthorizationPolicy", "EnvoyFilter"}),
        ({"kind": "istio"}, "profile", {"Profile", "EnvoyFilter"}),
        (ISTIO, "namespace", {"AuthorizationPolicy", "EnvoyFilter", "VirtualService"}),
        (ISTIO, "profile", {"VirtualService", "EnvoyFilter", "Profile"}),
    ],
)
def test_every_custom_resource_is_one_that_its_controller_knows(
    platform: Platform, gateway: dict[str, Any], tenancy: Literal["namespace", "profile"], kinds: set[str]
) -> None:
    tls = {"kind": "cert-manager", "issuer": "letsencrypt"}
    made = _custom(_stamp(platform, gateway, tenancy=tenancy, access={"host": "class.example.org", "tls": tls}))
    assert {each.kind for each in made} == kinds | {"Notebook", "Certificate"}
    for each in made:
        assert crds.refusals(_body(each)) == [], each.name


def _spoiled(body: dict[str, Any], *path: str | int, value: Any) -> dict[str, Any]:
    spoiled = copy.deepcopy(body)
    inner: Any = spoiled
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    return spoiled


_CONTAINER = ("spec", "template", "spec", "containers", 0)


@pytest.mark.parametrize(
    ("kind", "path", "value", "told"),
    [
        ("AuthorizationPolicy", ("spec", "rules", 0, "form"), [], "'form' was unexpected"),
        ("AuthorizationPolicy", ("spec", "action"), "PERMIT", "'PERMIT' is not one of"),
        ("AuthorizationPolicy", ("spec", "rules", 0, "when", 0, "values"), "alice", "'alice' is not of type 'array'"),
        ("AuthorizationPolicy", ("apiVersion",), "security.istio.io/v2", "security.istio.io/v2 is not security.istio"),
        ("VirtualService", ("spec", "http", 0, "match", 0, "uri", "prefx"), "/", "'prefx' was unexpected"),
        ("EnvoyFilter", ("spec", "configPatches", 0, "applyTo"), "HTTP_FILTRE", "'HTTP_FILTRE' is not one of"),
        ("Notebook", (*_CONTAINER, "ports", 0, "protocl"), "TCP", "'protocl' was unexpected"),
        ("Notebook", (*_CONTAINER, "resources", "limits", "cpu"), "two", "does not match"),
        ("Notebook", (*_CONTAINER, "name"), None, "None is not of type 'string'"),
    ],
)
def test_a_wrong_field_is_found(meshed: Stamped, kind: str, path: tuple[str | int, ...], value: Any, told: str) -> None:
    body = next(_body(each) for each in _custom(meshed) if each.kind == kind)
    assert crds.refusals(body) == []
    (refusal,) = crds.refusals(_spoiled(body, *path, value=value))
    assert told in refusal


def test_each_published_schema_is_held_against_something(platform: Platform) -> None:
    fields = {"tenancy": "profile", "access": {"host": "a.example.org", "tls": {"kind": "cert-manager", "issuer": "x"}}}
    made = [*_custom(_stamp(platform, ISTIO)), *_custom(_stamp(platform, {"kind": "traefik"}, **fields))]
    # A Gateway is only told to the operator, below.
    assert {each.kind for each in made} == crds.known() - {"Gateway"}


# dex's definitions take every field (storage/kubernetes/types.go, customResourceDefinitions); these it reads.
_DEX_PASSWORD = {"email", "hash", "username", "name", "preferredUsername", "emailVerified", "userID", "groups"}


def test_a_login_has_the_fields_that_dex_reads(platform: Platform) -> None:
    logins = [each for each in _stamp(platform, ISTIO).of("Password") if each.type.startswith("kubernetes:dex")]
    assert len(logins) == 2
    for each in logins:
        assert each.inputs.keys() - {"apiVersion", "kind", "metadata"} <= _DEX_PASSWORD
        assert each.metadata["namespace"] == "auth"


@pytest.fixture(scope="module")
def meshed(platform: Platform) -> Stamped:
    """A class on a Kubeflow with Istio that leaves routes and rights to the class."""
    return _stamp(platform, ISTIO)


def _one(stamped: Stamped, kind: str, namespace: str) -> Registered:
    (found,) = [each for each in stamped.of(kind) if each.metadata.get("namespace") == namespace]
    return found


def test_the_policy_of_a_seat_lets_its_student_pass_at_the_gateway_and_nobody_else(meshed: Stamped) -> None:
    rules = _one(meshed, "AuthorizationPolicy", "demo-alice").inputs["spec"]["rules"]
    through_the_gateway = [each for each in rules if each["from"] == [{"source": {"principals": [PRINCIPAL]}}]]
    named = {"key": "request.headers[kubeflow-userid]", "values": ["accounts.example.org:alice@example.org"]}
    assert through_the_gateway == [{"from": [{"source": {"principals": [PRINCIPAL]}}], "when": [named]}]
    # Every rule says from whom: one that does not would let everybody in.
    assert all(each["from"] for each in rules)
    assert {"from": [{"source": {"namespaces": ["demo-alice"]}}]} in rules
    (culler,) = [each for each in rules if "to" in each]
    assert culler["from"] == [
        {"source": {"principals": ["cluster.local/ns/kubeflow/sa/notebook-controller-service-account"]}}
    ]


def test_the_routes_of_a_seat_lead_to_its_own_notebooks(meshed: Stamped) -> None:
    routes = _one(meshed, "VirtualService", "demo-bob").inputs["spec"]
    assert (routes["hosts"], routes["gateways"]) == (["*"], ["kubeflow/kubeflow-gateway"])
    (route,) = routes["http"]
    path = "/notebook/demo-bob/cpu-notebook"
    assert route["match"] == [{"uri": {"prefix": f"{path}/"}}, {"uri": {"exact": path}}]
    (target,) = route["route"]
    assert target["destination"] == {"host": "cpu-notebook.demo-bob.svc.cluster.local", "port": {"number": 80}}


def test_a_seat_has_sidecars_and_still_no_pod_that_could_own_the_node(meshed: Stamped) -> None:
    for namespace in meshed.of("Namespace"):
        labels = namespace.metadata["labels"]
        assert labels["istio-injection"] == "enabled"
        assert labels["pod-security.kubernetes.io/enforce"] == "baseline"


def test_the_network_lets_a_sidecar_reach_the_control_plane_and_the_gateway_the_notebook(platform: Platform) -> None:
    made: Any = policies(_platform(platform, kind="istio"))
    (rule,) = [each for each in made["from-seat"]["egress"] if each["ports"] == [{"protocol": "TCP", "port": 15012}]]
    (peer,) = rule["to"]
    assert peer["namespace_selector"]["match_labels"] == {"kubernetes.io/metadata.name": "istio-system"}
    assert peer["pod_selector"]["match_labels"] == {"app": "istiod"}
    (from_outside,) = made["to-notebooks"]["ingress"]
    assert from_outside["from_"][0]["namespace_selector"]["match_labels"] == {
        "kubernetes.io/metadata.name": "istio-system"
    }
    everywhere: Any = policies(platform)["from-seat"]
    assert 15012 not in [port["port"] for each in everywhere["egress"] for port in each["ports"]]


def test_the_session_is_stripped_at_the_gateway_once_for_the_class(meshed: Stamped) -> None:
    (made,) = meshed.of("EnvoyFilter")
    assert (made.metadata["namespace"], made.metadata["name"]) == ("istio-system", "classroom-demo")
    assert made.metadata["labels"] == naming.labels("demo")
    assert made.inputs["spec"]["workloadSelector"] == {"labels": {"istio": "ingressgateway"}}
    (patch,) = made.inputs["spec"]["configPatches"]
    # Before the router, and so after the filters that ask for the login and judge it by cookie and token.
    assert patch["patch"]["operation"] == "INSERT_BEFORE"
    # As Envoy's own messages are written, which the schema leaves open.
    program = patch["patch"]["value"]["typed_config"]["default_source_code"]["inline_string"]
    assert "function envoy_on_request(" in program
    assert patch["match"]["listener"]["filterChain"]["filter"]["subFilter"]["name"] == "envoy.filters.http.router"


class _Headers:
    """The headers of a request as Envoy hands them to Lua: a name may stand there several times."""

    def __init__(self, headers: list[tuple[str, str]]) -> None:
        self.held = headers

    def _all(self, name: str) -> list[str]:
        return [value for key, value in self.held if key == name]

    def get(self, _self: Any, name: str) -> str | None:
        return ",".join(self._all(name)) or None

    def getNumValues(self, _self: Any, name: str) -> int:  # noqa: N802  Envoy's name
        return len(self._all(name))

    def getAtIndex(self, _self: Any, name: str, at: int) -> str:  # noqa: N802  Envoy's name
        return self._all(name)[at]

    def remove(self, _self: Any, name: str) -> None:
        self.held = [pair for pair in self.held if pair[0] != name]

    def add(self, _self: Any, name: str, value: str) -> None:
        self.held.append((name, value))


def _through(program: str, path: str, *headers: tuple[str, str]) -> list[tuple[str, str]]:
    """What of a request's headers is left behind the filter, as LuaJIT runs it in Envoy."""
    runtime = LuaRuntime()
    runtime.execute(program)
    seen = _Headers([(":path", path), *headers])
    names: tuple[tuple[str, Callable[..., Any]], ...] = (
        ("get", seen.get),
        ("getNumValues", seen.getNumValues),
        ("getAtIndex", seen.getAtIndex),
        ("remove", seen.remove),
        ("add", seen.add),
    )
    table = runtime.table_from(dict(names))
    runtime.globals().envoy_on_request(runtime.table_from({"headers": lambda _handle: table}))
    return [pair for pair in seen.held if pair[0] != ":path"]


@pytest.mark.parametrize(
    ("path", "headers", "left"),
    [
        (
            "/notebook/demo-alice/cpu-notebook/lab",
            [
                ("authorization", "Bearer token"),
                ("cookie", "_xsrf=2|a; oauth2_proxy_kubeflow_0=x=; oauth2_proxy_kubeflow_1=y;username-a=b; z"),
                ("cookie", "oauth2_proxy_kubeflow=x; last=1"),
                ("kubeflow-userid", "alice@example.org"),
            ],
            [("kubeflow-userid", "alice@example.org"), ("cookie", "_xsrf=2|a; username-a=b; z; last=1")],
        ),
        ("/notebook/demo-alice/cpu-notebook/", [("cookie", "oauth2_proxy_kubeflow=x")], []),
        ("/notebook/class-demo-alice---0123456789abcdef/nb/", [("cookie", "oauth2_proxy_kubeflow=x")], []),
        ("/notebook/demo-alice/cpu-notebook/", [], []),
    ],
)
def test_a_notebook_is_shown_no_session_and_every_other_cookie(
    platform: Platform, path: str, headers: list[tuple[str, str]], left: list[tuple[str, str]]
) -> None:
    assert _through(istio.strip("demo", _platform(platform, kind="istio")), path, *headers) == left


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        # As Kubeflow's controllers route to what runs in a namespace; the head of a PVCViewer's path is free.
        ("/pvcviewer/demo-alice/files/", False),
        ("/tensorboard/demo-alice/logs/?run=1", False),
        ("/demo-alice/lure/", False),
        ("//demo-alice/lure/", False),
        ("/notebook/other/demo-alice/lure/", False),
        ("/pipeline/apis/demo-alice/lure/", False),
        ("/serving/model/demo-alice", False),
        # Others' namespaces and Kubeflow's own pages are none of the class's.
        ("/notebook/other/nb/", True),
        ("/notebook/my-demo-alice/nb/", True),
        ("/notebook/demo/nb/", True),
        ("/v1/models/demo-net:predict", True),
        ("/static/demo-logo.svg", True),
        ("/pipeline/apis/v2beta1/runs?namespace=demo-alice", True),
        ("/pipeline/?next=/notebook/demo-alice/", True),
        ("/pipeline/#/demo-alice/", True),
    ],
)
def test_the_session_goes_nowhere_that_the_path_says_is_in_a_namespace_of_the_class(
    platform: Platform, path: str, shown: bool
) -> None:
    session = [("authorization", "Bearer token"), ("cookie", "oauth2_proxy_kubeflow=x")]
    left = _through(istio.strip("demo", _platform(platform, kind="istio")), path, *session)
    assert left == (session if shown else [])


def test_a_platform_whose_login_has_another_cookie_has_that_one_stripped(platform: Platform) -> None:
    gateway = {"kind": "istio", "session_cookie": "authservice_session"}
    program = istio.strip("demo", _platform(platform, **gateway))
    assert _through(program, "/notebook/demo-a/n/", ("cookie", "authservice_session=x; a=b")) == [("cookie", "a=b")]
    traefik = _stamp(platform, {"session_cookie": "authservice_session"})
    stripping = [each for each in traefik.of("Middleware") if each.metadata["name"] == "no-session"]
    assert {each.inputs["spec"]["plugin"]["stripcookies"]["prefixes"][0] for each in stripping} == {
        "authservice_session"
    }


def test_with_istio_the_certificate_of_a_class_waits_for_the_operators_gateway(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_of_it = {"certificate": "made-certificate", "key": "made-key"}
    monkeypatch.setitem(conftest._MADE, "pulumi-python:dynamic/classroom:SelfSigned", made_of_it)
    made = _stamp(platform, ISTIO, access={"host": "class.example.org", "tls": {"kind": "self-signed"}})
    at_gateway = {each.kind: each for each in made.resources if each.metadata.get("namespace") == "istio-system"}
    assert set(at_gateway) == {"Secret", "EnvoyFilter"}
    assert at_gateway["Secret"].metadata["name"] == "classroom-demo"
    assert at_gateway["Secret"].inputs["type"] == "kubernetes.io/tls"


def _host(platform: Platform) -> HostArgs:
    tls = Tls(kind="self-signed")
    return HostArgs(class_name="demo", host="class.example.org", tls=tls, platform=_platform(platform, kind="istio"))


def _server(secret: str, *hosts: str) -> dict[str, Any]:
    port = {"number": 443, "name": "https", "protocol": "HTTPS"}
    return {"port": port, "hosts": list(hosts), "tls": {"mode": "SIMPLE", "credentialName": secret}}


# As kubeflow/manifests common/istio/kubeflow-istio-resources has it.
_PLAIN = {"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}


@pytest.mark.parametrize(
    ("servers", "served"),
    [
        ([_PLAIN], False),
        ([_PLAIN, _server("kubeflow", "*")], False),
        ([_PLAIN, _server("classroom-demo", "other.example.org")], False),
        ([_PLAIN, _server("classroom-demo", "class.example.org")], True),
        ([_server("classroom-demo", "istio-system/class.example.org")], True),
        ([_server("classroom-demo", "*.example.org")], True),
        ([_server("classroom-demo", "*.org.example")], False),
    ],
)
def test_a_server_of_the_platforms_gateway_has_to_show_the_certificate_of_the_class(
    platform: Platform, servers: list[dict[str, Any]], served: bool
) -> None:
    told = istio.missing_server(_host(platform), servers)
    assert (told == "") == served
    if not served:
        wanted = yaml.safe_load(told[told.index("{") : told.rindex("}") + 1])
        assert istio.missing_server(_host(platform), [*servers, wanted]) == ""
        gateway = {"apiVersion": "networking.istio.io/v1", "kind": "Gateway", "metadata": {}}
        assert crds.refusals({**gateway, "spec": {"servers": [*servers, wanted]}}) == []


def test_a_class_whose_host_would_lead_nowhere_is_refused_with_what_mends_it(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    standing = {"/apis/networking.istio.io/v1/namespaces/kubeflow/gateways/kubeflow-gateway": {"spec": {}}}
    monkeypatch.setattr(cluster, "api", lambda *_: nullcontext())
    monkeypatch.setattr(cluster, "get", lambda _, path: standing.get(path))
    access = {"host": "class.example.org", "tls": {"kind": "secret", "secret": "given"}}
    behind = _platform(platform, kind="istio")
    with pytest.raises(Unready, match=r"add to its spec\.servers .*credentialName: given"):
        refuse_unready(_class(behind, access=access), behind)
    standing.clear()
    with pytest.raises(Unready, match=r"no Gateway kubeflow/kubeflow-gateway; name .* as platform\.gateway\.resource"):
        refuse_unready(_class(behind, access=access), behind)
    # A name without a certificate of its own, and a gateway whose routes answer to every name.
    refuse_unready(_class(behind, access={"host": "class.example.org"}), behind)
    refuse_unready(_class(_platform(platform), access=access), _platform(platform))


_READ, _WRITE = ("get", "list", "watch"), ("create", "delete", "deletecollection", "patch", "update")
# Of kubeflow/manifests common/istio*/kubeflow-istio-resources/base/cluster-roles.yaml, as it is copied into the roles.
_BEFORE_1_10 = {"apiGroups": ["istio.io", "networking.istio.io"], "resources": ["*"], "verbs": [*_READ, *_WRITE]}
_SINCE_1_10 = {**_BEFORE_1_10, "verbs": _READ}
_EDITOR = {"apiGroups": ["kubeflow.org"], "resources": ["notebooks", "pvcviewers"], "verbs": ["*"]}


@pytest.mark.parametrize(
    ("kind", "tenancy", "role", "rule", "told"),
    [
        ("istio", "namespace", "kubeflow-edit", _SINCE_1_10, ""),
        (
            "istio",
            "namespace",
            "kubeflow-edit",
            _BEFORE_1_10,
            r"networking\.istio\.io: .*clusterrole kubeflow-istio-edit",
        ),
        ("istio", "profile", "kubeflow-edit", _BEFORE_1_10, r"ClusterRole kubeflow-edit lets students write"),
        # The owner of a profile is its admin, and nobody else is.
        ("istio", "profile", "kubeflow-admin", _BEFORE_1_10, r"ClusterRole kubeflow-admin lets students write"),
        ("istio", "namespace", "kubeflow-admin", _BEFORE_1_10, ""),
        ("istio", "namespace", "kubeflow-edit", {"apiGroups": ["*"], "verbs": ["patch"]}, r"security\.istio\.io"),
        ("istio", "namespace", "kubeflow-edit", {"apiGroups": ["extensions.istio.io"], "verbs": ["*"]}, "extensions"),
        ("istio", "namespace", "kubeflow-edit", {"apiGroups": ["traefik.io"], "verbs": ["*"]}, ""),
        ("istio", "namespace", "kubeflow-edit", {"nonResourceURLs": ["/version"], "verbs": ["*"]}, ""),
        # Each gateway has routes of its own kind, and does not look at others'.
        ("traefik", "namespace", "kubeflow-edit", _BEFORE_1_10, ""),
        ("traefik", "namespace", "kubeflow-edit", {"apiGroups": ["traefik.io"], "verbs": ["create"]}, r"traefik\.io: "),
    ],
)
def test_a_class_whose_students_may_write_the_gateways_routes_is_refused_with_what_mends_it(
    platform: Platform,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    tenancy: str,
    role: str,
    rule: dict[str, Any],
    told: str,
) -> None:
    standing = {f"/apis/rbac.authorization.k8s.io/v1/clusterroles/{role}": {"rules": [_EDITOR, rule]}}
    monkeypatch.setattr(cluster, "api", lambda *_: nullcontext())
    monkeypatch.setattr(cluster, "get", lambda _, path: standing.get(path))
    behind = _platform(platform, kind=kind)
    with pytest.raises(Unready, match=told) if told else nullcontext():
        refuse_unready(_class(behind, tenancy=tenancy), behind)
