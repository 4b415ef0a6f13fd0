"""What a data set is to this project: a reader, its licence, and what to expect of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bcd_models.images.scale import Scale
from training.corpus.sources import files

FOREIGN = "not named as the data set's images are"


@dataclass(frozen=True)
class Image:
    """One image file as a reader found it.

    Attributes:
        name: Path inside the data set, the same from a folder or an archive.
        data: The file's bytes.
        label: "benign" or "malignant".
        case_id: What images are grouped by, "source/case".
        subtype: The data set's own finer label, or "".
        magnification: The data set's own magnification, or "".
        scale: As stated for this image; None: that of its magnification, or of its metadata.
    """

    name: str
    data: bytes
    label: str
    case_id: str
    subtype: str = ""
    magnification: str = ""
    scale: Scale | None = None


@dataclass(frozen=True)
class Refused:
    """A file a reader or the corpus left out.

    Attributes:
        name: Path inside the data set.
        reason: Why, in words that are the same for all files of a kind.
    """

    name: str
    reason: str


@dataclass(frozen=True)
class Source:
    """A data set.

    Attributes:
        name: As in a corpus row; an identifier, since it is the command's option too.
        short: What pages call it.
        title: Full name.
        licence: SPDX-like licence name.
        citation: What to cite.
        url: Where to get it, or "" where it is not public.
        expected: Images of each label in the full set; empty where nobody knows of one.
        expected_cases: Cases in the full set.
        labels_mean: What the labels mean in this set.
        case_is: What a case is where that is not a patient, or "".
        caution: What figures can't say because of what it holds, a sentence, or "".
        one_label_a_case: Whether all images of a case share one label.
        size: Width and height in pixels of every proper image, which is a row as it is; None where
            images are fields of any size, which are cut into tiles.
        mpp: Micrometres a pixel of the data set's files by magnification, "" where it states none.
        jpeg_quality: Of the JPEG that every image is sent through, or None: where copies in
            circulation have been through one, compression would tell them apart.
        is_by_camera: Whether a camera on a microscope took its images, and no slide scanner.
        read: Yields the images of a folder or of the archive as downloaded, or one chunk of them.
        check: Raises InputError where a path can't be read.
        stamp: Returns what tells a path from a changed one.
    """

    name: str
    short: str
    title: str
    licence: str
    citation: str
    url: str
    expected: dict[str, int]
    expected_cases: int
    labels_mean: str
    case_is: str
    caution: str
    one_label_a_case: bool
    size: tuple[int, int] | None
    mpp: Mapping[str, float]
    jpeg_quality: int | None
    is_by_camera: bool
    read: Callable[[Path, int, int], Iterator[Image | Refused]]
    check: Callable[[Path], None] = files.check
    stamp: Callable[[Path], str] = files.stamp
