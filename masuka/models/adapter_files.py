"""What a LoRA file is, told from its header, and from its numbers without torch.

Who reads it, for which base it is, how large it is and where it changes most.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from masuka.errors import InvalidInput
from masuka.families import FAMILIES
from masuka.families.base import Entry, Family
from masuka.families.lora.adapters import read_header
from masuka.families.lora.keys import DOWN, LOKR, MAGNITUDE, UP, Names, stems
from masuka.families.lora.keys_tables import names_of
from masuka.families.lora.readers import Reading, readings

LARGEST_MEASURED_BYTES = 2**30
"""Of a larger file only the header is read; the numbers would take long."""
_PLAIN_LAYERS = {
    "zimage": re.compile(r"(?:layers|noise_refiner|context_refiner)\.\d+\.(?:attention|feed_forward|adaLN)"),
    "qwenimage": re.compile(r"transformer_blocks\.\d+\.(?:attn\.|img_mlp|txt_mlp|img_mod|txt_mod)"),
}
_BLOCK = re.compile(r"^(?:[a-z_]+\.)*?[a-z_]+\.\d+(?=\.)|^mid_block")
_FORMATS: dict[str, Any] = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16}


@dataclass(frozen=True)
class Found:
    """A LoRA file in words and figures; `norms` says by block how long its change is."""

    kind: str
    family: str
    base: str
    layers: int
    ranks: tuple[int, ...]
    dtypes: tuple[str, ...]
    styles: tuple[str, ...]
    bytes: int
    title: str
    trigger: str
    unread: tuple[str, ...]
    readers: tuple[Reading, ...]
    metadata: Mapping[str, str]
    norms: Mapping[str, float] = field(default_factory=dict)


def inspect(file: Path, *, family: str = "", measure: bool = False) -> Found:
    """The file's description; `family` is recognised where it is not given.

    Raises InvalidInput for a file that is no LoRA of a known family.
    """
    shapes, metadata = read_header(file)
    matched = _entry_of(shapes, metadata, family)
    if matched is None:
        raise InvalidInput(
            f"{file.name} is no LoRA of a family that is known here.",
            "Choose a LoRA for one of the bases on the Models page.",
            field="path",
        )
    model, entry = matched
    names = names_of(model.name)
    layers = stems(shapes)
    places = {stem: names.place(stem) for stem in layers}
    ranks = {shapes[leaves[DOWN]][0] for leaves in layers.values() if DOWN in leaves}
    leaves_there = {leaf for leaves in layers.values() for leaf in leaves}
    dora = MAGNITUDE in leaves_there or "dora_scale" in leaves_there
    kind = "lokr" if leaves_there & set(LOKR) else "dora" if dora else "lora"
    measured = measure and file.stat().st_size <= LARGEST_MEASURED_BYTES
    return Found(
        kind=kind,
        family=model.name,
        base=entry.id,
        layers=len(layers),
        ranks=tuple(sorted(ranks)),
        dtypes=tuple(sorted({about["dtype"] for about in _header(file).values()})),
        styles=tuple(sorted({place.style for place in places.values() if place is not None})),
        bytes=file.stat().st_size,
        title=metadata.get("modelspec.title") or metadata.get("ss_output_name") or file.stem,
        trigger=_trigger(metadata),
        unread=tuple(stem for stem, place in places.items() if place is None),
        readers=tuple(readings(shapes, model.name)),
        metadata={k: v for k, v in metadata.items() if k != "modelspec.thumbnail"},
        norms=norms(file, names) if measured else {},
    )


def norms(file: Path, names: Names) -> dict[str, float]:
    """How long the change is that the LoRA makes in each block (Frobenius), by block."""
    tensors = dict(_tensors(file))
    squares: dict[str, float] = {}
    for stem, leaves in stems(tensors).items():
        place = names.place(stem)
        if place is None:
            continue
        found = _BLOCK.match(place.modules[0])
        block = found.group() if found else "rest"
        block = block if place.part == names.part else place.part
        squares[block] = squares.get(block, 0.0) + _square({leaf: tensors[key] for leaf, key in leaves.items()})
    return {block: value**0.5 for block, value in squares.items()}


def fits(file: Path, family: str, folder: Path) -> tuple[int, int]:
    """How many of the file's layers a base in that folder has, and how many there are.

    Told from both headers: names and widths.
    """
    shapes, _ = read_header(file)
    names = names_of(family)
    base: dict[str, tuple[int, ...]] = {}
    for weights in sorted((folder / names.part).glob("*.safetensors")):
        base |= read_header(weights)[0]
    layers = {
        stem: leaves for stem, leaves in stems(shapes).items()
        if (place := names.place(stem)) is not None and place.part == names.part
    }  # fmt: skip
    fitting = 0
    for stem, leaves in layers.items():
        place = names.place(stem)
        assert place is not None
        there = [base.get(f"{module}.weight") for module in place.modules]
        if DOWN not in leaves or UP not in leaves:
            fitting += all(shape is not None for shape in there)
            continue
        inputs, outputs = shapes[leaves[DOWN]][1:2], shapes[leaves[UP]][0]
        rows = sum(shape[0] for shape in there if shape)
        fitting += all(shape is not None and shape[1:2] == inputs for shape in there) and rows == outputs
    return fitting, len(layers)


def _entry_of(
    shapes: Mapping[str, tuple[int, ...]], metadata: Mapping[str, str], wanted: str
) -> tuple[Family, Entry] | None:
    """The family and base that explain most of the file; ties go by what the file says of itself."""
    best: tuple[tuple[int, int, int], Family, Entry] | None = None
    layers = stems(shapes)
    said = metadata.get("modelspec.architecture", "").removesuffix("/lora")
    version = metadata.get("ss_base_model_version", "")
    for family in FAMILIES.values():
        if wanted and family.name != wanted:
            continue
        names = names_of(family.name)
        known = {stem for stem in layers if _is_of(family.name, names, stem)}
        if not known and not wanted:
            continue
        width = _width(shapes, layers, names)
        for entry in family.entries:
            as_wide = width is not None and entry.size is not None and entry.size.width == width
            named = 2 * (bool(said) and entry.architecture == said) + (bool(version) and entry.kohya_version == version)
            score = (len(known), named, int(as_wide))
            if best is None or score > best[0]:
                best = (score, family, entry)
    return None if best is None or not layers else (best[1], best[2])


def _is_of(family: str, names: Names, stem: str) -> bool:
    """Whether the family has a layer that a file would name so; text encoders tell nothing."""
    place = names.place(stem)
    if place is None or place.part != names.part:
        return False
    pattern = _PLAIN_LAYERS.get(family.replace("-", "").replace("_", ""))
    if names.rules:
        return all(names.native(module) is not None for module in place.modules)
    return pattern is not None and all(pattern.match(module) for module in place.modules)


def _width(
    shapes: Mapping[str, tuple[int, ...]], layers: Mapping[str, Mapping[str, str]], names: Names
) -> int | None:
    for stem, leaves in layers.items():
        place = names.place(stem)
        if place and place.part == names.part and place.modules[0].endswith("to_q") and DOWN in leaves:
            return shapes[leaves[DOWN]][1] if len(shapes[leaves[DOWN]]) > 1 else None
    return None


def _trigger(metadata: Mapping[str, str]) -> str:
    """The words that call it, from where other tools write them."""
    for name in ("modelspec.trigger_phrase", "ss_trigger_words"):
        if metadata.get(name, "").strip():
            return metadata[name].strip()[:100]
    try:
        folders = json.loads(metadata.get("ss_tag_frequency", "{}"))
        counts = next(iter(folders.values()))
        return str(max(counts, key=counts.get))[:100]
    except (ValueError, AttributeError, StopIteration, TypeError, RecursionError):
        return ""


def _header(file: Path) -> dict[str, Any]:
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header: dict[str, Any] = json.loads(stream.read(length))
    return {name: about for name, about in header.items() if name != "__metadata__"}


def _tensors(file: Path) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Every tensor as fp32; bf16 is the upper half of it."""
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
    data = np.memmap(file, dtype=np.uint8, mode="r", offset=8 + length) if file.stat().st_size > 8 + length else None
    for name, about in _header(file).items():
        kind = _FORMATS.get(about["dtype"])
        if kind is None or data is None:
            continue
        start, end = about["data_offsets"]
        raw = np.frombuffer(data[start:end].tobytes(), dtype=kind)
        values = (raw.astype(np.uint32) << 16).view(np.float32) if about["dtype"] == "BF16" else raw.astype(np.float32)
        yield name, values.reshape(about["shape"])


def _square(leaves: Mapping[str, NDArray[np.float32]]) -> float:
    """The squared length of what one layer adds."""
    if DOWN in leaves and UP in leaves:
        down, up = (leaves[leaf].reshape(leaves[leaf].shape[0], -1) for leaf in (DOWN, UP))
        if up.shape[1] != down.shape[0]:
            return 0.0
        scale = float(leaves["alpha"].reshape(-1)[0]) / len(down) if "alpha" in leaves else 1.0
        return max(0.0, float(((up.T @ up) * (down @ down.T)).sum())) * scale**2
    square = 1.0
    for name in ("lokr_w1", "lokr_w2"):
        whole = leaves.get(name)
        if whole is None:
            a, b = leaves.get(f"{name}_a"), leaves.get(f"{name}_b")
            if a is None or b is None:
                return 0.0
            whole = a @ b
        square *= float(np.square(whole).sum())
    return square
