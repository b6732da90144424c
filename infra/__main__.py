"""The program that plain `pulumi up` runs: the class that the setting `classroom:file` names, on the Kubeflow it names.

pulumi config set classroom:file labs/classes/demo.yaml
"""

import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
# Pulumi puts this folder first on the path, where `platform` would hide Python's own module of that name.
sys.path[:] = [str(_ROOT), *(entry for entry in sys.path if Path(entry or ".").resolve() != _ROOT / "infra")]

import pulumi  # noqa: E402  # the path had to be set right first

from infra.classroom import program, refuse_taken  # noqa: E402  # the same
from infra.spec import OneMachine, Platform, load  # noqa: E402  # the same


def _reached(choice: OneMachine | Platform) -> Platform:
    if isinstance(choice, Platform):
        return choice
    from infra.local import platform

    return platform.reached()


_file = Path(pulumi.Config("classroom").require("file"))
_spec = load(_file if _file.is_absolute() else _ROOT / _file)
_platform = _reached(_spec.platform)
refuse_taken(_spec, _platform)
program(_spec, _platform)()
