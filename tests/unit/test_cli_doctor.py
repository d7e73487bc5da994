"""masuka dataset check, mend and keep-best, as a person types them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import ImageFilter
from typer.testing import CliRunner

from masuka.cli import app
from tests import scenes


@pytest.fixture
def messy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace whose set 1 has four good pictures, a blurred one and a copy as JPEG."""
    monkeypatch.setenv("MASUKA_HOME", str(tmp_path / "home"))
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in (1, 2, 3, 6):
        scenes.scene(number, (540, 540)).save(folder / f"{number}.png")
    scenes.scene(7, (540, 540)).filter(ImageFilter.GaussianBlur(6)).save(folder / "blurred.png")
    scenes.scene(1, (540, 540)).save(folder / "copy.jpg", quality=80)
    told("dataset", "create", "Mira", "--trigger-word", "mira7", "--class-word", "robot")
    told("dataset", "add", "1", str(folder))
    return folder


def told(*words: str, code: int = 0) -> Any:
    """The JSON that the command prints."""
    result = CliRunner().invoke(app, [*words, "--json"])
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def test_a_check_tells_what_is_wrong(messy: Path) -> None:
    found = told("dataset", "check", "1", code=1)
    assert found["report"]["counts"] == {"near_duplicate": 1, "blurred": 1}
    assert found["problems"] == ["There are only 6 pictures. From 10 on a character is learnt well."]
    assert len(found["captions"]) == 6
    said = CliRunner().invoke(app, ["dataset", "check", "1"]).stdout
    assert "1 picture: Blurred." in said and "6 captions: All captions say the same" in said


def test_a_check_is_as_strict_as_asked_and_stays_so(messy: Path) -> None:
    strict = ("--strictness", "strict", "--resolution-px", "1024")
    assert told("dataset", "check", "1", *strict, code=1)["report"]["counts"]["small"] == 6
    assert told("dataset", "check", "1", code=1)["report"]["counts"]["small"] == 6
    assert told("dataset", "check", "1", "--strictness", "none", code=1)["report"]["counts"] == {}
    refused = told("dataset", "check", "1", "--strictness", "very", code=1)
    assert refused["error"]["type"] == "InvalidInput"


def test_what_was_found_is_mended_and_the_best_are_kept(messy: Path) -> None:
    assert told("dataset", "mend", "1", "blurred") == {"changed": 1, "does": "aside"}
    assert told("dataset", "mend", "1", "ugly", code=1)["error"]["type"] == "InvalidInput"
    assert told("dataset", "keep-best", "1", "--count", "3") == {"set_aside": 2, "kept": 3}
    assert told("dataset", "keep-best", "1", "--count", "0", code=1)["error"]["field"] == "count"
    counts = told("dataset", "check", "1", code=1)["report"]
    assert (counts["kept"], counts["aside"], counts["counts"]) == (3, 3, {})
