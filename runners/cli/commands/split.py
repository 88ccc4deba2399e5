"""The chunks that a workload would send of these texts, counted in tokens; nothing is sent.

FILE is a path, a glob, or - for standard input. Tokens are those of the tokenizer, with the special ones that an engine
adds to each text. A text of fewer tokens than --chunk-size is one chunk.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipes.errors import Refused, UsageError
from runners.cli.common import add_json, console, positive, print_json

if TYPE_CHECKING:
    from runners.text.files import Cut
    from runners.text.splitter import Splitter

_BUILT_IN = "the one of the model that ships with recipe"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", nargs="+", metavar="FILE", help="text files, globs, or - for standard input")
    parser.add_argument(
        "--tokenizer", metavar="PATH or REPO", help=f"a tokenizer.json, its folder, or owner/name; default: {_BUILT_IN}"
    )
    parser.add_argument("--chunk-size", type=positive, default=3000, metavar="TOKENS", help="default: 3000")
    parser.add_argument(
        "--chunk-overlap", type=int, metavar="TOKENS", help="default: 512, or a quarter of a small --chunk-size"
    )
    parser.add_argument(
        "--separators", choices=("paragraphs", "sentences"), default="paragraphs", help="default: paragraphs"
    )
    parser.add_argument("--balanced", action="store_true", help="chunks of about one size, instead of a small last one")
    parser.add_argument("--whole-sentences", action="store_true", help="cut between sentences only")
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--jsonl", action="store_true", help="each chunk as a line of JSON, with its text")
    add_json(shown)  # type: ignore[arg-type]


def run(options: argparse.Namespace) -> int:
    from runners.text.files import cut_files

    splitter = _splitter(options)
    with _files(options.file) as (paths, names):
        cuts = cut_files(paths, splitter)
        if options.jsonl:
            _print_chunks(cuts, names)
            return 0
        rows = [_row(cut, names.get(cut.path, str(cut.path)), spans=options.json) for cut in cuts]
    total = _total(rows)
    if options.json:
        settings = {"chunk_size": splitter.chunk_size, "chunk_overlap": splitter.chunk_overlap}
        print_json({"files": rows, "total": total, "tokenizer": splitter.counter.name, **settings})
    else:
        _show([*rows, total] if len(rows) > 1 else rows, splitter)
    return 0


def _splitter(options: argparse.Namespace) -> Splitter:
    from recipes import catalogue
    from runners.text.splitter import SEPARATORS, Splitter
    from runners.text.tokens import TokenCounter

    size = options.chunk_size
    overlap = min(512, size // 4) if options.chunk_overlap is None else options.chunk_overlap
    if size < 2:
        raise UsageError(f"--chunk-size {size}: must be at least 2", advice="leave it out for 3000")
    if not 0 <= overlap < size:
        raise UsageError(
            f"--chunk-overlap {overlap}: must be at least 0 and smaller than --chunk-size {size}",
            advice="leave it out for 512, or a quarter of a small --chunk-size",
        )
    if options.tokenizer is None:
        tokenizer = catalogue.builtin_model(catalogue.builtin_models()[0])
    elif _is_path(options.tokenizer):
        tokenizer = Path(options.tokenizer).expanduser()
    else:
        from runners.models import find_tokenizer

        tokenizer = find_tokenizer(options.tokenizer)
    try:
        counter = TokenCounter.from_path(tokenizer)
    except Refused as refusal:
        advice = "name another --tokenizer: a tokenizer.json, a folder that holds one, or owner/name"
        raise UsageError(refusal.message, advice=advice) from refusal
    return Splitter(
        counter,
        size,
        overlap,
        SEPARATORS[options.separators],
        balanced=options.balanced,
        whole_sentences=options.whole_sentences,
    )


def _is_path(named: str) -> bool:
    path = Path(named).expanduser()
    return path.exists() or path.suffix == ".json" or named.count("/") != 1 or named.startswith((".", "~"))


@contextmanager
def _files(patterns: Sequence[str]) -> Iterator[tuple[tuple[Path, ...], dict[Path, str]]]:
    """The files, and the names of those that have another one than their path: standard input is put into a file."""
    from recipes.inputs import expand_all

    with tempfile.TemporaryDirectory(prefix="recipe-") as folder:
        given = Path(folder) / "standard input"
        if "-" in patterns:
            with given.open("wb") as file:
                shutil.copyfileobj(sys.stdin.buffer, file)
        try:
            paths = expand_all(
                str(given) if pattern == "-" else str(Path(pattern).expanduser()) for pattern in patterns
            )
        except ValueError as error:
            message = str(error).replace(str(given), "standard input").partition(";")[0]
            raise UsageError(message, advice="name text files, or globs in quotes") from None
        yield paths, {given: "-"}


def _row(cut: Cut, name: str, *, spans: bool) -> dict[str, Any]:
    row = {"file": name, "characters": cut.characters, "tokens": cut.tokens, "chunks": len(cut)}
    row["chunk_tokens"] = _sizes(cut.prompt_tokens)
    if spans:
        row["spans"] = [
            {"start": span.start, "end": span.end, "tokens": tokens}
            for span, tokens in zip(cut.spans, cut.prompt_tokens, strict=True)
        ]
    return {**row, "_": cut.prompt_tokens} if not spans else row


def _sizes(tokens: Sequence[int]) -> dict[str, float]:
    return {"min": min(tokens), "median": statistics.median(tokens), "max": max(tokens)}


def _total(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    counts = [row.pop("_") if "_" in row else [span["tokens"] for span in row["spans"]] for row in rows]
    sums = {key: sum(row[key] for row in rows) for key in ("characters", "tokens", "chunks")}
    return {"file": "total", **sums, "chunk_tokens": _sizes([n for tokens in counts for n in tokens])}


def _print_chunks(cuts: Iterable[Cut], names: dict[Path, str]) -> None:
    from runners.text.source import TextFile

    for cut in cuts:
        source, name = TextFile(cut.path), names.get(cut.path, str(cut.path))
        for index, (span, tokens) in enumerate(zip(cut.spans, cut.prompt_tokens, strict=True)):
            place = {"file": name, "index": index, "start": span.start, "end": span.end, "tokens": tokens}
            print(json.dumps({**place, "text": source.read(*span)}, ensure_ascii=False))


def _show(rows: Iterable[dict[str, Any]], splitter: Splitter) -> None:
    from runners.terminal.layout import table, width_of

    out = console()
    told = [["file", "characters", "tokens", "chunks", "smallest", "median", "largest"]]
    for row in rows:
        sizes = row["chunk_tokens"]
        numbers = (row["characters"], row["tokens"], row["chunks"], sizes["min"], sizes["median"], sizes["max"])
        told.append([row["file"], *(f"{number:,.0f}" for number in numbers)])
    for line in table(told, width_of(out), right=(1, 2, 3, 4, 5, 6), drop=(1, 5)):
        out.print(line.rstrip(), markup=False, highlight=False)
    size, overlap = splitter.chunk_size, splitter.chunk_overlap
    print(f"at most {size:,} tokens a chunk, {overlap:,} shared, counted with {splitter.counter.name}", file=sys.stderr)
