"""The programs that a training's figures may also be written for, if they are installed.

Light: the writing is in `masuka.training.logging`, in a worker.
"""

from __future__ import annotations

from importlib.util import find_spec

from masuka.errors import InvalidInput

TITLES = {"tensorboard": "TensorBoard", "trackio": "trackio"}


def must_be_installed(metrics_to: str) -> None:
    """Raises InvalidInput where the figures are to go to a program that is not here."""
    if metrics_to in TITLES and find_spec(metrics_to) is None:
        raise InvalidInput(
            f"{TITLES[metrics_to]} is not installed.",
            f"Install it with: pip install {metrics_to}. Or leave it out; the report has all figures.",
            field="metrics_to",
        )
