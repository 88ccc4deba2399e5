"""Which flags a release's command line knows: flags.csv, read from engine/arg_utils.py and openai/cli_args.py.

Beside these, vLLM's command line takes the unambiguous beginning of a flag's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from provisioners.contract import Finding
from runners.engine import flags
from runners.engines.vllm.flags import full_name
from runners.engines.vllm.releases import Release
from runners.engines.vllm.spans import spans


def flag_findings(args: Mapping[str, Any], number: Release, *, certain: bool) -> list[Finding]:
    """Flags that this release would call unrecognized.

    `certain` is whether the recipe's release is one that the table was made from.
    """
    return [found for key, value in args.items() if (found := _judged(key, value, number, certain)) is not None]


def _judged(key: str, value: Any, number: Release, certain: bool) -> Finding | None:
    if value is None or value is False:
        return None  # Whether a flag has a --no- form is not in the table.
    why = _why_not(full_name(key), number)
    if why is None:
        return None
    written = " ".join(flags({key: value}))
    return Finding(
        level="block" if certain else "warn",
        code="flag",
        message=f"engine.args.{key} {why}",
        suggestion=f"remove engine.args.{key}"
        + (", or another engine.version" if full_name(key) in spans("flags") else _meant(full_name(key))),
        quote=f"unrecognized arguments: {written}",
        path=f"engine.args.{key}",
    )


def _why_not(name: str, number: Release) -> str | None:
    table = spans("flags")
    if name in table:
        return table[name].why_not(number)
    positive = name.removeprefix("no_")
    if len(name) < _SHORTEST or name == "help" or any(flag.startswith((name, positive)) for flag in table):
        return None
    return "is a flag of no release"


_SHORTEST = 3
"""Letters: shorter ones may be flags of one dash, with a value that follows at once."""


def _meant(name: str) -> str:
    close = get_close_matches(name, spans("flags"), n=1)
    return f"; did you mean {close[0]}?" if close else ""
