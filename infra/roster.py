"""A class's roster as a CSV file: the columns id, email and, optionally, name, in any order.

What a cell may hold is the class file's business (infra/spec.py); here a file becomes rows that know their lines.
"""

import csv
import difflib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_COLUMNS: Final = ("id", "email", "name")
_REQUIRED: Final = ("id", "email")
_HEADER: Final = "write `id,email,name` in its first line"


@dataclass(frozen=True, kw_only=True)
class Row:
    """A student's line, counted from 1. An empty cell is as good as none."""

    line: int
    cells: dict[str, str]


class RosterMistake(Exception):
    """The file is no roster: in which line, under which column, what is wrong and what would be right."""

    def __init__(self, line: int, column: str, wrong: str, mend: str) -> None:
        self.line, self.column, self.wrong, self.mend = line, column, wrong, mend
        super().__init__(f"{line}: {wrong}; {mend}")


def rows(text: str) -> tuple[Row, ...]:
    """The students of a roster, in its order; empty lines are passed over.

    Errors: `RosterMistake`.
    """
    records = _records(text)
    line, header = next(records, (1, []))
    names = [cell.strip().lower() for cell in header]
    if not any(names):
        raise RosterMistake(1, "", "is empty", _HEADER)
    for name in names:
        if name not in _COLUMNS:
            near = difflib.get_close_matches(name, _COLUMNS, n=1, cutoff=0.5)
            mend = f"did you mean {near[0]}?" if near else _HEADER
            if len(names) == 1:
                mend = f"{_HEADER}; commas divide the columns"
            raise RosterMistake(line, "", f"{name[:60]!a} is not a known column", mend)
        if names.count(name) > 1:
            raise RosterMistake(line, name, "is given twice", "take one of the two columns away")
    for name in _REQUIRED:
        if name not in names:
            raise RosterMistake(line, name, "is a column that is missing", _HEADER)
    made = tuple(_row(names, number, record) for number, record in records)
    if not made:
        raise RosterMistake(line, "", "has no students", "write a line for each below its first")
    return made


def _row(names: list[str], line: int, record: list[str]) -> Row:
    if len(record) > len(names):
        wrong = f"has {len(record)} cells, but there are {len(names)} columns"
        raise RosterMistake(line, "", wrong, "put a cell that holds a comma in double quotes")
    return Row(line=line, cells={name: cell.strip() for name, cell in zip(names, record, strict=False) if cell.strip()})


def _records(text: str) -> Iterator[tuple[int, list[str]]]:
    """The records that hold something, with the line that each begins in: a quoted cell may go over several."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    while True:
        begins = reader.line_num + 1
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            mend = "close every double quote, and write a quote inside a cell twice"
            raise RosterMistake(begins, "", f"is not valid CSV ({error})", mend) from None
        if any(cell.strip() for cell in record):
            yield begins, record
