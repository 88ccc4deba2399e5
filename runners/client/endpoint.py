"""Where an engine answers."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Endpoint:
    """Where an engine answers. `url` is its root; its API lies at /v1 below, if `base` does not say where else."""

    url: str
    model: str
    key: str | None = field(default=None, repr=False)
    base: str | None = None

    @property
    def api_url(self) -> str:
        return self.base or f"{self.url}/v1"

    @property
    def headers(self) -> dict[str, str]:
        """What shows the key, if there is one."""
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}
