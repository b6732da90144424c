"""The program of plain `pulumi up`: the class that the setting `classroom:file` names, on the Kubeflow that it names.

It stands in the root because Pulumi's Python processes begin where it stands: begun in infra/, they would take the
folder `platform` for Python's own module of that name.
"""

from pathlib import Path

import pulumi

from infra import one_machine
from infra.access import refuse_unready
from infra.class_file import load
from infra.classroom import program, refuse_taken

_file = Path(__file__).parent / pulumi.Config("classroom").require("file")
_spec = load(_file)
_platform = one_machine.platform_of(_spec)
refuse_unready(_spec, _platform)
refuse_taken(_spec, _platform)
program(_spec, _platform)()
