"""The program of plain `pulumi up`: the class that the setting `classroom:file` names, on the Kubeflow that it names.

pulumi config set classroom:file labs/classes/demo.yaml
"""

from pathlib import Path

import pulumi

from infra.classroom import program, refuse_taken
from infra.spec import OneMachine, Platform, load

_ROOT = Path(__file__).resolve().parent.parent


def _reached(choice: OneMachine | Platform) -> Platform:
    if isinstance(choice, Platform):
        return choice
    # Only a class on this machine needs to know how this machine's Kubeflow is reached.
    from infra import one_machine

    return one_machine.reached()


_file = Path(pulumi.Config("classroom").require("file"))
_spec = load(_file if _file.is_absolute() else _ROOT / _file)
_platform = _reached(_spec.platform)
refuse_taken(_spec, _platform)
program(_spec, _platform)()
