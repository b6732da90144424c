"""The way from the gateway to a seat's notebooks, open to the seat's student alone; and the gateway's certificate for
the host name of a class.

The routes lie in the seat's namespace, where its student can read but not write them (Kubeflow's edit role holds no
Traefik objects). The certificate and its key lie in the gateway's namespace, where no student reads.
"""

import base64
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import pulumi
import pulumi_kubernetes as k8s
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pulumi.dynamic import CreateResult, DiffResult, Resource, ResourceProvider

from infra import naming, notebook
from infra.failure import CallFailure
from infra.spec import Platform, Tls

SESSION_COOKIE: Final = "oauth2_proxy_kubeflow"
_API_VERSION: Final = "traefik.io/v1alpha1"
_LOGIN, _STRIP = "login", "no-session"
# A plugin of the gateway: Traefik itself can take away all cookies of a request or none.
_STRIP_PLUGIN: Final = "stripcookies"
_MOST_ANSWER_BYTES: Final = 1 << 20
# Browsers refuse a certificate that is longer valid.
_CERTIFICATE_DAYS: Final = 397
_RENEW_DAYS: Final = 30
_ISSUED_WITHIN_SECONDS: Final = 300


@dataclass(frozen=True, kw_only=True)
class AccessArgs:
    """Whose notebooks are to be reached, and by whom. The routes go with `home`, the namespace or its profile."""

    namespace: str
    home: pulumi.Resource
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


class FileUnreadable(CallFailure):
    """A file that the class file names cannot be read."""


def read(file: Path, field: str) -> str:
    """The text of a file that the class file names under `field`. Errors: `FileUnreadable`."""
    try:
        return file.read_text()
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else "") or "it is no text"
        raise FileUnreadable(f"{file}: cannot be read ({reason}); mend `{field}` in the class file") from None


class _SelfSignedProvider(ResourceProvider):
    """A key and a certificate that it signs itself, kept in the state; another host name or age makes another."""

    serialize_as_secret_always = False

    def create(self, props: dict[str, Any]) -> CreateResult:
        key = ec.generate_private_key(ec.SECP256R1())
        host = str(props["host"])
        # A common name holds 64 characters at most; browsers look at the alternative name alone.
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host[:64])])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            # An hour back: a machine whose clock is a little behind shall trust it too.
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=_CERTIFICATE_DAYS))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
            .sign(key, hashes.SHA256())
        )
        no_password = serialization.NoEncryption()  # Pulumi encrypts it in its state, Kubernetes keeps it in a Secret
        outs = {
            "host": host,
            "certificate": certificate.public_bytes(serialization.Encoding.PEM).decode(),
            "key": key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, no_password
            ).decode(),
        }
        return CreateResult(id_=secrets.token_hex(8), outs=outs)

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> DiffResult:
        ends = x509.load_pem_x509_certificate(_olds["certificate"].encode()).not_valid_after_utc
        stale = ends - datetime.now(UTC) < timedelta(days=_RENEW_DAYS)
        changed = ["host"] if stale or _olds.get("host") != _news.get("host") else []
        return DiffResult(changes=bool(changed), replaces=changed)


class SelfSigned(Resource, module="classroom", name="SelfSigned"):
    """A certificate for `host` that no authority signed, in PEM, and its secret key."""

    certificate: pulumi.Output[str]
    key: pulumi.Output[str]

    def __init__(self, name: str, *, host: str, opts: pulumi.ResourceOptions) -> None:
        secret = pulumi.ResourceOptions(additional_secret_outputs=["key"])
        props = {"host": host, "certificate": None, "key": None}
        super().__init__(_SelfSignedProvider(), name, props, pulumi.ResourceOptions.merge(opts, secret))


@dataclass(frozen=True, kw_only=True)
class HostArgs:
    """The host name of a class, where its certificate comes from, and at which gateway."""

    class_name: str
    host: str
    tls: Tls
    platform: Platform


class Host(pulumi.ComponentResource):
    """The gateway shows a certificate for `host`. Routes need no change: those of Kubeflow answer to every name."""

    host: str

    def __init__(self, name: str, args: HostArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("classroom:index:Host", name, None, opts)
        mine = pulumi.ResourceOptions(parent=self)
        called = f"classroom-{args.class_name}"
        secret, needs = _certificate(name, called, args, mine)
        k8s.apiextensions.CustomResource(
            f"{name}-host",
            api_version=_API_VERSION,
            kind="IngressRoute",
            metadata=_at_gateway(args, called),
            # Traefik shows a certificate that any route names to everybody who asks for its host. This route is there
            # for that alone: it leads nowhere (noop@internal answers 418).
            spec={
                "entryPoints": ["websecure"],
                "routes": [
                    {
                        "kind": "Rule",
                        "match": f"Host(`{args.host}`) && Path(`/.well-known/{called}`)",
                        "services": [{"kind": "TraefikService", "name": "noop@internal"}],
                    }
                ],
                "tls": {"secretName": secret},
            },
            opts=pulumi.ResourceOptions(parent=self, depends_on=needs),
        )
        self.host = args.host
        self.register_outputs({"host": self.host})


def _at_gateway(args: HostArgs, name: str, annotations: dict[str, str] | None = None) -> k8s.meta.v1.ObjectMetaArgs:
    return k8s.meta.v1.ObjectMetaArgs(
        name=name,
        namespace=args.platform.gateway_namespace,
        labels=naming.labels(args.class_name),
        annotations={**naming.ADOPTING, **(annotations or {})},
    )


def _certificate(
    name: str, called: str, args: HostArgs, opts: pulumi.ResourceOptions
) -> tuple[str, list[pulumi.Resource]]:
    """The Secret that holds the certificate, and what has to stand before it is there."""
    tls = args.tls
    if tls.kind == "secret":
        return str(tls.secret), []
    if tls.kind == "cert-manager":
        issued = k8s.apiextensions.CustomResource(
            f"{name}-certificate",
            api_version="cert-manager.io/v1",
            kind="Certificate",
            metadata=_at_gateway(
                args,
                called,
                {
                    "pulumi.com/waitFor": "condition=Ready",
                    "pulumi.com/timeoutSeconds": str(_ISSUED_WITHIN_SECONDS),
                },
            ),
            spec={
                "secretName": called,
                # cert-manager leaves its Secret behind; by these labels `down` finds it.
                "secretTemplate": {"labels": naming.labels(args.class_name)},
                "dnsNames": [args.host],
                "issuerRef": {"group": "cert-manager.io", "kind": tls.issuer_kind, "name": tls.issuer},
            },
            opts=opts,
        )
        return called, [issued]
    if tls.kind == "files":
        certificate: pulumi.Input[str] = read(tls.certificate_file or Path(), "access.tls.certificate_file")
        key: pulumi.Input[str] = read(tls.key_file or Path(), "access.tls.key_file")
    else:
        made = SelfSigned(f"{name}-self-signed", host=args.host, opts=opts)
        certificate, key = made.certificate, made.key
    held = k8s.core.v1.Secret(
        f"{name}-certificate",
        metadata=_at_gateway(args, called),
        type="kubernetes.io/tls",
        data={
            "tls.crt": pulumi.Output.from_input(certificate).apply(_base64),
            "tls.key": pulumi.Output.secret(key).apply(_base64),
        },
        opts=opts,
    )
    return called, [held]


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
