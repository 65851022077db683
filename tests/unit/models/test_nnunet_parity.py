"""The mask is that of nnU-Net's own predictor: what it said is stored, and asked again where nnunetv2 is installed."""

from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from models.nnunet import Choice, read_nnunet
from pipeline.analyse import Options, segment
from pipeline.postprocess import largest_component
from tests.nnunet_folders import CASES, EXPECTED, LABELS, SHAPE, predict_by_nnunet, volume, write_folder

LEAST_DICE = {case: 0.998 if "spacing_mm" in arguments else 0.999 for case, arguments in CASES.items()}
"""Where voxels stay in place, nnU-Net's half precision alone differs; else also how splines end at the borders."""


def our_mask(folder: Path, case: str) -> NDArray[np.bool_]:
    model = read_nnunet(folder, Choice(mirroring=case == "mirrored"))
    segmentation, _ = segment(volume(), model, Options(at=datetime(2026, 1, 1, tzinfo=UTC)))
    return segmentation.mask


def dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return 2 * np.count_nonzero(one & other) / (np.count_nonzero(one) + np.count_nonzero(other))


@pytest.mark.parametrize("case", CASES)
def test_the_mask_is_the_one_that_nnunet_made(tmp_path: Path, case: str) -> None:
    bits = np.load(EXPECTED)[case]
    expected, _ = largest_component(np.unpackbits(bits, count=np.prod(SHAPE)).reshape(SHAPE).astype(np.bool_))
    assert np.count_nonzero(expected) > 1000
    assert dice(our_mask(write_folder(tmp_path, **CASES[case]), case), expected) >= LEAST_DICE[case]


@pytest.mark.skipif(find_spec("nnunetv2") is None, reason="nnunetv2 is not installed")
@pytest.mark.parametrize("case", CASES)
def test_the_mask_is_the_one_that_nnunet_makes(tmp_path: Path, case: str) -> None:
    folder = write_folder(tmp_path, **CASES[case])
    labels = predict_by_nnunet(folder, mirroring=case == "mirrored")
    expected, _ = largest_component(labels == LABELS["Pancreas"])
    assert dice(our_mask(folder, case), expected) >= LEAST_DICE[case]
