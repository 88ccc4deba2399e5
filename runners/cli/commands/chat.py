"""Talk to a run's engine: recipe chat RUN, or one question: recipe chat RUN "question"

Without a terminal on its input, the question is read from there. /new begins a new conversation, /quit or Ctrl-D ends
the chat, Ctrl-C ends an answer. The run itself does not notice, but the engine has the more to do.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import threading
from collections.abc import Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from typing import Any, TypeVar

from provisioners.site import recipe_home
from recipes.errors import ExitCode, RecipeError, UsageError
from runners.chat import Conversation, client_of, served_model
from runners.cli.common import add_run, console, positive
from runners.ledger import Ledger
from runners.reaching import reachable, reached
from runners.run_folder import RunFolder
from runners.terminal.problems import error_lines

T = TypeVar("T")
_MAX_TOKENS = 1000
_TRANSCRIPT = "over the completions API, as a transcript of USER: and ASSISTANT:"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    parser.add_argument("question", nargs="*", help="asked at once; only the answer is printed")
    parser.add_argument("--system", metavar="TEXT", help="what the model is told before everything else")
    parser.add_argument("--max-tokens", type=positive, metavar="N", help="of an answer; as in the recipe, if left out")
    # The question may stand after the options as well.
    parser.parse_args = parser.parse_intermixed_args  # type: ignore[method-assign]
    parser.add_argument("--api", choices=("chat", "completions"), help="found out, if left out")


def run(options: argparse.Namespace) -> int:
    question = _asked_at_once(options)
    home = recipe_home()
    run = reachable(RunFolder.find(home, options.run), Ledger(home))
    with _held(reached(run, os.environ)) as endpoint:
        settings, client = run.recipe.workload, client_of(endpoint)
        conversation = Conversation(
            client,
            served_model(client, endpoint.model),
            options.max_tokens or max(settings.max_tokens, _MAX_TOKENS),
            settings.temperature,
            options.system,
            options.api,
        )
        with client:
            return _answered(conversation, question) if question else _talk(conversation, run.folder.run_id)


def _asked_at_once(options: argparse.Namespace) -> str | None:
    """The question on the command line, or on the input; None if somebody is to type it. Raises UsageError."""
    if options.question:
        return " ".join(options.question)
    if sys.stdin.isatty():
        return None
    question = sys.stdin.read().strip()
    if not question:
        raise UsageError("no question, and no terminal to ask for one", advice='recipe chat RUN "question"')
    return question


def _answered(conversation: Conversation, question: str) -> int:
    """Only the text, as it comes."""
    for piece in _without_margin(conversation.ask(question)):
        print(piece, end="", flush=True)
    print()
    if conversation.api == "completions":
        print(f"({_TRANSCRIPT})", file=sys.stderr)
    return ExitCode.DONE


def _talk(conversation: Conversation, run_id: str) -> int:
    with suppress(ImportError):
        import readline  # noqa: F401  (input() can be edited, and has a history)
    out, told = console(), False
    out.print(f"{conversation.model} of {run_id}   /new begins anew, /quit ends, Ctrl-C ends an answer", style="dim")
    while (line := _line()) is not None:
        if line == "/new":
            conversation.forget()
        elif line.startswith("/"):
            out.print(f"{line}: no such command; there are /new and /quit", style="yellow")
        elif line:
            _show(conversation, line)
            if conversation.api == "completions" and not told:
                told = True
                out.print(f"({_TRANSCRIPT})", style="dim")
    return ExitCode.DONE


def _line() -> str | None:
    """What was typed; None at the end."""
    try:
        line = input("› ").strip()
    except EOFError:
        print()
        return None
    except KeyboardInterrupt:
        print("\n/quit or Ctrl-D ends", file=sys.stderr)
        return ""
    return None if line in ("/quit", "/exit") else line


def _show(conversation: Conversation, question: str) -> None:
    """One answer as it comes. Whatever goes wrong with it, the next may be asked."""
    out = console()
    try:
        for piece in _without_margin(conversation.ask(question)):
            out.print(piece, end="", soft_wrap=True)
            out.file.flush()
        out.print()
    except KeyboardInterrupt:
        out.print(" …", style="dim")
    except RecipeError as error:
        for text in error_lines(error):
            out.print(text)


def _without_margin(pieces: Iterator[str]) -> Iterator[str]:
    """Answers begin with a space, as tokens do."""
    begun = False
    for piece in pieces:
        shown = piece if begun else piece.lstrip()
        begun = begun or bool(shown)
        yield shown


@contextmanager
def _held(manager: AbstractAsyncContextManager[T]) -> Iterator[T]:
    """An asynchronous context, held in a thread of its own, so that this one may wait for somebody who types."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def within(work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result()

    async def enter() -> T:
        return await manager.__aenter__()

    async def leave() -> None:
        await manager.__aexit__(None, None, None)

    try:
        entered = within(enter())
        try:
            yield entered
        finally:
            within(leave())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
