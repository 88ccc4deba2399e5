"""Write a trained Llama folder (byte-level BPE, bfloat16) as a GGUF file for llama.cpp.

    python tests/lead_model/to_gguf.py FOLDER OUT.gguf

Needs gguf, numpy and safetensors. Matrices become Q8_0, vectors stay F32. The rows of Q and K are reordered, because
llama.cpp rotates neighbouring pairs where transformers rotates halves.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np

NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
LAYER_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def tensors(path: Path) -> Iterator[tuple[str, Any]]:
    """Name and float32 array of each bfloat16 tensor of a safetensors file."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    for name, about in header.items():
        if name == "__metadata__":
            continue
        if about["dtype"] != "BF16":
            raise SystemExit(f"{name} is {about['dtype']}; only BF16 is read here")
        begin, end = (8 + length + offset for offset in about["data_offsets"])
        halves = np.frombuffer(data[begin:end], np.uint16).astype(np.uint32) << 16
        yield name, halves.view(np.float32).reshape(about["shape"])


def gguf_name(name: str) -> str:
    base = name.removesuffix(".weight")
    if base in NAMES:
        return f"{NAMES[base]}.weight"
    _, _, layer, part = base.split(".", 3)
    return f"blk.{layer}.{LAYER_NAMES[part]}.weight"


def in_pairs(matrix: Any, heads: int) -> Any:
    """Rows in llama.cpp's order: the two halves of each head interleaved."""
    rows, columns = matrix.shape
    return matrix.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def write(folder: Path, out: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    writer = gguf.GGUFWriter(out, "llama")
    add_shape(writer, config, folder.name)
    add_tokenizer(writer, config, tokenizer)
    writer.add_chat_template((folder / "chat_template.jinja").read_text())
    for name, array in tensors(folder / "model.safetensors"):
        if "q_proj" in name:
            array = in_pairs(array, config["num_attention_heads"])
        if "k_proj" in name:
            array = in_pairs(array, config["num_key_value_heads"])
        if array.ndim == 1:
            writer.add_tensor(gguf_name(name), np.ascontiguousarray(array))
        else:
            kind = gguf.GGMLQuantizationType.Q8_0
            quantized = gguf.quants.quantize(np.ascontiguousarray(array), kind)
            writer.add_tensor(gguf_name(name), quantized, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_shape(writer: gguf.GGUFWriter, config: dict[str, Any], name: str) -> None:
    writer.add_name(name)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(config["hidden_size"] // config["num_attention_heads"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_vocab_size(config["vocab_size"])


def add_tokenizer(writer: gguf.GGUFWriter, config: dict[str, Any], tokenizer: dict[str, Any]) -> None:
    vocabulary = sorted(tokenizer["model"]["vocab"].items(), key=lambda item: item[1])
    special = {token["id"] for token in tokenizer["added_tokens"] if token["special"]}
    kinds = [gguf.TokenType.CONTROL if i in special else gguf.TokenType.NORMAL for _, i in vocabulary]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in tokenizer["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([token for token, _ in vocabulary])
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_pad_token_id(config["pad_token_id"])
    writer.add_add_bos_token(True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    write(options.folder, options.out)
    print(f"{options.out}: {options.out.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
