"""What is chosen on the page: no LoRA at all, an earlier picture's settings, a training's end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from masuka.config import Settings
from masuka.jobs import queue
from masuka.store import items, models
from masuka.store.jobs import Job
from masuka.studio import Studio
from masuka.ui import images
from masuka.ui.cards import job_actions
from masuka.ui.view import View


@pytest.fixture
def studio(settings: Settings) -> Iterator[Studio]:
    with Studio.open(settings) as opened:
        yield opened


def adapter_of(studio: Studio, character_id: int) -> models.Model:
    return models.add_model(
        studio.store, actor=studio.actor, kind="adapter", name="Mira 1", base="pocket", family="flux",
        path="adapters/1/mira.safetensors", sha256="0" * 64, trigger_word="mira7x", class_word="robot",
        character_id=character_id, config={},
    )  # fmt: skip


def selected(form: str) -> str:
    choice = form.split('name="adapter_id"')[1].split("</select>")[0]
    return choice.split(" selected")[0].rsplit('value="', 1)[1].rstrip('"')


def test_a_characters_lora_is_chosen_unless_none_is(studio: Studio) -> None:
    character = studio.characters.create(name="Mira", trigger_word="mira7x")
    made = adapter_of(studio, character.id)
    for adapter, shown in ((None, str(made.id)), (made.id, str(made.id)), (0, "0")):
        assert selected(images.draw_form(studio, View(character=character.id, adapter=adapter))) == shown


@pytest.mark.parametrize("with_adapter", [True, False])
def test_use_again_chooses_the_pictures_own_lora_and_base(studio: Studio, with_adapter: bool) -> None:
    character = studio.characters.create(name="Mira", trigger_word="mira7x")
    made = adapter_of(studio, character.id)
    item = items.add_item(
        studio.store, actor=studio.actor, file="media/items/a.png", width=64, height=64, prompt="x", seed=3,
        adapter_id=made.id if with_adapter else None, settings={"request": {"base": "flux-schnell", "prompt": "x"}},
    )  # fmt: skip
    outcome = images.on_again(studio, {"id": item.id}, View(character=character.id))
    assert outcome.go["adapter"] == (made.id if with_adapter else 0)
    assert outcome.go["base"] == "flux-schnell"
    assert outcome.fill["remember"] == "images:flux-schnell"


def training(studio: Studio) -> Job:
    return queue.add_job(
        studio.store, actor=studio.actor, kind="train_image", title="Training Mira", request={}, params={}
    )


def test_a_paused_training_is_cancelled_only_after_a_yes(studio: Studio) -> None:
    job = training(studio)
    assert "data-confirm" not in job_actions(job)
    actions = job_actions(studio.jobs.pause(job.id))
    assert 'data-confirm="Cancel this training?"' in actions
    assert "Try again goes on from its last checkpoint." in actions


def test_a_base_offers_its_own_presets_and_pocket_none(studio: Studio) -> None:
    for base, offered in (("flux1-dev", ["HQ portrait", "Cinematic"]), ("pocket", [])):
        form = images.draw_form(studio, View(adapter=0, base=base))
        assert [name for name in ("HQ portrait", "Cinematic", "Landscape") if f">{name}</button>" in form] == offered


def test_a_preset_fills_the_form_of_its_base(studio: Studio) -> None:
    outcome = images.on_preset(studio, {"preset": "Cinematic"}, View(base="flux1-dev"))
    assert outcome.fill["remember"] == "images:flux1-dev"
    assert outcome.fill["values"] == {"width": "1536", "height": "640", "num_inference_steps": "40", "shape": ""}
