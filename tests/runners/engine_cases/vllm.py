"""What vLLM is told and what it says, verbatim, of 0.2 and of today."""

from runners.engine import EngineSample, LogSample

LAUNCHES = [
    {
        "engine": {
            "args": {
                "max_model_len": 2048,
                "enforce-eager": True,
                "enable_prefix_caching": False,
                "swap_space": None,
                "compilation_config": {"level": 0},
                "gpu_memory_utilization": 0.95,
            }
        },
        "argv": "PYTHON -m vllm.entrypoints.openai.api_server --model MODEL --served-model-name NAME"
        " --host 127.0.0.1 --port 8000 --max-model-len 2048 --enforce-eager --no-enable-prefix-caching"
        """ --compilation-config '{"level": 0}' --gpu-memory-utilization 0.95""",
        "env": {"VLLM_API_KEY": "KEY", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"},
    },
    {
        "engine": {"tensor_parallel_size": 2, "pipeline_parallel_size": 3},
        "accelerated": True,
        "argv": "PYTHON -m vllm.entrypoints.openai.api_server --model MODEL --served-model-name NAME"
        " --host 127.0.0.1 --port 8000 --tensor-parallel-size 2 --pipeline-parallel-size 3",
        "env": {"VLLM_API_KEY": "KEY", "VLLM_CPU_OMP_THREADS_BIND": None},
    },
    {  # on the CPU, each worker is told its cores
        "engine": {"tensor_parallel_size": 2},
        "argv": "PYTHON -m vllm.entrypoints.openai.api_server --model MODEL --served-model-name NAME"
        " --host 127.0.0.1 --port 8000 --tensor-parallel-size 2",
        "env": {"VLLM_CPU_OMP_THREADS_BIND": "0|1"},
    },
    {  # with several API servers it would log no statistics
        "engine": {"data_parallel_size": 2},
        "argv": "PYTHON -m vllm.entrypoints.openai.api_server --model MODEL --served-model-name NAME"
        " --host 127.0.0.1 --port 8000 --data-parallel-size 2 --api-server-count 1",
    },
]

CONTEXTS = [
    ({"max_model_len": 2048}, 2048),
    ({"max-model-len": 4096}, 4096),
    ({"max_model_len": "auto"}, None),
    ({}, None),
]

LOG_LINES = [
    (
        "INFO 11-21 03:06:31 [loggers.py:335] Engine 000: Avg prompt throughput: 12.3 tokens/s, Avg generation "
        "throughput: 8.9 tokens/s, Running: 1 reqs, Waiting: 0 reqs, CPU KV cache usage: 0.0%, "
        "Prefix cache hit rate: 0.0%",
        LogSample(prompt_tokens_per_s=12.3, output_tokens_per_s=8.9, running=1, waiting=0, kv_usage=0.0, engine="000"),
    ),
    (
        "(EngineCore_DP1 pid=71) INFO 11-21 03:06:31 [loggers.py:335] Engine 001: Avg prompt throughput: 0.0 tokens/s, "
        "Avg generation throughput: 170.4 tokens/s, Running: 8 reqs, Waiting: 12 reqs, Preempted: 2 reqs, "
        "GPU KV cache usage: 37.5%, Prefix cache hit rate: 41.2%",
        LogSample(
            prompt_tokens_per_s=0.0, output_tokens_per_s=170.4, running=8, waiting=12, kv_usage=0.375, engine="001"
        ),
    ),
    (
        "INFO 11-18 05:57:31 llm_engine.py:624] Avg prompt throughput: 3221.1 tokens/s, Avg generation throughput: "
        "65.5 tokens/s, Running: 14 reqs, Swapped: 0 reqs, Pending: 0 reqs, GPU KV cache usage: 98.9%, "
        "CPU KV cache usage: 0.0%",
        LogSample(prompt_tokens_per_s=3221.1, output_tokens_per_s=65.5, running=14, waiting=0, kv_usage=0.989),
    ),
    ("INFO 11-21 03:06:31 [api_server.py:52] Application startup complete.", None),
    ('INFO:     127.0.0.1:52114 - "POST /v1/completions HTTP/1.1" 200 OK', None),
]

METRICS = [
    (
        """
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="small"} 3.0
vllm:num_requests_waiting{engine="0",model_name="small"} 5.0
vllm:kv_cache_usage_perc{engine="0",model_name="small"} 0.25
vllm:prompt_tokens_total{engine="0",model_name="small"} 1.2e+03
vllm:prompt_tokens_created{engine="0",model_name="small"} 1.7637e+09
vllm:generation_tokens_total{engine="0",model_name="small"} 96.0
""",
        EngineSample(prompt_tokens_total=1200, output_tokens_total=96, running=3, waiting=5, kv_usage=0.25),
    ),
    (  # data parallel: counters add up, a share of a cache does not
        """
vllm:num_requests_running{engine="0",model_name="small"} 3.0
vllm:num_requests_running{engine="1",model_name="small"} 2.0
vllm:num_requests_waiting{engine="0",model_name="small"} 0.0
vllm:num_requests_waiting{engine="1",model_name="small"} 1.0
vllm:kv_cache_usage_perc{engine="0",model_name="small"} 0.75
vllm:kv_cache_usage_perc{engine="1",model_name="small"} 0.5
vllm:prompt_tokens_total{engine="0",model_name="small"} 10.0
vllm:prompt_tokens_total{engine="1",model_name="small"} 20.0
vllm:generation_tokens_total{engine="0",model_name="small"} 1.0
vllm:generation_tokens_total{engine="1",model_name="small"} 2.0
""",
        EngineSample(prompt_tokens_total=30, output_tokens_total=3, running=5, waiting=1, kv_usage=0.625),
    ),
    (  # before 0.8 the cache's share had another name
        'vllm:prompt_tokens_total{model_name="small"} 7.0\nvllm:gpu_cache_usage_perc{model_name="small"} 0.989\n',
        EngineSample(prompt_tokens_total=7, kv_usage=0.989),
    ),
]

_LAST_WORDS = (
    "\n(EngineCore_DP0 pid=61) RuntimeError: Engine core initialization failed. See root cause above. "
    "Failed core proc(s): {}\n"
)

FAILURES = [
    (
        "pydantic_core._pydantic_core.ValidationError: 1 validation error for VllmConfig\n  Value error, Total number "
        "of attention heads (4) must be divisible by tensor parallel size (3). [type=value_error]" + _LAST_WORDS,
        "Total number of attention heads (4) must be divisible by tensor parallel size (3).",
    ),
    (
        "  Value error, User-specified max_model_len (99999) is greater than the derived max_model_len "
        "(max_position_embeddings=1024.0 or model_max_length=None in model's config.json).",
        "User-specified max_model_len (99999) is greater than the derived max_model_len",
    ),
    (
        "ValueError: To serve at least one request with the model's max seq len (4096), (0.01 GiB KV cache is needed, "
        "which is larger than the available KV cache memory (0.0 GiB). Based on the available memory, the estimated "
        "maximum model length is 256. Try increasing `gpu_memory_utilization`." + _LAST_WORDS,
        "the estimated maximum model length is 256",
    ),
    (
        "ValueError: To serve at least one request with the models's max seq len (8192), (1.00 GiB KV cache is needed,"
        "\nwhich is larger than the available KV cache memory (0.5 GiB).\nBased on the available memory, the estimated "
        "maximum model length is 4096.",
        "the estimated maximum model length is 4096",
    ),
    (
        "RuntimeError: Engine core initialization failed. See root cause above.",
        "Engine core initialization failed. See root cause above.",
    ),
    (
        "ERROR 11-21 03:06:31 [multiproc_executor.py:247] Worker proc VllmWorker-0 died unexpectedly (exit code: None)"
        ", shutting down executor.",
        "Worker proc VllmWorker-0 died unexpectedly (exit code: None), shutting down executor.",
    ),
    (
        "usage: api_server.py [-h]\napi_server.py: error: unrecognized arguments: --swap-space 4\n",
        "unrecognized arguments: --swap-space 4",
    ),
    (
        "api_server.py: error: unrecognized arguments: --disable-log-requests",
        "unrecognized arguments: --disable-log-requests",
    ),
    (
        "  Value error, Unknown quantization method: bitsandbytes. Must be one of ['awq', 'gptq', 'fp8'].",
        "Unknown quantization method: bitsandbytes.",
    ),
    (
        "huggingface_hub.errors.LocalEntryNotFoundError: An error happened while trying to locate the file on the Hub",
        "LocalEntryNotFoundError",
    ),
    (
        "importlib.metadata.PackageNotFoundError: No package metadata was found for vllm",
        "No package metadata was found for vllm",
    ),
    (
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 896.00 MiB. GPU 0 has a total capacity of "
        "23.68 GiB of which 512.00 MiB is free." + _LAST_WORDS,
        "CUDA out of memory. Tried to allocate 896.00 MiB.",
    ),
    (
        "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`." + _LAST_WORDS,
        "No available memory for the cache blocks.",
    ),
    (
        "vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack trace (above).",
        "EngineDeadError: EngineCore encountered an issue.",
    ),
    ("OSError: [Errno 98] Address already in use", "Address already in use"),
]
