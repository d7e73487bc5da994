"""The arithmetic of low-rank layers: what one adds to a weight, and the best smaller one.

A layer is a mapping of its tensors by leaf (`lora_A.weight`, `lokr_w1`, …), every scale
folded in. Everything is computed in fp32. Knows no file and no model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from masuka.errors import InvalidInput
from masuka.families.lora.keys import DOWN, LOKR, MAGNITUDE, UP

Layer = Mapping[str, Tensor]
DENSE_SIDE = 1024
"""From this side on, the largest singular values of a dense matrix are found by iteration."""
LARGEST_PLAIN_RANK = 128
"""What a LoKr is written with at most as a plain LoRA; a factor of 8 at rank 16 is exact."""


def is_lokr(layer: Layer) -> bool:
    """Whether the layer is a Kronecker product."""
    return any(leaf in layer for leaf in LOKR)


def rank_of(layer: Layer) -> int:
    """The rank of a LoRA, the inner rank of a LoKr (0: both factors are whole)."""
    if DOWN in layer:
        return int(layer[DOWN].shape[0])
    inner = layer.get("lokr_w2_b", layer.get("lokr_w1_b"))
    return 0 if inner is None else int(inner.shape[0])


def delta(layer: Layer, weight: Tensor | None = None) -> Tensor:
    """What the layer adds to its weight, (outputs, inputs); a DoRA needs that weight.

    Raises InvalidInput for a DoRA without it.
    """
    if is_lokr(layer):
        first, second = _kron_factors(layer)
        made: Tensor = torch.kron(first, second)
        return made
    added = layer[UP].float().flatten(1) @ layer[DOWN].float().flatten(1)
    if MAGNITUDE not in layer:
        return added
    if weight is None:
        raise InvalidInput("A DoRA is worth what its base says; the base is not there.", "Download the base.")
    whole = weight.float().flatten(1)
    learnt = whole + added
    changed: Tensor = layer[MAGNITUDE].float().reshape(-1, 1) / learnt.norm(dim=1, keepdim=True) * learnt - whole
    return changed


def reduced(layer: Layer, rank: int) -> tuple[dict[str, Tensor], float]:
    """The nearest LoRA of that rank, and the share of the change that it keeps.

    Nearest in the sum of squares (Eckart and Young 1936); the share, in [0, 1], is 1 − error² ÷ size².
    The magnitudes of a DoRA stay as they are.
    """
    if is_lokr(layer):
        return _reduced_lokr(layer, rank)
    down, up = layer[DOWN], layer[UP]
    up_q, up_r = torch.linalg.qr(up.float().flatten(1))
    down_q, down_r = torch.linalg.qr(down.float().flatten(1).t())
    u, s, v = torch.linalg.svd(up_r @ down_r.t())
    rank = min(rank, len(s))
    root = s[:rank].sqrt()
    new_up = (up_q @ u[:, :rank]) * root
    new_down = (down_q @ v[:rank].t() * root).t()
    made = {DOWN: new_down.reshape(rank, *down.shape[1:]), UP: new_up.reshape(up.shape[0], rank, *up.shape[2:])}
    if MAGNITUDE in layer:
        made[MAGNITUDE] = layer[MAGNITUDE].float()
    return made, _kept(s, rank)


def of_dense(matrix: Tensor, rank: int) -> tuple[dict[str, Tensor], float]:
    """The nearest LoRA of that rank to a change (outputs, inputs, …), and its share."""
    flat = matrix.float().flatten(1)
    total = float(flat.square().sum())
    if min(flat.shape) <= max(DENSE_SIDE, rank):
        u, s, v = torch.linalg.svd(flat, full_matrices=False)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            u, s, right = torch.svd_lowrank(flat, q=min(rank + 16, min(flat.shape)), niter=4)
        v = right.t()
    rank = min(rank, len(s))
    root = s[:rank].sqrt()
    down = (v[:rank].t() * root).t().contiguous().reshape(rank, *matrix.shape[1:])
    up = (u[:, :rank] * root).reshape(matrix.shape[0], rank, *(1 for _ in matrix.shape[2:]))
    return {DOWN: down, UP: up.contiguous()}, 1.0 if total == 0 else float(s[:rank].square().sum()) / total


def joined(layers: Sequence[tuple[Layer, float]]) -> dict[str, Tensor]:
    """The weighted sum of plain LoRAs of one layer, exactly: ranks side by side."""
    ups = [layer[UP].float() * weight for layer, weight in layers]
    return {DOWN: torch.cat([layer[DOWN].float() for layer, _ in layers]), UP: torch.cat(ups, 1)}


def plain(layer: Layer) -> tuple[dict[str, Tensor], float]:
    """The layer as a LoRA that every tool reads: itself, or what a LoKr comes to."""
    if not is_lokr(layer):
        return dict(layer), 1.0
    return _reduced_lokr(layer, LARGEST_PLAIN_RANK)


def norm(layer: Layer) -> float:
    """The length of what the layer adds, without ever making the whole matrix."""
    if is_lokr(layer):
        first, second = _kron_factors(layer)
        return float(first.norm() * second.norm())
    up, down = layer[UP].float().flatten(1), layer[DOWN].float().flatten(1)
    return float(((up.t() @ up) * (down @ down.t())).sum().clamp(min=0).sqrt())


def energy_kept(shares: Sequence[tuple[float, float]]) -> float:
    """The share that all layers keep together, from each one's (size², share)."""
    total = sum(size for size, _ in shares)
    return 1.0 if total == 0 else sum(size * share for size, share in shares) / total


def _kept(s: Tensor, rank: int) -> float:
    total = float(s.square().sum())
    return 1.0 if total == 0 else float(s[:rank].square().sum()) / total


def _kron_factors(layer: Layer) -> tuple[Tensor, Tensor]:
    factors = []
    for name in ("lokr_w1", "lokr_w2"):
        whole = layer.get(name)
        factors.append(whole.float() if whole is not None else layer[f"{name}_a"].float() @ layer[f"{name}_b"].float())
    return factors[0], factors[1]


def _reduced_lokr(layer: Layer, rank: int) -> tuple[dict[str, Tensor], float]:
    """From the singular values of its two factors: those of a Kronecker product are their products."""
    first, second = (torch.linalg.svd(factor, full_matrices=False) for factor in _kron_factors(layer))
    products = torch.outer(first.S, second.S).flatten()
    order = products.argsort(descending=True, stable=True)
    useful = int((products > products.max() * 1e-7).sum()) if float(products.max()) > 0 else 1
    rank = max(1, min(rank, useful))
    a, b = order[:rank] // len(second.S), order[:rank] % len(second.S)
    root = products[order[:rank]].sqrt()
    up = torch.stack([torch.kron(first.U[:, i], second.U[:, j]) for i, j in zip(a, b, strict=True)], 1) * root
    down = torch.stack([torch.kron(first.Vh[i], second.Vh[j]) for i, j in zip(a, b, strict=True)]) * root[:, None]
    return {DOWN: down, UP: up}, _kept(products[order], rank)


def same_shape(layers: Sequence[Layer]) -> bool:
    """Whether LoRAs are for layers of the same widths."""
    widths = [(layer[UP].shape[0], layer[DOWN].shape[1:]) for layer in layers]
    return all(one == other for one, other in pairwise(widths))
