"""What every engine promises: it says what to run and reads what came out, and runs nothing itself."""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import JsonValue

from recipes.spec import Engine as EngineSpec
from recipes.spec import Recipe
from runners.case import Assessment, Case, Memory
from runners.pace import EnginePace, stated_pace

if TYPE_CHECKING:
    from runners.client import Endpoint

KEY_VARIABLE = "RECIPE_ENGINE_KEY"


@dataclass(frozen=True)
class Step:
    """A command; `{env}` stands for the engine's environment and `{onhost}` for the folder of the host's scripts."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Installation:
    """How an engine's own environment is made, and the command that shows that it works."""

    steps: tuple[Step, ...]
    check: tuple[str, ...]
    package: tuple[str, str] | None = None
    """The distribution and its release that make an image's own Python one that needs no installation."""


@dataclass(frozen=True, kw_only=True)
class LaunchRequest:
    """What an engine needs to know to say how it is started."""

    spec: EngineSpec
    python: str
    """The Python of the engine's environment."""
    onhost: Path
    model_path: str
    served_name: str
    port: str
    key: str
    """The key that clients must show; passed in the environment, never in argv."""
    accelerated: bool
    bind: str = "127.0.0.1"
    """The address that it listens on."""


@dataclass(frozen=True)
class Launch:
    argv: tuple[str, ...]
    env: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class EngineSample:
    """The engine's own counters and gauges at one moment; None where it does not say."""

    prompt_tokens_total: float | None = None
    """All prompt tokens, cached ones included."""
    output_tokens_total: float | None = None
    running: float | None = None
    waiting: float | None = None
    kv_usage: float | None = None
    """Share of the KV cache in use, 0 to 1."""
    preemptions_total: float | None = None
    """How often a running request lost its place in the KV cache to another."""
    swapped: float | None = None
    """Requests whose keys and values lie in the host's memory for lack of room."""


@dataclass(frozen=True, kw_only=True)
class LogSample:
    """What one line of the engine's log says about its throughput, or about that of a single request."""

    prompt_tokens_per_s: float | None = None
    output_tokens_per_s: float | None = None
    running: int | None = None
    waiting: int | None = None
    kv_usage: float | None = None
    engine: str = "0"
    of: Literal["engine", "request"] = "engine"


@dataclass(frozen=True)
class Failure:
    """Why an engine failed: its own words, and what to do."""

    cause: str
    advice: str = ""
    known: bool = False
    """Whether a pattern recognised it; else the cause is only the most telling line."""


class Engine(ABC):
    """A plug-in; the module's PLUGIN is an instance. Defaults fit a server that speaks OpenAI's API."""

    name: str
    title = ""
    """What its makers call it, for people; the name, if left out."""
    default_version: str | None = None
    model_form: Literal["gguf", "folder", "none"] = "folder"
    """What it loads: one GGUF file, a folder as on the Hub, or nothing, because it runs elsewhere."""
    health_path = "/health"
    """The page that answers 200 once it is up; `health_page` says it for a release."""
    metrics_path: str | None = "/metrics"
    reserved: frozenset[str] = frozenset()
    """Flags that `launch` sets, and a recipe must not."""
    asks_for_key = True
    """Whether only clients that show the key are let in; an engine that asks for none is never opened to others."""
    sizing: frozenset[str] = frozenset()
    """Keys of engine.args that decide how much it runs at once and what it says of itself, but not what it answers."""
    context_flag: str | None = None
    """The key of engine.args that sets the longest request, for suggestions."""
    changes: Sequence[tuple[str, ...]] = ()
    """Further changes, as for --set, that may mend a refusal, the mildest first; each is judged before it is told."""
    splits_tensors = False
    """Whether tensor_parallel_size spreads a model over accelerators."""
    explains: Mapping[str, str] = {}
    """For recipe plan --explain: by finding code, the formula and where it comes from."""
    patterns: Sequence[tuple[str, str]] = ()
    """Regular expressions for its log, the most telling first, each with an advice."""

    @property
    def known_as(self) -> str:
        """What people call it."""
        return self.title or self.name

    @abstractmethod
    def installation(self, version: str, *, accelerated: bool) -> Installation | None:
        """How its environment is made; None if nothing is installed."""

    @abstractmethod
    def launch(self, request: LaunchRequest) -> Launch | None:
        """How it is started in the foreground; None if it runs already."""

    def health_page(self, version: str) -> str:
        """The path of the page that answers 200 once a release is up."""
        return self.health_path

    def health_url(self, endpoint: Endpoint, version: str) -> str:
        """The whole address of that page."""
        return endpoint.url + self.health_page(version)

    def served_name(self, model_path: str, identifier: str) -> str:
        """What requests must call the model; by default what people call it."""
        return identifier

    def context_tokens(self, recipe: Recipe) -> int | None:
        """The longest request that it will accept, as far as the recipe's flags say."""
        return None

    def assess(self, case: Case) -> Assessment:
        """Whether it would start, and how its memory would be used; pure, for its release and its flags."""
        return Assessment()

    def pace(self, case: Case, memory: Memory | None) -> EnginePace:
        """What a forecast of its speed starts from; pure. `memory` is what it said of the case when it was assessed."""
        return stated_pace(case, memory)

    def quantizations(self, version: str) -> Mapping[str, Mapping[str, JsonValue]]:
        """A release's ways to quantize while loading: what people call each, and the engine.args that ask for it.

        The mildest comes first.
        """
        return {}

    def cuda(self, version: str) -> str | None:
        """The CUDA, as major.minor, that its release is built for; None if it brings none."""
        return None

    def install_gb(self, version: str, *, accelerated: bool) -> float | None:
        """What its environment takes on the disk, in 10⁹ bytes; None if nobody knows."""
        return None

    def metrics(self, text: str) -> EngineSample | None:
        """Its metrics page (Prometheus text), normalised."""
        return None

    def log_line(self, line: str) -> LogSample | None:
        """A line of its log, if it speaks of throughput."""
        return None

    def failure(self, log: str) -> Failure:
        """The cause of its end, from the end of its log."""
        return find_failure(log, [*self.patterns, *COMMON_FAILURES])


COMMON_FAILURES: Sequence[tuple[str, str]] = (
    (r"CUDA out of memory.*", "choose a larger GPU, a smaller context, or a quantized model"),
    (r"No space left on device", "give the machine a larger disk: resources.disk_size"),
    (r"[Aa]ddress already in use", "another process has the port; run again"),
    (r"No module named '[^']+'", "the engine's environment is incomplete; see recipe doctor"),
)


def find_failure(log: str, patterns: Iterable[tuple[str, str]], *, log_name: str = "engine.log") -> Failure:
    """The first pattern that the log matches, quoted; else its last line, if possible one that speaks of an error."""
    for pattern, advice in patterns:
        if match := re.search(pattern, log):
            return Failure(" ".join(match[0].split()), advice, known=True)
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if re.search(r"error|exception|fatal", line, re.IGNORECASE)]
    return Failure((errors or lines or ["it wrote no log"])[-1][:500], f"the whole log is in {log_name}")


def flags(args: Mapping[str, object]) -> list[str]:
    """Command-line flags from a recipe's `engine.args`: true is a bare flag, false a --no- flag, null nothing."""
    found: list[str] = []
    for key, value in args.items():
        name = "--" + key.replace("_", "-")
        if value is None:
            continue
        if value is True:
            found.append(name)
        elif value is False:
            found.append("--no-" + name[2:])
        elif isinstance(value, list):
            found += [name, *map(_text, value)]
        else:
            found += [name, _text(value)]
    return found


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def argument(spec: EngineSpec, *names: str) -> int | None:
    """A flag's whole number under any of its spellings."""
    for key, value in spec.args.items():
        if key.replace("-", "_") in names and isinstance(value, int) and not isinstance(value, bool):
            return value
    return None


NUMBER = r"\d+(?:\.\d+)?"
"""For patterns of log lines."""

_SERIES = re.compile(
    r"^([A-Za-z_:][\w:]*)(?:\{[^}]*\})?\s+([-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+|Inf)|NaN)(?=\s|$)", re.MULTILINE
)


def series_values(text: str) -> dict[str, list[float]]:
    """The values of each series of a page in Prometheus' text format, one for each set of labels."""
    values: dict[str, list[float]] = {}
    for name, value in _SERIES.findall(text):
        values.setdefault(name, []).append(float(value))
    return values


def series_sums(text: str) -> dict[str, float]:
    """The sum over all labels of each series of a page in Prometheus' text format."""
    return {name: sum(values) for name, values in series_values(text).items()}
