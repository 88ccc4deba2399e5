"""Reads the server-sent events of a stream: the pieces of text, when each arrived, why it ended, and the usage.

The events of a stream differ in their text alone, and mostly come one to a block. So once a block has been understood,
its form is remembered: what stands before the text and what after it. Of a further block of that form only the text is
read, and the texts of many blocks at once. That gives exactly what parsing each of them would: what comes before the
text is the same, so it stands in the same place of the same structure, and it is a JSON string by itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

import orjson

from runners.client.refusal import Unsuccessful, refusal

_TEXT = re.compile(rb'"(?:text|content)":\s*"((?:[^"\\]|\\.)*)"')
_PROBE = "\u2042 a text \u2042"
_IN_VAIN = 8
"""So many forms that hold for few blocks, one after the other, and blocks are parsed as they come."""
_FEW = 4


class Stream:
    """What a stream has said so far."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.arrivals: list[float] = []
        """When each piece's block came; a piece that was cut over blocks has come with its last."""
        self.finish_reason: str | None = None
        self.usage: dict[str, Any] = {}
        self._rest = b""
        """The beginning of a line whose end has not come."""
        self._before, self._after = b"", b""
        """The form of a block, once there is one."""
        self._in_vain = 0

    def whole(self, body: bytes) -> None:
        """An answer that came in one piece, as one event; when its first token was there nobody can say."""
        self._event(body, 0.0)
        self.arrivals.clear()

    def feed(self, moments: Iterable[float], blocks: Iterable[bytes]) -> None:
        """Blocks in the order of their arrival. Raises Unsuccessful for an error that the endpoint reports in them."""
        texts: list[bytes] = []
        came: list[float] = []
        before, after = self._before, self._after
        start, end, least = len(before), -len(after), len(before) + len(after)
        for moment, block in zip(moments, blocks, strict=True):
            if least and block.startswith(before) and block.endswith(after) and len(block) >= least and not self._rest:
                texts.append(block[start:end])
                came.append(moment)
                continue
            self._say(texts, came)
            texts, came = [], []
            self._block(moment, block)
            before, after = self._before, self._after
            start, end, least = len(before), -len(after), len(before) + len(after)
        self._say(texts, came)

    def _say(self, texts: list[bytes], came: list[float]) -> None:
        """Take in the texts of blocks of the known form, as they stand between the quotes."""
        if not texts:
            return
        if len(texts) >= _FEW:
            self._in_vain = 0
        said = _strings(texts)
        if said is None:
            for text, moment in zip(texts, came, strict=True):
                if (one := _strings([text])) is None:
                    self._block(moment, self._before + text + self._after)
                else:
                    self._add(one[0], moment)
        elif all(said):
            self.pieces += said
            self.arrivals += came
        else:
            for piece, moment in zip(said, came, strict=True):
                self._add(piece, moment)

    def _add(self, piece: str, moment: float) -> None:
        if piece:
            self.pieces.append(piece)
            self.arrivals.append(moment)

    def _block(self, moment: float, block: bytes) -> None:
        begun, pieces = bool(self._rest), len(self.pieces)
        *lines, self._rest = (self._rest + block).split(b"\n")
        for line in lines:
            if line.startswith(b"data:") and (data := line[5:].strip()) != b"[DONE]":
                self._event(data, moment)
        one_event = not begun and not self._rest and len(lines) == 2 and len(self.pieces) == pieces + 1
        if one_event and self._in_vain < _IN_VAIN:
            self._learn(block)

    def _learn(self, block: bytes) -> None:
        """Remember the block's form, if a block of this form can say nothing but a piece of text."""
        self._in_vain += 1
        self._before = self._after = b""
        found = _TEXT.search(block)
        if found is None:
            return
        before, after = block[: found.start(1)], block[found.end(1) :]
        probe = Stream()
        probe._in_vain = _IN_VAIN
        probe.feed([0.0], [before + _PROBE.encode() + after])
        if probe.pieces == [_PROBE] and not probe.usage and probe.finish_reason is None:
            self._before, self._after = before, after

    def _event(self, data: bytes, moment: float) -> None:
        event = _event_in(data)
        if error := event.get("error"):
            code = error.get("code") if isinstance(error, dict) else None
            status = code if isinstance(code, int) and 400 <= code < 600 else 500
            raise refusal(status, json.dumps(event), None, where="an error in the stream")
        try:
            self.usage = dict(event.get("usage") or self.usage)
            for choice in event.get("choices") or ():
                said = choice.get("delta") or choice.get("message") or {}
                self._add("" + (choice.get("text") or said.get("content") or ""), moment)
                self.finish_reason = choice.get("finish_reason") or self.finish_reason
        except (AttributeError, TypeError, ValueError):
            raise _no_event(data) from None


def _event_in(data: bytes) -> dict[str, Any]:
    try:
        event = orjson.loads(data)
    except ValueError:
        event = _leniently(data)
    if not isinstance(event, dict):
        raise _no_event(data)
    return event


def _leniently(data: bytes) -> Any:
    """As the standard library reads it, which takes half characters."""
    try:
        return json.loads(data)
    except ValueError:
        return None


def _no_event(data: bytes) -> Unsuccessful:
    return Unsuccessful(f"the stream holds no event: {data[:100].decode('utf-8', 'replace')}", again=True)


def _strings(texts: list[bytes]) -> list[str] | None:
    """What these say as JSON strings; None if one of them may be none, or more than one."""
    joined = b'["%b"]' % b'","'.join(texts)
    if len(texts) > 1 and joined.count(b'"') != 2 * len(texts):
        return None  # with a quote inside, one text could end early and another begin late
    try:
        said: list[str] = orjson.loads(joined)
    except ValueError:
        return None
    return said if len(said) == len(texts) else None
