"""Files -> Series -> Volume, and every reason to refuse on the way."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom import Dataset

from pipeline.acquisitions import choose_acquisition
from pipeline.assumptions import Assumption, AssumptionKind
from pipeline.decoders import DECODABLE_TRANSFER_SYNTAXES as DECODABLE_TRANSFER_SYNTAXES
from pipeline.decoding import read_hounsfield
from pipeline.errors import NotASlice, NotImageData, UnfitGeometry, UnfitSeries
from pipeline.planes import CTFile, Plane, describe_attribute, read_instance
from pipeline.stack import Stack, stack
from pipeline.volume import Grid, Volume

TYPE_2 = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("AccessionNumber", "StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName"),
)
"""Patient and study attributes that each result has, empty where the source has none (PS3.5 7.4.3)."""

_LOSSY_SYNTAXES = ("1.2.840.10008.1.2.4.81", "1.2.840.10008.1.2.4.91", "1.2.840.10008.1.2.4.203")

_SMALL_BYTES = 256 << 20
_MOST_EXPANSION = 200
"""CT is packed 2 to 4 times without loss, at most 20 times with loss."""


@dataclass(frozen=True, eq=False)
class Series:
    """One CT series whose planes make one regular grid.

    instances: attributes without pixel data, in the order of the volume: `instances[k]` is slice k; of a multi-frame CT
        there is one instance.
    planes: plane k is slice k of the volume.
    grid: the planes in patient space; slices increase along the cross product of row and column direction, which
        makes the axes slice, row, column right-handed.
    assumptions: what was taken for granted, left out or corrected.
    """

    instances: tuple[Dataset, ...]
    planes: tuple[Plane, ...]
    grid: Grid
    assumptions: tuple[Assumption, ...]

    @property
    def first(self) -> Dataset:
        """The attributes of the instance that holds slice 0."""
        return self.instances[0]

    @property
    def study_instance_uid(self) -> str:
        """Study Instance UID of every instance."""
        return str(self.first.StudyInstanceUID)

    @property
    def series_instance_uid(self) -> str:
        """Series Instance UID of every instance."""
        return str(self.first.SeriesInstanceUID)

    @property
    def is_lossy(self) -> bool:
        """Whether an instance says that it was compressed with loss, by attribute or by transfer syntax."""
        return any(
            one.get("LossyImageCompression") == "01" or one.file_meta.TransferSyntaxUID in _LOSSY_SYNTAXES
            for one in self.instances
        )


def open_series(paths: Sequence[Path]) -> Series:
    """Read the files of one CT series and put its slices in order.

    Localizers, reports and other objects beside the slices are left out; of several acquisitions at the same positions
    one is chosen (`pipeline.acquisitions`); what was so assumed stands in the series. Raises a kind of `Refused`, which
    names the file and the reason, unless
    - there is at least one file, and each is a whole, decodable DICOM file; one at least is a slice of a CT volume;
    - all slices are of one study, one series and one frame of reference, and no instance is there twice;
    - the attributes that place and scale the voxels are there and make sense (PS3.3 C.7.6.2, C.7.6.3, C.8.2.1);
    - the planes make one regular grid (`pipeline.stack`), of a size that its files may well hold.
    """
    files, left_out = _read_slices(paths)
    _check_one_series(files)
    _check_expansion(files)
    stacked, chosen = _stack(files)
    instances = [files[0].instance]
    if len(files) > 1:
        of_path = {file.planes[0].path: file.instance for file in files}
        instances = [of_path[plane.path] for plane in stacked.planes]
    assumptions = (*left_out, *chosen, *stacked.assumptions, *_attributes(files))
    return Series(tuple(instances), stacked.planes, stacked.grid, assumptions)


def read_volume(series: Series) -> Volume:
    """Decode a series into HU; raises `Undecodable` naming the file. See `pipeline.decoding.read_hounsfield`."""
    return Volume(read_hounsfield(series.planes), series.grid)


def _read_slices(paths: Sequence[Path]) -> tuple[list[CTFile], list[Assumption]]:
    """The files that are slices, and in words those that are not."""
    if not paths:
        raise NotImageData("no files")
    files, others = [], []
    for path in paths:
        try:
            files.append(read_instance(path))
        except NotASlice as error:
            others.append(error)
    if not files:
        raise others[0]
    if len(files) > 1 and any(len(file.planes) > 1 for file in files):
        raise UnfitSeries(f"{len(files)} files, some of them multi-frame: one multi-frame file is expected")
    return files, _describe_left_out(others)


def _describe_left_out(others: Sequence[NotASlice]) -> list[Assumption]:
    """One line for each reason, however many objects it holds for."""
    names: dict[str, list[str]] = defaultdict(list)
    for other in others:
        names[other.reason].append(other.name)
    lines = []
    for reason, left_out in names.items():
        more = f" and {len(left_out) - 1} more" if len(left_out) > 1 else ""
        lines.append(Assumption(AssumptionKind.IMAGES_LEFT_OUT, f"left out: {left_out[0]}{more}: {reason}"))
    return lines


def _check_one_series(files: Sequence[CTFile]) -> None:
    names = [file.planes[0].name for file in files]
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        uids = [file.instance[keyword].value for file in files]
        other = next((index for index, uid in enumerate(uids) if uid != uids[0]), None)
        if other is not None:
            attribute = describe_attribute(keyword)
            raise UnfitSeries(f"{names[0]} and {names[other]} differ in {attribute}: {len(set(uids))} values in all")
    seen: dict[str, str] = {}
    for file, name in zip(files, names, strict=True):
        uid = file.instance.SOPInstanceUID
        if uid in seen:
            raise UnfitSeries(f"{seen[uid]} and {name} are the same instance")
        seen[uid] = name


def _check_expansion(files: Sequence[CTFile]) -> None:
    """Refuse what would unfold to far more than CT does; a slice of nothing but air packs so well, a series never."""
    unfolded = sum(2 * plane.rows * plane.columns for file in files for plane in file.planes)
    packed = sum(file.planes[0].path.stat().st_size for file in files)
    if unfolded > _SMALL_BYTES and unfolded > _MOST_EXPANSION * packed:
        raise UnfitSeries(
            f"{files[0].planes[0].name}: {packed >> 10} KiB of files would unfold to {unfolded >> 20} MiB of voxels"
        )


def _stack(files: Sequence[CTFile]) -> tuple[Stack, list[Assumption]]:
    """One stack of all planes, or where they make none, of those of one acquisition."""
    planes = [plane for file in files for plane in file.planes]
    frame_of_reference_uid = files[0].instance.FrameOfReferenceUID
    try:
        return stack(planes, frame_of_reference_uid), []
    except UnfitGeometry:
        choice = choose_acquisition(planes)
        if choice is None:
            raise
    chosen, assumption = choice
    return stack(chosen, frame_of_reference_uid), [assumption]


def _attributes(files: Sequence[CTFile]) -> list[Assumption]:
    """What the headers lack or nobody can read, each attribute once."""
    unreadable = Counter(attribute for file in files for attribute in file.unreadable)
    lines = [
        Assumption(AssumptionKind.ATTRIBUTE_UNREADABLE, f"{attribute} is damaged in {_files(count)}: taken as absent")
        for attribute, count in unreadable.items()
    ]
    first = files[0].instance
    missing = [(keyword, "empty in the results") for keyword in TYPE_2 if keyword not in first]
    if first.get("LossyImageCompression") == "01" and not first.get("LossyImageCompressionRatio"):
        missing.append(("LossyImageCompressionRatio", "the results say lossy without it"))
    for keyword, instead in missing:
        text = f"{describe_attribute(keyword)} is missing: {instead}"
        lines.append(Assumption(AssumptionKind.ATTRIBUTE_MISSING, text))
    return lines


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count} files"
