"""A real one-machine Kubeflow, and on it a real class, for as long as the tests run.

A platform that was there before the tests is there after them; one that the tests made is taken down with its class.
"""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import kubernetes
import pytest
from rich.console import Console

from infra import cluster, naming, one_machine
from infra.class_file import load
from infra.classroom import Handout, SeatDetails
from infra.spec import ClassSpec, Platform
from labs.runner.clients.pipelines import Pipelines
from labs.runner.clients.session import GatewaySession
from scripts import verbs

ROOT = Path(__file__).parents[2]
CLASS_FILE = Path(__file__).parent / "class.yaml"


@dataclass(frozen=True, kw_only=True)
class Klass:
    """A class that stands, and who sits in it."""

    spec: ClassSpec
    platform: Platform
    handout: Handout
    core: Any
    """The operator's Kubernetes, kinds of the core group; the client ships no types that hold."""
    apps: Any
    """The same, Deployments."""
    sessions: dict[str, GatewaySession] = field(default_factory=dict[str, GatewaySession])

    def namespace(self, student: str) -> str:
        """The student's namespace."""
        return naming.namespace(self.spec.name, student)

    def seat(self, student: str) -> SeatDetails:
        """What the student was told."""
        return next(seat for seat in self.handout.seats if seat.id == student)

    def session(self, student: str) -> GatewaySession:
        """The student, logged in at the gateway."""
        if student not in self.sessions:
            seat = self.seat(student)
            session = GatewaySession(self.platform.url, self.platform.ca_file, seat.email, seat.password)
            session.log_in()
            self.sessions[student] = session
        return self.sessions[student]

    def pipelines(self, student: str) -> Pipelines:
        """KFP as the student."""
        return Pipelines(self.session(student), self.namespace(student))

    def pods(self, app: str) -> list[Any]:
        """The pods of one of the platform's parts."""
        return self.core.list_namespaced_pod(self.platform.kubeflow_namespace, label_selector=f"app={app}").items

    def await_pods(self, app: str, count: int, but: frozenset[str] = frozenset()) -> None:
        """Return when the part has just `count` pods, all ready, none of them with a uid in `but`."""
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline:
            pods = self.pods(app)
            ready = [pod for pod in pods if all(each.ready for each in pod.status.container_statuses or [])]
            if len(pods) == len(ready) == count and not but & {pod.metadata.uid for pod in pods}:
                return
            time.sleep(1)
        raise AssertionError(f"{app} does not have {count} ready pods after three minutes")

    def in_notebook(self, student: str, *command: str) -> str:
        """What a command prints inside a student's cpu-notebook."""
        return self.in_pod(self.namespace(student), "cpu-notebook-0", *command)

    def in_pod(self, namespace: str, pod: str, *command: str) -> str:
        """What a command prints inside a pod."""
        channel = kubernetes.stream.stream(
            self.core.connect_get_namespaced_pod_exec,
            pod,
            namespace,
            command=list(command),
            stdout=True,
            stderr=True,
            stdin=False,
            tty=False,
            _preload_content=False,
        )
        try:
            channel.run_forever(timeout=60)
            return channel.read_all()
        finally:
            # Its own close() leaves the socket open when the other side has closed first.
            channel.sock.shutdown()


@pytest.fixture(scope="session")
def console(request: pytest.FixtureRequest) -> Iterator[Console]:
    """Progress goes past pytest's capture: the first test of all may build for half an hour."""
    capture: Any = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        yield Console(force_terminal=False)


@pytest.fixture(scope="session")
def platform(console: Console) -> Iterator[Platform]:
    """The platform."""
    with one_machine.reserved("scripts/test"):
        stood_before = one_machine.is_made()
        try:
            yield verbs.platform_up(console)
        finally:
            if not stood_before:
                verbs.platform_down(console)


@contextmanager
def stood_up(file: Path, platform: Platform, console: Console, *, force: bool = False) -> Iterator[Klass]:
    """The class of a file, up until the block ends; with `force` although it does not fit."""
    spec = load(file)
    api: Any = cluster.api(platform.kubeconfig, platform.context)
    try:
        stands = Klass(
            spec=spec,
            platform=platform,
            handout=verbs.up(spec, platform, console, force=force),
            core=kubernetes.client.CoreV1Api(api),
            apps=kubernetes.client.AppsV1Api(api),
        )
        yield stands
        for session in stands.sessions.values():
            session.close()
    finally:
        verbs.down(spec, platform, console)
        api.close()


@pytest.fixture(scope="session")
def klass(platform: Platform, console: Console) -> Iterator[Klass]:
    """The class of the tests, up until they end."""
    with stood_up(CLASS_FILE, platform, console) as stands:
        yield stands


@pytest.fixture
def classroom() -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Starts the command line as a person would, in a session of its own; whatever still runs at the end is ended."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [ROOT / "scripts" / "classroom", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            start_new_session=True,
            env=dict(os.environ),
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()
