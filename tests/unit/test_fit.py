"""Does a class fit: what the API server makes of sizes, the widest moment of a run, the quota, the nodes; and what the
labs' own pipelines ask for."""

from decimal import Decimal
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from kfp import compiler, dsl
from rich.table import Table

from infra import fit
from infra.fit import Container, Node, Pod, Task
from infra.spec import ClassSpec, Gpu, NotebookSpec, Quota, Student, Toleration
from infra.values import amount
from labs.runner import lab as labs
from labs.runner import requests
from scripts.day import fit_table

ARGO = fit.executor('{"resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "256Mi"}}}')
QUOTA = Quota(container_cpu="20m", container_memory="64Mi", container_memory_limit="1Gi")


def pod(name: str = "p", cpu: str = "100m", memory: str = "100Mi") -> Pod:
    sizes = {"cpu": amount(cpu), "memory": amount(memory)}
    return Pod(name=name, containers=(Container(requests=sizes, limits=sizes),))


def klass(students: int = 2, **given: Any) -> ClassSpec:
    notebook = NotebookSpec(name="nb", cpu="100m", memory="256Mi", memory_limit="1Gi", workspace="1Gi")
    roster = tuple(Student(id=f"s{i}", email=f"s{i}@example.org") for i in range(students))
    shape = {"students": roster, "notebooks": (notebook,), "quota": QUOTA, **given}
    return ClassSpec.model_validate({"name": "fit", **shape})


def node(name: str = "n", cpu: str = "4", memory: str = "16Gi", pods: str = "110", **given: Any) -> Node:
    return Node(name=name, free={"cpu": amount(cpu), "memory": amount(memory), "pods": amount(pods)}, **given)


def chain(*tasks: Task, name: str = "run") -> Task:
    return Task(name=name, within=tasks)


def cpu(each: Pod) -> Decimal:
    return each.needs(QUOTA)["requests.cpu"]


@pytest.mark.parametrize(
    ("written", "requests_cpu", "requests_memory", "limits_memory"),
    [
        (Container(), "20m", "64Mi", "1Gi"),
        # A limit alone is the request as well: before any LimitRange is looked at.
        (Container(limits={"cpu": amount("1"), "memory": amount("2Gi")}), "1", "2Gi", "2Gi"),
        (Container(requests={"memory": amount("128Mi")}), "20m", "128Mi", "1Gi"),
    ],
)
def test_a_container_counts_as_the_api_server_admits_it(
    written: Container, requests_cpu: str, requests_memory: str, limits_memory: str
) -> None:
    needs = Pod(name="p", containers=(written,)).needs(QUOTA)
    assert needs["requests.cpu"] == amount(requests_cpu)
    assert needs["requests.memory"] == amount(requests_memory)
    assert needs["limits.memory"] == amount(limits_memory)


def test_an_init_container_counts_only_where_it_is_larger_than_the_others_together() -> None:
    small, large = Container(requests={"cpu": amount("30m")}), Container(requests={"cpu": amount("100m")})
    assert cpu(Pod(name="p", containers=(small, small), init=(large,))) == amount("100m")
    assert cpu(Pod(name="p", containers=(large, small), init=(small,))) == amount("130m")


def test_a_request_above_the_limit_that_the_seat_gives_is_told() -> None:
    task = Task(name="t", pods=(Pod(name="train", containers=(Container(requests={"memory": amount("4Gi")}),)),))
    found = fit.judged(klass(), [chain(task)], [node()])
    assert [each.of for each in found.shortages] == ["limits"]
    assert "train asks for 4Gi memory, but its limit is 1Gi" in found.shortages[0].why


_names = [f"t{i}" for i in range(6)]


@given(
    st.lists(st.integers(0, 5), min_size=6, max_size=6),
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=9),
)
def test_the_widest_moment_is_the_heaviest_set_of_tasks_that_do_not_wait_for_each_other(
    weights: list[int], pairs: list[tuple[int, int]]
) -> None:
    before: dict[int, set[int]] = {i: {a for a, b in pairs if b == i and a < b} for i in range(6)}
    for i in range(6):
        before[i] |= {each for a in before[i] for each in before[a]}
    expected = max(
        sum(weights[i] for i in chosen)
        for size in range(1, 7)
        for chosen in combinations(range(6), size)
        if not any(a in before[b] for a in chosen for b in chosen)
    )
    tasks = [
        Task(name=_names[i], after=frozenset(_names[a] for a, b in pairs if b == i and a < b), pods=(pod(_names[i]),))
        for i in range(6)
    ]
    assert fit.widest(chain(*tasks), lambda each: Decimal(weights[_names.index(each.name)])) == expected


def test_of_the_sides_of_a_condition_one_counts_and_the_drivers_of_the_others() -> None:
    sides = tuple(
        Task(name=f"if{i}", pods=(pod("driver", cpu="1"),), within=(Task(name="body", pods=(pod("b", cpu=size),)),))
        for i, size in enumerate(("5", "3", "1"))
    )
    assert fit.widest(Task(name="branches", within=sides, exclusive=True), cpu) == 5 + 1 + 1


# What both labs are known to ask for; the numbers are worked out by hand from KFP's and Argo's sources.
def test_the_labs_own_pipelines_are_read_with_drivers_launchers_and_argos_containers(tmp_path: Path) -> None:
    found = {name: requests.pipelines(labs.load(name), tmp_path) for name in ("simple_pipeline", "taxi")}
    math, taxi = (requests.run(found[name][0], ARGO) for name in found)
    assert [len(each) for each in found.values()] == [1, 1]
    assert math[1] == taxi[1] == []
    assert [each.name for each in math[0].every_pod()] == [
        "math-pipeline, driver",
        "driver of add",
        "add",
        "driver of multiply",
        "multiply",
    ]
    need = fit.peaks(klass(), [math[0]])
    # One pod at a time: the driver's 100m and 10m of `wait`; 1Gi by default and 256Mi of `wait`.
    assert need["requests.cpu"].run == amount("110m")
    assert need["limits.memory"].run == amount("1280Mi")
    assert need["pods"].run == 1
    assert fit.peaks(klass(), [taxi[0]])["limits.memory"].run == amount("768Mi")
    assert len(list(tmp_path.iterdir())) == 2
    assert requests.pipelines(labs.load("taxi"), tmp_path) == found["taxi"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_loops_conditions_and_accelerators_of_a_pipeline_are_counted(tmp_path: Path) -> None:
    component: Any = dsl.component(base_image="class", install_kfp_package=False)

    @component
    def work(n: int) -> int:
        return n

    @dsl.pipeline(name="everything")
    def everything(n: int = 3):
        with dsl.ParallelFor([1, 2, 3, 4], parallelism=2) as item:
            heavy = work(n=item).set_cpu_request("1").set_memory_limit("2G")
            heavy.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(2)
        last = work(n=n).after(heavy)
        with dsl.If(last.output == 1):
            work(n=1).set_cpu_request("700m")
        with dsl.Else():
            work(n=2).set_cpu_request("300m")

    compiler.Compiler().compile(everything, str(tmp_path / "p.yaml"))
    task, unknown = requests.run(next(iter(yaml.safe_load_all((tmp_path / "p.yaml").read_text()))), ARGO)
    need = fit.peaks(klass(), [task])
    assert unknown == []
    assert need["requests.nvidia.com/gpu"].run == 4
    assert need["requests.cpu"].run == 2 * amount("1010m")
    assert need["limits.memory"].run == 2 * (amount("2G") + amount("256Mi"))


@pytest.mark.parametrize(("given_cpu", "fits"), [("210m", True), ("209m", False)])
def test_a_quota_one_unit_too_small_is_refused_by_name_and_number(given_cpu: str, fits: bool) -> None:
    # The notebook's 100m, and 110m of a driver with its `wait`; container_cpu so small that the class file loads.
    run = chain(Task(name="t", pods=(pod(cpu="110m"),)), name="math")
    quota = QUOTA.model_copy(update={"cpu": given_cpu, "container_cpu": "1m"})
    found = fit.judged(klass(quota=quota), [run], [node()])
    if fits:
        assert found.shortages == ()
        return
    (short,) = found.shortages
    assert (short.of, short.resource, short.missing, short.seats) == ("quota", "cpu", amount("1m"), ("s0", "s1"))
    said = str(fit.DoesNotFit(found))
    assert (
        "all 2 seats: the quota of 209m cpu does not hold the notebooks (100m) and the run math at its widest" in said
    )
    assert "1m missing; write quota.cpu: 210m or more" in said


def test_only_the_seat_with_the_override_is_named() -> None:
    shape = klass(students=3, overrides={"s1": {"quota": {"pods": 6}}})
    tasks = [Task(name=f"t{i}", pods=(pod(cpu="1m"),)) for i in range(8)]
    (short,) = fit.judged(shape, [chain(*tasks)], [node()]).shortages
    assert (short.resource, short.seats, short.missing) == ("pods", ("s1",), 3)


def test_notebooks_that_find_no_node_are_missed_and_runs_that_must_wait_are_only_told() -> None:
    tight = fit.judged(klass(students=3), [], [node(cpu="250m")])
    (short,) = tight.shortages
    assert (short.of, short.resource, short.seats) == ("cluster", "cpu", ("s2",))
    run = chain(Task(name="t", pods=(pod(cpu="300m"),)))
    roomy = fit.judged(klass(students=3), [run], [node(cpu="1")])
    assert roomy.shortages == ()
    assert roomy.runs_at_once == 2


def test_a_pod_that_no_node_can_hold_beside_the_notebooks_is_refused() -> None:
    run = chain(Task(name="t", pods=(pod(name="train", cpu="3"),)))
    (short,) = fit.judged(klass(), [run], [node(cpu="2"), node(name="m", cpu="2")]).shortages
    assert (short.of, short.resource, short.seats) == ("cluster", "cpu", ("s0", "s1"))
    assert "train asks for 3 cpu" in short.why


def test_labels_taints_and_gpus_of_nodes_are_looked_at() -> None:
    wants = NotebookSpec(
        name="nb",
        cpu="100m",
        memory="1Gi",
        gpu=Gpu(),
        node_selector={"pool": "gpu"},
        tolerations=(Toleration(key="nvidia.com/gpu", operator="Exists"),),
    )
    taint = ({"key": "nvidia.com/gpu", "effect": "NoSchedule"},)
    right = Node(
        name="g",
        free={"cpu": amount("4"), "memory": amount("8Gi"), "pods": Decimal(10), "nvidia.com/gpu": Decimal(1)},
        labels={"pool": "gpu"},
        taints=taint,
    )
    quota = QUOTA.model_copy(update={"memory": "32Gi"})
    found = fit.judged(klass(notebooks=(wants,), quota=quota), [], [node(), right])
    assert [(each.resource, each.seats, each.missing) for each in found.shortages] == [("nvidia.com/gpu", ("s1",), 1)]
    assert not right.takes(klass().notebooks[0])
    assert not node().takes(wants)


def test_pods_that_few_nodes_take_are_placed_before_those_that_any_node_takes() -> None:
    plain = NotebookSpec(name="plain", cpu="2", memory="1Gi")
    notebooks = (plain, plain.model_copy(update={"name": "picky", "gpu": Gpu()}))
    quota = QUOTA.model_copy(update={"cpu": "8"})
    room = [Node(name="a", free={**node(cpu="8").free, "nvidia.com/gpu": Decimal(4)}), node("b", cpu="8")]

    assert fit.judged(klass(students=4, notebooks=notebooks, quota=quota), [], room).shortages == ()
    # For a fifth seat's one there is no GPU, for its other no core.
    found = fit.judged(klass(students=5, notebooks=notebooks, quota=quota), [], room).shortages
    short = [(each.of, each.resource, each.seats, each.missing) for each in found]
    assert short == [("cluster", "nvidia.com/gpu", ("s4",), 1), ("cluster", "cpu", ("s4",), 2)]


def test_a_run_with_a_gpu_needs_a_quota_of_one_where_no_notebook_has_any() -> None:
    gpu = Container(limits={"nvidia.com/gpu": Decimal(1)})
    run = chain(Task(name="t", pods=(Pod(name="train", containers=(gpu,)),)))
    (short,) = fit.judged(klass(), [run], None).shortages
    assert (short.of, short.resource, short.missing) == ("quota", "nvidia.com/gpu", 1)
    assert short.mend == "write quota.gpus: 1 or more"
    quota = QUOTA.model_copy(update={"gpus": 1})
    assert fit.judged(klass(quota=quota), [run], None).shortages == ()


@pytest.mark.parametrize(("most", "row"), [("4", ("600m", "1")), ("2200m", ("2500m", "[red]2200m[/]"))])
def test_a_peak_is_held_against_the_quota_of_its_own_seat_and_red_where_that_is_short(
    most: str, row: tuple[str, str]
) -> None:
    large = {"notebooks": {"nb": {"cpu": "2"}}, "quota": {"cpu": most}}
    shape = klass(quota=QUOTA.model_copy(update={"cpu": "1"}), overrides={"s1": large})
    found = fit.judged(shape, [chain(Task(name="t", pods=(pod(cpu="500m"),)))], [node()])

    table = fit_table(found).renderables[0]
    assert isinstance(table, Table)
    rows = list(zip(*(column.cells for column in table.columns), strict=True))
    assert [each[1:3] for each in rows if each[0] == "requests.cpu"] == [row]
    assert sum("red" in str(cell) for each in rows for cell in each) == len(found.shortages)


def test_a_notebook_in_istios_mesh_counts_with_its_sidecar() -> None:
    sidecar = fit.sidecar('{"global": {"proxy": {"resources": {"requests": {"cpu": "150m", "memory": "64Mi"}}}}}')
    plain, meshed = (fit.peaks(klass(), [], each) for each in (None, sidecar))
    assert meshed["requests.cpu"].notebooks - plain["requests.cpu"].notebooks == amount("150m")
    # Without a limit of its own it gets the one of the seat's LimitRange.
    assert meshed["limits.memory"].notebooks - plain["limits.memory"].notebooks == amount("1Gi")
    (short,) = fit.judged(klass(), [], [node(cpu="400m")], sidecar=sidecar).shortages
    assert (short.of, short.resource, short.seats) == ("cluster", "cpu", ("s1",))
    assert fit.judged(klass(), [], [node(cpu="400m")]).shortages == ()
    # Istio's own sizes, where the injector's are not told as they should be.
    for written in ("{}", "", "global: {}", '{"global": null}'):
        assert fit.sidecar(written).limits["memory"] == amount("1Gi")


def test_nodes_are_left_with_what_others_do_not_hold() -> None:
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    items: list[dict[str, Any]] = [
        {
            "metadata": {"name": name},
            "spec": {"unschedulable": True} if name == "cordoned" else {},
            "status": {**ready, "allocatable": {"cpu": "2", "memory": "4Gi", "pods": "110"}},
        }
        for name in ("a", "cordoned")
    ]

    def item(namespace: str, phase: str, **more: Any) -> dict[str, Any]:
        container = {"resources": {"requests": {"cpu": "500m"}}}
        spec = {"nodeName": "a", "containers": [container], **more}
        return {"metadata": {"namespace": namespace}, "spec": spec, "status": {"phase": phase}}

    sidecar = {"restartPolicy": "Always", "resources": {"requests": {"cpu": "100m"}}}
    pods = [
        item("others", "Running", initContainers=[sidecar]),
        item("others", "Succeeded"),
        item("fit-s0", "Running"),
    ]
    (left,) = fit.nodes(items, pods, frozenset({"fit-s0"}))
    assert (left.name, left.free["cpu"], left.free["pods"]) == ("a", amount("1400m"), 109)


def test_a_lab_that_cannot_be_compiled_is_told_and_not_taken_for_one_that_asks_for_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "lab.yaml").write_text(
        "name: broken\ntitle: {en: b}\nnotebook: {source: b.py, server: nb}\n"
        "steps: [{id: a, title: {en: a}, does: cell, cell: a, checks: [{kind: cell}]}]\n"
    )
    (folder / "b.py").write_text('# %% tags=["a"]\nraise ValueError("no such thing")\n')
    with pytest.raises(requests.Uncompiled, match="no such thing"):
        requests.pipelines(labs.load("broken", tmp_path))


def test_nodes_that_let_nothing_of_the_class_in_are_no_room_for_it() -> None:
    kept = node(name="kept", cpu="64", taints=({"key": "kept", "effect": "NoSchedule"},))
    found = fit.judged(klass(), [], [node(cpu="2"), kept])
    assert next(row.cluster for row in found.rows if row.resource == "requests.cpu") == 2
