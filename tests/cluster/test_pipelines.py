"""It is a general KFP: what the two labs do not use works as well."""

import time
import warnings
from collections.abc import Callable
from contextlib import closing
from typing import Any

import kfp
import pytest

from labs.kubeflow_login import cookie_header, login
from labs.runner.clients import mlmd
from labs.runner.clients.cluster import Cluster
from tests.cluster import pipelines
from tests.cluster.conftest import Klass

_RUN_SECONDS = 600
_EXECUTION = "system.ContainerExecution"


@pytest.fixture(scope="module")
def run(klass: Klass) -> Callable[[Any], tuple[str, str]]:
    """Submits a pipeline as Ben and waits for its end: the run's id and state."""
    seat = klass.seat("ben")
    ca = str(klass.platform.ca_file)
    cookies = cookie_header(login(klass.platform.url, seat.email, seat.password.get_secret_value(), ca))
    with warnings.catch_warnings():
        # The client announces at each start that it is for pipelines of version 2.
        warnings.simplefilter("ignore", FutureWarning)
        client = kfp.Client(
            host=f"{klass.platform.url}pipeline", namespace=seat.namespace, cookies=cookies, ssl_ca_cert=ca
        )

    def submit(pipeline: Any) -> tuple[str, str]:
        submitted: Any = client.create_run_from_pipeline_func(
            pipeline, arguments={}, namespace=seat.namespace, enable_caching=False
        )
        deadline = time.monotonic() + _RUN_SECONDS
        state = "PENDING"
        while state not in ("SUCCEEDED", "FAILED", "CANCELED") and time.monotonic() < deadline:
            time.sleep(2)
            state = klass.pipelines("ben").run(submitted.run_id).get("state", "PENDING")
        return submitted.run_id, state

    return submit


def failed_logs(klass: Klass, run_id: str) -> str:
    """The ends of the logs of the run's pods that failed: why a run is not what it should be is in one of them."""
    namespace = klass.namespace("ben")
    pods = klass.core.list_namespaced_pod(namespace, label_selector=f"pipeline/runid={run_id}").items
    return "\n".join(
        f"{pod.metadata.name}:\n"
        + klass.core.read_namespaced_pod_log(pod.metadata.name, namespace, container="main", tail_lines=20)
        for pod in pods
        if pod.status.phase == "Failed"
    )


def executions(klass: Klass, run_id: str) -> dict[str, list[str]]:
    """The states of each task's executions, as ML Metadata has them."""
    found: dict[str, list[str]] = {}
    with closing(Cluster(klass.platform)) as cluster:
        recorded = cluster.metadata(klass.namespace("ben")).run(run_id)[0]
    for execution in recorded:
        if execution.type_ == _EXECUTION:
            name = str(mlmd.plain(execution.custom_properties.items())["task_name"])
            found.setdefault(name, []).append(mlmd.named(mlmd.EXECUTION_STATES, execution.last_known_state))
    return found


def test_loops_conditions_artifacts_and_nested_pipelines_work(
    klass: Klass, run: Callable[..., tuple[str, str]]
) -> None:
    run_id, state = run(pipelines.everything_succeeds(klass.platform.notebook_image))

    seen = executions(klass, run_id)
    assert state == "SUCCEEDED", f"{seen}\n{failed_logs(klass, run_id)}"
    assert seen["double"] == ["COMPLETE"] * 3
    assert {name: states for name, states in seen.items() if name != "double"} == {
        "check-total": ["COMPLETE"],
        "write-rows": ["COMPLETE"],
        "fit-slope": ["COMPLETE"],
        "predict": ["COMPLETE"],
        "check-prediction": ["COMPLETE"],
    }


def test_a_failing_task_is_retried_fails_its_run_and_the_exit_handler_runs(
    klass: Klass, run: Callable[..., tuple[str, str]]
) -> None:
    run_id, state = run(pipelines.something_fails(klass.platform.notebook_image))

    assert state == "FAILED"
    assert executions(klass, run_id)["say-goodbye"] == ["COMPLETE"]
    with closing(Cluster(klass.platform)) as cluster:
        workflow = cluster.workflow(klass.namespace("ben"), run_id)
    assert workflow is not None
    retried = [node for node in workflow["status"]["nodes"].values() if node["type"] == "Retry"]
    assert any(len(node.get("children", ())) >= 2 and node["phase"] == "Failed" for node in retried)
