"""Library: pictures, characters, LoRAs and the whole queue."""

from __future__ import annotations

from masuka.errors import InvalidInput
from masuka.store.characters import Character
from masuka.store.jobs import Job
from masuka.studio import Studio
from masuka.ui import adapters
from masuka.ui.cards import (
    UNFINISHED,
    grid,
    item_tile,
    job_actions,
    job_card,
    log_view,
    select_all,
    selection_bar,
    state_chip,
    state_sentence,
    when,
)
from masuka.ui.images import PAGE, first_items
from masuka.ui.kit import Outcome, Payload, Region, Tab, id_of, ids_of
from masuka.ui.markup import address, attributes, button, card, empty, esc, go
from masuka.ui.shell import covers, face
from masuka.ui.view import View
from masuka.ui.words import plural

SECTIONS = (("pictures", "Pictures"), ("characters", "Characters"), ("models", "LoRAs"), ("queue", "Queue"))
JOBS_SHOWN = 60
MOST_EXPORTED = 2000
"""Pictures in one zip; their numbers must fit into an address."""


def draw_head(studio: Studio, view: View) -> str:
    """Title and sections; search and filter where there are pictures."""
    section = _section(view)
    links = "".join(
        f'<a href="{address(section=name)}" data-go{attributes({"aria-current": "page" if name == section else None})}>{title}</a>'
        for name, title in SECTIONS
    )
    head = f'<div class="title"><div><h1>Library</h1></div>{_filters(view) if section == "pictures" else ""}</div>'
    return f'{head}<nav class="sections" aria-label="Sections">{links}</nav>'


def draw_body(studio: Studio, view: View) -> str:
    """The chosen section."""
    section = _section(view)
    return {"pictures": _pictures, "characters": _characters, "models": adapters.draw_list, "queue": _queue}[section](
        studio, view
    )


def draw_selected(studio: Studio, view: View) -> str:
    """What can be done with what is selected."""
    section = _section(view)
    if section == "pictures":
        return selection_bar(
            "library-pictures",
            select_all("library-pictures")
            + button("Star", "images-star", look="quiet", selection="library-pictures", on=True)
            + button("Download", "library-export", look="quiet", selection="library-pictures")
            + button("Delete", "images-delete", look="danger", selection="library-pictures"),
        )
    if section == "queue":
        return selection_bar(
            "library-jobs",
            select_all("library-jobs")
            + button("Cancel", "library-cancel", look="quiet", selection="library-jobs",
                     confirm="Cancel {count} jobs?", detail="Those that ended already stay as they are.", yes="Cancel them")
            + button("Delete", "library-delete-jobs", look="danger", selection="library-jobs",
                     confirm="Delete {count} jobs from the list?",
                     detail="What still runs is stopped first. Pictures and LoRAs that were made stay.", yes="Delete"),
        )  # fmt: skip
    return ""


def on_cancel(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The jobs, asked to stop."""
    count = studio.jobs.cancel(ids_of(payload))
    return Outcome(f"{plural(count, 'job')} stopping." if count else "They had ended already.")


def on_pause(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The job, asked to keep its place and leave."""
    studio.jobs.pause(id_of(payload))
    return Outcome("It keeps its place and leaves.")


def on_resume(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The job is in the queue again."""
    studio.jobs.resume(id_of(payload))
    return Outcome("It goes on from where it was.")


def on_retry(studio: Studio, payload: Payload, view: View) -> Outcome:
    """A new attempt."""
    job = studio.jobs.retry(id_of(payload))
    return Outcome("It is in the queue again.", go={"run": job.run_id} if job.run_id else {})


def on_delete_jobs(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The jobs are off the list; what ran was stopped."""
    return Outcome(f"{plural(studio.jobs.delete(ids_of(payload)), 'job')} deleted.", go={"item": None})


def on_export(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The address of a zip of the chosen pictures; the page fetches it."""
    ids = list(dict.fromkeys(ids_of(payload)))
    if len(ids) > MOST_EXPORTED:
        raise InvalidInput(f"{len(ids):,} pictures are chosen.", f"Choose at most {MOST_EXPORTED:,}.")
    for item_id in ids:
        studio.library.get(item_id)
    return Outcome(fetch="download/items?ids=" + ",".join(map(str, ids)))


def on_delete_character(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The character is forgotten; what belongs to it stays."""
    studio.characters.delete(id_of(payload))
    return Outcome("The character is deleted.", go={"character": None})


def _section(view: View) -> str:
    """The section that is shown; another tab's is none of this one."""
    return view.section if view.section in dict(SECTIONS) else "pictures"


def _filters(view: View) -> str:
    return (
        '<div class="row"><div class="field"><label class="only-read" for="library-search">Search in prompts</label>'
        f'<input id="library-search" type="search" data-view-key="q" placeholder="Search in prompts" value="{esc(view.query)}"></div>'
        f'<label class="switch"><input type="checkbox" data-view-key="star"{" checked" if view.starred else ""}>'
        "<span>Starred only</span></label></div>"
    )


def _pictures(studio: Studio, view: View) -> str:
    found = first_items(studio, view, starred=view.starred or None, query=view.query)
    if not found:
        filtered = view.query or view.starred or view.character
        text = "No picture matches." if filtered else "Nothing drawn yet."
        return card(empty("library", text, go("Draw some", look="primary", tab="images")))
    more = ""
    if len(found) >= PAGE or view.until:
        more = "fragment" + address(
            before=found[-1].id, character=view.character, star=int(view.starred), q=view.query, pick=1
        ).replace("?", "/items?", 1)
    return grid([item_tile(i, selectable=True) for i in found], name="library-pictures", more=more, wide=True)


def _characters(studio: Studio, view: View) -> str:
    known = studio.characters.list()
    if not known:
        make = go("Create a data set", look="primary", tab="datasets")
        return card(empty("library", "No character yet. A data set makes one.", make))
    pictures = covers(studio)
    cards = "".join(_character_card(studio, c, face(pictures.get(c.id), 48)) for c in known)
    return f'<div class="cards">{cards}</div>'


def _character_card(studio: Studio, character: Character, image: str) -> str:
    adapters = studio.models.adapters(character_id=character.id)
    links = go("Choose", look="plain", tab="images" if adapters else "home", character=character.id)
    delete = button(
        "Delete", "library-delete-character", look="danger", id=character.id, confirm=f"Delete {character.name}?",
        detail="Its data sets, LoRAs and pictures stay and lose the link.", yes="Delete",
    )  # fmt: skip
    return (
        f'<article class="card"><div class="row">{image}<div><h3>{esc(character.name)}</h3>'
        f'<p class="hint">{esc(character.trigger_word)} · {plural(len(adapters), "LoRA")}</p></div></div>'
        f'<div class="actions">{links}{delete}</div></article>'
    )


def _queue(studio: Studio, view: View) -> str:
    jobs = studio.jobs.list(character_id=view.character, limit=JOBS_SHOWN)
    if not jobs:
        return card(empty("library", "Nothing runs and nothing waits."))
    chosen = next((j for j in jobs if j.id == view.item), None)
    running = "".join(
        job_card(studio, j, extra=log_view(studio, j, opened=j == chosen), log=False)
        for j in jobs
        if j.state in UNFINISHED
    )
    ended = "".join(_job_row(studio, j, opened=j == chosen) for j in jobs)
    rows = f'<div class="list" data-grid="library-jobs">{ended}</div>'
    return f'<div class="stack">{running}{card(rows, title="All jobs")}</div>'


def _job_row(studio: Studio, job: Job, *, opened: bool) -> str:
    log = log_view(studio, job, opened=True) if opened and job.state not in UNFINISHED else ""
    actions = "" if job.state in UNFINISHED else job_actions(job)
    hint = f" {esc((job.error or {}).get('hint', ''))}" if job.state == "failed" else ""
    return (
        f'<div data-id="{job.id}" data-job-row="{job.id}"><label class="pick" style="position:static;opacity:1">'
        f'<input type="checkbox" data-pick="{job.id}" aria-label="Select {esc(job.title)}"></label>'
        f"<div><h3>{esc(job.title)}</h3><p>{esc(state_sentence(studio, job))}{hint} · {when(job.created_at)}</p>{log}</div>"
        f'<div class="row">{state_chip(job)}{actions}</div></div>'
    )


TAB = Tab(
    "library",
    "Library",
    columns=(
        (
            Region("head", draw_head, live=False),
            *adapters.ABOVE,
            Region("body", draw_body, waiting='<div class="skeleton"></div>'),
            Region("selected", draw_selected, live=False),
            *adapters.BELOW,
        ),
    ),
    actions={
        "cancel": on_cancel,
        "pause": on_pause,
        "resume": on_resume,
        "retry": on_retry,
        "delete-jobs": on_delete_jobs,
        "export": on_export,
        "delete-character": on_delete_character,
        **adapters.ACTIONS,
    },
)
