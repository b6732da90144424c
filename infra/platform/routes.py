"""How a part gets a path at the gateway: routes and what stands before them, as Traefik's custom resources.

Every route names a login, but those that make the login itself. Traefik takes its routes from these custom resources
alone, never from Ingress objects: a student may hold rights on Ingress by some ClusterRole, on these never. References
across namespaces are refused, so a route stands in the namespace of what it leads to.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_kubernetes as k8s

from infra.platform.manifests import definitions
from infra.platform.settings import AUTH, PlatformSettings

API_VERSION = "traefik.io/v1alpha1"
ENTRY_POINT = "websecure"
SESSION_COOKIE = "oauth2_proxy_kubeflow"
USER_HEADER = "kubeflow-userid"
GROUPS_HEADER = "kubeflow-groups"
LOGIN_SERVICE = "oauth2-proxy"
LOGIN_PORT = 4180
LOGIN_ADDRESS = f"http://{LOGIN_SERVICE}.{AUTH}.svc.cluster.local:{LOGIN_PORT}/"
STRIP_COOKIES = "stripcookies"
"""The gateway's plugin of that name; see strip_cookies.go."""
_MAXIMUM_ANSWER_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Target:
    """A Service of the route's own namespace."""

    service: str
    port: int


class Routes(pulumi.ComponentResource):
    """Traefik's custom resource definitions, and the means to write objects of them."""

    def __init__(self, name: str, settings: PlatformSettings, opts: pulumi.ResourceOptions) -> None:
        super().__init__("classroom:platform:Routes", name, None, opts)
        self.definitions = definitions(settings.upstream("traefik"), pulumi.ResourceOptions(parent=self))
        self.register_outputs({})

    def login(
        self,
        name: str,
        namespace: pulumi.Input[str],
        parent: pulumi.Resource,
        *,
        headers: Sequence[pulumi.Input[str]] = (USER_HEADER, GROUPS_HEADER),
    ) -> str:
        """Lets requests of logged-in users pass, with `headers` as the login service answered them and nobody else."""
        forward = {
            "address": LOGIN_ADDRESS,
            "trustForwardHeader": False,
            # Redirects of the login are relative; without this they would lead to its in-cluster name.
            "preserveLocationHeader": True,
            "maxResponseBodySize": _MAXIMUM_ANSWER_BYTES,
            "authResponseHeaders": list(headers),
        }
        return self._middleware(name, namespace, {"forwardAuth": forward}, parent)

    def ask(
        self,
        name: str,
        namespace: pulumi.Input[str],
        address: pulumi.Input[str],
        headers: Sequence[pulumi.Input[str]],
        parent: pulumi.Resource,
    ) -> str:
        """Lets requests pass that `address` answers with 2xx, which is shown their path and these of their headers."""
        forward = {
            "address": address,
            "trustForwardHeader": False,
            "maxResponseBodySize": _MAXIMUM_ANSWER_BYTES,
            "authRequestHeaders": list(headers),
        }
        return self._middleware(name, namespace, {"forwardAuth": forward}, parent)

    def strip_session(self, name: str, namespace: pulumi.Input[str], parent: pulumi.Resource) -> str:
        """Keeps the session from what stands behind the gateway: whoever holds the cookie is the user."""
        return self._middleware(name, namespace, {"plugin": {STRIP_COOKIES: {"prefixes": [SESSION_COOKIE]}}}, parent)

    def strip_prefix(self, name: str, namespace: pulumi.Input[str], prefix: str, parent: pulumi.Resource) -> str:
        return self._middleware(name, namespace, {"stripPrefix": {"prefixes": [prefix]}}, parent)

    def route(
        self,
        name: str,
        namespace: pulumi.Input[str],
        match: str,
        middlewares: Sequence[str],
        target: Target,
        parent: pulumi.Resource,
        *,
        priority: int | None = None,
    ) -> None:
        """Requests that `match` (Traefik's rule syntax) go through the middlewares, in this order, to the target."""
        rule: dict[str, object] = {
            "kind": "Rule",
            "match": match,
            "middlewares": [{"name": middleware} for middleware in middlewares],
            "services": [{"name": target.service, "port": target.port}],
        }
        if priority is not None:
            rule["priority"] = priority
        self._object("IngressRoute", name, namespace, {"entryPoints": [ENTRY_POINT], "routes": [rule]}, parent)

    def default_certificate(self, namespace: pulumi.Input[str], secret: str, parent: pulumi.Resource) -> None:
        """The certificate of every host name: Traefik knows one such store, called default."""
        self._object("TLSStore", "default", namespace, {"defaultCertificate": {"secretName": secret}}, parent)

    def _middleware(
        self, name: str, namespace: pulumi.Input[str], spec: dict[str, object], parent: pulumi.Resource
    ) -> str:
        self._object("Middleware", name, namespace, spec, parent)
        return name

    def _object(
        self, kind: str, name: str, namespace: pulumi.Input[str], spec: dict[str, object], parent: pulumi.Resource
    ) -> None:
        k8s.apiextensions.CustomResource(
            name,
            api_version=API_VERSION,
            kind=kind,
            metadata=k8s.meta.v1.ObjectMetaArgs(name=name, namespace=namespace),
            spec=spec,
            opts=pulumi.ResourceOptions(parent=parent, depends_on=self.definitions),
        )
