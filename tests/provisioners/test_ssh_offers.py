"""Which of a recipe's hosts will do, in which order, and what is said of the others."""

from __future__ import annotations

import asyncio
import getpass
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from provisioners.onhost import visit
from provisioners.providers.ssh.contact import full_address
from provisioners.providers.ssh.offers import holder, judge, none_left, offers_of
from provisioners.providers.ssh.places import places_of
from provisioners.shell.target import HostKeyChanged
from recipes.errors import NoMachine, UsageError
from recipes.spec import Resources
from recipes.units import GIB
from tests.emulators.sshd import free_port
from tests.provisioners.ssh_hosts import Machine, client, machine

HOST: dict[str, Any] = {
    "now": 0,
    "venv": True,
    "cpus": 8,
    "memory_bytes": 64 * GIB,
    "disk_free_bytes": 100 * GIB,
    "gpus": [{"name": "NVIDIA A40", "memory_mib": 46068}] * 2,
    "taken": None,
}


def resources(**given: Any) -> Resources:
    return Resources.model_validate({"provisioner": "ssh", "hosts": ["gpu1"], **given})


def test_the_free_ones_come_first_and_what_is_wanted_most_before_what_will_do() -> None:
    asked = resources(accelerators="H100:1", any_of=[{"accelerators": "A40:2"}])
    h100 = {**HOST, "gpus": [{"name": "NVIDIA H100 80GB HBM3", "memory_mib": 81559}]}
    taken = {**h100, "taken": {"lease": "other"}}
    seen = [judge(name, said, asked) for name, said in (("a", taken), ("b", HOST), ("c", h100), ("d", h100))]
    found = offers_of(seen, "ssh", 1.2)
    assert [offer.id for offer in found] == ["c", "d", "b", "a"]
    assert [(offer.accelerator, offer.count) for offer in found] == [("H100", 1), ("H100", 1), ("A40", 2), ("H100", 1)]
    assert [offer.stock for offer in found] == ["free", "free", "free", "taken"]
    assert found[0].price_usd_per_h == 1.2


def test_without_accelerators_a_host_is_a_cpu() -> None:
    (found,) = offers_of([judge("a", HOST, resources())], "ssh", None)
    assert (found.accelerator, found.count, found.memory_gib, found.cpus) == (None, 0, 64.0, 8)


@pytest.mark.parametrize(
    ("asked", "said", "words"),
    [
        ({"accelerators": "A100:1"}, {}, "has no A100:1; accelerators found: NVIDIA A40, NVIDIA A40"),
        ({"cpus": 16}, {}, "asks for 16"),
        ({"memory": "128GB"}, {}, "asks for 128GB"),
        ({"disk_size": "1TB"}, {}, "asks for 1TB"),
        ({}, {"venv": False}, "cannot make environments"),
    ],
)
def test_what_a_host_lacks_is_said(asked: dict[str, Any], said: dict[str, Any], words: str) -> None:
    with pytest.raises(NoMachine, match=words):
        judge("a", {**HOST, **said}, resources(**asked))


def test_of_several_hosts_each_has_its_reason() -> None:
    refusals = [("a", NoMachine("no answer")), ("b", NoMachine("too small", advice="a larger one"))]
    error = none_left(refusals)
    assert error.message == "none of 2 hosts can be used:\n  a: no answer\n  b: too small"
    assert error.advice == "a larger one"


def test_who_has_a_host_is_told_by_the_run_s_name() -> None:
    taken = {"lease": "recipe-ben-books-20261121-051200-9f3a-60m", "since": 1795259520, "user": "ben"}
    assert holder(taken) == "run books-20261121-051200-9f3a since 2026-11-21 11:12 UTC, of its user ben"
    assert holder({}) == "somebody who left no name"


@pytest.fixture
def gpu1(tmp_path: Path) -> Iterator[Machine]:
    with machine(tmp_path / "gpu1") as running:
        yield running


def offers_in(tmp_path: Path, *machines: Machine, **more: Any) -> Any:
    return asyncio.run(client(tmp_path / "ana", *machines, **more).offer())


@pytest.mark.real
def test_a_host_offers_what_it_has_and_is_left_as_it_was(gpu1: Machine, tmp_path: Path) -> None:
    found = offers_in(tmp_path, gpu1, price_per_hour=1.2)
    assert (found.provider, found.id, found.price_usd_per_h, found.stock) == ("ssh", gpu1.address, 1.2, "free")
    assert found.cpus >= 1
    assert list(gpu1.sshd.home.iterdir()) == []


@pytest.mark.real
def test_a_host_that_does_not_answer_is_left_out(gpu1: Machine, tmp_path: Path) -> None:
    dead = f"127.0.0.1:{free_port()}"
    found = offers_in(tmp_path, gpu1, hosts=[dead, gpu1.address])
    assert found.id == gpu1.address


@pytest.mark.real
def test_a_host_that_is_frozen_is_left_out(gpu1: Machine, tmp_path: Path) -> None:
    with machine(tmp_path / "gpu2", key=gpu1.sshd.key.with_name("client_key.pub").read_text()) as gpu2:
        gpu2.sshd.freeze()
        assert offers_in(tmp_path, gpu2, gpu1, key=gpu1.sshd.key).id == gpu1.address


@pytest.mark.real
def test_without_any_host_each_has_its_reason(gpu1: Machine, tmp_path: Path) -> None:
    dead = f"127.0.0.1:{free_port()}"
    with pytest.raises(NoMachine) as raised:
        offers_in(tmp_path, gpu1, hosts=[dead, gpu1.address], cpus=4096)
    assert f"{dead}: no connection to {dead}: connection refused" in raised.value.message
    assert f"{gpu1.address}: resources.cpus asks for 4096" in raised.value.message


@pytest.mark.real
def test_a_stranger_is_not_let_in(gpu1: Machine, tmp_path: Path) -> None:
    gpu1.sshd.authorize()
    with pytest.raises(NoMachine, match=r"does not let \w+ in with"):
        offers_in(tmp_path, gpu1)


@pytest.mark.real
def test_a_host_without_python_says_what_to_install(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "sh").symlink_to("/bin/sh")
    with machine(tmp_path / "bare", PATH=str(tools)) as bare, pytest.raises(NoMachine, match="no python3") as raised:
        offers_in(tmp_path, bare)
    assert "apt-get install" in raised.value.advice


@pytest.mark.real
def test_a_host_key_that_changed_is_refused_even_beside_other_hosts(gpu1: Machine, tmp_path: Path) -> None:
    with machine(tmp_path / "gpu2", key=gpu1.sshd.key.with_name("client_key.pub").read_text()) as gpu2:
        ana = client(tmp_path / "ana", gpu1, gpu2)
        asyncio.run(ana.offer())
        gpu2.sshd.stop()
        gpu2.sshd.new_host_key()
        gpu2.sshd.start()
        with pytest.raises(HostKeyChanged, match="another host key") as raised:
            asyncio.run(ana.offer())
    assert "ssh-keygen -R" in raised.value.advice


@pytest.mark.real
def test_what_the_user_s_own_known_hosts_says_counts(
    gpu1: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    known = tmp_path / "user/.ssh/known_hosts"
    known.parent.mkdir(parents=True)
    with machine(tmp_path / "gpu2") as other:
        known.write_text(f"[127.0.0.1]:{gpu1.sshd.port} {other.sshd.host_key}\n")
    with pytest.raises(HostKeyChanged):
        offers_in(tmp_path, gpu1)


@pytest.mark.parametrize("written", ["ana@", "a b", "ana@gpu1:99999", "2001:db8::1"])
def test_a_host_that_is_no_address_is_named(written: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"resources\.hosts: .*write user@host:port"):
        offers_in(tmp_path, hosts=[written])


def test_what_the_recipe_leaves_out_is_as_the_user_s_ssh_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/config").write_text("Host gpubox\n  User ubuntu\n  Port 2222\n")
    here = getpass.getuser()

    def addresses(**more: Any) -> list[str]:
        asked = resources(hosts=["gpubox", "ana@gpubox:22", "gpu2", "[2001:db8::1]"], **more)
        return [full_address(place.target) for place in places_of(tmp_path, asked)]

    others = [f"{here}@gpu2:22", f"{here}@[2001:db8::1]:22"]
    assert addresses() == ["ubuntu@gpubox:2222", "ana@gpubox:22", *others]
    assert addresses(ssh_key="~/key") == [f"{here}@gpubox:22", "ana@gpubox:22", *others]


def test_the_command_to_end_a_lease_is_short_enough_to_type(tmp_path: Path) -> None:
    asked = resources(hosts=["ana@[2001:db8::1]:2222"], ssh_key="/keys/a b", jump_host="door")
    (place,) = places_of(tmp_path, asked)
    command = place.command("sh ~/.recipe/x/agent release")
    assert command == "ssh -i '/keys/a b' -J door -p 2222 ana@2001:db8::1 'sh ~/.recipe/x/agent release'"


def test_an_old_python_is_told_from_none(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(visit, "OLDEST", (99, 1))
    visit.main("", "look", {})
    said = json.loads(capsys.readouterr().out)
    assert (said["too_old"], said["python"]) == (True, list(sys.version_info[:3]))
