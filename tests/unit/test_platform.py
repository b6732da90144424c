"""The platform's program, run against mocks of Pulumi's engine: what it would make of Kubeflow, and how safely."""

import base64
import json
import subprocess
import sys
from ipaddress import IPv4Address, IPv4Network, ip_address
from pathlib import Path
from typing import Any

import pulumi
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from pulumi.dynamic import CreateResult, UpdateResult
from pulumi.runtime import mocks, rpc

from infra.platform import generated
from infra.platform.images import UPSTREAM, ImageMissingError, program
from infra.platform.kubeflow import platform_program
from infra.platform.manifests import read
from infra.platform.roles import EDIT, VIEW
from infra.platform.routes import LOGIN_ADDRESS, USER_HEADER
from infra.platform.settings import ManifestsMissingError, PlatformSettings

PARTS = ("argo", "dex", "kfp", "metallb", "notebooks", "traefik")
BROUGHT = {name: f"localhost/test/{name}:1" for name in (*UPSTREAM, "debian", "mlmd", "gpu-device-plugin")}
HEADER_TOKEN = "secret-of-identity-header"


class Engine(mocks.Mocks):
    """Remembers what the program asks for; generated secrets get values that can be looked for."""

    def __init__(self) -> None:
        self.made: list[mocks.MockResourceArgs] = []

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str | None, dict[Any, Any]]:
        self.made.append(args)
        outputs = dict(args.inputs)
        if args.typ.endswith(":Token"):
            outputs["value"] = f"secret-of-{args.name}"
        if args.typ.endswith(":Certificate"):
            outputs.update(ca_certificate="the-ca", certificate="the-certificate", key="secret-of-key", ca_key="secret")
        return f"{args.name}-id", outputs

    def call(self, args: mocks.MockCallArgs) -> tuple[dict[Any, Any], list[tuple[str, str]] | None]:  # noqa: ARG002
        """The program calls no function of a provider."""
        return {}, None

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The inputs of every Kubernetes object of a kind."""
        return [
            args.inputs for args in self.made if args.typ.startswith("kubernetes:") and args.typ.endswith(f":{kind}")
        ]

    def pods(self) -> list[dict[str, Any]]:
        return [each["spec"]["template"]["spec"] for kind in ("Deployment", "DaemonSet") for each in self.of(kind)]

    def containers(self) -> list[dict[str, Any]]:
        return [one for pod in self.pods() for one in (*pod["containers"], *pod.get("initContainers", []))]


def plain(value: dict[str, Any]) -> dict[str, Any]:
    """What Pulumi marked as secret, without the mark."""
    assert value[rpc._special_sig_key] == rpc._special_secret_sig
    return value["value"]


def crd(name: str) -> dict[str, Any]:
    pod = {
        "type": "object",
        "properties": {part: {"type": "array"} for part in ("containers", "initContainers", "volumes")},
    }
    status = {"type": "object", "required": ["conditions"], "properties": {"conditions": {"type": "array"}}}
    properties = {"description": {"type": "string"}, "pod": pod, "status": status}
    schema = {"type": "object", "description": "long", "properties": properties}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": name},
        "spec": {"conversion": {"strategy": "Webhook"}, "versions": [{"schema": {"openAPIV3Schema": schema}}]},
    }


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> PlatformSettings:
    whole = tmp_path_factory.mktemp("manifests")
    for part in PARTS:
        (whole / part).mkdir()
        (whole / part / "crds.yaml").write_text(yaml.safe_dump_all([crd(f"things.{part}.test"), {"kind": "Namespace"}]))
    return PlatformSettings(
        kubeconfig=Path("/nowhere/kubeconfig"),
        manifests=(whole,),
        images=BROUGHT,
        gateway_address=IPv4Address("198.18.0.100"),
        object_store_address=IPv4Address("198.18.0.101"),
        load_balancers=(IPv4Address("198.18.0.100"), IPv4Address("198.18.0.120")),
        dns_address=IPv4Address("198.18.128.10"),
        pods=IPv4Network("198.19.0.0/16"),
    )


@pytest.fixture(scope="module")
def engine(settings: PlatformSettings) -> Engine:
    seen = Engine()
    mocks.set_mocks(seen, preview=False)
    pulumi.runtime.test(platform_program(settings))()
    return seen


def test_every_image_comes_from_the_settings(engine: Engine) -> None:
    images = {one["image"] for one in engine.containers()}
    assert images
    assert images <= set(BROUGHT.values())


def test_images_that_pods_start_later_come_from_the_settings_too(engine: Engine) -> None:
    everything = json.dumps([args.inputs for args in engine.made])
    for name in ("argoexec", "kfp-driver", "kfp-launcher", "busybox"):
        assert BROUGHT[name] in everything


def test_an_image_that_nobody_brings_and_upstream_lacks_is_named_with_its_mending() -> None:
    with pytest.raises(ImageMissingError, match=r"mlmd.*\n.*PlatformSettings\.images"):
        program("mlmd", {})


def test_upstreams_image_comes_with_upstreams_way_to_start_it() -> None:
    assert program("coredns", {}).command == ("/coredns",)
    assert program("coredns", {"coredns": "mine:1"}).command == ("coredns",)


def test_every_route_asks_for_login_but_those_that_are_the_login(engine: Engine) -> None:
    middlewares = {
        (each["metadata"]["namespace"], each["metadata"]["name"]): each["spec"] for each in engine.of("Middleware")
    }
    open_routes = set()
    for ingress in engine.of("IngressRoute"):
        for rule in ingress["spec"]["routes"]:
            named = [middlewares[ingress["metadata"]["namespace"], each["name"]] for each in rule["middlewares"]]
            if not any(each.get("forwardAuth", {}).get("address") == LOGIN_ADDRESS for each in named):
                open_routes.add(rule["match"])
    assert open_routes == {"PathPrefix(`/dex/`)", "PathPrefix(`/oauth2/`)"}


def test_behind_a_login_the_session_cookie_is_taken_off_afterwards(engine: Engine) -> None:
    for ingress in engine.of("IngressRoute"):
        for rule in ingress["spec"]["routes"]:
            names = [each["name"] for each in rule["middlewares"]]
            if names:
                login = next(index for index, name in enumerate(names) if "login" in name)
                strip = next(index for index, name in enumerate(names) if "strip-session" in name)
                assert login < strip


def test_a_login_never_trusts_headers_that_a_client_sends(engine: Engine) -> None:
    logins = [
        each["spec"]["forwardAuth"]
        for each in engine.of("Middleware")
        # That one adds to a login what KFP does not ask itself.
        if "forwardAuth" in each["spec"] and each["metadata"]["name"] != "pipelines-log"
    ]
    assert logins
    for login in logins:
        assert login["trustForwardHeader"] is False
        assert login["preserveLocationHeader"] is True
        assert login["authResponseHeaders"]


def test_the_pipelines_service_believes_a_header_that_only_the_gateway_knows(engine: Engine) -> None:
    secret = next(each for each in engine.of("Secret") if each["metadata"]["name"] == "ml-pipeline-identity")
    header = plain(secret["stringData"])["header"]
    login = next(each for each in engine.of("Middleware") if each["metadata"]["name"] == "pipelines-login")
    providers = next(each for each in engine.of("Secret") if each["metadata"]["name"] == "oauth2-proxy-providers")
    injected = {
        each["name"] for each in json.loads(plain(providers["stringData"])["providers.yaml"])["injectResponseHeaders"]
    }
    assert HEADER_TOKEN in header
    assert header != USER_HEADER
    assert header in login["spec"]["forwardAuth"]["authResponseHeaders"]
    assert {header, USER_HEADER} <= injected


def test_outside_addresses_lead_to_the_gateway_and_to_s3_alone(engine: Engine) -> None:
    outside = {
        each["metadata"]["annotations"]["metallb.io/loadBalancerIPs"]: {port["port"] for port in each["spec"]["ports"]}
        for each in engine.of("Service")
        if each["spec"].get("type", "ClusterIP") != "ClusterIP"
    }
    assert outside == {"198.18.0.100": {443, 80}, "198.18.0.101": {8333}}


def test_no_generated_secret_appears_outside_secrets(engine: Engine) -> None:
    for args in engine.made:
        if (
            args.typ.startswith("kubernetes:")
            and not args.typ.endswith(":Secret")
            and args.name
            not in {
                # They name the identity header, in a namespace that no student reads.
                "pipelines-login",
                "pipelines-log",
            }
        ):
            assert "secret-of-" not in json.dumps(args.inputs), f"{args.typ} {args.name}"


def test_generated_secrets_are_secret_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, tuple[set[str], set[str]]] = {}

    def record(
        _self: object, _provider: object, name: str, props: dict[str, Any], opts: pulumi.ResourceOptions
    ) -> None:
        seen[name] = set(props), set(opts.additional_secret_outputs or [])

    monkeypatch.setattr(generated.Resource, "__init__", record)
    generated.Token("token", pulumi.ResourceOptions())
    generated.Certificate("certificate", pulumi.ResourceOptions(), hosts=["gateway"])
    assert seen["token"] == ({"bytes", "value"}, {"value"})
    assert seen["certificate"] == ({"hosts", "ca_certificate", "ca_key", "certificate", "key"}, {"ca_key", "key"})


def test_inner_ports_are_closed_but_to_those_who_need_them(engine: Engine) -> None:
    policies = {
        (each["metadata"]["namespace"], each["metadata"]["name"]): each["spec"] for each in engine.of("NetworkPolicy")
    }
    for namespace in ("kubeflow", "auth", "gateway", "metallb-system", "local-path-storage"):
        deny = policies[namespace, "deny-all"]
        assert deny["policyTypes"] == ["Ingress"]
        assert "ingress" not in deny
    anybody = {
        (name, port["port"])
        for (_, name), spec in policies.items()
        for rule in spec.get("ingress", [])
        if not rule.get("from")
        for port in rule["ports"]
    }
    assert anybody == {("traefik", 443), ("traefik", 80), ("seaweedfs", 8333)}
    [mysql] = policies["kubeflow", "mysql"]["ingress"]
    assert mysql["from"] == [{"podSelector": {"matchLabels": {"app": "ml-pipeline"}}}]
    assert [port["port"] for rule in policies["kubeflow", "metadata"]["ingress"] for port in rule["ports"]] == [8080]


def test_pods_reach_nothing_of_the_node_but_the_kubernetes_api(engine: Engine) -> None:
    agent = next(pod for pod in engine.pods() if pod["containers"][0]["name"] == "kube-network-policies")
    rules = agent["initContainers"][0]["args"][-1]
    assert "-s 198.19.0.0/16 -p tcp --dport 6443 -j NFQUEUE" in rules
    assert rules.index("--dport 6443") < rules.index("-s 198.19.0.0/16 -j DROP")


def test_only_what_changes_the_node_runs_as_root(engine: Engine) -> None:
    root = {
        one["name"]
        for one in engine.containers()
        if one["securityContext"].get("privileged") or not one["securityContext"].get("runAsNonRoot")
    }
    assert root == {"rules", "kube-network-policies", "speaker", "gpu-device-plugin"}


def test_pods_without_rights_get_no_token(engine: Engine) -> None:
    for pod in engine.pods():
        assert pod["automountServiceAccountToken"] == ("serviceAccountName" in pod)


def test_what_remembers_has_a_volume_and_never_two_writers(engine: Engine) -> None:
    claims = {each["metadata"]["name"] for each in engine.of("PersistentVolumeClaim")}
    assert claims == {"mysql", "seaweedfs", "metadata"}
    for deployment in engine.of("Deployment"):
        volumes = deployment["spec"]["template"]["spec"].get("volumes", [])
        held = {volume["persistentVolumeClaim"]["claimName"] for volume in volumes if "persistentVolumeClaim" in volume}
        assert not held or deployment["spec"]["strategy"]["type"] == "Recreate"
        claims -= held
    assert not claims


def test_the_platform_leaves_room_on_two_cores(engine: Engine) -> None:
    millicores = sum(
        int(one["resources"]["requests"]["cpu"].removesuffix("m")) for pod in engine.pods() for one in pod["containers"]
    )
    mebibytes = sum(
        int(one["resources"]["requests"]["memory"].removesuffix("Mi"))
        for pod in engine.pods()
        for one in pod["containers"]
    )
    assert millicores <= 660
    assert mebibytes <= 2048


def test_every_program_says_when_it_is_ready(engine: Engine) -> None:
    silent = {one["name"] for pod in engine.pods() for one in pod["containers"] if "readinessProbe" not in one}
    # They serve no port of their own.
    assert silent == {
        "local-path-provisioner",
        "ml-pipeline-persistenceagent",
        "ml-pipeline-scheduledworkflow",
        "gpu-device-plugin",
    }
    for one in engine.containers():
        assert one.get("readinessProbe", {}).get("periodSeconds", 1) <= 2


def test_members_of_a_seat_cannot_open_a_way_in_or_lift_a_limit(engine: Engine) -> None:
    roles = {each["metadata"]["name"]: each["rules"] for each in engine.of("ClusterRole")}
    for role in (EDIT, VIEW):
        for rule in roles[role]:
            writes = set(rule["verbs"]) - {"get", "list", "watch"}
            assert "*" not in (*rule["verbs"], *rule["resources"], *rule["apiGroups"])
            assert not set(rule["apiGroups"]) & {"traefik.io", "networking.k8s.io", "rbac.authorization.k8s.io"}
            assert not writes or not set(rule["resources"]) & {
                "resourcequotas",
                "limitranges",
                "serviceaccounts",
                "services",
            }
            assert not ("create" in writes and "pods" in rule["resources"])
    assert not any("secrets" in rule["resources"] for rule in roles[VIEW])


def test_definitions_keep_their_schema_and_lose_webhooks_prose_and_whole_pods(engine: Engine) -> None:
    schema = schema_of(engine, "things.argo.test")
    assert schema["properties"]["description"] == {"type": "string"}
    assert "description" not in schema
    assert schema["properties"]["pod"] == {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    assert schema["properties"]["status"]["required"] == ["conditions"]
    assert not any("conversion" in each["spec"] for each in engine.of("CustomResourceDefinition"))


def test_a_notebook_may_have_an_incomplete_status(engine: Engine) -> None:
    assert "required" not in schema_of(engine, "things.notebooks.test")["properties"]["status"]


def schema_of(engine: Engine, name: str) -> dict[str, Any]:
    [made] = [each for each in engine.of("CustomResourceDefinition") if each["metadata"]["name"] == name]
    [version] = made["spec"]["versions"]
    return version["schema"]["openAPIV3Schema"]


def test_missing_manifests_are_named_with_their_mending(settings: PlatformSettings, tmp_path: Path) -> None:
    with pytest.raises(ManifestsMissingError, match=r'"karpenter".*\n.*PlatformSettings\.manifests'):
        settings.upstream("karpenter")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ManifestsMissingError, match="empty"):
        read(tmp_path / "empty", "CustomResourceDefinition")


# ---- generated secrets ----------------------------------------------------------------------------------------------


def outs(made: CreateResult | UpdateResult) -> dict[str, Any]:
    assert made.outs is not None
    return made.outs


def test_a_token_stays_until_its_size_changes() -> None:
    provider = generated._TokenProvider()
    made = provider.create({"bytes": 16, "value": None})
    assert len(outs(made)["value"]) == 32
    assert not provider.diff(made.id, outs(made), {"bytes": 16}).changes
    changed = provider.diff(made.id, outs(made), {"bytes": 32})
    assert changed.changes
    assert changed.replaces == ["bytes"]


def test_a_certificate_is_for_its_hosts_and_signed_by_its_authority() -> None:
    made = generated._CertificateProvider().create({"hosts": ["198.18.0.100", "traefik.gateway"]})
    certificate, ca = (
        x509.load_pem_x509_certificate(outs(made)[part].encode()) for part in ("certificate", "ca_certificate")
    )
    certificate.verify_directly_issued_by(ca)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.IPAddress) == [ip_address("198.18.0.100")]
    assert names.get_values_for_type(x509.DNSName) == ["traefik.gateway"]
    assert isinstance(certificate.public_key(), ec.EllipticCurvePublicKey)


def test_new_hosts_get_a_new_certificate_from_the_same_authority() -> None:
    provider = generated._CertificateProvider()
    made = provider.create({"hosts": ["a"]})
    assert not provider.diff(made.id, outs(made), {"hosts": ["a"]}).changes
    assert provider.diff(made.id, outs(made), {"hosts": ["a", "b"]}).changes
    renewed = outs(provider.update(made.id, outs(made), {"hosts": ["a", "b"]}))
    assert renewed["ca_certificate"] == outs(made)["ca_certificate"]
    assert renewed["certificate"] != outs(made)["certificate"]


def test_a_certificate_near_its_end_is_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = generated._CertificateProvider()
    made = provider.create({"hosts": ["a"]})
    monkeypatch.setattr(generated, "RENEW_DAYS", generated.CERTIFICATE_DAYS + 1)
    assert provider.diff(made.id, outs(made), {"hosts": ["a"]}).changes


def test_providers_are_kept_by_name_not_by_content() -> None:
    from pulumi.dynamic.dynamic import serialize_provider

    assert len(base64.b64decode(serialize_provider(generated._TokenProvider()))) < 200


def test_the_metadata_server_is_readable_by_the_python_of_its_image() -> None:
    source = Path(generated.__file__).with_name("mlmd_server.py")
    subprocess.run([sys.executable, "-c", f"compile(open({str(source)!r}).read(), 'x', 'exec')"], check=True)
