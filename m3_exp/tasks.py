"""A cell made ready to be evaluated: its evaluator, its items and their rendered prompts."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from m3_exp.prompts import Prompts
from m3_exp.scoring.evaluate import load_evaluator
from m3_exp.scoring.evaluator import Evaluator
from m3_exp.scoring.items import checked, digest, first
from m3_exp.store import Store
from m3_exp.types import Cell, EvaluatorSpec, Problem, Prompt, Sampling, Source, identity


@dataclass(frozen=True)
class Task:
    """A cell's evaluator, items and rendered prompts. `prompts[i]` belongs to `problems[i]`."""

    cell: Cell
    evaluator: Evaluator
    problems: tuple[Problem, ...]
    prompts: tuple[Prompt, ...]
    items_digest: str  # identity of the item set with its rows and rendered prompts
    repeat: int = 0  # above 0: the same once more, in another order and with half the batch

    @property
    def sampling(self) -> Sampling:
        return self.evaluator.sampling

    @property
    def answers(self) -> int:
        """How many answers it takes."""
        return len(self.prompts) * self.sampling.n

    def in_order(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """Return prompts of this task in the order they are asked: as they are, each repeat in an order of its own."""
        if not self.repeat:
            return list(prompts)
        return sorted(prompts, key=lambda prompt: identity([self.repeat, prompt.id]))


class Tasks:
    """Makes cells ready; remembers evaluators, items, prompts and tokenizers while it lives."""

    def __init__(self, store: Store) -> None:
        self.prompts = Prompts(store)
        self._evaluators: dict[str, Evaluator] = {}
        self._items: dict[str, Sequence[Problem]] = {}
        self._problems: dict[tuple[str, int | None], tuple[Problem, ...]] = {}
        self._rows: dict[tuple[str, int | None], str] = {}
        self._rendered: dict[tuple[str, int | None, Source], tuple[tuple[Prompt, ...], str]] = {}

    def evaluator(self, spec: EvaluatorSpec) -> Evaluator:
        key = identity(spec)
        if key not in self._evaluators:
            self._evaluators[key] = load_evaluator(spec)
        return self._evaluators[key]

    def problems(self, cell: Cell) -> tuple[Problem, ...]:
        """Return a cell's items: all, or the first `limit` in the order of their hashes."""
        spec, key = cell.evaluator, (identity(cell.evaluator), cell.limit)
        if key not in self._problems:
            if key[0] not in self._items:
                self._items[key[0]] = checked(self.evaluator(spec).problems(spec.items), spec.name)
            self._problems[key] = tuple(first(self._items[key[0]], self.evaluator(spec).name, cell.limit))
        return self._problems[key]

    def rows_digest(self, cell: Cell) -> str:
        """Return the identity of a cell's items: their ids and rows, without prompts."""
        key = (identity(cell.evaluator), cell.limit)
        if key not in self._rows:
            self._rows[key] = digest(self.problems(cell))
        return self._rows[key]

    def task(self, cell: Cell, repeat: int = 0) -> Task:
        """Load a cell's items and render its prompts to token ids.

        Raises:
            M3Error: items or tokenizer not at hand, or a prompt that would begin with two BOS tokens.
        """
        evaluator, problems = self.evaluator(cell.evaluator), self.problems(cell)
        key = (identity(cell.evaluator), cell.limit, cell.tokenizer)
        if key not in self._rendered:
            prompts = self._render(cell, problems)
            rows = identity([[p.id, p.row, q.token_ids] for p, q in zip(problems, prompts, strict=True)])
            self._rendered[key] = prompts, rows
        return Task(cell, evaluator, problems, *self._rendered[key], repeat)

    def prepared(self, task: Task, problems: Sequence[Problem]) -> Task:
        """Return the task with the items that its evaluator made. Its digest stays that of the items they came from."""
        return replace(task, problems=tuple(problems), prompts=self._render(task.cell, problems))

    def asked(self, task: Task, texts: Sequence[str]) -> tuple[Task, list[str]]:
        """Return a task of the prompts that an evaluator asks while it makes its items, equal ones once.

        Beside it: the id of each text of `texts` in that task.
        """
        rendered = self.prompts.render(task.cell, texts)
        ids = [f"ask-{identity(tokens)[:32]}" for tokens in rendered]
        distinct = dict(zip(ids, zip(texts, rendered, strict=True), strict=True))
        problems = tuple(Problem(key, {"prompt": text}) for key, (text, _) in distinct.items())
        prompts = tuple(Prompt(f"{task.evaluator.name}/{key}", tokens) for key, (_, tokens) in distinct.items())
        return replace(task, problems=problems, prompts=prompts), ids

    def _render(self, cell: Cell, problems: Sequence[Problem]) -> tuple[Prompt, ...]:
        evaluator = self.evaluator(cell.evaluator)
        ids = self.prompts.render(cell, [evaluator.prompt(problem) for problem in problems])
        return tuple(Prompt(f"{evaluator.name}/{p.id}", tokens) for p, tokens in zip(problems, ids, strict=True))
