"""Prompts made up of words: of just so many tokens, by any tokenizer, and none like another."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from recipes import catalogue
from recipes.errors import InvalidRecipe
from recipes.traffic import Synthetic
from runners.text.tokens import RoughCounter, TokenCounter
from runners.workloads.load.synthetic import SyntheticPrompts, synthetic_prompts, usable_words

LEAD = TokenCounter.from_path(catalogue.ROOT / "models" / "lead")
TEXTS = [path.read_text() for path in sorted((catalogue.ROOT / "texts").glob("*.txt"))]


def byte_level() -> Tokenizer:
    """As GPT-2's and its heirs': pieces that begin with a space, and no special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=2000, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator([*TEXTS, *(text.replace(" ", "\n") for text in TEXTS)], trainer)
    return tokenizer


def across_words() -> Tokenizer:
    """One that joins words: nothing keeps its pieces from reaching over a space."""
    tokenizer = Tokenizer(models.BPE())
    trainer = trainers.BpeTrainer(vocab_size=3000, initial_alphabet=list(map(chr, range(32, 127))))
    tokenizer.train_from_iterator([*TEXTS, *(word for text in TEXTS for word in text.split())], trainer)
    return tokenizer


def letters() -> Tokenizer:
    """One that knows no words at all."""
    vocabulary = {chr(code): code - 32 for code in range(32, 127)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    return tokenizer


def counting(tokenizer: Tokenizer, folder: Path) -> TokenCounter:
    tokenizer.save(str(folder / "tokenizer.json"))
    return TokenCounter.from_path(folder)


MADE = {"byte level": byte_level, "letters": letters, "across words": across_words}


@pytest.fixture(scope="module")
def counters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TokenCounter]:
    made = {name: counting(make(), tmp_path_factory.mktemp("tokenizer")) for name, make in MADE.items()}
    return {"lead": LEAD, **made}


every_tokenizer = pytest.mark.parametrize("name", ["lead", *MADE])


def made(counter: TokenCounter = LEAD, requests: int = 1000, seed: int = 0, **settings: Any) -> SyntheticPrompts:
    return synthetic_prompts(Synthetic.model_validate(settings), seed, requests, counter)


@every_tokenizer
@pytest.mark.parametrize("tokens", [16, 100, 777])
def test_a_prompt_has_just_so_many_tokens(counters: dict[str, TokenCounter], name: str, tokens: int) -> None:
    counter = counters[name]
    prompts = made(counter, input_tokens=tokens)
    assert {counter.count(prompts.ask(number).prompt) for number in range(40)} == {tokens}


@every_tokenizer
def test_no_two_prompts_are_alike_from_their_very_beginning(counters: dict[str, TokenCounter], name: str) -> None:
    prompts = made(counters[name], requests=5000, input_tokens=24)
    beginnings = {prompts.ask(number).prompt[:24] for number in range(5000)}
    assert len(beginnings) == 5000


def test_words_are_put_together_without_the_tokenizer_where_they_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = made(input_tokens=500)
    monkeypatch.setattr(LEAD, "count_all", None)
    assert prompts.words.adds_up
    assert len(prompts.ask(3).prompt) > 500


def test_where_tokens_reach_over_words_each_prompt_is_counted(counters: dict[str, TokenCounter]) -> None:
    assert not made(counters["across words"], input_tokens=200).words.adds_up


def test_the_same_seed_gives_the_same_prompts_in_any_order() -> None:
    one, same, other = made(seed=5), made(seed=5), made(seed=6)
    same.ask(9)
    assert one.ask(3) == same.ask(3) != other.ask(3)


def test_a_shared_prefix_is_shared_and_the_rest_is_not() -> None:
    prompts = made(input_tokens=64, shared_prefix_tokens=40)
    texts = [prompts.ask(number).prompt.split() for number in range(50)]
    assert len({tuple(words[:40]) for words in texts}) == 1
    assert len({tuple(words[40:43]) for words in texts}) == 50
    assert {LEAD.count(" ".join(words)) for words in texts} == {64}


def test_lengths_are_spread_around_their_mean_and_never_beyond_three_deviations() -> None:
    prompts = made(input_tokens=300, input_stdev=30, output_tokens=50, output_stdev=10)
    asks = [prompts.ask(number) for number in range(400)]
    lengths = LEAD.count_all([ask.prompt for ask in asks])
    outputs = [ask.max_tokens for ask in asks]
    assert statistics.mean(lengths) == pytest.approx(300, abs=6)
    assert statistics.stdev(lengths) == pytest.approx(30, rel=0.15)
    assert statistics.mean(outputs) == pytest.approx(50, abs=2)
    assert max(lengths) <= 390
    sizes = prompts.sizes(400)
    assert sizes.longest_tokens == max(n + ask.max_tokens for n, ask in zip(lengths, asks, strict=True))
    assert sizes.prompt_tokens == pytest.approx(statistics.mean(lengths))


def test_sizes_of_equal_prompts_are_exact_for_any_number_of_them() -> None:
    sizes = made(input_tokens=300, output_tokens=50).sizes(100_000_000)
    assert (sizes.prompt_tokens, sizes.output_tokens, sizes.longest_tokens) == (300, 50, 350)


def test_prompts_too_short_to_be_told_apart_are_refused() -> None:
    with pytest.raises(InvalidRecipe) as caught:
        made(input_tokens=2, requests=10_000)
    (problem,) = caught.value.problems
    assert "input_tokens 2" in problem.message
    assert problem.suggestion == "write at least 4"
    made(input_tokens=4, requests=10_000)


def test_a_tokenizer_without_words_or_letters_is_refused(tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    with pytest.raises(InvalidRecipe, match=r"traffic\.prompts"):
        made(counting(tokenizer, tmp_path))


def test_a_plan_without_a_tokenizer_can_be_made() -> None:
    assert made(RoughCounter(), input_tokens=128).sizes(10).prompt_tokens == 128


def test_words_of_a_book_tokenizer_are_many() -> None:
    words = usable_words(LEAD)
    assert words is not None
    assert len(words.words) >= 40
