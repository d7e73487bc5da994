"""The model families that are there: MASUKA's own, and those of installed packages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import entry_points

from masuka.errors import NotFound
from masuka.families.base import OWN, Entry, Family, Preset, parent_of
from masuka.families.chroma import Chroma
from masuka.families.flux import Flux
from masuka.families.flux2 import Flux2
from masuka.families.flux3 import Flux3
from masuka.families.krea2 import Krea2
from masuka.families.parts.weights import release
from masuka.families.qwen_image import QwenImage
from masuka.families.sd3 import Sd3
from masuka.families.sdxl import Sdxl, SdxlEdm, SdxlVelocity
from masuka.families.zimage import ZImage
from masuka.requests.base import Limit

GROUP = "masuka.families"
"""The entry-point group under which an installed package offers a Family class."""
BUILT_IN: tuple[Callable[[], Family], ...] = (
    Flux,
    Sdxl,
    SdxlVelocity,
    SdxlEdm,
    Sd3,
    Flux2,
    ZImage,
    QwenImage,
    Chroma,
    Krea2,
    Flux3,
)
"""MASUKA's own families, in the order in which people see them."""
NEEDS_DIFFUSERS = {"flux3": (0, 42)}
"""The first release that has the models of a family, where that is not the oldest one allowed."""


def find_families() -> tuple[dict[str, Family], dict[str, str]]:
    """Families by name, and the reason by name for those that could not be loaded.

    A package's family never replaces one of MASUKA's own and never stops the start.
    """
    families: dict[str, Family] = {family.name: family for family in (make() for make in BUILT_IN)}
    broken: dict[str, str] = {}
    for name, needed in NEEDS_DIFFUSERS.items():
        if (there := release("diffusers")) < needed:
            del families[name]
            wanted, found = (".".join(map(str, numbers)) for numbers in (needed, there))
            broken[name] = f"It needs diffusers {wanted}, and {found} is installed."
    for point in entry_points(group=GROUP):
        try:
            family: Family = point.load()()
            problem = _problem(family, families)
        except Exception as error:  # noqa: BLE001 (somebody else's code; the reason is kept and shown)
            problem = f"{type(error).__name__}: {error}"
        if problem:
            broken[point.name] = problem
        else:
            families[family.name] = family
    return families, broken


def _problem(family: Family, known: Mapping[str, Family]) -> str:
    """Why this family cannot join the known ones, '' when it can."""
    asked = [*Family.__annotations__, *(n for n in vars(Family) if not n.startswith("_"))]
    missing = sorted({name for name in asked if not hasattr(family, name)})
    if missing:
        return f"It has no {', '.join(missing)}."
    bases = {entry.id for other in known.values() for entry in other.entries}
    if family.name in known or bases & {entry.id for entry in family.entries}:
        return f"The name {family.name!r} or one of its bases is taken."
    return ""


FAMILIES, broken = find_families()


def family_named(name: str) -> Family:
    """The family of that name; raises NotFound."""
    if name not in FAMILIES:
        raise NotFound(f"There is no model family named {name!r}.", f"Known are: {', '.join(FAMILIES)}.")
    return FAMILIES[name]


def family_of(base_id: str) -> tuple[Family, Entry]:
    """The family and the catalogue entry of a base model; raises NotFound.

    A person's own base (`sdxl+my-film-look`) has the facts of the entry that it is made from,
    but neither its repository nor its folder: the store knows where it lies.
    """
    for family in FAMILIES.values():
        for entry in family.entries:
            if entry.id == base_id:
                return family, entry
            if entry.id == parent_of(base_id):
                own = base_id.partition(OWN)[2]
                return family, replace(
                    entry, id=base_id, title=own, repo="", revision=None, folder=None, gated=False, presets=()
                )
    known = ", ".join(entry.id for family in FAMILIES.values() for entry in family.entries)
    raise NotFound(f"There is no base model {base_id!r}.", f"Known are: {known}.")


def drawing_bases(base_id: str) -> tuple[str, ...]:
    """The bases that draw a LoRA of this one: itself, and those distilled from it."""
    family, _ = family_of(base_id)
    return (base_id, *(e.id for e in family.entries if parent_of(base_id) in e.draws_adapters_of))


def preset_named(name: str) -> tuple[Entry, Preset]:
    """The preset of that name, whatever its case, with its base; raises NotFound."""
    known = [(entry, p) for f in FAMILIES.values() for entry in f.entries for p in entry.presets]
    for entry, preset in known:
        if preset.name.casefold() == " ".join(name.split()).casefold():
            return entry, preset
    names = ", ".join(preset.name for _, preset in known)
    raise NotFound(f"There is no preset {name!r}.", f"Known are: {names}.")


def draw_limits_of(base_id: str) -> Mapping[str, Limit]:
    """Ranges and defaults for drawing with a base, for `DrawImages.parse(limits=…)`."""
    return family_of(base_id)[1].draw_limits


def train_limits_of(base_id: str) -> Mapping[str, Limit]:
    """Ranges and defaults for training on that base, for `TrainImage.parse(limits=…)`."""
    return family_of(base_id)[1].train_limits
