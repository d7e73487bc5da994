"""Bases of the studio: who uses which, what a deletion frees and refuses, what a download asks."""

from __future__ import annotations

import shutil
from collections import namedtuple
from collections.abc import Iterator

import pytest

from masuka.config import Settings
from masuka.errors import Conflict, InvalidInput, NotFound, OutOfDisk
from masuka.families.flux import DEV, SCHNELL
from masuka.models import catalogue
from masuka.store import models as rows
from masuka.store import runs
from masuka.studio import Studio
from masuka.ui import images, models
from masuka.ui.kit import Wiring
from masuka.ui.view import View
from tests.tiny_flux import tiny_folder
from tests.unit.test_models_importing import installed


@pytest.fixture
def studio(settings: Settings) -> Iterator[Studio]:
    with Studio.open(settings) as opened:
        yield opened


def lora(studio: Studio, base: str, character_id: int | None = None, name: str = "Mira 1") -> rows.Model:
    return rows.add_model(
        studio.store, actor=studio.actor, kind="adapter", name=name, base=base, family="flux",
        path="adapters/1/mira.safetensors", character_id=character_id,
    )  # fmt: skip


def test_what_needs_a_base_is_known(studio: Studio) -> None:
    mira = studio.characters.create(name="Mira", trigger_word="mira7x")
    leo = studio.characters.create(name="Leo", trigger_word="leo7x")
    lora(studio, DEV.id, mira.id)
    runs.add_run(studio.store, actor=studio.actor, name="R", base=DEV.id, family="flux", config={}, character_id=leo.id)
    use = studio.models.uses()[DEV.id]
    assert ([a.name for a in use.adapters], use.runs, sorted(use.characters)) == (["Mira 1"], 1, ["Leo", "Mira"])
    shown = models.draw_catalogue(studio, View(tab="models"))
    assert "Used by 1 LoRA and 1 training of " in shown


def test_a_deleted_base_frees_its_bytes_and_leaves_its_loras(studio: Studio) -> None:
    folder = installed(studio, DEV.id, tiny_folder())
    kept = lora(studio, DEV.id)
    size = catalogue.size_bytes(folder)
    shown = models.draw_catalogue(studio, View(tab="models"))
    assert "1 LoRA of it stays but cannot draw without it: Mira 1." in shown
    assert studio.models.delete_base(DEV.id) == size
    assert not folder.exists() and studio.models.base(DEV.id).folder is None
    assert studio.models.adapter(kept.id)
    with pytest.raises(Conflict, match="not on this machine"):
        studio.images.draw(prompt="a robot", adapter_id=kept.id)
    # The page that shows the LoRA is whole, and offers the base.
    assert "Download FLUX.1 dev" in images.draw_form(studio, View(adapter=kept.id))


def test_a_lora_of_a_persons_own_base_outlives_it(studio: Studio) -> None:
    installed(studio, DEV.id, tiny_folder())
    shutil.copytree(tiny_folder(), studio.workspace.root / "look")
    studio.jobs.wait(studio.sources.add_path("look"))
    kept = lora(studio, "flux1-dev+look")
    studio.models.delete_base("flux1-dev+look")
    assert studio.models.base("flux1-dev+look").about == "It is not here any more."
    assert images.draw_form(studio, View(adapter=kept.id))
    with pytest.raises(NotFound):
        studio.models.download("flux1-dev+look")


def test_a_shared_training_adapter_goes_with_the_last_base_that_learns_with_it(studio: Studio) -> None:
    installed(studio, SCHNELL.id, tiny_folder())
    adapter = catalogue.training_adapter_of(SCHNELL, studio.workspace)
    assert adapter is not None
    adapter.mkdir()
    (adapter / catalogue.FINISHED).write_text("{}")
    (adapter / "lora.safetensors").write_bytes(b"x" * 1000)
    assert studio.models.base(SCHNELL.id).folder is not None
    studio.models.delete_base(SCHNELL.id)
    assert not adapter.exists()


def test_what_may_not_go_stays(studio: Studio) -> None:
    with pytest.raises(Conflict, match="comes with MASUKA"):
        studio.models.delete_base("pocket")
    installed(studio, DEV.id, tiny_folder())
    job = studio.images.draw(prompt="a robot", base=DEV.id)
    with pytest.raises(Conflict, match="A job uses FLUX"):
        studio.models.delete_base(DEV.id)
    studio.jobs.cancel([job.id])
    assert studio.models.delete_base(DEV.id) > 0


def test_a_download_asks_for_room_first_and_once(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    job = studio.models.download("sdxl")
    assert job.params["autoencoder_repo"] and job.params["revision"]
    with pytest.raises(Conflict, match="on its way"):
        studio.models.download("sdxl")
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**12, 10**12 - 2**30, 2**30))
    with pytest.raises(OutOfDisk, match=r"needs 3.* GiB, and 1\.0 GiB are free"):
        studio.models.download(DEV.id)


def test_without_a_supervisor_nothing_is_kept_loaded(studio: Studio) -> None:
    with pytest.raises(Conflict, match="Nothing is kept loaded"):
        studio.advice.free_gpu()


def test_the_page_shows_every_base_with_its_licence_and_its_fit(studio: Studio) -> None:
    shown = models.draw_catalogue(studio, View(tab="models"))
    for base in studio.models.bases():
        assert f'data-base="{base.id}"' in shown
    assert "not for commercial use" in shown and "may be used commercially" in shown
    assert "Trains well on a GPU only: here a step takes minutes." in shown
    assert studio.models.bases()[0].id == "pocket"
    assert models.draw_catalogue(studio, View(tab="models", section="find")) == ""


def test_actions_refuse_what_is_not_named(studio: Studio) -> None:
    for name in ("download", "delete"):
        with pytest.raises(InvalidInput, match="No base is chosen"):
            models.TAB.actions[name](studio, {}, View(tab="models"))
    assert {f"models-{name}" for name in models.TAB.actions} <= set(Wiring(studio, [models.TAB]).actions)
