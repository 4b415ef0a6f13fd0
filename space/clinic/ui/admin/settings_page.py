"""An admin's look at the installation: health, sessions, models in use, room, settings."""

from __future__ import annotations

import gradio as gr

from clinic.accounts import sign_ins
from clinic.accounts.sign_ins import SessionRow
from clinic.analysis.models import Models
from clinic.installation import Installation
from clinic.storage.actor import Actor
from clinic.ui.frame import PRIVATE, get_actor, read_query, show_failures
from clinic.ui.tables import cell, facts, moment, page_number, pager, table
from clinic.upkeep import system
from clinic.upkeep.system import Check, ModelInUse, Room

PATH = "/settings"
WHAT = """
<h1>Settings</h1>
<p class="bcd-quiet">How the installation is now. Its settings are environment variables, read when
  the app starts; <code>docs/clinic.md</code> says what each does.</p>
"""
LOOK_CLOSER = """
<p class="bcd-quiet">Machines ask <code>/healthz</code>. Whether every stored file, every row of the
  audit log and every tally is sound takes longer to tell: <code>python -m clinic verify</code>.</p>
"""
SESSIONS = ("Account", "From", "Since", "Last used", "Ends unless used")
MODELS = ("Model", "Version", "Weights (SHA-256)", "On offer", "Answers kept", "Last answer")


def add_settings_page(app: gr.Blocks, clinic: Installation, models: Models) -> None:
    """Add the page to the Blocks being built."""
    gr.HTML(WHAT, elem_classes="bcd-heading")
    shown = gr.HTML()

    @show_failures
    def show(request: gr.Request) -> str:
        actor, sheet = get_actor(request), page_number(read_query(request, "sheet"))
        return "".join(
            (
                _health(system.check_health(clinic, actor, models)),
                _sessions(clinic, actor, sheet),
                _models(system.list_models_in_use(clinic, actor, models)),
                _room(system.measure_room(clinic, actor)),
                _settings(system.list_settings(clinic, actor)),
            )
        )

    app.load(show, None, shown, **PRIVATE)


def _health(checks: list[Check]) -> str:
    faults = [one for one in checks if one.fault]
    lead = "All is well" if not faults else f"{len(faults)} of {len(checks)} checks found a fault"
    known = {one.name: f"<b>{cell(one.fault)}</b>" if one.fault else "well" for one in checks}
    kind = 'bcd-alert" role="alert' if faults else "bcd-done"
    return f"""
<section aria-label="Health">
  <h2>Health</h2>
  <div class="bcd-card {kind}"><p class="bcd-lead">{lead}</p></div>
  <dl class="bcd-facts">{facts(known)}</dl>
  {LOOK_CLOSER}
</section>
"""


def _sessions(clinic: Installation, actor: Actor | None, sheet: int) -> str:
    page = sign_ins.list_open_sessions(clinic, actor, sheet)
    listed = table(SESSIONS, [_session(one) for one in page.rows], "Open sessions")
    return f"""
<h2>Open sessions</h2>
{listed}{pager(page, PATH)}
<p class="bcd-quiet">Under <a href="/">Accounts</a> all sessions of an account can be ended.</p>
"""


def _session(one: SessionRow) -> tuple[str, ...]:
    times = (moment(when) for when in (one.created_at, one.seen_at, one.expires_at))
    return cell(one.account), cell(one.address), *times


def _models(known: list[ModelInUse]) -> str:
    return f"<h2>Models in use</h2>{table(MODELS, [_model(one) for one in known], 'Models in use')}"


def _model(one: ModelInUse) -> tuple[str, ...]:
    return (
        cell(one.name),
        cell(one.version),
        f'<code title="{one.weights_sha256}">{one.weights_sha256[:12]}</code>',
        "yes" if one.offered else "no",
        f"{one.answers:,}",
        moment(one.newest) if one.newest else "—",
    )


def _room(room: Room) -> str:
    size = "" if room.database_bytes is None else f", {_bytes(room.database_bytes)}"
    known = {
        "Patients": f"{room.patients:,}",
        "Examinations": f"{room.examinations:,}",
        "Images, heat maps, reports": f"{room.files:,} files, {_bytes(room.file_bytes)}",
        "Database": f"{room.database}{size}",
        "Free on the disk": _bytes(room.free_bytes),
    }
    return f'<h2>Storage</h2><dl class="bcd-facts">{facts(known)}</dl>'


def _settings(settings: dict[str, str]) -> str:
    known = {name: cell(value) for name, value in settings.items()}
    return f'<h2>Settings in force</h2><dl class="bcd-facts">{facts(known)}</dl>'


def _bytes(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"
