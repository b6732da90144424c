"""The class file: read, with every mistake in it explained, and written, for those who begin one.

`load` answers a mistake with file, line, field, what is wrong and what would be right. The file that `classroom init`
writes and the JSON schema for editors are made of the model's descriptions, defaults and examples, so they stay true.
"""

import textwrap
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError

from infra import roster
from infra.failure import CallFailure
from infra.spec import ClassSpec, OneMachine, Platform
from infra.values import in_one_line, nearest, path_of, quoted, written

_FILE_BYTES_MAX: Final = 1 << 20
_NODES_MAX: Final = 50_000
_DEPTH_MAX: Final = 30
# Python writes no number of more than 4300 digits into a message, and no field takes one of this many.
_DIGITS_MAX: Final = 100
_PROBLEMS_SHOWN: Final = 12

_DEFAULT, _ADDITION = "# ", "#+ "
_NOTHING: Final = (None, "", (), {})
_WIDTH: Final = 110
_LEGEND: Final = (
    f"`{_DEFAULT.strip()}` stands before what holds anyway: uncommented, it changes nothing until you change it.",
    f"`{_ADDITION.strip()}` stands before an example of what can be added.",
)


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One mistake in a class file. `line` counts from 1; 0 when the file has no lines to point at."""

    file: Path
    line: int
    field: str
    wrong: str
    mend: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else str(self.file)
        field = f"{self.field}: " if self.field else ""
        text = f"{place}: {field}{self.wrong}; {self.mend}"
        # A key of the file may hold what a terminal would obey, or could not write.
        return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


class ClassFileError(CallFailure):
    """The class file cannot be used. `problems` says where and how to mend it."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        self.problems = problems
        shown = [str(problem) for problem in problems[:_PROBLEMS_SHOWN]]
        if len(problems) > _PROBLEMS_SHOWN:
            shown.append(f"… and {len(problems) - _PROBLEMS_SHOWN} more of the kind")
        super().__init__("\n".join(shown))


def load(path: Path) -> ClassSpec:
    """Read a class file and the roster it names. A relative path in it is taken from its own folder, `~` is one's home.

    Errors: `ClassFileError`, whatever the files are.
    """
    root = _compose(path)
    problems = list(_twice_named(path, root))
    if problems:
        raise ClassFileError(tuple(problems))
    try:
        data = _Loader("").construct_document(root)
    except yaml.MarkedYAMLError as error:
        raise ClassFileError((_yaml_problem(path, error),)) from None
    except _Unreadable as error:
        raise _refusal(path, error.wrong, "put such values in quotes", error.line) from None
    # A tag can make something else of a group of fields, such as a set.
    if not isinstance(data, Mapping):
        raise _no_fields(path, root)
    rows = _roster(path, root, data)
    if rows is not None and isinstance(besides := data.get("students") or [], list):
        data = {**data, "students": [*(row.cells for row in rows.rows), *besides]}
    try:
        return ClassSpec.model_validate(data, context={"folder": path.resolve().parent})
    except ValidationError as error:
        mistakes = error.errors(include_url=False)
        # A list whose every member is refused counts as empty too; the members' own mistakes say it better.
        inner = {details["loc"][:1] for details in mistakes if len(details["loc"]) > 1}
        shown = [each for each in mistakes if not (each["type"] == "too_short" and each["loc"] in inner)]
        found = [_problem(path, root, rows, each) for each in shown]
        raise ClassFileError(tuple(sorted(found, key=lambda each: (each.file != path, each.line)))) from None


class _Loader(yaml.SafeLoader):
    """The safe loader, of which `construct_document` is used alone: composing and constructing are two steps here."""

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        """Make the value of a node. Errors: `_Unreadable`, where its text is none that its tag can be made of."""
        try:
            if node.tag == "tag:yaml.org,2002:int" and len(str(self.construct_scalar(node))) > _DIGITS_MAX:
                raise ValueError(f"a number of more than {_DIGITS_MAX} digits")
            return super().construct_object(node, deep)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            # The others speak of the parser's insides.
            why = error if isinstance(error, ValueError) else f"it is no {node.tag.rpartition(':')[2]}"
            raise _Unreadable(f"holds a value that cannot be read ({why})", _line(node)) from None


@dataclass(frozen=True, kw_only=True)
class _Roster:
    """The students that stand in a file of their own; they come before those in the class file."""

    file: Path
    rows: tuple[roster.Row, ...]


def _roster(path: Path, root: yaml.MappingNode, data: Mapping[str, Any]) -> _Roster | None:
    """The roster that a class file names; None when it names none, or none that validation lets pass."""
    if data.get("roster") is None:
        return None
    line, _ = _locate(root, ["roster"])
    try:
        file = path.parent / path_of(data["roster"])
    except PydanticCustomError as error:
        context = error.context or {}
        mistake = Problem(file=path, line=line, field="roster", wrong=context["wrong"], mend=context["mend"])
        raise ClassFileError((mistake,)) from None
    try:
        return _Roster(file=file, rows=roster.rows(_text(file)))
    except _Unreadable as error:
        mend = "name the CSV file of the students, from this file's folder"
        if error.line:
            raise _refusal(file, error.wrong, "save it as CSV in UTF-8", error.line) from None
        mistake = Problem(file=path, line=line, field="roster", wrong=f"{file}: {error.wrong}", mend=mend)
        raise ClassFileError((mistake,)) from None
    except roster.RosterMistake as error:
        mistake = Problem(file=file, line=error.line, field=error.column, wrong=error.wrong, mend=error.mend)
        raise ClassFileError((mistake,)) from None


def _refusal(path: Path, wrong: str, mend: str, line: int = 0) -> ClassFileError:
    return ClassFileError((Problem(file=path, line=line, field="", wrong=wrong, mend=mend),))


def _no_fields(path: Path, root: yaml.Node) -> ClassFileError:
    return _refusal(path, "is not a list of fields", "write `name: demo` in its first line, and so on", _line(root))


class _Unreadable(Exception):
    """A file that is no text of a sensible size, or a value in it. `line` counts from 1; 0 when there is none to point
    at."""

    def __init__(self, wrong: str, line: int = 0) -> None:
        self.wrong, self.line = wrong, line
        super().__init__(wrong)


def _text(file: Path) -> str:
    """The text of a file. Errors: `_Unreadable`."""
    try:
        with file.open("rb") as opened:
            content = opened.read(_FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        raise _Unreadable("there is no such file") from None
    except IsADirectoryError:
        raise _Unreadable("is a directory") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise _Unreadable(f"cannot be read ({reason})") from None
    if len(content) > _FILE_BYTES_MAX:
        raise _Unreadable("is larger than 1 MiB")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _Unreadable("is not UTF-8 text", content.count(b"\n", 0, error.start) + 1) from None


def _compose(path: Path) -> yaml.MappingNode:
    try:
        text = _text(path)
    except _Unreadable as error:
        mend = "save it as UTF-8, or name the class file" if error.line else "name the class file"
        if path.is_dir():
            mend = f"name the class file in it, for example {path / 'demo.yaml'}"
        elif not error.line:
            mend = "name a class file, for example labs/classes/demo.yaml"
        raise _refusal(path, error.wrong, mend, error.line) from None
    try:
        root = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        raise ClassFileError((_yaml_problem(path, error),)) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise _refusal(path, "holds a character that YAML does not allow", "write it as plain text", line) from None
    except RecursionError:
        raise _refusal(path, "is nested too deeply", "a class file is at most five levels deep") from None
    if root is None:
        raise _refusal(path, "is empty", "write at least `name:` and `students:`, as in labs/classes/demo.yaml")
    if not isinstance(root, yaml.MappingNode):
        raise _no_fields(path, root)
    _refuse_bombs(path, root)
    return root


def _refuse_bombs(path: Path, root: yaml.Node) -> None:
    """Refuse what would be endless or huge once its aliases are followed."""
    waiting = [(root, 1)]
    seen = 0
    while waiting:
        node, depth = waiting.pop()
        seen += 1
        if seen > _NODES_MAX or depth > _DEPTH_MAX:
            wrong = (
                "is nested too deeply" if depth > _DEPTH_MAX else "holds too many values once its aliases are followed"
            )
            raise _refusal(path, wrong, "write the values out without aliases (*name)", _line(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += [(child, depth + 1) for child in node.value]
        elif isinstance(node, yaml.MappingNode):
            waiting += [(child, depth + 1) for pair in node.value for child in pair]


def _twice_named(path: Path, node: yaml.Node, field: str = "") -> Iterator[Problem]:
    """YAML takes the last of two equal keys without a word; a person means neither."""
    if isinstance(node, yaml.SequenceNode):
        for i, child in enumerate(node.value):
            yield from _twice_named(path, child, f"{field}[{i}]")
    elif isinstance(node, yaml.MappingNode):
        first: dict[str, int] = {}
        for key, value in node.value:
            name = str(key.value)
            inner = f"{field}.{name}" if field else name
            if name in first:
                wrong = f"is given twice, first in line {first[name]}"
                yield Problem(file=path, line=_line(key), field=inner, wrong=wrong, mend="take one of the two away")
            first.setdefault(name, _line(key))
            yield from _twice_named(path, value, inner)


def _yaml_problem(path: Path, error: yaml.MarkedYAMLError) -> Problem:
    mark = error.problem_mark or error.context_mark
    wrong = f"is not valid YAML ({error.problem or error.context})"
    mend = "mend this line; `scripts/classroom init` prints a file with every field"
    return Problem(file=path, line=mark.line + 1 if mark else 0, field="", wrong=wrong, mend=mend)


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _problem(path: Path, root: yaml.MappingNode, named: _Roster | None, details: ErrorDetails) -> Problem:
    context = details.get("ctx", {})
    location = [*details["loc"], *context.get("at", ())]
    if named and location[0] == "students" and len(location) > 1 and isinstance(location[1], int):
        if location[1] < len(named.rows):
            wrong, mend = _explain(details, location)
            column = str(location[2]) if len(location) > 2 else ""
            line = named.rows[location[1]].line
            return Problem(file=named.file, line=line, field=column, wrong=wrong, mend=mend)
        location[1] -= len(named.rows)
    line, steps = _locate(root, location)
    field = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).lstrip(".")
    wrong, mend = _explain(details, steps)
    return Problem(file=path, line=line, field=field, wrong=wrong, mend=mend)


def _locate(root: yaml.MappingNode, location: list[int | str]) -> tuple[int, list[int | str]]:
    """The line of a field, and its path without what pydantic adds: members of a union, and the mark of a key."""
    node: yaml.Node = root
    line = _line(root)
    steps: list[int | str] = []
    for i, step in enumerate(location):
        if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
            line = _line(node)
        elif isinstance(node, yaml.MappingNode):
            pair = next(((key, value) for key, value in node.value if str(key.value) == str(step)), None)
            if pair is not None:
                line, node = _line(pair[0]), pair[1]
            elif step in ("kubeflow", "one-machine") and i == 1:
                continue
        if step != "[key]":
            steps.append(step)
    return line, steps


def _explain(details: ErrorDetails, steps: list[int | str]) -> tuple[str, str]:
    """What is wrong and what would be right, from pydantic's finding."""
    kind, given = details["type"], details["input"]
    model, known_name, examples = _field_at(steps, OneMachine if "one-machine" in details["loc"] else Platform)
    name = str(steps[-1]) if steps else ""
    example = f"write for example `{written(known_name, examples[0])}`" if examples else "see `scripts/classroom init`"
    match kind:
        case "mistake":
            return details["msg"], str(details.get("ctx", {}).get("mend", example))
        case "missing":
            return "is missing", example
        case "extra_forbidden":
            known = list(model.model_fields) if model else []
            return "is not a known field", nearest(name, known)
        case "model_type" | "model_attributes_type" | "dict_type":
            return f"{_given(given)} is not a group of fields", example
        case "tuple_type" | "list_type":
            return f"{_given(given)} is not a list", example
        case "too_short":
            return "is empty", example
        case "string_type":
            return f"{_given(given)} is not a text", f"put it in quotes, or {example}"
        case _:
            reason = details["msg"].removeprefix("Input ")
            return f"{_given(given)} is refused ({reason[:1].lower()}{reason[1:]})", example


def _field_at(steps: list[int | str], platform: type[BaseModel]) -> tuple[type[BaseModel] | None, str, list[Any]]:
    """The model that holds the field at `steps`, the field's name, and the examples it carries."""
    holder, name, examples = None, "", list[Any]()
    annotation: object = ClassSpec
    for step in steps:
        annotation = _choice(annotation, platform)
        if isinstance(annotation, type) and not get_origin(annotation) and issubclass(annotation, BaseModel):
            known = annotation.model_fields.get(str(step))
            holder, name = annotation, str(step)
            examples = list(known.examples or []) if known else []
            annotation = known.annotation if known else None
        elif get_origin(annotation) in (tuple, dict):
            annotation = get_args(annotation)[0 if get_origin(annotation) is tuple else 1]
        else:
            break
    return holder, name, examples


def _choice(annotation: object, platform: type[BaseModel]) -> object:
    """What a field holds, where it may also hold nothing, or one platform or the other."""
    while get_origin(annotation) in (Union, types.UnionType, Annotated):
        inner = get_args(annotation)
        if get_origin(annotation) is Annotated:
            annotation = inner[0]
            continue
        held = [each for each in inner if each is not type(None)]
        annotation = next((each for each in held if _choice(each, platform) is platform), held[0])
    return annotation


def models(annotation: object) -> Iterator[type[BaseModel]]:
    """The models named anywhere within a field's annotation."""
    if isinstance(annotation, type) and not get_origin(annotation) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Union, types.UnionType, tuple, dict, Annotated):
        for inner in get_args(annotation):
            yield from models(inner)


def _given(value: object) -> str:
    return "nothing" if value is None else quoted(str(value))


def schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of a class file. An editor completes and checks by it; `load` checks more."""
    made = ClassSpec.model_json_schema()
    made["required"] = [field for field in made["required"] if field != "students"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **made,
        "title": "Class file of Kubeflow classroom",
        "anyOf": [{"required": ["students"]}, {"required": ["roster"]}],
    }


def example(platform: Literal["one-machine", "kubeflow"] = "one-machine") -> str:
    """A class file with every field, its description and its default, on the embedded platform or on one of one's own.

    As it is, it is a class of one student.
    """
    live = {name: _sample(field) for name, field in ClassSpec.model_fields.items() if field.is_required()}
    if platform == "kubeflow":
        required = {name: _sample(field) for name, field in Platform.model_fields.items() if field.is_required()}
        live["platform"] = {"kind": "kubeflow", **required}
    lines = [f"## {line}" for line in (str(ClassSpec.__doc__), *_LEGEND)]
    for name, field in _in_order(ClassSpec):
        lines += ["", *_field(name, field, live.get(name), "", 0)]
    return "\n".join(lines) + "\n"


def _in_order(model: type[BaseModel]) -> list[tuple[str, FieldInfo]]:
    """The fields of a model, those first that have to be there or say what the others mean."""
    return sorted(model.model_fields.items(), key=lambda item: not (item[1].is_required() or item[0] == "kind"))


def _field(name: str, field: FieldInfo, value: object, mark: str, indent: int, dash: str = "") -> Iterator[str]:
    """The lines of a field: its description, then `value`; without one its default; without that an example."""
    if value in _NOTHING:
        value = None if field.is_required() else field.get_default()
        mark = mark or _DEFAULT
    if value in _NOTHING:
        mark, value = _ADDITION, _sample(field)
    elif mark and isinstance(value, BaseModel) and all(held in _NOTHING for _, held in value):
        # A group with nothing in it would be no group.
        mark = _ADDITION
    margin = " " * (indent - len(dash))
    for line in textwrap.wrap(str(field.description), _WIDTH - indent):
        yield f"## {margin}{line}" if mark else f"{margin}## {line}"
    head = f"{mark}{margin}{dash}{name}:"
    inner = next(iter(models(field.annotation)), None)
    if inner is None or get_origin(field.annotation) is dict or _is_short(field):
        yield f"{head} {in_one_line(_plain(value))}"
    elif isinstance(value, BaseModel | Mapping):
        yield head
        yield from _group(_model(field, value), dict(value), mark, indent + 2)
    elif isinstance(value, tuple | list):
        yield head
        first, *others = value
        yield from _group(inner, dict(first), mark, indent + 4, "- ")
        for other in others:
            yield f"{mark}{margin}  - {in_one_line(_plain(other))}"


def _group(model: type[BaseModel], held: Mapping[str, object], mark: str, indent: int, dash: str = "") -> Iterator[str]:
    for name, field in _in_order(model):
        yield from _field(name, field, held.get(name), mark, indent, dash)
        dash = ""


def _model(field: FieldInfo, value: BaseModel | Mapping[str, Any]) -> type[BaseModel]:
    """The model that fits a value, where a field may hold one of several."""
    if isinstance(value, BaseModel):
        return type(value)
    found = list(models(field.annotation))
    return Platform if Platform in found else found[0]


def _is_short(field: FieldInfo) -> bool:
    """Whether a field is shown in one line: it is an addition whose example is not an example of each of its fields."""
    return bool(field.examples) and not field.is_required() and field.get_default() in _NOTHING


def _sample(field: FieldInfo) -> Any:
    """An example of a field; of a group of fields without one, the examples of its fields."""
    inner = next(iter(models(field.annotation)), None)
    if field.examples or inner is None:
        return (field.examples or [None])[0]
    return {name: _sample(each) for name, each in inner.model_fields.items()}


def _plain(value: object) -> object:
    """A value as YAML has it, without what is as it would be anyway."""
    if isinstance(value, BaseModel):
        given = value.model_dump(mode="json", exclude_defaults=True)
        return {name: given[name] for name, _ in _in_order(type(value)) if name in given}
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    return value
