"""Names of what a class owns.

Promise: a name is always valid where it is used; two different inputs never share one; and a name depends on its own
inputs alone, so that it stays the same when the roster around it changes.

How: within `<class>-<student>` the dashes of the class are doubled, so the first single dash tells the two apart
(`ml-2` and `anna` → `ml--2-anna`, but `ml` and `2-anna` → `ml-2-anna`). What does not fit that form, because it is too
long, holds other characters or would be mistaken for a name that belongs to somebody else, becomes a readable head,
three dashes and a digest; no name of the first form holds three dashes.
"""

import base64
import hashlib
import json
import re
from typing import Final

LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
"""A DNS label (RFC 1123) but for its length, which is at most 63."""

LABEL_MAX: Final = 63
MANAGED_BY: Final = "kubeflow-classroom"
_BUCKET_USER_HEAD: Final = "classroom."
_BUCKET_USER_MAX: Final = 64
# No class and no student holds an underscore, and no store minds one in a policy's name (SeaweedFS minds a dot).
_BUCKET_POLICY_HEAD: Final = "classroom_"

ADOPTING: Final = {"pulumi.com/patchForce": "true", "pulumi.com/patchFieldManager": MANAGED_BY}
"""Annotations that let Pulumi take over an object of ours that no state knows, whatever it holds."""

_DIGEST_CHARACTERS = 16
_FNV64_OFFSET: Final = bytes.fromhex("cbf29ce484222325")
# Kubernetes keeps `kube-` for itself, S3 keeps the others; the last group are namespaces that come with a Kubeflow.
_RESERVED_HEADS: Final = ("kube-", "kubeflow-", "istio-", "knative-", "openshift-", "xn--", "sthree-", "amzn-")
_RESERVED_TAILS: Final = ("-s3alias", "--ol-s3", "--x-s3", "--table-s3", "-an")
_RESERVED_NAMES: Final = frozenset({"cert-manager", "local-path-storage", "metallb-system", "oauth2-proxy"})


def namespace(class_name: str, student: str) -> str:
    """The namespace of a seat: a DNS label of at most 63 characters."""
    return _joined(class_name, student)


def bucket(class_name: str, student: str) -> str:
    """The bucket of a seat: 3 to 63 characters that are valid for S3, AWS's reserved heads and tails avoided."""
    return _joined(class_name, student)


def bucket_user(class_name: str, student: str) -> str:
    """The object store's user whose key opens the seat's bucket, of at most 64 characters, as IAM has it; nobody else
    makes users of this name."""
    return f"{_BUCKET_USER_HEAD}{_joined(class_name, student, _BUCKET_USER_MAX - len(_BUCKET_USER_HEAD))}"


def bucket_policy(class_name: str, student: str) -> str:
    """The policy of that user. It spells out the seat, which the user's name may hold as a digest."""
    return f"{_BUCKET_POLICY_HEAD}{class_name}_{student}"


def seat_of_policy(policy: str) -> tuple[str, str] | None:
    """Class and student that `bucket_policy` was made of; None for a policy that it did not make."""
    parts = policy.removeprefix(_BUCKET_POLICY_HEAD).split("_")
    return (parts[0], parts[1]) if policy.startswith(_BUCKET_POLICY_HEAD) and len(parts) == 2 and all(parts) else None


def namespace_heads(class_name: str) -> tuple[str, str]:
    """What the namespaces and the buckets of a class begin with, one or the other; another's may as well.

    `class_name`: a DNS label.
    """
    return f"{class_name.replace('-', '--')}-", f"{_head(_fitting(class_name), LABEL_MAX)}-"


def at_gateway(class_name: str) -> str:
    """What a class itself has in the gateway's namespace is called so."""
    return f"classroom-{class_name}"


def workspace_volume(notebook: str) -> str:
    """The claim of a notebook's workspace, named as Kubeflow's own spawner does."""
    return f"{notebook}-volume"


def dex_password_name(email: str) -> str:
    """The object name under which dex looks for a user of the password database.

    Source: dex storage/kubernetes/client.go, `idToName`: unpadded lower-case base32 of the e-mail's bytes followed by
    the offset basis of FNV-64 (dex means to hash, but appends); dex asks for the e-mail in lower case.
    """
    encoded = base64.b32encode(email.lower().encode() + _FNV64_OFFSET)
    return encoded.decode().rstrip("=").lower()


def labels(class_name: str, student: str = "") -> dict[str, str]:
    """The labels (and bucket tags) by which everything of a class is found again without any state."""
    of_student = {"student": student} if student else {}
    return {"classroom": class_name, **of_student, "app.kubernetes.io/managed-by": MANAGED_BY}


def selector(class_name: str, student: str = "") -> str:
    """The label selector that matches what `labels` marks."""
    return ",".join(f"{key}={value}" for key, value in labels(class_name, student).items())


def _joined(class_name: str, student: str, longest: int = LABEL_MAX) -> str:
    plain = f"{class_name.replace('-', '--')}-{student}"
    if (
        LABEL.fullmatch(class_name)
        and LABEL.fullmatch(student)
        and len(plain) <= longest
        and "---" not in plain
        and plain not in _RESERVED_NAMES
        and not plain.startswith(_RESERVED_HEADS)
        and not plain.endswith(_RESERVED_TAILS)
    ):
        return plain
    # JSON keeps the border between the two; the digest is over what was given, not over what is left of it.
    digest = hashlib.sha256(json.dumps([class_name, student]).encode()).hexdigest()[:_DIGEST_CHARACTERS]
    return f"{_head(_fitting(plain), longest)}---{digest}"


def _fitting(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _head(fitting: str, longest: int) -> str:
    return f"class-{fitting}"[: longest - len("---") - _DIGEST_CHARACTERS].rstrip("-")
