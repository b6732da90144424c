"""What pytest has to know before it reads its command line; given this folder, it has looked no deeper by then."""

import pytest
from hypothesis import settings

# How long an example takes says how busy the machine is.
settings.register_profile("untimed", settings.default, deadline=None)
settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser) -> None:
    """How often, and at which moments, `up` is killed."""
    group = parser.getgroup("classroom", "a class on a real cluster")
    group.addoption(
        "--kills", type=int, default=3, metavar="N", help="kill `up` at so many random moments (%(default)s)"
    )
    group.addoption("--kill-seed", type=int, default=20261124, metavar="N", help="draws the moments (%(default)s)")
