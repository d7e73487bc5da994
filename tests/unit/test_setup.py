"""colab_setup.py: which Python, what it installs, what it says when it cannot."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import colab_setup
from masuka.errors import Conflict, DownloadFailed, MasukaError, NotFound, OutOfDisk, ResourceError
from masuka.hosting import drivers, install

ROOT = Path(colab_setup.__file__).parent


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A folder with the code and a list of requirements that are all installed here."""
    shutil.copy(ROOT / "colab_setup.py", tmp_path)
    (tmp_path / "masuka").mkdir()
    for name in ("__init__.py", "errors.py", "config.py", "notebook.py"):
        shutil.copy(ROOT / "masuka" / name, tmp_path / "masuka")
    shutil.copytree(ROOT / "masuka" / "hosting", tmp_path / "masuka" / "hosting")
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
    before = install.probe(sys.executable)["packages"]
    first = run(copy, "setup", MASUKA_PYTHON=sys.executable)
    assert first.returncode == 0, first.stderr
    assert f"torch {before['torch']} is here and stays" in first.stdout
    pinned = next((copy / ".setup").glob("constraints-*.txt")).read_text()
    assert f"torch=={before['torch']}\n" in pinned
    assert f"pillow=={before['pillow']}\n" in pinned
    second = run(copy, "setup", MASUKA_PYTHON=sys.executable)
    assert second.returncode == 0
    assert "Nothing to do" in second.stdout
    assert install.probe(sys.executable)["packages"] == before


def test_a_changed_list_or_torch_is_set_up_again(copy: Path) -> None:
    place = install.Place(copy)
    found = install.probe(sys.executable)
    before = install.fingerprint(place, found, "requirements.txt")
    assert install.fingerprint(place, install.probe(sys.executable), "requirements.txt") == before
    other = {**found, "packages": {**found["packages"], "torch": "2.8.0"}}
    assert install.fingerprint(place, other, "requirements.txt") != before
    (copy / "requirements.txt").write_text("pillow>=9\n")
    assert install.fingerprint(place, found, "requirements.txt") != before


@pytest.mark.slow
def test_a_conflict_with_what_is_installed_is_a_sentence(copy: Path) -> None:
    (copy / "requirements.txt").write_text("pillow<5\n")
    answer = run(copy, "setup", MASUKA_PYTHON=sys.executable)
    assert answer.returncode == 1
    assert "do not fit" in answer.stderr
    assert "Traceback" not in answer.stderr
    assert "pillow" in (copy / ".setup" / "log.txt").read_text()


def test_this_python_is_used_where_it_fits() -> None:
    python = install.base_python()
    assert install.version_of(python) == sys.version_info[:2]


def test_a_python_that_is_none_has_no_version(tmp_path: Path) -> None:
    assert install.version_of(str(tmp_path / "python")) == ()
    assert install.version_of("/bin/false") == ()


@pytest.mark.parametrize(
    ("version", "usable"),
    [(None, False), ("2.7.1", False), ("2.8.0", True), ("2.11.0+cu128", True), ("2.13.0+cpu", True), ("3.0", True)],
)
def test_which_torch_is_new_enough(version: str | None, usable: bool) -> None:
    assert install.usable_torch(version) is usable


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
    assert drivers.nvidia_driver() == 550
    tool.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'\nexit 9\n")
    assert drivers.nvidia_driver() is None
    tool.unlink()
    assert drivers.nvidia_driver() is None


def test_a_driver_that_hangs_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nexec /bin/sleep 600\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(drivers, "DRIVER_PATIENCE_S", 0.2)
    with pytest.raises(ResourceError, match="nvidia-smi hangs"):
        drivers.nvidia_driver()


NO_MATCH = (
    "ERROR: Could not find a version that satisfies the requirement torch==2.13.0 (from versions: none)\n"
    "ERROR: No matching distribution found for torch==2.13.0\n"
)


@pytest.mark.parametrize(
    ("end", "kind", "words"),
    [
        (NO_MATCH, NotFound, "for this machine and /usr/bin/python3"),
        ("WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError'\n" + NO_MATCH,
         DownloadFailed, "network"),
        ("ERROR: ResolutionImpossible", Conflict, "do not fit"),
        ("OSError: [Errno 28] No space left on device", OutOfDisk, "disk is full"),
        ("error: subprocess-exited-with-error", MasukaError, "the end of the log"),
    ],
)  # fmt: skip
def test_why_pip_failed_is_told(end: str, kind: type[MasukaError], words: str) -> None:
    error = install.why_pip_failed(end, "/usr/bin/python3")
    assert type(error) is kind
    assert words in str(error)


def test_an_earlier_failure_in_the_log_is_not_told_again(tmp_path: Path) -> None:
    place = install.Place(tmp_path)
    place.state.mkdir()
    place.log.write_text("\n$ pip install a\nOSError: [Errno 28] No space left on device\n")
    with pytest.raises(MasukaError, match="which one"):
        install.pip(place, install.Target("/bin/false", shared=False), ["b"])


def test_packages_that_do_not_load_are_replaced_by_a_private_environment(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = install.Place(copy)
    place.state.mkdir()
    venv = place.venv / "bin" / "python"
    venv.parent.mkdir(parents=True)
    # It stands in front of this very Python, whose packages all fit, so nothing is installed.
    venv.write_text(f'#!/bin/sh\nPRIVATE=1 exec {sys.executable} "$@"\n')
    venv.chmod(0o755)
    # In the kernel's own Python it does not load, in the private one it does.
    monkeypatch.setattr(install, "SELF_TEST", "import os, sys; sys.exit('PRIVATE' not in os.environ)")
    (copy / "requirements.txt").write_text("")
    target = install.prepare(place, "requirements.txt", notebook=True)
    assert target == install.Target(str(venv), shared=False)
    assert "private environment instead" in capsys.readouterr().out
    # The next time the trouble is known, and nothing is installed twice.
    assert install.prepare(place, "requirements.txt", notebook=True) == target
    told = capsys.readouterr().out
    assert "as before" in told
    assert "Nothing to do" in told
    # It was a passing one: the kernel's own Python is used again.
    monkeypatch.setattr(install, "SELF_TEST", "")
    assert install.prepare(place, "requirements.txt", notebook=True) == install.Target(sys.executable, shared=True)


def test_what_must_not_move_is_pinned() -> None:
    packages = {"torch": "2.11.0+cu128", "numpy": "2.1.3", "gradio": "6.24.0"}
    assert install.pins(packages, shared=True) == "torch==2.11.0+cu128\nnumpy==2.1.3\n"
    assert install.pins(packages, shared=False) == f"{install.WITH_FACES}\ntorch==2.11.0+cu128\n"


def test_a_dead_index_is_found_out() -> None:
    assert not drivers.reachable("http://127.0.0.1:9/whl/cpu/torch/")


def test_the_exit_code_of_a_program_is_kept() -> None:
    assert colab_setup.call([sys.executable, "-c", "raise SystemExit(7)"], ROOT) == 7
    assert colab_setup.call([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"], ROOT) == 128 + 9


def test_the_standard_library_is_enough() -> None:
    code = (
        "import sys, colab_setup, masuka.notebook, masuka.hosting.install; "
        "print(*{n.split('.')[0] for n in sys.modules})"
    )
    answer = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {code}"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    ours = {"colab_setup", "masuka", "__main__"}
    assert not set(answer.stdout.split()) - set(sys.stdlib_module_names) - ours
