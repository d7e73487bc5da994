"""Encryption of stored settings, with a key that lies apart from the database."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken

KEY_NAME = "settings.key"


def encrypt(folder: Path, text: str) -> str:
    """The text as a token that only the folder's key opens; makes it if needed."""
    return _cipher(folder).encrypt(text.encode()).decode()


def decrypt(folder: Path, token: str) -> str | None:
    """The text of a token, or None when another key made it."""
    try:
        return _cipher(folder).decrypt(token.encode()).decode()
    except InvalidToken:
        return None


def _cipher(folder: Path) -> Fernet:
    return Fernet(_key(folder / KEY_NAME))


def _key(file: Path) -> bytes:
    """The key of this installation; two that start together agree on one."""
    if not file.exists():
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = file.with_name(f".{file.name}.{os.getpid()}.{os.urandom(4).hex()}")
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            out.write(Fernet.generate_key())
            out.flush()
            os.fsync(out.fileno())
        try:
            # Of two that start together the first one's key stays, for both.
            with contextlib.suppress(FileExistsError):
                os.link(part, file)
        finally:
            part.unlink()
    return file.read_bytes().strip()
