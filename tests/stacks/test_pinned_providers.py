"""What states of earlier versions name of ours: whoever renames it leaves stacks behind that nobody can destroy."""

from __future__ import annotations

import base64
import importlib
import pkgutil
from collections.abc import Iterator

import dill
import pytest
from pulumi.dynamic import ResourceProvider
from pulumi.dynamic.dynamic import serialize_provider

import stacks

PINNED = {
    "stacks.gpu_pod.pod.GpuPodProvider": "gASVLAAAAAAAAACMEnN0YWNrcy5ncHVfcG9kLnBvZJSMDkdwdVBvZFByb3ZpZGVylJOUKVKULg==",
    "stacks.gpu_pod.pod.PodNameProvider": (
        "gASVLQAAAAAAAACMEnN0YWNrcy5ncHVfcG9kLnBvZJSMD1BvZE5hbWVQcm92aWRlcpSTlClSlC4="
    ),
    "stacks.gpu_pod.pod.PodsTimeProvider": (
        "gASVLgAAAAAAAACMEnN0YWNrcy5ncHVfcG9kLnBvZJSMEFBvZHNUaW1lUHJvdmlkZXKUk5QpUpQu"
    ),
    "stacks.unique.UniqueNameProvider": "gASVKwAAAAAAAACMDXN0YWNrcy51bmlxdWWUjBJVbmlxdWVOYW1lUHJvdmlkZXKUk5QpUpQu",
    "stacks.model_cache.volume.VolumeProvider": (
        "gASVMwAAAAAAAACMGXN0YWNrcy5tb2RlbF9jYWNoZS52b2x1bWWUjA5Wb2x1bWVQcm92aWRlcpSTlClSlC4="
    ),
    "stacks.model_cache.volume.VolumeNameProvider": (
        "gASVNwAAAAAAAACMGXN0YWNrcy5tb2RlbF9jYWNoZS52b2x1bWWUjBJWb2x1bWVOYW1lUHJvdmlkZXKUk5QpUpQu"
    ),
    "stacks.model_cache.download.DownloadProvider": (
        "gASVNwAAAAAAAACMG3N0YWNrcy5tb2RlbF9jYWNoZS5kb3dubG9hZJSMEERvd25sb2FkUHJvdmlkZXKUk5QpUpQu"
    ),
}
"""As a state keeps them. A line stays for ever: what has another name by now is also found by its old one."""


def path_of(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def leaves(kind: type[ResourceProvider]) -> Iterator[type[ResourceProvider]]:
    """The providers of this package that others do not build on."""
    below = [one for one in kind.__subclasses__() if one.__module__.startswith("stacks.")]
    if not below and kind.__module__.startswith("stacks."):
        yield kind
    for one in below:
        yield from leaves(one)


@pytest.mark.parametrize("name", PINNED)
def test_what_an_earlier_version_wrote_is_still_a_provider(name: str) -> None:
    provider = dill.loads(base64.b64decode(PINNED[name]))
    assert isinstance(provider, ResourceProvider)
    assert vars(provider) == {}, "nothing but its name"


def test_every_provider_is_pinned_as_it_is_written_now() -> None:
    for module in pkgutil.walk_packages(stacks.__path__, "stacks."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    now = {path_of(kind): base64.b64decode(serialize_provider(kind())) for kind in set(leaves(ResourceProvider))}
    without_protocol = {name: base64.b64decode(text)[2:] for name, text in PINNED.items()}
    assert {name: text[2:] for name, text in now.items()}.items() <= without_protocol.items()
