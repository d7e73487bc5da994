"""From a folder of photos to a sorted set: drop, look, remedy, keep the best, train."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image, ImageFilter
from playwright.sync_api import Page, Route, expect

from masuka.access.links import Links
from masuka.pocket.world import draw, sample_scene
from masuka.store import users
from masuka.store.datasets import Dataset
from masuka.studio import Studio
from tests.browser.conftest import DESK, PHONE, App, settled
from tests.browser.test_accessible import findings

pytestmark = [pytest.mark.browser, pytest.mark.slow]
Visit = Callable[..., Page]
HOSTILE = "<img src=x onerror='window.broken=1'>"


def photos(folder: Path, count: int, *, seed: int = 1) -> list[Path]:
    """Sharp pictures that are all different; of number 3 there is a blurred, of 5 a smaller one."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)
    made = []
    for number in range(count):
        drawn = draw(sample_scene(rng), 640).convert("RGB")
        made.append(folder / f"photo {number:02d}.jpg")
        drawn.save(made[-1], quality=92)
        if number == 3:
            made.append(folder / "blurred.jpg")
            drawn.transpose(Image.Transpose.FLIP_LEFT_RIGHT).filter(ImageFilter.GaussianBlur(14)).save(
                made[-1]
            )
        if number == 5:
            made.append(folder / "smaller.jpg")
            drawn.resize((560, 560)).save(made[-1], quality=60)
    return made


@pytest.fixture(scope="module")
def sorted_set(full: App, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dataset]:
    """A set of 30 pictures that the doctor has looked at: one blurred, one a copy."""
    folder = tmp_path_factory.mktemp("photos")
    photos(folder, 28, seed=4)
    with Studio.open(full.settings) as studio:
        dataset = studio.datasets.create(name=f"Sorted {HOSTILE}", trigger_word="sort1", class_word="robot")
        studio.jobs.wait(studio.datasets.add_pictures(dataset.id, [folder]))
        named = next(
            p for p in studio.datasets.every_picture(dataset.id) if p.original_name == "photo 00.jpg"
        )
        studio.datasets.set_caption(named.id, f"sort1 robot {HOSTILE} ${{1+1}}")
        yield studio.datasets.get(dataset.id)


def test_dropped_photos_are_sorted_mended_and_trained_on(full: App, visit: Visit, tmp_path: Path) -> None:
    with Studio.open(full.settings) as studio:
        dataset = studio.datasets.create(name="From photos", trigger_word="photo1", class_word="robot")
    made = photos(tmp_path / "in", 27)
    (tmp_path / "in" / "notes.png").write_bytes(b"no picture")
    page = visit(full, tab="datasets", dataset=dataset.id)
    expect(page.locator("#page-datasets .empty")).to_contain_text("No pictures yet")
    page.locator(".drop input[type=file]").set_input_files([*made, tmp_path / "in" / "notes.png"])
    doctor = page.get_by_role("region", name="Doctor")
    expect(doctor.get_by_role("heading")).to_contain_text("1 of them a copy")
    expect(page.locator("#page-datasets .left-out")).to_contain_text("notes.png")
    chips = page.get_by_role("navigation", name="Which pictures")
    expect(chips.get_by_role("link", name="Blurred 1")).to_be_visible()

    chips.get_by_role("link", name="Blurred 1").click()
    tiles = page.locator("#page-datasets .tile")
    expect(tiles).to_have_count(1)
    expect(tiles.first).to_contain_text("Blurred")
    page.get_by_role("button", name="Set the blurred aside").click()
    expect(page.locator(".toast").last).to_contain_text("1 picture set aside.")
    expect(page.locator("#page-datasets .empty")).to_be_visible()
    chips.get_by_role("link", name="All kept").click()
    page.get_by_role("button", name="Keep the best 25").click()
    expect(page.locator(".toast").last).to_contain_text("The best 25 stay")
    expect(chips.get_by_role("link", name="All kept 25")).to_be_visible()
    expect(tiles).to_have_count(25)
    page.locator(".toast").last.get_by_role("button", name="Undo").click()
    expect(chips.get_by_role("link", name="Set aside 1")).to_be_visible()
    page.get_by_role("button", name="Keep the best 25").click()
    expect(tiles).to_have_count(25)

    page.get_by_role("link", name="Train on this set").click()
    expect(page.locator("#page-training")).to_be_visible()
    assert f"dataset={dataset.id}" in page.url


def test_a_folder_keeps_its_captions(full: App, visit: Visit, tmp_path: Path) -> None:
    made = photos(tmp_path / "set" / "10_fold1 robot", 3, seed=9)
    made[0].with_suffix(".txt").write_text("fold1 robot waving")
    with Studio.open(full.settings) as studio:
        dataset = studio.datasets.create(name="Whole folder", trigger_word="fold1", class_word="robot")
    page = visit(full, tab="datasets", dataset=dataset.id)
    page.locator("[data-upload-folder]").set_input_files(tmp_path / "set")
    expect(page.locator("#page-datasets .tile")).to_have_count(3)
    expect(page.locator("#page-datasets .tile").filter(has_text="fold1 robot waving")).to_have_count(1)
    heading = page.get_by_role("region", name="Doctor").get_by_role("heading")
    expect(heading).not_to_contain_text("so far")  # while it runs, the files lie there
    left = [p for p in full.settings.workspace.uploads.iterdir() if p.name[0].isdigit()]  # "export-…" are not of uploads
    assert left == []


def test_other_ways_in_refuse_with_a_sentence_under_the_field(full: App, visit: Visit) -> None:
    page = visit(full, tab="datasets", dataset=1, part="add")
    page.get_by_text("From Hugging Face").click()
    page.locator("#datasets-hub-repo").fill("no repository at all")
    page.locator("#datasets-hub-go").click()
    expect(page.locator("#datasets-hub-repo-error")).to_contain_text("no name of a Hugging Face data set")
    page.get_by_text("From a list of links").click()
    page.locator("#datasets-links-links").fill("# nothing but a remark")
    page.locator("#datasets-links-go").click()
    expect(page.locator("#datasets-links-links-error")).to_contain_text("There is no link")
    page.get_by_role("link", name="Back to the pictures").click()
    expect(page.locator("#page-datasets .tile").first).to_be_visible()


def test_the_selection_is_set_aside_and_taken_back(full: App, visit: Visit, sorted_set: Dataset) -> None:
    page = visit(full, tab="datasets", dataset=sorted_set.id)
    chips = page.get_by_role("navigation", name="Which pictures")
    tiles = page.locator("#page-datasets .tile")
    expect(tiles.first).to_be_visible()
    before = tiles.count()
    for number in (0, 1):
        page.locator("#page-datasets .pick input").nth(number).check(force=True)
    page.locator(".selection:visible").get_by_role("button", name="Set aside").click()
    expect(tiles).to_have_count(before - 2)
    chips.get_by_role("link", name="Set aside 2").click()
    expect(tiles).to_have_count(2)
    expect(tiles.first).to_contain_text("set aside")
    page.locator("#page-datasets .pick input").first.check(force=True)
    page.locator(".selection:visible").get_by_role("button", name="Select all shown").click()
    page.locator(".selection:visible").get_by_role("button", name="Take back").click()
    expect(page.locator("#page-datasets .empty")).to_contain_text("Nothing is set aside")
    page.go_back()
    expect(tiles).to_have_count(before)


def test_copies_are_unfolded_by_keyboard(full: App, visit: Visit, sorted_set: Dataset) -> None:
    page = visit(full, tab="datasets", dataset=sorted_set.id)
    copy = page.locator("#page-datasets .tile[data-behind]")
    expect(copy).to_have_count(1)
    expect(copy).to_be_hidden()
    fold = page.get_by_role("button", name="1 copy")
    fold.focus()
    page.keyboard.press("Enter")
    expect(fold).to_have_attribute("aria-expanded", "true")
    expect(copy).to_be_visible()
    expect(copy).to_contain_text("Nearly the same")
    page.keyboard.press("Enter")
    expect(copy).to_be_hidden()


def test_the_keyboard_stays_where_it_was(full: App, visit: Visit, sorted_set: Dataset) -> None:
    page = visit(full, tab="datasets", dataset=sorted_set.id, only="doubtful")
    remedies = page.locator("#page-datasets .tile figcaption").get_by_role("button", name="Set aside")
    expect(remedies.first).to_be_visible()
    before, gone = remedies.count(), remedies.first.get_attribute("data-with") or ""
    remedies.first.focus()
    page.keyboard.press("Enter")
    expect(remedies).to_have_count(before - 1)
    expect(remedies.first).to_be_focused()  # what stands where it was
    page.get_by_role("button", name="Undo").last.click()
    expect(remedies).to_have_count(before)
    remedies.last.focus()
    page.evaluate("about => masuka.send('datasets-aside', JSON.parse(about))", gone)  # as somebody else would
    expect(remedies).to_have_count(before - 1)
    expect(remedies.last).to_be_focused()
    page.get_by_role("button", name="Undo").last.click()
    expect(remedies).to_have_count(before)


def test_what_is_sent_goes_on_elsewhere_and_in_turn(full: App, visit: Visit, tmp_path: Path) -> None:
    made = photos(tmp_path / "in", 2, seed=21)
    with Studio.open(full.settings) as studio:
        dataset = studio.datasets.create(name="In turn", trigger_word="turn1", class_word="robot")
    page = visit(full, tab="datasets", dataset=dataset.id)
    held: list[Route] = []
    free: list[bool] = []
    page.route("**/upload/**", lambda route: route.continue_() if free else held.append(route))
    choose = page.locator(".drop input[type=file]")
    choose.set_input_files(made[0])
    expect(page.locator("[data-upload-state]")).to_have_text("Sending 1 of 1 file")
    choose.set_input_files(made[1])
    expect(page.locator(".toast").last).to_contain_text("1 file will be sent next.")
    page.get_by_role("link", name="Captions").click()
    expect(page.locator("#sending")).to_have_text("Sending 1 of 1 file")
    page.get_by_role("link", name="Pictures", exact=True).click()
    expect(page.locator("[data-upload-state]")).to_have_text("Sending 1 of 1 file")
    expect(page.locator("#sending")).to_have_count(0)
    free.append(True)
    held[0].continue_()
    expect(page.locator("#page-datasets .tile")).to_have_count(2)


def test_an_order_and_a_filter_are_in_the_address(full: App, visit: Visit, sorted_set: Dataset) -> None:
    page = visit(full, tab="datasets", dataset=sorted_set.id)
    page.get_by_label("Order").select_option("worst")
    page.wait_for_function("() => location.search.includes('sort=worst')")
    first = page.locator("#page-datasets .tile").first
    expect(first.locator(".chip")).to_be_visible()
    page.reload()
    settled(page)
    expect(page.get_by_label("Order")).to_have_value("worst")
    page.get_by_role("link", name="All data sets").click()
    expect(page.locator("#datasets-new-go")).to_be_visible()
    assert "sort=" not in page.url and "only=" not in page.url


def test_how_strict_the_doctor_is_can_be_chosen(full: App, visit: Visit, sorted_set: Dataset) -> None:
    page = visit(full, tab="datasets", dataset=sorted_set.id)
    doctor = page.get_by_role("region", name="Doctor")
    doctor.get_by_label("Strictness").select_option("none")
    expect(doctor.get_by_role("heading")).not_to_contain_text("doubtful")
    doctor.get_by_label("Strictness").select_option("basic")
    expect(doctor.get_by_role("heading")).to_contain_text("1 of them a copy")


def test_names_and_captions_stay_text(full: App, visit: Visit, sorted_set: Dataset) -> None:
    page = visit(full, tab="datasets", dataset=sorted_set.id)
    tile = page.locator("#page-datasets .tile").filter(has_text="onerror")
    expect(tile).to_have_count(1)
    tile.locator(".open").click()
    expect(page.locator("#viewer textarea")).to_have_value(f"sort1 robot {HOSTILE} ${{1+1}}")
    expect(page.get_by_role("heading", name="Sorted <img", include_hidden=True)).to_have_count(1)
    assert page.evaluate("window.broken") is None


def test_a_viewer_sees_and_changes_nothing(full: App, visit: Visit, sorted_set: Dataset) -> None:
    with Studio.open(full.settings) as studio:
        looker = users.add_user(studio.store, actor=studio.actor, username="looker of sets", role="viewer")
        studio.people.share(looker.id, "all")
    token = Links(full.settings.workspace.secrets).new_token(looker.id)
    page = visit(full, refused=True)  # its pictures are asked for while the session changes
    page.context.clear_cookies()
    page.goto(f"{full.address}?token={token}&tab=datasets&dataset={sorted_set.id}")
    settled(page)
    expect(page.get_by_role("region", name="Doctor")).to_be_visible()
    for name in ("Keep the best 25", "Look again", "Set aside", "Add pictures"):
        assert page.locator("#page-datasets").get_by_role("button", name=name).count() == 0, name
    assert page.get_by_role("link", name="Train on this set").count() == 0
    assert page.locator(".drop").count() == 0 and page.get_by_label("Strictness").count() == 0
    page.locator("#page-datasets .tile .open").first.click()
    expect(page.locator("#viewer .prompt")).to_be_visible()
    assert page.locator("#viewer aside button").count() == 0


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_it_fits_and_the_next_step_is_in_sight(
    full: App, visit: Visit, sorted_set: Dataset, size: dict[str, int]
) -> None:
    page = visit(full, size=size, tab="datasets", dataset=sorted_set.id)
    box = page.get_by_role("link", name="Train on this set").bounding_box()
    assert box is not None and box["y"] + box["height"] <= size["height"]
    for part in ("", "add", "settings"):
        page.goto(f"{full.address}?tab=datasets&dataset={sorted_set.id}&part={part}")
        settled(page)
        wide = page.evaluate("() => [document.documentElement.scrollWidth, window.innerWidth]")
        assert wide[0] <= wide[1], part


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_on_a_filled_set(full: App, visit: Visit, sorted_set: Dataset, scheme: str) -> None:
    page = visit(full, scheme=scheme, tab="datasets", dataset=sorted_set.id)
    found = findings(page)
    page.get_by_role("navigation", name="Which pictures").get_by_role("link", name="Blurred").click()
    expect(page.locator("#page-datasets .tile")).to_have_count(1)
    found += findings(page)
    page.locator("#page-datasets .pick input").first.check(force=True)
    found += findings(page)
    page.goto(f"{full.address}?tab=datasets&dataset={sorted_set.id}&part=add")
    settled(page)
    for box in page.locator("#page-datasets details").all():
        box.evaluate("box => { box.open = true }")
    found += findings(page)
    assert not found, "\n".join(found)
