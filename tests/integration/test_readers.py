"""What others read of the results: validators find no error, readers find the same voxels and the same volume."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
import SimpleITK
from numpy.typing import NDArray
from pydicom.uid import Comprehensive3DSRStorage

from pipeline.measure import Flag
from pipeline.priors import Report
from pipeline.provenance import Revision
from pipeline.seg import to_seg
from pipeline.series import Series, open_series
from pipeline.sr import to_sr
from pipeline.volume import ConfidenceKind, Segmentation
from tests import phantom
from tests.external import find_program, run_program
from tests.fakes import CARD
from tests.results import AT, describe, mark, nothing, remember, scan_enhanced, scan_phantom

SAMPLE = Path(__file__).parents[2] / "samples" / "ge-discovery-abdomen"
ORIENTATIONS = {
    "axial": phantom.AXIAL,
    "prone": phantom.PRONE,
    "negated-column": phantom.NEGATED_COLUMN,
    "oblique": phantom.OBLIQUE,
    "sagittal": phantom.SAGITTAL,
}


@dataclass(frozen=True)
class Written:
    """A finding and the files of its results."""

    series: Series
    segmentation: Segmentation
    seg: Path
    sr: Path

    @property
    def volume_ml(self) -> float:
        return describe(self.segmentation).volume_ml


def write(series: Series, folder: Path, *flags: Flag) -> Written:
    segmentation = mark(series)
    measurement = describe(segmentation, *flags)
    seg = to_seg(series, segmentation, CARD, AT, measurement=measurement)
    sr = to_sr(series, measurement, CARD, AT, seg=seg)
    written = Written(series, segmentation, folder / "seg.dcm", folder / "sr.dcm")
    seg.save_as(written.seg, enforce_file_format=True)
    sr.save_as(written.sr, enforce_file_format=True)
    return written


@pytest.fixture(params=[*ORIENTATIONS, "enhanced", "real"])
def written(request: pytest.FixtureRequest, tmp_path: Path) -> Written:
    if request.param == "real":
        return write(open_series(sorted(SAMPLE.glob("*.dcm"))), tmp_path)
    source = tmp_path / "source"
    source.mkdir()
    if request.param == "enhanced":
        return write(scan_enhanced(source), tmp_path)
    return write(scan_phantom(source, orientation=ORIENTATIONS[request.param], order="shuffled"), tmp_path)


@pytest.fixture
def plain(tmp_path: Path) -> Written:
    source = tmp_path / "source"
    source.mkdir()
    return write(scan_phantom(source), tmp_path, *(flag for flag in Flag if flag is not Flag.NOTHING_FOUND))


def assert_same_voxels(points: NDArray[np.float64], segmentation: Segmentation) -> None:
    """The centres (x, y, z) of the voxels that a reader holds are those of the mask, each within 0.1 voxel."""
    indices = segmentation.grid.to_indices(points)
    assert np.abs(indices - np.rint(indices)).max() < 0.1
    assert {tuple(index) for index in np.rint(indices).astype(int)} == {
        tuple(i) for i in np.argwhere(segmentation.mask)
    }
    assert len(points) == segmentation.mask.sum()


def centres(image: SimpleITK.Image) -> NDArray[np.float64]:
    """Centres (x, y, z) of the voxels of an ITK image that are not 0, in mm."""
    filled = np.argwhere(SimpleITK.GetArrayFromImage(image))[:, ::-1]
    return np.array([image.TransformIndexToPhysicalPoint([int(one) for one in index]) for index in filled])


def test_case_30_dcmqi_reads_the_segmentation_voxel_for_voxel(written: Written, tmp_path: Path) -> None:
    program = find_program("segimage2itkimage", "dcmqi (make setup)")
    run_program(program, "--inputDICOM", written.seg, "--outputDirectory", tmp_path, "--outputType", "nrrd")
    assert_same_voxels(centres(SimpleITK.ReadImage(tmp_path / "1.nrrd")), written.segmentation)
    (segment,) = json.loads((tmp_path / "meta.json").read_text())["segmentAttributes"][0]
    assert (segment["SegmentLabel"], segment["SegmentedPropertyTypeCodeSequence"]["CodeValue"]) == (
        "Pancreas",
        "15776009",
    )


def test_case_30_simpleitk_reads_the_segmentation_voxel_for_voxel(written: Written) -> None:
    assert_same_voxels(centres(SimpleITK.ReadImage(written.seg)), written.segmentation)


def test_case_30_highdicom_reads_the_segmentation_voxel_for_voxel(written: Written) -> None:
    volume = hd.seg.segread(written.seg).get_volume(combine_segments=True)
    assert volume.frame_of_reference_uid == written.series.first.FrameOfReferenceUID
    assert_same_voxels(volume.map_indices_to_reference(np.argwhere(volume.array)), written.segmentation)


def test_case_31_dcmqi_reads_the_volume_of_the_report(written: Written, tmp_path: Path) -> None:
    path = tmp_path / "sr.json"
    run_program(
        find_program("tid1500reader", "dcmqi (make setup)"), "--inputDICOM", written.sr, "--outputMetadata", path
    )
    (group,) = json.loads(path.read_text())["Measurements"]
    volume = group["measurementItems"][0]
    assert (volume["quantity"]["CodeValue"], volume["units"]["CodeValue"]) == ("118565006", "mL")
    assert float(volume["value"]) == pytest.approx(written.volume_ml, abs=5e-4)
    assert volume["measurementAlgorithmIdentification"]["AlgorithmName"] == CARD.name
    assert group["segmentationSOPInstanceUID"] == hd.seg.segread(written.seg).SOPInstanceUID
    assert group["SourceSeriesForImageSegmentation"] == written.series.series_instance_uid


def errors_of_dciodvfy(path: Path) -> list[str]:
    output = run_program(find_program("dciodvfy", "dicom3tools"), path, may_fail=True)
    return [line for line in output.splitlines() if line.startswith("Error")]


def errors_of_pixelmed(path: Path) -> list[str]:
    output = run_program(find_program("DicomSRValidator", "pixelmed-apps"), path)
    assert "Root Template Validation Complete" in output
    return [line for line in output.splitlines() if "Error" in line or "Exception" in line]


def test_case_30_dciodvfy_finds_no_error_in_the_segmentation(written: Written) -> None:
    assert errors_of_dciodvfy(written.seg) == []


def test_case_31_dciodvfy_finds_no_error_in_the_report(written: Written) -> None:
    assert errors_of_dciodvfy(written.sr) == []


def test_case_31_dciodvfy_finds_no_error_in_a_report_with_every_flag(plain: Written) -> None:
    assert errors_of_dciodvfy(plain.sr) == []


def test_case_16_dcmtk_and_dciodvfy_take_the_segmentation_of_a_tilted_gantry(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    tilted = write(scan_phantom(source, tilt_mm=1.1), tmp_path)
    assert errors_of_dciodvfy(tilted.seg) == []
    seg = hd.seg.segread(tilted.seg)
    positions = [frame.PlanePositionSequence[0] for frame in seg.PerFrameFunctionalGroupsSequence]
    corners = np.array([one.ImagePositionPatient for one in positions], float)
    indices = tilted.series.grid.to_indices(corners)
    np.testing.assert_allclose(indices[:, 1:], 0, atol=1e-3)
    for index, frame in zip(np.rint(indices[:, 0]).astype(int), seg.pixel_array, strict=True):
        np.testing.assert_array_equal(frame.astype(bool), tilted.segmentation.mask[index])


def test_validators_find_no_error_in_what_an_ensemble_writes(plain: Written, tmp_path: Path) -> None:
    card = replace(CARD, name="threshold x5", version="1+flips.LPS", members=5, flips="LPS")
    found = describe(plain.segmentation, Flag.LOW_CONFIDENCE)
    measurement = replace(found, confidence_kind=ConfidenceKind.AGREEMENT, spread_ml=3.2)
    seg = to_seg(plain.series, plain.segmentation, card, AT, measurement=measurement)
    sr = to_sr(plain.series, measurement, card, AT, seg=seg)
    for name, result in (("seg.dcm", seg), ("sr.dcm", sr)):
        result.save_as(tmp_path / name, enforce_file_format=True)
        assert errors_of_dciodvfy(tmp_path / name) == []
    assert errors_of_pixelmed(tmp_path / "sr.dcm") == []


def test_case_31_dicomsrvalidator_finds_no_error_in_the_report(plain: Written) -> None:
    assert errors_of_pixelmed(plain.sr) == []


def test_case_23_validators_find_no_error_in_a_report_of_nothing(plain: Written, tmp_path: Path) -> None:
    path = tmp_path / "nothing.dcm"
    to_sr(plain.series, nothing(plain.series), CARD, AT, seg=None).save_as(path, enforce_file_format=True)
    assert errors_of_dciodvfy(path) == []
    assert errors_of_pixelmed(path) == []


def test_case_08_validators_find_no_error_in_what_a_later_revision_writes(plain: Written, tmp_path: Path) -> None:
    before = Report("1.2.3", "1.2.3.4", Comprehensive3DSRStorage, "1.2.3.4.5")
    revision = Revision(2, before, "9 of 12 instances, as the headers counted")
    measurement = describe(plain.segmentation, Flag.INCOMPLETE_SERIES)
    seg = to_seg(plain.series, plain.segmentation, CARD, AT, measurement=measurement, revision=revision)
    sr = to_sr(plain.series, measurement, CARD, AT, seg=seg, revision=revision)
    for name, dataset in (("seg.dcm", seg), ("sr.dcm", sr)):
        dataset.save_as(tmp_path / name, enforce_file_format=True)
        assert errors_of_dciodvfy(tmp_path / name) == []
    assert errors_of_pixelmed(tmp_path / "sr.dcm") == []


def test_validators_and_readers_take_a_report_with_earlier_volumes(plain: Written, tmp_path: Path) -> None:
    path, seg = tmp_path / "with-priors.dcm", hd.seg.segread(plain.seg)
    sr = to_sr(plain.series, describe(plain.segmentation), CARD, AT, seg=seg, priors=remember(revised=True))
    sr.save_as(path, enforce_file_format=True)
    assert errors_of_dciodvfy(path) == []
    assert errors_of_pixelmed(path) == []
    reader = find_program("tid1500reader", "dcmqi (make setup)")
    run_program(reader, "--inputDICOM", path, "--outputMetadata", tmp_path / "sr.json")
    (group,) = json.loads((tmp_path / "sr.json").read_text())["Measurements"]
    assert [float(item["value"]) for item in group["measurementItems"]] == [pytest.approx(plain.volume_ml, abs=5e-4)]


def test_the_validators_do_find_errors(plain: Written) -> None:
    report = hd.sr.srread(plain.sr)
    del report.CompletionFlag
    del report.ContentSequence[2]  # the UID of the observer
    report.save_as(plain.sr)
    assert errors_of_dciodvfy(plain.sr)
    assert errors_of_pixelmed(plain.sr)
