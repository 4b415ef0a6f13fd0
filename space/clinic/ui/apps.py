"""The three Gradio apps: the guests', the doctors' and the admins'."""

from __future__ import annotations

import gradio as gr
from fastapi import FastAPI

from clinic.installation import Installation
from clinic.models import Models
from clinic.ui import look
from clinic.ui.endpoints import add_endpoints
from clinic.ui.examination_page import add_examination_page
from clinic.ui.examine_page import add_examine_page
from clinic.ui.frame import TITLE, add_head
from clinic.ui.record_endpoints import add_record_endpoints
from clinic.ui.try_page import add_try_page
from clinic.ui.worklist_page import add_worklist_page

MAX_UPLOAD = "64mb"
MAX_WAITING = 64
AT_ONCE = 8  # calls of one listener; of those that analyse images, two


def guests_app(models: Models) -> gr.Blocks:
    """One page: try images."""
    with _blocks() as app:
        add_head(app, "guest", "/")
        add_try_page(models)
        add_endpoints(models)
    return app


def doctors_app(clinic: Installation, models: Models) -> gr.Blocks:
    """A doctor's pages."""
    with _blocks() as app:
        add_head(app, "doctor", "/")
        add_worklist_page(app, clinic)
        add_endpoints(models)
        add_record_endpoints(clinic, models)
    with app.route("New examination", "/examine"):
        add_head(app, "doctor", "/patients")
        add_examine_page(app, clinic, models)
    with app.route("Examination", "/examination"):
        add_head(app, "doctor", "/")
        add_examination_page(app, clinic, models)
    with app.route("Try images", "/try"):
        add_head(app, "doctor", "/try")
        add_try_page(models)
    return app


def admins_app(clinic: Installation) -> gr.Blocks:
    """An admin's pages."""
    with _blocks() as app:
        add_head(app, "admin", "/")
    return app


def _blocks() -> gr.Blocks:
    return gr.Blocks(title=TITLE, analytics_enabled=False)


def mounted(app: gr.Blocks) -> FastAPI:
    """An app as it is served, at the root."""
    outer = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    return gr.mount_gradio_app(
        outer,
        app.queue(max_size=MAX_WAITING, default_concurrency_limit=AT_ONCE),
        path="/",
        theme=look.theme(),
        css_paths=[look.STYLE],
        max_file_size=MAX_UPLOAD,
        footer_links=[],
        run_history=False,
        show_error=False,
        ssr_mode=False,
        mcp_server=False,
    )
