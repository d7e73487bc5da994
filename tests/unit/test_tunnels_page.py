"""What Settings and the header say about the link and about keys, and how often a page asks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from masuka.config import Settings
from masuka.errors import Conflict, MasukaError, RemoteUnavailable
from masuka.hosting import addresses
from masuka.hosting.addresses import Addresses
from masuka.hosting.tunnels.budget import BYTES_A_MONTH, REQUESTS_A_MONTH
from masuka.requests import Actor
from masuka.studio import Studio
from masuka.ui import keys, links, shell
from masuka.ui.build import in_a_loop
from masuka.ui.kit import BUSY_S, IDLE_S, METERED_S, Wiring, pace_s
from masuka.ui.view import View
from tests.unit.test_keys_forms import GOOD

VIEW = View(tab="settings")
LOCAL = "http://127.0.0.1:7860/"


@pytest.fixture
def studio(settings: Settings) -> Iterator[Studio]:
    with Studio.open(settings) as opened:
        yield opened


def told(studio: Studio, **values: Any) -> None:
    addresses.write(studio.workspace, Addresses(**{"address": LOCAL, **values}))


def test_the_link_is_shown_once_it_is_open(studio: Studio) -> None:
    told(studio, state="open", public_url="https://otter.example", provider="ngrok")
    shown = links.draw_link(studio, VIEW)
    assert 'href="https://otter.example"' in shown and "by ngrok" in shown
    assert "settings-close-link" in shown and "settings-open-link" not in shown
    assert "127.0.0.1" not in shown, "the owner's own door is not what collaborators get"


def test_why_there_is_no_link_is_said_and_escaped(studio: Studio) -> None:
    told(studio, state="failed", message="ngrok says <no>.", hint="Copy it again.")
    shown = links.draw_link(studio, VIEW)
    assert "ngrok says &lt;no&gt;." in shown and "Copy it again." in shown
    assert "settings-open-link" in shown


def test_a_link_on_its_way_cannot_be_asked_for_twice(studio: Studio) -> None:
    told(studio, state="opening", provider="gradio")
    assert "disabled" in links.draw_link(studio, VIEW)


def test_a_link_that_did_not_open_is_an_error_with_its_hint(studio: Studio) -> None:
    with pytest.raises(MasukaError, match="Copy it again"):
        links._outcome(Addresses(state="failed", message="No.", hint="Copy it again."))


def test_a_link_is_called_closed_only_when_the_app_says_so(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "WAIT_S", 0.1)
    with pytest.raises(Conflict, match="not running"):
        links.on_close(studio, {}, VIEW)
    told(studio, state="open", public_url="https://otter.example", provider="ngrok")
    with pytest.raises(RemoteUnavailable, match="has not closed the link yet"):
        links.on_close(studio, {}, VIEW)


@pytest.mark.parametrize(
    ("values", "warns"),
    [
        ({"requests": REQUESTS_A_MONTH * 69 // 100}, ""),
        ({"requests": REQUESTS_A_MONTH * 70 // 100}, "70%"),
        ({"bytes": BYTES_A_MONTH * 8 // 10}, "80%"),
        ({"requests": REQUESTS_A_MONTH * 2}, "200%"),
    ],
)
def test_from_seventy_per_cent_the_header_warns(values: dict[str, int], warns: str, studio: Studio) -> None:
    told(studio, state="open", public_url="https://otter.example", provider="ngrok", month="2026-11", **values)
    header = shell.draw_header(studio, View())
    assert (f"Link: {warns} of the month" in header) is bool(warns)
    assert ("allowance" in links.draw_link(studio, VIEW)) is bool(warns)


def test_only_the_owner_hears_of_links_and_keys(studio: Studio) -> None:
    told(studio, state="open", public_url="https://otter.example", requests=REQUESTS_A_MONTH)
    for role in ("editor", "viewer"):
        guest = studio.acting_as(Actor(user_id=2, role=role))  # type: ignore[arg-type]
        assert links.draw_link(guest, VIEW) == links.warning_of(guest) == ""
        assert keys.draw_keys(guest, VIEW) == keys.draw_form(guest, VIEW) == ""


def test_an_invite_leads_to_where_people_come_from(studio: Studio) -> None:
    assert studio.links.public_base() == ""
    told(studio, state="open", public_url="https://otter.example", provider="ngrok")
    assert studio.links.public_base() == "https://otter.example/"
    told(studio, state="closed")
    assert studio.links.public_base() == ""


def test_keys_show_their_end_and_a_test_where_one_is_possible(studio: Studio) -> None:
    for name in ("HF_TOKEN", "NGROK_AUTHTOKEN"):
        studio.preferences.set_key(name, GOOD[name])
    shown = keys.draw_keys(studio, VIEW)
    assert GOOD["HF_TOKEN"] not in shown and f"…{GOOD['HF_TOKEN'][-4:]}" in shown
    assert 'id="test-hf_token"' in shown
    assert 'id="test-ngrok_authtoken"' in shown
    assert 'id="test-cloudflared_token"' not in shown and 'id="test-fal_key"' not in shown


def test_a_page_asks_less_through_a_metered_link(studio: Studio) -> None:
    assert pace_s(busy=True, metered=False) == BUSY_S
    assert pace_s(busy=True, metered=True) == METERED_S >= 10
    assert pace_s(busy=False, metered=True) == pace_s(busy=False, metered=False) == IDLE_S >= 30
    wiring = Wiring(studio, [])

    def put() -> None:
        with gr.Blocks() as page:
            wiring.bind(page)

    in_a_loop(put)
    for metered in (False, True):
        scope = {"actor": studio.actor, **({"metered": True} if metered else {})}
        answer = wiring.on_look(json.dumps({}), SimpleNamespace(request=SimpleNamespace(scope=scope)))  # type: ignore[arg-type]
        assert ("data-metered" in answer[0]) is metered
