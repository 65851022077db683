"""The manifest: written, read back, and what it notices."""

import json
import os
from pathlib import Path

import pytest

from training.examples import Example, Structure
from training.manifest import make_manifest, read_manifest, verify_manifest, write_manifest


def example(folder: Path, name: str, patient: str) -> Example:
    image, mask = folder / "images" / f"{name}.png", folder / "masks" / f"{name}.png"
    for path in (image, mask):
        path.parent.mkdir(exist_ok=True)
        path.write_text(path.as_posix())
    structures = (Structure("pancreas", mask), Structure("tumour", mask, (2,)))
    return Example(name, patient, "pictures", (image,), structures, mask)


def test_a_manifest_comes_back_and_holds_each_file_once(tmp_path: Path) -> None:
    parts = {"training": [example(tmp_path, "a", "p1"), example(tmp_path, "b", "p1")]}
    parts["validation"] = [example(tmp_path, "ç", "p2")]
    records = make_manifest(tmp_path, parts)
    write_manifest(tmp_path / "manifest.json", records)
    assert read_manifest(tmp_path / "manifest.json") == records
    assert [record.path for record in records[:2]] == ["images/a.png", "masks/a.png"]
    assert [(record.example, record.patient, record.split) for record in records[4:]] == [("ç", "p2", "validation")] * 2
    assert len(records) == 6
    verify_manifest(tmp_path, records)
    verify_manifest(tmp_path, records, full=True)


def test_a_changed_file_is_named(tmp_path: Path) -> None:
    records = make_manifest(tmp_path, {"training": [example(tmp_path, "a", "p1")]})
    path = tmp_path / "masks" / "a.png"
    before = path.stat()
    path.write_bytes(path.read_bytes()[::-1])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    verify_manifest(tmp_path, records)  # cheap, and blind for what hides
    with pytest.raises(ValueError, match=r"masks.a\.png: changed"):
        verify_manifest(tmp_path, records, full=True)
    os.utime(path)
    with pytest.raises(ValueError, match=r"masks.a\.png: changed"):
        verify_manifest(tmp_path, records)
    path.unlink()
    with pytest.raises(ValueError, match=r"masks.a\.png: .*not there"):
        verify_manifest(tmp_path, records)


def test_a_copied_data_set_passes_by_its_hashes(tmp_path: Path) -> None:
    records = make_manifest(tmp_path, {"training": [example(tmp_path, "a", "p1")]})
    for record in records:
        os.utime(tmp_path / record.path, ns=(1, 1))
    verify_manifest(tmp_path, records, full=True)


def test_a_patient_in_two_parts_is_refused_when_written_and_when_read(tmp_path: Path) -> None:
    parts = {"training": [example(tmp_path, "a", "p1")], "validation": [example(tmp_path, "b", "p1")]}
    with pytest.raises(ValueError, match=r"patient p1 is in two parts .*images/a\.png.*images/b\.png"):
        make_manifest(tmp_path, parts)
    parts["validation"] = [example(tmp_path, "b", "p2")]
    write_manifest(tmp_path / "m.json", make_manifest(tmp_path, parts))
    (tmp_path / "m.json").write_text((tmp_path / "m.json").read_text().replace('"p2"', '"p1"'))
    with pytest.raises(ValueError, match="patient p1 is in two parts"):
        read_manifest(tmp_path / "m.json")


def test_what_is_no_manifest_is_named(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    write_manifest(path, make_manifest(tmp_path, {"training": [example(tmp_path, "a", "p1")]}))
    content = json.loads(path.read_text())
    content["files"][0]["size"] = "17"
    for text in ("[]", "{", '{"files": [{"path": "a"}]}', json.dumps(content)):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"m\.json: not a manifest"):
            read_manifest(path)


def test_a_file_outside_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(ValueError, match=r"images.a\.png: not in"):
        make_manifest(tmp_path / "data", {"training": [example(tmp_path, "a", "p1")]})
