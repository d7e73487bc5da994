"""The app finds itself a port, also where the one it chose is gone a moment later."""

from __future__ import annotations

import gc
import socket
import warnings
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from masuka.config import Settings, Workspace
from masuka.errors import Conflict
from masuka.ui import serve as serving
from masuka.ui.serve import serve


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A port that somebody listens on."""
    monkeypatch.chdir(Path.cwd())  # a program that serves goes into an empty folder
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]
    with warnings.catch_warnings():
        # Gradio (6.31) forgets the socket with which it tried a port that is taken.
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def test_a_free_port_that_is_gone_is_chosen_anew(
    taken: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free, chosen = serving._free_port, [taken]
    monkeypatch.setattr(serving, "_free_port", lambda host: chosen.pop() if chosen else free(host))
    served = serve(Settings(workspace=Workspace(tmp_path / "home"), port=0))
    try:
        assert not chosen
        assert httpx.get(f"{served.address.rstrip('/')}/healthz", trust_env=False).status_code == 200
    finally:
        served.close()


def test_a_given_port_that_is_taken_is_a_sentence(taken: int, tmp_path: Path) -> None:
    with pytest.raises(Conflict, match=f"Port {taken} is taken"):
        serve(Settings(workspace=Workspace(tmp_path / "home"), port=taken))
