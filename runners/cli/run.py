"""Calls a command and turns whatever it raises into one screen and an exit code."""

from __future__ import annotations

import gc
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from recipes.errors import ExitCode, InvalidRecipe, RecipeError
from runners.cli import parser_for


def run_command(command: str, arguments: Sequence[str]) -> int:
    """Parse and run; returns the exit code."""
    from importlib import import_module

    options = parser_for(command).parse_args(arguments)
    if not gc.isenabled():
        gc.freeze()  # what the imports made is there to stay
        gc.enable()
    as_json = getattr(options, "json", False)
    try:
        code: int = import_module(f"runners.cli.commands.{command}").run(options)
        sys.stdout.flush()
        return code
    except RecipeError as error:
        return _tell(error, as_json)
    except BrokenPipeError:
        # The reader has seen enough; Python would complain once more on its way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.DONE
    except Exception as error:
        if as_json:
            print(json.dumps({"error": {"message": f"a bug in recipe: {error}", "advice": "", "exit_code": 1}}))
        return _bug(command, arguments)


def _tell(error: RecipeError, as_json: bool) -> int:
    from runners.terminal.problems import error_document, error_lines

    lines = error_lines(error)
    lines[-1] += f"      exit {int(error.exit_code)}" if isinstance(error, InvalidRecipe) else ""
    print("\n".join(lines), file=sys.stderr)
    if as_json:
        print(json.dumps(error_document(error), ensure_ascii=False, indent=2))
    return error.exit_code


def _bug(command: str, arguments: Sequence[str]) -> int:
    from provisioners.site import recipe_home

    text = f"recipe {command} {' '.join(arguments)}\n\n{traceback.format_exc()}"
    name = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.getpid()}.log"
    last = text.strip().splitlines()[-1]
    for folder in (recipe_home() / "bugs", Path(tempfile.gettempdir())):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
        except OSError:
            continue
        print(f"error: a bug in recipe: {last}\nnext:  please report it with {folder / name}", file=sys.stderr)
        return ExitCode.BUG
    print(f"error: a bug in recipe, and no place for its log:\n{text}", file=sys.stderr)
    return ExitCode.BUG
