"""Every route of the app × everybody who may knock. A route without a rule fails here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from PIL import Image

from masuka.access.gate import STARTUP_PATH
from masuka.access.rules import is_known, rule_of
from masuka.requests import Actor
from masuka.store import items, models, pictures, runs
from masuka.store import jobs as job_rows
from masuka.ui.serve import Served

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
VISITORS = ("anonymous", "other", "viewer", "editor", "owner")
DOOR = frozenset({"/", "/enter", "/login", "/healthz", "/register", "/invite"})
BATCH = "abcdefabcdef012345678901"


@dataclass(frozen=True)
class Knock:
    """A request of ours, and what each visitor gets: other, viewer, editor, owner."""

    method: str
    path: str
    other: int
    viewer: int
    editor: int
    owner: int
    content: bytes = b"x"


def each_route(app: FastAPI) -> Iterator[tuple[str, str]]:
    """Method and path of each route, sub-routers included, something in place of parameters."""
    waiting: list[Any] = list(app.routes)
    while waiting:
        route = waiting.pop()
        # FastAPI (0.163) keeps a router that was included as one route without a path.
        waiting.extend(getattr(getattr(route, "original_router", None), "routes", ()))
        path = getattr(route, "path", None)
        if path is not None:
            filled = "/".join(_filled(part) for part in path.split("/")) or "/"
            for method in getattr(route, "methods", None) or ("GET",):
                yield method, filled


def _filled(part: str) -> str:
    head, brace, rest = part.partition("{")
    return f"{head}1{rest.partition('}')[2]}" if brace else part


def test_every_route_has_a_rule(served: Served) -> None:
    routes = set(each_route(served.app))
    assert len(routes) > 60  # Gradio's and ours; fewer means that this walk sees nothing
    unknown = sorted(f"{method} {path}" for method, path in routes if not is_known(method, path))
    assert not unknown, f"add a rule to masuka/access/rules.py for {unknown}"


def test_strangers_get_past_no_route(served: Served, anonymous: httpx.Client) -> None:
    paths = {path for _, path in each_route(served.app)}
    assert {"/media/1/1", "/gradio_api/queue/join"} <= paths
    for path in sorted({*paths, "/gradio_api/mcp/sse", "/no/such/path", STARTUP_PATH}):
        for method in METHODS:
            if path in DOOR and rule_of(method, path).who == "anybody":
                continue
            answer = anonymous.request(method, path)
            assert answer.status_code == 401, f"{method} {path} answered {answer.status_code}"
            assert answer.text == "" or answer.json()["type"] == "NotAllowed"


def test_what_the_door_says_to_strangers(anonymous: httpx.Client) -> None:
    for path in ("/", "/enter"):
        assert anonymous.get(path).headers["location"] == "/login"
    codes = {path: anonymous.get(path).status_code for path in ("/login", "/healthz", "/register", "/invite")}
    assert codes == {"/login": 200, "/healthz": 200, "/register": 403, "/invite": 404}
    for path in DOOR:
        assert anonymous.delete(path).status_code == 401


@pytest.mark.parametrize("visitor", VISITORS[1:])
def test_what_is_closed_is_closed_for_everybody(
    served: Served, people: Mapping[str, int], browser_of: Callable[[int], httpx.Client], visitor: str
) -> None:
    client = browser_of(people[visitor])
    tried = 0
    for method, path in sorted(set(each_route(served.app))):
        if rule_of(method, path).who == "nobody":
            assert client.request(method, path).status_code == 404, f"{method} {path}"
            tried += 1
    assert tried > 30


@pytest.mark.parametrize("visitor", VISITORS[1:])
def test_gradios_page_opens_for_whoever_is_inside(
    people: Mapping[str, int], browser_of: Callable[[int], httpx.Client], visitor: str
) -> None:
    client = browser_of(people[visitor])
    for path in ("/", "/config", "/theme.css", "/favicon.ico", "/robots.txt", "/gradio_api/app_id"):
        assert client.get(path).status_code == 200, path


@pytest.fixture(scope="session")
def theirs(served: Served) -> dict[str, int]:
    """One of each kind of the owner's things, with real files."""
    studio, owner = served.studio, Actor(1)
    workspace, db = studio.workspace, studio.store
    file = workspace.items / "matrix.png"
    Image.new("RGB", (32, 32), "navy").save(file)
    name = workspace.relative(file)
    dataset = studio.datasets.create(name="Matrix", trigger_word="mtx01")
    picture = pictures.add_picture(
        db, actor=owner, dataset_id=dataset.id, file=name, original_name="a.png", sha256="m" * 64, width=32,
        height=32, bytes=1, caption="",
    )  # fmt: skip
    item = items.add_item(db, actor=owner, file=name, width=32, height=32, prompt="", seed=1, settings={})
    run = runs.add_run(db, actor=owner, name="R", base="pocket", family="flux", config={})
    sample = runs.add_sample(db, actor=owner, run_id=run.id, step=1, prompt="", seed=1, file=name)
    adapter = models.add_model(db, actor=owner, kind="adapter", name="A", base="pocket", path=name)
    job = job_rows.add_job(db, actor=owner, kind="draw_images", lane="gpu", title="J", request={}, params={})
    job_rows.set_job(db, id=job.id, state="done")
    packed = workspace.uploads / "export-matrix" / "matrix.zip"
    packed.parent.mkdir(exist_ok=True)
    packed.write_bytes(b"PK")
    export = job_rows.add_job(
        db, actor=owner, kind="export_dataset", lane="cpu", title="E", request={}, params={}, dataset_id=dataset.id
    )
    job_rows.set_job(db, id=export.id, state="done", result={"file": str(packed)})
    preview = workspace.items / "previews" / f"{job.id}.webp"
    preview.parent.mkdir(exist_ok=True)
    Image.new("RGB", (8, 8)).save(preview)
    assert picture is not None
    return {"dataset": dataset.id, "picture": picture.id, "item": item.id, "sample": sample.id,
            "adapter": adapter.id, "preview": job.id, "export": export.id, "run": run.id}  # fmt: skip


def knocks(ids: Mapping[str, int]) -> list[Knock]:
    seen = {"other": 404, "viewer": 200, "editor": 200, "owner": 200}
    all_may = {**seen, "other": 200}
    makers = {"other": 201, "viewer": 403, "editor": 201, "owner": 201}
    return [
        Knock("GET", f"/media/item/{ids['item']}", **seen),
        Knock("GET", f"/media/picture/{ids['picture']}", **seen),
        Knock("GET", f"/media/sample/{ids['sample']}", **seen),
        Knock("GET", f"/media/preview/{ids['preview']}", **seen),
        Knock("GET", "/drawing/home", **all_may),
        Knock("GET", f"/fragment/item/{ids['item']}", **seen),
        Knock("GET", f"/fragment/picture/{ids['picture']}", **seen),
        Knock("GET", "/fragment/items?before=99999", **all_may),
        Knock("GET", f"/fragment/pictures/{ids['dataset']}", **seen),
        *(
            Knock("GET", f"/fragment/{what}/{ids['dataset']}", **seen)
            for what in ("captions", "found", "tags", "trainer", "captioners")
        ),
        Knock("GET", f"/fragment/plan?v=%7B%22dataset_id%22%3A{ids['dataset']}%7D", **seen),
        Knock("PUT", f"/caption/{ids['picture']}", other=404, viewer=403, editor=200, owner=200, content=b'{"text": "x"}'),
        Knock("PUT", f"/upload/{BATCH}/0?name=a.png", **makers),
        Knock("GET", f"/download/item/{ids['item']}", **seen),
        Knock("GET", f"/download/items?ids={ids['item']}", **seen),
        Knock("GET", f"/download/dataset/{ids['dataset']}", **seen),
        Knock("GET", f"/download/export/{ids['export']}", **seen),
        Knock("GET", f"/download/adapter/{ids['adapter']}", **seen),
        Knock("GET", f"/download/recipe/{ids['run']}", **seen),
        Knock("GET", "/download/diagnostics", other=403, viewer=403, editor=403, owner=200),
    ]


OWN = ("/media/", "/drawing/", "/fragment/", "/upload/", "/download/", "/caption/")


def test_each_route_of_ours_is_knocked_at(served: Served, theirs: Mapping[str, int]) -> None:
    def shape(method: str, path: str) -> tuple[str, int, str]:
        parts = path.partition("?")[0].split("/")
        return method, len(parts), "/".join(parts[1:3]) if parts[1] in ("download", "fragment") else parts[1]

    tried = {shape(k.method, k.path) for k in knocks(theirs)}
    ours = {(m, p) for m, p in each_route(served.app) if p.startswith(OWN) and m != "HEAD"}
    # Of each of our roots there is one route more that answers 404 for all that is below it.
    left = {(m, p) for m, p in ours if shape(m, p) not in tried and p.count("/") > 2}
    assert len(ours) > 12 and not left, f"no request in knocks() tries {sorted(left)}"


@pytest.mark.parametrize("visitor", VISITORS)
def test_each_visitor_gets_what_is_theirs_and_nothing_else(
    people: Mapping[str, int],
    theirs: Mapping[str, int],
    browser_of: Callable[[int], httpx.Client],
    anonymous: httpx.Client,
    visitor: str,
) -> None:
    client = anonymous if visitor == "anonymous" else browser_of(people[visitor])
    for knock in knocks(theirs):
        answer = client.request(knock.method, knock.path, content=knock.content if knock.method == "PUT" else None)
        wanted = 401 if visitor == "anonymous" else getattr(knock, visitor)
        assert answer.status_code == wanted, f"{visitor}: {knock.method} {knock.path}"


def test_what_others_have_is_in_no_list(
    people: Mapping[str, int], theirs: Mapping[str, int], browser_of: Callable[[int], httpx.Client]
) -> None:
    mark = f'data-id="{theirs["item"]}"'
    assert mark not in browser_of(people["other"]).get("/fragment/items?before=99999").text
    for visitor in ("viewer", "editor", "owner"):
        assert mark in browser_of(people[visitor]).get("/fragment/items?before=99999").text


def test_a_viewer_gets_no_button_with_what_they_see(
    people: Mapping[str, int], theirs: Mapping[str, int], browser_of: Callable[[int], httpx.Client]
) -> None:
    pages = (f"/fragment/item/{theirs['item']}", f"/fragment/picture/{theirs['picture']}",
             "/fragment/items?before=99999", f"/fragment/pictures/{theirs['dataset']}")  # fmt: skip
    seen = {who: "".join(browser_of(people[who]).get(page).text for page in pages) for who in ("viewer", "editor")}
    assert "data-do=" in seen["editor"] and "datasets-caption" in seen["editor"]
    assert "data-do=" not in seen["viewer"] and f'data-id="{theirs["item"]}"' in seen["viewer"]


def test_gradios_file_routes_give_nobody_a_file(
    served: Served, people: Mapping[str, int], browser_of: Callable[[int], httpx.Client]
) -> None:
    folder = Path(served.studio.workspace.temp) / "secret"
    folder.mkdir(exist_ok=True)
    (folder / "of-another.txt").write_text("private")
    for visitor in ("other", "owner"):
        client = browser_of(people[visitor])
        for path in (f"/gradio_api/file={folder}/of-another.txt", f"/gradio_api/file/{folder}/of-another.txt",
                     f"/gradio_api/proxy={served.address}healthz", "/gradio_api/token", "/gradio_api/stream/a/b/1/playlist-file"):  # fmt: skip
            assert client.get(path).status_code == 404, path
        uploaded = client.post("/gradio_api/upload", files={"files": ("a.html", b"<script>", "text/html")})
        assert uploaded.status_code == 404
