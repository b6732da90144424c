"""A class changes while it runs: nobody else notices, nothing of others' is taken, a killed `up` leaves no trace."""

import json
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import kubernetes
import pytest
import yaml
from rich.console import Console

from infra import cluster, naming, stacks, teardown
from infra.class_file import load
from infra.classroom import Taken
from infra.spec import Platform
from infra.stores import Holding, StoreAddress, connect, s3
from scripts import verbs
from tests.cluster.conftest import CLASS_FILE, Klass

Start = Callable[..., "subprocess.Popen[str]"]

NAME = "changing"

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


def joined_by(student: str, directory: Path, *labs: str) -> Path:
    """The class of all tests with one student more, and these labs."""
    content = yaml.safe_load(CLASS_FILE.read_text())
    content["students"].append({"id": student, "email": f"{student}@{content['name']}.example.org"})
    file = directory / f"{content['name']}-{len(labs)}.yaml"
    file.write_text(yaml.safe_dump({**content, "labs": list(labs)}))
    return file


def of(student: str) -> str:
    """The student's namespace."""
    return naming.namespace(NAME, student)


def objects(api: Any, class_name: str) -> dict[str, Any]:
    """What of a class stands in the cluster, each as its author has it: secrets by the names of their fields alone."""
    found: dict[str, Any] = {}
    for kind, path in teardown.KINDS.items():
        if kind in ("Pod", "Profile"):
            continue
        for item in (cluster.get(api, path, naming.selector(class_name)) or {}).get("items", []):
            found[f"{kind} {item['metadata'].get('namespace', '')}/{item['metadata']['name']}"] = normalised(item)
    return found


def iam_of(address: StoreAddress) -> Any:
    """The object store's IAM, as the operator."""
    return s3.client("iam", address.operator_key(), address.region, address.endpoint)


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

    # A notebook that the file names no more would take its workspaces along: nothing is done. A larger one loses none.
    (notebook,) = first.notebooks
    renamed, larger = (
        first.model_copy(update={"notebooks": (notebook.model_copy(update=each),)})
        for each in ({"name": "other-notebook"}, {"workspace": "2Gi"})
    )
    with pytest.raises(stacks.FilesLost, match=r"cpu-notebook \(everyone \(2\)\)"):
        verbs.up(renamed, platform, console)
    assert servers(api) == before
    said = verbs.preview(larger, platform, console)
    assert any("cpu-notebook-volume grows from 1Gi to 2Gi, and its files stay" in line for line in said), said

    # A late joiner, whose file would also restart everybody: that is told, and left for the next `up`.
    late = load(class_file(tmp_path, "ada", "ben", "ada-2", memory="136Mi"))
    said = verbs.preview(late, platform, console)
    assert "ada-2: new seat with cpu-notebook" in said
    assert any(line.startswith("ada, ben: cpu-notebook restarts") and "memory 136Mi" in line for line in said)
    assert said[-1] == "2 of 2 running notebooks restart"
    joined = verbs.add(late, platform, "ada-2", console)
    assert joined.seat.password.get_secret_value()
    # A class without a lab: there is nothing to rehearse.
    assert joined.result is None
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


@contextmanager
def refusing(api: Any, kind: str, student: str) -> Iterator[None]:
    """The API server takes no object of a kind for a student, for as long as the block runs."""
    admission, name = kubernetes.client.AdmissionregistrationV1Api(api), f"{NAME}-refuses-{kind}"
    rule = {"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["CREATE"], "resources": [kind]}
    elsewhere = {"expression": f"object.metadata.namespace != '{of(student)}'", "message": f"{kind} are refused"}
    policy = {"matchConstraints": {"resourceRules": [rule]}, "validations": [elsewhere]}
    binding = {"policyName": name, "validationActions": ["Deny"]}
    admission.create_validating_admission_policy({"metadata": {"name": name}, "spec": policy})
    admission.create_validating_admission_policy_binding({"metadata": {"name": name}, "spec": binding})
    try:
        yield
    finally:
        admission.delete_validating_admission_policy_binding(name)
        admission.delete_validating_admission_policy(name)


@pytest.mark.usefixtures("swept")
def test_a_seat_that_fails_keeps_nobody_else_from_a_login(
    platform: Platform, api: Any, console: Console, tmp_path: Path
) -> None:
    spec = load(class_file(tmp_path, "ada", "ben"))
    with refusing(api, "notebooks", "ben"), pytest.raises(stacks.SeatsFailed) as failed:
        verbs.up(spec, platform, console)

    assert [line.partition(": ")[0] for line in failed.value.lines] == ["ben"]
    assert "notebooks are refused" in failed.value.lines[0]
    standing = failed.value.standing
    assert standing is not None
    assert list(standing.passwords) == ["ada"]
    # The next one mends it, and the login that was handed out stays.
    whole = verbs.up(spec, platform, console).passwords
    assert set(whole) == {"ada", "ben"}
    assert whole["ada"] == standing.passwords["ada"]


@pytest.fixture
def dee_leaves(klass: Klass, console: Console) -> Iterator[None]:
    """A student who joins the class of all tests is taken out of it again."""
    yield
    certificate, _ = verbs.remove(klass.spec, klass.platform, "dee", console)
    assert certificate.exit_code == 0


@pytest.mark.usefixtures("dee_leaves")
def test_a_late_joiner_gets_the_login_only_once_the_first_lab_works(
    klass: Klass, classroom: Start, console: Console, tmp_path: Path
) -> None:
    file = joined_by("dee", tmp_path, "simple_pipeline", "taxi")
    began = time.monotonic()
    joining = classroom("add", str(file), "dee")
    said, _ = joining.communicate(timeout=600)
    seconds = time.monotonic() - began
    console.print(f"a late joiner: {seconds:.1f} s from the command to the login (goal 60), simple_pipeline rehearsed")

    assert joining.returncode == 0, said
    password = verbs.passwords_of(load(file), klass.platform)["dee"].get_secret_value()
    # Into what is no terminal the login is told without its password.
    assert said.index("✓ rehearsal") < said.index(told := "scripts/classroom handout CLASS.yaml")
    assert password not in said
    assert "verify CLASS.yaml --student dee --lab taxi" in said

    # The seat still stands, but nothing gets into its bucket any more: whoever adds again is told, and gets no login.
    address, holding = StoreAddress.of(klass.platform), Holding.of(klass.spec.name, "dee")
    for key in connect(address).standing(holding).access_keys:
        iam_of(address).delete_access_key(UserName=holding.user, AccessKeyId=key)
    again = classroom("add", str(joined_by("dee", tmp_path, "simple_pipeline")), "dee")
    said, _ = again.communicate(timeout=600)
    assert again.returncode == 1, said
    assert "✗" in said
    assert "report.html" in said
    assert told not in said
    assert password not in said


def test_what_belongs_to_somebody_else_is_refused_by_name_before_anything_is_made(
    platform: Platform, api: Any, console: Console, tmp_path: Path
) -> None:
    core = kubernetes.client.CoreV1Api(api)
    spec = load(class_file(tmp_path, "ada", "ben", "cyd"))
    address = StoreAddress.of(platform)
    store, iam = connect(address), iam_of(address)
    ada, ben = (Holding.of(NAME, student) for student in ("ada", "ben"))
    core.create_namespace({"metadata": {"name": of("cyd")}})
    try:
        store.s3(ada).create_bucket(Bucket=ada.bucket)
        iam.create_user(UserName=ben.user)
        iam.create_access_key(UserName=ben.user)

        with pytest.raises(Taken) as refused:
            verbs.up(spec, platform, console)

        said = str(refused.value)
        for taken in (f"namespace {of('cyd')}", f"bucket {ada.bucket}", f"user {ben.user}"):
            assert taken in said
        assert objects(api, NAME) == {}
        # They are still there: nothing of others' is taken away either.
        certificate, _ = verbs.down(spec, platform, console)
        store.s3(ada).head_bucket(Bucket=ada.bucket)
        assert cluster.get(api, f"/api/v1/namespaces/{of('cyd')}") is not None
        assert not [each for each in certificate.created if each.kind in ("Namespace", "Bucket")]
    finally:
        core.delete_namespace(of("cyd"))
        with suppress(Exception):
            store.s3(ada).delete_bucket(Bucket=ada.bucket)
        for key in store.standing(ben).access_keys:
            iam.delete_access_key(UserName=ben.user, AccessKeyId=key)
        with suppress(Exception):
            iam.delete_user(UserName=ben.user)


@pytest.mark.usefixtures("swept")
def test_an_up_that_was_killed_at_any_moment_and_a_second_one_give_what_a_clean_one_gives(
    classroom: Start, platform: Platform, api: Any, console: Console, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    """As often as `--kills` says, at moments that `--kill-seed` draws from the time that the clean one took."""
    kills, seed = pytestconfig.getoption("--kills"), pytestconfig.getoption("--kill-seed")
    file = class_file(tmp_path, "ada", "ben")
    spec = load(file)
    began = time.monotonic()
    clean = classroom("up", str(file))
    said, _ = clean.communicate(timeout=300)
    seconds = time.monotonic() - began
    assert clean.returncode == 0, said
    expected = objects(api, spec.name)
    assert expected
    chance = random.Random(seed)  # noqa: S311  # moments, no secret
    for kill in range(1, kills + 1):
        moment = chance.uniform(0.5, seconds)
        console.print(f"kill {kill} of {kills}, seed {seed}: {moment:.1f} s into an up that takes {seconds:.1f} s")
        verbs.down(spec, platform, console)
        victim = classroom("up", str(file))
        with suppress(subprocess.TimeoutExpired):
            victim.wait(moment)
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        second = classroom("up", str(file))
        said, _ = second.communicate(timeout=300)
        assert second.returncode == 0, said
        found = objects(api, spec.name)
        assert found.keys() == expected.keys(), f"killed after {moment:.1f} s"
        differing = {name: (expected[name], found[name]) for name in expected if found[name] != expected[name]}
        assert differing == {}, f"killed after {moment:.1f} s: {differing}"
        for student in spec.students:
            holding = Holding.of(spec.name, student.id)
            stands = connect(StoreAddress.of(platform)).standing(holding)
            assert stands.bucket
            assert stands.ours
            assert stands.confined
            assert len(stands.access_keys) == 1
