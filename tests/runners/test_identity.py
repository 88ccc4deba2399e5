"""What makes a model another one, so that the answers of the one are not taken for those of the other."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from recipes.spec import Engine as EngineSpec
from runners.engines.openai import OpenAIEndpoint
from runners.engines.vllm.plugin import Vllm
from runners.identity import identity_of
from runners.modelfacts.facts import File
from runners.models import HubModel, ModelSource


def at_hub(commit: str = "c1", *, file: str = "model.safetensors", repo: str = "o/n") -> ModelSource:
    return ModelSource("served", None, hub=HubModel(repo, commit, (File(file, 1),)))


def identity(model: ModelSource, **engine: Any) -> str:
    return identity_of(model, Vllm(), EngineSpec(name="vllm", **engine))


@pytest.mark.parametrize("other", [at_hub("c2"), at_hub(file="other.gguf"), at_hub(repo="o/m")], ids=str)
def test_a_commit_a_file_or_a_repository_makes_another(other: ModelSource) -> None:
    assert identity(at_hub()) == identity(at_hub())
    assert identity(other) != identity(at_hub()), "though it is served under the same name"


def test_flags_that_change_the_model_make_another_and_those_that_size_the_engine_do_not() -> None:
    plain = identity(at_hub())
    assert identity(at_hub(), version="0.19.1") == plain
    for sizing in ({"gpu_memory_utilization": 0.8}, {"max-num-seqs": 4}, {"max_model_len": 2048}):
        assert identity(at_hub(), args=sizing) == plain
    for changing in ({"quantization": "fp8"}, {"dtype": "half"}, {"nobody_knows": 1}):
        assert identity(at_hub(), args=changing) != plain


def test_another_file_under_the_same_name_is_another_model(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF1")
    model = ModelSource("m", None, path=path)
    before = identity(model)
    assert identity(model) == before
    os.utime(path, (1, 1))
    assert identity(model) != before


def test_of_an_endpoint_the_host_counts_and_its_port_does_not() -> None:
    def at(url: str) -> str:
        return identity_of(ModelSource("m", None), OpenAIEndpoint(), EngineSpec(name="openai", url=url))

    assert at("http://127.0.0.1:8001/v1") == at("http://127.0.0.1:8002/v1")
    assert at("https://one.example/v1") != at("https://two.example/v1")
