"""Judge a model on cases it never saw, along the path that a patient's series takes.

python -m training.evaluate --bundle B (--cases DIR | --synthetic DATA | --slices DATA) --out report/ [--against OTHER]
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import math
import resource
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from models.bundle import Model, read_bundle
from models.ensemble import mirror, unite
from models.nnunet import read_nnunet
from pipeline.analyse import Options, segment
from training.cases import Case, read_cases, slice_cases, synthetic_cases
from training.compare import UNITS, compare_models
from training.datasets import LAYOUTS, find_examples
from training.examples import Example
from training.metrics import TOLERANCE_MM, ZERO_DICE, compare_masks, compare_volumes, spread
from training.pictures import PICTURES
from training.recipe import read_recipe
from training.report import Picture, picture, write_report
from training.sources import SPLIT_SEED, parse_fold, split

_WORST = 6
_UNSTATED = (
    "Not stated. Whoever reports these figures must say whether the model was trained or chosen on any of these cases."
)
_IN_ONE_PLANE = (
    "Each slice is repeated to as many planes as the model looks at together, at an assumed pixel size, and judged in "
    "its middle plane, in two dimensions: volumes are of that plane."
)
_RULES = (
    "Every case went through pipeline.analyse.segment, as a series in the node does. Surface Dice at "
    f"{TOLERANCE_MM:g} mm. Both masks empty: overlaps 1, distances 0; one empty: overlaps 0, distances infinite. Dice "
    f"below {ZERO_DICE:g} counts as zero. Intervals: 95 %, bootstrap over patients with a fixed seed."
)


@dataclass(frozen=True)
class Judged:
    """One case as one row. volume_error_ml: without its sign. peak_mb: of the whole process, in 10^6 bytes.

    Of slices judged in one plane the volumes are of the voxels of that plane.
    """

    name: str
    patient: str
    dice: float
    jaccard: float
    precision: float
    recall: float
    surface_dice: float
    hd95_mm: float
    assd_mm: float
    true_ml: float
    found_ml: float
    volume_error_ml: float
    seconds: float
    peak_mb: float
    flags: str


@dataclass
class Results:
    """All rows of one model, and pictures of its worst cases, worst first."""

    model: Model
    rows: list[Judged] = field(default_factory=list)
    pictures: list[tuple[float, Picture]] = field(default_factory=list)

    def add(self, row: Judged, drawn: Picture) -> None:
        """Take in a row; of the pictures the worst are kept."""
        self.rows.append(row)
        self.pictures = sorted([*self.pictures, (row.dice, drawn)], key=lambda pair: pair[0])[:_WORST]


def judge(case: Case, model: Model, device: str = "cpu") -> tuple[Judged, Picture]:
    """Analyse one case and compare what was found with its truth; raises as `pipeline.analyse.segment` does."""
    options = Options(at=datetime.now(UTC), device=device)
    _forget_peak()
    started = time.perf_counter()
    segmentation, measurement = segment(case.volume, model, options)
    seconds, peak_mb = time.perf_counter() - started, _peak_mb()
    at: Any = slice(None) if case.plane is None else case.plane
    found, truth = segmentation.mask[at], case.truth[at]
    agreement = compare_masks(found, truth, [float(step) for step in case.volume.grid.geometry.spacing][-found.ndim :])
    voxel_ml = case.volume.grid.voxel_volume_mm3 / 1000
    true_ml, found_ml = float(truth.sum()) * voxel_ml, float(found.sum()) * voxel_ml
    row = Judged(
        name=case.name,
        patient=case.patient,
        **asdict(agreement),
        true_ml=true_ml,
        found_ml=found_ml,
        volume_error_ml=abs(found_ml - true_ml),
        seconds=seconds,
        peak_mb=peak_mb,
        flags=" ".join(measurement.flags),
    )
    return row, picture(case, segmentation.mask)


def judge_all(cases: Iterable[Case], results: Iterable[Results], device: str = "cpu") -> None:
    """Judge every case with every model; each case is made or read once."""
    judged = list(results)
    for case in cases:
        for one in judged:
            row, drawn = judge(case, one.model, device)
            one.add(row, drawn)
            card = one.model.card
            print(
                f"{card.name} {card.version}, {row.name}: Dice {row.dice:.3f}, "
                f"true {row.true_ml:.1f} mL, found {row.found_ml:.1f} mL, {row.seconds:.1f} s",
                flush=True,
            )


def summarise(results: Results) -> dict[str, Any]:
    """Every figure over all cases. Raises ValueError where there is no case."""
    rows = results.rows
    patients = [row.patient for row in rows]
    card = results.model.card
    zero = sum(row.dice < ZERO_DICE for row in rows)
    volume = compare_volumes([row.found_ml for row in rows], [row.true_ml for row in rows], patients)
    return {
        "model": {"name": card.name, "version": card.version, "sha256": card.sha256},
        "cases": len(rows),
        "patients": len(set(patients)),
        "zero_dice": {"below": ZERO_DICE, "count": zero, "share": zero / len(rows) if rows else math.nan},
        "surface_dice_tolerance_mm": TOLERANCE_MM,
        "figures": {name: asdict(spread([getattr(row, name) for row in rows], patients)) for name in UNITS},
        "volume": asdict(volume),
    }


def write(out: Path, protocol: str, judged: list[Results]) -> dict[str, Any]:
    """Write `cases.csv`, `summary.json`, `report.html`, of a second model `cases-against.csv`; returns the summary."""
    out.mkdir(parents=True, exist_ok=True)
    first, *others = judged
    summary: dict[str, Any] = {"protocol": protocol, "rules": _RULES, **summarise(first)}
    _write_rows(out / "cases.csv", first.rows)
    for other in others:
        _write_rows(out / "cases-against.csv", other.rows)
        patients = [row.patient for row in first.rows]
        differences = compare_models([asdict(row) for row in first.rows], [asdict(row) for row in other.rows], patients)
        summary["against"] = summarise(other)
        summary["differences"] = [asdict(one) for one in differences]
    (out / "summary.json").write_text(json.dumps(finite(summary), indent=2, allow_nan=False) + "\n", encoding="utf-8")
    tables = [[asdict(row) for row in one.rows] for one in judged]
    write_report(out / "report.html", summary, tables, [drawn for _, drawn in first.pictures])
    return summary


def finite(content: Any) -> Any:
    """The same with null where a number is infinite or none, which JSON cannot say."""
    if isinstance(content, dict):
        return {key: finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def _write_rows(path: Path, rows: list[Judged]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, [column.name for column in fields(Judged)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def _forget_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # proc(5): resets the peak
    except OSError:
        return  # not Linux, or not allowed: the peak is then that of all cases so far


def _peak_mb() -> float:
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) * 1024 / 1e6
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def read_model(folders: Sequence[Path], device: str = "cpu", flips: str | None = None) -> Model:
    """A bundle or an nnU-Net folder, or several as one; with flips other than its own. Raises BadBundle."""
    model = unite([(folder, _read_folder(folder, device)) for folder in folders])
    return model if flips is None else mirror(model, flips)


def _read_folder(folder: Path, device: str) -> Model:
    return read_nnunet(folder, device=device) if (folder / "plans.json").exists() else read_bundle(folder, device)


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """`--bundle` and `--flips`: what `read_model` takes."""
    several = "a bundle or an nnU-Net folder; several, --bundle before each, are judged as one"
    parser.add_argument("--bundle", type=Path, action="append", required=True, help=several)
    axes = ["", "L", "P", "S", "LP", "LS", "PS", "LPS"]
    parser.add_argument(
        "--flips", choices=axes, help="axes to average mirrored images along; the model's own if not given"
    )


Chosen = tuple[Iterator[Case], str, list[Model]]
"""Cases, the protocol if none is stated, and the models as they look at these cases."""


def _held_out_slices(given: argparse.Namespace, models: list[Model]) -> Chosen:
    recipe = read_recipe(given.recipe)
    _, held_out = split(find_examples(given.slices / "nih-slices", PICTURES), recipe, parse_fold(given.fold))
    patients = len({example.patient for example in held_out})
    where = f"split seed {SPLIT_SEED}" + (f", fold {given.fold}" if given.fold else "")
    protocol = (
        f"{len(held_out)} real slices of the {patients} patients that {recipe.name} keeps apart, by patient ({where}); "
        "never learnt from, but they may have chosen the checkpoint. " + _IN_ONE_PLANE
    )
    cases, models = _repeated(held_out, "pancreas", models)
    return cases, protocol, models


def _repeated(pictures: list[Example], structure: str, models: list[Model]) -> tuple[Iterator[Case], list[Model]]:
    """As many planes as the deepest window has, so that none is looked at half empty; fewer are no series."""
    card = models[0].card
    planes = max(model.card.patch[model.card.axis("S")] for model in models)
    cases = slice_cases(pictures, structure, planes, card.spacing_mm[card.axis("S")])
    return cases, [replace(model, card=replace(model.card, minimum_slices=1)) for model in models]


def _examples(given: argparse.Namespace, models: list[Model]) -> Chosen:
    examples = find_examples(given.cases, given.layout)
    if examples[0].layout == PICTURES:
        cases, models = _repeated(examples, given.label, models)
        return cases, f"{_UNSTATED} {_IN_ONE_PLANE}", models
    return read_cases(examples, given.label), _UNSTATED, models


def _choose(given: argparse.Namespace, models: list[Model]) -> Chosen:
    if given.slices:
        return _held_out_slices(given, models)
    if given.synthetic:
        protocol = (
            "Synthetic CT of seeds that neither training nor the choice of a checkpoint uses, deformed from the same "
            "anatomies as the training's: it says little about patients."
        )
        return synthetic_cases(given.synthetic), protocol, models
    return _examples(given, models)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_arguments(parser)
    parser.add_argument("--against", type=Path, action="append", help="another, as it is, judged on the same cases")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--cases", type=Path, help="folder of labelled data; see training.datasets")
    source.add_argument("--synthetic", type=Path, help="folder with anatomies/")
    source.add_argument("--slices", type=Path, help="folder with nih-slices/")
    parser.add_argument("--layout", choices=LAYOUTS, help="of --cases; recognised if not given")
    parser.add_argument("--label", default="1", help="name, value or segment number of the structure in --cases")
    parser.add_argument("--recipe", type=Path, default=Path(__file__).parent / "recipes" / "pancreas-3d.toml")
    parser.add_argument("--fold", help="K/N: of --slices, those of that fold in the place of the recipe's share")
    parser.add_argument("--protocol", help="what the model never saw, and how the cases were chosen")
    parser.add_argument("--limit", type=int, help="only the first so many cases")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(arguments)
    models = [read_model(given.bundle, given.device, given.flips)]
    models += [read_model(given.against, given.device)] if given.against else []
    cases, protocol, models = _choose(given, models)
    judged = [Results(model) for model in models]
    judge_all(itertools.islice(cases, given.limit), judged, given.device)
    summary = write(given.out, given.protocol or protocol, judged)
    dice = summary["figures"]["dice"]
    print(f"{summary['cases']} cases: Dice mean {dice['mean']:.3f}, median {dice['median']:.3f}")
    print(given.out / "report.html")


if __name__ == "__main__":
    main()
