"""masuka dataset caption …: the same as on the page, from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from masuka.cli import app

RUNNER = CliRunner()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASUKA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MASUKA_DEVICE", "cpu")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def masuka(*words: str) -> Any:
    """What the command prints as JSON."""
    result = RUNNER.invoke(app, [*words, "--json"])
    return json.loads(result.stdout)


def test_a_set_is_captioned_looked_through_and_put_back() -> None:
    masuka("dataset", "create", "Bolt", "--trigger-word", "bolt7x", "--class-word", "robot")
    masuka("dataset", "samples", "1", "--count", "3")
    before = [p["caption"] for p in masuka("dataset", "caption", "find", "1")]
    written = masuka("dataset", "caption", "write", "1", "--style", "tags", "--constant", "striped, antenna", "--no-keep-partial")
    assert (written["captioned"], written["failed"]) == (3, 0)
    counts = masuka("dataset", "caption", "tags", "1")
    assert counts["bolt7x"] == 3 and "striped" not in counts
    assert masuka("dataset", "caption", "rename-tag", "1", "robot", "bot") == {"changed": 3}
    assert len(masuka("dataset", "caption", "find", "1", "--text", "bot,")) == 3
    masuka("dataset", "caption", "undo", "1")
    assert masuka("dataset", "caption", "undo", "1")["undone"].startswith("Undone: captions by Pocket. 3")
    assert [p["caption"] for p in masuka("dataset", "caption", "find", "1")] == before


def test_what_a_captioner_lacks_is_said() -> None:
    found = {c["name"]: c for c in masuka("dataset", "caption", "captioners")}
    assert found["pocket"]["ready"] and not found["openai"]["ready"]
    masuka("dataset", "create", "Bolt", "--trigger-word", "bolt7x")
    refused = masuka("dataset", "caption", "write", "1", "--captioner", "florence-2")
    assert refused["error"]["message"] == "Florence-2 is not on this machine."
