"""Captions edited like a spreadsheet: keyboard, saving, conflicts, lost connections, many at once."""

from __future__ import annotations

import hashlib
import random
import zipfile
from collections.abc import Callable, Sequence

import pytest
from playwright.sync_api import Locator, Page, expect

from masuka.pocket.world import draw, sample_scene
from masuka.store import pictures
from masuka.studio import Studio
from tests.browser.conftest import PHONE, App
from tests.browser.test_accessible import findings

pytestmark = [pytest.mark.browser, pytest.mark.slow]
Visit = Callable[..., Page]
HOSTILE = [
    "<img src=x onerror='window.broken=1'> mira7x",
    "mira7x ${7*7} {{7*7}} </textarea><script>window.broken=1</script>",
    "mira7x שלום עולם, רובוט על החוף",
    "mira7x 🤖 robot 👩‍👩‍👧, 'single' \"double\"",
    "mira7x " + "longest " * 249 + "a",
]


def make_set(app: App, name: str, captions: Sequence[str], *, shape: tuple[int, int] = (128, 128)) -> list[int]:
    """[data set, picture, picture, …] with these captions; all show the same drawing."""
    with Studio.open(app.settings) as studio:
        dataset = studio.datasets.create(name=name, trigger_word="mira7x", class_word="robot")
        folder = studio.workspace.datasets / f"{dataset.id:05d}"
        (folder / "thumbs").mkdir(parents=True)
        image = draw(sample_scene(random.Random(1))).resize(shape)
        image.save(folder / "a.png")
        image.save(folder / "thumbs" / "a.webp")
        ids = [dataset.id]
        with studio.store.write():
            for number, caption in enumerate(captions):
                added = pictures.add_picture(
                    studio.store, actor=studio.actor, dataset_id=dataset.id, width=shape[0], height=shape[1],
                    file=studio.workspace.relative(folder / "a.png"), original_name=f"IMG_{number:04d}.jpg", bytes=1,
                    sha256=hashlib.sha256(f"{name} {number}".encode()).hexdigest(), caption=caption,
                    caption_from="file",
                )  # fmt: skip
                assert added is not None
                ids.append(added.id)
    return ids


def stored(app: App, picture_id: int) -> str:
    with Studio.open(app.settings) as studio:
        return studio.datasets.picture(picture_id).caption


def captions_of(visit: Visit, app: App, dataset: int, **more: object) -> Page:
    page = visit(app, tab="datasets", dataset=dataset, part="captions", **more)
    expect(page.locator(".caption").first).to_be_visible()
    return page


def text(page: Page, picture_id: int) -> Locator:
    return page.locator(f".caption[data-id='{picture_id}'] [data-text]")


def saved(page: Page, picture_id: int) -> Locator:
    return page.locator(f".caption[data-id='{picture_id}'] [data-save]")


def test_a_caption_is_written_and_left_by_keyboard_alone(full: App, visit: Visit) -> None:
    dataset, one, two, three = make_set(full, "Keys", ["mira7x robot", "mira7x robot, two", "three"])
    page = captions_of(visit, full, dataset)
    text(page, one).focus()
    page.keyboard.press("ArrowDown")
    expect(text(page, two)).to_be_focused()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    page.keyboard.type(", at dusk")
    expect(saved(page, one)).to_have_text("Saved")  # while it is still written in
    page.keyboard.press("Enter")
    expect(text(page, two)).to_be_focused()
    page.keyboard.type(", umbrellas")  # typing begins to write
    page.keyboard.press("Tab")
    expect(page.get_by_label("Caption of IMG_0002.jpg")).to_be_focused()
    page.keyboard.type(" mira7x")
    page.keyboard.press("Shift+Tab")
    expect(page.get_by_label("Caption of IMG_0001.jpg")).to_be_focused()
    page.keyboard.press("Escape")
    expect(text(page, two)).to_be_focused()
    for picture_id in (one, two, three):
        expect(saved(page, picture_id)).to_have_text("Saved")
    assert [stored(full, i) for i in (one, two, three)] == [
        "mira7x robot, at dusk", "mira7x robot, two, umbrellas", "three mira7x"
    ]  # fmt: skip
    page.keyboard.press("Control+z")  # all that was typed there, not its last letter
    expect(text(page, three)).to_have_text("three")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_label("Select IMG_0001.jpg")).to_be_focused()
    page.keyboard.press("Tab")  # one stop for the whole table
    assert not page.evaluate("document.querySelector('#captions-grid').contains(document.activeElement)")
    text(page, three).focus()
    page.keyboard.press("Control+Home")
    expect(text(page, one)).to_be_focused()
    page.keyboard.press(" ")
    expect(page.locator(".selection:visible")).to_contain_text("1 selected")


CUT = """() => {
  const real = window.fetch;
  window.cut = true;
  window.fetch = (where, ...more) =>
    window.cut && String(where).startsWith("caption/") ? Promise.reject(new TypeError("cut")) : real(where, ...more);
}"""


def test_what_is_typed_outlives_a_lost_connection_and_a_reload(full: App, visit: Visit) -> None:
    dataset, one, two = make_set(full, "Lost", ["mira7x one", "mira7x two"])
    page = captions_of(visit, full, dataset)
    page.evaluate(CUT)
    text(page, one).click()
    page.keyboard.press("End")
    page.keyboard.type(", offline")
    page.keyboard.press("Escape")
    row = page.locator(f".caption[data-id='{one}']")
    expect(row).to_contain_text("The app does not answer. What you wrote is kept here")
    expect(text(page, one)).to_have_text("mira7x one, offline")
    expect(page.locator("[data-captions-state]")).to_contain_text("1 caption not saved yet")
    assert stored(full, one) == "mira7x one"
    page.evaluate("window.cut = false")
    row.get_by_role("button", name="Try now").click()
    expect(saved(page, one)).to_have_text("Saved")
    expect(row).not_to_contain_text("does not answer")
    page.evaluate("window.cut = true")
    text(page, two).click()
    page.keyboard.press("End")
    page.keyboard.type("!")
    expect(page.locator("[data-captions-state]")).to_contain_text("1 caption not saved yet")
    page.on("dialog", lambda dialog: dialog.accept())  # the browser asks before it leaves
    page.reload()
    expect(text(page, two)).to_have_text("mira7x two!")
    expect(saved(page, two)).to_have_text("Saved")
    assert [stored(full, one), stored(full, two)] == ["mira7x one, offline", "mira7x two!"]


def test_two_people_write_the_same_caption(full: App, visit: Visit) -> None:
    dataset, one, two = make_set(full, "Both", ["mira7x one", "mira7x two"])
    page = captions_of(visit, full, dataset)
    with Studio.open(full.settings) as studio:
        studio.datasets.set_caption(one, "theirs one")
        studio.datasets.set_caption(two, "theirs two")
    for picture_id in (one, two):
        text(page, picture_id).click()
        page.keyboard.press("End")
        page.keyboard.type(" and mine")
        page.keyboard.press("Escape")
    first, second = (page.locator(f".caption[data-id='{i}']") for i in (one, two))
    expect(first).to_contain_text("Somebody else changed this caption meanwhile, to theirs one.")
    assert [stored(full, one), stored(full, two)] == ["theirs one", "theirs two"]
    first.get_by_role("button", name="Keep mine").click()
    expect(saved(page, one)).to_have_text("Saved")
    second.get_by_role("button", name="Take theirs").click()
    expect(text(page, two)).to_have_text("theirs two")
    assert [stored(full, one), stored(full, two)] == ["mira7x one and mine", "theirs two"]


def test_a_look_never_takes_the_row_that_is_written_in(full: App, visit: Visit) -> None:
    dataset, one, two = make_set(full, "Looks", ["mira7x one", "mira7x two"])
    page = captions_of(visit, full, dataset)
    text(page, one).click()
    page.keyboard.press("End")
    with Studio.open(full.settings) as studio:
        studio.datasets.set_caption(two, "mira7x two, changed elsewhere")
    page.evaluate("document.getElementById('shell-look').click()")
    expect(text(page, two)).to_have_text("mira7x two, changed elsewhere")
    area = page.get_by_label("Caption of IMG_0000.jpg")
    expect(area).to_be_focused()
    page.keyboard.type(" goes on")
    expect(area).to_have_value("mira7x one goes on")
    expect(saved(page, one)).to_have_text("Saved")


def test_captions_are_text_whatever_they_hold(full: App, visit: Visit) -> None:
    dataset, *ids = make_set(full, "Hostile", HOSTILE)
    page = captions_of(visit, full, dataset, refused=True)
    for picture_id, caption in zip(ids, HOSTILE, strict=True):
        assert text(page, picture_id).text_content() == caption
        text(page, picture_id).click()
        area = page.locator("textarea.write")
        expect(area).to_have_value(caption)
        page.keyboard.press("Escape")
    page.get_by_role("button", name="Tags", exact=True).click()
    expect(page.locator("[data-tag]").first).to_be_visible()
    assert page.evaluate("window.broken") is None
    text(page, ids[4]).click()
    page.keyboard.press("End")
    page.keyboard.type(" and more")
    row = page.locator(f".caption[data-id='{ids[4]}']")
    expect(row.locator(".caption-note")).to_contain_text("The caption has 2,009 characters.")
    expect(saved(page, ids[4])).to_have_text("Not saved")
    assert stored(full, ids[4]) == HOSTILE[4]
    for _ in range(len(" and more")):
        page.keyboard.press("Backspace")
    expect(row.locator(".caption-note")).to_have_count(0)
    page.keyboard.press("Escape")


def test_five_hundred_rows_come_in_pages_and_are_searched(full: App, visit: Visit) -> None:
    captions = [f"mira7x robot, number {n}" if n % 50 else "" for n in range(500)]
    dataset, *ids = make_set(full, "Many", captions)
    page = captions_of(visit, full, dataset)
    rows = page.locator(".caption")
    expect(rows).to_have_count(80)
    expect(page.locator("[data-captions-count]")).to_have_text("500 captions")
    rows.last.scroll_into_view_if_needed()
    expect(rows).to_have_count(160)
    page.get_by_label("Search captions").fill("number 48")
    expect(page.locator("[data-captions-count]")).to_have_text("11 captions shown")
    expect(rows).to_have_count(11)
    page.get_by_label("Search captions").fill("")
    page.get_by_label("Only with problems").check()
    expect(rows).to_have_count(10)
    expect(rows.first).to_contain_text("It is empty.")
    text(page, ids[0]).click()
    page.keyboard.type("mira7x robot, mended")
    expect(saved(page, ids[0])).to_have_text("Saved")
    page.keyboard.press("Escape")
    expect(rows).to_have_count(10)  # what was just mended does not jump away


def test_a_long_list_of_pictures_keeps_its_place(full: App, visit: Visit) -> None:
    dataset, first, *others = make_set(full, "Tall", [f"mira7x {n}" for n in range(120)])
    page = visit(full, tab="datasets", dataset=dataset)
    tiles = page.locator("#datasets-grid .tile")
    expect(tiles.first).to_be_visible()
    for shown in (80, 120):
        tiles.last.scroll_into_view_if_needed()
        expect(tiles).to_have_count(shown)
    tiles.last.scroll_into_view_if_needed()
    tiles.last.locator(".open").focus()  # what has the keyboard is taken out and put back
    before = page.evaluate("scrollY")
    page.evaluate("id => masuka.send('datasets-aside', {ids: [id], on: true})", first)
    expect(tiles).to_have_count(len(others))
    assert page.evaluate("scrollY") > before - 400  # a row may be gone


def test_many_are_changed_at_once_and_taken_back(full: App, visit: Visit) -> None:
    dataset, *ids = make_set(full, "At once", ["mira7x in red", "mira7x in red, smiling", "mira7x in blue"])
    page = captions_of(visit, full, dataset)
    page.locator(".captions-bar").get_by_role("button", name="Find and replace").click()
    page.get_by_label("Find", exact=True).fill("in red")
    button = page.locator("#captions-replace-go")
    expect(button).to_have_text("Replace in 2 captions")
    page.get_by_label(f"Select IMG_{1:04d}.jpg").check(force=True)
    expect(button).to_have_text("Replace in 1 caption")
    page.locator(".selection:visible").get_by_role("button", name="Clear").click()
    page.get_by_label("Replace with").fill("in green")
    expect(button).to_have_text("Replace in 2 captions")
    button.click()
    expect(page.locator(".toast").last).to_contain_text("2 captions changed.")
    expect(text(page, ids[0])).to_have_text("mira7x in green")
    assert [stored(full, i) for i in ids] == ["mira7x in green", "mira7x in green, smiling", "mira7x in blue"]
    text(page, ids[0]).focus()
    page.keyboard.press("Control+z")
    expect(page.locator(".toast").last).to_contain_text("2 captions are as before.")
    expect(text(page, ids[0])).to_have_text("mira7x in red")
    page.locator(".captions-bar").get_by_role("button", name="Tags").click()
    page.locator("[data-tag]").filter(has_text="smiling").click()
    page.get_by_label("New words for smiling").fill("laughing")
    page.get_by_role("button", name="Rename").click()
    expect(text(page, ids[1])).to_have_text("mira7x in red, laughing")
    page.locator("[data-tag]").filter(has_text="laughing").click()
    page.get_by_role("button", name="Remove everywhere").click()
    expect(text(page, ids[1])).to_have_text("mira7x in red")
    page.locator("#captions-undo").click()
    expect(text(page, ids[1])).to_have_text("mira7x in red, laughing")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_editor_is_accessible(full: App, visit: Visit, scheme: str) -> None:
    dataset, one, *_ = make_set(full, f"Axe {scheme}", ["mira7x robot", "", "no word in it"])
    page = captions_of(visit, full, dataset, scheme=scheme)
    assert not findings(page)
    page.get_by_label("Select IMG_0001.jpg").check(force=True)
    for tool in ("Find and replace", "Add words", "Tags"):
        page.locator(".captions-bar").get_by_role("button", name=tool).click()
        assert not findings(page), tool
    with Studio.open(full.settings) as studio:
        studio.datasets.set_caption(one, "theirs")
    text(page, one).click()
    page.keyboard.type("x")
    expect(page.locator(".caption-note")).to_be_visible()
    assert not findings(page)


def test_a_phone_writes_captions(full: App, visit: Visit) -> None:
    dataset, one, _ = make_set(full, "Phone", ["mira7x robot", HOSTILE[4]])
    page = captions_of(visit, full, dataset, size=PHONE)
    text(page, one).tap()
    page.keyboard.press("End")
    page.keyboard.type(", from the sofa")
    expect(saved(page, one)).to_have_text("Saved")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    box = page.locator("textarea.write").bounding_box()
    assert box is not None and box["width"] > 200


def test_a_captioner_writes_what_is_missing_and_is_taken_back(full: App, visit: Visit) -> None:
    dataset, one, two = make_set(full, "Written", ["", "mira7x robot, by hand"])
    page = captions_of(visit, full, dataset)
    page.locator(".captions-bar").get_by_role("button", name="Write captions").click()
    expect(page.get_by_label("Pocket", exact=True)).to_be_checked()
    page.get_by_text("more captioners, not ready yet").click()
    expect(page.locator(".captioner").filter(has_text="Florence-2")).to_contain_text("is not on this machine")
    expect(page.get_by_label("Florence-2")).to_be_disabled()
    assert not findings(page)
    page.get_by_label("Which pictures").select_option("empty")
    page.locator("#captions-write-go").click()
    expect(page.locator(".captioning .job")).to_be_visible()
    expect(text(page, one)).to_contain_text("mira7x")
    expect(page.locator(f".caption[data-id='{one}']")).to_contain_text("Pocket")
    expect(text(page, two)).to_have_text("mira7x robot, by hand")
    expect(page.locator(".captioning .job")).to_have_count(0)
    text(page, two).focus()
    page.keyboard.press("Control+z")
    expect(page.locator(".toast").last).to_contain_text("captions by Pocket. 1 caption is as before.")
    expect(text(page, one)).to_have_text("")


def test_what_a_captioner_could_not_do_is_said_and_tried_again(full: App, visit: Visit) -> None:
    dataset, one, _ = make_set(full, "Failed", ["mira7x one", "mira7x two"])
    with Studio.open(full.settings) as studio:
        pictures.set_told_caption(
            studio.store, actor=studio.actor, id=one, caption=None, caption_from="", problem="The file is damaged <b>."
        )
    page = captions_of(visit, full, dataset)
    expect(page.locator(".captioning")).to_contain_text("1 picture could not be captioned.")
    page.get_by_role("button", name="Show them").click()
    expect(page.locator(".caption")).to_have_count(1)
    expect(page.locator(f".caption[data-id='{one}'] .marks-cell")).to_contain_text("The file is damaged <b>.")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".toast").last).to_contain_text("1 picture once more.")
    job = page.locator(".captioning .job")
    expect(job).to_contain_text("Captions by Pocket for Failed")
    job.get_by_role("button", name="Cancel").click()
    expect(job).to_have_count(0)


def test_what_the_trainer_sees(full: App, visit: Visit) -> None:
    dataset, *_ = make_set(full, "Seen", ["{trigger} {class} <b>", "mira7x"], shape=(512, 128))
    page = visit(full, tab="datasets", dataset=dataset, part="trainer")
    tiles = page.locator("#page-datasets .tile.seen")
    expect(tiles).to_have_count(2)
    expect(page.locator(".buckets tbody tr")).to_have_text(["128 × 1282"])
    expect(tiles.first).to_contain_text("mira7x robot <b>")
    expect(tiles.first).to_contain_text("75% cut off")
    frame, window = (tiles.first.locator(f".{name}").bounding_box() for name in ("frame", "window"))
    assert frame is not None and window is not None
    assert abs(frame["width"] / frame["height"] - 4) < 0.1
    assert abs(window["x"] - frame["x"] - 0.375 * frame["width"]) < 1
    assert abs(window["width"] - frame["width"] / 4) < 1
    assert not findings(page)
    # A base that is not on this machine is shown where the address names it.
    page = visit(full, tab="datasets", dataset=dataset, part="trainer", base="flux1-dev")
    tiles = page.locator("#page-datasets .tile.seen")
    expect(tiles.first).to_contain_text("enlarged")
    expect(page.locator(".notice.warn")).to_contain_text("2 pictures are enlarged")
    page.get_by_label("Resolution").fill("100000")
    page.keyboard.press("Tab")
    expect(page.locator("#trainer-form-px-error")).to_contain_text("Resolution must be")
    page.get_by_label("Resolution").fill("256")
    page.keyboard.press("Tab")
    page.wait_for_url("**px=256**")


def test_a_set_is_packed_and_fetched(full: App, visit: Visit) -> None:
    dataset, *_ = make_set(full, "Packed", ["mira7x one"])
    page = visit(full, size=PHONE, tab="datasets", dataset=dataset, part="export")
    page.get_by_label("Imagefolder").check(force=True)
    page.get_by_role("button", name="Pack for download").click()
    link = page.locator("#datasets-exports").get_by_role("link", name="Download")
    expect(link).to_be_visible()
    with page.expect_download() as waiting:
        link.click()
    with zipfile.ZipFile(waiting.value.path()) as archive:
        assert any(name.endswith("metadata.jsonl") for name in archive.namelist())
    expect(page.get_by_role("button", name="Send to Hugging Face")).to_be_disabled()
    expect(page.get_by_text("There is no Hugging Face token yet.")).to_be_visible()
    assert not findings(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
