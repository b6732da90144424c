"""The platform outlives the sudden end of its parts, keeps its data, and is what the table of versions says."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import closing, suppress

import pytest
import requests
from rich.console import Console

from infra import one_machine
from infra.local import machine, node
from labs.runner.clients.bucket import Bucket
from labs.runner.clients.cluster import Cluster
from labs.runner.clients.session import NoAnswerError
from scripts import verbs
from tests.cluster.conftest import ROOT, Klass

VERSIONS = ROOT / "docs" / "versions.md"

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.mark.parametrize("daemon", ["kubelet", "containerd"])
def test_platform_up_resumes_a_node_whose_daemon_was_killed(klass: Klass, console: Console, daemon: str) -> None:
    victims = node.processes(daemon)
    assert victims
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
    time.sleep(1)
    assert not one_machine.is_running()

    verbs.platform_up(console)

    assert one_machine.is_running()
    page = f"/notebook/{klass.namespace('ada')}/cpu-notebook/api/status"
    assert klass.session("ada").call("GET", page).status_code == 200


@pytest.mark.parametrize("app", ["mysql", "seaweedfs"])
def test_data_outlive_the_pod_that_serves_them(klass: Klass, app: str) -> None:
    ada, name = klass.session("ada"), f"outlives {app}"

    def experiments() -> list[str]:
        return [experiment["display_name"] for experiment in klass.pipelines("ada").experiments()]

    wanted = {"display_name": name, "namespace": klass.namespace("ada")}
    assert ada.call("POST", "/pipeline/apis/v2beta1/experiments", json=wanted).status_code == 200
    with closing(Cluster(klass.platform)) as cluster:
        bucket = Bucket(cluster, klass.namespace("ada"), klass.seat("ada").bucket)
        assert bucket.put_new(name, app.encode()) == "made"
    (pod,) = klass.pods(app)
    klass.core.delete_namespaced_pod(pod.metadata.name, "kubeflow")
    klass.await_pods(app, 1, but=frozenset({pod.metadata.uid}))

    deadline = time.monotonic() + 60
    after: list[str] = []
    while name not in after and time.monotonic() < deadline:
        # The API server finds out that its connections to the database are gone by using them.
        with suppress(NoAnswerError):
            after = experiments()
    assert name in after
    with closing(Cluster(klass.platform)) as cluster:
        bucket = Bucket(cluster, klass.namespace("ada"), klass.seat("ada").bucket)
        assert bucket.put_new(name, app.encode()) == "unchanged"


@pytest.mark.usefixtures("platform")
def test_a_demo_beside_these_tests_is_told_so() -> None:
    second = subprocess.run([ROOT / "scripts" / "demo"], capture_output=True, text=True, check=False)

    assert second.returncode == 2
    assert "scripts/test" in second.stdout
    assert "Traceback" not in second.stdout + second.stderr


def test_a_second_platform_command_beside_the_first_is_told_so(classroom: Start) -> None:
    with machine.lock("the tests"):
        second = classroom("platform", "up")
        said, _ = second.communicate(timeout=60)

    assert second.returncode == 2
    assert "the tests" in said
    assert "Traceback" not in said


@pytest.mark.usefixtures("platform")
def test_no_packet_for_the_platforms_range_leaves_the_machine() -> None:
    addresses = one_machine.address_plan()

    def way_to(address: object) -> str:
        command = ["ip", "route", "get", str(address)]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout

    assert node.CABLE in way_to(addresses.gateway)
    assert way_to(addresses.network[-2]) == way_to(addresses.pods[-2]) == ""


def test_the_first_page_answers_after_login(klass: Klass) -> None:
    assert klass.session("ada").call("GET", "/").status_code == 200
    assert requests.get(klass.platform.url, verify=str(klass.platform.ca_file), timeout=10).url.count("/dex/")


def test_the_table_of_versions_is_what_runs(klass: Klass) -> None:
    lines = [line for line in VERSIONS.read_text().splitlines() if line.startswith("|")]
    _head, _rule, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    built = [
        subprocess.run(["go", "version", "-m", file], capture_output=True, text=True, check=True).stdout
        for file in one_machine.executables().values()
        if file.read_bytes()[:4] == b"\x7fELF"
    ]
    modules = {match for said in built for match in re.findall(r"^\tmod\t(\S+)\t(\S+)", said, re.MULTILINE)}
    locks = "".join(lock.read_text() for lock in [ROOT / "requirements.lock", *ROOT.glob("infra/local/images/*.lock")])

    def holds(version: str, kind: str, name: str) -> bool:
        if kind == "go":
            return (name, version) in modules
        if kind == "python":
            return f"\n{name}=={version} " in f"\n{locks}"
        if kind == "pod":
            pod = klass.pods(name)[0].metadata
            return f" {version}." in klass.in_pod(pod.namespace, pod.name, "mariadbd", "--version")
        query = ["dpkg-query", "-W", "-f", "${Version}", name]
        if kind == "image":
            said = klass.in_notebook("ada", *query)
        else:
            assert kind == "debian", f"{name}: nobody knows how to ask for a part of the kind {kind}"
            said = subprocess.run(query, capture_output=True, text=True, check=True).stdout
        return re.match(rf"{re.escape(version)}([~+-]|$)", said) is not None

    assert len(rows) > 15
    assert [row for row in rows if len(row) != 4] == []
    assert [row for row in rows if not holds(*row[1:])] == []
    info = klass.core.list_node().items[0].status.node_info
    said = {part: version for part, version, _, _ in rows}
    assert info.kubelet_version == said["Kubernetes"]
    assert info.container_runtime_version.startswith(f"containerd://{said['containerd']}")
