"""The LoRAs' part of the page: who sees what, and what a bad answer leads to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from masuka.config import Settings
from masuka.errors import InvalidInput, NotAllowed
from masuka.requests import Actor
from masuka.studio import Studio
from masuka.ui import adapters
from masuka.ui.view import View
from tests.unit.test_adapter_studio import brought

LISTED = View(tab="library", section="models")


@pytest.fixture
def studio(settings: Settings) -> Iterator[Studio]:
    with Studio.open(settings) as opened:
        yield opened


def test_the_page_offers_what_each_person_may_do(studio: Studio, tmp_path: Path) -> None:
    adapter = brought(studio, tmp_path, "A <b> look")
    chosen = View(tab="library", section="models", adapter=adapter.id)
    assert "A &lt;b&gt; look" in adapters.draw_list(studio, LISTED) and "<b>" not in adapters.draw_list(studio, LISTED)
    one = adapters.draw_one(studio, chosen)
    assert "LoRA of rank 3, 2 layers" in one and "library-adapter-bake" in one
    assert "From a path of this machine" in adapters.draw_bring(studio, LISTED)
    editor, viewer = (studio.acting_as(Actor(user_id=1, role=role)) for role in ("editor", "viewer"))
    assert "library-adapter-bake" not in adapters.draw_one(editor, chosen)
    assert "library-adapter-merge" not in adapters.draw_one(viewer, chosen)
    assert "From a path" not in adapters.draw_bring(editor, LISTED)
    assert adapters.draw_bring(viewer, LISTED) == ""
    elsewhere = View(tab="library", section="pictures", adapter=adapter.id)
    assert adapters.draw_one(studio, elsewhere) == adapters.draw_work(studio, elsewhere) == ""


def test_what_one_base_knows_beyond_another_is_offered_where_there_are_two(studio: Studio, tmp_path: Path) -> None:
    assert "adapter-extract" not in adapters.draw_bring(studio, LISTED)
    adapter = brought(studio, tmp_path)
    studio.jobs.wait(studio.adapters.bake(adapter_id=adapter.id, name="Film"))
    assert "adapter-extract" in adapters.draw_bring(studio, LISTED)
    work = adapters.draw_work(studio, LISTED)
    assert "Look at the base" in work


def test_a_file_that_is_gone_is_said(studio: Studio, tmp_path: Path) -> None:
    adapter = brought(studio, tmp_path)
    studio.workspace.resolve(adapter.path).unlink()
    chosen = View(tab="library", section="models", adapter=adapter.id)
    assert "is gone. Train it again or delete it." in adapters.draw_one(studio, chosen)
    assert adapters.draw_work(studio, chosen) == ""


def test_wrong_answers_are_refused(studio: Studio, tmp_path: Path) -> None:
    adapter = brought(studio, tmp_path)
    with pytest.raises(InvalidInput, match="nothing to merge it with"):
        adapters.on_merge(studio, {"id": adapter.id, "values": {}}, LISTED)
    with pytest.raises(InvalidInput, match="A weight is no number"):
        adapters.on_merge(studio, {"id": adapter.id, "values": {"other": "1", "weight": "much"}}, LISTED)
    with pytest.raises(NotAllowed):
        adapters.on_bring(studio.acting_as(Actor(user_id=1, role="editor")), {"values": {"path": "/etc/passwd"}}, LISTED)
    with pytest.raises(InvalidInput, match="This upload is unknown"):
        adapters.on_sent(studio, {"batch": "../x"}, LISTED)
