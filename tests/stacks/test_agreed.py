"""What was agreed to reaches the providers: they ask for nothing that no preview has shown."""

from __future__ import annotations

import os
from typing import Any

import pytest
from pulumi.dynamic import ResourceProvider

from recipes.errors import NoMachine
from stacks.agreed import check_agreed, making
from stacks.gpu_pod.pod import GpuPodProvider
from stacks.model_cache.download import DownloadProvider
from stacks.model_cache.volume import VolumeProvider
from stacks.providing import ProviderFailed
from stacks.values import Changes, Step


def test_what_a_preview_shows_may_be_made_and_nothing_else() -> None:
    steps = [Step(op=op, type=kind, name=kind) for op, kind in (("create", "A"), ("replace", "B"), ("update", "C"))]
    made = Changes(tuple(steps)).made
    check_agreed("C")  # nobody has said anything
    with making(made, os.environ):
        check_agreed("A")
        check_agreed("B")
        with pytest.raises(NoMachine, match="a C would have to be made, which the preview did not show"):
            check_agreed("C")
    check_agreed("C")


def test_where_nothing_was_to_be_made_nothing_is() -> None:
    with making(frozenset(), os.environ), pytest.raises(NoMachine):
        check_agreed("A")


@pytest.mark.parametrize(
    "provider", [GpuPodProvider(), VolumeProvider(), DownloadProvider()], ids=lambda p: type(p).__name__
)
def test_no_provider_makes_what_was_not_agreed_to(provider: ResourceProvider) -> None:
    """It was not even configured: it could ask nobody."""
    provider._mask = str  # type: ignore[attr-defined]
    props: dict[str, Any] = {"volume_id": "v", "noted": None, "unique_name": "n"}
    with making(frozenset({"UniqueName"}), os.environ), pytest.raises(ProviderFailed, match="did not show"):
        provider.create(props)
