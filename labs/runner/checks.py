"""The kinds of checks, and how each judges recorded facts. Pure: nothing is looked at but the facts.

A new kind is a model here with a `judge`, and a name in `Check`.
"""

import json
import math
import re
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator
from typing_extensions import override

from labs.runner.facts import ArtifactFacts, Facts, PipelineFacts, RunFacts, Source, TaskFacts

State = Literal["pass", "fail", "not-yet", "could-not-check"]

WORST_FIRST: tuple[State, ...] = ("fail", "not-yet", "could-not-check", "pass")


class Outcome(BaseModel):
    """What a check found. `hint` says what to do and is empty on a pass."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    state: State
    expected: str
    seen: str
    hint: str = ""


def worst(states: list[State]) -> State:
    """A step is as good as its worst check; one without any check says nothing."""
    return next((state for state in WORST_FIRST if state in states), "could-not-check")


class _Check(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str

    @abstractmethod
    def expected(self, facts: Facts) -> str:
        """What would pass, in words."""

    @abstractmethod
    def judge(self, facts: Facts) -> Outcome:
        """What the facts say."""

    def _found(self, facts: Facts, state: State, seen: str, hint: str = "") -> Outcome:
        hint = hint.replace("NAMESPACE", facts.namespace).replace("STUDENT", facts.student)
        return Outcome(kind=self.kind, state=state, expected=self.expected(facts), seen=seen, hint=hint)

    def _gap(self, facts: Facts, *sources: Source) -> Outcome | None:
        """Could-not-check when one of the sources could not be looked at; a key that was refused is a finding."""
        for source in sources:
            if reason := facts.gaps.get(source):
                state: State = "fail" if source == "bucket" and _key_is_refused(facts) else "could-not-check"
                return self._found(facts, state, reason, _MEND[source])
        return None


_MEND: dict[Source, str] = {
    "server": "Look at the notebook's pod: kubectl get pods,events -n NAMESPACE",
    "api": "Look at the API server: kubectl logs -n kubeflow deployment/ml-pipeline",
    "mlmd": "Look at ML Metadata: kubectl get pods -n kubeflow; the kubeconfig must allow services/proxy there",
    "kubernetes": "Is the kubeconfig of the platform right? kubectl get pods -n NAMESPACE must answer",
    "bucket": "Does the Secret mlpipeline-minio-artifact of the namespace hold a key that is still valid? "
    "`scripts/classroom repair CLASS.yaml STUDENT` makes another",
}


# S3's error codes for a key that is unknown, wrong, or not for this bucket.
_REFUSED = re.compile("InvalidAccessKeyId|SignatureDoesNotMatch|AccessDenied")


def _key_is_refused(facts: Facts) -> bool:
    return bool(_REFUSED.search(facts.gaps.get("bucket", "")))


_WAITS_FOR = "kubectl get workflows,pods -n NAMESPACE shows what the run waits for, or which pod failed"


class Login(_Check):
    """The student was logged in at the gateway."""

    kind: Literal["login"]

    @override
    def expected(self, facts: Facts) -> str:
        return "a session at the gateway with e-mail and password"

    @override
    def judge(self, facts: Facts) -> Outcome:
        if facts.login is None:
            return self._gap(facts, "server") or self._found(facts, "not-yet", "nobody tried to log in")
        if facts.login.ok:
            return self._found(facts, "pass", f"logged in after {facts.login.seconds:.1f} s")
        hint = "`scripts/classroom up` with the class file makes what is missing and shows the login"
        return self._found(facts, "fail", facts.login.error, hint)


class Seeded(_Check):
    """The student has the notebook, in whatever state of work."""

    kind: Literal["seeded"]

    @override
    def expected(self, facts: Facts) -> str:
        return f"the lab's notebook in {facts.server}"

    @override
    def judge(self, facts: Facts) -> Outcome:
        if facts.seed is None:
            return self._gap(facts, "server") or self._found(facts, "not-yet", "nothing was put there")
        if facts.seed.state == "failed":
            return self._found(facts, "fail", facts.seed.detail, _MEND["server"])
        words = {
            "made": "put there",
            "unchanged": "there, as it was put",
            "edited": "there, edited by the student and left alone",
        }
        return self._found(facts, "pass", f"{facts.seed.path} {words[facts.seed.state]}")


class File(_Check):
    """A file lies beside the rehearsed notebook and holds some texts."""

    kind: Literal["file"]
    path: str
    contains: tuple[str, ...] = ()

    @override
    def expected(self, facts: Facts) -> str:
        return f"{self.path}" + (f" with {', '.join(self.contains)}" if self.contains else "")

    @override
    def judge(self, facts: Facts) -> Outcome:
        if gap := self._gap(facts, "server"):
            return gap
        file = facts.file(self.path)
        if file is None or file.text is None:
            return self._found(facts, "not-yet", "no such file", "The step that makes it has not been done")
        if lacks := [text for text in self.contains if text not in file.text]:
            return self._found(facts, "fail", f"lacks {', '.join(lacks)}", "Make it again from the unchanged cells")
        return self._found(facts, "pass", f"{len(file.text)} characters")


class Cell(_Check):
    """A cell ran to its end without an error. A lab that names none means the step's own cell."""

    kind: Literal["cell"]
    cell: str | None = None
    prints: str | None = None

    @override
    def expected(self, facts: Facts) -> str:
        return "the cell runs without an error" + (f" and prints {self.prints}" if self.prints else "")

    @override
    def judge(self, facts: Facts) -> Outcome:
        cell = facts.cell(self.cell) if self.cell else None
        if cell is None or cell.state == "not-run":
            return self._gap(facts, "server") or self._found(facts, "not-yet", "the cell was not reached")
        match cell.state:
            case "error":
                return self._found(
                    facts, "fail", cell.error, "Read the traceback below; an edited cell is the usual cause"
                )
            case "timeout":
                return self._found(
                    facts, "fail", cell.error, "Is the machine too busy? Give the step more timeout_seconds"
                )
            case "dead":
                hint = "Was it out of memory? kubectl describe pod -n NAMESPACE; give the notebook more memory"
                return self._found(facts, "fail", cell.error, hint)
        if self.prints and self.prints not in cell.output:
            return self._found(facts, "fail", f"printed {_short(cell.output)}", "Compare the cell with the lab text")
        return self._found(facts, "pass", f"ran in {cell.seconds:.1f} s")


class Done(_Check):
    """A step that is no cell (fetch, upload, start) was done. A lab that names none means the check's own step."""

    kind: Literal["done"]
    step: str | None = None

    @override
    def expected(self, facts: Facts) -> str:
        return "it is done without an error"

    @override
    def judge(self, facts: Facts) -> Outcome:
        action = facts.action(self.step) if self.step else None
        if action is None or action.state == "not-run":
            return self._gap(facts, "server") or self._found(facts, "not-yet", "the step was not reached")
        if action.state == "error":
            hint = (
                "Do the same by hand in the dashboard as this student; kubectl logs -n kubeflow deployment/ml-pipeline"
            )
            return self._found(facts, "fail", _short(action.error), hint)
        made = f": {action.made}" if action.made else ""
        return self._found(facts, "pass", f"done in {action.seconds:.1f} s{made}")


class Submitted(_Check):
    """A step submitted a run of that name with those parameters, in that experiment."""

    kind: Literal["submitted"]
    run: str
    name: str
    parameters: dict[str, JsonValue] = {}
    experiment: str | None = None

    @override
    def expected(self, facts: Facts) -> str:
        given = ", ".join(f"{name}={json.dumps(value)}" for name, value in self.parameters.items())
        where = f" in “{self.experiment}”" if self.experiment else ""
        return f"the run “{self.name}”{where}" + (f" with {given}" if given else "")

    @override
    def judge(self, facts: Facts) -> Outcome:
        run = facts.run(self.run)
        if run is None:
            return self._found(facts, "not-yet", "no run was submitted")
        if gap := self._gap(facts, "api"):
            return gap
        if run.name != self.name:
            return self._found(facts, "fail", f"it is called “{run.name}”", "Compare the run's name with the lab text")
        if self.experiment and run.experiment != self.experiment:
            hint = "The run must be started in the experiment that the lab text names"
            return self._found(facts, "fail", f"it is in “{run.experiment}”", hint)
        given = {key: run.parameters.get(key) for key in self.parameters}
        if wrong := {key: value for key, value in given.items() if not _same(value, self.parameters[key])}:
            seen = ", ".join(f"{key}={json.dumps(value)}" for key, value in wrong.items())
            return self._found(facts, "fail", seen, "Compare the arguments with the lab text")
        return self._found(facts, "pass", f"run {run.run_id}")


class Experiment(_Check):
    """The student's namespace has that experiment."""

    kind: Literal["experiment"]
    name: str

    @override
    def expected(self, facts: Facts) -> str:
        return f"the experiment “{self.name}” in {facts.namespace}"

    @override
    def judge(self, facts: Facts) -> Outcome:
        if gap := self._gap(facts, "api"):
            return gap
        if self.name in facts.experiments:
            return self._found(facts, "pass", "it is listed")
        listed = f"listed: {', '.join(f'“{name}”' for name in facts.experiments) or 'none'}"
        if facts.runs:
            return self._found(facts, "fail", listed, "Compare the experiment's name in the cell with the lab text")
        return self._found(facts, "not-yet", listed, "The step that makes it has not been done")


class _OfRun(_Check):
    """A check that looks at a run, once there is one."""

    run: str

    @override
    def judge(self, facts: Facts) -> Outcome:
        run = facts.run(self.run)
        if run is None:
            return self._found(facts, "not-yet", "no run was submitted")
        return self._judge_run(facts, run)

    @abstractmethod
    def _judge_run(self, facts: Facts, run: RunFacts) -> Outcome: ...

    def _lacks(self, facts: Facts, run: RunFacts, seen: str, hint: str, *sources: Source) -> Outcome:
        """What the run should have left is not there: nobody could look, it did not get there, or it is wrong."""
        if gap := self._gap(facts, *sources, *(() if run.state else ("api",))):
            return gap
        if run.state != "SUCCEEDED":
            return self._found(facts, "not-yet", f"{seen}: the run did not get there", _WAITS_FOR)
        return self._found(facts, "fail", seen, hint)


class _OfTasks(_OfRun):
    """A check that holds for each task of a run but importers. Those that ML Metadata does not know were not seen."""

    @override
    def _judge_run(self, facts: Facts, run: RunFacts) -> Outcome:
        if not run.tasks or any(not task.execution for task in run.tasks):
            unseen = ", ".join(task.name for task in run.tasks if not task.execution) or "no task"
            return self._lacks(facts, run, f"{unseen} was not recorded", _MEND["mlmd"], "api", "mlmd")
        tasks = [task for task in run.tasks if not task.imports]
        if not tasks:
            return self._found(facts, "fail", "nothing but importers", "Does the run's pipeline hold any component?")
        return self._judge_tasks(facts, run, tasks)

    @abstractmethod
    def _judge_tasks(self, facts: Facts, run: RunFacts, tasks: list[TaskFacts]) -> Outcome: ...


class RunState(_OfRun):
    """The run ended as it should."""

    kind: Literal["state"]
    state: str = "SUCCEEDED"

    @override
    def expected(self, facts: Facts) -> str:
        return f"the run {self.state}"

    @override
    def _judge_run(self, facts: Facts, run: RunFacts) -> Outcome:
        if gap := self._gap(facts, "api"):
            return gap
        took = f" after {run.seconds:.1f} s" if run.seconds is not None else ""
        if run.state == self.state:
            return self._found(facts, "pass", f"{run.state}{took}")
        if run.state in ("", "RUNTIME_STATE_UNSPECIFIED", "PENDING", "RUNNING"):
            hint = f"kubectl get workflows,pods -n {facts.namespace} shows what it waits for"
            return self._found(facts, "not-yet", f"{run.state or 'no state'}{took}", hint)
        failed = ", ".join(task.name for task in run.tasks if task.state == "FAILED")
        seen = (
            f"{run.state}{took}" + (f" in {failed}" if failed else "") + (f": {_short(run.error)}" if run.error else "")
        )
        hint = f"kubectl get pods -n {facts.namespace}; the logs of the failed pod say why"
        # A run begins with its driver writing to the bucket.
        return self._found(facts, "fail", seen, _MEND["bucket"] if _key_is_refused(facts) else hint)


class _OfOutput(_OfRun):
    """A check of what a task gave as a parameter; a function's plain result is called Output."""

    task: str
    parameter: str = "Output"

    @override
    def _judge_run(self, facts: Facts, run: RunFacts) -> Outcome:
        if gap := self._gap(facts, "mlmd"):
            return gap
        task = _task(run, self.task)
        if task is None or not task.outputs or self.parameter not in task.outputs:
            tasks = ", ".join(task.name for task in run.tasks) or "none"
            hint = f"Is the component still called {self.task}, and does it return {self.parameter}?"
            return self._lacks(facts, run, f"no such output recorded; tasks: {tasks}", hint)
        value = task.outputs[self.parameter]
        wrong, hint = self._wrong(value, task)
        return self._found(facts, "fail", wrong, hint) if wrong else self._found(facts, "pass", self._shown(value))

    @abstractmethod
    def _wrong(self, value: JsonValue, task: TaskFacts) -> tuple[str, str]:
        """What is wrong with the value and what to do, both empty when it is right."""

    def _shown(self, value: JsonValue) -> str:
        return _short(plain(value))


class Output(_OfOutput):
    """A task gave that value."""

    kind: Literal["output"]
    equals: JsonValue

    @override
    def expected(self, facts: Facts) -> str:
        return f"{self.task} gives {json.dumps(self.equals)}"

    @override
    def _wrong(self, value: JsonValue, task: TaskFacts) -> tuple[str, str]:
        if _same(value, self.equals):
            return "", ""
        given = ", ".join(f"{name}={plain(v)}" for name, v in sorted((task.inputs or {}).items()))
        hint = f"It was given {given}: follow the values back to the first that is wrong" if given else ""
        return _short(plain(value)), hint


class Number(_OfOutput):
    """A task gave a number within bounds."""

    kind: Literal["number"]
    at_most: float | None = None
    at_least: float | None = None

    @override
    def expected(self, facts: Facts) -> str:
        bounds = [f"at least {self.at_least:g}"] if self.at_least is not None else []
        bounds += [f"at most {self.at_most:g}"] if self.at_most is not None else []
        return f"{self.task} gives {self.parameter}, a number" + (f" of {' and '.join(bounds)}" if bounds else "")

    @override
    def _wrong(self, value: JsonValue, task: TaskFacts) -> tuple[str, str]:
        if not _is_number(value):
            return f"no number: {_short(plain(value))}", f"Does {self.task} return {self.parameter} as a float?"
        number = float(value)  # type: ignore[arg-type]  _is_number says so
        if self.at_most is not None and number > self.at_most:
            return (
                f"{number:.6g}",
                "Were the data, the model or the number of epochs changed? Compare with the lab text",
            )
        if self.at_least is not None and number < self.at_least:
            return f"{number:.6g}", "It is better than it can be: is the test set seen in training?"
        return "", ""

    @override
    def _shown(self, value: JsonValue) -> str:
        return f"{float(value):.6g}"  # type: ignore[arg-type]  it was found to be a number


class Series(_OfOutput):
    """A task gave a list of finite numbers, such as a loss curve. `falls`: the last is at most nine tenths of the
    first."""

    kind: Literal["series"]
    length: int | None = None
    falls: bool = False

    @override
    def expected(self, facts: Facts) -> str:
        count = f"{self.length} numbers" if self.length else "numbers"
        return f"{self.task} gives {self.parameter}, {count}" + (" that fall" if self.falls else "")

    @override
    def _wrong(self, value: JsonValue, task: TaskFacts) -> tuple[str, str]:
        hint = f"Does {self.task} return {self.parameter} as a list of floats, one an epoch?"
        if not isinstance(value, list) or not value or not all(_is_number(each) for each in value):
            return f"no list of finite numbers: {_short(plain(value))}", hint
        if self.length is not None and len(value) != self.length:
            return f"{len(value)} numbers", hint
        first, last = float(value[0]), float(value[-1])  # type: ignore[arg-type]  _is_number says so
        if self.falls and last > first - 0.1 * abs(first):
            return f"from {first:.4g} to {last:.4g}", "The model does not learn: compare learning rate and data"
        return "", ""

    @override
    def _shown(self, value: JsonValue) -> str:
        numbers = [float(each) for each in value] if isinstance(value, list) else []  # type: ignore[arg-type]  the same
        return f"{len(numbers)} numbers, from {numbers[0]:.4g} to {numbers[-1]:.4g}"


class Table(_OfOutput):
    """A task gave a list of rows; each is an object with these columns, or a list of as many values."""

    kind: Literal["table"]
    rows: int | None = None
    columns: tuple[str, ...] = ()

    @override
    def expected(self, facts: Facts) -> str:
        count = f"{self.rows} rows" if self.rows else "rows"
        of = f" of {', '.join(self.columns)}" if self.columns else ""
        return f"{self.task} gives {self.parameter}, {count}{of}"

    @override
    def _wrong(self, value: JsonValue, task: TaskFacts) -> tuple[str, str]:
        hint = f"Does {self.task} return {self.parameter} as a list of rows?"
        if not isinstance(value, list) or not value:
            return f"no list of rows: {_short(plain(value))}", hint
        if self.rows is not None and len(value) != self.rows:
            return f"{len(value)} rows", hint
        for at, row in enumerate(value, 1):
            cells = row.values() if isinstance(row, dict) else row if isinstance(row, list) else ()
            fits = set(self.columns) <= row.keys() if isinstance(row, dict) else len(cells) >= max(1, len(self.columns))
            if not fits or any(cell is None for cell in cells):
                return f"row {at} is {_short(plain(row))}", hint
        return "", ""

    @override
    def _shown(self, value: JsonValue) -> str:
        return f"{len(value)} rows" if isinstance(value, list) else ""


class Ran(_OfRun):
    """A task ran to its end, with those inputs."""

    kind: Literal["task"]
    task: str
    state: str = "COMPLETE"
    inputs: dict[str, JsonValue] = {}

    @override
    def expected(self, facts: Facts) -> str:
        given = ", ".join(f"{name}={json.dumps(value)}" for name, value in self.inputs.items())
        return f"{self.task} ends as {self.state}" + (f", given {given}" if given else "")

    @override
    def _judge_run(self, facts: Facts, run: RunFacts) -> Outcome:
        if gap := self._gap(facts, "mlmd"):
            return gap
        task = _task(run, self.task)
        if task is None or not task.state:
            tasks = ", ".join(task.name for task in run.tasks) or "none"
            hint = f"Is the component still called {self.task}?"
            return self._lacks(facts, run, f"it was not recorded; tasks: {tasks}", hint)
        if not _ended_as(task.state, self.state):
            state: State = "not-yet" if task.state in ("NEW", "RUNNING") else "fail"
            return self._found(facts, state, task.state, f"kubectl logs -n NAMESPACE {task.pod} says why")
        given = task.inputs or {}
        if wrong := {key: given.get(key) for key in self.inputs if not _same(given.get(key), self.inputs[key])}:
            seen = ", ".join(f"{key}={plain(value)}" for key, value in wrong.items())
            hint = "Compare the run's arguments, and what the tasks before it gave, with the lab text"
            return self._found(facts, "fail", f"given {seen}", hint)
        took = f" in {task.seconds:.1f} s" if task.seconds is not None else ""
        return self._found(facts, "pass", f"{task.state}{took}")


class Listed(_Check):
    """The experiment's list shows these runs (name by the step that started it) with state, duration and, for one of
    an uploaded pipeline, its version."""

    kind: Literal["listed"]
    experiment: str
    runs: dict[str, str] = Field(min_length=1)

    @override
    def expected(self, facts: Facts) -> str:
        names = " and ".join(f"“{name}”" for name in self.runs.values())
        return f"{names} in “{self.experiment}”, with state, duration and pipeline version"

    @override
    def judge(self, facts: Facts) -> Outcome:
        if not any(facts.run(step) for step in self.runs):
            return self._found(facts, "not-yet", "no run was submitted")
        if gap := self._gap(facts, "api"):
            return gap
        shown = []
        for step, name in self.runs.items():
            run = facts.run(step)
            if run is None:
                return self._found(facts, "not-yet", f"“{name}” was not submitted")
            if not run.listed or run.name != name or run.experiment != self.experiment:
                seen = f"“{run.name}” in “{run.experiment}”" if run.listed else f"“{name}” is not listed"
                return self._found(facts, "fail", seen, "Was the run started in that experiment, and not archived?")
            took = _seconds_between(run.created, run.finished)
            if not run.state or took is None:
                return self._found(facts, "not-yet", f"“{name}”: {run.state or 'no state'}, not ended", _WAITS_FOR)
            if run.pipeline_id and not run.version_id:
                hint = "Was the pipeline deleted while the run was there?"
                return self._found(facts, "fail", f"“{name}” names no version", hint)
            shown.append(f"“{name}” {run.state} in {took:.0f} s" + (f", {run.version_id}" if run.version_id else ""))
        return self._found(facts, "pass", "; ".join(shown))


class Pipeline(_Check):
    """A pipeline with these tasks, each with those before it, and a YAML to open: the one that the step `uploaded`
    made, or the one that a `run` carries (the SDK starts a run of a file without uploading it)."""

    kind: Literal["pipeline"]
    uploaded: str | None = None
    run: str | None = None
    name: str
    description: str | None = None
    tasks: dict[str, tuple[str, ...]]

    @model_validator(mode="after")
    def _one_pipeline(self) -> Self:
        if (self.uploaded is None) == (self.run is None):
            raise ValueError("a `pipeline` is `uploaded:` by a step or carried by a `run:`; give one of both")
        if self.run is not None and self.description is not None:
            raise ValueError("only a pipeline that is `uploaded:` has a `description`")
        return self

    @override
    def expected(self, facts: Facts) -> str:
        said = f" (“{self.description}”)" if self.description else ""
        return f"the pipeline “{self.name}”{said} of {', '.join(self.tasks)}, and its YAML"

    @override
    def judge(self, facts: Facts) -> Outcome:
        pipeline = facts.pipeline(self.uploaded) if self.uploaded else _carried(facts.run(self.run or ""))
        if pipeline is None:
            what = "no pipeline was uploaded" if self.uploaded else "no run was submitted"
            return self._gap(facts, "server") or self._found(facts, "not-yet", what)
        if gap := self._gap(facts, "api"):
            return gap
        if not pipeline.name:
            hint = "Was it deleted? The dashboard's list of pipelines shows those there are"
            return self._found(facts, "fail", "KFP shows no such pipeline", hint)
        if pipeline.name != self.name:
            return self._found(facts, "fail", f"it is called “{pipeline.name}”", "Compare the name with the lab text")
        if self.description is not None and pipeline.description != self.description:
            hint = "Compare the description with the lab text"
            return self._found(facts, "fail", f"its description is “{pipeline.description}”", hint)
        if wrong := _differing(self.tasks, pipeline.graph):
            return self._found(facts, "fail", wrong, "Compile it again from the unchanged cells, and upload that file")
        if lacks := [text for text in ("pipelineInfo", *self.tasks) if text not in pipeline.yaml]:
            hint = "Open the pipeline in the dashboard, Pipeline Spec; is it the file that the notebook made?"
            return self._found(facts, "fail", f"its YAML lacks {', '.join(lacks)}", hint)
        return self._found(facts, "pass", f"{_drawn(pipeline.graph)}; YAML of {len(pipeline.yaml)} characters")


class Version(_OfRun):
    """The run refers to the version of the pipeline that the step `uploaded` made."""

    kind: Literal["version"]
    uploaded: str

    @override
    def expected(self, facts: Facts) -> str:
        return f"the run of the pipeline that step {self.uploaded} uploaded"

    @override
    def _judge_run(self, facts: Facts, run: RunFacts) -> Outcome:
        pipeline = facts.pipeline(self.uploaded)
        if pipeline is None:
            return self._found(facts, "not-yet", "no pipeline was uploaded")
        if gap := self._gap(facts, "api"):
            return gap
        hint = "Start the run from the uploaded pipeline's own page (Create run)"
        if not run.version_id:
            return self._found(facts, "fail", "it refers to no version", hint)
        if (run.pipeline_id, run.version_id) != (pipeline.pipeline_id, pipeline.version_id):
            return self._found(facts, "fail", f"it refers to version {run.version_id}", hint)
        return self._found(facts, "pass", f"version {run.version_id} of “{pipeline.name}”")


class Graph(_OfRun):
    """The run's graph has these tasks, each with those before it, and each ended well."""

    kind: Literal["graph"]
    tasks: dict[str, tuple[str, ...]]

    @override
    def expected(self, facts: Facts) -> str:
        return f"{_drawn(self.tasks)}, each COMPLETE"

    @override
    def _judge_run(self, facts: Facts, run: RunFacts) -> Outcome:
        if gap := self._gap(facts, "api", "mlmd"):
            return gap
        if not run.tasks:
            return self._lacks(facts, run, "no task", "Does the run's pipeline hold any component?")
        if wrong := _differing(self.tasks, {task.name: task.after for task in run.tasks}):
            return self._found(
                facts, "fail", wrong, "Compare the pipeline's cell with the lab text, and compile it again"
            )
        if waiting := [task.name for task in run.tasks if task.state in ("", "NEW", "RUNNING")]:
            return self._lacks(facts, run, f"{', '.join(waiting)} did not end", _MEND["mlmd"])
        if failed := [task for task in run.tasks if not _ended_as(task.state, "COMPLETE")]:
            seen = ", ".join(f"{task.name} {task.state}" for task in failed)
            return self._found(facts, "fail", seen, f"kubectl logs -n NAMESPACE {failed[0].pod} says why")
        return self._found(facts, "pass", _drawn({task.name: task.after for task in run.tasks}))


class Executions(_OfRun):
    """ML Metadata has an execution of each of these tasks, which ended well."""

    kind: Literal["executions"]
    tasks: tuple[str, ...] = Field(min_length=1)

    @override
    def expected(self, facts: Facts) -> str:
        return f"an execution of {' and of '.join(self.tasks)}"

    @override
    def _judge_run(self, facts: Facts, run: RunFacts) -> Outcome:
        if gap := self._gap(facts, "mlmd"):
            return gap
        found = {name: _task(run, name) for name in self.tasks}
        if lost := [name for name, task in found.items() if task is None or not task.execution]:
            return self._lacks(facts, run, f"no execution of {', '.join(lost)}", _MEND["mlmd"])
        tasks = [task for task in found.values() if task]
        if unwell := [task for task in tasks if not _ended_as(task.state, "COMPLETE")]:
            seen = ", ".join(f"{task.name} {task.state}" for task in unwell)
            state: State = "not-yet" if all(task.state in ("NEW", "RUNNING") for task in unwell) else "fail"
            return self._found(facts, state, seen, f"kubectl logs -n NAMESPACE {unwell[0].pod} says why")
        return self._found(facts, "pass", ", ".join(f"{task.name} is execution {task.execution}" for task in tasks))


class Artifacts(_OfTasks):
    """What each task made: its place in the student's bucket, with the object really there. `named` are artifacts that
    a task must have made, `properties` says that each must have some. Metrics are kept in ML Metadata alone."""

    kind: Literal["artifacts"]
    under: str
    named: dict[str, tuple[str, ...]] = {}
    properties: bool = False

    @override
    def expected(self, facts: Facts) -> str:
        more = " with id and properties" if self.properties else ""
        named = "; ".join(f"{task}: {', '.join(names)}" for task, names in self.named.items())
        place = f"{facts.bucket} > {self.under.strip('/').replace('/', ' > ')} > …"
        return f"every output{more} at {place}" + (f" ({named})" if named else "")

    @override
    def _judge_tasks(self, facts: Facts, run: RunFacts, tasks: list[TaskFacts]) -> Outcome:
        where = "The ConfigMap kfp-launcher in NAMESPACE sets where runs write; does its key reach the bucket?"
        sizes: list[int] = []
        for task in tasks:
            made = [artifact for artifact in task.artifacts if artifact.event == "OUTPUT"]
            if lost := set(self.named.get(task.name, ())) - {artifact.name for artifact in made}:
                hint = f"Does the component {task.name} still have the outputs of the lab text?"
                return self._lacks(facts, run, f"{task.name} made no {', '.join(sorted(lost))}", hint)
            if not made:
                return self._lacks(facts, run, f"{task.name} made no artifact", where)
            for artifact in made:
                if wrong := self._wrong(facts, artifact):
                    return self._found(facts, "fail", f"{task.name}: {wrong}", where)
                if artifact.bytes is None and "Metrics" not in artifact.type:
                    return self._lacks(facts, run, f"no object at {artifact.uri}", where, "bucket")
                sizes.append(artifact.bytes or 0)
        return self._found(facts, "pass", f"{len(sizes)} artifacts, {sum(sizes)} bytes")

    def _wrong(self, facts: Facts, artifact: ArtifactFacts) -> str:
        if not artifact.uri.startswith(f"s3://{facts.bucket}/{self.under}"):
            return f"{artifact.uri or artifact.name + ' without a path'} lies elsewhere"
        if not artifact.id:
            return f"{artifact.name} has no id"
        return f"{artifact.name} has no properties" if self.properties and not artifact.properties else ""


class Lineage(_OfTasks):
    """Each artifact leads to the execution that made it: one made leads to one execution alone, one taken to a task of
    the same run. `flows` are tasks that must have taken an artifact of others."""

    kind: Literal["lineage"]
    flows: dict[str, tuple[str, ...]] = {}

    @override
    def expected(self, facts: Facts) -> str:
        flows = ", ".join(f"{' and '.join(makers)} → {taker}" for taker, makers in self.flows.items())
        return "each artifact leads to what made and what took it" + (f": {flows}" if flows else "")

    @override
    def _judge_tasks(self, facts: Facts, run: RunFacts, tasks: list[TaskFacts]) -> Outcome:
        makers: dict[int, str] = {}
        # Importers as well: what they point to is taken by others.
        for task in run.tasks:
            for artifact in task.artifacts:
                if artifact.event != "OUTPUT":
                    continue
                if not artifact.id or artifact.id in makers:
                    also = f" and by {makers[artifact.id]}" if artifact.id else ", but has no id"
                    return self._found(facts, "fail", f"{artifact.name} was made by {task.name}{also}", _MEND["mlmd"])
                makers[artifact.id] = task.name
        if not makers:
            return self._lacks(facts, run, "no artifact was made", _MEND["mlmd"])
        taken: dict[str, set[str]] = {}
        for task in run.tasks:
            for artifact in task.artifacts:
                if artifact.event == "INPUT":
                    if artifact.id not in makers:
                        seen = f"{task.name} took {artifact.name}, which no task of the run made"
                        return self._found(facts, "fail", seen, "Does the pipeline still hand it from task to task?")
                    taken.setdefault(task.name, set()).add(makers[artifact.id])
        for taker, wanted in self.flows.items():
            if lost := [maker for maker in wanted if maker not in taken.get(taker, set())]:
                hint = f"Does the pipeline still hand the outputs of {', '.join(lost)} to {taker}?"
                return self._lacks(facts, run, f"{taker} took nothing of {', '.join(lost)}", hint)
        shown = [f"{', '.join(sorted(of))} → {taker}" for taker, of in taken.items()]
        return self._found(facts, "pass", f"{len(makers)} artifacts" + (f"; {'; '.join(shown)}" if shown else ""))


class Details(_OfRun):
    """Each task is shown with id, name, state, start, end and duration."""

    kind: Literal["details"]

    @override
    def expected(self, facts: Facts) -> str:
        return "id, name, state, start, end and duration of each task"

    @override
    def _judge_run(self, facts: Facts, run: RunFacts) -> Outcome:
        if gap := self._gap(facts, "api", "mlmd"):
            return gap
        if not run.tasks:
            return self._lacks(facts, run, "no task", _WAITS_FOR)
        hint = (
            "Does the persistence agent report runs? kubectl logs -n kubeflow deployment/ml-pipeline-persistenceagent"
        )
        shown = []
        for task in run.tasks:
            told = {"id": task.id, "state": task.state, "start": task.started, "end": task.finished}
            took = _seconds_between(task.started, task.finished)
            if lost := [what for what, value in told.items() if not value]:
                return self._lacks(facts, run, f"{task.name} has no {', '.join(lost)}", hint)
            if took is None or took < 0:
                return self._found(facts, "fail", f"{task.name} from {task.started} to {task.finished}", hint)
            shown.append(f"{task.name} {task.state} in {took:.0f} s ({task.id})")
        return self._found(facts, "pass", ", ".join(shown))


class Pod(_OfTasks):
    """The pod of each task can be shown: its `volumes`, or its YAML."""

    kind: Literal["pod"]
    shows: Literal["volumes", "yaml"]

    @override
    def expected(self, facts: Facts) -> str:
        return f"the {'volumes' if self.shows == 'volumes' else 'YAML'} of each task's pod"

    @override
    def _judge_tasks(self, facts: Facts, run: RunFacts, tasks: list[TaskFacts]) -> Outcome:
        shown = []
        for task in tasks:
            pod = task.seen_pod
            if pod is None:
                hint = "Pods that go when they end show nothing: does Argo's podGC or a short ttl delete them?"
                return self._lacks(facts, run, f"the pod of {task.name} was gone", hint, "kubernetes")
            hint = f"kubectl get pod -n NAMESPACE {task.pod} -o yaml"
            if pod.name != task.pod:
                return self._found(facts, "fail", f"{task.name}: {pod.name} is not {task.pod}", hint)
            if self.shows == "volumes":
                if not pod.volumes:
                    return self._found(facts, "fail", f"{pod.name} has no volume", hint)
                shown.append(f"{task.name}: {', '.join(pod.volumes)}")
                continue
            wanted = ("kind: Pod", f"name: {pod.name}", f"namespace: {facts.namespace}")
            if lacks := [text for text in wanted if text not in pod.manifest]:
                return self._found(facts, "fail", f"the YAML of {pod.name} lacks {', '.join(lacks)}", hint)
            shown.append(f"{pod.name}: {len(pod.manifest)} characters")
        return self._found(facts, "pass", _short("; ".join(shown)))


class Logs(_OfTasks):
    """Each task's log can be read, and lies in the bucket for when the pod is gone."""

    kind: Literal["logs"]

    @override
    def expected(self, facts: Facts) -> str:
        return "each task's log, and a copy in the bucket that outlives the pod"

    @override
    def _judge_tasks(self, facts: Facts, run: RunFacts, tasks: list[TaskFacts]) -> Outcome:
        for task in tasks:
            hint = f"kubectl logs -n NAMESPACE {task.pod} -c main; the ConfigMap kfp-launcher sets where copies go"
            if task.log is None:
                return self._lacks(facts, run, f"no log of {task.name}", hint, "kubernetes", "bucket")
            if not task.log.strip():
                return self._found(facts, "fail", f"the log of {task.name} is empty", hint)
            kept = [a for a in task.artifacts if a.event == "OUTPUT" and a.name == "executor-logs"]
            if not any(artifact.bytes for artifact in kept):
                return self._lacks(facts, run, f"no copy of the log of {task.name} in the bucket", hint, "bucket")
        lengths = ", ".join(f"{task.name} {len(task.log or '')} characters ({task.log_from})" for task in tasks)
        return self._found(facts, "pass", lengths)


class Config(_OfRun):
    """What the run was given: parameters, service account, and the folder in the student's bucket that it writes to."""

    kind: Literal["config"]
    parameters: dict[str, JsonValue] = {}
    service_account: str = "default-editor"
    under: str

    @override
    def expected(self, facts: Facts) -> str:
        given = ", ".join(f"{name}={json.dumps(value)}" for name, value in self.parameters.items())
        return f"{given or 'no parameters'}; {self.service_account}; root s3://{facts.bucket}/{self.under}…"

    @override
    def _judge_run(self, facts: Facts, run: RunFacts) -> Outcome:
        if gap := self._gap(facts, "api"):
            return gap
        given = {key: run.parameters.get(key) for key in self.parameters}
        if any(not _same(value, self.parameters[key]) for key, value in given.items()):
            seen = ", ".join(f"{key}={plain(value)}" for key, value in given.items())
            return self._found(facts, "fail", seen, "Compare the arguments with the lab text")
        if run.service_account != self.service_account:
            hint = "Leave the service account empty when the run is started; the seat's own is then taken"
            return self._found(facts, "fail", run.service_account or "no service account", hint)
        if not run.pipeline_root:
            return self._lacks(facts, run, "no pipeline root was recorded", _MEND["mlmd"], "mlmd")
        if not run.pipeline_root.startswith(f"s3://{facts.bucket}/{self.under}"):
            hint = "The ConfigMap kfp-launcher in NAMESPACE sets it; leave it empty when the run is started"
            return self._found(facts, "fail", f"root {run.pipeline_root}", hint)
        return self._found(facts, "pass", f"{run.service_account}, root {run.pipeline_root}")


class Namespace(_OfRun):
    """Experiment, workflow and pods of the run were in the student's namespace and no other."""

    kind: Literal["namespace"]

    @override
    def expected(self, facts: Facts) -> str:
        return f"all of the run in {facts.namespace}"

    @override
    def _judge_run(self, facts: Facts, run: RunFacts) -> Outcome:
        seen = {
            "experiment": run.experiment_namespace,
            "workflow": run.workflow_namespace,
            **{f"task {task.name}": task.namespace for task in run.tasks},
        }
        if wrong := {what: where for what, where in seen.items() if where and where != facts.namespace}:
            told = ", ".join(f"{what} in {where}" for what, where in wrong.items())
            return self._found(
                facts, "fail", told, "kubeflow_client must be given the student's own namespace, or none"
            )
        if not run.workflow_namespace and not any(task.namespace for task in run.tasks):
            return self._gap(facts, "kubernetes", "mlmd") or self._found(
                facts, "not-yet", "neither a workflow nor a task of the run was found"
            )
        return self._found(facts, "pass", ", ".join(what for what, where in seen.items() if where))


class Objects(_OfRun):
    """The run's objects lie in the student's bucket, below a folder, and its artifacts point there."""

    kind: Literal["objects"]
    under: str

    @override
    def expected(self, facts: Facts) -> str:
        return f"the run's objects in s3://{facts.bucket}/{self.under}"

    @override
    def _judge_run(self, facts: Facts, run: RunFacts) -> Outcome:
        place = f"s3://{facts.bucket}/{self.under}"
        made = [a for task in run.tasks if not task.imports for a in task.artifacts if a.event == "OUTPUT"]
        uris = [artifact.uri for artifact in made if artifact.uri]
        if outside := [uri for uri in uris if not uri.startswith(place)]:
            hint = f"The ConfigMap kfp-launcher in {facts.namespace} sets where runs write"
            return self._found(facts, "fail", f"{outside[0]} lies elsewhere", hint)
        if gap := self._gap(facts, "bucket"):
            return gap
        own = [item for item in facts.objects if item.key.startswith(self.under) and _is_of(item.key, run)]
        if own:
            total = sum(item.bytes for item in own)
            return self._found(facts, "pass", f"{len(own)} objects, {total} bytes, such as {own[0].key}")
        if run.state == "SUCCEEDED":
            hint = "The ConfigMap kfp-launcher in NAMESPACE sets where runs write; does its key reach the bucket?"
            return self._found(facts, "fail", "no object of the run", hint)
        return self._found(facts, "not-yet", "no object of the run: it did not get there")


Check = Annotated[
    Login
    | Seeded
    | File
    | Cell
    | Done
    | Submitted
    | Experiment
    | RunState
    | Ran
    | Output
    | Number
    | Series
    | Table
    | Listed
    | Pipeline
    | Version
    | Graph
    | Artifacts
    | Lineage
    | Executions
    | Details
    | Config
    | Pod
    | Logs
    | Namespace
    | Objects,
    Field(discriminator="kind"),
]


def _is_of(key: str, run: RunFacts) -> bool:
    """KFP puts objects below the run's id; a pipeline root with Argo's variables below the workflow's name."""
    parts = key.split("/")
    return run.run_id in parts or (bool(run.workflow) and run.workflow in parts)


def _task(run: RunFacts, name: str) -> TaskFacts | None:
    return next((task for task in run.tasks if task.name == name), None)


def _carried(run: RunFacts | None) -> PipelineFacts | None:
    """The pipeline that a run brought along; its tasks that nobody has seen are its graph's too."""
    if run is None:
        return None
    graph = {task.name: task.after for task in run.tasks}
    return PipelineFacts(
        made_by=run.submitted_by, pipeline_id="", name=run.pipeline_name, graph=graph, yaml=run.pipeline_yaml
    )


def _ended_as(state: str, wanted: str) -> bool:
    """What the cache answered is complete as well."""
    return state == wanted or (wanted == "COMPLETE" and state == "CACHED")


def _differing(wanted: Mapping[str, Iterable[str]], seen: Mapping[str, Iterable[str]]) -> str:
    """How a graph (each task with those before it) differs; empty when it does not."""
    if lost := [name for name in wanted if name not in seen]:
        return f"no task {', '.join(lost)}; tasks: {', '.join(seen) or 'none'}"
    if more := [name for name in seen if name not in wanted]:
        return f"also {', '.join(more)}"
    turned = [name for name in wanted if set(wanted[name]) != set(seen[name])]
    return "; ".join(f"{name} comes after {', '.join(seen[name]) or 'nothing'}" for name in turned)


def _drawn(graph: Mapping[str, Iterable[str]]) -> str:
    """In a line: what goes into which task."""
    return ", ".join(
        " + ".join(before) + " → " + name if (before := list(after)) else name for name, after in graph.items()
    )


def _seconds_between(started: str, finished: str) -> float | None:
    """Of two times in ISO 8601; None when one of them is none."""
    try:
        return (datetime.fromisoformat(finished) - datetime.fromisoformat(started)).total_seconds()
    except (ValueError, TypeError):
        return None


def _is_number(value: JsonValue) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _same(seen: JsonValue, wanted: JsonValue) -> bool:
    """Equal, with numbers compared as numbers: ML Metadata keeps each as a double."""
    numbers = isinstance(seen, int | float) and isinstance(wanted, int | float)
    if numbers and not isinstance(seen, bool) and not isinstance(wanted, bool):
        return abs(float(seen) - float(wanted)) <= 1e-9 * max(1.0, abs(float(wanted)))
    return seen == wanted


def plain(value: JsonValue) -> str:
    """A parameter's value as a person writes it: whole numbers without a point (ML Metadata keeps doubles)."""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False).removesuffix(".0")


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 300 else line[:297] + "…"
