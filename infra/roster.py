"""A CSV file with a line for each student. A class's roster has the columns id, email and, optionally, name; the order
is any.

What a cell may hold is the business of whoever asks for it; here a file becomes rows that know their lines.
"""

import csv
import difflib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_COLUMNS: Final = ("id", "email", "name")
_OPTIONAL: Final = frozenset({"name"})


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


def rows(text: str, columns: tuple[str, ...] = _COLUMNS, optional: frozenset[str] = _OPTIONAL) -> tuple[Row, ...]:
    """The students of a roster, or of a file with other `columns`, in its order; empty lines are passed over.

    Errors: `RosterMistake`, in which there is nothing of what the cells below the first line hold.
    """
    expected = f"write `{','.join(columns)}` in its first line"
    records = _records(text)
    line, header = next(records, (1, []))
    names = [cell.strip().lower() for cell in header]
    if not any(names):
        raise RosterMistake(1, "", "is empty", expected)
    if not set(names) & set(columns):
        # Which may be the first student's, with whatever is nobody else's business.
        mend = expected if len(names) > 1 else f"{expected}; commas divide the columns"
        raise RosterMistake(line, "", "names none of the columns", mend)
    for name in names:
        if name not in columns:
            near = difflib.get_close_matches(name, columns, n=1, cutoff=0.5)
            mend = f"did you mean {near[0]}?" if near else expected
            raise RosterMistake(line, "", f"{name[:60]!a} is not a known column", mend)
        if names.count(name) > 1:
            raise RosterMistake(line, name, "is given twice", "take one of the two columns away")
    for name in columns:
        if name not in names and name not in optional:
            raise RosterMistake(line, name, "is a column that is missing", expected)
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
