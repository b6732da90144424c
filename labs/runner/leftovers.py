"""What a rehearsal makes in a student's name, written down as it is made, and taken back afterwards.

The record lies in the rehearsal's folder of the workspace, so that the next rehearsal finds what one that was killed
could not take back. What is not in a record, or does not bear its id, is the student's and is left alone.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import requests
from pydantic import BaseModel, ConfigDict, ValidationError

from labs.kubeflow_login import LoginError
from labs.runner.clients.bucket import Bucket
from labs.runner.clients.cluster import Cluster
from labs.runner.clients.jupyter import KernelDiedError, NotebookServer
from labs.runner.clients.pipelines import Pipelines
from labs.runner.clients.session import NoAnswerError
from labs.runner.collect import UNANSWERED

RECORD = "rehearsal.json"
# Pods that were told to end may still write what they have.
_SECONDS_TO_END = 40.0
_SECONDS_BETWEEN_LOOKS = 2.0
# A run may be entered this much before or after it was asked for, as the two clocks tell it.
_CLOCKS_DIFFER = timedelta(seconds=5)
_SUBMITTING = timedelta(minutes=4)


class Made(BaseModel):
    """What one rehearsal made. Every pipeline's name and every run's description that it chose itself holds `id`.

    `submitting` is since when a cell may have started a run whose id was not seen (UTC, ISO 8601), empty for never.
    `kept_at` is when a rehearsal that was to be kept ended (seconds since the epoch).
    """

    model_config = ConfigDict(extra="ignore")

    id: str
    experiments_before: list[str] = []
    runs: list[str] = []
    pipelines: list[str] = []
    submitting: str = ""
    kept_at: float | None = None


@dataclass(kw_only=True)
class Record:
    """`made`, kept in `folder` of a student's workspace."""

    server: NotebookServer
    folder: str
    made: Made

    def write(self) -> None:
        """Put it down. A server that does not take it is not worth failing for: it serves the next rehearsal only."""
        with suppress(NoAnswerError, LoginError, requests.RequestException):
            self.server.write_text(f"{self.folder}/{RECORD}", self.made.model_dump_json(indent=1))


def found(server: NotebookServer, folder: str) -> Record | None:
    """What an earlier rehearsal left in a folder; None when it holds no record, and so is not a rehearsal's.

    Errors: as `NotebookServer.read_text`.
    """
    text = server.read_text(f"{folder}/{RECORD}")
    with suppress(ValidationError):
        return Record(server=server, folder=folder, made=Made.model_validate_json(text)) if text else None
    return None


def now() -> str:
    """UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(kw_only=True)
class Removal:
    """Takes back what the record names. Nothing is raised: `left` says in words what could not be removed, `said` what
    was left alone on purpose."""

    record: Record
    namespace: str
    artifacts: str
    """The folder of the bucket that runs write below."""
    experiments: frozenset[str]
    """How the lab calls its experiments: one is there though no run got into it, when the cell failed in between."""
    pipelines: Pipelines
    cluster: Cluster
    bucket: Bucket
    clean: Callable[[str], str]

    def __post_init__(self) -> None:
        self.left: list[str] = []
        self.said: list[str] = []

    @property
    def made(self) -> Made:
        """What the record names."""
        return self.record.made

    def remove(self) -> None:
        """Runs with their pods and objects, pipelines, experiments that were not there before; then the folder, whose
        record stays for the next time when something is left."""
        listed: list[dict[str, Any]] = []
        with self._told("the namespace's runs"):
            listed = self.pipelines.runs()
        runs = list(dict.fromkeys([*self.made.runs, *(run["run_id"] for run in listed if self._is_marked(run))]))
        used = {run["run_id"]: str(run.get("experiment_id", "")) for run in listed}
        names = [*runs]
        for run_id in runs:
            with self._told(f"run {run_id}"):
                if run_id not in used:
                    used[run_id] = str(self.pipelines.run(run_id).get("experiment_id", ""))
                if workflow := self.cluster.workflow(self.namespace, run_id):
                    names.append(str(workflow["metadata"]["name"]))
                self.pipelines.delete_run(run_id)
        self._say_unsure(listed, runs)
        self._remove_pipelines()
        self._remove_experiments({used[run_id] for run_id in runs if run_id in used})
        if runs:
            with self._told("the runs' pods"):
                self._wait_for_pods(runs)
            with self._told(f"the runs' objects in the bucket {self.bucket.name}"):
                keys = self.bucket.keys(f"{self.artifacts}/")
                self.bucket.remove(key for key in keys if any(name in key.split("/") for name in names))
        if not self.left:
            self._remove_folder()

    def _remove_folder(self) -> None:
        """The rehearsal's folder, but for what the student changed in one that was kept."""
        with self._told(f"the folder {self.record.folder} of the workspace"):
            # At work in the workspace itself: from within, a folder is not removed.
            with self.record.server.kernel("rehearsal.ipynb") as kernel:
                since = self.made.kept_at
                kept = kernel.remove_folder(self.record.folder, unchanged_since=since and since + 1)
            self.said += [f"{path} was changed by the student and stays" for path in kept]

    def _is_marked(self, thing: dict[str, Any]) -> bool:
        return self.made.id in str(thing.get("description", "")) or self.made.id in str(thing.get("name", ""))

    def _say_unsure(self, listed: list[dict[str, Any]], ours: list[str]) -> None:
        """A cell may have started a run whose id was never seen. It cannot be told from a student's own: only said."""
        if not self.made.submitting:
            return
        since = datetime.fromisoformat(self.made.submitting)
        for run in listed:
            created = datetime.fromisoformat(str(run.get("created_at", "")) or now())
            if run["run_id"] not in ours and since - _CLOCKS_DIFFER <= created <= since + _SUBMITTING:
                self.said.append(
                    f"run {run['run_id']} “{run.get('display_name', '')}” may be of a rehearsal that was broken off or "
                    "the student's own; it was left alone"
                )

    def _remove_pipelines(self) -> None:
        with self._told("the uploaded pipelines"):
            marked = [p["pipeline_id"] for p in self.pipelines.pipelines() if self._is_marked(p)]
            for pipeline_id in dict.fromkeys([*self.made.pipelines, *marked]):
                self.pipelines.delete_pipeline(pipeline_id)

    def _remove_experiments(self, used: set[str]) -> None:
        with self._told("the experiments"):
            for experiment in self.pipelines.experiments():
                identity, name = str(experiment["experiment_id"]), str(experiment.get("display_name", ""))
                if identity in self.made.experiments_before or not (identity in used or name in self.experiments):
                    continue
                # The student may work in it by now, and its runs would be left without one.
                if self.pipelines.runs(experiment_id=identity):
                    self.said.append(f"experiment “{name}” has runs of the student's by now and stays")
                else:
                    self.pipelines.delete_experiment(identity)

    def _wait_for_pods(self, runs: list[str]) -> None:
        until = time.monotonic() + _SECONDS_TO_END
        while pods := [pod["metadata"]["name"] for pod in self.cluster.pods(self.namespace, runs)]:
            if time.monotonic() > until:
                self.left.append(f"pods still end: {', '.join(pods)}; what they write last may stay in the bucket")
                return
            time.sleep(_SECONDS_BETWEEN_LOOKS)

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        try:
            yield
        except (*UNANSWERED, KernelDiedError) as error:
            self.left.append(f"{what} could not be removed: {self.clean(str(error))}")
