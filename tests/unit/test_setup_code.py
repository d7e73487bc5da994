"""colab_setup.py gets the code: whole or not at all, at the version asked for, and newer ones later."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import colab_setup

ROOT = Path(colab_setup.__file__).parent
WHO = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main")


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *WHO, *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bare repository with three versions of a tiny project, not in the order of their names."""
    monkeypatch.setattr(colab_setup, "PATIENCE_S", 0)
    work, bare = tmp_path / "work", tmp_path / "masuka.git"
    (work / "masuka").mkdir(parents=True)
    shutil.copy(ROOT / "colab_setup.py", work)
    (work / "masuka" / "__init__.py").write_text("")
    git(work, "init", "-q")
    for version in ("v0.1.0", "v0.9.0", "v0.10.0"):
        (work / "version.txt").write_text(version)
        git(work, "add", "-A")
        git(work, "commit", "-qm", version)
        git(work, "tag", version)
    git(tmp_path, "clone", "-q", "--bare", str(work), str(bare))
    return bare


def test_the_code_comes_at_the_version_asked_for(repository: Path, tmp_path: Path) -> None:
    folder = tmp_path / "here" / "masuka"
    folder.parent.mkdir()
    got = colab_setup.fetch(folder, repository=str(repository), version="v0.9.0")
    assert (folder / "version.txt").read_text() == "v0.9.0"
    assert got == git(repository, "rev-parse", "v0.9.0").strip()
    assert colab_setup.version_of(folder) == "v0.9.0"
    assert not colab_setup.on_branch(folder)


def test_an_update_finds_the_highest_number(repository: Path, tmp_path: Path) -> None:
    folder = tmp_path / "masuka"
    colab_setup.fetch(folder, repository=str(repository), version="v0.1.0")
    stale = folder / "masuka" / "__pycache__"
    stale.mkdir()
    assert colab_setup.update(folder, repository=str(repository)) == "v0.10.0"
    assert (folder / "version.txt").read_text() == "v0.10.0"
    assert not stale.exists()


def test_a_commit_that_is_not_the_one_known_is_not_used(repository: Path, tmp_path: Path) -> None:
    folder = tmp_path / "masuka"
    with pytest.raises(colab_setup.SetupError, match="was asked for"):
        colab_setup.fetch(folder, repository=str(repository), version="v0.9.0", commit="0" * 40)
    assert not folder.exists()
    known = git(repository, "rev-parse", "v0.9.0").strip()
    assert colab_setup.fetch(folder, repository=str(repository), version="v0.9.0", commit=known) == known


def test_what_cannot_be_reached_is_tried_three_times(tmp_path: Path, repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(colab_setup.SetupError, match="does not answer, or has no v9"):
        colab_setup.fetch(tmp_path / "masuka", repository=str(repository), version="v9")
    assert capsys.readouterr().out.count("could not be fetched") == 3
    assert not (tmp_path / "masuka").exists()


def test_a_clone_that_broke_off_is_begun_again(repository: Path, tmp_path: Path) -> None:
    half = tmp_path / "masuka.part"
    (half / ".git").mkdir(parents=True)
    colab_setup.fetch(tmp_path / "masuka", repository=str(repository), version="v0.1.0")
    assert (tmp_path / "masuka" / "version.txt").exists()
    assert not half.exists()


def test_files_changed_by_hand_are_not_overwritten(repository: Path, tmp_path: Path) -> None:
    folder = tmp_path / "masuka"
    colab_setup.fetch(folder, repository=str(repository), version="v0.1.0")
    (folder / "version.txt").write_text("mine")
    with pytest.raises(colab_setup.SetupError, match="changed by hand"):
        colab_setup.update(folder, repository=str(repository))
    assert (folder / "version.txt").read_text() == "mine"


def test_a_checkout_on_a_branch_goes_forward_on_it(repository: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "-q", str(repository), "mine")
    folder = tmp_path / "mine"
    git(folder, "reset", "-q", "--hard", "v0.1.0")
    assert colab_setup.on_branch(folder)
    colab_setup.update(folder)
    assert (folder / "version.txt").read_text() == "v0.10.0"
    assert colab_setup.on_branch(folder)


def test_code_without_git_says_so(tmp_path: Path) -> None:
    with pytest.raises(colab_setup.SetupError, match="not got with git"):
        colab_setup.update(tmp_path)
    assert colab_setup.version_of(tmp_path) == ""


def test_the_file_alone_fetches_the_rest_and_goes_on(repository: Path, tmp_path: Path) -> None:
    alone = tmp_path / "download"
    alone.mkdir()
    shutil.copy(ROOT / "colab_setup.py", alone)
    answer = subprocess.run(
        [sys.executable, str(alone / "colab_setup.py"), "update"],
        env={"PATH": "/usr/bin:/bin:/usr/local/bin", "MASUKA_REPOSITORY": str(repository), "HOME": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (alone / "masuka" / "version.txt").exists(), answer.stderr
    # The rest of the tiny project is missing, but it was the fetched file that went on.
    assert str(alone / "masuka") in answer.stderr + answer.stdout


def test_an_error_shows_as_one_sentence_in_a_notebook() -> None:
    assert colab_setup.SetupError("The disk is full.")._render_traceback_() == ["Setup stopped: The disk is full."]
