"""How much work a run is, level by level: exact for the first, expected for those that follow from its answers."""

from __future__ import annotations

import math
from dataclasses import dataclass

from recipes.ranges import Range

LIKELY_SHARE = 0.35
"""Of max_tokens, for an answer of which nothing is known: the published runs of this workload lie near a third."""
_LOW_SHARE, _HIGH_SHARE = 0.15, 0.75


@dataclass(frozen=True)
class Group:
    """Documents that begin with the same number of requests."""

    documents: int
    requests: int
    """Of the first level, each."""
    prompt_tokens: int
    """Of the first level, all of them together, the template included."""


@dataclass(frozen=True, kw_only=True)
class Joining:
    """How answers become requests again: joined, and cut like the texts, until one request holds what is left."""

    chunk_tokens: int
    overlap_tokens: int
    template_tokens: int
    max_levels: int


@dataclass(frozen=True, kw_only=True)
class Level:
    """All requests that nothing but the level before keeps waiting. Expected values need not be whole."""

    number: int
    documents: int
    requests: float
    prompt_tokens: float
    output_tokens: float


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is asked of the engine, for any length of the answers."""

    groups: tuple[Group, ...]
    max_tokens: int
    joining: Joining | None = None
    """None if answers are not asked about again."""

    def levels(self, answer_tokens: float) -> tuple[Level, ...]:
        """What there is to do if answers have so many tokens on average."""
        answer = min(max(answer_tokens, 1.0), float(self.max_tokens))
        found: dict[int, list[Level]] = {}
        for group in self.groups:
            for level in _levels_of(group, self.joining, answer):
                found.setdefault(level.number, []).append(level)
        return tuple(_sum(levels) for _, levels in sorted(found.items()))

    def answers(self) -> Range:
        """Tokens of an answer, as long as no run has shown them."""
        low, likely, high = (max(1.0, share * self.max_tokens) for share in (_LOW_SHARE, LIKELY_SHARE, _HIGH_SHARE))
        return Range(low, likely, high)

    def bounds(self) -> Totals:
        """At least if every answer is one token, at most if every answer is as long as allowed."""
        return totals(self, Range(1.0, self.answers().likely, float(self.max_tokens)))


def _levels_of(group: Group, joining: Joining | None, answer: float) -> list[Level]:
    number, requests, prompt = 1, float(group.requests), group.prompt_tokens / group.documents
    found = [_level(group, number, requests, prompt, answer)]
    if joining is None or group.requests == 1:
        return found
    before, tokens = prompt - requests * joining.template_tokens, requests * (answer + 1)
    while number < joining.max_levels and tokens < before:
        number += 1
        last = tokens < joining.chunk_tokens
        requests, prompt = (1.0, tokens) if last else _cut(tokens, answer, joining)
        found.append(_level(group, number, requests, prompt + requests * joining.template_tokens, answer))
        if last:
            break
        before, tokens = tokens, requests * (answer + 1)
    return found


def _cut(tokens: float, answer: float, joining: Joining) -> tuple[float, float]:
    """Chunks of joined answers and their tokens. Cuts fall between answers: half of one is left free on average."""
    half = min(answer / 2, joining.chunk_tokens / 4)
    overlap = max(0.0, joining.overlap_tokens - half)
    new = max(joining.chunk_tokens - half - overlap, joining.chunk_tokens / 8)
    chunks = max(2.0, math.ceil((tokens - overlap) / new))
    return chunks, tokens + (chunks - 1) * overlap


def _level(group: Group, number: int, requests: float, prompt: float, answer: float) -> Level:
    n = group.documents
    return Level(
        number=number,
        documents=n,
        requests=n * requests,
        prompt_tokens=n * prompt,
        output_tokens=n * requests * answer,
    )


def _sum(levels: list[Level]) -> Level:
    return Level(
        number=levels[0].number,
        documents=sum(level.documents for level in levels),
        requests=sum(level.requests for level in levels),
        prompt_tokens=sum(level.prompt_tokens for level in levels),
        output_tokens=sum(level.output_tokens for level in levels),
    )


@dataclass(frozen=True, kw_only=True)
class Totals:
    """Of the whole run."""

    levels: Range
    requests: Range
    prompt_tokens: Range
    output_tokens: Range


def totals(work: Work, answers: Range) -> Totals:
    """What a range of answers' lengths makes of the work."""
    low, likely, high = (work.levels(tokens) for tokens in (answers.low, answers.likely, answers.high))
    cases = (low, likely, high)
    return Totals(
        levels=_ordered([float(len(levels)) for levels in cases]),
        requests=_ordered([sum(level.requests for level in levels) for levels in cases]),
        prompt_tokens=_ordered([sum(level.prompt_tokens for level in levels) for levels in cases]),
        output_tokens=_ordered([sum(level.output_tokens for level in levels) for levels in cases]),
    )


def _ordered(values: list[float]) -> Range:
    """A longer answer can end the work early, where summaries do not shrink; the likely value stays."""
    low, likely, high = values
    return Range(min(values), likely, max(likely, low, high))
