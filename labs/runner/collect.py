"""Looking at what a lab left in KFP, ML Metadata, Kubernetes and the bucket, as facts. Starts and changes nothing.

What cannot be looked at becomes a gap with its reason; nothing is raised.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import requests

from infra.cluster import ClusterUnreachable
from labs.kubeflow_login import LoginError
from labs.runner import facts as seen
from labs.runner import mlmd
from labs.runner.checks import Objects
from labs.runner.cluster import BucketUnreadableError, Cluster
from labs.runner.lab import Lab
from labs.runner.pipelines import Pipelines
from labs.runner.session import NoAnswerError

UNANSWERED = (
    NoAnswerError,
    LoginError,
    ClusterUnreachable,
    BucketUnreadableError,
    mlmd.MetadataError,
    requests.RequestException,
)
"""What a question to the platform raises when it is not answered."""


@dataclass(frozen=True, kw_only=True)
class Started:
    """A run to look at: the step that started it, and what its watcher knows. Seconds until its end was seen."""

    step: str
    run_id: str
    seconds: float | None = None
    resubmitted: int = 0


@dataclass(kw_only=True)
class Collector:
    """Looks at one lab of one student. `clean` takes secrets out of a text."""

    lab: Lab
    namespace: str
    bucket: str
    pipelines: Pipelines
    cluster: Cluster
    clean: Callable[[str], str]
    gaps: dict[seen.Source, str] = field(default_factory=dict)

    def left(self, started: Iterable[Started]) -> dict[str, Any]:
        """The fields `experiments`, `runs`, `objects` and `gaps` of `Facts`."""
        experiments: list[dict[str, Any]] = []
        with self.gap("api"):
            experiments = self.pipelines.experiments()
        runs = [self._run(run, experiments) for run in started]
        objects: list[tuple[str, int]] = []
        for under in dict.fromkeys(c.under for s in self.lab.steps for c in s.checks if isinstance(c, Objects)):
            with self.gap("bucket"):
                objects += self.cluster.objects(self.namespace, self.bucket, under)
        ours = [run.run_id for run in runs] + [run.workflow for run in runs if run.workflow]
        return {
            "experiments": tuple(str(experiment.get("display_name", "")) for experiment in experiments),
            "runs": tuple(runs),
            "objects": tuple(
                seen.ObjectFacts(key=key, bytes=size)
                for key, size in objects
                if any(name in key.split("/") for name in ours)
            ),
            "gaps": dict(self.gaps),
        }

    def _run(self, started: Started, experiments: list[dict[str, Any]]) -> seen.RunFacts:
        told: dict[str, Any] = {}
        workflow: dict[str, Any] | None = None
        tasks: tuple[seen.TaskFacts, ...] = ()
        with self.gap("api"):
            told = self.pipelines.run(started.run_id)
        with self.gap("kubernetes"):
            workflow = self.cluster.workflow(self.namespace, started.run_id)
        graph = seen.edges(told.get("pipeline_spec") or {})
        with self.gap("mlmd"):
            tasks = seen.tasks(graph, *self.cluster.metadata().run(started.run_id))
        experiment = next((e for e in experiments if e.get("experiment_id") == told.get("experiment_id")), {})
        metadata = (workflow or {}).get("metadata", {})
        return seen.RunFacts(
            submitted_by=started.step,
            run_id=started.run_id,
            name=told.get("display_name", ""),
            state=told.get("state", ""),
            error=self.clean(str((told.get("error") or {}).get("message", ""))),
            experiment=experiment.get("display_name", ""),
            experiment_namespace=experiment.get("namespace", ""),
            parameters=(told.get("runtime_config") or {}).get("parameters") or {},
            seconds=started.seconds,
            workflow=metadata.get("name", ""),
            workflow_namespace=metadata.get("namespace", ""),
            resubmitted=started.resubmitted,
            tasks=tasks,
        )

    @contextmanager
    def gap(self, source: seen.Source) -> Iterator[None]:
        """What is not answered within becomes that source's gap."""
        try:
            yield
        except UNANSWERED as error:
            self.gaps[source] = self.clean(str(error))
