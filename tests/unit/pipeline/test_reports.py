"""Reports of this product are read back; what is another's, or odd, is left."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread

from pipeline.measure import Flag
from pipeline.provenance import Revision
from pipeline.reports import NotOurs, read_report
from pipeline.seg import to_seg
from pipeline.series import Series
from pipeline.sr import to_sr
from tests.fakes import CARD
from tests.results import AT, describe, mark, nothing, remember, scan_phantom


@pytest.fixture
def series(tmp_path: Path) -> Series:
    zone = {"TimezoneOffsetFromUTC": "+0530", "IssuerOfPatientID": "A"}
    return scan_phantom(tmp_path, attributes=zone)


def written(series: Series, *flags: Flag) -> Dataset:
    """A report as an archive gives it back."""
    segmentation = mark(series)
    seg = to_seg(series, segmentation, CARD, AT)
    sr = to_sr(
        series,
        describe(segmentation, *flags),
        CARD,
        AT,
        seg=seg,
        revision=Revision(3),
        priors=remember(revised=True),
    )
    buffer = BytesIO()
    sr.save_as(buffer, enforce_file_format=True)
    return dcmread(BytesIO(buffer.getvalue()))


def test_what_was_written_is_read(series: Series) -> None:
    sr = written(series, Flag.TOUCHES_BORDER, Flag.FEW_SLICES)
    read = read_report(sr)
    assert read.volume_ml == pytest.approx(describe(mark(series)).volume_ml, abs=5e-4)
    assert read.flags == (Flag.TOUCHES_BORDER, Flag.FEW_SLICES)
    assert (read.model_name, read.model_version, read.model_sha256) == (CARD.name, CARD.version, CARD.sha256)
    assert (read.sop_instance_uid, read.report_series_instance_uid) == (sr.SOPInstanceUID, sr.SeriesInstanceUID)
    assert (read.series_instance_uid, read.revision) == (series.series_instance_uid, 3)
    assert (read.patient_id, read.issuer_of_patient_id, read.studied_at) == ("PHANTOM-1", "A", "20200102101112")
    assert read.measured_at == AT == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert read.predecessors == ("1.2.9.4.5",)


def test_a_report_of_nothing_is_no_volume(series: Series) -> None:
    with pytest.raises(NotOurs):
        read_report(to_sr(series, nothing(series), CARD, AT, seg=None))


def volume(sr: Dataset) -> Dataset:
    """The value of the volume."""
    (section,) = (one for one in sr.ContentSequence if one.ConceptNameCodeSequence[0].CodeValue == "126010")
    items = section.ContentSequence[0].ContentSequence
    (item,) = (one for one in items if one.ConceptNameCodeSequence[0].CodeValue == "118565006")
    return item


def set_unit(sr: Dataset) -> None:
    volume(sr).MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue = "L"


def set_value(text: str) -> Callable[[Dataset], None]:
    def change(sr: Dataset) -> None:
        volume(sr).MeasuredValueSequence[0].NumericValue = text

    return change


def double_group(sr: Dataset) -> None:
    (section,) = (one for one in sr.ContentSequence if one.ConceptNameCodeSequence[0].CodeValue == "126010")
    section.ContentSequence.append(deepcopy(section.ContentSequence[0]))


CHANGES: dict[str, Callable[[Dataset], object]] = {
    "another manufacturer": lambda sr: setattr(sr, "Manufacturer", "Acme"),
    "another product": lambda sr: setattr(sr, "ManufacturerModelName", "PancreasPro"),
    "another class": lambda sr: setattr(sr, "SOPClassUID", "1.2.840.10008.5.1.4.1.1.88.33"),
    "no content": lambda sr: delattr(sr, "ContentSequence"),
    "another unit": set_unit,
    "nought": set_value("0"),
    "far too much": set_value("1e30"),
    "negative": set_value("-80"),
    "two volumes": double_group,
    "no algorithm": lambda sr: delattr(volume(sr), "ContentSequence"),
    "no date": lambda sr: delattr(sr, "ContentDate"),
    "no UID": lambda sr: setattr(sr, "StudyInstanceUID", "../etc"),
    "no number": lambda sr: delattr(sr, "InstanceNumber"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_is_not_ours_or_odd_is_refused(series: Series, change: Callable[[Dataset], object]) -> None:
    sr = written(series)
    change(sr)
    with pytest.raises(NotOurs):
        read_report(sr)
