"""A notebook's services and its app process: what Google says in sentences, one app, idle runtimes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from masuka import notebook
from masuka.config import Settings, Workspace
from masuka.errors import (
    AccessDenied,
    Conflict,
    ExternalError,
    InvalidInput,
    MasukaError,
    NotFound,
    RemoteUnavailable,
)
from masuka.hosting import colab, install, process, sending
from masuka.hosting.idle import IdleWatch
from masuka.hosting.runtime import Runtime, detect
from masuka.hosting.turns import Turn
from masuka.studio import Studio

STAND_IN = Path(__file__).parents[1] / "notebooks" / "stand_in"
SERVER = """
import http.server, signal, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b'{"status": "ok"}')
    def log_message(self, *a): pass
print("Database: m001 applied", flush=True)
print("Enter with this link: http://127.0.0.1/?token=secret", flush=True)
signal.signal(signal.SIGTERM, lambda *a: sys.exit(0))
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"""


@pytest.fixture
def google(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Google's package as in a kernel of Colab; give it how it shall behave."""
    monkeypatch.syspath_prepend(str(STAND_IN))
    monkeypatch.setenv("COLAB_STAND_IN_LOG", str(tmp_path / "asked.jsonl"))
    monkeypatch.setenv("COLAB_STAND_IN", "{}")

    def behave(**told: Any) -> None:
        monkeypatch.setenv("COLAB_STAND_IN", json.dumps(told))

    yield behave
    for name in [n for n in sys.modules if n.split(".")[0] == "google"]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("how", "kind", "words"),
    [
        ("refused", AccessDenied, "refused"),
        ("timeout", RemoteUnavailable, "in time"),
        ("files", Conflict, "There are files"),
        ("policy", AccessDenied, "organisation"),
        ("kernel", NotFound, "from here"),
        ("other", ExternalError, "mount failed"),
    ],
)
def test_each_way_a_mount_fails_says_what_to_do(
    how: str, kind: type[MasukaError], words: str, google: Any, tmp_path: Path
) -> None:
    google(mount=how)
    with pytest.raises(kind, match=words) as caught:
        colab.mount_drive(tmp_path / "drive")
    assert caught.value.hint.endswith(colab.WITHOUT_DRIVE)


def test_a_mounted_drive_is_its_folder(google: Any, tmp_path: Path) -> None:
    assert colab.mount_drive(tmp_path / "drive").is_dir()


def test_without_colab_there_is_no_drive(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="outside of Colab"):
        colab.mount_drive(tmp_path)


def test_a_drive_that_does_not_take_everything_is_said(google: Any) -> None:
    colab.flush_drive()
    google(flush="fails")
    with pytest.raises(RemoteUnavailable, match="did not take everything"):
        colab.flush_drive()


def test_secrets_are_read_withheld_missing_or_silent(google: Any) -> None:
    google(secrets={"HF_TOKEN": " hf_x \n", "FAL_KEY": " "}, withheld=["NGROK_AUTHTOKEN"])
    found = colab.colab_secrets(("HF_TOKEN", "FAL_KEY", "NGROK_AUTHTOKEN", "GOOGLE_API_KEY"))
    assert found == colab.Secrets({"HF_TOKEN": "hf_x"}, ("NGROK_AUTHTOKEN",))
    assert "hf_x" not in repr(found)
    google(panel="silent")
    assert colab.colab_secrets(("HF_TOKEN", "FAL_KEY")) == colab.Secrets(silent=True)


def test_kaggles_secrets_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert colab.kaggle_secrets(("HF_TOKEN",)).silent
    (tmp_path / "kaggle_secrets.py").write_text(
        "class UserSecretsClient:\n"
        "    def get_secret(self, name):\n"
        "        if name != 'HF_TOKEN': raise ValueError('No user secrets exist for label ' + name)\n"
        "        return 'hf_y'\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    found = colab.kaggle_secrets(("FAL_KEY", "HF_TOKEN"))
    monkeypatch.delitem(sys.modules, "kaggle_secrets")
    assert found == colab.Secrets({"HF_TOKEN": "hf_y"})


def test_the_name_of_the_owners_door_is_asked_for(google: Any) -> None:
    assert colab.proxy_name(7860) == "7860-gpu-t4-s-abc-c.europe-west4-1.prod.colab.dev"
    google(proxy="")
    assert colab.proxy_name(7860) == ""


@pytest.mark.parametrize("folder", ["../elsewhere", "a/../../b"])
def test_a_folder_outside_of_drive_is_refused(folder: str, google: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="leaves My Drive"):
        notebook._vault(detect({"COLAB_X": ""}), tmp_path / "work", folder)


def test_free_colab_and_kaggle_go_the_cells_way(capsys: pytest.CaptureFixture[str]) -> None:
    free = detect({"COLAB_X": ""})
    assert notebook._allowed("app", free, compute_units=False) == "cells"
    assert "does not allow web pages" in capsys.readouterr().out
    assert notebook._allowed("app", free, compute_units=True) == "app"
    assert notebook._allowed("app", detect({"KAGGLE_KERNEL_RUN_TYPE": ""}), compute_units=True) == "cells"
    here = Runtime("local", "this computer", keeps_files=True)
    assert notebook._allowed("app", here, compute_units=False) == "app"


def test_an_unknown_way_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no way 'page'"):
        notebook.open_masuka(root=tmp_path, python=sys.executable, way="page")


@pytest.mark.slow
def test_the_chosen_base_is_offered_with_its_size_and_the_disk_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place, home = install.Place(STAND_IN.parents[2]), tmp_path / "home"
    environment = {"MASUKA_HOME": str(home), "MASUKA_DEVICE": "cpu"}

    def base(name: str) -> str:
        return notebook._base(notebook.Opened("app"), place, sys.executable, environment, name)

    assert base("pocket") == "pocket"
    with pytest.raises(NotFound):
        base("no-such-base")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2**30))
    assert base("flux1-schnell") == "pocket"
    assert "GiB to download; 1 GiB are free, which is too little" in capsys.readouterr().out
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2**40))
    assert base("flux1-schnell") == "flux1-schnell"
    assert "comes in the background" in capsys.readouterr().out
    with Studio.open(Settings(Workspace(home), device="cpu")) as studio:
        assert [(job.kind, job.state) for job in studio.jobs.list()] == [("download_model", "queued")]


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    process.stop(tmp_path)


def start(state: Path, port: int) -> process.AppProcess:
    return process.start(
        [sys.executable, "-c", SERVER, str(port)], folder=state, state=state, port=port, mark="m",
        environment={"CANARY": "1"},
    )  # fmt: skip


def test_an_app_is_started_found_again_and_stopped(state: Path) -> None:
    port = process.free_port(0)
    assert process.running(state) is None
    app = start(state, port)
    told: list[str] = []
    process.wait_until_healthy(app, state, told.append)
    assert process.running(state) == app
    assert os.getsid(app.pid) == app.pid
    assert not any("token=" in line for line in told)
    assert process.free_port(port) != port
    assert process.stop(state)
    assert process.running(state) is None
    assert not process.healthy(port)
    assert not process.stop(state)


def test_another_process_of_the_same_number_is_not_ours(state: Path) -> None:
    app = start(state, process.free_port(0))
    record = state / process.RECORD
    kept = record.read_text()
    record.write_text(json.dumps({**json.loads(kept), "started": "1"}))
    assert process.running(state) is None
    record.write_text("{}")
    assert process.running(state) is None
    record.write_text(kept)
    os.kill(app.pid, signal.SIGKILL)
    while process.running(state):
        time.sleep(0.01)


def test_an_app_that_ends_at_once_says_its_last_words(state: Path) -> None:
    app = process.start(
        [sys.executable, "-c", "print('Port 7860 is taken.'); raise SystemExit(1)"],
        folder=state, state=state, port=process.free_port(0), mark="m", environment={},
    )  # fmt: skip
    with pytest.raises(MasukaError, match="did not start: Port 7860 is taken"):
        process.wait_until_healthy(app, state, lambda line: None)


def test_a_runtime_that_nobody_uses_is_ended_once(tmp_path: Path) -> None:
    database = tmp_path / "masuka.db"
    database.touch()
    ended = threading.Event()
    watch = IdleWatch(database, quiet_s=0.05, then=ended.set)
    thread = watch.start(Turn(tmp_path / "idle"), look_every_s=0.01)
    assert ended.wait(20)
    thread.join(20)
    assert not thread.is_alive()


def test_what_moves_keeps_a_runtime(tmp_path: Path) -> None:
    database = tmp_path / "masuka.db"
    watch = IdleWatch(database, quiet_s=3600, then=lambda: None)
    assert watch.idle_s() < 3600
    (tmp_path / "masuka.db-wal").touch()
    os.utime(tmp_path / "masuka.db-wal", (time.time() + 100, time.time() + 100))
    assert watch.idle_s() < 0


def test_of_what_is_started_again_the_newest_alone_goes_on(tmp_path: Path) -> None:
    done = {name: threading.Event() for name in ("first", "second")}

    def start(name: str) -> threading.Thread:
        return Turn(tmp_path / "turn").every(0.01, name, lambda: done[name].set() is None)

    first = start("first")
    assert done["first"].wait(20)
    second = start("second")
    first.join(20)
    assert not first.is_alive()
    assert done["second"].wait(20)
    assert second.is_alive()
    (tmp_path / "turn").unlink()
    second.join(20)
    assert not second.is_alive()


def test_background_work_that_fails_is_told_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    done = threading.Event()
    faults: list[Exception] = [OSError("no network"), RemoteUnavailable("Google is silent.", "Wait.")]

    def work() -> bool:
        if faults:
            raise faults.pop()
        done.set()
        return False

    thread = Turn(tmp_path / "turn").every(0.01, "masuka-token", work)
    assert done.wait(20)
    thread.join(20)
    assert "Google is silent. Wait." in caplog.text and "no network" in caplog.text


def test_an_app_that_ends_by_itself_meanwhile_is_no_trouble(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start(state, process.free_port(0))
    send = os.kill

    def late(pid: int, how: int) -> None:
        send(pid, signal.SIGKILL)
        while process.started_at(pid):
            time.sleep(0.01)
        raise ProcessLookupError(pid)

    monkeypatch.setattr(os, "kill", late)
    assert process.stop(state)
    assert process.running(state) is None


@pytest.mark.slow
def test_a_runtime_is_kept_until_everything_was_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(STAND_IN.parents[2]))
    place, home, vault = install.Place(tmp_path), tmp_path / "home", tmp_path / "vault"
    place.state.mkdir()
    environment = {
        "MASUKA_HOME": str(home), "MASUKA_VAULT": str(vault), "MASUKA_PLATFORM": "kaggle", "MASUKA_DEVICE": "cpu",
    }  # fmt: skip
    sending.send_the_rest(place)
    vault.mkdir()
    with Studio.open(Settings(Workspace(home), device="cpu")) as studio:
        studio.characters.create(name="Bolt", trigger_word="bolt7x", class_word="robot")
    sending.remember(place, sys.executable, environment)
    lent = home / "secrets" / sending.LENT
    lent.write_text("ya29.canary")
    vault.rmdir()
    vault.write_text("no folder")
    with pytest.raises(MasukaError, match="the runtime is kept"):
        sending.send_the_rest(place)
    assert lent.exists() and (place.state / sending.KEPT).exists()
    vault.unlink()
    vault.mkdir()
    sending.send_the_rest(place)
    assert any(vault.rglob("*")) and not lent.exists()
    assert "Everything is in the vault" in capsys.readouterr().out
    assert not (place.state / sending.KEPT).exists()


def test_a_studio_that_could_not_be_kept_says_so_when_it_is_closed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vault = tmp_path / "vault"
    vault.mkdir()
    settings = Settings(Workspace(tmp_path / "home"), device="cpu", vault=vault)
    opened = notebook.Opened("cells", studio=Studio.open(settings))
    opened.studio.vault.save()
    opened.close()
    assert "Not everything" not in capsys.readouterr().out
    opened = notebook.Opened("cells", studio=Studio.open(settings))
    opened.studio.characters.create(name="Bolt", trigger_word="bolt7x", class_word="robot")
    shutil.rmtree(vault)
    opened.close()
    assert "Not everything is in the vault yet" in capsys.readouterr().out


@pytest.mark.slow
def test_a_cell_that_fails_leaves_no_studio_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(STAND_IN.parents[2]))
    monkeypatch.setenv("MASUKA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MASUKA_VAULT", str(tmp_path / "vault"))
    (tmp_path / "vault").mkdir()
    install.Place(tmp_path).state.mkdir()
    with pytest.raises(NotFound):
        notebook.open_masuka(root=tmp_path, python=sys.executable, way="cells", base="no-such-base")
    assert "vault-saves" not in {thread.name for thread in threading.enumerate()}


def test_the_kernel_lends_the_app_a_token_and_a_refusal_is_no_failure(
    google: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from masuka.vault import keeper

    assert sending.LENT == keeper.LENT_TOKEN
    place = install.Place(tmp_path)
    place.state.mkdir()
    file = tmp_path / "secrets" / sending.LENT
    google(auth="refused")
    notebook._lend_token(file, place)
    assert not file.exists()
    assert "did not give the permission" in capsys.readouterr().out
    google(token="ya29.canary")
    notebook._lend_token(file, place)
    assert file.read_text() == "ya29.canary"
    assert file.stat().st_mode & 0o777 == 0o600
    assert "canary" not in capsys.readouterr().out
    (place.state / "lending").unlink()
