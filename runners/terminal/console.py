"""The console that a run speaks through: one that never ends the program."""

from __future__ import annotations

import sys
from typing import NoReturn, Self, TextIO

from rich.console import Console


class SteadyConsole(Console):
    """Raises BrokenPipeError when the reader has gone, where rich would end the program in the middle of a run."""

    def on_broken_pipe(self) -> NoReturn:
        error = sys.exc_info()[1]
        raise error if isinstance(error, BrokenPipeError) else BrokenPipeError()

    @classmethod
    def on(cls, stream: TextIO) -> Self:
        wide = None if stream.isatty() else 1000
        return cls(file=stream, width=wide, highlight=False, soft_wrap=not stream.isatty(), emoji=False, markup=False)
