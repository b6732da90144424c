"""A student's own way in: the login at the gateway, kept alive, and calls that carry it."""

import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.cookiejar import Cookie, CookieJar
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from pydantic import SecretStr

from labs.kubeflow_login import LoginError, cookie_header, login

SECONDS_PER_CALL = 30
# What a gateway answers while the server behind it starts anew; Traefik has 404 for a moment when a route is new.
RESTARTING = frozenset({HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT})

Files = Mapping[str, tuple[str, bytes]]


class NoAnswerError(Exception):
    """A service did not answer within its time; the message says which and what it said last."""


class GatewaySession:
    """Calls to the gateway as one student. One session may be used by one thread at a time."""

    def __init__(self, url: str, ca_file: Path | None, email: str, password: SecretStr) -> None:
        self.url = url.rstrip("/")
        self.ca_file = ca_file
        self.email = email
        self._password = password
        self._session = requests.Session()

    def log_in(self) -> float:
        """Log in anew; the seconds it took. Errors: `LoginError`."""
        started = time.monotonic()
        ca_file = str(self.ca_file) if self.ca_file else None
        fresh = login(self.url, self.email, self._password.get_secret_value(), ca_file)
        for cookie in self._cookies():
            # Jupyter's own tokens outlive the login.
            if cookie.name == "_xsrf":
                fresh.cookies.set_cookie(cookie)
        self._session.close()
        self._session = fresh
        return time.monotonic() - started

    def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | int] | None = None,
        json: object = None,
        files: Files | None = None,
        headers: Mapping[str, str] | None = None,
        seconds: float = SECONDS_PER_CALL,
    ) -> requests.Response:
        """One call, whatever its answer; when the login has expired in between, it is renewed once. `files` go as a
        form: name and content by field.

        Errors: `requests.RequestException` when there is no answer, `LoginError` when the login is not renewed.
        """
        for attempt in (1, 2):
            # The CA goes into each call: a session's own setting loses against REQUESTS_CA_BUNDLE of the environment.
            answer = self._session.request(
                method,
                self.url + path,
                params=params,
                json=json,
                files=files,
                headers=headers,
                timeout=seconds,
                verify=str(self.ca_file) if self.ca_file else True,
                allow_redirects=False,
            )
            if attempt == 1 and _asks_for_login(answer):
                self.log_in()
                continue
            return answer
        raise AssertionError("unreachable")

    def patient_call(
        self,
        method: str,
        path: str,
        *,
        until: float,
        pause: Callable[[float], None] = time.sleep,
        params: Mapping[str, str | int] | None = None,
        json: object = None,
        files: Files | None = None,
        also: frozenset[int] = frozenset(),
    ) -> requests.Response:
        """As `call`, repeated while the service behind restarts, at most until the monotonic time `until`.

        `also` are further statuses that are worth waiting on. Errors: `NoAnswerError` after that time.
        """
        while True:
            try:
                answer = self.call(method, path, params=params, json=json, files=files)
                if answer.status_code not in RESTARTING | also:
                    return answer
                seen = f"answered {answer.status_code} {answer.text[:120].strip()}"
            except requests.RequestException as error:
                seen = f"did not answer ({error.__class__.__name__})"
            except LoginError as error:
                seen = f"asked for a new login, and {error}"
            if time.monotonic() >= until:
                raise NoAnswerError(f"{path.split('?')[0]} {seen}")
            pause(1.0)

    def cookie_for(self, path: str) -> str:
        """The Cookie header that a call to `path` would carry: for websockets, which this session does not speak."""
        prepared = self._session.prepare_request(requests.Request("GET", self.url + path))
        return prepared.headers.get("Cookie", "")

    def carry(self, name: str, value: str) -> None:
        """Send a further cookie with every call, until the next login."""
        host = urlsplit(self.url).hostname or ""
        self._session.cookies.set(name, value, domain=host if "." in host else f"{host}.local", path="/")

    def xsrf(self, path: str) -> str:
        """Jupyter's own token for `path`, which every changing call must repeat; empty before a page was fetched."""
        pairs = (part.strip().partition("=") for part in self.cookie_for(path).split(";"))
        return next((value for name, _, value in pairs if name == "_xsrf"), "")

    def secrets(self) -> tuple[str, ...]:
        """What must never be seen in anything that is stored: the password and the login's cookies."""
        values = (cookie.value for cookie in self._cookies())
        # Shorter ones are flags and would blot out innocent text.
        return (self._password.get_secret_value(), *(value for value in values if value and len(value) > 15))

    def is_in(self) -> bool:
        """Whether a login has been made; it may have expired since."""
        return bool(cookie_header(self._session))

    def _cookies(self) -> list[Cookie]:
        # requests' jar is read through its base class: its own iterator is annotated as one of texts.
        return list(CookieJar.__iter__(self._session.cookies))

    def close(self) -> None:
        """Give the connections back."""
        self._session.close()


def _asks_for_login(answer: requests.Response) -> bool:
    if answer.status_code == HTTPStatus.UNAUTHORIZED:
        return True
    if answer.status_code == HTTPStatus.FORBIDDEN:
        # What oauth2-proxy shows, where it is told not to start the login by itself, is a page with a button.
        return 'action="/oauth2/start"' in answer.text
    target = urlsplit(answer.headers.get("Location", "")).path
    return answer.is_redirect and ("/oauth2/" in target or "/dex/" in target)


def decoded(answer: requests.Response) -> Any:
    """The answer's JSON. Errors: `NoAnswerError` for a status that says no, with what the service said."""
    if answer.status_code >= HTTPStatus.BAD_REQUEST:
        raise NoAnswerError(f"{urlsplit(answer.url).path} answered {answer.status_code} {answer.text[:200].strip()}")
    return answer.json() if answer.content else {}
