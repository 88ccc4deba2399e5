"""How long RunPod is waited for, all in one place, so that a test or a rehearsal can shrink it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Self


@dataclass(frozen=True, kw_only=True)
class Pace:
    """The times of the conversation with RunPod."""

    connect_s: float = 10.0
    """To open a connection."""
    request_s: float = 15.0
    """For the answer to a read or a delete."""
    create_s: float = 60.0
    """For the answer to a create."""
    again_s: float = 20.0
    """A read that gets no usable answer is asked again for so long."""
    again_limited_s: float = 75.0
    """The same for one that is answered with "too many requests": such a window is a minute, as a rule."""
    backoff_first_s: float = 0.25
    backoff_most_s: float = 4.0
    """Pauses between tries: they double from the first to the longest; each is shortened by up to a quarter."""

    limited_s: float = 300.0
    """A create that is answered with "too many requests", or cannot be sent, is asked again for so long."""
    looks_s: float = 60.0
    """After a create without a clear answer, the pod is looked for by its name for so long."""
    look_first_s: float = 0.25
    look_every_s: float = 2.0
    asks: int = 3
    """How often a create is asked in all, where no answer came and no pod appeared."""
    hanging_s: float = 8.0
    """A create that has no answer for so long is looked for beside the waiting."""
    last_word_s: float = 5.0
    """Somebody who interrupts a create waits so long for its answer, which names the pod."""

    poll_first_s: float = 0.25
    poll_most_s: float = 2.0
    poll_growth: float = 1.25
    """How often a starting pod is read."""
    exited_s: float = 5.0
    """A pod that stays EXITED for so long will not come up by itself."""
    missing_s: float = 60.0
    """A pod that nobody has read or listed for so long after its creation is taken for lost."""

    twins_s: float = 3.0
    """So long after the first look for pods of the same name comes the second."""
    turned_away_s: float = 60.0
    """A pod whose sshd lets us not in for so long never will."""

    release_s: float = 60.0
    """To let go of a pod that must not stay, where the caller has not said for how long."""
    lists_apart_s: float = 2.0
    """Between the two lists that prove an absence."""
    settle_s: float = 10.0
    """A pod that was known, and whose delete is not accepted because there is none, must stay absent for so long."""
    unnamed_settle_s: float = 30.0
    """The same for a pod that may have been asked for, but never got an id."""
    unreadable_s: float = 300.0
    """A pod younger than this may be there although RunPod denies it."""

    def scaled(self, factor: float) -> Self:
        """All waits multiplied, for a RunPod that is emulated at another speed; what one answer may take stays."""
        waits = [field.name for field in fields(self) if field.name.endswith("_s") and field.name not in _ANSWERS]
        return replace(self, **{name: getattr(self, name) * factor for name in waits})

    @classmethod
    def of(cls, env: Mapping[str, str]) -> Self:
        """The usual one, or so many times it as RECIPE_RUNPOD_PACE says: rehearsals and tests set that below 1.

        Never set it for RunPod itself: what is waited for is what proves that nothing bills.
        """
        try:
            factor = float(env.get("RECIPE_RUNPOD_PACE") or 1.0)
        except ValueError:
            return cls()
        return cls().scaled(factor) if factor > 0 else cls()


_ANSWERS = ("connect_s", "request_s", "create_s", "last_word_s")
PACE = Pace()
