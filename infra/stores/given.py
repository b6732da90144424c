"""Any S3, with buckets and keys that somebody else has made: nothing is made here, and nothing taken away.

Whose bucket and key is whose stands in a file, which only its owner may read.
"""

import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from botocore.exceptions import ClientError

from infra.failure import CallFailure, Failure
from infra.roster import RosterMistake, rows
from infra.stores import Holding, Key, Standing, Store, StoreAddress, s3

_COLUMNS: Final = ("id", "bucket", "access_key", "secret_key")


class KeysFileMistake(CallFailure):
    """The file with the given keys cannot be used as it is."""


class GivenKeyRefused(Failure):
    """A given key does not open its bucket."""


@dataclass(frozen=True, kw_only=True)
class Given:
    """A line of the file: a student's bucket and the key that opens it. `line` counts from 1."""

    line: int
    bucket: str
    key: Key


def holding(file: Path, class_name: str, student: str) -> Holding:
    """What a student was given, by name. The user is not known, and nobody asks for it.

    Errors: `KeysFileMistake`.
    """
    return Holding(class_name=class_name, student=student, bucket=given(file, student).bucket, user="")


def connect(address: StoreAddress) -> Store:
    """The S3 at `address`, which each student's own key is tried at. The file is read when a key is needed."""
    return GivenBuckets(endpoint=address.endpoint, region=address.region, file=Path(address.keys_file))


@dataclass(frozen=True, kw_only=True)
class GivenBuckets:
    """A store that is worked with as each student alone. Whatever needs a key may raise `KeysFileMistake`."""

    endpoint: str
    region: str
    file: Path

    @property
    def leaves(self) -> str:
        return f"buckets and keys were given ({self.file.name}): they are left as found, with what lies in them"

    def s3(self, holding: Holding) -> Any:
        return self.opened_with(given(self.file, holding.student).key)

    def opened_with(self, key: Key) -> Any:
        return s3.client("s3", key, self.region, self.endpoint)

    def standing(self, holding: Holding) -> Standing:
        """Errors: `GivenKeyRefused`; a given bucket either opens or is of no use."""
        mine = given(self.file, holding.student)
        client = self.opened_with(mine.key)
        with s3.told(client):
            try:
                client.list_objects_v2(Bucket=mine.bucket, MaxKeys=1)
            except ClientError as error:
                raise GivenKeyRefused(
                    f"{self.file}:{mine.line}: the key of {holding.student} does not open bucket {mine.bucket} "
                    f"at {self.endpoint} ({s3.code_of(error)}); mend the line, or have the key's rights mended"
                ) from None
        keys = (mine.key.access_key,)
        return Standing(ours=True, bucket=True, tagged=True, opens_only=True, attached=True, access_keys=keys)

    def ensure(self, holding: Holding, key: Key | None = None, region: str = "") -> Key:  # noqa: ARG002  all is given
        self.standing(holding)
        return given(self.file, holding.student).key

    def keeps(self, holding: Holding, key: Key) -> bool:
        return key == given(self.file, holding.student).key

    def switch_keys(self, holding: Holding, *, active: bool) -> None:
        raise NotImplementedError(f"the key of {holding.student} is not ours to switch {'on' if active else 'off'}")

    def remove(self, holding: Holding) -> None:
        """Nothing."""

    def holdings(self, class_name: str, students: Iterable[str] = ()) -> list[Holding]:  # noqa: ARG002  none is ours
        return []


def given(file: Path, student: str) -> Given:
    """What the file says of a student. Errors: `KeysFileMistake`."""
    found = _lines(file)
    if student not in found:
        raise KeysFileMistake(f"{file}: has no line for student {student}; add one: `{student},BUCKET,KEY,SECRET`")
    return found[student]


@lru_cache(maxsize=4)
def _lines(file: Path) -> Mapping[str, Given]:
    """The lines of a file of keys, by student. Errors: `KeysFileMistake`, in which there is no key."""
    found: dict[str, Given] = {}
    try:
        readable = stat.S_IMODE(file.stat().st_mode) & 0o077
        if readable:
            raise KeysFileMistake(f"{file}: others than its owner may read it; run `chmod 600 {file}`")
        students = rows(file.read_text("utf-8-sig"), _COLUMNS, frozenset())
    except OSError as error:
        raise KeysFileMistake(
            f"{file}: cannot be read ({error.strerror}); mend `platform.object_store.keys_file` in the class file"
        ) from None
    except UnicodeDecodeError:
        raise KeysFileMistake(f"{file}: is not UTF-8 text; save it as CSV in UTF-8") from None
    except RosterMistake as error:
        column = f"{error.column}: " if error.column else ""
        raise KeysFileMistake(f"{file}:{error.line}: {column}{error.wrong}; {error.mend}") from None
    for row in students:
        place = f"{file}:{row.line}"
        for column in _COLUMNS:
            if column not in row.cells:
                raise KeysFileMistake(f"{place}: {column}: is empty; write it, or take the line away")
        student, bucket = row.cells["id"], row.cells["bucket"]
        key = Key(access_key=row.cells["access_key"], secret_key=row.cells["secret_key"])
        for other, each in found.items():
            twice = [student == other, bucket == each.bucket, key.access_key == each.key.access_key]
            for column, same in zip(_COLUMNS, twice, strict=False):
                if same:
                    mend = f"give every student a {column} of their own"
                    raise KeysFileMistake(f"{place}: {column}: is that of line {each.line} too; {mend}")
        found[student] = Given(line=row.line, bucket=bucket, key=key)
    return found
