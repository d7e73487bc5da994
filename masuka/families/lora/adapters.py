"""LoRA files for diffusers pipelines: written, checked, loaded and counted.

Knows the names in `keys`, and no family. Scales (alpha) are always folded into the weights,
so nothing depends on who reads which metadata, and a stranger's metadata never reaches a
library's constructor.
"""

from __future__ import annotations

import json
import math
import os
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from masuka.errors import InvalidInput
from masuka.families.base import AdapterReport
from masuka.families.lora.keys import DOWN, MAGNITUDE, UP, Convention, Names
from masuka.families.lora.keys_files import (
    CLIP,
    METADATA_KEY,
    TEXT_MAGNITUDE,
    canonical,
    layers_of,
    widths_of,
    written,
)
from masuka.families.lora.keys_tables import PLAIN, PLAIN_OF

if TYPE_CHECKING:
    from torch import Tensor, nn

_LARGEST_HEADER_BYTES = 64 * 2**20
_BYTES = {
    "F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2,
    "I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1,
}  # fmt: skip
"""Of one number, by safetensors' names of formats."""
_TRAINING, _UNDO = "masuka_training", "masuka_undo"


def read_json(file: Path) -> dict[str, Any]:
    """The JSON object in a file."""
    data: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return data


def read_header(file: Path) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """Shapes by tensor name, and metadata, of a safetensors file; reads no tensor.

    Raises InvalidInput for a file that is not a whole safetensors file.
    """
    refusal = InvalidInput(
        f"{file.name} is not a whole safetensors file.", "Download or export it again.", field="adapter"
    )
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > min(_LARGEST_HEADER_BYTES, size):
                raise refusal
            header = json.loads(stream.read(length))
        metadata = header.pop("__metadata__", {})
        shapes = {name: _shape_in(about) for name, about in header.items()}
        ends = [about["data_offsets"][1] for about in header.values()]
    except (OSError, struct.error, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise refusal from error
    if size != 8 + length + max(ends, default=0) or not isinstance(metadata, dict):
        raise refusal
    return shapes, {str(k): str(v) for k, v in metadata.items()}


def _shape_in(about: Mapping[str, Any]) -> tuple[int, ...]:
    """The shape of one tensor of a header; raises ValueError where its bytes are not as many."""
    dtype, shape, (start, end) = about["dtype"], about["shape"], about["data_offsets"]
    if any(type(number) is not int or number < 0 for number in (*list(shape), start, end)):
        raise ValueError("a tensor with a size that is none")
    each = _BYTES.get(dtype)
    if type(dtype) is not str or start > end or (each is not None and math.prod(shape) * each != end - start):
        raise ValueError("a tensor with more or fewer bytes than its shape says")
    return tuple(shape)


def save(
    file: Path,
    parts: Mapping[str, Mapping[str, Tensor]],
    metadata: Mapping[str, str],
    *,
    alpha: float | None = None,
    names: Names = PLAIN,
) -> None:
    """Writes the parts' peft state dicts as one file in the family's first convention.

    Alpha is folded in (= rank), so that every reader agrees on the scale.
    """
    tensors: dict[str, Tensor] = {}
    for part, layers in parts.items():
        for key, tensor in layers.items():
            name = key.removeprefix("base_model.model.").replace(".default.weight", ".weight")
            name = name.replace("lora_magnitude_vector.weight", "lora_magnitude_vector")
            if name.endswith(".lora_B.weight") and alpha is not None and alpha != tensor.shape[1]:
                tensor = (tensor.float() * (alpha / tensor.shape[1])).to(tensor.dtype)
            tensors[f"{part}.{name}"] = tensor
    write(file, tensors, metadata, names=names)


def write(
    file: Path,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    *,
    names: Names = PLAIN,
    convention: Convention | None = None,
) -> None:
    """Writes tensors of MASUKA's names as a file of that convention, whole or not."""
    from safetensors.torch import save_file

    chosen = convention or names.primary
    # Cloned: what one layer is cut from may be named twice, which safetensors refuses.
    named = {k: t.detach().cpu().clone().contiguous() for k, t in written(tensors, names, chosen).items()}
    about = {"format": "pt", **metadata}
    if chosen == "diffusers":
        # Kohya's readers find alpha in the tensors, and diffusers refuses both together.
        about[METADATA_KEY] = json.dumps(_stated(tensors), sort_keys=True)
    elif chosen == names.primary == "native" and all(key.endswith((DOWN, UP)) for key in named):
        # Fused layers have more ranks than others, which diffusers before 0.42 scales wrongly.
        about[METADATA_KEY] = json.dumps(_stated(canonical(named, names, {})[0]), sort_keys=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    staged = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        save_file(named, staged, metadata=about)
        with staged.open("rb+") as stream:
            os.fsync(stream.fileno())
        staged.replace(file)
    finally:
        staged.unlink(missing_ok=True)


def read(file: Path, names: Names) -> tuple[dict[str, Tensor], list[str], dict[str, str]]:
    """A file's tensors under MASUKA's names, layers not understood, and metadata.

    Raises InvalidInput for a file that is no whole LoRA file; its header is checked first.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    _, metadata = read_header(file)
    try:
        loaded = load_file(file)
    except SafetensorError as error:  # parts that overlap, or a format that torch does not know
        raise InvalidInput(
            f"{file.name} is not a whole safetensors file.", "Download or export it again.", field="adapter"
        ) from error
    tensors, unread = canonical(loaded, names, metadata)
    return tensors, unread, metadata


def load(
    pipeline: Any,
    file: Path,
    name: str,
    *,
    parts: Sequence[str],
    foreign: str,
    family: str,
    names: Names = PLAIN,
) -> AdapterReport:
    """Loads the file's layers that fit the pipeline's parts; counts layers.

    `foreign` is a regular expression for the tensor names of formats that only diffusers
    knows how to convert. Raises InvalidInput when nothing fits, before any change: diffusers
    itself loads a LoRA of another family without a word and without effect.
    """
    known = {part: _widths(getattr(pipeline, part, None)) for part in parts}
    layers, total = _chosen(file, names, known, reader=pipeline, foreign=foreign)
    if not layers:
        raise _refusal(file, family, total)
    for part in parts:
        chosen = {
            f"{layer}.{leaf}": tensor
            for layer, leaves in layers.items()
            if layer.startswith(f"{part}.")
            for leaf, tensor in leaves.items()
        }
        if chosen:
            _put(pipeline, part, chosen, name)
    return AdapterReport(applied=sum(_count(getattr(pipeline, p, None), name) for p in parts), total=total)


def merge_for_training(model: nn.Module, file: Path, *, reader: Any = None, names: Names = PLAIN) -> None:
    """Merges a training adapter into a model; keeps what undoes it, switched off.

    `file` is a LoRA or the folder that holds some, of which the last by name is the newest.
    `reader` is the pipeline's class, which translates other tools' names. Merged once and
    never subtracted: 16-bit weights drift with every merge and unmerge.
    """
    if file.is_dir():
        file = max(file.glob("*.safetensors"), default=file / "adapter.safetensors")
    layers, total = _chosen(file, names, {names.part: _widths(model)}, reader=reader, foreign="")
    if not layers:
        raise _refusal(file, type(model).__name__, total)
    state = {f"{layer}.{leaf}": tensor for layer, leaves in layers.items() for leaf, tensor in leaves.items()}
    load_adapter: Any = model.load_lora_adapter
    load_adapter(dict(state), prefix=names.part, adapter_name=_TRAINING)
    model.fuse_lora(adapter_names=[_TRAINING])  # type: ignore[operator]
    model.unload_lora()  # type: ignore[operator]
    load_adapter(dict(state), prefix=names.part, adapter_name=_UNDO)
    model.requires_grad_(False)
    model.disable_adapters()  # type: ignore[operator]


def _chosen(
    file: Path, names: Names, known: Mapping[str, Mapping[str, tuple[int, int]]], *, reader: Any, foreign: str
) -> tuple[dict[str, dict[str, Tensor]], int]:
    """The file's layers that fit, and how many it has.

    What MASUKA's own tables do not name is left to diffusers' converters.
    """
    from safetensors.torch import load_file

    tensors, unread, metadata = read(file, names)
    if unread and reader is not None:
        raw = load_file(file)
        if any(re.search(foreign, key) for key in raw):
            tensors, unread = canonical(_translated(reader, raw, file), PLAIN_OF[names.part], metadata)
    layers = layers_of({_as_here(known, key): tensor for key, tensor in tensors.items()})
    fitting = {layer: leaves for layer, leaves in layers.items() if _fits(layer, leaves, known)}
    return fitting, len(layers) + len({re.sub(r"\.(lora|lokr|hada)_.*$", "", key) for key in unread})


@contextmanager
def without_training_adapter(model: nn.Module) -> Iterator[None]:
    """Within it the model behaves as if `merge_for_training` had not been called."""
    if _UNDO not in getattr(model, "peft_config", {}):
        yield
        return
    switch: Any = model.set_adapters
    off = any(getattr(layer, "disable_adapters", False) is True for layer in model.modules())
    active = [] if off else [name for name in model.active_adapters() if name != _UNDO]  # type: ignore[operator]
    model.enable_adapters()  # type: ignore[operator]
    switch([*active, _UNDO], [*(1.0 for _ in active), -1.0])
    try:
        yield
    finally:
        switch(active) if active else model.disable_adapters()  # type: ignore[operator]


def _put(pipeline: Any, part: str, layers: Mapping[str, Tensor], name: str) -> None:
    """Gives the layers to diffusers' own loader; not every pipeline's knows alphas."""
    kind, prefix = ("text_encoder", {"prefix": part}) if part.startswith("text_encoder") else (part, {})
    put = getattr(pipeline, f"load_lora_into_{kind}")
    if prefix:
        layers = {key.replace(f".{MAGNITUDE}", f".{TEXT_MAGNITUDE}"): t for key, t in layers.items()}
    alphas = {"network_alphas": None} if "network_alphas" in signature(put).parameters else {}
    given = {kind: getattr(pipeline, part), **alphas, **prefix}
    if kind != "text_encoder" and all(key.endswith((DOWN, UP, MAGNITUDE)) for key in layers):
        # Ranks that differ, as fused layers' do: diffusers before 0.42 guesses one scale for all.
        given["metadata"] = _stated(layers)
    put(layers, **given, adapter_name=name, _pipeline=pipeline)


def _stated(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """What peft needs to rebuild each part's layers, by `<part>.<setting>`; alpha = rank."""
    ranks: dict[str, dict[str, int]] = {}
    with_dora = {key.partition(".")[0] for key in tensors if key.endswith(MAGNITUDE)}
    for key, tensor in tensors.items():
        if key.endswith(f".{DOWN}"):
            part, _, module = key.removesuffix(f".{DOWN}").partition(".")
            ranks.setdefault(part, {})[module.removeprefix(CLIP)] = int(tensor.shape[0])
    return {
        f"{part}.{setting}": value
        for part, of in ranks.items()
        for setting, value in _peft_config(of, dora=part in with_dora).items()
    }


def _peft_config(ranks: Mapping[str, int], *, dora: bool) -> dict[str, Any]:
    most = max(ranks.values())
    others = {module: rank for module, rank in ranks.items() if rank != most}
    return {
        "r": most,
        "lora_alpha": most,
        "rank_pattern": others,
        "alpha_pattern": others,
        "target_modules": sorted(ranks),
        "lora_dropout": 0.0,
        "bias": "none",
        "use_dora": dora,
        "use_rslora": False,
    }


def _widths(module: Any) -> dict[str, tuple[int, int]]:
    """Inputs and outputs of every linear layer and convolution, by name."""
    if module is None:
        return {}
    found = {}
    for name, layer in module.named_modules():
        for a, b in (("in_features", "out_features"), ("in_channels", "out_channels")):
            # Only a layer's own attributes: diffusers models look further ones up in their config.
            own = vars(layer)
            if isinstance(own.get(a), int) and isinstance(own.get(b), int):
                found[name] = (own[a], own[b])
    return found


def _fits(
    layer: str, leaves: Mapping[str, Tensor], known: Mapping[str, Mapping[str, tuple[int, int]]]
) -> bool:
    """Whether a part has a layer of this name and these widths."""
    part, _, module = layer.partition(".")
    widths = known.get(part, {}).get(module)
    return widths is not None and widths == widths_of(leaves)


def _translated(reader: Any, tensors: Mapping[str, Tensor], file: Path) -> dict[str, Tensor]:
    """The tensors as diffusers' own converters name them, their alphas among them."""
    unet = getattr(reader, "unet", None)
    options = {} if unet is None else {"unet_config": unet.config}
    try:
        found = reader.lora_state_dict(dict(tensors), return_alphas=True, **options)
    except (ValueError, KeyError, RuntimeError, IndexError, AttributeError) as error:
        raise InvalidInput(
            f"The layers of {file.name} have names that diffusers cannot translate.",
            "Export it again in the diffusers format.",
            field="adapter",
        ) from error
    import torch

    state, alphas = (found[0], found[1] or {}) if isinstance(found, tuple) else (found, {})
    return {**state, **{key: torch.as_tensor(float(value)) for key, value in alphas.items()}}


def _as_here(known: Mapping[str, Mapping[str, Any]], key: str) -> str:
    """The tensor's name as these parts have it."""
    part, _, name = key.partition(".")
    if not part.startswith("text_encoder"):
        return key
    inside = CLIP if any(module.startswith(CLIP) for module in known.get(part, {})) else ""
    return f"{part}.{inside}{name.removeprefix(CLIP)}"


def _count(module: Any, name: str) -> int:
    """How many layers of the module hold this adapter."""
    if module is None:
        return 0
    return sum(
        any(name in getattr(layer, leaf, ()) for leaf in ("lora_A", "lokr_w1", "lokr_w1_a"))
        for layer in module.modules()
    )


def _refusal(file: Path, family: str, total: int) -> InvalidInput:
    return InvalidInput(
        f"None of the {total} layers in {file.name} fits this {family} model.",
        "It was made for another base model; choose that one, or another LoRA.",
        field="adapter",
    )
