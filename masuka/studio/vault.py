"""The vault as a person deals with it: how it stands, save now, choose a branch, old folders."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from masuka.config import Settings
from masuka.errors import MasukaError, NotFound, StoreError
from masuka.store import legacy, snapshots
from masuka.store.connect import Store
from masuka.store.legacy import LegacyReport
from masuka.store.opening import database_file
from masuka.studio.context import Context
from masuka.vault.confirm import Confirm
from masuka.vault.keeper import Keeper
from masuka.vault.restoring import Opening
from masuka.vault.status import OFF, Branch, Status

SECONDS_BETWEEN_LOOKS = 0.2

log = logging.getLogger(__name__)


class Vault:
    """Where everything is kept that a lost machine would take."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def status(self) -> Status:
        """How it stands now; never waits for the vault."""
        return OFF if self._context.keeper is None else self._context.keeper.status()

    def save(self, *, files: bool = True, timeout_s: float = 600.0) -> Status:
        """How it stands after a save of all until now; `files` are waited for.

        Raises NotFound without a vault, StoreError when it does not answer in that time.
        """
        self._context.actor.must_edit()
        keeper, deadline_s = self._keeper(), time.monotonic() + timeout_s
        keeper.save_now(timeout_s=timeout_s)
        if files:
            keeper.copying.flush(timeout_s=max(0.0, deadline_s - time.monotonic()))
        return keeper.status()

    def branches(self) -> Sequence[Branch]:
        """The newest save of each branch; more than one means that somebody must choose."""
        keeper = self._keeper()
        keeper.look()
        return keeper.status().branches

    def choose(self, key: str) -> bool:
        """Whether that branch is open here already; False: it opens at the next start.

        The others stay in the vault, set aside. Raises NotFound.
        """
        self._context.actor.must_own()
        return self._keeper().choose(key)

    def purge(self) -> None:
        """What was deleted goes from older copies too; see `forget_older_copies`."""
        self._context.actor.must_own()
        self._keeper()
        self._context.forget_older_copies()

    def confirm_with(self, confirm: Confirm) -> None:
        """Asks this from now on whether a save has arrived, for example Drive's checksums."""
        self._keeper().confirm_with(confirm)

    def adopt_old(self, folder: Path | None = None) -> list[LegacyReport]:
        """What was copied from MASUKA 2 folders in the vault, beside it, or in `folder`.

        Their files are used where they are; nothing of the old folder is changed.
        """
        self._context.actor.must_own()
        vault = self._context.settings.vault
        places = [folder] if folder else [] if vault is None else [vault, vault.parent]
        return adopt(self._context.store, self._context.settings, places)

    def _keeper(self) -> Keeper:
        if self._context.keeper is None:
            raise NotFound("There is no vault.", "Name a folder that is kept in MASUKA_VAULT, then start again.")
        return self._context.keeper


def adopt(store: Store, settings: Settings, places: Sequence[Path]) -> list[LegacyReport]:
    """What was new in the MASUKA 2 databases at these places."""
    secret_key = settings.secrets.get("SECRET_KEY")
    reports = []
    for path in legacy.find(places):
        if not legacy.nothing_new(store, path, secret_key=secret_key):
            report = legacy.import_masuka2(
                store, path, workspace=settings.workspace, secret_key=secret_key
            )
            if report.added:
                store.notices.append(f"{report.summary} The old folder stays as it is.")
                store.notices.extend(report.oddities)
            reports.append(report)
    return reports


def open_keeper(store: Store, settings: Settings, opening: Opening, *, app: bool) -> Keeper | None:
    """The keeper of this workspace, at work; None where nothing is kept elsewhere.

    In the app, what an old folder holds arrives a little later; elsewhere it is there when
    this returns, and so are the files that unfinished jobs need.
    """
    store.notices.extend(opening.notices)
    if settings.vault is None:
        return None
    if store.path != database_file(settings.workspace):
        store.notices.append("While the database is out of reach, nothing is saved to the vault.")
        return None
    keeper = Keeper(store, settings, fresh=opening.fresh)
    keeper.start(eager=app)
    places = [settings.vault, settings.vault.parent]
    if app:
        threading.Thread(target=_adopt, args=(store, settings, places), name="vault-old", daemon=True).start()
    else:
        if opening.fresh:
            _adopt(store, settings, places)
        if opening.restored is not None:
            keeper.copying.load()
            keeper.copying.all_here(snapshots.unfinished_params(store))
    return keeper


def _adopt(store: Store, settings: Settings, places: Sequence[Path]) -> None:
    try:
        adopt(store, settings, places)
    except (MasukaError, OSError) as error:
        log.warning("an old folder could not be read: %s", error)
        if not isinstance(error, StoreError) or "closed" not in error.message:
            store.notices.append(f"The old folder near the vault could not be read: {error}")
