"""How the Kubernetes API is asked, outside of Pulumi: with time limits, and with nothing taken from the environment."""

import base64
import ipaddress
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from kubernetes import client, config  # type: ignore[import-untyped]  # the client ships no types
from kubernetes.client.exceptions import ApiException  # type: ignore[import-untyped]  # the same
from urllib3.exceptions import HTTPError
from urllib3.util import Retry

from infra.failure import Failure

TIMEOUT_SECONDS: Final = (5, 30)
"""To connect, and to wait for the next byte."""


class ClusterUnreachable(Failure):
    """The Kubernetes API did not answer, so nothing can be said about what is in the cluster."""

    exit_code = 3


class _Client(client.ApiClient):
    """Gives its connections back when it is closed; the parent keeps them until it is forgotten."""

    def close(self) -> None:
        self.rest_client.pool_manager.clear()
        super().close()


def api(kubeconfig: Path, context: str | None) -> client.ApiClient:
    """A client for the cluster that `kubeconfig` names, to be closed or used in `with`; no request is made yet.

    Errors: `ClusterUnreachable` when the file does not name a cluster.
    """
    settings = client.Configuration()
    try:
        config.load_kube_config(str(kubeconfig), context=context, client_configuration=settings, persist_config=False)
    except (config.ConfigException, OSError, TypeError, ValueError) as error:
        raise ClusterUnreachable(
            f"{kubeconfig}: does not say how the cluster is reached ({error}); "
            "run `classroom platform up`, or mend `kubeconfig` in the class file"
        ) from None
    if is_address(settings.host):
        # A bare address is on a network of the operator's own; no proxy of the environment knows the way there.
        settings.proxy = None
    settings.retries = Retry(total=2, connect=2, read=0, backoff_factor=0.3)
    return _Client(settings)


def is_address(url: str) -> bool:
    """Whether a URL's host is an IP address rather than a name."""
    try:
        ipaddress.ip_address(urlsplit(url).hostname or "")
    except ValueError:
        return False
    return True


def get(
    cluster: client.ApiClient, path: str, selector: str = "", *, timeout: tuple[float, float] = TIMEOUT_SECONDS
) -> dict[str, Any] | None:
    """GET a path of the API as plain JSON; None when there is no such thing (404).

    Errors: `ClusterUnreachable` when the API gives no answer or refuses one.
    """
    return _call(cluster, "GET", path, selector, timeout)


def log(cluster: client.ApiClient, namespace: str, pod: str, lines: int) -> str:
    """The last lines of a pod's log, each with its time (RFC 3339) before it. Errors: as `get`."""
    with _explained(cluster, f"the log of {pod} in {namespace}"):
        answer: Any = cluster.call_api(
            f"/api/v1/namespaces/{namespace}/pods/{pod}/log",
            "GET",
            query_params=[("timestamps", "true"), ("tailLines", str(lines))],
            auth_settings=["BearerToken"],
            _preload_content=False,
            _return_http_data_only=True,
            _request_timeout=TIMEOUT_SECONDS,
        )
        return bytes(answer.data).decode(errors="replace")


def change(cluster: client.ApiClient, method: str, path: str, body: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """POST, PATCH (a JSON merge patch), GET or DELETE with a body; None when there is no such thing (404), or when
    what is to be made is there already (409).

    Errors: `ClusterUnreachable` when the API gives no answer or refuses it.
    """
    kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
    with _explained(cluster, f"{method} {path}"):
        try:
            answer: Any = cluster.call_api(
                path,
                method,
                header_params={"Accept": "application/json", "Content-Type": kind},
                body=body,
                auth_settings=["BearerToken"],
                response_type="object",
                _return_http_data_only=True,
                _request_timeout=TIMEOUT_SECONDS,
            )
        except ApiException as error:
            if error.status in (404, 409):
                return None
            raise
        return dict(answer)


def delete(cluster: client.ApiClient, path: str) -> bool:
    """DELETE one object in the foreground; whether there was something to delete.

    Errors: `ClusterUnreachable` when the API gives no answer or refuses it.
    """
    return _call(cluster, "DELETE", path, "") is not None


def secret(cluster: client.ApiClient, namespace: str, name: str) -> dict[str, str]:
    """The decoded fields of a Secret.

    Errors: `ClusterUnreachable` when there is no such Secret, or as `get`.
    """
    found = get(cluster, f"/api/v1/namespaces/{namespace}/secrets/{name}")
    if found is None:
        raise ClusterUnreachable(
            f"there is no Secret {name} in namespace {namespace}; "
            "run `scripts/classroom platform up` for the platform's, `scripts/classroom up` for a seat's, "
            "or name the right one under `object_store` in the class file"
        )
    return {key: base64.b64decode(value).decode() for key, value in (found.get("data") or {}).items()}


def post_to_service(
    cluster: client.ApiClient, namespace: str, service: str, path: str, body: bytes, headers: Mapping[str, str]
) -> tuple[Mapping[str, str], bytes]:
    """POST to `service` (name:port) through the API server's proxy, which speaks HTTP/1.1: headers and body answered.

    Errors: `ClusterUnreachable` when the API or the service gives no answer or refuses one.
    """
    with _explained(cluster, f"POST to {service} in {namespace}"):
        answer: Any = cluster.call_api(
            f"/api/v1/namespaces/{namespace}/services/{service}/proxy/{path}",
            "POST",
            header_params=dict(headers),
            body=body,
            auth_settings=["BearerToken"],
            _preload_content=False,
            _return_http_data_only=True,
            _request_timeout=TIMEOUT_SECONDS,
        )
        return answer.headers, answer.data


def _call(
    cluster: client.ApiClient,
    method: str,
    path: str,
    selector: str,
    timeout: tuple[float, float] = TIMEOUT_SECONDS,
) -> dict[str, Any] | None:
    with _explained(cluster, f"{method} {path}"):
        try:
            answer: Any = cluster.call_api(
                path,
                method,
                query_params=[("labelSelector", selector)] if selector else [],
                header_params={"Accept": "application/json"},
                auth_settings=["BearerToken"],
                response_type="object",
                _return_http_data_only=True,
                _request_timeout=timeout,
            )
        except ApiException as error:
            if error.status == 404:
                return None
            raise
        return dict(answer)


@contextmanager
def _explained(cluster: client.ApiClient, asked: str) -> Iterator[None]:
    try:
        yield
    except ApiException as error:
        # The body can repeat what was sent, so only the status is told.
        raise ClusterUnreachable(
            f"the Kubernetes API answered {error.status} {error.reason} to {asked}; "
            "check the rights and the address that the kubeconfig gives"
        ) from None
    except (HTTPError, OSError) as error:
        raise ClusterUnreachable(
            f"the Kubernetes API at {cluster.configuration.host} does not answer ({type(error).__name__}); "
            "run `classroom platform status`"
        ) from None
