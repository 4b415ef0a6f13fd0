"""The three Gradio apps: the guests', the doctors' and the admins'."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gradio as gr
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from gradio.block_function import BlockFunction
from gradio.route_utils import FnIndexInferError

from clinic.analysis.models import Models
from clinic.http.failures import user_message
from clinic.installation import Installation
from clinic.ui import look
from clinic.ui.admin.accounts_page import add_accounts_page
from clinic.ui.admin.audit_page import add_audit_page
from clinic.ui.admin.settings_page import add_settings_page
from clinic.ui.doctor.examination_page import add_examination_page
from clinic.ui.doctor.examine_page import add_examine_page
from clinic.ui.doctor.patient_page import add_patient_page
from clinic.ui.doctor.patients_page import add_patients_page
from clinic.ui.doctor.record_endpoints import add_record_endpoints
from clinic.ui.doctor.slide_page import add_slide_page
from clinic.ui.doctor.worklist_page import add_worklist_page
from clinic.ui.frame import TITLE, add_head
from clinic.ui.shared.account_page import add_account_page
from clinic.ui.shared.check_page import add_check_page
from clinic.ui.shared.dashboard_page import add_dashboard_page
from clinic.ui.shared.endpoints import add_endpoints
from clinic.ui.shared.try_page import add_try_page

MAX_UPLOAD = "64mb"
MAX_WAITING = 64
# What Gradio raises, outside of listeners, where a call doesn't fit its functions.
WRONG_CALL_ERRORS = (FnIndexInferError, LookupError, TypeError, ValueError)
MAX_CONCURRENT = 8  # calls of one listener; of those that analyse images, two


def build_guests_app(clinic: Installation, models: Models) -> gr.Blocks:
    """Build the one page: try images."""
    app = _create_blocks()
    with app:
        add_head(app, "guest", "/")
        add_try_page(app, clinic, models)
        add_endpoints(clinic, models)
    return app


def build_doctors_app(clinic: Installation, models: Models) -> gr.Blocks:
    """Build a doctor's pages."""
    app = _create_blocks()
    with app:
        add_head(app, "doctor", "/")
        add_worklist_page(app, clinic)
        add_endpoints(clinic, models)
        add_record_endpoints(clinic, models)
    with _begin_page(app, "doctor", "Patients", "/patients"):
        add_patients_page(app, clinic)
    with _begin_page(app, "doctor", "Patient", "/patient", "/patients"):
        add_patient_page(app, clinic)
    with _begin_page(app, "doctor", "New examination", "/examine", "/patients"):
        add_examine_page(app, clinic, models)
    with _begin_page(app, "doctor", "Examination", "/examination", "/"):
        add_examination_page(app, clinic, models)
    with _begin_page(app, "doctor", "Try images", "/try"):
        add_try_page(app, clinic, models)
    with _begin_page(app, "doctor", "Whole slide", "/slide"):
        add_slide_page(app, clinic, models)
    _add_shared_pages(app, "doctor", clinic, models)
    return app


def build_admins_app(clinic: Installation, models: Models) -> gr.Blocks:
    """Build an admin's pages."""
    app = _create_blocks()
    with app:
        add_head(app, "admin", "/")
        add_accounts_page(app, clinic)
    with _begin_page(app, "admin", "Audit log", "/audit"):
        add_audit_page(app, clinic)
    with _begin_page(app, "admin", "Settings", "/settings"):
        add_settings_page(app, clinic, models)
    _add_shared_pages(app, "admin", clinic, models)
    return app


def _add_shared_pages(app: gr.Blocks, role: str, clinic: Installation, models: Models) -> None:
    """Add the pages that doctors and admins both have."""
    with _begin_page(app, role, "Dashboard", "/dashboard"):
        add_dashboard_page(app, role, clinic, models)
    with _begin_page(app, role, "Check a report", "/check"):
        add_check_page(clinic)
    with _begin_page(app, role, "Account", "/account"):
        add_account_page(app, role, clinic, models)


@contextmanager
def _begin_page(app: gr.Blocks, role: str, title: str, path: str, link: str = "") -> Iterator[None]:
    """Begin a page of an app; ``link`` is the one in the head that it belongs to, or its own."""
    with app.route(title, path):
        add_head(app, role, link or path)
        yield


def _create_blocks() -> gr.Blocks:
    return gr.Blocks(title=TITLE, analytics_enabled=False)


def mount_app(app: gr.Blocks) -> FastAPI:
    """Mount an app at the root, as it is served."""
    _report_failures(app)
    app.has_launched = True  # or Gradio, when mounted, takes any path on the server for an input
    outer = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "SSR mode is not supported")  # nor is it asked for
        served: FastAPI = gr.mount_gradio_app(
            outer,
            app.queue(max_size=MAX_WAITING, default_concurrency_limit=MAX_CONCURRENT),
            path="/",
            theme=look.build_theme(),
            css_paths=[look.STYLE],
            max_file_size=MAX_UPLOAD,
            footer_links=[],
            run_history=False,
            show_error=False,
            ssr_mode=False,
            mcp_server=False,
            app_kwargs={
                "exception_handlers": dict.fromkeys(WRONG_CALL_ERRORS, _respond_to_wrong_call)
            },
        )
    return served


def _respond_to_wrong_call(_request: Request, error: Exception) -> JSONResponse:
    user_message(error)
    return JSONResponse({"detail": "there is no such function, or it takes other inputs"}, 400)


def _add_defaults(function: BlockFunction, inputs: list[Any]) -> list[Any]:
    """Return a call's inputs with the defaults of those last ones that a plain request leaves out.

    gradio_client adds them itself. Where one has no default, Gradio refuses the call.
    """
    missing = [getattr(one, "value", None) for one in function.inputs[len(inputs) :]]
    return inputs if None in missing else [*inputs, *missing]


def _report_failures(app: gr.Blocks) -> None:
    """Let a listener's failure reach the caller as one sentence.

    And keep out of the log what Gradio prints of it: that holds what the user handed in.
    """
    process = app.process_api

    async def process_quietly(
        block_fn: BlockFunction, inputs: list[Any], **named: Any
    ) -> dict[str, Any]:
        try:
            return await process(block_fn, _add_defaults(block_fn, inputs), **named)
        except gr.Error as error:
            error.print_exception = False
            raise
        except Exception as error:
            raise gr.Error(user_message(error), print_exception=False) from None

    app.process_api = process_quietly  # type: ignore[assignment, method-assign]
