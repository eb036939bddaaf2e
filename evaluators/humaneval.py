"""HumanEval: Python functions from docstrings, as the M3 paper scores them (its `test_human_eval`)."""

from dataclasses import dataclass
from typing import ClassVar

from m3_exp.scoring.coding import PROMPT, Programs
from m3_exp.scoring.items import ItemSet, own_row
from m3_exp.scoring.programs import Program, clean, preamble, readings
from m3_exp.scoring.sandbox.judge import Task
from m3_exp.scoring.scripts import function_name, is_script, item_set, script_task
from m3_exp.types import About, Problem

ITEMS = ItemSet(
    benchmark="humaneval",
    columns={"task_id": str, "prompt": str, "entry_point": str, "canonical_solution": str, "test": str},
    file="humaneval/HumanEval.jsonl.gz",
    rows=164,
    content="c50a2a7c563479abbecc2e7f5a9c4f52bf78c92451d44788b0952828907091a2",
    origin="data/HumanEval.jsonl.gz of the GitHub repository openai/human-eval",
    id_column="task_id",
    package_file=("human_eval", "data/HumanEval.jsonl.gz"),
)

_REQUEST = (
    "Complete this Python function. Answer with the whole function, and the imports it needs, in one ```python code"
    " block.\n\n```python\n{}\n```"
)


@dataclass(frozen=True)
class HumanEval(Programs):
    """Python functions to be written from a signature and a docstring, judged by running hidden tests.

    Measured: pass@k: the share of items whose program passes all tests; for k > 1 the human-eval package's unbiased
        estimate from n samples of each item (`n_samples`, `temperature`, `top_p`; `k` is a number or a list such as
        [1,10], the first is the score and all are in the details). Of saved answers, an id that occurs n times has n
        samples.
    Items: OpenAI's 164, fields `task_id`, `prompt`, `entry_point`, `canonical_solution`, `test`; a file of one's own
        (`items=PATH`) may also hold items with a test script (`m3_exp.scoring.scripts`), such as MultiPL-E's.
    Prompt: the paper's Alpaca template with three newlines before "### Instruction:", four spaces turned into a tab;
        greedy, at most 2048 tokens, no stops. `chat_template=true`: a user's message that asks for the whole function
        in a code block.
    Extractors:
        paper  the first reading that is valid Python and defines the function (`m3_exp.scoring.programs.readings`): the
               paper's own first, prompt + text after its post-processing; with `chat_template=true` the last fence
               that does. Which one it was is a score's `extracted`; how many there were of each is in the result's
               details, and so is `score_paper_reading`, pass@1 with the paper's own reading alone.
        none   prompt + text as it is: all that the human-eval package does
    Verdict: computed in a process where the model's program never ran (`m3_exp.scoring.sandbox`), `timeout` seconds
        of CPU time as in the human-eval package (3.0), memory limited; no network, no files, no processes. `sandbox`
        chooses what contains it; what did is in the details, for `allow_weak` too.
    Pitfalls: only the standard library can be imported. Scores move by tens of points with the reading: the paper's
        own gives every answer that is a bare function body 0.
    """

    name: ClassVar[str] = "humaneval"
    version: ClassVar[str] = "3"
    about = About("HumanEval", colour="purple", marker="D", rank=3, table="table1", paper_items=ITEMS.rows)
    item_set: ClassVar[ItemSet] = ITEMS

    def wanted(self, items: str) -> ItemSet:
        row = own_row(items) or {}
        return item_set(self.name, row) if is_script(row) and not ITEMS.columns.keys() <= row.keys() else ITEMS

    def prompt(self, problem: Problem) -> str:
        if self.chat_template:
            return _REQUEST.format(str(problem.row["prompt"]).strip("\n"))
        return PROMPT.format(str(problem.row["prompt"]).replace("    ", "\t"))

    def task(self, problem: Problem, text: str) -> Task:
        row, last = problem.row, self.chat_template
        if row.get("canonical_solution") is None or row.get("entry_point") is None:
            return script_task(problem, text, clean(text) if self.extractor == "paper" else None, last=last)
        prompt, entry_point = str(row["prompt"]), function_name(problem)
        programs: tuple[Program, ...] = (Program("completion", prompt + text),)
        if self.extractor == "paper":
            programs = readings(prompt, entry_point, clean(text), text, last=last)
        return Task(programs, entry_point, preamble(prompt, entry_point), f"{row['test']}\ncheck({entry_point})\n")

    def gold(self, problem: Problem) -> str | None:
        row = problem.row
        return str(row["canonical_solution"]) if "canonical_solution" in row else None

    def wrong(self, problem: Problem) -> str:
        return "    return None\n"
