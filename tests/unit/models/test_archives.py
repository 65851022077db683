"""Of an archive the trained network is taken, under known names, and nothing else."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import pytest

from models.archives import unpack
from models.bundle import BadBundle
from tests.released import write_archive

FILES = ("plans.json", "dataset.json", "fold_0/checkpoint_final.pth")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "inside" / "unpacked"


def archive_of(path: Path, *names: str) -> Path:
    with ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, name)
    return path


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_only_the_network_is_written(tmp_path: Path, folder: Path) -> None:
    folder.parent.mkdir()
    unpack(write_archive(tmp_path / "a.zip"), folder)
    assert files_below(folder) == set(FILES)


@pytest.mark.parametrize("root", ["", "a/b/c/", "../../", "/"])
def test_paths_of_the_archive_lead_nowhere(tmp_path: Path, folder: Path, root: str) -> None:
    folder.parent.mkdir()
    wanted = [f"{root}{name}" for name in FILES]
    archive = archive_of(tmp_path / "a.zip", *wanted, "../../evil", "/tmp/evil-of-a-test", f"{root}fold_0/../../evil")
    unpack(archive, folder)
    assert files_below(tmp_path) == {"a.zip", *(f"inside/unpacked/{name}" for name in FILES)}
    assert not Path("/tmp/evil-of-a-test").exists()
    assert (folder / FILES[2]).read_text() == f"{root}{FILES[2]}"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["readme.txt"], "0 folders with plans.json, dataset.json and fold_"),
        (["a/plans.json", "a/dataset.json"], "0 folders"),
        (["a/plans.json", "b/dataset.json", "a/fold_0/checkpoint_final.pth"], "0 folders"),
        (["a/plans.json", "a/dataset.json", "a/fold_0/checkpoint_best.pth"], "0 folders"),
        ([f"{root}/{name}" for root in "ab" for name in FILES], "2 folders"),
    ],
)
def test_one_network_is_needed(tmp_path: Path, folder: Path, names: list[str], message: str) -> None:
    with pytest.raises(BadBundle, match=f"a.zip: {message}"):
        unpack(archive_of(tmp_path / "a.zip", *names), folder)
    assert not folder.exists()


def test_what_would_fill_the_disk_is_refused_unopened(tmp_path: Path, folder: Path) -> None:
    with ZipFile(tmp_path / "a.zip", "w", ZIP_DEFLATED) as archive:
        for name in FILES:
            archive.writestr(name, bytes(10_000_000))
    with pytest.raises(BadBundle, match=r"unpack to 30,000,000 bytes, too many for weights"):
        unpack(tmp_path / "a.zip", folder)
    assert not folder.exists()


def test_a_size_that_lies_is_found_out(tmp_path: Path, folder: Path) -> None:
    folder.parent.mkdir()
    archive = archive_of(tmp_path / "a.zip", *FILES)
    content = archive.read_bytes()
    size = len(FILES[0]).to_bytes(4, "little")
    archive.write_bytes(content.replace(size + size, size + (5).to_bytes(4, "little")))
    with pytest.raises(BadBundle, match=r"a\.zip"):
        unpack(archive, folder)


def test_a_link_is_refused(tmp_path: Path, folder: Path) -> None:
    archive = archive_of(tmp_path / "a.zip", *FILES[1:])
    link = ZipInfo(FILES[0])
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with ZipFile(archive, "a") as content:
        content.writestr(link, "/etc/hostname")
    with pytest.raises(BadBundle, match=r"plans\.json is a link"):
        unpack(archive, folder)
    assert not folder.exists()


@pytest.mark.parametrize("damage", [lambda content: b"<html>", lambda content: content[: len(content) // 2]])
def test_what_is_not_a_whole_archive_is_named(tmp_path: Path, folder: Path, damage: object) -> None:
    archive = write_archive(tmp_path / "a.zip")
    archive.write_bytes(damage(archive.read_bytes()))  # type: ignore[operator]
    with pytest.raises(BadBundle, match=r"a\.zip: not a whole zip archive"):
        unpack(archive, folder)


def test_damage_within_is_found(tmp_path: Path, folder: Path) -> None:
    folder.parent.mkdir()
    archive = write_archive(tmp_path / "a.zip")
    content = bytearray(archive.read_bytes())
    place = content.index(b"checkpoint_final.pth") + 500
    content[place : place + 100] = bytes(100)
    archive.write_bytes(content)
    with pytest.raises(BadBundle, match=r"a\.zip: not a whole zip archive"):
        unpack(archive, folder)


def test_a_full_disk_is_noticed_before(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.parent.mkdir()
    archive = write_archive(tmp_path / "a.zip")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 0))
    with pytest.raises(BadBundle, match="MB are needed on this disk, 0 MB are free"):
        unpack(archive, folder)
    assert not folder.exists()
