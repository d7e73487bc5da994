"""`python -m benchmarks list`, `… run NAME [--json] [--out DIR]`, `… document`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmarks import document
from benchmarks.harness import BENCHMARKS, measure, measure_cells, measure_parts, show, write
from masuka.config import Settings, apply_quiet_environment

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command("list")
def list_all() -> None:
    """Lists the benchmarks."""
    for name, benchmark in BENCHMARKS.items():
        print(f"{name:8} {benchmark.about}")


@app.command("run")
def run(
    name: str,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    out: Annotated[Path | None, typer.Option(help="Also write NAME.json into this folder.")] = None,
    part: Annotated[list[str] | None, typer.Option(help="Of a benchmark in parts: measure this part again.")] = None,
    budget: Annotated[float, typer.Option(help="Of a benchmark of cells: seconds in all.")] = 540,
    cells: Annotated[str, typer.Option(help="Of a benchmark of cells: these alone, measured anew.")] = "",
) -> None:
    """Runs one benchmark; the exit code is 1 if a goal is missed.

    One in parts writes each when it is done; one that was broken off goes on.
    """
    if name not in BENCHMARKS:
        raise typer.BadParameter(f"There is no benchmark {name!r}. Known are: {', '.join(BENCHMARKS)}.")
    apply_quiet_environment(Settings.from_environment().workspace)
    if BENCHMARKS[name].cells:
        try:
            result = measure_cells(name, out, budget_s=budget, cells=[c for c in cells.split(",") if c])
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
    elif BENCHMARKS[name].in_parts:
        result = measure_parts(name, out, again=part or ())
    else:
        result = measure(name)
        if out is not None:
            write(result, out)
    print(show(result, as_json=as_json))
    raise typer.Exit(0 if all(bar["met"] for bar in result["bars"].values()) else 1)


@app.command("document")
def write_document() -> None:
    """Writes docs/performance.md from the committed results."""
    print(document.write())


app(prog_name="python -m benchmarks")
