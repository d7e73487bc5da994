"""Puts the page together: shell, tabs, regions, and the launch settings that go with them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr

from masuka.studio import Studio
from masuka.ui import datasets, home, images, library, models, settings, shell, training
from masuka.ui.kit import Tab, Wiring
from masuka.ui.theme import theme

Made = TypeVar("Made")
STATIC = Path(__file__).parent / "static"
SCRIPTS = ("masuka.js", "pictures.js", "masks.js", "captions.js", "training.js")
STYLES = ("masuka.css", "pictures.css", "captions.css", "report.css")
"""In this order; later ones build on what the first one offers."""
TABS: tuple[Tab, ...] = (home.TAB, datasets.TAB, training.TAB, images.TAB, library.TAB, models.TAB, settings.TAB)


def build(studio: Studio) -> gr.Blocks:
    """The page of this studio, ready to be launched."""
    return in_a_loop(lambda: _build(studio))


def _build(studio: Studio) -> gr.Blocks:
    wiring = Wiring(studio, TABS)
    with gr.Blocks(title="masuka", analytics_enabled=False, fill_width=True) as page:
        for region in shell.REGIONS:
            wiring.place(region)
        for tab in TABS:
            with gr.Column(elem_id=f"page-{tab.name}", elem_classes=["page", tab.layout]):
                for number, regions in enumerate(tab.columns):
                    with gr.Column(elem_id=f"{tab.name}-column-{number}"):
                        for region in regions:
                            wiring.place(region, tab.name)
        wiring.bind(page)
    page.queue(api_open=False, max_size=200, default_concurrency_limit=4)
    return page


def in_a_loop(make: Callable[[], Made]) -> Made:
    """What `make` returns, called where an event loop runs.

    Gradio (6.31) leaves an event loop open for each lock that it makes outside of one.
    """

    async def call() -> Made:
        return make()

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(call())
    return make()


def launch_settings() -> dict[str, Any]:
    """What `launch` is given on every host; no folder is served, nothing is open."""
    script = "".join((STATIC / name).read_text(encoding="utf-8") for name in SCRIPTS)
    # In the head, not as `css_paths`: Gradio rewrites those selectors to reach its own
    # container only, and applies them after the first paint.
    style = "".join((STATIC / name).read_text(encoding="utf-8") for name in STYLES)
    return {
        "theme": theme(),
        "head": f'<style id="masuka-style">{style}</style><script>{script}</script>',
        "favicon_path": str(STATIC / "icon.svg"),
        "footer_links": [],
        "run_history": False,
        "show_error": False,
        "ssr_mode": False,
        "mcp_server": False,
        "enable_monitoring": False,
        "pwa": False,
        "share": False,
        "allowed_paths": [],
        "strict_cors": True,
        "max_file_size": "1mb",
        "state_session_capacity": 200,
        "quiet": True,
    }
