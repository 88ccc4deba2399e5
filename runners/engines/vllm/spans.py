"""Tables of what came and went with vLLM's releases, read in the sources of 58 of them.

`missing_until` is the last release that was read in which something was not there yet, `gone_since` the first in which
it was not any more; what lies between two that were read is not judged.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from runners.engines.vllm.releases import Release, release


@dataclass(frozen=True)
class Span:
    missing_until: Release | None = None
    gone_since: Release | None = None

    def why_not(self, number: Release) -> str | None:
        """Why a release does not have it, in words that follow its name; None if it has it, or may have."""
        if self.missing_until and number <= self.missing_until:
            return f"came after vLLM {self.missing_until}"
        if self.gone_since and number >= self.gone_since:
            return f"was removed by vLLM {self.gone_since}"
        return None


@cache
def spans(table: str) -> Mapping[str, Span]:
    """A table of this folder by the names in its first column."""
    with Path(__file__).with_name(f"{table}.csv").open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        next(rows)
        return {name: Span(release(missing), release(gone)) for name, missing, gone in rows}
