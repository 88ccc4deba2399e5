"""Command lines of the ssh program: the same machine, key and pinned host key as our own connections have."""

from __future__ import annotations

import shlex
from pathlib import Path

from provisioners.shell.target import Target, known_name, parse_address

IDLE = "exec cat"
"""A command that does nothing until its input ends."""


def login_argv(target: Target) -> list[str]:
    """What opens a shell there."""
    return ["ssh", *_reaching(target), *_account(target.port, target.user), "--", target.host]


def tunnel_argv(
    target: Target, local_port: int, remote_port: int, control: Path, *, connect_timeout_s: float = 10
) -> list[str]:
    """What forwards a local port to a port of the machine's loopback, and says "ready" when it does.

    It also runs a command there that does nothing until its input ends. Only for a session do both sides tell the
    system to send at once (TCP_NODELAY): without one (ssh -N), small pieces wait for each other, up to 40 ms each.
    """
    settings = {
        "BatchMode": "yes",
        "ConnectTimeout": str(max(1, round(connect_timeout_s))),
        "ControlMaster": "yes",
        "ControlPath": _as_path(control),
        "ControlPersist": "no",
        "ExitOnForwardFailure": "yes",
        "ForwardAgent": "no",
        "ForwardX11": "no",
        "GatewayPorts": "no",
        "LogLevel": "ERROR",
        # Run when the forwarding stands: nothing has to be asked again and again until it does.
        "PermitLocalCommand": "yes",
        "LocalCommand": "echo ready",
        "RemoteCommand": "none",
        "SendEnv": "-*",
        "ServerAliveCountMax": "3",
        "ServerAliveInterval": "5",
        "Tunnel": "no",
    }
    forward = f"127.0.0.1:{local_port}:127.0.0.1:{remote_port}"
    return [
        *("ssh", "-T", *_as_options(settings), *_reaching(target)),
        *("-L", forward, *_account(target.port, target.user), "--", target.host, IDLE),
    ]


def check_argv(target: Target, control: Path) -> list[str]:
    """What asks the program that holds the tunnel whether it is well; it does not go to the machine."""
    config = ["-F", "/dev/null"] if target.key else []
    return ["ssh", *config, "-o", f"ControlPath={_as_path(control)}", "-O", "check", "--", target.host]


def _reaching(target: Target) -> list[str]:
    """Everything but where to: which key, which host key, and what to go through."""
    options = _trusting(target, target.alias)
    if target.jump:
        user, host, port = parse_address(target.jump)
        # Not ProxyJump: that would go through the jump without these options.
        through = ["ssh", "-o", "BatchMode=yes", *_trusting(target, known_name(host, port))]
        options += ["-o", f"ProxyCommand={_proxy([*through, *_account(port, user)], host)}"]
    return options


def _trusting(target: Target, alias: str) -> list[str]:
    settings = {
        "CheckHostIP": "no",
        "GlobalKnownHostsFile": "/dev/null",
        "HashKnownHosts": "no",
        "HostKeyAlias": alias.lower(),
        "StrictHostKeyChecking": "yes",
        "UpdateHostKeys": "no",
        "UserKnownHostsFile": _as_path(target.known_hosts),
        "VerifyHostKeyDNS": "no",
    }
    if target.key is None:
        return _as_options(settings)
    settings |= {"IdentitiesOnly": "yes", "IdentityAgent": "none", "IdentityFile": _as_path(target.key)}
    settings |= {"PreferredAuthentications": "publickey"}
    return ["-F", "/dev/null", *_as_options(settings)]


def _account(port: int | None, user: str | None) -> list[str]:
    return [*(["-p", str(port)] if port else []), *(["-l", user] if user else [])]


def _as_options(settings: dict[str, str]) -> list[str]:
    return [part for name, value in settings.items() for part in ("-o", f"{name}={value}")]


def _as_path(path: Path) -> str:
    """A file's name as an option takes it: in quotes, and with its own percent signs doubled."""
    return '"' + str(path.absolute()).replace("%", "%%").replace("\\", "\\\\").replace('"', '\\"') + '"'


def _proxy(argv: list[str], host: str) -> str:
    """A command for ProxyCommand, whose %h and %p are the machine's address; its other percent signs are its own."""
    return f"{shlex.join(argv).replace('%', '%%')} -W '[%h]:%p' -- {shlex.quote(host)}"
