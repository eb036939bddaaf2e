"""A cell made ready to be evaluated: its evaluator, its items and their rendered prompts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, partial

from m3_exp.prompts import Prompts, check_texts
from m3_exp.scoring.evaluate import load_evaluator
from m3_exp.scoring.evaluator import Evaluator
from m3_exp.scoring.items import checked, digest, first
from m3_exp.store import Rendered, Store
from m3_exp.types import Cell, EvaluatorSpec, Problem, Prompt, Sampling, Source, identity


@dataclass(frozen=True)
class Task:
    """A cell's evaluator, items and rendered prompts. `prompts[i]` and `hashed[i]` belong to `problems[i]`."""

    cell: Cell
    evaluator: Evaluator
    problems: tuple[Problem, ...]
    items_digest: str  # identity of the item set with its rows and rendered prompts
    render: Callable[[], tuple[Prompt, ...]] = field(compare=False)
    repeat: int = 0  # above 0: the same once more, in another order and with half the batch
    known: tuple[str, ...] = field(default=(), compare=False)  # `hashed`, as far as the store remembers it

    @cached_property
    def prompts(self) -> tuple[Prompt, ...]:
        """The prompts as token ids, rendered when they are first asked for: a tokenizer is slow to open."""
        return self.render()

    @property
    def ids(self) -> list[str]:
        """The ids of the prompts."""
        return [f"{self.evaluator.name}/{problem.id}" for problem in self.problems]

    @property
    def hashed(self) -> Sequence[str]:
        """The identity of each prompt (`Prompt.hashed`), which every answer to it holds."""
        return self.known or [prompt.hashed for prompt in self.prompts]

    @property
    def sampling(self) -> Sampling:
        return self.evaluator.sampling

    @property
    def answers(self) -> int:
        """How many answers it takes."""
        return len(self.problems) * self.sampling.n

    def examples(self, prompt: str) -> tuple[str | None, str | None]:
        """Return an answer to a prompt, by its id, that scores 1 and one that scores 0, as far as there are any."""
        problem = self._problem_of.get(prompt)
        try:
            return (self.evaluator.gold(problem), self.evaluator.wrong(problem)) if problem else (None, None)
        except Exception:  # the wall: a plugin's own, or a prompt that is no item
            return None, None

    @cached_property
    def _problem_of(self) -> dict[str, Problem]:
        return dict(zip(self.ids, self.problems, strict=True))

    def in_order(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """Return prompts of this task in the order they are asked: as they are, each repeat in an order of its own."""
        if not self.repeat:
            return list(prompts)
        return sorted(prompts, key=lambda prompt: identity([self.repeat, prompt.id]))


class Tasks:
    """Makes cells ready; remembers evaluators, items, prompts and tokenizers while it lives."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.prompts = Prompts(store)
        self._keys: dict[int, tuple[EvaluatorSpec, str]] = {}
        self._evaluators: dict[str, Evaluator] = {}
        self._items: dict[str, Sequence[Problem]] = {}
        self._problems: dict[tuple[str, int | None], tuple[Problem, ...]] = {}
        self._rows: dict[tuple[str, int | None], str] = {}
        self._rendered: dict[tuple[str, int | None, Source], tuple[Rendered, Callable[[], tuple[Prompt, ...]]]] = {}

    def key(self, spec: EvaluatorSpec) -> str:
        """Return a benchmark's identity; many cells share one object, so it is computed once for each."""
        known = self._keys.get(id(spec))
        if known is None or known[0] is not spec:
            known = self._keys[id(spec)] = spec, identity(spec)
        return known[1]

    def evaluator(self, spec: EvaluatorSpec) -> Evaluator:
        key = self.key(spec)
        if key not in self._evaluators:
            self._evaluators[key] = load_evaluator(spec)
        return self._evaluators[key]

    def problems(self, cell: Cell) -> tuple[Problem, ...]:
        """Return a cell's items: all, or the first `limit` in the order of their hashes."""
        spec, key = cell.evaluator, (self.key(cell.evaluator), cell.limit)
        if key not in self._problems:
            if key[0] not in self._items:
                self._items[key[0]] = checked(self.evaluator(spec).problems(spec.items), spec.name)
            self._problems[key] = tuple(first(self._items[key[0]], self.evaluator(spec).name, cell.limit))
        return self._problems[key]

    def rows_digest(self, cell: Cell, limit: int | None) -> str:
        """Return the identity of a cell's items, or of its first `limit` ones: their ids and rows, without prompts."""
        key = (self.key(cell.evaluator), limit)
        if key not in self._rows:
            self._rows[key] = digest(self.problems(replace(cell, limit=limit)))
        return self._rows[key]

    def task(self, cell: Cell, repeat: int = 0) -> Task:
        """Load a cell's items, and render its prompts to token ids where the store does not know their digest.

        Raises:
            M3Error: items or tokenizer not at hand, or a prompt that would begin with two BOS tokens.
        """
        evaluator, problems = self.evaluator(cell.evaluator), self.problems(cell)
        key = (self.key(cell.evaluator), cell.limit, cell.tokenizer)
        if key not in self._rendered:
            self._rendered[key] = self._digested(cell, problems)
        known, render = self._rendered[key]
        return Task(cell, evaluator, problems, known.items_digest, render, repeat, known.hashed)

    def prepared(self, task: Task, problems: Sequence[Problem]) -> Task:
        """Return the task with the items that its evaluator made. Its digest stays that of the items they came from."""
        texts = [task.evaluator.prompt(problem) for problem in problems]
        prompts = self._render(task.cell, problems, texts)
        return replace(task, problems=tuple(problems), render=lambda: prompts, known=())

    def asked(self, task: Task, texts: Sequence[str]) -> tuple[Task, list[str]]:
        """Return a task of the prompts that an evaluator asks while it makes its items, equal ones once.

        Beside it: the id of each text of `texts` in that task.
        """
        rendered = self.prompts.render(task.cell, texts)
        ids = [f"ask-{identity(tokens)[:32]}" for tokens in rendered]
        distinct = dict(zip(ids, zip(texts, rendered, strict=True), strict=True))
        problems = tuple(Problem(key, {"prompt": text}) for key, (text, _) in distinct.items())
        prompts = tuple(Prompt(f"{task.evaluator.name}/{key}", tokens) for key, (_, tokens) in distinct.items())
        return replace(task, problems=problems, render=lambda: prompts, known=()), ids

    def _digested(self, cell: Cell, problems: Sequence[Problem]) -> tuple[Rendered, Callable[[], tuple[Prompt, ...]]]:
        """Return the digests of items with their prompts, and what renders these."""
        reader = self.prompts.rendered_by(cell)  # first: where the tokenizer is not at hand, no prompt is made
        evaluator = self.evaluator(cell.evaluator)
        texts = [evaluator.prompt(problem) for problem in problems]
        check_texts(cell, texts)
        render = cache(partial(self._render, cell, problems, texts))
        rows = [[problem.id, problem.row] for problem in problems]
        key = identity([reader, rows, texts])
        known = self._store.rendered.get(key)
        if known is None:
            prompts = render()
            digest_of_all = identity([[*row, prompt.token_ids] for row, prompt in zip(rows, prompts, strict=True)])
            known = Rendered(digest_of_all, tuple(prompt.hashed for prompt in prompts))
            self._store.rendered.put(key, known)
        return known, render

    def _render(self, cell: Cell, problems: Sequence[Problem], texts: Sequence[str]) -> tuple[Prompt, ...]:
        name, rendered = self.evaluator(cell.evaluator).name, self.prompts.render(cell, texts)
        return tuple(Prompt(f"{name}/{p.id}", tokens) for p, tokens in zip(problems, rendered, strict=True))
