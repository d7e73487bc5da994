"""Which path is for whom: the whole list, and what is not on it is closed.

Whoever adds a route adds its rule here; a test walks the app's routes and fails for one
that has none. Gradio's routes that the page does not need are closed for everybody, the
owner too: they hand out tokens, files by path, and other people's streams.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from masuka.requests.actor import Actor

Who = Literal["anybody", "viewer", "editor", "owner", "nobody"]
Kind = Literal["look", "change", "login"]
READ = frozenset({"GET", "HEAD"})
RANKS = {"viewer": 1, "editor": 2, "owner": 3}


@dataclass(frozen=True)
class Rule:
    """`kind` says by which limit the requests are counted; see `access.gate`."""

    pattern: re.Pattern[str]
    methods: frozenset[str]
    who: Who
    kind: Kind = "look"

    def lets(self, actor: Actor | None) -> bool:
        """Whether this person may pass; None is a stranger."""
        if self.who == "anybody":
            return True
        return actor is not None and RANKS[actor.role] >= RANKS.get(self.who, 9)


def _rule(pattern: str, who: Who, *methods: str, kind: Kind = "look") -> Rule:
    return Rule(re.compile(pattern), frozenset(methods) or READ, who, kind)


RULES: tuple[Rule, ...] = (
    # The door itself
    _rule(r"/healthz", "anybody"),
    _rule(r"/(enter|login|register|invite)?", "anybody"),
    _rule(r"/(login|register|invite)", "anybody", "POST", kind="login"),
    _rule(r"/logout", "viewer", "POST", kind="change"),
    # Our own routes
    _rule(r"/(media|drawing|fragment)/.+", "viewer"),
    _rule(r"/download/diagnostics", "owner", kind="change"),
    _rule(r"/download/.+", "viewer", kind="change"),  # a zip is made for it
    _rule(r"/upload/.+", "editor", "PUT"),
    _rule(r"/caption/.+", "editor", "PUT"),
    _rule(r"/mask/.+", "viewer"),
    _rule(r"/mask/.+", "editor", "PUT"),
    # Of Gradio what the page loads
    _rule(r"/(config|theme\.css|favicon\.ico|robots\.txt|manifest\.json|pwa_icon(/.+)?)/?", "viewer"),
    _rule(r"/(static|assets|svelte)/.+", "viewer"),
    _rule(r"/gradio_api/(theme\.css|app_id|queue/data)/?", "viewer"),
    # A look is not queued, an action is; who may do which action is `ui.roles`.
    _rule(r"/gradio_api/run/\w+/?", "viewer", "POST"),
    _rule(r"/gradio_api/queue/join/?", "viewer", "POST", kind="change"),
)
CLOSED: tuple[Rule, ...] = tuple(
    _rule(pattern, "nobody", "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
    for pattern in (
        r"/(docs|redoc|openapi\.json)(/.*)?",
        r"/gradio_api/(user|login_check|token|info|openapi\.json|deep_link|startup-events)/?",
        r"/gradio_api/(file|proxy)[=/].*",
        r"/gradio_api/(upload|upload_progress|component_server|reset|cancel|process_recording)(/.*)?",
        r"/gradio_api/(api|call|stream|heartbeat|custom_component|dev|mcp|runs|run-history|profiling)(/.*)?",
        r"/gradio_api/(vibe-edit|undo-vibe-edit|vibe-code|vibe-starter-queries|queue/status)/?",
        r"/monitoring(/.*)?",
        r"/(login|logout)/?",  # Gradio's own, beside ours
        r"/(media|drawing|fragment|download|upload|caption|mask)/.*",  # with another method than theirs
    )
)
"""Written down so that a route of Gradio that is new is noticed, not so that it is closed."""
_NONE = _rule(r"", "nobody")


def rule_of(method: str, path: str) -> Rule:
    """The rule of a request; one for nobody where there is none."""
    for rule in RULES:
        if method in rule.methods and rule.pattern.fullmatch(path):
            return rule
    return _NONE


def is_known(method: str, path: str) -> bool:
    """Whether somebody thought about this route, be it open or closed."""
    return any(method in rule.methods and rule.pattern.fullmatch(path) for rule in (*RULES, *CLOSED))
