"""Whose pod is calling: what stands before a service that knows no tenants asks this before it answers.

A pod cannot choose the address it calls from, and Kubernetes says to which namespace an address belongs. Runs by itself
in a pod, beside the program that asks; Python's own library alone.
"""

import http.client
import ipaddress
import json
import os
import re
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_REMEMBERED_SECONDS = 60.0
# A kubelet with much to do tells a new pod's address late, and that an old one has ended.
_PATIENCE_SECONDS = 30.0
_BETWEEN_SECONDS = 0.1
_ENDED = ("Succeeded", "Failed")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")

Ask = Callable[[str], dict[str, Any]]
"""GET a path of the Kubernetes API -> JSON; `KeyError` when there is no such thing."""


class UnknownCaller(Exception):
    """No namespace is known for who asks; the message says why."""


@dataclass(frozen=True)
class Namespace:
    """A namespace as it stands now: one made again under the same name has another uid."""

    name: str
    uid: str


def kubernetes(path: str) -> dict[str, Any]:
    """`Ask` with the pod's own account. Errors: `KeyError` for 404, `OSError` for every other answer but 200."""
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], int(os.environ.get("KUBERNETES_SERVICE_PORT", "443"))
    trust = ssl.create_default_context(cafile=str(_ACCOUNT / "ca.crt"))
    connection = http.client.HTTPSConnection(host, port, context=trust, timeout=10)
    try:
        # Read each time: the kubelet renews it.
        token = (_ACCOUNT / "token").read_text().strip()
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}", "Accept": "application/json"})
        answer = connection.getresponse()
        body = answer.read()
    except http.client.HTTPException as error:
        raise OSError(f"the Kubernetes API broke off ({type(error).__name__})") from None
    finally:
        connection.close()
    if answer.status == 404:
        raise KeyError(path)
    if answer.status != 200:
        raise OSError(f"the Kubernetes API answered {answer.status}")
    return json.loads(body)


def address_of(peer: str) -> tuple[str, int]:
    """IP address and port of a gRPC peer, such as `ipv4:198.19.0.7:40112` or `ipv6:%5B::1%5D:40112`.

    Errors: `UnknownCaller` for what is no IP peer.
    """
    kind, _, rest = peer.replace("%5B", "[").replace("%5D", "]").partition(":")
    host, _, port = rest.rpartition(":")
    try:
        if kind not in ("ipv4", "ipv6"):
            raise ValueError(kind)
        return plain_address(host.strip("[]")), int(port)
    except ValueError:
        raise UnknownCaller(f"{kind} is no peer that a pod calls from") from None


def plain_address(text: str) -> str:
    """An IP address in its one form; one of version 4 that is written as version 6 in that of version 4."""
    address = ipaddress.ip_address(text.partition("%")[0])
    return str(getattr(address, "ipv4_mapped", None) or address)


class Callers:
    """Maps who calls to a namespace. Safe to use by several threads."""

    def __init__(
        self,
        ask: Ask = kubernetes,
        *,
        pause: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask, self._pause, self._clock = ask, pause, clock
        # By connection, not by address: no connection outlives its pod, an address goes to another one.
        self._known: dict[tuple[str, int], tuple[Namespace, float]] = {}
        self._nodes: frozenset[str] = frozenset()
        self._lock = threading.Lock()

    def of_pod(self, address: str, port: int) -> Namespace:
        """The namespace of the pod that calls from there, waiting a little until Kubernetes answers and knows the one
        pod it is: a driver that is refused once ends its run.

        Errors: `UnknownCaller`; `OSError` when Kubernetes cannot be asked.
        """
        now = self._clock()
        with self._lock:
            known = self._known.get((address, port))
            if known and now - known[1] < _REMEMBERED_SECONDS:
                return known[0]
        until = now + _PATIENCE_SECONDS
        while True:
            late = self._clock() >= until
            try:
                # Several: one has just ended and Kubernetes has not yet been told. Rather none than the wrong one.
                if len(names := self._names(address)) == 1:
                    found = self.named(names.pop())
                    break
                if late:
                    whose = "of pods in several namespaces" if names else "no pod's"
                    raise UnknownCaller(f"the address {address} is {whose}")
            except OSError:
                if late:
                    raise
            self._pause(_BETWEEN_SECONDS)
        with self._lock:
            if len(self._known) > 10_000:
                self._known.clear()
            self._known[address, port] = (found, now)
        return found

    def named(self, name: str) -> Namespace:
        """The namespace of this name. Errors: `UnknownCaller` when there is none; `OSError`."""
        if not _LABEL.fullmatch(name) or len(name) > 63:
            raise UnknownCaller("that is no namespace's name")
        try:
            return Namespace(name, str(self._ask(f"/api/v1/namespaces/{name}")["metadata"]["uid"]))
        except KeyError:
            raise UnknownCaller(f"there is no namespace {name}") from None

    def all(self) -> frozenset[Namespace]:
        """Every namespace that stands. Errors: `OSError`."""
        items = self._ask("/api/v1/namespaces")["items"]
        return frozenset(Namespace(item["metadata"]["name"], item["metadata"]["uid"]) for item in items)

    def is_node(self, address: str) -> bool:
        """Whether a node itself calls from there, as the API server's proxy does. Errors: `OSError`.

        A node has its own address, and on the bridge of its pods the first one of their block.
        """
        if address not in self._nodes:
            self._nodes = frozenset(_node_addresses(self._ask("/api/v1/nodes")))
        return address in self._nodes

    def _names(self, address: str) -> set[str]:
        pods = self._ask(f"/api/v1/pods?fieldSelector={quote(f'status.podIP={address}')}")["items"]
        return {
            pod["metadata"]["namespace"]
            for pod in pods
            # A pod that has ended keeps the address that another one has by now.
            if not pod["spec"].get("hostNetwork") and pod["status"].get("phase") not in _ENDED
        }


def _node_addresses(nodes: dict[str, Any]) -> set[str]:
    found: set[str] = set()
    for node in nodes["items"]:
        found |= {each["address"] for each in node["status"].get("addresses", ()) if each["type"] == "InternalIP"}
        for block in node["spec"].get("podCIDRs", ()):
            found.add(str(ipaddress.ip_network(block)[1]))
    return found
