"""The noise floor: what an evaluation changes when it is repeated with another order of prompts and half the batch.

Texts of 16-bit models depend on what shares a batch with them, so the same weights can score otherwise a second time.
`repeat=K` evaluates every cell K times more; here each repeat is set beside its first pass. If f of n verdicts flip,
each up or down by chance, the difference of the two scores has the standard deviation sqrt(f) / n, and so has that of
any two models of that kind, each evaluated once: smaller differences are not the models'. Repeats are no more data:
no mean, interval or n of any table holds them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from m3_exp.reporting import stats
from m3_exp.reporting.tables import Table

_NAMES = ("family", "pair", "method", "params", "ratio", "alpha", "draw", "lam", "sparsify", "mask_seed")
_HEADER = (
    "models", "method", "weights", "benchmark", "dtype", "repeat", "verdicts", "texts that differ", "flipped up",
    "flipped down", "flip rate, 95 %", "score", "repeated", "sd of a difference",
)  # fmt: skip


@dataclass(frozen=True)
class Noise:
    """One repeat of one cell beside its first pass. Scores and `difference` (repeat - first) are in percent points.

    `n` counts the verdicts (an item's samples) that both have. `up` and `down` are those that rose and fell, `graded`
    those of them whose text is the same: the grader's own noise. `squares` is the sum of the squared changes, for 0/1
    verdicts the number of flips.
    """

    names: Mapping[str, Any]
    benchmark: str
    engine: str
    weights: str
    repeat: int
    n: int
    texts: int
    up: int
    down: int
    graded: int
    squares: float
    score: float
    difference: float

    @property
    def flips(self) -> int:
        return self.up + self.down

    @property
    def dtype(self) -> str:
        return self.engine.rsplit(" ", 1)[-1]

    @property
    def sd(self) -> float:
        """The standard deviation, in points, of a difference of two scores that batches alone make."""
        return 100 * math.sqrt(self.squares) / self.n


def measured(frame: pd.DataFrame) -> list[Noise]:
    """Return every repeat of a frame (`frame.tidy(..., repeats=True)`) beside its first pass, each cell once."""
    cells = frame[frame["score"].notna()].drop_duplicates(subset=["cell", "repeat"])
    firsts = {line["cell"]: line for _, line in cells[cells["repeat"] == 0].iterrows()}
    again = [line for _, line in cells[cells["repeat"] > 0].iterrows() if line["cell"] in firsts]
    found = [_compared(firsts[line["cell"]], line) for line in again]
    return [one for one in found if one is not None]


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
        benchmark=str(first["benchmark"]), engine=str(first["engine"]), weights=str(first["weights"]),
        repeat=int(again["repeat"]), n=len(both), texts=len(changed),
        up=sum(step > 0 for step in moved.values()), down=sum(step < 0 for step in moved.values()),
        graded=sum(moved[key] != 0 for key in set(both) - set(changed)),
        squares=sum(step * step for step in moved.values()),
        score=float(first["score"]), difference=float(again["score"]) - float(first["score"]),
    )  # fmt: skip


def rate(flips: int, n: int) -> tuple[float, float, float]:
    """Return the share of flipped verdicts with its Wilson interval, in percent."""
    low, high = stats.mean_interval(np.repeat([1.0, 0.0], [flips, n - flips]))
    return 100 * flips / n, 100 * low, 100 * high


# ---------------------------------------------------------------------------------------------------- what is printed


def build(name: str, frame: pd.DataFrame) -> Table:
    """Lay the repeats out, a row for each, in the order of the plan."""
    found = measured(frame)
    rows = tuple(_row(one) for one in found)
    return Table(f"{name}: repeats", _HEADER, rows, (*footer(frame), *_meaning(found)), tuple(map(_record, found)))


def footer(frame: pd.DataFrame) -> list[str]:
    """Return one line an engine and dtype for the foot of any table; none where nothing was repeated.

    `noise floor (float32): gsm8k 3 of 96 verdicts flipped between repeats (3.1 %), sd 1.8 points`: the last is that of
    a difference of two scores over as many verdicts as one cell has.
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
    sd = 100 * math.sqrt(sum(one.squares for one in members) / n / (n / len(members)))
    return f"{benchmark} {flips} of {n} verdicts flipped between repeats ({100 * flips / n:.1f} %), sd {sd:.1f} points"


def _row(one: Noise) -> tuple[str, ...]:
    percent, low, high = rate(one.flips, one.n)
    names = one.names
    method = " ".join(str(part) for part in (names["method"], names["params"]) if part)
    return (
        str(names["pair"]), method, _which(names), one.benchmark, one.dtype, str(one.repeat), str(one.n),
        str(one.texts), str(one.up), str(one.down), f"{percent:.1f} [{low:.1f}, {high:.1f}]", f"{one.score:.1f}",
        f"{one.difference:+.1f}", f"{one.sd:.1f}",
    )  # fmt: skip


def _which(names: Mapping[str, Any]) -> str:
    """Say which of a method's weights a row is about."""
    parts = [str(names["ratio"])]
    if names["alpha"] is not None:
        parts.append(f"alpha {names['alpha']:g} draw {int(names['draw'])}")
    if names["lam"] is not None:
        parts.append(f"lambda {names['lam']:.3g}")
    if names["sparsify"] == "dare":
        parts.append("dare")
    return ", ".join(parts)


def _record(one: Noise) -> dict[str, Any]:
    percent, low, high = rate(one.flips, one.n)
    lam = one.names["lam"]
    figures = {
        key: getattr(one, key) for key in ("repeat", "n", "texts", "up", "down", "graded", "score", "difference")
    }
    return {
        **one.names, "benchmark": one.benchmark, "engine": one.engine, "weights": one.weights,
        "lambda": [] if lam is None else [float(lam)], **figures,
        "flip_rate": percent, "low": low, "high": high, "sd": one.sd,
    }  # fmt: skip


def _meaning(found: Sequence[Noise]) -> list[str]:
    if not found:
        return ["nothing was repeated here yet: the same m3 run with repeat=1"]
    lines = [
        "Each repeat has another order of prompts and half the batch, with the same weights and items. Flips are"
        " verdicts; repeated is the second score less the first, and sd that of a difference of two scores that"
        " batches alone make (root of the flips / verdicts), both in points. Repeats are in no other table."
    ]
    graded = sum(one.graded for one in found)
    if graded:
        lines.append(f"{graded} verdicts flipped on the same text: that is the grader, not the engine")
    return lines
