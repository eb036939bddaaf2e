"""`m3 export answers`: every answer of a request, or of a whole store, as a line of a file that others read.

`m3 score` reads the files again, and gives the scores that the store holds.
"""

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from m3_exp.amounts import counted
from m3_exp.command_line import CommandLine
from m3_exp.config import Request
from m3_exp.merging.source import without_fetching
from m3_exp.planning import label_text
from m3_exp.results import Results, look_up
from m3_exp.scoring.saved import guarded
from m3_exp.store import Store, write_atomic
from m3_exp.tasks import Task
from m3_exp.types import Answer, Cell, CellResult, EngineSettings, Json, Label, M3Error, ResultRecord
from m3_exp.views.lookup import Lookup

Format = Literal["jsonl", "csv", "parquet"]
FORMATS: tuple[Format, ...] = ("jsonl", "csv", "parquet")


@dataclass(frozen=True)
class Row:
    """One answer, and whose it is.

    `prompt`: the benchmark's text, before a chat template; None where the items are not at hand. `value`: 0 to 1, None
    for unscored. `shares`: the mixing weights by expert; empty for the method's own and for single models. `weights`:
    the digest. `cell` tells the cells of a file apart, and `label` says what they are called.
    """

    id: str
    sample: int
    prompt: str | None
    text: str
    finish: str
    n_tokens: int
    extracted: str | None
    value: float | None
    reason: str | None
    benchmark: str
    items: str
    family: str
    pair: str
    method: str
    label: str
    lam: float | None
    shares: dict[str, float]
    weights: str
    cell: str


@dataclass(frozen=True)
class Exported:
    """What was written, and what not: how many cells have no result, and how many of the answers no prompt."""

    answers: int
    cells: int
    without_result: int
    without_prompt: int

    def __str__(self) -> str:
        lines = [f"{counted(self.answers, 'answer')} of {counted(self.cells, 'cell')}"]
        lines += [f"{counted(self.without_result, 'cell')} without a result"] * (self.without_result > 0)
        gone = f"{counted(self.without_prompt, 'answer')} without a prompt: items or tokenizer are not at hand"
        return "; ".join([*lines, *[gone] * (self.without_prompt > 0)])


def export(asked: CommandLine | Request, out: Path | None, form: Format | None = None) -> Exported:
    """Write the answers of a request to a file; those of the whole store where nothing but `store=` is asked for.

    A `Request` is that of a run (`views.runs.request`).

    Raises:
        M3Error: there is none, it is not clear which file, or parquet is asked for and pyarrow is not there.
    """
    if out is None or out.is_dir():
        raise M3Error(f"--out {out or ''} must name a file, as in --out answers.jsonl")
    form = form or next((one for one in FORMATS if out.suffix == f".{one}"), None)
    if form is None:
        raise M3Error(f"--out {out} does not say which format: give --format {', '.join(FORMATS)}")
    looked = Lookup.of(asked)
    words = asked if isinstance(asked, CommandLine) else asked.asked
    whole = words is asked and all(text.partition("=")[0] == "store" for text in words.overrides)
    engine = looked.request.plan.engine
    found = list(_every(looked.store)) if whole else [(item, engine) for item in looked.found]
    known = {one: Results(looked.store, one) for _, one in found}
    experts = {} if whole else looked.experts
    with without_fetching():
        rows = [row for item, one in found for row in _rows(item, known[one], experts)]
    if not rows:
        first = "" if whole else f"; first: {words.line('run')}"
        raise M3Error(f"store={looked.store.root} holds no answers of this request{first}")
    write_atomic(out, _WRITERS[form](rows))
    done = sum(item.record is not None for item, _ in found)
    return Exported(len(rows), done, len(found) - done, sum(row.prompt is None for row in rows))


def _every(store: Store) -> Iterator[tuple[CellResult, EngineSettings]]:
    """Give each result of a store that some plan in it asked for, once."""
    seen = set()
    for plan in store.plans.values():
        for item in look_up(plan, store):
            if item.record is not None and (key := (item.cell.short_key, item.record.answers)) not in seen:
                seen.add(key)
                yield item, plan.engine


def _rows(item: CellResult, results: Results, experts: Mapping[str, Sequence[str]]) -> Iterator[Row]:
    """Give the answers of a cell, in the order of its scores; an item without an answer has none."""
    cell, record = item.cell, item.record
    if record is None:
        return
    known = texts(cell, record, results) or unprompted(cell, record, results)
    label = cell.labels[0]
    row = Row(
        id="", sample=0, prompt=None, text="", finish="", n_tokens=0, extracted=None, value=None, reason=None,
        benchmark=cell.evaluator.name, items=record.items, family=label.family, pair=label.pair, method=label.method,
        label=" = ".join(map(label_text, cell.labels)), lam=label.lam, shares=_shares(label, experts),
        weights=record.weights, cell=cell.short_key,
    )  # fmt: skip
    for score in record.scores:
        prompt, answer = known.get((score.id, score.sample), (None, None))
        if answer is not None:
            yield replace(
                row, id=score.id, sample=score.sample, prompt=prompt, text=answer.text, finish=answer.finish,
                n_tokens=answer.n_tokens, extracted=score.extracted, value=score.value, reason=score.reason,
            )  # fmt: skip


def _shares(label: Label, experts: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Return a label's mixing weights by its experts' names, or by their numbers where no request names them.

    A merge by part has none of the whole model; its label says what each part takes.
    """
    if label.parts:
        return {}
    weights = label.weights or (() if label.lam is None else (label.lam, 1 - label.lam))
    names = experts.get(label.pair, ())
    named = names if len(names) == len(weights) else [f"expert {number}" for number in range(1, len(weights) + 1)]
    return dict(zip(named, weights, strict=True))


Texts = Mapping[tuple[str, int], tuple[str | None, Answer | None]]  # prompt and answer by item and sample


def texts(cell: Cell, record: ResultRecord, results: Results) -> Texts | None:
    """Return each item's prompt and answer; None where the items are not at hand, or have changed."""
    try:
        task = _task(cell, record, results)
    except M3Error:
        return _without_tokenizer(cell, record, results)
    if task is None:
        return None
    written: dict[tuple[str, str, int], Answer] = {}
    for answer in results.store.answers(record.answers).read():
        written.setdefault((answer.id, answer.prompt, answer.sample), answer)
    found = {}
    for problem, asked, hashed in zip(task.problems, task.ids, task.hashed, strict=True):
        text = task.evaluator.prompt(problem)
        for sample in range(task.sampling.n):
            found[problem.id, sample] = text, written.get((asked, hashed, sample))
    return found


def _without_tokenizer(cell: Cell, record: ResultRecord, results: Results) -> Texts | None:
    """Return the same where no prompt can be rendered any more, if each item was asked with one prompt alone."""
    try:
        limited = replace(cell, limit=len({score.id for score in record.scores}))
        problems = results.tasks.problems(limited)
        if record.rows_digest != results.tasks.rows_digest(cell, limited.limit):
            return None
    except M3Error:
        return None
    evaluator, answers = results.tasks.evaluator(cell.evaluator), results.store.answers(record.answers).read()
    prompted = {problem.id: evaluator.prompt(problem) for problem in problems}
    prompts = {answer.id: answer.prompt for answer in answers}
    known = all(score.id in prompted for score in record.scores)  # they are not those that an attack made
    if not known or any(prompts[answer.id] != answer.prompt for answer in answers):
        return None
    written: dict[tuple[str, int], Answer] = {}
    for answer in answers:
        written.setdefault((answer.id.partition("/")[2], answer.sample), answer)
    return {(s.id, s.sample): (prompted[s.id], written.get((s.id, s.sample))) for s in record.scores}


def _task(cell: Cell, record: ResultRecord, results: Results) -> Task | None:
    """Return the task that a record is the result of, with the items that its evaluator made."""
    task = results.tasks.task(cell)
    if task.items_digest != record.items_digest:  # it was run with a limit
        given = {score.id.partition("@")[0] for score in record.scores}
        task = results.tasks.task(replace(cell, limit=len(given)))
    if task.items_digest != record.items_digest:
        return None
    made = results.store.prepared.get(results.prepared_key(record.weights, task))
    return task if made is None else results.tasks.prepared(task, made.problems)


def unprompted(cell: Cell, record: ResultRecord, results: Results) -> Texts:
    """Return the answers alone, by their ids in the journal, as the result's own runs wrote them.

    An item that they asked with several prompts is left out: which of them was scored cannot be told.
    """
    name = results.tasks.evaluator(cell.evaluator).name
    answers: dict[tuple[str, int], Answer] = {}
    prompts: dict[str, set[str]] = {}
    for answer in results.store.answers(record.answers).read():
        if record.runs and answer.run not in record.runs:
            continue
        key = answer.id.removeprefix(f"{name}/")
        prompts.setdefault(key, set()).add(answer.prompt)
        answers.setdefault((key, answer.sample), answer)
    return {(key, n): (None, answer) for (key, n), answer in answers.items() if len(prompts[key]) == 1}


# ------------------------------------------------------------------------------------------------------------- files


def _named(row: Row) -> Json:
    """Return a line by the names of its columns: `lam` is called lambda there."""
    return {"lambda" if name == "lam" else name: value for name, value in vars(row).items()}


def _jsonl(rows: Sequence[Row]) -> bytes:
    return "".join(json.dumps(_named(row)) + "\n" for row in rows).encode()


def _csv(rows: Sequence[Row]) -> bytes:
    out = io.StringIO()
    lines = [{key: guarded(x) if isinstance(x, str) else x for key, x in _flat(row).items()} for row in rows]
    writer = csv.DictWriter(out, fieldnames=list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue().encode(errors="replace")


def _parquet(rows: Sequence[Row]) -> bytes:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise M3Error("--format parquet needs pyarrow: pip install pyarrow, or --format jsonl") from None
    numbers = {"sample": pyarrow.int64(), "n_tokens": pyarrow.int64(), "value": pyarrow.float64()}
    kinds = {**numbers, "lambda": pyarrow.float64()}
    lines = [{key: _text(x) if isinstance(x, str) else x for key, x in _flat(row).items()} for row in rows]
    schema = pyarrow.schema([(key, kinds.get(key, pyarrow.string())) for key in lines[0]])
    out = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(lines, schema), out)
    return out.getvalue()


def _flat(row: Row) -> Json:
    """Return a line for a file that holds one value a column: the shares are JSON there."""
    return {**_named(row), "shares": json.dumps(row.shares) if row.shares else None}


def _text(text: str) -> str:
    """Return a text as UTF-8 can hold it."""
    return text.encode(errors="replace").decode()


_WRITERS: Mapping[Format, Callable[[Sequence[Row]], bytes]] = {"jsonl": _jsonl, "csv": _csv, "parquet": _parquet}
