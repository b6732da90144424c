"""Access by Istio, as Kubeflow's own manifests have it: the ingress gateway asks for the login and names the user in a
header, and the sidecar of a notebook server lets in whom the namespace's AuthorizationPolicy lists.

What Kubeflow brings is not made a second time. Its notebook controller makes each notebook's VirtualService unless its
USE_ISTIO is false (notebook_controller.go, generateVirtualService), and its profile controller makes the policy
`ns-owner-access-istio` of a Profile (profile_controller.go, getAuthorizationPolicy).

The session is stripped at the gateway and not in the sidecar: who may make pods may make one without a sidecar, or ask
its own sidecar what it sees. A VirtualService removes whole headers only, and with all its cookies Jupyter's own token
against forged requests would go as well, so it is a filter of Envoy that cuts the session out.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import pulumi
import pulumi_kubernetes as k8s

from infra import naming, notebook
from infra.access import AccessArgs, Egress, HostArgs
from infra.spec import Platform
from infra.values import in_one_line

NAMESPACE_LABELS: Final = {"istio-injection": "enabled"}
# A sidecar gets its configuration and its certificate from Istio's control plane.
EGRESS: Final[tuple[Egress, ...]] = (
    {
        "to": [
            {
                "namespace_selector": {"match_labels": {"kubernetes.io/metadata.name": "istio-system"}},
                "pod_selector": {"match_labels": {"app": "istiod"}},
            }
        ],
        "ports": [{"protocol": "TCP", "port": 15012}],
    },
)

ROUTE_GROUPS: Final = ("networking.istio.io", "security.istio.io", "extensions.istio.io")
# Since Kubeflow 1.10 that role reads only, as `kubeflow-istio-view` does (kubeflow/manifests common/istio,
# kubeflow-istio-resources/base/cluster-roles.yaml): emptied, it takes nothing else away.
ROUTES_CLOSED_BY: Final = (
    "empty the rules that this comes from, on Kubeflow before 1.10 those of the ClusterRole kubeflow-istio-edit: "
    """kubectl patch clusterrole kubeflow-istio-edit --type merge -p '{"rules": []}'"""
)

_STRIP: Final = Path(__file__).with_name("strip_session.lua")
_CONTROLLER: Final = "notebook-controller-service-account"


def routes(name: str, args: AccessArgs, opts: pulumi.ResourceOptions) -> None:
    """Of VirtualService and AuthorizationPolicy those that Kubeflow's own controllers do not make."""
    if args.platform.gateway.notebook_routes == "class":
        k8s.apiextensions.CustomResource(
            f"{name}-routes",
            api_version="networking.istio.io/v1",
            kind="VirtualService",
            metadata=args.metadata("notebooks"),
            spec={
                "hosts": ["*"],
                "gateways": [args.platform.gateway.resource],
                "http": [_route(args, each) for each in args.notebooks],
            },
            opts=opts,
        )
    if not args.profile:
        k8s.apiextensions.CustomResource(
            f"{name}-student-alone",
            api_version="security.istio.io/v1",
            kind="AuthorizationPolicy",
            metadata=args.metadata("student"),
            spec={"action": "ALLOW", "rules": _rules(args)},
            opts=opts,
        )


def keep_sessions(name: str, class_name: str, platform: Platform, opts: pulumi.ResourceOptions) -> None:
    """A filter of the ingress gateway, last before it sends a request on: by then the login has been judged."""
    called = naming.at_gateway(class_name)
    before = {
        "name": "envoy.filters.network.http_connection_manager",
        "subFilter": {"name": "envoy.filters.http.router"},
    }
    lua = {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
        "default_source_code": {"inline_string": strip(class_name, platform)},
    }
    patch = {
        "applyTo": "HTTP_FILTER",
        "match": {"context": "GATEWAY", "listener": {"filterChain": {"filter": before}}},
        "patch": {"operation": "INSERT_BEFORE", "value": {"name": called, "typed_config": lua}},
    }
    k8s.apiextensions.CustomResource(
        f"{name}-no-session",
        api_version="networking.istio.io/v1alpha3",
        kind="EnvoyFilter",
        metadata=k8s.meta.v1.ObjectMetaArgs(
            name=called,
            namespace=platform.gateway_namespace,
            labels=naming.labels(class_name),
            annotations=naming.ADOPTING,
        ),
        spec={"workloadSelector": {"labels": platform.gateway.selector}, "configPatches": [patch]},
        opts=opts,
    )


def strip(class_name: str, platform: Platform) -> str:
    """The Lua program that takes the session out of requests to whatever runs in the namespaces of a class."""
    heads = ", ".join(json.dumps(head) for head in naming.namespace_heads(class_name))
    session = json.dumps(platform.gateway.session_cookie)
    return f"local HEADS, SESSION = {{{heads}}}, {session}\n\n{_STRIP.read_text()}"


def show(_name: str, _args: HostArgs, _secret: str, _opts: pulumi.ResourceOptions) -> None:
    """Nothing: the Secret is what a server of the operator's Gateway names.

    Every route of Kubeflow hangs on one Gateway by its name, and Istio gives a server of another Gateway none of them.
    """


def unserved(args: HostArgs) -> str:
    """When no server of that Gateway shows the certificate of the class for its host."""
    # The Kubernetes client takes a second to import, which a unit test does not need.
    from infra import cluster

    platform = args.platform
    namespace, _, gateway = platform.gateway.resource.partition("/")
    path = f"/apis/networking.istio.io/v1/namespaces/{namespace}/gateways/{gateway}"
    with cluster.api(platform.kubeconfig, platform.context) as api:
        found = cluster.get(api, path)
    if found is None:
        return f"there is no Gateway {namespace}/{gateway}; name the one of your Kubeflow as platform.gateway.resource"
    return missing_server(args, found["spec"].get("servers") or ())


def missing_server(args: HostArgs, servers: Iterable[Mapping[str, Any]]) -> str:
    """What a Gateway with `servers` lacks for a class's host, in words with what is to be added; empty for nothing."""
    secret = args.certificate.secret
    for server in servers:
        patterns = [each.rpartition("/")[2] for each in server["hosts"]]
        named = any(
            each in ("*", args.host) or (each[:2] == "*." and args.host.endswith(each[1:])) for each in patterns
        )
        if named and (server.get("tls") or {}).get("credentialName") == secret:
            return ""
    wanted = {
        "port": {"number": 443, "name": f"https-{naming.at_gateway(args.class_name)}", "protocol": "HTTPS"},
        "hosts": [args.host],
        "tls": {"mode": "SIMPLE", "credentialName": secret},
    }
    gateway = args.platform.gateway.resource
    return (
        f"no server of the Gateway {gateway} shows the certificate of access.tls for {args.host}; "
        f"add to its spec.servers {in_one_line(wanted)}, or leave access.tls out where it has a certificate of its own"
    )


def _rules(args: AccessArgs) -> list[dict[str, Any]]:
    gateway = args.platform.gateway
    trust = gateway.principal.partition("/")[0]
    controller = f"{trust}/ns/{args.platform.kubeflow_namespace}/sa/{_CONTROLLER}"
    student = {"key": f"request.headers[{gateway.user_header}]", "values": [f"{gateway.user_prefix}{args.email}"]}
    return [
        {"from": [{"source": {"principals": [gateway.principal]}}], "when": [student]},
        {"from": [{"source": {"namespaces": [args.namespace]}}]},
        # The controller asks a server when it was last used.
        {
            "from": [{"source": {"principals": [controller]}}],
            "to": [{"operation": {"methods": ["GET"], "paths": ["*/api/kernels"]}}],
        },
    ]


def _route(args: AccessArgs, name: str) -> dict[str, Any]:
    path = notebook.path(args.namespace, name)
    service = f"{name}.{args.namespace}.svc.cluster.local"
    return {
        # A path that only begins alike is another notebook's.
        "match": [{"uri": {"prefix": f"{path}/"}}, {"uri": {"exact": path}}],
        "route": [{"destination": {"host": service, "port": {"number": 80}}}],
    }
