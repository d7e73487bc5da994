"""Slow and greedy visitors: the server still answers the others."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

import httpx

from masuka.ui.serve import Served

SLOW_VISITORS = 200


@contextmanager
def connected(served: Served) -> Iterator[socket.socket]:
    place = urlsplit(served.address)
    with socket.create_connection((place.hostname, place.port), timeout=30) as opened:
        yield opened


def answers(client: httpx.Client) -> bool:
    return client.get("/healthz").json() == {"status": "ok"}


def test_visitors_who_never_finish_their_request_keep_nobody_out(
    served: Served, anonymous: httpx.Client, inside: httpx.Client
) -> None:
    with ExitStack() as open_ones:
        for number in range(SLOW_VISITORS):
            visitor = open_ones.enter_context(connected(served))
            visitor.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ")
            visitor.sendall(str(number).encode())
        for _ in range(20):
            visitor = open_ones.enter_context(connected(served))
            visitor.sendall(b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 4000\r\n\r\nusername=")
        assert answers(anonymous)
        assert inside.get("/config").status_code == 200
    assert answers(anonymous)


def test_what_a_visitor_says_about_their_address_is_not_believed(served: Served) -> None:
    """uvicorn (0.51) believes X-Forwarded-For from loopback unless it is told not to."""
    codes = []
    for number in range(12):
        with httpx.Client(base_url=served.address, trust_env=False, timeout=60) as client:
            headers = {"x-forwarded-for": f"203.0.113.{number}"}
            codes.append(client.get("/", params={"token": f"guess {number}"}, headers=headers).status_code)
    assert codes.count(429) >= 2
    served.door.tokens.forget("127.0.0.1 False 127.0.0.1")
