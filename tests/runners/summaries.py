"""Texts, the work of summarising them, and what it leaves: for the tests of the strategies."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
from langchain_text_splitters import RecursiveCharacterTextSplitter

from recipes.errors import WorkloadFailed
from recipes.spec import Recipe
from runners.client import Answer, Client, Endpoint, open_transport
from runners.records import RequestRecord
from runners.schedule.concurrency import Concurrency
from runners.schedule.schedule import Schedule
from runners.text.splitter import SEPARATORS
from runners.text.tokens import TokenCounter
from runners.workload import Means
from runners.workloads.summarize import Summarize
from runners.workloads.summarize.prepared import Prepared
from tests.emulators.engine import EngineDouble

COUNTER = TokenCounter.from_path(Path(__file__).parents[2] / "recipes" / "models" / "lead" / "tokenizer.json")
KEY = "sk-very-secret"
TEMPLATE = "Summarize: {{ prompt }}"
CHUNK_SIZE, CHUNK_OVERLAP = 80, 20


@dataclass
class Taken:
    """A recorder that keeps what it is given."""

    records: list[RequestRecord] = field(default_factory=list)
    texts: list[str | None] = field(default_factory=list)
    expected: int = 0
    outputs: list[Path] = field(default_factory=list)
    keys: dict[str, str] = field(default_factory=dict)
    """What each document's output depends on."""

    def answered(self, id: str, key: str) -> str | None:  # noqa: A002
        return None

    def output_of(self, document: str, key: str = "") -> Path | None:
        self.keys[document] = key
        return None

    def record(self, record: RequestRecord, text: str | None, key: str) -> None:
        self.records.append(record)
        self.texts.append(text)

    def expect(self, requests: int) -> None:
        self.expected += requests

    def document_done(self, document: str, output: Path, key: str = "") -> None:
        self.outputs.append(output)


@dataclass
class Bench:
    """Texts, the work on them, and what it leaves."""

    folder: Path
    taken: Taken = field(default_factory=Taken)

    @property
    def outputs(self) -> Path:
        return self.folder / "outputs"

    def write(self, **texts: str) -> None:
        for name, text in texts.items():
            (self.folder / f"{name}.txt").write_text(text, encoding="utf-8")

    def prepare(self, inputs: Sequence[str] = ("*.txt",), **workload: Any) -> Prepared:
        settings = {
            "inputs": [str(self.folder / name) for name in inputs],
            "prompt": TEMPLATE,
            "chunk_size": CHUNK_SIZE,
            "chunk_overlap": CHUNK_OVERLAP,
            "retries": 2,
            **workload,
        }
        recipe = Recipe.model_validate({"name": "test", "model": {"repo": "owner/model-7b"}, "workload": settings})
        return Summarize().prepare(recipe, COUNTER)

    def run(self, engine: EngineDouble, inputs: Sequence[str] = ("*.txt",), **workload: Any) -> Taken:
        prepared = self.prepare(inputs, **workload)
        self.outputs.mkdir(exist_ok=True)

        async def main() -> None:
            async with engine, open_transport() as session:
                endpoint = Endpoint(engine.url, "served", KEY)
                client = Client(session, endpoint, prepared.recipe.workload, sleep=lambda _: asyncio.sleep(0))
                schedule = Schedule(Concurrency(prepared.recipe.workload.at_once))
                await Summarize().drive(prepared, Means(client, schedule, endpoint, self.outputs, self.taken))

        asyncio.run(main())
        return self.taken

    def fail(self, engine: EngineDouble, **workload: Any) -> str:
        with pytest.raises(WorkloadFailed) as caught:
            self.run(engine, **workload)
        return caught.value.message

    def output(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.outputs / name).read_text(encoding="utf-8"))
        return found

    def summary(self, name: str) -> Any:
        return self.output(f"{name}-analysis-owner_model-7b-0000.json")["summary"]


def prose(seed: int, sentences: int) -> str:
    choose = random.Random(seed)
    words = ["the", "creature", "fled", "over", "ice", "and", "nobody", "in", "Geneva", "spoke", "of", "it", "again"]
    made = (" ".join(choose.choices(words, k=choose.randint(3, 12))).capitalize() + "." for _ in range(sentences))
    return "".join(sentence + choose.choice([" ", " ", " ", "\n", "\n\n"]) for sentence in made)


def reference(
    text: str, separators: str, answer: Callable[[str], str], overlap: int = CHUNK_OVERLAP
) -> tuple[str, list[str]]:
    """The summary, and the prompts that it takes: the script's recursion, written down plainly."""
    if COUNTER.count(text) < CHUNK_SIZE:
        prompt = TEMPLATE.replace("{{ prompt }}", text)
        return answer(prompt).strip(), [prompt]
    splitter = RecursiveCharacterTextSplitter(
        chunk_size=CHUNK_SIZE,
        chunk_overlap=overlap,
        keep_separator=True,
        separators=list(SEPARATORS[separators]),
        length_function=COUNTER.count,
    )
    prompts = [TEMPLATE.replace("{{ prompt }}", chunk) for chunk in splitter.split_text(text)]
    summary, further = reference("\n".join(answer(p).strip() for p in prompts), separators, answer, overlap)
    return summary, prompts + further


class Oracle:
    """A client that needs no engine: it answers each prompt as it is told to, after as many turns of the loop."""

    def __init__(self, answer: Callable[[str], str], turns: Callable[[str], int] = lambda _: 0) -> None:
        self._answer, self._turns = answer, turns
        self.held: dict[str, asyncio.Event] = {}
        """Prompts that hold one of these texts are answered only when it is set."""
        self.asked: list[str] = []
        self.under_way, self.most = 0, 0

    def key(self, prompt: str) -> str:
        return prompt

    async def complete(self, prompt: str) -> Answer:
        self.asked.append(prompt)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        for _ in range(self._turns(prompt)):
            await asyncio.sleep(0)
        for text, answered in self.held.items():
            if text in prompt:
                await answered.wait()
        self.under_way -= 1
        text = self._answer(prompt)
        return Answer(
            text=text,
            finish_reason="length" if text.endswith("…") else "stop",
            prompt_tokens=COUNTER.count(prompt),
            output_tokens=max(1, COUNTER.count(text)),
            cached_tokens=0,
            started_at=datetime.now(UTC),
            ttft_s=0.001,
            e2e_s=0.002,
            tries=1,
        )


@dataclass
class Work:
    """The outputs of one drive with an oracle."""

    outputs: dict[str, dict[str, Any]]
    taken: Taken
    schedule: Schedule


async def summarise(
    prepared: Prepared, oracle: Oracle, folder: Path, *, at_once: int = 4, schedule: Schedule | None = None
) -> Work:
    """Drive once. Raises what the drive raises."""
    folder.mkdir(parents=True, exist_ok=True)
    taken, schedule = Taken(), schedule or Schedule(Concurrency(at_once))
    endpoint = Endpoint("http://127.0.0.1:9", "served")
    await Summarize().drive(prepared, Means(cast(Client, oracle), schedule, endpoint, folder, taken))
    outputs = {path.name.partition("-analysis")[0]: json.loads(path.read_text("utf-8")) for path in taken.outputs}
    return Work(outputs, taken, schedule)
