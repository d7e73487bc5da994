"""Settings, the part about what is kept: the vault, where files lie, backups."""

from __future__ import annotations

from datetime import UTC, datetime

from masuka.hosting.runtime import detect
from masuka.store.migrations import runner
from masuka.studio import Studio
from masuka.ui.kit import Outcome, Payload, Region
from masuka.ui.markup import address, button, card, chip, esc, facts
from masuka.ui.view import View
from masuka.ui.words import gib, moment, plural
from masuka.vault.status import Branch, Status

BACKUPS_SHOWN = 8
_WORDS = {
    "saved": ("saved", "good"),
    "written": ("written, not yet confirmed", "warn"),
    "unsaved": ("changes not saved yet", "warn"),
    "saving": ("saving", "busy"),
    "unreachable": ("not reachable", "bad"),
    "passive": ("kept by another MASUKA", ""),
}
_NEVER = "never"


def saved_words(studio: Studio) -> str:
    """How sure what was done here is, in a few words of HTML; '' where it always is."""
    status = studio.vault.status()
    if status.state == "off":
        return "" if detect().keeps_files else "Nothing here outlives the session"
    if status.state == "unreachable":
        return f"Not saved since {moment(status.saved_at or status.written_at) or _NEVER}"
    if status.forked:
        return "Another studio is in the vault: choose one" if status.apart else "Two branches: choose one"
    waiting = f", {plural(status.files, 'file')} waiting" if status.files else ""
    if status.saved_at and status.sure:
        return f"Saved {moment(status.saved_at)}{waiting}"
    if status.written_at:
        return f"Written {moment(status.written_at)}, not confirmed"
    return "Not saved yet"


def pill(studio: Studio) -> str:
    """The same for the header, with a way to the card; '' for those who only look."""
    words = saved_words(studio) if studio.actor.role != "viewer" else ""
    return f'<a class="pill optional" href="{address(tab="settings")}" data-go>{words}</a>' if words else ""


def draw_vault(studio: Studio, view: View) -> str:
    """What is kept elsewhere, since when, and what is on its way."""
    status = studio.vault.status()
    if status.state == "off":
        text = (
            "<p>Everything is on this machine alone. Name a folder that is kept (a mounted Drive, a volume, another "
            "disk) in <code>MASUKA_VAULT</code>, and MASUKA keeps all of it there.</p>"
        )
        return card(text, title="Vault")
    rows = [
        ("Folder", f"<code>{esc(status.folder)}</code>"),
        ("Last confirmed save", moment(status.saved_at) or _NEVER),
        ("Written, not confirmed", "" if status.sure else moment(status.written_at)),
        ("Changed since", moment(status.unsaved_since_at)),
        ("On their way there", f"{plural(status.files, 'file')}, {gib(status.bytes / 2**30)}" if status.files else ""),
        ("On their way back", plural(status.missing, "file") if status.missing else ""),
    ]
    told = "" if not status.why else f'<div class="notice warn"><p>{esc(status.why)}</p></div>'
    now = button("Save now", "settings-save-now", name="settings-save-now")
    return card(
        facts(rows) + told + _branches(status) + f'<div class="actions">{now}</div>',
        title="Vault", aside=chip(*_WORDS[status.state]),
    )  # fmt: skip


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
        detail="Pictures that were deleted before can then not be brought back, from the vault neither.",
        yes="Empty it",
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


def on_save_now(studio: Studio, payload: Payload, view: View) -> Outcome:
    """A save of the database; files follow in the background."""
    status = studio.vault.save(files=False, timeout_s=30)
    if status.sure:
        return Outcome("Saved.")
    return Outcome("Written to the vault. It is confirmed when it has arrived.")


def on_choose_branch(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The branch with which the studio goes on; the others are kept."""
    if studio.vault.choose(str(payload.get("key", ""))):
        return Outcome("This studio goes on as it is. The other branch stays in the vault.")
    return Outcome("Stop MASUKA and start it again: it opens with the other branch then.")


def on_backup(studio: Studio, payload: Payload, view: View) -> Outcome:
    """A fresh, checked copy of the database."""
    studio.actor.must_own()
    file = runner.backup(studio.store.path, backups=studio.workspace.backups)
    return Outcome(f"Saved as {file.name}.")


def on_empty_bin(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The deleted pictures are gone for good."""
    return Outcome(f"{plural(studio.library.purge(), 'picture')} deleted for good.")


def _branches(status: Status) -> str:
    if status.chosen:
        return '<div class="notice"><p>Another branch is chosen. It opens at the next start of MASUKA.</p></div>'
    if not status.forked:
        return ""
    if status.apart:
        apart = "The vault goes on from elsewhere than what is open here. Choose what to go on with; nothing is lost."
        return f'<div class="notice warn"><p>{apart}</p></div><div class="list bare">{"".join(map(_branch, status.branches))}</div>'
    text = (
        '<div class="notice warn"><p>Two machines saved here without knowing of each other. Both branches are kept '
        "whole. Choose the one to go on with; the other stays in the vault.</p></div>"
    )
    return f'{text}<div class="list bare">{"".join(map(_branch, status.branches))}</div>'


def _branch(branch: Branch) -> str:
    name = "The one open here" if branch.ours else "The other one"
    choose = button(
        "Go on with this", "settings-choose-branch", key=branch.key,
        confirm="Go on with this branch?", detail="The other one stays in the vault and is no longer asked about.",
        yes="Go on with it",
    )  # fmt: skip
    about = f"{moment(branch.created_at)}, {gib(branch.bytes / 2**30)}"
    return f"<div><div><h3>{name}</h3><p>{about}</p></div>{choose}</div>"


def _changed_at(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


REGIONS = (
    Region("vault", draw_vault, always=True),
    Region("storage", draw_storage),
    Region("backups", draw_backups, always=True),
)
ACTIONS = {
    "save-now": on_save_now,
    "choose-branch": on_choose_branch,
    "backup": on_backup,
    "empty-bin": on_empty_bin,
}
