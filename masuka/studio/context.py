"""What every part of the studio shares: the open store, the settings and who asks."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from masuka.access.accounts import password_tries
from masuka.access.limits import Throttle
from masuka.config import Settings, Workspace
from masuka.errors import OutOfDisk
from masuka.requests.actor import Actor
from masuka.requests.base import Limit, Request
from masuka.store.connect import Store
from masuka.store.migrations.runner import renew_backups
from masuka.store.opening import database_file

if TYPE_CHECKING:
    from masuka.jobs.executors.lent import Lend
    from masuka.jobs.supervisor import Supervisor
    from masuka.store.jobs import Job
    from masuka.vault.keeper import Keeper

RequestT = TypeVar("RequestT", bound=Request)


@dataclass(frozen=True)
class Context:
    """One person's view of an open studio; `supervisor` is None where jobs run inline."""

    settings: Settings
    store: Store
    actor: Actor
    supervisor: Supervisor | None
    keeper: Keeper | None = None
    lend: Lend | None = None
    """Borrows a GPU for a job, on the one host where it belongs to each request."""
    after_job: Callable[[Context, Job], None] = field(default=lambda _context, _job: None, compare=False)
    """What is done once a job was settled."""
    password_tries: Throttle = field(default_factory=password_tries, compare=False)
    """How often each name's password was guessed, here and at the door."""
    found: dict[int, Any] = field(default_factory=dict, compare=False, repr=False)
    """What each person found last in the search for models; gone with the app."""
    looked_at: dict[int, Any] = field(default_factory=dict, compare=False, repr=False)
    """The repository that each person looked at last; gone with the app."""

    @property
    def workspace(self) -> Workspace:
        return self.settings.workspace

    def here(self, file: Path, *, patient: bool = True) -> Path:
        """The same file, brought back from the vault first where it is not here yet.

        A page that only shows it is not `patient`: it asks again.
        """
        if self.keeper is not None and not file.exists():
            self.keeper.here(file, patient=patient)
        return file

    def forget_older_copies(self) -> None:
        """Takes what was deleted for good out of older copies of the database too.

        Backups on this machine make place for a new one; in the vault older saves go once a
        newer one is sure. Raises StoreError or OutOfDisk when no new backup can be made.
        """
        if self.keeper is not None:
            self.keeper.purge_soon()
        # While a fallback database is open, the backups are another one's.
        if self.store.path == database_file(self.workspace):
            renew_backups(self.store.path, backups=self.workspace.backups)

    def wake(self) -> None:
        """Tells the supervisor that the queue changed."""
        if self.supervisor is not None:
            self.supervisor.wake()


def given(request: Any, values: Mapping[str, Any], name: str) -> Any:
    """One value as it was given, unchecked; None when it was not."""
    of_request = request.get(name) if isinstance(request, Mapping) else getattr(request, name, None)
    return values.get(name, of_request)


def must_have_room(folder: Path, bytes: int, *, left_bytes: int = 0) -> None:
    """Raises OutOfDisk when less than `left_bytes` would be left of the folder's disk."""
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < bytes + left_bytes:
        missing_gib = (bytes + left_bytes - free) / 2**30
        raise OutOfDisk("The disk is too full for this.", f"Free {missing_gib:.1f} GiB and try again.")


def parsed(
    request_type: type[RequestT],
    request: Any,
    values: Mapping[str, Any],
    limits: Mapping[str, Limit] | None = None,
) -> RequestT:
    """The validated request from an object, a mapping or keywords (keywords win)."""
    if request is None:
        return request_type.parse(values, limits=limits)
    if values:
        given = request if isinstance(request, Mapping) else request_type.parse(request)
        known = given if isinstance(given, Mapping) else given.model_dump(exclude_unset=True)
        return request_type.parse({**known, **values}, limits=limits)
    return request_type.parse(request, limits=limits)
