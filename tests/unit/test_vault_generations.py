"""Saves in a vault: whole or absent, never overwritten, rotated, and told apart when they fork."""

from __future__ import annotations

import random
import shutil
import threading
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from masuka.config import Settings, Workspace
from masuka.errors import Damaged, NotFound, SchemaTooNew, StoreError
from masuka.requests.actor import Actor
from masuka.store import settings as settings_rows
from masuka.vault import generations, restoring, saving
from masuka.vault.confirm import ReadBack
from masuka.vault.generations import Generations, Head, superfluous, tips
from masuka.vault.restoring import before_opening, restore
from tests import vault_trials
from tests.vault_trials import Machine

OWNER = Actor(user_id=1)

@pytest.fixture
def vault(tmp_path: Path) -> Path:
    return tmp_path / "vault"


@pytest.fixture
def machine(tmp_path: Path, vault: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path / "one", vault)
    yield machine
    machine.close()


def names_on(root: Path, vault: Path) -> set[str]:
    """What a machine that starts from nothing gets from the vault."""
    fresh = Machine(root, vault)
    try:
        return fresh.names()
    finally:
        fresh.close()


def test_what_was_saved_comes_back_on_another_machine(machine: Machine, tmp_path: Path, vault: Path) -> None:
    machine.add("Mira")
    first = machine.save()
    machine.add("Zorbi")
    second = machine.save()
    assert (first.generation, second.generation) == (1, 2)
    assert second.parent == first.sha256
    other = Machine(tmp_path / "two", vault)
    assert other.names() == {"Mira", "Zorbi"}
    assert other.restored is not None and other.restored.head == second
    assert "Restored from the vault" in other.notices[0]
    assert other.save().generation == 3
    assert len(tips(other.saver.generations.heads())) == 1
    other.close()


def test_without_a_vault_or_a_save_the_start_is_as_ever(tmp_path: Path, vault: Path) -> None:
    assert before_opening(Settings(workspace=Workspace(root=tmp_path / "a"))).notices == []
    assert names_on(tmp_path / "b", vault) == set()


def test_who_is_signed_in_is_never_saved(machine: Machine, tmp_path: Path, vault: Path) -> None:
    with machine.store.write() as conn:
        columns = {row[1]: row[2] for row in conn.execute("PRAGMA table_info(sessions)").fetchall()}
        values = {n: ("canary-of-a-session" if t == "TEXT" else 1) for n, t in columns.items()}
        conn.table("sessions").insert(values)
    settings_rows.set_setting(machine.store, actor=OWNER, key="HF_TOKEN", value="hf_canary", encrypted=True)
    head = machine.save()
    data = b"".join(machine.disk.read(head.db_path))
    assert b"canary-of-a-session" not in data
    assert b"hf_canary" not in data
    assert not (vault / "secrets").exists()
    fresh = Machine(tmp_path / "two", vault)
    (kept,) = settings_rows.list_settings(fresh.store, actor=OWNER)
    fresh.close()
    assert kept.needs_reentry and kept.value == ""


def test_every_flipped_byte_is_found_and_the_save_before_is_taken(
    machine: Machine, tmp_path: Path, vault: Path
) -> None:
    machine.add("Mira")
    before = machine.save()
    machine.add("Zorbi")
    newest = machine.save()
    chance = random.Random(7)
    saves = Generations(machine.disk)
    for path, count in ((newest.db_path, 200), (newest.head_path, 60)):
        whole = (vault / path).read_bytes()
        for _ in range(count):
            at = chance.randrange(len(whole))
            broken = bytearray(whole)
            broken[at] ^= 1 << chance.randrange(8)
            (vault / path).write_bytes(bytes(broken))
            if path == newest.db_path:
                with pytest.raises(Damaged):
                    saves.fetch(newest, tmp_path / "fetched.db")
            else:
                assert newest not in Generations(machine.disk).heads()
        (vault / path).write_bytes(bytes(broken))
        came = Machine(tmp_path / f"from-{count}", vault)
        assert came.names() == {"Mira"}
        assert came.restored is not None and came.restored.head == before
        came.close()
        (vault / path).write_bytes(whole)
        for left in (vault / "db").glob(f"*{came.local.runtime}*"):
            left.unlink()


def test_when_nothing_is_whole_the_start_says_so_and_goes_on(machine: Machine, tmp_path: Path, vault: Path) -> None:
    machine.add("Mira")
    head = machine.save()
    (vault / head.db_path).write_bytes(b"nothing")
    fresh = Machine(tmp_path / "two", vault)
    assert fresh.names() == set()
    assert "No save in the vault is whole" in fresh.notices[0]
    # The damaged save is a branch of its own; nothing of it is touched.
    fresh.add("New")
    fresh.save()
    assert len(tips(fresh.saver.generations.heads())) == 2
    assert (vault / head.db_path).exists()
    fresh.close()


def test_a_newer_masukas_save_is_not_passed_over(machine: Machine, tmp_path: Path, vault: Path) -> None:
    machine.save()
    head = machine.saver.generations.heads()[0]
    newer = Head(**{**vars(head), "schema": (*head.schema, "m999_later"), "generation": 2})
    (vault / newer.db_path).write_bytes((vault / head.db_path).read_bytes())
    (vault / newer.head_path).write_bytes(newer.as_text())
    with pytest.raises(SchemaTooNew):
        Machine(tmp_path / "two", vault)


def test_two_machines_fork_and_nothing_is_overwritten(tmp_path: Path, vault: Path) -> None:
    one = Machine(tmp_path / "one", vault)
    one.add("Mira")
    one.save()
    two = Machine(tmp_path / "two", vault)
    one.add("of one")
    two.add("of two")
    kept = {head.key for head in (one.save(), two.save(), one.save(), two.save())}
    branches = two.saver.branches
    assert {b.runtime for b in branches} == {one.local.runtime, two.local.runtime}
    assert kept <= {head.key for head in Generations(two.disk).heads()}
    other = next(b for b in branches if b.runtime == one.local.runtime)
    two.close()
    two.local.chosen = other.key
    two.local.save(two.workspace)
    chosen = Machine(tmp_path / "two", vault)
    assert chosen.names() == {"Mira", "of one"}
    chosen.save()
    assert len(chosen.saver.branches) == 1
    # What was set aside is still there, also after rotation.
    assert kept <= {head.key for head in Generations(chosen.disk).heads()}
    # Whoever still runs on the other side forks again, and is heard.
    one.add("later")
    one.save()
    assert len(one.saver.branches) == 2
    chosen.close()
    one.close()


def test_the_branch_that_is_open_can_be_the_one_that_stays(tmp_path: Path, vault: Path) -> None:
    one, two = Machine(tmp_path / "one", vault), Machine(tmp_path / "two", vault)
    one.add("of one")
    one.save()
    two.add("of two")
    two.save()
    assert len(two.saver.branches) == 2
    two.saver.save(merged={one.local.runtime: 1})
    assert [b.runtime for b in two.saver.branches] == [two.local.runtime]
    assert names_on(tmp_path / "three", vault) == {"of two"}
    one.close()
    two.close()


def test_a_copied_workspace_takes_a_name_of_its_own(machine: Machine, tmp_path: Path, vault: Path) -> None:
    machine.add("Mira")
    machine.save()
    shutil.copytree(tmp_path / "one", tmp_path / "copy")
    copy = Machine(tmp_path / "copy", vault)
    assert copy.local.runtime == machine.local.runtime
    machine.add("here")
    machine.save()
    copy.add("there")
    copy.save()
    assert copy.local.runtime != machine.local.runtime
    assert len(copy.saver.branches) == 2
    copy.close()


def test_a_kill_between_manifest_and_note_is_no_second_writer(machine: Machine, tmp_path: Path, vault: Path) -> None:
    import json

    machine.add("Mira")
    machine.save()
    state = tmp_path / "one" / "vault" / "state.json"
    before = json.loads(state.read_text())
    machine.add("Zorbi")
    head = machine.save()
    before.update(intended=head.key, intended_sha256=head.sha256)
    state.write_text(json.dumps(before))
    again = Machine(tmp_path / "one", vault)
    again.add("Third")
    assert again.save().runtime == head.runtime
    assert len(again.saver.branches) == 1
    again.close()


def line(ages: list[timedelta]) -> list[Head]:
    now = datetime(2026, 3, 1, 12, tzinfo=UTC)
    count = len(ages)
    return [
        Head(count - n, "aaaaaaaa", f"{n:064x}", 1, (now - age).isoformat(timespec="microseconds"))
        for n, age in enumerate(ages)
    ]


def test_rotation_keeps_ten_then_hours_then_days() -> None:
    heads = line([timedelta(minutes=10 * n) for n in range(6 * 24 * 10)])
    gone = {h.key for h in superfluous(heads, heads[0])}
    kept = [h for h in heads if h.key not in gone]
    assert kept[:10] == heads[:10]
    hours = {h.created_at[:13] for h in kept}
    assert len(hours) >= 24
    days = {h.created_at[:10] for h in kept}
    assert len(days) == 7
    assert len(kept) <= 10 + 24 + 7
    other = Head(5, "bbbbbbbb", "f" * 64, 1, heads[-1].created_at)
    assert other not in superfluous([*heads, other], heads[0])
    assert heads[1300] not in superfluous(heads, heads[0], protected={heads[1300].key})


def test_until_a_newer_save_is_sure_the_sure_one_stays(tmp_path: Path, vault: Path) -> None:
    machine = Machine(tmp_path / "one", vault)
    sure = machine.save()
    machine.saver.confirm = ReadBack(can_tell=False)
    for number in range(15):
        machine.add(f"C{number}")
        machine.save()
    assert sure.key in {h.key for h in machine.saver.generations.heads()}
    machine.saver.confirm = ReadBack(can_tell=True)
    machine.add("last")
    machine.save()
    assert len(machine.saver.generations.heads()) <= 12
    assert sure.key not in {h.key for h in machine.saver.generations.heads()}
    machine.close()


def test_a_purge_reaches_older_saves_once_the_new_one_is_sure(tmp_path: Path, vault: Path) -> None:
    machine = Machine(tmp_path / "one", vault, can_tell=False)
    machine.add("secret")
    old = machine.save()
    with machine.store.write() as conn:
        conn.table("characters").delete_where()
    machine.saver.save(purge=True)
    machine.saver.confirm_written()
    machine.saver.tidy()
    assert old.key in {h.key for h in machine.saver.generations.heads()}
    machine.saver.confirm = ReadBack(can_tell=True)
    machine.saver.confirm_written()
    machine.saver.tidy()
    assert [h.generation for h in machine.saver.generations.heads()] == [2]
    assert b"secret" not in b"".join(p.read_bytes() for p in vault.rglob("*") if p.is_file())
    machine.close()


def test_a_fault_at_every_call_leaves_the_newest_save_or_the_one_before() -> None:
    tried = vault_trials.faults(300)
    assert tried.broken == 0
    # It went on until a save came through, and every call before that failed once.
    assert 0 < tried.acknowledged <= tried.times


def test_a_full_disk_is_told_and_leaves_what_was_there() -> None:
    assert vault_trials.full_disk(4) == vault_trials.Tried(4, 0)


def test_a_wanted_save_that_is_gone_is_an_error(machine: Machine) -> None:
    machine.save()
    machine.close()
    with pytest.raises(NotFound):
        restore(machine.workspace, machine.disk, machine.local, wanted="000009-aaaaaaaa-0000000000000000")


def test_paths_of_the_other_machine_become_ours(tmp_path: Path, vault: Path) -> None:
    from masuka.store import jobs

    one = Machine(tmp_path / "one", vault)
    params = {"run_folder": str(one.workspace.runs / "00001"), "note": "/elsewhere/file", "list": [str(tmp_path / "one")]}
    jobs.add_job(one.store, actor=OWNER, kind="train_image", lane="gpu", title="t", request={}, params=params)
    one.save()
    two = Machine(tmp_path / "two", vault)
    (job,) = jobs.list_jobs(two.store, actor=OWNER)
    assert job.params == {
        "run_folder": str(two.workspace.runs / "00001"), "note": "/elsewhere/file", "list": [str(tmp_path / "two")],
    }  # fmt: skip
    one.close()
    two.close()


def test_a_manifest_with_another_seal_is_refused() -> None:
    head = Head(1, "aaaaaaaa", "0" * 64, 1, "2026-01-01T00:00:00+00:00")
    text = head.as_text()
    assert Head.from_text(text) == head
    with pytest.raises(Damaged):
        Head.from_text(text.replace(b'"generation": 1', b'"generation": 2'))
    with pytest.raises(Damaged):
        Head.from_text(b"[]")
    with pytest.raises(Damaged):
        Head.from_text(b"[" * 100_000)


@pytest.mark.parametrize(
    "changed",
    [
        {"generation": "7"}, {"generation": True}, {"generation": 10**30}, {"runtime": "../../x"}, {"sha256": "00"},
        {"created_at": "soon"}, {"created_at": "2026-01-01"}, {"chain": None}, {"chain": {"x": 1}}, {"schema": "m001"},
        {"size_bytes": -1}, {"merged": {"aaaaaaaa": "1"}}, {"kin": [1]}, {"places": {"media": 1}},
    ],
)  # fmt: skip
def test_a_manifest_that_says_what_cannot_be_stops_nobody(
    machine: Machine, tmp_path: Path, vault: Path, changed: dict[str, object]
) -> None:
    machine.add("Mira")
    head = machine.save()
    bad = {**asdict(head), "format": generations.FORMAT, **changed}
    (vault / "db/head-000099-bbbbbbbb-0000000000000000.json").write_bytes(generations.sealed(bad))
    (vault / head.head_path).with_name("head-000098-bbbbbbbb-0000000000000000.json").write_bytes(head.as_text())
    assert Generations(machine.disk).heads() == [head]
    machine.add("Zorbi")
    machine.save()
    assert names_on(tmp_path / "two", vault) == {"Mira", "Zorbi"}


def test_a_clock_that_goes_back_changes_no_order(machine: Machine, tmp_path: Path, vault: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.saver.confirm = ReadBack(can_tell=True)
    for number in range(12):
        machine.add(f"A{number}")
        machine.save()
    early = (datetime.now(UTC) - timedelta(hours=3)).isoformat(timespec="microseconds")
    monkeypatch.setattr(saving, "now_at", lambda: early)
    machine.saver.confirm = ReadBack(can_tell=False)
    machine.add("B")
    machine.save()
    assert machine.local.confirmed < machine.local.written
    machine.saver.confirm = ReadBack(can_tell=True)
    assert machine.saver.confirm_written() and machine.local.confirmed == machine.local.written == 13
    for number in range(12):
        machine.add(f"C{number}")
        machine.save()
    numbers = [h.generation for h in machine.saver.generations.heads()]
    assert numbers[:10] == list(range(25, 15, -1))
    newest = machine.saver.generations.heads()[0]
    (vault / newest.db_path).write_bytes(b"x")
    other = Machine(tmp_path / "two", vault)
    assert other.restored is not None and other.restored.head.generation == 24
    other.close()


def test_twins_that_do_not_see_each_other_keep_both_branches(tmp_path: Path, vault: Path) -> None:
    first = Machine(tmp_path / "one", vault)
    first.add("base")
    first.save()
    first.close()
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    one, two = Machine(tmp_path / "one", vault), Machine(tmp_path / "two", vault)
    seen = one.saver.generations.heads()
    two.saver.generations.heads = lambda: seen  # type: ignore[method-assign]
    one.add("of one")
    one.save()
    two.add("of two")
    theirs = two.saver.save()
    for number in range(15):
        one.add(f"C{number}")
        one.save()
    assert {b.key for b in one.saver.branches} == {one.local.last, theirs.key}
    assert theirs in Generations(one.disk).heads()
    one.close()
    two.close()


def test_a_branch_that_went_on_after_it_was_chosen_is_not_set_aside(tmp_path: Path, vault: Path) -> None:
    one = Machine(tmp_path / "one", vault)
    one.add("base")
    one.save()
    two = Machine(tmp_path / "two", vault)
    one.add("of one")
    chosen = one.save()
    two.add("of two")
    two.save()
    two.local.chosen = chosen.key
    two.local.save(two.workspace)
    two.close()
    one.add("later")
    later = one.save()
    two = Machine(tmp_path / "two", vault)
    two.save()
    assert later.key in {b.key for b in two.saver.branches}
    one.close()
    two.close()


def test_an_empty_studio_is_never_preferred_to_what_was_there(tmp_path: Path, vault: Path) -> None:
    one = Machine(tmp_path / "one", vault)
    one.add("Mira")
    one.save()
    vault.rename(tmp_path / "away")
    (tmp_path / "vault").touch()
    empty = Machine(tmp_path / "two", vault)
    assert "Nothing came back from the vault" in empty.notices[0]
    vault.unlink()
    (tmp_path / "away").rename(vault)
    for number in range(3):
        empty.add(f"New{number}")
        assert empty.save().rootless
    assert names_on(tmp_path / "three", vault) == {"Mira"}
    # A person may prefer it.
    empty.add("chosen")
    assert not empty.saver.save(merged={one.local.runtime: one.local.generation}).rootless
    assert "chosen" in names_on(tmp_path / "four", vault)
    one.close()
    empty.close()


@pytest.mark.parametrize("text", ["{half", "[]", '{"folder": "x", "chain": null}', ""])
def test_damaged_notes_are_laid_aside_and_the_line_goes_on(machine: Machine, tmp_path: Path, vault: Path, text: str) -> None:
    machine.add("Mira")
    head = machine.save()
    machine.close()
    notes = tmp_path / "one/vault/state.json"
    notes.write_text(text)
    again = Machine(tmp_path / "one", vault)
    assert notes.with_suffix(".damaged").read_text() == text
    again.saver.look()
    again.saver.recover(head.mark)
    again.add("Zorbi")
    after = again.save()
    assert after.descends(head) and not after.rootless
    assert [b.key for b in again.saver.branches] == [after.key]
    again.close()


def test_a_vault_that_hangs_holds_up_no_start(machine: Machine, vault: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = threading.Event()
    monkeypatch.setattr(restoring, "refuse_inside", lambda *given: held.wait(30))
    settings = Settings(workspace=machine.workspace, vault=vault)
    opening = before_opening(settings, patience_s=0.05)
    held.set()
    assert "has not answered" in opening.notices[0]


def test_a_folder_that_was_a_vault_and_is_empty_is_refused(machine: Machine, tmp_path: Path, vault: Path) -> None:
    machine.add("Mira")
    machine.save()
    vault.rename(tmp_path / "away")
    vault.mkdir()
    machine.add("Zorbi")
    with pytest.raises(StoreError, match="is empty, and was not"):
        machine.save()
    assert not list(vault.rglob("*.db"))
    vault.rmdir()
    (tmp_path / "away").rename(vault)
    assert machine.save().generation == 2


def test_what_was_not_confirmed_is_asked_about_after_a_restart(tmp_path: Path, vault: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(tmp_path / "one", vault, can_tell=False)
    machine.add("secret")
    machine.save()
    machine.saver.save(purge=True)
    machine.close()
    again = Machine(tmp_path / "one", vault, can_tell=False)
    assert [w.generation for w in again.local.unconfirmed] == [1, 2]
    monkeypatch.setattr(saving, "SETTLED_S", 0.0)
    assert again.saver.confirm_written()
    again.saver.tidy()
    assert [h.generation for h in again.saver.generations.heads()] == [2]
    assert again.local.confirmed_at == ""
    again.saver.confirm = ReadBack(can_tell=True)
    again.saver.confirm_written()
    assert again.local.confirmed == again.local.written == 2
    again.close()


def test_an_older_save_of_the_same_line_can_be_gone_back_to(machine: Machine, tmp_path: Path, vault: Path) -> None:
    machine.add("Mira")
    first = machine.save()
    machine.add("Zorbi")
    last = machine.save()
    machine.close()
    done = restore(machine.workspace, machine.disk, machine.local, wanted=first.key)
    assert done.replaced is not None and done.replaced.exists()
    back = Machine(tmp_path / "one", vault)
    assert back.names() == {"Mira"}
    head = back.save()
    # What was left behind is set aside, not asked about and not lost.
    assert [b.key for b in back.saver.branches] == [head.key]
    assert last.key in {h.key for h in back.saver.generations.heads()}
    assert names_on(tmp_path / "two", vault) == {"Mira"}
    back.close()
