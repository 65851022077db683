"""However the phantom is scanned and written: found where it truly is, or refused for the reason that is so.

The truth is the phantom's own, in patient space; what is compared to it is the SEG as others read it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import highdicom as hd
import hypothesis
import numpy as np
import pydicom
import pytest
import SimpleITK
from hypothesis import HealthCheck, given, settings
from numpy.typing import NDArray
from pydicom import Dataset

from pipeline.analyse import Findings, Options, analyse
from pipeline.errors import Refused
from pipeline.preprocess import model_grid, to_tensor
from pipeline.series import open_series
from tests.fakes import CARD, WINDOW_HU, threshold_model
from tests.phantom import (
    PANCREAS,
    PhantomOptions,
    centres,
    frames,
    steps,
)
from tests.strategies import FAULTS, SCANS, Fault, Scanned

THRESHOLD_HU = PANCREAS.hounsfield / 2  # of the model: the trunk has 0
OPTIONS = Options(at=datetime(2024, 1, 2, tzinfo=UTC))
QUICK = {
    "derandomize": True,
    "database": None,
    "deadline": None,
    "phases": (hypothesis.Phase.explicit, hypothesis.Phase.generate),  # a seed does not shrink
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large],
}

Point = tuple[float, ...]


def points_of_simpleitk(path: Path) -> NDArray[np.float64]:
    """Centres of the voxels that are not 0, mm, shape (n, 3)."""
    image = SimpleITK.ReadImage(path)
    indices = np.argwhere(SimpleITK.GetArrayFromImage(image))[:, ::-1]
    directions = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    return image.GetOrigin() + indices @ directions.T


def points_of_highdicom(path: Path) -> NDArray[np.float64]:
    volume = hd.seg.Segmentation.from_dataset(pydicom.dcmread(path)).get_volume(combine_segments=True)
    return volume.map_indices_to_reference(np.argwhere(volume.array))


def points_of_frames(path: Path) -> NDArray[np.float64]:
    """The same, each frame at its own position: neither SimpleITK nor highdicom knows a stack that is sheared."""
    seg = pydicom.dcmread(path)
    shared = seg.SharedFunctionalGroupsSequence[0]
    row, column = np.reshape(shared.PlaneOrientationSequence[0].ImageOrientationPatient, (2, 3)).astype(float)
    between_rows, between_columns = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    in_plane = np.array([between_rows * column, between_columns * row])
    points = [
        np.array(groups.PlanePositionSequence[0].ImagePositionPatient, float) + np.argwhere(frame) @ in_plane
        for groups, frame in zip(seg.PerFrameFunctionalGroupsSequence, seg.pixel_array, strict=True)
    ]
    return np.concatenate(points)


def assert_true(points: NDArray[np.float64], options: PhantomOptions) -> None:
    """Each voxel on a voxel of the scan; Dice, volume and centre those of the analytic organ."""
    places = centres(options)
    indices = (points - places[0, 0, 0]) @ np.linalg.inv(steps(options))
    assert np.abs(indices - np.rint(indices)).max() < 0.1
    found = np.zeros(options.shape, bool)
    found[tuple(np.rint(indices).astype(int).T)] = True
    assert np.count_nonzero(found) == len(points)
    truth = PANCREAS.contains(places)
    assert np.count_nonzero(truth) > 3000
    dice = 2 * np.count_nonzero(found & truth) / (np.count_nonzero(found) + np.count_nonzero(truth))
    assert dice > 0.99
    assert len(points) * abs(np.linalg.det(steps(options))) / 1000 == pytest.approx(PANCREAS.volume_ml, rel=0.005)
    away = (points.mean(axis=0) - PANCREAS.centre) @ np.linalg.inv(steps(options))
    assert np.abs(away).max() < 0.1


def assert_upright(findings: Findings) -> None:
    """The model saw the organ as it lies in the patient: a mask alone does not tell a shear that goes both ways."""
    grid = model_grid(findings.volume.grid, CARD)
    indices = np.stack(np.meshgrid(*(np.arange(size) for size in grid.shape), indexing="ij"), axis=-1)
    truth = PANCREAS.contains(grid.to_reference(indices.reshape(-1, 3)).reshape(indices.shape))
    low, high = WINDOW_HU
    seen = to_tensor(findings.volume, CARD)[0, 0].numpy() > (THRESHOLD_HU - low) / (high - low)
    assert 2 * np.count_nonzero(seen & truth) / (np.count_nonzero(seen) + np.count_nonzero(truth)) > 0.99


def sources(paths: Sequence[Path], scanned: Scanned) -> dict[tuple[str, int], tuple[Point, bool]]:
    """(instance, frame number) -> where it lies, and whether it is of the phase that must be chosen."""
    places: list[tuple[tuple[str, int], Sequence[float]]] = []
    for path in paths:
        instance = pydicom.dcmread(path, stop_before_pixels=True)
        if scanned.layout == "single":
            places.append(((instance.SOPInstanceUID, 1), instance.get("ImagePositionPatient", ())))
        for number, groups in enumerate(instance.get("PerFrameFunctionalGroupsSequence", ()), start=1):
            position = groups.PlanePositionSequence[0].ImagePositionPatient
            places.append(((instance.SOPInstanceUID, number), position))
    chosen = [frame.phase.pancreas_hu == PANCREAS.hounsfield for frame in frames(scanned.options)]
    return {key: (tuple(map(float, place)), is_chosen) for (key, place), is_chosen in zip(places, chosen, strict=False)}


def assert_references(seg: Dataset, known: dict[tuple[str, int], tuple[Point, bool]]) -> None:
    """Every frame names the source slice at its own position, and nothing but the chosen phase is named."""
    chosen = {instance for (instance, _), (_, is_chosen) in known.items() if is_chosen}
    for groups in seg.PerFrameFunctionalGroupsSequence:
        (source,) = groups.DerivationImageSequence[0].SourceImageSequence
        place, is_chosen = known[source.ReferencedSOPInstanceUID, int(source.get("ReferencedFrameNumber", 1))]
        assert is_chosen
        assert groups.PlanePositionSequence[0].ImagePositionPatient == pytest.approx(place, abs=1e-3)
    for reference in seg.ReferencedSeriesSequence:
        assert {one.ReferencedSOPInstanceUID for one in reference.ReferencedInstanceSequence} <= chosen


def analyse_files(paths: Sequence[Path]) -> Findings:
    return analyse(open_series(paths), threshold_model(), OPTIONS)


@settings(max_examples=40, **QUICK)
@given(SCANS)
def test_case_16_what_is_accepted_is_found_where_it_is(scanned: Scanned) -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths = scanned.write(Path(folder))
        findings = analyse_files(paths)
        path = Path(folder) / "seg.dcm"
        assert findings.seg is not None
        findings.seg.save_as(path, enforce_file_format=True)
        readers = (points_of_frames,) if scanned.is_sheared else (points_of_simpleitk, points_of_highdicom)
        for read in readers:
            assert_true(read(path), scanned.options)
        seg = pydicom.dcmread(path)
        assert_references(seg, sources(paths, scanned))
    assert_upright(findings)
    assert findings.measurement.volume_ml == pytest.approx(PANCREAS.volume_ml, rel=0.005)
    assert findings.measurement.components == 1  # padding that shines would be another
    assert {assumption.kind for assumption in findings.assumptions} == scanned.expected
    if name := scanned.options.raw.get("PatientName"):
        assert seg.get_item("PatientName").value.strip() == name.strip()


@settings(max_examples=200, **QUICK)
@given(FAULTS)
def test_case_14_what_is_refused_is_refused_for_its_cause(fault: Fault) -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths = fault.scanned.write(Path(folder))
        with pytest.raises(Refused, match=fault.words) as caught:
            analyse_files(paths)
    assert "Phantom" not in str(caught.value), "a refusal names no patient"
