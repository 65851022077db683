"""Derived identity, and what results take from their source as it came."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag

from pipeline import provenance
from pipeline.measure import Flag
from pipeline.seg import to_seg
from pipeline.series import Series
from pipeline.sr import to_sr
from tests.fakes import CARD
from tests.results import AT, describe, mark, scan_phantom

LATIN = "Müller^Jörg".encode("latin-1")
CHINESE = "Wang^XiaoDong=王^小东"
JAPANESE = b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B"


@pytest.fixture
def series(tmp_path: Path) -> Series:
    return scan_phantom(tmp_path)


def write_results(series: Series, folder: Path) -> list[Path]:
    """SEG and SR of a finding in the series, as files."""
    segmentation = mark(series)
    measurement = describe(segmentation)
    seg = to_seg(series, segmentation, CARD, AT, measurement=measurement)
    sr = to_sr(series, measurement, CARD, AT, seg=seg)
    paths = [folder / "result-seg.dcm", folder / "result-sr.dcm"]
    for result, path in zip((seg, sr), paths, strict=True):
        result.save_as(path, enforce_file_format=True)
    return paths


def test_a_derived_uid_never_changes() -> None:
    assert provenance.derive_uid("a", "b") == "2.25.28336534315809657351665740327136002764"


def test_parts_of_a_derived_uid_do_not_run_together() -> None:
    assert provenance.derive_uid("ab", "c") != provenance.derive_uid("a", "bc")


def test_a_result_uid_depends_on_series_content_model_and_kind(tmp_path: Path, series: Series) -> None:
    fewer = replace(series, instances=series.instances[1:])
    backwards = replace(series, instances=series.instances[::-1])
    uid = provenance.result_uid(series, CARD, "seg")
    others = {
        provenance.result_uid(series, CARD, "sr"),
        provenance.result_uid(fewer, CARD, "seg"),
        provenance.result_uid(series, replace(CARD, sha256="1" * 64), "seg"),
    }
    assert provenance.result_uid(backwards, CARD, "seg") == uid
    assert uid not in others
    assert len(others) == 3
    assert len(uid) <= 64


def test_the_device_uid_changes_with_the_model() -> None:
    uids = {provenance.device_uid(card) for card in (CARD, replace(CARD, version="2"), replace(CARD, sha256="1" * 64))}
    assert len(uids) == 3


@pytest.mark.parametrize("number", ["3", "", "-7", "2147483647", "first"])
def test_a_series_number_is_legal_whatever_the_source_says(series: Series, number: str) -> None:
    series.first.add_new("SeriesNumber", "LO", number)
    numbers = [provenance.series_number(series, offset) for offset in (1, 2)]
    assert numbers[0] != numbers[1]
    assert all(9_000_000 < one < 2**31 for one in numbers)


def test_series_numbers_of_two_sources_differ(series: Series) -> None:
    series.first.SeriesNumber = 3
    third = {provenance.series_number(series, offset) for offset in (1, 2)}
    series.first.SeriesNumber = 4
    assert third.isdisjoint(provenance.series_number(series, offset) for offset in (1, 2))


def test_times_are_in_the_zone_that_the_source_declares(tmp_path: Path) -> None:
    series = scan_phantom(tmp_path, attributes={"TimezoneOffsetFromUTC": "+0530"})
    seg = to_seg(series, mark(series), CARD, datetime(2026, 1, 1, 20, 0, 0, tzinfo=UTC))
    assert (str(seg.ContentDate), str(seg.ContentTime), seg.TimezoneOffsetFromUTC) == ("20260102", "013000", "+0530")


def test_times_stay_as_given_where_the_source_declares_no_zone(series: Series) -> None:
    assert provenance.local_time(series, AT).utcoffset() == timedelta(0)
    assert "TimezoneOffsetFromUTC" not in to_seg(series, mark(series), CARD, AT)


def test_the_words_of_a_volume_tell_a_bound_from_a_value(series: Series) -> None:
    found = replace(describe(mark(series)), volume_ml=57.64)
    assert provenance.volume_words(found) == "57.6 mL"
    assert provenance.volume_words(replace(found, flags=(Flag.TOUCHES_BORDER,))) == "at least 57.6 mL"
    assert provenance.volume_words(replace(found, flags=(Flag.NOTHING_FOUND,))) == "not found"


def test_text_of_our_own_fits_every_character_set() -> None:
    assert provenance.plain("Größe\\\n±2 ", 8) == "Gr??e/ ?"


def algorithm_item(result: Dataset) -> Dataset:
    items = {item.PurposeOfReferenceCodeSequence[0].CodeValue: item for item in result.ContributingEquipmentSequence}
    assert items["109101"].ManufacturerModelName == "Ellipsoids"
    return items["109102"]


def test_both_results_name_the_algorithm_as_contributing_equipment(tmp_path: Path, series: Series) -> None:
    for path in write_results(series, tmp_path):
        item = algorithm_item(dcmread(path))
        assert (item.Manufacturer, item.ManufacturerModelName) == (provenance.MANUFACTURER, CARD.name)
        assert item.SoftwareVersions[0] == CARD.version
        assert item.DeviceUID == provenance.device_uid(CARD)


OFTEN_MISSING = ("PatientSex", "PatientBirthDate", "StudyID", "AccessionNumber", "StudyTime", "ReferringPhysicianName")


def test_case_20_missing_attributes_are_empty_in_the_results(tmp_path: Path) -> None:
    series = scan_phantom(tmp_path, attributes=dict.fromkeys(OFTEN_MISSING))
    for path in write_results(series, tmp_path):
        result = dcmread(path)
        assert [result[keyword].value or "" for keyword in OFTEN_MISSING] == [""] * len(OFTEN_MISSING)


@pytest.mark.filterwarnings("ignore")
def test_case_20_illegal_attributes_go_into_the_results_as_they_came(tmp_path: Path) -> None:
    illegal = {"PatientSex": b"X ", "PatientSize": b"tall", "PatientBirthDate": b"1.1.70"}
    series = scan_phantom(tmp_path)
    for keyword, value in {**illegal, "LossyImageCompression": b"01"}.items():  # lossy without a ratio
        tag = BaseTag(tag_for_keyword(keyword) or 0)
        series.first[tag] = RawDataElement(tag, dictionary_VR(tag), len(value), value, 0, False, True)
    for path in write_results(series, tmp_path):
        result = dcmread(path)
        assert {keyword: result.get_item(keyword).value for keyword in illegal} == illegal
    assert dcmread(tmp_path / "result-seg.dcm").LossyImageCompression == "01"


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        ("ISO_IR 100", LATIN),
        (["", "ISO 2022 IR 87"], JAPANESE),
        ("ISO_IR 192", CHINESE.encode()),
        ("GB18030", CHINESE.encode("gb18030")),
        (None, LATIN),
        ("ISO_IR 1OO", LATIN),
        ("ISO_IR 192", LATIN),
    ],
    ids=["latin", "japanese", "unicode", "gb18030", "missing", "misspelt", "wrong"],
)
@pytest.mark.filterwarnings("ignore")
def test_case_21_names_go_byte_for_byte_into_the_results(tmp_path: Path, charset: Any, name: bytes) -> None:
    name += b" " * (len(name) % 2)
    placeholder = "N" * len(name)
    attributes = {"PatientName": placeholder, "StudyDescription": placeholder}
    series = scan_phantom(
        tmp_path, attributes={"SpecificCharacterSet": charset, **attributes} if charset else attributes
    )
    for path in tmp_path.glob("*.dcm"):
        path.write_bytes(path.read_bytes().replace(placeholder.encode(), name))
    series = replace(series, instances=tuple(dcmread(plane.path) for plane in series.planes))
    for path in write_results(series, tmp_path):
        assert path.read_bytes().count(name) == 2
        result, source = dcmread(path), dcmread(series.planes[0].path)
        assert result.PatientName == source.PatientName
        assert result.get("SpecificCharacterSet") == source.get("SpecificCharacterSet")


def test_a_name_that_was_read_before_is_still_the_same_bytes(tmp_path: Path) -> None:
    series = scan_phantom(tmp_path, attributes={"SpecificCharacterSet": "GB18030", "PatientName": CHINESE})
    assert str(series.first.PatientName) == CHINESE
    for path in write_results(series, tmp_path):
        assert CHINESE.encode("gb18030") in path.read_bytes()


def test_an_empty_character_set_is_left_out(tmp_path: Path) -> None:
    series = scan_phantom(tmp_path, attributes={"SpecificCharacterSet": ""})
    for path in write_results(series, tmp_path):
        assert "SpecificCharacterSet" not in dcmread(path)


def test_case_22_the_issuer_of_a_patient_id_goes_into_the_results(tmp_path: Path) -> None:
    series = scan_phantom(tmp_path, attributes={"PatientID": "", "IssuerOfPatientID": "CLINIC"})
    for path in write_results(series, tmp_path):
        result = dcmread(path)
        assert (result.PatientID, result.IssuerOfPatientID) == ("", "CLINIC")


def test_flips_and_weights_make_another_result(series: Series) -> None:
    cards = [CARD, *(replace(CARD, flips=flips) for flips in ("L", "LP", "LPS")), replace(CARD, sha256="1" * 64)]
    assert len({provenance.result_uid(series, card, "sr") for card in cards}) == len(cards)
    assert provenance.passes(CARD) == {}
