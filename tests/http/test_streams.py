"""How many streams one session holds open in the real app, and that nobody else pays for it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import httpx

from masuka.access.gate import MOST_STREAMS, STREAM_PATH
from masuka.ui.serve import Served

PATIENCE_S = 60.0
NO_ITEM = 999_999
"""An action on it waits for the database, and then finds nothing."""


class Visitor:
    """A browser with as many tabs as it likes, each of which has asked for something."""

    def __init__(self, client: httpx.Client, name: str) -> None:
        self.client, self._name, self._tabs = client, name, 0
        config: dict[str, Any] = client.get("/config").json()
        element = next(c["id"] for c in config["components"] if c["props"].get("elem_id") == "shell-perform")
        self._perform = next(d["id"] for d in config["dependencies"] if [element, "click"] in d["targets"])

    def tab(self, held: ExitStack) -> httpx.Response:
        """The stream of a new tab, in which the answer to its action will come."""
        self._tabs += 1
        name = f"{self._name}-{self._tabs}"
        asked = {"do": "images-star", "payload": {"ids": [NO_ITEM], "on": True}, "view": {}}
        given = {"data": [json.dumps(asked)], "fn_index": self._perform, "session_hash": name}
        self.client.post("/gradio_api/queue/join", json=given).raise_for_status()
        return held.enter_context(self.client.stream("GET", STREAM_PATH, params={"session_hash": name}))


def test_one_session_holds_so_many_streams_and_no_more(
    served: Served, people: dict[str, int], browser_of: Callable[[int], httpx.Client]
) -> None:
    mine, other = (Visitor(browser_of(user_id), f"of-{user_id}") for user_id in (1, people["editor"]))
    with ExitStack() as held:
        with served.studio.store.write():  # until this ends, no action does, so their streams stay open
            answers = [mine.tab(held) for _ in range(MOST_STREAMS)]
            assert {answer.status_code for answer in answers} == {200}
            refused = mine.tab(held)
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "5")
            assert other.tab(held).status_code == 200, "nobody else pays for it"
            assert mine.client.get("/config").status_code == 200
        for answer in answers:
            assert any("process_completed" in line for line in answer.iter_lines())
    with ExitStack() as held:
        assert mine.tab(held).status_code == 200, "streams that ended count no more"


def test_streams_that_are_left_count_no_more(served: Served, browser_of: Callable[[int], httpx.Client]) -> None:
    mine = Visitor(browser_of(1), "leaving")
    with served.studio.store.write(), ExitStack() as held:
        assert {mine.tab(held).status_code for _ in range(MOST_STREAMS)} == {200}
    deadline_s = time.monotonic() + PATIENCE_S
    while True:  # the app hears of it a moment later
        with ExitStack() as held:
            if mine.tab(held).status_code == 200:
                return
        assert time.monotonic() < deadline_s, "they still count"
        time.sleep(0.2)
