"""Labs as data: those there are make sense, a mistake is named, and a rendered notebook is what it should be."""

import json
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from labs.runner import lab as labs
from labs.runner.checks import Check

SOURCE = '# %% tags=["first"]\nwho = "{{ email }}"\n'
MINIMAL: dict[str, Any] = {
    "name": "mine",
    "title": {"en": "Mine"},
    "notebook": {"source": "mine.py", "server": "cpu-notebook"},
    "steps": [{"id": "1-1", "title": {"en": "First"}, "does": "cell", "cell": "first", "checks": [{"kind": "cell"}]}],
}
KNOWN_KINDS = {get_args(kind.model_fields["kind"].annotation)[0] for kind in get_args(get_args(Check)[0])}
ALL_LABS = sorted(file.parent.name for file in labs.LABS.glob(f"*/{labs.LAB_FILE}"))


def written(folder: Path, lab: dict[str, Any], source: str = SOURCE) -> Path:
    (folder / "mine").mkdir(exist_ok=True)
    (folder / "mine" / labs.LAB_FILE).write_text(yaml.safe_dump(lab))
    (folder / "mine" / "mine.py").write_text(source)
    return folder


def changed(**fields: Any) -> dict[str, Any]:
    return {**MINIMAL, "steps": [{**MINIMAL["steps"][0], **fields}]}


def code(notebook: dict[str, Any]) -> str:
    return "\n".join(labs.sources(notebook))


@pytest.mark.parametrize("name", ALL_LABS)
def test_every_step_of_every_lab_has_a_check_of_a_known_kind_and_a_title_in_both_languages(name: str) -> None:
    lab = labs.load(name)
    assert lab.name == name
    for step in lab.steps:
        assert step.checks
        assert {check.kind for check in step.checks} <= KNOWN_KINDS
        assert step.title.in_("en")
        assert step.title.in_("ko") != step.title.in_("en")


@pytest.mark.parametrize("name", ALL_LABS)
@pytest.mark.parametrize("language", ["en", "ko"])
def test_every_lab_renders_to_the_same_valid_notebook_each_time_with_code_that_compiles(
    name: str, language: labs.Language
) -> None:
    lab = labs.load(name)
    given = {"host": "https://198.18.0.100/", "email": "alice@example.org", "image": "localhost/notebook:1"}
    notebook = labs.render(lab, **given, language=language)
    assert notebook == labs.render(lab, **given, language=language)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            compile(cell["source"], "cell", "exec")
    text = json.dumps(notebook, ensure_ascii=False)
    assert "{{" not in text
    assert "alice@example.org" in text


def test_the_first_lab_teaches_its_steps_in_the_order_of_the_text() -> None:
    steps = [step.id for step in labs.load("simple_pipeline").steps]
    notebook = "login 1-4 1-5 1-6/1-7 1-8 1-9 1-10 1-11 1-12 2-1 2-2 2-3 2-4 2-5"
    upload = "3-1 3-2/3-3 3-4/3-5/3-6/3-7 3-8/3-9"
    dashboard = "4-1-3/4-1-4 4-1-6 4-1-7 4-1-8 4-1-9 4-1-10 4-1-11 4-1-12 4-2 4-3 4-4"
    assert steps == f"{notebook} {upload} {dashboard} namespace bucket".split()


def test_the_languages_differ_in_text_and_not_in_code() -> None:
    lab = labs.load("simple_pipeline")
    english, korean = (labs.render(lab, host="h", email="e", image="i", language=one) for one in ("en", "ko"))
    assert code(english) == code(korean)
    assert "Components" in json.dumps(english)
    assert "컴포넌트" in json.dumps(korean, ensure_ascii=False)


def test_what_is_filled_in_cannot_leave_its_quotes(tmp_path: Path) -> None:
    hostile = 'a"; import os  # \\"\nos.abort()'
    lab = labs.load("mine", written(tmp_path, MINIMAL))
    names: dict[str, str] = {}
    exec(code(labs.render(lab, host="h", email=hostile, image="i")), names)  # noqa: S102  it is the claim
    assert names["who"] == hostile.replace("\n", " ")


def test_a_third_lab_is_a_folder_and_nothing_more(tmp_path: Path) -> None:
    lab = labs.load("mine", written(tmp_path, MINIMAL))
    assert lab.file_name == "mine.ipynb"
    assert code(labs.render(lab, host="h", email="e@example.org", image="i")) == 'who = "e@example.org"'


def test_a_teachers_own_notebook_is_a_source_too(tmp_path: Path) -> None:
    notebook = {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {},
        "cells": [
            {
                "cell_type": "code",
                "id": "x",
                "metadata": {"tags": ["first"]},
                "source": "1",
                "execution_count": 7,
                "outputs": [{"output_type": "stream", "name": "stdout", "text": "of the teacher"}],
            }
        ],
    }
    own = {**MINIMAL, "notebook": {"source": "own.ipynb", "server": "cpu-notebook"}}
    (written(tmp_path, own) / "mine" / "own.ipynb").write_text(json.dumps(notebook))
    rendered = labs.render(labs.load("mine", tmp_path), host="h", email="e", image="i")
    assert code(rendered) == "1"
    assert "of the teacher" not in json.dumps(rendered)


@pytest.mark.parametrize(
    ("lab", "told"),
    [
        (changed(checks=[]), "checks"),
        (changed(checks=[{"kind": "guess"}]), "guess"),
        (changed(chekcs=[]), "chekcs"),
        (changed(cell=None), "does: cell"),
        (changed(does="look"), "does: cell"),
        (changed(cell="second"), "no cell tagged 'second'"),
        (changed(checks=[{"kind": "state", "run": "9-9"}]), "no step 9-9 starts a run"),
        (changed(checks=[{"kind": "listed", "experiment": "e", "runs": {"9-9": "r"}}]), "no step 9-9 starts a run"),
        (changed(checks=[{"kind": "pipeline", "uploaded": "9-9", "name": "p", "tasks": {}}]), "no step 9-9 uploads"),
        ({**MINIMAL, "steps": MINIMAL["steps"] * 2}, "twice: 1-1"),
        ({**MINIMAL, "notebook": {"source": "lost.py", "server": "cpu-notebook"}}, "there is no file"),
        ({**MINIMAL, "steps": []}, "steps"),
    ],
)
def test_a_mistake_in_a_lab_is_named_with_its_file(tmp_path: Path, lab: dict[str, Any], told: str) -> None:
    with pytest.raises(labs.LabError, match=told) as raised:
        labs.load("mine", written(tmp_path, lab))
    assert labs.LAB_FILE in str(raised.value)


def test_an_unknown_lab_is_answered_with_those_there_are() -> None:
    for name in ("simple_pipelin", "../simple_pipeline", ""):
        with pytest.raises(labs.LabError, match="simple_pipeline"):
            labs.load(name)


def test_an_unknown_variable_in_the_source_is_answered_with_those_there_are(tmp_path: Path) -> None:
    lab = labs.load("mine", written(tmp_path, MINIMAL, SOURCE + "{{ password }}\n"))
    with pytest.raises(labs.LabError, match="known are host, email and image"):
        labs.render(lab, host="h", email="e", image="i")
