"""A lab as data: lab.yaml and the notebook's source, read, checked for sense, and rendered for one student.

A lab is a folder below labs/ with a lab.yaml; nothing else has to be written for it. The notebook's source is a script
in jupytext's percent format, or a notebook as it is. Cells are found by a tag. Cells with the metadata `lang` stay only
in that language.
"""

import re
from pathlib import Path
from typing import Any, Literal, Self

import jinja2
import jupytext
import nbformat
import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from infra.failure import CallFailure
from labs.runner.checks import Cell, Check

LABS = Path(__file__).resolve().parent.parent
LAB_FILE = "lab.yaml"

Language = Literal["en", "ko"]


class LabError(CallFailure):
    """A lab cannot be used; the message says which file, what is wrong and what would be right."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Title(_Part):
    """A text in both languages of the course."""

    en: str
    ko: str = ""

    def in_(self, language: Language) -> str:
        """The text in that language; in English where it was not translated."""
        return (self.ko if language == "ko" else "") or self.en


class Notebook(_Part):
    """The notebook's source and the files seeded beside it (paths from the lab's folder), and the server they go to."""

    source: str
    server: str
    beside: tuple[str, ...] = ()


class Upload(_Part):
    """A pipeline uploaded from a file that a cell made."""

    file: str
    name: str
    description: str = ""


class Start(_Part):
    """A run started from the pipeline that the step `pipeline` uploaded, in an experiment that is there already."""

    pipeline: str
    name: str
    experiment: str
    parameters: dict[str, JsonValue] = {}


class Step(_Part):
    """A step of the lab text. `look` does nothing and only looks at what earlier steps left."""

    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9/-]*$")
    title: Title
    does: Literal["login", "seed", "cell", "fetch", "upload", "start", "look"]
    cell: str | None = None
    fetch: str | None = None
    upload: Upload | None = None
    start: Start | None = None
    submits_run: bool = False
    timeout_seconds: float = Field(default=180, gt=0)
    checks: tuple[Check, ...] = Field(min_length=1)

    @field_validator("checks")
    @classmethod
    def _own_cell(cls, checks: tuple[Check, ...], info: ValidationInfo) -> tuple[Check, ...]:
        own = {"cell": info.data.get("cell")}
        return tuple(c.model_copy(update=own) if isinstance(c, Cell) and c.cell is None else c for c in checks)

    @model_validator(mode="after")
    def _deed_fits(self) -> Self:
        for what in ("cell", "fetch", "upload", "start"):
            if (self.does == what) != (getattr(self, what) is not None):
                raise ValueError(f"step {self.id}: `does: {what}` goes with `{what}:`, and only with it")
        if self.submits_run and self.does != "cell":
            raise ValueError(f"step {self.id}: only a cell has `submits_run`")
        return self

    @property
    def makes_run(self) -> bool:
        """Whether a run is there afterwards."""
        return self.submits_run or self.start is not None


class Lab(_Part):
    """A lab: what is taught, in which order, and how each step is seen to have worked."""

    name: str
    title: Title
    notebook: Notebook
    steps: tuple[Step, ...] = Field(min_length=1)
    folder: Path

    @model_validator(mode="after")
    def _steps_fit(self) -> Self:
        ids = [step.id for step in self.steps]
        if twice := sorted({step for step in ids if ids.count(step) > 1}):
            raise ValueError(f"steps are given twice: {', '.join(twice)}")
        submitting = {step.id for step in self.steps if step.makes_run}
        for step in self.steps:
            for check in step.checks:
                run = getattr(check, "run", None)
                if run is not None and run not in submitting:
                    raise ValueError(f"step {step.id}: no step {run} starts a run (`submits_run`, or `does: start`)")
        return self

    @property
    def file_name(self) -> str:
        """The notebook's name as students see it."""
        return Path(self.notebook.source).with_suffix(".ipynb").name

    def submitting(self, tag: str) -> Step | None:
        """The step whose cell of that tag submits a run."""
        return next((step for step in self.steps if step.cell == tag and step.submits_run), None)

    def step_of(self, tag: str) -> Step | None:
        """The step whose cell has that tag."""
        return next((step for step in self.steps if step.cell == tag), None)


def load(name: str, labs: Path = LABS) -> Lab:
    """The lab in the folder `name`. Errors: `LabError`."""
    file = labs / name / LAB_FILE
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name) or not file.is_file():
        there = ", ".join(sorted(found.parent.name for found in labs.glob(f"*/{LAB_FILE}"))) or "none"
        raise LabError(f"there is no lab {name!r}; in labs/ there are: {there}")
    try:
        data = yaml.safe_load(file.read_text())
        lab = Lab.model_validate({**data, "folder": file.parent} if isinstance(data, dict) else data)
    except yaml.YAMLError as error:
        raise LabError(f"{file}: is no YAML ({error}); mend that line") from None
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False)[:5])
        raise LabError(f"{file}: {wrong}; labs/simple_pipeline/{LAB_FILE} shows every field") from None
    for path in (lab.notebook.source, *lab.notebook.beside):
        if not (lab.folder / path).is_file():
            raise LabError(f"{file}: notebook: there is no file {lab.folder / path}; mend the path or write the file")
    tags = {tag for cell in _read(lab).cells for tag in cell.metadata.get("tags", ())}
    if lost := [step.cell for step in lab.steps if step.cell and step.cell not in tags]:
        raise LabError(f'{file}: the notebook has no cell tagged {lost[0]!r}; write `# %% tags=["{lost[0]}"]` above it')
    return lab


def render(lab: Lab, *, host: str, email: str, image: str, language: Language = "en") -> dict[str, Any]:
    """The lab's notebook (nbformat 4) for one student, without a password; the same input gives the same notebook.

    The source may use {{ host }}, {{ email }} and {{ image }}, in code within double quotes. Errors: `LabError`.
    """
    notebook = _read(lab)
    # The result is Python in a notebook, no HTML: it is quoted for Python instead.
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, finalize=_quotable)  # noqa: S701
    cells = []
    for cell in notebook.cells:
        if cell.metadata.get("lang", language) != language:
            continue
        try:
            source = environment.from_string(cell.source).render(host=host, email=email, image=image)
        except jinja2.TemplateError as error:
            raise LabError(f"{lab.folder / lab.notebook.source}: {error}; known are host, email and image") from None
        tags = list(cell.metadata.get("tags", ()))
        made = {
            "id": f"cell-{len(cells):02d}",
            "cell_type": cell.cell_type,
            "metadata": {"tags": tags} if tags else {},
            "source": source,
        }
        if cell.cell_type == "code":
            made |= {"execution_count": None, "outputs": []}
        cells.append(made)
    rendered = {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {
            "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "cells": cells,
    }
    nbformat.validate(rendered)
    return rendered


def sources(notebook: dict[str, Any]) -> list[str]:
    """The sources of a notebook's code cells that hold anything: what makes two copies the same work."""
    found = []
    for cell in notebook.get("cells", ()):
        source = "".join(cell["source"])
        if cell["cell_type"] == "code" and source.strip():
            found.append(source.strip())
    return found


def _read(lab: Lab) -> nbformat.NotebookNode:
    path = lab.folder / lab.notebook.source
    text = path.read_text(encoding="utf-8")
    found = nbformat.reads(text, as_version=4) if path.suffix == ".ipynb" else jupytext.reads(text, fmt="py:percent")
    if not isinstance(found, nbformat.NotebookNode):
        raise LabError(f"{path}: is no notebook; write it in jupytext's percent format")
    return found


def _quotable(value: object) -> str:
    """Within a pair of double quotes of Python, and harmless in text."""
    return str(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
