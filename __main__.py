"""What plain `pulumi up` runs: the program in infra/.

It stands in the root so that Pulumi's Python processes start here: started in infra/, they would take the folder
`platform` for Python's own module of that name.
"""

import infra.__main__  # noqa: F401  # the import is the run
