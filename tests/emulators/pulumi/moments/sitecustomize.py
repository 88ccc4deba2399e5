"""Ends the real engine where a test has asked for it: from its provider's process, before or after what that does.

This folder is on PYTHONPATH where the real command stands for the double, and only the dynamic provider minds it.
"""

from __future__ import annotations

import os
import sys

_PROVIDERS = {"pulumi.dynamic", "stacks.dynamic"}
_MOMENTS = {"ENGINE_DOUBLE_DIE", "ENGINE_DOUBLE_DIE_FILE"}
if _PROVIDERS & set(sys.orig_argv) and _MOMENTS & set(os.environ):
    from pathlib import Path
    from typing import Any

    import psutil
    from pulumi.runtime.proto import provider_pb2_grpc

    sys.path.append(str(Path(__file__).parents[1]))
    from double.moments import moment

    def _moments(method: str, ask: Any) -> Any:
        def asked(request: Any, context: Any) -> Any:
            moment(f"before-{method}", request.name, _end_engine)
            answer = ask(request, context)
            moment(f"after-{method}", request.name, _end_engine)
            return answer

        return asked

    def _end_engine() -> None:
        """What was to be done is not done, and nobody hears the answer."""
        next(one for one in psutil.Process().parents() if one.name() == "pulumi").kill()
        raise RuntimeError("the engine has died")

    _add = provider_pb2_grpc.add_ResourceProviderServicer_to_server

    def _added(servicer: Any, server: Any) -> None:
        for method in ("Create", "Update", "Delete", "Read"):
            setattr(servicer, method, _moments(method.lower(), getattr(servicer, method)))
        _add(servicer, server)

    provider_pb2_grpc.add_ResourceProviderServicer_to_server = _added
