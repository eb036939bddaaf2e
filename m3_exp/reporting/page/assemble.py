"""The whole page from its parts: overview, tables, curves, cells, failures, provenance, in one HTML text.

Everything is inline. A content security policy allows the page's own two scripts (by their hashes) and no network at
all, so that nothing which a model wrote can run or call home even if the escaping failed.
"""

import base64
import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from string import Template

from plotly.offline import get_plotlyjs, get_plotlyjs_version

from m3_exp.amounts import count, counted
from m3_exp.planning import label_text
from m3_exp.reporting import glossary
from m3_exp.reporting.data.dataframe import sandboxes
from m3_exp.reporting.figures import palette
from m3_exp.reporting.page import cells, curves, tables
from m3_exp.reporting.page.cells import ITEMS_DROPPED
from m3_exp.reporting.page.data import CellData, PageData
from m3_exp.reporting.page.pack import element, pack, pack_text
from m3_exp.reporting.page.tables import escape
from m3_exp.stats import unread
from m3_exp.types import VersionedSpec

LIMIT = 9_000_000  # characters; a page for a mailbox, a browser tab and a repository
_HERE = Path(__file__).parent


def build(data: PageData, limit: int = LIMIT) -> str:
    """Return the page. Where it would pass `limit`, the texts of the largest cells are left out, and it says so."""
    script, plotly, listed = _file("page.js"), get_plotlyjs(), list(map(cells.listed, data.cells))
    fixed = [element("plotly", pack_text(plotly)), element("curves", pack(curves.data(data.studies)))]
    parts = {
        "title": escape(data.title), "style": _file("page.css"), "script": script, "policy": _policy(script, plotly),
        "tables": _tables(data), "curves": _curves(data), "failures": _failures(data.cells),
        "provenance": _provenance(data), "plotly_version": escape(get_plotlyjs_version()), "made": escape(data.made),
        **_depending(data, listed, [cell.key for cell in data.cells]),
    }  # fmt: skip
    taken = sum(map(len, [*parts.values(), *fixed])) + len(_file("page.html"))
    packed = cells.pack_cells(data.cells, limit - taken)
    parts |= _depending(data, listed, packed.dropped)
    parts["data"] = "\n".join([*fixed, *packed.elements])
    text = Template(_file("page.html")).substitute(parts)
    return text.encode(errors="replace").decode()  # lone surrogates, of which no file can be made


def _depending(data: PageData, listed: Sequence[cells.Listed], dropped: Sequence[str]) -> dict[str, str]:
    """Return the parts of the page that name the cells which lost their texts."""
    return {"overview": _overview(data, dropped), "cells": cells.listing(listed, frozenset(dropped))}


def _file(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _policy(*scripts: str) -> str:
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts)
    return f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'"


# --------------------------------------------------------------------------------------------------------- overview


def _overview(data: PageData, dropped: Sequence[str]) -> str:
    states = Counter(cell.state for cell in data.cells)
    counts = ", ".join(
        f"<strong>{states[state]}</strong> {state}" for state in ("done", "incomplete", "failed", "left")
        if states[state] or state in ("done", "failed", "left")
    )  # fmt: skip
    sentences = [f"{counted(len(data.cells), 'cell')}: {counts}. Made {escape(data.made)}."]
    if dropped:
        sentences.append(
            f'<span class="warning">To stay below {LIMIT / 1e6:.0f} MB, the prompts and answers of {len(dropped)} of'
            f" {counted(len(data.cells), 'cell')} are left out; all their scores are here.</span>"
        )
    if bare := sum(cell.note == ITEMS_DROPPED for cell in data.cells):
        sentences.append(
            f"<span class='warning'>The items of {bare} of {counted(len(data.cells), 'cell')} are left out: no browser"
            " opens all. All scores are here, the store has the items.</span>"
        )
    if silent := _unread(data.cells):
        sentences.append(f'<span class="warning">{escape(unread.sentence(silent))}</span>')
    first = "".join(map(_first, data.first))
    lead = "".join(f"<p>{sentence}</p>" for sentence in sentences)
    return f"{first}{lead}{_said(data)}{_facts(_what(data))}{_words()}{_folded('Cells that are the same', data.notes)}"


def _unread(shown: Sequence[CellData]) -> list[tuple[str, unread.Unread]]:
    """Return the cells of which most answers hold nothing to read, by name."""
    known = ((cell, cell.record) for cell in shown)
    found = ((cell, unread.unread_of(record)) for cell, record in known if record is not None)
    return [(cells.title(cell).removesuffix(" single"), one) for cell, one in found if one is not None]


def _first(sentence: str) -> str:
    """Return one of the first sentences; a command at its end can be copied."""
    text, ends, line = sentence.partition(": m3 ")
    command = f": <code>{escape(f'm3 {line}')}</code>" if ends else ""
    return f'<p class="first">{escape(text)}{command}</p>'


def _words() -> str:
    """Return the words that a stranger to the page needs, folded away."""
    shown = "".join(f"<dt>{escape(word)}</dt><dd>{escape(text)}</dd>" for word, text in glossary.WORDS.items())
    title = 'Ten words (README, "Ten words")'
    return f'<details id="words"><summary>{escape(title)}</summary><dl class="facts">{shown}</dl></details>'


def _said(data: PageData) -> str:
    """Return each study's two main sentences (`advice.answer`)."""
    items = "".join(f"<dt>{escape(one.name)}</dt><dd>{escape('; '.join(one.answer))}</dd>" for one in data.studies)
    title = "Best of seven draws, as in the paper, or of seven fixed ratios?"
    return f'<h3>{title}</h3><dl class="facts">{items}</dl>' if data.studies else ""


def _what(data: PageData) -> list[tuple[str, str]]:
    labels = [label for cell in data.cells for label in cell.cell.labels]
    merged = [label for label in labels if label.method != "single"]
    sizes: dict[str, int] = {}
    for cell in data.cells:
        n = 0 if cell.record is None else cell.record.result.n
        sizes[cell.cell.evaluator.name] = max(n, sizes.get(cell.cell.evaluator.name, 0))
    return [
        ("family", _names(label.family for label in labels)),
        ("pairs", _names(label.pair for label in merged)),
        ("methods", _names(label.method for label in merged)),
        ("ratios", _names(label.ratio for label in merged)),
        ("benchmarks", ", ".join(palette.name(b, 40) + f" ({counted(n, 'item')})" * (n > 0) for b, n in sizes.items())),
        *((f"model {name}", source) for name, source in data.models.items()),
        ("versions", ", ".join(f"{name} {version}" for name, version in data.versions.items())),
        ("run it", data.command),
        ("make this page again", data.rebuild),
    ]


def _names(names: Iterable[str]) -> str:
    return ", ".join(palette.name(name, 40) for name in dict.fromkeys(names))


def _facts(pairs: Sequence[tuple[str, str]]) -> str:
    shown = "".join(f"<dt>{escape(name)}</dt><dd>{_code(name, text)}</dd>" for name, text in pairs if text)
    return f'<dl class="facts">{shown}</dl>'


def _code(name: str, text: str) -> str:
    command = name in ("run it", "make this page again")
    return f"<code>{escape(text)}</code>" if command or name.startswith("model ") else escape(text)


def _folded(title: str, lines: Sequence[str]) -> str:
    text = escape("\n".join(lines))
    return f"<details><summary>{escape(title)}</summary><pre>{text}</pre></details>" if lines else ""


# ---------------------------------------------------------------------------------------------------- other sections


def _tables(data: PageData) -> str:
    shown = [tables.render(table, data.cells, data.experts) for table in data.tables]
    return "\n".join(shown) or "<p>No table was asked for.</p>"


def _curves(data: PageData) -> str:
    """Return the controls, or why there is nothing to draw."""
    if not data.studies:
        return (
            "<p>There is no curve: at least lambda 0 and 1 of a pair and method must be evaluated, as"
            " <code>sweeps=lambda_response</code> does.</p>"
        )
    options = "".join(f'<option value="{i}">{escape(s.name)}</option>' for i, s in enumerate(data.studies))
    return Template(_file("curves.html")).substitute(options=options)


def _failures(cells_shown: Sequence[CellData]) -> str:
    failed = [cell for cell in cells_shown if cell.failure]
    if not failed:
        left = sum(cell.state == "left" for cell in cells_shown)
        return f"<p>Nothing failed{f'; {count(left)} not run yet' if left else ''}.</p>"
    rows = "".join(
        f'<tr><th scope="row"><a href="#cell/{cell.key}">{escape(palette.name(cell.cell.evaluator.name, 40))}</a><br>'
        f'<span class="sub">{escape(cells.title(cell))}</span></th><td>{escape(cell.failure)}</td>'
        f"<td><code>{escape(cell.retry)}</code></td></tr>"
        for cell in failed
    )
    return _table(("cell", "reason", "try it again with"), rows, "failed cells")


def _table(header: Sequence[str], rows: str, label: str) -> str:
    head = "".join(f'<th scope="col">{name}</th>' for name in header)
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{label}, table"><table class="wide"><thead>'
        f"<tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _provenance(data: PageData) -> str:
    made: dict[str, tuple[str, str]] = {}
    for cell in data.cells:
        if cell.record is not None:
            made.setdefault(cell.merge, (cell.record.weights, label_text(cell.cell.labels[0])))
    rows = "".join(
        f'<tr><td><code title="{escape(digest)}">{escape(digest[:12])}</code></td><td>{escape(name)}</td>'
        f"<td><code>{escape(merge)}</code></td></tr>"
        for merge, (digest, name) in made.items()
    )
    table = _table(("weights", "what", "the line that rebuilds them"), rows, "weights") if rows else ""
    return f"{_facts(_used(data.cells))}{table}"


def _used(done: Sequence[CellData]) -> list[tuple[str, str]]:
    """Return engines, evaluators with version and settings, sandbox levels and tokenizers of the cells done."""
    records = [cell.record for cell in done if cell.record is not None]
    contained = {r.evaluator.name: sandboxes(r.result.details) for r in records}
    weak = sorted(name for name, levels in contained.items() if "weak" in levels)
    levels = {f"{palette.name(name, 40)}: {', '.join(own)}" for name, own in contained.items() if own}
    return [
        ("engine", _joined(cells.engine(r) for r in records)),
        ("evaluators", _joined(_evaluator(r.evaluator) for r in records)),
        ("sandbox", _joined(levels)),
        ("warning", f"{', '.join(weak)}: programs ran uncontained (sandbox.allow_weak)" if weak else ""),
        ("tokenizers", _joined(str(r.tokenizer) for r in records)),
    ]


def _evaluator(spec: VersionedSpec) -> str:
    settings = cells.spell(spec.settings)
    return f"{spec.name} {spec.version}, items {spec.items}" + (f" ({settings})" if settings else "")


def _joined(texts: Iterable[str]) -> str:
    return "; ".join(sorted(set(texts)))
