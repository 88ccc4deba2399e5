"""The load's client: streams completions from an OpenAI-compatible endpoint, and tries again where it helps."""

from runners.client.answer import Answer
from runners.client.client import Client
from runners.client.endpoint import Endpoint
from runners.client.refusal import RequestFailed
from runners.http.pool import Transport, open_transport

__all__ = ["Answer", "Client", "Endpoint", "RequestFailed", "Transport", "open_transport"]
