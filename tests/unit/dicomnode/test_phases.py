"""The contrast phase by the words that people write."""

from __future__ import annotations

import pytest

from dicomnode.phases import WORDS, Phase, phase_of


@pytest.mark.parametrize(
    ("text", "phase"),
    [
        ("Abd Pelvis PV 1.0", Phase.PORTAL_VENOUS),
        ("ABDOMEN_PORTAL-VENOUS", Phase.PORTAL_VENOUS),
        ("Oberbauch portalvenös 3.0 Br40", Phase.PORTAL_VENOUS),
        ("TEMPS PORTAL AXIALE", Phase.PORTAL_VENOUS),
        ("pv70s", Phase.PORTAL_VENOUS),
        ("Pancreas late arterial", Phase.ARTERIAL),
        ("Abdomen spätarteriell", Phase.ARTERIAL),
        ("temps artériel", Phase.ARTERIAL),
        ("Abd nativ", Phase.NON_CONTRAST),
        ("CT ABD W/O CONTRAST", Phase.NON_CONTRAST),
        ("abdo sans injection", Phase.NON_CONTRAST),
        ("CT ABD W/WO CONTRAST", Phase.UNKNOWN),
        ("with and without contrast", Phase.UNKNOWN),
        ("Leber Spätphase", Phase.DELAYED),
        ("temps tardif", Phase.DELAYED),
        ("art + pv", Phase.UNKNOWN),
        ("late venous", Phase.UNKNOWN),
        ("PARTIAL VENTRICLE CART", Phase.UNKNOWN),
        ("", Phase.UNKNOWN),
    ],
)
def test_whole_words_name_the_phase(text: str, phase: Phase) -> None:
    assert phase_of(text, "", contrast=False) is phase


def test_the_protocol_is_asked_where_the_description_says_nothing() -> None:
    assert phase_of("Abd 1.0", "Liver delayed", contrast=True) is Phase.DELAYED
    assert phase_of("Abd art", "Liver delayed", contrast=True) is Phase.ARTERIAL
    assert phase_of("art pv", "Liver delayed", contrast=True) is Phase.UNKNOWN


def test_non_contrast_against_a_recorded_agent_is_unknown() -> None:
    assert phase_of("nativ", "", contrast=False) is Phase.NON_CONTRAST
    assert phase_of("nativ", "", contrast=True) is Phase.UNKNOWN
    assert phase_of("pv", "", contrast=False) is Phase.PORTAL_VENOUS


@pytest.mark.parametrize("phase", Phase)
def test_every_listed_word_names_its_phase(phase: Phase) -> None:
    assert {word for word in WORDS[phase] if phase_of(word.upper(), "", contrast=False) is not phase} == set()
