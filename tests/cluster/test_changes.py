"""A class changes while it runs: nobody else notices, nothing of others' is taken, a killed `up` leaves no trace."""

import json
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import kubernetes
import pytest
import yaml
from rich.console import Console

from infra import bucket, cluster, naming, stacks, teardown
from infra.bucket import Holding, StoreAddress
from infra.classroom import Taken
from infra.spec import ClassSpec, Platform, load
from scripts import verbs
from tests.cluster.conftest import Klass

Start = Callable[..., "subprocess.Popen[str]"]

NAME = "changing"
KILLS = 3
_SEED = 20261124
_LATE_SECONDS = 60

# What an object's own controllers, and not its class, write into it.
_VOLATILE = ("resourceVersion", "uid", "creationTimestamp", "generation", "managedFields", "finalizers")
_CONTROLLERS = (
    "pv.kubernetes.io/",
    "volume.kubernetes.io/",
    "volume.beta.kubernetes.io/",
    "kubectl.kubernetes.io/",
    "notebooks.kubeflow.org/last",
)


def class_file(directory: Path, *students: str, memory: str = "128Mi", reverse: bool = False) -> Path:
    """A class of these with one small notebook each and no lab."""
    roster = [{"id": student, "email": f"{student}@{NAME}.example.org"} for student in students]
    notebook = {"name": "cpu-notebook", "cpu": "50m", "memory": memory, "memory_limit": "512Mi", "workspace": "1Gi"}
    content = {
        "name": NAME,
        "students": roster[::-1] if reverse else roster,
        "notebooks": [{**notebook, "cpu_limit": "500m"}],
        "quota": {"cpu": "2", "memory": "16Gi", "pods": 30, "volumes": 6, "storage": "10Gi", "container_cpu": "20m"},
        "labs": [],
    }
    file = directory / f"{NAME}.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


def of(student: str) -> str:
    """The student's namespace."""
    return naming.namespace(NAME, student)


def objects(api: Any, class_name: str) -> dict[str, Any]:
    """What of a class stands in the cluster, each as its author has it: secrets by the names of their fields alone."""
    found: dict[str, Any] = {}
    for kind, path in teardown._KINDS.items():
        if kind in ("Pod", "Profile"):
            continue
        for item in (cluster.get(api, path, naming.selector(class_name)) or {}).get("items", []):
            found[f"{kind} {item['metadata'].get('namespace', '')}/{item['metadata']['name']}"] = normalised(item)
    return found


def normalised(item: Mapping[str, Any]) -> dict[str, Any]:
    """An object without what differs from one making to the next: identities, times, states and secrets."""
    kept = {name: value for name, value in item.items() if name not in ("metadata", "status", "apiVersion", "kind")}
    metadata = {name: value for name, value in item["metadata"].items() if name not in _VOLATILE}
    annotations = metadata.get("annotations") or {}
    metadata["annotations"] = {n: v for n, v in annotations.items() if not n.startswith(_CONTROLLERS)}
    kept.get("spec", {}).pop("volumeName", None)
    if "type" in kept and "data" in kept:
        kept["data"] = sorted(kept["data"])
    kept.pop("hash", None)
    return {"metadata": metadata, **kept}


def servers(api: Any) -> dict[str, str]:
    """The pods of the class's notebook servers: a pod that was made anew has another uid."""
    items = (cluster.get(api, "/api/v1/pods", f"classroom={NAME},notebook-name") or {}).get("items", [])
    return {item["metadata"]["namespace"]: item["metadata"]["uid"] for item in items}


@pytest.fixture
def api(platform: Platform) -> Iterator[Any]:
    with closing(cluster.api(platform.kubeconfig, platform.context)) as made:
        yield made


@pytest.fixture
def swept(platform: Platform, console: Console, tmp_path: Path) -> Iterator[None]:
    """Whatever of the class is left when a test ends goes."""
    yield
    verbs.down(load(class_file(tmp_path, "ada", "ben", "cyd")), platform, console)


@pytest.mark.usefixtures("swept")
def test_a_class_changes_seat_by_seat_while_nobody_else_notices(
    platform: Platform, api: Any, console: Console, tmp_path: Path
) -> None:
    first = load(class_file(tmp_path, "ada", "ben"))
    handout = verbs.up(first, platform, console)
    core = kubernetes.client.CoreV1Api(api)
    klass = Klass(spec=first, platform=platform, handout=handout, core=core, apps=kubernetes.client.AppsV1Api(api))
    before = servers(api)
    assert len(before) == 2

    # Another order of the roster is no change.
    assert verbs.preview(load(class_file(tmp_path, "ada", "ben", reverse=True)), platform, console) == ()

    # A late joiner, whose file would also restart everybody: that is told, and left for the next `up`.
    late = load(class_file(tmp_path, "ada", "ben", "ada-2", memory="136Mi"))
    said = verbs.preview(late, platform, console)
    assert "ada-2: new seat with cpu-notebook" in said
    assert any(line.startswith("ada, ben: cpu-notebook restarts") and "memory 136Mi" in line for line in said)
    assert said[-1] == "2 of 2 running notebooks restart"
    began = time.monotonic()
    joined = verbs.add(late, platform, "ada-2", console)
    assert time.monotonic() - began <= _LATE_SECONDS
    assert joined.password.get_secret_value()
    assert {name: uid for name, uid in servers(api).items() if name in before} == before

    # A seat that was hurt by hand is mended; its files stay, and the others' servers do.
    klass.in_notebook("ada", "sh", "-c", "echo mine > mine.txt")
    rules = f"/apis/networking.k8s.io/v1/namespaces/{of('ada')}/networkpolicies/default-deny"
    assert cluster.delete(api, rules)
    mended = verbs.repair(first, platform, "ada", console)
    assert cluster.get(api, rules) is not None
    assert klass.in_notebook("ada", "cat", "mine.txt").strip() == "mine"
    assert mended.password == handout.passwords["ada"]
    again = servers(api)
    assert again[of("ben")] == before[of("ben")]
    assert again[of("ada")] != before[of("ada")]

    wiped = verbs.repair(first, platform, "ada", console, wipe=True)
    assert "mine.txt" not in klass.in_notebook("ada", "ls")
    assert wiped.password == handout.passwords["ada"]
    assert servers(api)[of("ben")] == before[of("ben")]

    # Whoever is in the file is not removed, and whoever is not is not removed in passing.
    with pytest.raises(stacks.NotInTheFile, match="still in the class file"):
        verbs.remove(late, platform, "ada-2", console)
    with pytest.raises(stacks.NotInTheFile, match=r"remove CLASS\.yaml ada-2"):
        verbs.up(first, platform, console)
    certificate, file = verbs.remove(first, platform, "ada-2", console)
    assert certificate.exit_code == json.loads(file.with_suffix(".json").read_text())["exit_code"] == 0
    assert {created.namespace or created.name for created in certificate.created} >= {f"{NAME}-ada-2"}
    assert not [each for each in certificate.created if each.namespace == of("ada")]
    assert set(servers(api)) == {of("ada"), of("ben")}
    assert verbs.preview(first, platform, console) == ()


def test_what_belongs_to_somebody_else_is_refused_by_name_before_anything_is_made(
    platform: Platform, api: Any, console: Console, tmp_path: Path
) -> None:
    core = kubernetes.client.CoreV1Api(api)
    spec = load(class_file(tmp_path, "ada", "ben", "cyd"))
    store = bucket.connect(StoreAddress.of(platform))
    ada, ben = (Holding.of(NAME, student) for student in ("ada", "ben"))
    core.create_namespace({"metadata": {"name": of("cyd")}})
    try:
        store.s3.create_bucket(Bucket=ada.bucket)
        store.iam.create_user(UserName=ben.user)
        store.iam.create_access_key(UserName=ben.user)

        with pytest.raises(Taken) as refused:
            verbs.up(spec, platform, console)

        said = str(refused.value)
        for taken in (f"namespace {of('cyd')}", f"bucket {ada.bucket}", f"user {ben.user}"):
            assert taken in said
        assert objects(api, NAME) == {}
        # They are still there: nothing of others' is taken away either.
        certificate, _ = verbs.down(spec, platform, console)
        store.s3.head_bucket(Bucket=ada.bucket)
        assert cluster.get(api, f"/api/v1/namespaces/{of('cyd')}") is not None
        assert not [each for each in certificate.created if each.kind in ("Namespace", "Bucket")]
    finally:
        core.delete_namespace(of("cyd"))
        with suppress(Exception):
            store.s3.delete_bucket(Bucket=ada.bucket)
        for key in bucket.standing(store, ben).access_keys:
            store.iam.delete_access_key(UserName=ben.user, AccessKeyId=key)
        with suppress(Exception):
            store.iam.delete_user(UserName=ben.user)


def killed_at_random(
    start: Start, spec: ClassSpec, file: Path, platform: Platform, api: Any, console: Console, kills: int
) -> list[float]:
    """Kill an `up` at so many random moments and compare what its second `up` gives with what a clean one did.

    Returns the seconds after which each was killed. Errors: AssertionError with what differs.
    """
    began = time.monotonic()
    clean = start("up", str(file))
    said, _ = clean.communicate(timeout=300)
    seconds = time.monotonic() - began
    assert clean.returncode == 0, said
    expected = objects(api, spec.name)
    assert expected
    chance = random.Random(_SEED)  # noqa: S311  # moments, no secret
    moments = [chance.uniform(0.5, seconds) for _ in range(kills)]
    for moment in moments:
        verbs.down(spec, platform, console)
        victim = start("up", str(file))
        with suppress(subprocess.TimeoutExpired):
            victim.wait(moment)
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        second = start("up", str(file))
        said, _ = second.communicate(timeout=300)
        assert second.returncode == 0, said
        found = objects(api, spec.name)
        assert found.keys() == expected.keys(), f"killed after {moment:.1f} s"
        differing = {name: (expected[name], found[name]) for name in expected if found[name] != expected[name]}
        assert differing == {}, f"killed after {moment:.1f} s: {differing}"
        for student in spec.students:
            holding = Holding.of(spec.name, student.id)
            stands = bucket.standing(bucket.connect(StoreAddress.of(platform)), holding)
            assert stands.bucket
            assert bucket.ours(stands, holding)
            assert len(stands.access_keys) == 1
    return moments


@pytest.mark.usefixtures("swept")
def test_an_up_that_was_killed_at_any_moment_and_a_second_one_give_what_a_clean_one_gives(
    classroom: Start, platform: Platform, api: Any, console: Console, tmp_path: Path
) -> None:
    file = class_file(tmp_path, "ada", "ben")
    moments = killed_at_random(classroom, load(file), file, platform, api, console, KILLS)
    assert len(moments) == KILLS
