"""Files in the vault: resumed copies, hashes, checkpoints, what is left alone."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from masuka.config import Workspace
from masuka.errors import Damaged
from masuka.store.snapshots import Referred
from masuka.vault import generations, index, moving
from masuka.vault import mirror as mirrors
from masuka.vault.disk import Disk
from masuka.vault.index import Index, Kept
from masuka.vault.local import Local
from masuka.vault.mirror import Mirror
from masuka.vault.places import Places, Uses

LONG_AGO_S = 1_700_000_000


class Counting(Disk):
    """A folder that counts the bytes written, and can be cut off after some of them."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.written = 0
        self.left: int | None = None

    def write(self, path: str, chunks: Iterable[bytes], *, start: int = 0) -> None:
        def counted() -> Iterable[bytes]:
            for chunk in chunks:
                if self.left is not None:
                    if self.left <= 0:
                        raise OSError(107, "Transport endpoint is not connected")
                    self.left -= len(chunk)
                self.written += len(chunk)
                yield chunk

        super().write(path, counted(), start=start)


@pytest.fixture
def disk(tmp_path: Path) -> Counting:
    return Counting(tmp_path / "vault")


@pytest.fixture
def places(workspace: Workspace) -> Places:
    return Places(workspace)


@pytest.fixture
def mirror(disk: Counting, places: Places) -> Mirror:
    mirror = Mirror(disk, places, Local(folder="v", runtime="aaaaaaaa"), at_once=lambda: True)
    mirror.load()
    return mirror


def write(file: Path, data: bytes, at_s: float = LONG_AGO_S) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    os.utime(file, (at_s, at_s))
    return file


def checkpoint(workspace: Workspace, run: int, step: int, data: bytes) -> Path:
    folder = workspace.runs / f"{run:05d}" / "checkpoints" / f"step-{step:08d}"
    write(folder / "model.safetensors", data)
    files = {"model.safetensors": {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}}
    write(folder / "manifest.json", json.dumps({"files": files}).encode())
    return folder


def test_a_copy_that_was_cut_off_goes_on_where_it_stopped(disk: Counting, tmp_path: Path) -> None:
    data = os.urandom(5 * 1024 * 1024)
    source = write(tmp_path / "lora.safetensors", data)
    sha256 = hashlib.sha256(data).hexdigest()
    disk.left = 3 * 1024 * 1024
    with pytest.raises(OSError):
        moving.put(disk, source, "files/lora", sha256=sha256, mine="aaaaaaaa")
    assert disk.size("files/lora") is None
    disk.left = None
    moving.put(disk, source, "files/lora", sha256=sha256, mine="aaaaaaaa")
    assert disk.written == len(data)
    assert (disk.root / "files/lora").read_bytes() == data


def test_another_content_under_the_same_name_is_begun_again(disk: Counting, tmp_path: Path) -> None:
    write(disk.root / "files/x.aaaaaaaa.part", b"something else")
    source = write(tmp_path / "x", b"what it should be")
    moving.put(disk, source, "files/x", sha256=moving.file_hash(source), mine="aaaaaaaa")
    assert (disk.root / "files/x").read_bytes() == b"what it should be"


def test_what_does_not_read_back_is_no_copy(disk: Counting, tmp_path: Path) -> None:
    source = write(tmp_path / "x", b"content")
    with pytest.raises(Damaged):
        moving.put(disk, source, "files/x", sha256="0" * 64, mine="aaaaaaaa")
    assert disk.size("files/x") is None


def test_a_fetched_file_is_whole_or_not_there(disk: Counting, tmp_path: Path) -> None:
    sha256 = hashlib.sha256(b"good").hexdigest()
    write(disk.root / "files/a~1.png", b"bad")
    with pytest.raises(Damaged):
        moving.get(disk, "files/a~1.png", tmp_path / "a.png", sha256=sha256)
    assert not list(tmp_path.glob("*a.png*"))
    # Drive shows a second file of the same name, and may lose a rename.
    write(disk.root / "files/a~1 (1).png", b"good")
    assert moving.get(disk, "files/a~1.png", tmp_path / "a.png", sha256=sha256).read_bytes() == b"good"
    (disk.root / "files/a~1 (1).png").rename(disk.root / "files/a~1.png.aaaaaaaa.part")
    assert moving.get(disk, "files/a~1.png", tmp_path / "b.png", sha256=sha256).read_bytes() == b"good"


def test_small_things_go_first_and_a_checkpoint_only_whole(workspace: Workspace, mirror: Mirror) -> None:
    checkpoint(workspace, 1, 10, b"x" * 10)
    checkpoint(workspace, 1, 20, b"y" * 10)
    (workspace.runs / "00001/checkpoints/step-00000030").mkdir()
    write(workspace.runs / "00001/checkpoints/step-00000030/model.safetensors", b"half")
    write(workspace.runs / "00001/caches/latents.safetensors", b"cache")
    write(workspace.items / "big.png", b"b" * 1000)
    write(workspace.items / "small.png", b"s")
    write(workspace.items / "previews/1.webp", b"p")
    write(workspace.adapters / "00001-mira.partial/x.safetensors", b"p")
    write(workspace.items / "just-now.png", b"n", time.time())
    order = [found.path for found in mirror.waiting()]
    assert order == [
        "media/items/small.png",
        "media/items/big.png",
        "runs/00001/checkpoints/step-00000020/model.safetensors",
        "runs/00001/checkpoints/step-00000020/manifest.json",
        "runs/00001/checkpoints/step-00000010/model.safetensors",
        "runs/00001/checkpoints/step-00000010/manifest.json",
    ]
    assert mirror.unsettled == 1


def test_a_round_keeps_to_its_budget_and_tells_what_it_has(workspace: Workspace, mirror: Mirror, disk: Counting) -> None:
    for number in range(5):
        write(workspace.items / f"{number}.png", bytes([number]) * 100)
    assert mirror.copy(mirror.waiting(), budget_bytes=250) == 2
    assert len(mirror.waiting()) == 3
    again = Mirror(disk, Places(workspace), Local(folder="v", runtime="aaaaaaaa"))
    again.load()
    assert len(again.known()) == 2
    assert again.copy(again.waiting()) == 3
    assert again.waiting() == []


def test_a_damaged_checkpoint_is_not_kept(workspace: Workspace, mirror: Mirror) -> None:
    folder = checkpoint(workspace, 1, 10, b"x" * 10)
    write(folder / "model.safetensors", b"z" * 10)
    mirror.copy(mirror.waiting())
    assert "runs/00001/checkpoints/step-00000010/model.safetensors" not in mirror.known()


def test_newer_checkpoints_replace_older_ones(workspace: Workspace, mirror: Mirror, disk: Counting) -> None:
    for step in (10, 20, 30):
        checkpoint(workspace, 1, step, b"%d" % step)
        mirror.copy(mirror.waiting())
    mirror.retire(lambda path: True, 1)
    kept = {p.split("/")[3] for p in mirror.known() if p.startswith("runs/")}
    assert kept == {"step-00000020", "step-00000030"}
    assert not list(disk.root.glob("files/**/step-00000010/*"))


def test_what_is_fetched_is_not_copied_again(workspace: Workspace, mirror: Mirror) -> None:
    file = write(workspace.items / "a.png", b"a")
    mirror.copy(mirror.waiting())
    file.unlink()
    (kept,) = mirror.absent()
    assert mirror.fetch(kept) == file
    assert file.read_bytes() == b"a"
    assert mirror.waiting() == [] and mirror.absent() == []


def test_a_changed_file_is_kept_beside_the_old_one(workspace: Workspace, mirror: Mirror, disk: Counting) -> None:
    file = write(workspace.items / "a.png", b"old")
    mirror.copy(mirror.waiting())
    write(file, b"newer")
    mirror.copy(mirror.waiting())
    assert mirror.known()["media/items/a.png"].bytes == 5
    assert len(list(disk.root.glob("files/media/items/a~*.png"))) == 2
    mirror.retire(lambda path: True, 7)
    assert mirror.forget(6) == 0
    assert mirror.forget(7) == 1
    (left,) = disk.root.glob("files/media/items/a~*.png")
    assert left.read_bytes() == b"newer"


def test_many_lists_become_one(workspace: Workspace, mirror: Mirror, disk: Counting) -> None:
    for number in range(index.SEGMENTS_BEFORE_ONE + 2):
        write(workspace.items / f"{number}.png", b"%d" % number)
        mirror.copy(mirror.waiting())
    assert len(disk.names("index")) == 3
    again = Index(disk).read("aaaaaaaa", {})
    assert len(again) == index.SEGMENTS_BEFORE_ONE + 2


def test_another_line_does_not_overrule_ours(disk: Disk) -> None:
    lists = Index(disk)

    def kept(text: str) -> Kept:
        sha256 = hashlib.sha256(text.encode()).hexdigest()
        return Kept("media/items/a.png", index.stored_name("media/items/a.png", sha256), sha256, 1, "2026-01-01T00:00:00+00:00")

    lists.write([kept("common")], runtime="aaaaaaaa", number=1, generation=1, full=False)
    lists.write([kept("theirs")], runtime="aaaaaaaa", number=2, generation=2, full=False)
    lists.write([kept("strange")], runtime="cccccccc", number=1, generation=1, full=False)
    found = list(Index(disk).read("bbbbbbbb", {"aaaaaaaa": 1}).values())
    assert found[-1] == kept("common")
    assert kept("strange") not in found
    lists.write([kept("ours")], runtime="bbbbbbbb", number=1, generation=2, full=False)
    assert list(Index(disk).read("bbbbbbbb", {"aaaaaaaa": 1}).values())[-1] == kept("ours")


def test_an_altered_list_is_passed_over(disk: Disk) -> None:
    lists = Index(disk)
    lists.write([], runtime="aaaaaaaa", number=1, generation=1, full=False)
    (name,) = disk.names("index")
    text = bytearray((disk.root / "index" / name).read_bytes())
    text[10] ^= 1
    (disk.root / "index" / name).write_bytes(bytes(text))
    assert Index(disk).read("aaaaaaaa", {}) == {}


@pytest.mark.parametrize("path", ["media/../../x", "etc/passwd", "media", "", "/media/x", "media/a\\b", "media/\0"])
def test_no_list_leads_out_of_the_workspace(places: Places, path: str) -> None:
    with pytest.raises(ValueError, match="no file of a workspace"):
        places.local(path)


def test_names_are_the_same_wherever_media_lies(tmp_path: Path) -> None:
    here = Places(Workspace(root=tmp_path / "a"))
    there = Places(Workspace(root=tmp_path / "b", media_dir=tmp_path / "pictures"))
    assert here.path(tmp_path / "a/media/items/x.png") == "media/items/x.png"
    assert there.path(tmp_path / "pictures/items/x.png") == "media/items/x.png"
    assert there.local("media/items/x.png") == tmp_path / "pictures/items/x.png"
    assert here.path(tmp_path / "elsewhere.png") is None


def test_what_the_database_has_a_use_for(tmp_path: Path) -> None:
    workspace = Workspace(root=tmp_path)
    uses = Uses(
        Referred(
            files=frozenset({"media/items/a.png", "media/datasets/00001/b.png"}),
            adapters=frozenset({"adapters/00007-x/adapter.safetensors"}),
            runs=frozenset({3}),
            jobs=frozenset({5}),
        ),
        Places(workspace),
    )
    for path in (
        "media/items/a.png", "media/items/thumbs/a.webp", "media/datasets/00001/thumbs/b.webp",
        "adapters/00007-x/masuka.json", "adapters/00003-y/z.safetensors", "runs/00003/checkpoints/step-1/a",
        "jobs/5/log.txt",
    ):  # fmt: skip
        assert uses(path), path
    for path in (
        "media/items/b.png", "media/items/thumbs/b.webp", "adapters/00008-x/a", "runs/00004/samples/a.png", "jobs/6/log.txt",
    ):  # fmt: skip
        assert not uses(path), path


def test_many_may_ask_for_the_same_file_at_once(workspace: Workspace, mirror: Mirror) -> None:
    file = write(workspace.items / "a.png", os.urandom(3_000_000))
    content = file.read_bytes()
    mirror.copy(mirror.waiting())
    file.unlink()
    (kept,) = mirror.absent()
    failed: list[Exception] = []

    def fetch() -> None:
        try:
            mirror.fetch(kept)
        except (OSError, Damaged) as error:
            failed.append(error)

    threads = [threading.Thread(target=fetch) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert file.read_bytes() == content
    assert [f.name for f in workspace.items.iterdir() if f.is_file()] == ["a.png"]


def listed(disk: Disk, **changed: object) -> None:
    """Writes a list of one file as a stranger may: sealed, but with anything in it."""
    entry = {
        "path": "media/items/x.png", "sha256": "0" * 64, "bytes": 1, "at": "2026-01-01T00:00:00+00:00", "gone": 1,
        "stored": index.stored_name("media/items/x.png", "0" * 64),
    }  # fmt: skip
    values = {"runtime": "aaaaaaaa", "number": 1, "generation": 1, "full": False, "entries": [{**entry, **changed}]}
    text = generations.sealed(values)
    write(disk.root / f"index/aaaaaaaa-000001-{hashlib.sha256(text).hexdigest()[:16]}.json", text)


def test_no_list_deletes_a_file_outside_the_vault(disk: Counting, tmp_path: Path) -> None:
    victim = write(tmp_path / "victim.txt", b"precious")
    listed(disk)
    assert Index(disk).read("aaaaaaaa", {})
    for stored in (str(victim), "../victim.txt", "files/media/items/../../../../victim.txt"):
        with pytest.raises(Damaged):
            disk.discard(stored)
    (disk.root / "files").mkdir()
    (disk.root / "files/link").symlink_to(tmp_path)
    with pytest.raises(Damaged):
        disk.discard("files/link/victim.txt")
    assert victim.read_bytes() == b"precious"


@pytest.mark.parametrize(
    "changed",
    [
        {"stored": "/etc/passwd"}, {"stored": "db/gen-1.db"}, {"path": "media/../../x"}, {"path": "etc/x"}, {"path": 7},
        {"sha256": "0"}, {"bytes": "1"}, {"bytes": -1}, {"at": "soon"}, {"at": "2026-01-01"}, {"gone": None},
    ],
)  # fmt: skip
def test_a_list_that_says_what_cannot_be_is_passed_over(disk: Counting, changed: dict[str, object]) -> None:
    listed(disk, **changed)
    assert Index(disk).read("aaaaaaaa", {}) == {}


def test_a_replaced_checkpoint_stays_until_the_newer_ones_are_sure(
    workspace: Workspace, disk: Counting, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = Mirror(disk, places, Local(folder="v", runtime="aaaaaaaa"))
    mirror.load()
    for step in (10, 20, 30):
        checkpoint(workspace, 1, step, b"%d" % step)
        mirror.copy(mirror.waiting())
    mirror.retire(lambda path: True, 1)
    assert mirror.unsure and list(disk.root.glob("files/**/step-00000010/*"))
    monkeypatch.setattr(mirrors, "SETTLED_S", 0.0)
    mirror.retire(lambda path: True, 1)
    assert not mirror.unsure and not list(disk.root.glob("files/**/step-00000010/*"))


def test_a_file_that_cannot_be_copied_holds_up_no_other(workspace: Workspace, mirror: Mirror, disk: Counting) -> None:
    long = "\u56fe" * 80
    write(workspace.items / f"{long}.png", b"1")
    write(workspace.items / "good.png", b"22")
    no_text = os.fsdecode(b"broken-\xff.png")
    write(workspace.items / no_text, b"333")
    assert mirror.copy(mirror.waiting()) == 2
    assert set(mirror.known()) == {f"media/items/{long}.png", "media/items/good.png"}
    assert list(mirror.refused) == [f"media/items/{no_text}"]
    assert all(len(os.fsencode(f.name)) < 200 for f in disk.root.rglob("*"))


def test_what_the_vault_lost_is_copied_again(workspace: Workspace, mirror: Mirror, disk: Counting) -> None:
    write(workspace.items / "a.png", b"a")
    write(workspace.items / "b.png", b"b")
    mirror.copy(mirror.waiting())
    (lost,) = disk.root.glob("files/media/items/a~*.png")
    lost.unlink()
    assert mirror.verify() == 1
    assert [found.path for found in mirror.waiting()] == ["media/items/a.png"]
    assert mirror.copy(mirror.waiting()) == 1
    assert lost.exists() and mirror.verify() == 0 and mirror.waiting() == []


def test_a_copy_that_nobody_finished_is_swept(workspace: Workspace, mirror: Mirror, disk: Counting) -> None:
    write(workspace.items / "a.png", b"a")
    mirror.copy(mirror.waiting())
    (whole,) = disk.root.glob("files/media/items/a~*.png")
    old = write(whole.with_name(f"{whole.name}.bbbbbbbb.part"), b"x")
    own = write(whole.with_name(f"{whole.name}.aaaaaaaa.part"), b"x")
    new = write(whole.with_name(f"{whole.name}.cccccccc.part"), b"x", time.time())
    only = write(whole.with_name("b~000000000000.png.bbbbbbbb.part"), b"x")
    assert mirror.verify() == 0
    assert not old.exists()
    assert own.exists() and new.exists() and only.exists() and whole.exists()


def test_a_purge_reaches_the_files_of_a_branch_that_was_set_aside(workspace: Workspace, disk: Counting, tmp_path: Path) -> None:
    there = Workspace(root=tmp_path / "there").create()
    other = Mirror(disk, Places(there), Local(folder="v", runtime="bbbbbbbb", generation=2))
    other.load()
    write(there.items / "secret.png", b"secret")
    other.copy(other.waiting())
    local = Local(folder="v", runtime="aaaaaaaa", merged={"bbbbbbbb": 2}, purged=3, sure=2)
    mirror = Mirror(disk, Places(workspace), local)
    mirror.load()
    mirror.load_purged()
    assert mirror.known() == {}
    local.sure = 3
    mirror.load_purged()
    mirror.retire(lambda path: False, 3)
    assert mirror.forget(3) == 1
    assert not list(disk.root.glob("files/**/secret*"))


def test_whoever_else_wants_a_file_waits_for_the_one_copy(workspace: Workspace, mirror: Mirror, disk: Counting) -> None:
    file = write(workspace.items / "a.png", b"a" * 3_000_000)
    mirror.copy(mirror.waiting())
    file.unlink()
    (kept,) = mirror.absent()
    reads = []
    reading, inside = disk.read, threading.Event()

    def read(path: str) -> Iterator[bytes]:
        reads.append(path)
        inside.wait(5)
        return reading(path)

    disk.read = read  # type: ignore[method-assign]
    threads = [threading.Thread(target=mirror.fetch, args=(kept,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    inside.set()
    for thread in threads:
        thread.join()
    assert len(reads) == 1 and file.stat().st_size == 3_000_000
