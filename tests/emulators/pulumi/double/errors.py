"""What ends a command."""

from __future__ import annotations


class CommandFailed(Exception):
    """Printed to stderr as `error: …`; the command ends with 255."""


class UpdateFailed(Exception):
    """The operation did not succeed; its diagnostics have been printed."""


class Canceled(UpdateFailed):
    """A signal asked for the end: what runs is finished, nothing new begins."""
