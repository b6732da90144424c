"""A certificate says that all is gone only if everything was looked at, twice, and nothing was found."""

import json
import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from infra import naming, teardown
from infra.cluster import ClusterUnreachable
from infra.spec import ClassSpec, Platform
from infra.steps import Cancelled
from infra.stores import Holding, ObjectStoreUnreachable, Standing
from infra.teardown import Certificate, Created, Ground, Look, Question, _created, _path, prove, questions

_NEVER = threading.Event()


def _told(*_arguments: object) -> None:
    pass


def _waited(_seconds: float) -> None:
    pass


def _question(*answers: tuple[str, ...] | Exception) -> Question:
    """A question that is answered so, one after the other, the last answer for ever."""
    left = list(answers)

    def ask() -> tuple[str, ...]:
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    return Question(subject="Namespace", query="GET /api/v1/namespaces", ask=ask)


def _certificate(*looks: Look) -> Certificate:
    return Certificate(
        class_name="demo",
        platform="https://198.18.0.100/",
        started=datetime(2026, 11, 24, 8, 0, tzinfo=UTC),
        ended=datetime(2026, 11, 24, 8, 1, tzinfo=UTC),
        created=(Created(kind="Namespace", namespace="", name="demo-alice", known_by=("state", "label")),),
        looks=looks,
        seconds_between_rounds=3,
    )


def _look(*rounds: tuple[str, ...], error: str = "") -> Look:
    return Look(subject="Namespace", query="GET /api/v1/namespaces", rounds=rounds, error=error)


def _ground(spec: ClassSpec, platform: Platform, store: Any) -> Ground:
    """A class of which nothing is known beforehand."""
    nobody: Any = None
    return Ground(
        spec=spec, platform=platform, student="", cluster=nobody, store=store, namespaces=frozenset(), holdings=()
    )


@pytest.mark.parametrize(
    ("looks", "verdict", "exit_code"),
    [
        ((_look((), ()),), "absent", 0),
        ((_look((), ()), _look((), ("demo-alice",))), "present", 1),
        ((_look(("demo-alice",), ()),), "present", 1),
        ((_look((), ()), _look(error="no answer")), "could-not-look", 3),
        ((_look((), error="no answer"),), "could-not-look", 3),
        ((_look(("demo-alice",)), _look(error="no answer")), "present", 1),
        ((), "could-not-look", 3),
    ],
)
def test_the_worst_look_decides(looks: tuple[Look, ...], verdict: str, exit_code: int) -> None:
    certificate = _certificate(*looks)
    assert (certificate.verdict, certificate.exit_code) == (verdict, exit_code)


def test_what_is_gone_is_looked_for_a_second_time() -> None:
    (look,) = prove((_question(()),), _told, _NEVER, _waited)
    assert look.rounds == ((), ())
    assert look.verdict == "absent"


def test_what_needs_a_moment_to_go_is_waited_for() -> None:
    (look,) = prove((_question(("demo-alice",), ("demo-alice",), ()),), _told, _NEVER, _waited)
    assert look.verdict == "absent"


def test_what_comes_back_between_the_looks_is_seen() -> None:
    (look,) = prove((_question((), ("demo-alice",)),), _told, _NEVER, _waited)
    assert look.verdict == "present"


def test_what_never_goes_is_told_once_the_time_is_over() -> None:
    (look,) = prove((_question(("demo-alice",)),), _told, _NEVER, _waited, settles_within_seconds=0)
    assert look.rounds == (("demo-alice",), ("demo-alice",))


@pytest.mark.parametrize(
    "error", [ClusterUnreachable("no answer"), ObjectStoreUnreachable("no answer"), OSError("denied")]
)
def test_whoever_cannot_be_asked_is_named(error: Exception) -> None:
    (look,) = prove((_question((), error),), _told, _NEVER, _waited)
    assert look.verdict == "could-not-look"
    assert look.error == str(error)


def test_who_does_not_answer_is_not_waited_for_again_in_the_same_round() -> None:
    asked: list[str] = []

    def silent() -> tuple[str, ...]:
        asked.append("cluster")
        raise ClusterUnreachable("no answer")

    def answering() -> tuple[str, ...]:
        asked.append("store")
        return ()

    questions = (
        Question(subject="Namespace", query="GET /api/v1/namespaces", ask=silent),
        Question(subject="Pod", query="GET /api/v1/pods", ask=silent),
        Question(subject="Bucket", query="ListBuckets", ask=answering, of="object store"),
    )
    looks = prove(questions, _told, _NEVER, _waited)
    assert [look.verdict for look in looks] == ["could-not-look", "could-not-look", "absent"]
    assert asked == ["cluster", "store"] * 2


@pytest.mark.parametrize(("leaves", "asks"), [("", True), ("they were given", False)])
def test_the_object_store_is_asked_only_for_what_the_class_would_take_away(
    demo: ClassSpec, platform: Platform, leaves: str, asks: bool
) -> None:
    ground = _ground(demo, platform, SimpleNamespace(leaves=leaves, endpoint="https://s3.example.org"))
    assert any(question.of == "object store" for question in questions(ground)) is asks


def test_the_object_store_is_looked_through_once_in_a_round(demo: ClassSpec, platform: Platform) -> None:
    seat, asked = Holding.of("demo", "alice"), list[str]()
    left = [Standing(ours=True, bucket=True, user=True, policy=True, access_keys=("0123456789",)), Standing(ours=True)]

    def holdings(class_name: str, _students: list[str]) -> list[Holding]:
        asked.append(class_name)
        return [seat]

    store: Any = SimpleNamespace(
        leaves="", endpoint="https://s3.example.org", holdings=holdings, standing=lambda _: left.pop(0)
    )
    asked_of_it = [each for each in questions(_ground(demo, platform, store)) if each.of == "object store"]
    looks = prove(tuple(asked_of_it), _told, _NEVER, _waited, settles_within_seconds=0)
    assert [look.rounds for look in looks] == [
        ((seat.bucket,), ()),
        ((seat.user,), ()),
        ((seat.policy,), ()),
        (("01234567…",), ()),
    ]
    assert asked == ["demo", "demo"]


@pytest.mark.parametrize(("leaves", "had"), [("", ["demo-alice", "team-a"]), ("they were given", ["demo-alice"])])
def test_a_bucket_that_is_left_is_not_counted_with_what_goes(
    demo: ClassSpec, platform: Platform, monkeypatch: pytest.MonkeyPatch, leaves: str, had: list[str]
) -> None:
    monkeypatch.setattr(teardown.cluster, "get", lambda *_: None)
    known = tuple(
        Created(kind=kind, namespace="", name=name, known_by=("state",))
        for kind, name in (("Namespace", "demo-alice"), ("Bucket", "team-a"))
    )
    ground = _ground(demo, platform, SimpleNamespace(leaves=leaves))
    assert [each.name for each in _created(ground, known)] == had


@pytest.mark.parametrize(
    ("metadata", "profiles", "left"),
    [
        ({"labels": naming.labels("demo", "alice")}, {}, ("demo-alice",)),
        # The profile controller makes it once more while the profile goes.
        ({"ownerReferences": [{"kind": "Profile", "name": "demo-alice"}]}, {}, ("demo-alice",)),
        ({"ownerReferences": [{"kind": "Profile", "name": "demo-alice"}]}, {"demo-alice": {}}, ()),
        ({}, {}, ()),
    ],
)
def test_a_namespace_is_left_by_the_class_if_it_is_labelled_so_or_its_profile_is_gone(
    demo: ClassSpec,
    platform: Platform,
    monkeypatch: pytest.MonkeyPatch,
    metadata: dict[str, Any],
    profiles: dict[str, Any],
    left: tuple[str, ...],
) -> None:
    there = {f"{teardown.KINDS['Profile']}/{name}": profile for name, profile in profiles.items()}
    there[f"{teardown.KINDS['Namespace']}/demo-alice"] = {"metadata": {"name": "demo-alice", **metadata}}
    monkeypatch.setattr(teardown.cluster, "get", lambda _, path, *__: there.get(path))
    ground = replace(_ground(demo, platform, SimpleNamespace(leaves="yes")), namespaces=frozenset({"demo-alice"}))
    [by_name] = (each for each in questions(ground) if each.subject == "Namespace, by name")
    assert by_name.ask() == left


def test_a_stopped_proof_proves_nothing() -> None:
    stopped = threading.Event()
    stopped.set()
    with pytest.raises(Cancelled):
        prove((_question(("demo-alice",)),), _told, stopped, _waited)


def test_the_certificate_is_written_for_people_and_for_programs(tmp_path: Path) -> None:
    text = _certificate(_look((), ())).write(tmp_path).read_text()
    assert "demo-alice   (known by state, label)" in text
    assert "everything of the class is gone (exit code 0)" in text
    facts = json.loads((tmp_path / "certificate.json").read_text())
    assert facts["verdict"] == "absent"
    assert facts["looks"][0]["verdict"] == "absent"
    assert facts["created"][0]["known_by"] == ["state", "label"]


def test_what_is_still_there_is_named_with_what_to_do(tmp_path: Path) -> None:
    text = _certificate(_look(("demo-alice",), ("demo-alice",))).write(tmp_path).read_text()
    assert "still there: demo-alice" in text
    assert "run `classroom down` again (exit code 1)" in text


def test_what_the_class_had_cost_stands_in_its_certificate() -> None:
    certificate = _certificate(_look((), ()))
    assert "cost" not in certificate.text()
    assert (
        "What it had cost\n  alice  1.25 EUR\n" in certificate.model_copy(update={"bill": "  alice  1.25 EUR"}).text()
    )


@pytest.mark.parametrize(
    ("kind", "metadata", "path"),
    [
        ("Namespace", {"name": "demo-alice"}, "/api/v1/namespaces/demo-alice"),
        ("Secret", {"name": "key", "namespace": "demo-alice"}, "/api/v1/namespaces/demo-alice/secrets/key"),
        (
            "Password (dex)",
            {"name": "mfs", "namespace": "auth"},
            "/apis/dex.coreos.com/v1/namespaces/auth/passwords/mfs",
        ),
    ],
)
def test_an_object_is_deleted_where_it_lies(kind: str, metadata: dict[str, str], path: str) -> None:
    assert _path(kind, {"metadata": metadata}) == path
