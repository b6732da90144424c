"""Every kind of check on recorded facts: broken ones fail, missing ones are not-yet, and what could not be looked at is
neither. That those of the real run pass and that every kind can fail, test_coverage.py shows for each step."""

import copy
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from labs.runner import lab as labs
from labs.runner.checks import Check, Outcome, State, worst
from labs.runner.facts import CellFacts, Facts, RunFacts, edges
from labs.runner.result import LabResult, Result, judged, percentile

RECORDED = Path(__file__).with_name("recorded_simple_pipeline.json").read_text(encoding="utf-8")
REAL = Facts.model_validate_json(RECORDED)
GOOD: dict[str, Any] = REAL.model_dump(mode="json")
SDK_RUN, SECOND_RUN = GOOD["runs"]
LAB = labs.load("simple_pipeline")
TAGS = [step.cell for step in LAB.steps if step.cell]

FIRST, SECOND = "2-1", "3-4/3-5/3-6/3-7"
# The steps that look at the tasks of a run.
OF_FIRST = {"2-4", "2-5", "4-3", "4-4", "namespace", "bucket"}
OF_SECOND = {
    SECOND,
    *("4-1-6", "4-1-7", "4-1-8", "4-1-9", "4-1-10", "4-1-11", "4-1-12"),
    *("4-3", "4-4", "namespace", "bucket"),
}

# What is known of a run of which ML Metadata says nothing.
WAITING: dict[str, Any] = {
    "pipeline_root": "",
    "tasks": [{"name": "add"}, {"name": "multiply", "after": ["add"]}],
}


def facts(first: dict[str, Any] | None = None, second: dict[str, Any] | None = None, **fields: Any) -> Facts:
    """The good facts, some fields replaced; `first` and `second` replace fields of the runs."""
    runs = [{**SDK_RUN, **(first or {})}, {**SECOND_RUN, **(second or {})}]
    return Facts.model_validate({**GOOD, "runs": runs, **fields})


def tasks_of(run: dict[str, Any], **changes: dict[str, Any]) -> dict[str, Any]:
    """The run's tasks, with some fields of the named ones replaced."""
    return {"tasks": [{**task, **changes.get(task["name"], {})} for task in run["tasks"]]}


def check(**given: Any) -> Check:
    found: Check = TypeAdapter(Check).validate_python(given)
    return found


def states(seen: Facts) -> dict[str, State]:
    return {step.id: step.state for step in judged(LAB, seen)}


def differing(seen: Facts) -> dict[str, State]:
    return {step: state for step, state in states(seen).items() if state != "pass"}


def why(seen: Facts, step: str) -> Outcome:
    found = next(result for result in judged(LAB, seen) if result.id == step)
    return next(outcome for outcome in found.outcomes if outcome.state == found.state)


def outcome_of(seen: Facts) -> Result:
    lab = LabResult(
        lab=LAB.name,
        title=LAB.title,
        student="alice",
        student_name="Alice",
        email="alice@example.org",
        seconds=30.0,
        steps=judged(LAB, seen),
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


def test_the_facts_recorded_from_a_real_run_pass_every_step() -> None:
    assert differing(REAL) == {}
    assert outcome_of(REAL).exit_code == 0


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
    nothing: dict[str, Any] = {"runs": [], "experiments": [], "objects": [], "pipelines": [], "actions": []}
    seen = facts(cells=cells("add"), files=GOOD["files"][:1], **nothing)
    found = states(seen)
    assert [step for step, state in found.items() if state == "pass"] == ["login", "1-4", "1-5", "1-6/1-7"]
    assert [step for step, state in found.items() if state == "fail"] == ["1-8"]
    assert why(seen, "1-8").seen == "NameError: name 'dsl' is not defined"


@pytest.mark.parametrize("state", ["timeout", "dead", "error"])
def test_a_cell_that_did_not_end_well_fails_with_a_hint(state: str) -> None:
    seen = facts(cells=cells("compile", state, "what happened"))
    assert states(seen)["1-11"] == "fail"
    assert why(seen, "1-11").seen == "what happened"
    assert why(seen, "1-11").hint


def test_a_notebook_that_the_student_edited_is_left_alone_and_passes_and_says_so() -> None:
    seen = facts(seed={**GOOD["seed"], "state": "edited"})
    assert states(seen)["1-4"] == "pass"
    assert "edited by the student" in why(seen, "1-4").seen


def test_a_server_that_does_not_come_up_fails_with_what_its_pod_waits_for() -> None:
    seen = facts(
        seed={**GOOD["seed"], "state": "failed", "detail": "pod gpu-notebook-0: ImagePullBackOff"}, files=[], cells=[]
    )
    assert states(seen)["1-4"] == "fail"
    assert "ImagePullBackOff" in why(seen, "1-4").seen
    assert states(seen)["1-5"] == "not-yet"


@pytest.mark.parametrize(("text", "state"), [("comp-add pipelineInfo", "fail"), (None, "not-yet")])
def test_a_yaml_that_lacks_a_component_fails_and_one_that_was_not_made_is_not_yet(text: str, state: State) -> None:
    seen = facts(files=[GOOD["files"][0], {"path": "math_pipeline.yaml", "text": text}])
    assert differing(seen) == {"1-12": state}


@pytest.mark.parametrize("step", ["3-1", "3-2/3-3", SECOND])
def test_a_step_that_went_wrong_says_what_was_answered_and_one_that_was_not_reached_is_not_yet(step: str) -> None:
    others = [action for action in GOOD["actions"] if action["step"] != step]
    wrong = facts(actions=[*others, {"step": step, "state": "error", "error": "/pipelines/upload answered 400 taken"}])
    assert differing(wrong) == {step: "fail"}
    assert why(wrong, step).seen == "/pipelines/upload answered 400 taken"
    assert differing(facts(actions=others)) == {step: "not-yet"}


@pytest.mark.parametrize("change", [{"parameters": {"a": 1, "b": 2}}, {"parameters": {"a": 2, "b": 2, "c": 3}}])
def test_a_run_with_other_arguments_fails(change: dict[str, Any]) -> None:
    assert differing(facts(change)) == {FIRST: "fail"}


def test_a_run_of_another_name_is_not_the_one_of_the_text() -> None:
    assert differing(facts({"name": "run 2"})) == {FIRST: "fail", "3-8/3-9": "fail"}


def test_a_run_in_another_experiment_fails_where_the_text_wants_the_same() -> None:
    seen = facts(second={"experiment": "Default"})
    assert differing(seen) == {SECOND: "fail", "3-8/3-9": "fail"}
    assert "“Default”" in why(seen, SECOND).seen


def test_an_experiment_of_another_name_fails_and_one_that_nobody_made_is_not_yet() -> None:
    assert why(facts(experiments=["Default"]), "2-2").seen == "listed: “Default”"
    assert states(facts(experiments=["Default"]))["2-2"] == "fail"
    assert states(facts(experiments=["Default"], runs=[]))["2-2"] == "not-yet"


@pytest.mark.parametrize(
    ("change", "state", "told"),
    [
        ({"listed": False}, "fail", "not listed"),
        ({"version_id": ""}, "fail", "names no version"),
        ({"state": "RUNNING", "finished": ""}, "not-yet", "RUNNING, not ended"),
    ],
)
def test_both_runs_must_be_listed_with_state_duration_and_version(
    change: dict[str, Any], state: State, told: str
) -> None:
    seen = facts(second=change)
    assert states(seen)["3-8/3-9"] == state
    assert told in why(seen, "3-8/3-9").seen
    assert states(facts(runs=[SDK_RUN]))["3-8/3-9"] == "not-yet"


def test_a_failed_run_fails_and_names_its_task_and_what_it_did_not_reach_is_not_yet() -> None:
    broken = [SDK_RUN["tasks"][0], {"name": "multiply", "state": "FAILED", "after": ["add"]}]
    own = [item for item in GOOD["objects"] if SDK_RUN["run_id"] not in item["key"]]
    own = [item for item in own if SDK_RUN["workflow"] not in item["key"]]
    seen = facts({"state": "FAILED", "tasks": broken, "error": "exit code 1"}, objects=own)
    found = differing(seen)
    assert {step for step, state in found.items() if state == "fail"} == {"2-3", "2-5"}
    assert {step for step, state in found.items() if state == "not-yet"} == {"4-3", "4-4", "bucket"}
    assert why(seen, "2-3").seen.endswith("in multiply: exit code 1")


@pytest.mark.parametrize("state", ["", "PENDING", "RUNNING"])
def test_a_run_that_is_not_done_is_not_yet(state: str) -> None:
    waits: dict[str, Any] = {**WAITING, "state": state, "workflow": "", "workflow_namespace": "", "finished": ""}
    found = differing(facts(waits, waits, objects=[]))
    assert found == dict.fromkeys([*OF_FIRST, *OF_SECOND, "2-3", "3-8/3-9"], "not-yet")


def test_a_run_that_was_never_started_is_not_yet() -> None:
    found = differing(facts(runs=[SDK_RUN]))
    assert found == dict.fromkeys([*OF_SECOND, "3-8/3-9", "4-1-3/4-1-4"], "not-yet")


def test_a_component_that_subtracts_fails_where_its_output_goes_and_the_hint_shows_what_went_in() -> None:
    seen = facts(
        tasks_of(
            SDK_RUN,
            add={"outputs": {"Output": -1.0}},
            multiply={"inputs": {"a": -1.0, "b": 3.0}, "outputs": {"Output": -3.0}},
        ),
    )
    assert differing(seen) == {"2-4": "fail", "2-5": "fail"}
    assert (why(seen, "2-4").seen, why(seen, "2-4").hint) == (
        "-1",
        "It was given a=1, b=2: follow the values back to the first that is wrong",
    )
    assert why(seen, "2-5").seen == "given a=-1"


def test_a_task_of_another_name_fails_once_the_run_succeeded() -> None:
    seen = facts({"tasks": SDK_RUN["tasks"][:1]})
    assert differing(seen) == {"2-5": "fail", "4-2": "fail", "4-4": "fail"}
    assert "tasks: add" in why(seen, "2-5").seen


@pytest.mark.parametrize(
    ("state", "found"),
    [("CACHED", "pass"), ("RUNNING", "not-yet"), ("NEW", "not-yet"), ("FAILED", "fail"), ("CANCELED", "fail")],
)
def test_a_task_is_as_good_as_its_execution(state: str, found: State) -> None:
    seen = facts({**tasks_of(SDK_RUN, add={"state": state})})
    assert (states(seen)["2-4"], states(seen)["4-4"]) == (found, found)


@pytest.mark.parametrize("field", ["experiment_namespace", "workflow_namespace"])
def test_a_run_outside_of_the_students_namespace_fails(field: str) -> None:
    seen = facts({field: "demo-bob"})
    assert differing(seen) == {"namespace": "fail"}
    assert "demo-bob" in why(seen, "namespace").seen


def test_objects_that_are_not_there_fail_once_the_run_succeeded() -> None:
    assert differing(facts(objects=[])) == {"bucket": "fail"}


def test_objects_of_another_run_are_not_taken_for_this_ones() -> None:
    other = [{"key": "artifacts/math-pipeline/another-run/multiply/1b/executor-logs", "bytes": 1}]
    assert differing(facts(objects=other)) == {"bucket": "fail"}


def logs_of(run: dict[str, Any], task: str, **change: Any) -> dict[str, Any]:
    """The run, with the log that a task left in the bucket changed."""
    artifacts = copy.deepcopy(next(t for t in run["tasks"] if t["name"] == task)["artifacts"])
    artifacts[0].update(change)
    return tasks_of(run, **{task: {"artifacts": artifacts}})


@pytest.mark.parametrize(
    ("change", "told", "steps"),
    [
        ({"uri": "s3://mlpipeline/artifacts/x"}, "lies elsewhere", {"4-1-7", "4-3", "bucket"}),
        ({"uri": ""}, "without a path", {"4-1-7", "4-3"}),
        ({"bytes": None}, "no object at", {"4-1-7", "4-1-10", "4-3"}),
        ({"bytes": 0}, "no copy of the log", {"4-1-10"}),
        ({"properties": {}}, "has no properties", {"4-3"}),
        ({"id": 0}, "has no id", {"4-1-7", "4-3"}),
        ({"id": SECOND_RUN["tasks"][1]["artifacts"][0]["id"]}, "by multiply and by add", {"4-3"}),
        ({"event": "INPUT"}, "made no artifact", {"4-1-7", "4-1-10", "4-3"}),
    ],
)
def test_an_output_must_have_its_place_in_the_bucket_its_object_its_properties_and_one_maker(
    change: dict[str, Any], told: str, steps: set[str]
) -> None:
    seen = facts(second=logs_of(SECOND_RUN, "add", **change))
    assert differing(seen) == dict.fromkeys(steps, "fail")
    assert told in " ".join(why(seen, step).seen for step in steps)


def test_metrics_have_no_object_and_need_none() -> None:
    seen = facts(second=logs_of(SECOND_RUN, "add", bytes=None, type="system.Metrics", name="metrics"))
    judge = check(kind="artifacts", run=SECOND, under="artifacts/", named={"add": ["metrics"]})
    assert judge.judge(seen).state == "pass"
    lost = check(kind="artifacts", run=SECOND, under="artifacts/", named={"multiply": ["model"]}).judge(seen)
    assert (lost.state, lost.seen) == ("fail", "multiply made no model")


def test_lineage_leads_from_what_was_taken_to_what_made_it() -> None:
    model = {"name": "model", "type": "system.Model", "uri": "s3://b/m", "state": "LIVE", "id": 900}
    made, took = {**model, "event": "OUTPUT"}, {**model, "event": "INPUT"}
    judge = check(kind="lineage", run=FIRST, flows={"multiply": ["add"]})
    handed = facts(tasks_of(SDK_RUN, add={"artifacts": [made]}, multiply={"artifacts": [took]}))
    assert (judge.judge(handed).state, judge.judge(handed).seen) == ("pass", "1 artifacts; add → multiply")

    strange = facts(tasks_of(SDK_RUN, add={"artifacts": [made]}, multiply={"artifacts": [{**took, "id": 901}]}))
    assert judge.judge(strange).state == "fail"
    assert "which no task of the run made" in judge.judge(strange).seen
    assert (judge.judge(REAL).state, judge.judge(REAL).seen) == ("fail", "multiply took nothing of add")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"name": ""}, "KFP shows no such pipeline"),
        ({"name": "math"}, "it is called “math”"),
        ({"graph": {"add": []}}, "no task multiply; tasks: add"),
        ({"graph": {"add": [], "multiply": []}}, "multiply comes after nothing"),
        ({"graph": {"add": [], "multiply": ["add"], "x": []}}, "also x"),
        ({"yaml": "pipelineInfo: {} # add"}, "its YAML lacks multiply"),
    ],
)
def test_an_uploaded_pipeline_must_be_the_one_of_the_text(change: dict[str, Any], told: str) -> None:
    seen = facts(pipelines=[{**GOOD["pipelines"][0], **change}])
    assert differing(seen) == {"3-2/3-3": "fail", "4-2": "fail"}
    assert why(seen, "4-2").seen == told


def test_a_pipelines_description_is_looked_at_where_the_text_gives_one() -> None:
    seen = facts(pipelines=[{**GOOD["pipelines"][0], "description": "mine"}])
    assert differing(seen) == {"3-2/3-3": "fail"}


def test_a_pipeline_that_was_not_uploaded_is_not_yet() -> None:
    assert differing(facts(pipelines=[])) == dict.fromkeys(("3-2/3-3", "4-1-3/4-1-4", "4-2"), "not-yet")


@pytest.mark.parametrize("change", [{"version_id": ""}, {"version_id": "x"}, {"pipeline_id": "x"}])
def test_a_run_of_another_version_fails(change: dict[str, Any]) -> None:
    assert states(facts(second=change))["4-1-3/4-1-4"] == "fail"


@pytest.mark.parametrize(
    "change", [{"id": ""}, {"started": ""}, {"finished": ""}, {"finished": "2020-01-01T00:00:00Z"}]
)
def test_a_task_must_be_shown_with_id_and_times(change: dict[str, Any]) -> None:
    assert differing(facts(second=tasks_of(SECOND_RUN, multiply=change))) == {"4-1-8": "fail"}


@pytest.mark.parametrize(
    ("change", "steps"),
    [
        ({"seen_pod": None}, {"4-1-9", "4-1-11"}),
        ({"seen_pod": {**SECOND_RUN["tasks"][0]["seen_pod"], "volumes": []}}, {"4-1-9"}),
        ({"seen_pod": {**SECOND_RUN["tasks"][0]["seen_pod"], "manifest": "kind: Pod"}}, {"4-1-11"}),
        ({"seen_pod": {**SECOND_RUN["tasks"][0]["seen_pod"], "name": "x"}}, {"4-1-9", "4-1-11"}),
        ({"log": None}, {"4-1-10"}),
        ({"log": " \n"}, {"4-1-10"}),
    ],
)
def test_a_pod_must_show_its_volumes_its_yaml_and_its_log(change: dict[str, Any], steps: set[str]) -> None:
    assert differing(facts(second=tasks_of(SECOND_RUN, add=change))) == dict.fromkeys(steps, "fail")


def test_a_log_that_only_the_bucket_has_is_a_log() -> None:
    kept = {"log": "loaded\n", "log_from": "bucket"}
    assert differing(facts(second=tasks_of(SECOND_RUN, add=kept, multiply=kept))) == {}


@pytest.mark.parametrize(
    "change",
    [
        {"service_account": "pipeline-runner"},
        {"pipeline_root": "minio://mlpipeline/v2/artifacts"},
        {"pipeline_root": ""},
    ],
)
def test_a_run_that_was_given_another_account_or_root_fails(change: dict[str, Any]) -> None:
    assert differing(facts(second=change)) == {"4-1-12": "fail"}


def gave(value: Any) -> Facts:
    """The first run's multiply task gave that."""
    return facts(tasks_of(SDK_RUN, multiply={"outputs": {"Output": value}}))


@pytest.mark.parametrize(
    ("kind", "given", "good", "bad"),
    [
        ("output", {"equals": [1, {"a": 2}]}, [[1, {"a": 2}]], [[1], None, "x"]),
        ("number", {"at_most": 2.0, "at_least": 1.0}, [1.0, 1.5, 2], [0.9, 2.1, True, "1.5", None, [1.5]]),
        ("number", {}, [0, -1e9], ["", float("nan"), float("inf")]),
        (
            "series",
            {"length": 3, "falls": True},
            [[3, 1, 2.0], [1.0, 5.0, 0.9]],
            [[3, 2], [3, 1, 2.8], [3, "1", 1], []],
        ),
        ("series", {}, [[1.0]], [[], 1.0, [None], [float("nan")], {"0": 1.0}]),
        (
            "table",
            {"rows": 2, "columns": ["fare", "predicted"]},
            [[{"fare": 1, "predicted": 2}, {"fare": 1, "predicted": 2, "n": 3}], [[1, 2], [3, 4]]],
            [[], [[1, 2]], [[1, 2], [3]], [[1, 2], [3, None]], [{"fare": 1}, {"fare": 1}], [1, 2], "rows"],
        ),
    ],
)
def test_an_output_that_is_a_value_a_number_a_series_or_a_table(
    kind: str, given: dict[str, Any], good: list[Any], bad: list[Any]
) -> None:
    judge = check(kind=kind, run=FIRST, task="multiply", **given)
    assert [judge.judge(gave(value)).state for value in good] == ["pass"] * len(good)
    assert [judge.judge(gave(value)).state for value in bad] == ["fail"] * len(bad)
    assert all(judge.judge(gave(value)).hint for value in bad)
    assert judge.expected(REAL)
    nothing = facts({**tasks_of(SDK_RUN, multiply={"outputs": None}), "state": "RUNNING"})
    assert judge.judge(nothing).state == "not-yet"
    assert judge.judge(nothing.model_copy(update={"gaps": {"mlmd": "no answer"}})).state == "could-not-check"


@pytest.mark.parametrize(
    ("source", "lost", "unchecked"),
    [
        (
            "api",
            {"experiments": []},
            {FIRST, "2-2", "2-3", "3-2/3-3", SECOND, "3-8/3-9", "4-1-3/4-1-4", "4-1-6", "4-1-8", "4-1-12", "4-2"},
        ),
        (
            "mlmd",
            WAITING,
            {"2-4", "2-5", SECOND, "4-1-6", "4-1-7", "4-1-8", "4-1-9", "4-1-10", "4-1-11", "4-1-12", "4-3", "4-4"},
        ),
    ],
)
def test_what_could_not_be_looked_at_is_could_not_check(source: str, lost: dict[str, Any], unchecked: set[str]) -> None:
    of_runs = {key: value for key, value in lost.items() if key in RunFacts.model_fields}
    of_all = {key: value for key, value in lost.items() if key not in of_runs}
    seen = facts(of_runs, of_runs, **of_all, gaps={source: "it did not answer"})
    found = differing(seen)
    assert found == dict.fromkeys(unchecked, "could-not-check")
    assert {why(seen, step).seen for step in unchecked} == {"it did not answer"}
    assert all(why(seen, step).hint for step in unchecked)


def test_pods_that_nobody_could_look_at_are_could_not_check() -> None:
    lost = {name: {"seen_pod": None, "log": None} for name in ("add", "multiply")}
    seen = facts(second=tasks_of(SECOND_RUN, **lost), gaps={"kubernetes": "it did not answer"})
    assert differing(seen) == dict.fromkeys(("4-1-9", "4-1-10", "4-1-11"), "could-not-check")


def test_a_bucket_that_does_not_open_is_could_not_check_and_the_logs_of_pods_do_not_prove_the_copy() -> None:
    first, second = ({**logs_of(run, "add", bytes=None)} for run in (SDK_RUN, SECOND_RUN))
    seen = facts(first, second, objects=[], gaps={"bucket": "the key was refused"})
    assert differing(seen) == dict.fromkeys(("4-1-7", "4-1-10", "4-3", "bucket"), "could-not-check")
    assert f"classroom repair CLASS.yaml {seen.student}" in why(seen, "bucket").hint


@pytest.mark.parametrize("code", ["InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied"])
def test_a_key_that_the_store_refuses_is_wrong_and_explains_a_run_that_failed(code: str) -> None:
    seen = facts({"state": "FAILED"}, gaps={"bucket": f"it was not listed ({code})"}, objects=[])

    assert why(seen, "bucket").state == "fail"
    assert "key that is still valid" in why(seen, "bucket").hint
    assert "key that is still valid" in why(seen, "2-3").hint


def test_importers_make_nothing_and_run_in_no_pod() -> None:
    given = {"name": "rows", "type": "system.Dataset", "uri": "s3://elsewhere/rows.csv", "state": "LIVE", "id": 900}
    importer: dict[str, Any] = {"name": "importer", "imports": True, "execution": 7, "state": "COMPLETE"}
    importer["artifacts"] = [{**given, "event": "OUTPUT"}]
    taking = tasks_of(SECOND_RUN)["tasks"]
    taking[0]["artifacts"] = [{**given, "event": "INPUT"}, *taking[0]["artifacts"]]
    seen = facts(second={"tasks": [importer, *taking]})
    assert set(differing(seen)) == {"4-1-6", "4-1-8"}
    assert "also importer" in why(seen, "4-1-6").seen
    assert check(kind="lineage", run=SECOND, flows={"add": ["importer"]}).judge(seen).state == "pass"
    alone = check(kind="pod", run=SECOND, shows="yaml").judge(facts(second={"tasks": [importer]}))
    assert (alone.state, alone.seen) == ("fail", "nothing but importers")


def test_a_run_whose_namespace_nobody_could_look_at_is_could_not_check() -> None:
    nowhere: dict[str, Any] = {**WAITING, "workflow_namespace": ""}
    seen = facts(nowhere, nowhere, gaps={"kubernetes": "it did not answer"})
    assert states(seen)["namespace"] == "could-not-check"


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


def test_a_check_that_names_no_cell_or_step_means_its_own() -> None:
    given = {"id": "9-1", "title": {"en": "x"}}
    cell = labs.Step.model_validate({**given, "does": "cell", "cell": "run", "checks": [{"kind": "cell"}]})
    fetch = labs.Step.model_validate({**given, "does": "fetch", "fetch": "x.yaml", "checks": [{"kind": "done"}]})
    assert cell.checks[0].model_dump()["cell"] == "run"
    assert fetch.checks[0].model_dump()["step"] == "9-1"


def test_a_cell_may_be_asked_for_what_it_prints() -> None:
    judge = check(kind="cell", cell="run", prints="9")
    printed = CellFacts(tag="run", state="ok", output="it is 9").model_dump()
    assert judge.judge(facts(cells=[printed])).state == "pass"
    assert judge.judge(facts(cells=[{**printed, "output": "8"}])).state == "fail"


@pytest.mark.parametrize(
    "given",
    [
        {"name": "x", "tasks": {}},
        {"name": "x", "tasks": {}, "run": FIRST, "uploaded": "3-2/3-3"},
        {"name": "x", "tasks": {}, "run": FIRST, "description": "y"},
    ],
)
def test_a_pipeline_is_uploaded_or_carried_and_only_an_uploaded_one_is_described(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="uploaded:"):
        check(kind="pipeline", **given)


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
