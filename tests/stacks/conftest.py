"""The engine double for the tests of this folder."""

from __future__ import annotations

from tests.emulators.pulumi import pulumi_engine

__all__ = ["pulumi_engine"]
