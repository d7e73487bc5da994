"""The built-in model against its goals: prompts it never saw, its speed, what a LoRA learns.

The judge reads the pictures; the caption model describes drawings whose attributes are known. Prompts are sentences about combinations that no training
picture shows; the LoRA learns a robot with attributes that the base has never seen.
"""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from benchmarks.harness import Bars, Figures, bar, say
from masuka import Settings, Studio, pocket
from masuka.config import Workspace
from masuka.families import draw_limits_of, family_of
from masuka.pocket import captioner
from masuka.pocket.judge import Judge
from masuka.pocket.train_captioner import named_right
from masuka.pocket.words import character_caption
from masuka.pocket.world import (
    KEPT_OUT,
    Scene,
    canonical_prompt,
    character_scenes,
    is_held_out,
    sample_any_scene,
    sample_scene,
)
from masuka.pocket.world import draw as drawn_scene
from masuka.requests.images import DrawImages

SEED = 20_261_120
PROMPTS = 500
BATCH = 10
STEPS = 20
NEW_PROMPTS = 50
CHARACTER_SEED = 7
PICTURES = 20
TRIGGER_WORD = "bolt7x"
PROMPTED = ("body", "colour", "pattern", "face", "hat", "accessory", "place")
FOLLOWED = ("place", "hat")


def measure() -> tuple[Figures, Bars]:
    """Figures and bars of all four parts."""
    judge = Judge.load(pocket.JUDGE_FOLDER)
    figures: Figures = {}
    bars: Bars = {}
    for part in (names_what_it_sees(), follows_prompts(judge), draws_in(), learns_a_character(judge)):
        figures |= part[0]
        bars |= part[1]
    return figures, bars


def names_what_it_sees() -> tuple[Figures, Bars]:
    """The share of worlds never trained on of which the caption model names each attribute right.

    `caption_new_…` are robots with what was kept out of Pocket's own training: stripes, scarves, antennas.
    """
    model, processor = captioner.load(pocket.CAPTIONER_FOLDER)
    rng = random.Random(SEED)
    held_out: list[Scene] = []
    while len(held_out) < PROMPTS:
        scene = sample_any_scene(rng)
        held_out += [scene] * is_held_out(scene)
    unseen = [scene for seed in range(10) for scene in character_scenes(seed, PICTURES)]
    say(f"captions of {PROMPTS} worlds that were never trained on, and of {len(unseen)} pictures of new robots")
    figures: Figures = {}
    for name, scenes in (("caption", held_out), ("caption_new", unseen)):
        said = captioner.say_of(model, processor, [drawn_scene(scene) for scene in scenes])
        figures |= {f"{name}_{attribute}": value for attribute, value in named_right(said, scenes).items()}
    bars = {name: bar(value, ">= 0.95") for name, value in figures.items()}
    weights = sum(file.stat().st_size for file in pocket.CAPTIONER_FOLDER.glob("*.safetensors")) / 2**20
    return figures | {"caption_mib": weights}, bars | {"caption_mib": bar(weights, "<= 6")}


def follows_prompts(judge: Judge) -> tuple[Figures, Bars]:
    """The share of held-out prompts in which each attribute came out right."""
    rng = random.Random(SEED)
    scenes = [sample_scene(rng, held_out=True) for _ in range(PROMPTS)]
    say(f"{PROMPTS} prompts that were never trained on")
    images: list[Image.Image] = []
    for start in range(0, PROMPTS, BATCH):
        chunk = scenes[start : start + BATCH]
        images += draw([canonical_prompt(s) for s in chunk], range(SEED + start, SEED + start + len(chunk)))
    right = shares(judge, images, scenes, PROMPTED)
    figures = {f"prompt_{name}": value for name, value in right.items()}
    return figures, {name: bar(value, ">= 0.9") for name, value in figures.items()}


def draws_in() -> tuple[Figures, Bars]:
    """Seconds of one picture of 20 steps, the median of seven."""
    prompt = canonical_prompt(sample_scene(random.Random(SEED), held_out=True))
    draw([prompt], [0])
    seconds = []
    for seed in range(7):
        started = time.perf_counter()
        draw([prompt], [seed])
        seconds.append(time.perf_counter() - started)
    value = statistics.median(seconds)
    return {"picture_s": value}, {"picture_s": bar(value, "<= 3.0")}


def learns_a_character(judge: Judge) -> tuple[Figures, Bars]:
    """What a LoRA of an unseen robot draws, and what the base draws for the same prompts."""
    with tempfile.TemporaryDirectory(prefix="masuka-bench-") as folder:
        settings = Settings(workspace=Workspace(Path(folder)), device="cpu")
        with Studio.open(settings, workers="inline") as studio:
            return _learns(studio, judge)


def _learns(studio: Studio, judge: Judge) -> tuple[Figures, Bars]:
    dataset = studio.datasets.create(name="Bench", trigger_word=TRIGGER_WORD, class_word="robot")
    studio.jobs.wait(studio.datasets.add_samples(dataset.id, seed=CHARACTER_SEED, count=PICTURES))
    say(f"a LoRA from {PICTURES} pictures")
    started = time.perf_counter()
    job = studio.jobs.wait(studio.training.start(dataset_id=dataset.id, base=pocket.MODEL_ID, sample_every=0))
    training_s = time.perf_counter() - started
    adapter = next(a for a in studio.models.adapters() if a.run_id == job.run_id)
    scenes = new_scenes()
    rng = random.Random(SEED)
    prompts = [character_caption(s, rng).replace("{trigger}", TRIGGER_WORD) for s in scenes]
    say(f"{NEW_PROMPTS} new prompts with the LoRA, and with the base alone")
    with_lora = [_drawn(studio, p, n, adapter.id) for n, p in enumerate(prompts)]
    without = [_drawn(studio, p, n, None) for n, p in enumerate(prompts)]
    new = [name for name, value in KEPT_OUT.items() if scenes[0].attributes[name] == value]
    learnt, known = shares(judge, with_lora, scenes, [*new, *FOLLOWED]), shares(judge, without, scenes, new)
    figures = {"lora_training_s": training_s}
    figures |= {f"lora_{name}": value for name, value in learnt.items()}
    figures |= {f"base_{name}": value for name, value in known.items()}
    bars = {"lora_training_s": bar(training_s, "<= 180")}
    bars |= {f"lora_{n}": bar(learnt[n], ">= 0.9" if n in new else ">= 0.8") for n in learnt}
    bars |= {f"base_{n}": bar(known[n], "<= 0.1") for n in known}
    return figures, bars


def new_scenes() -> list[Scene]:
    """Scenes of the trained robot that were not among its training pictures."""
    return character_scenes(CHARACTER_SEED, PICTURES + NEW_PROMPTS)[PICTURES:]


def draw(prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
    """Pictures by the stock pipeline, one for each prompt and seed."""
    family, _ = family_of(pocket.MODEL_ID)
    request = DrawImages.parse({"prompt": "a robot", "num_inference_steps": STEPS}, limits=draw_limits_of(pocket.MODEL_ID))
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    arguments: dict[str, Any] = family.call_arguments(request, generators, text={})
    if family.negative_text(request) is not None:
        arguments |= {"negative_prompt": [""] * len(prompts), "true_cfg_scale": request.guidance_scale}
    pipeline = _pipeline()
    answer = pipeline(prompt=list(prompts), max_sequence_length=pocket.TEXT_TOKENS, **arguments)
    images: list[Image.Image] = answer.images
    return images


_loaded: list[Any] = []


def _pipeline() -> Any:
    if not _loaded:
        from diffusers import FluxPipeline

        pipeline = FluxPipeline.from_pretrained(pocket.FOLDER, torch_dtype=torch.float32)
        pipeline.set_progress_bar_config(disable=True)
        _loaded.append(pipeline)
    return _loaded[0]


def _drawn(studio: Studio, prompt: str, seed: int, adapter_id: int | None) -> Image.Image:
    values = {"adapter_id": adapter_id, "adapter_weight": 1.0} if adapter_id else {"base": pocket.MODEL_ID}
    job = studio.jobs.wait(studio.images.draw(prompt=prompt, seed=seed, **values))
    item = studio.library.items(job_id=job.id)[0]
    with Image.open(studio.library.media("item", item.id)) as image:
        return image.convert("RGB")


def shares(
    judge: Judge, images: Sequence[Image.Image], scenes: Sequence[Scene], names: Sequence[str]
) -> dict[str, float]:
    """For each attribute the share of pictures in which the judge sees what was asked for."""
    seen = judge.attributes(images)
    return {
        name: sum(s[name] == wanted.attributes[name] for s, wanted in zip(seen, scenes, strict=True)) / len(scenes)
        for name in names
    }
