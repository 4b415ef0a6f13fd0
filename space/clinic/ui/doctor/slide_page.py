"""The page "Whole slide": a small slide, one model, its map; nothing kept."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from threading import Event
from typing import Any

import gradio as gr
from PIL import Image

from bcd_models.errors import ImageError
from bcd_models.images.open import open_image
from bcd_models.prediction import WORDS, Unsuitable
from bcd_models.slides.heatmap import colours
from bcd_models.slides.prediction import TOP_REGIONS, SlidePrediction, count_looks
from bcd_models.slides.slide_file import SlideFacts
from clinic.analysis import slide_jobs as slides
from clinic.analysis import wording
from clinic.analysis.models import Models
from clinic.http.failures import user_message
from clinic.installation import Installation
from clinic.storage import shown_images
from clinic.ui import result
from clinic.ui.files import add_upload, find_own_folder, require_file, write_file
from clinic.ui.frame import PRIVATE, QUICK, get_actor
from clinic.ui.shared.anyway import add_anyway_button, connect
from clinic.ui.shared.point_input import add_point_input
from clinic.ui.shared.scale_input import add_number, parse_mpp
from clinic.ui.tables import cell, facts, table

MAX_IDLE = 1800  # seconds that a slide stays in memory
SUFFIXES = [".svs", ".tif", ".tiff", ".ndpi", ".scn", ".bif", ".svslide", ".dcm"]
# Each takes all cores.
ALONE: dict[str, Any] = {"concurrency_id": "slides", "concurrency_limit": 1}
HEADS = ("Place", "mm²", "Mean", "Highest")
WHAT = f"""
<h1>Whole slide</h1>
<p class="bcd-quiet">A small slide or a cut of one, in one file of up to 64 MB (SVS, NDPI, SCN, BIF,
  pyramidal TIFF, DICOM), up to {slides.MAX_MM2} mm². Larger ones: <code>bcd slide</code> on a
  machine of yours. The slide stays in memory while this page is open and is never stored; its
  label is not read.</p>
"""
NOTHING = """
<section class="bcd-card bcd-empty">
  <p class="bcd-lead">The map appears here</p>
  <p>Choose a slide of H&amp;E-stained breast tissue, then press Analyse.</p>
</section>
"""


class _Cancelled(Exception):
    """Nobody waits for the map any more."""


def add_slide_page(app: gr.Blocks, clinic: Installation, models: Models) -> None:
    """Add the page to the Blocks being built."""
    # Set where an analysis shall end: what Gradio cancels runs on, with nobody waiting.
    ends: dict[str | None, Event] = {}
    gr.HTML(WHAT, elem_classes="bcd-heading")
    slide = gr.State(None, time_to_live=MAX_IDLE)
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=320):
            file = add_upload(label="Slide", file_types=SUFFIXES, height=140)
            mpp = add_number(
                label="Micrometres of a pixel, where the slide does not say",
                placeholder="as the slide says",
            )
            model = gr.Radio(models.choices, value=models.names[0], label="Model")
            point = add_point_input(app, clinic, models, model)
            with gr.Row():
                analyse = gr.Button("Analyse", variant="primary", interactive=False)
                clear = gr.Button("Clear", interactive=False)
        with gr.Column(scale=8, min_width=320):
            shown = gr.HTML(NOTHING, js_on_load=result.LISTEN, elem_id="bcd-shown")
            anyway = add_anyway_button()
            download = gr.DownloadButton("Download map, regions and tiles (ZIP)", visible=False)

    def show(kept: bytes | None, um: str, request: gr.Request) -> tuple[Any, ...]:
        if end := ends.get(request.session_hash):
            end.set()
        ready, words = kept is not None, NOTHING
        if kept is not None:
            try:
                words = _show_ready(
                    slides.inspect_slide(get_actor(request), kept, parse_mpp(um), find_own_folder())
                )
            except Exception as error:
                ready, words = False, result.show_failure(user_message(error))
        some, any_ = gr.update(interactive=ready), gr.update(interactive=kept is not None)
        gone = gr.update(visible=False)
        return words, some, any_, gone, gone

    def analyse_slide(
        kept: bytes | None,
        um: str,
        name: str,
        at: str,
        how: Unsuitable,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),
    ) -> tuple[str, dict[str, Any], dict[str, Any]]:
        gone = gr.update(visible=False)
        end = ends[request.session_hash] = Event()

        def report(done: int, total: int) -> None:
            if end.is_set():
                raise _Cancelled
            progress((done, total), desc="Looking at tissue", unit="tiles")

        try:
            progress(0, desc="Looking for tissue")
            data, loaded = require_file(kept), models.load(name)
            found = slides.map_slide(
                get_actor(request), loaded, data, parse_mpp(um), find_own_folder(), report, at, how
            )
            shown_images.note_shown_to(
                clinic.database, get_actor(request), _list_images(data, found.picture)
            )
        except _Cancelled:
            return NOTHING, gone, gone
        except Exception as error:
            return result.show_failure(user_message(error)), gone, gone
        finally:
            if ends.get(request.session_hash) is end:
                del ends[request.session_hash]
        sha256 = hashlib.sha256(data).hexdigest()
        path = write_file(found.files, f"bcd-slide-{sha256[:8]}.zip")
        offered = gr.update(visible=bool(found.prediction.unsuitable))
        return _answer(found.prediction), offered, gr.update(value=path, visible=True)

    inputs, answers = [slide, mpp, model, point], [shown, anyway, download]
    run = connect(analyse, anyway, analyse_slide, inputs, answers, **ALONE)
    # A late answer must not land beside another slide.
    changes = [
        file.upload(lambda data: (data, None), file, [slide, file], cancels=run, **QUICK),
        clear.click(lambda: None, None, slide, cancels=run, **QUICK),
        *(one.change(None, None, None, cancels=run, **PRIVATE) for one in (mpp, model, point)),
    ]
    for change in changes:
        change.then(show, [slide, mpp], [shown, analyse, clear, anyway, download], **QUICK)


def _list_images(slide: bytes, picture: Image.Image | None) -> Iterator[Image.Image]:
    """Yield the slide as a doctor may examine it too: the file itself, and its whole picture."""
    with suppress(ImageError):
        yield open_image(slide)
    if picture:
        yield picture


def _show_ready(seen: SlideFacts) -> str:
    return f"""
<section class="bcd-card">
  <p class="bcd-lead">Ready to analyse</p>
  <dl class="bcd-facts">{facts(_slide_facts(seen))}</dl>
</section>
"""


def _answer(found: SlidePrediction) -> str:
    """Return what was found in a sentence, the map over the slide, the largest regions."""
    mark = next((one for one in ("malignant", "refer") if found.tiles(one)), "benign")
    sign = "–" if not found.predicted else result.MARKS[mark]
    height, width = found.thumbnail.shape[:2]
    pictures = result.Pictures(
        result.data_uri(Image.fromarray(found.thumbnail)),
        result.data_uri(colours(found)),
        (width, height),
    )
    known = {
        **_slide_facts(found.facts),
        "Fields": f"{found.predicted:,} with an answer, {found.grid.tile_um:g} µm wide each",
        "Model": cell(f"{found.model} {found.model_version}"),
        **({"Operating point": cell(found.point)} if found.point else {}),
        "Threshold": wording.figure(found.rule.threshold),
        "SHA-256 of its weights": cell(found.weights_sha256),
    }
    return f"""
{result.show_warnings(_warnings(found))}
<section class="bcd-card">
  <p class="bcd-quiet">The model's answer</p>
  <h2 class="bcd-answer bcd-{mark}"><span class="bcd-mark" aria-hidden="true">{sign}</span>
    {cell(describe_answer(found))}</h2>
  {f"<p>{cell(found.missed_words)}</p>" if found.missed_words else ""}
  {result.viewer(pictures)}
  <p>The brighter a field, the higher the estimated probability of an {WORDS["malignant"]} in it.
    Fields without colour show no tissue. {_explain_marks(found)}</p>
  <p class="bcd-quiet">Of thousands of fields a few are answered wrongly at any threshold: look at
    each region yourself. A share of fields is not a tumour's size.</p>
</section>
{_regions(found)}
<details class="bcd-details"><summary>Slide, model and settings</summary>
  <dl>{facts(known)}</dl></details>
"""


def describe_answer(found: SlidePrediction) -> str:
    """Return what was found, as a heading."""
    return wording.capitalise(found.words).replace("mm2", "mm²")


def _regions(found: SlidePrediction) -> str:
    """Return the largest regions of the pattern; nothing where there are none."""
    regions = found.regions("malignant")
    if not regions:
        return ""
    rows = []
    for one in map(found.describe, regions[:TOP_REGIONS]):
        across, down = one["x"] * found.facts.mpp_x / 1000, one["y"] * found.facts.mpp_y / 1000
        rows.append(
            (
                f"{across:.1f} mm from the left, {down:.1f} mm from the top",
                f"{one['area_mm2']:.2f}",
                wording.figure(one["mean_probability"]),
                wording.figure(one["highest_probability"]),
            )
        )
    title = f"The {len(rows)} largest of {len(regions)} regions, by the probability of their fields"
    return f'<h3 class="bcd-sub">{title}</h3>{table(HEADS, rows, "Largest regions")}'


def _warnings(found: SlidePrediction) -> list[str]:
    told = []
    if found.failed:
        told.append(
            f"{len(found.failed):,} fields with tissue could not be read and have no answer"
        )
    for how, tiles in (("left out", found.unsuitable), ("counted all the same", found.ignored)):
        if tiles:
            looks = ", ".join(f"{words}: {count:,}" for words, count in count_looks(tiles).items())
            is_one = len(tiles) == 1
            fields = "1 field looks" if is_one else f"{len(tiles):,} fields look"
            told.append(f"{fields} unsuitable and {'is' if is_one else 'are'} {how} ({looks})")
    return told


def _explain_marks(found: SlidePrediction) -> str:
    if found.unsuitable:
        return "Those struck through in grey look unsuitable and are left out."
    framed = "Those framed in grey look unsuitable and are counted all the same, as you asked."
    return framed if found.ignored else ""


def _slide_facts(seen: SlideFacts) -> dict[str, str]:
    said = "as typed" if seen.mpp_given else "as the slide says"
    return {
        "Format": cell(seen.vendor),
        "Pixels": f"{seen.width:,} × {seen.height:,}",
        "Size of a pixel": f"{seen.mpp_x:.3g} × {seen.mpp_y:.3g} µm, {said}",
        "Colours": "by the slide's profile" if seen.has_profile else "as stored, without a profile",
    }
