"""The caption table's rows, what it saves, and who may change what; export and the trainer's view."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import pytest

from masuka.config import Settings
from masuka.errors import AccessDenied, InvalidInput, NotAllowed, NotFound
from masuka.requests import Actor
from masuka.store import pictures, users
from masuka.studio import Studio
from masuka.ui import captioning, captions, exporting, sheet
from masuka.ui.captions import Shown
from masuka.ui.pictures import thumbnail
from masuka.ui.roles import without_forbidden
from masuka.ui.view import View


@pytest.fixture
def studio(settings: Settings) -> Iterator[Studio]:
    with Studio.open(settings) as opened:
        opened.datasets.create(name="Set", trigger_word="mira7x", class_word="robot")
        yield opened


def add(studio: Studio, *texts: str) -> list[int]:
    ids = []
    for number, text in enumerate(texts):
        added = pictures.add_picture(
            studio.store, actor=studio.actor, dataset_id=1, file="nowhere.png", original_name=f"{number}.png",
            sha256=hashlib.sha256(f"{number}".encode()).hexdigest(), width=400, height=200, bytes=1, caption=text,
        )  # fmt: skip
        assert added is not None
        ids.append(added.id)
    return ids


def viewer(studio: Studio) -> Studio:
    made = users.add_user(studio.store, actor=studio.actor, username="looker", role="viewer")
    studio.people.share(made.id, "all")
    return studio.acting_as(Actor(made.id, "viewer", made.username))


def test_rows_come_in_pages_that_miss_none(studio: Studio) -> None:
    ids = add(studio, *(f"mira7x {n}" for n in range(captions.PAGE * 2 + 1)))
    seen, after, following = 0, 0, 0
    for shown in (Shown(1), Shown(1, "MIRA")):
        seen, after = 0, 0
        while True:
            body, following, total = captions.more_rows(studio, shown, after)
            seen += body.count('role="row"')
            assert total == len(ids)
            if following is None:
                break
            after = following
        assert seen == len(ids)


def test_a_row_is_text_and_knows_when_it_changed(studio: Studio) -> None:
    (picture_id,) = add(studio, "<img src=x onerror=alert(1)> ${7*7} mira7x")
    before, _, _ = captions.more_rows(studio, Shown(1), 0)
    assert "<img src=x" not in before and "&lt;img src=x onerror=alert(1)&gt; ${7*7} mira7x" in before
    studio.datasets.set_caption(picture_id, "mira7x")
    after, _, _ = captions.more_rows(studio, Shown(1), 0)
    assert before.split('data-v="')[1][:8] != after.split('data-v="')[1][:8]


def test_a_row_shows_the_picture_as_it_is_edited(studio: Studio) -> None:
    (picture_id,) = add(studio, "mira7x")
    before, _, _ = captions.more_rows(studio, Shown(1), 0)
    studio.edits.set(picture_id, turn=90)
    after, _, _ = captions.more_rows(studio, Shown(1), 0)
    shown = thumbnail(studio.datasets.picture(picture_id)).replace("&", "&amp;")
    assert shown in after and shown not in before  # an address that is kept for a day


def test_only_problems_are_those_of_the_doctor_and_of_captioners(studio: Studio) -> None:
    ids = add(studio, "mira7x well", "", "no word of it", "mira7x but")
    pictures.set_told_caption(
        studio.store, actor=studio.actor, id=ids[3], caption=None, caption_from="", problem="It was refused."
    )
    marks = captions.problems_of(studio, 1)
    assert set(marks) == set(ids[1:]) and marks[ids[3]][0] == "It was refused."
    assert list(captions.chosen(studio, Shown(1, only_problems=True), marks)) == ids[1:]
    studio.datasets.set_aside([ids[1], ids[3]])
    assert set(captions.problems_of(studio, 1)) == {ids[2]}


def test_what_is_set_aside_is_not_asked_for_again(studio: Studio) -> None:
    (one,) = add(studio, "mira7x")
    pictures.set_told_caption(
        studio.store, actor=studio.actor, id=one, caption=None, caption_from="", problem="It was refused."
    )
    view = View(tab="datasets", dataset=1, part="captions")
    assert "1 picture could not be captioned" in captioning.draw_captioning(studio, view)
    studio.datasets.set_aside([one])
    assert captioning.draw_captioning(studio, view) == ""


def test_a_caption_is_saved_once_and_not_over_another_ones(studio: Studio) -> None:
    (picture_id,) = add(studio, "before")
    saved = captions.save(studio, picture_id, {"text": " mine  now ", "before": "before"})
    assert saved == {"caption": "mine now", "from": "a person"}
    assert captions.save(studio, picture_id, {"text": "mine now", "before": "before"})["caption"] == "mine now"
    lost = captions.save(studio, picture_id, {"text": "late", "before": "before"})
    assert lost["conflict"] and lost["caption"] == "mine now"
    assert studio.datasets.picture(picture_id).caption == "mine now"
    with pytest.raises(InvalidInput):
        captions.save(studio, picture_id, {"text": 7})
    with pytest.raises(InvalidInput, match="2,001 characters"):
        captions.save(studio, picture_id, {"text": "x" * 2001})
    with pytest.raises(NotFound):
        captions.save(studio, 999, {"text": "x"})
    with pytest.raises(NotAllowed):
        captions.save(viewer(studio), picture_id, {"text": "x"})


def test_many_are_changed_where_nothing_is_selected(studio: Studio) -> None:
    ids = add(studio, "mira7x in red", "mira7x in blue", "red")
    assert captions.found_in(studio, Shown(1), "red") == 2
    assert captions.found_in(studio, Shown(1, "mira7x"), "red") == 1
    assert captions.found_in(studio, Shown(1), "") == 0
    payload = {"id": 1, "q": "mira7x", "action": "replace", "values": {"find": "red", "text": "green"}}
    outcome = captions.on_edit(studio, payload, View())
    assert outcome.say == "1 caption changed." and outcome.undo is not None
    assert [studio.datasets.picture(i).caption for i in ids] == ["mira7x in green", "mira7x in blue", "red"]
    assert captions.on_edit(studio, payload, View()).undo is None  # nothing was found, nothing to undo
    assert "as before" in captions.on_undo(studio, {"id": 1}, View()).say
    assert studio.datasets.picture(ids[0]).caption == "mira7x in red"
    with pytest.raises(InvalidInput, match="No caption is meant"):
        captions.on_edit(studio, {**payload, "q": "nowhere"}, View())


def test_a_viewer_sees_captions_and_no_way_to_change_them(studio: Studio) -> None:
    add(studio, "mira7x")
    theirs = viewer(studio)
    view = View(dataset=1, part="captions")
    frame = captions.draw_captions(theirs, view)
    assert 'aria-readonly="true"' in frame and "data-tool" not in frame and "data-do" not in frame
    assert "data-do" not in exporting.draw_export(theirs, View(dataset=1, part="export"))
    assert "download/dataset/1" in exporting.draw_export(theirs, View(dataset=1, part="export"))
    assert "data-do" not in without_forbidden(captioning.panel(theirs, 1), theirs.actor)
    assert "mira7x" in sheet.draw_sheet(theirs, View(dataset=1, part="trainer"))


def test_the_frame_stays_the_same_while_captions_change(studio: Studio) -> None:
    (picture_id,) = add(studio, "mira7x")
    view = View(dataset=1, part="captions")
    before = captions.draw_captions(studio, view)
    studio.datasets.set_caption(picture_id, "another")
    assert captions.draw_captions(studio, view) == before != ""
    assert captions.draw_captions(studio, View(dataset=1)) == ""


def test_the_trainers_view_takes_only_resolutions_that_the_base_has(studio: Studio) -> None:
    add(studio, "{trigger} at sea", "long " * 120)
    drawn = sheet.draw_sheet(studio, View(dataset=1, part="trainer", base="pocket", px=99_999))
    assert "128 × 128" in drawn and "mira7x at sea" in drawn and "50% cut off" in drawn
    assert "1 caption is longer than about 31 tokens" in drawn
    tiles, following = sheet.more_sheet(studio, 1, "flux1-dev", 512, 1)
    assert tiles.count("<figure") == 1 and following == ""


def test_a_set_is_not_sent_without_licence_consent_and_token(studio: Studio) -> None:
    add(studio, "mira7x")
    values: dict[str, Any] = {"repo": "mira/portraits", "private": True, "consent": "Nobody real."}
    with pytest.raises(InvalidInput, match="how others may use"):
        exporting.on_push(studio, {"id": 1, "values": values}, View())
    with pytest.raises(InvalidInput, match="who agreed"):
        without = {**values, "licence": "mit", "consent": ""}
        exporting.on_push(studio, {"id": 1, "values": without}, View())
    with pytest.raises(AccessDenied, match="no Hugging Face token"):
        exporting.on_push(studio, {"id": 1, "values": {**values, "licence": "mit"}}, View())
    studio.preferences.set_key("HF_TOKEN", "hf_" + "a" * 34)
    assert "There is no Hugging Face token" not in exporting.draw_export(studio, View(dataset=1, part="export"))
