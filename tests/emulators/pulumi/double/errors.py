"""What ends a command."""

from __future__ import annotations

FAILED = 1
WRONG_CALL = 2
NO_SUCH_STACK = 6
CHANGES_SEEN = 7


class CommandFailed(Exception):
    """Printed to stderr as `error: …`."""

    def __init__(self, text: str, code: int = FAILED) -> None:
        super().__init__(text)
        self.code = code


class NoSuchStack(CommandFailed):
    """No stack of this name, or none is selected."""

    def __init__(self, text: str) -> None:
        super().__init__(text, NO_SUCH_STACK)


class UpdateFailed(Exception):
    """The operation did not succeed; its diagnostics have been printed."""


class Canceled(UpdateFailed):
    """A signal asked for the end: what runs is finished, nothing new begins."""
