"""Asks an endpoint what OpenAI's own client makes of it: `openai_check.py`, a process of its own.

It imports openai, which takes half a second and 70 MB, and then waits for one line of JSON on its input: url, key,
model, api. It answers with one line: the models that are listed, or why the endpoint cannot be used. The key comes by
the input, because other users see what stands on a command line. When the input closes, nobody waits any more.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import Any

import openai

_PATIENCE_S = 10.0


def check(url: str, key: str | None, model: str, api: str) -> dict[str, Any]:
    """`models`: their names; `error`: why no token could be had, or None."""
    with openai.OpenAI(base_url=url, api_key=key or "none", timeout=_PATIENCE_S, max_retries=0) as client:
        found: dict[str, Any] = {"models": None, "error": None}
        try:
            found["models"] = [one.id for one in client.models.list()]
        except openai.NotFoundError:
            pass  # not every endpoint lists what it serves
        except openai.OpenAIError as error:
            return {**found, "error": f"models: {_said(error)}"}
        try:
            if api == "chat":
                said = client.chat.completions.create(
                    model=model, messages=[{"role": "user", "content": "Hello"}], max_tokens=1
                )
                given = bool(said.choices)
            else:
                given = bool(client.completions.create(model=model, prompt="Hello", max_tokens=1).choices)
        except openai.OpenAIError as error:
            return {**found, "error": f"{api}: {_said(error)}"}
        return found if given else {**found, "error": f"{api}: an answer without a choice"}


def _said(error: openai.OpenAIError) -> str:
    return " ".join(str(error.__cause__ or error).split())[:300]


def _end_with_asker() -> None:
    os.read(sys.stdin.fileno(), 1)  # nothing comes after the question but the end
    os._exit(1)


if __name__ == "__main__":
    if line := sys.stdin.readline():
        threading.Thread(target=_end_with_asker, daemon=True).start()
        try:
            answer = check(**json.loads(line))
        except Exception as error:
            answer = {"models": None, "error": f"{type(error).__name__}: {error}"[:300]}
        sys.stdout.write(json.dumps(answer) + "\n")
