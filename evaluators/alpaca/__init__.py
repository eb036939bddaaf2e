"""AlpacaEval: open instructions, prompted as in the M3 paper (its `test_alpaca_eval`), with a judge of one's choice.

judges.py     the judges that are language models: which, at what price, and the process that asks them
worker.py     that process: the alpaca-eval package's prompts, parsing and preferences
transport.py  how a judge is asked there: kept replies, a cap on money, patience
metrics.py    AlpacaEval's figures from preferences
rules.py      the judge that needs no model: rules that an item carries
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from evaluators.alpaca import judges, metrics, rules
from evaluators.alpaca.judges import Asking, JudgeModel, Pair, Verdict
from m3_exp.reading.paths import expanded
from m3_exp.scoring.evaluator import ChatSettings, Cost, digest_of
from m3_exp.scoring.items import ItemSet, read_rows
from m3_exp.scoring.summary import mean_result
from m3_exp.scoring.thoughts import UNCLOSED
from m3_exp.types import About, Answer, Json, M3Error, Problem, Result, Score

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
class AlpacaEval(ChatSettings):
    """Open instructions, one turn.

    Measured: the win rate over the reference outputs under the judge: the mean preference for the answer, from 0 to
        100 %, a draw being half a win. `details` holds AlpacaEval's standard error, counts, discrete win rate, average
        length and, where its file is at hand, the length-controlled win rate.
    Items: the 805 instructions with the AlpacaEval 2 reference outputs, fields `instruction`, `output`, `generator`,
        `dataset`; items for the rule judge carry `rules` as well.
    Prompt: the paper's, in Vicuna's style; greedy, at most 2048 tokens, no stops. The answer is judged as it stands.
    Judge: `chatgpt_fn` (the paper), `weighted_alpaca_eval_gpt4_turbo` (the AlpacaEval 2 leaderboard) or another of the
        alpaca-eval package's annotators for OpenAI chat models; the package makes the prompt, swaps the outputs by
        `order_seed` (null: never), parses the reply. `local`: chatgpt_fn's question for `judge_model` at `endpoint`,
        any OpenAI-compatible server, held to its two answers by structured output. `precomputed`: the preferences of a
        file of `annotations` in AlpacaEval's own format. `rules`: an answer wins when it fulfils all rules of its item
        (`evaluators.alpaca.rules`); then the metric is "rule-based win rate" and no win rate over a reference.
    Keys: OPENAI_API_KEY; at an `endpoint` of your own M3_JUDGE_KEY. Replies are kept and never asked for twice; what
        could not be judged, or whose reply cannot be parsed, is unscored with the reason.
    Pitfalls: the model that chatgpt_fn names is retired: give `judge_model`, which the metric then shows. Figures under
        different judges cannot be compared. The official items carry no rules.
    """

    name: ClassVar[str] = "alpaca_eval"
    version: ClassVar[str] = "2"
    about = About("AlpacaEval", colour="blue", marker="o", rank=0, table="table1", paper_items=ITEMS.rows)
    skill: ClassVar[str] = "lm"
    item_set: ClassVar[ItemSet] = ITEMS
    operational = ("max_cost", "price_in", "price_out", "retries", "backoff", "timeout", "judge_workers")
    above_zero = ("max_tokens", "retries", "backoff", "timeout", "judge_workers")

    judge: str = "rules"
    judge_model: str = ""
    judge_max_tokens: int | None = None
    endpoint: str = ""
    structured: bool = True
    order_seed: int | None = 0
    annotations: str = ""
    max_cost: float | None = None
    price_in: float | None = None
    price_out: float | None = None
    retries: int = 6
    backoff: float = 1.0
    timeout: float = 60.0
    judge_workers: int = 8
    max_tokens: int = 2048

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_numbers()
        if self.judge == "precomputed":
            if not self.annotations:
                raise M3Error("alpaca_eval: judge=precomputed needs annotations=FILE, in AlpacaEval's own format")
        elif self.judge != "rules":
            self._model()

    def _check_numbers(self) -> None:
        for key in ("judge_max_tokens", "order_seed"):
            value, least = getattr(self, key), int(key == "judge_max_tokens")
            if value is not None and (type(value) is not int or value < least):
                raise M3Error(f"alpaca_eval: {key}={value} must be a whole number of at least {least}, or null")
        for key in ("max_cost", "price_in", "price_out"):
            value = getattr(self, key)
            if value is not None and not (type(value) in (int, float) and 0 <= value < float("inf")):
                raise M3Error(f"alpaca_eval: {key}={value} must be a number of dollars of at least 0, or null")
        if (self.price_in is None) != (self.price_out is None):
            raise M3Error("alpaca_eval: price_in and price_out (dollars per million tokens) go together: give both")

    def _model(self) -> JudgeModel:
        """Return the judge that is a language model, with the settings that replace its own."""
        return judges.judge_model(
            *(self.judge, self.judge_model, self.endpoint, self.judge_max_tokens),
            structured=self.structured,
            known=["rules", "precomputed"],
        )

    @property
    def ineffective(self) -> tuple[str, ...]:
        """Settings of judges that are not asked."""
        asked = ("judge_model", "judge_max_tokens", "endpoint", "structured")
        if self.judge == "rules":
            return (*asked, "order_seed", "annotations")
        return (*asked, "order_seed") if self.judge == "precomputed" else ("annotations",)

    def problems(self, items: str) -> list[Problem]:
        problems = super().problems(items)
        if self.judge == "precomputed":
            annotation_rows(self._judgments)  # a file that cannot be read is told before answers are made
        return problems

    def check(self, problem: Problem) -> None:
        if self.judge == "rules":
            rules.check(problem)

    def lacks(self) -> str | None:
        return None if self.judge in ("rules", "precomputed") else self._model().missing()

    def pointed_to(self) -> Mapping[str, str]:
        """Return the digest of published judgments. An address from the environment is no setting: it is recorded."""
        return {"annotations": digest_of(self.annotations)} if self.judge == "precomputed" else {}

    def prompt(self, problem: Problem) -> str:
        instruction = str(problem.row["instruction"])
        return instruction if self.chat_template else _PROMPT.format(instruction)

    @property
    def _judgments(self) -> Path:
        return Path(expanded(self.annotations, "annotations"))

    # ------------------------------------------------------------------------------------------------------ scoring

    def score(self, problems: Sequence[Problem], answers: Sequence[Answer]) -> list[Score]:
        if self.judge == "rules":
            return super().score(problems, answers)
        pairs = [
            Pair(problem.row["instruction"], problem.row["output"], answer.text)
            for problem, answer in zip(problems, answers, strict=True)
        ]
        told = [pair for pair, answer in zip(pairs, answers, strict=True) if answer.finish != UNCLOSED]
        judgments = iter(self._published(told) if self.judge == "precomputed" else self._asked(told))
        lost: tuple[Verdict, Json] = (Verdict(1.0), {})
        judged = [lost if answer.finish == UNCLOSED else next(judgments) for answer in answers]
        return [_score(a, p, *verdict) for a, p, verdict in zip(answers, pairs, judged, strict=True)]

    def _asked(self, pairs: Sequence[Pair]) -> list[tuple[Verdict, Json]]:
        model = self._model()
        return [(verdict, {}) for verdict in judges.verdicts(model, pairs, self.order_seed, self._asking(model))]

    def score_one(self, problem: Problem, answer: Answer) -> Score:
        """Judge by the item's own rules."""
        failed = rules.broken(answer.text, problem.row["rules"])
        reason = f"not fulfilled: {', '.join(failed)}" if failed else None
        return Score(answer.id, float(not failed), answer.sample, None, reason)

    def _asking(self, model: JudgeModel) -> Asking:
        prices = judges.price(model, self.price_in, self.price_out)
        return Asking(self.retries, self.backoff, self.timeout, self.judge_workers, self.max_cost, prices)

    def _published(self, pairs: Sequence[Pair]) -> list[tuple[Verdict, Json]]:
        known = {(row["instruction"], row["output_2"]): row for row in annotation_rows(self._judgments)}
        instructions = {instruction for instruction, _ in known}
        return [_look_up(known, instructions, pair, self.annotations) for pair in pairs]

    def summarize(self, scores: Sequence[Score]) -> Result:
        settings = {key: value for key, value in self.settings.items() if key not in self.operational}
        if self.judge == "rules":
            return mean_result(self.name, "rule-based win rate", scores, settings)
        details = metrics.details(scores)
        named = sorted({str(score.notes["judge"]) for score in scores if score.notes.get("judge")})
        if self.judge == "precomputed":
            return mean_result(self.name, f"win rate ({', '.join(named) or 'precomputed'})", scores, settings, details)
        model = self._model()
        settings |= {"judge_model": model.model, "endpoint": model.endpoint}
        shown = f", {model.model}" if self.judge_model else ""
        return mean_result(self.name, f"win rate ({self.judge}{shown})", scores, settings, details | {"models": named})

    # ---------------------------------------------------------------------------------------------------- optional

    def gold(self, problem: Problem) -> str | None:
        """Return the reference output where rules judge: it must fulfil them."""
        return str(problem.row["output"]) if self.judge == "rules" else None

    def wrong(self, problem: Problem) -> str | None:
        return "" if self.judge == "rules" else None

    def cost(self, problems: Sequence[Problem]) -> Cost | None:
        if self.judge in ("rules", "precomputed"):
            return None
        model = self._model()
        pairs = [Pair(p.row["instruction"], p.row["output"], p.row["output"]) for p in problems]
        return judges.forecast(model, pairs, self._asking(model).price)

    def answers(self, path: Path, problems: Sequence[Problem]) -> list[Answer] | None:
        """Return the answers of a file in AlpacaEval's own schema, matched by instruction; None for any other file.

        It is an array of objects with `instruction` and `output` (model_outputs.json) or `output_2` (annotations.json).

        Raises:
            M3Error: an instruction is not among the items, or a row has no output.
        """
        if not path.name.removesuffix(".gz").endswith(".json"):
            return None
        ids = {problem.row["instruction"]: problem.id for problem in problems}
        seen: dict[str, int] = {}
        answers = []
        for number, row in enumerate(read_rows(path)):
            text, asked = row.get("output_2", row.get("output")), row.get("instruction")
            key = ids.get(asked) if isinstance(asked, str) else None
            if not isinstance(text, str) or key is None:
                wrong = "has no text `output` or `output_2`" if key else "has an instruction that no item has"
                raise M3Error(f"{path}, row {number} {wrong}: rows need `instruction` and `output`; see items=")
            answers.append(Answer(key, text, seen.get(key, 0)))
            seen[key] = seen.get(key, 0) + 1
        return answers


def annotation_rows(path: Path) -> list[Mapping[str, Any]]:
    """Read judgments in AlpacaEval's own format.

    Raises:
        M3Error: the file is not readable, or a row lacks instruction, output_2 or preference.
    """
    rows = read_rows(path)
    for number, row in enumerate(rows):
        if not (isinstance(row.get("instruction"), str) and isinstance(row.get("output_2"), str)):
            raise M3Error(f"{path}, row {number}: a judgment needs the texts instruction and output_2")
        if "preference" not in row:
            raise M3Error(f"{path}, row {number}: a judgment needs a preference (1 to 2, or null)")
    return rows


def _look_up(
    known: Mapping[tuple[str, str], Mapping[str, Any]], instructions: set[str], pair: Pair, where: str
) -> tuple[Verdict, Json]:
    row = known.get((pair.instruction, pair.answer))
    if row is None:
        held = "judges another answer" if pair.instruction in instructions else "holds no judgment"
        return Verdict(None, reason=f"{where} {held} to this instruction: give the answers that it judged"), {}
    over = f" over {row['generator_1']}" if row.get("generator_1") else ""
    notes: Json = {"judge": f"{row.get('annotator', 'precomputed')}{over}, precomputed"}
    if isinstance(row.get("output_1"), str):
        notes["reference_length"] = len(row["output_1"])
    value = metrics.preference(row["preference"])
    if value is None:
        reason = f"the judgment in {where} is no preference: {row['preference']!r}"
        return Verdict(None, unparsable=True, reason=reason), notes
    return Verdict(value), notes


def _score(answer: Answer, pair: Pair, verdict: Verdict, notes: Json) -> Score:
    """Turn a verdict into a score: a preference of 2 is a win for the answer."""
    value = None if verdict.preference is None else verdict.preference - 1.0
    facts: Json = {
        **{"preference": verdict.preference, "swapped": verdict.swapped, "unparsable": verdict.unparsable},
        **{"length": len(answer.text), "reference_length": len(pair.reference), "judge": verdict.model},
    }
    return Score(answer.id, value, answer.sample, verdict.text, verdict.reason, facts | notes)
