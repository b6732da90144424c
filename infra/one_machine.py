"""The embedded default: from nothing to a real Kubeflow on this machine as one graph of steps, and back to nothing.

packages ─▶ containerd ─▶ images of packages ────────────┐
                 └──▶ images of the node ─▶ node ────────┤
tools: pulumi ───────────────▲───────────────────────────┼─▶ Kubeflow ─▶ login page
       cluster ──────────────┘                           │
       pipelines, notebooks ─────▶ images of tools ──────┘
"""

import hashlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from http import HTTPStatus
from pathlib import Path
from typing import ClassVar, Self

import requests
from pydantic import BaseModel

from infra import cluster, platform
from infra.failure import CallFailure, Failure
from infra.local import images, machine, node, tools
from infra.local.addresses import DEFAULT_NETWORK, AddressPlan, plan, taken
from infra.local.places import Places, places, write_whole
from infra.platform.settings import PlatformSettings
from infra.spec import ClassSpec, ObjectStore, OneMachine, Platform
from infra.steps import Cancelled, Event, Listener, Report, Step, run

_PULUMI_SETS = ("pulumi", "pulumi-python")
# A build keeps every processor busy: more sets at once would only compile what they share twice.
_BUILDS_AT_ONCE = 2
# A gateway that has just become ready answers within a second or two, on a busy machine a little later.
_PAGE_WITHIN_SECONDS = 60


class NotUp(CallFailure):
    """The platform is needed and does not stand."""


class PageSilent(Failure):
    """Everything of the platform is ready, and yet its login page does not answer."""


def up(listener: Listener, cancelled: threading.Event | None = None) -> Platform:
    """Have the platform stand; how it is reached. Whatever stands already is kept, whatever was cut off goes on.

    Errors: `Failure` of the step that failed; `Cancelled` and KeyboardInterrupt, after which the same call goes on.
    """
    here, addresses, stop = places(), address_plan(), cancelled or threading.Event()
    with machine.lock("classroom platform up"):
        _fit(here, addresses)
        run(_Assembly(here, addresses, stop).steps(), listener, stop)
    return reached()


def down(listener: Listener, *, purge: bool = False) -> None:
    """Have nothing of the platform left on the machine but the cache, and with `purge` not even that. Safe to repeat.

    Once this version's tools and images are all built, those of others go from the cache as well: a checkout of another
    version that shares it builds them anew.

    Errors: `node.NodeError` naming what could not be removed.
    """
    here, addresses = places(), address_plan()

    def node_gone(report: Report) -> None:
        # Pulumi's state of the platform and of the classes on it lies with the node's data and goes with it.
        current = frozenset(images.references(executables(here), here).values()) if is_built() else None
        node.down(here, addresses, report, keep=current)
        if current is not None:
            tools.discard_superseded(here.cache, report)

    def cache_gone(report: Report) -> None:
        report("built tools and images")
        tools.discard_build_caches(here.cache)
        shutil.rmtree(here.cache, ignore_errors=True)
        if here.cache.exists():
            raise node.NodeError(f"{here.cache} is not entirely gone; look what still uses it and run this again")

    with machine.lock("classroom platform down"):
        steps = [Step(name="node", action=node_gone)]
        run([*steps, Step(name="cache", needs=("node",), action=cache_gone)] if purge else steps, listener)


def status() -> Mapping[str, bool]:
    """What of the platform stands: tools, the node's parts, and each of Kubeflow's workloads. Changes nothing."""
    here = places()
    built = all(tools.is_built(each, here.cache) for each in tools.tool_sets())
    found = node.status(here, address_plan())
    made = _Made.of(here)
    standing = _workloads(here.kubeconfig) if found.ready else {}
    parts = {name: standing.get(name, False) for name in sorted(made.workloads)} if made else {"kubeflow": False}
    return {"tools built": built, **node.describe(found), **parts}


def reached() -> Platform:
    """How the platform that stands is reached. Errors: `NotUp`."""
    here, addresses = places(), address_plan()
    if not (_ca_file(here).exists() and node.status(here, addresses).running):
        raise NotUp("the one-machine platform does not run; run `scripts/classroom platform up`")
    return Platform(
        kind="one-machine",
        kubeconfig=here.kubeconfig,
        url=f"https://{addresses.gateway}/",
        ca_file=_ca_file(here),
        object_store=ObjectStore(endpoint=f"http://{addresses.object_store}:8333"),
        api_server_cidrs=(f"{addresses.node}/32",),
        notebook_image=images.references(executables(here), here)["notebook"],
        volume_directory=here.volumes,
    )


def platform_of(spec: ClassSpec) -> Platform:
    """The Kubeflow that a class is held on: this machine's, unless its file describes another. Errors: `NotUp`."""
    return reached() if isinstance(spec.platform, OneMachine) else spec.platform


def is_made() -> bool:
    """Whether there is a platform, running or not: its data are somebody's, and whoever borrows it leaves it."""
    return node.status(places(), address_plan()).initialised


def is_running() -> bool:
    """Whether the platform runs, so that `up` has nothing to start."""
    return _ca_file(places()).exists() and node.status(places(), address_plan()).running


def reserved(what: str) -> AbstractContextManager[None]:
    """Keep the platform for `what`, which may put it up and take it down. Errors: `machine.Busy`: another has it."""
    return machine.lock(what, machine.LOCK_FILE.with_suffix(".reserved"))


def is_built() -> bool:
    """Whether the cache holds every tool and image, so that `up` builds nothing."""
    here = places()
    return all(tools.is_built(each, here.cache) for each in tools.tool_sets()) and images.all_made(
        executables(here), here
    )


def memory_bytes() -> int:
    """What the node and everything on it use of the machine's memory, page cache that can be given back left out."""
    return node.memory_bytes()


def address_plan() -> AddressPlan:
    """Who has which address on this machine's platform: of CLASSROOM_NETWORK's range, where it is set."""
    return plan(os.environ.get("CLASSROOM_NETWORK") or DEFAULT_NETWORK)


def state_directory() -> Path:
    """Where Pulumi's state of whatever stands on this platform is kept: it goes when the platform goes."""
    return places().node


def pulumi_directories() -> tuple[Path, ...]:
    """Where the Pulumi that was built for this machine lies; empty where none was, so that the one on PATH serves."""
    here = places()
    return tuple(
        tools.directory(each, here.cache) / "bin"
        for each in tools.tool_sets()
        if each.name in _PULUMI_SETS and tools.is_built(each, here.cache)
    )


class _Assembly:
    """The steps of one `up`, and what one hands to the next."""

    def __init__(self, here: Places, addresses: AddressPlan, cancelled: threading.Event) -> None:
        self._here, self._addresses, self._cancelled = here, addresses, cancelled
        self._builds = threading.BoundedSemaphore(_BUILDS_AT_ONCE)
        self._sets = {each.name: each for each in tools.tool_sets()}

    def steps(self) -> list[Step]:
        """The longest build first: steps that may start at once do so in this order."""
        builds = {
            name: f"tools: {name}"
            for name in ("pulumi", "cluster", "pipelines", "notebooks", "pulumi-python", "manifests")
        }
        return [
            *(Step(name=step, action=self._build(name)) for name, step in builds.items()),
            Step(name="packages", action=self._packages),
            Step(name="containerd", needs=("packages",), action=self._containerd),
            Step(name="images: node", needs=("containerd", builds["cluster"]), action=self._images(images.NODE_IMAGES)),
            Step(name="node", needs=("images: node",), action=self._node),
            Step(name="images: packages", needs=("containerd",), action=self._images(images.PACKAGE_IMAGES)),
            Step(name="images: tools", needs=("containerd", *builds.values()), action=self._images(None)),
            Step(name="build caches", needs=tuple(builds.values()), action=self._discard_build_caches),
            Step(name="kubeflow", needs=("node", "images: packages", "images: tools"), action=self._kubeflow),
            Step(name="login page", needs=("kubeflow",), action=self._login_page),
        ]

    def _build(self, name: str) -> Callable[[Report], None]:
        def build(report: Report) -> None:
            with self._builds:
                if self._cancelled.is_set():
                    raise Cancelled(f"{name} was not begun; the same command goes on from here")
                tools.build(self._sets[name], self._here.cache, report, self._cancelled)

        return build

    def _packages(self, report: Report) -> None:
        report("what the node calls, from the machine's own Debian mirror")
        machine.install_packages(self._cancelled)

    def _containerd(self, report: Report) -> None:
        report("in the node's namespaces")
        node.start_containerd(self._here, self._addresses, self._cancelled)

    def _images(self, names: tuple[str, ...] | None) -> Callable[[Report], None]:
        def ensure(report: Report) -> None:
            made = executables(self._here)
            wanted = names or tuple(
                name for name in images.images(made, self._here) if name not in images.PACKAGE_IMAGES
            )
            images.ensure(wanted, made, self._here, report, self._cancelled)

        return ensure

    def _node(self, report: Report) -> None:
        node.up(self._here, self._addresses, executables(self._here), report, self._cancelled)

    def _discard_build_caches(self, report: Report) -> None:
        report("what compiling left behind")
        tools.discard_build_caches(self._here.cache)

    def _kubeflow(self, report: Report) -> None:
        settings = _settings(self._here, self._addresses)
        made = _Made.of(self._here)
        standing = _workloads(self._here.kubeconfig)
        same = made is not None and made.program == _program_fingerprint(settings)
        whole = made is not None and all(standing.get(name) for name in made.workloads)
        if same and whole and _ca_file(self._here).exists():
            return
        # Pulumi takes a second to import: whoever only asks how the platform is reached need not wait for it.
        from infra import engine
        from infra.platform.kubeflow import platform_program

        stack = engine.Stack(
            project="kubeflow-platform",
            name="one-machine",
            program=platform_program(settings),
            state=self._here.node,
            tools=pulumi_directories(),
            # Writing the state after each of two hundred resources is slow; one that is lost is adopted again.
            checkpoints=False,
        )

        def listen(event: Event) -> None:
            report(event.detail, event.done, event.total)

        if made is not None and not made.workloads <= standing.keys():
            # Pulumi trusts its state until it is told to look: something was deleted by hand.
            engine.refresh(stack, listen, self._cancelled)
        outputs = engine.up(stack, listen, self._cancelled)
        write_whole(_ca_file(self._here), outputs["ca_certificate"].value)
        stands = frozenset(_workloads(self._here.kubeconfig))
        now = _Made(program=_program_fingerprint(settings), workloads=stands)
        write_whole(self._here.node / _Made.FILE, now.model_dump_json())

    def _login_page(self, report: Report) -> None:
        url = f"https://{self._addresses.gateway}/"
        report(url)
        expect_page(url, _ca_file(self._here), self._cancelled)


def expect_page(url: str, ca_file: Path, cancelled: threading.Event, seconds: float = _PAGE_WITHIN_SECONDS) -> None:
    """Wait until a page, or the way to its login, is shown to somebody on this machine. Errors: `PageSilent` after
    `seconds` with what was answered last; `Cancelled`."""
    until = time.monotonic() + seconds
    with requests.Session() as session:
        # The address is this machine's own: no proxy has anything to do with it.
        session.trust_env = False
        session.verify = str(ca_file)
        while True:
            try:
                status = session.get(url, allow_redirects=False, timeout=10).status_code
                if status < HTTPStatus.BAD_REQUEST:
                    return
                said = f"status {status}"
            except requests.RequestException as error:
                said = str(error)
            if time.monotonic() > until:
                raise PageSilent(
                    f"the login page {url} does not answer within {seconds:.0f} s, though Kubeflow's parts are ready: "
                    f"{said}; run `scripts/classroom platform down`, then `platform up`"
                )
            if cancelled.wait(1):
                raise Cancelled("stopped before the login page was tried; the same command goes on from here")


class _Made(BaseModel):
    """What the last run of the platform's program was, and which workloads stood after it."""

    FILE: ClassVar = "kubeflow.json"

    program: str
    workloads: frozenset[str]

    @classmethod
    def of(cls, here: Places) -> Self | None:
        """What is known of the platform in these places; None when its program has not come to its end yet."""
        file = here.node / cls.FILE
        return cls.model_validate_json(file.read_bytes()) if file.exists() else None


def _program_fingerprint(settings: PlatformSettings) -> str:
    """Changes with the platform's program and its settings."""
    digest = hashlib.sha256(repr(settings).encode())
    for source in sorted(Path(platform.__file__).parent.iterdir()):
        digest.update(source.read_bytes() if source.is_file() else b"")
    return digest.hexdigest()


def _workloads(kubeconfig: Path) -> dict[str, bool]:
    """The Deployments and DaemonSets of the cluster: whether all their pods are ready."""
    found: dict[str, bool] = {}
    with cluster.api(kubeconfig, None) as api:
        for kind, wanted, ready in (
            ("deployments", "replicas", "readyReplicas"),
            ("daemonsets", "desiredNumberScheduled", "numberReady"),
        ):
            for item in (cluster.get(api, f"/apis/apps/v1/{kind}") or {}).get("items", []):
                status, name = item["status"], item["metadata"]
                whole = 0 < status.get(wanted, 0) <= status.get(ready, 0)
                found[f"{kind}/{name['namespace']}/{name['name']}"] = whole
    return found


def _settings(here: Places, addresses: AddressPlan) -> PlatformSettings:
    return PlatformSettings(
        kubeconfig=here.kubeconfig,
        manifests=tuple(tools.directory(each, here.cache) / "manifests" for each in tools.tool_sets()),
        images=images.references(executables(here), here),
        gateway_address=addresses.gateway,
        object_store_address=addresses.object_store,
        load_balancers=addresses.load_balancers,
        dns_address=addresses.dns,
        pods=addresses.pods,
        volume_directory=here.volumes,
    )


def _fit(here: Places, addresses: AddressPlan) -> None:
    """Refuse a machine that cannot carry the platform, before anything is changed on it."""
    if node.status(here, addresses).running:
        return
    disk = machine.CACHED_DISK_GIBIBYTES if is_built() else machine.FRESH_DISK_GIBIBYTES
    machine.preflight(here, disk_gibibytes=disk)
    if shutil.which("ip"):
        # Where it is not installed yet, the node asks again once it is.
        taken(addresses, machine.networks_in_use(frozenset({node.CABLE}), addresses.network))


def executables(here: Places | None = None) -> dict[str, Path]:
    """Every executable of the sets that stand, by name."""
    cache = (here or places()).cache
    found = (tools.directory(each, cache) / "bin" for each in tools.tool_sets() if tools.is_built(each, cache))
    return {file.name: file for directory in found for file in sorted(directory.iterdir())}


def _ca_file(here: Places) -> Path:
    return here.node / "gateway-ca.crt"
