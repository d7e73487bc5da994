"""Planted secrets: nothing of them in logs, pages, the process list or the database."""

from __future__ import annotations

import logging
from pathlib import Path

import httpx
import psutil
import pytest

from masuka.store.connect import Store
from masuka.ui.serve import Served

PASSWORD = "canary-password-7f3a"


@pytest.fixture
def canaries(served: Served, inside: httpx.Client) -> dict[str, str]:
    """A password, an invite, a link and a session, each of them used or tried."""
    studio = served.studio
    invite = studio.people.invite(note="canary")
    link = served.sessions.new_token(1)
    session = inside.cookies[served.sessions.cookie_name]
    with httpx.Client(base_url=served.address, trust_env=False, timeout=60) as client:
        client.get("/invite", params={"token": invite.token})
        client.post("/invite", data={"token": invite.token, "username": "canary", "password": PASSWORD})
        client.post("/logout")
        client.post("/login", data={"username": "canary", "password": PASSWORD})
        client.post("/login", data={"username": "canary", "password": PASSWORD + "x"})
        client.get("/", params={"token": link})
        client.get("/", params={"token": link}, headers={"host": "evil.example"})
    return {"password": PASSWORD, "invite": invite.token, "link": link, "session": session}


def test_no_secret_is_told(
    served: Served, inside: httpx.Client, canaries: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("masuka.access").warning("looking for what must not be here")
    workspace = served.studio.workspace
    pages = [inside.get(path) for path in ("/", "/config", "/login", "/fragment/items", "/download/diagnostics")]
    places = {
        "the log": b"".join(file.read_bytes() for file in workspace.logs.rglob("*") if file.is_file()),
        "what was logged": caplog.text.encode(),
        "a page": b"".join(page.content for page in pages),
        "the process list": "\n".join(" ".join(p.info["cmdline"] or []) for p in psutil.process_iter(["cmdline"])).encode(),
        "the database": database(served.studio.store),
        "the history": str(served.studio.people.audit(limit=1000)).encode(),
        "the links' folder": names(workspace.secrets),
    }
    assert all(places.values()), [name for name, content in places.items() if not content]
    for name, content in places.items():
        for kind, secret in canaries.items():
            assert secret.encode() not in content, f"the {kind} is in {name}"


def database(store: Store) -> bytes:
    """Every row, through the app's own connection: a second SQLite would drop its locks."""
    with store.read() as conn:
        rows = [tuple(row) for name in conn.table_names() for row in conn.execute(f"SELECT * FROM {name}")]
    return str(rows).encode()


def names(folder: Path) -> bytes:
    return b"\n".join(str(file).encode() + (file.read_bytes() if file.is_file() else b"") for file in folder.rglob("*"))
