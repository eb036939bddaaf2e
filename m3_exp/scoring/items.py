"""Where a benchmark's items come from, and the check that they are the right ones.

`items=PATH` is that file, `items=lab` the small set that ships with the project (`m3_exp/lab/items`). The official
items are looked for in this order: the folder that M3_DATA names, an installed package that ships them, the Hugging
Face hub at a pinned revision. Whatever their source, their content must have the digest written in the plugin, so a
file format or a mirror does not matter and a changed item is refused.

Development items are for choosing (alpha, lambda, hyper-parameters) and are none of the test's: `items=dev` means
`lab-dev` (`m3_exp/lab/items/dev`) where the test items are the lab's, `official-dev` where they are the official ones.
"""

import datetime
import hashlib
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args, get_origin

import m3_exp
from m3_exp.reading.files import MIB, TEXT, check_finite, exists, kind_of, lines, parse_json, read_text
from m3_exp.reading.paths import expanded, is_file
from m3_exp.types import M3Error, Problem, identity

Row = Mapping[str, Any]

_NAMED = ("official", "official-dev", "lab", "lab-dev")
_MOST = 20_000_000  # objects and arrays of a file, each of which takes over 50 bytes of memory
_BATCH = 256  # rows of a parquet file at a time
_DEV = {"lab": "lab-dev", "official": "official-dev"}  # test items -> the development items that go with them


@dataclass(frozen=True)
class HubFile:
    """A parquet or JSON file of a data set on the Hugging Face hub, at one commit."""

    repo: str
    revision: str
    path: str


@dataclass(frozen=True)
class ItemSet:
    """What a benchmark's items must look like, and where the official ones lie, if there are any.

    Attributes:
        columns: those that each row must have, with their types. `list[str]`: a list of texts; `object`: anything, or
            missing. Further columns are allowed.
        file: the path of the official items under M3_DATA.
        rows: how many official items there are.
        content: the sha256 of the official rows (`content_digest`).
        origin: what to download, for the error that says so.
        id_column: the column that names an item; None: the zero-based row.
        package_file: an installed package and a path inside it.
        hub: the file on the hub.
        convert: makes a row of the file's row, before any check.
        keep: whether a row of the file belongs to the set; None: all do.
        dev: the development items.
        optional: types of the columns that may be null or missing.
    """

    benchmark: str
    columns: Mapping[str, Any]
    file: str = ""
    rows: int = 0
    content: str = ""
    origin: str = ""
    id_column: str | None = None
    package_file: tuple[str, str] | None = None
    hub: HubFile | None = None
    convert: Callable[[Row], Row] | None = None
    keep: Callable[[Row], bool] | None = None
    dev: "ItemSet | None" = None
    optional: Mapping[str, Any] = field(default_factory=dict)


def development(items: str) -> str:
    """Return the development items that go with a family's test items: what `items=dev` means.

    Raises:
        M3Error: they are a file of one's own.
    """
    if items not in _DEV:
        raise M3Error(
            f"items=dev: only {' and '.join(_DEV)} items have development items, the family's are {items}:"
            " give your own development items as items=PATH"
        )
    return _DEV[items]


def is_development(items: str) -> bool:
    """Tell whether an item set is one of development items."""
    return items in _DEV.values()


def lab_has_dev(benchmark: str) -> bool:
    """Tell whether the lab has development items of a benchmark."""
    return _lab_file(benchmark, _DEV["lab"]).is_file()


def load(wanted: ItemSet, items: str) -> list[Problem]:
    """Return the items of one benchmark: `items` is `official`, `lab` or the path of a .json, .jsonl or .gz file, or
    `official-dev` or `lab-dev` for its development items.

    Raises:
        M3Error: they cannot be found (with what to download and where to put it), or are not what they should be.
    """
    if items in ("official", "official-dev"):
        return _official(wanted, items)
    lab = items in ("lab", "lab-dev")
    path = _lab_file(wanted.benchmark, items) if lab else Path(expanded(items, "items"))
    if is_file(path):
        return to_problems(wanted, read_rows(path), str(path))
    if lab:
        kind = "" if items == "lab" else "development "
        raise M3Error(
            f"items={items}: the lab has no {wanted.benchmark} {kind}items yet; use items=official or items=PATH"
        )
    raise M3Error(no_file(items))


def no_file(items: str) -> str:
    return f"items={items} is not a file; allowed are official, lab, dev, or a .json, .jsonl or .gz file"


def is_gone(items: str) -> bool:
    """Tell whether items are those of a user's file, and that file is not there any more."""
    return items not in _NAMED and not exists(Path(items))


def own_row(items: str) -> Row | None:
    """Return the first row of a user's file of items, which shows their form. An empty file has an empty row.

    None where `items` is the name of a set (`official`, `lab`), or no file.

    Raises:
        M3Error: it cannot be the path of a file, or is not readable.
    """
    path = None if items in _NAMED else Path(expanded(items, "items"))
    return next(iter(read_rows(path)), {}) if path and is_file(path) else None


def _lab_file(benchmark: str, items: str) -> Path:
    folder = Path(m3_exp.__file__).parent / "lab" / "items"
    return (folder / "dev" if items == "lab-dev" else folder) / f"{benchmark}.jsonl"


def _official(test: ItemSet, items: str) -> list[Problem]:
    wanted = test if items == "official" else test.dev
    if wanted is None:
        raise M3Error(
            f"items=dev: {test.benchmark} has no official items but its test's: choose by cross-fitting"
            " (--select crossfit), or give development items of your own as items=PATH"
        )
    aim = "" if wanted is test else " for development"
    source = _official_file(wanted)
    if source is None:
        raise M3Error(
            f"the official {wanted.benchmark} items{aim} are not here: download {wanted.origin} ({wanted.rows} rows),"
            f" put it at DIR/{wanted.file} and set M3_DATA=DIR; or use items=lab, or items=PATH"
        )
    problems = to_problems(wanted, read_rows(source), str(source))
    if content_digest(wanted, problems) != wanted.content:
        raise M3Error(
            f"{source} holds {len(problems)} rows that are not the official {wanted.rows} of {wanted.benchmark}{aim}"
            f" (their content differs): download {wanted.origin} again, or use items={source} to score it as your own"
            " set"
        )
    return problems


def _official_file(wanted: ItemSet) -> Path | None:
    folder = os.environ.get("M3_DATA")
    if folder and is_file(path := Path(expanded(folder, "M3_DATA")) / wanted.file):
        return path
    if wanted.package_file:
        package, inside = wanted.package_file
        spec = find_spec(package)
        for parent in (spec.submodule_search_locations or []) if spec else []:
            if (path := Path(parent) / inside).is_file():
                return path
    return _from_hub(wanted.hub) if wanted.hub else None


def _from_hub(file: HubFile) -> Path | None:
    """Return the hub's file from its cache, else downloaded; None where the hub does not give it."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache

    held = try_to_load_from_cache(file.repo, file.path, revision=file.revision, repo_type="dataset")
    if isinstance(held, str):
        return Path(held)
    try:
        get_hf_file_metadata(hf_hub_url(file.repo, file.path, revision=file.revision, repo_type="dataset"), timeout=10)
        return Path(hf_hub_download(file.repo, file.path, revision=file.revision, repo_type="dataset"))
    except Exception:  # whatever the client and its HTTP library raise: the caller says what to do without the hub
        return None


def read_rows(path: Path) -> list[Row]:
    """Read a file of items, one a row: .jsonl or .json (an array), also gzipped, or .parquet.

    Raises:
        M3Error: it is not readable as such, or too large; the line is named.
    """
    if path.suffix == ".parquet":
        return _parquet_rows(path)
    text = read_text(path)
    if text.count("{") + text.count("[") > _MOST:
        raise M3Error(f"{path} holds more than {_MOST:,} objects and arrays: that is no file of items")
    if not path.name.removesuffix(".gz").endswith(".json"):
        return [_object(path, number, line) for number, line in lines(text)]
    rows = parse_json(text, path, object)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise M3Error(f"{path} must hold one JSON array of objects; a file of one object a line is called .jsonl")
    return rows


def _object(path: Path, number: int, line: str) -> Row:
    row = parse_json(line, f"{path}:{number}", object)
    if not isinstance(row, dict):
        more = "; a file of one array is called .json" if isinstance(row, list) else ""
        raise M3Error(f"{path}:{number} is not a JSON object but {kind_of(row)}: correct that line{more}")
    return row


def _parquet_rows(path: Path) -> list[Row]:
    """Read a parquet file a few rows at a time, since a small one can stand for very much."""
    from pyarrow import ArrowException, parquet

    rows: list[Row] = []
    size = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(_BATCH):
                size += batch.nbytes
                if size > TEXT or len(rows) > _MOST:
                    raise M3Error(f"{path} unpacks to more than {TEXT // MIB} MiB: that is no file of items")
                rows += [_with_texts_for_dates(row) for row in batch.to_pylist()]
    except (ArrowException, OSError, ValueError, TypeError, KeyError, OverflowError) as error:  # whatever damage does
        raise M3Error(f"{path} cannot be read as parquet: {' '.join(str(error).split())[:200]}") from None
    return rows


def _with_texts_for_dates(value: Any) -> Any:
    """Return a row as JSON can hold it: parquet files have dates of their own type."""
    if isinstance(value, Mapping):
        return {key: _with_texts_for_dates(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_texts_for_dates(item) for item in value]
    return value.isoformat() if isinstance(value, datetime.date) else value


def to_problems(wanted: ItemSet, rows: Sequence[Row], where: str) -> list[Problem]:
    """Check rows against the contract (columns, types, unique ids) and name them.

    Raises:
        M3Error: a row breaks it; the row and the column are named.
    """
    kept = [row for row in rows if wanted.keep(row)] if wanted.keep else rows
    problems = []
    for number, row in enumerate(map(wanted.convert, kept) if wanted.convert else kept):
        _check_row(wanted, row, f"{where}, item {number}")
        problems.append(Problem(str(row[wanted.id_column]) if wanted.id_column else str(number), row))
    return checked(problems, where)


def checked(problems: Sequence[Problem], where: str) -> list[Problem]:
    """Return items, those that a benchmark's own `problems` made too, of which each has a text of its own as its id.

    Raises:
        M3Error: there are none, or an id is no text, empty, or there twice.
    """
    if not problems:
        raise M3Error(f"{where} holds no items: give at least one")
    seen: set[str] = set()
    for key in (getattr(problem, "id", None) for problem in problems):
        if not (key and isinstance(key, str)):
            raise M3Error(f"{where}: the id of an item is {kind_of(key)}: give a text that is not empty")
        if key in seen:
            raise M3Error(f"{where}: the id {key!r} occurs twice; every item needs its own")
        seen.add(key)
    return list(problems)


def _check_row(wanted: ItemSet, row: Row, where: str) -> None:
    given = {key: kind for key, kind in wanted.optional.items() if row.get(key) is not None}
    for column, kind in {**wanted.columns, **given}.items():
        fault = _fault(kind, row[column], column) if column in row else None if kind is object else (column, "missing")
        if fault is not None:
            needed = kind.__name__ if get_origin(kind) is None else str(kind)
            raise M3Error(
                f"{where}: column {fault[0]!r} is {fault[1]}, {wanted.benchmark} needs {needed};"
                f" required are {', '.join(wanted.columns)}"
            )
    if wanted.id_column and not (type(name := row.get(wanted.id_column)) is int or (name and isinstance(name, str))):
        raise M3Error(f"{where}: its id, {wanted.id_column!r}, is {kind_of(name)}: give a text or a whole number")
    check_finite(row, where)


def _fault(kind: Any, value: object, name: str) -> tuple[str, str] | None:
    """Return where a value breaks a type, and what stands there; None if it has the type."""
    if get_origin(kind) is list and isinstance(value, list):
        faults = (_fault(get_args(kind)[0], item, f"{name}.{number}") for number, item in enumerate(value))
        return next((fault for fault in faults if fault), None)
    if kind is float:
        fits = (type(value) is float and math.isfinite(value)) or (type(value) is int and abs(value) <= 2**53)
    else:
        fits = kind is object or type(value) is (get_origin(kind) or kind)
    return None if fits else (name, str(value) if kind is type(value) else type(value).__name__)


def content_digest(wanted: ItemSet, problems: Iterable[Problem]) -> str:
    """Return the sha256 of ids and required columns, in order: equal for the same items in any file format."""
    rows = [[problem.id, {column: problem.row.get(column) for column in wanted.columns}] for problem in problems]
    return identity(rows)


def digest(problems: Iterable[Problem]) -> str:
    """Return the sha256 of an item set: ids and whole rows, in order."""
    return identity([[problem.id, problem.row] for problem in problems])


def first(problems: Sequence[Problem], benchmark: str, n: int | None) -> list[Problem]:
    """Return the first `n` items (None: all) in the order of sha256("benchmark/id"): a larger n contains a smaller."""
    if n is not None and n < 1:
        raise M3Error(f"limit={n} must be at least 1, or left out for all items")
    ordered = sorted(problems, key=lambda problem: hashlib.sha256(f"{benchmark}/{problem.id}".encode()).hexdigest())
    return ordered[:n]
