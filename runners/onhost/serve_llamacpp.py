"""Runs llama.cpp's own HTTP server from the xllamacpp wheel as a process in the foreground.

    serve_llamacpp.py --model M.gguf --alias NAME --port N [--ctx-size N] [--parallel N] [--NAME VALUE …]

The key that clients must show is read from RECIPE_ENGINE_KEY. Options carry llama-server's names; further ones are the
fields of xllamacpp's CommonParams, such as `--n-gpu-layers 99`.
"""

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
}


def options(argv):
    """Pairs of field and text from `--name value`; a name alone means true."""
    pairs, i = {}, 0
    while i < len(argv):
        if not argv[i].startswith("--"):
            sys.exit("error: unexpected argument: " + argv[i])
        name = argv[i][2:].replace("-", "_")
        has_value = i + 1 < len(argv) and not argv[i + 1].startswith("--")
        pairs[name] = argv[i + 1] if has_value else "true"
        i += 2 if has_value else 1
    return pairs


def convert(text, like):
    if isinstance(like, bool):
        return text.lower() in ("1", "true", "on", "yes")
    return type(like)(text)


def main():
    params = xllamacpp.CommonParams()
    params.endpoint_metrics = params.endpoint_slots = True
    params.ui = False
    given = options(sys.argv[1:])
    params.model.path = given.pop("model")
    params.model_alias = {given.pop("alias")}
    params.hostnames = [given.pop("host", "127.0.0.1")]
    params.port = int(given.pop("port"))
    key = os.environ.get("RECIPE_ENGINE_KEY")
    if key:
        params.api_keys = [key]
    if "threads" in given:
        params.cpuparams.n_threads = int(given.pop("threads"))
    for name, text in given.items():
        field = FIELDS.get(name, name)
        if not hasattr(params, field):
            sys.exit("error: unrecognized arguments: --%s %s" % (name.replace("_", "-"), text))
        setattr(params, field, convert(text, getattr(params, field)))
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    server = xllamacpp.Server(params)
    print("listening on " + server.listening_address, flush=True)
    ended.wait()


if __name__ == "__main__":
    main()
