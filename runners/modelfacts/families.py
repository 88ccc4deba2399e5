"""What a model type's layers are made of, where its config does not say: biases, norms, gates, tied embeddings.

As in the models' own code in transformers, and for the types that it lacks as in the code beside their weights. A flag
that is a name is a field of the config; "name=1" is one that stands for true where it is left out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Flag = bool | str


@dataclass(frozen=True, kw_only=True)
class Family:
    gated: bool = True
    """The feed-forward multiplies by a gate (three matrices instead of two)."""
    qkv_bias: Flag = False
    o_bias: Flag = False
    mlp_bias: Flag = False
    norms: int = 2
    """Norms of the hidden size in each layer."""
    norm_bias: bool = False
    qk_norm: Literal["", "head", "heads"] = ""
    """head: one norm of head_dim for all heads; heads: of all heads together."""
    qk_norm_if: Flag = True
    query_gate: Flag = False
    final_norm: bool = True
    embedding_norm: bool = False
    head_bias: Flag = False
    positions: int | None = None
    """A learned table of positions, with so many rows more than max positions."""
    tied: bool | None = None
    """Where transformers has no default for tie_word_embeddings (its base class said true until version 5)."""
    wide: int = 4
    """intermediate size in hidden sizes, where the config gives none."""
    shared_gate: bool = False
    score_bias: bool = False
    router_bias: bool = False
    expert_bias: bool = False
    sliding: Literal["", "all", "even", "pattern"] = ""
    """Without layer_types: which layers see a window."""
    pattern: int = 0
    """One layer in so many sees everything."""
    multimodal: bool = False
    exact: bool = True
    """Whether the arithmetic gives every weight of this family."""


_LLAMA = Family(qkv_bias="attention_bias", o_bias="attention_bias", mlp_bias="mlp_bias")
_PLAIN = Family(tied=False)
_QWEN2 = Family(qkv_bias=True, sliding="pattern")
_QWEN3 = Family(qkv_bias="attention_bias", o_bias="attention_bias", qk_norm="head", sliding="pattern")
_QWEN3_HYBRID = replace(_QWEN3, query_gate="attn_output_gate=1", shared_gate=True, sliding="")
_GPT2 = Family(gated=False, qkv_bias=True, o_bias=True, mlp_bias=True, norm_bias=True, positions=0)
_GPTJ = Family(gated=False, mlp_bias=True, norms=1, norm_bias=True, head_bias=True, tied=False)
_GEMMA2 = Family(
    qkv_bias="attention_bias", o_bias="attention_bias", norms=4, sliding="even", tied=True
)  # norms before and after both halves
_GEMMA3 = replace(_GEMMA2, qk_norm="head", sliding="pattern", pattern=6)
_COHERE = Family(
    qkv_bias="attention_bias", o_bias="attention_bias", norms=1, qk_norm="heads", qk_norm_if="use_qk_norm", tied=True
)
_OLMO2 = Family(qkv_bias="attention_bias", o_bias="attention_bias", qk_norm="heads")
_MLA = Family(qkv_bias="attention_bias", o_bias="attention_bias", tied=False)
_MLA_SCORED = replace(_MLA, score_bias=True)
_GLM4_MOE = Family(qkv_bias="attention_bias", qk_norm="head", qk_norm_if="use_qk_norm", score_bias=True, tied=False)
_GRANITE = Family(qkv_bias="attention_bias", o_bias="attention_bias", mlp_bias="mlp_bias")
_CHATGLM = Family(qkv_bias="add_qkv_bias", o_bias="add_bias_linear", mlp_bias="add_bias_linear", tied=False)

FAMILIES: dict[str, Family] = {
    "llama": _LLAMA,
    "Yi": _LLAMA,
    "aquila": _PLAIN,
    "mistral": Family(sliding="all"),
    "ministral": Family(sliding="all"),
    "ministral3": Family(sliding="all"),
    "mixtral": Family(sliding="all"),
    "qwen": replace(_PLAIN, qkv_bias=True),
    "qwen2": _QWEN2,
    "qwen2_moe": replace(_QWEN2, qkv_bias="qkv_bias=1", shared_gate=True),
    "qwen2_vl_text": _QWEN2,
    "qwen2_vl": replace(_QWEN2, multimodal=True),
    "qwen2_5_vl_text": _QWEN2,
    "qwen2_5_vl": replace(_QWEN2, multimodal=True),
    "qwen3": _QWEN3,
    "qwen3_moe": _QWEN3,
    "qwen3_vl_text": _QWEN3,
    "qwen3_vl_moe_text": _QWEN3,
    "qwen3_next": _QWEN3_HYBRID,
    "qwen3_5_text": _QWEN3_HYBRID,
    "qwen3_5_moe_text": _QWEN3_HYBRID,
    "gemma": Family(qkv_bias="attention_bias", o_bias="attention_bias", tied=True),
    "gemma2": _GEMMA2,
    "gemma3_text": _GEMMA3,
    "gemma3n_text": replace(_GEMMA3, pattern=5, exact=False),
    "gemma4_text": replace(_GEMMA3, router_bias=True),
    "phi": replace(
        _GPTJ, qkv_bias=True, o_bias=True, qk_norm="head", qk_norm_if="qk_layernorm"
    ),
    "phi3": Family(sliding="all", tied=False),
    "phi4mm": Family(tied=True, multimodal=True, exact=False),
    "phi3_v": Family(tied=False, multimodal=True),
    "phi3small": Family(qkv_bias=True, o_bias=True, mlp_bias=True, norm_bias=True, tied=True, exact=False),
    "phimoe": Family(
        qkv_bias="attention_bias", o_bias="attention_bias", norm_bias=True, head_bias="lm_head_bias", sliding="all"
    ),
    "falcon": Family(gated=False, qkv_bias="bias", o_bias="bias", mlp_bias="bias", norm_bias=True, tied=True),
    "RefinedWebModel": Family(gated=False, norm_bias=True, tied=True),
    "RefinedWeb": Family(gated=False, norm_bias=True, tied=True),
    "gpt_neox": Family(
        gated=False, qkv_bias="attention_bias=1", o_bias="attention_bias=1", mlp_bias=True, norm_bias=True, tied=False
    ),
    "gptj": _GPTJ,
    "codegen": _GPTJ,
    "gpt2": _GPT2,
    "gpt_bigcode": _GPT2,
    "opt": replace(
        _GPT2, qkv_bias="enable_bias=1", o_bias="enable_bias=1", mlp_bias="enable_bias=1", positions=2
    ),
    "bloom": replace(_GPT2, positions=None, embedding_norm=True),
    "mpt": Family(gated=False, tied=True),
    "baichuan": _PLAIN,
    "chatglm": _CHATGLM,
    "internlm": Family(qkv_bias="bias=1", o_bias="bias=1", tied=False),
    "internlm2": Family(qkv_bias="bias", o_bias="bias", tied=False),
    "internlm3": Family(qkv_bias="qkv_bias", o_bias="bias", tied=False),
    "starcoder2": Family(
        gated=False, qkv_bias="use_bias=1", o_bias="use_bias=1", mlp_bias="use_bias=1", norm_bias=True, sliding="all"
    ),
    "stablelm": Family(qkv_bias="use_qkv_bias", norm_bias=True, tied=False),
    "stablelm_epoch": Family(qkv_bias="use_qkv_bias", norm_bias=True, tied=False),
    "cohere": _COHERE,
    "cohere2": replace(_COHERE, qk_norm="", sliding="pattern", pattern=4),
    "dbrx": Family(tied=False),
    "deepseek": replace(_LLAMA, tied=False),
    "deepseek_v2": _MLA,
    "deepseek_v3": _MLA_SCORED,
    "deepseek_v32": _MLA_SCORED,
    "kimi_k2": _MLA_SCORED,
    "glm4_moe_lite": _MLA_SCORED,
    "glm_moe_dsa": _MLA_SCORED,
    "minicpm": replace(_PLAIN, tied=True),
    "minicpm3": _MLA,
    "glm": Family(qkv_bias="attention_bias", tied=False),
    "glm4": Family(qkv_bias="attention_bias", norms=4, tied=False),
    "glm4v_text": Family(qkv_bias=True, norms=4, tied=False),
    "glm4_moe": _GLM4_MOE,
    "glm4v_moe_text": _GLM4_MOE,
    "minimax": Family(),
    "minimax_m2": Family(qk_norm="heads", qk_norm_if="use_qk_norm=1", score_bias=True, tied=False),
    "olmo": Family(qkv_bias="attention_bias", o_bias="attention_bias", norms=0, final_norm=False),
    "olmo2": _OLMO2,
    "olmo3": replace(_OLMO2, sliding="pattern", pattern=4),
    "olmoe": _OLMO2,
    "granite": _GRANITE,
    "granitemoe": _GRANITE,
    "granitemoeshared": _GRANITE,
    "granitemoehybrid": _GRANITE,
    "nemotron": Family(
        gated=False, qkv_bias="attention_bias", o_bias="attention_bias", mlp_bias="mlp_bias", norm_bias=True
    ),
    "nemotron_h": Family(
        gated=False, qkv_bias="attention_bias", o_bias="attention_bias", mlp_bias="mlp_bias", norms=1, score_bias=True
    ),
    "jamba": Family(),
    "mamba": Family(norms=1),
    "falcon_mamba": Family(norms=1),
    "mamba2": Family(norms=1),
    "bamba": Family(qkv_bias="attention_bias", o_bias="attention_bias", mlp_bias="mlp_bias"),
    "falcon_h1": Family(qkv_bias="attention_bias", o_bias="attention_bias", mlp_bias="mlp_bias"),
    "kimi_linear": _MLA_SCORED,
    "lfm2": Family(qk_norm="head", tied=True),
    "lfm2_moe": Family(qk_norm="head", score_bias=True, tied=True),
    "exaone": replace(_PLAIN, tied=False),
    "exaone4": Family(qk_norm="head", sliding="pattern", pattern=4),
    "gpt_oss": Family(
        qkv_bias="attention_bias=1", o_bias="attention_bias=1", router_bias=True, expert_bias=True, sliding="even"
    ),
    "llama4_text": replace(_LLAMA, tied=False),
    "mllama_text_model": Family(tied=False),
    "smollm3": _LLAMA,
    "seed_oss": Family(qkv_bias="attention_bias=1", o_bias="attention_out_bias", mlp_bias="mlp_bias"),
    "hunyuan_v1_dense": Family(qkv_bias="attention_bias", o_bias="attention_bias", qk_norm="head"),
    "ernie4_5": Family(qkv_bias="use_bias", o_bias="use_bias", mlp_bias="use_bias"),
    "dots1": Family(qk_norm="head", score_bias=True, tied=False, qkv_bias="attention_bias", o_bias="attention_bias"),
    "arcee": Family(gated=False, qkv_bias="attention_bias", o_bias="attention_bias", mlp_bias="mlp_bias"),
    "helium": Family(qkv_bias="attention_bias", mlp_bias="mlp_bias"),
}  # fmt: skip
