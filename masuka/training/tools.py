"""The job that works on LoRA files: other names, another rank, several in one, one from two bases.

Reads tensors of safetensors files and nothing else; what a file holds that is not
understood is an error, not left out. Knows no pipeline.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from masuka.errors import InvalidInput, NotFound
from masuka.families.lora import adapters
from masuka.families.lora.keys import DOWN, MAGNITUDE, UP, Convention
from masuka.families.lora.keys_files import METADATA_KEY, layers_of, widths_of
from masuka.families.lora.keys_tables import names_of
from masuka.families.lora.readers import readings
from masuka.jobs.reporter import PARTIAL, Reporter
from masuka.requests.text import clean_filename
from masuka.training import factors
from masuka.training.stamping import SIDECAR, stamp_hashes

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
SMALLEST_CHANGE = 1e-6
"""Relative to the weight: less is rounding, and no layer of its own is extracted for it."""


@dataclass(frozen=True)
class Source:
    """One LoRA that goes in, layer by layer."""

    layers: dict[str, dict[str, Tensor]]
    metadata: dict[str, str]
    dtype: torch.dtype


def run(params: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    """What the tool made: {file, kept, readers, …}; a new LoRA is an artefact too.

    Raises InvalidInput for files that are no LoRAs of this family, NotFound for a file or
    base that is gone.
    """
    return TOOLS[params["tool"]](params, reporter)


def read_source(file: Path, family: str) -> Source:
    """The LoRA in a file; raises InvalidInput for layers that are not understood."""
    if not file.is_file():
        raise NotFound(f"{file.name} is gone.", "Train it again or delete it.")
    tensors, unread, metadata = adapters.read(file, names_of(family))
    layers = layers_of(tensors)
    if unread or not layers or any(widths_of(leaves) is None for leaves in layers.values()):
        lost = unread[0] if unread else "of an unknown kind"
        raise InvalidInput(
            f"{file.name} has layers that are not understood, as {lost[:80]}.",
            "Only LoRA, DoRA and LoKr of a known base can be worked on.",
            field="adapter_id",
        )
    dtype = next(iter(next(iter(layers.values())).values())).dtype
    return Source(layers, metadata, dtype if dtype.is_floating_point else torch.bfloat16)


def convert(params: Mapping[str, Any], reporter: Reporter) -> dict[str, Any]:
    """The same layers under other names, beside the LoRA's own file."""
    reporter.stage("Reading the LoRA")
    reporter.check()
    source = read_source(Path(params["file"]), params["family"])
    layers, kept = source.layers, 1.0
    if params.get("plain"):
        layers, kept = _plain(source.layers, params, reporter)
    to, convention = Path(params["to"]), params["convention"]
    reporter.stage("Writing")
    changes = _ranks(layers)
    _write(to, layers, {**source.metadata, **changes}, params["family"], convention, DTYPES[params["dtype"]])
    return {"file": str(to), "kept": kept, "convention": convention, "readers": _sentences(to, params["family"])}


def resize(params: Mapping[str, Any], reporter: Reporter) -> dict[str, Any]:
    """A new LoRA of that rank, as near to the old one as such a one can be."""
    source = read_source(Path(params["file"]), params["family"])
    layers, shares = {}, []
    reporter.stage("Resizing")
    for number, (layer, leaves) in enumerate(source.layers.items(), start=1):
        reporter.check()
        layers[layer], share = factors.reduced(leaves, int(params["rank"]))
        shares.append((factors.norm(leaves) ** 2, share))
        reporter.progress(number, len(source.layers))
    kept = factors.energy_kept(shares)
    return _new_adapter(params, reporter, layers, {**source.metadata, **_ranks(layers)}, source.dtype, kept)


def merge(params: Mapping[str, Any], reporter: Reporter) -> dict[str, Any]:
    """One LoRA that adds what the others add together, each as much as it counts."""
    sources = [read_source(Path(file), params["family"]) for file in params["files"]]
    weights, rank = [float(w) for w in params["weights"]], int(params["rank"])
    if any(MAGNITUDE in leaves for source in sources for leaves in source.layers.values()):
        raise InvalidInput(
            "A DoRA cannot be added to others.", "Make a plain LoRA of it first (convert).", field="adapter_ids"
        )
    layers: dict[str, dict[str, Tensor]] = {}
    shares = []
    names = sorted({layer for source in sources for layer in source.layers})
    reporter.stage("Merging")
    for number, layer in enumerate(names, start=1):
        reporter.check()
        there = [(factors.plain(s.layers[layer])[0], w) for s, w in zip(sources, weights, strict=True) if layer in s.layers]
        if not factors.same_shape([leaves for leaves, _ in there]):
            raise InvalidInput(f"The LoRAs are for bases of different widths at {layer}.", field="adapter_ids")
        whole = factors.joined(there)
        layers[layer], share = factors.reduced(whole, rank) if rank else (whole, 1.0)
        shares.append((factors.norm(whole) ** 2, share))
        reporter.progress(number, len(names))
    about = {
        **sources[0].metadata,
        **_ranks(layers),
        "modelspec.merged_from": ", ".join(params["names"]),
        "modelspec.trigger_phrase": ", ".join(dict.fromkeys(t for t in params["triggers"] if t)),
    }
    for own in ("modelspec.thumbnail", "modelspec.description", "modelspec.usage_hint", "ss_tag_frequency"):
        about.pop(own, None)
    return _new_adapter(params, reporter, layers, about, sources[0].dtype, factors.energy_kept(shares))


def extract(params: Mapping[str, Any], reporter: Reporter) -> dict[str, Any]:
    """A LoRA from the difference of two bases' denoisers, one layer after another."""
    part = names_of(params["family"]).part
    reporter.stage("Comparing")
    layers: dict[str, dict[str, Tensor]] = {}
    shares = []
    with weights_of(Path(params["folder"]) / part) as base, weights_of(Path(params["tuned_folder"]) / part) as tuned:
        names = [name for name in base if name.endswith(".weight") and name in tuned]
        for number, name in enumerate(names, start=1):
            reporter.check()
            reporter.progress(number, len(names))
            before, after = base[name](), tuned[name]()
            if before.dim() < 2 or before.shape != after.shape:
                continue
            change = after.float() - before.float()
            if float(change.norm()) <= SMALLEST_CHANGE * float(before.float().norm()):
                continue
            found, share = factors.of_dense(change, int(params["rank"]))
            layers[f"{part}.{name.removesuffix('.weight')}"] = found
            shares.append((float(change.square().sum()), share))
    if not layers:
        raise InvalidInput("Both bases are the same.", "Choose one that was trained further.", field="tuned")
    about = {
        **_ranks(layers),
        "ss_output_name": params["name"],
        "ss_base_model_version": params["kohya_version"],
        "ss_network_module": "networks.lora",
        "ss_v2": "false",
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": f"{params['architecture']}/lora",
        "modelspec.description": f"What {params['tuned_title']} knows beyond {params['base']['title']}.",
    }
    return _new_adapter(params, reporter, layers, about, torch.bfloat16, factors.energy_kept(shares))


def bring(params: Mapping[str, Any], reporter: Reporter) -> dict[str, Any]:
    """A file from elsewhere, checked, copied as it is, under its own name."""
    reporter.stage("Reading the LoRA")
    reporter.check()
    file = Path(params["file"])
    source = read_source(file, params["family"])
    output = Path(params["output"])
    staging = _staged(output)
    shutil.copyfile(file, staging / clean_filename(f"{params['name']}.safetensors"))
    about = {"layers": len(source.layers), "rank": max(map(factors.rank_of, source.layers.values()))}
    result = _finished(params, reporter, staging, about)
    if params.get("forget"):
        file.unlink()  # an upload; whoever tries again sends it again
    return result


TOOLS: dict[str, Callable[[Mapping[str, Any], Reporter], dict[str, Any]]] = {
    "convert": convert, "resize": resize, "merge": merge, "extract": extract, "bring": bring,
}  # fmt: skip


@contextmanager
def weights_of(folder: Path) -> Iterator[dict[str, Callable[[], Tensor]]]:
    """Each tensor of a model's files by name, read when it is called for."""
    found: dict[str, Callable[[], Tensor]] = {}
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise NotFound(f"There are no weights in {folder.name}.", "Download the base again.")
    for file in files:
        adapters.read_header(file)
        opened = safe_open(file, framework="pt")
        found |= {name: lambda o=opened, n=name: o.get_tensor(n) for name in opened.keys()}  # type: ignore[misc, no-untyped-call]  # noqa: SIM118
    yield found


def _plain(
    layers: Mapping[str, dict[str, Tensor]], params: Mapping[str, Any], reporter: Reporter
) -> tuple[dict[str, dict[str, Tensor]], float]:
    """Every layer as a plain LoRA; a DoRA's from its base's weights, at the same rank."""
    made, shares = {}, []
    part = names_of(params["family"]).part
    if not any(MAGNITUDE in leaves for leaves in layers.values()):
        for layer, leaves in layers.items():
            made[layer], share = factors.plain(leaves)
            shares.append((factors.norm(leaves) ** 2, share))
        return made, factors.energy_kept(shares)
    with weights_of(Path(params["folder"]) / part) as base:
        for number, (layer, leaves) in enumerate(layers.items(), start=1):
            reporter.check()
            weight = base.get(f"{layer.removeprefix(f'{part}.')}.weight")
            if MAGNITUDE in leaves and weight is None:
                raise InvalidInput(f"The base has no layer {layer}.", "It was made for another base.", field="adapter_id")
            change = factors.delta(leaves, None if weight is None else weight())
            shape = (change.shape[0], *leaves[DOWN].shape[1:])
            # Its lengths change every direction a little: the rank is doubled to keep most of that.
            made[layer], share = factors.of_dense(change.reshape(shape), 2 * factors.rank_of(leaves))
            shares.append((float(change.square().sum()), share))
            reporter.progress(number, len(layers))
    return made, factors.energy_kept(shares)


def _ranks(layers: Mapping[str, Mapping[str, Tensor]]) -> dict[str, str]:
    most = max(int(leaves[DOWN].shape[0]) if DOWN in leaves else factors.rank_of(leaves) for leaves in layers.values())
    return {"ss_network_dim": str(most), "ss_network_alpha": str(most)} if most else {}


def _write(
    file: Path,
    layers: Mapping[str, Mapping[str, Tensor]],
    metadata: Mapping[str, str],
    family: str,
    convention: Convention | None,
    dtype: torch.dtype,
) -> None:
    tensors = {
        f"{layer}.{leaf}": tensor.to(torch.float32 if leaf == MAGNITUDE else dtype)
        for layer, leaves in layers.items()
        for leaf, tensor in leaves.items()
    }
    lokr = any(factors.is_lokr(leaves) for leaves in layers.values())
    kept = {k: v for k, v in metadata.items() if k != METADATA_KEY and not k.startswith("sshs_")}
    adapters.write(file, tensors, kept, names=names_of(family), convention="diffusers" if lokr and not convention else convention)
    stamp_hashes(file)


def _sentences(file: Path, family: str) -> dict[str, str]:
    shapes, _ = adapters.read_header(file)
    return {reading.tool: reading.sentence for reading in readings(shapes, family)}


def _staged(output: Path) -> Path:
    staging = output.with_name(output.name + PARTIAL)
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    return staging


def _new_adapter(
    params: Mapping[str, Any],
    reporter: Reporter,
    layers: Mapping[str, Mapping[str, Tensor]],
    metadata: Mapping[str, str],
    dtype: torch.dtype,
    kept: float,
) -> dict[str, Any]:
    """The result as a LoRA of its own, in a folder of its own, that appears whole."""
    reporter.stage("Writing")
    output = Path(params["output"])
    staging = _staged(output)
    file = staging / clean_filename(f"{params['name']}.safetensors")
    named = {"modelspec.title": params["name"], "ss_output_name": params["name"]}
    _write(file, layers, {**metadata, **named}, params["family"], None, dtype)
    ranks = sorted({int(leaves[DOWN].shape[0]) for leaves in layers.values() if UP in leaves})
    return _finished(params, reporter, staging, {"kept": kept, "layers": len(layers), "ranks": ranks})


def _finished(
    params: Mapping[str, Any], reporter: Reporter, staging: Path, about: Mapping[str, Any]
) -> dict[str, Any]:
    file = next(staging.glob("*.safetensors"))
    with file.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    told = {
        **about, "name": params["name"], "file": file.name, "sha256": sha256, "base": params["base"],
        "family": params["family"], "trigger_word": params["trigger_word"], "class_word": params["class_word"],
        "made_by": params["request"], "readers": _sentences(file, params["family"]),
    }  # fmt: skip
    (staging / SIDECAR).write_text(json.dumps(told, indent=2, ensure_ascii=False), encoding="utf-8")
    output = Path(params["output"])
    shutil.rmtree(output, ignore_errors=True)
    staging.replace(output)
    reporter.artefact("adapter", output / file.name, sha256=sha256)
    return {**about, "file": str(output / file.name), "sha256": sha256, "readers": told["readers"]}
