"""LoRA files for diffusers pipelines: written, checked, loaded and counted.

Knows tensors named `<component>.<module>.lora_A.weight`, and no family. Scales (alpha)
are always folded into the weights, so nothing depends on who reads which metadata, and
a stranger's metadata never reaches a library's constructor.
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

if TYPE_CHECKING:
    from torch import Tensor, nn

METADATA_KEY = "lora_adapter_metadata"
"""Where diffusers looks for peft's configuration in a safetensors header."""
_LARGEST_HEADER_BYTES = 64 * 2**20
_TRAINING, _UNDO = "masuka_training", "masuka_undo"
_CLIP = "text_model."
"""In front of a CLIP encoder's layers in every LoRA file; transformers 5 dropped it inside."""
_NAMED = re.compile(r"^(?P<part>\w+)\.(?P<module>.+)\.(?P<side>lora_[AB])\.weight$")


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
        shapes = {name: tuple(int(n) for n in about["shape"]) for name, about in header.items()}
        ends = [int(about["data_offsets"][1]) for about in header.values()]
    except (OSError, struct.error, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise refusal from error
    if size != 8 + length + max(ends, default=0) or not isinstance(metadata, dict):
        raise refusal
    return shapes, {str(k): str(v) for k, v in metadata.items()}


def save(
    file: Path,
    parts: Mapping[str, Mapping[str, Tensor]],
    metadata: Mapping[str, str],
    *,
    alpha: float | None = None,
) -> None:
    """Writes the parts' peft state dicts as one LoRA file, alpha folded in (= rank)."""
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    stated: dict[str, Any] = {}
    for part, layers in parts.items():
        ranks: dict[str, int] = {}
        for key, tensor in layers.items():
            name = key.removeprefix("base_model.model.").replace(".default.weight", ".weight")
            module, side = name.removesuffix(".weight").rsplit(".", 1)
            rank = tensor.shape[0] if side == "lora_A" else tensor.shape[1]
            if side == "lora_A":
                ranks[module.removeprefix(_CLIP)] = rank
            elif alpha is not None and alpha != rank:
                tensor = (tensor.float() * (alpha / rank)).to(tensor.dtype)
            tensors[f"{part}.{_as_known(part, name)}"] = tensor.detach().cpu().contiguous()
        if ranks:
            stated |= {f"{part}.{key}": value for key, value in _peft_config(ranks).items()}
    about = {"format": "pt", **metadata, METADATA_KEY: json.dumps(stated, sort_keys=True)}
    file.parent.mkdir(parents=True, exist_ok=True)
    staged = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        save_file(tensors, staged, metadata=about)
        with staged.open("rb+") as stream:
            os.fsync(stream.fileno())
        staged.replace(file)
    finally:
        staged.unlink(missing_ok=True)


def load(
    pipeline: Any, file: Path, name: str, *, parts: Sequence[str], foreign: str, family: str
) -> AdapterReport:
    """Loads the file's layers that fit the pipeline's parts; counts layers.

    `foreign` is a regular expression for the tensor names of this family's other formats,
    which diffusers converts. Raises InvalidInput when nothing fits, before any change:
    diffusers itself loads a LoRA of another family without a word and without effect.
    """
    shapes, metadata = read_header(file)
    shapes = {_as_here(pipeline, key): shape for key, shape in shapes.items()}
    modules = {part: _widths(getattr(pipeline, part)) for part in parts}
    known = any(re.search(foreign, key) for key in shapes)
    if not known and not _fitting(_pairs(shapes), modules):
        raise _refusal(file, family, len(_pairs(shapes)))
    state = _read(pipeline, file, metadata)
    pairs = _pairs({key: tuple(tensor.shape) for key, tensor in state.items()})
    fitting = _fitting(pairs, modules)
    if not fitting:
        raise _refusal(file, family, len(pairs))
    for part in parts:
        chosen = {
            f"{part}.{module}.{side}.weight": state[f"{part}.{module}.{side}.weight"]
            for fit, module in fitting
            if fit == part
            for side in ("lora_A", "lora_B")
        }
        if chosen:
            _put(pipeline, part, chosen, name)
    return AdapterReport(applied=sum(_count(getattr(pipeline, p), name) for p in parts), total=len(pairs))


def merge_for_training(model: nn.Module, file: Path, *, reader: Any = None) -> None:
    """Merges a training adapter into a model; keeps what undoes it, switched off.

    `file` is a LoRA or the folder that holds some, of which the last by name is the newest.
    `reader` is the pipeline's class, which translates other tools' names. Merged once and
    never subtracted: 16-bit weights drift with every merge and unmerge.
    """
    from safetensors.torch import load_file

    if file.is_dir():
        file = max(file.glob("*.safetensors"), default=file / "adapter.safetensors")
    shapes, _ = read_header(file)
    state = {} if reader is None else _translated(reader, load_file(file), file)[0]
    pairs = _pairs({key: tuple(tensor.shape) for key, tensor in state.items()} or shapes)
    if not _fitting(pairs, {"transformer": _widths(model)}):
        raise _refusal(file, type(model).__name__, len(pairs))
    load_adapter: Any = model.load_lora_adapter

    def put(name: str) -> None:
        options = {"use_safetensors": True, "local_files_only": True}
        load_adapter(dict(state) or str(file), adapter_name=name, **options)

    put(_TRAINING)
    model.fuse_lora(adapter_names=[_TRAINING])  # type: ignore[operator]
    model.unload_lora()  # type: ignore[operator]
    put(_UNDO)
    model.requires_grad_(False)
    model.disable_adapters()  # type: ignore[operator]


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
    alphas = {"network_alphas": None} if "network_alphas" in signature(put).parameters else {}
    given = {kind: getattr(pipeline, part), **alphas, **prefix}
    put(layers, **given, adapter_name=name, _pipeline=pipeline)


def _peft_config(ranks: Mapping[str, int]) -> dict[str, Any]:
    """What peft needs to rebuild the layers; alpha = rank everywhere."""
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
        "use_dora": False,
        "use_rslora": False,
    }


def _pairs(shapes: Mapping[str, tuple[int, ...]]) -> dict[tuple[str, str], tuple[int, int]]:
    """(part, module) → (inputs, outputs) of every layer that has both sides.

    A layer that is not named this way counts too, with widths that fit nothing.
    """
    sides: dict[tuple[str, str], dict[str, int]] = {}
    for key, shape in shapes.items():
        match = _NAMED.match(key)
        if match:
            width = (shape[1] if match["side"] == "lora_A" else shape[0]) if len(shape) > 1 else 0
            sides.setdefault((match["part"], match["module"]), {})[match["side"]] = width
        elif not key.endswith(("alpha", "dora_scale")):
            stem = re.sub(r"\.(lora_\w+|lora\.\w+|lokr_\w+|hada_\w+)(\.weight)?$", "", key)
            sides.setdefault(("", stem), {})
    return {layer: (side.get("lora_A", 0), side.get("lora_B", 0)) for layer, side in sides.items()}


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


def _fitting(
    pairs: Mapping[tuple[str, str], tuple[int, int]], modules: Mapping[str, Mapping[str, tuple[int, int]]]
) -> list[tuple[str, str]]:
    return [
        (part, module)
        for (part, module), widths in pairs.items()
        if modules.get(part, {}).get(module) == widths
    ]


def _read(pipeline: Any, file: Path, metadata: Mapping[str, str]) -> dict[str, Tensor]:
    """The file's tensors under this pipeline's names, each layer's alpha folded in."""
    from safetensors.torch import load_file

    state, alphas = _translated(pipeline, load_file(file), file)
    state = {_as_here(pipeline, _modern(key)): tensor for key, tensor in state.items()}
    _must_have_ranks(file, state)
    stated = _stated_scales(metadata)
    for key in [k for k in state if k.endswith(".lora_B.weight")]:
        layer = key.removesuffix(".lora_B.weight")
        rank = int(state[key].shape[1])
        alpha = (alphas or {}).get(f"{layer}.alpha")
        scale = float(alpha) / rank if alpha is not None else stated(layer, rank)
        if not math.isfinite(scale):
            raise InvalidInput(f"{file.name} states a scale that is no number.", field="adapter")
        if scale != 1.0:
            state[key] = (state[key].float() * scale).to(state[key].dtype)
    return state


def _translated(reader: Any, tensors: Mapping[str, Tensor], file: Path) -> tuple[dict[str, Tensor], Any]:
    """The tensors under diffusers' names, and each layer's alpha where the reader gives them."""
    try:
        found = reader.lora_state_dict(dict(tensors), return_alphas=True)
    except (ValueError, KeyError, RuntimeError, IndexError, AttributeError) as error:
        raise InvalidInput(
            f"The layers of {file.name} have names that diffusers cannot translate.",
            "Export it again in the diffusers format.",
            field="adapter",
        ) from error
    return found if isinstance(found, tuple) else (found, {})


def _must_have_ranks(file: Path, state: Mapping[str, Tensor]) -> None:
    for key, up in state.items():
        layer, is_up, _ = key.rpartition(".lora_B.weight")
        down = state.get(f"{layer}.lora_A.weight") if is_up else None
        if not is_up or down is None:
            continue
        ranks = (down.shape[0] if down.dim() > 1 else 0, up.shape[1] if up.dim() > 1 else 0)
        if ranks[0] != ranks[1] or not ranks[0]:
            raise InvalidInput(
                f"The two halves of {layer} in {file.name} do not belong together.",
                "The file is damaged; download or export it again.",
                field="adapter",
            )


def _as_known(part: str, name: str) -> str:
    """The layer's name as files have it."""
    return _CLIP + name.removeprefix(_CLIP) if part.startswith("text_encoder") else name


def _as_here(pipeline: Any, key: str) -> str:
    """The tensor's name as this pipeline's parts have it."""
    part, _, name = key.partition(".")
    if part.startswith("text_encoder") and not hasattr(getattr(pipeline, part, None), "text_model"):
        return f"{part}.{name.removeprefix(_CLIP)}"
    return key


def _modern(key: str) -> str:
    """The key in peft's spelling; older text-encoder files say lora_linear_layer.down."""
    for old, new in ((".lora_linear_layer.down.", ".lora_A."), (".lora_linear_layer.up.", ".lora_B.")):
        key = key.replace(old, new)
    return key


def _stated_scales(metadata: Mapping[str, str]) -> Any:
    """A function (layer, rank) → scale, from the peft configuration in the header."""
    try:
        config = json.loads(metadata.get(METADATA_KEY, "{}"))
    except (ValueError, RecursionError):
        config = {}
    config = config if isinstance(config, dict) else {}

    def scale(layer: str, rank: int) -> float:
        part, _, module = layer.partition(".")
        alpha = config.get(f"{part}.lora_alpha", rank)
        patterns = config.get(f"{part}.alpha_pattern")
        for pattern, value in (patterns if isinstance(patterns, dict) else {}).items():
            if module == pattern.lstrip("^") or module.endswith(f".{pattern}"):
                alpha = value
        if not isinstance(alpha, (int, float)):
            return 1.0
        return alpha / (math.sqrt(rank) if config.get(f"{part}.use_rslora") is True else rank)

    return scale


def _count(module: Any, name: str) -> int:
    """How many layers of the module hold this adapter."""
    if module is None:
        return 0
    return sum(name in getattr(layer, "lora_A", ()) for layer in module.modules())


def _refusal(file: Path, family: str, total: int) -> InvalidInput:
    return InvalidInput(
        f"None of the {total} layers in {file.name} fits this {family} model.",
        "It was made for another base model; choose that one, or another LoRA.",
        field="adapter",
    )
