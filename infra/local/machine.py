"""The machine under the platform: is it fit, is it free, and what does it still need.

Deciding (`problems`, pure) is apart from looking (`facts`) and doing (`install_packages`, `lock`).
"""

import fcntl
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Network, ip_network
from pathlib import Path

from infra.failure import CallFailure, Failure
from infra.local.addresses import Use
from infra.local.places import NAME, Places, write_whole
from infra.steps import Cancelled

GIBIBYTE = 1 << 30
FRESH_DISK_GIBIBYTES = 25
"""Free space a first `platform up` needs: compiling leaves that much behind until it is done."""
CACHED_DISK_GIBIBYTES = 6
NEEDED_MEMORY_GIBIBYTES = 6

_POLICY = Path("/usr/sbin/policy-rc.d")
_POLICY_MARK = f"# {NAME}: no service is started while its packages are installed"
CNI_DIRECTORIES = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))
LOCK_FILE = Path("/run") / f"{NAME}.lock"

# What the platform calls, and the Debian package that brings it. Commands and not packages are looked for, so that a
# machine with, say, Docker's containerd keeps it.
_PACKAGE_OF = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "mmdebstrap": "mmdebstrap",
    "nft": "nftables",
    "ip": "iproute2",
    "catatonit": "catatonit",
    "busybox": "busybox-static",
    "zstd": "zstd",
    "unshare": "util-linux",
    "nsenter": "util-linux",
}
_CONTROLLERS = frozenset({"cpu", "cpuset", "memory", "pids"})


class MachineError(Failure):
    """Something the machine was asked to do failed."""


class Unfit(CallFailure):
    """The machine cannot carry the platform."""


class Busy(CallFailure):
    """Another command is at work on this machine with what this one needs."""


class CommandError(MachineError):
    """A program that was called failed."""

    def __init__(self, command: Sequence[str], code: int, output: str) -> None:
        self.code = code
        self.output = output
        last = "\n".join(output.strip().splitlines()[-15:])
        super().__init__(
            f"{Path(command[0]).name} {' '.join(command[1:4])} … ended with exit code {code}:\n{last}{_hint(output)}"
        )


def _hint(output: str) -> str:
    if re.search(
        r"Could not resolve|Temporary failure|Connection (timed out|refused|reset)|Failed to fetch|Unable to connect"
        r"|dns error|error sending request|Could not connect|No address associated|client error \(Connect\)",
        output,
    ):
        return (
            "\nA package registry did not answer. Look at the machine's network (and proxy) settings, "
            "then run the same command again."
        )
    return ""


def call(
    command: Sequence[str | Path],
    *,
    environment: Mapping[str, str] | None = None,
    text: str | None = None,
    cancelled: threading.Event | None = None,
    timeout_seconds: float = 1800,
) -> str:
    """Run a program to its end and return what it printed on standard output. However the caller dies, it dies too.

    Errors: `CommandError` with its last lines; `steps.Cancelled` when `cancelled` is set meanwhile (the program and its
    children are ended); `MachineError` when it takes longer than `timeout_seconds`.
    """
    words = [str(word) for word in command]
    if shutil.which(words[0]) is None:
        raise MachineError(
            f"{words[0]} is not on this machine\nrun the same command again: it installs what is missing"
        )
    tied = ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []
    process = subprocess.Popen(
        [*tied, *words],
        stdin=subprocess.PIPE if text is not None else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env=None if environment is None else dict(environment),
        start_new_session=True,
    )
    deadline = time.monotonic() + timeout_seconds
    pending = text
    try:
        while True:
            try:
                output, errors = process.communicate(input=pending, timeout=0.5 if cancelled else timeout_seconds)
                break
            except subprocess.TimeoutExpired:
                pending = None
                if cancelled and cancelled.is_set():
                    raise Cancelled(f"{words[0]} was stopped; the same command goes on from here") from None
                if time.monotonic() > deadline:
                    raise MachineError(
                        f"{words[0]} took longer than {timeout_seconds:.0f} s\nrun the same command again"
                    ) from None
    except BaseException:
        # A session of its own: the children (apt's, uv's) go with it.
        _end_session(process)
        raise
    if process.returncode != 0:
        raise CommandError(words, process.returncode, errors + output)
    return output


def _end_session(process: "subprocess.Popen[str]") -> None:
    with process:  # closes its pipes
        for ending in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, ending)
                process.wait(timeout=5)
            except ProcessLookupError:
                break
            except subprocess.TimeoutExpired:
                continue


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What was found on the machine."""

    user_id: int
    system: str
    architecture: str
    cgroup_controllers: frozenset[str]
    free_disk_bytes: int
    free_memory_bytes: int
    has_package_manager: bool
    missing_commands: frozenset[str]


def facts(places: Places) -> Facts:
    """Look at the machine. Changes nothing."""
    existing = places.cache
    while not existing.exists():
        existing = existing.parent
    return Facts(
        user_id=os.geteuid(),
        system=platform.system(),
        architecture=platform.machine(),
        cgroup_controllers=_controllers(),
        free_disk_bytes=shutil.disk_usage(existing).free,
        free_memory_bytes=_available_memory(),
        has_package_manager=shutil.which("apt-get") is not None,
        missing_commands=missing_commands(),
    )


def problems(
    found: Facts, *, disk_gibibytes: float, memory_gibibytes: float = NEEDED_MEMORY_GIBIBYTES
) -> tuple[str, ...]:
    """Every reason why the platform cannot stand here, one clear sentence each with its mend. Empty: it can."""
    wrong = []
    if found.system != "Linux" or found.architecture not in ("x86_64", "amd64"):
        wrong.append(f"this is {found.system} on {found.architecture}: the one-machine platform needs Linux on x86-64")
    if found.user_id != 0:
        wrong.append("not root: the node needs network namespaces and mounts; run it with sudo")
    if lacking := _CONTROLLERS - found.cgroup_controllers:
        wrong.append(
            f"the cgroup controllers {', '.join(sorted(lacking))} are off: "
            "enable them on the kernel's command line and restart"
        )
    if found.free_disk_bytes < disk_gibibytes * GIBIBYTE:
        wrong.append(
            f"{found.free_disk_bytes / GIBIBYTE:.1f} GiB of disk are free, {disk_gibibytes:g} GiB are needed: "
            "free some, or set CLASSROOM_CACHE and CLASSROOM_STATE to a larger disk"
        )
    if found.free_memory_bytes < memory_gibibytes * GIBIBYTE:
        wrong.append(
            f"{found.free_memory_bytes / GIBIBYTE:.1f} GiB of memory are free, {memory_gibibytes:g} GiB are needed: "
            "end other programs or use a larger machine"
        )
    if found.missing_commands and not found.has_package_manager:
        wrong.append(f"{', '.join(sorted(found.missing_commands))} missing and there is no apt-get: install them")
    return tuple(wrong)


def preflight(places: Places, *, disk_gibibytes: float, memory_gibibytes: float = NEEDED_MEMORY_GIBIBYTES) -> None:
    """Errors: `Unfit` with every problem, one a line."""
    if wrong := problems(facts(places), disk_gibibytes=disk_gibibytes, memory_gibibytes=memory_gibibytes):
        raise Unfit("this machine cannot carry the platform:\n" + "\n".join(f"  - {line}" for line in wrong))


def missing_commands() -> frozenset[str]:
    """Which of the programs the platform calls are not there ("cni" stands for the bridge plugins)."""
    missing = {name for name in _PACKAGE_OF if shutil.which(name) is None}
    if cni_directory() is None:
        missing.add("cni")
    return frozenset(missing)


def cni_directory() -> Path | None:
    """Where the CNI plugins are, when they are."""
    return next(
        (place for place in CNI_DIRECTORIES if (place / "bridge").exists() and (place / "host-local").exists()), None
    )


def install_packages(cancelled: threading.Event | None = None) -> tuple[str, ...]:
    """Install what is missing from the machine's own Debian mirror, starting none of the packages' services.

    Returns the packages that were installed. Errors: `CommandError` when the mirror refuses or does not answer.
    """
    if _POLICY.is_file() and _POLICY_MARK.encode() in _POLICY.read_bytes():
        # Left behind by a command that was killed: no package on the machine would start its service any more.
        _POLICY.unlink()
    missing = missing_commands()
    packages = tuple(sorted({_PACKAGE_OF.get(name, "containernetworking-plugins") for name in missing}))
    if not packages:
        return ()
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "--yes", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=120", *packages]
    with _services_held_back():
        try:
            call(install, environment=environment, cancelled=cancelled)
        except CommandError:
            # The lists are absent or too old; only then is fetching them worth its seconds.
            call(["apt-get", "update", "-o", "DPkg::Lock::Timeout=120"], environment=environment, cancelled=cancelled)
            call(install, environment=environment, cancelled=cancelled)
    return packages


@contextmanager
def _services_held_back() -> Iterator[None]:
    """Debian starts a package's services unless /usr/sbin/policy-rc.d says no; the owner's is left as it is."""
    if _POLICY.exists():
        yield
        return
    write_whole(_POLICY, f"#!/bin/sh\n{_POLICY_MARK}\nexit 101\n")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink(missing_ok=True)


@contextmanager
def lock(what: str, file: Path = LOCK_FILE) -> Iterator[None]:
    """Hold the machine's one platform lock, or another in `file`; it falls when the process ends, however it ends.

    `what` says what is being done, for the one who finds the lock taken. Errors: `Busy`, at once; `Unfit`.
    """
    try:
        opened = file.open("a+")
    except OSError as error:
        own = file.parent == LOCK_FILE.parent
        mend = "the one-machine platform needs root on Linux; run it with sudo" if own else "make it yours to write"
        raise Unfit(f"{file}: {error.strerror}: {mend}") from None
    with opened as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held.seek(0)
            raise Busy(
                f"another command is at work on this machine: {held.read().strip() or 'unknown'}; "
                "wait for it, or stop it with Ctrl-C, then run the same command again"
            ) from None
        held.truncate(0)
        held.write(f"{what} (process {os.getpid()}, since {time.strftime('%H:%M:%S')})")
        held.flush()
        try:
            yield
        finally:
            held.truncate(0)


def networks_in_use(own_devices: frozenset[str], own_network: IPv4Network) -> tuple[Use, ...]:
    """Every IPv4 network the machine routes or has an address in, less the platform's own cable and blackhole."""
    uses = []
    for entry in json.loads(call(["ip", "-4", "-json", "address", "show"])):
        for address in entry.get("addr_info", ()):
            if entry["ifname"] not in own_devices and "local" in address:
                network = ip_network(f"{address['local']}/{address['prefixlen']}", strict=False)
                uses.append(Use(network=IPv4Network(network), where=f"network of {entry['ifname']}"))
    for route in json.loads(call(["ip", "-4", "-json", "route", "show", "table", "all"])):
        destination = route.get("dst", "default")
        if destination == "default" or route.get("dev") in own_devices or route.get("type") in ("local", "broadcast"):
            continue
        network = IPv4Network(ip_network(destination, strict=False))
        if route.get("type") == "blackhole" and network == own_network:
            continue
        where = f"route through {route['dev']}" if "dev" in route else f"{route.get('type', 'unknown')} route"
        uses.append(Use(network=network, where=where))
    return tuple(uses)


def _controllers() -> frozenset[str]:
    unified = Path("/sys/fs/cgroup/cgroup.controllers")
    if unified.exists():
        return frozenset(unified.read_text().split())
    mounts = Path("/proc/self/mounts").read_text().splitlines() if Path("/proc/self/mounts").exists() else []
    return frozenset(
        option for line in mounts if (words := line.split())[2] == "cgroup" for option in words[3].split(",")
    )


def _available_memory() -> int:
    file = Path("/proc/meminfo")
    found = re.search(r"^MemAvailable:\s+(\d+) kB", file.read_text(), re.MULTILINE) if file.exists() else None
    return int(found[1]) * 1024 if found else 0
