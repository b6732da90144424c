"""Who is it: dex knows users and passwords, oauth2-proxy keeps sessions and tells the gateway who asks.

Users are objects passwords.dex.coreos.com in dex's namespace: added, changed and removed at run time. All addresses
that a browser sees are paths, so one configuration serves every host name of the gateway.
"""

import json

import pulumi

from infra.platform.generated import Token
from infra.platform.manifests import definitions
from infra.platform.network_policy import allow, peer
from infra.platform.rights import Rule, account
from infra.platform.routes import GROUPS_HEADER, LOGIN_PORT, LOGIN_SERVICE, SESSION_COOKIE, USER_HEADER, Routes, Target
from infra.platform.settings import AUTH, GATEWAY, PlatformSettings
from infra.platform.workload import (
    Container,
    Pod,
    Ready,
    SecretKey,
    config_map,
    configuration,
    deployment,
    secret,
    secrets,
    service,
    temporary,
)

DEX = "dex"
_DEX_PORT = 5556
_DEX_ADDRESS = f"http://{DEX}.{AUTH}.svc.cluster.local:{_DEX_PORT}/dex"
_CLIENT = "kubeflow"
_CALLBACK = "/oauth2/callback"
_SECRETS = "login"


class Login(pulumi.ComponentResource):
    """Dex and oauth2-proxy, at the gateway's /dex and /oauth2."""

    def __init__(
        self,
        name: str,
        settings: PlatformSettings,
        namespace: pulumi.Output[str],
        identity_header: pulumi.Output[str],
        routes: Routes,
        opts: pulumi.ResourceOptions,
    ) -> None:
        super().__init__("classroom:platform:Login", name, None, opts)
        mine = pulumi.ResourceOptions(parent=self)
        client, cookie = Token("login-client-secret", mine), Token("session-cookie-secret", mine, size=16)
        secrets(_SECRETS, namespace, {"client": client.value, "cookie": cookie.value}, mine)
        self._dex(settings, namespace, client.value, routes, mine)
        self._sessions(settings, namespace, client.value, cookie.value, identity_header, routes, mine)
        self.register_outputs({})

    def _dex(
        self,
        settings: PlatformSettings,
        namespace: pulumi.Output[str],
        client: pulumi.Output[str],
        routes: Routes,
        mine: pulumi.ResourceOptions,
    ) -> None:
        known = definitions(settings.upstream("dex"), mine)
        who = account(
            DEX, namespace, mine, in_namespace=(Rule(group="dex.coreos.com", resources=("*",), verbs=("*",)),)
        )
        config = json.dumps(
            {
                "issuer": _DEX_ADDRESS,
                "storage": {"type": "kubernetes", "config": {"inCluster": True, "crdHandling": "check"}},
                "web": {"http": f"0.0.0.0:{_DEX_PORT}"},
                "telemetry": {"http": "127.0.0.1:5558"},
                "frontend": {"issuer": "Kubeflow"},
                "logger": {"level": "info", "format": "json"},
                "oauth2": {"skipApprovalScreen": True, "passwordConnector": "local"},
                "enablePasswordDB": True,
                "staticClients": [
                    {"id": _CLIENT, "name": "Kubeflow", "secretEnv": "CLIENT_SECRET", "redirectURIs": [_CALLBACK]}
                ],
            }
        )
        configuration("dex", namespace, {"config.yaml": config}, mine)
        deployment(
            Pod(
                app=DEX,
                account=who,
                restart_on=[config, client],
                containers=[
                    Container(
                        name=DEX,
                        program=settings.program("dex"),
                        arguments=["serve", "/etc/dex/config.yaml"],
                        secret_environment={"CLIENT_SECRET": SecretKey(of=_SECRETS, key="client")},
                        # Where dex learns its namespace from; its token's file says the same.
                        field_environment={"KUBERNETES_POD_NAMESPACE": "metadata.namespace"},
                        ports={"http": _DEX_PORT},
                        ready=Ready(port=_DEX_PORT, path="/dex/healthz"),
                        mounts=[config_map("dex", "/etc/dex"), temporary()],
                        go_memory_mebibytes=64,
                    )
                ],
            ),
            namespace,
            pulumi.ResourceOptions(parent=self, depends_on=known),
        )
        service(DEX, namespace, DEX, {"http": _DEX_PORT}, mine)
        allow(DEX, namespace, [([peer(namespace=GATEWAY, app="traefik"), peer(app=LOGIN_SERVICE)], [_DEX_PORT])], mine)
        routes.route("dex", namespace, "PathPrefix(`/dex/`)", [], Target(service=DEX, port=_DEX_PORT), self)

    def _sessions(
        self,
        settings: PlatformSettings,
        namespace: pulumi.Output[str],
        client: pulumi.Output[str],
        cookie: pulumi.Output[str],
        identity_header: pulumi.Output[str],
        routes: Routes,
        mine: pulumi.ResourceOptions,
    ) -> None:
        options = _session_options(settings)
        # In a Secret: the identity header's name is one.
        providers = identity_header.apply(_providers)
        secrets("oauth2-proxy-providers", namespace, {"providers.yaml": providers}, mine)
        configuration("oauth2-proxy", namespace, {"options.cfg": options}, mine)
        deployment(
            Pod(
                app=LOGIN_SERVICE,
                restart_on=[options, providers, client, cookie],
                containers=[
                    Container(
                        name=LOGIN_SERVICE,
                        program=settings.program("oauth2-proxy"),
                        arguments=[
                            "--config=/etc/oauth2-proxy/options.cfg",
                            "--alpha-config=/etc/oauth2-proxy-providers/providers.yaml",
                        ],
                        secret_environment={
                            "OAUTH2_PROXY_COOKIE_SECRET": SecretKey(of=_SECRETS, key="cookie"),
                            "CLIENT_SECRET": SecretKey(of=_SECRETS, key="client"),
                        },
                        ports={"http": LOGIN_PORT},
                        ready=Ready(port=LOGIN_PORT, path="/ping"),
                        mounts=[
                            config_map("oauth2-proxy", "/etc/oauth2-proxy"),
                            secret("oauth2-proxy-providers", "/etc/oauth2-proxy-providers"),
                        ],
                        go_memory_mebibytes=48,
                    )
                ],
            ),
            namespace,
            mine,
        )
        service(LOGIN_SERVICE, namespace, LOGIN_SERVICE, {"http": LOGIN_PORT}, mine)
        allow(LOGIN_SERVICE, namespace, [([peer(namespace=GATEWAY, app="traefik")], [LOGIN_PORT])], mine)
        routes.route(
            "oauth2", namespace, "PathPrefix(`/oauth2/`)", [], Target(service=LOGIN_SERVICE, port=LOGIN_PORT), self
        )


def _session_options(settings: PlatformSettings) -> str:
    # Paths of the API answer 401, for programs; pages redirect to the login.
    options: dict[str, object] = {
        "cookie_name": SESSION_COOKIE,
        "cookie_expire": f"{settings.session_hours}h",
        "cookie_secure": True,
        "cookie_httponly": True,
        "cookie_samesite": "lax",
        "email_domains": ["*"],
        "redirect_url": _CALLBACK,
        "relative_redirect_url": True,
        "reverse_proxy": True,
        "trusted_proxy_ips": [str(settings.pods)],
        "skip_provider_button": True,
        "api_routes": ["^/apis/", "^/pipeline/apis/"],
        "silence_ping_logging": True,
        "request_logging": False,
    }
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in options.items())


def _providers(identity_header: str) -> str:
    """oauth2-proxy's alpha configuration. The secret comes from its environment."""
    provider = {
        "id": "dex",
        "provider": "oidc",
        "clientID": _CLIENT,
        "clientSecret": "${CLIENT_SECRET}",
        "scope": "openid email profile groups",
        "loginURL": "/dex/auth",
        "redeemURL": f"{_DEX_ADDRESS}/token",
        "oidcConfig": {
            "issuerURL": _DEX_ADDRESS,
            "skipDiscovery": True,
            "jwksURL": f"{_DEX_ADDRESS}/keys",
            "emailClaim": "email",
            "groupsClaim": "groups",
            "userIDClaim": "email",
            "audienceClaims": ["aud"],
            "insecureSkipNonce": False,
        },
    }
    claims = {USER_HEADER: "email", identity_header: "email", GROUPS_HEADER: "groups"}
    return json.dumps(
        {
            "server": {"bindAddress": f"0.0.0.0:{LOGIN_PORT}"},
            "providers": [provider],
            "upstreamConfig": {"upstreams": [{"id": "gateway", "path": "/", "static": True, "staticCode": 202}]},
            "injectResponseHeaders": [
                {"name": header, "values": [{"claimSource": {"claim": claim}}]} for header, claim in claims.items()
            ],
        }
    )
