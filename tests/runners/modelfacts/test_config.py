"""A config's meaning: parameters against published totals and against transformers' own models, layers, experts."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipes.errors import Refused
from runners.modelfacts.config import Stored, facts_of
from runners.modelfacts.facts import Experts, Layers, ModelFacts

HERE = Path(__file__).parent / "configs"
PUBLISHED: dict[str, dict[str, Any]] = json.loads((HERE / "published.json").read_text())
SMALL: list[dict[str, Any]] = json.loads((HERE / "small.json").read_text())


def of(**config: Any) -> ModelFacts:
    return facts_of(config, identifier="test")


def llama(**more: Any) -> dict[str, Any]:
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4}
    return {"model_type": "llama", **sizes, "num_key_value_heads": 2, "vocab_size": 320, **more}


def layers(facts: ModelFacts) -> list[tuple[int, str, int | None]]:
    return [(one.count, one.mixer, one.window) for one in facts.layers]


# Parameters


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_totals(name: str) -> None:
    facts = facts_of(PUBLISHED[name]["config"], identifier=name)
    assert facts.parameters == PUBLISHED[name]["parameters"]
    assert facts.known
    assert facts.assumptions == ()


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case["config"]["model_type"])
def test_totals_of_transformers_own_models(case: dict[str, Any]) -> None:
    """The sums are those of the models that transformers 5.23 makes of the same configs."""
    assert facts_of(case["config"], identifier="test").parameters == case["parameters"]


def test_the_parts_of_a_model() -> None:
    facts = of(**llama(tie_word_embeddings=False, dtype="float32"))
    parts = {one.module: one.elements for one in facts.tensors}
    attention, mlp = 64 * 64 + 2 * 64 * 32 + 64 * 64, 3 * 64 * 128
    sizes = {"embedding": 320 * 64, "lm_head": 320 * 64, "attention": 4 * attention, "mlp": 4 * mlp, "norm": 9 * 64}
    assert parts == sizes
    assert facts.bytes_of("embedding", "lm_head") == 2 * 320 * 64 * 4
    assert facts.weight_bytes == facts.parameters * 4


@given(
    heads=st.integers(1, 8),
    hidden=st.integers(1, 40),
    layers=st.integers(1, 6),
    vocabulary=st.integers(1, 5000),
    kind=st.sampled_from(["llama", "mistral", "mixtral", "qwen2", "qwen3", "gemma2", "phi3", "deepseek_v3", "gpt_oss"]),
)
def test_more_layers_or_words_are_more_parameters(
    heads: int, hidden: int, layers: int, vocabulary: int, kind: str
) -> None:
    base = {"model_type": kind, "hidden_size": hidden * heads, "num_attention_heads": heads, "head_dim": hidden}
    sizes = {**base, "num_hidden_layers": layers, "vocab_size": vocabulary}
    facts = of(**sizes)
    assert of(**{**sizes, "num_hidden_layers": layers + 1}).parameters > facts.parameters
    assert of(**{**sizes, "vocab_size": vocabulary + 1}).parameters > facts.parameters
    assert sum(one.count for one in facts.layers) == facts.layer_count == layers


# Tied embeddings


@pytest.mark.parametrize(
    ("config", "tied"),
    [
        (llama(), False),
        (llama(tie_word_embeddings=True), True),
        (llama(model_type="gemma"), True),
        (llama(model_type="gemma2", tie_word_embeddings=False), False),
        (llama(model_type="cohere"), True),
        (llama(model_type="mistral"), False),
        (llama(model_type="falcon"), True),
        ({"model_type": "gpt2"}, True),
        ({"model_type": "gemma3", "text_config": llama(model_type="gemma3_text")}, True),
        ({"model_type": "llava", "text_config": llama()}, False),
        (
            {"model_type": "qwen3_vl", "tie_word_embeddings": True, "text_config": llama(model_type="qwen3_vl_text")},
            True,
        ),
        (
            {"model_type": "mistral3", "tie_word_embeddings": True, "text_config": llama(tie_word_embeddings=False)},
            False,
        ),
    ],
)
def test_tied_embeddings_where_a_config_says_nothing(config: dict[str, Any], tied: bool) -> None:
    facts = of(**config)
    assert facts.tied is tied
    assert any(one.module == "lm_head" for one in facts.tensors) is not tied


# Which tokens a layer sees


LINEAR = ["linear_attention", "linear_attention", "linear_attention", "full_attention"]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (llama(), [(4, "full", None)]),
        (llama(model_type="mistral", sliding_window=4096), [(4, "sliding", 4096)]),
        (llama(model_type="mistral", sliding_window=None), [(4, "full", None)]),
        (llama(model_type="qwen2", sliding_window=32768, use_sliding_window=False), [(4, "full", None)]),
        (
            llama(model_type="qwen2", sliding_window=512, use_sliding_window=True, max_window_layers=3),
            [(3, "full", None), (1, "sliding", 512)],
        ),
        (llama(model_type="gemma2", sliding_window=4096), [(2, "sliding", 4096), (2, "full", None)]),
        (
            llama(model_type="gemma3_text", sliding_window=512, num_hidden_layers=12),
            [(10, "sliding", 512), (2, "full", None)],
        ),
        (
            llama(model_type="gemma3_text", sliding_window=512, sliding_window_pattern=2),
            [(2, "sliding", 512), (2, "full", None)],
        ),
        (llama(model_type="cohere2", sliding_window=4096), [(3, "sliding", 4096), (1, "full", None)]),
        (llama(model_type="gpt_oss", sliding_window=128), [(2, "sliding", 128), (2, "full", None)]),
        (llama(model_type="llama4_text", attention_chunk_size=8192), [(3, "chunked", 8192), (1, "full", None)]),
        (
            llama(model_type="llama4_text", attention_chunk_size=8192, no_rope_layers=[1, 0, 1, 0]),
            [(2, "chunked", 8192), (2, "full", None)],
        ),
        (llama(model_type="qwen3", layer_types=["sliding_attention", "full_attention"] * 2, sliding_window=9),
         [(2, "sliding", 9), (2, "full", None)]),
        (llama(model_type="qwen3_next", layer_types=LINEAR), [(3, "recurrent", None), (1, "full", None)]),
        (llama(model_type="qwen3_next"), [(3, "recurrent", None), (1, "full", None)]),
        (
            llama(model_type="jamba", attn_layer_period=2, attn_layer_offset=1),
            [(2, "recurrent", None), (2, "full", None)],
        ),
        (llama(model_type="nemotron_h", hybrid_override_pattern="M-*-"), [(1, "recurrent", None), (1, "full", None)]),
        (llama(model_type="falcon_h1"), [(4, "full", None), (4, "recurrent", None)]),
        (llama(model_type="mamba2", num_heads=4, head_dim=32, state_size=16), [(4, "recurrent", None)]),
        (
            llama(model_type="deepseek_v2", kv_lora_rank=16, qk_rope_head_dim=8, qk_nope_head_dim=8, v_head_dim=8),
            [(4, "mla", None)],
        ),
        (llama(model_type="mllama_text_model", cross_attention_layers=[1]), [(3, "full", None)]),
        (
            llama(model_type="gemma3n_text", num_kv_shared_layers=2, layer_types=["full_attention"] * 4),
            [(2, "full", None)],
        ),
    ],
)  # fmt: skip
def test_what_layers_see(config: dict[str, Any], expected: list[tuple[int, str, int | None]]) -> None:
    assert layers(of(**config)) == expected


def test_what_a_token_keeps() -> None:
    (grouped,) = of(**llama()).layers
    assert grouped == Layers(count=4, mixer="full", kv_heads=2, key_dim=16, value_dim=16)
    assert grouped.elements_per_token == 2 * 32
    (latent,) = facts_of(PUBLISHED["DeepSeek-V3"]["config"], identifier="v3").layers
    assert (latent.elements_per_token, latent.latent_dim) == (576, 576)
    recurrent, full = of(**llama(model_type="qwen3_next", layer_types=LINEAR)).layers
    assert recurrent.elements_per_token == 0
    # Three of the convolution's four places, and a matrix of keys by values for each head.
    assert recurrent.state_elements == (2 * 16 * 128 + 32 * 128) * 3 + 32 * 128 * 128
    assert full.key_dim == 256


@pytest.mark.parametrize(
    ("config", "kv_heads"),
    [
        (llama(num_key_value_heads=None), 4),
        ({"model_type": "falcon", "num_attention_heads": 71}, 1),
        ({"model_type": "falcon", "num_attention_heads": 128, "new_decoder_architecture": True, "num_kv_heads": 8}, 8),
        ({"model_type": "falcon", "num_attention_heads": 32, "multi_query": False}, 32),
        ({"model_type": "gpt_bigcode"}, 1),
        (PUBLISHED["chatglm2-6b"]["config"], 2),
        (PUBLISHED["dbrx"]["config"], 8),
        ({"model_type": "mpt", "n_heads": 32}, 32),
    ],
)
def test_heads_of_keys_and_values(config: dict[str, Any], kv_heads: int) -> None:
    assert of(**config).kv_heads == kv_heads


@pytest.mark.parametrize(
    ("name", "experts"),
    [
        ("Mixtral-8x7B", Experts(count=8, per_token=2, intermediate_size=14336, layers=32)),
        ("Qwen3-30B-A3B", Experts(count=128, per_token=8, intermediate_size=768, layers=48)),
        (
            "DeepSeek-V3",
            Experts(count=256, per_token=8, intermediate_size=2048, layers=58, shared_intermediate_size=2048),
        ),
        ("gpt-oss-20b", Experts(count=32, per_token=4, intermediate_size=2880, layers=24)),
        ("dbrx", Experts(count=16, per_token=4, intermediate_size=10752, layers=40)),
        ("Jamba-1.5-Mini", Experts(count=16, per_token=2, intermediate_size=14336, layers=16)),
        (
            "Qwen1.5-MoE-A2.7B",
            Experts(count=60, per_token=4, intermediate_size=1408, layers=24, shared_intermediate_size=5632),
        ),
        ("Llama-3-8B", None),
    ],
)
def test_experts(name: str, experts: Experts | None) -> None:
    assert facts_of(PUBLISHED[name]["config"], identifier=name).experts == experts


# The rest of the config


def test_a_multimodal_models_language_model_is_read() -> None:
    inner = llama(max_position_embeddings=8192, torch_dtype="bfloat16")
    facts = of(
        model_type="llava",
        architectures=["LlavaForConditionalGeneration"],
        text_config=inner,
        vision_config={"model_type": "newest"},
    )
    assert (facts.hidden_size, facts.max_positions, facts.dtype) == (64, 8192, "bfloat16")
    assert (facts.multimodal, facts.model_type, facts.architecture) == (True, "llava", "LlavaForConditionalGeneration")
    assert facts.text_config == inner
    assert "only the language model is counted" in facts.assumptions[0]


def test_a_nested_config_leaves_out_what_equals_its_types_defaults() -> None:
    """As llava-1.5's: its language model is a Llama of 7 billion, and the config names its vocabulary only."""
    facts = of(model_type="llava", text_config={"model_type": "llama", "vocab_size": 32064})
    assert facts.parameters == 6_738_415_616 + 2 * 64 * 4096
    assert facts.layers[0].kv_heads == 32


@pytest.mark.parametrize("key", ["torch_dtype", "dtype"])
def test_the_type_of_the_weights(key: str) -> None:
    assert of(**llama(**{key: "torch.bfloat16"})).dtype == "bfloat16"
    assert {one.dtype for one in of(**llama(**{key: "float16"})).tensors} == {"F16"}


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({}, "does not say how large the model is"),
        (
            {"model_type": "llama9", "architectures": ["Llama9ForCausalLM"]},
            "The config of Llama9ForCausalLM does not say",
        ),
        (llama(model_type="llama9", architectures=["Llama9"]), "The architecture Llama9 (llama9) is not known here"),
    ],
)
def test_what_is_not_known_is_said(config: dict[str, Any], sentence: str) -> None:
    facts = of(**config)
    assert not facts.known
    assert sentence in facts.assumptions[0]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hidden_size", "64"),
        ("hidden_size", -1),
        ("num_attention_heads", 2.5),
        ("vocab_size", [1]),
        ("vocab_size", True),
    ],
)
def test_a_damaged_config_is_refused_with_the_field(field: str, value: Any) -> None:
    with pytest.raises(Refused, match=field):
        of(**llama(**{field: value}))


def test_a_config_with_absurdly_many_layers_is_refused() -> None:
    with pytest.raises(Refused, match="num_hidden_layers is 1000000: no model has so many layers"):
        of(**llama(num_hidden_layers=1_000_000))


# What is stored


def test_a_total_that_agrees_confirms_the_arithmetic() -> None:
    plain = of(**llama(dtype="bfloat16"))
    facts = facts_of(plain.config, identifier="x", stored=Stored(bytes=plain.weight_bytes + 64))
    assert (facts.weights_from, facts.weight_bytes, facts.assumptions) == ("arithmetic", plain.weight_bytes, ())


def test_a_total_in_another_type_is_recognised() -> None:
    """Weights in float32, of a config that says float16."""
    plain = of(**llama(dtype="float16"))
    for stored in (Stored(bytes=2 * plain.weight_bytes), Stored(elements={"F32": plain.parameters})):
        facts = facts_of(plain.config, identifier="x", stored=stored)
        assert (facts.weights_from, facts.weight_bytes) == ("arithmetic", 2 * plain.weight_bytes)


@pytest.mark.parametrize("factor", [0.3, 0.9, 1.1, 3])
def test_a_total_that_disagrees_is_kept_and_said(factor: float) -> None:
    plain = of(**llama(dtype="bfloat16"))
    total = int(plain.weight_bytes * factor)
    facts = facts_of(plain.config, identifier="x", stored=Stored(bytes=total))
    assert (facts.weights_from, facts.weight_bytes) == ("index", total)
    assert "are in proportion" in facts.assumptions[0]


def test_layers_that_predict_further_tokens_are_apart() -> None:
    config = PUBLISHED["DeepSeek-V3"]["config"]
    plain = facts_of(config, identifier="v3")
    facts = facts_of(config, identifier="v3", stored=Stored(bytes=684_531_386_000 * 2))
    assert facts.weight_bytes - facts.bytes_of("mtp") == plain.weight_bytes
    assert facts.parameters == plain.parameters
    assert 0.015 < facts.bytes_of("mtp") / plain.weight_bytes < 0.025


def test_what_a_multimodal_model_stores_beyond_its_language_model_is_vision() -> None:
    config = {"model_type": "llava", "text_config": llama(dtype="bfloat16"), "vision_config": {"model_type": "newest"}}
    plain = of(**config)
    facts = facts_of(config, identifier="x", stored=Stored(bytes=plain.weight_bytes + 50_000))
    assert facts.bytes_of("vision") == 50_000
    assert facts.parameters == plain.parameters + 25_000
    assert facts.assumptions == ()


TOWERS = [
    ("qwen2_vl", "qwen2", {"depth": 3, "embed_dim": 64, "hidden_size": 96, "mlp_ratio": 2}, 266_272),
    ("qwen2_5_vl", "qwen2", {"depth": 3, "hidden_size": 64, "intermediate_size": 40, "out_hidden_size": 96}, 239_568),
    ("qwen3_vl", "qwen3", {"depth": 3, "hidden_size": 64, "intermediate_size": 40, "out_hidden_size": 96,
                           "deepstack_visual_indexes": [1, 2]}, 584_728),
    ("mistral3", "mistral", {"model_type": "pixtral"}, 407_792_640),
    ("llava", "llama", {"model_type": "clip_vision_model", "num_hidden_layers": 2, "hidden_size": 64,
                        "intermediate_size": 40, "image_size": 56, "patch_size": 14}, 98_832),
    ("gemma3", "gemma3_text", {"model_type": "siglip_vision_model"}, 92_958_720),
    ("mllama", "mllama_text_model", {"model_type": "mllama_vision_model"}, 837_025_395),
    ("llama4", "llama4_text", {"model_type": "llama4_vision_model"}, 416_593_920),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "inner", "tower", "elements"), TOWERS, ids=lambda value: str(value)[:12])
def test_towers_of_transformers_own_models(kind: str, inner: str, tower: dict[str, Any], elements: int) -> None:
    text = llama(model_type=inner, hidden_size=96, num_attention_heads=6, dtype="bfloat16")
    config = {"model_type": kind, "text_config": text, "vision_config": tower}
    facts = of(**config)
    assert facts.bytes_of("vision") == 2 * elements
    assert facts.parameters == of(**text).parameters + elements
    assert not any("sees or hears" in note for note in facts.assumptions)
    stored = facts_of(config, identifier="x", stored=Stored(bytes=facts.weight_bytes))
    assert (stored.weights_from, stored.tensors) == ("arithmetic", facts.tensors)


def test_vision_and_further_tokens_are_told_apart() -> None:
    inner = llama(model_type="qwen3_5_text", dtype="bfloat16", layer_types=LINEAR)
    tower = {"depth": 1, "hidden_size": 8, "intermediate_size": 8, "out_hidden_size": 64, "num_position_embeddings": 4}
    config = {"model_type": "qwen3_5", "text_config": inner, "vision_config": tower}
    plain = of(**config)
    facts = facts_of(config, identifier="x", stored=Stored(bytes=plain.weight_bytes + 600_000))
    assert (facts.bytes_of("vision"), facts.bytes_of("mtp")) == (plain.bytes_of("vision"), 600_000)


@given(st.integers(1, 10**13))
def test_no_byte_of_a_total_is_lost(total: int) -> None:
    facts = facts_of(llama(model_type="llama9"), identifier="x", stored=Stored(bytes=total))
    assert total - 4 <= facts.weight_bytes <= total


ANY = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 70),
    st.floats(),
    st.sampled_from(["x", [], {}, [1], [None], ["full_attention"], {"a": 1}, 10**9, 10**30]),
)
FIELDS = sorted({name for case in SMALL for name in case["config"]} | {"layer_types", "text_config", "attn_config"})


@given(st.sampled_from(SMALL), st.dictionaries(st.sampled_from(FIELDS), ANY, max_size=4))
def test_whatever_a_config_says_it_is_read_or_refused(case: dict[str, Any], changes: dict[str, Any]) -> None:
    with suppress(Refused):
        facts = facts_of(case["config"] | changes, identifier="test")
        assert facts.parameters >= 0
        assert facts.weight_bytes >= 0
