"""What a verify leaves behind: result.json, facts.json, junit.xml, and a report.html that needs nothing but itself."""

import json
import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import groupby
from pathlib import Path
from typing import Any, Literal
from unicodedata import east_asian_width

import jinja2
from markupsafe import Markup
from pydantic import JsonValue, TypeAdapter

from labs.runner.checks import WORST_FIRST, State, plain
from labs.runner.facts import ArtifactFacts, Facts, PipelineFacts, RunFacts, TaskFacts
from labs.runner.lab import Language
from labs.runner.report.drawing import Chart, Graph, cloud, curve, graph, number
from labs.runner.report.korean import korean
from labs.runner.report.words import WORDS
from labs.runner.result import LabResult, Picture, Result, StepResult, percentile

MARKS: dict[State, str] = {"pass": "✓", "fail": "✗", "not-yet": "…", "could-not-check": "?"}

Extent = Literal["whole", "short", "brief"]
"""How much of a student's part is written: all of it; what is wrong and the runs; only what is wrong."""

_LARGE_CLASS = 40
"""Students. Beyond, the parts of those for whom all works would be most of the page's bytes."""
_PARTS_CHARACTERS = 2_600_000
"""All students' parts together: with the matrix of 500 students the page stays below 5 MB, however many fail."""
_PART_CHARACTERS = 400_000
"""One student's part: a student whose pipeline is enormous does not take the others' room."""
_OPEN_PARTS = 6
_TROUBLES, _NAMES = 12, 12
_TEXT_CHARACTERS: dict[Extent, int] = {"whole": 6000, "short": 1500, "brief": 500}
_VALUE_CHARACTERS = 400
_ROWS, _COLUMNS = 40, 8

_TEMPLATE = "report.html.jinja2"
# Short, for they stand in each of thousands of cells.
_LOOKS: dict[State, str] = {"pass": "p", "fail": "f", "not-yet": "w", "could-not-check": "u"}
_WELL = {"COMPLETE", "CACHED", "SUCCEEDED", "SKIPPED"}
_WRONG = {"FAILED", "CANCELED", "CANCELING", "ERROR"}
# XML 1.0 has no way to write these, escaped or not.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# What in a hint is one student's only: a pod's name, a value.
_OWN = re.compile(r"\S*\d\S*")
_TERMINAL = re.compile("\x1b\\[[0-9;?]*[A-Za-z]|\r(?=\n)")

_TASK_BOX, _ARTIFACT_BOX, _STEP_BOX = (236, 72), (212, 44), (212, 36)


def write(result: Result, directory: Path, language: Language = "en") -> None:
    """Write all four files into `directory`, over those of that name."""
    # Rust's serialiser: what Python's would take for a large class is longer than the judging.
    judged = result.model_dump_json(indent=1, exclude={"labs": {"__all__": {"facts"}}})
    facts = TypeAdapter(list[Facts]).dump_json([lab.facts for lab in result.labs], indent=1)
    (directory / "result.json").write_text(judged + "\n", encoding="utf-8")
    (directory / "facts.json").write_bytes(facts + b"\n")
    (directory / "junit.xml").write_text(junit(result), encoding="utf-8")
    (directory / "report.html").write_text(html(result, language), encoding="utf-8")


def junit(result: Result) -> str:
    """JUnit's XML: a suite for each student and lab, a case for each step. What could not be checked is an error."""
    root = ET.Element("testsuites", name=_clean(result.class_name))
    totals = {"tests": 0, "failures": 0, "errors": 0}
    for lab in result.labs:
        states = [step.state for step in lab.steps]
        errors = states.count("could-not-check")
        counts = {"tests": len(states), "failures": len(states) - states.count("pass") - errors, "errors": errors}
        suite = ET.SubElement(
            root,
            "testsuite",
            {kind: str(count) for kind, count in counts.items()},
            name=_clean(f"{lab.student}.{lab.lab}"),
            time=f"{lab.seconds:.3f}",
            timestamp=result.started,
        )
        totals = {kind: totals[kind] + count for kind, count in counts.items()}
        for step in lab.steps:
            case = ET.SubElement(
                suite,
                "testcase",
                classname=_clean(f"{result.class_name}.{lab.lab}.{lab.student}"),
                name=_clean(f"{step.id} {step.title.en}"),
                time=f"{step.seconds or 0:.3f}",
            )
            if step.state != "pass":
                kind = "error" if step.state == "could-not-check" else "failure"
                wrong = ET.SubElement(case, kind, type=step.state, message=_clean(step.why))
                wrong.text = _clean(
                    "\n\n".join(
                        f"{o.kind}: {o.state}\nexpected: {o.expected}\nseen: {o.seen}\n{o.hint}".rstrip()
                        for o in step.outcomes
                        if o.state != "pass"
                    )
                )
    root.attrib |= {kind: str(count) for kind, count in totals.items()} | {"time": f"{result.seconds:.3f}"}
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def html(result: Result, language: Language = "en") -> str:
    """The report as one page: no script, and no style, font or picture from elsewhere; below 5 MB for 500 students."""
    words = WORDS[language]
    template = _template().make_module(
        {
            "words": words,
            "marks": MARKS,
            "looks": _LOOKS,
            "language": language,
            "seconds": partial(_seconds, words=words),
            "bounded": partial(_bounded, words=words),
            "drawn": _drawn,
            "lineage": _lineage,
            "outline": _outline,
            "said": korean if language == "ko" else str,
            "cut": _cut,
            "brief_seconds": _brief_seconds,
            "pictures": _pictures,
            "shown": shown,
            "value": _value,
            "number": number,
            "size": _size,
            "look_of": _look_of,
            "output_of": _output_of,
        }
    )
    by_lab = _by_lab(result)
    # Macros of the template are attributes that no type names: hence getattr with a constant, here and below.
    lessons = [
        _lesson(labs, f"l{i}", getattr(template, "part"), _PARTS_CHARACTERS // len(by_lab))  # noqa: B009
        for i, labs in enumerate(by_lab)
    ]
    states = [step.state for lab in result.labs for step in lab.steps]
    students = {lab.student: True for lab in result.labs}
    for lab in result.labs:
        students[lab.student] &= lab.state == "pass"
    page = getattr(template, "page")(  # noqa: B009
        result=result,
        lessons=lessons,
        students=len(students),
        well=sum(students.values()),
        counts={state: count for state in MARKS if (count := states.count(state))},
        troubles=_troubles(lessons),
        troubles_shown=_TROUBLES,
        names_shown=_NAMES,
    )
    return _clean(str(page).lstrip())


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(_TEMPLATE)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A student in a lab's matrix. `part` is what is written out of them, empty when nothing is; `key` marks it."""

    lab: LabResult
    key: str
    state: State
    extent: Extent | None
    part: Markup


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """A lab's matrix, those first who need help. `half` and `most` are p50 and p95 of each step, in seconds."""

    labs: list[LabResult]
    rows: list[Row]
    chapter_starts: frozenset[int]
    half: list[float | None]
    most: list[float | None]
    large: bool


@dataclass(kw_only=True)
class Trouble:
    """One thing that is wrong, with everyone it is wrong for. `rows` and `steps` (with where they stand) in order."""

    state: State
    expected: str
    seen: str
    hint: str
    steps: dict[str, StepResult] = field(default_factory=dict)
    rows: dict[str, tuple[Row, int]] = field(default_factory=dict)


def _lesson(labs: list[LabResult], key: str, part: Callable[..., Markup], characters: int) -> Lesson:
    """The parts of all students within so many characters: when they are used up, those who come later get shorter."""
    large = len(labs) > _LARGE_CLASS
    extents: list[Extent] = ["short", "brief"] if large else ["whole", "short", "brief"]
    ordered = sorted(enumerate(labs), key=lambda numbered: WORST_FIRST.index(numbered[1].state))
    not_well = sum(lab.state != "pass" for lab in labs)
    rows: list[Row] = []
    for i, lab in ordered:
        state, written, extent = lab.state, Markup(), None
        opened = not_well <= _OPEN_PARTS if state != "pass" else not rows
        for tried in tuple(extents):
            if state == "pass" and tried != "whole":
                break
            written = part(lab, f"{key}s{i}", state, tried, opened)
            if len(written) <= min(characters, _PART_CHARACTERS):
                extent = tried
                break
            if len(written) <= _PART_CHARACTERS:
                # There is no room for such parts any more: those who come later need not be tried.
                extents.remove(tried)
            written = Markup()
        characters -= len(written)
        rows.append(Row(lab=lab, key=f"{key}s{i}", state=state, extent=extent, part=written))
    heads = [step.id.partition("-")[0] if step.id[:1].isdigit() else "" for step in labs[0].steps]
    groups = [len(list(group)) for _, group in groupby(heads)]
    return Lesson(
        labs=labs,
        rows=rows,
        chapter_starts=frozenset(sum(groups[:i]) for i in range(1, len(groups))),
        half=_percentiles(labs, 0.5),
        most=_percentiles(labs, 0.95),
        large=large,
    )


def _troubles(lessons: Sequence[Lesson]) -> list[Trouble]:
    """What is wrong, by step and hint, the most common first. What only waits for something wrong is left out."""
    found: dict[tuple[Any, ...], Trouble] = {}
    for which, lesson in enumerate(lessons):
        for row in lesson.rows:
            states = {step.state for step in row.lab.steps}
            causes: set[State] = {"fail", "could-not-check"} if states & {"fail", "could-not-check"} else {"not-yet"}
            for i, step in enumerate(row.lab.steps):
                if step.state not in causes:
                    continue
                outcome = next(outcome for outcome in step.outcomes if outcome.state == step.state)
                # One outage stops many steps, and one wait the steps after it; a failure belongs to its step.
                about = (step.id, outcome.kind) if step.state == "fail" else ()
                hint = _OWN.sub("", outcome.hint.replace(row.lab.facts.namespace, ""))
                trouble = found.setdefault(
                    (which, step.state, about, hint),
                    Trouble(state=step.state, expected=outcome.expected, seen=outcome.seen, hint=outcome.hint),
                )
                trouble.steps.setdefault(step.id, step)
                trouble.rows.setdefault(row.key, (row, i))
                if step.state == "not-yet":
                    break
    return sorted(found.values(), key=lambda trouble: (WORST_FIRST.index(trouble.state), -len(trouble.rows)))


def _drawn(run: RunFacts | PipelineFacts) -> Graph | None:
    """The graph of a run's tasks, or of an uploaded pipeline's."""
    if isinstance(run, RunFacts):
        return graph({task.name: task.after for task in run.tasks}, _TASK_BOX)
    return graph(run.graph, _STEP_BOX)


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """Executions and artifacts of a run by the names of their boxes in `graph`."""

    graph: Graph | None
    executions: dict[str, TaskFacts]
    artifacts: dict[str, ArtifactFacts]


def _lineage(run: RunFacts) -> Lineage:
    """What each execution took and made. An artifact is the same for all by ML Metadata's number, else its place."""
    before: dict[str, list[str]] = {}
    executions, artifacts = {}, {}
    for task in run.tasks:
        if not task.artifacts:
            continue
        me = f"execution {task.name}"
        executions[me] = task
        before.setdefault(me, [])
        for artifact in task.artifacts:
            it = f"artifact {artifact.id or artifact.uri or (task.name, artifact.name)}"
            artifacts.setdefault(it, artifact)
            before.setdefault(it, [])
            if "INPUT" in artifact.event:
                before[me].append(it)
            else:
                before[it].append(me)
    return Lineage(graph=graph(before, _ARTIFACT_BOX), executions=executions, artifacts=artifacts)


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """An output as a picture: `chart` of a series or of pairs; a table's first `rows`, and how many are `left`."""

    of: Picture
    values: tuple[float, ...] = ()
    rows: tuple[tuple[JsonValue, ...], ...] = ()
    pairs: tuple[tuple[float, float], ...] = ()
    left: int = 0
    chart: Chart | None = None


def _pictures(lab: LabResult, run: RunFacts) -> list[Drawn]:
    """The run's outputs that the lab wants seen, each once; those that are no list of the right kind are left out."""
    wanted = dict.fromkeys(
        picture for step in lab.steps for picture in step.pictures if picture.run == run.submitted_by
    )
    outputs = {task.name: task.outputs or {} for task in run.tasks}
    found = []
    for picture in wanted:
        given = _list(outputs.get(picture.task, {}).get(picture.parameter))
        if picture.kind == "series":
            values = tuple(float(value) for value in given if _is_number(value))
            if chart := curve(values):
                found.append(Drawn(of=picture, values=values, chart=chart))
        elif rows := [row for each in given if (row := _row(each, picture.columns))]:
            pairs = tuple((float(row[0]), float(row[1])) for row in rows if len(row) == 2 and all(map(_is_number, row)))
            pairs = pairs if len(pairs) == len(rows) else ()
            left = max(0, len(rows) - _ROWS)
            found.append(Drawn(of=picture, rows=tuple(rows[:_ROWS]), pairs=pairs, left=left, chart=cloud(pairs)))
    return found


def _row(value: Any, columns: Sequence[str]) -> tuple[Any, ...]:
    """A row of a table, which may be an object with the columns or a list; empty when it is neither."""
    if isinstance(value, dict):
        value = [value.get(column) for column in columns or sorted(value)]
    return tuple(value[:_COLUMNS]) if isinstance(value, list) else ()


def _list(value: JsonValue) -> list[Any]:
    """A list as it is, or as JSON in a text: ML Metadata keeps some outputs so."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return []
    return value if isinstance(value, list) else []


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def shown(values: Mapping[str, JsonValue]) -> str:
    """Parameters as a person writes them, in order of their names: a = 1, b = 2. Of a list, how long it is."""
    return ", ".join(f"{name} = {_outline(value)}" for name, value in sorted(values.items()))


def _outline(value: JsonValue, characters: int = 60) -> str:
    """A value in a few characters."""
    if isinstance(value, list) and len(value) > 4:
        return f"[{len(value)}]"
    return _cut(_value(value), characters)


def _value(value: JsonValue) -> str:
    """A value, as much of it as a person reads."""
    text = number(value) if isinstance(value, float) and value % 1 else plain(value)
    return text if len(text) <= _VALUE_CHARACTERS else text[: _VALUE_CHARACTERS - 1] + "…"


def _cut(text: str, characters: int) -> str:
    """As much as fits so many letters' width; Korean ones are twice as wide. In one line."""
    text = " ".join(text.split())
    if len(text) * 2 <= characters:
        return text
    width = 0
    for i, letter in enumerate(text):
        width += 2 if east_asian_width(letter) in "WF" else 1
        if width > characters:
            return text[: max(0, i - 1)] + "…"
    return text


def _bounded(text: str, extent: Extent, *, words: Mapping[str, str], times: int = 1) -> str:
    """Text for a page: without a terminal's colours, of a long one the beginning and (mostly) the end."""
    text = _TERMINAL.sub("", text)
    most = _TEXT_CHARACTERS[extent] * times
    if len(text) <= most:
        return text
    return f"{text[: most // 4]}\n{words['left-out'].format(n=len(text) - most)}\n{text[-most * 3 // 4 :]}"


def _by_lab(result: Result) -> list[list[LabResult]]:
    """The results lab by lab, the labs in the order the class teaches them."""
    found: dict[str, list[LabResult]] = {}
    for lab in result.labs:
        found.setdefault(lab.lab, []).append(lab)
    return list(found.values())


def _percentiles(labs: Sequence[LabResult], share: float) -> list[float | None]:
    """For each step, the seconds that `share` of the students did not exceed."""
    columns = zip(*([step.seconds for step in lab.steps] for lab in labs), strict=True)
    return [percentile((seconds for seconds in column if seconds is not None), share) for column in columns]


def _output_of(lab: LabResult, step: StepResult) -> str:
    """What the cell behind a step printed, when the step did not pass."""
    cell = lab.facts.cell(step.cell) if step.cell and step.state != "pass" else None
    return cell.output if cell else ""


def _look_of(state: str) -> str:
    """How a state of KFP or ML Metadata looks."""
    return "p" if state in _WELL else "f" if state in _WRONG else "w"


def _seconds(value: float | None, words: Mapping[str, str]) -> str:
    """For a person: 0.4 s, 12 s, 3 min 05 s."""
    if value is None:
        return ""
    if value < 99.5:
        return words["seconds"].format(n=f"{value:.1f}" if value < 9.95 else f"{value:.0f}")
    minutes, seconds = divmod(round(value), 60)
    return words["minutes"].format(m=minutes, n=f"{seconds:02d}")


def _brief_seconds(value: float | None) -> str:
    """Under a narrow column, without the unit: 0.4, 12, 185."""
    return "" if value is None else f"{value:.1f}" if value < 9.95 else f"{value:.0f}"


def _size(count: int) -> str:
    """120 B, 3.4 KiB, 12 MiB."""
    size, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1000 or unit == "GiB":
            break
        size /= 1024
    return f"{size:.1f} {unit}" if unit != "B" and size < 9.95 else f"{size:.0f} {unit}"


def _clean(text: str) -> str:
    return _NOT_XML.sub("�", text)
