"""Picture pairs: orientation and scale."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from training.slices import pseudo_volume, read_slices


def write_pair(folder: Path, name: str, rows: slice) -> None:
    image, mask = np.full((512, 512), 60, np.uint8), np.zeros((512, 512), np.uint8)
    image[rows, 100:300] = 200
    mask[rows, 100:300] = 255
    for kind, array in (("images", image), ("masks", mask)):
        (folder / kind).mkdir(exist_ok=True)
        Image.fromarray(array).save(folder / kind / f"{name}.jpg", quality=95)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for patient in range(1, 7):
        for number in (1001, 1002):
            write_pair(tmp_path, f"PANCREAS_{patient:04d}-{number}", slice(350, 450))
    return tmp_path


def test_rows_grow_towards_posterior_though_stored_upside_down(folder: Path) -> None:
    item = read_slices(folder)[0]
    rows = (item.mask > 0.5).nonzero()[:, 0].float()
    assert float(rows.mean()) < item.mask.shape[0] / 2  # stored in the lower half
    assert abs(float(item.hounsfield[item.mask > 0.99].mean()) - 200) < 5


def test_a_pseudo_volume_repeats_one_slice_or_lets_it_drift(folder: Path) -> None:
    item = read_slices(folder)[0]
    volumes = [pseudo_volume(item, (4, 64, 64), seed) for seed in range(12)]
    assert all(hounsfield.shape == mask.shape == (4, 64, 64) for hounsfield, mask in volumes)
    still = [torch.equal(mask[0], mask[3]) for _, mask in volumes]
    assert 0 < sum(still) < 12
    assert all(int(mask.sum()) > 100 for _, mask in volumes)
    assert all(float(hounsfield.min()) >= 0 and float(hounsfield.max()) <= 255 for hounsfield, _ in volumes)


def test_a_missing_mask_is_named(folder: Path) -> None:
    (folder / "masks" / "PANCREAS_0003-1001.jpg").unlink()
    with pytest.raises(ValueError, match="PANCREAS_0003-1001"):
        read_slices(folder)


def test_a_pseudo_volume_keeps_mask_and_picture_together(folder: Path) -> None:
    item = read_slices(folder)[0]  # bright where the mask is, and nowhere else
    for seed in range(20):
        hounsfield, mask = pseudo_volume(item, (1, 80, 96), seed)
        inside, outside = (float(hounsfield[mask == value].median()) for value in (1, 0))
        assert inside > outside + 40
        assert ((hounsfield > (inside + outside) / 2) == (mask == 1)).float().mean() > 0.97
