"""MinIO: S3, and users and policies by MinIO's own administration, at one address; the operator's key is in a Secret.

A user of MinIO is a key: its name is the access key, and it has one secret at a time, which nobody can read back.
"""

import json
import os
import secrets
import string
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import urllib3
from botocore.exceptions import ClientError
from minio import MinioAdmin
from minio.credentials import StaticProvider
from minio.error import MinioAdminException
from urllib3.exceptions import HTTPError

from infra.stores import Holding, Key, ObjectStoreUnreachable, Store, StoreAddress, s3
from infra.stores.owned import Identity, OwnedBuckets, policy

_SECRET_CHARACTERS: Final = 40
# Else a user may make further keys for itself, and choose another secret (cmd/admin-handlers-users.go, DenyOnly).
_NOTHING_FOR_ITSELF: Final = {"Effect": "Deny", "Action": ["admin:*"]}
_GONE: Final = frozenset({"XMinioAdminNoSuchUser", "XMinioAdminNoSuchPolicy"})
_DONE_ALREADY: Final = frozenset({"XMinioAdminPolicyChangeAlreadyApplied"})
_WRONG_KEY: Final = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch"})


def connect(address: StoreAddress) -> Store:
    """The MinIO at `address`. Errors: `infra.cluster.ClusterUnreachable` when the operator's key cannot be read."""
    key = address.operator_key()
    url = urlsplit(address.endpoint)
    admin = MinioAdmin(
        endpoint=url.netloc,
        credentials=StaticProvider(key.access_key, key.secret_key),
        region=address.region,
        secure=url.scheme == "https",
        http_client=urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=5, read=30),
            retries=urllib3.Retry(total=2, backoff_factor=0.3),
            # Boto3 trusts who is named there, and so does this.
            ca_certs=os.environ.get("AWS_CA_BUNDLE"),
        ),
    )

    def opened(key: Key) -> Any:
        return s3.client("s3", key, address.region, address.endpoint)

    operator = opened(key)
    return OwnedBuckets(
        identities=Users(admin=admin, endpoint=address.endpoint, opens=opened),
        clients=lambda _region: operator,
        opens=opened,
    )


@dataclass(frozen=True, kw_only=True)
class Users:
    """Identities (`infra.stores.owned`) in MinIO's own administration."""

    admin: MinioAdmin
    endpoint: str
    opens: Callable[[Key], Any]

    def found(self, holding: Holding) -> Identity:
        info = self._asked(self.admin.user_info, holding.user)
        names = (info or {}).get("policyName", "").split(",")
        return Identity(
            user=info is not None,
            policy=self._asked(self.admin.policy_info, holding.policy),
            attached=holding.policy in names,
            access_keys=(holding.user,) if info is not None else (),
        )

    def policies(self) -> Iterable[str]:
        return self._asked(self.admin.policy_list) or {}

    def add_policy(self, holding: Holding) -> None:
        document = policy(holding.bucket)
        document["Statement"].append(_NOTHING_FOR_ITSELF)
        with self._told():
            self.admin.policy_add(holding.policy, policy=document)

    def add_user(self, holding: Holding) -> None:
        self._new_secret(holding)

    def attach(self, holding: Holding) -> None:
        with self._told(_DONE_ALREADY):
            self.admin.attach_policy([holding.policy], user=holding.user)

    def detach(self, holding: Holding) -> None:
        with self._told(_DONE_ALREADY | _GONE):
            self.admin.detach_policy([holding.policy], user=holding.user)

    def only_key(self, holding: Holding, key: Key | None) -> Key:
        return key if key and self.keeps(holding, key) else self._new_secret(holding)

    def keeps(self, holding: Holding, key: Key) -> bool:
        info = self._asked(self.admin.user_info, holding.user)
        if info is None or key.access_key != holding.user:
            return False
        if info.get("status") == "disabled":
            # While the class is closed no secret works, and none is shown to be wrong.
            return True
        client = self.opens(key)
        with s3.told(client):
            try:
                client.list_objects_v2(Bucket=holding.bucket, MaxKeys=1)
            except ClientError as error:
                # A key that may not do it, or finds no bucket, is one for all that.
                return s3.code_of(error) not in _WRONG_KEY
        return True

    def switch_keys(self, holding: Holding, *, active: bool) -> None:
        with self._told():
            (self.admin.user_enable if active else self.admin.user_disable)(holding.user)

    def remove_user(self, holding: Holding) -> None:
        with self._told(_GONE):
            self.admin.user_remove(holding.user)

    def remove_policy(self, holding: Holding) -> None:
        with self._told(_GONE):
            self.admin.policy_remove(holding.policy)

    def _new_secret(self, holding: Holding) -> Key:
        letters = string.ascii_letters + string.digits
        secret = "".join(secrets.choice(letters) for _ in range(_SECRET_CHARACTERS))
        with self._told():
            self.admin.user_add(holding.user, secret)
        return Key(access_key=holding.user, secret_key=secret)

    def _asked(self, question: Callable[..., str], *names: str) -> dict[str, Any] | None:
        """What it answers; None when there is no such thing."""
        with self._told(_GONE):
            return dict(json.loads(question(*names)))
        return None

    @contextmanager
    def _told(self, fine: frozenset[str] = frozenset()) -> Iterator[None]:
        """Errors of the administration as ours, but for those that are `fine`: never with what was sent."""
        try:
            yield
        except MinioAdminException as error:
            if (code := _code(error)) not in fine:
                raise ObjectStoreUnreachable(
                    f"MinIO at {self.endpoint} refused to tell of users and policies, or to change them ({code}); "
                    "the operator's key has to be an administrator's"
                ) from None
        except HTTPError as error:
            raise ObjectStoreUnreachable(
                f"MinIO at {self.endpoint} does not answer ({type(error).__name__}); "
                "see that it is up and reached from here, then run the same command again"
            ) from None


def _code(error: MinioAdminException) -> str:
    """MinIO's word for what went wrong, or the status of HTTP where it gives none."""
    _, (status, body) = error.__reduce__()
    try:
        return str(json.loads(body)["Code"])
    except (ValueError, KeyError, TypeError):
        return str(status)
