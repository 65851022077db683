"""Synthetic CT from a small made-up label map."""

import pytest
import torch

from training.synthetic import Anatomy, make_anatomy, synthesise

NAMES = "1 pancreas 1.0\n2 liver 1.0\n3 lung_lower_lobe_left 1.0"
SHAPE = (16, 24, 24)


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    codes = torch.zeros(60, 80, 90, dtype=torch.uint8)
    codes[:, 10:70, 10:80] = 2
    codes[20:40, 25:55, 30:60] = 1
    codes[50:, 30:50, 30:50] = 3
    return make_anatomy(codes, NAMES)


def test_the_same_seed_makes_the_same_sample(anatomy: Anatomy) -> None:
    first, again, other = (synthesise(anatomy, SHAPE, seed) for seed in (7, 7, 8))
    assert torch.equal(first.hounsfield, again.hounsfield)
    assert torch.equal(first.labels, again.labels)
    assert not torch.equal(first.labels, other.labels)


def test_labels_lie_where_their_tissue_is(anatomy: Anatomy) -> None:
    for seed in range(4):
        sample = synthesise(anatomy, SHAPE, seed, elsewhere=0)
        assert sample.hounsfield.shape == sample.labels.shape == SHAPE
        for label in (1, 2):
            inside = sample.hounsfield[sample.labels == label]
            assert len(inside) > 50
            assert -10 < float(inside.median()) < 170


def test_samples_of_elsewhere_hold_less_of_the_pancreas(anatomy: Anatomy) -> None:
    near, far = (
        sum(int((synthesise(anatomy, SHAPE, n, elsewhere=share).labels == 1).sum()) for n in range(4))
        for share in (0, 1)
    )
    assert far < near / 2


def test_there_is_fat_around_the_organs_and_air_beyond(anatomy: Anatomy) -> None:
    codes = anatomy.codes
    middle = codes[10, codes.shape[1] // 2]  # a row through the trunk, from right to left
    assert int(middle[0]) == int(middle[-1]) == 119
    organs = (middle == 2).nonzero()[:, 0]
    assert int(middle[organs[0] - 1]) == int(middle[organs[-1] + 1]) == 118
    assert int((middle == 118).sum()) > 8


def test_without_noise_free_texture_two_phases_differ(anatomy: Anatomy) -> None:
    medians = {
        round(float(s.hounsfield[s.labels == 2].median())) for s in (synthesise(anatomy, SHAPE, n) for n in range(6))
    }
    assert max(medians) - min(medians) > 20
