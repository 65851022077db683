"""Every loss falls as the answer becomes right; of a partial one only the target counts."""

import pytest
import torch

from training.losses import LOSSES, make_loss, target_against_rest
from training.recipe import Named


def labels() -> torch.Tensor:
    mask = torch.zeros(1, 1, 4, 8, 8, dtype=torch.int64)
    mask[0, 0, 1:3, 2:6, 2:6] = 1
    return mask


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_least_where_all_is_right(name: str) -> None:
    truth = labels()
    right = torch.cat([1 - truth, truth], 1) * 20.0 - 10
    loss = make_loss(Named(name=name))
    figures = [float(loss(right * share, truth)) for share in (1.0, 0.05, -1.0)]
    assert figures[0] < 0.01
    assert figures == sorted(figures)


def test_of_a_partial_image_any_other_label_is_right() -> None:
    truth = labels()
    logits = torch.cat([1 - truth, truth, torch.zeros_like(truth)], 1) * 20.0 - 10
    other = logits[:, [2, 1, 0]]  # calls the rest by another name
    loss = make_loss(Named(name="DiceCE"))
    for scores in (logits, other):
        assert float(loss(target_against_rest(scores, 1), truth)) < 0.01


def test_an_unknown_loss_and_a_wrong_argument_are_named() -> None:
    with pytest.raises(ValueError, match="'Huber'; known are Dice"):
        make_loss(Named(name="Huber"))
    with pytest.raises(ValueError, match=r"loss Tversky: .*gamma"):
        make_loss(Named(name="Tversky", gamma=1))
