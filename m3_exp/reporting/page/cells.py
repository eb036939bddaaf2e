"""Cells for the page: the list of all of them, and each one packed for its own page, down to single items.

A page has a limit: where texts (prompts, answers) would pass it, those of the largest cells are left out, their scores
stay, and the cell's page and the overview say so.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

from m3_exp.amounts import counted
from m3_exp.machine import in_parts
from m3_exp.merging import part_words
from m3_exp.planning import label_text, mixture_text, table_name, value_text
from m3_exp.reporting.data import params
from m3_exp.reporting.figures import palette
from m3_exp.reporting.page.data import CellData, Item
from m3_exp.reporting.page.pack import element, pack
from m3_exp.reporting.page.tables import escape
from m3_exp.reporting.table import score_of
from m3_exp.stats import unread
from m3_exp.stats.scored import scored
from m3_exp.types import Json, Parameters, ResultRecord, plain

DROPPED = "Prompts and answers are left out here to keep this page small; the store has them, and all scores are below."
ITEMS_DROPPED = "The items are left out here: this page has too many cells to show those of each; the store has them."


@dataclass(frozen=True)
class Packed:
    """The elements that go into the page, and the keys of the cells whose texts were left out."""

    elements: tuple[str, ...]
    dropped: tuple[str, ...]


def pack_cells(cells: Sequence[CellData], budget: int) -> Packed:
    """Pack every cell; while the whole is larger than `budget` characters, drop the texts of the largest."""
    numbers = _numbers(cells)
    held = {data.key: data for data in cells}
    texts = in_parts(lambda part: [pack(_packed(data, numbers)) for data in part], list(held.values()))
    packed = dict(zip(held, texts, strict=True))
    asked = {name: Counter[str]() for name in numbers}
    for data in cells:
        asked[_benchmark(data)].update(_asked(data))
    prompts = {name: _prompts(own, asked[name]) for name, own in numbers.items()}
    size = sum(map(len, _elements(packed, prompts)))
    for key in sorted(held, key=lambda k: (-len(packed[k]), k)):
        if size <= budget:
            break
        if held[key].items:
            name, own = _benchmark(held[key]), _asked(held[key])
            size -= len(packed[key]) + len(prompts[name])
            held[key] = _without_texts(held[key])
            packed[key] = pack(_packed(held[key], numbers))
            asked[name].subtract(own)
            if not all(asked[name][prompt] for prompt in own):
                prompts[name] = _prompts(numbers[name], asked[name])
            size += len(packed[key]) + len(prompts[name])
    return Packed(_elements(packed, prompts), tuple(key for key, data in held.items() if DROPPED in data.note))


def _elements(packed: Mapping[str, str], prompts: Mapping[str, str]) -> tuple[str, ...]:
    held = [element(f"cell-{key}", text) for key, text in packed.items()]
    return (*held, *(element(f"prompts-{name}", text) for name, text in prompts.items()))


def _benchmark(data: CellData) -> str:
    return data.cell.evaluator.name


def _without_texts(data: CellData) -> CellData:
    items = tuple(replace(item, prompt=None, answer=None) for item in data.items)
    return replace(data, items=items, note=" ".join(filter(None, [data.note, DROPPED])))


def _numbers(cells: Sequence[CellData]) -> dict[str, dict[str, int]]:
    """Number each benchmark's different prompts, in the order of the items: most are the same in all cells."""
    by_benchmark: dict[str, dict[str, int]] = {}
    for data in cells:
        numbers = by_benchmark.setdefault(_benchmark(data), {})
        for item in data.items:
            if item.prompt is not None:
                numbers.setdefault(item.prompt, len(numbers))
    return by_benchmark


def _asked(data: CellData) -> list[str]:
    """Return the prompts of a cell's items, as many as there are."""
    return [item.prompt for item in data.items if item.prompt is not None]


def _prompts(numbers: Mapping[str, int], asked: Mapping[str, int]) -> str:
    """Pack the prompts of one benchmark that some cell still asks, by their numbers."""
    return pack({number: prompt for prompt, number in numbers.items() if asked[prompt]})


def _packed(data: CellData, numbers: Mapping[str, Mapping[str, int]]) -> Json:
    """Return what page.js shows of one cell. An item is a list: see `_item`."""
    return {
        "benchmark": _benchmark(data),
        "title": f"{palette.name(_benchmark(data), 40)}: {title(data)}",
        "score": _score(data), "state": data.state, "failure": data.failure, "retry": data.retry, "merge": data.merge,
        "note": data.note, "facts": facts(data),
        "items": [_item(item, numbers[_benchmark(data)]) for item in data.items],
    }  # fmt: skip


def _item(item: Item, numbers: Mapping[str, int]) -> list[Any]:
    """Return id, sample, value, extracted, reason, finish, tokens, notes, answer, the prompt's number."""
    number = None if item.prompt is None else numbers[item.prompt]
    return [item.id, item.sample, item.value, item.extracted, item.reason, item.finish, item.n_tokens,
            plain(item.notes), item.answer, number]  # fmt: skip


def title(data: CellData) -> str:
    """Return what a cell is called: its first label, as the plan spells it."""
    return label_text(data.cell.labels[0])


def _score(data: CellData) -> str:
    if data.record is None:
        return ""
    result = data.record.result
    if result.score is None:
        return f"nothing is scored: {result.n_unscored} of {result.n} items are unscored"
    unscored = f", {result.n_unscored} unscored" if result.n_unscored else ""
    shown = score_of(data.record)
    return f"{shown} % {shown.interval}, {result.metric}, {counted(result.n, 'item')}{unscored}"


def facts(data: CellData) -> list[list[str]]:
    """Return a cell's provenance, name and value: models, evaluator and settings, engine, digests, what it found."""
    cell, record = data.cell, data.record
    pairs = [["stands for", "; ".join(label_text(label) for label in cell.labels)]] if len(cell.labels) > 1 else []
    pairs += [["experts", "; ".join(map(str, cell.recipe.experts))], ["base", str(cell.recipe.base)]]
    pairs += [["mixing weights", _weights(data)], ["dtype", cell.recipe.dtype], ["tokenizer", str(cell.tokenizer)]]
    if cell.recipe.sparsify is not None:
        pairs += [_sparsified(cell.recipe.sparsify)]
    settings = {**cell.evaluator.settings, **({} if cell.limit is None else {"limit": cell.limit})}
    version = "" if record is None else f" version {record.evaluator.version}"
    pairs += [["evaluator", f"{cell.evaluator.target}{version}, items {cell.evaluator.items}"]]
    pairs += [["settings", spell(settings)]] if settings else []
    return pairs + ([] if record is None else _recorded(record))


def _sparsified(rule: Parameters) -> list[str]:
    words = {"seed": "mask seed", "target": "function"}
    said = [f"{words.get(key, key.replace('_', ' '))} {value_text(value)}" for key, value in rule.items()]
    return ["sparsifier" if "target" in rule else "DARE", ", ".join(said)]


def _weights(data: CellData) -> str:
    weights, parts = data.cell.recipe.weights, data.cell.recipe.parts
    if parts:
        return part_words.text(parts, weights)
    return "the method's own" if weights is None else ", ".join(f"{weight:.6g}" for weight in weights)


def _recorded(record: ResultRecord) -> list[list[str]]:
    runs = len(record.runs)
    resumed = f"{runs} runs wrote answers: it was resumed" if runs > 1 else ""
    pairs = [
        ["engine", engine(record)],
        ["sampling", spell(dict(sorted(vars(record.sampling).items())))],
        ["weights digest", record.weights],
        ["recipe key", record.recipe_key],
        ["items digest", record.items_digest],
        ["resumed", resumed],
        ["to read", _to_read(record)],
        *[[key.replace("_", " "), spell(value)] for key, value in record.result.details.items()],
    ]
    return [pair for pair in pairs if pair[1]]


def _to_read(record: ResultRecord) -> str:
    """Say that most answers hold nothing to read, and what to try; nothing where they do."""
    found = unread.unread_of(record)
    return f"{found}: {unread.attempts([found])}" if found else ""


def engine(record: ResultRecord) -> str:
    """Return the fingerprint of the engine that answered: its name, version and dtype, then whatever else it has."""
    first = ("engine", "version", "dtype")
    others = [f"{key} {value}" for key, value in sorted(record.engine.items()) if key not in first]
    return " ".join([*(record.engine[key] for key in first), *others])


def spell(value: Any) -> str:
    """Write a JSON value on one line, mappings as `key=value`."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={spell(inner)}" for key, inner in value.items())
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(plain(value), ensure_ascii=False)


# --------------------------------------------------------------------------------------------------------- the list

_HEADER = ("benchmark", "models", "method", "M3", "α", "λ", "DARE", "score", "95 % interval", "items", "unscored",
           "state", "weights")  # fmt: skip
_NUMBERS = frozenset({"α", "λ", "score", "95 % interval", "items", "unscored"})


@dataclass(frozen=True)
class Listed:
    """A cell's row of the table of all cells, around the words that say that it lost its texts."""

    key: str
    before: str
    after: str


def listing(cells: Sequence[Listed], dropped: Set[str]) -> str:
    """Return the table of all cells, each with a link to its page; `dropped` are the keys of those without texts."""
    head = "".join(
        f'<th scope="col"{_align(name)} aria-sort="none"><button type="button">{name}</button></th>' for name in _HEADER
    )
    rows = "\n".join(f"{one.before}{' (no texts)' if one.key in dropped else ''}{one.after}" for one in cells)
    return (
        '<div class="scroll" role="region" tabindex="0" aria-label="all cells, table">'
        f'<table class="sortable" id="cell-list"><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _align(name: str) -> str:
    return ' class="num"' if name in _NUMBERS else ""


def listed(data: CellData) -> Listed:
    label = data.cell.labels[0]
    known = params.text(label.params)
    ratio = {"plain": "no", "mixup": "yes"}.get(label.ratio, table_name(label, "ratio"))
    names = [palette.name(label.pair), palette.name(label.method) + (f" ({known})" if known else ""),
             "" if label.method == "single" else ratio, _number(label.alpha),
             mixture_text(label) or _number(label.lam),
             {"none": "", "dare": "yes"}.get(label.sparsify, table_name(label, "sparsify"))]  # fmt: skip
    values = [*names, *_figures(data)]
    digest = "" if data.record is None else data.record.weights[:12]
    first = f'<th scope="row"><a href="#cell/{data.key}">{escape(palette.name(_benchmark(data), 40))}</a></th>'
    shown = "".join(f"<td{_align(name)}>{escape(value)}</td>" for name, value in zip(_HEADER[1:], values, strict=False))
    words = " ".join([_benchmark(data), *map(label_text, data.cell.labels)])
    before = f'<tr data-words="{escape(words)}">{first}{shown}<td>{escape(data.state)}'
    return Listed(data.key, before, f"</td><td>{escape(digest)}</td></tr>")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _figures(data: CellData) -> list[str]:
    """Return score, interval, items and unscored as texts; empty where there is no result."""
    if data.record is None:
        return ["", "", "", ""]
    result, one = data.record.result, scored(data.record).percent()
    interval = "" if one is None else f"{one.low:.1f} to {one.high:.1f}"
    score = "" if result.score is None else f"{result.score:.1f}"
    return [score, interval, str(result.n), str(result.n_unscored)]
