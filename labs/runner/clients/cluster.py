"""What the operator alone sees of a run: its workflow, its pods, ML Metadata, and the student's key to the bucket."""

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from functools import partial
from typing import Any

import botocore.exceptions
from kubernetes.client.exceptions import ApiException  # type: ignore[import-untyped]  # the client ships no types
from pydantic import SecretStr
from urllib3.exceptions import HTTPError

from infra import cluster
from infra.spec import Platform
from infra.stores import Key, s3
from infra.values import amount
from labs.runner.clients import mlmd

RUN_LABEL = "pipeline/runid"
"""On a run's workflow and pods; KFP's own."""
_BUCKET_KEY = "mlpipeline-minio-artifact"
"""The Secret in a seat with the key to its bucket, named as upstream names it."""
_METADATA = "metadata-envoy-service:9090"
_METADATA_OF = "X-Classroom-Namespace"
"""Says to the embedded platform's ML Metadata whose records are meant (infra/platform/mlmd_server.py)."""


class BucketUnreadableError(Exception):
    """The bucket was not listed; the message says with which key and why."""


class Cluster:
    """The platform's Kubernetes API, with the operator's kubeconfig. Safe to use by several threads.

    `bucket_region`: where the class's buckets lie, None for the object store's own region. Every question raises
    `infra.cluster.ClusterUnreachable` when it gets no answer.
    """

    def __init__(self, platform: Platform, bucket_region: str | None = None) -> None:
        self._platform, self._bucket_region = platform, bucket_region
        self._api = cluster.api(platform.kubeconfig, platform.context)

    def workflow(self, namespace: str, run_id: str) -> dict[str, Any] | None:
        """The Argo workflow of a run; None when there is none."""
        path = f"/apis/argoproj.io/v1alpha1/namespaces/{namespace}/workflows"
        found = cluster.get(self._api, path, f"{RUN_LABEL}={run_id}") or {}
        return next(iter(found.get("items", ())), None)

    def pods(self, namespace: str, run_ids: Iterable[str]) -> list[dict[str, Any]]:
        """The pods of these runs that are still there, as Kubernetes gives them, in one call."""
        found = cluster.get(self._api, f"/api/v1/namespaces/{namespace}/pods", f"{RUN_LABEL} in ({','.join(run_ids)})")
        # In a list they do not say themselves what they are.
        return [{"apiVersion": "v1", "kind": "Pod", **item} for item in (found or {}).get("items", ())]

    def cores(self) -> Decimal:
        """The cpu cores of all nodes that take pods."""
        items = (cluster.get(self._api, "/api/v1/nodes") or {}).get("items", [])
        open_ones = [item for item in items if not item["spec"].get("unschedulable")]
        # A node that has only just come tells of none yet.
        told = [item.get("status", {}).get("allocatable", {}).get("cpu", 0) for item in open_ones]
        return sum((amount(str(cores)) for cores in told), Decimal(0))

    def why_not_ready(self, namespace: str, notebook: str) -> str:
        """In a person's words, what the pod of a notebook server waits for; empty when it is ready."""
        name = f"{notebook}-0"
        try:
            pod = cluster.get(self._api, f"/api/v1/namespaces/{namespace}/pods/{name}")
        except cluster.ClusterUnreachable as error:
            return str(error)
        if pod is None:
            return f"pod {name} is not there"
        for status in pod["status"].get("containerStatuses", ()):
            if waiting := status["state"].get("waiting"):
                return f"pod {name}: {waiting.get('reason', '')} {waiting.get('message', '')}".strip()
            if ended := status["state"].get("terminated"):
                return f"pod {name} ended: {ended.get('reason', '')}"
        for condition in pod["status"].get("conditions", ()):
            if condition["status"] != "True" and condition.get("message"):
                return f"pod {name}: {condition['message']}"
        return ""

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, str]:
        """Any call to the Kubernetes API as the operator: the status and the text answered, whatever they are.

        Errors: `infra.cluster.ClusterUnreachable` when there is no answer.
        """
        try:
            answer: Any = self._api.call_api(
                path,
                method,
                header_params={"Accept": "application/json", "Content-Type": "application/json"},
                body=body,
                auth_settings=["BearerToken"],
                _preload_content=False,
                _return_http_data_only=True,
                _request_timeout=cluster.TIMEOUT_SECONDS,
            )
            return answer.status, answer.data.decode("utf-8", "replace")
        except ApiException as error:
            return int(error.status or 0), str(error.body or error.reason)
        except (HTTPError, OSError) as error:
            raise cluster.ClusterUnreachable(
                f"the Kubernetes API does not answer ({type(error).__name__}); run `classroom platform status`"
            ) from None

    def secret(self, namespace: str, name: str) -> dict[str, str]:
        """The decoded fields of a Secret. Errors: as `infra.cluster.secret`."""
        return cluster.secret(self._api, namespace, name)

    def metadata(self, namespace: str) -> mlmd.MetadataStore:
        """A namespace's records in ML Metadata, through the API server's service proxy, so that the gateway needs no
        way to it. Upstream's store holds those of all namespaces and heeds no name."""
        return mlmd.MetadataStore(partial(self._post_metadata, namespace))

    def objects(self, namespace: str, bucket: str, prefix: str) -> list[tuple[str, int]]:
        """Key and bytes of every object below `prefix`, listed with the student's own key.

        Errors: `BucketUnreadableError` when the key is missing or refused.
        """
        client = self.store(namespace)
        try:
            return list(_listed(client, bucket, prefix))
        except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
            raise BucketUnreadableError(f"{bucket} was not listed with the student's key ({error})") from None

    def tails(self, namespace: str, bucket: str, objects: Mapping[str, int], most_bytes: int) -> dict[str, str]:
        """The end of each of these objects (bytes by key, as `objects` gives them) as text, by key, with the student's
        own key. Errors: as `objects`."""
        client = self.store(namespace)
        try:
            return {key: _tail(client, bucket, key, size, most_bytes) for key, size in objects.items()}
        except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
            raise BucketUnreadableError(f"{bucket} was not read with the student's key ({error})") from None

    def close(self) -> None:
        """Give the connections back."""
        self._api.close()

    def bucket_secret(self, namespace: str) -> SecretStr | None:
        """The secret part of the key of the student of that namespace, to be kept out of texts; None when it cannot be
        read."""
        try:
            return SecretStr(self._key(namespace).secret_key)
        except cluster.ClusterUnreachable:
            return None

    def _key(self, namespace: str) -> Key:
        held = cluster.secret(self._api, namespace, _BUCKET_KEY)
        return Key(access_key=held.get("accesskey", ""), secret_key=held.get("secretkey", ""))

    def store(self, namespace: str) -> Any:
        """A client of the object store with the key of the student of that namespace, which is read anew."""
        store = self._platform.object_store
        region = self._bucket_region or store.region
        key = self._key(namespace)
        # AWS has an address for each region, the same from everywhere.
        return s3.client("s3", key, region, store.address(region) if store.kind == "aws" else store.endpoint)

    def _post_metadata(self, whose: str, method: str, body: bytes) -> bytes:
        headers = {
            "Content-Type": mlmd.CONTENT_TYPE,
            "Accept": mlmd.CONTENT_TYPE,
            "X-Grpc-Web": "1",
            _METADATA_OF: whose,
        }
        namespace, path = self._platform.kubeflow_namespace, f"{mlmd.SERVICE}/{method}"
        answered, data = cluster.post_to_service(self._api, namespace, _METADATA, path, body, headers)
        # A call that fails at once may tell its status in the headers, with no body.
        status = answered.get("grpc-status")
        if status and status != "0":
            raise mlmd.MetadataError(int(status), answered.get("grpc-message", ""))
        return data


def _listed(client: Any, bucket: str, prefix: str) -> Iterator[tuple[str, int]]:
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for item in page.get("Contents", ()):
            yield item["Key"], item["Size"]


def _tail(client: Any, bucket: str, key: str, size: int, most_bytes: int) -> str:
    within = {"Range": f"bytes={size - most_bytes}-"} if size > most_bytes else {}
    body = client.get_object(Bucket=bucket, Key=key, **within)["Body"]
    return str(body.read().decode("utf-8", "replace"))
