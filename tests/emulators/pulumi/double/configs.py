"""`config …`: the stack's configuration in Pulumi.<stack>.yaml, secrets encrypted."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from typing import Any

from .context import Context
from .errors import CommandFailed
from .project import StackName
from .values import Properties, is_secret, revealed


def about(context: Context, options: Namespace) -> None:
    """`config` alone: all of it."""
    stack = context.stack(options.stack)
    config = context.config(stack, context.crypter(stack))
    if options.json:
        print(json.dumps({key: _entry(value, shown=options.show_secrets) for key, value in config.items()}, indent=2))
        return
    for key, value in config.items():
        print(f"{key.removeprefix(f'{stack.project}:')}  {_shown(value, shown=options.show_secrets)}")


def get(context: Context, options: Namespace) -> None:
    stack = context.stack(options.stack)
    key = _full(options.key, stack)
    config = context.config(stack, context.crypter(stack))
    if key not in config:
        raise CommandFailed(f"configuration key '{options.key}' not found for stack '{stack.name}'")
    print(json.dumps(_entry(config[key], shown=True), indent=2) if options.json else revealed(config[key]))


def set(context: Context, options: Namespace) -> None:  # noqa: A001
    given = [word for word in (options.value, *options.rest) if word is not None]
    if len(given) > 1:
        raise CommandFailed(f"accepts at most 2 arg(s), received {1 + len(given)}")
    value = given[0] if given else sys.stdin.read().strip()
    _change(context, options, {options.key: (value, options.secret)})


def set_all(context: Context, options: Namespace) -> None:
    pairs = [(pair, False) for pair in options.plaintext] + [(pair, True) for pair in options.secret]
    given = {pair.partition("=")[0]: (pair.partition("=")[2], secret) for pair, secret in pairs}
    _change(context, options, given)


def rm(context: Context, options: Namespace) -> None:
    _remove(context, options, [options.key])


def rm_all(context: Context, options: Namespace) -> None:
    _remove(context, options, options.keys)


def refresh(context: Context, options: Namespace) -> None:
    raise CommandFailed("the double keeps no configuration in the state")


def _change(context: Context, options: Namespace, given: dict[str, tuple[str, bool]]) -> None:
    stack = context.stack(options.stack)
    crypter = context.crypter(stack)
    written = {
        _full(key, stack): {"secure": crypter.encrypt(value)} if secret else value
        for key, (value, secret) in given.items()
    }
    _write(context, stack, {**_written(context, stack), **written})


def _remove(context: Context, options: Namespace, keys: list[str]) -> None:
    stack = context.stack(options.stack)
    gone = {_full(key, stack) for key in keys}
    _write(context, stack, {key: value for key, value in _written(context, stack).items() if key not in gone})


def _written(context: Context, stack: StackName) -> Properties:
    return context.the_project.stack_settings(stack).get("config") or {}


def _write(context: Context, stack: StackName, config: Properties) -> None:
    settings = context.the_project.stack_settings(stack)
    context.the_project.save_stack_settings(stack, {**settings, "config": config})


def _full(key: str, stack: StackName) -> str:
    return key if ":" in key else f"{stack.project}:{key}"


def _entry(value: Any, *, shown: bool) -> dict[str, Any]:
    secret = is_secret(value)
    return {**({"value": str(revealed(value))} if shown or not secret else {}), "secret": secret}


def _shown(value: Any, *, shown: bool) -> str:
    return str(revealed(value)) if shown or not is_secret(value) else "[secret]"
