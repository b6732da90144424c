"""What an answer at a door means, which cells there are, what is written of them, and how the probe asks."""

import http.server
import json
import random
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest
import requests
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from infra.spec import BucketSpec, ClassSpec, Platform
from labs.kubeflow_login import WrongPasswordError
from labs.runner.clients.jupyter import Execution
from labs.runner.clients.session import NoAnswerError
from labs.runner.isolation import asks, outsiders, probe, prove, report
from labs.runner.isolation.asks import Seat
from labs.runner.isolation.doors import DOORS, PLATFORM, Kind, Outcome, Result, Try, judged, outcome
from labs.runner.isolation.prove import ALL_PAIRS_UP_TO, pairs_of


@pytest.mark.parametrize(
    ("kind", "answer", "means"),
    [
        ("kubernetes", "200", "in"),
        ("kubernetes", "404", "in"),  # told that there is none: asking was allowed
        ("kubernetes", "403", "out"),
        ("kubernetes", "503", "unknown"),
        ("kubernetes", "timed out", "unknown"),
        ("exec", "400", "in"),
        ("exec", "403", "out"),
        ("gateway", "101", "in"),
        ("gateway", "302", "out"),
        ("gateway", "404", "in"),
        ("gateway", "502", "unknown"),
        ("api", "200", "in"),
        ("api", "403", "out"),
        ("api", "429", "unknown"),
        ("log", "200, with it", "in"),
        ("log", "200, without it", "out"),
        ("log", "403", "out"),
        ("web", "timed out", "out"),
        ("web", "no connection (ConnectionRefusedError)", "out"),
        ("web", "no answer (gaierror)", "unknown"),
        ("web", "401", "out"),
        ("web", "200", "in"),
        ("wire", "connected", "in"),
        ("wire", "timed out", "out"),
        ("wire", "no answer (OSError)", "unknown"),
        ("call", "answered", "in"),
        ("call", "refused", "out"),
        ("call", "timed out", "unknown"),
        ("records", "answered, with it", "in"),
        ("records", "answered, without it", "out"),
        ("records", "refused", "out"),
        ("records", "timed out", "unknown"),
        ("bucket", "done", "in"),
        ("bucket", "AccessDenied", "out"),
        ("bucket", "NoSuchKey", "unknown"),
        ("bucket", "no answer (EndpointConnectionError)", "unknown"),
        ("key", "InvalidAccessKeyId", "out"),
        ("key", "AccessDenied", "in"),  # told to a key that is known still
        ("key", "NoSuchBucket", "in"),
        ("key", "done", "in"),
        ("key", "SignatureDoesNotMatch", "unknown"),
    ],
)
def test_an_answer_says_in_out_or_nothing(kind: Kind, answer: str, means: Outcome) -> None:
    assert outcome(kind, answer) == means


def a_try(door: str, actor: str, target: str, answer: str, *, control: bool = False) -> Try:
    return Try(door=door, actor=actor, target=target, asked="GET", answer=answer, control=control)


def verdict(
    *tries: Try, open_doors: dict[str, str] | None = None, gaps: dict[str, str] | None = None
) -> tuple[str, str]:
    [cell] = judged([("k8s-list", "ann", "bob", "")], tries, open_doors or {}, gaps or {})
    return cell.verdict, cell.why


def test_a_refusal_counts_when_the_owner_was_let_in_at_the_same_door() -> None:
    refused = a_try("k8s-list", "ann", "bob", "403")
    assert verdict(refused, a_try("k8s-list", "bob", "bob", "200", control=True)) == ("refused", "")
    # Nobody came in; one came in at another door; one came in at another's.
    assert verdict(refused)[0] == "could-not-check"
    assert verdict(refused, a_try("k8s-list", "bob", "bob", "403", control=True))[0] == "could-not-check"
    assert verdict(refused, a_try("k8s-get", "bob", "bob", "200", control=True))[0] == "could-not-check"
    assert verdict(refused, a_try("k8s-list", "cyd", "cyd", "200", control=True))[0] == "could-not-check"


def test_one_who_came_in_is_enough_of_a_control() -> None:
    came = [a_try("k8s-list", "bob", "bob", answer, control=True) for answer in ("503", "200", "503")]
    assert verdict(a_try("k8s-list", "ann", "bob", "403"), *came)[0] == "refused"


def test_who_is_let_in_is_a_leak_whatever_became_of_the_control() -> None:
    assert verdict(a_try("k8s-list", "ann", "bob", "200"))[0] == "leak"
    told = verdict(a_try("k8s-list", "ann", "bob", "200"), open_doors={"k8s-list": "an open door of this platform"})
    assert told == ("leak", "an open door of this platform")


def test_what_was_not_tried_says_why() -> None:
    assert verdict() == ("could-not-check", "it was not tried")
    assert verdict(gaps={"bob": "bob has no password"}) == ("could-not-check", "bob has no password")


def test_a_ports_control_is_that_somebody_listens() -> None:
    cell = ("pod-database", "ann", PLATFORM)
    for listens, wanted in (("somebody listens", "refused"), ("nobody listens", "could-not-check")):
        control = a_try("pod-database", "operator", PLATFORM, listens, control=True)
        [judgement] = judged([(*cell, "")], [a_try(*cell, "timed out"), control], {}, {})
        assert judgement.verdict == wanted


@pytest.mark.parametrize(
    ("before", "after", "wanted"),
    [
        ("done", "InvalidAccessKeyId", "refused"),
        ("AccessDenied", "InvalidAccessKeyId", "could-not-check"),
        ("done", "AccessDenied", "leak"),
        ("done", "no answer (ReadTimeoutError)", "could-not-check"),
    ],
)
def test_a_deleted_key_is_refused_when_it_had_opened_its_bucket_and_is_unknown_now(
    before: str, after: str, wanted: str
) -> None:
    cell = ("deleted-key", "deleted", "ann")
    tries = [a_try(*cell, before, control=True), a_try(*cell, after)]
    [judgement] = judged([(*cell, "")], tries, {}, {})
    assert judgement.verdict == wanted


def test_a_notebook_is_judged_by_its_own_tries_alone() -> None:
    def at(notebook: str, answer: str, *, control: bool = False) -> Try:
        actor = "bob" if control else "ann"
        made = a_try("gateway-page", actor, "bob", answer, control=control)
        return made.model_copy(update={"notebook": notebook})

    tries = [at("cpu", "403"), at("cpu", "200", control=True), at("gpu", "403"), at("lab", "200")]
    cells = judged([("gateway-page", "ann", "bob", name) for name in ("cpu", "gpu", "lab", "tpu")], tries, {}, {})

    assert [(cell.notebook, cell.verdict) for cell in cells] == [
        ("cpu", "refused"),
        ("gpu", "could-not-check"),
        ("lab", "leak"),
        ("tpu", "could-not-check"),
    ]
    assert cells[-1].why == "tpu was not tried"


@given(count=st.integers(2, 200), seed=st.integers())
def test_all_pairs_up_to_thirty_students_and_a_fair_sample_beyond(count: int, seed: int) -> None:
    students = [f"s{number}" for number in range(count)]
    pairs = pairs_of(students, random.Random(seed))  # noqa: S311  no secret

    assert len(set(pairs)) == len(pairs)
    assert all(actor != target for actor, target in pairs)
    if count <= ALL_PAIRS_UP_TO:
        assert len(pairs) == count * (count - 1)
    else:
        assert len(pairs) <= ALL_PAIRS_UP_TO * (ALL_PAIRS_UP_TO - 1)
        for place in (0, 1):
            times = [sum(pair[place] == student for pair in pairs) for student in students]
            assert min(times) == max(times) >= 1


def test_every_door_has_its_cells() -> None:
    students = ["ann", "bob", "cyd"]
    notebooks = {"ann": ("cpu", "gpu"), "bob": ("cpu", "gpu"), "cyd": ("cpu",)}
    cells = asks.expected(pairs_of(students, random.Random(1)), notebooks)  # noqa: S311  no secret

    assert {door for door, *_ in cells} == set(DOORS)
    assert len(cells) == len(set(cells))
    between = [(actor, target) for door, actor, target, _ in cells if door == "kfp-logs"]
    assert len(between) == 6
    assert [(actor, target) for door, actor, target, _ in cells if door == "pod-database"] == [
        (student, PLATFORM) for student in students
    ]
    # At every notebook of the other, and at nothing else twice.
    assert sorted(name for door, actor, target, name in cells if (door, actor, target) == ("cookie", "bob", "bob")) == [
        "cpu",
        "gpu",
    ]
    assert {(target, name) for door, _, target, name in cells if door == "gateway-page"} == {
        ("ann", "cpu"),
        ("ann", "gpu"),
        ("bob", "cpu"),
        ("bob", "gpu"),
        ("cyd", "cpu"),
    }


def a_seat(student: str) -> Seat:
    return Seat(
        student=student,
        email=f"{student}@example.org",
        namespace=f"iso-{student}",
        bucket=f"iso-{student}",
        notebooks=("cpu-notebook", "gpu-notebook"),
        pod_addresses={"cpu-notebook": "198.19.0.9", "gpu-notebook": "198.19.0.10"},
        experiment="e",
        run="r",
        run_pod="p",
    )


def test_every_door_between_two_is_tried(platform: Platform) -> None:
    seat = a_seat("bob")
    parts = asks.Parts(
        kubeflow="kubeflow",
        node="n",
        addresses=dict.fromkeys(("ml-pipeline", "metadata", "mysql", "seaweedfs", "node"), "x"),
    )
    calls = [*asks.at_gateway(seat, nonce="n", pipeline={}), *asks.at_log(seat), *asks.at_platform()]
    calls += [call for kind in ("anonymous", "forged", "expired", "deleted") for call in asks.outside(seat, kind)]
    assert all(call.notebook in call.path for call in calls)
    tried = {(call.door, call.notebook) for call in calls}
    for tries in (
        asks.from_notebook(seat, platform, "n"),
        asks.at_bucket(seat, "others", "n"),
        asks.from_notebook_at_platform(parts),
        asks.from_run(seat, parts),
        asks.from_run_at_platform(parts),
    ):
        tried |= {(each["id"], each.get("notebook", "")) for each in tries}
        assert len({asks.named("bob", each) for each in tries}) == len(tries)
        assert all(asks.described(each) for each in tries)

    # What outsiders and the cookie's proof ask is no try of a list.
    wanted = {(door.id, name) for door in DOORS.values() for name in (seat.notebooks if door.each else ("",))}
    assert {door for door, _ in wanted - tried} == {"deleted-login", "deleted-key", "cookie"}
    assert tried <= wanted


def test_the_probes_pipeline_can_be_read_by_kfp() -> None:
    from google.protobuf import json_format
    from kfp.pipeline_spec import pipeline_spec_pb2

    messages: Any = pipeline_spec_pb2  # generated at import, so no type checker sees them
    source = Path(probe.__file__).read_text()
    pipeline = asks.probe_pipeline(source, "an-image", "a-plan")
    json_format.ParseDict(pipeline, messages.PipelineSpec())
    # KFP and Argo would take these for parameters.
    assert "{{" not in json.dumps(pipeline)


# -- outsiders -------------------------------------------------------------------------------------------------------


def test_a_session_is_signed_as_oauth2_proxy_signs_it() -> None:
    # Of oauth2-proxy's own SignedValue("0123456789abcdef", "c", []byte("value"), 1700000000): HMAC-SHA256 over
    # "c" + base64url("value") + "1700000000".
    import base64
    import hashlib
    import hmac

    value = base64.urlsafe_b64encode(b"value").decode()
    expected = hmac.new(b"0123456789abcdef", f"c{value}1700000000".encode(), hashlib.sha256).digest()
    signed = outsiders.signed("0123456789abcdef", "c", value, 1_700_000_000)
    assert signed == f"{value}|1700000000|{base64.urlsafe_b64encode(expected).decode()}"


@given(st.text(alphabet="abcXYZ019-_|=", min_size=1, max_size=9000))
def test_a_cut_cookie_is_put_together_again(value: str) -> None:
    assert outsiders.whole_cookie(f"a=b; {outsiders.cut_cookie(value, 's')}; _xsrf=x", "s") == value


class _Store:
    """An object store whose keys open their own bucket; of one that was deleted it says `afterwards`."""

    leaves = ""

    def __init__(self, afterwards: str) -> None:
        self._afterwards, self.deleted = afterwards, False

    def ensure(self, _: object) -> str:
        return "a key"

    def opened_with(self, _: str) -> "_Store":
        return self

    def remove(self, _: object) -> None:
        self.deleted = True

    def list_objects_v2(self, **_: object) -> None:
        if self.deleted:
            raise ClientError({"Error": {"Code": self._afterwards}}, "ListObjectsV2")


class _Users:
    """The Kubernetes API, of dex's users."""

    def __init__(self) -> None:
        self.made = False

    def ask(self, method: str, _path: str, _body: object = None) -> tuple[int, str]:
        self.made = method == "POST"
        return (201 if self.made else 200), ""

    def secret(self, *_: str) -> dict[str, str]:
        return {"cookie": "0123456789abcdef"}


@dataclass(kw_only=True)
class _Outside:
    """The platform as outsiders find it; `gateway` answers a call with a cookie."""

    users: _Users
    gateway: Callable[[str, str], str]
    cancelled: threading.Event = field(default_factory=threading.Event)

    def tried(self, platform: Platform, monkeypatch: pytest.MonkeyPatch, afterwards: str) -> outsiders.Found:
        users, asked = self.users, self.gateway

        class Session:
            def __init__(self, *_: object) -> None: ...

            def log_in(self) -> None:
                if not users.made:
                    raise WrongPasswordError("no such user")

            def cookie_for(self, _: str) -> str:
                return "s=old"

            def close(self) -> None: ...

        monkeypatch.setattr(outsiders, "GatewaySession", Session)
        monkeypatch.setattr(outsiders, "_answered", lambda _, call, cookie: asked(call.path, cookie))
        monkeypatch.setattr(outsiders, "_KEY_SECONDS", 0)
        monkeypatch.setattr(outsiders.stores, "connect", lambda _: _Store(afterwards))
        stub: Any = users
        seats = [a_seat("ann"), a_seat("bob")]
        return outsiders.tried(platform, stub, seats, {}, "iso", "isolation-proof-1", self.cancelled)


def a_gateway(path: str, cookie: str) -> str:
    """One that lets every session in where no seat is."""
    return "200" if cookie and path.endswith("healthz") else "302"


def of_the_deleted(found: outsiders.Found) -> dict[str, str]:
    """The verdicts on the deleted student, by door, where the owners came in."""
    controls = [
        each.model_copy(update={"answer": "200", "control": True})
        for each in found.tries
        if each.door in ("deleted-page", "deleted-kfp")
    ]
    expected = [
        cell
        for cell in asks.expected(
            [], {"ann": ("cpu-notebook", "gpu-notebook"), "bob": ("cpu-notebook", "gpu-notebook")}
        )
        if cell[0].startswith("deleted")
    ]
    cells = judged(expected, [*found.tries, *controls], {}, found.gaps)
    verdicts = {
        door: {cell.verdict for cell in cells if cell.door == door} for door in dict.fromkeys(c[0] for c in expected)
    }
    assert all(len(each) == 1 for each in verdicts.values())
    return {door: each.pop() for door, each in verdicts.items()}


def test_a_deleted_student_who_came_in_before_is_refused_everywhere(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = _Outside(users=_Users(), gateway=a_gateway).tried(platform, monkeypatch, "InvalidAccessKeyId")
    assert set(of_the_deleted(found).values()) == {"refused"}
    assert found.left == []


def test_a_key_that_outlives_its_student_is_a_leak(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    found = _Outside(users=_Users(), gateway=a_gateway).tried(platform, monkeypatch, "AccessDenied")
    assert of_the_deleted(found) == {
        "deleted-login": "refused",
        "deleted-page": "refused",
        "deleted-kfp": "refused",
        "deleted-key": "leak",
    }


@pytest.mark.parametrize("healthz", [("302", "302"), ("200", "200")])
def test_a_session_that_opened_nothing_of_its_own_before_proves_nothing_when_it_is_refused(
    healthz: tuple[str, str], platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gateway(path: str, cookie: str) -> str:
        return healthz[not cookie] if path.endswith("healthz") else "302"

    users = _Users()
    found = _Outside(users=users, gateway=gateway).tried(platform, monkeypatch, "InvalidAccessKeyId")
    assert of_the_deleted(found) == {
        "deleted-login": "could-not-check",
        "deleted-page": "could-not-check",
        "deleted-kfp": "could-not-check",
        "deleted-key": "refused",
    }
    assert "opened nothing before" in found.gaps["deleted"]
    assert not users.made


def test_outsiders_who_are_stopped_take_back_what_they_made_and_ask_nothing_more(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    users, asked = _Users(), list[str]()
    outside = _Outside(users=users, gateway=lambda path, cookie: asked.append(path) or a_gateway(path, cookie))

    def made_and_stopped(method: str, _path: str, _body: object = None) -> tuple[int, str]:
        outside.cancelled.set()
        users.made = method == "POST"
        return (201 if users.made else 200), ""

    monkeypatch.setattr(users, "ask", made_and_stopped)
    found = outside.tried(platform, monkeypatch, "InvalidAccessKeyId")

    assert not users.made
    assert [path for path in asked[-2:] if not path.endswith("healthz")] == []
    assert not [each for each in found.tries if each.door == "deleted-key"]


# -- the proof -------------------------------------------------------------------------------------------------------


def test_after_ctrl_c_the_outsiders_are_told_and_waited_for(
    demo: ClassSpec, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancelled, done = threading.Event(), list[str]()

    class Stopped(prove._Proof):
        def _operator(self) -> None: ...

        def _await_runs(self) -> None: ...

        def _each(self, what: str, *_: object, **__: object) -> None:
            done.append(what)
            if what.startswith("tries"):
                raise KeyboardInterrupt

        def _outsiders(self) -> None:
            assert cancelled.wait(10)
            time.sleep(0.2)
            done.append("the outsiders took everything back")

    monkeypatch.setattr(prove, "Cluster", lambda *_: None)
    proof = Stopped(demo, platform, {}, lambda _: None, cancelled, 1)
    with pytest.raises(KeyboardInterrupt):
        proof.tries()
    assert done[-2:] == ["takes everything back", "the outsiders took everything back"]


def test_a_cookie_is_looked_for_by_the_gateways_name_in_the_memory_of_each_notebook_server(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[tuple[str, str]] = []

    class Server:
        def __init__(self, _session: object, base: str) -> None:
            self._base = base

        def wait(self, **_: object) -> None: ...

        @contextmanager
        def kernel(self, _: str) -> Iterator["Server"]:
            yield self

        def execute(self, source: str, **_: object) -> Execution:
            ran.append((self._base, source))
            output = {"output_type": "stream", "name": "stdout", "text": '{"found": 1, "beside": 1}'}
            return Execution(state="ok", seconds=0, outputs=[output])

    gateway = platform.gateway.model_copy(update={"session_cookie": "authservice_session"})
    stub: Any = None
    monkeypatch.setattr(prove, "NotebookServer", Server)
    at = platform.model_copy(update={"gateway": gateway})
    student = prove.AtWork(a_seat("ann"), at, stub, None, BucketSpec())
    first: Any = Server(None, "/notebook/iso-ann/cpu-notebook")
    student.kernel, student._heard = first, time.monotonic()
    monkeypatch.setattr(student.session, "call", lambda *_: None)

    for name in student.seat.notebooks:
        assert student.cookie(name) == ("1 times, with it", "1 times, with it")
    assert [base for base, _ in ran] == ["/notebook/iso-ann/cpu-notebook", "/notebook/iso-ann/gpu-notebook"]
    for _, source in ran:
        assert "noisses_ecivreshtua" in source
        # The server passes the question on: it must not hold what is looked for.
        assert "authservice_session" not in source


def _pod(name: str, phase: str, **condition: str) -> dict[str, Any]:
    return {"metadata": {"name": f"run-{name}-1"}, "status": {"phase": phase, "conditions": [condition]}}


@pytest.mark.parametrize(
    ("pods", "known", "waits"),
    [
        ([], False, ""),
        ([_pod("system-dag-driver", "Running")], False, ""),
        ([_pod("system-dag-driver", "Pending", reason="Unschedulable", message="no cpu")], False, ": no cpu"),
        ([_pod("system-dag-driver", "Succeeded")], True, ""),
        # Where pods that are done are taken away.
        ([_pod("system-container-driver", "Pending")], True, ""),
    ],
)
def test_others_try_a_runs_doors_once_its_first_driver_has_entered_it(
    pods: list[dict[str, Any]], known: bool, waits: str, platform: Platform
) -> None:
    cluster: Any = SimpleNamespace(pods=lambda *_: pods)
    student = prove.AtWork(a_seat("ann"), platform, cluster, None, BucketSpec())
    assert student.is_on_record() == known
    assert student.waits_for() == waits


def test_a_run_that_failed_before_its_probe_is_started_again_once_and_one_that_waits_says_for_what(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    pods = [_pod("system-container-impl", "Pending", reason="Unschedulable", message="no cpu")]
    failed = {"status": {"phase": "Error"}}
    cluster: Any = SimpleNamespace(pods=lambda *_: pods, workflow=lambda *_: failed)
    student = prove.AtWork(a_seat("ann"), platform, cluster, None, BucketSpec())
    said = iter(["", "", '[{"id": "bob run-mlmd ", "answer": "refused"}]'])
    monkeypatch.setattr(student, "_run", lambda _: next(said, ""))
    again: list[str] = []

    def answers() -> dict[str, str]:
        return student.answers(lambda _: None, lambda: again.append("started"))

    assert answers() == {"bob run-mlmd ": "refused"}
    assert again == ["started"]
    assert student.seat.run_pod == "run-system-container-impl-1"
    monkeypatch.setattr(prove, "_RUN_SECONDS", 0.01)
    with pytest.raises(NoAnswerError, match="s: no cpu"):
        answers()


@pytest.mark.parametrize(
    ("statuses", "told"), [((500, 429, 403), "403"), ((502, 502, 502, 502), "502"), ((403, 200), "403")]
)
def test_a_call_whose_answer_says_nothing_is_asked_again(
    statuses: tuple[int, ...], told: str, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub: Any = None
    student, coming = prove.AtWork(a_seat("ann"), platform, stub, None, BucketSpec()), iter(statuses)

    def answer(*_: object, **__: object) -> requests.Response:
        made = requests.Response()
        made.status_code, made._content = next(coming), b""
        return made

    monkeypatch.setattr(student.session, "call", answer)
    monkeypatch.setattr(prove.time, "sleep", lambda _: None)
    assert student.ask(asks.with_any_session()) == told


def test_pairs_are_drawn_anew_unless_by_a_seed_that_is_told(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    students = [{"id": f"s{n}", "email": f"s{n}@example.org"} for n in range(40)]
    spec = ClassSpec.model_validate({"name": "big", "students": students, "notebooks": [{"name": "cpu-notebook"}]})
    monkeypatch.setattr(prove, "Cluster", lambda *_: SimpleNamespace(close=lambda: None))
    monkeypatch.setattr(prove._Proof, "tries", lambda _: [])

    def proven(seed: int | None = None) -> Result:
        return prove.prove(spec, platform, {}, tmp_path, lambda _: None, threading.Event(), seed)

    def pairs(result: Result) -> set[tuple[str, str]]:
        return {(cell.actor, cell.target) for cell in result.cells if cell.door == "kfp-list"}

    once, again = proven(), proven()
    assert pairs(once) != pairs(again)
    assert pairs(proven(once.seed)) == pairs(once)


# -- the probe -------------------------------------------------------------------------------------------------------


@pytest.fixture
def web() -> Iterator[str]:
    """A server that answers with the status in its path, and with the word `secret`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(int(self.path.strip("/")))
            self.send_header("Location", "/200")
            self.end_headers()
            self.wfile.write(b"secret")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class has it so
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_probe_tells_statuses_and_never_contents(web: str) -> None:
    port = int(web.rpartition(":")[2])
    tries = [
        {"id": "ok", "kind": "http", "url": f"{web}/200"},
        {"id": "held", "kind": "http", "url": f"{web}/200", "holds": "secret"},
        {"id": "not-held", "kind": "http", "url": f"{web}/200", "holds": "other"},
        {"id": "refused", "kind": "http", "url": f"{web}/403"},
        {"id": "redirected", "kind": "http", "url": f"{web}/302"},
        {"id": "open", "kind": "tcp", "host": "127.0.0.1", "port": port},
        {"id": "closed", "kind": "tcp", "host": "127.0.0.1", "port": 1},
        {"id": "no-grpc", "kind": "grpc", "host": "127.0.0.1", "port": 1, "path": "/x", "message": ""},
    ]
    answers = {each["id"]: each["answer"] for each in probe.tried(tries)}

    assert answers == {
        "ok": "200",
        "held": "200, with it",
        "not-held": "200, without it",
        "refused": "403",
        "redirected": "302",
        "open": "connected",
        "closed": "no connection (ConnectionRefusedError)",
        "no-grpc": "no connection (ConnectionRefusedError)",
    }


@pytest.mark.parametrize("size", [0, 1, 126, 127, 128, 300, 20_000])
def test_a_header_of_any_length_is_written_as_hpack_has_it(size: int) -> None:
    written = probe._text("x" * size)
    # RFC 7541, 5.1: seven bits, then the rest in groups of seven, the least first.
    length, at = written[0], 1
    if length == 127:
        shift = 0
        while True:
            length, shift, at = length + ((written[at] & 127) << shift), shift + 7, at + 1
            if written[at - 1] < 128:
                break
    assert (length, written[at:]) == (size, b"x" * size)


@pytest.mark.parametrize("name", ["oauth2_proxy_kubeflow", "authservice_session"])
@pytest.mark.parametrize("reaches", [True, False])
def test_a_session_cookie_in_the_servers_memory_is_seen_beside_the_marked_one_alone(name: str, reaches: bool) -> None:
    # The child asks for the memory of this process, as a kernel does for its server's.
    marker, session = secrets.token_hex(12), f"{name}=s3cret; " if reaches else "theme=dark; "
    held = f"Cookie: {session}isolation-marker={marker}\r\nCookie: {name}=another\r\n".encode()
    look = "import sys; from labs.runner.isolation import probe; print(probe.cookies_seen(*sys.argv[1:]))"
    command = [sys.executable, "-c", look, marker[::-1], name[::-1]]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    del held  # until here the child could find it
    seen = json.loads(done.stdout)
    assert seen["found"] >= 1
    assert (seen["beside"] >= 1) == reaches


def test_a_probe_in_a_run_answers_its_plan_once_it_is_there_and_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, object]] = []
    plan = json.dumps([{"id": "closed", "kind": "tcp", "host": "127.0.0.1", "port": 1}])
    # No plan yet; a busy API server; the plan, and its answers lost once.
    got = iter([{}, OSError(), {"data": {"plan": plan}}, OSError(), {"data": {"plan": plan}}, {}])

    def kubernetes(method: str, _path: str, body: object = None, _kind: str = "") -> object:
        calls.append((method, body))
        answer = next(got)
        if isinstance(answer, OSError):
            raise answer
        return answer

    monkeypatch.setattr(probe, "kubernetes", kubernetes)
    monkeypatch.setattr(probe.time, "sleep", lambda _seconds: None)
    monkeypatch.setenv("ISOLATION_PLAN", "plan")
    (tmp_path / "namespace").write_text("demo-ann")
    monkeypatch.setattr(probe, "ACCOUNT", tmp_path)

    probe.from_run()

    assert [method for method, _ in calls] == ["GET", "GET", "GET", "PATCH", "GET", "PATCH"]
    answers = [{"id": "closed", "answer": "no connection (ConnectionRefusedError)"}]
    assert calls[-1][1] == {"data": {"answers": json.dumps(answers)}}


# -- what is written -------------------------------------------------------------------------------------------------


def a_result(*verdicts: tuple[str, str, str, str]) -> Result:
    """One cell for each (door, actor, target, answer); the owner is let in at all of them."""
    cells = judged(
        [(*each[:3], "") for each in verdicts],
        [
            *(a_try(*each) for each in verdicts),
            *(a_try(door, target, target, "200", control=True) for door, _, target, _ in verdicts),
        ],
        {},
        {},
    )
    return Result(
        class_name="iso<>",
        url="https://198.18.0.100/",
        started="2026-11-24T12:00:00+00:00",
        finished="2026-11-24T12:01:00+00:00",
        seconds=60,
        students=("ann", "bob"),
        pairs=2,
        pairs_there_are=2,
        cells=tuple(cells),
    )


@pytest.mark.parametrize(
    ("answers", "code", "said"),
    [
        (("403", "403"), 0, "No student reaches"),
        (("403", "503"), 3, "1 of 2 could not be checked"),
        (("200", "503"), 1, "One leak"),
        (("200", "200"), 1, "2 leaks"),
    ],
)
def test_the_exit_code_is_zero_only_when_every_cell_is_green(answers: tuple[str, str], code: int, said: str) -> None:
    result = a_result(("k8s-list", "ann", "bob", answers[0]), ("k8s-list", "bob", "ann", answers[1]))
    assert result.exit_code == code
    assert said in report.headline(result)


def test_the_reports_say_the_same_of_every_cell(tmp_path: Path) -> None:
    result = a_result(
        ("k8s-list", "ann", "bob", "200"), ("k8s-list", "bob", "ann", "503"), ("kfp-list", "ann", "bob", "403")
    )
    report.write(result, tmp_path)

    written = json.loads((tmp_path / "isolation.json").read_text())
    assert (written["exit_code"], len(written["cells"])) == (1, 3)
    root = ElementTree.parse(tmp_path / "junit.xml").getroot()
    assert root.attrib | {"tests": "3", "failures": "1", "errors": "1"} == root.attrib
    assert len(root.findall(".//failure")) == len(root.findall(".//error")) == 1
    page = (tmp_path / "isolation.html").read_text()
    assert "iso&lt;&gt;" in page
    assert "One leak" in page
    assert "<script" not in page
