"""The engine behind the slots double: admits, computes, preempts; see slots.py."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

MODEL = "double"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How the engine behaves. Seconds, and tokens of its own: a word of an answer, four characters of a prompt."""

    slots: int = 16
    ttft: float = 0.2
    """From being admitted to the first token, at a prompt of no tokens."""
    per_prompt_token: float = 0.0
    per_token: float = 0.02
    tokens: int = 64
    """Of an answer, on average."""
    spread: float = 0.0
    """Lengths of answers lie evenly in tokens · (1 ± spread)."""
    metrics: str = "vllm"
    slots_at: tuple[tuple[float, int], ...] = ()
    """From so many seconds after the first request on there are so many slots; what runs is not cut off."""
    kv_tokens: int | None = None
    """What prompts and answers under way may have in all; the youngest is preempted, and computed again."""
    most_waiting: int | None = None
    """A request that would make the queue longer is refused with 429."""
    key: str | None = None


class Line(Protocol):
    """Where answers go."""

    def send(self, asked: Asked, words: bytes, *, last: bool) -> None:
        """The next words of an answer, and its end if they are the last."""
        ...

    def close(self) -> None: ...


@dataclass(eq=False)
class Asked:
    """One request. Moments are seconds of time.monotonic(), None if they never came."""

    line: Line
    digest: str
    prompt_tokens: int
    words: bytes
    """The answer: a byte is a word."""
    finish_reason: str
    chat: bool
    stream: bool
    usage: bool
    arrived_s: float
    """When its first byte was read."""
    complete_s: float
    """When its last byte was read."""
    admitted_s: float | None = None
    first_due_s: float | None = None
    first_sent_s: float | None = None
    """When the first piece of text was handed to the kernel."""
    last_sent_s: float | None = None
    status: str = "waiting"
    preempted: int = 0
    sent: int = 0
    timer: asyncio.TimerHandle | None = None
    due_s: float = 0.0

    def row(self) -> dict[str, Any]:
        names = ("digest", "prompt_tokens", "chat", "stream", "status", "preempted", "sent", "arrived_s", "complete_s")
        moments = ("admitted_s", "first_due_s", "first_sent_s", "last_sent_s")
        return {"tokens": len(self.words), **{name: getattr(self, name) for name in (*names, *moments)}}


class Slots:
    """What an engine does with requests: admits as many as there are slots, and lets the others wait."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._loop = asyncio.get_running_loop()
        self._changes: list[asyncio.TimerHandle] = []
        self.asked: list[Asked] = []
        self.reset()

    def reset(self) -> None:
        """Begin anew; whoever is waiting for an answer loses the connection."""
        for timer in self._changes:
            timer.cancel()
        for asked in self.asked:
            if asked.timer:
                asked.timer.cancel()
            if asked.status in ("running", "waiting"):
                asked.status = "gone"
                asked.line.close()
        self._changes = []
        self.slots = self.settings.slots
        self.left: int | None = None
        self.asked: list[Asked] = []
        self.running: dict[Asked, None] = {}
        self.waiting: deque[Asked] = deque()
        self.held_tokens = self.prompt_tokens = self.output_tokens = self.preemptions = self.refused = 0

    def submit(self, asked: Asked) -> None:
        if not self.asked:
            self._changes = [self._loop.call_later(s, self._resize, n) for s, n in self.settings.slots_at]
        self.asked.append(asked)
        self.waiting.append(asked)
        self._admit()

    def admit(self, count: int | None) -> None:
        """Take up so many further requests, and let all others wait; None: no such limit."""
        self.left = count
        self._admit()

    def full(self) -> bool:
        most = self.settings.most_waiting
        if most is None or len(self.running) < self.slots or len(self.waiting) < most:
            return False
        self.refused += 1
        return True

    def forget(self, asked: Asked) -> None:
        """Its client has gone."""
        if asked.status not in ("running", "waiting"):
            return
        if asked.timer:
            asked.timer.cancel()
        asked.status = "gone"
        if asked in self.running:
            self._leave(asked)
            self._admit()
        else:
            with suppress(ValueError):
                self.waiting.remove(asked)

    def _resize(self, slots: int) -> None:
        self.slots = slots
        self._admit()

    def _admit(self) -> None:
        while self.waiting and self.left != 0 and len(self.running) < self.slots and self._fits(self.waiting[0]):
            asked = self.waiting.popleft()
            if self.left is not None:
                self.left -= 1
            self.running[asked] = None
            self.held_tokens += asked.prompt_tokens + asked.sent
            asked.status = "running"
            now = time.monotonic()
            if asked.admitted_s is None:
                asked.admitted_s = now
                self.prompt_tokens += asked.prompt_tokens
            settings = self.settings
            asked.due_s = now + settings.ttft + settings.per_prompt_token * (asked.prompt_tokens + asked.sent)
            if asked.first_due_s is None:
                asked.first_due_s = asked.due_s
            self._arm(asked)

    def _fits(self, asked: Asked) -> bool:
        most = self.settings.kv_tokens
        return most is None or not self.running or self.held_tokens + asked.prompt_tokens + asked.sent < most

    def _arm(self, asked: Asked) -> None:
        delay = asked.due_s - time.monotonic()
        if delay > 0:
            asked.timer = self._loop.call_later(delay, self._step, asked)
        else:
            asked.timer = self._loop.call_soon(self._step, asked)  # type: ignore[assignment]

    def _step(self, asked: Asked) -> None:
        """Its next token; all of them, if they take no time."""
        number = len(asked.words) - asked.sent if self.settings.per_token == 0 else 1
        words = asked.words[asked.sent : asked.sent + number]
        asked.sent += number
        self.held_tokens += number
        self.output_tokens += number
        last = asked.sent == len(asked.words)
        if last:
            asked.status = "done"
            self._leave(asked)  # before the client can know, so that its next request finds the slot free
        asked.line.send(asked, words, last=last)
        now = time.monotonic()
        if asked.first_sent_s is None:
            asked.first_sent_s = now
        if last:
            asked.last_sent_s = now
            self._admit()
            return
        asked.due_s += self.settings.per_token
        self._arm(asked)
        if self.settings.kv_tokens is not None and self.held_tokens > self.settings.kv_tokens and len(self.running) > 1:
            self._preempt(next(reversed(self.running)))

    def _preempt(self, asked: Asked) -> None:
        if asked.timer:
            asked.timer.cancel()
        self._leave(asked)
        self.preemptions += 1
        asked.preempted += 1
        asked.status = "waiting"
        self.waiting.appendleft(asked)

    def _leave(self, asked: Asked) -> None:
        del self.running[asked]
        self.held_tokens -= asked.prompt_tokens + asked.sent

    def metrics(self) -> str:
        usage = min(1.0, self.held_tokens / self.settings.kv_tokens if self.settings.kv_tokens else self._share())
        if self.settings.metrics == "llamacpp":
            figures: dict[str, float] = {
                "llamacpp:prompt_tokens_total": self.prompt_tokens,
                "llamacpp:tokens_predicted_total": self.output_tokens,
                "llamacpp:requests_processing": len(self.running),
                "llamacpp:requests_deferred": len(self.waiting),
            }
            return "".join(f"{name} {value}\n" for name, value in figures.items())
        figures = {
            "vllm:prompt_tokens_total": self.prompt_tokens,
            "vllm:generation_tokens_total": self.output_tokens,
            "vllm:num_requests_running": len(self.running),
            "vllm:num_requests_waiting": len(self.waiting),
            "vllm:kv_cache_usage_perc": round(usage, 4),
            "vllm:num_preemptions_total": self.preemptions,
        }
        return "".join(f'{name}{{engine="0",model_name="{MODEL}"}} {value}\n' for name, value in figures.items())

    def _share(self) -> float:
        return len(self.running) / max(self.slots, len(self.running), 1)
