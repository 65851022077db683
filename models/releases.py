"""The releases of trained models that this node knows how to fetch.

Addresses and folds are those of TotalSegmentator 2.18.0 (`map_tasks_config.py`). So is the orientation: it turns images
to nibabel's closest canonical axes, which increase to Right, Anterior and Superior (`alignment.py`, `nnunet.py`), and
leaves them as NIfTI to nnU-Net's SimpleITK reader, whose arrays have the axes in the other order: slices to Superior,
rows to Anterior, columns to Right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_ADDRESS = "https://github.com/wasserth/TotalSegmentator/releases/download/v2.0.0-weights"


@dataclass(frozen=True, kw_only=True)
class Release:
    """An archive (zip) with one trained nnU-Net v2 folder, as its authors publish it.

    name: what it is called here, and its bundle. about: what it is, in a line. size: of the archive, bytes. sha256: of
    the archive; sha256_from: whose word that is, where the authors publish none. licence: its SPDX identifier.
    target, folds, orientation: as in `models.nnunet.Choice`. statement: as in `models.card.Card`.
    """

    name: str
    about: str
    url: str
    size: int
    sha256: str
    sha256_from: str
    licence: str
    licence_url: str
    authors: str
    citation: str
    statement: str
    target: str = "pancreas"
    folds: Sequence[str] = ("0",)
    orientation: str = "SAR"


def _totalsegmentator(*, name: str, about: str, dataset: str, size: int, sha256: str, sha256_from: str) -> Release:
    return Release(
        name=name,
        about=about,
        url=f"{_ADDRESS}/{dataset}.zip",
        size=size,
        sha256=sha256,
        sha256_from=sha256_from,
        licence="Apache-2.0",  # TotalSegmentator's README: the task `total` is open for any usage
        licence_url="https://github.com/wasserth/TotalSegmentator/blob/master/LICENSE",
        authors="Jakob Wasserthal and others, University Hospital Basel",
        citation="Wasserthal J. et al., Radiology: Artificial Intelligence 2023, https://doi.org/10.1148/ryai.230024",
        statement=f"{about}, run from its published weights; not judged here. "
        "Judge it on your own cases before you believe a volume.",
    )


_KNOWN = (
    _totalsegmentator(
        name="totalsegmentator",
        about="TotalSegmentator v2, 1.5 mm, 24 organs",
        dataset="Dataset291_TotalSegmentator_part1_organs_1559subj",
        size=233_742_255,
        sha256="2cde8e6bcfb5b6a02183648a7036c3d6b28bc854576f8e1c34fbd6b4dd5c6c5b",
        sha256_from="one other public project that fetched it",
    ),
    _totalsegmentator(
        name="totalsegmentator-3mm",
        about="TotalSegmentator v2, 3 mm, 117 structures",
        dataset="Dataset297_TotalSegmentator_total_3mm_1559subj",
        size=135_386_075,
        sha256="0baa2c8de2975600eb31801dd5c1825cd2b356f794498659cf3348714c073394",
        sha256_from="three other public projects that fetched it",
    ),
)

RELEASES: Mapping[str, Release] = {release.name: release for release in _KNOWN}
