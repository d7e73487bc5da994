"""What is measured of a training: validation, likeness, the best checkpoint and its weight."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from masuka import pocket
from masuka.errors import NotFound, Stop
from masuka.pocket.judge import Judge
from masuka.pocket.world import character_set
from masuka.training import best, exporting, scoring
from masuka.training.best import Scored, Scores
from masuka.training.image import prepare
from masuka.training.plan import plan_of
from masuka.training.randomness import random_state
from masuka.training.validation import BANDS, Validator, held_out
from tests.tiny_training import Job, train_params, trained_weights

NAMES = [f"{number:064x}" for number in range(10)]


def scored(step: int, weight: float = 1.0, **values: float) -> Scored:
    return Scored(step, weight, values)


@pytest.mark.parametrize("method", ["lora", "dora", "lokr"])
def test_without_the_lora_is_the_base_and_half_of_it_lies_between(tmp_path: Path, method: str) -> None:
    job = Job(tmp_path)
    training = prepare(plan_of(train_params(tmp_path, method=method, steps=2, learning_rate=1e-2)), job)
    job.close()
    validator, learner, family = training._assessor._validator, training._learner, training._plan.family
    micro = validator._micro(validator._looks[:1])

    def predicted(weight: float) -> torch.Tensor:
        with learner.as_peft(), learner.at_weight(weight):
            shown: torch.Tensor = family.predict(learner.denoiser, micro.noisy, micro.sigmas, micro.text)
        return shown

    base = predicted(1.0)  # nothing was learnt yet
    learner.step(0)
    whole, half, without = predicted(1.0), predicted(0.5), predicted(0.0)
    assert torch.allclose(without, base, atol=1e-6)
    assert not torch.allclose(whole, base, atol=1e-5)
    assert float((half - base).norm()) < float((whole - base).norm())
    assert torch.equal(predicted(1.0), whole)


# What is held out


def test_a_share_is_held_out_whatever_the_order_and_never_all() -> None:
    chosen = held_out(NAMES, 0.2, seed=1)
    assert len(chosen) == 2
    backwards = held_out(NAMES[::-1], 0.2, seed=1)
    assert {NAMES[place] for place in chosen} == {NAMES[::-1][place] for place in backwards}
    assert held_out(NAMES, 0.2, seed=2) != chosen
    assert held_out(NAMES, 0.0, seed=1) == ()
    assert len(held_out(NAMES, 0.01, seed=1)) == 1
    assert len(held_out(NAMES[:2], 0.5, seed=1)) == 1
    assert held_out(NAMES[:1], 0.5, seed=1) == ()


def test_copies_of_a_picture_are_held_out_together() -> None:
    names = [name for name in NAMES for _ in range(2)]
    chosen = held_out(names, 0.3, seed=4)
    assert len(chosen) == 6
    assert {place % 2 for place in chosen} == {0, 1}
    assert len({names[place] for place in chosen}) == 3


def test_what_is_held_out_is_never_learnt_from(tmp_path: Path) -> None:
    params = train_params(tmp_path, validation_share=0.4, steps=3, batch_size=1)
    job = Job(tmp_path)
    training = prepare(plan_of(params), job)
    job.close()
    learnt = training._learner._lessons._pictures.batches._buckets
    measured = training._assessor._validator._latents.buckets
    learnt_from, kept = ({p for bucket in buckets for p in bucket.pictures} for buckets in (learnt, measured))
    assert len(kept) == 2 and not learnt_from & kept and learnt_from | kept == set(range(5))
    assert "2 of 5 pictures are kept for validation." in [event["text"] for event in job.events("note")]


# Validation


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Any:
    root = tmp_path_factory.mktemp("training")
    job = Job(root)
    yield prepare(plan_of(train_params(root, ema_decay=0.9, caption_dropout=0.5)), job)
    job.close()


def test_validation_is_the_same_figure_every_time_and_takes_no_randomness(training: Any) -> None:
    validator: Validator = training._assessor._validator
    before = random_state()[0]["torch"].clone()
    first = validator.measure(training._learner)
    assert torch.equal(random_state()[0]["torch"], before)
    torch.manual_seed(99)
    assert validator.measure(training._learner) == first
    assert set(first) == {"validation", *(f"validation_{band}" for band in BANDS)}
    assert first["validation"] == pytest.approx(sum(first[f"validation_{band}"] for band in BANDS) / 3)
    assert training._learner.denoiser.training


def test_each_band_is_measured_at_its_own_noise_levels(training: Any) -> None:
    looks = training._assessor._validator._looks
    for band, (low, high) in BANDS.items():
        sigmas = [look.sigma for look in looks if look.band == band]
        assert len(set(sigmas)) == len(sigmas) >= 10
        assert all(low < sigma < high for sigma in sigmas)
    assert len({(look.bucket, look.row) for look in looks}) == 5  # every picture


def test_validation_says_what_the_model_predicts(training: Any) -> None:
    """By hand: one look's error is the mean square of prediction minus target."""
    validator: Validator = training._assessor._validator
    [look, *_] = validator._looks
    micro = validator._micro([look])
    with training._learner.measuring():
        predicted = training._plan.family.predict(training._learner.denoiser, micro.noisy, micro.sigmas, micro.text)
        error = float(training._learner.errors(micro))
    assert error == pytest.approx(float((predicted.float() - micro.target).square().mean()), rel=1e-5)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures to judge in one step; these tests look at none."""
    monkeypatch.setattr("masuka.training.samples.JUDGED_IN_STEPS", 1)


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_scoring_changes_nothing_of_what_is_learnt(tmp_path: Path) -> None:
    """Losses and weights are equal with a score after every step, with samples, and with none."""
    often, never = Job(tmp_path / "often"), Job(tmp_path / "never")
    values: dict[str, Any] = {"steps": 3, "ema_decay": 0.9, "caption_dropout": 0.3, "checkpoint_every": 100}
    scored_often = train_params(tmp_path / "often", score_every=1, sample_every=100, sample_without=True, **values)
    often.run(scored_often)
    params = train_params(tmp_path / "never", **values)
    never.run(params)
    assert often.losses() == never.losses()
    assert next(event["about"]["step"] for event in often.artefacts("sample")) == 0
    first, second = trained_weights(scored_often), trained_weights(params)
    assert all(torch.equal(first[name], second[name]) for name in second)


# A whole training


def told(job: Job, noun: str) -> list[dict[str, Any]]:
    return [event["about"] for event in job.events("told") if event["noun"] == noun]


@pytest.mark.usefixtures("quick")
def test_the_best_checkpoint_is_what_the_file_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A judge that likes step 2 best: the file is of step 2, though the training went on to 5 and stopped there."""
    likings = {0: 0.1, 1: 0.5, 2: 0.9, 3: 0.6, 4: 0.6, 5: 0.6}
    steps: list[int] = []

    class Liking:
        def embed(self, pictures: Sequence[Image.Image]) -> Any:
            angle = math.acos(likings[steps[-1]]) if len(pictures) == 4 else 0.0
            return np.tile(np.array([math.cos(angle), math.sin(angle)], np.float32), (len(pictures), 1))

    judges = scoring.Judges(Liking(), Liking(), None, "By a judge of this test.")
    monkeypatch.setattr("masuka.training.image.judges_of", lambda plan, tools: (judges, ""))
    params = train_params(
        tmp_path, steps=20, score_every=1, checkpoint_every=100, sample_every=100, stop_early=3, keep_checkpoints=1
    )
    job = Job(tmp_path)
    training = prepare(plan_of(params), job)
    assess = training._assessor.assess
    training._assessor.assess = lambda learner, step: (steps.extend([0] if step == 1 else []), _then(steps, assess, learner, step))
    training.run()
    assert len(training.losses) == 5
    kept = sorted(folder.name for folder in Path(params["run_folder"], "checkpoints").iterdir())
    assert kept == ["step-00000002", "step-00000005"]  # rotation leaves the best alone
    exported = training.finish()
    job.close()
    [report] = told(job, "report")
    assert report["best_step"] == 2 and report["stopped_early"]
    assert report["sentences"][0] == "Stopped at step 5: 3 scores without a better one than at step 2."
    assert exported.about["steps"] == 2
    assert [event["about"]["step"] for event in job.artefacts("sample")] == [2]
    likeness = {(s["step"], s["weight"]): s["value"] for s in told(job, "score") if s["name"] == "likeness"}
    assert likeness[2, 1.0] == pytest.approx(0.9) and {weight for step, weight in likeness if step == 2} == {*best.WEIGHTS}
    assert job.artefacts("adapter")[0]["about"]["best_weight"] == report["best_weight"] == 1.0


def _then(steps: list[int], assess: Any, learner: Any, step: int) -> None:
    steps.append(step)
    assess(learner, step)


def test_a_score_that_is_no_number_is_left_out_and_ends_nothing(tmp_path: Path) -> None:
    params = train_params(tmp_path, steps=2)
    job = Job(tmp_path)
    training = prepare(plan_of(params), job)
    training._assessor._tell(best.Scored(1, 1.0, {"validation": math.nan, "likeness": 0.5}))
    job.close()
    assert [(s["name"], s["value"]) for s in told(job, "score")] == [("likeness", 0.5)]
    found = training._assessor.best(2)
    assert found is not None and found.values == {"likeness": 0.5}


def test_where_rotation_took_the_best_the_best_that_is_left_is_taken(tmp_path: Path) -> None:
    """Step 1 is second at step 2, goes at step 3, and is then the best by a hair: 2 is what is left of it."""
    params = train_params(tmp_path, steps=3, score_every=100, keep_checkpoints=3)
    job = Job(tmp_path)
    training = prepare(plan_of(params), job)
    for _ in range(3):
        training.step()
        training._save()
    for step, likeness, validation in ((1, 0.800, 0.3), (2, 0.799, 0.31), (3, 0.806, 0.5)):
        training._assessor._scores.add(best.Scored(step, 1.0, {"likeness": likeness, "validation": validation}))
    shutil.rmtree(Path(params["run_folder"], "checkpoints", "step-00000001"))
    expected = load_file(Path(params["run_folder"], "checkpoints", "step-00000002", "adapter.safetensors"))
    assert training._take_best() == 2
    job.close()
    held = training.learner.weights.named()
    assert all(torch.equal(held[name], tensor) for name, tensor in expected.items())
    assert [e["text"] for e in job.events("note")][-1] == "The checkpoint of step 1 is gone; that of step 2 is taken."


def test_any_checkpoint_becomes_a_lora(tmp_path: Path) -> None:
    params = train_params(tmp_path, steps=4, score_every=2, checkpoint_every=100, ema_decay=0.9)
    Job(tmp_path).run(params)
    job = Job(tmp_path, attempt=2)
    asked = {**params, "step": 2, "name": "Mira 1 step 2", "output": str(tmp_path / "adapters" / "step-2")}
    result = exporting.run(asked, job)
    job.close()
    with safe_open(result["file"], "pt") as opened:
        written = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (no mapping)
    kept = load_file(tmp_path / "run" / "checkpoints" / "step-00000002" / "average.safetensors")
    key = next(name for name in sorted(kept) if "lora_B" in name)
    found = next(t for name, t in written.items() if key.removeprefix("denoiser:").removesuffix(".weight") in name)
    assert torch.allclose(found.float(), kept[key], rtol=1e-2, atol=1e-6)
    [adapter] = job.artefacts("adapter")
    assert adapter["about"]["config"]["checkpoint_step"] == 2 and adapter["about"]["applied"] > 0
    third = Job(tmp_path, attempt=3)
    with pytest.raises(NotFound, match="step 3 is gone"):
        exporting.run({**asked, "step": 3}, third)
    third.close()


def test_a_resumed_training_knows_its_scores(tmp_path: Path) -> None:
    values: dict[str, Any] = {"steps": 6, "score_every": 2, "checkpoint_every": 100, "validation_share": 0.2}
    straight = Job(tmp_path / "straight")
    straight.run(train_params(tmp_path / "straight", **values))
    params = train_params(tmp_path / "stopped", **values)
    first, second = Job(tmp_path / "stopped", stop="pause", after_step=5), Job(tmp_path / "stopped", attempt=2)
    with pytest.raises(Stop):
        first.run(params)
    second.run(params)
    assert {s["step"] for s in told(first, "score")} == {2, 4} and {s["step"] for s in told(second, "score")} == {6}
    [report], [whole] = told(second, "report"), told(straight, "report")
    assert report["best_step"] == whole["best_step"]
    assert any("did not learn from" in sentence for sentence in report["sentences"])
    figures = {(s["step"], s["name"]): s["value"] for s in (*told(first, "score"), *told(second, "score"))}
    assert figures == pytest.approx({(s["step"], s["name"]): s["value"] for s in told(straight, "score")}, abs=1e-6)


# Which is best


def test_likeness_decides_and_validation_where_it_is_level() -> None:
    found = best.best_of(
        [
            scored(1, likeness=0.60, validation=0.1),
            scored(2, likeness=0.795, validation=0.3),
            scored(3, likeness=0.80, validation=0.4),
            scored(4, likeness=0.80, validation=0.4),
        ]
    )
    assert found is not None and found.step == 2
    found = best.best_of([scored(1, validation=0.4), scored(2, validation=0.2), scored(3, validation=0.3)])
    assert found is not None and found.step == 2
    assert best.best_of([]) is None


def test_the_best_weight_follows_the_prompt_where_likeness_is_level() -> None:
    grid = [
        scored(9, 0.6, likeness=0.5, prompt=1.0),
        scored(9, 0.8, likeness=0.79, prompt=0.9),
        scored(9, 1.0, likeness=0.8, prompt=0.7),
        scored(9, 1.2, likeness=0.8, prompt=0.4),
    ]
    assert best.best_weight_of(grid) == 0.8
    assert best.best_weight_of([scored(9, w, likeness=0.8) for w in best.WEIGHTS]) == 1.0
    assert best.best_weight_of([scored(9, 1.0, validation=0.3)]) is None


def test_too_much_is_said_with_its_figures() -> None:
    scores = [scored(100, validation=0.2, variety=0.4, prompt=0.9), scored(200, validation=0.3, variety=0.1, prompt=0.5)]
    said = best.overfit(scores, scored(0, 0.0, variety=0.9, prompt=1.0), held=True)
    assert said == (
        "By step 200 it learnt too much: the validation rose from 0.200 at step 100 to 0.300 and the samples "
        "vary less (0.10, and 0.40 at step 100) and the prompts are followed less (0.50, and 1.00 without the LoRA)."
    )
    assert "validation" not in best.overfit(scores, None, held=False)
    assert best.overfit([scored(100, validation=0.3), scored(200, validation=0.2)], None, held=True) == ""
    assert best.overfit(scores[:1], None, held=True) == ""


def test_scores_are_kept_and_replaced(tmp_path: Path) -> None:
    file = tmp_path / "scores.json"
    scores = Scores(file)
    for one in (scored(0, 0.0, likeness=0.1), scored(5, likeness=0.2), scored(5, likeness=0.4), scored(10, likeness=0.3)):
        scores.add(one)
    again = Scores(file)
    assert [(one.step, one.values["likeness"]) for one in again.until(10)] == [(5, 0.4), (10, 0.3)]
    assert [one.step for one in again.until(9)] == [5]
    without = again.without()
    assert without is not None and without.values == {"likeness": 0.1}
    assert best.scores_since_best(again.until(10)) == 1
    assert len(json.loads(file.read_text())) == 3


# Judges


def test_pockets_judge_knows_its_robot_and_what_it_is_asked_for() -> None:
    judge = Judge.load(pocket.JUDGE_FOLDER)
    robots, scenes = scoring.PocketRobots(judge), scoring.PocketScenes(judge)
    mine = [picture for picture, _ in character_set(7, 8)]
    others = [picture for seed in range(20, 24) for picture, _ in character_set(seed, 1)]
    known = robots.embed(mine[:4])
    alike, unlike = (scoring.likeness(robots.embed(shown), known) for shown in (mine[4:], others))
    assert alike > 0.9 > unlike
    varied, same = (scoring.variety(scenes.embed(shown)) for shown in (mine, [mine[0]] * 4))
    assert varied is not None and same is not None and varied > 0.2 and same == pytest.approx(0, abs=1e-5)
    assert scoring.variety(scenes.embed(mine[:1])) is None


def test_what_a_prompt_names_is_read_and_compared() -> None:
    prompt = "bolt7x, an amazed robot wearing a black top hat on the grass"
    assert scoring.named_in(prompt) == {"face": "surprised", "hat": "top hat", "place": "meadow"}
    assert scoring.named_in("a picture") == {}
    judge = scoring.PocketRobots(Judge.load(pocket.JUDGE_FOLDER))
    picture, caption = character_set(7, 1)[0]
    assert judge.follows([picture, picture], [caption, "nothing of it"]) == [1.0, None]


@pytest.fixture(scope="module")
def models_that_judge(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """DINOv2 and SigLIP with random weights, saved as their repositories are."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import Dinov2Config, Dinov2Model, SiglipConfig, SiglipModel

    torch.manual_seed(1)
    root = tmp_path_factory.mktemp("judges")
    looking = Dinov2Config(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=224, patch_size=56)
    Dinov2Model(looking).save_pretrained(root / "dino")
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**small, "vocab_size": 8, "max_position_embeddings": 64, "projection_size": 16}
    SiglipModel(
        SiglipConfig(text_config=text, vision_config={**small, "image_size": 32, "patch_size": 16})
    ).save_pretrained(root / "siglip")
    words = {"</s>": 0, "<unk>": 1, "red": 2, "blue": 3, "robot": 4}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(root / "siglip" / "tokenizer.json"))
    return {"likeness": str(root / "dino"), "prompt": str(root / "siglip")}


def test_downloaded_models_judge_other_bases(tmp_path: Path, models_that_judge: dict[str, str]) -> None:
    params = train_params(tmp_path, sample_every=5)
    params["base"]["id"] = "flux1-dev"
    plan = plan_of(params)
    judges, why = scoring.judges_of(plan, models_that_judge)
    assert judges is not None and why == "" and "SigLIP" in judges.about and "DINOv2" in judges.about
    pictures = [picture for picture, _ in character_set(7, 2)]
    prompts = ["A red robot!", "a red robot"]
    found = scoring.scores_of(judges, pictures, prompts, scoring.compared(plan, judges.likeness))
    assert set(found) == {"likeness", "variety", "prompt"}
    assert judges.prompt is not None
    same, again, other = judges.prompt.follows([pictures[0]] * 3, [*prompts, "blue"])
    assert same is not None and same == again != other and -1 <= same <= 1
    alone, _ = scoring.judges_of(plan, {"likeness": models_that_judge["likeness"], "prompt": None})
    assert alone is not None and alone.prompt is None and "not measured" in alone.about


def test_without_a_judge_it_is_said_why(tmp_path: Path) -> None:
    plan = plan_of(train_params(tmp_path))
    assert scoring.judges_of(plan, {}) == (None, "Likeness is not measured, for no samples are drawn.")
    params = train_params(tmp_path, sample_every=5, base="flux1-dev", resolution_px=256)
    params["base"]["id"] = "flux1-dev"
    judges, why = scoring.judges_of(plan_of(params), {})
    assert judges is None and "not on this machine" in why
