"""The environments of real engines on this machine, made as a run makes them and kept where it keeps them."""

from __future__ import annotations

import os
import sys

from provisioners.site import recipe_cache
from runners import registry
from runners.environments import environment_name
from runners.onhost import install_engine


def python_of(name: str) -> str:
    """The Python of an engine's environment for the CPU."""
    engine = registry.engine(name)
    version = engine.default_version or ""
    installation = engine.installation(version, accelerated=False)
    assert installation
    directory = str(recipe_cache(os.environ) / "engines" / environment_name(name, version, installation))
    steps = [{"argv": list(step.argv), "env": dict(step.env)} for step in installation.steps]
    made: tuple[str, bool] = install_engine.install(
        directory, {"python": sys.executable, "steps": steps, "check": list(installation.check)}
    )
    return made[0]
