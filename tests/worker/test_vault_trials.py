"""Kills, races and a hanging folder: what was acknowledged is there, and nobody waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from masuka.config import Settings, Workspace
from masuka.errors import StoreError
from masuka.requests.actor import Actor
from masuka.store import characters
from masuka.store.connect import Store
from masuka.vault import asked, copying
from masuka.vault import keeper as keeping
from masuka.vault.disk import Disk
from masuka.vault.generations import Generations
from masuka.vault.keeper import Keeper
from tests import vault_trials

OWNER = Actor(user_id=1)


@pytest.mark.slow
def test_kills_while_publishing_and_rotating_lose_nothing() -> None:
    tried = vault_trials.kills(50)
    assert tried.broken == 0
    assert tried.acknowledged > 50


@pytest.mark.slow
def test_machines_that_save_at_the_same_moment_overwrite_nothing() -> None:
    assert vault_trials.races(40) == vault_trials.Tried(40, 0)


class Hanging(Disk):
    """A folder that does not answer while `held` is set."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.free = threading.Event()
        self.free.set()
        self.held = threading.Event()

    def _wait(self) -> None:
        if not self.free.is_set():
            self.held.set()
            self.free.wait(60)

    def there(self) -> bool:
        self._wait()
        return super().there()

    def names(self, folder: str) -> list[str]:
        self._wait()
        return super().names(folder)

    def read(self, path: str) -> Iterator[bytes]:
        self._wait()
        return super().read(path)


def _becomes(keeper: Keeper, state: str) -> None:
    """Waits for that state: the thread that copies files may hang before the one that saves."""
    until_s = time.monotonic() + 30
    while keeper.status().state != state and time.monotonic() < until_s:
        time.sleep(0.02)
    assert keeper.status().state == state


def test_a_folder_that_hangs_holds_up_nobody(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Hanging(tmp_path / "vault")
    with Store.open(settings.workspace) as store:
        keeper = Keeper(store, replace(settings, vault=disk.root), disk=disk, debounce_s=0.0)
        keeper.start()
        keeper.save_now()
        disk.free.clear()
        characters.add_character(store, actor=OWNER, name="Mira", trigger_word="abc")
        assert disk.held.wait(30)
        monkeypatch.setattr(keeping, "HUNG_S", 0.0)
        _becomes(keeper, "unreachable")
        status = keeper.status()
        assert status.state == "unreachable" and "has not answered" in status.why
        with pytest.raises(StoreError, match="has not answered"):
            keeper.save_now(timeout_s=0.1)
        characters.add_character(store, actor=OWNER, name="Zorbi", trigger_word="abc")
        assert not keeper.stop(timeout_s=0.1)
        disk.free.set()
        deadline_s = time.monotonic() + 30
        while keeper.status().state != "saved" and time.monotonic() < deadline_s:
            time.sleep(0.05)
        assert keeper.status().state == "saved"
        assert keeper.stop()


def test_a_folder_that_hangs_at_the_start_is_told(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = replace(settings, vault=tmp_path / "vault")
    with Store.open(settings.workspace) as store:
        keeper = Keeper(store, kept)
        keeper.start()
        keeper.save_now()
        assert keeper.stop()
        characters.add_character(store, actor=OWNER, name="Mira", trigger_word="abc")
        disk = Hanging(tmp_path / "vault")
        disk.free.clear()
        keeper = Keeper(store, kept, disk=disk)
        keeper.start()
        assert disk.held.wait(30)
        _becomes(keeper, "saving")
        assert keeper.status().unsaved_since_at
        monkeypatch.setattr(keeping, "HUNG_S", 0.0)
        assert keeper.status().state == "unreachable"
        disk.free.set()
        assert keeper.stop()


def test_files_that_hang_hold_up_few_requests_and_no_jobs(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Hanging(tmp_path / "vault")
    monkeypatch.setattr(copying, "GLANCE_S", 0.2)
    monkeypatch.setattr(copying, "READY_TIMEOUT_S", 0.2)
    monkeypatch.setattr(asked, "MOST_WAITING", 2)
    with Store.open(settings.workspace) as store:
        keeper = Keeper(store, replace(settings, vault=disk.root), disk=disk)
        keeper._local.filling = True
        disk.free.clear()
        keeper.start()
        began = threading.Event()
        keeper.when_ready(began.set)
        assert began.wait(30)
        answers: list[bool] = []
        wanted = [settings.workspace.items / f"{n}.png" for n in range(8)]
        threads = [
            threading.Thread(target=lambda f=f: answers.append(keeper.here(f, patient=False)))  # type: ignore[misc]
            for f in wanted
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert answers == [False] * 8
        disk.free.set()
        keeper.stop()


def test_a_fresh_studio_is_not_saved_beside_others_before_an_edit(settings: Settings, tmp_path: Path) -> None:
    kept = replace(settings, vault=tmp_path / "vault")
    with Store.open(settings.workspace) as store:
        characters.add_character(store, actor=OWNER, name="Mira", trigger_word="abc")
        keeper = Keeper(store, kept)
        keeper.start()
        keeper.save_now()
        assert keeper.stop()
    there = replace(kept, workspace=Workspace(root=tmp_path / "two").create())
    disk = Hanging(tmp_path / "vault")
    disk.free.clear()
    with Store.open(there.workspace) as store:
        keeper = Keeper(store, there, disk=disk, fresh=True, debounce_s=0.0)
        keeper.start()
        assert disk.held.wait(30)
        disk.free.set()
        deadline_s = time.monotonic() + 30
        while not keeper.status().branches and time.monotonic() < deadline_s:
            time.sleep(0.02)
        assert keeper.status().apart and keeper.status().forked
        assert any("goes on from elsewhere" in notice for notice in store.notices)
        assert keeper.stop() or keeper.status().state == "unsaved"
        assert len(list((tmp_path / "vault/db").glob("head-*.json"))) == 1
        keeper = Keeper(store, there, debounce_s=0.0)
        keeper.start()
        characters.add_character(store, actor=OWNER, name="Here", trigger_word="abc")
        keeper.save_now()
        keeper.stop()
    heads = Generations(Disk(tmp_path / "vault")).heads()
    assert [h.rootless for h in heads] == [True, False]


def test_edits_are_saved_after_a_pause_and_while_they_go_on(settings: Settings, tmp_path: Path) -> None:
    with Store.open(settings.workspace) as store:
        keeper = Keeper(store, replace(settings, vault=tmp_path / "vault"), debounce_s=1000, every_s=0.5)
        keeper.start()
        deadline_s = time.monotonic() + 60
        written = keeper.save_now()
        number = 0
        while keeper.status().written_at and time.monotonic() < deadline_s:
            number += 1
            characters.add_character(store, actor=OWNER, name=f"C{number}", trigger_word="abc")
            time.sleep(0.05)
            heads = sorted((tmp_path / "vault/db").glob("head-*.json"))
            if len(heads) >= 3:
                break
        assert len(heads) >= 3 and written
        assert keeper.stop()


def test_a_new_key_or_person_is_a_change_and_a_session_is_none(settings: Settings, tmp_path: Path) -> None:
    from masuka.store import settings as rows
    from masuka.store.snapshots import pulse

    with Store.open(settings.workspace) as store, Store(store.path) as looking:
        first = pulse(looking, None)
        rows.set_setting(store, actor=OWNER, key="HF_TOKEN", value="hf_x", encrypted=True)
        second = pulse(looking, first)
        assert second.mark != first.mark
        with store.write() as conn:
            columns = {row[1]: row[2] for row in conn.execute("PRAGMA table_info(sessions)").fetchall()}
            conn.table("sessions").insert({n: ("x" if t == "TEXT" else 1) for n, t in columns.items()})
        assert pulse(looking, second).mark == second.mark


def test_files_that_changed_last_are_sent_before_the_end(settings: Settings, tmp_path: Path) -> None:
    from PIL import Image

    from masuka.store import items

    kept = replace(settings, vault=tmp_path / "vault")
    with Store.open(settings.workspace) as store:
        keeper = Keeper(store, kept)
        keeper.start()
        file = settings.workspace.items / "last.png"
        Image.new("RGB", (8, 8)).save(file)
        items.add_item(
            store, actor=OWNER, file=settings.workspace.relative(file), width=8, height=8, prompt="", seed=1, settings={}
        )
        assert keeper.stop()
    assert list((tmp_path / "vault/files/media/items").glob("last~*.png"))
    assert list((tmp_path / "vault/index").glob("*.json"))
