"""Jobs that behave in every way a real one may; run in real workers by the tests."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from masuka.errors import InvalidInput, Stop
from masuka.jobs.kinds import Kind
from masuka.jobs.reporter import Reporter

HERE = "tests.worker.jobs_for_tests"

KINDS = {
    kind.name: kind
    for kind in (
        Kind("count", "cpu", f"{HERE}:count", "Counting"),
        Kind("count_net", "net", f"{HERE}:count", "Counting elsewhere"),
        Kind("draw", "gpu", f"{HERE}:count", "Counting on the device"),
        Kind("train", "gpu", f"{HERE}:train", "Training", warm=False, resumes=True),
        Kind("doomed_train", "gpu", f"{HERE}:die", "Dying", warm=False, resumes=True),
        Kind("raise_bug", "cpu", f"{HERE}:raise_bug", "Raising"),
        Kind("refuse", "cpu", f"{HERE}:refuse", "Refusing"),
        Kind("run_out_of_gpu", "cpu", f"{HERE}:run_out_of_gpu", "Filling the GPU"),
        Kind("run_out_of_ram", "cpu", f"{HERE}:run_out_of_ram", "Filling the RAM"),
        Kind("die", "cpu", f"{HERE}:die", "Dying"),
        Kind("crash", "cpu", f"{HERE}:crash", "Crashing"),
        Kind("exit", "cpu", f"{HERE}:leave", "Leaving"),
        Kind("hang_in_c", "cpu", f"{HERE}:hang_in_c", "Hanging"),
        Kind("hang_in_python", "cpu", f"{HERE}:hang_in_python", "Hanging"),
        Kind("spawn", "gpu", f"{HERE}:spawn", "Spawning", warm=False),
        Kind("import", "cpu", f"{HERE}:import_files", "Writing files"),
        Kind("chatter", "cpu", f"{HERE}:chatter", "Printing"),
        Kind("missing", "cpu", "tests.worker.no_such_module:run", "Nothing"),
        Kind("who", "cpu", f"{HERE}:who", "Looking", keys=("HF_TOKEN",)),
        Kind("tell_key", "cpu", f"{HERE}:tell_key", "Logging a key", keys=("HF_TOKEN",)),
        Kind("look_around", "cpu", f"{HERE}:look_around", "Looking at the environment"),
        Kind("look_around_with_key", "cpu", f"{HERE}:look_around", "Looking", keys=("HF_TOKEN", "FAL_KEY")),
    )
}


def count(params: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    """Counts to `total`, `seconds` a step, looking for a stop each time."""
    total, seconds = params.get("total", 3), params.get("seconds", 0.0)
    reporter.stage("Counting")
    (reporter.scratch / "half.tmp").write_text("half")
    for step in range(1, total + 1):
        reporter.check()
        time.sleep(seconds)
        reporter.progress(step, total)
    return {"counted": total, "pid": os.getpid()}


def train(params: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    """Counts like a training: each step once, from the checkpoint on, which a pause writes."""
    total, seconds, every = params["total"], params["seconds"], params.get("every", 5)
    output = Path(params["output"])
    state = Path(params["run_folder"]) / "checkpoint.txt"
    state.parent.mkdir(parents=True, exist_ok=True)
    step = int(state.read_text()) if state.exists() else 0
    reporter.stage("Training")

    def keep() -> None:
        new = state.with_suffix(".new")
        new.write_text(str(step))
        new.replace(state)
        reporter.artefact("checkpoint", state, step=step)

    try:
        while step < total:
            reporter.check()
            time.sleep(seconds)
            step += 1
            with (state.parent / "steps.txt").open("a") as steps:
                steps.write(f"{step}\n")
            reporter.progress(step, total)
            if step % every == 0:
                keep()
    except Stop as stop:
        if stop.why == "pause":
            keep()
        raise
    output.mkdir(parents=True, exist_ok=True)
    (output / "adapter.safetensors").write_text("weights")
    return {"steps": step}


def raise_bug(params: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    return {"impossible": 1 / 0}


def refuse(params: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    _half_output(params)
    raise InvalidInput("There are 0 pictures.", "Add some.", field="pictures")


class OutOfMemoryError(RuntimeError):
    """Named like torch's."""


def run_out_of_gpu(params: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    raise OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


def run_out_of_ram(params: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    return {"bytes": len(bytearray(1 << 62))}


def die(params: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    """As the kernel's OOM killer ends a process."""
    _half_output(params)
    reporter.stage("Dying")
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def crash(params: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    ctypes.string_at(0)
    return {}


def leave(params: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    reporter.stage("Leaving")
    os._exit(3)


def hang_in_c(params: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    """Sits in a C call that no signal interrupts, holding the interpreter's lock, as a stuck driver does."""
    reporter.stage("Hanging")
    libc = ctypes.PyDLL(None)
    mutex = ctypes.create_string_buffer(128)
    libc.pthread_mutex_lock(mutex)
    libc.pthread_mutex_lock(mutex)
    return {}


def spawn(params: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    """Starts a child, one more in a session of its own, and waits for ever."""
    code = "import time; time.sleep(600)"
    children = [
        subprocess.Popen([sys.executable, "-c", code], start_new_session=session) for session in (False, True)
    ]
    Path(params["pids"]).write_text(" ".join(str(child.pid) for child in children))
    reporter.stage("Waiting")
    while not params.get("brief"):
        reporter.check()
        time.sleep(0.02)
    os._exit(1)


def import_files(params: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    """Adds `total` pictures to a data set, each written whole."""
    folder = Path(params["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(params["total"]):
        reporter.check()
        time.sleep(params.get("seconds", 0.0))
        new = reporter.scratch / f"{number}.png"
        new.write_bytes(b"picture %d" % number)
        file = folder / new.name
        new.replace(file)
        reporter.artefact(
            "picture", file, original_name=new.name, sha256=f"{number:064d}", width=8, height=8, bytes=9,
            caption="a picture",
        )  # fmt: skip
        reporter.progress(number + 1, params["total"])
    return {"added": params["total"]}


def chatter(params: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    print("first line")
    os.write(2, b"10%\r20%\r100%\nfrom C\n")
    reporter.note("A note.")
    return {}


def who(params: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    """What a worker's surroundings are."""
    return {
        "job_id": params["job_id"],
        "cwd": str(Path.cwd()),
        "argv": " ".join(sys.orig_argv),
        "token": os.environ.get("HF_TOKEN"),
        "leader": os.getsid(0) == os.getpid(),
        "store": "masuka.store" in sys.modules,
        "modules": sorted({name.partition(".")[0] for name in sys.modules}),
    }


def tell_key(params: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    """As a careless library does."""
    logging.getLogger("careless").warning("asking with %s", os.environ["HF_TOKEN"])
    return {}


def look_around(params: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    """All that this process could tell: its environment now and at its start, its arguments."""
    own = Path("/proc/self")
    started = [(own / name).read_bytes().decode(errors="replace").split("\0") for name in ("environ", "cmdline")]
    return {"environment": dict(os.environ), "started": started, "params": params}


def _half_output(params: dict[str, Any]) -> None:
    if "output" in params:
        Path(params["output"]).mkdir(parents=True, exist_ok=True)
        (Path(params["output"]) / "half.safetensors").write_text("half")


def hang_in_python(params: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    """Never asks whether to stop, and tidies up when it is made to."""
    try:
        reporter.stage("Hanging")
        while True:
            time.sleep(0.05)
    finally:
        Path(params["tidied"]).write_text("yes")
