"""What a model cache costs, holds and bills, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import ceil
from typing import Any

from provisioners.phase_times import phase_times_of
from provisioners.storage_prices import storage_prices
from recipes.units import rough_size
from runners import registry
from runners.stack_volumes import held_in, noted
from runners.stacking.billing import Billing
from runners.stacking.cache_places import keeper_named
from runners.terminal.words import dollars, plural
from stacks.model_cache.values import Held, merged, named, resource_name, stack_in
from stacks.reference import USUAL, StackRef
from stacks.values import Changes

_HOUR_S = 3600.0


def costs(inputs: Mapping[str, Any], changes: Changes, outputs: Mapping[str, Any]) -> list[str]:
    """What the volume costs from then on, and what filling it asks for."""
    region = outputs.get("region") or inputs["asked_region"] or inputs["suggested_region"]
    now_gb = int(outputs.get("size_gb") or 0)
    size_gb = max(int(inputs["size_gb"]), now_gb)
    who = str(inputs["provisioner"])
    lines = [f"{_price(who, size_gb)} for {size_gb} GB in {region}, until it is destroyed ({_source(who)})"]
    if size_gb > now_gb:
        lines.append(_for_what(inputs))
    lines += inputs.get("says", ())
    if inputs["volume_name"] and not outputs:
        lines.append(f"{inputs['volume_name']} is gone on with, and paid for already: none is made besides it")
    if 0 < now_gb < size_gb:
        lines.append(f"it grows from {now_gb} GB, which cost {_price(who, now_gb)}; it can never be made smaller")
    return [*lines, *_filling(inputs, _fetched(inputs, changes, outputs), region)]


def _for_what(inputs: Mapping[str, Any]) -> str:
    """What the size is made of, and who brings it."""
    models = [one for one in inputs["models"] if not one.get("noted")]
    stored = sum(int(one["bytes"]) for one in inputs["models"])
    engines_gb = sum(inputs["engines"].values())
    size = f"for {rough_size(stored)} of models and {rough_size(engines_gb * 1e9)} of engines, with room"
    unfilled = any(not one["fill"] for one in models)
    return f"{size}; the first run that mounts it brings its model, --fill does it now" if unfilled else size


def _fetched(inputs: Mapping[str, Any], changes: Changes, outputs: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The models that this update downloads: not those that lie there, unless the volume itself is made anew."""
    volume = changes.of("Volume")
    lost = outputs.get("volume_id") if volume is not None and volume.op == "create" else None
    made = {step.name for step in changes.steps if step.type == "Model" and step.op in ("create", "replace")}
    asked = [one for one in inputs["models"] if one["fill"] and resource_name(one) in made]
    return [one for one in asked if not (one.get("noted") and one["noted"].get("volume_id") != lost)]


def _filling(inputs: Mapping[str, Any], models: Sequence[Mapping[str, Any]], region: str) -> Iterator[str]:
    """What the downloads take: machines with a price, for an assumed time, and never longer than their deadlines."""
    if not models:
        return
    stored = sum(int(one["bytes"]) for one in models)
    what = f"{plural(len(models), 'download')}, {rough_size(stored)}: by the cheapest machine in {region}, let go after"
    usd_per_h = inputs.get("filler_usd_per_h")
    if usd_per_h is None:
        yield f"{what}; nobody can say now what it costs"
        return
    times = phase_times_of(registry.provisioner(str(inputs["provisioner"])))
    likely_s = len(models) * times.provision_s.likely + stored / times.download_bytes_s[1]
    most_usd = usd_per_h * sum(float(one["lasts_s"]) for one in models) / _HOUR_S
    minutes = plural(max(1, ceil(likely_s / 60)), "minute")
    yield (
        f"{what}: ${usd_per_h:,.2f}/h for about {minutes}: {dollars(usd_per_h * likely_s / _HOUR_S)}; "
        f"at most {dollars(most_usd)}"
    )


def told(outputs: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The volume, its price, and what lies on it."""
    size_gb, usd = int(outputs["size_gb"]), outputs.get("usd_per_month")
    lines = [
        ("volume", f"{outputs['volume_id']} ({outputs['name']})"),
        ("size", f"{size_gb} GB in {outputs['region']}"),
    ]
    lines += [("price", f"${float(usd):,.2f}/month")] if usd is not None else []
    held = _held(outputs)
    lines += [("holds" if i == 0 else "", _line(one)) for i, one in enumerate(held)]
    if held:
        return lines
    ref = StackRef("model_cache", stack_in(str(outputs["name"])) or USUAL)
    return [*lines, ("holds", f"nothing yet: the first run fills it, or recipe stack up {ref} --fill")]


def known(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """The outputs, with what runs of this machine have brought since they were written."""
    return {**outputs, "holds": [held.data() for held in _held(outputs)]} if outputs.get("volume_id") else {**outputs}


def _held(outputs: Mapping[str, Any]) -> list[Held]:
    return merged(*held_in(outputs), *noted(registry.site(), str(outputs.get("volume_id"))))


def billing(outputs: Mapping[str, Any]) -> Billing | None:
    """The volume."""
    if not outputs.get("volume_id"):
        return None
    usd = outputs.get("usd_per_month")
    who = outputs.get("provisioner")
    at = f" at {keeper_named(str(who)).volumes_page}" if who else ""
    return Billing(
        what=_volume_with_price(outputs),
        id=str(outputs["volume_id"]),
        usd_per_month=float(usd) if usd is not None else None,
        way_out=f"volume {outputs['volume_id']} is deleted by hand{at}, with all that lies on it",
    )


def _volume_with_price(outputs: Mapping[str, Any]) -> str:
    size_gb = int(outputs.get("size_gb") or 0)
    usd = outputs.get("usd_per_month")
    price = f" for ${float(usd):,.2f}/month" if usd is not None else ""
    held = _held(outputs)
    names = ", ".join(named(one.data()) for one in held)
    size = rough_size(sum(one.bytes for one in held))
    holds = f", holds {plural(len(held), 'model')}, {size} ({names})" if held else ""
    return f"volume {outputs['volume_id']}, {size_gb} GB in {outputs.get('region')}{price}{holds}"


def _price(provisioner: str, size_gb: int) -> str:
    usd = keeper_named(provisioner).volume_usd_per_month(size_gb)
    return "at a price that nobody has said" if usd is None else f"${usd:,.2f}/month"


def _source(provisioner: str) -> str:
    price = storage_prices(provisioner).get("network")
    return f"prices of {price.seen_on}, assumed" if price else "assumed"


def _line(held: Held) -> str:
    when = f"{held.at:%Y-%m-%d %H:%M} UTC"
    return f"{named(held.data())} @ {held.commit[:7]}, {rough_size(held.bytes)}, since {when} ({held.by})"
