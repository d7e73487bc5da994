"""One picture shown large: what was found, its crop and turn with a live preview, by hand and keyboard."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, Route, expect

from masuka.requests.edits import PictureEdits
from masuka.store.datasets import Dataset
from masuka.studio import Studio
from tests.browser.conftest import PHONE, App
from tests.browser.test_accessible import findings
from tests.browser.test_datasets import photos

pytestmark = [pytest.mark.browser, pytest.mark.slow]
Visit = Callable[..., Page]


@pytest.fixture(scope="module")
def few(full: App, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dataset]:
    """Six sharp pictures and two doubtful ones."""
    folder = tmp_path_factory.mktemp("few")
    photos(folder, 6, seed=12)
    with Studio.open(full.settings) as studio:
        dataset = studio.datasets.create(name="Few", trigger_word="few1", class_word="robot")
        studio.jobs.wait(studio.datasets.add_pictures(dataset.id, [folder]))
        yield studio.datasets.get(dataset.id)


def shown(page: Page, number: int = 0) -> int:
    """Opens the tile of this number; gives the id of its picture."""
    page.locator("#page-datasets .tile .open").nth(number).click()
    expect(page.locator("#viewer .picture-side")).to_be_visible()
    return int(page.locator("#viewer .picture-side").get_attribute("data-picture") or 0)


def recipe(app: App, picture_id: int) -> PictureEdits:
    with Studio.open(app.settings) as studio:
        return studio.edits.recipe(picture_id)


def saved(page: Page) -> None:
    page.locator("#viewer").get_by_role("button", name="Save", exact=True).click()
    expect(page.locator(".toast").last).to_contain_text("Saved")


def test_a_crop_by_keyboard_is_kept_and_the_tile_shows_it(full: App, visit: Visit, few: Dataset) -> None:
    page = visit(full, tab="datasets", dataset=few.id)
    tile = page.locator("#page-datasets .tile img").first
    before = tile.get_attribute("src")
    picture_id = shown(page)
    large = page.locator("#viewer .stage > img").get_attribute("src")
    page.keyboard.press("c")
    frame = page.locator("#viewer .kept")
    expect(frame).to_be_focused()
    for _ in range(10):
        page.keyboard.press("Shift+ArrowLeft")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(page.locator(".toast").last).to_contain_text("Saved")
    expect(page.locator("#viewer .stage > img")).not_to_have_attribute("src", large or "")
    assert recipe(full, picture_id).crop == pytest.approx((0.03, 0, 0.93, 1), abs=0.001)
    page.keyboard.press("Escape")
    expect(tile).not_to_have_attribute("src", before or "")
    shown(page)
    page.get_by_role("button", name="Back to the original").click()
    expect(page.locator("#viewer .stage > img")).to_have_attribute("src", large or "")


def test_turn_mirror_and_straighten_are_previewed_and_kept(full: App, visit: Visit, few: Dataset) -> None:
    page = visit(full, tab="datasets", dataset=few.id)
    picture_id = shown(page, 1)
    page.get_by_role("button", name="Crop and turn").click()
    preview = page.locator("#viewer .cutter img")
    page.get_by_role("button", name="Turn right").click()
    page.get_by_role("button", name="Mirror").click()
    page.get_by_label("Straighten").fill("4.5")
    expect(preview).to_have_attribute("style", re.compile(re.escape("rotate(94.5deg)")))
    expect(page.locator("#viewer output")).to_have_text("4.5°")
    saved(page)
    kept = recipe(full, picture_id)
    assert (kept.turn, kept.flip, kept.straighten, kept.crop) == (90, True, 4.5, None)
    page.locator(".toast").last.get_by_role("button", name="Undo").click()
    expect(page.locator("#picture-reset")).to_have_count(0)
    assert recipe(full, picture_id) == PictureEdits()


def test_what_is_dragged_on_the_screen_is_what_is_cut(full: App, visit: Visit, few: Dataset) -> None:
    page = visit(full, tab="datasets", dataset=few.id)
    picture_id = shown(page, 2)
    page.get_by_role("button", name="Crop and turn").click()
    page.get_by_role("button", name="Mirror").click()
    drag(page, page.locator('.grip[data-x="left"][data-y="top"]'), 0.25, 0.5)
    saved(page)
    # Seen mirrored, the left side of the screen is the right side of the picture.
    assert recipe(full, picture_id).crop == pytest.approx((0, 0.5, 0.75, 1), abs=0.01)
    with Studio.open(full.settings) as studio:
        with (
            Image.open(studio.edits.rendered(picture_id)) as cut,
            Image.open(studio.media("picture", picture_id, original=True)) as whole,
        ):
            assert cut.size == pytest.approx((whole.width * 0.75, whole.height * 0.5), abs=8)
        studio.edits.reset([picture_id])


def drag(page: Page, handle: Locator, right: float, down: float) -> None:
    """Drags a grip by parts of the preview's size."""
    grip, frame = handle.bounding_box(), page.locator("#viewer .cutter").bounding_box()
    assert grip is not None and frame is not None
    x, y = grip["x"] + grip["width"] / 2, grip["y"] + grip["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + right * frame["width"], y + down * frame["height"], steps=4)
    page.mouse.up()


def test_a_shape_is_kept_to_while_it_is_dragged(full: App, visit: Visit, few: Dataset) -> None:
    page = visit(full, tab="datasets", dataset=few.id)
    shown(page, 3)
    page.get_by_role("button", name="Crop and turn").click()
    page.get_by_label("Shape").select_option("1.5")
    drag(page, page.locator('.grip[data-x="right"][data-y="bottom"]'), -0.3, 0)
    box = page.locator("#viewer .kept").bounding_box()
    assert box is not None and box["width"] / box["height"] == pytest.approx(1.5, rel=0.03)
    page.keyboard.press("Escape")  # leaves the tool
    expect(page.locator("#viewer .cutter")).to_have_count(0)
    expect(page.locator("#viewer .picture-side")).to_be_visible()
    page.keyboard.press("Escape")  # leaves the picture
    expect(page.locator("#viewer")).to_be_hidden()


def test_findings_are_sentences_and_a_key_sets_aside(full: App, visit: Visit, few: Dataset) -> None:
    page = visit(full, tab="datasets", dataset=few.id, only="blurred")
    shown(page)
    side = page.locator("#viewer aside")
    expect(side).to_contain_text("Blurred. No part of it is sharp")
    side.get_by_text("Measures and file").click()
    expect(side).to_contain_text("Sharpness")
    page.keyboard.press("a")
    expect(side.get_by_role("button", name="Take back")).to_be_visible()
    page.keyboard.press("a")
    expect(side.get_by_role("button", name="Take back")).to_have_count(0)
    page.keyboard.press("Escape")
    expect(page.locator("#page-datasets .tile")).to_have_count(1)


def test_a_crop_to_what_matters_is_one_press(full: App, visit: Visit, few: Dataset) -> None:
    page = visit(full, tab="datasets", dataset=few.id)
    picture_id = shown(page, 4)
    page.get_by_role("button", name="Smart", exact=True).click()
    expect(page.locator(".toast").last).to_contain_text("1 picture cropped.")
    expect(page.locator("#picture-reset")).to_be_visible()
    assert recipe(full, picture_id).crop is not None
    page.locator(".toast").last.get_by_role("button", name="Undo").click()
    expect(page.locator("#picture-reset")).to_have_count(0)


def test_what_is_painted_is_what_is_learnt_from(full: App, visit: Visit, few: Dataset) -> None:
    page = visit(full, refused=True, tab="datasets", dataset=few.id)
    picture_id = shown(page, 5)
    page.get_by_role("button", name="Paint a mask").click()
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.locator(".toast").last).to_contain_text("The mask covers nothing.")
    box = page.locator(".painting canvas").bounding_box()
    assert box is not None
    page.get_by_label("Size of the brush").fill("20")
    page.mouse.move(box["x"] + box["width"] * 0.2, box["y"] + box["height"] * 0.5)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + box["height"] * 0.5, steps=3)
    page.mouse.up()
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_role("button", name="Change the mask")).to_be_visible()
    with Studio.open(full.settings) as studio:
        file = studio.edits.mask(picture_id)
        assert file is not None
        with Image.open(file) as mask:
            at = [mask.getpixel((round(mask.width * x), mask.height // 2)) for x in (0.3, 0.8)]
    assert at == [255, 0]
    page.get_by_role("button", name="Change the mask").click()
    page.get_by_role("button", name="Remove the mask").click()
    expect(page.get_by_role("button", name="Paint a mask")).to_be_visible()


def test_a_mask_is_painted_by_keyboard_alone(full: App, visit: Visit, few: Dataset) -> None:
    page = visit(full, tab="datasets", dataset=few.id)
    picture_id = shown(page, 3)
    page.locator("#picture-mask").focus()
    page.keyboard.press("Enter")
    canvas, brush = page.locator(".painting canvas"), page.locator(".painting .brush")
    expect(canvas).to_be_focused()
    expect(brush).to_be_visible()
    wide = brush.bounding_box()
    for _ in range(6):
        page.keyboard.press("]")
    larger = brush.bounding_box()
    assert wide is not None and larger is not None and larger["width"] > 2 * wide["width"]
    expect(page.locator("[data-painter-says]")).to_have_text("brush of 20 %")
    page.keyboard.down(" ")  # a line from the middle to the left
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    page.keyboard.up(" ")
    expect(page.locator("[data-painter-says]")).to_contain_text("% across, 50 % down")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+Space")
    expect(page.locator("[data-painter-says]")).to_have_text("erased")
    page.get_by_role("button", name="Save", exact=True).press("Enter")
    expect(page.get_by_role("button", name="Change the mask")).to_be_focused()
    with Studio.open(full.settings) as studio:
        file = studio.edits.mask(picture_id)
        assert file is not None
        with Image.open(file) as mask:
            at = [mask.getpixel((round(mask.width * x), mask.height // 2)) for x in (0.25, 0.5, 0.8)]
        studio.edits.set_mask(picture_id, None)
    assert at == [255, 0, 0], "painted at the left, erased again in the middle"


def test_what_somebody_else_wrote_meanwhile_is_shown_before_it_is_replaced(
    full: App, visit: Visit, few: Dataset
) -> None:
    page = visit(full, refused=True, tab="datasets", dataset=few.id)
    picture_id = shown(page, 2)
    caption, save = page.locator("#viewer textarea"), page.locator(f"#picture-{picture_id}-go")
    caption.fill("few1 robot, mine")
    with Studio.open(full.settings) as studio:
        studio.datasets.set_caption(picture_id, "few1 robot, theirs")
    save.click()
    expect(page.locator("#viewer [data-theirs]")).to_contain_text("few1 robot, theirs")
    expect(caption).to_have_value("few1 robot, mine")
    with Studio.open(full.settings) as studio:
        assert studio.datasets.picture(picture_id).caption == "few1 robot, theirs"
    save.click()
    expect(page.locator(".toast").last).to_contain_text("Caption saved.")
    expect(page.locator("#viewer [data-unsaved]")).to_be_hidden()
    with Studio.open(full.settings) as studio:
        assert studio.datasets.picture(picture_id).caption == "few1 robot, mine"


def test_nothing_is_done_to_the_picture_before(full: App, visit: Visit, few: Dataset) -> None:
    page = visit(full, refused=True, tab="datasets", dataset=few.id)
    line, held = ["well"], list[Route]()

    def through(route: Route) -> None:
        if line[-1] == "slow":
            held.append(route)
        elif line[-1] == "lost":
            route.abort()
        else:
            route.continue_()

    page.route("**/fragment/picture/*", through)
    first, side = shown(page), page.locator("#viewer aside")
    line.append("slow")
    page.keyboard.press("ArrowRight")
    expect(side).to_have_attribute("aria-busy", "true")
    page.keyboard.press("a")
    page.keyboard.press("c")
    side.get_by_role("button", name="Set aside").click()
    expect(side).to_have_attribute("aria-busy", "true")
    expect(page.locator("#viewer .cutter")).to_have_count(0)
    line.append("lost")
    page.keyboard.press("ArrowRight")
    expect(side).to_have_text("The app does not answer. Open the picture again in a moment.")
    line.append("well")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#viewer .picture-side")).to_have_attribute("data-picture", str(first))
    expect(side).not_to_have_attribute("aria-busy", "true")
    assert len(held) == 1
    with Studio.open(full.settings) as studio:
        assert studio.doctor.report(few.id).aside == 0


def test_a_typed_caption_is_there_until_it_is_saved(full: App, visit: Visit, few: Dataset) -> None:
    page = visit(full, tab="datasets", dataset=few.id)
    picture_id = shown(page, 1)
    caption, told = page.locator("#viewer textarea"), page.locator("#viewer [data-unsaved]")
    here = page.locator("#viewer .picture-side")
    caption.fill("few1 robot, typed and not saved")
    expect(told).to_be_visible()
    page.locator("#picture-aside").click()
    expect(page.locator("#viewer").get_by_role("button", name="Take back")).to_be_visible()
    expect(caption).to_have_value("few1 robot, typed and not saved")
    page.locator("#picture-aside").click()
    expect(page.locator("#viewer").get_by_role("button", name="Set aside")).to_be_visible()
    page.get_by_role("button", name="Next picture").click()
    expect(here).not_to_have_attribute("data-picture", str(picture_id))
    expect(told).to_be_hidden()
    page.get_by_role("button", name="Previous picture").click()
    expect(here).to_have_attribute("data-picture", str(picture_id))
    expect(caption).to_have_value("few1 robot, typed and not saved")
    page.locator("#viewer").get_by_role("button", name="Save caption").click()
    expect(page.locator(".toast").last).to_contain_text("Caption saved.")
    expect(told).to_be_hidden()
    with Studio.open(full.settings) as studio:
        assert studio.datasets.picture(picture_id).caption == "few1 robot, typed and not saved"


def test_keys_rest_while_a_mask_is_painted(full: App, visit: Visit, few: Dataset) -> None:
    page = visit(full, tab="datasets", dataset=few.id)
    shown(page, 2)
    page.get_by_role("button", name="Paint a mask").click()
    page.get_by_role("button", name="Erase").click()
    for key in ("c", "a", "ArrowRight"):
        page.keyboard.press(key)
    expect(page.locator("#viewer .cutter")).to_have_count(1)
    expect(page.locator("#viewer .painting")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#viewer").get_by_role("button", name="Set aside")).to_be_visible()


def test_arrows_stay_in_the_list_that_was_opened(full: App, visit: Visit, few: Dataset) -> None:
    page = visit(full, tab="home")
    expect(page.locator("#page-home .tile").first).to_be_attached()  # hidden later, and still there
    page.get_by_role("navigation", name="Tabs").get_by_role("link", name="Datasets").click()
    page.get_by_role("link", name="Few", exact=True).click()
    page.get_by_role("link", name="Captions").click()
    last = page.locator(".caption").last.get_attribute("data-id")
    page.locator(".caption [data-open]").first.click()
    side = page.locator("#viewer .picture-side")
    expect(side).to_be_visible()
    page.keyboard.press("ArrowLeft")
    expect(side).to_have_attribute("data-picture", last or "")


def test_the_tools_on_a_phone(full: App, visit: Visit, few: Dataset) -> None:
    page = visit(full, size=PHONE, tab="datasets", dataset=few.id)
    shown(page)
    page.get_by_role("button", name="Crop and turn").click()
    for name in ("Turn right", "Mirror", "Save"):
        box = page.locator("#viewer").get_by_role("button", name=name, exact=True).bounding_box()
        assert box is not None and box["y"] >= 0 and box["y"] + box["height"] <= PHONE["height"], name
    wide = page.evaluate("() => document.getElementById('viewer').scrollWidth")
    assert wide <= PHONE["width"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_in_the_viewer_and_its_tools(
    full: App, visit: Visit, few: Dataset, scheme: str
) -> None:
    page = visit(full, scheme=scheme, tab="datasets", dataset=few.id, only="blurred")
    shown(page)
    page.locator("#viewer details summary").click()
    found = findings(page)
    page.get_by_role("button", name="Crop and turn").click()
    found += findings(page)
    assert not found, "\n".join(found)


def test_the_file_itself_is_never_changed(full: App, few: Dataset) -> None:
    with Studio.open(full.settings) as studio:
        picture = studio.datasets.pictures(few.id, limit=1)[0]
        file = Path(studio.workspace.resolve(picture.file))
        before = file.read_bytes()
        studio.edits.set(picture.id, turn=180, crop=(0.1, 0.1, 0.9, 0.9))
        assert studio.edits.rendered(picture.id) != file and file.read_bytes() == before
        studio.edits.reset([picture.id])
