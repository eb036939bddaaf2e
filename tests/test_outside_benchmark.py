"""A benchmark from a folder outside the tree: settings, name, score (`test_outside.py` asks the commands)."""

import contextlib
import json
import re
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from m3_exp.reporting.figures import palette
from m3_exp.scoring.evaluate import load_evaluator
from m3_exp.store import Store
from m3_exp.tasks import Tasks
from m3_exp.types import Cell, EvaluatorSpec, M3Error, Recipe, Source
from tests.golden.commands import HERE, WORLD, call
from tests.plugins import LETTERS, LETTERS_YAML

WORDS = 8


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a folder with tiny models, the benchmark with its yaml, and answers to it and to gsm8k."""
    folder = tmp_path_factory.mktemp("outside")
    with tarfile.open(WORLD) as tar:
        tar.extractall(folder, [m for m in tar if m.name.startswith(("models/", "answers-gsm8k"))], filter="data")
    (folder / "letters.py").write_text(LETTERS)
    yaml = folder / "conf" / "evaluator" / "letters.yaml"
    yaml.parent.mkdir(parents=True)
    yaml.write_text(LETTERS_YAML)
    words = re.findall(r'"(\w+)"', re.search(r"WORDS = (.*)", LETTERS)[1])  # type: ignore[index]
    told = [{"benchmark": "letters", "id": word, "text": f"There are {word.count('e')}."} for word in words[:-1]]
    told.append({"benchmark": "letters", "id": words[-1], "text": "None."})
    asked = [json.loads(line) for line in (folder / "answers-gsm8k.jsonl").read_text().splitlines()]
    every = [*told, *({"benchmark": "gsm8k", **answer} for answer in asked)]
    (folder / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in every))
    (folder / "letters.jsonl").write_text("".join(json.dumps(line) + "\n" for line in told))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield folder
    sys.modules.pop("letters", None)


def m3(folder: Path, *words: str) -> str:
    with contextlib.chdir(folder):
        code, said = call([*words, f"--config-dir={folder / 'conf'}"])
    assert code == 0, said
    return said


CURVE = ("ratio.nodes=5", "ratio.sampled=0")
WHERE = (
    f"--config-dir={HERE / 'conf'}", "family=golden", "evaluator=[gsm8k,letters]", "evaluator.letters.letter=e",
    "engine=recorded", "engine.answers=answers.jsonl", "store=store", "tracker=none",
)  # fmt: skip


def test_its_keyword_is_checked(outside: Path) -> None:
    with pytest.raises(AssertionError, match="letters has the settings letter, max_tokens, chat_template"):
        m3(outside, "plan", "pair=lm_math", *WHERE, "evaluator.letters.word=x")


def test_it_is_scored(outside: Path) -> None:
    found = json.loads(m3(outside, "score", "letters", "letters.jsonl"))
    assert (found["metric"], found["score"], found["n"]) == ("accuracy", 100 * (WORDS - 1) / WORDS, WORDS)
    assert found["settings"]["letter"] == "e"
    other = json.loads(m3(outside, "score", "letters", "letters.jsonl", "letter=z"))
    assert other["score"] < found["score"]


BOXED = """defaults: [_self_, _base@gsm8k_boxed]
gsm8k_boxed:
  target: evaluators.gsm8k:GSM8K
  extractor: boxed
  max_tokens: 1024
"""


@pytest.mark.slow
def test_two_settings_of_one_benchmark_stand_side_by_side(outside: Path) -> None:
    """They are asked the same and share their answers; each has a column, a title and a mark of its own."""
    (outside / "conf/evaluator/gsm8k_boxed.yaml").write_text(BOXED)
    pair = ("pair=lm_math", "method=average", "limit=12", *CURVE, *WHERE[:2], "evaluator=[gsm8k,gsm8k_boxed]")
    pair = (*pair, *WHERE[4:6], "store=pair")
    m3(outside, "run", *pair, "ratio=grid", "tracker=none")
    assert len(list((outside / "pair/answers").iterdir())) == 5
    store = Store(outside / "pair")
    results = [record for path in (outside / "pair/results").iterdir() for record in store.results(path.name).values()]
    assert Counter((r.result.benchmark, r.result.score == 0) for r in results)["gsm8k_boxed", True] == 5
    assert len({r.rows_digest for r in results}) == 1
    header = m3(outside, "table", "lambda_response", *pair).partition("\n| --")[0]
    assert re.findall(r"\| (gsm8k\w*), accuracy, n=12", header) == ["gsm8k", "gsm8k_boxed"]
    m3(outside, "figure", "response", *pair, "--out", "pair.svg")
    m3(outside, "report", *pair, "ratio=grid", "--out", "pair-page")
    for shown in ("pair.svg", "pair-page/index.html"):
        assert {"GSM8K", "gsm8k boxed"} <= set(re.findall(r"GSM8K|gsm8k boxed", (outside / shown).read_text()))
    assert palette.benchmark("gsm8k") != palette.benchmark("gsm8k_boxed")


def test_two_classes_of_one_name_are_refused_in_one_line(outside: Path) -> None:
    (outside / "other_letters.py").write_text(LETTERS)
    (outside / "conf/evaluator/mine.yaml").write_text("mine: {target: 'other_letters:Letters'}\n")
    asked = [word.replace("letters]", "letters,mine]") for word in WHERE]
    with pytest.raises(AssertionError, match="other_letters:Letters and letters:Letters both have the name 'letters'"):
        m3(outside, "plan", *asked)


def test_a_class_that_inherits_nothing_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bare_letters.py").write_text(LETTERS.replace("Letters(ChatSettings)", "Letters"))
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(M3Error, match=r"^evaluator letters: target=.* inherits m3_exp.scoring.evaluator.Evaluator"):
        load_evaluator(EvaluatorSpec("letters", "bare_letters:Letters"))


def variant(folder: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str) -> None:
    """Write the example with a change as the benchmark `changed`."""
    assert old in LETTERS
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "changed", raising=False)
    (folder / "changed.py").write_text(LETTERS.replace(old, new).replace('"letters"', '"changed"'))
    yaml = LETTERS_YAML.replace("letters: ${oc", "changed: ${oc").replace("letters:Letters", "changed:Letters")
    yaml = yaml.replace("_base@letters", "_base@changed").replace("\nletters:", "\nchanged:")
    (folder / "conf" / "evaluator").mkdir(parents=True, exist_ok=True)
    (folder / "conf" / "evaluator" / "changed.yaml").write_text(yaml.replace("letters,64", "changed,64"))


NUMBERS = "shots: int = 0\n    threshold: float = -0.5\n    letter: str"
BASE = Source("models/base")
CHANGED = EvaluatorSpec("changed", "changed:Letters")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, ""),
        ({"shots": 0, "threshold": 0.0}, ""),
        ({"shots": -3, "threshold": -2}, ""),
        ({"shots": 0.5}, "changed: shots=0.5 must be a whole number"),
        ({"shots": True}, "changed: shots=True must be a whole number"),
        ({"threshold": "low"}, "changed: threshold=low must be a finite number"),
        ({"threshold": float("nan")}, "changed: threshold=nan must be a finite number"),
        ({"threshold": float("-inf")}, "changed: threshold=-inf must be a finite number"),
        ({"max_tokens": 0}, "changed: max_tokens=0 must be a whole number of at least 1"),
    ],
)
def test_its_own_numbers_are_not_bounded(
    settings: dict[str, object], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variant(tmp_path, monkeypatch, "letter: str", NUMBERS)
    spec = replace(CHANGED, settings=settings)
    if said:
        with pytest.raises(M3Error, match=f"^{re.escape(said)}$"):
            load_evaluator(spec)
    else:
        found = load_evaluator(spec).settings
        assert found == {**found, "shots": 0, "threshold": -0.5, **settings}


def test_it_may_bound_its_own_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bound = 'above_zero = ("max_tokens", "shots")\n    ' + NUMBERS
    variant(tmp_path, monkeypatch, "letter: str", bound)
    with pytest.raises(M3Error, match=r"^changed: shots=0 must be a whole number of at least 1$"):
        load_evaluator(replace(CHANGED, settings={"shots": 0}))


ITEMS = '[Problem(word, {"word": word}) for word in WORDS]'
WRONG = [
    (ITEMS, "[]", "changed holds no items: give at least one"),
    (ITEMS, "None", "changed holds no items: give at least one"),
    (ITEMS, '[Problem("a", {"word": w}) for w in WORDS]', "changed: the id 'a' occurs twice; every item needs its own"),
    (ITEMS, '[Problem(7, {"word": "a"})]', "changed: the id of an item is the number 7: give a text that is not empty"),
    (ITEMS, '[Problem("", {"word": "a"})]', "changed: the id of an item is the text '': give a text"),
    (ITEMS, "list(WORDS)", "changed: the id of an item is null: give a text that is not empty"),
]


@pytest.mark.parametrize(("old", "new", "said"), WRONG)
def test_its_items_are_checked(old: str, new: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    variant(tmp_path, monkeypatch, old, new)
    with pytest.raises(M3Error, match=f"^{re.escape(said)}"):
        Tasks(Store(tmp_path)).problems(Cell(Recipe(BASE, (BASE,), "average"), CHANGED, BASE, (), BASE))
    answers = tmp_path / "answers.jsonl"
    answers.write_text('{"id": "a", "text": "1"}\n')
    with contextlib.chdir(tmp_path):
        code, told = call(["score", "changed", "answers.jsonl", "--config-dir=conf"])
    assert (code, f"m3: {said}" in told) == (2, True), told


@pytest.mark.parametrize(("old", "new", "said"), [WRONG[0], (
    'return f"How', 'return f"How" if problem.row["word"] == "letter" else None and f"How',
    "changed: a prompt is None and no text: let `prompt` return one",
)])  # fmt: skip
def test_a_run_of_it_is_refused_in_one_line(
    outside: Path, old: str, new: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    variant(outside, monkeypatch, old, new)
    asked = [*WHERE[:2], "evaluator=changed", *WHERE[4:6], f"store={len(said)}", "tracker=none", "pair=lm_math"]
    with contextlib.chdir(outside):
        code, told = call(["run", *asked, "method=average", f"--config-dir={outside / 'conf'}"])
    assert (code, said in told, "Traceback" in told) == (2, True, False), told


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("def gold", "def __post_init__(self):\n        raise ValueError(self.letter)\n\n    def gold",
         "changed: changed:Letters and {'letter': 'q'} fail (ValueError('q')): change one of them"),
        ("def gold", "def __post_init__(self):\n        raise SystemExit(3)\n\n    def gold", "(SystemExit(3))"),
        ("import re\n", "import re, sys\n\nsys.exit()\n",
         "changed: target=changed:Letters cannot be imported (SystemExit()); write module:Class"),
    ],
)  # fmt: skip
def test_a_class_that_fails_when_it_is_made_is_told_in_one_line(
    old: str, new: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variant(tmp_path, monkeypatch, old, new)
    with pytest.raises(M3Error, match=re.escape(said)):
        load_evaluator(replace(CHANGED, settings={"letter": "q"}))
