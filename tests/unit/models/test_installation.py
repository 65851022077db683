"""A release becomes a bundle: whole, of known content, and under its name only then."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import nibabel
import numpy as np
import pytest

from models import installation
from models.bundle import METADATA, BadBundle, read_bundle
from models.card import Card
from models.download import NotFetched
from models.installation import SOURCE, Source, install
from models.nnunet import Choice, import_nnunet
from models.releases import RELEASES, Release
from pipeline.analyse import Options, analyse, describe
from pipeline.preprocess import to_tensor
from pipeline.series import open_series, read_volume
from tests.mirror import Mirror, served
from tests.phantom import AXIAL, CORONAL, PANCREAS, PRONE, PhantomOptions, write_series
from tests.released import TRAINED, release, write_archive


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_archive(tmp_path_factory.mktemp("release") / "model.zip")


@pytest.fixture
def mirror(archive: Path) -> Iterator[Mirror]:
    with served(Mirror(archive.read_bytes())) as mirror:
        yield mirror


@pytest.fixture
def offered(archive: Path, mirror: Mirror) -> Release:
    return release(archive, mirror.url)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data" / "models"


def put(offered: Release, folder: Path, source: Source | None = None) -> Card:
    return install(offered, folder, source or Source(), lambda done, total: None)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_release_becomes_a_bundle_that_says_where_it_is_from(offered: Release, folder: Path) -> None:
    card = put(offered, folder)
    bundle = folder / "totalsegmentator"
    assert read_bundle(bundle).card == card
    assert (card.labels[card.target], card.orientation, card.network_arguments["members"]) == ("Pancreas", "SAR", 1)
    assert card.statement == offered.statement
    assert names(folder) == ["totalsegmentator"]
    record = json.loads((bundle / SOURCE).read_text())
    assert (record["from"], record["sha256"], record["licence"]) == (offered.url, offered.sha256, "Apache-2.0")
    metadata = json.loads((bundle / METADATA).read_text())
    assert "Wasserthal" in metadata["authors"]
    assert offered.citation in (bundle / "docs" / "README.md").read_text()


def test_it_is_the_model_that_the_same_folder_imported_is(
    offered: Release, archive: Path, folder: Path, tmp_path: Path
) -> None:
    shutil.unpack_archive(archive, tmp_path)
    imported = import_nnunet(tmp_path / TRAINED, tmp_path / "bundle", Choice(orientation="SAR"))
    assert put(offered, folder) == replace(imported, statement=offered.statement)


def test_a_pulled_model_analyses_a_phantom(offered: Release, folder: Path, tmp_path: Path) -> None:
    put(offered, folder)
    options = PhantomOptions(shape=(20, 40, 40), spacing_mm=(2.5, 2.0, 2.0), centre=PANCREAS.centre)
    series = open_series(write_series(tmp_path, options))
    findings = analyse(series, read_bundle(folder / "totalsegmentator"), Options(at=datetime(2024, 1, 2, tzinfo=UTC)))
    assert findings.segmentation.mask.any()
    assert findings.seg is not None
    assert describe(findings)["model"]["statement"] == offered.statement


@pytest.mark.parametrize("direction", [AXIAL, PRONE, CORONAL], ids=["axial", "prone", "coronal"])
def test_the_network_sees_the_patient_as_totalsegmentator_shows_it(
    offered: Release, folder: Path, tmp_path: Path, direction: tuple[float, ...]
) -> None:
    """On nibabel's closest canonical axes, in the order in which nnU-Net's SimpleITK reader has them."""
    options = PhantomOptions(shape=(24, 50, 60), spacing_mm=(4.0, 3.5, 3.0), orientation=direction)
    volume = read_volume(open_series(write_series(tmp_path, options)))
    to_ras = np.diag([-1.0, -1.0, 1.0, 1.0])
    affine = to_ras @ volume.grid.geometry.affine[:, [2, 1, 0, 3]]  # NIfTI counts columns first
    image = nibabel.as_closest_canonical(nibabel.Nifti1Image(volume.hounsfield.astype(np.int16).T, affine))
    column_mm, row_mm, slice_mm = (float(zoom) for zoom in image.header.get_zooms())
    card = replace(put(offered, folder), spacing_mm=(slice_mm, row_mm, column_mm))
    (low, high), (least, most) = card.window_hu or (0, 1), card.scaled_to
    shown = np.interp(np.asarray(image.dataobj).T, [low, high], [least, most])
    np.testing.assert_allclose(to_tensor(volume, card)[0, 0].numpy(), shown, atol=1e-3)


def test_from_a_file_no_network_is_needed_and_the_file_stays(archive: Path, folder: Path) -> None:
    put(release(archive), folder, Source(file=archive))
    assert archive.exists()
    assert json.loads((folder / "totalsegmentator" / SOURCE).read_text())["from"] == "model.zip"


def test_from_a_mirror(archive: Path, mirror: Mirror, folder: Path) -> None:
    put(release(archive), folder, Source(url=mirror.url))
    assert json.loads((folder / "totalsegmentator" / SOURCE).read_text())["from"] == mirror.url


def test_a_broken_download_is_gone_on_with(offered: Release, mirror: Mirror, folder: Path) -> None:
    mirror.breaks = [5000, 0]
    with pytest.raises(NotFetched, match="5,000 bytes are kept"):
        put(offered, folder)
    assert all(name.startswith(".") for name in names(folder))
    put(offered, folder)
    assert mirror.asked[-1]["range"] == "bytes=5000-"
    assert names(folder) == ["totalsegmentator"]


def test_a_wrong_hash_is_refused_and_nothing_of_it_stays(offered: Release, folder: Path) -> None:
    with pytest.raises(BadBundle, match=f"SHA-256 is {offered.sha256}, not {'0' * 64}, as one other public project"):
        put(replace(offered, sha256="0" * 64), folder)
    assert names(folder) == []
    put(offered, folder)


def test_a_file_of_wrong_size_or_hash_is_refused_and_stays(archive: Path, folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.zip"
    other.write_bytes(archive.read_bytes() + b"\0")
    with pytest.raises(BadBundle, match=r"other\.zip: [0-9,]+ bytes; the release has"):
        put(release(archive), folder, Source(file=other))
    with pytest.raises(BadBundle, match=r"not --sha256"):
        put(release(archive), folder, Source(file=archive, sha256="0" * 64))
    with pytest.raises(BadBundle, match=r"none\.zip: No such file"):
        put(release(archive), folder, Source(file=tmp_path / "none.zip"))
    assert other.exists()
    assert names(folder) == []


def test_a_hash_that_is_given_wins_over_size_and_hash_that_are_known(offered: Release, folder: Path) -> None:
    known = replace(offered, size=offered.size + 1, sha256="0" * 64)
    put(known, folder, Source(sha256=offered.sha256))
    record = json.loads((folder / "totalsegmentator" / SOURCE).read_text())
    assert record["sha256_from"] == "whoever installed it"


def test_there_must_be_room_before_anything_is_fetched(
    offered: Release, mirror: Mirror, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 2 * offered.size))
    with pytest.raises(BadBundle, match="are needed on this disk"):
        put(offered, folder)
    assert mirror.asked == []


def test_a_bundle_that_is_there_is_left_alone(offered: Release, mirror: Mirror, folder: Path) -> None:
    put(offered, folder)
    before = (folder / "totalsegmentator" / METADATA).stat().st_mtime_ns
    mirror.asked.clear()
    with pytest.raises(BadBundle, match="exists already"):
        put(offered, folder)
    assert (mirror.asked, (folder / "totalsegmentator" / METADATA).stat().st_mtime_ns) == ([], before)


@pytest.mark.parametrize("step", ["fetch", "_check", "unpack", "read_nnunet", "write_bundle", "_record"])
def test_a_crash_at_any_step_leaves_no_bundle_and_the_next_call_ends_well(
    offered: Release, folder: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    done = getattr(installation, step)

    def crash(*arguments: object, **options: object) -> None:
        done(*arguments, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(installation, step, crash)
    with pytest.raises(KeyboardInterrupt):
        put(offered, folder)
    monkeypatch.undo()
    assert all(name.startswith(".") for name in names(folder))
    put(offered, folder)
    assert names(folder) == ["totalsegmentator"]


def test_the_known_releases_are_complete() -> None:
    for name, known in RELEASES.items():
        assert known.name == name
        assert known.url.startswith("https://github.com/wasserth/TotalSegmentator/releases/download/v2.0.0-weights/")
        assert len(bytes.fromhex(known.sha256)) == hashlib.sha256().digest_size
        assert len(known.statement) < 250
