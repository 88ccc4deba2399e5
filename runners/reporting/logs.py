"""The lines of a run's logs that warn of something, with what stands around them."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

FILES = ("engine.log", "install.log", "driver.log", "client.log")
MOST = 30
"""Places of one file that are shown: the first and the last of them."""
_AROUND = 2
_LONGEST_LINE = 500
_LARGEST = 1 << 25
"""Bytes that are read, from each end of a file."""
_TAIL = 25
_SAID = re.compile(r"\b(DEBUG|INFO|WARN(?:ING)?|ERROR|CRITICAL|FATAL)\b|^\S+ ([DIWE]) |^\[?([IWEF])\d{4} ")
"""The level that a line gives itself: in words, as llama.cpp does, as glog does."""
_SAID_WITHIN = 120
_LEVELS = {"W": "warning", "E": "error", "F": "error", "C": "error", "D": "", "I": ""}
_WARNS = re.compile(r"\b(\w*warning|preempt(ed|ion)?|cannot|could not|unable to)\b", re.IGNORECASE)
_GRAVE = re.compile(
    r"\b(\w*error|\w*exception|traceback|fatal|critical|fail(ed|ure)|killed|aborted|out of memory|oom)\b", re.IGNORECASE
)


@dataclass(frozen=True)
class LogLine:
    number: int
    text: str
    level: str
    """error, warning, or nothing for what only stands around it."""


@dataclass
class Excerpts:
    """What one file has to say."""

    name: str
    places: list[list[LogLine]] = field(default_factory=list)
    left_out: int = 0
    """Places between the first and the last that are shown."""
    tail: list[LogLine] = field(default_factory=list)
    """The end of the file, of a run that failed."""


def excerpts_of(folder: Path, *, failed: bool) -> list[Excerpts]:
    """For each log that warns of something; of a failed run the end of each as well."""
    found = []
    for name in FILES:
        path = folder / name
        if path.is_file():
            excerpts = _read(path, with_tail=failed)
            if excerpts.places or excerpts.tail:
                found.append(excerpts)
    return found


def _read(path: Path, *, with_tail: bool) -> Excerpts:
    found = Excerpts(path.name)
    last: deque[list[LogLine]] = deque(maxlen=MOST // 2)
    count = 0
    for place in _places(path):
        count += 1
        if len(found.places) < MOST // 2:
            found.places.append(place)
        else:
            last.append(place)
    found.places += last
    found.left_out = count - len(found.places)
    if with_tail:
        found.tail = list(deque(_lines(path), maxlen=_TAIL))
    return found


def _places(path: Path) -> Iterator[list[LogLine]]:
    """Stretches of lines around those that warn; near ones are one."""
    before: deque[LogLine] = deque(maxlen=_AROUND)
    place: list[LogLine] = []
    quiet = 0
    for line in _lines(path):
        if line.level:
            place = place or list(before)
            place.append(line)
            quiet = 0
        elif place:
            place.append(line)
            quiet += 1
        before.append(line)
        if place and (quiet >= _AROUND or len(place) >= 4 * MOST):
            yield place
            place, quiet = [], 0
            before.clear()
    if place:
        yield place


def _lines(path: Path) -> Iterator[LogLine]:
    """Of a very large file the beginning and the end."""
    size = path.stat().st_size
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            yield _line(number, raw)
            if size > 2 * _LARGEST and file.tell() > _LARGEST and file.tell() < size - _LARGEST:
                file.seek(size - _LARGEST)
                file.readline()


def _line(number: int, raw: bytes) -> LogLine:
    text = raw[: 4 * _LONGEST_LINE].decode("utf-8", "replace").rstrip("\r\n")
    if len(text) > _LONGEST_LINE:
        text = text[:_LONGEST_LINE] + "…"
    return LogLine(number, text, level_of(text))


def level_of(line: str) -> str:
    """What the line says of itself, else what its words sound like."""
    if said := _SAID.search(line[:_SAID_WITHIN]):
        return _LEVELS[next(filter(None, said.groups()))[0]]
    return "error" if _GRAVE.search(line) else "warning" if _WARNS.search(line) else ""
