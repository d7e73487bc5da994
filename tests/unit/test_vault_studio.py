"""The vault through the studio, the page and the command line."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from masuka.cli import app
from masuka.config import Settings, Workspace
from masuka.errors import InvalidInput, NotAllowed, NotFound, StoreError
from masuka.hosting import doctor
from masuka.requests.actor import Actor
from masuka.store import datasets, items, pictures
from masuka.store.connect import Store
from masuka.store.migrations import runner
from masuka.studio import Studio
from masuka.ui import storage
from masuka.ui.view import View
from masuka.vault.disk import Disk
from masuka.vault.generations import Generations, tips

OWNER = Actor(user_id=1)


@pytest.fixture
def kept(settings: Settings, tmp_path: Path) -> Settings:
    """Settings with a vault."""
    return replace(settings, vault=tmp_path / "vault")


@pytest.fixture
def studio(kept: Settings) -> Iterator[Studio]:
    with Studio.open(kept) as opened:
        yield opened


def elsewhere(kept: Settings, name: str) -> Settings:
    """The same vault, seen from another machine."""
    return replace(kept, workspace=Workspace(root=kept.workspace.root.parent / name))


def add_item(studio: Studio, name: str) -> Path:
    file = studio.workspace.items / name
    Image.new("RGB", (8, 8), "red").save(file)
    thumb = studio.workspace.items / "thumbs" / f"{file.stem}.webp"
    thumb.parent.mkdir(exist_ok=True)
    Image.new("RGB", (4, 4), "red").save(thumb)
    items.add_item(
        studio.store, actor=OWNER, file=studio.workspace.relative(file), width=8, height=8, prompt=name, seed=1, settings={}
    )
    return file


def test_without_a_vault_nothing_changes(settings: Settings) -> None:
    with Studio.open(settings) as studio:
        assert studio.vault.status().state == "off"
        assert "MASUKA_VAULT" in storage.draw_vault(studio, View())
        with pytest.raises(NotFound):
            studio.vault.save()


def test_everything_comes_back_on_another_machine(studio: Studio, kept: Settings) -> None:
    file = add_item(studio, "one.png")
    content = file.read_bytes()
    studio.characters.create(name="Mira", trigger_word="mira7x")
    status = studio.vault.save()
    assert status.state == "saved" and status.saved_at and status.files == 0
    studio.close()
    with Studio.open(elsewhere(kept, "two")) as other:
        assert [c.name for c in other.characters.list()] == ["Mira"]
        assert "Restored from the vault" in other.notices[0]
        item = other.library.items()[0]
        # On demand, whether or not the background has brought it already.
        assert other.media("item", item.id).read_bytes() == content
        assert other.media("item", item.id, thumbnail=True).suffix == ".webp"


def test_what_is_stored_can_be_read_by_a_person(studio: Studio, kept: Settings) -> None:
    add_item(studio, "a robot at night.png")
    studio.vault.save()
    assert kept.vault is not None
    (found,) = kept.vault.glob("files/media/items/*.png")
    assert found.name.startswith("a robot at night~")
    with Image.open(found) as picture:
        assert picture.size == (8, 8)


def test_closing_saves_what_was_not_saved(kept: Settings) -> None:
    with Studio.open(kept) as studio:
        studio.characters.create(name="Mira", trigger_word="mira7x")
    with Studio.open(elsewhere(kept, "two")) as other:
        assert [c.name for c in other.characters.list()] == ["Mira"]


def test_a_second_process_of_the_workspace_leaves_the_vault_to_the_first(studio: Studio, kept: Settings) -> None:
    studio.vault.save()
    with Studio.open(kept) as second:
        second.characters.create(name="Late", trigger_word="late1")
        with pytest.raises(StoreError, match="Another MASUKA"):
            second.vault.save(timeout_s=0.5)
        assert second.vault.status().state == "passive"
    studio.vault.save(files=False)
    assert kept.vault is not None
    assert len(tips(Generations(Disk(kept.vault)).heads())) == 1


def test_emptying_the_bin_reaches_the_vault(studio: Studio, kept: Settings) -> None:
    add_item(studio, "secret.png")
    keep = add_item(studio, "kept.png")
    studio.vault.save()
    secret = next(i for i in studio.library.items() if i.prompt == "secret.png")
    studio.library.delete([secret.id])
    studio.vault.save()
    vault = kept.vault
    assert vault is not None
    assert len(list(vault.glob("files/media/items/*.png"))) == 2
    assert studio.library.purge() == 1
    until(lambda: len(list(vault.glob("files/media/items/*.png"))) == 1)
    saves = list(vault.glob("db/gen-*.db"))
    assert saves and not any(b"secret.png" in save.read_bytes() for save in saves)
    assert keep.exists()


def test_emptying_the_bin_reaches_the_backups_of_this_machine(settings: Settings) -> None:
    """With a vault or without one."""
    with Studio.open(settings) as studio:
        add_item(studio, "secret.png")
        before = runner.backup(studio.store.path, backups=studio.workspace.backups)
        assert b"secret.png" in before.read_bytes()
        studio.library.delete([item.id for item in studio.library.items()])
        assert studio.library.purge() == 1
        (renewed,) = runner.list_backups(studio.workspace.backups)
        assert renewed != before and b"secret.png" not in renewed.read_bytes()
        assert studio.library.purge() == 0
        assert runner.list_backups(studio.workspace.backups) == [renewed], "nothing was deleted, so nothing is made"


def test_a_purge_that_fails_is_made_later(kept: Settings, tmp_path: Path) -> None:
    with Studio.open(kept) as studio:
        studio.characters.create(name="secret", trigger_word="abc1")
        studio.vault.save(files=False)
        (tmp_path / "vault").rename(tmp_path / "away")
        (tmp_path / "vault").touch()
        studio.characters.delete(1)
        studio.vault.purge()
        until(lambda: studio.vault.status().why)
    (tmp_path / "vault").unlink()
    (tmp_path / "away").rename(tmp_path / "vault")
    with Studio.open(kept):
        until(lambda: not any(b"secret" in f.read_bytes() for f in (tmp_path / "vault").rglob("*") if f.is_file()))


def until(true: object, seconds: float = 60.0) -> None:
    deadline_s = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def test_a_fork_is_shown_and_chosen(studio: Studio, kept: Settings) -> None:
    studio.vault.save()
    with Studio.open(elsewhere(kept, "two")) as other:
        other.characters.create(name="There", trigger_word="there1")
        other.vault.save()
        theirs = next(b.key for b in other.vault.branches() if b.ours)
    studio.characters.create(name="Here", trigger_word="here1")
    studio.vault.save()
    status = studio.vault.status()
    assert status.forked and theirs in {b.key for b in status.branches}
    page = storage.draw_vault(studio, View())
    assert "Two machines saved here" in page and theirs in page
    assert "choose" in storage.saved_words(studio)
    assert "next start" in storage.draw_vault(_chosen(studio, theirs), View())
    studio.close()
    with Studio.open(kept) as again:
        assert [c.name for c in again.characters.list()] == ["There"]
        again.vault.save()
        assert not again.vault.status().forked


def _chosen(studio: Studio, key: str) -> Studio:
    outcome = storage.on_choose_branch(studio, {"key": key}, View())
    assert "start it again" in outcome.say
    return studio


def test_the_open_branch_can_stay(studio: Studio, kept: Settings) -> None:
    studio.vault.save()
    with Studio.open(elsewhere(kept, "two")) as other:
        other.characters.create(name="There", trigger_word="there1")
        other.vault.save()
    studio.characters.create(name="Here", trigger_word="here1")
    studio.vault.save()
    mine = next(b.key for b in studio.vault.branches() if b.ours)
    assert "goes on as it is" in storage.on_choose_branch(studio, {"key": mine}, View()).say
    assert not studio.vault.status().forked
    with pytest.raises(NotFound):
        studio.vault.choose("nothing")


def test_an_old_workspace_says_that_the_vault_went_on_elsewhere(kept: Settings) -> None:
    with Studio.open(kept) as studio:
        studio.characters.create(name="Mira", trigger_word="mira7x")
        studio.vault.save()
    with Studio.open(elsewhere(kept, "two")) as other:
        other.characters.create(name="Newer", trigger_word="newer1")
        other.vault.save()
        newest = next(b.key for b in other.vault.branches() if b.ours)
    with Studio.open(kept) as studio:
        studio.vault.branches()
        assert studio.vault.status().apart
        assert "Another studio is in the vault" in storage.saved_words(studio)
        page = storage.draw_vault(studio, View())
        assert "goes on from elsewhere" in page and newest in page
        assert not studio.vault.choose(newest)
    with Studio.open(kept) as studio:
        assert {c.name for c in studio.characters.list()} == {"Mira", "Newer"}
        studio.vault.save()
        assert not studio.vault.status().forked


def test_only_the_owner_chooses_and_purges(studio: Studio) -> None:
    viewer = studio.acting_as(Actor(user_id=1, role="viewer", name="v"))
    with pytest.raises(NotAllowed):
        viewer.vault.choose("x")
    with pytest.raises(NotAllowed):
        viewer.vault.purge()
    with pytest.raises(NotAllowed):
        viewer.vault.save()
    assert storage.pill(viewer) == ""


def test_a_vault_that_is_not_mounted_is_told_and_comes_later(kept: Settings, tmp_path: Path) -> None:
    missing = replace(kept, vault=tmp_path / "drive" / "MASUKA")
    with Studio.open(missing) as studio:
        assert "There is no folder" in studio.notices[0]
        until(lambda: studio.vault.status().state == "unreachable")
        assert "Not saved since" in storage.saved_words(studio)
        assert "There is no folder" in storage.draw_vault(studio, View())
        (tmp_path / "drive").mkdir()
        until(lambda: studio.vault.status().state == "saved")


def test_the_page_and_the_doctor_tell_the_last_save(studio: Studio, kept: Settings) -> None:
    assert "Not saved yet" in storage.saved_words(studio) or "Saved" in storage.saved_words(studio)
    studio.vault.save()
    assert storage.saved_words(studio).startswith("Saved <time")
    assert 'href="?tab=settings"' in storage.pill(studio)
    (finding,) = [f for f in doctor.examine(kept) if f.name == "vault"]
    assert finding.state == "good" and "Last confirmed save" in finding.text
    assert storage.on_save_now(studio, {}, View()).say == "Saved."


def test_the_command_line_saves_shows_and_restores(kept: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASUKA_HOME", str(kept.workspace.root))
    monkeypatch.setenv("MASUKA_VAULT", str(kept.vault))
    run = CliRunner().invoke
    assert run(app, ["character", "create", "Mira", "--trigger-word", "mira7x"]).exit_code == 0
    assert "Saved at" in run(app, ["vault", "save"]).stdout
    told = json.loads(run(app, ["vault", "status", "--json"]).stdout)
    assert told["saves"] >= 1 and told["saved_at"]
    assert "open here" in run(app, ["vault", "branches"]).stdout
    assert run(app, ["character", "delete", "1", "--yes"]).exit_code == 0
    first = min(b.name for b in Path(str(kept.vault)).glob("db/head-*.json"))
    key = first.removeprefix("head-").removesuffix(".json")
    answer = run(app, ["vault", "restore", key, "--yes"])
    assert answer.exit_code == 0, answer.output
    with Store(kept.workspace.database) as store:
        assert datasets.list_datasets(store, actor=OWNER) == []
    assert run(app, ["vault", "restore", "000099-aaaaaaaa-0000000000000000", "--yes"]).exit_code == 1
    monkeypatch.delenv("MASUKA_VAULT")
    assert "There is no vault" in run(app, ["vault", "status"]).output


def test_pictures_of_a_training_are_here_before_it_is_asked_for(studio: Studio, kept: Settings) -> None:
    made = studio.datasets.create(name="Mira", trigger_word="mira7x", class_word="robot")
    folder = studio.workspace.datasets / f"{made.id:05d}"
    folder.mkdir(parents=True)
    Image.new("RGB", (8, 8), "blue").save(folder / "aa.png")
    pictures.add_picture(
        studio.store, actor=OWNER, dataset_id=made.id, file=studio.workspace.relative(folder / "aa.png"),
        original_name="aa.png", sha256="00", width=8, height=8, bytes=1, caption="mira7x robot",
    )  # fmt: skip
    studio.vault.save()
    studio.close()
    with Studio.open(elsewhere(kept, "two")) as other:
        job = other.training.start(dataset_id=made.id)
        assert all(Path(p["file"]).is_file() for p in job.params["pictures"])


def test_a_vault_may_not_be_the_workspace(settings: Settings) -> None:
    for vault in (settings.workspace.root, settings.workspace.media / "vault"):
        with pytest.raises(InvalidInput):
            Studio.open(replace(settings, vault=vault))
