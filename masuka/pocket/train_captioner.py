"""Trains the caption model on drawings spoilt as bad pictures are, and measures it.

Beside the words it learns to tell the attributes apart from the picture alone (a head that is
not shipped): a transformer of this size finds its eyes a good deal sooner that way.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from masuka.pocket.captioner import MAX_TOKENS, new_captioner, tokenizer
from masuka.pocket.places import LANDS, backdrop
from masuka.pocket.sayings import NOTHING_KNOWN, SENTENCE, TAGS, read, sentence, tags
from masuka.pocket.train_judge import spoilt
from masuka.pocket.train_vae import as_batch
from masuka.pocket.world import ATTRIBUTES, SIZE_PX

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from masuka.pocket.session import Session
    from masuka.pocket.world import Scene

BATCH = 64
_STRANGE = 4  # pictures of a batch that show no robot
_HEAD_WEIGHT = 0.5
_UNCOUNTED = -100


class Reader(nn.Module):
    """The caption model and, for the training alone, a head per attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.model = new_captioner()
        width = self.model.config.vision_config.hidden_size
        self.heads = nn.ModuleDict({name: nn.Linear(width, len(v)) for name, v in ATTRIBUTES.items()})

    def matrices(self) -> list[nn.Parameter]:
        """The weights of the layers' attention and MLP."""
        return [
            weight
            for name, weight in self.model.named_parameters()
            if ".layer" in name and weight.ndim == 2 and "embeddings" not in name
        ]


def train(
    session: Session,
    scenes: Sequence[Scene],
    pictures: NDArray[np.uint8],
    rows: Sequence[int],
    say: Callable[[str], None],
) -> None:
    """Trains the session's reader on these rows until its time is used."""
    reader: Any = session.module
    words = tokenizer()
    order = list(ATTRIBUTES)
    started, first, mean = time.monotonic(), session.step, 0.0
    while not session.finished:
        picked = sorted(session.rng.sample(rows, BATCH - _STRANGE))
        shown = [scenes[row] for row in picked]
        drawn = torch.cat([spoilt(part, session.rng) for part in as_batch(pictures[picked]).chunk(4)])
        drawn = _moved(drawn, session.rng)
        batch = torch.cat([drawn, strange(_STRANGE, session.rng)])
        tokens, labels = _read(words, [*shown, *[None] * _STRANGE], session.rng)
        wanted = torch.tensor([[ATTRIBUTES[n].index(s.attributes[n]) for n in order] for s in shown])
        with torch.autocast("cpu", torch.bfloat16):
            answer = reader.model(
                pixel_values=batch, input_ids=tokens.input_ids,
                attention_mask=tokens.attention_mask, labels=labels,
            )  # fmt: skip
        seen = answer.image_embeds[: len(shown), 0].float()
        named = [F.cross_entropy(reader.heads[n](seen), wanted[:, i]) for i, n in enumerate(order)]
        heads = torch.stack(named).mean()
        session.advance(answer.loss.float() + _HEAD_WEIGHT * heads)
        mean = answer.loss.item() if mean == 0 else 0.98 * mean + 0.02 * answer.loss.item()
        if session.step % 50 == 0:
            rate = (time.monotonic() - started) / (session.step - first)
            say(
                f"captioner step {session.step} {session.progress:.0%} {rate:.2f} s/step "
                f"words {mean:.4f} heads {heads.item():.4f}"
            )
    session.save()


def strange(count: int, rng: random.Random) -> Tensor:
    """Pictures without a robot, (count, 3, 128, 128) in −1…1.

    Empty places, blotches, noise and single colours.
    """
    made = []
    for _ in range(count):
        roll = rng.random()
        if roll < 0.3:
            place = np.asarray(backdrop(rng.choice(list(LANDS)), rng.randrange(8), SIZE_PX))
            made.append(as_batch(place[None])[0])
            continue
        side = rng.choice((1, 2, 4, 8, 16, 32, 128))
        coarse = torch.randn(1, 3, side, side) * rng.uniform(0.1, 0.8) + torch.randn(1, 3, 1, 1) * 0.6
        mode = rng.choice(("nearest", "bilinear"))
        picture = F.interpolate(coarse, size=(SIZE_PX, SIZE_PX), mode=mode)[0].clamp(-1, 1)
        made.append(picture)
    return torch.stack(made)


def named_right(said: Sequence[str], scenes: Sequence[Scene]) -> dict[str, float]:
    """Attribute → share of captions that say it right; silence is none or plain."""
    right = dict.fromkeys(ATTRIBUTES, 0)
    for text, scene in zip(said, scenes, strict=True):
        found = read(text)
        for name, value in scene.attributes.items():
            right[name] += found.get(name) == value
    return {name: round(count / len(scenes), 4) for name, count in right.items()}


def _read(words: Any, scenes: Sequence[Scene | None], rng: random.Random) -> tuple[Any, Tensor]:
    """Tokens of one caption each, and what the model is to say of them."""
    texts = []
    for scene in scenes:
        asked = rng.choice((SENTENCE, TAGS))
        if scene is None:
            texts.append(f"{asked} {NOTHING_KNOWN}")
        else:
            texts.append(f"{asked} {(sentence if asked == SENTENCE else tags)(scene, rng)}")
    tokens = words(texts, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
    labels = tokens.input_ids.masked_fill(tokens.attention_mask == 0, _UNCOUNTED)
    labels[:, 1] = _UNCOUNTED  # the word that asks is given, not said
    tokens.input_ids[:, 0] = words.bos_token_id
    return tokens, labels


def _moved(pictures: Tensor, rng: random.Random) -> Tensor:
    """The pictures shifted by up to four pixels, edges repeated."""
    x, y = rng.randint(0, 8), rng.randint(0, 8)
    wide = F.pad(pictures, (4, 4, 4, 4), mode="replicate")
    return wide[:, :, y : y + SIZE_PX, x : x + SIZE_PX]
