"""Stands before the pipelines service where that asks for no right of its own, and asks for it.

KFP's cache (api.TaskService) and its log of a pod know no tenants: whoever reaches them reads every namespace's. So

- gRPC calls come here. A pod of a seat may ask the cache alone, for its own namespace: what it asks is written anew
  with the namespace that it calls from. KFP's own agents, which bring a token of theirs, are passed on as they come.
- The gateway asks here before it passes a call for a log: the one who asks must be let in at the run itself.

Entries of the cache name records in the namespace's own ML Metadata (mlmd_server.py). A pipeline's name in the cache
therefore carries the namespace's uid: an entry of a namespace that was made anew would name somebody else's records.

Runs by itself in a pod, with grpcio, seat_callers.py beside it: python pipelines_door.py OWN_NAMESPACE
"""

import http.client
import json
import os
import re
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc

# pyrefly: ignore[missing-import]  it lies beside this file in the pod, where there is no package
from seat_callers import Callers, Namespace, UnknownCaller, address_of

GRPC_PORT = 8887
LOG_PORT = 8889
BEHIND_GRPC_PORT = 8886
BEHIND_HTTP_PORT = 8888
_MAXIMUM_BYTES = 64 << 20
_MOST_SECONDS = 60.0
_LOG = re.compile(r"(?:/pipeline)?/apis/v1alpha1/runs/([0-9a-f-]{36})/nodes/[a-z0-9.-]{1,253}/log(?:\?.*)?")
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

Field = tuple[int, int, bytes | int]
"""(number, wire type, value) of a protobuf message (protobuf.dev/programming-guides/encoding)."""


class Refused(Exception):
    """A call that is not to be passed on; the message says why."""


def fields(message: bytes) -> list[Field]:
    """The fields of a message in their order. Errors: `Refused` for what is no message, or repeats a field.

    A field that stands twice would be read by one program in one way and by another in the other.
    """
    found: list[Field] = []
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, kind = tag >> 3, tag & 7
        value: bytes | int
        if kind == _VARINT:
            value, at = _varint(message, at)
        else:
            size = {_FIXED64: 8, _FIXED32: 4}.get(kind)
            if kind == _BYTES:
                size, at = _varint(message, at)
            if size is None or at + size > len(message):
                raise Refused("that is no message")
            value, at = message[at : at + size], at + size
        found.append((number, kind, value))
    if len({number for number, _, _ in found}) < len(found):
        raise Refused("a field stands twice")
    return found


def message_of(parts: Sequence[Field]) -> bytes:
    """The message with these fields."""
    whole = b""
    for number, kind, value in parts:
        whole += _varint_of(number << 3 | kind)
        if isinstance(value, int):
            whole += _varint_of(value)
        else:
            whole += (_varint_of(len(value)) if kind == _BYTES else b"") + value
    return whole


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 64:
        byte = data[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value, at
    raise Refused("that is no message")


def _varint_of(value: int) -> bytes:
    whole = b""
    while value > 127:
        whole, value = whole + bytes([value & 127 | 128]), value >> 7
    return whole + bytes([value])


def listing(request: bytes, caller: Namespace) -> bytes:
    """A ListTasksRequest for what KFP's driver asks for, in the caller's own namespace: nothing else of the request is
    kept but the size of the page. Errors: `Refused` when it asks for another's, or as no driver does.

    Source: KFP 2.14, backend/api/v1beta1/{task,filter}.proto and backend/src/v2/cacheutils/cache.go.
    """
    asked = {number: value for number, _, value in fields(request)}
    try:
        text = asked.get(5, b"{}")
        predicates = json.loads(text if isinstance(text, bytes) else b"").get("predicates", [])
        wanted = {str(each["key"]): str(each["stringValue"]) for each in predicates if each.get("op") == "EQUALS"}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Refused("the filter is not what KFP's driver asks with") from None
    if wanted.setdefault("namespace", caller.name) != caller.name:
        raise Refused("the cache of another namespace than that of the pod that asks")
    if "pipelineName" in wanted:
        wanted["pipelineName"] = _named(caller, wanted["pipelineName"])
    only = [
        {"op": "EQUALS", "key": key, "stringValue": wanted[key]}
        for key in ("fingerprint", "pipelineName", "namespace")
        if key in wanted
    ]
    size = asked.get(2, 1)
    return message_of(
        [
            (2, _VARINT, min(size, 100) if isinstance(size, int) else 1),
            (3, _BYTES, b"created_at desc"),
            (5, _BYTES, json.dumps({"predicates": only}).encode()),
        ]
    )


def creation(request: bytes, caller: Namespace) -> bytes:
    """A CreateTaskRequest whose task is the caller's namespace's. Errors: `Refused` when it is another's."""
    outer = fields(request)
    if [number for number, _, _ in outer] != [1] or not isinstance(outer[0][2], bytes):
        raise Refused("there is one task to a request")
    task = {number: (number, kind, value) for number, kind, value in fields(outer[0][2])}
    if task.get(2, (2, _BYTES, caller.name.encode()))[2] != caller.name.encode():
        raise Refused("the task is of another namespace than the pod that brings it")
    name = task.get(3, (3, _BYTES, b""))[2]
    task[2] = (2, _BYTES, caller.name.encode())
    task[3] = (3, _BYTES, _named(caller, name.decode("utf-8", "replace") if isinstance(name, bytes) else "").encode())
    return message_of([(1, _BYTES, message_of([task[number] for number in sorted(task)]))])


def _named(caller: Namespace, pipeline: str) -> str:
    return f"{caller.uid}/{pipeline}"


OURS: dict[str, Callable[[bytes, Namespace], bytes]] = {
    "/api.TaskService/ListTasksV1": listing,
    "/api.TaskService/CreateTaskV1": creation,
}
"""What a pod of a seat may call, and how its request is written anew."""


class _Door(grpc.GenericRpcHandler):
    def __init__(self, callers: Callers, own: str, behind: grpc.Channel) -> None:
        self._callers, self._own, self._behind = callers, own, behind

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        method = handler_call_details.method

        def unary(request: bytes, context: grpc.ServicerContext) -> bytes:
            metadata: tuple[tuple[str, str | bytes], ...] = ()
            try:
                caller = self._callers.of_pod(*address_of(context.peer()))
                if caller.name == self._own:
                    metadata = tuple(each for each in context.invocation_metadata() if _passes(each[0]))
                elif method in OURS:
                    request = OURS[method](request, caller)
                else:
                    raise Refused(f"{method} is not for the pods of a run; go through the gateway")
            except (UnknownCaller, Refused) as error:
                context.abort(grpc.StatusCode.PERMISSION_DENIED, str(error))
            except OSError as error:
                context.abort(grpc.StatusCode.UNAVAILABLE, f"Kubernetes does not say who asks: {error}")
            try:
                # A caller without a deadline has one beyond what a channel takes.
                seconds = min(context.time_remaining() or _MOST_SECONDS, _MOST_SECONDS)
                call = self._behind.unary_unary(method)
                return call(request, metadata=metadata, timeout=seconds, wait_for_ready=True)
            except grpc.RpcError as error:
                context.abort(error.code(), error.details() or "")
                raise

        return grpc.unary_unary_rpc_method_handler(unary)


def _passes(name: str) -> bool:
    """Whether a header of a call goes on with it: those that gRPC makes itself are made anew."""
    return not name.startswith((":", "grpc-")) and name not in ("user-agent", "te", "content-type")


def log_handler(identity_header: str, ask: Callable[[str, str], int]) -> type[BaseHTTPRequestHandler]:
    """Answers the gateway, which passes the call on a 200 alone. `ask`: (run id, user) -> KFP's status for that run."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            run = _LOG.fullmatch(self.headers.get("X-Forwarded-Uri", ""))
            users = self.headers.get_all(identity_header) or []
            if self.path == "/ready":
                status = 200
            elif run is None or len(users) != 1:
                # Nothing else below /apis/v1alpha1 is a person's business.
                status = 403
            else:
                try:
                    status = ask(run[1], users[0])
                except (OSError, http.client.HTTPException):
                    status = 503
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_GET  # noqa: N815  the base class has them so

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class has it so
            """Say nothing: the pipelines service does."""

    return Handler


def _asker(identity_header: str) -> Callable[[str, str], int]:
    def ask(run: str, user: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", BEHIND_HTTP_PORT, timeout=10)
        try:
            connection.request("GET", f"/apis/v2beta1/runs/{run}", headers={identity_header: user})
            answer = connection.getresponse()
            answer.read()
            return answer.status
        finally:
            connection.close()

    return ask


def main(own: str) -> None:
    header = os.environ["KUBEFLOW_USERID_HEADER"]
    options = [("grpc.max_receive_message_length", _MAXIMUM_BYTES), ("grpc.max_send_message_length", _MAXIMUM_BYTES)]
    behind = grpc.insecure_channel(f"127.0.0.1:{BEHIND_GRPC_PORT}", options=options)
    server = grpc.server(ThreadPoolExecutor(32), handlers=[_Door(Callers(), own, behind)], options=options)
    server.add_insecure_port(f"[::]:{GRPC_PORT}")
    server.start()
    web = ThreadingHTTPServer(("", LOG_PORT), log_handler(header, _asker(header)))
    threading.Thread(target=web.serve_forever, daemon=True).start()
    server.wait_for_termination()


if __name__ == "__main__":
    main(sys.argv[1])
