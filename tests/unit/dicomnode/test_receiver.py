"""What is stored of a C-STORE, and which status answers it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import DecodeRunner
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless

from dicomnode.archive import RESULTS, Archive, archive_path
from dicomnode.arrivals import Patient
from dicomnode.database import Database, open_database
from dicomnode.receiver import CANNOT_UNDERSTAND, COERCION, DATA_SET_MISMATCH, DUPLICATE_DIFFERS, Receiver, Unacceptable
from dicomnode.store import history, queue, receiving, watch
from dicomnode.tables import instances
from tests.phantom import PhantomOptions, write_series

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Place:
    """A receiver with its archive and database."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "archive"
        self.archive = Archive(self.root, 0)
        self.database: Database = open_database(f"sqlite:///{folder}/node.db")
        self.receiver = Receiver(self.database, self.archive, lambda: NOW)

    def files(self) -> list[Path]:
        return [path for path in self.root.rglob("*") if path.is_file()]

    def refusals(self) -> list[watch.Refusal]:
        with self.database.read() as connection:
            return watch.list_refusals(connection, 10)

    def rows(self) -> list[tuple[str, str]]:
        with self.database.read() as connection:
            statement = instances.select().with_only_columns(instances.c.sop_instance_uid, instances.c.path)
            return [tuple(row) for row in connection.execute(statement)]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.database.close()


@pytest.fixture
def instance(tmp_path: Path) -> Dataset:
    return pydicom.dcmread(write_series(tmp_path, PhantomOptions(shape=(1, 8, 8)))[0])


def encode(instance: Dataset) -> bytes:
    buffer = BytesIO()
    instance.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def test_case_01_the_bytes_are_on_disk_and_indexed(place: Place, instance: Dataset) -> None:
    blob = encode(instance)
    place.receiver.store(blob, "SENDER")
    assert [path.read_bytes() for path in place.files()] == [blob]
    ((uid, path),) = place.rows()
    assert (uid, place.archive.path(path)) == (instance.SOPInstanceUID, place.files()[0])


def test_case_01_repair_indexes_what_a_crash_left_between_rename_and_commit(place: Place, instance: Dataset) -> None:
    place.receiver.store(encode(instance), "SENDER")
    before = place.rows()
    with place.database.begin() as connection:
        connection.execute(instances.delete())
    (place.root / "incoming" / "half.part").write_bytes(b"half")
    place.receiver.repair()
    assert place.rows() == before
    assert len(place.files()) == 1


def test_repair_leaves_alone_what_is_not_of_this_node(place: Place, instance: Dataset) -> None:
    folder = place.root / "received" / "aa" / "bb"
    folder.mkdir(parents=True)
    (folder / "text.dcm").write_text("hello")
    (folder / "moved.dcm").write_bytes(encode(instance))
    place.receiver.repair()
    assert place.rows() == []
    assert len(place.files()) == 2


def test_repair_removes_what_was_never_acknowledged_and_came_again_with_other_bytes(
    place: Place, instance: Dataset
) -> None:
    place.receiver.store(encode(instance), "SENDER")
    (never_acknowledged,) = place.files()
    with place.database.begin() as connection:
        connection.execute(instances.delete())
    instance.PatientID = "ANOTHER"
    place.receiver.store(encode(instance), "SENDER")
    place.receiver.repair()
    assert not never_acknowledged.exists()
    assert [place.archive.path(path) for _, path in place.rows()] == place.files()


def test_repair_removes_results_that_no_job_names_once_no_worker_can_be_at_them(place: Place) -> None:
    fresh, old = (archive_path(RESULTS, "1.2", uid, "d" * 64) for uid in ("1.3", "1.4"))
    for path in (fresh, old):
        place.archive.keep(path, b"result")
    now, two_days = NOW.timestamp(), 2 * 86400
    os.utime(place.archive.path(fresh), (now, now))
    os.utime(place.archive.path(old), (now - two_days, now - two_days))
    place.receiver.repair()
    assert place.files() == [place.archive.path(fresh)]


def test_repair_leaves_alone_a_file_whose_meta_information_is_damaged(place: Place, instance: Dataset) -> None:
    place.receiver.store(encode(instance), "SENDER")
    (path,) = place.files()
    path.write_bytes(path.read_bytes().replace(b"\x02\0\x02\0UI", b"\x02\0\x99\0UI"))
    with place.database.begin() as connection:
        connection.execute(instances.delete())
    place.receiver.repair()
    assert place.rows() == []


def test_case_05_an_exact_duplicate_is_stored_once(place: Place, instance: Dataset) -> None:
    for calling_ae in ("SENDER", "SENDER", "OTHER"):
        instance.file_meta.SourceApplicationEntityTitle = calling_ae
        place.receiver.store(encode(instance), calling_ae)
    assert len(place.rows()) == len(place.files()) == 1


def test_case_06_of_different_bytes_under_one_uid_the_first_are_kept(place: Place, instance: Dataset) -> None:
    first = encode(instance)
    place.receiver.store(first, "SENDER")
    instance.PatientID = "ANOTHER"
    with pytest.raises(Unacceptable) as refused:
        place.receiver.store(encode(instance), "SENDER")
    assert refused.value.status == DUPLICATE_DIFFERS
    assert [path.read_bytes() for path in place.files()] == [first]


def reencoded(instance: Dataset, syntax: str) -> bytes:
    """The instance as another sender, or another association of the same, may encode it."""
    buffer = BytesIO()
    instance.file_meta.TransferSyntaxUID = syntax
    instance.save_as(buffer, enforce_file_format=True, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=True)
    return buffer.getvalue()


def nested(instance: Dataset) -> Dataset:
    """With what the two encodings write in their own ways: sequences, private elements, an odd length."""
    item = Dataset()
    item.CodeValue = "XYZ"
    item.PurposeOfReferenceCodeSequence = [Dataset()]
    instance.ProcedureCodeSequence = [item, Dataset()]
    instance.private_block(0x0099, "SOMEBODY", create=True).add_new(1, "LO", "odd")
    return instance


def test_case_05_a_duplicate_in_another_plain_syntax_is_no_conflict(place: Place, instance: Dataset) -> None:
    first = reencoded(nested(instance), ExplicitVRLittleEndian)
    place.receiver.store(first, "SENDER")
    again = reencoded(instance, ImplicitVRLittleEndian)
    assert place.receiver.store(again, "SENDER")[1] is False
    assert [path.read_bytes() for path in place.files()] == [first]
    assert place.refusals() == []
    instance.ProcedureCodeSequence[0].CodeValue = "XYY"
    with pytest.raises(Unacceptable):
        place.receiver.store(reencoded(instance, ImplicitVRLittleEndian), "SENDER")


def test_case_05_a_duplicate_brings_back_a_removed_file_and_makes_no_job(place: Place, instance: Dataset) -> None:
    blob = encode(instance)
    place.receiver.store(blob, "SENDER")
    with place.database.begin() as connection:
        (arrival,) = receiving.arrivals(connection)
        queue.add_job(connection, arrival, "", NOW)
        connection.execute(instances.update().values(removed_at=NOW))
    place.files()[0].unlink()
    place.receiver.store(blob, "SENDER")
    assert [path.read_bytes() for path in place.files()] == [blob]
    with place.database.read() as connection:
        assert connection.scalar(instances.select().with_only_columns(instances.c.removed_at)) is None
        assert receiving.arrivals(connection) == []


def test_case_06_a_conflict_is_recorded_and_stands_on_the_job(place: Place, instance: Dataset) -> None:
    place.receiver.store(encode(instance), "SENDER")
    uid, instance.PatientID = str(instance.SOPInstanceUID), "ANOTHER"
    for _ in range(3):  # a sender tries again and again
        with pytest.raises(Unacceptable):
            place.receiver.store(encode(instance), "OTHER")
    with place.database.begin() as connection:
        (arrival,) = receiving.arrivals(connection)
        queue.add_job(connection, arrival, "", NOW)
    with pytest.raises(Unacceptable):
        place.receiver.store(encode(instance), "THIRD")
    assert [(one.kind, one.calling_ae, one.sop_instance_uid) for one in place.refusals()] == [
        ("conflict", "THIRD", uid),
        ("conflict", "OTHER", uid),
    ]
    with place.database.read() as connection:
        notes = [entry.note for entry in queue.timeline(connection, 1) if entry.event == "conflict"]
    assert notes[0] == "other content came under the UIDs of 1 instances; the first is kept of each"
    assert notes[1].startswith("THIRD sent other content")


def test_case_06_a_site_may_have_senders_warned_only(place: Place, instance: Dataset) -> None:
    receiver = Receiver(place.database, place.archive, lambda: NOW, conflict_status=COERCION)
    receiver.store(encode(instance), "SENDER")
    instance.PatientID = "ANOTHER"
    with pytest.raises(Unacceptable) as refused:
        receiver.store(encode(instance), "SENDER")
    assert refused.value.status == 0xB000
    assert len(place.files()) == 1


def test_case_06_of_what_is_compressed_other_bytes_are_other_content(place: Place, instance: Dataset) -> None:
    place.receiver.store(encode(instance), "SENDER")
    instance.compress(RLELossless, generate_instance_uid=False)
    with pytest.raises(Unacceptable):
        place.receiver.store(encode(instance), "SENDER")
    assert len(place.files()) == len(place.refusals()) == 1


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({}, None),
        ({"ImagesInAcquisition": 200}, 200),
        ({"ImagesInAcquisition": 200, "NumberOfSeriesRelatedInstances": 210}, 210),
        ({"ImagesInAcquisition": -1}, None),
        ({"ImagesInAcquisition": 0, "InConcatenationTotalNumber": 3}, 3),
        ({"ImagesInAcquisition": 10_000_000}, None),
    ],
)
def test_case_11_the_headers_say_how_many_there_are(
    place: Place, instance: Dataset, attributes: dict[str, int], expected: int | None
) -> None:
    for keyword, value in attributes.items():
        setattr(instance, keyword, value)
    place.receiver.store(encode(instance), "SENDER")
    with place.database.read() as connection:
        (arrival,) = receiving.arrivals(connection)
    assert arrival.expected_instances == expected
    assert arrival.expected_by == ("the headers" if expected else "")


@pytest.mark.parametrize("keyword", ["SOPClassUID", "SOPInstanceUID"])
def test_case_03_a_data_set_that_differs_from_the_command(place: Place, instance: Dataset, keyword: str) -> None:
    instance[keyword].value = "1.2.3.4"
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, instance)  # the file meta information, which stands for the command, stays
    with pytest.raises(Unacceptable) as refused:
        place.receiver.store(buffer.getvalue(), "SENDER")
    assert refused.value.status == DATA_SET_MISMATCH == 0xA900
    assert place.rows() == place.files() == []


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID"])
@pytest.mark.parametrize("value", [None, "", "1." * 40 + "1"])
def test_case_04_a_missing_or_oversized_uid(place: Place, instance: Dataset, keyword: str, value: str | None) -> None:
    if value is None:
        del instance[keyword]
    else:
        instance[keyword] = pydicom.DataElement(instance[keyword].tag, "UI", value, validation_mode=0)
    with pytest.raises(Unacceptable) as refused:
        place.receiver.store(encode(instance), "SENDER")
    assert refused.value.status == DATA_SET_MISMATCH
    assert place.files() == []


@pytest.mark.parametrize("value", ["../../x", "a/b", "x" * 1000])
def test_case_04_a_hostile_patient_id_is_kept_as_text_only(place: Place, instance: Dataset, value: str) -> None:
    instance["PatientID"] = pydicom.DataElement(0x00100020, "LO", value, validation_mode=0)
    place.receiver.store(encode(instance), "SENDER")
    assert len(place.files()) == 1
    assert place.files()[0].is_relative_to(place.root / "received")


def test_case_03_what_cannot_be_decoded(place: Place, instance: Dataset) -> None:
    blob = encode(instance)
    start = 144 + int.from_bytes(blob[140:144], "little")
    for broken in (blob[:start] + b"\xff" * 200, blob[: start + 3]):
        with pytest.raises(Unacceptable) as refused:
            place.receiver.store(broken, "SENDER")
        assert refused.value.status in (CANNOT_UNDERSTAND, DATA_SET_MISMATCH)
    with pytest.raises(Unacceptable) as refused:
        place.receiver.store(b"not DICOM at all" * 20, "SENDER")
    assert refused.value.status == CANNOT_UNDERSTAND == 0xC000
    assert place.rows() == place.files() == []


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless, JPEGLSLossless])
def test_pixel_data_is_never_decoded(
    place: Place, instance: Dataset, syntax: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(DecodeRunner, "__init__", fail)  # what every decoder of pydicom begins with
    instance.file_meta.TransferSyntaxUID = syntax
    instance.PixelData = encapsulate([b"no stream of any decoder"]) if syntax.is_compressed else b"\0" * 128
    instance["PixelData"].is_undefined_length = syntax.is_compressed
    with pytest.raises(AssertionError):
        instance.pixel_array  # noqa: B018 - the trap works
    place.receiver.store(encode(instance), "SENDER")
    assert len(place.rows()) == 1


def test_case_22_a_missing_patient_id_is_no_patient(place: Place, instance: Dataset) -> None:
    del instance.PatientID
    place.receiver.store(encode(instance), "SENDER")
    with place.database.read() as connection:
        assert history.points(connection, Patient("", "")) == []
        assert len(receiving.arrivals(connection)) == 1
