"""From a recipe's resources and RunPod's catalogue to offers, in the order in which they are tried. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from provisioners.contract import Offer
from provisioners.providers.runpod.matching import full_name, matching
from provisioners.providers.runpod.storage import DISK_GB, disk_gb, price_of
from provisioners.providers.runpod.values import CLOUDS, CloudName, Gpu
from recipes.errors import NoMachine
from recipes.explain import did_you_mean
from recipes.spec import Fallback, Resources
from recipes.units import GIB, Accelerators

_DATA_CENTER = re.compile(r"[A-Za-z]+(-[A-Za-z]+)+-\d+")
_STOCK = {"high": 0, "medium": 1, "low": 2, "none": 3}


@dataclass(frozen=True)
class Entry:
    """One way to get the hardware as the recipe puts it, with all that it leaves out filled in."""

    accelerators: Accelerators
    clouds: tuple[CloudName, ...]
    regions: tuple[str, ...]
    spot: bool
    disk_gib: float | None = None
    """Of the container."""
    storage_usd_per_h: float = 0.0
    storage_basis: str = ""

    def allows(self, place: str) -> bool:
        """Whether the recipe may use this data centre."""
        return not self.regions or any(_lies_in(place, region) for region in self.regions)


@dataclass(frozen=True)
class Question:
    """What the catalogue is asked: prices and stock differ by each of these."""

    count: int
    cloud: CloudName
    spot: bool


Catalogues = Mapping[Question, Sequence[Gpu]]


def entries_of(resources: Resources, *, only_region: str | None = None) -> list[Entry]:
    """The recipe's own entry, then its fallbacks in order. `only_region` is where a network volume binds them to.

    Raises NoMachine if none is left, or if one asks for what RunPod does not have.
    """
    if resources.accelerators is None:
        raise NoMachine(
            "recipe rents GPU pods of RunPod, and resources.accelerators names no GPU",
            advice="write accelerators: A40:1; for a CPU use provisioner: local or ssh",
        )
    entries = [_entry(resources, fallback) for fallback in (Fallback(), *resources.any_of)]
    if any(entry.spot for entry in entries) and resources.api != "graphql":
        raise NoMachine(
            "RunPod's REST API has no spot machines",
            advice="write api: graphql (experimental), or leave use_spot out",
        )
    if only_region is None:
        return entries
    there = [entry for entry in entries if entry.allows(only_region)]
    if not there:
        raise NoMachine(
            f"the network volume lies in {only_region}, which is not among resources.regions",
            advice=f"write regions: [{only_region}], or leave regions out",
        )
    return with_network_volume(replace(entry, regions=(only_region,)) for entry in there)


def with_network_volume(entries: Iterable[Entry]) -> list[Entry]:
    """The same for pods that mount a network volume: RunPod has them in its secure cloud alone. Raises NoMachine."""
    found = [replace(entry, clouds=("secure",)) for entry in entries if "secure" in entry.clouds]
    if not found:
        raise NoMachine(
            "resources.cloud: RunPod mounts network volumes in its secure cloud alone",
            advice="write cloud: secure, or leave cloud out",
        )
    return found


def questions_of(entries: Iterable[Entry]) -> list[Question]:
    """What has to be asked of the catalogue for these entries, each once."""
    asked = (Question(entry.accelerators.count, cloud, entry.spot) for entry in entries for cloud in entry.clouds)
    return list(dict.fromkeys(asked))


def offers_of(entries: Sequence[Entry], catalogues: Catalogues, provider: str) -> list[Offer]:
    """Entry by entry; within one the cheapest first, and what has no stock last.

    It is tried all the same, because the catalogue reserves nothing. Raises NoMachine if nothing is offered at all.
    """
    found = [offer for entry in entries for offer in _offers_of(entry, catalogues, provider)]
    if found:
        return list(dict.fromkeys(found))
    raise _nothing(entries, catalogues)


USUAL_COUNTS = (1, 2, 4, 8)


def offers_by_place(entries: Sequence[Entry], catalogues: Catalogues, provider: str) -> list[Offer]:
    """The same in every data centre that has any, and that the recipe does not exclude; none at all is no error."""
    return [
        replace(offer, region=place, stock=stock)
        for entry in entries
        for question in (Question(entry.accelerators.count, cloud, entry.spot) for cloud in entry.clouds)
        for gpu in matching(entry.accelerators.name, catalogues[question])
        for place, stock in gpu.stock_by_data_center.items()
        if entry.allows(place)
        for offer in _offers_of(replace(entry, clouds=(question.cloud,), regions=()), {question: [gpu]}, provider)
    ]


def offers_with_one(gpus: Sequence[Gpu], region: str, provider: str) -> list[Offer]:
    """Every kind of GPU that a pod with one of them can have in this data centre and the secure cloud, if in stock."""
    question, storage = Question(1, "secure", spot=False), price_of(Resources(provisioner=provider))
    found = [
        offer
        for gpu in gpus
        for offer in _offers_of(
            Entry(Accelerators(gpu.id, 1), ("secure",), (region,), False, DISK_GB * 10**9 / GIB, *storage),
            {question: gpus},
            provider,
        )
    ]
    return sorted((offer for offer in found if offer.stock != "none"), key=_order)


def catalogue_questions(cloud: str | None) -> list[Question]:
    """What has to be asked for the whole catalogue, in the usual counts."""
    clouds = [known for known in CLOUDS if cloud in (None, known)]
    return [Question(count, known, spot=False) for count in USUAL_COUNTS for known in clouds]


def catalogue_of(catalogues: Catalogues, accelerator: str | None, provider: str) -> list[Offer]:
    """Every kind of GPU in each count that a pod can have, the cheapest first."""
    found = [
        offer
        for question, gpus in catalogues.items()
        for gpu in (matching(accelerator, gpus) if accelerator else gpus)
        for offer in _offers_of(
            Entry(Accelerators(gpu.id, question.count), (question.cloud,), (), question.spot), catalogues, provider
        )
    ]
    return sorted(found, key=_order)


def _entry(resources: Resources, fallback: Fallback) -> Entry:
    cloud = fallback.cloud or resources.cloud
    accelerators = fallback.accelerators or resources.accelerators
    assert accelerators is not None
    spot = resources.use_spot if fallback.use_spot is None else fallback.use_spot
    disk_gib = disk_gb(resources) * 10**9 / GIB
    regions = fallback.regions or resources.regions
    return Entry(accelerators, (cloud,) if cloud else CLOUDS, regions, spot, disk_gib, *price_of(resources))


def _offers_of(entry: Entry, catalogues: Catalogues, provider: str) -> list[Offer]:
    count = entry.accelerators.count
    found = []
    for cloud in entry.clouds:
        gpus = matching(entry.accelerators.name, catalogues[Question(count, cloud, entry.spot)])
        found += [
            Offer(
                provider=provider,
                id=gpu.id,
                accelerator=full_name(gpu),
                count=count,
                memory_gib=gpu.memory_gb,
                price_usd_per_h=None if gpu.price_usd_per_h is None else round(gpu.price_usd_per_h * count, 6),
                region=region,
                stock=stock,
                cloud=cloud,
                spot=entry.spot,
                disk_gib=entry.disk_gib,
                storage_usd_per_h=entry.storage_usd_per_h,
                storage_basis=entry.storage_basis,
            )
            for gpu in gpus
            if gpu.most is None or count <= gpu.most
            for region, stock in _places(gpu, entry.regions)
        ]
    return sorted(found, key=_order)


def _places(gpu: Gpu, regions: Sequence[str]) -> list[tuple[str | None, str | None]]:
    """Data centres with their stock; without a wish RunPod chooses."""
    if not regions:
        return [(None, gpu.stock)]
    known = [(place, stock) for place, stock in gpu.stock_by_data_center.items() for r in regions if _lies_in(place, r)]
    asked = [r for r in regions if _DATA_CENTER.fullmatch(r)]
    unlisted = [(r, "none") for r in asked if not any(_lies_in(place, r) for place, _ in known)]
    return list(dict.fromkeys([*known, *unlisted]))


def _lies_in(data_center: str, region: str) -> bool:
    """Whether a data centre is the one that is asked for, or in that part of the world: US-KS-2 lies in US."""
    here, wanted = data_center.upper(), region.upper()
    return here == wanted or here.startswith(f"{wanted}-")


def _order(offer: Offer) -> tuple[bool, float, int, bool]:
    price = float("inf") if offer.price_usd_per_h is None else offer.price_usd_per_h
    stock = _STOCK.get(offer.stock or "", 1)
    return offer.stock == "none", price, stock, offer.cloud != "secure"


def _nothing(entries: Sequence[Entry], catalogues: Catalogues) -> NoMachine:
    """Why nothing is offered: no such GPU, none with so many in one pod, or none there."""
    for entry in entries:
        name, count = entry.accelerators.name, entry.accelerators.count
        asked = [catalogues[Question(count, cloud, entry.spot)] for cloud in entry.clouds]
        found = [gpu for catalogue in asked for gpu in matching(name, catalogue)]
        most = max((count if gpu.most is None else gpu.most for gpu in found), default=0)
        if found and most < count:
            return NoMachine(
                f"RunPod has no pod with {count} × {name}; at most {most}",
                advice=f"write accelerators: {name}:{most}",
            )
        if found:
            there = sorted({place for gpu in found for place in gpu.stock_by_data_center})
            return NoMachine(
                f"RunPod has no {name} in {', '.join(entry.regions)}",
                advice=f"it has some in {', '.join(there)}" if there else "leave regions out",
            )
    names = " and no ".join(dict.fromkeys(entry.accelerators.name for entry in entries))
    known = {known for catalogue in catalogues.values() for gpu in catalogue for known in (gpu.name, gpu.id)}
    near = did_you_mean(entries[0].accelerators.name, known)
    return NoMachine(f"RunPod offers no {names}{_where(entries)}", advice=near or "recipe offers lists what there is")


def _where(entries: Sequence[Entry]) -> str:
    clouds = {cloud for entry in entries for cloud in entry.clouds}
    return f" in its {next(iter(clouds))} cloud" if len(clouds) == 1 else ""
