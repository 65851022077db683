"""What a run writes about itself."""

import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from training.batches import Check
from training.journal import Journal
from training.validation import Figures, Seen, validate


def seen(name: str, plane: int | None = None) -> Seen:
    labels = torch.zeros(4, 40, 40, dtype=torch.int64)
    labels[2, 10:20, 10:30] = 1
    return Seen(Check("slices", name, labels.float(), labels, (4, 40, 40), plane), 0.5, labels.roll(3, 1) == 1)


def row(step: int) -> dict[str, float]:
    return {"step": step, "seconds": 1.5, "learning_rate": 1e-3, "loss": 0.7}


def test_log_curves_pictures_and_events(tmp_path: Path) -> None:
    journal = Journal(tmp_path, tensorboard=True)
    for step in (10, 20):
        journal.write(Figures({"slices": 0.25, "synthetic": 0.75}, [seen("a"), seen("b", 1)]), **row(step))
    assert (tmp_path / "log.csv").read_text().splitlines() == [
        "step,seconds,learning_rate,loss,dice_slices,dice_synthetic",
        "10,1.5,0.001,0.7,0.25,0.75",
        "20,1.5,0.001,0.7,0.25,0.75",
    ]
    preview = Image.open(tmp_path / "previews" / "step-0000020.png").convert("RGB")
    colours = {colour for _, colour in preview.getcolors(1 << 24) or []}
    assert any(green > 180 and red < 120 for red, green, _ in colours)  # the truth's outline
    assert any(red > 200 and 90 < green < 190 and blue < 90 for red, green, blue in colours)  # what was found
    assert (tmp_path / "curves.png").stat().st_size > 5000
    assert list((tmp_path / "tensorboard").iterdir())


def test_tensorboard_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match="pip install tensorboard"):
        Journal(tmp_path, tensorboard=True)


def test_validation_is_a_mean_of_groups_and_judges_a_repeated_slice_in_its_plane() -> None:
    labels = torch.zeros(4, 8, 8, dtype=torch.int64)
    labels[:, 2:6, 2:6] = 1
    wrong_elsewhere = labels.float()
    wrong_elsewhere[0] = 1 - wrong_elsewhere[0]
    checks = [
        Check("whole", "a", labels.float(), labels, (4, 8, 8)),
        Check("whole", "b", 1 - labels.float(), labels, (4, 8, 8)),
        Check("plane", "c", wrong_elsewhere, labels, (4, 8, 8), plane=2),
    ]
    figures = validate(Sees(), checks, target=1, keep=1, overlap=0.5)
    assert figures.groups == {"whole": 0.5, "plane": 1.0}
    assert figures.mean == 0.75
    assert [one.check.name for one in figures.kept] == ["a", "c"]
    with pytest.raises(ValueError, match="hold more patients out"):
        validate(Sees(), [], target=1)


class Sees(torch.nn.Module):
    """Finds the target where the image is bright."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.cat([1 - image, image], 1) * self.weight
