"""The parts of one data set, as links: its pictures, its captions, what a training reads, export."""

from __future__ import annotations

from masuka.studio import Studio
from masuka.ui.markup import address, attributes, empty, go
from masuka.ui.view import View

TITLES = {
    "": "Pictures",
    "captions": "Captions",
    "trainer": "What the trainer sees",
    "export": "Export",
    "settings": "Settings",
}


def draw_parts(studio: Studio, view: View) -> str:
    """Links to the parts of the chosen set; '' where none is chosen."""
    if view.dataset is None:
        return ""
    links = "".join(
        f'<a href="{address(part=name or None)}" data-go'
        f"{attributes({'aria-current': 'page' if name == view.part else None})}>{title}</a>"
        for name, title in TITLES.items()
        if name != "settings" or studio.actor.role != "viewer"
    )
    return f'<nav class="sections parts" aria-label="Parts of this set">{links}</nav>'


def nothing_yet(studio: Studio, sentence: str) -> str:
    """What stands in a part of a set without pictures, with the way to add some."""
    add = go("Add pictures", look="primary", part="add") if studio.actor.role != "viewer" else ""
    return empty("datasets", sentence, add)
