"""Puts the page together: shell, tabs, regions, and the launch settings that go with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from masuka.studio import Studio
from masuka.ui import datasets, home, images, library, settings, shell, training
from masuka.ui.kit import Tab, Wiring
from masuka.ui.theme import theme

STATIC = Path(__file__).parent / "static"
TABS: tuple[Tab, ...] = (home.TAB, datasets.TAB, training.TAB, images.TAB, library.TAB, settings.TAB)


def build(studio: Studio, *, sign_out: Callable[[], None] | None = None) -> gr.Blocks:
    """The page of this studio, ready to be launched; `sign_out` ends every session."""
    wiring = Wiring(studio, TABS, sign_out=sign_out)
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


def launch_settings() -> dict[str, Any]:
    """What `launch` is given in every host; nothing is served from a folder, nothing is open."""
    script = (STATIC / "masuka.js").read_text(encoding="utf-8")
    return {
        "theme": theme(),
        "css_paths": [STATIC / "masuka.css"],
        "head": f"<script>{script}</script>",
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
