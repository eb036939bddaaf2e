"""`--select`: one row for each pair and method with the candidate that was chosen, and what it is worth.

How it is chosen and scored is `choosing.py`'s business. Percent throughout.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from m3_exp.reporting.choices.candidates import DEFAULTS, Group, groups
from m3_exp.reporting.choices.choosing import HALVINGS, HOW, Chosen, How, choose
from m3_exp.reporting.choices.protocols import ENOUGH
from m3_exp.reporting.tables.footers import footer
from m3_exp.reporting.tables.formats import Table
from m3_exp.stats import family
from m3_exp.stats.estimate import Estimate
from m3_exp.types import M3Error


def build(
    name: str,
    frame: pd.DataFrame,
    dev_frame: pd.DataFrame | None,
    how: How,
    parents: Mapping[str, Sequence[str]],
    *,
    command: str = "",
    beside: Mapping[tuple[str, str], str] | None = None,
    seed: int = 0,
) -> Table:
    """Lay out what is chosen for each pair and method of a frame, and what it is worth.

    Args:
        dev_frame: the same cells on development items; `how="dev"` needs it.
        parents: each pair's experts, as the frame's singles are called.
        command: the line that runs the cells, for what is missing; by default the sweep `name`.
        beside: what the paper chose, by (method, pair): a column of its own (Table 4).

    Raises:
        M3Error: nothing to choose from, or no development results.
    """
    if how not in HOW:
        raise M3Error(f"--select {how} is not known; allowed: {', '.join(HOW)}")
    command = command or f"m3 run sweeps={name}"
    found = groups(frame, dev_frame, parents)
    if not found:
        raise M3Error(f"{name}: there is nothing to choose from, no two candidates have results; first: {command}")
    if how == "dev" and all(group.dev is None for group in found):
        raise M3Error(f"--select dev: no candidate has results on development items; first: {command} items=dev")
    able = [group for group in found if how != "dev" or group.dev is not None]
    outcomes = [choose(group, how, seed=seed) for group in able]
    told = _told(able, outcomes, how)
    said = [*_says(how, able), _family(told, how), _counted(able), *_left_out(found, able, how)]
    return _table(name, how, able, outcomes, told, _footer(frame, able, outcomes, said), beside)


def _footer(frame: pd.DataFrame, found: Sequence[Group], outcomes: Sequence[Chosen], said: Sequence[str]) -> list[str]:
    """Return what stands below: how to rebuild what was chosen, but of an alpha only what its curve was made with."""
    shown, behind = set[int](), set[int]()
    for group, chosen in zip(found, outcomes, strict=True):
        (behind if group.question == "alpha" else shown).update(group.rows[chosen.name])
    curves = ["An alpha is no model: what its curve is made of is rebuilt by the lines of m3 table ... --all."]
    return footer(
        frame.loc[sorted(shown)], [*said, *(curves if behind else [])], frame.loc[sorted(behind)] if behind else None
    )


_STAMP = "on test"


@dataclass(frozen=True)
class _Told:
    """What is said of one row's `chosen - default`: its adjusted p-value as one of `family`, and the mark in words."""

    mark: str
    p_adjusted: float | None = None
    family: int | None = None
    detectable: float | None = None


def _told(found: Sequence[Group], outcomes: Sequence[Chosen], how: How) -> list[_Told | None]:
    """Judge the rows' gains, one family (Holm); nothing can be said where the same items chose."""
    if how == "test":
        return [None if one.gain is None else _Told(f"({_STAMP})") for one in outcomes]
    claims = [None if one.gain is None or group.why else one.gain for group, one in zip(found, outcomes, strict=True)]
    adjusted = iter(family.holm([_p(gain) for gain in claims if gain is not None]))
    count = sum(gain is not None for gain in claims)
    return [
        _judged(gain, next(adjusted), count) if gain is not None
        else None if one.gain is None else _Told("no claim", _p(one.gain), 1)
        for gain, one in zip(claims, outcomes, strict=True)
    ]  # fmt: skip


def _p(gain: Estimate) -> float:
    return 1.0 if gain.p is None else gain.p


def _judged(gain: Estimate, p: float, count: int) -> _Told:
    mark = "not told apart" if p >= family.LIMIT else "better" if gain.value > 0 else "worse"
    return _Told(mark, p, count, family.detectable(gain, count))


def _family(told: Sequence[_Told | None], how: How) -> str:
    """Name the question that the marks answer, and what they could have found."""
    if how == "test":
        return "No difference is called real, and none has a p-value: the items that chose are those that score."
    count = sum(one is not None and one.detectable is not None for one in told)
    if not count:
        return "No row has a difference that could be called real."
    return (
        f"Better, worse, not told apart: does what is chosen differ from the default? One family, the {count} such rows"
        " of this table, at 5 % after Holm. Behind `not told apart`: a true difference below that many points could not"
        " have been seen (power 80 %, at the level that is used)."
    )


def _table(
    name: str,
    how: How,
    found: Sequence[Group],
    outcomes: Sequence[Chosen],
    told: Sequence[_Told | None],
    footnotes: Sequence[str],
    beside: Mapping[tuple[str, str], str] | None,
) -> Table:
    benchmarks = list(dict.fromkeys(b for group in found for b in group.candidates.scores))
    last = {"crossfit": "claimed on the same items", "dev": "claimed on the test items", "test": "price of that"}
    paper = [] if beside is None else ["paper (Table 4)"]
    header = ("method", "models", "DARE", "choice of", "chosen", *paper, "mean (of parent)", "minus default", last[how])
    rows, records = [], []
    for group, chosen, said in zip(found, outcomes, told, strict=True):
        also = None if beside is None else beside.get((group.names["method"], group.names["pair"]), "not published")
        shown = [_text(chosen.benchmarks[b]) + _stamp(how) if b in chosen.benchmarks else "/" for b in benchmarks]
        beginning = (*_names(group), _chosen_text(chosen, how), *([also] if also else []))
        rows.append((*beginning, *_joint(group, chosen, how, said), *shown))
        records += _records(group, chosen, how, said, also)
    title = f"{name}, chosen on the test items" if how == "test" else name
    return Table(title, (*header, *benchmarks), tuple(rows), tuple(footnotes), tuple(records))


def _counted(found: Sequence[Group]) -> str:
    """Say over how many items the scores are, and how many have none."""
    counts: dict[str, set[str]] = {}
    for group in found:
        for b, one in group.candidates.scores.items():
            without = (
                f" (and {one.unscored} not scored by all: in the intervals at worst and best)" if one.unscored else ""
            )
            counts.setdefault(b, set()).add(f"{one.size}{without}")
    return "scored items: " + ", ".join(f"{b} {' or '.join(sorted(texts))}" for b, texts in counts.items())


def _names(group: Group) -> tuple[str, str, str, str]:
    params = f" ({group.names['params']})" if group.names["params"] else ""
    dare = "yes" if group.names["sparsify"] == "dare" else "no"
    what = f"{group.question} ({len(group.candidates.names)})"
    return group.names["method"] + params, group.names["pair"], dare, what


def _joint(group: Group, chosen: Chosen, how: How, told: _Told | None) -> tuple[str, str, str]:
    """Return the mean over benchmarks, its difference to the default, and what choosing on the test items does."""
    score = _text(chosen.score) + ("" if group.candidates.relative else " (plain mean)") + _stamp(how)
    return (
        score,
        _gain_text(group, chosen, how, told),
        str(chosen.price) if how == "test" else f"{100 * chosen.claimed:.1f}",
    )


def _stamp(how: How) -> str:
    return f" ({_STAMP})" if how == "test" else ""


def _chosen_text(chosen: Chosen, how: How) -> str:
    most = list(chosen.shares.items())[: 3 if how == "crossfit" else 1]
    shown = [f"{name} {100 * share:.0f} %" for name, share in most]
    rest = len(chosen.shares) - len(shown)
    return "; ".join(shown) + (f"; {rest} more" if how == "crossfit" and rest > 0 else "") + _stamp(how)


def _text(found: Estimate) -> str:
    text = f"{100 * found.value:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"
    return text + (f" ({found.unscored} unscored)" if found.unscored else "")


def _gain_text(group: Group, chosen: Chosen, how: How, told: _Told | None) -> str:
    found = chosen.gain
    if found is None or told is None:
        return "/"
    always = how != "crossfit" or chosen.shares[chosen.name] == 1
    if found.value == 0 and always and chosen.name in group.same:
        return "the same"
    text = f"{100 * found.value:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}] {told.mark}"
    unseen = told.mark == "not told apart" and told.detectable is not None
    return f"{text} (below {100 * told.detectable:.1f})" if unseen and told.detectable is not None else text


def _records(group: Group, chosen: Chosen, how: How, told: _Told | None, paper: str | None) -> list[dict[str, Any]]:
    """Return a record for the mean and one for each benchmark; percent and points."""
    unit = "percent of the better parent" if group.candidates.relative else "percent"
    lam = group.lams.get(chosen.name)
    shared = {
        **group.names, "select": how, "question": group.question, "candidates": len(group.candidates.names),
        "chosen": chosen.name, "share": chosen.shares[chosen.name], "lambda": [] if lam is None else [lam],
        "paper": paper,
    }  # fmt: skip
    said = {"p": None} if how == "test" else {}  # a p-value of what the same items chose would be no such thing
    told = told or _Told("")
    joint = {
        "benchmark": "mean", "unit": unit, **_figures(chosen.score, chosen.gain), **said,
        "p_adjusted": told.p_adjusted, "mark": told.mark or None, "comparisons": told.family,
        "detectable": None if told.detectable is None else 100 * told.detectable, "no_mark": group.why or None,
        "claimed": 100 * chosen.claimed, "price": 100 * chosen.price.points,
        "se": 100 * chosen.price.se, "rho": chosen.price.rho,
    }  # fmt: skip
    empty = dict.fromkeys(
        ("p_adjusted", "mark", "comparisons", "detectable", "no_mark", "claimed", "price", "se", "rho")
    )  # fmt: skip
    alone = [
        {"benchmark": b, "unit": "percent", **_figures(score, chosen.gains.get(b)), **said, **empty}
        for b, score in chosen.benchmarks.items()
    ]
    return [{**shared, **record} for record in (joint, *alone)]


def _figures(score: Estimate, difference: Estimate | None) -> dict[str, float | None]:
    found: dict[str, float | None] = {
        "n": score.n, "n_unscored": score.unscored,
        "score": 100 * score.value, "low": 100 * score.low, "high": 100 * score.high,
    }  # fmt: skip
    if difference is None:
        return found | dict.fromkeys(("difference", "diff_low", "diff_high", "p"))
    gained = {"difference": difference.value, "diff_low": difference.low, "diff_high": difference.high}
    return found | {key: 100 * value for key, value in gained.items()} | {"p": difference.p}


_SAYS: Mapping[How, str] = {
    "crossfit": f"Cross-fitted over {HALVINGS} halvings: chosen on one random half of each benchmark's items, scored on"
    " the other, both ways round; percent behind a candidate: how often it is chosen. The score is that of this"
    " procedure; `claimed` is what choosing on the items it is scored on would have said.",
    "dev": "Chosen on development items (none of them the test's), scored on all test items; percent behind the"
    " candidate: how often it is the best over resampled development items. `claimed` is what choosing on the test"
    " items would have said.",
    "test": "CHOSEN ON THE TEST ITEMS, on which it is scored: flattered. The price, best_of(candidates) x SE x"
    " sqrt(1 - rho), is what the best of equally good candidates gains so by chance (rho measured: their correlation"
    " over items); intervals and `minus default` do not know of the choice. Use --select crossfit or dev.",
}


def _says(how: How, found: Sequence[Group]) -> list[str]:
    """Say how it was chosen and what the columns are."""
    defaults = "; ".join(f"{method} {params}" for method, params in DEFAULTS.items())
    lines = [
        _SAYS[how],
        "Chosen for the mean over benchmarks, each relative to its better parent of those evaluated on it (plain mean:"
        f" none is, or it is right on fewer than {ENOUGH} items). Where the choice alternates, the interval is of all"
        f" choices made anew on resampled items. Default: the method without M3, or {defaults}; paired by item.",
    ]
    if how == "dev":
        lines += _undeveloped(found)
    if any(group.question == "alpha" for group in found):
        lines.append(
            "alpha: chosen on expectations from curves with sampled lambdas; intervals hold what these leave open,"
            " lower ends also the luck of the best of seven with lambdas (and masks) that all items share."
        )
    for group in found:
        lines += [
            f"{group.title}: {note}" for note in (*group.notes, *([f"no claim: {group.why}"] if group.why else []))
        ]
    return list(dict.fromkeys(lines))


def _undeveloped(found: Sequence[Group]) -> list[str]:
    """Say which benchmarks took no part in the choice, and on how many items the others did."""
    lines: dict[str, list[str]] = {}
    for group in found:
        assert group.dev is not None
        sizes = {b: one.size for b, one in group.dev.scores.items()}
        without = [b for b in group.candidates.scores if b not in sizes]
        text = f"chosen on {', '.join(f'{b} {n}' for b, n in sizes.items())} development items"
        if without:
            text += f"; without development items, not in the choice: {', '.join(without)}"
        lacking = len(group.candidates.names) - len(group.dev.names)
        if lacking:
            text += f"; {lacking} candidates have no results on them and were not eligible"
        lines.setdefault(text, []).append(group.title)
    return [f"{', '.join(titles)}: {text}" for text, titles in lines.items()]


def _left_out(found: Sequence[Group], able: Sequence[Group], how: How) -> list[str]:
    missing = [group.title for group in found if group not in able]
    return [f"no results on development items: {', '.join(missing)}"] if missing and how == "dev" else []
