"""What serves this model: accelerators and how many of them, the cheapest first, with context and concurrency.

MODEL is a repository of the Hub, a folder, or a GGUF file. Only descriptions and headers are read, no weights. Prices
are those of this moment where the provisioner gives them; else the built-in table is used, without prices.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipes.errors import ExitCode, NoMachine, Refused, UsageError
from runners.cli.common import add_json, console, positive, print_json

if TYPE_CHECKING:
    from provisioners.contract import Offer
    from runners.engine import Engine
    from runners.models import ModelSource

_SHOWN = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="owner/name, a folder, a .gguf file, or a built-in model")
    parser.add_argument("--revision", help="a branch, tag or commit of the repository")
    parser.add_argument(
        "--file", metavar="PATTERN", help="one file of the repository, where it holds several GGUF files"
    )
    parser.add_argument("--engine", help="default: the one that loads such a model")
    parser.add_argument("--version", help="the engine's release; default: its tested one")
    parser.add_argument("--quantization", metavar="NAME", help="quantize while loading, as the engine calls it")
    parser.add_argument(
        "--context",
        "--max-model-len",
        type=positive,
        metavar="TOKENS",
        help="the longest request; default: what the model allows",
    )
    parser.add_argument("--concurrency", type=positive, default=1, metavar="N", help="requests of this length at once")
    parser.add_argument("--gpu", metavar="NAME", help="only this kind, such as A100-80GB")
    parser.add_argument("--provisioner", default="runpod", help="whose hardware (default: runpod)")
    parser.add_argument("--cloud", choices=("secure", "community"))
    parser.add_argument("--limit", type=int, default=_SHOWN, metavar="N", help=f"rows (default: {_SHOWN}); 0 for all")
    parser.add_argument("--all", action="store_true", help="also what does not serve it, with the reason")
    parser.add_argument("--arg", action="append", default=[], metavar="FLAG=VALUE", help="a flag of the engine's own")
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    from runners.plan_document import model_document
    from runners.preflight.fit import Wish, fits, model_warnings, quantization_args

    engine, source = _engine_and_model(options)
    version = options.version or engine.default_version or ""
    args = {**_flags(options.arg), **quantization_args(engine, version, options.quantization)}
    if source.facts is None:
        raise UsageError(f"{engine.name} runs elsewhere: there is nothing to fit", advice="name another --engine")
    wish = Wish(
        engine=engine,
        version=version,
        model=source.facts,
        args=args,
        context=options.context,
        concurrency=options.concurrency,
    )
    offers, note = _offers(options)
    found = fits(wish, offers)
    serving = [fit for fit in found if fit.verdict != "no"]
    chosen = [fit.document() for fit in (found if options.all else serving)]
    document = {
        "fits": chosen,
        "model": source.describe(),
        "facts": model_document(source),
        "engine": {"name": engine.name, "version": wish.version},
        "prices": note,
        "warnings": list(model_warnings(wish, offers)),
    }
    if options.json:
        print_json(document)
    else:
        _show(document, options, next((fit.reason for fit in found if fit.verdict == "no"), ""))
    enough = ("fits", "queues") if options.context else ("fits", "queues", "shorter")
    return ExitCode.DONE if any(fit.verdict in enough for fit in serving) else ExitCode.REFUSED


def _show(document: Mapping[str, Any], options: argparse.Namespace, why_not: str) -> None:
    from runners.terminal.fit_view import fit_lines
    from runners.terminal.layout import width_of

    out = console()
    for line in fit_lines(document, width_of(out), limit=options.limit, why_not=why_not):
        out.print(line)


def _engine_and_model(options: argparse.Namespace) -> tuple[Engine, ModelSource]:
    """The engine and what it would load. A repository that holds nothing but GGUF files has an engine for these."""
    engine = _engine_of(options)
    try:
        return engine, _model_of(options, engine)
    except Refused as refusal:
        if options.engine is None and engine.model_form == "folder":
            gguf = _engine_for("gguf")
            with suppress(Refused):
                return gguf, _model_of(options, gguf)
        raise Refused(refusal.message, advice=refusal.advice.replace("write model.file", "write --file")) from refusal


def _engine_for(form: str) -> Engine:
    """Of the engines that load this form rather one that spreads a model over GPUs."""
    from runners import registry

    fitting = [engine for engine in map(registry.engine, registry.installed().engines) if engine.model_form == form]
    return min(fitting, key=lambda engine: not engine.splits_tensors)


def _engine_of(options: argparse.Namespace) -> Engine:
    """The engine that is named; else one that loads a model of this form."""
    from runners import registry

    names = registry.installed().engines
    if options.engine is None:
        return _engine_for("gguf" if _is_gguf(options) else "folder")
    if options.engine not in names:
        from recipes.explain import did_you_mean

        raise UsageError(f"--engine {options.engine}: no such engine", advice=did_you_mean(options.engine, names))
    return registry.engine(options.engine)


def _is_gguf(options: argparse.Namespace) -> bool:
    path = Path(options.model)
    if path.is_dir():
        return not (path / "config.json").is_file() and any(path.glob("*.gguf"))
    return options.model.lower().endswith((".gguf", "-gguf")) or str(options.file or "").lower().endswith(".gguf")


def _model_of(options: argparse.Namespace, engine: Engine) -> ModelSource:
    """The model's facts. Raises Refused; UsageError if the name is none."""
    from recipes import catalogue
    from recipes.spec import Recipe
    from runners.models import resolve_model

    path = Path(options.model).expanduser()
    if path.exists():
        model: dict[str, Any] = {"path": str(path)}
    elif options.model in catalogue.builtin_models():
        model = {"builtin": options.model}
    elif options.model.count("/") == 1 and not options.model.startswith((".", "/", "~")):
        model = {"repo": options.model, "revision": options.revision, "file": options.file}
    else:
        raise UsageError(f"{options.model}: no such file or folder", advice="name one, or a repository as owner/name")
    # Nothing is counted here, so the tokenizer at hand will do; the model's own is not fetched.
    work = {"inputs": ["-"], "tokenizer": str(catalogue.builtin_model(catalogue.builtin_models()[0]))}
    engine_spec = {"name": engine.name, "version": options.version}
    recipe = Recipe.model_validate({"name": "fit", "model": model, "engine": engine_spec, "workload": work})
    return resolve_model(recipe, engine)


def _flags(texts: Iterable[str]) -> dict[str, Any]:
    import json

    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise UsageError(f"--arg {text}: not FLAG=VALUE", advice="write --arg gpu_memory_utilization=0.95")
        try:
            found[name.lstrip("-").replace("-", "_")] = json.loads(value)
        except ValueError:
            found[name.lstrip("-").replace("-", "_")] = value
    return found


def _offers(options: argparse.Namespace) -> tuple[list[Offer], str]:
    """What there is to rent, and where that comes from. Raises UsageError if no accelerator is called so."""
    from runners import registry
    from runners.preflight.table import known_offers

    name = options.provisioner
    if name not in registry.installed().provisioners:
        raise UsageError(f"--provisioner {name}: no such provisioner", advice="leave it out, or write runpod")
    try:
        offers = asyncio.run(registry.provisioner(name).catalogue(cloud=options.cloud, accelerator=options.gpu))
        if offers:
            return offers, f"{name}, now"
        why = f"{name} offers no {options.gpu}" if options.gpu else f"{name} has no catalogue"
    except NoMachine as error:
        why = f"{name} was not asked ({error.message})"
    known = [offer for offer in known_offers(name) if options.gpu is None or _is_called(offer, options.gpu)]
    if not known:
        raise UsageError(f"--gpu {options.gpu}: no such accelerator", advice="recipe offers --known lists them")
    return known, f"no prices: {why}; the built-in table is used, the smallest first"


def _is_called(offer: Offer, name: str) -> bool:
    from provisioners.kinds import means

    label = int(offer.memory_gib or 0)
    return means(name, [offer.accelerator or offer.id], lambda size: size == label)
