"""A program that speaks as an ngrok agent does: its log lines and its local API.

The file `mode` beside the program says how it behaves; see MODES. It writes each of its
calls to `calls`, and what it is asked to open to `posted`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import FrameType

from tunnel_stand_in import Proxy, Server

HERE = Path(sys.argv[0]).resolve().parent
MODES = "ok old broken 105 107 108 4018 334 725 727 999 silent stubborn dies garbage babble wrong-json not-found http no-url"
AT_START = {
    "105": r"authentication failed: The authtoken you specified is not properly formed.\nYour authtoken: {token}\r\n\r\nERR_NGROK_105\r\n",
    "107": r"authentication failed: The authtoken you specified is properly formed, but it is invalid.\nYour authtoken: {token}\r\n\r\nERR_NGROK_107\r\n",
    "108": r"authentication failed: Your account is limited to 3 simultaneous ngrok agent sessions.\n\r\n\r\nERR_NGROK_108\r\n",
    "4018": r"authentication failed: Usage of ngrok requires a verified account and authtoken.\r\n\r\nERR_NGROK_4018\r\n",
}
AT_OPENING = {
    "334": "failed to start endpoint: The endpoint is already online. ERR_NGROK_334",
    "725": "Your account has reached its bandwidth limit. ERR_NGROK_725",
    "727": "Your account has reached its request limit. ERR_NGROK_727",
    "999": "Something that nobody has heard of. ERR_NGROK_999",
}


def note(name: str, told: object) -> None:
    with (HERE / name).open("a", encoding="utf-8") as file:
        file.write(json.dumps(told) + "\n")


def log(message: str, level: str = "info", **fields: str) -> None:
    more = "".join(f" {k}={v}" for k, v in fields.items())
    print(f't=2026-11-20T10:00:00+0000 lvl={level} msg="{message}"{more}', flush=True)


class Api(BaseHTTPRequestHandler):
    """The agent's local API, version 3."""

    mode = "ok"
    settings: dict[str, object] = {}

    def do_GET(self) -> None:
        self.answer(200, {"endpoints": []})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        note("posted", {**asked, "settings": self.settings, "pid": os.getpid(), "group": os.getpgrp()})
        if self.mode in AT_OPENING:
            self.answer(502, {"error_code": 103, "msg": "failed", "details": {"err": AT_OPENING[self.mode]}})
        elif self.mode == "not-found":
            self.answer(404, {"msg": "resource not found"})
        elif self.mode == "wrong-json":
            self.answer(200, None, text='{"name": "masuka", ')
        elif self.mode == "no-url":
            self.answer(201, {"name": asked["name"]})
        else:
            self.answer(201, {"name": asked["name"], "url": self.url(asked), "upstream": asked["upstream"]})
            if self.mode == "dies":
                threading.Timer(0.5, lambda: os._exit(1)).start()

    def url(self, asked: dict[str, object]) -> str:
        upstream = str(dict(asked["upstream"])["url"])  # type: ignore[call-overload]
        if self.mode == "http":
            return "http://plain.example"
        file = HERE / "certificate"
        if asked.get("url") or not file.exists():
            return str(asked.get("url", "https://calm-otter.ngrok-free.example"))
        return Proxy(upstream, Path(file.read_text())).url()

    def answer(self, status: int, body: object, *, text: str = "") -> None:
        raw = (text or json.dumps(body)).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, format: str, *args: object) -> None:
        return


def start(mode: str) -> int:
    settings = json.loads(Path(sys.argv[sys.argv.index("--config") + 1]).read_text())
    if mode in ("silent", "stubborn"):
        if mode == "stubborn":
            signal.signal(signal.SIGTERM, lambda _number, _frame: None)
        while True:
            time.sleep(1)
    if mode == "garbage":
        sys.stdout.buffer.write(b"\x00\xffPK\x03\x04 nothing of sense \xc3\x28\n" * 50)
        sys.stdout.flush()
        return 3
    if mode == "babble":
        while True:
            print("la la la", flush=True)
            time.sleep(0.05)
    if mode in AT_START:
        told = AT_START[mode].format(token=settings["agent"]["authtoken"])
        log("failed to reconnect session", "eror", obj="csess", err=f'"{told}"')
        return 1
    Api.mode, Api.settings = mode, settings
    server = Server(Api)
    log("starting web service", obj="web", addr=f"127.0.0.1:{server.port}")
    log("client session established", obj="csess")
    log("tunnel session started", obj="tunnels.session")
    while True:
        time.sleep(1)


def leave(_number: int, _frame: FrameType | None) -> None:
    os._exit(0)


def main() -> int:
    note("calls", sys.argv[1:])
    mode = (HERE / "mode").read_text()
    signal.signal(signal.SIGTERM, leave)
    if sys.argv[1] == "version":
        if mode == "broken":
            return 1
        print("ngrok version 2.3.41" if mode == "old" else "ngrok version 3.39.8")
        return 0
    return start(mode)

