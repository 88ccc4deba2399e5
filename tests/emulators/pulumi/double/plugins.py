"""`plugin …`: dynamic providers need none, so there are none."""

from __future__ import annotations

import json
from argparse import Namespace

from .context import Context
from .errors import CommandFailed


def ls(context: Context, options: Namespace) -> None:
    print(json.dumps([]) if options.json else "NAME  KIND  VERSION  SIZE  INSTALLED  LAST USED")


def install(context: Context, options: Namespace) -> None:
    raise CommandFailed("the double installs no plugins")


about = rm = install
