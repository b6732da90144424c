"""What every object store speaks: S3, by boto3.

A function that is given a client asks by it; what goes wrong is told as ours, never with what was sent.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final, Literal

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from infra import naming
from infra.stores import Key, ObjectStoreUnreachable, Settings

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
_FORBIDDEN: Final = frozenset({"403", "AccessDenied"})
# The one region that S3 does not take as a LocationConstraint.
_UNNAMED_REGION: Final = "us-east-1"


def client(service: Literal["s3", "iam"], key: Key, region: str, endpoint: str) -> Any:
    """A client of the store at `endpoint`, whose buckets are folders of its address; no request is made yet."""
    # A session of its own: one is not for several threads. It is not told the key, because an empty one it would take
    # for none, and look for another.
    return boto3.Session().client(
        service,
        region_name=region,
        endpoint_url=endpoint,
        aws_access_key_id=key.access_key,
        aws_secret_access_key=key.secret_key,
        config=patience(endpoint, s3={"addressing_style": "path"}),
    )


def patience(endpoint: str = "", **settings: Any) -> Config:
    """How long a client waits and how often it tries again, with `settings` of its own besides."""
    # It brings the Kubernetes client, which takes a second to import.
    from infra import cluster

    return Config(
        connect_timeout=5,
        read_timeout=30,
        retries={"max_attempts": 3, "mode": "standard"},
        # A bare address is on a network of the operator's own; no proxy of the environment knows the way there.
        proxies={} if cluster.is_address(endpoint) else None,
        **settings,
    )


def look(s3: Any, bucket: str) -> tuple[bool, dict[str, str]]:
    """Whether a bucket stands, and its tags; of one that is closed to whoever asks, none are seen.

    Errors: `ObjectStoreUnreachable`.
    """
    with told(s3):
        try:
            if or_none(s3.head_bucket, Bucket=bucket) is None:
                return False, {}
            answer = or_none(s3.get_bucket_tagging, Bucket=bucket) or {}
        except ClientError as error:
            # Whose bucket it is, S3 does not say: the name is taken.
            if code_of(error) in _FORBIDDEN:
                return True, {}
            raise
    return True, {tag["Key"]: tag["Value"] for tag in answer.get("TagSet", [])}


def create(s3: Any, bucket: str, region: str) -> None:
    """Make a bucket in `region`, "" for the client's own. Errors: `ObjectStoreUnreachable`."""
    place = {"LocationConstraint": region} if region and region != _UNNAMED_REGION else None
    with told(s3):
        s3.create_bucket(Bucket=bucket, **({"CreateBucketConfiguration": place} if place is not None else {}))


def tag(s3: Any, bucket: str, tags: dict[str, str]) -> None:
    """Give a bucket these tags and no others. Errors: `ObjectStoreUnreachable`."""
    with told(s3):
        pairs = [{"Key": name, "Value": value} for name, value in tags.items()]
        s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": pairs})


def tagged(s3: Any, heads: tuple[str, ...]) -> Iterator[dict[str, str]]:
    """The tags of every bucket that whoever asks may see and whose name begins with one of `heads`.

    Errors: `ObjectStoreUnreachable`.
    """
    with told(s3):
        buckets = [each["Name"] for each in s3.list_buckets().get("Buckets", []) if each["Name"].startswith(heads)]
    for bucket in buckets:
        yield look(s3, bucket)[1]


def remove(s3: Any, bucket: str) -> None:
    """Delete a bucket with every object, version and unfinished upload in it; one that is gone is fine.

    Errors: `ObjectStoreUnreachable`.
    """
    with told(s3):
        for batch in _versions(s3, bucket):
            answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": batch, "Quiet": True})
            if errors := answer.get("Errors"):
                first = errors[0]
                raise ObjectStoreUnreachable(
                    f"{len(errors)} objects of bucket {bucket} cannot be deleted, first {first.get('Key')!r} "
                    f"({first.get('Code')}); run the same command again"
                )
        for page in s3.get_paginator("list_multipart_uploads").paginate(Bucket=bucket):
            for upload in page.get("Uploads", []):
                s3.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
        or_none(s3.delete_bucket, Bucket=bucket)


def objects(s3: Any, bucket: str) -> Iterator[tuple[int, datetime]]:
    """Bytes and time of writing of each object of a bucket; none when there is no such bucket.

    Errors: `ObjectStoreUnreachable`.
    """
    with told(s3):
        if or_none(s3.head_bucket, Bucket=bucket) is None:
            return
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
            for each in page.get("Contents", []):
                yield each["Size"], each["LastModified"]


def configure(s3: Any, bucket: str, settings: Settings) -> None:
    """Set versioning and lifecycle of a bucket that stands; what is not asked for is taken away.

    Errors: `ObjectStoreUnreachable`.
    """
    found = configured(s3, bucket, settings.region)
    with told(s3):
        if found.versioning != settings.versioning:
            status = "Enabled" if settings.versioning else "Suspended"
            s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": status})
        if not settings.lifecycle_days:
            or_none(s3.delete_bucket_lifecycle, Bucket=bucket)
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
            s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": [rule]})


def configured(s3: Any, bucket: str, region: str = "") -> Settings:
    """The settings that a bucket has; `region` is handed on, because not every store tells it.

    Errors: `ObjectStoreUnreachable`.
    """
    with told(s3):
        versioning = s3.get_bucket_versioning(Bucket=bucket).get("Status") == "Enabled"
        rules = (or_none(s3.get_bucket_lifecycle_configuration, Bucket=bucket) or {}).get("Rules", [])
    ours_alone = len(rules) == 1 and rules[0].get("ID") == naming.MANAGED_BY and rules[0].get("Status") == "Enabled"
    days = rules[0].get("Expiration", {}).get("Days", 0) if ours_alone else 0
    return Settings(region=region, versioning=versioning, lifecycle_days=days)


def _versions(s3: Any, bucket: str) -> Iterator[list[dict[str, str]]]:
    for page in s3.get_paginator("list_object_versions").paginate(
        Bucket=bucket, PaginationConfig={"PageSize": _DELETE_AT_ONCE}
    ):
        found = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
        batch = [{"Key": version["Key"], "VersionId": version["VersionId"]} for version in found]
        for start in range(0, len(batch), _DELETE_AT_ONCE):
            yield batch[start : start + _DELETE_AT_ONCE]


def code_of(error: ClientError) -> str:
    """The store's word for what went wrong."""
    return str(error.response.get("Error", {}).get("Code", "no code"))


def or_none(call: Callable[..., Any], **arguments: Any) -> Any | None:
    """What a call answers, or None when what it asks for is not there."""
    try:
        return call(**arguments)
    except ClientError as error:
        if code_of(error) in _GONE:
            return None
        raise


@contextmanager
def told(asked: Any) -> Iterator[None]:
    """Errors of a client (boto3) as ours: what was asked of which store, never what was sent."""
    try:
        yield
    except ClientError as error:
        raise ObjectStoreUnreachable(
            f"the object store at {asked.meta.endpoint_url} refused {error.operation_name} ({code_of(error)}); "
            "check the key that it is asked with and the store's log, then run the same command again"
        ) from None
    except BotoCoreError as error:
        raise ObjectStoreUnreachable(
            f"the object store at {asked.meta.endpoint_url} does not answer ({type(error).__name__}); "
            "see that it is up and reached from here, then run the same command again"
        ) from None
