"""What a verify found, judged: one verdict a step, a student and a lab, and the exit code they make together."""

from collections.abc import Iterable
from typing import Literal

from pydantic import BaseModel, ConfigDict, computed_field

from labs.runner.checks import Outcome, State, worst
from labs.runner.facts import Facts
from labs.runner.lab import Lab, Step, Title


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Picture(_Part):
    """An output parameter that the lab wants seen: a `series` of numbers as a curve, a `table` of rows as one.

    `run` is the id of the step that started the run; `columns` are a table's, empty where the lab names none.
    """

    kind: Literal["series", "table"]
    run: str
    task: str
    parameter: str
    columns: tuple[str, ...] = ()


class StepResult(_Part):
    """A step as one student. `seconds` is what it took to do, None for a step that only looks."""

    id: str
    title: Title
    state: State
    seconds: float | None
    cell: str | None = None
    outcomes: tuple[Outcome, ...]
    pictures: tuple[Picture, ...] = ()

    @property
    def why(self) -> str:
        """What the outcome that decided was seen to be."""
        return next((outcome.seen for outcome in self.outcomes if outcome.state == self.state), "")


class LabResult(_Part):
    """A lab as one student: the verdicts, and the facts they rest on."""

    lab: str
    title: Title
    student: str
    student_name: str
    email: str
    seconds: float
    steps: tuple[StepResult, ...]
    facts: Facts

    @property
    def state(self) -> State:
        """As good as the worst step."""
        return worst([step.state for step in self.steps])


class Result(_Part):
    """A whole verify. Times are UTC, ISO 8601."""

    class_name: str
    url: str
    started: str
    finished: str
    seconds: float
    labs: tuple[LabResult, ...]

    @computed_field
    @property
    def exit_code(self) -> int:
        """0 all proven, 1 something is wrong or missing, 3 nothing is wrong but something could not be checked."""
        states = {step.state for lab in self.labs for step in lab.steps}
        if states & {"fail", "not-yet"}:
            return 1
        return 0 if states == {"pass"} else 3


def judged(lab: Lab, facts: Facts) -> tuple[StepResult, ...]:
    """Every step of the lab, judged by the facts alone."""
    return tuple(_step(step, facts) for step in lab.steps)


def _step(step: Step, facts: Facts) -> StepResult:
    outcomes = tuple(check.judge(facts) for check in step.checks)
    return StepResult(
        id=step.id,
        title=step.title,
        state=worst([outcome.state for outcome in outcomes]),
        seconds=_seconds(step, facts),
        cell=step.cell,
        outcomes=outcomes,
        pictures=tuple(
            Picture(
                kind=check.kind,
                run=check.run,
                task=check.task,
                parameter=check.parameter,
                columns=check.columns if check.kind == "table" else (),
            )
            for check in step.checks
            if check.kind in ("series", "table")
        ),
    )


def _seconds(step: Step, facts: Facts) -> float | None:
    match step.does:
        case "login":
            return facts.login.seconds if facts.login else None
        case "seed":
            return facts.seed.seconds if facts.seed else None
        case "cell":
            cell = facts.cell(step.cell or "")
            return cell.seconds if cell and cell.state != "not-run" else None
        case "fetch" | "upload" | "start":
            action = facts.action(step.id)
            return action.seconds if action and action.state != "not-run" else None
        case "look":
            waited_for = (facts.run(check.run) for check in step.checks if check.kind == "state")
            return next((run.seconds for run in waited_for if run), None)


def percentile(values: Iterable[float], share: float) -> float | None:
    """The smallest value that at least `share` (0 to 1) of the values do not exceed (nearest rank); None of nothing."""
    ordered = sorted(values)
    if not ordered:
        return None
    rank = max(1, -(-len(ordered) * round(share * 100) // 100))
    return ordered[rank - 1]
