"""What verify leaves behind: a page that needs nothing else and believes nobody, XML that a CI reads, and no secret."""

import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from labs.runner import lab as labs
from labs.runner import report
from labs.runner.checks import Outcome
from labs.runner.facts import ArtifactFacts, Facts, RunFacts, TaskFacts
from labs.runner.lab import Title
from labs.runner.report import drawing
from labs.runner.report.korean import _patterns, korean
from labs.runner.report.words import WORDS
from labs.runner.result import LabResult, Picture, Result, StepResult, judged

LAB = labs.load("simple_pipeline")
RECORDED = json.loads((Path(__file__).parent / "recorded_simple_pipeline.json").read_text())
"""A real student's facts, with whom every step passes."""
HOSTILE = "<script>alert(1)</script>'\"&\x00\x1b[31m]]>"
VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(HTMLParser):
    """Reads a page strictly: every element closed in order, and what it would load or run noted."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.scripts = 0
        self.words: list[str] = []
        self.told: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.scripts += tag == "script"
        self.told += [value or "" for name, value in attrs if name in ("title", "aria-label", "alt")]
        assert not [name for name in given if name.startswith("on")]
        self.loads += [value or "" for name, value in attrs if name in ("src", "srcset", "data", "action", "poster")]
        if link := given.get("href"):
            (self.targets if link.startswith("#") else self.loads).append(link)
        if mark := given.get("id"):
            self.ids.append(mark)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def facts(**fields: Any) -> Facts:
    return Facts.model_validate(RECORDED | fields)


def broken() -> Facts:
    """The cell of the component add fails, and nothing came of what stands after it."""
    cells = [dict(cell) for cell in RECORDED["cells"]]
    at = next(i for i, cell in enumerate(cells) if cell["tag"] == "add")
    cells[at] |= {"state": "error", "error": HOSTILE, "output": HOSTILE}
    cells[at + 1 :] = [{"tag": cell["tag"], "state": "not-run"} for cell in cells[at + 1 :]]
    nothing: dict[str, Any] = {"runs": [], "experiments": [], "objects": [], "pipelines": [], "actions": []}
    return facts(cells=cells, files=RECORDED["files"][:1], notes=[HOSTILE], **nothing)


def of_students(*named: tuple[str, str, Facts]) -> Result:
    """Students by id, name and what was seen of them."""
    return Result(
        class_name="demo",
        url="https://198.18.0.100/",
        started="2026-01-01T00:00:00",
        finished="2026-01-01T00:01:00",
        seconds=31.0,
        labs=tuple(
            LabResult(
                lab=LAB.name,
                title=LAB.title,
                student=student,
                student_name=name,
                email=f"{name.lower()}@example.org",
                seconds=30.0,
                steps=judged(LAB, seen),
                facts=seen,
            )
            for student, name, seen in named
        ),
    )


@pytest.mark.parametrize("language", ["en", "ko"])
def test_the_page_is_well_formed_and_needs_nothing_but_itself(language: Any) -> None:
    text = report.html(of_students(("alice", "Alice", facts()), ("bob", "Bob", broken())), language)
    page = Page(text)
    assert text.startswith("<!doctype html>")
    assert page.loads == []
    assert "url(" not in text.replace("url(#", "")
    assert "@import" not in text
    assert len(page.ids) == len(set(page.ids))
    assert {target[1:] for target in page.targets} <= set(page.ids)


def test_hostile_names_outputs_and_values_stay_text() -> None:
    run = RECORDED["runs"][0]
    task = run["tasks"][0]
    said = {"name": HOSTILE, "log": HOSTILE, "state": HOSTILE, "outputs": {HOSTILE: HOSTILE}, "artifacts": []}
    artifact = task["artifacts"][0] | {
        "name": HOSTILE,
        "uri": f"javascript:{HOSTILE}",
        "properties": {HOSTILE: HOSTILE},
    }
    evil = facts(
        runs=[
            run
            | {"name": HOSTILE, "pipeline_yaml": HOSTILE, "error": HOSTILE}
            | {"tasks": [task | said | {"artifacts": [artifact]}]}
        ],
        pipelines=[{"made_by": "1", "pipeline_id": HOSTILE, "name": HOSTILE, "graph": {HOSTILE: []}, "yaml": HOSTILE}],
        seed={"state": "edited", "seconds": 1, "path": HOSTILE, "detail": HOSTILE},
        objects=[{"key": HOSTILE, "bytes": 1}],
    )
    result = of_students((HOSTILE, HOSTILE, evil), ("bob", HOSTILE, broken()))
    page = Page(report.html(result.model_copy(update={"class_name": HOSTILE, "url": HOSTILE})))
    assert page.scripts == 0
    assert not [link for link in page.targets + page.loads if "javascript" in link]
    assert any("<script>alert(1)</script>" in words for words in page.words)


def test_every_cell_of_the_matrix_says_its_state_in_words_and_leads_to_its_step() -> None:
    page = Page(report.html(of_students(("alice", "Alice", facts()), ("bob", "Bob", broken()))))
    steps = {target for target in page.targets if "t" in target}
    assert len(steps) == 2 * len(LAB.steps)
    assert {"Everything works for everyone"}.isdisjoint(page.words)
    assert page.told.count("works") >= len(LAB.steps)


def test_expected_seen_and_hint_are_shown() -> None:
    words = " ".join(Page(report.html(of_students(("bob", "Bob", facts(objects=[]))))).words)
    outcome = next(o for step in judged(LAB, facts(objects=[])) for o in step.outcomes if o.state == "fail" and o.hint)
    assert f"{outcome.expected} →" in words
    assert outcome.seen in words
    assert outcome.hint in words


def test_junit_counts_failures_and_unchecked_steps_apart() -> None:
    unchecked = facts(objects=[], gaps={"bucket": "no answer"})
    result = of_students(("alice", "Alice", unchecked), (HOSTILE, HOSTILE, broken()))
    root = ET.fromstring(report.junit(result).encode())
    for suite, lab in zip(root.findall("testsuite"), result.labs, strict=True):
        states = [step.state for step in lab.steps]
        assert suite.get("tests") == str(len(states)) == str(len(suite.findall("testcase")))
        assert len(suite.findall("testcase/error")) == int(suite.get("errors") or 0) == states.count("could-not-check")
        wrong = states.count("fail") + states.count("not-yet")
        assert len(suite.findall("testcase/failure")) == int(suite.get("failures") or 0) == wrong
    first, second = root.findall("testsuite")
    assert "no answer" in {error.get("message") for error in first.findall("testcase/error")}
    assert {one.get("type") for one in second.findall("testcase/failure")} == {"fail", "not-yet"}
    for count in ("tests", "failures", "errors"):
        assert int(root.get(count) or 0) == sum(int(suite.get(count) or 0) for suite in (first, second))


def test_the_four_files_are_written_and_agree(tmp_path: Path) -> None:
    result = of_students(("alice", "Alice", facts()), ("bob", "Bob", broken()))
    report.write(result, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["facts.json", "junit.xml", "report.html", "result.json"]
    stored = json.loads((tmp_path / "result.json").read_text())
    assert stored["exit_code"] == 1
    add = next(i for i, step in enumerate(LAB.steps) if step.cell == "add")
    assert [lab["steps"][add]["state"] for lab in stored["labs"]] == ["pass", "fail"]
    assert "facts" not in stored["labs"][0]
    assert [seen["student"] for seen in json.loads((tmp_path / "facts.json").read_text())] == ["alice", "alice"]


def test_a_graph_is_drawn_from_left_to_right_along_what_it_waits_for() -> None:
    drawn = drawing.graph({"a": (), "b": ("a",), "c": ("a",), "d": ("b", "c")}, (100, 40))
    assert drawn is not None
    at = drawn.corners
    assert at["a"][0] < at["b"][0] == at["c"][0] < at["d"][0]
    assert at["b"][1] != at["c"][1]
    assert len(drawn.edges) == 4
    assert all(x >= 0 <= y and x + 100 <= drawn.width and y + 40 <= drawn.height for x, y in at.values())


def test_an_edge_over_a_column_keeps_clear_of_the_box_in_it() -> None:
    drawn = drawing.graph({"data": (), "train": ("data",), "evaluate": ("data", "train")}, (100, 40))
    assert drawn is not None
    top = drawn.corners["train"][1]
    heights = [float(y) for edge in drawn.edges if "H" in edge for y in re.findall(r" ([\d.]+)H", edge)]
    assert heights
    assert all(not top <= y <= top + 40 for y in heights)


@pytest.mark.parametrize(
    ("before", "boxes"),
    [
        ({"a": ("b",), "b": ("a",), "c": ("lost", "c")}, 3),
        ({}, 0),
        ({f"n{i}": (f"n{i - 1}",) for i in range(5000)}, 0),
    ],
)
def test_a_graph_that_goes_round_is_cut_and_one_too_large_or_empty_is_none(before: Any, boxes: int) -> None:
    drawn = drawing.graph(before, (100, 40))
    assert (len(drawn.corners) if drawn else 0) == boxes


@pytest.mark.parametrize("values", [[3.0, 1.0, 0.5], [2.0, 2.0], [-1.0, 1e-9], list(range(5000)), [0.0, 0.0, 1e300]])
def test_a_curve_stays_in_its_frame(values: list[float]) -> None:
    chart = drawing.curve(values)
    assert chart is not None
    left, top, right, bottom = chart.frame
    assert all(left <= x <= right and top <= y <= bottom for x, y in chart.points)
    assert all(top <= y <= bottom for y, _ in chart.upward)
    assert len(chart.points) <= 402
    assert drawing.curve(values[:1]) is None


def pictured(outputs: dict[str, Any], *pictures: Picture) -> Result:
    task = TaskFacts(name="train", state="COMPLETE", outputs=outputs)
    seen = facts().model_copy(update={"runs": (RunFacts(submitted_by="2-1", run_id="r", tasks=(task,)),)})
    result = of_students(("a", "A", seen))
    lab = result.labs[0]
    steps = (lab.steps[0].model_copy(update={"pictures": pictures}), *lab.steps[1:])
    return result.model_copy(update={"labs": (lab.model_copy(update={"steps": steps}),)})


LOSS = Picture(kind="series", run="2-1", task="train", parameter="loss")
ROWS = Picture(kind="table", run="2-1", task="train", parameter="rows", columns=("truth", "predicted"))


def test_a_curve_and_a_table_are_drawn_where_the_lab_names_them() -> None:
    outputs = {"loss": [3, 2, 1.5], "rows": [[10.0, 11.5], {"predicted": 7, "truth": 8}]}
    text = report.html(pictured(outputs, LOSS, ROWS))
    words = Page(text).words
    assert text.count('class="line"') == 1
    assert {"truth", "predicted", "+1.5", "-1"} <= set(words)
    assert 'class="line"' not in report.html(pictured(outputs))


@pytest.mark.parametrize("value", [None, "x", 3, [], [[]], [None], {"a": 1}, "[" * 10000, [float("inf"), float("nan")]])
def test_an_output_of_another_kind_is_no_picture_and_no_trouble(value: Any) -> None:
    assert "<figure>" not in report.html(pictured({"loss": value, "rows": value}, LOSS, ROWS))


def test_lineage_ties_an_artifact_to_who_made_it_and_who_took_it() -> None:
    made = ArtifactFacts(name="data", type="system.Dataset", uri="s3://b/d", state="LIVE", event="OUTPUT", id=7)
    taken = made.model_copy(update={"event": "INPUT", "name": "input"})
    tasks = (TaskFacts(name="make", artifacts=(made,)), TaskFacts(name="take", artifacts=(taken,)))
    lineage = report._lineage(RunFacts(submitted_by="2-1", run_id="r", tasks=tasks))
    assert lineage.graph is not None
    assert len(lineage.graph.edges) == 2
    columns = [lineage.graph.corners[name][0] for name in ("execution make", "artifact 7", "execution take")]
    assert columns == sorted(set(columns))


def test_a_long_log_keeps_its_beginning_and_its_end_and_no_colours() -> None:
    log = "first\n" + "\x1b[31mred\x1b[0m line\n" * 5000 + "last"
    told = report._bounded(log, "whole", words=WORDS["en"])
    assert told.startswith("first")
    assert told.endswith("last")
    assert "\x1b" not in told
    assert "characters left out" in told
    assert len(told) < 7000


@pytest.mark.parametrize(
    ("values", "told"),
    [({"a": 3.0, "b": "x", "c": [1]}, "a = 3, b = x, c = [1]"), ({"loss": [0.1] * 30}, "loss = [30]"), ({}, "")],
)
def test_parameters_are_shown_as_a_person_writes_them(values: dict[str, Any], told: str) -> None:
    assert report.shown(values) == told


def test_a_result_of_one_student_has_no_percentiles() -> None:
    def page(*labs: LabResult) -> str:
        return report.html(of_students(("a", "A", facts())).model_copy(update={"labs": labs}))

    one, two = of_students(("a", "A", facts()), ("b", "B", facts())).labs
    assert "p95" not in page(one)
    assert "p95" in page(one, two)


def test_in_a_large_class_only_those_who_need_it_are_written_out() -> None:
    many = [(f"s{i}", f"Student {i}", facts()) for i in range(50)]
    page = Page(report.html(of_students(*many, ("bob", "Bob", broken()))))
    written_out = {mark.partition("t")[0] for mark in page.ids if mark.startswith("l0s")}
    assert written_out == {"l0s50"}
    assert {target.partition("t")[0] for target in page.targets} == {"#l0s50"}


def test_however_many_fail_the_page_of_a_large_class_stays_small() -> None:
    seen = broken()
    shouting = seen.cells[0].model_copy(update={"state": "error", "output": "x" * 100_000})
    seen = seen.model_copy(update={"cells": (shouting, *seen.cells[1:])})
    text = report.html(of_students(*((f"s{i}", f"Student {i}", seen) for i in range(400))))
    assert len(text.encode()) < 4_000_000
    page = Page(text)
    assert {target[1:] for target in page.targets} <= set(page.ids)


def test_one_enormous_student_does_not_take_the_others_room() -> None:
    run = RECORDED["runs"][0]
    tasks = [run["tasks"][0] | {"name": "n" * 9000 + str(i), "after": []} for i in range(60)]
    enormous = facts(runs=[run | {"tasks": tasks, "state": "FAILED"}])
    text = report.html(of_students(("eve", "Eve", enormous), ("bob", "Bob", broken()), ("a", "A", facts())))
    page = Page(text)
    assert len(text) < 1_000_000
    assert {"l0s0", "l0s1t0", "l0s2t0", "l0s2r0"} <= set(page.ids)
    assert "l0s0t0" not in page.ids


def test_who_needs_help_stands_first_and_what_many_have_is_told_once() -> None:
    many = [(f"s{i}", f"Student {i}", broken()) for i in range(3)]
    text = report.html(of_students(("alice", "Alice", facts()), *many))
    assert text.index("Student 2</a>") < text.index("Alice<small>")
    told = re.search(r'<li class="card trouble.*?</li>', text, re.DOTALL)
    assert told
    assert all(word in told[0] for word in ("Component add", "3 students", "Student 0", "Student 2"))


def test_both_languages_have_the_same_words_and_none_is_empty() -> None:
    assert WORDS["en"].keys() == WORDS["ko"].keys()
    for key, word in WORDS["en"].items():
        korean = WORDS["ko"][key]
        assert word
        assert korean
        assert sorted(re.findall(r"{\w+}", word)) == sorted(re.findall(r"{\w+}", korean)), key
        assert key in ("kubernetes",) or not re.search("[A-Za-z]", re.sub(r"{\w+}", "", korean)), key


def test_every_word_is_used() -> None:
    sources = "".join(
        Path(report.__file__).with_name(name).read_text() for name in ("report.html.jinja2", "__init__.py")
    )
    sources = sources.replace("words['", 'words["')
    computed = {"pass", "fail", "not-yet", "could-not-check", "server", "api", "mlmd", "kubernetes", "bucket"}
    computed |= {f"count-{state}" for state in report.MARKS} | {"log-pod", "log-bucket"}
    unused = {word for word in WORDS["en"] if f"words.{word}" not in sources and f'"{word}' not in sources} - computed
    assert unused == set()


def test_no_english_word_of_ours_is_in_the_korean_page() -> None:
    """Everything that comes from the facts and the lab is Hangul or a number here, so that what is left is ours."""

    def hangul(value: Any) -> Any:
        match value:
            case str():
                return "가나" if re.search("[A-Za-z]", value) else value
            case dict():
                return {f"이름{i}": hangul(each) for i, each in enumerate(value.values())}
            case list() | tuple():
                return [hangul(each) for each in value]
        return value

    kept = {"lab", "state", "log_from", "event"}

    def translated(value: Any) -> Any:
        if isinstance(value, list):
            return [translated(each) for each in value]
        if not isinstance(value, dict):
            return hangul(value)
        free = {"parameters", "inputs", "outputs", "properties", "graph"}
        return {
            key: each if key in kept else hangul(each) if key in free else translated(each)
            for key, each in value.items()
        }

    seen = Facts.model_validate(
        translated(RECORDED)
        | {"gaps": dict.fromkeys(("server", "api", "mlmd", "kubernetes", "bucket"), "가"), "notes": ["가"]}
        | {"seed": {"state": "edited", "seconds": 1.0, "path": "가", "detail": "가"}}
    )
    outcome = Outcome(kind="cell", state="fail", expected="가", seen="나", hint="다")
    steps = tuple(
        StepResult(id=f"{i}-1", title=Title(en="가"), state=state, seconds=200.0 * i, outcomes=(given,))
        for i, state in enumerate(report.MARKS)
        for given in [outcome.model_copy(update={"state": state})]
    )
    labs = tuple(
        LabResult(
            lab="가",
            title=Title(en="가"),
            student=who,
            student_name=who,
            email="가",
            seconds=1,
            steps=steps,
            facts=seen,
        )
        for who in ("가", "나")
    )
    result = of_students(("a", "A", facts())).model_copy(update={"labs": labs, "class_name": "가", "url": "가"})
    text = report.html(result, "ko")
    page = Page(re.sub(r"<style>.*</style>", "", text, flags=re.DOTALL))
    states = "SUCCEEDED|FAILED|COMPLETE|LIVE|UTC|KiB|MiB|B|p50|p95|kubeflow-classroom|T|Z"
    left = {word for told in [*page.words, *page.told] for word in re.findall("[A-Za-z][A-Za-z0-9-]*", told)}
    assert {word for word in left if not re.fullmatch(states, word)} == set()


ENGLISH = re.compile(r"\b(the|was|not|with|does|is|its|has|no|of|and|each|gives|in|to|after|did|made|characters)\b")


@pytest.mark.parametrize(
    "seen",
    [
        facts(),
        broken(),
        facts(objects=[]),
        facts(runs=[]),
        facts(runs=[run | {"state": "FAILED", "tasks": run["tasks"][:1]} for run in RECORDED["runs"]]),
        facts(pipelines=[], actions=[], cells=[], files=[], experiments=[], login=None, seed=None),
        facts(gaps=dict.fromkeys(("server", "api", "mlmd", "kubernetes", "bucket"), "403"), login=None, seed=None),
    ],
)
def test_what_the_checks_say_is_said_in_korean_too(seen: Facts) -> None:
    said = {text for step in judged(LAB, seen) for o in step.outcomes for text in (o.expected, o.seen, o.hint) if text}
    for text in said - {HOSTILE}:
        # Names, states, commands and what stands in quotation marks is nobody's language.
        rest = re.sub(r"“[^”]*”|`[^`]*`|kubectl [^;?]*", "", korean(text))
        assert not ENGLISH.search(rest), (text, korean(text))


def test_korean_fills_in_what_the_english_does_and_leaves_a_student_s_text_alone() -> None:
    assert korean("ran in 0.4 s") == "0.4초 만에 실행"
    assert korean("NameError: name 'dsl' is not defined") == "NameError: name 'dsl' is not defined"
    assert korean("{0.__class__} gives {}") == "{0.__class__}의 출력 {}"


def test_every_korean_sentence_fills_each_gap_once() -> None:
    for _, pattern, sentence in _patterns():
        gaps = [f"<{i}>" for i in range(pattern.groups)]
        told = sentence.format(*gaps)
        assert all(told.count(gap) == 1 for gap in gaps), sentence
