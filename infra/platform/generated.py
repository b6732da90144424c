"""Secrets and certificates that are made once, stay the same from then on, and lie in Pulumi's state encrypted.

They are dynamic resources: Pulumi keeps what their provider returned, and the provider class is found again by import
(the process that serves it needs the repository on PYTHONPATH).
"""

import ipaddress
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pulumi
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from pulumi.dynamic import CreateResult, DiffResult, Resource, ResourceProvider, UpdateResult

Properties = dict[str, Any]  # what Pulumi passes to and keeps for a dynamic resource

CA_DAYS = 3650
CERTIFICATE_DAYS = 397
RENEW_DAYS = 30
"""A certificate with less than this left is replaced at the next `up`."""


class _TokenProvider(ResourceProvider):
    def create(self, props: Properties) -> CreateResult:
        return CreateResult(id_=secrets.token_hex(8), outs={**props, "value": secrets.token_hex(int(props["bytes"]))})

    def diff(self, _id: str, _olds: Properties, _news: Properties) -> DiffResult:
        changed = _olds.get("bytes") != _news.get("bytes")
        return DiffResult(changes=changed, replaces=["bytes"] if changed else [])


class Token(Resource, module="classroom", name="Token"):
    """A random secret of `size` bytes, in hexadecimal."""

    value: pulumi.Output[str]

    def __init__(self, name: str, opts: pulumi.ResourceOptions, *, size: int = 16) -> None:
        secret = pulumi.ResourceOptions(additional_secret_outputs=["value"])
        super().__init__(
            _TokenProvider(), name, {"bytes": size, "value": None}, pulumi.ResourceOptions.merge(opts, secret)
        )


class _CertificateProvider(ResourceProvider):
    def create(self, props: Properties) -> CreateResult:
        ca_key, ca = _authority()
        return CreateResult(id_=secrets.token_hex(8), outs=_signed(cast(list[str], props["hosts"]), ca_key, ca))

    def diff(self, _id: str, _olds: Properties, _news: Properties) -> DiffResult:
        ends = x509.load_pem_x509_certificate(_olds["certificate"].encode()).not_valid_after_utc
        stale = ends - datetime.now(UTC) < timedelta(days=RENEW_DAYS)
        return DiffResult(changes=stale or _olds.get("hosts") != _news.get("hosts"))

    def update(self, _id: str, _olds: Properties, _news: Properties) -> UpdateResult:
        ca_key = serialization.load_pem_private_key(_olds["ca_key"].encode(), None)
        ca = x509.load_pem_x509_certificate(_olds["ca_certificate"].encode())
        return UpdateResult(outs=_signed(cast(list[str], _news["hosts"]), cast(ec.EllipticCurvePrivateKey, ca_key), ca))


class Certificate(Resource, module="classroom", name="Certificate"):
    """A TLS server certificate for `hosts` (names and addresses), signed by an authority of its own.

    The authority is made once and kept: who trusts `ca_certificate` goes on trusting the platform when the server's
    certificate is renewed or its names change.
    """

    ca_certificate: pulumi.Output[str]
    certificate: pulumi.Output[str]
    key: pulumi.Output[str]

    def __init__(self, name: str, opts: pulumi.ResourceOptions, *, hosts: Sequence[str]) -> None:
        properties: Properties = {
            "hosts": list(hosts),
            "ca_certificate": None,
            "ca_key": None,
            "certificate": None,
            "key": None,
        }
        secret = pulumi.ResourceOptions(additional_secret_outputs=["ca_key", "key"])
        super().__init__(_CertificateProvider(), name, properties, pulumi.ResourceOptions.merge(opts, secret))


def _authority() -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Kubeflow classroom")])
    usage = x509.KeyUsage(
        key_cert_sign=True,
        crl_sign=True,
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    unsigned = (
        _certificate(name, name, key.public_key(), CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return key, unsigned.sign(key, hashes.SHA256())


def _signed(hosts: list[str], ca_key: ec.EllipticCurvePrivateKey, ca: x509.Certificate) -> Properties:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Kubeflow gateway")])
    unsigned = (
        _certificate(name, ca.subject, key.public_key(), CERTIFICATE_DAYS)
        .add_extension(x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
    )
    certificate = unsigned.sign(ca_key, hashes.SHA256())
    return {
        "hosts": hosts,
        "ca_certificate": _pem(ca),
        "ca_key": _key_pem(ca_key),
        "certificate": _pem(certificate),
        "key": _key_pem(key),
    }


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        # An hour back: a machine whose clock is a little behind shall trust it too.
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=days))
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    no_password = serialization.NoEncryption()  # Pulumi encrypts it in its state, Kubernetes keeps it in a Secret
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, no_password).decode()
