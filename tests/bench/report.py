"""Judges and reports a large class from a recorded run, and prints what it takes as the table of report.md.

Repeat with: .venv/bin/python -m tests.bench.report [DIRECTORY]   (the files stay there; else they are thrown away)
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from labs.runner import lab as labs
from labs.runner import report
from labs.runner.facts import Facts
from labs.runner.result import LabResult, Picture, Result, judged

STUDENTS, STEPS = 500, 60
RECORDED = Path(__file__).parent.parent / "unit" / "recorded_simple_pipeline.json"
LOG = "".join(f"I1124 10:00:{n % 60:02d}.000000 launcher_v2.go:{n}] a line such as a pod writes\n" for n in range(120))


def long_lab() -> labs.Lab:
    """The lab with its steps again and again, up to `STEPS` of them."""
    lab = labs.load("simple_pipeline")
    steps = [
        step.model_copy(update={"id": f"{n // 12 + 1}-{n % 12 + 1}"})
        for n, step in enumerate(islice(cycle(lab.steps), STEPS))
    ]
    return lab.model_copy(update={"steps": tuple(steps)})


def class_of(students: int, wrong: Callable[[int], bool]) -> list[Facts]:
    """Facts of so many; those who are `wrong` in one of four ways. Every task has a log, a curve and a table."""
    recorded = json.loads(RECORDED.read_text())
    for run in recorded["runs"]:
        for task in run["tasks"]:
            task["log"] = LOG
            task["outputs"] = (task["outputs"] or {}) | {
                "loss": [1 / n for n in range(1, 31)],
                "rows": [[float(n), n + 0.5] for n in range(20)],
            }
    good = json.dumps(recorded)
    found = []
    for n in range(students):
        seen = json.loads(good) | {"student": f"student-{n:03d}"}
        if wrong(n):
            _spoil(seen, n)
        found.append(Facts.model_validate(seen))
    return found


def _spoil(seen: dict[str, Any], n: int) -> None:
    match n % 4:
        case 0:
            seen["gaps"] = {"bucket": "403 AccessDenied"}
        case 1:
            seen["cells"][2] |= {
                "state": "error",
                "error": "NameError: name 'dsl' is not defined",
                "output": LOG[:3000],
            }
            seen |= {"runs": [], "experiments": [], "objects": [], "files": seen["files"][:1]}
        case 2:
            seen["runs"][0] |= {"state": "FAILED", "error": "task multiply failed: exit code 1"}
            seen["runs"][0]["tasks"][-1] |= {"state": "FAILED", "outputs": None}
        case 3:
            seen["runs"][0]["tasks"][-1]["outputs"]["Output"] = -3.0


@contextmanager
def timed(name: str, numbers: dict[str, str]) -> Iterator[None]:
    """Seconds of processor time: nothing here waits, and what else runs on the machine does not count."""
    began = time.process_time()
    yield
    numbers[name] = f"{time.process_time() - began:.2f} s"


def result_of(lab: labs.Lab, seen: list[Facts]) -> Result:
    def one(facts: Facts) -> LabResult:
        steps = judged(lab, facts)
        run = lab.steps[next(i for i, step in enumerate(lab.steps) if step.makes_run)].id
        task = facts.runs[0].tasks[0].name if facts.runs else ""
        pictures = (
            Picture(kind="series", run=run, task=task, parameter="loss"),
            Picture(kind="table", run=run, task=task, parameter="rows"),
        )
        return LabResult(
            lab=lab.name,
            title=lab.title,
            student=facts.student,
            student_name=f"Student {facts.student[-3:]}",
            email=f"{facts.student}@example.org",
            seconds=80.0,
            steps=(steps[0].model_copy(update={"pictures": pictures}), *steps[1:]),
            facts=facts,
        )

    return Result(
        class_name="large",
        url="https://198.18.0.100/",
        started="2026-01-01T00:00:00",
        finished="2026-01-01T01:00:00",
        seconds=3600.0,
        labs=tuple(map(one, seen)),
    )


def main(directory: Path) -> None:
    lab = long_lab()
    print(
        f"| {STUDENTS} students × {STEPS} steps | none wrong | one in ten wrong | all wrong |",
        "| --- | --- | --- | --- |",
        sep="\n",
    )
    columns: list[dict[str, str]] = []
    for name, wrong in (("none", 0), ("tenth", 10), ("all", 1)):
        seen = class_of(STUDENTS, lambda n, every=wrong: bool(every) and n // 4 % every == 0)
        numbers: dict[str, str] = {}
        with timed("judge recorded facts", numbers):
            for facts in seen:
                judged(lab, facts)
        result = result_of(lab, seen)
        with timed("make report.html", numbers):
            report.html(result)
        with timed("write all four files", numbers):
            (directory / name).mkdir(parents=True, exist_ok=True)
            report.write(result, directory / name)
        for path in sorted((directory / name).iterdir()):
            numbers[path.name] = f"{path.stat().st_size / 1e6:.1f} MB"
        columns.append(numbers)
    for row in columns[0]:
        print(f"| {row} | " + " | ".join(numbers[row] for numbers in columns) + " |")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as there:
            main(Path(there))
