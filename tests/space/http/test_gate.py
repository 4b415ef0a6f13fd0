"""The gate, tried by strangers, by guests, and by one account against another."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from starlette.routing import Mount
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from clinic.accounts import sign_ins
from clinic.http import cookies
from clinic.http.failures import UNEXPECTED
from clinic.storage.actor import Actor
from tests.support.clinic import NAMES, PATCHES
from tests.support.serving import (
    PAGE,
    SITE,
    Serving,
    add_account,
    answer,
    in_json,
    sign_in,
    start_call,
    upload,
)

pytestmark = pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning")  # in Gradio
ROLES = ("guest", "doctor", "admin")
REFUSED_STATUSES = {303, 400, 401, 403, 404, 405, 422, 429}
STATIC = {"/theme.css", "/gradio_api/theme.css", "/favicon.ico"}
# What may answer a stranger otherwise; the last is where guests are let in.
SIGN_IN = {("GET", "/login"), ("GET", "/healthz"), ("POST", "/logout")}
GUESTS = {
    "GET /",
    "GET /config",
    "GET /manifest.json",
    "GET /robots.txt",
    "GET /gradio_api/app_id",
    "GET /gradio_api/startup-events",
    "GET /gradio_api/info",
    "GET /gradio_api/heartbeat/x",
    "GET /gradio_api/upload_progress",
}


def walk(app: Any, above: str = "") -> Iterator[str]:
    """The path of every route below an app, parameters filled in."""
    for route in getattr(app, "routes", ()):
        if isinstance(route, Mount):
            yield from walk(route.app, above + route.path)
        elif hasattr(route, "original_router"):
            yield from walk(route.original_router, above)
        else:
            yield above + re.sub(r"\{[^}]*\}", "x", route.path)


@pytest.fixture(scope="module")
def paths(serving: Serving) -> list[str]:
    """Every path behind the gate, and some that look like one."""
    apps = serving.gate.apps
    found = {path for app in (apps.own, apps.guest, apps.doctor, apps.admin) for path in walk(app)}
    assert len(found) > 90
    assert {"/login", "/config", "/audit", "/gradio_api/queue/join", "/monitoring/x"} <= found
    return sorted(found)


def asked(client: TestClient, method: str, path: str, **more: Any) -> tuple[int, str]:
    """Status and, where it isn't an endless stream, the answer."""
    body = {"json": {}} if method == "POST" else {}
    with client.stream(method, path, **body, **more) as reply:
        assert "access-control-allow-origin" not in reply.headers, path
        endless = reply.headers.get("content-type", "").startswith("text/event-stream")
        return reply.status_code, "" if endless else reply.read().decode("utf-8", "replace")


def answered(client: TestClient, paths: list[str], **more: Any) -> set[str]:
    """What answers anything but a refusal."""
    found = set()
    for path in paths:
        for method in ("GET", "POST"):
            status, text = asked(client, method, path, **more)
            assert status != 500, f"{method} {path}: {text}"
            assert "Traceback" not in text
            if status not in REFUSED_STATUSES:
                found.add(f"{method} {path}")
    return found


# A stranger


def test_a_stranger_reaches_the_sign_in_and_the_guests_app_alone(serving, paths) -> None:
    ways = {f"{method} {path}" for method, path in SIGN_IN}
    allowed = ways | GUESTS | {f"GET {path}" for path in STATIC}
    assert answered(serving.visitor(), paths) == allowed


def test_without_guests_a_stranger_reaches_the_sign_in_alone(serving, paths) -> None:
    closed = serving.set_up(guests=False)
    ways = {f"{method} {path}" for method, path in SIGN_IN} | {f"GET {path}" for path in STATIC}
    assert answered(closed.visitor(), paths) == ways
    assert closed.visitor().post("/gradio_api/upload", files={"files": b"x"}).status_code == 401
    page = closed.visitor().get("/", headers=PAGE)
    assert (page.status_code, page.headers["location"]) == (303, "/login")


def test_a_browser_is_led_to_the_sign_in_by_an_account_s_page(serving) -> None:
    pages = serving.gate.apps.pages
    for path in pages["doctor"] | pages["admin"]:
        reply = serving.visitor().get(f"{path}?id=P-1", headers=PAGE)
        assert (reply.status_code, reply.headers["location"]) == (
            303,
            f"/login?next=%2F{path[1:]}%3Fid%3DP-1",
        )


@pytest.mark.parametrize("role", ["guest", "doctor"])
@pytest.mark.parametrize(
    "path",
    [
        "",
        "*",
        "nothing",
        "/nothing",
        "/LOGIN",
        "/Config",
        "/config/",
        "/login/",
        "/hubris",
        "/try/",
        "/gradio_api/",
        "//",
        "//config",
        "/./config",
        "/static/../config",
        "/static/../../routes.py",
        "/assets/../../../routes.py",
        "/svelte/../../routes.py",
        "/assets//etc/passwd",
        "/static/\0",
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=../../etc/passwd",
        "/gradio_api/file=https://evil.example/",
        "/gradio_api/file/etc/passwd",
        "/gradio_api/proxy=https://evil.hf.space/",
        "/gradio_api/run/predict",
        "/config\n",
        "/login\n",
        "/logout\r\nx: y",
        "/\0",
        "/\ufffd",
        "/" + "a" * 60_000,
        "/gradio_api/heartbeat/" + "a" * 2000,
        "/gradio_api/queue/data",
        "/gradio_api/call/predict/0123456789abcdef0123456789abcdef",
        "/gradio_api/stream/x/y/z/playlist.m3u8",
    ],
)
def test_odd_paths_lead_nowhere(serving, owner, role, path) -> None:
    cookie = f"{cookies.NAME}={owner.cookies[cookies.NAME]}" if role == "doctor" else ""
    kind = {"content-type": "application/json", "cookie": cookie}
    for accept in ("*/*", "text/html"):
        for method, body in (("GET", b""), ("POST", b"{}")):
            status, text = serving.raw(method, path, {**kind, "accept": accept}, [body])
            assert status in {403, 404, 405, 422}, text[:200]
            assert "Traceback" not in text
            assert "root:" not in text
            assert "def " not in text


def test_other_methods_are_refused(serving) -> None:
    for method in ("PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"):
        for path in ("/", "/login", "/gradio_api/queue/join", "/gradio_api/upload", "/theme.css"):
            assert serving.visitor().request(method, path).status_code == 405


def test_web_sockets_are_refused(serving) -> None:
    for path in ("/", "/gradio_api/queue/join", "/queue/join"):
        with pytest.raises(WebSocketDisconnect), serving.visitor().websocket_connect(path):
            pass


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'"x"', b"[" * 100_000, b"\xff\xfe"],
)
@pytest.mark.parametrize("path", ["queue/join", "call/predict", "cancel", "reset"])
def test_a_call_is_a_json_object(serving, path, body) -> None:
    headers = {"content-type": "application/json"}
    reply = serving.visitor().post(f"/gradio_api/{path}", content=body, headers=headers)
    assert reply.status_code == 422


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("call/nothing", {"data": []}),
        ("call/v2/nothing", {"image": None}),
        ("call/v2/predict", {"unknown": 1}),
        ("queue/join", {"data": [], "session_hash": "a"}),
        ("queue/join", {"data": [], "session_hash": "b", "fn_index": 99999}),
        ("queue/join", {"data": [], "session_hash": "c", "fn_index": -1}),
        ("queue/join", {"data": [], "fn_index": 0}),
        ("cancel", {"session_hash": "e", "fn_index": 0, "event_id": "x"}),
    ],
)
def test_a_call_of_what_there_is_not_is_refused_in_words(serving, path, body) -> None:
    reply = serving.visitor().post(f"/gradio_api/{path}", json=body)
    assert 400 <= reply.status_code < 500
    assert reply.json()["detail"]


# Roles


def test_each_role_has_its_own_pages_and_functions(serving) -> None:
    pages = serving.gate.apps.pages
    assert "/patients" in pages["doctor"] - pages["admin"]
    assert "/audit" in pages["admin"] - pages["doctor"]
    named = {}
    for role in ROLES[1:]:
        client = serving.visitor(add_account(serving.clinic, role))
        for path in sorted(pages["doctor"] | pages["admin"]):
            reply = client.get(path, headers=PAGE)
            assert reply.status_code == (200 if path in pages[role] else 404), path
            assert (reply.status_code == 200) or "There is no such page" in reply.text
        named[role] = set(client.get("/gradio_api/info").json()["named_endpoints"])
        shown = {page for page, _, *_ in client.get("/config").json()["pages"]}
        assert {f"/{page}" for page in shown if page} == pages[role]
    guests = set(serving.visitor().get("/gradio_api/info").json()["named_endpoints"])
    assert guests == {"/models", "/predict", "/explain", "/report"}
    assert guests < named["doctor"]
    assert named["admin"] == set()


def test_an_account_reaches_no_more_kinds_of_path_than_a_guest(serving, paths) -> None:
    assert serving.raw("GET", "/gradio_api/heartbeat/x")[0] == 200
    for role in ROLES[1:]:
        client = serving.visitor(add_account(serving.clinic, role))
        pages = {f"GET {path}" for path in serving.gate.apps.pages[role]}
        quiet = [path for path in paths if path not in ("/logout", "/login")]
        allowed = GUESTS | pages | {f"GET {path}" for path in (*STATIC, "/healthz")}
        assert answered(client, quiet) == allowed - {"GET /gradio_api/heartbeat/x"}  # a guest's


# Other sites


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": f"{SITE}.evil.example"},
        {"origin": f"{SITE}:81"},
        {"sec-fetch-site": "cross-site"},
        {"origin": SITE, "sec-fetch-site": "cross-site"},
    ],
)
def test_another_site_can_not_post(serving, headers) -> None:
    actor = add_account(serving.clinic)
    client = serving.visitor(actor)
    for path in ("/login", "/logout", "/gradio_api/upload", "/gradio_api/queue/join", "/nothing"):
        reply = client.post(path, headers=headers)
        assert (reply.status_code, reply.json()) == (
            403,
            {"detail": "another site's page may not do this"},
        )
    assert client.get("/try").status_code == 200  # still signed in
    assert sign_in(serving.visitor(), actor.name, headers={"origin": SITE}).status_code == 200


def test_no_other_site_may_read(serving, paths) -> None:
    answered(serving.visitor(), paths, headers={"origin": "http://evil.example"})  # looks for CORS
    preflight = {"origin": "http://evil.example", "access-control-request-method": "POST"}
    reply = serving.visitor().options("/gradio_api/queue/join", headers=preflight)
    assert reply.status_code == 405
    assert not [name for name in reply.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("clinic.example", 200),
        ("CLINIC.example:8443", 200),
        ("evil.example", 400),
        ("clinic.example.evil.example", 400),
        ("clinic.example@evil.example", 400),
        ("evil.example/clinic.example", 400),
        ("", 400),
    ],
)
def test_the_app_is_reached_by_its_names_alone(serving, host, status) -> None:
    named = serving.set_up(hosts=("Clinic.Example", "other.example"))
    for path in ("/login", "/healthz", "/theme.css", "/"):
        assert named.visitor(host=host).get(path).status_code == status


# Headers


@pytest.mark.parametrize(
    "path", ["/", "/login", "/config", "/healthz", "/nothing", "/gradio_api/queue/join", "/try"]
)
def test_every_answer_is_guarded(serving, path) -> None:
    for method in ("GET", "POST", "PUT"):
        headers = serving.visitor().request(method, path, headers=PAGE).headers
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
        assert policy["default-src"] == "'self' data: blob:"
        assert policy["frame-ancestors"] == "'self'"
        assert policy["object-src"] == "'none'"


def test_static_files_may_be_kept(serving) -> None:
    page = serving.visitor().get("/").text
    (script,) = set(re.findall(r'src="\.(/assets/[\w-]+\.js)"', page))
    for path in (script, *sorted(STATIC)):
        reply = serving.visitor().get(path)
        assert reply.status_code == 200
        assert "no-store" not in reply.headers.get("cache-control", "")
        assert reply.headers["x-content-type-options"] == "nosniff"


# One account, or a guest, against another


@pytest.fixture(scope="module")
def owner(serving: Serving) -> TestClient:
    return serving.visitor(add_account(serving.clinic))


@pytest.fixture(scope="module")
def others(serving: Serving) -> list[TestClient]:
    return [
        serving.visitor(add_account(serving.clinic)),
        serving.visitor(add_account(serving.clinic, "admin")),
        serving.visitor(),
    ]


def refused_to(clients: list[TestClient], method: str, path: str, **more: Any) -> None:
    for client in clients:
        reply = client.request(method, path, **more)
        assert reply.status_code == 404, reply.text
        assert "there is nothing of that name" in reply.json()["detail"]


def test_an_upload_is_its_owner_s(serving, owner, others) -> None:
    path = upload(owner, PATCHES[0].read_bytes())
    up = path.replace(serving.folder.name, f"../{serving.folder.parent.name}/{serving.folder.name}")
    spellings = (path, path.replace("/", "//"), f"/proc/self/root{path}", f"{path}/.", up)
    for said in spellings:
        data = {"data": [in_json(said), NAMES[0]]}
        refused_to(others, "POST", "/gradio_api/call/predict", json=data)
        joined = {**data, "session_hash": "of-others", "fn_index": 0}
        refused_to(others[:1], "POST", "/gradio_api/queue/join", json=joined)
        refused_to(others, "GET", f"/gradio_api/file={said}")
    escaped = json.dumps({"data": [in_json(path), NAMES[0]]}).replace("upload", r"uplo\u0061d")
    headers = {"content-type": "application/json"}
    refused_to(others, "POST", "/gradio_api/call/predict", content=escaped, headers=headers)
    assert answer(owner, "predict", in_json(path), NAMES[0])


def test_a_guest_s_upload_is_no_account_s(serving, owner) -> None:
    path = upload(serving.visitor(), PATCHES[0].read_bytes())
    refused_to([owner], "POST", "/gradio_api/call/predict", json={"data": [in_json(path)]})


def test_the_second_of_two_names_of_one_key_counts(serving, owner, others) -> None:
    """Whatever is looked at is what is run."""
    theirs = upload(owner, PATCHES[0].read_bytes())
    ours = upload(others[2], PATCHES[1].read_bytes())
    for first, second, status in ((theirs, ours, 200), (ours, theirs, 404)):
        body = f'{{"data": [{{"path": "{first}", "path": "{second}"}}, "{NAMES[0]}"]}}'
        headers = {"content-type": "application/json"}
        reply = others[2].post("/gradio_api/call/predict", content=body, headers=headers)
        assert reply.status_code == status


@pytest.mark.parametrize("name", ["file", "key"])
def test_nobody_can_name_a_file_of_the_server(serving, owner, others, name) -> None:
    stored = next((serving.clinic.settings.data / "files").glob("??/*"), None)
    path = stored if name == "file" and stored else serving.clinic.settings.data / "audit.key"
    assert path.exists()
    for said in (str(path), f"file://{path}", "https://evil.example/a.png"):
        data = {"data": [in_json(said), NAMES[0]]}
        refused_to([owner, *others], "POST", "/gradio_api/call/predict", json=data)
        refused_to([owner, *others], "GET", f"/gradio_api/file={said}")


def test_gradio_by_itself_takes_none_either(serving) -> None:
    """Should the gate ever let such a path through."""
    client = replace(serving, gate=serving.gate.apps.guest).visitor()
    event = start_call(client, "predict", in_json(str(PATCHES[0])), NAMES[0])
    assert "event: error" in client.get(f"/gradio_api/call/predict/{event}").text


def test_an_answer_is_its_owner_s(serving, owner, others) -> None:
    path = upload(owner, PATCHES[0].read_bytes())
    event = start_call(owner, "explain", in_json(path), NAMES[0], "predicted", 0.5)
    refused_to(others, "GET", f"/gradio_api/call/explain/{event}")
    refused_to(others, "GET", f"/gradio_api/call/anything/{event}")
    refused_to(others, "GET", f"/gradio_api/queue/data?session_hash={event}")
    ending = {"session_hash": event, "fn_index": 0, "event_id": event}
    refused_to(others, "POST", "/gradio_api/cancel", json=ending)
    refused_to(others, "POST", "/gradio_api/reset", json={"event_id": event})
    stream = owner.get(f"/gradio_api/call/explain/{event}").text
    overlay, _ = json.loads(stream.rpartition("data: ")[2])
    kept = f"/gradio_api/file={overlay['path']}"
    refused_to(others, "GET", kept)
    assert owner.get(kept).content.startswith(b"\x89PNG")


def test_a_session_is_its_owner_s(serving, owner, others) -> None:
    number = function(owner, "models")
    joining = {"data": [], "fn_index": number, "session_hash": "owner-s"}
    assert owner.post("/gradio_api/queue/join", json=joining).status_code == 200
    refused_to(others, "POST", "/gradio_api/queue/join", json=joining)
    refused_to(others, "GET", "/gradio_api/queue/data?session_hash=owner-s")
    refused_to(others, "GET", "/gradio_api/queue/data?session_hash=x&session_hash=owner-s")
    refused_to(others, "GET", "/gradio_api/heartbeat/owner-s")
    ending = {"session_hash": "owner-s", "fn_index": number, "event_id": "x"}
    refused_to(others, "POST", "/gradio_api/cancel", json=ending)
    stream = owner.get("/gradio_api/queue/data?session_hash=owner-s").text
    assert "process_completed" in stream
    assert NAMES[0] in stream


def function(client: TestClient, name: str) -> int:
    """Number of a named endpoint's function."""
    (number,) = [
        one["id"] for one in client.get("/config").json()["dependencies"] if one["api_name"] == name
    ]
    return number


def test_a_page_from_before_the_sign_in_can_not_go_on_as_the_account(serving) -> None:
    client = serving.visitor()
    joining = {"data": [], "fn_index": function(client, "models"), "session_hash": "guest-s"}
    assert client.post("/gradio_api/queue/join", json=joining).status_code == 200
    sign_in(client, add_account(serving.clinic).name)
    refused_to([client], "POST", "/gradio_api/queue/join", json=joining)


def test_a_download_needs_no_compression_to_be_granted(serving, owner) -> None:
    """Brotli would hide from the gate what an answer gives."""
    path = upload(owner, PATCHES[2].read_bytes())
    owner_too = {"accept-encoding": "br, gzip"}
    reply = owner.post(
        "/gradio_api/call/report", json={"data": [in_json(path), NAMES[0]]}, headers=owner_too
    )
    event = reply.json()["event_id"]
    stream = owner.get(f"/gradio_api/call/report/{event}", headers=owner_too).text
    (pdf,) = json.loads(stream.rpartition("data: ")[2])
    assert owner.get(f"/gradio_api/file={pdf['path']}").content.startswith(b"%PDF")


# The server's end


def test_an_open_page_does_not_keep_the_server_from_stopping(serving) -> None:
    gate = replace(serving.gate, ending=asyncio.Event())
    path = "/gradio_api/heartbeat/open"
    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": []}
    begun, nothing_more = asyncio.Event(), asyncio.Event()

    async def receive() -> dict[str, Any]:
        await nothing_more.wait()
        return {}

    async def send(message: dict[str, Any]) -> None:
        begun.set()

    async def until_the_end() -> None:
        page = asyncio.create_task(gate(scope, receive, send))
        await begun.wait()
        assert not page.done()
        gate.end()
        await asyncio.wait_for(page, 30)

    serving.portal.call(until_the_end)


# Failures


def test_what_goes_wrong_is_told_neutrally_and_logged_without_what_was_typed(
    serving, owner, monkeypatch, capfd, caplog
) -> None:
    def broken(*_: Any) -> Actor:
        raise RuntimeError(f"SELECT ... WHERE name = '{typed}'")

    typed = " ".join(("Jane", "Doe"))  # which is no line of the source
    with monkeypatch.context() as patch:
        patch.setattr(sign_ins, "find_actor", broken)
        page = owner.get("/try", headers=PAGE)
        assert page.status_code == 500
        assert UNEXPECTED in page.text
        call = owner.get("/config")
        assert (call.status_code, call.json()) == (500, {"detail": UNEXPECTED})
        patch.setattr(sign_ins, "sign_in", broken)
        assert sign_in(owner, typed).json() == {"detail": UNEXPECTED}
    output = "".join(capfd.readouterr()) + caplog.text
    assert "unexpected RuntimeError" in output
    assert "in broken" in output
    assert "Jane" not in output


def test_what_is_handed_in_reaches_no_log(serving, capfd, caplog) -> None:
    client = serving.visitor()
    path = upload(client, b"no image", "Jane Doe 1957.png")
    named = {**in_json(path), "orig_name": "Jane Doe 1957.png"}
    for data in ([named], [named, "Jane"], [named, NAMES[0], "Jane Doe"], ["Jane", NAMES[0]]):
        event = client.post("/gradio_api/call/predict", json={"data": data}).json()["event_id"]
        assert "event: error" in client.get(f"/gradio_api/call/predict/{event}").text
    client.post("/gradio_api/call/Jane", json={"data": [named]})
    client.post("/gradio_api/queue/join", json={"data": "Jane", "session_hash": "Jane"})
    client.get("/Jane?name=Jane")
    sign_in(client, "Jane", "Jane Doe")
    output = "".join(capfd.readouterr()) + caplog.text
    assert "unexpected " in output  # so something was logged
    assert "Jane" not in output
