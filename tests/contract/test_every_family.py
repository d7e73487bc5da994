"""What every family promises, asked of each that is registered, on its tiny checkpoint.

A family that joins is tested by being registered; where a stock pipeline needs to be told
how long the tiny tokenizer's texts are, `tests/every_family.py` has a table.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from masuka.errors import InvalidInput, Stop
from masuka.families import FAMILIES
from masuka.families.base import Family
from masuka.generation.drawing import Adapter, Drawer, Identity
from tests.every_family import (
    CALLED_WITH,
    arguments_for,
    as_trained,
    denoiser_in,
    drawn,
    encoded,
    entry_of,
    first_step,
    modules_of,
    pipeline_of,
    random_lora,
    random_text_lora,
    request_for,
    tiny_folder,
)
from tests.tiny_training import Job, train_params

NAMES = list(FAMILIES)
TRAINED = [name for name, family in FAMILIES.items() if any(entry.trainable for entry in family.entries)]
LARGEST_BYTES = 5_000_000
SHARE_CODE = {"sdxl-v", "sdxl-edm"}
"""Families of SDXL's own layers and text, which are asked there."""
WITH_LAYERS = [name for name in TRAINED if name not in SHARE_CODE]
every_family = pytest.mark.parametrize("name", NAMES)


@every_family
def test_the_tiny_checkpoint_is_small_and_the_same_each_time(name: str, tmp_path: Path) -> None:
    first, second = tiny_folder(name), FAMILIES[name].tiny(tmp_path / "again")
    files = sorted(file.relative_to(first) for file in first.rglob("*.safetensors"))
    assert files
    assert sum(file.stat().st_size for file in first.rglob("*") if file.is_file()) < LARGEST_BYTES
    for file in files:
        ours, again = load_file(first / file), load_file(second / file)
        assert all(torch.equal(tensor, again[key]) for key, tensor in ours.items()), file


@every_family
def test_cached_text_draws_what_the_pipelines_own_encoding_draws(name: str) -> None:
    """`encode_text` replaces the pipeline's own encoding, so that it can be cached."""
    family, pipeline = FAMILIES[name], pipeline_of(name)
    text = "mira7x robot on a long, long beach at night"
    cached = arguments_for(family, pipeline, text)
    wanted = drawn(family, pipeline, text)
    others = {key: value for key, value in cached.items() if key not in encoded(family, pipeline, text)}
    others["generator"] = [torch.Generator().manual_seed(1)]
    theirs = pipeline(prompt=text, output_type="latent", **others, **CALLED_WITH.get(name, {})).images
    torch.testing.assert_close(wanted, theirs, rtol=0, atol=1e-5)
    assert not torch.allclose(wanted, drawn(family, pipeline, "a"), atol=1e-5)


@every_family
def test_texts_of_a_batch_are_what_each_is_alone(name: str) -> None:
    """Captions are encoded several at once, and a batch holds short ones beside long ones."""
    family, pipeline = FAMILIES[name], pipeline_of(name)
    encoder = family.text_encoder_of(pipeline)
    with torch.no_grad():
        together = family.encode_text(encoder, ["a red robot on a beach", "robot"])
        alone = family.encode_text(encoder, ["robot"])
    for key, rows in together.items():
        length = alone[key].shape[1] if alone[key].dim() > 1 else None
        row = rows[1:] if length is None else rows[1:, :length]
        torch.testing.assert_close(row, alone[key], rtol=0, atol=1e-5)


@every_family
def test_a_step_of_the_pipeline_is_predict_and_the_schedulers_step(name: str) -> None:
    """Training sees what drawing sees: time, sign, packing, scales and noise levels.

    What the first step leads to is what `predict`, `add_noise` and `target` say it is.
    """
    family, pipeline = FAMILIES[name], pipeline_of(name)
    size = (request_for(family).width, request_for(family).height)
    with first_step(pipeline) as seen:
        drawn(family, pipeline)

    def learnt(after: torch.Tensor) -> torch.Tensor:
        return as_trained(family, pipeline, family.clean_latents(pipeline, seen["before"], after, 0, size).float())

    scheduler = pipeline.scheduler
    scale = _input_scale(scheduler)
    noisy = scale * learnt(seen["before"])
    level = torch.tensor([_level(scheduler)])
    with torch.no_grad():
        predicted = family.predict(
            denoiser_in(family, pipeline), noisy, level, encoded(family, pipeline, "a red robot")
        )
    one, none = torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1)
    system = torch.tensor(
        [
            [family.add_noise(one, none, level).item(), family.add_noise(none, one, level).item()],
            [family.target(one, none, level).item(), family.target(none, one, level).item()],
        ],
        dtype=torch.float64,
    )
    known = torch.stack([noisy, predicted]).double().flatten(1)
    picture = torch.linalg.solve(system, known)[0].view(noisy.shape).float()
    clean = learnt(seen["after"])
    torch.testing.assert_close(clean, picture, rtol=1e-3, atol=1e-3 * picture.abs().max().item())


def _level(scheduler: Any) -> float:
    """The noise level of the scheduler's first step, as families count it."""
    if type(scheduler).__name__.startswith("FlowMatch"):
        return float(scheduler.sigmas[0])
    if type(scheduler).__name__.startswith("EDM"):
        return 1.0
    return (float(scheduler.timesteps[0]) + 0.5) / scheduler.config.num_train_timesteps


def _input_scale(scheduler: Any) -> float:
    """What the scheduler multiplies latents by in front of the denoiser."""
    if not hasattr(scheduler, "scale_model_input"):
        return 1.0
    scheduler.set_begin_index(0)
    scheduler._step_index = None
    return float(scheduler.scale_model_input(torch.ones(1), scheduler.timesteps[0]))


@every_family
def test_noise_levels_are_between_picture_and_noise(name: str) -> None:
    family = FAMILIES[name]
    levels = family.sample_sigmas(2000, (2000, 4, 8, 8), torch.Generator().manual_seed(1))
    assert levels.shape == (2000,) and levels.min() > 0 and levels.max() < 1
    assert levels.min() < 0.2 and levels.max() > 0.8
    if family.capabilities.snr_weighting:
        weights = family.min_snr(levels, 5.0)
        assert weights.shape == (2000,) and weights.min() >= 0 and weights.max() <= 1 + 1e-6
    assert family.loss_weight(levels).shape == (2000,)


@every_family
def test_many_generators_draw_what_each_draws_alone(name: str) -> None:
    """Seeds count on from the first one, so batch or not must not matter."""
    family, pipeline = FAMILIES[name], pipeline_of(name)
    request, text = request_for(family), encoded(FAMILIES[name], pipeline, "a red robot")
    negative = family.negative_text(request)

    def latents(*seeds: int) -> torch.Tensor:
        arguments = family.call_arguments(
            request,
            [torch.Generator().manual_seed(seed) for seed in seeds],
            text=text,
            negative=None if negative is None else encoded(family, pipeline, negative),
        )
        result: torch.Tensor = pipeline(**arguments, output_type="latent").images
        return result

    together, alone = latents(1, 2), torch.cat([latents(1), latents(2)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-4 * max(1.0, alone.abs().max().item()))
    assert not torch.allclose(together[0], together[1])


@every_family
def test_guidance_uses_the_second_text(name: str) -> None:
    """Where a base is led away from a negative text, that text matters and is cached too."""
    family, pipeline = FAMILIES[name], pipeline_of(name)
    if entry_of(family).guidance != "true_cfg" or not family.capabilities.negative_prompt:
        assert family.negative_text(request_for(family)) is None
        return
    plain = drawn(family, pipeline)
    led = drawn(family, pipeline, guidance_scale=4.0)
    away = drawn(family, pipeline, guidance_scale=4.0, negative_prompt="blue and dark")
    assert not torch.allclose(plain, led, atol=1e-5)
    assert not torch.allclose(led, away, atol=1e-6)


def saved_lora(name: str, folder: Path, *, alpha: float | None = None) -> Path:
    family = FAMILIES[name]
    file = folder / "x.safetensors"
    text_layers = random_text_lora(name) or None
    family.save_adapter(file, random_lora(name), {"modelspec.title": "x"}, alpha=alpha, text_layers=text_layers)
    return file


@pytest.mark.parametrize("alpha", [None, 2.0])
@pytest.mark.parametrize("name", WITH_LAYERS)
def test_a_saved_lora_changes_every_weight_as_it_did(name: str, alpha: float | None, tmp_path: Path) -> None:
    """Alpha reaches every reader, whatever metadata it knows: here and in diffusers alone."""
    family = FAMILIES[name]
    file = saved_lora(name, tmp_path, alpha=alpha)
    ours, theirs = pipeline_of(name), pipeline_of(name)
    report = family.load_adapter(ours, file, "x")
    states = (random_lora(name), random_text_lora(name))
    assert report.applied == report.total == sum(len(state) for state in states) // 2
    theirs.load_lora_weights(str(file), adapter_name="x")
    for pipeline in (ours, theirs):
        parts = [denoiser_in(family, pipeline)]
        if states[1]:
            parts.append(family.adaptable_text_encoder(family.text_encoder_of(pipeline)))
        for part, state in zip(parts, states, strict=False):
            for module in modules_of(state):
                wanted = state[f"{module}.lora_B.weight"] @ state[f"{module}.lora_A.weight"] * ((alpha or 4) / 4)
                found = part.get_submodule(module).get_delta_weight("x").reshape(wanted.shape)  # type: ignore[operator]
                torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", WITH_LAYERS)
def test_a_lora_of_another_width_is_refused_and_one_that_fits_in_part_counted(
    name: str, tmp_path: Path
) -> None:
    family, pipeline = FAMILIES[name], pipeline_of(name)
    tensors = load_file(saved_lora(name, tmp_path))
    before = drawn(family, pipeline)
    wide = {
        key: torch.cat([tensor, tensor], 0 if _is_up(key) else 1) if tensor.dim() > 1 else tensor
        for key, tensor in tensors.items()
    }
    save_file(wide, tmp_path / "wide.safetensors")
    with pytest.raises(InvalidInput, match="None of the"):
        family.load_adapter(pipeline, tmp_path / "wide.safetensors", "x")
    assert torch.equal(drawn(family, pipeline), before)
    stems = sorted({_stem(key) for key in tensors})
    kept = set(stems[: len(stems) // 2])
    save_file({k: tensors[k] if _stem(k) in kept else wide[k] for k in tensors}, tmp_path / "half.safetensors")
    report = family.load_adapter(pipeline, tmp_path / "half.safetensors", "x")
    assert 0 < report.applied < report.total


def _stem(key: str) -> str:
    """The layer's name in front of what its tensors are called."""
    return re.split(r"\.(lora_|alpha)", key)[0]


def _is_up(key: str) -> bool:
    return "lora_B" in key or "lora_up" in key


@pytest.mark.parametrize("name", WITH_LAYERS)
def test_the_layers_that_learn_are_inside_blocks(name: str) -> None:
    """Patterns are matched against whole names: the input and output layers are left alone."""
    family = FAMILIES[name]
    names = modules_of(random_lora(name))
    assert names
    assert all(any(part.isdigit() for part in module.split(".")) or "mid_block" in module for module in names)
    linear = denoiser_in(family, pipeline_of(name))
    assert all(isinstance(linear.get_submodule(module), torch.nn.Linear) for module in names)


class StopInStep:
    """Raises Stop at the n-th question, as a person's cancel does in the middle of a step."""

    def __init__(self, at: int) -> None:
        self.at, self.asked = at, 0

    def __call__(self) -> None:
        self.asked += 1
        if self.asked == self.at:
            raise Stop("cancel")


@every_family
def test_a_picture_after_a_cancel_is_bit_exact(name: str) -> None:
    """`Drawer.stoppable` raises from inside a model; nothing of that may colour the next picture."""
    family = FAMILIES[name]
    warm = Drawer(family, Identity.of(tiny_folder(name), "cpu", torch.float32))
    wanted = warm.draw(request_for(family), "a red robot", 1).tobytes()
    asked = StopInStep(at=10**9)
    with warm.stoppable(asked):
        warm.draw(request_for(family), "a blue robot", 2)
    with pytest.raises(Stop), warm.stoppable(StopInStep(at=2 * asked.asked // 3)):
        warm.draw(request_for(family), "a blue robot at night", 2)
    assert warm.draw(request_for(family), "a red robot", 1).tobytes() == wanted


@every_family
def test_a_picture_in_the_making_is_shown(name: str) -> None:
    """Previews are fitted to each VAE, whatever shape of pixels and latents it takes."""
    family = FAMILIES[name]
    warm = Drawer(family, Identity.of(tiny_folder(name), "cpu", torch.float32))
    shown: list[Any] = []
    request = request_for(family, width=96)
    warm.draw(request, "a red robot", 1, lambda _done, preview: shown.append(preview and preview()))
    assert shown[0] is None
    assert abs(shown[1].width / shown[1].height - 1.5) < 0.01


@pytest.mark.parametrize("name", TRAINED)
def test_a_short_training_makes_a_lora_that_draws(name: str, tmp_path: Path) -> None:
    """From pictures to a LoRA of every layer, and a picture that is another with it."""
    family = FAMILIES[name]
    params = training_params(family, tmp_path)
    job = Job(tmp_path)
    result = job.run(params)
    assert result["steps"] == 6 and result["applied"] == result["total"] > 0
    assert all(loss > 0 for loss in job.losses().values())
    warm = Drawer(family, Identity.of(tiny_folder(name), "cpu", torch.float32))
    plain = warm.draw(request_for(family), "mira7x robot", 1).tobytes()
    report = warm.use(Adapter(Path(result["file"]), result["sha256"]))
    assert report.applied == report.total
    assert warm.draw(request_for(family), "mira7x robot", 1).tobytes() != plain
    warm.use(None)
    assert warm.draw(request_for(family), "mira7x robot", 1).tobytes() == plain


def training_params(family: Family, root: Path) -> dict[str, Any]:
    """A training of six steps on the family's tiny checkpoint."""
    entry = entry_of(family)
    text = {"train_text_encoder": True} if family.capabilities.text_encoder_lora else {}
    # Samples are drawn in the base's own number of steps: once for those that share their code.
    drawn_too = {} if family.name in SHARE_CODE else {"sample_every": 6}
    weighed = {"min_snr_gamma": 5.0} if family.capabilities.snr_weighting else {}
    values = {"resolution_px": 64, "learning_rate": 1e-2, **drawn_too, **text, **weighed}
    params = train_params(root, base=tiny_folder(family.name), count=3, **values)
    about = {"id": entry.id, "title": entry.title, "licence": entry.licence}
    return {
        **params,
        "family": family.name,
        "request": {**params["request"], "base": entry.id},
        "base": {**params["base"], **about},
    }
