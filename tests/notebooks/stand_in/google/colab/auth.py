"""Signing in to Google from a cell: allowed or refused."""

from __future__ import annotations

from google.colab import note, told


def authenticate_user(clear_output: bool = True) -> None:
    note("auth")
    if told().get("auth") == "refused":
        raise RuntimeError("Failed to fetch user credentials")
