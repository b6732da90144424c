"""Pulumi's Automation API for our programs: up, preview, destroy, refresh, told as events and safe to interrupt.

Promise: whatever happens to a call (Ctrl-C, `kill -9`, a resource that fails), the next one goes on. A lock whose
holder is dead is taken away (one of another host, where nobody here can see who is alive, is told), an operation that
was cut off is forgotten (every resource of ours is adopted when it stands already), and a cancelled call lets Pulumi
finish what is under way and write its state.

State lies below the state directory unless PULUMI_BACKEND_URL names another backend; secrets in it are encrypted with
the passphrase in that directory unless PULUMI_CONFIG_PASSPHRASE or PULUMI_CONFIG_PASSPHRASE_FILE is set.
"""

import asyncio
import hashlib
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, Literal

import yaml
from pulumi import automation as auto
from pulumi.automation import errors as auto_errors
from pulumi.automation.events import EngineEvent, OpType, StepEventMetadata
from semver import VersionInfo

from infra.failure import CallFailure, Failure
from infra.identity import PASSWORD_PATTERN
from infra.steps import Cancelled, Event, Listener

Outputs = Mapping[str, auto.OutputValue]
"""What a program exported. The text form of a secret one is hidden."""

_ROOT: Final = Path(__file__).resolve().parent.parent
_ORPHAN_ENDS_WITHIN_SECONDS: Final = 120
_MESSAGE_CHARACTERS: Final = 600

# Passwords, bcrypt hashes and S3 keys in the forms that this program makes or is given.
_SECRETS: Final = re.compile(
    rf"{PASSWORD_PATTERN}|\$2[aby]\$\S{{56}}|JDJ[A-Za-z0-9+/=]{{70,}}|\bAKIA[A-Z0-9]{{16}}\b"
    r"|(?<![A-Za-z0-9/+=-])(?=[A-Za-z/+]*[0-9])(?=[a-z0-9/+]*[A-Z])(?=[A-Z0-9/+]*[a-z])[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+=-])"
)
_MARKUP: Final = re.compile(r"<\{%.*?%\}>|\x1b\[[0-9;]*m")

# Nothing is printed: what happens is heard as events.
_QUIET: Final[Mapping[str, Any]] = {"suppress_outputs": True, "suppress_progress": True, "color": "never"}

# Pulumi is told to cancel when the process that started it is gone: an orphan would hold the lock.
_WITH_PARENT: Final = (
    "import ctypes, os, signal, sys\n"
    "ctypes.CDLL(None).prctl(1, signal.SIGINT)\n"  # PR_SET_PDEATHSIG
    "if os.getppid() != int(sys.argv[1]): sys.exit(130)\n"
    "os.execv(sys.argv[2], sys.argv[2:])\n"
)


@dataclass(frozen=True, kw_only=True)
class Stack:
    """A program and where its state is kept.

    `tools` are directories with the Pulumi CLI and its plugins, looked into before PATH. Without `checkpoints` the
    state is written once at the end: faster, and safe for a program whose resources are adopted when they stand already
    and swept when no state knows them. The `fingerprint` changes with whatever the program makes its resources of;
    empty when that is not known.
    """

    project: str
    name: str
    program: Callable[[], None]
    state: Path
    tools: tuple[Path, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    checkpoints: bool = True
    fingerprint: str = ""


@dataclass(frozen=True, kw_only=True)
class Resource:
    """A resource as the state knows it; of its properties only those that name it."""

    urn: str
    type: str
    id: str
    namespace: str = ""
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class Planned:
    """What `up` would do with one resource, components and what stays as it is among them.

    `op` is Pulumi's word for it, `parent` the URN of what it is a part of, `old` and `new` are its inputs, in which
    Pulumi has blacked out what is secret.
    """

    op: str
    urn: str
    type: str
    parent: str
    old: Mapping[str, Any]
    new: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What just happened to a resource: `begun`, `done`, or `failed`, and then why in one line."""

    urn: str
    parent: str
    state: Literal["begun", "done", "failed"]
    why: str = ""


Watch = Callable[[Seen], None]


class EngineFailure(Failure):
    """Pulumi could not do it. One line per resource that failed, without secrets; `failures` has them by URN."""

    def __init__(self, message: str, failures: Mapping[str, str] | None = None) -> None:
        self.failures = dict(failures or {})
        super().__init__(message)


class StackLocked(CallFailure):
    """Another command is changing the same stack."""


def up(
    stack: Stack,
    listener: Listener,
    cancelled: threading.Event | None = None,
    *,
    targets: Sequence[str] = (),
    replace: Sequence[str] = (),
    watch: Watch | None = None,
    go_on: bool = False,
) -> Outputs:
    """Make everything of the program stand, or only the resources whose URNs are `targets`. Its outputs.

    Those whose URNs are in `replace` are made anew, changed or not, and the new ones stay from then on.
    `watch` hears of each resource. With `go_on` a resource that fails does not keep others from being made.

    Errors: `EngineFailure`, `StackLocked`, whatever `Failure` the program raised; `Cancelled` when `cancelled` was set
    and KeyboardInterrupt on Ctrl-C, both after Pulumi has written its state.
    """
    with _operation(stack, listener, cancelled, "up", watch) as call:
        done = call.stack.up(
            on_event=call.hear,
            target=list(targets) or None,
            replace=list(replace) or None,
            continue_on_error=go_on,
            **_QUIET,
        )
    if not targets and (settled := _settled(stack)):
        _mark(stack).parent.mkdir(parents=True, exist_ok=True)
        _mark(stack).write_text(settled)
    return done.outputs


def is_settled(stack: Stack) -> bool:
    """Whether another `up` would find nothing to do: the last operation was a whole `up` of the same fingerprint, and
    ended well. Like `up` itself, it trusts the state; what really stands is not looked at.
    """
    settled = _settled(stack)
    return bool(settled) and _mark(stack).exists() and _mark(stack).read_text() == settled


def preview(stack: Stack, listener: Listener, cancelled: threading.Event | None = None) -> tuple[Planned, ...]:
    """What `up` would do with each resource; nothing is changed. Errors as `up`."""
    with _operation(stack, listener, cancelled, "preview") as call:
        call.stack.preview(on_event=call.hear, **_QUIET)
        return tuple(call.planned)


def refresh(
    stack: Stack, listener: Listener, cancelled: threading.Event | None = None, *, targets: Sequence[str] = ()
) -> None:
    """Look at what really stands and correct the state, so that the next `up` mends what is missing. Errors as `up`."""
    with _operation(stack, listener, cancelled, "refresh") as call:
        call.stack.refresh(on_event=call.hear, target=list(targets) or None, **_QUIET)


def destroy(
    stack: Stack, listener: Listener, cancelled: threading.Event | None = None, *, targets: Sequence[str] = ()
) -> None:
    """Delete everything that the state knows, then the stack itself, or only the resources whose URNs are `targets`.

    Nothing to do is fine. Errors as `up`.
    """
    if not exists(stack):
        return
    with _operation(stack, listener, cancelled, "destroy") as call:
        call.stack.destroy(on_event=call.hear, target=list(targets) or None, continue_on_error=True, **_QUIET)
        if not targets:
            call.stack.workspace.remove_stack(stack.name)
            _forget(stack)


def outputs(stack: Stack) -> Outputs:
    """What the last `up` exported; empty when there was none. Errors: `EngineFailure`."""
    if not exists(stack):
        return {}
    with _explained(stack):
        return auto.Stack.select(stack.name, _workspace(stack, threading.Event())).outputs()


def export(stack: Stack) -> tuple[Resource, ...]:
    """The resources that the state knows, components left out. Errors: `EngineFailure`."""
    found = (_resource(each) for each in _recorded_state(stack) if each.get("custom"))
    return tuple(each for each in found if not each.type.startswith("pulumi:providers:"))


def parents(stack: Stack) -> Mapping[str, str]:
    """Everything that the state knows, components and providers too: the URN of its parent, "" for none, by its own.

    Whoever was changing the stack when it was killed has come to its end before the state is read.

    Errors: `EngineFailure`; `StackLocked` when another command is changing it.
    """
    if not exists(stack):
        return {}
    _unlock(stack)
    return {each["urn"]: str(each.get("parent") or "") for each in _recorded_state(stack)}


def _recorded_state(stack: Stack) -> list[dict[str, Any]]:
    if not exists(stack):
        return []
    with _explained(stack):
        state = _state(_workspace(stack, threading.Event()), stack.name)
    return list(state.get("deployment", {}).get("resources") or [])


def names(stack: Stack) -> frozenset[str]:
    """The names of all stacks of the same project in the same backend. Errors: `EngineFailure`."""
    if not _foreign_backend():
        # What the file backend's own listing reads, without starting Pulumi (pkg/backend/diy, `stackPath`).
        found = (re.fullmatch(r"(.+)\.json(\.gz)?", file.name) for file in _states(stack).glob("*"))
        return frozenset(match[1] for match in found if match)
    with _explained(stack):
        return frozenset(each.name for each in _workspace(stack, threading.Event()).list_stacks())


def exists(stack: Stack) -> bool:
    """Whether there is a state. Errors: `EngineFailure` when the backend cannot be asked."""
    return stack.name in names(stack)


def redact(text: str) -> str:
    """The text without anything that looks like a password, its hash or a key of ours."""
    return _SECRETS.sub("[secret]", text)


class _Call:
    """One operation on a stack: hears Pulumi's events, counts, and remembers what failed."""

    def __init__(
        self, stack: auto.Stack, step: str, listener: Listener, expected: int, watch: Watch | None = None
    ) -> None:
        self.stack = stack
        self.failures: dict[str, str] = {}
        self.planned: list[Planned] = []
        self._watch = watch or (lambda _seen: None)
        # Of hundreds of seats the inputs are many megabytes.
        self._plans = step.startswith("preview ")
        self._step, self._listener, self._expected = step, listener, expected
        self._started = time.monotonic()
        self._seen: set[str] = set()
        self._done: set[str] = set()
        self._ended = threading.Event()

    def tell(self, state: Any, detail: str = "") -> None:
        """Pass an event on, with the count so far."""
        total = max(len(self._seen), self._expected, len(self._done))
        seconds = time.monotonic() - self._started
        event = Event(step=self._step, state=state, done=len(self._done), total=total, detail=detail, seconds=seconds)
        self._listener(event)

    def hear(self, event: EngineEvent) -> None:
        """Take one of Pulumi's events."""
        if event.resource_pre_event:
            metadata = event.resource_pre_event.metadata
            if self._plans:
                self.planned.append(_planned(metadata))
            self._watch(Seen(urn=metadata.urn, parent=_parent_urn(metadata), state="begun"))
            if _is_real(metadata):
                self._seen.add(metadata.urn)
                if metadata.op not in (OpType.SAME, OpType.READ):
                    self.tell("progress", f"{_doing(metadata.op)} {_called(metadata.urn)}")
        elif event.res_outputs_event:
            metadata = event.res_outputs_event.metadata
            self._watch(Seen(urn=metadata.urn, parent=_parent_urn(metadata), state="done"))
            if _is_real(metadata):
                self._seen.add(metadata.urn)
                self._done.add(metadata.urn)
                if metadata.op not in (OpType.SAME, OpType.READ):
                    self.tell("progress", f"{_called(metadata.urn)} {_did(metadata.op)}")
        elif event.diagnostic_event and event.diagnostic_event.severity == "error":
            self._remember(event.diagnostic_event.urn or "", event.diagnostic_event.message)

    def _remember(self, urn: str, message: str) -> None:
        text = condense(message)
        # The stack's own "update failed" says nothing beside the resource's message.
        if text and text not in ("update failed", "destroy failed", "preview failed", "refresh failed"):
            if urn and urn not in self.failures:
                self._watch(Seen(urn=urn, parent="", state="failed", why=text))
            self.failures.setdefault(urn, text)


def condense(message: str) -> str:
    """Pulumi's message as one line: no markup, no traceback, no secret."""
    lines = [line.strip() for line in _MARKUP.sub("", message).splitlines() if line.strip()]
    if any("Traceback (most recent call last)" in line for line in lines):
        # The last line of a traceback is the exception itself.
        lines = lines[-1:]
    text = " ".join(lines)
    for noise in ("rpc error: code = Unknown desc = ", "error: ", "Exception calling application: "):
        text = text.replace(noise, "")
    text = re.sub(r"^[a-z_]+(\.[A-Za-z_]+)+: ", "", text)
    text = redact(text)
    return text if len(text) <= _MESSAGE_CHARACTERS else text[: _MESSAGE_CHARACTERS - 1] + "…"


@contextmanager
def _operation(
    stack: Stack, listener: Listener, cancelled: threading.Event | None, verb: str, watch: Watch | None = None
) -> Any:
    """Run one operation: select the stack, repair it, tell what happens, and explain what goes wrong."""
    stop = cancelled or threading.Event()
    if verb != "preview":
        _mark(stack).unlink(missing_ok=True)
    raised: list[BaseException] = []
    loops: list[asyncio.AbstractEventLoop] = []
    workspace = _workspace(stack, stop)
    workspace.program = _recorded(stack.program, raised, loops)
    with _explained(stack):
        selected = auto.Stack.create_or_select(stack.name, workspace)
        _unlock(stack)
        known = _repair(workspace, stack.name)
    call = _Call(selected, f"{verb} {stack.project}/{stack.name}", listener, known, watch)
    call.tell("started")
    try:
        yield call
    except auto_errors.CommandError as error:
        reason = _reason(stack, call, raised, stop, error, verb)
        call.tell("failed", str(reason))
        raise reason from None
    except BaseException as error:
        call.tell("failed", condense(str(error)) or type(error).__name__)
        raise
    finally:
        # Pulumi's server leaves the loop of a program open in which a resource failed.
        for loop in loops:
            if not loop.is_running():
                loop.close()
        shutil.rmtree(_scratch(stack), ignore_errors=True)
    call.tell("finished")


def _reason(
    stack: Stack,
    call: _Call,
    raised: list[BaseException],
    stop: threading.Event,
    error: auto_errors.CommandError,
    verb: str,
) -> Exception:
    if stop.is_set():
        return Cancelled(f"{verb} of {stack.project}/{stack.name} was stopped; the same command goes on from here")
    if isinstance(error, auto_errors.ConcurrentUpdateError):
        holder = condense(str(error).partition("locked by")[2])
        return StackLocked(
            f"another command is changing {stack.project}/{stack.name}: {holder}; "
            f"wait for its end, or take its lock away with `pulumi cancel --stack {stack.name}` if it has died"
        )
    own = next((each for each in raised if isinstance(each, Failure)), None)
    if own is not None:
        return own
    lines = [f"{_called(urn)}: {text}" if urn else text for urn, text in call.failures.items()]
    if not lines:
        errors = [line for line in str(error).splitlines() if line.strip().startswith("error:")]
        lines = [condense(line) for line in errors[:3]] or ["Pulumi stopped without saying why"]
    mend = "mend what is said above and run the same command again: it goes on from here"
    return EngineFailure("\n".join([f"{verb} of {stack.project}/{stack.name} failed", *lines, mend]), call.failures)


def _recorded(
    program: Callable[[], None], raised: list[BaseException], loops: list[asyncio.AbstractEventLoop]
) -> Callable[[], None]:
    """The program, with what it raises kept, of which Pulumi hands on nothing but the text, and the loop it runs in."""

    def run() -> None:
        loops.append(asyncio.get_running_loop())
        try:
            program()
        except BaseException as error:
            raised.append(error)
            raise

    return run


@contextmanager
def _explained(stack: Stack) -> Any:
    """Errors of the small commands around an operation, in our words."""
    try:
        yield
    except auto_errors.CommandError as error:
        errors = [line for line in str(error).splitlines() if "error:" in line]
        text = condense(" ".join(errors)) or "Pulumi gave no reason"
        if "passphrase" in text:
            text += f"; give back {_passphrase_file(stack)}, or run `classroom down`, which works without the state"
        raise EngineFailure(f"{stack.project}/{stack.name}: {text}") from None


class _Command(auto.PulumiCommand):
    """The Pulumi CLI as a process of its own group, so that Ctrl-C reaches it once and through us."""

    def __init__(self, executable: str, version: VersionInfo, stop: threading.Event) -> None:
        # Not the parent's: it would run the CLI of PATH to ask for its version.
        self.command = executable
        self.version = version
        self._stop = stop

    def run(
        self,
        args: list[str],
        cwd: str,
        additional_env: Mapping[str, str],
        on_output: Callable[[str], Any] | None = None,
        on_error: Callable[[str], Any] | None = None,
    ) -> auto.CommandResult:
        """As the parent's, but cancels Pulumi in good order when `stop` is set or on Ctrl-C."""
        environment = {**os.environ, **additional_env, "PULUMI_AUTOMATION_API": "true"}
        command = [sys.executable, "-ISc", _WITH_PARENT, str(os.getpid()), self.command, "--non-interactive", *args]
        # Files and no pipes: when this process is killed, Pulumi must live on for as long as it takes to cancel.
        with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as complained:
            with subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=complained,
                cwd=cwd,
                env=environment,
                start_new_session=True,
            ) as process:
                interrupted = self._wait(process)
            texts = [_text(file) for file in (said, complained)]
        for hear, text in zip((on_output, on_error), texts, strict=True):
            if hear is not None:
                for line in text.splitlines():
                    hear(line)
        result = auto.CommandResult(stdout=texts[0], stderr=texts[1], code=process.returncode)
        if interrupted:
            raise KeyboardInterrupt
        if result.code != 0:
            raise auto_errors.create_command_error(result)
        return result

    def _wait(self, process: subprocess.Popen[bytes]) -> bool:
        """Until the process has ended. Whether Ctrl-C came meanwhile."""
        interrupted = asked = False
        while True:
            try:
                process.wait(timeout=0.2)
                return interrupted
            except subprocess.TimeoutExpired:
                if self._stop.is_set() and not asked:
                    asked = True
                    process.send_signal(signal.SIGINT)
            except KeyboardInterrupt:
                # The first lets what is under way finish, the second ends it: Pulumi's own meaning of the two.
                interrupted = asked = True
                process.send_signal(signal.SIGINT)


def _text(file: IO[str]) -> str:
    file.seek(0)
    return file.read().rstrip("\n")


def _workspace(stack: Stack, stop: threading.Event) -> auto.LocalWorkspace:
    directory = _directory(stack)
    work = _work(stack)
    work.mkdir(parents=True, exist_ok=True)
    # Written once and whole: another command, of which there may be some at once, reads it all the while.
    if not (work / "Pulumi.yaml").exists():
        with tempfile.NamedTemporaryFile("w", dir=work, delete=False) as file:
            yaml.safe_dump({"name": stack.project, "runtime": "python"}, file)
        Path(file.name).replace(work / "Pulumi.yaml")
    _scratch(stack).mkdir(parents=True, exist_ok=True)
    directory.chmod(0o700)
    search = os.pathsep.join([*map(str, stack.tools), os.environ.get("PATH", os.defpath)])
    executable = shutil.which("pulumi", path=search)
    if executable is None:
        raise EngineFailure(
            "there is no `pulumi` on PATH; install Pulumi, or run `scripts/classroom platform up`, which builds it"
        )
    environment = {
        "PATH": search,
        "PULUMI_HOME": str(directory / "home"),
        "TMPDIR": str(_scratch(stack)),
        # Plugins are found on PATH, and nothing is ever fetched.
        "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        # A resource that waits to be ready holds its place all the while. With Pulumi's own number, four for each core,
        # those that wait for a volume or an address can hold all of them, and what would give it to them never starts.
        "PULUMI_PARALLEL": os.environ.get("PULUMI_PARALLEL", "64"),
        # Dynamic providers run in a Python of their own: this one, with this project.
        "PULUMI_PYTHON_CMD": sys.executable,
        "PYTHONPATH": str(_ROOT),
        **({} if _foreign_backend() else {"PULUMI_BACKEND_URL": directory.as_uri()}),
        **({} if _foreign_passphrase() else {"PULUMI_CONFIG_PASSPHRASE_FILE": str(_passphrase(stack))}),
        **({} if stack.checkpoints else {"PULUMI_SKIP_CHECKPOINTS": "true"}),
        **stack.environment,
    }
    return auto.LocalWorkspace(
        work_dir=str(work),
        env_vars=environment,
        pulumi_command=_Command(executable, _version(executable), stop),
    )


def _version(executable: str) -> VersionInfo:
    if executable not in _versions:
        said = subprocess.run(
            [executable, "version"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, "PULUMI_SKIP_UPDATE_CHECK": "true"},
        )
        try:
            _versions[executable] = VersionInfo.parse(said.stdout.strip().removeprefix("v"))
        except ValueError:
            raise EngineFailure(f"{executable} tells no version; build it again: `classroom platform up`") from None
    return _versions[executable]


_versions: dict[str, VersionInfo] = {}


def _directory(stack: Stack) -> Path:
    return stack.state / "pulumi"


def _states(stack: Stack) -> Path:
    return _directory(stack) / ".pulumi" / "stacks" / stack.project


def _work(stack: Stack) -> Path:
    """Where Pulumi works: it keeps there which stack is meant, so each has a place of its own."""
    return _directory(stack) / "work" / stack.project / stack.name


def _scratch(stack: Stack) -> Path:
    """Where Pulumi's processes write temporary files: the Kubernetes provider leaves the kubeconfig behind there."""
    return _directory(stack) / "scratch" / stack.project / stack.name


def _mark(stack: Stack) -> Path:
    """Where it is written down that the last operation, an `up`, ended well."""
    return _directory(stack) / "settled" / stack.project / stack.name


def _settled(stack: Stack) -> str:
    """What is written there; empty where nothing is known, as of a backend that others may work on."""
    # Plain Pulumi, which leaves no mark and takes none away, changes the state.
    found = [file for kind in ("json", "json.gz") if (file := _states(stack) / f"{stack.name}.{kind}").exists()]
    if _foreign_backend() or not stack.fingerprint or not found:
        return ""
    return f"{stack.fingerprint} {hashlib.sha256(found[0].read_bytes()).hexdigest()}"


def _foreign_backend() -> bool:
    return bool(os.environ.get("PULUMI_BACKEND_URL"))


def _foreign_passphrase() -> bool:
    return bool(os.environ.get("PULUMI_CONFIG_PASSPHRASE") or os.environ.get("PULUMI_CONFIG_PASSPHRASE_FILE"))


def _passphrase_file(stack: Stack) -> Path:
    return stack.state / "passphrase"


def _passphrase(stack: Stack) -> Path:
    """The passphrase file, made on first use; readable by its owner alone."""
    file = _passphrase_file(stack)
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return file
    with os.fdopen(descriptor, "w") as opened:
        opened.write(secrets.token_urlsafe(32))
    return file


def _forget(stack: Stack) -> None:
    """Delete what is kept of a stack that is gone: its place of work, and the file backend's backups and history."""
    shutil.rmtree(_work(stack), ignore_errors=True)
    if not _foreign_backend():
        for kept in ("backups", "history", "locks"):
            for directory in (_directory(stack) / ".pulumi" / kept).glob(f"**/{stack.project}/{stack.name}"):
                shutil.rmtree(directory, ignore_errors=True)


def _unlock(stack: Stack) -> None:
    """Take away the lock of a dead process; wait for an orphan that is ending; refuse beside a living one.

    Nobody here can see whether a process of another host is alive, so its lock is left. Only the file backend's locks
    are looked at beforehand; those of another backend Pulumi itself reports.

    Errors: `StackLocked`.
    """
    if _foreign_backend():
        return
    directory = _directory(stack) / ".pulumi" / "locks" / "organization" / stack.project / stack.name
    locks = list(directory.glob("*.json")) if directory.exists() else []
    for lock in locks:
        holder = _holder(lock)
        if holder is None:
            continue
        if holder.host != socket.gethostname():
            raise StackLocked(
                f"process {holder.process} of the host {holder.host} is changing {stack.project}/{stack.name} since "
                f"{holder.since}; wait for its end, then run this again; if it has died, or this host was called so, "
                f"delete {lock} first"
            )
        deadline = time.monotonic() + _ORPHAN_ENDS_WITHIN_SECONDS
        while _pulumi_runs(holder.process) and _is_orphan(holder.process) and time.monotonic() < deadline:
            time.sleep(0.2)
        if _pulumi_runs(holder.process):
            raise StackLocked(
                f"process {holder.process} is changing {stack.project}/{stack.name}; "
                "wait for its end, then run this again"
            )
    _end_orphans(stack)
    for lock in locks:
        # As `pulumi cancel` does, but to these alone: another may have been written since. The bucket keeps two files.
        lock.unlink(missing_ok=True)
        lock.with_name(f"{lock.name}.attrs").unlink(missing_ok=True)


@dataclass(frozen=True, kw_only=True)
class _Holder:
    """Who wrote a lock, and when."""

    host: str
    process: int
    since: str


def _holder(lock: Path) -> _Holder | None:
    """What a lock says of itself; None when it is gone meanwhile, or says nothing."""
    try:
        content = json.loads(lock.read_text())
        return _Holder(host=content["hostname"], process=int(content["pid"]), since=content["timestamp"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _pulumi_runs(process: int) -> bool:
    """Whether a process is alive and is Pulumi: its number may have been given to another one since."""
    try:
        return Path(f"/proc/{process}/comm").read_text().strip() == "pulumi"
    except OSError:
        return False


def _is_orphan(process: int) -> bool:
    return _parent(process) in (None, 1)


def _parent(process: int) -> int | None:
    """The parent of a process; None when it has ended."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return None
    found = re.search(r"^PPid:\s*(\d+)$", status, re.MULTILINE)
    return int(found[1]) if found else None


def _end_orphans(stack: Stack) -> None:
    """End the plugins of a Pulumi that was killed: they are known by the scratch directory in their environment."""
    mark = f"TMPDIR={_scratch(stack)}".encode()
    marked: set[int] = set()
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (directory / "environ").read_bytes().split(b"\0"):
                marked.add(int(directory.name))
        except OSError:
            # It has ended meanwhile, or is another user's.
            continue
    for process in marked:
        head = process
        while (parent := _parent(head)) in marked and parent is not None:
            head = parent
        if _is_orphan(head):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGTERM)


def _state(workspace: auto.LocalWorkspace, name: str) -> dict[str, Any]:
    """The state with its secrets still encrypted."""
    said = workspace.pulumi_command.run(
        ["stack", "export", "--stack", name], workspace.work_dir, dict(workspace.env_vars)
    )
    return dict(json.loads(said.stdout))


def _repair(workspace: auto.LocalWorkspace, name: str) -> int:
    """Forget operations that were cut off. How many resources the state knows.

    Whatever such an operation may have left standing is adopted by the next `up` and swept by the next `down`.
    """
    state = _state(workspace, name)
    deployment = state.get("deployment") or {}
    if deployment.get("pending_operations"):
        del deployment["pending_operations"]
        file = Path(workspace.work_dir) / f"{name}.repaired.json"
        try:
            file.write_text(json.dumps(state))
            workspace.pulumi_command.run(
                ["stack", "import", "--file", str(file), "--stack", name],
                workspace.work_dir,
                dict(workspace.env_vars),
            )
        finally:
            file.unlink(missing_ok=True)
    resources = deployment.get("resources") or []
    return sum(bool(each.get("custom")) and not each["type"].startswith("pulumi:") for each in resources)


def _resource(state: Mapping[str, Any]) -> Resource:
    metadata = (state.get("outputs") or state.get("inputs") or {}).get("metadata") or {}
    metadata = metadata if isinstance(metadata, Mapping) else {}
    return Resource(
        urn=state["urn"],
        type=state["type"],
        id=str(state.get("id", "")),
        namespace=str(metadata.get("namespace") or ""),
        name=str(metadata.get("name") or state.get("id") or ""),
    )


def _is_real(metadata: StepEventMetadata) -> bool:
    """Whether a step is about something that exists outside of Pulumi: no component, no provider, not the stack."""
    state = metadata.new or metadata.old
    return bool(state and state.custom) and not metadata.type.startswith("pulumi:")


def _planned(metadata: StepEventMetadata) -> Planned:
    old, new = metadata.old, metadata.new
    return Planned(
        op=metadata.op.value,
        urn=metadata.urn,
        type=metadata.type,
        parent=_parent_urn(metadata),
        old=dict(old.inputs or {}) if old else {},
        new=dict(new.inputs or {}) if new else {},
    )


def _parent_urn(metadata: StepEventMetadata) -> str:
    state = metadata.new or metadata.old
    return str(state.parent or "") if state else ""


def _called(urn: str) -> str:
    """`Namespace demo-alice` of a URN."""
    parts = urn.split("::")
    return f"{parts[2].split('$')[-1].split(':')[-1]} {parts[-1]}" if len(parts) > 3 else urn


def _doing(op: OpType) -> str:
    return {OpType.CREATE: "making", OpType.UPDATE: "changing", OpType.DELETE: "deleting"}.get(op, str(op.value))


def _did(op: OpType) -> str:
    return {OpType.CREATE: "stands", OpType.UPDATE: "changed", OpType.DELETE: "gone"}.get(op, str(op.value))
