"""Runs a plain program's __main__.py in the user's Python, as the executor of Pulumi's language host does."""

from __future__ import annotations

import asyncio
import json
import os
import runpy
import sys
import traceback
from typing import Any

import pulumi
import pulumi.runtime
from pulumi.runtime.settings import Settings


def main(told: dict[str, Any]) -> int:
    sys.path[0] = told["folder"]
    pulumi.runtime.configure(
        Settings(
            monitor=told["monitor"],
            engine=told["engine"],
            project=told["project"],
            stack=told["stack"],
            parallel=told["parallel"],
            dry_run=told["dry_run"],
            organization="organization",
        )
    )
    pulumi.runtime.set_all_config(
        json.loads(os.environ["PULUMI_CONFIG"]), json.loads(os.environ["PULUMI_CONFIG_SECRET_KEYS"])
    )
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(
            pulumi.runtime.run_in_stack(lambda: runpy.run_path(told["folder"], run_name="__main__") and None)
        )
    except pulumi.RunError as error:
        pulumi.log.error(str(error))
        return 1
    except Exception:
        pulumi.log.error(f"Program failed with an unhandled exception:\n{traceback.format_exc()}")
        return 32
    return 0


sys.exit(main(json.loads(sys.argv[1])))
