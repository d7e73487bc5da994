"""Compiling a model block by block: quicker steps, and minutes of compiling only once.

All blocks of a kind share one compiled form; a whole model would be compiled for as long
as it has blocks.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from masuka.training.streaming import blocks_of

FORMS = 64
"""So many compiled forms of one kind of block may be: sizes of buckets, learning and drawing."""


def compile_blocks(module: nn.Module, backend: Any = "inductor") -> int:
    """How many blocks will be compiled when they are first computed.

    Their `forward` alone: what hooks do (stopping, for one) stays outside.
    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, FORMS)
    blocks = blocks_of(module)
    for block in blocks:
        block.forward = torch.compile(block.forward, backend=backend)
    return len(blocks)
