"""Where a run's model comes from: one that ships with recipe, a path, or the Hub at a pinned commit."""

from __future__ import annotations

import fnmatch
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from provisioners.site import recipe_cache
from recipes import catalogue
from recipes.errors import Refused
from recipes.spec import Recipe
from runners.engine import Engine

if TYPE_CHECKING:
    from runners.modelfacts.facts import File, ModelFacts
    from runners.modelfacts.hub import Description, Repository

# What a repository holds besides the weights that are loaded.
_NEVER = ("*.onnx", "*.pth", "*.msgpack", "*.h5", "*.tflite", "*.ot", "original/*", "*.md", ".gitattributes")


@dataclass(frozen=True)
class HubModel:
    """A repository at a commit, with the files that will be fetched."""

    repo: str
    commit: str
    files: tuple[File, ...]
    gated: bool = False
    """Whether its owners ask who downloads it; then this client's token was let in."""

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)


@dataclass(frozen=True)
class ModelSource:
    """What the engine will load, and the tokenizer to count with."""

    identifier: str
    tokenizer: Path | None
    """None where there is none; then `tokenizer_missing` says why."""
    path: Path | None = None
    """A file or folder of the client."""
    hub: HubModel | None = None
    facts: ModelFacts | None = None
    """None if the model lies where nobody can look: behind an endpoint."""
    notes: tuple[str, ...] = ()
    """Sentences on how it was found: offline, at a commit that was seen before."""
    tokenizer_missing: str | None = None

    def describe(self) -> str:
        if self.hub:
            return f"{self.hub.repo} @ {self.hub.commit[:7]}"
        return str(self.path) if self.path and not self.path.is_relative_to(catalogue.ROOT) else self.identifier

    def loaded_from(self, folder: Path | None) -> str:
        """The path that the engine is given: the client's, or one in the folder that the Hub's files came to."""
        if self.hub and folder:
            ggufs = [file.name for file in self.hub.files if file.name.endswith(".gguf")]
            return str(folder / ggufs[0]) if ggufs else str(folder)
        return str(self.path)

    def counting_tokenizer(self) -> Path:
        """The tokenizer. Raises Refused if there is none."""
        if self.tokenizer is None:
            raise Refused(self.tokenizer_missing or "no tokenizer to count with", advice=TOKENIZER_ADVICE)
        return self.tokenizer


@dataclass(frozen=True)
class Hub:
    """The Hub that is asked, and where its answers are kept; as HF_ENDPOINT and the user's cache say, if left out."""

    endpoint: str | None = None
    cache: Path | None = None

    def repository(self, repo: str) -> Repository:
        from runners.modelfacts.hub import Repository  # a run at an endpoint needs none of it

        return Repository(repo, endpoint=self.endpoint, cache=self.cache or recipe_cache(os.environ) / "hub")


@dataclass(frozen=True)
class _Tokenizer:
    path: Path | None
    missing: str | None = None
    notes: tuple[str, ...] = ()


_LIBRARY_DEFAULTS = Hub()
TOKENIZER_ADVICE = "write workload.tokenizer: a tokenizer.json, a folder that holds one, or owner/name"


def resolve_model(recipe: Recipe, engine: Engine, hub: Hub = _LIBRARY_DEFAULTS) -> ModelSource:
    """Find the model, its facts and its tokenizer. Asks the Hub for descriptions, not for weights. Raises Refused."""
    model = recipe.model
    if engine.model_form == "none":
        return _sourced(
            model.identifier, _named_tokenizer(recipe, hub) or _Tokenizer(None, "no tokenizer to count with")
        )
    from runners.modelfacts.read import facts_in

    if model.repo:
        return _at_hub(recipe, engine, hub)
    folder = catalogue.builtin_model(model.builtin) if model.builtin else Path(model.path or "")
    path = _form_in(folder, engine)
    tokenizer = _named_tokenizer(recipe, hub) or _Tokenizer(folder if folder.is_dir() else folder.parent)
    return _sourced(model.identifier, tokenizer, path=path, facts=facts_in(path, identifier=model.identifier))


def _sourced(
    identifier: str,
    tokenizer: _Tokenizer,
    *,
    path: Path | None = None,
    hub: HubModel | None = None,
    facts: ModelFacts | None = None,
    notes: tuple[str, ...] = (),
) -> ModelSource:
    told = tuple(dict.fromkeys((*notes, *tokenizer.notes)))
    return ModelSource(identifier, tokenizer.path, path, hub, facts, told, tokenizer_missing=tokenizer.missing)


def _at_hub(recipe: Recipe, engine: Engine, hub: Hub) -> ModelSource:
    model = recipe.model
    repo = model.repo or ""
    repository = hub.repository(repo)
    try:
        found = repository.describe(model.revision or "main")
        own_form = "mistral" in recipe.engine.args.values()
        files = tuple(_wanted(repo, list(found.files), model.file, engine, own_form=own_form))
        facts = repository.facts(found, files, gguf=engine.model_form == "gguf", identifier=model.identifier)
        tokenizer = _named_tokenizer(recipe, hub) or _tokenizer_of(repository, found)
    finally:
        repository.close()
    at_commit = HubModel(repo, found.commit, files, found.gated)
    return _sourced(model.identifier, tokenizer, hub=at_commit, facts=facts, notes=(*found.notes, *repository.notes))


def find_tokenizer(named: str, hub: Hub = _LIBRARY_DEFAULTS) -> Path:
    """The tokenizer.json, or its folder, that a path or a repository stands for. Raises Refused."""
    found = _tokenizer_called(named, hub)
    if found.path is None:
        raise Refused(found.missing or f"{named}: no tokenizer there", advice="name a tokenizer.json, or owner/name")
    return found.path


def _named_tokenizer(recipe: Recipe, hub: Hub) -> _Tokenizer | None:
    """The one that the recipe names: a path, or a repository."""
    named = recipe.workload.tokenizer
    return _tokenizer_called(named, hub) if named else None


def _tokenizer_called(named: str, hub: Hub) -> _Tokenizer:
    if Path(named).exists():
        return _Tokenizer(Path(named))
    repository = hub.repository(named)
    try:
        found = repository.describe("main")
        tokenizer = _tokenizer_of(repository, found)
        return replace(tokenizer, notes=(*found.notes, *repository.notes))
    finally:
        repository.close()


def _tokenizer_of(repository: Repository, found: Description) -> _Tokenizer:
    path = repository.tokenizer(found)
    missing = f"{repository.repo} has no tokenizer.json, so chunks cannot be counted in tokens"
    return _Tokenizer(path, None if path else missing)


def _form_in(path: Path, engine: Engine) -> Path:
    """The form of a local model that the engine loads. Raises Refused."""
    if not path.exists():
        raise Refused(f"{path}: no such file or folder", advice="check model.path")
    if engine.model_form == "gguf":
        found = [path] if path.is_file() else sorted(path.glob("*.gguf"))
        if len(found) == 1 and found[0].suffix == ".gguf":
            return _with_magic(found[0])
        what = (
            "holds no GGUF file"
            if not found
            else "is no GGUF file"
            if path.is_file()
            else f"holds {len(found)} GGUF files"
        )
        raise Refused(f"{path} {what}, and {engine.name} loads one", advice="name the .gguf file in model.path")
    if not (path / "config.json").is_file():
        raise Refused(
            f"{path} is not a model folder with a config.json, and {engine.name} loads one",
            advice="name the folder in model.path, or choose engine llamacpp for a GGUF file",
        )
    return path


def _with_magic(path: Path) -> Path:
    """The file, if it begins as GGUF files do. Raises Refused."""
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise Refused(f"{path} is no GGUF file: it does not begin with GGUF", advice="fetch or convert it again")
    return path


def _wanted(repo: str, files: list[File], pattern: str | None, engine: Engine, *, own_form: bool = False) -> list[File]:
    """What is fetched. `own_form` is for engines that are told to load Mistral's own form of its weights."""
    if engine.model_form == "gguf":
        found = [f for f in files if fnmatch.fnmatch(f.name, pattern or "*.gguf")]
        if len(found) == 1:
            return found
        names = ", ".join(sorted(f.name for f in files if f.name.endswith(".gguf"))) or "none"
        raise Refused(
            f"{len(found)} files of {repo} match {pattern or '*.gguf'}, and {engine.name} loads one",
            advice=f"write model.file; GGUF files there: {names}",
        )
    safetensors = any(f.name.endswith(".safetensors") for f in files)
    never = (*_NEVER, "*.gguf", *(("*.bin",) if safetensors else ()))
    if any(f.name.endswith(".safetensors") and not f.name.startswith("consolidated") for f in files) and not own_form:
        never += ("consolidated*.safetensors",)
    wanted = [f for f in files if not any(fnmatch.fnmatch(f.name, p) for p in never)]
    if not any(f.name == "config.json" for f in wanted):
        raise Refused(
            f"{repo} has no config.json, and {engine.name} loads a model folder",
            advice="name a repository in the format of transformers, or choose engine llamacpp for GGUF files",
        )
    return wanted
