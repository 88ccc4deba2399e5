"""The plug-ins that are installed, by name."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import runners.engines
import runners.workloads
from provisioners.named import PROVISIONERS, provisioner_named
from provisioners.site import site_of
from recipes.errors import Refused
from recipes.plugins import PluginNames, load_plugin
from recipes.references import Plugins

if TYPE_CHECKING:
    from provisioners.contract import Provisioner, Site
    from runners.engine import Engine
    from runners.workload import Workload

ENGINES = (runners.engines, "gpu_recipe.engines")
WORKLOADS = (runners.workloads, "gpu_recipe.workloads")


class NoSuchProvisioner(Refused):
    """The recipe is right, and this version cannot run it."""

    code = "machine"
    path = "resources.provisioner"


def installed() -> Plugins:
    """The names of all plug-ins; imports none of them."""
    return Plugins(
        PluginNames(*PROVISIONERS),
        PluginNames(*ENGINES),
        PluginNames(*WORKLOADS),
        is_endpoint=lambda name: engine(name).model_form == "none",
    )


def site() -> Site:
    """Where this client keeps things, from its environment."""
    return site_of(os.environ)


def provisioner(name: str) -> Provisioner:
    """The provisioner of this name. Raises Refused if this version has none."""
    known = PluginNames(*PROVISIONERS)
    if name not in known:
        raise NoSuchProvisioner(
            f"resources.provisioner {name} is not in this version of recipe",
            advice=f"it has {', '.join(known)}; a plug-in can add others",
        )
    return provisioner_named(site(), name)


def engine(name: str) -> Engine:
    found: Engine = load_plugin(*ENGINES, name)
    return found


def workload(name: str) -> Workload:
    found: Workload = load_plugin(*WORKLOADS, name)
    return found
