"""Case 34: whatever becomes of a series, no log line, reason, file name or exception's text says whose it is."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pydicom
import pytest
from pydicom import DataElement
from sqlalchemy import MetaData
from sqlalchemy.exc import IntegrityError

from dicomnode import assembler, dimse, receiver, worker
from dicomnode.discretion import DiscreetFormatter, set_up_logging
from dicomnode.tables import instances
from tests.bench import SMALL, Bench
from tests.phantom import PhantomOptions, write_series

ROOT = Path(__file__).parents[2]
TOKENS = ("ZZNAME", "ZZID", "ZZACCESSION", "ZZBIRTH", "ZZREFERRER", "ZZSTUDY", "ZZOTHER", "ZZADDRESS")
IDENTITY = {
    "PatientName": "ZZNAME^ZZNAME", "PatientID": "ZZID-1", "AccessionNumber": "ZZACCESSION",
    "ReferringPhysicianName": "ZZREFERRER^X", "StudyID": "ZZSTUDY", "OtherPatientNames": "ZZOTHER^X",
    "PatientAddress": "ZZADDRESS",
}  # fmt: skip


def fail(*_: object, **__: object) -> Any:
    raise ValueError("invalid value for VR PN: 'ZZNAME^ZZNAME' of ZZID-1")


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], str]]:
    """All that the node logs, set up as `serve` does."""
    stream = io.StringIO()
    root, levels = logging.getLogger(), {}
    for name in ("", *logging.Logger.manager.loggerDict):
        levels[name] = logging.getLogger(name).level
    handlers = root.handlers[:]
    root.handlers.clear()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr("threading.excepthook", None)
    set_up_logging()
    yield stream.getvalue
    root.handlers[:] = handlers
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def write(folder: Path, **options: Any) -> list[Path]:
    folder.mkdir()
    return write_series(folder, PhantomOptions(**SMALL, seed=folder.name, attributes=IDENTITY, **options))


def spoil(path: Path) -> None:
    """Values that pydicom complains of, quoting them."""
    instance = pydicom.dcmread(path)
    instance["PatientBirthDate"] = DataElement(0x00100030, "DA", "ZZBIRTH", validation_mode=0)
    instance["PatientID"] = DataElement(0x00100020, "LO", "ZZID" * 30, validation_mode=0)
    instance["KVP"] = DataElement(0x00180060, "LO", "ZZNAME", validation_mode=0)
    instance.save_as(path)


WHOSE = ("patient_id", "issuer_of_patient_id", "patient_name", "patient_sex", "patient_birth_date")


def in_database(bench: Bench) -> str:
    """Every text that is no identifier column of the series."""
    metadata, found = MetaData(), []
    with bench.database.read() as connection:
        metadata.reflect(connection)
        for table in metadata.sorted_tables:
            columns = [c for c in table.columns if c.name not in WHOSE]
            found += [str(tuple(row)) for row in connection.execute(table.select().with_only_columns(*columns))]
    return "\n".join(found)


def test_case_34_no_log_line_reason_or_file_name_says_whose_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: Callable[[], str]
) -> None:
    bench = Bench(tmp_path, 1)
    whole, gap, odd = write(tmp_path / "whole"), write(tmp_path / "gap", missing=(11,)), write(tmp_path / "odd")
    for path in odd:
        spoil(path)
    for paths in (whole, gap, odd):
        bench.take_in(paths)
        bench.worker.step()
    bench.courier.step()  # nobody answers
    with monkeypatch.context() as patch:
        patch.setattr(worker, "analyse", fail)
        bench.take_in(write(tmp_path / "internal"))
        bench.worker.step()
        patch.setattr(receiver, "image_facts", fail)
        with bench.listening() as peer:
            outcomes = [outcome for _, outcome in dimse.send(peer, "SENDER", write(tmp_path / "unlucky")[:2], 5.0)]
        stop = Event()

        def fail_and_stop(*_: object) -> None:
            stop.set()
            fail()

        patch.setattr(assembler, "complete_groups", fail_and_stop)
        bench.assembler.run(stop)
        stop.clear()
        patch.setattr(bench.courier, "step", fail_and_stop)
        bench.courier.run(stop)
    with bench.database.read() as connection:
        row = dict(connection.execute(instances.select()).mappings().first() or {})
        with pytest.raises(IntegrityError) as broken:
            connection.execute(instances.insert().values({**row, "calling_ae": "ZZNAME"}))
    everything = "\n".join(
        [said(), in_database(bench), str(broken.value), *(outcome.reason for outcome in outcomes)]
        + [path.as_posix() for path in (tmp_path / "archive").rglob("*")]
    )
    bench.database.close()
    for happened in ("done", "missing between", "ValueError in ", "assembling failed", "delivering to pacs failed"):
        assert happened in everything
    assert [token for token in TOKENS if token in everything] == []


def test_case_34_no_text_of_the_command_line_does(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    paths = write(tmp_path / "odd", missing=(5,))
    for path in paths:
        spoil(path)
    command = [sys.executable, "-m", "dicomnode", "analyse", str(tmp_path / "odd"), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "missing" in done.stderr
    assert [token for token in TOKENS if token in done.stdout + done.stderr] == []


def test_an_exception_is_logged_without_its_text() -> None:
    try:
        fail()
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "x.py", 1, "it failed", None, sys.exc_info())
    text = DiscreetFormatter("%(message)s").format(record)
    assert text.startswith("it failed\nValueError in ")
    assert "fail (test_privacy.py:" in text
    assert "ZZ" not in text
