"""masuka vault …: what is kept elsewhere, and how it comes back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from masuka.cli.command import Answer, command
from masuka.cli.show import table
from masuka.config import Settings
from masuka.errors import Conflict, NotFound
from masuka.store.opening import database_file
from masuka.studio import Studio
from masuka.vault.disk import Disk
from masuka.vault.generations import Generations, tips
from masuka.vault.local import Local
from masuka.vault.restoring import restore as bring_back
from masuka.vault.status import Status, branches_of

group = typer.Typer(help="The vault: how it stands, save, restore, choose a branch.", no_args_is_help=True)


@command(group, "status")
def status(settings: Settings) -> Answer:
    """Says when everything was last saved, and what the vault holds."""
    local, heads = _local(settings), _saves(settings).heads()
    branches = branches_of(tips(heads), local)
    lines = [
        f"Vault: {settings.vault}",
        f"Last confirmed save: {local.confirmed_at or 'never'}",
        f"{len(heads)} saves, {len(branches)} {'branch' if len(branches) == 1 else 'branches'}",
    ]
    if local.written > local.confirmed:
        lines.append(f"Written, not yet confirmed: {local.written_at}")
    if len(branches) > 1:
        lines.append("Choose between them: masuka vault branches, masuka vault choose KEY")
    data = {
        "folder": settings.vault, "saved_at": local.confirmed_at, "written_at": local.written_at,
        "saves": len(heads), "branches": branches,
    }  # fmt: skip
    return Answer(data, "\n".join(lines))


@command(group, "save")
def save(studio: Studio) -> Answer:
    """Saves the database and every file now, and waits until they are in the vault."""
    now: Status = studio.vault.save()
    return Answer(now, f"Saved at {now.saved_at}." if now.sure else f"Written at {now.written_at}, not yet confirmed.")


@command(group, "branches")
def branches(settings: Settings) -> Answer:
    """Lists the newest save of each branch."""
    found = branches_of(tips(_saves(settings).heads()), _local(settings))
    rows = [(b.key, b.created_at, b.bytes, "open here" if b.ours else "") for b in found]
    return Answer(found, table(("key", "saved at", "bytes", ""), rows, empty="The vault holds no save yet."))


@command(group, "choose")
def choose(studio: Studio, key: str) -> Answer:
    """Goes on with one branch; the others stay in the vault."""
    studio.vault.branches()
    here = studio.vault.choose(key)
    told = "This workspace goes on as it is." if here else "It opens at the next start of MASUKA."
    return Answer({"chosen": key, "open": here}, told)


@command(group, "restore")
def restore(
    settings: Settings,
    key: Annotated[str, typer.Argument(help="A save; the newest whole one if left out.")] = "",
    yes: bool = False,
) -> Answer:
    """Puts a save in the database's place; what is replaced is kept as a backup."""
    local, workspace = _local(settings), settings.workspace.create()
    saves = _saves(settings)
    if database_file(workspace).exists() and not yes:
        typer.confirm("Replace the database by a save of the vault?", abort=True, err=True)
    if key and key not in {head.key for head in saves.heads()}:
        raise NotFound(f"The vault holds no save {key}.", "See: masuka vault branches")
    done = bring_back(workspace, Disk(_vault(settings)), local, wanted=key)
    kept = f" What it replaced is kept as {done.replaced}." if done.replaced else ""
    return Answer({"restored": done.head.key, "replaced": done.replaced}, f"{done.sentence}{kept}")


@command(group, "adopt")
def adopt(
    studio: Studio,
    folder: Annotated[Path | None, typer.Argument(help="An old MASUKA or CharForgeData folder.")] = None,
) -> Answer:
    """Copies what an old Drive folder holds; the folder stays as it is."""
    reports = studio.vault.adopt_old(folder.expanduser().resolve() if folder else None)
    lines = [line for report in reports for line in (report.summary, *report.oddities)]
    return Answer(reports, "\n".join(lines) or "There was nothing new to copy.")


def _vault(settings: Settings) -> Path:
    if settings.vault is None:
        raise NotFound("There is no vault.", "Name a folder that is kept in MASUKA_VAULT.")
    if not Disk(settings.vault).there():
        raise Conflict(f"There is no folder {settings.vault}.", "Mount it, or correct MASUKA_VAULT.")
    return settings.vault


def _saves(settings: Settings) -> Generations:
    return Generations(Disk(_vault(settings)))


def _local(settings: Settings) -> Local:
    return Local.load(settings.workspace, _vault(settings))
