"""The finished LoRA: one safetensors file that other tools understand, and a side-car that
explains it to a person years later.

The folder appears under its name only when it is whole and the file was loaded again.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save, save_file

from masuka import __version__
from masuka.errors import TrainingError
from masuka.families.base import AdapterReport
from masuka.jobs.reporter import PARTIAL
from masuka.requests.text import clean_filename
from masuka.training.learner import DENOISER, TEXT, Learner
from masuka.training.lora import part_of, peft_layers
from masuka.training.pictures import content_hash
from masuka.training.plan import Plan
from masuka.training.samples import Sample, live_pipeline

SIDECAR = "masuka.json"
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
    plan: Plan, learner: Learner, samples: Sequence[Sample], *, losses: Sequence[float], started_at: str
) -> Exported:
    """The plan's output folder, complete.

    Raises TrainingError when the written file does not load back into the model.
    """
    staging = plan.output.with_name(plan.output.name + PARTIAL)
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        file = staging / clean_filename(f"{plan.name}.safetensors")
        picture = samples[0].file if samples else None
        _write(plan, learner, file, metadata_of(plan, picture, started_at=started_at))
        report = _reloaded(plan, learner, file)
        about = explain(plan, file, report, losses)
        (staging / SIDECAR).write_text(json.dumps(about, indent=2, ensure_ascii=False), encoding="utf-8")
        if picture is not None:
            shutil.copyfile(picture, staging / PICTURE)
        shutil.rmtree(plan.output, ignore_errors=True)
        staging.replace(plan.output)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return Exported(plan.output / file.name, about["sha256"], report, about)


def metadata_of(plan: Plan, picture: Path | None, *, started_at: str) -> dict[str, str]:
    """What the file says about itself, in the words that other tools read.

    ss_*: A1111, Forge, Civitai; modelspec.*: SwarmUI, LoRA managers, InvokeAI. Captions
    and folder names stay out of it; they are in the side-car, which is not shared.
    """
    request = plan.request
    epochs = request.steps * request.batch_size * request.gradient_accumulation_steps // len(plan.pictures)
    # Their spelling: flux1-dev is flux-1-dev to modelspec, and flux1 to kohya's tools.
    architecture = re.sub(r"^([a-z]+)(\d)", r"\1-\2", plan.base["id"])
    tags = {plan.name: {plan.trigger_word: len(plan.pictures)}} if plan.trigger_word else {}
    values: dict[str, Any] = {
        "ss_v2": False,
        "ss_base_model_version": plan.base["id"].split("-")[0],
        "ss_network_module": "networks.lora",
        "ss_network_dim": request.rank,
        "ss_network_alpha": request.rank,  # another alpha is folded into the weights
        "ss_network_args": {},
        "ss_output_name": plan.name,
        "ss_tag_frequency": tags,
        "ss_num_train_images": len(plan.pictures),
        "ss_steps": request.steps,
        "ss_max_train_steps": request.steps,
        "ss_epoch": epochs,
        "ss_learning_rate": request.learning_rate,
        "ss_optimizer": request.optimizer,
        "ss_lr_scheduler": request.lr_scheduler,
        "ss_seed": request.seed,
        "ss_resolution": request.resolution_px,
        "ss_training_started_at": datetime.fromisoformat(started_at).timestamp(),
        "ss_training_finished_at": datetime.now(UTC).timestamp(),
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": f"{architecture}/lora",
        "modelspec.implementation": "https://github.com/huggingface/diffusers",
        "modelspec.title": plan.name,
        "modelspec.resolution": f"{request.resolution_px}x{request.resolution_px}",
        "modelspec.date": datetime.now(UTC).isoformat(timespec="seconds"),
        "modelspec.description": f"A LoRA of {len(plan.pictures)} pictures, trained with MASUKA.",
        "modelspec.license": plan.base.get("licence", ""),
        "modelspec.trigger_phrase": f"{plan.trigger_word} {plan.class_word}".strip(),
        "modelspec.usage_hint": _usage_hint(plan),
        "masuka.version": __version__,
    }
    if picture is not None:
        values["modelspec.thumbnail"] = _thumbnail(picture)
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}


def explain(plan: Plan, file: Path, report: AdapterReport, losses: Sequence[float]) -> dict[str, Any]:
    """The side-car: all it takes to use the LoRA, to trust it, to make it again."""
    last = losses[-max(1, len(losses) // 10) :]
    return {
        "file": file.name,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "name": plan.name,
        "kind": "lora",
        "base": {k: plan.base.get(k) for k in ("id", "title", "repo", "revision", "licence")},
        "family": plan.family.name,
        "trigger_word": plan.trigger_word,
        "class_word": plan.class_word,
        "usage": _usage_hint(plan),
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


def stamp_hashes(file: Path) -> None:
    """Adds the hashes of the tensors by which LoRA sites recognise a file.

    As kohya's sd-scripts computes them (`train_util.precalculate_safetensors_hashes`):
    over a file whose header has the ss_* keys only.
    """
    with safe_open(file, framework="pt") as opened:
        metadata = dict(opened.metadata() or {})
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (no mapping)
    data = save(tensors, {key: value for key, value in metadata.items() if key.startswith("ss_")})
    start = 8 + int.from_bytes(data[:8], "little")
    whole = hashlib.sha256(data[start:]).hexdigest()
    metadata["sshs_model_hash"] = whole
    metadata["sshs_legacy_hash"] = hashlib.sha256(data[0x100000:0x110000]).hexdigest()[:8]
    metadata["modelspec.hash_sha256"] = f"0x{whole}"
    save_file(tensors, file, metadata)
    file.chmod(0o644)  # safetensors 0.8 writes for its owner alone; this file is made to be passed on


def _write(plan: Plan, learner: Learner, file: Path, metadata: Mapping[str, str]) -> None:
    # Half precision to share; the full one stays in the checkpoint.
    dtype = torch.float16 if plan.dtype == torch.float16 else torch.bfloat16
    result = learner.weights.result()
    plan.family.save_adapter(
        file,
        peft_layers(part_of(result, DENOISER), dtype),
        metadata,
        alpha=plan.request.alpha,
        text_layers=peft_layers(part_of(result, TEXT), dtype) or None,
    )
    stamp_hashes(file)


def _reloaded(plan: Plan, learner: Learner, file: Path) -> AdapterReport:
    """What a fresh load of the file applies, counted in the model that was trained."""
    text = None
    if learner.text_encoder is not None:
        text = plan.family.adaptable_text_encoder(learner.text_encoder)
    with learner.as_peft(), warnings.catch_warnings():
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


def _usage_hint(plan: Plan) -> str:
    call = f"{plan.trigger_word} {plan.class_word}".strip()
    return f"Write '{call}' in the prompt; strength 0.8 to 1, on {plan.base.get('title', plan.base['id'])}."


def _thumbnail(picture: Path) -> str:
    with Image.open(picture) as opened:
        small = opened.convert("RGB")
    small.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
