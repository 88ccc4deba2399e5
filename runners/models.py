"""Where a run's model comes from: one that ships with recipe, a path, or the Hub at a pinned commit."""

from __future__ import annotations

import fnmatch
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from recipes import catalogue
from recipes.errors import Refused
from recipes.spec import Recipe
from runners.engine import Engine
from runners.onhost import fetch_model

T = TypeVar("T")

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


@dataclass(frozen=True)
class Hub:
    """The Hub that is asked, and where its small files are kept; as HF_ENDPOINT and HF_HOME say, if left out."""

    endpoint: str | None = None
    cache: Path | None = None

    def model(self, repo: str, revision: str, pattern: str | None, engine: Engine) -> HubModel:
        """The repository at the commit that the revision means now. Raises Refused, also if its files are not given."""
        from huggingface_hub import HfApi

        api = HfApi(endpoint=self.endpoint)
        info = _asked(lambda: api.model_info(repo, revision=revision, files_metadata=True), repo, revision)
        if info.gated:
            # Of a gated repository everyone may read the description; only this tells who gets its files.
            _asked(lambda: api.auth_check(repo), repo, revision)
        files = [HubFile(s.rfilename, s.size or 0) for s in info.siblings or ()]
        return HubModel(repo, info.sha or revision, tuple(_wanted(repo, files, pattern, engine)))

    def tokenizer(self, repo: str, revision: str) -> Path:
        """Its tokenizer.json, brought here. Raises Refused."""
        from huggingface_hub import errors, hf_hub_download
        from huggingface_hub.utils.tqdm import disable_progress_bars

        def download() -> str | None:
            try:
                return hf_hub_download(
                    repo, "tokenizer.json", revision=revision, endpoint=self.endpoint, cache_dir=self.cache
                )
            except errors.RemoteEntryNotFoundError:
                return None

        disable_progress_bars()
        path = _asked(download, repo, revision)
        if path is None:
            raise Refused(f"{repo} has no tokenizer.json, so chunks cannot be counted in tokens", advice=_TOKENIZER)
        return Path(path)


_LIBRARY_DEFAULTS = Hub()
_TOKENIZER = "write workload.tokenizer: a tokenizer.json, a folder that holds one, or owner/name"


def resolve_model(recipe: Recipe, engine: Engine, hub: Hub = _LIBRARY_DEFAULTS) -> ModelSource:
    """Find the model and its tokenizer. Asks the Hub only for what it has, not for weights. Raises Refused."""
    model = recipe.model
    if engine.model_form == "none":
        return ModelSource(model.identifier, _tokenizer(recipe, hub))
    if model.repo:
        found = hub.model(model.repo, model.revision or "main", model.file, engine)
        return ModelSource(model.identifier, _tokenizer(recipe, hub, commit=found.commit), hub=found)
    folder = catalogue.builtin_model(model.builtin) if model.builtin else Path(model.path or "")
    path = _form_in(folder, engine)
    return ModelSource(model.identifier, _tokenizer(recipe, hub, folder=folder), path=path)


def _form_in(path: Path, engine: Engine) -> Path:
    """The form of a local model that the engine loads. Raises Refused."""
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


def _tokenizer(recipe: Recipe, hub: Hub, *, commit: str | None = None, folder: Path | None = None) -> Path:
    named, model = recipe.workload.tokenizer, recipe.model
    if named and Path(named).exists():
        return Path(named)
    if named:
        return hub.tokenizer(named, "main")
    if folder is not None:
        return folder if folder.is_dir() else folder.parent
    if model.repo:
        return hub.tokenizer(model.repo, commit or model.revision or "main")
    raise Refused("no tokenizer to count with", advice=_TOKENIZER)


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
    wanted = [f for f in files if not any(fnmatch.fnmatch(f.name, p) for p in never)]
    if not any(f.name == "config.json" for f in wanted):
        raise Refused(
            f"{repo} has no config.json, and {engine.name} loads a model folder",
            advice="name a repository in the format of transformers, or choose engine llamacpp for GGUF files",
        )
    return wanted


def _asked(call: Callable[[], T], repo: str, revision: str) -> T:
    """A look-up at the Hub, tried again where that helps. Raises Refused with the reason."""
    # The library tells of each of its own tries; what matters comes as the error.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        found: T = fetch_model.persistently(call, repo, revision)
    except Exception as error:
        silence = ("silent", f"the Hub did not answer for {repo}: {error}", "check the network and HF_ENDPOINT")
        _, message, advice = fetch_model.explain(error, repo, revision) or silence
        raise Refused(message, advice=advice) from error
    return found
