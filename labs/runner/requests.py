"""What the runs of a lab ask for, read from the pipelines that its notebook makes.

The notebook is rendered as for a student and its cells are run in a process and a folder of their own, against a client
that takes what is submitted and speaks to nobody. The pipelines become `infra.fit.Task`s: with every pod that Kubeflow
Pipelines makes of them, drivers, launchers and Argo's own containers included.

Source: kubeflow/pipelines backend/src/v2/compiler/argocompiler (dag.go, container.go, importer.go, argo.go), 2.14.3.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import yaml

from infra.fit import Container, Pod, Task
from infra.values import amount
from labs.runner import lab as labs

_COMPILES_WITHIN_SECONDS: Final = 180
_DRIVER: Final = Container(
    requests={"cpu": amount("0.1"), "memory": amount("64Mi")},
    limits={"cpu": amount("0.5"), "memory": amount("0.5Gi")},
)
_LAUNCHER: Final = Container(requests={"cpu": amount("0.1")}, limits={"cpu": amount("0.5"), "memory": amount("128Mi")})
_STUB_IMAGES: Final = ("argostub/createpvc", "argostub/deletepvc")

# Beside the cells: what `kubeflow_login` is to them. A call that it does not know ends the notebook: taken in silence,
# it might have started a run that nobody counts.
_STUB: Final = '''
"""A client that keeps what is submitted."""

import shutil
from itertools import count
from pathlib import Path
from types import SimpleNamespace

_numbers = count()


class _Client:
    def create_experiment(self, *_, **__):
        return SimpleNamespace(experiment_id="experiment", id="experiment")

    def create_run_from_pipeline_package(self, pipeline_file, *_, **__):
        shutil.copy(pipeline_file, Path("submitted") / f"{next(_numbers)}.yaml")
        return SimpleNamespace(run_id="run")

    def create_run_from_pipeline_func(self, pipeline_func, *_, **__):
        from kfp import compiler

        compiler.Compiler().compile(pipeline_func, str(Path("submitted") / f"{next(_numbers)}.yaml"))
        return SimpleNamespace(run_id="run")


def kubeflow_client(*_, **__):
    return _Client()
'''
_RUN: Final = """
import sys, types
from pathlib import Path

module = types.ModuleType("__main__")
sys.modules["__main__"] = module
Path("submitted").mkdir()
for cell in sorted(Path().glob("cell-*.py")):
    exec(compile(cell.read_text(), cell, "exec"), module.__dict__)
"""


class Uncompiled(labs.LabError):
    """The pipelines of a lab could not be made here, so that nothing is known of what its runs ask for."""


def pipelines(lab: labs.Lab, cache: Path | None = None) -> list[dict[str, Any]]:
    """The pipelines (KFP's PipelineSpec) that the lab's notebook submits or that the lab uploads, each once.

    `cache`: a folder that keeps them for as long as the notebook stays as it is. Errors: `Uncompiled`.
    """
    notebook = labs.render(lab, host="https://kubeflow.example.org/", email="student@example.org", image="class")
    cells = labs.sources(notebook)
    beside = {name: text for name, text in labs.beside(lab).items() if name != "kubeflow_login.py"}
    uploaded = sorted({step.upload.file for step in lab.steps if step.upload})
    made_of = json.dumps([cells, beside, uploaded, version("kfp"), _STUB, _RUN])
    kept = cache / f"{lab.name}-{hashlib.sha256(made_of.encode()).hexdigest()[:16]}.json" if cache else None
    if kept and kept.exists():
        return list(json.loads(kept.read_text()))
    with tempfile.TemporaryDirectory(prefix="classroom-") as made:
        folder = Path(made)
        for name, text in {**beside, "kubeflow_login.py": _STUB}.items():
            (folder / name).write_text(text)
        # The SDK reads a component's source from its file.
        for number, source in enumerate(cells):
            (folder / f"cell-{number:04d}.py").write_text(source)
        _run(lab, folder)
        files = [*sorted((folder / "submitted").iterdir()), *(folder / name for name in uploaded)]
        found = [each for file in files if file.exists() for each in yaml.safe_load_all(file.read_text())]
    whole = {json.dumps(each, sort_keys=True, default=str): each for each in found if "pipelineInfo" in each}
    if not whole:
        raise Uncompiled(f"{lab.folder}: the notebook submits no pipeline, so nothing is known of its runs")
    if kept:
        kept.parent.mkdir(parents=True, exist_ok=True)
        # Whole or not at all: what is there is trusted.
        partial = kept.with_suffix(f".partial-{os.getpid()}")
        partial.write_text(json.dumps(list(whole.values()), default=str))
        partial.rename(kept)
    return list(whole.values())


def _run(lab: labs.Lab, folder: Path) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": str(folder),
        "CLASS_BUCKET": "class",
        "CLASS_IMAGE": "class",
        "KUBEFLOW_PASSWORD": "none",
    }
    command = [sys.executable, "-W", "ignore", "-c", _RUN]
    try:
        ran = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_COMPILES_WITHIN_SECONDS,
            check=False,
        )
        said = ran.stderr.strip().splitlines()[-1:] if ran.returncode else []
    except subprocess.TimeoutExpired:
        said = [f"its cells did not end within {_COMPILES_WITHIN_SECONDS} s"]
    if said or not (folder / "submitted").is_dir():
        raise Uncompiled(f"{lab.folder}: the pipelines could not be made here: {''.join(said) or 'no reason given'}")


def run(pipeline: Mapping[str, Any], executor: Container) -> tuple[Task, list[str]]:
    """A run of a pipeline, and what of it cannot be known before it runs, in words.

    `executor` is what Argo puts beside a step, and before it (the `executor` of its controller's configuration).
    """
    reader = _Reader(pipeline, executor)
    name = str(pipeline["pipelineInfo"]["name"])
    driver = reader.driver(f"{name}, driver")
    whole = Task(name=name, pods=(driver,), within=tuple(reader.graph(pipeline["root"]["dag"])))
    return whole, reader.unknown


class _Reader:
    def __init__(self, pipeline: Mapping[str, Any], executor: Container) -> None:
        self.unknown: list[str] = []
        self._components = pipeline.get("components", {})
        self._executors = pipeline.get("deploymentSpec", {}).get("executors", {})
        self._beside = executor

    def driver(self, name: str) -> Pod:
        return Pod(name=name, containers=(_DRIVER, self._beside), init=(self._beside,))

    def graph(self, dag: Mapping[str, Any]) -> Iterable[Task]:
        for name, task in dag["tasks"].items():
            yield self._task(name, task, frozenset(task.get("dependentTasks", ())) | _takes_from(task))

    def _task(self, name: str, task: Mapping[str, Any], after: frozenset[str]) -> Task:
        component = self._components[task["componentRef"]["name"]]
        driver = self.driver(f"driver of {name}")
        if "dag" in component:
            within = tuple(self.graph(component["dag"]))
            # If, Elif and Else: each decides with a driver of its own, and one goes on.
            exclusive = "condition-branches" in task["componentRef"]["name"]
            if "parameterIterator" not in task:
                return Task(name=name, after=after, pods=(driver,), within=within, exclusive=exclusive)
            item = Task(name=f"{name}, one", pods=(driver,), within=within)
            copies = self._copies(name, task)
            return Task(name=name, after=after, pods=(driver,), within=(item,), copies=copies)
        made = self._executors[component["executorLabel"]]
        if "importer" in made:
            return Task(name=name, after=after, pods=(self.driver(name),))
        container = made["container"]
        if container.get("image") in _STUB_IMAGES:
            return Task(name=name, after=after, pods=(driver,), volumes=self._claims(name, task, container))
        main = Pod(
            name=name,
            containers=(self._sizes(name, container.get("resources", {})), self._beside),
            init=(self._beside, _LAUNCHER),
        )
        return Task(name=name, after=after, pods=(driver, main))

    def _copies(self, name: str, task: Mapping[str, Any]) -> int:
        raw = task["parameterIterator"].get("items", {}).get("raw")
        if raw is None:
            self.unknown.append(f"{name}: how often the loop runs is known only once it does; counted once")
            return 1
        most = int(task.get("iteratorPolicy", {}).get("parallelismLimit", 0))
        count = len(json.loads(raw))
        return min(count, most) if most else count

    def _claims(self, name: str, task: Mapping[str, Any], container: Mapping[str, Any]) -> tuple[Decimal, ...]:
        if container["image"] != _STUB_IMAGES[0]:
            return ()
        size = task["inputs"]["parameters"].get("size", {}).get("runtimeValue", {}).get("constant")
        if size is None:
            self.unknown.append(f"{name}: the size of its volume is known only once it runs; not counted")
        return () if size is None else (amount(str(size)),)

    def _sizes(self, name: str, given: Mapping[str, Any]) -> Container:
        """A task's sizes: the fields that may hold placeholders, else the older numbers (driver.go)."""
        sizes: dict[str, dict[str, Decimal]] = {"requests": {}, "limits": {}}
        for kind, resource, newer, older, unit in (
            ("requests", "cpu", "resourceCpuRequest", "cpuRequest", Decimal(1)),
            ("requests", "memory", "resourceMemoryRequest", "memoryRequest", Decimal(10**9)),
            ("limits", "cpu", "resourceCpuLimit", "cpuLimit", Decimal(1)),
            ("limits", "memory", "resourceMemoryLimit", "memoryLimit", Decimal(10**9)),
        ):
            if newer not in given and older not in given:
                continue
            try:
                number = amount(str(given[newer])) if newer in given else Decimal(str(given[older])) * unit
                sizes[kind][resource] = number
            except ValueError:
                self.unknown.append(f"{name}: its {resource} is known only once it runs; counted as if it named none")
        accelerator = given.get("accelerator", {})
        resource = str(accelerator.get("resourceType") or accelerator.get("type") or "")
        count = str(accelerator.get("resourceCount") or accelerator.get("count") or "1")
        if resource and count.isdigit():
            sizes["limits"][resource] = Decimal(count)
        elif resource:
            self.unknown.append(f"{name}: how many {resource} it takes is known only once it runs; not counted")
        return Container(**sizes)


def _takes_from(task: Mapping[str, Any]) -> frozenset[str]:
    """The tasks whose outputs a task takes: KFP waits for them even where `dependentTasks` does not say so."""
    given = task.get("inputs", {})
    return frozenset(
        each[key]["producerTask"]
        for each in (*given.get("parameters", {}).values(), *given.get("artifacts", {}).values())
        for key in ("taskOutputParameter", "taskOutputArtifact")
        if key in each
    )
