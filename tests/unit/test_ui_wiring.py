"""How the page is built: few blocks, private events, no state, and never torch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from masuka.config import Settings
from masuka.errors import InvalidInput, MasukaError
from masuka.requests import Actor
from masuka.studio import Studio
from masuka.ui import build as built
from masuka.ui.kit import Outcome, Region, Tab, Wiring, ids_of, values_of
from masuka.ui.view import View

ROOT = Path(__file__).parents[2]


@pytest.fixture
def studio(settings: Settings) -> Iterator[Studio]:
    with Studio.open(settings) as opened:
        yield opened


@pytest.fixture
def page(studio: Studio) -> gr.Blocks:
    return built.build(studio)


def request_of(actor: Actor | None) -> Any:
    return SimpleNamespace(request=SimpleNamespace(scope={"actor": actor}))


def test_the_page_has_few_blocks(page: gr.Blocks) -> None:
    assert len(page.blocks) <= 500


def test_every_event_is_private_and_none_streams(page: gr.Blocks) -> None:
    assert page.fns
    for event in page.fns.values():
        assert event.api_visibility == "private", event.name
        assert not event.inputs_as_dict
    assert page.config["dependencies"]


def test_only_actions_are_queued(page: gr.Blocks) -> None:
    queued = {f.name for f in page.fns.values() if f.queue}
    assert queued == {"on_perform"}


def test_nothing_on_the_page_holds_a_connection_or_state(page: gr.Blocks) -> None:
    kinds = {type(b).__name__ for b in page.blocks.values()}
    assert "State" not in kinds
    targets = {t[1] for f in page.fns.values() for t in f.targets}
    assert targets <= {"tick", "click", "load"}


def test_one_timer(page: gr.Blocks) -> None:
    assert len([b for b in page.blocks.values() if isinstance(b, gr.Timer)]) == 1


def test_ids_are_unique_and_named_after_their_tab(page: gr.Blocks) -> None:
    ids = [i for b in page.blocks.values() if (i := getattr(b, "elem_id", None))]
    assert len(ids) == len(set(ids))
    known = {"shell", "page", *(t.name for t in built.TABS)}
    assert all(i.split("-")[0] in known for i in ids)


def test_a_template_of_gradio_never_sees_user_text(page: gr.Blocks) -> None:
    for block in page.blocks.values():
        if isinstance(block, gr.HTML):
            assert block.html_template == "${value}" and not block.css_template
    assert {f.name for f in page.fns.values() if f.fn} == {"on_look", "on_perform"}


def test_importing_the_page_does_not_load_torch() -> None:
    code = "import sys, app, masuka.ui.build, masuka.ui.routes; print([m for m in ('torch','diffusers','transformers') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_a_look_draws_the_tab_that_is_shown_and_skips_what_was_seen(studio: Studio) -> None:
    drawn: list[str] = []

    def draw(name: str) -> Any:
        return lambda studio, view: drawn.append(name) or f"<p>{name}</p>"

    tabs = [
        Tab(n, n, [[Region("body", draw(n)), Region("form", draw(f"{n} form"), live=False)]], {})
        for n in ("home", "images")
    ]
    wiring = Wiring(studio, tabs)

    def put() -> None:
        with gr.Blocks() as page:
            for tab in tabs:
                for region in tab.regions:
                    wiring.place(region, tab.name)
            wiring.bind(page)

    built.in_a_loop(put)
    first = wiring.on_look(json.dumps({"tab": "images", "since": -1}), request_of(studio.actor))
    assert drawn == ["images", "images form"]
    html = [o for o in first if isinstance(o, str) and "data-sum" in o]
    sums = {
        "images-body": html[0].split('data-sum="')[1][:8],
        "images-form": html[1].split('data-sum="')[1][:8],
    }
    again = wiring.on_look(
        json.dumps({"tab": "images", "since": studio.changes(), "sums": sums}), request_of(studio.actor)
    )
    assert drawn == ["images", "images form"]
    assert not [o for o in again if isinstance(o, str) and "data-sum" in o]
    studio.characters.create(name="Mira", trigger_word="mira7x")
    wiring.on_look(json.dumps({"tab": "images", "since": 0, "sums": sums}), request_of(studio.actor))
    assert drawn == ["images", "images form", "images"]  # the form keeps what is typed into it


def answer_of(wiring: Wiring, actor: Actor | None, **asked: Any) -> dict[str, Any]:
    from html import unescape

    html = wiring.on_perform(json.dumps(asked), request_of(actor))
    parsed: dict[str, Any] = json.loads(unescape(html.split('data-answer="')[1].split('"')[0]))
    return parsed


@pytest.fixture
def wiring(studio: Studio) -> Wiring:
    def refuse(studio: Studio, payload: Any, view: View) -> Outcome:
        raise InvalidInput("Steps is 5.", "It must be 10 to 4,000.", field="steps")

    def break_down(studio: Studio, payload: Any, view: View) -> Outcome:
        raise ZeroDivisionError("secret detail")

    def work(studio: Studio, payload: Any, view: View) -> Outcome:
        return Outcome(f"Done <b>{payload['word']}</b>", go={"run": 3})

    return Wiring(studio, [Tab("home", "Home", [], {"refuse": refuse, "break": break_down, "work": work})])


def test_an_action_answers_with_its_sentence_and_where_to_go(wiring: Wiring, studio: Studio) -> None:
    answer = answer_of(wiring, studio.actor, do="home-work", payload={"word": "x"})
    assert (answer["ok"], answer["say"], answer["go"]) == (True, "Done <b>x</b>", {"run": 3})


def test_a_refusal_names_its_field_and_form(wiring: Wiring, studio: Studio) -> None:
    answer = answer_of(wiring, studio.actor, do="home-refuse", payload={}, form="training-form")
    assert not answer["ok"]
    assert (answer["field"], answer["form"], answer["hint"]) == (
        "steps",
        "training-form",
        "It must be 10 to 4,000.",
    )


def test_a_bug_shows_a_reference_and_logs_the_rest(
    wiring: Wiring, studio: Studio, caplog: pytest.LogCaptureFixture
) -> None:
    answer = answer_of(wiring, studio.actor, do="home-break", payload={})
    assert not answer["ok"] and "secret detail" not in answer["say"]
    reference = answer["say"].split("Reference ")[1].split(",")[0]
    assert reference in caplog.text and "secret detail" in caplog.text


def test_without_the_gate_nothing_is_done_or_shown(wiring: Wiring) -> None:
    assert answer_of(wiring, None, do="home-work", payload={"word": "x"})["ok"] is False
    pulse, *_ = wiring.on_look("{}", request_of(None))
    assert "Not signed in" in pulse


@pytest.mark.parametrize("asked", [{"do": "no-such"}, {"do": "home-work", "payload": 3}, {"do": None}, {}])
def test_what_is_not_an_action_is_refused(wiring: Wiring, studio: Studio, asked: dict[str, Any]) -> None:
    assert answer_of(wiring, studio.actor, **asked)["ok"] is False


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '"x"', "x" * 300_000])
def test_any_text_gets_an_answer(wiring: Wiring, studio: Studio, text: str) -> None:
    assert "data-answer" in wiring.on_perform(text, request_of(studio.actor))


def test_payload_readers_refuse_what_they_cannot_read() -> None:
    assert ids_of({"ids": [3, "4"]}) == [3, 4]
    for wrong in ({}, {"ids": []}, {"ids": ["x"]}, {"ids": [None]}, {"ids": "-1"}):
        with pytest.raises(MasukaError):
            ids_of(wrong)
    assert values_of({"values": {"a": "", "b": 0, "c": False}}) == {"b": 0, "c": False}
    with pytest.raises(MasukaError):
        values_of({})


def test_every_action_of_a_button_exists(studio: Studio) -> None:
    """Each `data-do` in the source names an action that the page can perform."""
    import re

    known = set(Wiring(studio, built.TABS).actions)
    source = "\n".join(p.read_text() for p in Path(built.__file__).parent.glob("*.py"))
    named = set(
        re.findall(r'button\([^()]*?"((?:home|datasets|training|images|library|settings)-[a-z-]+)"', source)
    )
    assert named and named - known == set()


def keyed(studio: Studio, key: str, do: str, **payload: Any) -> dict[str, Any]:
    """The answer of a page that was started anew, so that it remembers nothing itself."""
    return answer_of(Wiring(studio, built.TABS), studio.actor, do=do, payload=payload, key=key)


def test_what_was_never_answered_can_be_repeated_without_a_second_job(studio: Studio) -> None:
    dataset = studio.datasets.create(name="Mira", trigger_word="mira7x")
    folder = studio.workspace.uploads / f"{studio.actor.user_id}-{'a' * 24}"
    folder.mkdir()
    for number, (do, payload) in enumerate(
        [
            ("home-refill", {"id": dataset.id}),
            ("datasets-upload", {"id": dataset.id, "batch": "a" * 24}),
            ("datasets-folder", {"id": dataset.id, "values": {"paths": str(folder)}}),
        ],
        start=1,
    ):
        for key in (f"{number:032x}", f"{number:032x}", "not a key"):
            assert keyed(studio, key, do, **payload)["ok"]
        assert len(studio.jobs.list()) == 2 * number, do


def test_an_answer_is_given_again_and_a_refusal_is_not(studio: Studio) -> None:
    done: list[str] = []

    def work(studio: Studio, payload: Any, view: View) -> Outcome:
        done.append(payload["word"])
        if payload["word"] == "no":
            raise InvalidInput("No.", "Never.")
        return Outcome(f"{len(done)}")

    page = Wiring(studio, [Tab("home", "Home", [], {"work": work})])

    def ask(word: str, key: str, actor: Actor) -> str:
        answer = answer_of(page, actor, do="home-work", payload={"word": word}, key=key)
        assert answer["key"] == key
        return str(answer["say"])

    other = Actor(user_id=2, role="editor")
    assert [ask("a", "1" * 32, a) for a in (studio.actor, studio.actor, other)] == ["1", "1", "2"]
    assert [ask("no", "2" * 32, studio.actor) for _ in range(2)] == ["No.", "No."]
    assert done == ["a", "a", "no", "no"]
    assert [ask("b", "", studio.actor) for _ in range(2)] == ["5", "6"]


def test_a_look_echoes_its_number_and_forgets_what_is_gone(studio: Studio) -> None:
    seen: list[View] = []

    def draw(studio: Studio, view: View) -> str:
        seen.append(view)
        return "<p>form</p>"

    tab = Tab("datasets", "Datasets", [[Region("form", draw, live=False)]], {})
    page = Wiring(studio, [tab])
    built.in_a_loop(lambda: _place(page, tab))
    kept = studio.characters.create(name="Mira", trigger_word="mira7x")
    view = {
        "tab": "datasets", "character": kept.id, "dataset": 99, "run": 98, "adapter": 97, "look": 5,
        "since": studio.changes(), "sums": {"datasets-form": "00000000"},
    }  # fmt: skip
    pulse = page.on_look(json.dumps(view), request_of(studio.actor))[0]
    assert 'data-look="5"' in pulse and 'data-gone="dataset run adapter"' in pulse
    assert [(v.character, v.dataset, v.run, v.adapter) for v in seen] == [(kept.id, None, None, None)]
    nothing = page.on_look(
        json.dumps({**view, "dataset": 0, "run": None, "adapter": 0}), request_of(studio.actor)
    )
    assert 'data-gone=""' in nothing[0] and len(seen) == 1


def _place(wiring: Wiring, tab: Tab) -> None:
    with gr.Blocks() as page:
        for region in tab.regions:
            wiring.place(region, tab.name)
        wiring.bind(page)


def test_only_the_page_starts_looks(page: gr.Blocks) -> None:
    """The timer asks the page's script, which has one look under way at a time."""
    events = {(t[1], f.name) for f in page.fns.values() for t in f.targets}
    assert ("tick", "on_look") not in events and ("click", "on_look") in events
