"""MBPP: short Python functions from one sentence and three asserts, as the M3 paper scores them (its `test_mbpp`).

plus.py  the rule of MBPP+, which runs in the grader's box
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

from evaluators.mbpp import plus
from m3_exp.scoring.coding import MEMORY, PROMPT, Programs
from m3_exp.scoring.items import ItemSet, Row, own_row
from m3_exp.scoring.programs import EXAMPLES, Program, clean, names_in_tests, script_readings
from m3_exp.scoring.sandbox.judge import Task
from m3_exp.scoring.scripts import function_name, is_script, item_set, script_task
from m3_exp.scoring.text import name_of
from m3_exp.types import About, Answer, M3Error, Problem, Score

_COLUMNS = {"task_id": object, "text": str, "test_list": list[str]}
_OPTIONAL = {"code": str, "test_setup_code": str, "test_imports": list[str]}
_PLUS_COLUMNS = {
    **{"task_id": str, "prompt": str, "entry_point": str, "canonical_solution": str, "atol": float},
    **{"base_input": str, "plus_input": str},
}


def _packed(row: Row) -> Row:
    """Keep the inputs as JSON text: some hold NaN, which has no canonical form. Where there are none, some have {}."""
    inputs = {name: row.get(name) or [] for name in ("base_input", "plus_input") if name in row}
    for name, value in inputs.items():
        if isinstance(value, str) and not _is_list(value):
            raise M3Error(f"mbpp item {row.get('task_id')}: {name} is no list of inputs: {value[:40]!r}")
    texts = {name: json.dumps(value) for name, value in inputs.items() if isinstance(value, list)}
    atol = row.get("atol")
    return {**row, **texts, **({"atol": float(atol)} if type(atol) is int and abs(atol) <= _EXACT else {})}


def _is_list(text: str) -> bool:
    try:
        return isinstance(json.loads(text), list)
    except (ValueError, RecursionError):
        return False


_EXACT = 2**53  # whole numbers up to here are exact as floats
_TEST_COLUMNS = {**_COLUMNS, "code": str, "test_setup_code": str}
_OFFICIAL = ("official", "official-dev")
_REPEATED = (602, 704, 872)  # development items whose sentence is that of a test item (217, 248, 216)


def _is_dev(row: Row) -> bool:
    """Tell whether a row is of MBPP's prompt, validation or training part and asks what no test item asks."""
    number = row.get("task_id")
    return type(number) is int and not 11 <= number <= 510 and number not in _REPEATED


_mbpp = partial(ItemSet, "mbpp", id_column="task_id")
DEV = _mbpp(
    columns=_TEST_COLUMNS,
    file="mbpp/mbpp.jsonl",
    rows=471,
    content="032fd12795acead54ee8fef966e792191a45041b3bd10792c584e26af780a6b5",
    origin="mbpp/mbpp.jsonl of the GitHub repository google-research/google-research",
    keep=_is_dev,
)
SETS: Mapping[str, ItemSet] = {
    "test": _mbpp(
        columns=_TEST_COLUMNS,
        file="mbpp/mbpp.test.jsonl",
        rows=500,
        content="2b2bd6e939d0f9fb9b264a57611a65f1189d06940e51f26ada640d60d52cf9fb",
        origin="the rows 11 to 510 of mbpp/mbpp.jsonl of the GitHub repository google-research/google-research",
        dev=DEV,
    ),
    "sanitized": _mbpp(
        columns={**_COLUMNS, "code": str, "test_imports": list[str]},
        file="mbpp/sanitized-mbpp.json",
        rows=427,
        content="abdd3fc19d57a053e426c09c05dae7a93c2a538b190a6961a1cdf29f633a49ee",
        origin="mbpp/sanitized-mbpp.json of the GitHub repository google-research/google-research",
        convert=lambda row: {"text": row.get("prompt"), **row},  # as the test set calls it
    ),
    "plus": _mbpp(
        columns=_PLUS_COLUMNS,
        file="mbpp/MbppPlus.jsonl.gz",
        rows=378,
        content="ca10818650eb2975a903517c22f18ce943dc9899a31de9364556ebfb5825be0d",
        origin="MbppPlus.jsonl.gz of release v0.2.0 of the GitHub repository evalplus/mbppplus_release",
        convert=_packed,
    ),
}

_REQUEST = "{}\nYour code must pass these tests:\n\n```python\n{}\n```\n\nAnswer with one ```python code block."
_PLUS_TIMES, _PLUS_MEMORY = 6.0, 4 << 30  # 60 s and 4 GiB for all inputs of an item, evalplus' own limits
# Item 493's asserts have 4,147 characters; its prompt shows the signature in their place.
_LONG = "Write a function to calculate a grid of hexagon coordinates"
_SIGNATURE = "calculate_polygons(startx, starty, endx, endy, radius)"


@dataclass(frozen=True)
class MBPP(Programs):
    """Short Python functions to be written from one sentence and three asserts.

    Measured: pass@k: the share of items whose program passes all asserts (`n_samples`, `k`, `temperature`, `top_p` as
        for humaneval).
    Items: `subset=test`, the 500 test problems (task_id 11 to 510), fields `task_id`, `text`, `code`, `test_list`,
        `test_setup_code`; `subset=sanitized`, the 427 that its authors verified (`prompt`, `code`, `test_imports`,
        `test_list`); `subset=plus`, evalplus' 378 (MBPP+ v0.2.0), judged on some hundred inputs each;
        `items=dev` (of `subset=test`), the 471 problems outside 11 to 510 that repeat no test item. A file of one's
        own (`items=PATH`) may have any of the three forms, or be items with a test script (`m3_exp.scoring.scripts`),
        such as MultiPL-E's.
    Prompt: the paper's Alpaca template, the sentence, "Test examples:" and all three asserts, four spaces turned into
        a tab (item 493: its signature only); of MBPP+ the one assert that its authors show; greedy, at most 2048
        tokens, no stops. `chat_template=true`: a user's message with the same content.
    Extractors:
        paper  the paper's post-processing (as humaneval's, a fence ends at a line that begins with ```, and what
               follows "# Test examples" goes as well), then the first reading that is valid Python and defines what
               the tests call, as for humaneval
        none   the text is the program, or what completes an item's own prompt
    Verdict: computed in a process where the program never ran; `timeout` CPU seconds for all asserts of an item, six
        times that for all inputs of MBPP+ (evalplus' cap of 60 s; it also limits each input, to 1 s or four times the
        reference's time). Five inputs of Mbpp/255 whose right outputs have millions of elements are left out.
    Pitfalls: the prompt shows the asserts: a program that looks them up passes. MBPP/367 needs its reference's class
        `Node`, which only works where the set-up code runs after the program (as here; not in the paper's harness,
        whose ceiling is 499). Five sizes of MBPP are in use: scores of different ones cannot be compared.
    """

    name: ClassVar[str] = "mbpp"
    version: ClassVar[str] = "2"
    about = About("MBPP", colour="orange", marker="v", rank=4, table="table1", paper_items=500)

    subset: Literal["test", "sanitized", "plus"] = "test"
    timeout: float = 10.0

    def has_dev(self) -> bool:
        return SETS[self.subset].dev is not None

    def official_rows(self) -> int:
        return SETS[self.subset].rows

    def wanted(self, items: str) -> ItemSet:
        row = own_row(items)
        if row is None:
            return SETS[self.subset if items in _OFFICIAL else "test"]
        if is_script(row):
            return item_set(self.name, row)
        if "plus_input" in row:
            return SETS["plus"]
        name = "sanitized" if "prompt" in row and "text" not in row else "test"
        convert = SETS[name].convert
        return _mbpp(_COLUMNS, convert=convert, optional=_OPTIONAL)

    def prompt(self, problem: Problem) -> str:
        sentence, shown = _shown(problem)
        if self.chat_template:
            return _REQUEST.format(sentence, shown) if shown else sentence
        text = f"\n{sentence}\nTest examples:\n{shown}" if shown else sentence
        return PROMPT.format(text.replace("    ", "\t"))

    def task(self, problem: Problem, text: str) -> Task:
        cleaned = clean(text, "\n```", EXAMPLES) if self.extractor == "paper" else None
        if is_script(problem.row):
            return script_task(problem, text, cleaned, last=self.chat_template)

        def programs(name: str) -> tuple[Program, ...]:
            if cleaned is None:
                return (Program("program", text),)
            return script_readings(name, cleaned, text, last=self.chat_template)

        return (_plus_task if "plus_input" in problem.row else _assert_task)(problem, programs)

    def score(self, problems: Sequence[Problem], answers: Sequence[Answer]) -> list[Score]:
        tasks = [self.task(problem, answer.text) for problem, answer in zip(problems, answers, strict=True)]
        many_inputs = any("plus_input" in problem.row for problem in problems)
        times, memory = (_PLUS_TIMES, _PLUS_MEMORY) if many_inputs else (1.0, MEMORY)
        scores = self.judge_all(tasks, answers, times, memory)
        # What an item asks for: a few sentences stand for two items.
        named = [name_of(_shown(problem)[0]) for problem in problems]
        return [replace(s, notes={**s.notes, "problem": name}) for s, name in zip(scores, named, strict=True)]

    def gold(self, problem: Problem) -> str | None:
        row = problem.row
        if "canonical_solution" in row:
            return str(row["canonical_solution"])
        return str(row["code"]) if "code" in row else None

    def wrong(self, problem: Problem) -> str:
        asked = self.task(problem, "")
        return "".join(f"def {name}(*_, **__):\n    return [None]\n\n" for name in (asked.entry_point, *asked.names))


def _shown(problem: Problem) -> tuple[str, str]:
    """Return the sentence of an item and the tests that its prompt shows."""
    row = problem.row
    if is_script(row):
        return str(row["prompt"]), ""
    if "plus_input" in row:
        sentence, _, test = str(row["prompt"]).strip().strip('"').strip().partition("\nassert ")
        return sentence, f"assert {test}".rstrip()
    if problem.id == "493" and str(row["text"]).startswith(_LONG):
        return str(row["text"]), _SIGNATURE
    return str(row["text"]), "\n".join(str(test) for test in row["test_list"])


def _assert_task(problem: Problem, programs: Callable[[str], tuple[Program, ...]]) -> Task:
    row = problem.row
    test = "\n".join([str(row.get("test_setup_code") or ""), *map(str, row["test_list"]), ""])
    imports = "".join(f"{line}\n" for line in row.get("test_imports") or [])
    try:
        names = names_in_tests(imports + test, str(row.get("code") or ""))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # what Python's parser raises
        raise M3Error(f"mbpp item {problem.id}: its tests are not Python: {error}; correct the item") from None
    if not names.asked:
        raise M3Error(f"mbpp item {problem.id}: its tests call no function of the program; correct the item")
    name = names.asked[0]
    return Task(programs(name), name, names.imports + imports, test, names.asked[1:])


def _plus_task(problem: Problem, programs: Callable[[str], tuple[Program, ...]]) -> Task:
    row = problem.row
    name, number = function_name(problem), problem.id.rpartition("/")[2]
    if not number.isdecimal():
        raise M3Error(f"mbpp: item {problem.id!r}: an item of MBPP+ is called Mbpp/NUMBER")
    solution = str(row["canonical_solution"])
    rule = Path(plus.__file__).read_text(encoding="utf-8")
    prelude = f"{rule}\n_m3_check, _m3_right = check, reference({solution!r}, {name!r}, TestsUnfit)\n"
    item = (int(number), name, row["atol"])
    test = "".join(f"_m3_check({name}, _m3_right, {item!r}, {row[k]!r})\n" for k in ("base_input", "plus_input"))
    return Task(programs(name), name, prelude, test)
