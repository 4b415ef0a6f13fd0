"""What all pages share: theme, style sheet, and how events wait for their turn.

System fonts only, so that nothing is fetched from elsewhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

STYLE = Path(__file__).with_name("look.css")
SANS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "DejaVu Sans", "sans-serif")
# Listeners share a limit only through one id. Two at once, so that a long image blocks nobody.
QUEUED: dict[str, Any] = {"concurrency_id": "images", "concurrency_limit": 2}
MONO = ("ui-monospace", "Consolas", "DejaVu Sans Mono", "monospace")


def build_theme() -> gr.themes.Base:
    """Build the theme: quiet violet and slate, light and dark."""
    return gr.themes.Base(
        primary_hue=gr.themes.colors.violet,
        neutral_hue=gr.themes.colors.slate,
        font=SANS,
        font_mono=MONO,
        text_size=gr.themes.sizes.text_md,
        radius_size=gr.themes.sizes.radius_md,
    ).set(
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_600",
        button_primary_text_color="white",
    )
