"""A student's login: a generated password, and the dex user that has it.

dex takes a new, changed or deleted user of its password database at once (dex storage/kubernetes: objects
passwords.dex.coreos.com in its own namespace).
"""

import base64
import secrets
from dataclasses import dataclass
from typing import Any, Final

import bcrypt
import pulumi
from pulumi.dynamic import CreateResult, DiffResult, Resource, ResourceProvider

from infra import naming
from infra.spec import Platform, Student

_CONSONANTS: Final = "bdfghjklmnprstvz"
_VOWELS: Final = "aeiou"
_GROUPS, _SYLLABLES_PER_GROUP = 4, 3
PASSWORD_PATTERN: Final = "-".join([f"(?:[{_CONSONANTS}][{_VOWELS}]){{{_SYLLABLES_PER_GROUP}}}"] * _GROUPS)
"""What every generated password looks like, so that it can be blacked out wherever it might appear."""

PASSWORD_TYPE: Final = "pulumi-python:dynamic/classroom:Password"  # noqa: S105  # a type's name
"""What Pulumi calls the resource that holds one; replacing that resource makes another password."""

# dex refuses less than 10. A password of 75 random bits needs no more, and every further step doubles the time that a
# class needs to log in.
_BCRYPT_COST: Final = 10


def password() -> str:
    """A new password that a person can read aloud and type: four groups of three syllables, 75 random bits.

    80 syllables of a consonant and a vowel, twelve of them: 12 · log2(80) = 75.9.
    """
    groups = (
        "".join(secrets.choice(_CONSONANTS) + secrets.choice(_VOWELS) for _ in range(_SYLLABLES_PER_GROUP))
        for _ in range(_GROUPS)
    )
    return "-".join(groups)


class _PasswordProvider(ResourceProvider):
    """A password is made once and lives in the state alone, encrypted: there is nothing outside to read or delete."""

    serialize_as_secret_always = False

    def create(self, props: dict[str, Any]) -> CreateResult:
        made = password()
        # dex keeps the hash as bytes, which JSON carries in base64.
        hashed = bcrypt.hashpw(made.encode(), bcrypt.gensalt(_BCRYPT_COST))
        outs = {**props, "password": made, "hash": base64.b64encode(hashed).decode()}
        return CreateResult(id_=secrets.token_hex(8), outs=outs)

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> DiffResult:
        changed = [key for key in ("email", "edition") if _olds.get(key) != _news.get(key)]
        return DiffResult(changes=bool(changed), replaces=changed)


class Password(Resource, module="classroom", name="Password"):
    """A generated password and its bcrypt hash, both secret. Another `edition` makes another password."""

    password: pulumi.Output[str]
    hash: pulumi.Output[str]

    def __init__(self, name: str, *, email: str, edition: int = 1, opts: pulumi.ResourceOptions | None = None) -> None:
        props = {"email": email, "edition": edition, "password": None, "hash": None}
        opts = pulumi.ResourceOptions.merge(
            opts, pulumi.ResourceOptions(additional_secret_outputs=["password", "hash"], protect=False)
        )
        super().__init__(_PasswordProvider(), name, props, opts)


class DexPassword(pulumi.CustomResource):
    """A user of dex. Its fields lie beside `metadata`, where pulumi_kubernetes' own class has no room for them."""

    def __init__(self, name: str, *, props: dict[str, Any], opts: pulumi.ResourceOptions) -> None:
        body = {"apiVersion": "dex.coreos.com/v1", "kind": "Password", **props}
        super().__init__("kubernetes:dex.coreos.com/v1:Password", name, body, opts)


@dataclass(frozen=True, kw_only=True)
class IdentityArgs:
    """Whose login it is, and where."""

    class_name: str
    student: Student
    platform: Platform


class Identity(pulumi.ComponentResource):
    """The student can log in at the gateway with `email` and `password`."""

    email: str
    password: pulumi.Output[str]

    def __init__(self, name: str, args: IdentityArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("classroom:index:Identity", name, None, opts)
        student = args.student
        made = Password(f"{name}-password", email=student.email, opts=pulumi.ResourceOptions(parent=self))
        DexPassword(
            f"{name}-login",
            props={
                "metadata": {
                    "name": naming.dex_password_name(student.email),
                    "namespace": args.platform.dex_namespace,
                    "labels": naming.labels(args.class_name, student.id),
                    "annotations": naming.ADOPTING,
                },
                "email": student.email,
                "hash": pulumi.Output.secret(made.hash),
                "username": student.name or student.id,
                "userID": naming.namespace(args.class_name, student.id),
            },
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.email = student.email
        self.password = pulumi.Output.secret(made.password)
        self.register_outputs({"email": self.email, "password": self.password})
