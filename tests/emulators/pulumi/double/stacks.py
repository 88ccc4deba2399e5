"""`stack …`: the commands that only read or rename files. None of them needs gRPC."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .backend import Backend
from .context import Context
from .errors import CommandFailed, NoSuchStack
from .project import StackName
from .resources import STACK_TYPE
from .secrets import Crypter
from .values import is_secret, masked, revealed, walk

HAS_RESOURCES = (
    "'{name}' still has resources; removal rejected. Possible actions:\n"
    "- Make sure that '{name}' is the stack that you want to destroy\n"
    "- Run `pulumi destroy` to delete the resources, then run `pulumi stack rm`\n"
    "- Run `pulumi stack rm --force` to override this error"
)


def init(context: Context, options: Namespace) -> None:
    stack = context.new_stack(options.name or options.stack)
    if not options.no_select:
        context.the_project.select(stack)
    print(f"Created stack '{stack.name}'")


def select(context: Context, options: Namespace) -> None:
    given = options.name or options.stack
    try:
        context.the_project.select(context.stack(given))
    except CommandFailed:
        if not options.create:
            raise
        init(context, Namespace(name=given, stack=None, no_select=False))


def unselect(context: Context, options: Namespace) -> None:
    context.the_project.select(None)
    print("Stack was unselected")


def ls(context: Context, options: Namespace) -> None:
    project = options.project or (None if options.all or context.project is None else context.project.name)
    current = context.project.selected() if context.project else None
    found = [_row(context.backend, stack, current, context) for stack in context.backend.stacks(project)]
    rows = [row for row in found if row is not None]
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    table = [("NAME", "LAST UPDATE", "RESOURCE COUNT")]
    for row in rows:
        name = row["name"] + "*" * row["current"]
        table.append((name, row.get("lastUpdate", "n/a"), str(row.get("resourceCount", "n/a"))))
    print("\n".join(f"{name:24}  {updated:28}  {count}" for name, updated, count in table))


def _row(backend: Backend, stack: StackName, current: str | None, context: Context) -> dict[str, Any] | None:
    """None where another has removed it since it was listed."""
    here = context.project is not None and context.project.name == stack.project
    row: dict[str, Any] = {
        "name": stack.name if here else stack.full,
        "current": stack.full == current,  # whether it is being changed, only Pulumi's own service tells
    }
    try:
        latest = backend.load(stack)
    except NoSuchStack:
        return None
    if latest is not None:
        row |= {"lastUpdate": latest["manifest"]["time"], "resourceCount": len(latest.get("resources") or [])}
    return row


def rm(context: Context, options: Namespace) -> None:
    stack = context.stack(options.name or options.stack)
    with context.backend.locked(stack):
        entries = (context.backend.load(stack) or {}).get("resources") or []
        if [one for one in entries if one["type"] != STACK_TYPE] and not options.force:
            raise CommandFailed(HAS_RESOURCES.format(name=stack.name))
        context.backend.remove(stack)
    if context.project and context.project.name == stack.project:
        if not options.preserve_config:
            context.project.stack_file(stack).unlink(missing_ok=True)
        context.project.select(None)
    print(f"Stack '{stack.name}' has been removed!")


def output(context: Context, options: Namespace) -> None:
    stack = context.stack(options.stack)
    entries = (context.backend.load(stack) or {}).get("resources") or []
    outputs = next((one.get("outputs") or {} for one in entries if one["type"] == STACK_TYPE), {})
    if options.show_secrets and outputs:
        outputs = revealed(context.state_crypter(stack).opened(outputs))
    shown = masked(outputs)
    if options.name:
        if options.name not in shown:
            raise CommandFailed(f"current stack does not have output property '{options.name}'")
        shown = shown[options.name]
        print(json.dumps(shown) if options.json or not isinstance(shown, str) else shown)
    elif options.json:
        print(json.dumps(shown, indent=2))
    else:
        print(f"Current stack outputs ({len(shown)}):")
        for key, value in sorted(shown.items()):
            print(f"    {key}  {value if isinstance(value, str) else json.dumps(value)}")


def export(context: Context, options: Namespace) -> None:
    stack = context.stack(options.stack)
    deployment = context.backend.load(stack) or {
        "manifest": {"time": "0001-01-01T00:00:00Z", "magic": "", "version": ""}
    }
    if options.show_secrets:
        deployment = walk(context.state_crypter(stack).opened(deployment), _plaintext)
    text = json.dumps({"version": 3, "deployment": deployment}, indent=4)
    if options.file:
        Path(options.file).write_text(text)
    else:
        print(text)


def import_(context: Context, options: Namespace) -> None:
    stack = context.stack(options.stack)
    given = json.loads(Path(options.file).read_text() if options.file else sys.stdin.read())
    deployment = given["deployment"]
    for entry in deployment.get("resources") or []:
        if f"urn:pulumi:{stack.name}::{stack.project}::" not in entry["urn"] and not options.force:
            raise CommandFailed(f"resource '{entry['urn']}' belongs to another stack; use --force to import it")
    crypter = context.crypter(stack)
    sealed = crypter.sealed(crypter.opened(deployment))
    with context.backend.locked(stack):
        context.backend.save(stack, {**sealed, "secrets_providers": _provider_of(crypter)})
    print("Import complete.")


def history(context: Context, options: Namespace) -> None:
    stack = context.stack(options.stack)
    updates = context.backend.history(stack)
    rows = [{**update, "version": len(updates) - n} for n, update in enumerate(updates)]
    if options.page_size:
        first = (options.page - 1) * options.page_size
        rows = rows[first : first + options.page_size]
    for row in rows:
        row |= {key: _moment(row[key]) for key in ("startTime", "endTime")}
    print(json.dumps(rows, indent=2) if options.json else "\n".join(f"{row['kind']} {row['result']}" for row in rows))


def about(context: Context, options: Namespace) -> None:
    """`stack` alone."""
    stack = context.stack(options.stack)
    entries = (context.backend.load(stack) or {}).get("resources") or []
    print(f"Current stack is {stack.name}:\n    Managed by {context.backend.url}")
    print(f"Current stack resources ({len(entries)})")


def _plaintext(part: Any) -> Any:
    if not (is_secret(part) and "value" in part):
        return part
    return {key: value for key, value in part.items() if key != "value"} | {"plaintext": json.dumps(part["value"])}


def _provider_of(crypter: Crypter) -> dict[str, Any]:
    return {"type": "passphrase", "state": {"salt": crypter.state}}


def _moment(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
