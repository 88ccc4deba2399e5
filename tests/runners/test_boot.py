"""What a machine is told to do from its first second on: pure data, the same with placeholders and with real places."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from provisioners.contract import Boot, Clearance, Lease, Offer, Order
from provisioners.naming import owner_name, read_name
from recipes.errors import NoCapacity, NoMachine
from recipes.spec import Recipe
from runners import environments
from runners.boot import AT_BOOT, FETCH, INSTALL, Places, boot_of
from runners.clock import Clock
from runners.engine import Engine, Installation, Step
from runners.engines.llamacpp import LlamaCpp
from runners.engines.openai import OpenAIEndpoint
from runners.engines.vllm import Vllm
from runners.environments import ONHOST
from runners.launch import EXPOSED_PORT
from runners.ledger import Ledger
from runners.modelfacts.facts import File
from runners.models import HubModel, ModelSource
from runners.plan import Plan
from runners.run_folder import RunFolder
from runners.session import Session
from tests.emulators.provisioner import TOKENIZER, HostDouble, ProvisionerDouble, plan_of

HUB = HubModel("owner/model", "c0ffee" * 6 + "c0ff", (File("config.json", 12), File("a.safetensors", 1 << 30)))
FILLED = {"{python}": "/usr/bin/python3.11", "{work}": "/tmp/state/work", "{cache}": "/workspace/.recipe-cache"}
REAL = Places(
    python=FILLED["{python}"],
    work=FILLED["{work}"],
    cache=FILLED["{cache}"],
    place=lambda path: f"/mounted{path}",
    own_engines=True,
)
Planned = Callable[..., Plan]


@pytest.fixture
def planned(tmp_path: Path) -> Planned:
    """Makes a plan for an engine and, if given, a model of the Hub."""

    def make(engine: Engine, hub: HubModel | None = None, /, **sections: Mapping[str, Any]) -> Plan:
        plan = plan_of(ProvisionerDouble(), tmp_path, "http://127.0.0.1:9/v1")
        data = plan.recipe.model_dump(mode="json", exclude_none=True)
        data |= {"engine": {"name": engine.name}, "model": {"repo": "owner/model"}, **sections}
        if engine.name == "openai":
            data["engine"] = {"name": "openai", "url": "http://127.0.0.1:9/v1"}
        recipe = Recipe.model_validate(data)
        source = ModelSource("owner/model", TOKENIZER, hub=hub)
        return replace(plan, loaded=replace(plan.loaded, recipe=recipe), engine=engine, model=source)

    return make


def filled(boot: Boot) -> Boot:
    """The boot with its placeholders replaced, as a machine does it."""

    def fill(text: str) -> str:
        for word, value in FILLED.items():
            text = text.replace(word, value)
        return re.sub(r"\{place:([^}]*)\}", r"/mounted\1", text)

    files = {name: fill(text) if name.endswith(".json") else text for name, text in boot.files.items()}
    return replace(boot, files=files, jobs=tuple(replace(j, argv=tuple(map(fill, j.argv))) for j in boot.jobs))


def request(boot: Boot, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(boot.files[name])
    return found


CASES = {
    "llamacpp": (LlamaCpp(), None, {}),
    "llamacpp of the Hub": (LlamaCpp(), HUB, {}),
    "vllm on a volume": (Vllm(), HUB, {"model": {"repo": "owner/model", "path": "/workspace"}}),
    "vllm on a GPU": (Vllm(), HUB, {"resources": {"provisioner": "local", "accelerators": "A40:1"}}),
    "an endpoint": (OpenAIEndpoint(), None, {}),
}
each_case = pytest.mark.parametrize(("engine", "hub", "sections"), CASES.values(), ids=CASES)


@each_case
def test_placeholders_filled_in_give_what_the_real_places_give(
    planned: Planned, engine: Engine, hub: HubModel | None, sections: dict[str, Any]
) -> None:
    plan = planned(engine, hub, **sections)
    assert filled(boot_of(plan, AT_BOOT, {})) == boot_of(plan, REAL, {})


@each_case
def test_nothing_of_this_machine_is_in_a_boot(
    planned: Planned, tmp_path: Path, engine: Engine, hub: HubModel | None, sections: dict[str, Any]
) -> None:
    boot = boot_of(planned(engine, hub, **sections), AT_BOOT, {})
    written = json.dumps([dict(boot.files), [job.argv for job in boot.jobs]])
    for own in (sys.prefix, sys.executable, str(tmp_path), str(ONHOST)):
        assert own not in written


@each_case
def test_every_job_finds_its_script_and_its_request(
    planned: Planned, engine: Engine, hub: HubModel | None, sections: dict[str, Any]
) -> None:
    boot = boot_of(planned(engine, hub, **sections), AT_BOOT, {})
    for job in boot.jobs:
        named = [part.removeprefix("{work}/") for part in job.argv if part.startswith("{work}/")]
        assert len(named) == 2
        assert set(named) <= set(boot.files)
    for name, text in boot.files.items():
        if name.startswith("onhost/"):
            assert text == (ONHOST / name.removeprefix("onhost/")).read_text(encoding="utf-8")


@each_case
def test_what_an_installation_names_is_given_to_the_machine(
    planned: Planned, engine: Engine, hub: HubModel | None, sections: dict[str, Any]
) -> None:
    boot = boot_of(planned(engine, hub, **sections), REAL, {})
    if "install.json" not in boot.files:
        return
    for step in request(boot, "install.json")["steps"]:
        for part in step["argv"]:
            assert "{onhost}" not in part
            if part.startswith(f"{REAL.onhost}/"):
                assert part.removeprefix(f"{REAL.work}/") in boot.files


def test_an_engine_that_runs_elsewhere_needs_no_job(planned: Planned) -> None:
    boot = boot_of(planned(OpenAIEndpoint()), AT_BOOT, {})
    assert boot.jobs == ()
    assert not any(name.endswith(".json") for name in boot.files)


def test_installation_and_download_are_jobs_of_their_own(planned: Planned) -> None:
    """So that they go on at the same time."""
    assert [job.name for job in boot_of(planned(LlamaCpp(), HUB), AT_BOOT, {}).jobs] == [INSTALL, FETCH]
    assert [job.name for job in boot_of(planned(LlamaCpp()), AT_BOOT, {}).jobs] == [INSTALL]


def test_the_download_is_pinned_to_the_commit_and_the_files_of_the_plan(planned: Planned) -> None:
    asked = request(boot_of(planned(Vllm(), HUB), AT_BOOT, {}), "fetch.json")
    assert (asked["repo"], asked["revision"]) == ("owner/model", HUB.commit)
    assert asked["files"] == [{"name": "config.json", "bytes": 12}, {"name": "a.safetensors", "bytes": 1 << 30}]


def test_a_model_is_kept_where_the_recipe_says_else_in_the_machines_cache(planned: Planned) -> None:
    """On a machine that is not ours to change, else where its own library keeps it."""
    on_volume = planned(Vllm(), HUB, model={"repo": "owner/model", "path": "/workspace"})
    assert request(boot_of(on_volume, AT_BOOT, {}), "fetch.json")["hf_home"] == "{place:/workspace}"
    assert request(boot_of(on_volume, REAL, {}), "fetch.json")["hf_home"] == "/mounted/workspace"
    anywhere = planned(Vllm(), HUB)
    assert request(boot_of(anywhere, AT_BOOT, {}), "fetch.json")["hf_home"] == "{cache}/huggingface"
    here = Places.of(HostDouble(ProvisionerDouble()))
    assert request(boot_of(anywhere, here, {}), "fetch.json")["hf_home"] is None


def test_an_engine_of_the_image_is_used_by_rented_machines_only(planned: Planned) -> None:
    plan = planned(Vllm(), None)
    assert "present" in request(boot_of(plan, AT_BOOT, {}), "install.json")
    here = Places.of(HostDouble(ProvisionerDouble()))
    assert "present" not in request(boot_of(plan, here, {}), "install.json")


class Known(LlamaCpp):
    """An engine that an image may bring along: pytest, because that is here."""

    def __init__(self, release: str) -> None:
        self.release = release

    def installation(self, version: str, *, accelerated: bool) -> Installation:
        return Installation((Step(("true",)),), ("true",), package=("pytest", self.release))


@pytest.mark.parametrize(("release", "status"), [(pytest.__version__, 0), ("0.0.1", 1)])
def test_an_engine_of_the_image_counts_only_in_its_release(planned: Planned, release: str, status: int) -> None:
    boot = boot_of(planned(Known(release)), replace(REAL, python=sys.executable), {})
    argv = request(boot, "install.json")["present"]
    assert subprocess.run(argv, capture_output=True).returncode == status


def test_a_package_that_is_not_there_does_not_count(planned: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Known, "installation", lambda *_, **__: Installation((), ("true",), package=("no-such", "1")))
    boot = boot_of(planned(Known("1")), replace(REAL, python=sys.executable), {})
    assert subprocess.run(request(boot, "install.json")["present"], capture_output=True).returncode != 0


def test_the_environments_name_changes_with_what_is_installed(
    planned: Planned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = {"resources": {"provisioner": "local", "accelerators": "A40:1"}}
    names = {
        planned(LlamaCpp()).environment,
        planned(LlamaCpp(), engine={"name": "llamacpp", "version": "0.2.0"}).environment,
        planned(Vllm()).environment,
        planned(Vllm(), **gpu).environment,
    }
    assert len(names) == 4
    assert planned(Vllm()).environment in names
    assert planned(Vllm(), HUB).environment in names, "the model does not matter"
    assert all(name.endswith("-{python_tag}") for name in names)
    before = planned(Vllm()).environment
    for path in ONHOST.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "vllm_cpu_overrides.txt").write_text("torch==0\n")
    monkeypatch.setattr(environments, "ONHOST", tmp_path)
    assert planned(Vllm()).environment != before, "what a file says that a step reads"


def test_the_environment_is_no_part_of_what_is_written_or_shown(planned: Planned) -> None:
    boot = boot_of(planned(Vllm(), HUB), AT_BOOT, {"HF_TOKEN": "hf_a_secret"})
    assert boot.env == {"HF_TOKEN": "hf_a_secret"}
    assert "hf_a_secret" not in json.dumps([dict(boot.files), [job.argv for job in boot.jobs]]) + repr(boot)


def test_the_scripts_of_a_boot_are_small_enough_to_travel_with_a_create_call(planned: Planned) -> None:
    boot = boot_of(planned(Vllm(), HUB), AT_BOOT, {})
    assert sum(len(text.encode()) for text in boot.files.values()) < 40_000


SECRETS = {"HF_TOKEN": "hf_a_secret", "OTHER_KEY": "another_secret", "UNNAMED": "not asked for"}


def ordered(plan: Plan, tmp_path: Path) -> list[Order]:
    """What the session of this plan asks its provisioner for; then the machine is not to be had."""
    double = plan.provisioner
    assert isinstance(double, ProvisionerDouble)
    double.trouble["create"] = NoMachine("sold out")
    home = tmp_path / "home"
    folder, ledger = RunFolder.create(home, "test"), Ledger(home)
    asyncio.run(Session(plan, folder, Clock(), ledger, SECRETS).run())
    return double.orders


def order_of(plan: Plan, tmp_path: Path) -> Order:
    (order,) = ordered(plan, tmp_path)
    return order


def test_of_the_secrets_only_the_hubs_goes_to_a_boot_that_downloads(planned: Planned, tmp_path: Path) -> None:
    secrets = {"secrets": ["HF_TOKEN", "OTHER_KEY"], "env": {"PLAIN": "1"}}
    order = order_of(planned(Vllm(), HUB, **secrets), tmp_path)
    assert order.boot.env == {"HF_TOKEN": "hf_a_secret", "PLAIN": "1"}
    assert "secret" not in repr(order)
    assert "secret" not in json.dumps([dict(order.boot.files), [job.argv for job in order.boot.jobs]])


def test_a_boot_that_downloads_nothing_is_given_no_secret(planned: Planned, tmp_path: Path) -> None:
    secrets = {"secrets": ["HF_TOKEN", "OTHER_KEY"], "env": {"PLAIN": "1"}}
    assert order_of(planned(LlamaCpp(), **secrets), tmp_path).boot.env == {"PLAIN": "1"}


def test_a_token_that_the_recipe_does_not_name_stays_here(planned: Planned, tmp_path: Path) -> None:
    assert order_of(planned(Vllm(), HUB), tmp_path).boot.env == {}


def test_the_boot_is_told_of_a_hub_that_is_not_the_usual_one(
    planned: Planned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SECRETS, "HF_ENDPOINT", "http://hub.example")
    assert order_of(planned(Vllm(), HUB), tmp_path).boot.env == {"HF_ENDPOINT": "http://hub.example"}


def test_an_order_carries_the_limits(planned: Planned, tmp_path: Path) -> None:
    order = order_of(planned(LlamaCpp(), limits={"max_price": 2.5, "idle_duration": "5m"}), tmp_path)
    assert (order.max_price_usd_per_h, order.idle_s) == (2.5, 300.0)


def test_without_limits_an_order_carries_none_but_a_day(planned: Planned, tmp_path: Path) -> None:
    order = order_of(planned(LlamaCpp()), tmp_path)
    assert (order.max_price_usd_per_h, order.idle_s, order.ports) == (None, None, ())
    assert order.lease.deadline is not None
    left_h = (order.lease.deadline - datetime.now(UTC)).total_seconds() / 3600
    assert 23.9 < left_h <= 24


def test_a_port_is_opened_only_if_the_recipe_asks_for_it(planned: Planned, tmp_path: Path) -> None:
    plan = planned(LlamaCpp(), engine={"name": "llamacpp", "expose": True})
    assert order_of(plan, tmp_path).ports == (EXPOSED_PORT,)
    launch = plan.launch(python="p", onhost=Path("o"), model_path="m", port="8000", key="k")
    assert launch is not None
    assert "0.0.0.0" in launch.argv
    closed = planned(LlamaCpp()).launch(python="p", onhost=Path("o"), model_path="m", port="8000", key="k")
    assert closed is not None
    assert "0.0.0.0" not in closed.argv
    assert "127.0.0.1" in closed.argv


def test_a_rented_machines_name_tells_owner_run_and_deadline(planned: Planned, tmp_path: Path) -> None:
    order = order_of(planned(LlamaCpp(), limits={"max_duration": "30m"}), tmp_path)
    said = read_name(order.lease.name)
    assert said is not None
    assert (said.owner, said.run) == (owner_name(SECRETS), order.lease.run_id)
    assert order.lease.deadline is not None
    assert 0 <= (said.deadline - order.lease.deadline).total_seconds() < 120


def test_each_offer_is_asked_for_with_a_deadline_of_its_own_price(planned: Planned, tmp_path: Path) -> None:
    plan = planned(LlamaCpp(), limits={"max_cost": 2})
    offers = tuple(Offer(provider="double", id=f"at-{usd}", price_usd_per_h=usd) for usd in (1.0, 4.0))
    refusing = replace(plan, offers=offers, provisioner=Refusing())
    orders = ordered(refusing, tmp_path)
    assert [order.offer.id for order in orders] == ["at-1.0", "at-4.0"]
    hours = [
        (order.lease.deadline - datetime.now(UTC)).total_seconds() / 3600 for order in orders if order.lease.deadline
    ]
    assert hours == pytest.approx([2.0, 0.5], abs=0.01)


class Refusing(ProvisionerDouble):
    """Has no capacity, whatever is asked for."""

    async def create(self, order: Order, clearance: Clearance) -> Lease:
        self.orders.append(order)
        raise NoCapacity("sold out")
