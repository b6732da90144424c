"""Every step of the lab text is a step of a lab, and every check of a step was seen to pass on the facts of a real run
and to fail on broken ones."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from labs.runner import lab as labs
from labs.runner.checks import Check
from labs.runner.facts import Facts

_SIMPLE_PIPELINE = """
    1-4 1-5 1-6 1-7 1-8 1-9 1-10 1-11 1-12
    2-1 2-2 2-3 2-4 2-5
    3-1 3-2 3-3 3-4 3-5 3-6 3-7 3-8 3-9
    4-1-3 4-1-4 4-1-6 4-1-7 4-1-8 4-1-9 4-1-10 4-1-11 4-1-12
    4-2 4-3 4-4
"""
_TAXI = "5-1 5-2 5-3 5-4 5-5 5-6 5-8 5-9 5-10 5-11 5-12 5-13 5-14 5-15 5-16 5-17 5-18"
# Issue 4's list: the ids of the lab text, by the lab that teaches them.
TEXT = {"simple_pipeline": _SIMPLE_PIPELINE.split(), "taxi": _TAXI.split()}

THERE = [name for name in TEXT if (labs.LABS / name / labs.LAB_FILE).is_file()]
RECORDED = {
    name: Facts.model_validate_json(file.read_text(encoding="utf-8"))
    for name in THERE
    if (file := Path(__file__).with_name(f"recorded_{name}.json")).is_file()
}
CHECKS = [
    pytest.param(name, check, id=f"{name} {step.id} {check.kind} {at}")
    for name in RECORDED
    for step in labs.load(name).steps
    for at, check in enumerate(step.checks, 1)
]

Broken = dict[str, Any]


def numbered(lab: labs.Lab) -> list[str]:
    """The ids of the lab text in the order of the lab's steps; a step may take several as one, joined by a slash."""
    return [part for step in lab.steps for part in step.id.split("/") if part[0].isdigit()]


@pytest.mark.parametrize("name", THERE)
def test_every_step_of_the_text_is_a_step_of_the_lab_in_the_same_order_with_a_check(name: str) -> None:
    lab = labs.load(name)
    assert numbered(lab) == TEXT[name]
    assert [step.id for step in lab.steps if not step.checks] == []


def test_every_lab_of_the_text_is_there_with_the_facts_of_a_real_run() -> None:
    # What is missing would leave its tests above and below out, unseen.
    assert list(TEXT) == THERE
    assert list(TEXT) == list(RECORDED)


@pytest.mark.parametrize(("name", "check"), CHECKS)
def test_a_check_passes_on_the_facts_of_a_real_run_and_fails_on_broken_ones(name: str, check: Check) -> None:
    real = RECORDED[name]
    assert check.judge(real).state == "pass"

    broken = copy.deepcopy(real.model_dump(mode="json"))
    BREAK[check.kind](broken, check)
    found = check.judge(Facts.model_validate(broken))

    assert found.state == "fail"
    assert found.seen
    assert found.hint


def test_every_kind_of_check_has_a_way_to_break() -> None:
    kinds = {get_args(kind.model_fields["kind"].annotation)[0] for kind in get_args(get_args(Check)[0])}
    assert set(BREAK) == kinds


def set_(name: str, to: Any) -> Callable[[Broken, Any], None]:
    """Sets a field of the facts."""

    def change(facts: Broken, _: Any) -> None:
        facts[name] = to

    return change


def of_run(**fields: Any) -> Callable[[Broken, Any], None]:
    """Sets fields of the runs that the check looks at."""

    def change(facts: Broken, check: Any) -> None:
        steps = getattr(check, "runs", None) or [check.run]
        for run in facts["runs"]:
            if run["submitted_by"] in steps:
                run.update(copy.deepcopy(fields))

    return change


def of_tasks(**fields: Any) -> Callable[[Broken, Any], None]:
    """Sets fields of all tasks."""

    def change(facts: Broken, _: Any) -> None:
        for run in facts["runs"]:
            for task in run["tasks"]:
                task.update(copy.deepcopy(fields))

    return change


def of_artifacts(**fields: Any) -> Callable[[Broken, Any], None]:
    """Sets fields of all artifacts."""

    def change(facts: Broken, _: Any) -> None:
        for run in facts["runs"]:
            for task in run["tasks"]:
                for artifact in task["artifacts"]:
                    artifact.update(fields)

    return change


def parameter(value: Any) -> Callable[[Broken, Any], None]:
    """Replaces what the task gave."""

    def change(facts: Broken, check: Any) -> None:
        of_tasks(outputs={check.parameter: value})(facts, check)

    return change


def file_without_its_text(facts: Broken, check: Any) -> None:
    """The file is there and holds nothing."""
    for file in facts["files"]:
        file["text"] = "" if check.contains else None


def cell_with_an_error(facts: Broken, check: Any) -> None:
    """The check's cell failed."""
    for cell in facts["cells"]:
        if cell["tag"] == check.cell:
            cell.update(state="error", error="NameError: name 'dsl' is not defined")


def action_with_an_error(facts: Broken, check: Any) -> None:
    """The check's step failed."""
    for action in facts["actions"]:
        if action["step"] == check.step:
            action.update(state="error", error="/pipelines/upload answered 400")


def another_pipeline(facts: Broken, check: Any) -> None:
    """The pipeline is called otherwise."""
    of_run(pipeline_name="another")(facts, check)
    for pipeline in facts["pipelines"]:
        pipeline["name"] = "another"


def pod_that_shows_nothing(facts: Broken, _: Any) -> None:
    """The pod was there, with no volume and an empty manifest."""
    for run in facts["runs"]:
        for task in run["tasks"]:
            task["seen_pod"].update(volumes=[], manifest="")


BREAK: dict[str, Callable[[Broken, Any], None]] = {
    "login": set_("login", to={"ok": False, "seconds": 0.2, "error": "refused the password"}),
    "seeded": set_("seed", to={"state": "failed", "seconds": 240.0, "path": "", "detail": "ImagePullBackOff"}),
    "file": file_without_its_text,
    "cell": cell_with_an_error,
    "done": action_with_an_error,
    "submitted": of_run(name="another"),
    "experiment": set_("experiments", to=["Default"]),
    "state": of_run(state="FAILED"),
    "task": of_tasks(state="FAILED"),
    "output": parameter(-1.0),
    "number": parameter("much"),
    "series": parameter([1.0]),
    "table": parameter([]),
    "listed": of_run(listed=False),
    "pipeline": another_pipeline,
    "version": of_run(version_id="another"),
    "graph": of_tasks(after=["nothing"]),
    "artifacts": of_artifacts(bytes=None),
    "lineage": of_artifacts(id=0),
    "executions": of_tasks(state="FAILED"),
    "details": of_tasks(started=""),
    "config": of_run(service_account="default"),
    "pod": pod_that_shows_nothing,
    "logs": of_tasks(log=""),
    "namespace": of_run(workflow_namespace="demo-bob"),
    "objects": set_("objects", to=[]),
}
