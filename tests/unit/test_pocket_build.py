"""Making Pocket: what belongs to one autoencoder is not used with another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from masuka.errors import Conflict
from masuka.pocket import build
from masuka.pocket.drawn import scenes_of
from masuka.pocket.judge import Judge
from masuka.pocket.train_vae import new_vae
from masuka.pocket.world import draw

AT_ONCE = 1e-9  # minutes: the training is over before its first step
DRAWN, TESTED, KNOWN = 3, 2, 4


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A work folder with a few pictures, and no more asked for."""
    for name, count in {"_DRAWN": DRAWN, "_TESTED": TESTED, "_KNOWN": KNOWN}.items():
        monkeypatch.setattr(build, name, count)
    folder = tmp_path / "work"
    (folder / "pictures").mkdir(parents=True)
    for kind, count in (("any", DRAWN + TESTED), ("known", KNOWN)):
        pictures = np.stack([np.asarray(draw(scene)) for scene in scenes_of(kind, count)])
        np.save(folder / "pictures" / f"{kind}-{count}.npy", pictures)
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An output folder with an untrained judge."""
    Judge().save(tmp_path / "out" / "judge", {})
    return tmp_path / "out"


def vae_of(seed: int, **config: Any) -> AutoencoderKL:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        vae = new_vae().eval()
    vae.register_to_config(shift_factor=0.0, **{"scaling_factor": 1.0, **config})
    return vae


def files(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def test_an_autoencoder_is_known_by_its_weights_and_their_scale() -> None:
    assert build.name_of(vae_of(1)) == build.name_of(vae_of(1))
    names = {build.name_of(vae_of(1)), build.name_of(vae_of(2)), build.name_of(vae_of(1, scaling_factor=0.5))}
    assert len(names) == 3


def test_written_and_loaded_it_is_the_same_one(tmp_path: Path, work: Path) -> None:
    pictures = np.load(work / "pictures" / f"any-{DRAWN + TESTED}.npy")
    written = build.export_vae(vae_of(1).state_dict(), tmp_path / "vae", pictures)
    name = build.name_of(written)
    written.to(torch.bfloat16).save_pretrained(tmp_path / "again")  # as with the whole pipeline
    assert build.name_of(build._loaded_vae(tmp_path / "again")) == name


def test_each_autoencoder_has_latents_of_its_own(work: Path) -> None:
    first = build.latents_of(vae_of(1), work)
    second = build.latents_of(vae_of(2), work)
    assert first.shape == second.shape == (KNOWN, 64, 32)
    assert not torch.equal(first, second)
    (work / "pictures" / f"known-{KNOWN}.npy").unlink()  # from now on only what is kept
    assert torch.equal(build.latents_of(vae_of(1), work), first)
    assert torch.equal(build.latents_of(vae_of(2), work), second)
    assert not list(work.glob("*.part"))


def test_a_training_on_other_latents_begins_anew(work: Path, out: Path) -> None:
    for seed in (1, 2):
        vae_of(seed).save_pretrained(out / "model" / "vae")
        build.build_transformer(out, work, AT_ONCE)
    names = {build.name_of(vae_of(seed)) for seed in (1, 2)}
    assert {f.stem.removeprefix("flow-") for f in work.glob("flow-*.pt")} == names
    assert {f.stem.removeprefix("latents-") for f in work.glob("latents-*.pt")} == names


def test_an_autoencoder_that_misses_its_bar_replaces_nothing(work: Path, out: Path) -> None:
    vae_of(1).save_pretrained(out / "model" / "vae")
    before = files(out / "model")
    with pytest.raises(Conflict, match="vae misses its bar"):
        build.build_vae(out, work, AT_ONCE)
    assert files(out / "model") == before


def test_one_that_meets_it_takes_the_place(work: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vae_of(1).save_pretrained(out / "model" / "vae")
    monkeypatch.setattr(build, "_VAE_BAR", 0.0)
    build.build_vae(out, work, AT_ONCE)
    assert build.name_of(build._finished_vae(out)) != build.name_of(vae_of(1))
    assert sorted(p.name for p in out.iterdir()) == ["judge", "model"]
    assert "reconstructions" in (out / "model" / "figures.json").read_text()
