"""Every series that recipe itself exposes: its name, its kind, what it means.

The first seven have the names, the labels and the units (percent, MiB) of the node exporter that they replace; all
others follow Prometheus' conventions (base units, `_total`, `_ratio`). A counter's name is given without its `_total`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["gauge", "counter", "histogram"]


@dataclass(frozen=True)
class Family:
    name: str
    kind: Kind
    help: str

    @property
    def sample_name(self) -> str:
        """The name of its samples, but for those of a histogram."""
        return f"{self.name}_total" if self.kind == "counter" else self.name


GPU_UTILIZATION = Family("gpu_utilization", "gauge", "GPU utilization in percent.")
GPU_MEMORY_UTILIZATION = Family("gpu_memory_utilization", "gauge", "Time in which GPU memory was accessed, in percent.")
GPU_MEMORY_USED = Family("gpu_memory_used", "gauge", "GPU memory used, in MiB.")
GPU_MEMORY_FREE = Family("gpu_memory_free", "gauge", "GPU memory free, in MiB.")
GPU_MEMORY_TOTAL = Family("gpu_memory_total", "gauge", "GPU memory, in MiB.")
LOAD = Family("system_load_average", "gauge", "System load average over one minute.")
REQUEST_LATENCY = Family("request_latency_seconds", "histogram", "Time of the requests that succeeded, to their end.")

RUN_INFO = Family("recipe_run_info", "gauge", "A run and what it is of; 1.")
START = Family("recipe_run_start_timestamp_seconds", "gauge", "When the run began.")
DEADLINE = Family("recipe_run_deadline_timestamp_seconds", "gauge", "When the machine lets itself go.")
OUTCOME = Family("recipe_run_outcome", "gauge", "How the run ended: 1 with its status, once it has.")
PHASE = Family("recipe_phase", "gauge", "1 for the phase that is on, 0 for the others.")
PHASE_SECONDS = Family("recipe_phase_seconds", "counter", "Seconds in each phase so far.")
COST = Family("recipe_cost_usd", "gauge", "Dollars so far; of rented time, from the lease to its proven end.")
PRICE = Family("recipe_price_usd_per_hour", "gauge", "Price of the machine.")
BUDGET = Family("recipe_budget_usd", "gauge", "What the run may cost (limits.max_cost).")
USEFUL = Family(
    "recipe_useful_ratio", "gauge", "Seconds with requests under way ÷ billed seconds, of requests that ended."
)
DOCUMENTS_DONE = Family("recipe_documents_done", "gauge", "Documents that are done; of a load, its points.")
DOCUMENTS = Family("recipe_documents", "gauge", "Documents that there are to do; of a load, its points.")
WARNINGS = Family("recipe_warnings", "counter", "Warnings so far.")

REQUESTS = Family("recipe_requests", "counter", "Requests that have ended, by status.")
RETRIED = Family("recipe_requests_retried", "counter", "Requests that took more than one try.")
PROMPT_TOKENS = Family("recipe_prompt_tokens", "counter", "Prompt tokens of requests that have ended.")
CACHED_TOKENS = Family("recipe_cached_prompt_tokens", "counter", "Of these, what came from the engine's prefix cache.")
OUTPUT_TOKENS = Family("recipe_output_tokens", "counter", "Output tokens of requests that have ended.")
TTFT = Family("recipe_time_to_first_token_seconds", "histogram", "From sending a request to its first token.")
TPOT = Family(
    "recipe_time_per_output_token_seconds",
    "histogram",
    "Mean time between the tokens of a request (TPOT), after the first.",
)
E2E = Family("recipe_e2e_request_latency_seconds", "histogram", "From sending a request to the end of its answer.")

ENGINE_RUNNING = Family("recipe_engine_running", "gauge", "Requests that the engine is working on.")
ENGINE_WAITING = Family("recipe_engine_waiting", "gauge", "Requests that wait in the engine.")
ENGINE_SWAPPED = Family("recipe_engine_swapped", "gauge", "Requests whose KV cache lies in the host's memory.")
ENGINE_KV = Family("recipe_engine_kv_usage_ratio", "gauge", "Share of the engine's KV cache that is in use.")
ENGINE_PROMPT = Family("recipe_engine_prompt_tokens", "counter", "Prompt tokens, as the engine counts them.")
ENGINE_OUTPUT = Family("recipe_engine_output_tokens", "counter", "Output tokens, as the engine counts them.")
ENGINE_PREEMPTIONS = Family(
    "recipe_engine_preemptions", "counter", "Running requests that lost their KV cache to others."
)

GPU_POWER = Family("recipe_gpu_power_watts", "gauge", "Power that the GPU draws.")
GPU_POWER_LIMIT = Family("recipe_gpu_power_limit_watts", "gauge", "Power that the GPU may draw.")
GPU_ENERGY = Family("recipe_gpu_energy_joules", "counter", "Energy that the GPU has used, as it counts it.")
GPU_TEMPERATURE = Family("recipe_gpu_temperature_celsius", "gauge", "Temperature of the GPU.")
GPU_SM_CLOCK = Family("recipe_gpu_sm_clock_hertz", "gauge", "Clock of the GPU's multiprocessors.")
GPU_MEMORY_CLOCK = Family("recipe_gpu_memory_clock_hertz", "gauge", "Clock of the GPU's memory.")
GPU_THROTTLED = Family("recipe_gpu_throttled", "gauge", "Whether the GPU's clocks are held down, by reason.")

HOST_CPUS = Family("recipe_host_cpus", "gauge", "Processors of the machine.")
HOST_CPU = Family("recipe_host_cpu_ratio", "gauge", "Share of all processors that is busy.")
HOST_CPU_ENERGY = Family("recipe_host_cpu_energy_joules", "counter", "Energy that the processors have used.")
HOST_MEMORY = Family("recipe_host_memory_bytes", "gauge", "Memory of the machine.")
HOST_MEMORY_USED = Family("recipe_host_memory_used_bytes", "gauge", "Memory in use.")
HOST_DISK_USED = Family("recipe_host_disk_used_bytes", "gauge", "Disk in use.")
HOST_DISK_FREE = Family("recipe_host_disk_free_bytes", "gauge", "Disk that is free.")
HOST_DISK_READ = Family("recipe_host_disk_read_bytes", "counter", "Read from the disks.")
HOST_DISK_WRITTEN = Family("recipe_host_disk_written_bytes", "counter", "Written to the disks.")
HOST_NETWORK_RECEIVED = Family("recipe_host_network_received_bytes", "counter", "Received from the network.")
HOST_NETWORK_SENT = Family("recipe_host_network_sent_bytes", "counter", "Sent to the network.")

FAMILIES = tuple(value for value in list(globals().values()) if isinstance(value, Family))
"""In the order in which a page has them."""
