"""Contrast phase of a series by the words that technologists write: English, German, French. Pure."""

from __future__ import annotations

import re
import unicodedata
from enum import StrEnum


class Phase(StrEnum):
    """When after the injection a series was scanned; DICOM has no attribute that scanners fill reliably."""

    NON_CONTRAST = "non-contrast"
    ARTERIAL = "arterial"
    PORTAL_VENOUS = "portal-venous"
    DELAYED = "delayed"
    UNKNOWN = "unknown"


WORDS: dict[Phase, tuple[str, ...]] = {
    Phase.NON_CONTRAST: (
        "non contrast", "noncontrast", "no contrast", "without contrast", "w o contrast", "wo contrast", "w o", "ncct",
        "unenhanced", "non enhanced", "pre contrast", "precontrast", "native", "plain", "nativ", "nativphase",
        "ohne km", "ohne kontrast", "ohne kontrastmittel", "sans injection", "sans contraste", "sans pdc", "sans iv",
        "non injecte", "non injectee", "avant injection",
    ),
    Phase.ARTERIAL: (
        "arterial", "art", "late arterial", "early arterial", "arterial phase", "pancreatic phase", "pancreas phase",
        "arteriell", "arterielle", "arteriellen", "spatarteriell", "spaetarteriell", "fruharteriell", "frueharteriell",
        "pankreasphase", "pankreas phase", "arteriel", "arterielle tardive", "arteriel tardif",
        "temps arteriel", "phase pancreatique",
    ),
    Phase.PORTAL_VENOUS: (
        "portal venous", "portalvenous", "portovenous", "porto venous", "portal", "venous", "pv", "pvp", "ven",
        "portalvenos", "portalvenoes", "portal venos", "portal venoes", "portvenos", "portvenoes", "pfortader",
        "portovenos", "portovenoes", "venos", "venoes", "venose", "venoese",
        "portale", "porto veineux", "portoveineux", "porto veineuse", "veineux", "veineuse", "temps portal",
    ),
    Phase.DELAYED: (
        "delayed", "delay", "late", "late phase", "equilibrium", "excretory", "urographic",
        "spat", "spaet", "spatphase", "spaetphase", "spate", "spaete", "ausscheidung", "ausscheidungsphase",
        "tardif", "tardive", "temps tardif", "excretoire", "equilibre",
    ),
    Phase.UNKNOWN: (
        "w wo", "w wo contrast", "wo w", "wo w contrast", "w w o", "w w o contrast", "w o w", "w o w contrast",
        "w and wo", "w and wo contrast", "w and w o", "w and w o contrast", "wo and w", "w o and w",
        "with and without contrast", "with without contrast", "ohne und mit km", "mit und ohne km",
        "ohne mit km", "mit ohne km", "sans et avec injection", "avec et sans injection",
    ),
}  # fmt: skip
"""Whole words, without accents and case; anything but a letter parts words. A longer phrase wins over its parts.

Those of unknown are said of a whole examination; they are here so that nothing inside them is read as non-contrast.
"""

_PHRASES = sorted(
    ((phrase, phase) for phase, phrases in WORDS.items() for phrase in phrases), key=lambda pair: -len(pair[0])
)


def phase_of(description: str, protocol: str, contrast: bool) -> Phase:
    """The phase that SeriesDescription names, else ProtocolName; unknown where none or more than one is named.

    contrast: an agent is recorded. It never makes a phase, as scanners copy it to every series of an examination or
    leave it out, but where the words say non-contrast and the header says contrast, the answer is unknown.
    """
    named = _named(description) or _named(protocol)
    phase = next(iter(named)) if len(named) == 1 else Phase.UNKNOWN
    return Phase.UNKNOWN if phase is Phase.NON_CONTRAST and contrast else phase


def _named(text: str) -> set[Phase]:
    plain = unicodedata.normalize("NFKD", text.replace("œ", "oe")).encode("ascii", "ignore").decode().lower()
    rest = f" {' '.join(re.findall('[a-z]+', plain))} "
    named = set()
    for phrase, phase in _PHRASES:
        if f" {phrase} " in rest:
            named.add(phase)
            rest = rest.replace(f" {phrase} ", " | ")
    return named
