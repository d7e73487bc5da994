"""masuka_colab.ipynb in a real kernel, with a Colab that stands in: run, run again, update, stop."""

from __future__ import annotations

import http.client
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.notebooks.kernels import Colab, cell_of, colab, publish

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # jupyter_client's and zmq's own
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # jupyter_client leaves its event loop open
]
NOTEBOOK = "masuka_colab.ipynb"
CANARY = "hf_canary-canary-canary"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish(tmp_path_factory.mktemp("published"))


def opening(repository: Path, **form: object) -> str:
    return cell_of(NOTEBOOK, "open", {"REPOSITORY": str(repository), **form})


def health(port: int) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/healthz")
    try:
        return connection.getresponse().read()
    finally:
        connection.close()


def lives(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return bool(state.stdout.strip()) and not state.stdout.startswith("Z")


def test_from_one_click_to_stop_and_save(repository: Path, tmp_path: Path) -> None:
    with colab(tmp_path, {}) as runtime:
        runtime.behave(secrets={"HF_TOKEN": CANARY}, withheld=["CIVITAI_API_KEY"])
        shown = runtime.run(opening(repository, I_HAVE_COMPUTE_UNITS=True))
        first = runtime.app()
        assert first, shown
        assert health(first["port"]) == b'{"status":"ok"}'
        assert re.search(r"Kept in .*MyDrive/MASUKA", shown)
        assert "Keys: HF_TOKEN" in shown
        assert "may not read CIVITAI_API_KEY" in shown
        assert "No GPU" in shown
        assert (tmp_path / "drive" / "MyDrive" / "MASUKA").is_dir()
        assert (tmp_path / "masuka-work" / "masuka.db").exists()
        frame = runtime.calls("frame")[-1]
        assert frame["port"] == first["port"]
        assert frame["path"].startswith("/?token=")
        again = runtime.run(opening(repository, I_HAVE_COMPUTE_UNITS=True))
        assert "The app runs already" in again
        assert runtime.app() == first
        assert len(runtime.calls("frame")) == 2
        assert frame["path"] != runtime.calls("frame")[-1]["path"]
        updated_and_stopped(runtime, first["pid"])
        log = (tmp_path / "masuka" / ".setup" / "app.log").read_text()
        command_lines = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    for told in (shown, again, log, command_lines):
        assert CANARY not in told


def updated_and_stopped(runtime: Colab, first_pid: int) -> None:
    stale = runtime.folder / "masuka" / "masuka" / "__pycache__" / "gone.cpython-311.pyc"
    stale.parent.mkdir(exist_ok=True)
    stale.write_bytes(b"")
    shown = runtime.run(cell_of(NOTEBOOK, "update", {}))
    assert "The code is at v0.1.1" in shown
    assert not stale.exists()
    second = runtime.app()
    assert second, shown
    assert second["pid"] != first_pid
    assert not lives(first_pid)
    assert health(second["port"]) == b'{"status":"ok"}'
    runtime.behave(flush="fails")
    shown = runtime.run(cell_of(NOTEBOOK, "stop", {"GIVE_THE_RUNTIME_BACK": True}))
    assert "Saving and closing" in shown
    assert "Not everything was saved, and the runtime is kept" in shown
    assert runtime.calls("unassign") == []
    runtime.behave()
    shown = runtime.run(cell_of(NOTEBOOK, "stop", {"GIVE_THE_RUNTIME_BACK": True}))
    assert "Everything written to Drive was sent" in shown
    assert not lives(second["pid"])
    assert runtime.app() == {}
    assert runtime.calls("flush")
    assert runtime.calls("unassign")


def test_what_stands_in_the_way_is_one_sentence_each(repository: Path, tmp_path: Path) -> None:
    with colab(tmp_path, {}) as runtime:
        for how, words in (
            ("refused", "Access to Drive was refused."),
            ("timeout", "Drive did not answer in time."),
            ("files", "There are files where Drive should be mounted."),
            ("policy", "Your organisation does not allow Drive here."),
            ("other", "Drive could not be mounted: mount failed."),
        ):
            runtime.behave(mount=how)
            shown = runtime.run(opening(repository, I_HAVE_COMPUTE_UNITS=True))
            assert words in shown
            assert "To go on without Drive" in shown
            assert "Traceback" not in shown
            assert runtime.app() == {}
        runtime.behave(panel="silent")
        shown = runtime.run(opening(repository, OPEN="cells", DRIVE_FOLDER=""))
        assert "NOTHING IS KEPT" in shown
        assert "The panel of secrets did not answer" in shown
        assert len(runtime.calls("secret")) == 1
        assert "The studio is open" in shown


def test_without_compute_units_the_cells_go_the_whole_way(repository: Path, tmp_path: Path) -> None:
    with colab(tmp_path, {}) as runtime:
        shown = runtime.run(opening(repository))
        assert "Free Colab does not allow web pages" in shown
        assert "The studio is open" in shown
        assert runtime.app() == {}
        assert runtime.calls("frame") == []
        assert "20 pictures of Bolt" in runtime.run(cell_of(NOTEBOOK, "pictures", {}))
        assert "LoRA:" in runtime.run(cell_of(NOTEBOOK, "train", {"STEPS": 10}))
        assert "image/png" in runtime.run(cell_of(NOTEBOOK, "draw", {"NUMBER": 1}))
        runtime.run(cell_of(NOTEBOOK, "stop", {}))
        # The runtime is lost; Drive is all that is left. The same cells bring everything back.
        shutil.rmtree(tmp_path / "masuka-work")
        assert "1 character, 1 LoRA" in runtime.run(opening(repository))
        assert "20 pictures of Bolt" in runtime.run(cell_of(NOTEBOOK, "pictures", {}))
        runtime.run("adapter = studio.models.adapters()[0]")
        assert "image/png" in runtime.run(cell_of(NOTEBOOK, "draw", {"NUMBER": 1}))


def test_code_that_is_not_the_commit_is_not_run(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "masuka.part" / "half").mkdir(parents=True)
    with colab(tmp_path, {}) as runtime:
        shown = runtime.run(opening(repository, COMMIT="0" * 40))
        assert "so it is not run" in shown
        assert "False" in runtime.run("import sys; print('colab_setup' in sys.modules)")
    assert (tmp_path / "masuka" / "colab_setup.py").exists()
    assert not (tmp_path / "masuka.part").exists()


def test_a_clone_that_fails_is_said(tmp_path: Path) -> None:
    with colab(tmp_path, {}) as runtime:
        shown = runtime.run("import time; time.sleep = lambda s: None\n" + opening(tmp_path / "nowhere.git"))
    assert "Clone failed" in shown
    assert "run this cell again" in shown
