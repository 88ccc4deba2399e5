"""Commands of no stack in particular, and `cancel`."""

from __future__ import annotations

import json
from argparse import Namespace

from .backend import VERSION, delete
from .context import Context
from .project import user


def whoami(context: Context, options: Namespace) -> None:
    print(json.dumps({"user": user(), "organizations": [], "url": context.backend.url}) if options.json else user())


def about(context: Context, options: Namespace) -> None:
    backend = {"name": "double", "url": context.backend.url, "user": user()}
    print(json.dumps({"cliAbout": {"version": VERSION}, "backend": backend, "errors": []}, indent=2))


def cancel(context: Context, options: Namespace) -> None:
    """Removes the locks of a stack, whoever holds them."""
    stack = context.stack(options.name or options.stack)
    for lock in context.backend.locks(stack):
        delete(lock)
    print(f"The currently running update for '{stack.name}' has been canceled!")
