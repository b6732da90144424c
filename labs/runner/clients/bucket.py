"""Changes in a student's own bucket, with the student's own key: a lab's data goes in, a rehearsal's objects go out."""

import hashlib
from collections.abc import Callable, Iterable
from typing import Any, Literal

import botocore.exceptions

from labs.runner.clients.cluster import BucketUnreadableError, Cluster

PutState = Literal["made", "unchanged", "other"]


class Bucket:
    """The key is looked up at the first question. For one thread at a time.

    Every question raises `BucketUnreadableError` when the key is refused, and `infra.cluster.ClusterUnreachable` when
    it cannot be looked up.
    """

    def __init__(self, cluster: Cluster, namespace: str, name: str) -> None:
        self.name = name
        self._cluster = cluster
        self._namespace = namespace
        self._client: Any = None

    def keys(self, prefix: str) -> list[str]:
        """The keys of every object below `prefix`."""

        def pages(s3: Any) -> list[dict[str, Any]]:
            return list(s3.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix))

        return [item["Key"] for page in self._asked(pages) for item in page.get("Contents", ())]

    def put_new(self, key: str, data: bytes) -> PutState:
        """Store the object where there is none; whether it was `made`, lay there `unchanged`, or is some `other`, which
        was left alone."""
        there = self._asked(lambda s3: s3.list_objects_v2(Bucket=self.name, Prefix=key, MaxKeys=1)).get("Contents", ())
        found = next((item for item in there if item["Key"] == key), None)
        if found is None:
            self._asked(lambda s3: s3.put_object(Bucket=self.name, Key=key, Body=data))
            return "made"
        # The tag of an object stored in one piece is its MD5; in several pieces it is something else, with a dash.
        tag = str(found["ETag"]).strip('"')
        md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
        return "unchanged" if found["Size"] == len(data) and ("-" in tag or tag == md5) else "other"

    def remove(self, keys: Iterable[str]) -> None:
        """Remove objects; nothing when they are gone already."""
        for key in keys:
            self._asked(lambda s3, key=key: s3.delete_object(Bucket=self.name, Key=key))

    def _asked(self, question: Callable[[Any], Any]) -> Any:
        try:
            if self._client is None:
                self._client = self._cluster.store(self._namespace)
            return question(self._client)
        except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
            raise BucketUnreadableError(f"{self.name} does not open with the student's key ({error})") from None
