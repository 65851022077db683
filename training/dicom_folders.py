"""DICOM CT with SEG: a folder for each case, or many patients in one, such as this node's archive.

Files are told apart by their headers, whatever their names and folders are; a SEG belongs to the CT series that it
refers to. Of several SEGs that show one structure of one series, the first of these is its truth, and among equals the
one with the latest Content Date and Time:

1. drawn or edited by hand: a segment has the algorithm type MANUAL or SEMIAUTOMATIC (PS3.3 C.8.20.4.2);
2. automatic, but not this node's: of another model name, or in a series that an editor made of the node's;
3. this node's own, and only if asked for: a site's archive is full of it, and a model must neither learn from nor be
   judged by what a model found.
"""

from __future__ import annotations

import hashlib
import logging
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import highdicom
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import SegmentationStorage

from pipeline.errors import UNREADABLE
from pipeline.planes import SOP_CLASSES
from pipeline.provenance import PRODUCT
from pipeline.series import Series, open_series, read_volume
from pipeline.volume import Volume
from training.examples import Example, Masks, Options, Structure

DICOM_SEG = "dicom-seg"
_KEYWORDS = ["SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "PatientID"]
_OWN, _OTHER, _BY_HAND = range(3)

log = logging.getLogger(__name__)


@dataclass
class _Scan:
    """The files of one CT series, the UIDs of its instances, and the SEGs that refer to it."""

    first: Dataset
    paths: list[Path] = field(default_factory=list)
    instances: set[str] = field(default_factory=set)
    segmentations: list[_Segmentation] = field(default_factory=list)


@dataclass(frozen=True)
class _Segmentation:
    """rank: its kind, then when its content was made; the greater, the better."""

    path: Path
    rank: tuple[int, str, str]
    structures: tuple[Structure, ...]


def holds_dicom(folder: Path) -> bool:
    """Whether there is a DICOM file anywhere in the folder."""
    return next(_read_headers(folder), None) is not None


def find_dicom(folder: Path, options: Options) -> list[Example]:
    """Every CT series with a SEG that may be its truth; the others are left out with a warning.

    The patient is a digest of Patient ID, or of the Study Instance UID where there is none. An example is called by
    its subfolder where that holds no other, else by the beginning of the digest of its Series Instance UID, as the
    node's archive calls folders. Raises ValueError, naming the file, where a header cannot be read.
    """
    scans = _find_scans(folder, options)
    chosen = {uid: scan for uid, scan in scans.items() if scan.segmentations}
    if len(chosen) < len(scans):
        log.warning("%s: %d CT series without a SEG that may be their truth", folder, len(scans) - len(chosen))
    folders = {uid: scan.paths[0].relative_to(folder).parts[:-1] for uid, scan in chosen.items()}
    counts = Counter(parts[0] for parts in folders.values() if parts)
    names = {uid: parts[0] for uid, parts in folders.items() if parts and counts[parts[0]] == 1}
    return [_example(names.get(uid, _digest(uid)), scan, options) for uid, scan in chosen.items()]


def _example(name: str, scan: _Scan, options: Options) -> Example:
    best_first = sorted(scan.segmentations, key=lambda one: one.rank, reverse=True)
    structures: dict[str, Structure] = {}
    for segmentation in best_first:
        for structure in segmentation.structures:
            structures.setdefault(structure.name.casefold(), structure)
    patient = _digest(str(scan.first.get("PatientID") or scan.first.get("StudyInstanceUID")))
    images, numbered = tuple(scan.paths), best_first[0].path
    return Example(name, patient, DICOM_SEG, images, tuple(structures.values()), numbered, options)


def _digest(identifier: str) -> str:
    """Manifests and reports leave the house: they hold no identifier."""
    return hashlib.sha256(identifier.encode()).hexdigest()[:12]


def _read_headers(folder: Path) -> Iterator[tuple[Path, Dataset]]:
    """Every DICOM file; what else lies beside them, such as a licence or a list, is passed over."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "DICOMDIR"):
        try:
            yield path, pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_KEYWORDS)
        except InvalidDicomError:
            continue
        except UNREADABLE as error:
            raise ValueError(f"{path}: a damaged or truncated DICOM file") from error


def _find_scans(folder: Path, options: Options) -> dict[str, _Scan]:
    """Every CT series by its Series Instance UID, with the SEGs that may be its truth."""
    scans: dict[str, _Scan] = {}
    results = []
    for path, header in _read_headers(folder):
        if _is_seg(header):
            results.append(path)
        elif header.get("SOPClassUID") in SOP_CLASSES:
            scan = scans.setdefault(str(header.get("SeriesInstanceUID")), _Scan(header))
            scan.paths.append(path)
            scan.instances.add(str(header.get("SOPInstanceUID")))
    of_instance = {uid: scan for scan in scans.values() for uid in scan.instances}
    for path in results:
        try:
            _attach(path, scans, of_instance, options)
        except UNREADABLE as error:
            raise ValueError(f"{path}: a damaged SEG, or none") from error
    return scans


def _attach(path: Path, of_series: dict[str, _Scan], of_instance: dict[str, _Scan], options: Options) -> None:
    result = pydicom.dcmread(path, stop_before_pixels=True)
    kind = _kind(result)
    if kind == _OWN and not options.automatic:
        return
    series = [str(item.get("SeriesInstanceUID")) for item in result.get("ReferencedSeriesSequence") or []]
    found = [of_series[uid] for uid in series if uid in of_series]
    found += [of_instance[uid] for uid in _referenced_instances(result) if uid in of_instance]
    if found:
        rank = (kind, f"{result.get('ContentDate', '')}{result.get('ContentTime', '')}", str(result.SOPInstanceUID))
        found[0].segmentations.append(_Segmentation(path, rank, tuple(_structures(path, result))))
    else:
        log.warning("%s: left out: the CT that it refers to is not here", path)


def _referenced_instances(result: Dataset) -> Iterator[str]:
    """UIDs of the source images, of the object and of its frames (PS3.3 C.7.6.16.2.6)."""
    sources = list(result.get("SourceImageSequence") or [])
    groups = _functional_groups(result)
    for derivation in (item for group in groups for item in group.get("DerivationImageSequence") or []):
        sources += derivation.get("SourceImageSequence") or []
    yield from (str(source.get("ReferencedSOPInstanceUID")) for source in sources)


def _functional_groups(result: Dataset) -> list[Dataset]:
    shared, frames = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
    return [*(result.get(shared) or []), *(result.get(frames) or [])]


def _kind(result: Dataset) -> int:
    types = {str(segment.get("SegmentAlgorithmType", "")) for segment in result.SegmentSequence}
    if types & {"MANUAL", "SEMIAUTOMATIC"}:
        return _BY_HAND
    is_own = result.get("ManufacturerModelName") == PRODUCT and _is_derived(str(result.SeriesInstanceUID))
    return _OWN if is_own else _OTHER


def _is_derived(uid: str) -> bool:
    """Whether it is 2.25 and a name-based UUID, as `pipeline.provenance.derive_uid` makes; editors draw theirs."""
    number = uid.removeprefix("2.25.")
    if number == uid or not number.isdecimal() or int(number) >= 2**128:
        return False
    return uuid.UUID(int=int(number)).version == 5


def _structures(path: Path, result: Dataset) -> Iterator[Structure]:
    """Each segment by its label, and by its coded type if no other segment has it."""
    segments = {int(segment.SegmentNumber): segment for segment in result.SegmentSequence}
    for number, segment in segments.items():
        yield Structure(str(segment.get("SegmentLabel", number)), path, (number,))
    types = {number: _type(segment) for number, segment in segments.items()}
    counts = Counter(types.values())
    yield from (Structure(name, path, (number,)) for number, name in types.items() if name and counts[name] == 1)


def _type(segment: Dataset) -> str:
    items = segment.get("SegmentedPropertyTypeCodeSequence") or [Dataset()]
    return str(items[0].get("CodeMeaning", ""))


def read_series_folder(folder: Path) -> Volume:
    """The one CT series in a folder, whatever lies beside it; raises a kind of `Refused`."""
    return read_volume(open_series([path for path, header in _read_headers(folder) if not _is_seg(header)]))


def _is_seg(header: Dataset) -> bool:
    return bool(header.get("SOPClassUID") == SegmentationStorage)


def read_dicom(example: Example) -> tuple[Volume, Masks]:
    """Series and masks; raises a kind of `Refused`, and ValueError where a SEG does not fit the series."""
    series = open_series(example.images)
    return read_volume(series), lambda structure: _read_segments(series, structure)


def _read_segments(series: Series, structure: Structure) -> NDArray[np.bool_]:
    """Segments on the slices that their frames refer to, shape (slice, row, column)."""
    result = highdicom.seg.segread(structure.path)
    if not set(structure.values) <= set(result.segment_numbers):
        raise ValueError(f"{structure.path.name}: no segment {structure.name}")
    try:
        pixels = _pixels(result, series, structure.values)
    except UNREADABLE as error:  # highdicom says in words what its frames lack
        raise ValueError(f"{structure.path.name}: its frames are not placed on the slices: {error}") from error
    mask = np.asarray(pixels > 0.5).any(axis=-1)
    if mask.shape != series.grid.shape or not _is_oriented(result, series):
        raise ValueError(f"{structure.path.name}: its frames do not lie on the pixels of the series")
    if not mask.any():
        raise ValueError(f"{structure.path.name}: segment {structure.name} is on none of the slices")
    return mask


def _pixels(result: highdicom.seg.Segmentation, series: Series, numbers: Sequence[int]) -> NDArray[np.floating]:
    options = {"segment_numbers": list(numbers), "assert_missing_frames_are_empty": True}
    if len(series.instances) > 1:
        return result.get_pixels_by_source_instance([str(one.SOPInstanceUID) for one in series.instances], **options)
    frames = [plane.frame + 1 for plane in series.planes]
    return result.get_pixels_by_source_frame(series.first.SOPInstanceUID, frames, **options)


def _is_oriented(result: Dataset, series: Series) -> bool:
    """Whether all frames have the series' row and column directions; a reference does not say so."""
    cosines = [
        [float(value) for value in item.ImageOrientationPatient]
        for group in _functional_groups(result)
        for item in group.get("PlaneOrientationSequence") or []
    ]
    return bool(np.allclose(cosines, series.planes[0].orientation, atol=1e-3)) if cosines else True
