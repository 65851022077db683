"""Measure one series from disk, without a PACS, and write what was found as files."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dicomnode.errors import Misconfigured, Unavailable
from dicomnode.files import find_dicom
from dicomnode.node import load_model, utc_now
from dicomnode.sections import WorkerSettings
from models.bundle import Model
from pipeline.analyse import Options, analyse, describe, segment
from pipeline.errors import Exhausted
from pipeline.nifti import read_nifti, write_nifti
from pipeline.preview import draw_overlay
from pipeline.series import open_series
from pipeline.volume import Segmentation, Volume


@dataclass(frozen=True)
class _Written:
    """A folder that results are written to."""

    folder: Path

    def pictures(self, volume: Volume, segmentation: Segmentation) -> None:
        draw_overlay(volume, segmentation, self.folder / "overlay.png")
        write_nifti(segmentation, self.folder / "pancreas.nii.gz")

    def report(self, content: dict[str, Any]) -> dict[str, Any]:
        text = json.dumps(content, indent=2)
        (self.folder / "findings.json").write_text(text + "\n", encoding="utf-8")
        return content


def measure_path(path: Path, out: Path, settings: WorkerSettings, progress: Callable[[float], None]) -> dict[str, Any]:
    """Analyse a folder of DICOM files or a NIfTI file; returns what `findings.json` says.

    Writes `findings.json`, `overlay.png` and `pancreas.nii.gz`, and for DICOM `sr.dcm` and, where the organ was found,
    `seg.dcm`. A NIfTI file has no DICOM identity, so that no SEG and no SR can be made from it.
    Raises Refused for the input, Misconfigured for the model or the folder, Unavailable where memory ran out.
    """
    is_nifti = path.is_file() and path.name.endswith((".nii", ".nii.gz"))
    files = [path] if is_nifti else find_dicom(path)
    model, device = load_model(settings)
    options = Options(at=utc_now(), device=device, batch_size=settings.batch_size, progress=progress)
    try:
        out.mkdir(parents=True, exist_ok=True)
        return (_measure_nifti if is_nifti else _measure_dicom)(files, model, options, _Written(out))
    except Exhausted as error:
        raise Unavailable(str(error)) from None
    except OSError as error:
        raise Misconfigured(f"{error.filename or out}: {error.strerror}") from None


def _measure_dicom(files: list[Path], model: Model, options: Options, out: _Written) -> dict[str, Any]:
    findings = analyse(open_series(files), model, options)
    if findings.seg is not None:
        findings.seg.save_as(out.folder / "seg.dcm", enforce_file_format=True)
    findings.sr.save_as(out.folder / "sr.dcm", enforce_file_format=True)
    out.pictures(findings.volume, findings.segmentation)
    return out.report(describe(findings))


def _measure_nifti(files: list[Path], model: Model, options: Options, out: _Written) -> dict[str, Any]:
    volume = read_nifti(files[0])
    segmentation, measurement = segment(volume, model, options)
    out.pictures(volume, segmentation)
    return out.report(describe(measurement, model.card))
