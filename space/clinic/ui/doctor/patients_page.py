"""A doctor's patients: searched, listed, and new ones made."""

from __future__ import annotations

import gradio as gr

from clinic.installation import Installation
from clinic.records import patients
from clinic.records.patient_fields import FIELDS, parse_form
from clinic.records.patients import PatientRow
from clinic.storage.paging import Page
from clinic.ui.doctor.patient_form import add_fields
from clinic.ui.frame import PRIVATE, QUICK, get_actor, go_to, read_query, show_failures
from clinic.ui.tables import cell, empty, link, moment, page_number, pager, table

PATH = "/patients"
HEADS = (
    "Patient",
    *(one.label for one in FIELDS if not one.is_long),
    "Examinations",
    "Of these unread",
    "Last changed",
)
*_ALL_BUT_LAST, _LAST = ("id", *(one.label.lower() for one in FIELDS if one.is_searched))
SEARCHED = f"{', '.join(_ALL_BUT_LAST)} or {_LAST}"
SYNTHETIC = '<span class="bcd-badge">synthetic</span>'


# A search stays in the browser's tab until the sign-out, and out of addresses: Back and the pager
# find it again.
REMEMBER = f"""
(words, archived) => {{
  sessionStorage.setItem('search', JSON.stringify([words, archived]));
  history.replaceState(null, '', '{PATH}');
  window.bcdSearched = true;
  return [words, archived];
}}
"""
# The first listing, unless a search was begun meanwhile: however late, it takes no answer's place.
FIRST = "(listed, now) => window.bcdSearched ? now : listed"
RECALL = "() => JSON.parse(sessionStorage.getItem('search') || '[\"\", false]')"


def add_patients_page(app: gr.Blocks, clinic: Installation) -> None:
    """Add the page to the Blocks being built."""
    gr.HTML("<h1>Patients</h1>", elem_classes="bcd-heading")
    _add_new_patient(clinic)
    words = gr.Textbox(
        label=f"Words in {SEARCHED}",
        html_attributes=gr.InputHTMLAttributes(autocomplete="off", enterkeyhint="search"),
        submit_btn="Search",
        elem_classes="bcd-search",
    )
    archived = gr.Checkbox(label="Only those put aside")
    shown = gr.HTML()
    listed = gr.Textbox(visible=False)

    @show_failures
    def show(words: str, archived: bool, request: gr.Request, number: int = 1) -> str:
        found = patients.search_patients(
            clinic, get_actor(request), words, archived=archived, page=number
        )
        return list_patients(found, words.strip(), archived)

    def begin(words: str, archived: bool, request: gr.Request) -> str:
        return show(words, archived, request, page_number(read_query(request, "sheet")))

    # The fields are filled in by the browser: a server's answer would undo what is typed meanwhile.
    recalled = app.load(None, None, [words, archived], js=RECALL, **PRIVATE)
    listing = recalled.then(begin, [words, archived], listed, **PRIVATE)
    listing.then(None, [listed, shown], shown, js=FIRST, **PRIVATE)
    gr.on(
        [words.submit, archived.input],
        show,
        [words, archived],
        shown,
        js=REMEMBER,
        trigger_mode="always_last",
        **QUICK,
    )


def _add_new_patient(clinic: Installation) -> None:
    made = gr.Textbox(visible=False)
    with gr.Accordion("New patient", open=False):
        fields = add_fields(clinic.settings.external_id)
        button = gr.Button("Make the record", variant="primary", elem_classes="bcd-do")

    def create(request: gr.Request, *typed: str) -> str:
        return patients.create(clinic, get_actor(request), parse_form(clinic.settings, typed))

    button.click(create, fields, made, **QUICK).success(
        None, made, None, js=go_to("/patient?id="), **PRIVATE
    )


def list_patients(page: Page[PatientRow], words: str, archived: bool) -> str:
    """Return a page of patients as an HTML table, or why there are none."""
    if not page.total:
        return _explain_nothing(words, archived)
    rows = [_row(one) for one in page.rows]
    return table(HEADS, rows, "Patients") + pager(page, PATH)


def _explain_nothing(words: str, archived: bool) -> str:
    """Return why the list is empty."""
    if words:
        who = "None that is put aside" if archived else "None"
        others = "Patients put aside are searched with “Only those put aside” ticked."
        said = f"{who} has all these words in {SEARCHED}."
        return empty("No patient found", said if archived else f"{said} {others}")
    if archived:
        return empty(
            "No patient is put aside", "A patient is put aside, and taken back, on its own page."
        )
    return empty(
        "No patients yet",
        "Make a record above, under “New patient”; then images can be examined for it.",
    )


def _row(one: PatientRow) -> tuple[str, ...]:
    return (
        link("/patient", one.id, id=one.id) + (f" {SYNTHETIC}" if one.synthetic else ""),
        *(cell(field.show(getattr(one, field.name))) for field in FIELDS if not field.is_long),
        str(one.examinations),
        str(one.unread),
        moment(one.changed_at),
    )
