"""What a base is: told by a diffusers folder's configurations, or by a file's tensor names.

Only JSON and the headers of safetensors files are read; no weights are loaded.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from masuka.errors import InvalidInput
from masuka.families import FAMILIES
from masuka.families.base import Entry, Family
from masuka.models.catalogue import index_of, parts_in

LONGEST_HEADER_BYTES = 64 * 2**20
PIPELINES = {
    "FluxPipeline": "flux",
    "StableDiffusionXLPipeline": "sdxl",
    "StableDiffusion3Pipeline": "sd3",
    "ChromaPipeline": "chroma",
    "Flux2Pipeline": "flux2",
    "Flux2KleinPipeline": "flux2",
    "Flux3ModularPipeline": "flux3",
    "Flux3DistilledModularPipeline": "flux3",
    "ZImagePipeline": "zimage",
    "QwenImagePipeline": "qwen_image",
    "Krea2Pipeline": "krea2",
}
"""diffusers' name of a pipeline → the family that knows it."""
FOREIGN = {
    "StableDiffusionPipeline": "Stable Diffusion 1 or 2",
    "StableDiffusionInpaintPipeline": "an inpainting model",
    "StableDiffusionXLInpaintPipeline": "an inpainting model",
    "StableDiffusionXLImg2ImgPipeline": "the SDXL refiner",
    "FluxControlPipeline": "a FLUX model that follows another picture",
    "FluxFillPipeline": "an inpainting model",
    "FluxKontextPipeline": "a FLUX model that edits pictures",
}
_NONE_OF_IT = "No model family here knows it."
_HINT = "Known are the bases on the Models page and what is made from them."


@dataclass(frozen=True)
class Found:
    """The catalogue's entry whose facts hold, and what the base is made of.

    `parameters` counts the denoiser's, 0 where nobody could; `parts` are what a single
    file holds besides the denoiser.
    """

    family: Family
    entry: Entry
    parameters: int = 0
    parts: frozenset[str] = field(default_factory=frozenset)


def of_folder(folder: Path) -> Found:
    """What the diffusers folder is; raises InvalidInput for what nothing here can use."""
    index = index_of(folder)
    if index is None:
        raise InvalidInput(
            f"{folder.name} is no diffusers folder: it has no model_index.json.",
            "Choose the folder that holds it, or a single safetensors file.", field="path",
        )  # fmt: skip
    read = _json(index)
    configs = {part: _config_in(folder / part) for part in parts_in(read)}
    return of_configs(read, configs, parameters=_parameters(folder, read))


def of_configs(
    index: Mapping[str, Any], configs: Mapping[str, Mapping[str, Any]], *, parameters: int = 0
) -> Found:
    """The same from the configurations themselves, by the name of their part.

    `parameters` of the denoiser, where known, tell sizes of one family apart.
    """
    name = str(index.get("_class_name", ""))
    family = FAMILIES.get(PIPELINES.get(name, ""))
    if family is None:
        told = FOREIGN.get(name, f"made for {name}" if name.isidentifier() else "made for code of its own")
        raise InvalidInput(f"This is {told}. {_NONE_OF_IT}", _HINT, field="repo")
    denoiser = dict(configs.get(family.denoiser_part, {}))
    facts = {**denoiser, "scheduler": dict(configs.get("scheduler", {}))}
    return Found(*_entry_of(family, facts, parameters), parameters)


def of_file(file: Path) -> Found:
    """What a single safetensors file is, by its header; raises InvalidInput."""
    header = header_of(file)
    names = {name: about for name, about in header.items() if name != "__metadata__"}
    bare = {name.removeprefix("model.diffusion_model."): about for name, about in names.items()}
    family_name, told = _family_of_names(bare, names)
    family = FAMILIES.get(family_name)
    if family is None:
        raise InvalidInput(f"{file.name} is {told}. {_NONE_OF_IT}", _HINT, field="path")
    denoiser = {
        name: about for name, about in bare.items()
        if name not in names or not name.startswith(("first_stage_model.", "conditioner.", "text_encoders.", "vae."))
    }  # fmt: skip
    parameters = sum(_count(about) for about in denoiser.values())
    guided = ("guidance_in.", "time_text_embed.guidance_embedder.")
    facts: dict[str, Any] = {"guidance_embeds": any(name.startswith(guided) for name in bare)}
    # Empty tensors of these names say how such a file predicts.
    facts["scheduler"] = {"prediction_type": "v_prediction"} if "v_pred" in names else {}
    facts["scheduler"] |= {"sigma_data": 0.5} if "edm_mean" in names else {}
    return Found(*_entry_of(family, facts, parameters), parameters, _parts_of(names))


def header_of(file: Path) -> dict[str, Any]:
    """The header of a safetensors file: tensors by name; raises InvalidInput."""
    broken = InvalidInput(
        f"{file.name} is no safetensors file.",
        "Only safetensors are taken: other files can run code when they are opened.", field="path",
    )  # fmt: skip
    try:
        with file.open("rb") as stream:
            length = struct.unpack("<Q", stream.read(8))[0]
            if not 2 <= length <= min(LONGEST_HEADER_BYTES, file.stat().st_size - 8):
                raise broken
            header = json.loads(stream.read(length))
    except OSError as error:
        raise InvalidInput(f"{file.name} cannot be read.", "Look at the path.", field="path") from error
    except (struct.error, ValueError, RecursionError) as error:
        raise broken from error
    if not isinstance(header, dict) or not all(isinstance(about, dict) for about in header.values()):
        raise broken
    return header


def _family_of_names(bare: Mapping[str, Any], names: Mapping[str, Any]) -> tuple[str, str]:
    """The family whose tensors these are, or '' and what it is instead, in words.

    The names are those of the models' first publications, which diffusers' converters read,
    and for FLUX.1 diffusers' own, under which trainers keep whole models.
    """
    if any(".lora_" in n or n.startswith("lora_") or ".hada_" in n or ".lokr_" in n for n in names):
        return "", "a LoRA and no base"
    if "conditioner.embedders.0.model.text_projection" in names:
        return "", "the SDXL refiner"
    if "cond_stage_model.transformer.text_model.embeddings.position_embedding.weight" in names:
        return "", "Stable Diffusion 1"
    if "cond_stage_model.model.token_embedding.weight" in names:
        return "", "Stable Diffusion 2"
    marks = (
        ("distilled_guidance_layer.in_proj.bias", "chroma"),
        ("early_stream_modulations.image.lin.weight", "flux3"),
        ("single_stream_modulation.lin.weight", "flux2"),
        ("double_blocks.0.img_attn.norm.key_norm.scale", "flux"),
        ("single_transformer_blocks.0.proj_mlp.weight", "flux"),
        ("joint_blocks.0.context_block.adaLN_modulation.1.bias", "sd3"),
        ("label_emb.0.0.weight", "sdxl"),
        ("layers.0.adaLN_modulation.0.weight", "zimage"),
        ("transformer_blocks.0.img_mod.1.weight", "qwen_image"),
        ("txtfusion.projector.weight", "krea2"),
    )
    for mark, family in marks:
        if mark in bare:
            return family, family
    if any(name.startswith(("encoder.", "decoder.", "first_stage_model.")) for name in names):
        return "", "a VAE alone"
    return "", "of a kind that is not recognised"


def _parts_of(names: Mapping[str, Any]) -> frozenset[str]:
    """What of a base the file holds besides its denoiser."""
    marks = {"vae": ("first_stage_model.", "vae."), "text": ("conditioner.embedders.", "text_encoders.")}
    return frozenset(part for part, starts in marks.items() if any(n.startswith(starts) for n in names))


def _entry_of(family: Family, facts: Mapping[str, Any], parameters: int) -> tuple[Family, Entry]:
    """The entry that is most like it: how it predicts, guides, and how large it is.

    Families that share a network and differ in what it predicts (`sdxl`, `sdxl-v`) are
    looked at together; they are named alike.
    """
    predicts = str(facts.get("scheduler", {}).get("prediction_type", ""))
    wanted = "v" if predicts.startswith("v") else "edm" if "sigma_data" in facts.get("scheduler", {}) else ""
    guided = facts.get("guidance_embeds")
    alike = [f for name, f in FAMILIES.items() if name == family.name or name.startswith(f"{family.name}-")]
    known = [(f, e) for f in alike for e in f.entries if e.folder is None]

    def unlike(pair: tuple[Family, Entry]) -> tuple[bool, bool, float]:
        entry = pair[1]
        other = (entry.prediction if entry.prediction in ("v", "edm") else "") != wanted
        size = entry.size.denoiser if entry.size else 0
        far = abs(size - parameters) / size if size and parameters else 0.0
        return other, guided is not None and (entry.guidance == "embedded") != guided, round(far, 1)

    # Of equals the first: a family lists its plain base before what was made from it.
    return min(known, key=unlike)


def _parameters(folder: Path, index: Mapping[str, Any]) -> int:
    """The denoiser's parameters, by the headers of its files."""
    part = next((name for name in ("transformer", "unet") if name in index), "")
    files = [file for file in sorted((folder / part).glob("*.safetensors")) if "." not in file.stem] if part else []
    return sum(_count(about) for file in files for name, about in header_of(file).items() if name != "__metadata__")


def _count(about: Any) -> int:
    total = 1
    for length in about.get("shape", ()):
        total *= length if isinstance(length, int) else 0
    return total


def _config_in(part: Path) -> dict[str, Any]:
    for name in ("config.json", "scheduler_config.json"):
        if (part / name).is_file():
            return _json(part / name)
    return {}


def _json(file: Path) -> dict[str, Any]:
    try:
        read = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidInput(f"{file.name} cannot be read.", "Take another copy of the model.", field="path") from error
    return read if isinstance(read, dict) else {}
