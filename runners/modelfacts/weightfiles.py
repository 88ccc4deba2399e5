"""Which of a repository's or folder's files hold the weights that an engine loads."""

from __future__ import annotations

import re
from collections.abc import Sequence

from runners.modelfacts.facts import File

_SHARD = re.compile(r".*-\d{5}-of-\d{5}\.\w+")
_FORMS = (".safetensors", ".bin", ".pt")


def weights_among(files: Sequence[File]) -> list[File]:
    """The files with the weights, without second copies in another form."""
    for end in _FORMS:
        found = [file for file in files if file.name.endswith(end) and not file.name.endswith("training_args.bin")]
        plain = [
            file for file in found if "/" not in file.name and not file.name.startswith(("consolidated", "adapter"))
        ]
        shards = [file for file in plain if _SHARD.fullmatch(file.name)]
        whole = [file for file in plain if file.name in ("model.safetensors", "pytorch_model.bin")]
        if found:
            return shards or whole or plain or found
    return []
