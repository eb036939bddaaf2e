"""A store that grew large: scores lie in columns, stores of before are read, and no command reads a record twice."""

import json
import pickle
import tarfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from m3_exp import machine, planning
from m3_exp.command_line import ROOT, CommandLine
from m3_exp.config import request
from m3_exp.merging import methods
from m3_exp.merging.canonical import TASK_ARITHMETIC
from m3_exp.reading import records
from m3_exp.reading.scores import ScoreColumns, column, columns, noted
from m3_exp.reporting.page import ITEMS_DROPPED, CellData
from m3_exp.results import Results
from m3_exp.stats import resampling
from m3_exp.stats.estimate import Shape, even_shares, influences
from m3_exp.stats.lambdas import Curve, quantiles
from m3_exp.stats.objective import Objective
from m3_exp.stats.resampling import halves, weighted
from m3_exp.stats.scored import ItemArray, aligned, in_common, of_scores, scored
from m3_exp.store import Store, dumps, write_atomic
from m3_exp.types import CellResult, EngineSettings, M3Error, Result, ResultRecord, Score, identity, plain
from m3_exp.views import page
from m3_exp.views.lookup import look_up_development
from tests.golden.commands import CONFIG, RECORDED, WORLD, call
from tests.records import kind

SCORES = (
    Score("a", 1.0, extracted="7", notes={"level": "1"}),
    Score("b\n,", None, reason='"value":[', notes={"sandbox": "weak"}),
    Score("c", 0.25, sample=2, notes={}),
)


def record(*scores: Score, metric: str = "accuracy") -> ResultRecord:
    return ResultRecord(Result("letters", metric, 50.0, 1.0, 99.0, 3, 2, 1), scores)


def stored(tmp_path: Path, *scores: Score) -> ResultRecord:
    Store(tmp_path).results("cell").put("000003-x", record(*scores))
    found = Store(tmp_path).results("cell").get("000003-x")
    assert found is not None
    return found


def test_scores_come_out_of_columns_as_they_went_in(tmp_path: Path) -> None:
    for scores in ((), SCORES[:1], SCORES, tuple(replace(score, sample=0) for score in SCORES)):
        found = stored(tmp_path, *scores)
        assert isinstance(found.scores, ScoreColumns)
        assert found == record(*scores)
        assert plain(found) == plain(record(*scores))
        assert [list(column(found.scores, name)) for name in ("id", "value", "notes")] == [
            [getattr(score, name) for score in scores] for name in ("id", "value", "notes")
        ]
    assert noted(found.scores, "sandbox", "weak")
    assert not noted(found.scores, "sandbox", "7")


def test_a_record_with_columns_is_one_json_object(tmp_path: Path) -> None:
    stored(tmp_path, *SCORES)
    data = Store(tmp_path).results("cell").path("000003-x").read_bytes()
    whole = json.loads(data)
    assert whole["scores"]["id"] == ["a", "b\n,", "c"]
    assert whole["scores"]["extracted"] == ["7", None, None]
    assert len(data.splitlines()) == 1 + len(columns(SCORES)), "a line a column"


def test_scores_in_rows_of_before_are_read(tmp_path: Path) -> None:
    write_atomic(tmp_path / "format.json", b'{"format":2}')
    old = plain(record(*SCORES))
    kind(Store(tmp_path), "results/cell").path("k").parent.mkdir(parents=True)
    body = dumps({name: value for name, value in old.items() if value is not None})
    write_atomic(tmp_path / "results/cell/k.json", records.sealed(body, "results/cell/k"))
    assert json.loads((tmp_path / "format.json").read_bytes()) == {"format": 2}, "reading writes nothing"
    assert Store(tmp_path).results("cell").get("k") == record(*SCORES)
    Store(tmp_path).results("cell").put("new", record(*SCORES))
    assert json.loads((tmp_path / "format.json").read_bytes()) == {"began": 2, "format": 3}
    assert Store(tmp_path).results("cell").get("k") == record(*SCORES)


def test_a_changed_column_is_damage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored(tmp_path, *SCORES)
    path = Store(tmp_path).results("cell").path("000003-x")
    path.write_bytes(path.read_bytes().replace(b"[1.0,null,0.25]", b"[1.0,null,0.75]"))
    assert Store(tmp_path).results("cell").get("000003-x") is None
    assert "its checksum does not match" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "text"),
    [("value", '["1"]'), ("value", "[1.0,0.0]"), ("id", "7"), ("notes", "[[],[],[]]"), ("value", "[" * 100_000)],
)
def test_columns_that_m3_never_writes_are_named(tmp_path: Path, name: str, text: str) -> None:
    body = dumps({key: value for key, value in plain(record()).items() if value is not None and key != "scores"})
    lists = {key: dumps(value) for key, value in columns(SCORES).items()} | {name: text}
    path = Store(tmp_path).results("cell").path("k")
    text = records.columns_text(lists)
    write_atomic(path, records.sealed(records.with_columns(body, "scores", text), "results/cell/k"))
    found = Store(tmp_path).results("cell").get("k")
    assert found is not None
    with pytest.raises(M3Error, match=f"k.json holds scores that m3 does not write .{name}.: remove it"):
        list(found.scores)


NOTES = [{}, {"level": "2"}, {"task": "t"}, {"problem": "p"}, {"left_out": True}, {"reason": "task"}]


@pytest.mark.parametrize("by_task", [False, True])
@pytest.mark.parametrize("notes", NOTES)
@pytest.mark.parametrize("ids", [("a", "b", "c"), ("a", "a", "b"), ("a", "a@seed0", "b")])
def test_items_of_columns_are_those_of_scores(
    tmp_path: Path, ids: tuple[str, ...], notes: dict[str, object], by_task: bool
) -> None:
    """Columns have a way of their own to the items. That of rows is taken where an item has two samples."""
    scores = [
        Score(key, value, notes=notes if at else {})
        for at, (key, value) in enumerate(zip(ids, (1.0, None, 0.5), strict=True))
    ]
    again = [replace(score, sample=1) for score in scores]  # two samples an item: the way of rows
    found = stored(tmp_path, *scores)
    one, two = (of_scores(own, by_task=by_task) for own in (found.scores, [*scores, *again]))
    assert one == of_scores(scores, by_task=by_task) == two
    assert scored(found) == of_scores(scores)


def test_each_record_is_parsed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids are shared, and reading twice as many results parses twice as many columns, no more."""
    parsed: Counter[str] = Counter()
    whole = ScoreColumns.parsed

    def counted(self: ScoreColumns, name: str) -> object:
        parsed[name] += 1
        return whole(self, name)

    monkeypatch.setattr(ScoreColumns, "parsed", counted)
    counts = []
    for n in (4, 8):
        for key in range(n):
            Store(tmp_path).results("cell").put(str(key), record(*(replace(s, sample=0) for s in SCORES)))
        parsed.clear()
        found = [one for one in Store(tmp_path).results("cell").values()]
        assert not parsed, "a plan parses no scores"
        items = [scored(one) for one in found]
        counts.append(dict(parsed))
        assert len({id(key) for one in items for key in one.values}) == 2, "results of one item set share their ids"
    assert counts[1] == {name: 2 * count for name, count in counts[0].items()}
    assert {"extracted", "reason"}.isdisjoint(counts[0]), "texts are for pages"


@pytest.mark.parametrize("items", [1, 9, 500])
def test_items_are_weighted_to_the_last_bit_as_one_stratum_of_them(items: int) -> None:
    """Without strata there is a shorter way, which a page takes millions of times: no choice may hang on it."""
    generator = np.random.default_rng(0)
    drawn = generator.integers(0, 4, (200, items)) * (generator.random((200, items)) < 0.5) / items
    one_stratum = Shape(even_shares(["a"] * items), ["a"] * items)
    assert np.array_equal(weighted(drawn), weighted(drawn, one_stratum))
    assert np.allclose(weighted(drawn).sum(axis=1), 1)


def test_items_are_a_mapping_of_an_array() -> None:
    ids = ("b", "a", "c")
    items = ItemArray(ids, np.array([1.0, 0.0, 0.5]))
    assert items == {"b": 1.0, "a": 0.0, "c": 0.5}
    assert [*items] == [*ids]
    assert "a" in items
    assert "d" not in items
    assert aligned(items, ["c", "b"]).tolist() == aligned(dict(items), ["c", "b"]).tolist() == [0.5, 1.0]
    for values in (items, dict(items)):
        with pytest.raises(KeyError):
            aligned(values, ["d"])
    assert in_common([items, ItemArray(ids, np.zeros(3)), {"a": 1.0, "b": 0.0, "x": 1.0}]) == ["a", "b"]


@pytest.mark.parametrize("values", [(0.0, 1.0, 0.5, 1.0), (1.0,), ((0.0, 1.0), (0.25, 0.5), (1.0, 1.0))])
def test_even_items_have_the_influence_of_clusters_of_one(values: tuple[object, ...]) -> None:
    """Where every item counts the same there is a shorter way, which a large table takes for every cell."""
    known = np.array(values)
    assert influences(known).tolist() == influences(known, Shape(clusters=[*"abcdefg"[: len(known)]])).tolist()


def test_halvings_that_are_kept_are_those_that_would_be_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resampling, "_DRAWN", {})
    ways = []
    for _ in range(2):  # the second time they are kept
        generator = np.random.default_rng(5)
        drawn = [halves(n, 20, generator)[0].tolist() for n in (9, 9, 30)]
        ways.append((drawn, generator.random(3).tolist()))
    assert ways[0] == ways[1]
    assert ways[0][0][0] != ways[0][0][1], "the generator goes on"
    monkeypatch.setattr(resampling, "_KEPT", 2)
    generator = np.random.default_rng(6)
    for n in (5, 6, 7, 8):
        halves(n, 4, generator)
    assert len(resampling._DRAWN) == 2


def test_an_expected_minimum_is_that_of_the_scores_at_the_quantiles() -> None:
    lams, generator = np.array([0.0, 0.25, 0.5, 1.0]), np.random.default_rng(3)
    curves = tuple(Curve(("a", "b"), lams, generator.random((2, 4))) for _ in range(3))
    objective = Objective("minimum", curves, tuple(np.ones(2) for _ in curves), "minimum")
    nodes = generator.random((130, 3, 4))
    along = np.array([[np.interp(quantiles(0.4), lams, own) for own in each] for each in nodes])
    assert np.allclose(objective.expected_least(nodes, 0.4), along.min(axis=1).mean(axis=1), rtol=1e-13)


def test_a_plan_has_the_identity_of_its_whole_text() -> None:
    asked = ["pair=lm_math", "ratio=mixup", "ratio.draws=2", "sparsify=dare", "evaluator=[gsm8k,mbpp]", "limit=3"]
    for words in (asked, ["family=local", "family.base=/b", "family.experts=[/a,'/ü\"']"], ["pair=math"]):
        plan = request(words).plan
        assert plan.identity == identity(plan)


def test_whether_a_hyper_parameter_is_a_number_is_not_forgotten() -> None:
    methods.check_params(TASK_ARITHMETIC, {"scaling": 1.0})
    with pytest.raises(M3Error, match="scaling=True is not a number"):
        methods.check_params(TASK_ARITHMETIC, {"scaling": True})


def test_a_file_of_items_is_no_development_set(tmp_path: Path) -> None:
    """items=dev leaves a benchmark's own file as it is: choosing on it would be choosing on the test's items."""
    (tmp_path / "own.jsonl").write_text('{"id": "1", "question": "1 + 1?", "answer": "#### 2"}\n')
    (tmp_path / "conf" / "evaluator").mkdir(parents=True)
    text = (
        (ROOT / "conf" / "evaluator" / "gsm8k.yaml")
        .read_text()
        .replace("\ngsm8k:", "\nmine:")
        .replace("@gsm8k", "@mine")
    )
    (tmp_path / "conf" / "evaluator" / "mine.yaml").write_text(f"{text.rstrip()}\n  items: {tmp_path}/own.jsonl\n")
    asked = CommandLine(
        ("family=lab", f"store={tmp_path}/store", "evaluator=[mine,mbpp]"), config_dirs=(tmp_path / "conf",)
    )
    both = look_up_development("alpha_grid", asked)
    assert {spec.name for one in both.request.configs for spec in one.evaluators} == {"mbpp"}
    with pytest.raises(M3Error, match="no benchmark has development items"):
        look_up_development("alpha_grid", replace(asked, overrides=(*asked.overrides[:-1], "evaluator=[mine]")))


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["plan", "sweeps=table1", "limit=6"],
        ["status", "sweeps=table1", "limit=6"],
        ["table", "lambda_response", "pair=lm_math", "method=average,ties", "limit=8"],
        ["table", "table1", "limit=6", "--repeats"],
        ["table", "table2", "limit=12", "--json"],
        ["response", "pair=lm_math", "method=average", "limit=8", "--repeats", "20"],
    ],
)
def test_what_every_core_looks_up_is_what_one_does(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the golden record's store, of which each cell is a part here."""
    with tarfile.open(WORLD) as tar:
        tar.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(machine, "cores", lambda: [0, 1])
    asked = [*words, *CONFIG, "store=store", *RECORDED]
    alone = call(asked)
    copies: list[int] = []
    whole = machine.in_processes
    monkeypatch.setattr(machine, "_PART", 1)
    monkeypatch.setattr(machine, "in_processes", lambda f, parts: copies.append(len(parts)) or whole(f, parts))
    assert call(asked) == alone
    assert alone[0] == 0
    assert max(copies) == 8


def test_a_page_reads_the_items_of_its_first_cells_only(monkeypatch: pytest.MonkeyPatch) -> None:
    (cell,) = planning.build(request(["pair=math", "evaluator=[gsm8k]"]).configs).cells
    found = [CellResult(cell, None), *(CellResult(cell, record(*SCORES)) for _ in range(4))]
    read: list[CellData] = []
    monkeypatch.setattr(page, "_ITEMS", 7)
    monkeypatch.setattr(page, "_with_items", lambda data, *_: read.append(data) or data)
    cells = list(page._cells(found, Results(Store(Path("none")), EngineSettings()), ""))
    assert len(read) == 2, "of three items each"
    assert [one.note for one in cells] == ["", "", "", ITEMS_DROPPED, ITEMS_DROPPED]


def test_a_column_is_found_where_it_stands() -> None:
    """A text that looks like another column's beginning is none: a line break stands between columns alone."""
    lists = {"id": '["\\n\\"value\\":[1]"]', "value": "[0.5]", "notes": '[{"id":",","value":[2]}]'}
    written = records.columns_text(lists).encode()
    assert {name: records.column_list(written, name).decode() for name in lists} == lists
    assert records.column_list(written, "sample") == b""
    assert records.column_list(written, "val") == b""
    assert records.column_list(b"{}", "id") == b""


def test_columns_are_read_as_pythons_own_parser_reads_them() -> None:
    generator = np.random.default_rng(4)
    values = [*generator.random(300), *np.ldexp(generator.random(300), generator.integers(-1080, 1000, 300)), 0.1, 1]
    texts = ["", "é", "\ud83d", 'a\\"\n', "\U0001f600", None]
    written = records.columns_text({"value": dumps(values), "extracted": dumps(texts)}).encode()
    found = ScoreColumns(written, "here")
    assert [*map(repr, found.parsed("value"))] == [*map(repr, json.loads(dumps(values)))]
    assert found.parsed("extracted") == texts


def test_scores_from_another_process_are_read_again_where_they_are_asked_for(tmp_path: Path) -> None:
    found = stored(tmp_path, *SCORES)
    sent = pickle.dumps(found)
    assert b"[1.0,null,0.25]" not in sent, "only the name of the file crosses"
    assert pickle.loads(pickle.dumps(pickle.loads(sent))) == found == record(*SCORES)
    written = records.columns_text({name: dumps(values) for name, values in columns(SCORES).items()}).encode()
    assert pickle.loads(pickle.dumps(ScoreColumns(written, "a record"))) == SCORES
    Store(tmp_path).results("cell").put("000003-x", record(*(replace(score, value=0.5) for score in SCORES)))
    with pytest.raises(M3Error, match=r"000003-x\.json changed while it was read: try again"):
        list(pickle.loads(sent).scores)
    Store(tmp_path).results("cell").drop("000003-x")
    with pytest.raises(M3Error, match="changed while it was read"):
        list(pickle.loads(sent).scores)
