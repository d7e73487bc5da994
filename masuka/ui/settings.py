"""Settings: keys, where things are kept, backups, diagnostics, what the built-in model is."""

from __future__ import annotations

from datetime import UTC, datetime

from masuka import __version__
from masuka.pocket import WORDS
from masuka.store.migrations import runner
from masuka.studio import Studio
from masuka.ui import keys, links, people
from masuka.ui.kit import Outcome, Payload, Region, Tab
from masuka.ui.markup import button, card, download, esc, facts
from masuka.ui.view import View
from masuka.ui.words import gib, moment, plural

BACKUPS_SHOWN = 8


def draw_storage(studio: Studio, view: View) -> str:
    """Where everything lies, and how much room is left."""
    workspace = studio.workspace
    rows = [
        ("Workspace", f"<code>{esc(workspace.root)}</code>"),
        ("Database", f"<code>{esc(studio.store.path)}</code>"),
        ("Pictures", f"<code>{esc(workspace.media)}</code>"),
        ("LoRAs", f"<code>{esc(workspace.adapters)}</code>"),
        ("Models", f"<code>{esc(workspace.models)}</code>"),
        ("Free disk", gib(studio.machine().disk_free_gib)),
    ]
    notices = "".join(f'<div class="notice warn"><p>{esc(n)}</p></div>' for n in studio.notices)
    empty_bin = button(
        "Empty the bin", "settings-empty-bin", confirm="Delete everything in the bin for good?",
        detail="Pictures that were deleted before can then not be brought back.", yes="Empty it",
    )  # fmt: skip
    kept = '<p class="hint">Deleted pictures stay in the bin until it is emptied.</p>'
    return card(f'{facts(rows)}{notices}{kept}<div class="actions">{empty_bin}</div>', title="Storage")


def draw_backups(studio: Studio, view: View) -> str:
    """Backups of the database, and a new one."""
    found = runner.list_backups(studio.workspace.backups)[:BACKUPS_SHOWN]
    rows = "".join(
        f"<div><div><h3>{esc(file.name)}</h3><p>{moment(_changed_at(file.stat().st_mtime))}</p></div>"
        f"<span class='hint'>{gib(file.stat().st_size / 2**30)}</span></div>"
        for file in found
    )
    listed = (
        f'<div class="list bare">{rows}</div>'
        if rows
        else '<p class="hint">No backup yet. One is made before each migration.</p>'
    )
    now = button("Back up now", "settings-backup", name="settings-backup")
    hint = '<p class="hint">To bring one back, stop the app and run <code>masuka db restore</code>.</p>'
    return card(f'{listed}{hint}<div class="actions">{now}</div>', title="Backups of the database")


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


def on_backup(studio: Studio, payload: Payload, view: View) -> Outcome:
    """A fresh, checked copy of the database."""
    studio.actor.must_own()
    file = runner.backup(studio.store.path, backups=studio.workspace.backups)
    return Outcome(f"Saved as {file.name}.")


def on_empty_bin(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The deleted pictures are gone for good."""
    return Outcome(f"{plural(studio.library.purge(), 'picture')} deleted for good.")


def _changed_at(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


TAB = Tab(
    "settings",
    "Settings",
    columns=(
        (
            Region("storage", draw_storage),
            Region("backups", draw_backups, always=True),
            Region("pocket", draw_pocket, live=False),
        ),
        (
            *people.REGIONS,
            *links.REGIONS,
            *keys.REGIONS,
            Region("help", draw_help, live=False),
        ),
    ),
    actions={**keys.ACTIONS, **links.ACTIONS, **people.ACTIONS, "backup": on_backup, "empty-bin": on_empty_bin},
    layout="halves",
)
