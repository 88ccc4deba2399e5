"""Each kind of finding about transformers serve: its formula, and where it comes from."""

from __future__ import annotations

EXPLAINS = {
    "weights": "elements × bytes of the type (engine.args.dtype; auto: the config's) on one GPU, or spread over all"
    " with pipeline stages or device: auto; bnb-8bit: 1 byte, bnb-4bit: 0.516 bytes for linear layers, but not for"
    " embedding, output layer and experts; + 0.5 GiB for CUDA. Source: transformers, modeling_utils.py, quantizers/",
    "kv-cache": "what weights, CUDA and a prompt's forward pass leave ÷ (layers × KV heads × (key + value size) ×"
    " bytes); the pass takes tokens × bytes × max(3 × inner + 3 × hidden, 4 × queries + 3 × hidden); requests are"
    " answered one by one. With continuous_batching: 90 % of what is free, less batch tokens, masks and index tensors."
    " Source: transformers, cache_utils.py, generation/continuous_batching/cache.py",
    "ram": "weights in the type that is computed in + one request's keys, values and forward pass + 0.35 GiB against"
    " the machine's RAM. Source: measured on the CPU",
    "dtype": "bfloat16 from compute capability 8.0 on; before, it is emulated. Source: torch.cuda.is_bf16_supported",
    "quantization": "stored weights need their method's library; bitsandbytes alone is installed. nf4 has blocks of 64."
    " Source: transformers, quantizers/",
    "capability": "PyTorch's wheels for CUDA 13 have kernels from compute capability 7.5 on. Source: its release notes",
    "parallelism": "transformers serve has no parallel sizes; pipeline_parallel_size above 1 becomes --device auto,"
    " which spreads layers over all GPUs. Source: transformers, cli/serve.py",
    "exposed": "transformers serve knows no key. Source: transformers, cli/serving/server.py",
    "architecture": "transformers refuses a model_type that its release does not know. Source: transformers,"
    " models/auto/configuration_auto.py",
}
