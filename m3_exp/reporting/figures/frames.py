"""The data of figures: the tidy frames of their sweeps, and the rows of a frame that one marker stands for."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from m3_exp.benchmarks import in_order
from m3_exp.command_line import CommandLine
from m3_exp.reporting.comparisons.contrasts import LEAST_DRAWS
from m3_exp.reporting.data.dataframe import tidy, where
from m3_exp.reporting.figures import palette
from m3_exp.types import M3Error

PAIRS = ("lm_math", "lm_code", "math_code")
EMPTY = tidy([])
_ROW = ["pair", "method", "params", "sparsify", "benchmark"]


@dataclass(frozen=True)
class Data:
    """What figures are drawn from.

    `frames`: tidy frames by sweep; `parents`: each pair's experts, as singles are called in the frames; `published`:
    the folder of the paper's numbers, only for the family that the paper used; `seed`: the sweeps', of what is
    resampled; `asked`: the command line, for the one that runs what is missing.
    """

    frames: Mapping[str, pd.DataFrame]
    parents: Mapping[str, Sequence[str]] = field(default_factory=dict)
    published: Path | None = None
    seed: int = 0
    asked: CommandLine = field(default_factory=CommandLine)

    def scored(self, *sweeps: str, figure: str) -> list[pd.DataFrame]:
        """Return the frames of some sweeps.

        Raises:
            M3Error: nothing of them has a score, which leaves the figure nothing to draw.
        """
        chosen = [at_alpha(self.frames.get(name, EMPTY)) for name in sweeps]
        if not any(bool(frame["score"].notna().any()) for frame in chosen):
            named = " and ".join(f"sweeps={name}" for name in sweeps)
            raise M3Error(f"figure {figure} draws cells of {named}, and none has a score yet; {self.line(sweeps[0])}")
        return chosen

    def line(self, sweep: str) -> str:
        """Write the line that runs a sweep."""
        return self.asked.on_sweep(sweep).line("run")


def at_alpha(frame: pd.DataFrame, asked: float | None = None) -> pd.DataFrame:
    """Return a frame with M3 cells of one alpha: the one asked for, else 0.5, or the only one that was run.

    Raises:
        M3Error: there is no such alpha.
    """
    alphas = sorted(frame.loc[frame["ratio"] == "mixup", "alpha"].dropna().astype(float).unique())
    chosen = asked if asked is not None else 0.5 if 0.5 in alphas or len(alphas) != 1 else alphas[0]
    if alphas and chosen not in alphas:
        known = ", ".join(f"{alpha:g}" for alpha in alphas)
        raise M3Error(f"no cell has ratio.alpha={chosen:g}; there are {known}: choose one with ratio.alpha=")
    return frame[(frame["ratio"] != "mixup") | (frame["alpha"] == chosen)]


def together(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return frames below one another, whatever types their empty columns have."""
    return pd.DataFrame([line for frame in frames for line in frame.to_dict("records")], columns=frames[0].columns)


def rows_of(frame: pd.DataFrame, pair: str, method: str, benchmark: str, ratio: str, sparsify: str) -> pd.DataFrame:
    """Return the lines of one row and column of a table.

    Raises:
        M3Error: they belong to several hyper-parameters.
    """
    rows = where(frame, pair=pair, method=method, benchmark=benchmark, ratio=ratio, sparsify=sparsify)
    settings = sorted(rows["params"].unique())
    if len(settings) > 1:
        raise M3Error(f"{method} has cells with {' and with '.join(settings)}; choose one with method.{settings[0]}")
    return rows


def places(frame: pd.DataFrame) -> list[tuple[str, str]]:
    """Return the pairs and benchmarks of merged models, in the order in which they are drawn."""
    merged = frame[frame["method"] != "single"]
    return [
        (pair, benchmark)
        for pair in _ranked(merged["pair"].unique(), PAIRS)
        for benchmark in in_order(merged.loc[merged["pair"] == pair, "benchmark"].unique())
    ]


def methods(frame: pd.DataFrame) -> list[str]:
    return _ranked(frame.loc[frame["method"] != "single", "method"].unique(), palette.METHODS)


def _ranked(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """Return names in the order of those that are known, others after them."""
    ranks = {name: rank for rank, name in enumerate(known)}
    return sorted(names, key=lambda name: (ranks.get(name, len(ranks)), name))


def about_mixed(frames: Sequence[pd.DataFrame]) -> list[str]:
    """Say whether an M3 row is an expectation from a curve or a mean of draws, and what its interval covers."""
    drawn: set[int] = set()
    expected = False
    for frame in frames:
        done = frame[(frame["ratio"] == "mixup") & frame["score"].notna()]
        own = done["expected"].notna()
        expected = expected or bool(own.any())
        drawn |= {int(rows["lam"].nunique()) for _, rows in done[~own].groupby([*_ROW, "alpha"])}
    few, many = (sorted(n for n in drawn if (n < LEAST_DRAWS) == is_few) for is_few in (True, False))
    return [
        *(["M3: the expectation over λ, from response curves."] if expected else []),
        *([f"M3: mean of {_counted(few)} of λ; bars: items, of these draws."] if few else []),
        *([f"M3: mean of {_counted(many)} of λ; bars: items and draws."] if many else []),
    ]


def _counted(draws: Sequence[int]) -> str:
    return f"{' or '.join(map(str, draws))} draw{'s' if draws[-1] > 1 else ''}"
