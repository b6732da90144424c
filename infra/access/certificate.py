"""The certificate for the host name of a class: a Secret in the gateway's namespace, wherever it comes from."""

import base64
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pulumi
import pulumi_kubernetes as k8s
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pulumi.dynamic import CreateResult, DiffResult, Resource, ResourceProvider

from infra import naming
from infra.failure import CallFailure
from infra.spec import Tls

# Browsers refuse a certificate that is longer valid.
_CERTIFICATE_DAYS: Final = 397
_RENEW_DAYS: Final = 30
_ISSUED_WITHIN_SECONDS: Final = 300


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
class CertificateArgs:
    """For which class and host, where it comes from, and in which namespace the gateway looks for it."""

    class_name: str
    host: str
    tls: Tls
    namespace: str

    @property
    def secret(self) -> str:
        """The name of the Secret that holds it."""
        return self.tls.secret or naming.at_gateway(self.class_name)

    def metadata(self, annotations: dict[str, str] | None = None) -> k8s.meta.v1.ObjectMetaArgs:
        """Of an object of the class in the gateway's namespace."""
        return k8s.meta.v1.ObjectMetaArgs(
            name=naming.at_gateway(self.class_name),
            namespace=self.namespace,
            labels=naming.labels(self.class_name),
            annotations={**naming.ADOPTING, **(annotations or {})},
        )


def certificate(name: str, args: CertificateArgs, opts: pulumi.ResourceOptions) -> tuple[str, list[pulumi.Resource]]:
    """The name of the Secret that holds the certificate, and what has to stand before it is there."""
    tls, called = args.tls, args.secret
    if tls.kind == "secret":
        return called, []
    if tls.kind == "cert-manager":
        issued = k8s.apiextensions.CustomResource(
            f"{name}-certificate",
            api_version="cert-manager.io/v1",
            kind="Certificate",
            metadata=args.metadata(
                {
                    "pulumi.com/waitFor": "condition=Ready",
                    "pulumi.com/timeoutSeconds": str(_ISSUED_WITHIN_SECONDS),
                }
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
        chain: pulumi.Input[str] = read(tls.certificate_file or Path(), "access.tls.certificate_file")
        key: pulumi.Input[str] = read(tls.key_file or Path(), "access.tls.key_file")
    else:
        made = SelfSigned(f"{name}-self-signed", host=args.host, opts=opts)
        chain, key = made.certificate, made.key
    held = k8s.core.v1.Secret(
        f"{name}-certificate",
        metadata=args.metadata(),
        type="kubernetes.io/tls",
        data={
            "tls.crt": pulumi.Output.from_input(chain).apply(_base64),
            "tls.key": pulumi.Output.secret(key).apply(_base64),
        },
        opts=opts,
    )
    return called, [held]


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
