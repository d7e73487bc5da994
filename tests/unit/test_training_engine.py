"""What the engine promises of whole trainings on a tiny FLUX, setting by setting."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

from masuka.datasets.buckets import Shape
from masuka.errors import InvalidInput, Stop
from masuka.families.abilities import must_be_able
from masuka.families.flux import Flux
from masuka.requests.training import TrainImage
from masuka.training.caches import Bucket, Latents, Texts
from masuka.training.image import prepare
from masuka.training.lessons import lessons_of, texts_beside
from masuka.training.objective import Objective
from masuka.training.plan import plan_of
from masuka.training.randomness import own_randomness
from tests.every_family import tiny_folder as of_family
from tests.tiny_flux import tiny_folder
from tests.tiny_training import Job, picture_params, train_params, trained_weights


def straight(root: Path, **request: Any) -> tuple[dict[int, float], dict[str, torch.Tensor]]:
    """Losses and last state of a training that nothing disturbs."""
    params, job = train_params(root, **request), Job(root)
    job.run(params)
    return job.losses(), trained_weights(params)


def goes_on_exactly(root: Path, **request: Any) -> dict[int, float]:
    """The losses of a training that was paused inside a step; it must end as if it was not."""
    losses, expected = straight(root / "straight", **request)
    params = train_params(root / "paused", **request)
    with pytest.raises(Stop):
        Job(root / "paused", stop="pause", after_step=2, checks=5).run(params)
    again = Job(root / "paused", attempt=2)
    again.run(params)
    found = trained_weights(params)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.allclose(found[name].double(), tensor.double(), rtol=0, atol=1e-6), name
    assert again.losses() == pytest.approx({n: losses[n] for n in again.losses()}, abs=1e-6)
    return losses


@pytest.mark.parametrize("optimizer", ["came", "schedulefree"])
def test_a_paused_training_goes_on_with_its_optimiser(tmp_path: Path, optimizer: str) -> None:
    losses = goes_on_exactly(tmp_path, optimizer=optimizer, steps=4, checkpoint_every=50)
    assert len(losses) == 4


def test_what_a_schedule_free_training_keeps_is_its_average(tmp_path: Path) -> None:
    _, state = straight(tmp_path, optimizer="schedulefree", steps=3)
    name = next(n.partition("/")[2] for n in state if n.startswith("average/") and "lora_B" in n)
    assert not torch.equal(state[f"average/{name}"], state[f"adapter/{name}"])


def test_accumulation_is_exactly_the_bigger_batch(tmp_path: Path) -> None:
    """Whatever the buckets: five pictures in three shapes, some captions dropped."""
    found = []
    for batch_size, accumulation in ((4, 1), (2, 2), (1, 4)):
        root = tmp_path / f"{batch_size}"
        losses, state = straight(
            root, batch_size=batch_size, gradient_accumulation_steps=accumulation, steps=3,
            caption_dropout=0.3, lr_warmup_steps=0,
        )  # fmt: skip
        found.append((losses, {n: t for n, t in state.items() if n.startswith("adapter/")}))
    (losses, weights), *others = found
    for other_losses, other_weights in others:
        assert other_losses == pytest.approx(losses, abs=1e-6)
        for name, weight in weights.items():
            assert torch.allclose(other_weights[name], weight, rtol=0, atol=1e-6), name


def prior_params(root: Path, **request: Any) -> dict[str, Any]:
    params = train_params(root, steps=3, batch_size=2, **request)
    params["prior_pictures"] = [{**p, "caption": ""} for p in picture_params(root / "class", 4)]
    return params


def test_pictures_of_the_class_are_learnt_beside(tmp_path: Path) -> None:
    params = prior_params(tmp_path / "a", prior_weight=0.5)
    job = Job(tmp_path / "a")
    job.run(params)
    told = [event["values"]["prior_loss"] for event in job.events("metric")]
    assert len(told) == 3 and all(value > 0 for value in told)
    losses, plain = straight(tmp_path / "b", steps=3, batch_size=2)
    assert job.losses()[1] == pytest.approx(losses[1], abs=1e-6), "the pictures are seen as without"
    mine = trained_weights(params)
    moved = [n for n in mine if "lora_B" in n and n.startswith("adapter/")]
    assert any(not torch.allclose(mine[n], plain[n], atol=1e-5) for n in moved)


@pytest.mark.slow
def test_a_training_with_pictures_of_the_class_goes_on_exactly(tmp_path: Path) -> None:
    whole, stopped = (prior_params(tmp_path / name, class_preservation=1.0) for name in "ab")
    straight_job, first = Job(tmp_path / "a"), Job(tmp_path / "b", stop="pause", after_step=1, checks=9)
    straight_job.run(whole)
    with pytest.raises(Stop):
        first.run(stopped)
    Job(tmp_path / "b", attempt=2).run(stopped)
    expected, found = trained_weights(whole), trained_weights(stopped)
    assert all(torch.allclose(t.double(), found[n].double(), rtol=0, atol=1e-6) for n, t in expected.items())


def test_the_class_word_is_held_to_what_the_base_predicts(tmp_path: Path) -> None:
    """Nothing is to be corrected at the first step; later the adapter has moved it."""
    params = train_params(tmp_path, steps=4, class_preservation=1.0, lr_warmup_steps=0, learning_rate=5e-2)
    job = Job(tmp_path)
    job.run(params)
    told = [event["values"]["class_loss"] for event in job.events("metric")]
    assert told[0] == pytest.approx(0.0, abs=1e-9) and told[-1] > 1e-6
    free, _ = straight(tmp_path / "free", steps=4, lr_warmup_steps=0, learning_rate=5e-2)
    assert job.losses()[1] == pytest.approx(free[1], abs=1e-6)


@pytest.mark.parametrize("setting", [{"min_snr_gamma": 5.0}, {"noise_offset": 0.05}])
def test_what_only_some_families_know_is_refused_elsewhere(tmp_path: Path, setting: dict[str, float]) -> None:
    with pytest.raises(InvalidInput, match="SDXL"):
        Job(tmp_path).run(train_params(tmp_path, **setting))


def drawn_levels(**values: Any) -> torch.Tensor:
    objective, generator = Objective(Flux(), **values), torch.Generator().manual_seed(1)
    return torch.cat([objective.sigma(torch.zeros(1, 4, 8, 8), generator) for _ in range(2000)])


def test_noise_levels_are_drawn_as_the_setting_says() -> None:
    even, middle = drawn_levels(timesteps="uniform"), drawn_levels(timesteps="logit_normal")
    assert torch.allclose(torch.histc(even, 4, 0, 1) / 2000, torch.full((4,), 0.25), atol=0.05)
    inner = ((middle > 0.25) & (middle < 0.75)).float().mean()
    assert 0.68 < float(inner) < 0.77, "72.8 % of a logistic normal lie there"
    noisier = drawn_levels(timesteps="uniform", shift=3.0)
    assert torch.allclose(noisier, 3 * even / (1 + 2 * even)) and float(noisier.max()) < 1


def test_a_noise_offset_moves_whole_channels() -> None:
    generator = torch.Generator().manual_seed(2)
    plain, moved = Objective(Flux()), Objective(Flux(), noise_offset=0.2)
    latents = torch.zeros(1, 64, 32, 32)
    spread = [float(o.noise(latents, generator).mean((2, 3)).std()) for o in (plain, moved)]
    assert spread[0] == pytest.approx(1 / 32, rel=0.3) and spread[1] == pytest.approx(0.2, rel=0.3)


def test_min_snr_weighs_by_what_the_family_says() -> None:
    sigmas = torch.tensor([0.1, 0.5, 0.9])
    objective = Objective(Flux(), min_snr_gamma=5.0)
    assert torch.allclose(objective.weight(sigmas), Flux().min_snr(sigmas, 5.0))
    assert torch.equal(Objective(Flux()).weight(sigmas), torch.ones(3))


def whole_params(root: Path, **request: Any) -> dict[str, Any]:
    params = train_params(root, steps=4, method="full", learning_rate=1e-3, **request)
    return params | {"made_base": {"id": "pocket+mira-3", "place": str(root / "models" / "pocket+mira-3")}}


def test_a_whole_model_is_trained_and_becomes_a_base(tmp_path: Path) -> None:
    params, job = whole_params(tmp_path, sample_every=4), Job(tmp_path)
    result = job.run(params)
    told = job.artefacts("base")[0]
    place = Path(told["path"])
    assert told["about"]["id"] == "pocket+mira-3" and result["applied"] == result["total"] > 100
    assert job.artefacts("adapter") == [] and not Path(params["output"]).exists()
    made = Flux().denoiser(place, dtype=torch.float32, device="cpu").state_dict()
    before = Flux().denoiser(tiny_folder(), dtype=torch.float32, device="cpu").state_dict()
    learnt = trained_weights(params)
    assert made.keys() == before.keys()
    for name, weight in made.items():
        assert torch.equal(weight, learnt[f"adapter/denoiser:{name}"]), name
    assert sum(not torch.equal(made[n], before[n]) for n in made) > len(made) / 2
    assert Flux().pipeline(place, dtype=torch.float32, device="cpu").vae is not None


@pytest.mark.slow
def test_a_training_of_a_whole_model_goes_on_exactly(tmp_path: Path) -> None:
    whole, stopped = (whole_params(tmp_path / name, precision="bf16") for name in "ab")
    Job(tmp_path / "a").run(whole)
    with pytest.raises(Stop):
        Job(tmp_path / "b", stop="pause", after_step=2, checks=3).run(stopped)
    Job(tmp_path / "b", attempt=2).run(stopped)
    expected, found = trained_weights(whole), trained_weights(stopped)
    assert all(torch.allclose(t.double(), found[n].double(), rtol=0, atol=1e-6) for n, t in expected.items())


@pytest.mark.parametrize(
    ("setting", "field"),
    [
        ({"quantize": "nf4"}, "quantize"),
        ({"train_text_encoder": True}, "train_text_encoder"),
        ({"base": "flux1-schnell"}, "method"),
    ],
)
def test_what_a_whole_model_cannot_be_trained_with_is_said(setting: dict[str, Any], field: str) -> None:
    request = TrainImage.parse({"dataset_id": 1, "method": "full", **setting})
    with pytest.raises(InvalidInput) as caught:
        must_be_able(Flux(), request)
    assert caught.value.field == field


def test_of_several_captions_each_step_says_one(tmp_path: Path) -> None:
    params = train_params(tmp_path, count=2)
    params["pictures"][0]["caption"] = "{trigger} {class} || {trigger} on a beach||  "
    plan = plan_of(params)
    assert plan.pictures[0].caption == "mira7x robot" and plan.pictures[0].others == ("mira7x on a beach",)
    texts = ("", "mira7x robot", "mira7x on a beach", "mira7x robot number 1")
    embedded = Texts({"prompt_embeds": torch.arange(4.0).view(4, 1, 1)}, texts)
    posterior = {"mean": torch.zeros(2, 4, 8, 8), "std": torch.ones(2, 4, 8, 8)}
    latents = Latents((Bucket(Shape(64, 64), posterior, (0, 1)),), {"scaling_factor": 1.0})
    lessons = lessons_of(plan, embedded, latents, [picture.caption for picture in plan.pictures])
    said: dict[int, set[str]] = {0: set(), 1: set()}
    for step in range(40):
        lessons.next(step)
        for lesson in lessons.taken(2):
            for caption, row in zip(lesson.micro.captions, lesson.micro.text["prompt_embeds"].flatten(), strict=True):
                assert texts[int(row)] == caption
                said[int(caption == texts[3])].add(caption)
    assert said[0] >= set(texts[1:3]) and said[1] == {texts[3]}
    assert texts_beside(plan) == ["mira7x on a beach"]
    other = plan_of({**params, "pictures": [{**params["pictures"][0], "caption": "mira7x robot"}, params["pictures"][1]]})
    assert other.identity() != plan.identity()


def test_sdxl_learns_with_min_snr_and_a_noise_offset(tmp_path: Path) -> None:
    """Counted less where nothing can be learnt: the losses are smaller, and another LoRA comes of it."""
    found = {}
    for name, setting in {"plain": {}, "evened": {"min_snr_gamma": 0.01}, "offset": {"noise_offset": 0.1}}.items():
        params = train_params(
            tmp_path / name, base=of_family("sdxl"), count=2, steps=2, batch_size=1, **setting
        )
        params |= {"family": "sdxl", "base": {**params["base"], "id": "sdxl"}}
        job, plan = Job(tmp_path / name), plan_of(params)
        with closing(job), own_randomness(plan.request.seed):
            learner = prepare(plan, job).learner
            found[name] = [learner.step(step).loss for step in range(2)]
    assert all(evened <= plain for evened, plain in zip(found["evened"], found["plain"], strict=True))
    assert found["evened"] != found["plain"] != found["offset"]
