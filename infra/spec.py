"""The one description of a class, and the only place that reads the class file.

A class file is YAML. `load` answers every mistake in it with file, line, field, what is wrong and what would be right.
"""

import difflib
import re
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from infra import naming
from infra.failure import CallFailure

_FILE_BYTES_MAX: Final = 1 << 20
_NODES_MAX: Final = 50_000
_DEPTH_MAX: Final = 30
_PROBLEMS_SHOWN: Final = 12

# What one pod of a pipeline is counted with: `main` and Argo's `wait` side by side, each with the default limit.
_CONTAINERS_PER_PIPELINE_POD: Final = 2
_PIPELINE_PODS: Final = 5

_SUFFIXES: Final[dict[str, Decimal]] = {
    **{suffix: Decimal(10) ** power for suffix, power in (("n", -9), ("u", -6), ("m", -3), ("", 0))},
    **{suffix: Decimal(10) ** (3 * (i + 1)) for i, suffix in enumerate(("k", "M", "G", "T", "P", "E"))},
    **{suffix: Decimal(2) ** (10 * (i + 1)) for i, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"))},
}
_QUANTITY: Final = re.compile(r"(?P<number>[0-9]{1,20}(\.[0-9]{1,20})?)(?P<suffix>[A-Za-z]*)")


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
        return f"{place}: {field}{self.wrong}; {self.mend}"


class ClassFileError(CallFailure):
    """The class file cannot be used. `problems` says where and how to mend it."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        self.problems = problems
        shown = [str(problem) for problem in problems[:_PROBLEMS_SHOWN]]
        if len(problems) > _PROBLEMS_SHOWN:
            shown.append(f"… and {len(problems) - _PROBLEMS_SHOWN} more of the kind")
        super().__init__("\n".join(shown))


def amount(quantity: str) -> Decimal:
    """A Kubernetes quantity as a number: cores for cpu, bytes for memory. `ValueError` when it is none."""
    match = _QUANTITY.fullmatch(quantity)
    if match is None or match["suffix"] not in _SUFFIXES:
        raise ValueError(f"{quantity!r} is not a Kubernetes quantity")
    return Decimal(match["number"]) * _SUFFIXES[match["suffix"]]


def gibibytes(size: Decimal) -> str:
    """A number of bytes as the next whole quantity in Gi."""
    return f"{-int(-size // 2**30)}Gi"


def _mistake(wrong: str, mend: str) -> PydanticCustomError:
    # Braces would be read as the template's own fields.
    return PydanticCustomError("mistake", "{wrong}", {"wrong": wrong, "mend": mend})


def _quantity(value: object, least: Decimal, most: Decimal, unit: str, example: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise _mistake(f"is not a quantity of {unit}", f"write for example {example}")
    text = str(value)
    try:
        number = amount(text)
    except (ValueError, InvalidOperation):
        unprefixed = re.fullmatch(r"([0-9.]+) *([kmgtKMGT])[iI]?[bB]?", text)
        example = (
            f"{unprefixed[1]}{unprefixed[2].upper().replace('K', 'k')}i" if unprefixed and unit == "bytes" else example
        )
        raise _mistake(f"{_short(text)} is not a Kubernetes quantity", f"write for example {example}") from None
    if not least <= number <= most:
        bound = "less" if number < least else "more"
        raise _mistake(f"{_short(text)} is {bound} {unit} than any class can use", f"write for example {example}")
    return text


def _cpu(value: object) -> str:
    return _quantity(value, Decimal("0.001"), Decimal(4096), "cpu cores", "500m or 2")


def _memory(value: object) -> str:
    return _quantity(value, Decimal(2**20), Decimal(2**60), "bytes", "8Gi")


def _dns_label(value: object, longest: int) -> str:
    if not isinstance(value, str):
        raise _mistake(
            f"{_short(str(value))} is not a text", f'put it in quotes: "{_short(str(value)).strip(chr(39))}"'
        )
    if len(value) > longest:
        raise _mistake(f"{_short(value)} has {len(value)} characters", f"use at most {longest}")
    if not naming.LABEL.fullmatch(value):
        fitting = re.sub(r"[^a-z0-9]+", "-", value.lower()).strip("-") or "demo"
        raise _mistake(
            f"{_short(value)} is refused by Kubernetes, which takes lower-case letters, digits and inner dashes",
            f"write for example {fitting}",
        )
    return value


def _email(value: object) -> str:
    # Narrower than RFC 5322: the address also stands in the gateway's rule, a list divided by commas.
    if not isinstance(value, str) or not re.fullmatch(
        r"[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}@([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]{2,63}", value
    ):
        raise _mistake(f"{_short(str(value))} is not an e-mail address", "write for example alice@example.org")
    # The login compares addresses in lower case, so they are kept so.
    return value.lower()


def _folder(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*", value):
        raise _mistake(f"{_short(str(value))} is not a folder in a bucket", "write for example artifacts")
    return value


def _short(text: str) -> str:
    printable = text if text.isprintable() else ascii(text)[1:-1]
    return repr(printable if len(printable) <= 60 else printable[:57] + "…")


def _given(value: object) -> str:
    return "nothing" if value is None else _short(str(value))


Cpu = Annotated[str, BeforeValidator(_cpu)]
"""CPU cores as a Kubernetes quantity."""
Memory = Annotated[str, BeforeValidator(_memory)]
"""Bytes as a Kubernetes quantity."""
# A StatefulSet marks its pods with `<name>-<hash of ten>`, which must fit a label's 63 characters.
NotebookName = Annotated[str, BeforeValidator(lambda value: _dns_label(value, 52))]
ShortName = Annotated[str, BeforeValidator(lambda value: _dns_label(value, 40))]
# A lab is a Python package below labs/, so its name is a Python name.
LabName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=60)]
Email = Annotated[str, BeforeValidator(_email)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Student(_Part):
    """Who sits in a seat. `email` is the login, `id` is part of every name."""

    id: ShortName = Field(examples=["alice"])
    email: Email = Field(examples=["alice@example.org"])
    name: str = Field(default="", max_length=200, examples=["Alice Example"])


class Gpu(_Part):
    """GPUs of one resource name, as a device plugin offers them."""

    resource: str = Field(
        default="nvidia.com/gpu",
        pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$",
        max_length=120,
        examples=["nvidia.com/gpu"],
    )
    count: int = Field(default=1, ge=1, le=64, examples=[1])


class NotebookSpec(_Part):
    """A notebook server. `cpu` and `memory` are what it is promised; limits that are not given are the same."""

    name: NotebookName = Field(examples=["cpu-notebook"])
    image: str | None = Field(
        default=None, min_length=1, max_length=500, examples=["kubeflownotebookswg/jupyter-scipy:v1.9.2"]
    )
    cpu: Cpu = Field(default="2", examples=["2"])
    cpu_limit: Cpu | None = Field(default=None, examples=["2"])
    memory: Memory = Field(default="8Gi", examples=["8Gi"])
    memory_limit: Memory | None = Field(default=None, examples=["8Gi"])
    gpu: Gpu | None = Field(default=None, examples=[{"resource": "nvidia.com/gpu", "count": 1}])
    workspace: Memory = Field(default="10Gi", examples=["10Gi"])

    @property
    def most_cpu(self) -> str:
        """The cpu limit in force."""
        return self.cpu_limit or self.cpu

    @property
    def most_memory(self) -> str:
        """The memory limit in force."""
        return self.memory_limit or self.memory

    @model_validator(mode="after")
    def _limits_hold_requests(self) -> Self:
        for name, request, limit in (("cpu", self.cpu, self.most_cpu), ("memory", self.memory, self.most_memory)):
            if amount(limit) < amount(request):
                raise _mistake(
                    f"{name}_limit {limit} is less than {name} {request}", f"write {name}_limit: {request} or more"
                )
        return self


class Quota(_Part):
    """What a seat may use at once: `cpu` bounds what pods ask for, `memory` what they may reach.

    `gpus` are those for pipelines, besides the notebooks' own. Containers that name no sizes get `container_…`.
    """

    cpu: Cpu = Field(default="8", examples=["8"])
    memory: Memory = Field(default="32Gi", examples=["32Gi"])
    gpus: int = Field(default=0, ge=0, le=1000, examples=[0])
    pods: int = Field(default=30, ge=1, le=10_000, examples=[30])
    volumes: int = Field(default=10, ge=1, le=1000, examples=[10])
    storage: Memory = Field(default="100Gi", examples=["100Gi"])
    container_cpu: Cpu = Field(default="50m", examples=["50m"])
    container_memory: Memory = Field(default="64Mi", examples=["64Mi"])
    container_memory_limit: Memory = Field(default="1Gi", examples=["1Gi"])

    @model_validator(mode="after")
    def _limit_holds_request(self) -> Self:
        if amount(self.container_memory_limit) < amount(self.container_memory):
            raise _mistake(
                f"container_memory_limit {self.container_memory_limit} is less than {self.container_memory}",
                f"write container_memory_limit: {self.container_memory} or more",
            )
        return self


class BucketSpec(_Part):
    """The student's bucket. Runs write below `artifacts`."""

    artifacts: Annotated[str, BeforeValidator(_folder)] = Field(
        default="artifacts", max_length=200, examples=["artifacts"]
    )


class ObjectStore(_Part):
    """An S3 object store with IAM, and the Secret in Kubeflow's namespace that holds the operator's key for both.

    The operator's key itself is in no file of ours: whoever needs it reads the Secret with the kubeconfig.
    """

    endpoint: str = Field(pattern=r"^https?://[^/\s]+/?$", examples=["http://198.18.0.101:8333"])
    endpoint_in_cluster: str = Field(
        default="http://seaweedfs.kubeflow:8333",
        pattern=r"^https?://[^/\s]+/?$",
        examples=["http://seaweedfs.kubeflow:8333"],
    )
    region: str = Field(default="us-east-1", pattern=r"^[a-z0-9-]+$", examples=["us-east-1"])
    secret: str = Field(default="mlpipeline-minio-artifact", min_length=1, examples=["mlpipeline-minio-artifact"])
    access_key_field: str = Field(default="accesskey", min_length=1, examples=["accesskey"])
    secret_key_field: str = Field(default="secretkey", min_length=1, examples=["secretkey"])


class Platform(_Part):
    """How a Kubeflow that stands is reached. A class file with `kind: kubeflow` writes it out."""

    kind: Literal["one-machine", "kubeflow"] = "kubeflow"
    kubeconfig: Path = Field(examples=["~/.kube/config"])
    context: str | None = Field(default=None, examples=["my-cluster"])
    url: str = Field(pattern=r"^https://[^/\s]+/$", examples=["https://kubeflow.example.org/"])
    ca_file: Path | None = Field(default=None, examples=["gateway-ca.crt"])
    kubeflow_namespace: ShortName = Field(default="kubeflow", examples=["kubeflow"])
    dex_namespace: ShortName = Field(default="auth", examples=["auth"])
    gateway_namespace: ShortName = Field(default="gateway", examples=["gateway"])
    object_store: ObjectStore = Field(examples=[{"endpoint": "https://s3.example.org"}])
    api_server_cidrs: tuple[str, ...] = Field(min_length=1, examples=[["192.0.2.10/32"]])
    notebook_image: str = Field(min_length=1, examples=["kubeflownotebookswg/jupyter-scipy:v1.9.2"])
    volume_directory: Path | None = Field(default=None, examples=["/opt/local-path-provisioner"])


class OneMachine(_Part):
    """The Kubeflow that `classroom platform up` makes on this machine; how it is reached is known once it stands."""

    kind: Literal["one-machine"] = "one-machine"


def _platform_kind(value: object) -> str | None:
    if isinstance(value, OneMachine):
        return "one-machine"
    if isinstance(value, Platform):
        return "kubeflow"
    if isinstance(value, Mapping):
        kind = value.get("kind", "one-machine")
        return kind if isinstance(kind, str) else None
    return None


PlatformChoice = Annotated[
    Annotated[OneMachine, Tag("one-machine")] | Annotated[Platform, Tag("kubeflow")],
    Discriminator(
        _platform_kind,
        custom_error_type="mistake",
        custom_error_message="is not a platform",
        custom_error_context={"mend": "write `kind: one-machine` or `kind: kubeflow` below it"},
    ),
]

_REFERENCE_NOTEBOOKS: Final = (NotebookSpec(name="cpu-notebook"), NotebookSpec(name="gpu-notebook", gpu=Gpu()))


class ClassSpec(_Part):
    """A class: who learns, in which notebooks, within which limits, what is taught, and on which Kubeflow."""

    name: ShortName = Field(examples=["demo"])
    students: tuple[Student, ...] = Field(min_length=1, examples=["[{id: alice, email: alice@example.org}]"])
    notebooks: tuple[NotebookSpec, ...] = Field(
        default=_REFERENCE_NOTEBOOKS, min_length=1, examples=["[{name: cpu-notebook}]"]
    )
    quota: Quota = Field(default=Quota(), examples=["{cpu: 8, memory: 32Gi}"])
    bucket: BucketSpec = Field(default=BucketSpec(), examples=["{artifacts: artifacts}"])
    labs: tuple[LabName, ...] = Field(default=("simple_pipeline",), examples=["[simple_pipeline]"])
    platform: PlatformChoice = Field(default=OneMachine(), examples=["{kind: one-machine}"])

    def gpus(self) -> dict[str, int]:
        """GPUs a seat may hold, by resource name."""
        held: dict[str, int] = {}
        for notebook in self.notebooks:
            if notebook.gpu:
                held[notebook.gpu.resource] = held.get(notebook.gpu.resource, 0) + notebook.gpu.count
        return {resource: count + self.quota.gpus for resource, count in held.items()}

    def needs(self) -> Mapping[str, Decimal]:
        """What all notebooks of a seat and one pipeline run need at once, by the name of the quota's field."""
        quota = self.quota
        containers = _PIPELINE_PODS * _CONTAINERS_PER_PIPELINE_POD
        return {
            "cpu": sum((amount(n.cpu) for n in self.notebooks), Decimal()) + containers * amount(quota.container_cpu),
            "memory": sum((amount(n.most_memory) for n in self.notebooks), Decimal())
            + containers * amount(quota.container_memory_limit),
            "pods": Decimal(len(self.notebooks) + _PIPELINE_PODS),
            "volumes": Decimal(len(self.notebooks)),
            "storage": sum((amount(n.workspace) for n in self.notebooks), Decimal()),
        }

    @model_validator(mode="after")
    def _nobody_twice(self) -> Self:
        _refuse_twice("students", [student.id for student in self.students], "id")
        _refuse_twice("students", [student.email for student in self.students], "email")
        _refuse_twice("notebooks", [notebook.name for notebook in self.notebooks], "name")
        _refuse_twice("labs", list(self.labs), "")
        return self

    @model_validator(mode="after")
    def _quota_holds_the_class(self) -> Self:
        for field, need in self.needs().items():
            given = getattr(self.quota, field)
            if (amount(given) if isinstance(given, str) else given) < need:
                right = gibibytes(need) if field in ("memory", "storage") else f"{need.normalize():f}"
                raise PydanticCustomError(
                    "mistake",
                    "{wrong}",
                    {
                        "wrong": f"{given} does not hold all notebooks of a seat and a pipeline run beside them",
                        "mend": f"write {field}: {right} or more",
                        "at": ("quota", field),
                    },
                )
        return self


def _refuse_twice(field: str, values: list[str], key: str) -> None:
    for i, value in enumerate(values):
        first = values.index(value)
        if first != i:
            raise PydanticCustomError(
                "mistake",
                "{wrong}",
                {
                    "wrong": f"{value!r} is given twice, first as number {first + 1} of {field}",
                    "mend": f"give number {i + 1} another {key}" if key else "take one of the two away",
                    "at": (field, i, key) if key else (field, i),
                },
            )


def load(path: Path) -> ClassSpec:
    """Read a class file. A relative path in it is taken from the file's own folder, `~` is the home directory.

    Errors: `ClassFileError`, whatever the file is.
    """
    root = _compose(path)
    problems = list(_twice_named(path, root))
    if problems:
        raise ClassFileError(tuple(problems))
    try:
        data = _Loader("").construct_document(root)
    except yaml.MarkedYAMLError as error:
        raise ClassFileError((_yaml_problem(path, error),)) from None
    except (ValueError, OverflowError, TypeError) as error:
        raise _refusal(path, f"holds a value that cannot be read ({error})", "put such values in quotes") from None
    try:
        spec = ClassSpec.model_validate(data)
    except ValidationError as error:
        mistakes = error.errors(include_url=False)
        # A list whose every member is refused counts as empty too; the members' own mistakes say it better.
        inner = {details["loc"][:1] for details in mistakes if len(details["loc"]) > 1}
        found = [_problem(path, root, d) for d in mistakes if not (d["type"] == "too_short" and d["loc"] in inner)]
        raise ClassFileError(tuple(sorted(found, key=lambda problem: problem.line))) from None
    if isinstance(spec.platform, Platform):
        folder = path.resolve().parent
        places = {
            field: folder / Path(value).expanduser()
            for field in ("kubeconfig", "ca_file", "volume_directory")
            if (value := getattr(spec.platform, field)) is not None
        }
        spec = spec.model_copy(update={"platform": spec.platform.model_copy(update=places)})
    return spec


class _Loader(yaml.SafeLoader):
    """The safe loader, of which `construct_document` is used alone: composing and constructing are two steps here."""


def _refusal(path: Path, wrong: str, mend: str, line: int = 0) -> ClassFileError:
    return ClassFileError((Problem(file=path, line=line, field="", wrong=wrong, mend=mend),))


def _compose(path: Path) -> yaml.MappingNode:
    try:
        with path.open("rb") as file:
            content = file.read(_FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        raise _refusal(
            path, "there is no such file", "name the class file, for example labs/classes/demo.yaml"
        ) from None
    except IsADirectoryError:
        raise _refusal(path, "is a directory", f"name the class file in it, for example {path / 'demo.yaml'}") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise _refusal(path, f"cannot be read ({reason})", "name a readable class file") from None
    if len(content) > _FILE_BYTES_MAX:
        raise _refusal(path, "is larger than 1 MiB", "a class file is a few kilobytes of YAML: name that file")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _refusal(path, "is not UTF-8 text", "save it as UTF-8, or name the class file", line) from None
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
        raise _refusal(path, "is not a list of fields", "write `name: demo` in its first line, and so on", _line(root))
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
    mend = "mend this line; labs/classes/demo.yaml shows every field"
    return Problem(file=path, line=mark.line + 1 if mark else 0, field="", wrong=wrong, mend=mend)


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _problem(path: Path, root: yaml.MappingNode, details: ErrorDetails) -> Problem:
    context = details.get("ctx", {})
    location = [*details["loc"], *context.get("at", ())]
    line, steps = _locate(root, location)
    field = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).lstrip(".")
    wrong, mend = _explain(details, steps)
    return Problem(file=path, line=line, field=field, wrong=wrong, mend=mend)


def _locate(root: yaml.MappingNode, location: list[int | str]) -> tuple[int, list[int | str]]:
    """The line of a field, and its path without the names that pydantic adds for the members of a union."""
    node: yaml.Node = root
    line = _line(root)
    steps: list[int | str] = []
    for i, step in enumerate(location):
        if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
            line = _line(node)
        elif isinstance(node, yaml.MappingNode):
            pair = next(((key, value) for key, value in node.value if key.value == str(step)), None)
            if pair is not None:
                line, node = _line(pair[0]), pair[1]
            elif step in ("kubeflow", "one-machine") and i == 1:
                continue
        steps.append(step)
    return line, steps


def _explain(details: ErrorDetails, steps: list[int | str]) -> tuple[str, str]:
    """What is wrong and what would be right, from pydantic's finding."""
    kind, given = details["type"], details["input"]
    model, examples = _field(steps, platform="kubeflow" if "kubeflow" in details["loc"] else "one-machine")
    name = str(steps[-1]) if steps else ""
    example = f"write for example `{_example(name, examples)}`" if examples else "see labs/classes/demo.yaml"
    match kind:
        case "mistake":
            return details["msg"], str(details.get("ctx", {}).get("mend", example))
        case "missing":
            return "is missing", example
        case "extra_forbidden":
            known = list(model.model_fields) if model else []
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            return "is not a known field", f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"
        case "model_type" | "model_attributes_type" | "dict_type":
            return f"{_given(given)} is not a group of fields", example
        case "tuple_type" | "list_type":
            return f"{_given(given)} is not a list", example
        case "too_short":
            return "is empty", example
        case "string_type":
            return f"{_given(given)} is not a text", f"put it in quotes, or {example.removeprefix('see ')}"
        case _:
            reason = details["msg"].removeprefix("Input ")
            return f"{_given(given)} is refused ({reason[:1].lower()}{reason[1:]})", example


def _example(name: str, examples: list[Any]) -> str:
    value = examples[0]
    text = (
        value
        if isinstance(value, str)
        else yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip()
    )
    return f"{name}: {text}" if name and not name.isdigit() else text


def _field(steps: list[int | str], platform: str) -> tuple[type[BaseModel] | None, list[Any]]:
    """The model that holds the field at `steps`, and the examples that field carries."""
    model: type[BaseModel] | None = ClassSpec
    holder, examples = model, list[Any]()
    for step in steps:
        if isinstance(step, int):
            continue
        holder = model
        known = model.model_fields.get(step) if model else None
        examples = list(known.examples or []) if known else []
        choices = list(_models(known.annotation)) if known else []
        model = next((m for m in choices if m is (Platform if platform == "kubeflow" else OneMachine)), None)
        model = model or (choices[0] if choices else None)
    return holder, examples


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    """The models named anywhere within a field's annotation."""
    if isinstance(annotation, type) and not get_origin(annotation) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Union, types.UnionType, tuple, Annotated):
        for inner in get_args(annotation):
            yield from _models(inner)
