"""Programs of others that the tests run: validators, readers, archives."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

DCMQI = Path(__file__).parents[1] / ".venv-dcmqi" / "bin"
"""`make setup` installs dcmqi apart, because its binaries bring libraries of their own."""

_XPATH_LIMITS = " ".join(
    f"-Djdk.xml.{name}=0" for name in ("xpathExprOpLimit", "xpathExprGrpLimit", "xpathTotalOpLimit")
)


def find_program(name: str, package: str) -> str:
    """The path of a program; where it is missing the test fails in CI and is skipped elsewhere, naming the package."""
    path = shutil.which(name) or shutil.which(name, path=str(DCMQI))
    if path:
        return path
    reason = f"{name} is not installed: it comes with {package}"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def run_program(*arguments: str | Path, may_fail: bool = False) -> str:
    """Run a program to its end; what it wrote to both outputs. A non-zero exit fails the test unless it may."""
    # Java 17 and later refuse the compiled rules of DicomSRValidator without these limits lifted.
    environment = {**os.environ, "JAVA_TOOL_OPTIONS": _XPATH_LIMITS}
    done = subprocess.run([str(argument) for argument in arguments], capture_output=True, env=environment, timeout=240)
    output = (done.stdout + done.stderr).decode(errors="replace")
    assert may_fail or done.returncode == 0, f"{arguments[0]} ended with {done.returncode}:\n{output}"
    return output
