"""What verify leaves behind: a page that needs nothing else and believes nobody, XML that a CI reads, and no secret."""

import json
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from labs.runner import report
from labs.runner.facts import RunFacts, TaskFacts
from labs.runner.result import LabResult, Result
from tests.unit.test_checks import GOOD, LAB, TAGS, cells, facts, outcome_of

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
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.scripts += tag == "script"
        assert not [name for name in given if name.startswith("on")]
        self.loads += [value or "" for name, value in attrs if name in ("src", "srcset", "data", "action", "poster")]
        if link := given.get("href"):
            (self.targets if link.startswith("#") else self.loads).append(link)
        if mark := given.get("id"):
            self.ids.append(mark)
        if tag not in VOID and not (tag in ("path", "rect") and self.get_starttag_text().endswith("/>")):  # type: ignore[union-attr]  a tag was just read
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def of_students(*named: tuple[str, str, Any]) -> Result:
    one = outcome_of(facts())
    found = []
    for student, name, seen in named:
        lab = outcome_of(seen).labs[0]
        found.append(lab.model_copy(update={"student": student, "student_name": name, "facts": seen}))
    return one.model_copy(update={"labs": tuple(found)})


def broken() -> Any:
    given = cells("add", error=HOSTILE)
    given[TAGS.index("add")]["output"] = HOSTILE
    return facts(cells=given, files=GOOD["files"][:1], runs=[], experiments=[], objects=[], notes=[HOSTILE])


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
    evil = facts(
        {"name": HOSTILE, "tasks": [{**GOOD["runs"][0]["tasks"][0], "name": HOSTILE, "outputs": {HOSTILE: HOSTILE}}]}
    )
    result = of_students((HOSTILE, HOSTILE, evil), ("bob", HOSTILE, broken()))
    page = Page(report.html(result.model_copy(update={"class_name": HOSTILE, "url": HOSTILE})))
    assert page.scripts == Page(report.html(of_students(("a", "A", facts())))).scripts == 1
    assert any("<script>alert(1)</script>" in words for words in page.words)


def test_every_cell_of_the_matrix_says_its_state_in_words_and_leads_to_its_step() -> None:
    page = Page(report.html(of_students(("alice", "Alice", facts()), ("bob", "Bob", broken()))))
    steps = [target for target in page.targets if "t" in target]
    assert len(steps) == 2 * len(LAB.steps)
    assert {"Everything works for everyone"}.isdisjoint(page.words)


def test_expected_seen_and_hint_are_shown() -> None:
    words = " ".join(Page(report.html(of_students(("bob", "Bob", facts(objects=[]))))).words)
    assert "the run's objects in s3://demo-alice/artifacts/ →" in words
    assert "no object of the run" in words
    assert "The ConfigMap kfp-launcher in demo-alice" in words


def test_junit_counts_failures_and_unchecked_steps_apart() -> None:
    unchecked = facts(objects=[], gaps={"bucket": "no answer"})
    text = report.junit(of_students(("alice", "Alice", unchecked), (HOSTILE, HOSTILE, broken())))
    root = ET.fromstring(text.encode())
    first, second = root.findall("testsuite")
    assert (first.get("tests"), first.get("failures"), first.get("errors")) == (str(len(LAB.steps)), "0", "1")
    assert first.findall("testcase/error")[0].get("message") == "no answer"
    failed = second.findall("testcase/failure")
    assert len(failed) == int(second.get("failures") or 0) == 11
    assert {one.get("type") for one in failed} == {"fail", "not-yet"}


def test_the_four_files_are_written_and_agree(tmp_path: Path) -> None:
    result = of_students(("alice", "Alice", facts()), ("bob", "Bob", broken()))
    report.write(result, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["facts.json", "junit.xml", "report.html", "result.json"]
    stored = json.loads((tmp_path / "result.json").read_text())
    assert stored["exit_code"] == 1
    assert [lab["steps"][4]["state"] for lab in stored["labs"]] == ["pass", "fail"]
    assert "facts" not in stored["labs"][0]
    assert [seen["student"] for seen in json.loads((tmp_path / "facts.json").read_text())] == ["alice", "alice"]


def test_a_run_is_drawn_from_left_to_right_along_what_it_waits_for() -> None:
    names = {"a": (), "b": ("a",), "c": ("a",), "d": ("b", "c")}
    drawn = report.drawing(
        RunFacts(submitted_by="2-1", run_id="r", tasks=tuple(TaskFacts(name=n, after=a) for n, a in names.items()))
    )
    at = {node.task.name: (node.x, node.y) for node in drawn.nodes}
    assert at["a"][0] < at["b"][0] == at["c"][0] < at["d"][0]
    assert at["b"][1] != at["c"][1]
    assert len(drawn.edges) == 4
    assert all(x + drawn.node_width <= drawn.width and y + drawn.node_height <= drawn.height for x, y in at.values())


def test_a_graph_that_goes_round_is_still_drawn() -> None:
    tasks = (TaskFacts(name="a", after=("b",)), TaskFacts(name="b", after=("a",)), TaskFacts(name="c", after=("lost",)))
    assert len(report.drawing(RunFacts(submitted_by="2-1", run_id="r", tasks=tasks)).nodes) == 3
    assert report.drawing(RunFacts(submitted_by="2-1", run_id="r")).nodes == ()


@pytest.mark.parametrize(("values", "told"), [({"a": 3.0, "b": "x", "c": [1]}, "a = 3, b = x, c = [1]"), ({}, "")])
def test_parameters_are_shown_as_a_person_writes_them(values: dict[str, Any], told: str) -> None:
    assert report.shown(values) == told


def test_a_result_of_one_student_has_no_percentiles() -> None:
    def page(*labs: LabResult) -> str:
        return report.html(outcome_of(facts()).model_copy(update={"labs": labs}))

    one, two = of_students(("a", "A", facts()), ("b", "B", facts())).labs
    assert "95 % within" not in page(one)
    assert "95 % within" in page(one, two)


def test_in_a_large_class_only_those_who_need_it_are_written_out() -> None:
    many = [(f"s{i}", f"Student {i}", facts()) for i in range(50)]
    page = Page(report.html(of_students(*many, ("bob", "Bob", broken()))))
    written_out = {mark.partition("t")[0] for mark in page.ids if mark.startswith("l0s")}
    assert written_out == {"l0s50"}
    assert {target.partition("t")[0] for target in page.targets} == {"#l0s50"}
