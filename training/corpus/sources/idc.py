"""The Kaggle IDC patches: 50 x 50 pixels, about 4 micrometres each."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from training.corpus.sources.files import list_png_files
from training.corpus.sources.source import FOREIGN, Image, Refused, Source
from training.corpus.tiles import ROW_MPP

# <case>/<0 or 1>/<case>_idx5_x<x>_y<y>_class<0 or 1>.png
_NAME = re.compile(r"(?:^|/)(\d+)/([01])/(\d+)_idx5_x\d+_y\d+_class([01])\.(?i:png)$")
_LABELS = {"0": "benign", "1": "malignant"}


def read(path: Path, chunk: int = 0, chunks: int = 1) -> Iterator[Image | Refused]:
    """Yield the patches of a folder or of the archive as downloaded.

    The archive holds every patch twice, once below ``IDC_regular_ps50_idx5/``: a second copy with
    the same bytes is passed over without a word. One with others counts where the first is damaged.
    """
    seen: set[bytes] = set()
    for name, content in list_png_files(path, chunk, chunks):
        match = _NAME.search(name)
        if not match:
            yield Refused(name, FOREIGN)
            continue
        case, folder, case_again, label = match.groups()
        short = name.rpartition("/")[2]
        if (case, folder) != (case_again, label):
            yield Refused(name, "folder and file name disagree on case or class")
            continue
        data = content()
        copy = hashlib.md5(short.encode() + data, usedforsecurity=False).digest()
        if copy not in seen:
            seen.add(copy)
            yield Image(f"{case}/{label}/{short}", data, _LABELS[label], f"idc/{case}")


IDC = Source(
    name="idc",
    short="IDC",
    title="Breast Histopathology Images (invasive ductal carcinoma patches)",
    licence="CC0-1.0",
    citation=(
        "Cruz-Roa et al., SPIE Medical Imaging 2014; Janowczyk and Madabhushi, "
        "Journal of Pathology Informatics 2016"
    ),
    url="https://www.kaggle.com/datasets/paultimothymooney/breast-histopathology-images",
    expected={"benign": 198_738, "malignant": 78_786},
    expected_cases=279,
    labels_mean=(
        "malignant: invasive ductal carcinoma in the patch; benign: none there, "
        "which is normal tissue, fat, perhaps in-situ disease, and not a benign lesion"
    ),
    case_is=(
        "a case id of the data set: nothing links case ids to patients, so two of them may be "
        "one patient"
    ),
    caution=(
        "Nearly every case contains carcinoma, so specificity is on tissue *beside* carcinoma, and "
        "no figure is of tissue without any"
    ),
    one_label_a_case=False,
    size=(50, 50),
    mpp={"": ROW_MPP},
    jpeg_quality=None,
    is_by_camera=False,
    read=read,
)
