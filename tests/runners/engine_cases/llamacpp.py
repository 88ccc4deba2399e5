"""What llama.cpp's server is told and what it says, verbatim."""

from runners.engine import EngineSample, LogSample

LAUNCHES = [
    {
        "engine": {"args": {"ctx_size": 4096, "parallel": 2, "threads": 1, "batch_size": None}},
        "argv": "PYTHON ONHOST/serve_llamacpp.py --model MODEL --alias NAME --host 127.0.0.1 --port 8000"
        " --ctx-size 4096 --parallel 2 --threads 1",
        "env": {"RECIPE_ENGINE_KEY": "KEY"},
    },
    {
        "engine": {"args": {"n-gpu-layers": 99, "flash_attn": True, "tensor_split": [1, 1]}},
        "accelerated": True,
        "argv": "PYTHON ONHOST/serve_llamacpp.py --model MODEL --alias NAME --host 127.0.0.1 --port 8000"
        " --n-gpu-layers 99 --flash-attn --tensor-split 1 1",
    },
]

CONTEXTS = [
    ({"ctx_size": 4096}, 4096),
    ({"ctx-size": 4096, "parallel": 2}, 2048),
    ({"n_ctx": 4096, "np": 4}, 1024),
    ({}, None),
]

LOG_LINES = [
    (
        "slot print_timing: id  0 | task 12 | prompt eval time =     493.65 ms /    46 tokens (   10.73 ms per token,"
        "    93.18 tokens per second)",
        LogSample(prompt_tokens_per_s=93.18, of="request"),
    ),
    (
        "slot print_timing: id  0 | task 12 |        eval time =     210.02 ms /    16 tokens (   13.13 ms per token,"
        "    76.18 tokens per second)",
        LogSample(output_tokens_per_s=76.18, of="request"),
    ),
    ("slot print_timing: id  0 | task 12 |       total time =     703.67 ms /    62 tokens", None),
    ("slot launch_slot_: id  0 | task 12 | processing task", None),
    ("listening on http://127.0.0.1:8000", None),
]

METRICS = [
    (  # cached prompt tokens are counted apart
        """
# HELP llamacpp:prompt_tokens_total Number of prompt tokens processed.
# TYPE llamacpp:prompt_tokens_total counter
llamacpp:prompt_tokens_total 460
llamacpp:prompt_tokens_cached_total 40
llamacpp:tokens_predicted_total 96
llamacpp:prompt_tokens_seconds 93.18
llamacpp:requests_processing 2
llamacpp:requests_deferred 3
""",
        EngineSample(prompt_tokens_total=500, output_tokens_total=96, running=2, waiting=3),
    ),
    ("llamacpp:prompt_tokens_total 460\n", EngineSample(prompt_tokens_total=460)),
]

FAILURES = [
    ("error loading model: missing tensor 'token_embd.weight'", "error loading model: missing tensor"),
    ("llama_init_from_model: failed to initialize: failed to allocate buffer for kv cache", "buffer for kv cache"),
    (
        "start: couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 8000\nsrv    main: exiting due to error",
        "couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 8000",
    ),
    (
        "gguf_init_from_file_impl: invalid magic characters: '<htm', expected 'GGUF'\n"
        "llama_model_load: error loading model: llama_model_loader: failed to load model",
        "gguf_init_from_file_impl: invalid magic characters",
    ),
    ("error: unrecognized arguments: --swap-space 4", "unrecognized arguments: --swap-space 4"),
    ("ModuleNotFoundError: No module named 'xllamacpp'", "No module named 'xllamacpp'"),
]
