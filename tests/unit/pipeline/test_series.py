"""Order, geometry and the reasons to refuse."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid

from pipeline.errors import NotASlice, NotImageData, Refused, Undecodable, UnfitGeometry, UnfitSeries
from pipeline.image_types import NO_SLICES
from pipeline.series import Series, open_series, read_volume
from tests.phantom import AXIAL, CORONAL, OBLIQUE, PhantomOptions, write_multiframe, write_series

SMALL = PhantomOptions(shape=(12, 20, 30), spacing_mm=(3.0, 2.0, 2.5))

Edit = Callable[[pydicom.Dataset], None]


def write(folder: Path, **changes: object) -> list[Path]:
    return write_series(folder, replace(SMALL, **changes))


def edit(path: Path, change: Edit) -> None:
    instance = pydicom.dcmread(path)
    change(instance)
    instance.save_as(path)


def set_to(keyword: str, value: object) -> Edit:
    return lambda instance: setattr(instance, keyword, value)


def remove(keyword: str) -> Edit:
    return lambda instance: delattr(instance, keyword)


def assert_refused(paths: list[Path], kind: type[Refused], *words: str) -> None:
    with pytest.raises(kind) as caught:
        open_series(paths)
    assert type(caught.value) is kind
    for word in words:
        assert word in str(caught.value)
    assert "Phantom" not in str(caught.value), "a refusal names no patient"


class TestOrder:
    @pytest.mark.parametrize("order", ["ascending", "descending", "shuffled"])
    @pytest.mark.parametrize("orientation", [AXIAL, CORONAL, OBLIQUE])
    def test_position_alone_decides(self, tmp_path: Path, order: str, orientation: tuple[float, ...]) -> None:
        series = open_series(write(tmp_path, order=order, orientation=orientation))
        positions = np.array([instance.ImagePositionPatient for instance in series.instances], float)
        indices = series.grid.to_indices(positions)
        np.testing.assert_allclose(indices, [(k, 0, 0) for k in range(12)], atol=1e-3)
        assert series.grid.geometry.handedness.name == "RIGHT_HANDED"

    def test_instance_k_is_slice_k_of_the_voxels(self, tmp_path: Path) -> None:
        series = open_series(write(tmp_path, order="shuffled"))
        volume = read_volume(series)
        for instance, plane, voxels in zip(series.instances, series.planes, volume.hounsfield, strict=True):
            stored = pydicom.dcmread(plane.path)
            assert stored.SOPInstanceUID == instance.SOPInstanceUID
            np.testing.assert_array_equal(voxels, stored.pixel_array.astype(int) - 1024)

    def test_case_17_true_positions_not_slice_thickness(self, tmp_path: Path) -> None:
        series = open_series(write(tmp_path, attributes={"SliceThickness": 5, "SpacingBetweenSlices": 7}))
        np.testing.assert_allclose(series.grid.geometry.spacing, (3.0, 2.0, 2.5))
        assert series.grid.voxel_volume_mm3 == pytest.approx(15.0)

    def test_rounded_cosines_keep_the_voxel_volume(self, tmp_path: Path) -> None:
        series = open_series(write(tmp_path, orientation=tuple(round(cosine, 4) for cosine in OBLIQUE)))
        assert series.grid.voxel_volume_mm3 == pytest.approx(15.0, rel=1e-4)

    def test_pixel_data_is_not_held(self, tmp_path: Path) -> None:
        assert not any("PixelData" in instance for instance in open_series(write(tmp_path)).instances)


class TestRefusedFiles:
    def test_no_files(self) -> None:
        assert_refused([], NotImageData, "no files")

    def test_text_file(self, tmp_path: Path) -> None:
        path = tmp_path / "notes.txt"
        path.write_text("not an image\n" * 100)
        assert_refused([path], NotImageData, "notes.txt", "not a DICOM file")

    def test_empty_file(self, tmp_path: Path) -> None:
        path = tmp_path / "empty.dcm"
        path.touch()
        assert_refused([path], NotImageData, "empty.dcm")

    def test_missing_file(self, tmp_path: Path) -> None:
        assert_refused([tmp_path / "gone.dcm"], NotImageData, "gone.dcm", "No such file")

    @pytest.mark.parametrize("share", [0.2, 0.4, 0.6, 0.9, 0.99])
    @pytest.mark.parametrize("syntax", [pydicom.uid.ExplicitVRLittleEndian, pydicom.uid.JPEGLSLossless])
    def test_truncated(self, tmp_path: Path, share: float, syntax: str) -> None:
        paths = write(tmp_path, transfer_syntax=syntax)
        content = paths[3].read_bytes()
        paths[3].write_bytes(content[: int(len(content) * share)])
        with pytest.raises(Refused, match=r"0004\.dcm"):
            read_volume(open_series(paths))

    def test_fuzzed_headers_are_refused_or_read_but_never_crash(self, tmp_path: Path) -> None:
        paths = write(tmp_path)
        content = paths[0].read_bytes()
        generator = np.random.default_rng(3)
        for _ in range(200):
            damaged = bytearray(content)
            for place in generator.integers(132, 2200, size=3):
                damaged[place] = generator.integers(256)
            paths[0].write_bytes(damaged)
            with contextlib.suppress(Refused):
                read_volume(open_series(paths))

    def test_undecodable_pixel_data_names_the_file(self, tmp_path: Path) -> None:
        paths = write(tmp_path, transfer_syntax=pydicom.uid.JPEGLSLossless)
        edit(paths[5], lambda one: one.__setattr__("PixelData", pydicom.encaps.encapsulate([b"\xff\xd8garbage!"])))
        with pytest.raises(Undecodable, match=r"0006\.dcm"):
            read_volume(open_series(paths))

    def test_case_19_unknown_transfer_syntax(self, tmp_path: Path) -> None:
        paths = write(tmp_path)
        instance = pydicom.dcmread(paths[0])
        instance.PixelData = pydicom.encaps.encapsulate([b"moving pictures"])
        instance.file_meta.TransferSyntaxUID = pydicom.uid.MPEG2MPML
        instance.save_as(paths[0])
        assert_refused(paths, Undecodable, "0001.dcm", "MPEG2")

    @pytest.mark.parametrize(
        "sop_class", [pydicom.uid.MRImageStorage, pydicom.uid.ComprehensiveSRStorage, pydicom.uid.RTDoseStorage]
    )
    def test_case_18_not_ct(self, tmp_path: Path, sop_class: pydicom.uid.UID) -> None:
        paths = write(tmp_path)
        for path in paths:
            edit(path, set_to("SOPClassUID", sop_class))
        assert_refused(paths, NotASlice, "0001.dcm", sop_class.name)

    @pytest.mark.parametrize("value", NO_SLICES)
    def test_case_18_localizer_and_derived(self, tmp_path: Path, value: str) -> None:
        paths = write(tmp_path, attributes={"ImageType": ["DERIVED", "SECONDARY", value]})
        assert_refused(paths, NotASlice, "0001.dcm", value)


class TestRefusedSeries:
    @pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"])
    def test_mixed(self, tmp_path: Path, keyword: str) -> None:
        paths = write(tmp_path)
        edit(paths[7], set_to(keyword, generate_uid()))
        assert_refused(paths, UnfitSeries, "0001.dcm", "0008.dcm", "differ")

    @pytest.mark.parametrize(
        ("keyword", "name"),
        [
            ("SOPClassUID", "SOP Class UID"),
            ("SOPInstanceUID", "SOP Instance UID"),
            ("StudyInstanceUID", "Study Instance UID"),
            ("FrameOfReferenceUID", "Frame of Reference UID"),
            ("Rows", "Rows"),
            ("BitsStored", "Bits Stored"),
            ("PixelRepresentation", "Pixel Representation"),
            ("PixelSpacing", "Pixel Spacing"),
            ("ImagePositionPatient", "Image Position (Patient)"),
            ("ImageOrientationPatient", "Image Orientation (Patient)"),
            ("RescaleSlope", "Rescale Slope"),
            ("RescaleIntercept", "Rescale Intercept"),
        ],
    )
    def test_case_20_missing_type_1_attribute(self, tmp_path: Path, keyword: str, name: str) -> None:
        paths = write(tmp_path)
        edit(paths[4], remove(keyword))
        with pytest.raises(Refused, match=r"0005\.dcm") as caught:
            open_series(paths)
        assert f"{name} (" in str(caught.value)
        assert "missing" in str(caught.value)

    def test_case_20_attributes_of_a_bad_length_are_as_good_as_absent(self, tmp_path: Path) -> None:
        paths = write(tmp_path)
        content = paths[4].read_bytes()
        kvp = bytes.fromhex("18006000") + b"DS\x06\x00120.0 "
        assert kvp in content
        paths[4].write_bytes(content.replace(kvp, kvp[:4] + b"FD" + kvp[6:]))
        series = open_series(paths)
        without = [plane.name for plane, one in zip(series.planes, series.instances, strict=True) if "KVP" not in one]
        assert without == ["image 5 (0005.dcm)"]
        assert [(one.kind, one.text) for one in series.assumptions] == [
            ("attribute-unreadable", "KVP (0018,0060) is damaged in 1 file: taken as absent")
        ]

    @pytest.mark.parametrize(
        ("keyword", "value"),
        [
            ("PixelSpacing", ["0", "2"]),
            ("PixelSpacing", ["2"]),
            ("ImageOrientationPatient", ["1", "0", "0", "0.1", "1", "0"]),
            ("ImageOrientationPatient", ["1", "0", "0", "0", "2", "0"]),
            ("ImagePositionPatient", ["1", "2"]),
            ("RescaleSlope", "0"),
            ("Rows", 60000),
            ("Columns", 0),
            ("SamplesPerPixel", 3),
        ],
    )
    def test_attributes_that_make_no_sense(self, tmp_path: Path, keyword: str, value: object) -> None:
        paths = write(tmp_path)
        edit(paths[4], set_to(keyword, value))
        with pytest.raises(Refused, match=r"0005\.dcm"):
            open_series(paths)

    @pytest.mark.parametrize("rescale_type", ["Z_EFF", "ED"])
    def test_not_hounsfield(self, tmp_path: Path, rescale_type: str) -> None:
        assert_refused(write(tmp_path, attributes={"RescaleType": rescale_type}), UnfitSeries, rescale_type)

    def test_one_slice(self, tmp_path: Path) -> None:
        assert_refused(write(tmp_path)[:1], UnfitSeries, "too few slices")

    def test_same_instance_twice(self, tmp_path: Path) -> None:
        paths = write(tmp_path)
        shutil.copy(paths[2], tmp_path / "copy.dcm")
        assert_refused([*paths, tmp_path / "copy.dcm"], UnfitSeries, "0003.dcm", "copy.dcm", "same instance")

    def test_two_multiframe_files(self, tmp_path: Path) -> None:
        paths = [write_multiframe(tmp_path / name, SMALL) for name in ("a.dcm", "b.dcm")]
        edit(paths[1], set_to("SOPInstanceUID", generate_uid()))
        assert_refused(paths, UnfitSeries, "multi-frame")


class TestRefusedGeometry:
    def test_case_14_missing_slice(self, tmp_path: Path) -> None:
        paths = write(tmp_path, missing=[5])
        assert_refused(paths, UnfitGeometry, "1 slice is missing", "0005.dcm", "0006.dcm", "6.00 mm", "3.00 mm")

    def test_case_14_missing_slice_of_an_oblique_descending_series(self, tmp_path: Path) -> None:
        paths = write(tmp_path, missing=[5, 6], order="descending", orientation=OBLIQUE)
        assert_refused(paths, UnfitGeometry, "2 slices are missing", "0005.dcm", "0006.dcm", "9.00 mm")

    def test_case_14_uneven_gap(self, tmp_path: Path) -> None:
        paths = write(tmp_path, step_errors_mm={5: 1.0})
        assert_refused(paths, UnfitGeometry, "uneven slice spacing", "2.00 to 4.00 mm")

    def test_case_14_spacing_that_drifts(self, tmp_path: Path) -> None:
        paths = write(tmp_path, step_errors_mm={k: 0.02 * k * k for k in range(12)})
        assert_refused(paths, UnfitGeometry, "uneven slice spacing")

    def test_positions_rounded_to_a_tenth_of_a_millimetre_are_read(self, tmp_path: Path) -> None:
        paths = write(tmp_path, spacing_mm=(1.25, 1.0, 1.0), step_errors_mm={k: 0.05 * (-1) ** k for k in range(12)})
        assert open_series(paths).grid.geometry.spacing_between_slices == pytest.approx(1.25, rel=0.01)

    def test_case_15_duplicate_positions(self, tmp_path: Path) -> None:
        assert_refused(write(tmp_path, twice=[4]), UnfitGeometry, "duplicate", "0005.dcm", "0006.dcm")

    def test_case_15_two_passes_that_no_attribute_tells_apart(self, tmp_path: Path) -> None:
        assert_refused(write(tmp_path, twice=range(12)), UnfitGeometry, "duplicate", "9 more pairs")

    def test_a_shear_that_no_gantry_makes(self, tmp_path: Path) -> None:
        assert_refused(write(tmp_path, tilt_mm=3.5), UnfitGeometry, "sheared by 49.4 degrees")

    def test_slice_beside_the_others(self, tmp_path: Path) -> None:
        paths = write(tmp_path)
        edit(paths[6], lambda one: one.ImagePositionPatient.__setitem__(0, one.ImagePositionPatient[0] + 3))
        assert_refused(paths, UnfitGeometry, "0007.dcm", "3.00 mm")

    @pytest.mark.parametrize(
        ("keyword", "value"),
        [("PixelSpacing", ["2", "2.6"]), ("ImageOrientationPatient", list(map(str, OBLIQUE))), ("Rows", 10)],
    )
    def test_grids_that_differ(self, tmp_path: Path, keyword: str, value: object) -> None:
        paths = write(tmp_path)
        edit(paths[9], set_to(keyword, value))
        assert_refused(paths, UnfitGeometry, "0010.dcm", "0001.dcm", "differs")


class TestAssumptions:
    def test_case_16_gantry_tilt_is_said(self, tmp_path: Path) -> None:
        series = open_series(write(tmp_path, tilt_mm=0.5))
        np.testing.assert_allclose(series.grid.shear_mm, (-0.5, 0), atol=1e-6)
        positions = np.array([instance.ImagePositionPatient for instance in series.instances], float)
        np.testing.assert_allclose(series.grid.to_reference(indices(12)), positions, atol=1e-4)
        (assumption,) = series.assumptions
        assert assumption.kind == "tilt-corrected"
        assert "gantry tilt of 9.5 degrees" in assumption.text

    def test_positions_that_are_not_quite_even_are_said(self, tmp_path: Path) -> None:
        (assumption,) = open_series(write(tmp_path, step_errors_mm={5: 0.1})).assumptions
        assert (assumption.kind, assumption.text[:30]) == ("positions-evened", "slices lie up to 0.10 mm besid")

    def test_missing_attributes_are_said(self, tmp_path: Path) -> None:
        series = open_series(write(tmp_path, attributes={"StudyID": None, "PatientSex": None}))
        assert [one.text for one in series.assumptions] == [
            "Patient's Sex (0010,0040) is missing: empty in the results",
            "Study ID (0020,0010) is missing: empty in the results",
        ]

    def test_case_20_lossy_without_a_ratio_is_said(self, tmp_path: Path) -> None:
        (assumption,) = open_series(write(tmp_path, attributes={"LossyImageCompression": "01"})).assumptions
        assert assumption.text.startswith("Lossy Image Compression Ratio (0028,2112) is missing")

    @pytest.mark.parametrize("value", NO_SLICES)
    def test_case_18_one_such_image_does_not_cost_the_series(self, tmp_path: Path, value: str) -> None:
        paths = write(tmp_path)
        paths.append(shutil.copy(paths[0], tmp_path / "odd"))
        edit(paths[-1], set_to("ImageType", ["DERIVED", "SECONDARY", value]))
        series = open_series(paths)
        assert len(series.planes) == 12
        assert [one.kind for one in series.assumptions] == ["images-left-out"]

    def test_case_18_what_is_no_slice_is_left_out_and_said(self, tmp_path: Path) -> None:
        paths = write(tmp_path)
        for name, change in (
            ("scout", set_to("ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"])),
            ("scout too", set_to("ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"])),
            ("report", set_to("SOPClassUID", pydicom.uid.XRayRadiationDoseSRStorage)),
        ):
            paths.append(shutil.copy(paths[0], tmp_path / name))
            edit(paths[-1], change)
        series = open_series(paths)
        assert len(series.instances) == len(series.planes) == 12
        assert [(one.kind, one.text) for one in series.assumptions] == [
            (
                "images-left-out",
                "left out: image 1 (scout) and 1 more: Image Type LOCALIZER: a localizer, not a CT volume",
            ),
            ("images-left-out", "left out: image 1 (report): X-Ray Radiation Dose SR Storage is not a CT image"),
        ]


def indices(count: int) -> np.ndarray:
    return np.array([(index, 0, 0) for index in range(count)])


def test_lossy_is_known_by_attribute_and_by_syntax(tmp_path: Path) -> None:
    def is_lossy(name: str, **changes: object) -> bool:
        (tmp_path / name).mkdir()
        series: Series = open_series(write(tmp_path / name, **changes))
        return series.is_lossy

    assert not is_lossy("plain")
    assert is_lossy("said", attributes={"LossyImageCompression": "01"})
    assert is_lossy("near", transfer_syntax=pydicom.uid.JPEGLSNearLossless)


def test_the_shipped_sample_is_one_regular_series_of_an_abdomen() -> None:
    folder = Path(__file__).parents[3] / "samples" / "ge-discovery-abdomen"
    series = open_series(sorted(folder.glob("*.dcm")))
    volume = read_volume(series)
    assert volume.hounsfield.shape == (50, 512, 512)
    np.testing.assert_allclose(volume.grid.geometry.spacing, (4.25, 0.976562, 0.976562))
    assert not series.is_lossy
    assert [plane.path.name for plane in series.planes] == [f"{number:04d}.dcm" for number in range(1, 51)]
    assert series.assumptions == ()
    liver = volume.hounsfield[8, 200:230, 150:190]
    assert 40 < np.median(liver) < 80
