"""What the page costs a collaborator's link: requests and bytes of a first and a second load.

ngrok's free plan allows 20,000 requests and 1 GB a month.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright

from benchmarks.harness import Bars, Figures, bar, say
from masuka.config import Settings, Workspace
from masuka.studio import Studio
from tests.browser.conftest import ARGUMENTS, App, chromium, settled, start, stop
from tests.tunnel_stand_in import Proxy, certificate

NAME = "calm-otter.example"
PICTURES = 24
IDLE_S = 65.0
MOST_REQUESTS, MOST_IDLE = 99, 3


def page_load() -> tuple[Figures, Bars]:
    """Loads a data set's page twice through a stand-in of a tunnel, and leaves it open."""
    say("the page through a link")
    with tempfile.TemporaryDirectory(prefix="masuka-page-") as folder, _away(Path(folder)) as (app, proxy), _browser() as page:
        page.goto(app.link(tab="datasets", dataset=1).replace(app.address, f"{proxy.url(NAME)}/"))
        _wait(page)
        cold = (len(proxy.passed), proxy.sent_bytes)
        page.reload()
        _wait(page)
        warm = (len(proxy.passed) - cold[0], proxy.sent_bytes - cold[1])
        before = len(proxy.passed)
        page.wait_for_timeout(IDLE_S * 1000)
        idle = len(proxy.passed) - before
    figures: Figures = {
        "page_cold_requests": cold[0], "page_cold_bytes": cold[1], "page_warm_requests": warm[0],
        "page_warm_bytes": warm[1], "page_idle_requests_in_65_s": idle,
    }  # fmt: skip
    bars = {
        "page_cold_requests": bar(cold[0], f"<= {MOST_REQUESTS}"),
        "page_idle_requests_in_65_s": bar(idle, f"<= {MOST_IDLE}"),
    }
    return figures, bars


@contextmanager
def _away(folder: Path) -> Iterator[tuple[App, Proxy]]:
    with Studio.open(Settings(workspace=Workspace(folder / "home"), device="cpu")) as studio:
        dataset = studio.datasets.create(name="Mira", trigger_word="mira7x", class_word="robot")
        studio.jobs.wait(studio.datasets.add_samples(dataset.id, seed=3, count=PICTURES))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MASUKA_ALLOWED_HOSTS", NAME)
        app = start(folder / "home")
    proxy = Proxy(app.address, certificate(folder, NAME))
    try:
        yield app, proxy
    finally:
        proxy.end()
        stop(app)


@contextmanager
def _browser() -> Iterator[Page]:
    rules = f"--host-resolver-rules=MAP {NAME} 127.0.0.1"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=[*ARGUMENTS, rules])
        yield browser.new_context(ignore_https_errors=True).new_page()
        browser.close()


def _wait(page: Page) -> None:
    settled(page)
    page.wait_for_load_state("networkidle")
