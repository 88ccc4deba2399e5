"""What serves a model: judged like a plan, the cheapest first, and never better for less."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provisioners.contract import Offer
from recipes.errors import UsageError
from recipes.spec import Recipe
from runners import registry
from runners.preflight.fit import Fit, Wish, fits, model_warnings, quantization_args
from runners.preflight.table import known_offers
from tests.emulators.engines import MODEL, EngineByArithmetic
from tests.runners.preflight.questions import offer

# 64 GiB of weights; a GiB that is left holds 1,000 tokens. An A100 has 79.15 GiB, an A40 44.4, an L4 22.0.
A100 = offer(count=1, price_usd_per_h=1.79)
A40 = {"id": "NVIDIA A40", "accelerator": "A40 48GB", "memory_gib": 48}
L4 = {"id": "NVIDIA L4", "accelerator": "L4 24GB", "memory_gib": 24}


def wish(**changes: Any) -> Wish:
    return Wish(**{"engine": EngineByArithmetic(), "version": "1.0", "model": MODEL, **changes})


def of(*offers: Offer, **changes: Any) -> list[Fit]:
    return fits(wish(**changes), offers)


def test_a_row_says_what_fits_and_how_to_ask_for_it() -> None:
    (found,) = of(A100, context=2000)
    assert (found.verdict, found.accelerator, found.tensor_parallel_size) == ("fits", "A100-PCIe-80GB", 1)
    assert (found.kv_tokens, found.context, found.at_once) == (15150, 2000, 7)
    assert found.overrides == (
        "resources.accelerators=A100-PCIe-80GB:1",
        "engine.tensor_parallel_size=1",
        "engine.args.context=2000",
    )


def test_what_does_not_fit_says_why() -> None:
    (found,) = of(offer(**L4, count=2, price_usd_per_h=0.6))
    assert (found.verdict, found.reason) == ("no", "the weights do not fit")


def test_a_shorter_context_is_found_where_the_wished_one_does_not_fit() -> None:
    (found,) = of(A100, context=32_000)
    assert (found.verdict, found.context) == ("shorter", 15_136)
    assert "engine.args.context=15136" in found.overrides
    assert "15,136" in found.reason


def test_too_few_requests_at_once_is_told() -> None:
    (found,) = of(A100, context=2000, concurrency=8)
    assert (found.verdict, found.reason) == ("queues", "7 of 8 requests at once")


def test_the_sizes_use_every_accelerator_tensor_parallelism_first() -> None:
    (found,) = of(offer(**A40, count=4, price_usd_per_h=1.76))
    assert (found.tensor_parallel_size, found.pipeline_parallel_size) == (4, 1)


def test_pipelines_are_tried_where_the_heads_cannot_be_divided() -> None:
    (found,) = of(offer(count=6, price_usd_per_h=10.74))
    assert (found.tensor_parallel_size, found.pipeline_parallel_size) == (2, 3)
    assert "engine.pipeline_parallel_size=3" in found.overrides


def test_of_two_clouds_the_cheaper_one_that_has_stock_is_kept() -> None:
    dear, cheap, gone = (
        offer(count=1, price_usd_per_h=price, cloud=cloud, stock=stock)
        for price, cloud, stock in ((1.79, "secure", "high"), (1.19, "community", "low"), (0.5, "community", "none"))
    )
    assert [found.offer for found in of(dear, cheap, gone)] == [cheap]
    assert [found.offer for found in of(dear, gone)] == [dear]


def test_flags_are_part_of_what_a_recipe_has_to_set() -> None:
    (found,) = of(offer(**A40, count=1, price_usd_per_h=0.44), args={"quantize": "half", "eager": True})
    assert found.verdict == "fits"
    assert {"engine.args.quantize=half", "engine.args.eager=true"} <= set(found.overrides)


OFFERS = st.lists(
    st.builds(
        lambda kind, count, price, stock: offer(**kind, count=count, price_usd_per_h=price, stock=stock),
        st.sampled_from([A40, L4, {}]),
        st.sampled_from([1, 2, 4, 8]),
        st.one_of(st.none(), st.floats(0.01, 50)),
        st.sampled_from(["high", "low", "none", None]),
    ),
    max_size=12,
)


def prices(found: Sequence[Fit]) -> list[float]:
    return [float("inf") if fit.offer.price_usd_per_h is None else fit.offer.price_usd_per_h for fit in found]


@settings(max_examples=60, deadline=None)
@given(OFFERS, st.integers(300, 60_000), st.integers(1, 40))
def test_rows_are_sorted_by_price_and_name_each_machine_once(
    offers: list[Offer], context: int, concurrency: int
) -> None:
    found = of(*offers, context=context, concurrency=concurrency)
    assert prices(found) == sorted(prices(found))
    assert len({(fit.offer.id, fit.offer.count) for fit in found}) == len(found)
    for fit in found:
        if fit.verdict == "fits":
            assert fit.context == context
            assert (fit.at_once or 0) >= concurrency


@settings(max_examples=40, deadline=None)
@given(st.integers(300, 60_000), st.integers(0, 40_000))
def test_a_shorter_wish_is_never_served_by_fewer(context: int, less: int) -> None:
    """More memory or fewer tokens never turn what fits into what does not."""
    offers = [*(offer(count=n) for n in (1, 2, 4)), *(offer(**A40, count=n) for n in (1, 2, 4))]
    shorter = max(256, context - less)

    def served(length: int) -> set[tuple[str, int]]:
        return {(f.offer.id, f.offer.count) for f in of(*offers, context=length) if f.verdict == "fits"}

    assert served(context) <= served(shorter)


def test_every_row_that_fits_is_a_recipe_that_is_valid() -> None:
    for found in fits(wish(context=1000), known_offers("runpod")):
        values = dict(override.split("=", 1) for override in found.overrides)
        accelerators = values["resources.accelerators"]
        recipe = Recipe.model_validate(
            {
                "name": "asked",
                "model": {"repo": "some/model"},
                "resources": {"accelerators": accelerators},
                "workload": {"inputs": ["a.txt"]},
            }
        )
        assert str(recipe.resources.accelerators) == accelerators


def test_without_prices_the_least_memory_comes_first() -> None:
    found = fits(wish(), known_offers("runpod"))
    sizes = [fit.usable_gib_per_gpu * fit.offer.count for fit in found]
    assert sizes == sorted(sizes)
    assert len(found) > 50


@pytest.mark.parametrize(
    ("name", "args"),
    [
        (None, {}),
        ("HALF", {"quantize": "half"}),
        ("half size", {"quantize": "half"}),
        ("awq", {"quantization": "awq"}),
    ],
)
def test_a_quantization_is_one_that_the_engine_names_or_the_flags_own_value(
    name: str | None, args: dict[str, str]
) -> None:
    assert quantization_args(EngineByArithmetic(), "1.0", name) == args


@pytest.mark.parametrize(
    ("name", "value"), [("bnb-8bit", "bnb-8bit"), ("bitsandbytes 8 bit", "bnb-8bit"), ("BitsAndBytes", "bnb-4bit")]
)
def test_a_word_means_the_smallest_that_begins_with_it(name: str, value: str) -> None:
    engine = registry.engine("transformers")
    assert quantization_args(engine, engine.default_version or "", name) == {"quantization": value}


def test_an_engine_of_quantized_files_quantizes_nothing() -> None:
    with pytest.raises(UsageError, match="does not quantize"):
        quantization_args(registry.engine("llamacpp"), "", "awq")


def test_what_had_to_be_assumed_of_the_model_is_told_once() -> None:
    assert model_warnings(wish(), [A100]) == MODEL.assumptions


def test_a_row_is_plain_data() -> None:
    document = of(A100)[0].document()
    assert (document["count"], document["price_usd_per_h"], document["verdict"]) == (1, 1.79, "fits")
    assert "offer" not in document
