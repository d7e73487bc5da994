"""The page as a collaborator has it: under another name, with TLS, by a proxy in between."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Response, expect

from masuka.config import Settings, Workspace
from masuka.studio import Studio
from tests.browser.conftest import ARGUMENTS, DESK, PATIENCE_MS, App, chromium, settled, start, stop
from tests.tunnel_stand_in import MACHINE, Proxy, certificate

NAME = "calm-otter.example"
MOST_REQUESTS = 100
SHOWN = 8
TEXTS = re.compile("html|json|css|javascript|svg|event-stream|manifest")


@dataclass
class Outside:
    """A browser that knows the app by its public name only, and what it was answered."""

    app: App
    proxy: Proxy
    context: BrowserContext
    answers: list[Response] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return self.proxy.url(NAME)

    def open(self, **view: object) -> Page:
        page = self.context.new_page()

        def on_console(message: ConsoleMessage) -> None:
            if message.type == "error":
                self.wrong.append(f"console: {message.text} at {message.location}")

        page.on("console", on_console)
        page.on("pageerror", lambda error: self.wrong.append(f"page error: {error}"))
        page.on("response", lambda answer: self.answers.append(answer))
        page.goto(self.app.link(**view).replace(self.app.address, f"{self.url}/"))
        settled(page)
        return page


@pytest.fixture(scope="module")
def away(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """An app with a few pictures that answers to the public name."""
    folder = tmp_path_factory.mktemp("away") / "home"
    with Studio.open(Settings(workspace=Workspace(folder), device="cpu")) as studio:
        dataset = studio.datasets.create(name="Mira", trigger_word="mira7x", class_word="robot")
        studio.jobs.wait(studio.datasets.add_samples(dataset.id, seed=3, count=SHOWN))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MASUKA_ALLOWED_HOSTS", NAME)
        app = start(folder)
    yield app
    stop(app)


@pytest.fixture
def outside(away: App, browser: Browser, tmp_path: Path) -> Iterator[Outside]:
    proxy = Proxy(away.address, certificate(tmp_path, NAME))
    rules = f"--host-resolver-rules=MAP {NAME} 127.0.0.1"
    own = browser.browser_type.launch(executable_path=chromium(), args=[*ARGUMENTS, rules])
    context = own.new_context(viewport=DESK, ignore_https_errors=True)  # type: ignore[arg-type]
    context.set_default_timeout(PATIENCE_MS)
    outside = Outside(away, proxy, context)
    yield outside
    own.close()
    proxy.end()
    assert not outside.wrong, "\n".join(outside.wrong)


def loaded(page: Page, count: int) -> None:
    """Waits until so many pictures of ours have arrived and can be seen."""
    page.wait_for_function(
        "count => [...document.querySelectorAll('img[src*=\"media/\"]')]"
        ".filter(i => i.complete && i.naturalWidth > 0).length >= count",
        arg=count,
    )


def test_no_address_of_the_machine_is_in_any_answer(outside: Outside) -> None:
    page = outside.open(tab="datasets", dataset=1)
    loaded(page, SHOWN)
    for tab in ("home", "training", "images", "library", "settings"):
        page.locator(f'#shell-nav a[href="?tab={tab}"]').click()
        settled(page)
    assert told_nothing(outside) > 20
    assert not MACHINE.search(page.content())
    page.context.clear_cookies()
    page.goto(f"{outside.url}/login")
    assert told_nothing(outside) == 1


def told_nothing(outside: Outside) -> int:
    """How many texts were read since the last time; none of them names the machine."""
    read, port = 0, urlsplit(outside.app.address).port
    while outside.answers:
        answer = outside.answers.pop(0)
        parts = urlsplit(answer.url)
        assert parts.scheme in ("data", "blob") or parts.netloc == urlsplit(outside.url).netloc, answer.url
        said = " ".join(f"{k}: {v}" for k, v in answer.headers.items())
        kind = answer.headers.get("content-type", "")
        if TEXTS.search(kind) and answer.status == 200 and parts.scheme == "https":
            said += answer.text()
            read += 1
        assert f":{port}" not in said, f"{answer.url} tells the app's port"
        # Gradio's scripts name localhost in general; they never know where the app is.
        if "javascript" not in kind:
            found = MACHINE.search(said)
            assert not found, f"{answer.url} names the machine: {found.group()}"
    return read


def test_pictures_load_and_uploads_arrive(outside: Outside) -> None:
    with Studio.open(outside.app.settings) as studio:
        dataset = studio.datasets.create(name="From afar", trigger_word="afar01", class_word="robot")
    page = outside.open(tab="datasets", dataset=dataset.id)
    buffer = io.BytesIO()
    Image.effect_noise((600, 600), 80).convert("RGB").save(buffer, "PNG")
    page.locator(".drop input[type=file]").set_input_files(
        [{"name": "afar.png", "mimeType": "image/png", "buffer": buffer.getvalue()}]
    )
    expect(page.locator("#page-datasets .tile")).to_have_count(1)
    loaded(page, 1)
    assert any(line.startswith("PUT /upload/") for line in outside.proxy.passed)
    page.locator("#page-datasets [data-open]").first.click()
    expect(page.locator("#viewer")).to_be_visible()


def test_the_page_is_small_at_first_and_smaller_after(outside: Outside) -> None:
    page = outside.open(tab="datasets", dataset=1)
    loaded(page, SHOWN)
    page.wait_for_load_state("networkidle")
    first, first_bytes = len(outside.proxy.passed), outside.proxy.sent_bytes
    page.reload()
    settled(page)
    loaded(page, SHOWN)
    page.wait_for_load_state("networkidle")
    second, second_bytes = len(outside.proxy.passed) - first, outside.proxy.sent_bytes - first_bytes
    print(f"cold {first} requests, {first_bytes} bytes; warm {second} requests, {second_bytes} bytes")
    assert first < MOST_REQUESTS
    assert second < first / 2
    assert second_bytes < first_bytes / 4
    assert not any("/media/" in line for line in outside.proxy.passed[first:]), "thumbnails were kept"


def test_a_page_that_nobody_sees_asks_for_nothing_through_a_metered_link(outside: Outside) -> None:
    page = outside.open(tab="home")
    page.wait_for_load_state("networkidle")
    tick = "() => { Object.defineProperty(document, 'hidden', {value: %s, configurable: true}); masuka.tick(); }"
    page.evaluate("() => { document.querySelector('#pulse').dataset.metered = ''; }")
    before = len(outside.proxy.passed)
    page.evaluate(tick % "true")
    page.wait_for_timeout(300)
    assert len(outside.proxy.passed) == before
    with page.expect_response(lambda answer: "/gradio_api/run/" in answer.url):
        page.evaluate(tick % "false")
