"""An old Drive folder at or beside the vault comes over; nothing of it is changed."""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace
from pathlib import Path

import pytest

from masuka.config import Settings, Workspace
from masuka.store import pictures
from masuka.studio import OWNER, Studio
from tests.unit.masuka2 import installation


def contents(folder: Path) -> dict[str, str]:
    return {
        f.relative_to(folder).as_posix(): hashlib.sha256(f.read_bytes()).hexdigest()
        for f in sorted(folder.rglob("*"))
        if f.is_file() and f.relative_to(folder).parts[0] not in ("db", "files", "index")
    }


def check(studio: Studio, old: Path) -> None:
    assert {c.name for c in studio.characters.list()} == {"mira", "zoe"}
    (made,) = studio.datasets.list()
    found = pictures.list_pictures(studio.store, actor=OWNER, dataset_id=made.id)
    assert all(studio.media("picture", p.id).is_relative_to(old) for p in found)
    (item,) = studio.library.items()
    assert studio.media("item", item.id).parent == old / "media/results"
    (adapter,) = studio.models.adapters()
    assert studio.workspace.resolve(adapter.path).is_relative_to(old)


@pytest.mark.parametrize("name", ["MASUKA", "CharForgeData"])
def test_an_old_folder_comes_over_and_stays_as_it_is(settings: Settings, tmp_path: Path, name: str) -> None:
    drive = tmp_path / "MyDrive"
    old = drive / name
    installation(old)
    before = contents(old)
    kept = replace(settings, vault=drive / "MASUKA")
    with Studio.open(kept) as studio:
        assert any("The old folder stays as it is" in notice for notice in studio.notices)
        check(studio, old)
        assert studio.vault.adopt_old() == []
        studio.vault.save(files=False)
    assert contents(old) == before
    # The next machine finds the rows in the vault and the files where they always were.
    with Studio.open(replace(kept, workspace=Workspace(root=tmp_path / "two"))) as other:
        check(other, old)
        assert other.vault.adopt_old() == []
    assert contents(old) == before


def test_the_app_opens_before_the_old_folder_was_read(settings: Settings, tmp_path: Path) -> None:
    installation(tmp_path / "MyDrive" / "CharForgeData")
    with Studio.open(replace(settings, vault=tmp_path / "MyDrive/MASUKA"), workers="processes") as studio:
        deadline_s = time.monotonic() + 60
        while not studio.characters.list():
            assert time.monotonic() < deadline_s
            time.sleep(0.05)


def test_an_old_folder_elsewhere_is_named(settings: Settings, tmp_path: Path) -> None:
    installation(tmp_path / "usb" / "CharForgeData")
    with Studio.open(replace(settings, vault=tmp_path / "vault")) as studio:
        assert studio.characters.list() == []
        (report,) = studio.vault.adopt_old(tmp_path / "usb")
        assert report.added > 5
        check(studio, tmp_path / "usb" / "CharForgeData")
