"""Recipes change their references with their inputs; archives are valid OCI layouts."""

import hashlib
import json
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from infra.local import images as module
from infra.local.images import (
    Debian,
    Image,
    Layer,
    MorePackages,
    Program,
    Skeleton,
    Wheels,
    add_tree,
    all_made,
    images,
    key,
    prune,
    references,
    write_archive,
    write_layer,
)
from infra.local.machine import MachineError
from infra.local.places import Places


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(cache=tmp_path / "cache", state=tmp_path / "state", run=tmp_path / "run")


@pytest.fixture
def host_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that has catatonit and busybox."""
    for name in ("catatonit", "busybox"):
        program = tmp_path / name
        program.write_text("#!/bin/sh\necho sh\necho ls\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")


def layers(tmp_path: Path) -> list[Layer]:
    lock, other = tmp_path / "a.lock", tmp_path / "b.lock"
    lock.write_text("kfp==2.14.3\n")
    other.write_text("kfp==2.14.4\n")
    debian, larger = Debian(packages=("a",)), Debian(packages=("a", "b"))
    return [
        Skeleton(),
        debian,
        larger,
        MorePackages(on=debian, packages=("c",)),
        MorePackages(on=larger, packages=("c",)),
        MorePackages(on=debian, packages=("d",)),
        MorePackages(on=debian, packages=("d",), without=("usr/lib/x",)),
        MorePackages(on=debian, packages=("d",), without=("usr/lib/y",)),
        Wheels(on=debian, lock=lock),
        Wheels(on=debian, lock=other),
        Wheels(on=debian, lock=lock, python="3.12"),
        Program(source=tmp_path, identity="x", path="/usr/local/bin/x"),
        Program(source=tmp_path, identity="y", path="/usr/local/bin/x"),
        Program(source=tmp_path, identity="x", path="/usr/local/bin/y"),
        Program(source=tmp_path, identity="x", path="/usr/local/bin/x", links=("/bin/x",)),
    ]


def test_layers_with_different_inputs_have_different_keys(tmp_path: Path) -> None:
    keys = [key(layer) for layer in layers(tmp_path)]
    assert len(set(keys)) == len(keys)


def test_layers_with_the_same_inputs_share_a_key_wherever_the_file_lies(tmp_path: Path) -> None:
    here, there = tmp_path / "here.lock", tmp_path / "there.lock"
    for lock in (here, there):
        lock.write_text("kfp==2.14.3\n")
    debian = Debian(packages=("a",))
    assert key(Wheels(on=debian, lock=here)) == key(Wheels(on=debian, lock=there))


_PLAIN = Image(name="x", layers=(Skeleton(),))


@pytest.mark.parametrize(
    "changed",
    [
        replace(_PLAIN, entrypoint=("a",)),
        replace(_PLAIN, command=("a",)),
        replace(_PLAIN, environment={"A": "b"}),
        replace(_PLAIN, user="1000"),
        replace(_PLAIN, directory="/home"),
        replace(_PLAIN, layers=(Skeleton(), Debian(packages=()))),
    ],
)
def test_a_reference_changes_with_every_part_of_the_recipe(changed: Image) -> None:
    assert changed.reference != _PLAIN.reference
    assert replace(_PLAIN).reference == _PLAIN.reference


@pytest.mark.usefixtures("host_programs")
def test_a_rebuilt_tool_set_renames_its_images_and_no_others(places: Places) -> None:
    before = references(
        {"dex": places.tools / "cluster-1/bin/dex", "argoexec": places.tools / "p-1/bin/argoexec"}, places
    )
    after = references(
        {"dex": places.tools / "cluster-2/bin/dex", "argoexec": places.tools / "p-1/bin/argoexec"}, places
    )
    assert {name for name in before if before[name] != after[name]} == {"dex"}


@pytest.mark.usefixtures("host_programs")
def test_what_runs_on_the_machine_is_no_image(places: Places) -> None:
    tools = {
        name: places.tools / "x/bin" / name
        for name in ("kubelet", "kubeadm", "pulumi", "pulumi-language-python", "etcd")
    }
    assert {"etcd"} == set(images(tools, places)) & set(tools)


@pytest.mark.usefixtures("host_programs")
def test_kubeadms_images_have_the_names_it_composes(places: Places) -> None:
    made = images({name: places.tools / "x/bin" / name for name in ("kube-proxy", "etcd")}, places)
    assert made["kube-proxy"].alias == "localhost/k8s/kube-proxy:v1.35.4"
    assert made["etcd"].alias == "localhost/k8s/etcd:3.6.16"


@pytest.mark.usefixtures("host_programs")
def test_the_class_image_shares_its_debian_and_has_the_wheels_on_top(places: Places) -> None:
    made = images({}, places)
    debian, packages, wheels = made["notebook"].layers
    assert made["debian"].layers == (debian,)
    assert isinstance(packages, MorePackages)
    assert "python3-torch" in packages.packages
    assert isinstance(wheels, Wheels)


def test_no_lock_names_a_registry() -> None:
    folder = Path(__file__).parents[2] / "infra/local/images"
    locks = sorted(folder.glob("*.lock"))
    assert [lock.name for lock in locks] == ["binaries.lock", "mlmd.lock", "notebook.lock"]
    for lock in locks:
        text = lock.read_text()
        assert "://" not in text
        assert "--hash=sha256:" in text


@pytest.mark.parametrize("name", ["binaries", "mlmd", "notebook"])
def test_a_lock_holds_what_was_asked_for(name: str) -> None:
    folder = Path(__file__).parents[2] / "infra/local/images"
    locked = {line.split(" ")[0] for line in (folder / f"{name}.lock").read_text().splitlines() if line[:1].isalpha()}
    for wanted in (folder / f"{name}.in").read_text().split():
        assert any(pin == wanted or pin.startswith(f"{wanted}==") for pin in locked), wanted


def test_an_archives_digests_and_sizes_are_those_of_its_blobs(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "usr/bin").mkdir(parents=True)
    (tree / "usr/bin/tool").write_text("x" * 100_000)
    (tree / "usr/bin/link").symlink_to("tool")
    layer_file, archive = tmp_path / "layer", tmp_path / "archive"
    blob = write_layer(layer_file, lambda tar: add_tree(tar, tree))
    image = Image(name="x", layers=(Skeleton(),), command=("tool",), alias="localhost/k8s/x:1")
    write_archive(archive, [(image, (blob,))], {blob.digest: layer_file})
    with tarfile.open(archive) as tar:
        contents = {entry.name: tar.extractfile(entry).read() for entry in tar if entry.isfile()}  # type: ignore[union-attr]  # files only
    for name, data in contents.items():
        if name.startswith("blobs/"):
            assert name == f"blobs/sha256/{hashlib.sha256(data).hexdigest()}"
    index = json.loads(contents["index.json"])
    names = {entry["annotations"]["io.containerd.image.name"] for entry in index["manifests"]}
    assert names == {image.reference, "localhost/k8s/x:1"}
    for entry in index["manifests"]:
        data = contents["blobs/sha256/" + entry["digest"].removeprefix("sha256:")]
        assert len(data) == entry["size"]
        manifest = json.loads(data)
        for described in (manifest["config"], *manifest["layers"]):
            assert len(contents["blobs/sha256/" + described["digest"].removeprefix("sha256:")]) == described["size"]
        configuration = json.loads(contents["blobs/sha256/" + manifest["config"]["digest"].removeprefix("sha256:")])
        stored = contents["blobs/sha256/" + manifest["layers"][0]["digest"].removeprefix("sha256:")]
        unpacked = subprocess.run(["zstd", "-dc"], input=stored, capture_output=True, check=True).stdout
        assert configuration["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(unpacked).hexdigest()}"]
        assert configuration["config"]["Cmd"] == ["tool"]


def test_a_layer_holds_the_tree_with_its_modes_and_links(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "bin").mkdir(parents=True)
    (tree / "bin/a").write_text("a")
    (tree / "bin/a").chmod(0o4755)
    (tree / "bin/b").hardlink_to(tree / "bin/a")
    write_layer(tmp_path / "layer", lambda tar: add_tree(tar, tree, prefix="opt/"))
    plain = tmp_path / "plain.tar"
    subprocess.run(["zstd", "-q", "-d", "-o", plain, tmp_path / "layer"], check=True)
    with tarfile.open(plain) as tar:
        entries = {entry.name: entry for entry in tar}
    assert set(entries) == {"opt/bin", "opt/bin/a", "opt/bin/b"}
    assert entries["opt/bin/a"].mode & 0o7777 == 0o4755
    assert entries["opt/bin/b"].islnk()


@pytest.mark.parametrize(
    ("ends", "size"),
    [
        ("exit 3", 1),
        ("exit 3", 1_000_000),
        ("exit 3", 9_000_000),
        ("exit 0", 9_000_000),
        ("head -c 4096 >/dev/null; exit 3", 9_000_000),
    ],
)
def test_a_compressor_that_dies_is_told_as_a_full_disk(
    ends: str, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    zstd = tmp_path / "bin" / "zstd"
    zstd.write_text(f"#!/bin/sh\n{ends}\n")
    zstd.chmod(0o755)
    monkeypatch.setenv("PATH", str(zstd.parent), prepend=":")
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(b"x" * size)

    with pytest.raises(MachineError, match=r"exit code [03] \(is the disk full"):
        write_layer(tmp_path / "layer", lambda tar: add_tree(tar, tree))


@pytest.mark.usefixtures("host_programs")
def test_an_image_that_is_pruned_is_not_called_made_afterwards(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = frozenset(references({}, places).values())
    marks = [module._ready(reference, places) for reference in wanted]
    places.containerd.mkdir(parents=True)
    marks[0].parent.mkdir(parents=True)
    for mark in marks:
        mark.touch()
    called: list[list[str]] = []
    listed = "\n".join([*sorted(wanted), "localhost/k8s/pause:1"])
    real = module.call
    monkeypatch.setattr(
        module, "call", lambda command: called.append(command) or listed if command[0] == "ctr" else real(command)
    )

    prune(["ctr"], wanted, places)
    assert called == [["ctr", "images", "ls", "-q"]]
    assert all_made({}, places)

    gone = images({}, places)["notebook"].reference
    prune(["ctr"], wanted - {gone}, places)
    assert called[-1] == ["ctr", "images", "rm", "--sync", gone]
    assert not all_made({}, places)
    assert len(list(marks[0].parent.iterdir())) == len(wanted) - 1
