"""What a document still needs, foreseen from its chunks and from how long answers have been so far.

The schedule judges by it which document has the longest way to go, and how much work is left for all slots.
"""

from __future__ import annotations

from collections.abc import Mapping

from runners.forecast.work import Group, Work
from runners.schedule.schedule import Schedule
from runners.workloads.summarize.documents import Document

_PRIOR = 4
"""So many answers weigh as much as what is assumed of them before the first."""


class Foresight:
    """How many requests are to come, level by level."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._assumed = work.answers().likely
        self._answers, self._tokens = 0, 0.0

    def saw(self, tokens: int) -> None:
        """An answer had so many tokens."""
        self._answers += 1
        self._tokens += tokens

    def first(self, document: Document) -> dict[int, float]:
        """Requests by height of a document that has not begun, as long as no answer has been seen."""
        return self._heights(document.chunks, document.prompt_tokens, self._assumed)

    def of(self, chunks: int, prompt_tokens: float) -> dict[int, float]:
        """Requests by height of a document that has so many chunks to ask about."""
        answer = (_PRIOR * self._assumed + self._tokens) / (_PRIOR + self._answers)
        return self._heights(chunks, prompt_tokens, answer)

    def _heights(self, chunks: int, prompt_tokens: float, answer: float) -> dict[int, float]:
        if chunks == 1:
            return {1: 1.0}
        levels = Work(
            groups=(Group(1, chunks, round(prompt_tokens)),),
            max_tokens=self._work.max_tokens,
            joining=self._work.joining,
        ).levels(answer)
        return {len(levels) - i: level.requests for i, level in enumerate(levels)}


class Outlook:
    """What the schedule expects of one document, as it was told."""

    __slots__ = ("_rank", "_schedule", "_told")

    def __init__(self, schedule: Schedule, rank: int, requests: Mapping[int, float]) -> None:
        """`requests` by height, which the schedule is told."""
        self._schedule, self._rank = schedule, rank
        self._told: dict[int, float] = {}
        self.becomes(requests)

    def becomes(self, requests: Mapping[int, float]) -> None:
        """These are to come, by height, and no others."""
        heights = {*self._told, *requests}
        changes = {height: requests.get(height, 0.0) - self._told.get(height, 0.0) for height in heights}
        if changes := {height: change for height, change in changes.items() if change}:
            self._schedule.expect(changes, document=self._rank)
        self._told = dict(requests)

    def asked(self, height: int) -> None:
        """One asks for its turn, which the schedule counts itself."""
        self._told[height] = max(0.0, self._told.get(height, 0.0) - 1)

    def answered(self, height: int) -> None:
        """One will not ask for its turn: its answer is there."""
        if (told := self._told.get(height, 0.0)) > 0:
            self.becomes({**self._told, height: max(0.0, told - 1)})
