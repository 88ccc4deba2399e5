"""What transformers' server is told and what it says, verbatim, of 5.23."""

from runners.engine import LogSample

_SERVE = "PYTHON -m transformers.cli.transformers serve MODEL --host 127.0.0.1 --port 8000"

LAUNCHES = [
    {
        "engine": {"args": {"dtype": "float32", "continuous_batching": True, "cb_num_blocks": 64, "compile": None}},
        "argv": f"{_SERVE} --dtype float32 --continuous-batching --cb-num-blocks 64",
        "env": {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    },
    {  # on a GPU, and on nothing else
        "engine": {"args": {"quantization": "bnb-4bit"}},
        "accelerated": True,
        "argv": f"{_SERVE} --device cuda --quantization bnb-4bit",
        "env": {"OMP_NUM_THREADS": None},
    },
    {  # layers over all GPUs
        "engine": {"pipeline_parallel_size": 2},
        "accelerated": True,
        "argv": f"{_SERVE} --device auto",
    },
    {
        "engine": {"args": {"device": "cuda:1"}},
        "accelerated": True,
        "argv": f"{_SERVE} --device cuda:1",
    },
]

CONTEXTS = [({}, None), ({"max_model_len": 2048}, None)]

LOG_LINES: list[tuple[str, LogSample | None]] = [
    ("[transformers] [Request received] Model: /models/lead@main, CB: False", None),
    ('INFO:     127.0.0.1:35044 - "POST /v1/completions HTTP/1.1" 200 OK', None),
]

METRICS = [("vllm:prompt_tokens_total 7\n", None)]

FAILURES = [
    (
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 172.00 MiB. GPU 0 has a total",
        "CUDA out of memory. Tried to allocate 172.00 MiB.",
    ),
    ("Error: No such option '--swap-space'.", "No such option '--swap-space'."),
    ("│ No such option: --max-model-len │", "No such option: --max-model-len"),
    (
        "ValueError: Unsupported quantization method: 'awq'. Must be 'bnb-4bit' or 'bnb-8bit'.",
        "Unsupported quantization method: 'awq'.",
    ),
    (
        "MemoryError: Memory footprint 20937965568 is more than available memory 14961500160",
        "Memory footprint 20937965568 is more than available memory",
    ),
    ("ValueError: Invalid values: max_batch_tokens = 8192, num_sectors = 0", "Invalid values: max_batch_tokens = 8192"),
    (
        "ImportError: Loading a GPTQ quantized model requires optimum (`pip install optimum`)",
        "Loading a GPTQ quantized model requires optimum",
    ),
    (
        "ImportError: Using `compressed_tensors` quantized models requires compressed-tensors>=0.15.0: `pip install",
        "requires compressed-tensors",
    ),
    (
        "ValueError: The checkpoint you are trying to load has model type `new9` but Transformers does not recognize"
        " this architecture.",
        "model type `new9` but Transformers does not recognize this architecture.",
    ),
    ("OSError: [Errno 98] error while attempting to bind on address: address already in use", "address already in use"),
    ("{'detail': \"Server is pinned to '/a/b'; requested 'lead'.\"}", "Server is pinned to '/a/b'"),
]
