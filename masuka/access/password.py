"""Passwords: argon2id hashes; bcrypt ones of MASUKA 2 still open and are renewed.

One hash takes 64 MiB, so that of all who try at once only two are looked at at a time.
"""

from __future__ import annotations

import logging
import secrets
import threading
import unicodedata

import bcrypt
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError

from masuka.errors import InvalidInput
from masuka.requests.text import without_control
from masuka.store import users
from masuka.store.connect import Store

log = logging.getLogger(__name__)

SHORTEST, LONGEST = 10, 200
_BCRYPT_BYTES = 72
"""All that bcrypt ever looked at; its library refuses more instead of cutting it off."""
_AT_ONCE = threading.BoundedSemaphore(2)
_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"
"""Without those that are read as one another."""


class Passwords:
    """Hashes and checks; the cost is RFC 9106's for memory-constrained machines."""

    def __init__(self, *, memory_kib: int = 65536, time_cost: int = 3, parallelism: int = 4) -> None:
        self._argon2 = PasswordHasher(time_cost=time_cost, memory_cost=memory_kib, parallelism=parallelism)
        self._nobodys = ""

    def hash(self, password: str) -> str:
        """The argon2id hash of a password."""
        with _AT_ONCE:
            return self._argon2.hash(_bytes(password))

    def check(self, password: str, stored: str | None) -> bool:
        """Whether the password is the stored hash's; takes as long where there is none."""
        if stored is None:
            self._nobodys = self._nobodys or self.hash(secrets.token_urlsafe(16))
        known = stored or self._nobodys
        if len(password) > LONGEST:
            return False
        with _AT_ONCE:
            right = _bcrypt(password, known) if known.startswith("$2") else self._is_argon2(password, known)
        return right and stored is not None

    def outdated(self, stored: str) -> bool:
        """Whether the hash should be made again from the password that was just right."""
        return stored.startswith("$2") or self._argon2.check_needs_rehash(stored)

    def _is_argon2(self, password: str, stored: str) -> bool:
        try:
            return self._argon2.verify(stored, _bytes(password))
        except VerifyMismatchError:
            return False
        except (InvalidHashError, VerificationError):
            log.warning("a stored password hash cannot be read")
            return False


def _bytes(password: str) -> bytes:
    """One spelling of each letter: keyboards differ in how they compose é."""
    return unicodedata.normalize("NFC", password).encode(errors="replace")


def _bcrypt(password: str, stored: str) -> bool:
    given = password.encode(errors="replace")[:_BCRYPT_BYTES]
    if b"\0" in given:
        return False
    try:
        return bcrypt.checkpw(given, stored.encode())
    except ValueError:
        log.warning("a stored password hash cannot be read")
        return False


def clean_password(text: str, *, field: str = "password") -> str:
    """A password of 10 to 200 characters; the sentence of a refusal never repeats it."""
    if without_control(text) != text:
        raise InvalidInput("The password holds control characters.", "Type it again.", field=field)
    if not SHORTEST <= len(text) <= LONGEST:
        raise InvalidInput(
            f"The password has {len(text):,} characters.", f"Use {SHORTEST} to {LONGEST}.", field=field
        )
    if len(set(text)) < 4:
        raise InvalidInput(
            "The password is a few letters again and again.", "Use a sentence, or several words.", field=field
        )
    return text


def generate() -> str:
    """A new password of about 79 random bits, in four groups of four letters."""
    return "-".join("".join(secrets.choice(_LETTERS) for _ in range(4)) for _ in range(4))


def owner_has_one(store: Store) -> bool:
    """Whether an owner can sign in by password: nothing public is opened before that."""
    return users.has_owner_password(store)
