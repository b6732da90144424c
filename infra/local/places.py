"""Where the one-machine platform keeps its things: a cache that may be deleted at any time, a state that is it.

Promise: outside these directories, and the run directory below, nothing is written to but

- the kernel's own objects: a network namespace and cgroups of the name `NAME`, a veth pair, one route;
- lock files beside the run directory (`machine.lock`), which stay;
- empty directories where the machine lacks a place at which the node mounts something of its own (/etc/kubernetes,
  /var/lib/kubelet and so on, `node._OWN`): `platform down` removes them again;
- the Debian packages that are missing, which stay, and /usr/sbin/policy-rc.d while they are installed;
- what the programs that are called keep for themselves: apt's lists, uv's cache of wheels, temporary files.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

NAME = "kubeflow-classroom"
"""The name of everything the platform makes in the kernel: network namespace, cgroup, run directory."""


@dataclass(frozen=True, kw_only=True)
class Places:
    """The directories of one platform. None of them needs to exist."""

    cache: Path
    """Built tools, imported images: costs time to make again, nothing else."""
    state: Path
    """The running platform: certificates, databases, volumes, Pulumi's state."""
    run: Path = Path("/run") / NAME
    """Sockets and namespaces: meaningless after the machine restarts."""

    @property
    def tools(self) -> Path:
        return self.cache / "tools"

    @property
    def containerd(self) -> Path:
        """containerd's root: its content store is the image cache and outlives the platform."""
        return self.cache / "containerd"

    @property
    def image_records(self) -> Path:
        """What is known of layers that were built (digests and sizes); the layers themselves are in `containerd`."""
        return self.cache / "images"

    @property
    def scratch(self) -> Path:
        """Half-built layers; deleted when the images stand."""
        return self.cache / "scratch"

    @property
    def node(self) -> Path:
        return self.state / "node"

    @property
    def kubeconfig(self) -> Path:
        return self.node / "kubeconfig"

    @property
    def volumes(self) -> Path:
        """Where the local-path provisioner keeps persistent volumes."""
        return self.node / "volumes"

    @property
    def logs(self) -> Path:
        return self.node / "logs"

    @property
    def containerd_socket(self) -> Path:
        return self.run / "containerd.sock"


def places(environment: Mapping[str, str] | None = None) -> Places:
    """The places as the environment names them (os.environ unless given).

    CLASSROOM_CACHE and CLASSROOM_STATE win; then the XDG base directories; then ~/.cache and ~/.local/state.
    """
    variables = os.environ if environment is None else environment
    home = Path(variables.get("HOME") or Path.home())
    cache = variables.get("XDG_CACHE_HOME")
    state = variables.get("XDG_STATE_HOME")
    return Places(
        cache=_absolute(variables.get("CLASSROOM_CACHE"), (Path(cache) if cache else home / ".cache") / NAME),
        state=_absolute(variables.get("CLASSROOM_STATE"), (Path(state) if state else home / ".local/state") / NAME),
    )


def write_whole(file: Path, text: str) -> None:
    """Write a file that is trusted once it exists: it appears whole or, after sudden death, as it was before."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.partial")
    partial.write_text(text)
    partial.rename(file)


def _absolute(setting: str | None, otherwise: Path) -> Path:
    return Path(setting).expanduser().absolute() if setting else otherwise
