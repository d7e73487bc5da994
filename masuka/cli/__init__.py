"""The command line: `python -m masuka …`. The same studio as the app and the notebooks."""

from __future__ import annotations

import typer

from masuka.cli import (
    adapters,
    characters,
    database,
    datasets,
    doctor,
    edits,
    jobs,
    make,
    models,
    people,
    planning,
    reports,
    share,
    vault,
)
from masuka.cli.start import add_to

app = typer.Typer(
    help="MASUKA trains your character and puts it in pictures, on any machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
add_to(app)
app.add_typer(characters.group, name="character")
edits.add_to(datasets.group)
doctor.add_to(datasets.group)
app.add_typer(datasets.group, name="dataset")
planning.add_to(make.train_group)
reports.add_to(make.train_group)
app.add_typer(make.train_group, name="train")
app.add_typer(make.generate_group, name="generate")
app.add_typer(jobs.group, name="jobs")
app.add_typer(models.group, name="models")
app.add_typer(adapters.group, name="adapter")
app.add_typer(share.group, name="share")
app.add_typer(database.group, name="db")
people.add_to(app)
app.add_typer(vault.group, name="vault")


def main() -> None:
    """Runs the command of this process; exits 0 done, 1 failed, 2 not understood."""
    app(prog_name="masuka")


