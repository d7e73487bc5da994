"""Several trainings at once, and the table in which they are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from masuka.errors import InvalidInput
from masuka.requests.base import params
from masuka.requests.sweeps import SweepTraining
from masuka.studio import Studio
from masuka.studio.sweeps import Row
from masuka.ui import forms
from masuka.ui.kit import Outcome, Payload, id_of, key_of, values_of
from masuka.ui.markup import address, button, card, chip, esc
from masuka.ui.report import shown_run
from masuka.ui.view import View
from masuka.ui.words import number, short

PREFIX = "sweep_"
_SHOWN = ("likeness", "validation", "prompt", "variety")


def fields(form: str) -> str:
    """The lists of choices, within the training's form, and the button."""
    described = params(SweepTraining)
    inner = "".join(forms.field(form, replace(p, name=PREFIX + name)) for name, p in described.items())
    start = button("Train all combinations", "training-sweep", form=form, name="training-sweep-go")
    return f'{inner}<div class="actions full">{start}</div>'


def without(values: Mapping[str, Any]) -> dict[str, Any]:
    """The form's values that are of one training."""
    return {name: value for name, value in values.items() if not name.startswith(PREFIX)}


def draw_sweep(studio: Studio, view: View) -> str:
    """The shown training's sweep: its trainings, their settings and scores."""
    run = shown_run(studio, view)
    if run is None or run.sweep_id is None:
        return ""
    rows = studio.sweeps.table(run.sweep_id)
    if not rows:
        return ""
    varied = list(rows[0].settings)
    scored = [name for name in _SHOWN if any(name in row.scores for row in rows)]
    head = "".join(
        f"<th scope=col>{esc(name.replace('_', ' ').capitalize())}</th>" for name in ("training", *varied, "state", *scored)
    )
    body = "".join(_row(row, varied, scored, shown=row.run.id == run.id) for row in rows)
    running = any(row.run.status in ("queued", "running", "paused", "interrupted") for row in rows)
    stop = (
        button("Cancel the rest", "training-sweep-cancel", look="quiet", id=run.sweep_id) if running else ""
    )
    told = _told(rows)
    return card(
        f'<div class="wide-table" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
        f'<p class="hint">{esc(told)}</p>',
        title=f"{len(rows)} trainings side by side", classes="report", aside=stop,
    )  # fmt: skip


def on_sweep(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The queued trainings of all combinations; the first of them is shown."""
    values = values_of(payload)
    choices = {
        name.removeprefix(PREFIX): value
        for name, value in values.items()
        if name.startswith(PREFIX) and value not in ([], ())
    }
    try:
        sweep = studio.sweeps.start(choices, without(values), key=key_of(payload))
    except InvalidInput as error:
        ours = PREFIX + error.field if error.field in params(SweepTraining) else error.field
        raise InvalidInput(error.message, error.hint, field=ours) from error
    rows = studio.sweeps.table(sweep.id)
    return Outcome(f"{len(rows)} trainings are on their way.", go={"run": rows[0].run.id})


def on_cancel(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The sweep's trainings, asked to stop."""
    return Outcome(f"{studio.sweeps.cancel(id_of(payload))} asked to stop.")


def _row(row: Row, varied: Sequence[str], scored: Sequence[str], *, shown: bool) -> str:
    link = f'<a href="{address(tab="training", run=row.run.id)}" data-go>{esc(row.run.name)}</a>'
    cells = [f"{link} {chip('best', 'good')}" if row.best else link]
    cells += [number(value) if (value := row.settings[name]) is not None else "" for name in varied]
    cells.append(esc(row.run.status))
    cells += [short(row.scores[name]) if name in row.scores else "—" for name in scored]
    mark = " aria-current=true" if shown else ""
    return f"<tr{mark}>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _told(rows: Sequence[Row]) -> str:
    if not any(row.best for row in rows):
        return "The best is marked once trainings have been scored."
    liked = any("likeness" in row.scores for row in rows)
    return "The best has the highest likeness." if liked else "The best has the lowest validation loss."
