"""The node: one kubeadm-made Kubernetes in a network namespace and a mount namespace of its own.

The network namespace hangs on the machine by one cable (a veth pair); every address lies in the plan's range, which the
machine otherwise blackholes. The mount namespace gives the node an /etc/kubernetes, a /var/lib/kubelet and so on of its
own (directories below the platform's state), so that it neither sees nor disturbs another Kubernetes or Docker, and all
that pods mount is gone when the namespace is. Every process lies below one cgroup: that is how they are found again.

Only containerd and the kubelet are processes on the machine; the control plane are static pods.
"""

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from infra.local import images, machine
from infra.local.addresses import AddressPlan, taken
from infra.local.images import ETCD_TAG, KUBERNETES_REGISTRY, PAUSE
from infra.local.machine import CommandError, MachineError, call
from infra.local.places import NAME, Places, write_whole
from infra.local.tools import KUBERNETES_VERSION
from infra.steps import Cancelled

NODE = NAME
"""The Kubernetes node's name."""
CABLE = "kubeflow-class"
"""The machine's end of the cable; a device name has at most 15 characters."""

Progress = Callable[[str], None]

_NETWORK_NAMESPACE = Path("/run/netns") / NAME
_LOG_LIMIT_BYTES = 20 << 20

# What the node has of its own at these places of the machine: kubeadm, the kubelet, the CNI library and containerd's
# shims know no other.
_OWN = {
    "/etc/kubernetes": "kubernetes",
    "/var/lib/kubelet": "kubelet",
    "/var/lib/cni": "cni/results",
    "/var/log/pods": "logs/pods",
    "/var/log/containers": "logs/containers",
}
_SHIMS = "/run/containerd"

_INPUTS_VERSION = 1
"""Raise it when a node made by older code cannot be resumed by this one."""


class NodeError(MachineError):
    """The node did not come up, or did not go away entirely."""


@dataclass(frozen=True, kw_only=True)
class Status:
    """What of the node stands."""

    network: bool
    containerd: bool
    kubelet: bool
    initialised: bool
    """kubeadm has finished once; the node's data are whole."""
    ready: bool
    """The API answers and calls the node Ready."""

    @property
    def running(self) -> bool:
        return self.network and self.containerd and self.kubelet and self.ready


# ---- up -------------------------------------------------------------------------------------------------------------


def start_containerd(places: Places, addresses: AddressPlan, cancelled: threading.Event | None = None) -> None:
    """Have the node's network and containerd; images can be imported from then on. Milliseconds when they run.

    Errors: `addresses.AddressError` when the range is in use by something else; `NodeError`.
    """
    _same_places(places)
    _same_inputs(places, addresses)
    _network(addresses)
    new = _mounts(places)
    if new:
        # Whatever still runs does so in a namespace that nobody can enter any more.
        _end(_processes())
    if _alive(places, "containerd") and _answers(places.containerd_socket):
        return
    _end(processes("containerd"))
    places.containerd.mkdir(parents=True, exist_ok=True)
    write_whole(places.node / "containerd.toml", _containerd_settings(places))
    write_whole(places.node / "cni/net.d/10-classroom.conflist", json.dumps(_cni_settings(addresses), indent=1))
    _start(places, "containerd", ["containerd", "--config", places.node / "containerd.toml", "--log-level", "warn"])
    _wait("containerd", lambda: _answers(places.containerd_socket), 60, cancelled, places)


def up(
    places: Places,
    addresses: AddressPlan,
    tools: Mapping[str, Path],
    report: Progress | None = None,
    cancelled: threading.Event | None = None,
) -> None:
    """Have a Ready node. The images `NODE_IMAGES` must be in containerd, `tools` must name kubeadm and kubelet.

    Whatever stood is kept: a node whose processes were killed, or whose machine was restarted, goes on with its data;
    one that was never finished is begun again.

    Errors: `NodeError` with the end of the log that tells; `steps.Cancelled`.
    """
    say = report or (lambda _: None)
    if status(places, addresses).running:
        _bound_logs(places)
        return
    say("network and containerd")
    start_containerd(places, addresses, cancelled)
    finished = places.node / "initialised"
    began = None
    if not finished.exists():
        _initialise(places, addresses, tools["kubeadm"], tools["kubelet"], say, cancelled)
    elif not _alive(places, "kubelet"):
        # What the API says of the node may be from before: only what this kubelet tells counts.
        began = datetime.now(UTC)
        _end(processes("kubelet"))
        _start_kubelet(places, addresses, tools["kubelet"])
    say("waiting until the node is Ready")
    _wait("the node", lambda: _ready(places, addresses, since=began), 180, cancelled, places)
    _bound_logs(places)


def status(places: Places, addresses: AddressPlan) -> Status:
    """Look, change nothing."""
    return Status(
        network=_network_stands(addresses),
        containerd=_alive(places, "containerd") and _answers(places.containerd_socket),
        kubelet=_alive(places, "kubelet"),
        initialised=(places.node / "initialised").exists(),
        ready=_ready(places, addresses),
    )


def memory_bytes() -> int:
    """Memory of all the node's processes, pods included, shared pages counted once (proportional set sizes)."""
    total = 0
    for process in _processes():
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


def _initialise(
    places: Places,
    addresses: AddressPlan,
    kubeadm: Path,
    kubelet: Path,
    say: Progress,
    cancelled: threading.Event | None,
) -> None:
    _end(processes("kubelet"))
    _end(_processes("kubepods"))
    for part in ("kubernetes", "kubelet", "etcd"):
        _empty(places.node / part)
    for name, patch in _small_requests().items():
        write_whole(places.node / "kubernetes/patches" / f"{name}+strategic.yaml", yaml.safe_dump(patch))
    settings = places.node / "kubernetes/kubeadm.yaml"
    write_whole(settings, yaml.safe_dump_all(kubeadm_settings(places, addresses)))
    write_whole(places.node / "kubelet/config.yaml", yaml.safe_dump(kubelet_settings(places, addresses)))
    write_whole(
        places.node / "kubernetes/resolv.conf", "# The node's pods ask the cluster's DNS; there is nothing beyond it.\n"
    )
    run = [*_enter(places), kubeadm, "init"]
    environment = _environment()
    say("certificates and manifests")
    for phase in (("certs", "all"), ("kubeconfig", "all"), ("etcd", "local"), ("control-plane", "all")):
        call(
            [*run, "phase", *phase, "--config", "/etc/kubernetes/kubeadm.yaml"],
            environment=environment,
            cancelled=cancelled,
        )
    shutil.copyfile(places.node / "kubernetes/admin.conf", places.kubeconfig)
    places.kubeconfig.chmod(0o600)
    _start_kubelet(places, addresses, kubelet)
    say("the control plane starts")
    try:
        call(
            [*run, "--config", "/etc/kubernetes/kubeadm.yaml"],
            environment=environment,
            cancelled=cancelled,
            timeout_seconds=300,
        )
    except CommandError as error:
        raise NodeError(
            f"{error}\n{_tail(places, 'kubelet')}\nrun the same command again, or classroom platform down and then up"
        ) from error
    write_whole(places.node / "initialised", _inputs(addresses))


def _start_kubelet(places: Places, addresses: AddressPlan, kubelet: Path) -> None:
    _cgroups()
    _start(
        places,
        "kubelet",
        [
            kubelet,
            "--config=/var/lib/kubelet/config.yaml",
            "--kubeconfig=/etc/kubernetes/kubelet.conf",
            f"--hostname-override={NODE}",
            f"--node-ip={addresses.node}",
            "--v=0",
        ],
    )


def _inputs(addresses: AddressPlan) -> str:
    return json.dumps({"version": _INPUTS_VERSION, "network": str(addresses.network), "kubernetes": KUBERNETES_VERSION})


def _same_places(places: Places) -> None:
    """There is one node on a machine; one with other directories is not ours to touch."""
    record = places.run / "places"
    if record.exists() and (stands := record.read_text()) != f"{places.state}\n{places.cache}\n":
        state, cache = stands.splitlines()
        raise NodeError(
            "a node with other directories is on this machine\n"
            f"set CLASSROOM_STATE={state} CLASSROOM_CACHE={cache} and run `classroom platform down`"
        )


def _same_inputs(places: Places, addresses: AddressPlan) -> None:
    finished = places.node / "initialised"
    if finished.exists() and (made := finished.read_text()) != _inputs(addresses):
        raise NodeError(
            f"a node with other settings is here already: {made}, wanted is {_inputs(addresses)}\n"
            "run `classroom platform down` first, or set CLASSROOM_NETWORK as it was"
        )


# ---- network --------------------------------------------------------------------------------------------------------


def _network_stands(addresses: AddressPlan) -> bool:
    if not (_is_mount(_NETWORK_NAMESPACE) and Path("/sys/class/net", CABLE).exists()):
        return False
    routes = call(["ip", "-4", "route", "show", "type", "blackhole"])
    return f"blackhole {addresses.network}" in routes


def _network(addresses: AddressPlan) -> None:
    """The namespace, the cable and the blackhole.

    Each command finds its work done or does it: what was cut off half made becomes whole, what stands stays as it is.
    """
    taken(addresses, machine.networks_in_use(frozenset({CABLE}), addresses.network))
    call(["ip", "route", "replace", "blackhole", str(addresses.network)])
    if not _is_mount(_NETWORK_NAMESPACE):
        _NETWORK_NAMESPACE.unlink(missing_ok=True)
        call(["ip", "netns", "add", NAME])
    prefix = addresses.link.prefixlen
    inside = ["ip", "-n", NAME]
    if not Path("/sys/class/net", CABLE).exists():
        call(["ip", "link", "add", CABLE, "type", "veth", "peer", "name", "eth0", "netns", NAME])
    call(["ip", "address", "replace", f"{addresses.host}/{prefix}", "dev", CABLE])
    call(["ip", "link", "set", CABLE, "up"])
    call([*inside, "link", "set", "lo", "up"])
    call([*inside, "address", "replace", f"{addresses.node}/{prefix}", "dev", "eth0"])
    call([*inside, "link", "set", "eth0", "up"])
    # A local process's connection to a service address is routed before it is redirected: it needs some route.
    call([*inside, "route", "replace", str(addresses.services), "dev", "eth0", "src", str(addresses.node)])
    # Nothing lies beyond: a pod that wants the internet is told so at once instead of waiting.
    call([*inside, "route", "replace", "unreachable", "default"])
    # Everywhere nsenter, never `ip netns exec`: that hides /sys/fs/cgroup, and the kubelet and runc then fail.
    enter = ["nsenter", f"--net={_NETWORK_NAMESPACE}"]
    settings = "net.ipv4.ip_forward=1 net.ipv6.conf.all.disable_ipv6=1 net.bridge.bridge-nf-call-iptables=1"
    for setting in settings.split():
        name, value = setting.split("=")
        call([*enter, "sh", "-c", f"echo {value} > /proc/sys/{name.replace('.', '/')}"])
    Path(f"/proc/sys/net/ipv6/conf/{CABLE}/disable_ipv6").write_text("1")
    call([*enter, "nft", "-f", "-"], text=_closed_ports(addresses))


def _closed_ports(addresses: AddressPlan) -> str:
    """Pods may open connections to the node for its API alone: not to the kubelet, etcd or any other port of it."""
    return f"""
table inet classroom
delete table inet classroom
table inet classroom {{
  chain input {{
    type filter hook input priority filter; policy accept;
    ct state established,related accept
    ip saddr {addresses.pods} ip protocol icmp accept
    ip saddr {addresses.pods} tcp dport != 6443 drop
    ip saddr {addresses.pods} ip protocol != tcp drop
  }}
}}
"""


# ---- mounts ---------------------------------------------------------------------------------------------------------


def _mounts(places: Places) -> bool:
    """Have the mount namespace; True when it had to be made (first start, or the machine was restarted)."""
    namespace = places.run / "namespaces/mount"
    if _is_mount(namespace):
        # Deleting a mount point on the machine (a kubeadm reset beside us, say) takes the mount away in here as well.
        _bind_missing(places, namespace)
        return False
    if places.run.exists():
        _unmount_below(places.run)
        shutil.rmtree(places.run)
    for part in ("namespaces", "containerd", "shims"):
        (places.run / part).mkdir(parents=True)
    write_whole(places.run / "places", f"{places.state}\n{places.cache}\n")
    _empty(places.node / "cni/results")
    places.volumes.mkdir(parents=True, exist_ok=True)
    places.node.chmod(0o700)
    # A namespace can be kept only at a place whose mount is private; hence the bind of the directory onto itself.
    call(["mount", "--bind", namespace.parent, namespace.parent])
    call(["mount", "--make-private", namespace.parent])
    partial = namespace.with_name("partial")
    partial.touch()
    call(["unshare", f"--mount={partial}", "--propagation", "private", "true"])
    script = "mount --make-rshared / && mount -t tmpfs -o mode=755 netns /run/netns"
    call(["nsenter", f"--mount={partial}", "sh", "-c", script])
    _bind_missing(places, partial)
    # Only whole it gets its name: a kill before this line leaves a namespace that is thrown away.
    namespace.touch()
    call(["mount", "--bind", partial, namespace])
    call(["umount", partial])
    return True


def _bind_missing(places: Places, namespace: Path) -> None:
    """Mount the node's own directories where they are not, inside the namespace."""
    pairs = [(places.node / source, target) for target, source in _OWN.items()]
    pairs += [(places.run / "shims", _SHIMS)]
    script = ["set -e"]
    for source, target in pairs:
        Path(target).mkdir(parents=True, exist_ok=True)
        source.mkdir(parents=True, exist_ok=True)
        script.append(f"mountpoint -q {target} || mount --bind '{source}' {target}")
    call(["nsenter", f"--mount={namespace}", "sh", "-c", "\n".join(script)])


def _is_mount(path: Path) -> bool:
    return any(point == path for point in _mount_points())


def _mount_points() -> list[Path]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [Path(line.split()[4].encode().decode("unicode_escape")) for line in lines]


def _unmount_below(directory: Path) -> None:
    for point in sorted(_mount_points(), key=lambda path: len(path.parts), reverse=True):
        if point.is_relative_to(directory):
            call(["umount", "--lazy", point])


# ---- processes ------------------------------------------------------------------------------------------------------


def _cgroup_roots() -> list[Path]:
    """Every cgroup hierarchy: the one of version 2, those of version 1, or (hybrid) both."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [Path(words[1]) for words in mounts if words[2] in ("cgroup", "cgroup2")]


def _cgroups() -> None:
    """Have the platform's cgroup, with one below it for each daemon, in every hierarchy."""
    for root in _cgroup_roots():
        for part in (NAME, f"{NAME}/containerd", f"{NAME}/kubelet"):
            group = root / part
            group.mkdir(exist_ok=True)
            if (root / "cgroup.subtree_control").exists() and part == NAME:
                for parent in (root, group):
                    available = (parent / "cgroup.controllers").read_text().split()
                    (parent / "cgroup.subtree_control").write_text(
                        " ".join(f"+{controller}" for controller in available)
                    )
            for setting in ("cpuset.cpus", "cpuset.mems"):
                # Version 1 leaves both empty in a new cpuset, and an empty one admits no process.
                if (
                    (group / setting).exists()
                    and not (group / setting).read_text().strip()
                    and (group.parent / setting).exists()
                ):
                    (group / setting).write_text((group.parent / setting).read_text())


def _processes(part: str = "") -> list[int]:
    """The processes below the platform's cgroup (or one part of it): ours, and nobody else's."""
    found: set[int] = set()
    for root in _cgroup_roots():
        for file in (root / NAME / part).rglob("cgroup.procs"):
            try:
                found |= {int(word) for word in file.read_text().split()}
            except OSError:
                continue
    return sorted(found - {0})


def _end(victims: Sequence[int]) -> None:
    """SIGKILL: none of them has anything to save that a crash would not have to leave whole too."""
    for process in victims:
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            continue
    deadline = time.monotonic() + 20
    while any(_started(process) for process in victims) and time.monotonic() < deadline:
        time.sleep(0.02)


def processes(daemon: str) -> list[int]:
    """The processes of one daemon, "containerd" or "kubelet", and not its children: shims outlive a containerd."""
    return [process for process in _processes(daemon) if _command(process) == daemon]


def _command(process: int) -> str | None:
    try:
        return Path(f"/proc/{process}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return None


def _started(process: int) -> str | None:
    """When a process started (clock ticks since boot); None when it is gone or only waits to be reaped."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else fields[19]


def _alive(places: Places, name: str) -> bool:
    """Whether the process that `_start` started still is: a number alone may have gone to another."""
    try:
        number, started = (places.run / f"{name}.pid").read_text().split()
    except (FileNotFoundError, ValueError):
        return False
    return _started(int(number)) == started


def _enter(places: Places) -> list[str | Path]:
    return ["nsenter", f"--net={_NETWORK_NAMESPACE}", f"--mount={places.run / 'namespaces/mount'}", "--"]


def _environment() -> dict[str, str]:
    """Nothing of the caller's: no proxy, no certificates, nothing that would change from one `up` to the next."""
    return {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}


def _start(places: Places, name: str, command: Sequence[str | Path]) -> None:
    """Start a daemon in its cgroup, in the node's namespaces, in a session of its own, its output in a log."""
    _cgroups()
    places.logs.mkdir(parents=True, exist_ok=True)
    _bound_logs(places)
    join = "; ".join(f"echo $$ > {root / NAME / name}/cgroup.procs" for root in _cgroup_roots())
    # The shell leaves at once, so that the daemon is nobody's child and no one has to wait for its end.
    script = f'{join}; log=$1; shift; "$@" </dev/null >>"$log" 2>&1 & echo $!'
    words = [places.logs / f"{name}.log", *_enter(places), *command]
    shell = subprocess.run(
        ["sh", "-ec", script, name, *map(str, words)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
        env=_environment(),
        start_new_session=True,
        cwd="/",
    )
    process = int(shell.stdout)
    write_whole(places.run / f"{name}.pid", f"{process} {_started(process)}")


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(2)
        try:
            client.connect(str(path))
        except OSError:
            return False
        return True


def _ready(places: Places, addresses: AddressPlan, since: datetime | None = None) -> bool:
    """Whether the API calls the node Ready, and the kubelet said so after `since`."""
    certificates = places.node / "kubernetes/pki"
    try:
        trust = ssl.create_default_context(cafile=str(certificates / "ca.crt"))
        trust.load_cert_chain(
            certificates / "apiserver-kubelet-client.crt", certificates / "apiserver-kubelet-client.key"
        )
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trust)
        )
        with opener.open(f"{addresses.api_server}/api/v1/nodes/{NODE}", timeout=3) as answer:
            node: dict[str, Any] = json.load(answer)
    except (OSError, urllib.error.URLError, ValueError):
        return False
    for condition in node["status"].get("conditions", ()):
        if condition["type"] == "Ready" and condition["status"] == "True":
            heard = datetime.fromisoformat(condition["lastHeartbeatTime"])
            # The API tells whole seconds.
            return since is None or heard >= since.replace(microsecond=0)
    return False


def _wait(
    what: str, done: Callable[[], bool], seconds: float, cancelled: threading.Event | None, places: Places
) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        if cancelled and cancelled.is_set():
            raise Cancelled("the node was stopped while it started; the same command goes on from here")
        if time.monotonic() > deadline:
            tails = "\n".join(_tail(places, name) for name in ("containerd", "kubelet"))
            raise NodeError(
                f"{what} did not come up within {seconds:.0f} s\n{tails}\n"
                "run the same command again, or classroom platform down and then up"
            )
        time.sleep(0.1)


def _tail(places: Places, name: str, lines: int = 12) -> str:
    log = places.logs / f"{name}.log"
    return f"--- {log}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else ""


def _bound_logs(places: Places) -> None:
    """Cut a daemon's log to its last part once it is too long. It is open for appending, so the daemon writes on."""
    for log in places.logs.glob("*.log"):
        if log.stat().st_size > _LOG_LIMIT_BYTES:
            with log.open("r+b") as file:
                file.seek(-_LOG_LIMIT_BYTES // 4, os.SEEK_END)
                kept = file.read()
                file.seek(0)
                file.write(kept)
                file.truncate()


def _empty(directory: Path) -> None:
    """Empty it but keep the directory itself: it may be mounted elsewhere."""
    directory.mkdir(parents=True, exist_ok=True)
    for entry in directory.iterdir():
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


# ---- settings -------------------------------------------------------------------------------------------------------


_UNUSED_PLUGINS = [
    *(f"io.containerd.snapshotter.v1.{name}" for name in ("aufs", "btrfs", "devmapper", "zfs")),
    "io.containerd.internal.v1.opt",
]


def _containerd_settings(places: Places) -> str:
    plugins = machine.cni_directory()
    if plugins is None:
        raise NodeError(
            "the CNI plugins are not on this machine\nrun the same command again: it installs what is missing"
        )
    return f"""version = 2
root = "{places.containerd}"
state = "{places.run}/containerd"
oom_score = 0
disabled_plugins = {json.dumps(_UNUSED_PLUGINS)}
[grpc]
  address = "{places.containerd_socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  # Root may lack CAP_SYS_RESOURCE; a negative score is then refused, and no pod starts.
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{places.node}/cni/net.d"
"""


def _cni_settings(addresses: AddressPlan) -> dict[str, Any]:
    return {
        "cniVersion": "0.4.0",
        "name": NAME,
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": True,
                "hairpinMode": True,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": str(addresses.node_pods)}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            # Pods would otherwise reach each other by their link-local IPv6 addresses, past every NetworkPolicy.
            {"type": "tuning", "sysctl": {"net.ipv6.conf.eth0.disable_ipv6": "1"}},
        ],
    }


def _small_requests() -> dict[str, dict[str, Any]]:
    """kubeadm asks 650 thousandths of a CPU for the control plane: a third of a small machine."""
    amounts = {"kube-apiserver": "100m", "kube-controller-manager": "50m", "kube-scheduler": "25m", "etcd": "50m"}
    return {
        name: {"spec": {"containers": [{"name": name, "resources": {"requests": {"cpu": cpu}}}]}}
        for name, cpu in amounts.items()
    }


def kubeadm_settings(places: Places, addresses: AddressPlan) -> list[dict[str, Any]]:
    """kubeadm's configuration documents (https://kubernetes.io/docs/reference/config-api/kubeadm-config.v1beta4/)."""
    version = "kubeadm.k8s.io/v1beta4"
    alone = {"leader-elect": "false"}  # One of each: an election only costs the time of an old lease after a kill.
    return [
        {
            "apiVersion": version,
            "kind": "InitConfiguration",
            "localAPIEndpoint": {"advertiseAddress": str(addresses.node), "bindPort": 6443},
            "nodeRegistration": {
                "name": NODE,
                "criSocket": f"unix://{places.containerd_socket}",
                "imagePullPolicy": "Never",
                "taints": [],
                "ignorePreflightErrors": ["all"],
            },
            "patches": {"directory": "/etc/kubernetes/patches"},
            # The first four are run one by one before; the mark keeps load balancers away from the only node.
            "skipPhases": [
                "preflight",
                "certs",
                "kubeconfig",
                "etcd",
                "control-plane",
                "kubelet-start",
                "mark-control-plane",
                "bootstrap-token",
                "show-join-command",
                "addon/coredns",
            ],
        },
        {
            "apiVersion": version,
            "kind": "ClusterConfiguration",
            "clusterName": NAME,
            "kubernetesVersion": KUBERNETES_VERSION,
            "imageRepository": KUBERNETES_REGISTRY,
            "encryptionAlgorithm": "ECDSA-P256",
            "certificateValidityPeriod": "87600h",
            "networking": {
                "podSubnet": str(addresses.pods),
                "serviceSubnet": str(addresses.services),
                "dnsDomain": "cluster.local",
            },
            "etcd": {"local": {"dataDir": str(places.node / "etcd"), "imageTag": ETCD_TAG}},
            "apiServer": {
                "certSANs": [str(addresses.node), "localhost", "127.0.0.1"],
                "extraArgs": _arguments({"profiling": "false"}),
            },
            "controllerManager": {
                "extraArgs": _arguments(
                    {
                        **alone,
                        "node-cidr-mask-size": str(addresses.node_pods.prefixlen),
                        # The defaults (20 and 30) are what makes a class's hundred namespaces slow to go.
                        "kube-api-qps": "200",
                        "kube-api-burst": "400",
                        "flex-volume-plugin-dir": "/var/lib/kubelet/volume-plugins",
                    }
                )
            },
            "scheduler": {"extraArgs": _arguments({**alone, "kube-api-qps": "200", "kube-api-burst": "400"})},
        },
        {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "nftables",
            "clusterCIDR": str(addresses.pods),
            "conntrack": {"maxPerCore": 0},
            "nftables": {"minSyncPeriod": "200ms"},
        },
        kubelet_settings(places, addresses),
    ]


def _arguments(values: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in values.items()]


def kubelet_settings(places: Places, addresses: AddressPlan) -> dict[str, Any]:
    """The kubelet's configuration (https://kubernetes.io/docs/reference/config-api/kubelet-config.v1beta1/)."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": "/etc/kubernetes/pki/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": f"unix://{places.containerd_socket}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{NAME}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "clusterDNS": [str(addresses.dns)],
        "clusterDomain": "cluster.local",
        "resolvConf": "/etc/kubernetes/resolv.conf",
        "staticPodPath": "/etc/kubernetes/manifests",
        "rotateCertificates": True,
        "maxPods": 500,
        "kubeAPIQPS": 200,
        "kubeAPIBurst": 400,
        "eventRecordQPS": 0,
        # With percentages the image collector deletes every image that is not running, and nothing brings it back.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "evictionHard": {"memory.available": "200Mi", "nodefs.available": "1Gi", "imagefs.available": "1Gi"},
        "containerLogMaxSize": "5Mi",
        "containerLogMaxFiles": 2,
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
    }


# ---- down -----------------------------------------------------------------------------------------------------------


def down(
    places: Places, addresses: AddressPlan, report: Progress | None = None, keep: frozenset[str] | None = None
) -> None:
    """End the node and remove everything of it but the cached images. Safe to repeat, and on half a node.

    Of the images those in `keep` stay (all, when it is not given): older ones are only in the way of the next node.

    Errors: `NodeError` listing what could not be removed.
    """
    say = report or (lambda _: None)
    _same_places(places)
    say("processes")
    deadline = time.monotonic() + 30
    while (running := _processes()) and time.monotonic() < deadline:
        _end(running)
    say("mounts and namespaces")
    _unmount_below(places.run)
    _unmount_below(_NETWORK_NAMESPACE)
    _NETWORK_NAMESPACE.unlink(missing_ok=True)
    for command in (["ip", "link", "delete", CABLE], ["ip", "route", "delete", "blackhole", str(addresses.network)]):
        try:
            call(command)
        except MachineError:
            # It was gone already, or no network was ever made here; `left` looks again.
            continue
    say("containers")
    if places.containerd.exists() and shutil.which("containerd"):
        _remove_containers(places, keep)
    say("data")
    for directory in (places.node, places.run):
        if directory.exists():
            shutil.rmtree(directory, ignore_errors=True)
    for target in (*_OWN, _SHIMS):
        # Mount points of ours on the machine; someone else's are not empty, or not ours to judge.
        try:
            Path(target).rmdir()
        except OSError:
            continue
    _remove_cgroups()
    if remains := left(places, addresses):
        raise NodeError(
            "the node is not entirely gone:\n"
            + "\n".join(f"  - {line}" for line in remains)
            + "\nrun the same command again"
        )


def left(places: Places, addresses: AddressPlan) -> tuple[str, ...]:
    """What of a node is still on the machine, one line each. Looks at the machine only, at nothing remembered."""
    found = [f"process {process}" for process in _processes()]
    found += [f"cgroup {root / NAME}" for root in _cgroup_roots() if (root / NAME).exists()]
    found += [
        f"mount {point}"
        for point in _mount_points()
        if point.is_relative_to(places.run) or point.is_relative_to(places.node) or point == _NETWORK_NAMESPACE
    ]
    found += [f"directory {directory}" for directory in (places.node, places.run) if directory.exists()]
    if _NETWORK_NAMESPACE.exists():
        found.append(f"network namespace {NAME}")
    if Path("/sys/class/net", CABLE).exists():
        found.append(f"network device {CABLE}")
    if shutil.which("ip") and str(addresses.network) in call(["ip", "-4", "route", "show", "type", "blackhole"]):
        found.append(f"route blackhole {addresses.network}")
    return tuple(found)


def _remove_containers(places: Places, keep: frozenset[str] | None) -> None:
    """Remove containers and what they wrote from containerd's books, with a containerd that serves nothing else."""
    places.run.mkdir(parents=True, exist_ok=True)
    address = places.run / "cleaning.sock"
    settings = places.run / "cleaning.toml"
    settings.write_text(
        f'version = 2\nroot = "{places.containerd}"\nstate = "{places.run}/cleaning"\n'
        f'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\n  address = "{address}"\n'
    )
    cleaner = subprocess.Popen(
        ["containerd", "--config", settings, "--log-level", "error"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=_environment(),
    )
    try:
        _wait("containerd, to clean up,", lambda: _answers(address), 60, None, places)
        ctr: list[str | Path] = ["ctr", "--address", address, "--namespace", "k8s.io"]
        if containers := call([*ctr, "containers", "ls", "-q"]).split():
            call([*ctr, "containers", "rm", *containers])
        snapshots = [line.split() for line in call([*ctr, "snapshots", "ls"]).splitlines()[1:]]
        for words in snapshots:
            if words[-1] == "Active":
                call([*ctr, "snapshots", "rm", words[0]])
        if keep is not None:
            images.prune(ctr, keep, places)
        if remains := call([*ctr, "containers", "ls", "-q"]).split():
            raise NodeError(f"{len(remains)} containers are still in containerd's books\nrun the same command again")
    finally:
        cleaner.terminate()
        try:
            cleaner.wait(timeout=20)
        except subprocess.TimeoutExpired:
            cleaner.kill()
            cleaner.wait()
    for books in ("sandboxes", "containers"):
        shutil.rmtree(places.containerd / "io.containerd.grpc.v1.cri" / books, ignore_errors=True)


def _remove_cgroups() -> None:
    """Remove the platform's cgroups, leaves first; a dying process may hold one for a moment."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        remaining = [root / NAME for root in _cgroup_roots() if (root / NAME).exists()]
        if not remaining:
            return
        for top in remaining:
            for group in sorted((path for path in top.rglob("*") if path.is_dir()), key=lambda path: -len(path.parts)):
                _remove_cgroup(group)
            _remove_cgroup(top)
        time.sleep(0.05)


def _remove_cgroup(group: Path) -> None:
    try:
        group.rmdir()
    except OSError:
        return


def describe(found: Status) -> dict[str, bool]:
    """The status as plain data, for records."""
    return {**asdict(found), "running": found.running}
