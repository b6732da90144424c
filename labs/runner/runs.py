"""Runs under way: watched together until each has ended, and noticed when KFP has lost one."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from infra.cluster import ClusterUnreachable
from labs.runner.clients.cluster import Cluster
from labs.runner.clients.jupyter import KernelDiedError
from labs.runner.clients.pipelines import Pipelines
from labs.runner.collect import UNANSWERED
from labs.runner.lab import Step

ENDED = frozenset({"SUCCEEDED", "FAILED", "SKIPPED", "CANCELED", "ERROR"})

_NOT_STARTED = frozenset({"", "RUNTIME_STATE_UNSPECIFIED", "PENDING"})
_RUN_SECONDS = 900.0
_SECONDS_BETWEEN_LOOKS = 2.0
# So long KFP may fail to answer, for example while its database is not found.
_SILENT_SECONDS = 120.0
_SECONDS_BETWEEN_REASONS = 8.0
_SUBMISSIONS = 3
# The workflow is made before the run is stored; younger than this a run without a workflow is no news.
_LOST_AFTER_SECONDS = 8.0


@dataclass(kw_only=True)
class Run:
    """A run under way: the step that submitted it and when (monotonic); `seconds` it took until its end was seen."""

    step: Step
    run_id: str
    at: float
    seconds: float | None = None
    resubmitted: int = 0
    without_workflow: int = 0
    given_up: bool = False


@dataclass(kw_only=True)
class Runs:
    """The runs of one rehearsal. `ended(run id)` is called once for each that was seen to end."""

    namespace: str
    pipelines: Pipelines
    cluster: Cluster
    cancelled: threading.Event
    tell: Callable[[str], None]
    ended: Callable[[str], None]

    all: list[Run] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    _asked_why: float = 0.0
    _why: str = ""

    def add(self, run: Run) -> None:
        """One more to watch."""
        self.all.append(run)

    def of_step(self, step: Step) -> list[Run]:
        """Those that a step submitted."""
        return [run for run in self.all if run.step.id == step.id]

    def of_cells(self) -> list[Run]:
        """Those that a cell submitted."""
        return [run for run in self.all if run.step.submits_run]

    def take_back(self, run: Run) -> None:
        """Delete a run and forget it. One that is not deleted now is left to the clean-up."""
        self.all.remove(run)
        try:
            self.pipelines.delete_run(run.run_id)
        except UNANSWERED:
            return

    def watch(self, submit_again: Callable[[Run], None] | None) -> None:
        """Wait until every run has ended; one that KFP lost is taken back and submitted again, if it can be.

        All are seen by one question each time: KFP loses the more runs the more it is asked.
        """
        until = time.monotonic() + _RUN_SECONDS
        answered = time.monotonic()
        while self._waiting() and time.monotonic() < until and not self.cancelled.wait(_SECONDS_BETWEEN_LOOKS):
            try:
                states = {run["run_id"]: str(run.get("state", "")) for run in self.pipelines.runs()}
                for run in self._waiting():
                    self._look(run, states.get(run.run_id, ""), submit_again)
                self._tell(states)
                answered = time.monotonic()
            except UNANSWERED as error:
                if time.monotonic() - answered > _SILENT_SECONDS:
                    self.notes.append(f"the runs were not watched to their end: {error}")
                    return
        for run in self._waiting():
            if why := self._reason():
                self.notes.append(f"run {run.run_id} did not end: {why}")

    def _look(self, run: Run, state: str, submit_again: Callable[[Run], None] | None) -> None:
        if state in ENDED:
            run.seconds = time.monotonic() - run.at
            self.ended(run.run_id)
        elif state in _NOT_STARTED and self._is_lost(run):
            if submit_again is None or run.resubmitted + 1 >= _SUBMISSIONS:
                run.seconds, run.given_up = time.monotonic() - run.at, True
                self.notes.append(f"KFP lost the run {run.run_id} (PENDING, its workflow gone)")
                return
            self.notes.append(f"KFP lost the run {run.run_id} (PENDING, its workflow gone); it was submitted again")
            self.take_back(run)
            try:
                submit_again(run)
            except KernelDiedError as error:
                self.notes.append(f"it was not submitted again: {error}")

    def _tell(self, states: dict[str, str]) -> None:
        waiting = self._waiting()
        if not waiting:
            return
        now = time.monotonic()
        if now - max(self._asked_why, min(run.at for run in waiting)) > _SECONDS_BETWEEN_REASONS:
            self._asked_why, self._why = now, self._reason()
        shown = ", ".join(
            f"run of {run.step.id} {states.get(run.run_id) or 'PENDING'} for {now - run.at:.0f} s" for run in waiting
        )
        self.tell(f"{shown}; {self._why}" if self._why else shown)

    def _is_lost(self, run: Run) -> bool:
        """Whether KFP's API server has thrown the run's workflow away: it does so when the persistence agent reports a
        workflow whose run is not stored yet, and the run then stays PENDING for ever. Seen twice to be believed."""
        if time.monotonic() - run.at < _LOST_AFTER_SECONDS:
            return False
        try:
            gone = self.cluster.workflow(self.namespace, run.run_id) is None
        except ClusterUnreachable:
            return False
        run.without_workflow = run.without_workflow + 1 if gone else 0
        return run.without_workflow >= 2

    def _reason(self) -> str:
        """What a pod of these runs waits for, in a person's words; empty when none waits."""
        try:
            pods = self.cluster.pods(self.namespace, [run.run_id for run in self._waiting()])
        except ClusterUnreachable:
            return ""
        return next((why for pod in pods if (why := _waits_for(pod))), "")

    def _waiting(self) -> list[Run]:
        return [run for run in self.all if run.seconds is None]


def _waits_for(pod: dict[str, Any]) -> str:
    name, status = pod["metadata"]["name"], pod.get("status", {})
    for container in [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]:
        waiting = container.get("state", {}).get("waiting") or {}
        # These two are how every pod begins.
        if waiting.get("reason", "PodInitializing") not in ("PodInitializing", "ContainerCreating"):
            return f"pod {name}: {waiting['reason']} {waiting.get('message', '')}".strip()
    for condition in status.get("conditions", ()):
        if condition["type"] == "PodScheduled" and condition["status"] != "True":
            return f"pod {name}: {condition.get('message', 'waits for a node')}"
    return ""
