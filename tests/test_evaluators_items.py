"""Where items come from, in which order, and that changed or malformed ones are refused."""

import gzip
import hashlib
import http.server
import json
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evaluators import alpaca, gsm8k, hendrycks_math
from evaluators.alpaca import AlpacaEval
from evaluators.gsm8k import GSM8K
from evaluators.hendrycks_math import HendrycksMath
from evaluators.humaneval import HumanEval
from m3_exp.scoring.evaluator import Evaluator
from m3_exp.scoring.items import ItemSet, content_digest, digest, first, load, read_rows
from m3_exp.types import M3Error, Problem

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("M3_DATA") or ROOT.parent / "shared" / "data")
needs_data = pytest.mark.skipif(
    not DATA.is_dir(), reason="the benchmarks' files are not here: set M3_DATA to their folder"
)

ROWS = [{"question": f"Question {k}?", "answer": f"#### {k}"} for k in range(5)]
SMALL = ItemSet("small", {"question": str, "answer": str}, "small/test.jsonl", 5, "", "small.jsonl of nowhere")
SMALL = replace(SMALL, content=content_digest(SMALL, [Problem(str(k), row) for k, row in enumerate(ROWS)]))


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    if path.name.removesuffix(".gz").endswith(".json"):
        lines = json.dumps(rows, indent=2)
    path.write_bytes(gzip.compress(lines.encode()) if path.suffix == ".gz" else lines.encode())
    return path


@pytest.fixture(autouse=True)
def _no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("M3_DATA", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


# ------------------------------------------------------------------------------------------------------------ sources


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.jsonl.gz", "a.json.gz"])
def test_a_path_in_any_format_gives_the_same_items(tmp_path: Path, name: str) -> None:
    problems = load(SMALL, str(write(tmp_path / name, ROWS)))
    assert [problem.id for problem in problems] == ["0", "1", "2", "3", "4"]
    assert content_digest(SMALL, problems) == SMALL.content


def test_official_items_from_m3_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "small" / "test.jsonl", [{**row, "extra": 1} for row in ROWS])
    monkeypatch.setenv("M3_DATA", str(tmp_path))
    assert [problem.row["extra"] for problem in load(SMALL, "official")] == [1] * 5


@pytest.mark.parametrize("change", [lambda rows: rows[:-1], lambda rows: rows[::-1], lambda rows: [*rows, rows[0]]])
def test_official_items_with_other_content_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Any
) -> None:
    path = write(tmp_path / "small" / "test.jsonl", change(ROWS))
    monkeypatch.setenv("M3_DATA", str(tmp_path))
    with pytest.raises(M3Error, match=r"not the official 5 of small .*download small.jsonl of nowhere again"):
        load(SMALL, "official")
    assert len(load(SMALL, str(path))) == len(change(ROWS))  # as a set of one's own they are fine


def test_official_items_that_are_nowhere_say_what_to_download_and_where_to_put_it() -> None:
    with pytest.raises(M3Error, match=r"download small.jsonl of nowhere \(5 rows\), put it at DIR/small/test.jsonl"):
        load(SMALL, "official")


def test_humaneval_comes_with_its_package_and_m3_data_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problems = HumanEval().problems("official")
    assert (len(problems), problems[0].id, problems[163].id) == (164, "HumanEval/0", "HumanEval/163")
    write(tmp_path / "humaneval" / "HumanEval.jsonl.gz", [dict(problem.row) for problem in problems[:9]])
    monkeypatch.setenv("M3_DATA", str(tmp_path))
    with pytest.raises(M3Error, match="holds 9 rows that are not the official 164 of humaneval"):
        HumanEval().problems("official")


def test_m3_data_without_the_file_goes_on_to_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("M3_DATA", str(tmp_path))
    assert len(HumanEval().problems("official")) == 164


@pytest.mark.parametrize("items", ["nowhere.jsonl", "Official"])
def test_anything_else_is_refused(items: str) -> None:
    with pytest.raises(M3Error, match=f"items={items} is not a file; allowed are official, lab"):
        load(SMALL, items)


def test_a_benchmark_without_lab_items_says_so() -> None:
    with pytest.raises(M3Error, match="items=lab: the lab has no small items yet"):
        load(SMALL, "lab")


@needs_data
@pytest.mark.parametrize(
    ("evaluator", "n", "last"),
    [(GSM8K(), 1319, "1318"), (HendrycksMath(), 5000, "4999"), (HumanEval(), 164, "HumanEval/163")],
)
def test_the_real_files_are_the_official_items(
    monkeypatch: pytest.MonkeyPatch, evaluator: Evaluator, n: int, last: str
) -> None:
    monkeypatch.setenv("M3_DATA", str(DATA))
    problems = evaluator.problems("official")
    assert (len(problems), problems[-1].id) == (n, last)


@needs_data
def test_the_real_alpaca_items_load_but_carry_no_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("M3_DATA", str(DATA))
    assert len(load(alpaca.ITEMS, "official")) == 805
    with pytest.raises(M3Error, match=r"item 0 carries no rules, so judge=rules cannot judge it .* use items=lab"):
        AlpacaEval().problems("official")


@pytest.mark.parametrize(
    "wanted", [gsm8k.ITEMS, hendrycks_math.ITEMS, alpaca.ITEMS], ids=lambda wanted: wanted.benchmark
)
def test_absent_official_items_name_the_file_and_its_origin(wanted: ItemSet) -> None:
    with pytest.raises(
        M3Error, match=f"the official {wanted.benchmark} items are not here: download .* GitHub repository"
    ):
        load(wanted, "official")


# ---------------------------------------------------------------------------------------------------------- the hub


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[str]:
    """A server on the loopback that answers as the hub does, with the real GSM8K rows as its parquet file."""
    import pyarrow
    from pyarrow import parquet

    rows = [json.loads(line) for line in (DATA / "gsm8k" / "test.jsonl").read_text().splitlines()]
    file = tmp_path / "test.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    body = file.read_bytes()
    assert gsm8k.ITEMS.hub is not None
    where = f"/datasets/openai/gsm8k/resolve/{gsm8k.ITEMS.hub.revision}/{gsm8k.ITEMS.hub.path}"

    class Hub(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            known = self.path == where
            self.send_response(200 if known else 404)
            self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
            self.send_header("X-Repo-Commit", self.path.split("/")[5])
            self.send_header("Content-Length", str(len(body) if known else 0))
            self.end_headers()

        def do_GET(self) -> None:
            self.do_HEAD()
            if self.path == where:
                self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@needs_data
@pytest.mark.parametrize("reachable", [True, False])
def test_the_hub_is_asked_last_at_the_pinned_revision(hub: str, tmp_path: Path, reachable: bool) -> None:
    code = "from evaluators.gsm8k import GSM8K\nprint(len(GSM8K().problems('official')))"
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub if reachable else "http://127.0.0.1:9",
        "HF_HOME": str(tmp_path / "hf"),
    }
    environment |= {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    if reachable:
        assert done.stdout == "1319\n", done.stderr
    else:
        assert "the official gsm8k items are not here: download" in done.stderr


# --------------------------------------------------------------------------------------------------------- contracts


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "holds no items"),
        ([{"question": "?"}], r"item 0: column 'answer' is missing, small needs str; required are question, answer"),
        ([{"question": "?", "answer": 4}], "item 0: column 'answer' is int, small needs str"),
        (
            [{"question": "?", "answer": "#### 1"}, {"question": None, "answer": ""}],
            "item 1: column 'question' is NoneType",
        ),
    ],
)
def test_rows_that_break_the_contract_are_named(tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(M3Error, match=message):
        load(SMALL, str(write(tmp_path / "rows.jsonl", rows)))


def test_two_items_of_one_id_are_refused(tmp_path: Path) -> None:
    named = replace(SMALL, id_column="question")
    with pytest.raises(M3Error, match="the id 'Question 0\\?' occurs twice"):
        load(named, str(write(tmp_path / "rows.jsonl", [ROWS[0], ROWS[0]])))


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.jsonl", b'{"a": 1}\n{"a": \n', "a.jsonl:2 is not valid JSON"),
        ("a.jsonl", b"[1]\n", "a.jsonl:1 is not a JSON object"),
        ("a.jsonl", b"\xff\xfe", "a.jsonl:1 is not UTF-8 but UTF-16"),
        ("a.json", b'{"a": 1}', "must hold one JSON array"),
        ("a.json", b"[1", "is not valid JSON"),
        ("a.jsonl.gz", b"plain", "is not a readable gzip file"),
        ("a.jsonl.gz", gzip.compress(b"{}" * 99, mtime=0)[:-9], "is cut short"),
    ],
)
def test_unreadable_files_are_named(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(M3Error, match=message):
        read_rows(tmp_path / name)


# ------------------------------------------------------------------------------------------------------------- limit

MANY = [Problem(str(k), {"question": str(k)}) for k in range(200)]


def test_the_first_items_are_nested_and_depend_on_ids_alone() -> None:
    whole = first(MANY, "gsm8k", None)
    shuffled = random.Random(0).sample(MANY, len(MANY))
    for n in (1, 10, 200, 999):
        assert first(shuffled, "gsm8k", n) == whole[:n]
    assert whole != MANY
    assert first(MANY, "hendrycks_math", 50) != whole[:50]
    keys = [hashlib.sha256(f"gsm8k/{problem.id}".encode()).hexdigest() for problem in whole]
    assert keys == sorted(keys)


@pytest.mark.parametrize("n", [0, -1])
def test_a_limit_below_one_is_refused(n: int) -> None:
    with pytest.raises(M3Error, match=f"limit={n} must be at least 1"):
        first(MANY, "gsm8k", n)


def test_the_digest_of_an_item_set_sees_ids_rows_and_order() -> None:
    base = digest(MANY[:3])
    assert base == digest([Problem(p.id, dict(p.row)) for p in MANY[:3]])
    changed = [
        MANY[:2],
        MANY[2::-1],
        [*MANY[:2], Problem("x", MANY[2].row)],
        [*MANY[:2], Problem("2", {"question": "3"})],
    ]
    assert all(digest(other) != base for other in changed)
