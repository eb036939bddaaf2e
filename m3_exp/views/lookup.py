"""A request looked up in its store: plan, results, frames, and the experts that they are named by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from m3_exp import config, planning
from m3_exp.command_line import CommandLine
from m3_exp.config import Request
from m3_exp.merging.mixtures import CURVE
from m3_exp.reading.records import say as warn
from m3_exp.reporting.data import saved
from m3_exp.results import gone_words, look_up
from m3_exp.scoring.items import is_development
from m3_exp.store import Store
from m3_exp.types import CellResult, M3Error, Plan

if TYPE_CHECKING:
    import pandas as pd

    from m3_exp.reporting.curves.evaluated import Response


@dataclass(frozen=True)
class Lookup:
    """A request and what its store held when it was first asked for: a picture of a moment, made anew by each view."""

    request: Request

    @classmethod
    def of(cls, asked: CommandLine | Request) -> Lookup:
        """Compose what a command line asks for, where it is not composed yet."""
        return cls(config.compose(asked))

    @cached_property
    def store(self) -> Store:
        return Store(self.request.store)

    @property
    def name(self) -> str:
        return self.request.sweep or "run"

    @property
    def seed(self) -> int:
        return self.request.plan.seed

    @property
    def experts(self) -> dict[str, tuple[str, ...]]:
        """The experts of each pair, as single models are called in frames."""
        return {**self.request.experts, **{c.pair: tuple(c.experts) for c in self.request.configs}}

    @property
    def parents(self) -> dict[str, tuple[str, ...]]:
        """The experts of each pair that is merged."""
        return {pair: names for pair, names in self.experts.items() if len(names) > 1}

    @property
    def published(self) -> Path | None:
        """The folder of the paper's numbers, where they may stand beside ours: its models, on the official items."""
        configs = self.request.configs
        alike = all(c.published and all(e.items == "official" for e in c.evaluators) for c in configs)
        return config.ROOT / "results" / "published" if configs and alike else None

    @cached_property
    def _found(self) -> list[CellResult]:
        for note in gone_words(self.request.plan):
            warn(note)
        return self._look_up(self.request.plan, repeats=True)

    def _look_up(self, plan: Plan, *, repeats: bool = False) -> list[CellResult]:
        """Look a plan up, and make the lines of its frame where the results are read: by every core."""
        from m3_exp.reporting.data import dataframe

        return look_up(plan, self.store, repeats=repeats, beside=dataframe.lines_of)

    @property
    def found(self) -> list[CellResult]:
        """Every cell with its result, without repeats."""
        return [item for item in self._found if not item.repeat]

    def frame(self, *, draws: bool = False) -> pd.DataFrame:
        """Return the tidy frame of every cell, and of the experts alone. `draws` adds the draws of lambda that other
        runs left in the store for the plan's pairs and methods.
        """
        from m3_exp.reporting.data import dataframe

        others = self._look_up(saved.draws(self.store, self.request.plan)) if draws else []
        return dataframe.tidy([*self.found, *self.alone, *(item for item in others if item.record is not None)])

    @cached_property
    def alone(self) -> list[CellResult]:
        """The experts of merges by themselves, where the request does not name them and the store has them.

        The ends of a grid are among them: lambda 1 is the first expert.
        """
        found = [item for plan in self._alone for item in self._look_up(plan)]
        return [item for item in found if item.record is not None]

    @property
    def _alone(self) -> list[Plan]:
        named = {(c.family, c.pair) for c in self.request.configs}
        single = [c for c in planning.alone(self.request.configs) if (c.family, c.pair) not in named]
        return [planning.build(single)] if single else []

    @property
    def plans(self) -> list[Plan]:
        """All plans that a table, page or response of this request looks up."""
        draws = saved.draws(self.store, self.request.plan)
        return [self.request.plan, *self._alone, *self._behind, draws]

    @property
    def repeats(self) -> pd.DataFrame:
        """The tidy frame of the cells that were repeated, with the lines of repeats."""
        from m3_exp.reporting.data import dataframe

        repeated = {id(item.cell) for item in self._found if item.repeat}
        return dataframe.tidy([item for item in self._found if id(item.cell) in repeated], repeats=True)

    @cached_property
    def behind(self) -> pd.DataFrame | None:
        """For table1 and figure4: the tidy frame of the lambda grids (and plain rows) of the same pairs and methods.

        M3 rows of these tables are expectations on those curves. None if no grid was evaluated.
        """
        if not self._behind:
            return None
        from m3_exp.reporting.data import dataframe

        frame = dataframe.tidy([item for plan in self._behind for item in self._look_up(plan)])
        evaluated = frame["score"].notna() & frame["kind"].isin(["node", "sampled"])
        return frame if bool(evaluated.any()) else None

    @property
    def _behind(self) -> list[Plan]:
        configs = self.request.configs
        grids = [replace(c, ratio=CURVE) for c in configs if c.ratio.name == "mixup"]
        if not grids or self.request.sweep_table not in ("table1", "figure4"):
            return []
        plain = [c for c in configs if c.ratio.name == "plain" and len(c.experts) > 1]
        return [planning.build([*grids, *plain])]


def named_sweep(asked: CommandLine) -> str | None:
    """Return what the command line says of `sweeps=`; None where it says nothing.

    Raises:
        M3Error: it says two things.
    """
    named = list(dict.fromkeys(asked.values("sweeps")))
    if len(named) > 1:
        both = ", ".join(f"sweeps={name}" for name in named)
        raise M3Error(f"{both}: one sweep at a time (m3 report takes several, with commas between)")
    return named[0] if named else None


def of_sweep(sweep: str, asked: CommandLine) -> CommandLine:
    """Return the command line that asks for a sweep with the overrides given."""
    return asked.with_overrides(f"sweeps={sweep}", *asked.overrides)


def look_up_sweep(sweep: str, asked: CommandLine) -> Lookup:
    """Look up a sweep with the overrides given."""
    return Lookup.of(of_sweep(sweep, asked))


def look_up_development(sweep: str, asked: CommandLine) -> Lookup:
    """Look up a sweep on development items. A benchmark with a file of items has none: the file holds the test's.

    Raises:
        M3Error: no benchmark has development items.
    """
    others = asked.without("items", "sweeps")
    request = config.compose(of_sweep(sweep, others.with_overrides(*others.overrides, "items=dev")))
    own = [tuple(e for e in c.evaluators if is_development(e.items)) for c in request.configs]
    configs = tuple(replace(c, evaluators=kept) for c, kept in zip(request.configs, own, strict=True) if kept)
    if not configs:
        raise M3Error("no benchmark has development items: choose by cross-fitting (m3 table NAME --select crossfit)")
    return Lookup(replace(request, configs=configs))


def development_curves(sweep: str, asked: CommandLine, parents: Mapping[str, Sequence[str]]) -> list[Response]:
    """Return a sweep's curves on development items; none where no benchmark has such items."""
    from m3_exp.reporting.curves import evaluated

    try:
        return evaluated.responses(look_up_development(sweep, asked).frame(), parents)
    except M3Error:
        return []
