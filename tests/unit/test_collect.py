"""What a lab left is looked at with few calls and becomes facts without secrets; what does not answer, a gap."""

from dataclasses import dataclass, field
from typing import Any

import pytest
import yaml

from infra.cluster import ClusterUnreachable
from labs.runner import lab as labs
from labs.runner.clients import mlmd
from labs.runner.clients.cluster import BucketUnreadableError
from labs.runner.clients.session import NoAnswerError
from labs.runner.collect import LOG_BYTES, Collector, Started, Uploaded, why
from labs.runner.facts import RunFacts

NAMESPACE = "demo-alice"
RUN, OTHER = "5f0c9a1e-0f5b-4a57-9a0e-2f6d3a1b7c11", "7a1e0c52-2f0e-4a8b-b3a9-0d6f1c2e3b4a"
POD = "math-pipeline-x-system-container-impl-1"
ROOT = f"artifacts/math-pipeline/{RUN}"
LOG_KEY = f"{ROOT}/add/1b/executor-logs"
SPEC = {
    "pipelineInfo": {"name": "math-pipeline"},
    "root": {"dag": {"tasks": {"add": {}, "multiply": {"dependentTasks": ["add"]}}}},
}
TOLD: dict[str, Any] = {
    "run_id": RUN,
    "display_name": "math_pipeline run",
    "experiment_id": "e1",
    "state": "SUCCEEDED",
    "created_at": "2026-01-01T10:00:00Z",
    "finished_at": "2026-01-01T10:00:28Z",
    "service_account": "default-editor",
    "runtime_config": {"parameters": {"a": 1}},
    "pipeline_spec": {"pipeline_spec": SPEC, "platform_spec": {}},
    "run_details": {
        "task_details": [
            {"task_id": "t0", "display_name": "add-driver", "start_time": "2026-01-01T10:00:01Z"},
            {
                "task_id": "t1",
                "display_name": "add",
                "start_time": "2026-01-01T10:00:05Z",
                "end_time": "2026-01-01T10:00:11Z",
            },
            {"task_id": "t2", "display_name": "multiply", "end_time": "1970-01-01T00:00:00Z"},
        ]
    },
}
POD_SEEN: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": POD, "namespace": NAMESPACE, "managedFields": [{"manager": "kubelet"}]},
    "spec": {
        "serviceAccountName": "default-editor",
        "volumes": [{"name": "scratch", "emptyDir": {}}, {"name": "key", "secret": {"secretName": "k"}}],
        "initContainers": [{"name": "kfp-launcher"}],
        "containers": [
            {
                "name": "main",
                "image": "localhost/notebook:1",
                "env": [
                    {"name": "STORE_SECRET_KEY", "value": "swordfish"},
                    {"name": "ARGO_TEMPLATE", "value": "x" * 5_000},
                    {"name": "KFP_POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                ],
                "args": ["correct horse"],
            },
        ],
    },
    "status": {"phase": "Succeeded", "containerStatuses": [{"name": "main", "volumeMounts": [{"name": "scratch"}]}]},
}
DRIVER = {**POD_SEEN, "metadata": {"name": "x-driver"}, "spec": {"containers": [{"name": "main"}]}}


@dataclass(kw_only=True)
class Platform:
    """KFP's API, the cluster and ML Metadata in one, of one run. `down` are the sources that do not answer."""

    down: dict[str, Exception] = field(default_factory=dict)
    told: dict[str, dict[str, Any]] = field(default_factory=lambda: {RUN: TOLD})
    there: list[dict[str, Any]] = field(default_factory=lambda: [POD_SEEN, DRIVER])
    keys: list[tuple[str, int]] = field(default_factory=lambda: [(LOG_KEY, 30_000), ("artifacts/other-run/x", 1)])
    printed: str = "loaded\n"
    stored: str = "from the bucket"
    asked: list[str] = field(default_factory=list)

    def _ask(self, source: str, what: str) -> None:
        self.asked.append(what)
        if source in self.down:
            raise self.down[source]

    def experiments(self) -> list[dict[str, Any]]:
        self._ask("api", "experiments")
        return [{"experiment_id": "e1", "display_name": "test experiment", "namespace": NAMESPACE}]

    def runs(self, *, experiment_id: str) -> list[dict[str, Any]]:
        self._ask("api", f"runs of {experiment_id}")
        return list(self.told.values())

    def run_(self, run_id: str) -> dict[str, Any]:
        self._ask("api", f"run {run_id}")
        return self.told.get(run_id, {})

    def pipeline(self, pipeline_id: str) -> dict[str, Any]:
        self._ask("api", "pipeline")
        return {"display_name": "second", "description": "again", "name": "marked"} if pipeline_id == "p1" else {}

    def version(self, pipeline_id: str, _: str) -> dict[str, Any]:
        self._ask("api", "version")
        return {"pipeline_spec": SPEC} if pipeline_id == "p1" else {}

    def log(self, _: str, pod: str) -> str:
        self._ask("logs", f"log of {pod}")
        return self.printed

    def workflow(self, _: str, __: str) -> dict[str, Any]:
        self._ask("kubernetes", "workflow")
        return {"metadata": {"name": "math-pipeline-x", "namespace": NAMESPACE}}

    def pods(self, _: str, run_ids: tuple[str, ...]) -> list[dict[str, Any]]:
        self._ask("kubernetes", f"pods of {len(run_ids)} runs")
        return self.there

    def objects(self, _: str, __: str, prefix: str) -> list[tuple[str, int]]:
        self._ask("bucket", f"objects below {prefix}")
        return self.keys

    def tails(self, _: str, __: str, objects: dict[str, int], most_bytes: int) -> dict[str, str]:
        self._ask("bucket", f"the end of {len(objects)} objects")
        return dict.fromkeys(objects, self.stored[-most_bytes:])

    def metadata(self, *_: str) -> "Metadata":
        return Metadata(self)


@dataclass
class Metadata:
    """ML Metadata of that platform: of the run's two tasks, one was done."""

    of: Platform

    def pipeline_root(self, _: str) -> str:
        self.of._ask("mlmd", "root")
        return f"s3://{NAMESPACE}/{ROOT}"

    def run(self, _: str) -> tuple[list[mlmd.Execution], list[mlmd.Artifact], list[mlmd.Event]]:
        self.of._ask("mlmd", "run")
        named = {"task_name": mlmd.Value(string_value="add"), "pod_name": mlmd.Value(string_value=POD)}
        add = mlmd.Execution(id=12, last_known_state=3, custom_properties=named, type_="system.ContainerExecution")
        made = [("executor-logs", LOG_KEY), ("model", f"{ROOT}/add/1b/model"), ("lost", "lost")]
        artifacts = [
            mlmd.Artifact(id=n, name=name, uri=f"s3://{NAMESPACE}/{key}") for n, (name, key) in enumerate(made, 1)
        ]
        return [add], artifacts, [mlmd.Event(artifact_id=n, execution_id=12, type_=4) for n in (1, 2, 3)]


class _Api:
    """The platform as `Pipelines`, whose `run` is another than ML Metadata's."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    def __getattr__(self, name: str) -> Any:
        return getattr(self._platform, "run_" if name == "run" else name)


def collector(platform: Platform) -> Collector:
    return Collector(
        lab=labs.load("simple_pipeline"),
        namespace=NAMESPACE,
        bucket=NAMESPACE,
        pipelines=_Api(platform),  # type: ignore[arg-type]  it has the methods that are called
        cluster=platform,  # type: ignore[arg-type]  the same
        clean=lambda text: text.replace("correct horse", "•••"),
    )


def left(platform: Platform, *run_ids: str, uploaded: tuple[Uploaded, ...] = ()) -> dict[str, Any]:
    runs = (Started(step=f"2-{n}", run_id=run_id, seconds=28.0) for n, run_id in enumerate(run_ids or (RUN,), 1))
    return collector(platform).left(runs, iter(uploaded))


def test_a_run_is_told_with_its_tasks_pods_logs_and_objects() -> None:
    platform = Platform(keys=[*Platform().keys, (f"{ROOT}/add/1b/model/weights", 40), (f"{ROOT}/add/1b/model/n", 2)])
    found = left(platform)
    (run,) = found["runs"]
    add, multiply = run.tasks

    assert found["gaps"] == {}
    assert found["experiments"] == ("test experiment",)
    assert (run.name, run.state, run.listed, run.experiment) == (
        "math_pipeline run",
        "SUCCEEDED",
        True,
        "test experiment",
    )
    assert (run.created, run.finished) == ("2026-01-01T10:00:00Z", "2026-01-01T10:00:28Z")
    assert (run.service_account, run.pipeline_root) == ("default-editor", f"s3://{NAMESPACE}/{ROOT}")
    assert (run.pipeline_id, run.version_id, run.pipeline_name) == ("", "", "math-pipeline")
    assert yaml.safe_load(run.pipeline_yaml) == TOLD["pipeline_spec"]
    assert (add.id, add.started, add.finished) == ("t1", "2026-01-01T10:00:05Z", "2026-01-01T10:00:11Z")
    assert (add.execution, add.state, add.log, add.log_from) == (12, "COMPLETE", "loaded\n", "pod")
    assert [artifact.bytes for artifact in add.artifacts] == [30_000, 42, None]
    assert (multiply.id, multiply.after, multiply.finished, multiply.state) == ("t2", ("add",), "", "")
    assert (multiply.seen_pod, multiply.log) == (None, None)
    assert [item.key for item in found["objects"]] == [key for key, _ in platform.keys if RUN in key]


def test_a_pod_is_told_without_secrets_and_without_what_would_fill_pages() -> None:
    pod = left(Platform())["runs"][0].tasks[0].seen_pod
    manifest = yaml.safe_load(pod.manifest)

    assert (pod.name, pod.phase, pod.image, pod.service_account) == (
        POD,
        "Succeeded",
        "localhost/notebook:1",
        "default-editor",
    )
    assert pod.volumes == ("scratch (emptyDir)", "key (secret)")
    assert (manifest["kind"], manifest["metadata"]) == ("Pod", {"name": POD, "namespace": NAMESPACE})
    assert "swordfish" not in pod.manifest
    assert "correct horse" not in pod.manifest
    assert len(pod.manifest) < 2_000
    assert manifest["spec"]["containers"][0]["env"][2]["valueFrom"]
    assert manifest["status"]["containerStatuses"] == [{"name": "main"}]


def test_two_runs_cost_one_look_at_the_pods_one_at_the_bucket_and_one_at_the_list() -> None:
    platform = Platform(told={RUN: TOLD, OTHER: {**TOLD, "run_id": OTHER}})
    left(platform, RUN, OTHER)
    assert platform.asked.count("pods of 2 runs") == 1
    assert platform.asked.count("objects below artifacts/") == 1
    assert platform.asked.count("runs of e1") == 1
    assert len(platform.asked) <= 14


def test_a_run_of_an_uploaded_pipeline_is_told_with_that_pipelines_graph_which_is_asked_for_once() -> None:
    reference = {"pipeline_id": "p1", "pipeline_version_id": "v1"}
    told = {key: value for key, value in TOLD.items() if key != "pipeline_spec"}
    platform = Platform(told={RUN: {**told, "pipeline_version_reference": reference}})
    found = left(platform, uploaded=(Uploaded(step="3-2/3-3", pipeline_id="p1", version_id="v1"),))
    (pipeline,), (run,) = found["pipelines"], found["runs"]

    assert (pipeline.made_by, pipeline.name, pipeline.description) == ("3-2/3-3", "second", "again")
    assert pipeline.graph == {"add": (), "multiply": ("add",)}
    assert yaml.safe_load(pipeline.yaml) == SPEC
    assert (run.pipeline_id, run.version_id) == ("p1", "v1")
    assert [task.name for task in run.tasks] == ["add", "multiply"]
    assert platform.asked.count("version") == 1


def test_what_was_deleted_is_told_as_nothing_and_is_no_gap() -> None:
    found = left(Platform(told={}), uploaded=(Uploaded(step="3-2", pipeline_id="gone", version_id="v1"),))
    assert found["gaps"] == {}
    assert (found["pipelines"][0].name, found["runs"][0].state, found["runs"][0].listed) == ("", "", False)


def test_the_log_of_a_pod_that_is_gone_comes_from_the_bucket() -> None:
    add = left(Platform(there=[]))["runs"][0].tasks[0]
    assert (add.log, add.log_from, add.seen_pod) == ("from the bucket", "bucket", None)


@pytest.mark.parametrize("change", [{"printed": ""}, {"down": {"logs": NoAnswerError("gone")}}])
def test_the_log_of_a_pod_that_shows_none_comes_from_the_bucket_and_is_no_gap(change: dict[str, Any]) -> None:
    found = left(Platform(**change))
    assert found["runs"][0].tasks[0].log == "from the bucket"
    assert found["gaps"] == {}


def test_of_a_long_log_the_end_is_kept_and_secrets_are_taken_out() -> None:
    log = left(Platform(printed=f"{'.' * 2 * LOG_BYTES}correct horse\nlast words"))["runs"][0].tasks[0].log
    assert log.endswith("•••\nlast words")
    assert len(log) <= LOG_BYTES


@pytest.mark.parametrize("where", ["pod", "bucket"])
def test_no_end_of_a_secret_is_left_where_a_log_is_cut(where: str) -> None:
    # Eight characters of "correct horse" lie within the end that is kept.
    log = f"{'.' * LOG_BYTES}correct horse{'.' * (LOG_BYTES - 8)}"
    platform = Platform(printed=log) if where == "pod" else Platform(there=[], stored=log)
    add = left(platform)["runs"][0].tasks[0]
    assert (add.log_from, "horse" in add.log) == (where, False)
    assert len(add.log) <= LOG_BYTES


def test_no_beginning_of_a_secret_is_left_where_a_pods_values_are_cut() -> None:
    main = {**POD_SEEN["spec"]["containers"][0]}
    main["env"] = [{"name": "ARGO_TEMPLATE", "value": f"{'.' * 92}correct horse"}]
    main["args"] = [f"{'.' * 1_492}correct horse"]
    pod = {**POD_SEEN, "spec": {**POD_SEEN["spec"], "containers": [main]}}
    seen = left(Platform(there=[pod]))["runs"][0].tasks[0].seen_pod
    assert "correct" not in seen.manifest
    assert "•••" in seen.manifest


def test_pods_that_were_seen_before_they_went_are_remembered() -> None:
    platform = Platform()
    looking = collector(platform)
    looking.look_at_pods(RUN)
    platform.there = []
    add = looking.left([Started(step="2-1", run_id=RUN)])["runs"][0].tasks[0]
    assert add.seen_pod is not None
    assert (add.seen_pod.name, add.log_from) == (POD, "bucket")


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("api", NoAnswerError("/runs did not answer")),
        ("kubernetes", ClusterUnreachable("the Kubernetes API does not answer")),
        ("mlmd", mlmd.MetadataError(14, "unavailable")),
        ("bucket", BucketUnreadableError("the key correct horse was refused")),
    ],
)
def test_a_source_that_does_not_answer_is_a_gap_and_the_others_are_asked(source: Any, error: Exception) -> None:
    platform = Platform(down={source: error})
    found = left(platform, RUN, OTHER, uploaded=(Uploaded(step="3-2", pipeline_id="p1", version_id="v1"),))
    assert found["gaps"] == {source: str(error).replace("correct horse", "•••")}
    assert [type(run) for run in found["runs"]] == [RunFacts, RunFacts]
    assert bool(found["experiments"]) == (source != "api")
    assert bool(found["objects"]) == (source != "bucket")


def test_a_source_that_did_not_answer_is_not_asked_again() -> None:
    sources = ("api", "kubernetes", "mlmd", "bucket")
    platform = Platform(down=dict.fromkeys(sources, NoAnswerError("down")))
    found = left(platform, RUN, OTHER, uploaded=(Uploaded(step="3-2", pipeline_id="p1", version_id="v1"),))
    assert found["gaps"] == dict.fromkeys(sources, "down")
    assert platform.asked == ["experiments", "pods of 2 runs", "objects below artifacts/", "root"]


def test_the_tasks_of_a_run_are_known_though_nothing_was_recorded() -> None:
    found = left(Platform(down={"mlmd": mlmd.MetadataError(14, "unavailable")}))
    assert [(task.name, task.execution) for task in found["runs"][0].tasks] == [("add", 0), ("multiply", 0)]


def test_without_a_run_nobody_looks_at_pods() -> None:
    platform = Platform()
    found = collector(platform).left([])
    assert (found["runs"], found["pipelines"]) == ((), ())
    assert not [what for what in platform.asked if what.startswith("pods")]


def test_a_run_that_failed_says_what_its_failed_pod_said_last() -> None:
    driver = {
        **DRIVER,
        "metadata": {"name": "x-driver", "labels": {"pipeline/runid": RUN}},
        "status": {"phase": "Failed"},
    }
    failed = {**TOLD, "state": "FAILED"}
    said = 'starting\nno way to correct horse\n{"argo":true,"msg":"sub-process exited"}\n'
    (run,) = left(Platform(told={RUN: failed}, there=[driver], printed=said), RUN)["runs"]

    assert run.error == "pod x-driver: no way to •••"


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        (
            "I1124 15:05:16.548738 14 main.go:86] starts\n"
            "F1124 15:05:26.840208 14 main.go:104] driver: PermissionDenied\n"
            'time="2026-11-24T15:05:27Z" level=info msg="sub-process exited"\nError: exit status 1\n',
            "F1124 15:05:26.840208 14 main.go:104] driver: PermissionDenied",
        ),
        ("panic: no answer\n\ngoroutine 1 [running]:\nmain.main()\nError: exit status 2\n", "panic: no answer"),
        ("Traceback:\nValueError: no rows\nError: exit status 1\n", "ValueError: no rows"),
        ("Error: exit status 1\n", ""),
    ],
)
def test_a_failed_pod_is_quoted_with_what_ended_it(log: str, reason: str) -> None:
    assert why(log) == reason
