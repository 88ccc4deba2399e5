"""Puts xllamacpp's CUDA build in place of the CPU's, where there is an NVIDIA GPU: `cuda_xllamacpp.py RELEASE`.

PyPI has the builds for the CPU and for macOS; its maker publishes those for CUDA in an index of its own. Without an
NVIDIA driver what is installed stays. Ends with an error where the GPU would not be used after all: computing on the
CPU of a machine that was rented for its GPU would be the dearer failure.
"""

import re
import subprocess
import sys

INDEX = "https://xorbitsai.github.io/xllamacpp/whl/cu128"
# Built with CUDA 12.8: any driver of CUDA 12 runs its machine code, which it has for these compute capabilities. For
# all others it brings PTX, which only a driver that knows CUDA 12.8 can translate.
NATIVE = {"8.6", "8.9", "12.0"}
RUNS_SINCE, TRANSLATES_SINCE = (12, 0), (12, 8)
HAS_GPU = "import sys, xllamacpp as x; sys.exit(not any('GPU' in str(d['type']) for d in x.get_device_info()))"


def ask(*options):
    """What nvidia-smi prints; nothing without a driver."""
    try:
        said = subprocess.run(["nvidia-smi", *options], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return said.stdout.decode("utf-8", "replace") if said.returncode == 0 else ""


def why_not(cuda, capabilities):
    """Why the build cannot compute with this driver on these GPUs; None if it can."""
    if cuda >= TRANSLATES_SINCE or (cuda >= RUNS_SINCE and set(capabilities) <= NATIVE):
        return None
    return "the build of xllamacpp for CUDA 12.8 does not run with a driver of CUDA %d.%d on compute capability %s" % (
        *cuda,
        ", ".join(sorted(set(capabilities))) or "unknown",
    )


def main():
    match = re.search(r"CUDA Version: (\d+)\.(\d+)", ask())
    if match is None:
        print("no NVIDIA driver here: the build for the CPU stays", flush=True)
        return
    cuda = (int(match.group(1)), int(match.group(2)))
    trouble = why_not(cuda, ask("--query-gpu=compute_cap", "--format=csv,noheader").split())
    if trouble:
        sys.exit(trouble)
    pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--force-reinstall", "--no-deps"]
    if subprocess.run([*pip, "--index-url", INDEX, "xllamacpp==" + sys.argv[1]]).returncode != 0:
        sys.exit("the CUDA build of xllamacpp could not be installed from " + INDEX)
    if subprocess.run([sys.executable, "-c", HAS_GPU]).returncode != 0:
        sys.exit("xllamacpp's CUDA build sees no GPU here")


if __name__ == "__main__":
    main()
