"""What one training is asked to do, read once from the job's params."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from masuka.datasets.buckets import Shape, nearest_shape, shapes_of
from masuka.errors import Conflict, NoAccelerator
from masuka.families import draw_limits_of, family_named
from masuka.families.abilities import must_be_able
from masuka.families.base import Family
from masuka.generation.prompts import fill
from masuka.jobs.reporter import CACHES
from masuka.models.loading import choose_device, choose_dtype
from masuka.requests.edits import Augment
from masuka.requests.images import DrawImages
from masuka.requests.training import TrainImage
from masuka.training.caches import Source, Variety
from masuka.training.pictures import Picture, content_hash, pictures_of

LATER = (
    "method", "dropout", "lokr_factor", "blocks", "validation_share", "prior_weight",
    "class_preservation", "timesteps", "timestep_shift", "min_snr_gamma", "noise_offset", "processes",
)  # fmt: skip
"""Settings that change what is learnt and came after the first checkpoints were written."""


@dataclass(frozen=True)
class Plan:
    """The request with everything that a worker must know to carry it out."""

    request: TrainImage
    family: Family
    base: Mapping[str, Any]
    name: str
    trigger_word: str
    class_word: str
    pictures: tuple[Picture, ...]
    sample_prompts: tuple[str, ...]
    run_id: int | None
    character_id: int | None
    run_folder: Path
    output: Path
    device: str
    dtype: torch.dtype
    made_base: Mapping[str, str] | None = None
    """Training the whole model: the new base's `id`, and the `place` that is kept for it."""
    shared_caches: Path | None = None
    """Where trainings of this workspace share what they cache; None: the run has its own."""
    prior: tuple[Picture, ...] = ()
    """Pictures of other members of the class, learnt beside; they are never varied."""
    rank: int = 0
    """Which of `request.processes` this is."""
    begin: Path | None = None
    """The weights that a branch of another training begins with."""
    variety: Variety | None = None
    """How the pictures are varied; None where they are not."""

    @property
    def folder(self) -> Path:
        """Where the base model lies."""
        return Path(self.base["folder"])

    @property
    def caches(self) -> Path:
        """Where texts and latents are cached."""
        return self.shared_caches or self.run_folder / CACHES

    @property
    def training_adapter(self) -> Path | None:
        """The LoRA that a distilled base learns with, where it has one."""
        named = self.base.get("training_adapter")
        if not named:
            return None
        path = Path(named)
        # Several are versions of one, the newest last by name.
        return max(path.glob("*.safetensors"), default=path) if path.is_dir() else path

    @property
    def pictures_per_step(self) -> int:
        """How many pictures each optimiser step learns from."""
        request = self.request
        return request.batch_size * request.gradient_accumulation_steps * request.processes

    @property
    def source(self) -> Source:
        """The encoders that fill the caches: exact on a CPU, where they run once.

        In fp16 the VAE of many models overflows, and it is small; which of the text encoders
        do, the family knows.
        """
        on_cpu = self.device == "cpu"
        text = torch.float32 if on_cpu else self.dtype
        pixels = torch.float32 if on_cpu or self.dtype == torch.float16 else self.dtype
        return Source(self.family, self.folder, self.device, pixels, text)

    def shapes(self, sizes: list[tuple[int, int]]) -> list[Shape]:
        """The bucket of each picture of that size."""
        offered = shapes_of(self.base["id"], self.request.resolution_px)
        return [nearest_shape(*size, offered) for size in sizes]

    def sample_request(self, prompt: str) -> DrawImages:
        """How a sample is drawn: the family's own defaults at the training's size."""
        limits = draw_limits_of(self.base["id"])
        side = self.shapes([(1, 1)])[0]
        values = {
            "prompt": prompt if len(prompt) >= 3 else f"{prompt} picture",
            "base": self.base["id"],
            "width": side.width,
            "height": side.height,
            "seed": min(self.request.seed, 2**32 - 9),
        }
        return DrawImages.parse(values, limits=limits)

    def identity(self) -> dict[str, Any]:
        """What must be the same for a checkpoint of this run to be gone on from."""
        request = self.request
        # Only what is not as it always was: checkpoints of before there was a setting hold.
        set_anew = {name: getattr(request, name) for name in LATER if _is_set(request, name)}
        if self.variety is not None:
            set_anew["variations"] = self.variety.augment.as_dict()
        if self.prior:
            set_anew["prior"] = content_hash(self.prior)
        return set_anew | {
            "base": self.base["id"],
            "base_files": self.source.fingerprint(),
            "pictures": content_hash(self.pictures),
            "rank": request.rank,
            "alpha": request.alpha or request.rank,
            "layers": request.layers,
            "text_encoder": request.train_text_encoder,
            "optimizer": request.optimizer,
            "ema": bool(request.ema_decay),
            "batch_size": request.batch_size,
            "accumulation": request.gradient_accumulation_steps,
            "resolution_px": request.resolution_px,
            "seed": request.seed,
        }


def plan_of(params: Mapping[str, Any]) -> Plan:
    """The plan that the params describe.

    Raises InvalidInput or NoAccelerator for what this base or machine cannot do, and
    Conflict for a training adapter that is not there, before anything is loaded.
    """
    request = TrainImage.parse(params["request"])
    family = family_named(params["family"])
    device = choose_device(str(params.get("device") or "auto"))
    must_be_able(family, request)
    if request.optimizer == "adamw8bit" and not device.startswith("cuda"):
        raise NoAccelerator("adamw8bit needs an NVIDIA GPU.", "Choose adamw, which learns the same.")
    if request.compile_blocks and not device.startswith("cuda"):
        raise NoAccelerator("Compiling pays on an NVIDIA GPU only.", "Switch it off.")
    words = {"trigger_word": params.get("trigger_word", ""), "class_word": params.get("class_word", "")}
    plan = Plan(
        request=request,
        family=family,
        base=params["base"],
        name=params["name"],
        **words,
        pictures=tuple(pictures_of(params)),
        sample_prompts=tuple(fill(text, **words) for text in params.get("sample_prompts", ())),
        made_base=params.get("made_base"),
        shared_caches=Path(params["caches"]) if params.get("caches") else None,
        prior=tuple(
            pictures_of({**params, "pictures": params.get("prior_pictures") or ()}, words["class_word"])
        ),
        begin=Path(params["begins_with"]) if params.get("begins_with") else None,
        run_id=params.get("run_id"),
        character_id=params.get("character_id"),
        run_folder=Path(params["run_folder"]),
        output=Path(params["output"]),
        device=device,
        dtype=_dtype(device, family, request.precision),
        variety=_variety(params, request),
    )
    if plan.training_adapter is not None and not plan.training_adapter.is_file():
        raise Conflict(
            f"What {plan.base.get('title', family.title)} learns with is not on this machine.",
            "Download the base again; only what is missing is fetched.",
        )
    return plan


def _is_set(request: TrainImage, name: str) -> bool:
    return bool(getattr(request, name) != type(request).model_fields[name].default)


def _variety(params: Mapping[str, Any], request: TrainImage) -> Variety | None:
    augment = Augment.parse(params.get("augment") or {})
    return Variety(augment, request.seed, params["base"]["id"]) if augment.is_on else None


def _dtype(device: str, family: Family, setting: str) -> torch.dtype:
    """The format to train in; on a CPU, auto is bf16 where it has such instructions.

    Measured on one core with avx512_bf16: a product of 1536 × 256 × 1024 takes 2.3 ms in
    bf16 and 8.7 ms in fp32. Without such instructions bf16 is emulated and slower.
    """
    if device == "cpu" and setting == "auto":
        # Older torch (before 2.13's `get_capabilities`) does not say: fp32 is right everywhere.
        known: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
        return torch.bfloat16 if known.get("avx512_bf16") or known.get("amx_bf16") else torch.float32
    return choose_dtype(device, family, setting)
