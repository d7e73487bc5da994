"""Requests: each range sentence states the limit that is enforced; parse takes what it should."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from masuka.errors import InvalidInput
from masuka.families import FAMILIES
from masuka.requests.base import Limit, Param, Request, field, params, show_number
from masuka.requests.datasets import (
    AddPictures,
    CreateCharacter,
    CreateDataset,
    EditCaptions,
    UpdateDataset,
)
from masuka.requests.images import STANDARD_LIMITS as DRAW_LIMITS
from masuka.requests.images import DrawImages
from masuka.requests.training import STANDARD_LIMITS as TRAIN_LIMITS
from masuka.requests.training import TrainImage

# The least that each request needs; a training of one step has no room for a warm-up.
NEEDED: dict[type[Request], dict[str, Any]] = {
    CreateCharacter: {"name": "Mira", "trigger_word": "mira7x"},
    CreateDataset: {"name": "Mira", "trigger_word": "mira7x"},
    UpdateDataset: {},
    AddPictures: {"dataset_id": 1, "paths": ("a.png",)},
    EditCaptions: {"picture_ids": (1,), "action": "set"},
    TrainImage: {"dataset_id": 1, "lr_warmup_steps": 0},
    DrawImages: {"prompt": "a robot"},
}
ENTRIES = [entry for family in FAMILIES.values() for entry in family.entries]
LIMITS: list[tuple[str, type[Request], Mapping[str, Limit]]] = [
    *((cls.__name__, cls, {}) for cls in NEEDED),
    ("standard drawing", DrawImages, DRAW_LIMITS),
    ("standard training", TrainImage, TRAIN_LIMITS),
    *((f"drawing {entry.id}", DrawImages, entry.draw_limits) for entry in ENTRIES),
    *((f"training {entry.id}", TrainImage, entry.train_limits) for entry in ENTRIES),
]
NUMERIC = [
    pytest.param(cls, limits, name, id=f"{title}-{name}")
    for title, cls, limits in LIMITS
    for name, param in params(cls, limits).items()
    if param.kind in ("int", "float")
]


def parse(cls: type[Request], limits: Mapping[str, Limit], **values: Any) -> Request:
    if "lr_warmup_steps" in values:  # a training has to be longer than its warm-up
        values.setdefault("steps", params(cls, limits)["steps"].maximum)
    return cls.parse({**NEEDED[cls], **values}, limits=limits)


def outside(param: Param, bound: float, direction: int) -> float:
    if param.kind == "int":
        return int(bound) + direction * int(param.step or 1)
    return math.nextafter(bound, math.inf * direction)


@pytest.mark.parametrize(("cls", "limits", "name"), NUMERIC)
def test_range_sentence_states_what_is_enforced(
    cls: type[Request], limits: Mapping[str, Limit], name: str
) -> None:
    param = params(cls, limits)[name]
    for bound, direction in ((param.minimum, -1), (param.maximum, +1)):
        if bound is None:
            continue
        assert show_number(bound) in param.range_sentence
        taken = parse(cls, limits, **{name: bound})
        assert getattr(taken, name) == bound
        with pytest.raises(InvalidInput) as refused:
            parse(cls, limits, **{name: outside(param, bound, direction)})
        assert refused.value.field == name
        assert refused.value.hint == f"It must be {param.range_sentence}."
    assert param.minimum is not None, "every number has a lower limit"
    if param.step and param.minimum != param.maximum:
        with pytest.raises(InvalidInput, match=f"in steps of {param.step}"):
            parse(cls, limits, **{name: param.minimum + param.step / 2})
        assert getattr(parse(cls, limits, **{name: param.minimum + param.step}), name)


@pytest.mark.parametrize(("cls", "limits", "name"), NUMERIC)
def test_no_number_slips_past_its_range(cls: type[Request], limits: Mapping[str, Limit], name: str) -> None:
    has_top = params(cls, limits)[name].maximum is not None  # an id has none
    for wrong in (math.nan, math.inf, -math.inf, -(10**5000), "many", [1], *([10**400] if has_top else [])):
        with pytest.raises(InvalidInput) as refused:
            parse(cls, limits, **{name: wrong})
        assert refused.value.field == name
        assert len(refused.value.message) < 200


@pytest.mark.parametrize(("title", "cls", "limits"), LIMITS)
def test_defaults_are_within_their_ranges(
    title: str, cls: type[Request], limits: Mapping[str, Limit]
) -> None:
    values = {k: v for k, v in NEEDED[cls].items() if k != "lr_warmup_steps"}
    request = cls.parse(values, limits=limits)
    for name, param in params(cls, limits).items():
        if name in values or param.default is None:
            continue
        assert getattr(request, name) == param.default, f"{title}: {name}"
        if param.kind in ("int", "float"):
            assert param.minimum is not None and param.default >= param.minimum
            assert param.maximum is None or param.default <= param.maximum


@pytest.mark.parametrize("cls", NEEDED)
def test_parse_of_as_dict_gives_the_same_request(cls: type[Request]) -> None:
    request = parse(cls, {})
    assert cls.parse(request.as_dict()) == request
    assert cls.parse(request) == request


@pytest.mark.parametrize("cls", NEEDED)
def test_a_mapping_and_an_object_give_the_same(cls: type[Request]) -> None:
    assert cls.parse(SimpleNamespace(**NEEDED[cls])) == cls.parse(NEEDED[cls])


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.id)
def test_an_object_gets_the_familys_defaults_too(entry: Any) -> None:
    limits = entry.draw_limits
    from_object = DrawImages.parse(SimpleNamespace(prompt="a robot"), limits=limits)
    assert from_object == DrawImages.parse({"prompt": "a robot"}, limits=limits)
    assert from_object.width == params(DrawImages, limits)["width"].default


@pytest.mark.parametrize("cls", NEEDED)
def test_every_field_is_described(cls: type[Request]) -> None:
    for name, param in params(cls).items():
        assert param.help.endswith((".", "%")), name
        assert param.label[0].isupper(), name
        assert param.required == (name in NEEDED[cls] and param.default is None), name


def test_none_means_not_given() -> None:
    assert DrawImages.parse({"prompt": "a robot", "width": None}).width == 1024


def test_a_family_cannot_widen_a_range() -> None:
    limits = {"num_images": Limit(0, 100)}
    assert params(DrawImages, limits)["num_images"].range_sentence == "1 to 8"
    for wrong in (0, 9):
        with pytest.raises(InvalidInput, match=r"It must be 1 to 8\."):
            DrawImages.parse({"prompt": "a robot", "num_images": wrong}, limits=limits)


def test_a_family_narrows_choices() -> None:
    limits = {"layers": Limit(choices=("attention",), default="attention")}
    assert TrainImage.parse({"dataset_id": 1}, limits=limits).layers == "attention"
    with pytest.raises(InvalidInput, match="one of attention"):
        TrainImage.parse({"dataset_id": 1, "layers": "attention_and_mlp"}, limits=limits)
    with pytest.raises(InvalidInput, match="one of attention, attention_and_mlp"):
        TrainImage.parse({"dataset_id": 1, "layers": "none"})


@pytest.mark.parametrize(
    ("cls", "values", "field_name", "sentence"),
    [
        (TrainImage, {}, "dataset_id", "Dataset id is missing."),
        (TrainImage, {"dataset_id": 1, "lr": 1}, "lr", "There is no setting 'lr'."),
        (TrainImage, {"dataset_id": 1, "sample_prompts": ("a",) * 9}, "sample_prompts",
         "Sample prompts has 9 entries. It must have at most 8."),
        (TrainImage, {"dataset_id": 1, "learning_rate": 1e-9}, "learning_rate",
         "Learning rate is 0.000000001. It must be 0.0000001 to 1."),
        (TrainImage, {"dataset_id": 1, "steps": 5, "lr_warmup_steps": 6}, "lr_warmup_steps",
         "The warm-up takes 6 steps and the training only 5. Set the warm-up to 5 or fewer, or train for longer."),
        (AddPictures, {"dataset_id": 1, "paths": ()}, "paths", "Paths has 0 entries. It must have at least 1."),
        (AddPictures, {"dataset_id": 1, "paths": ("a\x00b",)}, "paths", "The path is empty or holds control"),
        (EditCaptions, {"picture_ids": (1,), "action": "set", "text": "x" * 2001}, "text",
         "Text has 2,001 characters. It must have at most 2,000."),
        (CreateDataset, {"name": "a", "trigger_word": "b7", "caption_template": "a robot"}, "caption_template",
         "The caption template has no {trigger}."),
        (CreateDataset, {"name": "a", "trigger_word": "b7", "class_word": " "}, "class_word",
         "The class word is empty."),
        (CreateCharacter, {"name": "a", "trigger_word": "b7", "consent": "x" * 501}, "consent",
         "The consent has 501 characters. Use 0 to 500."),
        (DrawImages, {"prompt": "ab"}, "prompt", "The prompt has 2 characters. Use 3 to 2,000."),
    ],
)  # fmt: skip
def test_refusals_are_sentences(
    cls: type[Request], values: dict[str, Any], field_name: str, sentence: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        cls.parse(values)
    assert str(refused.value).startswith(sentence)
    assert refused.value.field == field_name


def test_every_text_field_is_cleaned() -> None:
    """A canary with a NUL and an escape in each text field of each request never comes out."""
    for cls, needed in NEEDED.items():
        for name, param in params(cls).items():
            if param.kind != "text":
                continue
            if name == "blocks":  # a pattern, which lets nothing else through
                with pytest.raises(InvalidInput, match="Blocks are given as"):
                    cls.parse({**needed, name: "mi\x00"})
                continue
            canary = "mi\x00\x1b\u202era{trigger}" if "template" in name else "mi\x00\x1b\u202era"
            value = getattr(cls.parse({**needed, name: canary}), name)
            assert value == canary.replace("\x00\x1b\u202e", ""), f"{cls.__name__}.{name}"


def test_blanks_at_the_ends_of_an_edit_are_meant() -> None:
    assert EditCaptions.parse({"picture_ids": [1], "action": "prefix", "text": "photo, "}).text == "photo, "


def test_a_request_cannot_be_changed() -> None:
    request = DrawImages.parse({"prompt": "a robot"})
    with pytest.raises(Exception, match="frozen"):
        request.prompt = "another"  # type: ignore[misc]


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=50)
@given(cls=st.sampled_from(list(NEEDED)), data=st.data())
def test_any_values_parse_or_are_refused_in_words(cls: type[Request], data: st.DataObject) -> None:
    names = st.sampled_from(list(cls.model_fields)) | st.text(max_size=8)
    values = data.draw(st.dictionaries(names, ANY_JSON, max_size=4))
    try:
        request = cls.parse({**NEEDED[cls], **values})
    except InvalidInput as error:
        assert error.message and len(error.message) < 500
    else:
        assert cls.parse(request.as_dict()) == request


@settings(max_examples=40)
@given(ANY_JSON.filter(lambda value: not isinstance(value, dict)))
def test_anything_but_a_mapping_is_refused_in_words(value: Any) -> None:
    with pytest.raises(InvalidInput, match="is missing"):
        DrawImages.parse(value)


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (None, ""), (0, "0"), (1000, "1,000"), (-5, "-5"), (0.5, "0.5"), (1e-7, "0.0000001"), (2.0, "2"),
        (1e-12, "0.000000000001"), (math.nan, "nan"), (math.inf, "inf"), (10**20, "a number of about 20 digits"),
        (2**32 - 9, "4,294,967,287"),
    ],
)  # fmt: skip
def test_numbers_as_people_read_them(number: float | None, shown: str) -> None:
    assert show_number(number) == shown


def test_range_sentences() -> None:
    class Example(Request):
        low: int = field(1, help="A.", unit="px", ge=1)
        high: float = field(1.0, help="B.", le=2.5)
        both: int = field(8, help="C.", unit="steps", ge=8, le=1000, multiple_of=8)
        free: str = field("", help="D.")

    sentences = {name: param.range_sentence for name, param in params(Example).items()}
    assert sentences == {
        "low": "at least 1 px", "high": "at most 2.5", "both": "8 to 1,000 steps, in steps of 8", "free": "",
    }  # fmt: skip
    assert params(Example, {"both": Limit(64, 64)})["both"].range_sentence == "always 64 steps"
