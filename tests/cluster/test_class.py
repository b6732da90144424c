"""A class that stands: rehearsed as every student, private from the first day, and changed without harm."""

import base64
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
import requests
from rich.console import Console

from infra import one_machine
from infra.class_file import load
from infra.local.places import NAME
from labs.runner.verify import Scope, verify
from scripts import verbs
from tests.cluster.conftest import CLASS_FILE, Klass

Start = Callable[..., "subprocess.Popen[str]"]

# Can a TCP connection be made? A packet that a policy drops is told apart from a port that nobody listens on.
_PROBE = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=4).close()
    print("open")
except TimeoutError:
    print("dropped")
except OSError as error:
    print(error)
"""


def test_every_step_of_both_labs_works_for_every_student(klass: Klass, console: Console, tmp_path: Path) -> None:
    result = verify(
        klass.spec,
        klass.platform,
        klass.handout.passwords,
        tmp_path,
        lambda event: console.print(event.step, event.state, event.detail),
        threading.Event(),
    )

    assert {
        (lab.student, step.id, step.state) for lab in result.labs for step in lab.steps if step.state != "pass"
    } == set()
    assert result.exit_code == 0
    assert {lab.student for lab in result.labs} == {"ada", "ben", "cyd"}
    suites = ElementTree.parse(tmp_path / "junit.xml").getroot()
    assert len(suites.findall(".//testcase")) == sum(len(lab.steps) for lab in result.labs)
    written = "".join(file.read_text() for file in tmp_path.iterdir())
    assert not [seat.id for seat in klass.handout.seats if seat.password.get_secret_value() in written]


def test_verify_survives_the_death_of_the_pipelines_api(klass: Klass, tmp_path: Path) -> None:
    killed = threading.Event()

    def kill_when_the_run_is_submitted(event: object) -> None:
        if "run" in str(getattr(event, "detail", "")).lower() and not killed.is_set():
            killed.set()
            klass.core.delete_collection_namespaced_pod(
                klass.platform.kubeflow_namespace, label_selector="app=ml-pipeline", grace_period_seconds=0
            )

    result = verify(
        klass.spec,
        klass.platform,
        klass.handout.passwords,
        tmp_path,
        kill_when_the_run_is_submitted,
        threading.Event(),
        scope=Scope(students=("ada",), lessons=("simple_pipeline",)),
    )

    assert killed.is_set()
    assert [(step.id, step.state) for lab in result.labs for step in lab.steps if step.state != "pass"] == []


@pytest.mark.parametrize(
    ("app", "port"),
    [
        ("mysql", 3306),
        ("seaweedfs", 18333),
        ("metadata", 8080),
        ("metadata", 9090),
        ("ml-pipeline", 8888),
        ("ml-pipeline", 8887),
        ("the node", 10250),
        ("the node", 2379),
    ],
)
def test_inner_ports_are_closed_to_a_notebook(klass: Klass, app: str, port: int) -> None:
    node_address = klass.platform.api_server_cidrs[0].partition("/")[0]
    address = node_address if app == "the node" else klass.pods(app)[0].status.pod_ip
    store = klass.pods("seaweedfs")[0].status.pod_ip

    # The controls: somebody listens there, and the notebook gets through the door that is meant to be open.
    assert seen_from_the_node(address, port) == "open\n"
    assert klass.in_notebook("ada", "python3", "-c", _PROBE, store, "8333") == "open\n"
    assert klass.in_notebook("ada", "python3", "-c", _PROBE, address, str(port)) == "dropped\n"


def seen_from_the_node(address: str, port: int) -> str:
    """What the probe says in the node's own network, which no policy judges."""
    command = ["nsenter", f"--net=/run/netns/{NAME}", sys.executable, "-c", _PROBE, address, str(port)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("port", [9333, 8888])
def test_the_object_stores_master_and_filer_listen_to_their_own_pod_alone(klass: Klass, port: int) -> None:
    store = klass.pods("seaweedfs")[0].status.pod_ip

    assert seen_from_the_node(store, 8333) == "open\n"
    assert "refused" in seen_from_the_node(store, port)


def test_a_student_opens_the_own_notebook_and_nobody_elses(klass: Klass) -> None:
    ada, ben = klass.session("ada"), klass.session("ben")
    page = f"/notebook/{klass.namespace('ada')}/cpu-notebook/api/status"

    assert ada.call("GET", page).status_code == 200
    assert ben.call("GET", page).status_code == 403
    anonymous = requests.get(
        klass.platform.url.rstrip("/") + page,
        headers={"kubeflow-userid": "ada@tests.example.org"},
        verify=str(klass.platform.ca_file),
        allow_redirects=False,
        timeout=10,
    )
    assert anonymous.status_code in (302, 401, 403)


def test_a_student_sees_the_own_pipelines_and_nobody_elses(klass: Klass) -> None:
    runs = "/pipeline/apis/v2beta1/runs"
    ada = klass.session("ada")

    assert ada.call("GET", runs, params={"namespace": klass.namespace("ada")}).status_code == 200
    assert ada.call("GET", runs, params={"namespace": klass.namespace("ben")}).status_code == 403
    forged = {"kubeflow-userid": "ben@tests.example.org"}
    assert ada.call("GET", runs, params={"namespace": klass.namespace("ben")}, headers=forged).status_code == 403


def test_a_students_key_opens_the_own_bucket_alone(klass: Klass) -> None:
    listing = """
import sys, boto3, base64, os
from kubernetes import client, config
config.load_incluster_config()
secret = client.CoreV1Api().read_namespaced_secret("mlpipeline-minio-artifact", sys.argv[1]).data
key = {name: base64.b64decode(value).decode() for name, value in secret.items()}
s3 = boto3.client("s3", endpoint_url="http://seaweedfs.kubeflow:8333", region_name="us-east-1",
                  aws_access_key_id=key["accesskey"], aws_secret_access_key=key["secretkey"])
try:
    s3.list_objects_v2(Bucket=sys.argv[2])
    print("listed")
except Exception as error:
    print("refused", type(error).__name__)
"""
    buckets = {seat.id: seat.bucket for seat in klass.handout.seats}

    assert "listed" in klass.in_notebook("ada", "python3", "-c", listing, klass.namespace("ada"), buckets["ada"])
    assert "refused AccessDenied" in klass.in_notebook(
        "ada", "python3", "-c", listing, klass.namespace("ada"), buckets["ben"]
    )


def test_up_again_changes_nothing_and_restarts_no_notebook(klass: Klass, console: Console) -> None:
    core = klass.core

    def started() -> dict[str, object]:
        return {
            pod.metadata.uid: pod.status.start_time
            for student in ("ada", "ben", "cyd")
            for pod in core.list_namespaced_pod(klass.namespace(student), label_selector="notebook-name").items
        }

    pulumi = one_machine.state_directory() / "pulumi"
    state = pulumi / ".pulumi" / "stacks" / "classroom" / f"{klass.spec.name}.json"
    before = started()
    assert len(before) == 6
    (pulumi / "settled" / "classroom" / klass.spec.name).unlink(missing_ok=True)
    written = state.stat().st_mtime_ns
    # The first runs the program, the second finds that nothing is different and does not.
    for runs in (True, False):
        again = verbs.up(klass.spec, klass.platform, console)
        assert (state.stat().st_mtime_ns > written) == runs
        written = state.stat().st_mtime_ns
        assert started() == before
        assert again.passwords == klass.handout.passwords


def test_ctrl_c_during_up_leaves_what_the_next_up_completes(
    klass: Klass, classroom: Start, console: Console, tmp_path: Path
) -> None:
    file = tmp_path / "stopped.yaml"
    text = CLASS_FILE.read_text().replace("name: tests", "name: stopped")
    file.write_text(text.replace("@tests.example.org", "@stopped.example.org"))

    def namespaces() -> list[str]:
        return [item.metadata.name for item in klass.core.list_namespace(label_selector="classroom=stopped").items]

    stopped = classroom("up", str(file))
    try:
        deadline = time.monotonic() + 120
        while not namespaces() and time.monotonic() < deadline:
            time.sleep(0.2)
        assert namespaces()
        stopped.send_signal(signal.SIGINT)
        said, _ = stopped.communicate(timeout=60)
        assert stopped.returncode == 130, said
        assert "Traceback" not in said
        # It stopped there and then: not all seats were made before it listened.
        assert "✓ seats" not in said

        whole = classroom("up", str(file))
        said, _ = whole.communicate(timeout=300)
        assert whole.returncode == 0, said
    finally:
        verbs.down(load(file), klass.platform, console)
    assert namespaces() == []


def test_no_secret_stands_in_clear_in_the_state(klass: Klass) -> None:
    states = [file.read_text() for file in (one_machine.state_directory() / "pulumi").rglob("*.json")]
    passwords = [password.get_secret_value() for password in klass.handout.passwords.values()]
    for namespace in (klass.namespace("ada"), klass.platform.kubeflow_namespace):
        data = klass.core.read_namespaced_secret("mlpipeline-minio-artifact", namespace).data
        passwords.append(base64.b64decode(data["secretkey"]).decode())

    assert states
    assert json.loads(states[0])
    assert not [1 for password in passwords for state in states if password in state]
