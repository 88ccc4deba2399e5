"""Where a run's model comes from: one that ships with recipe, a path, or the Hub at a pinned commit."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from pathlib import Path

from recipes import catalogue
from recipes.errors import Refused
from recipes.spec import Recipe
from runners.engine import Engine
from runners.onhost import fetch_model

# What a repository holds besides the weights that are loaded.
_NEVER = ("*.onnx", "*.pth", "*.msgpack", "*.h5", "*.tflite", "*.ot", "original/*", "*.md", ".gitattributes")


@dataclass(frozen=True)
class HubFile:
    name: str
    bytes: int


@dataclass(frozen=True)
class HubModel:
    """A repository at a commit, with the files that will be fetched."""

    repo: str
    commit: str
    files: tuple[HubFile, ...]

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)


@dataclass(frozen=True)
class ModelSource:
    """What the engine will load, and the tokenizer to count with."""

    identifier: str
    tokenizer: Path
    path: Path | None = None
    """A file or folder of the client."""
    hub: HubModel | None = None

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


def resolve_model(recipe: Recipe, engine: Engine) -> ModelSource:
    """Find the model and its tokenizer. Asks the Hub only for what it has, not for weights. Raises Refused."""
    model = recipe.model
    if engine.model_form == "none":
        return ModelSource(model.identifier, _tokenizer(recipe, None))
    if model.repo:
        hub = _hub_model(model.repo, model.revision or "main", model.file, engine)
        return ModelSource(model.identifier, _tokenizer(recipe, hub.commit), hub=hub)
    folder = catalogue.builtin_model(model.builtin) if model.builtin else Path(model.path or "")
    path = _form_in(folder, engine)
    return ModelSource(model.identifier, _tokenizer(recipe, None, folder), path=path)


def _form_in(path: Path, engine: Engine) -> Path:
    """The form of a local model that the engine loads. Raises Refused."""
    if engine.model_form == "gguf":
        found = [path] if path.is_file() else sorted(path.glob("*.gguf"))
        if len(found) == 1 and found[0].suffix == ".gguf":
            return found[0]
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


def _tokenizer(recipe: Recipe, commit: str | None, folder: Path | None = None) -> Path:
    named, model = recipe.workload.tokenizer, recipe.model
    if named and Path(named).exists():
        return Path(named)
    if named:
        return _hub_tokenizer(named, "main")
    if folder is not None:
        return folder if folder.is_dir() else folder.parent
    if model.repo:
        return _hub_tokenizer(model.repo, commit or model.revision or "main")
    raise Refused(
        "no tokenizer to count with",
        advice="write workload.tokenizer: a tokenizer.json, a folder that holds one, or owner/name",
    )


def _hub_tokenizer(repo: str, revision: str) -> Path:
    from huggingface_hub import hf_hub_download

    return Path(_asked(lambda: hf_hub_download(repo, "tokenizer.json", revision=revision), repo, revision))


def _hub_model(repo: str, revision: str, pattern: str | None, engine: Engine) -> HubModel:
    from huggingface_hub import HfApi

    info = _asked(lambda: HfApi().model_info(repo, revision=revision, files_metadata=True), repo, revision)
    files = [HubFile(s.rfilename, s.size or 0) for s in info.siblings or ()]
    wanted = _wanted(repo, files, pattern, engine)
    return HubModel(repo, info.sha or revision, tuple(wanted))


def _wanted(repo: str, files: list[HubFile], pattern: str | None, engine: Engine) -> list[HubFile]:
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
    return [f for f in files if not any(fnmatch.fnmatch(f.name, p) for p in never)]


def _asked(call, repo: str, revision: str):  # type: ignore[no-untyped-def]
    """A look-up at the Hub, tried again where that helps. Raises Refused with the reason."""
    try:
        return fetch_model.persistently(call, repo, revision)
    except Exception as error:
        known = fetch_model.explain(error, repo, revision)
        message, advice = known[1:] if known else (f"the Hub did not answer for {repo}: {error}", "check HF_ENDPOINT")
        raise Refused(message, advice=advice) from error
