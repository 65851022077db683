"""DICOMweb as its user agent, over httpx (PS3.18 10): the sibling of `dimse`.

lines         whom to talk to, and what goes wrong on the way
multipart     many DICOM files in one body, taken apart as it comes
storing       STOW-RS
querying      QIDO-RS
retrieving    WADO-RS

httpx in place of dicomweb-client, which decodes and encodes every data set again: what is fetched and sent here stays
byte for byte what it was.
"""

from dicomnode.dicomweb.lines import Line, make_line
from dicomnode.dicomweb.multipart import Malformed, Part, PartReader
from dicomnode.dicomweb.querying import find
from dicomnode.dicomweb.retrieving import fetch
from dicomnode.dicomweb.storing import judge_answer

__all__ = ["Line", "Malformed", "Part", "PartReader", "fetch", "find", "judge_answer", "make_line"]
