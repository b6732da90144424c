"""The way from the gateway to a seat's notebooks, open to the seat's student alone.

The routes lie in the seat's namespace, where its student can read but not write them (Kubeflow's edit role holds no
Traefik objects).
"""

from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import pulumi
import pulumi_kubernetes as k8s

from infra import naming, notebook
from infra.spec import Platform

SESSION_COOKIE: Final = "oauth2_proxy_kubeflow"
_API_VERSION: Final = "traefik.io/v1alpha1"
_LOGIN, _STRIP = "login", "no-session"
# A plugin of the gateway: Traefik itself can take away all cookies of a request or none.
_STRIP_PLUGIN: Final = "stripcookies"
_MOST_ANSWER_BYTES: Final = 1 << 20


@dataclass(frozen=True, kw_only=True)
class AccessArgs:
    """Whose notebooks are to be reached, and by whom. `home` is the namespace, with which the routes go."""

    namespace: str
    home: k8s.core.v1.Namespace
    labels: dict[str, str]
    email: str
    notebooks: tuple[str, ...]
    platform: Platform


class Access(pulumi.ComponentResource):
    """Routes `/notebook/<namespace>/<notebook>/` at the gateway: a login is asked for, and only `email` may pass."""

    address: str

    def __init__(self, name: str, args: AccessArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("classroom:index:Access", name, None, opts)
        if not args.email:
            # An empty list would let everybody pass.
            raise ValueError(f"{name}: an access needs the e-mail of who may pass")
        inside = pulumi.ResourceOptions(parent=self, deleted_with=args.home, depends_on=[args.home])
        for middleware, spec in (
            (_LOGIN, {"forwardAuth": _forward_auth(args)}),
            # Who opens a notebook shows the session to the gateway, not to the notebook's owner.
            (_STRIP, {"plugin": {_STRIP_PLUGIN: {"prefixes": [SESSION_COOKIE]}}}),
        ):
            k8s.apiextensions.CustomResource(
                f"{name}-{middleware}",
                api_version=_API_VERSION,
                kind="Middleware",
                metadata=_metadata(args, middleware),
                spec=spec,
                opts=inside,
            )
        k8s.apiextensions.CustomResource(
            f"{name}-routes",
            api_version=_API_VERSION,
            kind="IngressRoute",
            metadata=_metadata(args, "notebooks"),
            spec={"entryPoints": ["websecure"], "routes": [_route(args, each) for each in args.notebooks], "tls": {}},
            opts=inside,
        )
        self.address = args.platform.url
        self.register_outputs({"address": self.address})


def _metadata(args: AccessArgs, name: str) -> k8s.meta.v1.ObjectMetaArgs:
    return k8s.meta.v1.ObjectMetaArgs(
        name=name, namespace=args.namespace, labels=args.labels, annotations=naming.ADOPTING
    )


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
