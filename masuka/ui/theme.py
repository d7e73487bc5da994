"""The few Gradio variables that show: paper, one accent, system type."""

from __future__ import annotations

import gradio as gr

_SANS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")
_MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")


def theme() -> gr.themes.Base:
    """A theme whose colours are those of the stylesheet, in light and dark."""
    return gr.themes.Base(font=list(_SANS), font_mono=list(_MONO), radius_size=gr.themes.sizes.radius_md).set(
        body_background_fill="#faf9f7",
        body_background_fill_dark="#161412",
        body_text_color="#1c1917",
        body_text_color_dark="#ede9e4",
        body_text_color_subdued="#6b645d",
        body_text_color_subdued_dark="#a8a099",
        background_fill_primary="#ffffff",
        background_fill_primary_dark="#1f1c19",
        background_fill_secondary="#faf9f7",
        background_fill_secondary_dark="#161412",
        block_background_fill="transparent",
        block_background_fill_dark="transparent",
        block_border_width="0px",
        block_border_width_dark="0px",
        block_shadow="none",
        border_color_primary="#e7e3de",
        border_color_primary_dark="#35302b",
        border_color_accent="#c2410c",
        border_color_accent_dark="#fb923c",
        color_accent="#c2410c",
        color_accent_soft="#fff7ed",
        color_accent_soft_dark="#35302b",
        layout_gap="0px",
    )
