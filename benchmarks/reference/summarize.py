"""The algorithm that recipe's `summarize` took over, on the libraries that one would write it with today.

`python summarize.py CONFIG.yaml TEXT OUTPUTS`. A baseline to measure against, so it does what its description says and
no more: no retries, no check of how an answer ended, and an end only if summaries shrink.

1. A text of fewer tokens than `chunk_size`, those that the tokenizer puts before it included, is one request.
2. A longer one is split, all its chunks are summarised, and the answers, joined by newlines, are such a text again.
3. How many requests are under way is left to the HTTP client's limit of connections.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import yaml
from jinja2 import Template
from langchain_text_splitters import RecursiveCharacterTextSplitter
from transformers import AutoTokenizer

SEPARATORS = {True: ["\n\n", "\n", " ", ""], False: ["\n\n", "\n", "."]}
"""By `use_batched_tokenization`."""


class Summarizer:
    """One text, level by level."""

    def __init__(self, config: dict[str, Any], client: httpx.AsyncClient) -> None:
        self._config, self._client = config, client
        self._template = Template(config["prompt_template"])
        self._tokenizer = AutoTokenizer.from_pretrained(config["tokenizer"], use_fast=True)
        self._splitter = RecursiveCharacterTextSplitter(
            chunk_size=config["chunk_size"],
            chunk_overlap=config["chunk_overlap"],
            length_function=self._tokens,
            separators=SEPARATORS[config["use_batched_tokenization"]],
            keep_separator=True,
        )

    async def summary(self, text: str) -> str:
        """The summary of a text of any length."""
        if self._tokens(text) < self._config["chunk_size"]:
            return await self._ask(text)
        chunks = self._splitter.split_text(text)
        return await self.summary("\n".join(await asyncio.gather(*map(self._ask, chunks))))

    def _tokens(self, text: str) -> int:
        return len(self._tokenizer.encode(text))

    async def _ask(self, text: str) -> str:
        body = {
            "model": self._config["model_identifier"],
            "prompt": self._template.render(prompt=text),
            "max_tokens": self._config["max_tokens"],
            "temperature": self._config["temperature"],
        }
        response = await self._client.post(f"{self._config['api_url']}/v1/completions", json=body)
        response.raise_for_status()
        return str(response.json()["choices"][0]["text"]).strip()


async def main(config_file: Path, text_file: Path, outputs: Path) -> None:
    """Summarise the file; write the summary with the settings that made it."""
    config = yaml.safe_load(config_file.read_text(encoding="utf-8"))
    text = text_file.read_text(encoding="utf-8")
    limits = httpx.Limits(
        max_connections=config["httpx_max_connections"],
        max_keepalive_connections=config["httpx_max_keepalive_connections"],
    )
    async with httpx.AsyncClient(limits=limits, timeout=None) as client:
        started = time.monotonic()
        summary = await Summarizer(config, client).summary(text)
        seconds = time.monotonic() - started
    slip = {
        **config,
        "model_local_identifier": config["model_identifier"].replace("/", "_"),
        "text_splitter": RecursiveCharacterTextSplitter.__name__,
        "api_client": f"httpx {httpx.__version__}",
        "length_of_sample_text_in_characters": len(text),
        "summarize_duration_seconds": seconds,
    }
    stem, number = f"{text_file.stem}-analysis-{slip['model_local_identifier']}", 0
    while (path := outputs / f"{stem}-{number:04d}.json").exists():
        number += 1
    path.write_text(json.dumps({"summary": summary, "buck_slip": slip}, indent=4), encoding="utf-8")


if __name__ == "__main__":
    asyncio.run(main(*map(Path, sys.argv[1:])))
