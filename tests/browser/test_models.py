"""The Models page in a real browser: look, download, refuse, import, delete; against a stand-in of the Hub."""

from __future__ import annotations

import json
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from playwright.sync_api import Page, expect
from safetensors.torch import save_file

from masuka.config import Workspace
from masuka.models import catalogue
from tests.browser.conftest import PHONE, App, start, stop
from tests.fake_civitai import Civitai, civitai
from tests.fake_hub import Hub, hub
from tests.tiny_flux import tiny_folder, tiny_pipeline

pytestmark = [pytest.mark.browser, pytest.mark.slow]
Visit = Callable[..., Page]
REPO = "mira/film-look"


@dataclass
class Place:
    """An app that finds the stand-ins where the services are."""

    app: App
    hub: Hub
    civitai: Civitai


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    home = tmp_path_factory.mktemp("models") / "home"
    workspace = Workspace(home).create()
    folder = catalogue.place_of("flux1-dev", workspace)
    shutil.copytree(tiny_folder(), folder)
    (folder / catalogue.FINISHED).write_text(json.dumps({"repo": "a/b", "commit": "c" * 40, "files": {}, "bytes": 1}))
    save_file({n: t.clone() for n, t in tiny_pipeline().transformer.state_dict().items()}, home / "Night.safetensors")
    with hub() as server, civitai() as there, pytest.MonkeyPatch.context() as patch:
        files = {f.relative_to(tiny_folder()).as_posix(): f.read_bytes() for f in tiny_folder().rglob("*") if f.is_file()}
        server.models[REPO] = {**files, "README.md": b"x" * 6 * 2**20}
        server.models["mira/old"] = {"model_index.json": b'{"_class_name": "StableDiffusionPipeline"}'}
        server.tags[REPO] = ["diffusers", "text-to-image", "license:apache-2.0", "diffusers:FluxPipeline"]
        there.add(7, "Film <b>look</b>", b"x" * 4096, made_for="Illustrious")
        patch.delenv("HF_HUB_OFFLINE", raising=False)
        for name, value in {"HF_ENDPOINT": server.address, "CIVITAI_BASE_URL": there.address, "HF_HOME": str(home / "hf")}.items():
            patch.setenv(name, value)
        app = start(home)
        yield Place(app, server, there)
        stop(app)



@pytest.mark.parametrize("size", [None, PHONE], ids=["desk", "phone"])
def test_the_catalogue_is_whole_and_fits_the_screen(place: Place, visit: Visit, size: dict[str, int] | None) -> None:
    page = visit(place.app, size=size, tab="models")
    expect(page.locator("[data-base='pocket']")).to_contain_text("comes with masuka")
    expect(page.locator("[data-base='flux1-dev']")).to_contain_text("not for commercial use")
    expect(page.locator("[data-region='models-advice']")).to_contain_text("Draws on any machine.")
    wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0
    page.locator("#models-detect").click()
    expect(page.locator(".toast").last).to_contain_text("Found no NVIDIA GPU")


def test_a_repository_is_looked_at_downloaded_and_deleted(place: Place, visit: Visit) -> None:
    page = visit(place.app, tab="models", section="own")
    page.locator("#models-repo-repo").fill("mira/old")
    page.locator("#models-repo-go").click()
    expect(page.locator("#models-repo-repo-error")).to_contain_text("Stable Diffusion 1 or 2")
    page.locator("#models-repo-repo").fill(REPO)
    page.locator("#models-repo-go").click()
    expect(page.locator(".checked")).to_contain_text("Apache 2.0: may be used commercially")
    place.hub.hold = threading.Event()
    try:
        page.get_by_role("button", name="Download 7 MiB").click()
        mine = page.locator("[data-base='flux1-dev+film-look']")
        expect(mine.locator("progress[value]")).to_be_visible()
        expect(mine).to_contain_text(re.compile(r"Downloading mira/film-look · .+ of 6 MiB"))
    finally:
        place.hub.hold.set()
    expect(mine).to_contain_text("on this machine")
    mine.get_by_role("button", name="Delete").click()
    expect(page.locator("dialog.ask")).to_contain_text("Its files go from this machine (7 MiB).")
    page.get_by_role("button", name="Delete it").click()
    expect(page.locator(".toast").last).to_contain_text("7 MiB are free again")
    expect(mine).to_have_count(0)
    assert not catalogue.place_of("flux1-dev+film-look", place.app.settings.workspace).exists()


def test_a_single_file_is_taken_in_and_offered_for_drawing(place: Place, visit: Visit) -> None:
    page = visit(place.app, tab="models", section="own")
    page.locator("#models-path-path").fill("no-such.safetensors")
    page.locator("#models-path-go").click()
    expect(page.locator("#models-path-path-error")).to_contain_text("There is nothing at")
    expect(page.get_by_role("heading", name="Drop a safetensors file here")).to_be_visible()
    page.locator("#page-models .drop input[type=file]").set_input_files(place.app.settings.workspace.root / "Night.safetensors")
    expect(page.locator("[data-base='flux1-dev+night']")).to_contain_text("on this machine")
    page.locator("[data-base='flux1-dev+night']").get_by_role("link", name="Draw").click()
    chosen = page.locator("#images-form-base")
    expect(chosen).to_have_value("flux1-dev+night")
    offered = chosen.locator("option").all_inner_texts()
    assert offered == ["Pocket", "FLUX.1 dev", "Night (yours)"]  # what is not here is on the Models page


def test_models_are_searched_for_and_what_is_unknown_is_not_offered(place: Place, visit: Visit) -> None:
    page = visit(place.app, tab="models", section="find")
    page.locator("#models-search-query").fill("film")
    page.locator("#models-search-go").click()
    found = page.locator("[data-region='models-found']")
    expect(found).to_contain_text("For FLUX.1 · by mira")
    page.locator("#models-search-where").select_option("civitai")
    page.locator("#models-search-go").click()
    expect(found).to_contain_text("Film <b>look</b>")
    place.civitai.down = True
    page.locator("#models-search-go").click()
    expect(page.locator(".toast.bad")).to_contain_text("CivitAI answered 503")
    place.civitai.down = False


def test_the_recommendations_can_be_edited(place: Place, visit: Visit) -> None:
    page = visit(place.app, tab="models")
    page.locator("#models-edit-table summary").click()
    table = page.locator("#models-table-table")
    table.fill("{")
    page.locator("#models-table-go").click()
    expect(page.locator("#models-table-table-error")).to_contain_text("This is no JSON")
    tier = {"name": "my machine", "vram_gib": 0, "ram_gib": 0, "draw": ["pocket"], "train": ["pocket"]}
    table.fill(json.dumps({"tiers": [tier]}))
    page.locator("#models-table-go").click()
    expect(page.locator("[data-region='models-advice']")).to_contain_text("my machine")
    page.get_by_role("button", name="Reset the table").click()
    page.get_by_role("button", name="Reset it").click()
    expect(page.locator("[data-region='models-advice']")).not_to_contain_text("my machine")
