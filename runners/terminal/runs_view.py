"""The experiment log as people read it: a line for each run, or totals."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime

from runners.ledger.rows import Row
from runners.ledger.totals import TIMES, Total
from runners.terminal.cells import cells, cut, padded, plain
from runners.terminal.words import UNKNOWN, amount, clock_time, dollars, exact_dollars, is_figure, plural

_GAP = "  "
_RIGHT = {"time", "cost", "prompt tok/s", "output tok/s", "docs", "idle $", "$/h", "$/doc", "prompt", "output", "Wh"}
_DROP = ("engine", "from", "model", "gpu", "tags", "docs", "prompt tok/s", "output tok/s")
_DROP_TOTALS = ("Wh", "prompt tokens", "failed", "output tokens", "hours", "docs", "idle $")
"""What gives way first where the terminal is narrow."""
_SORTED_BY: Mapping[str, tuple[str, Callable[[Row], str]]] = {
    "ended": ("ended", lambda row: _minute(row.ended_at)),
    "started": ("started", lambda row: _minute(row.started_at)),
    "idle": ("idle $", lambda row: exact_dollars(row.idle_usd)),
    "price": ("$/h", lambda row: exact_dollars(row.price_usd_per_h)),
    "prompt-tokens": ("prompt", lambda row: _count(row.prompt_tokens)),
    "output-tokens": ("output", lambda row: _count(row.output_tokens)),
    "usd/document": ("$/doc", lambda row: exact_dollars(row.usd_per_document)),
    "energy": ("Wh", lambda row: _figure(row.energy_wh, ",.2f")),
    "provider": ("provider", lambda row: row.provider or ""),
}
"""What a list is sorted by, where its columns do not show it anyhow."""


def runs_lines(
    rows: Sequence[Row],
    *,
    so_far_usd: Mapping[str, float],
    sort: str = "-started",
    now: datetime | None = None,
    width: int | None = None,
) -> Iterator[str]:
    """A line for each run. `so_far_usd` is what those have cost that have not ended."""
    now = now or datetime.now(UTC)
    columns: list[tuple[str, Callable[[Row], str]]] = [
        ("run", lambda row: row.run_id),
        ("status", _status),
        ("time", lambda row: _time(row, now)),
        ("cost", lambda row: _cost(row, so_far_usd)),
        ("prompt tok/s", lambda row: _figure(row.prompt_tokens_per_s)),
        ("output tok/s", lambda row: _figure(row.output_tokens_per_s)),
        ("docs", _documents),
    ]
    by = sort.removeprefix("-")
    if by in _SORTED_BY and by != "started":
        columns.insert(4, _SORTED_BY[by])
    if any(row.tags for row in rows):
        columns.append(("tags", lambda row: " ".join(row.tags)))
    if any(row.gpu for row in rows):
        columns.append(("gpu", lambda row: f"{row.gpu} ×{row.gpu_count}" if row.gpu else ""))
    if any(row.origin for row in rows):
        columns.append(("from", lambda row: row.origin or ""))
    columns += [("model", lambda row: row.model or ""), ("engine", lambda row: row.engine or "")]
    header = [name for name, _ in columns]
    yield from _table(header, [[cell(row) for _, cell in columns] for row in rows], width, drop=_DROP)


def totals_lines(
    found: Sequence[Total], together: Total, by: str, width: int | None = None, *, left_out: int = 0
) -> Iterator[str]:
    """A line for each, and one for all together; then what is to be known of them.

    `left_out` are those that are not shown, and within all together nevertheless.
    """
    shown = [*found, together]
    header = [by, "runs", "failed", "hours", "cost", "docs", "$/doc", "prompt tokens", "output tokens"]
    idle = any(total.idle_usd is not None for total in shown)
    energy = any(total.energy_wh is not None for total in shown)
    header[5:5] = ["idle $"] if idle else []
    header += ["Wh"] if energy else []
    rows = []
    for total in shown:
        name = "total" if total is together else total.key or f"(no {by})"
        row = [name, f"{total.runs:,}", _count(total.failed + total.lost or None), f"{total.hours:,.2f}"]
        row += [dollars(total.usd), *([_idle(total)] if idle else []), f"{total.documents:,}"]
        row += [exact_dollars(total.usd_per_document), amount(total.prompt_tokens), amount(total.output_tokens)]
        rows.append([*row, *([_figure(total.energy_wh, ",.1f")] if energy else [])])
    yield from _table(header, rows, width, right=header[1:], drop=_DROP_TOTALS)
    if left_out:
        yield f"{left_out:,} more {'is' if left_out == 1 else 'are'} not shown, and counted in the total"
    yield from _notes(found, together, by)


def _notes(found: Sequence[Total], together: Total, by: str) -> Iterator[str]:
    if by in TIMES:
        yield f"a run counts in the {by} in which it began, in UTC"
    if by == "tag" and sum(total.runs for total in found) > together.runs:
        yield "a run with several tags counts under each of them, and once in the total"
    if together.lost:
        yield f"failed runs include {plural(together.lost, 'lost run')}: recipe runs --status lost"
    if together.running:
        going = "1 run is" if together.running == 1 else f"{together.running:,} runs are"
        yield f"{going} going on, and counted with the dollars so far"
    if together.idle_usd is not None and together.idle_unknown:
        yield f"≥: of {plural(together.idle_unknown, 'run')} it is not known what was paid for idling"


def _table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    width: int | None,
    *,
    right: Sequence[str] = (),
    drop: Sequence[str] = (),
) -> Iterator[str]:
    """Columns as wide as they need to be; where the terminal is too narrow, the last two are cut, then some left out.

    Laid out without rich, which would take longer than finding the runs does.
    """
    lines = [header, *([plain(text) for text in row] for row in rows)]
    widths = dict(enumerate(max(map(cells, column)) for column in zip(*lines, strict=True)))
    left_out = [] if width is None else _fit(widths, header, width, drop)
    for line in lines:
        laid = (
            padded(cut(line[i], room), room, right=header[i] in right or header[i] in _RIGHT)
            for i, room in widths.items()
        )
        yield _GAP.join(laid).rstrip()
    if left_out:
        yield cut(f"too narrow for {', '.join(left_out)}", width or 0)


def _fit(widths: dict[int, int], header: Sequence[str], width: int, drop: Sequence[str]) -> list[str]:
    """Make the columns, by their numbers, fit into the width; returns the names of those that are left out."""
    left_out: list[str] = []

    def excess() -> int:
        return sum(widths.values()) + len(_GAP) * (len(widths) - 1) - width

    for i in (len(header) - 1, len(header) - 2):
        widths[i] -= max(0, min(excess(), widths[i] - len(header[i])))
    for name in drop:
        if excess() > 0 and name in header:
            del widths[header.index(name)]
            left_out.append(name)
    for i in reversed(widths):
        widths[i] -= max(0, min(excess(), widths[i] - 1))
    return left_out


def _status(row: Row) -> str:
    return f"{row.status} in {row.phase}" if row.phase else row.status


def _time(row: Row, now: datetime) -> str:
    if row.seconds is not None:
        return clock_time(row.seconds)
    if row.status != "running":
        return ""
    return clock_time(max(0.0, (now - datetime.fromisoformat(row.started_at)).total_seconds()))


def _cost(row: Row, so_far_usd: Mapping[str, float]) -> str:
    return dollars(so_far_usd.get(row.run_id) if row.status in ("running", "lost") else row.total_usd)


def _documents(row: Row) -> str:
    return "" if row.documents_total is None else f"{row.documents_done or 0}/{row.documents_total}"


def _idle(total: Total) -> str:
    if total.idle_usd is None:
        return ""
    return f"{'≥ ' if total.idle_unknown else ''}{exact_dollars(total.idle_usd)}"


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"


def _figure(value: float | None, form: str = ",.0f") -> str:
    if value is None:
        return ""
    return format(value, form) if is_figure(value) else UNKNOWN


def _minute(instant: str | None) -> str:
    return "" if instant is None else instant[:16].replace("T", " ")
