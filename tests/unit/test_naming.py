"""Names are always valid, never shared, and depend on nothing but their own inputs."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra import naming

_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
# Docs of S3, "General purpose bucket naming rules".
_BUCKET = re.compile(r"[a-z0-9][-a-z0-9]{1,61}[a-z0-9]")

_labels = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,10}[a-z0-9])?", fullmatch=True)
_anything = st.one_of(_labels, st.text(max_size=80), st.from_regex(r"[a-z]{1,3}-{0,4}[a-z]{0,3}", fullmatch=True))


@given(_anything, _anything)
def test_a_namespace_is_a_dns_label_whatever_it_is_made_of(class_name: str, student: str) -> None:
    assert _DNS_LABEL.fullmatch(naming.namespace(class_name, student))


@given(_anything, _anything)
def test_a_bucket_name_keeps_the_rules_of_s3(class_name: str, student: str) -> None:
    name = naming.bucket(class_name, student)
    assert _BUCKET.fullmatch(name)
    assert not name.startswith(("xn--", "sthree-", "amzn-"))
    assert not name.endswith(("-s3alias", "--ol-s3", "--x-s3", "--table-s3", "-an"))


@given(st.from_regex(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?", fullmatch=True), _anything)
def test_every_namespace_of_a_class_begins_as_those_of_the_class_do(class_name: str, student: str) -> None:
    assert naming.namespace(class_name, student).startswith(naming.namespace_heads(class_name))


@given(st.tuples(_anything, _anything), st.tuples(_anything, _anything))
def test_two_seats_never_share_a_name(one: tuple[str, str], other: tuple[str, str]) -> None:
    if one != other:
        assert naming.namespace(*one) != naming.namespace(*other)


@given(st.tuples(_labels, _labels), st.integers(min_value=1, max_value=8))
def test_moving_the_border_between_class_and_student_changes_the_name(seat: tuple[str, str], cut: int) -> None:
    joined = "-".join(seat)
    other = (joined[:cut].rstrip("-"), joined[cut:].lstrip("-"))
    if other != seat and all(other):
        assert naming.namespace(*seat) != naming.namespace(*other)


@pytest.mark.parametrize(
    ("class_name", "student", "name"),
    [
        ("demo", "alice", "demo-alice"),
        ("ml-2026", "anna-maria", "ml--2026-anna-maria"),
        ("demo", "2-anna", "demo-2-anna"),
        ("demo-2", "anna", "demo--2-anna"),
    ],
)
def test_an_ordinary_seat_has_a_name_that_a_person_can_read(class_name: str, student: str, name: str) -> None:
    assert naming.namespace(class_name, student) == name


@pytest.mark.parametrize("seat", [("kube", "system"), ("local", "path-storage"), ("metallb", "system"), ("istio", "x")])
def test_a_seat_never_takes_the_name_of_a_system_namespace(seat: tuple[str, str]) -> None:
    assert naming.namespace(*seat).startswith("class-")
    assert "---" in naming.namespace(*seat)


@pytest.mark.parametrize(("one", "other"), [("ÄRGER", "ärger"), ("alice ", "alice"), ("a" * 70, "a" * 71), ("", "-")])
def test_students_that_look_alike_get_names_of_their_own(one: str, other: str) -> None:
    assert naming.namespace("demo", one) != naming.namespace("demo", other)


@given(_labels, _labels)
def test_the_policy_of_a_seat_tells_its_class_and_student(class_name: str, student: str) -> None:
    assert naming.seat_of_policy(naming.bucket_policy(class_name, student)) == (class_name, student)


@given(_anything, _anything)
def test_a_bucket_user_keeps_the_rules_of_iam(class_name: str, student: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9+=,.@-]{1,64}", naming.bucket_user(class_name, student))


@given(_labels, _labels)
def test_the_policys_name_is_one_that_every_store_takes(class_name: str, student: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,128}", naming.bucket_policy(class_name, student))


@pytest.mark.parametrize("policy", ["", "classroom_", "classroom_demo", "classroom_a_b_c", "other_demo_alice"])
def test_a_policy_of_somebody_else_tells_no_seat(policy: str) -> None:
    assert naming.seat_of_policy(policy) is None


def test_dex_looks_for_a_user_under_the_name_that_it_was_seen_to_use() -> None:
    # Worked out from dex's idToName (storage/kubernetes/client.go), which lower-cases before it encodes.
    assert naming.dex_password_name("Admin@example.com") == naming.dex_password_name("admin@example.com")
    assert naming.dex_password_name("admin@example.com") == "mfsg22loibsxqylnobwgkltdn5w4x4u44scceizf"


@given(st.emails(), st.emails())
def test_two_users_never_share_an_object_of_dex(one: str, other: str) -> None:
    if one.lower() != other.lower():
        assert naming.dex_password_name(one) != naming.dex_password_name(other)


def test_labels_and_selector_agree() -> None:
    assert naming.labels("demo", "alice") == {
        "classroom": "demo",
        "student": "alice",
        "app.kubernetes.io/managed-by": "kubeflow-classroom",
    }
    assert naming.selector("demo") == "classroom=demo,app.kubernetes.io/managed-by=kubeflow-classroom"
