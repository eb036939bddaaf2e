"""AlpacaEval: open instructions, prompted as in the M3 paper (its `test_alpaca_eval`), with a judge of one's choice."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar

from m3_exp.scoring import rules
from m3_exp.scoring.items import ItemSet, load
from m3_exp.scoring.summary import mean_result
from m3_exp.types import Answer, M3Error, Problem, Result, Sampling, Score

ITEMS = ItemSet(
    benchmark="alpaca_eval",
    columns={"instruction": str, "output": str},
    file="alpaca_eval/reference_gpt4_1106_preview.json",
    rows=805,
    content="cbe9cac54fa0b391f5acaf9eb2d4d74bdab3510899201f6fba1d4f17d5c7d118",
    origin="results/gpt4_1106_preview/model_outputs.json of the GitHub repository tatsu-lab/alpaca_eval",
)

_PROMPT = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed,"
    " and polite answers to the user's questions. USER: {} ASSISTANT:"
)


@dataclass(frozen=True)
class Judge:
    """One way to judge answers: the metric's name as tables show it, a check of each item, and the scoring."""

    metric: str
    check: Callable[[Problem], None]
    score: Callable[[Sequence[Problem], Sequence[Answer]], list[Score]]


@dataclass(frozen=True)
class AlpacaEval:
    """Open instructions, one turn.

    Measured: the share of answers that win under the judge. `judge=rules` is the only one so far: an answer wins when
        it fulfils all rules of its item (`m3_exp.scoring.rules`), and the metric says so: "rule-based win rate". It is
        not comparable with AlpacaEval's win rate over a reference model, which a language model judges.
    Items: the 805 instructions with the AlpacaEval 2 reference outputs, fields `instruction`, `output`, `generator`,
        `dataset`; items for the rule judge carry `rules` as well.
    Prompt: the paper's, in Vicuna's style; greedy, at most 2048 tokens, no stops. Nothing is extracted: the answer
        without blank space at both ends is judged.
    Pitfalls: the official items carry no rules, so they cannot be judged by them.
    """

    name: ClassVar[str] = "alpaca_eval"
    version: ClassVar[str] = "1"
    skill: ClassVar[str] = "lm"

    judge: str = "rules"
    max_tokens: int = 2048

    def __post_init__(self) -> None:
        if self.judge not in JUDGES:
            raise M3Error(
                f"alpaca_eval: judge={self.judge} is not available in this version, allowed is {', '.join(JUDGES)};"
                " judges that are language models come with a later one"
            )

    @property
    def sampling(self) -> Sampling:
        return Sampling(max_tokens=self.max_tokens)

    def problems(self, items: str) -> list[Problem]:
        problems = load(ITEMS, items)
        for problem in problems:
            JUDGES[self.judge].check(problem)
        return problems

    def prompt(self, problem: Problem) -> str:
        return _PROMPT.format(problem.row["instruction"])

    def score(self, problems: Sequence[Problem], answers: Sequence[Answer]) -> list[Score]:
        return JUDGES[self.judge].score(problems, answers)

    def summarize(self, scores: Sequence[Score]) -> Result:
        return mean_result(self.name, JUDGES[self.judge].metric, scores, asdict(self))


def _score_by_rules(problems: Sequence[Problem], answers: Sequence[Answer]) -> list[Score]:
    scores = []
    for problem, answer in zip(problems, answers, strict=True):
        failed = rules.broken(answer.text, problem.row["rules"])
        reason = f"not fulfilled: {', '.join(failed)}" if failed else None
        scores.append(Score(answer.id, float(not failed), answer.sample, None, reason))
    return scores


JUDGES: Mapping[str, Judge] = {"rules": Judge("rule-based win rate", rules.check, _score_by_rules)}
