"""The command line. A command imports only what it needs."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from argparse import SUPPRESS, ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .children import OF_AN_ENGINE
from .errors import WRONG_CALL, CommandFailed

OPERATIONS = ("up", "preview", "refresh", "destroy")
MODULES = {"stack": "stacks", "config": "configs", "plugin": "plugins"}
DEFAULTS: dict[str, Any] = {"stack": None, "cwd": None, "json": False, "yes": False}


def main(arguments: Sequence[str]) -> int:
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # as Go does for stdout and stderr: who is not heard any more dies
    if OF_AN_ENGINE in os.environ:
        print("panic: runtime error: invalid memory address or nil pointer dereference", file=sys.stderr)
        return WRONG_CALL
    parser = _parser()
    known, rest = parser.parse_known_args(arguments)
    options = Namespace(**{**DEFAULTS, **vars(known), "rest": [word for word in rest if word != "--"]})
    if options.rest and vars(options).get("action") != "set":
        parser.error(f"unknown arguments: {' '.join(options.rest)}")
    if options.cwd:
        os.chdir(options.cwd)
    try:
        return _run(options)
    except CommandFailed as error:
        sys.stdout.flush()
        print(f"error: {error}", file=sys.stderr)
        return error.code


def _run(options: Namespace) -> int:
    if options.command == "version":
        from .backend import VERSION

        print(VERSION)
        return 0
    from .context import Context

    context = Context.here(Path.cwd())
    if options.command in OPERATIONS:
        from . import operations

        return operations.run(options.command, context, options)
    module = importlib.import_module(f".{MODULES.get(options.command, 'others')}", __package__)
    action = options.action if options.command in MODULES else options.command
    getattr(module, f"{action or 'about'}".replace("-", "_").replace("import", "import_"))(context, options)
    return 0


def _parser() -> ArgumentParser:
    common = _common()
    parser = ArgumentParser(prog="pulumi", parents=[common])
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("version", "whoami", "about", "cancel"):
        added = commands.add_parser(name, parents=[common])
        if name == "cancel":
            added.add_argument("name", nargs="?")
    for name in OPERATIONS:
        _operation(commands.add_parser(name, parents=[common], aliases=["update"] if name == "up" else []))
    _stack(commands.add_parser("stack", parents=[common]).add_subparsers(dest="action"), common)
    config = commands.add_parser("config", parents=[common])
    config.add_argument("--show-secrets", action="store_true")
    _config(config.add_subparsers(dest="action"), common)
    plugins = commands.add_parser("plugin", parents=[common]).add_subparsers(dest="action")
    for name in ("ls", "install", "rm"):
        plugins.add_parser(name, parents=[common]).add_argument("what", nargs="*")
    return parser


def _common() -> ArgumentParser:
    common = ArgumentParser(add_help=False, argument_default=SUPPRESS)
    common.add_argument("-s", "--stack")
    common.add_argument("-C", "--cwd")
    common.add_argument("-y", "--yes", action="store_true")
    common.add_argument("-j", "--json", action="store_true")
    for name in ("color", "verbose", "tracing", "config-file"):
        common.add_argument(f"--{name}")
    for name in ("non-interactive", "logtostderr", "logflow", "debug", "disable-integrity-checking"):
        common.add_argument(f"--{name}", action="store_true")
    return common


def _operation(parser: ArgumentParser) -> None:
    for name in ("message", "client", "exec-kind", "event-log", "exec-agent"):
        parser.add_argument(f"--{name}")
    parser.add_argument("-p", "--parallel", type=int, default=16)
    for name in ("replace", "target"):
        parser.add_argument(f"--{name}", action="append", default=[])
    flags = ("continue-on-error", "clear-pending-creates", "diff", "expect-no-changes", "preview-only", "refresh")
    for name in (*flags, "skip-preview", "suppress-outputs", "suppress-progress", "exclude-protected"):
        parser.add_argument(f"--{name}", action="store_true")


def _stack(actions: Any, common: ArgumentParser) -> None:
    def add(name: str, *flags: str, named: bool = True) -> ArgumentParser:
        parser: ArgumentParser = actions.add_parser(name, parents=[common])
        if named:
            parser.add_argument("name", nargs="?")
        for flag in flags:
            parser.add_argument(f"--{flag}", action="store_true")
        return parser

    add("init", "no-select").add_argument("--secrets-provider")
    add("select", "create")
    add("unselect", named=False)
    add("ls", "all", named=False).add_argument("-p", "--project")
    add("rm", "force", "preserve-config")
    add("output", "show-secrets")
    add("export", "show-secrets", named=False).add_argument("--file")
    add("import", "force", named=False).add_argument("--file")
    history = add("history", "show-secrets", named=False)
    history.add_argument("--page-size", type=int)
    history.add_argument("--page", type=int, default=1)


def _config(actions: Any, common: ArgumentParser) -> None:
    for name in ("get", "set", "rm"):
        parser = actions.add_parser(name, parents=[common])
        parser.add_argument("key")
        if name == "set":
            parser.add_argument("value", nargs="?")
            parser.add_argument("--secret", action="store_true")
            parser.add_argument("--plaintext", action="store_true")
    several = actions.add_parser("set-all", parents=[common])
    for name in ("plaintext", "secret"):
        several.add_argument(f"--{name}", action="append", default=[])
    actions.add_parser("rm-all", parents=[common]).add_argument("keys", nargs="*")
    actions.add_parser("refresh", parents=[common]).add_argument("--force", action="store_true")
