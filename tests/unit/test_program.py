"""The program of plain `pulumi up` refuses what `scripts/classroom up` refuses."""

import runpy
from pathlib import Path
from typing import Any

import pulumi
import pytest

from infra import access, classroom, one_machine
from infra.spec import Platform

_PROGRAM = Path(__file__).parents[2] / "__main__.py"


def test_plain_pulumi_makes_nothing_where_the_gateway_is_not_ready(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []

    def unready(*_: Any) -> None:
        raise access.Unready("the gateway is not ready")

    monkeypatch.setattr(pulumi.Config, "require", lambda *_: "labs/classes/demo.yaml")
    monkeypatch.setattr(one_machine, "platform_of", lambda _: platform)
    monkeypatch.setattr(access, "refuse_unready", unready)
    monkeypatch.setattr(classroom, "refuse_taken", lambda *_: None)
    monkeypatch.setattr(classroom, "program", lambda *_: lambda: made.append("class"))
    with pytest.raises(access.Unready):
        runpy.run_path(str(_PROGRAM))
    assert made == []
