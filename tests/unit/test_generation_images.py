"""The drawing job from parameters to files, on a tiny random FLUX."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from masuka.errors import InvalidInput, NotFound, Stop
from masuka.families.base import AdapterReport
from masuka.families.flux import Flux
from masuka.generation import images, infotext
from masuka.generation.drawing import Adapter, Drawer, Identity
from masuka.generation.previews import Preview
from masuka.jobs.reporter import EventFile
from tests.tiny_flux import FLUX, random_lora, random_text_lora, request, tiny_folder


class Job:
    """A drawing job with its own events file, as a worker runs it."""

    def __init__(self, folder: Path, stop_reason: Callable[[], str | None] = lambda: None) -> None:
        self.items = folder / "items"
        self.events_file = folder / "jobs" / "7" / "1.jsonl"
        self.reporter = EventFile(self.events_file, folder / "jobs" / "7" / "scratch-1", stop_reason)

    def run(
        self, adapter: dict[str, Any] | None = None, base: Path | None = None, **values: Any
    ) -> dict[str, Any]:
        asked = request(**values)
        params = {
            "request": asked.as_dict(),
            "family": "flux",
            "base": {
                "id": "pocket", "title": "Pocket", "repo": "", "revision": None,
                "folder": str(base or tiny_folder()), "training_adapter": None,
            },
            "adapter": adapter,
            "prompt": asked.prompt,
            "items_folder": str(self.items),
            "device": "cpu",
        }  # fmt: skip
        return images.run(params, self.reporter)

    def events(self, type: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.events_file.read_text().splitlines()]
        return [line for line in lines if line["type"] == type]

    def items_made(self) -> list[dict[str, Any]]:
        return [e for e in self.events("artefact") if e["kind"] == "item"]

    def pixels(self) -> list[bytes]:
        found = []
        for event in self.items_made():
            with Image.open(event["path"]) as picture:
                found.append(picture.tobytes())
        return found


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Callable[..., Job]]:
    made: list[Job] = []

    def new(name: str = "one", stop_reason: Callable[[], str | None] = lambda: None) -> Job:
        made.append(Job(tmp_path / name, stop_reason))
        return made[-1]

    yield new
    for job in made:
        job.reporter.close()
    images.release()


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """An adapter as the studio hands it over."""
    file = tmp_path_factory.mktemp("lora") / "mira.safetensors"
    FLUX.save_adapter(file, random_lora(), {}, text_layers=random_text_lora())
    return {"id": 3, "file": str(file), "name": "Mira", "sha256": "ab" * 32, "weight": 1.0}


def test_each_picture_is_a_file_with_a_thumbnail_and_an_event(jobs: Callable[..., Job]) -> None:
    job = jobs()
    assert job.run(num_images=2, seed=5) == {"items": 2, "applied": 0, "total": 0}
    made = job.items_made()
    assert [event["about"]["seed"] for event in made] == [5, 6]
    for event in made:
        file = Path(event["path"])
        assert datetime.strptime(file.parent.name, "%Y-%m-%d")
        assert file.parent.parent == job.items
        with Image.open(file) as picture, Image.open(job.items / "thumbs" / f"{file.stem}.webp") as small:
            assert picture.size == small.size == (64, 64)
            assert (event["about"]["width"], event["about"]["height"]) == picture.size
        found = infotext.read(file)
        assert found.record == {**event["about"]["settings"], "schema": 1}
        assert found.parameters is not None
        assert found.parameters.prompt == "a red robot"
    assert not list(job.reporter.scratch.iterdir())


def test_progress_counts_every_step_of_every_picture(jobs: Callable[..., Job]) -> None:
    job = jobs()
    job.run(num_images=2)
    last = job.events("progress")[-1]
    assert (last["step"], last["total"]) == (6, 6)
    assert last["seconds_per_step"] > 0
    assert [e["name"] for e in job.events("stage")] == ["Loading the model", "Drawing"]


def test_a_picture_is_the_same_alone_and_among_others(jobs: Callable[..., Job]) -> None:
    many, alone = jobs("many"), jobs("alone")
    many.run(num_images=3, seed=5)
    alone.run(seed=6)
    assert many.pixels()[1] == alone.pixels()[0]
    assert len(set(many.pixels())) == 3


def test_the_base_stays_warm_and_another_folder_replaces_it(jobs: Callable[..., Job], tmp_path: Path) -> None:
    job = jobs()
    job.run()
    first = images._warm
    job.run(prompt="a blue robot")
    assert images._warm is first
    other = shutil.copytree(tiny_folder(), tmp_path / "other")
    job.run(base=other)
    assert images._warm is not first
    assert job.pixels()[0] == job.pixels()[2]


def test_a_lora_is_counted_swapped_and_taken_out(
    jobs: Callable[..., Job], lora: dict[str, Any], tmp_path: Path
) -> None:
    job = jobs()
    job.run()
    result = job.run(adapter=lora)
    assert result["applied"] == result["total"] == 42
    other_file = tmp_path / "nils.safetensors"
    FLUX.save_adapter(other_file, {k: -v for k, v in random_lora(layers="attention").items()}, {})
    job.run(adapter={**lora, "file": str(other_file), "sha256": "cd" * 32, "name": "Nils"})
    job.run(adapter=lora)
    job.run(adapter=lora, adapter_weight=0.5)
    job.run()
    plain, mira, nils, mira_again, half, plain_again = job.pixels()
    assert plain == plain_again
    assert mira == mira_again
    assert len({plain, mira, nils, half}) == 4
    record = job.items_made()[1]["about"]["settings"]
    assert record["adapter"]["applied"] == record["adapter"]["total"] == 42
    assert record["adapter"]["sha256"] == "ab" * 32
    assert "<lora:Mira:1>" in infotext.parameters_text(record)


def test_a_lora_that_fits_partly_is_said(
    jobs: Callable[..., Job], lora: dict[str, Any], tmp_path: Path
) -> None:
    layers = random_lora(layers="attention")
    layers["transformer_blocks.9.attn.to_q.lora_A.weight"] = torch.zeros(4, 32)
    layers["transformer_blocks.9.attn.to_q.lora_B.weight"] = torch.zeros(32, 4)
    FLUX.save_adapter(tmp_path / "x.safetensors", layers, {})
    job = jobs()
    result = job.run(adapter={**lora, "file": str(tmp_path / "x.safetensors"), "sha256": "ef" * 32})
    assert result["total"] == result["applied"] + 1
    assert (
        job.events("note")[0]["text"] == f"The LoRA fits {result['applied']} of its {result['total']} layers."
    )


def test_a_refused_lora_leaves_the_base_as_it_was(
    jobs: Callable[..., Job], lora: dict[str, Any], tmp_path: Path
) -> None:
    job = jobs()
    job.run()
    FLUX.save_adapter(tmp_path / "x.safetensors", {"other.lora_A.weight": torch.zeros(4, 7)}, {})
    with pytest.raises(InvalidInput, match="None of the 1 layers"):
        job.run(adapter={**lora, "file": str(tmp_path / "x.safetensors")})
    job.run()
    assert job.pixels()[0] == job.pixels()[1]


def test_halves_of_two_loras_are_refused_and_the_next_one_loads(
    jobs: Callable[..., Job], lora: dict[str, Any], tmp_path: Path
) -> None:
    layers = random_lora()
    odd = next(key for key in layers if "lora_A" in key)
    layers[odd] = layers[odd][:2].clone()
    FLUX.save_adapter(tmp_path / "x.safetensors", layers, {})
    job = jobs()
    job.run()
    with pytest.raises(InvalidInput, match="do not belong together"):
        job.run(adapter={**lora, "file": str(tmp_path / "x.safetensors"), "sha256": "cd" * 32})
    job.run()
    assert job.pixels()[0] == job.pixels()[1]
    assert job.run(adapter=lora)["applied"] == 42


class Interrupted(Flux):
    """FLUX on a machine whose memory ends when the LoRA is in already."""

    short = False

    def load_adapter(self, pipeline: Any, file: Path, name: str) -> AdapterReport:
        report = super().load_adapter(pipeline, file, name)
        if self.short:
            raise MemoryError
        return report


def test_a_lora_that_fails_half_way_is_out_again(lora: dict[str, Any]) -> None:
    family = Interrupted()
    drawer = Drawer(family, Identity.of(tiny_folder(), "cpu", torch.float32))
    adapter = Adapter(Path(lora["file"]), lora["sha256"])
    family.short = True
    with pytest.raises(MemoryError):
        drawer.use(adapter)
    assert not getattr(drawer.pipeline.transformer, "peft_config", {})
    family.short = False
    assert drawer.use(adapter).applied == 42


def test_a_cancel_keeps_what_is_done_and_leaves_nothing_half(jobs: Callable[..., Job]) -> None:
    reasons: list[str | None] = []

    def reason() -> str | None:
        reasons.append("cancel" if stopped.items_made() else None)
        return reasons[-1]

    stopped = jobs("stopped", reason)
    with pytest.raises(Stop, match="cancel"):
        stopped.run(num_images=4, seed=5)
    assert [event["about"]["seed"] for event in stopped.items_made()] == [5]
    files = [f.name for f in stopped.items.rglob("*") if f.is_file()]
    assert sorted(Path(name).suffix for name in files) == [".png", ".webp"]
    fresh = jobs("fresh")
    fresh.run(seed=5)
    assert fresh.pixels() == stopped.pixels()


def test_previews_are_small_files_that_end_with_the_job(
    jobs: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "SECONDS_BETWEEN_PREVIEWS", 0.0)
    job = jobs()
    job.run(num_inference_steps=4)
    shown = [e for e in job.events("artefact") if e["kind"] == "preview"]
    assert [Path(e["path"]) for e in shown] == [job.items / "previews" / "7.webp"] * 3
    assert not any((job.items / "previews").iterdir())


class LinearAutoencoder(torch.nn.Module):
    """Latents that are known mixtures of the colours, eight times smaller."""

    def __init__(self) -> None:
        super().__init__()
        mixture = torch.randn(6, 3, generator=torch.Generator().manual_seed(2))
        self.mixture = torch.nn.Parameter(mixture, requires_grad=False)

    def encode(self, pixels: torch.Tensor) -> SimpleNamespace:
        small = torch.nn.functional.avg_pool2d(pixels, 8)
        latents = torch.einsum("lc,bchw->blhw", self.mixture, small) + 0.3
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: latents))


def test_a_preview_shows_the_colours_of_the_latents() -> None:
    autoencoder = LinearAutoencoder()
    pixels = torch.zeros(1, 3, 64, 96)
    pixels[:, 0, :, :48] = 0.9
    pixels[:, 2, :, 48:] = 0.6
    latents = autoencoder.encode(pixels * 2 - 1).latent_dist.mode()
    picture = Preview(autoencoder).picture(latents)
    assert picture.size == (12 * 21, 8 * 21)
    for x, wanted in ((20, (230, 0, 0)), (230, (0, 0, 153))):
        shown = picture.getpixel((x, 80))
        assert isinstance(shown, tuple)
        assert all(abs(a - b) <= 4 for a, b in zip(shown, wanted, strict=True))


def test_a_prompt_is_read_once(jobs: Callable[..., Job]) -> None:
    job = jobs()
    job.run(num_images=2)
    job.run(guidance_scale=4.0, seed=9)
    assert images._warm is not None
    assert len(images._warm._texts) == 2  # the prompt, and the empty one that guidance leads away from
    job.run(prompt="a green robot")
    assert len(images._warm._texts) == 3


def test_guidance_reaches_the_model(jobs: Callable[..., Job]) -> None:
    job = jobs()
    job.run(guidance_scale=1.0)
    job.run(guidance_scale=5.0)
    assert len(set(job.pixels())) == 2


def test_what_is_gone_is_said(jobs: Callable[..., Job], lora: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="base model are gone"):
        jobs().run(base=tmp_path / "none")
    with pytest.raises(NotFound, match="file of Mira is gone"):
        jobs("two").run(adapter={**lora, "file": str(tmp_path / "none.safetensors")})


def test_a_negative_prompt_is_refused_where_nothing_reads_it(jobs: Callable[..., Job]) -> None:
    with pytest.raises(InvalidInput) as caught:
        jobs().run(negative_prompt="rain")
    assert caught.value.field == "negative_prompt"
