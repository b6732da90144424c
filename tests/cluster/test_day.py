"""A class day on a real cluster: what the preflight says is what the scheduler does, the status is there at once, new
passwords hold, a closed class is closed at every door, and the cluster closes it when nobody does."""

import base64
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import kubernetes
import pytest
import requests
from botocore.exceptions import ClientError
from kubernetes.client.exceptions import ApiException
from rich.console import Console

from infra import bill, fit, status
from infra.class_file import load
from infra.spec import Platform, Session
from labs.kubeflow_login import LoginError
from labs.runner import lab as labs
from labs.runner import requests as asked
from labs.runner.clients.session import GatewaySession
from scripts import day, verbs
from tests.cluster.conftest import ROOT, Klass, stood_up

CLASS_FILE = Path(__file__).parent / "day.yaml"
_RUN_SECONDS = 300


@pytest.fixture(scope="module")
def held(platform: Platform, console: Console) -> Iterator[Klass]:
    """A class that does not fit, stood up all the same."""
    with stood_up(CLASS_FILE, platform, console, force=True) as stands:
        yield stands


def custom(klass: Klass) -> Any:
    """The operator's Kubernetes, kinds that are not its own."""
    return kubernetes.client.CustomObjectsApi(klass.core.api_client)


def submit(klass: Klass, student: str) -> str:
    """Start the lab's pipeline as a student; the run's id."""
    (spec,) = asked.pipelines(labs.load("simple_pipeline"))
    # The image stands in the pipeline as the lab was rendered for its reckoning.
    for executor in spec["deploymentSpec"]["executors"].values():
        executor["container"]["image"] = klass.platform.notebook_image
    base, call = "/pipeline/apis/v2beta1", klass.session(student).call
    # KFP's database keeps the experiment of an earlier class of this name.
    known = [each["experiment_id"] for each in klass.pipelines(student).experiments() if each["display_name"] == "day"]
    if not known:
        named = {"display_name": "day", "namespace": klass.namespace(student)}
        made = call("POST", f"{base}/experiments", json=named)
        assert made.status_code == 200, made.text
        known = [made.json()["experiment_id"]]
    body = {
        "display_name": "day",
        "experiment_id": known[0],
        "pipeline_spec": spec,
        "runtime_config": {"parameters": {"a": 1, "b": 2, "c": 3}},
    }
    answer = call("POST", f"{base}/runs", params={"experiment_id": body["experiment_id"]}, json=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["run_id"])


def await_state(klass: Klass, student: str, run_id: str, wanted: str, seconds: float = _RUN_SECONDS) -> str:
    deadline, state = time.monotonic() + seconds, ""
    while state != wanted and time.monotonic() < deadline:
        time.sleep(2)
        state = str(klass.pipelines(student).run(run_id).get("state", ""))
    return state


def until(claim: Callable[[], bool], seconds: float = 60) -> bool:
    """Whether something comes true in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if claim():
            return True
        time.sleep(1)
    return False


def test_a_quota_one_millicore_too_small_is_refused_before_anything_is_made(
    platform: Platform, console: Console
) -> None:
    spec = load(CLASS_FILE)
    with pytest.raises(fit.DoesNotFit, match=r"short: .*: 1m missing; write quota.cpu: 160m or more"):
        verbs.up(spec, platform, console)


def test_what_is_said_to_fit_runs_and_what_is_said_not_to_is_kept_waiting_by_the_quota(held: Klass) -> None:
    fits, short = submit(held, "fits"), submit(held, "short")

    assert await_state(held, "fits", fits, "SUCCEEDED") == "SUCCEEDED"
    assert await_state(held, "short", short, "SUCCEEDED", seconds=10) != "SUCCEEDED"
    workflows = custom(held).list_namespaced_custom_object(
        "argoproj.io", "v1alpha1", held.namespace("short"), "workflows"
    )
    said = " ".join(node.get("message", "") for node in workflows["items"][0]["status"]["nodes"].values())
    assert "exceeded quota: seat" in said
    assert "requested: requests.cpu=110m, used: requests.cpu=50m, limited: requests.cpu=159m" in said
    pods = held.core.list_namespaced_pod(held.namespace("short"), label_selector="pipeline/runid").items
    assert pods == []


def test_the_status_is_there_within_two_seconds_and_knows_who_was_there(held: Klass) -> None:
    held.session("fits")
    command = [sys.executable, "-m", "scripts.command_line", "status", str(CLASS_FILE)]
    took = []
    for _ in range(5):
        began = time.monotonic()
        said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout
        took.append(time.monotonic() - began)
    found = status.status(held.spec, held.platform)
    seat = next(each for each in found.seats if each.student == "fits")

    assert min(took) <= 2, took
    assert "2/2 seats ready" in said
    assert [each.ready for each in seat.notebooks] == [True]
    assert seat.last_activity is not None
    assert seat.last_login is not None
    assert datetime.now(UTC) - seat.last_login < timedelta(minutes=15)
    assert seat.quota["requests.cpu"][0] >= fit.amount("50m")
    assert seat.spend is not None


def test_the_bill_counts_the_run_and_what_the_run_left_in_the_bucket(held: Klass) -> None:
    made = bill.bill(held.spec, held.platform)
    assert made is not None
    used = {(line.part, line.resource): line.quantity for line in made.lines if line.student == "fits"}
    assert used["notebook gpu-notebook", "cpu"] > 0
    assert used["runs", "cpu"] > 0
    assert used["bucket", "storage"] > 0


def test_new_passwords_hold_and_the_next_up_does_not_bring_the_old_ones_back(
    held: Klass, console: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = verbs.passwords_of(held.spec, held.platform)
    directory = verbs.handout(held.spec, held.platform, console, new_passwords=("fits",))
    after = verbs.up(held.spec, held.platform, console, force=True).passwords

    assert after["short"] == before["short"]
    assert after["fits"] != before["fits"]
    assert after["fits"].get_secret_value() in (directory / "fits.html").read_text()
    seat = held.seat("fits")
    with pytest.raises(LoginError):
        GatewaySession(held.platform.url, held.platform.ca_file, seat.email, before["fits"]).log_in()
    GatewaySession(held.platform.url, held.platform.ca_file, seat.email, after["fits"]).log_in()
    written = [file for file in (tmp_path / "runs").rglob("*") if file.is_file()]
    assert not [file for file in written if after["fits"].get_secret_value() in file.read_text()]


@pytest.fixture
def doors(held: Klass) -> Callable[[], dict[str, bool]]:
    """What is open to a student who has logged in before, by the door; asked anew at each call."""
    password = verbs.passwords_of(held.spec, held.platform)["fits"]
    email, namespace = held.seat("fits").email, held.namespace("fits")
    inside = GatewaySession(held.platform.url, held.platform.ca_file, email, password)
    inside.log_in()
    secret = held.core.read_namespaced_secret("mlpipeline-minio-artifact", namespace).data
    key = {name: base64.b64decode(value).decode() for name, value in secret.items()}
    store = boto3.client(
        "s3",
        endpoint_url=held.platform.object_store.endpoint,
        region_name="us-east-1",
        aws_access_key_id=key["accesskey"],
        aws_secret_access_key=key["secretkey"],
        config=boto3.session.Config(s3={"addressing_style": "path"}, proxies={}),
    )

    def page(path: str, **given: Any) -> bool:
        # No second login: it is the session of before that is asked about.
        answer = requests.get(
            inside.url + path,
            headers={"Cookie": inside.cookie_for(path)},
            verify=str(held.platform.ca_file),
            allow_redirects=False,
            timeout=20,
            **given,
        )
        return bool(answer.status_code == 200)

    def look() -> dict[str, bool]:
        try:
            GatewaySession(held.platform.url, held.platform.ca_file, email, password).log_in()
            login = True
        except LoginError:
            login = False
        try:
            store.list_objects_v2(Bucket=held.seat("fits").bucket)
            bucket = True
        except ClientError:
            bucket = False
        review: Any = kubernetes.client.AuthorizationV1Api(held.core.api_client).create_subject_access_review(
            {
                "spec": {
                    "user": email,
                    "resourceAttributes": {"namespace": namespace, "verb": "get", "resource": "pods"},
                }
            }
        )
        return {
            "login": login,
            "notebook": page(f"/notebook/{namespace}/gpu-notebook/api/status"),
            "pipelines": page("/pipeline/apis/v2beta1/runs", params={"namespace": namespace}),
            "kubernetes": bool(review.status.allowed),
            "bucket": bucket,
        }

    return look


def no_pod(klass: Klass, namespace: str) -> bool:
    return not klass.core.list_namespaced_pod(namespace, field_selector="status.phase=Running").items


def test_a_closed_class_is_closed_at_every_door_keeps_its_data_and_opens_again(
    held: Klass, doors: Callable[[], dict[str, bool]]
) -> None:
    namespace = held.namespace("fits")
    held.in_pod(namespace, "gpu-notebook-0", "sh", "-c", "echo kept > /home/jovyan/kept.txt")
    assert all(doors().values())

    began = time.monotonic()
    day.close(held.spec, held.platform)
    # Traefik takes a change of its routes within its throttle of two seconds.
    assert until(lambda: not any(doors().values()), 15), doors()
    print(f"every door closed {time.monotonic() - began:.1f} s after the call")
    assert until(lambda: no_pod(held, namespace), 90)
    assert [seat.closed is not None for seat in status.status(held.spec, held.platform).seats] == [True, True]

    day.reopen(held.spec, held.platform)
    assert until(lambda: all(doors().values()), 120), doors()
    assert "kept" in held.in_pod(namespace, "gpu-notebook-0", "cat", "/home/jovyan/kept.txt")


def test_the_cluster_closes_the_class_at_the_end_of_its_session_when_nobody_does(
    held: Klass, doors: Callable[[], dict[str, bool]], console: Console
) -> None:
    now = datetime.now(UTC)
    # A CronJob knows whole minutes; `up` takes its time before, and refuses a session that is over by then.
    end = (now + timedelta(seconds=135)).replace(second=0, microsecond=0)
    ending = held.spec.model_copy(update={"session": Session(start=now - timedelta(hours=1), end=end)})
    verbs.up(ending, held.platform, console, force=True)
    assert all(doors().values())

    assert until(lambda: not any(doors().values()), 180), doors()
    late = (datetime.now(UTC) - end).total_seconds()
    print(f"closed by the cluster {late:.0f} s after the end of the session")
    assert until(lambda: all(seat.closed for seat in status.status(held.spec, held.platform).seats), 30)
    day.reopen(held.spec, held.platform)
    verbs.up(held.spec, held.platform, console, force=True)
    assert until(lambda: all(doors().values()), 120), doors()
    with pytest.raises(ApiException, match="404"):
        kubernetes.client.BatchV1Api(held.core.api_client).read_namespaced_cron_job(
            "classroom-day-end", held.platform.kubeflow_namespace
        )
