"""KFP's API as the student, through the gateway: what the SDK and the dashboard ask."""

import json
import time
from collections.abc import Callable
from typing import Any

from labs.runner.session import GatewaySession, decoded

_API = "/pipeline/apis/v2beta1"
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

    def runs(self, names: set[str] | None = None) -> list[dict[str, Any]]:
        """The namespace's youngest runs, at most a page of them: one call, however many runs are watched.

        With `names` only runs called so.
        """
        params: dict[str, str | int] = {"namespace": self._namespace, "page_size": _PAGE, "sort_by": "created_at desc"}
        if names and len(names) == 1:
            wanted = {"predicates": [{"key": "name", "operation": "EQUALS", "string_value": next(iter(names))}]}
            params["filter"] = json.dumps(wanted)
        return list(self._get("/runs", params).get("runs", ()))

    def run(self, run_id: str) -> dict[str, Any]:
        """All that the API server knows of a run."""
        return self._get(f"/runs/{run_id}")

    def delete_run(self, run_id: str) -> None:
        """Take a run back; nothing when it is gone already."""
        until = self._clock() + self._patience_seconds
        answer = self._session.patient_call("DELETE", f"{_API}/runs/{run_id}", until=until)
        if answer.status_code != 404:
            decoded(answer)

    def _list(self, path: str, key: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        token = ""
        while True:
            page = self._get(path, {"namespace": self._namespace, "page_size": _PAGE, "page_token": token})
            found += page.get(key, ())
            token = page.get("next_page_token", "")
            if not token:
                return found

    def _get(self, path: str, params: dict[str, str | int] | None = None) -> Any:
        until = self._clock() + self._patience_seconds
        return decoded(self._session.patient_call("GET", _API + path, until=until, params=params))
