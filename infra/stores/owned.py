"""Buckets that this program makes: each with a user, a policy that opens that bucket alone, and a key.

A bucket counts as ours when the policy of its seat stands for just this bucket, or when it has our tags, which no
student's key may write. The policy is the first thing that is made and the last that goes, so no crash leaves anything
of ours behind unrecognised. Whatever has a seat's name without either belongs to somebody else and is refused.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from infra import naming
from infra.stores import ForeignBucket, Holding, Key, Standing, s3

# SeaweedFS knows no wildcards here, nor the names of the multipart listing.
_BUCKET_ACTIONS: Final = ("s3:ListBucket", "s3:GetBucketLocation")
_OBJECT_ACTIONS: Final = ("s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload")

Policy = dict[str, Any]
"""A policy document, as AWS defines it."""


def policy(bucket: str) -> Policy:
    """The policy of a student's key: the objects of one bucket, and nothing else."""
    return {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": list(_BUCKET_ACTIONS), "Resource": [f"arn:aws:s3:::{bucket}"]},
            {"Effect": "Allow", "Action": list(_OBJECT_ACTIONS), "Resource": [f"arn:aws:s3:::{bucket}/*"]},
        ],
    }


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What stands of a seat's user. `policy`: the document of the policy of the seat's name, attached or not."""

    user: bool
    policy: Policy | None
    attached: bool
    access_keys: tuple[str, ...]


class Identities(Protocol):
    """Users, policies and keys of a store, as its operator. Every method may raise `ObjectStoreUnreachable`.

    What is made is not there yet, and what is removed is there; but what is gone meanwhile is fine.
    """

    def found(self, holding: Holding) -> Identity:
        """Look what stands of a seat."""
        ...

    def policies(self) -> Iterable[str]:
        """The names of all policies of seats, of whatever class."""
        ...

    def add_policy(self, holding: Holding) -> None: ...

    def add_user(self, holding: Holding) -> None: ...

    def attach(self, holding: Holding) -> None: ...

    def detach(self, holding: Holding) -> None:
        """From here on none of the user's keys opens anything."""
        ...

    def only_key(self, holding: Holding, key: Key | None) -> Key:
        """The one key that the user is left with: `key` where it is the user's, else a new one."""
        ...

    def keeps(self, holding: Holding, key: Key) -> bool:
        """Whether `key` is the user's only one."""
        ...

    def switch_keys(self, holding: Holding, *, active: bool) -> None: ...

    def remove_user(self, holding: Holding) -> None:
        """The user and all of its keys."""
        ...

    def remove_policy(self, holding: Holding) -> None:
        """A policy that is attached to nobody."""
        ...


@dataclass(frozen=True, kw_only=True)
class OwnedBuckets:
    """A store in which this program makes buckets.

    `clients`: its S3 client for a region, "" for the store's own, which is `home` where its name has to be told.
    `opens`: an S3 client with a key. `taken`: what to do where a seat's name is somebody else's.
    """

    identities: Identities
    clients: Callable[[str], Any]
    opens: Callable[[Key], Any]
    home: str = ""
    taken: str = "give the class another `name`, or remove what has it by hand"
    leaves: str = ""

    @property
    def endpoint(self) -> str:
        return str(self.clients("").meta.endpoint_url)

    def s3(self, holding: Holding) -> Any:  # noqa: ARG002  the operator's key opens every bucket
        return self.clients("")

    def opened_with(self, key: Key) -> Any:
        return self.opens(key)

    def standing(self, holding: Holding) -> Standing:
        identity = self.identities.found(holding)
        bucket, tags = s3.look(self.s3(holding), holding.bucket)
        tagged = tags == holding.tags
        has_policy = identity.policy is not None
        opens_only = identity.policy is not None and _opens_only(identity.policy, holding.bucket)
        made_here = tagged or opens_only if bucket else not identity.user or has_policy or not identity.access_keys
        return Standing(
            ours=made_here,
            bucket=bucket,
            tagged=tagged,
            user=identity.user,
            policy=has_policy,
            opens_only=opens_only,
            attached=identity.attached,
            access_keys=identity.access_keys,
        )

    def ensure(self, holding: Holding, key: Key | None = None, region: str = "") -> Key:
        found = self._ours(holding, self.taken)
        attached = found.attached
        if found.policy and not found.opens_only:
            if attached:
                self.identities.detach(holding)
            self.identities.remove_policy(holding)
            attached = False
        # The policy comes before all else: it is what says later on that the rest is ours.
        if not found.opens_only:
            self.identities.add_policy(holding)
        if not found.user:
            self.identities.add_user(holding)
        if not attached:
            self.identities.attach(holding)
        if not found.bucket:
            s3.create(self.clients(region), holding.bucket, region or self.home)
        if not found.tagged:
            s3.tag(self.clients(region), holding.bucket, holding.tags)
        return self.identities.only_key(holding, key)

    def keeps(self, holding: Holding, key: Key) -> bool:
        return self.identities.keeps(holding, key)

    def switch_keys(self, holding: Holding, *, active: bool) -> None:
        self.identities.switch_keys(holding, active=active)

    def remove(self, holding: Holding) -> None:
        found = self._ours(holding, "it is left alone; remove it by hand if it should go")
        if found.attached:
            # So that nobody writes into the bucket while it is emptied.
            self.identities.detach(holding)
        if found.bucket:
            s3.remove(self.s3(holding), holding.bucket)
        if found.user:
            self.identities.remove_user(holding)
        if found.policy:
            self.identities.remove_policy(holding)

    def holdings(self, class_name: str, students: Iterable[str] = ()) -> list[Holding]:
        seats = [naming.seat_of_policy(name) for name in self.identities.policies()]
        told = [seat[1] for seat in seats if seat and seat[0] == class_name]
        for tags in s3.tagged(self.clients(""), naming.namespace_heads(class_name)):
            student = tags.get("student", "")
            if student and tags == naming.labels(class_name, student):
                told.append(student)
        return [Holding.of(class_name, student) for student in dict.fromkeys((*students, *told))]

    def _ours(self, holding: Holding, mend: str) -> Standing:
        """What stands of a seat. Errors: `ForeignBucket`, which ends with `mend`."""
        found = self.standing(holding)
        if not found.ours:
            what = f"bucket {holding.bucket}" if found.bucket else f"user {holding.user}"
            raise ForeignBucket(f"{what} at {self.endpoint} was not made for this class; {mend}")
        return found


def _opens_only(document: Policy, bucket: str) -> bool:
    """Whether a policy, in whatever form the store gives it back, names the objects of one bucket and nothing else."""
    resources: set[str] = set()
    for statement in document.get("Statement", []):
        named = statement.get("Resource") or []
        resources |= {named} if isinstance(named, str) else set(named)
    return bool(resources) and resources <= {f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"}


def text(document: Policy) -> str:
    """A policy as the store is sent it: always the same for the same."""
    return json.dumps(document, sort_keys=True)
