"""Greedy model soups (Wortsman et al. 2022, arXiv 2203.05482): which experts to average, as development items say.

Each expert is scored alone on development items, and the best one is the first soup. From the second best on, each is
added if the average with it scores no lower there. Then the soup is scored on the test items, which chose nothing.

    cooked(request)        `m3 run sweeps=greedy_soup`: a run for each step, so that what is done is not done again
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from m3_exp import actions, config
from m3_exp.command_line import CommandLine, word
from m3_exp.config import Request
from m3_exp.printing import tell
from m3_exp.types import Config, Json, M3Error

Experts = tuple[str, ...]


@dataclass(frozen=True)
class Tried:
    """A soup that was tried: its experts in the order they came in, its development score in percent, whether kept."""

    experts: Experts
    score: float
    is_kept: bool


@dataclass(frozen=True)
class Cooked:
    """What became of it: the experts alone by their development score, the soups tried, and the last soup's cells on
    the test items. `stopped` says where a step was not done: `code` is then the exit code.
    """

    alone: tuple[Tried, ...] = ()
    tried: tuple[Tried, ...] = ()
    held_out: tuple[Json, ...] = ()
    line: str = ""
    stopped: tuple[str, ...] = ()
    code: int = 0

    @property
    def soup(self) -> Experts:
        return next((one.experts for one in reversed(self.tried) if one.is_kept), ())


def command(request: Request, *, hours: float | None, cells: int | None, as_json: bool) -> int:
    """Carry a request out, print what came of it, and return the exit code of `m3 run`."""
    if cells is not None:
        raise M3Error("--cells counts the cells of one plan, a soup has several: give --hours, or leave it out")
    found = cooked(request, hours=hours)
    tell(as_json, lambda: data(found), lambda: lines(found))
    return found.code


class Stopped(Exception):
    """A step was not done: lines that say so, and an exit code."""

    def __init__(self, lines: Sequence[str], code: int) -> None:
        super().__init__(*lines)
        self.lines, self.code = tuple(lines), code


def greedy(scores: Mapping[str, float], score_of: Callable[[Experts], float]) -> list[Tried]:
    """Return the soups that are tried, the best expert alone first. Of equal experts the earlier one comes first."""
    first, *others = sorted(scores, key=lambda name: -scores[name])
    tried = [Tried((first,), scores[first], True)]
    soup = tried[0]
    for name in others:
        experts = (*soup.experts, name)
        score = score_of(experts)
        tried.append(Tried(experts, score, score >= soup.score))
        soup = tried[-1] if tried[-1].is_kept else soup
    return tried


def cooked(request: Request, *, hours: float | None = None) -> Cooked:
    """Carry a request for a greedy soup out.

    Raises:
        M3Error: it is not one plain average of experts, or a benchmark has no development items.
    """
    steps = _Steps(request, _merge_of(request), None if hours is None else time.monotonic() + hours * 3600)
    alone: list[Tried] = []
    tried: list[Tried] = []
    try:
        alone.extend(Tried((name,), steps.development((name,)), True) for name in steps.names)
        tried = greedy({one.experts[0]: one.score for one in alone}, steps.development)
        soup = Cooked(tuple(alone), tuple(tried)).soup
        asked = steps.asked(soup, development=False)
        return Cooked(tuple(alone), tuple(tried), tuple(steps.scores(asked)), asked.line("run"))
    except Stopped as stop:
        return Cooked(tuple(alone), tuple(tried), stopped=stop.lines, code=stop.code)


def _merge_of(request: Request) -> Config:
    merges = [one for one in request.configs if len(one.experts) > 1]
    if len(merges) != 1 or (merges[0].method, merges[0].ratio.name, merges[0].sparsify) != ("average", "plain", None):
        raise M3Error(
            "choose: greedy_soup takes one set of experts, method=average, ratio=plain and sparsify=none, as in "
            "m3 run sweeps=greedy_soup pair=lm_math_code"
        )
    return merges[0]


@dataclass(frozen=True)
class _Steps:
    """The runs of a soup, each a command of its own."""

    request: Request
    merge: Config
    deadline: float | None

    @property
    def names(self) -> Experts:
        """The experts as `pair.experts` calls them."""
        return tuple(self.merge.skills or self.merge.experts)

    def asked(self, experts: Experts, *, development: bool) -> CommandLine:
        """Return the command that scores the average of some experts."""
        own = ("sweeps", "pair", "pair.experts", "method", "ratio", "evaluator", *(["items"] if development else []))
        benchmarks = ",".join(one.name for one in self.merge.evaluators)
        words = (f"pair.experts=[{','.join(map(word, experts))}]", f"evaluator=[{benchmarks}]", "method=average")
        others = self.request.asked.without(*own)
        return others.with_overrides(*words, *others.overrides, *(["items=dev"] if development else []))

    def development(self, experts: Experts) -> float:
        """Return the mean score over the benchmarks on development items, in percent."""
        scores = [one["score"] for one in self.scores(self.asked(experts, development=True))]
        return math.fsum(float(str(score)) for score in scores) / len(scores)

    def scores(self, asked: CommandLine) -> list[Json]:
        """Run a command, and return what it says of each cell.

        Raises:
            Stopped: a cell failed, was not come to, or holds unscored items: no choice can be made on it.
        """
        from m3_exp.views import tables
        from m3_exp.views.lookup import Lookup

        request = config.compose(asked)
        left = None if self.deadline is None else max(0.0, self.deadline - time.monotonic()) / 3600
        outcome = actions.run(request, hours=left)
        if outcome.failures or outcome.left or outcome.wrong:
            what = [
                *map(str, outcome.failures),
                *outcome.wrong,
                *([f"{outcome.left} cells left"] if outcome.left else []),
            ]
            raise Stopped([f"this step is not done: {asked.line('run')}", *what], 1 if outcome.failures else 3)
        found = tables.scores(Lookup.of(request))
        if unscored := [str(one["benchmark"]) for one in found if one["state"] != "done"]:
            told = f"{', '.join(unscored)} has unscored items, nothing is chosen on it: {asked.line('run')}"
            raise Stopped([told], 1)
        return found


def data(found: Cooked) -> Json:
    return {
        "alone": {one.experts[0]: one.score for one in found.alone},
        "tried": [{"experts": [*one.experts], "score": one.score, "kept": one.is_kept} for one in found.tried],
        "soup": [*found.soup], "held_out": [*found.held_out], "command": found.line, "stopped": [*found.stopped],
    }  # fmt: skip


def lines(found: Cooked) -> list[str]:
    """Return what `m3 run` says of a soup."""
    told = ["on development items, mean of the benchmarks in percent:"]
    told += [f"  {one.score:5.1f}  {one.experts[0]} alone" for one in sorted(found.alone, key=lambda one: -one.score)]
    kept = None
    for one in found.tried:
        if kept is not None:
            verdict = f"stays, {one.experts[-1]} is added" if one.is_kept else f"below {kept.score:.1f}: not added"
            told.append(f"  {one.score:5.1f}  {' + '.join(one.experts)}: {verdict}")
        kept = one if one.is_kept else kept
    if found.held_out:
        told += [f"the soup: {' + '.join(found.soup)}; on the test items, which chose nothing (95 % interval):"]
        told += [_scored(one) for one in found.held_out]
        told += [f"again: {found.line}"]
    return [*(told if found.alone else []), *found.stopped]


def _scored(one: Json) -> str:
    score, low, high = (float(str(one[key])) for key in ("score", "low", "high"))
    return f"  {one['benchmark']}: {score:.1f} [{low:.1f}, {high:.1f}], {one['n']} items"
