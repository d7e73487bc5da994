"""What a training says when memory or disk run out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from masuka.errors import OutOfDisk
from masuka.jobs.failures import is_full_disk
from masuka.models.loading import as_out_of_memory

HINT = "Use a smaller batch or resolution, gradient checkpointing, or a quantised base."


@contextmanager
def plain_errors() -> Iterator[None]:
    """Turns the libraries' errors about memory and disk into sentences.

    Raises OutOfMemory or OutOfDisk in their place; everything else passes.
    """
    try:
        yield
    except Exception as error:
        if is_full_disk(error):
            raise OutOfDisk(
                "The disk is full; the training stopped at its last checkpoint.",
                "Make room, then resume it.",
            ) from error
        sentence = as_out_of_memory(error, HINT)
        if sentence is None:
            raise
        raise sentence from error
