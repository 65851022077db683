"""The picture: the outline where the organ is, the patient's sides, the true proportions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread
from numpy.typing import NDArray

from pipeline import preview
from pipeline.preview import draw_overlay
from pipeline.series import read_volume
from pipeline.volume import Segmentation
from tests import phantom
from tests.results import mark, scan_phantom


def draw(folder: Path, *, is_found: bool = True, **options: Any) -> NDArray[np.floating]:
    """The picture of the phantom as RGB, 0..1."""
    series = scan_phantom(folder, **options)
    segmentation = mark(series) if is_found else Segmentation(np.zeros(series.grid.shape, bool), series.grid, 0.0)
    path = folder / "overlay.png"
    draw_overlay(read_volume(series), segmentation, path)
    return np.asarray(imread(path))[..., :3]


def coloured(picture: NDArray[np.floating]) -> int:
    return int((np.ptp(picture, axis=-1) > 0.3).sum())


def test_the_outline_is_drawn_where_the_organ_is_found(tmp_path: Path) -> None:
    assert coloured(draw(tmp_path)) > 500


def test_a_picture_is_drawn_where_nothing_is_found(tmp_path: Path) -> None:
    picture = draw(tmp_path, is_found=False)
    assert coloured(picture) == 0
    assert (picture > 0.3).mean() > 0.1


def last_run(filled: NDArray[np.bool_]) -> int:
    """Length of the last run of True."""
    end = int(np.flatnonzero(filled)[-1])
    return end - int(np.flatnonzero(~filled[:end])[-1])


@pytest.mark.parametrize("spacing_mm", [(5.0, 3.0, 4.0), (5.0, 6.0, 4.0)])
def test_pixels_are_drawn_in_the_proportion_of_their_spacing(tmp_path: Path, spacing_mm: tuple[float, ...]) -> None:
    picture = draw(tmp_path, is_found=False, spacing_mm=spacing_mm, shape=(12, 56, 56)).mean(axis=-1)
    trunk = picture > 0.3
    height = last_run(trunk[:, picture.shape[1] * 3 // 4 :].sum(axis=1) > 10)
    width = last_run(trunk[-height:].sum(axis=0) > 10)
    across, along = phantom.ORGANS[0].semi_axes[:2]
    assert width / height == pytest.approx(across / along, rel=0.05)


class Recorder:
    """Stands in for matplotlib's axes and keeps what is written where."""

    transAxes = None

    def __init__(self) -> None:
        self.letters: dict[tuple[float, float], str] = {}

    def text(self, x: float, y: float, text: str, **_: Any) -> None:
        self.letters[round(2 * x) / 2, round(2 * y) / 2] = text


@pytest.mark.parametrize(
    ("orientation", "right", "bottom"),
    [
        (phantom.AXIAL, "L", "P"),
        (phantom.PRONE, "R", "A"),
        (phantom.NEGATED_COLUMN, "L", "A"),
        (phantom.CORONAL, "L", "F"),
    ],
)
def test_the_letters_name_the_sides_of_the_patient(
    tmp_path: Path, orientation: tuple[float, ...], right: str, bottom: str
) -> None:
    opposite = dict(zip("LRAPHF", "RLPAFH", strict=True))
    recorder = Recorder()
    preview._annotate(recorder, scan_phantom(tmp_path, orientation=orientation).grid.geometry, "3/12")  # type: ignore[arg-type]
    assert recorder.letters[1.0, 0.5] == right
    assert recorder.letters[0.0, 0.5] == opposite[right]
    assert recorder.letters[0.5, 0.0] == bottom
    assert recorder.letters[0.5, 1.0] == opposite[bottom]


def test_slices_are_taken_from_the_organ(tmp_path: Path) -> None:
    mask = np.zeros((100, 4, 4), bool)
    mask[40:80] = True
    chosen = preview._choose_slices(mask, 12)
    assert (len(chosen), chosen[0], chosen[-1]) == (12, 40, 79)
    assert list(preview._choose_slices(np.zeros((5, 4, 4), bool), 12)) == [0, 1, 2, 3, 4]
