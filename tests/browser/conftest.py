"""A real app in its own process, a real Chromium, and pages that report what goes wrong in them."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Request,
    expect,
    sync_playwright,
)

from masuka.config import Settings, Workspace
from masuka.pocket.world import draw, sample_scene
from masuka.store import items
from masuka.studio import Studio

ROOT = Path(__file__).parents[2]
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
PATIENCE_MS = 120_000
DESK = {"width": 1440, "height": 900}
expect.set_options(timeout=PATIENCE_MS)
PHONE = {"width": 390, "height": 844}
ITEMS = 90


def chromium() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next((found for name in names if (found := shutil.which(name))), None)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = chromium()
    if path is None:
        if os.environ.get("MASUKA_REQUIRE_BROWSER"):
            pytest.fail("There is no Chromium on this machine. Install Debian's package chromium.")
        pytest.skip("There is no Chromium on this machine.")
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=path, args=ARGUMENTS)


@dataclass
class App:
    """An app process with its workspace; `link` makes a new way in."""

    settings: Settings
    process: subprocess.Popen[bytes]
    address: str

    def link(self, **view: object) -> str:
        from masuka.access.links import Links

        token = Links(self.settings.workspace.secrets).new_token(1)
        extra = "".join(f"&{k}={v}" for k, v in view.items())
        return f"{self.address}?token={token}{extra}"


def start(folder: Path, *, port: int = 0) -> App:
    """The app once it has told its link; `port` 0 is a free one."""
    settings = Settings(workspace=Workspace(folder).create(), device="cpu")
    environment = {**os.environ, "MASUKA_HOME": str(folder), "MASUKA_PORT": str(port), "MASUKA_DEVICE": "cpu"}
    environment["MASUKA_LOCAL_ADDRESSES"] = "127.0.0.1"  # stand-ins of services
    environment.pop("DATABASE_URL", None)
    said = folder.parent / f"{folder.name}.log"
    with said.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "app.py")], env=environment, cwd=folder, stdout=out, stderr=out
        )
    while process.poll() is None:
        found = re.search(r"(https?://\S+?/)\?token=", said.read_text())
        if found:
            return App(settings, process, found.group(1))
        time.sleep(0.1)
    raise AssertionError(f"the app did not start: {said.read_text()}")


def stop(app: App) -> None:
    app.process.terminate()
    try:
        app.process.wait(PATIENCE_MS / 1000)
    finally:
        app.process.kill()
        app.process.wait()


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """An app as after the first start: nothing in it."""
    app = start(tmp_path_factory.mktemp("fresh") / "home")
    yield app
    stop(app)


@pytest.fixture(scope="session")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """An app with a character, a data set of drawings and many finished pictures."""
    folder = tmp_path_factory.mktemp("full") / "home"
    workspace = Workspace(folder)
    with Studio.open(Settings(workspace=workspace, device="cpu")) as studio:
        character = studio.characters.create(name="Mira", trigger_word="mira7x", class_word="robot")
        dataset = studio.datasets.create(
            name="Mira", trigger_word="mira7x", class_word="robot", character_id=character.id
        )
        studio.jobs.wait(studio.datasets.add_samples(dataset.id, seed=3, count=8))
        rng = random.Random(1)
        (workspace.items / "thumbs").mkdir(parents=True, exist_ok=True)
        for number in range(ITEMS):
            picture = draw(sample_scene(rng))
            picture.save(workspace.items / f"p{number}.png")
            picture.save(workspace.items / "thumbs" / f"p{number}.webp")
            items.add_item(
                studio.store, actor=studio.actor, file=workspace.relative(workspace.items / f"p{number}.png"),
                width=128, height=128, seed=number, character_id=character.id,
                prompt=f"mira7x on a beach, number {number} <b>${{1+1}}</b>",
                settings={"request": {"prompt": "on a beach", "base": "pocket", "num_inference_steps": 12}},
            )  # fmt: skip
    app = start(folder)
    yield app
    stop(app)


@dataclass
class Visitor:
    """Opens pages, and remembers what no page may do."""

    browser: Browser
    contexts: list[BrowserContext] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def open(
        self,
        app: App,
        *,
        size: dict[str, int] | None = None,
        scheme: str = "light",
        refused: bool = False,
        **view: object,
    ) -> Page:
        """A page of a new browser that has used a link, once it shows its tab.

        With `refused`, what the console says is no fault: the test has requests refused.
        """
        context = self.browser.new_context(
            viewport=size or DESK,  # type: ignore[arg-type]
            color_scheme=scheme,  # type: ignore[arg-type]
            has_touch=size is PHONE,
            is_mobile=size is PHONE,
            accept_downloads=True,
        )
        context.set_default_timeout(PATIENCE_MS)
        self.contexts.append(context)
        page = context.new_page()
        host = urlsplit(app.address).netloc

        def on_console(message: ConsoleMessage) -> None:
            if message.type == "error" and not refused:
                self.wrong.append(f"console: {message.text} at {message.location}")

        def on_request(request: Request) -> None:
            parts = urlsplit(request.url)
            if parts.scheme not in ("data", "blob") and parts.netloc != host:
                self.wrong.append(f"outside request: {request.url}")

        page.on("console", on_console)
        page.on("pageerror", lambda error: self.wrong.append(f"page error: {error}"))
        page.on("request", on_request)
        page.goto(app.link(**view))
        settled(page)
        return page


def settled(page: Page) -> None:
    """Waits until the shown tab has been drawn by the server."""
    page.wait_for_function(
        "() => { const tab = document.body.dataset.tab;"
        " return document.querySelector('#pulse') && document.querySelector(`[data-region^='${tab}-']`); }"
    )


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Page]]:
    visitor = Visitor(browser)
    yield visitor.open
    for context in visitor.contexts:
        context.close()
    assert not visitor.wrong, "\n".join(visitor.wrong)
