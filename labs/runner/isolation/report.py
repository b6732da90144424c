"""What a proof leaves behind: isolation.json, junit.xml, and isolation.html, which needs nothing but itself."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import jinja2

from labs.runner.isolation.doors import DOORS, PLATFORM, Cell, Door, Result, Verdict

MARKS: Final[dict[Verdict, str]] = {"refused": "✓", "leak": "✗", "could-not-check": "?"}
_LOOKS: Final[dict[Verdict, str]] = {"refused": "p", "leak": "f", "could-not-check": "u"}
_WORST: Final[tuple[Verdict, ...]] = ("leak", "could-not-check", "refused")
# XML 1.0 has no way to write these, escaped or not.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_TROUBLES = 200
_STYLE = Path(__file__).parents[1] / "report" / "report.css"
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Isolation of {{ result.class_name }}</title><style>{{ style }}
.doors td, .doors th { padding: 6px 14px; text-align: left; border-top: 1px solid var(--line); }
.doors td.num { text-align: right; }</style></head><body><main>
<section class="card verdict {{ look }}"><h1>Isolation of <b>{{ result.class_name }}</b></h1>
<p class="big">{{ headline }}</p>
<p class="lead">{{ result.students|length }} students, {{ result.pairs }} of {{ result.pairs_there_are }} ordered pairs,
{{ doors|length }} doors, {{ result.cells|length }} cells</p>
<p class="meta"><span>{{ result.url }}</span><span>{{ result.started }}</span><span>{{ result.seconds }} s</span></p>
</section>
{% if troubles %}<h2>What is wrong, or was not seen</h2><div class="card scroll"><table class="steps">
<tr><th></th><th>door</th><th>who</th><th>at</th><th>asked</th><th>answered</th><th>let in there</th><th></th></tr>
{% for cell in troubles %}<tr class="{{ looks[cell.verdict] }}">
<td><span class="mark">{{ marks[cell.verdict] }}</span></td>
<td>{{ known[cell.door].group }}: {{ known[cell.door].title }}{{ " (" + cell.notebook + ")" if cell.notebook }}</td>
<td class="id">{{ cell.actor }}</td><td class="id">{{ cell.target }}</td>
<td>{{ cell.asked }}</td><td>{{ cell.answered }}</td><td>{{ cell.control }}</td><td>{{ cell.why }}</td></tr>
{% endfor %}</table></div>{% if more %}<p>… and {{ more }} more, in isolation.json</p>{% endif %}{% endif %}
{% if result.left_behind %}<h2>What was left behind</h2><ul>
{% for each in result.left_behind %}<li>{{ each }}</li>{% endfor %}</ul>{% endif %}
<h2>Who at whose door</h2><p class="soft">Each field is the worst of all doors between the two: row at column.</p>
<div class="card scroll tall"><table class="matrix few"><thead><tr><th class="n"></th>
{% for target in targets %}<th><div class="v">{{ target }}</div></th>{% endfor %}</tr></thead><tbody>
{% for actor in actors %}<tr><th class="n">{{ actor }}</th>{% for target in targets %}
{% set cells = between(actor, target) %}
{% if cells %}<td class="{{ looks[worst(cells)] }}" title="{{ actor }} at {{ target }}: {{ cells|length }} doors">
{{ marks[worst(cells)] }}</td>{% else %}<td></td>{% endif %}{% endfor %}</tr>{% endfor %}</tbody></table></div>
<h2>Doors</h2><div class="card scroll"><table class="doors">
<tr><th>door</th><th></th><th>refused</th><th>leak</th><th>could not check</th><th>one that was asked</th>
<th>answered</th>
<th>let in there</th></tr>
{% for door, cells in doors %}<tr class="{{ looks[worst(cells)] }}"><td>{{ door.group }}</td><td>{{ door.title }}</td>
{% for verdict in ("refused", "leak", "could-not-check") %}
<td class="num">{{ cells|selectattr("verdict", "equalto", verdict)|list|length or "" }}</td>{% endfor %}
<td><code>{{ cells[0].asked }}</code></td><td>{{ cells[0].answered }}</td><td>{{ cells[0].control }}</td></tr>
{% endfor %}
</table></div></main></body></html>
"""


def write(result: Result, directory: Path) -> None:
    """Write all three files into `directory`, over those of that name."""
    (directory / "isolation.json").write_text(result.model_dump_json(indent=1) + "\n", encoding="utf-8")
    (directory / "junit.xml").write_text(junit(result), encoding="utf-8")
    (directory / "isolation.html").write_text(html(result), encoding="utf-8")


def worst(cells: Iterable[Cell]) -> Verdict:
    """The worst verdict of some cells."""
    found = {cell.verdict for cell in cells}
    return next((verdict for verdict in _WORST if verdict in found), "could-not-check")


def by_door(result: Result) -> list[tuple[Door, list[Cell]]]:
    """The cells of each door, in the doors' order, the worst first."""
    found: dict[str, list[Cell]] = {door: [] for door in DOORS}
    for cell in result.cells:
        found[cell.door].append(cell)
    return [
        (DOORS[door], sorted(cells, key=lambda cell: _WORST.index(cell.verdict)))
        for door, cells in found.items()
        if cells
    ]


def headline(result: Result) -> str:
    """The verdict in a sentence."""
    leaks, unknown = result.count("leak"), result.count("could-not-check")
    if leaks:
        return f"{leaks} leaks" if leaks > 1 else "One leak"
    if unknown:
        return f"No leak was seen, but {unknown} of {len(result.cells)} could not be checked"
    return "No student reaches another's anything"


def junit(result: Result) -> str:
    """JUnit's XML: a suite for each door, a case for each cell. What could not be checked is an error."""
    root = ET.Element("testsuites", name=_clean(f"isolation {result.class_name}"), time=f"{result.seconds:.1f}")
    for door, cells in by_door(result):
        suite = ET.SubElement(
            root,
            "testsuite",
            name=_clean(f"{door.group}: {door.title}"),
            tests=str(len(cells)),
            failures=str(sum(cell.verdict == "leak" for cell in cells)),
            errors=str(sum(cell.verdict == "could-not-check" for cell in cells)),
        )
        for cell in cells:
            name = _clean(f"{cell.actor} at {cell.target} {cell.notebook}".strip())
            case = ET.SubElement(suite, "testcase", classname=f"{result.class_name}.{door.id}", name=name)
            if cell.verdict != "refused":
                kind = "failure" if cell.verdict == "leak" else "error"
                wrong = ET.SubElement(case, kind, type=cell.verdict, message=_clean(cell.why or cell.answered))
                wrong.text = _clean(f"asked: {cell.asked}\nanswered: {cell.answered}\nlet in: {cell.control}")
    for kind, verdict in (("failures", "leak"), ("errors", "could-not-check")):
        root.set(kind, str(sum(cell.verdict == verdict for cell in result.cells)))
    root.set("tests", str(len(result.cells)))
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def html(result: Result) -> str:
    """The proof as one page: no script, and no style, font or picture from elsewhere."""
    between: dict[tuple[str, str], list[Cell]] = {}
    for cell in result.cells:
        between.setdefault((cell.actor, cell.target), []).append(cell)
    wrong = sorted((cell for cell in result.cells if cell.verdict != "refused"), key=lambda c: _WORST.index(c.verdict))
    actors = list(dict.fromkeys([*result.students, *(cell.actor for cell in result.cells)]))
    targets = list(dict.fromkeys([*result.students, *(cell.target for cell in result.cells)]))
    template = jinja2.Environment(autoescape=True, trim_blocks=True).from_string(_PAGE)
    return template.render(
        result=result,
        style=_markup(_STYLE.read_text(encoding="utf-8")),
        look=_LOOKS[worst(result.cells)],
        headline=headline(result),
        troubles=wrong[:_TROUBLES],
        more=max(0, len(wrong) - _TROUBLES),
        doors=by_door(result),
        known=DOORS,
        actors=actors,
        targets=[target for target in targets if target != PLATFORM] + ([PLATFORM] if PLATFORM in targets else []),
        between=lambda actor, target: between.get((actor, target), []),
        worst=worst,
        marks=MARKS,
        looks=_LOOKS,
    )


def _markup(text: str) -> str:
    from markupsafe import Markup

    return Markup(text)  # noqa: S704  our own style sheet


def _clean(text: str) -> str:
    return _NOT_XML.sub("", text)
