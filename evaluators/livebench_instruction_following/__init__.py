"""LiveBench instruction following: news articles, rewritten under instructions that a program can verify.

ifeval.py  IFEval's checks
gold.py    answers that follow given instructions, by which the checks are examined
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, ClassVar, Literal, get_args

from evaluators.livebench_instruction_following import gold as ifeval_gold
from evaluators.livebench_instruction_following import ifeval
from m3_exp.scoring.audit import extractors
from m3_exp.scoring.items import ItemSet, load, own_row
from m3_exp.scoring.livebench import LiveBench, TaskFile, task, turn
from m3_exp.scoring.text import name_of
from m3_exp.types import About, Answer, M3Error, Problem, Score

_CONTENT = {
    "paraphrase": "f0e49484fa41d71751cdbee5d29bd17ecb642ac8b0a466138108ecbf00413d69",
    "simplify": "96e4052d0ebef2b241574a5cc131230c2869d62ec31e5fa34ba95beb29f87e29",
    "story_generation": "beb151af444f6e92ca61d2df56eb18c3c1eeb889254e4f32185d7c7210ca4559",
    "summarize": "3275c173249a9ad4ba062557bf817735eac75ee752447c395962de5e38b5e0c0",
}
_ORIGIN = (
    "question.jsonl of livebench/data/live_bench/instruction_following/{paraphrase,simplify,story_generation,summarize}"
    " at commit fc6c60807306 (pull request 271) of the GitHub repository LiveBench/LiveBench"
)
# IFEval's own form of an item: input_data.jsonl of google-research.
_IFEVAL = ItemSet(
    benchmark="livebench_instruction_following",
    columns={"prompt": str, "instruction_id_list": object, "kwargs": object},
    id_column="key",
)
Taken = Literal["paper", "livebench"]


@dataclass(frozen=True)
class LiveBenchInstructionFollowing(LiveBench):
    """News articles to be paraphrased, simplified, summarised or continued, under one to six verifiable instructions.

    Measured: LiveBench's score of an answer, the mean of two numbers: 1 if every instruction is followed (else 0), and
        the share that is. The result is the mean of the four tasks' means; `details` has the tasks, the share of
        prompts with all instructions followed, the share of instructions followed, and each instruction's own.
    Items: LiveBench's official questions of 2024, 100 a task: 50 of release 2024-06-24 (in force until 2024-11-25) and
        50 of 2024-11-25. `release=all` (the default; the paper's script prompts with the whole file) or a date: the
        questions in force on that day, as LiveBench's own tools choose them. Items of a file of one's own may have
        IFEval's form as well. One whose instructions cannot be read is unscored.
    Prompt: the question's only turn, no template; greedy, at most 2048 tokens, no stops.
    Verdict: IFEval's checks (`ifeval.py`), strict: the answer is checked as it is.
        answer=paper      first the paper's stripping: every "The answer is:" is deleted, then the characters .,!?;:
                          and spaces at both ends, then line breaks, then blank space
        answer=livebench  the answer without thoughts, stripped, as LiveBench's judge takes it since 2025
    Pitfalls: `paper` removes the question mark that both end phrases of this benchmark end in, so that
        `startend:end_checker` fails unless a quotation mark follows. Counting sentences needs NLTK's punkt_tab: without
        it the items that count them are unscored.
    """

    name: ClassVar[str] = "livebench_instruction_following"
    version: ClassVar[str] = "2"
    about = About("LiveBench IF", colour="sky", marker="P", dashes=(5, 1.5), rank=5, table="figure4")
    skill: ClassVar[str] = "lm"
    files: ClassVar[Sequence[TaskFile]] = tuple(
        TaskFile(f"livebench/instruction_following/{name}/question.jsonl", 100, content)
        for name, content in _CONTENT.items()
    )
    columns: ClassVar[Mapping[str, Any]] = {
        **LiveBench.columns,
        **{"instruction_id_list": object, "kwargs": object},  # both are read item by item
        **{"livebench_release_date": object, "livebench_removal_date": object},
    }
    origin: ClassVar[str] = _ORIGIN

    answer: Taken = "paper"

    @property
    def present_rules(self) -> bool:
        return self.answer == "livebench"

    def judged(self, text: str) -> str | None:
        """Return what is judged of an answer's text; where thoughts are dropped, LiveBench's judge strips it too."""
        kept = super().judged(text)
        return kept.strip() if kept is not None and self.present_rules and self.thought == "drop" else kept

    def problems(self, items: str) -> list[Problem]:
        """Return the items. One whose instructions cannot be read stays among them, unscored with the reason.

        Raises:
            M3Error: there is no other, or the file is no file of items.
        """
        if _IFEVAL.columns.keys() <= (own_row(items) or {}).keys():
            read = [
                Problem(problem.id, {**problem.row, "task": "ifeval", "turns": [problem.row["prompt"]]})
                for problem in load(_IFEVAL, items)
            ]
        else:
            read = self.questions(items)
        problems = self.of_release(read)
        faults = [fault for fault in map(_fault, problems) if fault]
        if len(faults) == len(problems):
            raise M3Error(f"{self.name}: no item can be judged: {faults[0]}")
        return problems

    def score_one(self, problem: Problem, answer: Answer) -> Score:
        notes: dict[str, Any] = {"task": task(problem), "problem": name_of(_article(problem))}
        text = strip_paper(answer.text) if self.answer == "paper" else answer.text
        try:
            _check(problem)
            pairs = zip(*_instructions(problem), strict=True)
            followed = [(name, ifeval.follows(text, name, arguments)) for name, arguments in pairs]
        except M3Error as error:
            return Score(answer.id, None, answer.sample, reason=str(error), notes=notes)
        if any(ifeval.hangs_on_language(text, name) for name, _ in followed):
            notes["language_detected"] = True
        notes["followed"] = [[name, right] for name, right in followed]
        broken = [name for name, right in followed if not right]
        value = (float(not broken) + (1 - len(broken) / len(followed))) / 2
        reason = f"not followed: {', '.join(broken)}" if broken else None
        return Score(answer.id, value, answer.sample, text or None, reason, notes)

    def details(self, scores: Sequence[Score]) -> dict[str, Any]:
        """Return the shares (percent) of prompts and of instructions that were followed, over the scored answers.

        `language_detected` names the items whose verdict is langdetect's, in its version here; others may differ.
        """
        lists = [score.notes["followed"] for score in scores if score.value is not None]
        by_name: dict[str, list[bool]] = {}
        for name, right in (pair for followed in lists for pair in followed):
            by_name.setdefault(name, []).append(right)
        detected = sorted({score.id for score in scores if score.notes.get("language_detected")})
        return {
            **({"language_detected": detected, "langdetect": version("langdetect")} if detected else {}),
            "prompt_accuracy": _share([all(right for _, right in followed) for followed in lists]),
            "instruction_accuracy": _share([right for followed in lists for _, right in followed]),
            "by_instruction": {
                name: {"score": _share(by_name[name]), "n": len(by_name[name])} for name in sorted(by_name)
            },
        }

    def gold(self, problem: Problem) -> str | None:
        reference = problem.row.get("reference_answer")
        if reference is not None:
            return str(reference)
        return None if _fault(problem) else ifeval_gold.compose(*_instructions(problem))

    def wrong(self, problem: Problem) -> str | None:
        return None if _fault(problem) else " "

    def audit(self, problems: Sequence[Problem], answers: Sequence[Answer]) -> Mapping[str, Any]:
        return extractors(self.alternatives("answer", get_args(Taken)), problems, answers)


def _instructions(problem: Problem) -> tuple[Any, Any]:
    return problem.row.get("instruction_id_list"), problem.row.get("kwargs")


def _check(problem: Problem) -> None:
    """Raise M3Error where an item's instructions are not known or cannot be read."""
    ifeval.check(problem.id, *_instructions(problem))


def _fault(problem: Problem) -> str | None:
    """Return why an item's instructions cannot be judged, None where they can."""
    try:
        _check(problem)
    except M3Error as error:
        return str(error)
    return None


def _article(problem: Problem) -> str:
    """Return the sentences that a question is about, which stand between two lines of dashes; else all of it."""
    parts = turn(problem).split("\n-------\n")
    return parts[1] if len(parts) == 3 else turn(problem)


def strip_paper(text: str) -> str:
    """Strip an answer as the paper's script does before it hands it to LiveBench."""
    return text.replace("The answer is:", "").strip(".,!?;: ").strip("\n").strip()


def _share(verdicts: Sequence[bool]) -> float | None:
    return 100.0 * sum(verdicts) / len(verdicts) if verdicts else None
