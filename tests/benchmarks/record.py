"""Collects benchmark ratios in bench.json, with the machine they were measured on.

``python -m tests.benchmarks.record README.md`` rewrites the table between the README's marks.
"""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from bcd_models.cli.output import write_file
from training.pages import put_between

RESULTS = Path(__file__).parents[2] / "bench.json"
WANTED = "BCD_BENCH"
LIBRARIES = ("torch", "timm", "onnxruntime", "gradio")
BEGIN, END = "<!-- bench: written by make bench -->", "<!-- end of bench -->"
SIGNS = {"at_most": "≤", "at_least": "≥"}


def record(
    what: str,
    baseline: str,
    ratio: float,
    *,
    at_most: float | None = None,
    at_least: float | None = None,
) -> None:
    """Print a ratio, add it to ``bench.json`` for ``make bench``; fail where it misses a bound."""
    bound = {"at_most": at_most} if at_most is not None else {"at_least": at_least}
    if os.environ.get(WANTED):  # a test that also measures leaves the table alone
        _add(what, {"baseline": baseline, "ratio": round(ratio, 4), **bound})
    print(f"\n{what}: {ratio:.3f} of {baseline} ({bound})")
    assert at_most is None or ratio <= at_most
    assert at_least is None or ratio >= at_least


def _add(what: str, entry: dict[str, Any]) -> None:
    document = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    document = {"machine": machine(), "ratios": document.get("ratios", {}) | {what: entry}}
    RESULTS.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


def machine() -> dict[str, Any]:
    """What the ratios were measured on."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        **{name: version(name) for name in LIBRARIES},
    }


def table(document: dict[str, Any]) -> str:
    """The ratios as Markdown, with the machine below."""
    lines = ["| what | measured | asked | beside |", "| --- | --- | --- | --- |"]
    for what, entry in document["ratios"].items():
        (kind, bound) = next(one for one in entry.items() if one[0] in SIGNS)
        met = entry["ratio"] <= bound if kind == "at_most" else entry["ratio"] >= bound
        measured = f"{entry['ratio']:.2f}" if met else f"**{entry['ratio']:.2f}, missed**"
        lines.append(f"| {what} | {measured} | {SIGNS[kind]} {bound:g} | {entry['baseline']} |")
    known = document["machine"]
    libraries = ", ".join(f"{name} {known[name]}" for name in ("python", *LIBRARIES))
    gpu = known["gpu"] or "no GPU"
    lines += [
        "",
        f"Measured on {known['cores']} cores ({known['processor']}), {known['memory_gib']} GiB, "
        f"{gpu}; {libraries}.",
    ]
    return "\n".join(lines)


def put_table(page: str) -> str:
    """A page's text with the table of ``bench.json`` between its two markers."""
    return put_between(page, BEGIN, END, table(json.loads(RESULTS.read_text("utf-8"))))


def show_table(text: str, page: Path | None, begin: str, end: str) -> None:
    """Print a table, and put it between two marks of a page where one is named."""
    print(text)
    if page:
        write_file(page, put_between(page.read_text("utf-8"), begin, end, text).encode())


def _processor() -> str:
    try:
        told = Path("/proc/cpuinfo").read_text()
    except OSError:
        told = ""
    named = re.search(r"model name\s*: (.+)", told)
    return named[1].strip() if named else platform.processor() or platform.machine()


if __name__ == "__main__":
    readme = Path(sys.argv[1])
    readme.write_text(put_table(readme.read_text("utf-8")), "utf-8")
