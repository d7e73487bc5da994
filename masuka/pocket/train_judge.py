"""Trains the judge on drawings that are blurred, dimmed and made noisy as bad pictures are."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from masuka.pocket.norm import to_channels_last
from masuka.pocket.train_vae import as_batch
from masuka.pocket.world import ATTRIBUTES

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from masuka.pocket.judge import Judge
    from masuka.pocket.session import Session

BATCH = 64


def train(session: Session, pictures: NDArray[np.uint8], labels: Tensor, say: Callable[[str], None]) -> None:
    """Trains the session's judge until its time is used."""
    judge: Any = session.module
    to_channels_last(judge.train())
    started, first = time.monotonic(), session.step
    while not session.finished:
        rows = sorted(session.rng.sample(range(len(pictures)), BATCH))
        quarters = as_batch(pictures[rows]).chunk(4)
        batch = torch.cat([spoilt(quarter, session.rng) for quarter in quarters])
        with torch.autocast("cpu", torch.bfloat16):
            last = judge.features(batch.contiguous(memory_format=torch.channels_last))[-1]
        logits, _ = judge.heads_from(last)
        losses = [
            F.cross_entropy(logits[name], labels[rows, i], label_smoothing=0.02)
            for i, name in enumerate(ATTRIBUTES)
        ]
        loss = torch.stack(losses).sum()
        session.advance(loss)
        if session.step % 50 == 0:
            rate = (time.monotonic() - started) / (session.step - first)
            say(f"judge step {session.step} {session.progress:.0%} {rate:.2f} s/step loss {loss.item():.3f}")
    session.save()


def spoilt(pictures: Tensor, rng: random.Random) -> Tensor:
    """The pictures mirrored, blurred, tinted or made noisy, each by chance."""
    if rng.random() < 0.5:
        pictures = pictures.flip(3)
    blur = rng.random()
    if blur < 0.25:
        small = F.interpolate(pictures, size=rng.choice((56, 64, 80)), mode="area")
        pictures = F.interpolate(small, size=pictures.shape[-1], mode="bilinear")
    elif blur < 0.4:
        pictures = F.avg_pool2d(pictures, 3, 1, 1)
    if rng.random() < 0.5:
        pictures = pictures + torch.randn_like(pictures) * rng.uniform(0, 0.2)
    if rng.random() < 0.3:
        tint = torch.randn(len(pictures), 3, 1, 1) * 0.05
        pictures = pictures * rng.uniform(0.9, 1.1) + tint
    if rng.random() < 0.3:
        blotches = torch.randn(len(pictures), 3, 16, 16) * 0.12
        pictures = pictures + F.interpolate(blotches, size=pictures.shape[-1], mode="bilinear")
    return pictures


@torch.inference_mode()
def judge_figures(judge: Judge, pictures: NDArray[np.uint8], labels: Tensor) -> dict[str, float]:
    """Share of fresh drawings whose attribute is read right, by attribute."""
    right = torch.zeros(len(ATTRIBUTES))
    for at in range(0, len(pictures), 100):
        logits, _ = judge(as_batch(pictures[at : at + 100]))
        hits = [(logits[n].argmax(1) == labels[at : at + 100, i]).sum() for i, n in enumerate(ATTRIBUTES)]
        right += torch.stack(hits)
    return {f"fresh_{n}": round(float(r) / len(pictures), 4) for n, r in zip(ATTRIBUTES, right, strict=True)}
