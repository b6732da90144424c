"""A server for ML Metadata's gRPC service, on top of ml-metadata's own store, a library: one store a namespace.

ML Metadata knows no tenants: whoever reaches a store reads and writes all of it. So each namespace has its own, and a
pod is served the store of the namespace it calls from, whatever it says. Only a node, which is the API server's proxy
with somebody behind it whom Kubernetes let through, names the namespace it means, in the header NAMESPACE_HEADER.

The store's functions take a serialised request and return a serialised response, so every call is passed through as the
bytes it came as. Served twice: as gRPC, and as gRPC-Web over HTTP/1.1 for whoever has only HTTP (one call is one POST;
https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md).

Runs by itself in a pod, with grpcio and ml-metadata, seat_callers.py beside it: python mlmd_server.py DIRECTORY
"""

import struct
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import grpc

# pyrefly: ignore[missing-import]  ml-metadata lives in its image alone: it wants an older protobuf than Pulumi
from ml_metadata.metadata_store.pywrap.metadata_store_extension import metadata_store

# pyrefly: ignore[missing-import]  the same
from ml_metadata.proto import metadata_store_pb2, metadata_store_service_pb2

# pyrefly: ignore[missing-import]  it lies beside this file in the pod, where there is no package
from seat_callers import Callers, Namespace, UnknownCaller, address_of, plain_address

GRPC_PORT = 8080
WEB_PORT = 9090
NAMESPACE_HEADER = "x-classroom-namespace"
_MAXIMUM_BYTES = 64 << 20
_DENIED, _ABORTED, _UNIMPLEMENTED, _UNAVAILABLE = 7, 10, 12, 14
_OPEN_AT_ONCE = 64
_SWEEP_SECONDS = 60
_SERVICE = metadata_store_service_pb2.DESCRIPTOR.services_by_name["MetadataStoreService"]

Answer = tuple[int, str, bytes]
"""gRPC status code, message, response."""
Call = Callable[[str, bytes], Answer]
"""(method, request) -> answer."""


def open_store(path: str) -> Call:
    """The store in the SQLite file `path`, made when it is not there. One call at a time: it is SQLite."""
    connection = metadata_store_pb2.ConnectionConfig()
    connection.sqlite.filename_uri = path
    connection.sqlite.connection_mode = metadata_store_pb2.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
    migration = metadata_store_pb2.MigrationOptions(enable_upgrade_migration=True)
    store = metadata_store.CreateMetadataStore(connection.SerializeToString(), migration.SerializeToString())
    lock = threading.Lock()

    def call(method: str, request: bytes) -> Answer:
        function = getattr(metadata_store, method, None) if method in _SERVICE.methods_by_name else None
        if function is None:
            return _UNIMPLEMENTED, f"{method} is not served", b""
        for attempt in range(3):
            with lock:
                response, message, code = function(store, request)
            # A transaction that lost against another is to be tried again: its own words.
            if code != _ABORTED or attempt == 2:
                break
        text = message.decode("utf-8", "replace") if isinstance(message, bytes) else str(message)
        return int(code), text, bytes(response)

    return call


class Stores:
    """The stores of the namespaces, each in a file `<namespace>.<uid>.sqlite`. Safe to use by several threads."""

    def __init__(self, directory: Path, opened: Callable[[str], Call] = open_store) -> None:
        self._directory, self._opened = directory, opened
        self._stores: OrderedDict[Namespace, Call] = OrderedDict()
        self._lock = threading.Lock()
        directory.mkdir(parents=True, exist_ok=True)

    def call(self, namespace: Namespace, method: str, request: bytes) -> Answer:
        """A call to the store of that namespace."""
        with self._lock:
            store = self._stores.get(namespace)
            if store is None:
                # Two that make the same file at once would be in each other's way.
                store = self._opened(str(self._directory / f"{namespace.name}.{namespace.uid}.sqlite"))
                self._stores[namespace] = store
            self._stores.move_to_end(namespace)
            while len(self._stores) > _OPEN_AT_ONCE:
                # Who is at work in it holds it until the call is done.
                self._stores.popitem(last=False)
        return store(method, request)

    def sweep(self, standing: frozenset[Namespace]) -> list[str]:
        """Remove the stores of namespaces that are gone, or were made anew; the names of the files."""
        kept = {f"{each.name}.{each.uid}.sqlite" for each in standing}
        gone: list[str] = []
        with self._lock:
            for namespace in [each for each in self._stores if each not in standing]:
                del self._stores[namespace]
            for file in self._directory.glob("*.sqlite*"):
                if file.name.partition(".sqlite")[0] + ".sqlite" not in kept:
                    file.unlink(missing_ok=True)
                    gone.append(file.name)
        return gone


class Front:
    """Answers a call with the store of the namespace it comes from."""

    def __init__(self, stores: Stores, callers: Callers) -> None:
        self._stores, self._callers = stores, callers

    def from_pod(self, peer: str, method: str, request: bytes) -> Answer:
        """A gRPC call; `peer` as gRPC names it."""

        def whose() -> Namespace:
            return self._callers.of_pod(*address_of(peer))

        return self._answer(whose, method, request)

    def from_web(self, address: str, port: int, named: str | None, method: str, request: bytes) -> Answer:
        """A gRPC-Web call; `named` is the namespace of its header, which says something from a node alone."""

        def whose() -> Namespace:
            if not self._callers.is_node(plain_address(address)):
                return self._callers.of_pod(plain_address(address), port)
            if not named:
                raise UnknownCaller(f"say which namespace's records are meant, in the header {NAMESPACE_HEADER}")
            return self._callers.named(named)

        return self._answer(whose, method, request)

    def _answer(self, whose: Callable[[], Namespace], method: str, request: bytes) -> Answer:
        try:
            namespace = whose()
        except UnknownCaller as error:
            return _refused(_DENIED, method, str(error))
        except OSError as error:
            return _refused(_UNAVAILABLE, method, f"Kubernetes does not say who asks: {error}")
        return self._stores.call(namespace, method, request)


def _refused(code: int, method: str, why: str) -> Answer:
    # KFP's driver ends over it, and of its pod nothing is left to look at.
    print(f"{method} refused: {why}")
    return code, why, b""


class _Forwarder(grpc.GenericRpcHandler):
    def __init__(self, front: Front) -> None:
        self._front = front

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        service, _, method = handler_call_details.method.lstrip("/").partition("/")
        if service != _SERVICE.full_name:
            return None

        def unary(request: bytes, context: grpc.ServicerContext) -> bytes:
            code, message, response = self._front.from_pod(context.peer(), method, request)
            if code:
                context.abort(_STATUS.get(code, grpc.StatusCode.UNKNOWN), message)
            return response

        # Without (de)serialisers the bytes pass as they are.
        return grpc.unary_unary_rpc_method_handler(unary)


_STATUS = {code.value[0]: code for code in grpc.StatusCode}


def web_handler(front: Front) -> type[BaseHTTPRequestHandler]:
    """An HTTP handler that answers gRPC-Web calls: POST /<service>/<method>, application/grpc-web+proto."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            service, _, method = self.path.lstrip("/").partition("/")
            if service != _SERVICE.full_name or not 5 <= length <= _MAXIMUM_BYTES:
                self.send_error(404 if length else 411)
                self.close_connection = True
                return
            body = self.rfile.read(length)
            flags, size = struct.unpack(">BI", body[:5])
            if flags or size != len(body) - 5:
                self.send_error(400, "one uncompressed message is expected")
                return
            address, port = self.client_address[:2]
            named = self.headers.get(NAMESPACE_HEADER)
            code, message, response = front.from_web(address, port, named, method, body[5:])
            trailer = f"grpc-status:{code}\r\ngrpc-message:{quote(message)}\r\n".encode()
            frames = (
                (b"" if code else struct.pack(">BI", 0, len(response)) + response)
                + struct.pack(">BI", 0x80, len(trailer))
                + trailer
            )
            self.send_response(200)
            self.send_header("Content-Type", "application/grpc-web+proto")
            self.send_header("Content-Length", str(len(frames)))
            self.end_headers()
            self.wfile.write(frames)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class has it so
            """Say nothing: a poll a second is no news."""

    return Handler


def _sweep_for_ever(stores: Stores, callers: Callers) -> None:
    while True:
        # An API that is away for a moment says nothing about what is gone.
        with suppress(OSError, KeyError):
            for name in stores.sweep(callers.all()):
                print(f"removed {name}: its namespace is gone")
        time.sleep(_SWEEP_SECONDS)


def main(directory: str) -> None:
    # What an earlier version kept for all namespaces together.
    for old in Path(directory).parent.glob("metadata.sqlite*"):
        old.unlink()
        print(f"removed {old.name}: it held every namespace's records in one")
    stores, callers = Stores(Path(directory)), Callers()
    front = Front(stores, callers)
    threading.Thread(target=_sweep_for_ever, args=(stores, callers), daemon=True).start()
    options = [("grpc.max_receive_message_length", _MAXIMUM_BYTES), ("grpc.max_send_message_length", _MAXIMUM_BYTES)]
    server = grpc.server(ThreadPoolExecutor(16), handlers=[_Forwarder(front)], options=options)
    server.add_insecure_port(f"[::]:{GRPC_PORT}")
    server.start()
    ThreadingHTTPServer(("", WEB_PORT), web_handler(front)).serve_forever()


if __name__ == "__main__":
    main(sys.argv[1])
