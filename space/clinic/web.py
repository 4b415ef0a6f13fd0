"""What is served: sign-in, files and uploads of our own, and the Gradio apps, behind the gate."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import date
from functools import partial
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import fastapi
from fastapi import Depends, FastAPI, Form, HTTPException, Request, UploadFile
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from bcd_models.errors import BCDError, InputError
from clinic.accounts import sign_ins
from clinic.accounts.lockout import TooManyAttempts
from clinic.accounts.sign_ins import SignInFailed
from clinic.analysis.analyse import MAX_IMAGES
from clinic.analysis.display import colour_heat_map
from clinic.analysis.models import ModelGone, Models
from clinic.dashboard import answer_table
from clinic.dashboard.analytics import Period
from clinic.http import cookies, grants, visitors
from clinic.http.failures import UNEXPECTED_STATUS, describe_failure, find_status
from clinic.http.gate import Apps, Gate
from clinic.http.grants import Grants
from clinic.http.plain_pages import render_sign_in, respond_with_sentence
from clinic.installation import Installation
from clinic.records import examinations, export
from clinic.records.patients import Conflict
from clinic.reports import service as reports
from clinic.storage.actor import NotAllowed, NotFound, NotSignedIn
from clinic.storage.files import NotStored, StorageError
from clinic.ui.apps import build_admins_app, build_doctors_app, build_guests_app, mount_app
from clinic.ui.files import delete_old_files
from clinic.upkeep import demo, system

SWEEP_SECONDS = 300  # between two looks at Gradio's folder
MAX_AGE_SECONDS = 1800  # of a file in it
MAX_UPLOADED_FILES = 64  # of one upload
DISK_FULL = "the server's disk is full: contact the administrator"
# An exception that isn't named here has the status of its nearest base.
STATUSES = {
    **UNEXPECTED_STATUS,
    BCDError: 400,
    NotSignedIn: 401,
    SignInFailed: 401,
    NotAllowed: 403,
    NotFound: 404,
    Conflict: 409,
    TooManyAttempts: 429,
    StorageError: 500,
    NotStored: 503,
    ModelGone: 503,
}
OWN_PATHS = re.compile(r"/(?![/\\])[!-\[\]-~]*")  # paths of this site: ASCII without a backslash
HUB_VARIABLES = ("SPACE_ID", "OAUTH_CLIENT_ID", "OAUTH_CLIENT_SECRET")
HUB_FRAMES = "'self' https://huggingface.co https://*.hf.space"
HUB_ROUTE = "/hub"

Id = Annotated[str, fastapi.Path(pattern="^[PE]-[0-9A-Z]+$", max_length=16)]
Position = Annotated[int, fastapi.Path(ge=1, le=MAX_IMAGES)]


def build_app(clinic: Installation, models: Models, folder: Path) -> Gate:
    """Build the whole app; Gradio keeps its files in ``folder``, which is nobody else's.

    InputError where the settings ask for a sign-in that can't be offered here.
    """
    granted = Grants()
    own = build_own_app(clinic, models, folder, granted)
    blocks = {
        "guest": build_guests_app(clinic, models),
        "doctor": build_doctors_app(clinic, models),
        "admin": build_admins_app(clinic, models),
    }
    pages = {
        role: frozenset(f"/{name}" for name, *_ in app.pages if name)
        for role, app in blocks.items()
    }
    apps = Apps(own, **{role: mount_app(app) for role, app in blocks.items()}, pages=pages)

    @asynccontextmanager
    async def run(_app: FastAPI) -> AsyncIterator[None]:
        sweeping = asyncio.create_task(_keep_deleting(folder))
        async with apps.run():
            yield
        sweeping.cancel()
        with suppress(asyncio.CancelledError):
            await sweeping

    own.router.lifespan_context = run
    return Gate(clinic, apps, granted, HUB_FRAMES if "SPACE_ID" in os.environ else "'self'")


def build_own_app(clinic: Installation, models: Models, folder: Path, granted: Grants) -> FastAPI:
    """Build what is served without Gradio; the arguments are as in ``build_app``."""
    own = FastAPI(
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        dependencies=[Depends(_refuse_foreign_target)],
        exception_handlers={BCDError: _respond_to_failure, Exception: _respond_to_failure},
    )
    _add_sign_in(own, clinic)
    _add_health(own, clinic)
    _add_files(own, clinic, models)
    _add_uploads(own, folder, granted)
    return own


async def _keep_deleting(folder: Path) -> None:
    while True:
        await asyncio.to_thread(delete_old_files, folder, MAX_AGE_SECONDS)
        await asyncio.sleep(SWEEP_SECONDS)


def _add_sign_in(own: FastAPI, clinic: Installation) -> None:
    settings = clinic.settings
    shown_page = partial(
        render_sign_in,
        demo=demo.read_login(settings) if settings.demo else None,
        guests=settings.guests,
        hub=bool(settings.hub_accounts),
    )

    def page(status: int = 200, **said: Any) -> HTMLResponse:
        return HTMLResponse(shown_page(**said), status)

    def start_session(request: Request, response: Response, token: str) -> Response:
        """Set the cookie of a session in place of the one there was, which ends."""
        sign_ins.sign_out(clinic, request.state.token)
        response.headers["set-cookie"] = cookies.format_session_cookie(
            token, secure=request.state.secure
        )
        return response

    @own.get("/login")
    def login_page(next: str = "", out: str = "") -> HTMLResponse:
        return page(next_path=next, note="You are signed out." if out else "")

    @own.post("/login")
    def log_in(
        request: Request,
        username: Annotated[str, Form()] = "",
        password: Annotated[str, Form()] = "",
        next: Annotated[str, Form()] = "",
    ) -> Response:
        # No account has a name that can't be printed, and no database takes all such names.
        name = username.strip() if username.strip().isprintable() else ""
        try:
            token = sign_ins.sign_in(clinic, name, password, request.state.address)
        except (SignInFailed, TooManyAttempts) as error:
            if not visitors.wants_page(request.scope):
                raise
            refused = page(find_status(error, STATUSES), next_path=next, failure=str(error))
            return _add_wait(refused, error)
        page_of_ours = next if OWN_PATHS.fullmatch(next) else "/"
        return start_session(request, _succeed(request, page_of_ours), token)

    @own.post("/logout")
    def log_out(request: Request) -> Response:
        sign_ins.sign_out(clinic, request.state.token)
        response = _succeed(request, "/login?out=1")
        response.headers["set-cookie"] = cookies.format_expired_cookie(secure=request.state.secure)
        response.headers["clear-site-data"] = '"cache"'
        return response

    if settings.hub_accounts:
        _add_hub_sign_in(own, clinic, start_session)


def _add_hub_sign_in(
    own: FastAPI, clinic: Installation, start_session: Callable[[Request, Response, str], Response]
) -> None:
    """Sign-in with a Hub account, by huggingface_hub's OAuth routes.

    Outside of a Space those would let in anybody, as the one whose token lies on the machine.
    """
    missing = [name for name in HUB_VARIABLES if not os.environ.get(name)]
    if missing:
        raise InputError(
            f"BCD_HUB_ACCOUNTS works in a Space with `hf_oauth: true` in its README.md alone: "
            f"{', '.join(missing)} not set"
        )
    from huggingface_hub import attach_huggingface_oauth, parse_huggingface_oauth

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*experimental")
        attach_huggingface_oauth(own)

    @own.get(HUB_ROUTE)
    def from_hub(request: Request) -> Response:
        known = parse_huggingface_oauth(request)
        if known is None:
            return RedirectResponse("/login", 303)
        name = known.user_info.preferred_username
        request.session.clear()
        token = sign_ins.sign_in_from_hub(clinic, name, request.state.address)
        return start_session(request, RedirectResponse("/", 303), token)


def _refuse_foreign_target(request: Request) -> None:
    """Refuse other targets: the OAuth routes redirect to whatever they are told."""
    if request.query_params.getlist("_target_url") not in ([], [HUB_ROUTE]):
        raise HTTPException(400, "that is no page of this app")


def _add_health(own: FastAPI, clinic: Installation) -> None:
    @own.get("/healthz")
    def health() -> JSONResponse:
        if not system.can_read_database(clinic.database):
            return JSONResponse({"status": "the database can't be reached"}, 503)
        # A cut log is no reason for another status: no restart and no other server mends it.
        return JSONResponse({"status": "ok", "audit_log": system.find_log_fault(clinic) or "ok"})


def _add_files(own: FastAPI, clinic: Installation, models: Models) -> None:
    """Add patients' files: each after its service's own check of who asks, none of them cached."""

    @own.get("/files/examinations/{examination}/{position}/image.png")
    def image(request: Request, examination: Id, position: Position) -> Response:
        data = examinations.read_image(clinic, request.state.actor, examination, position)
        return Response(data, media_type="image/png")

    @own.get("/files/examinations/{examination}/{position}/heat/{model}.png")
    def heat(request: Request, examination: Id, position: Position, model: str) -> Response:
        data = examinations.read_heat_map(clinic, request.state.actor, examination, position, model)
        return Response(colour_heat_map(data), media_type="image/png")

    @own.get("/files/examinations/{examination}/report.pdf")
    def report(request: Request, examination: Id) -> Response:
        name, data = reports.issue_report(clinic, request.state.actor, models, examination)
        return _respond_with_file(data, "application/pdf", f"{name}.pdf")

    @own.get("/files/answers.csv")
    def answers(request: Request, model: str, first: date, last: date) -> Response:
        period = Period(first, last)
        data = answer_table.export_answers(clinic, request.state.actor, model, period)
        return _respond_with_file(data, "text/csv; charset=utf-8", f"answers-{first}-{last}.csv")

    @own.get("/files/patients/{patient}.zip")
    def record(request: Request, patient: Id) -> Response:
        data = export.export(clinic, request.state.actor, patient)
        return _respond_with_file(data, "application/zip", f"{patient}.zip")


def _add_uploads(own: FastAPI, folder: Path, granted: Grants) -> None:
    """Add uploads in place of Gradio's own: names stay with the user."""

    @own.post("/gradio_api/upload")
    async def upload(request: Request, files: list[UploadFile]) -> list[str]:
        if len(files) > MAX_UPLOADED_FILES:
            raise HTTPException(413, f"hand in at most {MAX_UPLOADED_FILES} files at once")
        paths = await asyncio.to_thread(_store_uploads, [file.file for file in files], folder)
        granted.claim(request.state.owner, map(grants.name_file, paths))
        return paths

    @own.get("/gradio_api/upload_progress")
    def progress() -> Response:
        """Tell Gradio's page, which asks how far an upload is, that it needn't wait."""
        return Response('data: {"msg": "done"}\n\n', media_type="text/event-stream")


def _store_uploads(files: list[BinaryIO], folder: Path) -> list[str]:
    """Write files under names that tell nothing; returns their paths."""
    if shutil.disk_usage(folder).free < system.MIN_FREE_BYTES:
        raise HTTPException(503, DISK_FULL)
    paths: list[Path] = []
    try:
        for file in files:
            paths.append(Path(tempfile.mkdtemp(dir=folder)) / "upload")
            with paths[-1].open("xb") as kept:
                shutil.copyfileobj(file, kept)
    except OSError:
        for path in paths:
            shutil.rmtree(path.parent, ignore_errors=True)
        raise HTTPException(503, DISK_FULL) from None
    return list(map(str, paths))


async def _respond_to_failure(request: Request, error: Exception) -> Response:
    """Return a failure in one sentence, as a page or as JSON."""
    status = find_status(error, STATUSES)
    if status == 401 and visitors.wants_page(request.scope):
        return RedirectResponse(visitors.sign_in_path(request.scope), 303)
    # What was unexpected goes on to the gate, and into the log there.
    return _add_wait(respond_with_sentence(request.scope, status, describe_failure(error)), error)


def _add_wait(response: Response, error: Exception) -> Response:
    if isinstance(error, TooManyAttempts):
        response.headers["retry-after"] = str(error.seconds)
    return response


def _succeed(request: Request, page: str) -> Response:
    """Lead a browser to a page, and tell a script that it worked."""
    if visitors.wants_page(request.scope):
        return RedirectResponse(page, 303)
    return JSONResponse({"success": True})


def _respond_with_file(data: bytes, kind: str, name: str) -> Response:
    disposition = f'attachment; filename="{name}"'
    return Response(data, media_type=kind, headers={"content-disposition": disposition})
