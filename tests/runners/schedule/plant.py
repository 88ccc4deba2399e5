"""An engine and a client with endless work, in virtual time: what the limit of what is under way does to both."""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count, pairwise

from runners.engine import EngineSample
from runners.schedule.concurrency import Concurrency

_RETRIES = 5


@dataclass(kw_only=True)
class Plant:
    """An engine of so many slots, at different times; requests take `ttft_s`, then `answer_s` times 1 ± `spread`."""

    slots: Sequence[tuple[float, int]]
    """From when on there are how many."""
    metrics: bool = True
    ttft_s: float = 0.2
    per_prompt_token_s: float = 0.0
    cached_share: float = 0.0
    """Of requests whose prompt is in the prefix cache: their first token comes at once."""
    answer_s: float = 1.3
    spread: float = 0.3
    trip_s: float = 0.005
    """From the client to the engine, and back."""
    kv_requests: float | None = None
    """So many requests fit at their full length; the youngest is thrown out when they do not."""
    most_waiting: int | None = None
    faults: Sequence[tuple[float, float, float]] = ()
    """From when until when what share of the requests is refused, whatever the engine does."""
    gateway: Sequence[tuple[float, int]] = ((0, 1_000_000),)
    """From when on no more than how many are let through at once."""
    whole: bool = False
    """Answers come in one piece, without a time to the first token."""
    seed: int = 1

    running: list[tuple[float, float]] = field(default_factory=list, init=False)
    """The moments at which this changed, and to what."""
    waiting: list[tuple[float, float]] = field(default_factory=list, init=False)
    limits: list[tuple[float, float]] = field(default_factory=list, init=False)
    preemptions: int = field(default=0, init=False)
    refused_s: list[float] = field(default_factory=list, init=False)
    """When a request was refused."""
    given_up: int = field(default=0, init=False)
    """Requests that were refused as often as a client tries."""
    answers: int = field(default=0, init=False)

    def run(self, concurrency: Concurrency, seconds: float) -> Plant:
        return _Loop(self, concurrency).run(seconds)

    def slots_at(self, at_s: float) -> int:
        return next(slots for since, slots in reversed(self.slots) if since <= at_s)

    def limit_at(self, at_s: float) -> float:
        return next(limit for since, limit in reversed(self.limits) if since <= at_s)

    def busy(self, since_s: float, until_s: float) -> float:
        """The share of that time in which as many requests ran as there were slots."""
        steps = [*self.running, (until_s, 0.0)]
        full = 0.0
        for (begin, running), (end, _) in pairwise(steps):
            begin, end = max(begin, since_s), min(end, until_s)
            full += max(0.0, end - begin) if running >= self.slots_at(begin) else 0.0
        return full / (until_s - since_s)

    @property
    def refusals(self) -> int:
        return len(self.refused_s)

    def refusals_in(self, since_s: float, until_s: float) -> int:
        return sum(since_s <= at_s < until_s for at_s in self.refused_s)

    def mean_running(self, since_s: float, until_s: float) -> float:
        return _mean(self.running, since_s, until_s)

    def mean_waiting(self, since_s: float, until_s: float) -> float:
        """Requests in the engine's queue."""
        return _mean(self.waiting, since_s, until_s)


def _mean(steps: Sequence[tuple[float, float]], since_s: float, until_s: float) -> float:
    total = 0.0
    for (begin, value), (end, _) in pairwise([*steps, (until_s, 0.0)]):
        total += value * max(0.0, min(end, until_s) - max(begin, since_s))
    return total / (until_s - since_s)


@dataclass(eq=False)
class _Request:
    sent_s: float
    prompt_tokens: int
    answer_s: float
    tries: int = 1
    admitted_s: float = 0.0
    first_s: float | None = None


class _Loop:
    def __init__(self, plant: Plant, concurrency: Concurrency) -> None:
        self._plant, self._concurrency = plant, concurrency
        self._chance = random.Random(plant.seed)
        self._events: list[tuple[float, int, str, _Request | None]] = []
        self._number = count()
        self._queue: deque[_Request] = deque()
        self._running: dict[_Request, None] = {}
        self._under_way = 0
        self._now = 0.0

    def run(self, seconds: float) -> Plant:
        for since, _ in self._plant.slots:
            self._at(since, "resized")
        self._send()
        if self._plant.metrics:
            self._at(0.05, "looked")
        while self._events and self._events[0][0] <= seconds:
            self._now, _, kind, request = heapq.heappop(self._events)
            getattr(self, f"_{kind}")(request)
            self._admit()
            plant = self._plant
            plant.running.append((self._now, len(self._running)))
            plant.waiting.append((self._now, len(self._queue)))
            plant.limits.append((self._now, self._concurrency.limit))
        return self._plant

    def _at(self, moment: float, kind: str, request: _Request | None = None) -> None:
        heapq.heappush(self._events, (moment, next(self._number), kind, request))

    def _send(self) -> None:
        plant = self._plant
        while self._under_way < self._concurrency.limit:
            self._under_way += 1
            length = plant.answer_s * (1 + plant.spread * (2 * self._chance.random() - 1))
            request = _Request(self._now, self._chance.randint(500, 3000), length)
            self._at(self._now + plant.trip_s, "arrived", request)

    def _arrived(self, request: _Request) -> None:
        if self._refuses():
            self._plant.refused_s.append(self._now)
            self._at(self._now + self._plant.trip_s, "refused", request)
        else:
            self._queue.append(request)

    def _refuses(self) -> bool:
        plant, now = self._plant, self._now
        full = len(self._running) >= plant.slots_at(now)
        if plant.most_waiting is not None and full and len(self._queue) >= plant.most_waiting:
            return True
        let_through = next(most for since, most in reversed(plant.gateway) if since <= now)
        if len(self._running) + len(self._queue) >= let_through:
            return True
        return any(begin <= now < end and self._chance.random() < share for begin, end, share in plant.faults)

    def _refused(self, request: _Request) -> None:
        """The client waits as the real one does, and tries again; meanwhile the request keeps its turn."""
        self._concurrency.refused(self._under_way, at_s=self._now)
        if request.tries > _RETRIES:
            self._plant.given_up += 1
            self._under_way -= 1
            self._send()
            return
        pause_s = 0.25 * 2**request.tries * (0.5 + self._chance.random())
        request.tries += 1
        self._at(self._now + pause_s, "sent_again", request)

    def _sent_again(self, request: _Request) -> None:
        request.sent_s = self._now
        self._at(self._now + self._plant.trip_s, "arrived", request)

    def _admit(self) -> None:
        plant = self._plant
        while self._queue and len(self._running) < plant.slots_at(self._now) and self._fits():
            request = self._queue.popleft()
            request.admitted_s = self._now
            self._running[request] = None
            reading_s = plant.ttft_s + plant.per_prompt_token_s * request.prompt_tokens
            first = self._now + (0.02 if self._chance.random() < plant.cached_share else reading_s)
            self._at(first, "begun", request)
            self._at(first + request.answer_s, "ended", request)

    def _held(self) -> float:
        """Requests at their full length that would take as much memory: half of one is its prompt."""
        whole = self._plant.ttft_s + self._plant.answer_s
        return sum(0.5 + 0.5 * min(1.0, (self._now - r.admitted_s) / whole) for r in self._running)

    def _fits(self) -> bool:
        return self._plant.kv_requests is None or self._held() + 0.5 <= self._plant.kv_requests

    def _begun(self, request: _Request) -> None:
        if request in self._running and request.first_s is None:
            request.first_s = self._now
        plant = self._plant
        if plant.kv_requests is not None and self._held() > plant.kv_requests and len(self._running) > 1:
            youngest = next(reversed(self._running))
            del self._running[youngest]
            plant.preemptions += 1
            again = _Request(youngest.sent_s, youngest.prompt_tokens, youngest.answer_s, first_s=youngest.first_s)
            self._queue.appendleft(again)

    def _ended(self, request: _Request) -> None:
        if request not in self._running:
            return  # it was thrown out, and begins anew
        del self._running[request]
        self._at(self._now + self._plant.trip_s, "answered", request)

    def _answered(self, request: _Request) -> None:
        self._under_way -= 1
        self._plant.answers += 1
        self._send()
        assert request.first_s is not None
        self._concurrency.answered(
            ttft_s=None if self._plant.whole else request.first_s - request.sent_s,
            e2e_s=self._now - request.sent_s,
            prompt_tokens=request.prompt_tokens,
            under_way=self._under_way,
            at_s=self._now,
        )
        self._send()

    def _resized(self, _: _Request | None) -> None:
        """Admitting follows each event."""

    def _looked(self, _: _Request | None) -> None:
        plant = self._plant
        share = self._held() / plant.kv_requests if plant.kv_requests else None
        sample = EngineSample(
            running=len(self._running), waiting=len(self._queue), kv_usage=share, preemptions_total=plant.preemptions
        )
        self._concurrency.sampled(sample, self._under_way, at_s=self._now)
        self._send()
        self._at(self._now + self._concurrency.look_again_s, "looked")
