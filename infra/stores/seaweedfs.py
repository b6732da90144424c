"""SeaweedFS: S3 and IAM at one address, with the operator's key from a Secret of the cluster.

What costs a change of its identities (weed/s3api/s3api_embedded_iam.go, ExecuteAction): all of them are written, and
read again after each, so that it takes a second or more once there are sixty, but for CreateUser, and for policies that
are attached. So a seat is made with one such change, CreateAccessKey, and goes with one, DeleteUser, which takes the
user's keys along.
"""

import fcntl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Literal

from infra.local.places import places
from infra.stores import Key, Store, StoreAddress, s3
from infra.stores.iam import Iam
from infra.stores.owned import OwnedBuckets

_one_thread: Final = threading.Lock()


@contextmanager
def _alone() -> Iterator[None]:
    """Held by one thread of one process of this machine at a time.

    Of two changes at once that write all identities, the later would undo the earlier. Each Pulumi stack has a process
    of its own for buckets, several stacks run at once, and a class may be closed meanwhile.
    """
    here = places()
    # With the one-machine platform it goes when the platform goes.
    directory = here.node if here.node.exists() else here.state
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Closing the file gives the lock back, as the end of the process does.
    with _one_thread, (directory / "identities.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def connect(address: StoreAddress) -> Store:
    """The SeaweedFS at `address`. Errors: `infra.cluster.ClusterUnreachable` when the operator's key cannot be read."""
    key = address.operator_key()

    def opened(service: Literal["s3", "iam"], key: Key) -> Any:
        return s3.client(service, key, address.region, address.endpoint)

    operator = opened("s3", key)
    return OwnedBuckets(
        identities=Iam(
            client=opened("iam", key),
            policy_arns="arn:aws:iam:::policy/",
            changing=_alone,
            keys_go_with_user=True,
        ),
        clients=lambda _region: operator,
        opens=lambda key: opened("s3", key),
    )
