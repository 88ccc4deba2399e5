"""Provisioners by their name: which there are, one of them, and whom it stands upon."""

from __future__ import annotations

import provisioners.providers
from provisioners.contract import Provisioner, Site
from recipes.plugins import load_plugin

PROVISIONERS = (provisioners.providers, "gpu_recipe.provisioners")
"""Where they are looked for: a package, and a group of entry points."""


def provisioner_named(site: Site, name: str) -> Provisioner:
    """The provisioner of this name. Raises UsageError if there is none."""
    made: Provisioner = load_plugin(*PROVISIONERS, name)(site)
    return made


def underlying_of(provisioner: Provisioner) -> str:
    """Who lists its machines, and keeps the volumes that they mount: the one that it stands upon, or itself."""
    return str(getattr(provisioner, "underlying", provisioner.name))
