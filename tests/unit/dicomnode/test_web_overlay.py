"""The overlay viewer's slices: every voxel of a mask on the image it was found in, however the patient was scanned."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless

from dicomnode.web import overlay as overlay_module
from dicomnode.web.overlay import Lightbox, Overlay, Sides, open_overlay, outline, read_slice
from pipeline.errors import NotImageData, UnfitGeometry
from pipeline.seg import to_seg
from pipeline.series import Series, read_volume
from pipeline.volume import Segmentation
from tests import phantom
from tests.fakes import CARD
from tests.results import AT, mark, scan_enhanced, scan_phantom


def fill(path: str, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels inside an SVG path of upright and level lines, by even-odd."""
    inside = np.zeros(shape, bool)
    for x, y, lines in re.findall(r"M(\d+) (\d+)([^z]*)z", path):
        at_x, at_y = int(x), int(y)
        for direction, length in re.findall(r"([hv])(-?\d+)", lines):
            if direction == "h":
                at_x += int(length)
            else:
                low, high = sorted((at_y, at_y + int(length)))
                inside[low:high, at_x:] ^= True
                at_y += int(length)
        assert (at_x, at_y) == (int(x), int(y)), "a loop that does not close"
    return inside


def write_seg(series: Series, path: Path) -> Path:
    to_seg(series, mark(series), CARD, AT).save_as(path, enforce_file_format=True)
    return path


def view(series: Series, folder: Path) -> Overlay:
    return open_overlay(sorted({plane.path for plane in series.planes}), write_seg(series, folder / "seg"))


@pytest.mark.parametrize("seed", range(3))
def test_an_outline_holds_exactly_the_marked_voxels(seed: int) -> None:
    mask = np.random.default_rng(seed).random((17, 23)) > 0.5  # corners that touch, holes, voxels on the border
    assert (fill(outline(mask), mask.shape) == mask).all()
    assert outline(np.zeros((4, 4), bool)) == ""
    assert outline(np.ones((2, 3), bool)) == "M0 0h3v2h-3v-2z"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"order": "shuffled"},
        {"orientation": phantom.PRONE, "order": "descending"},
        {"orientation": phantom.NEGATED_COLUMN},
        {"orientation": phantom.CORONAL},
        {"orientation": phantom.SAGITTAL},
        {"orientation": phantom.OBLIQUE, "slopes": (1.0, 0.5)},
        {"tilt_mm": 1.3},
        {"transfer_syntax": JPEG2000Lossless, "slopes": (0.5,)},
        {"transfer_syntax": JPEGLSLossless, "is_signed": True, "intercept": 0.0},
    ],
    ids=str,
)
def test_case_16_a_mask_lies_on_the_images_it_was_found_in(tmp_path: Path, options: dict[str, Any]) -> None:
    series = scan_phantom(tmp_path, **options)
    compare(series, view(series, tmp_path))


def test_case_19_a_multi_frame_series_is_shown_frame_by_frame(tmp_path: Path) -> None:
    series = scan_enhanced(tmp_path)
    compare(series, view(series, tmp_path))


def compare(series: Series, overlay: Overlay) -> None:
    """Each slice against the volume that was measured, found by where it lies and not by its number."""
    mask, hounsfield = mark(series).mask, read_volume(series).hounsfield
    assert len(overlay.slices) == len(mask)
    for one in overlay.slices:
        index = [plane.position for plane in series.planes].index(one.plane.position)
        assert (fill(one.outline, mask.shape[1:]) == mask[index]).all()
        pixels = np.frombuffer(read_slice(one.plane), "<i2").reshape(mask.shape[1:])
        np.testing.assert_array_equal(pixels, np.rint(hounsfield[index]))
    assert overlay.volume_ml == pytest.approx(mask.sum() * series.grid.voxel_volume_mm3 / 1000)


def test_slices_go_from_the_head_to_the_feet_and_say_where_they_are(tmp_path: Path) -> None:
    overlay = view(scan_phantom(tmp_path), tmp_path)
    places = [one.place for one in overlay.slices]
    assert places[:2] == ["H 27.5 mm", "H 22.5 mm"]
    assert places[-1] == "F 27.5 mm"
    assert (overlay.rows, overlay.columns, overlay.spacing_mm) == (40, 48, (3.0, 4.0))


@pytest.mark.parametrize(
    ("orientation", "right", "bottom", "first"),
    [
        (phantom.AXIAL, "L", "P", "H"),
        (phantom.PRONE, "R", "A", "H"),
        (phantom.NEGATED_COLUMN, "L", "A", "H"),
        (phantom.CORONAL, "L", "F", "A"),
        (phantom.SAGITTAL, "P", "F", "R"),
        (phantom.OBLIQUE, "L", "PH", "H"),
    ],
)
def test_the_sides_of_the_patient(tmp_path: Path, orientation: Any, right: str, bottom: str, first: str) -> None:
    overlay = view(scan_phantom(tmp_path, orientation=orientation), tmp_path)
    opposite = str.maketrans("LRPAHF", "RLAPFH")
    assert overlay.sides == Sides(bottom.translate(opposite), right, bottom, right.translate(opposite))
    assert overlay.slices[0].place.startswith(first)


def test_nothing_found_is_shown_without_an_outline(tmp_path: Path) -> None:
    series = scan_phantom(tmp_path)
    overlay = open_overlay([plane.path for plane in series.planes], None)
    assert {(one.outline, one.area_mm2) for one in overlay.slices} == {("", 0.0)}


def test_a_mask_in_two_parts_leaves_the_slices_between_them_unmarked(tmp_path: Path) -> None:
    series = scan_phantom(tmp_path)
    mask = np.array(mark(series).mask)
    mask[5:7] = False
    seg = to_seg(series, Segmentation(mask, series.grid, 0.9), CARD, AT)
    seg.save_as(tmp_path / "seg", enforce_file_format=True)
    overlay = open_overlay([plane.path for plane in series.planes], tmp_path / "seg")
    assert [bool(one.outline) for one in overlay.slices] == [bool(part.any()) for part in mask]


def test_a_segmentation_of_another_series_or_place_is_not_shown(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    series, other = scan_phantom(tmp_path / "one"), scan_phantom(tmp_path / "other", seed="another")
    images, path = [plane.path for plane in series.planes], write_seg(series, tmp_path / "seg")
    with pytest.raises(UnfitGeometry, match="not of this series"):
        open_overlay(images, write_seg(other, tmp_path / "foreign"))
    moved = pydicom.dcmread(path)
    moved.PerFrameFunctionalGroupsSequence[2].PlanePositionSequence[0].ImagePositionPatient[2] += 5
    moved.save_as(path)
    with pytest.raises(UnfitGeometry, match="lies elsewhere"):
        open_overlay(images, path)
    path.write_bytes(path.read_bytes()[:-4000])
    with pytest.raises(NotImageData, match="damaged segmentation"):
        open_overlay(images, path)


def test_a_series_is_opened_once_for_all_and_none_waits_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, slow, quick = [], Path("slow"), Path("quick")
    begun, go_on = Event(), Event()

    def open_slowly(images: tuple[Path, ...], _: Path | None) -> Path:
        opened.append(images[0])
        if images == (slow,):
            begun.set()
            assert go_on.wait(20)
        return images[0]

    monkeypatch.setattr(overlay_module, "open_overlay", open_slowly)
    lightbox = Lightbox()
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(lightbox.show, [slow], None) for _ in range(2)]
        assert begun.wait(20)
        assert lightbox.show([quick], None) == quick
        go_on.set()
        assert [one.result(20) for one in waiting] == [slow, slow]
    assert sorted(opened) == [quick, slow]
