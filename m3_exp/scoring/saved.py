"""Saved answers as `m3 score` reads them; what wrote a file is told by what its lines hold.

    {"id": "7", "text": "..."}                        anybody's; the k-th line of an id is its sample k
    {"id": "7", "text": "...", "cell": "0f3e..", ..}  `m3 export answers`; also as .csv and .parquet
    8d3af0c2 {"id": "gsm8k/7", "run": "...", ...}      a journal of a store, answers/KEY/*.jsonl
    {"doc_id": 7, "doc": {...}, "resps": [["..."]]}   lm-eval's samples_TASK_*.jsonl (--log_samples)

An id may be a text or a whole number. Other keys are not read.
"""

import csv
import io
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from m3_exp.reading.files import lines, parse_json, read_text
from m3_exp.scoring.items import read_rows
from m3_exp.types import Answer, M3Error, Problem

Rows = Sequence[tuple[int, dict[str, Any]]]  # what each line holds, and its number
Numbered = list[tuple[int, Answer]]

_NEEDED = 'must be an object with two strings, {"id": ..., "text": ...} (an id may be a whole number)'
_JOURNAL = re.compile(r"[0-9a-f]{8} \{")
_FORMULA = re.compile(r"'*[=+\-@\t\r]")  # how a spreadsheet's formulas begin, behind apostrophes or none
_TELLING = 16  # characters of a text that tells one item from the others
_IDS = ("task_id", "question_id", "id")  # where lm-eval's documents hold a benchmark's own ids


def read_answers(
    path: Path, problems: Mapping[str, Problem] | None = None, names: Sequence[str] = (), cell: str = ""
) -> Numbered:
    """Return the answers of a file with the numbers of their lines.

    A line may also say its `finish`: `length` for an answer that was cut.

    Args:
        problems: the items by id, for the documents of lm-eval.
        names: what the benchmark is called, where a file of ours holds the answers of several.
        cell: the key of a cell, or how it begins, where a file of `m3 export answers` holds several.

    Raises:
        M3Error: there are none, or a line is no answer, or it is not clear whose answers are meant.
    """
    rows = list(_rows(path))
    if not rows:
        raise M3Error(f"{path} holds no answers: give a file of JSON lines with id and text")
    keys = rows[0][1].keys()
    if {"doc_id", "resps"} <= keys:
        return _of_lm_eval(path, rows, problems or {})
    if {"prompt", "run", "n_tokens"} <= keys:
        return _of_journal(path, rows, names)
    if {"cell", "benchmark"} <= keys:
        return _of_cell(path, rows, names, cell)
    if cell:
        raise M3Error(f"cell={cell} has no effect on {path}, which m3 export answers did not write: leave it out")
    return _plain(path, rows)


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Give what each line of a file holds, with its number; of a journal's torn last line nothing."""
    if path.suffix == ".parquet":
        yield from enumerate((dict(row) for row in read_rows(path)), 1)
    elif path.name.removesuffix(".gz").endswith(".csv"):
        yield from _csv_rows(path)
    else:
        text = read_text(path)
        for number, line in lines(text):
            journal = _JOURNAL.match(line) is not None
            if journal and line[:8] != f"{zlib.crc32(line[9:].encode()):08x}":
                if text.endswith("\n"):
                    raise M3Error(f"{path}:{number} is damaged (its checksum does not match): remove that line")
                return
            row = parse_json(line[9:] if journal else line, f"{path}:{number}", object)
            if not isinstance(row, dict):
                raise M3Error(f"{path}:{number} {_NEEDED}")
            yield number, row


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    csv.field_size_limit(1 << 30)  # an answer may be longer than its default of 131,072 characters
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
    try:
        for row in reader:
            ours = "cell" in row
            yield reader.line_num, {key: bare(text) if ours and text else text for key, text in row.items() if key}
    except csv.Error as error:
        raise M3Error(f"{path}:{reader.line_num} is not CSV ({error}): correct that line") from None


def guarded(text: str) -> str:
    """Return a text for a CSV file: one that a spreadsheet would take for a formula gets an apostrophe in front."""
    return f"'{text}" if _FORMULA.match(text) else text


def bare(text: str) -> str:
    """Return what `guarded` was given."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def _answer(path: Path, number: int, row: Mapping[str, Any]) -> Answer:
    """Return a line as an answer of sample 0."""
    key, text, finish = row.get("id"), row.get("text"), row.get("finish")
    if not isinstance(key, str | int) or isinstance(key, bool) or not isinstance(text, str):
        raise M3Error(f"{path}:{number} {_NEEDED}")
    return Answer(str(key), text, finish=finish if isinstance(finish, str) else "")  # "": not known


def _plain(path: Path, rows: Rows) -> Numbered:
    samples: Counter[str] = Counter()
    answers = []
    for number, row in rows:
        answer = _answer(path, number, row)
        answers.append((number, replace(answer, sample=samples[answer.id])))
        samples[answer.id] += 1
    return answers


def _sampled(path: Path, number: int, row: Mapping[str, Any]) -> Answer:
    """Return a line of ours as an answer of the sample that it says."""
    sample = str(row.get("sample", 0))
    if not (sample.isascii() and sample.isdigit() and len(sample) < 9):
        raise M3Error(f"{path}:{number} has sample {sample[:40]!r}: give a whole number from 0")
    return replace(_answer(path, number, row), sample=int(sample))


def _of_cell(path: Path, rows: Rows, names: Sequence[str], cell: str) -> Numbered:
    """Return the answers of the one cell that is meant."""
    own = [(number, row) for number, row in rows if row.get("benchmark") in names]
    cells = {str(row["cell"]): str(row.get("label", "")) for _, row in own if row.get("cell")}
    wanted = [key for key in cells if key.startswith(cell)]
    if not own:
        there = ", ".join(sorted({str(row.get("benchmark")) for _, row in rows}))
        raise M3Error(f"{path} holds no answers on {names[0]}: it holds {there}")
    if len(wanted) != 1:
        some = "; ".join(f"cell={key} ({cells[key]})" for key in (wanted or [*cells])[:3])
        what = f"holds the answers of {len(cells)} cells on {names[0]}" if not cell else f"cell={cell} is not one cell"
        raise M3Error(f"{path}: {what}, name one of them: {some}{', ...' if len(wanted or cells) > 3 else ''}")
    return [(number, _sampled(path, number, row)) for number, row in own if row.get("cell") == wanted[0]]


def _of_journal(path: Path, rows: Rows, names: Sequence[str]) -> Numbered:
    """Return the answers of a store's journal, under the items' own ids; the first one of a sample counts.

    What an attack's search asked (`ask-...`) is no answer to an item.
    """
    answers: dict[tuple[str, int], tuple[int, Answer]] = {}
    prompts: dict[str, object] = {}
    for number, row in rows:
        answer = _sampled(path, number, row)
        whose, _, key = answer.id.partition("/")
        if whose not in names:
            raise M3Error(f"{path}:{number} answers {answer.id!r}, no item of {names[0]}: m3 score {whose} reads it")
        if key.startswith("ask-"):
            continue
        if prompts.setdefault(key, row["prompt"]) != row["prompt"]:
            raise M3Error(
                f"{path}:{number}: item {key!r} is answered to two prompts: m3 export answers writes those of one cell"
            )
        answers.setdefault((key, answer.sample), (number, replace(answer, id=key)))
    return list(answers.values())


def _of_lm_eval(path: Path, rows: Rows, problems: Mapping[str, Problem]) -> Numbered:
    """Return the answers of lm-eval's samples: the raw ones, as filters of its own cut out what it scores."""
    answers: Numbered = []
    columns = next(iter(problems.values())).row if problems else {}
    texts = {key: _by_text(problems, key) for key in columns}
    for number, row in rows:
        if row.get("filter") != rows[0][1].get("filter"):
            continue  # the same answers once more, for another filter
        resps, doc = row.get("resps"), row.get("doc")
        given = resps[0] if isinstance(resps, list) and len(resps) == 1 else None
        if not isinstance(doc, dict) or not isinstance(given, list) or not all(isinstance(x, str) for x in given):
            raise M3Error(
                f"{path}:{number} holds no generated text: give the samples of a task that generates (generate_until)"
            )
        key = _item(row.get("doc_id"), doc, problems, texts)
        if key is None:
            raise M3Error(
                f"{path}:{number}: doc_id {row.get('doc_id')} is not an item here: give the items of that task"
                " (items=PATH), or the benchmark that it asks"
            )
        answers += [(number, Answer(key, text, sample, finish="")) for sample, text in enumerate(given)]
    return answers


def _by_text(problems: Mapping[str, Problem], key: str) -> dict[str, str | None]:
    """Return the ids of items by one column of theirs; None where several share a text."""
    ids: dict[str, str | None] = {}
    for problem in problems.values():
        text = problem.row.get(key)
        if isinstance(text, str):
            ids[text] = None if text in ids else problem.id
    return ids


def _item(
    number: object,
    doc: Mapping[str, Any],
    problems: Mapping[str, Problem],
    texts: Mapping[str, Mapping[str, str | None]],
) -> str | None:
    """Return the id of the item that a document of lm-eval is: by its own id, by a text, or by its number.

    A short text (a level, a topic) is looked at only where there is no longer one; a number counts where the document
    and the item share that text, or have no text in common.
    """
    for name in _IDS:
        if str(doc.get(name)) in problems:
            return str(doc[name])
    shared = sorted((key for key in texts if isinstance(doc.get(key), str)), key=lambda key: -len(doc[key]))
    telling = [key for key in shared if len(doc[key]) >= _TELLING] or shared
    for key in telling:
        if (found := texts[key].get(doc[key])) is not None:
            return found
    known = problems.get(str(number))
    same = known is not None and all(known.row.get(key) == doc[key] for key in telling[:1])
    return known.id if known is not None and same else None
