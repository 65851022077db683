"""The STOW-RS endpoint: stored before it is answered, bounded, and told of each instance what became of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pydicom
import pytest
from pydicom import Dataset
from pydicom.uid import JPEGBaseline8Bit, MRImageStorage
from starlette.testclient import TestClient

from dicomnode import archive
from dicomnode.archive import RECEIVED, Archive, Full, data_set_digest
from dicomnode.courier import Courier, Route
from dicomnode.dicomweb import Line
from dicomnode.store import receiving, watch
from dicomnode.tables import instances
from dicomnode.web.accounts import Role, token_line
from dicomnode.web.stow import Desk
from tests.audit_messages import kind, read_messages
from tests.clinic import Clinic
from tests.outboxes import Outbox
from tests.phantom import PhantomOptions, write_series

BOUNDARY = "a boundary"
KIND = f'multipart/related; type="application/dicom"; boundary="{BOUNDARY}"'


def body(*files: bytes, ends: bool = True) -> bytes:
    head = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    return b"".join(head + file + b"\r\n" for file in files) + (f"--{BOUNDARY}--\r\n".encode() if ends else b"")


def encode(dataset: Dataset) -> bytes:
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


@pytest.fixture
def slices(tmp_path: Path) -> list[bytes]:
    (tmp_path / "slices").mkdir()
    return [path.read_bytes() for path in write_series(tmp_path / "slices", PhantomOptions((3, 8, 8)))]


class Ward:
    def __init__(self, folder: Path, **listener: Any) -> None:
        self.folder = folder
        self.clinic = Clinic(folder, listener=listener)
        self.app = self.clinic.app()
        self.web = TestClient(self.app, base_url="http://localhost")

    def post(self, content: bytes | Iterator[bytes], path: str = "/dicom-web/studies", kind: str = KIND) -> Any:
        return self.web.post(path, content=content, headers={"Content-Type": kind})

    def kept(self) -> set[str]:
        files = (self.folder / "archive" / RECEIVED).rglob("*.dcm")
        return {data_set_digest(file.read_bytes()) for file in files}

    def indexed(self) -> int:
        with self.clinic.database.read() as connection:
            return len(connection.execute(instances.select()).all())

    def messages(self) -> list[str]:
        return [kind(message) for message in read_messages(self.folder / "audit")]


@pytest.fixture(scope="module")
def empty_ward(tmp_path_factory: pytest.TempPathFactory) -> Ward:
    """For what is refused; nothing is stored there."""
    return Ward(tmp_path_factory.mktemp("empty"))


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[Ward]:
    made = Ward(tmp_path)
    yield made
    made.clinic.database.close()


def reasons(answer: httpx.Response) -> dict[str, int]:
    """The failure reason of each instance that failed."""
    failed = answer.json().get("00081198", {}).get("Value", [])
    return {one["00081155"].get("Value", [""])[0]: one["00081197"]["Value"][0] for one in failed}


def stored(answer: httpx.Response) -> list[str]:
    return [one["00081155"]["Value"][0] for one in answer.json().get("00081199", {}).get("Value", [])]


def change(file: bytes, **attributes: Any) -> bytes:
    dataset = pydicom.dcmread(BytesIO(file))
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return encode(dataset)


def test_case_01_what_is_answered_by_200_is_on_disk_and_indexed(ward: Ward, slices: list[bytes]) -> None:
    answer = ward.post(body(*slices))
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/dicom+json")
    assert stored(answer) == [pydicom.dcmread(BytesIO(one)).SOPInstanceUID for one in slices]
    assert ward.kept() == {data_set_digest(one) for one in slices}
    assert ward.indexed() == 3
    assert ward.messages() == ["Begin Transferring DICOM Instances", "DICOM Instances Transferred"]


def test_case_05_the_same_again_is_success_and_stored_once(ward: Ward, slices: list[bytes]) -> None:
    assert [ward.post(body(*slices)).status_code for _ in range(2)] == [200, 200]
    assert ward.indexed() == len(ward.kept()) == 3


def test_case_06_other_content_under_a_stored_uid_is_refused_and_recorded(ward: Ward, slices: list[bytes]) -> None:
    ward.post(body(slices[0]))
    answer = ward.post(body(change(slices[0], PatientComments="other"), slices[1]))
    assert answer.status_code == 202
    assert list(reasons(answer).values()) == [0xA701]
    assert len(ward.kept()) == 2
    with ward.clinic.database.read() as connection:
        assert [one.kind for one in watch.list_refusals(connection, 9)] == ["conflict"]


def test_a_conflict_may_be_a_warning(tmp_path: Path, slices: list[bytes]) -> None:
    ward = Ward(tmp_path, on_conflict="warn")
    ward.post(body(slices[0]))
    answer = ward.post(body(change(slices[0], PatientComments="other")))
    assert answer.status_code == 202
    assert answer.json()["00081199"]["Value"][0]["00081196"]["Value"] == [0xB000]


def unknown_class(file: bytes) -> bytes:
    return change(file, SOPClassUID=MRImageStorage)


def unknown_syntax(file: bytes) -> bytes:
    return file.replace(b"1.2.840.10008.1.2.1\0", JPEGBaseline8Bit.encode()[:20].ljust(20, b"\0"))


def wrong_length(file: bytes) -> bytes:
    return file[:140] + (10**6).to_bytes(4, "little") + file[144:]


def another_uid(file: bytes) -> bytes:
    dataset = pydicom.dcmread(BytesIO(file))
    dataset.SOPInstanceUID = "1.2.3"
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=False)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (unknown_class, 0x0122),
        (unknown_syntax, 0xC122),
        (another_uid, 0xA900),
        (wrong_length, 0xC000),
        (lambda _: b"no DICOM file", 0xC000),
        (lambda _: b"", 0xC000),
        (lambda file: file[:200], 0xC000),
    ],
)
def test_case_03_what_the_listener_would_not_take_is_refused_and_not_stored(
    empty_ward: Ward, slices: list[bytes], spoil: Callable[[bytes], bytes], reason: int
) -> None:
    answer = empty_ward.post(body(spoil(slices[0])))
    assert (answer.status_code, list(reasons(answer).values())) == (409, [reason])
    assert (empty_ward.kept(), empty_ward.indexed()) == (set(), 0)


def test_case_02_a_full_disk_is_said(ward: Ward, slices: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise Full("archive: full")

    with monkeypatch.context() as patch:
        patch.setattr(Archive, "keep", full)
        answer = ward.post(body(*slices))
    assert (answer.status_code, set(reasons(answer).values())) == (503, {0xA700})
    assert ward.post(body(*slices)).status_code == 200


def test_the_study_in_the_path_holds_for_every_instance(ward: Ward, slices: list[bytes]) -> None:
    study = str(pydicom.dcmread(BytesIO(slices[0])).StudyInstanceUID)
    other = change(slices[1], StudyInstanceUID="1.2.3")
    answer = ward.post(body(slices[0], other), f"/dicom-web/studies/{study}")
    assert (answer.status_code, list(reasons(answer).values())) == (202, [0xA900])
    assert ward.indexed() == 1
    assert ward.post(body(b"nothing"), f"/dicom-web/studies/{study}").status_code == 409


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"", KIND, 400),
        (b"--other\r\n", KIND, 400),
        (body(), KIND, 400),
        (body(b"x"), "application/dicom", 415),
        (body(b"x"), "multipart/related", 415),
        (body(b"x", ends=False), KIND, 400),
    ],
)
def test_a_body_that_is_none(empty_ward: Ward, content: bytes, kind: str, status: int) -> None:
    assert empty_ward.post(content, kind=kind).status_code == status


def test_case_10_of_a_body_that_breaks_off_what_was_stored_is_said(ward: Ward, slices: list[bytes]) -> None:
    content = body(slices[0], slices[1], ends=False)
    answer = ward.post(content)
    assert (answer.status_code, reasons(answer)) == (202, {"": 0xC000})
    assert len(stored(answer)) == ward.indexed() == 1  # of the second nobody knows whether it was all


def test_case_12_an_instance_that_is_too_long_is_not_kept_in_memory(tmp_path: Path, slices: list[bytes]) -> None:
    ward = Ward(tmp_path, max_dataset_mb=0.05)
    answer = ward.post(body(slices[0], bytes(200_000), slices[1]))
    assert (answer.status_code, reasons(answer), ward.indexed()) == (202, {"": 0xA700}, 2)


def test_case_12_so_much_at_once_and_no_more(tmp_path: Path, slices: list[bytes]) -> None:
    ward = Ward(tmp_path, max_receiving_mb=0.05)
    assert ward.post(body(slices[0], bytes(200_000), ends=False)[:-2]).status_code == 503
    ward = Ward(tmp_path, max_associations=1)
    desk: Desk = ward.app.state.desk
    with desk.reading(KIND):
        assert ward.post(body(slices[0])).status_code == 503
    assert ward.post(body(slices[0])).status_code == 200
    assert desk.readers == []


def test_a_body_may_be_longer_than_a_form(ward: Ward, slices: list[bytes]) -> None:
    assert ward.post(body(*slices * 20)).status_code == 200


def test_only_who_may_store_stores(tmp_path: Path, slices: list[bytes]) -> None:
    tokens = {role: token_line(f"{role} program", role) for role in Role}
    users = tmp_path / "users"
    users.write_text("\n".join(line for _, line in tokens.values()), encoding="utf-8")
    users.chmod(0o600)
    web = TestClient(Clinic(tmp_path, web={"users": users}).app(), base_url="http://localhost")

    def ask(role: Role | None, method: str = "POST", path: str = "/dicom-web/studies") -> int:
        headers = {"Content-Type": KIND} | ({"Authorization": f"Bearer {tokens[role][0]}"} if role else {})
        return web.request(method, path, content=body(slices[0]), headers=headers).status_code

    answers = {role: ask(role) for role in (None, *Role)}
    assert answers == {
        None: 401, Role.MONITOR: 403, Role.VIEWER: 403, Role.OPERATOR: 200, Role.SENDER: 200,
    }  # fmt: skip
    assert ask(Role.SENDER, "GET", "/api/v1/jobs") == 403
    assert ask(Role.SENDER, "GET", "/metrics") == 403


def test_what_the_node_sends_by_stow_a_node_answers(tmp_path: Path, ward: Ward) -> None:
    (tmp_path / "other").mkdir()
    bench = Outbox(tmp_path / "other", port=1)
    route = Route("archive", Line("http://localhost/dicom-web", 3.0, transport=ward.web._transport), bench.patience)
    Courier(bench.database, bench.archive, route, lambda: bench.now).step()
    assert bench.states() == ["failed", "failed"]  # SEG and SR are not for a node
    assert all("0x0122 refused" in reason for reason in bench.reasons())
    bench.database.close()


def test_repair_leaves_what_another_process_has_just_indexed(
    ward: Ward, slices: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver = ward.app.state.desk.receiver
    ward.post(body(slices[0]))
    with monkeypatch.context() as patch:
        patch.setattr(receiving, "stored_paths", lambda _: set())  # as it was before the other process committed
        receiver.repair()
    assert len(ward.kept()) == ward.indexed() == 1


def test_a_listener_that_starts_meanwhile_costs_a_retry_and_no_more(
    ward: Ward, slices: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    write, receiver = archive._write, ward.app.state.desk.receiver

    def write_and_be_swept(file: Path, content: bytes) -> None:
        write(file, content)
        receiver.repair()  # as the listener's process does when it starts

    with monkeypatch.context() as patch:
        patch.setattr(archive, "_write", write_and_be_swept)
        answer = ward.post(body(slices[0]))
    assert (answer.status_code, list(reasons(answer).values())) == (503, [0xA700])
    assert (ward.kept(), ward.indexed()) == (set(), 0)
    assert ward.post(body(slices[0])).status_code == 200
