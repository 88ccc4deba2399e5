"""How much work a run is, level by level: exact for the first, expected for those that follow from its answers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from recipes.ranges import Range

LIKELY_SHARE = 0.35
"""Of max_tokens, for an answer of which nothing is known: the published runs of this workload lie near a third."""
_LOW_SHARE, _HIGH_SHARE = 0.15, 0.75
_BETWEEN_PIECES = 3
"""Tokens that the splitter counts for a newline and for the special ones of two texts where one will be."""


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
class Merging:
    """How answers become requests again: neighbours together, as many as fit but at least two, until one is left."""

    chunk_tokens: int
    template_tokens: int
    max_levels: int
    most: int | None = None
    """So many at most; None for as many as fit."""

    def together(self, answer_tokens: float) -> int:
        """How many answers of this length make one request."""
        fit = max(2, int((self.chunk_tokens - 1) // (answer_tokens + 1)))
        return fit if self.most is None else min(fit, self.most)


@dataclass(frozen=True, kw_only=True)
class Refining:
    """How answers become requests again: each goes with the document's next chunk, until there is no further one."""

    joint_tokens: int
    """What stands around the answer."""


@dataclass(frozen=True, kw_only=True)
class Level:
    """All requests that nothing but the level before keeps waiting. Expected values need not be whole."""

    number: int
    documents: int
    requests: float
    prompt_tokens: float
    output_tokens: float
    at_once: int | None = None
    """How many of them are under way at most, where that is less than for the others."""
    arriving_s: float = 0.0
    """The time over which they come to the engine, whatever it does with them."""
    ending_s: float | None = None
    """The time after which no further one is sent, however many there are."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is asked of the engine, for any length of the answers."""

    groups: tuple[Group, ...]
    max_tokens: int
    joining: Joining | Merging | Refining | None = None
    """None if answers are not asked about again."""
    points: tuple[Level, ...] = ()
    """Of a load: its points, one after another, instead of groups; output tokens are those that are asked for."""

    def levels(self, answer_tokens: float, *, at_worst: bool = False) -> tuple[Level, ...]:
        """What there is to do if answers have so many tokens on average; at worst, if they fit together badly."""
        if self.points:
            return self.points
        answer = min(max(answer_tokens, 1.0), float(self.max_tokens))
        if isinstance(self.joining, Refining):
            return tuple(_refined(self.groups, self.joining, answer))
        found: dict[int, list[Level]] = {}
        for group in self.groups:
            for level in _levels_of(group, self.joining, answer, at_worst):
                found.setdefault(level.number, []).append(level)
        return tuple(_sum(levels) for _, levels in sorted(found.items()))

    def answers(self) -> Range:
        """Tokens of an answer, as long as no run has shown them."""
        if self.points:
            asked = sum(point.output_tokens for point in self.points) / sum(point.requests for point in self.points)
            return Range(asked, asked, asked)
        low, likely, high = (max(1.0, share * self.max_tokens) for share in (_LOW_SHARE, LIKELY_SHARE, _HIGH_SHARE))
        return Range(low, likely, high)

    def bounds(self) -> Totals:
        """At least if every answer is one token, at most if every answer is as long as allowed."""
        answers = Range(1.0, self.answers().likely, float(self.max_tokens))
        found, worst = totals(self, answers), self.levels(self.max_tokens, at_worst=True)
        return Totals(
            levels=_at_most(found.levels, len(worst)),
            requests=_at_most(found.requests, sum(level.requests for level in worst)),
            prompt_tokens=_at_most(found.prompt_tokens, sum(level.prompt_tokens for level in worst)),
            output_tokens=_at_most(found.output_tokens, sum(level.output_tokens for level in worst)),
        )


def _levels_of(group: Group, joining: Joining | Merging | None, answer: float, at_worst: bool) -> list[Level]:
    prompt = group.prompt_tokens / group.documents
    first = _level(group, 1, float(group.requests), prompt, answer)
    if joining is None or group.requests == 1:
        return [first]
    if isinstance(joining, Merging):
        return [first, *_merged(group, joining, answer)]
    return [first, *_joined(group, joining, answer, at_worst)]


def _joined(group: Group, joining: Joining, answer: float, at_worst: bool) -> list[Level]:
    number, requests, prompt = 1, float(group.requests), group.prompt_tokens / group.documents
    found = []
    before, tokens = prompt - requests * joining.template_tokens, _join_tokens(requests, answer)
    while number < joining.max_levels and tokens < before:
        number += 1
        last = tokens < joining.chunk_tokens
        requests, prompt = (1.0, tokens) if last else _cut(tokens, answer, joining, at_worst)
        found.append(_level(group, number, requests, prompt + requests * joining.template_tokens, answer))
        if last:
            break
        before, tokens = tokens, _join_tokens(requests, answer)
    return found


def _merged(group: Group, merging: Merging, answer: float) -> list[Level]:
    """The levels above the first. A last answer that has no neighbour rises as it is."""
    number, left, found = 1, group.requests, []
    together = merging.together(answer)
    while left > 1 and number < merging.max_levels:
        number += 1
        full, rest = divmod(left, together)
        alone = int(rest == 1)
        requests = full + int(rest > 1)
        prompt = _join_tokens(left - alone, answer) - (requests - 1) + requests * merging.template_tokens
        found.append(_level(group, number, requests, prompt, answer))
        left = requests + alone
    return found


def _refined(groups: Sequence[Group], refining: Refining, answer: float) -> Iterator[Level]:
    """Each document's chunks one after the other: as many levels as the longest has chunks."""
    begun = sorted(groups, key=lambda group: group.requests)
    documents = sum(group.documents for group in begun)
    prompts = sum(group.prompt_tokens / group.requests for group in begun)
    ended, number = 0, 0
    while documents:
        number += 1
        taken = documents * (answer + refining.joint_tokens) if number > 1 else 0.0
        yield Level(
            number=number,
            documents=documents,
            requests=documents,
            prompt_tokens=prompts + taken,
            output_tokens=documents * answer,
        )
        while ended < len(begun) and begun[ended].requests == number:
            documents -= begun[ended].documents
            prompts -= begun[ended].prompt_tokens / begun[ended].requests
            ended += 1


def _join_tokens(answers: float, answer: float) -> float:
    """With a newline between each two."""
    return answers * (answer + 1) - 1


def _cut(tokens: float, answer: float, joining: Joining, at_worst: bool) -> tuple[float, float]:
    """Chunks of joined answers and their tokens. Cuts fall between answers: half of one is left free on average, and
    at worst a whole one, with what the splitter counts between two."""
    free = min(answer / 2, joining.chunk_tokens / 4)
    overlap = max(0.0, joining.overlap_tokens - free)
    if at_worst:
        free, overlap = min(answer + _BETWEEN_PIECES, joining.chunk_tokens / 2), float(joining.overlap_tokens)
    new = max(joining.chunk_tokens - free - overlap, joining.chunk_tokens / 8)
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


def _at_most(found: Range, worst: float) -> Range:
    return Range(found.low, found.likely, max(found.high, worst))


def _ordered(values: list[float]) -> Range:
    """A longer answer can end the work early, where summaries do not shrink; the likely value stays."""
    low, likely, high = values
    return Range(min(values), likely, max(likely, low, high))
