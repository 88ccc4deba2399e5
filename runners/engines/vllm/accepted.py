"""Which flags a release's command line knows: flags.csv, read from every release's engine/arg_utils.py and cli_args.py.

`missing_until` is the last release in which a flag was not there yet, `gone_since` the first in which it was not any
more; releases between two that were read are not judged. A flag that is not in the table may be vLLM's all the same.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from provisioners.contract import Finding
from runners.engine import flags
from runners.engines.vllm.flags import full_name
from runners.engines.vllm.releases import Release, release

_TABLE = Path(__file__).with_name("flags.csv")


@cache
def _spans() -> Mapping[str, tuple[Release | None, Release | None]]:
    with _TABLE.open(encoding="utf-8", newline="") as file:
        return {
            row["flag"]: (release(row["missing_until"]), release(row["gone_since"])) for row in csv.DictReader(file)
        }


def flag_findings(args: Mapping[str, Any], number: Release) -> list[Finding]:
    """Flags that this release would call unrecognized."""
    return [found for key, value in args.items() if (found := _judged(key, value, number)) is not None]


def _judged(key: str, value: Any, number: Release) -> Finding | None:
    name = full_name(key)
    missing, gone = _spans().get(name, (None, None))
    if value is None or value is False:
        return None  # Whether a flag has a --no- form is not in the table.
    if missing and number <= missing:
        why = f"came after vLLM {missing}"
    elif gone and number >= gone:
        why = f"was removed by vLLM {gone}"
    else:
        return None
    written = " ".join(flags({key: value}))
    return Finding(
        level="block",
        code="flag",
        message=f"engine.args.{key} {why}",
        suggestion=f"remove engine.args.{key}, or another engine.version",
        quote=f"unrecognized arguments: {written}",
        path=f"engine.args.{key}",
    )
