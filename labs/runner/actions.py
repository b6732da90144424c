"""What a lab does that is no cell: a file fetched from the notebook server, a pipeline uploaded, a run started.

Each is done through the gateway as the student's browser does it.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from labs.runner import facts as seen
from labs.runner import lab as labs
from labs.runner.clients.jupyter import NotebookServer
from labs.runner.clients.pipelines import Pipelines
from labs.runner.collect import UNANSWERED, Uploaded
from labs.runner.leftovers import Record
from labs.runner.runs import Run, Runs


class _NotDone(Exception):
    """An earlier step was to make what this one needs, and did not."""


@dataclass(kw_only=True)
class Actions:
    """The acting steps of one rehearsal; what each makes is put into `record` at once. `facts` are by the step's id."""

    server: NotebookServer
    pipelines: Pipelines
    record: Record
    runs: Runs
    submitting: threading.Lock
    clean: Callable[[str], str]

    facts: dict[str, seen.ActionFacts] = field(default_factory=dict)
    uploaded: dict[str, Uploaded] = field(default_factory=dict)
    _fetched: dict[str, bytes] = field(default_factory=dict)

    def act(self, step: labs.Step) -> None:
        """Do a step, unless it was done already."""
        if (before := self.facts.get(step.id)) and before.state == "ok":
            return
        started = time.monotonic()
        state: Literal["ok", "error", "not-run"] = "ok"
        made = error = ""
        try:
            if step.fetch:
                self._fetch(step.fetch)
            elif step.upload:
                made = self._upload(step.id, step.upload)
            elif step.start:
                made = self.start(step, step.start)
        except _NotDone as missing:
            state, error = "not-run", str(missing)
        except UNANSWERED as refused:
            state, error = "error", self.clean(str(refused))
        took = time.monotonic() - started
        self.facts[step.id] = seen.ActionFacts(step=step.id, state=state, seconds=took, made=made, error=error)

    def start(self, step: labs.Step, start: labs.Start, resubmitted: int = 0) -> str:
        """A run of the pipeline that an earlier step uploaded; its id."""
        uploaded = self.uploaded.get(start.pipeline)
        if uploaded is None:
            raise _NotDone(f"the step {start.pipeline} uploaded no pipeline")
        found = [e for e in self.pipelines.experiments() if e.get("display_name") == start.experiment]
        if not found:
            raise _NotDone(f"there is no experiment “{start.experiment}” to start it in")
        with self.submitting:
            at = time.monotonic()
            run_id = self.pipelines.start(
                name=start.name,
                description=self.record.made.id,
                experiment_id=str(found[0]["experiment_id"]),
                pipeline_id=uploaded.pipeline_id,
                version_id=uploaded.version_id,
                parameters=start.parameters,
            )
        self.record.made.runs.append(run_id)
        self.record.write()
        self.runs.add(Run(step=step, run_id=run_id, at=at, resubmitted=resubmitted))
        return run_id

    def _fetch(self, name: str) -> bytes:
        self._fetched[name] = self.server.download(f"{self.record.folder}/{name}")
        return self._fetched[name]

    def _upload(self, step: str, upload: labs.Upload) -> str:
        package = self._fetched.get(upload.file) or self._fetch(upload.file)
        # KFP's own name must be free in the namespace, and the student may have used the lab text's: that one is what
        # the dashboard shows.
        pipeline_id = self.pipelines.upload(
            upload.file,
            package,
            name=f"{self.record.made.id}-{len(self.uploaded) + 1}",
            display_name=upload.name,
            description=upload.description,
        )
        self.record.made.pipelines.append(pipeline_id)
        self.record.write()
        version_id = self.pipelines.first_version(pipeline_id)
        self.uploaded[step] = Uploaded(step=step, pipeline_id=pipeline_id, version_id=version_id)
        return pipeline_id
