"""The values that a field of a class file may hold, each checked by itself: a wrong one is refused with what would be
right. A Kubernetes quantity as a number.
"""

import difflib
import re
from collections.abc import Iterable
from datetime import datetime
from decimal import ROUND_UP, Decimal
from pathlib import Path
from typing import Annotated, Final
from zoneinfo import ZoneInfo

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, WithJsonSchema
from pydantic_core import PydanticCustomError

from infra import naming

_SUFFIXES: Final[dict[str, Decimal]] = {
    **{suffix: Decimal(10) ** power for suffix, power in (("n", -9), ("u", -6), ("m", -3), ("", 0))},
    **{suffix: Decimal(10) ** (3 * (i + 1)) for i, suffix in enumerate(("k", "M", "G", "T", "P", "E"))},
    **{suffix: Decimal(2) ** (10 * (i + 1)) for i, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"))},
}
# Source: the grammar of Quantity in k8s.io/apimachinery pkg/api/resource/quantity.go. Nobody needs more digits.
_QUANTITY: Final = re.compile(
    r"(?P<number>[+-]?([0-9]{1,64}(\.[0-9]{0,64})?|\.[0-9]{1,64}))([eE](?P<exponent>[+-]?[0-9]{1,3})|(?P<suffix>[A-Za-z]*))"
)
_MOST: Final = Decimal(2**63 - 1)
_FINEST: Final = Decimal("1e-9")
# A class file says it plainly.
_PLAIN_QUANTITY: Final = re.compile(r"[0-9]{1,20}(\.[0-9]{1,20})?[A-Za-z]*")

_HOST_NAME: Final = re.compile(r"([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
REGION: Final = r"^[a-z0-9-]+$"
STORE_ADDRESS: Final = r"^https?://[^/\s]+/?$"
_MOMENT: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}(:[0-9]{2})?(Z|[+-][0-9]{2}:[0-9]{2})?")
_NAMES_SHOWN: Final = 12

RESERVED_VARIABLES: Final = frozenset({"CLASS_BUCKET", "CLASS_IMAGE", "HOME", "KUBEFLOW_CA_FILE", "NB_PREFIX", "PATH"})
"""Environment variables of a notebook that the program, the notebook controller or the image sets."""


def amount(quantity: str) -> Decimal:
    """A Kubernetes quantity as a number: cores for cpu, bytes for memory. `ValueError` when it is none.

    As Kubernetes has it, nothing is more than 2^63-1, and what is finer than a billionth is rounded away from zero.
    """
    match = _QUANTITY.fullmatch(quantity)
    if match is None or (match["suffix"] or "") not in _SUFFIXES:
        raise ValueError(f"{quantity!r} is not a Kubernetes quantity")
    size = Decimal(match["number"]).scaleb(int(match["exponent"] or 0)) * _SUFFIXES[match["suffix"] or ""]
    if abs(size) > _MOST:
        return _MOST.copy_sign(size)
    return size if size == size.to_integral_value() else size.quantize(_FINEST, ROUND_UP)


def gibibytes(size: Decimal) -> str:
    """A number of bytes as the next whole quantity in Gi."""
    return f"{-int(-size // 2**30)}Gi"


def mistake(wrong: str, mend: str, at: tuple[str | int, ...] = ()) -> PydanticCustomError:
    """What a validator raises; `at` leads from where it stands to the field that is to blame."""
    # Braces would be read as the template's own fields.
    return PydanticCustomError("mistake", "{wrong}", {"wrong": wrong, "mend": mend, "at": at})


def nearest(name: str, known: Iterable[str]) -> str:
    """What somebody may have meant who wrote a name that is not known."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    more = ", …" if len(names) > _NAMES_SHOWN else ""
    return f"did you mean {near[0]}?" if near else f"there are: {', '.join(names[:_NAMES_SHOWN])}{more}"


def in_one_line(value: object) -> str:
    """A value as YAML in one line."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def written(field: str, value: object) -> str:
    """A field and its value as a class file has them, in one line; without a name the value alone."""
    return f"{field}: {in_one_line(value)}" if field else in_one_line(value)


def _quantity(value: object, least: Decimal, most: Decimal, unit: str, example: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise mistake(f"is not a quantity of {unit}", f"write for example {example}")
    text = str(value)
    try:
        number = amount(text if _PLAIN_QUANTITY.fullmatch(text) else "")
    except ValueError:
        unprefixed = re.fullmatch(r"([0-9.]+) *([kmgtKMGT])[iI]?[bB]?", text)
        example = (
            f"{unprefixed[1]}{unprefixed[2].upper().replace('K', 'k')}i" if unprefixed and unit == "bytes" else example
        )
        raise mistake(f"{quoted(text)} is not a Kubernetes quantity", f"write for example {example}") from None
    if not least <= number <= most:
        bound = "less" if number < least else "more"
        raise mistake(f"{quoted(text)} is {bound} {unit} than any class can use", f"write for example {example}")
    return text


def _cpu(value: object) -> str:
    return _quantity(value, Decimal("0.001"), Decimal(4096), "cpu cores", "500m or 2")


def _memory(value: object) -> str:
    return _quantity(value, Decimal(2**20), Decimal(2**60), "bytes", "8Gi")


def _dns_label(value: object, longest: int) -> str:
    if not isinstance(value, str):
        raise mistake(f"{quoted(str(value))} is not a text", f'put it in quotes: "{quoted(str(value)).strip(chr(39))}"')
    if len(value) > longest:
        raise mistake(f"{quoted(value)} has {len(value)} characters", f"use at most {longest}")
    if not naming.LABEL.fullmatch(value):
        fitting = re.sub(r"[^a-z0-9]+", "-", value.lower()).strip("-") or "demo"
        raise mistake(
            f"{quoted(value)} is refused by Kubernetes, which takes lower-case letters, digits and inner dashes",
            f"write for example {fitting}",
        )
    return value


def _email(value: object) -> str:
    # Narrower than RFC 5322: the address also stands in the gateway's rule, a list divided by commas.
    if not isinstance(value, str) or not re.fullmatch(
        r"[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}@([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]{2,63}", value
    ):
        raise mistake(f"{quoted(str(value))} is not an e-mail address", "write for example alice@example.org")
    # The login compares addresses in lower case, so they are kept so.
    return value.lower()


def _folder(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*", value):
        raise mistake(f"{quoted(str(value))} is not a folder in a bucket", "write for example artifacts")
    return value


def _host_name(value: object) -> str:
    if not isinstance(value, str) or not _HOST_NAME.fullmatch(value.lower()) or len(value) > 253:
        raise mistake(f"{quoted(str(value))} is not a host name", "write for example class.example.org")
    return value.lower()


def _file(value: object, info: ValidationInfo) -> Path:
    return (info.context or {}).get("folder", Path()) / path_of(value)


def path_of(value: object) -> Path:
    """The path that a field names, `~` followed. Errors: a mistake."""
    if isinstance(value, Path):
        return value
    if not isinstance(value, str) or not value or "\0" in value or len(value) > 4096:
        raise mistake(f"{quoted(str(value))} is not the path of a file", "write for example class/students.csv")
    try:
        value.encode()
        return Path(value).expanduser()
    except UnicodeEncodeError:
        raise mistake(f"{quoted(value)} is not the path of a file", "write it in UTF-8") from None
    except RuntimeError:
        raise mistake(f"{quoted(value)} begins with a user that there is not", "write the whole path") from None


def _moment(value: object) -> datetime:
    # YAML makes a datetime of what looks like one, and pydantic would take any number for seconds since 1970.
    moment = value if isinstance(value, datetime) else None
    if isinstance(value, str) and _MOMENT.fullmatch(value):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            moment = None
    if moment is None:
        raise mistake(f"{quoted(str(value))} is not a date and a time", "write for example 2026-12-01 09:00")
    if not 2000 <= moment.year < 2100:
        raise mistake(f"{quoted(str(value))} is not in this century", "write for example 2026-12-01 09:00")
    return moment


def _time_zone(value: object) -> str:
    try:
        if isinstance(value, str) and ZoneInfo(value):
            return value
    except (ValueError, OSError, LookupError):
        pass
    raise mistake(f"{quoted(str(value))} is no IANA time zone that this machine knows", "write for example Asia/Seoul")


def _variable(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,99}", value):
        raise mistake(f"{quoted(str(value))} is no name of an environment variable", "write for example MODEL_SIZE")
    if value in RESERVED_VARIABLES:
        raise mistake(f"{value} is set by the program", f"give it another name, for example MY_{value}")
    return value


def quoted(text: str) -> str:
    """A text from a file as a message may show it: in quotes, printable, not too long."""
    printable = text if text.isprintable() else ascii(text)[1:-1]
    return repr(printable if len(printable) <= 60 else printable[:57] + "…")


_QUANTITY_IN_AN_EDITOR: Final = WithJsonSchema(
    {"anyOf": [{"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?[A-Za-z]*$"}, {"type": "number", "minimum": 0}]}
)
Cpu = Annotated[str, BeforeValidator(_cpu), _QUANTITY_IN_AN_EDITOR]
"""CPU cores as a Kubernetes quantity."""
Memory = Annotated[str, BeforeValidator(_memory), _QUANTITY_IN_AN_EDITOR]
"""Bytes as a Kubernetes quantity."""
# A StatefulSet marks its pods with `<name>-<hash of ten>`, which must fit a label's 63 characters.
NotebookName = Annotated[str, BeforeValidator(lambda value: _dns_label(value, 52))]
ShortName = Annotated[str, BeforeValidator(lambda value: _dns_label(value, 40))]
# A lab is a folder below labs/, no package; its name has the form of a Python name all the same.
LabName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=60)]
Folder = Annotated[str, BeforeValidator(_folder)]
"""A folder in a bucket."""
Email = Annotated[str, BeforeValidator(_email)]
HostName = Annotated[str, BeforeValidator(_host_name)]
StoreUrl = Annotated[str, Field(pattern=STORE_ADDRESS), AfterValidator(lambda url: url.removesuffix("/"))]
"""The address of an object store, the same with a slash behind it and without."""
File = Annotated[Path, BeforeValidator(_file)]
"""A path; a relative one is taken from the class file's own folder."""
Moment = Annotated[datetime, BeforeValidator(_moment), WithJsonSchema({"type": "string", "pattern": _MOMENT.pattern})]
"""A date and a time of day, with an offset from UTC or without."""
TimeZone = Annotated[str, BeforeValidator(_time_zone)]
LabelKey = Annotated[
    str,
    Field(pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$", max_length=317),
]
LabelValue = Annotated[str, Field(pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$", max_length=63)]
Variable = Annotated[str, BeforeValidator(_variable)]
"""The name of an environment variable."""
Price = Annotated[Decimal, Field(ge=0, le=1_000_000)]
# Kubernetes refuses what is no DNS subdomain as the name of an object.
ObjectName = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)]
