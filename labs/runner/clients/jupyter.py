"""A student's notebook server, driven as JupyterLab drives it: files, sessions, kernels.

Source: Jupyter Server's REST API and Jupyter's messaging protocol 5 (a cell is done when its reply has come AND the
kernel has said idle: outputs may arrive after the reply).
"""

import json
import re
import struct
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Literal
from urllib.parse import quote, urlsplit

import requests
import websocket

from labs.kubeflow_login import LoginError
from labs.runner.clients.session import GatewaySession, NoAnswerError, decoded

_SECONDS_BETWEEN_LOOKS = 5.0
_SECONDS_TO_START_KERNEL = 90.0
_ATTEMPTS_TO_END = 8
# Deepest first, so that a folder is empty when its turn comes.
_REMOVE = """\
def _remove(folder, limit):
    import json, pathlib
    kept = []
    for path in sorted(pathlib.Path(folder).rglob("*"), key=lambda path: len(path.parts), reverse=True):
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif limit is not None and path.lstat().st_mtime > limit and ".ipynb_checkpoints" not in path.parts:
            kept.append(str(path))
        else:
            path.unlink()
    for path in (pathlib.Path(folder), pathlib.Path(folder).parent):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    print(json.dumps(kept))
_remove({folder!r}, {limit!r}); del _remove
"""
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True, kw_only=True)
class Execution:
    """What became of one cell. `outputs` are notebook outputs (nbformat 4) in the order they came."""

    state: Literal["ok", "error", "timeout", "dead"]
    seconds: float
    outputs: list[dict[str, Any]] = field(default_factory=list)
    execution_count: int | None = None
    error: str = ""


class KernelDiedError(Exception):
    """The kernel ended by itself: out of memory, killed, or the whole server restarted."""


class NotebookServer:
    """The server at `base` (/notebook/NAMESPACE/NAME), through the gateway and as the student."""

    def __init__(self, session: GatewaySession, base: str) -> None:
        self.session = session
        self.base = base.rstrip("/")

    def wait(self, *, until: float, pause: Callable[[float], None] = time.sleep) -> None:
        """Return when the server answers, with its token for changing calls. Errors: `NoAnswerError` after `until`."""
        # A new route is not there yet for a moment: 404 is worth waiting on, too.
        answer = self.session.patient_call(
            "GET", f"{self.base}/api/status", until=until, pause=pause, also=frozenset({HTTPStatus.NOT_FOUND})
        )
        if answer.status_code == HTTPStatus.FORBIDDEN:
            raise NoAnswerError(f"the gateway does not admit {self.session.email} to {self.base} (403)")
        decoded(answer)
        self.session.call("GET", f"{self.base}/lab")

    def read(self, path: str) -> dict[str, Any] | None:
        """A file or notebook as the contents API shows it; None when there is none."""
        answer = self._call("GET", f"/api/contents/{quote(path)}", params={"content": 1})
        return None if answer.status_code == HTTPStatus.NOT_FOUND else decoded(answer)

    def read_text(self, path: str) -> str | None:
        """A file's text, whatever its name makes Jupyter think of it; None when there is none."""
        answer = self._call(
            "GET", f"/api/contents/{quote(path)}", params={"content": 1, "type": "file", "format": "text"}
        )
        return None if answer.status_code == HTTPStatus.NOT_FOUND else decoded(answer)["content"]

    def download(self, path: str) -> bytes:
        """A file as the browser's download gets it. Errors: `NoAnswerError` when there is none."""
        # JupyterLab's own link carries the token as a parameter.
        token = {"_xsrf": self.session.xsrf(f"{self.base}/files"), "download": "1"}
        answer = self._call("GET", f"/files/{quote(path)}", params=token)
        if answer.status_code != HTTPStatus.OK:
            raise NoAnswerError(f"{path} was not downloaded: the notebook server answered {answer.status_code}")
        return answer.content

    def make_folder(self, path: str) -> None:
        """A folder; nothing when it is there already."""
        if self.read_kind(path) != "directory":
            decoded(self._call("PUT", f"/api/contents/{quote(path)}", json={"type": "directory"}))

    def read_kind(self, path: str) -> str | None:
        """ "file", "notebook" or "directory"; None when there is nothing."""
        answer = self._call("GET", f"/api/contents/{quote(path)}", params={"content": 0})
        return None if answer.status_code == HTTPStatus.NOT_FOUND else decoded(answer)["type"]

    def write_text(self, path: str, text: str) -> None:
        """Store a text file, over one of that name."""
        body = {"type": "file", "format": "text", "content": text}
        decoded(self._call("PUT", f"/api/contents/{quote(path)}", json=body))

    def write_notebook(self, path: str, notebook: Mapping[str, Any]) -> None:
        """Store a notebook (nbformat 4), over one of that name."""
        body = {"type": "notebook", "format": "json", "content": notebook}
        decoded(self._call("PUT", f"/api/contents/{quote(path)}", json=body))

    @contextmanager
    def kernel(self, notebook_path: str) -> "Iterator[Kernel]":
        """A kernel at work in the notebook's folder, ended with its session however the block is left."""
        body = {"path": notebook_path, "name": notebook_path, "type": "notebook", "kernel": {"name": "python3"}}
        started = decoded(self._call("POST", "/api/sessions", json=body, seconds=_SECONDS_TO_START_KERNEL))
        kernel = Kernel(self, str(started["kernel"]["id"]))
        try:
            kernel.connect()
            yield kernel
        finally:
            kernel.close()
            self._end(str(started["id"]))

    def _end(self, session_id: str) -> None:
        """End a session with its kernel. A server that does not answer has no kernel left to end."""
        with suppress(requests.RequestException, LoginError):
            for _ in range(_ATTEMPTS_TO_END):
                # While it restarts a kernel that died, the server answers 500 and ends nothing.
                if self._call("DELETE", f"/api/sessions/{session_id}").status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
                    return
                time.sleep(1.0)

    def end_sessions(self, folder: str) -> int:
        """End every session of a notebook below `folder`, with its kernel; how many there were."""
        found = [one for one in decoded(self._call("GET", "/api/sessions")) if one["path"].startswith(f"{folder}/")]
        for one in found:
            self._end(str(one["id"]))
        return len(found)

    def kernel_state(self, kernel_id: str) -> str:
        """A kernel's state in Jupyter's words; "gone" when there is none of that id."""
        answer = self._call("GET", f"/api/kernels/{kernel_id}")
        return "gone" if answer.status_code == HTTPStatus.NOT_FOUND else str(decoded(answer)["execution_state"])

    def interrupt(self, kernel_id: str) -> None:
        """Stop what a kernel is at, as the button does."""
        self._call("POST", f"/api/kernels/{kernel_id}/interrupt")

    def _call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | int] | None = None,
        json: object = None,
        seconds: float = 30,
    ) -> requests.Response:
        headers = {"X-XSRFToken": self.session.xsrf(f"{self.base}/api/contents")}
        return self.session.call(method, self.base + path, params=params, json=json, headers=headers, seconds=seconds)


class Kernel:
    """A running kernel, and the websocket to it."""

    def __init__(self, server: NotebookServer, kernel_id: str) -> None:
        self._server = server
        self.id = kernel_id
        self._session_id = uuid.uuid4().hex
        self._socket: websocket.WebSocket | None = None

    def connect(self) -> None:
        """Open the websocket. Errors: `KernelDiedError` when it is refused."""
        session, path = self._server.session, f"{self._server.base}/api/kernels/{self.id}/channels"
        address = urlsplit(session.url)
        url = f"{'wss' if address.scheme == 'https' else 'ws'}://{address.netloc}{path}?session_id={self._session_id}"
        try:
            self._socket = websocket.create_connection(
                url,
                cookie=session.cookie_for(path),
                origin=session.url,
                sslopt={"ca_certs": str(session.ca_file)} if session.ca_file else None,
                timeout=30,
                http_no_proxy=["*"],
            )
        except (websocket.WebSocketException, OSError) as error:
            raise KernelDiedError(f"the kernel's websocket was refused ({error})") from None

    def prepare(self, variables: Mapping[str, str], forget: Iterable[str] = ()) -> None:
        """Set environment variables of the kernel so that neither file, output nor history holds them, and remove the
        files `forget` from its folder (the contents API would keep them in the student's wastebasket).

        Errors: `KernelDiedError`.
        """
        source = (
            "def _prepare():\n import os, pathlib\n"
            f" os.environ.update({dict(variables)!r})\n"
            f" for path in {list(forget)!r}: pathlib.Path(path).unlink(missing_ok=True)\n"
            "_prepare(); del _prepare"
        )
        done = self._execute(source, timeout_seconds=60, cancelled=threading.Event(), silent=True)
        if done.state != "ok":
            raise KernelDiedError(f"the kernel did not take its environment ({done.state})")

    def remove_folder(self, folder: str, *, unchanged_since: float | None = None) -> list[str]:
        """Remove a folder of the workspace and, when it is empty then, the one that holds it: past the student's
        wastebasket, where the contents API would put it. The kernel must be at work in the workspace itself.

        With `unchanged_since` (seconds since the epoch) younger files stay; their paths are returned.
        Errors: `KernelDiedError`.
        """
        done = self._execute(
            _REMOVE.format(folder=folder, limit=unchanged_since),
            timeout_seconds=60,
            cancelled=threading.Event(),
            silent=False,
        )
        if done.state != "ok":
            raise KernelDiedError(f"{folder} was not removed ({done.error})")
        return json.loads(text_of(done.outputs))

    def execute(
        self, source: str, *, timeout_seconds: float, cancelled: threading.Event, grace_seconds: float = 0.0
    ) -> Execution:
        """Run one cell to its end. A cell over its time is interrupted and reads "timeout"; so does one that has not
        ended `grace_seconds` after `cancelled` was set."""
        return self._execute(
            source, timeout_seconds=timeout_seconds, cancelled=cancelled, grace_seconds=grace_seconds, silent=False
        )

    def _execute(
        self,
        source: str,
        *,
        timeout_seconds: float,
        cancelled: threading.Event,
        silent: bool,
        grace_seconds: float = 0.0,
    ) -> Execution:
        started = time.monotonic()
        outputs: list[dict[str, Any]] = []
        try:
            message_id = self._ask(source, silent)
            reply = self._until_idle(message_id, outputs, started + timeout_seconds, cancelled, grace_seconds)
        except KernelDiedError as error:
            return Execution(state="dead", seconds=time.monotonic() - started, outputs=outputs, error=str(error))
        except TimeoutError as error:
            self._interrupt()
            return Execution(state="timeout", seconds=time.monotonic() - started, outputs=outputs, error=str(error))
        good = reply.get("status") == "ok"
        return Execution(
            state="ok" if good else "error",
            seconds=time.monotonic() - started,
            outputs=outputs,
            execution_count=reply.get("execution_count"),
            error="" if good else f"{reply.get('ename', 'aborted')}: {reply.get('evalue', '')}",
        )

    def close(self) -> None:
        """Close the websocket; the kernel itself ends with its session."""
        if self._socket is not None:
            self._socket.close()

    def _ask(self, source: str, silent: bool) -> str:
        message_id = uuid.uuid4().hex
        message = {
            "channel": "shell",
            "header": {
                "msg_id": message_id,
                "msg_type": "execute_request",
                "session": self._session_id,
                "username": "rehearsal",
                "version": "5.3",
                "date": "",
            },
            "parent_header": {},
            "metadata": {},
            "content": {
                "code": source,
                "silent": silent,
                "store_history": not silent,
                "user_expressions": {},
                # A cell that asks a question fails at once instead of waiting for somebody to answer.
                "allow_stdin": False,
                # Cells come one at a time: none is to be aborted, and the next one, if it came soon, would be.
                "stop_on_error": False,
            },
            "buffers": [],
        }
        try:
            self._connected().send(json.dumps(message))
        except (websocket.WebSocketException, OSError) as error:
            raise KernelDiedError(f"the connection to the kernel broke ({error})") from None
        return message_id

    def _until_idle(
        self,
        message_id: str,
        outputs: list[dict[str, Any]],
        until: float,
        cancelled: threading.Event,
        grace_seconds: float,
    ) -> dict[str, Any]:
        """Collect until both the reply and idle have come; the reply's content."""
        reply: dict[str, Any] | None = None
        idle = False
        looked, stopped = time.monotonic(), float("inf")
        while reply is None or not idle:
            now = time.monotonic()
            if now >= until:
                raise TimeoutError("the cell took longer than its time and was interrupted")
            if cancelled.is_set():
                stopped = min(stopped, now)
                if now - stopped >= grace_seconds:
                    raise TimeoutError("the rehearsal was stopped")
            if now - looked > _SECONDS_BETWEEN_LOOKS:
                looked = now
                self._look_alive()
            message = self._receive(min(1.0, until - now))
            if message is None:
                continue
            kind, content = message["header"]["msg_type"], message.get("content", {})
            if kind == "status" and content.get("execution_state") in ("restarting", "autorestarting", "dead"):
                raise KernelDiedError("the kernel died while the cell ran; did it run out of memory?")
            if message.get("parent_header", {}).get("msg_id") != message_id:
                continue
            if kind == "execute_reply":
                reply = content
            elif kind == "status":
                idle = idle or content["execution_state"] == "idle"
            else:
                _collect(kind, content, outputs)
        return reply

    def _receive(self, seconds: float) -> dict[str, Any] | None:
        socket = self._connected()
        socket.settimeout(max(seconds, 0.05))
        try:
            data = socket.recv()
        except websocket.WebSocketTimeoutException:
            return None
        except (websocket.WebSocketException, OSError) as error:
            raise KernelDiedError(f"the connection to the kernel broke ({error.__class__.__name__})") from None
        if not data:
            raise KernelDiedError("the connection to the kernel was closed; did the notebook server restart?")
        if isinstance(data, bytes):
            # With buffers a message is binary: how many parts, where each begins (big-endian), the JSON first.
            count = struct.unpack_from("!I", data)[0]
            offsets = [*struct.unpack_from(f"!{count}I", data, 4), len(data)]
            data = data[offsets[0] : offsets[1]].decode()
        return json.loads(data)

    def _look_alive(self) -> None:
        try:
            state = self._server.kernel_state(self.id)
        except (requests.RequestException, NoAnswerError):
            return
        if state in ("gone", "dead", "restarting", "autorestarting"):
            raise KernelDiedError(f"the kernel is {state}; did the notebook server restart or run out of memory?")

    def _interrupt(self) -> None:
        with suppress(requests.RequestException):
            self._server.interrupt(self.id)

    def _connected(self) -> websocket.WebSocket:
        if self._socket is None:
            raise KernelDiedError("the kernel is not connected")
        return self._socket


def _collect(kind: str, content: Mapping[str, Any], outputs: list[dict[str, Any]]) -> None:
    """Add what a message shows to a cell's outputs, as nbformat 4 stores it."""
    match kind:
        case "stream":
            if outputs and outputs[-1]["output_type"] == "stream" and outputs[-1]["name"] == content["name"]:
                outputs[-1]["text"] += content["text"]
            else:
                outputs.append({"output_type": "stream", "name": content["name"], "text": content["text"]})
        case "display_data" | "execute_result":
            output = {"output_type": kind, "data": content["data"], "metadata": content.get("metadata", {})}
            if kind == "execute_result":
                output["execution_count"] = content["execution_count"]
            outputs.append(output)
        case "error":
            named = {key: content[key] for key in ("ename", "evalue", "traceback")}
            outputs.append({"output_type": "error", **named})
        case "clear_output":
            outputs.clear()


def text_of(outputs: list[dict[str, Any]]) -> str:
    """What a person would read in a cell's outputs, without the colours of a terminal."""
    parts = []
    for output in outputs:
        if output["output_type"] == "stream":
            parts.append(output["text"])
        elif output["output_type"] == "error":
            parts.append("\n".join(output["traceback"]))
        else:
            data = output["data"]
            shown = data.get("text/html") or data.get("text/plain") or ""
            parts.append("".join(shown) if isinstance(shown, list) else str(shown))
    return _COLOURS.sub("", "\n".join(part.rstrip("\n") for part in parts))
