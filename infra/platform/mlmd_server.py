"""A server for ML Metadata's gRPC service, on top of ml-metadata's own store, which is a library.

The store's functions take a serialised request and return a serialised response, so every call is passed through as the
bytes it came as. Served twice: as gRPC, and as gRPC-Web over HTTP/1.1 for whoever has only HTTP (one call is one POST;
https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md).

Runs by itself in a pod, with grpcio and ml-metadata: python mlmd_server.py DATABASE_FILE
"""

import struct
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote

import grpc

# pyrefly: ignore[missing-import]  ml-metadata lives in its image alone: it wants an older protobuf than Pulumi
from ml_metadata.metadata_store.pywrap.metadata_store_extension import metadata_store

# pyrefly: ignore[missing-import]  the same
from ml_metadata.proto import metadata_store_pb2, metadata_store_service_pb2

GRPC_PORT = 8080
WEB_PORT = 9090
_MAXIMUM_BYTES = 64 << 20
_UNIMPLEMENTED = 12
_ABORTED = 10
_SERVICE = metadata_store_service_pb2.DESCRIPTOR.services_by_name["MetadataStoreService"]

Call = Callable[[str, bytes], tuple[int, str, bytes]]
"""(method, request) -> (gRPC status code, message, response)."""


def open_store(path: str) -> Call:
    """The store in the SQLite file `path`, made when it is not there. One call at a time: it is SQLite."""
    connection = metadata_store_pb2.ConnectionConfig()
    connection.sqlite.filename_uri = path
    connection.sqlite.connection_mode = metadata_store_pb2.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
    migration = metadata_store_pb2.MigrationOptions(enable_upgrade_migration=True)
    store = metadata_store.CreateMetadataStore(connection.SerializeToString(), migration.SerializeToString())
    lock = threading.Lock()

    def call(method: str, request: bytes) -> tuple[int, str, bytes]:
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


class _Forwarder(grpc.GenericRpcHandler):
    def __init__(self, call: Call) -> None:
        self._call = call

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        service, _, method = handler_call_details.method.lstrip("/").partition("/")
        if service != _SERVICE.full_name:
            return None

        def unary(request: bytes, context: grpc.ServicerContext) -> bytes:
            code, message, response = self._call(method, request)
            if code:
                context.abort(_STATUS.get(code, grpc.StatusCode.UNKNOWN), message)
            return response

        # Without (de)serialisers the bytes pass as they are.
        return grpc.unary_unary_rpc_method_handler(unary)


_STATUS = {code.value[0]: code for code in grpc.StatusCode}


def web_handler(call: Call) -> type[BaseHTTPRequestHandler]:
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
            code, message, response = call(method, body[5:])
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


def main(path: str) -> None:
    call = open_store(path)
    options = [("grpc.max_receive_message_length", _MAXIMUM_BYTES), ("grpc.max_send_message_length", _MAXIMUM_BYTES)]
    server = grpc.server(ThreadPoolExecutor(16), handlers=[_Forwarder(call)], options=options)
    server.add_insecure_port(f"[::]:{GRPC_PORT}")
    server.start()
    ThreadingHTTPServer(("", WEB_PORT), web_handler(call)).serve_forever()


if __name__ == "__main__":
    main(sys.argv[1])
