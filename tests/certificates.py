"""Certificates for tests, made by the commands that docs/operations.md gives."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from dicomnode.sections import TLSSettings
from tests.external import find_program

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Identity:
    """A certificate, its key, and the authority that signed it."""

    certificate: Path
    key: Path
    ca: Path

    def settings(self, **changes: object) -> TLSSettings:
        return TLSSettings(**{"certificate": self.certificate, "key": self.key, "ca": self.ca, **changes})


def make_identity(folder: Path, ca: Identity | None = None) -> Identity:
    """What the documentation has its readers make, for this machine; ca: the folder of another's, to sign by its CA."""
    find_program("openssl", "openssl")
    folder.mkdir()
    if ca:
        for source in (ca.ca, ca.ca.with_suffix(".key")):
            (folder / source.name).write_bytes(source.read_bytes())
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8").split("## Security and limits")[1]
    for command in re.findall(r"^openssl (?:.*\\\n)*.*$", text, re.MULTILINE)[1 if ca else 0 :]:
        local = command.replace("node.example.org", "localhost").replace("rsa:3072", "rsa:2048")
        done = subprocess.run(local, shell=True, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    return Identity(folder / "node.crt", folder / "node.key", folder / "ca.crt")
