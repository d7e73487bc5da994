"""What a person does on each tab, in a real browser, on a studio with things in it."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from masuka.store import runs
from masuka.studio import Studio
from tests.browser.conftest import DESK, ITEMS, PHONE, App, settled

pytestmark = [pytest.mark.browser, pytest.mark.slow]
Visit = Callable[..., Page]
TABS = ("home", "datasets", "training", "images", "library", "models", "settings")


def png(colour: str) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (300, 300), colour).save(out, "PNG")
    return out.getvalue()


def test_tabs_are_links_with_history(full: App, visit: Visit) -> None:
    page = visit(full)
    page.get_by_role("link", name="Library").click()
    settled(page)
    assert "tab=library" in page.url and "token" not in page.url
    page.get_by_role("link", name="Queue").click()
    expect(page.get_by_role("heading", name="All jobs")).to_be_visible()
    page.go_back()
    expect(page.locator("#page-library .tile").first).to_be_visible()
    page.reload()
    expect(page.locator("#page-library .tile").first).to_be_visible()
    assert page.title() == "Library · masuka"


def test_a_bad_upload_is_refused_with_a_sentence_and_the_good_one_stays(
    full: App, visit: Visit, tmp_path: Path
) -> None:
    with Studio.open(full.settings) as studio:
        dataset = studio.datasets.create(name="Uploads", trigger_word="upl01", class_word="robot")
    page = visit(full, tab="datasets", dataset=dataset.id)
    page.locator(".drop input[type=file]").set_input_files(
        [
            {"name": "good.png", "mimeType": "image/png", "buffer": png("red")},
            {
                "name": "<img src=x onerror=alert(1)>.png",
                "mimeType": "image/png",
                "buffer": b"this is no picture",
            },
        ]
    )
    expect(page.locator("#page-datasets .tile")).to_have_count(1)
    refused = page.locator("#page-datasets .notice.warn").filter(has_text="1 file not added")
    expect(refused).to_be_visible()
    expect(refused).to_contain_text("onerror=alert(1)")
    expect(page.get_by_role("heading", name="Uploads")).to_be_visible()
    left = [p for p in full.settings.workspace.uploads.iterdir() if p.name[0].isdigit()]  # "export-…" are not of uploads
    assert left == []


def test_a_value_out_of_range_is_said_under_its_field(full: App, visit: Visit) -> None:
    page = visit(full, tab="training")
    steps = page.locator("#training-form-steps")
    steps.fill("0")
    steps.blur()
    error = page.locator("#training-form-steps-error")
    expect(error).to_be_visible()
    assert "must be" in error.inner_text()
    steps.fill("400")
    expect(error).to_be_hidden()


def test_advanced_settings_count_what_was_changed_remember_and_reset(full: App, visit: Visit) -> None:
    page = visit(full, tab="training")
    page.locator("#training-form-advanced summary").click()
    page.locator("#training-form-rank").fill("8")
    expect(page.locator(".changed")).to_have_text("· 1 changed")
    page.reload()
    settled(page)
    expect(page.locator("#training-form-rank")).to_have_value("8")
    page.get_by_role("button", name="Reset to defaults").click()
    expect(page.locator(".changed")).to_have_text("")


def test_a_preset_fills_the_form_and_leaves_the_prompt(full: App, visit: Visit) -> None:
    page = visit(full, tab="images", base="flux1-dev", adapter=0)
    page.locator("#images-form-prompt").fill("a ship at dawn")
    page.get_by_role("button", name="Cinematic").click()
    expect(page.locator("#images-form-width")).to_have_value("1536")
    expect(page.locator("#images-form-height")).to_have_value("640")
    expect(page.locator("#images-form-num_inference_steps")).to_have_value("40")
    expect(page.locator("#images-form-shape")).to_have_value("")
    expect(page.locator("#images-form-prompt")).to_have_value("a ship at dawn")


def test_a_refusal_of_the_studio_is_shown_beside_the_field(full: App, visit: Visit) -> None:
    page = visit(full, tab="datasets")
    page.locator("#datasets-new-name").fill("Spark")
    page.locator("#datasets-new-trigger_word").fill("two words")
    page.locator("#datasets-new-go").click()
    expect(page.locator("#datasets-new-trigger_word-error")).to_contain_text("one word")
    page.locator("#datasets-new-trigger_word").fill("spark9")
    page.locator("#datasets-new-go").click()
    expect(page.get_by_role("heading", name="Spark")).to_be_visible()
    expect(page.locator("#page-datasets .empty")).to_contain_text("No pictures yet")


def test_a_caption_beside_its_picture(full: App, visit: Visit) -> None:
    page = visit(full, tab="datasets", dataset=1)
    page.locator("#page-datasets .tile .open").first.click()
    page.locator("#viewer textarea").fill("mira7x robot, hand written")
    page.locator("#viewer").get_by_role("button", name="Save caption").click()
    expect(page.locator(".toast")).to_contain_text("Caption saved.")
    page.keyboard.press("Escape")
    expect(page.locator("#page-datasets .tile figcaption").first).to_contain_text("mira7x robot, hand written")


def test_a_picture_is_deleted_only_after_a_yes(full: App, visit: Visit) -> None:
    page = visit(full, tab="datasets", dataset=1)
    tiles = page.locator("#page-datasets .tile")
    expect(tiles.first).to_be_visible()
    before = tiles.count()
    page.locator("#page-datasets .pick input").last.check(force=True)
    page.locator(".selection:visible").get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Keep").click()
    assert tiles.count() == before
    page.locator(".selection:visible").get_by_role("button", name="Delete").click()
    expect(page.get_by_role("dialog")).to_contain_text("Delete 1 picture?")
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(tiles).to_have_count(before - 1)


def test_a_training_is_deleted_only_after_a_yes(full: App, visit: Visit) -> None:
    workspace = full.settings.workspace
    with Studio.open(full.settings) as studio:
        kept, gone = (
            runs.add_run(
                studio.store, actor=studio.actor, name=name, base="pocket", family="flux", config={"steps": 20}
            ).id
            for name in ("Kept 1", "Gone 1")
        )
        for run_id in (kept, gone):
            checkpoint = workspace.runs / f"{run_id:05d}" / "checkpoints" / "step-000020"
            checkpoint.mkdir(parents=True)
            (checkpoint / "weights.safetensors").write_bytes(b"x")
            runs.add_metrics(studio.store, run_id=run_id, rows=[{"step": 1, "epoch": 0, "loss": 0.5}])
    page = visit(full, tab="training", run=gone)
    expect(page.get_by_role("heading", name="Gone 1", level=1)).to_be_visible()
    delete = page.get_by_role("button", name="Delete this training")
    delete.click()
    page.get_by_role("dialog").get_by_role("button", name="Keep").click()
    assert (workspace.runs / f"{gone:05d}").is_dir()
    delete.click()
    expect(page.get_by_role("dialog")).to_contain_text("Delete Gone 1?")
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.locator(".toast").last).to_contain_text("The training is deleted.")
    expect(page.get_by_role("heading", name="Gone 1", level=1)).to_be_hidden()
    assert [(workspace.runs / f"{run_id:05d}").exists() for run_id in (kept, gone)] == [True, False]
    with Studio.open(full.settings) as studio:
        left = [run.id for run in studio.training.runs()]
        assert kept in left and gone not in left


def test_the_library_pages_searches_stars_and_undoes(full: App, visit: Visit) -> None:
    page = visit(full, tab="library")
    tiles = page.locator("#page-library .tile")
    expect(tiles).to_have_count(40)
    page.locator("#page-library .tile").last.scroll_into_view_if_needed()
    page.mouse.wheel(0, 20_000)
    expect(tiles).to_have_count(80)
    page.mouse.wheel(0, 20_000)
    expect(tiles).to_have_count(ITEMS)
    ids = page.eval_on_selector_all("#page-library .tile", "tiles => tiles.map(t => Number(t.dataset.id))")
    assert ids == sorted(set(ids), reverse=True)

    page.locator("#library-search").fill("number 77")
    expect(tiles).to_have_count(1)
    page.locator("#page-library .star").first.click(force=True)
    page.locator("#library-search").fill("")
    expect(tiles).to_have_count(40)
    page.get_by_label("Starred only").check()
    expect(tiles).to_have_count(1)
    page.locator("#page-library .pick input").first.check(force=True)
    page.locator(".selection:visible").get_by_role("button", name="Delete").click()
    expect(tiles).to_have_count(0)
    page.get_by_role("button", name="Undo").click()
    expect(tiles).to_have_count(1)


def test_the_viewer_by_keyboard(full: App, visit: Visit) -> None:
    page = visit(full, tab="library")
    first = page.locator("#page-library .tile .open").first
    first.focus()
    page.keyboard.press("Enter")
    image = page.locator("#viewer .stage img")
    expect(image).to_be_visible()
    before = image.get_attribute("src")
    page.keyboard.press("ArrowRight")
    expect(image).not_to_have_attribute("src", before or "")
    expect(page.locator("#viewer aside")).to_contain_text("<b>${1+1}</b>")
    page.keyboard.press("Escape")
    expect(page.locator("#viewer")).to_be_hidden()


def test_many_pictures_are_downloaded_as_one_zip(full: App, visit: Visit) -> None:
    page = visit(full, tab="library")
    for number in range(3):
        page.locator("#page-library .pick input").nth(number).check(force=True)
    with page.expect_download() as waiting:
        page.locator(".selection:visible").get_by_role("button", name="Download").click()
    with zipfile.ZipFile(waiting.value.path()) as archive:
        assert len(archive.namelist()) == 3 and archive.testzip() is None


def test_settings_keep_a_key_and_never_show_it(full: App, visit: Visit) -> None:
    page = visit(full, tab="settings")
    page.locator("#settings-key-name").select_option("FAL_KEY")
    page.locator("#settings-key-value").fill("fal-secret-canary-123456")
    page.locator("#settings-key-go").click()
    expect(page.locator("#page-settings")).to_contain_text("stored, encrypted")
    assert "canary" not in page.content()
    page.locator("#settings-backup").click()
    expect(page.locator(".toast").last).to_contain_text("Saved as masuka-")
    with page.expect_download() as waiting:
        page.get_by_role("link", name="Download diagnostics").click()
    with zipfile.ZipFile(waiting.value.path()) as archive:
        assert "report.json" in archive.namelist()
        assert not any(b"canary" in archive.read(name) for name in archive.namelist())


def test_two_browsers_see_the_same_without_a_reload(full: App, visit: Visit) -> None:
    one, two = visit(full, tab="datasets"), visit(full, tab="datasets")
    one.locator("#datasets-new-name").fill("Shared")
    one.locator("#datasets-new-trigger_word").fill("shared1")
    one.locator("#datasets-new-go").click()
    expect(one.get_by_role("heading", name="Shared")).to_be_visible()
    two.evaluate("window.dispatchEvent(new Event('focus'))")
    expect(two.get_by_role("link", name="Shared")).to_be_visible()


def test_a_page_that_nobody_sees_asks_nothing(full: App, visit: Visit) -> None:
    page = visit(full)
    looks = page.evaluate(
        """() => {
          window.looks = 0;
          window.hidden = true;
          document.getElementById("shell-look").addEventListener("click", () => { window.looks += 1; });
          Object.defineProperty(document, "hidden", { get: () => window.hidden });
          for (let second = 0; second < 5; second += 1) window.masuka.tick();
          return window.looks;
        }"""
    )
    assert looks == 0
    page.wait_for_function(
        "() => { window.hidden = false; document.dispatchEvent(new Event('visibilitychange')); return window.looks; }"
    )


@pytest.mark.parametrize("tab", TABS)
def test_a_phone_shows_every_tab_without_scrolling_sideways(full: App, visit: Visit, tab: str) -> None:
    page = visit(full, size=PHONE, tab=tab)
    wide = page.evaluate("() => [document.documentElement.scrollWidth, window.innerWidth]")
    assert wide[0] <= wide[1]
    current = page.locator("#shell-nav a[aria-current]").bounding_box()
    assert current is not None and current["x"] >= 0 and current["x"] + current["width"] <= PHONE["width"] + 1


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_the_first_action_is_visible_without_scrolling(
    fresh: App, visit: Visit, size: dict[str, int]
) -> None:
    page = visit(fresh, size=size, tab="datasets")
    box = page.locator("#datasets-new-go").bounding_box()
    assert box is not None and box["y"] + box["height"] <= size["height"]


def test_signing_out_everywhere_shows_the_login_page(tmp_path: Path, visit: Visit) -> None:
    from tests.browser.conftest import start, stop

    app = start(tmp_path / "home")
    try:
        page = visit(app, refused=True, tab="settings")
        page.get_by_role("button", name="Sign out everywhere").click()
        page.get_by_role("dialog").get_by_role("button", name="Sign out").click()
        page.wait_for_url("**/login")
        expect(page.get_by_role("heading", name="Open masuka")).to_be_visible()
    finally:
        stop(app)
