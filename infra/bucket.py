"""A student's bucket, and a key that opens that bucket alone.

The object store speaks S3 and IAM at one address (SeaweedFS does). A bucket counts as ours when the IAM user of its
seat stands with our policy for just this bucket, which is written before the bucket is made, so that no crash leaves a
bucket of ours behind unrecognised; or when it carries our tags, which no student's key may write. A bucket of the same
name without either belongs to somebody else and is refused.

The operator's key is in no file and in no state: whoever needs it reads it from the platform's Secret while it runs.
"""

import fcntl
import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, Final

import boto3
import pulumi
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from pulumi.dynamic import CreateResult, DiffResult, ReadResult, Resource, ResourceProvider, UpdateResult

from infra import naming
from infra.failure import Failure
from infra.spec import BucketSpec, Platform

# SeaweedFS' inline policies take these and refuse wildcards and the names of the multipart listing.
_BUCKET_ACTIONS: Final = ("s3:ListBucket", "s3:GetBucketLocation")
_OBJECT_ACTIONS: Final = ("s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload")
_DELETE_AT_ONCE: Final = 1000
_GONE: Final = frozenset(
    {
        "404",
        "NoSuchBucket",
        "NoSuchEntity",
        "NoSuchTagSet",
        "NoSuchKey",
        "NoSuchUpload",
        "NoSuchLifecycleConfiguration",
    }
)
# The one region that S3 does not take as a LocationConstraint.
_UNNAMED_REGION: Final = "us-east-1"

IDENTITIES_LOCK: Final = "CLASSROOM_IDENTITIES_LOCK"
"""The environment variable with the path of a file that those processes lock who change identities side by side."""


class _Alone:
    """Held by one thread of one process at a time, of those that know the same lock file.

    SeaweedFS keeps all identities in one document, which two changes at once would overwrite. Each Pulumi stack has a
    process of its own for buckets, and several stacks run at once.
    """

    def __init__(self) -> None:
        self._threads = threading.Lock()
        self._file: IO[str] | None = None

    def __enter__(self) -> None:
        self._threads.acquire()
        if path := os.environ.get(IDENTITIES_LOCK):
            self._file = Path(path).open("a")
            fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            # Closing gives the lock back, as the end of the process does.
            self._file.close()
            self._file = None
        self._threads.release()


_identities = _Alone()


class ObjectStoreUnreachable(Failure):
    """The object store gave no answer, so nothing can be said about what is in it."""

    exit_code = 3


class BucketElsewhere(Failure):
    """A bucket stands in another region than the class file now asks for; buckets cannot be moved."""


class ForeignBucket(Failure):
    """A bucket or user of the seat's name exists that this program did not make."""


@dataclass(frozen=True, kw_only=True)
class StoreAddress:
    """Where the object store is, and which Secret holds the operator's key."""

    endpoint: str
    region: str
    kubeconfig: str
    namespace: str
    secret: str
    access_key_field: str
    secret_key_field: str
    # Pulumi drops what is None on the way to the provider.
    context: str | None = None

    @classmethod
    def of(cls, platform: Platform) -> "StoreAddress":
        """The object store of a platform."""
        store = platform.object_store
        return cls(
            endpoint=store.endpoint,
            region=store.region,
            kubeconfig=str(platform.kubeconfig),
            context=platform.context,
            namespace=platform.kubeflow_namespace,
            secret=store.secret,
            access_key_field=store.access_key_field,
            secret_key_field=store.secret_key_field,
        )


@dataclass(frozen=True, kw_only=True)
class Holding:
    """One seat's things in the object store, by name."""

    class_name: str
    student: str
    bucket: str
    user: str
    policy: str

    @classmethod
    def of(cls, class_name: str, student: str) -> "Holding":
        """The names that the seat of a student has in the object store."""
        return cls(
            class_name=class_name,
            student=student,
            bucket=naming.bucket(class_name, student),
            user=naming.bucket_user(class_name, student),
            policy=naming.bucket_policy(class_name, student),
        )


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
class Key:
    """A key to the object store. Its text form hides the secret."""

    access_key: str
    secret_key: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Store:
    """An object store that can be asked, as the operator."""

    endpoint: str
    s3: Any
    iam: Any


@lru_cache(maxsize=4)
def connect(address: StoreAddress) -> Store:
    """The object store at `address`, with the operator's key read from the cluster just now.

    Errors: `infra.cluster.ClusterUnreachable` when the key cannot be read.
    """
    # The Kubernetes client takes a second to import; a unit test or a preview never gets here.
    from infra import cluster

    with cluster.api(Path(address.kubeconfig), address.context) as api:
        fields = cluster.secret(api, address.namespace, address.secret)
    try:
        key = Key(access_key=fields[address.access_key_field], secret_key=fields[address.secret_key_field])
    except KeyError as error:
        raise cluster.ClusterUnreachable(
            f"Secret {address.secret} in namespace {address.namespace} has no field {error}; "
            "name its fields under `object_store` in the class file"
        ) from None
    return open_store(address.endpoint, address.region, key)


def open_store(endpoint: str, region: str, key: Key) -> Store:
    """The object store at `endpoint`; no request is made yet."""
    from infra import cluster

    settings = Config(
        connect_timeout=5,
        read_timeout=30,
        retries={"max_attempts": 3, "mode": "standard"},
        s3={"addressing_style": "path"},
        # A bare address is on a network of the operator's own; no proxy of the environment knows the way there.
        proxies={} if cluster.is_address(endpoint) else None,
    )
    session = boto3.Session(aws_access_key_id=key.access_key, aws_secret_access_key=key.secret_key, region_name=region)
    return Store(
        endpoint=endpoint,
        s3=session.client("s3", endpoint_url=endpoint, config=settings),
        iam=session.client("iam", endpoint_url=endpoint, config=settings),
    )


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What of a seat stands in the object store."""

    bucket: bool
    tags: dict[str, str]
    user: bool
    policy: str | None
    access_keys: tuple[str, ...]


def standing(store: Store, holding: Holding) -> Standing:
    """Look at a seat's bucket, user, policy and keys.

    Errors: `ObjectStoreUnreachable`.
    """
    with _told(store):
        bucket = _or_none(store.s3.head_bucket, Bucket=holding.bucket) is not None
        tags = _or_none(store.s3.get_bucket_tagging, Bucket=holding.bucket) if bucket else None
        user = _or_none(store.iam.get_user, UserName=holding.user) is not None
        policy = _or_none(store.iam.get_user_policy, UserName=holding.user, PolicyName=holding.policy) if user else None
        keys = _or_none(store.iam.list_access_keys, UserName=holding.user) if user else None
    document = policy["PolicyDocument"] if policy else None
    return Standing(
        bucket=bucket,
        tags={tag["Key"]: tag["Value"] for tag in (tags or {}).get("TagSet", [])},
        user=user,
        policy=document if isinstance(document, str) or document is None else json.dumps(document),
        access_keys=tuple(key["AccessKeyId"] for key in (keys or {}).get("AccessKeyMetadata", [])),
    )


def ours(found: Standing, holding: Holding) -> bool:
    """Whether what stands under a seat's names was made by this program, for this class and student."""
    if found.bucket:
        tagged = found.tags == naming.labels(holding.class_name, holding.student)
        return tagged or (found.policy is not None and _opens_only(found.policy, holding.bucket))
    return not found.user or found.policy is not None or not found.access_keys


def ensure(store: Store, holding: Holding, key: Key | None = None, region: str = "") -> Key:
    """Make bucket, user, policy, tags and key stand, whatever of them stands already; a key that still works is kept.

    A bucket that is made lies in `region`, "" for the store's own.

    Errors: `ForeignBucket` when the names are somebody else's; `ObjectStoreUnreachable`.
    """
    with _identities, _told(store):
        found = standing(store, holding)
        if not ours(found, holding):
            raise ForeignBucket(
                f"bucket {holding.bucket} at {store.endpoint} exists and was not made for this class; "
                "give the class another `name`, or remove that bucket by hand"
            )
        if not found.user:
            store.iam.create_user(UserName=holding.user)
        # The policy comes before the bucket: it is what says later on that the bucket is ours.
        if found.policy is None or not _opens_only(found.policy, holding.bucket):
            store.iam.put_user_policy(
                UserName=holding.user, PolicyName=holding.policy, PolicyDocument=policy(holding.bucket)
            )
        if not found.bucket:
            place = {"LocationConstraint": region} if region and region != _UNNAMED_REGION else None
            store.s3.create_bucket(
                Bucket=holding.bucket, **({"CreateBucketConfiguration": place} if place is not None else {})
            )
        tags = naming.labels(holding.class_name, holding.student)
        if found.tags != tags:
            pairs = [{"Key": name, "Value": value} for name, value in tags.items()]
            store.s3.put_bucket_tagging(Bucket=holding.bucket, Tagging={"TagSet": pairs})
        kept = key if key and key.access_key in found.access_keys else None
        # A student's key may make further keys for its own user: none but the one in the state is left.
        for access_key in found.access_keys:
            if kept is None or access_key != kept.access_key:
                store.iam.delete_access_key(UserName=holding.user, AccessKeyId=access_key)
        if kept:
            return kept
        made = store.iam.create_access_key(UserName=holding.user)["AccessKey"]
        return Key(access_key=made["AccessKeyId"], secret_key=made["SecretAccessKey"])


def configure(store: Store, bucket: str, settings: Settings) -> None:
    """Set versioning and lifecycle of a bucket that stands; what is not asked for is taken away.

    Errors: `ObjectStoreUnreachable`.
    """
    with _told(store):
        found = configured(store, bucket, settings.region)
        if found.versioning != settings.versioning:
            status = "Enabled" if settings.versioning else "Suspended"
            store.s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": status})
        if not settings.lifecycle_days:
            _or_none(store.s3.delete_bucket_lifecycle, Bucket=bucket)
        elif found.lifecycle_days != settings.lifecycle_days:
            days = settings.lifecycle_days
            rule = {
                "ID": naming.MANAGED_BY,
                "Status": "Enabled",
                "Filter": {"Prefix": ""},
                "Expiration": {"Days": days},
                "NoncurrentVersionExpiration": {"NoncurrentDays": days},
                "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": days},
            }
            store.s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": [rule]})


def configured(store: Store, bucket: str, region: str = "") -> Settings:
    """The settings that a bucket has; `region` is handed on, because not every store tells it.

    Errors: `ObjectStoreUnreachable`.
    """
    with _told(store):
        versioning = store.s3.get_bucket_versioning(Bucket=bucket).get("Status") == "Enabled"
        rules = (_or_none(store.s3.get_bucket_lifecycle_configuration, Bucket=bucket) or {}).get("Rules", [])
    ours_alone = len(rules) == 1 and rules[0].get("ID") == naming.MANAGED_BY and rules[0].get("Status") == "Enabled"
    days = rules[0].get("Expiration", {}).get("Days", 0) if ours_alone else 0
    return Settings(region=region, versioning=versioning, lifecycle_days=days)


def remove(store: Store, holding: Holding) -> None:
    """Take away the seat's keys, then its bucket with all that is in it, then its user; what is gone already is fine.

    The user goes last, since it says that the bucket is ours: a removal that was interrupted can go on.

    Errors: `ForeignBucket` when the bucket is somebody else's; `ObjectStoreUnreachable`.
    """
    with _identities, _told(store):
        found = standing(store, holding)
        if not ours(found, holding):
            raise ForeignBucket(
                f"bucket {holding.bucket} at {store.endpoint} was not made for this class and is left alone; "
                "remove it by hand if it should go"
            )
        for access_key in found.access_keys:
            _or_none(store.iam.delete_access_key, UserName=holding.user, AccessKeyId=access_key)
    with _told(store):
        if found.bucket:
            empty(store, holding.bucket)
            _or_none(store.s3.delete_bucket, Bucket=holding.bucket)
    with _identities, _told(store):
        if found.policy is not None:
            _or_none(store.iam.delete_user_policy, UserName=holding.user, PolicyName=holding.policy)
        if found.user:
            _or_none(store.iam.delete_user, UserName=holding.user)


def empty(store: Store, bucket: str) -> None:
    """Delete every object, version and unfinished upload of a bucket."""
    for batch in _versions(store, bucket):
        answer = store.s3.delete_objects(Bucket=bucket, Delete={"Objects": batch, "Quiet": True})
        if errors := answer.get("Errors"):
            first = errors[0]
            raise ObjectStoreUnreachable(
                f"{len(errors)} objects of bucket {bucket} cannot be deleted, first {first.get('Key')!r} "
                f"({first.get('Code')}); run the same command again"
            )
    for page in store.s3.get_paginator("list_multipart_uploads").paginate(Bucket=bucket):
        for upload in page.get("Uploads", []):
            store.s3.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])


def objects(store: Store, bucket: str) -> Iterator[tuple[int, datetime]]:
    """Bytes and time of writing of each object of a bucket; none when there is no such bucket.

    Errors: `ObjectStoreUnreachable`.
    """
    with _told(store):
        if _or_none(store.s3.head_bucket, Bucket=bucket) is None:
            return
        for page in store.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
            for each in page.get("Contents", []):
                yield each["Size"], each["LastModified"]


def holdings(store: Store, class_name: str, students: Iterable[str] = ()) -> list[Holding]:
    """Every seat of a class that may hold something in the object store, found without any state: by the names of its
    roster, by the tags of the buckets, and by the policies of the users.

    Errors: `ObjectStoreUnreachable`.
    """
    found = {student: Holding.of(class_name, student) for student in students}
    with _told(store):
        for bucket in store.s3.list_buckets()["Buckets"]:
            answer = _or_none(store.s3.get_bucket_tagging, Bucket=bucket["Name"]) or {}
            tags = {tag["Key"]: tag["Value"] for tag in answer.get("TagSet", [])}
            student = tags.get("student", "")
            if tags == naming.labels(class_name, student) and student:
                found.setdefault(student, Holding.of(class_name, student))
        known = {holding.user for holding in found.values()}
        for user in _users(store):
            if user in known or not user.startswith(naming.BUCKET_USER_HEAD):
                continue
            for name in (_or_none(store.iam.list_user_policies, UserName=user) or {}).get("PolicyNames", []):
                seat = naming.seat_of_policy(name)
                if seat and seat[0] == class_name:
                    found.setdefault(seat[1], Holding.of(*seat))
    return list(found.values())


def policy(bucket: str) -> str:
    """The policy of a student's key: the objects of one bucket, and nothing else."""
    statements = [
        {"Effect": "Allow", "Action": list(_BUCKET_ACTIONS), "Resource": [f"arn:aws:s3:::{bucket}"]},
        {"Effect": "Allow", "Action": list(_OBJECT_ACTIONS), "Resource": [f"arn:aws:s3:::{bucket}/*"]},
    ]
    return json.dumps({"Version": "2012-10-17", "Statement": statements}, sort_keys=True)


def _opens_only(document: str, bucket: str) -> bool:
    """Whether a policy, in whatever form the store gives it back, names the objects of one bucket and nothing else."""
    return bool(_resources(document)) and _resources(document) <= {f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"}


def _resources(document: str) -> set[str]:
    resources: set[str] = set()
    for statement in json.loads(document).get("Statement", []):
        named = statement.get("Resource", [])
        resources |= {named} if isinstance(named, str) else set(named)
    return resources


def _users(store: Store) -> Iterator[str]:
    for page in store.iam.get_paginator("list_users").paginate():
        yield from (user["UserName"] for user in page["Users"])


def _versions(store: Store, bucket: str) -> Iterator[list[dict[str, str]]]:
    for page in store.s3.get_paginator("list_object_versions").paginate(
        Bucket=bucket, PaginationConfig={"PageSize": _DELETE_AT_ONCE}
    ):
        found = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
        batch = [{"Key": version["Key"], "VersionId": version["VersionId"]} for version in found]
        for start in range(0, len(batch), _DELETE_AT_ONCE):
            yield batch[start : start + _DELETE_AT_ONCE]


def _or_none(call: Callable[..., Any], **arguments: Any) -> Any | None:
    """What a call answers, or None when what it asks for is not there."""
    try:
        return call(**arguments)
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") in _GONE:
            return None
        raise


@contextmanager
def _told(store: Store) -> Iterator[None]:
    """Errors of the S3 client as ours: what was asked of which store, never what was sent."""
    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "no code")
        raise ObjectStoreUnreachable(
            f"the object store at {store.endpoint} refused {error.operation_name} ({code}); "
            "check the operator's key and the store's log, then run the same command again"
        ) from None
    except BotoCoreError as error:
        raise ObjectStoreUnreachable(
            f"the object store at {store.endpoint} does not answer ({type(error).__name__}); "
            "run `classroom platform up`, then the same command again"
        ) from None


class _BucketProvider(ResourceProvider):
    """Bucket, user, policy and key as one resource: they are made, looked at and removed together.

    Inputs: `address` (StoreAddress), `holding` (Holding) and, where the bucket is not as the store makes it, `settings`
    (Settings), as dicts. Outputs besides: what was seen of them.
    """

    serialize_as_secret_always = False

    def create(self, props: dict[str, Any]) -> CreateResult:
        address, holding = _inputs(props)
        store, settings = connect(address), _settings(props)
        key = ensure(store, holding, region=settings.region)
        if "settings" in props:
            configure(store, holding.bucket, settings)
        return CreateResult(id_=holding.bucket, outs={**props, **_seen(holding, key)})

    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        address, holding = _inputs(props)
        store = connect(address)
        found = standing(store, holding)
        if not found.bucket:
            return ReadResult("", {})
        # What has gone or changed is told by an empty output, which `diff` then finds wanting.
        intact = found.policy is not None and _opens_only(found.policy, holding.bucket)
        tagged = found.tags == naming.labels(holding.class_name, holding.student)
        held = props.get("access_key") in found.access_keys and len(found.access_keys) == 1
        outs = {**props, "policy_intact": intact, "tags_intact": tagged, "key_intact": held}
        if "settings" in props:
            outs["settings"] = asdict(configured(store, holding.bucket, _settings(props).region))
        return ReadResult(id_, outs)

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> DiffResult:
        moved = ["holding"] if _olds.get("holding") != _news.get("holding") else []
        moved += ["address"] if _olds.get("address", {}).get("endpoint") != _news["address"]["endpoint"] else []
        hurt = [key for key in ("policy_intact", "tags_intact", "key_intact") if not _olds.get(key)]
        changed = _olds.get("address") != _news["address"] or _settings(_olds) != _settings(_news)
        return DiffResult(changes=bool(moved or hurt or changed), replaces=moved, delete_before_replace=True)

    def update(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> UpdateResult:
        address, holding = _inputs(_news)
        before, settings = _settings(_olds), _settings(_news)
        if before.region != settings.region:
            there = f"region {before.region}" if before.region else "the object store's own region"
            mend = f"write `region: {before.region}`" if before.region else "take `region` out"
            raise BucketElsewhere(
                f"bucket {holding.bucket} lies in {there} and cannot be moved; "
                f"{mend} under `bucket` in the class file, or take the class down first"
            )
        store = connect(address)
        key = ensure(store, holding, Key(access_key=_olds["access_key"], secret_key=_olds["secret_key"]))
        if before != settings:
            configure(store, holding.bucket, settings)
        return UpdateResult(outs={**_news, **_seen(holding, key)})

    def delete(self, _id: str, _props: dict[str, Any]) -> None:
        address, holding = _inputs(_props)
        remove(connect(address), holding)


def _inputs(props: dict[str, Any]) -> tuple[StoreAddress, Holding]:
    return StoreAddress(**props["address"]), Holding(**props["holding"])


def _settings(props: dict[str, Any]) -> Settings:
    given: dict[str, Any] = props.get("settings") or asdict(Settings())
    # Every number of a resource is a float to Pulumi.
    return Settings(region=given["region"], versioning=given["versioning"], lifecycle_days=int(given["lifecycle_days"]))


def _seen(holding: Holding, key: Key) -> dict[str, Any]:
    intact = {"policy_intact": True, "tags_intact": True, "key_intact": True}
    return {"bucket": holding.bucket, "access_key": key.access_key, "secret_key": key.secret_key, **intact}


class _StudentBucket(Resource, module="classroom", name="Bucket"):
    bucket: pulumi.Output[str]
    access_key: pulumi.Output[str]
    secret_key: pulumi.Output[str]

    def __init__(
        self, name: str, address: StoreAddress, holding: Holding, settings: Settings, opts: pulumi.ResourceOptions
    ) -> None:
        outputs = ("bucket", "access_key", "secret_key", "policy_intact", "tags_intact", "key_intact")
        props: dict[str, Any] = {"address": asdict(address), "holding": asdict(holding), **dict.fromkeys(outputs)}
        if settings != Settings():
            props["settings"] = asdict(settings)
        secret = pulumi.ResourceOptions(additional_secret_outputs=["access_key", "secret_key"])
        super().__init__(_BucketProvider(), name, props, pulumi.ResourceOptions.merge(opts, secret))


@dataclass(frozen=True, kw_only=True)
class BucketArgs:
    """Whose bucket it is, in which object store, and how it is to be."""

    class_name: str
    student: str
    platform: Platform
    spec: BucketSpec


class Bucket(pulumi.ComponentResource):
    """A bucket of the student's own, with a key that opens it alone; `access_key` and `secret_key` are secret."""

    bucket: pulumi.Output[str]
    access_key: pulumi.Output[str]
    secret_key: pulumi.Output[str]

    def __init__(self, name: str, args: BucketArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("classroom:index:Bucket", name, None, opts)
        made = _StudentBucket(
            f"{name}-bucket",
            StoreAddress.of(args.platform),
            Holding.of(args.class_name, args.student),
            Settings.of(args.spec),
            pulumi.ResourceOptions(parent=self),
        )
        self.bucket = made.bucket
        self.access_key, self.secret_key = pulumi.Output.secret(made.access_key), pulumi.Output.secret(made.secret_key)
        self.register_outputs({"bucket": self.bucket})
