"""The job that bakes a LoRA into a base: a diffusers folder whose weights have it inside.

File by file, added in fp32 and written in the format that the base has; files that the
LoRA does not touch are linked where the disk can, else copied.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from masuka.errors import InvalidInput
from masuka.families.lora import adapters
from masuka.families.lora.keys_files import CLIP
from masuka.jobs.reporter import Reporter
from masuka.models.catalogue import FINISHED, size_bytes
from masuka.models.download import alone, finish, must_have_room
from masuka.training import factors
from masuka.training.tools import read_source


def run(params: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    """Puts the base together in its place in the workspace: {folder, bytes, layers}.

    Raises InvalidInput where a layer of the LoRA has no place in the base, NotFound,
    OutOfDisk, Conflict.
    """
    place, source = Path(params["place"]), Path(params["source"])
    layers = 0
    with alone(place):
        if not (place / FINISHED).is_file():
            must_have_room(params["said"], size_bytes(source), place.parent)
            shutil.rmtree(place, ignore_errors=True)
            layers = bake(source, Path(params["file"]), params["family"], float(params["weight"]), place, reporter)
            finish(place, {"bytes": size_bytes(place), "source": params["said"], "files": {}})
    return {"folder": str(place), "bytes": size_bytes(place), "layers": layers}


def bake(source: Path, file: Path, family: str, weight: float, place: Path, reporter: Reporter) -> int:
    """How many layers of the LoRA are in the copy of the base at `place`: all of them."""
    layers = read_source(file, family).layers
    left = dict(layers)
    files = [f for f in sorted(source.rglob("*")) if f.is_file() and f.name != FINISHED]
    reporter.stage("Baking")
    for number, one in enumerate(files, start=1):
        reporter.check()
        to = place / one.relative_to(source)
        to.parent.mkdir(parents=True, exist_ok=True)
        part = one.relative_to(source).parts[0]
        mine = {layer: leaves for layer, leaves in layers.items() if layer.startswith(f"{part}.")}
        if mine and one.suffix == ".safetensors":
            for layer in _baked(one, part, mine, weight, to, reporter):
                left.pop(layer, None)
        else:
            _same(one, to)
        reporter.progress(number, len(files))
    if left:
        raise InvalidInput(
            f"{len(left)} of {len(layers)} layers of the LoRA have no place in this base, as {next(iter(left))}.",
            "It was made for another base.",
            field="adapter_id",
        )
    return len(layers)


def _baked(
    file: Path, part: str, layers: Mapping[str, Mapping[str, Tensor]], weight: float, to: Path, reporter: Reporter
) -> list[str]:
    """The layers that were in this file, whose copy with the LoRA is at `to`."""
    adapters.read_header(file)
    done, tensors = [], {}
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
        for name in opened.keys():  # noqa: SIM118 (no mapping)
            reporter.check()
            tensor = opened.get_tensor(name)
            layer = _layer(part, name.removesuffix(".weight"), layers) if name.endswith(".weight") else None
            if layer is not None:
                tensor = _with(tensor, layers[layer], weight, layer)
                done.append(layer)
            tensors[name] = tensor
    if done:
        save_file(tensors, to, metadata)
    else:
        _same(file, to)
    return done


def _layer(part: str, module: str, layers: Mapping[str, Any]) -> str | None:
    """The LoRA's layer for this module; transformers 5 dropped `text_model.` inside CLIP."""
    for name in (module, module.removeprefix(CLIP), f"{CLIP}{module}"):
        if f"{part}.{name}" in layers:
            return f"{part}.{name}"
    return None


def _with(tensor: Tensor, leaves: Mapping[str, Tensor], weight: float, layer: str) -> Tensor:
    change = factors.delta(leaves, tensor)
    if change.numel() != tensor.numel() or not tensor.is_floating_point():
        raise InvalidInput(
            f"The layer {layer} of the LoRA is for a base of another width.", "Choose its own base.", field="adapter_id"
        )
    made: Tensor = (tensor.float() + weight * change.reshape(tensor.shape)).to(tensor.dtype)
    if not bool(torch.isfinite(made).all()):
        raise InvalidInput(f"The layer {layer} becomes infinite.", "Use a smaller weight.", field="weight")
    return made.contiguous()


def _same(file: Path, to: Path) -> None:
    try:
        os.link(file.resolve(), to)
    except OSError:  # another disk, or one that knows no links
        shutil.copyfile(file, to)
