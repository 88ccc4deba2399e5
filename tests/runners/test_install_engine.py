"""An engine's environment on the host: the real script with real environments, without a network."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from runners.onhost import install_engine

pytestmark = pytest.mark.real

NOTE = "import pathlib, sys; pathlib.Path(sys.prefix, 'note').open('a').write('installed\\n')"
TAG = f"{sys.implementation.cache_tag}-{sysconfig.get_platform()}"


@dataclass(frozen=True)
class Installer:
    """Starts the script as a host would."""

    folder: Path

    @property
    def made(self) -> Path:
        return self.folder / "engines" / f"engine-1.0-{TAG}"

    def start(self, **changes: Any) -> subprocess.Popen[str]:
        step = {"argv": ["{env}/bin/python", "-c", NOTE]}
        plan = {"python": sys.executable, "steps": [step], "check": ["{env}/bin/python", "-c", ""], **changes}
        request = self.folder / f"install-{secrets.token_hex(8)}.json"  # another may still have to read its own
        request.write_text(json.dumps(plan))
        directory = str(self.folder / "engines" / "engine-1.0-{python_tag}")
        argv = [sys.executable, install_engine.__file__, directory, str(request)]
        return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def run(self, **changes: Any) -> tuple[int, list[str]]:
        return ended(self.start(**changes))


def ended(process: subprocess.Popen[str]) -> tuple[int, list[str]]:
    """Its exit status, and the lines that it printed."""
    out, _ = process.communicate(timeout=120)
    return process.returncode, out.splitlines()


@pytest.fixture
def installer(tmp_path: Path) -> Installer:
    return Installer(tmp_path)


def test_of_two_who_ask_at_once_one_installs(installer: Installer) -> None:
    calls = [installer.start(), installer.start()]
    both = [ended(call) for call in calls]
    said = [json.loads(lines[-1]) for status, lines in both if status == 0]
    assert sorted(one["installed"] for one in said) == [False, True]
    assert {one["python"] for one in said} == {str(installer.made / "bin" / "python")}
    assert all(one["seconds"] >= 0 for one in said)
    assert (installer.made / "note").read_text() == "installed\n"


def test_an_image_that_brings_the_engine_needs_no_other(installer: Installer) -> None:
    status, lines = installer.run(present=[sys.executable, "-c", ""])
    said = json.loads(lines[-1])
    assert (status, said["python"], said["installed"]) == (0, sys.executable, False)
    assert not installer.made.exists()


def test_an_image_that_brings_another_release_does_not_count(installer: Installer) -> None:
    status, lines = installer.run(present=[sys.executable, "-c", "raise SystemExit('another release')"])
    assert (status, json.loads(lines[-1])["installed"]) == (0, True)
    assert "another release" not in lines


def test_what_fails_leaves_nothing_behind(installer: Installer) -> None:
    status, lines = installer.run(check=["{env}/bin/python", "-c", "raise SystemExit(4)"])
    assert status == 4
    assert lines[-1].startswith("failed with exit status 4")
    assert not installer.made.exists()


def test_what_was_cut_off_is_made_anew(installer: Installer) -> None:
    installer.made.mkdir(parents=True)
    (installer.made / "note").write_text("of an interrupted installation\n")
    assert installer.run()[0] == 0
    assert (installer.made / "note").read_text() == "installed\n"
