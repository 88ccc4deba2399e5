"""Many runs at once, as people see them: a line each that stays in place, or lines in a pipe that name their run."""

from __future__ import annotations

import errno
import io
import threading
from typing import Any

import pyte
import pyte.modes
import pytest

from runners.events import (
    Advanced,
    Driven,
    Interrupted,
    LeaseChanged,
    Noted,
    PhaseEnded,
    PhaseStarted,
    RunEnded,
    RunStarted,
    Warned,
)
from runners.terminal.board import Board, board
from runners.terminal.console import SteadyConsole

COLUMNS, LINES = 100, 30
DRIVEN: dict[str, Any] = {
    "done": 12,
    "expected": 40,
    "level": 1,
    "documents_done": 1,
    "documents": 3,
    "prompt_tokens_per_s": 900.0,
    "output_tokens_per_s": 90.0,
    "running": 4.0,
    "waiting": 0.0,
    "kv_usage": 0.5,
    "usd": 0.2,
}


class Shown(io.StringIO):
    """What is written here is on the screen at once: the board draws itself from a thread of its own as well."""

    def __init__(self, columns: int, lines: int) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._screen = pyte.Screen(columns, lines)
        self._screen.set_mode(pyte.modes.LNM)
        self._stream = pyte.Stream(self._screen)

    def write(self, text: str) -> int:
        with self._lock:
            self._stream.feed(text)
        return len(text)

    def lines(self) -> list[str]:
        with self._lock:
            return [line.rstrip() for line in self._screen.display if line.strip()]


class Terminal:
    """A terminal of this size, and what is on it."""

    def __init__(self, columns: int = COLUMNS, lines: int = LINES) -> None:
        self._shown = Shown(columns, lines)
        self.console = SteadyConsole(
            file=self._shown,
            force_terminal=True,
            width=columns,
            height=lines,
            highlight=False,
            emoji=False,
            markup=False,
            legacy_windows=False,
            _environ={"TERM": "xterm-256color"},
        )

    def lines(self, shown: Board | None = None) -> list[str]:
        """What stands there now."""
        if shown is not None:
            assert shown.live is not None
            shown.live.refresh()
        return self._shown.lines()

    def line(self, shown: Board, word: str) -> str:
        (found,) = [line for line in self.lines(shown) if word in line]
        return found


def test_each_run_has_a_line_with_its_phase_and_what_it_has_cost() -> None:
    terminal = Terminal()
    with board(terminal.console, 3) as shown:
        first, second = shown.listener("first"), shown.listener("second")
        for event in (PhaseStarted("provision"), PhaseEnded("provision", 60.0, 0.25, ok=True), PhaseStarted("prepare")):
            first(event)
        second(PhaseStarted("drive"))
        second(Driven(**DRIVEN))
        assert "prepare" in terminal.line(shown, "first")
        assert "$0.25" in terminal.line(shown, "first")
        assert "drive" in terminal.line(shown, "second")
        assert "12/40 requests" in terminal.line(shown, "second")
        assert terminal.lines(shown)[0].startswith("0 of 3 runs have ended     $0.25")


def test_lines_stay_in_place() -> None:
    terminal = Terminal()
    with board(terminal.console, 2) as shown:
        listeners = [shown.listener(name) for name in ("first", "second")]
        before = [line.split()[1] for line in terminal.lines(shown)[1:3]]
        for phase in ("provision", "prepare", "launch", "drive"):
            for listener in listeners:
                listener(PhaseStarted(phase))
                terminal.lines(shown)
        assert [line.split()[1] for line in terminal.lines(shown)[1:3]] == before == ["first", "second"]
        assert len([line for line in terminal.lines(shown) if "first" in line]) == 1


def test_what_a_phase_is_doing_is_told_and_goes_with_it() -> None:
    terminal = Terminal()
    with board(terminal.console, 1) as shown:
        listen = shown.listener("run")
        listen(PhaseStarted("provision"))
        listen(Advanced("provision", "asking for A100 ×2"))
        assert "asking for A100 ×2" in terminal.line(shown, "run ")
        listen(Warned("provision", "the switch could not be proven"))
        assert "the switch could not be proven" in terminal.line(shown, "run ")
        listen(PhaseStarted("prepare"))
        assert "switch" not in terminal.line(shown, "run ")


@pytest.mark.parametrize(
    ("status", "code", "mark"),
    [("completed", 0, "✓"), ("failed", 6, "✗"), ("interrupted", 130, "✗"), ("completed", 9, "✗")],
)
def test_how_each_ended_stays_on_the_screen(status: str, code: int, mark: str) -> None:
    """One that is done and may still bill is no success."""
    terminal = Terminal()
    with board(terminal.console, 2) as shown:
        listen, _ = shown.listener("first"), shown.listener("second")
        listen(RunEnded("run", status, code))
        line = terminal.line(shown, "first")
        assert line.startswith(mark)
        assert status in line
        assert terminal.lines(shown)[0].startswith("1 of 2 runs have ended")
    assert any(line.startswith(mark) and "first" in line for line in terminal.lines())


def test_a_clock_stops_when_its_run_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1061.0
    monkeypatch.setattr("runners.terminal.board.time.monotonic", lambda: now)
    terminal = Terminal()
    shown = Board(terminal.console, 2)
    first, _ = shown.listener("first"), shown.listener("second")
    for row in shown._rows:
        row.started = 1000.0
    first(RunEnded("run", "completed", 0))
    now = 1200.0
    terminal.console.print(shown._render())
    lines = terminal.lines()
    assert "1:01" in next(line for line in lines if "first" in line)
    assert "3:20" in next(line for line in lines if "second" in line)


def test_the_hint_goes_when_there_is_nothing_left_to_stop() -> None:
    terminal = Terminal()
    with board(terminal.console, 2) as shown:
        listeners = [shown.listener(name) for name in ("first", "second")]
        listeners[0](RunEnded("run", "completed", 0))
        assert any("Ctrl-C once" in line for line in terminal.lines(shown))
        listeners[1](RunEnded("run", "failed", 6))
        assert not any("Ctrl-C once" in line for line in terminal.lines(shown))


def test_a_wish_to_stop_is_seen_to_be_heard() -> None:
    terminal = Terminal()
    with board(terminal.console, 1) as shown:
        listen = shown.listener("run")
        listen(PhaseStarted("drive"))
        listen(Interrupted("SIGINT", second=False))
        assert any("stopping" in line for line in terminal.lines(shown))


def test_a_machine_that_is_not_proven_gone_is_told_at_once() -> None:
    terminal = Terminal()
    with board(terminal.console, 2) as shown:
        listen = shown.listener("run")
        listen(LeaseChanged("recipe-me-x", "may-still-bill", "it is still listed"))
        assert any("NOT PROVEN GONE" in line for line in terminal.lines(shown))


def test_lines_of_its_own_stand_above_and_do_not_break_it() -> None:
    terminal = Terminal()
    with board(terminal.console, 2) as shown:
        shown.listener("first")(PhaseStarted("drive"))
        shown.say("error: [the text] is gone", "next: see recipe ps")
        lines = terminal.lines(shown)
        assert lines[:2] == ["error: [the text] is gone", "next: see recipe ps"]
        assert len([line for line in lines if "first" in line]) == 1


def test_words_that_look_like_markup_are_shown_as_they_are() -> None:
    terminal = Terminal()
    with board(terminal.console, 1) as shown:
        shown.listener("a[red]b")(Advanced("prepare", "[bold] 3 of 4 [/bold]"))
        assert "[bold] 3 of 4 [/bold]" in terminal.line(shown, "a[red]b")


@pytest.mark.parametrize("columns", [60, 80, 140])
def test_twenty_runs_with_long_names_and_notes_are_twenty_lines(columns: int) -> None:
    terminal = Terminal(columns, 40)
    names = [f"2xA100-airoboros-70b.concurrency-{n:02d}" for n in range(20)]
    with board(terminal.console, 20) as shown:
        for name in names:
            listen = shown.listener(name)
            listen(PhaseStarted("prepare"))
            listen(Advanced("prepare", "word " * 60))
        lines = terminal.lines(shown)
        assert len([line for line in lines if "2xA100" in line]) == 20
        assert all(name in "\n".join(lines) for name in names) or columns < 80


def test_more_runs_than_fit_do_not_scroll_the_terminal_away() -> None:
    terminal = Terminal(100, 12)
    with board(terminal.console, 40) as shown:
        for n in range(40):
            shown.listener(f"run-{n:02d}")(PhaseStarted("drive"))
            lines = terminal.lines(shown)
        assert lines[0].startswith("0 of 40 runs have ended")


def plain() -> tuple[SteadyConsole, io.StringIO]:
    written = io.StringIO()
    return SteadyConsole.on(written), written


def test_in_a_pipe_each_line_names_its_run_and_nothing_moves() -> None:
    console, written = plain()
    with board(console, 2) as shown:
        first, second = shown.listener("first"), shown.listener("second[0]")
        first(RunStarted("first-2026", "first", "/home/runs/first-2026", 10.0, None))
        second(PhaseEnded("provision", 61.0, 0.25, ok=True))
        first(PhaseEnded("launch", 3.0, None, ok=False))
        first(Noted("launch", "through ssh -L"))
        second(Warned("drive", "the [disk] is nearly full"))
        second(Interrupted("SIGINT", second=False))
        second(LeaseChanged("recipe-me-x", "may-still-bill", "it is still listed"))
        shown.say("error: something else")
    lines = written.getvalue().splitlines()
    assert "\x1b" not in written.getvalue()
    assert [line.split()[0] for line in lines[:-1]] == ["[first]", "[second[0]]"] + ["[first]"] * 2 + [
        "[second[0]]"
    ] * 3
    assert "provision  done" in lines[1]
    assert "launch     FAILED" in lines[2]
    assert "the [disk] is nearly full" in lines[4]
    assert "NOT PROVEN GONE" in lines[6]
    assert lines[-1] == "error: something else"


def test_in_a_pipe_how_far_each_is_would_be_too_much() -> None:
    console, written = plain()
    with board(console, 1) as shown:
        listen = shown.listener("run")
        for event in (PhaseStarted("prepare"), Advanced("prepare", "3 of 4 MB"), Driven(**DRIVEN)):
            listen(event)
    assert written.getvalue() == ""


class Gone(io.StringIO):
    """A terminal, or a pipe, that is there no more."""

    def __init__(self, *, tty: bool) -> None:
        super().__init__()
        self._tty = tty

    def isatty(self) -> bool:
        return self._tty

    def write(self, text: str) -> int:
        raise OSError(errno.EIO, "Input/output error")


def test_a_terminal_that_has_gone_is_no_reason_to_stop() -> None:
    console = SteadyConsole(file=Gone(tty=True), force_terminal=True, width=100, height=30)
    with board(console, 1) as shown:
        listen = shown.listener("run")
        for event in (PhaseStarted("drive"), Driven(**DRIVEN), RunEnded("run", "completed", 0)):
            listen(event)


def test_a_pipe_that_has_closed_is_the_listeners_own_failure() -> None:
    """It is dropped by whoever tells it; what the board says by itself must not stop the runs."""
    console = SteadyConsole.on(Gone(tty=False))
    with board(console, 1) as shown:
        with pytest.raises(OSError, match="Input/output"):
            shown.listener("run")(PhaseEnded("plan", 1.0, None, ok=True))
        shown.say("error: the text is gone")
