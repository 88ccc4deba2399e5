"""Plans as plain data, made by hand: what the views are given."""

from __future__ import annotations

from typing import Any


def finding(level: str, code: str, message: str, **more: Any) -> dict[str, Any]:
    empty = {"suggestion": "", "numbers": {}, "quote": "", "path": "", "place": "", "works": []}
    return {"level": level, "code": code, "message": message, **empty, **more}


def offer(accelerator: str | None = "A100 PCIe 80GB", count: int = 2, price: float | None = 3.58) -> dict[str, Any]:
    return {
        "provider": "runpod" if accelerator else "local",
        "id": accelerator or "here",
        "accelerator": accelerator,
        "count": count,
        "memory_gib": 80.0 if accelerator else 3.7,
        "cpus": None if accelerator else 2,
        "price_usd_per_h": price,
        "region": None,
        "stock": "high" if accelerator else None,
        "cloud": "secure" if accelerator else None,
        "spot": False,
        "usable_gib": None,
        "disk_gib": 20.0,
        "cuda": None,
    }


def figures(low: float, likely: float, high: float) -> dict[str, float]:
    return {"low": low, "likely": likely, "high": high}


def phase(name: str, low: float, likely: float, high: float, basis: str = "roofline") -> dict[str, Any]:
    usd = figures(*(seconds * 3.58 / 3600 for seconds in (low, likely, high)))
    return {"name": name, "seconds": figures(low, likely, high), "usd": usd, "basis": basis}


MEMORY = {
    "usable_gib_per_gpu": 79.2,
    "budget_gib_per_gpu": 71.3,
    "weights_gib_per_gpu": 58.4,
    "activation_gib_per_gpu": 1.4,
    "other_gib_per_gpu": 1.7,
    "kv_gib_per_gpu": 8.9,
    "kv_bytes_per_token": 163840.0,
    "kv_tokens": 58300,
    "block_tokens": 16,
    "max_model_len": 4096,
    "longest_that_fits": 58288,
    "max_running": 14,
    "running_at_mean": 20,
    "slots": 256,
    "uncertainty_gib": 0.6,
    "basis": "vLLM 0.33.0's own accounting",
}

PHASES = [
    phase("provision", 40, 90, 240, "the provider's usual boot"),
    phase("prepare", 250, 420, 900, "137.9 GB at 330 MB/s"),
    phase("launch", 70, 110, 180),
    phase("drive", 1260, 1620, 2280, "3 runs of this model on this GPU"),
    phase("collect", 2, 3, 5),
    phase("release", 5, 10, 30),
]

FORECAST = {
    "phases": PHASES,
    "total_seconds": figures(*(sum(p["seconds"][k] for p in PHASES) for k in ("low", "likely", "high"))),
    "total_usd": figures(*(sum(p["usd"][k] for p in PHASES) for k in ("low", "likely", "high"))),
    "prompt_tokens": figures(3e6, 3.1e6, 3.4e6),
    "output_tokens": figures(2e5, 4e5, 9e5),
    "requests": figures(1041, 1104, 1200),
}

SERVE = [
    *("{env}/bin/vllm", "serve", "{model}", "--served-model-name", "jondurbin/airoboros-l2-70b-3.1.2"),
    *("--host", "127.0.0.1", "--port", "{port}", "--tensor-parallel-size", "2", "--max-model-len", "4096"),
    *("--gpu-memory-utilization", "0.9"),
]


def going(**more: Any) -> dict[str, Any]:
    """A plan that goes."""
    return {
        "schema_version": 1,
        "recipe": "2xA100-airoboros-70b",
        "command": "recipe up 2xA100-airoboros-70b",
        "recipe_digest": "ab" * 32,
        "variant": {},
        "source": "recipes/2xA100-airoboros-70b.yaml",
        "verdict": "go",
        "exit_code": 0,
        "forced": [],
        "findings": [
            finding("ok", "tensor-parallel", "64 heads, 8 KV heads, vocabulary 32,000 over 2 accelerators"),
            finding("ok", "weights", "58.4 GiB of weights per GPU"),
            finding("ok", "kv-cache", "58,300 tokens"),
            finding("ok", "context", "longest request 4,091 of 4,096 tokens"),
            finding(
                "warn",
                "concurrency",
                "concurrency 20 will queue: 14 requests of 4,091 tokens run at once",
                suggestion="try --set workload.concurrency=14",
                numbers={"concurrency": 20, "max_running": 14, "slots": 256},
            ),
            finding("ok", "volume", "137.9 GB model + 9.1 GB vllm of 200 GB volume"),
            finding("ok", "access", "gated: no; token: not needed"),
            finding(
                "warn",
                "secret",
                "secret HF_TOKEN is not in the environment",
                suggestion="export HF_TOKEN=…",
                path="secrets",
            ),
        ],
        "offers": [offer(), offer("A100 SXM 80GB", 2, 3.98)],
        "passed_over": [
            {"offer": offer("H100 SXM 80GB", 2, 7.98), "reason": "$7.98/h is above limits.max_price $5.00/h"}
        ],
        "model": {
            "identifier": "jondurbin/airoboros-l2-70b-3.1.2",
            "source": "jondurbin/airoboros-l2-70b-3.1.2 @ 4f2c91e",
            "bytes": 137_900_000_000,
            "commit": "4f2c91e" + "0" * 33,
            "architecture": "LlamaForCausalLM",
            "parameters": 68_976_648_192,
            "weights_gib": 128.48,
            "weights_from": "headers",
            "max_positions": 4096,
            "dtype": "bfloat16",
            "quantization": None,
            "layers": 80,
            "heads": 64,
            "kv_heads": 8,
            "assumptions": [],
        },
        "engine": {"name": "vllm", "version": "0.33.0"},
        "workload": {
            "name": "summarize",
            "documents": 12,
            "requests": 1041,
            "prompt_tokens": 3_100_000,
            "longest_request_tokens": 4091,
            "tokens_around_chunk": 1091,
            "mean_request_tokens": 3800,
        },
        "memory": MEMORY,
        "steps": [
            {"phase": "prepare", "argv": ["{env}/bin/python", "-m", "pip", "install", "vllm==0.33.0"]},
            {"phase": "prepare", "action": "download jondurbin/airoboros-l2-70b-3.1.2 @ 4f2c91e", "bytes": 1},
            {"phase": "launch", "argv": SERVE, "env": {"VLLM_NO_USAGE_STATS": "1"}},
            {"phase": "launch", "action": "GET /health answers 200, and one token is generated"},
            {"phase": "drive", "action": "summarize: 12 documents, 1041 requests at first"},
            {"phase": "collect", "action": "bring back nohup.out"},
            {"phase": "release", "action": "let go of the machine (runpod), with proof"},
        ],
        "forecast": FORECAST,
        "limits": {"max_cost": 10.0, "max_price": 5.0, "max_duration": "3h"},
        **more,
    }


WORKS = [
    {
        "text": "4 × A40 48GB (tensor parallel 4; 14.1 GiB KV per GPU)",
        "overrides": ["resources.accelerators=A40-48GB:4", "engine.tensor_parallel_size=4"],
        "price_usd_per_h": 1.76,
    },
    {
        "text": "2 × A100 PCIe 80GB (tensor parallel 2; 8.9 GiB KV per GPU)",
        "overrides": ["resources.accelerators=A100-PCIe-80GB:2", "engine.tensor_parallel_size=2"],
        "price_usd_per_h": 3.58,
    },
]


def refused(**more: Any) -> dict[str, Any]:
    """One that is not."""
    block = finding(
        "block",
        "tensor-parallel",
        "tensor_parallel_size 3 does not divide 64 attention heads",
        quote="Total number of attention heads (64) must be divisible by tensor parallel size (3).",
        path="engine.tensor_parallel_size",
        place="recipes/3xA40-airoboros-70b.yaml:8:32",
        numbers={"heads": 64, "tensor_parallel_size": 3},
        works=WORKS,
    )
    return going(
        recipe="3xA40-airoboros-70b",
        command="recipe up 3xA40-airoboros-70b",
        verdict="refuse",
        exit_code=3,
        findings=[block, finding("ok", "access", "gated: no; token: not needed")],
        offers=[offer("A40 48GB", 3, 1.32)],
        passed_over=[],
        memory=None,
        **more,
    )
