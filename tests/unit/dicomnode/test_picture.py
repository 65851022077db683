"""The drawn history: the same truth as the table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.dates import num2date
from matplotlib.figure import Figure

from dicomnode import picture
from dicomnode.arrivals import Patient
from dicomnode.database import open_database
from dicomnode.history import timeline
from dicomnode.picture import to_chart
from dicomnode.sections import HistorySettings
from dicomnode.store import history
from pipeline.chart import draw_volumes
from tests.patients import add_five_studies, add_measurement


def test_lines_join_only_what_can_be_compared_and_marks_tell_the_rest(tmp_path: Path) -> None:
    patient = Patient("P-1", "")
    with open_database(f"sqlite:///{tmp_path}/node.db").begin() as connection:
        add_five_studies(connection, patient)
        entries = timeline(history.points(connection, patient), HistorySettings())
    axes = Figure().subplots()
    draw_volumes(axes, to_chart(entries), band_percent=10)
    years = [[num2date(x).year for x in np.atleast_1d(line.get_xdata())] for line in axes.get_lines()]
    assert [pair for pair in years if len(pair) == 2] == [[2019, 2020]]
    marks = {years[0]: line for years, line in zip(years, axes.get_lines(), strict=True) if len(years) == 1}
    assert sorted(marks) == [2019, 2020, 2021, 2022, 2023]
    assert [year for year, mark in marks.items() if mark.get_fillstyle() == "none"] == [2021]
    assert {marks[year].get_marker() for year in (2019, 2020, 2021, 2022)} != {marks[2023].get_marker()}
    (arrow,) = [text for text in axes.texts if not text.get_text()]
    assert arrow.xy[1] > 50


def test_the_band_is_as_wide_as_the_models_repeatability_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient, drawn = Patient("P-1", ""), []
    with open_database(f"sqlite:///{tmp_path}/node.db").begin() as connection:
        add_measurement(connection, patient, "1", "20200101", 80.0, repeatability_percent=17.0)
        entries = timeline(history.points(connection, patient), HistorySettings())
    monkeypatch.setattr(picture, "draw_volumes", lambda axes, points, band_percent: drawn.append(band_percent))
    picture.draw_history(entries, HistorySettings(), tmp_path / "history.png")
    assert drawn == [17.0]
