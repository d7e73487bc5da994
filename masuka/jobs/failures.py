"""What became of a job that did not end well, in words a person can act on.

Memory of the GPU, memory of the machine, a crash and a wish are four different things.
"""

from __future__ import annotations

import errno
import signal

from masuka.errors import MasukaError, OutOfDisk, OutOfMemory

EXIT_CANNOT_WRITE = 74
"""Exit code of a worker that could not even write its last event."""

FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
MEMORY_WORDS = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory")


def from_exception(error: BaseException) -> MasukaError | None:
    """The sentence for an exception of a job's code; None for a bug."""
    if isinstance(error, MasukaError):
        return error
    if is_full_disk(error):
        return OutOfDisk("The disk is full.", "Free some space, then retry.")
    text = str(error).lower()
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return _machine_memory()
    # torch's class is known by its name, so that this module needs no torch.
    if type(error).__name__ == "OutOfMemoryError" or "cuda out of memory" in text:
        return OutOfMemory(
            "The memory of the GPU ran out.",
            "Choose a smaller size or batch, or close other programs that use the GPU, then retry.",
        )
    if isinstance(error, RuntimeError) and any(words in text for words in MEMORY_WORDS):
        return _machine_memory()
    return None


def is_full_disk(error: BaseException) -> bool:
    """Whether the error means that nothing more can be written."""
    if isinstance(error, OSError):
        return error.errno in FULL_DISK
    # safetensors, written in Rust, has an error of its own that is no OSError.
    return any(f"(os error {number})" in str(error) for number in FULL_DISK)


def bug(reference: str) -> MasukaError:
    """The sentence for a mistake of ours; its reference is in the log."""
    return MasukaError(
        "Something went wrong inside MASUKA.",
        f"Look for {reference} in the log of this job, and send it with the report.",
    )


def from_exit(code: int | None) -> MasukaError:
    """The sentence for a process that ended without a word; None: nobody saw its end.

    A negative code is the signal, as in `subprocess`.
    """
    if code == EXIT_CANNOT_WRITE:
        return OutOfDisk("The job could not write its files.", "Free some space on the disk, then retry.")
    if code == -signal.SIGKILL:
        return OutOfMemory(
            "The system ended the job, most likely because the machine's memory (RAM) ran out.",
            "Close other programs or choose something smaller, then retry.",
        )
    if code is None:
        return MasukaError("The job was interrupted when MASUKA stopped.", "Resume it.")
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return MasukaError(f"The job's process crashed ({how}).", "Retry; if it happens again, look at its log.")


def lost_too_often(losses: int, last: MasukaError) -> MasukaError:
    """The sentence for a job that was lost again and again without getting further."""
    again = type(last) if type(last) in (OutOfMemory, OutOfDisk) else MasukaError
    return again(
        f"The job was lost {losses} times without a new checkpoint. {last.message}",
        "Choose smaller settings, or look at its log, then retry.",
    )


def _machine_memory() -> OutOfMemory:
    return OutOfMemory(
        "The machine's memory (RAM) ran out.", "Close other programs or choose something smaller, then retry."
    )
