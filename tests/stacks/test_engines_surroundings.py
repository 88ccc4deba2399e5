"""Stacks where a backend, an environment or a colleague is not as one would like: over the engine double."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from provisioners.contract import Site
from provisioners.site import site_of
from recipes.errors import UsageError
from stacks import kept
from stacks.asking import ASKING
from stacks.automation import Managed, stacks
from stacks.backend import work_dir
from stacks.engine import Engine
from stacks.log import log_of
from stacks.reference import StackRef
from stacks.values import INPUTS, Secret, StackFailed
from tests.stacks.test_automation import PROJECT, opened, site
from tests.stacks.things import SECRET, program

__all__ = ["site"]
pytestmark = [
    pytest.mark.real,
    pytest.mark.filterwarnings("ignore:Error in event stream"),  # of the SDK, where an engine ends early
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # of its programs, then
]


async def up(site: Site, at: Path) -> None:
    await (await opened(site, program(at))).up()


def state_of(site: Site) -> dict[str, Any]:
    file = site.home / "pulumi" / "state" / ".pulumi" / "stacks" / PROJECT / "main.json"
    found: dict[str, Any] = json.loads(file.read_text())["checkpoint"]["latest"]
    return found


def test_what_a_user_has_set_for_other_projects_takes_no_checkpoint_away(site: Site, tmp_path: Path) -> None:
    """Else nobody would find by its name what an engine made before it died."""
    own = site_of({**site.env, "PULUMI_SKIP_CHECKPOINTS": "true", "ENGINE_DOUBLE_DIE": "after-create"})
    with pytest.raises(StackFailed, match="ended by signal 9"):
        asyncio.run(up(own, tmp_path))
    assert [one["type"] for one in state_of(site)["pending_operations"]] == ["creating"]


def test_a_passphrase_of_another_project_makes_no_stack_unreadable(site: Site, tmp_path: Path) -> None:
    elsewhere = site_of({**site.env, "PULUMI_CONFIG_PASSPHRASE": "of another project"})

    async def life() -> None:
        await up(elsewhere, tmp_path)
        managed = await Managed.open(site, PROJECT, "main", create=False)  # from a shell in which nothing is set
        assert await managed.outputs()
        await managed.destroy(patience_s=60)
        assert not await managed.outputs()

    asyncio.run(life())


def test_what_is_removed_leaves_nothing_of_its_own(site: Site, tmp_path: Path) -> None:
    own = site_of({name: value for name, value in site.env.items() if name != "PULUMI_HOME"} | {"HOME": str(tmp_path)})

    async def life() -> None:
        await up(own, tmp_path)
        assert len(await stacks(own)) == 1
        managed = await Managed.open(own, PROJECT, "main", create=False)
        await managed.destroy(patience_s=60)
        await managed.remove()

    asyncio.run(life())
    pulumi = own.home / "pulumi"
    left = [path.relative_to(pulumi) for path in pulumi.rglob("*") if path.is_file() and ASKING not in path.parts]
    assert {str(path).removesuffix(".attrs") for path in left} == {"passphrase", "state/.pulumi/meta.yaml"}
    assert not (tmp_path / ".pulumi").exists(), "nor in the home of whoever ran it"


def test_a_colleagues_first_update_goes_on_with_the_states_own_key(site: Site, tmp_path: Path) -> None:
    shared = {"PULUMI_BACKEND_URL": f"file://{tmp_path}", "PULUMI_CONFIG_PASSPHRASE": "one that we all know"}
    ours = site_of({**site.env, **shared})
    theirs = site_of({**ours.env, "RECIPE_HOME": str(tmp_path / "elsewhere")})

    def salt(of: Site) -> str:
        file = work_dir(of, PROJECT, "main") / "Pulumi.main.yaml"
        return str(yaml.safe_load(file.read_text())["encryptionsalt"])

    async def life() -> None:
        await up(ours, tmp_path)
        await up(theirs, tmp_path)

    asyncio.run(life())
    assert salt(theirs) == salt(ours)


def test_a_stack_that_a_colleague_has_made_anew_is_read_with_its_own_key(site: Site, tmp_path: Path) -> None:
    """What lies here of the one before it says nothing any more."""
    team = {"PULUMI_BACKEND_URL": f"file://{tmp_path}", "PULUMI_CONFIG_PASSPHRASE": "one that we all know"}
    ours = site_of({**site.env, **team})
    theirs = site_of({**ours.env, "RECIPE_HOME": str(tmp_path / "elsewhere")})
    anew = {"PULUMI_CONFIG_PASSPHRASE": "another one"}

    async def life() -> None:
        await up(ours, tmp_path)
        managed = await Managed.open(theirs, PROJECT, "main", create=False)
        await managed.destroy(patience_s=60)
        await managed.remove()
        await up(site_of({**theirs.env, **anew}), tmp_path)
        managed = await Managed.open(site_of({**ours.env, **anew}), PROJECT, "main", create=False)
        assert (await managed.outputs())["token"] == Secret(SECRET)
        await managed.destroy(patience_s=60)

    asyncio.run(life())


def test_a_stack_of_this_name_in_another_backend_is_another_stack(site: Site, tmp_path: Path) -> None:
    """Whoever tries alone first, then joins a team: both stacks bear the name that all have who name none."""
    team = {"PULUMI_BACKEND_URL": f"file://{tmp_path}", "PULUMI_CONFIG_PASSPHRASE": "one that we all know"}
    ours = site_of({**site.env, **team})
    theirs = site_of({**ours.env, "RECIPE_HOME": str(tmp_path / "elsewhere")})
    ref = StackRef("gpu_pod")

    async def life() -> None:
        kept.keep(site, ref, {"text": "mine"})
        await up(site, tmp_path)
        await up(theirs, tmp_path)
        managed = await Managed.open(ours, PROJECT, "main", create=False)
        assert (await managed.outputs())["text"] == "a"
        kept.keep(ours, ref, {"text": "of the team"})
        await managed.destroy(patience_s=60)
        await managed.remove()
        kept.forget(ours, ref)
        own = await Managed.open(site, PROJECT, "main", create=False)
        assert (await own.outputs())["text"] == "a"

    asyncio.run(life())
    last = kept.kept(site, ref)
    assert last is not None
    assert last.values == {"text": "mine"}, "what was seen of one is not forgotten with the other"
    assert kept.kept(ours, ref) is None


def test_an_old_backend_whose_stacks_have_no_projects_is_refused(site: Site, tmp_path: Path) -> None:
    """There `main` of one program is `main` of the other: an update of a pod would delete a volume."""
    asyncio.run(up(site, tmp_path))
    store = tmp_path / "old" / ".pulumi" / "stacks"
    store.mkdir(parents=True)
    old = store / "main.json"
    (site.home / "pulumi/state/.pulumi/stacks" / PROJECT / "main.json").rename(old)
    before = old.read_text()
    shared = {"PULUMI_BACKEND_URL": f"file://{tmp_path}/old", "PULUMI_CONFIG_PASSPHRASE": "x"}
    team = site_of({**site.env, **shared})
    with pytest.raises(UsageError, match="where stacks have no projects") as refused:
        asyncio.run(Managed.open(team, "recipe-model-cache", "main", create=True))
    assert "pulumi state upgrade" in refused.value.advice
    with pytest.raises(UsageError, match="where stacks have no projects"):
        asyncio.run(kept.outputs_of(team, StackRef("model_cache")))
    assert old.read_text() == before


def test_an_update_asks_once_what_it_put_out(site: Site, tmp_path: Path) -> None:
    """Each question is a process of the engine, which derives its key anew."""
    asyncio.run(up(site, tmp_path))
    log = log_of(site, PROJECT, "main").read_text()
    assert log.count("pulumi stack output") == 2, "the SDK's own: with secrets, and without"
    assert SECRET not in log


def test_one_question_tells_what_was_put_out_and_what_with(site: Site, tmp_path: Path) -> None:
    ref = StackRef("gpu_pod")

    def run() -> None:
        import pulumi

        pulumi.export("text", "a")
        pulumi.export(INPUTS, pulumi.Output.secret(json.dumps({"gpu": "A40"})))

    async def life() -> None:
        assert await kept.known_of(site, ref) == ({}, None)
        managed = await opened(site, run)
        await managed.up()
        assert await kept.known_of(site, ref) == ({"text": "a"}, {"gpu": "A40"})
        assert (await kept.outputs_of(site, ref)).values == {"text": "a"}
        kept.keep(site, ref, {}, {"gpu": "A40"})
        await managed.destroy(patience_s=60)
        assert await kept.known_of(site, ref) == ({}, {"gpu": "A40"}), "as last seen here"

    asyncio.run(life())


def test_an_engine_that_is_a_link_finds_what_lies_beside_it(tmp_path: Path) -> None:
    """What belongs to another installation on PATH is not taken."""
    from stacks.sdk import Command

    for folder, said in (("own", "command -v beside"), ("other", "")):
        (tmp_path / folder).mkdir()
        for name in ("pulumi", "beside"):
            (tmp_path / folder / name).write_text(f"#!/bin/sh\n{said}\n")
            (tmp_path / folder / name).chmod(0o755)
    (tmp_path / "links").mkdir()
    link = tmp_path / "links" / "pulumi"
    link.symlink_to(tmp_path / "own" / "pulumi")
    path = os.pathsep.join([str(tmp_path / "other"), "/usr/bin", "/bin"])
    command = Command(Engine(link, "3.272.0"), {"PATH": path}, lambda line: None)
    assert command.run(["about"], str(tmp_path), {}).stdout == str(tmp_path / "own" / "beside")
