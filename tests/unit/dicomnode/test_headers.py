"""What rules look at, read from files: single-frame, Enhanced and damaged ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread

from dicomnode.headers import image_facts, read_series
from dicomnode.phases import Phase
from dicomnode.routing import ImageFacts, SeriesFacts
from tests.phantom import PhantomOptions, write_series
from tests.phantom_objects import write_enhanced

TEXTS = {
    "SeriesDescription": "Oberbauch portalvenös",
    "SpecificCharacterSet": "ISO_IR 192",
    "ProtocolName": "Pankreas",
    "BodyPartExamined": "ABDOMEN",
    "ConvolutionKernel": ["Br38f", "3"],
    "ContrastBolusAgent": "Ultravist 370",
    "SliceThickness": "1.5",
}
TINY = (3, 4, 4)


def facts(paths: list[Path]) -> SeriesFacts:
    return read_series([(path, image_facts(dcmread(path, stop_before_pixels=True))) for path in paths])


def write(folder: Path, **attributes: object) -> list[Path]:
    return write_series(folder, PhantomOptions(TINY, attributes=attributes))


def test_the_facts_of_a_series(tmp_path: Path) -> None:
    found = facts(write(tmp_path, **TEXTS))
    assert found == SeriesFacts(
        modality="CT",
        image_types=frozenset({frozenset({"ORIGINAL", "PRIMARY", "AXIAL"})}),
        description="Oberbauch portalvenös",
        protocol="Pankreas",
        body_part="ABDOMEN",
        kernel="Br38f\\3",
        manufacturer="Phantom",
        scanner="Ellipsoids",
        thickness_mm=1.5,
        slices=3,
        contrast=True,
        series_number=3,
    )
    assert found.phase is Phase.PORTAL_VENOUS


def test_the_order_of_the_images_does_not_matter(tmp_path: Path) -> None:
    paths = write_series(
        tmp_path, PhantomOptions(TINY, slice_attributes={n: {"SliceThickness": str(n + 1)} for n in range(3)})
    )
    assert facts(paths) == facts(paths[::-1])


def test_localizers_do_not_count(tmp_path: Path) -> None:
    scout = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "SliceThickness": "9"}
    found = facts(write_series(tmp_path, PhantomOptions(TINY, slice_attributes={0: scout})))
    assert (found.slices, found.thickness_mm) == (2, 5.0)
    assert found.image_types == {frozenset({"ORIGINAL", "PRIMARY", "AXIAL"})}


def item(**attributes: object) -> Dataset:
    made = Dataset()
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    return made


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "per frame"])
def test_case_19_an_enhanced_object_keeps_its_values_in_functional_groups(tmp_path: Path, shared: bool) -> None:
    path = write_enhanced(tmp_path / "enhanced.dcm", PhantomOptions((30, 4, 4)))
    enhanced = dcmread(path)
    first, frame = enhanced.SharedFunctionalGroupsSequence[0], enhanced.PerFrameFunctionalGroupsSequence[0]
    region = item(CodeMeaning="Abdomen")
    values = {
        "PixelMeasuresSequence": item(PixelSpacing=["1", "1"], SliceThickness="2.5"),
        "CTReconstructionSequence": item(ConvolutionKernel="Br40"),
        "FrameAnatomySequence": item(AnatomicRegionSequence=[region]),
        "ContrastBolusUsageSequence": item(ContrastBolusAgentNumber=1, ContrastBolusAgentAdministered="YES"),
    }
    for keyword, value in values.items():
        if keyword in first:
            del first[keyword]
        setattr(first if shared else frame, keyword, [value])
    enhanced.save_as(path)
    found = facts([path])
    assert (found.thickness_mm, found.kernel, found.body_part) == (2.5, "Br40", "Abdomen")
    assert (found.contrast, found.slices) == (True, 30)


@pytest.mark.parametrize(
    ("agent", "contrast"),
    [
        ("Omnipaque", True),
        ("APPLIED", True),
        ("", False),
        ("NONE", False),
        ("no", False),
        ("Non-ionic?", False),
        ("-", False),
    ],
)
def test_a_contrast_agent_is_anything_but_a_no(tmp_path: Path, agent: str, contrast: bool) -> None:
    assert facts(write(tmp_path, ContrastBolusAgent=agent)).contrast is contrast


def test_a_text_is_one_printable_line(tmp_path: Path) -> None:
    (first, *_) = write(tmp_path, SeriesDescription="x")
    blob = first.read_bytes().replace(b"LO\x02\x00x ", b"LO\x08\x00a\r\nb\x1b[2J")
    assert blob != first.read_bytes()
    first.write_bytes(blob)
    assert facts([first]).description == "a b [2J"


@pytest.mark.parametrize("value", [b"thick ", b"nan ", b"-1", b"1e999 ", b"\xff\xfe"])
def test_an_illegal_number_is_unknown_and_harms_nothing_else(tmp_path: Path, value: bytes) -> None:
    paths = write_series(tmp_path, PhantomOptions(TINY, attributes=TEXTS, raw={"SliceThickness": value}))
    found = facts(paths)
    assert (found.thickness_mm, found.kernel) == (None, "Br38f\\3")


def test_files_that_are_gone_or_damaged_leave_the_facts_unknown(tmp_path: Path) -> None:
    image = ImageFacts("1.2.840.10008.5.1.4.1.1.2", "CT", "ORIGINAL\\PRIMARY\\AXIAL", "")
    (tmp_path / "a").write_bytes(b"no DICOM")
    assert read_series([(tmp_path / "a", image), (tmp_path / "gone", image)]).description == ""
    good = write(tmp_path, **TEXTS)
    assert read_series([(tmp_path / "a", image), (good[0], image)]).kernel == "Br38f\\3"


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_case_20_no_damage_in_a_header_raises(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "enhanced.dcm"
    if not path.exists():
        write_enhanced(path, PhantomOptions(TINY, attributes=TEXTS | {"ConvolutionKernel": "Br38f"}))
    blob = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        blob[data.draw(st.integers(132, len(blob) - 1))] = data.draw(st.integers(0, 255))
    damaged = tmp_path / "damaged.dcm"
    damaged.write_bytes(blob[: data.draw(st.integers(200, len(blob)))])
    read_series([(damaged, ImageFacts("1.2.840.10008.5.1.4.1.1.2.1", "CT", "ORIGINAL\\PRIMARY", ""))])
