"""WADO-RS (PS3.18 10.4): the files of a series, kept one by one as they come."""

from __future__ import annotations

from dicomnode.dicomweb.lines import Line, raise_for
from dicomnode.dicomweb.multipart import DICOM, Malformed, PartReader
from dicomnode.errors import Unavailable
from dicomnode.pulling import FoundSeries, Keep, Retrieved, Tally

# As they are stored, whatever that is; what we do not take is then refused by its own status (PS3.18 8.7.3.5.2).
_ACCEPT = f'multipart/related; type="{DICOM}"; transfer-syntax=*'


def fetch(line: Line, series: FoundSeries, keep: Keep, most_bytes: float) -> Retrieved:
    """Fetch the instances of a series as they are stored there, and keep each before the next is read.

    most_bytes: of one instance; a longer one counts as failed. Raises Unavailable or Refused; what was kept stays.
    """
    path = f"/studies/{series.study_instance_uid}/series/{series.series_instance_uid}"
    tally, headers = Tally(), {"Accept": _ACCEPT, "Accept-Encoding": "identity"}  # images hardly get smaller by it
    with line.open() as client, client.stream("GET", path, headers=headers) as answer:
        if answer.status_code not in (200, 206):
            raise_for(answer.status_code, line.url)
        try:
            reader = PartReader(answer.headers.get("content-type", ""), most_bytes)
            for piece in answer.iter_bytes(1 << 16):
                for part in reader.feed(piece):
                    tally.add(0xA900 if part.content is None else keep(part.content))
            reader.close()
        except Malformed as error:
            raise Unavailable(f"{line.url}: {error}") from None
    return tally.result()
