"""What people see: live progress in a terminal, plain lines in a pipe."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import termios
from pathlib import Path

import pyte
import pytest

from tests.conftest import RECIPE, Command

COLUMNS, LINES = 100, 40
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def in_terminal(recipe: Command, *arguments: str, columns: int = COLUMNS) -> tuple[int, list[str], str]:
    """Run the command in a terminal; exit status, the last screen, and all that was written on it at any time."""
    pid, terminal = pty.fork()
    if pid == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, columns, 0, 0))
        os.chdir(recipe.cwd)
        os.execve(RECIPE, [str(RECIPE), *arguments], recipe.environment(TERM="xterm-256color"))
    screen = pyte.Screen(columns, LINES)
    stream = pyte.ByteStream(screen)
    written = b""
    while True:
        try:
            block = os.read(terminal, 65536)
        except OSError:
            break
        if not block:
            break
        stream.feed(block)
        # Not the screen after each block: one may hold all that was shown and wiped out again.
        written += block
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.close(terminal)
    return status, [line.rstrip() for line in screen.display], CONTROL.sub("", written.decode())


@pytest.mark.real
def test_a_terminal_shows_each_phase_live_and_the_answer_at_the_end(recipe: Command) -> None:
    status, screen, written = in_terminal(recipe, "up", "local-smoke")
    assert status == 0
    for phase in ("plan", "provision", "prepare", "launch", "drive", "collect", "release"):
        assert any(line.startswith("✓") and phase in line for line in screen), phase
    assert any(line.startswith("done in") for line in screen)
    assert any("gone, proven" in line for line in screen)
    assert "Ctrl-C once" in written
    assert not any("Ctrl-C once" in line for line in screen), "the hint goes when there is nothing left to stop"


@pytest.mark.real
def test_a_pipe_gets_plain_lines_and_json_gets_standard_output_alone(recipe: Command) -> None:
    ended = recipe("up", "local-smoke")
    assert "\x1b" not in ended.stdout + ended.stderr
    phases = [line.split()[0] for line in ended.stderr.splitlines() if " done " in line]
    assert phases == ["plan", "provision", "prepare", "launch", "drive", "collect", "release"]
    assert recipe("up", "local-smoke", "--json").stdout.startswith("{")


@pytest.mark.parametrize("columns", [60, 80, 140])
def test_tables_keep_their_essential_columns_at_any_width(recipe: Command, columns: int) -> None:
    _, screen, _ = in_terminal(recipe, "list", columns=columns)
    assert any("2xA100-airoboros-70b" in line for line in screen)
    assert any("RTX3090-24GB:1" in line for line in screen)


def test_a_wrong_file_is_aligned_by_place_and_path(recipe: Command, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(
        "name: x\nmodel: {builtin: lead}\nresources:\n  acelerators: A40\n  disk_size: 20QB\nworkload: {inputs: []}\n"
    )
    _, screen, _ = in_terminal(recipe, "validate", "bad.yaml", columns=140)
    lines = [line for line in screen if line]
    assert lines[0] == "bad.yaml: 3 problems"
    assert (
        len({line.index(word) for line, word in zip(lines[1:], ("resources", "resources", "workload"), strict=True)})
        == 1
    )
    assert lines[-1].endswith("exit 2")
