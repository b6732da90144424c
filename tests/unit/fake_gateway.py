"""A stand-in for the gateway's login and for KFP's API, as an extension of a real Jupyter server: a whole rehearsal
then runs on this machine in seconds. What it does wrong on purpose comes from its environment:

    FAKE_PASSWORD    the one that is taken
    FAKE_LOSES       how many of the first runs stay PENDING for ever
    FAKE_RESTARTS    how many of the first calls that create a run are answered 503
"""

import json
import os
import time
import uuid
from typing import Any

from tornado.web import RequestHandler

COOKIE = "oauth2_proxy_kubeflow"
SESSION = "a-session-that-must-not-be-stored"
SECONDS_TO_RUN = 1.0

EXPERIMENTS: list[dict[str, Any]] = []
RUNS: dict[str, dict[str, Any]] = {}
COUNTS = {"loses": int(os.environ.get("FAKE_LOSES", "0")), "restarts": int(os.environ.get("FAKE_RESTARTS", "0"))}


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
            self.set_cookie(COOKIE, SESSION, path="/")
            self.redirect("/landing")


class Landing(Answering):
    """The first page."""

    def prepare(self) -> None:
        self.finish("logged in")


class Api(Answering):
    """What of KFP's v2beta1 API a rehearsal and the SDK ask for; 401 without the cookie, as the gateway answers."""

    def prepare(self) -> None:
        path = self.path_args[0]
        if self.get_cookie(COOKIE) != SESSION:
            self.refuse(401, "")
        elif self.request.method == "GET":
            self.look(path)
        elif self.request.method == "POST":
            self.make(path, json.loads(self.request.body))
        else:
            RUNS.pop(path.rpartition("/")[2], None)
            self.answer({})

    def look(self, path: str) -> None:
        """Lists, and one run."""
        for run in RUNS.values():
            if not run["lost"]:
                run["state"] = "SUCCEEDED" if time.monotonic() - run["at"] > SECONDS_TO_RUN else "RUNNING"
        match path:
            case "healthz":
                self.answer({"multi_user": True})
            case "experiments":
                self.answer({"experiments": EXPERIMENTS})
            case "runs":
                self.answer({"runs": [shown(run) for run in RUNS.values()]})
            case _:
                self.answer(shown(RUNS[path.rpartition("/")[2]]))

    def make(self, path: str, body: dict[str, Any]) -> None:
        """A new experiment or run."""
        if path == "experiments":
            EXPERIMENTS.append({**body, "experiment_id": str(uuid.uuid4()), "namespace": "demo-alice"})
            self.answer(EXPERIMENTS[-1])
            return
        if COUNTS["restarts"] > 0:
            COUNTS["restarts"] -= 1
            self.refuse(503, "no available server")
            return
        COUNTS["loses"] -= 1
        run_id = str(uuid.uuid4())
        RUNS[run_id] = {
            **body,
            "run_id": run_id,
            "state": "PENDING",
            "at": time.monotonic(),
            "lost": COUNTS["loses"] >= 0,
        }
        self.answer(shown(RUNS[run_id]))


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
            ("/pipeline/apis/v2beta1/(.*)", Api),
        ],
    )
