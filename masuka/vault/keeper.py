"""Decides when the database goes to the vault, and waits for it so that nobody else has to.

One thread saves the database, another (`copying`) copies files; only they touch the vault.
Everybody else reads `status` or leaves a wish. A folder that hangs holds these two threads
and nothing else, and that it hangs is told.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from masuka.config import Settings
from masuka.errors import MasukaError, NotFound, StoreError
from masuka.store import snapshots
from masuka.store.connect import Store
from masuka.store.rows import now_at
from masuka.vault.confirm import Confirm, for_folder
from masuka.vault.copying import INLINE_DELAY_S, Copying
from masuka.vault.disk import Disk
from masuka.vault.local import Local, folder_of
from masuka.vault.mirror import Mirror
from masuka.vault.places import Places
from masuka.vault.saving import Saver
from masuka.vault.status import State, Status, branches_of
from masuka.vault.waiting import Wish, Wishes, refuse, told, within

LOOK_S = 1.0
DEBOUNCE_S = 5.0
EVERY_S = 45.0
"""While changes go on, a save begins this long after the first of them; the promise is 60 s."""
LONGEST_BACKOFF_S = 60.0
HUNG_S = 60.0
SHARE_OF_TIME = 10
"""Saving takes at most a tenth of the time, however slow the folder is."""
CONFIRM_EVERY_S = 10.0
LEFT_BEHIND_S = 86_400.0
LENT_TOKEN = "drive-token"  # noqa: S105 - a name
"""The file among the secrets in which a notebook's kernel lends its token for Drive."""

log = logging.getLogger("masuka.vault")


class Keeper:
    """Keeps one workspace in one vault while it is open.

    `fresh`: the database was made just now, from nothing. If the vault then holds saves, it
    is not saved before somebody has changed something.
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        *,
        disk: Disk | None = None,
        confirm: Confirm | None = None,
        fresh: bool = False,
        debounce_s: float = DEBOUNCE_S,
        every_s: float = EVERY_S,
    ) -> None:
        if settings.vault is None:
            raise ValueError("these settings name no vault")
        self._store, self._workspace = store, settings.workspace
        self._disk = disk or Disk(settings.vault)
        self._local = Local.load(settings.workspace, settings.vault)
        places = Places(settings.workspace)
        confirm = confirm or for_folder(settings.vault, settings.workspace.secrets / LENT_TOKEN)
        self._saver = Saver(store.path, settings.workspace, self._disk, self._local, confirm)
        mirror = Mirror(self._disk, places, self._local, at_once=lambda: self._saver.confirm.at_once)
        self._fresh, self._begun, self._first_mark = fresh, False, ""
        self._working = threading.Event()
        self.copying = Copying(store, places, self._saver, mirror, self._working.is_set)
        self._debounce_s, self._every_s = debounce_s, every_s
        self._wake, self._stopping = threading.Event(), threading.Event()
        self._wishes = Wishes()
        self._pulse: snapshots.Pulse | None = None
        self._checkpoint = 0
        self._moved_s = self._not_before_s = self._confirm_s = 0.0
        self._dirty_s: float | None = None
        self._busy_s: float | None = None
        self._failures = self._saves = 0
        self._files_s = 0.0
        self._eager = True
        self._unsaved_at = self._why = ""
        # A file, so that a command can wish it while the app keeps the vault.
        self._purge_mark = folder_of(self._workspace) / "purge"
        self._purging = self._purge_mark.with_name("purging")
        self._thread = threading.Thread(target=self._run, name="vault-saves", daemon=True)

    def start(self, *, eager: bool = True) -> None:
        """Begins keeping; where another process of this workspace does, waits its turn.

        A short command is not `eager`: it reads nothing from the vault before it must.
        """
        self._eager = eager
        folder_of(self._workspace).mkdir(parents=True, exist_ok=True)
        self._thread.start()
        self.copying.start(delay_s=0.0 if eager else INLINE_DELAY_S)

    def stop(self, *, timeout_s: float = 30.0, files_s: float = 60.0) -> bool:
        """Whether everything that changed is in the vault, after a last try.

        The database goes first; files that changed with it have `files_s` after that.
        """
        self._files_s = files_s
        self._stopping.set()
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
            if self._busy_s is None:
                self._thread.join(files_s)
            self.copying.stop(1.0)
        return not self._thread.is_alive() and self.status().state in ("saved", "written")

    def confirm_with(self, confirm: Confirm) -> None:
        """Asks this one from now on whether a save has arrived."""
        self._saver.confirm = confirm

    def save_now(self, *, timeout_s: float = 60.0) -> str:
        """The key of a save that was made after this was called.

        Raises StoreError when it cannot be made, or not in that time.
        """
        return self._wished(Wish(), timeout_s)

    def purge_soon(self) -> None:
        """Wishes a save after which, once it has arrived, older ones of its line go.

        The wish outlives this process until it is met.
        """
        self._purge_mark.parent.mkdir(parents=True, exist_ok=True)
        self._purge_mark.touch()
        self._wake.set()

    def look(self, *, timeout_s: float = 60.0) -> None:
        """Reads which branches the vault has; raises StoreError when it does not answer."""
        within(self._saver.look, timeout_s, self._disk.root)

    def choose(self, key: str, *, timeout_s: float = 60.0) -> bool:
        """Whether the branch is what is open now; False: it is opened at the next start.

        The other branches are kept, set aside. Raises NotFound.
        """
        heads = {head.key: head for head in self._saver.branches}
        if key not in heads:
            raise NotFound(f"The vault has no branch {key}.", "See: masuka vault branches")
        ours = any(b.ours for b in branches_of([heads[key]], self._local))
        others = {h.runtime: h.generation for k, h in heads.items() if k != key}
        if ours:
            self._wished(Wish(merged=others), timeout_s)
            self._local.chosen = ""
        else:
            # What is open here must be in the vault before something else takes its place.
            self._wished(Wish(), timeout_s)
            self._local.chosen = key
        self._saver.keep_notes()
        return ours

    def here(self, file: Path, *, patient: bool = True) -> bool:
        """Whether the file is there, brought back from the vault where it was not."""
        return self.copying.here(file, patient=patient)

    def when_ready(self, act: Callable[[], None]) -> None:
        """Does it once the files that unfinished jobs need are here."""
        if self._local.filling:
            self.copying.when_ready(act)
        else:
            act()

    def status(self) -> Status:
        """How it stands now; touches no vault and never waits."""
        local, busy_s, figures = self._local, self._busy_s, self.copying.figures
        why, hung_s = self._why, 0.0 if busy_s is None else time.monotonic() - busy_s
        if hung_s > HUNG_S:
            why = f"{self._disk.root} has not answered for {hung_s:.0f} seconds."
        state: State = "saved" if local.confirmed >= local.written else "written"
        if why:
            state = "unreachable"
        elif not self._working.is_set() and not self._stopping.is_set():
            state = "passive"
        elif busy_s is not None:
            state = "saving"
        elif self._unsaved_at or not local.written_at:
            state = "unsaved"
        return Status(
            folder=str(self._disk.root), state=state, saved_at=local.confirmed_at, written_at=local.written_at,
            sure=local.confirmed >= local.written,
            unsaved_since_at=self._unsaved_at, files=figures.files, bytes=figures.bytes, missing=figures.missing,
            why=why or self.copying.why, branches=branches_of(self._saver.branches, local), chosen=local.chosen,
        )  # fmt: skip

    def _wished(self, wish: Wish, timeout_s: float) -> str:
        if not self._working.wait(min(timeout_s, 5.0)):
            raise StoreError(
                self._why or "Another MASUKA of this workspace keeps the vault.", "Ask that one, or stop it."
            )
        self._wishes.add(wish)
        self._wake.set()
        try:
            return wish.done.result(timeout_s)
        except TimeoutError:
            raise StoreError(
                f"{self._disk.root} has not answered for {timeout_s:.0f} seconds.", "The save is tried again."
            ) from None

    def _run(self) -> None:
        lock = FileLock(folder_of(self._workspace) / "keeper.lock")
        try:
            self._guard(lambda: self._turn(lock))
            while not self._stopping.is_set():
                self._wake.wait(LOOK_S)
                self._wake.clear()
                self._guard(lambda: self._turn(lock))
            if self._working.is_set():
                self._not_before_s = 0.0
                self._guard(lambda: self._look(last=True))
                if self._saves and not self._why and self.copying.running:
                    self._guard(lambda: self.copying.flush(timeout_s=self._files_s))
            refuse(self._wishes.take(), StoreError("MASUKA is closing.", "Start it again."))
        finally:
            lock.release()

    def _turn(self, lock: FileLock) -> None:
        if not self._working.is_set():
            try:
                lock.acquire(timeout=0)
            except Timeout:
                return
            # Another process may have saved since this one was made.
            self._local.reload(self._workspace)
            self._sweep()
            self._checkpoint = snapshots.newest_checkpoint(self._store, after_id=0)
            self._working.set()
        self._look()

    def _sweep(self) -> None:
        """Removes what a killed save or restore has left on this machine's disk."""
        for left in folder_of(self._workspace).glob("saving-*"):
            left.unlink(missing_ok=True)
        for left in folder_of(self._workspace).glob("restoring-*"):
            # Another process may just be bringing one back.
            if time.time() - left.stat().st_mtime > LEFT_BEHIND_S:
                left.unlink(missing_ok=True)

    def _begin(self) -> None:
        """Reads who has saved to the vault; nothing is saved before that."""
        try:
            with self._at_the_vault():
                if not self._disk.there():
                    raise StoreError(f"There is no folder {self._disk.root}.", "Mount it, or correct MASUKA_VAULT.")
                self._saver.look()
                self._saver.recover(self._first_mark)
        except Exception as error:
            refuse(self._wishes.take(), error)
            raise
        if self._fresh and self._local.blank and self._saver.branches:
            self._local.mark = self._first_mark
            self._saver.keep_notes()
        if not self._begun and self.status().apart:
            self._store.notices.append(
                f"The vault at {self._disk.root} goes on from elsewhere than the studio that is open here. Choose in "
                "Settings, Vault; what you change here meanwhile is kept as a branch of its own."
            )
        self._begun = True

    @contextmanager
    def _at_the_vault(self) -> Iterator[None]:
        """While something waits for the folder, so that a hanging one can be told."""
        before, self._busy_s = self._busy_s, time.monotonic()
        try:
            yield
        finally:
            self._busy_s = before

    def _sense(self, now_s: float) -> bool:
        """Whether the database holds what the newest save does not."""
        before, self._pulse = self._pulse, snapshots.pulse(self._store, self._pulse)
        self._first_mark = self._first_mark or self._pulse.mark
        if before is None or before.mark != self._pulse.mark:
            self._moved_s = now_s
        dirty = self._pulse.mark != self._local.mark
        if dirty and self._dirty_s is None:
            self._dirty_s, self._unsaved_at = now_s, now_at()
        elif not dirty:
            self._dirty_s, self._unsaved_at = None, ""
        return dirty

    def _look(self, *, last: bool = False) -> None:
        """Saves if that is due: after edits, on a checkpoint, on a wish, at the end."""
        now_s = time.monotonic()
        dirty = self._sense(now_s)
        wished = bool(self._wishes)
        unknown = not self._begun and (wished or dirty or self._eager)
        if (unknown or (self._why and not last)) and (wished or last or now_s >= self._not_before_s):
            self._begin()
            self._why, self._failures = "", 0
            dirty = self._sense(now_s)
        checkpoint = snapshots.newest_checkpoint(self._store, after_id=self._checkpoint)
        wishes = self._wishes.take()
        edited = self._dirty_s is not None and (
            last or now_s - self._moved_s >= self._debounce_s or now_s - self._dirty_s >= self._every_s
        )
        wanted = edited or (dirty and checkpoint > self._checkpoint) or self._purge_mark.exists() or self._purging.exists()
        due = wanted and now_s >= self._not_before_s
        if wishes or due:
            with self._at_the_vault():
                self._save(wishes)
            self._checkpoint = checkpoint
        elif now_s - self._confirm_s >= CONFIRM_EVERY_S:
            self._confirm()

    def _save(self, wishes: list[Wish]) -> None:
        began_s = time.monotonic()
        merged = {runtime: number for wish in wishes for runtime, number in wish.merged.items()}
        try:
            if not self._disk.there():
                raise StoreError(f"There is no folder {self._disk.root}.", "Mount it, or correct MASUKA_VAULT.")
            self._saves += 1
            # What is deleted while this save is made leaves a mark of its own.
            if self._purge_mark.exists():
                self._purge_mark.replace(self._purging)
            head = self._saver.save(merged=merged, purge=self._purging.exists())
            self._purging.unlink(missing_ok=True)
            if self._pulse is not None and self._pulse.mark == head.mark:
                self._dirty_s, self._unsaved_at = None, ""
            else:
                self._dirty_s, self._unsaved_at = time.monotonic(), now_at()
            self._why, self._failures = "", 0
            self._confirm(saved=True)
        except Exception as error:
            refuse(wishes, error)
            raise
        finally:
            took_s = time.monotonic() - began_s
            self._not_before_s = time.monotonic() + min(SHARE_OF_TIME * took_s, LONGEST_BACKOFF_S)
        self.copying.wake()
        for wish in wishes:
            wish.done.set_result(head.key)

    def _confirm(self, *, saved: bool = False) -> None:
        self._confirm_s = time.monotonic()
        if self._saver.confirm_written() or saved:
            with self._at_the_vault():
                self._saver.tidy()
            self.copying.wake()

    def _guard(self, act: Callable[[], None]) -> None:
        """Does it; trouble is told and tried again, ever less often."""
        try:
            act()
        except (MasukaError, OSError) as error:
            if told(error) != self._why:
                log.warning("the vault waits: %s", error)
            self._fail(told(error))
        except Exception:  # a bug must not end the keeping
            log.exception("saving to the vault failed")
            self._fail("Saving failed in a way that it should not; the log has the details.")

    def _fail(self, why: str) -> None:
        self._why = why
        self._failures += 1
        self._not_before_s = time.monotonic() + min(2.0 ** (self._failures - 1), LONGEST_BACKOFF_S)
