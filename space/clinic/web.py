"""What is served: sign-in, files and uploads of our own, and the Gradio apps, behind the gate."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Form, Request, UploadFile
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from bcd_models.errors import BCDError
from clinic import cookies, demo, examinations, export, reports, sign_ins, visitors
from clinic.display import coloured
from clinic.gate import Apps, Gate, pages_of, real_folder
from clinic.installation import Installation
from clinic.lockout import TooManyAttempts
from clinic.models import Models
from clinic.permissions import Actor, NotAllowed, NotFound, NotSignedIn
from clinic.sign_ins import SignInFailed
from clinic.signing_in import sign_in_page, told_page
from clinic.ui.apps import admins_app, doctors_app, guests_app, mounted
from clinic.ui.files import sweep

SWEEP, AGE = 300, 1800  # seconds: how often Gradio's folder is looked at, how long a file stays
MOST_FILES = 64
STATUS = {NotSignedIn: 401, SignInFailed: 401, NotAllowed: 403, NotFound: 404, TooManyAttempts: 429}
HUB_FRAMES = "'self' https://huggingface.co https://*.hf.space"


def served(clinic: Installation, models: Models, folder: Path) -> Gate:
    """The whole app.

    Args:
        clinic: The installation.
        models: On offer.
        folder: Where Gradio keeps its files; nobody else's.
    """
    blocks = {
        "guest": guests_app(models),
        "doctor": doctors_app(clinic, models),
        "admin": admins_app(clinic),
    }
    pages = {role: pages_of([page[0] for page in app.pages]) for role, app in blocks.items()}
    found = {role: mounted(app) for role, app in blocks.items()}

    @asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[None]:
        sweeping = asyncio.create_task(_sweeping(folder))
        async with apps.running(app):
            yield
        sweeping.cancel()
        with suppress(asyncio.CancelledError):
            await sweeping

    own = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, lifespan=running)
    apps = Apps(own, found["guest"], found["doctor"], found["admin"], pages)
    _add_signing_in(own, clinic)
    _add_files(own, clinic, models)
    _add_uploads(own, folder)
    own.add_exception_handler(BCDError, _failed)
    frames = HUB_FRAMES if "SPACE_ID" in os.environ else "'self'"
    return Gate(clinic, apps, real_folder(str(folder)), frames)


async def _sweeping(folder: Path) -> None:
    while True:
        await asyncio.to_thread(sweep, folder, AGE)
        await asyncio.sleep(SWEEP)


def _add_signing_in(own: FastAPI, clinic: Installation) -> None:
    settings = clinic.settings
    shown = {
        "demo": demo.login(settings) if settings.demo else None,
        "guests": settings.guests,
        "hub": bool(settings.hub_accounts),
    }

    def page(status: int = 200, **said: Any) -> HTMLResponse:
        return HTMLResponse(sign_in_page(**shown, **said), status)

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
        try:
            token = sign_ins.sign_in(clinic, username, password, request.state.address)
        except (SignInFailed, TooManyAttempts) as error:
            if visitors.wants_page(request.scope):
                return page(STATUS[type(error)], next_path=next, failure=str(error))
            raise
        sign_ins.sign_out(clinic, _token(request))
        return _with_cookie(_welcome(request, next), request, token)

    @own.post("/logout")
    def log_out(request: Request) -> Response:
        sign_ins.sign_out(clinic, _token(request))
        if visitors.wants_page(request.scope):
            response: Response = RedirectResponse("/login?out=1", 303)
        else:
            response = JSONResponse({"success": True})
        secure = visitors.is_secure(request.scope, settings.proxies)
        response.headers["set-cookie"] = cookies.forgotten(secure=secure)
        response.headers["clear-site-data"] = '"cache"'
        return response

    @own.get("/healthz")
    def health() -> JSONResponse:
        try:
            with clinic.database.reading() as session:
                session.execute(text("SELECT 1"))
        except SQLAlchemyError:
            return JSONResponse({"status": "the database can't be reached"}, 503)
        return JSONResponse({"status": "ok"})

    def _with_cookie(response: Response, request: Request, token: str) -> Response:
        secure = visitors.is_secure(request.scope, settings.proxies)
        response.headers["set-cookie"] = cookies.kept(token, secure=secure)
        return response

    if settings.hub_accounts:
        _add_hub_sign_in(own, clinic, _with_cookie)


def _add_hub_sign_in(
    own: FastAPI, clinic: Installation, with_cookie: Callable[[Response, Request, str], Response]
) -> None:
    """Sign-in with a Hub account, by huggingface_hub's OAuth routes."""
    from huggingface_hub import attach_huggingface_oauth, parse_huggingface_oauth

    attach_huggingface_oauth(own)

    @own.get("/hub")
    def from_hub(request: Request) -> Response:
        known = parse_huggingface_oauth(request)
        if known is None:
            return RedirectResponse("/login", 303)
        name = known.user_info.preferred_username
        token = sign_ins.sign_in_from_hub(clinic, name, request.state.address)
        request.session.clear()
        return with_cookie(RedirectResponse("/", 303), request, token)


def _add_files(own: FastAPI, clinic: Installation, models: Models) -> None:
    """Patients' files: each after its service's own check of who asks, none of them cached."""

    def actor(request: Request) -> Actor | None:
        return sign_ins.actor_of(clinic, _token(request), request.state.address)

    @own.get("/files/examinations/{examination}/{position}/image.png")
    def image(examination: str, position: int, request: Request) -> Response:
        data = examinations.image(clinic, actor(request), examination, position)
        return Response(data, media_type="image/png")

    @own.get("/files/examinations/{examination}/{position}/heat/{model}.png")
    def heat(examination: str, position: int, model: str, request: Request) -> Response:
        data = examinations.heat(clinic, actor(request), examination, position, model)
        return Response(coloured(data), media_type="image/png")

    @own.get("/files/examinations/{examination}/report.pdf")
    def report(examination: str, request: Request) -> Response:
        name, data = reports.handed_out(clinic, actor(request), models, examination)
        return _download(data, "application/pdf", f"{name}.pdf")

    @own.get("/files/patients/{patient}.zip")
    def record(patient: str, request: Request) -> Response:
        data = export.export(clinic, actor(request), patient)
        return _download(data, "application/zip", f"{patient}.zip")


def _add_uploads(own: FastAPI, folder: Path) -> None:
    """In place of Gradio's own: names stay with the user."""

    @own.post("/gradio_api/upload")
    async def upload(files: list[UploadFile]) -> list[str]:
        if len(files) > MOST_FILES:
            raise BCDError(f"hand in at most {MOST_FILES} files at once")
        return [str(await _kept(file, folder)) for file in files]


async def _kept(file: UploadFile, folder: Path) -> Path:
    path = Path(await asyncio.to_thread(tempfile.mkdtemp, dir=folder)) / "upload"
    await asyncio.to_thread(path.write_bytes, await file.read())
    return path


def _failed(request: Request, error: Exception) -> Response:
    """A failure in one sentence, as a page or as JSON."""
    status = STATUS.get(type(error), 400)
    if not visitors.wants_page(request.scope):
        response: Response = JSONResponse({"detail": str(error)}, status)
    elif status == 401:
        response = RedirectResponse("/login", 303)
    else:
        response = HTMLResponse(told_page(str(error)), status)
    if isinstance(error, TooManyAttempts):
        response.headers["retry-after"] = str(error.seconds)
    return response


def _welcome(request: Request, wanted: str) -> Response:
    """Where a sign-in leads: to a page of ours, never elsewhere."""
    if not visitors.wants_page(request.scope):
        return JSONResponse({"success": True})
    ours = wanted.startswith("/") and not wanted.startswith(("//", "/\\"))
    return RedirectResponse(wanted if ours else "/", 303)


def _download(data: bytes, kind: str, name: str) -> Response:
    disposition = f'attachment; filename="{name}"'
    return Response(data, media_type=kind, headers={"content-disposition": disposition})


def _token(request: Request) -> str:
    return cookies.token_in(request.headers.get("cookie", ""))
