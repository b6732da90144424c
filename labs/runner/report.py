"""What a verify leaves behind: result.json, facts.json, junit.xml, and a report.html that needs nothing but itself."""

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import jinja2
from pydantic import JsonValue

from labs.runner.checks import State, plain
from labs.runner.facts import RunFacts, TaskFacts
from labs.runner.lab import Language
from labs.runner.result import LabResult, Result, StepResult, percentile

MARKS: dict[State, str] = {"pass": "✓", "fail": "✗", "not-yet": "…", "could-not-check": "?"}

_CLASS_WRITTEN_OUT = 40
"""Students. Beyond, the parts of those for whom all works would be most of the page's bytes."""
_TEMPLATE = "report.html.jinja2"
# XML 1.0 has no way to write these, escaped or not.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

# Pixels of the drawing of a run.
_NODE_WIDTH, _NODE_HEIGHT, _COLUMN_GAP, _ROW_GAP, _MARGIN = 196, 74, 56, 18, 6
_NODE_CHARACTERS = 27


def write(result: Result, directory: Path, language: Language = "en") -> None:
    """Write all four files into `directory`, over those of that name."""
    judged = result.model_dump(mode="json", exclude={"labs": {"__all__": {"facts"}}})
    _write_json(directory / "result.json", judged | {"exit_code": result.exit_code})
    _write_json(directory / "facts.json", [lab.facts.model_dump(mode="json") for lab in result.labs])
    (directory / "junit.xml").write_text(junit(result), encoding="utf-8")
    (directory / "report.html").write_text(html(result, language), encoding="utf-8")


def junit(result: Result) -> str:
    """JUnit's XML: a suite for each student and lab, a case for each step. What could not be checked is an error."""
    root = ET.Element("testsuites", name=_xml(result.class_name), time=f"{result.seconds:.3f}")
    for lab in result.labs:
        states = [step.state for step in lab.steps]
        errors = states.count("could-not-check")
        suite = ET.SubElement(
            root,
            "testsuite",
            name=_xml(f"{lab.student}.{lab.lab}"),
            tests=str(len(states)),
            failures=str(len(states) - states.count("pass") - errors),
            errors=str(errors),
            time=f"{lab.seconds:.3f}",
            timestamp=result.started,
        )
        for step in lab.steps:
            case = ET.SubElement(
                suite,
                "testcase",
                classname=_xml(f"{result.class_name}.{lab.lab}.{lab.student}"),
                name=_xml(f"{step.id} {step.title.en}"),
                time=f"{step.seconds or 0:.3f}",
            )
            if step.state != "pass":
                kind = "error" if step.state == "could-not-check" else "failure"
                wrong = ET.SubElement(case, kind, type=step.state, message=_xml(step.why))
                wrong.text = _xml(
                    "\n\n".join(
                        f"{o.kind}: {o.state}\nexpected: {o.expected}\nseen: {o.seen}\n{o.hint}".rstrip()
                        for o in step.outcomes
                        if o.state != "pass"
                    )
                )
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def html(result: Result, language: Language = "en") -> str:
    """The report as one page: no script, style, font or picture comes from elsewhere."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["seconds"] = _seconds
    states = [step.state for lab in result.labs for step in lab.steps]
    return environment.get_template(_TEMPLATE).render(
        result=result,
        lessons=_by_lab(result),
        students=len({lab.student for lab in result.labs}),
        counts={state: states.count(state) for state in MARKS},
        marks=MARKS,
        words=_WORDS[language],
        language=language,
        drawing=drawing,
        shown=shown,
        chapters=_chapters,
        percentiles=_percentiles,
        output_of=_output_of,
        detailed=_detailed,
    )


@dataclass(frozen=True, kw_only=True)
class Node:
    """A task in the drawing: its box's corner, and the lines written in it."""

    task: TaskFacts
    x: int
    y: int
    given: str
    made: str


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A run's graph, laid out from left to right. All in pixels; `edges` are SVG paths."""

    width: int
    height: int
    node_width: int
    node_height: int
    nodes: tuple[Node, ...]
    edges: tuple[str, ...]


def drawing(run: RunFacts) -> Drawing:
    """Each task in the column after the last one it waits for. A graph that goes round (none should) is cut."""
    by_name = {task.name: task for task in run.tasks}
    columns: dict[str, int] = {}

    def column(name: str, above: frozenset[str]) -> int:
        if name not in columns:
            before = [p for p in by_name[name].after if p in by_name and p not in above]
            columns[name] = 1 + max((column(p, above | {name}) for p in before), default=-1)
        return columns[name]

    rows: dict[int, int] = {}
    places: dict[str, tuple[int, int]] = {}
    for name in by_name:
        at = column(name, frozenset({name}))
        row = rows[at] = rows.get(at, -1) + 1
        places[name] = (
            _MARGIN + at * (_NODE_WIDTH + _COLUMN_GAP),
            _MARGIN + row * (_NODE_HEIGHT + _ROW_GAP),
        )
    edges = []
    for task in run.tasks:
        for before in task.after:
            if before in places and task.name in places:
                (x1, y1), (x2, y2) = places[before], places[task.name]
                x1, y1, y2 = x1 + _NODE_WIDTH, y1 + _NODE_HEIGHT // 2, y2 + _NODE_HEIGHT // 2
                bend = (x2 - x1) // 2
                edges.append(f"M{x1} {y1}C{x1 + bend} {y1} {x2 - bend - 5} {y2} {x2 - 5} {y2}")
    return Drawing(
        width=2 * _MARGIN + (max(rows, default=0) + 1) * (_NODE_WIDTH + _COLUMN_GAP) - _COLUMN_GAP,
        height=2 * _MARGIN + (max(rows.values(), default=0) + 1) * (_NODE_HEIGHT + _ROW_GAP) - _ROW_GAP,
        node_width=_NODE_WIDTH,
        node_height=_NODE_HEIGHT,
        nodes=tuple(
            Node(
                task=task,
                x=places[task.name][0],
                y=places[task.name][1],
                given=_cut(shown(task.inputs or {})),
                made=_cut(shown(task.outputs or {})),
            )
            for task in run.tasks
        ),
        edges=tuple(edges),
    )


def shown(values: Mapping[str, JsonValue]) -> str:
    """Parameters as a person writes them, in order of their names: a = 1, b = 2."""
    return ", ".join(f"{name} = {plain(value)}" for name, value in sorted(values.items()))


def _cut(text: str) -> str:
    return text if len(text) <= _NODE_CHARACTERS else text[: _NODE_CHARACTERS - 1] + "…"


def _by_lab(result: Result) -> list[list[LabResult]]:
    """The results lab by lab, the labs in the order the class teaches them."""
    order = list(dict.fromkeys(lab.lab for lab in result.labs))
    return [[lab for lab in result.labs if lab.lab == name] for name in order]


def _chapters(steps: Sequence[StepResult]) -> list[tuple[str, int]]:
    """The chapters of the lab text that the steps' ids name, each with how many steps of it stand side by side."""
    heads = (step.id.partition("-")[0] if step.id[:1].isdigit() else "" for step in steps)
    return [(head, len(list(group))) for head, group in groupby(heads)]


def _percentiles(lesson: Sequence[LabResult], share: float) -> list[float | None]:
    """For each step, the seconds that `share` of the students did not exceed."""
    return [
        percentile((seconds for lab in lesson if (seconds := lab.steps[i].seconds) is not None), share)
        for i in range(len(lesson[0].steps))
    ]


def _detailed(lab: LabResult, lesson: Sequence[LabResult]) -> bool:
    """Whether a student's part is written out: in a large class only where something is to be seen to."""
    return lab.state != "pass" or len(lesson) <= _CLASS_WRITTEN_OUT


def _output_of(lab: LabResult, step: StepResult) -> str:
    """What the cell behind a step printed, when the step did not pass."""
    if step.state == "pass" or step.cell is None:
        return ""
    cell = lab.facts.cell(step.cell)
    return cell.output if cell else ""


def _seconds(value: float | None) -> str:
    """For a person: 0.4 s, 12 s, 3 min 05 s."""
    if value is None:
        return ""
    if value < 9.95:
        return f"{value:.1f} s"
    if value < 100:
        return f"{value:.0f} s"
    minutes, seconds = divmod(round(value), 60)
    return f"{minutes} min {seconds:02d} s"


def _xml(text: str) -> str:
    return _NOT_XML.sub("�", text)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


_WORDS: dict[Language, dict[str, str]] = {
    "en": {
        "title": "Rehearsal of the class",
        "all": "Everything works for everyone",
        "wrong": "Not everything works yet",
        "unknown": "Nothing is wrong, but not everything could be checked",
        "students": "students",
        "student": "student",
        "steps": "steps",
        "started": "Started",
        "took": "took",
        "pass": "works",
        "fail": "fails",
        "not-yet": "not yet",
        "could-not-check": "could not check",
        "count-pass": "steps work",
        "count-fail": "fail",
        "count-not-yet": "not yet",
        "count-could-not-check": "could not be checked",
        "half": "half of them within",
        "most": "95 % within",
        "namespace": "namespace",
        "bucket": "bucket",
        "step": "step",
        "expected": "expected",
        "seen": "seen",
        "time": "time",
        "run": "Run",
        "task": "task",
        "inputs": "inputs",
        "outputs": "outputs",
        "artifacts": "artifacts",
        "objects": "objects in the bucket",
        "notes": "Survived on the way",
        "output": "what the cell printed",
        "resubmitted": "submitted again",
        "matrix": "Students and steps",
        "chapter": "part",
        "graph": "graph of the run",
    },
    "ko": {
        "title": "수업 리허설",
        "all": "모든 단계가 모든 학생에게 작동합니다",
        "wrong": "아직 작동하지 않는 단계가 있습니다",
        "unknown": "잘못된 것은 없지만 확인하지 못한 단계가 있습니다",
        "students": "학생",
        "student": "학생",
        "steps": "단계",
        "started": "시작",
        "took": "소요",
        "pass": "작동",
        "fail": "실패",
        "not-yet": "아직",
        "could-not-check": "확인 불가",
        "count-pass": "작동",
        "count-fail": "실패",
        "count-not-yet": "아직",
        "count-could-not-check": "확인 불가",
        "half": "절반이 끝난 시간",
        "most": "95 %가 끝난 시간",
        "namespace": "네임스페이스",
        "bucket": "버킷",
        "step": "단계",
        "expected": "기대",
        "seen": "확인",
        "time": "시간",
        "run": "실행",
        "task": "태스크",
        "inputs": "입력",
        "outputs": "출력",
        "artifacts": "아티팩트",
        "objects": "버킷의 오브젝트",
        "notes": "도중에 극복한 일",
        "output": "셀 출력",
        "resubmitted": "다시 제출됨",
        "matrix": "학생과 단계",
        "chapter": "부",
        "graph": "실행 그래프",
    },
}
