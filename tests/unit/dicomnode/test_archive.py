"""Files on disk: safe names, all or nothing, a reserve."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from dicomnode.archive import RECEIVED, Archive, Full, archive_path
from dicomnode.errors import Misconfigured, Unavailable

DIGEST = "d" * 64


def list_files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("uid", ["../../x", "/etc/passwd", "a\0b", "x" * 1000, "", "CON", "1.2.3/../4", "..", "ü\n"])
def test_case_04_a_hostile_identifier_stays_inside_the_archive(tmp_path: Path, uid: str) -> None:
    root = tmp_path / "archive"
    archive = Archive(root, 0)
    for relative in (archive_path(RECEIVED, uid, "1.2", DIGEST), archive_path(RECEIVED, "1.2", uid, DIGEST)):
        archive.keep(relative, b"content")
        assert archive.path(relative).resolve().is_relative_to(root.resolve() / RECEIVED)
        assert archive.path(relative).read_bytes() == b"content"
    assert [path for path in list_files(tmp_path) if not path.is_relative_to(root)] == []


def test_case_06_other_content_under_the_same_uid_has_another_path() -> None:
    assert archive_path(RECEIVED, "1", "1.2", DIGEST) != archive_path(RECEIVED, "1", "1.2", "e" * 64)


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, Full), (errno.EDQUOT, Full), (errno.EIO, Unavailable)])
def test_case_02_a_failed_write_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception]
) -> None:
    archive = Archive(tmp_path, 0)
    relative = archive_path(RECEIVED, "1", "1.2", DIGEST)

    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(kind):
            archive.keep(relative, b"content")
    assert list_files(tmp_path) == []
    archive.keep(relative, b"content")  # it recovers by itself
    assert archive.path(relative).read_bytes() == b"content"


def test_the_file_is_synced_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = Archive(tmp_path, 0)
    relative = archive_path(RECEIVED, "1", "1.2", DIGEST)
    archive.keep(archive_path(RECEIVED, "1", "1.3", DIGEST), b"")  # the folder is there
    seen = []

    def watch(descriptor: int) -> None:
        seen.append((Path(f"/proc/self/fd/{descriptor}").readlink(), archive.path(relative).exists()))

    monkeypatch.setattr(os, "fsync", watch)
    archive.keep(relative, b"content")
    (first, named_before), (second, named_after) = seen
    assert first.suffix == ".part"
    assert not named_before
    assert (second, named_after) == (archive.path(relative).parent, True)


def test_case_02_below_the_reserve_nothing_is_written(tmp_path: Path) -> None:
    archive = Archive(tmp_path, reserve_bytes=1 << 62)
    with pytest.raises(Full, match="reserve"):
        archive.keep(archive_path(RECEIVED, "1", "1.2", DIGEST), b"content")
    assert list_files(tmp_path) == []


def test_what_a_crash_left_unfinished_is_swept(tmp_path: Path) -> None:
    archive = Archive(tmp_path, 0)
    kept = archive_path(RECEIVED, "1", "1.2", DIGEST)
    archive.keep(kept, b"content")
    (tmp_path / "incoming" / "left.part").write_bytes(b"half")
    archive.sweep()
    assert list(archive.received()) == [kept]
    assert list_files(tmp_path) == [archive.path(kept)]


def test_an_archive_that_cannot_be_made_is_a_wrong_setting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Misconfigured, match=r"archive\.path"):
        Archive(tmp_path / "file" / "archive", 0)
