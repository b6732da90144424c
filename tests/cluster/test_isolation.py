"""The isolation proof on a real class of four: green as it stands, and red in just the right cells once it is hurt."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kubernetes
import pytest
from rich.console import Console

from infra import cluster, naming
from infra.class_file import load
from infra.spec import Platform
from labs.runner.isolation.doors import DOORS, Cell, Result
from labs.runner.isolation.prove import NAME, prove
from scripts import verbs

_CLASS_FILE = Path(__file__).with_name("isolation.yaml")
_AT_PODS = {"pod-notebook", "pod-service", "run-notebook"}

Prove = Callable[[], Result]


@pytest.fixture(scope="module")
def networking(platform: Platform) -> Iterator[Any]:
    """The operator's Kubernetes, network policies."""
    api: Any = cluster.api(platform.kubeconfig, platform.context)
    yield kubernetes.client.NetworkingV1Api(api)
    api.close()


@pytest.fixture(scope="module")
def proof(platform: Platform, console: Console, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prove]:
    """Stands up the class and proves it, as often as it is called."""
    spec = load(_CLASS_FILE)

    def run() -> Result:
        directory = tmp_path_factory.mktemp("isolation")
        result = prove(
            spec,
            platform,
            passwords,
            directory,
            lambda event: console.print(event.step, event.state, event.detail),
            threading.Event(),
        )
        written = "".join(file.read_text() for file in directory.iterdir())
        assert not [1 for password in passwords.values() if password.get_secret_value() in written]
        return result

    try:
        passwords = verbs.up(spec, platform, console).passwords
        yield run
    finally:
        verbs.down(spec, platform, console)


def but_refused(result: Result) -> dict[tuple[str, str, str], str]:
    """The cells that are not green, and what they are."""
    return {_at(cell): cell.verdict for cell in result.cells if cell.verdict != "refused"}


def _at(cell: Cell) -> tuple[str, str, str]:
    return cell.door, cell.actor, cell.target


def namespace(student: str) -> str:
    return naming.namespace("iso", student)


def test_no_student_of_a_real_class_reaches_another(proof: Prove, platform: Platform) -> None:
    result = proof()

    assert but_refused(result) == {}
    assert result.exit_code == 0
    assert result.left_behind == ()
    assert {cell.door for cell in result.cells} == set(DOORS)
    assert result.pairs == result.pairs_there_are == 12
    # What the proof made is gone, but for pods that still end.
    with cluster.api(platform.kubeconfig, platform.context) as api:
        for path in ("configmaps", "pods"):
            items = (cluster.get(api, f"/api/v1/namespaces/{namespace('ann')}/{path}") or {})["items"]
            kept = [each["metadata"] for each in items if each["metadata"].get("deletionTimestamp") is None]
            assert not [each["name"] for each in kept if NAME in each["name"] or "system-container" in each["name"]]


def test_a_network_policy_deleted_by_hand_reddens_what_rests_on_it(proof: Prove, networking: Any) -> None:
    """Seats are shut from both sides, so one policy less opens none. But Ann no longer comes in at her own pod, and so
    nobody can say any more that the others are kept out there by being others."""
    policy = networking.read_namespaced_network_policy("seat-itself", namespace("ann"))
    networking.delete_namespaced_network_policy("seat-itself", namespace("ann"))
    try:
        result = proof()
    finally:
        policy.metadata.resource_version = policy.metadata.uid = None
        networking.create_namespaced_network_policy(namespace("ann"), policy)

    assert but_refused(result) == {
        (door, actor, "ann"): "could-not-check" for door in _AT_PODS for actor in ("bob", "cyd", "dan")
    }
    assert result.exit_code == 3


def test_a_hole_cut_by_hand_is_found_where_it_is(proof: Prove, networking: Any) -> None:
    everything: list[dict[str, Any]] = [{}]
    holes = {"bob": {"egress": everything}, "ann": {"ingress": everything}}
    for student, rule in holes.items():
        body = {
            "metadata": {"name": "hole"},
            "spec": {"podSelector": {}, "policyTypes": [next(iter(rule)).title()], **rule},
        }
        networking.create_namespaced_network_policy(namespace(student), body)
    try:
        result = proof()
    finally:
        for student in holes:
            networking.delete_namespaced_network_policy("hole", namespace(student))

    # From Bob's seat to Ann's pods, and to nothing else.
    assert but_refused(result) == {(door, "bob", "ann"): "leak" for door in _AT_PODS}
    assert result.exit_code == 1
