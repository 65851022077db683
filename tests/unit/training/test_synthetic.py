"""Synthetic CT from a small made-up label map."""

import pytest
import torch

from training.anatomy import FAR, Anatomy, make_anatomy
from training.synthetic import Sample, synthesise
from training.tissues import INDEX

NAMES = "1 pancreas 1.0\n2 liver 1.0\n3 lung_lower_lobe_left 1.0\n4 stomach 1.0\n5 vertebrae_L1 1.0"
SHAPE = (16, 32, 32)


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    codes = torch.zeros(60, 80, 90, dtype=torch.uint8)
    codes[:, 10:70, 10:80] = 2
    codes[20:40, 25:55, 30:60] = 1
    codes[50:, 30:50, 30:50] = 3
    codes[:48, 12:25, 30:75] = 4
    codes[:, 56:70, 40:50] = 5
    return make_anatomy(codes, NAMES)


@pytest.fixture(scope="module")
def samples(anatomy: Anatomy) -> list[Sample]:
    return [synthesise(anatomy, SHAPE, seed, elsewhere=0) for seed in range(12)]


def test_the_same_seed_makes_the_same_sample(anatomy: Anatomy) -> None:
    first, again, other = (synthesise(anatomy, SHAPE, seed) for seed in (7, 7, 8))
    assert torch.equal(first.hounsfield, again.hounsfield)
    assert torch.equal(first.labels, again.labels)
    assert not torch.equal(first.labels, other.labels)


def test_labels_lie_where_their_tissue_is(samples: list[Sample]) -> None:
    for sample in samples:
        assert sample.hounsfield.shape == sample.labels.shape == SHAPE
        assert sample.hounsfield.dtype == torch.float32
        assert sample.labels.dtype == torch.int64
        for label, most in ((1, 150), (2, 170)):
            inside = sample.hounsfield[sample.labels == label]
            assert len(inside) > 50
            assert -20 < float(inside.median()) < most


def test_samples_of_elsewhere_hold_less_of_the_pancreas(anatomy: Anatomy, samples: list[Sample]) -> None:
    far = sum(int((synthesise(anatomy, SHAPE, n, elsewhere=1).labels == 1).sum()) for n in range(8))
    assert far < sum(int((sample.labels == 1).sum()) for sample in samples[:8]) * 0.75


def test_there_are_walls_fat_and_air_around_the_organs(anatomy: Anatomy) -> None:
    several = [synthesise(anatomy, (4, 96, 96), seed, elsewhere=0) for seed in range(4)]
    hounsfield, labels = (torch.stack([getattr(one, of) for one in several]) for of in ("hounsfield", "labels"))
    assert float((hounsfield < -900).float().mean()) > 0.1
    assert float(((hounsfield > -140) & (hounsfield < -70)).float().mean()) > 0.02
    assert float(((hounsfield > 20) & (labels == 0)).float().mean()) > 0.02


def test_phases_differ(samples: list[Sample]) -> None:
    medians = [float(sample.hounsfield[sample.labels == 2].median()) for sample in samples]
    assert max(medians) - min(medians) > 30


def test_the_pancreas_is_thick_or_thin(samples: list[Sample]) -> None:
    volumes = [int((sample.labels == 1).sum()) for sample in samples]
    assert max(volumes) > 1.5 * min(volumes)


def test_what_hollow_organs_hold_differs(samples: list[Sample]) -> None:
    held = torch.cat([sample.hounsfield[sample.labels == 5] for sample in samples])
    assert float((held < -600).float().mean()) > 0.02
    assert float(((held > -20) & (held < 80)).float().mean()) > 0.2


@pytest.mark.parametrize("spacing_mm", [(3.0, 2.0, 2.0), (2.5, 1.5, 1.5), (1.0, 0.8, 0.8)])
def test_any_grid_may_be_asked_for(anatomy: Anatomy, spacing_mm: tuple[float, float, float]) -> None:
    whole = [round(90 / step) for step in spacing_mm]
    volumes = []
    for seed in range(3):
        sample = synthesise(anatomy, (whole[0], whole[1], whole[2]), seed, spacing_mm=spacing_mm, elsewhere=0)
        assert bool(sample.hounsfield.isfinite().all())
        volumes.append(float((sample.labels == 1).sum()) * spacing_mm[0] * spacing_mm[1] * spacing_mm[2] / 1000)
    assert all(10 < volume < 200 for volume in volumes)  # mL; the map's is 61


def test_one_slice_cuts_the_pancreas(anatomy: Anatomy) -> None:
    found = [synthesise(anatomy, (1, 64, 64), seed, elsewhere=0).labels == 1 for seed in range(8)]
    assert sum(bool(mask.any()) for mask in found) >= 7


def test_hollow_organs_are_borrowed_from_another_body() -> None:
    codes = torch.zeros(60, 80, 90, dtype=torch.uint8)
    codes[20:40, 25:55, 30:60] = 1
    codes[:, 5:9, 5:85] = codes[:, 70:75, 5:85] = 5  # bone before and behind, and fat between
    without = make_anatomy(codes, NAMES)
    codes[:, 10:40, 10:80] = 4
    other = make_anatomy(codes, NAMES)
    lent, own = (
        sum(int((synthesise(without, SHAPE, seed, elsewhere=0, bowel_of=of).labels == 5).sum()) for seed in range(6))
        for of in (other, None)
    )
    assert lent > 100
    assert own == 0


def test_what_lies_close_is_grown_into_the_gaps_of_the_map(anatomy: Anatomy) -> None:
    fat = anatomy.tissue == INDEX["fat"]
    assert bool((anatomy.beside[fat] > 0).any())
    assert not bool((anatomy.beside[~fat] > 0).any())
    liver_beside = anatomy.beside[fat & (anatomy.beside % FAR == INDEX["liver"])] // FAR
    assert sorted(set(liver_beside.tolist())) == [1, 2, 3, 4]
