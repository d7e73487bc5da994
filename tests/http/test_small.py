"""The page is small on its way, and a browser may keep what never changes."""

from __future__ import annotations

import re

import httpx
from PIL import Image

from masuka.store import items
from masuka.ui.markup import media
from masuka.ui.serve import Served


def test_the_page_and_its_data_come_compressed(inside: httpx.Client) -> None:
    for path in ("/", "/config"):
        answer = inside.get(path)
        assert answer.status_code == 200 and answer.headers["content-encoding"] == "gzip"
        assert len(answer.content) > 3 * int(answer.headers["content-length"])


def test_what_is_named_by_its_content_is_kept_for_a_year(inside: httpx.Client) -> None:
    page = inside.get("/").text
    found = re.findall(r'(?:src|href)="\./(assets/[^"]+)"', page)
    assert found
    for path in found:
        assert inside.get(path).headers["cache-control"] == "private, max-age=31536000, immutable"
    theme = inside.get("/config").json()["theme_hash"]
    assert "immutable" in inside.get(f"/theme.css?v={theme}").headers["cache-control"]
    for path in ("/", "/theme.css", "/config", "/assets/no-such-file-0123abcd.js"):
        assert "immutable" not in inside.get(path).headers.get("cache-control", ""), path


def test_a_stranger_is_told_to_keep_nothing(anonymous: httpx.Client) -> None:
    answer = anonymous.get("/assets/index-DphvyggB.js")
    assert answer.status_code == 401 and answer.headers["cache-control"] == "no-store"


def test_a_thumbnail_is_kept_for_this_run_of_the_app_only(served: Served, inside: httpx.Client) -> None:
    studio, workspace = served.studio, served.studio.workspace
    (workspace.items / "thumbs").mkdir(parents=True, exist_ok=True)
    file, small = workspace.items / "kept.png", workspace.items / "thumbs" / "kept.webp"
    for path in (file, small):
        Image.new("RGB", (64, 64), "teal").save(path)
    item = items.add_item(
        studio.store, actor=studio.actor, file=workspace.relative(file), width=64, height=64, seed=1,
        prompt="", settings={},
    )  # fmt: skip
    address = media("item", item.id, thumbnail=True)
    answer = inside.get("/" + address)
    assert answer.status_code == 200 and answer.headers["content-type"] == "image/webp"
    assert answer.headers["cache-control"] == "private, max-age=86400, immutable"
    stale = re.sub(r"v=\w+", "v=0000", address)
    for other in (stale, address.partition("&")[0], media("item", item.id)):
        answer = inside.get("/" + other)
        assert answer.status_code == 200 and answer.headers["cache-control"] == "private, no-cache"
    # Nothing compresses a picture on its way, so a part of it is a part of the file.
    part = inside.get(f"/media/item/{item.id}", headers={"range": "bytes=0-9"})
    assert (part.status_code, part.content) == (206, file.read_bytes()[:10])


def test_a_thumbnail_of_a_data_set_is_kept_for_what_is_in_it(served: Served, inside: httpx.Client) -> None:
    studio = served.studio
    data = studio.datasets.create(name="Kept", trigger_word="kept01", class_word="robot")
    studio.jobs.wait(studio.datasets.add_samples(data.id, seed=1, count=1), timeout_s=60)
    shown = studio.datasets.pictures(data.id)[0]
    address = media("picture", shown.id, thumbnail=True, sha256=shown.sha256)
    assert inside.get("/" + address).headers["cache-control"] == "private, max-age=86400, immutable"
    for other in (media("picture", shown.id, thumbnail=True), address[:-1], address[:-16] + "0" * 16):
        assert inside.get("/" + other).headers["cache-control"] == "private, no-cache", other
