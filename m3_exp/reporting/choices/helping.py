"""Does one more expert help? The best of ever more experts, chosen on one half of the items and scored on the other.

Candidates are the evaluated points: each expert alone, then mixtures of two and fewer, then of three and fewer, and so
on. Each set contains the one before it, so it costs more merges and may gain nothing. All are played on the same
halvings, and made anew on the same resampled items: a gain is paired by both.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from m3_exp.reporting.curves.evaluated import Response
from m3_exp.stats import family
from m3_exp.stats.estimate import Array, Estimate
from m3_exp.stats.objective import Objective, Resampled, again, cross_fitted

_HALVINGS, _AGAIN, _COARSE = 1000, 100, 200


@dataclass(frozen=True)
class Help:
    """The best of all mixtures of at most `experts` experts, on one objective.

    `merges` were evaluated; `kept` is chosen most often, in the share `share` of halvings. `gain`: its score less that
    of the best of fewer experts, with the p-value adjusted (Holm) over all gains of a study; None for single experts.
    """

    objective: str
    experts: int
    merges: int
    kept: Array
    share: float
    score: Estimate
    gain: Estimate | None = None
    p_adjusted: float = 1.0

    @property
    def mark(self) -> str:
        """+ where the gain is significant at 5 %, - where it is a loss; else empty."""
        if self.gain is None or self.p_adjusted >= family.LIMIT:
            return ""
        return "+" if self.gain.value > 0 else "-"


def helping(
    known: Sequence[tuple[Sequence[Response], Objective]], *, seed: int = 0, halvings: int = _HALVINGS
) -> list[Help]:
    """Return, for each objective with the responses it is of, what the best of ever more experts is worth."""
    found = [one for responses, objective in known for one in _of(responses, objective, seed, halvings)]
    places = [k for k, one in enumerate(found) if one.gain is not None]
    p = [1.0 if (gain := found[k].gain) is None or gain.p is None else gain.p for k in places]
    for k, adjusted in zip(places, family.holm(p), strict=True):
        found[k] = replace(found[k], p_adjusted=adjusted)
    return found


def _of(responses: Sequence[Response], objective: Objective, seed: int, halvings: int) -> list[Help]:
    generator = np.random.default_rng(seed)
    sample = Resampled.of(objective, _AGAIN, generator)
    along = sample.along
    used = (along.points > 0).sum(axis=1)
    sizes = sorted({int(n) for n in used})
    sets = [along.points[used <= size] for size in sizes]
    candidates = [np.repeat(points[None], halvings, axis=0) for points in sets]
    played = cross_fitted(along, candidates, generator)
    moved = again(along, sample.shares, [points[:_COARSE] for points in candidates], generator)
    lost = max(one.unscored / (one.unscored + len(one.curve.ids)) for one in responses)
    short = objective.short(2)
    found: list[Help] = []
    for k, (size, own, anew) in enumerate(zip(sizes, played, moved, strict=True)):
        points, counts = np.unique(own.kept, return_counts=True, axis=0)
        value = float(own.honest.mean())
        score = objective.of(value, anew.honest, short=short, missing=lost)
        gain = None
        if k:
            less = float(played[k - 1].honest.mean())
            differences = anew.honest - moved[k - 1].honest
            gain = objective.of(value - less, differences, signed=True, short=short, missing=lost)
        most = int(np.argmax(counts))
        share = float(counts[most] / counts.sum())
        found.append(Help(objective.name, size, len(sets[k]), points[most], share, score, gain))
    return found
