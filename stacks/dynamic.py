"""Pulumi's dynamic provider in a process that ends with its engine from its first moment on.

`python -u -m stacks.dynamic` in place of `python -u -m pulumi.dynamic`. An engine starts it seconds before it asks it
anything, and may have been killed by then: nobody would ever ask it, nor end it.
"""

from __future__ import annotations

import runpy

from stacks.lifeline import watch_engine

if __name__ == "__main__":
    watch_engine()
    runpy.run_module("pulumi.dynamic", run_name="__main__", alter_sys=True)
