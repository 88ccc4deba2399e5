"""All that is going on, live: phases, throughput, GPUs, dollars, time left. It only looks: leaving it ends no run.

Shows the runs of every terminal, and those in the background. q or Ctrl-C leaves.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from provisioners.site import recipe_home
from recipes.errors import ExitCode, UsageError
from runners.cli.common import add_json, add_run, console, print_json
from runners.ongoing.overview import overview
from runners.ongoing.reader import Reader
from runners.run_folder import RunFolder

if TYPE_CHECKING:
    from rich.console import Console

PORT = 8347
_EVERY_S = 1.0
_PLAIN_PROGRESS_S = 10.0
_LEAVE = frozenset({"q", "Q", "\x1b", "\x03", "\x04"})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser, nargs="?")
    parser.add_argument(
        "--web",
        nargs="?",
        type=_port,
        const=-1,
        metavar="PORT",
        help=f"a page on 127.0.0.1 instead (default port: {PORT}; 0: a free one)",
    )
    parser.add_argument("--open", action="store_true", help="with --web: open it in the browser")
    parser.add_argument(
        "--until-done",
        action="store_true",
        help="leave when nothing is going on any more, with the exit code of the runs that ended meanwhile",
    )
    add_json(parser)


def _port(text: str) -> int:
    if not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text}: not a port; write the run before --web")
    return int(text)


def run(options: argparse.Namespace) -> int:
    _check(options)
    home = recipe_home()
    only = RunFolder.find(home, options.run).run_id if options.run else None
    reader = Reader(home, only)
    if options.json:
        print_json(overview(reader.read()))
        return ExitCode.DONE
    try:
        if options.web is not None:
            return _serve(reader, options)
        return Watch(reader, only, until_done=options.until_done).run(console())
    except KeyboardInterrupt:
        return ExitCode.DONE  # of the looking; the runs go on


def _serve(reader: Reader, options: argparse.Namespace) -> int:
    """The page, until Ctrl-C."""
    import asyncio

    from runners.watch_page.server import serve

    def tell(url: str) -> None:
        print(f"{url}   Ctrl-C ends the page; the runs go on", flush=True)
        if options.open:
            import threading
            import webbrowser

            threading.Thread(target=webbrowser.open, args=[url], daemon=True).start()

    port, any_port = (PORT, True) if options.web < 0 else (options.web, False)
    asyncio.run(serve(reader, recipe_home(), tell, port=port, any_port=any_port))
    return ExitCode.DONE


def _check(options: argparse.Namespace) -> None:
    """Raises UsageError for options that mean nothing together."""
    if options.open and options.web is None:
        raise UsageError("--open is for the page", advice="recipe watch --web --open")
    for name in ("json", "until_done"):
        if getattr(options, name) and options.web is not None:
            raise UsageError(f"--{name.replace('_', '-')} and --web do not go together")
    if options.json and options.until_done:
        raise UsageError("--json prints the present state and returns", advice="recipe watch --until-done, then --json")


class Watch:
    """Looks every second, until somebody leaves or it is over."""

    def __init__(self, reader: Reader, only: str | None, *, until_done: bool) -> None:
        self._reader, self._only, self._until_done = reader, only, until_done
        self._met: dict[str, int | None] = {}
        """Runs that were seen going on, with their clients."""
        self._since = datetime.now(UTC)

    def run(self, out: Console) -> int:
        shown = self._in_terminal(out) if out.is_terminal else self._in_lines(out)
        document: Mapping[str, Any] = {"runs": [], "ended": []}
        for document in shown:  # noqa: B007 (the last one is what matters)
            pass
        return self._exit_code(document) if self._until_done else ExitCode.DONE

    def _ended(self, document: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Runs that ended while this looked, in the order in which they did; and the one that was asked for."""
        return [
            run
            for run in reversed(document["ended"])
            if run["run_id"] in self._met or self._only or datetime.fromisoformat(run["ended_at"]) >= self._since
        ]

    def _exit_code(self, document: Mapping[str, Any]) -> int:
        """As `recipe up` ends: what may still be billing first, then what was interrupted, then what failed first."""
        ended = self._ended(document)
        codes = [ExitCode.INTERRUPTED if run["exit_code"] is None else run["exit_code"] for run in ended]
        codes += [ExitCode.STILL_BILLING for _ in document["runs"]]
        worst = [code for code in (ExitCode.STILL_BILLING, ExitCode.INTERRUPTED) if code in codes]
        return int((worst or [code for code in codes if code] or [ExitCode.DONE])[0])

    def _look(self) -> dict[str, Any]:
        document = overview(self._reader.read())
        self._met |= {run["run_id"]: run["pid"] for run in document["runs"]}
        return document

    def _over(self, document: Mapping[str, Any]) -> bool:
        """Whether there is nothing to wait for: a client that lives begins another run, perhaps."""
        if not self._until_done and self._only is None:
            return False
        if any(run["client"] != "gone" for run in document["runs"]):
            return False
        return self._only is not None or not any(map(_lives, self._met.values()))

    def _in_terminal(self, out: Console) -> Iterator[dict[str, Any]]:
        """The whole screen; what is left behind is a line for each run."""
        from rich.console import Group
        from rich.live import Live

        from runners.terminal.keys import keys
        from runners.terminal.watch_lines import left_behind
        from runners.terminal.watch_view import screen

        document = self._look()
        with suppress(KeyboardInterrupt), keys() as pressed, Live(console=out, screen=True, auto_refresh=False) as live:
            while True:
                live.update(Group(*screen(document, out.width, out.height)), refresh=True)
                yield document
                if self._over(document) or pressed.wait(_EVERY_S) in _LEAVE:
                    break
                document = self._look()
        for line in left_behind(document, self._ended(document)):
            out.print(line)
        yield document

    def _in_lines(self, out: Console) -> Iterator[dict[str, Any]]:
        from runners.terminal.watch_lines import plain

        before: dict[str, Any] | None = None
        due = 0.0
        while True:
            document = self._look()
            now = time.monotonic()
            for line in plain(before, document, progress_due=now >= due, waits=not self._until_done):
                out.print(line)
            if now >= due:
                due = now + _PLAIN_PROGRESS_S
            yield document
            if self._over(document):
                return
            before = document
            time.sleep(_EVERY_S)


def _lives(pid: int | None) -> bool:
    import psutil

    try:
        return pid is not None and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
