"""The units of a recipe file and their one place of conversion: sizes, durations, counts, accelerators."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

GIB = 2**30
_SIZES = {
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": GIB,
    "TIB": 2**40,
}
_DURATIONS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
MAX_DURATION_S = 3650 * 86400.0
SIZE_PATTERN = r"^\d+(\.\d+)?\s*[KMGTkmgt]?[iI]?[bB]$"
DURATION_PATTERN = r"^(\d+(\.\d+)?(ms|[smhd]))+$"
ACCELERATORS_PATTERN = r"^[A-Za-z][A-Za-z0-9 ._-]*(:[1-9]\d*)?$"


@dataclass(frozen=True)
class Accelerators:
    """So many accelerators of one kind on one machine, as in `A100-80GB:2`."""

    name: str
    count: int = 1

    def __str__(self) -> str:
        return f"{self.name}:{self.count}"


@dataclass(frozen=True)
class Amount:
    """A number of cores, or of bytes; `16+` means at least so many."""

    value: int
    or_more: bool = False


def parse_size(text: str) -> int:
    """Bytes from `20GB` (10⁹) or `18GiB` (2³⁰). Raises ValueError."""
    match = re.fullmatch(r"(\d{1,18}(?:\.\d{1,18})?)\s*([A-Za-z]+)", text.strip())
    if not match or match[2].upper() not in _SIZES:
        raise ValueError(f"{text}: not a size; write 20GB or 18GiB")
    return round(Fraction(match[1]) * _SIZES[match[2].upper()])


def parse_duration(text: str) -> float:
    """Seconds from `90s`, `10m`, `3h`, `1h30m`, `2d`, `500ms`. Raises ValueError."""
    if not re.fullmatch(DURATION_PATTERN, text.strip()):
        raise ValueError(f"{text}: not a duration; write 90s, 10m, 3h or 1h30m")
    seconds = sum(float(number) * _DURATIONS[unit] for number, unit in re.findall(r"([\d.]+)(ms|[smhd])", text))
    if seconds > MAX_DURATION_S:
        raise ValueError(f"{text}: longer than {format_duration(MAX_DURATION_S)}")
    return seconds


def parse_accelerators(text: str) -> Accelerators:
    """A kind and a count from `A100-80GB:2`; the count is 1 if it is left out. Raises ValueError."""
    if not re.fullmatch(ACCELERATORS_PATTERN, text.strip()):
        raise ValueError(f"{text}: not NAME:COUNT; write A100-80GB:2")
    name, _, count = text.strip().partition(":")
    return Accelerators(name.strip(), int(count or 1))


def parse_count(text: str | int) -> Amount:
    """A number of cores from `16` or `16+`. Raises ValueError."""
    match = re.fullmatch(r"([1-9]\d*)(\+?)", str(text).strip())
    if not match:
        raise ValueError(f"{text}: not a number of cores; write 16 or 16+")
    return Amount(int(match[1]), bool(match[2]))


def parse_memory(text: str) -> Amount:
    """Bytes from `128GB` or `128GB+`. Raises ValueError."""
    plain = text.strip()
    return Amount(parse_size(plain.removesuffix("+")), plain.endswith("+"))


def format_size(size_bytes: float) -> str:
    """The shortest exact spelling that parse_size reads back."""
    whole = round(size_bytes)
    for unit in ("TB", "GB", "GiB", "MB", "MiB", "KB"):
        if whole and whole % _SIZES[unit.upper()] == 0:
            return f"{whole // _SIZES[unit.upper()]}{unit}"
    return f"{whole}B"


def rough_size(size_bytes: float) -> str:
    """For people, with one decimal place."""
    return _in(size_bytes, size_bytes)


def rough_share(part_bytes: float, whole_bytes: float) -> str:
    """How much of how much, in the unit that suits the whole."""
    return f"{_in(part_bytes, whole_bytes).partition(' ')[0]} of {rough_size(whole_bytes)}"


def _in(size_bytes: float, like_bytes: float) -> str:
    unit, name = (1e9, "GB") if like_bytes >= 1e9 else (1e6, "MB")
    return f"{size_bytes / unit:,.1f} {name}"


def format_duration(seconds: float) -> str:
    """The spelling that parse_duration reads back, in the largest units that divide."""
    if seconds != int(seconds):
        return f"{Decimal(repr(seconds)):f}s"
    parts, rest = [], int(seconds)
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, rest = divmod(rest, length)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def format_amount(amount: Amount, *, size: bool = False) -> str:
    """The spelling that parse_count or parse_memory reads back."""
    return (format_size(amount.value) if size else str(amount.value)) + ("+" if amount.or_more else "")
