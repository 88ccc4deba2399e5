"""What is found of a recipe on one offer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from provisioners.contract import Finding, Offer
from recipes.spec import Recipe
from runners.case import Assessment, Case
from runners.preflight.judge import Judged, force, judge_offer, machine_of
from runners.preflight.question import Question
from runners.workload import Estimate
from tests.emulators.engines import MODEL, EngineByArithmetic
from tests.runners.preflight.questions import estimate, offer, question


def judged(found: Question, *, forced: tuple[str, ...] = (), **changes: Any) -> Judged:
    return judge_offer(found, offer(**changes), forced)


def by_code(one: Judged) -> dict[str, Finding]:
    return {finding.code: finding for finding in one.findings}


def test_more_parallelism_than_accelerators_is_a_block_that_says_what_works() -> None:
    found = by_code(judged(question(tensor_parallel_size=4), count=2))["parallelism"]
    assert found.level == "block"
    assert "tensor_parallel_size=2" in found.suggestion


def test_of_sizes_that_cannot_be_no_memory_is_told() -> None:
    for size, count in ((3, 3), (4, 2)):
        one = judged(question(tensor_parallel_size=size), count=count, id="NVIDIA A40", memory_gib=48)
        assert one.memory is None
        assert not {"weights", "kv-cache"} & by_code(one).keys()
    forced = judged(question(tensor_parallel_size=3), forced=("tensor-parallel",), count=3)
    assert forced.memory is not None


def test_accelerators_that_nobody_uses_are_paid_for_all_the_same() -> None:
    found = by_code(judged(question(tensor_parallel_size=2), count=4))["idle-accelerators"]
    assert (found.level, found.numbers) == ("warn", {"needed": 2, "available": 4})


@pytest.mark.parametrize(("longest", "level"), [(2048, "ok"), (2049, "block")])
def test_the_longest_request_must_fit_the_context(longest: int, level: str) -> None:
    asked = question(args={"context": 2048}, estimate=estimate(longest_request_tokens=longest))
    assert by_code(judged(asked))["context"].level == level


def test_the_suggested_chunk_size_fits() -> None:
    work = {"chunk_size": 2000, "chunk_overlap": 100, "max_tokens": 200}
    needs = estimate(longest_request_tokens=2300, tokens_around_chunk=300)
    asked = question(args={"context": 2048}, workload=work, estimate=needs)
    assert "workload.chunk_size=1748" in by_code(judged(asked))["context"].suggestion


def test_more_concurrency_than_the_cache_holds_is_a_warning() -> None:
    # 2 × 79.15 − 64 GiB at 1,000 tokens each hold 23 requests of 4,000.
    alike = estimate(longest_request_tokens=4000, prompt_tokens=8 * 4000, mean_request_tokens=4000)
    asked = question(workload={"concurrency": 30}, estimate=alike)
    found = by_code(judged(asked))["concurrency"]
    assert (found.level, found.numbers["max_running"]) == ("warn", 23)
    assert "concurrency" not in by_code(judged(question(workload={"concurrency": 23}, estimate=alike)))
    shorter = estimate(longest_request_tokens=4000, prompt_tokens=8 * 2000, mean_request_tokens=2000)
    assert "concurrency" not in by_code(judged(question(workload={"concurrency": 30}, estimate=shorter)))


@pytest.mark.parametrize(
    ("disk", "download_gb", "level"),
    [
        ("20GB", 137.9, "block"),
        ("200GB", 137.9, "ok"),
        ("147GB", 137.9, "warn"),
        ("145GB", 137.9, "block"),
        ("20GB", 5.0, "ok"),
    ],
)
def test_the_model_must_fit_the_disk(disk: str, download_gb: float, level: str) -> None:
    asked = question(resources={"disk_size": disk}, download_bytes=round(download_gb * 1e9))
    assert by_code(judged(asked))["disk"].level == level


def test_a_volume_takes_the_model_and_the_caches() -> None:
    volumes = [{"size": "200GB", "path": "/workspace"}]
    asked = question(resources={"disk_size": "20GB", "volumes": volumes}, download_bytes=137_900_000_000)
    found = by_code(judged(asked))
    assert found["volume"].level == "ok"
    assert "disk" not in found
    elsewhere = question(
        resources={"disk_size": "20GB", "volumes": volumes}, model={"path": "/root"}, download_bytes=137_900_000_000
    )
    assert by_code(judged(elsewhere))["disk"].level == "block"


def test_files_may_lie_on_a_machine_of_ones_own_already() -> None:
    asked = replace(question(download_bytes=137_900_000_000), billable=False)
    assert by_code(judged(asked, disk_gib=20.0))["disk"].level == "warn"


@pytest.mark.parametrize(("driver", "level"), [("13.0", "ok"), ("12.8", "ok"), ("12.4", "warn"), ("11.8", "block")])
def test_the_driver_must_know_the_engines_cuda(driver: str, level: str) -> None:
    assert by_code(judged(question(), cuda=driver))["cuda"].level == level


@pytest.mark.parametrize(("free_gib", "told"), [(None, False), (78.9, False), (40.0, True)])
def test_programs_that_are_there_already_are_told(free_gib: float | None, told: bool) -> None:
    assert ("busy" in by_code(judged(question(), free_gib=free_gib))) is told


def test_what_has_no_stock_is_told() -> None:
    assert by_code(judged(question(), stock="none"))["stock"].level == "warn"


def test_a_price_above_the_limit_is_a_block() -> None:
    asked = question(limits={"max_price": 2.5})
    assert by_code(judged(asked, price_usd_per_h=3.0))["price"].level == "block"


def test_a_forced_block_is_a_warning_that_says_so() -> None:
    asked = question(args={"context": 2048}, estimate=estimate(longest_request_tokens=4000))
    assert not judged(asked).passed
    one = judged(asked, forced=("context",))
    assert one.passed
    assert one.forecast is not None
    assert by_code(one)["context"].message.endswith("(forced)")


def test_only_the_named_check_is_forced() -> None:
    findings = [Finding(level="block", code=code, message=code) for code in ("a", "b")]
    assert [finding.level for finding in force(findings, ["a"])] == ["warn", "block"]


def test_a_machines_memory_is_the_one_that_its_driver_reports() -> None:
    rebuilt = machine_of(offer(accelerator="RTX4090", id="host", memory_gib=48, usable_gib=47.4)).accelerator
    assert rebuilt is not None
    assert 45 < rebuilt.usable_gib < 47.4
    listed = machine_of(offer(accelerator="T4", id="host", memory_gib=15, usable_gib=15.0)).accelerator
    assert listed is not None
    assert 14.5 < listed.usable_gib < 14.8, "nvidia-smi lists 15,360 MiB, of which programs get less"


def test_an_accelerator_that_nobody_knows_is_assumed_from_its_label_and_told() -> None:
    found = by_code(judged(question(), accelerator="X900", id="X900", memory_gib=96))
    assert found["assumption"].level == "warn"


def test_of_an_accelerator_without_known_memory_nothing_is_claimed() -> None:
    one = judged(question(), accelerator="X900", id="X900", memory_gib=None)
    assert one.memory is None
    assert "nobody says how much memory" in by_code(one)["assumption"].message


@pytest.mark.parametrize(("count", "refused"), [(1, True), (2, False)])
def test_the_stored_weights_are_the_least_where_the_engine_cannot_know(count: int, refused: bool) -> None:
    class Clueless(EngineByArithmetic):
        def assess(self, case: Case) -> Assessment:
            return Assessment()

    asked = replace(question(tensor_parallel_size=count), engine=Clueless())
    found = by_code(judged(asked, count=count, accelerator="A40 48GB", id="NVIDIA A40", memory_gib=48))
    assert ("weights" in found) is refused


def test_an_image_that_is_named_after_the_engine_brings_it() -> None:
    of_engine = question(
        resources={"disk_size": "20GB", "image": "maker/arithmetic-server:1"}, download_bytes=15 * 10**9
    )
    assert by_code(judged(of_engine))["disk"].level == "ok"
    of_others = question(resources={"disk_size": "20GB", "image": "maker/other:1"}, download_bytes=15 * 10**9)
    assert by_code(judged(of_others))["disk"].level == "block"


def test_an_endpoint_that_runs_elsewhere_is_not_judged() -> None:
    asked = replace(question(), model=None)
    assert judged(asked).memory is None


def test_a_change_keeps_what_else_the_recipe_says() -> None:
    asked = question(workload={"chunk_size": 3000, "chunk_overlap": 0}, estimate=estimate(longest_request_tokens=3500))
    changed = asked.changed(["workload.chunk_size=1000", "engine.args.context=512"])
    assert changed.recipe.workload.chunk_size == 1000
    assert changed.recipe.engine.args == {"context": 512}
    assert changed.estimate.longest_request_tokens <= 1000 + asked.estimate.tokens_around_chunk
    assert Recipe.model_validate(changed.recipe.resolved()) == changed.recipe


def test_the_double_is_an_engine() -> None:
    assert isinstance(estimate(), Estimate)
    assert EngineByArithmetic().default_version == "1.0"
    assert MODEL.weight_bytes == 2**36
    assert isinstance(offer(), Offer)


def test_a_model_that_is_surely_not_there_must_fit_a_disk_of_ones_own() -> None:
    asked = replace(question(download_bytes=137_900_000_000), billable=False, downloads=True)
    assert by_code(judged(asked, disk_gib=20.0))["disk"].level == "block"


@pytest.mark.parametrize(("ram_gib", "level"), [(60.0, "block"), (70.0, "warn"), (80.0, None)])
def test_on_the_cpu_the_weights_must_fit_the_ram_and_the_cache_should(ram_gib: float, level: str | None) -> None:
    class OnCpu(EngineByArithmetic):
        def assess(self, case: Case) -> Assessment:
            on_gpu = judge_offer(question(tensor_parallel_size=1), offer(count=1)).memory
            return Assessment(memory=on_gpu)

    asked = replace(question(tensor_parallel_size=1), engine=OnCpu())
    found = judge_offer(asked, Offer(provider="local", id="here", memory_gib=ram_gib, cpus=8))
    assert (by_code(found)["ram"].level if "ram" in by_code(found) else None) == level
