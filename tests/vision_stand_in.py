"""A local service that speaks OpenAI's language about pictures, and does as it is told."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image

Answer = tuple[int, Mapping[str, Any], Mapping[str, str]]
"""Status, JSON and headers."""
KEY = "sk-stand-in-0123456789abcdef"


@dataclass
class Service:
    """What it was asked, and how it answers: `answer` gets the number of the request and its picture."""

    answer: Callable[[int, Image.Image], Answer]
    address: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    lock: Any = field(default_factory=threading.Lock)


def said(text: str) -> Answer:
    """An answer with that caption."""
    return 200, {"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}, {}


def colour_of(image: Image.Image) -> str:
    """The brightest channel of a picture's middle."""
    pixel = image.getpixel((image.width // 2, image.height // 2))
    assert isinstance(pixel, tuple)
    return ("red", "green", "blue")[pixel.index(max(pixel))]


@contextmanager
def running(answer: Callable[[int, Image.Image], Answer]) -> Iterator[Service]:
    """The service while it listens."""
    service = Service(answer)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with service.lock:
                service.asked.append({"path": self.path, **body})
                service.keys.append(self.headers.get("authorization", ""))
                number = len(service.asked)
            url = body["messages"][0]["content"][1]["image_url"]["url"]
            image = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
            status, told, headers = service.answer(number, image)
            data = json.dumps(told).encode()
            self.send_response(status)
            for name, value in {"content-length": str(len(data)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(ConnectionError):  # who asked was killed meanwhile
                self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: a test's output is its own."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    service.address = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
