"""What is wrong, on one screen: where, what, what next."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from itertools import groupby
from typing import Any

from recipes.errors import InvalidRecipe, Problem, RecipeError
from runners.terminal.words import plural

MOST_SHOWN = 40


def problem_lines(problems: Iterable[Problem]) -> list[str]:
    """Grouped by file, aligned by place and path."""
    lines: list[str] = []
    for file, group in groupby(problems, key=lambda p: p.file):
        found = list(group)
        lines.append(f"{file}: {plural(len(found), 'problem')}")
        places = [f"{p.line}:{p.column}" if p.line else "" for p in found]
        place_width, path_width = max(map(len, places)), min(36, max(len(p.path) for p in found))
        for place, p in list(zip(places, found, strict=True))[:MOST_SHOWN]:
            what = f"{p.message}; {p.suggestion}" if p.suggestion else p.message
            lines.append("  " + "   ".join(filter(None, (place.ljust(place_width), p.path.ljust(path_width), what))))
        if len(found) > MOST_SHOWN:
            lines.append(f"  and {len(found) - MOST_SHOWN} more")
    return lines


def error_lines(error: RecipeError) -> list[str]:
    """An expected error, with its way out."""
    if isinstance(error, InvalidRecipe):
        return problem_lines(error.problems)
    return [f"error: {error.message}", *([f"next:  {error.advice}"] if error.advice else [])]


def error_document(error: RecipeError) -> dict[str, Any]:
    """The same for --json."""
    if isinstance(error, InvalidRecipe):
        return {"problems": [asdict(p) for p in error.problems]}
    return {"error": {"message": error.message, "advice": error.advice, "exit_code": int(error.exit_code)}}
