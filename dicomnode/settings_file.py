"""The settings file as its owner wrote it: one value is changed; comments, order and all else stay."""

from __future__ import annotations

import os
import shutil
from collections.abc import MutableMapping
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import tomlkit
from tomlkit.exceptions import TOMLKitError

from dicomnode.errors import Misconfigured


def set_model(config: Path, bundle: Path) -> None:
    """Write the bundle as `worker.model`, in one move: a crash leaves the old file or the new one.

    The path is written in full, since relative ones count from the working directory. Raises Misconfigured.
    """
    config = config.resolve()  # a link to the file stays one
    try:
        content = tomlkit.parse(config.read_bytes())
        worker = content.setdefault("worker", tomlkit.table())
        if not isinstance(worker, MutableMapping):
            raise Misconfigured(f"{config}: worker is not a table")
        worker["model"] = str(bundle.resolve())
        _replace(config, tomlkit.dumps(content).encode())
    except OSError as error:
        raise Misconfigured(f"{config}: {error.strerror}") from None
    except (TOMLKitError, UnicodeDecodeError) as error:
        raise Misconfigured(f"{config}: not valid TOML: {error}") from None


def _replace(file: Path, content: bytes) -> None:
    """Temporary file, fsync, rename; whoever could read and write the file still can, and nobody else meanwhile."""
    temporary = file.with_name(f".{file.name}.{uuid4().hex}")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        with suppress(PermissionError):
            os.chown(temporary, file.stat().st_uid, file.stat().st_gid)
        shutil.copymode(file, temporary)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
