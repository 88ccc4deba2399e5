"""Types and quantization against the accelerator's generation, by release."""

from __future__ import annotations

from typing import Any

import pytest

from tests.runners.vllm.building import assess, blocks, finding, model

BF16 = "Bfloat16 is only supported on GPUs with compute capability of at least 8.0. Your T4 GPU has compute capability"


def test_bfloat16_is_refused_where_the_accelerator_lacks_it() -> None:
    found = finding(assess(gpu="T4", version="0.6.6"), "dtype")
    assert (found.level, found.suggestion) == ("block", "engine.args.dtype: half")
    assert found.quote.startswith(BF16)
    assert found.quote.endswith("for example: --dtype=half.")


@pytest.mark.parametrize(
    ("version", "dtype", "level"),
    [
        ("0.6.6", "half", None),
        ("0.6.6", "bfloat16", "block"),
        ("0.10.2", "auto", "warn"),
        ("0.10.2", "bfloat16", "block"),
        ("0.33.0", "auto", "warn"),
    ],
)
def test_auto_falls_back_since_0_9(version: str, dtype: str, level: str | None) -> None:
    found = [one.level for one in assess(gpu="T4", version=version, dtype=dtype).findings if one.code == "dtype"]
    assert found == ([level] if level else [])


def test_gemma_takes_float32_where_bfloat16_is_missing() -> None:
    gemma = model(model_type="gemma2", architectures=["Gemma2ForCausalLM"], num_hidden_layers=4)
    on_turing, on_ampere = assess(gemma, "T4", version="0.10.2"), assess(gemma, "A100-80GB", version="0.10.2")
    assert "float32" in finding(on_turing, "dtype").message
    assert on_turing.memory is not None
    assert on_ampere.memory is not None
    ratio = on_turing.memory.weights_gib_per_gpu / on_ampere.memory.weights_gib_per_gpu
    assert ratio == pytest.approx(2, rel=0.02)
    assert finding(assess(gemma, version="0.10.2", dtype="half"), "dtype").level == "block"


QUANTIZED: list[tuple[str, dict[str, Any], str, str, str | None]] = [
    (
        "fp8 before Marlin",
        {"quant_method": "fp8"},
        "A100-80GB",
        "0.4.3",
        "Minimum capability: 89. Current capability: 80.",
    ),
    ("fp8 with Marlin", {"quant_method": "fp8"}, "A100-80GB", "0.6.6", None),
    ("fp8 on Turing", {"quant_method": "fp8"}, "T4", "0.10.2", "Minimum capability: 80. Current capability: 75."),
    ("fp8 on Turing now", {"quant_method": "fp8"}, "T4", "0.33.0", None),
    ("mxfp4 on Turing", {"quant_method": "mxfp4"}, "T4", "0.11.0", "Minimum capability: 80. Current capability: 75."),
    (
        "awq on Volta",
        {"quant_method": "awq", "bits": 4, "group_size": 128},
        "V100-32GB",
        "0.6.6",
        "Minimum capability: 75.",
    ),
    ("awq on Ampere", {"quant_method": "awq", "bits": 4, "group_size": 128}, "A100-80GB", "0.6.6", None),
    ("gptq on Volta", {"quant_method": "gptq", "bits": 4, "group_size": 128}, "V100-32GB", "0.6.6", None),
]


@pytest.mark.parametrize(
    ("quantization", "gpu", "version", "quote"), [row[1:] for row in QUANTIZED], ids=[row[0] for row in QUANTIZED]
)
def test_methods_need_a_generation(quantization: dict[str, Any], gpu: str, version: str, quote: str | None) -> None:
    facts = model(quantization_config=quantization, torch_dtype="float16")
    found = [one for one in blocks(assess(facts, gpu, version=version)) if one.code == "quantization"]
    assert len(found) == (quote is not None)
    assert all(one.quote.startswith("The quantization method ") and quote and quote in one.quote for one in found)


@pytest.mark.parametrize(
    ("stored", "refused"), [("float7", True), ("int8", False), ("float8_e4m3fn", False), ("torch.float16", False)]
)
def test_a_type_that_pytorch_does_not_have_is_refused(stored: str, refused: bool) -> None:
    found = [one.quote for one in blocks(assess(model(torch_dtype=stored)))]
    assert found == [f"module 'torch' has no attribute '{stored}'"] * refused


def compressed(kind: str, bits: int, inputs: int | None, form: str) -> dict[str, Any]:
    group = {
        "targets": ["Linear"],
        "weights": {"num_bits": bits, "type": kind, "strategy": "channel", "symmetric": True},
        "input_activations": {"num_bits": inputs, "type": kind, "dynamic": True} if inputs else None,
    }
    return {"quant_method": "compressed-tensors", "format": form, "config_groups": {"group_0": group}}


W4A16 = compressed("int", 4, None, "pack-quantized")
INT8 = compressed("int", 8, 8, "int-quantized")
FP8 = compressed("float", 8, 8, "float-quantized")


@pytest.mark.parametrize(
    ("quantization", "gpu", "version", "needed"),
    [
        (W4A16, "T4", "0.8.0", 80),
        (W4A16, "T4", "0.11.2", 80),
        (W4A16, "T4", "0.12.0", None),
        (W4A16, "V100-32GB", "0.12.0", 75),
        (W4A16, "A100-80GB", "0.8.0", None),
        (FP8, "T4", "0.8.0", 80),
        (FP8, "T4", "0.14.0", 80),
        (FP8, "T4", "0.16.0", None),
        (FP8, "A100-80GB", "0.8.0", None),
        (INT8, "T4", "0.8.0", None),
        (INT8, "V100-32GB", "0.8.0", 75),
        (compressed("int", 3, None, "a form of tomorrow"), "T4", "0.8.0", None),
    ],
)
def test_schemes_of_compressed_tensors_need_a_generation(
    quantization: dict[str, Any], gpu: str, version: str, needed: int | None
) -> None:
    facts = model(quantization_config=quantization, torch_dtype="float16")
    found = [one for one in blocks(assess(facts, gpu, version=version)) if one.code == "quantization"]
    quotes = [f"('Quantization scheme is not supported for ', 'the current GPU. Min capability: {needed}. ', "]
    assert [one.quote[: len(quotes[0])] for one in found] == quotes * (needed is not None)


def test_fp8_without_fp8_arithmetic_is_told() -> None:
    found = finding(assess(model(quantization_config={"quant_method": "fp8"}), "A100-80GB"), "quantization")
    assert found.level == "warn"
    assert "Marlin" in found.message


@pytest.mark.parametrize(
    ("gpu", "version", "refused"),
    [("P100", "0.6.6", True), ("V100-32GB", "0.33.0", True), ("V100-32GB", "0.10.0", False), ("T4", "0.33.0", False)],
)
def test_generations_that_the_wheels_hold_no_kernels_for(gpu: str, version: str, refused: bool) -> None:
    codes = [one.code for one in blocks(assess(gpu=gpu, version=version, dtype="half"))]
    assert ("capability" in codes) == refused


@pytest.mark.parametrize(
    ("version", "kind", "times"), [("0.11.0", "fp8", 2), ("0.33.0", "fp8_e5m2", 2), ("0.33.0", "nvfp4", 32 / 9)]
)
def test_a_cache_of_a_smaller_type_holds_more_tokens(version: str, kind: str, times: float) -> None:
    plain = assess(gpu="H100-SXM", version=version).memory
    small = assess(gpu="H100-SXM", version=version, kv_cache_dtype=kind).memory
    assert plain is not None
    assert small is not None
    assert small.kv_tokens / plain.kv_tokens == pytest.approx(times, rel=0.01)


@pytest.mark.parametrize(("method", "part"), [("fp8", 0.6), ("bitsandbytes", 0.4)])
def test_quantizing_while_loading_makes_weights_smaller(method: str, part: float) -> None:
    plain, small = assess().memory, assess(quantization=method).memory
    assert plain is not None
    assert small is not None
    assert small.weights_gib_per_gpu < part * plain.weights_gib_per_gpu


def test_quantizing_needed_all_weights_first_until_0_15() -> None:
    facts = model(num_hidden_layers=60)  # 13 GiB as fp8, 25 GiB as it is stored
    early, late = (assess(facts, "RTX4090", version=version, quantization="fp8") for version in ("0.11.0", "0.17.0"))
    assert finding(early, "weights").level == "block"
    assert finding(early, "weights").quote.startswith("CUDA out of memory. Tried to allocate")
    assert finding(late, "weights").level == "ok"


GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128}
UNKNOWN: list[tuple[str, str | None, dict[str, Any], str | None]] = [
    # release, the flag, what the checkpoint is stored in, vLLM's words
    ("0.32.0", "bitsandbytes", {}, "Unknown quantization method: bitsandbytes."),
    ("0.26.0", "bitsandbytes", {}, None),
    (
        "0.7.0",
        "bitsandbytes",
        {},
        "BitsAndBytes quantization and QLoRA adapter only support 'bitsandbytes' load format",
    ),
    ("0.3.3", "fp8", {}, "argument --quantization/-q: invalid choice: 'fp8'"),
    ("0.33.0", "fp8", {}, None),  # deprecated, and still taken for fp8_per_tensor
    ("0.33.0", "fp8_per_tensor", {}, None),
    ("0.19.0", "fp8_per_tensor", {}, "Unknown quantization method: fp8_per_tensor."),
    ("0.11.0", "awq", GPTQ, "Quantization method specified in the model"),
    ("0.11.0", "gptq_marlin", GPTQ, None),
    ("0.33.0", "nonsense", {}, "Unknown quantization method: nonsense. Must be one of"),
    ("0.33.0", None, {"quant_method": "nonsense"}, "Unknown quantization method: nonsense. Must be one of"),
    ("0.8.0", None, {"quant_method": "mxfp4"}, "Unknown quantization method: mxfp4. Must be one of"),
    ("0.33.0", "awq", {}, "Cannot find the config file for awq"),
    ("0.2.7", "gptq", {}, "Cannot find the config file for gptq"),
    ("0.33.0", "modelopt", {}, "Cannot find the config file for modelopt"),
    ("0.33.0", "compressed-tensors", {}, "CompressedTensorsConfig.__init__() missing"),
    ("0.33.0", "mxfp4", {}, None),
    ("0.33.0", None, {"quant_method": "fbgemm_fp8"}, "('The quantization method %s is deprecated and will be removed"),
    ("0.11.0", None, {"quant_method": "fbgemm_fp8"}, None),
    ("0.33.0", None, {"quant_method": "auto-round", "bits": 4, "group_size": 128}, None),
]


@pytest.mark.parametrize(("version", "method", "stored", "quote"), UNKNOWN)
def test_methods_come_and_go(version: str, method: str | None, stored: dict[str, Any], quote: str | None) -> None:
    facts = model(torch_dtype="float16", **({"quantization_config": stored} if stored else {}))
    asked = {"quantization": method} if method else {}
    found = blocks(assess(facts, "H100-SXM", version=version, **asked))
    assert [one.code for one in found] == ["quantization"] * (quote is not None)
    assert all(one.quote.startswith(quote or "-") for one in found)


def test_what_is_stored_in_bitsandbytes_cannot_be_split() -> None:
    facts = model(quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})
    (found,) = blocks(assess(facts, version="0.11.0", tensor_parallel_size=2))
    assert found.quote.startswith("Prequant BitsAndBytes models with tensor parallelism is not supported.")
    assert blocks(assess(facts, version="0.11.0", pipeline_parallel_size=2)) == []


@pytest.mark.parametrize("method", ["nonsense", "bitsandbytes"])
def test_of_a_release_that_nobody_knows_methods_are_only_doubted(method: str) -> None:
    assessment = assess(version="99.0.0", quantization=method)
    assert blocks(assessment) == []
    assert finding(assessment, "quantization").level == "warn"
