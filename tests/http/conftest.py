"""One served page for all tests of its routes, with workers, on a free port."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from masuka.config import Settings, Workspace
from masuka.requests.actor import Role
from masuka.store import users
from masuka.ui.serve import Served, serve

ROLES: dict[str, Role] = {"other": "editor", "viewer": "viewer", "editor": "editor"}


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    before = Path.cwd()
    workspace = Workspace(tmp_path_factory.mktemp("studio"))
    page = serve(Settings(workspace=workspace, port=0, allowed_hosts=("studio.example",)))
    # The page lives as long as the whole run; the working directory must be its own only in its tests.
    os.chdir(before)
    yield page
    page.close()


@pytest.fixture(autouse=True)
def _in_the_servers_folder(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that serves works in an empty folder."""
    monkeypatch.chdir(served.studio.settings.workspace.empty)


@pytest.fixture
def anonymous(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.address, trust_env=False, timeout=60) as client:
        yield client


@pytest.fixture(scope="session")
def people(served: Served) -> dict[str, int]:
    """One person of each kind; all but 'other' see everything of the owner's."""
    studio = served.studio
    found = {"owner": 1}
    for kind, role in ROLES.items():
        found[kind] = users.add_user(studio.store, actor=studio.actor, username=f"the {kind}", role=role).id
        if kind != "other":
            studio.people.share(found[kind], "all")
    return found


@pytest.fixture
def browser_of(served: Served) -> Iterator[Callable[[int], httpx.Client]]:
    """Makes a browser in which that person is signed in."""
    opened: list[httpx.Client] = []

    def make(user_id: int) -> httpx.Client:
        client = httpx.Client(base_url=served.address, trust_env=False, timeout=60)
        opened.append(client)
        assert client.get("/", params={"token": served.sessions.new_token(user_id)}).status_code == 303
        return client

    yield make
    for client in opened:
        client.close()


@pytest.fixture
def inside(served: Served) -> Iterator[httpx.Client]:
    """A browser that has used a link."""
    with httpx.Client(base_url=served.address, trust_env=False, timeout=60) as client:
        answer = client.get("/", params={"token": served.sessions.new_token(1)})
        assert answer.status_code == 303
        yield client
