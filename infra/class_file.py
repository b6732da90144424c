"""What helps to write a class file: a commented one to begin with, and a JSON schema for editors.

Both are made of the model in `infra.spec`, its descriptions, defaults and examples, so that they cannot go stale.
"""

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from infra.spec import ClassSpec, Platform, in_one_line, models

_DEFAULT, _ADDITION = "# ", "#+ "
_NOTHING: Final = (None, "", (), {})
_WIDTH: Final = 110
_LEGEND: Final = (
    f"`{_DEFAULT.strip()}` stands before what holds anyway: uncommented, it changes nothing until you change it.",
    f"`{_ADDITION.strip()}` stands before an example of what can be added.",
)


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
