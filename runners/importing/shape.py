"""What a result.json must hold for everything here to read it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from runners.exporting.columns import as_time
from runners.importing.plausible import LARGEST, implausible

SCHEMA_VERSION = 1
"""The newest that this recipe knows."""
Number = Annotated[float, Field(allow_inf_nan=False, ge=0, le=LARGEST)]
Share = Annotated[float, Field(allow_inf_nan=False, ge=0, le=1)]
Count = Annotated[int, Field(ge=0, le=LARGEST)]
RunId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,120}-\d{8}-\d{6}-[0-9a-f]{4}$")]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,120}$")]


def _instant(text: str) -> str:
    if as_time(text) is None:
        raise ValueError("not an instant in ISO 8601")
    return text


Instant = Annotated[str, AfterValidator(_instant)]


class _Part(BaseModel):
    """The fields that are read; others may be there."""

    model_config = ConfigDict(extra="allow", strict=True)


class _Outcome(_Part):
    status: Literal["completed", "failed", "interrupted"]
    phase: str | None
    error: str | None
    advice: str | None = None


class _Phase(_Part):
    name: str
    started_at: Instant
    seconds: Number
    usd: Number | None


class _Energy(_Part):
    total_wh: Number | None = None
    usd: Number | None = None


class _Cost(_Part):
    price_usd_per_h: Number | None
    total_usd: Number | None
    billed_seconds: Number
    useful_fraction: Share
    usd_per_million_prompt_tokens: Number | None
    usd_per_million_output_tokens: Number | None
    usd_per_document: Number | None
    provider_usd: Number | None = None
    usd_per_million_tokens: Number | None = None
    idle_usd: dict[str, Number] | None = None
    idle_seconds: dict[str, Number] | None = None
    energy: _Energy | None = None


class _Peak(_Part):
    kind: str
    source: str
    tokens_per_s: Number
    at: Instant
    running: Number | None = None
    waiting: Number | None = None
    kv_usage: Number | None = None


class _Throughput(_Part):
    prompt_tokens: Count
    output_tokens: Count
    prompt_tokens_per_s: Number
    output_tokens_per_s: Number
    peak_at: list[_Peak]
    engine_counters: dict[str, Any] | None = None


class _Statistics(_Part):
    p50: Number | None
    p99: Number | None


class _Latency(_Part):
    ttft_s: _Statistics
    tpot_s: _Statistics
    e2e_s: _Statistics


class _Requests(_Part):
    ok: Count
    failed: Count
    retried: Count


class _Offer(_Part):
    provider: str
    id: str
    accelerator: str | None
    count: Count
    memory_gib: Number | None
    cpus: Count | None
    region: str | None = None


class _Model(_Part):
    identifier: str
    source: str


class _Engine(_Part):
    name: str
    version: str | None
    args: dict[str, Any] = {}


class _Documents(_Part):
    done: Count
    total: Count
    unit: str = "document"


class _Lease(_Part):
    name: str
    deadline: Instant | None
    price_usd_per_h: Number | None


class _Gone(_Part):
    state: Literal["gone"]
    name: str | None = None
    proof: str


class _MayStillBill(_Part):
    state: Literal["may-still-bill"]
    name: str | None
    reason: str
    command: str


class _Artifact(_Part):
    path: str
    sha256: str
    bytes: Count


class _Result(_Part):
    schema_version: Count
    run_id: RunId
    recipe: Name
    recipe_digest: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{4,64}$")]
    variant: dict[str, Any] = {}
    tags: list[str] = []
    git_commit: str | None
    versions: dict[str, str]
    started_at: Instant
    ended_at: Instant
    outcome: _Outcome
    exit_code: Annotated[int, Field(ge=-LARGEST, le=LARGEST)]
    warnings: list[str]
    phases: list[_Phase]
    cost: _Cost
    throughput: _Throughput
    latency: _Latency
    requests: _Requests
    offer: _Offer
    model: _Model
    engine: _Engine
    documents: _Documents
    release: _Gone | _MayStillBill
    lease: _Lease | None = None
    artifacts: list[_Artifact]


def problem_of(result: Any, now: datetime) -> str | None:
    """Why it cannot be read here, or cannot be true; None if it can."""
    version = result.get("schema_version") if isinstance(result, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        return f"a newer recipe wrote it: schema {version}, and this one knows {SCHEMA_VERSION}"
    try:
        _Result.model_validate(result)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        path = ".".join(map(str, first["loc"]))
        return f"result.json is none that recipe writes: {path or 'the document'}: {first['msg']}"
    if doubt := implausible(result, now):
        return f"result.json cannot be true: {doubt}"
    return None
