"""Blocks that wait in main memory: the same gradients, and the weights gone between turns."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from masuka.errors import InvalidInput
from masuka.families import FAMILIES
from masuka.families.abilities import must_be_able
from masuka.requests.training import TrainImage
from masuka.training.streaming import Streaming, blocks_of
from tests.every_family import tiny_folder
from tests.tiny_training import Job, train_params

FAMILY_NAMES = sorted(FAMILIES)


class Elsewhere:
    """A second memory: what waits is stored upside down, so that whoever uses it there errs."""

    def __init__(self) -> None:
        self.arrived: list[weakref.ref[Tensor]] = []
        self.most = 0

    def __call__(self, host: Tensor) -> Tensor:
        copy = -host
        self.arrived = [ref for ref in self.arrived if ref() is not None]
        self.arrived.append(weakref.ref(copy))
        self.most = max(self.most, len(self.arrived))
        return copy

    def send(self, module: nn.Module, share: float) -> Streaming:
        streaming = Streaming(module, "cpu", self)
        streaming.send(share)
        for block in streaming._blocks:
            for buffer in block.buffers:
                buffer.neg_()
        return streaming


def model(name: str) -> tuple[nn.Module, dict[str, nn.Parameter]]:
    """A tiny denoiser in which the output of every block is moved a little by what learns."""
    torch.manual_seed(0)
    module = FAMILIES[name].denoiser(tiny_folder(name), dtype=torch.float32, device="cpu")
    learns = {}
    for number, layer in enumerate(part for part in module.modules() if type(part) is nn.Linear):
        if number % 3 == 0:
            learns[str(number)] = scale = nn.Parameter(torch.full((layer.out_features,), 0.9))
            layer.register_forward_hook(lambda _, __, out, scale=scale: out * scale)
    return module, learns


def gradients(name: str, module: nn.Module, learns: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    """What a step gives, from inputs that are always the same."""
    family, generator = FAMILIES[name], torch.Generator().manual_seed(4)
    with torch.no_grad():
        encoder = family.text_encoder(tiny_folder(name), dtype=torch.float32, device="cpu")
        text = family.encode_text(encoder, ["a red robot"])
        autoencoder = family.autoencoder(tiny_folder(name), dtype=torch.float32, device="cpu")
        posterior = family.encode_pixels(autoencoder, torch.rand(1, 3, 64, 64, generator=generator) * 2 - 1)
        latents = family.sample_latents(dict(autoencoder.config), posterior, generator)  # type: ignore[call-overload]
    found = {}
    for turn in range(2):
        module.zero_grad()
        for weight in learns.values():
            weight.grad = None
        noise = torch.randn(latents.shape, generator=generator)
        sigmas = torch.tensor([0.4])
        noisy = family.add_noise(latents, noise, sigmas)
        family.predict(module, noisy, sigmas, text).square().mean().backward()
        found |= {f"{turn}/{n}": w.grad.clone() for n, w in learns.items() if w.grad is not None}
    return found


def predicted(module: nn.Module) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    text = {"prompt_embeds": torch.randn(1, 24, 32, generator=generator),
            "pooled_prompt_embeds": torch.randn(1, 32, generator=generator)}  # fmt: skip
    noisy = torch.randn(1, 4, 8, 8, generator=generator)
    with torch.no_grad():
        return FAMILIES["flux"].predict(module, noisy, torch.tensor([0.5]), text)


@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_streamed_and_resident_gradients_are_the_same(name: str) -> None:
    module, learns = model(name)
    module.enable_gradient_checkpointing()  # type: ignore[operator]
    expected = gradients(name, module, learns)
    elsewhere = Elsewhere()
    streaming = elsewhere.send(module, 1.0)
    found = gradients(name, module, learns)
    assert found.keys() == expected.keys() and len(found) > 3
    for key, gradient in expected.items():
        assert torch.allclose(found[key], gradient, rtol=1e-5, atol=1e-9), key
    assert len(streaming.waiting) >= len(blocks_of(module)) / 2, "most of them can wait"
    first = next(module.parameters())
    inside = {id(weight) for block in streaming.waiting for weight in block.parameters()}
    assert id(first) not in inside, "libraries ask it where the model computes"


def test_weights_are_away_between_their_turns() -> None:
    module, learns = model("flux")
    elsewhere = Elsewhere()
    streaming = elsewhere.send(module, 1.0)
    blocks = blocks_of(module)
    assert len(blocks) == 4 and streaming.waiting == blocks
    gradients("flux", module, learns)
    assert elsewhere.most <= 2, "the one that computes and the one whose gradients are being made"
    assert all(ref() is None for ref in elsewhere.arrived)
    hosts = [buffer for block in streaming._blocks for buffer in block.buffers]
    inside = [(h.data_ptr(), h.data_ptr() + h.nbytes) for h in hosts]
    for block in blocks:
        for weight in block.parameters():
            assert any(low <= weight.data_ptr() < high for low, high in inside)


def test_a_share_is_spread_and_may_grow() -> None:
    module, learns = model("flux")
    module.enable_gradient_checkpointing()  # type: ignore[operator]
    expected = gradients("flux", module, learns)
    streaming = Streaming(module, "cpu")
    streaming.send(0.5)
    blocks = blocks_of(module)
    assert streaming.waiting == [blocks[1], blocks[3]]
    streaming.send(1.0)
    assert streaming.waiting == blocks
    found = gradients("flux", module, learns)
    assert all(torch.allclose(found[key], g, rtol=1e-5, atol=1e-9) for key, g in expected.items())
    streamed, (resident, _) = predicted(module), model("flux")
    assert torch.allclose(streamed, predicted(resident), atol=1e-6), "without gradients, as when drawing"


def test_a_training_with_blocks_in_main_memory_learns_the_same(tmp_path: Path) -> None:
    def losses(root: Path, **request: Any) -> dict[int, float]:
        job = Job(root)
        job.run(train_params(root, steps=2, **request))
        return job.losses()

    resident = losses(tmp_path / "a")
    assert losses(tmp_path / "b", blocks_on_host=0.5) == pytest.approx(resident, abs=1e-6)


@pytest.mark.parametrize(
    "other",
    [{"quantize": "nf4"}, {"gradient_checkpointing": "off"}, {"compile_blocks": True}, {"method": "full"}],
)
def test_what_needs_every_block_on_the_gpu_is_refused_beside(other: dict[str, Any]) -> None:
    request = TrainImage.parse({"dataset_id": 1, "blocks_on_host": 0.5, **other})
    with pytest.raises(InvalidInput, match="main memory") as caught:
        must_be_able(FAMILIES["flux"], request)
    assert caught.value.field == next(iter(other))
