"""What the agents of one workspace carry in their command lines, so that they are found again."""

from __future__ import annotations

from pathlib import Path

NGROK_FILE = "ngrok.yml"
NGROK_TEST_FILE = "ngrok-test.yml"
"""Settings of an agent that only proves a token."""
CLOUDFLARED_FILE = "cloudflared.pid"
GRADIO_FILE = "share.name"


def of_ngrok(config_file: Path) -> tuple[str, ...]:
    """The marks of the agent with these settings."""
    return ("start", "--none", "--config", str(config_file))


def of_cloudflared(folder: Path) -> tuple[str, ...]:
    """The marks of the agent of this folder for secrets."""
    return ("tunnel", "--pidfile", str(folder / CLOUDFLARED_FILE))


def of_gradio(name: str) -> tuple[str, ...]:
    """The marks of the agent with this name at the share servers."""
    return ("http", "-n", name)


def of_workspace(folder: Path) -> list[tuple[str, ...]]:
    """The marks of every agent that may belong to this folder for secrets."""
    found = [of_ngrok(folder / NGROK_FILE), of_ngrok(folder / NGROK_TEST_FILE), of_cloudflared(folder)]
    if (folder / GRADIO_FILE).is_file():
        found.append(of_gradio((folder / GRADIO_FILE).read_text(encoding="utf-8").strip()))
    return found
