"""CPU of a load generator per request, side by side: `python benchmarks/load.py [--streams N …] [--tokenizer PATH]`.

recipe, `vllm bench serve`, guidellm and aiperf load the same server in closed loops: TTFT 200 ms, 20 ms per token, 64
tokens. Each makes its own prompts of 2,300 tokens, as it does if it is not told otherwise (about 11.5 kB with the
tokenizer of a book, less with the small one that ships with recipe, which is the default); with `--same-prompts` all
read the same file, and take the server's token counts where they can. Each is run with two numbers of requests: the
difference is what a request costs, and the rest of it is the start. CPU seconds are those of the whole command and its
children, with its records written and its tokens counted. The server notes when each request arrived and when the
first token left it; each client's own TTFT is held against that.

The rivals are installed once, each into an environment of its own in the user's cache; vLLM's own is taken from where
`recipe` has installed it, and left out where it has not.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from provisioners.site import recipe_cache  # noqa: E402
from recipes.traffic import Synthetic  # noqa: E402
from runners.text.tokens import TokenCounter  # noqa: E402
from runners.workloads.load.synthetic import synthetic_prompts  # noqa: E402
from tests.emulators.slots import SlotsDouble, slots_double  # noqa: E402

LEAD = ROOT / "recipes" / "models" / "lead"
PROMPT_TOKENS, TOKENS, MODEL = 2300, 64, "double"
FEW = 2
"""Requests for each stream in the shorter run."""
GOAL = 1 / 5
PATIENCE_S = 600
CACHE = recipe_cache() / "benchmarks"
VLLM = """
import argparse
from vllm.benchmarks.serve import add_cli_args, main
parser = argparse.ArgumentParser()
add_cli_args(parser)
main(parser.parse_args())
"""
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


@dataclass(frozen=True)
class Task:
    """What a client is to do."""

    url: str
    tokenizer: Path
    prompts: Path | None
    """A file with the prompts; each makes its own, if there is none."""
    streams: int
    requests: int
    folder: Path


Seen = Sequence[tuple[float, float]]
"""When each request was sent, on any clock, and its TTFT in seconds, as the client has them."""


class Recipe:
    name = "recipe"

    def __init__(self) -> None:
        self.environment: Mapping[str, str] = {}

    def command(self, task: Task) -> list[str]:
        self.environment = {"RECIPE_HOME": str(task.folder / "home")}
        file = task.folder / "load.yaml"
        traffic: dict[str, object] = {"concurrency": task.streams, "requests": task.requests, "warmup": 1}
        traffic["synthetic"] = {"input_tokens": PROMPT_TOKENS, "output_tokens": TOKENS}
        if task.prompts:
            traffic["prompts"] = str(task.prompts)
        workload = {"name": "load", "tokenizer": str(task.tokenizer), "temperature": 0, "traffic": traffic}
        engine = {"name": "openai", "url": f"{task.url}/v1"}
        file.write_text(json.dumps({"name": "load", "engine": engine, "workload": workload}))
        return [str(Path(sys.executable).parent / "recipe"), "up", str(file), "--yes"]

    def seen(self, task: Task) -> Seen:
        (rows,) = task.folder.glob("home/runs/*/requests.jsonl")
        found = [json.loads(line) for line in rows.read_text().splitlines()]
        return [(row["started_at"], row["ttft_s"]) for row in found if row["ttft_s"] is not None]


class VllmBench:
    name = "vllm bench serve"

    def __init__(self, python: Path) -> None:
        self._python = python
        extras = CACHE / "vllm-extras"
        if not (extras / "pandas").is_dir():
            packages = ["pandas", "python-dateutil", "six", "tzdata", "pytz"]
            install([sys.executable, "-m", "pip", "install", "--no-deps", "--target", str(extras), *packages])
        self.environment = {**OFFLINE, "PYTHONPATH": str(extras)}

    def command(self, task: Task) -> list[str]:
        words = f"--backend openai --base-url {task.url} --model {MODEL} --tokenizer {task.tokenizer}"
        if task.prompts:
            words += f" --dataset-name custom --dataset-path {task.prompts} --custom-output-len {TOKENS}"
            words += " --skip-chat-template --disable-shuffle"
        else:
            words += f" --dataset-name random --random-input-len {PROMPT_TOKENS} --random-output-len {TOKENS}"
        words += f" --num-prompts {task.requests}"
        words += f" --max-concurrency {task.streams} --ignore-eos --disable-tqdm"
        words += f" --save-result --save-detailed --result-dir {task.folder} --result-filename out.json"
        return [str(self._python), "-c", VLLM, *words.split()]

    def seen(self, task: Task) -> Seen:
        found = json.loads((task.folder / "out.json").read_text())
        return list(zip(found["start_times"], found["ttfts"], strict=True))


class Guidellm:
    name = "guidellm 0.8.1"

    def __init__(self) -> None:
        self._program = installed("guidellm", "0.8.1")
        self.environment = OFFLINE

    def command(self, task: Task) -> list[str]:
        backend = f"kind=openai_http,target={task.url},model={MODEL},request_format=/v1/completions"
        words = f"run --backend {backend} --profile kind=concurrent,streams={task.streams}"
        words += f" --constraint kind=max_requests,count={task.requests}"
        made = f"kind=synthetic_text,prompt_tokens={PROMPT_TOKENS},output_tokens={TOKENS}"
        data = f"kind=json_file,path={task.prompts}" if task.prompts else made
        words += f" --tokenizer kind=hf_auto,model={task.tokenizer} --data {data}"
        words += f" --output kind=json,path={task.folder / 'out.json'} --disable-console"
        return [str(self._program), *words.split()]

    def seen(self, task: Task) -> Seen:
        rows = json.loads((task.folder / "out.json").read_text())["benchmarks"][0]["requests"]["successful"]
        return [(row["request_start_time"], row["time_to_first_token_ms"] / 1000) for row in rows]


class Aiperf:
    name = "aiperf 0.13.0"

    def __init__(self) -> None:
        self._program = installed("aiperf", "0.13.0")
        self.environment: Mapping[str, str] = {}

    def command(self, task: Task) -> list[str]:
        words = f"profile --model {MODEL} --url {task.url} --endpoint-type completions --streaming"
        words += f" --tokenizer {task.tokenizer}"
        if task.prompts:
            words += f" --input-file {task.prompts} --custom-dataset-type single_turn --use-server-token-count"
        else:
            words += f" --isl {PROMPT_TOKENS} --osl {TOKENS} --extra-inputs ignore_eos:true"
        words += f" --concurrency {task.streams} --request-count {task.requests} --artifact-dir {task.folder}"
        words += " --ui none --no-server-metrics --no-gpu-telemetry"
        return [str(self._program), *words.split()]

    def seen(self, task: Task) -> Seen:
        lines = (task.folder / "profile_export.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        return [
            (row["metadata"]["request_start_ns"] / 1e9, row["metrics"]["time_to_first_token"]["value"] / 1000)
            for row in rows
        ]


Client = Recipe | VllmBench | Guidellm | Aiperf


@dataclass
class Measured:
    """One client with so many streams, over all rounds."""

    request_ms: list[float] = field(default_factory=list)
    start_s: list[float] = field(default_factory=list)
    errors_s: list[float] = field(default_factory=list)


def install(argv: Sequence[str]) -> None:
    print("installing:", " ".join(argv[1:]), file=sys.stderr, flush=True)
    subprocess.run([*argv, "--quiet", "--disable-pip-version-check"], check=True, stdout=subprocess.DEVNULL)


def installed(package: str, version: str) -> Path:
    """The program of a rival, installed by its version into an environment of its own."""
    folder = CACHE / f"{package}-{version}"
    whole = folder / ".whole"
    if not whole.exists():
        venv.create(folder, with_pip=True, clear=True)
        install([str(folder / "bin" / "python"), "-m", "pip", "install", f"{package}=={version}"])
        whole.touch()
    return folder / "bin" / package


def clients() -> list[Client]:
    found: list[Client] = [Recipe(), Guidellm(), Aiperf()]
    engines = sorted((recipe_cache() / "engines").glob("vllm-*/lib/python*/site-packages/vllm/benchmarks/serve.py"))
    if engines:
        found.insert(1, VllmBench(engines[-1].parents[5] / "bin" / "python"))
    else:
        print("vllm bench serve is left out: recipe has installed no vLLM here", file=sys.stderr)
    return found


def write_prompts(path: Path, count: int, tokenizer: Path) -> None:
    """Prompts that all differ, as every client reads them."""
    counter = TokenCounter.from_path(tokenizer)
    prompts = synthetic_prompts(Synthetic(input_tokens=PROMPT_TOKENS), 0, count, counter)
    with path.open("w") as file:
        for number in range(count):
            text = prompts.ask(number).prompt
            file.write(json.dumps({"prompt": text, "text": text, "output_tokens": TOKENS}) + "\n")


def tokenizer_folder(given: Path, folder: Path) -> Path:
    """A folder that every client can load a tokenizer from; a lone tokenizer.json gets the files that they look for."""
    if given.is_dir():
        return given
    shutil.copy(given, folder / "tokenizer.json")
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}))
    return folder


def most_requests(streams: int) -> int:
    """Of the longer run: enough that the start's own variation does not count."""
    return max(8 * streams, 1024)


def cpu_s(client: Client, task: Task, server: SlotsDouble) -> float:
    """User and system time of one run. Raises RuntimeError if it failed or left requests out."""
    server.reset()
    argv, log = client.command(task), task.folder / "log"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with log.open("w") as output:
        ended = subprocess.run(
            argv,
            env={**os.environ, **client.environment},
            cwd=task.folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=PATIENCE_S,
            check=False,
        )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if ended.returncode or len(client.seen(task)) < task.requests:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise RuntimeError(f"{client.name} with {task.streams} streams failed ({ended.returncode}):\n{tail}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def errors_s(client: Client, task: Task, server: SlotsDouble) -> list[float]:
    """By how much each TTFT that the client reports differs from the server's, matched in the order of sending."""
    rows = sorted(server.requests(), key=lambda row: row["arrived_s"])[-task.requests :]
    truth = [row["first_sent_s"] - row["arrived_s"] for row in rows]
    reported = [ttft for _, ttft in sorted(client.seen(task))][-task.requests :]
    return [abs(one - other) for one, other in zip(reported, truth, strict=True)]


def measure(client: Client, task: Task, server: SlotsDouble, into: Measured) -> None:
    """A shorter and a longer run."""
    spent: list[float] = []
    numbers = FEW * task.streams, most_requests(task.streams)
    for number in numbers:
        with tempfile.TemporaryDirectory() as folder:
            run = replace(task, requests=number, folder=Path(folder))
            spent.append(cpu_s(client, run, server))
            if number == numbers[-1]:
                into.errors_s += errors_s(client, run, server)
    each_s = (spent[1] - spent[0]) / (numbers[1] - numbers[0])
    into.request_ms.append(each_s * 1000)
    into.start_s.append(spent[0] - each_s * numbers[0])


def report(found: Mapping[tuple[int, str], Measured], streams: Sequence[int]) -> bool:
    """Print a line for each; returns whether ours kept the goal everywhere."""
    print(f"{'streams':>7}  {'client':<17} {'ms CPU/request':>14} {'÷ ours':>7} {'start s':>8}  TTFT error p50    p99")
    kept = True
    for count in streams:
        rows = {name: one for (number, name), one in found.items() if number == count}
        ours = statistics.median(rows["recipe"].request_ms)
        best = min((statistics.median(one.request_ms) for name, one in rows.items() if name != "recipe"), default=None)
        for name, one in rows.items():
            spent, start = statistics.median(one.request_ms), statistics.median(one.start_s)
            cuts = statistics.quantiles(one.errors_s, n=100)
            print(
                f"{count:>7}  {name:<17} {spent:>14.2f} {spent / ours:>7.1f} {start:>8.2f}  "
                f"{cuts[49] * 1000:>11.2f} ms {cuts[98] * 1000:>6.1f}"
            )
        if best is not None:
            good = ours <= GOAL * best
            kept = kept and good
            print(f"{'':>7}  ours ÷ best rival: {ours / best:.3f}, goal {GOAL:.2f}: {'kept' if good else 'missed'}")
    return kept


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--tokenizer", type=Path, default=LEAD, help="a tokenizer.json, or a model's folder")
    parser.add_argument("--same-prompts", action="store_true", help="all read the same file of prompts")
    parser.add_argument("--only", nargs="+", default=[], help="beginnings of the clients' names")
    given = parser.parse_args()
    chosen = [one for one in clients() if not given.only or one.name.startswith(tuple(given.only))]
    found = {(count, one.name): Measured() for count in given.streams for one in chosen}
    slots = str(2 * max(given.streams))
    timing = ("--slots", slots, "--ttft", "0.2", "--per-token", "0.02", "--tokens", str(TOKENS))
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, slots_double(*timing) as server:
        here = Path(folder)
        tokenizer, prompts = tokenizer_folder(given.tokenizer, here), None
        if given.same_prompts:
            prompts = here / "prompts.jsonl"
            write_prompts(prompts, max(map(most_requests, given.streams)), tokenizer)
        for _ in range(given.rounds):
            for count in given.streams:
                for one in chosen:
                    task = Task(server.url, tokenizer, prompts, count, 0, here)
                    measure(one, task, server, found[count, one.name])
                    print(
                        f"{time.monotonic() - began:5.0f} s  {one.name}, {count} streams", file=sys.stderr, flush=True
                    )
    return 0 if report(found, given.streams) else 1


if __name__ == "__main__":
    sys.exit(main())
