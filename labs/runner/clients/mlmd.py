"""ML Metadata, read over gRPC-Web: the parameters, artifacts and lineage of a run are nowhere else.

The messages are a readable subset of ml_metadata's metadata_store.proto and metadata_store_service.proto (same names,
same numbers; protobuf skips what is left out). gRPC-Web is gRPC within a plain HTTP/1.1 POST, so that it passes the
Kubernetes API server's service proxy, which HTTP/2 does not.
"""

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import proto
from google.protobuf import json_format, struct_pb2

__protobuf__ = proto.module(
    package="ml_metadata",
    manifest={
        "Value",
        "Artifact",
        "Execution",
        "Context",
        "PathStep",
        "Path",
        "Event",
        "GetContextByTypeAndNameRequest",
        "GetContextByTypeAndNameResponse",
        "GetExecutionsByContextRequest",
        "GetExecutionsByContextResponse",
        "GetArtifactsByContextRequest",
        "GetArtifactsByContextResponse",
        "GetEventsByExecutionIDsRequest",
        "GetEventsByExecutionIDsResponse",
    },
)

SERVICE = "ml_metadata.MetadataStoreService"
CONTENT_TYPE = "application/grpc-web+proto"
RUN_CONTEXT = "system.PipelineRun"

_NOT_FOUND = 5
_TRAILERS = 0x80
_COMPRESSED = 0x01

EXECUTION_STATES = ("UNKNOWN", "NEW", "RUNNING", "COMPLETE", "FAILED", "CACHED", "CANCELED")
ARTIFACT_STATES = ("UNKNOWN", "PENDING", "LIVE", "MARKED_FOR_DELETION", "DELETED", "ABANDONED", "REFERENCE")
EVENT_TYPES = (
    "UNKNOWN",
    "DECLARED_OUTPUT",
    "DECLARED_INPUT",
    "INPUT",
    "OUTPUT",
    "INTERNAL_INPUT",
    "INTERNAL_OUTPUT",
    "PENDING_OUTPUT",
)


# proto-plus turns these into properties of the values; saying so here lets a type checker see the values.
def _field(kind: Any, number: int, **more: Any) -> Any:
    return proto.Field(kind, number=number, **more)


def _list(kind: Any, number: int, **more: Any) -> Any:
    return proto.RepeatedField(kind, number=number, **more)


def _map(number: int, message: Any) -> Any:
    return proto.MapField(proto.STRING, proto.MESSAGE, number=number, message=message)


class Value(proto.Message):
    """A property: one of a number, a text, a structure, a truth value."""

    int_value: int = _field(proto.INT64, 1, oneof="value")
    double_value: float = _field(proto.DOUBLE, 2, oneof="value")
    string_value: str = _field(proto.STRING, 3, oneof="value")
    struct_value: struct_pb2.Struct = _field(proto.MESSAGE, 4, message=struct_pb2.Struct, oneof="value")
    bool_value: bool = _field(proto.BOOL, 6, oneof="value")


class Artifact(proto.Message):
    """Something a task made or took, with the place it lies at."""

    id: int = _field(proto.INT64, 1)
    uri: str = _field(proto.STRING, 3)
    properties: Mapping[str, Value] = _map(4, message=Value)
    custom_properties: Mapping[str, Value] = _map(5, message=Value)
    state: int = _field(proto.INT32, 6)
    name: str = _field(proto.STRING, 7)
    type_: str = _field(proto.STRING, 8)


class Execution(proto.Message):
    """A task (or the graph around tasks) at work."""

    id: int = _field(proto.INT64, 1)
    last_known_state: int = _field(proto.INT32, 3)
    custom_properties: Mapping[str, Value] = _map(5, message=Value)
    name: str = _field(proto.STRING, 6)
    type_: str = _field(proto.STRING, 7)
    create_time_since_epoch: int = _field(proto.INT64, 8)
    last_update_time_since_epoch: int = _field(proto.INT64, 9)


class Context(proto.Message):
    """What belongs together, here a run."""

    id: int = _field(proto.INT64, 1)
    name: str = _field(proto.STRING, 3)
    custom_properties: Mapping[str, Value] = _map(5, message=Value)


class PathStep(proto.Message):
    """`Event.Path.Step`: the name, or the place in a list, under which a task knows an artifact."""

    index: int = _field(proto.INT64, 1, oneof="value")
    key: str = _field(proto.STRING, 2, oneof="value")


class Path(proto.Message):
    """`Event.Path`."""

    steps: Sequence[PathStep] = _list(proto.MESSAGE, 1, message=PathStep)


class Event(proto.Message):
    """That an execution took or made an artifact."""

    artifact_id: int = _field(proto.INT64, 1)
    execution_id: int = _field(proto.INT64, 2)
    path: Path = _field(proto.MESSAGE, 3, message=Path)
    type_: int = _field(proto.INT32, 4)


class GetContextByTypeAndNameRequest(proto.Message):
    """Asks for the context of a run by the run's id."""

    type_name: str = _field(proto.STRING, 1)
    context_name: str = _field(proto.STRING, 2)


class GetContextByTypeAndNameResponse(proto.Message):
    """`context.id` is 0 when there is none."""

    context: Context = _field(proto.MESSAGE, 1, message=Context)


class GetExecutionsByContextRequest(proto.Message):
    """Asks for all executions of a context."""

    context_id: int = _field(proto.INT64, 1)


class GetExecutionsByContextResponse(proto.Message):
    """In no promised order."""

    executions: Sequence[Execution] = _list(proto.MESSAGE, 1, message=Execution)


class GetArtifactsByContextRequest(proto.Message):
    """Asks for all artifacts of a context."""

    context_id: int = _field(proto.INT64, 1)


class GetArtifactsByContextResponse(proto.Message):
    """In no promised order."""

    artifacts: Sequence[Artifact] = _list(proto.MESSAGE, 1, message=Artifact)


class GetEventsByExecutionIDsRequest(proto.Message):
    """Asks what executions took and made."""

    execution_ids: Sequence[int] = _list(proto.INT64, 1)


class GetEventsByExecutionIDsResponse(proto.Message):
    """One event for each artifact an execution took or made."""

    events: Sequence[Event] = _list(proto.MESSAGE, 1, message=Event)


class MetadataError(Exception):
    """The store answered with an error, or with what is no gRPC-Web answer."""

    def __init__(self, code: int, message: str) -> None:
        self.code = code
        super().__init__(f"ML Metadata answered gRPC status {code}: {message or 'no message'}")


def framed(message: bytes) -> bytes:
    """A message as a gRPC-Web request body: a byte of flags, four of length (big-endian), the message."""
    return struct.pack("!BI", 0, len(message)) + message


def unframed(body: bytes) -> bytes:
    """The one message in a gRPC-Web answer.

    Errors: `MetadataError` when the trailers say so, when the body is cut, compressed, or no gRPC-Web at all.
    """
    message: bytes | None = None
    status: int | None = None
    said = ""
    at = 0
    while at < len(body):
        if len(body) - at < 5:
            raise MetadataError(-1, f"the answer is cut after {len(body)} bytes")
        flags, length = struct.unpack_from("!BI", body, at)
        at += 5
        if len(body) - at < length:
            raise MetadataError(-1, f"the answer is cut after {len(body)} bytes, or is no gRPC-Web: {body[:40]!r}")
        frame, at = body[at : at + length], at + length
        if flags & _COMPRESSED:
            raise MetadataError(-1, "the answer is compressed, which was not asked for")
        if flags & _TRAILERS:
            trailers = dict(_header(line) for line in frame.decode("utf-8", "replace").splitlines() if ":" in line)
            status, said = int(trailers.get("grpc-status", "2")), trailers.get("grpc-message", "")
        else:
            message = frame
    if status:
        raise MetadataError(status, said)
    if message is None:
        raise MetadataError(-1, "the answer holds no message")
    return message


def _header(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name.strip().lower(), value.strip()


class MetadataStore:
    """Reads runs. `post` sends a body to `SERVICE`/METHOD and returns the answer's body."""

    def __init__(self, post: Callable[[str, bytes], bytes]) -> None:
        self._post = post

    def run(self, run_id: str) -> tuple[list[Execution], list[Artifact], list[Event]]:
        """Everything a run left; three empty lists when the store knows no such run (yet). Errors: `MetadataError`."""
        context_id = self._context(run_id).id
        if not context_id:
            return [], [], []
        executions = GetExecutionsByContextResponse.deserialize(
            self._ask("GetExecutionsByContext", GetExecutionsByContextRequest(context_id=context_id))
        ).executions
        artifacts = GetArtifactsByContextResponse.deserialize(
            self._ask("GetArtifactsByContext", GetArtifactsByContextRequest(context_id=context_id))
        ).artifacts
        ids = [execution.id for execution in executions]
        if not ids:
            return [], list(artifacts), []
        events = GetEventsByExecutionIDsResponse.deserialize(
            self._ask("GetEventsByExecutionIDs", GetEventsByExecutionIDsRequest(execution_ids=ids))
        ).events
        return list(executions), list(artifacts), list(events)

    def pipeline_root(self, run_id: str) -> str:
        """Where the run's outputs lie, as a URI; empty when the store knows no such run (yet). Errors: as `run`.

        KFP's API repeats only a root that the run was given; this is the one that was used.
        """
        return str(plain(self._context(run_id).custom_properties.items()).get("pipeline_root") or "")

    def _context(self, run_id: str) -> Context:
        request = GetContextByTypeAndNameRequest(type_name=RUN_CONTEXT, context_name=run_id)
        try:
            answer = self._ask("GetContextByTypeAndName", request)
        except MetadataError as error:
            if error.code == _NOT_FOUND:
                return Context()
            raise
        return GetContextByTypeAndNameResponse.deserialize(answer).context

    def _ask(self, method: str, request: proto.Message) -> bytes:
        return unframed(self._post(method, framed(type(request).serialize(request))))


def plain(properties: Iterable[tuple[str, Value]]) -> dict[str, Any]:
    """Properties as plain Python values."""
    return {name: _plain_value(value) for name, value in properties}


def _plain_value(value: Value) -> Any:
    raw = Value.pb(value)
    kind = raw.WhichOneof("value")
    if kind is None:
        return None
    if kind == "struct_value":
        return json_format.MessageToDict(raw.struct_value)
    return getattr(raw, kind)


def named(names: tuple[str, ...], number: int) -> str:
    """The name of an enum's number; the number itself when it is newer than this file."""
    return names[number] if 0 <= number < len(names) else str(number)
