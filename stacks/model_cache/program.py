"""The stack's program: a unique name, the volume that bears it, and the models that are to lie on it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pulumi
from pulumi import Output, ResourceOptions

from stacks.model_cache.download import ModelDownload
from stacks.model_cache.values import Held, merged, resource_name, volume_name
from stacks.model_cache.volume import CacheVolume, VolumeName, VolumeNameProvider
from stacks.unique import UniqueName

_IS = ("repo", "commit", "files", "bytes", "place", "file")
_MODEL = (*_IS, "order", "secrets", "gated", "lasts_s", "max_price", "noted")


def run(inputs: Mapping[str, Any]) -> None:
    """The cache of `inputs`, as runners.stacking.model_cache makes them. No secret is read here, or kept.

    `volume_name` is that of a volume which is there already, and is gone on with. The name's resource keeps the inputs:
    an update that does not come to its end puts out nothing, and whoever goes on wants the same.
    """
    stack = str(inputs["stack"])
    unique = UniqueName("name", keepers={"stack": stack})
    made = Output.all(unique.stamp, unique.suffix).apply(lambda parts: volume_name(stack, *parts))
    taken_on = str(inputs.get("volume_name") or "")
    name = taken_on or made
    common = {"provisioner": inputs["provisioner"], "owner": inputs["owner"]}
    named = VolumeName(
        VolumeNameProvider(), "volume-name", unique_name=name, **common, asked=json.dumps(inputs, sort_keys=True)
    )
    volume = CacheVolume(
        "volume",
        unique_name=named.unique_name,
        taken_on=bool(taken_on),
        **common,
        size_gb=inputs["size_gb"],
        asked_region=inputs["asked_region"],
        suggested_region=inputs["suggested_region"],
    )
    fetched = [
        ModelDownload(
            resource_name(model),
            volume_id=volume.volume_id,
            opts=ResourceOptions(depends_on=[volume]),
            **common,
            **{key: model.get(key) for key in _MODEL},
        )
        for model in inputs["models"]
        if model["fill"]
    ]
    noted = [model["noted"] for model in inputs["models"] if model.get("noted")]
    holds = Output.all(volume.volume_id, *(one.held for one in fetched)).apply(lambda made: _holds(*made, noted=noted))
    pulumi.export("volume_id", volume.volume_id)
    pulumi.export("name", name)
    pulumi.export("provisioner", inputs["provisioner"])
    for output in ("size_gb", "region", "usd_per_month"):
        pulumi.export(output, getattr(volume, output))
    pulumi.export("holds", holds)


def _holds(volume_id: str, *fetched: Mapping[str, Any], noted: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What was downloaded for this volume, and what runs have brought onto it."""
    here = [Held.of(one) for one in noted if one["volume_id"] == volume_id]
    return [held.data() for held in merged(*(Held.of(one) for one in fetched if one), *here)]
