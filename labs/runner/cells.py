"""The notebook of a lab, executed cell by cell in a student's kernel, with the acting steps between its cells."""

import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import requests
from pydantic import SecretStr

from labs.kubeflow_login import LoginError
from labs.runner import facts as seen
from labs.runner import lab as labs
from labs.runner.actions import Actions
from labs.runner.checks import File
from labs.runner.clients.jupyter import Execution, Kernel, KernelDiedError, NotebookServer, text_of
from labs.runner.clients.pipelines import Pipelines
from labs.runner.clients.session import NoAnswerError
from labs.runner.leftovers import Record, now
from labs.runner.runs import Run, Runs
from labs.runner.seed import tag_of

SILENT = (NoAnswerError, LoginError, requests.RequestException)
"""What a notebook server that does not answer raises."""

OUTPUT_CHARACTERS = 6_000
FILE_CHARACTERS = 40_000

_ATTEMPTS = 4
_CELL_SECONDS = 180.0
# A cell that submits a run is let end when all is stopped: the run it may have made must not stay unknown.
_GRACE_SECONDS = 15.0

_RUN_LINK = re.compile(r"runs/details/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")
# What an API call of a cell says while the server behind the gateway restarts.
_RESTARTING = re.compile(
    r"\((502|503|504)\)|Bad Gateway|Service Unavailable|Gateway Time-?out|Max retries exceeded"
    r"|Connection(Reset|Refused)Error|RemoteDisconnected|Connection aborted|Connection refused|no available server"
    r"|does not answer"
)


@dataclass(kw_only=True)
class Cells:
    """Executes `notebook`, which lies in the record's folder. `submitting` lets one run at a time be created: KFP loses
    runs that are created side by side. `wait` returns when the notebook server answers again; `done(step)` hears of
    each step; `clean` takes secrets out of a text. `facts` are by the cell's tag.
    """

    lab: labs.Lab
    server: NotebookServer
    record: Record
    notebook: dict[str, Any]
    password: SecretStr
    pipelines: Pipelines
    actions: Actions
    runs: Runs
    submitting: threading.Lock
    cancelled: threading.Event
    wait: Callable[[], None]
    done: Callable[[str], None]
    clean: Callable[[str], str]

    facts: dict[str, seen.CellFacts] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def execute(self) -> None:
        """All cells and acting steps, and the wait for their runs. When the kernel or the server dies under them, all
        is begun again, once, in a new kernel.

        Errors: those of `SILENT`, when the server does not come back.
        """
        for first in (True, False):
            try:
                with self.server.kernel(f"{self.record.folder}/{self.lab.file_name}") as kernel:
                    self._execute_all(kernel)
                    # What it says after all cells is not worth the kernel: only a lost run needs it still.
                    self._store()
                    self.runs.watch(lambda run, kernel=kernel: self._submit_again(kernel, run))
                    return
            except (KernelDiedError, *SILENT) as error:
                died = self.clean(str(error))
            if not first or self.cancelled.is_set():
                break
            self.wait()
            self._forget_cells()
            self.notes.append(f"{died}; the notebook was begun again in a new kernel")
        if not any(cell.state == "dead" for cell in self.facts.values()):
            undone = next((step.cell for step in self.lab.steps if step.cell and step.cell not in self.facts), "")
            self.facts[undone] = seen.CellFacts(tag=undone, state="dead", error=died)
        self.runs.watch(None)

    def _execute_all(self, kernel: Kernel) -> None:
        """Every code cell in the notebook's order, up to the first that fails or the last that a step names."""
        variables = {
            "KUBEFLOW_PASSWORD": self.password.get_secret_value(),
            # What the rehearsal computed goes with it and must never be taken for a student's result: with its cache
            # off, KFP does not enter a task there.
            "KFP_DISABLE_EXECUTION_CACHING_BY_DEFAULT": "true",
        }
        # From here on a file that is found was made by this rehearsal.
        kernel.prepare(variables, forget=made_files(self.lab))
        self._act_after(None)
        cells = [cell for cell in self.notebook["cells"] if cell["cell_type"] == "code" and source_of(cell)]
        wanted = {step.cell for step in self.lab.steps if step.cell}
        last = max((number for number, cell in enumerate(cells) if tag_of(cell) in wanted), default=-1)
        for number, cell in enumerate(cells[: last + 1]):
            tag = tag_of(cell) or str(cell.get("id", f"cell {number}"))
            done = self._execute(kernel, tag, cell)
            if done.state == "dead":
                raise KernelDiedError(f"cell {tag}: {done.error}")
            if done.state != "ok" or self.cancelled.is_set():
                return
            self._act_after(tag)

    def _act_after(self, tag: str | None) -> None:
        for step in self.lab.acting_after(tag):
            if not self.cancelled.is_set():
                self.actions.act(step)
                self.done(step.id)

    def _execute(self, kernel: Kernel, tag: str, cell: dict[str, Any]) -> Execution:
        """One cell, with its outputs put into the notebook; again when a service behind it was restarting."""
        step = self.lab.step_of(tag)
        for attempt in range(1, _ATTEMPTS + 1):
            started = time.monotonic()
            if step and step.submits_run:
                with self.submitting:
                    started = time.monotonic()
                    done = self._submit(kernel, source_of(cell), step, again=attempt > 1)
            else:
                done = kernel.execute(
                    source_of(cell),
                    timeout_seconds=step.timeout_seconds if step else _CELL_SECONDS,
                    cancelled=self.cancelled,
                )
            if not self._worth_repeating(done, attempt):
                break
            said = " ".join(self.clean(done.error).split())[:60]
            self.notes.append(f"cell {tag}: a service was restarting ({said}…); the cell was run again")
            time.sleep(2.0)
        cell["outputs"] = [_map_texts(output, self.clean) for output in done.outputs]
        cell["execution_count"] = done.execution_count
        self.facts[tag] = seen.CellFacts(
            tag=tag,
            state=done.state,
            seconds=done.seconds,
            output=self.clean(text_of(done.outputs))[:OUTPUT_CHARACTERS],
            error=self.clean(done.error),
            attempts=attempt,
        )
        if step:
            if step.submits_run and done.state == "ok":
                for run_id in _run_ids(done):
                    self.runs.add(Run(step=step, run_id=run_id, at=started))
            self.done(step.id)
        return done

    def _submit(self, kernel: Kernel, source: str, step: labs.Step, *, again: bool) -> Execution:
        """A cell that starts a run. Until the run's id is known, the record says that there may be one."""
        made = self.record.made
        made.submitting = made.submitting or now()
        self.record.write()
        done = kernel.execute(
            source, timeout_seconds=step.timeout_seconds, cancelled=self.cancelled, grace_seconds=_GRACE_SECONDS
        )
        made.runs += _run_ids(done)
        # A call that got no answer may have made a run all the same.
        if done.state == "ok" and not again:
            made.submitting = ""
        self.record.write()
        return done

    def _submit_again(self, kernel: Kernel, lost: Run) -> None:
        """Start again a run that KFP lost, as its step did."""
        if lost.step.start:
            self.actions.start(lost.step, lost.step.start, lost.resubmitted + 1)
            return
        cell = next(cell for cell in self.notebook["cells"] if tag_of(cell) == lost.step.cell)
        self._execute(kernel, str(lost.step.cell), cell)
        for run in self.runs.of_step(lost.step):
            run.resubmitted = lost.resubmitted + 1

    def _worth_repeating(self, done: Execution, attempt: int) -> bool:
        if done.state != "error" or attempt == _ATTEMPTS or self.cancelled.is_set():
            return False
        if not _RESTARTING.search(done.error + text_of(done.outputs)):
            return False
        try:
            self.pipelines.wait()
        except NoAnswerError:
            return False
        return True

    def _forget_cells(self) -> None:
        """Nothing of what cells did counts any more; what acting steps did stays done."""
        for run in self.runs.of_cells():
            self.runs.take_back(run)
        self.facts.clear()

    def _store(self) -> None:
        """The executed notebook, in the rehearsal's folder."""
        with suppress(*SILENT):
            self.server.write_notebook(f"{self.record.folder}/{self.lab.file_name}", self.notebook)


def made_files(lab: labs.Lab) -> list[str]:
    """Files that the lab's cells make, as its checks name them."""
    paths = (c.path for s in lab.steps for c in s.checks if isinstance(c, File))
    return [path for path in dict.fromkeys(paths) if path != lab.file_name]


def source_of(cell: dict[str, Any]) -> str:
    """A cell's text, empty when it holds none."""
    source = "".join(cell["source"])
    return source if source.strip() else ""


def unexecuted(notebook: dict[str, Any]) -> dict[str, Any]:
    """A copy without outputs."""
    cells = [
        {**cell, "outputs": [], "execution_count": None} if cell["cell_type"] == "code" else cell
        for cell in notebook["cells"]
    ]
    return {**notebook, "cells": cells}


def _run_ids(done: Execution) -> list[str]:
    return list(dict.fromkeys(_RUN_LINK.findall(text_of(done.outputs))))


def _map_texts(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {key: _map_texts(inner, change) for key, inner in value.items()}
    if isinstance(value, list):
        return [_map_texts(inner, change) for inner in value]
    return value
