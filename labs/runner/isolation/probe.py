"""What tries doors from inside a student's own pods. Runs there by itself: Python's own library, boto3 for buckets.

`tried` takes tries as dicts {"id", "kind", ...} and answers {"id", "answer"}: a short text of what came back, never
what was in it. Kinds: http (method, url, headers, body, account: with the pod's own token, holds: a text to look for),
tcp (host, port), grpc (host, port, path, message: hex, headers, holds), s3 (does, and the arguments as boto3 has them).
"""

import base64
import http.client
import json
import os
import re
import socket
import ssl
import struct
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

SECONDS = 4.0
AT_ONCE = 32
_HEADER = 16384
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
API = "https://kubernetes.default.svc"


class _Stays(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        """A redirect is an answer."""


def tried(tries: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Every try, side by side."""
    kinds = {"http": _http, "tcp": _tcp, "grpc": _grpc, "s3": _s3}

    def one(each: dict[str, Any]) -> dict[str, str]:
        for attempt in range(4):
            answer = once(each)
            # A name server that is asked by everybody at once loses a question; and a call to where all are let in, but
            # for what they ask, is late when the node is busy. Neither says anything yet.
            late = each["kind"] == "grpc" and answer == "timed out"
            if not ("gaierror" in answer or late) or attempt == 3:
                break
            time.sleep(0.5)
        return {"id": each["id"], "answer": answer}

    def once(each: dict[str, Any]) -> str:
        try:
            return kinds[each["kind"]](each)
        except TimeoutError:
            return "timed out"
        except ConnectionError as error:
            return f"no connection ({type(error).__name__})"
        except Exception as error:
            # Its text might repeat what was sent.
            return f"no answer ({type(error).__name__})"

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(one, tries))


def kubernetes(method: str, path: str, body: Any = None, kind: str = "application/json") -> Any:
    """The Kubernetes API with the pod's own account; the JSON answered. Errors: `urllib.error.HTTPError`, `OSError`."""
    request = urllib.request.Request(  # noqa: S310  https, as above
        API + path, method=method, data=None if body is None else json.dumps(body).encode()
    )
    request.add_header("Authorization", f"Bearer {(ACCOUNT / 'token').read_text().strip()}")
    request.add_header("Content-Type", kind)
    trust = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trust), _Stays()
    )
    with opener.open(request, timeout=15) as answer:
        return json.loads(answer.read())


def _http(each: dict[str, Any]) -> str:
    headers = dict(each.get("headers", {}))
    handlers: list[Any] = [urllib.request.ProxyHandler({}), _Stays()]
    if each.get("account"):
        headers["Authorization"] = f"Bearer {(ACCOUNT / 'token').read_text().strip()}"
        trust = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
        handlers.append(urllib.request.HTTPSHandler(context=trust))
    body = each["body"].encode() if "body" in each else None
    # The addresses are those that the proof itself asks for, all of them http or https.
    request = urllib.request.Request(each["url"], method=each.get("method", "GET"), data=body, headers=headers)  # noqa: S310
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=SECONDS) as answer:
            text, status = answer.read(1 << 20), answer.status
    except urllib.error.HTTPError as error:
        with error:
            return str(error.code)
    except urllib.error.URLError as error:
        raise error.reason if isinstance(error.reason, Exception) else OSError() from None
    if "holds" in each:
        return f"{status}, {'with' if each['holds'].encode() in text else 'without'} it"
    return str(status)


def _tcp(each: dict[str, Any]) -> str:
    socket.create_connection((each["host"], each["port"]), timeout=SECONDS).close()
    return "connected"


def _grpc(each: dict[str, Any]) -> str:
    """One call in HTTP/2 (RFC 9113), its headers as literals that no table holds (RFC 7541, 6.2.3): whether a message
    came back is all that is read, since who refuses sends none."""
    headers = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", each["path"]),
        (":authority", f"{each['host']}:{each['port']}"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        *each.get("headers", {}).items(),
    ]
    block = b"".join(b"\x10" + _text(name) + _text(value) for name, value in headers)
    message = bytes.fromhex(each["message"])
    until = time.monotonic() + SECONDS
    with socket.create_connection((each["host"], each["port"]), timeout=SECONDS) as connection:
        connection.sendall(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            + _frame(4, 0, 0, b"")
            + _frame(1, 4, 1, block)
            + _frame(0, 1, 1, struct.pack(">BI", 0, len(message)) + message)
        )
        data, ended = b"", False
        while not ended:
            if time.monotonic() > until:
                raise TimeoutError
            size, kind, flags, stream = struct.unpack(">I", b"\0" + _read(connection, 3))[0], *_read(connection, 2), 0
            stream = struct.unpack(">I", _read(connection, 4))[0] & 0x7FFFFFFF
            payload = _read(connection, size)
            if kind == 4 and not flags & 1:
                connection.sendall(_frame(4, 1, 0, b""))
            elif kind == 0 and stream == 1:
                data += payload
            elif kind in (3, 7):
                break
            ended = stream == 1 and kind in (0, 1) and bool(flags & 1)
    if len(data) < 5:
        return "refused"
    if "holds" in each:
        return f"answered, {'with' if each['holds'].encode() in data else 'without'} it"
    return "answered"


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def _text(value: str) -> bytes:
    data = value.encode()
    size = len(data)
    if size < 127:
        return bytes([size]) + data
    size, prefix = size - 127, b"\x7f"
    while size >= 128:
        prefix, size = prefix + bytes([size % 128 + 128]), size // 128
    return prefix + bytes([size]) + data


def _read(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            raise ConnectionResetError
        data += more
    return data


def _store() -> Any:
    import boto3
    from botocore.config import Config

    namespace = (ACCOUNT / "namespace").read_text().strip()
    secret = kubernetes("GET", f"/api/v1/namespaces/{namespace}/secrets/mlpipeline-minio-artifact")["data"]
    config = Config(s3={"addressing_style": "path"}, connect_timeout=5, read_timeout=10, retries={"max_attempts": 1})
    return boto3.session.Session().client(
        "s3",
        endpoint_url=os.environ["ISOLATION_STORE"],
        region_name=os.environ["ISOLATION_REGION"],
        aws_access_key_id=base64.b64decode(secret["accesskey"]).decode(),
        aws_secret_access_key=base64.b64decode(secret["secretkey"]).decode(),
        config=config,
    )


_OPENED: list[Any] = []


def _s3(each: dict[str, Any]) -> str:
    from botocore.exceptions import ClientError

    arguments = {name: value for name, value in each.items() if name not in ("id", "kind", "does")}
    try:
        getattr(_OPENED[0], each["does"])(**arguments)
    except ClientError as error:
        return str(error.response.get("Error", {}).get("Code", "refused"))
    return "done"


def from_notebook(tries: list[dict[str, Any]], store: str, region: str) -> str:
    """`tried` in a kernel, as JSON. The student's key to the store is read with the student's own account."""
    os.environ.update({"ISOLATION_STORE": store, "ISOLATION_REGION": region})
    if not _OPENED and any(each["kind"] == "s3" for each in tries):
        # Boto3's clients are made one at a time, and one serves all threads.
        for _ in range(4):
            with suppress(OSError, KeyError, http.client.HTTPException):
                _OPENED.append(_store())
                break
            time.sleep(0.5)
    return json.dumps(tried(tries))


def from_run() -> None:
    """`tried` in a pod of a run: wait for the plan in the ConfigMap that the run was told of, and answer there."""
    namespace = (ACCOUNT / "namespace").read_text().strip()
    path = f"/api/v1/namespaces/{namespace}/configmaps/{os.environ['ISOLATION_PLAN']}"
    print(f"probe of {namespace}", flush=True)
    until = time.monotonic() + 240
    while time.monotonic() < until:
        with suppress(OSError, http.client.HTTPException):
            if plan := kubernetes("GET", path).get("data", {}).get("plan"):
                answers = json.dumps(tried(json.loads(plan)))
                kubernetes("PATCH", path, {"data": {"answers": answers}}, "application/merge-patch+json")
                return
        time.sleep(0.5)


def cookies_seen(reversed_marker: str, reversed_session: str) -> str:
    """What the notebook server's own memory holds of the Cookie header that carried a marker, as JSON: how often the
    marker was found, and how often the session cookie, by its name, beside it.

    The kernel is the server's child and of the same user, so it may read its memory. What is looked for comes reversed
    and stays in this process, since the server has passed on the very question.
    """
    marker, ends = reversed_marker[::-1].encode(), re.compile(rb"[\r\n\0]")
    session = reversed_session[::-1].encode()
    found = beside = 0
    server = Path(f"/proc/{os.getppid()}")
    with (server / "maps").open() as maps, (server / "mem").open("rb", 0) as memory:
        for line in maps:
            area, rights, *_ = line.split()
            if not rights.startswith("rw"):
                continue
            begin, end = (int(each, 16) for each in area.split("-"))
            try:
                memory.seek(begin)
                held = memory.read(end - begin)
            except (OSError, ValueError, OverflowError):
                continue
            at = held.find(marker)
            while at >= 0:
                found += 1
                # The header as it came, or as a text of Python's: it ends with a return or with a zero.
                before, after = held[max(0, at - _HEADER) : at], held[at : at + _HEADER]
                beside += session in ends.split(before)[-1] + ends.split(after, maxsplit=1)[0]
                at = held.find(marker, at + 1)
    return json.dumps({"found": found, "beside": beside})
