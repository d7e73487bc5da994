"""The tiles of a set: pages that never show a picture twice, copies folded, texts escaped."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from masuka.config import Settings
from masuka.datasets.measures import measure
from masuka.errors import Conflict, InvalidInput
from masuka.store import findings, pictures, runs
from masuka.studio import Studio
from masuka.ui import doctor, intake
from masuka.ui import pictures as page
from masuka.ui.datasets import draw_settings
from masuka.ui.kit import Outcome
from masuka.ui.picture import side_of_picture
from masuka.ui.view import View

COUNT = 150


@pytest.fixture
def studio(settings: Settings) -> Iterator[Studio]:
    with Studio.open(settings) as opened:
        dataset = opened.datasets.create(name="Many", trigger_word="many1")
        scores = measure(Image.effect_noise((64, 64), 60).convert("RGB"), width=600, height=600)
        for number in range(COUNT):
            pictures.add_picture(
                opened.store, actor=opened.actor, dataset_id=dataset.id, file=f"datasets/00001/{number}.png",
                original_name=f"{number}.png", sha256=f"{number:064x}", width=600 + number % 7, height=600, bytes=1,
                caption='many1 <b onload="x">' if number == 0 else "many1", scores={**scores, "sharpness": number % 11 / 10},
            )  # fmt: skip
        rows = [
            {
                "sha256": f"{n:064x}",
                "kind": "near_duplicate",
                "severity": "bad",
                "other_sha256": f"{n - 1:064x}",
            }
            for n in (6, 7, 61)
        ] + [{"sha256": f"{n:064x}", "kind": "blurred", "severity": "bad"} for n in range(20, 100)]
        findings.set_findings(opened.store, actor=opened.actor, dataset_id=dataset.id, rows=rows)
        yield opened


def ids(html: str) -> list[int]:
    return [int(id) for id in re.findall(r'<figure[^>]* data-id="(\d+)"', html)]


def test_pages_show_each_picture_once_and_all_of_them(studio: Studio) -> None:
    for only, sort in itertools.product(("kept", "doubtful"), dict(page.SORTS)):
        first = page.draw_pictures(studio, View(tab="datasets", dataset=1, sort=sort, only=only))
        shown, following = ids(first), re.findall(r'data-more="([^"]+)"', first)
        assert following, f"{only} by {sort} fits no one page"
        while following and following[0]:
            after = int(re.findall(r"after=(\d+)", following[0])[0])
            tiles, address = page.more_pictures(studio, 1, after, only, sort)
            shown, following = shown + ids(tiles), [address]
        expected = [p.id for p in studio.datasets.pictures(1, limit=1000, only=only, sort=sort)]
        assert sorted(shown) == sorted(expected) and len(set(shown)) == len(shown), f"{only} by {sort}"


def test_copies_lie_behind_the_better_picture(studio: Studio) -> None:
    html = page.draw_pictures(studio, View(tab="datasets", dataset=1))
    assert re.search(r'data-unfold="6"[^>]*>2 copies<', html)  # 7 is like 6, and 8 like 7
    behind = re.findall(r'<figure[^>]* data-id="(\d+)"[^>]* data-behind="(\d+)" hidden', html)
    assert ("7", "6") in behind and ("8", "6") in behind
    assert "data-behind" not in page.draw_pictures(
        studio, View(tab="datasets", dataset=1, only="near_duplicate")
    )
    studio.datasets.set_aside([6])
    assert 'data-unfold="7"' in page.draw_pictures(studio, View(tab="datasets", dataset=1))


def test_what_is_typed_is_text(studio: Studio) -> None:
    html = page.draw_pictures(studio, View(tab="datasets", dataset=1))
    assert "<b onload" not in html and "&lt;b onload" in html


def test_filters_have_counts_and_nonsense_is_the_usual(studio: Studio) -> None:
    html = page.draw_pictures(studio, View(tab="datasets", dataset=1, only="<script>", sort="'; drop"))
    assert re.search(r'aria-current="true">All kept <span>150</span>', html)
    assert "Blurred <span>80</span>" in html and "<script" not in html


def test_a_remedy_for_all_and_its_way_back(studio: Studio) -> None:
    outcome = doctor.on_remedy(studio, {"id": 1, "kind": "blurred"}, View())
    assert outcome.say == "80 pictures set aside." and outcome.undo is not None
    assert studio.doctor.report(1).aside == 80
    assert page.on_aside(studio, outcome.undo[1], View()).say == "80 pictures taken back."
    assert studio.doctor.report(1).aside == 0
    with pytest.raises(InvalidInput):
        doctor.on_remedy(studio, {"id": 1, "kind": "ugly"}, View())


def test_a_crop_of_all_and_its_way_back(studio: Studio) -> None:
    for id in (3, 4):
        file = studio.workspace.resolve(studio.datasets.picture(id).file)
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        drawn = Image.new("L", (1800, 600), 128)
        drawn.paste(Image.linear_gradient("L").resize((400, 400)), (700, 100))
        drawn.save(file)
    studio.edits.set(3, turn=90)
    rows = [{"sha256": f"{n - 1:064x}", "kind": "narrow", "severity": "doubtful"} for n in (3, 4)]
    findings.set_findings(studio.store, actor=studio.actor, dataset_id=1, rows=rows)
    outcome = doctor.on_remedy(studio, {"id": 1, "kind": "narrow"}, View())
    assert outcome.say == "2 pictures cropped." and outcome.undo is not None
    assert studio.edits.recipe(4).crop is not None
    page.on_edit(studio, outcome.undo[1], View())
    assert studio.edits.recipe(4).crop is None
    assert (studio.edits.recipe(3).turn, studio.edits.recipe(3).crop) == (90, None)


def test_nothing_is_called_empty_while_it_fills(studio: Studio) -> None:
    new = studio.datasets.create(name="New", trigger_word="new1")
    view = View(tab="datasets", dataset=new.id)
    assert "No pictures yet" in intake.draw_add(studio, view)
    studio.datasets.add_links(new.id, "https://example.com/a.png")
    assert "No pictures yet" not in intake.draw_add(studio, view)


def test_the_best_stay_and_are_taken_back(studio: Studio) -> None:
    studio.datasets.set_aside([1])
    outcome = doctor.on_best(studio, {"id": 1}, View())
    assert outcome.undo is not None and studio.doctor.report(1).kept == doctor.BEST
    page.on_aside(studio, outcome.undo[1], View())
    assert studio.doctor.report(1).kept == COUNT - 1  # the one that was set aside before stays so


def test_a_caption_of_the_viewer_is_not_written_over_another_ones(studio: Studio) -> None:
    view, shown = View(tab="datasets", dataset=1), studio.datasets.pictures(1)[1]

    def save(text: str, before: str) -> Outcome:
        return page.on_caption(studio, {"id": shown.id, "values": {"caption": text, "before": before}}, view)

    assert 'name="before" value="many1"' in side_of_picture(studio, shown.id)
    outcome = save("mine", "many1")
    assert outcome.fill == {"form": f"picture-{shown.id}", "values": {"before": "mine"}}
    with pytest.raises(Conflict, match=r"meanwhile.*save again"):
        save("late", "many1")
    assert studio.datasets.picture(shown.id).caption == "mine"
    assert save("late", "mine").say == "Caption saved."


def test_before_a_set_goes_it_is_said_which_trainings_need_it(studio: Studio) -> None:
    view = View(tab="datasets", dataset=1, part="settings")
    assert "repeated" not in draw_settings(studio, view)
    for name in ("one", "two"):
        runs.add_run(
            studio.store, actor=studio.actor, name=name, base="pocket", family="pocket", dataset_id=1, config={},
            folder=name,
        )  # fmt: skip
    assert draw_settings(studio, view).count("2 trainings learnt from these pictures and cannot be repeated") == 2
