"""A change is told in a teacher's words, and a seat changes without another one noticing."""

import random
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pulumi.runtime.mocks import MockMonitor
from pulumi.runtime.proto import resource_pb2

from infra import changes, cluster, engine, stacks
from infra.classroom import SEATS_PER_STACK, ManyStacks, handout, program
from infra.engine import Planned, Seen
from infra.identity import PASSWORD_TYPE
from infra.notebook import PORT
from infra.spec import AccessSpec, BucketSpec, ClassSpec, ObjectStore, Platform, Student, Tls
from infra.steps import Event
from tests.unit import conftest

_ROOM = "classroom:index:Classroom"
_HEAD = "urn:pulumi:demo::classroom::"
_NOTEBOOK = "kubernetes:kubeflow.org/v1:Notebook"
_CLAIM = "kubernetes:core/v1:PersistentVolumeClaim"
_ROSTER = ("alice", "bob", "carol")
_PULUMI_MODULE = re.compile(r"\bk8s\.([a-z]+(?:\.v[0-9a-z]+)?)\.[A-Z]")


def seat_urn(student: str) -> str:
    return f"{_HEAD}{_ROOM}$classroom:index:Seat::demo-{student}"


def seat(student: str, op: str = "same") -> Planned:
    return Planned(
        op=op,
        urn=seat_urn(student),
        type="classroom:index:Seat",
        parent=f"{_HEAD}{_ROOM}::demo",
        old={},
        new={},
    )


def part(
    student: str, kind: str, op: str, old: Mapping[str, Any] | None = None, new: Mapping[str, Any] | None = None
) -> Planned:
    urn = f"{_HEAD}{_ROOM}$classroom:index:Seat${kind}::demo-{student}-{kind.split(':')[-1].lower()}"
    return Planned(op=op, urn=urn, type=kind, parent=seat_urn(student), old=old or {}, new=new or {})


def notebook(name: str = "cpu-notebook", **resources: str) -> dict[str, Any]:
    container = {
        "name": name,
        "image": "localhost/notebook:1",
        "ports": [{"containerPort": PORT}],
        "resources": {"requests": {"cpu": "2", "memory": "8Gi", **resources}},
    }
    return {"metadata": {"name": name}, "spec": {"template": {"spec": {"containers": [container]}}}}


def told(*steps: tuple[str, Planned], roster: tuple[str, ...] = _ROSTER) -> tuple[str, ...]:
    return changes.sentences(steps, roster, "demo")


def test_nothing_is_said_when_nothing_changes() -> None:
    assert told(("alice", seat("alice")), ("alice", part("alice", _NOTEBOOK, "same", notebook(), notebook()))) == ()


def test_who_joins_is_told_with_the_notebooks_of_the_seat_and_who_leaves_with_what_is_lost() -> None:
    joins = ("bob", seat("bob", "create")), ("bob", part("bob", _NOTEBOOK, "create", {}, notebook()))
    leaves = ("dora", seat("dora", "delete")), ("dora", part("dora", _NOTEBOOK, "delete", notebook()))
    assert told(*joins, *leaves) == (
        "dora: seat goes with all its work: notebooks, workspace files, bucket and login; "
        "`up` refuses that, `classroom remove` does it",
        "bob: new seat with cpu-notebook",
    )


def test_a_notebook_that_restarts_is_told_with_what_is_new_and_how_many_others_do_not() -> None:
    steps = [
        ("alice", part("alice", _NOTEBOOK, "update", notebook(), notebook(memory="12Gi"))),
        ("bob", part("bob", _NOTEBOOK, "same", notebook(), notebook())),
    ]
    assert told(*steps) == (
        "alice: cpu-notebook restarts, and what runs in it ends (files stay): memory 12Gi instead of 8Gi",
        "1 of 2 running notebooks restart",
    )


def test_what_is_true_of_everyone_is_said_once() -> None:
    quota = "kubernetes:core/v1:ResourceQuota"
    old, new = ({"spec": {"hard": {"limits.memory": amount, "pods": "30"}}} for amount in ("32Gi", "48Gi"))
    steps = [(student, part(student, quota, "update", old, new)) for student in _ROSTER]
    same = [(student, part(student, _NOTEBOOK, "same", notebook(), notebook())) for student in _ROSTER]
    assert told(*steps, *same) == (
        "everyone (3): quota: memory 48Gi instead of 32Gi; nothing restarts",
        "no running notebook restarts",
    )


def test_of_many_the_first_are_named() -> None:
    roster = tuple(f"s{n}" for n in range(8))
    steps = [(student, seat(student, "create")) for student in roster[:7]]
    assert told(*steps, roster=roster) == ("s0, s1, s2, s3, s4 and 2 more: new seat",)


def claim(size: str) -> dict[str, Any]:
    return {"metadata": {"name": "cpu-notebook-volume"}, "spec": {"resources": {"requests": {"storage": size}}}}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("10Gi", "20Gi", "grows from 10Gi to 20Gi, and its files stay; `up` fails where the StorageClass"),
        ("10Gi", "512Mi", "cannot shrink from 10Gi to 512Mi: `up` fails there, and its files stay"),
        ("1Gi", "1024Mi", "is marked differently; its files stay"),
    ],
)
def test_another_size_of_a_workspace_loses_no_file(old: str, new: str, words: str) -> None:
    (said,) = told(("alice", part("alice", _CLAIM, "update", claim(old), claim(new))))
    assert said.startswith(f"alice: cpu-notebook-volume {words}")


def test_files_that_would_be_lost_are_told_before_anything_else() -> None:
    old, new = claim("10Gi"), claim("20Gi")
    rules = part("alice", "kubernetes:networking.k8s.io/v1:NetworkPolicy", "update")
    said = told(
        ("alice", rules),
        ("alice", part("alice", _CLAIM, "create-replacement", old, new)),
        ("alice", part("alice", _CLAIM, "replace", old, new)),
        ("alice", part("alice", _CLAIM, "delete-replaced", old)),
    )
    assert "THE FILES IN IT ARE LOST" in said[0]
    assert said[0].startswith("alice: cpu-notebook-volume is made anew with 20Gi")
    assert said[1:] == ("alice: network rules change; nothing restarts",)
    (goes,) = told(("bob", part("bob", _CLAIM, "delete", old)))
    assert goes.startswith("bob: THE FILES IN cpu-notebook-volume ARE LOST")
    assert goes.endswith("`up` refuses that without --lose-files")


def test_a_new_address_means_a_new_password() -> None:
    login, password = "kubernetes:dex.coreos.com/v1:Password", "pulumi-python:dynamic/classroom:Password"
    old, new = {"email": "al@example.org"}, {"email": "alice@example.org"}
    said = told(
        ("alice", part("alice", login, "replace", old, new)), ("alice", part("alice", password, "replace", old, new))
    )
    assert said == (
        "alice: gets a new password: hand it out again",
        "alice: logs in as alice@example.org instead of al@example.org",
    )


def test_a_changed_bucket_and_a_kind_that_nobody_foresaw_are_told_too() -> None:
    bucket = part(
        "alice",
        "pulumi-python:dynamic/classroom:Bucket",
        "update",
        {},
        {"settings": {"versioning": True, "region": ""}},
    )
    assert told(("alice", bucket)) == ("alice: bucket: versioning on instead of off; nothing restarts",)
    other = part("alice", "kubernetes:batch/v1:CronJob", "create")
    assert told(("alice", other)) == ("alice: CronJob is made; nothing restarts",)


@pytest.mark.parametrize(
    ("urn", "words"),
    [
        (f"{_HEAD}{_ROOM}$classroom:index:Seat${_NOTEBOOK}::demo-al-cpu-notebook-server", "Notebook cpu-notebook"),
        (f"{_HEAD}{_ROOM}$classroom:index:Seat$kubernetes:core/v1:Namespace::demo-al-namespace", "Namespace"),
        (f"{_HEAD}{_ROOM}$classroom:index:Seat$pulumi-python:dynamic/classroom:Bucket::demo-al-bucket", "Bucket"),
    ],
)
def test_a_resource_is_called_by_its_kind_and_what_is_its_own(urn: str, words: str) -> None:
    assert changes.called(urn, "demo-al") == words


_ids = st.sets(st.from_regex(r"[a-z]{1,4}", fullmatch=True), min_size=1, max_size=180)


@given(students=_ids, seed=st.integers())
def test_the_order_of_the_roster_never_matters(students: set[str], seed: int) -> None:
    shuffled = sorted(students)
    random.Random(seed).shuffle(shuffled)  # noqa: S311  # an order, no secret
    assert stacks.cut(shuffled, {}) == stacks.cut(sorted(students), {})


@given(first=_ids, second=_ids)
def test_nobody_ever_moves_to_another_stack(first: set[str], second: set[str]) -> None:
    before = stacks.cut(first, {})
    after = stacks.cut(second, before)
    place = {student: number for number, share in before.items() for student in share}
    assert all(place.get(student, number) == number for number, share in after.items() for student in share)
    assert sorted(student for share in after.values() for student in share) == sorted(second)


@given(students=_ids)
def test_stacks_hold_fifty_at_most_evenly_and_a_class_of_fifty_is_one(students: set[str]) -> None:
    sizes = [len(share) for share in stacks.cut(students, {}).values()]
    assert len(sizes) == -(-len(students) // SEATS_PER_STACK)
    assert max(sizes) <= SEATS_PER_STACK
    assert max(sizes) - min(sizes) <= 1


def test_the_fifty_first_student_comes_into_a_second_stack_and_fills_it_alone() -> None:
    fifty = {f"s{n:02}" for n in range(50)}
    assert stacks.cut(fifty, {}) == {1: fifty}
    assert stacks.cut({*fifty, "late"}, {1: fifty}) == {1: fifty, 2: {"late"}}
    # Who has left makes room.
    assert stacks.cut({*fifty, "late"} - {"s07"}, {1: fifty}) == {1: {*fifty, "late"} - {"s07"}}


@pytest.mark.parametrize(
    ("cores", "mebibytes", "stacks_at_once"),
    [(2, 16_000, 1), (1, 16_000, 1), (16, 64_000, 4), (8, 2_000, 2), (4, 300, 1)],
)
def test_memory_and_cores_bound_how_many_stacks_run_at_once(cores: int, mebibytes: int, stacks_at_once: int) -> None:
    assert stacks.at_once(cores, mebibytes) == stacks_at_once


def test_a_seat_is_found_through_whatever_lies_between_and_not_by_the_beginning_of_a_name() -> None:
    inner = f"{seat_urn('al-2')}-cpu-notebook"
    parents = {
        f"{inner}-server": inner,
        inner: seat_urn("al-2"),
        seat_urn("al-2"): f"{_HEAD}{_ROOM}::demo",
        f"{_HEAD}{_ROOM}::demo": "",
    }
    recorded = stacks.Recorded(parents=parents, students=frozenset({"al-2"}))
    # Their types lead there, not their names: nested components carry the seat's type as a head of their own.
    assert stacks.student_of(seat_urn("al-2"), parents, "demo") == "al-2"
    assert stacks.student_of(f"{_HEAD}{_ROOM}::demo", parents, "demo") == ""
    assert recorded.of("al", "demo") == ()


def _seen(student: str, kind: str, name: str, state: Any, why: str = "") -> Seen:
    chain = f"{_ROOM}$classroom:index:Seat"
    urn = seat_urn(student) if kind == "Seat" else f"{_HEAD}{chain}${kind}::demo-{student}-{name}"
    return Seen(urn=urn, parent=f"{_HEAD}{_ROOM}::demo" if kind == "Seat" else seat_urn(student), state=state, why=why)


def test_a_seat_counts_as_ready_once_its_notebooks_answer_and_nothing_of_it_is_under_way(demo: ClassSpec) -> None:
    heard: list[Event] = []
    tally = stacks._Tally(demo, frozenset({"alice"}), heard.append)
    for state in ("begun", "done"):
        tally.hear(_seen("alice", "Seat", "", state))
    tally.hear(_seen("alice", "kubernetes:core/v1:Secret", "key", "begun"))
    for name in ("cpu-notebook-server", "gpu-notebook-server"):
        tally.hear(_seen("alice", _NOTEBOOK, name, "begun"))
        tally.hear(_seen("alice", _NOTEBOOK, name, "done"))
    assert (heard[-1].step, heard[-1].done, heard[-1].total) == ("seats", 0, 1)
    tally.hear(_seen("alice", "kubernetes:core/v1:Secret", "key", "done"))
    assert (heard[-1].done, heard[-1].total, heard[-1].detail) == (1, 1, "alice is ready")


def test_what_failed_has_a_line_with_whose_it_is_and_why(demo: ClassSpec) -> None:
    heard: list[Event] = []
    tally = stacks._Tally(demo, frozenset({"alice"}), heard.append)
    for state in ("begun", "done"):
        tally.hear(_seen("alice", "Seat", "", state))
    tally.hear(_seen("alice", _NOTEBOOK, "cpu-notebook-server", "begun"))
    failed = _seen("alice", _NOTEBOOK, "cpu-notebook-server", "failed", "not ready within 600 s")
    tally.hear(failed)
    assert [(event.step, event.detail) for event in heard if event.state == "failed"] == [
        ("alice: Notebook cpu-notebook", "not ready within 600 s")
    ]
    assert tally.failed == ["alice: Notebook cpu-notebook: not ready within 600 s"]


def test_a_seat_of_which_something_failed_is_not_ready_though_its_notebooks_answer(demo: ClassSpec) -> None:
    tally = stacks._Tally(demo, frozenset({"alice", "bob"}), lambda _event: None)
    for student in ("alice", "bob"):
        for state in ("begun", "done"):
            tally.hear(_seen(student, "Seat", "", state))
            tally.hear(_seen(student, _NOTEBOOK, "cpu-notebook-server", state))
            tally.hear(_seen(student, _NOTEBOOK, "gpu-notebook-server", state))
    assert tally.ready == {"alice", "bob"}
    # What comes later than the notebooks may fail as well.
    tally.hear(_seen("bob", "kubernetes:core/v1:Secret", "key", "begun"))
    tally.hear(_seen("bob", "kubernetes:core/v1:Secret", "key", "failed", "refused"))
    tally.hear(_seen("bob", _NOTEBOOK, "cpu-notebook-server", "done"))
    assert tally.ready == {"alice"}


class _Told:
    """A stack's output."""

    def __init__(self, value: Any) -> None:
        self.value = value


def _outputs(*students: str, failed: tuple[str, ...] = ()) -> dict[str, Any]:
    """What a stack with these seats tells; those that `failed` have a password and could not tell the rest."""
    details = {"name": "", "email": "x@example.org", "namespace": "n", "notebooks": {}, "bucket": "b"}
    return {
        "gateway": _Told("https://198.18.0.100/"),
        "seats": _Told({**dict.fromkeys(students, details), **dict.fromkeys(failed)}),
        "passwords": _Told(dict.fromkeys((*students, *failed), "p")),
    }


def test_an_up_of_which_a_seat_fails_ends_with_what_failed_and_the_handout_of_the_others(
    demo: ClassSpec, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    why = {seat_urn("bob"): "exceeded quota", "": "resource demo-bob failed to register"}

    def up(*_: Any, watch: Callable[[Seen], None], **__: Any) -> Any:
        for state in ("begun", "done"):
            watch(_seen("alice", "Seat", "", state))
            watch(_seen("alice", _NOTEBOOK, "cpu-notebook-server", state))
            watch(_seen("alice", _NOTEBOOK, "gpu-notebook-server", state))
        watch(_seen("bob", "Seat", "", "begun"))
        watch(_seen("bob", _NOTEBOOK, "cpu-notebook-server", "begun"))
        watch(_seen("bob", _NOTEBOOK, "cpu-notebook-server", "failed", "exceeded quota"))
        raise engine.EngineFailure("up of classroom/demo failed", why)

    monkeypatch.setattr(engine, "up", up)
    monkeypatch.setattr(engine, "outputs", lambda _stack: _outputs("alice", "bob"))
    monkeypatch.setattr(stacks, "refuse_taken", lambda *_, **__: None)
    monkeypatch.setattr(cluster, "api", lambda *_: nullcontext())
    monkeypatch.setattr(cluster, "get", lambda *_: None)
    klass = stacks.Klass(spec=demo, platform=platform, state=platform.kubeconfig.parent)

    with pytest.raises(stacks.SeatsFailed) as failed:
        stacks.up(klass, lambda _event: None)

    assert failed.value.lines == ("bob: Notebook cpu-notebook: exceeded quota",)
    assert failed.value.standing is not None
    assert [seat.id for seat in failed.value.standing.seats] == ["alice"]
    assert str(failed.value).endswith(
        "the other seats stand; mend this, then run the same command again: it goes on from here"
    )
    # What is no seat's is told as it is: nothing is known of any seat.
    del why[seat_urn("bob")]
    with pytest.raises(engine.EngineFailure):
        stacks.up(klass, lambda _event: None)


def test_an_up_of_what_is_settled_runs_no_program_and_hands_out_the_same(
    demo: ClassSpec, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "is_settled", lambda stack: stack.fingerprint == settled)
    monkeypatch.setattr(engine, "outputs", lambda _stack: _outputs("alice", "bob"))
    monkeypatch.setattr(engine, "up", lambda *_, **__: pytest.fail("it ran"))
    monkeypatch.setattr(stacks, "refuse_taken", lambda *_, **__: None)
    monkeypatch.setattr(cluster, "api", lambda *_: nullcontext())
    monkeypatch.setattr(cluster, "get", lambda *_: None)
    klass = stacks.Klass(spec=demo, platform=platform, state=platform.kubeconfig.parent)
    settled, heard = klass.stack(1, {"alice", "bob"}).fingerprint, []

    handout = stacks.up(klass, heard.append)

    assert handout is not None
    assert [seat.id for seat in handout.seats] == ["alice", "bob"]
    assert [(each.done, each.total) for each in heard] == [(2, 2)]
    # Nothing is settled for whom another password is asked.
    password = f"{seat_urn('alice').rpartition('::')[0]}${PASSWORD_TYPE}::demo-alice-password"
    known = stacks.Recorded(parents={password: seat_urn("alice"), seat_urn("alice"): ""}, students=frozenset({"alice"}))
    monkeypatch.setattr(stacks, "recorded", lambda _klass: {1: known})
    monkeypatch.setattr(stacks, "_await_leaving", lambda *_: None)
    with pytest.raises(pytest.fail.Exception, match="it ran"):
        stacks.up(klass, heard.append, new_passwords={"alice"})


def test_the_fingerprint_changes_with_whatever_seats_are_made_of(
    demo: ClassSpec, platform: Platform, tmp_path: Path
) -> None:
    def fingerprint(spec: ClassSpec = demo, platform: Platform = platform, *students: str) -> str:
        klass = stacks.Klass(spec=spec, platform=platform, state=tmp_path)
        return klass.stack(1, students or ("alice", "bob")).fingerprint

    keys = tmp_path / "keys.csv"
    keys.write_text("id,bucket,access_key,secret_key\n")
    given = platform.model_copy(
        update={"object_store": ObjectStore(kind="given", endpoint="https://s3.example.org", keys_file=keys)}
    )
    before = fingerprint(), fingerprint(demo, given)
    assert before == (fingerprint(), fingerprint(demo, given))
    keys.write_text("id,bucket,access_key,secret_key\nalice,a,b,c\n")
    others = {
        fingerprint(demo, given),
        fingerprint(demo, platform, "alice"),
        fingerprint(demo.model_copy(update={"bucket": BucketSpec(versioning=True)})),
        fingerprint(demo, platform.model_copy(update={"url": "https://other.example.org"})),
    }
    assert len({*before, *others}) == 6


def test_all_of_pulumi_that_seats_are_made_of_is_loaded_before_two_programs_run_at_once() -> None:
    infra = Path(stacks.__file__).parent
    sources = [*infra.glob("*.py"), *(infra / "access").glob("*.py")]
    used = {name for file in sources for name in _PULUMI_MODULE.findall(file.read_text())}
    # In a Python where nothing else has used them.
    look = "import sys, infra.stacks; print(*(n for n, m in sys.modules.items() if type(m).__name__ == '_LazyModule'))"
    lazy = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True).stdout.split()
    assert {f"pulumi_kubernetes.{name}" for name in used} & set(lazy) == set()
    assert "core.v1" in used
    assert "pulumi_kubernetes.storage" in lazy


def test_a_seat_that_fails_keeps_the_program_from_telling_nothing_but_its_own(
    demo: ClassSpec, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    register = MockMonitor.RegisterResource

    def failing(monitor: MockMonitor, request: Any) -> Any:
        answer = register(monitor, request)
        if request.type.endswith(":Bucket") and request.custom and "bob" in request.name:
            answer.result = resource_pb2.Result.FAIL
        return answer

    monkeypatch.setattr(MockMonitor, "RegisterResource", failing)
    told = conftest.stamp(demo, platform)

    assert told.outputs["passwords"] == {"alice": "made-password", "bob": "made-password"}
    assert told.outputs["seats"]["alice"]["bucket"] == "made-bucket"
    assert told.outputs["seats"]["bob"] is None
    assert "passwords" in told.secret_outputs


def test_a_further_stack_has_its_own_seats_and_nothing_that_is_shared(
    demo: ClassSpec, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = AccessSpec(host="class.example.org", tls=Tls(kind="secret", secret="gateway-tls"))
    spec = demo.model_copy(update={"access": access})
    klass = stacks.Klass(spec=spec, platform=platform, state=platform.kubeconfig.parent)
    made: dict[int, set[str]] = {}
    for number in (1, 3):
        monkeypatch.setattr(conftest, "program", lambda *_, n=number: klass.stack(n, {"alice"}).program)
        stamped = conftest.stamp(spec, platform)
        made[number] = {each.name for each in stamped.resources}
        assert [each.metadata["name"] for each in stamped.of("Namespace")] == ["demo-alice"]
    assert (klass.stack(1).name, klass.stack(3).name) == ("demo", "demo.3")
    assert made[1] - made[3] == {"demo-host"}
    assert klass.numbers() == (1,)


def test_a_class_of_several_stacks_is_refused_by_the_program_of_plain_pulumi(
    demo: ClassSpec, platform: Platform
) -> None:
    many = tuple(Student(id=f"s{n}", email=f"s{n}@example.org") for n in range(51))
    with pytest.raises(ManyStacks, match="51 seats, in stacks of 50"):
        program(demo.model_copy(update={"students": many}), platform)()


def test_a_seat_that_the_file_does_not_name_any_more_is_not_destroyed_in_passing() -> None:
    with pytest.raises(stacks.NotInTheFile, match=r"carol, dora.*remove CLASS.yaml carol"):
        stacks._refuse_to_lose({"dora", "carol"})


@pytest.fixture
def one_notebook_less(
    demo: ClassSpec, platform: Platform, stamped: conftest.Stamped, monkeypatch: pytest.MonkeyPatch
) -> stacks.Klass:
    """The demo class as its file names its first notebook alone, where each student's second one stands as well; what
    would be changed of it fails the test."""
    parents = {seat_urn(student.id): "" for student in demo.students}
    for each in stamped.of("PersistentVolumeClaim"):
        student = each.inputs["metadata"]["namespace"].removeprefix("demo-")
        inner = f"{seat_urn(student).rpartition('::')[0]}$classroom:index:Notebook"
        parents[f"{inner}::{each.name.removesuffix('-workspace')}"] = seat_urn(student)
        parents[f"{inner}${each.type}::{each.name}"] = f"{inner}::{each.name.removesuffix('-workspace')}"
    students = frozenset(student.id for student in demo.students)
    monkeypatch.setattr(stacks, "recorded", lambda _klass: {1: stacks.Recorded(parents=parents, students=students)})
    for name in ("refuse_taken", "refuse_unready", "_await_leaving"):
        monkeypatch.setattr(stacks, name, lambda *_, **__: None)
    for name in ("up", "refresh", "preview"):
        monkeypatch.setattr(engine, name, lambda *_, **__: pytest.fail("something was changed"))
    monkeypatch.setattr(engine, "is_settled", lambda _stack: False)
    spec = demo.model_copy(update={"notebooks": demo.notebooks[:1]})
    return stacks.Klass(spec=spec, platform=platform, state=platform.kubeconfig.parent)


def test_workspaces_of_a_notebook_that_the_file_names_no_more_are_not_destroyed_in_passing(
    one_notebook_less: stacks.Klass, demo: ClassSpec
) -> None:
    with pytest.raises(stacks.FilesLost, match=r"gpu-notebook \(everyone \(2\)\); write .* up CLASS.yaml --lose-files"):
        stacks.up(one_notebook_less, lambda _event: None)
    with pytest.raises(stacks.FilesLost, match=r"gpu-notebook \(alice\)"):
        stacks.add(one_notebook_less, "alice", lambda _event: None)
    with pytest.raises(stacks.FilesLost, match=r"gpu-notebook \(alice\)"):
        stacks.repair(one_notebook_less, "alice", lambda: pytest.fail("it was cleared"), lambda _event: None)
    # Who asks for it gets it, and a file that names every notebook loses none.
    whole = stacks.Klass(spec=demo, platform=one_notebook_less.platform, state=one_notebook_less.state)
    for klass, asked in ((one_notebook_less, True), (whole, False)):
        with pytest.raises(pytest.fail.Exception, match="something was changed"):
            stacks.up(klass, lambda _event: None, lose_files=asked)
    cleared: list[str] = []
    with pytest.raises(pytest.fail.Exception, match="something was changed"):
        stacks.repair(one_notebook_less, "alice", lambda: cleared.append("alice"), lambda _event: None, lose_files=True)
    assert cleared == ["alice"]


def test_a_class_with_profiles_does_not_lose_them_with_a_word_in_its_file(
    one_notebook_less: stacks.Klass, demo: ClassSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = f"{seat_urn('alice').rpartition('::')[0]}$kubernetes:kubeflow.org/v1:Profile::demo-alice-profile"
    stands = stacks.Recorded(parents={seat_urn("alice"): "", profile: seat_urn("alice")}, students=frozenset({"alice"}))
    monkeypatch.setattr(stacks, "recorded", lambda _klass: {1: stands})
    for act in (
        lambda klass: stacks.up(klass, lambda _event: None, lose_files=True),
        lambda klass: stacks.add(klass, "bob", lambda _event: None),
        lambda klass: stacks.repair(klass, "alice", lambda: pytest.fail("it was cleared"), lambda _event: None),
    ):
        with pytest.raises(stacks.FilesLost, match=r"tenancy: .* write `tenancy: profile` again"):
            act(one_notebook_less)
    with_profiles = replace(one_notebook_less, spec=demo.model_copy(update={"tenancy": "profile"}))
    with pytest.raises(pytest.fail.Exception, match="something was changed"):
        stacks.up(with_profiles, lambda _event: None)


def test_a_student_is_removed_only_after_the_file_and_added_only_when_in_it(
    demo: ClassSpec, platform: Platform
) -> None:
    klass = stacks.Klass(spec=demo, platform=platform, state=platform.kubeconfig.parent)
    with pytest.raises(stacks.NotInTheFile, match="still in the class file"):
        stacks.expect_removable(klass, demo.students[0].id)
    stacks.expect_removable(klass, "zoe")
    with pytest.raises(stacks.NotInTheFile, match="write the student there"):
        stacks.add(klass, "zoe", lambda _event: None)


def test_the_handout_has_the_seats_of_all_stacks_in_the_order_of_the_file() -> None:
    made = handout(_outputs("a", "gone"), {}, _outputs("b", failed=("half",)), students=["b", "half", "a", "new"])
    assert made is not None
    assert [each.id for each in made.seats] == ["b", "a"]
    assert handout({}, students=["a"]) is None
