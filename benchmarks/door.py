"""What the door promises, tried hard: guesses, strangers at every route, slow visitors."""

from __future__ import annotations

import os
import socket
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from benchmarks.harness import Bars, Figures, bar, say
from masuka.access.accounts import MINUTES_15_S, Accounts
from masuka.access.limits import Throttle
from masuka.access.password import Passwords
from masuka.access.rules import is_known, rule_of
from masuka.config import Settings, Workspace
from masuka.requests import Actor
from masuka.store import users
from masuka.store.connect import Store
from masuka.ui.serve import Served, serve
from tests.http.test_matrix import METHODS, each_route

GUESSES, SLOW_VISITORS, REQUESTS = 10_000, 500, 300
RIGHT = "correct horse battery"


def door() -> tuple[Figures, Bars]:
    """Every figure of the door, and which have a goal."""
    figures, bars = guesses()
    with served() as page:
        for part in (strangers(page), slow_visitors(page)):
            figures.update(part[0])
            bars.update(part[1])
    return figures, bars


class _Counted(Passwords):
    """Real passwords that count how often one was looked at."""

    def __init__(self) -> None:
        super().__init__(memory_kib=8, time_cost=1, parallelism=1)
        self.looked = 0

    def check(self, password: str, stored: str | None) -> bool:
        self.looked += 1
        return super().check(password, stored)


def guesses() -> tuple[Figures, Bars]:
    """How many of ten thousand guesses are looked at, and whether the owner gets in after."""
    say("door: guesses")
    figures: Figures = {"door_guesses": GUESSES}
    with tempfile.TemporaryDirectory() as folder, Store.open(Workspace(Path(folder)).create()) as store:
        hasher = _Counted()
        users.set_user(store, actor=Actor(1), id=1, password_hash=hasher.hash(RIGHT))
        for name, one_name in (("one_name", True), ("one_address", False)):
            now = [0.0]
            accounts = Accounts(
                store, hasher, Throttle(5, MINUTES_15_S, lambda now=now: now[0]),  # type: ignore[misc]
                Throttle(20, MINUTES_15_S, lambda now=now: now[0]),  # type: ignore[misc]
            )  # fmt: skip
            hasher.looked = 0
            for number in range(GUESSES):
                who, where = ("owner", f"10.0.{number % 250}.1") if one_name else (f"somebody {number}", "10.0.0.1")
                accounts.sign_in(who, f"guess {number}", address=where)
            figures[f"door_{name}_looked_at"] = hasher.looked
            now[0] += MINUTES_15_S + 1
            entered = accounts.sign_in("owner", RIGHT, address="10.0.0.1").user_id == 1
            figures[f"door_{name}_owner_in_after"] = int(entered)
    honest = Passwords()
    stored, began_s = honest.hash(RIGHT), time.perf_counter()
    honest.check(RIGHT, stored)
    figures["door_password_check_s"] = time.perf_counter() - began_s
    bars = {f"door_{name}_looked_at": bar(figures[f"door_{name}_looked_at"], "<= 20") for name in ("one_name", "one_address")}
    bars |= {f"door_{name}_owner_in_after": bar(figures[f"door_{name}_owner_in_after"], ">= 1") for name in ("one_name", "one_address")}
    return figures, bars


@contextmanager
def served() -> Iterator[Served]:
    """A served page of a new workspace; the working directory is given back."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        page = serve(Settings(workspace=Workspace(Path(folder)), port=0, device="cpu", share="off"))
        try:
            yield page
        finally:
            page.close()
            os.chdir(before)


def strangers(page: Served) -> tuple[Figures, Bars]:
    """How many routes a stranger gets past, how many have no rule, what the gate costs."""
    say("door: strangers")
    routes = set(each_route(page.app))
    passed = 0
    with httpx.Client(base_url=page.address, trust_env=False, timeout=60) as client:
        for path in sorted({path for _, path in routes}):
            for method in METHODS:
                if rule_of(method, path).who != "anybody":
                    passed += client.request(method, path).status_code != 401
        client.get("/", params={"token": page.sessions.new_token(1)})
        seconds = []
        for _ in range(REQUESTS):
            began_s = time.perf_counter()
            client.get("/healthz").raise_for_status()
            seconds.append(time.perf_counter() - began_s)
    figures: Figures = {
        "door_routes": len(routes),
        "door_routes_without_rule": sum(not is_known(*route) for route in routes),
        "door_routes_passed_by_strangers": passed,
        "door_request_ms": 1000 * statistics.median(seconds),
    }
    bars = {name: bar(figures[name], "<= 0") for name in ("door_routes_without_rule", "door_routes_passed_by_strangers")}
    return figures, bars


def slow_visitors(page: Served) -> tuple[Figures, Bars]:
    """Seconds until the server answers while many visitors never finish their request."""
    say("door: slow visitors")
    place = urlsplit(page.address)
    with ExitStack() as open_ones, httpx.Client(base_url=page.address, trust_env=False, timeout=60) as client:
        for _ in range(SLOW_VISITORS):
            visitor = open_ones.enter_context(socket.create_connection((place.hostname, place.port), timeout=30))
            visitor.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ")
        began_s = time.perf_counter()
        client.get("/healthz").raise_for_status()
        answered_s = time.perf_counter() - began_s
    figures: Figures = {"door_slow_visitors": SLOW_VISITORS, "door_answer_s": answered_s}
    return figures, {"door_answer_s": bar(answered_s, "<= 1.0")}
