"""Single pictures, variations and the sheet on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from masuka.cli import app

PHOTOS = Path(__file__).parents[1] / "data" / "photos"


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MASUKA_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    # What the command sets for this process is undone after the test.
    from masuka.config import Settings, quiet_environment

    for name, value in quiet_environment(Settings.from_environment().workspace).items():
        monkeypatch.setenv(name, value)


def data(*arguments: str, code: int = 0) -> Any:
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == code, f"{arguments}: {result.exit_code}\n{result.output}\n{result.stderr}"
    return json.loads(result.stdout)


def test_a_picture_is_edited_looked_at_and_written(tmp_path: Path) -> None:
    dataset = str(data("dataset", "create", "Eileen", "--trigger-word", "eileen7x")["id"])
    data("dataset", "add", dataset, str(PHOTOS / "astronaut.jpg"))
    (picture,) = (str(p["id"]) for p in data("dataset", "captions", dataset))
    assert data("dataset", "edit", picture, code=1)["error"]["message"] == "Nothing was asked for."
    wrong = data("dataset", "edit", picture, "--turn", "45", code=1)["error"]
    assert wrong["field"] == "turn"
    edited = data("dataset", "edit", picture, "--turn", "180", "--crop", "0,0,1,0.5", "--flip")
    assert edited["edits"][picture] == {"turn": 180, "crop": [0, 0, 1, 0.5], "flip": True}
    file = data("dataset", "convert", picture, "out.png")["file"]
    with Image.open(file) as written:
        assert written.format == "PNG" and written.size == (320, 160)
    data("dataset", "edit", picture, "--reset")
    face = data("dataset", "edit", picture, "--to", "face")["edits"][picture]["crop"]
    assert 0.2 < face[0] < 0.4 and face[2] < 0.7
    Image.new("L", (320, 320), 255).save(tmp_path / "mask.png")
    data("dataset", "edit", picture, "--mask-file", "mask.png")
    (row,) = data("dataset", "sheet", dataset)
    assert (row["width"], row["masked"], row["caption"]) == (128, True, "a picture of eileen7x person")
    assert data("dataset", "augment", dataset)["flip"] is False
    assert data("dataset", "augment", dataset, "--brightness", "0.2")["brightness"] == 0.2
    assert data("dataset", "faces", picture)["with_face"] == 1
    assert data("dataset", "cut-out", picture, "--background", "white")["cut_out"] == 1


def test_a_training_that_is_not_there_is_not_done_again() -> None:
    for asked in ("repeat", "content"):
        assert data("train", asked, "7", code=1)["error"]["type"] == "NotFound"
