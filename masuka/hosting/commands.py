"""MASUKA's own commands, asked by a notebook's kernel."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from typing import Any

from masuka.config import child_environment
from masuka.errors import MasukaError, from_dict
from masuka.hosting.install import Place


def ask_masuka(place: Place, python: str, environment: Mapping[str, str], *arguments: str) -> Any:
    """What a command of MASUKA answers; raises MasukaError with its sentence."""
    answer = subprocess.run(
        [python, "-m", "masuka", *arguments, "--json"], cwd=place.root, env=child_environment(environment),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    try:
        found = json.loads(answer.stdout)
    except ValueError as error:
        raise MasukaError(f"masuka {arguments[0]} failed: {answer.stderr.strip()[-300:]}") from error
    if answer.returncode and isinstance(found, dict) and "error" in found:
        raise from_dict(found["error"])
    return found
