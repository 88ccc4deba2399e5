"""Command lines of ssh."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from provisioners.shell.openssh import login_argv, tunnel_argv
from provisioners.shell.target import Target, address, known_name, parse_address
from recipes.errors import UsageError

TARGET = Target(
    host="pod.example.org",
    port=10022,
    user="root",
    alias="recipe-Ana-1",
    known_hosts=Path("/home/a b/50%/known_hosts"),
    key=Path("/home/a b/50%/id"),
)


def settings(argv: list[str]) -> dict[str, str]:
    """What ssh itself makes of a command line."""
    said = subprocess.run([*argv[:1], "-G", *argv[1:]], capture_output=True, text=True, check=True).stdout
    return dict(line.split(" ", 1) for line in said.splitlines() if " " in line)


def test_ssh_trusts_only_what_is_pinned_under_the_alias() -> None:
    said = settings(login_argv(TARGET))
    assert said["hostkeyalias"] == "recipe-ana-1"
    assert said["stricthostkeychecking"] in ("true", "yes")
    assert said["userknownhostsfile"].strip('"').replace("%%", "%") == "/home/a b/50%/known_hosts"
    assert said["globalknownhostsfile"] == "/dev/null"
    assert (said["hostname"], said["port"], said["user"]) == ("pod.example.org", "10022", "root")


def test_with_a_key_of_its_own_nothing_else_is_offered() -> None:
    said = settings(login_argv(TARGET))
    assert said["identitiesonly"] == "yes"
    assert said["identityagent"] == "none"
    assert "-F" in login_argv(TARGET)
    assert "-F" not in login_argv(replace(TARGET, key=None))


def test_a_tunnel_listens_on_loopback_alone() -> None:
    said = settings(tunnel_argv(TARGET, 4000, 8000, Path("/tmp/x/c")))
    assert said["localforward"] == "[127.0.0.1]:4000 [127.0.0.1]:8000"
    assert said["exitonforwardfailure"] == "yes"
    assert said["batchmode"] == "yes"
    assert said["controlpath"] == "/tmp/x/c"
    assert said["forwardagent"] == "no"


def test_a_jump_has_the_same_key_and_the_same_pins() -> None:
    proxy = settings(login_argv(replace(TARGET, jump="bob@gate:2200")))["proxycommand"]
    for part in (
        "StrictHostKeyChecking=yes",
        "HostKeyAlias=[gate]:2200",
        "IdentityFile=",
        "-l bob",
        "-W '[%h]:%p' -- gate",
    ):
        assert part in proxy


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("host", (None, "host", None)),
        ("me@host:2222", ("me", "host", 2222)),
        ("me@[fe80::1%eth0]:22", ("me", "fe80::1%eth0", 22)),
        ("10.0.0.1:22", (None, "10.0.0.1", 22)),
    ],
)
def test_addresses(text: str, parts: tuple[str | None, str, int | None]) -> None:
    assert parse_address(text) == parts
    user, host, port = parts
    assert address(host, port, user) == text


@pytest.mark.parametrize(
    "text", ["", "me@", "host:", "host:0", "host:70000", "a b", "fe80::1", "-oProxyCommand=x", "-l@host"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(UsageError, match="write user@host:port"):
        parse_address(text)


def test_names_in_known_hosts() -> None:
    assert known_name("h", 22) == known_name("h", None) == "h"
    assert known_name("h", 2222) == "[h]:2222"
