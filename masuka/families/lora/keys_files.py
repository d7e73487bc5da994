"""The tensors of a LoRA file under MASUKA's names, and back under those of other tools.

Exact both ways: where a publisher's model has query, key and value in one layer, their
LoRAs are put into one whose ranks stand side by side, and cut apart again by rows.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from masuka.errors import InvalidInput
from masuka.families.lora.keys import (
    DOWN,
    LOKR,
    MAGNITUDE,
    UP,
    Convention,
    Names,
    Place,
    flat,
    leaf_of,
    stems,
)

if TYPE_CHECKING:
    from torch import Tensor

TEXT_MAGNITUDE = "lora_magnitude_vector.weight"
"""The same leaf where transformers (5.23) loads it, which knows no other name."""
METADATA_KEY = "lora_adapter_metadata"
"""Where diffusers looks for peft's configuration in a safetensors header."""
CLIP = "text_model."
"""In front of a CLIP encoder's layers in every LoRA file; transformers 5 dropped it inside."""


def canonical(
    tensors: Mapping[str, Tensor], names: Names, metadata: Mapping[str, str]
) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors under MASUKA's names, scales folded in, and layers not understood.

    Raises InvalidInput for halves that do not belong together and for a scale that is no number.
    """
    stated = stated_scales(metadata)
    made: dict[str, Tensor] = {}
    unread = sorted({key for key in tensors if leaf_of(key) is None})
    for stem, leaves in stems(tensors).items():
        place = names.place(stem)
        found = {leaf: tensors[key] for leaf, key in leaves.items()}
        layers = None if place is None else _layers(stem, place, found, stated)
        if layers is None:
            unread.append(stem)
            continue
        assert place is not None
        for module, parts in zip(place.modules, layers, strict=True):
            made |= {f"{place.part}.{module}.{leaf}": tensor for leaf, tensor in parts.items()}
    return made, unread


def written(tensors: Mapping[str, Tensor], names: Names, convention: Convention) -> dict[str, Tensor]:
    """Canonical tensors under the names of a convention; nothing is lost.

    Raises InvalidInput where the convention has no name for a layer or cannot hold it.
    """
    made: dict[str, Tensor] = {}
    fused: dict[tuple[str, tuple[str, ...]], dict[str, dict[str, Tensor]]] = {}
    for layer, leaves in _by_layer(tensors).items():
        part, _, module = layer.partition(".")
        if convention == "diffusers" or part != names.part:
            made |= _named(_stem(part, module, names, convention), leaves, convention)
            continue
        native = names.native(module)
        if native is None:
            raise InvalidInput(
                f"The layer {module} has no name in the {convention} convention.",
                "Write the file with the names of diffusers.",
                field="convention",
            )
        fused.setdefault(native, {})[module] = leaves
    for (native_name, modules), held in fused.items():
        stem = f"diffusion_model.{native_name}" if convention == "native" else f"lora_unet_{flat(native_name)}"
        made |= _named(stem, _together([held.get(module) for module in modules]), convention)
    return made


def layers_of(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Canonical tensors by layer (`<part>.<module>`), then by leaf."""
    return _by_layer(tensors)


def widths_of(leaves: Mapping[str, Tensor]) -> tuple[int, int] | None:
    """Inputs and outputs of the layer that the tensors are for; None: not to be told."""
    if DOWN in leaves and UP in leaves:
        return int(leaves[DOWN].shape[1]), int(leaves[UP].shape[0])
    shapes = []
    for name in ("lokr_w1", "lokr_w2"):
        whole, a, b = (leaves.get(f"{name}{end}") for end in ("", "_a", "_b"))
        if whole is not None:
            shapes.append((whole.shape[0], whole.shape[1]))
        elif a is not None and b is not None:
            shapes.append((a.shape[0], b.shape[1]))
    if len(shapes) != 2:
        return None
    return int(shapes[0][1] * shapes[1][1]), int(shapes[0][0] * shapes[1][0])


def stated_scales(metadata: Mapping[str, str]) -> Callable[[str, int], float]:
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


def _layers(
    stem: str, place: Place, found: Mapping[str, Tensor], stated: Callable[[str, int], float]
) -> list[dict[str, Tensor]] | None:
    """The leaves of each of the place's layers; None for what is not understood."""
    if any(leaf in found for leaf in LOKR):
        return [_lokr(found)] if len(place.modules) == 1 else None
    down, up = found.get(DOWN), found.get(UP)
    if down is None or up is None:
        return None
    rank = down.shape[0] if down.dim() > 1 else 0
    if not rank or up.dim() < 2 or up.shape[1] != rank:
        raise InvalidInput(
            f"The two halves of {stem[:120]} do not belong together.",
            "The file is damaged; download or export it again.",
            field="adapter",
        )
    alpha = found.get("alpha")
    scale = float(alpha) / rank if alpha is not None and alpha.numel() == 1 else stated(f"{place.part}.{place.modules[0]}", rank)
    if not math.isfinite(scale):
        raise InvalidInput(f"The layer {stem[:120]} states a scale that is no number.", field="adapter")
    if scale != 1.0:
        up = (up.float() * scale).to(up.dtype)
    magnitude = _magnitude(found, int(up.shape[0]))
    sizes = _sizes(len(place.modules), int(down.shape[1]), int(up.shape[0]))
    if sizes is None or ("dora_scale" in found and magnitude is None):
        return None
    layers, start = [], 0
    for size in sizes:
        rows = slice(start, start + size)
        layer = {DOWN: down, UP: up[rows].contiguous()}
        if magnitude is not None:
            layer[MAGNITUDE] = magnitude[rows].contiguous()
        layers.append(layer)
        start += size
    return layers


def _sizes(count: int, width: int, total: int) -> list[int] | None:
    """Rows of each layer in a fused one: equal thirds, or three as wide as the input and a rest."""
    if count == 4:
        return [width, width, width, total - 3 * width] if total > 3 * width else None
    return [total // count] * count if total % count == 0 else None


def _magnitude(found: Mapping[str, Tensor], rows: int) -> Tensor | None:
    """DoRA's lengths of the rows, (rows,); LyCORIS's of the columns are not understood."""
    tensor = found.get(MAGNITUDE, found.get("dora_scale"))
    return tensor.reshape(-1) if tensor is not None and tensor.numel() == rows and tensor.shape[0] == rows else None


def _lokr(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    layer = {leaf: found[leaf] for leaf in LOKR if leaf in found}
    alpha, inner = found.get("alpha"), layer.get("lokr_w2_b", layer.get("lokr_w1_b"))
    if alpha is not None and inner is not None:  # with two whole factors LyCORIS uses no scale
        first = "lokr_w1" if "lokr_w1" in layer else "lokr_w1_a"
        layer[first] = (layer[first].float() * (float(alpha) / inner.shape[0])).to(layer[first].dtype)
    return layer


def _by_layer(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    layers: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        stem, leaf = leaf_of(key) or (key, "")
        layers.setdefault(stem, {})[leaf] = tensor
    return layers


def _stem(part: str, module: str, names: Names, convention: Convention) -> str:
    if not part.startswith("text_encoder"):
        return f"{part}.{module}"
    known = CLIP + module.removeprefix(CLIP)
    if convention == "kohya" and part in names.text_kohya:
        return names.text_kohya[part] + flat(known)
    if convention == "native" and part in names.text_comfy:
        return names.text_comfy[part] + known
    return f"{part}.{known}"


def _named(stem: str, leaves: Mapping[str, Tensor], convention: Convention) -> dict[str, Tensor]:
    """One layer's tensors as the convention spells them."""
    made: dict[str, Tensor] = {}
    for leaf, tensor in leaves.items():
        ending = {DOWN: "lora_down.weight", UP: "lora_up.weight"}.get(leaf, leaf) if convention == "kohya" else leaf
        if leaf == MAGNITUDE:
            # ComfyUI and Forge know the column, diffusers its own name and drops the column.
            made[f"{stem}.dora_scale"] = tensor.reshape(-1, 1)
            if convention != "diffusers":
                continue
            if stem.startswith("text_encoder"):
                ending = TEXT_MAGNITUDE
        made[f"{stem}.{ending}"] = tensor
    if convention == "kohya" and DOWN in leaves:
        import torch

        down = leaves[DOWN]
        made[f"{stem}.alpha"] = torch.tensor(float(down.shape[0]), dtype=down.dtype)
    return made


def _together(held: Sequence[Mapping[str, Tensor] | None]) -> dict[str, Tensor]:
    """One layer of several, ranks side by side; a missing one adds nothing."""
    there = [layer for layer in held if layer is not None]
    if len(held) == 1:
        return dict(there[0])
    if any(leaf in layer for layer in there for leaf in LOKR):
        raise InvalidInput(
            "A LoKr of several layers cannot be put into one.",
            "Write it with the names of diffusers, or make a plain LoRA of it.",
            field="convention",
        )
    import torch

    magnitudes = [layer.get(MAGNITUDE) for layer in held if layer is not None]
    if any(m is not None for m in magnitudes) and (len(there) < len(held) or any(m is None for m in magnitudes)):
        raise InvalidInput(
            "A DoRA of some parts of a layer cannot be put into one.",
            "Write it with the names of diffusers, or train all linear layers.",
            field="convention",
        )
    width = int(there[0][DOWN].shape[1])
    rows = [int(layer[UP].shape[0]) if layer is not None else (4 * width if n == 3 else width) for n, layer in enumerate(held)]
    shared = len(there) == len(held) and all(torch.equal(there[0][DOWN], layer[DOWN]) for layer in there[1:])
    if shared:
        layer = {DOWN: there[0][DOWN], UP: torch.cat([layer[UP] for layer in there])}
    else:
        ups: list[Any] = []
        for count, one in zip(rows, held, strict=True):
            blocks = [
                other[UP] if other is one else other[UP].new_zeros(count, other[UP].shape[1]) for other in there
            ]
            ups.append(torch.cat(blocks, 1))
        layer = {DOWN: torch.cat([one[DOWN] for one in there]), UP: torch.cat(ups)}
    if any(m is not None for m in magnitudes):
        layer[MAGNITUDE] = torch.cat([m for m in magnitudes if m is not None])
    return layer
