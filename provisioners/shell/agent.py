"""What the client asks of the agent on a machine, and how long it goes on asking when the machine is silent."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from provisioners.shell.connection import Lost, Ran, Shell
from recipes.errors import HostCommandFailed, NoMachine, RecipeError

T = TypeVar("T")

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 3.0
_MISSING = (126, 127)
"""What a shell says of a program that is not there, or not yet."""


class Patience:
    """How long to do without contact before giving up."""

    def __init__(self, seconds: Callable[[], float], target: object) -> None:
        self._seconds, self._target = seconds, target
        self.progress()

    def progress(self) -> None:
        """There was contact: what comes next is a new loss."""
        self._since: float | None = None
        self._pause_s = _FIRST_PAUSE_S

    async def after(self, error: Lost) -> None:
        """Wait a little before trying again. Raises NoMachine when it has been too long."""
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        if now - self._since >= self._seconds():
            raise NoMachine(
                f"no contact to {self._target} for {now - self._since:.0f} s: {error.message}",
                advice="what runs there goes on until its own deadline; recipe attach takes it up again",
            ) from error
        await asyncio.sleep(min(self._pause_s, self._seconds()))
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)


class Agent:
    """The agent of one lease."""

    def __init__(self, shell: Shell, state_dir: str, *, patience_s: float) -> None:
        self.shell, self.state_dir, self.patience_s = shell, state_dir, patience_s

    def argv(self, command: str, *arguments: str) -> list[str]:
        return [f"{self.state_dir}/agent", command, *arguments]

    async def call(self, command: str, *arguments: str, request: Any = None, timeout_s: float = 30) -> dict[str, Any]:
        """One answer. Raises Lost, also while there is no agent yet, and HostCommandFailed if it could not do it.

        What is secret stands in the request: that goes over standard input, an argument is for all to see.
        """
        given = b"" if request is None else json.dumps(request).encode() + b"\n"
        ran = await self.shell.run(self.argv(command, *arguments), input=given, timeout_s=timeout_s)
        answer = self._answer(command, ran)
        if "error" in answer:
            raise HostCommandFailed(f"{self.shell.target}: {answer['error']}")
        return answer

    async def insist(self, command: str, *arguments: str, request: Any = None, timeout_s: float = 30) -> dict[str, Any]:
        """The same, again until there is an answer; for what may be asked twice. Raises NoMachine if none comes."""
        return await self.patiently(lambda _: self.call(command, *arguments, request=request, timeout_s=timeout_s))

    async def patiently(self, attempt: Callable[[Patience], Awaitable[T]]) -> T:
        """The first result that is not Lost. Raises NoMachine after too long without contact."""
        patience = self.patience()
        while True:
            try:
                return await attempt(patience)
            except Lost as error:
                await patience.after(error)

    def patience(self) -> Patience:
        return Patience(lambda: self.patience_s, self.shell.target)

    def missing(self, ran: Ran) -> Lost:
        """What to raise for an agent that did not do what it always does."""
        said = (ran.err or ran.out).decode(errors="replace").strip().splitlines()
        why = "it is not there" if ran.status in _MISSING else f"status {ran.status}: {' '.join(said[-1:])[:300]}"
        return Lost(f"the agent on {self.shell.target} did not answer: {why}")

    def refusal(self, command: str, ran: Ran) -> RecipeError:
        """What to raise for a command that did not end well: the agent is not there, or could not do it."""
        if ran.status in _MISSING:
            return self.missing(ran)
        said = (ran.err.strip() or ran.out.strip()).decode(errors="replace").splitlines()
        return HostCommandFailed(f"{self.shell.target}: {command} failed: {' '.join(said[-1:]) or ran.status}")

    def _answer(self, command: str, ran: Ran) -> dict[str, Any]:
        """The last line: a login shell's own files may have said something before."""
        lines = ran.out.splitlines()
        try:
            answer = json.loads(lines[-1]) if lines else {}
        except ValueError:
            answer = None
        if not isinstance(answer, dict) or (ran.status != 0 and "error" not in answer):
            raise self.missing(ran)
        return answer
