"""The answers of one task that are on disk: what is there, what is missing, what was refused."""

from collections import Counter
from collections.abc import Sequence

from m3_exp.store import Answers, StoredAnswer
from m3_exp.tasks import Task
from m3_exp.types import Answer, Prompt


class TaskAnswers:
    """The answers to one task: read from a journal, then completed by `take`, which writes to the journal first.

    If the journal has several answers for a sample, the first one counts. `refused` maps the id of a prompt without an
    answer to the reason. `runs` holds the ids of the runs that wrote the answers.
    """

    def __init__(self, task: Task, journal: Answers) -> None:
        self.task = task
        self.refused: dict[str, str] = {}
        self.runs: set[str] = set()
        self._journal = journal
        self._known: dict[tuple[str, int], StoredAnswer] = {}
        self._hashes = {prompt.id: prompt.hashed for prompt in task.prompts}
        for answer in journal.read():
            if self._hashes.get(answer.id) == answer.prompt:
                self._add(answer)

    def __len__(self) -> int:
        return len(self._known)

    def take(self, answer: Answer, run: str) -> None:
        if answer.finish == "refused":
            self.refused[answer.id] = answer.text or "the prompt is longer than the engine's max_model_len"
            return
        stored = StoredAnswer(**{**vars(answer), "prompt": self._hashes[answer.id], "run": run})
        self._journal.append(stored)
        self._add(stored)

    def missing(self) -> list[Prompt]:
        samples = range(self.task.sampling.n)
        return [
            p
            for p in self.task.prompts
            if p.id not in self.refused and any((p.id, sample) not in self._known for sample in samples)
        ]

    def refuse_silent(self, batch: Sequence[Prompt]) -> None:
        """Refuse the prompts of a finished batch that have no answer, so that they are not asked again and again."""
        missing = {prompt.id for prompt in self.missing()}
        self.refused |= {prompt.id: "the engine gave no answer" for prompt in batch if prompt.id in missing}

    def in_order(self) -> list[Answer]:
        """Return the answers in the order of the items, under the items' own ids."""
        return [
            Answer(problem.id, known.text, sample, known.n_tokens, known.finish)
            for problem, prompt in zip(self.task.problems, self.task.prompts, strict=True)
            for sample in range(self.task.sampling.n)
            if (known := self._known.get((prompt.id, sample)))
        ]

    def _add(self, answer: StoredAnswer) -> None:
        key = (answer.id, answer.sample)
        if key not in self._known and answer.sample < self.task.sampling.n:
            self._known[key] = answer
            self.runs.add(answer.run)


def complete_items(answers: Sequence[Answer], samples: int) -> list[Answer]:
    """Leave out items of which a sample is missing: they are unscored, not scored on fewer samples."""
    counts = Counter(answer.id for answer in answers)
    return [answer for answer in answers if counts[answer.id] == samples]
