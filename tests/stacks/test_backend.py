"""What the engine is told of a backend, and what of the user's own Pulumi it is not told."""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

import stacks
from provisioners.site import site_of
from recipes.errors import UsageError
from stacks import agreed, report
from stacks.backend import backend_of, drop_copies, engine_env, key_of, refusal, shown, where, work_dir

HOSTILE = (
    "PULUMI_SKIP_CHECKPOINTS",
    "PULUMI_RUN_PROGRAM",
    "PULUMI_RUNTIME_TOOLCHAIN",
    "PULUMI_RUNTIME_VIRTUALENV",
    "PULUMI_DIY_BACKEND_LEGACY_LAYOUT",
    "PULUMI_DIY_BACKEND_IGNORE_DEPRECATION_ERROR",
    "PULUMI_DEBUG_GRPC",
    "PULUMI_DEBUG_PROVIDERS",
    "PULUMI_CONTINUE_ON_ERROR",
    "PULUMI_ENABLE_LEGACY_DIFF",
    "PULUMI_STACK",
)
OURS = {
    "PULUMI_BACKEND_URL",
    "PULUMI_PYTHON_CMD",
    "PULUMI_SKIP_UPDATE_CHECK",
    "PULUMI_FALLBACK_TO_STATE_SECRETS_MANAGER",
}
SHARED = {"PULUMI_BACKEND_URL": "s3://team", "PULUMI_CONFIG_PASSPHRASE": "ours"}


def told(home: Path, env: Mapping[str, str]) -> dict[str, str]:
    """The variables of Pulumi's that the engine is told."""
    site = site_of({"RECIPE_HOME": str(home), **env})
    found = engine_env(site, backend_of(site), home / "work")
    return {name: value for name, value in found.items() if name.startswith("PULUMI_")}


def test_no_variable_of_pulumis_reaches_the_engine_that_is_not_known_to_be_harmless(tmp_path: Path) -> None:
    hostile = dict.fromkeys(HOSTILE, "true")
    own = told(tmp_path, hostile)
    assert own.keys() - OURS == {
        "PULUMI_CONFIG_PASSPHRASE_FILE",
        "PULUMI_HOME",
        "PULUMI_DIY_BACKEND_DISABLE_CHECKPOINT_BACKUPS",
    }
    shared = told(tmp_path, {**hostile, **SHARED, "PULUMI_HOME": "/home/ana/.pulumi"})
    assert shared.keys() - OURS == {"PULUMI_CONFIG_PASSPHRASE", "PULUMI_HOME"}
    assert shared["PULUMI_HOME"] == "/home/ana/.pulumi"
    service = told(tmp_path, {"PULUMI_BACKEND_URL": "https://api.pulumi.com", "PULUMI_ACCESS_TOKEN": "pul-1"})
    assert service.keys() - OURS == {"PULUMI_ACCESS_TOKEN"}


@pytest.mark.parametrize("name", ["PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE"])
def test_our_own_backend_has_our_own_passphrase_whatever_the_user_has_set(tmp_path: Path, name: str) -> None:
    found = told(tmp_path, {name: "/of/another/project"})
    assert found["PULUMI_CONFIG_PASSPHRASE_FILE"] == str(tmp_path / "pulumi" / "passphrase")
    assert "PULUMI_CONFIG_PASSPHRASE" not in found


def test_an_empty_passphrase_is_one_and_no_file_is_none(tmp_path: Path) -> None:
    assert told(tmp_path, {**SHARED, "PULUMI_CONFIG_PASSPHRASE": ""})["PULUMI_CONFIG_PASSPHRASE"] == ""
    with pytest.raises(UsageError, match="nobody has said with which passphrase"):
        told(tmp_path, {"PULUMI_BACKEND_URL": "s3://team", "PULUMI_CONFIG_PASSPHRASE_FILE": ""})


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("", "organization/recipe-gpu-pod/main"),
        ("s3://team", "organization/recipe-gpu-pod/main"),
        ("https://api.pulumi.com", "main"),
    ],
)
def test_a_stack_is_named_in_full_where_a_backend_may_know_no_projects(tmp_path: Path, url: str, name: str) -> None:
    site = site_of({"RECIPE_HOME": str(tmp_path), **SHARED, "PULUMI_BACKEND_URL": url})
    assert backend_of(site).stack("recipe-gpu-pod", "main") == name


@pytest.mark.parametrize("folder", ["50%", "who?", "a#b", "two\nlines"])
def test_a_folder_that_is_no_url_is_refused_before_anything_is_made(tmp_path: Path, folder: str) -> None:
    home = tmp_path / folder
    with pytest.raises(UsageError, match="Pulumi cannot keep its state in") as refused:
        backend_of(site_of({"RECIPE_HOME": str(home)}))
    assert "RECIPE_HOME" in refused.value.advice
    assert not home.exists()
    elsewhere = site_of({"RECIPE_HOME": str(home), **SHARED})
    assert not backend_of(elsewhere).own, "what is shared lies elsewhere"


def test_what_the_engine_says_of_the_passphrase_is_said_with_what_to_do(tmp_path: Path) -> None:
    own, said = site_of({"RECIPE_HOME": str(tmp_path)}), "error: decrypting: incorrect passphrase"
    refused, of_all = refusal(own, "gpu_pod", said), refusal(site_of({**own.env, **SHARED}), "gpu_pod", said)
    assert refused is not None
    assert of_all is not None
    assert str(tmp_path / "pulumi" / "passphrase") in refused.advice
    assert "export PULUMI_CONFIG_PASSPHRASE_FILE" in of_all.advice
    assert refusal(own, "gpu_pod", "error: something else") is None


@pytest.mark.parametrize("program", ["gpu_pod", "model_cache"])
def test_each_project_names_its_toolchain(tmp_path: Path, program: str) -> None:
    """Else a uv.lock in a folder above would send the program to another Python than the provider."""
    plain = Path(stacks.__file__).parent / program
    ours = work_dir(site_of({"RECIPE_HOME": str(tmp_path)}), f"recipe-{program.replace('_', '-')}", "main")
    for folder in (plain, ours):
        runtime = yaml.safe_load((folder / "Pulumi.yaml").read_text())["runtime"]
        assert runtime == {"name": "python", "options": {"toolchain": "pip"}}


def test_the_engine_finds_recipes_python_and_no_other(tmp_path: Path) -> None:
    misleading = {"VIRTUAL_ENV": "/other", "PYTHONHOME": "/other", "PULUMI_STACK": "prod"}
    of_another_update = dict.fromkeys((report.VARIABLE, report.CLIENT, agreed.VARIABLE), "Volume")
    site = site_of({"PATH": "/bin", "RECIPE_HOME": str(tmp_path), **misleading, **of_another_update})
    env = engine_env(site, backend_of(site), tmp_path / "work")
    assert not {*misleading, *of_another_update} & set(env)
    assert Path(env["PULUMI_PYTHON_CMD"]).name == "dynamic-provider"
    assert env["RECIPE_PYTHON"] == sys.executable
    assert env["RECIPE_HOME"] == str(tmp_path)
    assert env["PULUMI_BACKEND_URL"] == f"file://{tmp_path}/pulumi/state"
    passphrase = Path(env["PULUMI_CONFIG_PASSPHRASE_FILE"])
    assert passphrase.stat().st_mode & 0o777 == 0o600
    assert len(passphrase.read_text()) >= 32
    assert backend_of(site).env["PULUMI_CONFIG_PASSPHRASE_FILE"] == str(passphrase)


def test_the_passphrase_is_made_once_by_whoever_comes_first(tmp_path: Path) -> None:
    seen: list[str] = []

    def look() -> None:
        env = backend_of(site_of({"RECIPE_HOME": str(tmp_path)})).env
        seen.append(Path(env["PULUMI_CONFIG_PASSPHRASE_FILE"]).read_text())

    threads = [threading.Thread(target=look) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 16
    assert len(set(seen)) == 1
    assert sorted(path.name for path in (tmp_path / "pulumi").iterdir()) == ["passphrase", "state"]


@pytest.mark.parametrize("url", ["s3://bucket?region=x", "file:///team", "gs://bucket"])
def test_a_shared_backend_without_a_passphrase_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(UsageError) as refused:
        backend_of(site_of({"RECIPE_HOME": str(tmp_path), "PULUMI_BACKEND_URL": url}))
    assert "PULUMI_CONFIG_PASSPHRASE_FILE" in refused.value.advice
    assert "?" not in refused.value.message


def test_pulumis_own_service_needs_no_passphrase(tmp_path: Path) -> None:
    site = site_of({"RECIPE_HOME": str(tmp_path), "PULUMI_BACKEND_URL": "https://api.pulumi.com"})
    assert not backend_of(site).own


def test_a_backends_url_is_shown_without_what_may_be_secret() -> None:
    assert shown("postgres://me:secret@host/db?sslkey=x") == "postgres://***@host/db"


def test_two_backends_are_told_apart_in_names_of_files(tmp_path: Path) -> None:
    def key(url: str) -> str:
        return key_of(site_of({"RECIPE_HOME": str(tmp_path), **({"PULUMI_BACKEND_URL": url} if url else {})}))

    urls = ["", "s3://team", "s3://team?endpoint=minio", "file:///team", "file:///other"]
    assert len({key(url) for url in urls}) == len(urls)
    same = ["file:///team", "file:///team/", "file:////team", "file:///other/../team/."]
    assert len({key(url) for url in same}) == 1, "however it is spelled"
    assert {where(site_of({"RECIPE_HOME": "/", "PULUMI_BACKEND_URL": url})) for url in same} == {"file:///team"}
    assert where(site_of({"RECIPE_HOME": "/", "PULUMI_BACKEND_URL": "s3://team/a/?region=x"})) == "s3://team/a"
    assert key("postgres://me:secret@host/db") == key("postgres://you:hidden@host/db/"), "of one, whoever asks it"


def test_what_pulumi_leaves_of_a_stack_that_was_removed_is_dropped(tmp_path: Path) -> None:
    """Its file store has what belongs to a file beside it."""
    site, state = site_of({"RECIPE_HOME": str(tmp_path)}), tmp_path / "pulumi" / "state" / ".pulumi"
    stacks_there = state / "stacks" / "recipe-gpu-pod"
    stacks_there.mkdir(parents=True)
    (state / "history" / "recipe-gpu-pod" / "main").mkdir(parents=True)
    for name in ("main.json.bak", "main.json.bak.attrs", "ana.json", "ana.json.attrs"):
        (stacks_there / name).touch()
    drop_copies(site, "recipe-gpu-pod", "main")
    assert sorted(path.name for path in state.rglob("*") if not path.is_dir()) == ["ana.json", "ana.json.attrs"]
    assert not (state / "history" / "recipe-gpu-pod" / "main").exists()


def test_a_work_directory_is_its_owners_alone(tmp_path: Path) -> None:
    folder = work_dir(site_of({"RECIPE_HOME": str(tmp_path)}), "recipe-gpu-pod", "main")
    assert (folder / "Pulumi.yaml").read_text().startswith("name: recipe-gpu-pod\nruntime:\n  name: python\n")
    assert (tmp_path / "pulumi").stat().st_mode & 0o777 == 0o700
    assert [path.name for path in folder.iterdir()] == ["Pulumi.yaml"]
