"""How a model takes its room on the device, and what is given up when that runs out.

In this order: activations are computed again, blocks wait in main memory, micro-steps are
halved. None of it changes what is learnt, only how long it takes; the resolution is never
touched.
"""

from __future__ import annotations

from torch import nn

from masuka.models.ladder import may_stream
from masuka.training.compiling import compile_blocks
from masuka.training.plan import Plan
from masuka.training.streaming import Streaming

LARGE_PARAMETERS = 1_000_000_000
"""From this size on, 'auto' computes activations again: they would not fit beside the weights."""
SHARES = (0.5, 1.0)
"""Of the blocks, that go to main memory one after the other."""


class Room:
    """The room of one model: where its blocks are, `at_once` pictures a micro-step."""

    def __init__(self, plan: Plan, module: nn.Module) -> None:
        request = plan.request
        self._plan, self._module = plan, module
        self._streaming: Streaming | None = None
        self._share = 0.0
        self._recomputes = False
        self.at_once = request.batch_size
        if request.blocks_on_host:
            self._send(request.blocks_on_host)
        elif self._is_asked_to_recompute():
            self._recompute()

    def compile(self) -> None:
        """Compiles the blocks where that is asked for; after all layers are in place."""
        if self._plan.request.compile_blocks:
            compile_blocks(self._module)

    def make(self) -> str:
        """What was given up to make room, in words; '' when nothing is left."""
        if not self._recomputes:
            self._recompute()
            return "activations are computed again instead of kept"
        share = next((share for share in SHARES if share > self._share), None)
        if share is not None and self._may_send():
            self._send(share)
            return f"{'half of' if share < 1 else 'all'} the blocks wait in main memory"
        if self.at_once > 1:
            self.at_once = -(-self.at_once // 2)
            many = "picture is" if self.at_once == 1 else "pictures are"
            return f"{self.at_once} {many} computed at once, as many as before in a step"
        return ""

    def _is_asked_to_recompute(self) -> bool:
        setting = self._plan.request.gradient_checkpointing
        if setting == "auto":
            return sum(weight.numel() for weight in self._module.parameters()) >= LARGE_PARAMETERS
        return setting == "on"

    def _recompute(self) -> None:
        self._recomputes = True
        self._module.enable_gradient_checkpointing()  # type: ignore[operator]

    def _may_send(self) -> bool:
        # On a CPU they are in main memory already.
        return self._plan.device.startswith("cuda") and may_stream(self._plan.request)

    def _send(self, share: float) -> None:
        self._share, self._recomputes = share, True
        if self._streaming is None:
            self._streaming = Streaming(self._module, self._plan.device)
        self._streaming.send(share)
