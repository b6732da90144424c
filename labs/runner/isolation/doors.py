"""The doors between students, and what an answer at a door means. Pure: nothing here asks anybody anything."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, computed_field

Verdict = Literal["refused", "leak", "could-not-check"]
Outcome = Literal["in", "out", "unknown"]
Kind = Literal["kubernetes", "gateway", "api", "web", "wire", "call", "records", "log", "bucket", "key", "exec"]

PLATFORM: Final = "the platform"
"""The target of doors that are nobody's seat."""


@dataclass(frozen=True, kw_only=True)
class Door:
    """A way in. `control`: who is let in at it (the owner of the target, the operator, or somebody told apart).

    `each`: it is tried at each notebook of a seat. What only the namespace's rights decide is tried at one.
    """

    id: str
    group: str
    title: str
    kind: Kind
    control: Literal["owner", "operator"] = "owner"
    each: bool = False


def _doors() -> tuple[Door, ...]:
    kubernetes, gateway, kfp = "Kubernetes API", "gateway", "KFP API"
    notebook, run, bucket, outside = "from the notebook's pod", "from a run's pod", "bucket", "without a right"
    return (
        Door(id="k8s-list", group=kubernetes, title="list pods", kind="kubernetes"),
        Door(id="k8s-get", group=kubernetes, title="get the notebook's pod", kind="kubernetes"),
        Door(id="k8s-create", group=kubernetes, title="create a ConfigMap (dry run)", kind="kubernetes"),
        Door(id="k8s-exec", group=kubernetes, title="exec in the notebook's pod", kind="exec", control="operator"),
        Door(id="k8s-secret", group=kubernetes, title="get the Secret with the bucket's key", kind="kubernetes"),
        Door(id="k8s-secrets", group=kubernetes, title="list Secrets", kind="kubernetes"),
        Door(id="k8s-notebooks", group=kubernetes, title="list notebooks", kind="kubernetes"),
        Door(
            id="k8s-proxy-node",
            group=kubernetes,
            title="the kubelet by the API server's proxy",
            kind="kubernetes",
            control="operator",
        ),
        Door(
            id="k8s-proxy-mlmd",
            group=kubernetes,
            title="ML Metadata by the API server's proxy",
            kind="kubernetes",
            control="operator",
        ),
        Door(id="gateway-page", group=gateway, title="the notebook's page", kind="gateway", each=True),
        Door(id="gateway-rest", group=gateway, title="the notebook's files (REST)", kind="gateway", each=True),
        Door(id="gateway-websocket", group=gateway, title="the notebook's websocket", kind="gateway", each=True),
        Door(id="kfp-list", group=kfp, title="list runs", kind="api"),
        Door(id="kfp-get", group=kfp, title="get a run", kind="api"),
        Door(id="kfp-create", group=kfp, title="create an experiment", kind="api"),
        Door(id="kfp-start", group=kfp, title="start a run in an experiment", kind="api"),
        Door(id="kfp-logs", group=kfp, title="read a run's log", kind="log"),
        Door(id="kfp-pipelines", group=kfp, title="list pipelines", kind="api"),
        Door(id="kfp-forged", group=kfp, title="list runs with forged user headers", kind="api"),
        Door(id="kfp-tasks", group=kfp, title="list all cached tasks", kind="api", control="operator"),
        Door(id="pod-notebook", group=notebook, title="the notebook server's pod", kind="web", each=True),
        Door(id="pod-service", group=notebook, title="the notebook's service", kind="web", each=True),
        Door(id="pod-kfp", group=notebook, title="KFP with a forged user header", kind="web", control="operator"),
        Door(id="pod-kfp-grpc", group=notebook, title="KFP's gRPC port", kind="wire", control="operator"),
        Door(id="pod-mlmd", group=notebook, title="ML Metadata", kind="wire", control="operator"),
        Door(id="pod-mlmd-web", group=notebook, title="ML Metadata's web port", kind="wire", control="operator"),
        Door(id="pod-database", group=notebook, title="the database", kind="wire", control="operator"),
        Door(id="pod-store-master", group=notebook, title="the object store's master", kind="wire", control="operator"),
        Door(id="pod-store-filer", group=notebook, title="the object store's filer", kind="wire", control="operator"),
        Door(id="pod-store-admin", group=notebook, title="the object store's admin", kind="wire", control="operator"),
        Door(id="pod-kubelet", group=notebook, title="the kubelet", kind="wire", control="operator"),
        Door(id="run-mlmd", group=run, title="another's run in ML Metadata", kind="records"),
        Door(id="run-mlmd-web", group=run, title="ML Metadata's web port", kind="wire", control="operator"),
        Door(id="run-kfp-tasks", group=run, title="another's cached tasks in KFP", kind="call"),
        Door(id="run-kfp-forged", group=run, title="KFP's gRPC with a forged user header", kind="call"),
        Door(id="run-notebook", group=run, title="the notebook server's pod", kind="web", each=True),
        Door(id="bucket-list", group=bucket, title="list", kind="bucket"),
        Door(id="bucket-get", group=bucket, title="get", kind="bucket"),
        Door(id="bucket-put", group=bucket, title="put", kind="bucket"),
        Door(id="bucket-delete", group=bucket, title="delete", kind="bucket"),
        Door(
            id="anonymous-page", group=outside, title="the notebook's page, without a login", kind="gateway", each=True
        ),
        Door(id="anonymous-kfp", group=outside, title="list runs, without a login", kind="api"),
        Door(
            id="forged-page", group=outside, title="the notebook's page, with forged headers", kind="gateway", each=True
        ),
        Door(id="forged-kfp", group=outside, title="list runs, with forged headers", kind="api"),
        Door(
            id="expired-page",
            group=outside,
            title="the notebook's page, with an expired session",
            kind="gateway",
            each=True,
        ),
        Door(id="expired-kfp", group=outside, title="list runs, with an expired session", kind="api"),
        Door(id="deleted-login", group=outside, title="log in as a deleted student", kind="gateway"),
        Door(
            id="deleted-page",
            group=outside,
            title="the notebook's page, as a deleted student",
            kind="gateway",
            each=True,
        ),
        Door(id="deleted-kfp", group=outside, title="list runs, as a deleted student", kind="api"),
        Door(id="deleted-key", group=outside, title="a bucket, with a deleted student's key", kind="key"),
        Door(
            id="cookie",
            group=outside,
            title="the session cookie reaches the notebook server",
            kind="records",
            each=True,
        ),
    )


DOORS: Final = {door.id: door for door in _doors()}


def outcome(kind: Kind, answer: str) -> Outcome:
    """What an answer says: let in, kept out, or nothing. What is no answer at all keeps out at the network alone."""
    status = int(answer[:3]) if answer[:3].isdigit() else None
    silent = answer == "timed out" or answer.startswith("no connection")
    match kind:
        case "kubernetes":
            # Rights are looked at first: even "there is no such thing" is told only to who may ask.
            return _by_status(status, refusals={401, 403})
        case "exec":
            # Who may exec and asks without a websocket is told to upgrade (400).
            return "in" if status == 400 else _by_status(status, refusals={401, 403})
        case "gateway":
            # A redirect leads to the login.
            return _by_status(status, refusals={301, 302, 303, 307, 308, 401, 403})
        case "api":
            return _by_status(status, refusals={301, 302, 303, 307, 308, 401, 403, 405})
        case "log":
            # KFP answers a log that it may not read like one that it cannot: 200 and an error in the body.
            return "out" if answer.endswith("without it") else _by_status(status, refusals={302, 401, 403})
        case "web":
            return "out" if silent else _by_status(status, refusals={401, 403})
        case "wire":
            return "in" if answer == "connected" else "out" if silent else "unknown"
        case "call":
            return "in" if answer == "answered" else "out" if answer == "refused" else "unknown"
        case "records":
            if answer.endswith("without it") or answer == "refused":
                return "out"
            return "in" if answer.endswith("with it") else _by_status(status, refusals={302, 401, 403, 404})
        case "bucket":
            if answer == "done":
                return "in"
            return "out" if answer in _KEY_REFUSED else "unknown"
        case "key":
            # What a key may not do is told to a key that is known still. Source: S3's error codes, as SeaweedFS
            # (weed/s3api/auth_signature_v4.go), MinIO and AWS give them.
            if answer == "InvalidAccessKeyId":
                return "out"
            return "in" if answer in ("done", "AccessDenied", "NoSuchBucket") else "unknown"


_KEY_REFUSED = frozenset({"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "403"})


def _by_status(status: int | None, refusals: set[int]) -> Outcome:
    if status is None or status >= 500 or status == 429:
        return "unknown"
    return "out" if status in refusals else "in"


class Try(BaseModel):
    """One attempt: who asked what of whom, and what came back. Holds no secret."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    door: str
    actor: str
    target: str
    notebook: str = ""
    asked: str
    answer: str
    control: bool = False


class Cell(BaseModel):
    """A door between two: the verdict, and the two tries it rests on. `notebook`: at which of the target's it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    door: str
    actor: str
    target: str
    notebook: str = ""
    verdict: Verdict
    asked: str
    answered: str
    control: str
    why: str = ""


class Result(BaseModel):
    """A whole proof. Times are UTC, ISO 8601; `pairs` were tried of `pairs_there_are`, drawn by `seed`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    class_name: str
    url: str
    started: str
    finished: str
    seconds: float
    students: tuple[str, ...]
    pairs: int
    pairs_there_are: int
    seed: int = 0
    cells: tuple[Cell, ...]
    left_behind: tuple[str, ...] = ()

    @computed_field
    @property
    def exit_code(self) -> int:
        """0 every door is shut and every control came in · 1 a leak · 3 something could not be checked."""
        verdicts = {cell.verdict for cell in self.cells}
        if "leak" in verdicts:
            return 1
        return 0 if verdicts == {"refused"} else 3

    def count(self, verdict: Verdict) -> int:
        """How many cells read so."""
        return sum(cell.verdict == verdict for cell in self.cells)


Where = tuple[str, str, str, str]
"""A cell by its door, actor, target, and the target's notebook; "" where it is no notebook's door."""


def judged(
    expected: Iterable[Where],
    tries: Iterable[Try],
    open_doors: Mapping[str, str],
    gaps: Mapping[str, str],
) -> list[Cell]:
    """A cell for each expected one, whatever was tried of it.

    A refusal counts when somebody was let in at the same door of the same target in the same run. `open_doors` names
    the doors that a platform cannot close, with the reason; `gaps` why somebody could try nothing, by who.
    """
    attempts: dict[Where, Try] = {}
    controls: dict[tuple[str, str, str], Try] = {}
    for each in tries:
        if not each.control:
            attempts[each.door, each.actor, each.target, each.notebook] = each
            continue
        at = each.door, each.target, each.notebook
        known = controls.get(at)
        # One who came in is enough.
        if known is None or outcome(DOORS[known.door].kind, known.answer) != "in":
            controls[at] = each
    return [
        _cell(where, attempts.get(where), controls.get((where[0], *where[2:])), open_doors, gaps) for where in expected
    ]


def _cell(
    where: Where,
    attempt: Try | None,
    control: Try | None,
    open_doors: Mapping[str, str],
    gaps: Mapping[str, str],
) -> Cell:
    door, actor, target, notebook = where
    kind = DOORS[door].kind
    told = f"{control.actor}: {control.answer}" if control else "nobody was let in"
    verdict: Verdict = "could-not-check"
    why = ""
    if attempt is None:
        why = gaps.get(actor) or gaps.get(target) or f"{notebook or 'it'} was not tried"
    elif outcome(kind, attempt.answer) == "in":
        verdict, why = "leak", open_doors.get(door, "")
    elif outcome(kind, attempt.answer) == "unknown":
        why = f"the answer says nothing: {attempt.answer}"
    elif control is None or _control_outcome(kind, control.answer) != "in":
        why = "nobody was let in at this door, so a refusal says nothing"
    else:
        verdict = "refused"
    return Cell(
        door=door,
        actor=actor,
        target=target,
        notebook=notebook,
        verdict=verdict,
        asked=attempt.asked if attempt else "",
        answered=attempt.answer if attempt else "",
        control=told,
        why=why,
    )


def _control_outcome(kind: Kind, answer: str) -> Outcome:
    """For a port, that somebody listens there is all that a control can show: the operator's proxy says so. A key that
    is known has not yet opened anything."""
    if kind == "wire" and answer == "somebody listens":
        return "in"
    if kind == "key":
        return "in" if answer == "done" else "unknown"
    return outcome(kind, answer)
