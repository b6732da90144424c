"""The kinds of checks, and how each judges recorded facts. Pure: nothing is looked at but the facts.

A new kind is a model here with a `judge`, and a name in `Check`.
"""

import json
from abc import abstractmethod
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue
from typing_extensions import override

from labs.runner.facts import Facts, RunFacts, Source

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
        hint = hint.replace("NAMESPACE", facts.namespace)
        return Outcome(kind=self.kind, state=state, expected=self.expected(facts), seen=seen, hint=hint)

    def _gap(self, facts: Facts, *sources: Source) -> Outcome | None:
        """Could-not-check when one of the sources could not be looked at."""
        for source in sources:
            if reason := facts.gaps.get(source):
                return self._found(facts, "could-not-check", reason, _MEND[source])
        return None


_MEND: dict[Source, str] = {
    "server": "Look at the notebook's pod: kubectl get pods,events -n NAMESPACE",
    "api": "Look at the API server: kubectl logs -n kubeflow deployment/ml-pipeline",
    "mlmd": "Look at ML Metadata: kubectl get pods -n kubeflow; the kubeconfig must allow services/proxy there",
    "kubernetes": "Is the kubeconfig of the platform right? kubectl get pods -n NAMESPACE must answer",
    "bucket": "Does the Secret mlpipeline-minio-artifact of the namespace hold a key that is still valid? "
    "`scripts/classroom up` with the class file makes what is missing",
}


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


class Submitted(_Check):
    """A step submitted a run of that name with those parameters."""

    kind: Literal["submitted"]
    run: str
    name: str
    parameters: dict[str, JsonValue] = {}

    @override
    def expected(self, facts: Facts) -> str:
        given = ", ".join(f"{name}={json.dumps(value)}" for name, value in self.parameters.items())
        return f"the run “{self.name}”" + (f" with {given}" if given else "")

    @override
    def judge(self, facts: Facts) -> Outcome:
        run = facts.run(self.run)
        if run is None:
            return self._found(facts, "not-yet", "no run was submitted")
        if gap := self._gap(facts, "api"):
            return gap
        if run.name != self.name:
            return self._found(facts, "fail", f"it is called “{run.name}”", "Compare the run's name with the lab text")
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
        listed = ", ".join(f"“{name}”" for name in facts.experiments) or "none"
        return self._found(facts, "not-yet", f"listed: {listed}", "The step that makes it has not been done")


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
        return self._found(
            facts, "fail", seen, f"kubectl get pods -n {facts.namespace}; the logs of the failed pod say why"
        )


class Output(_OfRun):
    """A task gave that value."""

    kind: Literal["output"]
    task: str
    parameter: str = "Output"
    equals: JsonValue

    @override
    def expected(self, facts: Facts) -> str:
        return f"{self.task} gives {json.dumps(self.equals)}"

    @override
    def _judge_run(self, facts: Facts, run: RunFacts) -> Outcome:
        if gap := self._gap(facts, "mlmd"):
            return gap
        task = next((task for task in run.tasks if task.name == self.task), None)
        if task is None or not task.outputs or self.parameter not in task.outputs:
            if run.state == "SUCCEEDED":
                tasks = ", ".join(task.name for task in run.tasks) or "none"
                hint = f"Is the component still called {self.task}, and does it return a value?"
                return self._found(facts, "fail", f"no such output recorded; tasks: {tasks}", hint)
            return self._found(facts, "not-yet", "nothing was recorded: the run did not get there")
        value = task.outputs[self.parameter]
        if _same(value, self.equals):
            return self._found(facts, "pass", plain(value))
        given = ", ".join(f"{name}={plain(v)}" for name, v in sorted((task.inputs or {}).items()))
        hint = f"It was given {given}: follow the values back to the first that is wrong" if given else ""
        return self._found(facts, "fail", plain(value), hint)


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
        uris = [artifact.uri for task in run.tasks for artifact in task.artifacts if artifact.uri]
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
    Login | Seeded | File | Cell | Submitted | Experiment | RunState | Output | Namespace | Objects,
    Field(discriminator="kind"),
]


def _is_of(key: str, run: RunFacts) -> bool:
    """KFP puts objects below the run's id; a pipeline root with Argo's variables below the workflow's name."""
    parts = key.split("/")
    return run.run_id in parts or (bool(run.workflow) and run.workflow in parts)


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
