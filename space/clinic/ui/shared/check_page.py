"""Whether a report is one that was handed out here."""

from __future__ import annotations

import json
import re

import gradio as gr

from bcd_models.errors import InputError
from clinic.installation import Installation
from clinic.reports import service as reports
from clinic.reports.service import ReportCheck
from clinic.ui.files import add_upload
from clinic.ui.frame import QUICK, get_actor, show_failures
from clinic.ui.tables import cell

WHAT = """
<h1>Check a report</h1>
<p class="bcd-quiet">Hand in a PDF to learn whether this installation has handed it out, byte for
  byte. It is not opened and not kept: only its SHA-256 is looked at.</p>
"""
NOTHING = """
<section class="bcd-card bcd-empty"><p class="bcd-lead">The answer appears here</p></section>
"""
FORGET = f"() => {json.dumps(NOTHING)}"


def add_check_page(clinic: Installation) -> None:
    """Add the page to the Blocks being built."""
    gr.HTML(WHAT, elem_classes="bcd-heading")
    typed = gr.InputHTMLAttributes(autocomplete="off", spellcheck=False)
    with gr.Row(equal_height=False):
        with gr.Column(min_width=320):
            file = add_upload(label="Report", file_types=[".pdf"], height=140)
            sha256 = gr.Textbox(label="Or its SHA-256", html_attributes=typed)
            report_id = gr.Textbox(label="Report id printed on it, or empty", html_attributes=typed)
            button = gr.Button("Check", variant="primary", elem_classes="bcd-do")
        with gr.Column(min_width=320):
            shown = gr.HTML(NOTHING)

    @show_failures
    def check(sha256: str, report_id: str, request: gr.Request) -> str:
        return _show_check(
            reports.check_report(clinic, get_actor(request), _parse_hash(sha256), report_id)
        )

    def take(pdf: bytes | None) -> tuple[str, None, str]:
        return reports.hash_report(pdf) if pdf else "", None, NOTHING

    asked = [sha256, report_id]
    file.upload(take, file, [sha256, file, shown], **QUICK).then(check, asked, shown, **QUICK)
    # No answer stays beside something else than it is about.
    gr.on([sha256.change, report_id.change], None, None, shown, js=FORGET, **QUICK)
    gr.on([button.click, sha256.submit, report_id.submit], check, asked, shown, **QUICK)


def _parse_hash(typed: str) -> str:
    """Return the first word, as ``sha256sum`` prints the file's name after it."""
    sha256 = "".join(typed.split()[:1])
    if not re.fullmatch("[0-9a-fA-F]{64}", sha256):
        raise InputError("hand in the PDF, or type its SHA-256: 64 digits and letters from a to f")
    return sha256


def _show_check(checked: ReportCheck) -> str:
    kind, mark, lead = (
        ("bcd-genuine", "✓", "Genuine") if checked.genuine else ("bcd-alert", "✕", "Not genuine")
    )
    return f"""
<section class="bcd-card {kind}" role="status">
  <h2 class="bcd-answer"><span class="bcd-mark" aria-hidden="true">{mark}</span>{lead}</h2>
  <p>{cell(checked.words)}</p>
</section>
"""
