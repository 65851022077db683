"""Reports of this product read back: the volume that an SR of `sr.to_sr` tells of its series. The reverse of `sr`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pydicom import Dataset
from pydicom.uid import Comprehensive3DSRStorage

from pipeline import provenance
from pipeline.errors import Refused
from pipeline.measure import Flag
from pipeline.sr import QUALITY

_MOST_ITEMS = 2000
_MOST_ML = 10_000.0


class NotOurs(Refused):
    """It is no report of this product with a volume, or it is odd; the text says what is missing, and no value."""


@dataclass(frozen=True)
class ReadReport:
    """What a report tells. series_instance_uid: of the images. studied_at: of the study, `YYYYMMDDHHMMSS` or shorter.

    predecessors: the reports whose place this one takes. measured_at: start of the analysis.
    """

    sop_class_uid: str
    sop_instance_uid: str
    report_series_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    patient_id: str
    issuer_of_patient_id: str
    studied_at: str
    revision: int
    volume_ml: float
    flags: tuple[Flag, ...]
    model_name: str
    model_version: str
    model_sha256: str
    measured_at: datetime
    predecessors: tuple[str, ...]


def read_report(sr: Dataset) -> ReadReport:
    """What a report of this product tells. Raises NotOurs, also where a value is damaged or not what we write."""
    try:
        return _read(sr)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, OverflowError, NotImplementedError):
        raise NotOurs("the report is damaged or of another form") from None


def _read(sr: Dataset) -> ReadReport:
    made_by = (str(sr.get("Manufacturer", "")), str(sr.get("ManufacturerModelName", "")))
    if sr.SOPClassUID != Comprehensive3DSRStorage or made_by != (provenance.MANUFACTURER, provenance.PRODUCT):
        raise NotOurs("it is no report of this product")
    (measurements,) = _named(sr, "126010", "DCM")
    (group,) = _named(measurements, "125007", "DCM")
    (finding,) = _named(group, "121071", "DCM")
    (volume,) = _named(group, "118565006", "SCT")
    if _code(finding.ConceptCodeSequence[0]) != (provenance.PANCREAS.value, provenance.PANCREAS.scheme_designator):
        raise NotOurs("it measures another organ")
    return ReadReport(
        str(sr.SOPClassUID),
        _uid(sr.SOPInstanceUID),
        _uid(sr.SeriesInstanceUID),
        _uid(sr.StudyInstanceUID),
        _uid(_named(group, "121232", "DCM")[0].UID),
        str(sr.PatientID),
        str(sr.get("IssuerOfPatientID") or ""),
        _studied_at(sr),
        int(sr.InstanceNumber),
        _millilitres(volume),
        _flags(group),
        *_model(volume),
        _measured_at(sr),
        tuple(_predecessors(sr)),
    )


def _named(parent: Dataset, value: str, scheme: str) -> list[Dataset]:
    """The content items right below that are called so."""
    items = parent.ContentSequence[:_MOST_ITEMS]
    return [item for item in items if _code(item.ConceptNameCodeSequence[0]) == (value, scheme)]


def _code(code: Dataset) -> tuple[str, str]:
    return str(code.CodeValue), str(code.CodingSchemeDesignator)


def _uid(value: Any) -> str:
    text = str(value)
    if not 1 <= len(text) <= 64 or not set(text) <= set("0123456789."):
        raise ValueError("no UID")
    return text


def _millilitres(item: Dataset) -> float:
    (value,) = item.MeasuredValueSequence
    if _code(value.MeasurementUnitsCodeSequence[0]) != ("mL", "UCUM"):
        raise NotOurs("its volume is not in mL")
    volume_ml = float(value.NumericValue)
    if not math.isfinite(volume_ml) or not 0 < volume_ml < _MOST_ML:
        raise NotOurs("its volume is none")
    return volume_ml


def _model(volume: Dataset) -> tuple[str, str, str]:
    """Name, version and hash of the weights."""
    name, version = (str(_named(volume, value, "DCM")[0].TextValue) for value in ("111001", "111003"))
    parameters = [str(item.TextValue) for item in _named(volume, "111002", "DCM")]
    (sha256,) = (text.split()[-1] for text in parameters if text.startswith("weights SHA-256 "))
    if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
        raise ValueError("no SHA-256")
    return name[:64], version[:64], sha256


def _flags(group: Dataset) -> tuple[Flag, ...]:
    known = {(code.value, code.scheme_designator): flag for flag, code in QUALITY.items()}
    found = (_code(item.ConceptCodeSequence[0]) for item in _named(group, "111052", "DCM"))
    return tuple(known[code] for code in found if code in known)


def _studied_at(sr: Dataset) -> str:
    day, time = str(sr.get("StudyDate") or ""), str(sr.get("StudyTime") or "")
    return day + time.split(".")[0] if len(day) == 8 else ""


def _measured_at(sr: Dataset) -> datetime:
    zone = str(sr.get("TimezoneOffsetFromUTC") or "+0000")
    moment = f"{sr.ContentDate}{str(sr.ContentTime).split('.')[0]}"
    local = datetime.strptime(moment, "%Y%m%d%H%M%S")  # noqa: DTZ007 - the zone follows
    sign = -1 if zone[0] == "-" else 1
    return (local - sign * timedelta(hours=int(zone[1:3]), minutes=int(zone[3:5]))).replace(tzinfo=UTC)


def _predecessors(sr: Dataset) -> Iterator[str]:
    for study in sr.get("PredecessorDocumentsSequence") or ():
        for series in study.ReferencedSeriesSequence:
            yield from (_uid(instance.ReferencedSOPInstanceUID) for instance in series.ReferencedSOPSequence)
