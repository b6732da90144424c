"""KFP's API as the student, through the gateway: what the SDK and the dashboard ask."""

import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from labs.runner.clients.session import GatewaySession, NoAnswerError, decoded

_API = "/pipeline/apis/v2beta1"
# Pods' logs have no newer way.
_LOGS = "/pipeline/apis/v1alpha1"
_PAGE = 100


class Pipelines:
    """Reads one namespace, and takes back what the rehearsal itself made.

    Every call is repeated while the API server restarts, for `patience_seconds` at most; then it is a `NoAnswerError`.
    """

    def __init__(
        self,
        session: GatewaySession,
        namespace: str,
        *,
        patience_seconds: float = 90,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._session = session
        self._namespace = namespace
        self._patience_seconds = patience_seconds
        self._clock = clock

    def wait(self) -> None:
        """Return when the API server answers."""
        self._get("/healthz")

    def experiments(self) -> list[dict[str, Any]]:
        """The namespace's experiments."""
        return self._list("/experiments", "experiments")

    def runs(self, experiment_id: str = "") -> list[dict[str, Any]]:
        """The namespace's youngest runs, with `experiment_id` only those of that experiment, at most a page of them:
        one call, however many runs are watched."""
        params: dict[str, str | int] = {"namespace": self._namespace, "page_size": _PAGE, "sort_by": "created_at desc"}
        if experiment_id:
            params["experiment_id"] = experiment_id
        return list(self._get("/runs", params).get("runs", ()))

    def run(self, run_id: str) -> dict[str, Any]:
        """All that the API server knows of a run; empty when there is none (any more)."""
        return self._get_one(f"/runs/{run_id}")

    def pipelines(self) -> list[dict[str, Any]]:
        """The namespace's uploaded pipelines."""
        return self._list("/pipelines", "pipelines")

    def pipeline(self, pipeline_id: str) -> dict[str, Any]:
        """An uploaded pipeline; empty when there is none (any more)."""
        return self._get_one(f"/pipelines/{pipeline_id}")

    def version(self, pipeline_id: str, version_id: str) -> dict[str, Any]:
        """A version of an uploaded pipeline, with its `pipeline_spec`; empty when there is none (any more)."""
        return self._get_one(f"/pipelines/{pipeline_id}/versions/{version_id}")

    def log(self, run_id: str, pod: str) -> str:
        """What a pod of a run has printed, as the dashboard shows it; empty when the pod is gone or shows nothing."""
        path = f"{_LOGS}/runs/{run_id}/nodes/{pod}/log"
        answer = self._session.patient_call("GET", path, until=self._until())
        return "" if answer.status_code >= HTTPStatus.BAD_REQUEST else answer.content.decode("utf-8", "replace")

    def upload(self, file_name: str, package: bytes, *, name: str, display_name: str, description: str) -> str:
        """A new pipeline with its first version from a file's content; its id. `name` must be free in the namespace,
        `display_name` is what the dashboard shows and may be anything.

        Source: KFP 2.14, backend/src/apiserver/server/pipeline_upload_server.go.
        """
        answer = self._session.patient_call(
            "POST",
            f"{_API}/pipelines/upload",
            until=self._until(),
            params={
                "name": name,
                "display_name": display_name,
                "description": description,
                "namespace": self._namespace,
            },
            files={"uploadfile": (file_name, package)},
        )
        if answer.status_code == HTTPStatus.CONFLICT:
            # An earlier try was taken, though its answer got lost.
            return str(self._get(f"/pipelines/names/{quote(name)}", {"namespace": self._namespace})["pipeline_id"])
        return str(decoded(answer)["pipeline_id"])

    def first_version(self, pipeline_id: str) -> str:
        """The id of the version that a pipeline's upload made. Errors: `NoAnswerError` when there is none any more."""
        page = self._get(f"/pipelines/{pipeline_id}/versions", {"page_size": 1, "sort_by": "created_at asc"})
        versions = page.get("pipeline_versions")
        if not versions:
            raise NoAnswerError(f"the pipeline {pipeline_id} has no version any more; it has to be uploaded again")
        return str(versions[0]["pipeline_version_id"])

    def start(
        self,
        *,
        name: str,
        description: str,
        experiment_id: str,
        pipeline_id: str,
        version_id: str,
        parameters: Mapping[str, Any],
    ) -> str:
        """A new run of a pipeline's version; its id."""
        body = {
            "display_name": name,
            "description": description,
            "experiment_id": experiment_id,
            "pipeline_version_reference": {"pipeline_id": pipeline_id, "pipeline_version_id": version_id},
            "runtime_config": {"parameters": dict(parameters)},
        }
        answer = self._session.patient_call("POST", f"{_API}/runs", until=self._until(), json=body)
        return str(decoded(answer)["run_id"])

    def delete_pipeline(self, pipeline_id: str) -> None:
        """Take a pipeline back with its versions; nothing when it is gone already."""
        self._delete(f"/pipelines/{pipeline_id}", {"cascade": "true"})

    def delete_experiment(self, experiment_id: str) -> None:
        """Take an experiment back; nothing when it is gone already. Its runs would stay without one."""
        self._delete(f"/experiments/{experiment_id}")

    def delete_run(self, run_id: str) -> None:
        """Take a run back; nothing when it is gone already."""
        self._delete(f"/runs/{run_id}")

    def _list(self, path: str, key: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        token = ""
        while True:
            page = self._get(path, {"namespace": self._namespace, "page_size": _PAGE, "page_token": token})
            found += page.get(key, ())
            token = page.get("next_page_token", "")
            if not token:
                return found

    def _get_one(self, path: str) -> dict[str, Any]:
        answer = self._session.patient_call("GET", _API + path, until=self._until())
        found: dict[str, Any] = {} if answer.status_code == HTTPStatus.NOT_FOUND else decoded(answer)
        return found

    def _get(self, path: str, params: dict[str, str | int] | None = None) -> Any:
        return decoded(self._session.patient_call("GET", _API + path, until=self._until(), params=params))

    def _delete(self, path: str, params: dict[str, str | int] | None = None) -> None:
        answer = self._session.patient_call("DELETE", _API + path, until=self._until(), params=params)
        if answer.status_code != HTTPStatus.NOT_FOUND:
            decoded(answer)

    def _until(self) -> float:
        return self._clock() + self._patience_seconds
