"""Pulumi's engine: found, refused where it cannot be used, installed whole or not at all."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

import pytest

from provisioners.contract import Site
from provisioners.site import site_of
from recipes.errors import ExitCode
from stacks import engine
from stacks.values import NoEngine


def site_with(tmp_path: Path, path: Path | None = None) -> Site:
    folders = [str(path)] if path else []
    return site_of({"PATH": os.pathsep.join([*folders, "/usr/bin", "/bin"]), "RECIPE_HOME": str(tmp_path / "home")})


def command(folder: Path, *lines: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "pulumi"
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)
    return path


def test_without_an_engine_one_sentence_says_what_to_do(tmp_path: Path) -> None:
    site = site_with(tmp_path)
    assert engine.find(site) is None
    with pytest.raises(NoEngine) as none:
        engine.need(site)
    assert none.value.exit_code == ExitCode.NO_MACHINE
    assert none.value.message == "Pulumi's engine is not on this machine"
    assert none.value.advice == "recipe stack install gets it; provisioner: runpod needs none of it"


def test_the_one_on_path_comes_first_then_ours(tmp_path: Path) -> None:
    own = command(engine.own_root(site_with(tmp_path)) / "bin", "echo v3.272.0")
    assert engine.need(site_with(tmp_path)) == engine.Engine(own, "3.272.0")
    users = command(tmp_path / "bin", "echo 3.240.1")
    assert engine.need(site_with(tmp_path, users.parent)) == engine.Engine(users, "3.240.1")


@pytest.mark.parametrize(
    ("says", "told"),
    [
        ("echo v3.115.2", "is 3.115.2, older than 3.200"),
        ("echo v4.0.0", "is 4.0.0; this recipe knows version 3"),
        ("echo pulumi the cat", "says no version, but 'pulumi the cat'"),
        ("echo 'cannot open shared object file' >&2; exit 127", "does not work: cannot open shared object file"),
    ],
)
def test_one_that_cannot_be_used_is_refused(tmp_path: Path, says: str, told: str) -> None:
    found = command(tmp_path / "bin", says)
    with pytest.raises(NoEngine) as refused:
        engine.need(site_with(tmp_path, found.parent))
    assert told in refused.value.message
    assert "recipe stack install" in refused.value.advice or "provisioner: runpod" in refused.value.advice


def test_a_changed_command_is_asked_again(tmp_path: Path) -> None:
    found = command(tmp_path / "bin", "echo v3.240.0")
    assert engine.need(site_with(tmp_path, found.parent)).version == "3.240.0"
    command(tmp_path / "bin", "echo v3.241.0 # upgraded")
    assert engine.need(site_with(tmp_path, found.parent)).version == "3.241.0"


INSTALLS = """import os, sys
bin = os.path.join(sys.argv[1], "bin")
os.makedirs(bin)
with open(os.path.join(bin, "pulumi"), "w") as file:
    file.write("#!/bin/sh\\necho v3.272.0\\n")
os.chmod(file.name, 0o755)
"""


def test_an_installation_appears_whole(tmp_path: Path) -> None:
    site = site_with(tmp_path)
    found = asyncio.run(engine.install(site, installer=[sys.executable, "-c", INSTALLS]))
    assert found == engine.Engine(engine.own_root(site) / "bin" / "pulumi", "3.272.0")
    assert [path.name for path in engine.own_root(site).parent.iterdir()] == ["engine"]


def test_an_installation_that_fails_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    site = site_with(tmp_path)
    broken = INSTALLS + "raise OSError('<urlopen error [Errno -2] Name or service not known>')"
    with pytest.raises(NoEngine) as failed:
        asyncio.run(engine.install(site, installer=[sys.executable, "-c", broken]))
    assert "cannot be had here" in failed.value.message
    assert "Name or service not known" in failed.value.message
    assert "provisioner: runpod needs none of it" in failed.value.advice
    assert engine.find(site) is None
    assert list(engine.own_root(site).parent.iterdir()) == []


SCRIPT = """#!/bin/sh
printf '=== Installing Pulumi ===\\n'
printf '\\033[31merror: failed to download the tarball\\033[0m\\n' >&2
printf '       issue at https://github.com/pulumi/pulumi/issues\\n' >&2
exit 1
"""


def test_what_pulumis_own_script_says_is_the_reason(tmp_path: Path) -> None:
    """Its real installer, which only gets another script."""
    (tmp_path / "script").write_text(SCRIPT)
    got = f"import shutil; from pulumi.automation import _cmd; own = {str(tmp_path / 'script')!r};"
    got += "_cmd._download_to_file = lambda url, path: shutil.copyfile(own, path)\n"
    site = site_with(tmp_path)
    with pytest.raises(NoEngine) as failed:
        asyncio.run(engine.install(site, installer=[sys.executable, "-c", got + engine._INSTALLER]))
    assert failed.value.message.endswith("cannot be had here: failed to download the tarball")


def test_an_installation_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "INSTALL_S", 0.5)
    site = site_with(tmp_path)
    begun = time.monotonic()
    with pytest.raises(NoEngine, match="was not there after"):
        asyncio.run(engine.install(site, installer=["/bin/sh", "-c", "sleep 60 & wait"]))
    assert time.monotonic() - begun < 10


def test_pulumis_own_installer_without_a_network(tmp_path: Path) -> None:
    """The real one: no name is resolved, or a proxy refuses."""
    site = site_with(tmp_path)
    nowhere = {"https_proxy": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"}
    with pytest.raises(NoEngine, match=r"get\.pulumi\.com did not answer \(.*refused\)"):
        asyncio.run(engine.install(site_of({**site.env, **nowhere})))
