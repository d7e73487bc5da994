"""Setting MASUKA up on Colab's images of three dates moves none of what a kernel has loaded.

The lists are the public ones of Colab's GPU images (googlecolab/backend-info, Apache-2.0).
The resolver starts from the image's own versions, as pip does, and is held by the very
constraints that the setup writes.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from masuka.hosting import install

ROOT = Path(__file__).parents[2]
LISTS = sorted((ROOT / "tests" / "data" / "colab").glob("pip-freeze-gpu-*.txt"))
PYTHON_OF = {"2026-04-17": "3.12", "2026-07-14": "3.12", "2026-08-19": "3.13"}
MUST_STAY = ("torch", "torchvision", "torchaudio", "numpy", "pillow", "pandas")
NEWER = ("2026-07-14", "2026-08-19")
MAY_MOVE = {"gradio", "gradio-client", "brotli"}
"""On the newer images the page's own packages are all that moves."""
NO_NETWORK = re.compile(r"error sending request|dns error|failed to fetch|Could not connect", re.IGNORECASE)


def packages(text: str) -> dict[str, str]:
    """Versions by name; local suffixes (+cu128) and packages from a file are left out."""
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;+]+)", text, re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found}


def resolved(image: dict[str, str], python: str, folder: Path) -> dict[str, str]:
    pins, result = folder / "constraints.txt", folder / "result.txt"
    pins.write_text(install.pins(image, shared=True))
    # What stands in the output file already is what the resolver prefers.
    result.write_text("".join(f"{name}=={version}\n" for name, version in image.items()))
    answer = subprocess.run(
        [sys.executable, "-m", "uv", "pip", "compile", "-q", "--no-header", "--no-annotate",
         "--python-version", python, "--python-platform", "x86_64-manylinux_2_28", "--no-build",
         str(ROOT / "requirements.txt"), "-c", str(pins), "-o", str(result)],
        capture_output=True, text=True, check=False, cwd=folder,
    )  # fmt: skip
    if answer.returncode and NO_NETWORK.search(answer.stderr):
        pytest.skip("The package index cannot be reached.")
    assert answer.returncode == 0, answer.stderr
    return packages(result.read_text())


def test_the_lists_are_of_three_dates() -> None:
    assert [file.stem.removeprefix("pip-freeze-gpu-") for file in LISTS] == sorted(PYTHON_OF)
    for file in LISTS:
        assert set(MUST_STAY) <= set(packages(file.read_text()))


@pytest.mark.slow
@pytest.mark.parametrize("file", LISTS, ids=lambda file: file.stem[-10:])
def test_what_a_kernel_has_loaded_stays(file: Path, tmp_path: Path) -> None:
    image = packages(file.read_text())
    after = resolved(image, PYTHON_OF[file.stem[-10:]], tmp_path)
    for name in MUST_STAY:
        # Some are needed by nothing of ours; what is not named is not touched.
        assert after.get(name, image[name]) == image[name]
    assert after["torch"] == image["torch"]
    assert after["numpy"] == image["numpy"]
    assert after["pillow"] == image["pillow"]
    if file.stem.endswith(NEWER):
        # CUDA's parts belong to the index's own build of torch, which is not the image's.
        moved = {n for n, v in after.items() if n in image and image[n] != v and not n.startswith(("nvidia-", "cuda-"))}
        assert moved <= MAY_MOVE
