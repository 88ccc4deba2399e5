"""Chance that repeats itself: the same for the same words."""

from __future__ import annotations

from random import Random


def chance_of(*words: object) -> Random:
    """A generator that depends on the words alone; it shapes a load, and keeps no secret."""
    return Random(" ".join(map(str, words)))  # noqa: S311
