"""Trials of the vault that a test runs a few times and the benchmark often."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from masuka.config import Settings, Workspace
from masuka.errors import Damaged, MasukaError
from masuka.requests.actor import Actor
from masuka.store import characters
from masuka.store.connect import Store
from masuka.vault.confirm import ReadBack
from masuka.vault.disk import Disk
from masuka.vault.generations import Generations, Head, tips
from masuka.vault.local import Local
from masuka.vault.moving import hash_of
from masuka.vault.restoring import before_opening
from masuka.vault.saving import Saver
from tests.vault_chaos import Chaos

OWNER = Actor(user_id=1)
ROOT = Path(__file__).parents[1]
GROWN_BY = 400


class Machine:
    """A workspace with a database, and what saves it."""

    def __init__(self, root: Path, vault: Path, *, disk: Disk | None = None, can_tell: bool = True) -> None:
        self.workspace = Workspace(root=root).create()
        self.disk = disk or Disk(vault)
        settings = Settings(workspace=self.workspace, vault=vault, device="cpu")
        opening = before_opening(settings, disk=self.disk)
        self.notices, self.restored = opening.notices, opening.restored
        self.store = Store.open(self.workspace)
        self.local = Local.load(self.workspace, vault)
        self.saver = Saver(self.store.path, self.workspace, self.disk, self.local, ReadBack(can_tell=can_tell))

    def add(self, name: str) -> None:
        characters.add_character(self.store, actor=OWNER, name=name, trigger_word="abc")

    def save(self) -> Head:
        head = self.saver.save()
        self.saver.confirm_written()
        self.saver.tidy()
        return head

    def names(self) -> set[str]:
        return {c.name for c in characters.list_characters(self.store, actor=OWNER)}

    def close(self) -> None:
        self.store.close()


class Fault(Disk):
    """A folder whose nth call fails, once."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.calls = 0
        self.fail_at = 0

    def _count(self) -> None:
        self.calls += 1
        if self.calls == self.fail_at:
            raise OSError(5, "Input/output error")

    def names(self, folder: str) -> list[str]:
        self._count()
        return super().names(folder)

    def size(self, path: str) -> int | None:
        self._count()
        return super().size(path)

    def read(self, path: str) -> Iterator[bytes]:
        self._count()
        return super().read(path)

    def write(self, path: str, chunks: object, *, start: int = 0) -> None:
        def cut() -> Iterator[bytes]:
            for chunk in chunks:  # type: ignore[attr-defined]
                for at in range(0, len(chunk), 32768):
                    self._count()
                    yield chunk[at : at + 32768]
            self._count()

        self._count()
        super().write(path, cut(), start=start)
        self._count()

    def rename(self, old: str, new: str) -> None:
        self._count()
        super().rename(old, new)
        self._count()

    def discard(self, path: str) -> None:
        self._count()
        super().discard(path)
        self._count()


@dataclass(frozen=True)
class Tried:
    """How often something was tried, and how often the promise did not hold."""

    times: int
    broken: int
    acknowledged: int = 0


def kills(loops: int, *, seed: int = 3) -> Tried:
    """kill -9 while saves are published and rotated; a machine is restored after each.

    No edit that was acknowledged may be missing, in the database or in the vault.
    """
    return _alone("kills", loops, seed)


def full_disk(points: int) -> Tried:
    """The disk is full after so and so many bytes; the save before must be whole."""
    return _alone("full", points, 0)


def _alone(what: str, times: int, seed: int) -> Tried:
    """A trial in a process of its own, with one thread, so that it can fork."""
    with tempfile.TemporaryDirectory(prefix="masuka-trial-") as folder:
        told = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "tests.vault_trials", what, folder, str(times), str(seed)],
            cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True,
        ).stdout.split()  # fmt: skip
    return Tried(*map(int, told))


def races(rounds: int) -> Tried:
    """Two machines on one vault save at the same moment; both saves must be there, whole."""
    broken = 0
    with tempfile.TemporaryDirectory(prefix="masuka-races-") as folder:
        vault = Path(folder, "vault")
        pair = [Machine(Path(folder, name), vault) for name in ("one", "two")]
        for number in range(rounds):
            gate, heads = threading.Barrier(2), []

            def save(machine: Machine, name: str, gate: threading.Barrier, heads: list[Head]) -> None:
                machine.add(name)
                gate.wait()
                heads.append(machine.saver.save())
                machine.store.close()
                machine.store = Store(machine.store.path)

            threads = [threading.Thread(target=save, args=(m, f"{number}", gate, heads)) for m in pair]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            disk = Disk(vault)
            known = {head.key for head in Generations(disk).heads()}
            for head in heads:
                whole = head.key in known and hash_of(disk.read(head.db_path)) == head.sha256
                broken += not whole
            broken += len(heads) != 2
            broken += number > 0 and len(tips(Generations(disk).heads())) != 2
            if number % 10 == 9:
                for machine in pair:
                    machine.saver.confirm_written()
                    machine.saver.tidy()
        for machine in pair:
            machine.close()
    return Tried(rounds, broken)


def faults(most: int) -> Tried:
    """An error at one call of a save after the other; the newest or the one before is whole.

    Once a save's last call was reached, the next one is of a database that has grown, so that
    it has more calls. `acknowledged` is how many calls the longest save had; 0 where `most`
    ended the first before.
    """
    broken = tried = calls = 0
    with tempfile.TemporaryDirectory(prefix="masuka-faults-") as folder:
        disk = Fault(Path(folder, "vault"))
        machine = Machine(Path(folder, "one"), disk.root, disk=disk)
        for number in range(13):
            machine.add(f"C{number}")
            machine.save()
        acknowledged, at, came_through = machine.names(), 0, 0
        while tried < most:
            at += 1
            machine.add(f"D{came_through}-{at}")
            names = machine.names()
            disk.calls, disk.fail_at = 0, at
            try:
                machine.save()
                acknowledged = names
            except (OSError, Damaged):
                tried += 1
            finished = disk.calls < at
            disk.fail_at = 0
            there = _newest(Disk(disk.root), Path(folder, "fetched.db"))
            broken += not acknowledged <= there <= names
            if finished:
                calls, at, came_through = max(calls, disk.calls), 0, came_through + 1
                for number in range(GROWN_BY):
                    machine.add(f"E{came_through}-{number}")
        machine.save()
        broken += len(machine.saver.branches) != 1
        machine.close()
    return Tried(tried, broken, calls)


def flips(count: int, *, seed: int = 7) -> Tried:
    """One bit of the newest save's database altered; that must be found each time."""
    chance, broken = random.Random(seed), 0
    with tempfile.TemporaryDirectory(prefix="masuka-flips-") as folder:
        machine = Machine(Path(folder, "one"), Path(folder, "vault"))
        machine.add("Mira")
        head = machine.save()
        whole = (machine.disk.root / head.db_path).read_bytes()
        for _ in range(count):
            altered = bytearray(whole)
            altered[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
            (machine.disk.root / head.db_path).write_bytes(bytes(altered))
            try:
                Generations(machine.disk).fetch(head, Path(folder, "fetched.db"))
                broken += 1
            except Damaged:
                continue
        machine.close()
    return Tried(count, broken)


def chaos(operations: int, *, seed: int = 5) -> Tried:
    """Random edits, saves, uploads, losses on a misbehaving Drive; raises where a promise breaks."""
    chance, done, machines, confirmed = random.Random(seed), 0, 0, 0
    while done < operations:
        with tempfile.TemporaryDirectory(prefix="masuka-chaos-") as folder:
            trial = Chaos(Path(folder), chance.randrange(2**32))
            while trial.operations < min(400, operations - done):
                act = chance.random()
                if act < 0.35:
                    trial.edit()
                elif act < 0.6:
                    trial.save()
                elif act < 0.93:
                    trial.upload(chance.randint(1, 12))
                elif act < 0.97:
                    trial.behave(*(chance.choice([0.0, 0.02, 0.2]) for _ in range(4)))
                else:
                    trial.lose()
            trial.lose()
            machines += trial.machines
            confirmed += trial.confirmed > 0
            done += trial.operations
            trial.close()
    return Tried(done, 0, machines)


def _newest(disk: Disk, copy: Path) -> set[str]:
    saves = Generations(disk)
    saves.fetch(saves.heads()[0], copy)
    with Store(copy) as found:
        names = {c.name for c in characters.list_characters(found, actor=OWNER)}
    copy.unlink()
    return names


def _save_until_killed(root: Path, vault: Path, acks: Path, start: int) -> None:
    machine = Machine(root, vault)
    with acks.open("a", buffering=1) as out:
        for number in range(start, 1_000_000):
            machine.add(f"{number:07d}")
            machine.save()
            out.write(f"{number}\n")


def _full_disk(folder: Path, points: int, seed: int) -> Tried:
    root, vault = folder / "one", folder / "vault"
    machine = Machine(root, vault)
    machine.add("saved")
    size = machine.save().size_bytes
    machine.add("not saved")
    machine.close()
    broken = told = 0
    for number in range(points):
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            limit = size * number // points
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            try:
                Machine(root, vault).save()
            except (OSError, MasukaError):
                os._exit(1)
            os._exit(0)
        told += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
        fresh = Machine(folder / f"fresh-{number}", vault)
        broken += fresh.names() != {"saved"}
        fresh.close()
    return Tried(points, broken + (points - told))


def _kill_loops(folder: Path, loops: int, seed: int) -> Tried:
    chance, broken = random.Random(seed), 0
    root, vault, acks = folder / "one", folder / "vault", folder / "acks"
    acks.touch()
    start = 0
    for number in range(loops):
        child = os.fork()
        if child == 0:
            _save_until_killed(root, vault, acks, start)
        time.sleep(0.05 + chance.random() * 0.3)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        told = [int(line) for line in acks.read_text().splitlines()]
        acknowledged = max(told, default=-1)
        fresh = Machine(folder / f"fresh-{number}", vault)
        found = fresh.names()
        fresh.close()
        broken += len(found) <= acknowledged
        shutil.rmtree(folder / f"fresh-{number}")
        with Store(root / "masuka.db") as store:
            start = len(characters.list_characters(store, actor=OWNER))
        broken += start <= acknowledged
    broken += len(tips(Generations(Disk(vault)).heads())) != 1
    return Tried(loops, broken, len(acks.read_text().splitlines()))


if __name__ == "__main__":
    trial = {"kills": _kill_loops, "full": _full_disk}[sys.argv[1]]
    tried = trial(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
    print(tried.times, tried.broken, tried.acknowledged)
