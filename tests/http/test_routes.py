"""Media, fragments, uploads and downloads: right types, right answers, nobody else's files."""

from __future__ import annotations

import io
import time
import zipfile
from pathlib import Path

import httpx
import pytest
from PIL import Image

from masuka.access.rules import rule_of
from masuka.config import Settings, Workspace
from masuka.store import items, users
from masuka.studio import Studio
from masuka.ui import uploads
from masuka.ui.serve import Served

BATCH = "0123456789abcdef01234567"


@pytest.fixture(scope="session")
def item_id(served: Served) -> int:
    """A finished picture of the owner's."""
    studio = served.studio
    file = studio.workspace.items / "one.png"
    Image.new("RGB", (64, 48), "teal").save(file)
    return items.add_item(
        studio.store, actor=studio.actor, file=studio.workspace.relative(file), width=64, height=48,
        prompt="<script>alert(1)</script> ${x}", seed=7, settings={"request": {"base": "pocket"}},
    ).id  # fmt: skip


def test_a_picture_is_served_with_its_own_type(inside: httpx.Client, item_id: int) -> None:
    answer = inside.get(f"/media/item/{item_id}")
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "private, no-cache"
    assert answer.headers["content-security-policy"].startswith("sandbox;")
    assert Image.open(io.BytesIO(answer.content)).size == (64, 48)


def test_what_the_browser_has_is_not_sent_again(inside: httpx.Client, item_id: int) -> None:
    tag = inside.get(f"/media/item/{item_id}").headers["etag"]
    again = inside.get(f"/media/item/{item_id}", headers={"if-none-match": tag})
    assert (again.status_code, again.content) == (304, b"")


def test_a_part_of_a_file_can_be_asked_for(inside: httpx.Client, item_id: int) -> None:
    part = inside.get(f"/media/item/{item_id}", headers={"range": "bytes=1-3"})
    assert (part.status_code, part.content) == (206, b"PNG")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/media/item/999999", 404),
        ("/media/secret/1", 400),
        ("/media/item/x", 404),
        ("/media/item/..%2F..%2Fmasuka.db", 404),
        ("/drawing/home", 200),
        ("/drawing/..%2fmasuka.css", 404),
        ("/fragment/item/999999", 404),
        ("/fragment/pictures/999999", 404),
        ("/download/dataset/999999", 404),
        ("/download/adapter/999999", 404),
        ("/download/recipe/999999?form=json", 404),
        ("/download/items?ids=", 400),
        ("/download/items?ids=999999", 404),
        ("/download/items?ids=%2e%2e", 400),
    ],
)
def test_wrong_addresses_get_one_shape_of_error(inside: httpx.Client, path: str, status: int) -> None:
    answer = inside.get(path)
    assert answer.status_code == status
    if status == 400:
        assert set(answer.json()) >= {"type", "message", "hint"}


def test_nobody_reads_anothers_picture(served: Served, item_id: int) -> None:
    studio = served.studio
    other = users.add_user(studio.store, actor=studio.actor, username="eda", role="editor")
    with httpx.Client(base_url=served.address, trust_env=False, timeout=60) as client:
        client.get("/", params={"token": served.sessions.new_token(other.id)})
        assert client.get("/config").status_code == 200
        for path in ("media/item", "fragment/item", "download/item"):
            assert client.get(f"/{path}/{item_id}").status_code == 404
        assert client.get(f"/download/items?ids={item_id}").status_code == 404
        assert client.get("/download/diagnostics").status_code == 403
        assert f'data-id="{item_id}"' not in client.get("/fragment/items?before=99999").text


def test_fragments_escape_what_was_typed(inside: httpx.Client, item_id: int) -> None:
    for path in (f"/fragment/item/{item_id}", f"/fragment/items?before={item_id + 1}&pick=1"):
        text = inside.get(path).text
        assert "&lt;script&gt;" in text and "<script" not in text


def test_an_upload_is_stored_under_a_safe_name(served: Served, inside: httpx.Client) -> None:
    answer = inside.put(f"/upload/{BATCH}/0", params={"name": "../../evil\r\n.png"}, content=b"abc")
    assert answer.status_code == 201
    folder = served.studio.workspace.uploads / f"1-{BATCH}"
    stored = [p for p in folder.rglob("*") if p.is_file()]
    assert [p.read_bytes() for p in stored] == [b"abc"]
    assert "/" not in stored[0].name and ".." not in stored[0].parts


@pytest.mark.parametrize(
    ("path", "status"),
    [("/upload/short/0?name=a.png", 400), ("/upload/" + "z" * 24 + "/0?name=a.png", 400), (f"/upload/{BATCH}/999999?name=a.png", 400), (f"/upload/{BATCH}/1?name=", 400)],
)  # fmt: skip
def test_a_strange_upload_is_refused(inside: httpx.Client, path: str, status: int) -> None:
    assert inside.put(path, content=b"x").status_code == status


def test_a_file_that_is_too_large_leaves_nothing(
    served: Served, inside: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "LARGEST_BYTES", 10)
    batch = "f" * 24
    answer = inside.put(f"/upload/{batch}/0", params={"name": "big.png"}, content=b"x" * 100)
    assert answer.status_code == 400 and "larger" in answer.json()["message"]
    folder = served.studio.workspace.uploads / f"1-{batch}"
    assert not [p for p in folder.rglob("*") if p.is_file()]


def test_a_viewer_cannot_upload(served: Served) -> None:
    studio = served.studio
    looker = users.add_user(studio.store, actor=studio.actor, username="vera", role="viewer")
    with httpx.Client(base_url=served.address, trust_env=False, timeout=60) as client:
        client.get("/", params={"token": served.sessions.new_token(looker.id)})
        assert client.put(f"/upload/{BATCH}/0", params={"name": "a.png"}, content=b"x").status_code == 403


def test_downloads_are_whole_and_leave_no_copy(served: Served, inside: httpx.Client, item_id: int) -> None:
    zipped = inside.get("/download/items", params={"ids": str(item_id)})
    assert "attachment" in zipped.headers["content-disposition"]
    with zipfile.ZipFile(io.BytesIO(zipped.content)) as archive:
        assert archive.testzip() is None and len(archive.namelist()) == 1
    one = inside.get(f"/download/item/{item_id}")
    assert ("took out", f"item/{item_id}") in [(e.action, e.about) for e in served.studio.people.audit()]
    assert "attachment" in one.headers["content-disposition"]
    bundle = inside.get("/download/diagnostics")
    with zipfile.ZipFile(io.BytesIO(bundle.content)) as archive:
        assert "report.json" in archive.namelist()
    outgoing = served.studio.workspace.uploads / "outgoing"
    for _ in range(200):  # a file is deleted after its last byte was sent
        if not list(outgoing.iterdir()):
            break
        time.sleep(0.05)
    assert not list(outgoing.iterdir())


def test_a_data_set_is_downloaded_with_its_captions(
    served: Served, inside: httpx.Client, tmp_path: Path
) -> None:
    studio = served.studio
    dataset = studio.datasets.create(name="Zip <me>", trigger_word="zip01", class_word="robot")
    picture = tmp_path / "red.png"
    Image.new("RGB", (256, 256), "red").save(picture)
    studio.jobs.wait(studio.datasets.add_pictures(dataset.id, picture), timeout_s=120)
    answer = inside.get(f"/download/dataset/{dataset.id}")
    assert answer.status_code == 200
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        names = archive.namelist()
    assert any(n.endswith(".txt") for n in names) and any(n.endswith(".png") for n in names)


def test_gradio_serves_no_file_of_the_workspace(served: Served, inside: httpx.Client, item_id: int) -> None:
    workspace = served.studio.workspace
    wanted = [workspace.database, workspace.secrets / "settings.key", workspace.items / "one.png"]
    for path in [*wanted, Path("/etc/passwd"), Path(__file__)]:
        answer = inside.get(f"/gradio_api/file={path}")
        assert answer.status_code in (403, 404), path


def test_the_working_directory_is_empty(served: Served) -> None:
    assert Path.cwd() == served.studio.workspace.empty.resolve()
    assert not list(Path.cwd().iterdir())


def outgoing(served: Served) -> list[str]:
    folder = served.studio.workspace.uploads / "outgoing"
    return [file.name for file in folder.iterdir()] if folder.exists() else []


def test_a_picture_that_is_asked_for_often_is_sent_once(inside: httpx.Client, item_id: int) -> None:
    zipped = inside.get("/download/items", params={"ids": ",".join([str(item_id)] * 300)})
    with zipfile.ZipFile(io.BytesIO(zipped.content)) as archive:
        assert len(archive.namelist()) == 1


@pytest.mark.parametrize("part", ["bytes=abc", "bytes=99999999-", "bytes=0-9,20-29"])
def test_a_download_in_strange_parts_leaves_no_copy(
    served: Served, inside: httpx.Client, item_id: int, part: str
) -> None:
    answer = inside.get("/download/items", params={"ids": str(item_id)}, headers={"range": part})
    assert answer.status_code in (206, 400, 416)
    for _ in range(100):
        if not outgoing(served):
            break
        time.sleep(0.05)
    assert outgoing(served) == []


def test_a_download_that_cannot_be_made_leaves_no_copy(
    served: Served, inside: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    studio = served.studio
    file = studio.workspace.items / "soon-gone.png"
    Image.new("RGB", (8, 8)).save(file)
    gone = items.add_item(
        studio.store, actor=studio.actor, file=studio.workspace.relative(file), width=8, height=8, prompt="",
        seed=1, settings={},
    ).id  # fmt: skip
    monkeypatch.setattr(uploads, "ROOM_LEFT_BYTES", 2**60)
    answer = inside.get("/download/items", params={"ids": str(gone)})
    assert answer.status_code == 400 and answer.json()["type"] == "OutOfDisk"
    file.unlink()
    assert inside.get("/download/items", params={"ids": str(gone)}).status_code == 404
    assert outgoing(served) == []


def test_what_was_being_sent_at_the_last_start_is_deleted(tmp_path: Path) -> None:
    with Studio.open(Settings(workspace=Workspace(tmp_path))) as studio:
        left = studio.workspace.uploads / uploads.OUTGOING / "half.zip"
        left.parent.mkdir()
        left.write_bytes(b"x")
        uploads.sweep(studio)
        assert not left.exists()


@pytest.mark.parametrize("number", ["9" * 19, "9" * 30, "9" * 5000, str(2**63)])
def test_a_number_that_no_row_has_is_not_there(inside: httpx.Client, number: str) -> None:
    for path in ("media/item", "fragment/item", "download/item", "fragment/pictures"):
        assert inside.get(f"/{path}/{number}").status_code == 404
    assert inside.get("/download/items", params={"ids": number}).status_code == 400
    assert inside.get("/fragment/items", params={"before": number, "character": number}).status_code == 200


def test_downloads_count_as_changes() -> None:
    assert rule_of("GET", "/download/items").kind == rule_of("GET", "/download/dataset/1").kind == "change"
