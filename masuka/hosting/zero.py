"""ZeroGPU, the Space whose GPU is lent to one request at a time: how it is borrowed.

The one place that loads `spaces`, and with it torch, into the app's process: its decorator
has to be there before Gradio is, and forks that process for each call (spaces 0.51).
Nothing else may know of it; see `jobs.executors.lent` for what is done with the GPU.
"""

from __future__ import annotations

import re
from importlib import import_module

from masuka.config import Settings, apply_quiet_environment
from masuka.datasets.captions.captioners import CAPTIONERS
from masuka.errors import MasukaError, NoAccelerator, RemoteUnavailable
from masuka.jobs.executors import lent
from masuka.jobs.kinds import KINDS

_TAG = re.compile(r"<[^>]*>")
_LONGEST = 300


def lender(settings: Settings) -> lent.Lend:
    """What borrows the GPU; call it before Gradio is imported.

    Loads the code of every kind that borrows, captioners' too: the forked process has no
    time to do that, for it is lent by the second.
    """
    apply_quiet_environment(settings.workspace.create())
    borrowed = import_module("spaces").GPU(_work, duration=_seconds)
    code = [kind.run for kind in KINDS.values() if kind.lent_s]
    if "caption_pictures" in KINDS:
        code += [entry.loads for entry in CAPTIONERS.values() if entry.where != "hosted"]
    for path in code:
        import_module(path.partition(":")[0])

    def lend(line: bytes, seconds: int) -> None:
        try:
            borrowed(line, seconds)
        except Exception as error:  # what it raises are errors of Gradio's, told apart by their titles
            raise told(error) from error

    return lend


def told(error: Exception) -> MasukaError:
    """Why ZeroGPU lent nothing, or took back what it lent, as a person needs it."""
    title = str(getattr(error, "title", ""))
    said = _TAG.sub("", str(getattr(error, "message", "") or error)).strip()[:_LONGEST]
    if "quota" in title or "credits" in title:
        return NoAccelerator(
            f"ZeroGPU lends no more time now. {said}",
            "Try again later, or sign in at huggingface.co with an account that has time left.",
        )
    if "illegal duration" in title:
        return NoAccelerator(
            f"ZeroGPU does not lend its GPU for so long. {said}", "Sign in at huggingface.co with an account that may."
        )
    if "worker" in title and "abort" in said:
        return NoAccelerator(
            "ZeroGPU took its GPU back before the job was done.", "Ask for fewer or smaller pictures at once."
        )
    return RemoteUnavailable(f"ZeroGPU lent no GPU. {said}", "Try again in a few minutes.")


def _work(line: bytes, seconds: int) -> None:
    """The function that is told to ZeroGPU; it runs in the process that is forked."""
    lent.work(line)


def _seconds(line: bytes, seconds: int) -> int:
    return seconds
