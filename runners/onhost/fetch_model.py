"""Downloads a model of the Hub at a pinned commit: `fetch_model.py REQUEST.json`.

REQUEST.json holds {"repo", "revision", "files": [{"name", "bytes"}], "hf_home": path or null, "environment"}. Where
this Python has no huggingface_hub, the environment {"directory", "python", "steps", "check"} is made first, and this
goes on in it. 503 and lost connections are tried again, a file that was cut off from where it was cut; started anew, it
keeps the files that are finished. Prints one JSON object a line: {"progress": {"bytes", "total"}}, at last
{"path": folder, "downloaded": bytes} or {"error": {"code", "message", "advice"}} (then the exit status is 3).
"""

import glob
import json
import logging
import os
import random
import socket
import sys
import threading
import time

TRIES = 6


def explain(error, repo, revision):
    """Why the Hub refused, as (code, message, advice); None if it may be asked again."""
    from huggingface_hub import errors

    if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ is not None:
        # What could not be looked up the library reports as absent here; the reason stands behind it.
        error = error.__cause__
    known = (
        # A gated repository is also a missing one to the library: the narrower class comes first.
        (errors.GatedRepoError, "gated"),
        (errors.RevisionNotFoundError, "revision-missing"),
        (errors.RepositoryNotFoundError, "missing"),
        (errors.RemoteEntryNotFoundError, "file-missing"),
        (errors.OfflineModeIsEnabled, "offline"),
        (errors.HFValidationError, "invalid"),
    )
    for kind, code in known:
        if isinstance(error, kind):
            return reason(code, repo, revision, error)
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None and 400 <= status < 500 and status not in (408, 429):
        return reason("refused", repo, revision, status)
    if isinstance(error, OSError) and error.errno == 28:
        return reason("disk-full", repo, revision)
    return None


def reason(code, repo, revision, detail=""):
    """A refusal for people, as (code, message, advice)."""
    message, advice = {
        "gated": (
            "%s is gated: the Hub gives it only to accounts that were let in" % repo,
            "accept its licence on its page at the Hub and set HF_TOKEN to a token of that account",
        ),
        "revision-missing": ("%s has no revision %s" % (repo, revision), "use main, a tag or a commit of it"),
        "missing": (
            "%s: no such repository, or a private one" % repo,
            "check the name; for a private repository set HF_TOKEN",
        ),
        "file-missing": ("%s has no such file: %s" % (repo, detail), "check model.file"),
        "offline": (
            "HF_HUB_OFFLINE is set, and %s has to be looked up" % repo,
            "unset HF_HUB_OFFLINE, or name a folder in model.path",
        ),
        "invalid": ("%s: no name of a repository" % repo, "write owner/name"),
        "refused": ("the Hub answered %s for %s" % (detail, repo), "check HF_TOKEN and HF_ENDPOINT"),
        "disk-full": ("no space left on the disk for %s" % repo, "choose a larger disk, or another model.path"),
    }[code]
    return code, message, advice


def no_such_address(error):
    """Whether the name of the Hub's server could not be looked up; the library has waited for that already."""
    while error is not None:
        if isinstance(error, socket.gaierror) or "[Errno -2]" in str(error) or "[Errno -3]" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def persistently(call, repo, revision, pause=time.sleep):
    """The call's result. The library does not try again after a 503 or a lost connection; this does."""
    attempt = 0
    while True:
        attempt += 1
        try:
            return call()
        except Exception as error:
            if explain(error, repo, revision) or no_such_address(error) or attempt == TRIES:
                raise
            pause(min(20, 0.5 * 2**attempt) * (0.5 + random.random()))  # noqa: S311 (jitter)


def report_progress(cache, revision, files, ended):
    total = sum(file["bytes"] for file in files)
    while not ended.wait(1):
        stored = min(stored_bytes(cache, revision, files), total)
        print(json.dumps({"progress": {"bytes": stored, "total": total}}), flush=True)


def stored_bytes(cache, revision, files):
    """Of these files, what is finished and what is under way; other commits' files lie in the same folder."""
    paths = [os.path.join(cache, "snapshots", revision, file["name"]) for file in files]
    paths += glob.glob(os.path.join(glob.escape(cache), "blobs", "*.incomplete"))
    total = 0
    for path in paths:
        try:
            total += os.path.getsize(path)
        except OSError:
            continue
    return total


def has_library():
    """Whether this Python's huggingface_hub is there, and new enough to say what went wrong."""
    try:
        from huggingface_hub.errors import RemoteEntryNotFoundError  # noqa: F401
    except ImportError:
        return False
    return True


def with_library(request):
    """Go on with a Python that has huggingface_hub; returns if this one has it, or none can be made."""
    environment = request.get("environment")
    if environment is None or has_library():
        return
    import install_engine  # type: ignore[import-not-found]  # a neighbour in the same folder

    try:
        python, _ = install_engine.install(environment["directory"], environment)
    except SystemExit:
        fail("no-library", "huggingface_hub could not be installed", "see install.log")
    if python == sys.executable:
        fail("no-library", "%s has lost its huggingface_hub" % python, "remove its folder, and run again")
    os.execv(python, [python, *sys.argv])  # noqa: S606 (no shell is wanted)


def fail(code, message, advice):
    """Say why there will be no model, and end."""
    print(json.dumps({"error": {"code": code, "message": message, "advice": advice}}), flush=True)
    sys.exit(3)


def main():
    with open(sys.argv[1]) as file:
        request = json.load(file)
    # The library reads these when it is imported, which looking for it does.
    if request["hf_home"]:
        os.environ["HF_HOME"] = request["hf_home"]
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    os.environ.setdefault("HF_XET_HIGH_PERFORMANCE", "1")
    with_library(request)
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    from huggingface_hub import constants, snapshot_download

    repo, revision = request["repo"], request["revision"]
    cache = os.path.join(constants.HF_HUB_CACHE, "models--" + repo.replace("/", "--"))
    files = request["files"]
    total = sum(file["bytes"] for file in files)
    names = [glob.escape(file["name"]) for file in files]
    before = min(stored_bytes(cache, revision, files), total)
    ended = threading.Event()
    threading.Thread(target=report_progress, args=(cache, revision, files, ended), daemon=True).start()
    try:
        path = persistently(lambda: snapshot_download(repo, revision=revision, allow_patterns=names), repo, revision)
    except Exception as error:
        fail(*(explain(error, repo, revision) or ("unreachable", "%s: %s" % (repo, error), "check the network")))
    finally:
        ended.set()
    print(json.dumps({"progress": {"bytes": total, "total": total}}), flush=True)
    print(json.dumps({"path": path, "downloaded": total - before}), flush=True)


if __name__ == "__main__":
    main()
