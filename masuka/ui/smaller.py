"""Makes the page small on its way: compressed where it is text of ours, kept where it never changes.

Gradio (6.31) sends its scripts compressed but the page, its description and each look as
they are, and says of nothing how long it may be kept. Files of pictures are left alone:
they are compressed already, and parts of them may be asked for.
"""

from __future__ import annotations

import re

from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SMALLEST_BYTES = 1400
"""What fits into one packet gains nothing."""
_COMPRESSED = re.compile(r"/(config/?)?|/gradio_api/run/\w+/?|/fragment/.+")
_NAMED_BY_CONTENT = re.compile(r"/assets/(.+/)?[\w.-]+-[\w-]{8,}\.\w+")
_FOR_A_YEAR = (b"cache-control", b"private, max-age=31536000, immutable")


class Smaller:
    """ASGI middleware behind the gate: what may be kept was meant for this person."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._compressing = GZipMiddleware(app, minimum_size=SMALLEST_BYTES, compresslevel=6)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif _COMPRESSED.fullmatch(scope["path"]):
            await self._compressing(scope, receive, send)
        elif _is_named_by_content(scope):
            await self._app(scope, receive, _kept(send))
        else:
            await self._app(scope, receive, send)


def _is_named_by_content(scope: Scope) -> bool:
    """Whether the address changes whenever what it leads to does."""
    if scope["path"] == "/theme.css":
        return bool(scope.get("query_string", b"").startswith(b"v="))
    return _NAMED_BY_CONTENT.fullmatch(scope["path"]) is not None


def _kept(send: Send) -> Send:
    async def with_header(message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] == 200:
            others = [(n, v) for n, v in message.get("headers", ()) if n.lower() != b"cache-control"]
            message = {**message, "headers": [*others, _FOR_A_YEAR]}
        await send(message)

    return with_header
