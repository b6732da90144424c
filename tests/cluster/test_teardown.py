"""The end of a class is proven, or not claimed."""

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

from scripts import verbs
from tests.cluster.conftest import CLASS_FILE, Klass

Start = Callable[..., "subprocess.Popen[str]"]


@contextmanager
def stopped(klass: Klass, deployment: str) -> Iterator[None]:
    """A deployment of the platform with no pod, for as long as the block runs."""

    def scale(replicas: int) -> None:
        klass.apps.patch_namespaced_deployment_scale(deployment, "kubeflow", {"spec": {"replicas": replicas}})
        klass.await_pods(deployment, replicas)

    scale(0)
    try:
        yield
    finally:
        scale(1)


def test_down_refuses_while_the_object_store_is_stopped_then_proves_absence_twice(
    klass: Klass, classroom: Start, console: Console
) -> None:
    with stopped(klass, "seaweedfs"):
        refused = classroom("down", str(CLASS_FILE))
        said, _ = refused.communicate(timeout=300)
    assert refused.returncode == 3, said
    assert klass.core.list_namespace(label_selector="classroom=tests").items

    for had in (True, False):
        certificate, file = verbs.down(klass.spec, klass.platform, console)
        written = json.loads(file.with_suffix(".json").read_text())
        assert certificate.exit_code == written["exit_code"] == 0
        assert bool(certificate.created) is had
        assert all(len(look.rounds) == 2 for look in certificate.looks)
    assert not klass.core.list_namespace(label_selector="classroom=tests").items
    volumes = klass.platform.volume_directory
    assert volumes is not None
    assert not [each for each in volumes.iterdir() if "tests-" in each.name]
