"""WD tagger v3 (ViT): booru tags, by a stock transformers class instead of timm.

Its vision transformer has no class token and averages its patches, which is what
SiglipForImageClassification computes; only the names of the weights differ. So neither timm
nor torchvision is needed, and no ONNX file.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from transformers import SiglipConfig, SiglipForImageClassification

from masuka.datasets.captions.captioners import Wish
from masuka.datasets.captions.loading import device_and_dtype
from masuka.errors import NotFound

GENERAL, RATING = "0", "9"
"""Categories of tags; the others name characters and series, which a new character is not."""
THRESHOLD = 0.35
_ARCHITECTURES = {"vit_base_patch16_224": (768, 12, 12, 16), "vit_tiny_patch16_224": (192, 12, 3, 16)}
"""timm's name: width, layers, heads, patch (timm/models/vision_transformer.py)."""
_WHITE = (255, 255, 255)


class Tagger:
    """The loaded tagger; `names` are the tags, `general` marks those that are said."""

    batch = 8

    def __init__(
        self, model: Any, device: str, side_px: int, names: Sequence[str], general: Sequence[bool]
    ) -> None:
        self._model, self._device, self._side_px = model, device, side_px
        self._names, self._general = names, torch.tensor(list(general))

    @torch.inference_mode()
    def say(self, images: Sequence[Image.Image], wish: Wish) -> list[str]:
        """The tags of each picture that are likelier than 35 %, the likeliest first."""
        batch = torch.stack([self._seen(image) for image in images]).to(self._device, self._model.dtype)
        chances = self._model(pixel_values=batch).logits.float().sigmoid().cpu()
        return [self._said(row) for row in chances]

    def _said(self, chances: Tensor) -> str:
        found = ((chances >= THRESHOLD) & self._general).nonzero().flatten().tolist()
        found.sort(key=lambda index: -float(chances[index]))
        return ", ".join(self._names[index] for index in found)

    def _seen(self, image: Image.Image) -> Tensor:
        """(3, side, side) in −1…1, blue first as in its training; padded to a square with white."""
        side = max(image.size)
        square = Image.new("RGB", (side, side), _WHITE)
        square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
        small = square.resize((self._side_px, self._side_px), Image.Resampling.BICUBIC)
        array = np.asarray(small)[:, :, ::-1].copy()
        return torch.from_numpy(array).permute(2, 0, 1).float() / 127.5 - 1


def load(folder: Path | None, device: str, params: Mapping[str, Any], check: Callable[[], None]) -> Tagger:
    """The loaded tagger; raises NotFound without its files."""
    if folder is None or not (folder / "model.safetensors").is_file():
        raise NotFound("The captioner's files are gone.", "Download it again.")
    device, dtype = device_and_dtype(device)
    about = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config = config_of(about)
    model = SiglipForImageClassification(config)
    model.load_state_dict(renamed(load_file(folder / "model.safetensors")))
    names, general = _tags(folder / "selected_tags.csv")
    model = model.to(device, dtype).eval().requires_grad_(False)
    return Tagger(model, device, config.vision_config.image_size, names, general)


def config_of(about: Mapping[str, Any]) -> Any:
    """The transformers configuration of a timm one; raises NotFound for another build."""
    shape = _ARCHITECTURES.get(about["architecture"])
    args = about.get("model_args", {})
    told = {name: args.get(name) for name in ("class_token", "global_pool", "fc_norm", "act_layer")}
    if shape is None or told != {
        "class_token": False,
        "global_pool": "avg",
        "fc_norm": False,
        "act_layer": "gelu_tanh",
    }:
        raise NotFound("This tagger is built in another way than MASUKA knows.", "Download it again.")
    width, layers, heads, patch = shape
    vision = {
        "hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers,
        "num_attention_heads": heads, "image_size": args["img_size"], "patch_size": patch,
        "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6, "vision_use_head": False,
    }  # fmt: skip
    return SiglipConfig(vision_config=vision, num_labels=about["num_classes"])


def renamed(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """timm's weights under transformers' names; query, key and value apart."""
    plain = {
        "patch_embed.proj": "embeddings.patch_embedding", "norm": "post_layernorm", "norm1": "layer_norm1",
        "norm2": "layer_norm2", "attn.proj": "self_attn.out_proj", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2",
    }  # fmt: skip
    found: dict[str, Tensor] = {}
    for name, value in weights.items():
        stem, _, kind = name.rpartition(".")
        if name == "pos_embed":
            found["vision_model.embeddings.position_embedding.weight"] = value[0]
        elif stem == "head":
            found[f"classifier.{kind}"] = value
        elif stem.startswith("blocks."):
            _, number, part = stem.split(".", 2)
            layer = f"vision_model.encoder.layers.{number}"
            if part == "attn.qkv":
                for letter, piece in zip("qkv", value.chunk(3), strict=True):
                    found[f"{layer}.self_attn.{letter}_proj.{kind}"] = piece
            else:
                found[f"{layer}.{plain[part]}.{kind}"] = value
        else:
            found[f"vision_model.{plain[stem]}.{kind}"] = value
    return found


def _tags(file: Path) -> tuple[list[str], list[bool]]:
    with file.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    # Faces such as ^_^ or >_< are tags whose underscores are part of them.
    names = [n if len(n) <= 3 else n.replace("_", " ") for n in (row["name"] for row in rows)]
    return names, [row["category"] == GENERAL for row in rows]
