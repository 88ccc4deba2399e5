"""Prompts made up of words, each of just so many tokens as the tokenizer counts them, and no two alike.

Only words are used that are one token each, at the beginning of a text and after another word, whatever stands around
them: so lengths add up, and a prompt of thousands of tokens is put together from ready blocks without being tokenized.
Whether they do add up is tried when the words are chosen. Where a tokenizer joins tokens across words, each prompt is
counted and mended instead.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from random import Random

from recipes.errors import InvalidRecipe, Problem
from recipes.traffic import Synthetic
from runners.text.tokens import RoughCounter, TokenCounter
from runners.workloads.load.chance import chance_of
from runners.workloads.load.prompts import Ask, Sizes
from runners.workloads.load.words import WORDS

_BLOCK, _BLOCKS = 64, 512
"""Words of a ready piece of text, and how many such pieces there are."""
_FEWEST_WORDS = 16
_TRIED = 8
"""So many prompts are counted before the words are trusted."""
_MENDED, _ENDS = 64, 24
"""So often a prompt's end is tried, and with so many words at a time."""
_MOST_COUNTED = 20_000
"""The lengths of so many prompts are drawn for the plan."""


@dataclass(frozen=True)
class Words:
    """Words of one token each, and what stands between them."""

    words: tuple[str, ...]
    joint: str
    special_tokens: int
    """What the tokenizer adds to every text."""
    adds_up: bool = True
    """Whether a text of n of them has n tokens, always."""

    @cached_property
    def blocks(self) -> tuple[str, ...]:
        chance = chance_of("blocks")
        return tuple(self.joined(chance.choices(self.words, k=_BLOCK)) for _ in range(_BLOCKS))

    def joined(self, words: Sequence[str]) -> str:
        return self.joint.join(words)

    def text(self, chance: Random, tokens: int) -> str:
        """So many words, by chance."""
        blocks, rest = divmod(tokens, _BLOCK)
        return self.joined([*chance.choices(self.blocks, k=blocks), *chance.choices(self.words, k=rest)])


@dataclass(frozen=True)
class SyntheticPrompts:
    """Any number of prompts; that of a number is always the same for the same seed."""

    settings: Synthetic
    seed: int
    words: Words
    counter: TokenCounter
    digits: int
    """So many words at a prompt's beginning, after what all share, say its number: they make it differ from others."""

    @property
    def source(self) -> str:
        prefix = self.settings.shared_prefix_tokens
        shared = f", {prefix:,} of them shared" if prefix else ""
        return f"synthetic, {self.settings.input_tokens:,} tokens{shared}"

    @property
    def distinct(self) -> int | None:
        return None

    def ask(self, number: int) -> Ask:
        chance = chance_of(self.seed, number)
        tokens, output = self._lengths(chance)
        room = tokens - self.words.special_tokens
        parts = [self._prefix] if self._prefix else []
        head = self.settings.shared_prefix_tokens + self.digits
        parts.append(self.words.joined(self._numbered(number)))
        if room > head:
            parts.append(self.words.text(chance, room - head))
        text = self.words.joined(parts)
        if not self.words.adds_up:
            text = _mended(text, tokens, self.words, self.counter, chance)
        return Ask(text, output, forced=True)

    def sizes(self, requests: int) -> Sizes:
        if not (self.settings.input_stdev or self.settings.output_stdev):
            found = [(self.settings.input_tokens, self.settings.output_tokens)]
        else:
            numbers = range(min(requests, _MOST_COUNTED))
            found = [self._lengths(chance_of(self.seed, number)) for number in numbers]
        prompts, outputs = zip(*found, strict=True)
        return Sizes(
            prompt_tokens=sum(prompts) / len(found),
            output_tokens=sum(outputs) / len(found),
            longest_tokens=max(map(sum, found)),
            longest_answer=max(outputs),
        )

    @cached_property
    def _prefix(self) -> str:
        shared = self.settings.shared_prefix_tokens
        return self.words.text(chance_of(self.seed, "shared"), shared) if shared else ""

    def _numbered(self, number: int) -> list[str]:
        """The number in base n, with the n words as digits, the last digit first."""
        found = []
        for _ in range(self.digits):
            number, digit = divmod(number, len(self.words.words))
            found.append(self.words.words[digit])
        return found

    def _lengths(self, chance: Random) -> tuple[int, int]:
        settings = self.settings
        least = self.words.special_tokens + settings.shared_prefix_tokens + self.digits
        return (
            _drawn(chance, settings.input_tokens, settings.input_stdev, least),
            _drawn(chance, settings.output_tokens, settings.output_stdev, 1),
        )


def _drawn(chance: Random, mean: int, deviation: float, least: int) -> int:
    """A normal length, cut at three deviations, so that the longest request is known before."""
    if not deviation:
        return mean
    far = 3 * deviation
    return max(least, round(min(max(chance.gauss(mean, deviation), mean - far), mean + far)))


def synthetic_prompts(settings: Synthetic, seed: int, requests: int, counter: TokenCounter) -> SyntheticPrompts:
    """Prompts of these lengths, so many of them different. Raises InvalidRecipe where they cannot be made."""
    words = usable_words(counter)
    if words is None:
        raise _impossible(f"no words of one token were found for {counter.name}; write traffic.prompts: FILE")
    digits = 1
    while len(words.words) ** digits < requests:
        digits += 1
    least = words.special_tokens + settings.shared_prefix_tokens + digits
    if settings.input_tokens < least:
        raise _impossible(
            f"input_tokens {settings.input_tokens} leave no room to tell {requests:,} prompts apart; "
            f"write at least {least}"
        )
    made = SyntheticPrompts(settings, seed, words, counter, digits)
    tried = [made.ask(number) for number in range(_TRIED)]
    chances = [chance_of(seed, number) for number in range(_TRIED)]
    asked = [made._lengths(chance)[0] for chance in chances]
    if counter.count_all([ask.prompt for ask in tried]) == asked:
        return made
    return replace(made, words=replace(words, adds_up=False))


def _impossible(message: str) -> InvalidRecipe:
    what, _, advice = message.partition("; ")
    return InvalidRecipe([Problem(file="workload.traffic.synthetic", code="value", message=what, suggestion=advice)])


def usable_words(counter: TokenCounter) -> Words | None:
    """Words that are one token each; letters where a tokenizer knows none."""
    special = counter.count("")
    if isinstance(counter, RoughCounter):
        return Words(tuple(string.ascii_lowercase), " ", special)  # for the plan; nothing is sent
    letters = tuple(string.ascii_lowercase)
    pairs = tuple(map("".join, product(string.ascii_lowercase, repeat=2)))
    for candidates, joint in ((WORDS, " "), (pairs, " "), (letters, ""), (letters, " ")):
        words = _single(candidates, joint, special, counter)
        if len(words) >= _FEWEST_WORDS:
            return Words(words, joint, special)
    return None


def _single(candidates: tuple[str, ...], joint: str, special: int, counter: TokenCounter) -> tuple[str, ...]:
    """Those that are one token at a text's beginning, and one more after each other."""
    alone = counter.count_all(candidates)
    first = [word for word, tokens in zip(candidates, alone, strict=True) if tokens == special + 1]
    again = counter.count_all([joint.join((word, word, word)) for word in first])
    return tuple(word for word, tokens in zip(first, again, strict=True) if tokens == special + 3)


def _mended(text: str, tokens: int, words: Words, counter: TokenCounter, chance: Random) -> str:
    """The text with another end, so that it has so many tokens; or as near as one comes by trying."""
    fillers = [*words.words, *string.ascii_lowercase, *string.punctuation]
    parts = text.split(words.joint) if words.joint else list(text)
    for number in range(_MENDED):
        missing = tokens - counter.count(words.joined(parts))
        if missing == 0:
            break
        if missing < 0:  # a little more each time, or it would come back to where it was
            parts = parts[: missing - number // 4]
        elif missing > 2:
            parts += chance.choices(words.words, k=missing - 1)
        else:
            ends = chance.sample(fillers, k=min(_ENDS, len(fillers)))
            found = counter.count_all([words.joined([*parts, end]) for end in ends])
            parts.append(ends[found.index(tokens)] if tokens in found else ends[0])
    return words.joined(parts)
