"""Trainings of edited, masked and varied pictures, and trainings done again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from masuka import Settings, Studio
from masuka.config import Workspace
from masuka.datasets import masks
from masuka.datasets.buckets import Shape, smaller_shape
from masuka.datasets.varying import PLAIN, Variation, one_sidedness, scale_of, variation, warning
from masuka.errors import Conflict, InvalidInput, Stop
from masuka.jobs.reporter import EventFile
from masuka.requests import Actor
from masuka.requests.edits import Augment
from masuka.store import pictures as rows
from masuka.store import users
from masuka.training.batches import Batches
from masuka.training.caches import CacheFolder, Source, Texts, Variety, cache_latents
from masuka.training.learner import _mean_error
from masuka.training.order import Batch
from masuka.training.pictures import Picture, check_pictures, content_hash, pictures_of, seen
from tests.tiny_flux import FLUX, tiny_folder
from tests.tiny_training import Job, picture_params, train_params, trained_weights

EVERYTHING = {"flip": True, "brightness": 0.3, "contrast": 0.2, "colour": 0.5, "crop": 0.3, "variants": 3}


@pytest.fixture
def reporter(tmp_path: Path) -> Iterator[EventFile]:
    events = EventFile(tmp_path / "events.jsonl", tmp_path / "scratch")
    yield events
    events.close()


@pytest.fixture
def source() -> Source:
    return Source(FLUX, tiny_folder(), "cpu", torch.float32, torch.float32)


def described(folder: Path, count: int = 3, **first: Any) -> dict[str, Any]:
    """Params of pictures, the first of them with more."""
    pictures = picture_params(folder, count)
    pictures[0] |= first
    return {"pictures": pictures, "trigger_word": "mira7x", "class_word": "robot"}


def masked(folder: Path, count: int = 3) -> dict[str, Any]:
    """The same with a mask on the first: its left half counts."""
    params = described(folder, count)
    first = params["pictures"][0]
    mask = Image.new("L", (first["width"], first["height"]), 0)
    mask.paste(255, (0, 0, first["width"] // 2, first["height"]))
    sha256 = masks.keep(mask, "masks", folder, first["sha256"])
    first["edits"] = {"mask_sha256": sha256}
    first["mask"] = str(masks.file_of("masks", folder, first["sha256"], sha256))
    return params


def test_a_recipe_decides_what_is_learnt_from(tmp_path: Path) -> None:
    Image.new("RGB", (100, 100), "black").save(tmp_path / "one.png")
    picture = Image.open(tmp_path / "one.png")
    picture.paste("white", (50, 0, 100, 100))
    picture.save(tmp_path / "one.png")
    file = tmp_path / "one.png"
    params = {"file": str(file), "sha256": hashlib.sha256(file.read_bytes()).hexdigest(), "caption": "x"}
    plain, flipped, right = (
        pictures_of({"pictures": [{**params, "edits": edits}]})[0]
        for edits in ({}, {"flip": True}, {"crop": [0.5, 0, 1, 1]})
    )
    shape = Shape(32, 32)
    line = seen(plain, shape).pixels[0, 0].tolist()
    assert line[:14] == pytest.approx([-1.0] * 14, abs=0.1) and line[18:] == pytest.approx(
        [1.0] * 14, abs=0.1
    )
    assert torch.equal(seen(flipped, shape).pixels, seen(plain, shape).pixels.flip(-1))
    assert torch.all(seen(right, shape).pixels == 1)
    assert len({content_hash([p]) for p in (plain, flipped, right)}) == 3


def test_the_face_stays_in_the_bucket(tmp_path: Path) -> None:
    picture = Image.new("RGB", (300, 100), "black")
    picture.paste("white", (270, 20, 290, 40))
    picture.save(tmp_path / "wide.png")
    unknown = Picture(tmp_path / "wide.png", "", "")
    known = replace(unknown, focus=(0.9, 0.2, 0.97, 0.4))
    assert float(seen(unknown, Shape(64, 64)).pixels.max()) < 0
    assert float(seen(known, Shape(64, 64)).pixels.max()) > 0.9


def test_a_mask_that_is_gone_or_another_is_named(tmp_path: Path, reporter: EventFile) -> None:
    params = masked(tmp_path)
    assert check_pictures(pictures_of(params), reporter)[0] == (128, 128)
    mask = Path(params["pictures"][0]["mask"])
    Image.new("L", (128, 128), 9).save(mask)
    with pytest.raises(InvalidInput, match=r"mask of 0\.png has changed"):
        check_pictures(pictures_of(params), reporter)
    mask.unlink()
    with pytest.raises(InvalidInput, match=r"mask of 0\.png cannot be read"):
        check_pictures(pictures_of(params), reporter)


def test_weights_lie_on_the_grid_of_the_latents(tmp_path: Path, source: Source, reporter: EventFile) -> None:
    shapes = [Shape(64, 64)] * 3
    latents = cache_latents(source, tmp_path / "c", pictures_of(masked(tmp_path)), shapes, reporter)
    weights = latents.buckets[0].weights
    assert weights is not None and weights.shape == (3, 1, 8, 8)
    assert torch.allclose(weights[0, 0, :, :4], torch.tensor(1.0), atol=0.01) and torch.all(weights[1:] == 1)
    assert torch.allclose(weights[0, 0, :, 4:], torch.tensor(0.1), atol=0.01)
    plain = cache_latents(source, tmp_path / "c", pictures_of(described(tmp_path)), shapes, reporter)
    assert plain.buckets[0].weights is None
    assert torch.equal(plain.buckets[0].posterior["mean"], latents.buckets[0].posterior["mean"])


def test_outside_the_mask_a_tenth_of_the_gradient_is_left() -> None:
    predicted = torch.randn(2, 4, 8, 8, requires_grad=True)
    weights = torch.ones(2, 1, 8, 8)
    weights[0, :, :, 4:] = 0.1
    _mean_error(predicted.square(), weights).sum().backward()
    assert predicted.grad is not None
    force = (predicted.grad / predicted.detach()).mean(dim=(1, 2))
    assert force[0, :4].mean() / force[0, 4:].mean() == pytest.approx(10, rel=1e-4)
    # Errors that are alike everywhere cost the same, however much a mask covers.
    assert _mean_error(torch.ones(2, 4, 8, 8), weights).tolist() == pytest.approx([1, 1])
    assert torch.equal(_mean_error(predicted.square(), None), predicted.square().flatten(1).mean(1))


def test_a_masked_training_learns_the_masked_part(tmp_path: Path) -> None:
    params = train_params(tmp_path, steps=2, count=2)
    params["pictures"] = masked(tmp_path / "pictures", 2)["pictures"]
    job, plain = Job(tmp_path), Job(tmp_path / "plain")
    assert job.run(params)["applied"] > 0
    plain.run(train_params(tmp_path / "plain", steps=2, count=2))
    assert job.losses() != plain.losses()


def test_a_picture_as_it_came_has_the_cache_it_always_had(
    tmp_path: Path, source: Source, reporter: EventFile
) -> None:
    params = described(tmp_path, edits={"turn": 90})
    params["pictures"][1]["focus"] = [0.9, 0.1, 1.0, 0.3]
    pictures, shapes = pictures_of(params), [Shape(64, 64)] * 3
    sizes = check_pictures(pictures, reporter)
    assert sizes == [(128, 128), (200, 120), (60, 100)]
    cache_latents(source, tmp_path / "c", pictures, shapes, reporter, sizes=sizes)
    known = CacheFolder(tmp_path / "c" / "latents", f"{source.fingerprint()} {source.dtype}")
    there = [known.file(p.sha256, "64", "64").exists() for p in pictures]
    assert there == [False, False, True], "edited and cut elsewhere are others"


def test_variants_are_decided_by_seed_and_name_alone() -> None:
    augment = Augment.parse(EVERYTHING)
    one = [variation(augment, seed=5, name="a", number=n) for n in range(4)]
    assert one[0] == PLAIN and PLAIN.key == "" and len({v.key for v in one}) == 4
    assert one == [variation(augment, seed=5, name="a", number=n) for n in range(4)]
    assert one[1:] != [variation(augment, seed=6, name="a", number=n) for n in range(1, 4)]
    assert one[1:] != [variation(augment, seed=5, name="b", number=n) for n in range(1, 4)]
    flipped = [variation(augment, seed=5, name="a", number=n).flip for n in range(1, 60)]
    assert 15 < sum(flipped) < 45
    assert variation(Augment(), seed=5, name="a", number=2) == PLAIN


def test_a_crop_by_chance_spares_the_face() -> None:
    augment = Augment(crop=0.3)
    focus = (0.02, 0.1, 0.5, 0.99)
    for number in range(1, 40):
        left, top, right, bottom = variation(augment, seed=1, name="a", number=number, focus=focus).crop
        assert left <= focus[0] and top <= focus[1] and right >= focus[2] and bottom >= focus[3]
        assert right - left >= 0.69
    mirrored = Variation(flip=True, crop=(0.0, 0.0, 0.5, 1.0))
    assert mirrored.focus((0.0, 0.2, 0.25, 0.4)) == pytest.approx((0.5, 0.2, 1.0, 0.4))


def test_smaller_sizes_are_those_that_the_base_draws() -> None:
    augment = Augment(scales=True)
    assert [scale_of(augment, n) for n in range(4)] == [1.0, 0.75, 0.5, 1.0]
    assert scale_of(Augment(flip=True), 1) == 1.0
    assert smaller_shape(Shape(1024, 768), 0.5, "flux1-dev") == Shape(512, 384)
    assert smaller_shape(Shape(128, 128), 0.5, "pocket") == Shape(128, 128), "Pocket has one size"


def test_every_variant_is_trained_on_and_the_noise_is_the_same(
    tmp_path: Path, source: Source, reporter: EventFile
) -> None:
    pictures, shapes = pictures_of(described(tmp_path)), [Shape(64, 64)] * 3
    variety = Variety(Augment.parse({**EVERYTHING, "scales": True}), 7, "pocket")
    latents = cache_latents(source, tmp_path / "c", pictures, shapes, reporter, variety=variety)
    assert len(latents.buckets[0].variants) == 3
    texts = Texts({"prompt_embeds": torch.zeros(2, 1, 1)}, ("", "a"))
    varied, plain = (
        Batches(
            FLUX, of, texts, ["a"] * 3, dropout=0.0, seed=7, device="cpu", dtype=torch.float32
        )
        for of in (latents, replace(latents, buckets=(replace(latents.buckets[0], varied=()),)))
    )  # fmt: skip
    batch = Batch(0, (0, 1))
    clean = set()
    for step in range(24):
        one, same, other = (b.at(step, batch) for b in (varied, varied, plain))
        assert torch.equal(one.noisy, same.noisy) and torch.equal(one.sigmas, other.sigmas)
        clean.add(torch.equal(one.noisy, other.noisy))
    assert clean == {True, False}, "the picture itself and its variants"


def test_a_varied_masked_training_goes_on_exactly(tmp_path: Path) -> None:
    params = [train_params(tmp_path / name, steps=5, gradient_accumulation_steps=2) for name in "ab"]
    for one, folder in zip(params, (tmp_path / "a", tmp_path / "b"), strict=True):
        one["pictures"] = masked(folder / "pictures", 5)["pictures"]
        one["pictures"][1]["focus"] = [0.8, 0.1, 1.0, 0.3]
        one["augment"] = EVERYTHING
    straight = Job(tmp_path / "a")
    straight.run(params[0])
    with pytest.raises(Stop):
        Job(tmp_path / "b", stop="pause", after_step=2, checks=5).run(params[1])
    again = Job(tmp_path / "b", attempt=2)
    again.run(params[1])
    losses = straight.losses()
    assert again.losses() == pytest.approx({n: losses[n] for n in again.losses()}, abs=1e-6)
    first, second = trained_weights(params[0]), trained_weights(params[1])
    assert all(torch.allclose(t.double(), second[n].double(), rtol=0, atol=1e-6) for n, t in first.items())
    about = json.loads(Path(params[0]["output"], "masuka.json").read_text())["content"]
    assert about["variations"]["flip"] is True and len(about["edits"]) == 1


def test_a_checkpoint_of_another_variety_is_not_gone_on_from(tmp_path: Path) -> None:
    params = train_params(tmp_path, steps=4)
    with pytest.raises(Stop):
        Job(tmp_path, stop="pause", after_step=2).run(params)
    with pytest.raises(Conflict, match="variations"):
        Job(tmp_path, attempt=2).run({**params, "augment": {"flip": True}})


def faces_with_a_mark(one_side: bool) -> list[tuple[Image.Image, list[Any]]]:
    """Grey faces lit from either side, with a mark on the left of each, or on either side."""
    made = []
    for number in range(8):
        picture = Image.linear_gradient("L").rotate(90 if number % 2 else 270).resize((64, 64))
        picture = picture.point(lambda v: 100 + v // 6)
        x = 8 if one_side or number % 4 < 2 else 44
        picture.paste(0, (x, 20, x + 12, 44))
        made.append((picture.convert("RGB"), []))
    return made


def test_what_is_always_on_one_side_warns_of_mirroring() -> None:
    sided, even = one_sidedness(faces_with_a_mark(True)), one_sidedness(faces_with_a_mark(False))
    assert sided > 0.8 and even < 0.5
    assert "left and right in the same way" in warning(faces_with_a_mark(True), [])
    assert warning(faces_with_a_mark(False), ["a robot", "a robot"]) == ""
    assert "1 caption says left or right" in warning(faces_with_a_mark(False), ["robot on the left"])
    assert one_sidedness(faces_with_a_mark(True)[:4]) == 0, "too few say nothing"


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[Studio]:
    with Studio.open(Settings(workspace=Workspace(tmp_path / "home"), device="cpu")) as opened:
        yield opened


@pytest.mark.slow
def test_a_training_is_done_again_after_its_set_has_changed(studio: Studio) -> None:
    made = studio.datasets.create(name="Bolt", trigger_word="bolt7x", class_word="robot")
    studio.jobs.wait(studio.datasets.add_samples(made.id, count=6))
    first, second, third, *_ = studio.datasets.every_picture(made.id)
    studio.edits.set(first.id, crop=(0.1, 0.1, 0.9, 0.9), flip=True)
    studio.edits.set_augment(made.id, brightness=0.2, variants=2)
    rows.set_aside(studio.store, actor=studio.actor, ids=[third.id], aside=True)
    short = {"steps": 10, "sample_every": 0, "rank": 4, "seed": 5}
    job = studio.jobs.wait(studio.training.start(dataset_id=made.id, **short))
    assert job.run_id is not None
    assert studio.training.content(job.run_id).same
    assert len(studio.training.run(job.run_id).content["pictures"]) == 5, "set aside is not learnt from"

    studio.edits.reset([first.id])
    studio.datasets.set_caption(second.id, "something else")
    studio.edits.set_augment(made.id, brightness=0.0)
    rows.set_aside(studio.store, actor=studio.actor, ids=[third.id], aside=False)
    differs = studio.training.content(job.run_id)
    assert not differs.same and differs.kept == 3 and differs.added == 1 and not differs.problem
    assert {c.name: c.what for c in differs.changed} == {
        first.original_name: ("edits",),
        second.original_name: ("caption",),
    }
    again = studio.jobs.wait(studio.training.repeat(job.run_id))
    assert again.run_id is not None and again.run_id != job.run_id
    assert losses(studio, again.run_id) == losses(studio, job.run_id)
    hashes = [studio.training.run(id).content["hash"] for id in (job.run_id, again.run_id)]
    sidecars = sorted(studio.workspace.adapters.glob("*/masuka.json"))
    hashes += [json.loads(file.read_text())["content"]["hash"] for file in sidecars]
    assert len(hashes) == 4 and len(set(hashes)) == 1

    studio.datasets.delete_pictures([first.id])
    lost = studio.training.content(job.run_id)
    assert lost.gone == (first.original_name,) and "cannot be done again" in lost.problem
    with pytest.raises(Conflict, match="1 picture is gone"):
        studio.training.repeat(job.run_id)
    studio.datasets.delete(made.id)
    assert "Its data set was deleted." in studio.training.content(job.run_id).sentences


def losses(studio: Studio, run_id: int) -> list[float | None]:
    return [metric.loss for metric in studio.training.metrics(run_id)]


def test_a_set_that_is_all_set_aside_is_not_trained(studio: Studio, tmp_path: Path) -> None:
    made = studio.datasets.create(name="Bolt", trigger_word="bolt7x")
    rows.add_picture(
        studio.store, actor=studio.actor, dataset_id=made.id, file="a.png", original_name="a", sha256="a" * 64,
        width=64, height=64, bytes=9, caption="",
    )  # fmt: skip
    (one,) = studio.datasets.every_picture(made.id)
    rows.set_aside(studio.store, actor=studio.actor, ids=[one.id], aside=True)
    with pytest.raises(InvalidInput, match="not set aside"):
        studio.training.start(dataset_id=made.id)


def test_what_an_older_training_learnt_from_is_shown_as_far_as_known(studio: Studio) -> None:
    from masuka.store import runs

    run = runs.add_run(
        studio.store, actor=studio.actor, name="Old", base="pocket", family="flux", config={},
        content={"a" * 64: "a robot"},
    )  # fmt: skip
    differs = studio.training.content(run.id)
    assert differs.sentences == ("Its data set was deleted.",) and "without its files" in differs.problem
    with pytest.raises(Conflict, match="without its files"):
        studio.training.repeat(run.id)


def test_who_may_see_a_training_alone_is_told_so(studio: Studio) -> None:
    bolt = studio.characters.create(name="Bolt", trigger_word="bolt7x", class_word="robot")
    made = studio.datasets.create(name="Bolt", trigger_word="bolt7x", class_word="robot")
    studio.jobs.wait(studio.datasets.add_samples(made.id, count=1))
    run_id = studio.training.start(dataset_id=made.id, character_id=bolt.id).run_id
    assert run_id is not None
    kim = users.add_user(studio.store, actor=studio.actor, username="kim", role="editor")
    studio.people.share(kim.id, "character", bolt.id)
    theirs = studio.acting_as(Actor(kim.id, "editor", "kim"))
    assert theirs.training.content(run_id).sentences == ("Its data set is not shared with you.",)
    with pytest.raises(Conflict, match="cannot be done again"):
        theirs.training.repeat(run_id)
