"""The page: a whole DICOM object of a PDF that names nobody and says what the report says."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.uid import EncapsulatedPDFStorage

from pipeline.measure import Flag, Measurement
from pipeline.page import Content, draw_page
from pipeline.pdf import to_pdf
from pipeline.priors import NONE, Priors
from pipeline.seg import to_seg
from pipeline.series import Series, read_volume
from pipeline.sr import to_sr
from pipeline.volume import Segmentation
from tests.external import find_program, run_program
from tests.fakes import CARD
from tests.results import AT, describe, mark, nothing, remember, scan_phantom


@pytest.fixture
def series(tmp_path: Path) -> Series:
    return scan_phantom(tmp_path, attributes={"PatientName": "Doe^Jane"})


def content(series: Series, priors: Priors = NONE, *flags: Flag) -> Content:
    segmentation = mark(series)
    return Content(read_volume(series), segmentation, describe(segmentation, *flags), CARD, priors)


def page(series: Series, priors: Priors = NONE) -> Dataset:
    segmentation = mark(series)
    seg = to_seg(series, segmentation, CARD, AT)
    sr = to_sr(series, describe(segmentation), CARD, AT, seg=seg, priors=priors)
    return to_pdf(series, content(series, priors), AT, sources=[seg, sr])


def words(pdf: bytes, folder: Path) -> str:
    """The text of a PDF, as a program of others reads it, without blanks: how wide those are is its guess."""
    program = find_program("gs", "ghostscript")
    path = folder / "page.pdf"
    path.write_bytes(pdf)
    read = run_program(program, "-q", "-dNOPAUSE", "-dBATCH", "-sDEVICE=txtwrite", "-sOutputFile=-", path)
    return "".join(read.split())


def saved(dataset: Dataset) -> bytes:
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def test_the_page_is_an_encapsulated_pdf_of_patient_and_study(series: Series) -> None:
    made = page(series, remember())
    assert (made.SOPClassUID, made.Modality, made.MIMETypeOfEncapsulatedDocument) == (
        EncapsulatedPDFStorage, "DOC", "application/pdf",
    )  # fmt: skip
    assert (str(made.PatientName), made.PatientID) == ("Doe^Jane", series.first.PatientID)
    assert made.StudyInstanceUID == series.first.StudyInstanceUID
    assert made.EncapsulatedDocument[: made.EncapsulatedDocumentLength].rstrip().endswith(b"%%EOF")
    assert made.BurnedInAnnotation == "NO"
    assert len(made.SourceInstanceSequence) == 2
    assert made.VerificationFlag == "UNVERIFIED"


def test_the_page_says_what_the_report_says_and_names_nobody(series: Series, tmp_path: Path) -> None:
    told = words(draw_page(content(series, remember(), Flag.TOUCHES_BORDER)), tmp_path)
    for said in ("Pancreas: at least", "AI, unverified", "CT acquired 2026-01-01", "2024-11-15", "80.0 mL",
                 "-2.5 mL (-3.1 %)", "lower bound", "not a medical device", "threshold 1"):  # fmt: skip
        assert said.replace(" ", "") in told, said
    assert not any(secret in told for secret in ("Doe", "Jane", series.first.PatientID, series.series_instance_uid))


def test_case_23_a_page_of_nothing_says_so(series: Series, tmp_path: Path) -> None:
    segmentation = mark(series)
    empty = Segmentation(segmentation.mask & False, segmentation.grid, 0.0)
    measurement: Measurement = nothing(series)
    told = words(draw_page(Content(read_volume(series), empty, measurement, CARD, NONE)), tmp_path)
    assert "Pancreas:notfound" in told
    assert "Noearliervolumeisknown." in told
    assert "0.0mL" not in told


def test_the_same_page_has_the_same_bytes_and_another_another_uid(series: Series) -> None:
    assert saved(page(series, remember())) == saved(page(series, remember()))
    assert page(series).SOPInstanceUID != page(series, remember()).SOPInstanceUID


def test_validators_find_no_error_in_the_page(series: Series, tmp_path: Path) -> None:
    path = tmp_path / "page.dcm"
    page(series, remember()).save_as(path, enforce_file_format=True)
    told = run_program(find_program("dciodvfy", "dicom3tools"), path, may_fail=True)
    assert [line for line in told.splitlines() if line.startswith("Error")] == []
    fonts = subprocess.run(["grep", "-c", "-a", "FontFile2", path], capture_output=True, text=True).stdout
    assert int(fonts) >= 1


@pytest.mark.parametrize("acquired_at", ["00010101", "99991231", "20240101"])
def test_neither_an_absurd_date_nor_a_formula_keeps_the_page_from_being_made(
    series: Series, acquired_at: str, tmp_path: Path
) -> None:
    known = remember()
    odd = replace(known.volumes[1], acquired_at=acquired_at, model="$x_{1}^$")
    told = words(draw_page(content(series, replace(known, volumes=(odd,), bands="100 $ of $\\frac"))), tmp_path)
    assert "$x_{1}^$" in told
