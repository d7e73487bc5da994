"""How the page is wired: regions that are drawn, actions that are performed, one poll.

A region is a piece of HTML drawn from the studio and the view. An action is a function
that makes one call to the studio. Both know nothing of Gradio; `Wiring` binds them to
three events. Known errors become sentences here and nowhere else in the page.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import zlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import gradio as gr

from masuka.errors import Cancelled, InvalidInput, MasukaError, NotAllowed, NotFound, StoreError
from masuka.requests import Actor
from masuka.requests.text import id_in
from masuka.studio import Studio
from masuka.ui import roles
from masuka.ui.markup import attributes
from masuka.ui.view import View

log = logging.getLogger(__name__)

BUSY_S = 1.0
IDLE_S = 30.0
METERED_S = 10.0
"""Between looks while something runs, where each request is one of the month's."""
_LONGEST_PAYLOAD = 200_000
_ANSWERS_KEPT = 200
_KEY = re.compile(r"[0-9a-f]{32}")
Payload = Mapping[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What the page does after an action.

    `say` is a short sentence; `go` changes the view; `undo` is an action offered with
    the sentence; `clear` names a form whose typed values are forgotten; `fill` gives a
    form new values; `fetch` is the address of a file to save. `show` opens a small window
    with a `title`, a `text` and a `link` or `plain` text to copy: for what is told only once.
    """

    say: str = ""
    go: Mapping[str, Any] = field(default_factory=dict)
    undo: tuple[str, Mapping[str, Any]] | None = None
    clear: str = ""
    fill: Mapping[str, Any] = field(default_factory=dict)
    fetch: str = ""
    show: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Region:
    """`draw` gives the HTML.

    A live region is drawn again when something in the studio changed, one that is not
    (a form) only when the view changed or an action was performed, and one that is
    `always` drawn at every look.
    """

    name: str
    draw: Callable[[Studio, View], str]
    live: bool = True
    always: bool = False
    waiting: str = ""


@dataclass(frozen=True)
class Tab:
    """One page: regions are stacked in columns, `columns` gives the grid's class."""

    name: str
    title: str
    columns: Sequence[Sequence[Region]]
    actions: Mapping[str, Callable[[Studio, Payload, View], Outcome]]
    layout: str = "single"

    @property
    def regions(self) -> list[Region]:
        return [region for column in self.columns for region in column]


class Wiring:
    """Holds the components and answers the page's three events."""

    def __init__(self, studio: Studio, tabs: Sequence[Tab]) -> None:
        self._studio = studio
        self._actions = {f"{tab.name}-{name}": do for tab in tabs for name, do in tab.actions.items()}
        self._places: list[tuple[str, Region, gr.HTML]] = []
        self._answers: OrderedDict[tuple[int, str], dict[str, Any]] = OrderedDict()

    @property
    def actions(self) -> list[str]:
        return sorted(self._actions)

    def place(self, region: Region, tab: str = "") -> None:
        """Puts the region here; `tab` is '' for the shell, which every tab shows."""
        element = html_piece(f"{tab or 'shell'}-{region.name}", region.waiting)
        self._places.append((tab, region, element))

    def bind(self, page: gr.Blocks) -> None:
        """The events: look (poll, focus, view change) and perform (actions)."""
        view = gr.Textbox(visible="hidden", elem_id="shell-view", show_label=False)
        pulse = html_piece("shell-pulse", "")
        answer = html_piece("shell-answer", "")
        look = gr.Button("look", visible="hidden", elem_id="shell-look")
        perform = gr.Button("perform", visible="hidden", elem_id="shell-perform")
        timer = gr.Timer(BUSY_S)
        outputs = [pulse, timer, *(element for _, _, element in self._places)]
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        read_view = "() => [window.masuka ? window.masuka.view() : '{}']"
        # The page's script decides when to look, so that never two looks are under way.
        timer.tick(None, js="() => { if (window.masuka) window.masuka.tick(); }", queue=False, **quiet)
        for trigger in (look.click, page.load):
            trigger(
                self.on_look, inputs=[view], outputs=outputs, js=read_view, queue=False,
                trigger_mode="multiple", **quiet,
            )  # fmt: skip
        performed = perform.click(
            self.on_perform, inputs=[view], outputs=[answer], js="() => [window.masuka.take()]",
            trigger_mode="multiple", concurrency_limit=8, **quiet,
        )  # fmt: skip
        if self._studio.lends:
            # The answer first, then the work: a GPU is lent to the event that asks for it, and
            # to none that a worker could see.
            performed.then(self.on_lend, trigger_mode="multiple", concurrency_limit=8, **quiet)

    def on_lend(self, request: gr.Request) -> None:
        """Runs what the visitor's action left to a lent GPU; its row says the end."""
        try:
            self._studio.acting_as(actor_of(request)).jobs.run_lent()
        except MasukaError as error:
            log.warning("a job that borrows a GPU could not be run: %s", error)

    def on_look(self, text: str, request: gr.Request) -> list[Any]:
        """What changed for this view: [pulse, timer, one entry per region]."""
        view = View.parse(text)
        unfinished = 0
        metered = request.request is not None and request.request.scope.get("metered", False)
        gone: list[str] = []
        try:
            studio = self._studio.acting_as(actor_of(request))
            change = studio.changes()
            counts = studio.jobs.counts()
            unfinished = sum(counts.get(state, 0) for state in ("queued", "running"))
            busy = unfinished > 0
            view, gone = present(studio, view)
            pieces = [self._piece(studio, view, tab, region, change) for tab, region, _ in self._places]
            trouble = ""
        except MasukaError as error:
            change, busy, trouble = view.since, True, str(error)
            pieces = [gr.skip() for _ in self._places]
        pulse = {
            "data-since": change, "data-unfinished": unfinished, "data-trouble": trouble,
            "data-look": view.look, "data-gone": " ".join(gone), "data-metered": metered,
            "data-n": secrets.token_hex(4),
        }  # fmt: skip
        return [
            f'<i id="pulse"{attributes(pulse)} hidden></i>',
            gr.Timer(pace_s(busy=busy, metered=metered)),
            *pieces,
        ]

    def _piece(self, studio: Studio, view: View, tab: str, region: Region, change: int) -> Any:
        name = f"{tab or 'shell'}-{region.name}"
        if tab not in ("", view.tab):
            return gr.skip()
        seen = view.sums.get(name)
        unasked = view.since >= 0 and not region.always
        if seen is not None and unasked and (view.since == change or not region.live):
            return gr.skip()
        try:
            shown = roles.shows(name, studio.actor)
            body = roles.without_forbidden(region.draw(studio, view), studio.actor) if shown else ""
        except MasukaError as error:
            body = f'<div class="trouble" role="alert">{sentence(error)}</div>'
        except Exception:  # noqa: BLE001 - a bug in one region must not take the others with it
            body = f'<div class="trouble" role="alert">{_report_bug(name)}</div>'
        total = f"{zlib.crc32(body.encode()):08x}"
        if total == seen:
            return gr.skip()
        return f'<div class="region" data-region="{name}" data-sum="{total}">{body}</div>'

    def on_perform(self, text: str, request: gr.Request) -> str:
        """The answer to an action, as an element that the page's script reads."""
        do, key = "", ""
        try:
            if len(text) > _LONGEST_PAYLOAD:
                raise InvalidInput("That is too much at once.", "Choose fewer.")
            asked = json.loads(text)
            do = str(asked.get("do", ""))
            key = str(asked.get("key", ""))
            answer = self._answer(do, asked, actor_of(request), key)
        except MasukaError as error:
            answer = {"ok": isinstance(error, Cancelled), "say": error.message, "hint": error.hint}
            answer["field"] = error.field if isinstance(error, InvalidInput) else ""
        except Exception:  # noqa: BLE001 - anything else is a bug: the person gets a reference, the log the rest
            answer = {"ok": False, "say": _report_bug(do), "hint": ""}
        answer["key"] = key
        answer["form"] = json.loads(text).get("form", "") if answer.get("field") else ""
        return f'<i id="answer"{attributes({"data-answer": json.dumps(answer), "data-n": secrets.token_hex(4)})}></i>'

    def _answer(self, do: str, asked: Mapping[str, Any], actor: Actor, key: str) -> dict[str, Any]:
        """What was done; the same key again gets the same answer, and nothing is done twice."""
        known = self._answers.get((actor.user_id, key))
        if known is not None:
            return dict(known)
        outcome = self._do(do, asked, actor)
        answer = {
            "ok": True, "say": outcome.say, "go": dict(outcome.go), "clear": outcome.clear,
            "fill": dict(outcome.fill), "undo": outcome.undo, "fetch": outcome.fetch,
            "show": dict(outcome.show),
        }  # fmt: skip
        if _KEY.fullmatch(key):
            self._answers[(actor.user_id, key)] = dict(answer)
            while len(self._answers) > _ANSWERS_KEPT:
                self._answers.popitem(last=False)
        return answer

    def _do(self, do: str, asked: Mapping[str, Any], actor: Actor) -> Outcome:
        if do not in self._actions:
            raise InvalidInput("The page is older than the app.", "Reload it.")
        payload = asked.get("payload")
        if not isinstance(payload, dict):
            raise InvalidInput("The page sent something unreadable.", "Reload it.")
        roles.must_be_allowed(do, actor)
        known = {**payload, "key": asked.get("key")}
        studio = self._studio.acting_as(actor)
        outcome = self._actions[do](studio, known, View.parse(json.dumps(asked.get("view", {}))))
        if do not in roles.QUIET:
            note(studio, do.replace("-", ": ", 1).replace("-", " "), outcome.say)
        return outcome


def note(studio: Studio, action: str, about: str = "") -> None:
    """Writes into the history what was done; that this fails undoes nothing."""
    try:
        studio.people.note(action, about)
    except StoreError as error:
        log.warning("%s could not be written into the history: %s", action, error)


def pace_s(*, busy: bool, metered: bool) -> float:
    """Seconds until the page looks again."""
    if not busy:
        return IDLE_S
    return METERED_S if metered else BUSY_S


def html_piece(elem_id: str, value: str) -> gr.HTML:
    """A plain piece of HTML that Python fills; no template of it ever sees user text."""
    return gr.HTML(
        value, elem_id=elem_id, js_on_load=None, apply_default_css=False, padding=False, container=False
    )


def actor_of(request: gr.Request) -> Actor:
    """Whom the gate let in; raises NotAllowed when the gate was not there."""
    actor = request.request.scope.get("actor") if request.request else None
    if not isinstance(actor, Actor):
        raise NotAllowed("Not signed in.", "Open the app's link.")
    return actor


def sentence(error: MasukaError) -> str:
    """The error's two sentences as HTML."""
    from masuka.ui.markup import esc

    return f"<p><strong>{esc(error.message)}</strong> {esc(error.hint)}</p>"


def _report_bug(where: str) -> str:
    reference = secrets.token_hex(3)
    log.exception("error %s in %s", reference, where)
    return f"Something went wrong inside masuka. Reference {reference}, in Settings → Diagnostics."


def ids_of(payload: Payload, name: str = "ids") -> list[int]:
    """The chosen ids of a payload; raises InvalidInput when there are none."""
    given = payload.get(name, [])
    values = given if isinstance(given, list) else [given]
    ids = [id for v in values if (id := id_in(v)) is not None]
    if not ids or len(ids) != len(values):
        raise InvalidInput("Nothing is selected.", "Choose one or more first.")
    return ids


def id_of(payload: Payload, name: str = "id") -> int:
    """The one id of a payload; raises InvalidInput when there is none."""
    return ids_of(payload, name)[0]


def key_of(payload: Payload) -> str | None:
    """The random key of this very press of a button; None when there is none."""
    key = payload.get("key")
    return key if isinstance(key, str) and _KEY.fullmatch(key) else None


def present(studio: Studio, view: View) -> tuple[View, list[str]]:
    """The view without what is not there any more, and the names of that.

    Browsers keep ids for longer than they are good: another workspace, a deleted set.
    """
    readers: Mapping[str, Callable[[int], object]] = {
        "character": studio.characters.get,
        "dataset": studio.datasets.get,
        "run": studio.training.run,
        "adapter": studio.models.adapter,
    }
    gone: dict[str, Any] = {}
    for name, read in readers.items():
        chosen = getattr(view, name)
        if not chosen:  # 0 is a choice too: no adapter
            continue
        try:
            read(chosen)
        except NotFound:
            gone[name] = None
    # Forms are drawn again as well: they were drawn for what is gone.
    return (replace(view, **{**gone, "since": -1}) if gone else view), list(gone)


def values_of(payload: Payload) -> dict[str, Any]:
    """The typed values of the form that came with the action; empty ones are left out."""
    given = payload.get("values")
    if not isinstance(given, dict):
        raise InvalidInput("The form did not arrive.", "Reload the page.")
    return {str(k): v for k, v in given.items() if v not in ("", None)}
