"""What the captioners rely on in transformers, each with the reason; run on every bump."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoTokenizer, Qwen3VLProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from masuka.datasets.captions import tagger
from tests import tiny_captioners

CAPTIONERS = ("florence", "blip2", "qwen", "tagger", "pocket")


@pytest.mark.slow
def test_no_captioner_needs_torchvision_or_timm() -> None:
    code = "import sys\nsys.modules['torchvision'] = sys.modules['timm'] = None\n" + "\n".join(
        f"import masuka.datasets.captions.{name}" for name in CAPTIONERS
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, capture_output=True)


@pytest.mark.skipif(importlib.util.find_spec("torchvision") is not None, reason="torchvision is installed")
def test_the_stock_processor_of_qwen_needs_torchvision(tmp_path: Path) -> None:
    # Where this passes no more, captions/qwen.py can use the stock processor.
    folder = tiny_captioners.qwen(tmp_path / "model")
    eyes = Qwen2VLImageProcessorPil.from_pretrained(folder)
    with pytest.raises((TypeError, ImportError, AttributeError)):
        Qwen3VLProcessor(eyes, AutoTokenizer.from_pretrained(folder))


def test_siglip_for_classification_computes_what_timm_does(tmp_path: Path) -> None:
    # captions/tagger.py loads timm's weights into this class; timm 1.0.31 gave the same logits.
    torch.manual_seed(0)
    folder = tiny_captioners.wd_tagger(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    loaded = tagger.load(folder, "cpu", {}, lambda: None)
    pictures = torch.randn(3, 3, 32, 32)
    ours = loaded._model(pixel_values=pictures).logits
    assert torch.allclose(ours, timm_logits(weights, pictures, layers=12, heads=3), atol=1e-5)


def timm_logits(w: dict[str, Tensor], pictures: Tensor, *, layers: int, heads: int) -> Tensor:
    """timm's vit_*_patch16_224 with class_token=False, global_pool='avg', fc_norm=False, gelu_tanh."""

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], 1e-6)

    x = F.conv2d(pictures, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], stride=16)
    x = x.flatten(2).transpose(1, 2) + w["pos_embed"]
    for n in range(layers):
        block = f"blocks.{n}"
        qkv = linear(norm(x, f"{block}.norm1"), f"{block}.attn.qkv")
        q, k, v = qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + linear(attended, f"{block}.attn.proj")
        hidden = F.gelu(linear(norm(x, f"{block}.norm2"), f"{block}.mlp.fc1"), approximate="tanh")
        x = x + linear(hidden, f"{block}.mlp.fc2")
    return linear(norm(x, "norm").mean(1), "head")
