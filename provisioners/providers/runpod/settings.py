"""Where RunPod is and with which key, from the client's environment."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit

from provisioners.providers.runpod.answers import KEYS_URL
from provisioners.providers.runpod.cloud import Cloud
from provisioners.providers.runpod.pace import Pace
from provisioners.providers.runpod.rest import RestCloud
from recipes.errors import NoCredentials, NoMachine

REST_URL = "https://api.runpod.io/v2"
GRAPHQL_URL = "https://api.runpod.io/graphql"


@dataclass(frozen=True)
class Settings:
    """The addresses, and the key."""

    rest_url: str
    graphql_url: str
    key: str = field(repr=False)

    @classmethod
    def of(cls, env: Mapping[str, str]) -> Self:
        """Raises NoMachine without a key, or with an address that is none."""
        key = env.get("RUNPOD_API_KEY", "").strip()
        if not key:
            advice = f"make a key at {KEYS_URL} and export RUNPOD_API_KEY=…"
            raise NoCredentials("RUNPOD_API_KEY is not set: RunPod gives no machine without it", advice=advice)
        if not (key.isascii() and key.isprintable()):
            raise NoMachine("RUNPOD_API_KEY holds characters that no key has", advice="copy it once more")
        rest_url, graphql_url = addresses(env)
        return cls(rest_url, graphql_url, key)

    @asynccontextmanager
    async def cloud(self, api: str, pace: Pace) -> AsyncIterator[Cloud]:
        """RunPod over one of its interfaces, for as long as the context lasts."""
        rest = RestCloud(self.rest_url, self.key, pace)
        if api == "graphql":
            from provisioners.providers.runpod.graphql import GraphqlCloud

            async with GraphqlCloud(self.graphql_url, self.key, pace, rest) as cloud:
                yield cloud
        else:
            async with rest:
                yield rest


def addresses(env: Mapping[str, str]) -> tuple[str, str]:
    """The addresses of REST and GraphQL: the second is derived from the first unless it is said. Raises NoMachine."""
    asked = env.get("RECIPE_RUNPOD_URL", "").strip()
    base = env.get("RUNPOD_API_BASE_URL", "").strip().rstrip("/")
    rest_url, graphql_url = REST_URL, GRAPHQL_URL
    if asked:
        parts = urlsplit(asked)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise NoMachine(f"RECIPE_RUNPOD_URL {asked} is no address", advice=f"write it like {REST_URL}")
        origin = f"{parts.scheme}://{parts.netloc}"
        rest_url = asked.rstrip("/") if parts.path.strip("/") else f"{origin}/v2"
        graphql_url = f"{origin}/graphql"
    return rest_url, f"{base}/graphql" if base else graphql_url
