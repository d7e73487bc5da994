"""An edited picture's address changes with its looks, so that no browser shows the old one."""

from __future__ import annotations

import hashlib
import io

import httpx
import pytest
from PIL import Image

from masuka.datasets.edits import version_of
from masuka.store import pictures
from masuka.store.pictures import Picture
from masuka.ui.markup import media
from masuka.ui.serve import Served


@pytest.fixture
def picture(served: Served) -> Picture:
    """A picture of the owner's, left half black, right half white."""
    studio = served.studio
    image = Image.new("RGB", (80, 60), "black")
    image.paste("white", (40, 0, 80, 60))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    sha256 = hashlib.sha256(buffer.getvalue()).hexdigest()
    made = studio.datasets.create(name="Edited", trigger_word="mira7x")
    file = studio.workspace.datasets / f"{made.id:05d}" / f"{sha256[:16]}.png"
    file.parent.mkdir(parents=True)
    file.write_bytes(buffer.getvalue())
    added = pictures.add_picture(
        studio.store, actor=studio.actor, dataset_id=made.id, file=studio.workspace.relative(file),
        original_name="a.png", sha256=sha256, width=80, height=60, bytes=9, caption="",
    )  # fmt: skip
    assert added is not None
    return added


def seen(answer: httpx.Response) -> Image.Image:
    assert answer.status_code == 200
    return Image.open(io.BytesIO(answer.content)).convert("RGB")


def test_an_edited_picture_has_another_address_and_the_old_one_is_not_kept(
    inside: httpx.Client, served: Served, picture: Picture
) -> None:
    def address(row: Picture) -> str:
        version = version_of(row.sha256, row.edits)
        return "/" + media("picture", row.id, thumbnail=True, sha256=version)

    before = inside.get(address(picture))
    edited = served.studio.edits.set(picture.id, crop=(0.5, 0, 1, 1))
    after = inside.get(address(edited))
    assert address(edited) != address(picture)
    assert "immutable" in after.headers["cache-control"]
    assert inside.get(address(picture)).headers["cache-control"] == "private, no-cache"
    assert seen(before).size == (80, 60) and seen(after).size == (40, 60)
    assert min(seen(after).getpixel((5, 5))) > 240  # type: ignore[arg-type, type-var]
    assert seen(inside.get(f"/media/picture/{picture.id}")).size == (40, 60)
    original = inside.get(f"/media/picture/{picture.id}?thumb=1&original=1&v={picture.sha256[:16]}")
    assert seen(original).size == (80, 60) and "immutable" in original.headers["cache-control"]


def test_a_picture_whose_file_is_gone_is_not_found(
    inside: httpx.Client, served: Served, picture: Picture
) -> None:
    served.studio.edits.set(picture.id, flip=True)
    served.studio.workspace.resolve(picture.file).unlink()
    answer = inside.get(f"/media/picture/{picture.id}")
    assert answer.status_code == 404 and "gone" in answer.json()["message"]
