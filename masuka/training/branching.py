"""A training that begins with what another has learnt: weights alone, nothing of its course."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file

from masuka.errors import Conflict
from masuka.training.learner import Learner


def begin_with(learner: Learner, folder: Path) -> None:
    """Gives the learner the weights that lie there; the optimiser begins anew.

    An average goes on from the other's, where that had one. Raises Conflict for weights of
    another shape.
    """
    weights = load_file(folder / "adapter.safetensors")
    own = {name: tensor.shape for name, tensor in learner.weights.named().items()}
    if {name: tensor.shape for name, tensor in weights.items()} != own:
        raise Conflict(
            "The checkpoint that this was to begin with has another shape.",
            "Branch with the same rank, layers and kind of LoRA.",
        )
    kept = folder / "average.safetensors"
    learner.weights.restore(weights, load_file(kept) if kept.exists() else weights)
