"""What a teacher is shown when something is wrong, and what a rehearsal leaves behind: nothing."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from infra.stores import StoreAddress, connect, s3
from labs.runner.checks import State
from labs.runner.clients.bucket import Bucket
from labs.runner.clients.cluster import Cluster
from labs.runner.clients.jupyter import NotebookServer
from labs.runner.result import StepResult
from labs.runner.verify import Scope, verify
from scripts import verbs
from tests.cluster.conftest import Klass

_SIMPLE = Scope(lessons=("simple_pipeline",))


@pytest.fixture
def ada_subtracts(klass: Klass) -> Iterator[None]:
    """Ada's own notebook says minus where add says plus, until the test ends."""
    server = NotebookServer(klass.session("ada"), f"/notebook/{klass.namespace('ada')}/gpu-notebook")
    server.wait(until=time.monotonic() + 60, pause=time.sleep)
    there = server.read("simple_pipeline.ipynb")
    assert there is not None
    original = there["content"]
    edited = {**original, "cells": [_subtracting(cell) for cell in original["cells"]]}
    assert edited != original
    server.write_notebook("simple_pipeline.ipynb", edited)
    yield
    server.write_notebook("simple_pipeline.ipynb", original)


@pytest.fixture
def cyds_key_is_revoked(klass: Klass, console: Console) -> Iterator[None]:
    """The key to Cyd's bucket is deleted in the store, until the test ends."""
    address = StoreAddress.of(klass.platform)
    holding = address.holding(klass.spec.name, "cyd")
    iam = s3.client("iam", address.operator_key(), address.region, address.endpoint)
    keys = connect(address).standing(holding).access_keys
    assert keys
    for key in keys:
        iam.delete_access_key(UserName=holding.user, AccessKeyId=key)
    yield
    # As the hint says.
    verbs.repair(klass.spec, klass.platform, "cyd", console)


def _subtracting(cell: dict[str, Any]) -> dict[str, Any]:
    return {**cell, "source": "".join(cell["source"]).replace("return a + b", "return a - b")}


@pytest.mark.usefixtures("ada_subtracts", "cyds_key_is_revoked")
def test_exactly_the_broken_cells_are_red(klass: Klass, tmp_path: Path) -> None:
    result = verify(
        klass.spec,
        klass.platform,
        klass.handout.passwords,
        tmp_path,
        lambda _: None,
        threading.Event(),
        scope=_SIMPLE,
        own=True,
    )

    wrong = {lab.student: {step.id: step for step in lab.steps if step.state != "pass"} for lab in result.labs}
    assert states(wrong["ben"]) == {}
    # What the changed component gave, what was made of it, and the same in the second run.
    assert states(wrong["ada"]) == dict.fromkeys(("2-4", "2-5", "3-4/3-5/3-6/3-7", "4-1-7"), "fail")
    assert "a=1, b=2" in hint(wrong["ada"]["2-4"])
    red = {step: state for step, state in states(wrong["cyd"]).items() if state != "not-yet"}
    assert red == dict.fromkeys(("2-3", "3-4/3-5/3-6/3-7", "bucket"), "fail")
    assert all("key that is still valid" in hint(wrong["cyd"][step]) for step in red)
    assert {"2-4", "2-5", "4-1-7", "4-3"} <= wrong["cyd"].keys()


def states(steps: dict[str, StepResult]) -> dict[str, State]:
    """What became of each step."""
    return {name: step.state for name, step in steps.items()}


def hint(step: StepResult) -> str:
    """How to mend the worst that was found at a step."""
    return next(outcome.hint for outcome in step.outcomes if outcome.state == step.state)


def test_a_rehearsal_takes_back_what_it_made(klass: Klass) -> None:
    """Looked at after the tests above: those of them that rehearsed did so as Ada."""
    pipelines = klass.pipelines("ada")
    server = NotebookServer(klass.session("ada"), f"/notebook/{klass.namespace('ada')}/gpu-notebook")
    server.wait(until=time.monotonic() + 60)
    pods = klass.core.list_namespaced_pod(klass.namespace("ada"), label_selector="pipeline/runid").items
    with closing(Cluster(klass.platform)) as cluster:
        keys = Bucket(cluster, klass.namespace("ada"), klass.seat("ada").bucket).keys("artifacts/")

    assert pipelines.runs() == []
    assert pipelines.pipelines() == []
    assert [e["display_name"] for e in pipelines.experiments() if "math" in e["display_name"]] == []
    assert [pod.metadata.name for pod in pods] == []
    assert keys == []
    assert server.read_kind("rehearsal") is None
    assert server.read_kind("simple_pipeline.ipynb") == "notebook"
