"""The Hub, emulated: few small requests, none where the answer is known, and what is kept."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recipes.errors import Refused
from runners.modelfacts.hub import Description, Repository
from runners.modelfacts.hubclient import HubClient, NoAccess, SilentHub, token_of
from runners.onhost import fetch_model
from tests.emulators.configs import LLAMA_70B
from tests.emulators.headers import gguf, safetensors
from tests.emulators.hub import Beginning, hub_emulator
from tests.emulators.hub import Hub as Emulator

REPO = "maker/large"
TOKEN = "hf_A-secret-that-nobody-sees"
BYTES_70B = 68_976_648_192 * 2
TOKENIZER = json.dumps({"filler": "x" * 1_800_000}).encode()
NOT_READ = b"these are no headers, and nobody should look"


def sharded(count: int = 15, total: int = BYTES_70B) -> dict[str, bytes]:
    size = total // count + 40_000
    return {f"model-{n:05}-of-{count:05}.safetensors": Beginning(NOT_READ, size) for n in range(1, count + 1)}


FILES_70B = {
    "config.json": json.dumps(LLAMA_70B).encode(),
    "tokenizer.json": TOKENIZER,
    "model.safetensors.index.json": b"{}" * 40_000,
    **sharded(),
}
SMALL = {**LLAMA_70B, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
         "num_key_value_heads": 2, "vocab_size": 10}  # fmt: skip


def small_weights(*, padding: int = 0) -> bytes:
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {
        "model.embed_tokens.weight": ("BF16", (10, 8)),
        "lm_head.weight": ("BF16", (10, 8)),
    }
    tensors |= {f"model.layers.0.self_attn.q_proj.{n:0250}": ("F32", (2,)) for n in range(padding)}
    return safetensors(tensors, data=True)


FILES_SMALL = {
    "config.json": json.dumps(SMALL).encode(),
    "tokenizer.json": b'{"a": 1}',
    "model.safetensors": small_weights(),
}


class Access:
    """A client's look-ups, each as a new process would make them."""

    def __init__(self, hub: Emulator, cache: Path) -> None:
        self.hub = hub
        self.cache = cache
        self.env: dict[str, str] = {"HF_TOKEN_PATH": "/nowhere"}

    def repository(self) -> Repository:
        return Repository(REPO, endpoint=self.hub.url, cache=self.cache, env=self.env)

    def look(self, revision: str = "main", *, file: str | None = None) -> tuple[Description, Any, Path | None]:
        repository = self.repository()
        try:
            found = repository.describe(revision)
            files = tuple(one for one in found.files if file is None or one.name == file)
            facts = repository.facts(found, files, gguf=file is not None, identifier="test")
            return found, facts, repository.tokenizer(found)
        finally:
            repository.close()

    def requests(self, since: int = 0) -> list[str]:
        return [f"{one.kind} {one.path}" for one in self.hub.requests[since:] if "/blobs/" not in one.path]


@pytest.fixture
def hub() -> Iterator[Emulator]:
    with hub_emulator() as emulator:
        yield emulator


@pytest.fixture
def access(hub: Emulator, tmp_path: Path) -> Access:
    return Access(hub, tmp_path / "cache")


# Few requests


def test_a_large_model_takes_four_requests_and_none_of_a_megabyte(hub: Emulator, access: Access) -> None:
    commit = hub.push(REPO, FILES_70B)
    found, facts, tokenizer = access.look()
    assert found.commit == facts.commit == commit
    assert len(access.requests()) == 4, access.requests()
    assert max(size for _, size in hub.answered) <= 1_000_000
    assert tokenizer
    assert tokenizer.read_bytes() == TOKENIZER
    assert (facts.weights_from, facts.parameters, facts.assumptions) == ("arithmetic", BYTES_70B // 2, ())
    assert facts.weight_bytes == BYTES_70B
    assert facts.download_bytes == sum(file.bytes for file in found.files)


def test_what_the_hub_counts_is_not_needed(hub: Emulator, access: Access) -> None:
    hub.counts_elements = False
    hub.push(REPO, FILES_70B)
    _, facts, _ = access.look()
    assert (facts.weights_from, facts.weight_bytes) == ("arithmetic", BYTES_70B)
    assert len(access.requests()) == 4


def test_a_pinned_commit_is_not_asked_for_again(hub: Emulator, access: Access) -> None:
    commit = hub.push(REPO, FILES_70B)
    first = access.look(commit)
    asked = len(hub.requests)
    assert access.look(commit) == first
    assert len(hub.requests) == asked


def test_a_branch_costs_one_light_question(hub: Emulator, access: Access) -> None:
    hub.push(REPO, FILES_70B)
    first = access.look()
    asked, answered = len(hub.requests), len(hub.answered)
    assert access.look() == first
    assert [one.kind for one in hub.requests[asked:]] == ["info"]
    assert hub.answered[answered][1] < 500


def test_a_branch_that_moved_on_is_followed(hub: Emulator, access: Access) -> None:
    hub.push(REPO, FILES_SMALL)
    access.look()
    moved = hub.push(REPO, {**FILES_SMALL, "tokenizer.json": b'{"a": 2}'})
    found, facts, tokenizer = access.look()
    assert found.commit == facts.commit == moved
    assert tokenizer
    assert tokenizer.read_bytes() == b'{"a": 2}'


def test_a_single_file_is_known_by_its_header(hub: Emulator, access: Access) -> None:
    hub.push(REPO, FILES_SMALL)
    _, facts, _ = access.look()
    assert (facts.weights_from, facts.parameters) == ("headers", 160)
    assert {one.dtype for one in facts.tensors} == {"BF16"}


def test_a_long_header_comes_in_pieces(hub: Emulator, access: Access) -> None:
    weights = small_weights(padding=7000)
    hub.push(REPO, {**FILES_SMALL, "model.safetensors": weights})
    assert int.from_bytes(weights[:8], "little") > 2_000_000
    _, facts, _ = access.look()
    assert facts.parameters == 160 + 14_000
    assert max(size for _, size in hub.answered) <= 1_000_000


def test_an_architecture_that_is_not_known_is_read_from_its_headers(hub: Emulator, access: Access) -> None:
    shard = {f"model-{n}-of-2.safetensors": small_weights() for n in (1, 2)}
    config = json.dumps({**SMALL, "model_type": "llama9"}).encode()
    hub.push(REPO, {"config.json": config, **shard})
    _, facts, tokenizer = access.look()
    assert (facts.known, facts.weights_from, facts.parameters, tokenizer) == (False, "headers", 320, None)


def test_sizes_that_disagree_with_the_config_are_read_from_the_headers(hub: Emulator, access: Access) -> None:
    shards = {f"model-{n}-of-2.safetensors": small_weights() + bytes(90_000) for n in (1, 2)}
    hub.push(REPO, {"config.json": json.dumps(SMALL).encode(), **shards})
    assert access.look()[1].weights_from == "headers"


def test_pytorch_files_are_sized_by_what_they_are(hub: Emulator, access: Access) -> None:
    weights = {f"pytorch_model-{n}-of-2.bin": Beginning(b"", BYTES_70B // 2 + 9_000) for n in (1, 2)}
    hub.push(REPO, {"config.json": json.dumps(LLAMA_70B).encode(), **weights})
    _, facts, _ = access.look()
    assert (facts.weights_from, facts.weight_bytes) == ("arithmetic", BYTES_70B)
    assert len(access.requests()) == 2


def test_of_many_files_headers_are_not_read_one_after_the_other(hub: Emulator, access: Access) -> None:
    """40 shards of an architecture that is not known: their sizes have to do, and that is said."""
    config = json.dumps({**LLAMA_70B, "model_type": "llama9"}).encode()
    hub.push(REPO, {"config.json": config, "tokenizer.json": TOKENIZER, **sharded(40)})
    _, facts, _ = access.look()
    assert facts.weights_from == "sizes"
    assert "are in proportion to what the config gives" in facts.assumptions[-1]
    assert len(access.requests()) <= 6


def test_a_header_that_claims_to_be_huge_is_not_fetched(hub: Emulator, access: Access) -> None:
    claims = (90_000_000).to_bytes(8, "little") + b"{}"
    hub.push(REPO, {**FILES_SMALL, "model.safetensors": Beginning(claims, 10_000_000_000)})
    with pytest.raises(Refused, match="its header would be 90,000,000 bytes long"):
        access.look()
    assert len([one for one in hub.requests if one.path.endswith("model.safetensors") and "/blobs/" in one.path]) == 1


def test_a_repository_without_weights_is_planned_and_that_is_said(hub: Emulator, access: Access) -> None:
    hub.push(REPO, {name: data for name, data in FILES_SMALL.items() if name != "model.safetensors"})
    _, facts, _ = access.look()
    assert facts.parameters > 160
    (said,) = facts.assumptions
    assert said.startswith("No weights that an engine would load are there")


# GGUF

METADATA = {
    "general.architecture": "llama",
    "llama.block_count": 2,
    "llama.embedding_length": 64,
    "llama.feed_forward_length": 128,
    "llama.attention.head_count": 4,
    "llama.vocab_size": 32,
}
TENSORS = {"token_embd.weight": (8, (64, 32)), "blk.0.attn_q.weight": (12, (256, 64))}


def test_a_gguf_file_is_known_by_its_beginning(hub: Emulator, access: Access) -> None:
    header = gguf(METADATA, TENSORS)
    hub.push(REPO, {"a.gguf": Beginning(header + bytes(10), 5_000_000_000), "b.gguf": b"another"})
    _, facts, _ = access.look(file="a.gguf")
    assert (facts.form, facts.parameters, facts.weights_from) == ("gguf", 64 * 32 + 64 * 256, "headers")
    asked = len(hub.requests)
    assert access.look(hub.repos[REPO].branches["main"], file="a.gguf")[1] == facts
    assert len(hub.requests) == asked


def test_of_a_gguf_file_with_a_long_vocabulary_two_pieces_are_read(hub: Emulator, access: Access) -> None:
    metadata = {**METADATA, "tokenizer.ggml.tokens": [f"a long token {n}" for n in range(150_000)]}
    header = gguf(metadata, TENSORS)
    assert len(header) > 3_000_000
    hub.push(REPO, {"a.gguf": Beginning(header, 5_000_000_000)})
    _, facts, _ = access.look(file="a.gguf")
    assert (facts.layer_count, facts.vocab_size, facts.weights_from) == (2, 32, "sizes")
    assert facts.weight_bytes == pytest.approx(5_000_000_000, rel=1e-6)
    assert len([one for one in hub.answered if "a.gguf" in one[0]]) == 2


# Without a network


def test_without_a_network_the_commit_that_was_last_seen_is_used(hub: Emulator, access: Access) -> None:
    commit = hub.push(REPO, FILES_SMALL)
    first = access.look()
    access.env["HF_HUB_OFFLINE"] = "1"
    asked = len(hub.requests)
    found, facts, tokenizer = access.look()
    assert (facts, tokenizer) == first[1:]
    assert len(hub.requests) == asked
    (note,) = found.notes
    assert note.startswith(f"offline: {REPO} at commit {commit[:7]}, which main meant on 20")
    assert access.look(commit)[0].notes == ()


def test_a_hub_that_is_silent_is_as_good_as_none(
    hub: Emulator, access: Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.push(REPO, FILES_SMALL)
    access.look()
    hub.fail("info", times=100)
    monkeypatch.setattr("random.random", lambda: -0.5)
    found, _, _ = access.look()
    assert found.notes[0].startswith("offline: ")


def test_offline_nothing_is_known_of_what_was_never_seen(hub: Emulator, access: Access) -> None:
    hub.push(REPO, FILES_SMALL)
    access.env["HF_HUB_OFFLINE"] = "1"
    for revision in ("main", "0" * 40):
        with pytest.raises(SilentHub, match="HF_HUB_OFFLINE is set, and maker/large has to be looked up"):
            access.look(revision)
    assert not hub.requests


def test_offline_what_another_host_said_of_a_repository_stands_in(hub: Emulator, access: Access) -> None:
    """With a sentence that says so; and nothing is added to what that host said."""
    commit = hub.push(REPO, FILES_SMALL)
    _, facts, tokenizer = access.look()
    kept = {path: path.read_bytes() for path in access.cache.rglob("*") if path.is_file()}
    access.env["HF_HUB_OFFLINE"] = "1"
    for revision, when in (("main", " for main on 20"), (commit, "")):
        repository = Repository(REPO, endpoint="http://mirror.invalid", cache=access.cache, env=access.env)
        found = repository.describe(revision)
        (note,) = found.notes
        host = hub.url.removeprefix("http://")
        assert note.startswith(f"offline: {REPO} at commit {commit[:7]}, as {host} gave it{when}")
        assert repository.facts(found, found.files, gguf=False, identifier="test") == facts
        assert repository.tokenizer(found) == tokenizer
    assert {path: path.read_bytes() for path in access.cache.rglob("*") if path.is_file()} == kept


def test_what_another_host_said_of_a_closed_repository_is_not_shown_to_another_account(
    hub: Emulator, access: Access
) -> None:
    hub.push(REPO, FILES_SMALL, gated=True)
    hub.let_in(TOKEN, REPO)
    access.env["HF_TOKEN"] = TOKEN
    access.look()
    offline = {"HF_TOKEN_PATH": "/nowhere", "HF_HUB_OFFLINE": "1"}
    with pytest.raises(SilentHub):
        Repository(REPO, endpoint="http://mirror.invalid", cache=access.cache, env=offline).describe("main")


def test_what_a_hub_says_of_a_file_is_told_with_its_status_and_the_files_name(hub: Emulator, access: Access) -> None:
    hub.push(REPO, FILES_SMALL)
    hub.fail("get", status=403, times=100)
    with pytest.raises(NoAccess, match=f"the Hub answered 403 for [a-z.]+ of {REPO}"):
        access.look()


def test_a_hub_that_answers_no_is_not_talked_over(hub: Emulator, access: Access) -> None:
    """What another host once gave is no way around a refusal."""
    hub.push(REPO, FILES_SMALL)
    access.look()
    with hub_emulator() as other:
        repository = Repository(REPO, endpoint=other.url, cache=access.cache, env=access.env)
        with pytest.raises(NoAccess, match="no such repository"):
            repository.describe("main")
        repository.close()


# Closed repositories


def test_of_a_closed_repository_another_account_sees_nothing_of_what_was_kept(hub: Emulator, access: Access) -> None:
    commit = hub.push(REPO, FILES_SMALL, gated=True)
    hub.let_in(TOKEN, REPO)
    access.env["HF_TOKEN"] = TOKEN
    access.look(commit)
    asked = len(hub.requests)
    access.look(commit)
    assert len(hub.requests) == asked
    del access.env["HF_TOKEN"]
    with pytest.raises(NoAccess, match="maker/large is gated") as refused:
        access.look(commit)
    assert refused.value.code == "access"
    with pytest.raises(NoAccess, match="maker/large is gated"):
        access.look("main")


def test_a_gated_model_takes_one_request_more(hub: Emulator, access: Access) -> None:
    hub.push(REPO, FILES_70B, gated=True)
    hub.let_in(TOKEN, REPO)
    access.env["HF_TOKEN"] = TOKEN
    access.look()
    assert [one.split()[0] for one in access.requests()] == ["info", "auth-check", "get", "get", "get"]


def test_the_token_goes_to_the_hub_only_and_into_no_file(hub: Emulator, access: Access) -> None:
    """Weights are given by another host."""
    hub.push(REPO, FILES_SMALL, private=True)
    hub.let_in(TOKEN, REPO)
    access.env["HF_TOKEN"] = TOKEN
    access.look()
    assert {one.authorized for one in hub.requests if "/blobs/" in one.path} == {False}
    assert {one.authorized for one in hub.requests if "/blobs/" not in one.path} == {True}
    kept = [path for path in access.cache.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]
    assert kept == []


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({"HF_TOKEN": " one \n"}, "one"),
        ({"HF_TOKEN_PATH": "{file}"}, "two"),
        ({"HF_HOME": "{home}"}, "two"),
        ({"XDG_CACHE_HOME": "{cache}"}, "two"),
        ({"HF_TOKEN": "one", "HF_HOME": "{home}"}, "one"),
        ({"HF_TOKEN": "one", "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}, None),
        ({"HF_HOME": "/nowhere"}, None),
    ],
)
def test_where_a_token_lies(tmp_path: Path, env: dict[str, str], expected: str | None) -> None:
    home = tmp_path / "huggingface"
    home.mkdir()
    (home / "token").write_text("two\n")
    places = {"file": home / "token", "home": home, "cache": tmp_path}
    assert token_of({name: value.format(**places) for name, value in env.items()}) == expected


# What is kept


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"schema": 1}', b'{"schema": 0, "files": []}', b"\xff"])
def test_damaged_records_are_made_again(hub: Emulator, access: Access, damage: bytes) -> None:
    commit = hub.push(REPO, FILES_SMALL)
    first = access.look()
    records = [path for path in access.cache.rglob("*.json") if path.name != "tokenizer.json"]
    assert len(records) == 3
    for record in records:
        whole = record.read_bytes()
        record.write_bytes(damage)
        assert access.look() == first
        assert access.look(commit) == first
        assert record.read_bytes() == whole or record.parent.name == "refs"


@pytest.mark.parametrize("damage", [b"", b'{"a": 3}'])
def test_a_damaged_tokenizer_is_fetched_again(hub: Emulator, access: Access, damage: bytes) -> None:
    commit = hub.push(REPO, FILES_SMALL)
    path = access.look(commit)[2]
    assert path
    path.write_bytes(damage)
    assert access.look(commit)[2] == path
    assert path.read_bytes() == FILES_SMALL["tokenizer.json"]


def test_a_cache_that_cannot_be_written_is_no_reason_to_stop(hub: Emulator, access: Access) -> None:
    """Not even for the tokenizer, which has to lie somewhere; what goes on without being kept is told."""
    access.cache.write_text("no folder")
    hub.push(REPO, FILES_SMALL)
    repository = access.repository()
    found = repository.describe("main")
    path = repository.tokenizer(found)
    assert path
    assert path.read_bytes() == FILES_SMALL["tokenizer.json"]
    assert repository.facts(found, found.files, gguf=False, identifier="test").parameters == 160
    (note,) = repository.notes
    assert note == f"nothing is kept of what the Hub says: {access.cache} cannot be written (Not a directory)"
    repository.close()


def test_where_everything_can_be_kept_there_is_nothing_to_tell(hub: Emulator, access: Access) -> None:
    hub.push(REPO, FILES_SMALL)
    repository = access.repository()
    repository.tokenizer(repository.describe("main"))
    assert repository.notes == ()
    repository.close()


def test_several_at_once(hub: Emulator, access: Access) -> None:
    commit = hub.push(REPO, FILES_70B)
    found: list[bytes] = []

    def look() -> None:
        path = access.look()[2]
        assert path
        found.append(path.read_bytes())

    threads = [threading.Thread(target=look) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [TOKENIZER] * 6
    assert not list(access.cache.rglob("*.part"))
    asked = len(hub.requests)
    access.look(commit)
    assert len(hub.requests) == asked


# Damage and faults


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"config.json": b"{"}, "maker/large's config.json is no JSON object"),
        (
            {"model.safetensors": b"\x02"},
            "maker/large's model.safetensors is no safetensors file: it ends after 1 bytes",
        ),
        ({"model.safetensors": small_weights()[:40]}, "maker/large's model.safetensors is cut off"),
        (
            {"model.safetensors": bytes([9]) + bytes(200)},
            "maker/large's model.safetensors: the header is no JSON object",
        ),
    ],
)
def test_damaged_files_are_refused_with_what_is_wrong(
    hub: Emulator, access: Access, files: dict[str, bytes], message: str
) -> None:
    hub.push(REPO, {**FILES_SMALL, **files})
    with pytest.raises(Refused, match=message) as refused:
        access.look()
    assert refused.value.advice


def test_a_tokenizer_that_is_another_than_described_is_refused(hub: Emulator, access: Access) -> None:
    commit = hub.push(REPO, FILES_70B)
    repository = access.repository()
    found = repository.describe(commit)
    hub.repos[REPO].commits[commit]["tokenizer.json"] = TOKENIZER.replace(b"x", b"y")
    with pytest.raises(Refused, match="came damaged"):
        repository.tokenizer(found)
    assert not list(access.cache.rglob("tokenizer.json"))


@pytest.mark.parametrize("fault", ["info", "get"])
def test_a_request_that_fails_just_now_is_made_again(
    hub: Emulator, access: Access, monkeypatch: pytest.MonkeyPatch, fault: Any
) -> None:
    monkeypatch.setattr("random.random", lambda: -0.5)
    hub.push(REPO, FILES_SMALL)
    hub.fail(fault, times=2)
    assert access.look()[1].parameters == 160


def test_a_file_that_breaks_off_is_asked_for_again(
    hub: Emulator, access: Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("random.random", lambda: -0.5)
    hub.push(REPO, FILES_70B)
    hub.cut("tokenizer.json", after=1000)
    path = access.look()[2]
    assert path
    assert path.read_bytes() == TOKENIZER


def test_a_host_that_is_no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch_model, "TRIES", 1)
    with pytest.raises(SilentHub, match="the Hub did not answer for maker/large"):
        Repository(REPO, endpoint="http://127.0.0.1:1", cache=tmp_path, env={}).describe("main")


COMMANDS = "\x1b]0;pwned\x07"


@pytest.mark.parametrize(
    "answer",
    [
        {"siblings": 5},
        {"siblings": [1, {}, {"rfilename": 7}, {"rfilename": "config.json", "size": "many"}]},
        {"siblings": [{"rfilename": "config.json", "size": -9, "lfs": {"sha256": 1}}]},
        {"siblings": [{"rfilename": "config.json", "size": 10**400}], "safetensors": {"parameters": {"F16": "x"}}},
        {"safetensors": {"parameters": [1]}, "gated": {"a": 1}},
        {"sha": COMMANDS, "siblings": [{"rfilename": f"model{COMMANDS}.gguf"}, {"rfilename": "a\u202eb.gguf"}]},
        {"sha": ["x"], "siblings": None},
    ],
)
def test_odd_answers_are_read_as_far_as_they_make_sense(access: Access, monkeypatch: Any, answer: Any) -> None:
    monkeypatch.setattr(HubClient, "info", lambda *_, **__: answer)
    monkeypatch.setattr(HubClient, "auth_check", lambda *_: None)
    found = access.repository().describe("main")
    assert {file.name for file in found.files} <= {"config.json"}
    assert all(file.bytes == 0 for file in found.files)
    assert found.commit.isprintable()
    assert all(isinstance(count, int) for count in found.elements.values())
