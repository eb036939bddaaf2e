"""A benchmark from a folder outside the tree: settings, name, score (`test_outside.py` asks the commands)."""

import contextlib
import json
import re
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from m3_exp.reporting.figures import palette
from m3_exp.scoring.evaluate import load_evaluator
from m3_exp.store import Store
from m3_exp.types import EvaluatorSpec, M3Error
from tests.golden.commands import HERE, WORLD, call

CONTRIBUTING = (HERE.parents[1] / "CONTRIBUTING.md").read_text().partition("## A new benchmark")[2]
WORDS = 8


def example(language: str) -> str:
    """Return the benchmark, or its yaml, that CONTRIBUTING.md shows."""
    block = re.search(rf"```{language}\n(.*?)```", CONTRIBUTING, re.DOTALL)
    assert block
    return re.sub(r"(?m)^   ", "", block[1])


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a folder with tiny models, the benchmark with its yaml, and answers to it and to gsm8k."""
    folder = tmp_path_factory.mktemp("outside")
    with tarfile.open(WORLD) as tar:
        tar.extractall(folder, [m for m in tar if m.name.startswith(("models/", "answers-gsm8k"))], filter="data")
    (folder / "letters.py").write_text(example("python"))
    yaml = folder / "conf" / "evaluator" / "letters.yaml"
    yaml.parent.mkdir(parents=True)
    yaml.write_text(example("yaml"))
    words = re.findall(r'"(\w+)"', re.search(r"WORDS = (.*)", example("python"))[1])  # type: ignore[index]
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
    (outside / "other_letters.py").write_text(example("python"))
    (outside / "conf/evaluator/mine.yaml").write_text("mine: {target: 'other_letters:Letters'}\n")
    asked = [word.replace("letters]", "letters,mine]") for word in WHERE]
    with pytest.raises(AssertionError, match="other_letters:Letters and letters:Letters both have the name 'letters'"):
        m3(outside, "plan", *asked)


def test_a_class_that_inherits_nothing_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bare_letters.py").write_text(example("python").replace("Letters(ChatSettings)", "Letters"))
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(M3Error, match=r"^evaluator letters: target=.* inherits m3_exp.scoring.evaluator.Evaluator"):
        load_evaluator(EvaluatorSpec("letters", "bare_letters:Letters"))
