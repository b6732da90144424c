"""Object stores: what a seat holds in one, and the one interface that every kind of store keeps.

    given                   buckets and keys that somebody else has made
    owned                   those that this program makes and removes, in an order that no crash spoils
      iam  seaweedfs  aws   whose users, policies and keys are IAM's
      minio                 whose are MinIO's own
    s3                      what all of them speak

A kind is the module of its name, with one function, `connect`; `platform.object_store.kind` names it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from infra import naming
from infra.failure import Failure
from infra.spec import BucketSpec, Platform


class ObjectStoreUnreachable(Failure):
    """The object store gave no answer, so nothing can be said about what is in it."""

    exit_code = 3


class ForeignBucket(Failure):
    """A bucket or user of the seat's name exists that this program did not make."""


@dataclass(frozen=True, kw_only=True)
class Key:
    """A key to the object store. Its text form hides the secret."""

    access_key: str
    secret_key: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class StoreAddress:
    """Which object store it is, where, and where the key comes from that it is asked with. No secret is in it.

    `keys_file`: for `given`, the file with the students' keys; of the others seaweedfs and minio read the operator's
    key from a Secret, and aws asks boto3.
    """

    endpoint: str
    region: str
    kubeconfig: str
    namespace: str
    secret: str
    access_key_field: str
    secret_key_field: str
    # Pulumi drops what is None on the way to the provider.
    context: str | None = None
    # What an older state does not tell.
    kind: str = "seaweedfs"
    keys_file: str = ""

    @classmethod
    def of(cls, platform: Platform) -> "StoreAddress":
        """The object store of a platform."""
        store = platform.object_store
        return cls(
            kind=store.kind,
            endpoint=store.endpoint,
            region=store.region,
            kubeconfig=str(platform.kubeconfig),
            context=platform.context,
            namespace=platform.kubeflow_namespace,
            secret=store.secret,
            access_key_field=store.access_key_field,
            secret_key_field=store.secret_key_field,
            keys_file=str(store.keys_file or ""),
        )

    def holding(self, class_name: str, student: str) -> "Holding":
        """What the seat of a student has here, by name; nobody is asked.

        Errors: `infra.stores.given.KeysFileMistake`, where buckets are given.
        """
        if self.kind != "given":
            return Holding.of(class_name, student)
        from infra.stores import given

        return given.holding(Path(self.keys_file), class_name, student)

    def operator_key(self) -> Key:
        """The operator's key, read from the cluster just now: it is in no file and in no state.

        Errors: `infra.cluster.ClusterUnreachable` when it cannot be read.
        """
        # The Kubernetes client takes a second to import; a unit test or a preview never gets here.
        from infra import cluster

        with cluster.api(Path(self.kubeconfig), self.context) as api:
            fields = cluster.secret(api, self.namespace, self.secret)
        try:
            return Key(access_key=fields[self.access_key_field], secret_key=fields[self.secret_key_field])
        except KeyError as error:
            raise cluster.ClusterUnreachable(
                f"Secret {self.secret} in namespace {self.namespace} has no field {error}; "
                "name its fields under `object_store` in the class file"
            ) from None


@dataclass(frozen=True, kw_only=True)
class Holding:
    """One seat's things in the object store, by name."""

    class_name: str
    student: str
    bucket: str
    user: str

    @classmethod
    def of(cls, class_name: str, student: str) -> "Holding":
        """The names that this program gives to what it makes."""
        bucket, user = naming.bucket(class_name, student), naming.bucket_user(class_name, student)
        return cls(class_name=class_name, student=student, bucket=bucket, user=user)

    @property
    def policy(self) -> str:
        """The policy that lets the user into the bucket."""
        return naming.bucket_policy(self.class_name, self.student)

    @property
    def tags(self) -> dict[str, str]:
        """The tags of the bucket."""
        return naming.labels(self.class_name, self.student)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a bucket is: where it lies ("" for the store's own region), and what becomes of its objects.

    `lifecycle_days`: after so many days objects, older versions and unfinished uploads go; 0 is never.
    """

    region: str = ""
    versioning: bool = False
    lifecycle_days: int = 0

    @classmethod
    def of(cls, spec: BucketSpec) -> "Settings":
        """The settings that a class file asks for."""
        return cls(region=spec.region or "", versioning=spec.versioning, lifecycle_days=spec.lifecycle_days or 0)


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What stands under a seat's names in the object store.

    `ours`: none of it is somebody else's. `tagged`: the bucket has the seat's tags. `attached`: the user has the
    policy. `opens_only`: it names this bucket and nothing else. `access_keys`: the public halves of the user's keys.
    """

    ours: bool
    bucket: bool = False
    tagged: bool = False
    user: bool = False
    policy: bool = False
    opens_only: bool = False
    attached: bool = False
    access_keys: tuple[str, ...] = ()

    @property
    def confined(self) -> bool:
        """Whether the student is let into this bucket and no other."""
        return self.opens_only and self.attached


class Store(Protocol):
    """An object store as this program works with it. Every method may raise `ObjectStoreUnreachable`."""

    @property
    def endpoint(self) -> str:
        """Where it is, for a person to read."""
        ...

    @property
    def leaves(self) -> str:
        """Why buckets and keys are left when a class goes, in words; empty where they are this program's and go too."""
        ...

    def s3(self, holding: Holding) -> Any:
        """An S3 client (boto3) for the seat's bucket: the operator's, or the student's where there is no operator."""
        ...

    def opened_with(self, key: Key) -> Any:
        """An S3 client (boto3) with a key of somebody's; nothing is asked yet."""
        ...

    def standing(self, holding: Holding) -> Standing:
        """Look what stands of a seat."""
        ...

    def ensure(self, holding: Holding, key: Key | None = None, region: str = "") -> Key:
        """Make bucket and key stand, whatever of them stands already; a `key` that still works is kept.

        A bucket that is made lies in `region`, "" for the store's own.

        Errors: `ForeignBucket` when the names are somebody else's.
        """
        ...

    def keeps(self, holding: Holding, key: Key) -> bool:
        """Whether `key` is the seat's, as far as can be seen, and the user has no other."""
        ...

    def switch_keys(self, holding: Holding, *, active: bool) -> None:
        """Let the seat's keys open nothing until they are switched on again. Not for a store that `leaves` them."""
        ...

    def remove(self, holding: Holding) -> None:
        """Take away the seat's bucket with all that is in it, its user and keys; what is gone already is fine.

        Errors: `ForeignBucket` when they are somebody else's.
        """
        ...

    def holdings(self, class_name: str, students: Iterable[str] = ()) -> list[Holding]:
        """Every seat of a class that may hold something here that is this program's, found without any state: those of
        `students`, and those that are told by what stands."""
        ...


@lru_cache(maxsize=4)
def connect(address: StoreAddress) -> Store:
    """The object store at `address`, with the key that it is asked with read just now.

    Errors: `infra.cluster.ClusterUnreachable` when that key cannot be read, `ObjectStoreUnreachable`,
    `infra.stores.given.KeysFileMistake`.
    """
    adapter = import_module(f"{__name__}.{address.kind}")
    made: Store = adapter.connect(address)
    return made
