"""What travels with a run: the driver as one file, the packages that it needs, and the client's files."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from recipes.spec import Recipe
from runners.driver.belongings import files_of, relocated, stage, stage_earlier
from runners.run_folder import RunFolder
from runners.travel import archive, installation, needed
from tests.runners.driver.conftest import ROOT, TOKENIZER

IMPORTS = """
import sys
sys.path.insert(0, sys.argv[1])
refused = set(sys.argv[2].split(","))
class Only:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in refused:
            raise ModuleNotFoundError(f"{name} would not be there", name=name)
sys.meta_path.insert(0, Only())
import runners.driver.main, pkgutil, importlib
from recipes.prompts import load_prompt
import runners.engines, runners.workloads
for package in (runners.engines, runners.workloads):
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
from pathlib import Path
from runners.text.tokens import TokenCounter
assert TokenCounter.from_path(Path(sys.argv[3])).count("one two three") > 2
template = "{% if true %}{{ prompt | upper }}{% endif %}"
assert load_prompt(template).render("a") == "A"
print(runners.driver.main.__file__)
"""


def test_the_same_source_is_the_same_file_made_once(tmp_path: Path) -> None:
    first = archive(tmp_path / "one")
    assert first.read_bytes() == archive(tmp_path / "two").read_bytes()
    made = first.stat().st_ino
    assert archive(tmp_path / "one") == first
    assert first.stat().st_ino == made
    assert first.stat().st_size < 2_000_000


def test_it_holds_the_source_and_no_model(tmp_path: Path) -> None:
    names = zipfile.ZipFile(archive(tmp_path)).namelist()
    assert {"__main__.py", "runners/driver/main.py", "recipes/prompts/summarize.yaml"} <= set(names)
    assert not [name for name in names if "/models/" in name or name.endswith(".pyc") or name.startswith("tests/")]


def test_a_plug_in_of_ones_own_comes_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_work").mkdir()
    (tmp_path / "own_work" / "__init__.py").write_text("PLUGIN = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "own_work/__init__.py" in zipfile.ZipFile(archive(tmp_path / "out", ["own_work"])).namelist()


def test_it_needs_nothing_but_the_packages_that_are_installed_for_it(tmp_path: Path) -> None:
    """In an environment with these alone: everything that a drive imports is there."""
    unpacked = tmp_path / "unpacked"
    zipfile.ZipFile(archive(tmp_path)).extractall(unpacked)
    distributions = needed()
    own = {"recipes", "provisioners", "runners"}
    refused = [m for m, names in packages_distributions().items() if not set(names) & set(distributions)]
    given = ",".join(set(refused) - own)
    ran = subprocess.run(
        [sys.executable, "-I", "-c", IMPORTS, str(unpacked), given, str(TOKENIZER)], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == str(unpacked / "runners" / "driver" / "main.py")
    assert len(distributions) < 15, distributions


def test_a_python_that_has_just_these_releases_needs_no_environment() -> None:
    _, request = installation(sys.executable)
    assert subprocess.run(request["present"]).returncode == 0
    other = [part.replace("PyYAML==", "PyYAML==0.") for part in request["present"]]
    assert subprocess.run(other).returncode != 0
    assert all("==" in pin for pin in request["steps"][0]["argv"] if pin[0].isalpha() and "=" in pin)


def recipe_over(folder: Path) -> Recipe:
    (folder / "texts").mkdir(parents=True)
    for name in ("a", "b"):
        (folder / "texts" / f"{name}.txt").write_text(f"text {name}")
    (folder / "prompt.txt").write_text("Summarise: {{ prompt }}")
    workload = {"inputs": [str(folder / "texts" / "*.txt")], "prompt": str(folder / "prompt.txt"), "where": "host"}
    return Recipe.model_validate({"name": "r", "model": {"builtin": "lead"}, "workload": workload})


def test_each_file_stands_below_a_root_under_its_own_path(tmp_path: Path) -> None:
    recipe = recipe_over(tmp_path / "client")
    root = stage(files_of(recipe, TOKENIZER), tmp_path / "root")
    there = Recipe.model_validate_json(json.dumps(relocated(recipe, str(root))))
    assert [path.name for path in files_of(there, TOKENIZER)][1:] == ["a.txt", "b.txt", "prompt.txt"]
    assert all(str(path).startswith(str(root)) for path in list(files_of(there, TOKENIZER))[1:])
    assert (root / str(tmp_path).lstrip("/") / "client" / "texts" / "a.txt").read_text() == "text a"
    assert relocated(recipe, "")["workload"] == recipe.resolved()["workload"]


def test_a_builtin_prompt_keeps_the_name_that_the_client_knows(tmp_path: Path) -> None:
    recipe = recipe_over(tmp_path)
    builtin = recipe.model_copy(update={"workload": recipe.workload.model_copy(update={"prompt": "builtin:summarize"})})
    assert relocated(builtin, "/root")["workload"]["prompt"] == f"/root{ROOT}/recipes/prompts/summarize.yaml"
    inline = recipe.workload.model_copy(update={"prompt": "Say: {{ prompt }}"})
    assert relocated(recipe.model_copy(update={"workload": inline}), "/root")["workload"]["prompt"] == inline.prompt


def test_what_was_asked_before_comes_along_with_what_it_goes_on_from(tmp_path: Path) -> None:
    first, second = RunFolder.create(tmp_path, "r"), RunFolder.create(tmp_path, "r")
    assert stage_earlier(second, tmp_path / "none") is None
    (first.path / "answers.jsonl").write_text("{}\n")
    (first.outputs / "one.json").write_text("{}")
    second.takes_over([first.run_id])
    staged = stage_earlier(second, tmp_path / "staged")
    assert staged is not None
    found = sorted(str(p.relative_to(staged)) for p in staged.rglob("*") if p.is_file())
    assert found == sorted([f"{first.run_id}/answers.jsonl", f"{second.run_id}/takes-over.json"])
    assert (staged / first.run_id / "outputs" / "one.json").read_text() == "{}"
