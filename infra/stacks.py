"""A class as Pulumi stacks of about fifty seats, some changed at once; and one seat changed without touching another.

Promise: a seat stays in the stack that it is in, whoever joins or leaves and however the roster is ordered. Which seat
is in which stack stands in the stacks' own state and nowhere else. A class of up to fifty is one stack, named like the
class, the one that plain `pulumi up` uses too; it also has what the seats share. Further ones are `<class>.2`,
`<class>.3` …, which are names of no class, since those have no dots.

The class file is the truth. `add`, `repair` and `forget` are for the one student they name, and leave for the next `up`
whatever else was changed in the file.
"""

import hashlib
import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, TypeVar

from infra import changes, engine, naming
from infra.access import refuse_unready
from infra.classroom import PROJECT, SEAT_TYPE, SEATS_PER_STACK, Handout, handout, program, refuse_taken
from infra.engine import Planned, Seen, Stack
from infra.failure import CallFailure, Failure
from infra.identity import PASSWORD_TYPE
from infra.spec import ClassSpec, Platform
from infra.steps import Cancelled, Event, Listener

_HOME: Final = 1
"""The number of the stack that is named like the class."""

# What one Pulumi at work takes, with its two providers and its program; it bounds how many run at once.
_STACK_MEBIBYTES: Final = 900
_STACK_CORES: Final = 2
_STACKS_AT_ONCE: Final = 4

_LEAVES_WITHIN_SECONDS: Final = 240

_CLAIM: Final = "$kubernetes:core/v1:PersistentVolumeClaim"
_PROFILE: Final = "$kubernetes:kubeflow.org/v1:Profile"

_Done = TypeVar("_Done")


class NotInTheFile(CallFailure):
    """A student is named, or a seat stands, that the class file does not know; or the other way round."""


class FilesLost(CallFailure):
    """Workspaces would go with all their files: of notebooks, or with profiles, that the class file does not name any
    more."""


class NamespaceStuck(Failure):
    """A seat's namespace is being deleted and does not come to its end."""


class SeatsFailed(Failure):
    """Some seats could not be made whole. `lines`: one for each thing that failed, whose it is, what it is and why;
    `standing`: the handout of the seats that are ready all the same, None when none is."""

    def __init__(self, lines: Iterable[str], standing: Handout | None) -> None:
        self.lines, self.standing = tuple(lines), standing
        others = "the other seats stand; " if standing else ""
        mend = f"{others}mend this, then run the same command again: it goes on from here"
        super().__init__("\n".join([*self.lines, mend]))


@dataclass(frozen=True, kw_only=True)
class Klass:
    """A class, the Kubeflow it is held on, where its stacks' state is kept, and where Pulumi is looked for first."""

    spec: ClassSpec
    platform: Platform
    state: Path
    tools: tuple[Path, ...] = ()

    def stack(self, number: int = _HOME, students: Collection[str] = ()) -> Stack:
        """One of its stacks, with a program for the seats of `students`.

        Without checkpoints: each resource is adopted when it stands already, and `down` finds all without a state.
        """
        seats = tuple(student for student in self.spec.students if student.id in students)
        return Stack(
            project=PROJECT,
            name=self.spec.name if number == _HOME else f"{self.spec.name}.{number}",
            program=program(self.spec, self.platform, seats, shared=number == _HOME),
            state=self.state,
            tools=self.tools,
            checkpoints=False,
            fingerprint=self._fingerprint(students) if students else "",
        )

    def _fingerprint(self, students: Collection[str]) -> str:
        """Of the class and its platform, of every file that they name, and of the program itself."""
        models = (self.spec.model_dump(), self.platform.model_dump())
        files = {path for model in models for path in _paths(model) if path.is_file()}
        files |= {
            path for path in Path(__file__).parent.rglob("*") if path.is_file() and "__pycache__" not in path.parts
        }
        versions = [version(package) for package in ("pulumi", "pulumi-kubernetes")]
        digest = hashlib.sha256(repr((models, sorted(students), versions)).encode())
        for file in sorted(files):
            digest.update(f"\0{file}\0".encode() + file.read_bytes())
        return digest.hexdigest()

    def numbers(self) -> tuple[int, ...]:
        """The numbers of the stacks that there are, the first one always among them.

        Errors: `engine.EngineFailure` when the backend cannot be asked.
        """
        head = f"{self.spec.name}."
        tails = (name.removeprefix(head) for name in engine.names(self.stack()) if name.startswith(head))
        return tuple(sorted({_HOME, *(int(tail) for tail in tails if tail.isdecimal())}))

    def stacks(self) -> tuple[Stack, ...]:
        """The stacks that there are, to be read or destroyed."""
        return tuple(self.stack(number) for number in self.numbers())


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """What the state of one stack knows: the parents of all its resources, by URN, and its seats."""

    parents: Mapping[str, str]
    students: frozenset[str]

    def of(self, student: str, class_name: str) -> tuple[str, ...]:
        """The URNs of one student's seat."""
        return tuple(urn for urn in self.parents if student_of(urn, self.parents, class_name) == student)

    def workspaces(self, class_name: str) -> Iterator[tuple[str, str]]:
        """Each workspace volume: whose it is, and of which notebook."""
        for urn in self._each(_CLAIM):
            student = student_of(urn, self.parents, class_name)
            name = urn.split("::")[-1].removeprefix(f"{class_name}-{student}-")
            yield student, name.removesuffix("-workspace")

    def has_profiles(self) -> bool:
        """Whether any seat's namespace is its profile's."""
        return any(self._each(_PROFILE))

    def _each(self, kind: str) -> Iterator[str]:
        return (urn for urn in self.parents if any(part.endswith(kind) for part in urn.split("::")[2:3]))


def student_of(urn: str, parents: Mapping[str, str], class_name: str) -> str:
    """The student whose seat a resource is a part of, or is; "" for what the seats share."""
    while urn:
        if urn.split("::")[2:3] and urn.split("::")[2].split("$")[-1] == SEAT_TYPE:
            return urn.split("::")[-1].removeprefix(f"{class_name}-")
        urn = parents.get(urn, "")
    return ""


def cut(students: Iterable[str], recorded: Mapping[int, Collection[str]]) -> dict[int, frozenset[str]]:
    """Which stack, by number, has the seats of which students.

    Whom a stack knows stays in it. The others are spread, in the order of their ids, over as many stacks as are needed
    for `SEATS_PER_STACK` in each: always into the one with the fewest.
    """
    known = {student: number for number in sorted(recorded, reverse=True) for student in recorded[number]}
    wanted = sorted(set(students))
    shares: dict[int, set[str]] = {number: set() for number in (_HOME, *recorded)}
    needed = range(_HOME, _HOME + max(-(-len(wanted) // SEATS_PER_STACK), 1))
    for number in needed:
        shares.setdefault(number, set())
    for student in wanted:
        if student in known:
            shares[known[student]].add(student)
    for student in wanted:
        if student not in known:
            shares[min(needed, key=lambda number: (len(shares[number]), number))].add(student)
    return {number: frozenset(shares[number]) for number in sorted(shares)}


def recorded(klass: Klass) -> dict[int, Recorded]:
    """What each of the class's stacks knows, by number.

    Errors: `engine.EngineFailure`; `engine.StackLocked` when another command is changing one of them.
    """

    def look(number: int) -> tuple[int, Recorded]:
        parents = engine.parents(klass.stack(number))
        students = frozenset(student_of(urn, parents, klass.spec.name) for urn in parents)
        return number, Recorded(parents=parents, students=students - {""})

    return dict(_side_by_side(look, klass.numbers()))


def current(klass: Klass) -> Handout | None:
    """What students are told of the seats that stand; None when none does. Errors: `engine.EngineFailure`."""
    return handout(*_side_by_side(engine.outputs, klass.stacks()), students=[each.id for each in klass.spec.students])


def up(
    klass: Klass,
    listener: Listener,
    cancelled: threading.Event | None = None,
    *,
    new_passwords: Collection[str] = (),
    lose_files: bool = False,
) -> Handout | None:
    """Have every seat of the class file stand; the handout. A seat that fails keeps no other one from being made.

    Students in `new_passwords` get another password, which then stays theirs. Workspaces whose notebooks the file does
    not name any more go only with `lose_files`.

    The listener hears of `seats`, how many are ready of how many, and of each thing that failed.

    Errors: `NotInTheFile` when a seat stands whose student the file does not name: it would go with all its work;
    `FilesLost`; `infra.classroom.Taken`; `infra.access.Unready`; `SeatsFailed`, once all that can be made is; those of
    `engine.up`.
    """
    stop = cancelled or threading.Event()
    known = recorded(klass)
    standing = frozenset(student for each in known.values() for student in each.students)
    students = frozenset(student.id for student in klass.spec.students)
    _refuse_to_lose(standing - students)
    _refuse_to_lose_profiles(klass.spec, known)
    if not lose_files:
        _refuse_to_lose_files(klass.spec, known, students)
    refuse_unready(klass.spec, klass.platform)
    refuse_taken(klass.spec, klass.platform, known=standing)
    _await_leaving(klass, known, students, stop)
    shares = cut(students, {number: each.students for number, each in known.items()})
    tally = _Tally(klass.spec, students, listener)

    def make(number: int) -> engine.Outputs:
        if number != _HOME and not shares[number]:
            engine.destroy(klass.stack(number), _unheard, stop)
            return {}
        urns = (
            urn for student in new_passwords if number in known for urn in known[number].of(student, klass.spec.name)
        )
        replace = [urn for urn in urns if urn.split("::")[2].endswith(PASSWORD_TYPE)]
        stack = klass.stack(number, shares[number])
        if not replace and engine.is_settled(stack):
            tally.stand(shares[number])
            return engine.outputs(stack)
        return _made(stack, tally, stop, replace=replace)

    outputs = _all_of(make, tuple(shares), stop)
    return _told(outputs, [student.id for student in klass.spec.students], tally)


def preview(klass: Klass, listener: Listener, cancelled: threading.Event | None = None) -> tuple[str, ...]:
    """What `up` would change, in a teacher's words, a sentence each. Errors as `up`."""
    stop = cancelled or threading.Event()
    known = recorded(klass)
    shares = cut(
        (student.id for student in klass.spec.students), {number: each.students for number, each in known.items()}
    )

    def plan(number: int) -> tuple[Planned, ...]:
        return engine.preview(klass.stack(number, shares[number]), listener, stop)

    steps = [step for plans in _all_of(plan, tuple(shares), stop) for step in plans]
    parents = {step.urn: step.parent for step in steps}
    by_student = [(student_of(step.urn, parents, klass.spec.name), step) for step in steps]
    return changes.sentences(by_student, [student.id for student in klass.spec.students], klass.spec.name)


def add(klass: Klass, student: str, listener: Listener, cancelled: threading.Event | None = None) -> Handout | None:
    """Have the seat of one student of the class file stand, and touch no other; what that student is told.

    Errors as `up`; `NotInTheFile` when the file does not name the student.
    """
    stop = cancelled or threading.Event()
    _expect(klass.spec, student)
    known = recorded(klass)
    _refuse_to_lose_profiles(klass.spec, known)
    _refuse_to_lose_files(klass.spec, known, {student})
    one = klass.spec.model_copy(update={"students": tuple(s for s in klass.spec.students if s.id == student)})
    standing = frozenset(each for found in known.values() for each in found.students)
    refuse_taken(one, klass.platform, known=standing)
    _await_leaving(klass, known, frozenset({student}), stop)
    return _one_seat(klass, student, known, listener, stop)


def repair(
    klass: Klass,
    student: str,
    clear: Callable[[], None],
    listener: Listener,
    cancelled: threading.Event | None = None,
    *,
    lose_files: bool = False,
) -> Handout | None:
    """Rebuild one seat as the class file has it, after `clear` took away what is to be new; no other one is touched.

    What was changed or deleted by hand is found and mended. The login stays; what the student is told. `lose_files` as
    in `up`.

    Errors as `up`; `NotInTheFile` when the file does not name the student, or when the seat does not stand.
    """
    stop = cancelled or threading.Event()
    _expect(klass.spec, student)
    known = recorded(klass)
    number = next((number for number, each in known.items() if student in each.students), None)
    if number is None:
        raise NotInTheFile(f"{student} has no seat yet; run `classroom add` with the class file and {student}")
    _refuse_to_lose_profiles(klass.spec, known)
    if not lose_files:
        _refuse_to_lose_files(klass.spec, known, {student})
    clear()
    if stop.is_set():
        raise Cancelled("stopped; the same command goes on from here")
    # Pulumi trusts its state until it is told to look.
    urns = known[number].of(student, klass.spec.name)
    engine.refresh(klass.stack(number), _unheard, stop, targets=urns)
    return _one_seat(klass, student, known, listener, stop)


def expect_removable(klass: Klass, student: str) -> None:
    """Refuse to remove whom the class file still names: the next `up` would bring the seat again, empty.

    Errors: `NotInTheFile`.
    """
    if any(each.id == student for each in klass.spec.students):
        raise NotInTheFile(
            f"{student} is still in the class file, and `up` would make the seat again; "
            "take the student out of it (or out of its roster) first, then run this again"
        )


def forget(klass: Klass, student: str, listener: Listener, cancelled: threading.Event | None = None) -> None:
    """Destroy what the state knows of one student's seat; nothing to do is fine. Errors as `engine.destroy`."""
    for number, each in recorded(klass).items():
        if urns := each.of(student, klass.spec.name):
            # The last seat of a further stack takes the stack along.
            last = number != _HOME and each.students == {student}
            engine.destroy(klass.stack(number), listener, cancelled, targets=() if last else urns)


def destroy(klass: Klass, listener: Listener, cancelled: threading.Event | None = None) -> None:
    """Destroy everything that the state of any stack knows. Errors as `engine.destroy`."""
    stop = cancelled or threading.Event()
    _all_of(lambda stack: engine.destroy(stack, listener, stop), klass.stacks(), stop)


def _one_seat(
    klass: Klass, student: str, known: Mapping[int, Recorded], listener: Listener, stop: threading.Event
) -> Handout | None:
    """Have one seat stand as the class file has it; whatever else the file may have changed stays as it is."""
    students = frozenset(each.id for each in klass.spec.students)
    standing = {number: each.students & students for number, each in known.items()}
    # Seats that wait to be made are none of this call's business.
    wanted = {student, *(each for found in standing.values() for each in found)}
    number, share = next((n, share) for n, share in cut(wanted, standing).items() if student in share)
    stack = klass.stack(number, share)
    tally = _Tally(klass.spec, frozenset({student}), listener)
    if number not in known or not known[number].students - {student}:
        return _told([_made(stack, tally, stop)], [student], tally)
    # The names of what is to be made come from a look ahead. What the seat hangs from stands already: were it named
    # too, Pulumi would want to delete what the file does not have any more of other seats.
    steps = engine.preview(stack, _unheard, stop)
    parents = {step.urn: step.parent for step in steps}
    urns = [urn for urn in parents if student_of(urn, parents, klass.spec.name) == student]
    return _told([_made(stack, tally, stop, urns)], [student], tally)


def _await_leaving(
    klass: Klass, known: Mapping[int, Recorded], students: frozenset[str], stop: threading.Event
) -> None:
    """Wait for namespaces of these seats that are going, and have the state know of those that went without it.

    A `down` that was cut off leaves the one, a `kubectl delete namespace` the other.

    Errors: `NamespaceStuck`; `infra.cluster.ClusterUnreachable`.
    """
    # The Kubernetes client takes a second to import, which a unit test does not need.
    from infra import cluster

    spec = klass.spec
    names = {naming.namespace(spec.name, student): student for student in students}
    deadline = time.monotonic() + _LEAVES_WITHIN_SECONDS
    with cluster.api(klass.platform.kubeconfig, klass.platform.context) as api:
        while True:
            items = (cluster.get(api, "/api/v1/namespaces", naming.selector(spec.name)) or {}).get("items", [])
            found = {item["metadata"]["name"]: "deletionTimestamp" in item["metadata"] for item in items}
            leaving = sorted(name for name in names if found.get(name))
            if not leaving:
                break
            if time.monotonic() > deadline:
                raise NamespaceStuck(
                    f"namespace {leaving[0]} has been going for {_LEAVES_WITHIN_SECONDS} s and does not go; look what "
                    f"holds it with `kubectl describe namespace {leaving[0]}`, then run this again"
                )
            if stop.wait(1):
                raise Cancelled("stopped while a namespace was going; the same command goes on from here")
    lost = {student for name, student in names.items() if name not in found}
    for number, each in known.items():
        if urns := [urn for student in each.students & lost for urn in each.of(student, spec.name)]:
            engine.refresh(klass.stack(number), _unheard, stop, targets=urns)


def _made(
    stack: Stack,
    tally: "_Tally",
    stop: threading.Event,
    targets: Collection[str] = (),
    replace: Collection[str] = (),
) -> engine.Outputs:
    """What a stack tells once its seats are made, as far as they can be: what failed of them is the tally's."""
    try:
        how: Mapping[str, Any] = {"targets": tuple(targets), "replace": tuple(replace), "watch": tally.hear}
        return engine.up(stack, _unheard, stop, go_on=True, **how)
    except engine.EngineFailure as error:
        # What failed without a resource of its own, such as the program, is no seat's: nothing is known of the others.
        if not any(error.failures):
            raise
        return engine.outputs(stack)


def _told(outputs: Iterable[engine.Outputs], students: Collection[str], tally: "_Tally") -> Handout | None:
    """The handout of these students. Errors: `SeatsFailed` when something failed, with what the others are told."""
    if tally.failed:
        ready = [student for student in students if student in tally.ready]
        raise SeatsFailed(tally.failed, handout(*outputs, students=ready))
    return handout(*outputs, students=students)


class _Tally:
    """Seats ready of seats wanted, over all stacks: their notebooks answer, nothing of them is under way, and nothing
    failed. `failed` has a line for each thing that did."""

    def __init__(self, spec: ClassSpec, students: frozenset[str], listener: Listener) -> None:
        self._class_name = spec.name
        self._servers = len(spec.notebooks)
        self._students, self._listener = students, listener
        self._parents: dict[str, str] = {}
        self._under_way: dict[str, set[str]] = {student: set() for student in students}
        self._served: dict[str, set[str]] = {student: set() for student in students}
        self._broken: set[str] = set()
        self.ready: set[str] = set()
        self.failed: list[str] = []
        self._lock = threading.Lock()

    def stand(self, students: Collection[str]) -> None:
        """Take that the seats of these students stand as they are to be."""
        with self._lock:
            self.ready |= set(students)
            self._tell("nothing changed")

    def hear(self, seen: Seen) -> None:
        """Take what happened to a resource."""
        with self._lock:
            if seen.state != "failed":
                self._parents[seen.urn] = seen.parent
            student = student_of(seen.urn, self._parents, self._class_name)
            called = changes.called(seen.urn, f"{self._class_name}-{student}")
            if seen.state == "failed":
                what = f"{student or 'the class'}: {called}"
                self.failed.append(f"{what}: {seen.why}")
                self._broken.add(student)
                self.ready.discard(student)
                self._listener(Event(step=what, state="failed", detail=seen.why))
            if student not in self._students or student in self.ready:
                return
            under_way = self._under_way[student]
            if seen.state == "begun":
                under_way.add(seen.urn)
                return
            under_way.discard(seen.urn)
            if seen.state == "done" and _is_server(seen.urn):
                self._served[student].add(seen.urn)
            if len(self._served[student]) == self._servers and not under_way and student not in self._broken:
                self.ready.add(student)
                who = f"{student} is ready"
            else:
                who = f"{student}: {called}"
            self._tell(who)

    def _tell(self, detail: str) -> None:
        done, total = len(self.ready), len(self._students)
        self._listener(Event(step="seats", state="progress", detail=detail, done=done, total=total))


def _paths(model: object) -> Iterator[Path]:
    """The paths anywhere in the fields of a model."""
    match model:
        case Path():
            yield model
        case Mapping():
            yield from (path for each in model.values() for path in _paths(each))
        case tuple() | list():
            yield from (path for each in model for path in _paths(each))
        case _:
            pass


def _is_server(urn: str) -> bool:
    return urn.split("::")[2].endswith(":Notebook") and "kubernetes:kubeflow.org" in urn


def _unheard(_event: Event) -> None:
    pass


def _expect(spec: ClassSpec, student: str) -> None:
    if all(each.id != student for each in spec.students):
        raise NotInTheFile(
            f"{student} is not in the class file; write the student there (or into its roster) first, for example "
            f"`- {{id: {student}, email: {student}@example.org}}`, then run this again"
        )


def _refuse_to_lose(gone: Collection[str]) -> None:
    if gone:
        who = ", ".join(sorted(gone))
        raise NotInTheFile(
            f"not in the class file any more, but with a seat that stands: {who}; take each away, with all its work, "
            f"by `classroom remove CLASS.yaml {min(gone)}`, or write the student into the file again"
        )


def _refuse_to_lose_profiles(spec: ClassSpec, known: Mapping[int, Recorded]) -> None:
    """Refuse to take away profiles of seats that stay: each takes its namespace along. Errors: `FilesLost`."""
    if spec.tenancy == "namespace" and any(each.has_profiles() for each in known.values()):
        raise FilesLost(
            "tenancy: the seats stand with profiles, which would take each namespace and all its files along; write "
            "`tenancy: profile` again, or run `scripts/classroom down CLASS.yaml` first"
        )


def _refuse_to_lose_files(spec: ClassSpec, known: Mapping[int, Recorded], students: Collection[str]) -> None:
    """Refuse to change the seats of these students when a workspace of theirs would go. Errors: `FilesLost`."""
    kept = {notebook.name for notebook in spec.notebooks}
    gone: dict[str, list[str]] = {}
    for each in known.values():
        for student, notebook in each.workspaces(spec.name):
            if student in students and notebook not in kept:
                gone.setdefault(notebook, []).append(student)
    if gone:
        roster = [student.id for student in spec.students]
        whose = ", ".join(f"{notebook} ({changes.who(gone[notebook], roster)})" for notebook in sorted(gone))
        raise FilesLost(
            f"not in the class file any more, but with a workspace whose files would be lost: {whose}; write the "
            "notebook into the file again, or lose the files by `scripts/classroom up CLASS.yaml --lose-files`"
        )


def at_once(cores: int, available_mebibytes: int) -> int:
    """How many stacks are changed at once on a machine with so many cores and so much memory to be had."""
    return max(1, min(cores // _STACK_CORES, available_mebibytes // _STACK_MEBIBYTES, _STACKS_AT_ONCE))


def _available_mebibytes() -> int:
    """What Linux holds to be available (MemAvailable of /proc/meminfo); plenty where nobody says."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 1 << 20
    return next((int(line.split()[1]) // 1024 for line in lines if line.startswith("MemAvailable:")), 1 << 20)


def _side_by_side(act: Callable[[Any], _Done], things: Collection[Any]) -> list[_Done]:
    if len(things) == 1:
        return [act(each) for each in things]
    with ThreadPoolExecutor(min(len(things), 4)) as pool:
        return list(pool.map(act, things))


def _all_of(act: Callable[[Any], _Done], things: Collection[Any], stop: threading.Event) -> list[_Done]:
    """Do it to all, some at once; what failed is told together once all are through. Ctrl-C stops those that run."""
    if len(things) == 1:
        return [act(each) for each in things]
    with ThreadPoolExecutor(at_once(os.cpu_count() or 1, _available_mebibytes())) as pool:

        def unless_stopped(thing: Any) -> _Done:
            if stop.is_set():
                raise Cancelled("stopped; the same command goes on from here")
            return act(thing)

        futures = [pool.submit(unless_stopped, each) for each in things]
        try:
            errors = [error for future in futures if (error := future.exception())]
        except KeyboardInterrupt:
            stop.set()
            raise
    if errors:
        raise next((error for error in errors if not isinstance(error, Cancelled)), errors[0])
    return [future.result() for future in futures]
