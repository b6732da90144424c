"""MinIO's administration at an address of its own, as far as infra/stores/minio.py asks it, and how it answers.

Paths, bodies and codes are those of minio/minio cmd/admin-router.go, cmd/admin-handlers-users.go and cmd/api-errors.go.
"""

import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from unittest.mock import patch
from urllib.parse import parse_qs, urlsplit

from argon2.low_level import hash_secret_raw
from minio.crypto import decrypt, encrypt
from urllib3 import HTTPResponse

ACCESS_KEY, SECRET_KEY = "operator", "operator-secret"


class Refused(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, code: str) -> None:
        self.status, self.code = status, code
        super().__init__(code)


class Administration:
    """Users and policies in memory. `breaks_after`: how many changes are made before no further one is; None: all."""

    def __init__(self) -> None:
        self.users: dict[str, dict[str, Any]] = {}
        self.policies: dict[str, Any] = {}
        self.breaks_after: int | None = None
        self.address = ""
        self.signed = True

    def answer(self, method: str, path: str, asked: dict[str, str], body: bytes) -> bytes:
        """What MinIO answers. Errors: `Refused`."""
        if method != "GET":
            if self.breaks_after == 0:
                raise Refused(400, "XMinioAdminBucketQuotaExceeded")
            self.breaks_after = None if self.breaks_after is None else self.breaks_after - 1
        match path.removeprefix("/minio/admin/v3/"):
            case "add-user":
                sent = json.loads(_plain(body))
                kept = self.users.get(asked["accessKey"], {"policies": []})
                self.users[asked["accessKey"]] = {**kept, "secret": sent["secretKey"], "status": sent["status"]}
            case "user-info":
                user = self._user(asked["accessKey"])
                return json.dumps({"status": user["status"], "policyName": ",".join(user["policies"])}).encode()
            case "set-user-status":
                self._user(asked["accessKey"])["status"] = asked["status"]
            case "remove-user":
                self._user(asked["accessKey"])
                del self.users[asked["accessKey"]]
            case "add-canned-policy":
                self.policies[asked["name"]] = json.loads(body)
            case "info-canned-policy":
                return json.dumps(self._policy(asked["name"])).encode()
            case "list-canned-policies":
                return json.dumps({"readwrite": {}, **self.policies}).encode()
            case "remove-canned-policy":
                self._policy(asked["name"])
                if any(asked["name"] in user["policies"] for user in self.users.values()):
                    raise Refused(400, "XMinioPolicyInUse")
                del self.policies[asked["name"]]
            case "idp/builtin/policy/attach" | "idp/builtin/policy/detach" as change:
                sent = json.loads(_plain(body))
                (name,) = sent["policies"]
                self._policy(name)
                held = self._user(sent["user"])["policies"]
                if (name in held) == change.endswith("attach"):
                    raise Refused(400, "XMinioAdminPolicyChangeAlreadyApplied")
                (held.append if change.endswith("attach") else held.remove)(name)
                return encrypt(json.dumps({"policiesAttached": [name]}).encode(), SECRET_KEY)
            case unknown:
                raise Refused(404, f"nobody answers {method} {unknown}")
        return b""

    def _user(self, name: str) -> dict[str, Any]:
        if name not in self.users:
            raise Refused(404, "XMinioAdminNoSuchUser")
        return self.users[name]

    def _policy(self, name: str) -> Any:
        if name not in self.policies:
            raise Refused(404, "XMinioAdminNoSuchPolicy")
        return self.policies[name]


def _plain(body: bytes) -> bytes:
    return decrypt(HTTPResponse(io.BytesIO(body), preload_content=False), SECRET_KEY)


@contextmanager
def administration() -> Iterator[Administration]:
    """One that listens, at `address`, until the end."""
    held = Administration()

    class Handler(BaseHTTPRequestHandler):
        def _any(self) -> None:
            url = urlsplit(self.path)
            asked = {name: values[0] for name, values in parse_qs(url.query).items()}
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            held.signed &= f"Credential={ACCESS_KEY}/" in self.headers.get("Authorization", "")
            try:
                status, answer = 200, held.answer(self.command, url.path, asked, body)
            except Refused as refused:
                # As MinIO, which may repeat in its message what it was sent.
                message = {"Code": refused.code, "Message": f"cannot do {body!r}"}
                status, answer = refused.status, json.dumps(message).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_PUT = do_POST = do_DELETE = _any  # noqa: N815  the names that http.server asks for

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  its name
            pass

    def cheap(**costs: Any) -> bytes:
        # The key that both sides make for each message costs time and memory on purpose.
        weaker: dict[str, Any] = {**costs, "time_cost": 1, "memory_cost": 64}
        return hash_secret_raw(**weaker)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    held.address = f"http://127.0.0.1:{server.server_port}"
    try:
        with patch("minio.crypto.hash_secret_raw", cheap):
            yield held
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
