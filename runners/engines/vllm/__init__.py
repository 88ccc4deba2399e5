"""The engine `vllm`: vLLM's OpenAI-compatible server, and what its releases need to start."""

from runners.engines.vllm.plugin import PLUGIN, Vllm

__all__ = ["PLUGIN", "Vllm"]
