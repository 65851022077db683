"""Files on disk: safe names, and nothing acknowledged before it would survive a power cut.

Layout below the root: `incoming/` temporary files, `received/` and `results/` the kept ones. Names are SHA-256 digests
of identifiers and content, never received text, so that no identifier can leave the archive.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from dicomnode.errors import Misconfigured, Unavailable

RECEIVED = "received"
RESULTS = "results"
_INCOMING = "incoming"
_PROBE_BYTES = 1 << 20  # about a slice: what a probe asks room for


class Full(Unavailable):
    """The disk is full, or its free space is below the reserve."""


def archive_path(area: str, series_instance_uid: str, sop_instance_uid: str, content_sha256: str) -> str:
    """The path, relative to the archive, of an instance; different content under the same UID never shares a path."""
    series = hashlib.sha256(series_instance_uid.encode()).hexdigest()
    instance = hashlib.sha256(f"{sop_instance_uid}\n{content_sha256}".encode()).hexdigest()
    return f"{area}/{series[:2]}/{series[:32]}/{instance[:32]}.dcm"


def data_set_digest(blob: bytes) -> str:
    """SHA-256 of the data set alone: the meta information before it holds the sender's title, which may change.

    blob: a file with preamble and meta information (PS3.10 7.1), whose first element is its length.
    """
    length = int.from_bytes(blob[140:144], "little")
    return hashlib.sha256(memoryview(blob)[144 + length :]).hexdigest()


def digest(relative: str, blob: bytes) -> str:
    """The SHA-256 by which the index knows a file: of what was received the data set alone, of a result all of it."""
    return data_set_digest(blob) if relative.startswith(RECEIVED) else hashlib.sha256(blob).hexdigest()


class Archive:
    """The folder of all files of the node. Several processes may add to it; one sweeps it."""

    def __init__(self, root: Path, reserve_bytes: int) -> None:
        """Make the folders. Raises Misconfigured where that is not allowed."""
        self._root = root.resolve()
        self._reserve_bytes = reserve_bytes
        try:
            for area in (_INCOMING, RECEIVED, RESULTS):
                self._make_folder(self._root / area)
        except OSError as error:
            raise Misconfigured(f"archive.path: {self._root}: {error.strerror}") from None

    def path(self, relative: str) -> Path:
        """The file of a path that the archive gave out."""
        return self._root / relative

    def keep(self, relative: str, content: bytes) -> None:
        """Write a file that survives a crash once this returns.

        Temporary file, fsync, rename, fsync of the folder. Raises Full or Unavailable; then no partial file is left.
        """
        target = self._root / relative
        temporary = self._root / _INCOMING / f"{uuid.uuid4().hex}.part"
        try:
            self._check_reserve(len(content))
            self._make_folder(target.parent)
            _write(temporary, content)
            temporary.replace(target)
            _sync_folder(target.parent)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            kind = Full if error.errno in (errno.ENOSPC, errno.EDQUOT) else Unavailable
            raise kind(f"archive: {error.strerror}") from error

    def holds(self, relative: str) -> bool:
        """Whether the file is there."""
        return self.path(relative).is_file()

    def discard(self, *relatives: str) -> None:
        """Remove kept files that nothing refers to, so that a power cut does not bring them back."""
        for relative in relatives:
            self.path(relative).unlink(missing_ok=True)
        for folder in {self.path(relative).parent for relative in relatives}:
            if folder.is_dir():
                _sync_folder(folder)

    def probe(self) -> str:
        """Why nothing can be kept at this moment, or an empty text: a little was written, synced and removed."""
        temporary = self._root / _INCOMING / f"{uuid.uuid4().hex}.part"
        try:
            self._check_reserve(_PROBE_BYTES)
            _write(temporary, bytes(4096))
        except Full as error:
            return str(error)
        except OSError as error:
            return f"archive: {error.strerror}"
        finally:
            temporary.unlink(missing_ok=True)
        return ""

    @property
    def room_bytes(self) -> int:
        """Free space above the reserve."""
        return shutil.disk_usage(self._root).free - self._reserve_bytes

    def sweep(self) -> None:
        """Remove what a crash left unfinished, and folders that retention left empty.

        Only the receiver's process may call it, before it listens.
        """
        for leftover in (self._root / _INCOMING).iterdir():
            leftover.unlink(missing_ok=True)
        for folder in (self._root / RECEIVED).glob("*/*"):
            if folder.is_dir() and not any(folder.iterdir()):
                with suppress(OSError):  # another process puts something into it
                    folder.rmdir()

    def received(self) -> Iterator[str]:
        """The path of every received file, relative to the archive."""
        for file in (self._root / RECEIVED).glob("*/*/*.dcm"):
            yield file.relative_to(self._root).as_posix()

    def written_before(self, area: str, moment: datetime) -> Iterator[str]:
        """The path of every received file or result written before then, relative to the archive."""
        for file in (self._root / area).glob("*/*/*.dcm"):
            try:
                is_older = file.stat().st_mtime < moment.timestamp()
            except FileNotFoundError:  # retention was faster
                continue
            if is_older:
                yield file.relative_to(self._root).as_posix()

    def _check_reserve(self, size: int) -> None:
        free = shutil.disk_usage(self._root).free
        if free - size < self._reserve_bytes:
            raise Full(f"archive: {free / 1e9:.1f} GB free, {self._reserve_bytes / 1e9:.1f} GB are kept in reserve")

    def _make_folder(self, folder: Path) -> None:
        if folder.is_dir():
            return
        if folder != self._root:
            self._make_folder(folder.parent)
        folder.mkdir(parents=True, exist_ok=True)
        _sync_folder(folder.parent)


def _write(file: Path, content: bytes) -> None:
    with file.open("xb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
