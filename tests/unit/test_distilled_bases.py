"""Bases that were distilled from others draw with their LoRAs, and are not trained on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from masuka.config import Settings
from masuka.errors import Conflict, InvalidInput
from masuka.families import FAMILIES, drawing_bases, family_of
from masuka.store import models as rows
from masuka.studio import Studio
from masuka.ui import images
from masuka.ui.view import View
from tests.every_family import tiny_folder
from tests.unit.test_models_importing import installed

QUICK, SLOW = "krea2-turbo", "krea2-raw"


@pytest.fixture
def studio(settings: Settings) -> Iterator[Studio]:
    with Studio.open(settings) as opened:
        for base in (QUICK, SLOW):
            installed(opened, base, tiny_folder("krea2"))
        yield opened


def lora(studio: Studio, base: str = SLOW) -> rows.Model:
    file = studio.workspace.root / "adapters" / "1.safetensors"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"x")
    return rows.add_model(
        studio.store, actor=studio.actor, kind="adapter", name="Mira 1", base=base, family="krea2",
        path="adapters/1.safetensors", sha256="0" * 64,
    )  # fmt: skip


def test_every_base_that_draws_anothers_loras_is_of_its_family() -> None:
    for family in FAMILIES.values():
        for entry in family.entries:
            for other in entry.draws_adapters_of:
                assert family_of(other)[0] is family
                assert drawing_bases(other)[0] == other and entry.id in drawing_bases(other)
    assert drawing_bases("krea2-raw+my-look") == ("krea2-raw+my-look", QUICK)
    assert drawing_bases("pocket") == ("pocket",)


def test_a_lora_draws_with_its_own_base_or_the_one_distilled_from_it(studio: Studio) -> None:
    made = lora(studio)
    for base in (None, SLOW, QUICK):
        given = {} if base is None else {"base": base}
        job = studio.images.draw(prompt="a robot", adapter_id=made.id, **given)
        assert job.request["base"] == (base or SLOW)
        assert job.request["num_inference_steps"] == (8 if base == QUICK else 28)
    with pytest.raises(InvalidInput, match="was trained on krea2-raw, not on pocket") as refused:
        studio.images.draw(prompt="a robot", adapter_id=made.id, base="pocket")
    assert refused.value.hint == "Draw with krea2-raw or krea2-turbo."
    other = lora(studio, base=QUICK)
    with pytest.raises(InvalidInput, match="was trained on krea2-turbo"):
        studio.images.draw(prompt="a robot", adapter_id=other.id, base=SLOW)


def test_the_form_offers_both_bases_and_sends_only_one_that_can(studio: Studio) -> None:
    made = lora(studio)
    form = images.draw_form(studio, View(adapter=made.id))
    assert [f'value="{base}"' in form for base in (SLOW, QUICK, "pocket")] == [True, True, False]
    quick = images.draw_form(studio, View(adapter=made.id, base=QUICK))
    assert f'value="{QUICK}" selected' in quick
    images.on_draw(studio, {"values": {"prompt": "a robot", "adapter_id": str(made.id), "base": QUICK}}, View())
    images.on_draw(studio, {"values": {"prompt": "a robot", "adapter_id": str(made.id), "base": "pocket"}}, View())
    assert [job.request["base"] for job in studio.jobs.list()] == [SLOW, QUICK]


def test_training_on_a_distilled_base_is_refused_with_the_one_to_train_on(studio: Studio) -> None:
    with pytest.raises(Conflict, match="Krea 2 Turbo is not made to be trained") as refused:
        studio.models.must_be_trainable(QUICK)
    assert refused.value.hint == "Train on Krea 2 Raw, whose LoRAs it draws with."
    assert studio.models.must_be_trainable(SLOW).id == SLOW
