"""Texts and latents are computed once, whatever happens to the process."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from masuka.datasets.buckets import Shape
from masuka.families.flux import Flux
from masuka.jobs.reporter import EventFile
from masuka.models.catalogue import FINISHED
from masuka.training.batches import Batches
from masuka.training.caches import Latents, Source, Texts, cache_latents, cache_texts, keep_within
from masuka.training.order import Batch
from masuka.training.pictures import Picture, pictures_of
from tests.tiny_flux import FLUX, tiny_folder
from tests.tiny_training import picture_params

CAPTIONS = ["mira7x robot", "mira7x robot on a beach", "mira7x robot"]


class LoadsNothing(Flux):
    """A family whose encoders must not be asked for."""

    def text_encoder(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("the text encoder was loaded")

    def autoencoder(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("the VAE was loaded")


@pytest.fixture
def reporter(tmp_path: Path) -> Any:
    events = EventFile(tmp_path / "events.jsonl", tmp_path / "scratch")
    yield events
    events.close()


@pytest.fixture
def source() -> Source:
    return Source(FLUX, tiny_folder(), "cpu", torch.float32, torch.float32)


def pictures(folder: Path) -> list[Picture]:
    params = {"pictures": picture_params(folder, 3), "trigger_word": "mira7x", "class_word": "robot"}
    return pictures_of(params)


SHAPES = [Shape(64, 64), Shape(96, 32), Shape(64, 64)]


def test_texts_are_encoded_once_and_the_empty_one_is_first(
    tmp_path: Path, source: Source, reporter: EventFile
) -> None:
    texts = cache_texts(source, tmp_path, CAPTIONS, reporter)
    assert texts.texts == ("", "mira7x robot", "mira7x robot on a beach")
    assert {len(tensor) for tensor in texts.tensors.values()} == {3}
    assert texts.row("mira7x robot") == 1
    assert not torch.equal(texts.one("")["prompt_embeds"], texts.one("mira7x robot")["prompt_embeds"])
    again = cache_texts(replace(source, family=LoadsNothing()), tmp_path, CAPTIONS, reporter)
    assert all(torch.equal(again.tensors[name], tensor) for name, tensor in texts.tensors.items())


def test_latents_are_encoded_once_and_sorted_into_buckets(
    tmp_path: Path, source: Source, reporter: EventFile
) -> None:
    latents = cache_latents(source, tmp_path, pictures(tmp_path / "p"), SHAPES, reporter)
    assert [(b.shape, b.pictures) for b in latents.buckets] == [
        (Shape(64, 64), (0, 2)),
        (Shape(96, 32), (1,)),
    ]
    assert latents.buckets[0].posterior["mean"].shape == (2, 4, 8, 8)
    assert latents.buckets[1].posterior["std"].shape == (1, 4, 4, 12)
    unloaded = replace(source, family=LoadsNothing())
    again = cache_latents(unloaded, tmp_path, pictures(tmp_path / "p"), SHAPES, reporter)
    assert again.autoencoder_config["scaling_factor"] == latents.autoencoder_config["scaling_factor"]
    for bucket, other in zip(latents.buckets, again.buckets, strict=True):
        assert all(torch.equal(other.posterior[name], tensor) for name, tensor in bucket.posterior.items())


def test_a_damaged_cache_file_is_made_again(tmp_path: Path, source: Source, reporter: EventFile) -> None:
    texts = cache_texts(source, tmp_path, CAPTIONS, reporter)
    file = sorted((tmp_path / "texts").glob("*.safetensors"))[0]
    file.write_bytes(file.read_bytes()[:-8])
    again = cache_texts(source, tmp_path, CAPTIONS, reporter)
    assert all(torch.equal(again.tensors[name], tensor) for name, tensor in texts.tensors.items())
    assert list((tmp_path / "texts").glob("*.part")) == []


def test_another_precision_has_caches_of_its_own(tmp_path: Path, source: Source, reporter: EventFile) -> None:
    cache_texts(source, tmp_path, [""], reporter)
    cache_texts(replace(source, text_dtype=torch.bfloat16), tmp_path, [""], reporter)
    assert len(list((tmp_path / "texts").glob("*.safetensors"))) == 2


def batches(dropout: float, seed: int = 0) -> Batches:
    tensors = {"prompt_embeds": torch.arange(3.0).view(3, 1, 1), "pooled_prompt_embeds": torch.zeros(3, 1)}
    from masuka.training.caches import Bucket

    posterior = {"mean": torch.zeros(2, 4, 8, 8), "std": torch.ones(2, 4, 8, 8)}
    latents = Latents(
        (Bucket(Shape(64, 64), posterior, (0, 1)),), {"scaling_factor": 2.0, "shift_factor": 0.5}
    )
    return Batches(
        FLUX,
        latents,
        Texts(tensors, ("", "a", "b")),
        ["a", "b"],
        dropout=dropout,
        seed=seed,
        device="cpu",
        dtype=torch.float32,
    )


def test_the_same_step_is_the_same_batch_and_no_other_is() -> None:
    batch = Batch(0, (0, 1))
    one, same = batches(0.5).at(3, batch), batches(0.5).at(3, batch)
    assert torch.equal(one.noisy, same.noisy) and torch.equal(one.target, same.target)
    assert one.captions == same.captions
    for other in (
        batches(0.5).at(4, batch),
        batches(0.5).at(3, Batch(0, (0, 1), first=2)),
        batches(0.5, 9).at(3, batch),
    ):
        assert not torch.equal(one.noisy, other.noisy)


def test_the_target_leads_from_the_noisy_latents_to_the_clean_ones() -> None:
    micro = batches(0.0).at(0, Batch(0, (0, 1)))
    clean = micro.noisy - micro.sigmas.view(-1, 1, 1, 1) * micro.target
    noise = clean + micro.target
    assert abs(float(noise.std()) - 1) < 0.1 and abs(float(clean.std()) - 2) < 0.2
    assert micro.captions == ("a", "b")
    assert micro.text["prompt_embeds"].flatten().tolist() == [1.0, 2.0]


def test_dropped_captions_have_the_empty_embedding() -> None:
    source = batches(0.3)
    seen = [source.at(step, Batch(0, (0, 1))) for step in range(200)]
    dropped = [caption == "" for micro in seen for caption in micro.captions]
    assert 0.2 < sum(dropped) / len(dropped) < 0.4
    for micro in seen:
        rows = [{"": 0.0, "a": 1.0, "b": 2.0}[caption] for caption in micro.captions]
        assert micro.text["prompt_embeds"].flatten().tolist() == rows


def test_another_training_of_the_same_pictures_finds_them_cached(
    tmp_path: Path, source: Source, reporter: EventFile
) -> None:
    """Whatever its order and whatever it has besides; each base has its own VAE's configuration."""
    cache_latents(source, tmp_path, pictures(tmp_path / "p"), SHAPES, reporter)
    fewer = list(reversed(pictures(tmp_path / "p")))[:2]
    unloaded = replace(source, family=LoadsNothing())
    found = cache_latents(unloaded, tmp_path, fewer, list(reversed(SHAPES))[:2], reporter)
    assert [bucket.pictures for bucket in found.buckets] == [(0,), (1,)]
    names = [file.name for file in (tmp_path / "latents").glob("*.safetensors")]
    assert {name.partition("-")[0] for name in names} == {p.sha256[:16] for p in pictures(tmp_path / "p")}
    with pytest.raises(AssertionError, match="VAE"):
        cache_latents(replace(unloaded, dtype=torch.bfloat16), tmp_path, fewer, SHAPES[:2], reporter)


def test_caches_stay_within_their_size_and_what_was_used_last_stays(
    tmp_path: Path, source: Source, reporter: EventFile
) -> None:
    for text in ("first", "second"):
        cache_texts(source, tmp_path, [text], reporter)
    files = list((tmp_path / "texts").glob("*.safetensors"))
    size = files[0].stat().st_size
    keep_within(tmp_path, size)
    assert all(file.exists() for file in files), "used within the hour"
    for file in files:
        os.utime(file, (time.time() - 7200,) * 2)
    cache_texts(source, tmp_path, ["second"], reporter)  # the empty text and this one are used again
    keep_within(tmp_path, size)
    assert len(list((tmp_path / "texts").glob("*.safetensors"))) == 2
    unloaded = replace(source, family=LoadsNothing())
    assert cache_texts(unloaded, tmp_path, ["second"], reporter).texts == ("", "second")


def test_a_base_with_another_text_encoder_has_caches_of_its_own(tmp_path: Path) -> None:
    """A LoRA baked into it changes no name, no size and no end of a file."""
    for name in ("base", "baked"):
        (tmp_path / name / "text_encoder").mkdir(parents=True)
        values = torch.zeros(64, 1024)
        values[:16] = 1.0 if name == "baked" else 0.0
        save_file({"a": values, "z": torch.ones(4096)}, tmp_path / name / "text_encoder" / "model.safetensors")
    (tmp_path / "baked" / FINISHED).write_text('{"source": "base"}')
    made_of, baked = (Source(FLUX, tmp_path / n, "cpu", torch.float32, torch.float32) for n in ("base", "baked"))
    assert baked.fingerprint() == made_of.fingerprint()  # by which checkpoints know their base
    assert baked.contents() != made_of.contents() == made_of.fingerprint()
