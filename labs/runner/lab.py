"""A lab as data: lab.yaml and the notebook's source, read, checked for sense, and rendered for one student.

A lab is a folder below labs/ with a lab.yaml; nothing else has to be written for it. The notebook's source is a script
in jupytext's percent format, or a notebook as it is. Cells are found by a tag. Cells with the metadata `lang` stay only
in that language.
"""

import functools
import re
import subprocess
import sys
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
from labs.runner.checks import Cell, Check, Done, Listed

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


class Data(_Part):
    """An object that lies in the student's bucket before the lab begins: the file `from`, or what the program `makes`
    prints. Both are paths from the lab's folder; a program prints the same bytes each time."""

    object: str = Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*$")
    file: str | None = Field(default=None, alias="from")
    makes: str | None = None

    @model_validator(mode="after")
    def _comes_from_one_place(self) -> Self:
        if (self.file is None) == (self.makes is None):
            raise ValueError(f"{self.object}: give either `from:` (a file) or `makes:` (a program that prints it)")
        return self


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
    def _own(cls, checks: tuple[Check, ...], info: ValidationInfo) -> tuple[Check, ...]:
        def of_this_step(check: Check) -> Check:
            if isinstance(check, Cell) and check.cell is None:
                return check.model_copy(update={"cell": info.data.get("cell")})
            if isinstance(check, Done) and check.step is None:
                return check.model_copy(update={"step": info.data.get("id")})
            return check

        return tuple(of_this_step(check) for check in checks)

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
    data: tuple[Data, ...] = ()
    steps: tuple[Step, ...] = Field(min_length=1)
    folder: Path

    @model_validator(mode="after")
    def _steps_fit(self) -> Self:
        ids = [step.id for step in self.steps]
        if twice := sorted({step for step in ids if ids.count(step) > 1}):
            raise ValueError(f"steps are given twice: {', '.join(twice)}")
        submitting = {step.id for step in self.steps if step.makes_run}
        uploading = {step.id for step in self.steps if step.upload}
        for step in self.steps:
            for check in step.checks:
                runs = check.runs if isinstance(check, Listed) else {getattr(check, "run", None)}
                if lost := sorted(run for run in runs if run is not None and run not in submitting):
                    raise ValueError(f"step {step.id}: no step {lost[0]} starts a run (`submits_run`, `does: start`)")
                uploaded = getattr(check, "uploaded", None)
                if uploaded is not None and uploaded not in uploading:
                    raise ValueError(f"step {step.id}: no step {uploaded} uploads a pipeline (`does: upload`)")
        return self

    @property
    def file_name(self) -> str:
        """The notebook's name as students see it."""
        return Path(self.notebook.source).with_suffix(".ipynb").name

    def step_of(self, tag: str) -> Step | None:
        """The step whose cell has that tag."""
        return next((step for step in self.steps if step.cell == tag), None)

    def acting_after(self, tag: str | None) -> list[Step]:
        """The steps that fetch, upload or start between the cell of that tag and the next cell of the lab; None: those
        before the first cell."""
        found: dict[str | None, list[Step]] = {}
        last: str | None = None
        for step in self.steps:
            if step.does == "cell":
                last = step.cell
            elif step.does in ("fetch", "upload", "start"):
                found.setdefault(last, []).append(step)
        return found.get(tag, [])

    def until(self, step: str) -> "Lab | None":
        """The lab up to and with that step, None when it has none of that id; of an id such as 1-6/1-7 a part does."""
        for count, each in enumerate(self.steps, 1):
            if step == each.id or step in each.id.split("/"):
                return self.model_copy(update={"steps": self.steps[:count]})
        return None


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
        raise LabError(f"{file}: {wrong}; labs/README.md says what belongs there") from None
    named = [("notebook", path) for path in (lab.notebook.source, *lab.notebook.beside)]
    named += [("data", str(data.file or data.makes)) for data in lab.data]
    for field, path in named:
        if not (lab.folder / path).is_file():
            raise LabError(f"{file}: {field}: there is no file {lab.folder / path}; mend the path or write the file")
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


def beside(lab: Lab) -> dict[str, str]:
    """The texts of the files beside the notebook, by name."""
    return {path.name: path.read_text(encoding="utf-8") for path in (lab.folder / name for name in lab.notebook.beside)}


def content(lab: Lab, data: Data) -> bytes:
    """What the object holds. Errors: `LabError` when the program that makes it fails."""
    return _printed(lab.folder / data.makes) if data.makes else (lab.folder / str(data.file)).read_bytes()


# Once a process: every student gets the same.
@functools.cache
def _printed(program: Path) -> bytes:
    done = subprocess.run([sys.executable, str(program)], capture_output=True, check=False)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise LabError(f"{program}: ended with {done.returncode} ({said}); `python {program}` must print the object")
    return done.stdout


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
