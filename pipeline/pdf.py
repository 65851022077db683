"""The finding as Encapsulated PDF (PS3.3 A.45.1), for viewers that show no Structured Reports."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import EncapsulatedPDFStorage, ExplicitVRLittleEndian

from pipeline import provenance
from pipeline.page import Content, draw_page
from pipeline.provenance import FIRST, Revision
from pipeline.series import TYPE_2, Series


def to_pdf(
    series: Series, content: Content, at: datetime, *, sources: Sequence[Dataset], revision: Revision = FIRST
) -> Dataset:
    """The page as a DICOM object; the same arguments give the same bytes and the same UIDs.

    The page names nobody: Burned In Annotation is NO, and who the patient is stands in the data set alone.
    at: start of the analysis, time zone aware. sources: the SEG and the SR that it shows (Source Instance Sequence).
    """
    card, priors = content.card, content.priors
    local = provenance.local_time(series, at)
    result = Dataset()
    for keyword in TYPE_2:
        setattr(result, keyword, None)
    result.SOPClassUID = EncapsulatedPDFStorage
    result.SOPInstanceUID = provenance.report_uid(series, card, "pdf", revision, priors)
    result.SeriesInstanceUID = provenance.report_uid(series, card, "pdf-series", revision, priors)
    result.Modality = "DOC"
    result.SeriesNumber = provenance.series_number(series, 3)
    words = provenance.volume_words(content.measurement)
    result.SeriesDescription = f"Pancreas {words} (AI page, unverified{revision.suffix})"
    result.SeriesDate = result.ContentDate = local.strftime("%Y%m%d")
    result.SeriesTime = result.ContentTime = local.strftime("%H%M%S")
    result.AcquisitionDateTime = None
    result.InstanceNumber = revision.number
    equipment = provenance.equipment(card)
    result.Manufacturer = equipment["manufacturer"]
    result.ManufacturerModelName = equipment["manufacturer_model_name"]
    result.DeviceSerialNumber = equipment["device_serial_number"]
    result.SoftwareVersions = equipment["software_versions"]
    result.ConversionType = "WSD"
    result.BurnedInAnnotation = "NO"
    result.SourceInstanceSequence = [_refer(source) for source in sources]
    result.DocumentTitle = f"Pancreas volume {words}, automatic, unverified"
    result.ConceptNameCodeSequence = [provenance.code_item(codes.DCM.ImagingMeasurementReport)]
    result.VerificationFlag = "UNVERIFIED"
    result.MIMETypeOfEncapsulatedDocument = "application/pdf"
    document = draw_page(content)
    result.EncapsulatedDocumentLength = len(document)
    result.EncapsulatedDocument = document + b"\0" * (len(document) % 2)
    result.file_meta = FileMetaDataset()
    result.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    provenance.complete(result, series, card, at)
    return result


def _refer(source: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = source.SOPClassUID, source.SOPInstanceUID
    return item
