"""Cutting texts into chunks, side by side: `python benchmarks/chunking.py [TEXT] [--tokenizer FILE] [--runs N]`.

CPU seconds for one text and for twenty copies of it, in turn, medians; growth is the ratio of the two. "same" says
whether the chunks are those of langchain-text-splitters. Cold: a tokenizer of which nothing is known. Warm: counts that
an earlier process has kept.

TEXT is any file; without one it is frankenstein.txt in the folder that RECIPE_TEST_DATA names, or a text of 440 kB that
is made up. The tokenizer is mistral-v1-tokenizer.json there, or the one that ships with recipe.

The rivals are installed into an environment of their own below recipe's cache directory, once for these releases;
--no-install does without those that are not there. Each method runs in a process of its own; those of the rivals in
their environment. langchain per call counts each piece with transformers' fast tokenizer, as its users do. Batched is
the same algorithm with each level's pieces given to the tokenizer at once.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

RIVALS = {
    "langchain-text-splitters": "1.1.3",
    "transformers": "5.23.0",
    "semantic-text-splitter": "0.33.1",
    "semchunk": "4.1.1",
    "chonkie": "1.7.0",
}
COPIES, SIZE, OVERLAP = 20, 3000, 512
BASE = "langchain, per call"
GOALS = {1: 5, COPIES: 12}
GROWTH_GOAL = 22
_LONGEST_S = 150
SEPARATORS = ["\n\n", "\n", " ", ""]


def ours(text: str, tokenizer: str, cache: Path) -> Callable[[], list[str]]:
    from runners.text.splitter import Splitter
    from runners.text.tokens import TokenCounter

    counter = TokenCounter.from_path(Path(tokenizer), cache=cache)
    splitter = Splitter(counter, SIZE, OVERLAP)

    def cut() -> list[str]:
        chunks = splitter.split(text)
        counter.keep()
        return chunks

    return cut


def cold(text: str, tokenizer: str) -> Callable[[], list[str]]:
    return ours(text, tokenizer, Path(tempfile.mkdtemp()))


def warm(text: str, tokenizer: str) -> Callable[[], list[str]]:
    cache = Path(tempfile.mkdtemp())
    ours(text, tokenizer, cache)()
    return ours(text, tokenizer, cache)


def _langchain(text: str, length: Callable[[str], int]) -> Callable[[], list[str]]:
    from langchain_text_splitters import RecursiveCharacterTextSplitter

    splitter = RecursiveCharacterTextSplitter(
        chunk_size=SIZE,
        chunk_overlap=OVERLAP,
        keep_separator=True,
        strip_whitespace=True,
        separators=SEPARATORS,
        length_function=length,
    )
    return lambda: splitter.split_text(text)


def langchain_transformers(text: str, tokenizer: str) -> Callable[[], list[str]]:
    from transformers import PreTrainedTokenizerFast

    fast = PreTrainedTokenizerFast(tokenizer_file=tokenizer)
    return _langchain(text, lambda piece: len(fast.encode(piece)))


def langchain_tokenizers(text: str, tokenizer: str) -> Callable[[], list[str]]:
    from tokenizers import Tokenizer

    bare = Tokenizer.from_file(tokenizer)
    return _langchain(text, lambda piece: len(bare.encode(piece).ids))


def batched(text: str, tokenizer: str) -> Callable[[], list[str]]:
    from itertools import pairwise

    from tokenizers import Tokenizer

    from runners.text.splitter import Splitter

    bare = Tokenizer.from_file(tokenizer)

    class Batched:
        def count(self, piece: str) -> int:
            return len(bare.encode(piece).ids)

        def count_pieces(self, text: str, edges: list[int]) -> list[int]:
            return [len(found) for found in bare.encode_batch_fast([text[a:b] for a, b in pairwise(edges)])]

    splitter = Splitter(Batched(), SIZE, OVERLAP)  # type: ignore[arg-type]
    return lambda: splitter.split(text)


def semantic(text: str, tokenizer: str) -> Callable[[], list[str]]:
    from semantic_text_splitter import TextSplitter

    splitter = TextSplitter.from_huggingface_tokenizer_file(tokenizer, SIZE, overlap=OVERLAP)
    return lambda: splitter.chunks(text)


def sem(text: str, tokenizer: str) -> Callable[[], list[str]]:
    import semchunk
    from tokenizers import Tokenizer

    bare = Tokenizer.from_file(tokenizer)
    chunker = semchunk.chunkerify(lambda piece: len(bare.encode(piece).ids), SIZE)
    return lambda: list(chunker(text, overlap=OVERLAP))


def chonkie(text: str, tokenizer: str) -> Callable[[], list[str]]:
    from chonkie import RecursiveChunker
    from tokenizers import Tokenizer

    chunker = RecursiveChunker(tokenizer=Tokenizer.from_file(tokenizer), chunk_size=SIZE)
    return lambda: [chunk.text for chunk in chunker.chunk(text)]


METHODS: dict[str, tuple[Callable[[str, str], Callable[[], list[str]]], bool]] = {
    "recipe, cold": (cold, False),
    "recipe, warm": (warm, False),
    BASE: (langchain_transformers, True),
    "langchain, per call, bare tokenizers": (langchain_tokenizers, True),
    "batched, bare tokenizers": (batched, False),
    "semantic-text-splitter": (semantic, True),
    "semchunk": (sem, True),
    "chonkie, no overlap": (chonkie, True),
}
"""Name → how it is made ready, and whether it needs the rivals' environment."""


def measure(name: str, file: str, tokenizer: str, copies: int) -> dict[str, Any]:
    """In a process of its own: CPU seconds of the cutting alone, and a digest of the chunks."""
    text = Path(file).read_text(encoding="utf-8") * copies
    cut = METHODS[name][0](text, tokenizer)
    before = time.process_time()
    chunks = cut()
    seconds = time.process_time() - before
    digest = hashlib.sha256("\0".join(chunks).encode()).hexdigest()
    return {"seconds": seconds, "chunks": len(chunks), "digest": digest}


def rivals(install: bool) -> Path | None:
    """The Python of the rivals' environment, made if it is not there yet."""
    from provisioners.site import recipe_cache

    wanted = [f"{name}=={version}" for name, version in RIVALS.items()]
    folder = recipe_cache() / "benchmarks" / f"chunking-{hashlib.sha256(' '.join(wanted).encode()).hexdigest()[:12]}"
    python, made = folder / "bin" / "python", folder / "made"
    if not made.exists() and install:
        print(f"installing {', '.join(wanted)} into {folder}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        if subprocess.run([*command, *wanted], check=False).returncode:
            # A release may be gone from the index, or not be made for this Python: then the newest one that is.
            subprocess.run([*command, *RIVALS], check=True)
        made.touch()
    return python if made.exists() else None


def run(name: str, python: Path, file: Path, tokenizer: Path, copies: int) -> dict[str, Any] | None:
    argv = [python, __file__, "--method", name, str(file), "--tokenizer", str(tokenizer), "--copies", str(copies)]
    env = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "TRANSFORMERS_VERBOSITY": "error"}
    try:
        ended = subprocess.run(argv, capture_output=True, text=True, env=env, check=False, timeout=_LONGEST_S)
    except subprocess.TimeoutExpired:
        print(f"{name}, {copies}×: not done after {_LONGEST_S} s, left out", file=sys.stderr)
        return None
    if ended.returncode:
        print(f"{name}: {ended.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return None
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found


def made_up() -> str:
    """440 kB of sentences and paragraphs, with as many different words as a novel has."""
    choose = random.Random(1818)
    syllables = ["an", "be", "cor", "de", "el", "fra", "gen", "ho", "in", "ka", "lum", "mor", "ne", "o", "per", "qui"]
    words = ["".join(choose.choices(syllables, k=choose.randint(1, 4))) for _ in range(9000)]
    ranks = [1 / (i + 3) for i in range(len(words))]
    lines: list[str] = []
    while sum(map(len, lines)) < 440_000:
        for _ in range(choose.randint(2, 9)):
            lines.append(
                " ".join(choose.choices(words, ranks, k=choose.randint(9, 13))) + choose.choice(["", ",", "."])
            )
            lines.append("\n")
        lines.append("\n")
    return "".join(lines)


def inputs(options: argparse.Namespace, folder: Path) -> tuple[Path, Path]:
    shared = Path(os.environ.get("RECIPE_TEST_DATA", ""))
    tokenizer = Path(options.tokenizer or shared / "mistral-v1-tokenizer.json")
    if not tokenizer.is_file():
        tokenizer = ROOT / "recipes/models/lead/tokenizer.json"
    file = Path(options.text or shared / "frankenstein.txt")
    if not file.is_file():
        file = folder / "text.txt"
        file.write_text(made_up(), encoding="utf-8")
    return file, tokenizer


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", nargs="?")
    parser.add_argument("--tokenizer", metavar="FILE")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--no-install", action="store_true")
    parser.add_argument("--method", choices=METHODS, help=argparse.SUPPRESS)
    parser.add_argument("--copies", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.method:
        print(json.dumps(measure(options.method, options.text, options.tokenizer, options.copies)))
        return 0
    theirs = rivals(not options.no_install)
    with tempfile.TemporaryDirectory() as folder:
        file, tokenizer = inputs(options, Path(folder))
        print(f"{file.name}, {file.stat().st_size:,} bytes; {tokenizer.name}; {SIZE} tokens, {OVERLAP} shared")
        found = measured(theirs, file, tokenizer, options.runs)
    return table(found)


def measured(
    theirs: Path | None, file: Path, tokenizer: Path, runs: int
) -> dict[tuple[str, int], list[dict[str, Any]]]:
    """All methods in turn, so that a noisy machine is noisy for each; slow ones fewer times."""
    found: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for _ in range(runs):
        for name, (_, foreign) in METHODS.items():
            python = theirs if foreign else Path(sys.executable)
            for copies in GOALS:
                so_far = found.setdefault((name, copies), [])
                slow = len(so_far) > 0 and so_far[0]["seconds"] > 10
                if python and not slow and (result := run(name, python, file, tokenizer, copies)):
                    print(f"  {name}, {copies}×: {result['seconds']:.3f}", file=sys.stderr)
                    so_far.append(result)
    return found


def table(found: dict[tuple[str, int], list[dict[str, Any]]]) -> int:
    medians = {key: statistics.median(r["seconds"] for r in results) for key, results in found.items() if results}
    base = BASE if (BASE, 1) in medians else "batched, bare tokenizers"
    head = f"{'CPU seconds':<38} {'once':>8} {f'{COPIES}×':>8} {'growth':>7}"
    print(f"{head} {'faster':>8} {'faster':>8} {'chunks':>7} same")
    for name in METHODS:
        if (name, 1) not in medians or (name, COPIES) not in medians:
            continue
        once, many = medians[name, 1], medians[name, COPIES]
        ratios = [medians[base, copies] / medians[name, copies] for copies in GOALS]
        same = all(found[name, n][0]["digest"] == found[base, n][0]["digest"] for n in GOALS)
        chunks = found[name, 1][0]["chunks"]
        print(
            f"{name:<38} {once:>8.3f} {many:>8.3f} {many / once:>7.1f} {ratios[0]:>7.1f}× {ratios[1]:>7.1f}×"
            f" {chunks:>7} {'yes' if same else 'no'}"
        )
    goals = " and ".join(f"{goal}× at {copies}×" for copies, goal in GOALS.items())
    print(f"faster: than {base}. Goals of recipe, cold: {goals}; growth {GROWTH_GOAL} at most")
    return 0


if __name__ == "__main__":
    sys.exit(main())
