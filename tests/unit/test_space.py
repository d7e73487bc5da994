"""Hosts with a proxy of their own: the Space's front matter is true, settings fit each host."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import colab_setup
from masuka.config import Settings
from masuka.errors import Conflict, NoAccelerator
from masuka.hosting import space
from masuka.hosting.runtime import Runtime, detect
from masuka.studio import Studio

ROOT = Path(colab_setup.__file__).parent
HUB_FILE_LIMIT_BYTES = 10 * 2**20
"""A larger file has to come by way of LFS, which this repository does not use."""
README_KEYS = {
    "title", "short_description", "colorFrom", "colorTo", "sdk", "sdk_version", "python_version", "app_file",
    "suggested_hardware", "startup_duration_timeout", "license",
}  # fmt: skip
COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}


def front_matter() -> dict[str, str]:
    found = re.match(r"---\n(.*?)\n---\n", (ROOT / "README.md").read_text(), re.DOTALL)
    assert found, "README.md does not begin with the front matter of a Space"
    return {k: v.strip().strip('"') for k, _, v in (line.partition(":") for line in found.group(1).splitlines())}


def required(name: str) -> Requirement:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    found = [Requirement(line.partition("#")[0]) for line in lines if line and not line.startswith("#")]
    return next(r for r in found if r.name == name)


def test_the_front_matter_is_true() -> None:
    told = front_matter()
    assert set(told) == README_KEYS
    assert told["sdk"] == "gradio"
    assert Version(told["sdk_version"]) in required("gradio").specifier
    assert Version(told["sdk_version"]) <= Version(version("gradio")), "this gradio was not tested"
    assert told["python_version"] in ("3.12",), "ZeroGPU has 3.10 and 3.12, MASUKA needs 3.11 or newer"
    assert (ROOT / told["app_file"]).is_file()
    assert len(told["short_description"]) <= 60
    assert {told["colorFrom"], told["colorTo"]} <= COLOURS
    assert told["license"] == "apache-2.0"


def test_no_file_is_too_large_for_the_hub() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    files = [ROOT / name for name in listed.stdout.split("\0") if name]
    sizes = {f.name: f.stat().st_size for f in files if f.is_file()}
    assert len(sizes) > 100
    assert max(sizes.values()) <= HUB_FILE_LIMIT_BYTES


def test_the_badge_leads_to_the_notebook_of_this_version() -> None:
    text = (ROOT / "README.md").read_text()
    project = colab_setup.REPOSITORY.removeprefix("https://github.com/")
    at = f"https://colab.research.google.com/github/{project}/blob/{colab_setup.VERSION}/notebooks/masuka_colab.ipynb"
    assert at in text


def test_the_tag_is_the_packages_version() -> None:
    import masuka

    assert f"v{masuka.__version__}" == colab_setup.VERSION


def test_a_space_is_listened_to_from_everywhere(settings: Settings) -> None:
    host = detect({"SPACE_ID": "", "SPACE_HOST": "me-masuka.hf.space"})
    given = space.settled(replace(settings, open_browser=True), host)
    assert (given.host, given.open_browser, given.device) == ("0.0.0.0", False, settings.device)
    zero = space.settled(replace(settings, device="auto"), replace(host, zero_gpu=True))
    assert zero.device == "cpu"


def test_a_pod_keeps_everything_on_its_volume(settings: Settings, tmp_path: Path) -> None:
    root = tmp_path / "pod"
    pod = detect({"RUNPOD_POD_ID": "abc"}, root=root)
    assert space.settled(settings, pod, root=root).vault is None
    (root / "workspace").mkdir(parents=True)
    assert space.settled(settings, pod, root=root).vault == root / "workspace" / "masuka"
    assert space.settled(settings, pod, root=root).host == "0.0.0.0"
    mine = replace(settings, vault=tmp_path / "mine")
    assert space.settled(mine, pod, root=root).vault == tmp_path / "mine"


def test_elsewhere_nothing_is_changed(settings: Settings) -> None:
    assert space.settled(settings, Runtime("local", "this computer", keeps_files=True)) == settings


@pytest.mark.parametrize(
    ("listened", "opened"),
    [
        ("http://127.0.0.1:7860/", "http://127.0.0.1:7860/"),
        ("http://0.0.0.0:7861/", "http://localhost:7861/"),
        ("http://[::]:7861", "http://localhost:7861"),
        ("http://studio.example.org:80/", "http://studio.example.org:80/"),
    ],
)
def test_an_address_that_a_person_can_open(listened: str, opened: str) -> None:
    assert space.local_address(listened) == opened


def test_zero_gpu_trains_no_large_model_and_says_why(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACE_ID", "me/masuka")
    monkeypatch.setenv("SPACES_ZERO_GPU", "1")
    with Studio.open(settings) as studio:
        data = studio.datasets.create(name="Bolt", trigger_word="bolt7x", class_word="robot")
        studio.jobs.wait(studio.datasets.add_samples(data.id))
        with pytest.raises(NoAccelerator, match="ZeroGPU lends its GPU for minutes"):
            studio.training.start(dataset_id=data.id, base="flux1-schnell")
        assert studio.training.start(dataset_id=data.id, base="pocket").state == "queued"
        with pytest.raises(Conflict, match="not on this machine"):
            studio.images.draw(prompt="a robot", base="flux1-schnell")
        assert studio.models.download("flux1-schnell").state == "queued", "to draw with, on a GPU that is lent"


def test_the_troubleshooting_names_what_goes_wrong() -> None:
    text = (ROOT / "docs" / "troubleshooting.md").read_text().lower()
    for name in (
        "training fails at once", "data sets do not load", "a job is stuck", "out of memory", "no gpu",
        "no such column", "clone failed", "mount refused", "tunnel limit", "disk full",
    ):  # fmt: skip
        assert f"**{name}" in text or f'**"{name}' in text or f"**drive: {name}" in text, name
