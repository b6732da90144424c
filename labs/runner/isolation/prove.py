"""The proof: every student at work at once, each trying the doors of the others from where a student sits.

Three rounds, so that a refusal is never the answer of a door that was not there yet: the owners come in and start a
probe as a run; the others try; the owners come in once more and take everything back.
"""

import json
import random
import re
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import requests
import websocket
from pydantic import SecretStr

from infra import naming
from infra.cluster import ClusterUnreachable
from infra.spec import BucketSpec, ClassSpec, Platform
from infra.steps import Cancelled, Event, Listener, recorded
from infra.stores import StoreAddress
from labs.kubeflow_login import LoginError
from labs.runner.clients.bucket import Bucket
from labs.runner.clients.cluster import BucketUnreadableError, Cluster
from labs.runner.clients.jupyter import Kernel, KernelDiedError, NotebookServer, text_of
from labs.runner.clients.pipelines import Pipelines
from labs.runner.clients.session import GatewaySession, NoAnswerError
from labs.runner.isolation import asks, outsiders, report
from labs.runner.isolation.asks import Call, Parts, Seat
from labs.runner.isolation.doors import PLATFORM, Result, Try, judged

ALL_PAIRS_UP_TO: Final = 30
"""Students. Of a larger class as many pairs are drawn as this many students have."""
NAME: Final = "isolation-proof"
"""What everything is called that the proof makes, with a number behind: who finds it knows whose it is."""

_SOURCE = Path(__file__).with_name("probe.py")
_RUN_SECONDS = 150
_ROUND_SECONDS = 90
_QUIET_SECONDS = 15
_SIDE_BY_SIDE = 16
_MORE_TIMES = 3
_UNHEARD = (
    requests.RequestException,
    NoAnswerError,
    LoginError,
    KernelDiedError,
    ClusterUnreachable,
    BucketUnreadableError,
)
_PARTS = ("ml-pipeline", "metadata", "mysql", "seaweedfs")
_UPSTREAM = "an open door of this platform: upstream KFP asks for no right here"
OPEN_DOORS: Final = {
    "run-mlmd": "an open door of this platform: its ML Metadata knows no tenants",
    **dict.fromkeys(("kfp-logs", "kfp-tasks", "run-kfp-tasks"), _UPSTREAM),
}
"""What can be closed on the embedded platform alone."""


def pairs_of(students: list[str], draw: random.Random) -> list[tuple[str, str]]:
    """Ordered pairs of different students: all of them in a class of at most `ALL_PAIRS_UP_TO`; in a larger one so
    many as that class has, each student as often at a door as behind one."""
    count = len(students)
    if count <= ALL_PAIRS_UP_TO:
        return [(actor, target) for actor in students for target in students if actor != target]
    each = max(1, ALL_PAIRS_UP_TO * (ALL_PAIRS_UP_TO - 1) // count)
    steps = draw.sample(range(1, count), each)
    return [(actor, students[(at + step) % count]) for at, actor in enumerate(students) for step in steps]


def prove(
    spec: ClassSpec,
    platform: Platform,
    passwords: Mapping[str, SecretStr],
    run_directory: Path,
    listener: Listener,
    cancelled: threading.Event,
    seed: int | None = None,
) -> Result:
    """Try every door between the students of a class; leave isolation.json, junit.xml, isolation.html and events.jsonl
    in `run_directory`.

    The pairs of a large class are drawn anew each time, unless by the `seed` that an earlier result names.
    What the proof makes it takes back, or says what it left. Errors: `Cancelled` when `cancelled` was set; Ctrl-C is
    raised again once all is taken back; `ClusterUnreachable` for a kubeconfig that cannot be used.
    """
    started, began = datetime.now(UTC), time.monotonic()
    run_directory.mkdir(parents=True, exist_ok=True)
    seed = secrets.randbits(32) if seed is None else seed
    with recorded(listener, run_directory / "events.jsonl") as tell:
        proof = _Proof(spec, platform, passwords, tell, cancelled, seed)
        try:
            tries = proof.tries()
        finally:
            proof.close()
    students = [student.id for student in spec.students]
    cells = judged(
        asks.expected(proof.pairs, proof.notebooks),
        tries,
        {} if platform.kind == "one-machine" else OPEN_DOORS,
        proof.gaps,
    )
    result = Result(
        class_name=spec.name,
        url=platform.url,
        started=started.isoformat(timespec="seconds"),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - began, 1),
        students=tuple(students),
        pairs=len(proof.pairs),
        pairs_there_are=len(students) * (len(students) - 1),
        seed=seed,
        cells=tuple(cells),
        left_behind=tuple(proof.left),
    )
    report.write(result, run_directory)
    return result


class _Proof:
    """One proof, from the first login to the last removal."""

    def __init__(
        self,
        spec: ClassSpec,
        platform: Platform,
        passwords: Mapping[str, SecretStr],
        tell: Listener,
        cancelled: threading.Event,
        seed: int,
    ) -> None:
        self._spec, self._platform, self._passwords = spec, platform, passwords
        self._tell, self._cancelled, self._began = tell, cancelled, time.monotonic()
        self._cluster = Cluster(platform, spec.bucket.region)
        self._nonce = f"{NAME}-{secrets.token_hex(4)}"
        self._tries: list[Try] = []
        self._lock, self._submitting = threading.Lock(), threading.Lock()
        self.gaps: dict[str, str] = {}
        """Why a student could do nothing (more)."""
        self.left: list[str] = []
        ids = [student.id for student in spec.students]
        self.notebooks = {student.id: tuple(n.name for n in spec.of(student).notebooks) for student in spec.students}
        """Of every student."""
        self.pairs = pairs_of(ids, random.Random(seed))  # noqa: S311  nobody is to be surprised
        self._targets: dict[str, list[str]] = {actor: [] for actor in ids}
        for actor, target in self.pairs:
            self._targets[actor].append(target)
        self._seats = {
            student.id: Seat(
                student=student.id,
                email=student.email,
                namespace=naming.namespace(spec.name, student.id),
                bucket=StoreAddress.of(platform).holding(spec.name, student.id).bucket,
                notebooks=self.notebooks[student.id],
            )
            for student in spec.students
        }
        self._at_work = {
            student: AtWork(seat, platform, self._cluster, passwords.get(student), spec.bucket)
            for student, seat in self._seats.items()
        }
        self._parts = Parts(kubeflow=platform.kubeflow_namespace, node="")

    def tries(self) -> list[Try]:
        """All that was tried, once everything is taken back."""
        outside = threading.Thread(target=self._outsiders, daemon=True)
        try:
            self._operator()
            self._each("comes in", self._come_in)
            self._await_runs()
            self._each("tells its probe what to try", self._plan)
            outside.start()
            self._each("tries the others' doors", self._others)
            self._each("reads its probe's answers", self._answers)
            self._each("asks for the others' logs", self._logs)
            outside.join()
        except BaseException:
            self._cancelled.set()
            raise
        finally:
            # Also after Ctrl-C: what was made is taken back, by the outsiders too.
            try:
                self._each("takes everything back", self._leave, whatever=True)
            finally:
                if outside.ident is not None:
                    outside.join()
        for student in self._seats:
            gap = self.gaps.get(student, "")
            self._say(student, "failed" if gap else "finished", gap)
        return self._tries

    def close(self) -> None:
        """Give the connections back."""
        for student in self._at_work.values():
            student.close()
        self._cluster.close()

    # -- rounds ------------------------------------------------------------------------------------------------------

    def _operator(self) -> None:
        """Where things are, and the operator at the doors that are open to nobody else."""
        core = "/api/v1"
        node = _items(self._cluster, f"{core}/nodes")[0]
        kubeflow = f"{core}/namespaces/{self._platform.kubeflow_namespace}"
        pods = {
            pod["metadata"].get("labels", {}).get("app", ""): pod
            for pod in _items(self._cluster, f"{kubeflow}/pods")
            if pod["status"].get("phase") == "Running" and not pod["metadata"].get("deletionTimestamp")
        }
        addresses = {part: pods[part]["status"]["podIP"] for part in _PARTS if part in pods}
        inside = [each["address"] for each in node["status"]["addresses"] if each["type"] == "InternalIP"]
        name = node["metadata"]["name"]
        self._parts = Parts(
            kubeflow=self._platform.kubeflow_namespace,
            node=name,
            addresses={**addresses, **({"node": inside[0]} if inside else {})},
        )
        for seat in self._seats.values():
            inside_seat = f"{core}/namespaces/{seat.namespace}/pods"
            for notebook in seat.notebooks:
                status, text = self._cluster.ask("GET", f"{inside_seat}/{notebook}-0")
                if status == HTTPStatus.OK and (address := json.loads(text)["status"].get("podIP")):
                    seat.pod_addresses[notebook] = address
            exec_ = f"{inside_seat}/{seat.notebooks[0]}-0/exec?command=true&stdout=true"
            self._as_operator("k8s-exec", seat.student, exec_)
        self._as_operator("k8s-proxy-node", PLATFORM, f"{core}/nodes/{name}/proxy/healthz")
        self._as_operator(
            "k8s-proxy-mlmd", PLATFORM, f"{kubeflow}/services/metadata-envoy-service:9090/proxy/", web=True
        )
        kfp = f"{kubeflow}/services/ml-pipeline:8888/proxy"
        self._as_operator("kfp-tasks", PLATFORM, f"{kfp}{asks.TASKS}?page_size=1")
        health = self._cluster.ask("GET", f"{kfp}/apis/v2beta1/healthz")[0]
        for student in self._seats:
            self._note("pod-kfp", "operator", student, "GET healthz by the API server's proxy", str(health), True)
        for door, (part, port) in asks.WIRES.items():
            if part == "node":
                path, there = f"{core}/nodes/{name}/proxy/healthz", ""
            else:
                there = pods[part]["metadata"]["name"] if part in pods else ""
                path = f"{kubeflow}/pods/{there}:{port}/proxy/"
            if part == "node" or there:
                status, text = self._cluster.ask("GET", path)
                # A program that speaks no HTTP answers something; where none listens, nobody does.
                silent = status >= 500 and re.search(r"refused|timeout|timed out|no route", text)
                answer = "nobody listens" if silent else "somebody listens"
                self._note(door, "operator", PLATFORM, f"{part}:{port} by the API server's proxy", answer, True)

    def _come_in(self, student: "AtWork") -> None:
        student.come_in(self._nonce)
        with self._submitting:
            # The platform's own way to lose runs is to be given many at once.
            answers = student.start_run(self._nonce, self._pipeline(student.seat.student))
        for call, answer in answers:
            self._note(call.door, student.seat.student, student.seat.student, call.asked, answer, True)
        own = asks.from_notebook(student.seat, self._platform, self._nonce)
        own += asks.at_bucket(student.seat, "first", self._nonce)
        # The own forged header and the own address prove nothing: these doors have other controls.
        own = [each for each in own if each["id"] not in ("pod-kfp", "k8s-exec", "pod-notebook")]
        self._from_notebook(student, {student.seat.student: own}, control=True)
        for call in asks.at_gateway(student.seat, nonce=self._nonce, pipeline={}):
            if call.door not in ("kfp-create", "kfp-start"):
                self._at_gateway(student, call, student.seat.student, control=True)
        me = student.seat.student
        for notebook in student.seat.notebooks:
            try:
                seen, answer = student.cookie(notebook)
            except _UNHEARD as error:
                seen = answer = f"no answer ({self._clean(str(error))})"
            asked = "a call with a marked cookie beside the session's"
            self._note("cookie", me, me, asked, answer, notebook=notebook)
            self._note("cookie", me, me, "the marked cookie, in the server's memory", seen, True, notebook)

    def _pipeline(self, student: str) -> dict[str, Any]:
        member = next(each for each in self._spec.students if each.id == student)
        image = self._spec.of(member).notebooks[0].image or self._platform.notebook_image
        return asks.probe_pipeline(_SOURCE.read_text(), image, self._nonce)

    def _await_runs(self) -> None:
        """Until the run of every student is on record: what was not there yet would look well hidden.

        Its probe may still wait for its place on a node. It goes once it has answered, and leaves its own to another.
        """
        until = time.monotonic() + _RUN_SECONDS
        waiting = [each for each in self._at_work.values() if each.seat.run]
        while waiting and time.monotonic() < until:
            for each in list(waiting):
                with suppress(*_UNHEARD):
                    if each.is_on_record():
                        waiting.remove(each)
                        self._say(each.seat.student, "progress", "its run is on record")
                    elif each.may_start_again():
                        self._start_again(each)
            self._pause(0.7 if waiting else 0)
        for each in waiting:
            self.left.append(f"{each.seat.student}: its run did not begin within {_RUN_SECONDS} s{each.waits_for()}")

    def _start_again(self, student: "AtWork") -> None:
        self._say(student.seat.student, "progress", "its run failed before the probe; once more")
        student.start_run(self._nonce, self._pipeline(student.seat.student))

    def _plan(self, student: "AtWork") -> None:
        if not student.on_record:
            return
        seats = [self._seats[target] for target in self._targets[student.seat.student]]
        plan: dict[str, list[dict[str, Any]]] = {
            seat.student: asks.from_run(seat, self._parts) for seat in [student.seat, *seats]
        }
        plan[PLATFORM] = asks.from_run_at_platform(self._parts)
        student.plan(plan)

    def _others(self, student: "AtWork") -> None:
        me = student.seat.student
        targets = [self._seats[target] for target in self._targets[me]]
        tries = {
            seat.student: [
                *asks.from_notebook(seat, self._platform, self._nonce),
                *asks.at_bucket(seat, "others", self._nonce),
            ]
            for seat in targets
        }
        tries[PLATFORM] = asks.from_notebook_at_platform(self._parts)
        store = self._parts.addresses.get("seaweedfs", "")
        # Its inner ports listen to their own pod alone, so nobody is let in there: that the pod is reached is shown.
        reached = [{"id": "reached", "kind": "tcp", "host": store, "port": 8333}] if store else []
        answers = self._from_notebook(student, {**tries, "": reached})
        if any(answers.get(asks.named("", each)) == "connected" for each in reached):
            for door in ("pod-store-master", "pod-store-filer"):
                self._note(door, me, PLATFORM, "the same pod's open port", "connected", True)
        trivial = asks.probe_pipeline("def from_run(): pass", self._platform.notebook_image, "")
        for seat in targets:
            for call in asks.at_gateway(seat, nonce=f"{self._nonce}-{me}", pipeline=trivial):
                self._at_gateway(student, call, seat.student)
        for call in asks.at_platform():
            self._at_gateway(student, call, PLATFORM)

    def _answers(self, student: "AtWork") -> None:
        me = student.seat.student
        if not student.planned:
            return
        found = student.answers(self._pause, lambda: self._start_again(student))
        for target, tries in student.planned.items():
            for each in tries:
                answer = found.get(asks.named(target, each))
                if answer is None:
                    continue
                asked, notebook = asks.described(each), each.get("notebook", "")
                self._note(each["id"], me, target, asked, answer, target == me, notebook)
                # The header's owner is refused as well; that the port answers its own is shown by what it is for. And
                # over the network the notebook's server is reached by another pod of its seat.
                alike = {"run-kfp-tasks": "run-kfp-forged", "run-notebook": "pod-notebook"}.get(each["id"])
                if target == me and alike:
                    self._note(alike, me, me, asked, answer, True, notebook)

    def _logs(self, student: "AtWork") -> None:
        me = student.seat.student
        for seat in [student.seat, *(self._seats[target] for target in self._targets[me])]:
            for call in asks.at_log(seat):
                self._at_gateway(student, call, seat.student, control=seat is student.seat)

    def _outsiders(self) -> None:
        """Those without a right."""
        found = outsiders.tried(
            self._platform,
            self._cluster,
            list(self._seats.values()),
            {name: one.session for name, one in self._at_work.items() if one.is_in},
            self._spec.name,
            self._nonce,
            self._cancelled,
        )
        for each in found.tries:
            self._add(each)
        self.gaps |= {kind: self._clean(why) for kind, why in found.gaps.items()}
        self.left += found.left
        # Whoever is let in at a seat's page or API is the control of those who are not.
        alike = {"gateway-page": "page", "kfp-list": "kfp"}
        for each in list(self._tries):
            if each.control and each.door in alike:
                for kind in ("anonymous", "forged", "deleted"):
                    self._add(each.model_copy(update={"door": f"{kind}-{alike[each.door]}"}))

    def _leave(self, student: "AtWork") -> None:
        me = student.seat.student
        if student.kernel is not None:
            with suppress(*_UNHEARD):
                for round_ in ("look", "last"):
                    self._from_notebook(student, {me: asks.at_bucket(student.seat, round_, self._nonce)}, control=True)
        self.left += [f"{me}: {self._clean(what)}" for what in student.leave(self._nonce)]

    # -- tries -------------------------------------------------------------------------------------------------------

    def _from_notebook(
        self, student: "AtWork", tries: Mapping[str, list[dict[str, Any]]], *, control: bool = False
    ) -> dict[str, str]:
        """What was answered, by `asks.named`."""
        answers, me = student.tried(tries), student.seat.student
        for target, each in ((target, each) for target, some in tries.items() for each in some):
            if target and (answer := answers.get(asks.named(target, each))) is not None:
                asked = asks.described(each)
                self._note(each["id"], me, target, asked, answer, control, each.get("notebook", ""))
        return answers

    def _at_gateway(self, student: "AtWork", call: Call, target: str, *, control: bool = False) -> None:
        answer = student.ask(call)
        self._note(call.door, student.seat.student, target, call.asked, answer, control, call.notebook)

    def _as_operator(self, door: str, target: str, path: str, *, web: bool = False) -> None:
        status, _ = self._cluster.ask("GET", path)
        # gRPC-Web answers no GET: that it was the server who said so is what counts.
        answer = "200" if web and status in (400, 404, 405, 501) else str(status)
        self._note(door, "operator", target, f"GET {path.partition('?')[0]}", answer, True)

    def _note(
        self, door: str, actor: str, target: str, asked: str, answer: str, control: bool = False, notebook: str = ""
    ) -> None:
        asked = self._clean(asked)
        self._add(
            Try(door=door, actor=actor, target=target, notebook=notebook, asked=asked, answer=answer, control=control)
        )

    def _add(self, each: Try) -> None:
        with self._lock:
            self._tries.append(each)

    def _each(self, what: str, does: "Callable[[AtWork], None]", *, whatever: bool = False) -> None:
        """Every student at once; who fails is left out of what follows, but for the removal."""

        def one(student: "AtWork") -> None:
            me = student.seat.student
            if not whatever and me in self.gaps:
                return
            if not whatever and self._cancelled.is_set():
                raise Cancelled("stopped; the same command begins the proof anew")
            self._say(me, "progress", what)
            try:
                does(student)
            except _UNHEARD as error:
                self.gaps.setdefault(me, f"{me} {what}: {self._clean(str(error))}")

        with ThreadPoolExecutor(_SIDE_BY_SIDE) as pool:
            try:
                list(pool.map(one, self._at_work.values()))
            except BaseException:
                self._cancelled.set()
                raise
            finally:
                pool.shutdown(wait=True, cancel_futures=not whatever)

    def _pause(self, seconds: float) -> None:
        if self._cancelled.wait(seconds):
            raise Cancelled("stopped; the same command begins the proof anew")

    def _clean(self, text: str) -> str:
        for student in self._at_work.values():
            for secret in student.session.secrets():
                text = text.replace(secret, "•••")
        return text

    def _say(self, student: str, state: Any, detail: str = "") -> None:
        self._tell(Event(step=student, state=state, detail=detail, seconds=time.monotonic() - self._began))


class AtWork:
    """One student: the session at the gateway, the kernel in the notebook, the probe as a run."""

    def __init__(
        self, seat: Seat, platform: Platform, cluster: Cluster, password: SecretStr | None, bucket: BucketSpec
    ) -> None:
        self.seat = seat
        self.session = GatewaySession(platform.url, platform.ca_file, seat.email, password or SecretStr(""))
        self.kernel: Kernel | None = None
        self.planned: dict[str, list[dict[str, Any]]] = {}
        self.on_record = False
        self._known = password is not None
        self._platform, self._cluster, self._bucket = platform, cluster, bucket
        self._server = NotebookServer(self.session, seat.page(seat.notebooks[0]))
        self._pipelines = Pipelines(self.session, seat.namespace, patience_seconds=20)
        self._open = ExitStack()
        self._planned_as = ""
        self._marker = secrets.token_hex(12)
        self._heard = 0.0
        self._again = False

    @property
    def is_in(self) -> bool:
        """Whether the student has a session."""
        return self.session.is_in()

    def come_in(self, nonce: str) -> None:
        """Log in and open a kernel with the probe in it. Errors: `_UNHEARD`."""
        if not self._known:
            raise LoginError("the password is not known here; `scripts/classroom up` with the class file makes one")
        self.session.log_in()
        # The kernel's websocket carries it for as long as it is open.
        self.session.carry("isolation-marker", self._marker)
        self._server.wait(until=time.monotonic() + 30)
        self._planned_as = nonce
        self.kernel = self._open.enter_context(self._server.kernel(f"{NAME}.ipynb"))
        self._heard = time.monotonic()
        self._run(_loading())

    def start_run(self, nonce: str, pipeline: Mapping[str, Any]) -> list[tuple[Call, str]]:
        """The student's own experiment, and in it the run of the probe; what was answered. Errors: `_UNHEARD`."""
        self._sweep()
        [create] = (c for c in asks.at_gateway(self.seat, nonce=nonce, pipeline=pipeline) if c.door == "kfp-create")
        answered = self._json(create)
        self.seat.experiment = str(answered[1].get("experiment_id", ""))
        start = next(
            (c for c in asks.at_gateway(self.seat, nonce=nonce, pipeline=pipeline) if c.door == "kfp-start"), None
        )
        if start is None:
            return [(create, answered[0])]
        begun = self._json(start)
        self.seat.run = str(begun[1].get("run_id", ""))
        return [(create, answered[0]), (start, begun[0])]

    def is_on_record(self) -> bool:
        """Whether ML Metadata knows the run: KFP's first driver, which enters it there, is done. Errors:
        `ClusterUnreachable`.
        """
        # Whatever else there is of a run comes after that driver.
        self.on_record = any(
            "system-dag-driver" not in pod["metadata"]["name"] or pod["status"].get("phase") == "Succeeded"
            for pod in self._pods()
        )
        return self.on_record

    def waits_for(self) -> str:
        """In the scheduler's words after a colon, what a pod of the run waits for; empty when nothing is known."""
        with suppress(ClusterUnreachable):
            for pod in self._pods():
                for each in (pod.get("status") or {}).get("conditions") or []:
                    if each.get("reason") == "Unschedulable":
                        return f": {each['message']}"
        return ""

    def _pods(self) -> list[dict[str, Any]]:
        return self._cluster.pods(self.seat.namespace, [self.seat.run])

    def may_start_again(self) -> bool:
        """Whether the run failed before the probe began, as on a busy node a driver may; true once.

        Errors: `ClusterUnreachable`.
        """
        if self._again:
            return False
        phase = ((self._cluster.workflow(self.seat.namespace, self.seat.run) or {}).get("status") or {}).get("phase")
        self._again = phase in ("Failed", "Error")
        return self._again

    def tried(self, tries: Mapping[str, list[dict[str, Any]]]) -> dict[str, str]:
        """What the kernel's tries answered, by `asks.named`. Errors: `KernelDiedError`."""
        flat = _flat(tries)
        store = self._platform.object_store
        region = self._bucket.region or store.region
        said = self._run(
            "import json\nprint(_isolation['from_notebook'](json.loads("
            f"{json.dumps(flat)!r}), {store.address(region)!r}, {region!r}))"
        )
        return {each["id"]: each["answer"] for each in json.loads(said)}

    def plan(self, plan: Mapping[str, list[dict[str, Any]]]) -> None:
        """Tell the probe what to try. Errors: `KernelDiedError`."""
        self.planned = dict(plan)
        body = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": self._planned_as},
            "data": {"plan": json.dumps(_flat(plan))},
        }
        path = f"/api/v1/namespaces/{self.seat.namespace}/configmaps"
        self._run(f"import json\n_isolation['kubernetes']('POST', {path!r}, json.loads({json.dumps(body)!r}))")

    def answers(self, pause: Callable[[float], None], start_again: Callable[[], None]) -> dict[str, str]:
        """What the probe answered, by `asks.named`; `start_again` is called where its run failed before. Errors:
        `_UNHEARD`.
        """
        path = f"/api/v1/namespaces/{self.seat.namespace}/configmaps/{self._planned_as}"
        until = time.monotonic() + _RUN_SECONDS
        while time.monotonic() < until:
            said = self._run(f"print(_isolation['kubernetes']('GET', {path!r})['data'].get('answers', ''))").strip()
            if said:
                names = (pod["metadata"]["name"] for pod in self._pods())
                self.seat.run_pod = next((name for name in names if "system-container-impl" in name), "")
                return {each["id"]: each["answer"] for each in json.loads(said)}
            if self.may_start_again():
                start_again()
            pause(1.0)
        raise NoAnswerError(f"the probe of its run did not answer within {_RUN_SECONDS} s{self.waits_for()}")

    def cookie(self, notebook: str) -> tuple[str, str]:
        """Whether a notebook server's memory holds the marked cookie, and whether the session's stands beside it.

        Errors: `_UNHEARD`.
        """
        page, name = self.seat.page(notebook), self._platform.gateway.session_cookie
        for _ in range(3):
            self.session.call("GET", f"{page}/api/status")
        look = f"print(_isolation['cookies_seen']({self._marker[::-1]!r}, {name[::-1]!r}))"
        if notebook == self.seat.notebooks[0]:
            said = json.loads(self._run(look))
        else:
            # A server's memory is open to its own kernels alone; this one goes as soon as it has looked.
            server = NotebookServer(self.session, page)
            server.wait(until=time.monotonic() + 30)
            with server.kernel(f"{NAME}.ipynb") as kernel:
                said = json.loads(_said(kernel, f"{_loading()}\n{look}"))
        seen = f"{said['found']} times, {'with' if said['found'] else 'without'} it"
        if not said["found"]:
            return seen, "the marked cookie was not found either"
        return seen, f"{said['beside']} times, {'with' if said['beside'] else 'without'} it"

    def ask(self, call: Call) -> str:
        """What a call answers to this student's session, asked again where the answer says nothing. What a leak made is
        taken back at once.
        """
        if call.websocket:
            return dial(self.session.url, call.path, self.session.cookie_for(call.path), self._platform.ca_file)
        status, found = self._json(call)
        for _ in range(_MORE_TIMES):
            # As KFP answers when, on a busy node, it could not ask about a right in time.
            if not status.startswith(("429", "5")):
                break
            time.sleep(1)
            status, found = self._json(call)
        if call.method == "POST" and status.startswith("2"):
            with suppress(*_UNHEARD):
                for key, path in (("run_id", "runs"), ("experiment_id", "experiments")):
                    if key in found and (key == "run_id" or call.door == "kfp-create"):
                        self.session.call("DELETE", f"/pipeline/apis/v2beta1/{path}/{found[key]}")
        return status

    def leave(self, nonce: str) -> list[str]:
        """Take back what was made, in words what could not be."""
        left: list[str] = []
        seat = self.seat
        path = f"/api/v1/namespaces/{seat.namespace}/configmaps/{nonce}"
        if self.planned:
            # The probe looks there until it is told to go; its pod goes with the run in any case.
            self._cluster.ask("DELETE", path)
        names = [seat.run] if seat.run else []
        try:
            if seat.run:
                if workflow := self._cluster.workflow(seat.namespace, seat.run):
                    names.append(str(workflow["metadata"]["name"]))
                self._pipelines.delete_run(seat.run)
            if seat.experiment:
                self._pipelines.delete_experiment(seat.experiment)
            bucket = Bucket(self._cluster, seat.namespace, seat.bucket)
            keys = bucket.keys(f"{self._bucket.artifacts}/") if names else []
            bucket.remove([key for key in keys if any(name in key.split("/") for name in names)])
            bucket.remove(bucket.keys(nonce) if self.is_in else [])
        except _UNHEARD as error:
            left.append(f"not everything named {nonce} could be removed: {error}")
        try:
            self._open.close()
        except _UNHEARD as error:
            left.append(f"the kernel was not ended: {error}")
        return left

    def close(self) -> None:
        """Give the connections back."""
        self.session.close()

    def _sweep(self) -> None:
        """What a proof that was killed has left."""
        for run in self._pipelines.runs():
            if str(run.get("display_name", "")).startswith(f"{NAME}-"):
                self._pipelines.delete_run(run["run_id"])
        for each in self._pipelines.experiments():
            if str(each.get("display_name", "")).startswith(f"{NAME}-"):
                self._pipelines.delete_experiment(each["experiment_id"])

    def _run(self, source: str) -> str:
        if self.kernel is None:
            raise KernelDiedError("there is no kernel")
        if time.monotonic() - self._heard > _QUIET_SECONDS:
            # The server closes a websocket whose other end has not answered its pings for a while.
            self.kernel.close()
            self.kernel.connect()
        said = _said(self.kernel, source)
        self._heard = time.monotonic()
        return said

    def _json(self, call: Call) -> tuple[str, dict[str, Any]]:
        answer = self.session.call(
            call.method, call.path, params=call.params, json=call.body, headers=call.headers or None
        )
        return read(answer, call.holds)


def _loading() -> str:
    """What puts the probe into a kernel."""
    return f"_isolation = {{}}\nexec(compile({_SOURCE.read_text()!r}, 'isolation', 'exec'), _isolation)"


def _said(kernel: Kernel, source: str) -> str:
    """What a kernel prints. Errors: `KernelDiedError`."""
    done = kernel.execute(source, timeout_seconds=_ROUND_SECONDS, cancelled=threading.Event())
    if done.state != "ok":
        raise KernelDiedError(f"the probe in the notebook ended as {done.state} ({done.error})")
    return text_of(done.outputs)


def _flat(tries: Mapping[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The tries at all targets in one list, as the probe takes them."""
    return [{**each, "id": asks.named(target, each)} for target, some in tries.items() for each in some]


def read(answer: requests.Response, holds: str = "") -> tuple[str, dict[str, Any]]:
    """An answer as a `Try` has it, and its JSON; empty when it is none."""
    status = str(answer.status_code)
    if holds and answer.status_code == HTTPStatus.OK:
        status += f", {'with' if holds in answer.text else 'without'} it"
    try:
        found = answer.json()
    except ValueError:
        found = {}
    return status, found if isinstance(found, dict) else {}


def dial(url: str, path: str, cookie: str, ca_file: Path | None) -> str:
    """The status that a websocket's handshake is answered with: 101 when it is opened."""
    address = f"wss{url.rstrip('/').removeprefix('https')}{path}" if url.startswith("https") else f"ws{url[4:]}{path}"
    try:
        websocket.create_connection(
            address,
            cookie=cookie,
            origin=url.rstrip("/"),
            sslopt={"ca_certs": str(ca_file)} if ca_file else None,
            timeout=15,
            http_no_proxy=["*"],
            redirect_limit=0,
        ).close()
    except websocket.WebSocketBadStatusException as error:
        return str(error.status_code)
    except (websocket.WebSocketException, OSError) as error:
        return f"no answer ({type(error).__name__})"
    return "101"


def _items(cluster: Cluster, path: str) -> list[dict[str, Any]]:
    status, text = cluster.ask("GET", path)
    if status != HTTPStatus.OK:
        raise ClusterUnreachable(f"the Kubernetes API answered {status} to GET {path}; check the kubeconfig's rights")
    return list(json.loads(text)["items"])
