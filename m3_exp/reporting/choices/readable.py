"""Tidy frame -> what may be advised from: results of which most answers hold nothing to read are left out.

A benchmark is *silent* for a pair where no single model of it can be read there (where none is evaluated: no merge).
Then it is the prompt, the template or the length that fails, and its zeros say nothing of a merge. Where one single
model can be read, the benchmark is asked as it should be: zeros of the others are zeros by its rule, as they are for an
expert of another skill. A merge that cannot be read itself is never chosen.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from m3_exp.reporting.curves.evaluated import unread_cells
from m3_exp.stats.unread import Unread


@dataclass(frozen=True)
class Readable:
    """A frame without the merges of silent benchmarks, and what that and `chosen` leave out, by name.

    `chosen`: the same frame, in which merges that cannot be read have no score. Curves are drawn from `frame`: a node
    without a score would leave a gap.
    """

    frame: pd.DataFrame
    chosen: pd.DataFrame
    left_out: tuple[tuple[str, Unread], ...]


def readable(frame: pd.DataFrame, parents: Mapping[str, Sequence[str]]) -> Readable:
    """Leave out of a frame what nothing is to be advised from. `parents`: each pair's experts, as singles are called.

    The lines that stay keep their labels.
    """
    silent, alone = set[tuple[str, str, str]](), set[tuple[str, str]]()
    done = frame[frame["score"].notna()]
    single = done[done["method"] == "single"]
    for (family, pair, benchmark), rows in done[done["method"] != "single"].groupby(["family", "pair", "benchmark"]):
        own = single[(single["family"] == family) & (single["benchmark"] == benchmark)]
        ends = pd.concat([own[own["pair"].isin(list(parents.get(pair, ())))], rows[rows["lam"].isin([0.0, 1.0])]])
        if bool((ends if len(ends) else rows)["unread"].notna().all()):
            silent.add((family, pair, benchmark))
            alone |= {(name, benchmark) for name in parents.get(pair, ())}
    places = zip(frame["family"], frame["pair"], frame["benchmark"], strict=True)
    kept = frame.loc[[place not in silent for place in places]]
    mute = kept["unread"].notna() & (kept["method"] != "single")
    lost = [*frame.index.difference(kept.index), *kept.index[mute]]
    lost += [row for row in single.index if (single.at[row, "pair"], single.at[row, "benchmark"]) in alone]
    left_out = frame.loc[sorted(set(lost))]
    return Readable(kept, kept.assign(score=kept["score"].mask(mute)), tuple(unread_cells(left_out)))
