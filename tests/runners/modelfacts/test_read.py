"""Files on this machine: headers as the formats have them, the small model's own, and what is damaged."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipes import catalogue
from recipes.errors import Refused
from runners.modelfacts import gguf as gguf_format
from runners.modelfacts import safetensors as safetensors_format
from runners.modelfacts.facts import ModelFacts
from runners.modelfacts.read import facts_in
from tests.emulators.headers import gguf, safetensors

LEAD = catalogue.builtin_model("lead")
SIZES = {"hidden_size": 8, "intermediate_size": 16, "num_attention_heads": 2, "vocab_size": 10}
CONFIG = {"model_type": "llama", "num_hidden_layers": 2, "torch_dtype": "bfloat16", **SIZES}
NAMES: dict[str, tuple[str, tuple[int, ...]]] = {
    "model.embed_tokens.weight": ("BF16", (10, 8)),
    "lm_head.weight": ("BF16", (10, 8)),
    "model.layers.0.self_attn.q_proj.weight": ("BF16", (8, 8)),
}


def folder(path: Path, config: Mapping[str, Any] | None = None, **files: bytes) -> Path:
    (path / "config.json").write_text(json.dumps(CONFIG if config is None else config))
    for name, data in files.items():
        (path / name.replace("__", "-").replace("_", ".")).write_bytes(data)
    return path


def by_module(facts: ModelFacts) -> dict[str, int]:
    found: dict[str, int] = {}
    for one in facts.tensors:
        found[one.module] = found.get(one.module, 0) + one.elements
    return found


# The small model


@pytest.mark.parametrize(("path", "form"), [(LEAD, "folder"), (LEAD / "lead.gguf", "gguf")])
def test_the_small_model(path: Path, form: str) -> None:
    facts = facts_in(path)
    assert (facts.form, facts.known, facts.weights_from) == (form, True, "headers")
    assert (facts.hidden_size, facts.layer_count, facts.heads, facts.kv_heads, facts.head_dim) == (160, 4, 5, 5, 32)
    assert (facts.vocab_size, facts.max_positions, facts.tied) == (2048, 2048, True)
    assert facts.parameters == 1_353_120
    assert by_module(facts) == {"embedding": 327_680, "norm": 1_440, "mlp": 614_400, "attention": 409_600}
    (layers,) = facts.layers
    assert (layers.count, layers.mixer, layers.elements_per_token) == (4, "full", 5 * 64)


def test_the_small_models_sizes_are_its_files() -> None:
    """The header and the padding are all that a file holds besides its tensors."""
    for path in (LEAD, LEAD / "lead.gguf"):
        size = (path / "model.safetensors" if path.is_dir() else path).stat().st_size
        assert 0 < size - facts_in(path).weight_bytes < 100_000
    quantization = facts_in(LEAD / "lead.gguf").quantization
    assert quantization
    assert (quantization.method, quantization.bits) == ("gguf", 8)


def test_arithmetic_agrees_with_the_small_models_header(tmp_path: Path) -> None:
    config = json.loads((LEAD / "config.json").read_text())
    facts = facts_in(folder(tmp_path, config))
    assert (facts.weights_from, facts.parameters) == ("arithmetic", facts_in(LEAD).parameters)
    assert facts.weight_bytes == facts_in(LEAD).weight_bytes


# Folders


def test_only_headers_are_read(tmp_path: Path) -> None:
    """The data may be missing: a file that was begun, or a sparse one."""
    whole, without = safetensors(NAMES, data=True), safetensors(NAMES)
    assert len(whole) > len(without)
    for data in (whole, without):
        facts = facts_in(folder(tmp_path, model_safetensors=data))
        assert (facts.weights_from, facts.parameters, facts.weight_bytes) == ("headers", 224, 448)


def test_shards_are_added_up_and_second_copies_are_not(tmp_path: Path) -> None:
    names = list(NAMES)
    parts = [safetensors({name: NAMES[name] for name in part}) for part in (names[:1], names[1:])]
    folder(tmp_path, model__1_safetensors=parts[0], model__2_safetensors=parts[1])
    folder(tmp_path, consolidated_safetensors=safetensors(NAMES))
    assert facts_in(tmp_path).parameters == 224
    index = {"weight_map": {names[0]: "model-1.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert facts_in(tmp_path).parameters == 80


def test_a_folder_that_is_not_whole_counts_what_its_index_says(tmp_path: Path) -> None:
    plain = facts_in(folder(tmp_path)).weight_bytes
    index = {"metadata": {"total_size": plain}, "weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    folder(tmp_path, model__1_safetensors=safetensors(NAMES))
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    facts = facts_in(tmp_path)
    assert (facts.weights_from, facts.weight_bytes) == ("arithmetic", plain)


def test_weights_in_pytorchs_form_have_their_files_size(tmp_path: Path) -> None:
    plain = facts_in(folder(tmp_path)).weight_bytes
    facts = facts_in(folder(tmp_path, pytorch_bin=bytes(plain * 3)))
    assert (facts.weights_from, facts.weight_bytes) == ("sizes", plain * 3)


@pytest.mark.parametrize("others", [{}, {"model_gguf": b"x"}, {"training_args_bin": b"x"}, {"tokenizer_json": b"{}"}])
def test_a_folder_without_weights_is_planned_and_that_is_said(tmp_path: Path, others: dict[str, bytes]) -> None:
    folder(tmp_path, **others)
    if "training_args_bin" in others:
        (tmp_path / "training.args.bin").rename(tmp_path / "training_args.bin")
    facts = facts_in(tmp_path)
    (said,) = facts.assumptions
    assert said.startswith("No weights that an engine would load are there")
    assert facts.weight_bytes > 0
    assert facts_in(folder(tmp_path, model_safetensors=safetensors(NAMES))).assumptions == ()


def test_layers_after_the_last_are_for_further_tokens(tmp_path: Path) -> None:
    beyond = {"model.layers.2.self_attn.q_proj.weight": ("BF16", (8, 8)), "mtp.fc.weight": ("BF16", (2, 8))}
    assert by_module(facts_in(folder(tmp_path, model_safetensors=safetensors(NAMES | beyond))))["mtp"] == 80


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("model.embed_tokens.weight", "embedding"),
        ("transformer.wte.weight", "embedding"),
        ("gpt_neox.embed_in.weight", "embedding"),
        ("lm_head.weight", "lm_head"),
        ("output.weight", "lm_head"),
        ("transformer.output_layer.weight", "lm_head"),
        ("model.layers.1.self_attn.q_proj.weight", "attention"),
        ("transformer.h.1.attn.c_attn.weight", "attention"),
        ("model.layers.1.linear_attn.in_proj_qkvz.weight", "attention"),
        ("backbone.layers.1.mixer.in_proj.weight", "attention"),
        ("model.layers.1.mlp.gate_proj.weight", "mlp"),
        ("transformer.h.1.mlp.dense_h_to_4h.weight", "mlp"),
        ("model.layers.1.mlp.shared_experts.up_proj.weight", "mlp"),
        ("model.layers.1.mlp.experts.7.up_proj.weight", "experts"),
        ("model.layers.1.block_sparse_moe.experts.7.w1.weight", "experts"),
        ("model.layers.1.mlp.experts.gate_up_proj_blocks", "experts"),
        ("model.layers.1.mlp.gate.weight", "router"),
        ("model.layers.1.block_sparse_moe.gate.weight", "router"),
        ("model.layers.1.mlp.router.bias", "router"),
        ("model.layers.1.input_layernorm.weight", "norm"),
        ("model.layers.1.self_attn.q_norm.weight", "norm"),
        ("transformer.h.1.ln_1.weight", "norm"),
        ("transformer.ln_f.bias", "norm"),
        ("visual.blocks.1.attn.qkv.weight", "vision"),
        ("vision_tower.vision_model.encoder.layers.1.self_attn.q_proj.weight", "vision"),
        ("multi_modal_projector.linear_1.weight", "vision"),
        ("language_model.model.layers.1.self_attn.o_proj.weight", "attention"),
        ("language_model.output.weight", "lm_head"),
        ("transformer.blocks.1.norm_attn_norm.attn.Wqkv.weight", "attention"),
        ("transformer.blocks.1.norm_attn_norm.norm_1.weight", "norm"),
        ("transformer.blocks.1.ffn.experts.mlp.w1", "experts"),
        ("model.layers.1.self_attn.q_layernorm.norms.3.weight", "norm"),
        ("model.layers.1.block_sparse_moe.input_linear.weight", "experts"),
        ("model.layers.1.block_sparse_moe.router.layer.weight", "router"),
        ("backbone.layers.1.mixer.up_proj.weight", "mlp"),
        ("backbone.layers.1.mixer.gate.e_score_correction_bias", "router"),
        ("word_embeddings_layernorm.weight", "norm"),
        ("model.layers.24.mlp.up_proj.weight", "mtp"),
        ("visual.blocks.30.mlp.fc1.weight", "vision"),
        ("something.else", "other"),
    ],
)
def test_classes_by_name(name: str, module: str) -> None:
    assert safetensors_format.module_of(name, 24) == module


# Damage


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is no safetensors file: it ends after 0 bytes"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        (struct.pack("<Q", 1 << 60) + b"{}", r"its header would be 1,152,921,504,606,846,976 bytes long"),
        (safetensors(NAMES)[:60], "is cut off: its header should be"),
        (struct.pack("<Q", 4) + b"[1] ", "the header is no JSON object"),
        (struct.pack("<Q", 8) + b'{"a": 1}', "the header does not say what 'a' is"),
        (struct.pack("<Q", 9) + b"{not json", "the header is no JSON object, or is cut off"),
        (safetensors(NAMES).replace(b"[10, 8]", b"[11, 8]", 1), "contradicts itself about 'model.embed_tokens.weight'"),
        (safetensors(NAMES).replace(b"[10, 8]", b"[-1, 8]", 1), "contradicts itself about 'model.embed_tokens.weight'"),
    ],
)
def test_a_damaged_safetensors_file_is_refused_with_what_is_wrong(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(Refused, match=message) as refused:
        facts_in(folder(tmp_path, model_safetensors=data))
    assert "model.safetensors" in refused.value.message
    assert refused.value.advice


@pytest.mark.parametrize("text", ["{", "[]", "\xff\xfe"])
def test_a_damaged_config_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(Refused, match=r"config\.json: no JSON object"):
        facts_in(tmp_path)


# GGUF

LLAMA = {
    "general.architecture": "llama",
    "llama.block_count": 2,
    "llama.embedding_length": 64,
    "llama.feed_forward_length": 128,
    "llama.context_length": 4096,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "tokenizer.ggml.tokens": ["a", "b", "c"],
}
TENSORS: dict[str, tuple[int, tuple[int, ...]]] = {
    "token_embd.weight": (8, (64, 32)),
    "blk.0.attn_q.weight": (12, (256, 64)),
    "blk.0.attn_norm.weight": (0, (64,)),
    "blk.0.ffn_up_exps.weight": (12, (256, 4, 2)),
    "blk.0.ffn_gate_inp.weight": (0, (64, 2)),
    "blk.0.ffn_up.weight": (14, (256, 4)),
    "output.weight": (14, (256, 8)),
}


def gguf_at(path: Path, data: bytes) -> Path:
    (path / "a.gguf").write_bytes(data)
    return path / "a.gguf"


def test_a_gguf_file(tmp_path: Path) -> None:
    facts = facts_in(gguf_at(tmp_path, gguf(LLAMA, TENSORS)))
    assert (facts.architecture, facts.hidden_size, facts.kv_heads, facts.head_dim) == ("llama", 64, 2, 16)
    assert (facts.vocab_size, facts.max_positions, facts.tied) == (3, 4096, False)
    sizes = {(one.module, one.dtype): one.bytes for one in facts.tensors}
    assert sizes == {
        ("embedding", "Q8_0"): 64 * 32 // 32 * 34,
        ("attention", "Q4_K"): 64 * 144,
        ("norm", "F32"): 256,
        ("experts", "Q4_K"): 8 * 144,
        ("router", "F32"): 512,
        ("mlp", "Q6_K"): 4 * 210,
        ("lm_head", "Q6_K"): 8 * 210,
    }
    assert facts.quantization
    assert (facts.quantization.method, facts.quantization.bits) == ("gguf", 4)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"general.architecture": "gemma2", "gemma2.attention.sliding_window": 64}, [("sliding", 64), ("full", None)]),
        ({"general.architecture": "gemma3", "gemma3.attention.sliding_window": 64}, [("sliding", 64)]),
        ({"general.architecture": "qwen3"}, [("full", None)]),
        (
            {"general.architecture": "gpt-oss", "gpt-oss.attention.sliding_window": 128},
            [("sliding", 128), ("full", None)],
        ),
        (
            {
                "general.architecture": "deepseek2",
                "deepseek2.attention.kv_lora_rank": 16,
                "deepseek2.rope.dimension_count": 8,
            },
            [("mla", None)],
        ),
    ],
)
def test_what_layers_of_a_gguf_file_see(
    tmp_path: Path, changes: dict[str, Any], expected: list[tuple[str, int | None]]
) -> None:
    name = changes["general.architecture"]
    metadata = {key.replace("llama.", f"{name}."): value for key, value in LLAMA.items()} | changes
    facts = facts_in(gguf_at(tmp_path, gguf(metadata, TENSORS)))
    assert facts.known
    assert [(one.mixer, one.window) for one in facts.layers] == expected


def test_an_architecture_of_a_gguf_file_that_is_not_known(tmp_path: Path) -> None:
    metadata = {key.replace("llama", "llama9"): "llama9" if value == "llama" else value for key, value in LLAMA.items()}
    facts = facts_in(gguf_at(tmp_path, gguf(metadata, TENSORS)))
    assert (facts.known, facts.architecture, facts.layer_count, facts.weights_from) == (False, "llama9", 2, "headers")


def test_a_type_that_is_newer_than_this_reader(tmp_path: Path) -> None:
    """Its size is not known, but the file's is."""
    data = gguf(LLAMA, {"token_embd.weight": (99, (64, 32))}) + bytes(40_000)
    facts = facts_in(gguf_at(tmp_path, data))
    assert (facts.weight_bytes, facts.weights_from) == (len(data), "sizes")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"GGUF", "is cut off: it ends within its header, at byte 4"),
        (b"GGML" + bytes(100), "is no GGUF file"),
        (gguf(LLAMA, TENSORS, version=9), "GGUF version 9, and 2 or 3 is readable"),
        (gguf(LLAMA, TENSORS)[:200], "is cut off"),
        (struct.pack("<4sIQQ", b"GGUF", 3, 1 << 40, 1), r"1,099,511,627,776 tensors; the header is damaged"),
        (struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + struct.pack("<QcI", 1, b"k", 77), "metadata of unknown type 77"),
        (struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + struct.pack("<Q", 1 << 50), "bytes of text; the header is damaged"),
    ],
)
def test_a_damaged_gguf_file_is_refused_with_what_is_wrong(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(Refused, match=message) as refused:
        facts_in(gguf_at(tmp_path, data))
    assert refused.value.advice


def test_a_long_vocabulary_is_not_kept_and_not_read_beyond_a_limit() -> None:
    metadata = {**LLAMA, "tokenizer.ggml.tokens": [f"token {n}" for n in range(50_000)]}
    data = gguf(metadata, TENSORS)
    asked: list[int] = []

    def fetch(start: int, length: int) -> bytes:
        asked.append(length)
        return data[start : start + length]

    header = gguf_format.read_header(fetch, "a.gguf", most=10_000_000)
    assert header.metadata["tokenizer.ggml.tokens"] == {"length": 50_000}
    assert header.tensors
    assert len(header.tensors) == len(TENSORS)
    assert max(asked) <= 1_000_000
    short = gguf_format.read_header(fetch, "a.gguf", most=500_000)
    assert short.tensors is None
    assert short.metadata["llama.block_count"] == 2


@given(st.binary(max_size=300), st.integers(0, 400))
def test_noise_is_refused_and_nothing_else(noise: bytes, at: int) -> None:
    """Whatever stands in a header, it is read or refused: never an accident."""
    whole, header = gguf(LLAMA, TENSORS), safetensors(NAMES)[8:]
    data = whole[:at] + noise + whole[at + len(noise) :]
    with suppress(Refused):
        gguf_format.read_header(lambda start, length: data[start : start + length], "a.gguf")
    with suppress(Refused):
        safetensors_format.tensors_in(header[:at] + noise + header[at + len(noise) :], "a.safetensors")
