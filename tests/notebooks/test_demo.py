"""`colab_setup.py demo`, the first thing a newcomer runs: whole, with real files at the end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from masuka import pocket
from masuka.generation import infotext
from masuka.pocket.judge import Judge

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_main_job_from_sample_pictures_to_new_ones(tmp_path: Path) -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "masuka", "demo", "--json"],
        cwd=ROOT,
        env={**os.environ, "MASUKA_HOME": str(tmp_path / "home"), "MASUKA_DEVICE": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    made = json.loads(answer.stdout)
    assert made["pictures"] == 20
    assert all("bolt7x" in caption for caption in made["captions"])
    assert Path(made["adapter"]).suffix == ".safetensors" and Path(made["adapter"]).is_file()
    assert len(made["images"]) == 4
    pictures = []
    for file in made["images"]:
        with Image.open(file) as picture:
            picture.load()
            pictures.append(picture.convert("RGB"))
            record = infotext.read(Path(file))
        assert "bolt7x" in str(record.parameters) and record.record
    # What the base cannot draw and the LoRA can: this robot's stripes.
    seen = Judge.load(pocket.JUDGE_FOLDER).attributes(pictures)
    assert sum(attributes["pattern"] == "stripes" for attributes in seen) >= 3, seen
