"""What suits a machine: tiers, a table that can be edited, and that what is named fits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from masuka.config import Settings
from masuka.errors import InvalidInput, NotAllowed
from masuka.families import FAMILIES, family_of
from masuka.models import memory, tiers
from masuka.models.memory import GIB, Machine
from masuka.requests import Actor
from masuka.requests.training import TrainImage
from masuka.studio import Studio


@pytest.fixture
def studio(settings: Settings) -> Iterator[Studio]:
    with Studio.open(settings) as opened:
        yield opened


def machine(vram_gib: float, ram_gib: float, *, device: str = "cuda", bf16: bool = True) -> Machine:
    vram = int(vram_gib * GIB) if device == "cuda" else None
    ram = int(ram_gib * GIB)
    return Machine(
        device=device, name="card", vram_bytes=vram, free_vram_bytes=vram, ram_bytes=ram, free_ram_bytes=ram,
        free_disk_bytes=500 * GIB, bf16=bf16,
    )  # fmt: skip


def test_the_table_names_only_bases_that_there_are() -> None:
    assert tiers.parsed(json.dumps(tiers.DEFAULT)) == tiers.DEFAULT


@given(st.floats(2, 160), st.floats(4, 500), st.sampled_from(["cuda", "mps", "cpu"]), st.booleans())
@hypothesis_settings(max_examples=60)
def test_each_recommendation_fits_by_the_estimator(vram: float, ram: float, device: str, bf16: bool) -> None:
    here = machine(vram, ram, device=device, bf16=bf16)
    found = tiers.recommended(tiers.DEFAULT, here)
    assert {advice.task for advice in found} == set(tiers.TASKS)  # nobody is left without any
    for advice in found:
        entry = advice.entry
        if entry.folder is not None:
            continue
        if advice.task == "draw":
            width, height = (int(entry.draw_limits[side].default or 0) for side in ("width", "height"))
            half = "bf16" if bf16 else "fp16" if family_of(entry.id)[0].capabilities.fp16 else "fp32"
            needed = memory.drawing(entry, width=width, height=height, dtype=half)
            assert needed is not None and needed.gpu_bytes <= here.room_bytes
        else:
            request = TrainImage.parse({"dataset_id": 1, "base": entry.id}, limits=entry.train_limits)
            assert memory.plan(entry, request, here, pictures=20).fits


def test_larger_machines_get_larger_bases() -> None:
    names = [tiers.tier_of(tiers.DEFAULT, machine(v, 2 * v + 8))["name"] for v in (6, 8, 12, 24, 80)]
    assert names == ["small GPU", "8 GB GPU", "12 to 16 GB GPU", "24 GB GPU", "48 GB GPU or more"]
    # A large card beside little main memory loads nothing large.
    assert tiers.tier_of(tiers.DEFAULT, machine(80, 12))["name"] == "12 to 16 GB GPU"
    assert tiers.tier_of(tiers.DEFAULT, machine(0, 64, device="cpu"))["name"] == "no GPU"
    best = [tiers.recommended(tiers.DEFAULT, machine(v, 2 * v + 8))[0].entry for v in (8, 16, 48)]
    sizes = [entry.size.denoiser for entry in best if entry.size is not None]
    assert sizes == sorted(sizes) and len(set(sizes)) == 3


def test_what_a_machine_cannot_do_is_said() -> None:
    sdxl, flux = family_of("sdxl")[1], family_of("flux1-dev")[1]
    cpu = machine(0, 16, device="cpu")
    assert tiers.fit_of(sdxl, cpu, "draw").sentence.startswith("Draws here in main memory, slowly")
    assert tiers.fit_of(sdxl, cpu, "train").sentence == "Trains well on a GPU only: here a step takes minutes."
    assert tiers.fit_of(flux, cpu, "draw").sentence.startswith("Too large to draw here")
    small = machine(8, 64)
    assert tiers.fit_of(flux, small, "draw").slow  # piece by piece from main memory
    assert tiers.fit_of(flux, machine(48, 64), "draw").sentence.startswith("Draws here: about")
    mps = machine(0, 64, device="mps")
    assert tiers.fit_of(flux, mps, "draw").works and not tiers.fit_of(flux, machine(0, 8, device="mps"), "draw").works
    for family in FAMILIES.values():
        for entry in family.entries:
            for here in (cpu, small, mps):
                for task in tiers.TASKS:
                    assert tiers.fit_of(entry, here, task).sentence.endswith(".")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: "no json", "no JSON"),
        (lambda t: "[]", "no list of tiers"),
        (lambda t: '{"tiers": []}', "no list of tiers"),
        (lambda t: json.dumps({"tiers": [{**t, "name": ""}]}), "needs a name"),
        (lambda t: json.dumps({"tiers": [{**t, "vram_gib": "8"}]}), "must be a number"),
        (lambda t: json.dumps({"tiers": [{**t, "ram_gib": -1}]}), "must be a number"),
        (lambda t: json.dumps({"tiers": [{**t, "draw": []}]}), "one base or more"),
        (lambda t: json.dumps({"tiers": [{**t, "train": ["sd15"]}]}), "no base 'sd15'"),
        (lambda t: " " * 30_000, "characters"),
    ],
)
def test_a_wrong_table_is_refused(studio: Studio, change: Any, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        studio.advice.set_table(change(tiers.DEFAULT["tiers"][0]))
    assert studio.advice.table() == tiers.DEFAULT


def test_the_table_is_a_persons_own_until_it_is_reset(studio: Studio) -> None:
    mine = {"tiers": [{"name": "mine", "vram_gib": 0, "ram_gib": 0, "draw": ["flux1-dev", "pocket"], "train": ["pocket"]}]}
    studio.advice.set_table(json.dumps(mine))
    assert studio.advice.is_edited and studio.advice.tier() == "mine"
    # What the person named and does not fit here is not named.
    assert [a.entry.id for a in studio.advice.recommended(machine(0, 16, device="cpu"))] == ["pocket", "pocket"]
    assert studio.advice.recommended(machine(48, 96))[0].entry.id == "flux1-dev"
    viewer = studio.acting_as(Actor(2, "viewer", "v"))
    with pytest.raises(NotAllowed):
        viewer.advice.set_table(json.dumps(mine))
    studio.advice.reset_table()
    assert not studio.advice.is_edited and studio.advice.table() == tiers.DEFAULT
