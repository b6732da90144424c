"""Pipelines that use what the two labs do not: together, most of what KFP v2 can express.

Each component fails its task when what reached it is not what the pipeline promises, so a SUCCEEDED run is the proof.
"""

# KFP reads annotations and component bodies as source: imports stand inside, types stay as written.
from typing import Any

from kfp import dsl
from kfp.dsl import Dataset, Input, Metrics, Model, Output


def everything_succeeds(image: str) -> Any:
    """A pipeline with a loop and its collected results, both sides of a condition, artifacts between tasks, and a
    nested pipeline. `image` holds Python and kfp."""
    component: Any = dsl.component(base_image=image, install_kfp_package=False)

    @component
    def double(number: int) -> int:
        return 2 * number

    @component
    def check_total(numbers: list, expected: int) -> int:
        assert sum(numbers) == expected, f"{numbers} do not add up to {expected}"
        return sum(numbers)

    @component
    def write_rows(rows: int, table: Output[Dataset]):
        from pathlib import Path

        Path(table.path).write_text("\n".join(f"{row},{3 * row}" for row in range(1, rows + 1)))

    @component
    def fit_slope(table: Input[Dataset], slope: Output[Model], metrics: Output[Metrics]):
        import json
        from pathlib import Path

        pairs = [tuple(map(float, line.split(","))) for line in Path(table.path).read_text().splitlines()]
        fitted = sum(x * y for x, y in pairs) / sum(x * x for x, _ in pairs)
        Path(slope.path).write_text(json.dumps(fitted))
        metrics.log_metric("rows", len(pairs))

    @component
    def predict(slope: Input[Model], number: float) -> float:
        import json
        from pathlib import Path

        return json.loads(Path(slope.path).read_text()) * number

    @component
    def check_prediction(seen: float, expected: float) -> str:
        assert abs(seen - expected) < 1e-6, f"predicted {seen}, not {expected}"
        return "taken"

    @component
    def must_not_run() -> str:
        raise AssertionError("the other side of the condition ran")

    @dsl.pipeline(name="fit-and-predict")
    def fit_and_predict(rows: int, number: float) -> float:
        table = write_rows(rows=rows).set_caching_options(False)
        fitted = fit_slope(table=table.outputs["table"]).set_caching_options(False)
        return predict(slope=fitted.outputs["slope"], number=number).set_caching_options(False).output

    @dsl.pipeline(name="everything-succeeds")
    def pipeline() -> None:
        with dsl.ParallelFor(items=[1, 2, 3]) as number:
            # The SDK's switch for a whole run does not reach into loops and nested pipelines.
            doubled = double(number=number).set_caching_options(False)
        check_total(numbers=dsl.Collected(doubled.output), expected=12)
        predicted = fit_and_predict(rows=4, number=5.0)
        with dsl.If(predicted.output > 10.0):
            check_prediction(seen=predicted.output, expected=15.0).set_caching_options(False)
        with dsl.Else():
            must_not_run()

    return pipeline


def something_fails(image: str) -> Any:
    """A pipeline whose one task fails at its first try and at its retry, inside an exit handler that must still run."""
    component: Any = dsl.component(base_image=image, install_kfp_package=False)

    @component
    def fail() -> str:
        raise RuntimeError("fails on purpose")

    @component
    def say_goodbye(status: dsl.PipelineTaskFinalStatus):
        assert status.state == "FAILED", f"the exit handler was told {status.state}"

    @dsl.pipeline(name="something-fails")
    def pipeline() -> None:
        with dsl.ExitHandler(say_goodbye()):
            fail().set_retry(num_retries=1, backoff_duration="1s")

    return pipeline
