"""The recipe as a frozen value: every field of the file with its type, its default and what it means."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, JsonValue, StringConstraints, model_validator

from recipes.fields import (
    AcceleratorCount,
    AutoCount,
    CoreCount,
    Count,
    DurationS,
    EnvName,
    EnvText,
    MemoryAmount,
    Section,
    SizeBytes,
    Tag,
    Text,
    Usd,
)
from recipes.traffic import Traffic

# The names that a recipe file may use for where it runs; further ones come as plug-ins.
PROVISIONERS = ("local", "ssh", "runpod", "slurm", "pulumi")


def _below_work_dir(value: str) -> str:
    if value.startswith(("/", "~")) or ".." in value.split("/"):
        raise ValueError(f"{value!r} leads out of the work directory; write a path or glob below it")
    return value


class Volume(Section):
    """A disk that is mounted into the machine."""

    path: Text
    """Where it is mounted."""
    size: SizeBytes | None = None
    """How large it is, if it is made for this run."""
    name: Text | None = None
    """An existing volume of this name or id."""
    stack: Text | None = None
    """That of a stack of yours: model_cache, or model_cache/NAME for one of several."""

    @model_validator(mode="after")
    def _of_a_stack(self) -> Self:
        if self.stack is None:
            return self
        if not re.fullmatch(r"model_cache(/[A-Za-z0-9][A-Za-z0-9_.-]{0,99})?", self.stack):
            raise ValueError(f"stack {self.stack}: no stack with a volume; write model_cache or model_cache/NAME")
        if self.name or self.size:
            other = "name" if self.name else "size"
            raise ValueError(f"stack {self.stack} has its own {other}; remove {other}")
        return self


class Fallback(Section):
    """Another way to get the hardware, tried when the ones before it have no capacity; what it leaves out stays."""

    accelerators: AcceleratorCount | None = None
    cloud: Literal["secure", "community"] | None = None
    regions: tuple[Text, ...] = ()
    use_spot: bool | None = None


class Resources(Section):
    """The machine."""

    provisioner: Text = "local"
    """Where it comes from: local, ssh, runpod, slurm, pulumi, or a plug-in's name."""
    accelerators: AcceleratorCount | None = None
    """NAME:COUNT, as in A100-80GB:2; nothing for a CPU."""
    any_of: tuple[Fallback, ...] = ()
    """Fallbacks, in order."""
    cloud: Literal["secure", "community"] | None = None
    """Which of the provider's clouds."""
    regions: tuple[Text, ...] = ()
    """Data centres that will do; any, if empty."""
    hosts: tuple[Text, ...] = ()
    """For ssh: user@host:port, one or more; the first that is free is taken."""
    ssh_key: Text | None = None
    """For ssh: a private key's file; the agent's keys and ~/.ssh, if left out."""
    jump_host: Text | None = None
    """For ssh: user@host:port through which the hosts are reached."""
    image: Text | None = None
    """The container image."""
    cpus: CoreCount | None = None
    """Cores: 16, or 16+ for at least so many."""
    memory: MemoryAmount | None = None
    """RAM: 128GB, or 128GB+ for at least so much."""
    disk_size: SizeBytes | None = None
    """The container's own disk."""
    volumes: tuple[Volume, ...] = ()
    use_spot: bool = False
    price_per_hour: Usd | None = None
    """What a machine of your own costs in USD per hour with all that belongs to it, for the books."""
    price_per_kwh: Usd | None = None
    """What electricity costs you in USD per kilowatt-hour; it is what a machine without price_per_hour costs."""
    api: Literal["rest", "graphql"] = "rest"
    """For runpod: which of its interfaces; graphql is experimental and will be ended by RunPod."""
    retry: DurationS | None = None
    """Go on asking for so long where there is no capacity; not at all, if left out."""

    @model_validator(mode="after")
    def _hosts_for_ssh(self) -> Self:
        if self.provisioner == "ssh" and not self.hosts:
            raise ValueError("provisioner ssh needs hosts; write hosts: [user@host:22]")
        return self


class Model(Section):
    """The model: from the Hub (`repo`), from a path, or one that ships with recipe (`builtin`)."""

    repo: Text | None = None
    """A repository of the Hub: owner/name."""
    revision: Text | None = None
    """A branch, tag or commit of it; main, if left out."""
    file: Text | None = None
    """One file of the repository, or a pattern, where it holds several forms of the model (GGUF)."""
    path: Text | None = None
    """With repo: where it is stored on the machine. Alone: a folder or a GGUF file."""
    builtin: Text | None = None
    """The name of a model that ships with recipe."""
    served_name: Text | None = None
    """The name under which the engine serves it."""

    @property
    def local_path(self) -> str | None:
        return self.path if self.repo is None and self.builtin is None else None

    @property
    def identifier(self) -> str:
        """What people call the model."""
        return self.served_name or self.repo or self.builtin or Path(self.path or "model").stem

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.builtin and (self.repo or self.path):
            raise ValueError("builtin stands alone; remove repo and path")
        if not self.repo and (self.revision or self.file):
            raise ValueError("revision and file need a repo")
        return self


class Engine(Section):
    """The server that runs the model."""

    name: Text = "llamacpp"
    version: Text | None = None
    """The release to install; the plug-in's tested one, if left out."""
    expose: bool = False
    """Opens the engine's port to the internet, behind its key; without it only the host itself and its tunnel do."""
    url: Text | None = None
    """The address of an endpoint that runs already, with its /v1; for engines that are not launched, such as openai."""
    api_key_env: Text | None = None
    """The environment variable that holds that endpoint's key; list it under secrets."""
    tensor_parallel_size: Count = 1
    pipeline_parallel_size: Count = 1
    data_parallel_size: Count = 1
    args: dict[str, JsonValue] = {}
    """The engine's own flags, verbatim, without their dashes."""
    env: dict[EnvName, EnvText] = {}

    @model_validator(mode="after")
    def _url_of_the_web(self) -> Self:
        if self.url is not None and not self.url.startswith(("http://", "https://")):
            raise ValueError(f"url {self.url}: must begin with http:// or https://")
        return self


class Workload(Section):
    """What is done with the engine."""

    name: Text = "summarize"
    inputs: Annotated[tuple[Text, ...], Field(min_length=1)] = ()
    """Text files and globs, relative to the file that names them."""
    prompt: Text = "builtin:summarize"
    """A prompt file (YAML with `prompt_template`, or plain text), or the template itself; it holds {{ prompt }}."""
    api: Literal["completions", "chat"] = "completions"
    """The endpoint that is called: /v1/completions or /v1/chat/completions."""
    tokenizer: Text | None = None
    """A tokenizer.json, a folder that holds one, or a repository; the model's own, if left out."""
    chunk_size: Annotated[int, Field(ge=2)] = 3000
    """Texts of this many tokens or more are split."""
    chunk_overlap: Annotated[int, Field(ge=0, default_factory=lambda data: min(512, data.get("chunk_size", 2048) // 4))]
    """How many tokens a chunk may share with the one before; 512, or a quarter of a small chunk_size, if left out."""
    separators: Literal["paragraphs", "sentences"] = "paragraphs"
    """Where texts are cut: paragraphs, lines, words, characters; or paragraphs, lines, full stops."""
    balanced: bool = False
    """Chunks of about equal size, instead of full ones and a small last one."""
    whole_sentences: bool = False
    """Cut only between sentences, where a chunk holds more than one."""
    strategy: Literal["recursive", "hierarchical", "pairwise", "refine"] = "recursive"
    """How summaries become one: all joined and split again; merged as many as fit; merged two by two; or one summary
    that each chunk in turn refines."""
    max_tokens: Count = 1000
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.2
    seed: int | None = None
    concurrency: AutoCount = "auto"
    """How many requests are under way at once; auto: as many as the engine runs, found from its metrics."""
    where: Literal["client", "host"] = "client"
    """Where the requests come from: this client, through its tunnel, or the machine itself, which goes on alone."""
    retries: Annotated[int, Field(ge=0, le=100, default_factory=lambda data: 0 if data.get("name") == "load" else 5)]
    """How often a request is tried again after 429, 5xx, a reset or a timeout; 5, of a load 0, if left out."""
    request_timeout: DurationS = 1200.0
    on_empty: Literal["fail", "skip"] = "fail"
    """What an empty answer does to its document: it fails, or goes on without that chunk; it is counted either way."""
    max_levels: Count = 10
    """How often summaries may be summarised again before the document counts as failed."""
    traffic: Traffic | None = None
    """For load: the shape of the load."""
    settings: dict[str, JsonValue] = {}
    """Settings of a workload plug-in of your own."""

    @property
    def at_once(self) -> int | None:
        """How many requests are under way at most, if the recipe says so."""
        if self.traffic is not None:
            return max(self.traffic.concurrency, default=None)
        return None if self.concurrency == "auto" else self.concurrency

    @model_validator(mode="after")
    def _something_to_do(self) -> Self:
        if self.name == "load" and self.traffic is None:
            raise ValueError("load needs traffic; write traffic: {concurrency: [1, 8], synthetic: {input_tokens: 512}}")
        if self.name == "summarize" and self.traffic is not None:
            raise ValueError("traffic is not for summarize; write name: load, or remove it")
        if self.name != "load" and not self.inputs:
            raise ValueError("no inputs; write inputs: [texts/*.txt]")
        return self

    @model_validator(mode="after")
    def _overlap_below_size(self) -> Self:
        if self.chunk_overlap >= self.chunk_size:
            raise ValueError(f"chunk_overlap {self.chunk_overlap} must be smaller than chunk_size {self.chunk_size}")
        return self


class Deadlines(Section):
    """How long each phase may take."""

    provision: DurationS = 900.0
    prepare: DurationS = 7200.0
    launch: DurationS = 3600.0
    drive: DurationS = 86400.0
    collect: DurationS = 600.0
    release: DurationS = 60.0
    """How long to go on asking for the proof that the machine is gone."""


class Limits(Section):
    """What the run may cost and how long it may take."""

    max_cost: Usd | None = None
    """USD for the whole run; it is stopped before more is spent."""
    max_price: Usd | None = None
    """USD per hour of the machine, its disks not counted; dearer offers are passed over, and without another the run is
    refused."""
    max_duration: DurationS | None = None
    """The machine is let go after this time, whatever happens."""
    idle_duration: DurationS | None = None
    """A rented machine lets itself go after this time without a client or progress; 10 minutes, if left out."""
    deadlines: Deadlines = Deadlines()


class Metrics(Section):
    """A page for Prometheus while the run goes on."""

    port: Annotated[int, Field(ge=0, le=65535)]
    """Where it is served; 0 for any port that is free."""
    address: Text = "127.0.0.1"
    """On which address; it has no secrets, and asks nobody who he is."""


class Recipe(Section):
    """One run: a machine, a model, an engine, a workload, limits, and what is brought back."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")]
    description: str = ""
    tags: tuple[Tag, ...] = ()
    """Words by which the experiment log finds and sums its runs."""
    resources: Resources = Resources()
    env: dict[EnvName, EnvText] = {}
    """Environment variables for everything that runs on the machine."""
    secrets: tuple[EnvName, ...] = ()
    """Names of environment variables that travel as secrets; their values are never written anywhere."""
    model: Model = Model()
    engine: Engine = Engine()
    workload: Workload
    limits: Limits = Limits()
    metrics: Metrics | None = None
    collect: tuple[Annotated[Text, AfterValidator(_below_work_dir)], ...] = ()
    """Further files to bring back from the work directory; globs too."""

    @model_validator(mode="after")
    def _a_model_to_launch(self) -> Self:
        if self.engine.url is None and not (self.model.repo or self.model.path or self.model.builtin):
            raise ValueError("no model; write model: {repo: owner/name}, {path: …} or {builtin: lead}")
        key = self.engine.api_key_env
        if key and key not in self.secrets:
            raise ValueError(f"engine.api_key_env {key} is not under secrets; write secrets: [{key}]")
        return self

    def resolved(self) -> dict[str, Any]:
        """Every field with its value, as plain data that a recipe file could hold."""
        data: dict[str, Any] = self.model_dump(mode="json", exclude_none=True)
        if not self.workload.inputs:
            del data["workload"]["inputs"]  # written down, none would be one too few
        return data


def name_from(text: str) -> str:
    """The name of a recipe whose file has this name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:80] or "recipe"


ASIDE = frozenset({"tags", "metrics"})
"""Fields of a recipe that say how its runs are watched and filed, and change nothing of what they do."""


def digest_of(data: Any) -> str:
    """The first 16 hex digits of the SHA-256 of the data's canonical JSON."""
    canonical = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]
