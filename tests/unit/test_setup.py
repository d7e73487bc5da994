"""colab_setup.py: which Python, what it installs, what it says when it cannot."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import colab_setup

ROOT = Path(colab_setup.__file__).parent


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the script and a list of requirements that are all installed here."""
    shutil.copy(ROOT / "colab_setup.py", tmp_path)
    (tmp_path / "requirements.txt").write_text("pillow>=8\n")
    (tmp_path / "requirements-dev.txt").write_text("-r requirements.txt\n")
    return tmp_path


def run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(folder / "colab_setup.py"), *arguments],
        capture_output=True, text=True, env={**os.environ, **environment}, check=False,
    )  # fmt: skip


def test_an_unknown_command_is_a_usage_error(copy: Path) -> None:
    answer = run(copy, "dmeo")
    assert answer.returncode == 2
    assert "demo" in answer.stderr
    assert not (copy / ".setup").exists()


def test_help_sets_nothing_up(copy: Path) -> None:
    answer = run(copy, "--help")
    assert answer.returncode == 0
    assert "demo" in answer.stdout
    assert not (copy / ".setup").exists()


def test_a_chosen_python_that_does_not_run_is_said(copy: Path) -> None:
    answer = run(copy, "setup", MASUKA_PYTHON=str(copy / "no-python"))
    assert answer.returncode == 1
    assert "MASUKA_PYTHON" in answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.mark.slow
def test_setting_up_keeps_torch_and_the_second_time_does_nothing(copy: Path) -> None:
    before = colab_setup.probe(sys.executable)["packages"]
    first = run(copy, "setup", MASUKA_PYTHON=sys.executable)
    assert first.returncode == 0, first.stderr
    assert f"torch {before['torch']} is here and stays" in first.stdout
    pinned = next((copy / ".setup").glob("constraints-*.txt")).read_text()
    assert f"torch=={before['torch']}\n" in pinned
    assert f"pillow=={before['pillow']}\n" in pinned
    second = run(copy, "setup", MASUKA_PYTHON=sys.executable)
    assert second.returncode == 0
    assert "Nothing to do" in second.stdout
    assert colab_setup.probe(sys.executable)["packages"] == before


def test_a_changed_list_or_torch_is_set_up_again(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(colab_setup, "ROOT", copy)
    found = colab_setup.probe(sys.executable)
    before = colab_setup.fingerprint(found, "requirements.txt")
    assert colab_setup.fingerprint(colab_setup.probe(sys.executable), "requirements.txt") == before
    other = {**found, "packages": {**found["packages"], "torch": "2.8.0"}}
    assert colab_setup.fingerprint(other, "requirements.txt") != before
    (copy / "requirements.txt").write_text("pillow>=9\n")
    assert colab_setup.fingerprint(found, "requirements.txt") != before


@pytest.mark.slow
def test_a_conflict_with_what_is_installed_is_a_sentence(copy: Path) -> None:
    (copy / "requirements.txt").write_text("pillow<5\n")
    answer = run(copy, "setup", MASUKA_PYTHON=sys.executable)
    assert answer.returncode == 1
    assert "do not fit" in answer.stderr
    assert "Traceback" not in answer.stderr
    assert "pillow" in (copy / ".setup" / "log.txt").read_text()


def test_this_python_is_used_where_it_fits() -> None:
    python = colab_setup.base_python()
    assert colab_setup.version_of(python) == sys.version_info[:2]


def test_a_python_that_is_none_has_no_version(tmp_path: Path) -> None:
    assert colab_setup.version_of(str(tmp_path / "python")) == ()
    assert colab_setup.version_of("/bin/false") == ()


@pytest.mark.parametrize(
    ("version", "usable"),
    [(None, False), ("2.7.1", False), ("2.8.0", True), ("2.11.0+cu128", True), ("2.13.0+cpu", True), ("3.0", True)],
)
def test_which_torch_is_new_enough(version: str | None, usable: bool) -> None:
    assert colab_setup.usable_torch(version) is usable


def test_colab_is_known_by_its_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("COLAB_", "KAGGLE_KERNEL")):
            monkeypatch.delenv(name)
    assert colab_setup.in_notebook() is Path("/var/colab/hostname").exists()
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release-colab")
    assert colab_setup.in_notebook()


def test_the_driver_is_read_from_its_own_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 550.54.15\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert colab_setup.nvidia_driver() == 550
    tool.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'\nexit 9\n")
    assert colab_setup.nvidia_driver() is None
    tool.unlink()
    assert colab_setup.nvidia_driver() is None


def test_a_driver_that_hangs_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nexec /bin/sleep 600\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(colab_setup, "DRIVER_PATIENCE_S", 0.2)
    with pytest.raises(colab_setup.SetupError, match="nvidia-smi hangs"):
        colab_setup.nvidia_driver()


NO_MATCH = (
    "ERROR: Could not find a version that satisfies the requirement torch==2.13.0 (from versions: none)\n"
    "ERROR: No matching distribution found for torch==2.13.0\n"
)


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (NO_MATCH, "for this machine and /usr/bin/python3"),
        ("WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError'\n" + NO_MATCH, "network"),
        ("ERROR: ResolutionImpossible", "do not fit"),
        ("OSError: [Errno 28] No space left on device", "disk is full"),
        ("error: subprocess-exited-with-error", "the end of the log"),
    ],
)
def test_why_pip_failed_is_told(end: str, words: str) -> None:
    assert words in colab_setup.why_pip_failed(end, "/usr/bin/python3")


def test_an_earlier_failure_in_the_log_is_not_told_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log.txt"
    log.write_text("\n$ pip install a\nOSError: [Errno 28] No space left on device\n")
    monkeypatch.setattr(colab_setup, "LOG", log)
    with pytest.raises(colab_setup.SetupError, match="which one"):
        colab_setup.pip(colab_setup.Target("/bin/false", shared=False), ["b"])


def test_a_dead_index_is_found_out() -> None:
    assert not colab_setup.reachable("http://127.0.0.1:9/whl/cpu/torch/")


def test_the_exit_code_of_a_program_is_kept() -> None:
    assert colab_setup.call([sys.executable, "-c", "raise SystemExit(7)"]) == 7
    assert colab_setup.call([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]) == 128 + 9


def test_the_standard_library_is_enough() -> None:
    code = "import sys, colab_setup; print(*{n.split('.')[0] for n in sys.modules})"
    answer = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {code}"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    ours = {"colab_setup", "__main__"}
    assert not set(answer.stdout.split()) - set(sys.stdlib_module_names) - ours
