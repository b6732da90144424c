"""Those without a right: nobody, somebody who claims a name, a session that has expired, a student who was deleted.

An expired session is a real one of a student's, signed anew with a time long past; signed anew with the time of now it
must be let in, else nothing is said. The deleted student is made for the purpose, comes in, and is deleted: login,
session and key must have opened something before. The session itself lives on in its cookie, which nobody can call back
(see infra/session.py): what is proven of it is that it opens nothing of a seat.
"""

import base64
import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

import bcrypt
import requests
from botocore.exceptions import BotoCoreError, ClientError
from pydantic import SecretStr

from infra import naming, stores
from infra.cluster import ClusterUnreachable
from infra.failure import Failure
from infra.spec import Platform
from infra.steps import Cancelled
from labs.kubeflow_login import LoginError, WrongPasswordError
from labs.runner.clients.cluster import Cluster
from labs.runner.clients.session import GatewaySession
from labs.runner.isolation import asks
from labs.runner.isolation.asks import Call, Seat
from labs.runner.isolation.doors import PLATFORM, Try, outcome

_LONG_AGO_SECONDS: Final = 400 * 86_400
_BCRYPT_COST: Final = 10
_KEY_SECONDS: Final = 20
"""Until a key that was deleted must be unknown: a store of several servers tells all of them within seconds."""


@dataclass(kw_only=True)
class Found:
    """What outsiders tried, why some could not, and what they left. Once `cancelled` is set nothing more is tried."""

    cancelled: threading.Event
    tries: list[Try] = field(default_factory=list[Try])
    gaps: dict[str, str] = field(default_factory=dict[str, str])
    left: list[str] = field(default_factory=list[str])


def tried(
    platform: Platform,
    cluster: Cluster,
    seats: list[Seat],
    sessions: Mapping[str, GatewaySession],
    class_name: str,
    nonce: str,
    cancelled: threading.Event,
) -> Found:
    """Every outsider at every seat. `sessions` are the students' own, by student. Nothing is raised. Once `cancelled`
    is set, what was made is taken back and nothing else begun."""
    found = Found(cancelled=cancelled)
    for kind in ("anonymous", "forged"):
        _guarded(found, kind, lambda kind=kind: _at_seats(found, platform, kind, seats, ""))
    _guarded(found, "expired", lambda: _expired(found, platform, cluster, seats, sessions))
    _guarded(found, "deleted", lambda: _deleted(found, platform, cluster, seats, class_name, nonce))
    _guarded(found, "deleted", lambda: _deleted_key(found, platform, seats, class_name, nonce))
    return found


def signed(secret: str, name: str, value: str, seconds: int) -> str:
    """A session's cookie with a time of its own, as oauth2-proxy signs it.

    Source: oauth2-proxy pkg/encryption/utils.go, SignedValue: value|time|HMAC-SHA256 of name, value and time.
    """
    digest = hmac.new(secret.encode(), f"{name}{value}{seconds}".encode(), hashlib.sha256).digest()
    return f"{value}|{seconds}|{base64.urlsafe_b64encode(digest).decode()}"


def whole_cookie(header: str, name: str) -> str:
    """The value of the session's cookie in a Cookie header; a long one comes cut into `name_0`, `name_1` and so on."""
    parts = (part.strip().partition("=") for part in header.split(";"))
    pairs = {each: value for each, _, value in parts}
    if name in pairs:
        return pairs[name]
    return "".join(pairs[f"{name}_{number}"] for number in range(len(pairs)) if f"{name}_{number}" in pairs)


def cut_cookie(value: str, name: str, most: int = 3800) -> str:
    """A Cookie header of it, cut as oauth2-proxy cuts one that is too long for a browser."""
    if len(value) <= most:
        return f"{name}={value}"
    parts = [value[at : at + most] for at in range(0, len(value), most)]
    return "; ".join(f"{name}_{number}={part}" for number, part in enumerate(parts))


def _expired(
    found: Found, platform: Platform, cluster: Cluster, seats: list[Seat], sessions: Mapping[str, GatewaySession]
) -> None:
    secret, name = cluster.secret(platform.dex_namespace, "login")["cookie"], platform.gateway.session_cookie
    for seat in seats:
        if seat.student not in sessions:
            continue
        value, _, _ = whole_cookie(sessions[seat.student].cookie_for("/"), name).partition("|")
        now = int(time.time())
        for at, control in ((now, True), (now - _LONG_AGO_SECONDS, False)):
            cookie = cut_cookie(signed(secret, name, value, at), name)
            _at_seats(found, platform, "expired", [seat], cookie, control=control)


def _deleted(
    found: Found, platform: Platform, cluster: Cluster, seats: list[Seat], class_name: str, nonce: str
) -> None:
    email, password = f"{nonce}@isolation.invalid", secrets.token_urlsafe(18)
    users = f"/apis/dex.coreos.com/v1/namespaces/{platform.dex_namespace}/passwords"
    name = naming.dex_password_name(email)
    body = {
        "apiVersion": "dex.coreos.com/v1",
        "kind": "Password",
        # By these `down` finds one that a killed proof has left.
        "metadata": {"name": name, "namespace": platform.dex_namespace, "labels": naming.labels(class_name)},
        "email": email,
        "hash": base64.b64encode(bcrypt.hashpw(password.encode(), bcrypt.gensalt(_BCRYPT_COST))).decode(),
        "username": nonce,
        "userID": nonce,
    }
    status, _ = cluster.ask("POST", users, body)
    if status != HTTPStatus.CREATED:
        raise LoginError(f"no user could be made to be deleted again ({status})")
    session = GatewaySession(platform.url, platform.ca_file, email, SecretStr(password))
    with closing(session):
        try:
            session.log_in()
            _note(found, "deleted-login", "deleted", PLATFORM, "log in", "200", control=True)
            _expect_let_in(platform, session.cookie_for("/"))
        finally:
            status, _ = cluster.ask("DELETE", f"{users}/{name}")
            if status not in (HTTPStatus.OK, HTTPStatus.NOT_FOUND):
                found.left.append(f"user {email} in dex was not deleted ({status})")
        if found.left:
            raise LoginError(found.left[-1])
        _at_seats(found, platform, "deleted", seats, session.cookie_for("/"))
        try:
            session.log_in()
            answer = "200"
        except WrongPasswordError:
            answer = "401"
        _note(found, "deleted-login", "deleted", PLATFORM, "log in again, after the user was deleted", answer)


def _expect_let_in(platform: Platform, cookie: str) -> None:
    """That a session opens what is open to every session and to nobody without one. Errors: `LoginError`."""
    with_it, without = (_answered(platform, asks.with_any_session(), each) for each in (cookie, ""))
    if with_it != "200" or without == "200":
        raise LoginError(
            "the session of the student to be deleted opened nothing before, so a refusal says nothing "
            f"(answered {with_it}, and {without} without it)"
        )


def _deleted_key(found: Found, platform: Platform, seats: list[Seat], class_name: str, nonce: str) -> None:
    store = stores.connect(stores.StoreAddress.of(platform))
    if store.leaves:
        found.gaps.setdefault("deleted", store.leaves)
        return
    holding = stores.Holding.of(class_name, nonce)
    removed = False
    try:
        mine = store.opened_with(store.ensure(holding))
        before = _listed(mine, holding.bucket)
    finally:
        try:
            store.remove(holding)
            removed = True
        except Failure as error:
            found.left.append(f"bucket {holding.bucket}: {error}")
    if not removed:
        found.gaps.setdefault("deleted", f"deleted: {found.left[-1]}")
        return
    until = time.monotonic() + _KEY_SECONDS
    while outcome("key", _listed(mine, holding.bucket)) != "out" and time.monotonic() < until:
        if found.cancelled.wait(1.0):
            return
    for seat in seats:
        told = "list the own bucket, before it was deleted"
        _note(found, "deleted-key", "deleted", seat.student, told, before, control=True)
        asked = f"list_objects_v2 {seat.bucket} with the deleted key"
        _note(found, "deleted-key", "deleted", seat.student, asked, _listed(mine, seat.bucket))


def _listed(s3: Any, bucket: str) -> str:
    try:
        s3.list_objects_v2(Bucket=bucket, MaxKeys=1)
    except ClientError as error:
        return str(error.response.get("Error", {}).get("Code", "refused"))
    except BotoCoreError as error:
        return f"no answer ({type(error).__name__})"
    return "done"


def _at_seats(
    found: Found, platform: Platform, kind: str, seats: list[Seat], cookie: str, *, control: bool = False
) -> None:
    for seat in seats:
        for call in asks.outside(seat, kind):
            if found.cancelled.is_set():
                raise Cancelled("stopped before every door was tried")
            answer = _answered(platform, call, cookie)
            _note(found, call.door, kind, seat.student, call.asked, answer, control=control, notebook=call.notebook)


def _answered(platform: Platform, call: Call, cookie: str) -> str:
    headers = {**call.headers, **({"Cookie": cookie} if cookie else {})}
    try:
        answer = requests.request(
            call.method,
            platform.url.rstrip("/") + call.path,
            params=call.params,
            headers=headers,
            verify=str(platform.ca_file) if platform.ca_file else True,
            allow_redirects=False,
            timeout=15,
            proxies={"http": "", "https": ""},
        )
    except requests.RequestException as error:
        return f"no answer ({type(error).__name__})"
    return str(answer.status_code)


def _note(
    found: Found,
    door: str,
    actor: str,
    target: str,
    asked: str,
    answer: str,
    *,
    control: bool = False,
    notebook: str = "",
) -> None:
    each = Try(door=door, actor=actor, target=target, notebook=notebook, asked=asked, answer=answer, control=control)
    found.tries.append(each)


def _guarded(found: Found, kind: str, does: Any) -> None:
    """An outsider who cannot be played leaves a gap, and the others their turn."""
    if found.cancelled.is_set():
        return
    try:
        does()
    except (Failure, ClusterUnreachable, LoginError, Cancelled, requests.RequestException, KeyError) as error:
        found.gaps.setdefault(kind, f"{kind}: {error}")
