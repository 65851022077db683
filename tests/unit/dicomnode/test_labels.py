"""What people recognise a series by, as the listener keeps it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import select

from dicomnode.archive import Archive
from dicomnode.arrivals import Labels
from dicomnode.database import open_database
from dicomnode.receiver import Receiver
from dicomnode.tables import series
from tests.phantom import PhantomOptions, write_series
from tests.phantom_objects import CHARACTER_SETS

NAMES = {
    "latin-1": "Müller^Jörg",
    "japanese": "Yamada^Tarou=山田^太郎=やまだ^たろう",
    "utf-8": "Wang^XiaoDong=王^小东",
    "gb18030": "Wang^XiaoDong=王^小东",
    "missing": "Müller^Jörg",
    "misspelt": "Müller^Jörg",
}


def received(folder: Path, options: PhantomOptions) -> Labels:
    database = open_database(f"sqlite:///{folder}/node.db")
    receiver = Receiver(database, Archive(folder / "archive", 0), lambda: datetime(2026, 1, 2, tzinfo=UTC))
    receiver.store(write_series(folder, options)[0].read_bytes(), "SENDER")
    with database.read() as connection:
        row = connection.execute(select(*(series.c[name] for name in Labels.__dataclass_fields__))).one()
    database.close()
    return Labels(*row)


@pytest.mark.parametrize("kind", CHARACTER_SETS)
@pytest.mark.filterwarnings("ignore")
def test_case_21_names_are_kept_as_people_read_them(tmp_path: Path, kind: str) -> None:
    charset, name = CHARACTER_SETS[kind]
    said = {"SpecificCharacterSet": charset} if charset else {}
    options = PhantomOptions((1, 8, 8), attributes=said, raw={"PatientName": name})
    assert received(tmp_path, options).patient_name == NAMES[kind]


def test_case_20_missing_and_odd_labels_keep_nothing_out(tmp_path: Path) -> None:
    raw = {"SeriesDescription": b"Abdomen\n\x1b[31mred\x00", "PatientBirthDate": b"not a date"}
    options = PhantomOptions((1, 8, 8), attributes={"PatientSex": None, "StudyDescription": ""}, raw=raw)
    found = received(tmp_path, options)
    assert (found.patient_sex, found.study_description) == ("", "")
    assert found.series_description.isprintable()
    assert found.patient_birth_date == "not a date"
