"""Every way to scan and write the phantom, for hypothesis: those that the node must accept, those it must refuse.

Each is built from one seed that hypothesis draws: examples of its own making resemble each other, and of forty several
transfer syntaxes and most orientations were missing.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from hypothesis import strategies as st
from pydicom import uid

from pipeline.assumptions import AssumptionKind
from pipeline.decoders import DECODABLE_TRANSFER_SYNTAXES
from tests.phantom import (
    CORONAL,
    NEGATED_COLUMN,
    PANCREAS,
    POSITIONS,
    SAGITTAL,
    PhantomOptions,
    Phase,
    steps,
    turn,
    write_multiframe,
    write_series,
)
from tests.phantom_objects import CHARACTER_SETS, write_dose_page, write_dose_report, write_enhanced, write_localizer

ORIENTATIONS = (*POSITIONS.values(), NEGATED_COLUMN, CORONAL, SAGITTAL)
HTJ2K = (uid.HTJ2K, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL)  # which no encoder here writes
LOSSY = (uid.JPEG2000, uid.JPEGLSNearLossless)
UPRIGHT = (0.0, 0.0, 0.0)
SYNTAXES = [syntax for syntax in DECODABLE_TRANSFER_SYNTAXES if syntax not in HTJ2K]
OFF_CENTRE_MM, MARGIN_MM = 3.0, 5.0
UNFOUND_HU = 40.0  # of the pancreas in phases that must not be measured: below the model's threshold


@dataclass(frozen=True)
class Scanned:
    """A way to scan and write the phantom. layout: of the slices; beside: what lies among them."""

    options: PhantomOptions
    layout: str = "single"  # or "legacy", "enhanced"
    beside: bool = False
    expected: frozenset[AssumptionKind] = field(default_factory=frozenset)

    @property
    def is_sheared(self) -> bool:
        return self.options.tilt_degrees != 0

    def write(self, folder: Path) -> list[Path]:
        if self.layout == "single":
            paths = write_series(folder, self.options)
        elif self.layout == "legacy":
            paths = [write_multiframe(folder / "legacy.dcm", self.options)]
        else:
            paths = [write_enhanced(folder / "enhanced.dcm", self.options)]
        if self.beside:
            writers = (write_localizer, write_dose_page, write_dose_report)
            paths += [write(folder / f"beside{number}.dcm", self.options) for number, write in enumerate(writers)]
        return paths


def around_the_pancreas(options: PhantomOptions) -> PhantomOptions:
    """The same scan with as many voxels as hold the whole organ and a margin."""
    duals = np.linalg.inv(steps(options))  # indices = points @ duals
    reach = np.linalg.norm(np.array(PANCREAS.semi_axes)[:, None] * duals, axis=0)
    reach += (OFF_CENTRE_MM * 3**0.5 + MARGIN_MM) * np.linalg.norm(duals, axis=0)
    slices, rows, columns = (int(size) for size in np.ceil(2 * reach))
    return replace(options, shape=(slices, rows, columns))


def any_angles(pick: Random) -> tuple[float, float, float]:
    """Turns about x, y and z, degrees."""
    return pick.uniform(-40, 40), pick.uniform(-40, 40), pick.uniform(-40, 40)


def geometries(pick: Random) -> PhantomOptions:
    """Orientation, tilt, spacing, place: all that decides where a voxel lies."""
    degrees = pick.choice((UPRIGHT, any_angles(pick)))
    tilt = pick.choice((0, 0, 1, -1)) * pick.randint(3, 30)
    # Finer than about a tenth of the organ, or no mask of whole voxels has its volume to half a percent.
    spacing_mm = tuple(pick.randint(low, high) / 100 for low, high in ((80, 115), (70, 110), (70, 110)))
    centre = tuple(place + pick.uniform(-OFF_CENTRE_MM, OFF_CENTRE_MM) for place in PANCREAS.centre)
    return PhantomOptions(
        orientation=turn(pick.choice(ORIENTATIONS), degrees),
        tilt_degrees=tilt,
        spacing_mm=spacing_mm,
        centre=centre,
        order=pick.choice(("ascending", "descending", "shuffled")),
    )


def writings(pick: Random) -> dict[str, Any]:
    """How values become bytes: sign, bits, rescale, padding, transfer syntax."""
    syntax, signed, bits = pick.choice(SYNTAXES), pick.choice((False, True)), pick.choice((12, 16))
    fields: dict[str, Any] = {
        "transfer_syntax": syntax,
        "is_signed": signed,
        "bits": bits,
        "intercept": -1024.0 if not signed else pick.choice((-1024.0, 0.0)),
        "slopes": pick.choice(((1.0,), (1.0, 2.0), (1.0, 0.75, 2.0))),
    }
    if syntax not in LOSSY and pick.choice((False, True)):  # what is lossy changes the padding, too
        low = -2000 if signed else 2**bits - 96  # unsigned: brighter than the organ, were it taken for HU
        limit = pick.choice((None, low + 95))
        fields |= {"padding": low, "padding_limit": limit, "border": pick.randint(1, 2)}
    return fields


MARKS = {
    "single": (
        ("AcquisitionNumber", (2, 10, 11)),
        ("TemporalPositionIdentifier", (1, 2, 3)),
        ("AcquisitionTime", ("101113", "101139.5", "101200")),
        ("ConvolutionKernel", ("B20f", "B30f", "B70f")),
    ),
    "enhanced": (
        ("FrameAcquisitionNumber", (2, 10, 11)),
        ("TemporalPositionIndex", (1, 2, 3)),
        ("FrameAcquisitionDateTime", ("20200102101113", "20200102101139", "20200102101200")),
    ),
}


def phases(pick: Random, layout: str, slices: int) -> tuple[Phase, ...]:
    """Up to three passes; the pancreas is bright in the one that must be chosen: the longest, of equals the latest."""
    keyword, values = pick.choice(MARKS[layout])
    values = values[: pick.randint(2, 3)]
    if pick.choice((False, True)):  # all as long
        return (*(Phase({keyword: value}, UNFOUND_HU) for value in values[:-1]), Phase({keyword: values[-1]}))
    start, stop = pick.randint(0, slices // 5), slices - pick.randint(1, slices // 5)
    longest = pick.choice(values)
    return tuple(
        Phase({keyword: value}) if value == longest else Phase({keyword: value}, UNFOUND_HU, range(start, stop))
        for value in values
    )


ODD_ATTRIBUTES: tuple[tuple[dict[str, Any], AssumptionKind | None], ...] = (
    ({"attributes": {"StudyID": None, "PatientSex": None}}, AssumptionKind.ATTRIBUTE_MISSING),
    ({"attributes": {"ReferringPhysicianName": None}}, AssumptionKind.ATTRIBUTE_MISSING),
    ({"attributes": {"LossyImageCompression": "01"}}, AssumptionKind.ATTRIBUTE_MISSING),
    ({"attributes": {"ImageType": None}}, None),
    ({"attributes": {"PatientPosition": None, "PositionReferenceIndicator": None}}, None),
    ({"attributes": {"PatientPosition": "FFS"}}, None),
    ({"raw": {"SeriesNumber": b"three", "StudyDate": b"2nd of January", "PatientSex": b"unknown"}}, None),
    ({"raw": {"SpiralPitchFactor": b"1.375 "}}, AssumptionKind.ATTRIBUTE_UNREADABLE),
)


def scans(pick: Random) -> Scanned:
    """Any way to scan and write the phantom that the node must accept."""
    options, layout = geometries(pick), pick.choice(("single", "single", "enhanced", "legacy"))
    options = around_the_pancreas(options)
    expected = {AssumptionKind.TILT_CORRECTED} if options.tilt_degrees else set()
    if layout == "legacy":  # highdicom converts plain slices only
        return Scanned(replace(options, slopes=(1.0, 0.75)), layout, expected=frozenset(expected))
    options = replace(options, **writings(pick))
    charset, name = pick.choice(list(CHARACTER_SETS.values()))
    odd, kind = pick.choice(ODD_ATTRIBUTES)
    said = {"SpecificCharacterSet": charset} if charset else {}
    options = replace(
        options,
        attributes={**odd.get("attributes", {}), **said},
        raw={**odd.get("raw", {}), "PatientName": name},
    )
    expected |= {kind} if kind else set()
    if pick.choice((False, True)):
        options = replace(options, phases=phases(pick, layout, options.shape[0]))
        expected.add(AssumptionKind.ACQUISITION_CHOSEN)
    beside = pick.choice((False, True))
    expected |= {AssumptionKind.IMAGES_LEFT_OUT} if beside else set()
    return Scanned(options, layout, beside, frozenset(expected))


@dataclass(frozen=True)
class Fault:
    """What is wrong with a series, and what its refusal must say."""

    scanned: Scanned
    words: str


SMALL = PhantomOptions(shape=(12, 20, 30), spacing_mm=(3.0, 2.0, 2.5))

WRONG_IN_ONE: tuple[tuple[str, Any, str], ...] = (
    ("StudyInstanceUID", "1.2.3", "differ in Study Instance UID"),
    ("SeriesInstanceUID", "1.2.3", "differ in Series Instance UID"),
    ("FrameOfReferenceUID", "1.2.3", "differ in Frame of Reference UID"),
    ("PixelSpacing", ["2", "2.6"], "Pixel Spacing .* differs"),
    ("ImageOrientationPatient", ["0", "0.6", "0.8", "0", "-0.8", "0.6"], "Image Orientation .* differs"),
    ("Rows", 10, "Rows .* differs"),
    ("SOPInstanceUID", "../../x", "SOP Instance UID .* is not a UID"),
    ("ImagePositionPatient", None, r"Image Position \(Patient\) .* is missing"),
    ("ImagePositionPatient", ["1", "2"], r"Image Position \(Patient\) .* is not 3 finite numbers"),
    ("ImageOrientationPatient", ["1", "0", "0", "0.5", "1", "0"], "not two orthogonal unit vectors"),
    ("PixelSpacing", ["0", "2"], "Pixel Spacing"),
    ("RescaleSlope", None, "Rescale Slope .* is missing"),
    ("RescaleSlope", "0", "not CT numbers"),
    ("BitsStored", None, "Bits Stored .* is missing"),
    ("SamplesPerPixel", 3, "colour"),
    ("PixelData", None, "no pixel data"),
)
WRONG_IN_ALL: tuple[tuple[str, Any, str], ...] = (
    ("ImageType", ["DERIVED", "SECONDARY", "MPR"], "a multi-planar reformat"),
    ("ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"], "a localizer"),
    ("ImageType", ["DERIVED", "SECONDARY", "MIP"], "a maximum intensity projection"),
    ("SOPClassUID", uid.MRImageStorage, "MR Image Storage is not a CT image"),
    ("RescaleType", "Z_EFF", "not CT numbers .*Z_EFF"),
)


def bad_positions(pick: Random) -> Fault:
    """Slices that are missing, uneven, twice, beside the others, or sheared too far, single or in one object."""
    place = pick.randint(1, 9)
    options = replace(
        SMALL,
        orientation=turn(pick.choice(ORIENTATIONS), any_angles(pick)),
        order=pick.choice(("ascending", "descending", "shuffled")),
        tilt_degrees=pick.choice((0, 20, -20)),
    )
    share, sign = pick.randint(20, 40) / 100, pick.choice((1, -1))
    step_mm = options.spacing_mm[0]
    passes = (Phase({"SliceThickness": "5"}), Phase({"SliceThickness": "4"}))  # which tells no acquisitions apart
    changes, words = pick.choice(
        (
            ({"missing": [place]}, "1 slice is missing between image .* and image .*: a gap of"),
            ({"missing": [place, place + 1]}, "2 slices are missing between image .* and image"),
            ({"step_errors_mm": {place: sign * share * step_mm}}, "uneven slice spacing: .* between image"),
            ({"step_errors_mm": {k: 0.02 * k * k for k in range(12)}}, "uneven slice spacing"),
            ({"twice": [place]}, "duplicate positions: image .* and image"),
            ({"twice": range(12)}, "duplicate positions: .* and 9 more pairs"),
            ({"phases": passes}, "duplicate positions: .* and 9 more pairs"),
            ({"tilt_degrees": sign * 50}, "sheared by 50.0 degrees: no gantry tilts that far"),
            ({"tilt_degrees": 0, "tilt_mm": sign * 3.5}, "sheared by 49.4 degrees"),
        )
    )
    return Fault(Scanned(replace(options, **changes), pick.choice(("single", "enhanced"))), words)


def bad_headers(pick: Random) -> Fault:
    """Attributes that are missing, make no sense, differ, or say that this is no CT volume."""
    if pick.choice((False, True)):
        keyword, value, words = pick.choice(WRONG_IN_ALL)
        return Fault(Scanned(replace(SMALL, attributes={keyword: value}), beside=pick.choice((False, True))), words)
    keyword, value, words = pick.choice(WRONG_IN_ONE)
    wrong = {pick.randint(0, 11): {keyword: value}}
    order = pick.choice(("ascending", "descending"))
    return Fault(Scanned(replace(SMALL, slice_attributes=wrong, order=order), beside=pick.choice((False, True))), words)


BAD_SERIES = (
    Fault(Scanned(replace(SMALL, shape=(1, 20, 30))), "too few slices: one alone is no volume"),
    Fault(Scanned(replace(SMALL, shape=(9, 20, 30))), "too few slices: 9 where threshold needs 10"),
    Fault(Scanned(replace(SMALL, transfer_syntax=uid.ExplicitVRBigEndian)), "no decoder .* Big Endian"),
    Fault(
        Scanned(
            replace(
                SMALL,
                missing=[6],
                phases=(
                    Phase({"AcquisitionNumber": 1}, slices=range(6)),
                    Phase({"AcquisitionNumber": 2}, slices=range(6, 12)),
                ),
            )
        ),
        "1 slice is missing",
    ),
)


def faults(pick: Random) -> Fault:
    """Any series that the node must refuse."""
    kind = pick.choice(("positions", "positions", "header", "header", "series"))
    if kind == "series":
        return pick.choice(BAD_SERIES)
    return bad_positions(pick) if kind == "positions" else bad_headers(pick)


SCANS, FAULTS = (st.randoms(use_true_random=True).map(build) for build in (scans, faults))
