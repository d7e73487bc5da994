"""LoRAs in the library: looked at, written for another program, merged, hidden and brought back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from masuka.config import Settings, Workspace
from masuka.studio import Studio
from tests.browser.conftest import PHONE, App, start, stop
from tests.unit.test_adapter_studio import pocket_lora

pytestmark = [pytest.mark.browser, pytest.mark.slow]
Visit = Callable[..., Page]


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """An app with a character and two LoRAs for Pocket."""
    folder = tmp_path_factory.mktemp("adapters") / "home"
    with Studio.open(Settings(workspace=Workspace(folder), device="cpu")) as studio:
        mira = studio.characters.create(name="Mira", trigger_word="mira7x", class_word="robot")
        for number, name in enumerate(("Mira in rain", "Mira & <b>film</b> look"), start=1):
            file = pocket_lora(folder.parent / f"{number}.safetensors", seed=number, trigger="mira7x robot")
            studio.jobs.wait(studio.adapters.bring(path=str(file), base="pocket", name=name, character_id=mira.id))
    running = start(folder)
    yield running
    stop(running)


@pytest.mark.parametrize("size", [None, PHONE], ids=["desk", "phone"])
def test_a_lora_is_looked_at_and_written_for_another_program(
    visit: Visit, app: App, size: dict[str, int] | None
) -> None:
    page = visit(app, tab="library", section="models", size=size)
    expect(page.get_by_role("heading", name="Mira & <b>film</b> look", exact=True)).to_be_visible()
    expect(page.get_by_text("Drop a LoRA here, or choose it")).to_be_visible()
    page.get_by_role("link", name="More").first.click()
    expect(page.get_by_text("LoRA of rank 3, 2 layers")).to_be_visible()
    expect(page.get_by_text("ComfyUI reads it.")).to_be_visible()
    page.get_by_text("Where it changes most").click()
    expect(page.locator("dt", has_text="transformer_blocks.0").first).to_be_visible()
    page.get_by_text("For another program").click()
    page.get_by_label("For", exact=True).select_option("kohya")
    page.locator("#adapter-convert-go").click()
    link = page.locator("#library-adapter-work").get_by_role("link", name="Download")
    expect(page.get_by_role("heading", name="Its other files")).to_be_visible()
    with page.expect_download() as saved:
        link.click()
    assert saved.value.suggested_filename.endswith("kohya.safetensors")
    assert Path(saved.value.path()).stat().st_size > 1000


def test_two_are_merged_and_one_is_hidden_and_brought_back(visit: Visit, app: App) -> None:
    page = visit(app, tab="library", section="models")
    page.get_by_role("link", name="More").first.click()
    page.get_by_text("Merge with another").click()
    page.get_by_label("Weight of the other").fill("0.5")
    page.locator("#adapter-merge-name").fill("Both of them")
    page.locator("#adapter-merge-go").click()
    expect(page.get_by_role("heading", name="Both of them", exact=True)).to_be_visible()
    page.get_by_role("button", name="Hide").first.click()
    expect(page.get_by_text("1 hidden LoRA")).to_be_visible()
    page.get_by_text("1 hidden LoRA").click()
    page.get_by_role("button", name="Bring back").click()
    expect(page.get_by_text("1 hidden LoRA")).to_have_count(0)
    with Studio.open(app.settings) as studio:
        made = next(v.adapter for v in studio.adapters.versions() if v.adapter.name == "Both of them")
        assert studio.adapters.inspect(made.id).ranks == (6,)


def test_a_dropped_file_becomes_a_lora(visit: Visit, app: App, tmp_path: Path) -> None:
    page = visit(app, tab="library", section="models")
    file = pocket_lora(tmp_path / "dropped.safetensors", seed=9)
    page.get_by_label("LoRA files to add").set_input_files(str(file))
    expect(page.get_by_role("heading", name="dropped", exact=True)).to_be_visible()
    page.get_by_label("LoRA files to add").set_input_files({"name": "x.safetensors", "mimeType": "", "buffer": b"no"})
    expect(page.get_by_text("not a whole safetensors file")).to_be_visible()
