"""A stand-in of CivitAI on this machine: a search, versions, files behind a redirection."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


class Civitai(ThreadingHTTPServer):
    """Answers as CivitAI's public API does; files are sent from `files_at`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.models: list[dict[str, Any]] = []
        self.contents: dict[int, bytes] = {}
        self.files_at = ""
        """The address that files lie at; '' is this one."""
        self.key = ""
        """The key without which no file is given; '' asks for none."""
        self.asked: list[tuple[str, str]] = []
        """What was asked for, and the key that came with it."""
        self.breaks = 0
        self.down = False

    @property
    def address(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def add(
        self, version: int, name: str, content: bytes, *, made_for: str = "SDXL 1.0", kind: str = "Checkpoint",
        nsfw: bool = False, form: str = "SafeTensor", uses: Any = ("Image",),
    ) -> None:  # fmt: skip
        """Puts a model with one version and one file there."""
        self.contents[version] = content
        file = {
            "id": version, "name": f"{name}.safetensors", "type": "Model", "primary": True, "sizeKB": len(content) / 1024,
            "metadata": {"format": form}, "hashes": {"SHA256": hashlib.sha256(content).hexdigest().upper()},
        }  # fmt: skip
        self.models.append({
            "id": 1000 + version, "name": name, "type": kind, "nsfw": nsfw, "allowCommercialUse": uses if isinstance(uses, str) else list(uses),
            "creator": {"username": "mira"}, "stats": {"downloadCount": 1234},
            "modelVersions": [{"id": version, "name": "v1", "baseModel": made_for, "files": [file]}],
        })  # fmt: skip


@contextmanager
def civitai() -> Iterator[Civitai]:
    """A running stand-in."""
    server = Civitai()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Answer(BaseHTTPRequestHandler):
    server: Civitai

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        key = self.headers.get("Authorization") or ""
        self.server.asked.append((parts.path, key))
        last = parts.path.rsplit("/", 1)[-1]
        if self.server.down:
            self._send(503, b"{}")
        elif parts.path == "/api/v1/models":
            asked = parse_qs(parts.query)
            found = [m for m in self.server.models if m["type"] in asked["types"] and asked["query"][0].lower() in m["name"].lower()]
            # As the service does at times: what is not for all eyes comes although it was not asked for.
            self._send(200, json.dumps({"items": found}).encode())
        elif parts.path.startswith("/api/v1/model-versions/"):
            self._version(int(last))
        elif parts.path.startswith("/api/download/models/"):
            if self.server.key and key != f"Bearer {self.server.key}":
                self._send(401, b"{}")
            else:
                self._send(307, b"", {"Location": f"{self.server.files_at or self.server.address}/files/{last}"})
        elif parts.path.startswith("/files/"):
            self._file(self.server.contents[int(last)])
        else:
            self._send(404, b"{}")

    def _version(self, version: int) -> None:
        for model in self.server.models:
            for known in model["modelVersions"]:
                if known["id"] == version:
                    about = {**known, "modelId": model["id"], "model": {"name": model["name"], "type": model["type"]}}
                    self._send(200, json.dumps(about).encode())
                    return
        self._send(404, b"{}")

    def _file(self, content: bytes) -> None:
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").rstrip("-"))
        piece = content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(piece)))
        self.end_headers()
        if self.server.breaks:
            self.server.breaks -= 1
            piece = piece[: len(piece) // 2]
            self.close_connection = True
        self.wfile.write(piece)

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
