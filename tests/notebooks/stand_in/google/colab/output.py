"""The cell's output: the frame with a port of the machine, and JavaScript that answers."""

from __future__ import annotations

from google.colab import note, told


def serve_kernel_port_as_iframe(port: int, path: str = "/", width: str = "100%", height: str = "400") -> None:
    note("frame", port=port, path=path)


def eval_js(script: str, ignore_result: bool = False, timeout_sec: float | None = None) -> str:
    note("js", script=script)
    return str(told().get("proxy", "https://7860-gpu-t4-s-abc-c.europe-west4-1.prod.colab.dev/"))
