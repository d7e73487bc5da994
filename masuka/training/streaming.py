"""Blocks of a frozen model that wait in main memory and come when it is their turn.

One way only: what does not learn need not go back. A block's weights lie in one pinned
buffer; while a block computes, the next one's are copied by a stream of their own. Backward
each block is computed again (gradient checkpointing), and so comes again; what autograd
keeps of it goes with its gradients. Knows no family and no training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Arrive = Callable[[Tensor], Tensor]
"""A copy of a host buffer where it is computed with."""


def blocks_of(module: nn.Module) -> list[nn.Module]:
    """The parts that are computed again by themselves, in the order of the model.

    A transformer's are what its lists of layers hold; a UNet's lie deeper.
    """
    deep = [part for part in module.modules() if isinstance(part, (ResnetBlock2D, BasicTransformerBlock))]
    return deep or [b for child in module.children() if isinstance(child, nn.ModuleList) for b in child]


class Streaming:
    """A model of which some blocks wait on the host; `waiting` says which.

    Gradient checkpointing is on with it. A block that is not computed again backward stays
    where it computes from its first gradient on.
    """

    def __init__(self, module: nn.Module, device: str, arrive: Arrive | None = None) -> None:
        self._module, self._device = module, torch.device(device)
        self._arrive = arrive or self._copied
        self._blocks: list[_Block] = []
        self._ahead: dict[int, tuple[list[Tensor], torch.cuda.Event | None]] = {}
        self._last = -1
        self._again = 0
        on_gpu = self._device.type == "cuda"
        self._side = torch.cuda.Stream(self._device) if on_gpu else None  # type: ignore[no-untyped-call]
        module.enable_gradient_checkpointing(self._computed_again)  # type: ignore[operator]

    @property
    def waiting(self) -> list[nn.Module]:
        """The blocks whose weights lie on the host between their turns."""
        return [block.module for block in self._blocks if not block.stays]

    def send(self, share: float) -> None:
        """Sends that share of the blocks to the host, evenly spread, the rest to work."""
        every = blocks_of(self._module)
        wanted = [b for n, b in enumerate(every) if int((n + 1) * share) > int(n * share)]
        known = {id(block.module): block for block in self._blocks}
        chosen = [b for b in every if id(b) in known or any(b is other for other in wanted)]
        self._blocks = [known.get(id(b)) or self._sent(b) for b in chosen]
        host = {id(weight) for block in self._blocks for weight in block.weights}
        for weight in self._module.parameters():
            if id(weight) not in host:
                weight.data = weight.data.to(self._device)
        for part in self._module.modules():
            for name, buffer in part._buffers.items():
                if buffer is not None:
                    part._buffers[name] = buffer.to(self._device)

    def _sent(self, module: nn.Module) -> _Block:
        block = _Block(module, pin=self._side is not None)
        # Called also where a computation is given up half-way: what came must go.
        module.register_forward_pre_hook(lambda *_: self._begins(block))
        module.register_forward_hook(lambda *_: self._ends(block), always_call=True)
        return block

    def _computed_again(self, unit: Callable[..., Any], *inputs: Any) -> Any:
        def run(*again: Any) -> Any:
            self._again += 1
            try:
                return unit(*again)
            finally:
                self._again -= 1

        return checkpoint(run, *inputs, use_reentrant=False)

    def _begins(self, block: _Block) -> None:
        if block.stays:
            return
        number = self._blocks.index(block)
        block.come(self._taken(number))
        block.stays = torch.is_grad_enabled() and not self._again
        following = self._following(number)
        self._last = number
        if self._side is not None and following not in (number, None) and following not in self._ahead:
            self._fetch(following, self._side)

    def _ends(self, block: _Block) -> None:
        if not block.stays:
            block.go()

    def _following(self, number: int) -> int | None:
        """The block that comes next: forward, or backward when the last one came from above."""
        # The last one comes twice in a row: forward, and at once again backward.
        turned = number == self._last == len(self._blocks) - 1
        backward = torch.is_grad_enabled() and (turned or number == self._last - 1)
        following = number - 1 if backward else number + 1
        return following if 0 <= following < len(self._blocks) else None

    def _taken(self, number: int) -> list[Tensor]:
        """The block's buffers on the device: fetched before, or copied now."""
        buffers, event = self._ahead.pop(number, (None, None))
        # Fetched for a turn that did not come: the order turned.
        self._ahead.clear()
        if buffers is None:
            return [self._arrive(buffer) for buffer in self._blocks[number].buffers]
        if event is not None:
            torch.cuda.current_stream(self._device).wait_event(event)
        return buffers

    def _fetch(self, number: int, side: torch.cuda.Stream) -> None:
        # What the memory held before may still be computed with: only up to now, not from now on.
        side.wait_stream(torch.cuda.current_stream(self._device))
        hosts = self._blocks[number].buffers
        buffers = [torch.empty_like(buffer, device=self._device) for buffer in hosts]
        with torch.cuda.stream(side):
            for buffer, host in zip(buffers, hosts, strict=True):
                buffer.copy_(host, non_blocking=True)
                buffer.record_stream(side)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record(side)
        self._ahead[number] = (buffers, event)

    def _copied(self, host: Tensor) -> Tensor:
        return torch.empty_like(host, device=self._device).copy_(host, non_blocking=True)


class _Block:
    """A block's frozen weights: in host buffers, one a number format, and in its turn elsewhere."""

    def __init__(self, module: nn.Module, *, pin: bool) -> None:
        self.module = module
        self.stays = False
        self._places = [
            (part, name, weight)
            for part in module.modules()
            for name, weight in part._parameters.items()
            if weight is not None and not weight.requires_grad
        ]
        self.weights = [weight for _, _, weight in self._places]
        formats = list(dict.fromkeys(weight.dtype for weight in self.weights))
        self.buffers = [self._gathered(dtype, pin) for dtype in formats]
        self._of = [formats.index(weight.dtype) for weight in self.weights]
        for weight, view in zip(self.weights, self._views(self.buffers), strict=True):
            weight.data = view

    def come(self, buffers: Sequence[Tensor]) -> None:
        """The block computes with these buffers."""
        # Not `.data`: autograd keeps a frozen parameter itself (torch 2.13), not what it held then.
        for (part, name, _), view in zip(self._places, self._views(buffers), strict=True):
            part._parameters[name] = nn.Parameter(view, requires_grad=False)

    def go(self) -> None:
        """The block's weights are those on the host."""
        for part, name, weight in self._places:
            part._parameters[name] = weight

    def _views(self, buffers: Sequence[Tensor]) -> list[Tensor]:
        """Each weight's part of the buffers."""
        starts = [0] * len(buffers)
        views = []
        for weight, number in zip(self.weights, self._of, strict=True):
            start = starts[number]
            starts[number] = start + weight.numel()
            views.append(buffers[number][start : starts[number]].view(weight.shape))
        return views

    def _gathered(self, dtype: torch.dtype, pin: bool) -> Tensor:
        mine = [weight.data.reshape(-1) for weight in self.weights if weight.dtype == dtype]
        buffer = torch.empty(sum(weight.numel() for weight in mine), dtype=dtype, pin_memory=pin)
        start = 0
        for weight in mine:
            buffer[start : start + weight.numel()].copy_(weight)
            start += weight.numel()
        return buffer
