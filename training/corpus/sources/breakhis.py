"""BreaKHis: images of breast tumours at four magnifications."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from training.corpus.sources.files import list_png_files
from training.corpus.sources.source import FOREIGN, Image, Refused, Source

# SOB_<B or M>_<subtype>-<year>-<slide>-<magnification>-<number>.png
_NAME = re.compile(
    r"(?:^|/)SOB_([BM])_([A-Z]+)-(\d+)-(\d+)[A-Z]*-(40|100|200|400)-(\d+)\.(?i:png)$"
)
_LABELS = {"B": "benign", "M": "malignant"}
_SUBTYPES = {
    "A": "adenosis",
    "F": "fibroadenoma",
    "PT": "phyllodes_tumor",
    "TA": "tubular_adenoma",
    "DC": "ductal_carcinoma",
    "LC": "lobular_carcinoma",
    "MC": "mucinous_carcinoma",
    "PC": "papillary_carcinoma",
}
# Micrometres a pixel at 400X, by the size of nuclei (python -m training.corpus.nuclei,
# docs/training.md): 0.22, between 0.18 and 0.27. The ratios of the magnifications are exact. The
# 0.05 that are published would make nuclei 2 micrometres wide.
_MPP_AT_400X = 0.22
# Folders that say something of the images in them.
_STATES = re.compile("|".join([*_LABELS.values(), *_SUBTYPES.values(), r"\d+X"]))


def read(path: Path, chunk: int = 0, chunks: int = 1) -> Iterator[Image | Refused]:
    """Yield the images of a folder or of the archive as downloaded.

    A patient is year and digits of the slide id: the letters after them are blocks of one patient.
    """
    for name, content in list_png_files(path, chunk, chunks):
        match = _NAME.search(name)
        if not match or match[2] not in _SUBTYPES:
            yield Refused(name, FOREIGN)
            continue
        label, subtype, magnification = _LABELS[match[1]], _SUBTYPES[match[2]], f"{match[5]}X"
        stated = {folder for folder in name.split("/")[:-1] if _STATES.fullmatch(folder)}
        if not stated <= {label, subtype, magnification}:
            yield Refused(name, "folder and file name disagree on label, subtype or magnification")
            continue
        case = f"breakhis/{match[3]}-{match[4]}"
        yield Image(name.rpartition("/")[2], content(), label, case, subtype, magnification)


BREAKHIS = Source(
    name="breakhis",
    short="BreaKHis",
    title="BreaKHis: Breast Cancer Histopathological Database",
    licence="CC-BY-4.0",
    citation=(
        "Spanhol, Oliveira, Petitjean and Heutte, A Dataset for Breast Cancer "
        "Histopathological Image Classification, IEEE TBME 2016"
    ),
    url="https://web.inf.ufpr.br/vri/databases/breast-cancer-histopathological-database-breakhis/",
    expected={"benign": 2_480, "malignant": 5_429},
    expected_cases=82,
    labels_mean="the patient's tumour: benign (four subtypes) or malignant (four subtypes)",
    case_is="",
    caution="Benign lesions, lobular and mucinous carcinoma are known from these images alone",
    one_label_a_case=True,
    size=None,
    mpp={f"{zoom}X": _MPP_AT_400X * 400 / zoom for zoom in (40, 100, 200, 400)},
    jpeg_quality=90,
    is_by_camera=True,
    read=read,
)
