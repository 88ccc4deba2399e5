"""Where the model and its tokenizer come from: the real library against an emulated Hub, and local paths."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recipes import catalogue
from recipes.errors import Refused
from recipes.spec import Recipe
from runners import registry
from runners.models import Hub, ModelSource, resolve_model
from runners.onhost import fetch_model
from runners.text.tokens import TokenCounter
from tests.emulators.headers import gguf, safetensors
from tests.emulators.hub import Hub as Emulator
from tests.emulators.hub import hub_emulator

REPO = "maker/small"
TOKEN = "hf_A-secret-that-nobody-sees"
LEAD = catalogue.builtin_model("lead")
TOKENIZER = (LEAD / "tokenizer.json").read_bytes()
WEIGHTS = safetensors({"model.embed_tokens.weight": ("BF16", (16, 8))}, data=True)
GGUF = gguf({"general.architecture": "llama"}, {"token_embd.weight": (8, (32, 16))})
FILES = {"config.json": b"{}", "tokenizer.json": TOKENIZER, "model.safetensors": WEIGHTS}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Emulator]:
    """An emulated Hub; the token of whoever runs the tests stays out of it."""
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "no token"))
    with hub_emulator() as emulator:
        yield emulator


@pytest.fixture
def at(hub: Emulator, tmp_path: Path) -> Hub:
    return Hub(hub.url, tmp_path / "cache")


def recipe(model: dict[str, Any], *, engine: str = "vllm", tokenizer: str | None = None) -> Recipe:
    url = {"url": "http://127.0.0.1:1/v1"} if engine == "openai" else {}
    workload = {"inputs": ["a.txt"], "tokenizer": tokenizer}
    return Recipe.model_validate(
        {"name": "test", "model": model, "engine": {"name": engine, **url}, "workload": workload}
    )


def resolve(model: dict[str, Any], at: Hub | None = None, *, engine: str = "vllm", **more: Any) -> ModelSource:
    """Without a Hub, none may be asked."""
    hub = at or Hub("http://127.0.0.1:1")
    return resolve_model(recipe(model, engine=engine, **more), registry.engine(engine), hub)


# The Hub


def test_a_branch_is_pinned_to_the_commit_that_it_means_now(hub: Emulator, at: Hub) -> None:
    then = hub.push(REPO, FILES, branch="feature/long")
    found = resolve({"repo": REPO, "revision": "feature/long"}, at)
    hub.push(REPO, {**FILES, "tokenizer.json": b"{}"}, branch="feature/long")
    assert found.hub
    assert found.hub.commit == then
    assert found.describe() == f"{REPO} @ {then[:7]}"
    assert found.counting_tokenizer().read_bytes() == TOKENIZER
    assert f"/resolve/{then}/" in hub.asked("get", "tokenizer.json")[0].path
    again = resolve({"repo": REPO, "revision": then}, at)
    assert again.hub == found.hub
    assert again.counting_tokenizer().read_bytes() == TOKENIZER


def test_weights_are_only_counted(hub: Emulator, at: Hub) -> None:
    hub.push(REPO, FILES)
    found = resolve({"repo": REPO, "served_name": "small"}, at)
    assert found.hub
    assert found.hub.bytes == sum(map(len, FILES.values()))
    assert {file.name: file.bytes for file in found.hub.files} == {name: len(data) for name, data in FILES.items()}
    assert not [r for r in hub.asked("get", "model.safetensors") if not r.range]
    assert found.identifier == "small"
    assert found.loaded_from(Path("/there")) == "/there"


TEXTS = {"config.json": b"{}", "tokenizer.json": TOKENIZER}
OTHERS = ("README.md", ".gitattributes", "model.onnx", "old.pth", "original/consolidated.00.pth", "small.gguf")


@pytest.mark.parametrize(
    ("weights", "fetched"),
    [
        (["model.safetensors", "pytorch_model.bin"], ["model.safetensors"]),
        (["pytorch_model.bin"], ["pytorch_model.bin"]),
    ],
)
def test_one_form_of_the_weights_is_fetched(hub: Emulator, at: Hub, weights: list[str], fetched: list[str]) -> None:
    kept = ["config.json", "tokenizer.json", "merges.txt"]
    names = dict.fromkeys([*kept, *weights, *OTHERS], b"x")
    hub.push(REPO, {**names, **FILES, "model.safetensors": WEIGHTS} if len(weights) > 1 else {**names, **TEXTS})
    found = resolve({"repo": REPO}, at)
    assert found.hub
    assert sorted(file.name for file in found.hub.files) == sorted([*kept, *fetched])


def test_a_repository_that_the_engine_cannot_load_is_refused(hub: Emulator, at: Hub) -> None:
    hub.push(REPO, {"small.gguf": b"x", "tokenizer.json": TOKENIZER})
    with pytest.raises(Refused, match=r"no config\.json, and vllm loads a model folder") as refused:
        resolve({"repo": REPO}, at)
    assert "llamacpp" in refused.value.advice


@pytest.mark.parametrize(
    ("files", "pattern", "chosen"),
    [
        (["small.gguf"], None, "small.gguf"),
        (["small-q4.gguf", "small-q8.gguf"], "*q8*", "small-q8.gguf"),
        (["small-q4.gguf", "small-q8.gguf"], "small-q4.gguf", "small-q4.gguf"),
        (["q4/small.gguf", "q8/small.gguf"], "q8/*.gguf", "q8/small.gguf"),
    ],
)
def test_one_gguf_file_is_chosen(hub: Emulator, at: Hub, files: list[str], pattern: str | None, chosen: str) -> None:
    hub.push(REPO, {**dict.fromkeys(files, GGUF), "README.md": b"x", "tokenizer.json": TOKENIZER})
    found = resolve({"repo": REPO, "file": pattern}, at, engine="llamacpp")
    assert found.hub
    assert [file.name for file in found.hub.files] == [chosen]
    assert found.loaded_from(Path("/there")) == f"/there/{chosen}"


@pytest.mark.parametrize(
    ("files", "pattern", "message", "advice"),
    [
        (["a.gguf", "b.gguf"], None, r"2 files of maker/small match \*\.gguf", "a.gguf, b.gguf"),
        (["a.gguf", "b.gguf"], "*q8*", r"0 files of maker/small match \*q8\*", "a.gguf, b.gguf"),
        (["model.safetensors"], None, r"0 files of maker/small match \*\.gguf", "none"),
    ],
)
def test_no_gguf_file_or_several(
    hub: Emulator, at: Hub, files: list[str], pattern: str | None, message: str, advice: str
) -> None:
    hub.push(REPO, dict.fromkeys(files, b"x"))
    with pytest.raises(Refused, match=message) as refused:
        resolve({"repo": REPO, "file": pattern}, at, engine="llamacpp")
    assert refused.value.advice == f"write model.file; GGUF files there: {advice}"


@pytest.mark.parametrize(
    ("model", "token", "message", "advice"),
    [
        ({"repo": "maker/gated"}, None, "maker/gated is gated", "accept its licence"),
        ({"repo": "maker/gated"}, TOKEN, "maker/gated is gated", "accept its licence"),
        ({"repo": "maker/absent"}, None, "maker/absent: no such repository", "check the name"),
        ({"repo": "maker/private"}, None, "maker/private: no such repository, or a private one", "set HF_TOKEN"),
        ({"repo": "maker/private"}, TOKEN, "maker/private: no such repository, or a private one", "set HF_TOKEN"),
        ({"repo": REPO, "revision": "v9"}, None, "maker/small has no revision v9", "use main, a tag or a commit"),
        ({"repo": REPO}, "hf_unknown", "the Hub answered 401", "check HF_TOKEN"),
        ({"repo": "a/b/c"}, None, "a/b/c: no name of a repository", "write owner/name"),
    ],
)
def test_each_refusal_has_its_reason_and_advice(
    hub: Emulator,
    at: Hub,
    monkeypatch: pytest.MonkeyPatch,
    model: dict[str, str],
    token: str | None,
    message: str,
    advice: str,
) -> None:
    hub.push(REPO, FILES)
    hub.push("maker/gated", FILES, gated=True)
    hub.push("maker/private", FILES, private=True)
    hub.let_in(TOKEN)
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    # The tokenizer lies here: what is refused is the model, before a machine is rented for it.
    with pytest.raises(Refused, match=message) as refused:
        resolve(model, at, tokenizer=str(LEAD))
    assert advice in refused.value.advice
    assert (token or TOKEN) not in refused.value.message + refused.value.advice


@pytest.mark.parametrize("closed", [{"gated": True}, {"private": True}])
def test_an_account_that_was_let_in_gets_the_model(
    hub: Emulator, at: Hub, monkeypatch: pytest.MonkeyPatch, closed: dict[str, bool]
) -> None:
    commit = hub.push(REPO, FILES, **closed)
    hub.let_in(TOKEN, REPO)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    found = resolve({"repo": REPO}, at)
    assert found.hub
    assert found.hub.commit == commit
    assert all(request.authorized for request in hub.requests if REPO in request.path)


def test_a_look_up_that_fails_just_now_is_tried_again(hub: Emulator, at: Hub) -> None:
    commit = hub.push(REPO, FILES)
    hub.fail("info", status=503)
    found = resolve({"repo": REPO}, at)
    assert found.hub
    assert found.hub.commit == commit
    assert len(hub.asked("info")) == 2


def test_a_hub_that_does_not_answer(hub: Emulator, at: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.push(REPO, FILES)
    hub.fail("info", status=503, times=100)
    monkeypatch.setattr(fetch_model, "TRIES", 1)
    with pytest.raises(Refused, match=f"the Hub did not answer for {REPO}") as refused:
        resolve({"repo": REPO}, at)
    assert refused.value.advice == "check the network and HF_ENDPOINT"


DRIVER = """
import sys
from recipes.spec import Recipe
from runners import registry
from runners.models import resolve_model
found = resolve_model(Recipe.model_validate_json(sys.argv[1]), registry.engine("vllm"))
print(found.hub.commit, found.tokenizer)
"""


def test_the_environment_says_which_hub_and_the_terminal_stays_clean(hub: Emulator, tmp_path: Path) -> None:
    """As a user sets them: HF_ENDPOINT and XDG_CACHE_HOME; and nothing draws a progress bar of its own."""
    commit = hub.push(REPO, FILES)
    env = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    env |= {"HF_ENDPOINT": hub.url, "XDG_CACHE_HOME": str(tmp_path / "home"), "PYTHONPATH": os.pathsep.join(sys.path)}
    leader, terminal = os.openpty()
    argv = [sys.executable, "-c", DRIVER, recipe({"repo": REPO}).model_dump_json()]
    ended = subprocess.run(argv, env=env, stdout=subprocess.PIPE, stderr=terminal, text=True, timeout=60)
    os.close(terminal)
    assert drain(leader) == b""
    found, _, tokenizer = ended.stdout.strip().partition(" ")
    assert found == commit
    assert Path(tokenizer).is_relative_to(tmp_path / "home")
    assert Path(tokenizer).read_bytes() == TOKENIZER


def drain(leader: int) -> bytes:
    try:
        return os.read(leader, 65536)
    except OSError:  # Linux says so when a terminal was closed with nothing left to read
        return b""
    finally:
        os.close(leader)


def test_a_cache_that_cannot_be_written_stops_nothing_and_is_told_once(hub: Emulator, tmp_path: Path) -> None:
    """Of the model's repository and the tokenizer's alike."""
    (tmp_path / "cache").write_text("no folder")
    commit = hub.push(REPO, FILES)
    hub.push("maker/words", {"tokenizer.json": TOKENIZER})
    found = resolve({"repo": REPO}, Hub(hub.url, tmp_path / "cache"), tokenizer="maker/words")
    assert found.hub
    assert found.hub.commit == commit
    assert found.counting_tokenizer().read_bytes() == TOKENIZER
    (note,) = found.notes
    assert note.startswith("nothing is kept of what the Hub says: ")


def test_a_file_whose_name_would_command_a_terminal_is_none(hub: Emulator, at: Hub) -> None:
    hub.push(REPO, {**FILES, "\x1b[2Jmodel-2.safetensors": WEIGHTS})
    found = resolve({"repo": REPO}, at)
    assert found.hub
    assert sorted(file.name for file in found.hub.files) == sorted(FILES)


# This machine


@pytest.mark.parametrize(("engine", "name"), [("llamacpp", "lead.gguf"), ("vllm", "")])
def test_a_built_in_model_in_the_form_that_the_engine_loads(engine: str, name: str) -> None:
    found = resolve({"builtin": "lead"}, engine=engine)
    assert found.path == LEAD / name
    assert found.loaded_from(None) == str(LEAD / name)
    assert found.describe() == found.identifier == "lead"
    assert TokenCounter.from_path(found.counting_tokenizer()).count("One two.") > 1


def test_a_gguf_file_with_the_tokenizer_beside_it(tmp_path: Path) -> None:
    for name in ("lead.gguf", "tokenizer.json"):
        shutil.copy(LEAD / name, tmp_path / name)
    file = tmp_path / "lead.gguf"
    found = resolve({"path": str(file)}, engine="llamacpp")
    assert (found.path, found.tokenizer) == (file, tmp_path)
    assert found.describe() == str(file)
    assert resolve({"path": str(tmp_path)}, engine="llamacpp").path == file


def test_a_folder(tmp_path: Path) -> None:
    (tmp_path / "config.json").touch()
    found = resolve({"path": str(tmp_path)})
    assert (found.path, found.tokenizer) == (tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("engine", "names", "path", "message", "advice"),
    [
        ("llamacpp", ["config.json"], "", "holds no GGUF file, and llamacpp loads one", "model.path"),
        ("llamacpp", ["a.gguf", "b.gguf"], "", "holds 2 GGUF files, and llamacpp loads one", "model.path"),
        ("llamacpp", [], "b.gguf", "b.gguf: no such file or folder", "check model.path"),
        ("llamacpp", ["a.bin"], "a.bin", "is no GGUF file, and llamacpp loads one", "model.path"),
        ("vllm", ["a.gguf"], "a.gguf", "is not a model folder with a config.json, and vllm loads one", "llamacpp"),
        ("vllm", ["a.gguf"], "", "is not a model folder with a config.json, and vllm loads one", "llamacpp"),
    ],
)
def test_a_form_that_the_engine_does_not_load(
    tmp_path: Path, engine: str, names: list[str], path: str, message: str, advice: str
) -> None:
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(Refused, match=message) as refused:
        resolve({"path": str(tmp_path / path)}, engine=engine)
    assert advice in refused.value.advice


# The tokenizer


@pytest.mark.parametrize("named", [LEAD, LEAD / "tokenizer.json"])
@pytest.mark.parametrize("engine", ["openai", "llamacpp"])
def test_a_tokenizer_that_is_named_comes_before_the_models(named: Path, engine: str) -> None:
    assert resolve({"builtin": "lead"}, engine=engine, tokenizer=str(named)).tokenizer == named


def test_a_tokenizer_of_another_repository(hub: Emulator, at: Hub) -> None:
    hub.push("maker/words", {"tokenizer.json": TOKENIZER})
    found = resolve({"served_name": "theirs"}, at, engine="openai", tokenizer="maker/words")
    assert found.counting_tokenizer().read_bytes() == TOKENIZER
    assert (found.identifier, found.path, found.hub) == ("theirs", None, None)


@pytest.mark.parametrize("engine", ["llamacpp", "vllm"])
def test_a_repository_without_a_tokenizer(hub: Emulator, at: Hub, engine: str) -> None:
    """Its memory can be planned all the same; only who counts has to stop."""
    hub.push(REPO, {"config.json": b"{}", "small.gguf": GGUF})
    found = resolve({"repo": REPO}, at, engine=engine)
    assert (found.tokenizer, found.facts is None) == (None, False)
    assert found.tokenizer_missing == f"{REPO} has no tokenizer.json, so chunks cannot be counted in tokens"
    with pytest.raises(Refused, match=rf"{REPO} has no tokenizer\.json") as refused:
        found.counting_tokenizer()
    assert refused.value.advice.startswith("write workload.tokenizer")
    assert resolve({"repo": REPO}, at, engine=engine, tokenizer=str(LEAD)).tokenizer == LEAD


def test_a_path_without_a_tokenizer(tmp_path: Path) -> None:
    shutil.copy(LEAD / "lead.gguf", tmp_path)
    found = resolve({"path": str(tmp_path / "lead.gguf")}, engine="llamacpp")
    with pytest.raises(Refused) as refused:
        TokenCounter.from_path(found.counting_tokenizer())
    assert refused.value.advice.startswith("write workload.tokenizer")


def test_an_endpoint_of_which_nothing_is_known() -> None:
    found = resolve({"served_name": "theirs"}, engine="openai")
    assert (found.tokenizer, found.facts) == (None, None)
    with pytest.raises(Refused, match="no tokenizer to count with") as refused:
        found.counting_tokenizer()
    assert refused.value.advice.startswith("write workload.tokenizer")
