"""What a training needs of memory, said before, and what is done where that is short."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from masuka.families import family_of
from masuka.models import memory
from masuka.models.ladder import rungs
from masuka.models.memory import GIB, Machine
from masuka.requests.training import TrainImage

DEV = family_of("flux1-dev")[1]


def request(**values: Any) -> TrainImage:
    return TrainImage(dataset_id=1, base="flux1-dev", **values)


def card(vram_gib: float, *, ram_gib: float = 64, bf16: bool = True, disk_gib: float = 100) -> Machine:
    vram, ram = int(vram_gib * GIB), int(ram_gib * GIB)
    return Machine("cuda", "a card", vram, vram, ram, ram, int(disk_gib * GIB), bf16)


def cpu(ram_gib: float) -> Machine:
    ram = int(ram_gib * GIB)
    return Machine("cpu", "", None, None, ram, ram, 100 * GIB, False)


def gib_of(**values: Any) -> float:
    estimate = memory.training(DEV, request(**values), pictures=20, dtype="bf16")
    assert estimate is not None
    return estimate.gpu_bytes / GIB


@pytest.mark.parametrize(
    ("values", "published_gib"),
    [
        # huggingface.co/blog/flux-qlora: rank 4, 512 × 768, 8-bit AdamW, checkpointing.
        ({"quantize": "nf4", "rank": 4, "resolution_px": 624, "optimizer": "adamw8bit"}, 9.0),
        ({"rank": 4, "resolution_px": 624, "optimizer": "adamw8bit"}, 26.0),
        # SimpleTuner's FLUX page: rank 16, 512 px.
        ({"quantize": "int8"}, 18.0),
    ],
)
def test_a_need_is_what_others_have_published_of_the_same_training(
    values: dict[str, Any], published_gib: float
) -> None:
    assert 0.75 < gib_of(sample_every=0, **values) / published_gib < 1.25


def test_everything_that_saves_memory_is_seen_to_save_it() -> None:
    plain = gib_of(gradient_checkpointing="off", sample_every=0)
    checkpointed = gib_of(gradient_checkpointing="on", sample_every=0)
    quantised = gib_of(quantize="int8", sample_every=0)
    smaller = gib_of(quantize="nf4", sample_every=0)
    streamed = gib_of(blocks_on_host=0.5, sample_every=0)
    assert plain > checkpointed > quantised > smaller
    assert checkpointed > streamed


def test_a_larger_training_needs_more() -> None:
    small = gib_of(quantize="nf4")
    for more in ({"resolution_px": 1024}, {"batch_size": 8}, {"rank": 256}, {"ema_decay": 0.99, "rank": 128}):
        assert gib_of(quantize="nf4", **more) > small, more


def test_a_large_card_trains_as_asked_and_says_so_with_numbers() -> None:
    plan = memory.plan(DEV, request(), card(79), pictures=20)
    assert plan.fits
    assert plan.request == request()
    assert plan.changes == ()
    assert plan.sentence.startswith("It fits: about 2")
    assert "of 79.0 GiB of GPU memory" in plan.sentence


def test_a_small_card_gets_a_quantised_base_and_is_told() -> None:
    plan = memory.plan(DEV, request(), card(14.7, ram_gib=12.7, bf16=False), pictures=20)
    assert plan.fits
    assert plan.request.quantize == "nf4"
    assert plan.changes == ("The base is kept in 4 bits.",)
    assert plan.estimate is not None
    assert plan.estimate.gpu_bytes < 14.7 * GIB
    assert plan.estimate.ram_bytes < 12 * GIB


def test_no_plan_lowers_the_resolution_or_changes_the_size_of_a_step() -> None:
    asked = request(batch_size=8, resolution_px=1024)
    seen = list(rungs(asked, recomputes=False, on_cuda=True))
    assert {r.request.resolution_px for r in seen} == {1024}
    assert {r.request.batch_size * r.request.gradient_accumulation_steps for r in seen} == {8}
    kinds = [(r.request.gradient_checkpointing, r.request.quantize, r.request.blocks_on_host) for r in seen]
    first = [kinds.index(kind) for kind in dict.fromkeys(kinds)]
    assert first == sorted(first)
    assert kinds[:4] == [("auto", "none", 0), ("on", "none", 0), ("on", "int8", 0), ("on", "nf4", 0)]


def test_off_an_nvidia_gpu_nothing_is_quantised() -> None:
    assert {r.request.quantize for r in rungs(request(), recomputes=True, on_cuda=False)} == {"none"}


def test_what_does_not_fit_is_refused_with_what_would() -> None:
    plan = memory.plan(DEV, request(resolution_px=2048), card(11, ram_gib=12), pictures=20)
    assert not plan.fits
    assert plan.request == request(resolution_px=2048)
    assert "of 11.0 GiB of GPU memory: more than there is" in plan.sentence
    assert "px it would fit" in plan.sentence


def test_a_machine_that_never_will_is_told_to_take_a_smaller_base() -> None:
    plan = memory.plan(DEV, request(), cpu(8), pictures=20)
    assert not plan.fits
    assert "of 8.0 GiB of main memory" in plan.sentence
    assert "smaller base" in plan.sentence


def test_who_wants_to_stop_is_told_what_would_fit_and_nothing_is_changed() -> None:
    plan = memory.plan(DEV, request(when_memory_runs_short="stop"), card(14.7), pictures=20)
    assert not plan.fits
    assert plan.changes == ()
    assert "It would fit so: The base is kept in" in plan.sentence


def test_a_full_disk_is_said_before() -> None:
    plan = memory.plan(DEV, request(), card(79, disk_gib=1), pictures=20)
    assert not plan.fits
    assert "The disk has 1.0 GiB free" in plan.sentence


def test_a_base_that_nobody_counted_is_not_estimated() -> None:
    unknown = replace(DEV, size=None)
    assert memory.training(unknown, request(), pictures=20, dtype="bf16") is None
    assert memory.drawing(unknown, width=512, height=512, dtype="bf16") is None
    plan = memory.plan(unknown, request(), card(8), pictures=20)
    assert plan.fits
    assert "trial of three steps" in plan.sentence


def test_drawing_needs_the_hungriest_of_its_models() -> None:
    whole = memory.drawing(DEV, width=1024, height=1024, dtype="bf16")
    small = memory.drawing(DEV, width=1024, height=1024, dtype="bf16", quantize="nf4")
    assert whole is not None
    assert small is not None
    assert 22 * GIB < whole.gpu_bytes < 27 * GIB
    assert small.gpu_bytes < 12 * GIB
