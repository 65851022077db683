"""The choice of series by built-in checks, rules and preferences: one way, for the assembler and for `rules test`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dicomnode.headers import read_series
from dicomnode.ranking import Candidate, prefer
from dicomnode.routing import ImageFacts, SeriesFacts, Verdict, judge_series, refuse_series
from dicomnode.sections import RuleSettings
from dicomnode.settings import Settings

Images = Sequence[tuple[Path, ImageFacts]]


@dataclass(frozen=True)
class Selection:
    """Which series of a study are analysed. prefer: criteria; empty: every series that the rules let through."""

    minimum_slices: int
    rules: tuple[RuleSettings, ...] = ()
    prefer: tuple[str, ...] = ()

    @classmethod
    def of(cls, settings: Settings) -> Selection:
        """As the settings say."""
        return cls(settings.series.minimum_slices, settings.rules, settings.series.prefer)


def select(
    series: Mapping[str, Images], selection: Selection, held: Mapping[str, Images] | None = None
) -> dict[str, Verdict]:
    """The verdict on each series by its UID; where there is a preference, all must be of one study.

    held: the series of that study that were chosen before, those that grew since among them: a grown one is analysed
    again, so that no result stands that was measured on a part of it.
    """
    examined = {uid: _examine(images, selection) for uid, images in series.items()}
    verdicts = {uid: verdict for uid, (verdict, _) in examined.items()}
    if not selection.prefer:
        return verdicts
    held = held or {}
    candidates = [
        Candidate(uid, facts, verdict.rule, uid in held)
        for uid, (verdict, facts) in examined.items()
        if not verdict.reason
    ]
    candidates += [_held(uid, images, selection) for uid, images in held.items() if uid not in series]
    losers = prefer(candidates, selection.prefer)
    return {uid: replace(verdict, reason=losers.get(uid, verdict.reason)) for uid, verdict in verdicts.items()}


def _examine(images: Images, selection: Selection) -> tuple[Verdict, SeriesFacts]:
    reason = refuse_series([image for _, image in images], selection.minimum_slices)
    if reason:
        return Verdict(reason), SeriesFacts()
    # Headers are read only where somebody looks at them: without rules and preferences the columns are enough.
    facts = read_series(images) if selection.rules or selection.prefer else SeriesFacts()
    return judge_series(facts, selection.rules), facts


def _held(uid: str, images: Images, selection: Selection) -> Candidate:
    facts = read_series(images)
    return Candidate(uid, facts, judge_series(facts, selection.rules).rule, is_held=True)
