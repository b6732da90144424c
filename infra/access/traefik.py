"""Access by Traefik's own routes, behind oauth2-proxy as the one that knows who asks.

oauth2-proxy itself refuses whoever is not the seat's student; the session is stripped in each route.
"""

from typing import Any, Final
from urllib.parse import quote

import pulumi
import pulumi_kubernetes as k8s

from infra import naming, notebook
from infra.access import AccessArgs, HostArgs
from infra.spec import Platform

NAMESPACE_LABELS: Final[dict[str, str]] = {}
EGRESS: Final = ()
ROUTE_GROUPS: Final = ("traefik.io",)
ROUTES_CLOSED_BY: Final = (
    "take create, update, patch and delete for them out of the ClusterRoles that this comes from: "
    "kubectl get clusterroles -l rbac.authorization.kubeflow.org/aggregate-to-kubeflow-edit=true -o yaml"
)

_API_VERSION: Final = "traefik.io/v1alpha1"
_LOGIN, _STRIP = "login", "no-session"
# A plugin of the gateway: Traefik itself can take away all cookies of a request or none.
_STRIP_PLUGIN: Final = "stripcookies"
_MOST_ANSWER_BYTES: Final = 1 << 20


def routes(name: str, args: AccessArgs, opts: pulumi.ResourceOptions) -> None:
    """An IngressRoute for the notebooks, and the two Middlewares that a request goes through."""
    for middleware, spec in (
        (_LOGIN, {"forwardAuth": _forward_auth(args)}),
        (_STRIP, {"plugin": {_STRIP_PLUGIN: {"prefixes": [args.platform.gateway.session_cookie]}}}),
    ):
        k8s.apiextensions.CustomResource(
            f"{name}-{middleware}",
            api_version=_API_VERSION,
            kind="Middleware",
            metadata=args.metadata(middleware),
            spec=spec,
            opts=opts,
        )
    k8s.apiextensions.CustomResource(
        f"{name}-routes",
        api_version=_API_VERSION,
        kind="IngressRoute",
        metadata=args.metadata("notebooks"),
        spec={"entryPoints": ["websecure"], "routes": [_route(args, each) for each in args.notebooks], "tls": {}},
        opts=opts,
    )


def keep_sessions(_name: str, _class_name: str, _platform: Platform, _opts: pulumi.ResourceOptions) -> None:
    """Nothing for the class as a whole: the strip lies in each seat's routes."""


def show(name: str, args: HostArgs, secret: str, opts: pulumi.ResourceOptions) -> None:
    """A route that leads nowhere and names the certificate.

    Traefik shows a certificate that any route names to everybody who asks for its host; noop@internal answers 418.
    """
    called = naming.at_gateway(args.class_name)
    rule = {
        "kind": "Rule",
        "match": f"Host(`{args.host}`) && Path(`/.well-known/{called}`)",
        "services": [{"kind": "TraefikService", "name": "noop@internal"}],
    }
    k8s.apiextensions.CustomResource(
        f"{name}-host",
        api_version=_API_VERSION,
        kind="IngressRoute",
        metadata=k8s.meta.v1.ObjectMetaArgs(
            name=called,
            namespace=args.platform.gateway_namespace,
            labels=naming.labels(args.class_name),
            annotations=naming.ADOPTING,
        ),
        spec={"entryPoints": ["websecure"], "routes": [rule], "tls": {"secretName": secret}},
        opts=opts,
    )


def unserved(_args: HostArgs) -> str:
    """Never: the routes of Kubeflow answer to every name."""
    return ""


def _forward_auth(args: AccessArgs) -> dict[str, Any]:
    """oauth2-proxy answers 202 to a login with the e-mail, 403 to another one, and sends the rest to the login page."""
    checker = f"http://oauth2-proxy.{args.platform.dex_namespace}.svc.cluster.local:4180"
    return {
        "address": f"{checker}/?allowed_emails={quote(args.email, safe='@')}",
        # Whatever a client claims to be is overwritten with what its login says.
        "trustForwardHeader": False,
        "authResponseHeaders": ["kubeflow-userid", "kubeflow-groups"],
        # The redirect to the login names the host that the browser used, not the checker's own.
        "preserveLocationHeader": True,
        "maxResponseBodySize": _MOST_ANSWER_BYTES,
    }


def _route(args: AccessArgs, name: str) -> dict[str, Any]:
    path = notebook.path(args.namespace, name)
    return {
        "kind": "Rule",
        # A path that only begins alike is another notebook's.
        "match": f"PathPrefix(`{path}/`) || Path(`{path}`)",
        # In this order: the login is known by the cookie that is stripped then.
        "middlewares": [{"name": _LOGIN}, {"name": _STRIP}],
        "services": [{"name": name, "port": 80}],
    }
