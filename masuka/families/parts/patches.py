"""Latents as the sequence of 2 × 2 patches that FLUX and its relatives read."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def pack(latents: Tensor) -> Tensor:
    """Latents (B, C, h, w) as a sequence (B, h/2 · w/2, 4C) of 2 × 2 patches."""
    batch, channels, height, width = latents.shape
    patches = latents.view(batch, channels, height // 2, 2, width // 2, 2)
    return patches.permute(0, 2, 4, 1, 3, 5).reshape(batch, (height // 2) * (width // 2), channels * 4)


def unpack(sequence: Tensor, height: int, width: int) -> Tensor:
    """The latents (B, C, height, width) that `pack` made a sequence of."""
    batch, _, channels = sequence.shape
    patches = sequence.view(batch, height // 2, width // 2, channels // 4, 2, 2)
    return patches.permute(0, 3, 1, 4, 2, 5).reshape(batch, channels // 4, height, width)


@lru_cache(maxsize=32)
def position_ids(tokens: int, rows: int, columns: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Places of the text's tokens (tokens, 3) and of the patches (rows · columns, 3)."""
    import torch

    image_ids = torch.zeros(rows, columns, 3, device=device)
    image_ids[..., 1] = torch.arange(rows, device=device)[:, None]
    image_ids[..., 2] = torch.arange(columns, device=device)[None, :]
    return torch.zeros(tokens, 3, device=device), image_ids.view(rows * columns, 3)
