"""Stands in for Colab's own package in a kernel of the tests; see `told`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def told() -> dict[str, Any]:
    """How this Colab shall behave, as COLAB_STAND_IN says at this moment."""
    found: dict[str, Any] = json.loads(os.environ.get("COLAB_STAND_IN", "{}"))
    return found


def note(call: str, **about: Any) -> None:
    """Keeps what was asked of Colab, for the test to read."""
    with Path(os.environ["COLAB_STAND_IN_LOG"]).open("a") as log:
        log.write(json.dumps({"call": call, **about}) + "\n")
