"""Which families are there, what they offer, and what a broken one does: nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from masuka import pocket
from masuka.errors import InvalidInput, NotFound
from masuka.families import (
    FAMILIES,
    draw_limits_of,
    family_named,
    family_of,
    find_families,
    preset_named,
    train_limits_of,
)
from masuka.families.base import Family, Preset
from masuka.requests.base import params
from masuka.requests.images import DrawImages
from masuka.requests.training import TrainImage

BASES = [entry.id for family in FAMILIES.values() for entry in family.entries]


def install(folder: Path, name: str, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts a package with a family entry point where Python finds it."""
    (folder / f"{name}.py").write_text(source)
    about = folder / f"{name}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[masuka.families]\n{name} = {name}:Made\n")
    monkeypatch.syspath_prepend(str(folder))


def test_the_built_in_bases_are_there_and_pocket_is_first() -> None:
    assert BASES[0] == pocket.MODEL_ID
    assert {"flux1-schnell", "flux1-dev"} <= set(BASES)
    assert len(BASES) == len(set(BASES))


@pytest.mark.parametrize("base", BASES)
def test_every_base_says_what_people_and_other_tools_ask(base: str) -> None:
    """The page, the estimates and the headers of LoRA files are made of these facts."""
    family, entry = family_of(base)
    assert re.fullmatch(r"[a-z0-9.-]+", base)  # a person's own base is named behind a plus
    assert entry.title and entry.licence and entry.about.endswith(".")
    assert entry.architecture and entry.kohya_version
    if entry.folder is None:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", entry.repo) and entry.size_gib > 1
        assert entry.revision is None or re.fullmatch(r"[0-9a-f]{40}", entry.revision)
        size = entry.size
        assert size is not None and min(size.denoiser, size.text_encoders, size.autoencoder) > 10_000_000
        assert size.width * size.blocks > 0 and size.largest_text_encoder <= size.text_encoders
        # Weights in 16 bits, at least one of these a base has, take two bytes a parameter.
        assert entry.size_gib * 2**30 > 2 * size.denoiser
    guidance = draw_limits_of(base)["guidance_scale"]
    assert (entry.guidance == "none") == (guidance.minimum == guidance.maximum), "where nothing leads, one value"
    assert family.denoiser_part in ("unet", "transformer")


def test_names_that_are_not_known_are_refused() -> None:
    assert family_named("flux") is FAMILIES["flux"]
    with pytest.raises(NotFound, match="sd9"):
        family_named("sd9")
    with pytest.raises(NotFound, match="sd9"):
        family_of("sd9")


@pytest.mark.parametrize("base", BASES)
def test_every_default_of_a_base_is_within_its_limits(base: str) -> None:
    drawn = DrawImages.parse({"prompt": "a robot", "base": base}, limits=draw_limits_of(base))
    for name, param in params(DrawImages, draw_limits_of(base)).items():
        if param.minimum is not None and getattr(drawn, name) is not None:
            assert param.minimum <= getattr(drawn, name) <= (param.maximum or float("inf")), name
    trained = TrainImage.parse({"dataset_id": 1, "base": base}, limits=train_limits_of(base))
    assert trained.lr_warmup_steps <= trained.steps


@pytest.mark.parametrize(
    ("base", "values", "field"),
    [
        ("pocket", {"width": 512}, "width"),
        ("flux1-dev", {"width": 4096}, "width"),
        ("flux1-dev", {"height": 1000}, "height"),
        ("flux1-schnell", {"guidance_scale": 3.5}, "guidance_scale"),
    ],
)
def test_drawing_outside_the_limits_is_refused(base: str, values: dict[str, int], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        DrawImages.parse({"prompt": "a robot", **values}, limits=draw_limits_of(base))
    assert caught.value.field == field


PRESETS = [(e.id, p) for f in FAMILIES.values() for e in f.entries for p in e.presets]


@pytest.mark.parametrize(("base", "preset"), PRESETS, ids=lambda value: getattr(value, "name", value))
def test_every_preset_is_within_its_base_and_found_by_name(base: str, preset: Preset) -> None:
    drawn = DrawImages.parse({"prompt": "a robot", **preset.values}, limits=draw_limits_of(base))
    assert {name: getattr(drawn, name) for name in preset.values} == preset.values
    entry, found = preset_named(f" {preset.name.upper()}")
    assert (entry.id, found) == (base, preset)


def test_a_preset_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(NotFound) as caught:
        preset_named("Slow portrait")
    assert all(preset.name in caught.value.hint for _, preset in PRESETS)


@pytest.mark.parametrize(
    ("base", "values", "field"),
    [
        ("pocket", {"steps": 5000}, "steps"),
        ("pocket", {"resolution_px": 512}, "resolution_px"),
        ("pocket", {"batch_size": 33}, "batch_size"),
        ("flux1-dev", {"steps": 50}, "steps"),
        ("flux1-dev", {"rank": 2}, "rank"),
    ],
)
def test_training_outside_the_limits_is_refused(base: str, values: dict[str, int], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        TrainImage.parse({"dataset_id": 1, **values}, limits=train_limits_of(base))
    assert caught.value.field == field


def test_a_family_of_another_package_joins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = (
        "from masuka.families.base import Entry\n"
        "from masuka.families.flux import Flux\n"
        "class Made(Flux):\n"
        "    name = 'made'\n"
        "    entries = (Entry('made-1', 'Made', '', 'MIT', 'any', 1.0, 'One.'),)\n"
    )
    install(tmp_path, "made_family", source, monkeypatch)
    families, broken = find_families()
    assert "made" in families
    assert not broken
    assert families["flux"] is not families["made"]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import nothing_that_exists_here", "ModuleNotFoundError"),
        ("class Made:\n    name = 'x'\n    entries = ()", "It has no adaptable_text_encoder, add_noise, autoencoder"),
        ("from masuka.families.flux import Flux as Made", "is taken"),
        ("class Made:\n    def __init__(self):\n        raise RuntimeError('not today')", "not today"),
    ],
)
def test_a_broken_family_is_named_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, reason: str
) -> None:
    name = f"broken_{abs(hash(reason))}"
    install(tmp_path, name, source, monkeypatch)
    families, broken = find_families()
    assert list(families) == list(FAMILIES)
    assert reason in broken[name]


def test_every_family_says_everything_that_is_asked() -> None:
    asked = {*Family.__annotations__, *(n for n in vars(Family) if not n.startswith("_"))}
    for family in FAMILIES.values():
        assert all(hasattr(family, name) for name in asked)
        assert {"attention", "attention_and_mlp"} <= set(family.lora_targets)
