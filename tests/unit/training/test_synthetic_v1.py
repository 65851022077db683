"""The volumes that models are judged on stay what they were when figures on them were published."""

import zlib

import pytest
import torch

from training.cases import deform
from training.synthetic_v1 import make_anatomy


def test_a_test_volume_is_the_one_it_always_was() -> None:
    codes = torch.zeros(60, 80, 90, dtype=torch.uint8)
    codes[:, 10:70, 10:80] = 2
    codes[20:40, 25:55, 30:60] = 1
    anatomy = make_anatomy(codes, "1 pancreas 1.0\n2 liver 1.0", 4)
    first, second = deform([anatomy], (2_000_000, 2_000_001), (16, 24, 24))
    assert [zlib.crc32(case.truth.tobytes()) for case in (first, second)] == [1032530910, 3968941252]
    assert first.volume.hounsfield.mean() == pytest.approx(
        25.944, abs=0.01
    )  # the last bits may differ between processors
    assert second.volume.hounsfield.std() == pytest.approx(309.637, abs=0.01)
