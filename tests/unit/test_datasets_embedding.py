"""The embedder behind the odd one out, on a tiny checkpoint of the real classes."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from masuka.datasets import checking, doctor, embedding, keeping, measures, outliers
from masuka.jobs.reporter import EventFile
from masuka.pocket import world
from tests import scenes


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dinov2Model with random weights, saved as the hub's repository is."""
    import torch
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(1)
    config = Dinov2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=518, patch_size=14, mlp_ratio=2
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("models") / "dinov2-small"
    Dinov2Model(config).save_pretrained(folder)
    return folder


def robots() -> list[Image.Image]:
    return [image for image, _ in world.character_set(5, 12)]


def test_the_same_picture_gives_the_same_vector_and_others_another(checkpoint: Path) -> None:
    embedder = embedding.DinoV2(checkpoint)
    one, other = robots()[:2]
    vectors = embedder.embed([one, other, one, one.resize((300, 300)).convert("L")])
    assert vectors.shape == (4, 32) and vectors.dtype == np.float32
    np.testing.assert_allclose(vectors[0], vectors[2], atol=1e-5)
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-3


def test_only_a_whole_download_counts(tmp_path: Path) -> None:
    folder = embedding.folder_in(tmp_path)
    folder.mkdir()
    (folder / "model.safetensors").touch()
    assert not embedding.is_here(tmp_path)
    (folder / embedding.FINISHED).touch()
    assert embedding.is_here(tmp_path)


def test_vectors_decide_who_is_odd() -> None:
    """Pictures that look alike, one of which an embedder tells apart."""
    scores = [measures.measure(image, width=128, height=128) for image in robots()]
    rows = [{"sha256": str(n), "scores": s, "width": 128, "height": 128} for n, s in enumerate(scores)]
    rng = np.random.default_rng(2)
    vectors = {str(n): np.array([1.0, 0, 0]) + 0.05 * rng.normal(size=3) for n in range(12)}
    vectors["7"] = np.array([0.0, 1, 0])
    assert outliers.odd_ones(scores) == []
    odd = [f["sha256"] for f in doctor.examine(rows, vectors=vectors) if f["kind"] == "odd_one_out"]
    assert odd == ["7"]
    del vectors["3"]  # not all could be seen: looks decide
    assert not [f for f in doctor.examine(rows, vectors=vectors) if f["kind"] == "odd_one_out"]


def test_the_job_uses_the_embedder(checkpoint: Path, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = []
    for number, image in enumerate([*robots(), scenes.scene(1, (128, 128))]):
        name = f"{number:064x}"[::-1]
        small = keeping.thumbnail_of(tmp_path / name[:16])
        small.parent.mkdir(exist_ok=True)
        image.save(small, "WEBP")
        scores = measures.measure(image, width=128, height=128)
        rows.append({"id": number, "sha256": name, "scores": scores, "width": 128, "height": 128, "name": "", "file": ""})
    checking.write_rows(rows, tmp_path / "rows.jsonl")
    params = {
        "folder": str(tmp_path), "rows": str(tmp_path / "rows.jsonl"), "strictness": "basic", "class_word": "robot",
        "embedder": str(checkpoint),
    }  # fmt: skip
    told = told_by(params, tmp_path)
    assert "Comparing who is shown" in told and '"noun": "findings"' in told
    assert "Comparing who is shown" not in told_by({**params, "embedder": ""}, tmp_path)


def told_by(params: dict[str, Any], folder: Path) -> str:
    """The events of the job."""
    events = folder / f"{len(params['embedder'])}.jsonl"
    with closing(EventFile(events, folder / "scratch")) as reporter:
        result = checking.run(params, reporter)
    assert (result["looked_at"], result["measured"], result["unreadable"]) == (13, 0, [])
    return events.read_text()
