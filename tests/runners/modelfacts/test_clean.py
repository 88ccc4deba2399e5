"""What strangers wrote does nothing to a terminal, and nothing of it makes reckoning fail."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provisioners.accelerators import Machine, find
from recipes.errors import Refused
from recipes.spec import Engine as EngineSpec
from runners import registry
from runners.case import Case, Demand
from runners.modelfacts.clean import name_of, printable, printable_in, reckonable
from runners.modelfacts.config import facts_of
from runners.modelfacts.facts import ModelFacts
from runners.modelfacts.gguf import Header
from runners.modelfacts.gguf_facts import facts_of_gguf
from runners.modelfacts.read import facts_in
from tests.emulators.headers import gguf, safetensors

SMALL: list[dict[str, Any]] = json.loads((Path(__file__).parent / "configs" / "small.json").read_text())
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "vocab_size": 320,
    "max_position_embeddings": 4096,
    "torch_dtype": "bfloat16",
}
CLEARS_THE_SCREEN = "\x1b[2J\x1b]0;pwn\x07"
OBEYED = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def of(**changes: Any) -> ModelFacts:
    return facts_of({**LLAMA, **changes}, identifier="test")


def told(facts: ModelFacts) -> str:
    """Everything in a model's facts that may be shown."""
    quantization = facts.quantization
    names = (quantization.method, *quantization.ignored, quantization.kv_cache or "") if quantization else ()
    tensors = [one.dtype for one in facts.tensors]
    shown = (facts.architecture, facts.model_type, facts.dtype or "", *facts.assumptions, *names, *tensors)
    return "".join((*shown, *(file.name for file in facts.files)))


# What a terminal would obey


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Llama-3 für Ärzte · 模型", "Llama-3 für Ärzte · 模型"),
        (CLEARS_THE_SCREEN, r"\x1b[2J\x1b]0;pwn\x07"),
        ("red\nrefused  fake\r\t", r"red\nrefused  fake\r\t"),
        ("\x9b2J\x7f", r"\x9b2J\x7f"),
        ("gpj\u202egnp.exe\u2066", r"gpj\u202egnp.exe\u2066"),
        ("half \ud83d of a face", r"half \ud83d of a face"),
    ],
)
def test_what_a_terminal_would_obey_is_written_out(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable_in({text: [text, (text, 1, None)]}) == {shown: [shown, (shown, 1, None)]}


@given(st.text())
def test_nothing_is_left_that_a_terminal_obeys_and_everything_can_be_written(text: str) -> None:
    assert not OBEYED.search(printable(text))
    printable(text).encode()
    assert printable(printable(text)) == printable(text)


def test_a_name_is_a_short_text() -> None:
    assert name_of("x" * 5000) == "x" * 100 + "…"
    assert [name_of(value) for value in (None, 3, ["a"], {})] == ["", "", "", ""]


def test_what_is_nested_without_end_ends() -> None:
    nested: Any = "inside"
    for _ in range(5000):
        nested = {"a": nested}
    assert json.dumps(printable_in(nested)).count("a") < 100
    assert of(extra=nested).parameters == of().parameters


@pytest.mark.parametrize(
    "changes",
    [
        {"architectures": [f"{CLEARS_THE_SCREEN}Llama"]},
        {"model_type": "\x1b[31mred\nrefused  fake"},
        {"torch_dtype": "\x1b[31mfloat7"},
        {"quantization_config": {"quant_method": "\x1b[2Jgptq", "ignore": ["a\u202eb"]}},
        {"quantization_config": {"quant_method": "modelopt", "kv_cache_quant_algo": "fp8\x07"}},
        {"rope_scaling": {"type": "linear", "factor": CLEARS_THE_SCREEN}},
        {"text_config": {**LLAMA, "model_type": "a\x9bb"}, "model_type": "c\x1bd"},
    ],
)
def test_facts_hold_nothing_that_a_terminal_obeys(changes: dict[str, Any]) -> None:
    facts = of(**changes)
    assert not OBEYED.search(told(facts))
    assert not OBEYED.search(json.dumps(facts.config, ensure_ascii=False))


def test_a_folders_names_and_types_hold_nothing_that_a_terminal_obeys(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    weights = safetensors({"a": ("F16", (4,))}).replace(b'"F16"', b'"\\u001b[2J"')
    header = weights[8:].rstrip()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    (tmp_path / "re\x1b[2Jad.me").touch()
    facts = facts_in(tmp_path)
    assert not OBEYED.search(told(facts))
    assert r"re\x1b[2Jad.me" in {file.name for file in facts.files}


def test_a_damaged_header_is_refused_without_repeating_its_commands(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    header = json.dumps({f"{CLEARS_THE_SCREEN}\u202e": 1}).encode()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(Refused) as refused:
        facts_in(tmp_path)
    assert not OBEYED.search(refused.value.message)


def test_a_gguf_file_says_nothing_that_a_terminal_obeys(tmp_path: Path) -> None:
    metadata = {"general.architecture": f"{CLEARS_THE_SCREEN}llama", "general.name": CLEARS_THE_SCREEN}
    (tmp_path / "a.gguf").write_bytes(gguf(metadata, {"token_embd.weight": (8, (64, 32))}))
    facts = facts_in(tmp_path / "a.gguf")
    assert facts.architecture.endswith("llama")
    assert not OBEYED.search(told(facts) + json.dumps(facts.config, ensure_ascii=False))


# Numbers


@pytest.mark.parametrize(
    ("value", "kept"),
    [(8, 8), (2.5, 2.5), ("8", 8), ("2.5", 2.5), (0, None), (None, None)],
)
def test_numbers_that_are_meant_are_kept(value: Any, kept: Any) -> None:
    config, notes = reckonable({"rope_scaling": {"type": "linear", "factor": value}, "other": "8"})
    assert config == {"rope_scaling": {"type": "linear", "factor": kept}, "other": "8"}
    assert notes == ()


@pytest.mark.parametrize(
    "value", ["NaN", float("nan"), float("inf"), -2, 10**30, 1e-300, True, [2], {"a": 2}, "x" * 999]
)
def test_numbers_that_cannot_be_meant_are_left_out_and_that_is_said(value: Any) -> None:
    config, notes = reckonable({"rope_scaling": {"type": "linear", "factor": value}})
    assert config == {"rope_scaling": {"type": "linear"}}
    assert len(notes) == 1
    assert notes[0].startswith("The config's rope_scaling.factor is ")
    assert notes == of(rope_scaling={"type": "linear", "factor": value}).assumptions


def test_a_list_of_sizes_of_images_is_one() -> None:
    config = {"vision_config": {"image_size": [448, 448], "hidden_size": [96]}}
    assert reckonable(config)[0] == {"vision_config": {"image_size": [448, 448]}}


@pytest.mark.parametrize("changes", [{"num_attention_heads": 0}, {"num_attention_heads": [0, 0, 0, 0]}])
def test_attention_without_heads_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(Refused, match="num_attention_heads is 0, and the model's layers attend"):
        of(**changes)


@pytest.mark.parametrize("field", ["hidden_size", "num_hidden_layers"])
def test_a_model_without_extent_is_refused(field: str) -> None:
    with pytest.raises(Refused, match=f"config[.]json: {field} is 0, not a size"):
        of(**{field: 0})


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("context_length", "abc", "llama.context_length is 'abc', not a size"),
        ("block_count", 0, "llama.block_count is 0, not a size"),
        ("attention.head_count", 0, "llama.attention.head_count is 0, and the model's layers attend"),
        ("attention.head_count_kv", "x", "llama.attention.head_count_kv is 'x', not a size"),
    ],
)
def test_what_is_wrong_in_a_gguf_file_is_told_by_its_own_names(
    tmp_path: Path, key: str, value: Any, message: str
) -> None:
    sizes = {"block_count": 2, "embedding_length": 64, "attention.head_count": 4} | {key: value}
    metadata = {"general.architecture": "llama"} | {f"llama.{name}": size for name, size in sizes.items()}
    (tmp_path / "a.gguf").write_bytes(gguf(metadata, {"token_embd.weight": (8, (64, 32))}))
    with pytest.raises(Refused, match=r"a\.gguf: ") as refused:
        facts_in(tmp_path / "a.gguf")
    assert refused.value.message == f"a.gguf: {message}"
    assert refused.value.advice == "fetch or convert it again"


def test_heads_that_nobody_states_are_an_assumption() -> None:
    config = {key: value for key, value in LLAMA.items() if key != "num_attention_heads"} | {"model_type": "llama9"}
    facts = facts_of(config, identifier="test")
    assert facts.layers == ()
    assert any("does not say how many attention heads" in note for note in facts.assumptions)


def test_a_layer_without_heads_among_others_keeps_nothing() -> None:
    assert [(one.count, one.kv_heads) for one in of(num_attention_heads=[4, 0, 4, 4]).layers] == [(3, 4)]


# Engines reckon with whatever is let in

ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 70),
    st.floats(),
    st.sampled_from(["x", "NaN", "8", "inf", "yarn", "linear", "longrope", [], {}, [1], {"a": 1}, 10**9, 10**400]),
)
ROPE = st.dictionaries(st.sampled_from(["type", "rope_type", "factor", "original_max_position_embeddings"]), ODD)
TOWER = st.dictionaries(
    st.sampled_from(["hidden_size", "embed_dim", "patch_size", "image_size", "spatial_merge_size"]), ODD
)
QUANTIZED = st.one_of(
    ODD,
    st.sampled_from(["gptq", "fp8", "compressed-tensors", {"a": {"weights": {"num_bits": "4", "group_size": "x"}}}]),
)
PARTS: dict[str, st.SearchStrategy[Any]] = {
    "rope_scaling": ROPE,
    "rope_parameters": st.one_of(ODD, ROPE),
    "vision_config": st.one_of(ODD, TOWER),
    "quantization_config": st.dictionaries(
        st.sampled_from(["quant_method", "bits", "group_size", "config_groups", "weight_block_size", "ignore"]),
        QUANTIZED,
    ),
    "model_max_length": ODD,
    "original_max_position_embeddings": ODD,
    "index_topk": ODD,
    "index_head_dim": ODD,
    "mm_tokens_per_image": ODD,
    "downsample_ratio": ODD,
    "num_attention_heads": st.sampled_from([0, 1, 4, 7, 4.0]),
}
CHANGES = st.sets(st.sampled_from(sorted(PARTS)), max_size=5).flatmap(
    lambda names: st.fixed_dictionaries({name: PARTS[name] for name in sorted(names)})
)
LATENT = {**LLAMA, "model_type": "deepseek_v3", "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8}
SEEING = {"model_type": "gemma3", "text_config": {**LLAMA, "model_type": "gemma3_text"}, "mm_tokens_per_image": 256}
BASES = [LLAMA, {**LATENT, "v_head_dim": 8}, SEEING, *(case["config"] for case in SMALL)]
RELEASES = ["0.2.1", "0.6.3", "0.11.0", "0.33.0"]


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(BASES), CHANGES, st.sampled_from(RELEASES), st.sampled_from([512, 100_000]))
def test_engines_reckon_with_whatever_is_let_in(
    config: dict[str, Any], changes: Mapping[str, Any], release: str, length: int
) -> None:
    try:
        facts = facts_of({**config, **changes}, identifier="a/b")
    except Refused:
        return
    machine = Machine(accelerator=find("A100-80GB"), count=1, ram_gib=64)
    demand = Demand(longest_request_tokens=1000, mean_request_tokens=500, concurrency=4)
    for name, version, args in (("vllm", release, {"max_model_len": length}), ("transformers", "5.0.0", {})):
        spec = EngineSpec(name=name, version=version, args=args)
        asked = Case(spec=spec, version=version, model=facts, machine=machine, demand=demand)
        memory = registry.engine(name).assess(asked).memory
        figures = asdict(memory).values() if memory else ()
        assert all(math.isfinite(figure) for figure in figures if isinstance(figure, float | int))


KEYS = ["block_count", "embedding_length", "attention.head_count", "attention.head_count_kv", "attention.key_length",
        "attention.kv_lora_rank", "rope.dimension_count", "attention.sliding_window", "vocab_size",
        "attention.sliding_window_pattern", "expert_count", "attention.value_length_mla"]  # fmt: skip


@settings(deadline=None)
@given(
    st.sampled_from(["llama", "deepseek2", "gemma2", "falcon", "newest"]),
    st.dictionaries(st.sampled_from(KEYS), st.one_of(ODD, st.lists(ODD, max_size=4))),
    ODD,
)
def test_whatever_a_gguf_file_says_it_is_read_or_refused(name: str, values: Mapping[str, Any], tokens: Any) -> None:
    sizes = {"block_count": 2, "embedding_length": 64, "attention.head_count": 4} | values
    metadata = {"general.architecture": name, "tokenizer.ggml.tokens": tokens}
    metadata |= {f"{name}.{key}": value for key, value in sizes.items()}
    with suppress(Refused):
        facts = facts_of_gguf(Header(metadata, ()), identifier="test")
        assert facts.parameters >= 0
