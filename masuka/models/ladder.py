"""In which order a training gives up speed for memory: before it starts and within it.

Checkpointing, a quantised base, blocks in main memory, smaller micro-steps with as many more
of them: the first costs time only, the last changes no result. The resolution is never
lowered; that would be another training.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from masuka.requests.training import TrainImage

SHARES_ON_HOST = (0.25, 0.5, 0.75, 1.0)
QUANTISABLE = ("lora", "dora")


@dataclass(frozen=True)
class Rung:
    """Settings that need less than the rung before, and what they change."""

    request: TrainImage
    changes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Step:
    values: dict[str, Any] = field(default_factory=dict)
    said: tuple[str, ...] = ()

    def with_(self, said: str, **values: Any) -> _Step:
        return _Step({**self.values, **values}, (*self.said, said))


def rungs(request: TrainImage, *, recomputes: bool, on_cuda: bool) -> Iterator[Rung]:
    """The request as it is, then ever thriftier ones.

    `recomputes`: whether it does so anyway; `on_cuda`: bases are quantised and streamed
    with an NVIDIA GPU only.
    """
    step = _Step()
    yield _rung(request, step)
    if not recomputes:
        step = step.with_(
            "Activations are computed again instead of kept; a step takes about a third longer.",
            gradient_checkpointing="on",
        )
        yield _rung(request, step)
    thrifty = [step]
    if on_cuda and request.quantize == "none" and request.method in QUANTISABLE and not request.blocks_on_host:
        for bits, kind in ((8, "int8"), (4, "nf4")):
            quantised = step.with_(f"The base is kept in {bits} bits.", quantize=kind)
            yield _rung(request, quantised)
        thrifty.append(quantised)
    if on_cuda and may_stream(request):
        for share in SHARES_ON_HOST:
            if share > request.blocks_on_host:
                told = f"{share:.0%} of the base waits in main memory; steps are slower."
                streamed = step.with_(told, blocks_on_host=share)
                yield _rung(request, streamed)
        if request.blocks_on_host < 1:
            thrifty.append(streamed)
    for base in thrifty:
        yield from _smaller_batches(request, base)


def may_stream(request: TrainImage) -> bool:
    """Whether blocks may wait in main memory.

    Those of a frozen base in its own format, not compiled.
    """
    return request.quantize == "none" and request.method != "full" and not request.compile_blocks


def _smaller_batches(request: TrainImage, base: _Step) -> Iterator[Rung]:
    batch, accumulation = request.batch_size, request.gradient_accumulation_steps
    limit = 64
    while batch % 2 == 0 and accumulation * 2 <= limit:
        batch, accumulation = batch // 2, accumulation * 2
        told = f"Micro-steps of {batch}, {accumulation} to a step: the same result."
        yield _rung(request, base.with_(told, batch_size=batch, gradient_accumulation_steps=accumulation))


def _rung(request: TrainImage, step: _Step) -> Rung:
    return Rung(request.model_copy(update=step.values), step.said)
