"""An engine that runs already: any endpoint that speaks OpenAI's API. Nothing is installed or launched."""

from __future__ import annotations

from runners.client import Endpoint
from runners.engine import Engine, Installation, Launch, LaunchRequest


class OpenAIEndpoint(Engine):
    name = "openai"
    model_form = "none"
    health_path = "/models"
    metrics_path = "/metrics"
    """Many endpoints are vLLM or llama.cpp, and say at their root what runs and waits; the page shows whose it is."""

    def health_url(self, endpoint: Endpoint, version: str) -> str:
        return endpoint.api_url + self.health_page(version)

    def installation(self, version: str, *, accelerated: bool) -> Installation | None:
        return None

    def launch(self, request: LaunchRequest) -> Launch | None:
        return None


PLUGIN = OpenAIEndpoint()
