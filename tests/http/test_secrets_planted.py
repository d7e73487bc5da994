"""Keys, tokens and passwords planted in a real app: searched for in all that it leaves behind.

The vault with its saves, the logs, every page and answer, what jobs tell, the diagnostics
bundle, and what other processes of the machine can read. As they are and in the usual
disguises; archives and databases are opened.
"""

from __future__ import annotations

import base64
import io
import json
import logging
import os
import sqlite3
import threading
import zipfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import httpx
import psutil
import pytest

from masuka import logs
from masuka.config import Settings, Workspace
from masuka.errors import MasukaError
from masuka.store import jobs as job_rows
from masuka.ui.serve import Served, serve

TYPED = {
    "HF_TOKEN": "hf_" + "CanaryTypedInSettings7f3a9c2e",
    "OPENAI_API_KEY": "own-canary-of-a-local-model-51c",
    "FAL_KEY": "canary:fal-0123456789abcdef",
}  # fmt: skip
GIVEN = {
    "NGROK_AUTHTOKEN": "2canaryNgrok0123456789_canaryNgrokAuth99",
    "GOOGLE_API_KEY": "AIza" + "CanaryOfTheEnvironment0123456789abc",
    "SECRET_KEY": "canary-old-masuka-two-secret",
}  # fmt: skip
OWNER, VISITOR = "canary owner password 5d1", "canary visitor password 8e2"


class Talkative(BaseHTTPRequestHandler):
    """A service that repeats the key in its answer, as careless ones do."""

    def do_GET(self) -> None:
        body = f"Incorrect API key provided: {self.headers.get('authorization')}".encode()
        self.send_response(401)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        return


@dataclass
class Planted:
    page: Served
    vault: Path
    secrets: dict[str, str]
    answers: list[httpx.Response]

    @property
    def workspace(self) -> Workspace:
        return self.page.studio.workspace


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Talkative)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory, service: str, served: Served) -> Iterator[Planted]:
    before, root = Path.cwd(), tmp_path_factory.mktemp("planted")
    (root / "vault").mkdir()
    page = serve(
        Settings(
            workspace=Workspace(root / "home"), vault=root / "vault", port=0, device="cpu", share="off", secrets=GIVEN,
            owner_password=OWNER, local_addresses=(service,), log_level="DEBUG",
        )
    )  # fmt: skip
    os.chdir(before)
    studio = page.studio
    for name, value in TYPED.items():
        studio.preferences.set_key(name, value, base_url=f"http://{service}/v1" if name == "OPENAI_API_KEY" else None)
    with pytest.raises(MasukaError):
        studio.preferences.test_key("OPENAI_API_KEY")
    invite, link = studio.people.invite(note="for a visitor"), page.sessions.new_token(1)
    client = httpx.Client(base_url=page.address, trust_env=False, timeout=60)
    answers = [
        client.post("/login", data={"username": "owner", "password": OWNER + "x"}),
        client.get("/invite", params={"token": invite.token}),
        client.post("/invite", data={"token": invite.token, "username": "visitor", "password": VISITOR}),
        client.post("/logout"),
        client.post("/login", data={"username": "owner", "password": OWNER}),
        client.get("/", params={"token": link}, headers={"host": "evil.example"}),
    ]
    session = client.cookies[page.sessions.cookie_name]
    data = studio.datasets.create(name="Bolt", trigger_word="bolt7x", class_word="robot")
    studio.jobs.wait(studio.datasets.add_samples(data.id, count=2))
    logging.getLogger("httpx").warning("a library tells %s and %s", TYPED["HF_TOKEN"], GIVEN["GOOGLE_API_KEY"])
    paths = ("/", "/config", "/healthz", "/login", "/fragment/items", "/gradio_api/info", "/no-such-page", "/theme.css")
    answers += [client.get(path) for path in paths]
    studio.vault.save()
    everything = {**TYPED, **GIVEN, "the owner's password": OWNER, "the visitor's password": VISITOR}
    yield Planted(page, root / "vault", {**everything, "the invite": invite.token, "the link": link, "the session": session}, answers)
    client.close()
    page.close()
    logs.configure(served.studio.settings)  # one process has one log


def disguises(secret: str) -> set[bytes]:
    """The secret as it is, and as it may be written elsewhere."""
    plain = secret.encode()
    shifted = [base64.b64encode(b"." * n + plain)[4 if n else 0 : -4] for n in range(3)]
    forms = {plain, quote(secret).encode(), json.dumps(secret)[1:-1].encode(), plain.hex().encode(), plain[::-1], *shifted}
    return {form for form in forms if len(form) >= 12}


def opened(name: str, content: bytes) -> Iterator[tuple[str, bytes]]:
    """The file, and what is inside of it."""
    yield name, content
    if content[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for inner in archive.namelist():
                yield from opened(f"{name}/{inner}", archive.read(inner))
    if content[:15] == b"SQLite format 3":
        with closing(sqlite3.connect(":memory:")) as database:
            database.deserialize(content)
            yield f"{name}: rows", "\n".join(database.iterdump()).encode()


def files(folder: Path, *, but: Path | None = None) -> Iterator[tuple[str, bytes]]:
    """Every name and file; of `but` and its log the names alone, for they are open."""
    for file in sorted(folder.rglob("*")):
        yield "a name", str(file.relative_to(folder)).encode()
        if file.is_file() and not (but is not None and file.name.startswith(but.name)):
            yield from opened(str(file.relative_to(folder)), file.read_bytes())


def must_hold_none(planted: Planted, places: Iterator[tuple[str, bytes]]) -> int:
    """How many places were looked at; fails for one with a secret in it."""
    looked = 0
    for name, content in places:
        looked += bool(content)
        for kind, secret in planted.secrets.items():
            for form in disguises(secret):
                assert form not in content, f"{kind} is in {name}"
    return looked


def test_the_vault_holds_no_secret(planted: Planted) -> None:
    saved = [name for name, _ in files(planted.vault)]
    assert any(name.endswith(".db: rows") for name in saved)
    assert must_hold_none(planted, files(planted.vault)) > 3


def test_the_search_finds_what_is_there(planted: Planted, tmp_path: Path) -> None:
    """Else all the others would prove nothing."""
    secret = TYPED["HF_TOKEN"]
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("log.txt", f"a line with {secret} in it")
    for content in (secret, base64.b64encode(f"user:{secret}".encode()).decode(), secret.encode().hex()):
        (tmp_path / "b.txt").write_text(content)
        with pytest.raises(AssertionError, match=r"is in (a\.zip/log|b)\.txt"):
            must_hold_none(planted, files(tmp_path))
        (tmp_path / "a.zip").unlink(missing_ok=True)
    with closing(sqlite3.connect(tmp_path / "c.db")) as database, database:
        database.execute("CREATE TABLE t (x TEXT)")
        database.execute("INSERT INTO t VALUES (?)", [secret])
    (tmp_path / "b.txt").unlink()
    with pytest.raises(AssertionError, match=r"is in c\.db"):
        must_hold_none(planted, files(tmp_path))


def test_logs_and_what_jobs_tell_hold_no_secret(planted: Planted) -> None:
    workspace, studio = planted.workspace, planted.page.studio
    told = "\n".join(
        str((job, job_rows.list_job_events(studio.store, actor=studio.actor, id=job.id))) for job in studio.jobs.list()
    )
    written = dict(files(workspace.logs))
    assert any(b"a library tells [secret]" in content for content in written.values()), "the canary was logged"
    places = [*written.items(), *files(workspace.jobs), ("events", told.encode())]
    places.append(("the history", str(studio.people.audit(limit=1000)).encode()))
    assert must_hold_none(planted, iter(places)) > 4


def test_no_answer_holds_a_secret(planted: Planted) -> None:
    # The form of an invite hands back what was brought, to whom brought it.
    own = planted.secrets["the invite"].encode()
    answers = [
        (f"{a.request.method} {a.url.path}", a.content.replace(own, b"") if a.url.path == "/invite" else a.content)
        for a in planted.answers
    ]
    assert must_hold_none(planted, iter(answers)) > 8
    headers = [("headers", str([(k, v) for k, v in a.headers.items() if k != "set-cookie"]).encode()) for a in planted.answers]
    must_hold_none(planted, iter(headers))


def test_the_settings_page_shows_no_secret(planted: Planted) -> None:
    from masuka.ui.settings import TAB
    from masuka.ui.view import View

    drawn = [(region.name, region.draw(planted.page.studio, View(tab="settings")).encode()) for region in TAB.regions]
    assert any(TYPED["HF_TOKEN"][-4:].encode() in body for _, body in drawn), "the keys were drawn"
    must_hold_none(planted, iter(drawn))


def test_the_diagnostics_bundle_holds_no_secret(planted: Planted, tmp_path: Path) -> None:
    with httpx.Client(base_url=planted.page.address, trust_env=False, timeout=60) as client:
        client.get("/", params={"token": planted.page.sessions.new_token(1)})
        bundle = client.get("/download/diagnostics").raise_for_status().content
    parts = dict(opened("bundle", bundle))
    assert {"bundle/report.json", "bundle/packages.txt"} <= set(parts) and len(parts) >= 4
    assert b"HF_TOKEN" in parts["bundle/report.json"] or b"GOOGLE_API_KEY" in parts["bundle/report.json"], "names are told"
    must_hold_none(planted, iter(parts.items()))


def test_other_processes_read_no_secret(planted: Planted) -> None:
    places = []
    for process in psutil.process_iter(["cmdline"]):
        places.append((f"the arguments of {process.pid}", " ".join(process.info["cmdline"] or []).encode()))
    for child in psutil.Process().children(recursive=True):
        try:
            places.append((f"the environment of {child.pid}", str(child.environ()).encode()))
        except psutil.NoSuchProcess:
            continue
    assert must_hold_none(planted, iter(places)) > 1


def test_what_is_kept_here_is_its_owners_alone(planted: Planted) -> None:
    """In the workspace the database has them locked, and only `secrets` has what unlocks it."""
    workspace = planted.workspace
    inside = [(n, c) for n, c in files(workspace.root, but=workspace.database) if not n.startswith("secrets/")]
    assert must_hold_none(planted, iter(inside)) > 5
    # Through the app's own connection: to open and close the file would drop its locks.
    with planted.page.studio.store.read() as conn:
        rows = [tuple(row) for name in conn.table_names() for row in conn.execute(f"SELECT * FROM {name}")]
    must_hold_none(planted, iter([("the database", str(rows).encode())]))
    assert workspace.secrets.stat().st_mode & 0o077 == 0
