"""Puts xllamacpp's CUDA build in place of the CPU's, where there is an NVIDIA GPU: `cuda_xllamacpp.py RELEASE`.

PyPI has the builds for the CPU and for macOS; its maker publishes those for CUDA in an index of its own. Without an
NVIDIA driver what is installed stays. Ends with an error where the GPU would not be used after all: computing on the
CPU of a machine that was rented for its GPU would be the dearer failure.
"""

import re
import subprocess
import sys

INDEX = "https://xorbitsai.github.io/xllamacpp/whl/"
# The driver's CUDA from which on each build runs (newer minor releases of CUDA are compatible with older ones).
BUILDS = (((13, 0), "cu132"), ((12, 0), "cu128"))
HAS_GPU = "import sys, xllamacpp as x; sys.exit(not any('GPU' in str(d['type']) for d in x.get_device_info()))"


def driver_cuda():
    """The newest CUDA that the driver knows, as (major, minor); None without a driver."""
    try:
        said = subprocess.run(["nvidia-smi"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r"CUDA Version: (\d+)\.(\d+)", said.stdout.decode("utf-8", "replace"))
    return (int(match.group(1)), int(match.group(2))) if said.returncode == 0 and match else None


def build_for(cuda):
    """The name of the build for a driver; None if there is none for one so old."""
    return next((name for since, name in BUILDS if cuda >= since), None)


def main():
    cuda = driver_cuda()
    if cuda is None:
        print("no NVIDIA driver here: the build for the CPU stays", flush=True)
        return
    build = build_for(cuda)
    if build is None:
        sys.exit("xllamacpp has no build for a driver of CUDA %d.%d" % cuda)
    pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--force-reinstall", "--no-deps"]
    status = subprocess.run([*pip, "--index-url", INDEX + build, "xllamacpp==" + sys.argv[1]]).returncode
    if status != 0:
        sys.exit("the CUDA build of xllamacpp could not be installed from " + INDEX + build)
    if subprocess.run([sys.executable, "-c", HAS_GPU]).returncode != 0:
        sys.exit("xllamacpp's CUDA build sees no GPU here")


if __name__ == "__main__":
    main()
