"""AWS: a bucket in S3, and a user with a policy and a key in IAM, for each student.

The operator's credentials are boto3's own: the environment, a profile, a role. Every region has an endpoint of its own,
and a bucket is a host name below it; bucket names are shared by all of AWS.
"""

import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from infra import naming
from infra.failure import CallFailure
from infra.stores import Key, ObjectStoreUnreachable, Store, StoreAddress
from infra.stores.iam import Iam
from infra.stores.owned import OwnedBuckets
from infra.stores.s3 import code_of, patience, told

# IAM tells all regions of a change within seconds, mostly; nobody promises how many.
_WORKS_WITHIN_SECONDS: Final = 90
_BETWEEN_TRIES_SECONDS: Final = 2
_TAKEN: Final = "bucket names are shared by all of AWS: give the class a `name` that nobody else has"


class NoCredentials(CallFailure):
    """Boto3 finds no credentials for AWS on this machine."""


def connect(address: StoreAddress) -> Store:
    """AWS in the region of `address`, as whoever boto3 finds credentials of.

    Errors: `NoCredentials`, `ObjectStoreUnreachable`.
    """
    session = _session()
    sts = session.client("sts", region_name=address.region, config=patience())
    with told(sts):
        # arn:aws:iam::123456789012:user/teacher, or arn:aws-cn:… in a partition of its own.
        _, partition, _, _, account, _ = sts.get_caller_identity()["Arn"].split(":", 5)
    path = f"/{naming.MANAGED_BY}/"

    @lru_cache
    def operator(region: str) -> Any:
        # A session of its own: several threads may come here, and one session is not for them.
        return _s3(_session(), region)

    def opened(key: Key, region: str) -> Any:
        return _s3(boto3.Session(key.access_key, key.secret_key), region)

    def works(key: Key, bucket: str) -> None:
        wait_until_it_opens(opened(key, address.region), bucket)

    return OwnedBuckets(
        identities=Iam(
            client=session.client("iam", region_name=address.region, config=patience()),
            policy_arns=f"arn:{partition}:iam::{account}:policy{path}",
            path=path,
            works=works,
        ),
        clients=lambda region: operator(region or address.region),
        opens=lambda key: opened(key, address.region),
        home=address.region,
        taken=_TAKEN,
    )


def _session() -> boto3.Session:
    mend = "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, then run the same command again"
    try:
        session = boto3.Session()
        found = session.get_credentials()
    except BotoCoreError as error:
        raise NoCredentials(f"boto3 cannot read its credentials for AWS ({error}); {mend}") from None
    if found is None:
        raise NoCredentials(f"there are no credentials for AWS on this machine; {mend}")
    return session


def _s3(session: boto3.Session, region: str) -> Any:
    regional = patience(s3={"addressing_style": "virtual", "us_east_1_regional_endpoint": "regional"})
    return session.client("s3", region_name=region, config=regional)


def wait_until_it_opens(
    s3: Any,
    bucket: str,
    pause: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Return once the key of `s3` lists a bucket: AWS takes seconds to know a new key and its policy.

    Errors: `ObjectStoreUnreachable` when it still does not after a minute and a half.
    """
    deadline = clock() + _WORKS_WITHIN_SECONDS
    while True:
        with told(s3):
            try:
                s3.list_objects_v2(Bucket=bucket, MaxKeys=1)
                return
            except ClientError as error:
                if clock() > deadline:
                    raise ObjectStoreUnreachable(
                        f"the new key of bucket {bucket} does not open it after {_WORKS_WITHIN_SECONDS} s "
                        f"({code_of(error)}); run the same command again"
                    ) from None
        pause(_BETWEEN_TRIES_SECONDS)
