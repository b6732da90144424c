"""Looking at what a lab left in KFP, ML Metadata, Kubernetes and the bucket, as facts. Starts and changes nothing.

What cannot be looked at becomes a gap with its reason; nothing is raised. A source that did not answer once is not
asked again, so that a platform that is down costs one time limit and not one for each question.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import requests
import yaml

from infra.cluster import ClusterUnreachable
from labs.kubeflow_login import LoginError
from labs.runner import facts as seen
from labs.runner.clients import mlmd
from labs.runner.clients.cluster import RUN_LABEL, BucketUnreadableError, Cluster
from labs.runner.clients.pipelines import Pipelines
from labs.runner.clients.session import NoAnswerError
from labs.runner.lab import Lab

UNANSWERED = (
    NoAnswerError,
    LoginError,
    ClusterUnreachable,
    BucketUnreadableError,
    mlmd.MetadataError,
    requests.RequestException,
)
"""What a question to the platform raises when it is not answered."""

YAML_CHARACTERS = 40_000
LOG_BYTES = 8_000
"""The end of a log is kept: what went wrong stands there."""
# So much of it is asked of the bucket: of a secret that the cut goes through, the rest falls to the second cut.
_CUT_BYTES = 2 * LOG_BYTES

EXECUTOR_LOGS = "executor-logs"
"""The artifact that KFP's launcher writes a task's log to."""

# A template of Argo's is in the environment of each container of a pod, and as long as the rest of it.
_VALUE_CHARACTERS = 100
_TEXT_CHARACTERS = 1_500
# In a container's status, what its part of the spec says as well.
_TWICE = frozenset({"volumeMounts", "resources", "allocatedResources"})
_SECRET = re.compile(r"pass|secret|token|key|credential|auth", re.IGNORECASE)
_MAIN = "main"
_ARGO_SAYS = re.compile(r'\{"argo":true|time="[^"]*" level=|Error: exit status \d+$')
_ENDED_BY = re.compile(r"F\d{4} |panic: |fatal error: ")

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Started:
    """A run to look at: the step that started it, and what its watcher knows. Seconds until its end was seen."""

    step: str
    run_id: str
    seconds: float | None = None
    resubmitted: int = 0


@dataclass(frozen=True, kw_only=True)
class Uploaded:
    """A pipeline to look at: the step that uploaded it, and the ids that KFP gave it."""

    step: str
    pipeline_id: str
    version_id: str


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

    _pods: dict[str, seen.PodFacts] = field(default_factory=dict)
    _there: frozenset[str] = frozenset()
    _failed: dict[str, str] = field(default_factory=dict)
    _specs: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    _silent: set[seen.Source] = field(default_factory=set)

    def look_at_pods(self, *run_ids: str) -> None:
        """Remember the pods of these runs as they are now, for `left`; one call, however many runs.

        Here pods stay until their workflow goes, a day after its end or with its run, and `left` looks at them itself.
        Where Argo's podGC takes them when they end, this must be called while a run is under way, or just seen ended.
        """
        found = self._ask("kubernetes", lambda: self.cluster.pods(self.namespace, run_ids), []) if run_ids else []
        self._there = frozenset(str(pod["metadata"]["name"]) for pod in found)
        self._failed |= {
            str(pod["metadata"].get("labels", {}).get(RUN_LABEL, "")): str(pod["metadata"]["name"])
            for pod in found
            if pod["status"].get("phase") == "Failed"
        }
        self._pods |= {str(pod["metadata"]["name"]): _pod(pod, self.clean) for pod in found if _runs_a_task(pod)}

    def left(self, started: Iterable[Started], uploaded: Iterable[Uploaded] = ()) -> dict[str, Any]:
        """The fields `experiments`, `pipelines`, `runs`, `objects` and `gaps` of `Facts`."""
        experiments = self._ask("api", self.pipelines.experiments, [])
        pipelines = tuple(self._pipeline(each) for each in uploaded)
        told = {run: self._ask("api", lambda run=run: self.pipelines.run(run.run_id), {}) for run in started}
        used = dict.fromkeys(str(run["experiment_id"]) for run in told.values() if run.get("experiment_id"))
        listed = {
            str(run.get("run_id", ""))
            for experiment_id in used
            for run in self._ask("api", lambda one=experiment_id: self.pipelines.runs(experiment_id=one), [])
        }
        self.look_at_pods(*(run.run_id for run in told))
        sizes = self._sizes()
        runs = tuple(
            self._run(run, answer, experiments, listed=run.run_id in listed, sizes=sizes)
            for run, answer in told.items()
        )
        ours = {run.run_id for run in runs} | {run.workflow for run in runs if run.workflow}
        return {
            "experiments": tuple(str(experiment.get("display_name", "")) for experiment in experiments),
            "pipelines": pipelines,
            "runs": self._with_logs(runs, sizes),
            "objects": tuple(
                seen.ObjectFacts(key=key, bytes=size)
                for key, size in sizes.items()
                if not ours.isdisjoint(key.split("/"))
            ),
            "gaps": dict(self.gaps),
        }

    def _ask(self, source: seen.Source, question: Callable[[], T], otherwise: T) -> T:
        """What the source answers; when it does not answer, `otherwise`, and a gap."""
        if source in self._silent:
            return otherwise
        try:
            return question()
        except UNANSWERED as error:
            self._silent.add(source)
            self.gaps[source] = self.clean(str(error))
            return otherwise

    def _pipeline(self, uploaded: Uploaded) -> seen.PipelineFacts:
        told = self._ask("api", lambda: self.pipelines.pipeline(uploaded.pipeline_id), {})
        spec = self._spec(uploaded.pipeline_id, uploaded.version_id)
        return seen.PipelineFacts(
            made_by=uploaded.step,
            pipeline_id=uploaded.pipeline_id,
            version_id=uploaded.version_id,
            name=str(told.get("display_name", "")),
            description=str(told.get("description", "")),
            graph=seen.edges(spec),
            yaml=self._yaml(spec),
        )

    def _spec(self, pipeline_id: str, version_id: str) -> dict[str, Any]:
        """What an uploaded version says; asked for once, though the pipeline and its runs need it."""
        ids = (pipeline_id, version_id)
        if ids not in self._specs:
            version = self._ask("api", lambda: self.pipelines.version(*ids), {})
            self._specs[ids] = version.get("pipeline_spec") or {}
        return self._specs[ids]

    def _sizes(self) -> dict[str, int]:
        """Bytes of each object below the folders that the lab's checks look into, by key."""
        folders = dict.fromkeys(getattr(check, "under", None) for step in self.lab.steps for check in step.checks)
        return {
            key: size
            for folder in folders
            if folder
            for key, size in self._ask(
                "bucket", lambda under=folder: self.cluster.objects(self.namespace, self.bucket, under), []
            )
        }

    def _run(
        self,
        started: Started,
        told: dict[str, Any],
        experiments: list[dict[str, Any]],
        *,
        listed: bool,
        sizes: Mapping[str, int],
    ) -> seen.RunFacts:
        source = told.get("pipeline_version_reference") or {}
        pipeline_id, version_id = str(source.get("pipeline_id", "")), str(source.get("pipeline_version_id", ""))
        spec = self._spec(pipeline_id, version_id) if version_id else told.get("pipeline_spec") or {}
        workflow = self._ask("kubernetes", lambda: self.cluster.workflow(self.namespace, started.run_id), None)
        metadata = (workflow or {}).get("metadata", {})
        store = self.cluster.metadata(self.namespace)
        root = self._ask("mlmd", lambda: store.pipeline_root(started.run_id), "")
        recorded = self._ask("mlmd", lambda: store.run(started.run_id), ([], [], []))
        # The graph says which tasks there should be, whether or not anything was recorded of them.
        tasks = seen.detailed(
            seen.tasks(seen.edges(spec), *recorded), (told.get("run_details") or {}).get("task_details") or ()
        )
        experiment = next((e for e in experiments if e.get("experiment_id") == told.get("experiment_id")), {})
        return seen.RunFacts(
            submitted_by=started.step,
            run_id=started.run_id,
            name=told.get("display_name", ""),
            state=told.get("state", ""),
            error=self.clean(str((told.get("error") or {}).get("message", ""))) or self._last_words(started.run_id),
            experiment=experiment.get("display_name", ""),
            experiment_namespace=experiment.get("namespace", ""),
            parameters=(told.get("runtime_config") or {}).get("parameters") or {},
            created=seen.moment(told.get("created_at")),
            finished=seen.moment(told.get("finished_at")),
            seconds=started.seconds,
            pipeline_id=pipeline_id,
            version_id=version_id,
            service_account=str(told.get("service_account", "")),
            pipeline_root=root,
            pipeline_name=str(seen.plain_spec(spec).get("pipelineInfo", {}).get("name", "")),
            pipeline_yaml=self._yaml(spec),
            listed=listed,
            workflow=metadata.get("name", ""),
            workflow_namespace=metadata.get("namespace", ""),
            resubmitted=started.resubmitted,
            tasks=tuple(
                task.model_copy(
                    update={
                        "seen_pod": self._pods.get(task.pod),
                        "artifacts": tuple(
                            artifact.model_copy(update={"bytes": self._bytes(artifact.uri, sizes)})
                            for artifact in task.artifacts
                        ),
                    }
                )
                for task in tasks
            ),
        )

    def _bytes(self, uri: str, sizes: Mapping[str, int]) -> int | None:
        """Bytes of the object at a URI, or of all below it: an artifact may be a folder."""
        key = self._key(uri)
        if not key or key in sizes:
            return sizes.get(key)
        below = [size for other, size in sizes.items() if other.startswith(key.rstrip("/") + "/")]
        return sum(below) if below else None

    def _key(self, uri: str) -> str:
        """The key in the student's bucket; empty when the URI points elsewhere."""
        place = f"s3://{self.bucket}/"
        return uri.removeprefix(place) if uri.startswith(place) else ""

    def _with_logs(self, runs: tuple[seen.RunFacts, ...], sizes: Mapping[str, int]) -> tuple[seen.RunFacts, ...]:
        """The runs with each task's log: the pod's while it is there, else what the launcher wrote to the bucket."""
        from_pods = {
            task.pod: log
            for run in runs
            for task in run.tasks
            if task.pod in self._there and (log := self._pod_log(run.run_id, task.pod))
        }
        stored = {
            task.pod: self._key(artifact.uri)
            for run in runs
            for task in run.tasks
            for artifact in task.artifacts
            if artifact.name == EXECUTOR_LOGS and artifact.event == "OUTPUT" and task.pod not in from_pods
        }
        wanted = {key: sizes[key] for key in stored.values() if key in sizes}
        found = (
            self._ask("bucket", lambda: self.cluster.tails(self.namespace, self.bucket, wanted, _CUT_BYTES), {})
            if wanted
            else {}
        )

        def with_log(task: seen.TaskFacts) -> seen.TaskFacts:
            if task.pod in from_pods:
                return task.model_copy(update={"log": from_pods[task.pod], "log_from": "pod"})
            text = found.get(stored.get(task.pod, ""))
            if text is None:
                return task
            return task.model_copy(update={"log": self.clean(text)[-LOG_BYTES:], "log_from": "bucket"})

        return tuple(run.model_copy(update={"tasks": tuple(with_log(task) for task in run.tasks)}) for run in runs)

    def _pod_log(self, run_id: str, pod: str) -> str:
        """Empty when it is not given; the bucket may then have it, so that it is no gap."""
        if "api" in self._silent:
            return ""
        try:
            return self.clean(self.pipelines.log(run_id, pod))[-LOG_BYTES:]
        except UNANSWERED:
            return ""

    def _last_words(self, run_id: str) -> str:
        """Why a pod of the run failed, a driver's too; KFP itself does not tell. Empty when none failed."""
        pod = self._failed.get(run_id)
        said = why(self._pod_log(run_id, pod)) if pod else ""
        return f"pod {pod}: {said}" if said else ""

    def _yaml(self, value: Mapping[str, Any]) -> str:
        return _dumped(value, self.clean) if value else ""


def why(log: str) -> str:
    """The line of a failed pod's log that says why: what ended a Go program, or what was said last before Argo's own
    words about it."""
    said = [line for line in log.splitlines() if line.strip() and not _ARGO_SAYS.match(line)]
    return next((line for line in said if _ENDED_BY.match(line)), said[-1] if said else "")


def _runs_a_task(pod: Mapping[str, Any]) -> bool:
    """Whether the pod does the work of a task; KFP has others that prepare one, its drivers."""
    return any(container.get("name") == "kfp-launcher" for container in pod["spec"].get("initContainers", ()))


def _pod(pod: dict[str, Any], clean: Callable[[str], str]) -> seen.PodFacts:
    """A pod as Kubernetes gives it, without managed fields and without what could be a secret."""
    spec = pod["spec"]
    main = next((c for c in spec.get("containers", ()) if c.get("name") == _MAIN), {})
    metadata = {key: value for key, value in pod["metadata"].items() if key != "managedFields"}
    return seen.PodFacts(
        name=metadata["name"],
        phase=pod["status"].get("phase", ""),
        image=main.get("image", ""),
        service_account=spec.get("serviceAccountName", ""),
        volumes=tuple(
            f"{volume['name']} ({next((kind for kind in volume if kind != 'name'), 'emptyDir')})"
            for volume in spec.get("volumes", ())
        ),
        manifest=_dumped(
            _shortened({**pod, "metadata": metadata, "status": _without_twice(pod["status"])}, clean), clean
        ),
    )


def _without_twice(status: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: [{k: v for k, v in each.items() if k not in _TWICE} for each in value]
        if key.lower().endswith("containerstatuses")
        else value
        for key, value in status.items()
    }


def _shortened(value: Any, clean: Callable[[str], str]) -> Any:
    """With long texts cut once they are clean, and without values of environment variables that are called like a
    secret."""
    if isinstance(value, str):
        return _cut(clean(value), _TEXT_CHARACTERS)
    if isinstance(value, list):
        return [_shortened(each, clean) for each in value]
    if isinstance(value, dict):
        if isinstance(value.get("value"), str) and "name" in value:
            hidden = _SECRET.search(str(value["name"]))
            return {**value, "value": "•••" if hidden else _cut(clean(value["value"]), _VALUE_CHARACTERS)}
        return {key: _shortened(each, clean) for key, each in value.items()}
    return value


def _dumped(value: Mapping[str, Any], clean: Callable[[str], str]) -> str:
    # libyaml is some ten times as fast, and not everywhere.
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    text = yaml.dump(value, Dumper=dumper, sort_keys=False, allow_unicode=True, width=120)
    return _cut(clean(text), YAML_CHARACTERS)


def _cut(text: str, characters: int) -> str:
    return text if len(text) <= characters else f"{text[:characters]}…"
