"""How each finding comes about, for `recipe plan --explain CODE`: the formula, and where in vLLM it stands."""

from __future__ import annotations

from collections.abc import Mapping

EXPLAINS: Mapping[str, str] = {
    "tensor-parallel": """\
heads % tp == 0
kv_heads % tp == 0, or with fewer key/value heads than GPUs: tp % kv_heads == 0 (each GPU then repeats one)
padded vocabulary % tp == 0 (padded to a multiple of 64), intermediate_size % tp == 0

vLLM: config/model.py, verify_with_parallel_config (before 0.10.2 config.py); model_executor/models/llama.py;
distributed/utils.py, divide; layers/vocab_parallel_embedding.py. The rule for heads is the same in 0.2.0 to 0.33.""",
    "pipeline-parallel": """\
before 0.5.1: layers % pp == 0, and the server has no pipeline parallelism yet
since: stages differ by at most one layer; the GPU with the most layers and the embedding or the output decides

vLLM: config/model.py, verify_with_parallel_config; distributed/utils.py, get_pp_indices.""",
    "expert-parallel": """\
a GPU holds ceil(experts / (tp × dp)) whole experts with enable_expert_parallel; else each expert is split by tp × dp

vLLM: config/model.py, _verify_with_expert_parallelism; layers/fused_moe/config.py.""",
    "quantization-shards": """\
AWQ, GPTQ: (intermediate_size / tp) % group_size == 0
Marlin: a shard's inputs % 128 == 0 and outputs % 64 == 0
fp8 in blocks: a shard's inputs and outputs are multiples of the block (128 × 128)

vLLM: layers/quantization/{awq,gptq,gptq_marlin,fp8}.py, create_weights; utils/marlin_utils.py; utils/fp8_utils.py.""",
    "quantization": """\
the release knows the method; a model that is stored in one is not asked for in another, and one that is stored in none
only in those that quantize while loading (fp8, fp8_per_tensor since 0.20, bitsandbytes until 0.27, …)
compute capability ≥ the method's minimum, in this release; with compressed-tensors ≥ that of each scheme

vLLM: layers/quantization/__init__.py, QUANTIZATION_METHODS; config/model.py, _verify_quantization;
model_loader/weight_utils.py, get_quant_config; layers/quantization/*.py and compressed_tensors/schemes/*.py,
get_min_capability; config/vllm.py, _get_quantization_config (before 0.5 model_executor/model_loader.py).""",
    "architecture": """\
one of config.json's architectures is in the release's registry of models
until 0.7.0 others are refused; since, Transformers' own code runs them, if it is written for vLLM's attention

vLLM: model_executor/models/registry.py (before 0.6.3 models/__init__.py, before 0.2.3 model_executor/model_loader.py),
of 58 releases.""",
    "dtype": """\
bfloat16 needs compute capability 8.0; dtype auto falls back to float16 since 0.9.0, and fails before
gemma2, gemma3 and glm4 are refused in float16 since 0.9.0, and take float32 where bfloat16 is missing

vLLM: config/model.py, _get_and_verify_dtype, _resolve_auto_dtype; platforms/cuda.py, check_if_supports_dtype.""",
    "capability": """\
the published wheels hold kernels for compute capability 7.0 and newer; built for CUDA 13 (since 0.20.0), 7.5 and newer

vLLM: CMakeLists.txt, CUDA_SUPPORTED_ARCHS; CUDA 13 dropped Volta.""",
    "max-model-len": """\
derived = the smallest of max_position_embeddings, n_positions, max_seq_len, seq_length, … in config.json
× rope_scaling.factor for linear and dynamic scaling; yarn: original_max_position_embeddings × factor (until 0.29)
max_model_len ≤ derived, unless VLLM_ALLOW_LONG_MAX_MODEL_LEN=1 (since 0.5.4)

vLLM: config/model.py, _get_and_verify_max_len (before 0.10.2 config.py).""",
    "weights": """\
weights per GPU = Σ over modules: embedding and output (vocabulary padded to 64) / tp, attention / tp with at least one
  key/value head on each GPU, feed-forward / tp, experts / (tp × dp), router and norms whole; layers / pp
floats are cast to the dtype that is computed in; quantized weights stay as they are stored
they must fit before anything else: gpu_memory_utilization does not bound loading
since 0.9.1: gpu_memory_utilization × memory ≤ memory that is free at the start

vLLM: layers/linear.py, QKVParallelLinear; layers/vocab_parallel_embedding.py; layers/fused_moe/layer.py;
v1/worker/gpu_worker.py, init_device.""",
    "kv-cache": """\
available = gpu_memory_utilization × memory − weights − activation − what is not PyTorch's (− CUDA graphs, since 0.20.0)
activation = max(forward pass, sampling):
  forward  = b × N × (3…5 × hidden + 3 × intermediate / tp), N = max_num_batched_tokens; with experts their buffers
  sampling = b × N × hidden + max_num_seqs × vocabulary × 38.7 bytes (sorted by PyTorch: until 0.16; 14 with Triton from
             0.17, 12 with FlashInfer from 0.21, 4 with Model Runner V2)
block = block_size × Σ layers 2 × max(1, kv_heads / tp) × head_dim × bytes of the cache's type; MLA: the latent once
blocks = ⌊available / block⌋; layers with a window, or with a state, are grouped so that blocks have one size
needed = blocks of one request of max_model_len (a window counts min(window − 1 + N, length))

vLLM: v1/worker/gpu_worker.py, determine_available_memory; worker/worker.py, determine_num_available_blocks;
utils/mem_utils.py, memory_profiling; v1/sample/ops/topk_topp_sampler.py; layers/fused_moe/fused_moe.py;
v1/kv_cache_interface.py; v1/core/kv_cache_utils.py.""",
    "flag": """\
each flag of engine.args is one that this release's command line has, or the beginning of its name
numbers are numbers: 32k and 32K since 0.8.3 (max_model_len) and 0.10.2; 0 < gpu_memory_utilization ≤ 1;
max_num_seqs ≥ 1; dtype, kv_cache_dtype and block_size (until 0.17; then multiples of 16) are among the release's own

vLLM: engine/arg_utils.py, EngineArgs and add_cli_args; entrypoints/openai/cli_args.py, of 58 releases; config/cache.py,
config/scheduler.py.""",
    "concurrency": """\
requests at once = min(max_num_seqs, ⌊blocks / blocks of one request⌋), for the longest request and for the mean one

vLLM: core/scheduler.py, v1/core/sched/scheduler.py, v1/core/kv_cache_manager.py.""",
}
