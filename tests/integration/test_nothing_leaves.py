"""No part of the product asks for anything beyond this machine, nor keeps a library's telemetry.

Each program runs in a network namespace of its own, in which there is loopback alone, and every
connection and datagram that it tries is traced.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from tests.conftest import CARDS, ROOT, absent
from tests.support import small_runs
from tests.support.running_app import EXAMPLES, running_app
from tests.support.slides import small_slides

MODEL = CARDS / "bcd-mobilenetv2"
PATCH = EXAMPLES / "synthetic-malignant-1.png"
ALONE = ("unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")
LIMIT = 600  # seconds for a program on a busy machine
TELEMETRY = re.compile(r"\.ses$|onnxruntime.*\.db$|^deviceid$|^Microsoft$")
ADDRESS = re.compile(
    r'sa_family=AF_INET6?,.*?htons\((\d+)\).*?(?:inet_addr\("|inet_pton\(AF_INET6, ")([^"]+)"'
)
LOOPBACK = re.compile(r"127\.|::1$|::ffff:127\.")
# An answer, and the time in which ONNX Runtime sends its first events.
LIBRARY = """
import sys, time
from bcd_models import BCDClassifier
BCDClassifier.from_pretrained(sys.argv[1]).predict(sys.argv[2])
time.sleep(10)
"""
APP = "from tests.integration.test_nothing_leaves import ask_app; ask_app()"
COMMAND = (sys.executable, "-m", "bcd_models.cli")


def ask_app() -> None:
    """Start the app and ask it for an answer and a map."""
    # Not by gradio_client, which looks names up itself.
    with running_app([MODEL]) as url, httpx2.Client(base_url=url, timeout=60) as client:
        for endpoint, more in (("predict", []), ("explain", ["malignant", 0.5])):
            (path,) = client.post("gradio_api/upload", files={"files": PATCH.read_bytes()}).json()
            image = {"path": path, "meta": {"_type": "gradio.FileData"}}
            address = f"gradio_api/call/{endpoint}"
            asked = client.post(address, json={"data": [image, MODEL.name, *more]}).json()
            said = client.get(f"{address}/{asked['event_id']}").text
            assert "event: complete" in said, said


@pytest.fixture(scope="module", autouse=True)
def namespaces() -> None:
    """Skip where no network namespace can be made, or nothing can be traced in it."""
    if not all(map(shutil.which, ("unshare", "ip", "strace"))):
        absent("unshare, ip or strace is missing: apt-get install util-linux iproute2 strace")
    if subprocess.run([*ALONE, "strace", "-qq", "true"], capture_output=True).returncode:
        absent("no network namespace can be made and traced here: run as root, on Linux")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    made = tmp_path / "home"
    (made / "tmp").mkdir(parents=True)
    return made


def run_alone(home: Path, *command: str | Path) -> list[str]:
    """Run a program without a network; returns what it tried to reach beyond loopback."""
    log = home / "trace"
    traced = ("strace", "-f", "--seccomp-bpf", "-qq", "-o", log)
    calls = ("-e", "trace=connect,sendto,sendmsg,sendmmsg")
    environment = {
        **{n: v for n, v in os.environ.items() if not n.startswith(("BCD_", "ORT_", "XDG_"))},
        "HOME": str(home),
        "TMPDIR": str(home / "tmp"),
        "PYTHONPATH": f"{ROOT}:{ROOT / 'space'}",
    }
    whole = list(map(str, (*ALONE, *traced, *calls, *command)))
    done = subprocess.run(
        whole, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = [ADDRESS.search(line) for line in log.read_text(errors="replace").splitlines()]
    return [one[0] for one in found if one and (one[1] == "53" or not LOOPBACK.match(one[2]))]


def kept_telemetry(home: Path) -> list[str]:
    return [str(path) for path in home.rglob("*") if TELEMETRY.search(path.name)]


def test_what_is_looked_for_is_found(home: Path) -> None:
    look_up = "import socket\ntry: socket.getaddrinfo('example.org', 443)\nexcept OSError: pass"
    connect = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect_ex"
    assert run_alone(home, sys.executable, "-c", look_up)
    assert run_alone(home, sys.executable, "-c", f"{connect}(('192.0.2.1', 443))")
    assert not run_alone(home, sys.executable, "-c", f"{connect}(('127.0.0.1', 443))")


@pytest.mark.slow
@pytest.mark.parametrize(
    "program", ["library", "predict", "explain", "slide", "doctor", "training", "app"]
)
def test_nothing_leaves(program: str, home: Path, tmp_path: Path, corpus_folder: Path) -> None:
    model, out = ("--model", MODEL), ("--out", tmp_path / "out")
    recipe = small_runs.write(tmp_path / "recipe.yaml")
    programs: dict[str, tuple[str | Path, ...]] = {
        "library": (sys.executable, "-c", LIBRARY, MODEL, PATCH),
        "predict": (*COMMAND, "predict", PATCH, *model, "--overlay", tmp_path / "maps"),
        "explain": (*COMMAND, "explain", PATCH, *model, "--out", tmp_path / "map.png"),
        "slide": (*COMMAND, "slide", small_slides(tmp_path)["sized"], *model, *out),
        "doctor": (*COMMAND, "doctor", *model),
        "training": (
            *(sys.executable, "-m", "training.train"),
            *small_runs.arguments(recipe, corpus_folder, tmp_path / "run"),
        ),
        "app": (sys.executable, "-c", APP),
    }
    assert run_alone(home, *programs[program]) == []
    assert kept_telemetry(home) == []
