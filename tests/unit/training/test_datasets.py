"""Every layout of files and pictures on small made-up data: found, read as analysis reads it, refused with a reason."""

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from pipeline.errors import NotImageData
from tests.phantom import PANCREAS, PhantomOptions, centres, scan, write_series
from training.datasets import LAYOUTS, find_examples, read_example
from training.examples import Options

# The pancreas lies beside the middle of every axis, as in a patient.
OPTIONS = PhantomOptions(shape=(14, 20, 26), spacing_mm=(8.0, 8.0, 8.0), centre=(0.0, 20.0, -16.0))
TRUTH = PANCREAS.contains(centres(OPTIONS))
AFFINE = np.diag([8.0, 8.0, 8.0, 1.0])


def write(path: Path, voxels: np.ndarray[Any, Any], affine: np.ndarray[Any, Any] = AFFINE) -> None:
    """An array of axes slice, row, column, as NIfTI."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels.T, affine), path)


def write_pair(image: Path, mask: Path, values: np.ndarray[Any, Any] = TRUTH) -> None:
    write(image, scan(OPTIONS).astype(np.int16))
    write(mask, values.astype(np.uint8))


def write_json(folder: Path, **content: Any) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "dataset.json").write_text(json.dumps(content))


def organ_and_tumour() -> np.ndarray[Any, Any]:
    values = TRUTH.astype(np.uint8)
    values[10] *= 2
    return values


def decathlon(folder: Path, **changes: Any) -> Path:
    write_pair(
        folder / "imagesTr" / "pancreas_001.nii.gz", folder / "labelsTr" / "pancreas_001.nii.gz", organ_and_tumour()
    )
    write(folder / "imagesTs" / "pancreas_002.nii.gz", scan(OPTIONS).astype(np.int16))
    content: dict[str, Any] = {
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "pancreas", "2": "cancer"},
        "training": [{"image": "./imagesTr/pancreas_001.nii.gz", "label": "./labelsTr/pancreas_001.nii.gz"}],
        "test": ["./imagesTs/pancreas_002.nii.gz"],
    }
    write_json(folder, **{**content, **changes})
    return folder


def test_a_decathlon_folder_with_its_names_for_values(tmp_path: Path) -> None:
    (example,) = find_examples(decathlon(tmp_path))
    assert (example.name, example.patient, example.layout) == ("pancreas_001", "pancreas_001", "decathlon")
    together = read_example(example, {"Pancreas": 1, "cancer": 1})
    assert np.array_equal(together.labels, TRUTH)
    assert np.array_equal(together.volume.hounsfield, scan(OPTIONS).astype(np.int16))
    apart = read_example(example, {"pancreas": 3, "cancer": 5}).labels
    assert set(np.unique(apart)) == {0, 3, 5}
    assert np.array_equal(apart == 5, TRUTH & (np.arange(14) == 10)[:, None, None])
    assert np.array_equal(read_example(example, {"2": 1}).labels, apart == 5)
    with pytest.raises(ValueError, match="pancreas_001: no structure 'liver' among pancreas, cancer"):
        read_example(example, {"liver": 1})


def test_an_nnunet_folder_with_regions(tmp_path: Path) -> None:
    write_pair(tmp_path / "imagesTr" / "a_0000.nii.gz", tmp_path / "labelsTr" / "a.nii.gz", organ_and_tumour())
    labels = {"background": 0, "whole": [1, 2], "tumour": 2}
    write_json(tmp_path, channel_names={"0": "CT"}, labels=labels, numTraining=1, file_ending=".nii.gz")
    (example,) = find_examples(tmp_path)
    assert np.array_equal(read_example(example, {"whole": 1}).labels, TRUTH)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"modality": {"0": "FLAIR", "1": "T1w"}}, r"dataset\.json: images of FLAIR and T1w: only CT in one channel"),
        ({"modality": {"0": "MRI"}}, "only CT"),
        ({"training": [{"image": "imagesTr/x.nii.gz", "label": "labelsTr/x.nii.gz"}]}, "x.nii.gz: no such file"),
        ({"labels": None}, r"dataset\.json: not as expected"),
    ],
)
def test_a_decathlon_folder_that_is_refused(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        find_examples(decathlon(tmp_path, **changes))


def test_an_image_of_four_dimensions_is_refused_when_it_is_read(tmp_path: Path) -> None:
    folder = decathlon(tmp_path)
    nibabel.save(
        nibabel.Nifti1Image(np.zeros((26, 20, 14, 2), np.int16), AFFINE), folder / "imagesTr" / "pancreas_001.nii.gz"
    )
    with pytest.raises(NotImageData, match=r"pancreas_001\.nii\.gz: not one volume"):
        read_example(find_examples(folder)[0], {"pancreas": 1})


def test_pairs_beside_each_other_with_several_structures(tmp_path: Path) -> None:
    write_pair(tmp_path / "p1_orig.nii.gz", tmp_path / "p1_liver.nii.gz")
    write(tmp_path / "p1_pancreas.nii.gz", TRUTH.astype(np.uint8) * 255)
    write_pair(tmp_path / "p1_late_orig.nii.gz", tmp_path / "p1_late_liver.nii.gz")
    early, late = find_examples(tmp_path, options=Options(patient="(?P<patient>p[0-9]+)"))
    assert [(one.name, one.patient, len(one.structures)) for one in (early, late)] == [
        ("p1", "p1", 2),
        ("p1_late", "p1", 1),
    ]
    assert np.array_equal(read_example(early, {"pancreas": 1}).labels, TRUTH)
    with pytest.raises(ValueError, match="p1: no structure '1'"):  # of which file?
        read_example(early, {"1": 1})
    with pytest.raises(ValueError, match="p1_late: no patient"):
        find_examples(tmp_path, options=Options(patient="case(?P<patient>[0-9]+)"))


def test_folders_of_images_and_labels_without_a_list(tmp_path: Path) -> None:
    write_pair(tmp_path / "imagesTr" / "a_0000.nii.gz", tmp_path / "labelsTr" / "a.nii.gz", TRUTH * 2)
    write(tmp_path / "imagesTs" / "b_0000.nii.gz", scan(OPTIONS).astype(np.int16))  # without labels, and not asked for
    (tmp_path / "imagesTr" / "._a_0000.nii.gz").write_bytes(b"what a Mac leaves behind")
    (example,) = find_examples(tmp_path)
    assert np.array_equal(read_example(example, {"2": 1}).labels, TRUTH)
    assert not read_example(example, {"1": 1}).labels.any()
    (tmp_path / "labelsTr" / "a.nii.gz").rename(tmp_path / "labelsTr" / "z.nii.gz")
    with pytest.raises(ValueError, match=r"a_0000\.nii\.gz: 0 files of labels"):
        find_examples(tmp_path)


def test_labels_on_another_grid_are_named(tmp_path: Path) -> None:
    write_pair(tmp_path / "p_orig.nii.gz", tmp_path / "p_liver.nii.gz")
    write(tmp_path / "p_liver.nii.gz", TRUTH.astype(np.uint8), np.diag([8.0, 8.0, 7.0, 1.0]))
    with pytest.raises(ValueError, match=r"p_liver\.nii\.gz: the labels do not lie on the grid"):
        read_example(find_examples(tmp_path)[0], {"liver": 1})


def pancreas_ct(folder: Path, label: np.ndarray[Any, Any], number: int = 1) -> Path:
    series = folder / "Pancreas-CT" / f"PANCREAS_{number:04d}" / "11-24-2015-18957" / "Pancreas-99667"
    series.mkdir(parents=True)
    write_series(series, OPTIONS)
    nonsense = np.diag([-1.0, 1.0, 3.0, 1.0])
    write(folder / "labels" / f"label{number:04d}.nii.gz", label.astype(np.uint8), nonsense)
    return folder


@pytest.mark.parametrize("order", [np.s_[:], np.s_[:, ::-1], np.s_[::-1], np.s_[::-1, ::-1]])
def test_pancreas_ct_labels_are_laid_on_the_pancreas_in_whatever_order_they_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, order: Any
) -> None:
    (example,) = find_examples(pancreas_ct(tmp_path, TRUTH[order]))
    assert (example.layout, example.patient, len(example.images)) == ("nih-pancreas-ct", "PANCREAS_0001", 14)
    read = read_example(example, {"pancreas": 1})
    points = read.volume.grid.to_reference(np.argwhere(read.labels))
    assert len(points) == TRUTH.sum()
    assert PANCREAS.contains(points).all()
    assert bool(caplog.text) == (order != np.s_[:])


def test_pancreas_ct_labels_that_lie_nowhere_or_do_not_fit_are_refused(tmp_path: Path) -> None:
    corner = np.zeros_like(TRUTH)
    corner[:4, :4, :4] = True
    for name, label, reason in (("air", corner, "in no order"), ("short", TRUTH[1:], "labels of .13, 20, 26. voxels")):
        (example,) = find_examples(pancreas_ct(tmp_path / name, label))
        with pytest.raises(ValueError, match=rf"label0001\.nii\.gz: {reason}"):
            read_example(example, {"pancreas": 1})


def test_pancreas_ct_cases_that_are_one_patient(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in (2, 25):
        pancreas_ct(tmp_path, TRUTH, number)
    write(tmp_path / "labels" / "label0070.nii.gz", TRUTH.astype(np.uint8))
    assert [example.patient for example in find_examples(tmp_path)] == ["PANCREAS_0002", "PANCREAS_0002"]
    assert "PANCREAS_0070: left out: no DICOM files" in caplog.text


def draw(path: Path, grey: np.ndarray[Any, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(grey.astype(np.uint8)).save(path)


def picture() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    grey, mask = np.full((48, 64), 51), np.zeros((48, 64), bool)
    mask[32:40, 8:24] = True
    grey[mask] = 204
    return grey, mask


def test_pictures_that_stand_on_their_head_in_grey_levels(tmp_path: Path) -> None:
    grey, mask = picture()
    draw(tmp_path / "images" / "PANCREAS_0070-1106.png", grey)
    draw(tmp_path / "masks" / "PANCREAS_0070-1106.jpg", mask * 255)
    (example,) = find_examples(tmp_path, options=Options(grey_hu=(-160, 240), pixel_mm=0.5))
    assert (example.layout, example.patient) == ("pictures", "PANCREAS_0002")  # of which case 70 is a crop
    read = read_example(example, {"pancreas": 1})
    assert np.array_equal(read.labels[0], mask[::-1])
    assert np.allclose(read.volume.hounsfield[0], (grey[::-1] / 255) * 400 - 160, atol=1e-3)
    assert read.volume.grid.geometry.spacing[1:] == (0.5, 0.5)


def test_pictures_with_masks_beside_them(tmp_path: Path) -> None:
    grey, mask = picture()
    draw(tmp_path / "p7_slice012.png", grey)
    draw(tmp_path / "p7_slice012_mask.png", mask)  # 0 and 1
    (example,) = find_examples(tmp_path, options=Options(structure="liver", flipped=False))
    assert example.patient == "p7"
    assert np.array_equal(read_example(example, {"liver": 1}).labels[0], mask)


def test_pictures_that_are_refused(tmp_path: Path) -> None:
    grey, mask = picture()
    for name, other, reason in (
        ("classes", mask * 5, "grey up to 5"),
        ("smaller", mask[1:] * 255, r"mask of \(47, 64\) pixels"),
    ):
        draw(tmp_path / name / "p_1.png", grey)
        draw(tmp_path / name / "p_1_mask.png", other)
        with pytest.raises(ValueError, match=rf"p_1_mask\.png: .*{reason}"):
            read_example(find_examples(tmp_path / name)[0], {"pancreas": 1})
    deep = tmp_path / "deep" / "images" / "p_1.png"
    draw(deep.parents[1] / "masks" / "p_1.png", mask * 255)
    deep.parent.mkdir()
    Image.fromarray(grey.astype(np.uint16)).save(deep)
    with pytest.raises(ValueError, match=r"p_1\.png: not a picture of 8 bits"):
        read_example(find_examples(deep.parents[1])[0], {"pancreas": 1})
    deep.rename(deep.with_name("p.png"))
    with pytest.raises(ValueError, match=r"p\.png: 0 masks"):
        find_examples(deep.parents[1])
    (deep.parents[1] / "masks" / "p_1.png").rename(deep.parents[1] / "masks" / "p.png")
    with pytest.raises(ValueError, match="p: no patient in this name"):
        find_examples(deep.parents[1])


def test_a_layout_can_be_named_and_an_empty_folder_is_none(tmp_path: Path) -> None:
    assert find_examples(decathlon(tmp_path / "msd"), "nifti-pairs")[0].layout == "nifti-pairs"
    (tmp_path / "empty").mkdir()
    for layout in LAYOUTS:
        if layout != "decathlon":
            with pytest.raises(ValueError, match=f"empty: no labelled example in the layout {layout}"):
                find_examples(tmp_path / "empty", layout)
    with pytest.raises(ValueError, match="empty: neither decathlon nor"):
        find_examples(tmp_path / "empty")
    with pytest.raises(ValueError, match="no layout 'msd'"):
        find_examples(tmp_path, "msd")
