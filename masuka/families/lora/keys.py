"""The names of a LoRA's layers in every convention, and the exact way from one to another.

Inside MASUKA a layer is `<part>.<module>.<leaf>`: the module as diffusers names it, the leaf
as peft does, every scale folded into the weights. Knows names and shapes, no family's code.
Sources: the model classes of diffusers and of the publishers, and the naming rules that
ComfyUI and kohya's sd-scripts publish.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Literal

Convention = Literal["diffusers", "native", "kohya"]
CONVENTIONS: tuple[Convention, ...] = ("diffusers", "native", "kohya")
Style = Literal["diffusers", "native", "kohya", "peft", "bare", "lycoris", "onetrainer", "text", "text_kohya", "text_comfy"]
"""How a tensor in a file is named: a convention, or another that is read though not written."""

DOWN, UP, MAGNITUDE = "lora_A.weight", "lora_B.weight", "lora_magnitude_vector"
LOKR = ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b")
_LEAVES = {
    "lora_A.weight": DOWN, "lora_A.default.weight": DOWN, "lora_down.weight": DOWN, "lora.down.weight": DOWN,
    "lora_linear_layer.down.weight": DOWN, "lora_B.weight": UP, "lora_B.default.weight": UP,
    "lora_up.weight": UP, "lora.up.weight": UP, "lora_linear_layer.up.weight": UP,
    "lora_magnitude_vector": MAGNITUDE, "lora_magnitude_vector.weight": MAGNITUDE,
    "dora_scale": "dora_scale", "alpha": "alpha", **{leaf: leaf for leaf in LOKR},
}  # fmt: skip
_BY_LENGTH = sorted(_LEAVES, key=len, reverse=True)
_TEXT_DIRECT = re.compile(r"^(text_encoder(?:_2|_3)?)\.(.+)$")
_TEXT_MODULE = re.compile(
    r"^(text_model\.)?encoder\.layers\.(\d+)\.(self_attn\.(?:[qkv]|out)_proj|mlp\.fc[12])$"
)


@dataclass(frozen=True)
class Rule:
    """One layer by its publisher's name and by diffusers'; `{}` stands for a number.

    Several of `ours` are one layer there: their outputs lie one after another. The last of
    four is wider than the others.
    """

    native: str
    ours: tuple[str, ...]


@dataclass(frozen=True)
class Place:
    """Where a tensor belongs: part, layers in diffusers' names, how it was named."""

    part: str
    modules: tuple[str, ...]
    style: Style


@dataclass(frozen=True)
class Names:
    """What a family's LoRA files are called; `primary` is what is written first.

    Without rules the publisher's names are diffusers' own.
    """

    part: str = "transformer"
    rules: tuple[Rule, ...] = ()
    primary: Convention = "diffusers"
    offered: tuple[Convention, ...] = ("diffusers", "native")
    text_kohya: Mapping[str, str] = field(default_factory=dict)
    """In front of a text encoder's layers in kohya's files, by part."""
    text_comfy: Mapping[str, str] = field(default_factory=dict)

    def native(self, module: str) -> tuple[str, tuple[str, ...]] | None:
        """The publisher's name of that layer, and what it is fused from, or None."""
        if not self.rules:
            return module, (module,)
        for pattern, rule in self._from_ours:
            found = pattern.fullmatch(module)
            if found:
                numbers = found.groups()
                return _filled(rule.native, numbers), tuple(_filled(name, numbers) for name in rule.ours)
        return None

    def ours(self, native: str) -> tuple[str, ...] | None:
        """The layers in diffusers' names of a layer in the publisher's."""
        return self._looked_up(native, self._from_native) if self.rules else (native,)

    def place(self, stem: str) -> Place | None:
        """Where a layer of a file belongs; None where nothing is named so."""
        text = self._text_place(stem)
        if text:
            return text
        for prefix, style in (
            (f"{self.part}.", "diffusers"), ("base_model.model.", "peft"), ("diffusion_model.", "native"),
            ("lora_unet_", "kohya"), ("lycoris_", "lycoris"), ("lora_transformer_", "onetrainer"), ("", "bare"),
        ):  # fmt: skip
            if stem.startswith(prefix):
                modules = self._modules(stem.removeprefix(prefix), style)
                return Place(self.part, modules, style) if modules else None  # type: ignore[arg-type]
        return None

    def _modules(self, name: str, style: str) -> tuple[str, ...] | None:
        if style in ("diffusers", "peft", "bare"):
            name = name.replace(".processor.", ".")
            return (name,) if style == "diffusers" or not self.rules or self.native(name) else None
        if style == "native":
            return self.ours(name) or ((name,) if self.native(name) else None)
        if style == "kohya":
            found = self._looked_up(name, self._from_native_flat)
            if found:
                return found
        return self._looked_up(name, self._from_ours_flat)

    def _text_place(self, stem: str) -> Place | None:
        for part, prefix in self.text_kohya.items():
            if stem.startswith(prefix) or (part == "text_encoder" and stem.startswith("lora_te_")):
                name = _unflattened_text(stem.removeprefix(prefix).removeprefix("lora_te_"))
                return Place(part, (name,), "text_kohya") if name else None
        for part, prefix in self.text_comfy.items():
            if stem.startswith(prefix):
                return Place(part, (stem.removeprefix(prefix),), "text_comfy")
        found = _TEXT_DIRECT.match(stem)
        return Place(found[1], (found[2],), "text") if found else None

    def _looked_up(self, name: str, patterns: Iterable[tuple[re.Pattern[str], tuple[str, ...]]]) -> tuple[str, ...] | None:
        for pattern, made in patterns:
            found = pattern.fullmatch(name)
            if found:
                return tuple(_filled(template, found.groups()) for template in made)
        return None

    @cached_property
    def _from_ours(self) -> list[tuple[re.Pattern[str], Rule]]:
        return [(_pattern(name), rule) for rule in self.rules for name in rule.ours]

    @cached_property
    def _from_native(self) -> list[tuple[re.Pattern[str], tuple[str, ...]]]:
        return [(_pattern(rule.native), rule.ours) for rule in self.rules]

    @cached_property
    def _from_native_flat(self) -> list[tuple[re.Pattern[str], tuple[str, ...]]]:
        return [(_pattern(rule.native.replace(".", "_")), rule.ours) for rule in self.rules]

    @cached_property
    def _from_ours_flat(self) -> list[tuple[re.Pattern[str], tuple[str, ...]]]:
        return [(_pattern(name.replace(".", "_")), (name,)) for rule in self.rules for name in rule.ours]


def leaf_of(key: str) -> tuple[str, str] | None:
    """(stem, leaf) of a tensor's name, the leaf in peft's spelling; None for others."""
    for ending in _BY_LENGTH:
        for mark in (f".{ending}", f"_{ending}" if ending.startswith("lora.") else ""):
            if mark and key.endswith(mark):
                stem = key.removesuffix(mark)
                # diffusers of old: `….to_out_lora.down.weight` is the first layer of `to_out`.
                return (stem + ".0" if mark[0] == "_" and stem.endswith("to_out") else stem), _LEAVES[ending]
    return None


def stems(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Layers as the file names them → its leaves → the tensor's whole name."""
    found: dict[str, dict[str, str]] = {}
    for name in names:
        parts = leaf_of(name)
        if parts:
            found.setdefault(parts[0], {})[parts[1]] = name
    return found


@lru_cache(maxsize=4096)
def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.escape(template).replace(r"\{\}", r"(\d+)"))


def _filled(template: str, numbers: tuple[str, ...]) -> str:
    for number in numbers:
        template = template.replace("{}", number, 1)
    return template


def flat(module: str) -> str:
    """The module's name as kohya's files have it."""
    return module.replace(".", "_")


def _unflattened_text(name: str) -> str | None:
    found = re.fullmatch(
        r"(text_model_)?encoder_layers_(\d+)_(self_attn|mlp)_((?:[qkv]|out)_proj|fc[12])", name
    )
    return f"text_model.encoder.layers.{found[2]}.{found[3]}.{found[4]}" if found else None
