"""What recurs on the page: job cards, picture tiles, the steps of a way."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from masuka.ui.markup import attributes, bar, button, chip, disclosure, esc, go, media, picture
from masuka.ui.words import duration, moment, number, per_step, seconds_between

if TYPE_CHECKING:
    from masuka.store.items import Item
    from masuka.store.jobs import Job
    from masuka.studio import Studio

MOODS: Mapping[str, tuple[str, str]] = {
    "queued": ("waiting", "quiet"),
    "running": ("running", "busy"),
    "paused": ("paused", "quiet"),
    "interrupted": ("interrupted", "warn"),
    "uncertain": ("uncertain", "warn"),
    "done": ("done", "good"),
    "failed": ("failed", "bad"),
    "cancelled": ("cancelled", "quiet"),
}
UNFINISHED = ("queued", "running", "paused", "interrupted", "uncertain")
_WAITS_FOR = {
    "gpu": "waits for its turn to compute",
    "cpu": "waits for its turn",
    "net": "waits for its turn",
}
LOG_BYTES = 8_000


def state_chip(job: Job) -> str:
    """The job's state as a chip; what was asked of it counts already."""
    if job.state == "running" and job.asked:
        return chip("stopping" if job.asked == "cancel" else "pausing", "busy")
    return chip(*MOODS[job.state])


def state_sentence(studio: Studio, job: Job) -> str:
    """One sentence of true state: stage, step, pace and time left, or how it ended."""
    if job.state == "queued":
        return _WAITS_FOR[job.lane]
    if job.state == "running":
        parts = [job.stage] if job.stage else ["starting"]
        if job.total:
            parts.append(f"step {number(job.step)} of {number(job.total)}")
        if job.seconds_per_step:
            parts.append(per_step(job.seconds_per_step))
        left = studio.jobs.eta_s(job)
        if left is not None:
            parts.append(f"{duration(left)} left")
        return " · ".join(parts)
    took = seconds_between(job.started_at, job.finished_at)
    if job.state == "done":
        return f"took {duration(took)}" if took is not None else "done"
    if job.state == "failed":
        return str((job.error or {}).get("message", "It stopped for an unknown reason."))
    return job.message or {
        "paused": "keeps its place; resume it when you like",
        "interrupted": "its process was lost",
        "uncertain": "nobody knows yet what became of it",
        "cancelled": "stopped as asked",
    }.get(job.state, "")


def job_actions(job: Job, *, log: bool = True) -> str:
    """The quiet actions that this job's state allows."""
    parts = []
    if job.state == "running" and job.kind == "train_image" and not job.asked:
        parts.append(button("Pause", "library-pause", look="quiet", id=job.id))
    if job.state in ("paused", "interrupted"):
        parts.append(button("Resume", "library-resume", look="quiet", id=job.id))
    if job.state in UNFINISHED and job.asked != "cancel":
        begun = job.kind == "train_image" and job.state in ("running", "paused", "interrupted")
        confirm = "Cancel this training?" if begun else ""
        parts.append(
            button("Cancel", "library-cancel", look="quiet", confirm=confirm, yes="Cancel the training",
                   detail="Try again goes on from its last checkpoint.", ids=[job.id])
        )  # fmt: skip
    if job.state in ("failed", "cancelled"):
        parts.append(button("Try again", "library-retry", look="quiet", id=job.id))
    if log and job.state != "queued":
        parts.append(go("Log", look="quiet", tab="library", section="queue", item=job.id))
    return f'<div class="actions">{"".join(parts)}</div>' if parts else ""


def job_card(studio: Studio, job: Job, *, extra: str = "", log: bool = True) -> str:
    """What it makes, one sentence of state, a true bar, quiet actions."""
    running = job.state == "running"
    progress = bar(job.step, job.total, f"Progress of {job.title}") if running else ""
    hint = ""
    if job.state == "failed" and job.error:
        reference = f" Reference {esc(job.error['reference'])}." if job.error.get("reference") else ""
        hint = f'<p class="hint">{esc(job.error.get("hint", ""))}{reference}</p>'
    about = esc(job.message) if running and job.message else ""
    note = f'<p class="hint">{about}</p>' if about else ""
    return (
        f'<article class="card job {esc(job.state)}" data-job="{job.id}" aria-label="{esc(job.title)}">'
        f'<div class="row between"><h3>{esc(job.title)}</h3>{state_chip(job)}</div>'
        f'<p class="state">{esc(state_sentence(studio, job))}</p>{progress}{hint}{note}{extra}'
        f"{job_actions(job, log=log)}</article>"
    )


def log_view(studio: Studio, job: Job, *, opened: bool = False) -> str:
    """The end of the job's log; it follows the end and keeps the reader's place."""
    text = studio.jobs.log(job.id, tail_bytes=LOG_BYTES).strip() or "Nothing yet."
    body = f'<div class="log" tabindex="0" role="log" aria-label="Log"><pre>{esc(text)}</pre></div>'
    return disclosure("Log", body, name=f"log-{job.id}", opened=opened)


def item_tile(item: Item, *, selectable: bool = False) -> str:
    """A finished picture: opens large, can be starred."""
    star = {
        "type": "button", "class": "star", "data-do": "images-star", "aria-label": "Star",
        "aria-pressed": str(item.starred).lower(),
        "data-with": json.dumps({"ids": [item.id], "on": not item.starred}),
    }  # fmt: skip
    return (
        f'<figure class="tile" data-id="{item.id}" data-full="{media("item", item.id)}" '
        f'data-side="fragment/item/{item.id}">'
        f"{_select(item.id, item.prompt) if selectable else ''}"
        f'<button type="button" class="open" data-open>'
        f"{picture(media('item', item.id, thumbnail=True), item.prompt)}</button>"
        f"<button{attributes(star)}></button></figure>"
    )


def sample_tile(sample_id: int, prompt: str, step: int) -> str:
    """A sample of a training, with the step it was drawn at."""
    return (
        f'<figure class="tile" data-full="{media("sample", sample_id)}">'
        f'<button type="button" class="open" data-open>{picture(media("sample", sample_id), prompt)}</button>'
        f"<figcaption>{'without' if step == 0 else f'step {number(step)}'}</figcaption></figure>"
    )


def grid(tiles: Sequence[str], *, name: str = "", more: str = "", wide: bool = False) -> str:
    """Tiles in a grid; `more` is the next page's address, fetched when it is near."""
    given = {"class": "grid wide" if wide else "grid", "id": name or None, "data-grid": name or None}
    sentinel = f'<div class="more" data-more="{esc(more)}" aria-hidden="true"></div>' if more else ""
    return f"<div{attributes(given)}>{''.join(tiles)}</div>{sentinel}"


def selection_bar(name: str, actions: str) -> str:
    """Appears when something of that grid is selected; says how many."""
    return (
        f'<div class="selection" data-selection-of="{esc(name)}" hidden>'
        f'<span class="count" aria-live="polite"></span><div class="actions">{actions}'
        f'<button type="button" class="button quiet" data-unselect="{esc(name)}">Clear</button></div></div>'
    )


def select_all(name: str) -> str:
    """A button that selects every tile of that grid which is shown."""
    given = {"type": "button", "class": "button quiet", "data-select-all": name}
    return f"<button{attributes(given)}>Select all shown</button>"


StepState = Literal["done", "now", "next"]


def way(steps: Sequence[tuple[StepState, str, str, str]]) -> str:
    """A numbered way: (state, title, sentence, HTML of what to do or see)."""
    rows = []
    for number_, (state, title, text, body) in enumerate(steps, start=1):
        mark = {"done": "done", "now": "now", "next": "next"}[state]
        rows.append(
            f'<li class="{mark}"{attributes({"aria-current": "step" if state == "now" else None})}>'
            f'<span class="mark" aria-hidden="true">{"✓" if state == "done" else number_}</span><div>'
            f'<div class="row"><h3>{esc(title)}</h3><span class="hint">{mark if state != "now" else ""}</span></div>'
            f"<p>{esc(text)}</p>{body}</div></li>"
        )
    return f'<ol class="way">{"".join(rows)}</ol>'


def when(at: str | None) -> str:
    """A quiet time."""
    return f'<span class="hint">{moment(at)}</span>'


def _select(shown_id: int, alt: str) -> str:
    return (
        f'<label class="pick"><input type="checkbox" data-pick="{shown_id}" '
        f'aria-label="Select {esc(alt[:80])}"></label>'
    )
