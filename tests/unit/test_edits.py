"""Recipes: what they do to a picture, where a box goes, and what the studio keeps of them."""

from __future__ import annotations

import errno
import io
import math
import os
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from masuka import Settings, Studio
from masuka.config import Workspace
from masuka.datasets import crops, faces, masks, rendered
from masuka.datasets.background import cut_out
from masuka.datasets.buckets import Shape, crop_window, cut_of, scaled_size
from masuka.datasets.edits import Recipe, edited_size, render, through, version_of
from masuka.errors import Conflict, InvalidInput, NotAllowed, NotFound, OutOfDisk
from masuka.requests import Actor
from masuka.requests.edits import PictureEdits
from masuka.store import pictures, snapshots
from masuka.store.pictures import Picture
from masuka.studio.edits import Overview
from masuka.vault.places import Places, Uses

PHOTOS = Path(__file__).parents[1] / "data" / "photos"
PLAIN = PictureEdits()
CROPS = st.tuples(st.floats(0, 0.4), st.floats(0, 0.4), st.floats(0.6, 1), st.floats(0.6, 1))
EDITS = st.builds(
    PictureEdits,
    turn=st.sampled_from([0, 90, 180, 270]),
    straighten=st.sampled_from([0.0, -15.0, -3.5, 7.0]),
    crop=st.none() | CROPS,
    flip=st.booleans(),
    longest_px=st.none() | st.just(90),
)


def marked(width: int, height: int, x: float, y: float) -> Image.Image:
    """A grey picture with a white spot at a place given in parts of its sides."""
    image = Image.new("RGB", (width, height), (60, 60, 60))
    image.paste(
        "white", (round(x * width) - 4, round(y * height) - 4, round(x * width) + 5, round(y * height) + 5)
    )
    return image


def brightest(image: Image.Image) -> tuple[float, float]:
    """Where the white spot is, in parts of the sides."""
    rows, columns = np.nonzero(np.asarray(image.convert("L")) > 160)
    return (float(columns.mean()) + 0.5) / image.width, (float(rows.mean()) + 0.5) / image.height


@settings(max_examples=60, deadline=None)
@given(edits=EDITS, x=st.floats(0.45, 0.55), y=st.floats(0.45, 0.55))
def test_a_place_goes_where_the_picture_goes(edits: PictureEdits, x: float, y: float) -> None:
    image = marked(160, 120, x, y)
    shown = render(image, Recipe(edits)).image
    assert shown.size == edited_size(160, 120, edits)
    box = through((x - 0.01, y - 0.01, x + 0.01, y + 0.01), 160, 120, edits)
    assert box is not None
    assert brightest(shown) == pytest.approx(((box[0] + box[2]) / 2, (box[1] + box[3]) / 2), abs=0.03)


def test_a_box_that_was_cut_away_is_nowhere() -> None:
    assert through((0.0, 0.0, 0.1, 0.1), 100, 100, PictureEdits(crop=(0.5, 0.5, 1, 1))) is None


@pytest.mark.parametrize("degrees", [-15.0, 0.3, 9.0])
def test_a_straightened_picture_has_no_corners_of_another_colour(degrees: float) -> None:
    shown = render(Image.new("RGB", (300, 170), "white"), Recipe(PictureEdits(straighten=degrees))).image
    assert np.asarray(shown).min() > 250
    assert shown.width / shown.height == pytest.approx(300 / 170, rel=0.02)
    assert shown.width > 300 * (1 - math.sin(math.radians(abs(degrees))) * 2)


@pytest.mark.parametrize(("background", "colour"), [("white", 255), ("grey", 128), ("removed", 128)])
def test_a_cut_out_changes_what_is_behind(background: str, colour: int) -> None:
    matte = Image.new("L", (64, 48), 0)
    matte.paste(255, (20, 10, 40, 40))
    edits = PictureEdits.parse({"background": background})
    made = render(Image.new("RGB", (64, 48), "red"), Recipe(edits, matte_sha256="m"), matte=matte)
    assert made.image.getpixel((0, 0)) == (colour,) * 3 and made.image.getpixel((30, 20)) == (255, 0, 0)
    assert (made.weights is not None) == (background == "removed")
    if made.weights is not None:
        assert (made.weights.getpixel((0, 0)), made.weights.getpixel((30, 20))) == (0, 255)


def test_a_recipe_is_kept_short_and_read_back() -> None:
    assert Recipe().as_row() == {} and Recipe().key == ""
    recipe = Recipe(PictureEdits(turn=90, crop=(0, 0, 0.5, 1)), mask_sha256="ab")
    assert recipe.as_row() == {"turn": 90, "crop": [0.0, 0.0, 0.5, 1.0], "mask_sha256": "ab"}
    assert Recipe.from_row(recipe.as_row()) == recipe
    unused = Recipe(PictureEdits(mask=False), mask_sha256="ab", matte_sha256="cd")
    assert unused.key == "", "neither the mask nor the cut-out counts"
    assert version_of("f" * 64, {}) == "f" * 64
    assert version_of("f" * 64, {"mask_sha256": "ab"}) == "f" * 64, "a mask changes nothing to see"
    assert version_of("f" * 64, {"flip": True}) != "f" * 64


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"crop": "0.1 0.2"}, "not four numbers"),
        ({"crop": (0.5, 0, 0.4, 1)}, "not lie in"),
        ({"crop": (0.5, 0, float("nan"), 1)}, "not lie in"),
        ({"crop": (0.5, 0, 0.51, 1)}, "too small"),
        ({"turn": 45}, "steps of 90"),
        ({"straighten": 16}, "-15 to 15"),
        ({"longest_px": 10}, "64 to 8,192"),
        ({"background": "beach"}, "keep, white, grey, removed"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        PictureEdits.parse(values)


def test_a_crop_is_read_as_a_person_types_it() -> None:
    assert PictureEdits.parse({"crop": "0.1, 0, 0.9, 1"}).crop == (0.1, 0, 0.9, 1)
    assert PictureEdits.parse({"crop": ["0.1,0,0.9,1"]}).crop == (0.1, 0, 0.9, 1)
    assert PictureEdits.parse({"crop": (0, 0, 1, 1)}).crop is None


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def test_a_mask_is_taken_at_the_pictures_size() -> None:
    painted = Image.new("RGBA", (50, 40), (0, 0, 0, 0))
    painted.paste((255, 255, 255, 255), (10, 10, 30, 30))
    mask = masks.read_mask(png(painted), 200, 160)
    assert mask.mode == "L" and mask.size == (200, 160)
    assert (mask.getpixel((80, 80)), mask.getpixel((5, 5))) == (255, 0)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"no picture", "no sound PNG"),
        (png(Image.new("L", (50, 50), 255)), "50 × 50"),
        (png(Image.new("L", (2500, 2000), 255)), "more than its picture"),
        (png(Image.new("L", (50, 40), 0)), "covers nothing"),
        (png(Image.new("L", (50, 40), 255))[:60], "no sound PNG"),
    ],
)
def test_a_mask_that_is_none_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        masks.read_mask(data, 100, 80)


def test_a_bucket_keeps_the_face_in() -> None:
    square = Shape(64, 64)
    assert cut_of(300, 100, square) == (64, 0)
    assert cut_of(300, 100, square, (0.9, 0.2, 1.0, 0.6)) == (128, 0)
    assert cut_of(300, 100, square, (0.0, 0.2, 0.1, 0.6)) == (0, 0)
    assert cut_of(300, 100, square, (0.45, 0.2, 0.55, 0.6)) == (64, 0), "no further than needed"
    assert cut_of(300, 100, square, (0.5, 0.0, 1.0, 1.0)) == (112, 0), "too wide: around its own middle"


@given(
    size=st.tuples(st.integers(16, 3000), st.integers(16, 3000)),
    left=st.floats(0, 0.9), top=st.floats(0, 0.9), side=st.floats(0.01, 0.1),
)  # fmt: skip
def test_a_window_always_lies_in_the_picture(
    size: tuple[int, int], left: float, top: float, side: float
) -> None:
    shape, focus = Shape(512, 384), (left, top, left + side, top + side)
    window = crop_window(*size, shape, focus)
    assert 0 <= window[0] < window[2] <= size[0] + 1e-6 and 0 <= window[1] < window[3] <= size[1] + 1e-6
    wide, high = scaled_size(*size, shape)
    cut = cut_of(*size, shape, focus)
    if side * wide <= shape.width - 1:
        assert cut[0] <= focus[0] * wide + 1e-6 and focus[2] * wide <= cut[0] + shape.width + 1e-6
    if side * high <= shape.height - 1:
        assert cut[1] <= focus[1] * high + 1e-6 and focus[3] * high <= cut[1] + shape.height + 1e-6


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a set of two photographs: the astronaut and the cat."""
    root = tmp_path_factory.mktemp("edits") / "home"
    with Studio.open(Settings(workspace=Workspace(root))) as opened:
        made = opened.datasets.create(name="Eileen", trigger_word="eileen7x")
        sources = [PHOTOS / "astronaut.jpg", PHOTOS / "chelsea.jpg"]
        opened.jobs.wait(opened.datasets.add_pictures(made.id, sources))
    return root


@pytest.fixture
def studio(tmp_path: Path, home: Path) -> Iterator[Studio]:
    shutil.copytree(home, tmp_path / "home")
    with Studio.open(Settings(workspace=Workspace(tmp_path / "home"))) as opened:
        yield opened


@pytest.fixture
def photo(studio: Studio) -> Picture:
    """The astronaut."""
    (made,) = studio.datasets.list()
    return next(p for p in studio.datasets.every_picture(made.id) if p.original_name == "astronaut.jpg")


def cat(studio: Studio, photo: Picture) -> Picture:
    return next(p for p in studio.datasets.every_picture(photo.dataset_id) if p.id != photo.id)


def shown(studio: Studio, picture: Picture, **options: bool) -> tuple[int, int]:
    with Image.open(studio.media("picture", picture.id, **options)) as opened:
        return opened.size


def test_an_edited_picture_is_shown_and_the_file_stays(studio: Studio, photo: Picture) -> None:
    file = studio.workspace.resolve(photo.file)
    before = file.read_bytes()
    edited = studio.edits.set(photo.id, turn=90, crop=(0, 0, 0.5, 1))
    assert edited.edits == {"turn": 90, "crop": [0.0, 0.0, 0.5, 1.0]}
    assert shown(studio, photo) == (160, 320) and shown(studio, photo, original=True) == (320, 320)
    assert shown(studio, photo, thumbnail=True) == (128, 256)
    assert studio.edits.set(photo.id, flip=True).edits["turn"] == 90, "one value changes, the rest stays"
    assert file.read_bytes() == before
    assert studio.edits.reset([photo.id, photo.id]) == 1 and shown(studio, photo) == (320, 320)
    assert studio.edits.recipe(photo.id) == PLAIN


def test_old_renderings_go_and_with_the_picture_all_of_them(
    studio: Studio, photo: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rendered, "SECONDS_KEPT", -1)
    folder = studio.workspace.resolve(photo.file).parent
    for turn in (90, 180):
        studio.edits.set(photo.id, turn=turn)
        studio.media("picture", photo.id)
        studio.media("picture", photo.id, thumbnail=True)
    studio.edits.set_mask(photo.id, png(Image.new("L", (320, 320), 200)))
    assert [len(list((folder / "previews").rglob(f"*{end}"))) for end in (".jpg", ".webp")] == [1, 1]
    assert len(list((folder / "masks").iterdir())) == 1
    studio.datasets.delete_pictures([photo.id])
    assert [f for f in folder.rglob(f"{photo.sha256[:16]}*") if f.is_file()] == []


def test_what_was_rendered_a_moment_ago_stays(studio: Studio, photo: Picture) -> None:
    """An older look at a picture that is made late must not take the newer one away."""
    studio.edits.set(photo.id, turn=90)
    first = studio.media("picture", photo.id)
    studio.edits.set(photo.id, turn=180)
    second = studio.media("picture", photo.id)
    assert first != second and first.is_file() and second.is_file()
    long_ago = time.time() - rendered.SECONDS_KEPT - 1
    os.utime(first, (long_ago, long_ago))
    studio.edits.set(photo.id, turn=270)
    assert studio.media("picture", photo.id).is_file() and second.is_file() and not first.exists()


def test_faces_are_cropped_to_and_those_without_stay(studio: Studio, photo: Picture) -> None:
    other = cat(studio, photo)
    assert studio.edits.crop_to([photo.id, other.id], "face") == 1
    width, height = shown(studio, photo)
    assert abs(width - height) <= 1 and 80 < width < 130
    assert studio.datasets.picture(other.id).edits == {}
    with pytest.raises(InvalidInput, match="No face was found in this picture"):
        studio.edits.crop_to([other.id], "face")
    with pytest.raises(InvalidInput, match="no crop 'nose'"):
        studio.edits.crop_to([photo.id], "nose")  # type: ignore[arg-type]
    assert studio.edits.crop_to([other.id], "smart") == 1
    studio.edits.set(photo.id, turn=180, crop=None)
    studio.edits.crop_to([photo.id], "half")
    assert studio.edits.recipe(photo.id).turn == 180


def test_a_mask_is_kept_beside_the_picture_and_read_back(studio: Studio, photo: Picture) -> None:
    painted = Image.new("L", (160, 160), 0)
    painted.paste(255, (40, 40, 120, 120))
    studio.edits.set_mask(photo.id, png(painted))
    file = studio.edits.mask(photo.id)
    assert file is not None
    with Image.open(file) as mask:
        assert (mask.mode, mask.size, mask.format) == ("L", (320, 320), "PNG")
        assert (mask.getpixel((160, 160)), mask.getpixel((4, 4))) == (255, 0)
    studio.edits.set(photo.id, flip=True)
    assert studio.edits.mask(photo.id) == file, "another edit leaves the mask"
    assert studio.edits.reset([photo.id]) == 1 and studio.edits.mask(photo.id) == file
    assert studio.edits.reset([photo.id]) == 0
    studio.edits.set_mask(photo.id, None)
    assert studio.edits.mask(photo.id) is None


def test_a_background_needs_a_cut_out(studio: Studio, photo: Picture) -> None:
    with pytest.raises(InvalidInput, match="not cut out"):
        studio.edits.set(photo.id, background="white")


def test_whoever_only_looks_changes_nothing(studio: Studio, photo: Picture) -> None:
    viewer = studio.acting_as(Actor(user_id=1, role="viewer"))
    for change in (
        lambda: viewer.edits.set(photo.id, turn=90),
        lambda: viewer.edits.reset([photo.id]),
        lambda: viewer.edits.crop_to([photo.id], "face"),
        lambda: viewer.edits.set_mask(photo.id, None),
        lambda: viewer.edits.set_augment(photo.dataset_id, flip=True),
    ):
        with pytest.raises(NotAllowed):
            change()
    stranger = studio.acting_as(Actor(user_id=99, role="editor"))
    with pytest.raises(NotFound):
        stranger.edits.set(photo.id, turn=90)


def test_the_sheet_shows_what_a_trainer_sees(studio: Studio, photo: Picture) -> None:
    other = cat(studio, photo)
    studio.datasets.set_caption(photo.id, "{trigger} {class} in orange")
    rows = {row.picture_id: row for row in studio.edits.sheet(photo.dataset_id, "pocket", 128)}
    mine = rows[photo.id]
    assert (mine.width, mine.height, mine.scale, mine.enlarged) == (128, 128, 0.4, False)
    assert mine.caption == "eileen7x person in orange" and mine.window == (0, 0, 1, 1) and not mine.masked
    assert rows[other.id].window == pytest.approx((1 / 6, 0, 5 / 6, 1)), "a wide one is cut at both sides"
    studio.edits.set(photo.id, crop=(0.3, 0, 1, 0.3))
    studio.edits.set_mask(photo.id, png(Image.new("L", (320, 320), 255)))
    (again,) = [r for r in studio.edits.sheet(photo.dataset_id, "pocket", 128) if r.picture_id == photo.id]
    assert again.enlarged and again.masked and again.version != mine.version
    assert again.window[0] == 0, "the face at the left stays in"
    whole = studio.edits.overview(photo.dataset_id, "pocket", 128)
    assert whole == Overview(pictures=2, buckets=((Shape(128, 128), 2),), enlarged=1, cut=1, too_long=0)
    assert studio.edits.sheet(photo.dataset_id, "pocket", 128, after=photo.id, limit=1) == [rows[other.id]]
    pictures.set_aside(studio.store, actor=studio.actor, ids=[other.id], aside=True)
    assert [r.picture_id for r in studio.edits.sheet(photo.dataset_id, "pocket", 128)] == [photo.id]


def test_what_is_gone_is_said(studio: Studio, photo: Picture, tmp_path: Path) -> None:
    recipe = Recipe(PLAIN, mask_sha256="ab")
    file = studio.workspace.resolve(photo.file)
    with pytest.raises(NotFound, match="mask of"):
        rendered.rendered(file, recipe, mask=file.parent / "masks" / "nothing.png")
    assert rendered.make(tmp_path / "seen.png", file, recipe).exists(), "a mask changes nothing to see"
    file.unlink()
    studio.edits.set(photo.id, flip=True)
    for options in ({}, {"thumbnail": True}):
        with pytest.raises(NotFound, match="gone"):
            studio.media("picture", photo.id, **options)


def test_a_character_is_cut_out_by_a_job(studio: Studio, photo: Picture) -> None:
    other = cat(studio, photo)
    studio.edits.set(photo.id, flip=True)
    job = studio.jobs.wait(studio.edits.cut_out([photo.id, other.id], "white"))
    assert job.result == {"cut_out": 2, "refused": []}
    recipe = studio.edits.recipe(photo.id)
    assert (recipe.background, recipe.flip) == ("white", True), "the rest of the recipe stays"
    file = studio.edits.matte(photo.id)
    assert file is not None
    with Image.open(file) as matte:
        assert (matte.mode, matte.size) == ("L", (320, 320))
        face, corner = matte.getpixel((138, 70)), matte.getpixel((300, 20))
    assert (face, corner) == (255, 0)
    with Image.open(studio.media("picture", photo.id)) as shown_now:
        assert min(shown_now.convert("RGB").getpixel((20, 20))) > 240  # type: ignore[arg-type, type-var]
    studio.media("picture", photo.id, thumbnail=True)
    assert not studio.edits.sheet(photo.dataset_id, "pocket", 128)[0].masked
    studio.edits.set(photo.id, background="removed")
    assert any(row.masked for row in studio.edits.sheet(photo.dataset_id, "pocket", 128))


def test_what_cannot_be_cut_out_is_said(studio: Studio, photo: Picture) -> None:
    with pytest.raises(InvalidInput, match="cannot be told from the background"):
        cut_out(Image.new("RGB", (64, 64), "red"))
    Image.new("RGB", (320, 320), "red").save(studio.workspace.resolve(photo.file))
    pictures.set_scores(studio.store, actor=studio.actor, id=photo.id, scores={})
    job = studio.jobs.wait(studio.edits.cut_out([photo.id]))
    assert job.result is not None and job.result["cut_out"] == 0
    assert job.result["refused"][0]["name"] == "astronaut.jpg"
    assert studio.edits.matte(photo.id) is None


def test_the_same_picture_is_cut_out_the_same_way() -> None:
    with Image.open(PHOTOS / "coffee.jpg") as opened:
        first, second = cut_out(opened), cut_out(opened)
    assert first.tobytes() == second.tobytes() and 40 < np.asarray(first).mean() < 200


def test_faces_are_looked_for_again_by_a_job(studio: Studio, photo: Picture) -> None:
    before = {**photo.scores, "faces": []}
    pictures.set_scores(studio.store, actor=studio.actor, id=photo.id, scores=before)
    job = studio.jobs.wait(studio.edits.find_faces([photo.id, cat(studio, photo).id]))
    assert job.result == {"looked_at": 2, "with_face": 1, "unreadable": []}
    after = studio.datasets.picture(photo.id).scores
    assert len(after.pop("faces")) == 1
    assert after == {k: v for k, v in photo.scores.items() if k != "faces"}


def test_jobs_are_about_pictures_of_one_set(studio: Studio, photo: Picture) -> None:
    with pytest.raises(InvalidInput, match="one data set"):
        studio.edits.find_faces([])
    with pytest.raises(NotFound):
        studio.edits.cut_out([photo.id, 999])


def test_the_better_detector_can_be_fetched(studio: Studio) -> None:
    found = studio.edits.detector()
    assert (found.title, found.why_none, found.can_download) == ("OpenCV's cascades", "", True)
    job = studio.edits.download_detector()
    assert (job.kind, job.params["repo"], job.params["revision"]) == (
        "download_model", faces.YUNET_REPO, faces.YUNET_REVISION,
    )  # fmt: skip
    with pytest.raises(NotAllowed):
        studio.acting_as(Actor(user_id=1, role="editor")).edits.download_detector()


@pytest.mark.parametrize(("name", "format"), [("a.png", "PNG"), ("a.JPG", "JPEG"), ("a.webp", "WEBP")])
def test_a_picture_is_written_in_another_format(
    studio: Studio, photo: Picture, tmp_path: Path, name: str, format: str
) -> None:
    studio.edits.set(photo.id, longest_px=100)
    with Image.open(studio.edits.convert(photo.id, tmp_path / name)) as written:
        assert (written.format, written.size) == (format, (100, 100))
    with pytest.raises(Conflict, match="there already"):
        studio.edits.convert(photo.id, tmp_path / name)
    with pytest.raises(InvalidInput, match="no PNG"):
        studio.edits.convert(photo.id, tmp_path / "a.gif")


def test_how_pictures_are_varied_is_kept_with_the_set(studio: Studio, photo: Picture) -> None:
    assert not studio.edits.augment(photo.dataset_id).augment.is_on
    studio.edits.set_augment(photo.dataset_id, flip=True, brightness=0.4)
    varied = studio.edits.set_augment(photo.dataset_id, variants=3)
    assert (varied.augment.flip, varied.augment.brightness, varied.augment.variants) == (True, 0.4, 3)
    assert varied.warning == "", "two pictures say nothing about sides"
    studio.datasets.set_caption(photo.id, "looks to the left")
    assert "left or right" in studio.edits.augment(photo.dataset_id).warning
    first, same, other = (studio.edits.preview_augment(photo.id, seed) for seed in (1, 1, 2))
    assert first == same != other
    assert Image.open(io.BytesIO(first)).format == "WEBP"
    with pytest.raises(InvalidInput, match="Brightness is 3"):
        studio.edits.set_augment(photo.dataset_id, brightness=3)
    assert studio.datasets.get(photo.dataset_id).options["augment"]["variants"] == 3


def test_masks_are_kept_in_the_vault_while_something_means_them(studio: Studio, photo: Picture) -> None:
    places = Places(studio.workspace)
    studio.edits.set_mask(photo.id, png(Image.new("L", (320, 320), 255)))
    file = studio.edits.mask(photo.id)
    assert file is not None
    kept = places.path(file.resolve())
    assert kept is not None and Uses(snapshots.referred(studio.store), places)(kept)
    studio.media("picture", studio.edits.set(photo.id, flip=True).id)
    assert not [f for f in places.scan() if "previews" in f.path]
    studio.edits.set_mask(photo.id, None)
    assert not Uses(snapshots.referred(studio.store), places)(kept)


def test_a_full_disk_is_said_and_leaves_nothing(
    studio: Studio, photo: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "no space left", str(file))

    studio.edits.set(photo.id, flip=True)
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutOfDisk, match="edited picture"):
        studio.media("picture", photo.id)
    with pytest.raises(OutOfDisk, match="mask"):
        studio.edits.set_mask(photo.id, png(Image.new("L", (320, 320), 255)))
    folder = studio.workspace.resolve(photo.file).parent
    assert [f for name in ("masks", "previews") for f in (folder / name).glob("*") if f.is_file()] == []


@pytest.mark.parametrize("part", crops.PARTS)
@given(
    box=st.tuples(st.floats(-0.1, 1), st.floats(-0.1, 1), st.floats(0.0005, 1.2), st.floats(0.0005, 1.2)),
    size=st.sampled_from([(4000, 3000), (64, 64), (3000, 1000), (800, 8000)]),
)
def test_every_crop_to_a_face_is_one_that_a_recipe_takes(
    part: crops.Part, box: tuple[float, float, float, float], size: tuple[int, int]
) -> None:
    seen = crops.turned([crops.Face(*box, 0.9)], *size, PictureEdits())
    for face in seen:
        crop = crops.crop_to(face, part, *size)
        assert PictureEdits(crop=crop).crop in (crop, None)


def test_what_is_changed_while_a_crop_is_looked_for_stays(
    studio: Studio, photo: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = cat(studio, photo)
    look = crops.crop_to_detail

    def mirrored_meanwhile(small: Image.Image) -> crops.Crop:
        studio.edits.set(one.id, flip=True)
        return look(small)

    monkeypatch.setattr(crops, "crop_to_detail", mirrored_meanwhile)
    studio.edits.crop_to([one.id], "smart")
    recipe = studio.edits.recipe(one.id)
    assert recipe.flip and recipe.crop is not None


def test_two_who_edit_at_once_lose_nothing(studio: Studio, photo: Picture) -> None:
    started = threading.Barrier(2)

    def change(values: dict[str, Any], augment: dict[str, Any]) -> None:
        started.wait()
        studio.edits.set(photo.id, **values)
        studio.edits.set_augment(photo.dataset_id, **augment)

    for _ in range(20):
        studio.edits.reset([photo.id])
        studio.edits.set_augment(photo.dataset_id, {})
        changes = (({"flip": True}, {"flip": True}), ({"turn": 90}, {"brightness": 0.2}))
        with ThreadPoolExecutor(2) as both:
            for done in [both.submit(change, *given) for given in changes]:
                done.result()
        recipe, augment = studio.edits.recipe(photo.id), studio.edits.augment(photo.dataset_id).augment
        assert (recipe.flip, recipe.turn, augment.flip, augment.brightness) == (True, 90, True, 0.2)
