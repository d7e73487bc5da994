"""Says what a Pocketworld picture shows, and how alike two robots are.

A small convolutional classifier with one head per attribute. Half of its
features feed the heads of what a robot *is* (body, colour, pattern, accessory,
antenna), the other half those of what it does today (face, hat, place); the
first half is the likeness embedding. It knows nothing of the other models.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from masuka.errors import NotFound
from masuka.pocket.world import ATTRIBUTES, SIZE_PX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image

IDENTITY = ("body", "colour", "pattern", "accessory", "antenna")
_WIDTHS = (24, 32, 48, 64, 96)
_FEATURES = 96  # per half


class Judge(nn.Module):
    """Logits per attribute from pictures (B, 3, 128, 128) in −1…1."""

    def __init__(self) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        before = 3
        for width in _WIDTHS:
            stages.append(
                nn.Sequential(
                    nn.Conv2d(before, width, 3, stride=2, padding=1, bias=False),
                    nn.BatchNorm2d(width),
                    nn.ReLU(),
                    nn.Conv2d(width, width, 3, padding=1, bias=False),
                    nn.BatchNorm2d(width),
                    nn.ReLU(),
                )
            )
            before = width
        self.stages = nn.ModuleList(stages)
        self.identity = nn.Linear(before * 16, _FEATURES)
        self.today = nn.Linear(before * 16, _FEATURES)
        self.heads = nn.ModuleDict(
            {name: nn.Linear(_FEATURES, len(values)) for name, values in ATTRIBUTES.items()}
        )

    def features(self, pictures: Tensor) -> list[Tensor]:
        """The output of every stage, (B, C, H, W) from half size down to 1/32."""
        out: list[Tensor] = []
        for stage in self.stages:
            pictures = stage(pictures)
            out.append(pictures)
        return out

    def heads_from(self, last: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Logits per attribute and the identity features (B, 96) of the last stage."""
        flat = last.float().flatten(1)
        identity = F.relu(self.identity(flat))
        today = F.relu(self.today(flat))
        logits = {name: head(identity if name in IDENTITY else today) for name, head in self.heads.items()}
        return logits, identity

    def forward(self, pictures: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Logits per attribute and the identity features (B, 96)."""
        return self.heads_from(self.features(pictures)[-1])

    @classmethod
    def load(cls, folder: Path | str) -> Judge:
        """The trained judge of a folder, ready to ask; NotFound if it holds none."""
        weights = Path(folder) / "judge.safetensors"
        if not weights.is_file():
            raise NotFound(
                f"There is no judge in {folder}.", "Train it with: python -m masuka.pocket.build judge"
            )
        judge = cls()
        state = load_file(weights)
        judge.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})
        return judge.eval().requires_grad_(False)

    def save(self, folder: Path | str, figures: dict[str, float]) -> None:
        """Writes judge.safetensors (fp16) and judge.json with its measured figures."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        state = {
            k: (v.half() if v.is_floating_point() else v).contiguous() for k, v in self.state_dict().items()
        }
        save_file(state, folder / "judge.safetensors", metadata={"format": "pt"})
        about = {"attributes": ATTRIBUTES, "size_px": SIZE_PX, "figures": figures}
        (folder / "judge.json").write_text(json.dumps(about, indent=1) + "\n")

    @torch.inference_mode()
    def attributes(self, images: Sequence[Image.Image]) -> list[dict[str, str]]:
        """What each picture shows: attribute name to value."""
        found: list[dict[str, str]] = [{} for _ in images]
        for at in range(0, len(images), 64):
            logits, _ = self(as_tensor(images[at : at + 64]))
            for name, scores in logits.items():
                for i, index in enumerate(scores.argmax(1).tolist()):
                    found[at + i][name] = ATTRIBUTES[name][index]
        return found

    @torch.inference_mode()
    def embed(self, images: Sequence[Image.Image]) -> Tensor:
        """Identity features (N, 96) of length one; their dot product is the likeness."""
        parts = [self(as_tensor(images[at : at + 64]))[1] for at in range(0, len(images), 64)]
        return F.normalize(torch.cat(parts), dim=1)


def as_tensor(images: Sequence[Image.Image]) -> Tensor:
    """The pictures as (B, 3, 128, 128) in −1…1; other sizes are resized."""
    arrays = []
    for image in images:
        rgb = image.convert("RGB")
        if rgb.size != (SIZE_PX, SIZE_PX):
            rgb = rgb.resize((SIZE_PX, SIZE_PX))
        arrays.append(np.asarray(rgb))
    stacked = torch.from_numpy(np.stack(arrays))
    return stacked.permute(0, 3, 1, 2).float() / 127.5 - 1
