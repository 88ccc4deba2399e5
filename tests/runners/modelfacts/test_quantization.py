"""Quantized checkpoints: what their configs say, and that the computed storage is the formats' own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from runners.modelfacts.config import facts_of
from runners.modelfacts.quantization import is_ignored, quantization_of
from runners.modelfacts.read import facts_in
from tests.emulators.headers import safetensors

CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 320,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
}
LINEARS = {
    "self_attn.q_proj": (256, 256),
    "self_attn.k_proj": (128, 256),
    "self_attn.v_proj": (128, 256),
    "self_attn.o_proj": (256, 256),
    "mlp.gate_proj": (512, 256),
    "mlp.up_proj": (512, 256),
    "mlp.down_proj": (256, 512),
}
PARAMETERS = facts_of(CONFIG, identifier="test").parameters

Layout = dict[str, tuple[str, tuple[int, ...]]]


def gptq(rows: int, columns: int) -> Layout:
    groups = columns // 128
    return {
        "qweight": ("I32", (columns // 8, rows)),
        "qzeros": ("I32", (groups, rows // 8)),
        "scales": ("F16", (groups, rows)),
        "g_idx": ("I32", (columns,)),
    }


def awq(rows: int, columns: int) -> Layout:
    groups = columns // 128
    return {
        "qweight": ("I32", (columns, rows // 8)),
        "qzeros": ("I32", (groups, rows // 8)),
        "scales": ("F16", (groups, rows)),
    }


def fp8_blocks(rows: int, columns: int) -> Layout:
    return {"weight": ("F8_E4M3", (rows, columns)), "weight_scale_inv": ("F32", (rows // 128, columns // 128))}


def fp8_static(rows: int, columns: int) -> Layout:
    return {"weight": ("F8_E4M3", (rows, columns)), "weight_scale": ("F32", (1,)), "input_scale": ("F32", (1,))}


def fp8_channels(rows: int, columns: int) -> Layout:
    return {"weight": ("F8_E4M3", (rows, columns)), "weight_scale": ("F16", (rows, 1))}


def packed(rows: int, columns: int) -> Layout:
    return {
        "weight_packed": ("I32", (rows, columns // 8)),
        "weight_scale": ("F16", (rows, columns // 128)),
        "weight_shape": ("I64", (2,)),
    }


def nvfp4(rows: int, columns: int) -> Layout:
    return {
        "weight": ("U8", (rows, columns // 2)),
        "weight_scale": ("F8_E4M3", (rows, columns // 16)),
        "weight_scale_2": ("F32", ()),
        "input_scale": ("F32", ()),
    }


def bnb_8bit(rows: int, columns: int) -> Layout:
    return {"weight": ("I8", (rows, columns)), "SCB": ("F32", (rows,))}


def bnb_4bit(rows: int, columns: int) -> Layout:
    size = rows * columns
    return {
        "weight": ("U8", (size // 2, 1)),
        "weight.absmax": ("F32", (size // 64,)),
        "weight.quant_map": ("F32", (16,)),
        "weight.quant_state.bitsandbytes__nf4": ("U8", (96,)),
    }


def groups(**weights: Any) -> dict[str, Any]:
    return {"group_0": {"targets": ["Linear"], "weights": weights}}


FORMS: dict[str, tuple[dict[str, Any], Any]] = {
    "gptq": ({"quant_method": "gptq", "bits": 4, "group_size": 128}, gptq),
    "awq": ({"quant_method": "awq", "bits": 4, "group_size": 128}, awq),
    "fp8 blocks": ({"quant_method": "fp8", "weight_block_size": [128, 128]}, fp8_blocks),
    "fp8 static": ({"quant_method": "fp8", "activation_scheme": "static"}, fp8_static),
    "bitsandbytes 8": ({"quant_method": "bitsandbytes", "load_in_8bit": True}, bnb_8bit),
    "bitsandbytes 4": ({"quant_method": "bitsandbytes", "load_in_4bit": True}, bnb_4bit),
    "compressed-tensors fp8": (
        {
            "quant_method": "compressed-tensors",
            "format": "float-quantized",
            "ignore": ["lm_head"],
            "config_groups": groups(num_bits=8, type="float", strategy="channel"),
        },
        fp8_channels,
    ),
    "compressed-tensors int4": (
        {
            "quant_method": "compressed-tensors",
            "format": "pack-quantized",
            "ignore": ["lm_head"],
            "config_groups": groups(num_bits=4, type="int", strategy="group", group_size=128),
        },
        packed,
    ),
    "modelopt nvfp4": ({"quant_method": "modelopt", "quant_algo": "NVFP4", "group_size": 16}, nvfp4),
}


def checkpoint(layout: Any, *, plain: frozenset[str] = frozenset()) -> bytes:
    """A file with every tensor of the model; linear layers as their method stores them."""
    tensors: Layout = {
        "model.embed_tokens.weight": ("F16", (320, 256)),
        "lm_head.weight": ("F16", (320, 256)),
        "model.norm.weight": ("F16", (256,)),
    }
    for layer in range(2):
        at = f"model.layers.{layer}"
        for norm in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{at}.{norm}.weight"] = ("F16", (256,))
        for name, (rows, columns) in LINEARS.items():
            own = {"weight": ("F16", (rows, columns))} if name in plain else layout(rows, columns)
            tensors |= {f"{at}.{name}.{part}": value for part, value in own.items()}
    return safetensors(tensors)


@pytest.mark.parametrize("form", FORMS)
def test_the_computed_storage_is_the_layouts(form: str, tmp_path: Path) -> None:
    """What the config's arithmetic gives and what the header says: bytes and weights, class by class."""
    stated, layout = FORMS[form]
    config = {**CONFIG, "quantization_config": stated}
    computed = facts_of(config, identifier="computed")
    write(tmp_path, config, {"model.safetensors": checkpoint(layout)})
    read = facts_in(tmp_path)
    assert read.weights_from == "headers"
    assert computed.parameters == read.parameters == PARAMETERS
    for module in ("embedding", "lm_head", "norm", "attention", "mlp"):
        assert computed.bytes_of(module) == read.bytes_of(module), module
    assert {one.dtype: one.bytes for one in computed.tensors if one.module == "mlp"} == {
        one.dtype: one.bytes for one in read.tensors if one.module == "mlp"
    }


def test_modules_that_are_left_alone_are_stored_whole(tmp_path: Path) -> None:
    stated = {**FORMS["fp8 blocks"][0], "modules_to_not_convert": ["lm_head", "mlp.down_proj"]}
    config = {**CONFIG, "quantization_config": stated}
    write(tmp_path, config, {"model.safetensors": checkpoint(fp8_blocks, plain=frozenset({"mlp.down_proj"}))})
    assert facts_of(config, identifier="computed").weight_bytes == facts_in(tmp_path).weight_bytes


def test_mxfp4_compresses_experts_only() -> None:
    """gpt-oss: four bits and a scale of eight for each 32 weights; everything else is bfloat16."""
    sizes = {**CONFIG, "model_type": "gpt_oss", "num_local_experts": 4, "head_dim": 64, "torch_dtype": "bfloat16"}
    facts = facts_of({**sizes, "quantization_config": {"quant_method": "mxfp4"}}, identifier="test")
    plain = facts_of(sizes, identifier="test")
    weights = 2 * 4 * 3 * 256 * 512
    biases = 2 * 4 * (2 * 512 + 256)
    assert facts.bytes_of("experts") == weights // 2 + weights // 32 + 2 * biases
    assert facts.weight_bytes - facts.bytes_of("experts") == plain.weight_bytes - plain.bytes_of("experts")
    assert facts.parameters == plain.parameters


def test_modelopts_own_file_says_it_where_the_config_does_not(tmp_path: Path) -> None:
    side = {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "NVFP4", "kv_cache_quant_algo": "FP8",
            "group_size": 16, "exclude_modules": ["lm_head"]}}  # fmt: skip
    write(tmp_path, CONFIG, {"model.safetensors": checkpoint(nvfp4)}, side={"hf_quant_config.json": side})
    quantization = facts_in(tmp_path).quantization
    assert quantization
    assert (quantization.method, quantization.bits, quantization.kv_cache) == ("modelopt", 4, "fp8")
    assert (quantization.group_size, quantization.ignored) == (16, ("lm_head",))


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ({"quant_method": "gptq", "bits": 8, "group_size": -1}, ("gptq", 8, -1, None)),
        ({"quant_method": "auto-round", "bits": 4, "group_size": 128}, ("gptq", 4, 128, None)),
        ({"quant_method": "awq", "w_bit": 4, "q_group_size": 64}, ("awq", 4, 64, None)),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, ("fp8", 8, None, (128, 128))),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, ("bitsandbytes", 4, None, None)),
        ({"quant_method": "mxfp4"}, ("mxfp4", 4, None, None)),
        ({"quant_method": "modelopt", "quant_algo": "FP8"}, ("modelopt", 8, None, None)),
        ({"quant_method": "newest", "bits": "four"}, ("newest", None, None, None)),
        (
            {"quant_method": "compressed-tensors", "config_groups": groups(num_bits=4, group_size=32)},
            ("compressed-tensors", 4, 32, None),
        ),
    ],
)
def test_the_forms_of_saying_so(stated: Mapping[str, Any], expected: tuple[Any, ...]) -> None:
    for config in ({"quantization_config": stated}, {"text_config": {"quantization_config": stated}}):
        found = quantization_of(config)
        assert found
        assert (found.method, found.bits, found.group_size, found.block) == expected


@pytest.mark.parametrize("config", [{}, {"quantization_config": None}, {"quantization_config": {}}])
def test_no_quantization(config: dict[str, Any]) -> None:
    assert quantization_of(config) is None
    assert quantization_of(config, {"producer": {}, "quantization": {"quant_algo": None}}) is None


def test_the_type_that_a_checkpoint_wants_for_the_cache() -> None:
    stated = {"quant_method": "compressed-tensors", "kv_cache_scheme": {"num_bits": 8, "type": "float"}}
    found = quantization_of({"quantization_config": stated})
    assert found
    assert found.kv_cache == "fp8"


@pytest.mark.parametrize(
    ("pattern", "ignored"),
    [
        ("lm_head", False),
        ("model.layers.3.mlp.down_proj", True),
        ("down_proj", True),
        ("model.layers.3", True),
        ("model.layers.30", False),
        ("re:.*mlp.*", True),
        ("re:.*self_attn.*", False),
        ("re:(", False),
        ("re:.*layers.(1|3).*(up|down)_proj", True),
        ("re:((.*)*)*x", False),
        ("re:.*.*.*.*.*.*.*.*.*.*.*.*.*.*.*x", False),
        ("*.mlp.*", True),
        ("model.language_model.layers.3.mlp", True),
    ],
)
def test_lists_of_unquantized_modules(pattern: str, ignored: bool) -> None:
    found = quantization_of({"quantization_config": {"quant_method": "fp8", "ignored_layers": [pattern]}})
    assert found
    assert is_ignored(found, "model.layers.3.mlp.down_proj") is ignored


def write(
    path: Path, config: Mapping[str, Any], files: Mapping[str, bytes], side: Mapping[str, Any] | None = None
) -> None:
    for name, value in {"config.json": config, **(side or {})}.items():
        (path / name).write_text(json.dumps(value))
    for name, data in files.items():
        (path / name).write_bytes(data)
