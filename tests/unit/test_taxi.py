"""The taxi lab without a cluster: its data, its notebook, and the pipeline that its cells make."""

import csv
import io
import json
import statistics
import sys
import types
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from labs.runner import lab as labs
from labs.runner.checks import Number
from labs.taxi import fares

LAB = labs.load("taxi")
ALLOWANCE = 1.15
"""The lab's RMSE may be 15 % above what no model gets below."""


def table(rows: int = fares.ROWS) -> list[dict[str, str]]:
    text = io.StringIO()
    fares.write(text, rows)
    return list(csv.DictReader(io.StringIO(text.getvalue())))


def test_the_rides_are_the_same_bytes_each_time_they_are_printed() -> None:
    printed = labs.content(LAB, LAB.data[0])
    text = io.StringIO()
    fares.write(text)
    assert printed == text.getvalue().encode()
    assert len(printed) < 2_000_000


def test_the_table_has_the_columns_of_the_public_set_and_sensible_rides() -> None:
    rides = table()
    assert len(rides) == fares.ROWS
    assert tuple(rides[0]) == fares.COLUMNS
    for ride in rides:
        assert 0 < float(ride["fare_amount"]) < 100
        assert -75 < float(ride["pickup_longitude"]) < -73
        assert -75 < float(ride["dropoff_longitude"]) < -73
        assert 40 < float(ride["pickup_latitude"]) < 42
        assert 40 < float(ride["dropoff_latitude"]) < 42
        assert 1 <= int(ride["passenger_count"]) <= 6


def test_no_model_is_wrong_by_less_than_the_noise_that_the_lab_allows_for() -> None:
    noise = []
    for ride in table():
        local = datetime.strptime(ride["pickup_datetime"], "%Y-%m-%d %H:%M:%S UTC") - timedelta(hours=4)
        ends = (f"{end}_{axis}" for end in ("pickup", "dropoff") for axis in ("longitude", "latitude"))
        kilometers = fares.distance_kilometers(*(float(ride[end]) for end in ends))
        noise.append(float(ride["fare_amount"]) - fares.expected_dollars(kilometers, local))
    assert statistics.mean(noise) == pytest.approx(0, abs=0.02)
    assert statistics.pstdev(noise) == pytest.approx(fares.NOISE_DOLLARS, rel=0.02)
    bounds = [check for step in LAB.steps for check in step.checks if isinstance(check, Number)]
    assert [check.at_most for check in bounds if check.parameter == "rmse"] == [ALLOWANCE * fares.NOISE_DOLLARS]


@pytest.mark.parametrize(
    ("moment", "dearer_by"),
    [
        (datetime(2010, 4, 7, 22), 0.50),  # at night
        (datetime(2010, 4, 7, 17), 1.00),  # in the rush hour
        (datetime(2010, 4, 10, 17), 0.00),  # at the weekend
    ],
)
def test_a_ride_costs_more_at_night_and_in_the_rush_hour(moment: datetime, dearer_by: float) -> None:
    assert fares.expected_dollars(0, moment) == pytest.approx(2.50 + dearer_by)
    assert fares.expected_dollars(2, moment) > fares.expected_dollars(1, moment)


def test_a_degree_of_latitude_is_a_known_distance() -> None:
    assert fares.distance_kilometers(-74, 40, -74, 41) == pytest.approx(111.19, abs=0.01)


@pytest.mark.parametrize("language", ["en", "ko"])
def test_the_notebook_knows_the_student_and_no_password(language: labs.Language) -> None:
    notebook = labs.render(LAB, host="https://h/", email="alice@example.org", image="class:1", language=language)
    text = json.dumps(notebook, ensure_ascii=False)
    assert "alice@example.org" in text
    assert "class:1" in text
    assert ("요금" in text) == (language == "ko")
    assert ("What does a taxi ride" in text) == (language == "en")
    assigned = [line for line in "\n".join(labs.sources(notebook)).splitlines() if "KUBEFLOW_PASSWORD =" in line]
    assert assigned == ['KUBEFLOW_PASSWORD = os.environ.get("KUBEFLOW_PASSWORD") or getpass("KUBEFLOW_PASSWORD: ")']


class Client:
    """Takes what the last cell submits."""

    def __init__(self) -> None:
        self.submitted: dict[str, Any] = {}

    def create_run_from_pipeline_package(self, package: str, **given: Any) -> None:
        self.submitted = {"package": package, **given}


def run_notebook(folder: Path, monkeypatch: pytest.MonkeyPatch, **constants: str) -> Client:
    """Run every cell in `folder`, with constants of the environment cell set otherwise."""
    client = Client()
    login = types.ModuleType("kubeflow_login")
    login.kubeflow_client = lambda *_: client  # type: ignore[attr-defined]  # it is our module
    monkeypatch.setitem(sys.modules, "kubeflow_login", login)
    monkeypatch.setenv("CLASS_BUCKET", "demo-alice")
    monkeypatch.setenv("KUBEFLOW_PASSWORD", "secret")
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {"__name__": "notebook"}
    notebook = labs.render(LAB, host="https://h/", email="alice@example.org", image="class:1")
    for number, source in enumerate(labs.sources(notebook)):
        for name, value in constants.items():
            source = source.replace(f'{name} = ""', f'{name} = "{value}"')
        # The SDK reads a component's source from its file.
        cell = folder / f"cell{number}.py"
        cell.write_text(source)
        exec(compile(source, cell, "exec"), names)  # noqa: S102  # our own lesson
    return client


def pipeline(folder: Path, client: Client) -> dict[str, Any]:
    return next(iter(yaml.safe_load_all((folder / client.submitted["package"]).read_text())))


def executors(spec: dict[str, Any]) -> dict[str, Any]:
    return spec["deploymentSpec"]["executors"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_the_cells_compile_to_a_pipeline_that_needs_no_internet_and_fits_a_seat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = run_notebook(tmp_path, monkeypatch)
    assert client.submitted["run_name"] == "nyc_taxi_pytorch_pipeline_w_cpu run"
    spec = pipeline(tmp_path, client)
    assert set(spec["root"]["dag"]["tasks"]) == {
        "importer",
        "nyc-taxi-fare-dataset",
        "train-pytorch-tabular-model",
        "evaluate-pytorch-tabular-model",
    }
    imported = executors(spec).pop("exec-importer")["importer"]
    assert imported["artifactUri"] == {"constant": "s3://demo-alice/data/nyc_taxi_fares.csv"}
    assert LAB.data[0].object == "data/nyc_taxi_fares.csv"
    for executor in executors(spec).values():
        container = executor["container"]
        assert container["image"] == "class:1"
        assert "pip install" not in json.dumps(container)
        assert container["resources"] == {
            "cpuRequest": 0.1,
            "cpuLimit": 1.0,
            "memoryRequest": 0.268435456,
            "memoryLimit": 0.536870912,
            "resourceCpuRequest": "100m",
            "resourceCpuLimit": "1",
            "resourceMemoryRequest": "256Mi",
            "resourceMemoryLimit": "512Mi",
        }
    assert "secret" not in (tmp_path / client.submitted["package"]).read_text()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_an_accelerator_is_asked_for_by_the_training_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = run_notebook(tmp_path, monkeypatch, ACCELERATOR="nvidia.com/gpu")
    assert client.submitted["run_name"] == "nyc_taxi_pytorch_pipeline_w_gpu run"
    asking = {
        name: executor["container"]["resources"]["accelerator"]
        for name, executor in executors(pipeline(tmp_path, client)).items()
        if "accelerator" in executor.get("container", {}).get("resources", {})
    }
    assert list(asking) == ["exec-train-pytorch-tabular-model"]
    assert asking["exec-train-pytorch-tabular-model"]["resourceType"] == "nvidia.com/gpu"
    assert asking["exec-train-pytorch-tabular-model"]["resourceCount"] == "1"


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_url_is_one_setting_and_reaches_the_component(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = run_notebook(tmp_path, monkeypatch, DATA_URL="https://example.org/train.csv")
    spec = pipeline(tmp_path, client)
    given = spec["root"]["dag"]["tasks"]["nyc-taxi-fare-dataset"]["inputs"]["parameters"]
    assert given["url"] == {"runtimeValue": {"constant": "https://example.org/train.csv"}}
