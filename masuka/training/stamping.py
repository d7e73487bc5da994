"""The hashes by which LoRA sites recognise a file, and the name of the side-car beside it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save, save_file

SIDECAR = "masuka.json"


def stamp_hashes(file: Path) -> None:
    """Adds the hashes of the tensors by which LoRA sites recognise a file.

    As kohya's sd-scripts computes them (`train_util.precalculate_safetensors_hashes`):
    over a file whose header has the ss_* keys only.
    """
    with safe_open(file, framework="pt") as opened:
        metadata = dict(opened.metadata() or {})
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (no mapping)
    data = save(tensors, {key: value for key, value in metadata.items() if key.startswith("ss_")})
    start = 8 + int.from_bytes(data[:8], "little")
    whole = hashlib.sha256(data[start:]).hexdigest()
    metadata["sshs_model_hash"] = whole
    metadata["sshs_legacy_hash"] = hashlib.sha256(data[0x100000:0x110000]).hexdigest()[:8]
    metadata["modelspec.hash_sha256"] = f"0x{whole}"
    save_file(tensors, file, metadata)
    file.chmod(0o644)  # safetensors 0.8 writes for its owner alone; this file is made to be passed on
