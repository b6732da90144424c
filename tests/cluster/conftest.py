"""A real one-machine Kubeflow, and on it a real class, for as long as the tests run.

A platform that ran before the tests runs after them; one that the tests started is taken down with its class.
"""

import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kubernetes
import pytest
from rich.console import Console

from infra import naming, one_machine
from infra.classroom import Handout
from infra.spec import ClassSpec, Platform, load
from labs.runner.pipelines import Pipelines
from labs.runner.session import GatewaySession
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

    def namespace(self, student: str) -> str:
        """The student's namespace."""
        return naming.namespace(self.spec.name, student)

    def session(self, student: str) -> GatewaySession:
        """The student, logged in at the gateway."""
        seat = next(seat for seat in self.handout.seats if seat.id == student)
        session = GatewaySession(self.platform.url, self.platform.ca_file, seat.email, seat.password)
        session.log_in()
        return session

    def pipelines(self, student: str) -> Pipelines:
        """KFP as the student."""
        return Pipelines(self.session(student), self.namespace(student))

    def in_notebook(self, student: str, *command: str, notebook: str = "cpu-notebook") -> str:
        """What a command prints inside a student's notebook server."""
        return kubernetes.stream.stream(
            self.core.connect_get_namespaced_pod_exec,
            f"{notebook}-0",
            self.namespace(student),
            command=list(command),
            stdout=True,
            stderr=True,
            stdin=False,
            tty=False,
        )


@pytest.fixture(scope="session")
def console(request: pytest.FixtureRequest) -> Iterator[Console]:
    """Progress goes past pytest's capture: the first test of all may build for half an hour."""
    capture: Any = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        yield Console(force_terminal=False)


@pytest.fixture(scope="session")
def platform(console: Console) -> Iterator[Platform]:
    """The platform."""
    ran_before = one_machine.is_running()
    try:
        yield verbs.platform_up(console)
    finally:
        if not ran_before:
            verbs.platform_down(console)


@pytest.fixture(scope="session")
def klass(platform: Platform, console: Console) -> Iterator[Klass]:
    """The class of the tests, up until they end."""
    spec = load(CLASS_FILE)
    api: Any = kubernetes.config.new_client_from_config(str(platform.kubeconfig))
    try:
        yield Klass(
            spec=spec,
            platform=platform,
            handout=verbs.up(spec, platform, console),
            core=kubernetes.client.CoreV1Api(api),
            apps=kubernetes.client.AppsV1Api(api),
        )
    finally:
        verbs.down(spec, platform, console)


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
