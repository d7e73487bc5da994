"""The finished LoRA: one safetensors file that other tools understand, and a side-car that
explains it to a person years later.

A LoKr comes as a plain LoRA that every tool reads, with the LoKr itself beside it.

The folder appears under its name only when it is whole and the file was loaded again.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from peft.tuners.lokr import LoKrLayer
from PIL import Image
from torch import Tensor

from masuka import __version__
from masuka.errors import TrainingError
from masuka.families import family_of
from masuka.families.base import AdapterReport
from masuka.families.lora import adapters
from masuka.families.lora.keys_files import layers_of
from masuka.families.lora.keys_tables import names_of
from masuka.families.lora.readers import Reading, read_by_none, readings
from masuka.jobs.reporter import PARTIAL
from masuka.requests.text import clean_filename
from masuka.training import factors
from masuka.training.learner import DENOISER, TEXT, Learner
from masuka.training.lora import part_of, peft_layers
from masuka.training.pictures import content_hash
from masuka.training.plan import Plan
from masuka.training.samples import Sample, live_pipeline
from masuka.training.stamping import SIDECAR, stamp_hashes

PICTURE = "sample.png"
THUMBNAIL_PX = 256
LIBRARIES = ("torch", "diffusers", "transformers", "peft", "accelerate", "safetensors")
CHECK = "reload_check"


@dataclass(frozen=True)
class Exported:
    """The file, its hash, what a fresh load applied, and the side-car's content."""

    file: Path
    sha256: str
    report: AdapterReport
    about: Mapping[str, Any]


def export(
    plan: Plan,
    learner: Learner,
    samples: Sequence[Sample],
    *,
    losses: Sequence[float],
    started_at: str,
    weight: float | None = None,
) -> Exported:
    """The plan's output folder, complete; `weight` is the best strength measured.

    Raises TrainingError when the written file does not load back into the model.
    """
    staging = plan.output.with_name(plan.output.name + PARTIAL)
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        file = staging / clean_filename(f"{plan.name}.safetensors")
        picture = samples[0].file if samples else None
        kept = _write(plan, learner, file, metadata_of(plan, picture, started_at=started_at, weight=weight))
        report = _reloaded(plan, learner, file)
        about = {**explain(plan, file, report, losses, weight=weight), "kept": kept}
        (staging / SIDECAR).write_text(json.dumps(about, indent=2, ensure_ascii=False), encoding="utf-8")
        if picture is not None:
            shutil.copyfile(picture, staging / PICTURE)
        shutil.rmtree(plan.output, ignore_errors=True)
        staging.replace(plan.output)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return Exported(plan.output / file.name, about["sha256"], report, about)


def metadata_of(
    plan: Plan, picture: Path | None, *, started_at: str, weight: float | None = None
) -> dict[str, str]:
    """What the file says about itself, in the words that other tools read.

    ss_*: A1111, Forge, Civitai; modelspec.*: SwarmUI, LoRA managers, InvokeAI. Captions
    and folder names stay out of it; they are in the side-car, which is not shared. A
    private one says what it takes to use it, and nothing of how it was made.
    """
    request = plan.request
    _, entry = family_of(plan.base["id"])
    tags = {plan.name: {plan.trigger_word: 1 if request.private else len(plan.pictures)}}
    values: dict[str, Any] = {
        "ss_v2": False,
        "ss_base_model_version": entry.kohya_version or plan.base["id"].split("-")[0],
        "ss_network_module": "lycoris.kohya" if request.method == "dora" else "networks.lora",
        "ss_network_dim": request.rank,
        "ss_network_alpha": request.rank,  # another alpha is folded into the weights
        "ss_network_args": {"dora_wd": "True", "algo": "lora"} if request.method == "dora" else {},
        "ss_output_name": plan.name,
        "ss_tag_frequency": tags if plan.trigger_word else {},
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": f"{entry.architecture or plan.base['id']}/lora",
        "modelspec.implementation": "https://github.com/huggingface/diffusers",
        "modelspec.title": plan.name,
        "modelspec.resolution": f"{request.resolution_px}x{request.resolution_px}",
        "modelspec.date": datetime.now(UTC).isoformat(timespec="seconds"),
        "modelspec.license": plan.base.get("licence", ""),
        "modelspec.trigger_phrase": f"{plan.trigger_word} {plan.class_word}".strip(),
        "modelspec.usage_hint": _usage_hint(plan, weight),
        "masuka.version": __version__,
    }
    if entry.prediction:
        values["modelspec.prediction_type"] = entry.prediction
    if not request.private:
        values |= _making_of(plan, started_at)
        if picture is not None:
            values["modelspec.thumbnail"] = _thumbnail(picture)
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}


def _making_of(plan: Plan, started_at: str) -> dict[str, Any]:
    """What a private file leaves out: counts, settings, times and the base's revision."""
    request = plan.request
    per_epoch = request.batch_size * request.gradient_accumulation_steps
    return {
        "ss_num_train_images": len(plan.pictures),
        "ss_steps": request.steps,
        "ss_max_train_steps": request.steps,
        "ss_epoch": request.steps * per_epoch // len(plan.pictures),
        "ss_learning_rate": request.learning_rate,
        "ss_optimizer": request.optimizer,
        "ss_lr_scheduler": request.lr_scheduler,
        "ss_lr_warmup_steps": request.lr_warmup_steps,
        "ss_batch_size_per_device": request.batch_size,
        "ss_gradient_accumulation_steps": request.gradient_accumulation_steps,
        "ss_caption_dropout_rate": request.caption_dropout,
        "ss_mixed_precision": str(plan.dtype).removeprefix("torch."),
        "ss_seed": request.seed,
        "ss_resolution": request.resolution_px,
        "ss_sd_model_name": plan.base.get("repo") or plan.base["id"],
        "ss_training_started_at": datetime.fromisoformat(started_at).timestamp(),
        "ss_training_finished_at": datetime.now(UTC).timestamp(),
        "modelspec.description": f"A LoRA of {len(plan.pictures)} pictures, trained with MASUKA.",
        "modelspec.tags": ", ".join(filter(None, (plan.trigger_word, plan.class_word))),
    }


def explain(
    plan: Plan, file: Path, report: AdapterReport, losses: Sequence[float], *, weight: float | None = None
) -> dict[str, Any]:
    """The side-car: all it takes to use the LoRA, to trust it, to make it again."""
    last = losses[-max(1, len(losses) // 10) :]
    return {
        "file": file.name,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "name": plan.name,
        "kind": plan.request.method,
        "readers": {reading.tool: reading.sentence for reading in _readers(plan, file)},
        "base": {k: plan.base.get(k) for k in ("id", "title", "repo", "revision", "licence", "commit")},
        "family": plan.family.name,
        "trigger_word": plan.trigger_word,
        "class_word": plan.class_word,
        "usage": _usage_hint(plan, weight),
        "best_weight": weight,
        "rank": plan.request.rank,
        "alpha": plan.request.alpha or plan.request.rank,
        "applied": report.applied,
        "total": report.total,
        "steps": len(losses),
        "loss_at_end": sum(last) / len(last) if last else None,
        "config": plan.request.as_dict(),
        "content": {
            "hash": content_hash(plan.pictures),
            "pictures": {p.sha256: p.caption for p in plan.pictures},
            "edits": {p.sha256: p.recipe.as_row() for p in plan.pictures if p.recipe.key},
            "variations": None if plan.variety is None else plan.variety.augment.as_dict(),
        },
        "precision": str(plan.dtype).removeprefix("torch."),
        "device": plan.device,
        "run_id": plan.run_id,
        "versions": versions(),
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def versions() -> dict[str, str]:
    """MASUKA's version and those of the libraries that shaped the result."""
    found = {"masuka": __version__}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


def _write(plan: Plan, learner: Learner, file: Path, metadata: Mapping[str, str]) -> float:
    """The share of what was learnt that the file holds: 1 but for a LoKr of many ranks."""
    # Half precision to share; the full one stays in the checkpoint.
    dtype = torch.float16 if plan.dtype == torch.float16 else torch.bfloat16
    result = learner.weights.result()
    parts = {part: {k: v.detach().cpu() for k, v in part_of(result, part).items()} for part in (DENOISER, TEXT)}
    alpha, kept = plan.request.alpha, 1.0
    if plan.request.method == "lokr":
        folded = {part: _folded(layers, alpha, plan.request.rank) for part, layers in parts.items()}
        beside = file.with_name(f"{file.stem} lokr.safetensors")
        _write_lokr(plan, beside, folded, metadata, dtype)
        parts, kept = _plain(folded)
        alpha = None
    plan.family.save_adapter(
        file,
        peft_layers(parts[DENOISER], dtype),
        metadata,
        alpha=alpha,
        text_layers=peft_layers(parts[TEXT], dtype) or None,
    )
    stamp_hashes(file)
    return kept


def _folded(layers: Mapping[str, Tensor], alpha: int | None, rank: int) -> dict[str, Tensor]:
    """A LoKr whose scale is in its first factor."""
    scale = (alpha or rank) / rank
    first = (".lokr_w1", ".lokr_w1_a")
    return {name: tensor * scale if name.endswith(first) else tensor for name, tensor in layers.items()}


def _plain(parts: Mapping[str, Mapping[str, Tensor]]) -> tuple[dict[str, dict[str, Tensor]], float]:
    """The LoKr's parts as plain LoRAs, and the share that these keep."""
    made: dict[str, dict[str, Tensor]] = {}
    shares = []
    for part, layers in parts.items():
        made[part] = {}
        for module, leaves in layers_of(layers).items():
            small, share = factors.plain(leaves)
            shares.append((factors.norm(leaves) ** 2, share))
            made[part] |= {f"{module}.{leaf}": tensor for leaf, tensor in small.items()}
    return made, factors.energy_kept(shares)


def _write_lokr(
    plan: Plan,
    file: Path,
    parts: Mapping[str, Mapping[str, Tensor]],
    metadata: Mapping[str, str],
    dtype: torch.dtype,
) -> None:
    names = names_of(plan.family.name)
    named = {DENOISER: names.part, TEXT: "text_encoder"}
    tensors = {
        f"{named[part]}.{key}": tensor.to(dtype) for part, layers in parts.items() for key, tensor in layers.items()
    }
    about = {**metadata, "ss_network_module": "lycoris.kohya", "ss_network_args": json.dumps({"algo": "lokr"})}
    adapters.write(file, tensors, about, names=names, convention="diffusers")
    stamp_hashes(file)


def _readers(plan: Plan, file: Path) -> list[Reading]:
    """Which tools read the file; raises TrainingError for a layer that none does."""
    shapes, _ = adapters.read_header(file)
    found = readings(shapes, plan.family.name)
    lost = read_by_none(found)
    if lost:
        raise TrainingError(
            f"No tool would read {len(lost)} layers of the written LoRA, as {lost[0]}.",
            "Resume the training to write it again; if it happens again, report it.",
        )
    return found


def _reloaded(plan: Plan, learner: Learner, file: Path) -> AdapterReport:
    """What a fresh load of the file applies, counted in the model that was trained."""
    text = None
    if learner.text_encoder is not None:
        text = plan.family.adaptable_text_encoder(learner.text_encoder)
    with learner.as_peft(), warnings.catch_warnings(), _bare(plan, learner.denoiser, text):
        # peft warns of a second adapter in one model; that is meant here, and undone.
        warnings.filterwarnings("ignore", category=UserWarning, module="peft")
        pipeline = live_pipeline(plan, learner.denoiser, text)
        report = plan.family.load_adapter(pipeline, file, CHECK)
        pipeline.delete_adapters(CHECK)
    if report.applied == 0 or report.applied != report.total:
        raise TrainingError(
            f"Only {report.applied} of {report.total} layers of the written LoRA load back.",
            "Resume the training to write it again; if it happens again, report it.",
        )
    return report


@contextmanager
def _bare(plan: Plan, *modules: Any) -> Iterator[None]:
    """Within it the layers of a LoKr are the base's own: peft puts no LoRA on top of them."""
    if plan.request.method != "lokr":
        yield
        return
    taken: list[tuple[Any, str, Any]] = []
    settings: list[tuple[Any, Any]] = []
    for module in filter(None, modules):
        for name, layer in list(module.named_modules()):
            if isinstance(layer, LoKrLayer):
                parent, _, own = name.rpartition(".")
                holder = module.get_submodule(parent)
                taken.append((holder, own, layer))
                setattr(holder, own, layer.get_base_layer())
        settings.append((module, getattr(module, "peft_config", {})))
        module.peft_config = {}
    try:
        yield
    finally:
        for holder, own, layer in taken:
            setattr(holder, own, layer)
        for module, config in settings:
            module.peft_config = config


def _usage_hint(plan: Plan, weight: float | None) -> str:
    call = f"{plan.trigger_word} {plan.class_word}".strip()
    strength = "0.8 to 1" if weight is None else f"{weight:g}"
    return f"Write '{call}' in the prompt; strength {strength}, on {plan.base.get('title', plan.base['id'])}."


def _thumbnail(picture: Path) -> str:
    with Image.open(picture) as opened:
        small = opened.convert("RGB")
    small.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
