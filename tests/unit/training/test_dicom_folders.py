"""DICOM CT with SEG, in folders of cases and in an archive: which SEG is the truth, and what is refused."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from dicomnode.archive import RECEIVED, RESULTS, archive_path
from pipeline.seg import to_seg
from pipeline.series import Series
from pipeline.volume import Segmentation
from tests.fakes import CARD
from tests.results import AT, mark, scan_enhanced, scan_phantom
from training.datasets import find_examples, read_example
from training.examples import Options

ALSO_AUTOMATIC = Options(automatic=True)


@pytest.fixture(scope="module")
def scanned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Series]:
    folder = tmp_path_factory.mktemp("scanned")
    return folder, scan_phantom(folder)


@pytest.fixture
def case(scanned: tuple[Path, Series], tmp_path: Path) -> tuple[Path, Series]:
    """A folder of cases with one CT series."""
    shutil.copytree(scanned[0], tmp_path / "cases" / "patient" / "ct")
    return tmp_path / "cases", scanned[1]


def own(series: Series, shift: int = 0) -> Dataset:
    """This node's result."""
    marked = mark(series)
    return to_seg(series, Segmentation(np.roll(marked.mask, shift, axis=1), series.grid, 0.9), CARD, AT)


def corrected(series: Series, mask: NDArray[np.bool_], label: str = "Pancreas", **changes: Any) -> Dataset:
    """What a workstation sends back: another maker, by hand, with UIDs of its own."""
    sources = [pydicom.dcmread(plane.path) for plane in series.planes]
    described = hd.seg.SegmentDescription(
        1, label, codes.SCT.AnatomicalStructure, codes.SCT.Pancreas, hd.seg.SegmentAlgorithmTypeValues.MANUAL
    )
    result = hd.seg.Segmentation(
        sources,
        mask,
        hd.seg.SegmentationTypeValues.BINARY,
        [described],
        series_instance_uid=hd.UID(),
        series_number=99,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="Workstation",
        manufacturer_model_name="Editor",
        software_versions="1",
        device_serial_number="1",
    )
    for keyword, value in changes.items():
        setattr(result, keyword, value)
    return result


def moved(series: Series, rows: int) -> NDArray[np.bool_]:
    return np.roll(mark(series).mask, rows, axis=1)


def save(result: Dataset, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    result.save_as(path, enforce_file_format=True)
    return path


def read(folder: Path, options: Options | None = None, name: str = "pancreas") -> NDArray[np.bool_]:
    (example,) = find_examples(folder, options=options)
    assert example.layout == "dicom-seg"
    return read_example(example, {name: 1}).labels == 1


def test_a_corrected_seg_beats_the_nodes_own(case: tuple[Path, Series]) -> None:
    folder, series = case
    save(own(series), folder / "patient" / "own.dcm")
    save(corrected(series, moved(series, 2), ContentDate="20200101"), folder / "patient" / "corrected.dcm")
    (folder / "patient" / "licence.txt").write_text("not DICOM")
    for options in (None, ALSO_AUTOMATIC):
        assert np.array_equal(read(folder, options), moved(series, 2))
    (example,) = find_examples(folder)
    assert example.name == "patient"
    assert example.patient == hashlib.sha256(b"PHANTOM-1").hexdigest()[:12]


def test_the_nodes_own_seg_is_no_truth_unless_asked_for(
    case: tuple[Path, Series], caplog: pytest.LogCaptureFixture
) -> None:
    folder, series = case
    save(own(series), folder / "patient" / "own.dcm")
    with pytest.raises(ValueError, match="no labelled example"):
        find_examples(folder)
    assert "1 CT series without a SEG that may be their truth" in caplog.text
    assert np.array_equal(read(folder, ALSO_AUTOMATIC), mark(series).mask)


def by_hand(result: Dataset) -> None:
    result.SegmentSequence[0].SegmentAlgorithmType = "SEMIAUTOMATIC"


def in_a_series_of_the_editor(result: Dataset) -> None:
    result.SeriesInstanceUID = generate_uid()


def of_another_model_name(result: Dataset) -> None:
    result.ManufacturerModelName = "Another"


@pytest.mark.parametrize("edit", [by_hand, in_a_series_of_the_editor, of_another_model_name])
def test_an_edited_copy_of_the_nodes_own_is_a_truth(case: tuple[Path, Series], edit: Callable[[Dataset], None]) -> None:
    folder, series = case
    save(own(series), folder / "patient" / "own.dcm")
    copy = own(series, 3)
    copy.SOPInstanceUID = copy.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    edit(copy)
    save(copy, folder / "patient" / "edited.dcm")
    assert np.array_equal(read(folder), moved(series, 3))


def test_the_latest_correction_wins_and_a_hand_beats_another_machine(case: tuple[Path, Series]) -> None:
    folder, series = case
    for rows, date in ((1, "20210101"), (4, "20230101"), (2, "20220101")):
        save(corrected(series, moved(series, rows), ContentDate=date), folder / "patient" / f"{date}.dcm")
    machine = corrected(series, moved(series, 5), ContentDate="20240101")
    machine.SegmentSequence[0].SegmentAlgorithmType = "AUTOMATIC"
    save(machine, folder / "patient" / "machine.dcm")
    for name in ("pancreas", "1"):
        assert np.array_equal(read(folder, name=name), moved(series, 4))


def test_each_structure_has_its_own_latest_seg(case: tuple[Path, Series]) -> None:
    folder, series = case
    save(corrected(series, moved(series, 1), ContentDate="20210101"), folder / "patient" / "pancreas.dcm")
    lesion = corrected(series, moved(series, 2), "Lesion", ContentDate="20220101")
    lesion.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0].CodeMeaning = "Neoplasm"
    save(lesion, folder / "patient" / "lesion.dcm")
    (example,) = find_examples(folder)
    labels = read_example(example, {"pancreas": 1, "lesion": 2}).labels
    assert np.array_equal(labels == 2, moved(series, 2))
    assert np.array_equal(labels == 1, moved(series, 1) & ~moved(series, 2))
    assert np.array_equal(read_example(example, {"NEOPLASM": 2}).labels, labels * (labels == 2))


def keep(archive: Path, area: str, path: Path) -> None:
    """As the node does: by digests, series and patients beside each other."""
    instance, content = pydicom.dcmread(path), hashlib.sha256(path.read_bytes()).hexdigest()
    target = archive / archive_path(area, instance.SeriesInstanceUID, instance.SOPInstanceUID, content)
    target.parent.mkdir(parents=True, exist_ok=True)
    path.rename(target)


def test_an_archive_of_many_patients_in_one_folder(tmp_path: Path) -> None:
    archive, expected = tmp_path / "archive", dict[str, tuple[str, int]]()
    for number, patient in enumerate(("first", "second", "")):
        folder = tmp_path / str(number)
        folder.mkdir()
        series = scan_phantom(folder, seed=f"patient {number}", attributes={"PatientID": patient})
        results = [save(own(series), tmp_path / "own.dcm")]
        if patient != "first":
            result = corrected(series, moved(series, number))
            if not patient:
                del result.ReferencedSeriesSequence  # then its frames say where it belongs
            keep(archive, RECEIVED, save(result, tmp_path / "corrected.dcm"))
            name = hashlib.sha256(series.series_instance_uid.encode()).hexdigest()[:12]
            of = hashlib.sha256((patient or series.study_instance_uid).encode()).hexdigest()[:12]
            expected[name] = of, number
        for path in list(folder.iterdir()):
            keep(archive, RECEIVED, path)
        keep(archive, RESULTS, results[0])
    examples = find_examples(archive)
    assert {example.name: example.patient for example in examples} == {name: of for name, (of, _) in expected.items()}
    for example in examples:
        assert len(example.images) == len(example.files) - 1 == 12
        assert np.array_equal(read_example(example, {"pancreas": 1}).labels, moved(series, expected[example.name][1]))
    assert len(find_examples(archive, options=ALSO_AUTOMATIC)) == 3


def test_a_tilted_series_is_read_for_training(tmp_path: Path) -> None:
    series = scan_phantom(tmp_path, tilt_mm=1.0)
    save(corrected(series, mark(series).mask), tmp_path / "seg.dcm")
    (example,) = find_examples(tmp_path)
    labelled = read_example(example, {"pancreas": 1})
    assert labelled.volume.grid.is_sheared
    assert np.array_equal(labelled.labels, mark(series).mask)


def test_an_enhanced_ct_with_its_seg(tmp_path: Path) -> None:
    made, folder = tmp_path / "made", tmp_path / "cases" / "patient"
    made.mkdir()
    folder.mkdir(parents=True)
    series = scan_enhanced(made)
    result = own(series)
    by_hand(result)
    save(result, folder / "seg.dcm")
    shutil.copy(made / "enhanced.dcm", folder)
    assert np.array_equal(read(folder.parent), mark(series).mask)


def test_a_seg_that_fits_no_slice_is_refused_by_its_name(case: tuple[Path, Series]) -> None:
    folder, series = case
    path = save(corrected(series, mark(series).mask), folder / "patient" / "seg.dcm")
    (example,) = find_examples(folder)
    with pytest.raises(ValueError, match=r"seg\.dcm: no segment 3"):
        read_example(example, {"3": 1})

    turned = pydicom.dcmread(path)
    turned.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient = [1, 0, 0, 0, -1, 0]
    save(turned, path)
    with pytest.raises(ValueError, match=r"seg\.dcm: its frames do not lie on the pixels"):
        read(folder)

    elsewhere = corrected(series, mark(series).mask)
    for groups in elsewhere.PerFrameFunctionalGroupsSequence:
        groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID = generate_uid()
    save(elsewhere, path)
    with pytest.raises(ValueError, match=r"seg\.dcm: .*none of the slices"):
        read(folder)


def test_a_seg_of_another_ct_and_a_damaged_one(case: tuple[Path, Series], caplog: pytest.LogCaptureFixture) -> None:
    folder, series = case
    save(corrected(series, mark(series).mask), folder / "patient" / "seg.dcm")
    lost = corrected(series, mark(series).mask)
    lost.ReferencedSeriesSequence[0].SeriesInstanceUID = generate_uid()
    del lost.SourceImageSequence, lost.PerFrameFunctionalGroupsSequence
    save(lost, folder / "lost.dcm")
    assert len(find_examples(folder)) == 1
    assert "lost.dcm: left out: the CT that it refers to is not here" in caplog.text
    broken = corrected(series, mark(series).mask)
    del broken.SegmentSequence
    save(broken, folder / "broken.dcm")
    with pytest.raises(ValueError, match=r"broken\.dcm: a damaged SEG"):
        find_examples(folder)
