"""Where this client keeps things, from its environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from provisioners.contract import Site


def recipe_home(env: Mapping[str, str] = os.environ) -> Path:
    """RECIPE_HOME, or ~/.recipe."""
    return Path(env.get("RECIPE_HOME") or Path.home() / ".recipe").expanduser().resolve()


def recipe_cache(env: Mapping[str, str] = os.environ) -> Path:
    """Where installed engines are kept: the user's cache directory, as the XDG base directory specification has it."""
    return Path(env.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser().resolve() / "recipe"


def site_of(env: Mapping[str, str]) -> Site:
    """All of it; what happens to the environment later changes nothing in it."""
    from provisioners.contract import Site  # a list of runs needs a folder and no contract

    return Site(home=recipe_home(env), cache=recipe_cache(env), env=dict(env))
