"""The whole command against an engine that answers at once: `python benchmarks/whole.py [--runs N] [--text FILE …]`.

`recipe up` and the algorithm that its `summarize` took over (benchmarks/reference/, on transformers, LangChain and
httpx, in an environment of its own that the first call makes) summarise the same text, in turn, so that a noisy machine
is noisy for both; medians of whole processes are compared. That both ask for the same prompts and end with the same
summary is checked in every round: the engine double's answers are a function of the prompt.

`first` is recipe where it has never seen the text's words: its counts of them are in the user's cache otherwise.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))

from provisioners.site import recipe_cache  # noqa: E402
from recipes.prompts import load_prompt  # noqa: E402
from tests.emulators.slots import SlotsDouble, slots_double  # noqa: E402
from tests.emulators.slots_engine import MODEL  # noqa: E402

REFERENCE = HERE / "reference"
RECIPE = Path(sys.executable).parent / "recipe"
PROMPT, CHUNK, OVERLAP, MAX_TOKENS, TEMPERATURE, CONNECTIONS = "builtin:summarize", 3000, 512, 1000, 0.2, 20
ANSWER_WORDS = 80
GOAL = 5.0


@dataclass(frozen=True)
class Work:
    """What both summarise, and where."""

    text: Path
    tokenizer: Path
    folder: Path
    url: str
    python: Path
    """Of the reference's environment."""


@dataclass(frozen=True)
class Round:
    """One process, from its start to its end."""

    wall_s: float
    cpu_s: float
    prompts: tuple[str, ...]
    """Digests of what was asked, sorted."""
    summary: str


def reference_python() -> Path:
    """The interpreter of an environment with just what requirements.txt pins; made once, then found in the cache."""
    wanted = (REFERENCE / "requirements.txt").read_bytes()
    folder = recipe_cache(os.environ) / "benchmarks" / f"reference-{hashlib.sha256(wanted).hexdigest()[:12]}"
    python, whole = folder / "bin" / "python", folder / ".complete"
    if not whole.exists():
        print(f"installing the reference's libraries into {folder}", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "-r", REFERENCE / "requirements.txt"], check=True)
        whole.touch()
    return python


def measured(argv: list[Any], env: dict[str, str], double: SlotsDouble, summary: Callable[[], str]) -> Round:
    """Run a process to its end, everything that it started included."""
    double.reset()
    before, started = os.times(), time.perf_counter()
    done = subprocess.run(argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    wall_s, after = time.perf_counter() - started, os.times()
    if done.returncode != 0:
        sys.exit(f"{argv[0]} ended with {done.returncode}:\n{done.stderr}")
    cpu_s = sum(after[2:4]) - sum(before[2:4])
    prompts = sorted(row["digest"] for row in double.requests() if row["prompt_tokens"] > len("Hello"))
    return Round(wall_s, cpu_s, tuple(prompts), summary())


def reference(work: Work, double: SlotsDouble, env: dict[str, str]) -> Round:
    outputs = work.folder / "reference-outputs"
    shutil.rmtree(outputs, ignore_errors=True)
    outputs.mkdir()
    config = {
        "api_url": work.url,
        "model_identifier": MODEL,
        "tokenizer": str(work.tokenizer.parent),
        "chunk_size": CHUNK,
        "chunk_overlap": OVERLAP,
        "use_batched_tokenization": True,
        "max_tokens": MAX_TOKENS,
        "temperature": TEMPERATURE,
        "httpx_max_connections": CONNECTIONS,
        "httpx_max_keepalive_connections": CONNECTIONS,
        "prompt_template": load_prompt(PROMPT).text,
    }
    path = work.folder / "reference.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    argv = [work.python, REFERENCE / "summarize.py", path, work.text, outputs]
    return measured(argv, env, double, lambda: summary_in(outputs))


def recipe(work: Work, double: SlotsDouble, env: dict[str, str]) -> Round:
    home = work.folder / "home"
    settings = {
        "inputs": [str(work.text)],
        "prompt": PROMPT,
        "tokenizer": str(work.tokenizer),
        "chunk_size": CHUNK,
        "chunk_overlap": OVERLAP,
        "max_tokens": MAX_TOKENS,
        "temperature": TEMPERATURE,
    }
    engine = {"name": "openai", "url": f"{work.url}/v1"}
    path = work.folder / "whole.yaml"
    path.write_text(yaml.safe_dump({"name": "whole", "model": {"repo": MODEL}, "engine": engine, "workload": settings}))
    argv = [RECIPE, "up", path]
    return measured(argv, {**env, "RECIPE_HOME": str(home)}, double, lambda: summary_in(newest(home) / "outputs"))


def newest(home: Path) -> Path:
    return max((home / "runs").iterdir(), key=lambda path: path.stat().st_mtime_ns)


def summary_in(folder: Path) -> str:
    (path,) = folder.glob("*-analysis-*.json")
    return str(json.loads(path.read_text(encoding="utf-8"))["summary"])


def work_in(folder: Path, options: argparse.Namespace, url: str) -> Work:
    """The text and the tokenizer, in the form that transformers and recipe both read."""
    tokenizer = folder / "tokenizer" / "tokenizer.json"
    tokenizer.parent.mkdir()
    text = options.text or made_text(folder / "made.txt")
    if options.tokenizer:
        shutil.copyfile(options.tokenizer, tokenizer)
    else:
        train(text, tokenizer)
    (tokenizer.parent / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    return Work(text.resolve(), tokenizer, folder, url, reference_python())


def made_text(path: Path) -> Path:
    """A text of a short novel's length and shape, the same each time."""
    from benchmarks.reference.made import novel

    path.write_text(novel(), encoding="utf-8")
    return path


def train(text: Path, path: Path) -> None:
    from benchmarks.reference.made import train_tokenizer

    train_tokenizer(text, path)


def table(rounds: dict[str, list[Round]]) -> None:
    rival = "reference"
    medians = {
        name: (statistics.median(r.wall_s for r in found), statistics.median(r.cpu_s for r in found))
        for name, found in rounds.items()
    }
    print(f"{'process':<22} {'wall s':>7} {'CPU s':>7} {'faster':>7} {'CPU':>6}  requests")
    for name, (wall_s, cpu_s) in medians.items():
        faster, less = medians[rival][0] / wall_s, medians[rival][1] / cpu_s
        requests = len(rounds[name][0].prompts)
        print(f"{name:<22} {wall_s:>7.3f} {cpu_s:>7.3f} {faster:>6.1f}× {less:>5.1f}×  {requests}")
    print(f"goal: recipe up {GOAL:.0f}× faster than the reference")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--text", type=Path, help="a text file; one is made up if left out")
    parser.add_argument("--tokenizer", type=Path, help="a tokenizer.json; one is trained on the text if left out")
    options = parser.parse_args()
    env = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    with tempfile.TemporaryDirectory() as name, slots_double("--zero", "--tokens", str(ANSWER_WORDS)) as double:
        work = work_in(Path(name), options, double.url)
        env["PYTHONPYCACHEPREFIX"] = f"{name}/bytecode"
        rounds: dict[str, list[Round]] = {"reference": [], "recipe up, first": [], "recipe up": []}
        for _ in range(options.runs + 1):
            cache = f"{name}/cache"
            shutil.rmtree(cache, ignore_errors=True)
            env["XDG_CACHE_HOME"] = cache
            rounds["reference"].append(reference(work, double, env))
            rounds["recipe up, first"].append(recipe(work, double, env))
            rounds["recipe up"].append(recipe(work, double, env))
        # The first round made the bytecode.
        rounds = {name: found[1:] for name, found in rounds.items()}
    table(rounds)
    every = [one for found in rounds.values() for one in found]
    same = len({one.prompts for one in every}) == 1 and len({one.summary for one in every}) == 1
    print("every round: the same prompts, the same summary" if same else "THE PROMPTS OR SUMMARIES DIFFER")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
