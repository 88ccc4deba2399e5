"""Runs llama.cpp's own HTTP server from the xllamacpp wheel as a process in the foreground.

    serve_llamacpp.py --model M.gguf --alias NAME --port N [--ctx-size N] [--parallel N] [--NAME VALUE …]

The key that clients must show is read from RECIPE_ENGINE_KEY. Options carry llama-server's names; further ones are the
fields of xllamacpp's CommonParams, such as `--n-gpu-layers 99`.
"""

import enum
import os
import signal
import sys
import threading

import xllamacpp

# llama-server's option → field of CommonParams.
FIELDS = {
    "ctx_size": "n_ctx",
    "parallel": "n_parallel",
    "batch_size": "n_batch",
    "ubatch_size": "n_ubatch",
    "gpu_layers": "n_gpu_layers",
    "ngl": "n_gpu_layers",
    "np": "n_parallel",
    "c": "n_ctx",
    "b": "n_batch",
    "ub": "n_ubatch",
    "ctk": "cache_type_k",
    "ctv": "cache_type_v",
    "cache_ram": "cache_ram_mib",
    "fa": "flash_attn_type",
    "flash_attn": "flash_attn_type",
    "fit": "fit_params",
    "kvu": "kv_unified",
    "mg": "main_gpu",
    "sm": "split_mode",
    "ts": "tensor_split",
}
# What llama-server writes for a member of an enumeration or for a number, where that is not its own name.
VALUES = {
    "flash_attn_type": {"on": "enabled", "off": "disabled", "": "enabled", "false": "disabled"},
    "n_gpu_layers": {"auto": "-1", "all": "-2"},
}


def options(argv):
    """Each field with its values, from `--name value …`; a name alone means true, `--no-name` false."""
    found, name = {}, None
    for part in argv:
        if part.startswith("--"):
            name = part[2:].replace("-", "_")
            found[name] = []
        elif name is None:
            sys.exit("error: unexpected argument: " + part)
        else:
            found[name].append(part)
    return found


def assign(params, name, values):
    """Set one field; its present value says of which type it is."""
    field = FIELDS.get(name, name)
    if not hasattr(params, field) and name.startswith("no_"):
        field, values = FIELDS.get(name[3:], name[3:]), ["false"]
    if not hasattr(params, field):
        sys.exit("error: unrecognized arguments: --%s %s" % (name.replace("_", "-"), " ".join(values)))
    like = getattr(params, field)
    first = values[0].lower() if values else ""
    first = VALUES.get(field, {}).get(first, first)
    if isinstance(like, bool):
        setattr(params, field, not values or first in ("1", "true", "on", "yes"))
    elif isinstance(like, list):
        kind = type(like[0]) if like else str
        values = [part for value in values for part in value.split(",")] if kind is not str else values
        setattr(params, field, [kind(value) for value in values] + like[len(values) :])
    elif isinstance(like, enum.Enum):
        setattr(params, field, member(type(like), name, first))
    else:
        setattr(params, field, type(like)(first if field in VALUES else values[0]))


def member(kind, name, value):
    """The member of an enumeration that llama-server writes in short: q8_0 for GGML_TYPE_Q8_0, row, on."""
    for one in kind:
        if value == str(int(one)) or value == one.name.lower() or one.name.lower().endswith("_" + value):
            return one
    sys.exit("error: unrecognized arguments: --%s %s" % (name.replace("_", "-"), value))


def main():
    params = xllamacpp.CommonParams()
    params.endpoint_metrics = params.endpoint_slots = True
    params.ui = False
    given = options(sys.argv[1:])
    (params.model.path,) = given.pop("model")
    params.model_alias = set(given.pop("alias"))
    params.hostnames = given.pop("host", ["127.0.0.1"])
    params.port = int(given.pop("port")[0])
    key = os.environ.get("RECIPE_ENGINE_KEY")
    if key:
        params.api_keys = [key]
    if "threads" in given:
        params.cpuparams.n_threads = int(given.pop("threads")[0])
    for name, values in given.items():
        assign(params, name, values)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    server = xllamacpp.Server(params)
    print("listening on " + server.listening_address, flush=True)
    ended.wait()


if __name__ == "__main__":
    main()
