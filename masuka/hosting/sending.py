"""What a notebook's runtime still has to send before it may go.

Noted when the studio is opened, carried out when it is stopped, which may be another run of
a newer code's cell.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from masuka.errors import MasukaError, StoreError
from masuka.hosting import colab
from masuka.hosting.commands import ask_masuka
from masuka.hosting.install import Place
from masuka.hosting.steps import say

KEPT = "kept.json"
"""Beside the code; without a secret."""
LENT = "drive-token"
"""Where the vault looks for a lent token: vault.keeper.LENT_TOKEN, held together by a test."""


def drive_of(home: Path) -> Path:
    """Where Drive is mounted for the workspace there."""
    return home.parent / "drive"


def remember(place: Place, python: str, environment: Mapping[str, str]) -> None:
    """Notes what is to be sent; nothing where nothing is kept."""
    file = place.state / KEPT
    if "MASUKA_VAULT" in environment:
        mount = str(drive_of(Path(environment["MASUKA_HOME"]))) if environment["MASUKA_PLATFORM"] == "colab" else ""
        told = {"python": python, "environment": dict(environment), "mount": mount}
        file.write_text(json.dumps(told), encoding="utf-8")
    else:
        file.unlink(missing_ok=True)


def send_the_rest(place: Place) -> None:
    """Returns once everything is in the vault and in Drive; raises MasukaError."""
    file = place.state / KEPT
    if not file.exists():
        return
    kept = json.loads(file.read_text(encoding="utf-8"))
    say("Saving what is left; this can take minutes")
    try:
        told = ask_masuka(place, kept["python"], kept["environment"], "vault", "save")
        if told["files"] or told["state"] not in ("saved", "written"):
            raise StoreError(told["why"] or f"The vault is {told['state']}, {told['files']} files are left.")
        if kept["mount"]:
            say("Sending it to Drive")
            colab.flush_drive()
    except MasukaError as error:
        raise MasukaError(
            f"Not everything was saved, and the runtime is kept. {error.message}", "Run this cell again."
        ) from error
    (Path(kept["environment"]["MASUKA_HOME"]) / "secrets" / LENT).unlink(missing_ok=True)
    file.unlink()
    say("Everything is in the vault" if not kept["mount"] else
        "Everything written to Drive was sent. Drive is let go of; the first cell mounts it again")  # fmt: skip
