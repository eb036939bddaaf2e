"""The first words of `m3 run`, `m3 response` and the page: three sentences, always in this order.

    1. Does a merge beat the better single model, on average over benchmarks and in the worst of them?
    2. Does a random ratio (M3) beat a tuned one?
    3. Which alphas?

A difference stands with its interval. Where the results cannot answer, the sentence says what is missing, and the line
that evaluates it. Nothing is built on zeros that are no zeros (`readable.py`).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from m3_exp.reporting.choices import tuned
from m3_exp.reporting.choices.readable import readable
from m3_exp.reporting.choices.relative import relative
from m3_exp.reporting.choices.superior import EACH, Found, Superior, superior
from m3_exp.reporting.choices.tuned import Difference
from m3_exp.reporting.curves import expectations
from m3_exp.reporting.curves.evaluated import Response, grouped, responses
from m3_exp.reporting.data.dataframe import ItemValues
from m3_exp.reporting.table import Figure
from m3_exp.stats import unread
from m3_exp.stats.estimate import Estimate
from m3_exp.stats.expectation import ALPHAS
from m3_exp.stats.scored import any_attacked
from m3_exp.stats.superiority import Gain


@dataclass(frozen=True)
class Lines:
    """The lines that evaluate what may lack: the request itself, its single models, its response curves."""

    again: str
    alone: str
    curves: str


def first_words(frame: pd.DataFrame, parents: Mapping[str, Sequence[str]], run: Lines) -> list[str]:
    """Return the three sentences; one where nothing is merged, or nothing can be read.

    A fourth names what they leave out, as most of its answers hold nothing to read.

    Args:
        frame: a tidy frame of single models and merges.
        parents: each pair's experts, as the frame's single models are called.
        run: what to run for what is missing.
    """
    pairs = {pair: names for pair, names in parents.items() if len(names) > 1}
    if not bool(frame["pair"].isin(list(pairs)).any()):
        return ["There is no merge here, only single models."]
    known = readable(frame.loc[[not _attacked(values) for values in frame["values"]]], pairs)
    frame, said = known.frame, [unread.sentence(known.left_out, _NOT_BUILT_ON)] * bool(known.left_out)
    single, merged = frame[frame["method"] == "single"], frame[frame["pair"].isin(list(pairs))]
    if not len(merged):
        return said or ["All merges here are under attack: the table says what each one loses."]
    lines = grouped(responses(frame, pairs)) if "grid" in set(merged["ratio"]) else []
    differences = tuned.differences(merged, single, pairs, lines)
    return [
        _superior(superior(known.chosen[known.chosen["pair"].isin(list(pairs))], single, pairs), run),
        _random(differences, run.curves),
        _alphas(merged, lines, run.curves, said=isinstance(differences, str)),
        *said,
    ]


_NOT_BUILT_ON = "Nothing is advised from cells of which most answers hold nothing to read"


def _attacked(values: object) -> bool:
    """Tell whether a result is one under attack: that is another score than its benchmark's."""
    if isinstance(values, ItemValues):
        return any_attacked(values.ids)
    return isinstance(values, Mapping) and any_attacked(tuple(key for key, _ in values))


# ---------------------------------------------------------------------------------- a merge and the better single model


def _superior(found: Found, run: Lines) -> str:
    """Say which merge gains the most on average, and which in the worst benchmark: the same one if it does as well."""
    if found.why is not None:
        line = {"single models": run.alone, "merges": run.again, "items": "more items are needed"}[found.why.lacking]
        return f"Whether a merge beats the better single model is not known ({found.why.text}): {line}"
    known = found.merges
    best = max(known, key=lambda one: (one.mean.sure, one.mean.value))
    worst = max(known, key=lambda one: (one.least.sure, one is best, one.least.value))
    pairs = len({one.merge.pair for one in known})
    named, against = _subject(best, pairs), _against(best)
    if best.mean.sure:
        first = f"The merge {named} beats {against} by {_amount(best.mean)}{_in_pairs(known, pairs)}"
    else:
        verb = "beats" if all(one.mean.high < 0 for one in known) else "is known to beat"
        which = f"the best of {len(known)}, {named}," if len(known) > 1 else named
        first = f"No merge {verb} {against}: {which} is at {_amount(best.mean)}"
    several = len(best.merge.benchmarks) > 1
    if several:
        who = "it" if worst is best else _subject(worst, pairs)
        verb = "gains" if worst.least.sure else "is at" if worst.least.high < 0 else "cannot be told apart:"
        first += f"; in the worst benchmark {who} {verb} {_amount(worst.least)}"
    return f"{first} ({_unit(relative=several)}; {_level(found, best.merge.lacking)})."


def _subject(one: Superior, pairs: int) -> str:
    return one.merge.name + (f" of {one.merge.pair}" if pairs > 1 else "")


def _against(one: Superior) -> str:
    """Name what a merge is compared with, and on what."""
    on, parent = one.merge.benchmarks, one.mean.parent
    model = "the better single model" + (" of each benchmark" if parent == EACH and len(on) > 1 else "")
    name = "" if parent == EACH else f", {parent},"
    if len(on) == 1:
        return f"{model}{name} on {on[0]}"
    count = f"{len(on)} of {one.merge.of}" if len(on) < one.merge.of else f"{len(on)}"
    return f"{model}{name} on average over {count} benchmarks"


def _in_pairs(known: Sequence[Superior], pairs: int) -> str:
    """Say in how many pairs a merge beats the better single model on average, where there are several."""
    better = {one.merge.pair for one in known if one.mean.sure}
    return f" (in {len(better)} of {pairs} pairs)" if pairs > 1 else ""


def _level(found: Found, lacking: Sequence[str]) -> str:
    """Say for how many merges the intervals hold, and what was left out."""
    every = f" for all {found.count} at once" if found.count > 1 else ""
    lost = f"; {found.lost} more without all results" if found.lost else ""
    return f"95 %{every}{lost}" + (f"; not evaluated alone on all: {', '.join(lacking)}" if lacking else "")


def _unit(*, relative: bool) -> str:
    return "% of each benchmark's better model" if relative else "points"


def _amount(figure: Gain | Estimate) -> str:
    """Write a difference from -1 to 1 with its interval, as in `-12.1 [-20.3, -3.9]`."""
    shown = Figure(100 * figure.value, 100 * figure.low, 100 * figure.high)
    return f"{shown} {shown.interval}"


# ------------------------------------------------------------------------------------------------- random against tuned


def _random(found: Sequence[Difference] | str, curves: str) -> str:
    """Say whether a random ratio is above or below a tuned one: where that is clearest, and in how many others."""
    if isinstance(found, str):
        return f"Whether a random ratio beats a tuned one is not known ({found}): {curves}"
    one = min(found, key=lambda one: (one.p, -abs(one.estimate.value)))
    how = ", chosen on other items" if one.tuned.startswith("lambda") else ""
    over = f" on average over {one.benchmarks} benchmarks" if one.benchmarks > 1 else ""
    start, end = f"A random ratio (M3, alpha {one.alpha:g})", f"({_unit(relative=one.relative)}; 95 %)."
    if len(found) == 1:
        verb = {"better": "beats", "worse": "loses to", "": "cannot be told from"}[_verdict(one)]
        return f"{start} {verb} a tuned one ({one.tuned}{how}){over}: {_amount(one.estimate)} {end}"
    count = Counter(map(_verdict, found))
    told = f"beats a tuned one in {count['better'] or 'none'} and loses to it in {count['worse'] or 'none'}"
    if count[""] == len(found):
        told = "cannot be told from a tuned one in any"
    clearest = f"{one.name}{over}, {_amount(one.estimate)} against {one.tuned}{how}"
    return f"{start} {told} of {len(found)} pairs and methods; clearest: {clearest} {end}"


def _verdict(one: Difference) -> str:
    return "" if not one.sure else "better" if one.estimate.value > 0 else "worse"


# --------------------------------------------------------------------------------------------------------- which alphas


def _alphas(merged: pd.DataFrame, lines: Sequence[Sequence[Response]], curves: str, *, said: bool) -> str:
    """Say which alphas may be the best by their curves, else which are evaluated. `said`: the line stands above."""
    sets = [(line[0].name, known) for line in lines if (known := _best(line)) is not None]
    if not sets:
        drawn = sorted(set(merged.loc[merged["score"].notna(), "alpha"].dropna()))
        why = f"draws of {len(drawn)} alphas do not tell" if drawn else "none is evaluated"
        why = f"only alpha {drawn[0]:g} is evaluated" if len(drawn) == 1 else why
        return f"Which alpha is best is not known ({why}): {'the same command' if said else curves}"
    fewer = [(name, known) for name, known in sets if len(known) < len(ALPHAS)]
    if not fewer:
        return "Any of the seven alphas may be the best (95 %); it takes more items to leave one out."
    name, known = min(fewer, key=lambda one: len(one[1]))
    if len(sets) == 1:
        return f"The best alpha is {_among(known)} (95 %)."
    left = f"{len(fewer)} of {len(sets)} pairs and methods leave alphas out"
    return f"The best alpha is {_among(known)} for {name} (95 %); {left}."


def _best(line: Sequence[Response]) -> tuple[float, ...] | None:
    """Return the alphas of which one is the best with 95 %, of the mean over benchmarks; None where none is claimed."""
    known = relative(line)
    if not all(response.gridded for response in line):
        return None
    if not known.objectives:
        return expectations.best_alphas(line)
    return expectations.best_alphas(known.responses, known.objectives[0].measures)


def _among(alphas: Sequence[float]) -> str:
    return f"{alphas[0]:g}" if len(alphas) == 1 else f"among {_listed(alphas)}"


def _listed(alphas: Sequence[float]) -> str:
    texts = [f"{alpha:g}" for alpha in alphas]
    return ", ".join(texts[:-1]) + f" and {texts[-1]}" if len(texts) > 1 else texts[0]
