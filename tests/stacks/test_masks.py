"""What of an environment shows nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from stacks.masks import mask_of


def test_what_is_called_a_secret_is_masked_also_as_json_writes_it() -> None:
    mask = mask_of({"RUNPOD_API_KEY": 'quo"ted', "DB_PASS": "hush-hush", "HOME": "/home/ana"})
    assert mask('401 for quo"ted, quo\\"ted and hush-hush in /home/ana') == "401 for ***, *** and *** in /home/ana"


def test_a_passphrase_that_lies_in_a_file_is_masked(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("one that we all know\n")
    env = {"PULUMI_CONFIG_PASSPHRASE_FILE": str(tmp_path / "file")}
    assert mask_of(env)("with one that we all know") == "with ***"
    assert mask_of({"PULUMI_CONFIG_PASSPHRASE_FILE": str(tmp_path)})("as it is") == "as it is"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgres://me:hush-hush@host/db", "cannot connect as me with hush-hush"),
        ("postgres://me:hush%40hush@host/db", "cannot connect as me with hush@hush"),
        ("postgres://me:hush%40hush@host/db", "postgres://me:hush%40hush@host/db: refused"),
        ("s3://team?region=eu-west-1&secret_key=hu/sh%2Bhush", "s3://team?region=eu-west-1&secret_key=hu/sh%2Bhush"),
        ("s3://team?secret_key=hu/sh%2Bhush", "403 with hu/sh+hush"),
    ],
)
def test_what_is_secret_in_the_backends_url_is_masked(url: str, said: str) -> None:
    masked = mask_of({"PULUMI_BACKEND_URL": url})(said)
    assert "***" in masked
    assert "hush" not in masked
    assert "me" in masked or "eu-west-1" in masked or masked == "403 with ***", "and nothing else"


@pytest.mark.parametrize("value", ["true", "False", "none", "1000", "abc"])
def test_a_switch_and_a_number_are_no_secrets(value: str) -> None:
    """They are found in many a text, and in what it is made of."""
    assert mask_of({"HF_HUB_DISABLE_IMPLICIT_TOKEN": value})(f'{{"reached": {value}}}') == f'{{"reached": {value}}}'
    assert mask_of({"PIN_KEY": "48151623"})("with 48151623") == "with ***", "a number may be one if it is long"


def test_a_passphrase_is_one_whatever_it_looks_like_and_a_program_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("4815\n")
    env = {"PULUMI_CONFIG_PASSPHRASE": "123456", "PULUMI_CONFIG_PASSPHRASE_FILE": str(tmp_path / "file")}
    assert mask_of({**env, "GIT_ASKPASS": "echo"})("echo 123456 4815") == "echo *** ***"
