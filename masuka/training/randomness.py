"""The global random generators of a training: its own while it runs, kept with a checkpoint."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor


@contextmanager
def own_randomness(seed: int) -> Iterator[None]:
    """Within it every generator starts from the seed; afterwards it goes on as before."""
    before = random_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    try:
        yield
    finally:
        restore_random_state(*before)


def random_state() -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors, plain values) of every global random generator, each GPU's too."""
    name, keys, position, has_gauss, gauss = np.random.get_state()
    tensors = {"torch": torch.get_rng_state(), "numpy": torch.from_numpy(np.asarray(keys).astype(np.int64))}
    for device in range(_initialised_gpus()):
        tensors[f"cuda{device}"] = torch.cuda.get_rng_state(device)
    version, numbers, following = random.getstate()
    plain = {
        "python": [version, list(numbers), following],
        "numpy": [str(name), int(position), int(has_gauss), float(gauss)],
    }
    return tensors, plain


def restore_random_state(tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
    """Sets what `random_state` read; a CUDA device that is not here is left out."""
    version, numbers, following = plain["python"]
    random.setstate((version, tuple(numbers), following))
    name, position, has_gauss, gauss = plain["numpy"]
    keys = tensors["numpy"].numpy().astype(np.uint32)
    np.random.set_state((name, keys, position, has_gauss, gauss))
    torch.set_rng_state(tensors["torch"])
    for device in range(_initialised_gpus()):
        if f"cuda{device}" in tensors:
            torch.cuda.set_rng_state(tensors[f"cuda{device}"], device)


def _initialised_gpus() -> int:
    """How many GPUs have generators; asking for one would set up CUDA for a training on the CPU."""
    ready: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return torch.cuda.device_count() if ready else 0
