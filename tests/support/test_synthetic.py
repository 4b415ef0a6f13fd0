"""The drawn corpora have the real ones' layouts, and the two kinds differ as tissue does."""

import io
import re
import tarfile
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support import synthetic
from tests.support.drawing import MACENKO

IDC_NAME = re.compile(
    r"(?P<case>\d+)/(?P<label>[01])/(?P=case)_idx5_x(?P<x>\d+)_y(?P<y>\d+)_class(?P=label)\.png"
)
BREAKHIS_NAME = re.compile(
    r"BreaKHis_v1/histology_slides/breast/(?P<kind>benign|malignant)/SOB/(?P<subtype>[a-z_]+)/"
    r"SOB_(?P<letter>[BM])_(?P<code>A|F|PT|TA|DC|LC|MC|PC)_(?P<slide>\d\d-(?P<patient>\d+)[A-Z]*)/"
    r"(?P<zoom>40|100|200|400)X/SOB_(?P=letter)_(?P=code)-(?P=slide)-(?P=zoom)-\d{3}\.png"
)


def haematoxylin(image: np.ndarray) -> np.ndarray:
    """Amount of haematoxylin in each pixel, whatever the amount of eosin."""
    density = -np.log10((image.astype(float) + 1.0) / 256.0)
    amount: np.ndarray = density @ np.linalg.pinv(MACENKO)[:, 0]
    return amount


def read(data: bytes) -> np.ndarray:
    """Decodes an image in full."""
    return np.asarray(Image.open(io.BytesIO(data)))


def relative(paths: list[Path], root: Path) -> list[str]:
    """Archive-like names of files below a folder."""
    return [path.relative_to(root).as_posix() for path in paths]


@pytest.mark.parametrize("size", [(70, 50), (1, 9), (33, 1)])
def test_tissue_has_the_asked_size_and_repeats(size: tuple[int, int]) -> None:
    first = synthetic.tissue(3, size=size, mpp=4.0, malignant=0.5, slide_background=0.2)
    again = synthetic.tissue(3, size=size, mpp=4.0, malignant=0.5, slide_background=0.2)
    other = synthetic.tissue(4, size=size, mpp=4.0, malignant=0.5, slide_background=0.2)
    assert first.shape == (size[1], size[0], 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_mask_says_where_the_tumour_is() -> None:
    mask = np.zeros((160, 200), bool)
    mask[:, 100:] = True
    amount = haematoxylin(synthetic.tissue(1, size=(200, 160), mpp=4.0, malignant=mask))
    assert amount[:, 110:].mean() > 2.0 * amount[:, :90].mean()


def test_mask_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="mask"):
        synthetic.tissue(1, size=(20, 10), mpp=4.0, malignant=np.zeros((20, 10)))


def test_slide_background_is_bare_glass() -> None:
    image = synthetic.tissue(5, size=(120, 120), mpp=4.0, slide_background=0.4)
    unstained = (image.min(axis=2) > 225).mean()
    assert 0.35 < unstained < 0.8


def test_patch_is_the_same_scene_at_any_pixel_size() -> None:
    for kind in synthetic.KINDS:
        coarse = synthetic.patch(kind, 2)
        sharp = Image.fromarray(synthetic.patch(kind, 2, pixels=(400, 400)))
        shrunk = np.asarray(sharp.resize((50, 50), Image.Resampling.BOX))
        assert coarse.shape == (50, 50, 3)
        assert np.corrcoef(coarse.ravel(), shrunk.ravel())[0, 1] > 0.85


def test_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="kind"):
        synthetic.patch("other", 0)


def test_kinds_differ_in_dark_nuclei_under_any_stain() -> None:
    crowded = {
        kind: [(haematoxylin(synthetic.patch(kind, seed)) > 0.3).mean() for seed in range(20)]
        for kind in synthetic.KINDS
    }
    assert np.median(crowded["malignant"]) > 2.5 * np.median(crowded["benign"])


def test_idc_tree_has_the_official_layout(tmp_path: Path) -> None:
    paths = synthetic.idc_tree(tmp_path, cases=5, patches_per_case=20, slivers=6)
    names = relative(paths, tmp_path)
    matches = [match for name in names if (match := IDC_NAME.fullmatch(name))]
    assert len(matches) == len(names)
    assert len(set(names)) == 5 * 20 + 6
    assert all(int(match[axis]) % 50 == 1 for match in matches for axis in "xy")
    labels: dict[str, set[str]] = {case: set() for case in map(str, range(8863, 8868))}
    for match in matches:
        labels[match["case"]].add(match["label"])
    assert all(found == {"0", "1"} for found in labels.values())
    assert 0.15 < sum(match["label"] == "1" for match in matches) / len(matches) < 0.4
    shapes = Counter(read(path.read_bytes()).shape[:2] for path in paths)
    assert shapes[(50, 50)] == 100
    assert all(min(shape) < 50 == max(shape) for shape in set(shapes) - {(50, 50)})


def test_idc_patches_match_their_labels(tmp_path: Path) -> None:
    paths = synthetic.idc_tree(tmp_path, cases=4, patches_per_case=24)
    amounts: dict[str, list[float]] = {"0": [], "1": []}
    for path in paths:
        amounts[path.parent.name].append(haematoxylin(read(path.read_bytes())).mean())
    assert np.median(amounts["1"]) > 2.0 * np.median(amounts["0"])


def test_every_case_holds_both_labels_even_when_tiny(tmp_path: Path) -> None:
    paths = synthetic.idc_tree(tmp_path, cases=6, patches_per_case=2, slivers=3)
    full = [path for path in paths if read(path.read_bytes()).shape == (50, 50, 3)]
    assert Counter(path.parent.name for path in full) == {"0": 6, "1": 6}
    with pytest.raises(ValueError, match="2 patches"):
        synthetic.idc_tree(tmp_path, cases=1, patches_per_case=1)


def test_zip_holds_the_tree_and_repeats(tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"cases": 3, "patches_per_case": 9, "seed": 7, "slivers": 2}
    root = tmp_path / "tree"
    paths = synthetic.idc_tree(root, **arguments)
    first = synthetic.idc_zip(tmp_path / "first.zip", **arguments)
    again = synthetic.idc_zip(tmp_path / "again.zip", **arguments)
    assert first.read_bytes() == again.read_bytes()
    with zipfile.ZipFile(first) as archive:
        assert archive.namelist() == relative(paths, root)
        assert all(archive.read(name) == (root / name).read_bytes() for name in archive.namelist())


def test_twice_writes_every_patch_under_both_folders(tmp_path: Path) -> None:
    path = synthetic.idc_zip(tmp_path / "idc.zip", cases=3, patches_per_case=9, twice=True)
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        plain = [name for name in names if IDC_NAME.fullmatch(name)]
        assert len(plain) == 27
        assert set(names) == {*plain, *(f"IDC_regular_ps50_idx5/{name}" for name in plain)}
        for name in plain:
            assert archive.read(name) == archive.read(f"IDC_regular_ps50_idx5/{name}")


def test_pixels_stay_unique_when_cases_share_a_slide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synthetic, "FRESH_PATCHES", 10)
    path = synthetic.idc_zip(tmp_path / "idc.zip", cases=10, patches_per_case=12, slivers=10)
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        pixels = {read(archive.read(name)).tobytes() for name in names}
    assert len(names) == len(pixels) == 130
    found = {name.rsplit("/", 1)[0] for name in names}
    assert found == {f"{case}/{label}" for case in range(8863, 8873) for label in (0, 1)}


def test_breakhis_has_the_official_layout(tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"patients_per_class": 4, "images_per_patient": 4, "size": (70, 46)}
    paths = synthetic.breakhis_tree(tmp_path, **arguments)
    names = relative(paths, tmp_path)
    matches = [match for name in names if (match := BREAKHIS_NAME.fullmatch(name))]
    assert len(matches) == len(names)
    assert len({match[0] for match in matches}) == 32
    assert {match["code"] for match in matches} == {"A", "F", "PT", "TA", "DC", "LC", "MC", "PC"}
    assert {match["zoom"] for match in matches} == {"40", "100", "200", "400"}
    assert all(match["kind"][0].upper() == match["letter"] for match in matches)
    slides = {(match["patient"], match["slide"]) for match in matches}
    assert len({patient for patient, _ in slides}) == 8 < len(slides)
    images = [read(path.read_bytes()) for path in paths]
    assert {image.shape for image in images} == {(46, 70, 3)}
    assert len({image.tobytes() for image in images}) == 32


def test_breakhis_tar_holds_the_tree_and_repeats(tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"patients_per_class": 2, "images_per_patient": 3, "size": (35, 23)}
    root = tmp_path / "tree"
    names = relative(synthetic.breakhis_tree(root, **arguments), root)
    first = synthetic.breakhis_tar(tmp_path / "first.tar.gz", **arguments)
    again = synthetic.breakhis_tar(tmp_path / "again.tar.gz", **arguments)
    assert first.read_bytes() == again.read_bytes()
    with tarfile.open(first) as archive:
        assert archive.getnames() == names
        for name in names:
            member = archive.extractfile(name)
            assert member
            assert member.read() == (root / name).read_bytes()


def test_examples_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    synthetic.main(["--examples", str(tmp_path), "--count", "1", "--pixels", "60"])
    names = ["synthetic-benign-1.png", "synthetic-malignant-1.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    images = [read((tmp_path / name).read_bytes()) for name in names]
    assert all(image.shape == (60, 60, 3) for image in images)
    assert "synthetic-benign-1.png" in capsys.readouterr().out
