"""Settings of MASUKA 2, with their keys decrypted where that is possible."""

from __future__ import annotations

import base64
import hashlib
from functools import partial
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken

from masuka.config import SECRET_NAMES
from masuka.errors import NotFound
from masuka.requests.actor import Actor
from masuka.store import secrets, settings
from masuka.store.legacy.importing import Import
from masuka.store.legacy.old import OldRow

KEY_FILES = ("encryption.key", "../encryption.key", "../backend/encryption.key")
"""Where MASUKA 2 kept a Fernet key, seen from its database."""


def import_settings(job: Import, *, secret_key: str | None) -> None:
    """Settings; of one that is there twice the newest counts, and ours before theirs.

    What cannot be decrypted is kept as it is and marked to be entered again; a later
    import with the right SECRET_KEY opens it.
    """
    ciphers = old_ciphers(job.old.source, secret_key)
    rows = job.each("app_settings")
    for row in sorted(rows, key=lambda row: (row.time("updated_at") or "", row.id)):
        if not row.text("key"):
            job.counts[row.table].left_out += 1
            row.odd("it has no name and was left out")
            continue
        new = job.once(row, ("user_id", "key", "updated_at"), partial(_add, job, row, ciphers))
        if not new:
            _open_later(job, row, ciphers)
    job.enter_again += sorted({
        setting.key
        for user_id in {job.owner_of(row).user_id for row in rows}
        for setting in settings.list_settings(job.store, actor=Actor(user_id, "owner"))
        if setting.needs_reentry
    })  # fmt: skip


def old_ciphers(source: Path, secret_key: str | None) -> list[Fernet]:
    """Every cipher the old values may have been made with.

    SECRET_KEY was used in several ways over time: as a Fernet key, hashed, or cut to 32 bytes.
    """
    keys: list[bytes] = []
    if secret_key:
        raw = secret_key.strip().encode()
        keys += [raw, base64.urlsafe_b64encode(hashlib.sha256(raw).digest())]
        keys += [base64.urlsafe_b64encode(raw[:32].ljust(32, fill)) for fill in (b"\0", b"0", b"=")]
    for name in KEY_FILES:
        file = (source.parent / name).resolve()
        if file.is_file() and file.stat().st_size < 200:
            keys.append(file.read_bytes().strip())
    ciphers: list[Fernet] = []
    for key in dict.fromkeys(keys):
        try:
            ciphers.append(Fernet(key))
        except ValueError:
            continue
    return ciphers


def _add(job: Import, row: OldRow, ciphers: list[Fernet]) -> int | None:
    """1 when the setting was written; None when ours is kept instead."""
    actor, key = job.owner_of(row), row.text("key")
    try:
        mine = settings.get_setting(job.store, actor=actor, key=key)
    except NotFound:
        mine = None
    if mine is not None and not mine.needs_reentry and (actor.user_id, key) not in job.settings_written:
        row.odd(f"{key} is set here already; ours is kept")
        return None
    if (actor.user_id, key) in job.settings_written:
        row.odd(f"{key} was there more than once; the newest counts")
    job.settings_written.add((actor.user_id, key))
    stored, encrypted, closed = _stored(job, row, ciphers)
    settings.put_setting(
        job.store, user_id=actor.user_id, key=key, stored=stored, encrypted=encrypted, needs_reentry=closed,
        updated_at=row.time("updated_at"),
    )  # fmt: skip
    return 1


def _stored(job: Import, row: OldRow, ciphers: list[Fernet]) -> tuple[str, bool, bool]:
    """The text to store, whether it is encrypted, and whether nobody here can read it."""
    value, key = row.text("value"), row.text("key")
    if row.flag("is_encrypted", False) and value:
        opened = _opened(value, ciphers)
        if opened is None:
            return value, True, True
        return secrets.encrypt(job.store.secrets, opened), True, False
    if key in SECRET_NAMES and value:
        return secrets.encrypt(job.store.secrets, value), True, False
    return value, False, False


def _open_later(job: Import, row: OldRow, ciphers: list[Fernet]) -> None:
    """Opens a setting that an earlier import could not read."""
    actor, key = job.owner_of(row), row.text("key")
    try:
        mine = settings.get_setting(job.store, actor=actor, key=key)
    except NotFound:
        return
    if mine.needs_reentry:
        stored, encrypted, closed = _stored(job, row, ciphers)
        if not closed:
            settings.put_setting(
                job.store, user_id=actor.user_id, key=key, stored=stored, encrypted=encrypted
            )


def _opened(token: str, ciphers: list[Fernet]) -> str | None:
    for cipher in ciphers:
        try:
            return cipher.decrypt(token.encode()).decode()
        except (InvalidToken, UnicodeError):
            continue
    return None
