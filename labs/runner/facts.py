"""What was seen of one lab, rehearsed as one student: facts only, no judgement. Stored as facts.json.

What could not be looked at stands in `gaps` by its source, with the reason: an empty list says "there is nothing" only
when its source is no gap.
"""

from collections.abc import Iterable, Mapping
from graphlib import TopologicalSorter
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, JsonValue

from labs.runner.clients import mlmd

Source = Literal["server", "api", "mlmd", "kubernetes", "bucket"]
"""Notebook server, KFP's API, ML Metadata, the Kubernetes API, the student's bucket."""

_CONTAINER = "system.ContainerExecution"
_IMPORTER = "system.ImporterExecution"
_HOW_TO_REACH = "store_session_info"
"""What KFP's launcher notes with each artifact for itself: where the object store is."""


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LoginFacts(_Facts):
    """The login at the gateway."""

    ok: bool
    seconds: float
    error: str = ""


class SeedFacts(_Facts):
    """The student's own copy of the notebook: `made`, there `unchanged`, or there `edited` (and then left alone)."""

    state: Literal["made", "unchanged", "edited", "failed"]
    seconds: float
    path: str
    detail: str = ""


class CellFacts(_Facts):
    """A cell of the rehearsed copy. `output` is what a person would read in its outputs."""

    tag: str
    state: Literal["ok", "error", "timeout", "dead", "not-run"]
    seconds: float = 0.0
    output: str = ""
    error: str = ""
    attempts: int = 0


class ActionFacts(_Facts):
    """What a step did that is no cell: fetched a file, uploaded a pipeline, started a run. `made` is the id it got."""

    step: str
    state: Literal["ok", "error", "not-run"]
    seconds: float = 0.0
    made: str = ""
    error: str = ""


class FileFacts(_Facts):
    """A file beside the rehearsed notebook; `text` is None when there is none."""

    path: str
    text: str | None


class ArtifactFacts(_Facts):
    """What a task took (INPUT) or made (OUTPUT), with the place it lies at.

    `id` is ML Metadata's, the same for whoever made it and whoever takes it: lineage follows it. `bytes` is what lies
    at `uri` in the student's bucket, None when nothing does.
    """

    name: str
    type: str
    uri: str
    state: str
    event: str
    id: int = 0
    properties: dict[str, JsonValue] = {}
    bytes: int | None = None


class PodFacts(_Facts):
    """The pod of a task as Kubernetes gave it while it was there; `manifest` is its YAML without managed fields."""

    name: str
    phase: str
    image: str
    service_account: str
    volumes: tuple[str, ...] = ()
    manifest: str = ""


class TaskFacts(_Facts):
    """A task of a run, in its order. `id` is KFP's, `execution` ML Metadata's, `pod` the pod's name; times are UTC, ISO
    8601. `inputs` and `outputs` are None when nothing recorded them, `log` when no log was found in the pod or the
    bucket. One that `imports` says where something lies already: it makes nothing, and no component runs."""

    name: str
    after: tuple[str, ...] = ()
    id: str = ""
    state: str = ""
    started: str = ""
    finished: str = ""
    seconds: float | None = None
    execution: int = 0
    imports: bool = False
    pod: str = ""
    namespace: str = ""
    inputs: dict[str, JsonValue] | None = None
    outputs: dict[str, JsonValue] | None = None
    artifacts: tuple[ArtifactFacts, ...] = ()
    seen_pod: PodFacts | None = None
    log: str | None = None
    log_from: Literal["", "pod", "bucket"] = ""


class PipelineFacts(_Facts):
    """A pipeline as KFP lists it. `made_by` is the step that uploaded it; `graph` is each task with those before it."""

    made_by: str
    pipeline_id: str
    version_id: str = ""
    name: str = ""
    description: str = ""
    graph: dict[str, tuple[str, ...]] = {}
    yaml: str = ""


class RunFacts(_Facts):
    """A run. `submitted_by` is the step that submitted it; `seconds` is from the submission until its end was seen.

    `pipeline_id` and `version_id` name the uploaded pipeline it was started from, empty for a run that brought its own
    (`pipeline_yaml`). `listed` says whether the experiment's list of runs shows it.
    """

    submitted_by: str
    run_id: str
    name: str = ""
    state: str = ""
    error: str = ""
    experiment: str = ""
    experiment_namespace: str = ""
    parameters: dict[str, JsonValue] = {}
    created: str = ""
    finished: str = ""
    seconds: float | None = None
    pipeline_id: str = ""
    version_id: str = ""
    service_account: str = ""
    pipeline_root: str = ""
    pipeline_name: str = ""
    pipeline_yaml: str = ""
    listed: bool = False
    workflow: str = ""
    workflow_namespace: str = ""
    resubmitted: int = 0
    tasks: tuple[TaskFacts, ...] = ()


class ObjectFacts(_Facts):
    """An object in the student's bucket."""

    key: str
    bytes: int


class Facts(_Facts):
    """All that was seen of one lab as one student."""

    lab: str
    student: str
    namespace: str
    bucket: str
    server: str
    login: LoginFacts | None = None
    seed: SeedFacts | None = None
    cells: tuple[CellFacts, ...] = ()
    actions: tuple[ActionFacts, ...] = ()
    files: tuple[FileFacts, ...] = ()
    experiments: tuple[str, ...] = ()
    pipelines: tuple[PipelineFacts, ...] = ()
    runs: tuple[RunFacts, ...] = ()
    objects: tuple[ObjectFacts, ...] = ()
    notes: tuple[str, ...] = ()
    """What the rehearsal survived: a run submitted again, a service that restarted."""
    gaps: dict[Source, str] = {}

    def cell(self, tag: str) -> CellFacts | None:
        """The cell of that tag; None when the notebook has none."""
        return next((cell for cell in self.cells if cell.tag == tag), None)

    def action(self, step: str) -> ActionFacts | None:
        """What that step did; None when it is none that acts."""
        return next((action for action in self.actions if action.step == step), None)

    def pipeline(self, step: str) -> PipelineFacts | None:
        """The pipeline that a step uploaded; None when it uploaded none."""
        return next((pipeline for pipeline in self.pipelines if pipeline.made_by == step), None)

    def run(self, step: str) -> RunFacts | None:
        """The run that a step submitted; None when it submitted none."""
        return next((run for run in self.runs if run.submitted_by == step), None)

    def file(self, path: str) -> FileFacts | None:
        """The file of that path; None when it was not looked for."""
        return next((file for file in self.files if file.path == path), None)


def edges(pipeline_spec: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Each task of a pipeline's graph with the tasks it waits for, after which it stands; else in order of the names.

    `pipeline_spec` is KFP's: with a platform part beside it, or alone.
    """
    tasks = plain_spec(pipeline_spec).get("root", {}).get("dag", {}).get("tasks", {})
    found = {}
    # The specification is a map, which JSON gives in any order.
    for name, task in sorted(tasks.items()):
        inputs = [*task.get("inputs", {}).get("parameters", {}).values()]
        inputs += task.get("inputs", {}).get("artifacts", {}).values()
        producers = (
            given.get(kind, {}).get("producerTask")
            for given in inputs
            for kind in ("taskOutputParameter", "taskOutputArtifact")
        )
        found[name] = tuple(dict.fromkeys([*task.get("dependentTasks", ()), *(p for p in producers if p)]))
    return {name: found[name] for name in TopologicalSorter(found).static_order() if name in found}


def plain_spec(pipeline_spec: Mapping[str, Any]) -> Mapping[str, Any]:
    """KFP's PipelineSpec, which may have a platform part beside it."""
    return pipeline_spec.get("pipeline_spec", pipeline_spec)


def tasks(
    graph: Mapping[str, tuple[str, ...]],
    executions: Iterable[mlmd.Execution],
    artifacts: Iterable[mlmd.Artifact],
    events: Iterable[mlmd.Event],
) -> tuple[TaskFacts, ...]:
    """The tasks of a run: the graph says which there are and their order, ML Metadata what each took and made."""
    known = {artifact.id: artifact for artifact in artifacts}
    happened = list(events)
    seen: dict[str, TaskFacts] = {}
    # The store promises no order; of a task that was tried more than once the last try counts.
    for execution in sorted(executions, key=lambda execution: execution.id):
        if execution.type_ not in (_CONTAINER, _IMPORTER):
            continue
        properties = mlmd.plain(execution.custom_properties.items())
        name = str(properties.get("task_name") or properties.get("display_name") or execution.name)
        milliseconds = execution.last_update_time_since_epoch - execution.create_time_since_epoch
        seen[name] = TaskFacts(
            name=name,
            after=graph.get(name, ()),
            state=mlmd.named(mlmd.EXECUTION_STATES, execution.last_known_state),
            seconds=milliseconds / 1000 if milliseconds >= 0 else None,
            execution=execution.id,
            imports=execution.type_ == _IMPORTER,
            pod=str(properties.get("pod_name") or ""),
            namespace=str(properties.get("namespace") or ""),
            inputs=properties.get("inputs") or {},
            outputs=properties.get("outputs") or {},
            artifacts=tuple(
                _artifact(known[event.artifact_id], event)
                for event in happened
                if event.execution_id == execution.id and event.artifact_id in known
            ),
        )
    waiting = {name: TaskFacts(name=name, after=after) for name, after in graph.items() if name not in seen}
    return tuple((seen | waiting)[name] for name in [*graph, *(name for name in seen if name not in graph)])


def detailed(tasks: Iterable[TaskFacts], details: Iterable[Mapping[str, Any]]) -> tuple[TaskFacts, ...]:
    """The tasks with the id, start and end that KFP's API gives each; `details` are a run's `task_details`.

    They are Argo's nodes: a task's is called as the task, and stands beside its driver's and one called `executor`.
    """
    by_name = {str(detail.get("display_name", "")): detail for detail in details}
    return tuple(
        task.model_copy(
            update={
                "id": str(detail.get("task_id", "")),
                "started": moment(detail.get("start_time")),
                "finished": moment(detail.get("end_time")),
            }
        )
        if (detail := by_name.get(task.name))
        else task
        for task in tasks
    )


def moment(time: object) -> str:
    """A time of KFP's API; empty when there is none, which the API server tells as the start of 1970."""
    return "" if not time or str(time).startswith("1970-01-01") else str(time)


def _artifact(artifact: mlmd.Artifact, event: mlmd.Event) -> ArtifactFacts:
    properties = mlmd.plain([*artifact.properties.items(), *artifact.custom_properties.items()])
    named = next((step.key for step in event.path.steps if step.key), "")
    return ArtifactFacts(
        name=named or artifact.name or artifact.uri.rpartition("/")[2],
        type=artifact.type_,
        uri=artifact.uri,
        state=mlmd.named(mlmd.ARTIFACT_STATES, artifact.state),
        event=mlmd.named(mlmd.EVENT_TYPES, event.type_),
        id=artifact.id,
        properties={key: value for key, value in properties.items() if key != _HOW_TO_REACH},
    )
