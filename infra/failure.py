"""What can go wrong in a way that a person can mend. Each room has its own exceptions; all are failures."""

from typing import ClassVar


class Failure(Exception):
    """Something a person can mend. The message says where, what is wrong and which command or line mends it."""

    exit_code: ClassVar[int] = 1
    """1 something is wrong with the class or platform · 2 the call was wrong · 3 something could not be checked."""


class CallFailure(Failure):
    """The call itself was wrong: its file, its arguments, or the machine it was typed on."""

    exit_code = 2
