"""What every result says of where it comes from: whose it is, what made it, and its derived identity.

Nothing here is drawn at random or read from a clock: the same series, model and version give the same UIDs, so that a
rerun makes the same objects.
"""

from __future__ import annotations

import hashlib
import uuid
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime, tzinfo

from pydicom import Dataset
from pydicom.charset import convert_encodings, default_encoding
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.filewriter import correct_ambiguous_vr
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.tag import BaseTag

from models.card import Card
from pipeline import VERSION
from pipeline.assumptions import Assumption, AssumptionKind
from pipeline.measure import Flag, Measurement
from pipeline.priors import Priors, Report
from pipeline.series import TYPE_2, Series

PRODUCT = "pancreas-dicomnode"
MANUFACTURER = "pancreas-dicomnode project"
CODING_SCHEME = "99PANCREASNODE"
"""Designator of this project's own codes, for what no standard scheme has a code (PS3.16 8.2)."""

PANCREAS = Code("15776009", "SCT", "Pancreas")
ANATOMICAL_STRUCTURE = Code("91723000", "SCT", "Anatomical Structure")
ARTIFICIAL_INTELLIGENCE = Code("123110", "DCM", "Artificial Intelligence")

_ROOT = uuid.UUID("6c1a3f0e-5f0b-5d0a-9a52-3d6f2f6a8c11")  # drawn once; changing it would change every UID ever derived

_PATIENT = (
    "ReferencedPatientSequence PatientName PatientID IssuerOfPatientID TypeOfPatientID "
    "IssuerOfPatientIDQualifiersSequence SourcePatientGroupIdentificationSequence "
    "GroupOfPatientsIdentificationSequence PatientBirthDate PatientBirthTime "
    "PatientBirthDateInAlternativeCalendar PatientDeathDateInAlternativeCalendar PatientAlternativeCalendar "
    "PatientSex QualityControlSubject OtherPatientNames OtherPatientIDsSequence EthnicGroupCodeSequence "
    "ResponsiblePerson ResponsiblePersonRole ResponsibleOrganization PatientComments PatientIdentityRemoved "
    "DeidentificationMethod DeidentificationMethodCodeSequence"
)
_TRIAL = (
    "ClinicalTrialSponsorName ClinicalTrialProtocolID ClinicalTrialProtocolName IssuerOfClinicalTrialProtocolID "
    "OtherClinicalTrialProtocolIDsSequence ClinicalTrialSiteID ClinicalTrialSiteName IssuerOfClinicalTrialSiteID "
    "ClinicalTrialSubjectID IssuerOfClinicalTrialSubjectID ClinicalTrialSubjectReadingID "
    "IssuerOfClinicalTrialSubjectReadingID ClinicalTrialProtocolEthicsCommitteeName "
    "ClinicalTrialProtocolEthicsCommitteeApprovalNumber ClinicalTrialTimePointID "
    "ClinicalTrialTimePointDescription LongitudinalTemporalOffsetFromEvent LongitudinalTemporalEventType "
    "ClinicalTrialTimePointTypeCodeSequence IssuerOfClinicalTrialTimePointID ConsentForClinicalTrialUseSequence"
)
_STUDY = (
    "StudyDate StudyTime AccessionNumber IssuerOfAccessionNumberSequence ReferringPhysicianName "
    "ReferringPhysicianIdentificationSequence ConsultingPhysicianName ConsultingPhysicianIdentificationSequence "
    "StudyDescription ProcedureCodeSequence PhysiciansOfRecord PhysiciansOfRecordIdentificationSequence "
    "NameOfPhysiciansReadingStudy PhysiciansReadingStudyIdentificationSequence ReferencedStudySequence "
    "StudyInstanceUID StudyID RequestingService RequestingServiceCodeSequence "
    "ReasonForPerformedProcedureCodeSequence AdmittingDiagnosesDescription AdmittingDiagnosesCodeSequence "
    "PatientAge PatientSize PatientSizeCodeSequence PatientBodyMassIndex MeasuredAPDimension "
    "MeasuredLateralDimension PatientWeight MedicalAlerts Allergies Occupation SmokingStatus "
    "AdditionalPatientHistory PregnancyStatus LastMenstrualDate PatientSexNeutered ReasonForVisit "
    "ReasonForVisitCodeSequence AdmissionID IssuerOfAdmissionIDSequence ServiceEpisodeID "
    "ServiceEpisodeDescription IssuerOfServiceEpisodeIDSequence PatientState"
)
COPIED = ("SpecificCharacterSet", *_PATIENT.split(), *_TRIAL.split(), *_STUDY.split())
"""What a result takes from its source as it came: Patient, Clinical Trial Subject, General Study, Patient Study and
Clinical Trial Study modules (PS3.3 C.7.1.1, C.7.1.3, C.7.2.1 to C.7.2.3)."""


@dataclass(frozen=True)
class Revision:
    """Which measurement of its series this is, since more instances may come after one.

    number: 1 is the first; the UIDs of the results depend on it. predecessor: the report whose place this one's takes.
    shortfall: how many instances are known to be missing, in words; empty: none are.
    """

    number: int = 1
    predecessor: Report | None = None
    shortfall: str = ""

    @property
    def suffix(self) -> str:
        """What Series Description says of it."""
        return f", revision {self.number}" if self.number > 1 else ""

    @property
    def assumptions(self) -> tuple[Assumption, ...]:
        """What is taken for granted about a series of which instances are missing."""
        text = f"the series is whole, though it has {self.shortfall}"
        return (Assumption(AssumptionKind.SERIES_INCOMPLETE, text),) if self.shortfall else ()


FIRST = Revision()


def derive_uid(*parts: str) -> str:
    """A UID that depends on `parts` alone: 2.25 and a name-based UUID as an integer (PS3.5 B.2)."""
    return f"2.25.{uuid.uuid5(_ROOT, chr(0).join(parts)).int}"


def result_uid(series: Series, card: Card, kind: str, revision: Revision = FIRST) -> str:
    """The UID of one result object: of series, content, weights, flips, the pipeline's version, the kind and, from the
    second on, the revision, which may measure the same images as the one before.
    """
    content = hashlib.sha256(chr(0).join(sorted(str(i.SOPInstanceUID) for i in series.instances)).encode())
    model = card.sha256 + card.flips
    which = (kind,) if revision.number == 1 else (kind, str(revision.number))
    return derive_uid("result", series.series_instance_uid, content.hexdigest(), model, VERSION, *which)


def report_uid(series: Series, card: Card, kind: str, revision: Revision, priors: Priors) -> str:
    """The UID of a result that says what is known from before: reports that say other things are other objects."""
    edition = f"edition {priors.edition}" if priors.edition > 1 else ""
    return result_uid(series, card, " ".join(filter(None, (kind, priors.digest, edition))), revision)


def stand_in_for(report: Report) -> Dataset:
    """The identity of an earlier report, of which evidence and predecessors are made."""
    item = Dataset()
    item.StudyInstanceUID, item.SeriesInstanceUID = report.study_instance_uid, report.series_instance_uid
    item.SOPClassUID, item.SOPInstanceUID = report.sop_class_uid, report.sop_instance_uid
    return item


def device_uid(card: Card) -> str:
    """The UID of the device that measured; it changes with the model and with the pipeline (IHE AIR)."""
    return derive_uid("device", card.name, card.version, card.sha256, VERSION)


def passes(card: Card) -> dict[str, str]:
    """Parameters of an algorithm that looks several times: how many members it has and along which axes it mirrors."""
    members = {"members": str(card.members)} if card.members > 1 else {}
    return members | ({"flips": card.flips} if card.flips else {})


def serial_number(card: Card) -> str:
    """The device's serial number: the beginning of the digest of the weights."""
    return plain(card.sha256, 16)


def tracking(series: Series, card: Card) -> tuple[str, str]:
    """Tracking identifier and tracking UID of the pancreas: the same in SEG and SR."""
    return "Pancreas", result_uid(series, card, "tracking")


def plain(text: str, length: int = 64) -> str:
    """`text` in ASCII, which every character set of a source can encode, cut to `length` characters (PS3.5 6.2)."""
    return " ".join(text.encode("ascii", "replace").decode().replace("\\", "/").split())[:length]


def volume_words(measurement: Measurement) -> str:
    """The finding in few words, such as "57.6 mL" or, where the scan cuts the organ, "at least 57.6 mL"."""
    if Flag.NOTHING_FOUND in measurement.flags:
        return "not found"
    bound = "at least " if Flag.TOUCHES_BORDER in measurement.flags else ""
    return f"{bound}{measurement.volume_ml:.1f} mL"


def coding_scheme() -> Dataset:
    """What a result says of the project's own codes where it uses them (PS3.3 C.12.1.1.1)."""
    item = Dataset()
    item.CodingSchemeDesignator = CODING_SCHEME
    item.CodingSchemeUID = derive_uid("coding scheme")
    item.CodingSchemeName = f"{PRODUCT} quality codes"
    item.CodingSchemeResponsibleOrganization = MANUFACTURER
    return item


def series_number(series: Series, offset: int) -> int:
    """A legal Series Number for result `offset` (1..9) of a series: behind the scanner's own, apart for each source."""
    try:
        number = int(series.first.SeriesNumber)
    except (AttributeError, TypeError, ValueError):
        number = -1
    if not 0 <= number <= 99_999:
        number = int(hashlib.sha256(series.series_instance_uid.encode()).hexdigest(), 16) % 100_000
    return 9_000_000 + 10 * number + offset


def local_time(series: Series, at: datetime) -> datetime:
    """`at` in the time zone that the source declares; where it declares none, as it is given."""
    zone = _declared_zone(series.first)
    return at.astimezone(zone) if zone else at


def equipment(card: Card) -> dict[str, str | list[str]]:
    """General Equipment of a result, as highdicom's keyword arguments (PS3.3 C.7.5.1, C.7.5.2)."""
    return {
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": PRODUCT,
        "device_serial_number": serial_number(card),
        "software_versions": [VERSION, plain(f"{card.name} {card.version}")],
    }


def stand_in(instance: Dataset) -> Dataset:
    """The identity of a source instance with empty patient and study attributes, for highdicom's constructors.

    They decode and validate what they copy, and fail where it is missing; `complete` copies these as they came.
    """
    result = Dataset()
    for keyword in TYPE_2:
        setattr(result, keyword, None)
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        setattr(result, keyword, str(instance[keyword].value))
    result.Modality = "CT"
    return result


def complete(result: Dataset, series: Series, card: Card, at: datetime) -> None:
    """Finish a result in place: time of creation, equipment, and the source's patient and study as they came.

    result: all else is set; to be written as Explicit VR Little Endian. What is copied is neither decoded nor checked:
        a name in a misspelt character set stays byte for byte what it was.
    """
    local = local_time(series, at)
    result.InstanceCreationDate = local.strftime("%Y%m%d")
    result.InstanceCreationTime = local.strftime("%H%M%S")
    if _declared_zone(series.first):
        result.TimezoneOffsetFromUTC = local.strftime("%z")
    result.ContributingEquipmentSequence = [*_scanner(series.first), _algorithm(card, at)]
    correct_ambiguous_vr(result, is_little_endian=True)
    for keyword in COPIED:
        if keyword in series.first:
            tag = BaseTag(tag_for_keyword(keyword) or 0)
            result[tag] = _as_it_came(series.first, tag)
    if not result.get("SpecificCharacterSet"):
        result.pop("SpecificCharacterSet", None)  # Type 1C: with a value or not at all, and both mean the same
    charset = result.get("SpecificCharacterSet")
    # So marked, pydicom writes raw elements as they are instead of decoding and encoding them again.
    result.set_original_encoding(False, True, convert_encodings(charset) if charset else default_encoding)


def _as_it_came(source: Dataset, tag: BaseTag) -> DataElement | RawDataElement:
    element, vr = source.get_item(tag), dictionary_VR(tag)
    if not isinstance(element, RawDataElement) or vr == "SQ":
        return deepcopy(source[tag])
    value = element.value or b""
    value += (b"\0" if vr == "UI" else b" ") * (len(value) % 2)
    return element._replace(VR=vr, value=value, length=len(value), is_implicit_VR=False, is_little_endian=True)


def _declared_zone(source: Dataset) -> tzinfo | None:
    try:
        return datetime.strptime(str(source.get("TimezoneOffsetFromUTC", "")).strip(), "%z").tzinfo
    except ValueError:
        return None


def _scanner(source: Dataset) -> list[Dataset]:
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [code_item(codes.DCM.AcquisitionEquipment)]
    for keyword in ("Manufacturer", "ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions", "StationName"):
        if source.get(keyword):
            item[keyword] = deepcopy(source[keyword])
    return [item] if "Manufacturer" in item else []


def _algorithm(card: Card, at: datetime) -> Dataset:
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [code_item(codes.DCM.ProcessingEquipment)]
    item.Manufacturer = MANUFACTURER
    item.ManufacturerModelName = plain(card.name)
    item.SoftwareVersions = [plain(card.version), f"{PRODUCT} {VERSION}"]
    item.DeviceSerialNumber = serial_number(card)
    item.DeviceUID = device_uid(card)
    item.ContributionDateTime = at.strftime("%Y%m%d%H%M%S%z")
    item.ContributionDescription = "Automatic segmentation and measurement"
    return item


def code_item(code: Code) -> Dataset:
    """A code as an item of a code sequence (PS3.3 8.8)."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item
