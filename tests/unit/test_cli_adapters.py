"""masuka adapter …: from a file of elsewhere to other forms of it and back into the lists."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from masuka.cli import app
from tests.unit.test_adapter_studio import pocket_lora


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from masuka.config import Settings, quiet_environment

    monkeypatch.setenv("MASUKA_DEVICE", "cpu")
    monkeypatch.chdir(tmp_path)
    for name, value in quiet_environment(Settings.from_environment().workspace).items():
        monkeypatch.setenv(name, value)


def run(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, ["adapter", *arguments])
    assert result.exit_code == code, f"{arguments}: {result.exit_code}\n{result.output}\n{result.stderr}"
    return result


def data(*arguments: str) -> Any:
    return json.loads(run(*arguments, "--json").stdout)


def test_a_file_is_taken_in_looked_at_and_worked_on(tmp_path: Path) -> None:
    for number in (1, 2):
        file = pocket_lora(tmp_path / f"look {number}.safetensors", seed=number)
        made = data("import", str(file), "--base", "pocket")
        assert made["readers"]["diffusers"] == "diffusers reads it."
    said = run("inspect", "1").stdout
    assert "look 1: lora for pocket, 2 layers, rank 3, F32." in said
    assert "Called by: flmlk style." in said and "transformer_blocks.0" in said
    assert data("inspect", "1")["family"] == "flux"
    converted = run("convert", "1", "--convention", "kohya", "--dtype", "fp16").stdout
    assert "look 1 kohya.safetensors" in converted and "A1111 and Forge read it." in converted
    smaller = run("resize", "1", "--rank", "1").stdout
    assert "% of the change." in smaller
    merged = data("merge", "1:0.5", "2", "--name", "Both")
    assert merged["ranks"] == [6] and merged["kept"] == 1.0
    base = data("bake", "2", "--weight", "0.5", "--name", "Film")
    assert base["base"] == "pocket+film" and Path(base["folder"], "model_index.json").is_file()
    run("use", "1")
    assert "brings it back" in run("hide", "2").stdout
    listed = {v["adapter"]["name"]: v for v in data("list")}
    assert listed["look 1"]["used"] and listed["look 2"]["hidden"] and "Both" in listed
    assert "is in the lists again" in run("show", "2").stdout


def test_what_cannot_be_done_is_a_sentence(tmp_path: Path) -> None:
    assert run("inspect", "1", code=1).stderr.startswith("There is no ")
    (tmp_path / "x.safetensors").write_bytes(b"no")
    assert "x.safetensors is not a whole safetensors file." in run("import", str(tmp_path / "x.safetensors"), code=1).stderr
    assert "at least 2" in run("merge", "1", code=1).stderr
