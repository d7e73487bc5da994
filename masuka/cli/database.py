"""masuka db …: the database file itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from masuka.cli.command import Answer, command, opened
from masuka.cli.show import table
from masuka.config import Settings
from masuka.errors import NotFound
from masuka.store.migrations import runner
from masuka.store.opening import database_file

group = typer.Typer(help="The database: migrate, check, back up, restore.", no_args_is_help=True)


@command(group, "migrate")
def migrate(settings: Settings) -> Answer:
    """Brings the database to the present schema, a backup taken before."""
    workspace = settings.workspace.create()
    steps = runner.migrate(database_file(workspace), backups=workspace.backups)
    return Answer({"steps": steps}, table(("migration", "status"), [(s.name, s.status) for s in steps]))


@command(group, "check")
def check(settings: Settings) -> Answer:
    """Says whether the database is whole and up to date."""
    health = runner.check(database_file(settings.workspace))
    lines = [f"{health.path}: SQLite {health.sqlite_version}, journal {health.journal_mode}"]
    lines += list(health.problems) + [f"{name} is waiting; run: masuka db migrate" for name in health.pending]
    lines.append("All is well." if health.ok else "Not well.")
    return Answer(health, "\n".join(lines), code=0 if health.ok else 1)


@command(group, "backup")
def backup(
    settings: Settings,
    list_only: Annotated[bool, typer.Option("--list", help="Only list the backups that are there.")] = False,
) -> Answer:
    """Writes a backup and checks it."""
    workspace = settings.workspace
    if list_only:
        found = runner.list_backups(workspace.backups)
        return Answer({"backups": found}, "\n".join(map(str, found)) or "No backups yet.")
    file = runner.backup(database_file(workspace), backups=workspace.backups)
    return Answer({"file": file}, str(file))


@command(group, "restore")
def restore(
    settings: Settings,
    backup_file: Annotated[Path | None, typer.Argument(help="A backup; the newest if left out.")] = None,
    yes: bool = False,
) -> Answer:
    """Puts a backup in the database's place; what is replaced is kept as a backup too."""
    workspace = settings.workspace
    chosen = backup_file.expanduser().resolve() if backup_file else _newest(workspace.backups)
    if not yes:
        typer.confirm(f"Replace the database by {chosen.name}?", abort=True, err=True)
    replaced = runner.restore(database_file(workspace), chosen, backups=workspace.backups)
    kept = f" What it replaced is kept as {replaced}." if replaced else ""
    text = f"Restored {chosen.name}.{kept}"
    return Answer({"restored": chosen, "replaced": replaced}, text)


@command(group, "import-masuka2")
def import_masuka2(
    settings: Settings,
    file: Annotated[Path | None, typer.Argument(help="Its masuka.db; looked for if left out.")] = None,
) -> Answer:
    """Copies everything from a MASUKA 2 database; the old file stays as it is."""
    from masuka.store import legacy

    workspace = settings.workspace
    found = [file.expanduser().resolve()] if file else legacy.find([workspace.root, Path.cwd(), Path.home()])
    if not found:
        raise NotFound("There is no MASUKA 2 database here.", "Name its file: masuka db import-masuka2 PATH.")
    with opened(settings) as studio:
        report = legacy.import_masuka2(
            studio.store, found[0], workspace=workspace, secret_key=settings.secrets.get("SECRET_KEY")
        )
    lines = [report.summary, *report.oddities]
    if report.enter_again:
        lines.append(f"Enter these keys again in Settings: {', '.join(report.enter_again)}.")
    return Answer(report, "\n".join(lines))


def _newest(backups: Path) -> Path:
    found = runner.list_backups(backups)
    if not found:
        raise NotFound("There are no backups yet.", "Make one with: masuka db backup.")
    return found[0]
