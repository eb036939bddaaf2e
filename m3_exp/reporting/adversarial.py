"""Tables 2, 5 and 6: accuracy without and under an attack on the instruction, and the drop between them (PDR).

A row is one model: method x pair x with/without M3, a draw of lambda each. Every M3 row is contrasted with the same row
without M3: accuracies as in other tables, PDR by the paired bootstrap. The paper's figures stand beside ours where
the protocol is the paper's: in plain rows with the difference; an M3 row of the paper is another, unknown lambda, so it
has none. There is no z: the paper does not publish task arithmetic's scaling.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from m3_exp.reporting import contrasts, published
from m3_exp.reporting.contrasts import Compared, Entry, Place
from m3_exp.reporting.curves import Values, item_means
from m3_exp.reporting.footers import footer
from m3_exp.reporting.formats import Mark, Table
from m3_exp.reporting.published import NOTES, Beside, Number
from m3_exp.reporting.response import Array
from m3_exp.reporting.stats import LEVEL, Contrast
from m3_exp.reporting.tables import Marks

_HEADER = ("method", "models", "M3", "alpha", "lambda")
_LINE = ["family", "pair", "method", "params", "sparsify"]
_RESAMPLES = 4999
_DETECTABLE = float(special.ndtri(0.5 + LEVEL / 2) + special.ndtri(0.8))  # standard errors, for a power of 80 %
_FIGURES = (("no_attack", "no attack"), ("attack", "attack"), ("pdr", "PDR"))


def build(name: str, frame: pd.DataFrame, folder: Path | None = None, *, marks: Marks = "real") -> Table:
    """Lay out the attack cells of a tidy frame. `folder`: of the published numbers, shown beside ours.

    `marks`: `real`: what the statistics say; `paper`: the better of each pair, whether real or not.
    """
    keys = [*_LINE, "ratio", "alpha", "draw", "lam", "mask_seed"]
    models = [lines for _, lines in frame.groupby(keys, sort=False, dropna=False)]
    benchmarks = sorted(frame["benchmark"].unique(), reverse=True)  # SST-2 first, as the paper
    figures = [f"{_short(benchmark)} {text}" for benchmark in benchmarks for _, text in _FIGURES]
    cells = {(i, b): lines[lines["benchmark"] == b] for i, lines in enumerate(models) for b in benchmarks}
    ours = {place: _ours(found) for place, found in cells.items()}
    compared = _compared(models, benchmarks, cells) if marks == "real" else {}
    other = {b for (_, b), figures in ours.items() if figures.get("protocol", "paper") != "paper"}
    papers = {
        (i, b): _paper(folder, name, lines.iloc[0], b) if b not in other else {}
        for i, lines in enumerate(models)
        for b in benchmarks
    }
    beside = {place: _beside(ours[place], paper, models[place[0]].iloc[0], place[1]) for place, paper in papers.items()}
    return Table(
        name,
        (*_HEADER, *figures),
        tuple(
            (
                *_names(lines.iloc[0]),
                *(_cell(cells[i, b], ours[i, b], beside[i, b], key) for b in benchmarks for key, _ in _FIGURES),
            )
            for i, lines in enumerate(models)
        ),
        tuple(_notes(frame, papers.values(), compared, marks, folder)),
        tuple(
            _record(
                lines.iloc[0],
                b,
                ours[i, b],
                beside[i, b],
                {k: compared.get(_place(i, b, k, benchmarks)) for k, _ in _FIGURES},
            )
            for i, lines in enumerate(models)
            for b in benchmarks
        ),
        {place: Mark(found.sign, title=str(found)) for place, found in compared.items()}
        if marks == "real"
        else _by_score(models, benchmarks, ours),
    )


def _notes(
    frame: pd.DataFrame,
    papers: Iterable[Mapping[str, Number]],
    compared: Mapping[Place, Compared],
    marks: Marks,
    folder: Path | None,
) -> list[str]:
    notes = dict.fromkeys(note for paper in papers for number in paper.values() for note in number.notes)
    said = contrasts.words(compared) if marks == "real" else [contrasts.BY_SCORE]
    lower = ["Of PDR the lower is the better; its differences are tested by the paired bootstrap over items."]
    return [
        "Percent, with 95 % intervals over items. PDR = (no attack - attack) / no attack, paired by item.",
        *_protocols(frame),
        *said,
        *(lower if compared else []),
        *(NOTES[note] for note in notes),
        *([NOTES["lambda"]] if folder else []),
        *footer(frame)[1:],
    ]


# -------------------------------------------------------------------------------------------------------- contrasts


def _place(row: int, benchmark: str, key: str, benchmarks: Sequence[str]) -> Place:
    """Return where a figure stands in the table."""
    at = [name for name, _ in _FIGURES].index(key)
    return row, len(_HEADER) + len(_FIGURES) * benchmarks.index(benchmark) + at


def _compared(
    models: Sequence[pd.DataFrame], benchmarks: Sequence[str], cells: Mapping[tuple[int, str], pd.DataFrame]
) -> dict[Place, Compared]:
    """Return each M3 figure's comparison with that of the same row without M3, adjusted over the table."""
    found: dict[Place, Contrast] = {}
    same: dict[Place, Compared] = {}
    for i, benchmark in cells:
        at = _without_m3(i, models)
        if at is None:
            continue
        mixed, plain = _scored(cells[i, benchmark]), _scored(cells[at, benchmark])
        if mixed is None or plain is None:
            continue
        places = {key: _place(i, benchmark, key, benchmarks) for key, _ in _FIGURES}
        if mixed["weights"] == plain["weights"]:
            same |= {place: Compared(None) for place in places.values()}
        else:
            found |= {places[key]: c for key, c in _contrasts(mixed["values"], plain["values"]).items()}
    drops = {_place(i, b, "pdr", benchmarks) for i, b in cells}
    adjusted = contrasts.adjusted(found)
    return same | {
        place: replace(c, less_is_better=place in drops, one_draw=models[place[0]].iloc[0]["ratio"] == "mixup")
        for place, c in adjusted.items()
    }


def _without_m3(row: int, models: Sequence[pd.DataFrame]) -> int | None:
    """Return the number of the same row without M3 (with DARE: of the same mask); None for such a row itself."""
    first = models[row].iloc[0]
    if first["ratio"] == "plain":
        return None
    wanted = [first[key] for key in _LINE]
    lines = [(i, lines.iloc[0]) for i, lines in enumerate(models)]
    plain = [(i, x) for i, x in lines if x["ratio"] == "plain" and [x[key] for key in _LINE] == wanted]
    return next((i for i, x in plain if pd.isna(x["mask_seed"]) or x["mask_seed"] == first["mask_seed"]), None)


def _scored(cell: pd.DataFrame) -> "pd.Series[Any] | None":
    return cell.iloc[0] if len(cell) and not pd.isna(cell.iloc[0]["score"]) else None


def _contrasts(mixed: Mapping[Any, Any], plain: Mapping[Any, Any]) -> dict[str, Contrast]:
    """Return M3 - plain of the figures that both have items in common for."""
    found: dict[str, Contrast] = {}
    values = {
        key: (_version(mixed, attacked=attacked), _version(plain, attacked=attacked))
        for key, attacked in (("no_attack", False), ("attack", True))
    }
    for key, (first, second) in values.items():
        if first.keys() & second.keys():
            found[key] = contrasts.contrast(first, second)
    ids = sorted(set.intersection(*(set(x) for pair in values.values() for x in pair)))
    drop = _drop_contrast(*(np.array([x[i] for i in ids]) for pair in values.values() for x in pair)) if ids else None
    return found if drop is None else found | {"pdr": drop}


def _version(values: Mapping[Any, Any], *, attacked: bool) -> Values:
    """Return the item means of the attacked (`ITEM@seedK`) or the clean scores of a cell."""
    return item_means({key: value for key, value in values.items() if ("@" in key[0]) == attacked})


def _drop_contrast(clean: Array, clean_plain: Array, under: Array, under_plain: Array) -> Contrast | None:
    """Return PDR with M3 minus PDR without, resampling items; None where one of them is right on nothing."""
    if not clean.any() or not clean_plain.any():
        return None
    n = len(clean)
    counts = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=_RESAMPLES)
    bases = [np.maximum(counts @ values, 0.5) for values in (clean, clean_plain)]
    moved = (counts @ under_plain) / bases[1] - (counts @ under) / bases[0]
    low, high = np.quantile(moved, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
    tail = min(np.count_nonzero(moved <= 0), np.count_nonzero(moved >= 0))
    return Contrast(
        difference=float(under_plain.sum() / clean_plain.sum() - under.sum() / clean.sum()),
        low=float(low), high=float(high), p=min(1.0, 2 * (1 + tail) / (_RESAMPLES + 1)), n=n,
        discordant=int(np.count_nonzero((clean != clean_plain) | (under != under_plain))),
        method="paired bootstrap of PDR", detectable=_DETECTABLE * float(moved.std(ddof=1)),
    )  # fmt: skip


def _by_score(
    models: Sequence[pd.DataFrame], benchmarks: Sequence[str], ours: Mapping[tuple[int, str], Mapping[str, Any]]
) -> dict[Place, Mark]:
    """Return the paper's bold: of each pair and column the highest accuracy, the lowest PDR."""
    columns: dict[tuple[Any, ...], dict[Place, Entry]] = {}
    for (i, b), figures in ours.items():
        for key, _ in _FIGURES:
            if figures.get(key) is not None:
                score = -figures[key] if key == "pdr" else figures[key]
                column = columns.setdefault((models[i].iloc[0]["pair"], b, key), {})
                column[_place(i, b, key, benchmarks)] = Entry(float(score), {})
    return {place: Mark(weight="bold") for place in contrasts.ranked(list(columns.values()))[0]}


# ----------------------------------------------------------------------------------------------------------- cells


def _short(benchmark: str) -> str:
    return benchmark.removeprefix("prompt_bench_")


def _names(line: "pd.Series[Any]") -> tuple[str, ...]:
    method = f"{line['method']} ({line['params']})" if line["params"] else str(line["method"])
    alpha = "" if pd.isna(line["alpha"]) else f"{line['alpha']:g}"
    lam = "" if pd.isna(line["lam"]) else f"{line['lam']:.3g}"
    mixed = {"plain": "no", "mixup": "yes"}.get(str(line["ratio"]), str(line["ratio"]))
    return method, str(line["pair"]), mixed, alpha, lam


def _ours(found: pd.DataFrame) -> dict[str, Any]:
    """Return the figures of one model and benchmark, in percent, with intervals where there are any."""
    if not len(found) or pd.isna(found.iloc[0]["score"]):
        return {}
    line, details = found.iloc[0], found.iloc[0]["details"]
    protocol = next((k for k in details if k.startswith("pdr_") and k.removeprefix("pdr_") in _PROTOCOLS), None)
    if protocol is None:
        return {"no_attack": line["score"], "n": int(line["n"]), "n_unscored": int(line["n_unscored"])}
    return {
        "no_attack": details["accuracy_clean"],
        "attack": line["score"], "attack_low": line["low"], "attack_high": line["high"],
        "pdr": details[protocol], "pdr_low": details[f"{protocol}_low"], "pdr_high": details[f"{protocol}_high"],
        "pdr_reason": details[f"{protocol}_reason"], "protocol": protocol.removeprefix("pdr_"),
        "parse_rate_clean": details["parse_rate_clean"], "parse_rate_attacked": details["parse_rate_attacked"],
        "mcc_clean": details["mcc_clean"], "mcc_attacked": details["mcc_attacked"],
        "n": int(line["n"]), "n_unscored": int(line["n_unscored"]),
    }  # fmt: skip


_RECORDED = (
    "no_attack", "attack", "attack_low", "attack_high", "pdr", "pdr_low", "pdr_high", "pdr_reason", "protocol",
    "parse_rate_clean", "parse_rate_attacked", "mcc_clean", "mcc_attacked", "n", "n_unscored",
    "paper_no_attack", "paper_attack", "paper_pdr", "paper_no_attack_z", "paper_attack_z",
)  # fmt: skip
_PROTOCOLS = ("paper", "adaptive", "transferred")


def _paper(folder: Path | None, name: str, line: "pd.Series[Any]", benchmark: str) -> dict[str, Number]:
    known = folder is not None and line["method"] == "task_arithmetic" and line["sparsify"] == "none"
    if not known or line["ratio"] not in ("plain", "mixup"):
        return {}
    assert folder is not None
    found = published.attacked(folder, name, str(line["pair"]), benchmark, line["ratio"] == "mixup")
    named = str(line["method"]), str(line["pair"]), str(line["params"])
    return {key: published.of_our_model(number, *named)[0] for key, number in found.items()}


def _cell(found: pd.DataFrame, ours: Mapping[str, Any], beside: Mapping[str, Beside], key: str) -> str:
    if not ours:
        text = "/" if not len(found) else "failed" if found["failure"].notna().any() else "not run"
    elif ours.get(key) is None:
        text = str(ours.get("pdr_reason") or "/") if key == "pdr" else "/"
    else:
        text = f"{ours[key]:.1f}"
        if f"{key}_low" in ours and ours[f"{key}_low"] is not None:
            text += f" [{ours[f'{key}_low']:.1f}, {ours[f'{key}_high']:.1f}]"
        if key == "attack" and ours["n_unscored"]:
            text += f" ({ours['n_unscored']} unscored)"
    return f"{text} {beside[key]}" if key in beside else text


def _beside(
    ours: Mapping[str, Any], paper: Mapping[str, Number], line: "pd.Series[Any]", benchmark: str
) -> dict[str, Beside]:
    """Return the paper's figures beside ours: with the difference for an accuracy of a plain row."""
    compared = line["ratio"] == "plain"
    return {
        key: published.beside_plain(number, benchmark, ours[key], ours["n"] - ours["n_unscored"])
        if compared and key != "pdr" and ours.get(key) is not None
        else Beside(number)
        for key, number in paper.items()
    }


def _protocols(frame: pd.DataFrame) -> list[str]:
    details = [d for d in frame["details"] if isinstance(d, dict)]
    used = sorted({p for d in details for p in _PROTOCOLS if f"pdr_{p}" in d})
    says = {
        "paper": "paper: the attack is searched and scored on the same items, so PDR is flattered by the search",
        "adaptive": "adaptive: searched on one half of the items against this model, scored on the other",
        "transferred": "transferred: one frozen set of attacked prompts for all models",
    }
    return [f"protocol {says[p]}." for p in used]


def _record(
    line: "pd.Series[Any]",
    benchmark: str,
    ours: Mapping[str, Any],
    beside: Mapping[str, Beside],
    compared: Mapping[str, Compared | None],
) -> dict[str, Any]:
    keys = ("pair", "method", "params", "ratio", "alpha", "draw", "sparsify")
    names = {key: None if pd.isna(line[key]) else line[key] for key in keys}
    theirs = {f"paper_{key}": found.number.value for key, found in beside.items()}
    theirs |= {f"paper_{key}_z": found.z for key, found in beside.items() if key != "pdr"}
    lam: Sequence[float] = [] if pd.isna(line["lam"]) else [float(line["lam"])]
    figures = {f"{key}_{name}": x for key, found in compared.items() for name, x in contrasts.record(found).items()}
    return {**names, "benchmark": benchmark, "lambda": lam, **dict.fromkeys(_RECORDED), **ours, **theirs, **figures}
