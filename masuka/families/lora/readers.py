"""Which tools read a LoRA file, told from the names of its tensors alone.

From the naming rules that ComfyUI publishes (comfy/lora.py: the publisher's names behind
`diffusion_model.` and flattened behind `lora_unet_`, and each model's aliases), kohya's
names, and the converters of diffusers 0.42. A tool that is not known to read a family's
LoRAs is not named for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from masuka.families.lora.keys import DOWN, LOKR, MAGNITUDE, UP, leaf_of, stems
from masuka.families.lora.keys_tables import names_of

_TEXT = {"text", "text_kohya", "text_comfy"}
_COMFY = {"native", "kohya"} | _TEXT
_ALIASES = {"diffusers", "lycoris", "onetrainer"}
_STYLES: Mapping[str, Mapping[str, set[str]]] = {
    "ComfyUI": {
        "flux": _COMFY | _ALIASES | {"bare"},
        "chroma": _COMFY | _ALIASES,
        "flux2": _COMFY | _ALIASES,
        "flux3": _COMFY,
        "sd3": _COMFY | _ALIASES | {"peft"},
        "sdxl": _COMFY,
        "zimage": _COMFY | {"diffusers", "bare", "lycoris"},
        "qwenimage": _COMFY | {"diffusers", "bare", "lycoris"},
        "krea2": _COMFY | {"diffusers", "bare", "lycoris"},
    },
    "A1111 and Forge": {"sdxl": {"kohya", "text_kohya"}, "flux": {"kohya", "text_kohya"}},
    "diffusers": {
        "flux": {"diffusers", "kohya", "text", "text_kohya"},
        "chroma": {"diffusers", "kohya"},
        "flux2": {"diffusers", "native", "kohya", "peft"},
        "flux3": {"diffusers", "native"},
        "sd3": {"diffusers", "text"},
        "sdxl": {"diffusers", "kohya", "text", "text_kohya"},
        "zimage": {"diffusers", "native", "kohya"},
        "qwenimage": {"diffusers", "native", "kohya"},
        "krea2": {"diffusers", "native", "peft"},
    },
    "InvokeAI": {
        "sdxl": {"kohya", "text_kohya"},
        "flux": {"diffusers", "kohya", "onetrainer", "text_kohya"},
    },
}
_LOKR_IN_DIFFUSERS = {"flux2", "zimage"}


@dataclass(frozen=True)
class Reading:
    """How much of a file a tool reads; `unread` are layers as the file names them."""

    tool: str
    read: int
    total: int
    unread: tuple[str, ...]

    @property
    def whole(self) -> bool:
        """Whether every layer is read."""
        return self.read == self.total > 0

    @property
    def sentence(self) -> str:
        """The same in words."""
        reads, does = ("read", "do") if " and " in self.tool else ("reads", "does")
        if self.whole:
            return f"{self.tool} {reads} it."
        if not self.read:
            return f"{self.tool} {does} not read it."
        return f"{self.tool} {reads} {self.read} of {self.total} layers."


def readings(tensors: Iterable[str], family: str) -> list[Reading]:
    """What each tool that knows this family makes of a file with these tensor names."""
    kind = family.replace("-", "").replace("_", "")
    kind = "sdxl" if kind.startswith("sdxl") else kind
    names = names_of(family)
    tensors = list(tensors)
    layers = stems(tensors)
    # A tensor of no known ending is a layer that nobody is known to read.
    strange = [name for name in tensors if leaf_of(name) is None]
    made = []
    for tool, families in _STYLES.items():
        if kind not in families:
            continue
        unread = list(strange)
        for stem, leaves in layers.items():
            place = names.place(stem)
            if place is None or place.style not in families[kind] or not _knows(tool, kind, place.style, leaves):
                unread.append(stem)
        total = len(layers) + len(strange)
        made.append(Reading(tool, total - len(unread), total, tuple(unread)))
    return made


def read_by_none(found: Iterable[Reading]) -> tuple[str, ...]:
    """The layers that no tool reads."""
    lists = [set(reading.unread) for reading in found]
    return tuple(sorted(set.intersection(*lists))) if lists else ()


def _knows(tool: str, family: str, style: str, leaves: Mapping[str, str]) -> bool:
    """Whether the tool can do with this kind of layer in this style."""
    if any(leaf in leaves for leaf in LOKR):
        return tool != "diffusers" or family in _LOKR_IN_DIFFUSERS
    if DOWN not in leaves or UP not in leaves:
        return False
    if MAGNITUDE in leaves or "dora_scale" in leaves:
        # diffusers drops the column of the others, and they do not know its own vector.
        return MAGNITUDE in leaves if tool == "diffusers" else "dora_scale" in leaves
    # diffusers takes a publisher's FLUX.1 names for kohya's, which it needs to be spelt as such.
    return not (tool == "diffusers" and family == "flux" and style == "native")
