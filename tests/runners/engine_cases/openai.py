"""An endpoint that runs already: nothing is started, and nothing of it can be read."""

LAUNCHES = [{"engine": {"url": "http://127.0.0.1:8000/v1"}, "argv": None}]

CONTEXTS = [({}, None)]

LOG_LINES = [("Avg prompt throughput: 12.3 tokens/s, Avg generation throughput: 8.9 tokens/s", None)]

METRICS = [("vllm:prompt_tokens_total 7\n", None)]
