"""The content of W&B runs, as plain values: cells, responses and sweeps. `track.py` writes them to W&B.

    cell      one a (recipe, benchmark): config = the plan, summary = what it scored
    response  one a (pair, method, sparsify): score over lambda, E[score | alpha] over alpha, ways of choosing lambda
    sweep     one a sweep file: its tables and figures

Percent throughout, as in tables; mean and minimum over benchmarks in percent of the better parent.
"""

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from m3_exp.planning import label_text, merge_line
from m3_exp.reporting.choices import advice
from m3_exp.reporting.choices.ways import Study
from m3_exp.reporting.curves import evaluated, expectations
from m3_exp.reporting.curves.evaluated import LINE, Response, responses
from m3_exp.reporting.data.dataframe import tidy
from m3_exp.reporting.table import Table
from m3_exp.reporting.wandb.track import Files, Grid, Logged
from m3_exp.stats.scored import scored
from m3_exp.store import Store
from m3_exp.types import CellResult, Json, Label, ResultRecord, identity, plain

_STUDY = 3  # goes up when a study of the same scores says something else
_ITEMS = ("id", "sample", "answer", "extracted", "value", "reason")
_ALPHAS = ("alpha", "E", "low", "high", "sd_draws", "sd_masks", "se_sampled", "bend", "unbeaten")
_RECORDED = ("recipe", "recipe_key", "evaluator", "engine", "sampling", "tokenizer", "items", "items_digest", "runs")


def cell(found: CellResult, group: str, seed: int, items: Grid | None = None) -> Logged:
    """Return the run of a cell that has a result."""
    record, label = found.record, found.cell.labels[0]
    assert record is not None
    lam = next((x.lam for x in found.cell.labels if x.lam is not None), None)
    shares = next((_shares(x) for x in found.cell.labels if x.point and x.experts), {})
    alpha = next((x.alpha for x in found.cell.labels if x.alpha is not None), None)
    name = found.cell.evaluator.name
    result, interval = record.result, scored(record).percent()
    return Logged(
        id=cell_id(record),
        name=f"{label_text(label)} {name}",
        group=group,
        job_type=name,
        tags=_tags(label.family, label.pair, label.method, label.ratio, label.sparsify),
        config=_plan(found, record, seed) | {"lambda": lam, "alpha": alpha} | shares,
        summary=_finite(
            {key: getattr(result, key) for key in ("metric", "score", "n", "n_scored", "n_unscored")}
            | ({} if interval is None else {"low": interval.low, "high": interval.high})
            | {f"score/{name}": result.score, "lambda": lam, "alpha": alpha}
            | {key: x for key, x in scalars("details", result.details) if not key.endswith(("low", "high"))}
        ),
        content=identity([record.weights, result, record.scores, items is not None]),
        tables={} if items is None else {"items": items},
        artifacts=(Files(f"recipe-{record.recipe_key[:16]}", "recipe", {"recipe.json": _json(plain(record.recipe))}),),
    )


def _shares(label: Label) -> Json:
    """Return the shares of three experts and more by name, as W&B filters and plots by."""
    return {f"share/{name}": share for name, share in zip(label.experts, label.point, strict=True)}


def cell_id(record: ResultRecord) -> str:
    """Return a cell's W&B id: recipe, evaluator, sampling, engine and item set, all by content."""
    keys = ("recipe_key", "evaluator", "sampling", "engine", "items_digest")
    return identity([getattr(record, key) for key in keys])[:32]


def _plan(result: CellResult, record: ResultRecord, seed: int) -> Json:
    """Return a cell's plan: flat keys for what W&B filters and plots by, and beside them the whole."""
    label = result.cell.labels[0]
    return {
        "family": label.family, "pair": label.pair, "method": label.method, "ratio": label.ratio, "draw": label.draw,
        "sparsify": label.sparsify, "mask_seed": label.mask_seed, "params": dict(label.params), "seed": seed,
        "benchmark": result.cell.evaluator.name, "limit": result.cell.limit, "weights": record.weights,
        "labels": [label_text(other) for other in result.cell.labels], "merge": merge_line(label, result.cell.recipe),
        **{key: plain(getattr(record, key)) for key in _RECORDED},
    }  # fmt: skip


def items(result: CellResult, store: Path) -> Grid:
    """Return a cell's items: what was answered, what was made of it, and why.

    An answer is left out (None) where the store holds several for an item, from other settings of its benchmark.
    """
    record = result.record
    assert record is not None
    texts: dict[tuple[str, int], set[str]] = {}
    for answer in Store(store).answers(record.answers).read():
        texts.setdefault((answer.id.partition("/")[2], answer.sample), set()).add(answer.text)

    def text(key: tuple[str, int]) -> str | None:
        known = texts.get(key, set())
        return next(iter(known)) if len(known) == 1 else None

    rows = tuple((s.id, s.sample, text((s.id, s.sample)), s.extracted, s.value, s.reason) for s in record.scores)
    return Grid(_ITEMS, rows)


def scalars(name: str, value: Any) -> Iterator[tuple[str, float]]:
    """Give the numbers of nested mappings by path: `details/pdr_paper/low`. Dots would be paths to W&B: underscores."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from scalars(f"{name}/{str(key).replace('.', '_')}", inner)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield name, value


# ----------------------------------------------------------------------------------------------------------- responses


def grouped(results: Sequence[CellResult], parents: Mapping[str, Sequence[str]]) -> list[list[Response]]:
    """Return the curves that cells hold, together where they are of one pair, method and sparsify."""
    return evaluated.grouped(responses(tidy(results), parents))


def response_id(members: Sequence[Response]) -> str:
    """Return the W&B id of a pair, method and sparsify: its run grows with its nodes, benchmarks and items."""
    return identity(["response", *members[0].line])[:32]


def response_content(members: Sequence[Response]) -> str:
    """Return the identity of a study's inputs, so that a study which is recorded already is not computed again."""
    return identity([_STUDY, json.loads(json.dumps([plain(one) for one in members], default=np.ndarray.tolist))])


def response(study: Study, group: str) -> Logged:
    """Return the run of a study: its steps are lambda (nodes) and alpha (expectations)."""
    first = study.responses[0]
    records = advice.records(study)
    history = (*_nodes(study.responses), *_expectations(records))
    summary = _finite(dict(_choices(records)))
    tables = {f"alpha/{record['objective']}": _alphas(record) for record in records}
    name = f"{first.name} ({first.params})" if first.params else first.name
    run = response_id(study.responses)
    return Logged(
        id=run,
        name=f"{name} over lambda",
        group=group,
        job_type="response",
        tags=_tags(first.family, first.pair, first.method, "response", first.sparsify),
        config=dict(zip(LINE, first.line, strict=True))
        | {"ratio": "response", "benchmarks": {r.benchmark: _about(r) for r in study.responses}},
        summary=summary,
        content=response_content(study.responses),
        notes="\n".join(advice.words(study)),
        steps={"score/*": "lambda", "score_low/*": "lambda", "score_high/*": "lambda",
               "expected/*": "alpha", "expected_low/*": "alpha", "expected_high/*": "alpha"},
        history=history,
        tables=tables,
        artifacts=(Files(f"response-{run[:16]}", "tables", _texts(study)),),
    )  # fmt: skip


def _about(response: Response) -> Json:
    return {
        "metric": response.metric, "n": len(response.curve.ids), "nodes": [float(lam) for lam in response.curve.lams],
        "masks": len(response.masks), "draws": len(response.draws), "parents": sorted(response.parents),
    }  # fmt: skip


def _nodes(responses: Sequence[Response]) -> Iterator[Json]:
    """Give a row a lambda: each benchmark's score over its curve's items, with its interval."""
    for lam in sorted({float(lam) for one in responses for lam in one.curve.lams}):
        row: Json = {"lambda": lam}
        for one in responses:
            for column in np.flatnonzero(one.curve.lams == lam):
                at = expectations.at(one, float(one.curve.lams[column])).scaled(100)
                row |= {f"score/{one.benchmark}": at.value, f"score_low/{one.benchmark}": at.low}
                row[f"score_high/{one.benchmark}"] = at.high
        yield row


def _expectations(records: Sequence[Json]) -> Iterator[Json]:
    """Give a row an alpha: E[score | alpha] of each objective, with its interval."""
    for lines in zip(*(record["alpha"] for record in records), strict=True):
        row: Json = {"alpha": lines[0]["alpha"]}
        for record, line in zip(records, lines, strict=True):
            for key, value in (("expected", "score"), ("expected_low", "low"), ("expected_high", "high")):
                row[f"{key}/{record['objective']}"] = line[value]
        yield row


def _choices(records: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, float]]:
    """Give every single number of a study: `plain/gsm8k`, `expected/mean/0_5`, `tuned/gsm8k`, `tuned_low/gsm8k`."""
    for record in records:
        name = record["objective"]
        for way in ("plain", "replay", "tuned", "selected", "replay_minus_tuned"):
            for key, value in (record[way] or {}).items():
                if isinstance(value, float):
                    yield f"{way}/{name}" if key == "score" else f"{way}_{key}/{name}", value
        for line in record["alpha"]:
            yield expected(name, line["alpha"]), line["score"]


def expected(objective: str, alpha: float) -> str:
    """Return the summary's name of E[score | alpha]."""
    return f"expected/{objective}/{alpha:g}".replace(".", "_")


def _alphas(record: Mapping[str, Any]) -> Grid:
    names = ("alpha", "score", *_ALPHAS[2:])
    return Grid(_ALPHAS, tuple(tuple(_number(line.get(name)) for name in names) for line in record["alpha"]))


def markdown(table: Table) -> str:
    """Return a table in Markdown, its columns not aligned; below it what `/` means, where it is shown."""
    rule = ["---"] * len(table.columns)
    rows = ("| " + " | ".join(line) + " |" for line in (table.header, rule, *table.texts))
    return "\n".join([*rows, *(f"\n{note}" for note in table.no_figure)])


def _texts(study: Study) -> dict[str, str]:
    table, out = advice.table(study), io.StringIO()
    csv.writer(out).writerows([table.header, *table.texts])
    return {"response.md": markdown(table) + "\n", "response.csv": out.getvalue(), "response.json": _json(
        json.loads(advice.as_json(study))
    )}  # fmt: skip


# -------------------------------------------------------------------------------------------------------------- sweeps


def sweep(group: str, results: Sequence[CellResult], tables: Mapping[str, str]) -> Logged:
    """Return the run of a sweep: its tables. What it stands for are its cells, done or not."""
    cells = sorted(identity([item.cell.recipe, item.cell.evaluator, item.cell.limit]) for item in results)
    families = sorted({label.family for item in results for label in item.cell.labels})
    done = sum(item.record is not None for item in results)
    # figures are none of it; the key and its place in the content stay, so that runs of before are known again
    return Logged(
        id=identity(["sweep", group, cells])[:32],
        name=" ".join([group, *families]),
        group=group,
        job_type="sweep",
        tags=tuple(f"family:{family}" for family in families),
        config={"family": ", ".join(families), "tables": sorted(tables), "figures": []},
        summary={"cells": len(results), "done": done},
        content=identity([dict(tables), {}, done]),
        artifacts=(Files(f"tables-{group}", "tables", tables),),
    )


def _tags(family: str, pair: str, method: str, ratio: str, sparsify: str) -> tuple[str, ...]:
    return (f"family:{family}", f"pair:{pair}", f"method:{method}", f"ratio:{ratio}", f"sparsify:{sparsify}")


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True) + "\n"


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else float(value)


def _finite(values: Mapping[str, Any]) -> Json:
    """Leave out what is not there: W&B would show it as a number or a text of its own."""
    return {k: v for k, v in values.items() if v is not None and not (isinstance(v, float) and not math.isfinite(v))}
