"""The LoRA while it learns (or DoRA, or LoKr): injected by peft, its weights in one flat
vector, plain layers run by one lean function.

One vector makes clipping, the optimiser, EMA and a checkpoint one operation each instead
of hundreds. The fp32 master is what is optimised; the layers compute with a working copy
in the denoiser's own dtype. Knows no family and no optimiser.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from peft import LoKrConfig, LoraConfig
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn

from masuka.errors import InvalidInput
from masuka.requests.training import TrainImage

ADAPTER = "learning"
ALIGNMENT = 64
"""Elements; every layer's slice of the vector starts on a full cache line."""


def inject(
    module: nn.Module, request: TrainImage, targets: str, *, blocks: str = ""
) -> dict[str, nn.Parameter]:
    """The adapter's parameters by name, freshly injected, the only trainable ones.

    `targets` is a pattern of whole layer names; `blocks` keeps those of some blocks only, as
    `7-12, 20`. Raises InvalidInput when no layer is left, or for a block that is not there.
    """
    module.requires_grad_(False)
    config = _config(request, _within(module, targets, blocks))
    try:
        with warnings.catch_warnings():
            # peft warns of a second adapter in one model; beside a training adapter that is meant.
            warnings.filterwarnings("ignore", "(?s).*multiple adapters", UserWarning)
            module.add_adapter(config, adapter_name=ADAPTER)  # type: ignore[operator]
    except ValueError as error:
        raise InvalidInput(
            "This base model has none of the layers that are to be trained.",
            "Choose other layers or other blocks." if blocks else "Choose other layers.",
            field="blocks" if blocks else "layers",
        ) from error
    # A training adapter beside ours leaves the adapters switched off.
    module.enable_adapters()  # type: ignore[operator]
    return {_plain(name): weight for name, weight in module.named_parameters() if weight.requires_grad}


def _config(request: TrainImage, targets: str) -> LoraConfig | LoKrConfig:
    alpha = request.alpha or request.rank
    if request.method == "lokr":
        return LoKrConfig(
            r=request.rank, alpha=alpha, decompose_factor=request.lokr_factor,
            rank_dropout=request.dropout, target_modules=targets,
        )  # fmt: skip
    return LoraConfig(
        r=request.rank, lora_alpha=alpha, lora_dropout=request.dropout,
        use_dora=request.method == "dora", target_modules=targets,
    )  # fmt: skip


def block_names(module: nn.Module) -> list[str]:
    """The model's blocks as they run one after another, counted from 0.

    All its lists of blocks are counted through; a UNet's middle stands between its halves.
    """
    children = dict(module.named_children())
    order = list(children)
    if "mid_block" in children and "up_blocks" in children:
        order.remove("mid_block")
        order.insert(order.index("up_blocks"), "mid_block")
    names = []
    for name in order:
        child = children[name]
        if isinstance(child, nn.ModuleList):
            names += [f"{name}.{number}" for number in range(len(child))]
        elif name == "mid_block":
            names.append(name)
    return names


def _within(module: nn.Module, targets: str, blocks: str) -> str:
    """The pattern, for layers of these blocks alone."""
    if not blocks:
        return targets
    known = block_names(module)
    wanted: set[int] = set()
    for part in blocks.replace(" ", "").split(","):
        first, _, last = part.partition("-")
        wanted |= set(range(int(first), int(last or first) + 1))
    if not wanted or max(wanted) >= len(known):
        raise InvalidInput(
            f"Blocks {blocks} are chosen, and this base has {len(known)}: 0 to {len(known) - 1}.",
            "Choose some of these, or leave it empty for all.",
            field="blocks",
        )
    chosen = "|".join(re.escape(known[number]) for number in sorted(wanted))
    return rf"(?=(?:{chosen})\.)(?:{targets})"


class FlatWeights:
    """All LoRA weights in one fp32 vector, `master`, of which the layers see a copy.

    `average` is the exponential moving average of the master, or None.
    """

    def __init__(self, named: Mapping[str, nn.Parameter], *, dtype: torch.dtype, ema_decay: float) -> None:
        device = next(iter(named.values())).device
        self._layers = dict(named)
        self._offsets: dict[str, int] = {}
        total = 0
        for name, weight in named.items():
            self._offsets[name] = total
            total += -(-weight.numel() // ALIGNMENT) * ALIGNMENT
        self.master = nn.Parameter(torch.zeros(total, device=device))
        self._separate = dtype != torch.float32
        self._working = torch.zeros(total, dtype=dtype, device=device) if self._separate else self.master.data
        self._gradient = torch.zeros_like(self._working)
        self._total = torch.zeros_like(self.master.data) if self._separate else self._gradient
        self.master.grad = self._total
        for name, weight in named.items():
            self._slice(self.master.data, name).copy_(weight.data)
            weight.data = self._slice(self._working, name)
            weight.grad = self._slice(self._gradient, name)
        self._decay = ema_decay
        self.publish()
        self.average = self.master.detach().clone() if ema_decay else None

    def gather(self) -> None:
        """Adds the layers' gradients to the master's; call it after each backward."""
        if self._separate:
            self._total.add_(self._gradient)
            self._gradient.zero_()

    def forget_gradients(self) -> None:
        self._total.zero_()
        if self._separate:
            self._gradient.zero_()  # of a backward that was given up

    def publish(self) -> None:
        """Lets the layers compute with the master's present values."""
        if self._separate:
            self._working.copy_(self.master.data)

    def show(self, vector: Tensor) -> None:
        """Lets the layers compute with that vector until `show_training`."""
        for name, weight in self._layers.items():
            weight.data = self._slice(vector, name).to(weight.dtype)

    def show_result(self) -> None:
        """Lets the layers compute with the average, if any, until `show_training`."""
        if self.average is not None:
            self.show(self.average)

    def show_training(self) -> None:
        """Undoes `show_result`."""
        for name, weight in self._layers.items():
            weight.data = self._slice(self._working, name)

    def update_average(self, step: int) -> None:
        """Moves the average towards the master; early steps count more."""
        if self.average is not None:
            decay = min(self._decay, (1 + step) / (10 + step))
            self.average.lerp_(self.master.data, 1 - decay)

    def named(self, vector: Tensor | None = None) -> dict[str, Tensor]:
        """Name → its part of the vector (the master if none is given), not copied."""
        vector = self.master.data if vector is None else vector
        return {name: self._slice(vector, name) for name in self._layers}

    def result(self) -> dict[str, Tensor]:
        """What the training made: the average where there is one, else the master."""
        return self.named(self.average)

    def restore(self, weights: Mapping[str, Tensor], average: Mapping[str, Tensor] | None) -> None:
        """Takes over what `named` gave an earlier process."""
        for name in self._layers:
            self._slice(self.master.data, name).copy_(weights[name])
            if self.average is not None and average is not None:
                self._slice(self.average, name).copy_(average[name])
        self.publish()

    def _slice(self, vector: Tensor, name: str) -> Tensor:
        shape, start = self._layers[name].shape, self._offsets[name]
        return vector[start : start + shape.numel()].view(shape)


class _LeanLora(torch.autograd.Function):
    """base(x) + scale · x Aᵀ Bᵀ as few matrix products, in place where that is safe.

    The frozen base gets no gradient; what peft computes as three products, a scaling and
    an addition over the whole output is here two products that accumulate.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float
    ) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        inner = rows @ a.t()
        out = nn.functional.linear(rows, weight, bias)
        out.addmm_(inner, b.t(), alpha=scale)
        ctx.save_for_backward(rows, inner, weight, a, b)
        ctx.scale = scale
        ctx.shape = x.shape
        return out.view(*x.shape[:-1], out.shape[-1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        rows, inner, weight, a, b = ctx.saved_tensors
        gradient = gradients[0].reshape(-1, gradients[0].shape[-1])
        through_b = gradient @ b
        if ctx.scale != 1:
            through_b *= ctx.scale
        for_a = through_b.t() @ rows
        for_b = gradient.t() @ inner
        if ctx.scale != 1:
            for_b *= ctx.scale
        for_x = None
        if ctx.needs_input_grad[0]:
            for_x = gradient @ weight
            for_x.addmm_(through_b, a)
            for_x = for_x.view(ctx.shape)
        return for_x, None, None, for_a, for_b, None


class LeanLayers:
    """The LoRA layers that can run `_LeanLora` instead of peft's own forward.

    Layers that peft treats specially (quantised bases, DoRA, LoKr, dropout) are left to peft,
    and all are while they are `off`: only then may there be other adapters beside this one.
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        self._layers = [
            layer
            for layer in module.modules()
            if type(layer) is LoraLinear
            and type(layer.base_layer) is nn.Linear
            and layer.base_layer.weight.dtype == dtype
            and not layer.lora_variant
            # A training adapter may cover more layers.
            and ADAPTER in layer.lora_A  # type: ignore[operator]
            and isinstance(layer.lora_dropout[ADAPTER], nn.Identity)  # type: ignore[index]
        ]

        # Made once: what was compiled for them holds whenever they are on.
        self._forwards = [_lean_forward(layer) for layer in self._layers]

    def __len__(self) -> int:
        return len(self._layers)

    def on(self) -> None:
        for layer, forward in zip(self._layers, self._forwards, strict=True):
            layer.forward = forward

    def off(self) -> None:
        for layer in self._layers:
            layer.__dict__.pop("forward", None)


def _lean_forward(layer: Any) -> Callable[[Tensor], Tensor]:
    base, scale = layer.base_layer, float(layer.scaling[ADAPTER])
    a, b = layer.lora_A[ADAPTER], layer.lora_B[ADAPTER]

    def forward(x: Tensor) -> Tensor:
        return _LeanLora.apply(x, base.weight, base.bias, a.weight, b.weight, scale)  # type: ignore[no-any-return, no-untyped-call]

    return forward


def peft_layers(named: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """The weights under peft's state-dict names, copied to the CPU in that dtype.

    DoRA's magnitudes stay fp32: what they learn is smaller than the steps of 16 bits.
    """
    return {
        name: tensor.detach().to("cpu", torch.float32 if "magnitude" in name else dtype).contiguous()
        for name, tensor in named.items()
    }


def _plain(name: str) -> str:
    return name.removesuffix(f".{ADAPTER}").replace(f".{ADAPTER}.", ".")


def together(parts: Mapping[str, Mapping[str, nn.Parameter]]) -> dict[str, nn.Parameter]:
    """The parameters of several modules under `<module>:<name>`."""
    return {f"{part}:{name}": weight for part, named in parts.items() for name, weight in named.items()}


def part_of(named: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    """Back from `together`: the weights of one module under their own names."""
    mark = f"{part}:"
    return {name.removeprefix(mark): tensor for name, tensor in named.items() if name.startswith(mark)}
