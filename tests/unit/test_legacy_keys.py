"""Settings and secrets of MASUKA 2, with and without the old key."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from masuka.config import Workspace
from masuka.requests.actor import Actor
from masuka.store import (
    characters,
    legacy,
    settings,
    users,
)
from masuka.store.connect import Store
from tests.unit.masuka2 import AT, installation

OWNER = Actor(1)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def store(workspace: Workspace) -> Iterator[Store]:
    with Store.open(workspace) as store:
        yield store


SECRET = "an old SECRET_KEY of more than thirty-two characters"


def ciphers() -> dict[str, tuple[Fernet, str]]:
    made = Fernet.generate_key()
    hashed = base64.urlsafe_b64encode(hashlib.sha256(SECRET.encode()).digest())
    cut = base64.urlsafe_b64encode(SECRET.encode()[:32])
    padded = base64.urlsafe_b64encode(b"short".ljust(32, b"0"))
    return {
        "the key itself": (Fernet(made), made.decode()),
        "hashed": (Fernet(hashed), SECRET),
        "cut": (Fernet(cut), SECRET),
        "padded": (Fernet(padded), "short"),
    }


@pytest.mark.parametrize("way", ciphers())
def test_encrypted_settings_open_with_the_old_key(
    way: str, store: Store, workspace: Workspace, tmp_path: Path
) -> None:
    cipher, secret_key = ciphers()[way]
    old = installation(
        tmp_path / "MASUKA",
        app_settings=[{"id": 2, "user_id": 1, "key": "HF_TOKEN", "value": cipher.encrypt(b"hf_canary").decode(),
                       "is_encrypted": 1, "updated_at": AT}],
    )  # fmt: skip
    if way == "the key itself":
        report = legacy.import_masuka2(store, old, workspace=workspace, secret_key=secret_key)
        assert report.enter_again == ()
    else:
        report = legacy.import_masuka2(store, old, workspace=workspace)
        assert report.enter_again == ("HF_TOKEN",)
        shut = settings.get_setting(store, actor=OWNER, key="HF_TOKEN")
        assert (shut.value, shut.needs_reentry) == ("", True)
        wrong = legacy.import_masuka2(store, old, workspace=workspace, secret_key="another")
        assert wrong.enter_again == ("HF_TOKEN",)
        assert not legacy.nothing_new(store, old, secret_key=secret_key)
        assert legacy.import_masuka2(store, old, workspace=workspace, secret_key=secret_key).enter_again == ()
    opened = settings.get_setting(store, actor=OWNER, key="HF_TOKEN")
    assert (opened.value, opened.encrypted, opened.needs_reentry) == ("hf_canary", True, False)
    assert b"hf_canary" not in store.path.read_bytes()


def test_the_key_file_beside_the_old_database_is_used(
    store: Store, workspace: Workspace, tmp_path: Path
) -> None:
    key = Fernet.generate_key()
    token = Fernet(key).encrypt(b"hf_canary").decode()
    old = installation(
        tmp_path / "MASUKA",
        app_settings=[
            {"id": 2, "user_id": 1, "key": "FAL_KEY", "value": token, "is_encrypted": 1, "updated_at": AT}
        ],
    )
    (tmp_path / "MASUKA/encryption.key").write_bytes(key)
    legacy.import_masuka2(store, old, workspace=workspace)
    assert settings.get_setting(store, actor=OWNER, key="FAL_KEY").value == "hf_canary"


def test_a_key_that_was_stored_in_the_open_is_encrypted(
    store: Store, workspace: Workspace, tmp_path: Path
) -> None:
    old = installation(
        tmp_path / "MASUKA",
        app_settings=[{"id": 2, "user_id": 1, "key": "HF_TOKEN", "value": "hf_open_canary", "is_encrypted": 0, "updated_at": AT}],
    )  # fmt: skip
    legacy.import_masuka2(store, old, workspace=workspace)
    setting = settings.get_setting(store, actor=OWNER, key="HF_TOKEN")
    assert (setting.value, setting.encrypted) == ("hf_open_canary", True)
    store.close()
    files = [p for p in store.path.parent.glob("masuka.db*") if p.is_file()]
    assert files
    assert all(b"hf_open_canary" not in p.read_bytes() for p in files)


def test_settings_made_here_win(store: Store, workspace: Workspace, tmp_path: Path) -> None:
    settings.set_setting(store, actor=OWNER, key="HF_HOME", value="mine")
    report = legacy.import_masuka2(store, installation(tmp_path / "MASUKA"), workspace=workspace)
    assert settings.get_setting(store, actor=OWNER, key="HF_HOME").value == "mine"
    assert "app_settings 1: HF_HOME is set here already; ours is kept." in report.oddities


def test_an_owner_with_a_password_keeps_it(store: Store, workspace: Workspace, tmp_path: Path) -> None:
    users.set_user(store, actor=OWNER, id=1, username="boss", password_hash="mine")
    legacy.import_masuka2(store, installation(tmp_path / "MASUKA"), workspace=workspace)
    owner = users.get_user(store, actor=OWNER, id=1)
    assert (owner.username, owner.password_hash) == ("boss", "mine")


def test_characters_with_taken_names_get_a_number(store: Store, workspace: Workspace, tmp_path: Path) -> None:
    characters.add_character(store, actor=OWNER, name="mira", trigger_word="mm")
    legacy.import_masuka2(store, installation(tmp_path / "MASUKA"), workspace=workspace)
    assert sorted(c.name for c in characters.list_characters(store, actor=OWNER)) == [
        "mira",
        "mira (2)",
        "zoe",
    ]
