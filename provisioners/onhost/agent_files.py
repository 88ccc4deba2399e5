"""Files of the lease's machine: packed for the client, and described so that it can check them."""

import glob
import gzip
import hashlib
import json
import os
import sys
import tarfile

_LEVEL = 6


def pack(state, patterns):
    """Write a compressed tar of the work directory's files that match to standard output, and what is in it to
    standard error: {"files": [{"path", "bytes", "sha256"}]}. What leads out of the work directory is left out.

    The same files make the same archive. `--from=N` before the patterns leaves out its first N bytes, for a client that
    has them already."""
    os.chdir(state.work)
    packed = []
    begin = 0
    if patterns and patterns[0].startswith("--from="):
        begin, patterns = int(patterns[0][len("--from=") :]), patterns[1:]
    out = _Rest(sys.stdout.buffer, begin)
    squeezed = gzip.GzipFile(filename="", fileobj=out, mode="wb", compresslevel=_LEVEL, mtime=0)
    with squeezed, tarfile.open(fileobj=squeezed, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for path in _matching(patterns):
            packed.extend(_add(tar, path))
    sys.stdout.flush()
    sys.stderr.write(json.dumps({"files": packed}) + "\n")


class _Rest:
    """Writes on what comes after the first bytes."""

    def __init__(self, file, begin):
        self._file, self._missing = file, begin

    def write(self, data):
        data = memoryview(data)
        left_out = min(self._missing, len(data))
        self._missing -= left_out
        if left_out < len(data):
            self._file.write(data[left_out:])
        return len(data)

    def flush(self):
        self._file.flush()


def _matching(patterns):
    root = os.path.realpath(".") + os.sep
    found = set()
    for pattern in patterns:
        if not os.path.isabs(pattern):
            found.update(os.path.normpath(path) for path in glob.glob(pattern, recursive=True))
    inside = (path for path in found if path.split(os.sep)[0] != os.pardir)
    return sorted(path for path in inside if os.path.realpath(path).startswith(root) and os.path.isfile(path))


def _add(tar, path):
    """Add a file as it is now; one that cannot be read is left out. Returns what was added."""
    try:
        file = open(path, "rb")  # noqa: SIM115 (it is closed below; what cannot be opened is told apart here)
    except OSError:
        return []
    with file:
        info = tarfile.TarInfo(path)
        found = os.fstat(file.fileno())
        info.size, info.mtime, info.mode = found.st_size, int(found.st_mtime), 0o600
        reading = _Measured(file)
        tar.addfile(info, reading)
    return [{"path": path, "bytes": reading.bytes, "sha256": reading.sha256.hexdigest()}]


class _Measured:
    """Hashes what is read. A file that shrinks meanwhile is filled up with zeros that are not counted, so that the
    archive stays whole and the one file is seen to be cut off."""

    def __init__(self, file):
        self._file = file
        self.bytes, self.sha256 = 0, hashlib.sha256()

    def read(self, size):
        block = self._file.read(size)
        self.sha256.update(block)
        self.bytes += len(block)
        return block.ljust(size, b"\0")
