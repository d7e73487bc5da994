"""A stand-in of the package `spaces` (0.51) as it behaves on ZeroGPU, without a GPU.

As the real one it loads Gradio when something is decorated, asks for time in the name of
the request whose event it is in, forks a daemon process, runs the function there in a
thread, sends arguments and result through pipes, and raises Gradio's errors by their
titles. MASUKA_ZERO_GPU_PLAN names a file: its first line is the mode, the rest is what was
asked.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import Any

REFUSALS = {
    "quota": ("ZeroGPU quota exceeded", "You have exceeded your free ZeroGPU quota (120s requested vs. 3s left). "),
    "illegal": ("ZeroGPU illegal duration", "The requested GPU duration (120s) is larger than the maximum allowed"),
    "busy": ("ZeroGPU queue timeout", 'No GPU was available after 60s. <a href="https://x">Retry</a> later'),
}


def GPU(task: Callable[..., Any] | None = None, *, duration: Any = None, size: str | None = None) -> Callable[..., Any]:
    """The decorated function."""
    if task is None:
        return partial(GPU, duration=duration, size=size)
    import gradio as gr
    from gradio.context import LocalContext

    context = multiprocessing.get_context("fork")

    @wraps(task)
    def borrowing(*args: Any, **kwargs: Any) -> Any:
        seconds = duration(*args, **kwargs) if callable(duration) else duration
        request = LocalContext.request.get(None)
        token = None if request is None else request.headers.get("x-ip-token")
        mode = _asked({"seconds": seconds, "in_event": request is not None, "token": token, "pid": os.getpid()})
        if mode in REFUSALS:
            title, message = REFUSALS[mode]
            raise gr.Error(message, title=title, print_exception=False)
        arguments, results = context.SimpleQueue(), context.SimpleQueue()
        worker = context.Process(target=_forked, args=(task, arguments, results, mode), daemon=True)
        worker.start()
        arguments.put((args, kwargs))
        # The real one hears of a process that died through the end of its pipe.
        while results.empty() and worker.is_alive():
            worker.join(0.02)
        if results.empty():
            raise gr.Error("GPU task aborted", title="ZeroGPU worker error", print_exception=False)
        good, value = results.get()
        worker.kill()
        worker.join()
        if not good:
            raise gr.Error(value, title="ZeroGPU worker error", print_exception=False)
        return value

    return borrowing


def _forked(task: Callable[..., Any], arguments: Any, results: Any, mode: str) -> None:
    args, kwargs = arguments.get()
    if mode == "abort":
        threading.Timer(0.5, os._exit, (9,)).start()
    if mode == "abort when told":
        threading.Thread(target=_end_when_told).start()

    def run() -> None:
        try:
            results.put((True, task(*args, **kwargs)))
        except Exception as error:  # noqa: BLE001 - as the real one: every error goes through the pipe
            results.put((False, type(error).__name__))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    threading.Event().wait()  # it stays for the next call, until it is ended


def _end_when_told() -> None:
    while not Path(os.environ["MASUKA_ZERO_GPU_PLAN"]).with_name("take-it-back").exists():
        time.sleep(0.02)
    os._exit(9)


def _asked(what: dict[str, Any]) -> str:
    plan = Path(os.environ["MASUKA_ZERO_GPU_PLAN"])
    mode = plan.read_text().splitlines()[0]
    with plan.open("a") as file:
        file.write(json.dumps(what) + "\n")
    return mode
