"""Downloads a model of the Hub at a pinned commit: `fetch_model.py REQUEST.json`.

REQUEST.json holds {"repo", "revision", "files": [{"name", "bytes"}], "hf_home": path or null}. Interrupted downloads
resume; 503 and lost connections are tried again. Prints one JSON object a line: {"progress": {"bytes", "total"}}, at
last {"path": folder} or {"error": {"code", "message", "advice"}} (then the exit status is 3).
"""

import json
import os
import random
import sys
import threading
import time

TRIES = 6


def explain(error, repo, revision):
    """Why the Hub refused, as (code, message, advice); None if it may be asked again."""
    from huggingface_hub import errors

    status = getattr(getattr(error, "response", None), "status_code", None)
    # A gated repository is also a missing one to the library: the narrower class comes first.
    if isinstance(error, errors.GatedRepoError):
        advice = "accept its licence on its page at the Hub and set HF_TOKEN to a token of that account"
        return "gated", "%s is gated: the Hub gives it only to accounts that were let in" % repo, advice
    if isinstance(error, errors.RevisionNotFoundError):
        return "revision-missing", "%s has no revision %s" % (repo, revision), "use main, a tag or a commit of it"
    if isinstance(error, errors.RepositoryNotFoundError):
        advice = "check the name; for a private repository set HF_TOKEN"
        return "missing", "%s: no such repository, or a private one" % repo, advice
    if isinstance(error, errors.EntryNotFoundError) and not isinstance(error, errors.LocalEntryNotFoundError):
        return "file-missing", "%s has no such file: %s" % (repo, error), "check model.file"
    if status is not None and 400 <= status < 500 and status not in (408, 429):
        return "refused", "the Hub answered %s for %s" % (status, repo), "check HF_TOKEN and HF_ENDPOINT"
    if isinstance(error, OSError) and error.errno == 28:
        return "disk-full", "no space left on the disk for %s" % repo, "choose a larger disk, or another model.path"
    return None


def persistently(call, repo, revision, pause=time.sleep):
    """The call's result. The library does not try again after a 503 or a lost connection; this does."""
    attempt = 0
    while True:
        attempt += 1
        try:
            return call()
        except Exception as error:
            if explain(error, repo, revision) or attempt == TRIES:
                raise
            pause(min(20, 0.5 * 2**attempt) * (0.5 + random.random()))  # noqa: S311 (jitter)


def report_progress(folder, total, ended):
    while not ended.wait(1):
        print(json.dumps({"progress": {"bytes": stored_bytes(folder), "total": total}}), flush=True)


def stored_bytes(folder):
    total = 0
    for base, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.path.getsize(os.path.join(base, name))
            except OSError:
                continue
    return total


def main():
    with open(sys.argv[1]) as file:
        request = json.load(file)
    if request["hf_home"]:
        os.environ["HF_HOME"] = request["hf_home"]
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    from huggingface_hub import constants, snapshot_download

    repo, revision = request["repo"], request["revision"]
    blobs = os.path.join(constants.HF_HUB_CACHE, "models--" + repo.replace("/", "--"), "blobs")
    total = sum(file["bytes"] for file in request["files"])
    names = [file["name"] for file in request["files"]]
    ended = threading.Event()
    threading.Thread(target=report_progress, args=(blobs, total, ended), daemon=True).start()
    try:
        path = persistently(lambda: snapshot_download(repo, revision=revision, allow_patterns=names), repo, revision)
    except Exception as error:
        known = explain(error, repo, revision) or ("unreachable", "%s: %s" % (repo, error), "check the network")
        print(json.dumps({"error": dict(zip(("code", "message", "advice"), known, strict=True))}), flush=True)
        sys.exit(3)
    finally:
        ended.set()
    print(json.dumps({"progress": {"bytes": total, "total": total}}), flush=True)
    print(json.dumps({"path": path}), flush=True)


if __name__ == "__main__":
    main()
