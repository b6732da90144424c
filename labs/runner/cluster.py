"""What the operator alone can see of a run: its workflow, its pods, ML Metadata, and the student's key to the bucket.

Source of the workflow's label: KFP's `pipeline/runid`.
"""

import base64
from collections.abc import Iterator
from typing import Any

import boto3
import botocore.config
import botocore.exceptions
import kubernetes
import urllib3

from infra.failure import Failure
from infra.spec import Platform
from labs.runner import mlmd

_SECONDS_PER_CALL = 30
_BUCKET_KEY = "mlpipeline-minio-artifact"
"""The Secret in a seat with the key to its bucket, named as upstream names it."""
_METADATA_PORT = "metadata-envoy-service:9090"


class ClusterError(Failure):
    """The cluster did not answer what was asked; the message says what and why."""


class Cluster:
    """The platform's Kubernetes API, with the operator's kubeconfig. Safe to use by several threads."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        try:
            self._client = kubernetes.config.new_client_from_config(
                config_file=str(platform.kubeconfig), context=platform.context
            )
        except kubernetes.config.ConfigException as error:
            raise ClusterError(
                f"{platform.kubeconfig} cannot be used ({error}); `scripts/classroom platform up` stands it up"
            ) from None

    def workflow(self, namespace: str, run_id: str) -> dict[str, Any] | None:
        """The Argo workflow of a run; None when there is none."""
        custom = kubernetes.client.CustomObjectsApi(self._client)
        selector = f"pipeline/runid={run_id}"
        try:
            found: Any = custom.list_namespaced_custom_object(
                "argoproj.io",
                "v1alpha1",
                namespace,
                "workflows",
                label_selector=selector,
                _request_timeout=_SECONDS_PER_CALL,
            )
        except (kubernetes.client.ApiException, urllib3.exceptions.HTTPError) as error:
            raise ClusterError(f"workflows in {namespace} cannot be listed ({_reason(error)})") from None
        return next(iter(found["items"]), None)

    def why_not_ready(self, namespace: str, notebook: str) -> str:
        """In a person's words, what the pod of a notebook server waits for; empty when it is ready."""
        core = kubernetes.client.CoreV1Api(self._client)
        try:
            pod: Any = core.read_namespaced_pod(f"{notebook}-0", namespace, _request_timeout=_SECONDS_PER_CALL)
        except kubernetes.client.ApiException as error:
            return f"pod {notebook}-0 is not there" if error.status == 404 else _reason(error)
        except urllib3.exceptions.HTTPError as error:
            return _reason(error)
        for status in pod.status.container_statuses or ():
            if status.state.waiting:
                return f"pod {notebook}-0: {status.state.waiting.reason} {status.state.waiting.message or ''}".strip()
            if status.state.terminated:
                return f"pod {notebook}-0 ended: {status.state.terminated.reason}"
        for condition in pod.status.conditions or ():
            if condition.status != "True" and condition.message:
                return f"pod {notebook}-0: {condition.message}"
        return ""

    def metadata(self) -> mlmd.MetadataStore:
        """ML Metadata through the API server's service proxy, so that the gateway needs no way to it."""
        return mlmd.MetadataStore(self._post_metadata)

    def objects(self, namespace: str, bucket: str, prefix: str) -> list[tuple[str, int]]:
        """Key and bytes of every object below `prefix`, listed with the student's own key.

        Errors: `ClusterError` when the key is missing or refused.
        """
        store = self._platform.object_store
        access_key, secret_key = self._bucket_key(namespace)
        # A session of its own: boto3's default one is not safe to use by several threads.
        client = boto3.session.Session().client(
            "s3",
            endpoint_url=store.endpoint,
            region_name=store.region,
            aws_access_key_id=access_key,
            aws_secret_access_key=secret_key,
            config=botocore.config.Config(
                s3={"addressing_style": "path"},
                connect_timeout=5,
                read_timeout=20,
                retries={"max_attempts": 4},
                proxies={},
            ),
        )
        try:
            return list(_listed(client, bucket, prefix))
        except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
            raise ClusterError(f"the bucket {bucket} was not listed with the student's key ({error})") from None

    def close(self) -> None:
        """Give the connections back."""
        self._client.close()

    def _bucket_key(self, namespace: str) -> tuple[str, str]:
        core = kubernetes.client.CoreV1Api(self._client)
        try:
            secret: Any = core.read_namespaced_secret(_BUCKET_KEY, namespace, _request_timeout=_SECONDS_PER_CALL)
            return _text(secret.data["accesskey"]), _text(secret.data["secretkey"])
        except (kubernetes.client.ApiException, urllib3.exceptions.HTTPError) as error:
            raise ClusterError(f"the Secret {_BUCKET_KEY} in {namespace} cannot be read ({_reason(error)})") from None
        except (KeyError, TypeError):
            raise ClusterError(f"the Secret {_BUCKET_KEY} in {namespace} lacks accesskey or secretkey") from None

    def _post_metadata(self, method: str, body: bytes) -> bytes:
        service = f"/api/v1/namespaces/{self._platform.kubeflow_namespace}/services/{_METADATA_PORT}"
        path = f"{service}/proxy/{mlmd.SERVICE}/{method}"
        headers = {"Content-Type": mlmd.CONTENT_TYPE, "Accept": mlmd.CONTENT_TYPE, "X-Grpc-Web": "1"}
        try:
            answer: Any = self._client.call_api(
                path,
                "POST",
                header_params=headers,
                body=body,
                auth_settings=["BearerToken"],
                _preload_content=False,
                _return_http_data_only=True,
                _request_timeout=_SECONDS_PER_CALL,
            )
        except (kubernetes.client.ApiException, urllib3.exceptions.HTTPError) as error:
            raise ClusterError(f"ML Metadata cannot be reached ({_reason(error)})") from None
        # A call that fails at once may tell its status in the headers, with no body.
        status = answer.headers.get("grpc-status")
        if status and status != "0":
            raise mlmd.MetadataError(int(status), answer.headers.get("grpc-message", ""))
        return answer.data


def _listed(client: Any, bucket: str, prefix: str) -> Iterator[tuple[str, int]]:
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for item in page.get("Contents", ()):
            yield item["Key"], item["Size"]


def _text(encoded: str) -> str:
    return base64.b64decode(encoded).decode()


def _reason(error: Exception) -> str:
    if isinstance(error, kubernetes.client.ApiException):
        return f"{error.status} {error.reason}"
    return error.__class__.__name__
