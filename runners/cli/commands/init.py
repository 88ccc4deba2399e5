"""Begin a recipe: a fresh one that runs as it is, or one made from a summarising script's config.yaml."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from recipes import catalogue, convert
from recipes.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", nargs="?", default="recipe.yaml", help="the file to write (default: recipe.yaml)")
    parser.add_argument(
        "--from", dest="config", metavar="CONFIG", type=Path, help="a config file to turn into a recipe"
    )
    parser.add_argument("--force", action="store_true", help="overwrite the file")


def run(options: argparse.Namespace) -> int:
    path = Path(options.file)
    if path.suffix not in (".yaml", ".yml"):
        path = path.with_name(path.name + ".yaml")
    fresh = convert.starter(path.stem, "recipe.schema.json")
    text = convert.from_config(options.config) if options.config else fresh
    try:
        with path.open("w" if options.force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(f"{path} is there already", advice="name another file, or say --force") from None
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", advice="name a file in a folder that you may write to") from None
    print(f"wrote {path}")
    if not any(path.parent.glob("*.txt")):
        sample = path.parent / "sample.txt"
        sample.write_text((catalogue.ROOT / "texts" / "note.txt").read_text(encoding="utf-8"), encoding="utf-8")
        print(f"wrote {sample}, a text to begin with")
    print(f"next:  {shlex.join(['recipe', 'up', str(path)])}")
    return 0
