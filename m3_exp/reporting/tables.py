"""The paper's tables from the store: rows, intervals, published numbers beside ours, and how to rebuild each row.

A row is method x pair x with/without M3 x with/without DARE. An M3 row is the mean over its lambda draws (and DARE
masks); its interval is over items at these draws, and the spread between draws stands beside it. Percent throughout.
"""

import csv
import html
import io
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from scipy import stats

from m3_exp.reporting.curves import item_means

_BENCHMARKS = [
    "alpaca_eval", "gsm8k", "hendrycks_math", "humaneval", "mbpp", "livebench_instruction_following",
    "livebench_coding", "livebench_typos", "prompt_bench_sst2", "prompt_bench_cola",
]  # fmt: skip
_METHODS = ["single", "average", "task_arithmetic", "ties"]
_ROW = ["pair", "method", "params", "ratio", "alpha", "sparsify"]


@dataclass(frozen=True)
class Table:
    """What is printed: a header, rows of text, and footnotes. `records` is the same as data."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    footer: tuple[str, ...]
    records: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Value:
    """One figure of a table: score and 95 % interval in percent over `n` items, from `draws` draws."""

    score: float
    low: float
    high: float
    n: int
    n_unscored: int
    draws: int
    spread: float | None  # standard deviation between draws, points


def build(name: str, frame: pd.DataFrame, *, every: bool = False, published: pd.DataFrame | None = None) -> Table:
    """Lay a tidy frame out as a table.

    Args:
        every: a row for every (alpha, draw, lambda) in place of one for their mean.
        published: the paper's Table 1 (`results/published/table1.csv`), shown beside ours.
    """
    keys = [*_ROW, "draw", "lam", "mask_seed"] if every else _ROW
    benchmarks = _order(frame["benchmark"].unique())
    sizes = {b: _one(frame.loc[(frame["benchmark"] == b) & frame["n"].notna(), "n"].unique()) for b in benchmarks}
    shown: list[tuple[str, ...]] = []
    records: list[Mapping[str, Any]] = []
    for rows in _groups(frame, keys):
        first = rows.iloc[0]
        cells = {b: rows[rows["benchmark"] == b] for b in benchmarks}
        texts = [_cell(cells[b], sizes[b]) + _beside(published, first, b) for b in benchmarks]
        shown.append((*_row_names(first), _lambdas(rows), *texts))
        records += [_record(first, b, cells[b]) for b in benchmarks if len(cells[b])]
    header = ("method", "models", "M3", "DARE", "alpha", "lambda", *(_heading(frame, b, sizes[b]) for b in benchmarks))
    return Table(name, header, tuple(shown), tuple(footer(frame)), tuple(records))


def _groups(frame: pd.DataFrame, keys: Sequence[str]) -> list[pd.DataFrame]:
    """Split into rows, in the order planned; fixed and grid lambdas are rows of their own."""
    columns = [*keys, "_lam"]
    marked = frame.assign(_lam=frame["lam"].where(frame["ratio"].isin(["fixed", "grid"])))
    if not len(marked):
        return []
    groups = [group for _, group in marked.groupby(columns, sort=False, dropna=False)]
    pairs = list(dict.fromkeys(frame["pair"]))
    return sorted(groups, key=lambda group: _rank(group.iloc[0], pairs))


def _rank(line: "pd.Series[Any]", pairs: Sequence[str]) -> tuple[int, str, int, bool, int]:
    """The paper's order: single models, then method, pair, DARE, and M3 behind the same row without it."""
    method = _METHODS.index(line["method"]) if line["method"] in _METHODS else len(_METHODS)
    return method, line["method"], pairs.index(line["pair"]), line["sparsify"] == "dare", line["ratio"] != "plain"


def _order(found: Sequence[str]) -> list[str]:
    return sorted(found, key=lambda b: (_BENCHMARKS.index(b) if b in _BENCHMARKS else len(_BENCHMARKS), b))


def _one(values: Sequence[float]) -> int | None:
    return int(values[0]) if len(values) == 1 else None


def _row_names(line: "pd.Series[Any]") -> tuple[str, str, str, str, str]:
    method = f"{line['method']} ({line['params']})" if line["params"] else str(line["method"])
    mixed = {"plain": "no", "mixup": "yes"}.get(str(line["ratio"]), str(line["ratio"]))
    alpha = "" if pd.isna(line["alpha"]) else f"{line['alpha']:g}"
    dare = "yes" if line["sparsify"] == "dare" else "no"
    if line["method"] == "single":
        return "single", str(line["pair"]), "", "", ""
    return method, str(line["pair"]), mixed, dare, alpha


def _lambdas(rows: pd.DataFrame) -> str:
    found = sorted(rows["lam"].dropna().unique())
    return ", ".join(f"{lam:.3g}" for lam in found)


def _heading(frame: pd.DataFrame, benchmark: str, size: int | None) -> str:
    metrics = sorted(set(frame.loc[frame["benchmark"] == benchmark, "metric"].dropna()) - {""})
    return ", ".join([benchmark, *metrics, *([f"n={size}"] if size else [])])


# ------------------------------------------------------------------------------------------------------- one cell


def value(rows: pd.DataFrame) -> Value | None:
    """Reduce the draws of one row and benchmark to a figure; None where nothing is scored.

    One draw keeps its result's own interval (Wilson for proportions). Several are averaged item by item, over the
    items that all of them have (an attacked item's versions are averaged); the interval is Wilson's on that mean. An
    item's mean over draws varies no more than a 0/1 verdict with the same mean would, so it errs on the wide side, and
    it never shrinks to a point at 0 or 100 %.
    """
    scored = rows[rows["score"].notna()].drop_duplicates(subset=["weights", "lam", "mask_seed"])
    if not len(scored):
        return None
    if len(scored) == 1:
        line = scored.iloc[0]
        return Value(line["score"], line["low"], line["high"], int(line["n"]), int(line["n_unscored"]), 1, None)
    tables = [item_means(values) for values in scored["values"]]
    shared = sorted(set.intersection(*(set(table) for table in tables)))
    if not shared:
        return None
    mean = statistics.fmean(100 * statistics.fmean(table[key] for table in tables) for key in shared)
    low, high = _wilson(mean / 100, len(shared))
    lacking = int(scored["n"].max()) - len(shared)
    scores = [float(score) for score in scored["score"]]
    if not lacking and abs(mean - statistics.fmean(scores)) > 1e-6:  # no plain mean over items: LiveBench, pass@k
        mean = statistics.fmean(scores)
        low, high = (statistics.fmean(scored[end].astype(float)) for end in ("low", "high"))
    return Value(
        score=mean,
        low=low,
        high=high,
        n=len(shared),
        n_unscored=lacking,
        draws=len(tables),
        spread=statistics.stdev(scores),
    )


def _wilson(p: float, n: int) -> tuple[float, float]:
    """Return Wilson's 95 % score interval, in percent, for a mean `p` in [0, 1] of `n` values in [0, 1]."""
    z = float(stats.norm.ppf(0.975))
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return 100 * max(0.0, centre - half), 100 * min(1.0, centre + half)


def _cell(rows: pd.DataFrame, size: int | None) -> str:
    """Write one cell: `/` where the benchmark does not belong to the row, else figure, interval and what is missing."""
    if not len(rows):
        return "/"
    found = value(rows)
    if found is None:
        return "failed" if rows["failure"].notna().any() else "not run"
    text = f"{found.score:.1f} [{found.low:.1f}, {found.high:.1f}]"
    if found.draws > 1:
        text += f" sd {found.spread:.1f} of {found.draws}"
    if size is None:
        text += f" n={found.n}"
    if found.n_unscored:
        text += f" ({found.n_unscored} unscored)"
    lacking = int((rows["state"] == "missing").sum())
    return text + (f" ({lacking} of {len(rows)} draws missing)" if lacking else "")


def _beside(published: pd.DataFrame | None, line: "pd.Series[Any]", benchmark: str) -> str:
    """Return ` (paper 66.34)` where the paper has a number for this row."""
    if published is None or benchmark not in published.columns or line["ratio"] not in ("plain", "mixup"):
        return ""
    row = published[
        (published["method"] == line["method"])
        & (published["models"] == line["pair"])
        & (published["mixup"] == int(line["ratio"] == "mixup"))
        & (published["dare"] == int(line["sparsify"] == "dare"))
    ]
    if len(row) != 1 or not str(row.iloc[0][benchmark]):
        return ""
    number = str(row.iloc[0][benchmark])
    return " (paper: illegible)" if number == "?" else f" (paper {number})"


def read_published(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False).astype({"mixup": int, "dare": int})


def _record(line: "pd.Series[Any]", benchmark: str, rows: pd.DataFrame) -> dict[str, Any]:
    found = value(rows)
    names = {key: (None if pd.isna(line[key]) else line[key]) for key in _ROW}
    figures = vars(found) if found else dict.fromkeys(Value.__dataclass_fields__)
    return {**names, "benchmark": benchmark, "lambda": [float(x) for x in sorted(rows["lam"].dropna())], **figures}


# --------------------------------------------------------------------------------------------------------- footer


def footer(frame: pd.DataFrame) -> list[str]:
    """Return the lines under a table: what it shows, what made it, what is missing, and how to rebuild each row."""
    lines = [
        "Percent, with 95 % intervals over items (Wilson; where draws are averaged, on the mean of the items' means; "
        "sd is the standard deviation between draws). lambda is the first expert's share."
    ]
    done = frame[frame["state"] != "missing"]
    if bool((done["method"] == "task_arithmetic").any()):
        lines.append(
            "task arithmetic without M3 weighs both deltas with 1; with M3 at lambda = 1/2 it is half that sum."
        )
    if len(done):
        lines.append(
            f"engine: {', '.join(sorted(set(done['engine'])))}; evaluators: {', '.join(sorted(set(done['evaluator'])))}"
        )
    lines += _sandboxes(done)
    loose = done[(done["runs"] > 1) & ~done["engine"].astype(str).str.endswith("float32")]
    if len(loose):
        lines.append(
            f"{len(loose)} cells were resumed in a dtype whose texts depend on the batch: "
            + "; ".join(sorted({f"{r.method} {r.pair} {r.benchmark}" for r in loose.itertuples()}))
        )
    failures = frame[frame["failure"].notna() & (frame["state"] != "done")]
    lines += [f"failed: {r.method} {r.pair} {r.benchmark}: {r.failure}" for r in failures.itertuples()]
    lines.append("weights and the line that rebuilds them:")
    lines += [f"  {digest:12} {merge}" for digest, merge in _rebuild(frame)]
    return lines


def _sandboxes(done: pd.DataFrame) -> list[str]:
    """Say what contained the model-written programs of each benchmark; where nothing did, so that nobody misses it."""
    used: dict[str, set[str]] = {}
    for line in done.itertuples():
        found = dict(line.details or {}).get("sandbox")
        used.setdefault(str(line.benchmark), set()).update(str(found).split(", ") if found else ())
    named = {benchmark: sorted(levels) for benchmark, levels in sorted(used.items()) if levels}
    texts = [f"{name} {', '.join(levels)}" for name, levels in named.items()]
    lines = [f"sandbox: {'; '.join(texts)}"] if texts else []
    weak = [name for name, levels in named.items() if "weak" in levels]
    if weak:
        names = ", ".join(weak)
        lines.append(f"WARNING: {names}: programs ran UNCONTAINED (sandbox.allow_weak), results may be forged")
    return lines


def _rebuild(frame: pd.DataFrame) -> list[tuple[str, str]]:
    digests: dict[str, str] = {}
    for line in frame.itertuples():
        known = "not made yet" if pd.isna(line.weights) else str(line.weights)[:12]
        if digests.get(str(line.merge), "not made yet") == "not made yet":
            digests[str(line.merge)] = known
    return [(digest, merge) for merge, digest in digests.items()]


# --------------------------------------------------------------------------------------------------------- formats


def markdown(table: Table) -> str:
    widths = [max(len(row[i]) for row in (table.header, *table.rows)) for i in range(len(table.header))]

    def line(row: Sequence[str]) -> str:
        return "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |"

    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([line(table.header), rule, *(line(row) for row in table.rows), "", *table.footer, ""])


def as_csv(table: Table) -> str:
    """Return the table as data: one line a (row, benchmark), numbers unrounded."""
    out = io.StringIO()
    if table.records:
        writer = csv.DictWriter(out, fieldnames=list(table.records[0]))
        writer.writeheader()
        writer.writerows({**record, "lambda": " ".join(map(str, record["lambda"]))} for record in table.records)
    return out.getvalue()


def latex(table: Table) -> str:
    """Return a booktabs tabular."""

    def escape(text: str) -> str:
        for char in "\\&%$#_{}":
            text = text.replace(char, f"\\{char}" if char != "\\" else "\\textbackslash ")
        return text

    body = [" & ".join(escape(text) for text in row) + r" \\" for row in table.rows]
    head = " & ".join(escape(text) for text in table.header) + r" \\"
    notes = [f"% {line}" for line in table.footer]
    columns = "l" * len(table.header)
    return "\n".join([rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule", *body, r"\bottomrule",
                      r"\end{tabular}", *notes, ""])  # fmt: skip


def as_html(table: Table) -> str:
    def row(tag: str, texts: Sequence[str]) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(text)}</{tag}>" for text in texts) + "</tr>"

    rows = "\n".join(row("td", texts) for texts in table.rows)
    notes = "\n".join(html.escape(line) for line in table.footer)
    return (
        f"<table>\n<thead>{row('th', table.header)}</thead>\n<tbody>\n{rows}\n</tbody>\n</table>\n<pre>{notes}</pre>\n"
    )


FORMATS: Mapping[str, Callable[[Table], str]] = {"md": markdown, "csv": as_csv, "tex": latex, "html": as_html}
