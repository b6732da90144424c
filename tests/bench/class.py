"""Stands a large class up and takes it down on fake nodes, beside kubectl and Helm with the same objects.

Prints the rows of class.md, which says how to call it.

It needs the one-machine platform and kwok (`go build sigs.k8s.io/kwok/cmd/kwok`, v0.8.0, in a module of its own), which
acts as the kubelet of nodes that do not exist: pods on them run nowhere and are ready at once. What becomes of them is
in kwok's own stages, `kustomize/stage` of its module. Everything else is real: API server, scheduler, controllers,
logins, buckets and keys. The fake nodes are tainted, so that nothing else gets onto them, and go at the end.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from infra import cluster, naming, one_machine, stacks, teardown
from infra.local.addresses import NODE_POD_PREFIX
from infra.local.places import NAME
from infra.spec import ClassSpec, ObjectStore, Platform
from infra.steps import Event

CLASS: Final = "chgbench"
NODES: Final = 10
_FAKE: Final = "kwok.x-k8s.io/node"
# Of the platform's pods, none of its real node's own.
_ADDRESSES: Final = list(one_machine.address_plan().pods.subnets())[1]
_STORAGE_CLASS: Final = "local-path"
_SERVERS: Final = 2
_READY_SECONDS: Final = 900


def class_of(seats: int) -> ClassSpec:
    """The reference class, each seat with its two notebooks, put onto the fake nodes."""
    fake = {
        "node_selector": {"type": "kwok"},
        "tolerations": [{"key": _FAKE, "operator": "Exists"}],
        "workspace": "1Gi",
        "cpu": "100m",
        "memory": "128Mi",
    }
    notebooks = [{"name": "cpu-notebook", **fake}, {"name": "gpu-notebook", "gpu": {}, **fake}]
    students = [{"id": f"s{n:03}", "email": f"s{n:03}@{CLASS}.example.org"} for n in range(seats)]
    return ClassSpec.model_validate({"name": CLASS, "students": students, "notebooks": notebooks, "labs": []})


@dataclass
class Taken:
    """What something took: seconds, and the most memory of this process and all that it started, in MiB."""

    seconds: float = 0.0
    mebibytes: int = 0


@contextmanager
def measured() -> Iterator[Taken]:
    """The time and the memory that a block takes. Shared pages count once (PSS)."""
    taken, ended = Taken(), threading.Event()

    def watch() -> None:
        while not ended.wait(2):
            taken.mebibytes = max(taken.mebibytes, _memory_mebibytes())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    began = time.monotonic()
    try:
        yield taken
    finally:
        taken.seconds = time.monotonic() - began
        ended.set()
        watcher.join()


def _memory_mebibytes() -> int:
    parents: dict[int, int] = {}
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            fields = (directory / "stat").read_text().rpartition(")")[2].split()
            parents[int(directory.name)] = int(fields[1])
        except OSError:
            continue
    family, grown = {os.getpid()}, True
    while grown:
        more = {process for process, parent in parents.items() if parent in family} - family
        family, grown = family | more, bool(more)
    total = 0
    for process in family:
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
    return total // 1024


class Kubectl:
    """kubectl against the platform, with no proxy in between."""

    def __init__(self, platform: Platform) -> None:
        self._kubeconfig = str(platform.kubeconfig)
        self.environment = {**os.environ, "NO_PROXY": "*", "no_proxy": "*", "KUBECONFIG": self._kubeconfig}

    def __call__(self, *arguments: str, given: str = "") -> str:
        """What kubectl prints; it gets `given` as its input. Errors: `subprocess.CalledProcessError`."""
        done = subprocess.run(
            ["kubectl", *arguments],
            env=self.environment,
            input=given,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        return done.stdout


def node(number: int) -> dict[str, Any]:
    """A node that kwok plays."""
    capacity = {"cpu": "256", "memory": "1Ti", "pods": "1000", "nvidia.com/gpu": "1000"}
    name = f"kwok-{number}"
    pods = str(list(_ADDRESSES.subnets(new_prefix=NODE_POD_PREFIX))[number])
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {_FAKE: "fake", "node.alpha.kubernetes.io/ttl": "0"},
            "labels": {"type": "kwok", "kubernetes.io/hostname": name, "kubernetes.io/os": "linux"},
        },
        # NoExecute: the load balancer's speaker tolerates NoSchedule.
        "spec": {
            "taints": [{"key": _FAKE, "value": "fake", "effect": "NoExecute"}],
            "podCIDR": pods,
            "podCIDRs": [pods],
        },
        "status": {"capacity": capacity, "allocatable": capacity},
    }


def volume(namespace: str, notebook: str) -> dict[str, Any]:
    """A volume for one workspace, kept for its claim: the provisioner would make it by a pod on a node that is none."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"{namespace}-{notebook}", "labels": {"bench": CLASS}},
        "spec": {
            "storageClassName": _STORAGE_CLASS,
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Delete",
            "hostPath": {"path": f"/tmp/{CLASS}/{namespace}-{notebook}"},
            # Else any class's claim of that size could get it.
            "claimRef": {"namespace": namespace, "name": naming.workspace_volume(notebook)},
        },
    }


def volumes(kubectl: Kubectl, spec: ClassSpec) -> None:
    """A free volume for each workspace of the class, those of the run before gone."""
    kubectl("delete", "pv", "-l", f"bench={CLASS}", "--wait=false", "--ignore-not-found")
    kubectl("wait", "--for=delete", "pv", "-l", f"bench={CLASS}", "--timeout=300s")
    seats = [naming.namespace(spec.name, student.id) for student in spec.students]
    made = [volume(seat, notebook.name) for seat in seats for notebook in spec.notebooks]
    kubectl("create", "-f", "-", given=json.dumps(_list(made)))


@contextmanager
def fake_nodes(kwok: Path, stages: Path, kubectl: Kubectl) -> Iterator[None]:
    """Nodes that kwok plays, for as long as the block runs."""
    nodes = _list([node(number) for number in range(NODES)])
    command = [str(kwok), f"--manage-nodes-with-annotation-selector={_FAKE}=fake", "--v=ERROR"]
    command.append(f"--kubeconfig={kubectl.environment['KUBECONFIG']}")
    for stage in ("node/fast", "node/heartbeat", "pod/fast"):
        command += [f"--config={file}" for file in (stages / stage).glob("[np]o*-*.yaml")]
    with _refusing(), tempfile.TemporaryFile() as said:
        player = subprocess.Popen(command, env=kubectl.environment, stdout=said, stderr=said)
        try:
            kubectl("apply", "-f", "-", given=json.dumps(nodes))
            kubectl("wait", "--for=condition=Ready", "node", "-l", "type=kwok", "--timeout=120s")
            yield
        finally:
            kubectl("delete", "node", "-l", "type=kwok", "--ignore-not-found")
            kubectl("delete", "pv", "-l", f"bench={CLASS}", "--ignore-not-found", "--wait=false")
            player.terminate()
            player.wait()


@contextmanager
def _refusing() -> Iterator[None]:
    """A network namespace that has all addresses of fake pods, and where nobody listens.

    The notebook controller asks each server what its kernels do, one after the other. A real one would answer at once,
    and this refuses at once; for an address that nobody has, the controller would wait ten seconds.
    """
    there, link, gateway = f"{NAME}-fakes", "fakes", "169.254.7.1"
    commands = (
        f"-n {NAME} link add {link} type veth peer name eth0 netns {there}",
        f"-n {NAME} address add {gateway}/32 dev {link}",
        f"-n {NAME} link set {link} up",
        f"-n {NAME} route add {_ADDRESSES} dev {link}",
        f"-n {there} link set lo up",
        f"-n {there} link set eth0 up",
        f"-n {there} route add local {_ADDRESSES} dev lo",
        f"-n {there} route add default via {gateway} dev eth0 onlink",
    )
    subprocess.run(["ip", "netns", "add", there], check=True)
    try:
        for command in commands:
            subprocess.run(["ip", *command.split()], check=True)
        yield
    finally:
        # Link and route go with it.
        subprocess.run(["ip", "netns", "delete", there], check=True)


def manifests(platform: Platform) -> list[dict[str, Any]]:
    """The objects of the class that stands, each as a person would have written it, namespaces first."""
    made: list[dict[str, Any]] = []
    kinds = [kind for kind in teardown.KINDS if kind not in ("Pod", "Profile")]
    with closing(cluster.api(platform.kubeconfig, platform.context)) as api:
        for kind in kinds:
            path = teardown.KINDS[kind]
            group = path.removeprefix("/apis/").rpartition("/")[0] if path.startswith("/apis/") else "v1"
            for item in (cluster.get(api, path, naming.selector(CLASS)) or {}).get("items", []):
                # The notebook controller copies the labels of a Notebook to what it makes of it.
                if item["metadata"].get("ownerReferences"):
                    continue
                made.append({**_written(item), "apiVersion": group, "kind": kind.split()[0]})
    return made


def _written(item: Mapping[str, Any]) -> dict[str, Any]:
    metadata = {key: item["metadata"][key] for key in ("name", "namespace", "labels") if key in item["metadata"]}
    kept = {key: value for key, value in item.items() if key not in ("metadata", "status")}
    kept.get("spec", {}).pop("volumeName", None)
    kept.get("spec", {}).pop("finalizers", None)
    return {**kept, "metadata": metadata}


def _list(items: list[dict[str, Any]]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "List", "items": items}


def await_servers(platform: Platform, count: int) -> None:
    """Return when so many notebook servers are ready. Errors: AssertionError when they are not within 15 minutes."""
    deadline = time.monotonic() + _READY_SECONDS
    with closing(cluster.api(platform.kubeconfig, platform.context)) as api:
        while time.monotonic() < deadline:
            # Helm writes its own name over the label of who manages what it makes.
            found = cluster.get(api, teardown.KINDS["Notebook"], f"classroom={CLASS}") or {}
            ready = sum((item.get("status") or {}).get("readyReplicas") == 1 for item in found.get("items", []))
            if ready == count:
                return
            time.sleep(1)
    raise AssertionError(f"{count} notebook servers are not ready after {_READY_SECONDS} s")


def helm_releases(helm: Path, kubectl: Kubectl, objects: list[dict[str, Any]], directory: Path, *options: str) -> Taken:
    """What one release for each seat takes, one after the other as a loop in a shell would; then they are forgotten."""
    seats: dict[str, list[dict[str, Any]]] = {}
    for each in objects:
        seats.setdefault(each["metadata"]["labels"]["student"], []).append(each)
    for student, items in seats.items():
        chart = directory / student
        (chart / "templates").mkdir(parents=True)
        (chart / "Chart.yaml").write_text(f"apiVersion: v2\nname: {student}\nversion: 0.1.0\n")
        for number, item in enumerate(items):
            # Argo's own braces are none of Helm's.
            text = json.dumps(item).replace("{{", '{{"{{"}}')
            (chart / "templates" / f"{number}.yaml").write_text(text)
    with measured() as taken:
        for student in seats:
            command = [str(helm), "install", student, str(directory / student), "--namespace", "default", *options]
            subprocess.run(command, env=kubectl.environment, stdout=subprocess.DEVNULL, check=True)
    for student in seats:
        kubectl("delete", "secret", "-n", "default", "-l", f"owner=helm,name={student}", "--ignore-not-found")
    return taken


def delete(kubectl: Kubectl) -> Taken:
    """What `kubectl delete namespace` of the class takes until all are gone; then the rest goes, untimed."""
    with measured() as taken:
        kubectl("delete", "namespace", "-l", f"classroom={CLASS}")
    kubectl("delete", "passwords.dex.coreos.com", "-n", "auth", "-l", f"classroom={CLASS}", "--ignore-not-found")
    return taken


def main() -> None:
    """Measure what `--only` names, and print a line for each."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--kwok", type=Path, required=True)
    arguments.add_argument("--stages", type=Path, required=True)
    arguments.add_argument("--helm", type=Path)
    arguments.add_argument("--seats", type=int, default=100)
    arguments.add_argument("--only", default="up,same,down,kubectl,helm")
    arguments.add_argument("--aws", action="store_true", help="Buckets at AWS, or where AWS_ENDPOINT_URL says.")
    given = arguments.parse_args()
    wanted, seats = given.only.split(","), given.seats
    platform, spec = one_machine.reached(), class_of(seats)
    if given.aws:
        platform = platform.model_copy(update={"object_store": ObjectStore(kind="aws")})
    kubectl = Kubectl(platform)
    klass = stacks.Klass(
        spec=spec, platform=platform, state=one_machine.state_directory(), tools=one_machine.pulumi_directories()
    )
    moments: list[tuple[str, float]] = []

    def say(what: str, taken: Taken, more: str = "") -> None:
        memory = f"{taken.mebibytes} MiB" if taken.mebibytes else ""
        print(f"| {what}, {seats} seats | {taken.seconds:.1f} s | {memory} | {more} |", flush=True)

    def hear(event: Event) -> None:
        if event.state == "failed":
            print(f"failed: {event.step}: {event.detail}", file=sys.stderr, flush=True)
        if event.state in ("started", "finished"):
            moments.append((f"{event.step} {event.state}", time.monotonic()))

    def timed(what: str, act: Callable[[], object]) -> Taken:
        with measured() as taken:
            act()
        say(what, taken)
        return taken

    def until_ready(before: Taken) -> None:
        with measured() as taken:
            await_servers(platform, seats * _SERVERS)
        say("… until all servers are ready", Taken(before.seconds + taken.seconds))

    with fake_nodes(given.kwok, given.stages, kubectl):
        volumes(kubectl, spec)
        try:
            timed("up", lambda: stacks.up(klass, hear))
            if "same" in wanted:
                timed("up, nothing changed", lambda: stacks.up(klass, hear))
            objects = manifests(platform)
            say("objects", Taken(), f"{len(objects)} objects")
        finally:
            moments.clear()
            with measured() as taken:
                certificate = teardown.down(klass, listener=hear)
            parts = ", ".join(
                f"{name.removesuffix(' started')} {later - earlier:.1f} s"
                for (name, earlier), (_, later) in pairwise(moments)
                if name.endswith("started")
            )
            say("down, with its certificate", taken, f"exit code {certificate.exit_code}: {parts}")
        if "kubectl" in wanted:
            volumes(kubectl, spec)
            with measured() as taken:
                kubectl("apply", "--server-side", "-f", "-", given=json.dumps(_list(objects)))
            say("kubectl apply --server-side", taken)
            until_ready(taken)
            say("kubectl delete namespace", delete(kubectl))
        if "helm" in wanted and given.helm:
            for options in ((), ("--wait",)):
                volumes(kubectl, spec)
                with tempfile.TemporaryDirectory() as directory:
                    taken = helm_releases(given.helm, kubectl, objects, Path(directory), *options)
                say(" ".join(("helm install", *options, "a release a seat")), taken)
                until_ready(taken)
                delete(kubectl)


if __name__ == "__main__":
    main()
