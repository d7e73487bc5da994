"""The façade that the app, the command line and notebook cells all use.

A studio is opened once for its workspace and is bound to one person; `acting_as` gives
the same studio to another. It validates, asks the store and adds jobs; the work itself
happens in workers.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from masuka import logs
from masuka.config import Settings, Workspace, apply_quiet_environment
from masuka.hosting.machine import Machine, machine
from masuka.jobs.executors.lent import Lend
from masuka.jobs.recovery import recover
from masuka.jobs.secrets import stored_secrets
from masuka.jobs.supervisor import Supervisor
from masuka.requests.actor import Actor
from masuka.store import changes
from masuka.store.connect import Store
from masuka.studio.adapters import Adapters
from masuka.studio.advice import Advising
from masuka.studio.captions import Captions
from masuka.studio.characters import Characters
from masuka.studio.context import Context
from masuka.studio.datasets import Datasets
from masuka.studio.doctor import Doctor
from masuka.studio.edits import Edits
from masuka.studio.following import follow_up
from masuka.studio.images import Images
from masuka.studio.jobs import Jobs
from masuka.studio.library import Library
from masuka.studio.links import Links
from masuka.studio.models import Models
from masuka.studio.people import People
from masuka.studio.preferences import Preferences
from masuka.studio.reports import Reports
from masuka.studio.sources import Sources
from masuka.studio.sweeps import Sweeps
from masuka.studio.training import Training
from masuka.studio.vault import Vault, open_keeper
from masuka.vault.restoring import before_opening

OWNER = Actor(user_id=1)

__all__ = ["OWNER", "Studio"]


class Studio:
    """Characters, data sets, trainings, pictures and jobs of one workspace."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.characters = Characters(context)
        self.datasets = Datasets(context)
        self.captions = Captions(context)
        self.doctor = Doctor(context)
        self.edits = Edits(context)
        self.training = Training(context)
        self.reports = Reports(context)
        self.sweeps = Sweeps(context)
        self.images = Images(context)
        self.jobs = Jobs(context)
        self.library = Library(context)
        self.links = Links(context)
        self.models = Models(context)
        self.adapters = Adapters(context)
        self.sources = Sources(context)
        self.advice = Advising(context)
        self.people = People(context)
        self.preferences = Preferences(context)
        self.vault = Vault(context)

    @classmethod
    def open(
        cls,
        settings: Settings | None = None,
        *,
        workers: Literal["processes", "inline"] = "inline",
        lend: Lend | None = None,
    ) -> Self:
        """The studio of these settings, migrated and ready, bound to its owner.

        With 'inline', jobs run in this process when they are waited for, as a notebook
        cell or a test expects; with 'processes', a supervisor runs them in workers. With
        `lend`, those that need a GPU borrow one when `jobs.run_lent` is called.
        """
        settings = settings or Settings.from_environment()
        apply_quiet_environment(settings.workspace.create())
        opening = before_opening(settings)
        store = Store.open(settings.workspace, secret_key=settings.secrets.get("SECRET_KEY"))
        # A job's old log may show a key that nothing in this process has used yet.
        logs.redact.learn(settings.secrets.values())
        stored_secrets(store, settings, OWNER.user_id)
        keeper = open_keeper(store, settings, opening, app=workers == "processes")
        supervisor = Supervisor(store, settings, lent=lend is not None) if workers == "processes" else None
        context = Context(
            settings=settings, store=store, actor=OWNER, supervisor=supervisor, keeper=keeper, lend=lend,
            after_job=follow_up,
        )  # fmt: skip
        if supervisor is None:
            recover(store, settings)
        else:
            supervisor.after_job = partial(follow_up, context)
            # A training that goes on needs its pictures and checkpoints first.
            keeper.when_ready(supervisor.start) if keeper else supervisor.start()
        return cls(context)

    def acting_as(self, actor: Actor) -> Studio:
        """The same open studio, seen by another person."""
        return Studio(replace(self._context, actor=actor))

    def close(self) -> bool:
        """Whether everything is in the vault, or there is none, once all is closed.

        The supervisor stops and running workers live on.
        """
        if self._context.supervisor is not None:
            self._context.supervisor.stop()
        keeper = self._context.keeper
        kept = keeper is None or (keeper.stop() and not keeper.status().files)
        self._context.store.close()
        return kept

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def actor(self) -> Actor:
        return self._context.actor

    @property
    def settings(self) -> Settings:
        return self._context.settings

    @property
    def workspace(self) -> Workspace:
        return self._context.settings.workspace

    @property
    def lends(self) -> bool:
        """Whether GPUs are lent to single requests here, and to nothing else."""
        return self._context.lend is not None

    @property
    def store(self) -> Store:
        return self._context.store

    @property
    def notices(self) -> list[str]:
        """What the person should know about this start, such as a fallback database."""
        return list(self._context.store.notices)

    def changes(self) -> int:
        """A number that grows with every change a page may want to show."""
        return changes.now(self._context.store)

    def machine(self) -> Machine:
        """This machine now: GPU, free memory and disk, device that jobs will use."""
        return machine(self.workspace.root, device=self.settings.device)

    def media(self, kind: str, media_id: int, *, thumbnail: bool = False, original: bool = False) -> Path:
        """The file of a picture (as edited), item, sample or preview of this person's.

        Raises NotFound when there is none, InvalidInput for an unknown kind.
        """
        return self.library.media(kind, media_id, thumbnail=thumbnail, original=original)
