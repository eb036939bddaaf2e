"""Tables 2, 5 and 6: accuracy without and under an attack on the instruction, and the drop between them (PDR).

A row is one model: method x pair x with/without M3, a draw of lambda each. The paper's figures stand beside ours: plain
rows with the difference and its z; an M3 row of the paper is another, unknown lambda, so it has none.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from m3_exp.reporting import published
from m3_exp.reporting.published import NOTES, Number
from m3_exp.reporting.tables import Table, footer

_FIGURES = (("no_attack", "no attack"), ("attack", "attack"), ("pdr", "PDR"))


def build(name: str, frame: pd.DataFrame, folder: Path | None = None) -> Table:
    """Lay out the attack cells of a tidy frame. `folder`: of the published numbers, shown beside ours."""
    keys = ["pair", "method", "params", "ratio", "alpha", "draw", "lam", "sparsify", "mask_seed"]
    benchmarks = sorted(frame["benchmark"].unique(), reverse=True)  # SST-2 first, as the paper
    figures = [f"{_short(benchmark)} {text}" for benchmark in benchmarks for _, text in _FIGURES]
    header = ("method", "models", "M3", "alpha", "lambda", *figures)
    rows: list[tuple[str, ...]] = []
    records: list[Mapping[str, Any]] = []
    notes: list[str] = []
    for _, lines in frame.groupby(keys, sort=False, dropna=False):
        first, texts = lines.iloc[0], list[str]()
        for benchmark in benchmarks:
            found = lines[lines["benchmark"] == benchmark]
            paper = _paper(folder, name, first, benchmark)
            notes += [note for number in paper.values() for note in number.notes]
            ours = _ours(found)
            texts += [_cell(found, ours, paper, key, first, benchmark) for key, _ in _FIGURES]
            records.append(_record(first, benchmark, ours, paper))
        rows.append((*_names(first), *texts))
    lines_ = [
        "Percent, with 95 % intervals over items. PDR = (no attack - attack) / no attack, paired by item.",
        *_protocols(frame),
        *(NOTES[note] for note in dict.fromkeys(notes)),
        *([NOTES["lambda"]] if folder else []),
        *footer(frame)[1:],
    ]
    return Table(name, header, tuple(rows), tuple(lines_), tuple(records))


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
    "paper_no_attack", "paper_attack", "paper_pdr",
)  # fmt: skip
_PROTOCOLS = ("paper", "adaptive", "transferred")


def _paper(folder: Path | None, name: str, line: "pd.Series[Any]", benchmark: str) -> dict[str, Number]:
    known = folder is not None and line["method"] == "task_arithmetic" and line["sparsify"] == "none"
    if not known or line["ratio"] not in ("plain", "mixup"):
        return {}
    assert folder is not None
    return published.attacked(folder, name, str(line["pair"]), benchmark, line["ratio"] == "mixup")


def _cell(
    found: pd.DataFrame,
    ours: Mapping[str, Any],
    paper: Mapping[str, Number],
    key: str,
    line: "pd.Series[Any]",
    benchmark: str,
) -> str:
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
    if key not in paper:
        return text
    return f"{text} (paper {paper[key]}{_against(ours, paper[key], key, line, benchmark)})"


def _against(ours: Mapping[str, Any], paper: Number, key: str, line: "pd.Series[Any]", benchmark: str) -> str:
    """Return `, z +1.2` for an accuracy of a plain row."""
    if key == "pdr" or line["ratio"] != "plain" or ours.get(key) is None or paper.value is None:
        return ""
    found = published.z(ours[key], ours["n"], paper.value, published.ITEMS[benchmark])
    return "" if found is None else f", z {found:+.1f}"


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
    line: "pd.Series[Any]", benchmark: str, ours: Mapping[str, Any], paper: Mapping[str, Number]
) -> dict[str, Any]:
    keys = ("pair", "method", "params", "ratio", "alpha", "draw", "sparsify")
    names = {key: None if pd.isna(line[key]) else line[key] for key in keys}
    theirs = {f"paper_{key}": number.value for key, number in paper.items()}
    lam: Sequence[float] = [] if pd.isna(line["lam"]) else [float(line["lam"])]
    return {**names, "benchmark": benchmark, "lambda": lam, **dict.fromkeys(_RECORDED), **ours, **theirs}
