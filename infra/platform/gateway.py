"""The one door: Traefik with TLS on the gateway's address, and the page that is seen first after login."""

from pathlib import Path

import pulumi

from infra.platform.generated import Certificate
from infra.platform.network_policy import allow, peer
from infra.platform.rights import READ, Rule, account
from infra.platform.routes import ENTRY_POINT, STRIP_COOKIES, Routes, Target
from infra.platform.settings import GATEWAY, PlatformSettings
from infra.platform.workload import (
    Container,
    Pod,
    Ready,
    config_map,
    configuration,
    deployment,
    load_balancer,
    secrets,
    service,
    temporary,
)

APP = "traefik"
_PING_PORT = 8082
_PAGE_PORT = 8080
_HOME = "/srv/traefik"
_PLUGIN = Path(__file__).with_name("strip_cookies.go")
_PLUGIN_MANIFEST = f"""displayName: Strip cookies
type: middleware
import: {STRIP_COOKIES}
summary: Takes cookies out of requests before a backend sees them.
testData:
  prefixes: [session]
"""
_PAGE = Path(__file__).with_name("landing.html")


class Gateway(pulumi.ComponentResource):
    """Traefik, its certificate and the landing page. `ca_certificate` is what clients have to trust, in PEM."""

    ca_certificate: pulumi.Output[str]

    def __init__(
        self,
        name: str,
        settings: PlatformSettings,
        namespace: pulumi.Output[str],
        routes: Routes,
        opts: pulumi.ResourceOptions,
    ) -> None:
        super().__init__("classroom:platform:Gateway", name, None, opts)
        mine = pulumi.ResourceOptions(parent=self)
        in_cluster = [f"{APP}.{GATEWAY}{domain}" for domain in ("", ".svc", ".svc.cluster.local")]
        certificate = Certificate(
            "certificate",
            mine,
            hosts=[str(settings.gateway_address), *settings.gateway_names, *in_cluster, "localhost"],
        )
        self.ca_certificate = certificate.ca_certificate
        secrets(
            "gateway-certificate", namespace, {"tls.crt": certificate.certificate, "tls.key": certificate.key}, mine
        )
        routes.default_certificate(namespace, "gateway-certificate", self)
        self._traefik(settings, namespace, routes, mine)
        self._landing_page(settings, namespace, routes, mine)
        self.register_outputs({"ca_certificate": self.ca_certificate})

    def _traefik(
        self, settings: PlatformSettings, namespace: pulumi.Output[str], routes: Routes, mine: pulumi.ResourceOptions
    ) -> None:
        rules = (
            Rule(group="", resources=("services", "secrets", "nodes", "configmaps"), verbs=READ),
            Rule(group="discovery.k8s.io", resources=("endpointslices",), verbs=("list", "watch")),
            Rule(group="traefik.io", resources=("*",), verbs=READ),
        )
        who = account(APP, namespace, mine, everywhere=rules)
        plugin = {f"{STRIP_COOKIES}.go": _PLUGIN.read_text(), "traefik.yml": _PLUGIN_MANIFEST}
        configuration("traefik-plugin", namespace, plugin, mine)
        folder = f"{_HOME}/plugins-local/src/{STRIP_COOKIES}"
        deployment(
            Pod(
                app=APP,
                account=who,
                restart_on=list(plugin.values()),
                low_ports=True,
                containers=[
                    Container(
                        name=APP,
                        program=settings.program("traefik"),
                        arguments=_traefik_arguments(),
                        ports={"http": 80, "https": 443},
                        ready=Ready(port=_PING_PORT, path="/ping"),
                        mounts=[
                            config_map("traefik-plugin", f"{folder}/{STRIP_COOKIES}.go", f"{STRIP_COOKIES}.go"),
                            config_map("traefik-plugin", f"{folder}/.traefik.yml", "traefik.yml"),
                            temporary(),
                        ],
                        directory=_HOME,
                        millicores=20,
                        memory_mebibytes=128,
                        go_memory_mebibytes=160,
                    )
                ],
            ),
            namespace,
            pulumi.ResourceOptions(parent=self, depends_on=routes.definitions),
        )
        load_balancer(APP, namespace, APP, {"https": 443, "http": 80}, str(settings.gateway_address), mine)
        allow(APP, namespace, [([], [443, 80])], mine)

    def _landing_page(
        self, settings: PlatformSettings, namespace: pulumi.Output[str], routes: Routes, mine: pulumi.ResourceOptions
    ) -> None:
        page = _PAGE.read_text()
        configuration("landing-page", namespace, {"index.html": page}, mine)
        deployment(
            Pod(
                app="landing-page",
                containers=[
                    Container(
                        name="httpd",
                        program=settings.program("busybox", "busybox"),
                        arguments=["httpd", "-f", "-p", str(_PAGE_PORT), "-h", "/srv/page"],
                        ready=Ready(port=_PAGE_PORT, path="/"),
                        mounts=[config_map("landing-page", "/srv/page")],
                        millicores=5,
                        memory_mebibytes=8,
                    )
                ],
            ),
            namespace,
            mine,
        )
        service("landing-page", namespace, "landing-page", {"http": _PAGE_PORT}, mine)
        allow("landing-page", namespace, [([peer(app=APP)], [_PAGE_PORT])], mine)
        login = routes.login("landing-page-login", namespace, self)
        strip = routes.strip_session("landing-page-strip-session", namespace, self)
        # Everything that no other route has: an unknown path is nobody's business without login either.
        target = Target(service="landing-page", port=_PAGE_PORT)
        routes.route("landing-page", namespace, "PathPrefix(`/`)", [login, strip], target, self, priority=1)


def _traefik_arguments() -> list[str]:
    entry = f"--entrypoints.{ENTRY_POINT}"
    return [
        "--global.checknewversion=false",
        "--global.sendanonymoususage=false",
        "--log.level=WARN",
        f"--entrypoints.ping.address=:{_PING_PORT}",
        "--ping=true",
        "--ping.entrypoint=ping",
        "--entrypoints.web.address=:80",
        "--entrypoints.web.http.redirections.entrypoint.to=:443",
        "--entrypoints.web.http.redirections.entrypoint.scheme=https",
        f"{entry}.address=:443",
        f"{entry}.http.tls=true",
        # A header like kubeflow_userid would be the same as kubeflow-userid to some backends.
        f"{entry}.http.aliasheadersstrategy=delete",
        # Uploads and notebooks' answers may take as long as they like.
        f"{entry}.transport.respondingtimeouts.readtimeout=0s",
        "--providers.kubernetescrd=true",
        "--providers.kubernetescrd.allowcrossnamespace=false",
        "--providers.kubernetescrd.allowexternalnameservices=false",
        # A service whose pods restart answers 503, which clients wait on; left out it would be the landing page's 404.
        "--providers.kubernetescrd.allowemptyservices=true",
        f"--experimental.localplugins.{STRIP_COOKIES}.modulename={STRIP_COOKIES}",
    ]
