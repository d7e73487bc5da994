"""masuka share …: what it tells while an app runs, and while none does."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from masuka.cli import app
from masuka.config import Settings, Workspace, quiet_environment
from masuka.hosting import addresses
from masuka.hosting.addresses import Addresses


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Workspace:
    monkeypatch.setenv("MASUKA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MASUKA_DEVICE", "cpu")
    monkeypatch.chdir(tmp_path)
    settings = Settings.from_environment()
    for name, value in quiet_environment(settings.workspace).items():
        monkeypatch.setenv(name, value)
    return settings.workspace.create()


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["share", *arguments])


@pytest.mark.parametrize("command", ["open", "status", "stop"])
def test_without_an_app_it_says_how_to_start_one(command: str, home: Workspace) -> None:
    result = run(command)
    assert result.exit_code == 1
    assert "The app is not running. Start it first: masuka serve" in result.stderr


def test_the_status_tells_the_link_and_the_month(home: Workspace) -> None:
    told = Addresses(
        state="open", address="http://127.0.0.1:7860/", public_url="https://otter.example", provider="ngrok",
        month="2026-11", requests=1200, bytes=34_000_000,
    )  # fmt: skip
    addresses.write(home, told)
    shown = run("status").stdout
    assert "https://otter.example" in shown and "1,200 of 20,000 requests, 34 of 1,000 MB" in shown
    found = json.loads(run("status", "--json").stdout)
    assert found["public_url"] == "https://otter.example" and "pid" not in found


def test_a_way_that_nobody_knows_is_refused(home: Workspace) -> None:
    addresses.write(home, Addresses(address="http://127.0.0.1:7860/"))
    result = run("open", "--by", "pigeon")
    assert result.exit_code == 1 and "no way to open a link" in result.stderr


def test_a_link_that_does_not_close_is_not_called_closed(home: Workspace) -> None:
    assert "does not end" in answered(home, "stop", state="failed", message="It does not end.", hint="Stop the app.")
    assert "opened again" in answered(home, "stop", state="open", public_url="https://otter.example")


def test_why_a_link_did_not_open_is_the_answer(home: Workspace) -> None:
    assert "ngrok says no. Try again." in answered(
        home, "open", state="failed", message="ngrok says no.", hint="Try again."
    )


def answered(home: Workspace, command: str, **told: Any) -> str:
    """What the command complains of when a running app answers that."""
    addresses.write(home, Addresses(address="http://127.0.0.1:7860/"))

    def running_app() -> None:
        end = time.monotonic() + 60
        while (wish := addresses.take_wish(home)) is None and time.monotonic() < end:
            time.sleep(0.05)
        assert wish is not None
        addresses.write(home, Addresses(address="http://127.0.0.1:7860/", answered=wish.id, **told))

    thread = threading.Thread(target=running_app)
    thread.start()
    result = run(command)
    thread.join()
    assert result.exit_code == 1
    return result.stderr
