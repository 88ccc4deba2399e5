"""Columns of tables: each with its name, its type, and how its value is read; whatever a stranger wrote becomes that
type, or nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

T = TypeVar("T")
Kind = Literal["text", "int", "float", "bool", "time"]
Cell = str | int | float | bool | datetime | None
_LARGEST = 2**63


@dataclass(frozen=True)
class Column:
    """A column and the type of its cells, any of which may be empty."""

    name: str
    kind: Kind


@dataclass(frozen=True)
class Table:
    """Columns, and the rows below them, one by one."""

    columns: Sequence[Column]
    rows: Iterator[list[Cell]]


class Reader(tuple[tuple[Column, Callable[[T], Any]], ...]):
    """Columns and how each is read from a source of one kind."""

    __slots__ = ()

    @property
    def columns(self) -> tuple[Column, ...]:
        return tuple(column for column, _ in self)

    def table(self, sources: Iterable[T]) -> Table:
        return Table(self.columns, (self.row(source) for source in sources))

    def row(self, source: T) -> list[Cell]:
        return [None if (value := read(source)) is None else _AS[column.kind](value) for column, read in self]


def at(data: Any, path: str) -> Any:
    """The value at a dotted path; None if there is none."""
    return within(data, path.split("."))


def within(data: Any, names: Sequence[str]) -> Any:
    """The value at a path that was taken apart before."""
    for name in names:
        if not isinstance(data, dict):
            return None
        data = data.get(name)
    return data


def as_json(value: Any) -> str | None:
    """Lists and mappings as compact JSON; None if there is nothing in them."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")) if value else None


def as_time(value: Any) -> datetime | None:
    """An instant, in UTC."""
    try:
        instant = value if isinstance(value, datetime) else datetime.fromisoformat(value)
        return (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        return None


def as_number(value: Any) -> float | None:
    try:
        return None if isinstance(value, bool) or not isinstance(value, int | float) else float(value)
    except OverflowError:
        return None


def as_text(value: Any) -> str | None:
    """The text, with a question mark for half a character, which cannot be written."""
    return None if value is None else str(value).encode("utf-8", "replace").decode()


def _as_int(value: Any) -> int | None:
    number = as_number(value)
    return int(value) if number is not None and abs(number) < _LARGEST else None


_AS: dict[Kind, Callable[[Any], Cell]] = {
    "text": as_text,
    "int": _as_int,
    "float": as_number,
    "bool": lambda value: value if isinstance(value, bool) else None,
    "time": as_time,
}
