"""What people give for scoring: items, answers, frozen attacks, published numbers, judges' replies.

Each is read, or refused in one line that names the file and the field; a malformed reply is a failed judgment. The
right values here are written down by hand. Then seeded mutations of each kind of file (`mutations.py`).
"""

import functools
import gzip
import json
import random
import sys
import time
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from evaluators import alpaca
from evaluators.alpaca.transport import Budget, Passing, Replies, _record
from evaluators.prompt_bench import frozen
from m3_exp.reading.files import unzipped
from m3_exp.reporting.data import published
from m3_exp.scoring.evaluate import evaluate, load_evaluator, score_file
from m3_exp.scoring.items import ItemSet, digest, load, read_rows
from m3_exp.scoring.saved import read_answers
from m3_exp.types import Answer, EvaluatorSpec, M3Error
from tests.mutations import mutate, mutated_json

ROOT = Path(__file__).resolve().parent.parent
LAB = ROOT / "m3_exp" / "lab" / "items"
TARGETS: dict[str, tuple[str, dict[str, Any]]] = {
    "gsm8k": ("evaluators.gsm8k:GSM8K", {}),
    "hendrycks_math": ("evaluators.hendrycks_math:HendrycksMath", {}),
    "humaneval": ("evaluators.humaneval:HumanEval", {}),
    "mbpp": ("evaluators.mbpp:MBPP", {}),
    "alpaca_eval": ("evaluators.alpaca:AlpacaEval", {"judge": "rules"}),
    "livebench_coding": ("evaluators.livebench_coding:LiveBenchCoding", {}),
    "livebench_instruction_following": (
        "evaluators.livebench_instruction_following:LiveBenchInstructionFollowing",
        {},
    ),
    "livebench_typos": ("evaluators.livebench_typos:LiveBenchTypos", {"first": "whole"}),
    "prompt_bench_sst2": ("evaluators.prompt_bench:SST2", {}),
    "prompt_bench_cola": ("evaluators.prompt_bench:CoLA", {}),
}
GSM8K = [{"question": "1 + 1?", "answer": "Two. #### 2"}, {"question": "2 + 2?", "answer": "Four. #### 4"}]
SENTENCES = [{"sentence": "good", "label": 1}, {"sentence": "bad", "label": 0}]


def evaluator(name: str, **settings: Any) -> Any:
    target, own = TARGETS[name]
    return load_evaluator(EvaluatorSpec(name, target, {**own, **settings}))


@functools.cache
def lab(name: str) -> tuple[dict[str, Any], ...]:
    """The first items of the lab's, of every task that there is."""
    lines = [json.loads(line) for line in (LAB / f"{name}.jsonl").read_text("utf-8").split("\n") if line]
    return tuple({str(row.get("task", number)): row for number, row in enumerate(lines[:4] + lines[-4:])}.values())


def written(path: Path, rows: Sequence[Any], head: bytes = b"") -> Path:
    path.write_bytes(head + "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
    return path


def refusal(read: Callable[[], object]) -> str:
    with pytest.raises(M3Error) as refused:
        read()
    assert "\n" not in str(refused.value)
    return str(refused.value)


# ------------------------------------------------------------------------------------------ byte order marks, encodings


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.jsonl.gz", "a.json.gz"])
def test_a_byte_order_mark_changes_nothing(tmp_path: Path, name: str, ends: str) -> None:
    text = json.dumps(GSM8K, indent=1) if ".json" in (name[1:7].rstrip(".gz"),) else ""
    text = text or "".join(json.dumps(row) + "\n" for row in GSM8K)
    data = b"\xef\xbb\xbf" + text.replace("\n", ends).encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    assert read_rows(tmp_path / name) == GSM8K
    items = tmp_path / name
    answers = written(tmp_path / "answers.jsonl", [{"id": "0", "text": "The answer is: 2"}], b"\xef\xbb\xbf")
    spec = EvaluatorSpec("gsm8k", TARGETS["gsm8k"][0], {}, items=str(items))
    summary, code = score_file(spec, answers)
    assert (summary["score"], summary["n"], code) == (100.0, 1, 0)


def test_judgments_and_published_numbers_with_a_byte_order_mark(tmp_path: Path) -> None:
    judgment = {"instruction": "i", "output_2": "o", "preference": 2}
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf" + json.dumps([judgment]).encode())
    assert alpaca.annotation_rows(tmp_path / "a.json") == [judgment]
    table = tmp_path / "ood_gains.csv"
    table.write_bytes(b"\xef\xbb\xbfmodels,benchmark,method,gain_points\r\nlm_math,mbpp,ties,1.5\r\n")
    assert published.gain(tmp_path, "lm_math", "mbpp", "ties") == 1.5


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ('{"question": "é"}'.encode("latin-1"), "a.jsonl:1 is not UTF-8 but another encoding: save it as UTF-8"),
        ('{"question": "é"}'.encode("utf-16"), "a.jsonl:1 is not UTF-8 but UTF-16: save it as UTF-8"),
        (b'{"question": "\\ud800", "answer": ""}', r"a.jsonl:1 holds \ud800, half of a surrogate pair"),
        (b'{"question": "x", "answer": "#### 1", "\\uDFFF": 1}', r"a.jsonl:1 holds \udfff, half"),
        (b'{"question": "\xed\xa0\x80", "answer": ""}', "a.jsonl:1 is not UTF-8"),
        (b"[" * 100_000, "a.jsonl:1 is not usable JSON (nested too deep)"),
        (b'{"question": ' + b"9" * 5000 + b"}", "a.jsonl:1 is not usable JSON (a number of too many digits)"),
        (b'{"question": "x", "answer": "#### 1", "more": NaN}', "a.jsonl, item 0 holds NaN or infinity"),
        (b'{"question": "x", "answer": "#### 1", "more": [1e999]}', "a.jsonl, item 0 holds NaN or infinity"),
        (b'[{"question": "x"}]', "a.jsonl:1 is not a JSON object but an array: correct that line; a file of one array"),
    ],
)
def test_items_that_are_no_text_or_no_json(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(data)
    assert message in refusal(lambda: evaluator("gsm8k").problems(str(tmp_path / "a.jsonl")))


def test_a_whole_surrogate_pair_and_odd_separators_are_characters(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"question": "\\ud83d\\ude00", "answer": "a\xe2\x80\xa8b\xc2\x85c\\u0000 #### 1"}\n')
    [problem] = evaluator("gsm8k").problems(str(path))
    assert problem.row == {"question": "😀", "answer": "a\u2028b\u0085c\0 #### 1"}


# ------------------------------------------------------------------------------------------------ files and their sizes


@pytest.mark.parametrize("items", ["", "~nobody-is-called-so/a.jsonl", "a\0b", "x" * 5000, "/", "absent.jsonl"])
def test_items_that_are_no_file_are_refused(items: str) -> None:
    for name in TARGETS:
        assert "items" in refusal(lambda name=name: evaluator(name).problems(items))  # type: ignore[misc]


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in TARGETS:
        written(tmp_path / "a.jsonl", lab(name))
        assert evaluator(name).problems("~/a.jsonl") == evaluator(name).problems(str(tmp_path / "a.jsonl"))


@pytest.mark.slow
@pytest.mark.parametrize("line", [b"[],", b"{},", b'"x",', b"0,", b"1e5,", b"\n"])
def test_a_gzip_bomb_is_refused_in_little_memory_and_time(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "a.json.gz"
    with gzip.open(path, "wb", 6) as file:
        for _ in range(300):
            file.write(line * ((1 << 20) // len(line)))
    assert path.stat().st_size < 2 << 20
    begun = time.monotonic()
    tracemalloc.start()
    try:
        refusal(lambda: read_rows(path))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (peak < 700 << 20, time.monotonic() - begun < 30) == (True, True)


@pytest.mark.slow
def test_a_gzip_file_of_ordinary_items_is_unpacked_whole() -> None:
    rows = "".join(json.dumps({"id": str(n), "text": "the " * 200}) + "\n" for n in range(20_000)).encode()
    assert unzipped(Path("a"), gzip.compress(rows[:1000]) + gzip.compress(rows[1000:])) == rows
    for size in [0, 1, *((1 << 20) * n + k for n in (1, 2, 20) for k in (-300, -1, 0, 1, 300))]:
        assert unzipped(Path("a"), gzip.compress(b"a" * size)) == b"a" * size
        if size:
            assert "is cut short" in refusal(lambda size=size: unzipped(Path("a"), gzip.compress(b"a" * size)[:-9]))  # type: ignore[misc]


def test_parquet_items_are_those_of_json(tmp_path: Path) -> None:
    import datetime

    import pyarrow as pa
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    parquet.write_table(pa.Table.from_pylist(GSM8K), path)
    assert evaluator("gsm8k").problems(str(path))[1].row == GSM8K[1]
    parquet.write_table(pa.Table.from_pylist([{**GSM8K[0], "day": datetime.date(2024, 11, 25)}]), path)
    assert evaluator("gsm8k").problems(str(path))[0].row["day"] == "2024-11-25"
    parquet.write_table(pa.Table.from_pylist([{**GSM8K[0], "raw": b"\xff"}]), path)
    assert "item 0 holds" in refusal(lambda: evaluator("gsm8k").problems(str(path)))
    parquet.write_table(pa.Table.from_pylist([{**GSM8K[0], "x": float("nan")}]), path)
    assert "item 0 holds NaN" in refusal(lambda: evaluator("gsm8k").problems(str(path)))
    path.write_bytes(b"PAR1" + bytes(20) + b"PAR1")
    assert "cannot be read as parquet" in refusal(lambda: read_rows(path))


# ---------------------------------------------------------------------------------------------------- ids and columns


@pytest.mark.parametrize("wrong", [None, True, 1.0, [], ["x"], {}, ""])
def test_ids_are_texts_or_whole_numbers(tmp_path: Path, wrong: object) -> None:
    rows = [{"task_id": wrong, "text": "Add.", "test_list": ["assert add(1, 2) == 3"]}]
    said = refusal(lambda: evaluator("mbpp").problems(str(written(tmp_path / "a.jsonl", rows))))
    assert "a.jsonl, item 0: its id, 'task_id', is" in said
    rows[0]["task_id"] = 7
    assert [p.id for p in evaluator("mbpp").problems(str(written(tmp_path / "a.jsonl", rows)))] == ["7"]


HUMANEVAL = {
    "task_id": "T/0",
    "prompt": 'def one():\n    """Return 1."""\n',
    "entry_point": "one",
    "canonical_solution": "    return 1\n",
    "test": "def check(candidate):\n    assert candidate() == 1\n",
}
MBPP: dict[str, Any] = {
    "task_id": 1,
    "text": "Return 1.",
    "code": "def one(): return 1",
    "test_list": ["assert one() == 1"],
}
PLUS: dict[str, Any] = {
    **{"task_id": "Mbpp/1", "prompt": '"""\nOne.\nassert one(1) == 1\n"""', "entry_point": "one", "atol": 0},
    **{"canonical_solution": "def one(x): return 1", "base_input": [[1]], "plus_input": [[2], [float("nan")]]},
}


@pytest.mark.parametrize(
    ("name", "row", "field", "value", "said"),
    [
        ("humaneval", HUMANEVAL, "entry_point", ..., "name it in entry_point"),
        ("humaneval", HUMANEVAL, "entry_point", 5, "column 'entry_point' is int, humaneval needs str"),
        (
            "humaneval",
            HUMANEVAL,
            "entry_point",
            "not a name",
            "entry_point is 'not a name', not the name of a function",
        ),
        ("humaneval", HUMANEVAL, "entry_point", "x)\nimport os", "not the name of a function"),
        ("humaneval", HUMANEVAL, "canonical_solution", None, "column 'canonical_solution' is NoneType"),
        ("humaneval", HUMANEVAL, "test", ["assert 1"], "column 'test' is list, humaneval needs str"),
        ("humaneval", HUMANEVAL, "prompt", {}, "column 'prompt' is dict"),
        ("mbpp", MBPP, "test_list", "assert one() == 1", "column 'test_list' is str, mbpp needs list[str]"),
        ("mbpp", MBPP, "test_list", ["assert one() == 1", None], "column 'test_list.1' is NoneType"),
        ("mbpp", MBPP, "test_list", [], "its tests call no function"),
        ("mbpp", MBPP, "test_list", ["assert one( == 1"], "its tests are not Python"),
        ("mbpp", MBPP, "test_list", ["assert one() == '\0'"], "its tests are not Python"),
        ("mbpp", MBPP, "test_list", ["assert one() == " + "-" * 200_000 + "1"], "its tests are not Python"),
        ("mbpp", MBPP, "test_setup_code", 3, "column 'test_setup_code' is int"),
        ("mbpp", MBPP, "test_imports", "import os", "column 'test_imports' is str"),
        ("mbpp", MBPP, "code", ["x"], "column 'code' is list"),
        ("mbpp", PLUS, "atol", "0.1", "column 'atol' is str, mbpp needs float"),
        ("mbpp", PLUS, "atol", [], "column 'atol' is list"),
        ("mbpp", PLUS, "atol", float("nan"), "column 'atol' is nan"),
        ("mbpp", PLUS, "atol", 10**400, "column 'atol' is int"),
        ("mbpp", PLUS, "base_input", {"x": 1}, "column 'base_input' is dict"),
        ("mbpp", PLUS, "base_input", "[", "base_input is no list of inputs"),
        ("mbpp", PLUS, "base_input", "[" * 100_000, "base_input is no list of inputs"),
        ("mbpp", PLUS, "task_id", "one", "an item of MBPP+ is called Mbpp/NUMBER"),
        ("gsm8k", GSM8K[0], "answer", "#### 1.5", "`answer` must end in '#### N'"),
        ("gsm8k", GSM8K[0], "answer", "#### " + "9" * 5000, "`answer` must end in '#### N'"),
        ("gsm8k", GSM8K[0], "question", ["x"], "column 'question' is list"),
        ("prompt_bench_sst2", SENTENCES[0], "label", True, "column 'label' is bool"),
        ("prompt_bench_sst2", SENTENCES[0], "label", 1.0, "column 'label' is float"),
        ("prompt_bench_sst2", SENTENCES[0], "label", -1, "label is -1; it must be 0 or 1"),
        ("prompt_bench_sst2", SENTENCES[0], "instruction", "x", "has a column `instruction`"),
    ],
)
def test_a_wrong_column_is_named(
    tmp_path: Path, name: str, row: Mapping[str, Any], field: str, value: Any, said: str
) -> None:
    good = written(tmp_path / "good.jsonl", [row])
    assert len(evaluator(name).problems(str(good))) == 1
    changed = {key: v for key, v in {**row, field: value}.items() if v is not ...}
    found = refusal(lambda: evaluator(name).problems(str(written(tmp_path / "bad.jsonl", [changed]))))
    assert said in found
    assert len(found) < 600


@pytest.mark.parametrize(
    ("name", "field", "value", "said"),
    [
        ("livebench_instruction_following", "turns", [3], "column 'turns.0' is int"),
        ("livebench_instruction_following", "turns", [], "has 0 turns"),
        ("livebench_instruction_following", "instruction_id_list", [["x"]], "no item can be judged"),
        ("livebench_instruction_following", "kwargs", [3], "no item can be judged"),
        ("livebench_instruction_following", "kwargs", [], "instructions and 0 kwargs"),
        ("livebench_coding", "original_json", [1], "column 'original_json' is list"),
        ("livebench_coding", "public_test_cases", [{"input": "", "output": ""}], "'public_test_cases' is list"),
        ("livebench_coding", "partial_solution", 5, "column 'partial_solution' is int"),
        ("livebench_typos", "ground_truth", 5, "column 'ground_truth' is int"),
        ("livebench_typos", "task", None, "column 'task' is NoneType"),
        ("livebench_typos", "question_id", 5, "column 'question_id' is int"),
        ("livebench_typos", "livebench_release_date", 20241125, "'livebench_release_date' is int"),
        ("alpaca_eval", "rules", [5], "5 is not a rule"),
        ("alpaca_eval", "rules", [{"rule": ["x"]}], "is not a rule"),
        ("alpaca_eval", "rules", [{"rule": "max_words", "n": "5"}], "does not fit the rule max_words"),
        ("hendrycks_math", "solution", "no box", "must hold the gold answer"),
    ],
)
def test_a_wrong_nested_field_is_named(tmp_path: Path, name: str, field: str, value: Any, said: str) -> None:
    rows = [{**row, field: value} for row in lab(name)]
    found = refusal(lambda: evaluator(name).problems(str(written(tmp_path / "bad.jsonl", rows))))
    assert said in found


def test_tests_of_livebench_that_are_damaged_leave_their_item_unscored(tmp_path: Path) -> None:
    row = {**lab("livebench_coding")[0], "private_test_cases": "[" * 100_000}
    tested = evaluator("livebench_coding")
    problems = tested.problems(str(written(tmp_path / "a.jsonl", [row])))
    [score], _ = evaluate(tested, problems, [Answer(problems[0].id, "```\nprint(1)\n```")])
    assert score.value is None
    assert "its tests cannot be read" in str(score.reason)


@pytest.mark.slow
def test_a_keyword_that_never_ends_leaves_its_item_unscored(tmp_path: Path) -> None:
    row = {
        **lab("livebench_instruction_following")[0],
        **{"instruction_id_list": ["keywords:existence"], "kwargs": [{"keywords": ["((a|aa)+)+$"]}]},
    }
    tested = evaluator("livebench_instruction_following")
    problems = tested.problems(str(written(tmp_path / "a.jsonl", [row])))
    begun = time.monotonic()
    [score], _ = evaluate(tested, problems, [Answer(problems[0].id, "a" * 60 + "b")])
    assert (score.value, time.monotonic() - begun < 30) == (None, True)
    assert "does not end" in str(score.reason)


# -------------------------------------------------------------------------------------------------- an evaluator's name


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("os:system", "is not a dataclass"),
        ("subprocess:Popen", "is not a dataclass"),
        ("m3_exp.types:Problem", "is not a dataclass that inherits m3_exp.scoring.evaluator.Evaluator"),
        ("m3_exp.scoring.evaluator:ChatSettings", "has no name, version, skill, prompt, item_set, score_one"),
        ("evaluators.nowhere:X", "cannot be imported"),
        ("evaluators.gsm8k", "cannot be imported"),
        (":", "cannot be imported"),
        ("..x:y", "cannot be imported"),
    ],
)
def test_a_target_that_is_no_evaluator_is_refused_before_it_is_called(target: str, said: str) -> None:
    assert said in refusal(lambda: load_evaluator(EvaluatorSpec("x", target, {})))


def test_a_module_that_fails_while_it_is_imported_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_plugin.py").write_text("raise RuntimeError('no such GPU')\n")
    (tmp_path / "unfinished_plugin.py").write_text("def (\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "no such GPU" in refusal(lambda: load_evaluator(EvaluatorSpec("x", "broken_plugin:X", {})))
    assert "cannot be imported" in refusal(lambda: load_evaluator(EvaluatorSpec("x", "unfinished_plugin:X", {})))
    sys.modules.pop("broken_plugin", None)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("gsm8k", {"max_tokens": 1 << 70}),
        ("prompt_bench_sst2", {"prompts": 3}),
        ("prompt_bench_sst2", {"prompts": [1]}),
    ],
)
def test_settings_of_the_wrong_kind_are_refused(name: str, settings: dict[str, Any]) -> None:
    assert next(iter(settings)) in refusal(lambda: evaluator(name, **settings))


# -------------------------------------------------------------------------------------------------------------- answers


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\xff\xfe{\0", "answers.jsonl:1 is not UTF-8 but UTF-16"),
        (b'{"id": "0", "text": "\\udc00"}', r"answers.jsonl:1 holds \udc00, half"),
        (b'{"id": "\\ud800", "text": ""}', r"answers.jsonl:1 holds \ud800, half"),
        (b'{"id": 0.5, "text": ""}', "answers.jsonl:1 must be an object with two strings"),
        (b'{"id": "0", "text": ["x"]}', "answers.jsonl:1 must be an object with two strings"),
        (b'{"id": "0", "text": "x"', "answers.jsonl:1 is not valid JSON"),
        (b'{"id": "0"}' + b"[" * 100_000, "answers.jsonl:1 is not"),
        (b"\n\n", "holds no answers"),
        (b"", "holds no answers"),
    ],
)
def test_broken_answers_are_refused_with_the_line(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_bytes(data)
    assert said in refusal(lambda: read_answers(path))


@pytest.mark.parametrize("name", ["absent", "x" * 5000, "a\0b", "."])
def test_answers_that_are_no_file_are_refused(tmp_path: Path, name: str) -> None:
    items = str(written(tmp_path / "a.jsonl", lab("alpaca_eval")))
    for benchmark in ("gsm8k", "alpaca_eval"):  # the second reads a format of its own as well
        spec = EvaluatorSpec(benchmark, *TARGETS[benchmark], items=items)
        refusal(lambda spec=spec: score_file(spec, tmp_path / name))  # type: ignore[misc]


def test_packed_answers_are_read(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"id": "0", "text": "x"}\n'))
    assert read_answers(path) == [(1, Answer("0", "x", finish=""))]


@pytest.mark.parametrize("row", [{"instruction": ["x"], "output": "o"}, {"instruction": {}, "output": "o"}, {}])
def test_answers_in_alpacas_form_with_a_wrong_instruction(tmp_path: Path, row: dict[str, Any]) -> None:
    items = str(written(tmp_path / "a.jsonl", lab("alpaca_eval")))
    (tmp_path / "answers.json").write_text(json.dumps([row]))
    spec = EvaluatorSpec("alpaca_eval", *TARGETS["alpaca_eval"], items=items)
    assert "answers.json, row 0 has" in refusal(lambda: score_file(spec, tmp_path / "answers.json"))


@pytest.mark.parametrize("preference", [True, "2", 3, -1, 1e999, [2], {}, float("nan")])
def test_a_stored_judgment_that_is_no_preference_is_no_score(tmp_path: Path, preference: object) -> None:
    rows = [{"instruction": "Say hello.", "output": "Hello."}]
    judged = [{"instruction": "Say hello.", "output_2": "Hi.", "preference": preference}]
    (tmp_path / "judged.json").write_text(json.dumps(judged))
    tested = evaluator("alpaca_eval", judge="precomputed", annotations=str(tmp_path / "judged.json"))
    problems = tested.problems(str(written(tmp_path / "a.jsonl", rows)))
    [score], result = evaluate(tested, problems, [Answer("0", "Hi.")])
    assert (score.value, result.score) == (None, None)


# ------------------------------------------------------------------------------------------------------- frozen attacks

CLEAN = {"id": "7", "row": {"sentence": "good", "label": 1}}
ATTACKED = {
    "id": "7@seed2",
    "row": {
        **{"sentence": "good", "label": 1, "attack": "stresstest", "protocol": "adaptive", "seed": 2},
        **{"instruction": "Say it: {content} true", "facts": {"queries": 3}},
    },
}


def prepared(path: Path, problems: object) -> Path:
    path.write_text(json.dumps({"benchmark": "prompt_bench_sst2", "weights": "w", "problems": problems}))
    return path


def test_frozen_attacks_are_read(tmp_path: Path) -> None:
    path = prepared(tmp_path / "a.json", [CLEAN, ATTACKED])
    assert [p.id for p in frozen.stored(str(path), "prompt_bench_sst2") or []] == ["7", "7@seed2"]
    [prompt] = frozen.read(str(path), "prompt_bench_sst2", "stresstest")
    assert (prompt.seed, prompt.prompt, prompt.facts) == (2, "Say it: {content} true", {"found_on_weights": "w"})


@pytest.mark.parametrize(
    ("place", "field", "value", "said"),
    [
        ("row", "sentence", 5, "problems.0.row: sentence must be a text (it is 5)"),
        ("row", "label", True, "problems.0.row: label must be a whole number"),
        ("row", "label", 2, "problems.0.row: label must be less than or equal to 1"),
        ("row", "seed", "2", "problems.0.row: seed must be a whole number"),
        ("row", "seed", 10**30, "problems.0.row: seed"),
        ("row", "seed", 3, "an item attacked with seed 3 is called ITEM@seed3"),
        ("row", "facts", [], "problems.0.row: facts must be an object"),
        ("row", "instruction", None, "problems.0.row: instruction must be a text"),
        ("row", "attack", ["x"], "problems.0.row: attack must be a text"),
        ("id", "", 7, "problems.0.id must be a text (it is 7)"),
        ("id", "", "7@seedx", "is called ITEM@seed2"),
        ("id", "", "7@seed1@seed2", "is called ITEM@seed2"),
    ],
)
def test_a_wrong_field_of_frozen_items_is_named(
    tmp_path: Path, place: str, field: str, value: object, said: str
) -> None:
    item = {**ATTACKED, "row": {**ATTACKED["row"], field: value}} if place == "row" else {**ATTACKED, "id": value}  # type: ignore[dict-item]
    path = prepared(tmp_path / "a.json", [item])
    assert said in refusal(lambda: frozen.stored(str(path), "prompt_bench_sst2"))


@pytest.mark.parametrize(
    "content",
    [
        *("", "3", "null", "{}", "[", "[3]", "[" * 100_000, '[{"attack": "stresstest"}]', '{"problems": []}'),
        '[{"attack": "stresstest", "seed": true, "prompt": "{content}"}]',
        '[{"attack": "stresstest", "seed": -1, "prompt": "{content}"}]',
        '[{"attack": "stresstest", "seed": 0, "prompt": "{content} \\ud800"}]',
        '{"benchmark": "prompt_bench_sst2", "problems": [{"id": "a@seed", "row": {"sentence": "", "label": 0}}]}',
        '{"benchmark": "prompt_bench_sst2", "problems": [3]}',
        '{"benchmark": "prompt_bench_sst2", "problems": []}',
    ],
)
def test_frozen_prompts_that_are_none_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.json").write_text(content)
    tested = evaluator(
        *["prompt_bench_sst2"], attack="stresstest", protocol="transferred", prompts=str(tmp_path / "a.json")
    )
    assert "a.json" in refusal(lambda: tested.problems(str(written(tmp_path / "items.jsonl", SENTENCES))))


def test_an_own_item_with_the_name_of_an_attacked_one_is_refused(tmp_path: Path) -> None:
    sets = ItemSet("prompt_bench_sst2", {"sentence": str, "label": int}, "", 0, "", "", "id")
    [problem] = load(sets, str(written(tmp_path / "a.jsonl", [{"id": "a@seedx", **SENTENCES[0]}])))
    assert "holds @seed" in refusal(lambda: frozen.check_clean(problem, "a.jsonl"))


# ---------------------------------------------------------------------------------------------------- published numbers

GAINS = "models,benchmark,method,gain_points\n"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (GAINS.encode() + b"a,b,c,\xff\n", "ood_gains.csv:2 is not UTF-8"),
        (GAINS.encode("utf-16"), "ood_gains.csv:1 is not UTF-8 but UTF-16"),
        (b"", "has no column models"),
        (b"models,benchmark,method\na,b,c\n", "has no column gain_points"),
        (GAINS.encode(), "has no rows"),
        ((GAINS + "a,b,c\n").encode(), "row 1 has not as many fields"),
        ((GAINS + "a,b,c,1,2\n").encode(), "row 1 has not as many fields"),
        ((GAINS + "a,b,c,nan\n").encode(), "row 1: gain_points is 'nan'; give a number, or ?"),
        ((GAINS + "a,b,c,1\na,b,c,1e999\n").encode(), "row 2: gain_points is '1e999'"),
        ((GAINS + "a,b,c,\n").encode(), "row 1: gain_points is ''"),
        ((GAINS + 'a,b,c,"1\n').encode(), "is not CSV"),
        ((GAINS + "a,b,c," + "1" * 200_000 + "\n").encode(), "is not CSV"),
    ],
)
def test_broken_published_numbers_are_refused(tmp_path: Path, data: bytes, said: str) -> None:
    (tmp_path / "ood_gains.csv").write_bytes(data)
    assert said in refusal(lambda: published.gain(tmp_path, "a", "b", "c"))


def test_flags_of_the_paper_are_zero_or_one(tmp_path: Path) -> None:
    (tmp_path / "table1.csv").write_text("method,models,mixup,dare,gsm8k\naverage,lm_math,yes,0,1.5\n")
    row = published.Row("average", "lm_math", False, False)
    assert "row 1: mixup is 'yes'; give 0 or 1" in refusal(lambda: published.table1(tmp_path, row, "gsm8k"))


# -------------------------------------------------------------------------------------------------------------- replies

WRONG_LOGPROBS: list[Any] = [3, [], {"content": 3}, {"content": [3]}, {"content": [{"top_logprobs": [1]}]}]
REPLY: dict[str, Any] = {
    "choices": [
        {
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": "Output (a)", "tool_calls": None},
            "logprobs": {"content": [{"token": "m", "top_logprobs": [{"token": "m", "logprob": -0.1}]}]},
        }
    ],
    "model": "judge-1",
    "usage": {"prompt_tokens": 400, "completion_tokens": 10},
}


def with_choice(**changed: Any) -> dict[str, Any]:
    return {**REPLY, "choices": [{**REPLY["choices"][0], **changed}]}


def test_a_reply_is_read() -> None:
    found = _record(json.dumps(REPLY))
    assert (found["choice"], found["model"], found["usage"]) == (REPLY["choices"][0], "judge-1", REPLY["usage"])
    call = {"tool_calls": [{"function": {"name": "f", "arguments": "{}"}}], "content": None}
    assert _record(json.dumps(with_choice(message=call)))["choice"]["message"] == call


@pytest.mark.parametrize(
    "reply",
    [
        *(3, None, "x", [], {}, {"choices": []}, {"choices": {}}, {"choices": [3]}, {"choices": [[]]}),
        *(
            {"choices": None},
            with_choice(message=None),
            with_choice(message="x"),
            with_choice(message=[["content", "x"]]),
        ),
        *(with_choice(message={"content": c}) for c in (3, ["x"], {"a": 1}, True, "\ud800")),
        *(with_choice(message={"tool_calls": c}) for c in ({}, [1], [{}], [{"function": {}}], "x")),
        with_choice(message={"tool_calls": [{"function": {"arguments": {"a": 1}}}]}),
        with_choice(message={"function_call": "x"}),
        *(with_choice(logprobs=p) for p in WRONG_LOGPROBS),
        *(
            with_choice(logprobs={"content": [{"top_logprobs": [{"token": "m", "logprob": p}]}]})
            for p in (float("nan"), 5.0, "-1", None)
        ),
    ],
)
def test_a_malformed_reply_is_a_failed_judgment(reply: object) -> None:
    with pytest.raises(Passing, match="not a chat completion"):
        _record(json.dumps(reply))


@pytest.mark.parametrize("body", ["", "<html>", "[" * 100_000, "{", '{"choices": [' + "[" * 500 + "]" * 500 + "]}"])
def test_what_is_no_json_is_a_failed_judgment(body: str) -> None:
    with pytest.raises(Passing, match="not a chat completion"):
        _record(body)


@pytest.mark.parametrize(
    "usage",
    [3, [], {}, {"prompt_tokens": "4"}, {"prompt_tokens": -(10**9)}, {"prompt_tokens": 1, "completion_tokens": "x"}],
)
def test_a_usage_that_is_none_is_booked_as_what_was_set_aside(usage: object) -> None:
    record = _record(json.dumps({**REPLY, "usage": usage}))
    assert record["usage"] is None
    budget = Budget([1.0, 1.0], 10.0)
    held = budget.hold(1_000_000, 1_000_000)
    budget.settle(held, record["usage"], billed=True)
    assert budget.spent == held > 2.0


def test_a_kept_reply_that_is_malformed_is_asked_for_again(tmp_path: Path) -> None:
    replies = Replies(tmp_path / "judgments")
    replies.put({"key": "ab", "choice": {"message": {"tool_calls": [1]}}, "model": None, "usage": None})
    assert replies.get("ab") is None
    replies.put({"key": "ab", "choice": REPLY["choices"][0], "model": None, "usage": None})
    assert (replies.get("ab") or {})["choice"] == REPLY["choices"][0]


# ------------------------------------------------------------------------------------------------------------ mutations

SANDBOXED = ("humaneval", "mbpp", "livebench_coding")  # whose scoring starts processes
OWN: dict[str, list[dict[str, Any]]] = {"humaneval": [HUMANEVAL], "mbpp": [MBPP, {**MBPP, "task_id": 2}]}


def broken_lines(path: Path, chance: random.Random) -> str:
    """Change a field of a line, or bytes."""
    if chance.random() < 0.25:
        return mutate(path, chance)
    lines = path.read_text("utf-8").split("\n")
    number = chance.randrange(max(1, len(lines) - 1))
    value, said = mutated_json(json.loads(lines[number]), chance)
    lines[number] = json.dumps(value)
    path.write_text("\n".join(lines), "utf-8")
    return said


def use_items(folder: Path, chance: random.Random) -> str:
    name = chance.choice(sorted(TARGETS))
    rows = list(OWN[name]) if name in OWN and chance.random() < 0.5 else list(lab(name))
    rows = [PLUS] if name == "mbpp" and chance.random() < 0.3 else rows
    ending = chance.choice(["jsonl", "jsonl", "json", "jsonl.gz", "parquet"])
    path = folder / f"items.{ending}"
    if ending == "json":
        path.write_text(json.dumps(rows))
        said = mutate(path, chance)
    elif ending == "parquet" and name not in SANDBOXED and name != "livebench_instruction_following":
        said = mutate(_parquet(path, rows), chance)
    elif ending == "jsonl.gz":
        path.write_bytes(gzip.compress(written(folder / "plain", rows).read_bytes(), mtime=0))
        said = mutate(path, chance)
    else:
        path = written(folder / "items.jsonl", rows)
        said = broken_lines(path, chance)
    tested = evaluator(name)
    problems = tested.problems(str(path))
    digest(problems)
    answers = [Answer(p.id, text) for p in problems if (text := tested.gold(p)) is not None]
    for problem in problems:
        tested.prompt(problem).encode()
        tested.wrong(problem)
    if name not in SANDBOXED:
        scores, _ = evaluate(tested, problems, answers)
        assert all(score.value is None or 0 <= score.value <= 1 for score in scores)
    return f"{name}: {said}"


def _parquet(path: Path, rows: Sequence[Any]) -> Path:
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.Table.from_pylist([dict(row) for row in rows]), path)
    return path


def use_answers(folder: Path, chance: random.Random) -> str:
    items = written(folder / "items.jsonl", GSM8K)
    path = written(folder / "answers.jsonl", [{"id": str(n), "text": "The answer is: 2"} for n in (0, 1, 1)])
    said = broken_lines(path, chance)
    summary, _ = score_file(EvaluatorSpec("gsm8k", *TARGETS["gsm8k"], items=str(items)), path)
    assert summary["score"] is None or 0 <= summary["score"] <= 100
    return said


def use_published(folder: Path, chance: random.Random) -> str:
    source = chance.choice(sorted((ROOT / "results" / "published").glob("*.csv")))
    path = folder / source.name
    path.write_bytes(source.read_bytes())
    said = mutate(path, chance)
    published.rows.cache_clear()
    table = published.table1 if path.stem == "table1" else None
    row = published.Row("average", "lm_math", False, False)
    if table is not None:
        number = table(folder, row, "gsm8k")
        assert number is None or number.value is None or abs(number.value) < 1e4
    published.attacked(folder, "table2", "math_code", "prompt_bench_sst2", False) if path.stem == "adversarial" else 0
    published.rows(path)
    return said


def use_frozen(folder: Path, chance: random.Random) -> str:
    path = prepared(folder / "a.json", [CLEAN, ATTACKED])
    if chance.random() < 0.4:
        prompts = [{"attack": "stresstest", "seed": n, "prompt": f"{n}: {{content}}"} for n in range(2)]
        path.write_text(json.dumps(prompts))
    said = mutate(path, chance)
    items = written(folder / "items.jsonl", SENTENCES)
    tested = evaluator("prompt_bench_sst2", attack="stresstest", protocol="transferred", prompts=str(path))
    digest(tested.prepare(tested.problems(str(items)), lambda prompts: [""] * len(prompts)))
    tested = evaluator("prompt_bench_sst2")
    problems = tested.problems(str(path))
    evaluate(tested, problems, [Answer(p.id, "positive") for p in problems])
    return said


def use_reply(folder: Path, chance: random.Random) -> str:
    path = folder / "reply.json"
    path.write_text(json.dumps(REPLY))
    said = broken_lines(path, chance)
    try:
        record = _record(path.read_text("utf-8", "replace") if path.is_file() else "")
    except Passing as failure:
        raise M3Error(str(failure)) from None
    message = record["choice"]["message"]
    assert isinstance(message.get("content"), str | None)
    assert record["usage"] is None or record["usage"]["prompt_tokens"] >= 0
    json.dumps(record, ensure_ascii=False).encode()
    return said


USES = (use_items, use_answers, use_published, use_frozen, use_reply)


def broken(folder: Path, use: Callable[[Path, random.Random], str], seed: int) -> None:
    """Break a file and use it: it works, or one line says why not."""
    folder.mkdir()
    begun, refused = time.monotonic(), "it was used"
    try:
        use(folder, random.Random(seed))
    except M3Error as error:
        refused = str(error)
    except Exception as error:
        raise AssertionError(f"{use.__name__}, seed {seed}: {type(error).__name__}: {str(error)[:300]}") from error
    assert 10 < len(refused) < 3000
    assert time.monotonic() - begun < 60, f"{use.__name__}, seed {seed}"


@pytest.mark.parametrize("use", USES)
def test_mutations_end_in_success_or_one_line(tmp_path: Path, use: Callable[[Path, random.Random], str]) -> None:
    for seed in range(120):
        broken(tmp_path / str(seed), use, seed)


@pytest.mark.long
@pytest.mark.parametrize("block", range(20))
@pytest.mark.parametrize("use", USES)
def test_many_mutations(tmp_path: Path, use: Callable[[Path, random.Random], str], block: int) -> None:
    for seed in range(1000 + 100 * block, 1100 + 100 * block):
        broken(tmp_path / str(seed), use, seed)
