"""The page inside another site's frame, as a Space shows it: over TLS, with third-party cookies blocked.

The sites are stand-ins on this machine under their real names, because the gate and the
browser decide by names: a certificate that nobody signed, which the browser was told to
take, and a resolver that leads the names here.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, FrameLocator, Page, expect

from tests.browser.conftest import ARGUMENTS, DESK, PATIENCE_MS, App, chromium, start, stop
from tests.tunnel_stand_in import Proxy, Server, certificate

SPACE, HUB, STRANGER = "me-masuka.hf.space", "huggingface.co", "evil.example"
pytestmark = pytest.mark.browser


class Around(BaseHTTPRequestHandler):
    """A site whose page shows the Space, or what the query says, in a frame."""

    def do_GET(self) -> None:
        inner = self.path.partition("?")[2]
        body = f'<!doctype html><title>around</title><iframe src="https://{SPACE}/{inner}" width="1400" height="850"></iframe>'.encode()
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        return


@dataclass
class Framed:
    app: App
    context: BrowserContext

    def show(self, query: str = "", *, site: str = HUB) -> tuple[Page, FrameLocator]:
        """A page of that site, and the frame in it."""
        page = self.context.new_page()
        page.goto(f"https://{site}/spaces?{query}")
        return page, page.frame_locator("iframe")

    @property
    def token(self) -> str:
        """What a link's address has after the host."""
        return "?" + self.app.link(tab="settings").partition("?")[2]


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[App, str]]:
    """An app that finds itself in a Space, and where it listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPACE_ID", "me/masuka")
        patch.setenv("SPACE_HOST", SPACE)
        app = start(tmp_path_factory.mktemp("space") / "home", port=port)
    yield app, f"http://127.0.0.1:{port}/"
    stop(app)


@pytest.fixture
def framed(space: tuple[App, str], browser: Browser, tmp_path: Path) -> Iterator[Framed]:
    app, address = space
    pem = certificate(tmp_path, SPACE, HUB, STRANGER)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pem)
    proxy, around = Proxy(address, pem), Server(Around, tls=tls)
    places = {SPACE: proxy.port, HUB: around.port, STRANGER: around.port}
    rules = ", ".join(f"MAP {name}:443 127.0.0.1:{port}" for name, port in places.items())
    own = browser.browser_type.launch(
        executable_path=chromium(),
        args=[*ARGUMENTS, f"--host-resolver-rules={rules}", "--test-third-party-cookie-phaseout"],
    )
    context = own.new_context(viewport=DESK, ignore_https_errors=True)  # type: ignore[arg-type]
    context.set_default_timeout(PATIENCE_MS)
    yield Framed(app, context)
    own.close()
    proxy.end()
    around.end()


def test_a_space_is_entered_and_used_inside_its_frame(framed: Framed) -> None:
    page, frame = framed.show(framed.token)
    expect(frame.locator("#page-settings [data-region]").first).to_be_visible()
    (cookie,) = [c for c in framed.context.cookies(f"https://{SPACE}/") if "session" in c["name"] or "masuka" in c["name"]]
    assert (cookie["sameSite"], cookie["secure"], cookie["httpOnly"]) == ("None", True, True)
    assert cookie["partitionKey"] == f"https://{HUB}", "the browser keeps it for this site's frame alone"

    # What changes something comes from the frame too, and is let through.
    frame.locator("#settings-key-value").fill("sk-not-of-hugging-face")
    frame.locator("#settings-key-go").click()
    expect(frame.locator("#settings-key-value-error")).to_contain_text("begins with hf_")

    page.reload()
    _, again = framed.show("?tab=settings")
    expect(again.locator("#page-settings [data-region]").first).to_be_visible()


def test_no_other_site_shows_it_or_is_let_in(framed: Framed) -> None:
    framed.show(framed.token)[1].locator("#page-settings [data-region]").first.wait_for()
    page, frame = framed.show("?tab=settings", site=STRANGER)
    page.wait_for_load_state("networkidle")
    inner = page.frames[1]
    assert inner.url.startswith("chrome-error:"), "the browser was told by whom it may be framed"
    assert frame.locator("body[data-tab]").count() == 0
    # Nor does the frame's session open the page elsewhere: there is no cookie of it there.
    alone = framed.context.new_page()
    alone.goto(f"https://{SPACE}/?tab=settings")
    assert alone.url.endswith("/login")
