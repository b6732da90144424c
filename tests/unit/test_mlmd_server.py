"""The front of ML Metadata serves each namespace its own records; the pipelines' door its own cache and its own logs.

Both programs run in pods with modules of their own; here the database library is a stand-in, all else is real.
"""

import http.client
import json
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import grpc
import pytest

import infra.platform
from labs.runner.isolation import probe

_HERE = Path(infra.platform.__file__).parent
_SERVICE = "ml_metadata.MetadataStoreService"

# What Kubernetes knows: two seats, an ended pod whose address went on to another, a pod of the node's own network.
_PODS = [
    ("demo-ada", "198.19.0.7", "Running", False),
    ("demo-ben", "198.19.0.8", "Running", False),
    ("demo-ben", "198.19.0.7", "Succeeded", False),
    ("kube-system", "198.18.0.2", "Running", True),
    ("demo-ada", "198.19.0.9", "Running", False),
    ("demo-ben", "198.19.0.9", "Running", False),
    ("kubeflow", "198.19.0.5", "Running", False),
]
_UIDS = {"demo-ada": "uid-a", "demo-ben": "uid-b", "kubeflow": "uid-k", "kube-system": "uid-s"}


class Kubernetes:
    """Answers as the API does, and counts."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.uids = dict(_UIDS)
        self.pods = list(_PODS)

    def __call__(self, path: str) -> dict[str, Any]:
        self.asked.append(path)
        if path == "/api/v1/namespaces":
            return {"items": [{"metadata": {"name": name, "uid": uid}} for name, uid in self.uids.items()]}
        if path.startswith("/api/v1/namespaces/"):
            name = path.rpartition("/")[2]
            return {"metadata": {"name": name, "uid": self.uids[name]}}
        if path == "/api/v1/nodes":
            address = {"type": "InternalIP", "address": "198.18.0.2"}
            return {"items": [{"status": {"addresses": [address]}, "spec": {"podCIDRs": ["198.19.0.0/22"]}}]}
        wanted = path.partition("status.podIP%3D")[2]
        return {
            "items": [
                {"metadata": {"namespace": namespace}, "spec": {"hostNetwork": on_node}, "status": {"phase": phase}}
                for namespace, address, phase, on_node in self.pods
                if address == wanted
            ]
        }


@pytest.fixture(scope="module")
def programs() -> Iterator[SimpleNamespace]:
    """The programs as they are in their pods, with a stand-in for ml-metadata."""
    before = dict(sys.modules)
    service = SimpleNamespace(full_name=_SERVICE, methods_by_name={"Put": None, "Get": None})
    stand_ins: dict[str, dict[str, Any]] = {
        "ml_metadata": {},
        "ml_metadata.metadata_store": {},
        "ml_metadata.metadata_store.pywrap": {},
        "ml_metadata.metadata_store.pywrap.metadata_store_extension": {"metadata_store": object()},
        "ml_metadata.proto": {
            "metadata_store_pb2": object(),
            "metadata_store_service_pb2": SimpleNamespace(
                DESCRIPTOR=SimpleNamespace(services_by_name={"MetadataStoreService": service})
            ),
        },
    }
    for name, held in stand_ins.items():
        module = ModuleType(name)
        vars(module).update(held)
        sys.modules[name] = module
    sys.path.insert(0, str(_HERE))
    try:
        import mlmd_server  # type: ignore[import-not-found]  # in its pod it is no package's
        import pipelines_door  # type: ignore[import-not-found]  # the same
        import seat_callers  # type: ignore[import-not-found]  # the same

        yield SimpleNamespace(server=mlmd_server, door=pipelines_door, callers=seat_callers)
    finally:
        sys.path.remove(str(_HERE))
        for name in set(sys.modules) - set(before):
            if name.split(".")[0] in ("ml_metadata", "mlmd_server", "pipelines_door", "seat_callers"):
                del sys.modules[name]


@pytest.fixture
def kubernetes() -> Kubernetes:
    return Kubernetes()


@pytest.fixture
def callers(programs: SimpleNamespace, kubernetes: Kubernetes) -> Any:
    return programs.callers.Callers(kubernetes, pause=lambda _: None, clock=Clock())


class Clock:
    """A clock that a tenth of a second passes on at each look."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 0.1
        return self.now


@pytest.fixture
def front(programs: SimpleNamespace, callers: Any, tmp_path: Path) -> Any:
    def opened(path: str) -> Callable[[str, bytes], tuple[int, str, bytes]]:
        file = Path(path)
        file.touch()

        def call(method: str, request: bytes) -> tuple[int, str, bytes]:
            if method == "Put":
                file.write_bytes(request)
            return 0, "", file.read_bytes()

        return call

    return programs.server.Front(programs.server.Stores(tmp_path / "namespaces", opened), callers)


def test_a_pod_is_served_its_own_namespaces_records(front: Any) -> None:
    assert front.from_pod("ipv4:198.19.0.7:40000", "Put", b"ada's") == (0, "", b"ada's")
    assert front.from_pod("ipv4:198.19.0.8:40000", "Get", b"") == (0, "", b"")
    assert front.from_pod("ipv6:%5B::ffff:198.19.0.7%5D:40001", "Get", b"") == (0, "", b"ada's")


def test_a_pod_that_names_another_namespace_is_served_its_own(front: Any) -> None:
    front.from_pod("ipv4:198.19.0.8:40000", "Put", b"ben's")
    assert front.from_web("198.19.0.7", 40000, "demo-ben", "Get", b"") == (0, "", b"")


@pytest.mark.parametrize("node", ["198.18.0.2", "198.19.0.1", "::ffff:198.19.0.1"])
def test_a_node_names_the_namespace_it_means(front: Any, node: str) -> None:
    front.from_pod("ipv4:198.19.0.8:40000", "Put", b"ben's")
    assert front.from_web(node, 1, "demo-ben", "Get", b"") == (0, "", b"ben's")
    assert front.from_web(node, 1, None, "Get", b"")[0] == 7
    assert front.from_web(node, 1, "demo-nobody", "Get", b"")[0] == 7
    assert front.from_web(node, 1, "../demo-ben", "Get", b"")[0] == 7


@pytest.mark.parametrize(
    "peer",
    [
        "ipv4:198.19.3.200:1",  # nobody's
        "ipv4:198.19.0.9:1",  # two namespaces claim it
        "ipv4:198.18.0.2:1",  # the node's
        "unix:/tmp/socket",
        "ipv4:nonsense",
    ],
)
def test_who_is_nobodys_pod_is_served_nothing(front: Any, peer: str) -> None:
    assert front.from_pod(peer, "Get", b"")[0] == 7


def test_a_pod_too_new_to_be_known_is_waited_for(front: Any, kubernetes: Kubernetes, callers: Any) -> None:
    looked: list[float] = []

    def appear(seconds: float) -> None:
        looked.append(seconds)
        if len(looked) == 3:
            kubernetes.pods.append(("demo-ada", "198.19.0.77", "Pending", False))

    callers._pause = appear
    assert front.from_pod("ipv4:198.19.0.77:1", "Get", b"") == (0, "", b"")
    assert len(looked) == 3


def test_a_connection_is_looked_up_once(front: Any, kubernetes: Kubernetes) -> None:
    for _ in range(5):
        front.from_pod("ipv4:198.19.0.7:40000", "Get", b"")
    assert len(kubernetes.asked) == 2


def test_kubernetes_that_does_not_answer_is_worth_another_try(front: Any, callers: Any) -> None:
    def away(_: str) -> dict[str, Any]:
        raise OSError("away")

    callers._ask = away
    assert front.from_pod("ipv4:198.19.0.7:1", "Get", b"")[0] == 14


def test_kubernetes_that_is_away_for_a_moment_is_waited_for(front: Any, kubernetes: Kubernetes, callers: Any) -> None:
    asked: list[str] = []

    def away_twice(path: str) -> dict[str, Any]:
        asked.append(path)
        if len(asked) < 3:
            raise OSError("away")
        return kubernetes(path)

    callers._ask = away_twice
    assert front.from_pod("ipv4:198.19.0.7:1", "Get", b"") == (0, "", b"")
    # Twice in vain, then the pod and its namespace.
    assert len(asked) == 4


def test_records_go_with_their_namespace(front: Any, kubernetes: Kubernetes, callers: Any, tmp_path: Path) -> None:
    front.from_pod("ipv4:198.19.0.7:1", "Put", b"ada's")
    front.from_pod("ipv4:198.19.0.8:1", "Put", b"ben's")
    kubernetes.uids["demo-ada"] = "uid-a2"

    assert front._stores.sweep(callers.all()) == ["demo-ada.uid-a.sqlite"]
    assert [file.name for file in (tmp_path / "namespaces").iterdir()] == ["demo-ben.uid-b.sqlite"]
    # A namespace made anew under the same name begins with nothing.
    assert front.from_pod("ipv4:198.19.0.7:2", "Get", b"") == (0, "", b"")


def test_no_more_stores_are_open_than_are_needed(programs: SimpleNamespace, tmp_path: Path) -> None:
    opened: list[str] = []

    def open_one(path: str) -> Callable[[str, bytes], tuple[int, str, bytes]]:
        opened.append(path)
        return lambda _method, _request: (0, "", b"")

    stores = programs.server.Stores(tmp_path, open_one)
    for number in range(100):
        stores.call(programs.callers.Namespace(f"seat-{number}", "uid"), "Get", b"")
    assert len(stores._stores) == 64
    stores.call(programs.callers.Namespace("seat-0", "uid"), "Get", b"")
    assert len(opened) == 101


def test_grpc_web_tells_whose_records_it_wants_by_a_header(programs: SimpleNamespace, front: Any) -> None:
    front.from_pod("ipv4:198.19.0.8:1", "Put", b"ben's")
    front._callers._nodes = frozenset({"127.0.0.1"})
    with serving(programs.server.web_handler(front)) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        body = struct.pack(">BI", 0, 1) + b"x"
        for headers, status, held in (
            ({"X-Classroom-Namespace": "demo-ben"}, b"grpc-status:0", b"ben's"),
            ({}, b"grpc-status:7", b"X-Classroom-Namespace".lower()),
        ):
            connection.request("POST", f"/{_SERVICE}/Get", body, headers)
            answer = connection.getresponse().read()
            assert status in answer
            assert held in answer
        connection.close()


class serving:  # noqa: N801  a context manager reads as a word
    """A handler on a port of this machine."""

    def __init__(self, handler: Any) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self) -> int:
        self._thread.start()
        return self._server.server_port

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


# -- the pipelines' door ---------------------------------------------------------------------------------------------


def field(number: int, value: bytes) -> bytes:
    assert len(value) < 16384
    size = bytes([len(value)]) if len(value) < 128 else bytes([len(value) & 127 | 128, len(value) >> 7])
    return bytes([number << 3 | 2]) + size + value


def driver_filter(namespace: str, **more: str) -> bytes:
    wanted = {"fingerprint": "f00", "pipelineName": "pipeline/add", "namespace": namespace, **more}
    return json.dumps(
        {"predicates": [{"op": "EQUALS", "key": key, "stringValue": value} for key, value in wanted.items()]}
    ).encode()


def test_the_cache_is_asked_for_the_callers_namespace_and_nothing_more(programs: SimpleNamespace) -> None:
    caller = programs.callers.Namespace("demo-ada", "uid-a")
    request = field(1, b"a token") + bytes([0x10, 1]) + field(3, b"id") + field(5, driver_filter("demo-ada", id="x"))

    asked = {number: value for number, _, value in programs.door.fields(programs.door.listing(request, caller))}

    assert sorted(asked) == [2, 3, 5]
    assert json.loads(asked[5])["predicates"] == [
        {"op": "EQUALS", "key": "fingerprint", "stringValue": "f00"},
        {"op": "EQUALS", "key": "pipelineName", "stringValue": "uid-a/pipeline/add"},
        {"op": "EQUALS", "key": "namespace", "stringValue": "demo-ada"},
    ]


@pytest.mark.parametrize(
    "request_",
    [
        field(5, b"{}") + field(5, driver_filter("demo-ben")),
        field(5, driver_filter("demo-ben")),
        field(5, b"no JSON"),
        field(5, b"[]"),
        field(5, b'{"predicates": [{"op": "EQUALS", "key": "namespace", "string_value": "demo-ben"}]}'),
        b"\x2a\xff",
        b"\xff" * 12,
    ],
)
def test_what_the_driver_would_not_ask_is_refused(programs: SimpleNamespace, request_: bytes) -> None:
    with pytest.raises(programs.door.Refused):
        programs.door.listing(request_, programs.callers.Namespace("demo-ada", "uid-a"))


def test_a_task_is_cached_for_its_own_namespace_alone(programs: SimpleNamespace) -> None:
    caller = programs.callers.Namespace("demo-ada", "uid-a")
    task = field(2, b"demo-ada") + field(3, b"pipeline/add") + field(4, b"run") + field(6, b"\x08\x01") + field(8, b"f")

    made = programs.door.creation(field(1, task), caller)

    [(_, _, inner)] = programs.door.fields(made)
    kept = {number: value for number, _, value in programs.door.fields(inner)}
    assert kept == {2: b"demo-ada", 3: b"uid-a/pipeline/add", 4: b"run", 6: b"\x08\x01", 8: b"f"}
    for other in (
        field(1, field(2, b"demo-ben") + field(3, b"pipeline/add")),
        field(1, task) + field(1, field(2, b"demo-ben")),
        field(1, task + field(2, b"demo-ben")),
        b"",
    ):
        with pytest.raises(programs.door.Refused):
            programs.door.creation(other, caller)


def test_the_door_lets_a_run_to_its_cache_and_kfps_own_agents_to_all(programs: SimpleNamespace, callers: Any) -> None:
    came: list[tuple[str, bytes, dict[str, Any]]] = []

    class Behind(grpc.GenericRpcHandler):
        def service(self, handler_call_details: Any) -> Any:
            def unary(request: bytes, context: Any) -> bytes:
                came.append((handler_call_details.method, request, dict(context.invocation_metadata())))
                if request == b"unknown":
                    context.abort(grpc.StatusCode.NOT_FOUND, "no such run")
                return b""

            return grpc.unary_unary_rpc_method_handler(unary)

    with speaking(Behind()) as inner, grpc.insecure_channel(f"127.0.0.1:{inner}") as behind:
        door = programs.door._Door(callers, "kubeflow", behind)
        with speaking(door) as port:
            own = {
                "id": "tasks",
                "kind": "grpc",
                "host": "127.0.0.1",
                "port": port,
                "path": "/api.TaskService/ListTasksV1",
            }
            own["message"] = field(5, driver_filter("demo-ada")).hex()
            other = {**own, "message": field(5, driver_filter("demo-ben")).hex()}
            runs = {**own, "path": "/x.RunService/ListRuns", "headers": {"kubeflow-userid": "ben"}}

            callers.of_pod = lambda *_: programs.callers.Namespace("demo-ada", "uid-a")
            assert [each["answer"] for each in probe.tried([own, other, runs])] == ["answered", "refused", "refused"]
            assert [method for method, _, _ in came] == ["/api.TaskService/ListTasksV1"]
            assert b"demo-ada" in came[0][1]

            callers.of_pod = lambda *_: programs.callers.Namespace("kubeflow", "uid-k")
            agent = {**runs, "headers": {"authorization": "Bearer token"}}
            assert probe.tried([agent])[0]["answer"] == "answered"
            assert came[-1][2]["authorization"] == "Bearer token"
            assert probe.tried([{**agent, "message": b"unknown".hex()}])[0]["answer"] == "refused"


class speaking:  # noqa: N801  as above
    """A gRPC handler on a port of this machine."""

    def __init__(self, handler: grpc.GenericRpcHandler) -> None:
        self._server = grpc.server(ThreadPoolExecutor(4), handlers=[handler])
        self._port = self._server.add_insecure_port("127.0.0.1:0")

    def __enter__(self) -> int:
        self._server.start()
        return self._port

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait()


def test_a_message_comes_back_as_it_was(programs: SimpleNamespace) -> None:
    message = bytes([0x08, 0x96, 0x01]) + field(2, b"x" * 300) + bytes([0x1D, 1, 2, 3, 4]) + bytes([0x21, *range(8)])
    assert programs.door.message_of(programs.door.fields(message)) == message


@pytest.mark.parametrize(
    ("uri", "users", "status"),
    [
        ("/pipeline/apis/v1alpha1/runs/{run}/nodes/add-1/log", ["ada"], 200),
        ("/apis/v1alpha1/runs/{run}/nodes/add-1/log?follow=true", ["ada"], 200),
        ("/pipeline/apis/v1alpha1/runs/{run}/nodes/add-1/log", ["ben"], 403),
        ("/pipeline/apis/v1alpha1/runs/{run}/nodes/add-1/log", [], 403),
        ("/pipeline/apis/v1alpha1/runs/{run}/nodes/add-1/log", ["ben", "ada"], 403),
        ("/pipeline/apis/v1alpha1/runs/{run}/nodes/../../x/log", ["ada"], 403),
        ("/pipeline/apis/v1alpha1/tasks", ["ada"], 403),
        ("", ["ada"], 403),
    ],
)
def test_a_log_is_for_who_may_see_its_run(programs: SimpleNamespace, uri: str, users: list[str], status: int) -> None:
    run = "0b0e5a52-4a73-4d7c-9d9e-0123456789ab"
    handler = programs.door.log_handler(
        "kubeflow-user-x", lambda asked, user: 200 if (asked, user) == (run, "ada") else 403
    )
    with serving(handler) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.putrequest("GET", "/")
        connection.putheader("X-Forwarded-Uri", uri.format(run=run))
        for user in users:
            connection.putheader("kubeflow-user-x", user)
        connection.endheaders()
        assert connection.getresponse().status == status
        connection.close()
