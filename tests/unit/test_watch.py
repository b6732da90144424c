"""During the class: where a student stands is read from what they stored and started, and nothing of theirs changes."""

import json
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from pydantic import SecretStr

from infra.spec import ClassSpec, Platform
from labs.runner import watch as watching
from labs.runner.cells import FILE_CHARACTERS
from labs.runner.facts import CellFacts, Facts, FileFacts, LoginFacts
from labs.runner.result import LabResult, judged
from labs.runner.watch import Standing, executed, stands_at, watch, youngest_runs
from tests.unit.test_rehearsal import BUCKET_SECRET, LAB, PASSWORD, STARTS, NoCluster, Place, place


def cell(tag: str, count: int | None, *outputs: dict[str, Any]) -> dict[str, Any]:
    source = {"cell_type": "code", "source": f"{tag} = 1", "metadata": {"tags": [tag]}}
    return {**source, "execution_count": count, "outputs": list(outputs)}


def as_read(text: str) -> str:
    return text


def test_a_stored_cell_was_executed_when_it_has_a_number_and_failed_when_it_shows_an_error() -> None:
    wrong = {"output_type": "error", "ename": "NameError", "evalue": "no a", "traceback": ["Traceback"]}
    printed = {"output_type": "stream", "name": "stdout", "text": ["one\n", "two\n"]}
    notebook = {"cells": [cell("import", 1, printed), cell("add", 2, wrong), cell("multiply", None)]}
    found = {one.tag: one for one in executed(LAB, notebook, as_read)}
    assert (found["import"].state, found["import"].output) == ("ok", "one\ntwo")
    assert (found["add"].state, found["add"].error) == ("error", "NameError: no a")
    assert (found["multiply"].state, found["compile"].state) == ("not-run", "not-run")


def test_a_students_run_is_the_youngest_of_the_name_that_the_lab_gives_it() -> None:
    runs = [
        {"run_id": "old", "display_name": "math_pipeline run", "created_at": "2026-01-01T10:00:00Z"},
        {"run_id": "new", "display_name": "math_pipeline run", "created_at": "2026-01-01T11:00:00Z"},
        {"run_id": "up", "display_name": "Run of second math_pipeline", "created_at": "2026-01-01T09:00:00Z"},
        {"run_id": "mine", "display_name": "something else", "created_at": "2026-01-01T12:00:00Z"},
    ]
    assert {step: run["run_id"] for step, run in youngest_runs(LAB, runs).items()} == {"2-1": "new", STARTS: "up"}


@dataclass(frozen=True, kw_only=True)
class Class:
    """A class of one, at a stand-in."""

    spec: ClassSpec
    platform: Platform
    place: Place

    def look(self, directory: Path, rounds: int = 1) -> tuple[list[list[Standing]], Any]:
        seen: list[list[Standing]] = []
        stop = threading.Event()

        def show(standings: list[Standing]) -> None:
            seen.append(standings)
            if len(seen) == rounds:
                stop.set()

        passwords = {"alice": SecretStr(PASSWORD)}
        result = watch(self.spec, self.platform, passwords, directory, show, stop, seconds_between_rounds=0.0)
        return seen, result


@pytest.fixture(scope="module")
def klass(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Class]:
    spec = ClassSpec.model_validate(
        {
            "name": "demo",
            "students": [{"id": "alice", "email": "alice@example.org"}],
            "notebooks": [{"name": "gpu-notebook"}],
        }
    )
    with place(tmp_path_factory.mktemp("watched")) as made, pytest.MonkeyPatch.context() as patch:
        patch.setattr(watching, "Cluster", lambda *_: NoCluster())
        yield Class(spec=spec, platform=platform.model_copy(update={"url": made.url, "ca_file": None}), place=made)


def test_a_student_who_has_not_begun_stands_at_the_first_step(klass: Class, tmp_path: Path) -> None:
    [[standing]], result = klass.look(tmp_path)
    assert (standing.step, standing.state) == ("1-4", "not-yet")
    assert list(klass.place.workspace.iterdir()) == []
    assert (tmp_path / "report.html").exists()
    assert result.exit_code == 1


def test_a_student_in_the_middle_stands_at_the_first_step_not_done_and_nothing_is_changed(
    klass: Class, tmp_path: Path
) -> None:
    place = klass.place
    # The taught notebook, as a student who has done two cells stored it.
    place.rehearse(lab=LAB.until("1-4") or LAB)
    notebook = json.loads(place.own.read_text())
    for count, tag in enumerate(("import", "environment"), 1):
        next(c for c in notebook["cells"] if tag in c["metadata"].get("tags", ()))["execution_count"] = count
    place.own.write_text(json.dumps(notebook))
    before = {path: path.stat().st_mtime_ns for path in place.workspace.rglob("*")}
    rounds, _ = klass.look(tmp_path, rounds=2)
    assert [(one.step, one.state) for [one] in rounds] == [("1-8", "not-yet")] * 2
    assert rounds[0][0].since == rounds[1][0].since
    assert {path: path.stat().st_mtime_ns for path in place.workspace.rglob("*")} == before


def test_an_error_is_where_a_student_is_stuck_and_a_kept_rehearsal_is_not_the_students(
    klass: Class, tmp_path: Path
) -> None:
    place = klass.place
    place.rehearse(keep=True)
    notebook = json.loads(place.own.read_text())
    add = next(c for c in notebook["cells"] if "add" in c["metadata"].get("tags", ()))
    add["outputs"] = [{"output_type": "error", "ename": "NameError", "evalue": "no dsl", "traceback": []}]
    place.own.write_text(json.dumps(notebook))
    [[standing]], result = klass.look(tmp_path)
    assert (standing.step, standing.state, standing.why) == ("1-8", "fail", "NameError: no dsl")
    assert result.labs[0].facts.runs == ()


def test_what_one_student_broke_is_a_gap_of_theirs_and_ends_nobodys_watch(
    klass: Class, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_off(*_: object) -> None:
        raise KeyError(f"{PASSWORD} and {BUCKET_SECRET}")

    monkeypatch.setattr(watching, "youngest_runs", break_off)
    [[standing]], result = klass.look(tmp_path)
    assert standing.state == "could-not-check"
    gaps = result.labs[0].facts.gaps
    assert set(gaps) == {"server", "api", "mlmd", "kubernetes", "bucket"}
    assert set(gaps.values()) == {"looking at it broke off (KeyError: '••• and •••')"}


def test_a_pipeline_whose_version_a_student_deleted_is_told(klass: Class, tmp_path: Path) -> None:
    klass.place.rehearse(keep=True)
    # To the stand-in what is in no record is the student's.
    shutil.rmtree(klass.place.workspace / "rehearsal")
    requests.get(f"{klass.place.url}/forget-versions", timeout=10)
    _, result = klass.look(tmp_path)
    assert "has no version any more" in result.labs[0].facts.gaps["api"]


def test_a_secret_that_the_cut_of_a_file_goes_through_leaves_nothing(klass: Class, tmp_path: Path) -> None:
    klass.place.rehearse(lab=LAB.until("1-4") or LAB)
    secrets = f"{'.' * (FILE_CHARACTERS - 8)}{BUCKET_SECRET}"
    (klass.place.workspace / "math_pipeline.yaml").write_text(secrets)
    _, result = klass.look(tmp_path)
    [text] = [file.text for file in result.labs[0].facts.files if file.path == "math_pipeline.yaml"]
    assert text == f"{'.' * (FILE_CHARACTERS - 8)}•••"


def test_what_lies_before_something_done_was_done_though_it_is_not_stored_yet() -> None:
    facts = Facts(
        lab=LAB.name,
        student="alice",
        namespace="demo-alice",
        bucket="demo-alice",
        server="gpu-notebook",
        login=LoginFacts(ok=True, seconds=0),
        cells=tuple(CellFacts(tag=step.cell, state="not-run") for step in LAB.steps if step.cell),
        files=(FileFacts(path="math_pipeline.yaml", text="comp-add comp-multiply pipelineInfo"),),
    )
    result = LabResult(
        lab=LAB.name,
        title=LAB.title,
        student="alice",
        student_name="",
        email="alice@example.org",
        seconds=0,
        steps=judged(LAB, facts),
        facts=facts,
    )
    at = stands_at(result)
    assert at is not None
    assert at.id == "2-1"
