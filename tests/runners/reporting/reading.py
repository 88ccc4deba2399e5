"""What a page says, read as a person reads it, and held against result.json."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from tests.browser import Opened

_NUMBER = re.compile(r"[+−-]?\d[\d,]*(?:\.\d+)?(?:e[+-]\d+)?")
_UNITS = {"%": 0.01, "ms": 0.001, "kB": 1e3, "MB": 1e6, "GB": 1e9}


def figures(opened: Opened) -> list[dict[str, str]]:
    """Every marked figure: what is shown, the value, and where it is said to come from."""
    script = """() => [...document.querySelectorAll("data")].map((e) => ({
        shown: e.textContent, value: e.getAttribute("value"), form: e.dataset.as, path: e.dataset.path,
        sum: e.dataset.sum, share: e.dataset.share, of: e.dataset.of, run: e.dataset.run }))"""
    found: list[dict[str, str]] = opened.evaluate(script)
    return found


def unmarked(opened: Opened) -> list[str]:
    """Texts with digits, where figures of the result stand, that are none of them."""
    script = r"""() => {
        const found = [];
        for (const place of document.querySelectorAll("[data-figures]")) {
            const walker = document.createTreeWalker(place, NodeFilter.SHOW_TEXT);
            while (walker.nextNode()) {
                const inside = walker.currentNode.parentElement.closest("data, th, caption, dt");
                const text = walker.currentNode.textContent.replace(/\bp\d\d\b/g, "");
                if (!inside && /\d/.test(text)) found.push(text.trim());
            }
        }
        return found; }"""
    found: list[str] = opened.evaluate(script)
    return found


def wrong(opened: Opened, results: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Each figure that differs from the result that it names, or that shows another number than its value."""
    for figure in figures(opened):
        result = results[figure["run"]]
        expected = _expected(result, figure)
        if isinstance(expected, str):
            if figure["value"] != expected or not _shows_text(figure["shown"], expected, figure["form"]):
                yield f"{figure} is not {expected!r}"
        elif expected is None or abs(float(figure["value"]) - expected) > 1e-9:
            yield f"{figure} is not {expected!r}"
        else:
            shown, unit = number_in(figure["shown"], figure["form"])
            # Half of the last digit that is shown.
            if abs(shown - expected) > unit * 0.5000001:
                yield f"{figure} shows {shown}, which is not {expected}"


def _expected(result: Mapping[str, Any], figure: Mapping[str, str]) -> Any:
    if path := figure["path"]:
        return _at(result, path)
    if path := figure["sum"]:
        return round(sum(_all(result, path)), 9)
    return _at(result, figure["share"]) / sum(_all(result, figure["of"]))


def _at(result: Any, path: str) -> Any:
    for name in path.split("."):
        result = result[int(name)] if isinstance(result, list) else result[name]
    return result


def _all(result: Mapping[str, Any], path: str) -> list[float]:
    many, _, name = path.partition(".*.")
    return [row[name] for row in _at(result, many)]


def _shows_text(shown: str, expected: str, form: str) -> bool:
    if form == "time":
        return shown == datetime.fromisoformat(expected).strftime("%H:%M:%S")
    if form == "moment":
        return shown.startswith(datetime.fromisoformat(expected).strftime("%Y-%m-%d %H:%M:%S"))
    return shown == expected


def number_in(text: str, form: str) -> tuple[float, float]:
    """The number that a text shows, and what its last digit stands for."""
    if ":" in text:
        parts = text.split(":")
        seconds = sum(float(part) * 60**i for i, part in enumerate(reversed(parts)))
        return seconds, 10.0 ** -len(text.partition(".")[2])
    match = _NUMBER.search(text)
    assert match, text
    plain = match[0].replace(",", "").replace("−", "-")
    digits, _, power = plain.partition("e")
    scale = 10.0 ** int(power or 0)
    unit = next((size for name, size in _UNITS.items() if text.endswith(name)), 1.0)
    if form == "mib":
        unit = 1024.0
    number, last = float(digits) * scale * unit, 10.0 ** -len(digits.partition(".")[2]) * scale * unit
    return number, max(last, _significance(digits) * scale * unit)


def _significance(digits: str) -> float:
    """A figure of three digits, as 123 for 123.4, or of two, as $0.00001 for 0.0000103, has been rounded there."""
    bare = digits.lstrip("-+0.").replace(".", "")
    return 0.0 if len(bare) != 1 or "." not in digits else 10.0 ** -len(digits.partition(".")[2])
