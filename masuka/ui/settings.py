"""Settings: keys, where things are kept, backups, diagnostics, what the built-in model is."""

from __future__ import annotations

from masuka import __version__
from masuka.pocket import WORDS
from masuka.studio import Studio
from masuka.ui import health, keys, links, people, storage
from masuka.ui.kit import Region, Tab
from masuka.ui.markup import card, download, esc, facts
from masuka.ui.view import View


def draw_help(studio: Studio, view: View) -> str:
    """Diagnostics, and the version."""
    bundle = download("Download diagnostics", "download/diagnostics")
    text = '<p class="hint">Versions, machine, findings and the end of the log. No keys, no pictures, no prompts.</p>'
    version = f'<p class="hint">masuka {esc(__version__)}</p>'
    return card(f'{text}<div class="actions">{bundle}</div>{version}', title="Diagnostics")


def draw_pocket(studio: Studio, view: View) -> str:
    """What the built-in model can and cannot do."""
    rows = [(name, esc(", ".join(words))) for name, words in WORDS.items()]
    text = (
        "<p>Pocket draws little robots at 128 × 128 pixels. It is a real FLUX model, made very small, so that "
        "everything here works on any machine. It knows the words below and few others; of what you teach it, "
        "it learns shape, colour and pattern.</p>"
    )
    return card(text + facts(rows), title="The built-in model, Pocket")


TAB = Tab(
    "settings",
    "Settings",
    columns=(
        (
            *storage.REGIONS,
            *health.REGIONS,
            *keys.REGIONS,
        ),
        (
            *people.REGIONS,
            *links.REGIONS,
            Region("help", draw_help, live=False),
            Region("pocket", draw_pocket, live=False),
        ),
    ),
    actions={**keys.ACTIONS, **links.ACTIONS, **people.ACTIONS, **storage.ACTIONS},
    layout="halves",
)
