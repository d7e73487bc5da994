"""The lean LoRA layers compute what peft's do, and one vector holds them all."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from masuka.errors import InvalidInput
from masuka.requests.training import TrainImage
from masuka.training.lora import FlatWeights, LeanLayers, inject, part_of, peft_layers, together
from masuka.training.quick import plain_attention
from tests.tiny_flux import FLUX, tiny_folder

TARGETS = FLUX.lora_targets["attention_and_mlp"]


def asked(**values: Any) -> TrainImage:
    return TrainImage.parse({"dataset_id": 1, "rank": 4, **values})


def denoiser(dtype: torch.dtype = torch.float32, alpha: int = 4) -> tuple[nn.Module, dict[str, nn.Parameter]]:
    torch.manual_seed(0)
    module = FLUX.denoiser(tiny_folder(), dtype=dtype, device="cpu")
    named = inject(module, asked(alpha=alpha), TARGETS)
    for name, weight in named.items():
        if "lora_B" in name:
            nn.init.normal_(weight, std=0.1)
    return module, named


def run(module: nn.Module, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(4)
    noisy = torch.randn(2, 4, 16, 16, generator=generator).to(dtype)
    text = {
        "prompt_embeds": torch.randn(2, 24, 32, generator=generator).to(dtype),
        "pooled_prompt_embeds": torch.randn(2, 32, generator=generator).to(dtype),
    }
    return FLUX.predict(module, noisy, torch.tensor([0.2, 0.7]), text)


def gradients(module: nn.Module, named: dict[str, nn.Parameter]) -> tuple[Tensor, dict[str, Tensor]]:
    for weight in named.values():
        weight.grad = None
    predicted = run(module)
    predicted.square().mean().backward()
    return predicted.detach(), {name: w.grad.clone() for name, w in named.items() if w.grad is not None}


@pytest.mark.parametrize("alpha", [4, 6])
def test_lean_layers_give_pefts_outputs_and_gradients(alpha: int) -> None:
    module, named = denoiser(alpha=alpha)
    expected, expected_gradients = gradients(module, named)
    lean = LeanLayers(module, torch.float32)
    assert len(lean) == len(named) // 2
    lean.on()
    predicted, found = gradients(module, named)
    assert torch.allclose(predicted, expected, atol=1e-5)
    assert found.keys() == expected_gradients.keys() == named.keys()
    for name, gradient in found.items():
        assert torch.allclose(gradient, expected_gradients[name], rtol=1e-3, atol=1e-7), name
    lean.off()
    assert torch.equal(run(module), expected)


def test_lean_layers_leave_other_number_formats_to_peft() -> None:
    module, _ = denoiser()
    assert len(LeanLayers(module, torch.bfloat16)) == 0


def test_plain_attention_attends_alike() -> None:
    module, _ = denoiser(torch.bfloat16)
    expected = run(module, torch.bfloat16).float()
    with plain_attention("cpu", torch.bfloat16, 128):
        found = run(module, torch.bfloat16).float()
    assert (found - expected).norm() < 0.03 * expected.norm()
    assert not torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()


def test_a_pattern_without_layers_is_refused() -> None:
    module = FLUX.denoiser(tiny_folder(), dtype=torch.float32, device="cpu")
    with pytest.raises(InvalidInput, match="none of the layers"):
        inject(module, asked(), "nothing")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_layers_see_the_vector_and_the_vector_their_gradients(dtype: torch.dtype) -> None:
    module, named = denoiser(dtype)
    weights = FlatWeights(named, dtype=dtype, ema_decay=0.0)
    before = run(module, dtype).detach()
    for _ in range(2):
        run(module, dtype).float().square().mean().backward()
        weights.gather()
    assert weights.master.grad is not None
    total = weights.named(weights.master.grad)
    assert all(float(part.abs().sum()) > 0 for part in total.values())
    with torch.no_grad():
        weights.master.add_(weights.master.grad, alpha=10.0)
    weights.publish()
    assert not torch.equal(run(module, dtype), before)
    for name, weight in named.items():
        assert torch.equal(weight.data, weights.named()[name].to(dtype))
    weights.forget_gradients()
    assert float(weights.master.grad.abs().sum()) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_average_follows_and_is_shown_and_hidden(dtype: torch.dtype) -> None:
    module, named = denoiser(dtype)
    weights = FlatWeights(named, dtype=dtype, ema_decay=0.5)
    start = weights.master.detach().clone()
    with torch.no_grad():
        weights.master.add_(1.0)
    weights.publish()
    trained = run(module, dtype)
    weights.update_average(step=100)
    assert weights.average is not None
    assert torch.allclose(weights.average, start + 0.5)
    weights.show_result()
    assert not torch.equal(run(module, dtype), trained)
    weights.show_training()
    assert torch.equal(run(module, dtype), trained)
    assert torch.equal(weights.result()[next(iter(named))], weights.named(weights.average)[next(iter(named))])


def test_weights_come_back_from_what_was_named() -> None:
    _, named = denoiser()
    weights = FlatWeights(named, dtype=torch.float32, ema_decay=0.9)
    kept = {name: tensor.clone() for name, tensor in weights.named().items()}
    with torch.no_grad():
        weights.master.zero_()
    weights.restore(kept, kept)
    assert all(torch.equal(tensor, kept[name]) for name, tensor in weights.named().items())
    assert weights.average is not None
    assert torch.equal(weights.average, weights.master)


def test_parts_are_kept_apart_and_exported_in_half_precision() -> None:
    parts: dict[str, Any] = {
        "denoiser": {"a": nn.Parameter(torch.ones(2))},
        "text": {"a": nn.Parameter(torch.zeros(2))},
    }
    named = together(parts)
    assert list(named) == ["denoiser:a", "text:a"]
    exported = peft_layers(part_of(named, "text"), torch.bfloat16)
    assert torch.equal(exported["a"], torch.zeros(2, dtype=torch.bfloat16))
