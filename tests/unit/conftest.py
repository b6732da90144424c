"""What the unit tests of the class share: the demo class, a platform that nobody reaches, and a mock of Pulumi."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pulumi
import pulumi.runtime
import pytest
from pulumi.runtime.stack import ResourceRegistrationFailed

from infra.class_file import load
from infra.classroom import program
from infra.spec import ClassSpec, ObjectStore, Platform

_DEMO = Path(__file__).parents[2] / "labs" / "classes" / "demo.yaml"
# Pulumi marks a secret on the wire with this pair (sdk/python/lib/pulumi/runtime/rpc.py).
_SIGNATURE = "4dabf18193072939515e22adb298388d"
_SECRET = "1b47061264138c4ac30d75fd1eb44270"

# What the dynamic resources answer once they are made.
_MADE = {
    "pulumi-python:dynamic/classroom:Password": {"password": "made-password", "hash": "made-hash"},
    "pulumi-python:dynamic/classroom:Bucket": {"bucket": "made-bucket", "access_key": "made", "secret_key": "made-key"},
}


@dataclass(frozen=True, kw_only=True)
class Registered:
    """A resource as the program asked for it."""

    type: str
    name: str
    inputs: dict[str, Any]

    @property
    def kind(self) -> str:
        """`Namespace` of `kubernetes:core/v1:Namespace`."""
        return self.type.split(":")[-1]

    @property
    def metadata(self) -> dict[str, Any]:
        """Its Kubernetes metadata; empty for what is no Kubernetes object."""
        return dict(self.inputs.get("metadata") or {})


def is_secret(value: object) -> bool:
    """Whether a value was handed to the engine as a secret."""
    return isinstance(value, dict) and value.get(_SIGNATURE) == _SECRET


class _Engine(pulumi.runtime.Mocks):
    """An engine that makes nothing and remembers everything."""

    def __init__(self) -> None:
        self.resources: list[Registered] = []

    def new_resource(self, args: pulumi.runtime.MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        self.resources.append(Registered(type=args.typ, name=args.name, inputs=dict(args.inputs)))
        return f"{args.name}-id", {**args.inputs, **_MADE.get(args.typ, {})}

    def call(self, args: pulumi.runtime.MockCallArgs) -> tuple[dict[str, Any], list[tuple[str, str]] | None]:
        raise AssertionError(f"the program calls {args.token}")


@dataclass(frozen=True, kw_only=True)
class Stamped:
    """What a class's program registered and exported."""

    resources: tuple[Registered, ...]
    outputs: dict[str, Any]
    secret_outputs: frozenset[str]

    def of(self, kind: str) -> list[Registered]:
        """All resources of one kind."""
        return [each for each in self.resources if each.kind == kind]


def stamp(spec: ClassSpec, platform: Platform) -> Stamped:
    """Run a class's program against a mocked engine."""
    engine = _Engine()
    outputs: dict[str, Any] = {}
    secret: set[str] = set()

    def run() -> pulumi.Output[None]:
        program(spec, platform)()
        stack = pulumi.runtime.get_root_resource()
        exported = dict(getattr(stack, "outputs", {}))

        async def look() -> None:
            for name, value in exported.items():
                output = pulumi.Output.from_input(value)
                outputs[name] = await output.future()
                if await output.is_secret():
                    secret.add(name)

        return pulumi.Output.from_input(look())

    pulumi.runtime.set_mocks(engine, project="classroom", stack=spec.name, preview=False)
    # As in a real run, that a resource failed is raised when all others are there.
    with suppress(ResourceRegistrationFailed):
        pulumi.runtime.test(run)()
    return Stamped(resources=tuple(engine.resources), outputs=outputs, secret_outputs=frozenset(secret))


@pytest.fixture(scope="session")
def demo() -> ClassSpec:
    """The class that scripts/demo teaches."""
    return load(_DEMO)


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Platform:
    """A platform as the one-machine cluster describes itself; nothing is behind it."""
    directory = tmp_path_factory.mktemp("platform")
    ca = directory / "ca.crt"
    ca.write_text("-----BEGIN CERTIFICATE-----\n")
    return Platform(
        kind="one-machine",
        kubeconfig=directory / "kubeconfig",
        url="https://198.18.0.100/",
        ca_file=ca,
        object_store=ObjectStore(endpoint="http://198.18.0.101:8333"),
        api_server_cidrs=("198.18.0.2/32",),
        notebook_image="localhost/classroom/notebook:1",
        volume_directory=directory / "volumes",
    )


@pytest.fixture(scope="session")
def stamped(demo: ClassSpec, platform: Platform) -> Stamped:
    """The demo class, stamped once for all tests."""
    return stamp(demo, platform)
