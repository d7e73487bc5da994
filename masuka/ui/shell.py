"""What every tab shows: the header with its chips, and the tabs themselves."""

from __future__ import annotations

from masuka import __version__
from masuka.store.characters import Character
from masuka.studio import Studio
from masuka.ui import links
from masuka.ui.kit import Region
from masuka.ui.markup import address, attributes, esc, media
from masuka.ui.storage import pill
from masuka.ui.view import TABS, View
from masuka.ui.words import duration, gib, plural

TITLES = {name: name.capitalize() for name in TABS}


def character_of(studio: Studio, view: View) -> Character | None:
    """The character that was chosen in this browser; None when none is, or it is gone."""
    return next((c for c in studio.characters.list() if c.id == view.character), None)


def covers(studio: Studio) -> dict[int, int]:
    """For each character its picture: the cover of its newest data set."""
    found: dict[int, int] = {}
    for dataset in studio.datasets.list():
        if dataset.character_id is not None and dataset.cover_picture_id is not None:
            found.setdefault(dataset.character_id, dataset.cover_picture_id)
    return found


def face(picture_id: int | None, size: int = 26) -> str:
    """A small round picture; '' where there is none."""
    if picture_id is None:
        return ""
    src = media("picture", picture_id, thumbnail=True)
    return f'<img src="{src}" alt="" width="{size}" height="{size}">'


def draw_header(studio: Studio, view: View) -> str:
    """Name, character, machine and queue."""
    return (
        f'<a class="brand" href="{address(tab="home")}" data-go title="masuka {__version__}">masuka</a>'
        f'{_characters(studio, view)}<div class="header-end">{pill(studio)}{_link(studio)}{_machine(studio)}{_queue(studio)}</div>'
    )


def draw_nav(studio: Studio, view: View) -> str:
    """The tabs as links, so that each can be opened, shared and found by keyboard."""
    links = "".join(f'<a href="{address(tab=name)}" data-go>{TITLES[name]}</a>' for name in TABS)
    return f'<nav aria-label="Tabs">{links}</nav>'


def _characters(studio: Studio, view: View) -> str:
    known = studio.characters.list()
    if not known:
        return ""
    chosen = next((c for c in known if c.id == view.character), None)
    pictures = covers(studio)
    rows = []
    for character in [None, *known]:
        current = {"aria-current": "true" if character == chosen else None}
        name = character.name if character else "All characters"
        href = address(character=character.id if character else None)
        image = face(pictures.get(character.id), 28) if character else ""
        rows.append(f'<a href="{href}" data-go{attributes(current)}>{image}<span>{esc(name)}</span></a>')
    label = esc(chosen.name) if chosen else "All characters"
    image = face(pictures.get(chosen.id)) if chosen else ""
    return (
        f'<details class="menu"><summary class="pill" aria-label="Character: {label}">{image}'
        f'<span class="name">{label}</span></summary><div>{"".join(rows)}</div></details>'
    )


def _link(studio: Studio) -> str:
    """A warning once the link for collaborators has used up most of its month."""
    warning = links.warning_of(studio)
    return f'<a class="pill" href="{address(tab="settings")}" data-go>{esc(warning)}</a>' if warning else ""


def _machine(studio: Studio) -> str:
    machine = studio.machine()
    if machine.gpu:
        free = f"{machine.vram_free_gib:,.1f} of {gib(machine.vram_total_gib)} free"
        return f'<span class="pill optional">{esc(machine.gpu)} · {free}</span>'
    return f'<span class="pill optional">No GPU · {gib(machine.ram_free_gib)} memory free</span>'


def _queue(studio: Studio) -> str:
    running = studio.jobs.list(states=["running"], limit=20)
    waiting = studio.jobs.counts().get("queued", 0)
    href = address(tab="library", section="queue")
    if not running and not waiting:
        return f'<a class="pill" href="{href}" data-go>Nothing running</a>'
    text = f"{len(running)} running" if running else plural(waiting, "job") + " waiting"
    left = [s for job in running if (s := studio.jobs.eta_s(job)) is not None]
    if left:
        text += f" · {duration(max(left))}"
    elif running and waiting:
        text += f" · {waiting} waiting"
    done = [job.step / job.total for job in running if job.total]
    share = round(100 * sum(done) / len(done)) if done else 0
    return (
        f'<a class="pill" href="{href}" data-go>'
        f'<span class="ring" style="--p:{share}" aria-hidden="true"></span>{esc(text)}</a>'
    )


REGIONS = (
    Region("header", draw_header, always=True),
    Region(
        "nav",
        draw_nav,
        live=False,
        waiting=f'<nav aria-label="Tabs">{"".join(f"<a>{t}</a>" for t in TITLES.values())}</nav>',
    ),
)
