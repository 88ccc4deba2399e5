"""What each check computes and from where, for recipe plan --explain; engines add theirs to these."""

from __future__ import annotations

from collections.abc import Iterable

from recipes.errors import UsageError
from recipes.explain import did_you_mean
from runners.engine import Engine

GENERIC = {
    "memory": (
        "usable × the engine's share = weights + activation + other + KV cache; what is left of usable is not "
        "touched. usable is what the driver gives to programs, not the number on the box. weights come from the "
        "headers of the model's files and how the engine splits them. activation is the peak of a forward pass, "
        "other the driver's context, communication buffers and CUDA graphs. KV tokens = KV bytes ÷ bytes per "
        "token, in whole blocks.\n"
        "Source: provisioners/accelerators.csv for usable, the model's own headers, and what --explain weights "
        "and --explain kv-cache say of the engine"
    ),
    "forecast": (
        "The sum of the phases, each as low, likely and high: nine times in ten the truth should lie between. "
        "Preparing: bytes ÷ speed of the network and the disk. Driving: prompt tokens are bound by arithmetic (2 "
        "× parameters × tokens ÷ peak speed), output tokens by memory (weights and KV cache read once per step ÷ "
        "bandwidth), each times what runs reach in practice; requests that do not fit the KV cache wait. Dollars "
        "= seconds × price per hour ÷ 3600.\n"
        "Source: provisioners/accelerators.csv for speed and bandwidth; runs of yours in the experiment log "
        "replace these estimates where they used the same model, engine and hardware"
    ),
    "architecture": (
        "The engine must know the architecture that config.json, or the GGUF file, names. One that recipe does not "
        "know is computed from its sizes like an ordinary transformer, and the plan warns that it did.\n"
        "Source: the model's own config; the architectures that runners/modelfacts knows"
    ),
    "weights": (
        "Weights on one accelerator = bytes of the tensors that are split ÷ tensor × pipeline parallel size, and all "
        "bytes of those that are not, in the type in which they are computed with, against its usable memory.\n"
        "Source: the headers of the model's files; the engine's own splitting"
    ),
    "kv-cache": (
        "KV bytes = memory that the engine may take − weights − activation − the rest; tokens = KV bytes ÷ bytes per "
        "token; one request of max_model_len must fit. Bytes per token = layers × KV heads × (key + value size) × "
        "bytes of an element, on one accelerator.\n"
        "Source: the engine's release; --explain memory shows this plan's parts"
    ),
    "ram": (
        "What the engine keeps outside of accelerators, and all that it keeps without any, against the machine's "
        "memory.\n"
        "Source: the engine's release; the offer, or the machine itself"
    ),
    "parallelism": (
        "tensor × pipeline × data parallel size is how many accelerators the engine starts on; the machine must "
        "have as many.\n"
        "Source: the engine's own start, which counts the same product"
    ),
    "idle-accelerators": (
        "tensor × pipeline × data parallel size below the number of accelerators that are rented leaves the "
        "others idle, at their full price.\n"
        "Source: arithmetic on the recipe"
    ),
    "context": (
        "longest request = the longest chunk + the template around it + special tokens + max_tokens; the engine "
        "takes no request longer than its context.\n"
        "Source: counted on your inputs with the model's own tokenizer; the context as the recipe's flags set it,"
        " else the model's own"
    ),
    "concurrency": (
        "requests at once = KV tokens ÷ tokens of the longest request, and at most the engine's own slots. What "
        "is asked beyond waits in the engine's queue: nothing is lost but latency.\n"
        "Source: the memory above; workload.concurrency"
    ),
    "disk": (
        "model download + the engine's environment + 1 GB for logs and caches ≤ the disk that a run can write. A "
        "volume takes the caches and, if model.path lies on it, the model.\n"
        "Source: the sizes that the Hub states for each file; the engine's release as installed; "
        "resources.disk_size and volumes"
    ),
    "volume": (
        "model, if model.path lies on the volume, + the engine's environment + 1 GB ≤ the volume's size.\n"
        "Source: the sizes that the Hub states for each file; resources.volumes"
    ),
    "access": (
        "The Hub is asked for the repository, the revision and, if it is gated, whether this token may have its "
        "files.\n"
        "Source: the Hub's own answer, at HF_ENDPOINT with HF_TOKEN"
    ),
    "busy": (
        "What other programs left free on the accelerators against what the engine takes of them (vLLM: "
        "gpu_memory_utilization × memory, and since 0.9 it refuses to start with less).\n"
        "Source: nvidia-smi's memory.free at this moment; --explain memory"
    ),
    "cuda": (
        "A driver runs what is built for its own major release of CUDA or an older one, newer minor releases too,"
        " but for code that the driver itself has to compile.\n"
        "Source: NVIDIA, CUDA Compatibility, Minor Version Compatibility"
    ),
    "price": (
        "An offer above limits.max_price, per hour for the whole machine, is passed over.\n"
        "Source: the provider's price of this moment; limits.max_price"
    ),
    "budget": (
        "The forecast's dollars against limits.max_cost: a likely cost above it is refused, for such a run would be "
        "stopped before its end; a high one is warned of, and so is a forecast that is hardly more than a guess (its "
        "high end above 20 times its low one).\n"
        "Source: --explain forecast; limits.max_cost"
    ),
    "budget-month": (
        "What this calendar month has cost (UTC, by the log of this machine), what runs that are going on are likely "
        "to cost or have cost by now, what machines without a living run have cost, and the forecast of this run and "
        "of those before it in the same command, against --budget-month. A likely cost above it is refused; a high "
        "one is warned of, and so is a likely one from 80 % of the budget on. A run counts in the month in which it "
        "began, at most with its limits.max_cost.\n"
        "Source: --budget-month, or RECIPE_BUDGET_MONTH; recipe runs --by month; --explain forecast"
    ),
    "duration": (
        "The forecast's time against limits.max_duration, as for budget; counted from when a machine is asked for.\n"
        "Source: --explain forecast; limits.max_duration"
    ),
    "tokenizer": (
        "Chunks are counted in the model's own tokens, so its tokenizer.json, or another that is named, must be there."
        "\n"
        "Source: the model's files; workload.tokenizer"
    ),
    "offline": (
        "The Hub did not answer, and what it said of this model before was used: the same commit, which a branch may "
        "have left since.\n"
        "Source: the answers that are kept in the cache, by commit"
    ),
    "cache": (
        "What the Hub says of a commit is kept, so that the next plan asks for next to nothing. Where the cache cannot "
        "be written everything is asked for each time; nothing else changes.\n"
        "Source: the folder recipe in XDG_CACHE_HOME, or in ~/.cache"
    ),
    "stock": (
        "What the provider says of its stock now; it reserves nothing, so a machine may be gone, or there, a "
        "minute later.\n"
        "Source: the provider's catalogue"
    ),
    "machine": (
        "The provisioner was asked for what resources says, and offers nothing.\nSource: the provisioner's own answer"
    ),
    "secret": (
        "Every name under secrets must have a value in your environment; values are passed to the machine and "
        "written nowhere.\n"
        "Source: secrets, and your environment"
    ),
    "reserved": (
        "recipe sets the engine's model, port, address and key itself; another value would leave the run waiting,"
        " or the engine open to anybody.\n"
        "Source: the engine's plug-in"
    ),
    "assumption": (
        "Something had to be assumed because nothing said it: an accelerator that the table does not have, a "
        "model whose architecture recipe does not know. What follows from it is less sure, so it warns where it "
        "would refuse.\n"
        "Source: the message itself names it"
    ),
    "idle": (
        "limits.idle_duration is a rented machine's own switch; a machine that is not rented has none.\n"
        "Source: limits.idle_duration"
    ),
    "unlimited": (
        "Without limits.max_cost and max_duration only the machine's own switch ends a forgotten run, after a "
        "day.\n"
        "Source: limits"
    ),
    "exposed": ("engine.expose opens the engine's port to the internet, behind a random key.\nSource: engine.expose"),
    "force": (
        "--force CODE lets a check pass that would refuse; it names none of this plan's.\nSource: your command line"
    ),
}


def known_words(engines: Iterable[Engine]) -> list[str]:
    """Everything that can be explained, and forced if it is a check."""
    return sorted({*GENERIC, *(word for engine in engines for word in engine.explains)})


def explanation(word: str, engine: Engine) -> str:
    """The formula and its sources: the engine's own, where it has one. Raises UsageError for an unknown word."""
    text = engine.explains.get(word) or GENERIC.get(word)
    if text is None:
        known = known_words([engine])
        hint = did_you_mean(word, known)
        hint = f"{hint} " if hint.startswith("did you mean") else ""
        raise UsageError(
            f"--explain {word}: there is no such check of {engine.name}", advice=f"{hint}known: {', '.join(known)}"
        )
    return text
