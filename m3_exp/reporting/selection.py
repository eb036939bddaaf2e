"""`--select`: one row for each pair and method with the candidate that was chosen, and what it is worth.

How it is chosen and scored is `choosing.py`'s business. Percent throughout.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from m3_exp.reporting.candidates import DEFAULTS, Group, groups
from m3_exp.reporting.choosing import HALVINGS, HOW, Chosen, How, choose
from m3_exp.reporting.footers import footer
from m3_exp.reporting.formats import Table
from m3_exp.reporting.protocols import ENOUGH
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
    said = [*_says(how, able), _counted(able), *_left_out(found, able, how)]
    shown = sorted({row for group, chosen in zip(able, outcomes, strict=True) for row in group.rows[chosen.name]})
    return _table(name, how, able, outcomes, footer(frame.loc[shown], said), beside)


_STAMP = "on test"


def _table(
    name: str,
    how: How,
    found: Sequence[Group],
    outcomes: Sequence[Chosen],
    footnotes: Sequence[str],
    beside: Mapping[tuple[str, str], str] | None,
) -> Table:
    benchmarks = list(dict.fromkeys(b for group in found for b in group.candidates.values))
    adjusted = iter(stats.holm([o.gain.p for o in outcomes if o.gain]))
    holm = [next(adjusted) if o.gain else None for o in outcomes]
    last = {"crossfit": "claimed on the same items", "dev": "claimed on the test items", "test": "price of that"}
    paper = [] if beside is None else ["paper (Table 4)"]
    header = ("method", "models", "DARE", "choice of", "chosen", *paper, "mean (of parent)", "minus default", last[how])
    rows, records = [], []
    for group, chosen, p in zip(found, outcomes, holm, strict=True):
        also = None if beside is None else beside.get((group.names["method"], group.names["pair"]), "not published")
        shown = [_text(chosen.benchmarks[b]) + _stamp(how) if b in chosen.benchmarks else "/" for b in benchmarks]
        beginning = (*_names(group), _chosen_text(chosen, how), *([also] if also else []))
        rows.append((*beginning, *_joint(group, chosen, how, p), *shown))
        records += _records(group, chosen, how, p, also)
    title = f"{name}, chosen on the test items" if how == "test" else name
    return Table(title, (*header, *benchmarks), tuple(rows), tuple(footnotes), tuple(records))


def _counted(found: Sequence[Group]) -> str:
    """Say over how many items the scores are, and how many are left out."""
    counts: dict[str, set[str]] = {}
    for group in found:
        for b, values in group.candidates.values.items():
            without = group.unscored.get(b, 0)
            counts.setdefault(b, set()).add(
                f"{len(values)}" + (f" ({without} not scored by all, left out)" if without else "")
            )
    return "scored items: " + ", ".join(f"{b} {' or '.join(sorted(texts))}" for b, texts in counts.items())


def _names(group: Group) -> tuple[str, str, str, str]:
    params = f" ({group.names['params']})" if group.names["params"] else ""
    dare = "yes" if group.names["sparsify"] == "dare" else "no"
    what = f"{group.question} ({len(group.candidates.names)})"
    return group.names["method"] + params, group.names["pair"], dare, what


def _joint(group: Group, chosen: Chosen, how: How, p: float | None) -> tuple[str, str, str]:
    """Return the mean over benchmarks, its difference to the default, and what choosing on the test items does."""
    score = _text(chosen.score) + ("" if group.candidates.parents else " (plain mean)") + _stamp(how)
    return (
        score,
        _gain_text(group, chosen, how, p),
        str(chosen.price) if how == "test" else f"{100 * chosen.claimed:.1f}",
    )


def _stamp(how: How) -> str:
    return f" ({_STAMP})" if how == "test" else ""


def _chosen_text(chosen: Chosen, how: How) -> str:
    most = list(chosen.shares.items())[: 3 if how == "crossfit" else 1]
    shown = [f"{name} {100 * share:.0f} %" for name, share in most]
    rest = len(chosen.shares) - len(shown)
    return "; ".join(shown) + (f"; {rest} more" if how == "crossfit" and rest > 0 else "") + _stamp(how)


def _text(found: Figure) -> str:
    return f"{100 * found.value:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"


def _mark(found: Gain, how: How, p: float | None) -> str:
    """Say whether a difference is real; nothing can be said where the same items chose."""
    if how == "test":
        return f"({_STAMP})"
    if p is None or p >= 1 - stats.LEVEL:
        return "not told apart"
    return "better" if found.value > 0 else "worse"


def _gain_text(group: Group, chosen: Chosen, how: How, p: float | None) -> str:
    found = chosen.gain
    if found is None:
        return "/"
    always = how != "crossfit" or chosen.shares[chosen.name] == 1
    if found.value == 0 and always and chosen.name in group.same:
        return "the same"
    text = f"{100 * found.value:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"
    return f"{text} {_mark(found, how, p)}"


def _records(group: Group, chosen: Chosen, how: How, p: float | None, paper: str | None) -> list[dict[str, Any]]:
    """Return a record for the mean and one for each benchmark; percent and points."""
    unit = "percent of the better parent" if group.candidates.parents else "percent"
    lam = group.lams.get(chosen.name)
    shared = {
        **group.names, "select": how, "question": group.question, "candidates": len(group.candidates.names),
        "chosen": chosen.name, "share": chosen.shares[chosen.name], "lambda": [] if lam is None else [lam],
        "paper": paper,
    }  # fmt: skip
    sizes = {b: len(values) for b, values in group.candidates.values.items()}
    said = {"p": None} if how == "test" else {}  # a p-value of what the same items chose would be no such thing
    p = None if how == "test" else p
    joint = {
        "benchmark": "mean", "unit": unit, "n": sum(sizes.values()), **_figures(chosen.score, chosen.gain), **said,
        "p_holm": p, "mark": None if chosen.gain is None else _mark(chosen.gain, how, p),
        "claimed": 100 * chosen.claimed, "price": 100 * chosen.price.points,
        "se": 100 * chosen.price.se, "rho": chosen.price.rho,
    }  # fmt: skip
    empty = dict.fromkeys(("p_holm", "mark", "claimed", "price", "se", "rho"))
    alone = [
        {"benchmark": b, "unit": "percent", "n": sizes[b], **_figures(score, chosen.gains.get(b)), **said, **empty}
        for b, score in chosen.benchmarks.items()
    ]
    return [{**shared, **record} for record in (joint, *alone)]


def _figures(score: Figure, difference: Gain | None) -> dict[str, float | None]:
    found: dict[str, float | None] = {"score": 100 * score.value, "low": 100 * score.low, "high": 100 * score.high}
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
        f" none is, or it is right on fewer than {ENOUGH} items); what is cross-fitted or a mean over benchmarks"
        f" is resampled. Default: the method without M3, or {defaults}; paired by item, better and worse after Holm's"
        " adjustment over the rows.",
    ]
    if how == "dev":
        lines += _undeveloped(found)
    return [*lines, *(f"{group.title}: {note}" for group in found for note in group.notes)]


def _undeveloped(found: Sequence[Group]) -> list[str]:
    """Say which benchmarks took no part in the choice, and on how many items the others did."""
    lines: dict[str, list[str]] = {}
    for group in found:
        assert group.dev is not None
        sizes = {b: len(values) for b, values in group.dev.values.items()}
        without = [b for b in group.candidates.values if b not in sizes]
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
