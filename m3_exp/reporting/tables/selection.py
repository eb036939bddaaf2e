"""`--select`: one row for each pair and method with the candidate that was chosen, and its score.

How it is chosen and scored is `stats/choosing.py`'s business. Percent throughout.
"""

from collections.abc import Mapping, Sequence

import pandas as pd

from m3_exp.reporting.choices.candidates import Group, groups
from m3_exp.reporting.choices.readable import readable
from m3_exp.reporting.comparisons import contrasts
from m3_exp.reporting.comparisons.contrasts import Compared
from m3_exp.reporting.data.dataframe import thinned
from m3_exp.reporting.data.params import defaults
from m3_exp.reporting.table import NOTHING, SPOKEN, Cell, Column, Rebuild, Record, Table, named_columns, percent, words
from m3_exp.reporting.tables.footers import footer, rebuild
from m3_exp.stats import unread
from m3_exp.stats.choosing import HALVINGS, HOW, Chosen, How, choose
from m3_exp.stats.estimate import Estimate
from m3_exp.stats.joint import ENOUGH
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
    """Return what is chosen for each pair and method of a frame, and what it is worth.

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
    questions = groups(frame, dev_frame, parents)
    left_out = readable(frame, parents).left_out
    said = [unread.sentence(left_out, f"{unread.SAID}, so these are not chosen from")] * bool(left_out)
    if not questions:
        why = said[0] if said else f"no two candidates have results; first: {command}"
        raise M3Error(f"{name}: there is nothing to choose from, {why}")
    if how == "dev" and all(group.dev is None for group in questions):
        raise M3Error(f"--select dev: no candidate has results on development items; first: {command} items=dev")
    able = [group for group in questions if how != "dev" or group.dev is not None]
    outcomes = [choose(group.candidates, how, dev=group.dev, seed=seed) for group in able]
    compared = _compared(able, outcomes, how)
    notes = [*_says(how, able), _family(compared, how), _counted(able), *_left_out(questions, able, how), *said]
    return _table(name, how, able, outcomes, compared, _notes(frame, able, outcomes, notes), beside)


def _notes(
    frame: pd.DataFrame, groups: Sequence[Group], outcomes: Sequence[Chosen], notes: Sequence[str]
) -> list[str | Rebuild]:
    """Return the notes: how to rebuild the chosen candidates; of a chosen alpha, how to rebuild its curve's weights."""
    shown, behind = set[int](), set[int]()
    for group, chosen in zip(groups, outcomes, strict=True):
        (behind if group.question == "alpha" else shown).update(group.rows[chosen.name])
    curves = ["An alpha is no model: what its curve is made of is rebuilt by the lines of the same table with --all."]
    chosen_lines = frame.loc[sorted(shown)]
    nodes = frame.loc[sorted(behind)] if behind else None
    return [*footer(chosen_lines, [*notes, *(curves if behind else [])], nodes), rebuild(chosen_lines)]


_STAMP = "on test"


def _compared(groups: Sequence[Group], outcomes: Sequence[Chosen], how: How) -> list[Compared | None]:
    """Return each gain with its p-value, adjusted over the rows that can carry a sign; none with how=test."""
    known = enumerate(zip(groups, outcomes, strict=True))
    gains = {(row, 0): (one.gain, group.why) for row, (group, one) in known if one.gain is not None and how != "test"}
    verdicts = contrasts.adjusted(gains)
    return [verdicts.get((row, 0)) for row in range(len(groups))]


def _family(compared: Sequence[Compared | None], how: How) -> str:
    """Name the question that the marks answer, and the difference that they could detect."""
    if how == "test":
        return "No difference is called significant, and none has a p-value: the items that chose are those that score."
    count = sum(one is not None and not one.why for one in compared)
    if not count:
        return "No row has a difference that could be called significant."
    return (
        f"Better, worse, not told apart: does what is chosen differ from the default? One family, the {count} such rows"
        " of this table, at 5 % after Holm. Behind `not told apart`: a true difference below that many points could not"
        " have been seen (power 80 %, at the level that is used)."
    )


def _table(
    name: str,
    how: How,
    groups: Sequence[Group],
    outcomes: Sequence[Chosen],
    compared: Sequence[Compared | None],
    notes: Sequence[str | Rebuild],
    beside: Mapping[tuple[str, str], str] | None,
) -> Table:
    benchmarks = list(dict.fromkeys(b for group in groups for b in group.candidates.scores))
    last = {"crossfit": "claimed on the same items", "dev": "claimed on the test items", "test": "price of that"}
    columns = (
        *named_columns(["method", "models", "DARE", "choice of"]),
        *map(Column, ["chosen", *([] if beside is None else ["paper (Table 4)"])]),
        Column("mean (of parent)", benchmark="mean", what="(of parent)"),
        *map(Column, ["minus default", last[how]]),
        *(Column(b, benchmark=b) for b in benchmarks),
    )
    rows = []
    for group, chosen, verdict in zip(groups, outcomes, compared, strict=True):
        also = None if beside is None else beside.get((group.names["method"], group.names["pair"]), "not published")
        joint, alone = _records(group, chosen, how, verdict, also)
        rows.append((
            *_names(group), words(_chosen_text(chosen, how)), *([words(also)] if also else []),
            *_joint(group, chosen, how, verdict, joint),
            *(_cell(chosen.benchmarks[b], how, alone[b]) if b in chosen.benchmarks else NOTHING for b in benchmarks),
        ))  # fmt: skip
    title = f"{name}, chosen on the test items" if how == "test" else name
    return Table(title, columns, tuple(rows), tuple(notes), (_BRIEFLY[how], _RELATIVE))


def _counted(groups: Sequence[Group]) -> str:
    """Say over how many items the scores are, and how many have none."""
    counts: dict[str, set[str]] = {}
    for group in groups:
        for b, one in group.candidates.scores.items():
            without = (
                f" (and {one.unscored} not scored by all: in the intervals at worst and best)" if one.unscored else ""
            )
            counts.setdefault(b, set()).add(f"{one.size}{without}")
    return "scored items: " + ", ".join(f"{b} {' or '.join(sorted(texts))}" for b, texts in counts.items())


def _names(group: Group) -> tuple[Cell, ...]:
    what = words(group.question, str(len(group.candidates.names)))
    dare = words(thinned(group.names["sparsify"]))
    return words(group.names["method"], group.names["params"]), words(group.names["pair"]), dare, what


def _joint(group: Group, chosen: Chosen, how: How, verdict: Compared | None, record: Record) -> tuple[Cell, ...]:
    """Return three cells: the mean over benchmarks, its difference from the default, the price of choosing on test."""
    last = str(chosen.price) if how == "test" else f"{100 * chosen.claimed:.1f}"
    score = _cell(chosen.score, how, record, () if group.candidates.relative else ("(plain mean)",))
    return score, _gain(group, chosen, how, verdict), words(last)


def _stamp(how: How) -> tuple[str, ...]:
    return (f"({_STAMP})",) if how == "test" else ()


def _chosen_text(chosen: Chosen, how: How) -> str:
    most = list(chosen.shares.items())[: 3 if how == "crossfit" else 1]
    shown = [f"{name} {100 * share:.0f} %" for name, share in most]
    rest = len(chosen.shares) - len(shown)
    text = "; ".join([*shown, *([f"{rest} more"] if how == "crossfit" and rest > 0 else [])])
    return " ".join([text, *_stamp(how)])


def _cell(estimate: Estimate, how: How, record: Record, more: Sequence[str] = ()) -> Cell:
    unscored = [f"({estimate.unscored} unscored)"] if estimate.unscored else []
    return Cell((*unscored, *more, *_stamp(how)), percent(estimate), record=record)


def _gain(group: Group, chosen: Chosen, how: How, verdict: Compared | None) -> Cell:
    mean_gain = chosen.gain
    if mean_gain is None:
        return NOTHING
    always = how != "crossfit" or chosen.shares[chosen.name] == 1
    if mean_gain.value == 0 and always and chosen.name in group.same:
        return words("the same")
    unseen = verdict.detectable if verdict is not None and verdict.sign == "untold" else None
    below = [] if unseen is None else [f"(below {100 * unseen:.1f})"]
    return Cell((_said(verdict), *below), percent(mean_gain, signed=True))


def _said(verdict: Compared | None) -> str:
    return f"({_STAMP})" if verdict is None else SPOKEN[verdict.sign]


def _records(
    group: Group, chosen: Chosen, how: How, verdict: Compared | None, paper: str | None
) -> tuple[Record, dict[str, Record]]:
    """Return a record for the mean and one for each benchmark; percent and points."""
    unit = "percent of the better parent" if group.candidates.relative else "percent"
    lam = group.lams.get(chosen.name)
    shared = {
        **group.names, "select": how, "question": group.question, "candidates": len(group.candidates.names),
        "chosen": chosen.name, "share": chosen.shares[chosen.name], "lambda": [] if lam is None else [lam],
        "paper": paper,
    }  # fmt: skip
    no_p = {"p": None} if how == "test" else {}  # a p-value of what the same items chose would be no such thing
    known = contrasts.record(verdict)
    joint = {
        "benchmark": "mean", "unit": unit, **_figures(chosen.score, chosen.gain), **no_p,
        "p_adjusted": known["p_adjusted"], "mark": None if chosen.gain is None else _said(verdict),
        "comparisons": known["family"], "detectable": None if group.why else known["detectable"],
        "no_mark": group.why or None,
        "claimed": 100 * chosen.claimed, "price": 100 * chosen.price.points,
        "se": 100 * chosen.price.se, "rho": chosen.price.rho,
    }  # fmt: skip
    empty = dict.fromkeys(
        ("p_adjusted", "mark", "comparisons", "detectable", "no_mark", "claimed", "price", "se", "rho")
    )
    alone: dict[str, Record] = {
        b: {**shared, "benchmark": b, "unit": "percent", **_figures(score, chosen.gains.get(b)), **no_p, **empty}
        for b, score in chosen.benchmarks.items()
    }
    return {**shared, **joint}, alone


def _figures(score: Estimate, difference: Estimate | None) -> dict[str, float | None]:
    figures: dict[str, float | None] = {
        "n": score.n, "n_unscored": score.unscored,
        "score": 100 * score.value, "low": 100 * score.low, "high": 100 * score.high,
    }  # fmt: skip
    if difference is None:
        return figures | dict.fromkeys(("difference", "diff_low", "diff_high", "p"))
    gained = {"difference": difference.value, "diff_low": difference.low, "diff_high": difference.high}
    return figures | {key: 100 * value for key, value in gained.items()} | {"p": difference.p}


_BRIEFLY: Mapping[How, str] = {
    "crossfit": "Chosen on one half of the items, scored on the other, both ways round; percent behind a name: how"
    " often it is chosen. claimed: what choosing and scoring on the same items says.",
    "dev": "Chosen on development items, scored on the test's; percent behind a name: how often it is the best."
    " claimed: what choosing on the test items says.",
    "test": "CHOSEN ON THE ITEMS THAT SCORE IT: flattered by about the price. Better: --select crossfit or dev.",
}
_RELATIVE = "mean (of parent): over benchmarks, each in percent of the better parent. 95 % intervals."
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


def _says(how: How, groups: Sequence[Group]) -> list[str]:
    """Say how it was chosen and what the columns are."""
    shown = {group.names["method"] for group in groups}
    known = "; ".join(f"{method} {params}" for method, params in defaults().items() if method in shown)
    default = f"the method without M3, or {known}" if known else "the method without M3"
    lines = [
        _SAYS[how],
        "Chosen for the mean over benchmarks, each relative to its better parent of those evaluated on it (plain mean:"
        f" none is, or it is right on fewer than {ENOUGH} items). Where the choice alternates, the interval is of all"
        f" choices made anew on resampled items. Default: {default}; paired by item.",
    ]
    if how == "dev":
        lines += _undeveloped(groups)
    if any(group.question == "alpha" for group in groups):
        lines.append(
            "alpha: chosen on expectations from curves with sampled mixtures; intervals hold what these leave open,"
            " lower ends also the luck of the best of seven with mixtures (and masks) that all items share."
        )
    for group in groups:
        lines += [
            f"{group.title}: {note}" for note in (*group.notes, *([f"no claim: {group.why}"] if group.why else []))
        ]
    return list(dict.fromkeys(lines))


def _undeveloped(groups: Sequence[Group]) -> list[str]:
    """Say which benchmarks took no part in the choice, and on how many items the others did."""
    lines: dict[str, list[str]] = {}
    for group in groups:
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


def _left_out(groups: Sequence[Group], able: Sequence[Group], how: How) -> list[str]:
    missing = [group.title for group in groups if group not in able]
    return [f"no results on development items: {', '.join(missing)}"] if missing and how == "dev" else []
