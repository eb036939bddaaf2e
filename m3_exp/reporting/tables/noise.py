"""The noise floor: what an evaluation changes when it is repeated with another order of prompts and half the batch.

Texts of 16-bit models depend on what shares a batch with them, so the same weights can score otherwise a second time.
`repeat=K` evaluates every cell K times more; here each repeat is set beside its first pass, and what follows from that
for the difference of any two scores (`stats/noise.py`): one of that size can be the batches' alone. Repeats are no more
data: no mean, interval or n of any table holds them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from m3_exp.reporting.table import Cell, Column, Figure, Table, named_columns, percent, words
from m3_exp.stats import noise
from m3_exp.stats.noise import Steps
from m3_exp.types import Json

_NAMES = ("family", "pair", "method", "params", "ratio", "alpha", "draw", "lam", "sparsify", "mask_seed")
_FIGURES = (
    "verdicts", "texts that differ", "flipped up", "flipped down", "flip rate, 95 %", "score", "repeated",
    "sd of a difference, 95 %",
)  # fmt: skip
_BRIEFLY = (
    "Each repeat: the same weights and items, another order of prompts, half the batch.",
    "repeated: the second score less the first; sd: of what batches alone do to a difference; both in points.",
)
_COLUMNS = (
    *named_columns(["models", "method", "weights", "benchmark", "dtype", "repeat"]),
    *map(Column, _FIGURES),
)


@dataclass(frozen=True)
class Noise:
    """One repeat of one cell beside its first pass. Scores and `difference` (repeat - first) are in percent points.

    `steps` is how far each verdict rose, by item and sample, of those that both passes have. `texts` of them have
    another text; `graded` changed on the same one: the grader's own noise.
    """

    names: Mapping[str, Any]
    benchmark: str
    kind: str
    engine: str
    dtype: str
    weights: str
    repeat: int
    steps: Steps
    texts: int
    graded: int
    score: float
    difference: float

    @property
    def n(self) -> int:
        return len(self.steps)

    @property
    def up(self) -> int:
        return sum(step > 0 for step in self.steps.values())

    @property
    def down(self) -> int:
        return sum(step < 0 for step in self.steps.values())

    @property
    def flips(self) -> int:
        return self.up + self.down


def measured(frame: pd.DataFrame) -> list[Noise]:
    """Return every repeat of a frame (`dataframe.tidy(..., repeats=True)`) beside its first pass, each cell once."""
    cells = frame[frame["score"].notna()].drop_duplicates(subset=["cell", "repeat"])
    firsts = {line["cell"]: line for _, line in cells[cells["repeat"] == 0].iterrows()}
    again = [line for _, line in cells[cells["repeat"] > 0].iterrows() if line["cell"] in firsts]
    repeats = [_compared(firsts[line["cell"]], line) for line in again]
    return [one for one in repeats if one is not None]


def _compared(first: "pd.Series[Any]", again: "pd.Series[Any]") -> Noise | None:
    """Set a repeat beside its first pass; None where no verdict is in both."""
    before, after = first["values"], again["values"]
    both = [key for key in before if before[key] is not None and after.get(key) is not None]
    if not both:
        return None
    moved = {key: after[key] - before[key] for key in both}
    changed = [key for key in both if key in again["changed"]]
    return Noise(
        names={key: None if pd.isna(first[key]) else first[key] for key in _NAMES},
        benchmark=str(first["benchmark"]), kind=str(first["kind"]), engine=str(first["engine"]),
        dtype=str(first["dtype"]), weights=str(first["weights"]), repeat=int(again["repeat"]), steps=moved,
        texts=len(changed),
        graded=sum(moved[key] != 0 for key in set(both) - set(changed)),
        score=float(first["score"]), difference=float(again["score"]) - float(first["score"]),
    )  # fmt: skip


def rate(members: Sequence[Noise]) -> Figure:
    """Return the share of flipped verdicts over some repeats, in percent."""
    return percent(noise.rate([one.steps for one in members]))


def deviation(members: Sequence[Noise]) -> Figure:
    """Return the standard deviation of a difference of two scores that batches alone make, in points."""
    return percent(noise.noise_floor([one.steps for one in members]))


# ---------------------------------------------------------------------------------------------------- what is printed


def build(name: str, frame: pd.DataFrame) -> Table:
    """Return the repeats, a row for each, in the order of the plan."""
    repeats = measured(frame)
    notes = (*footer(frame), *_meaning(repeats))
    return Table(f"{name}: repeats", _COLUMNS, tuple(map(_row, repeats)), notes, _BRIEFLY if repeats else notes[-1:])


def footer(frame: pd.DataFrame) -> list[str]:
    """Return one line an engine and dtype for the foot of any table; none where nothing was repeated.

    `noise floor (float32): gsm8k 3 of 96 verdicts flipped between repeats (3.1 % [0.7, 9.2]), sd of a difference 1.8
    [0.8, 3.1] points`: the last is that of a difference of two scores over as many verdicts as one cell has.
    """
    grouped: dict[str, dict[str, list[Noise]]] = {}
    for one in measured(frame):
        grouped.setdefault(one.engine, {}).setdefault(one.benchmark, []).append(one)
    return [
        f"noise floor ({engine}): " + "; ".join(_pooled(name, members) for name, members in benchmarks.items())
        for engine, benchmarks in grouped.items()
    ]


def _pooled(benchmark: str, members: Sequence[Noise]) -> str:
    n, flips = sum(one.n for one in members), sum(one.flips for one in members)
    flipped = rate(members)
    share = f"{flipped} % {flipped.interval}" if flips else f"below {flipped.high:.1f} %"
    return (
        f"{benchmark} {flips} of {n} verdicts flipped between repeats ({share}),"
        f" sd of a difference {_shown(deviation(members))} points"
    )


def _row(one: Noise) -> tuple[Cell, ...]:
    share, names = rate([one]), one.names
    method = " ".join(str(part) for part in (names["method"], names["params"]) if part)
    counts = (one.repeat, one.n, one.texts, one.up, one.down)
    return (
        *map(words, (str(names["pair"]), method, _which(one), one.benchmark, one.dtype, *map(str, counts))),
        Cell((), share, record=_record(one, share)),
        words(f"{one.score:.1f}"), words(f"{one.difference:+.1f}"), _shown(deviation([one])),
    )  # fmt: skip


def _shown(sd: Figure) -> Cell:
    """Return a standard deviation; where nothing flipped, below what it is."""
    return Cell((), sd) if sd.value else words(f"below {sd.high:.1f}")


def _which(one: Noise) -> str:
    """Say which of a method's weights a row is about."""
    names = one.names
    parts = [str(names["ratio"])]
    if one.kind == "drawn":
        parts.append(("" if names["alpha"] is None else f"alpha {names['alpha']:g} ") + f"draw {int(names['draw'])}")
    if names["lam"] is not None:
        parts.append(f"lambda {names['lam']:.3g}")
    if names["sparsify"] != "none":
        parts.append(str(names["sparsify"]))
    return ", ".join(parts)


def _record(one: Noise, share: Figure) -> Json:
    sd, lam = deviation([one]), one.names["lam"]
    figures = {
        key: getattr(one, key) for key in ("repeat", "n", "texts", "up", "down", "graded", "score", "difference")
    }
    return {
        **one.names, "benchmark": one.benchmark, "engine": one.engine, "weights": one.weights,
        "lambda": [] if lam is None else [float(lam)], **figures,
        "flip_rate": share.value, "low": share.low, "high": share.high,
        "sd": sd.value, "sd_low": sd.low, "sd_high": sd.high,
    }  # fmt: skip


def _meaning(repeats: Sequence[Noise]) -> list[str]:
    if not repeats:
        return ["nothing was repeated here yet: the same m3 run with repeat=1"]
    lines = [
        "Each repeat has another order of prompts and half the batch, with the same weights and items. Flips are"
        " verdicts; repeated is the second score less the first, and sd that of a difference of two plain means that"
        " batches alone make (root of the flips / verdicts, its interval that of the flips), both in points. No flip is"
        " no proof of none: sd then is below the upper end. Repeats are in no other table."
    ]
    graded = sum(one.graded for one in repeats)
    if graded:
        lines.append(f"{graded} verdicts flipped on the same text: that is the grader, not the engine")
    return lines
