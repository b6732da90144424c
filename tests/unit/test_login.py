"""The login at gateways that somebody else has installed, each played as its parts answer: oauth2-proxy as Kubeflow 1.9
and later set it up, and the OIDC authservice of those before."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from pydantic import SecretStr

from labs.kubeflow_login import WrongPasswordError, cookie_header
from labs.runner.clients.session import GatewaySession

PASSWORD = "bafabe-kodidu-lagapa-mesono"


class _Gateway(BaseHTTPRequestHandler):
    """dex with its password form, and a page behind the login. The subclasses tell how one gets to the login."""

    cookie: str
    callback: str
    session = 1
    """The one that is valid; another number ends it."""

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path == "/dex/auth":
            self._to("/dex/auth/local?req=1")
        elif path == "/dex/auth/local":
            self._to("/dex/auth/local/login?state=1")
        elif path == "/dex/auth/local/login":
            self._say(200, "<form method=post>")
        elif path == self.callback:
            self._to("/", f"{self.cookie}={type(self).session}-of-a-student-who-logged-in; Path=/")
        elif path == "/oauth2/start":
            self.start()
        elif f"{self.cookie}={type(self).session}-" in self.headers.get("Cookie", ""):
            self._say(200, "inside")
        else:
            self.refuse(path)

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        if form["password"] == [PASSWORD]:
            self._to(self.callback)
        else:
            self._say(401, "Invalid Email Address and password.")

    def start(self) -> None:
        """What is at the place where oauth2-proxy begins a login."""
        raise NotImplementedError

    def refuse(self, path: str) -> None:
        """What is answered to nobody."""
        raise NotImplementedError

    def _to(self, where: str, cookie: str = "") -> None:
        self.send_response(302)
        self.send_header("Location", where)
        if cookie:
            self.send_header("Set-Cookie", cookie)
        self.end_headers()

    def _say(self, status: int, text: str) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  http.server's name
        """Nothing is logged."""


class Oauth2Proxy(_Gateway):
    """kubeflow/manifests common/oauth2-proxy/base/oauth2_proxy.cfg: api_routes and skip_provider_button = false."""

    cookie, callback = "oauth2_proxy_kubeflow", "/oauth2/callback"

    def start(self) -> None:
        self._to("/dex/auth?client_id=kubeflow-oidc-authservice")

    def refuse(self, path: str) -> None:
        if "/api/" in path or "/apis/" in path:
            self._say(401, "{}")
        else:
            self._say(403, '<html><form method="GET" action="/oauth2/start"><button>Sign in</button></form></html>')


class Authservice(_Gateway):
    """kubeflow/manifests v1.8 common/oidc-client/oidc-authservice: whoever is not logged in is sent to dex."""

    cookie, callback = "authservice_session", "/authservice/oidc/callback"

    def start(self) -> None:
        self.refuse("")

    def refuse(self, path: str) -> None:  # noqa: ARG002  the other gateway looks at it
        self._to("/dex/auth?client_id=kubeflow-oidc-authservice")


@contextmanager
def _session(kind: type[_Gateway], password: str = PASSWORD) -> Iterator[GatewaySession]:
    kind.session = 1
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    session = GatewaySession(f"http://127.0.0.1:{server.server_port}/", None, "alice@example.org", SecretStr(password))
    try:
        yield session
    finally:
        session.close()
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("kind", [Oauth2Proxy, Authservice])
def test_a_student_gets_in_whatever_the_session_cookie_is_called(kind: type[_Gateway]) -> None:
    with _session(kind) as session:
        session.log_in()
        assert cookie_header(session._session).startswith(f"{kind.cookie}=1-")
        assert session.call("GET", "/pipeline/apis/v2beta1/runs").text == "inside"
        assert session.secrets()[1].startswith("1-")


@pytest.mark.parametrize("kind", [Oauth2Proxy, Authservice])
@pytest.mark.parametrize("path", ["/pipeline/apis/v2beta1/runs", "/notebook/demo-alice/cpu-notebook/files/a.txt"])
def test_a_login_that_has_run_out_is_renewed_whatever_the_gateway_answers(kind: type[_Gateway], path: str) -> None:
    with _session(kind) as session:
        session.log_in()
        kind.session = 2
        answer = session.call("GET", path)
        assert (answer.status_code, answer.text) == (200, "inside")


@pytest.mark.parametrize("kind", [Oauth2Proxy, Authservice])
def test_a_wrong_password_is_told_as_such(kind: type[_Gateway]) -> None:
    with _session(kind, "wrong") as session, pytest.raises(WrongPasswordError, match="refused the password of alice"):
        session.log_in()
