"""A base that was trained here, asked of the studio: it is listed, drawn with and learnt from."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from masuka import Settings, Studio
from masuka.config import Workspace
from masuka.errors import NotAllowed
from masuka.requests.actor import Actor


@pytest.mark.slow
def test_a_whole_training_becomes_a_base_that_draws(tmp_path: Path) -> None:
    values = {
        "steps": 10, "batch_size": 1, "method": "full", "sample_every": 0, "precision": "fp32",
        "learning_rate": 1e-5, "name": "Film Look", "checkpoint_every": 10, "lr_warmup_steps": 0,
    }  # fmt: skip
    for number in range(2):
        Image.new("RGB", (128, 128), (90 * number, 80, 9)).save(tmp_path / f"{number}.png")
    with Studio.open(Settings(workspace=Workspace(tmp_path / "home"), device="cpu")) as studio:
        dataset = studio.datasets.create(name="Look", trigger_word="look7x", class_word="robot")
        studio.jobs.wait(studio.datasets.add_pictures(dataset.id, tmp_path))
        with pytest.raises(NotAllowed):
            studio.acting_as(Actor(user_id=1, role="editor")).training.start(dataset_id=dataset.id, **values)
        job = studio.jobs.wait(studio.training.start(dataset_id=dataset.id, **values))
        assert job.state == "done", job.error
        base = studio.models.base(f"pocket+film-look-{job.run_id}")
        assert base.own and base.title == "Film Look" and base.folder is not None
        assert base.licence == "Apache-2.0" and "trained here" in base.about
        drawn = studio.images.draw(base=base.id, prompt="a red robot", num_inference_steps=1)
        assert studio.jobs.wait(drawn).state == "done"
        assert studio.models.adapters() == []
