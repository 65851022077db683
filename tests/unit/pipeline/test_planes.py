"""One frame of one file, where it lies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.series import open_series
from tests.phantom import PhantomOptions, write_multiframe

SMALL = PhantomOptions(shape=(6, 48, 60), spacing_mm=(8.0, 4.0, 4.0))


class TestMultiFrame:
    def test_a_missing_frame_is_named(self, tmp_path: Path) -> None:
        path = write_multiframe(tmp_path / "enhanced.dcm", replace(SMALL, missing=[3]))
        with pytest.raises(Exception, match=r"enhanced\.dcm\)? frame \d and .*frame \d"):
            open_series([path])
