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
from stacks.values import NoEngine, StackFailed


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
    assert engine.commands(site) == []
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


def test_ours_is_taken_where_the_one_on_path_cannot_be_used(tmp_path: Path) -> None:
    old = command(tmp_path / "bin", "echo v3.100.0")
    site = site_with(tmp_path, old.parent)
    found = asyncio.run(engine.install(site, installer=[sys.executable, "-c", INSTALLS]))
    assert found.path == engine.own_root(site) / "bin" / "pulumi"
    assert engine.need(site) == found
    command(found.path.parent, "echo v4.0.0")
    with pytest.raises(NoEngine, match=r"bin/pulumi is 3\.100\.0, older than"):
        engine.need(site)


def test_of_two_installations_at_once_one_stays(tmp_path: Path) -> None:
    """What was there before is put aside, the other's is there before ours is."""
    site = site_with(tmp_path)
    root = engine.own_root(site)
    command(root / "bin", "echo v3.200.0")
    found = asyncio.run(engine.install(site, installer=[sys.executable, "-c", INSTALLS]))
    assert found.version == "3.272.0"
    command(root.with_name("ours") / "bin", "echo v3.271.0")
    engine._put(root.with_name("ours"), root)
    assert engine.need(site) == found
    with pytest.raises(OSError, match="No such file"):
        engine._put(root.with_name("nobody's"), root.with_name("nowhere"))


def test_the_installer_is_told_no_key(tmp_path: Path) -> None:
    site = site_with(tmp_path)
    told = site_of(
        {**site.env, "RUNPOD_API_KEY": "hush", "HF_TOKEN": "hush", "HTTPS_PROXY": "http://proxy", "HOME": "/h"}
    )
    says = "import os, sys; sys.exit('error: ' + ' '.join(sorted(os.environ)))"
    with pytest.raises(NoEngine) as failed:
        asyncio.run(engine.install(told, installer=[sys.executable, "-c", says]))
    names = set(failed.value.message.partition(": ")[2].split())
    assert {"HOME", "HTTPS_PROXY", "PATH"} <= names <= {"HOME", "HTTPS_PROXY", "PATH", "LC_CTYPE"}


def test_an_installation_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file where the folder should be")
    with pytest.raises(NoEngine, match=r"cannot be had here: .*Not a directory"):
        asyncio.run(engine.install(site_with(tmp_path), installer=[sys.executable, "-c", INSTALLS]))


def test_an_engine_that_does_not_answer_is_no_missing_engine(tmp_path: Path) -> None:
    """Else what was last seen here would be told as how it is."""
    silent = engine.Engine(command(tmp_path / "bin", "sleep 60 & wait"), "3.272.0")
    with pytest.raises(StackFailed, match=r"did not answer within 0 s: pulumi stack ls") as failed:
        asyncio.run(engine.ask(silent, ["stack", "ls"], cwd=tmp_path, env={"PATH": "/bin"}, patience_s=0.2))
    assert not isinstance(failed.value, NoEngine)


def test_below_an_engine_the_version_is_asked_as_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine tells its program's processes where it hears their logs; a second one would send its own there."""
    monkeypatch.setenv("PULUMI_LOG_OTLP_ENDPOINT", "localhost:9")
    found = command(tmp_path / "bin", 'test -z "$PULUMI_LOG_OTLP_ENDPOINT" && echo v3.260.0')
    assert engine.need(site_with(tmp_path, found.parent)).version == "3.260.0"


def test_the_log_of_that_question_goes_with_a_home_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    logs = 'logs="${PULUMI_HOME:-$HOME/.pulumi}/logs"; mkdir -p "$logs"; echo "$logs" > "$0.said"; echo v3.260.0'
    found = command(tmp_path / "bin", logs)
    assert engine.need(site_with(tmp_path, found.parent)).version == "3.260.0"
    assert not Path((found.parent / "pulumi.said").read_text().strip()).exists()
    assert not (tmp_path / ".pulumi").exists()


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
    assert engine.commands(site) == []
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
    assert time.monotonic() - begun < 50


def test_pulumis_own_installer_without_a_network(tmp_path: Path) -> None:
    """The real one: no name is resolved, or a proxy refuses."""
    site = site_with(tmp_path)
    nowhere = {"https_proxy": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"}
    with pytest.raises(NoEngine, match=r"get\.pulumi\.com did not answer \(.*refused\)"):
        asyncio.run(engine.install(site_of({**site.env, **nowhere})))
