"""The page's pieces: nothing from outside becomes markup, numbers read well, forms say the limits."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masuka.families import draw_limits_of, train_limits_of
from masuka.requests import Param, params
from masuka.requests.images import DrawImages
from masuka.requests.training import TrainImage
from masuka.ui import forms, markup, words
from masuka.ui.cards import way
from masuka.ui.charts import MOST_POINTS, Point, loss_chart
from masuka.ui.images import shapes
from masuka.ui.pictures import tile
from masuka.ui.view import TABS, View


class Tags(HTMLParser):
    """The elements and attributes that a browser would see."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))


def tags(html: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = Tags()
    parser.feed(html)
    return parser.seen


HOSTILE = st.one_of(
    st.text(max_size=60),
    st.sampled_from(
        [
            "<script>alert(1)</script>",
            '"><img src=x onerror=alert(1)>',
            "' onmouseover='x",
            "${alert(1)}",
            "{{value}}",
            "\\u",
            "</textarea><b>",
        ]
    ),
)


@given(HOSTILE)
def test_nothing_typed_becomes_markup(text: str) -> None:
    pieces = [
        (markup.button(text, "x-do", confirm=text, detail=text, word=text), 1),
        (markup.go(text, query=text), 1),
        (markup.chip(text), 1),
        (markup.picture("media/item/1", text), 1),
        (markup.empty("home", text), 3),
        (markup.facts([("a", markup.esc(text) + "x")]), 4),
        (forms.field("f", TEXT, value=text, rows=3), 6),
        (forms.field("f", TEXT, value=text), 6),
        (way([("now", text, text, "")]), 8),
    ]
    for html, expected in pieces:
        found = tags(html)
        assert len(found) == expected, html
        for name, given_attributes in found:
            assert name not in ("script", "b") and not any(a.startswith("on") for a in given_attributes)


@given(HOSTILE)
def test_a_button_carries_its_payload_unchanged(text: str) -> None:
    (_, given_attributes), *_ = tags(markup.button("Do", "x-do", word=text, ids=[1, 2]))
    carried = given_attributes["data-with"]
    assert carried is not None and json.loads(carried) == {"word": text, "ids": [1, 2]}


TEXT = Param("name", "Name", "What it is called.", "text", "", False, None, None, None, (), "", "Basic")


@pytest.mark.parametrize("base", ["pocket", "flux1-dev", "flux1-schnell"])
@pytest.mark.parametrize(
    ("request_type", "limits_of"), [(TrainImage, train_limits_of), (DrawImages, draw_limits_of)]
)
def test_a_form_states_the_limits_that_are_enforced(base: str, request_type: type, limits_of) -> None:  # type: ignore[no-untyped-def]
    from masuka.families import FAMILIES

    known = {e.id for f in FAMILIES.values() for e in f.entries}
    base = base if base in known else sorted(known)[0]
    for param in params(request_type, limits_of(base)).values():
        html = forms.field("f", param)
        if param.kind in ("int", "float"):
            control = next(a for t, a in tags(html) if t == "input")
            assert control.get("min") == (None if param.minimum is None else str(param.minimum))
            assert control.get("max") == (None if param.maximum is None else str(param.maximum))
            assert not param.range_sentence or param.range_sentence[1:] in html
        if param.choices:
            offered = [a["value"] for t, a in tags(html) if t == "option"]
            assert offered == list(param.choices)
        assert f'for="f-{param.name}"' in html or 'role="switch"' in html


def test_every_field_has_its_error_line_and_help() -> None:
    for param in params(TrainImage, train_limits_of("pocket")).values():
        found = {a.get("id") for _, a in tags(forms.field("f", param))}
        assert {f"f-{param.name}", f"f-{param.name}-help", f"f-{param.name}-error"} <= found


def test_groups_hold_every_setting_once() -> None:
    described = params(TrainImage)
    groups = forms.grouped(described, ("dataset_id", "base"), "Learning")
    names = [p.name for _, members in groups for p in members]
    assert sorted([*names, "dataset_id", "base"]) == sorted(described)
    assert [title for title, _ in groups] == ["Learning", "Model", "Data", "Optimiser", "Memory", "Output"]


def test_shapes_are_sizes_that_the_base_can_draw() -> None:
    from masuka.families import FAMILIES

    for family in FAMILIES.values():
        for entry in family.entries:
            described = params(DrawImages, draw_limits_of(entry.id))
            for value, _ in shapes(described):
                width, height = map(int, value.split("x"))
                DrawImages.parse(
                    {"prompt": "a robot", "base": entry.id, "width": width, "height": height},
                    limits=draw_limits_of(entry.id),
                )


@pytest.mark.parametrize(
    ("value", "text"),
    [(1500, "1,500"), (0.0001, "0.0001"), (2.5, "2.5"), (1.0, "1"), (0.0015, "0.0015"), (1e-6, "0.000001")],
)
def test_numbers_read_well(value: float, text: str) -> None:
    assert words.number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "0 s"),
        (21.4, "21 s"),
        (130, "2 min 10 s"),
        (1980, "33 min"),
        (4800, "1 h 20 min"),
        (7200, "2 h"),
        (-3, "0 s"),
    ],
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text


def test_paces_and_sizes_read_well() -> None:
    assert words.per_step(0.18) == "180 ms/step"
    assert words.per_step(1.8) == "1.8 s/step"
    assert words.gib(0.0156) == "16 MiB"
    assert words.gib(11.24) == "11.2 GiB"
    assert words.plural(1, "picture") == "1 picture"
    assert words.plural(1024, "picture") == "1,024 pictures"


@given(st.floats(min_value=1e-7, max_value=1e9))
def test_a_number_is_never_an_exponent(value: float) -> None:
    assert "e" not in words.number(value)


@given(
    st.lists(st.tuples(st.integers(1, 10_000), st.floats(allow_nan=True, allow_infinity=True)), max_size=400)
)
def test_a_chart_takes_any_figures(rows: list[tuple[int, float]]) -> None:
    svg = loss_chart([Point(step, value) for step, value in rows], total_steps=1000)
    assert svg.startswith("<svg") and svg.endswith("</svg>")
    assert "nan" not in svg.lower() and "inf" not in svg.lower()


def test_a_long_training_is_drawn_with_few_points() -> None:
    points = [Point(step, 1 / step) for step in range(1, 10_001)]
    svg = loss_chart(points, total_steps=10_000)
    raw = re.search(r'class="raw" d="([^"]*)"', svg)
    assert raw is not None and raw.group(1).count("L") <= MOST_POINTS
    assert len(svg) < 15_000


def test_one_spike_does_not_flatten_the_curve() -> None:
    points = [Point(s, 0.2) for s in range(1, 200)] + [Point(200, 5000.0)]
    ys = [float(y) for y in re.findall(r",(\d+\.\d)", loss_chart(points, total_steps=200))]
    assert max(ys) - min(ys) < 240 and min(ys) >= 0


@given(st.text(max_size=200))
def test_any_text_is_a_view(text: str) -> None:
    assert View.parse(text).tab in TABS


@given(st.dictionaries(st.sampled_from(["tab", "character", "dataset", "run", "q", "star", "section", "since", "sums", "base"]),
                       st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=30), st.lists(st.integers(), max_size=3))))  # fmt: skip
def test_any_json_is_a_view(values: dict[str, object]) -> None:
    view = View.parse(json.dumps(values))
    assert view.tab in TABS
    assert view.character is None or view.character >= 0
    assert len(view.query) <= 200


def test_a_view_reads_what_the_page_sends() -> None:
    view = View.parse(
        '{"tab":"library","section":"queue","character":"3","q":"beach","star":"1","since":12,"sums":{"a":"b"}}'
    )
    assert (view.tab, view.section, view.character, view.query, view.starred) == (
        "library",
        "queue",
        3,
        "beach",
        True,
    )
    assert (view.since, view.sums) == (12, {"a": "b"})
    assert View.parse('{"adapter":"0"}').adapter == 0, "no LoRA is a choice"
    assert View.parse('{"adapter":""}').adapter is None


def test_a_picture_without_a_caption_says_so() -> None:
    from masuka.store.pictures import Picture

    at = "2026-01-01T00:00:00+00:00"
    shown = Picture(
        4, 1, 1, "f.png", "a<b>.png", "0" * 64, 10, 10, 10, "", at, at, scores={}, aside=False, edits={},
        caption_from="", caption_problem="",
    )  # fmt: skip
    html = tile(shown)
    assert "no caption" in html and "a&lt;b&gt;.png" in html
