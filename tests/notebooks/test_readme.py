"""The lines of Python in the README do what they say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from masuka.pocket.world import character_set

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_folder_of_pictures_becomes_a_picture(tmp_path: Path) -> None:
    block = re.search(r"```python\n(from masuka import Studio\n.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert block
    code = block.group(1)
    assert sum(bool(line.strip()) for line in code.splitlines()) <= 10
    # A short training: what it learns is the benchmark's matter.
    short = code.replace("start(dataset_id=data.id)", "start(dataset_id=data.id, steps=10, sample_every=0)")
    assert short != code
    (tmp_path / "my-pictures").mkdir()
    for number, (picture, _) in enumerate(character_set(3, 6)):
        picture.save(tmp_path / "my-pictures" / f"{number}.png")
    answer = subprocess.run(
        [sys.executable, "-c", short],
        cwd=ROOT,
        env={**os.environ, "HOME": str(tmp_path), "MASUKA_HOME": str(tmp_path / "home"), "MASUKA_DEVICE": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    with Image.open(answer.stdout.strip().splitlines()[-1]) as drawn:
        assert drawn.size == (128, 128)
