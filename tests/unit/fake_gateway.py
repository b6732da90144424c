"""A stand-in for the gateway's login and for KFP's API, as an extension of a real Jupyter server: a whole rehearsal
then runs on this machine in seconds. What it does wrong on purpose comes from its environment:

    FAKE_PASSWORD    the one that is taken
    FAKE_LOSES       how many of the first runs stay PENDING for ever
    FAKE_RESTARTS    how many of the first calls that create a run are answered 503
    FAKE_EXPIRES     after how many calls of the API the first session is refused
    FAKE_KEEPS       1: nothing is deleted, each try is answered 403
    FAKE_SLOW        how many seconds a run takes (1)
"""

import json
import os
import signal
import sys
import time
import uuid
from datetime import UTC, datetime
from typing import Any

import yaml
from tornado.web import RequestHandler

COOKIE = "oauth2_proxy_kubeflow"
SESSION = "a-session-that-must-not-be-stored"
LATER_SESSION = "another-session-that-must-not-be-stored"
SECONDS_TO_RUN = float(os.environ.get("FAKE_SLOW", "1"))

EXPERIMENTS: list[dict[str, Any]] = []
RUNS: dict[str, dict[str, Any]] = {}
PIPELINES: dict[str, dict[str, Any]] = {}
VERSIONS: dict[str, dict[str, Any]] = {}
COUNTS = {
    "loses": int(os.environ.get("FAKE_LOSES", "0")),
    "restarts": int(os.environ.get("FAKE_RESTARTS", "0")),
    "expires": int(os.environ.get("FAKE_EXPIRES", "1000000")),
}


def session() -> str:
    """The one that is valid now."""
    return SESSION if COUNTS["expires"] > 0 else LATER_SESSION


class Answering(RequestHandler):
    """Answers in `prepare`, which Tornado calls first and for every method."""

    def check_xsrf_cookie(self) -> None:
        """Neither dex nor KFP has Jupyter's tokens."""

    def answer(self, value: object) -> None:
        """As JSON."""
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps(value))

    def refuse(self, status: int, text: str) -> None:
        """With that status."""
        self.set_status(status)
        self.finish(text)


class Start(Answering):
    """oauth2-proxy's /oauth2/start: to the login."""

    def prepare(self) -> None:
        self.redirect("/dex/auth/local/login?state=1")


class Login(Answering):
    """dex's form: in, or the form again."""

    def prepare(self) -> None:
        if self.request.method == "GET":
            self.finish("<form method=post>")
        elif self.get_argument("password") != os.environ["FAKE_PASSWORD"]:
            self.refuse(401, "Invalid Email Address and password.")
        else:
            self.set_cookie(COOKIE, session(), path="/")
            self.redirect("/landing")


class Landing(Answering):
    """The first page."""

    def prepare(self) -> None:
        self.finish("logged in")


class Forget(Answering):
    """Everything that was made in KFP, for the next test."""

    def prepare(self) -> None:
        for made in (EXPERIMENTS, RUNS, PIPELINES, VERSIONS):
            made.clear()


class ForgetVersions(Answering):
    """The versions of all pipelines, as a student may delete them."""

    def prepare(self) -> None:
        VERSIONS.clear()


class Restart(Answering):
    """The whole server starts anew, and every kernel ends, as when its pod is replaced."""

    def prepare(self) -> None:
        for kernel_id in list(self.settings["kernel_manager"].list_kernel_ids()):
            os.kill(self.settings["kernel_manager"].get_kernel(kernel_id).provisioner.pid, signal.SIGKILL)
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606  just what it was started with


class Api(Answering):
    """What of KFP's v2beta1 API a rehearsal and the SDK ask for; 401 without the cookie, as the gateway answers."""

    def prepare(self) -> None:
        path = self.path_args[0]
        COUNTS["expires"] -= 1
        if self.get_cookie(COOKIE) != session():
            self.refuse(401, "")
        elif self.request.method == "GET":
            self.look(path.split("/"))
        elif path == "pipelines/upload":
            self.upload()
        elif self.request.method == "POST":
            self.make(path, json.loads(self.request.body))
        elif os.environ.get("FAKE_KEEPS"):
            self.refuse(403, "not yours to delete")
        else:
            self.remove(path.split("/"))

    def look(self, path: list[str]) -> None:
        """Lists, and single things by their id."""
        for run in RUNS.values():
            if not run["lost"]:
                run["state"] = "SUCCEEDED" if time.monotonic() - run["at"] > SECONDS_TO_RUN else "RUNNING"
        match path:
            case ["healthz"]:
                self.answer({"multi_user": True})
            case ["experiments"]:
                self.answer({"experiments": EXPERIMENTS})
            case ["runs"]:
                of = self.get_argument("experiment_id", None)
                self.answer({"runs": [shown(run) for run in RUNS.values() if of in (None, run["experiment_id"])]})
            case ["runs", run_id]:
                self.answer_one(shown(RUNS[run_id]) if run_id in RUNS else None)
            case ["pipelines"]:
                self.answer({"pipelines": list(PIPELINES.values())})
            case ["pipelines", "names", name]:
                self.answer_one(next((p for p in PIPELINES.values() if p["name"] == name), None))
            case ["pipelines", pipeline_id]:
                self.answer_one(PIPELINES.get(pipeline_id))
            case ["pipelines", pipeline_id, "versions"]:
                of_it = [version for version in VERSIONS.values() if version["pipeline_id"] == pipeline_id]
                self.answer({"pipeline_versions": of_it})
            case ["pipelines", _, "versions", version_id]:
                self.answer_one(VERSIONS.get(version_id))
            case _:
                self.refuse(404, f"no {'/'.join(path)}")

    def answer_one(self, found: dict[str, Any] | None) -> None:
        """A thing, or that there is none."""
        if found is None:
            self.refuse(404, "not found")
        else:
            self.answer(found)

    def make(self, path: str, body: dict[str, Any]) -> None:
        """A new experiment or run."""
        if path == "experiments":
            there = next((one for one in EXPERIMENTS if one["display_name"] == body["display_name"]), None)
            if there is None:
                EXPERIMENTS.append({**body, "experiment_id": str(uuid.uuid4()), "namespace": "demo-alice"})
            self.answer(there or EXPERIMENTS[-1])
            return
        if COUNTS["restarts"] > 0:
            COUNTS["restarts"] -= 1
            self.refuse(503, "no available server")
            return
        reference = body.get("pipeline_version_reference")
        if reference and reference["pipeline_version_id"] not in VERSIONS:
            self.refuse(404, "no such version")
            return
        COUNTS["loses"] -= 1
        run_id = str(uuid.uuid4())
        RUNS[run_id] = {
            **body,
            "run_id": run_id,
            "state": "PENDING",
            "created_at": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
            "at": time.monotonic(),
            "lost": COUNTS["loses"] >= 0,
        }
        self.answer(shown(RUNS[run_id]))

    def upload(self) -> None:
        """A new pipeline with a version; names are unique, as KFP has it."""
        name = self.get_argument("name")
        if any(pipeline["name"] == name for pipeline in PIPELINES.values()):
            self.refuse(409, f"the name {name} already exists")
            return
        pipeline_id, version_id = str(uuid.uuid4()), str(uuid.uuid4())
        PIPELINES[pipeline_id] = {
            "pipeline_id": pipeline_id,
            "name": name,
            "display_name": self.get_argument("display_name", name),
            "description": self.get_argument("description", ""),
            "namespace": self.get_argument("namespace"),
        }
        VERSIONS[version_id] = {
            "pipeline_id": pipeline_id,
            "pipeline_version_id": version_id,
            "display_name": self.get_argument("display_name", name),
            "pipeline_spec": yaml.safe_load(self.request.files["uploadfile"][0]["body"]),
        }
        self.answer(PIPELINES[pipeline_id])

    def remove(self, path: list[str]) -> None:
        """One thing; a pipeline only with its versions."""
        match path:
            case ["runs", run_id]:
                found = RUNS.pop(run_id, None)
            case ["experiments", experiment_id]:
                found = next((one for one in EXPERIMENTS if one["experiment_id"] == experiment_id), None)
                EXPERIMENTS[:] = [one for one in EXPERIMENTS if one is not found]
            case ["pipelines", pipeline_id]:
                if self.get_argument("cascade", "") != "true":
                    self.refuse(400, "it has versions")
                    return
                found = PIPELINES.pop(pipeline_id, None)
                for version_id in [i for i, version in VERSIONS.items() if version["pipeline_id"] == pipeline_id]:
                    del VERSIONS[version_id]
            case _:
                found = None
        self.answer_one({} if found is not None else None)


def shown(run: dict[str, Any]) -> dict[str, Any]:
    """A run without what only this stand-in knows."""
    return {key: value for key, value in run.items() if key not in ("at", "lost")}


def _load_jupyter_server_extension(server: Any) -> None:
    server.web_app.add_handlers(
        ".*$",
        [
            ("/oauth2/start", Start),
            ("/dex/auth/local/login", Login),
            ("/landing", Landing),
            ("/forget", Forget),
            ("/forget-versions", ForgetVersions),
            ("/restart", Restart),
            ("/pipeline/apis/v2beta1/(.*)", Api),
        ],
    )
