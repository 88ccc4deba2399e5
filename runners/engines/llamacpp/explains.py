"""Each kind of finding about llama.cpp: its formula, and where it comes from."""

from __future__ import annotations

EXPLAINS = {
    "flag": "Sizes, slots and threads are whole numbers. Source: llama.cpp, common/arg.cpp",
    "weights": "GGUF bytes of the layers on one GPU (the embedding stays in RAM; one that is also the output is copied)"
    " + KV cache + compute buffer + 0.5 GiB for CUDA against the GPU's memory; without n_gpu_layers the engine moves"
    " layers to RAM until 1 GiB is left free. Source: llama.cpp, src/llama-model.cpp, common/fit.cpp",
    "kv-cache": "slots × tokens of a slot (rounded up to 256) × layers × KV heads × (key + value size) × bytes of an"
    " element (f16 2, q8_0 34/32, q4_0 18/32); layers with a window keep window + ubatch_size tokens, rounded up"
    " to 256. Source: llama.cpp, src/llama-context.cpp, src/llama-kv-cache.cpp, src/llama-kv-cache-iswa.cpp",
    "ram": "GGUF bytes + KV cache + compute buffer + 0.06 GiB against the machine's RAM. Compute buffer: 4 bytes ×"
    " ubatch_size × max(5 × hidden + 3 × inner size, 3 × hidden + 3 × queries) + the attention mask. Source: measured"
    " on the engine's log, within 8 %",
    "max-model-len": "ctx_size is shared by `parallel` slots (unless kv_unified), rounded up to 256 tokens each; a slot"
    " never takes more than the context that the model was trained on. Source: llama.cpp, src/llama-context.cpp,"
    " tools/server/server-context.cpp",
    "quantization": "a quantized V cache needs flash attention; a quantized cache needs head sizes that are multiples"
    " of its block (32). Source: llama.cpp, src/llama-context.cpp",
    "parallelism": "llama.cpp spreads a model by split_mode and tensor_split; it has no parallel sizes. Source:"
    " llama.cpp, common/arg.cpp",
    "capability": "xllamacpp's CUDA build has code for compute capability 5.0 on; those for ROCm are not installed."
    " Source: xllamacpp's README, CUDA GPU Architecture Coverage",
    "cuda": "machine code for 8.6, 8.9 and 12.0 runs with any driver of CUDA 12; all other GPUs translate PTX, which"
    " needs a driver of CUDA 12.8. Source: xllamacpp's README, CUDA GPU Architecture Coverage",
    "architecture": "llama.cpp loads GGUF files of architectures that its release knows. Source: llama.cpp,"
    " src/llama-arch.cpp",
}
