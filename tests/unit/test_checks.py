"""Every kind of check on recorded facts: those of a good run pass, broken ones fail, missing ones are not-yet, and what
could not be looked at is neither."""

from pathlib import Path
from typing import Any

import pytest

from labs.runner import lab as labs
from labs.runner.checks import State, worst
from labs.runner.facts import CellFacts, Facts, RunFacts, edges
from labs.runner.result import LabResult, Result, judged, percentile

RUN = "5f0c9a1e-0f5b-4a57-9a0e-2f6d3a1b7c11"
LAB = labs.load("simple_pipeline")
TAGS = [step.cell for step in LAB.steps if step.cell]


def task(name: str, after: list[str], inputs: dict[str, float], output: float) -> dict[str, Any]:
    uri = f"s3://demo-alice/artifacts/math-pipeline/{RUN}/{name}/1b/executor-logs"
    logs = {"name": "executor-logs", "type": "system.Artifact", "uri": uri, "state": "LIVE", "event": "OUTPUT"}
    return {
        "name": name,
        "after": after,
        "state": "COMPLETE",
        "seconds": 4.2,
        "pod": f"math-pipeline-x-{name}",
        "namespace": "demo-alice",
        "inputs": inputs,
        "outputs": {"Output": output},
        "artifacts": [logs],
    }


GOOD_RUN: dict[str, Any] = {
    "submitted_by": "2-1",
    "run_id": RUN,
    "name": "math_pipeline run",
    "state": "SUCCEEDED",
    "experiment": "math_pipeline test experiment",
    "experiment_namespace": "demo-alice",
    "parameters": {"a": 1, "b": 2, "c": 3.0},
    "seconds": 27.1,
    "workflow": "math-pipeline-x",
    "workflow_namespace": "demo-alice",
    "tasks": [
        task("add", [], {"a": 1.0, "b": 2.0}, 3.0),
        task("multiply", ["add"], {"a": 3.0, "b": 3.0}, 9.0),
    ],
}
GOOD: dict[str, Any] = {
    "lab": "simple_pipeline",
    "student": "alice",
    "namespace": "demo-alice",
    "bucket": "demo-alice",
    "server": "gpu-notebook",
    "login": {"ok": True, "seconds": 0.3},
    "seed": {"state": "made", "seconds": 0.4, "path": "simple_pipeline.ipynb"},
    "cells": [{"tag": tag, "state": "ok", "seconds": 0.5, "attempts": 1} for tag in TAGS],
    "files": [
        {"path": "simple_pipeline.ipynb", "text": 'KUBEFLOW_HOST = "https://198.18.0.100/"'},
        {"path": "math_pipeline.yaml", "text": "comp-add comp-multiply pipelineInfo"},
    ],
    "experiments": ["math_pipeline test experiment"],
    "runs": [GOOD_RUN],
    "objects": [{"key": f"artifacts/math-pipeline/{RUN}/multiply/1b/executor-logs", "bytes": 120}],
}


def facts(run: dict[str, Any] | None = None, **fields: Any) -> Facts:
    """The good facts, some fields replaced; `run` replaces fields of the run."""
    runs = [{**GOOD_RUN, **run}] if run is not None else GOOD["runs"]
    return Facts.model_validate({**GOOD, "runs": runs, **fields})


def states(seen: Facts) -> dict[str, State]:
    return {step.id: step.state for step in judged(LAB, seen)}


def differing(seen: Facts) -> dict[str, State]:
    return {step: state for step, state in states(seen).items() if state != "pass"}


def why(seen: Facts, step: str) -> tuple[str, str]:
    found = next(result for result in judged(LAB, seen) if result.id == step)
    outcome = next(outcome for outcome in found.outcomes if outcome.state == found.state)
    return outcome.seen, outcome.hint


def outcome_of(seen: Facts) -> Result:
    steps = judged(LAB, seen)
    lab = LabResult(
        lab=LAB.name,
        title=LAB.title,
        student="alice",
        student_name="Alice",
        email="alice@example.org",
        seconds=30.0,
        steps=steps,
        facts=seen,
    )
    return Result(
        class_name="demo",
        url="https://198.18.0.100/",
        started="2026-01-01T00:00:00",
        finished="",
        seconds=31.0,
        labs=(lab,),
    )


def cells(
    broken: str, state: str = "error", error: str = "NameError: name 'dsl' is not defined"
) -> list[dict[str, Any]]:
    """The cell of that tag went wrong, and those after it were not reached."""
    at = TAGS.index(broken)
    return [
        {"tag": tag, "state": "ok" if i < at else state if i == at else "not-run", "error": error if i == at else ""}
        for i, tag in enumerate(TAGS)
    ]


def test_the_facts_of_a_good_run_pass_every_step() -> None:
    assert differing(facts()) == {}
    assert outcome_of(facts()).exit_code == 0


def test_the_facts_recorded_from_a_real_run_pass_every_step() -> None:
    recorded = Path(__file__).with_name("recorded_simple_pipeline.json").read_text(encoding="utf-8")
    assert differing(Facts.model_validate_json(recorded)) == {}


def test_a_refused_login_fails_and_everything_after_it_is_not_yet() -> None:
    seen = Facts(
        lab="simple_pipeline",
        student="alice",
        namespace="demo-alice",
        bucket="demo-alice",
        server="gpu-notebook",
        login={"ok": False, "seconds": 0.2, "error": "refused the password"},  # type: ignore[arg-type]  pydantic reads it
    )
    found = states(seen)
    assert found.pop("login") == "fail"
    assert set(found.values()) == {"not-yet"}
    assert outcome_of(seen).exit_code == 1


def test_a_cell_with_an_error_fails_its_step_and_later_steps_are_not_yet() -> None:
    seen = facts(cells=cells("add"), files=GOOD["files"][:1], runs=[], experiments=[], objects=[])
    found = states(seen)
    assert [step for step, state in found.items() if state == "pass"] == ["login", "1-4", "1-5", "1-6/1-7"]
    assert [step for step, state in found.items() if state == "fail"] == ["1-8"]
    assert why(seen, "1-8")[0] == "NameError: name 'dsl' is not defined"


@pytest.mark.parametrize("state", ["timeout", "dead", "error"])
def test_a_cell_that_did_not_end_well_fails_with_a_hint(state: str) -> None:
    seen = facts(cells=cells("compile", state, "what happened"))
    assert states(seen)["1-11"] == "fail"
    assert why(seen, "1-11")[0] == "what happened"
    assert why(seen, "1-11")[1]


def test_a_notebook_that_the_student_edited_is_left_alone_and_passes_and_says_so() -> None:
    seen = facts(seed={**GOOD["seed"], "state": "edited"})
    assert states(seen)["1-4"] == "pass"
    assert "edited by the student" in why(seen, "1-4")[0]


def test_a_server_that_does_not_come_up_fails_with_what_its_pod_waits_for() -> None:
    seen = facts(
        seed={**GOOD["seed"], "state": "failed", "detail": "pod gpu-notebook-0: ImagePullBackOff"}, files=[], cells=[]
    )
    assert states(seen)["1-4"] == "fail"
    assert "ImagePullBackOff" in why(seen, "1-4")[0]
    assert states(seen)["1-5"] == "not-yet"


def test_a_yaml_that_lacks_a_component_fails() -> None:
    seen = facts(files=[GOOD["files"][0], {"path": "math_pipeline.yaml", "text": "comp-add pipelineInfo"}])
    assert differing(seen) == {"1-12": "fail"}
    assert why(seen, "1-12")[0] == "lacks comp-multiply"


def test_a_yaml_that_was_not_made_is_not_yet() -> None:
    seen = facts(files=[GOOD["files"][0], {"path": "math_pipeline.yaml", "text": None}])
    assert differing(seen) == {"1-12": "not-yet"}


@pytest.mark.parametrize(
    "change", [{"name": "run 2"}, {"parameters": {"a": 1, "b": 2}}, {"parameters": {"a": 2, "b": 2, "c": 3}}]
)
def test_a_run_of_another_name_or_other_arguments_fails(change: dict[str, Any]) -> None:
    assert differing(facts(change)) == {"2-1": "fail"}


def test_an_experiment_that_is_not_listed_is_not_yet() -> None:
    seen = facts(experiments=["Default"])
    assert differing(seen) == {"2-2": "not-yet"}
    assert "“Default”" in why(seen, "2-2")[0]


def test_a_failed_run_fails_and_names_its_task_and_what_it_did_not_reach_is_not_yet() -> None:
    broken = [GOOD_RUN["tasks"][0], {"name": "multiply", "state": "FAILED", "after": ["add"]}]
    seen = facts({"state": "FAILED", "tasks": broken, "error": "exit code 1"}, objects=[])
    assert differing(seen) == {"2-3": "fail", "2-5": "not-yet", "bucket": "not-yet"}
    assert why(seen, "2-3")[0] == "FAILED after 27.1 s in multiply: exit code 1"


@pytest.mark.parametrize("state", ["", "PENDING", "RUNNING"])
def test_a_run_that_is_not_done_is_not_yet(state: str) -> None:
    seen = facts({"state": state, "tasks": [], "workflow": "", "workflow_namespace": ""}, objects=[])
    assert differing(seen) == dict.fromkeys(("2-3", "2-5", "namespace", "bucket"), "not-yet")


def test_a_wrong_output_fails_and_the_hint_shows_what_went_in() -> None:
    subtracted = [task("add", [], {"a": 1.0, "b": 2.0}, -1.0), task("multiply", ["add"], {"a": -1.0, "b": 3.0}, -3.0)]
    seen = facts({"tasks": subtracted})
    assert differing(seen) == {"2-5": "fail"}
    assert why(seen, "2-5")[0] == "-3"
    assert "a=-1, b=3" in why(seen, "2-5")[1]


def test_a_task_of_another_name_fails_once_the_run_succeeded() -> None:
    seen = facts({"tasks": GOOD_RUN["tasks"][:1]})
    assert differing(seen) == {"2-5": "fail"}
    assert "tasks: add" in why(seen, "2-5")[0]


@pytest.mark.parametrize("field", ["experiment_namespace", "workflow_namespace"])
def test_a_run_outside_of_the_students_namespace_fails(field: str) -> None:
    seen = facts({field: "demo-bob"})
    assert differing(seen) == {"namespace": "fail"}
    assert "demo-bob" in why(seen, "namespace")[0]


def test_objects_that_are_not_there_fail_once_the_run_succeeded() -> None:
    assert differing(facts(objects=[])) == {"bucket": "fail"}


def test_objects_of_another_run_are_not_taken_for_this_ones() -> None:
    other = [{"key": "artifacts/math-pipeline/another-run/multiply/1b/executor-logs", "bytes": 1}]
    assert differing(facts(objects=other)) == {"bucket": "fail"}


def test_an_artifact_in_another_bucket_fails_even_when_objects_are_there() -> None:
    stray = {**GOOD_RUN["tasks"][0]["artifacts"][0], "uri": "s3://mlpipeline/artifacts/x"}
    tasks = [{**GOOD_RUN["tasks"][0], "artifacts": [stray]}, GOOD_RUN["tasks"][1]]
    seen = facts({"tasks": tasks})
    assert differing(seen) == {"bucket": "fail"}
    assert "s3://mlpipeline/artifacts/x" in why(seen, "bucket")[0]


@pytest.mark.parametrize(
    ("source", "lost", "unchecked"),
    [
        ("api", {"experiments": []}, {"2-1", "2-2", "2-3"}),
        ("mlmd", {"run": {"tasks": []}}, {"2-5"}),
        ("kubernetes", {"run": {"workflow_namespace": "", "tasks": []}}, {"namespace"}),
        ("bucket", {"objects": []}, {"bucket"}),
    ],
)
def test_what_could_not_be_looked_at_is_could_not_check_and_never_a_pass(
    source: str, lost: dict[str, Any], unchecked: set[str]
) -> None:
    seen = facts(**lost, gaps={source: "it did not answer"})
    found = differing(seen)
    assert {step for step, state in found.items() if state == "could-not-check"} == unchecked
    assert all(
        why(seen, step) == ("it did not answer", why(seen, step)[1]) and why(seen, step)[1] for step in unchecked
    )


def test_only_unchecked_steps_beside_passes_make_exit_code_3() -> None:
    assert outcome_of(facts(objects=[], gaps={"bucket": "no answer"})).exit_code == 3
    assert outcome_of(facts(objects=[], experiments=[], gaps={"bucket": "no answer"})).exit_code == 1


def test_a_student_whose_password_is_unknown_is_checked_nowhere() -> None:
    sources = ("server", "api", "mlmd", "kubernetes", "bucket")
    seen = Facts.model_validate(
        {
            **{key: GOOD[key] for key in ("lab", "student", "namespace", "bucket", "server")},
            "gaps": dict.fromkeys(sources, "?"),
        }
    )
    assert states(seen)["login"] == "could-not-check"
    assert "pass" not in states(seen).values()


def test_nothing_at_all_is_no_pass() -> None:
    bare = Facts.model_validate({key: GOOD[key] for key in ("lab", "student", "namespace", "bucket", "server")})
    assert set(states(bare).values()) == {"not-yet"}
    assert worst([]) == "could-not-check"


def test_facts_survive_their_file() -> None:
    seen = facts()
    assert Facts.model_validate_json(seen.model_dump_json()) == seen


def test_a_cell_may_be_asked_for_what_it_prints() -> None:
    check = {"kind": "cell", "cell": "run", "prints": "9"}
    step = labs.Step.model_validate({"id": "x", "title": {"en": "x"}, "does": "look", "checks": [check]})
    printed = CellFacts(tag="run", state="ok", output="it is 9")
    assert step.checks[0].judge(facts(cells=[printed])).state == "pass"
    assert step.checks[0].judge(facts(cells=[printed.model_copy(update={"output": "8"})])).state == "fail"


def test_edges_follow_parameters_artifacts_and_plain_order() -> None:
    tasks = {
        "data": {},
        "train": {"inputs": {"artifacts": {"rows": {"taskOutputArtifact": {"producerTask": "data"}}}}},
        "score": {
            "inputs": {
                "parameters": {
                    "m": {"taskOutputParameter": {"producerTask": "train"}},
                    "k": {"componentInputParameter": "k"},
                }
            },
            "dependentTasks": ["train", "data"],
        },
    }
    graph = {"data": (), "train": ("data",), "score": ("train", "data")}
    spec = {"root": {"dag": {"tasks": tasks}}}
    assert list(edges(spec).items()) == list(graph.items())
    assert edges({"pipeline_spec": spec, "platform_spec": {}}) == graph
    assert edges({}) == {}


def test_percentiles_are_values_that_were_seen() -> None:
    assert percentile([], 0.5) is None
    assert percentile([3.0], 0.95) == 3.0
    assert percentile([float(i) for i in range(1, 101)], 0.95) == 95.0
    assert percentile([1.0, 2.0, 3.0, 4.0], 0.5) == 2.0


def test_a_run_is_found_by_the_step_that_submitted_it() -> None:
    first, second = (RunFacts(submitted_by=step, run_id=step) for step in ("2-1", "3-4"))
    seen = facts().model_copy(update={"runs": (first, second)})
    assert seen.run("3-4") is second
    assert seen.run("9-9") is None
